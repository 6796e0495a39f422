//! Listeners: when they are watched, and what comes through them.
//!
//! Each listening socket is shared by all children of a generation and sits in each child's epoll with
//! EPOLLEXCLUSIVE, level-triggered, so that a new connection wakes one child only. Two rules follow. Whoever is
//! woken accepts at least once before it stops watching: nobody else hears of that connection. And after an
//! accept the listener is taken out and put in again, which moves this child to the end of the kernel's queue:
//! otherwise the last child added would get nearly everything. A child that has no siblings leaves that out. Doing it
//! after every fourth or sixteenth accept only was tried: it saves at most 3 % of a connection that serves one
//! request, and the spread is worse for it.
//!
//! The end of the hand-over socket at which connections of other children arrive is treated as one more listener,
//! behind the others (see `handover`): it is moved in the same moments, and watched in the same, but for those in which
//! a child has enough and others shall have what comes.

use super::passage::{self, Passage};
use super::tokens::Source;
use crate::clock::Tick;
use crate::sys::{epoll, passing, poll, socket};
use nix::errno::Errno;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The first and the longest pause after an accept that failed for want of descriptors or memory.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// A shortage counts as over when there was none for so long.
const CALM: Duration = Duration::from_secs(5);

/// The listeners of a child.
#[derive(Debug)]
pub struct Doors {
    inner: Mutex<Inner>,
    /// Not watched, for now or for ever; a look without the lock.
    shut: AtomicBool,
    /// When to watch again after a shortage or a step aside; [`Tick::NEVER`] without one.
    resume: AtomicU64,
    /// Not watched for now, so that others accept.
    aside: AtomicBool,
    /// Where the listeners are bound, by place; known when they are closed, too.
    bound: Box<[SocketAddr]>,
}

/// The place of a listener that this child does not have.
pub const ELSEWHERE: u32 = u32::MAX;

#[derive(Debug)]
struct Inner {
    /// By place; `None` once closed.
    doors: Vec<Option<Door>>,
    /// Where connections of other children arrive. Stays open when the doors are closed.
    handed: Option<OwnedFd>,
    epoll: RawFd,
    watched: bool,
    /// Connections of other children may come.
    takes: bool,
    /// `handed` is watched, too.
    handed_watched: bool,
    /// Clients since this child last let others come first.
    in_a_row: Cell<u32>,
    pause: Duration,
    /// When descriptors or memory last ran out, until that has been over for a while.
    short: Option<Tick>,
}

/// One listener.
#[derive(Debug)]
pub struct Door {
    /// The listening socket.
    pub fd: OwnedFd,
    /// Where it listens.
    pub local: SocketAddr,
    /// Nobody else accepts here any more: what waits is ours to take before we leave.
    pub last: bool,
}

/// A client that has just been accepted.
#[derive(Debug)]
pub struct Newcomer {
    /// Its socket, non-blocking.
    pub fd: OwnedFd,
    /// Its address.
    pub peer: SocketAddr,
    /// Where it connected to, as far as the listener tells.
    pub local: SocketAddr,
    /// The listener's place, or [`ELSEWHERE`].
    pub place: u32,
    /// A shortage has been over for a while: worth a line.
    pub relieved: bool,
    /// Another child had it before.
    pub passage: Option<Passage>,
}

/// What an accept brought.
#[derive(Debug)]
pub enum Came {
    /// A client.
    Client(Newcomer),
    /// Nobody: a sibling was faster, or the client has gone.
    Nobody,
    /// No descriptors or no memory: watching is suspended. Whether this is news.
    Shortage(io::Error, bool),
    /// Something came from another child that is no connection: whatever it was, it is closed.
    Nonsense,
}

impl Doors {
    /// Not watched yet. `handed` is where connections of other children arrive, if they do; `epoll` is the
    /// descriptor of the child's poll.
    #[must_use]
    pub fn new(doors: Vec<Door>, handed: Option<OwnedFd>, epoll: RawFd) -> Self {
        let bound = doors.iter().map(|door| door.local).collect();
        let doors = doors.into_iter().map(Some).collect();
        Self {
            inner: Mutex::new(Inner {
                doors,
                handed,
                epoll,
                watched: false,
                takes: true,
                handed_watched: false,
                in_a_row: Cell::new(0),
                pause: PAUSE.0,
                short: None,
            }),
            shut: AtomicBool::new(true),
            resume: AtomicU64::new(Tick::NEVER.0),
            aside: AtomicBool::new(false),
            bound,
        }
    }

    /// Where the listener at `place` is bound; `None` for [`ELSEWHERE`].
    #[must_use]
    pub fn bound(&self, place: u32) -> Option<SocketAddr> {
        self.bound.get(place as usize).copied()
    }

    /// The place at which connections of other children arrive.
    #[must_use]
    pub fn handed_place(&self) -> u32 {
        u32::try_from(self.bound.len()).expect("a configuration has fewer than 2^32 listeners")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody watches them.
    #[must_use]
    pub fn are_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    /// When watching goes on after a shortage, or after others were to accept.
    #[must_use]
    pub fn resume_at(&self) -> Tick {
        Tick(self.resume.load(Ordering::Relaxed))
    }

    /// Watches them (again): all or none. Does nothing once they are closed.
    ///
    /// # Errors
    /// If the kernel has no room for another watch; it is tried again after a pause, as after any shortage.
    pub fn open(&self, now: Tick) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.are_closed() {
            return Ok(());
        }
        if !inner.watched {
            let add = |(place, fd)| epoll::add_exclusive(inner.epoll, fd, token(place));
            let added = inner.all().try_for_each(add);
            let added = added.and_then(|()| inner.watch_handed());
            inner.watched = true;
            if added.is_err() {
                self.stop(&mut inner);
                self.suspend(&mut inner, now);
                return added;
            }
        }
        self.resume.store(Tick::NEVER.0, Ordering::Relaxed);
        self.aside.store(false, Ordering::Relaxed);
        self.shut.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Stops watching them. To be called only after an accept, if this child may have been woken for one.
    pub fn shut(&self) {
        self.stop(&mut self.lock());
    }

    /// Stops watching them for a while, as [`Doors::shut`]; others are to accept.
    pub fn step_aside(&self, until: Tick) {
        let mut inner = self.lock();
        if inner.watched {
            self.stop(&mut inner);
            self.resume.store(until.0, Ordering::Relaxed);
            self.aside.store(true, Ordering::Relaxed);
        }
    }

    /// Whether they are not watched only so that others accept.
    #[must_use]
    pub fn is_aside(&self) -> bool {
        self.aside.load(Ordering::Relaxed)
    }

    /// From now on connections of other children may come, or may not: then what they have sent by now is to be taken
    /// still, since nobody else may have been woken for it. Whether that is so.
    ///
    /// # Errors
    /// As [`Doors::open`].
    pub fn take_from_others(&self, takes: bool, now: Tick) -> io::Result<bool> {
        let mut inner = self.lock();
        if inner.takes == takes {
            return Ok(false);
        }
        inner.takes = takes;
        if !takes {
            let was_watched = inner.handed_watched;
            inner.leave_handed();
            return Ok(was_watched);
        }
        if inner.watched
            && let Err(fault) = inner.watch_handed()
        {
            self.stop(&mut inner);
            self.suspend(&mut inner, now);
            return Err(fault);
        }
        Ok(false)
    }

    /// Whether connections that other children have sent wait here, and this child does not look for them.
    #[must_use]
    pub fn leaves_gifts(&self) -> bool {
        let inner = self.lock();
        let (Some(handed), false) = (&inner.handed, inner.handed_watched) else { return false };
        // Who can't look knows of nothing.
        poll::is_readable(handed.as_fd()).unwrap_or(false)
    }

    /// Whether clients wait at a listener.
    #[must_use]
    pub fn have_clients(&self) -> bool {
        // Who can't look knows of nobody.
        self.lock().all().any(|(_, fd)| poll::is_readable(fd).unwrap_or(false))
    }

    fn stop(&self, inner: &mut Inner) {
        if inner.watched {
            for (_, fd) in inner.all() {
                // One that is not there, after a watch that failed, is no harm.
                let _ = epoll::delete(inner.epoll, fd);
            }
            inner.leave_handed();
            inner.watched = false;
        }
        self.shut.store(true, Ordering::SeqCst);
    }

    /// Stops watching them and closes them, for ever (invariant 9: in this order).
    pub fn close(&self) {
        let mut inner = self.lock();
        self.stop(&mut inner);
        inner.doors.fill_with(|| None);
        self.resume.store(Tick::NEVER.0, Ordering::Relaxed);
    }

    /// Nobody else accepts at listener number `place` any more.
    pub fn mark_last(&self, place: u32) {
        if let Some(Some(door)) = self.lock().doors.get_mut(place as usize) {
            door.last = true;
        }
    }

    /// Nobody else accepts at any of them any more.
    pub fn mark_all_last(&self) {
        self.lock().doors.iter_mut().flatten().for_each(|door| door.last = true);
    }

    /// Whether nobody else accepts at listener number `place`.
    #[must_use]
    pub fn is_last(&self, place: u32) -> bool {
        self.lock().doors.get(place as usize).is_some_and(|door| door.as_ref().is_some_and(|door| door.last))
    }

    /// Stops watching; closes for ever those at which somebody else accepts.
    pub fn close_shared(&self) {
        let mut inner = self.lock();
        self.stop(&mut inner);
        for door in &mut inner.doors {
            *door = door.take().filter(|door| door.last);
        }
        self.resume.store(Tick::NEVER.0, Ordering::Relaxed);
    }

    /// Whether they have been closed.
    #[must_use]
    pub fn are_closed(&self) -> bool {
        self.lock().are_closed()
    }

    /// How many places there are, that for connections of other children included.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.handed_place() + u32::from(self.lock().handed.is_some())
    }

    /// Accepts one client at listener number `place`, or takes over one from another child. Others are to come first
    /// after `bunch` of them.
    pub fn accept(&self, place: u32, bunch: u32, now: Tick) -> Came {
        let mut inner = self.lock();
        if place == self.handed_place() {
            return self.take_over(&mut inner, bunch, now);
        }
        let Some(Some(door)) = inner.doors.get(place as usize) else { return Came::Nobody };
        match socket::accept(door.fd.as_fd()) {
            Ok((fd, peer)) => {
                let local = door.local;
                let steps_back = inner.watched && has_its_bunch(&inner.in_a_row, bunch);
                if steps_back && inner.to_the_end(door.fd.as_fd(), place).is_err() {
                    // No room for the watch now: as with any shortage, try again soon.
                    self.stop(&mut inner);
                    self.suspend(&mut inner, now);
                }
                inner.pause = PAUSE.0;
                let relieved = inner.short.take_if(|since| now >= since.after(CALM)).is_some();
                Came::Client(Newcomer { fd, peer, local, place, relieved, passage: None })
            }
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) => {
                    self.shortage(&mut inner, error, now)
                }
                // A client that has gone again, a network that failed: the next one is another matter.
                _ => Came::Nobody,
            },
        }
    }

    fn take_over(&self, inner: &mut Inner, bunch: u32, now: Tick) -> Came {
        let Some(handed) = &inner.handed else { return Came::Nobody };
        // One byte more than a message: one that is too long is no message.
        let mut bytes = [0; passage::LENGTH + 1];
        let passed = match passing::receive(handed.as_fd(), &mut bytes) {
            Ok(passed) => passed,
            // Nothing there: a sibling was faster.
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return Came::Nobody,
            // A message that stays there would be seen again at once.
            Err(fault) => return self.shortage(inner, fault, now),
        };
        let steps_back = inner.handed_watched && has_its_bunch(&inner.in_a_row, bunch);
        if steps_back && inner.to_the_end(handed.as_fd(), self.handed_place()).is_err() {
            self.stop(inner);
            self.suspend(inner, now);
        }
        match (passed.fd, Passage::decode(&bytes[..passed.length])) {
            (Some(fd), Some(passage)) => {
                let place = self.bound.iter().position(|bound| *bound == passage.listener);
                let place = place.map_or(ELSEWHERE, |place| u32::try_from(place).unwrap_or(ELSEWHERE));
                let (peer, local) = (passage.peer, passage.listener);
                Came::Client(Newcomer { fd, peer, local, place, relieved: false, passage: Some(passage) })
            }
            (None, Some(_)) => self.shortage(inner, Errno::EMFILE.into(), now),
            (_, None) => Came::Nonsense,
        }
    }

    /// A newcomer could not be kept, for want of room in the kernel: watches nothing for as long as after a long shortage,
    /// since each try costs a client.
    pub fn turn_away(&self, now: Tick) {
        let mut inner = self.lock();
        inner.pause = PAUSE.1;
        self.stop(&mut inner);
        self.suspend(&mut inner, now);
    }

    /// Watches nothing for a while, since nothing can be taken.
    fn shortage(&self, inner: &mut Inner, fault: io::Error, now: Tick) -> Came {
        let news = inner.short.replace(now).is_none();
        self.stop(inner);
        self.suspend(inner, now);
        Came::Shortage(fault, news)
    }

    fn suspend(&self, inner: &mut Inner, now: Tick) {
        self.shut.store(true, Ordering::SeqCst);
        self.aside.store(false, Ordering::Relaxed);
        // Of listeners that are closed nobody would ever say that they are watched again.
        let resume = if inner.are_closed() { Tick::NEVER } else { now.after(inner.pause) };
        self.resume.store(resume.0, Ordering::Relaxed);
        inner.pause = (inner.pause * 2).min(PAUSE.1);
    }
}

impl Inner {
    fn are_closed(&self) -> bool {
        self.doors.iter().all(Option::is_none)
    }

    /// The listeners that are open, by place.
    fn all(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let doors = self.doors.iter().map(|door| door.as_ref().map(|door| door.fd.as_fd()));
        doors.enumerate().filter_map(|(place, fd)| Some((place, fd?)))
    }

    /// Watches for connections of other children, if they may come and are not watched for.
    fn watch_handed(&mut self) -> io::Result<()> {
        if let Some(handed) = &self.handed
            && self.takes
            && !self.handed_watched
        {
            epoll::add_exclusive(self.epoll, handed.as_fd(), token(self.doors.len()))?;
            self.handed_watched = true;
        }
        Ok(())
    }

    fn leave_handed(&mut self) {
        if let Some(handed) = &self.handed
            && std::mem::take(&mut self.handed_watched)
        {
            let _ = epoll::delete(self.epoll, handed.as_fd());
        }
    }

    /// Moves this child, which watches `fd`, to the end of the kernel's queue of those who are woken for it.
    fn to_the_end(&self, fd: BorrowedFd<'_>, place: u32) -> io::Result<()> {
        epoll::delete(self.epoll, fd)
            .and_then(|()| epoll::add_exclusive(self.epoll, fd, token(place as usize)))
    }
}

/// Another client has come. Whether it was the last of `bunch` in a row; the next begins another.
fn has_its_bunch(in_a_row: &Cell<u32>, bunch: u32) -> bool {
    let count = in_a_row.get().saturating_add(1);
    let is_whole = count >= bunch;
    in_a_row.set(if is_whole { 0 } else { count });
    is_whole
}

fn token(place: usize) -> usize {
    Source::Listener(u32::try_from(place).expect("fewer than 2^32 listeners")).token().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::Poll;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    #[test]
    fn others_come_first_after_each_bunch() {
        for (bunch, want) in [(0, 12), (1, 12), (2, 6), (5, 2), (u32::MAX, 0)] {
            let in_a_row = Cell::new(0);
            let times = (0..12).filter(|_| has_its_bunch(&in_a_row, bunch)).count();
            assert_eq!(times, want, "{bunch}");
        }
        // A child that was alone for long has company now.
        let in_a_row = Cell::new(u32::MAX - 1);
        assert!(has_its_bunch(&in_a_row, 4) && in_a_row.get() == 0);
    }

    /// Takes over what has come without its descriptor, as where there is no room for one.
    fn takes_in_vain(doors: &Doors, others: &OwnedFd, now: Tick) {
        let address = "127.0.0.1:80".parse().expect("an address");
        let passage = Passage { listener: address, peer: address, requests: 1, deadline: Tick::NEVER };
        socket::send(others.as_fd(), &passage.encode()).expect("there is room");
        let came = doors.accept(doors.handed_place(), 1, now);
        assert!(matches!(came, Came::Shortage(..)), "{came:?}");
    }

    #[test]
    fn who_can_keep_no_newcomer_tries_seldom() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
        let local = listener.local_addr().expect("bound above");
        listener.set_nonblocking(true).expect("it is open");
        let poll = Poll::new().expect("descriptors are free");
        let doors =
            Doors::new(vec![Door { fd: listener.into(), local, last: false }], None, poll.as_raw_fd());
        for start in [1000, 2000] {
            doors.open(Tick(start)).expect("there is room");
            // That it was accepted says nothing of this shortage.
            let _client = std::net::TcpStream::connect(local).expect("it listens");
            assert!(matches!(doors.accept(0, 1, Tick(start)), Came::Client(_)));
            doors.turn_away(Tick(start));
            assert!(doors.are_shut());
            assert_eq!(doors.resume_at(), Tick(start).after(PAUSE.1));
        }
    }

    #[test]
    fn after_a_shortage_only_listeners_that_are_open_are_waited_for() {
        let (others, handed) = socket::pair().expect("descriptors are free");
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
        let local = listener.local_addr().expect("bound above");
        let poll = Poll::new().expect("descriptors are free");
        let doors = Doors::new(
            vec![Door { fd: listener.into(), local, last: false }],
            Some(handed),
            poll.as_raw_fd(),
        );
        doors.open(Tick(0)).expect("there is room");
        takes_in_vain(&doors, &others, Tick(1000));
        assert_eq!(doors.resume_at(), Tick(1000).after(PAUSE.0));
        doors.open(Tick(1100)).expect("there is room");
        assert_eq!(doors.resume_at(), Tick::NEVER);
        doors.close();
        // A leader that is to open them at some time, and cannot, would ask the poll without a pause from then on.
        takes_in_vain(&doors, &others, Tick(2000));
        assert_eq!(doors.resume_at(), Tick::NEVER);
    }
}
