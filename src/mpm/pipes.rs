//! The pipes of a child that large bodies go through: how many there may be, and who has one.
//!
//! A pipe is taken for one piece of a body and given back once that is with the other side, so that it stays with a
//! connection only while it holds bytes that the receiver would not take yet. When all are taken, bytes are copied.

use crate::sys::splice::Pipe;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes a pipe should have room for: measured, see tests/bench/large-bodies.md.
pub const ROOM: usize = 256 * 1024;

/// With less room than a pipe is born with, copying is as good.
const LEAST: usize = 64 * 1024;

/// The pipes of one child.
#[derive(Debug)]
pub struct Pipes {
    /// Those that nobody has: all empty.
    idle: Mutex<Vec<Taken>>,
    /// Pipes there are, idle ones included.
    made: Arc<AtomicU32>,
    most: u32,
}

/// A pipe that somebody has. Dropped, it is closed with whatever it holds.
#[derive(Debug)]
pub struct Taken {
    pipe: Pipe,
    made: Arc<AtomicU32>,
}

impl Pipes {
    /// At most so many at one time.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { idle: Mutex::default(), made: Arc::default(), most }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Taken>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty pipe; `None` while as many as there may be are taken.
    ///
    /// # Errors
    /// If there could be another but the kernel makes none.
    pub fn take(&self) -> io::Result<Option<Taken>> {
        let idle = self.idle().pop();
        if idle.is_some() {
            return Ok(idle);
        }
        let more = |made: u32| (made < self.most).then_some(made + 1);
        if self.made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return Ok(None);
        }
        match Pipe::new(ROOM, LEAST) {
            Ok(pipe) => Ok(Some(Taken { pipe, made: Arc::clone(&self.made) })),
            Err(error) => {
                self.made.fetch_sub(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Takes back one that is not needed any more; with bytes in it, it is closed.
    pub fn give_back(&self, taken: Taken) {
        if taken.held() == 0 {
            self.idle().push(taken);
        }
    }

    /// Whether there are some that nobody has.
    #[must_use]
    pub fn has_idle(&self) -> bool {
        !self.idle().is_empty()
    }

    /// Closes those that nobody has.
    pub fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
    }
}

impl Deref for Taken {
    type Target = Pipe;
    fn deref(&self) -> &Pipe {
        &self.pipe
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut Pipe {
        &mut self.pipe
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.made.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn count(pipes: &Pipes) -> (usize, u32) {
        (pipes.idle().len(), pipes.made.load(Ordering::Relaxed))
    }

    #[test]
    fn there_are_never_more_than_there_may_be() {
        let pipes = Pipes::new(2);
        let one = pipes.take().unwrap().expect("a first");
        let two = pipes.take().unwrap().expect("a second");
        assert!(pipes.take().unwrap().is_none());
        assert_eq!(count(&pipes), (0, 2));
        pipes.give_back(one);
        assert_eq!(count(&pipes), (1, 2));
        let one = pipes.take().unwrap().expect("the first again");
        drop(two);
        assert_eq!(count(&pipes), (0, 1), "closed");
        let two = pipes.take().unwrap().expect("another");
        pipes.give_back(one);
        pipes.give_back(two);
        pipes.close_idle();
        assert_eq!(count(&pipes), (0, 0));
        assert!(Pipes::new(0).take().unwrap().is_none());
    }

    #[test]
    fn nobody_gets_the_bytes_of_another() {
        let pipes = Pipes::new(1);
        let (source, mut sender) = UnixStream::pair().unwrap();
        sender.write_all(b"secret").unwrap();
        let mut pipe = pipes.take().unwrap().expect("a first");
        assert_eq!(pipe.fill(source.as_fd(), 6).unwrap(), 6);
        pipes.give_back(pipe);
        assert_eq!(count(&pipes), (0, 0), "closed with what it held");
        assert_eq!(pipes.take().unwrap().expect("a fresh one").held(), 0);
    }
}
