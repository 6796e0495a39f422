//! Deadlines of a child: when does somebody have to look again?
//!
//! A connection has at most one live entry. Its deadline moves with almost every step, so moving it later costs
//! nothing: the entry fires, the connection finds that it is not due yet and asks for a new one. Only a deadline
//! that moves earlier makes a new entry, and the old one is then told by its connection to mean nothing.

use super::tokens::Aged;
use crate::clock::Tick;
use crate::ids::BackendId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Deadlines are rounded up to a multiple of this many milliseconds, so that many fire in one wake-up.
const GRAIN: u64 = 50;

/// Who is due.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Due {
    /// A connection.
    Connection(Aged),
    /// The idle connections to a backend.
    Pool(BackendId),
}

/// All deadlines of a child.
#[derive(Debug)]
pub struct Timers {
    heap: Mutex<BinaryHeap<Reverse<(Tick, Due)>>>,
    /// The earliest entry, for a look without the lock.
    next: AtomicU64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { heap: Mutex::default(), next: AtomicU64::new(Tick::NEVER.0) }
    }
}

impl Timers {
    /// The earliest deadline; [`Tick::NEVER`] if there is none.
    #[must_use]
    pub fn next(&self) -> Tick {
        Tick(self.next.load(Ordering::SeqCst))
    }

    /// `deadline` as it will fire: rounded up.
    #[must_use]
    pub fn rounded(deadline: Tick) -> Tick {
        Tick(deadline.0.div_ceil(GRAIN).saturating_mul(GRAIN))
    }

    /// Asks for `due` at `deadline` (rounded up). Whether it is now the earliest: a leader that sleeps longer
    /// must be woken.
    pub fn schedule(&self, deadline: Tick, due: Due) -> bool {
        let at = Self::rounded(deadline);
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        heap.push(Reverse((at, due)));
        if at < self.next() {
            self.next.store(at.0, Ordering::SeqCst);
            true
        } else {
            false
        }
    }

    /// Moves everything due at `now` into `found`.
    pub fn take_due(&self, now: Tick, found: &mut Vec<(Tick, Due)>) {
        if now < self.next() {
            return;
        }
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Reverse((at, due))) = heap.peek().copied() {
            if now < at {
                break;
            }
            heap.pop();
            found.push((at, due));
        }
        if heap.capacity() > 1024 && heap.len() < heap.capacity() / 4 {
            heap.shrink_to(512);
        }
        let next = heap.peek().map_or(Tick::NEVER, |Reverse((at, _))| *at);
        self.next.store(next.0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_fire_in_order_and_not_before_their_time() {
        let timers = Timers::default();
        assert_eq!(timers.next(), Tick::NEVER);
        assert!(timers.schedule(Tick(500), Due::Pool(BackendId(5))));
        assert!(timers.schedule(Tick(101), Due::Pool(BackendId(1))), "earlier");
        assert!(!timers.schedule(Tick(900), Due::Pool(BackendId(9))), "later");
        assert_eq!(timers.next(), Tick(150), "rounded up to the grain");
        let mut found = Vec::new();
        timers.take_due(Tick(149), &mut found);
        assert_eq!(found, []);
        timers.take_due(Tick(500), &mut found);
        assert_eq!(found, [(Tick(150), Due::Pool(BackendId(1))), (Tick(500), Due::Pool(BackendId(5)))]);
        assert_eq!(timers.next(), Tick(900));
    }
}
