//! From the bytes of a request head to an exchange that has a worker row.

use super::child::{Child, Gauge};
use super::conn::{Conn, REQUEST, Scratch, Step};
use super::relay::Active;
use super::table::News;
use crate::clock::Moment;
use crate::http::{Fault, FoundRequest, Reason, RequestHead};
use crate::log::line::{Client, cause};
use crate::proxy::exchange::{Arrival, Begun, Desk, Refusal};
use crate::proxy::session::Phase;
use crate::scoreboard::state::WorkerState;
use crate::sys::socket::{self, Peek};
use slog::{debug, info};
use std::io;
use std::os::fd::AsFd;

impl Conn {
    pub(super) fn read_head(
        &mut self,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
        moved: &mut usize,
    ) -> Step {
        let length = if self.again {
            // A whole head that waited for a row, or bytes that came behind the request before.
            self.again = false;
            self.scan.reset();
            let length = self.rest.len();
            scratch.input[..length].copy_from_slice(&self.rest);
            self.drop_rest();
            length
        } else {
            if self.eof {
                return Step::Over;
            }
            if !self.ready.has(News::CLIENT_READ) {
                return Step::Blocked;
            }
            if self.row.is_none() && self.rest.is_empty() && child.has_no_row() {
                // Only who has something to ask stands in the line: who waits there is not closed as idle.
                match socket::peek(self.client.as_fd()) {
                    Ok(Peek::Readable) => {}
                    Ok(Peek::Quiet) => {
                        self.ready.0 &= !News::CLIENT_READ.0;
                        return Step::Blocked;
                    }
                    Ok(Peek::Closed) => return Step::Over,
                    Err(error) => {
                        self.say_unreadable(&error, child);
                        return Step::Over;
                    }
                }
            }
            // Before it is read: once two threads have each read a head and only one row is left, the other request could
            // be passed on to no sibling any more, however many rows are free there.
            if self.row.is_none()
                && self.session.phase() == Phase::Idle
                && !child.rows_are_held_by_connections()
                && !self.line_up(self.rest.is_empty(), child, now)
            {
                // The request stays unread in the kernel, and has its place in the line.
                return Step::Blocked;
            }
            let have = self.rest.len();
            match self.read_client(scratch) {
                Ok(Some(0)) => {
                    if have > 0 && self.scan.has_begun() {
                        self.say_cut_short(have, child);
                    }
                    return Step::Over;
                }
                Ok(Some(count)) => have + count,
                Ok(None) => {
                    child.give_row(self);
                    return Step::Blocked;
                }
                Err(error) => {
                    self.say_unreadable(&error, child);
                    return Step::Over;
                }
            }
        };
        let Scratch { input, slots, .. } = &mut *scratch;
        let (bytes, limits) = (&input[..length], child.head_limits(self.host));
        match RequestHead::find(&mut self.scan, bytes, slots, limits) {
            Ok(Some(found)) => {
                if self.row.is_none() && !self.line_up(false, child, now) {
                    self.again = true;
                    self.keep_rest(&scratch.input[..length]);
                    return Step::Blocked;
                }
                *moved += REQUEST;
                self.begin(found, length, child, scratch, now)
            }
            Ok(None) if length >= scratch.input.len() => {
                let fault = Fault::request(Reason::HeadTooLarge);
                self.refuse_head(&Refusal::Malformed(fault), length, child, scratch, now)
            }
            Ok(None) => {
                if self.scan.has_begun() {
                    self.session.head_bytes(length, now.tick());
                    self.gauge(Gauge::Heads, child);
                }
                child.give_row(self);
                if child.rows_are_held_by_connections() {
                    self.set_state(WorkerState::Read, child);
                }
                self.keep_rest(&scratch.input[..length]);
                Step::Moved
            }
            Err(fault) => self.refuse_head(&Refusal::Malformed(fault), length, child, scratch, now),
        }
    }

    #[cold]
    fn say_cut_short(&self, have: usize, child: &Child) {
        info!(child.log, "the client closed in the middle of a request head ({have} bytes)";
            "module" => "core", "client" => %Client(self.peer));
    }

    #[cold]
    fn say_unreadable(&self, error: &io::Error, child: &Child) {
        debug!(child.log, "reading a request: {}", cause(error); "module" => "core", "client" => %Client(self.peer));
    }

    /// Takes a worker row, or a place in the line of those who wait for one; `unread`: nothing of its request has been
    /// read. Whether it has a row.
    fn line_up(&mut self, unread: bool, child: &Child, now: Moment) -> bool {
        self.row = child.take_row(self.who, unread);
        if self.row.is_none() {
            self.session.wait_for_row(now.tick());
            self.gauge(Gauge::Heads, child);
        }
        self.row.is_some()
    }

    /// In the line for a row: has one been granted?
    pub(super) fn wait_for_row(&mut self, now: Moment) -> Step {
        if self.row.is_none() {
            return Step::Blocked;
        }
        self.session.resume_head(!self.rest.is_empty(), now.tick());
        Step::Moved
    }

    /// A head that makes no sense, or is too large: an answer, and the end.
    #[cold]
    pub(super) fn refuse_head(
        &mut self,
        refusal: &Refusal,
        length: usize,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Step {
        let mut active = child.active(scratch, now);
        active.bytes_in = length as u64;
        self.session.begin(now.tick());
        self.scan.reset();
        let line = &scratch.input[..length];
        let end = memchr::memchr2(b'\r', b'\n', line).unwrap_or(length);
        child.log_refusal(self.peer, refusal);
        active.capture_garbage(&line[..end], child, self.host);
        child.show_request(self.row, self.peer, self.host, &line[..end], "-", now);
        let mut out = std::mem::take(&mut scratch.out);
        out.clear();
        let cx = child.context(self, &mut scratch.date, now);
        active.exchange.set_host(self.host);
        active.exchange.refuse(refusal, &cx, &mut out);
        active.capture_answer(&out, child);
        self.active = Some(active);
        let outcome = self.send_client(&[], &out);
        scratch.out = out;
        self.ready.0 |= News::CLIENT_READ.0;
        self.count_out(&outcome);
        if outcome.is_err() {
            self.abandon(child, scratch, now);
            Step::Over
        } else {
            Step::Moved
        }
    }

    /// A whole head is at the beginning of `scratch.input`, other bytes behind it up to `length`.
    fn begin(
        &mut self,
        found: FoundRequest,
        length: usize,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Step {
        let end = found.end;
        self.scan.reset();
        self.session.begin(now.tick());
        self.gauge(Gauge::Exchange, child);
        child.begun();
        let mut active = child.active(scratch, now);
        active.bytes_in = end as u64;
        let Scratch { input, out, slots, path, date, tid, .. } = scratch;
        out.clear();
        if let Some(row) = self.row {
            let writer = child.block.worker(row);
            writer.moved_by(*tid);
            writer.set_state(WorkerState::Write);
        }
        let cx = child.context(self, date, now);
        let limits = child.head_limits(self.host);
        let Active { exchange, capture, .. } = &mut *active;
        let peer = self.peer;
        let row = self.row;
        let begun = exchange.begin(
            &input[..end],
            Arrival { requests: self.session.requests(), more: length > end, limits, found },
            Desk { slots, path, out },
            &cx,
            &mut |head, host| {
                child.capture_request(head, host, capture);
                child.show_request(row, peer, host, head.line, head.version.name(), now);
            },
        );
        self.host = exchange.host();
        match begun {
            Begun::Forward(id) => {
                if let Some(row) = self.row {
                    child.block.worker(row).backend(id);
                }
            }
            Begun::Answered => {
                if exchange.record.status >= 400 {
                    child.say_answered(exchange.record.status, peer);
                }
            }
            Begun::Handle(handler) => {
                child.handle(handler, query_of(&input[..end]), exchange, &cx, out);
            }
            Begun::Refused(refusal) => {
                child.log_refusal(peer, &refusal);
                let line = &input[..memchr::memchr2(b'\r', b'\n', &input[..end]).unwrap_or(end)];
                active.capture_garbage(line, child, self.host);
                child.show_request(row, peer, self.host, line, "-", now);
                active.exchange.refuse(&refusal, &cx, out);
            }
        }
        self.again = length > end;
        self.keep_rest(&scratch.input[end..length]);
        active.capture_answer(&scratch.out, child);
        self.active = Some(active);
        if !scratch.out.is_empty() {
            let out = std::mem::take(&mut scratch.out);
            let outcome = self.send_client(&[], &out);
            scratch.out = out;
            self.count_out(&outcome);
            if outcome.is_err() {
                self.abandon(child, scratch, now);
                return Step::Over;
            }
        }
        Step::Moved
    }
}

/// The query of a request line that has been read already.
fn query_of(head: &[u8]) -> Option<&[u8]> {
    let target = head.split(|byte| *byte == b' ').nth(1)?;
    let mark = memchr::memchr(b'?', target)?;
    Some(&target[mark + 1..])
}
