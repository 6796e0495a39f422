//! A child's connections to its backends: which are idle, who waits for one, what is known of their health.

use super::child::Child;
use super::conn::Conn;
use super::relay::Active;
use super::table::{News, Posted};
use super::timers::Due;
use super::tokens::Aged;
use super::upstream::{Idle, Link, Links, Place};
use crate::clock::{Moment, Tick};
use crate::ids::BackendId;
use crate::log::line::{cause, notice};
use crate::proxy::session::Phase;
use mio::Registry;
use slog::error;
use std::io;
use std::sync::atomic::Ordering;

impl Child {
    pub(super) fn place(&self, id: BackendId) -> &Place {
        &self.places[id.index()]
    }

    pub(super) fn links(&self) -> Option<&Links> {
        self.event.as_ref().map(|event| &event.links)
    }

    pub(super) fn watch(&self) -> Option<(&Registry, &Links)> {
        self.event.as_ref().map(|event| (&self.registry, &event.links))
    }

    /// Closes one idle connection, to whichever backend, because descriptors have run out. Whether there was one.
    pub(super) fn give_up_an_idle_link(&self) -> bool {
        for (index, place) in self.places.iter().enumerate() {
            let oldest = place.pool().remove(|_| true);
            if let Some(idle) = oldest {
                self.close_idle(BackendId(u32::try_from(index).expect("fewer than 2^32 backends")), idle);
                return true;
            }
        }
        false
    }

    /// Tells whoever waited for a place at this backend: a connection of an event child, or the thread of a worker child
    /// that serves the connection, whose number is the thread's.
    fn tell(&self, id: BackendId, mut waiter: Option<Aged>) {
        while let Some(who) = waiter {
            let Some(event) = &self.event else {
                self.bells[who.index as usize].signal();
                return;
            };
            waiter = match event.table.post(who, News::LINK) {
                Posted::Queue => {
                    self.lead.push(who.index);
                    return;
                }
                Posted::Noted => return,
                // It has left, so the next in the line has been told already; whatever ended it, nobody waits for it.
                Posted::Gone => self.place(id).pool().leave(who),
            };
        }
    }

    pub(super) fn close_idle(&self, id: BackendId, idle: Idle) {
        idle.close(self.links());
        self.link_closed(id);
    }

    pub(super) fn link_closed(&self, id: BackendId) {
        let waiter = self.place(id).pool().closed();
        self.tell(id, waiter);
    }

    /// Keeps a connection for the next request.
    pub(super) fn release(&self, id: BackendId, link: Link, now: Moment) {
        let place = self.place(id);
        let (waiter, needs_timer) = {
            let mut pool = place.pool();
            // Under the pool's lock, so that an edge finds either the owner or the pool.
            let idle = link.rest(self.links());
            let waiter = pool.release(idle, now.tick());
            (waiter, place.needs_timer())
        };
        self.tell(id, waiter);
        match &self.event {
            Some(event) if needs_timer => {
                self.schedule(event, now.tick().after(self.config.backend(id).ttl), Due::Pool(id));
            }
            Some(_) => {}
            None => {
                let at = now.tick().after(self.config.backend(id).ttl).0;
                if self.sweep_at.fetch_min(at, Ordering::SeqCst) > at {
                    // It may sleep longer than that, or for ever.
                    self.wake_steward();
                }
            }
        }
    }

    /// Closes what has been idle for longer than `ttl`.
    pub(super) fn sweep(&self, id: BackendId, now: Tick) {
        let place = self.place(id);
        let (gone, next) = {
            let mut pool = place.pool();
            let gone = pool.expired(now);
            let next = pool.deadline();
            if next.is_none() {
                // Still under the pool's lock: whoever releases a connection next asks for a timer again.
                place.timer_done();
            }
            (gone, next)
        };
        for idle in gone {
            self.close_idle(id, idle);
        }
        if let (Some(event), Some(at)) = (&self.event, next) {
            self.schedule(event, at, Due::Pool(id));
        }
    }

    /// The steward's share of the sweeping, where no timer does it.
    pub(super) fn sweep_if_unwatched(&self, now: Tick) {
        if self.event.is_none() {
            self.sweep_all(now);
        }
    }

    /// Closes old idle connections where no timer does (worker, prefork). Costs a look at one number unless some
    /// are due.
    pub(super) fn sweep_all(&self, now: Tick) {
        if now < self.next_sweep() {
            return;
        }
        // Before the look: a connection that rests from now on is heard of, whether or not the look sees it.
        self.sweep_at.store(Tick::NEVER.0, Ordering::Relaxed);
        let mut next = Tick::NEVER;
        for index in 0..self.places.len() {
            let id = BackendId(u32::try_from(index).expect("a configuration has fewer than 2^32 backends"));
            if self.place(id).pool().deadline().is_some_and(|at| at <= now) {
                self.sweep(id, now);
            }
            next = next.min(self.place(id).pool().deadline().unwrap_or(Tick::NEVER));
        }
        self.sweep_at.fetch_min(next.0, Ordering::Relaxed);
    }

    /// When [`Child::sweep_all`] has something to do.
    pub(super) fn next_sweep(&self) -> Tick {
        Tick(self.sweep_at.load(Ordering::SeqCst))
    }

    /// An edge on a connection that nobody uses: the backend has closed it, or says what nobody asked for.
    pub(super) fn idle_edge(&self, id: BackendId, ticket: Aged) {
        let found = self.place(id).pool().remove(|idle| idle.is(ticket));
        if let Some(idle) = found {
            self.close_idle(id, idle);
        }
    }

    /// An exchange that waited for a place at its backend waits no more. If it had just been told of one, the next
    /// in the line is told instead.
    pub(super) fn leave_place(&self, conn: &mut Conn, active: &Active) {
        if conn.session.phase() != Phase::Place {
            return;
        }
        let Some(id) = active.exchange.backend() else { return };
        let next = self.place(id).pool().leave(conn.who);
        self.tell(id, next);
    }

    pub(super) fn backend_works(&self, id: BackendId) {
        if let Some(count) = self.place(id).health.worked() {
            let meanwhile = match count {
                0 => String::new(),
                count => format!("; {count} requests were answered with 503 meanwhile"),
            };
            notice!(self.log, "{}: can be reached again{meanwhile}", self.config.backend(id).url;
                "module" => "proxy");
        }
    }

    pub(super) fn backend_fails(&self, id: BackendId, fault: &io::Error, now: Moment) {
        let backend = self.config.backend(id);
        if self.place(id).health.failed(now.tick(), backend.retry) {
            let next = if backend.retry.is_zero() {
                "the next request tries again".to_owned()
            } else {
                format!("next try in {} s", backend.retry.as_secs())
            };
            error!(self.log, "{}: cannot be reached: {}; {next}", backend.url, cause(fault); "module" => "proxy");
        }
    }
}
