//! Naps: when may a thread that serves one connection wait in the read itself?
//!
//! A request that is answered fast costs such a thread more for its two waits than for its bytes: poll(2) is told of
//! the client, the backend and the master each time, and the read is a second call. A read that waits is one call, and is
//! told of nothing. But whoever sleeps in it sees nothing else: no order, no other side's end, no deadline. So a nap is
//! short, is taken only where the last wait of its kind was short, and between naps the thread looks up. A connection of
//! one request takes none: to let a read wait costs more than it saves once.

use super::conn::{BUFFER, Conn, Scratch};
use super::table::News;
use crate::clock::Tick;
use crate::proxy::session::Phase;
use crate::sys::poll::Wish;
use crate::sys::socket;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How long a nap lasts at most, and how long naps in a row keep a thread from looking up: what else happens is seen
/// after twice that at the latest. An order to stop, or a client that has gone away, can wait so long; and where a
/// thousand threads share a core, two waits of a fast request take a part of it.
const NAP: Duration = Duration::from_millis(200);

/// Whose bytes a connection waits for, if it waits for nothing else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Awaited {
    /// The next request.
    Client,
    /// A response.
    Upstream,
}

impl Awaited {
    fn news(self) -> News {
        match self {
            Self::Client => News::CLIENT_READ,
            Self::Upstream => News::UPSTREAM_READ,
        }
    }
}

/// What a thread knows of the waits of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Habit {
    /// When it last looked up.
    looked: Tick,
    /// Whether the last wait for each was short.
    client_is_quick: bool,
    upstream_is_quick: bool,
    /// The wait under way.
    wait: Option<Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    awaited: Option<Awaited>,
    since: Tick,
    is_nap: bool,
    /// Whether it has brought nothing: the next one goes on with it.
    was_vain: bool,
}

impl Habit {
    /// Of a connection that has just come.
    #[must_use]
    pub fn new(now: Tick) -> Self {
        Self { looked: now, client_is_quick: false, upstream_is_quick: false, wait: None }
    }

    /// A wait for `awaited` (or for more than one thing) begins, and ends at `deadline`; `is_called` if there is something
    /// to be heard now. Whether it may be a nap.
    pub fn begin(&mut self, awaited: Option<Awaited>, deadline: Tick, is_called: bool, now: Tick) -> bool {
        let is_quick = match awaited {
            Some(Awaited::Client) => self.client_is_quick,
            Some(Awaited::Upstream) => self.upstream_is_quick,
            None => false,
        };
        let is_nap = is_quick && !is_called && now < self.looked.after(NAP) && now.after(NAP) <= deadline;
        let goes_on = self.wait.filter(|wait| wait.was_vain && wait.awaited == awaited);
        let since = goes_on.map_or(now, |wait| wait.since);
        self.wait = Some(Wait { awaited, since, is_nap, was_vain: false });
        is_nap
    }

    /// The wait is over, and has brought nothing if it `was_vain`.
    pub fn end(&mut self, was_vain: bool, now: Tick) {
        let Some(wait) = self.wait.take() else { return };
        if was_vain {
            self.wait = Some(Wait { was_vain, ..wait });
        }
        if !wait.is_nap {
            self.looked = now;
        }
        let is_quick = now < wait.since.after(NAP);
        match wait.awaited {
            Some(Awaited::Client) => self.client_is_quick = is_quick,
            Some(Awaited::Upstream) => self.upstream_is_quick = is_quick,
            None => {}
        }
    }
}

/// What a nap has read: it lies in the thread's buffer, where the next read from the same side would have put it.
#[derive(Debug)]
pub struct Early {
    from: Awaited,
    outcome: io::Result<usize>,
}

impl Scratch {
    /// recv(2) into `input[at..]`, unless a nap has done it.
    // In its place at both callers, so that where nobody naps it is a look at a flag.
    #[inline]
    pub(super) fn receive(&mut self, from: Awaited, fd: BorrowedFd<'_>, at: usize) -> io::Result<usize> {
        if self.early.as_ref().is_some_and(|early| early.from == from)
            && let Some(early) = self.early.take()
        {
            return early.outcome;
        }
        socket::recv(fd, &mut self.input[at..])
    }
}

impl Conn {
    /// Whose bytes it waits for, if a read would bring all that it waits for.
    #[must_use]
    pub fn awaited(&self) -> Option<Awaited> {
        let only_read = |wish: Wish<'_>| wish.read && !wish.write;
        let (client, upstream) = self.wishes();
        let Some(upstream) = upstream else {
            let is_before_request = matches!(self.session.phase(), Phase::Idle | Phase::Head);
            return (is_before_request && client.is_some_and(only_read)).then_some(Awaited::Client);
        };
        let client_waits = client.is_none_or(|wish| !wish.read && !wish.write);
        // What is to be spliced is not to be read, and what has no room can't be.
        let is_read = self.active.as_ref().is_some_and(|active| {
            !active.down.is_for(active.exchange.response_unseen())
                && active.link.as_ref().is_some_and(|link| link.rest.len() < BUFFER)
        });
        (client_waits && only_read(upstream) && is_read).then_some(Awaited::Upstream)
    }

    /// Waits in the read for what is [`Conn::awaited`], and says what is to be told to [`Conn::run`]. `None`: reads from
    /// there can't wait.
    pub fn nap(&mut self, awaited: Awaited, scratch: &mut Scratch) -> Option<News> {
        let (fd, waiting, at) = match awaited {
            Awaited::Client => (&self.client, &mut self.waiting, self.rest.len()),
            Awaited::Upstream => {
                let link = self.active.as_mut()?.link.as_mut()?;
                (&link.fd, &mut link.waiting, link.rest.len())
            }
        };
        waiting.allow(fd.as_fd(), NAP).ok()?;
        match socket::recv_waiting(fd.as_fd(), &mut scratch.input[at..]) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Some(News::TIMER)
            }
            outcome => {
                scratch.early = Some(Early { from: awaited, outcome });
                Some(awaited.news())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Tick = Tick::NEVER;

    /// A connection of long standing that waits for `awaited`, and how. Time passes as it waits.
    struct Waiter {
        habit: Habit,
        clock: u64,
    }

    impl Waiter {
        fn new() -> Self {
            Self { habit: Habit::new(Tick(1_000_000)), clock: 1_000_000 }
        }

        /// Bytes come after so many milliseconds. How many naps that took, and how many looks.
        fn waits(&mut self, awaited: Awaited, mut lasts: u64) -> (u32, u32) {
            let (mut naps, mut looks) = (0, 0);
            loop {
                let is_nap = self.habit.begin(Some(awaited), FAR, false, Tick(self.clock));
                *(if is_nap { &mut naps } else { &mut looks }) += 1;
                let slept = if is_nap { lasts.min(nap()) } else { lasts };
                self.clock += slept;
                lasts -= slept;
                let was_vain = is_nap && (lasts > 0 || slept == nap());
                self.habit.end(was_vain, Tick(self.clock));
                if !was_vain {
                    return (naps, looks);
                }
            }
        }
    }

    fn nap() -> u64 {
        Tick(0).after(NAP).0
    }

    #[test]
    fn who_is_answered_fast_naps_and_looks_up_now_and_then() {
        let mut waiter = Waiter::new();
        let (mut naps, mut looks, mut looked) = (0, 0, waiter.clock);
        for turn in 0..10_000 {
            let awaited = if turn % 2 == 0 { Awaited::Client } else { Awaited::Upstream };
            let (napped, looked_up) = waiter.waits(awaited, 3);
            naps += napped;
            looks += looked_up;
            if looked_up > 0 {
                assert!(waiter.clock - looked <= 2 * nap(), "{} ms without a look", waiter.clock - looked);
                looked = waiter.clock;
            }
        }
        assert!(naps > 50 * looks && looks > 0, "{naps} naps, {looks} looks");
    }

    #[test]
    fn who_waits_long_is_not_woken_for_nothing() {
        for (slow, quick) in [(Awaited::Client, Awaited::Upstream), (Awaited::Upstream, Awaited::Client)] {
            for lasts in [nap(), nap() + nap() / 2, 10 * nap()] {
                let mut waiter = Waiter::new();
                assert_eq!(waiter.waits(slow, 1), (0, 1), "nothing is known yet");
                assert_eq!(waiter.waits(slow, lasts), (1, 1), "it was quick until now");
                for _ in 0..5 {
                    assert_eq!(waiter.waits(slow, lasts), (0, 1), "{lasts} ms");
                    waiter.waits(quick, 1);
                    assert_eq!(waiter.waits(quick, 1), (1, 0), "the other side is not to blame");
                }
                // One that has become quick is seen to be.
                assert_eq!(waiter.waits(slow, 1), (0, 1));
                assert_eq!(waiter.waits(slow, 1), (1, 0));
            }
        }
    }

    #[test]
    fn nobody_naps_who_waits_for_two_things_or_is_called_or_beyond_a_deadline() {
        for (awaited, left, is_called, want) in [
            (None, u64::MAX, false, false),
            (Some(Awaited::Client), 0, false, false),
            (Some(Awaited::Client), nap() - 1, false, false),
            (Some(Awaited::Client), nap(), false, true),
            (Some(Awaited::Client), nap(), true, false),
            (Some(Awaited::Upstream), u64::MAX, false, true),
        ] {
            let mut waiter = Waiter::new();
            waiter.waits(Awaited::Client, 1);
            waiter.waits(Awaited::Upstream, 1);
            let deadline = Tick(waiter.clock.saturating_add(left));
            let naps = waiter.habit.begin(awaited, deadline, is_called, Tick(waiter.clock));
            assert_eq!(naps, want, "{awaited:?} {left} {is_called}");
        }
    }
}
