//! Passing a descriptor to another process: one message, one descriptor (SCM_RIGHTS, unix(7)).

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Sends `bytes` with `passed` over `over`, a socket that keeps the borders of messages: all or nothing. The caller
/// keeps its own descriptor.
///
/// # Errors
/// `WouldBlock` if the socket is full, ETOOMANYREFS if more descriptors are under way than RLIMIT_NOFILE allows,
/// `BrokenPipe` if nobody is at the other end.
pub fn send(over: BorrowedFd<'_>, bytes: &[u8], passed: BorrowedFd<'_>) -> io::Result<()> {
    let rights = [passed.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&rights)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match sendmsg::<()>(over.as_raw_fd(), &[IoSlice::new(bytes)], &control, flags, None) {
            Err(Errno::EINTR) => {}
            other => return other.map(|_| ()).map_err(io::Error::from),
        }
    }
}

/// Whether a [`send`] failed only because too much is under way: later it may not.
#[must_use]
pub fn is_full(fault: &io::Error) -> bool {
    matches!(
        fault.raw_os_error().map(Errno::from_raw),
        Some(Errno::EAGAIN | Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

/// What came with a message.
#[derive(Debug)]
pub struct Passed {
    /// Bytes of the message; one that was longer than the buffer has been cut.
    pub length: usize,
    /// Its descriptor, close-on-exec. `None` if none came: there was none, or this process has no room for it.
    pub fd: Option<OwnedFd>,
}

/// Takes the next message from `over`. A message must carry one descriptor; what others it has are closed.
///
/// # Errors
/// `WouldBlock` if there is none.
pub fn receive(over: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Passed> {
    let mut control = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    loop {
        let mut parts = [IoSliceMut::new(bytes)];
        let message = match recvmsg::<()>(over.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut fds = Vec::new();
        // One that was cut (no room for another descriptor here) has lost its rights already.
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel has just made these descriptors for us, so nobody else owns them.
                fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        return Ok(Passed { length: message.bytes, fd: fds.into_iter().next() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fd, socket};
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (ours, theirs) = socket::pair().unwrap();
        let (reader, writer) = fd::pipe().unwrap();
        assert_eq!(receive(theirs.as_fd(), &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send(ours.as_fd(), b"one", writer.as_fd()).unwrap();
        drop(writer);
        let mut bytes = [0; 8];
        let passed = receive(theirs.as_fd(), &mut bytes).unwrap();
        assert_eq!(&bytes[..passed.length], b"one");
        let writer = passed.fd.expect("it was sent");
        fd::write(writer.as_fd(), b"through").unwrap();
        let mut read = [0; 16];
        assert_eq!(fd::read(reader.as_fd(), &mut read).unwrap(), 7);
    }

    #[test]
    fn a_message_without_a_descriptor_and_one_with_two_are_told() {
        let (ours, theirs) = socket::pair().unwrap();
        socket::send(ours.as_fd(), b"none").unwrap();
        assert!(receive(theirs.as_fd(), &mut [0; 8]).unwrap().fd.is_none());
        let (reader, writer) = fd::pipe().unwrap();
        let rights = [reader.as_raw_fd(), writer.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&rights)];
        let parts = [IoSlice::new(b"two")];
        sendmsg::<()>(ours.as_raw_fd(), &parts, &control, MsgFlags::empty(), None).unwrap();
        let first = receive(theirs.as_fd(), &mut [0; 8]).unwrap().fd.expect("the first of them");
        drop(writer);
        assert_eq!(fd::read(first.as_fd(), &mut [0; 1]).unwrap(), 0, "nobody else holds the second");
    }

    #[test]
    fn a_full_socket_says_so() {
        let (ours, _theirs) = socket::pair().unwrap();
        let (reader, _writer) = fd::pipe().unwrap();
        let fault = (0..100_000).find_map(|_| send(ours.as_fd(), b"again", reader.as_fd()).err());
        let fault = fault.expect("no socket holds that many");
        assert!(is_full(&fault), "{fault}");
    }
}
