//! How an exchange gets its connection to a backend: an idle one, a place in the line for one, or a fresh one, at
//! one address after the other.

use super::child::Child;
use super::conn::{Conn, Scratch};
use super::relay::{Active, Flow};
use super::table::News;
use super::upstream::{self, Link, Watch};
use crate::clock::Moment;
use crate::config::model::Endpoint;
use crate::ids::BackendId;
use crate::log::line::cause;
use crate::proxy::exchange::Failure;
use crate::proxy::pool::Lease;
use crate::proxy::session::Phase;
use crate::sys::socket;
use nix::errno::Errno;
use slog::debug;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

impl Conn {
    /// Gets a connection to the backend: an idle one, or a fresh one.
    pub(super) fn obtain(
        &mut self,
        active: &mut Active,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        if self.session.phase() == Phase::Place && !self.ready.has(News::LINK) {
            return Flow::Blocked;
        }
        self.ready.0 &= !News::LINK.0;
        let id = active.exchange.backend().expect("an exchange without a backend has been answered");
        let place = child.place(id);
        if !place.health.may_try(now.tick()) {
            return self.turned_away(active, id, child, scratch, now);
        }
        if active.marks.begun == Moment(0) {
            active.marks.begun = now;
        }
        let mut pool = place.pool();
        let mut lease = pool.lease(self.who);
        loop {
            match lease {
                Lease::Full => {
                    drop(pool);
                    self.session.wait_for_place(now.tick());
                    return Flow::Blocked;
                }
                Lease::Reused(idle) => {
                    let links = child.links().map(|links| (links, self.who));
                    let look = links.is_none() || active.exchange.is_precious();
                    // Still under the pool's lock: an edge finds either the pool or the new owner.
                    let lent = idle.lend(links, look);
                    drop(pool);
                    match lent {
                        Ok(link) => {
                            active.marks.attempts += 1;
                            return self.linked(active, link, id, child, now);
                        }
                        Err(idle) => idle.close(child.links()),
                    }
                    pool = place.pool();
                    lease = pool.instead();
                }
                Lease::Open => {
                    drop(pool);
                    return self.dial(active, id, 0, child, scratch, now);
                }
            }
        }
    }

    /// The connection that had served before was closed by the backend: a fresh one takes its place, so that the second
    /// try neither meets the same fate nor stands in the line again.
    pub(super) fn dial_anew(
        &mut self,
        active: &mut Active,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        let id = active.exchange.backend().expect("a request that is repeated has a backend");
        if !child.place(id).health.may_try(now.tick()) {
            return self.turned_away(active, id, child, scratch, now);
        }
        self.close_link(active, child);
        self.dial(active, id, 0, child, scratch, now)
    }

    /// The backend is left alone for a while, since it does not work.
    #[cold]
    fn turned_away(
        &mut self,
        active: &mut Active,
        id: BackendId,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        // A place that it may have been told of goes to the next in the line.
        child.leave_place(self, active);
        child.place(id).health.turn_away();
        self.backend_failed(active, &Failure::LeftAlone, child, scratch, now)
    }

    /// Opens a connection to the backend's address number `address`; the right to do so has been leased.
    #[inline(never)]
    fn dial(
        &mut self,
        active: &mut Active,
        id: BackendId,
        address: usize,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        let backend = child.config.backend(id);
        let watch = child.watch().map(|(registry, links)| Watch { registry, links, who: self.who });
        active.marks.attempts += 1;
        active.marks.address = address;
        active.marks.dialled = now;
        child.block.backend(id).connects.fetch_add(1, Relaxed);
        let link = loop {
            match upstream::connect(id, backend, address, watch) {
                // An idle one's descriptor serves as well.
                Err(error) if is_out_of_descriptors(&error) && child.give_up_an_idle_link() => {}
                link => break link,
            }
        };
        match link {
            Ok(link) if link.connecting => {
                active.link = Some(link);
                self.ready.0 &= !(News::UPSTREAM_WRITE.0 | News::UPSTREAM_READ.0 | News::UPSTREAM_CLOSED.0);
                self.session.connecting(now.tick());
                Flow::Blocked
            }
            Ok(link) => {
                child.backend_works(id);
                self.linked(active, link, id, child, now)
            }
            Err(error) => self.connect_failed(active, id, address, &error, child, scratch, now),
        }
    }

    #[inline(never)]
    pub(super) fn await_connect(
        &mut self,
        active: &mut Active,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        if !self.ready.has(News::UPSTREAM_WRITE) {
            return Flow::Blocked;
        }
        let id = active.exchange.backend().expect("somebody is being connected");
        let mut link = active.link.take().expect("a connect is under way");
        match socket::connect_outcome(link.fd.as_fd()) {
            Ok(()) => {
                link.connecting = false;
                child.backend_works(id);
                // The edge that told of the connect may have told of a response, too.
                let seen = self.ready.0 & (News::UPSTREAM_READ.0 | News::UPSTREAM_CLOSED.0);
                let flow = self.linked(active, link, id, child, now);
                self.ready.0 |= seen;
                flow
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A late edge of another socket: the connect is still under way.
                active.link = Some(link);
                self.ready.0 &= !News::UPSTREAM_WRITE.0;
                Flow::Blocked
            }
            Err(error) => {
                let address = link.address;
                link.close(child.links());
                self.connect_failed(active, id, address, &error, child, scratch, now)
            }
        }
    }

    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn connect_failed(
        &mut self,
        active: &mut Active,
        id: BackendId,
        address: usize,
        error: &io::Error,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        let backend = child.config.backend(id);
        if let Endpoint::Tcp { addresses, .. } = &backend.endpoint
            && address + 1 < addresses.len()
        {
            debug!(child.log, "{}: cannot connect to {}: {}; trying the next address",
                backend.url, addresses[address], cause(error); "module" => "proxy");
            return self.dial(active, id, address + 1, child, scratch, now);
        }
        child.link_closed(id);
        let failure = if is_shortage(error) {
            Failure::Resources(cause(error))
        } else {
            child.backend_fails(id, error, now);
            Failure::Connect(cause(error))
        };
        self.backend_failed(active, &failure, child, scratch, now)
    }

    /// The connection to the backend is there; the request's head goes first.
    fn linked(&mut self, active: &mut Active, link: Link, id: BackendId, child: &Child, now: Moment) -> Flow {
        // Old news were about another socket, and a socket is tried before it is waited for.
        self.ready.0 &= !(News::UPSTREAM_READ.0 | News::UPSTREAM_CLOSED.0);
        self.ready |= News::UPSTREAM_WRITE;
        let counters = child.block.backend(id);
        counters.requests.fetch_add(1, Relaxed);
        counters.busy.fetch_add(1, Relaxed);
        if link.reused {
            counters.reused.fetch_add(1, Relaxed);
        }
        active.marks.reused = link.reused;
        active.marks.address = link.address;
        active.marks.connected = now;
        active.link = Some(link);
        active.head_due = true;
        self.session.connected(now.tick());
        Flow::Moved
    }

    /// The backend's address is silent: the next one is tried, if there is one.
    #[cold]
    pub(super) fn connect_timed_out(
        &mut self,
        active: &mut Active,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
    ) -> Flow {
        let id = active.exchange.backend().expect("somebody is being connected");
        if let (Endpoint::Tcp { addresses, .. }, Some(link)) =
            (&child.config.backend(id).endpoint, active.link.take_if(|link| link.connecting))
        {
            let next = link.address + 1;
            link.close(child.links());
            if next < addresses.len() {
                return self.dial(active, id, next, child, scratch, now);
            }
            child.link_closed(id);
        }
        child.backend_fails(id, &io::Error::from(io::ErrorKind::TimedOut), now);
        self.backend_failed(active, &Failure::ConnectTimeout, child, scratch, now)
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

/// Whether a connect failed for want of something of ours (or of room in a socket's backlog), which is not held
/// against the backend.
fn is_shortage(error: &io::Error) -> bool {
    // ENOSPC: as many descriptors are watched as one user may (fs.epoll.max_user_watches).
    const OURS: [Errno; 7] = [
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOBUFS,
        Errno::ENOMEM,
        Errno::ENOSPC,
        Errno::EADDRNOTAVAIL,
        Errno::EAGAIN,
    ];
    error.raw_os_error().is_some_and(|code| OURS.contains(&Errno::from_raw(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_are_short_of_is_not_held_against_the_backend() {
        for (errno, ours) in [
            (Errno::EMFILE, true),
            (Errno::ENFILE, true),
            (Errno::ENOBUFS, true),
            (Errno::ENOMEM, true),
            (Errno::ENOSPC, true),
            (Errno::EADDRNOTAVAIL, true),
            (Errno::EAGAIN, true),
            (Errno::ECONNREFUSED, false),
            (Errno::ECONNRESET, false),
            (Errno::EHOSTUNREACH, false),
            (Errno::ENETUNREACH, false),
            (Errno::ETIMEDOUT, false),
            (Errno::ENOENT, false),
            (Errno::EACCES, false),
        ] {
            assert_eq!(is_shortage(&errno.into()), ours, "{errno}");
        }
        assert!(!is_shortage(&io::Error::other("its name resolves to no address")));
    }
}
