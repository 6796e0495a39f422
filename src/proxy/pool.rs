//! Idle connections to one backend, last in, first out, and who waits for one.
//!
//! Pure: what an idle connection *is* is the caller's affair; this knows only how long it has been idle.

use crate::clock::Tick;
use std::collections::VecDeque;
use std::time::Duration;

/// The connections of one child to one backend. `L` is a connection, `W` somebody who waits.
#[derive(Debug)]
pub struct Pool<L, W> {
    idle: VecDeque<(Tick, L)>,
    waiting: VecDeque<W>,
    /// Connections in use or idle.
    open: u32,
    max: u32,
    ttl: Duration,
}

/// What a request that needs a connection gets.
#[derive(Debug, Eq, PartialEq)]
pub enum Lease<L> {
    /// One that has served before.
    Reused(L),
    /// The right to open one; [`Pool::closed`] gives it back.
    Open,
    /// None: the backend's `max` is reached.
    Full,
}

impl<L, W> Pool<L, W> {
    /// At most `max` connections at one time; idle ones live for `ttl`.
    #[must_use]
    pub fn new(max: u32, ttl: Duration) -> Self {
        Self { idle: VecDeque::new(), waiting: VecDeque::new(), open: 0, max: max.max(1), ttl }
    }

    /// Takes the connection that became idle last, or the right to open one.
    pub fn lease(&mut self) -> Lease<L> {
        if let Some((_, link)) = self.idle.pop_back() {
            return Lease::Reused(link);
        }
        self.open_one()
    }

    /// Takes the right to open a fresh connection, whatever is idle.
    pub fn open_one(&mut self) -> Lease<L> {
        if self.open >= self.max {
            return Lease::Full;
        }
        self.open += 1;
        Lease::Open
    }

    /// A connection that was refused because of `max` will be told when one is free.
    pub fn wait(&mut self, who: W) {
        self.waiting.push_back(who);
    }

    /// Somebody waits no longer. Whether they were in the line.
    pub fn leave(&mut self, is_it: impl Fn(&W) -> bool) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|who| !is_it(who));
        self.waiting.len() != before
    }

    /// Whoever has waited longest: somebody who had been told of a place does not take it.
    pub fn next_in_line(&mut self) -> Option<W> {
        self.waiting.pop_front()
    }

    /// Gives a connection back for the next request. Returns who has waited longest, who must ask again.
    pub fn release(&mut self, link: L, now: Tick) -> Option<W> {
        self.idle.push_back((now, link));
        self.waiting.pop_front()
    }

    /// A connection that was leased is no more. Returns who has waited longest, who must ask again.
    pub fn closed(&mut self) -> Option<W> {
        debug_assert!(self.open > 0, "closed more than was opened");
        self.open = self.open.saturating_sub(1);
        self.waiting.pop_front()
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

    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn the_last_idle_one_is_taken_first() {
        let mut pool: Pool<u32, ()> = Pool::new(9, TTL);
        assert_eq!(pool.lease(), Lease::Open);
        assert_eq!(pool.lease(), Lease::Open);
        pool.release(1, Tick(0));
        pool.release(2, Tick(5));
        assert_eq!(pool.lease(), Lease::Reused(2));
        assert_eq!(pool.lease(), Lease::Reused(1));
    }

    #[test]
    fn at_max_one_waits_until_another_is_released_or_closed() {
        let mut pool: Pool<u32, char> = Pool::new(1, TTL);
        assert_eq!(pool.lease(), Lease::Open);
        assert_eq!(pool.lease(), Lease::Full);
        pool.wait('a');
        pool.wait('b');
        assert_eq!(pool.release(1, Tick(0)), Some('a'));
        assert_eq!(pool.lease(), Lease::Reused(1));
        assert_eq!(pool.closed(), Some('b'));
        assert_eq!(pool.lease(), Lease::Open);
    }

    #[test]
    fn idle_ones_expire_oldest_first() {
        let mut pool: Pool<u32, ()> = Pool::new(9, TTL);
        for (link, since) in [(1, 0), (2, 30_000), (3, 60_000)] {
            assert_eq!(pool.open_one(), Lease::Open);
            pool.release(link, Tick(since));
        }
        assert_eq!(pool.deadline(), Some(Tick(60_000)));
        assert_eq!(pool.expired(Tick(59_999)), Vec::<u32>::new());
        assert_eq!(pool.expired(Tick(90_000)), [1, 2]);
        assert_eq!(pool.remove(|link| *link == 3), Some(3));
        assert_eq!(pool.deadline(), None);
    }
}
