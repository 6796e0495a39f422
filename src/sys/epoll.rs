//! What mio's poll does not offer: exclusive wake-ups.
//!
//! A listener is in the epoll of every child. With EPOLLEXCLUSIVE the kernel wakes one of them per connection
//! instead of all. Such an entry can only be added and deleted (changing it is EINVAL), and it is
//! level-triggered. Whoever is woken accepts at least once before it may delete: nobody else was told.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Adds `fd`, readable, exclusive, level-triggered; its events carry `token`.
///
/// # Errors
/// EEXIST if it is there already; ENOSPC or ENOMEM if the kernel has no room.
pub fn add_exclusive(epoll: RawFd, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32,
        u64: u64::try_from(token).expect("a usize has at most 64 bits on Linux"),
    };
    // SAFETY: `event` lives over the call, which only reads it. A wrong `epoll` number is an error, no harm.
    let result = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Deletes `fd`. To be done before it is closed if another process may hold it too: the entry belongs to the
/// open file, not to our descriptor, and would go on eating wake-ups (invariant 9).
///
/// # Errors
/// ENOENT if it is not there.
pub fn delete(epoll: RawFd, fd: BorrowedFd<'_>) -> io::Result<()> {
    let event = std::ptr::null_mut();
    // SAFETY: the kernel ignores the event of a DEL, so it may be null (since Linux 2.6.9).
    let result = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd.as_raw_fd(), event) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd::EventFd;
    use mio::{Events, Poll};
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn an_exclusive_entry_tells_its_token_until_it_is_deleted() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let event = EventFd::new().unwrap();
        add_exclusive(poll.as_raw_fd(), event.as_fd(), 7).unwrap();
        event.signal();
        for round in 0..2 {
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            let tokens: Vec<_> = events.iter().map(|event| event.token().0).collect();
            assert_eq!(tokens, [7], "level-triggered: told again in round {round}");
        }
        assert_eq!(
            add_exclusive(poll.as_raw_fd(), event.as_fd(), 8).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        delete(poll.as_raw_fd(), event.as_fd()).unwrap();
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
        assert_eq!(delete(poll.as_raw_fd(), event.as_fd()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
