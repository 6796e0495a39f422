//! Listeners: when they are watched, and what comes through them.
//!
//! Each listening socket is shared by all children of a generation and sits in each child's epoll with
//! EPOLLEXCLUSIVE, level-triggered, so that a new connection wakes one child only. Two rules follow. Whoever is
//! woken accepts at least once before it stops watching: nobody else hears of that connection. And after an
//! accept the listener is taken out and put in again, which moves this child to the end of the kernel's queue:
//! otherwise the last child added would get nearly everything.

use super::tokens::Source;
use crate::clock::Tick;
use crate::sys::{epoll, socket};
use nix::errno::Errno;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
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
    /// When to try again after a shortage; [`Tick::NEVER`] without one.
    resume: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    /// By place; `None` once closed.
    doors: Vec<Option<Door>>,
    epoll: RawFd,
    watched: bool,
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
    /// The listener's place.
    pub place: u32,
    /// A shortage has been over for a while: worth a line.
    pub relieved: bool,
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
}

impl Doors {
    /// Not watched yet. `epoll` is the descriptor of the child's poll.
    #[must_use]
    pub fn new(doors: Vec<Door>, epoll: RawFd) -> Self {
        let doors = doors.into_iter().map(Some).collect();
        Self {
            inner: Mutex::new(Inner { doors, epoll, watched: false, pause: PAUSE.0, short: None }),
            shut: AtomicBool::new(true),
            resume: AtomicU64::new(Tick::NEVER.0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody watches them.
    #[must_use]
    pub fn are_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    /// When watching goes on after a shortage.
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
        if !inner.watched {
            let doors = inner.doors.iter().enumerate();
            for (place, door) in doors.filter_map(|(place, door)| Some((place, door.as_ref()?))) {
                if let Err(fault) = epoll::add_exclusive(inner.epoll, door.fd.as_fd(), token(place)) {
                    inner.watched = true;
                    self.stop(&mut inner);
                    self.suspend(&mut inner, now);
                    return Err(fault);
                }
            }
            inner.watched = true;
        }
        self.resume.store(Tick::NEVER.0, Ordering::Relaxed);
        self.shut.store(inner.are_closed(), Ordering::SeqCst);
        Ok(())
    }

    /// Stops watching them. To be called only after an accept, if this child may have been woken for one.
    pub fn shut(&self) {
        self.stop(&mut self.lock());
    }

    fn stop(&self, inner: &mut Inner) {
        if inner.watched {
            for door in inner.doors.iter().flatten() {
                // One that is not there, after a watch that failed, is no harm.
                let _ = epoll::delete(inner.epoll, door.fd.as_fd());
            }
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

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.lock().doors.len()).expect("a configuration has fewer than 2^32 listeners")
    }

    /// Accepts one client at listener number `place`.
    pub fn accept(&self, place: u32, now: Tick) -> Came {
        let mut inner = self.lock();
        let Some(Some(door)) = inner.doors.get(place as usize) else { return Came::Nobody };
        match socket::accept(door.fd.as_fd()) {
            Ok((fd, peer)) => {
                let local = door.local;
                let mut moved = Ok(());
                if inner.watched {
                    let listener = door.fd.as_fd();
                    moved = epoll::delete(inner.epoll, listener)
                        .and_then(|()| epoll::add_exclusive(inner.epoll, listener, token(place as usize)));
                }
                if moved.is_err() {
                    // No room for the watch now: as with any shortage, try again soon.
                    self.stop(&mut inner);
                    self.suspend(&mut inner, now);
                }
                inner.pause = PAUSE.0;
                let relieved = inner.short.take_if(|since| now >= since.after(CALM)).is_some();
                Came::Client(Newcomer { fd, peer, local, place, relieved })
            }
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) => {
                    let news = inner.short.replace(now).is_none();
                    self.stop(&mut inner);
                    self.suspend(&mut inner, now);
                    Came::Shortage(error, news)
                }
                // A client that has gone again, a network that failed: the next one is another matter.
                _ => Came::Nobody,
            },
        }
    }

    fn suspend(&self, inner: &mut Inner, now: Tick) {
        self.shut.store(true, Ordering::SeqCst);
        self.resume.store(now.after(inner.pause).0, Ordering::Relaxed);
        inner.pause = (inner.pause * 2).min(PAUSE.1);
    }
}

impl Inner {
    fn are_closed(&self) -> bool {
        self.doors.iter().all(Option::is_none)
    }
}

fn token(place: usize) -> usize {
    Source::Listener(u32::try_from(place).expect("fewer than 2^32 listeners")).token().0
}
