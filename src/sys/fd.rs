//! Descriptors that are no sockets: event counters, pipes, the standard streams.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::eventfd::EfdFlags;
use nix::sys::stat::fstat;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// An eventfd: many threads may wait for it in their polls, any may signal it.
///
/// It stays readable until it is cleared, so that nobody who looks late misses it.
#[derive(Debug)]
pub struct EventFd(nix::sys::eventfd::EventFd);

impl EventFd {
    /// One that has not been signalled yet.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(nix::sys::eventfd::EventFd::from_value_and_flags(0, flags)?))
    }

    /// Makes it readable. A counter that is full is readable already, so nothing can go wrong.
    pub fn signal(&self) {
        while let Err(Errno::EINTR) = self.0.write(1) {}
    }

    /// Makes it unreadable, and tells whether it was readable.
    pub fn clear(&self) -> bool {
        loop {
            match self.0.read() {
                Ok(_) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A pipe: what is written to the second is read from the first. Both block.
///
/// # Errors
/// If no descriptor is left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// read(2) into `bytes`; 0 is the end.
///
/// # Errors
/// As read(2), except EINTR.
pub fn read(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match nix::unistd::read(fd, bytes) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// write(2) of `bytes`, once: how many went is for the caller to look at.
///
/// # Errors
/// As write(2), except EINTR.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match nix::unistd::write(fd, bytes) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Opens descriptors 0, 1 and 2 on /dev/null where they are closed, so that no file or socket of ours lands
/// on a number that some library writes to.
///
/// # Errors
/// If /dev/null cannot be opened.
pub fn ensure_standard_streams() -> io::Result<()> {
    loop {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        if null.as_raw_fd() > libc::STDERR_FILENO {
            return Ok(());
        }
        // The lowest free number was one of the three: it stays open for good. Being CLOEXEC does no harm,
        // since `Command` makes its own three for the programs it starts.
        std::mem::forget(null);
    }
}

/// Points standard input and output at /dev/null.
///
/// # Errors
/// If /dev/null cannot be opened.
pub fn silence_standard_streams() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}

/// Points standard error at `target`: where a library or a panic may still write.
///
/// # Errors
/// None that Linux documents for two open descriptors.
pub fn redirect_standard_error(target: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::unistd::dup2_stderr(target)?)
}

/// Takes over the descriptor that this process was started with under `number`, and makes it CLOEXEC. To be called
/// once for each, at the start of `main`.
///
/// # Errors
/// EBADF if it is not open; `InvalidInput` for one of the standard streams, which have their owners.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the number is only asked about, and given up again at once if it is not open. What is open at the
    // start of the process beyond the standard streams was passed to it by whoever started it, and the caller
    // takes each number once: so nobody else owns it.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: as above; it is open, as the call before has shown.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes reads of this pipe or socket return at once when there is nothing, for everybody who shares it.
///
/// # Errors
/// None that Linux documents for an open descriptor.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Opens a file for appending, and makes it with `mode` if it is not there. Writing to it blocks; opening it does not,
/// even if it is a pipe of the file system that nobody reads from.
///
/// # Errors
/// As open(2); ENXIO for such a pipe.
pub fn append(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(mode).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = OwnedFd::from(options.open(path)?);
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// Whether both are descriptors of the same file, socket or pipe, be it of its other end.
///
/// # Errors
/// None that Linux documents for open descriptors.
pub fn are_the_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let [one, other] = [fstat(one)?, fstat(other)?];
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// A second descriptor, CLOEXEC, of the same open file.
///
/// # Errors
/// If no descriptor is left.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stays_until_it_is_cleared() {
        let event = EventFd::new().unwrap();
        assert!(!event.clear());
        event.signal();
        event.signal();
        assert!(event.clear());
        assert!(!event.clear());
    }

    #[test]
    fn a_pipe_carries_bytes_and_then_its_end() {
        let (reader, writer) = pipe().unwrap();
        assert_eq!(write(writer.as_fd(), b"ready").unwrap(), 5);
        drop(writer);
        let mut bytes = [0; 16];
        assert_eq!(read(reader.as_fd(), &mut bytes).unwrap(), 5);
        assert_eq!(read(reader.as_fd(), &mut bytes).unwrap(), 0);
    }

    #[test]
    fn the_ends_of_a_pipe_are_known_by_each_other() {
        let (reader, writer) = pipe().unwrap();
        let (_other, another) = pipe().unwrap();
        let copy = duplicate(writer.as_fd()).unwrap();
        assert!(are_the_same(reader.as_fd(), copy.as_fd()).unwrap());
        assert!(!are_the_same(reader.as_fd(), another.as_fd()).unwrap());
    }

    #[test]
    fn a_pipe_that_nobody_reads_from_is_refused_and_one_with_a_reader_blocks() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refused = append(&path, 0o640).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENXIO));
        let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let file = home.path().join("file");
        for path in [&path, &file] {
            let opened = append(path, 0o640).unwrap();
            let flags = OFlag::from_bits_retain(fcntl(&opened, FcntlArg::F_GETFL).unwrap());
            assert!(flags.contains(OFlag::O_APPEND) && !flags.contains(OFlag::O_NONBLOCK), "{flags:?}");
        }
    }
}
