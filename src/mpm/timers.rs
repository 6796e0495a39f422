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

/// So many deadlines are worth a look at whether all of them are wanted still.
const MANY: usize = 1024;

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

    /// `deadline` as it will fire: rounded up, and [`Tick::NEVER`] if that never comes.
    #[must_use]
    pub fn rounded(deadline: Tick) -> Tick {
        Tick(deadline.0.div_ceil(GRAIN).saturating_mul(GRAIN))
    }

    /// When a further entry fires, if one is needed: of a connection that is to be looked at at `deadline`, and whose last
    /// entry fires (or has fired) at `scheduled`. [`Tick::NEVER`] if there is nothing to be looked at any more.
    #[must_use]
    pub fn further(deadline: Tick, scheduled: Tick, now: Tick) -> Option<Tick> {
        let at = Self::rounded(deadline);
        (at < scheduled || scheduled <= now).then_some(at)
    }

    /// Asks for `due` at `deadline` (rounded up). Whether it is now the earliest: a leader that sleeps longer
    /// must be woken. Who is not `wanted` any more is forgotten before room is made for more.
    pub fn schedule(&self, deadline: Tick, due: Due, wanted: impl Fn(&Due) -> bool) -> bool {
        let at = Self::rounded(deadline);
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        if heap.len() == heap.capacity() && heap.len() >= MANY {
            heap.retain(|Reverse((_, due))| wanted(due));
            // Half of it is free afterwards, so that this is not done for each of those that come next.
            let room = heap.capacity() / 2;
            heap.reserve(room);
            self.note_next(&heap);
        }
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
        self.note_next(&heap);
    }

    /// Forgets who is not `wanted` any more, and gives back what room they took. An entry stays until it fires
    /// otherwise, which may be an hour after its connection has gone.
    pub fn give_back(&self, wanted: impl Fn(&Due) -> bool) {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        heap.retain(|Reverse((_, due))| wanted(due));
        heap.shrink_to_fit();
        self.note_next(&heap);
    }

    fn note_next(&self, heap: &BinaryHeap<Reverse<(Tick, Due)>>) {
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
        assert!(timers.schedule(Tick(500), Due::Pool(BackendId(5)), |_| true));
        assert!(timers.schedule(Tick(101), Due::Pool(BackendId(1)), |_| true), "earlier");
        assert!(!timers.schedule(Tick(900), Due::Pool(BackendId(9)), |_| true), "later");
        assert_eq!(timers.next(), Tick(150), "rounded up to the grain");
        let mut found = Vec::new();
        timers.take_due(Tick(149), &mut found);
        assert_eq!(found, []);
        timers.take_due(Tick(500), &mut found);
        assert_eq!(found, [(Tick(150), Due::Pool(BackendId(1))), (Tick(500), Due::Pool(BackendId(5)))]);
        assert_eq!(timers.next(), Tick(900));
    }

    #[test]
    fn a_deadline_that_stays_or_moves_later_makes_no_further_entry() {
        for (deadline, scheduled, now, want) in [
            (960, 1000, 10, None),
            (951, 1000, 10, None),
            (1000, 1000, 999, None),
            (2000, 1000, 10, None),
            (950, 1000, 10, Some(950)),
            (20, 1000, 10, Some(50)),
            (960, 1000, 1000, Some(1000)),
            (2001, 1000, 1000, Some(2050)),
            (960, Tick::NEVER.0, 10, Some(1000)),
            (Tick::NEVER.0, Tick::NEVER.0, 10, None),
            (Tick::NEVER.0, 1000, 10, None),
            (Tick::NEVER.0, 1000, 1000, Some(Tick::NEVER.0)),
        ] {
            let found = Timers::further(Tick(deadline), Tick(scheduled), Tick(now));
            assert_eq!(found, want.map(Tick), "{deadline} {scheduled} {now}");
        }
    }

    #[test]
    fn who_is_gone_is_forgotten_and_the_others_stay() {
        let timers = Timers::default();
        for number in 1..=1000 {
            timers.schedule(Tick(u64::from(number) * 50), Due::Pool(BackendId(number)), |_| true);
        }
        let room = || timers.heap.lock().expect("no panic").capacity();
        assert!(room() >= 1000);
        timers.give_back(|due| matches!(due, Due::Pool(BackendId(id)) if id % 100 == 0));
        assert!(room() < 100, "{}", room());
        assert_eq!(timers.next(), Tick(5000));
        let mut found = Vec::new();
        timers.take_due(Tick(u64::MAX - 1), &mut found);
        assert_eq!(found.len(), 10);
        assert!(found.is_sorted());
        timers.give_back(|_| false);
        assert_eq!(timers.next(), Tick::NEVER);
    }

    #[test]
    fn those_that_come_and_go_take_no_more_room_than_those_that_are_there() {
        let timers = Timers::default();
        for number in 1..=100_000 {
            let there = |due: &Due| matches!(due, Due::Pool(BackendId(id)) if id + 50 > number);
            timers.schedule(Tick(u64::from(number) * 50), Due::Pool(BackendId(number)), there);
        }
        let heap = timers.heap.lock().expect("no panic");
        assert!(heap.capacity() <= 2 * MANY, "{}", heap.capacity());
        assert!(heap.len() >= 50);
        assert_eq!(heap.peek().map(|Reverse((at, _))| *at), Some(timers.next()));
    }
}
