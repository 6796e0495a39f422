//! Large bodies whose length was told: from one socket to the other through a pipe, not through this process.
//!
//! A head, and what was read with it, goes the way of all bytes (`relay`). The rest of a body with a Content-Length,
//! if it is long, is moved by splice(2) in pieces of at most a turn: back pressure, time-outs and counts are the same,
//! and only the two copies are saved. What comes in small pieces is read: two copies of little cost less than a pipe.
//! The kernel, a socket or a want of pipes may say no at any point; the same bytes are copied then. Tunnels are not
//! spliced: what goes through them is mostly small and comes both ways.

use super::child::Child;
use super::conn::{Conn, Scratch, TURN};
use super::pipes::Taken;
use super::relay::{Active, Flow};
use super::table::News;
use crate::clock::Moment;
use crate::log::line::cause;
use crate::sys::splice::is_unable;
use slog::debug;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of a body that must still be to come when it begins to be spliced: measured, see
/// tests/bench/large-bodies.md.
const LARGE: u64 = 64 * 1024;

/// The least that is asked for at once, however little of a turn is left.
const PIECE: usize = 16 * 1024;

/// A piece below this costs more by a pipe than by two copies: measured likewise. What comes behind it is read.
const THIN: usize = 16 * 1024;

/// A read of so much says that the body comes in bulk (again).
const BULK: usize = 32 * 1024;

/// How one direction of an exchange passes its body.
#[derive(Debug, Default)]
pub struct Passing {
    way: Way,
    /// A pipe with bytes that the receiver would not take yet; never an empty one between two rounds.
    pub(super) pipe: Option<Taken>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Way {
    /// By its length.
    #[default]
    Open,
    /// Has been spliced, and will be to the last byte if it goes on like this.
    Spliced,
    /// By copying, as long as it comes in small pieces.
    Thin,
    /// By copying: the kernel has refused to splice.
    Copied,
}

impl Passing {
    /// Whether a body of which `unseen` bytes may pass unseen is to be spliced.
    pub(super) fn is_for(&self, unseen: u64) -> bool {
        match self.way {
            Way::Open => unseen >= LARGE,
            Way::Spliced => unseen > 0,
            Way::Thin | Way::Copied => false,
        }
    }

    /// A piece of so many bytes has gone into a pipe.
    fn spliced(&mut self, count: usize) {
        self.way = if count < THIN { Way::Thin } else { Way::Spliced };
    }

    /// So many bytes have been read.
    pub(super) fn read(&mut self, count: usize) {
        if self.way == Way::Thin && count >= BULK {
            self.way = Way::Spliced;
        }
    }

    /// Gives a pipe back that has been emptied.
    fn settle(&mut self, child: &Child) {
        if let Some(pipe) = self.pipe.take_if(|pipe| pipe.held() == 0) {
            child.pipes.give_back(pipe);
        }
    }

    /// An empty pipe; `None` if there is none: then bytes are copied, and if the kernel makes none, all of this body.
    fn pipe(&mut self, child: &Child) -> Option<Taken> {
        match child.pipes.take() {
            Ok(pipe) => pipe,
            Err(error) => {
                self.give_up(&error, child);
                None
            }
        }
    }

    fn give_up(&mut self, error: &io::Error, child: &Child) {
        debug!(child.log, "a body is copied, not spliced: {}", cause(error); "module" => "proxy");
        self.way = Way::Copied;
    }
}

/// Bytes to ask for: no more than may pass, and than is left of this turn.
fn piece(unseen: u64, moved: usize) -> usize {
    usize::try_from(unseen).unwrap_or(usize::MAX).min(TURN.saturating_sub(moved).max(PIECE))
}

/// What became of a pipe's bytes.
enum Drained {
    /// All are gone.
    Empty,
    /// The receiver takes no more for now.
    Full,
    /// It can't be given bytes this way; these are what the pipe held.
    Unable(io::Error, Vec<u8>),
}

/// Empties `pipe` into `target` as far as it takes bytes, and says for each time that it took some.
fn drain(pipe: &mut Taken, target: BorrowedFd<'_>, mut took: impl FnMut()) -> io::Result<Drained> {
    while pipe.held() > 0 {
        match pipe.drain(target) {
            Ok(_) => took(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Drained::Full),
            Err(error) if is_unable(&error) => return Ok(Drained::Unable(error, pipe.read_out()?)),
            Err(error) => return Err(error),
        }
    }
    Ok(Drained::Empty)
}

impl Conn {
    /// The client's socket, if what goes over it is what the session says, byte by byte: the kernel may write to it and
    /// read from it then, and no call on it waits. `None` for a connection with a layer in between.
    fn bare_client(&mut self) -> Option<BorrowedFd<'_>> {
        self.waiting.forbid(self.client.as_fd()).ok()?;
        Some(self.client.as_fd())
    }

    /// A piece of the response's body, for which [`Passing::is_for`] holds. `None`: it is to be read all the same.
    #[inline(never)]
    pub(super) fn splice_response(
        &mut self,
        active: &mut Active,
        child: &Child,
        scratch: &mut Scratch,
        now: Moment,
        moved: &mut usize,
    ) -> Option<Flow> {
        let unseen = active.exchange.response_unseen();
        self.bare_client()?;
        let link = active.link.as_mut().filter(|link| link.rest.is_empty())?;
        let mut pipe = active.down.pipe(child)?;
        link.reading(child.links());
        let filled = pipe.fill(link.bare()?, piece(unseen, *moved));
        active.down.pipe = Some(pipe);
        let count = match filled {
            // Whether there is nothing for now, nothing ever, or only nothing that a splice may take (it stops before
            // urgent data), a read tells.
            Ok(0) => {
                active.down.settle(child);
                return None;
            }
            Ok(count) => count,
            Err(error) => {
                active.down.settle(child);
                if error.kind() == io::ErrorKind::WouldBlock {
                    return None;
                }
                if is_unable(&error) {
                    active.down.give_up(&error, child);
                    return None;
                }
                debug!(child.log, "reading from the backend: {}", cause(&error); "module" => "proxy");
                return Some(self.upstream_ended_early(active, child, scratch, now));
            }
        };
        active.down.spliced(count);
        active.exchange.response_passed(count as u64);
        *moved += count;
        active.bytes_out += count as u64;
        if let Some(id) = active.exchange.backend() {
            child.block.backend(id).bytes_in.fetch_add(count as u64, Relaxed);
        }
        self.session.upstream_moved(now.tick());
        self.session.client_asked(now.tick());
        Some(match self.drain_response(active, child, now) {
            Ok(()) => Flow::Moved,
            Err(error) => self.client_failed(active, &error, child),
        })
    }

    /// Gives the client what it would not take of a spliced response earlier.
    ///
    /// # Errors
    /// If its connection is broken.
    #[inline(never)]
    pub(super) fn drain_response(
        &mut self,
        active: &mut Active,
        child: &Child,
        now: Moment,
    ) -> io::Result<()> {
        let Some(pipe) = &mut active.down.pipe else { return Ok(()) };
        if !self.ready.has(News::CLIENT_WRITE) {
            return Ok(());
        }
        let session = &mut self.session;
        match drain(pipe, self.client.as_fd(), || session.client_moved(now.tick()))? {
            Drained::Empty => {}
            Drained::Full => self.ready.0 &= !News::CLIENT_WRITE.0,
            Drained::Unable(error, bytes) => {
                active.down.give_up(&error, child);
                self.backlog.push(&bytes);
                // At once: no news comes of a socket that takes bytes all the time.
                self.flush_client(now.tick())?;
            }
        }
        active.down.settle(child);
        Ok(())
    }

    /// A piece of the request's body, for which [`Passing::is_for`] holds. `None`: it is to be read all the same.
    #[inline(never)]
    pub(super) fn splice_request(
        &mut self,
        active: &mut Active,
        child: &Child,
        now: Moment,
        moved: &mut usize,
    ) -> Option<Flow> {
        let unseen = active.exchange.request_unseen();
        if active.head_due || !active.takes_client_bytes() {
            return None;
        }
        if self.eof || self.again || !self.rest.is_empty() || !self.ready.has(News::CLIENT_READ) {
            return None;
        }
        active.link.as_mut()?.bare()?;
        let mut pipe = active.up.pipe(child)?;
        let filled = pipe.fill(self.bare_client()?, piece(unseen, *moved));
        active.up.pipe = Some(pipe);
        let count = match filled {
            // As above.
            Ok(0) => {
                active.up.settle(child);
                return None;
            }
            Ok(count) => count,
            Err(error) => {
                active.up.settle(child);
                if error.kind() == io::ErrorKind::WouldBlock {
                    return None;
                }
                if is_unable(&error) {
                    active.up.give_up(&error, child);
                    return None;
                }
                return Some(self.client_failed(active, &error, child));
            }
        };
        active.up.spliced(count);
        active.exchange.request_passed(count as u64);
        *moved += count;
        active.bytes_in += count as u64;
        if let Some(id) = active.exchange.backend() {
            child.block.backend(id).bytes_out.fetch_add(count as u64, Relaxed);
        }
        self.session.body_bytes(count);
        if self.body_counts(active, child, now) {
            self.session.client_moved(now.tick());
            self.session.upstream_moved(now.tick());
        }
        Some(match self.drain_request(active, child, now) {
            Ok(()) => Flow::Moved,
            Err(error) => self.upstream_deaf(active, &error, child),
        })
    }

    /// Gives the backend what it would not take of a spliced request earlier.
    ///
    /// # Errors
    /// If it takes no more, ever.
    #[inline(never)]
    pub(super) fn drain_request(
        &mut self,
        active: &mut Active,
        child: &Child,
        now: Moment,
    ) -> io::Result<()> {
        let counts = self.body_counts(active, child, now);
        let (Some(pipe), Some(link)) = (&mut active.up.pipe, &mut active.link) else { return Ok(()) };
        if !self.ready.has(News::UPSTREAM_WRITE) {
            return Ok(());
        }
        let session = &mut self.session;
        let took = || {
            if counts {
                session.upstream_moved(now.tick());
            }
        };
        match drain(pipe, link.fd.as_fd(), took)? {
            Drained::Empty => {}
            Drained::Full => self.ready.0 &= !News::UPSTREAM_WRITE.0,
            Drained::Unable(error, bytes) => {
                active.up.give_up(&error, child);
                link.backlog.push(&bytes);
                self.flush_upstream(link, now.tick())?;
            }
        }
        active.up.settle(child);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_has_begun_to_be_spliced_is_spliced_to_its_end() {
        for (way, unseen, want) in [
            (Way::Open, 0, false),
            (Way::Open, LARGE - 1, false),
            (Way::Open, LARGE, true),
            (Way::Spliced, 1, true),
            (Way::Spliced, 0, false),
            (Way::Thin, u64::MAX, false),
            (Way::Copied, u64::MAX, false),
        ] {
            assert_eq!(Passing { way, pipe: None }.is_for(unseen), want, "{way:?} {unseen}");
        }
    }

    #[test]
    fn what_comes_in_small_pieces_is_read_until_it_comes_in_bulk() {
        let after = |way, act: fn(&mut Passing, usize), count| {
            let mut passing = Passing { way, pipe: None };
            act(&mut passing, count);
            passing.way
        };
        for (way, count, want) in [
            (Way::Open, THIN, Way::Spliced),
            (Way::Open, THIN - 1, Way::Thin),
            (Way::Spliced, TURN, Way::Spliced),
            (Way::Spliced, 1, Way::Thin),
        ] {
            assert_eq!(after(way, Passing::spliced, count), want, "{way:?}, {count} spliced");
        }
        for (way, count, want) in [
            (Way::Open, TURN, Way::Open),
            (Way::Thin, BULK - 1, Way::Thin),
            (Way::Thin, BULK, Way::Spliced),
            (Way::Copied, TURN, Way::Copied),
            (Way::Spliced, 1, Way::Spliced),
        ] {
            assert_eq!(after(way, Passing::read, count), want, "{way:?}, {count} read");
        }
    }

    #[test]
    fn a_piece_is_what_is_left_of_the_body_and_of_the_turn() {
        for (unseen, moved, want) in [
            (u64::MAX, 0, TURN),
            (u64::MAX, TURN - PIECE - 1, PIECE + 1),
            (u64::MAX, TURN - 1, PIECE),
            (u64::MAX, TURN + 1, PIECE),
            (7, 0, 7),
            (7, TURN, 7),
        ] {
            assert_eq!(piece(unseen, moved), want, "{unseen} {moved}");
        }
    }
}
