//! When and how a child leaves: what it still accepts, how long the idle may stay, and when it is over.

use super::child::Child;
use super::handover::HandOver;
use crate::clock::Tick;
use crate::orders::Heir;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a child whose master is gone accepts what waits.
const LAST_ACCEPTS: Duration = Duration::from_secs(1);

impl Child {
    /// Whether the child takes nothing new.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Takes nothing new from now on. Idle kept-alive connections are handed over if `heir` takes them; others stay for
    /// `grace`, and the next response on each says that it closes.
    pub(super) fn begin_leaving(&self, grace: Duration, heir: Heir) {
        let now = self.read_clock();
        if heir == Heir::Nobody {
            self.doors.mark_all_last();
        }
        let until = now.tick().after(grace).0;
        if self.idle_until.swap(until, Ordering::SeqCst) > until {
            self.hurries.store(true, Ordering::SeqCst);
        }
        // Said first: a response that ends now would close a connection that others take over.
        if let Some(over) = &self.hand_over {
            over.leaving(heir == Heir::TakesOver);
        }
        if !self.leaving.swap(true, Ordering::SeqCst) {
            self.block.quiescing();
            self.leave.signal();
        }
    }

    /// The master is gone: what waits is taken, but not for ever. Nobody tells the kernel to drop new connections
    /// now (whoever takes the sockets over would hear none), and the next master wants the addresses.
    pub(super) fn begin_leaving_orphaned(&self) {
        let until = self.read_clock().tick().after(LAST_ACCEPTS);
        self.accept_until.store(until.0, Ordering::SeqCst);
        self.begin_leaving(self.keep_alive_grace(), Heir::Nobody);
    }

    /// Closes the listeners of a child whose master is gone once their time is over, also while all its threads are
    /// busy. Whether they are closed.
    pub(super) fn close_in_time(&self, now: Tick) -> bool {
        let is_late = self.accept_until.load(Ordering::SeqCst) <= now.0;
        if is_late && !self.doors.are_closed() {
            self.doors.close();
            self.perhaps_over();
        }
        is_late
    }

    /// The grace of a child that leaves without an order: what its kept-alive clients have been promised, at most
    /// GracefulReloadTimeout.
    pub(super) fn keep_alive_grace(&self) -> Duration {
        let promised = self.config.hosts.iter().map(|host| host.keep_alive.timeout).max().unwrap_or_default();
        promised.min(self.config.graceful_reload_timeout.unwrap_or(Duration::MAX))
    }

    /// Whether the last connection of a leaving child is gone; then it ends.
    pub(super) fn perhaps_over(&self) {
        let takes_back = || self.hand_over.as_ref().is_some_and(HandOver::has_to_take_back);
        if self.is_leaving()
            && self.open.load(Ordering::SeqCst) == 0
            && self.doors.are_closed()
            && !takes_back()
        {
            self.over.signal();
        }
    }

    /// Somebody is about to accept: the child is not over before whoever comes has been counted. To be held over each
    /// accept, since other threads may close listeners, or end their connections, at any time.
    pub(super) fn expecting(&self) -> Expecting<'_> {
        self.open.fetch_add(1, Ordering::SeqCst);
        Expecting(self)
    }
}

/// What [`Child::expecting`] gives.
pub(super) struct Expecting<'a>(&'a Child);

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.perhaps_over();
        }
    }
}
