//! Idle connections to one backend, last in, first out, and the line of those who wait for one.
//!
//! Pure: what an idle connection *is* is the caller's affair; this knows only how long it has been idle.
//!
//! Under `max` the first in the line is the first served. Whoever is told that a place is free has not got it yet: it
//! has to ask. Until it does it keeps its place in the line, and as many places as there are such are kept free: who
//! comes meanwhile stands behind them. So that no free place lies idle while somebody waits, as many are told as there
//! are places free, or all: each call that frees one says who is to be told of it.

use crate::clock::Tick;
use std::collections::VecDeque;
use std::time::Duration;

/// The connections of one child to one backend. `L` is a connection, `W` somebody who waits.
#[derive(Debug)]
pub struct Pool<L, W> {
    idle: VecDeque<(Tick, L)>,
    /// Who waits for a connection; whoever has been told of one stays until it asks or leaves.
    line: VecDeque<Waiter<W>>,
    /// Connections in use or idle.
    open: u32,
    max: u32,
    ttl: Duration,
}

#[derive(Debug)]
struct Waiter<W> {
    who: W,
    told: bool,
}

/// What a request that needs a connection gets.
#[derive(Debug, Eq, PartialEq)]
pub enum Lease<L> {
    /// One that has served before.
    Reused(L),
    /// The right to open one; [`Pool::closed`] gives it back.
    Open,
    /// None: the backend's `max` is reached, or others come first. Who asked stands in the line.
    Full,
}

impl<L, W: Copy + Eq> Pool<L, W> {
    /// At most `max` connections at one time; idle ones live for `ttl`.
    #[must_use]
    pub fn new(max: u32, ttl: Duration) -> Self {
        Self { idle: VecDeque::new(), line: VecDeque::new(), open: 0, max: max.max(1), ttl }
    }

    /// Takes the connection that became idle last, or the right to open one, for `who`; or else they are in the line,
    /// and will be told when to ask again. Who asks without having been told keeps their place in it.
    pub fn lease(&mut self, who: W) -> Lease<L> {
        if self.line.is_empty() || self.has_its_turn(who) {
            if let Some((_, link)) = self.idle.pop_back() {
                return Lease::Reused(link);
            }
            if self.open < self.max {
                self.open += 1;
                return Lease::Open;
            }
        }
        self.line_up(who)
    }

    /// Whether a place is free for `who`, although there is a line. If so, they are in it no more.
    #[cold]
    fn has_its_turn(&mut self, who: W) -> bool {
        let free = self.idle.len() + self.max.saturating_sub(self.open) as usize;
        let Some(at) = self.line.iter().position(|waiter| waiter.who == who) else {
            return free > self.line.iter().filter(|waiter| waiter.told).count();
        };
        let waiter = &mut self.line[at];
        // More may have been told than there are places, where some died: then the places are of those who came first.
        if waiter.told && at < free {
            self.line.remove(at);
            return true;
        }
        // Told in vain, if at all: it will be told again, in its place.
        waiter.told = false;
        false
    }

    #[cold]
    fn line_up(&mut self, who: W) -> Lease<L> {
        if !self.line.iter().any(|waiter| waiter.who == who) {
            self.line.push_back(Waiter { who, told: false });
        }
        Lease::Full
    }

    /// The idle connection that had been leased is of no use, and closed: another one for it, or the right to open one
    /// in its place.
    pub fn instead(&mut self) -> Lease<L> {
        match self.idle.pop_back() {
            Some((_, link)) => {
                self.open = self.open.saturating_sub(1);
                Lease::Reused(link)
            }
            None => Lease::Open,
        }
    }

    /// Somebody waits no longer, if they did. Returns who must ask again: they may have been told of a place, which goes
    /// to the next in the line then.
    #[must_use]
    pub fn leave(&mut self, who: W) -> Option<W> {
        let at = self.line.iter().position(|waiter| waiter.who == who)?;
        if self.line.remove(at)?.told { self.next_in_line() } else { None }
    }

    /// Gives a connection back for the next request. Returns who must ask again.
    #[must_use]
    pub fn release(&mut self, link: L, now: Tick) -> Option<W> {
        self.idle.push_back((now, link));
        self.next_in_line()
    }

    /// A connection that was leased is no more. Returns who must ask again.
    #[must_use]
    pub fn closed(&mut self) -> Option<W> {
        debug_assert!(self.open > 0, "closed more than was opened");
        self.open = self.open.saturating_sub(1);
        self.next_in_line()
    }

    /// Whoever has waited longest and has not been told of a place; they are told now.
    fn next_in_line(&mut self) -> Option<W> {
        if self.line.is_empty() {
            return None;
        }
        let waiter = self.line.iter_mut().find(|waiter| !waiter.told)?;
        waiter.told = true;
        Some(waiter.who)
    }

    /// Takes out an idle connection that turned out to be dead; the caller reports [`Pool::closed`].
    pub fn remove(&mut self, is_it: impl Fn(&L) -> bool) -> Option<L> {
        let place = self.idle.iter().position(|(_, link)| is_it(link))?;
        self.idle.remove(place).map(|(_, link)| link)
    }

    /// Takes out what has been idle for too long; each is reported by [`Pool::closed`].
    pub fn expired(&mut self, now: Tick) -> Vec<L> {
        let mut gone = Vec::new();
        while let Some((since, _)) = self.idle.front() {
            if now < since.after(self.ttl) {
                break;
            }
            gone.extend(self.idle.pop_front().map(|(_, link)| link));
        }
        gone
    }

    /// When [`Pool::expired`] has something next.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        self.idle.front().map(|(since, _)| since.after(self.ttl))
    }

    /// How many are idle.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn the_last_idle_one_is_taken_first() {
        let mut pool: Pool<u32, char> = Pool::new(9, TTL);
        assert_eq!(pool.lease('a'), Lease::Open);
        assert_eq!(pool.lease('b'), Lease::Open);
        assert_eq!(pool.release(1, Tick(0)), None);
        assert_eq!(pool.release(2, Tick(5)), None);
        assert_eq!(pool.lease('a'), Lease::Reused(2));
        assert_eq!(pool.instead(), Lease::Reused(1), "2 was dead");
        assert_eq!(pool.instead(), Lease::Open, "1 was dead, too");
        assert_eq!(pool.open, 1);
    }

    #[test]
    fn who_waits_is_served_in_the_order_of_the_line() {
        /// What happens, and what comes of it.
        enum Step {
            Asks(char, Lease<u32>),
            Leaves(char, Option<char>),
            Released(Option<char>),
            Closed(Option<char>),
            /// An idle one is found dead, and not reported yet.
            Dies,
        }
        use Step::{Asks, Closed, Dies, Leaves, Released};
        let reused = || Lease::Reused(7);
        for (why, max, steps) in [
            (
                "one who has been told gets the place, not one who comes before it asks",
                1,
                vec![
                    Asks('a', Lease::Open),
                    Asks('b', Lease::Full),
                    Released(Some('b')),
                    Asks('a', Lease::Full),
                    Asks('b', reused()),
                    Closed(Some('a')),
                    Asks('a', Lease::Open),
                    Released(None),
                    Asks('c', reused()),
                ],
            ),
            (
                "who asks unasked keeps its place, and gets none",
                1,
                vec![
                    Asks('a', Lease::Open),
                    Asks('b', Lease::Full),
                    Asks('c', Lease::Full),
                    Asks('b', Lease::Full),
                    Released(Some('b')),
                    Asks('c', Lease::Full),
                    Asks('b', reused()),
                    Released(Some('c')),
                ],
            ),
            (
                "who leaves, told, passes it on; who leaves otherwise does not",
                1,
                vec![
                    Asks('a', Lease::Open),
                    Asks('b', Lease::Full),
                    Asks('c', Lease::Full),
                    Asks('d', Lease::Full),
                    Leaves('c', None),
                    Released(Some('b')),
                    Leaves('b', Some('d')),
                    Leaves('b', None),
                    Asks('d', reused()),
                ],
            ),
            (
                "told in vain: first in the line all the same",
                1,
                vec![
                    Asks('a', Lease::Open),
                    Asks('b', Lease::Full),
                    Asks('c', Lease::Full),
                    Released(Some('b')),
                    Dies,
                    Asks('b', Lease::Full),
                    Closed(Some('b')),
                    Asks('b', Lease::Open),
                ],
            ),
            (
                "told of a place that died, it does not overtake who was told before",
                1,
                vec![
                    Asks('a', Lease::Open),
                    Asks('b', Lease::Full),
                    Asks('c', Lease::Full),
                    Released(Some('b')),
                    Dies,
                    Closed(Some('c')),
                    Asks('c', Lease::Full),
                    Asks('b', Lease::Open),
                    Closed(Some('c')),
                    Asks('c', Lease::Open),
                ],
            ),
            (
                "places beyond those that are kept free are anybody's",
                2,
                vec![
                    Asks('a', Lease::Open),
                    Asks('b', Lease::Open),
                    Asks('c', Lease::Full),
                    Closed(Some('c')),
                    Closed(None),
                    Asks('d', Lease::Open),
                    Asks('e', Lease::Full),
                    Asks('c', Lease::Open),
                    Released(Some('e')),
                ],
            ),
        ] {
            let mut pool: Pool<u32, char> = Pool::new(max, TTL);
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Asks(who, want) => assert_eq!(pool.lease(who), want, "{why}: {number}"),
                    Leaves(who, want) => assert_eq!(pool.leave(who), want, "{why}: {number}"),
                    Released(want) => assert_eq!(pool.release(7, Tick(0)), want, "{why}: {number}"),
                    Closed(want) => assert_eq!(pool.closed(), want, "{why}: {number}"),
                    Dies => assert_eq!(pool.remove(|_| true), Some(7), "{why}: {number}"),
                }
            }
        }
    }

    proptest! {
        /// Whatever happens: never more than `max`, nobody waits while a place is free and nobody is told of it, and who
        /// has come later is not served before.
        #[test]
        fn a_free_place_is_told_of_to_the_longest_waiting(
            max in 1..=3u32,
            history in prop::collection::vec((0..6u8, 0..8u32), 1..120),
        ) {
            let mut pool: Pool<(), u32> = Pool::new(max, TTL);
            // The same by other means: who has a connection, who waits, who has been told, which are dead but not reported.
            let (mut served, mut line, mut called, mut dead) = (0, Vec::new(), Vec::new(), 0);
            for (step, who) in history {
                let told = match step {
                    // Those who have been called ask more often than newcomers.
                    0 | 1 => {
                        let who = if step == 1 { called.first().copied().unwrap_or(who) } else { who };
                        let was_called = called.contains(&who);
                        let places = (max - served - dead) as usize;
                        called.retain(|other| *other != who);
                        match pool.lease(who) {
                            Lease::Full => {
                                if !line.contains(&who) {
                                    line.push(who);
                                }
                            }
                            _ => {
                                served += 1;
                                let ahead = line.iter().take_while(|other| **other != who);
                                prop_assert!(was_called || !line.contains(&who));
                                prop_assert!(ahead.clone().all(|other| called.contains(other)), "{who} barged");
                                prop_assert!(!line.contains(&who) || ahead.count() < places, "{who} barged");
                                line.retain(|other| *other != who);
                            }
                        }
                        None
                    }
                    2 if served > 0 => {
                        served -= 1;
                        pool.release((), Tick(0))
                    }
                    3 if served > 0 => {
                        served -= 1;
                        pool.closed()
                    }
                    4 => {
                        line.retain(|other| *other != who);
                        called.retain(|other| *other != who);
                        pool.leave(who)
                    }
                    5 if dead > 0 => {
                        dead -= 1;
                        pool.closed()
                    }
                    _ => {
                        dead += u32::from(pool.remove(|()| true).is_some());
                        None
                    }
                };
                if let Some(who) = told {
                    prop_assert!(line.contains(&who) && !called.contains(&who));
                    called.push(who);
                }
                let taken: u32 = served + dead;
                prop_assert!(taken + pool.idle() as u32 <= max);
                let free = (max - taken) as usize;
                let mut first = line.iter().take(free);
                prop_assert!(first.all(|who| called.contains(who)), "{free} free, {line:?}, told {called:?}");
            }
        }
    }

    #[test]
    fn idle_ones_expire_oldest_first() {
        let mut pool: Pool<u32, u32> = Pool::new(9, TTL);
        for (link, since) in [(1, 0), (2, 30_000), (3, 60_000)] {
            pool.open += 1;
            assert_eq!(pool.release(link, Tick(since)), None);
        }
        assert_eq!(pool.deadline(), Some(Tick(60_000)));
        assert_eq!(pool.expired(Tick(59_999)), Vec::<u32>::new());
        assert_eq!(pool.expired(Tick(90_000)), [1, 2]);
        assert_eq!(pool.remove(|link| *link == 3), Some(3));
        assert_eq!(pool.deadline(), None);
    }
}
