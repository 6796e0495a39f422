//! Naps: when may a thread that serves one connection wait in the read itself?
//!
//! A request that is answered fast costs such a thread more for its two waits than for its bytes: poll(2) is told of
//! the client, the backend and the master each time, and the read is a second call. A read that waits is one call, and is
//! told of nothing. But whoever sleeps in it sees nothing else: no order, no other side's end, no deadline. So a nap is
//! short, is taken only where the last wait of its kind was short, and between naps the thread looks up.

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
}

impl Habit {
    /// Of a connection that has just come.
    #[must_use]
    pub fn new(now: Tick) -> Self {
        Self { looked: now, client_is_quick: true, upstream_is_quick: true, wait: None }
    }

    /// A wait for `awaited` (or for more than one thing) begins, and ends at `deadline`. Whether it may be a nap.
    pub fn begin(&mut self, awaited: Option<Awaited>, deadline: Tick, now: Tick) -> bool {
        let is_quick = match awaited {
            Some(Awaited::Client) => self.client_is_quick,
            Some(Awaited::Upstream) => self.upstream_is_quick,
            None => false,
        };
        let is_nap = is_quick && now < self.looked.after(NAP) && now.after(NAP) <= deadline;
        self.wait = Some(Wait { awaited, since: now, is_nap });
        is_nap
    }

    /// The wait is over, if one was under way.
    pub fn end(&mut self, now: Tick) {
        let Some(Wait { awaited, since, is_nap }) = self.wait.take() else { return };
        if !is_nap {
            self.looked = now;
        }
        let is_quick = now < since.after(NAP);
        match awaited {
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

    /// Waits in the read for what is [`Conn::awaited`], and says what is to be told to [`Conn::run`].
    ///
    /// # Errors
    /// If the socket does not let its reads wait.
    pub fn nap(&mut self, awaited: Awaited, scratch: &mut Scratch) -> io::Result<News> {
        let (fd, naps, at) = match awaited {
            Awaited::Client => (&self.client, &mut self.naps, self.rest.len()),
            Awaited::Upstream => match self.active.as_mut().and_then(|active| active.link.as_mut()) {
                Some(link) => (&link.fd, &mut link.naps, link.rest.len()),
                None => return Ok(News::TIMER),
            },
        };
        if !*naps {
            socket::let_reads_wait(fd.as_fd(), NAP)?;
            *naps = true;
        }
        match socket::recv_waiting(fd.as_fd(), &mut scratch.input[at..]) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(News::TIMER)
            }
            outcome => {
                scratch.early = Some(Early { from: awaited, outcome });
                Ok(awaited.news())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Tick = Tick::NEVER;

    /// One wait of so many milliseconds; whether it was a nap.
    fn waits(habit: &mut Habit, awaited: Option<Awaited>, clock: &mut u64, lasts: u64) -> bool {
        let is_nap = habit.begin(awaited, FAR, Tick(*clock));
        *clock += lasts;
        habit.end(Tick(*clock));
        is_nap
    }

    fn nap() -> u64 {
        Tick(0).after(NAP).0
    }

    #[test]
    fn who_is_answered_fast_naps_and_looks_up_now_and_then() {
        let mut clock = 1_000_000;
        let mut habit = Habit::new(Tick(clock));
        let (mut naps, mut looks, mut looked) = (0, 0, clock);
        for turn in 0..10_000 {
            let awaited = if turn % 2 == 0 { Awaited::Client } else { Awaited::Upstream };
            if waits(&mut habit, Some(awaited), &mut clock, 3) {
                naps += 1;
            } else {
                looks += 1;
                assert!(clock - looked <= 2 * nap(), "{} ms without a look", clock - looked);
                looked = clock;
            }
        }
        assert!(naps > 50 * looks && looks > 0, "{naps} naps, {looks} looks");
    }

    #[test]
    fn who_waits_long_is_not_woken_again_for_nothing() {
        for (slow, quick) in [(Awaited::Client, Awaited::Upstream), (Awaited::Upstream, Awaited::Client)] {
            let mut clock = 1_000_000;
            let mut habit = Habit::new(Tick(clock));
            assert!(waits(&mut habit, Some(slow), &mut clock, nap()), "nothing is known yet");
            assert!(!waits(&mut habit, Some(slow), &mut clock, 10 * nap()));
            for _ in 0..5 {
                assert!(waits(&mut habit, Some(quick), &mut clock, 1), "the other side is not to blame");
                assert!(!waits(&mut habit, Some(slow), &mut clock, 10 * nap()));
            }
            // One that has become quick is seen to be.
            assert!(!waits(&mut habit, Some(slow), &mut clock, 1));
            assert!(waits(&mut habit, Some(slow), &mut clock, 1));
        }
    }

    #[test]
    fn nobody_naps_who_waits_for_two_things_or_beyond_a_deadline() {
        let now = Tick(5_000);
        for (awaited, deadline, want) in [
            (None, FAR, false),
            (Some(Awaited::Client), Tick(0), false),
            (Some(Awaited::Client), Tick(now.0 + nap() - 1), false),
            (Some(Awaited::Client), Tick(now.0 + nap()), true),
            (Some(Awaited::Upstream), FAR, true),
        ] {
            assert_eq!(Habit::new(now).begin(awaited, deadline, now), want, "{awaited:?} {deadline:?}");
        }
    }

    #[test]
    fn a_turn_without_a_wait_is_not_a_look() {
        let mut habit = Habit::new(Tick(0));
        habit.end(Tick(nap()));
        assert!(!habit.begin(Some(Awaited::Client), FAR, Tick(nap())), "it is time to look up");
    }
}
