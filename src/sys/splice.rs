//! Bytes from one socket to another by way of a pipe, without a visit to this process: splice(2).
//!
//! The kernel hands pages on where it can and copies where it must; nobody can tell the difference. Which pairs of
//! descriptors it does that for is for it to say, call by call: [`is_unable`] is the answer "not these two", after
//! which read and write do the same.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A pipe that bytes lie in between two sockets. Neither end blocks.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes it has room for.
    room: usize,
    /// Bytes in it.
    held: usize,
}

impl Pipe {
    /// An empty one with room for `wanted` bytes, or for fewer, but not for fewer than `least`.
    ///
    /// # Errors
    /// If no descriptor is left, or the user's pipes have so much room already (`pipe-user-pages-soft`) that the
    /// kernel grants less than `least`.
    pub fn new(wanted: usize, least: usize) -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let asked = i32::try_from(wanted).unwrap_or(i32::MAX);
        let granted = match fcntl(&write, FcntlArg::F_SETPIPE_SZ(asked)) {
            Ok(granted) => granted,
            // EPERM, beyond what the user may have: it keeps the size that it was born with.
            Err(_) => fcntl(&write, FcntlArg::F_GETPIPE_SZ)?,
        };
        let room = usize::try_from(granted).unwrap_or(0);
        if room < least {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(Self { read, write, room, held: 0 })
    }

    /// Bytes it has room for when it is empty. Small pieces fill it earlier: it counts in pages.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Bytes in it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes up to `most` bytes from `source`; 0 is its end. To be called when the pipe is empty, since one that is full
    /// looks like a source that has nothing.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there now; what [`is_unable`] knows; or why the connection is broken.
    pub fn fill(&mut self, source: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let count = splice(source, self.write.as_fd(), most.min(self.room))?;
        self.held += count;
        Ok(count)
    }

    /// Gives `target` as much as it takes of what is held; the rest stays.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now; what [`is_unable`] knows; or why the connection is broken. SIGPIPE must
    /// be ignored, as it is in children.
    pub fn drain(&mut self, target: BorrowedFd<'_>) -> io::Result<usize> {
        let count = splice(self.read.as_fd(), target, self.held)?;
        if count == 0 && self.held > 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }

    /// Reads all that is held: for a target that turns out to take no pipe.
    ///
    /// # Errors
    /// None that a pipe of our own is known to give.
    pub fn read_out(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held];
        let mut at = 0;
        while at < bytes.len() {
            match super::fd::read(self.read.as_fd(), &mut bytes[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => at += count,
            }
        }
        self.held = 0;
        Ok(bytes)
    }
}

/// Whether the kernel means that it can't splice here (nothing has moved), and not that a connection is broken: no such
/// call (ENOSYS, EPERM by a filter on calls), not these descriptors (EINVAL), or no memory for it.
#[must_use]
pub fn is_unable(error: &io::Error) -> bool {
    const UNABLE: [Errno; 6] =
        [Errno::EINVAL, Errno::ENOSYS, Errno::EPERM, Errno::EACCES, Errno::EOPNOTSUPP, Errno::ENOMEM];
    error.raw_os_error().is_some_and(|code| UNABLE.contains(&Errno::from_raw(code)))
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    loop {
        match nix::fcntl::splice(from, None, to, None, most, flags) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    const ROOM: usize = 256 * 1024;

    fn pair() -> (UnixStream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        (near, far)
    }

    #[test]
    fn bytes_pass_and_are_counted() {
        let (source, mut sender) = pair();
        let (target, mut taker) = pair();
        let mut pipe = Pipe::new(ROOM, 4096).unwrap();
        assert!(pipe.room() >= 4096, "{}", pipe.room());
        assert_eq!(pipe.fill(source.as_fd(), 10).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        sender.write_all(b"abcdefgh").unwrap();
        assert_eq!(pipe.fill(source.as_fd(), 3).unwrap(), 3, "no more than was asked for");
        assert_eq!(pipe.held(), 3);
        assert_eq!(pipe.drain(target.as_fd()).unwrap(), 3);
        assert_eq!(pipe.held(), 0);
        let mut got = [0; 3];
        taker.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"abc");
        // What is left can be read instead.
        assert_eq!(pipe.fill(source.as_fd(), ROOM).unwrap(), 5);
        assert_eq!(pipe.read_out().unwrap(), b"defgh");
        assert_eq!(pipe.held(), 0);
        drop(sender);
        assert_eq!(pipe.fill(source.as_fd(), ROOM).unwrap(), 0, "the end");
    }

    #[test]
    fn a_full_target_leaves_the_rest_in_the_pipe() {
        let (source, mut sender) = pair();
        let (target, mut taker) = pair();
        let mut pipe = Pipe::new(ROOM, 4096).unwrap();
        let mut gone = 0;
        loop {
            sender.write_all(&[7; 4096]).unwrap();
            assert_eq!(pipe.fill(source.as_fd(), 4096).unwrap(), 4096);
            match pipe.drain(target.as_fd()) {
                Ok(count) => gone += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    break;
                }
            }
            if pipe.held() > 0 {
                break;
            }
        }
        assert!(pipe.held() > 0 && gone > 0);
        let mut taken = vec![0; gone];
        taker.read_exact(&mut taken).unwrap();
        let held = pipe.held();
        assert_eq!(pipe.drain(target.as_fd()).unwrap(), held);
    }

    #[test]
    fn a_broken_target_and_one_that_takes_no_pipe_are_told_apart() {
        let (source, mut sender) = pair();
        sender.write_all(b"xy").unwrap();
        let mut pipe = Pipe::new(ROOM, 4096).unwrap();
        assert_eq!(pipe.fill(source.as_fd(), 2).unwrap(), 2);
        // A file that is appended to is what splice(2) refuses.
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        let unable = pipe.drain(file.as_fd()).unwrap_err();
        assert!(is_unable(&unable), "{unable}");
        assert_eq!(pipe.held(), 2, "nothing has moved");
        let (target, taker) = pair();
        drop(taker);
        let broken = pipe.drain(target.as_fd()).unwrap_err();
        assert!(!is_unable(&broken), "{broken}");
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
        let nothing_to_read = pipe.fill(home_fd(&home).as_fd(), 2).unwrap_err();
        assert!(is_unable(&nothing_to_read), "a directory: {nothing_to_read}");
    }

    fn home_fd(home: &tempfile::TempDir) -> OwnedFd {
        std::fs::File::open(home.path()).unwrap().into()
    }

    #[test]
    fn a_pipe_that_would_be_too_small_is_none() {
        let error = Pipe::new(4096, ROOM).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    }
}
