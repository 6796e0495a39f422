//! An exchange's bytes, moved: the client's to the backend, the backend's to the client, as far as both go.
//!
//! What the bytes mean is decided in `proxy::exchange`; here they are read, handed over, gathered and sent. Back
//! pressure is one rule: nothing is read for a side that has a backlog.
//!
//! What fails or is rare is marked cold: out of the way of what every request runs through, which has to be fetched
//! anew after each call of the kernel.

use super::child::{Child, Gauge};
use super::conn::{Conn, Scratch, Step, send_gather};
use super::nap::Awaited;
use super::splice::Passing;
use super::table::News;
use super::upstream::{Link, Marks};
use crate::buf::Gather;
use crate::clock::{Moment, Tick};
use crate::http::{Fault, Reason};
use crate::ids::HostId;
use crate::log::line::cause;
use crate::log::{Capture, RequestFacts};
use crate::proxy::exchange::{Exchange, Failure, Refusal, Shown};
use crate::sys::socket;
use slog::debug;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::Relaxed;

/// An exchange under way, and its connection to a backend.
#[derive(Debug, Default)]
pub struct Active {
    /// What is said.
    pub exchange: Exchange,
    /// The backend's connection.
    pub link: Option<Link>,
    /// What the access log will want of the heads.
    pub capture: Capture,
    /// When the head was complete.
    pub started: Moment,
    /// The same on the wall clock, microseconds since 1970.
    pub started_wall: u64,
    /// Bytes of the request, head and framing included.
    pub bytes_in: u64,
    /// Bytes of the response, head and framing included.
    pub bytes_out: u64,
    /// How many of both the scoreboard has been told of already (tunnel).
    counted: (u64, u64),
    /// When what happened with the backend.
    pub marks: Marks,
    /// The request's head has not been given to the connection yet.
    pub(super) head_due: bool,
    /// The backend sent more than its response: nobody knows what that is.
    pub(super) excess: bool,
    /// The backend has sent its last byte (tunnel).
    pub(super) backend_eof: bool,
    /// The backend has been told that the client has sent its last byte (tunnel).
    backend_told: bool,
    /// The client has been told that the backend has sent its last byte (tunnel).
    pub(super) client_told: bool,
    /// How the response's body goes down to the client.
    pub(super) down: Passing,
    /// How the request's body goes up to the backend.
    pub(super) up: Passing,
}

/// A capture above this size is not carried over to the next exchange.
const KEEP_CAPTURE: usize = 4096;

impl Active {
    /// Ready for the next exchange; keeps small buffers. In place: it is done for each request.
    pub fn reset(&mut self) {
        let Self {
            exchange,
            link,
            capture,
            started,
            started_wall,
            bytes_in,
            bytes_out,
            counted,
            marks,
            head_due,
            excess,
            backend_eof,
            backend_told,
            client_told,
            down,
            up,
        } = self;
        exchange.reset();
        if capture.capacity() > KEEP_CAPTURE {
            *capture = Capture::new();
        }
        capture.clear();
        *link = None;
        *started = Moment(0);
        (*started_wall, *bytes_in, *bytes_out, *counted) = (0, 0, 0, (0, 0));
        *marks = Marks::default();
        *down = Passing::default();
        *up = Passing::default();
        for flag in [head_due, excess, backend_eof, backend_told, client_told] {
            *flag = false;
        }
    }

    /// Bytes of the request and of the response that the scoreboard has not been told of. Now it is.
    pub(super) fn uncounted(&mut self) -> (u64, u64) {
        let (bytes_in, bytes_out) = std::mem::replace(&mut self.counted, (self.bytes_in, self.bytes_out));
        (self.bytes_in.saturating_sub(bytes_in), self.bytes_out.saturating_sub(bytes_out))
    }

    /// What the access log shows of a head that could not be read.
    pub fn capture_garbage(&mut self, line: &[u8], child: &Child, host: HostId) {
        let facts = RequestFacts { line, ..RequestFacts::default() };
        child.access_logs(host).capture_request(&facts, |_| None, &mut self.capture);
    }

    /// What the access log shows of the head of our own answer: the one thing in `out`, if it is final.
    pub(super) fn capture_answer(&mut self, out: &Gather, child: &Child) {
        if self.exchange.has_answered()
            && let Some(bytes) = out.single(&[])
        {
            child.capture_response(bytes, self.exchange.host(), &mut self.capture);
        }
    }

    /// Whether bytes of the client can be passed on now.
    pub(super) fn takes_client_bytes(&self) -> bool {
        self.exchange.wants_request()
            && self
                .link
                .as_ref()
                .is_some_and(|link| !link.connecting && !link.deaf && link.backlog.is_empty())
            && self.up.pipe.is_none()
    }
}

/// How a round ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flow {
    /// Something was done; look again.
    Moved,
    /// Nothing can be done now.
    Blocked,
    /// The exchange is complete, and the client has all of it.
    Done,
    /// The client's connection can't be used any more.
    Dead,
}

impl Conn {
    /// One round of an exchange or a tunnel; `moved` counts the bytes of this turn.
    pub(super) fn relay(
        &mut self,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
        moved: &mut usize,
    ) -> Step {
        let mut active = self.active.take().expect("in these phases an exchange is under way");
        let round = catch_unwind(AssertUnwindSafe(|| self.round(&mut active, child, scratch, now, moved)));
        let flow = match round {
            Ok(flow) => flow,
            Err(payload) => {
                // Whoever closes the connection gives back what the exchange holds.
                self.active = Some(active);
                resume_unwind(payload);
            }
        };
        match flow {
            Flow::Moved => {
                self.active = Some(active);
                Step::Moved
            }
            Flow::Blocked => {
                self.active = Some(active);
                Step::Blocked
            }
            Flow::Done => self.finish(active, child, scratch, now),
            Flow::Dead => {
                self.active = Some(active);
                self.abandon(child, scratch, now);
                Step::Over
            }
        }
    }

    fn round(
        &mut self,
        active: &mut Active,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
        moved: &mut usize,
    ) -> Flow {
        if let Err(error) = self.flush_client(now.tick()) {
            return self.client_failed(active, &error, child);
        }
        if active.down.pipe.is_some()
            && let Err(error) = self.drain_response(active, child, now)
        {
            return self.client_failed(active, &error, child);
        }
        if active.exchange.is_over() {
            return self.over(active, child, now);
        }
        match &active.link {
            None => match self.obtain(active, child, scratch, now) {
                // There, and not still being connected: the head goes out at once.
                Flow::Moved if active.link.as_ref().is_some_and(|link| !link.connecting) => {}
                other => return other,
            },
            Some(link) if link.connecting => return self.await_connect(active, child, scratch, now),
            Some(_) => {}
        }
        let sent = self.feed_upstream(active, child, scratch, now, moved);
        if active.link.is_none() || matches!(sent, Flow::Done | Flow::Dead) {
            return sent;
        }
        match self.feed_client(active, child, scratch, now, moved) {
            Flow::Blocked if active.exchange.is_tunnel() => {
                child.count_tunnel(self, active);
                self.half_close(active, sent)
            }
            // The usual request is its head: then there is nothing to look for again.
            Flow::Blocked if !self.has_more_for_upstream(active) => Flow::Blocked,
            Flow::Blocked => sent,
            Flow::Moved if active.exchange.is_over() => self.over(active, child, now),
            got => got,
        }
    }

    /// The response is complete, and so is the exchange once the client has all of it.
    fn over(&mut self, active: &mut Active, child: &Child, now: Moment) -> Flow {
        self.part(active, child, now);
        if self.backlog.is_empty() && active.down.pipe.is_none() { Flow::Done } else { Flow::Blocked }
    }

    /// Whether another round could send something to the backend.
    fn has_more_for_upstream(&self, active: &Active) -> bool {
        active.takes_client_bytes() && !self.eof && (self.again || self.ready.has(News::CLIENT_READ))
    }

    /// In a tunnel each side's end is passed on to the other once it has all that came before.
    #[cold]
    fn half_close(&mut self, active: &mut Active, sent: Flow) -> Flow {
        let Some(link) = &active.link else { return Flow::Dead };
        if self.eof && !active.backend_told && link.backlog.is_empty() {
            active.backend_told = true;
            if socket::shutdown_write(link.fd.as_fd()).is_err() {
                return Flow::Dead;
            }
        }
        if active.backend_eof && !active.client_told && self.backlog.is_empty() {
            active.client_told = true;
            if socket::shutdown_write(self.client.as_fd()).is_err() {
                return Flow::Dead;
            }
        }
        if active.backend_told && active.client_told { Flow::Dead } else { sent }
    }

    /// Sends what the backend would not take earlier. Whether all of it is gone now.
    pub(super) fn flush_upstream(&mut self, link: &mut Link, now: Tick) -> io::Result<bool> {
        while !link.backlog.is_empty() && self.ready.has(News::UPSTREAM_WRITE) {
            match socket::send(link.fd.as_fd(), link.backlog.bytes()) {
                Ok(count) => {
                    link.backlog.advance(count);
                    self.session.upstream_moved(now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ready.0 &= !News::UPSTREAM_WRITE.0;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(link.backlog.is_empty())
    }

    /// The client's bytes to the backend.
    fn feed_upstream(
        &mut self,
        active: &mut Active,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
        moved: &mut usize,
    ) -> Flow {
        let Some(link) = active.link.as_mut() else { return Flow::Blocked };
        match self.flush_upstream(link, now.tick()) {
            Ok(true) => {}
            Ok(false) => return Flow::Blocked,
            Err(error) => return self.upstream_deaf(active, &error, child),
        }
        if active.up.pipe.is_some() {
            if let Err(error) = self.drain_request(active, child, now) {
                return self.upstream_deaf(active, &error, child);
            }
            if active.up.pipe.is_some() {
                return Flow::Blocked;
            }
        }
        if active.up.is_for(active.exchange.request_unseen())
            && let Some(flow) = self.splice_request(active, child, now, moved)
        {
            return flow;
        }
        scratch.out.clear();
        if active.head_due {
            active.head_due = false;
            scratch.out.push(active.exchange.request_head());
        }
        let mut length = 0;
        let mut counts = true;
        if active.takes_client_bytes() && !self.eof {
            if self.again {
                self.again = false;
                length = self.rest.len();
                active.bytes_in += length as u64;
                self.session.body_bytes(length);
                scratch.input[..length].copy_from_slice(&self.rest);
                self.rest = Vec::new();
            } else if self.ready.has(News::CLIENT_READ) {
                let have = self.rest.len();
                match self.read_client(scratch) {
                    Ok(None) => {}
                    Ok(Some(0)) if active.exchange.is_tunnel() => {}
                    Ok(Some(0)) => return self.refuse(active, &Refusal::CutShort, child, scratch, now),
                    Ok(Some(count)) => {
                        length = have + count;
                        active.bytes_in += length as u64;
                        *moved += count;
                        active.up.read(count);
                        self.session.body_bytes(count);
                        counts = self.body_counts(active, child, now);
                        if counts {
                            self.session.client_moved(now.tick());
                        }
                    }
                    Err(error) => return self.client_failed(active, &error, child),
                }
            }
        }
        if length > 0 {
            let (host, capture) = (active.exchange.host(), &mut active.capture);
            let mut observe = |trailers: &[u8]| child.capture_request_trailers(trailers, host, capture);
            let input = &scratch.input[..length];
            match active.exchange.request_bytes(input, 0, &mut observe, &mut scratch.out) {
                Ok(used) => {
                    // What belongs to the next request is counted with it.
                    active.bytes_in -= (length - used) as u64;
                    self.keep_rest(&scratch.input[used..length]);
                }
                Err(refusal) => return self.refuse(active, &refusal, child, scratch, now),
            }
        }
        if scratch.out.is_empty() {
            return if length > 0 { Flow::Moved } else { Flow::Blocked };
        }
        let link = active.link.as_mut().expect("it was there");
        let total = scratch.out.len();
        let sent = if self.ready.has(News::UPSTREAM_WRITE) {
            match send_gather(link.fd.as_fd(), &scratch.input, &scratch.out) {
                Ok(sent) => sent,
                Err(error) => return self.upstream_deaf(active, &error, child),
            }
        } else {
            0
        };
        if sent < total {
            self.ready.0 &= !News::UPSTREAM_WRITE.0;
            scratch.out.copy_from(&scratch.input, sent, &mut link.backlog);
        }
        if counts {
            self.session.upstream_moved(now.tick());
        }
        if let Some(id) = active.exchange.backend() {
            child.block.backend(id).bytes_out.fetch_add(total as u64, Relaxed);
        }
        Flow::Moved
    }

    /// Whether bytes of the client put off deadlines. Once the response has begun, those of a body that does not come in
    /// time (RequestReadTimeout) do not: no 408 can be said any more, and a client that dribbles must not keep a backend
    /// that has fallen silent from being given up.
    pub(super) fn body_counts(&self, active: &Active, child: &Child, now: Moment) -> bool {
        !active.exchange.has_answered()
            || active.exchange.is_tunnel()
            || self.session.body_is_in_time(child.config.host(self.host), now.tick())
    }

    /// The backend takes no more bytes. It may have answered before it closed, so its side is read to the end.
    #[cold]
    pub(super) fn upstream_deaf(&mut self, active: &mut Active, error: &io::Error, child: &Child) -> Flow {
        debug!(child.log, "sending to the backend: {}", cause(error); "module" => "proxy");
        if active.exchange.is_tunnel() {
            return Flow::Dead;
        }
        if let Some(link) = &mut active.link {
            link.deaf = true;
            link.backlog.clear();
        }
        active.up.pipe = None;
        self.ready |= News::UPSTREAM_READ | News::UPSTREAM_CLOSED;
        Flow::Moved
    }

    /// The backend's bytes to the client.
    fn feed_client(
        &mut self,
        active: &mut Active,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
        moved: &mut usize,
    ) -> Flow {
        if !self.backlog.is_empty()
            || active.down.pipe.is_some()
            || active.backend_eof
            || !self.ready.has(News::UPSTREAM_READ)
        {
            return Flow::Blocked;
        }
        if active.down.is_for(active.exchange.response_unseen())
            && let Some(flow) = self.splice_response(active, child, scratch, now, moved)
        {
            return flow;
        }
        let Some(link) = active.link.as_mut() else { return Flow::Blocked };
        let have = link.rest.len();
        if have >= scratch.input.len() {
            let fault = Fault::response(Reason::HeadTooLarge);
            return self.backend_failed(active, &Failure::Malformed(fault), child, scratch, now);
        }
        link.reading(child.links());
        let count = match scratch.receive(Awaited::Upstream, link.fd.as_fd(), have) {
            Ok(0) => return self.upstream_ended(active, child, scratch, now),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready.0 &= !News::UPSTREAM_READ.0;
                return Flow::Blocked;
            }
            Err(error) => {
                debug!(child.log, "reading from the backend: {}", cause(&error); "module" => "proxy");
                return self.upstream_ended_early(active, child, scratch, now);
            }
        };
        if have + count < scratch.input.len() && !self.ready.has(News::UPSTREAM_CLOSED) {
            // Less than there was room for: the next byte makes an edge of its own.
            self.ready.0 &= !News::UPSTREAM_READ.0;
        }
        *moved += count;
        active.down.read(count);
        if !link.responded {
            link.responded = true;
            active.marks.first_byte = now;
        }
        if let Some(id) = active.exchange.backend() {
            child.block.backend(id).bytes_in.fetch_add(count as u64, Relaxed);
        }
        self.session.upstream_moved(now.tick());
        scratch.input[..have].copy_from_slice(&link.rest);
        link.rest.clear();
        let total = have + count;
        let was_tunnel = active.exchange.is_tunnel();
        let expected = active.exchange.expects_continue();
        let host = active.exchange.host();
        let Scratch { input, out, slots, date, .. } = scratch;
        out.clear();
        let cx = child.context(self, date, now);
        let capture = &mut active.capture;
        let mut observe = |shown: Shown<'_>| match shown {
            Shown::Head(head) => child.capture_response(head, host, capture),
            Shown::Trailers(trailers) => child.capture_response_trailers(trailers, host, capture),
        };
        let outcome = active.exchange.response_bytes(&input[..total], 0, slots, &cx, &mut observe, out);
        if !out.is_empty() {
            out.join(input);
            self.session.client_asked(now.tick());
            let sent = self.send_client(input, out);
            match sent {
                Ok(count) => active.bytes_out += count as u64,
                Err(error) => return self.client_failed(active, &error, child),
            }
        }
        match outcome {
            Ok(used) => {
                if used < total {
                    if active.exchange.is_over() {
                        active.excess = true;
                    } else if let Some(link) = &mut active.link {
                        link.rest.extend_from_slice(&scratch.input[used..total]);
                    }
                }
                if expected && !active.exchange.expects_continue() {
                    self.session.body_begins(now.tick());
                }
                if active.exchange.is_tunnel() {
                    if was_tunnel {
                        child.count_tunnel(self, active);
                    } else {
                        self.become_tunnel(active, child, now);
                    }
                }
                Flow::Moved
            }
            Err(failure) => self.backend_failed(active, &failure, child, scratch, now),
        }
    }

    /// A tunnel holds no worker row under event, and neither idle nor request time-outs hold for it.
    #[cold]
    fn become_tunnel(&mut self, active: &mut Active, child: &Child, now: Moment) {
        self.session.tunnel(now.tick());
        self.gauge(Gauge::Tunnel, child);
        self.again = !self.rest.is_empty();
        if let Some(row) = self.row
            && !child.rows_are_held_by_connections()
        {
            let (bytes_in, bytes_out) = active.uncounted();
            child.block.worker(row).finish(now, None, bytes_in, bytes_out);
        }
        child.give_row(self);
    }
}
