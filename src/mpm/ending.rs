//! How an exchange ends: in good order, with an answer of our own, or in the middle.
//!
//! All but [`Conn::part`] and [`Conn::finish`] is rare, and out of the way of what every request runs through.

use super::child::Child;
use super::conn::{Conn, Scratch, Step};
use super::relay::{Active, Flow};
use super::table::News;
use crate::clock::Moment;
use crate::ids::BackendId;
use crate::log::line::{Client, cause};
use crate::proxy::exchange::{Aftermath, Failure, Refusal};
use crate::proxy::session::{Expiry, Phase};
use crate::sys::socket;
use slog::debug;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

impl Conn {
    /// The backend has sent its last byte.
    #[inline(never)]
    pub(super) fn upstream_ended(
        &mut self,
        active: &mut Active,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        if active.exchange.is_tunnel() {
            active.backend_eof = true;
            return Flow::Blocked;
        }
        scratch.out.clear();
        match active.exchange.response_ended(&mut scratch.out) {
            Ok(()) => {
                self.session.client_asked(now.tick());
                let sent = self.send_client(&[], &scratch.out);
                match sent {
                    Ok(count) => active.bytes_out += count as u64,
                    Err(error) => return self.client_failed(active, &error, child),
                }
                active.excess = true;
                Flow::Moved
            }
            Err(_) => self.upstream_ended_early(active, child, scratch, now),
        }
    }

    /// The backend is gone before its response was whole. The one place where a request is sent a second time.
    #[cold]
    pub(super) fn upstream_ended_early(
        &mut self,
        active: &mut Active,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        if active.exchange.is_tunnel() {
            return Flow::Dead;
        }
        let repeat = active
            .link
            .as_ref()
            .is_some_and(|link| link.reused && active.exchange.may_repeat(link.responded));
        if repeat {
            debug!(child.log, "the backend closed a kept-alive connection, request repeated on a fresh one";
                "module" => "proxy", "client" => %Client(self.peer));
            return self.dial_anew(active, child, scratch, now);
        }
        self.backend_failed(active, &Failure::Closed, child, scratch, now)
    }

    /// Closes the backend's connection.
    #[inline(never)]
    pub(super) fn drop_link(&mut self, active: &mut Active, child: &Child) {
        if let Some(id) = self.close_link(active, child) {
            child.link_closed(id);
        }
    }

    /// The same, but that its place among the backend's connections stays ours: that backend's, if there was one.
    pub(super) fn close_link(&mut self, active: &mut Active, child: &Child) -> Option<BackendId> {
        active.up.pipe = None;
        let (link, id) = active.link.take().zip(active.exchange.backend())?;
        if !link.connecting {
            child.block.backend(id).busy.fetch_sub(1, Relaxed);
        }
        link.close(child.links());
        Some(id)
    }

    /// The exchange is over for the backend: its connection goes to the pool, if both sides agree that it may.
    pub(super) fn part(&mut self, active: &mut Active, child: &Child, now: Moment) {
        active.excess |=
            self.ready.has(News::UPSTREAM_READ) && active.link.as_ref().is_some_and(|link| !link.is_quiet());
        let keep = active.exchange.backend_may_be_kept() && !active.excess && active.up.pipe.is_none();
        match active.link.take() {
            Some(mut link)
                if keep
                    && !link.deaf
                    && link.backlog.is_empty()
                    && !self.ready.has(News::UPSTREAM_CLOSED) =>
            {
                let id = active.exchange.backend().expect("a link has a backend");
                child.block.backend(id).busy.fetch_sub(1, Relaxed);
                link.doubtful = active.exchange.response_may_be_misframed();
                child.release(id, link, now);
            }
            link => {
                active.link = link;
                self.drop_link(active, child);
            }
        }
    }

    /// The backend failed: the client learns of it, by an answer or by the end of its connection.
    #[cold]
    pub(super) fn backend_failed(
        &mut self,
        active: &mut Active,
        failure: &Failure,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        self.drop_link(active, child);
        if let Some(id) = active.exchange.backend() {
            child.block.backend(id).failures.fetch_add(1, Relaxed);
            child.log_failure(id, self.peer, failure);
        }
        scratch.out.clear();
        let cx = child.context(self, &mut scratch.date, now);
        let aftermath = active.exchange.fail(failure, &cx, &mut scratch.out);
        self.after(active, aftermath, child, scratch, now)
    }

    /// The client's request is not taken any further.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        active: &mut Active,
        refusal: &Refusal,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        child.log_refusal(self.peer, refusal);
        self.drop_link(active, child);
        scratch.out.clear();
        let cx = child.context(self, &mut scratch.date, now);
        let aftermath = active.exchange.refuse(refusal, &cx, &mut scratch.out);
        self.after(active, aftermath, child, scratch, now)
    }

    #[cold]
    fn after(
        &mut self,
        active: &mut Active,
        aftermath: Aftermath,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        match aftermath {
            Aftermath::Cut => Flow::Dead,
            Aftermath::Answered => {
                active.capture_answer(&scratch.out, child);
                if matches!(self.session.phase(), Phase::Place | Phase::Connect) {
                    // It waits for nobody but its client now.
                    self.session.connected(now.tick());
                }
                self.session.client_asked(now.tick());
                match self.send_client(&[], &scratch.out) {
                    Ok(count) => {
                        active.bytes_out += count as u64;
                        Flow::Moved
                    }
                    Err(error) => self.client_failed(active, &error, child),
                }
            }
        }
    }

    #[cold]
    pub(super) fn client_failed(&mut self, active: &mut Active, error: &io::Error, child: &Child) -> Flow {
        debug!(child.log, "the client is gone: {}", cause(error); "module" => "core", "client" => %Client(self.peer));
        active.exchange.cut();
        Flow::Dead
    }

    /// One of an exchange's deadlines has passed.
    #[cold]
    pub(super) fn exchange_expired(
        &mut self,
        expiry: Expiry,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Step {
        let mut active = self.active.take().expect("in these phases an exchange is under way");
        let flow = match expiry {
            Expiry::Body => self.refuse(&mut active, &Refusal::TooSlow, child, scratch, now),
            Expiry::Expect => {
                scratch.out.clear();
                active.exchange.ask_for_body(&mut scratch.out);
                self.session.body_begins(now.tick());
                self.after(&mut active, Aftermath::Answered, child, scratch, now)
            }
            Expiry::Connect => self.connect_timed_out(&mut active, child, scratch, now),
            Expiry::Place => {
                child.leave_place(self, &active);
                self.backend_failed(&mut active, &Failure::NoPlace, child, scratch, now)
            }
            _ => self.backend_failed(&mut active, &Failure::Timeout, child, scratch, now),
        };
        self.active = Some(active);
        if flow == Flow::Dead {
            self.abandon(child, scratch, now);
            return Step::Over;
        }
        Step::Moved
    }

    /// The exchange is complete: it is logged, gives its row back, and the connection goes on or ends.
    pub(super) fn finish(
        &mut self,
        mut active: Box<Active>,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Step {
        let keep = active.exchange.client_may_be_kept();
        child.record(self, &mut active, keep, now);
        child.give_row(self);
        // Behind a body clients send what is no part of it, and a close with unread bytes is a reset.
        let linger = !keep
            && (active.exchange.must_linger()
                || !self.rest.is_empty()
                || (active.exchange.had_a_body() && !socket::is_quiet(self.client.as_fd())));
        active.reset();
        scratch.spare(active);
        if keep {
            self.again = !self.rest.is_empty();
            self.next_request(child, now);
            return Step::Moved;
        }
        self.rest = Vec::new();
        if linger { self.begin_linger(child, now) } else { Step::Over }
    }

    /// The client's connection ends in the middle of whatever was under way.
    pub(super) fn abandon(&mut self, child: &Child, scratch: &mut Scratch, now: Moment) {
        if let Some(active) = self.active.take() {
            self.cut_off(active, child, scratch, now);
        }
    }

    #[cold]
    fn cut_off(&mut self, mut active: Box<Active>, child: &Child, scratch: &mut Scratch, now: Moment) {
        let tunnel = active.exchange.is_tunnel();
        self.drop_link(&mut active, child);
        child.leave_place(self, &active);
        if !tunnel {
            if active.exchange.ends_by_close() {
                // An orderly close would make what the client has got look whole.
                let _ = socket::reset_on_close(self.client.as_fd());
            }
            active.exchange.cut();
        }
        child.record(self, &mut active, false, now);
        child.give_row(self);
        active.reset();
        scratch.spare(active);
    }
}
