//! poll(2) on a handful of descriptors: for threads that serve one connection, and for waits at start.

use super::time;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// What to wait for on one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// Bytes, a connection to accept, or the other side's end.
    pub read: bool,
    /// Room to write, or the outcome of a connect.
    pub write: bool,
}

/// What was seen on one descriptor. A hang-up or an error counts as both, also where neither was wished for:
/// the next call on it tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// A read will not block.
    pub readable: bool,
    /// A write will not block.
    pub writable: bool,
}

/// Most descriptors that are waited for without an allocation.
const FEW: usize = 4;

/// Waits until a wish comes true or `timeout` is over (`None`: for ever). Fills `seen`, which must be as long as
/// `wishes`, and returns how many have something; 0 means that time is up. Wishes may be `Option`s; where there is none
/// nothing is seen.
///
/// # Errors
/// ENOMEM, or EINVAL for more wishes than descriptors are allowed.
pub fn wait<'a, W>(wishes: &[W], timeout: Option<Duration>, seen: &mut [Seen]) -> io::Result<usize>
where
    W: Copy + Into<Option<Wish<'a>>>,
{
    assert_eq!(wishes.len(), seen.len(), "a place for each answer");
    let blank = libc::pollfd { fd: -1, events: 0, revents: 0 };
    let mut few = [blank; FEW];
    let mut many = Vec::new();
    let polled = if wishes.len() <= FEW {
        &mut few[..wishes.len()]
    } else {
        many.resize(wishes.len(), blank);
        &mut many[..]
    };
    for (slot, wish) in polled.iter_mut().zip(wishes) {
        // The kernel passes over a slot of -1.
        let Some(wish) = (*wish).into() else { continue };
        slot.fd = wish.fd.as_raw_fd();
        slot.events = if wish.read { libc::POLLIN } else { 0 } | if wish.write { libc::POLLOUT } else { 0 };
    }
    let count = wait_raw(polled, timeout)?;
    for (slot, seen) in polled.iter().zip(seen) {
        let broken = slot.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0;
        seen.readable = broken || slot.revents & libc::POLLIN != 0;
        seen.writable = broken || slot.revents & libc::POLLOUT != 0;
    }
    Ok(count)
}

/// Whether `fd` can be read from now.
///
/// # Errors
/// As [`wait`].
pub fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut seen = [Seen::default()];
    wait(&[Wish { fd, read: true, write: false }], Some(Duration::ZERO), &mut seen)?;
    Ok(seen[0].readable)
}

/// ppoll(2), begun again with what is left of the time when a signal interrupts.
fn wait_raw(polled: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let begin = timeout.map(|_| time::now());
    let mut left = timeout;
    loop {
        let limit = left.map(|left| libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(left.subsec_nanos()),
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let count = libc::nfds_t::try_from(polled.len()).expect("a length fits an unsigned long");
        // SAFETY: pointer and count describe `polled`; `limit` is null or points at a timespec that lives
        // until the end of this turn; a null mask leaves the signal mask alone.
        let result = unsafe { libc::ppoll(polled.as_mut_ptr(), count, limit, std::ptr::null()) };
        if let Ok(ready) = usize::try_from(result) {
            return Ok(ready);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        if let (Some(timeout), Some(begin)) = (timeout, begin) {
            let passed = Duration::from_micros(time::now().micros_since(begin));
            left = Some(timeout.saturating_sub(passed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd::{self, EventFd};
    use std::os::fd::AsFd;

    #[test]
    fn only_what_is_ready_is_seen() {
        let event = EventFd::new().unwrap();
        let (reader, writer) = fd::pipe().unwrap();
        let wishes = [
            Wish { fd: event.as_fd(), read: true, write: false },
            Wish { fd: reader.as_fd(), read: true, write: false },
            Wish { fd: writer.as_fd(), read: false, write: true },
        ];
        let mut seen = [Seen::default(); 3];
        assert_eq!(wait(&wishes, Some(Duration::ZERO), &mut seen).unwrap(), 1);
        assert_eq!(seen.map(|seen| seen.readable), [false, false, false]);
        assert_eq!(seen.map(|seen| seen.writable), [false, false, true]);

        assert!(!is_readable(event.as_fd()).unwrap());
        event.signal();
        assert!(is_readable(event.as_fd()).unwrap());
        assert_eq!(wait(&wishes[..2], None, &mut seen[..2]).unwrap(), 1);
        assert!(seen[0].readable);
    }

    #[test]
    fn where_there_is_no_wish_nothing_is_seen() {
        let event = EventFd::new().unwrap();
        event.signal();
        let wish = Wish { fd: event.as_fd(), read: true, write: false };
        let mut seen = [Seen { readable: true, writable: true }, Seen::default()];
        assert_eq!(wait(&[None, Some(wish)], None, &mut seen).unwrap(), 1);
        assert_eq!(seen, [Seen::default(), Seen { readable: true, writable: false }]);
    }

    #[test]
    fn a_hang_up_is_readable_and_writable() {
        let (reader, writer) = fd::pipe().unwrap();
        drop(writer);
        let mut seen = [Seen::default()];
        let wish = Wish { fd: reader.as_fd(), read: false, write: false };
        assert_eq!(wait(&[wish], None, &mut seen).unwrap(), 1);
        assert_eq!(seen[0], Seen { readable: true, writable: true });
    }

    #[test]
    fn more_than_a_few_are_fine_and_time_runs_out() {
        let event = EventFd::new().unwrap();
        let wishes = [Wish { fd: event.as_fd(), read: true, write: false }; 9];
        let mut seen = [Seen { readable: true, writable: true }; 9];
        let begin = time::now();
        assert_eq!(wait(&wishes, Some(Duration::from_millis(3)), &mut seen).unwrap(), 0);
        assert!(time::now().micros_since(begin) >= 3000);
        assert_eq!(seen, [Seen::default(); 9]);
    }
}
