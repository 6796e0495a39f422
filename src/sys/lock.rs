//! Advisory write locks on whole files (fcntl, POSIX).
//!
//! Of a process, not of a descriptor: children do not inherit one, it goes when its owner dies however it
//! dies, and also when its owner closes *any* descriptor of that file. So a file that is locked is opened once
//! and kept.

use crate::ids::ChildPid;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::io;
use std::os::fd::BorrowedFd;

/// Takes the lock, unless another process has it: then `false`.
///
/// # Errors
/// If the file was not opened for writing, or its file system knows no locks.
pub fn try_lock(file: BorrowedFd<'_>) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the lock up; the descriptor stays open.
///
/// # Errors
/// None that Linux documents for a lock of ours.
pub fn unlock(file: BorrowedFd<'_>) -> io::Result<()> {
    let mut lock = whole_file();
    lock.l_type = i16::try_from(libc::F_UNLCK).expect("the kernel's lock constants fit a short");
    fcntl(file, FcntlArg::F_SETLK(&lock))?;
    Ok(())
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holder {
    /// Nobody, or this process itself.
    Nobody,
    /// Another process.
    Process(ChildPid),
    /// A process that has no number in our pid namespace: one outside of our container.
    Elsewhere,
}

/// Who holds the lock; our own does not count.
///
/// # Errors
/// If the file system knows no locks.
pub fn holder(file: BorrowedFd<'_>) -> io::Result<Holder> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return Ok(Holder::Nobody);
    }
    Ok(ChildPid::new(lock.l_pid).map_or(Holder::Elsewhere, Holder::Process))
}

fn whole_file() -> libc::flock {
    let small = |number: i32| i16::try_from(number).expect("the kernel's lock constants fit a short");
    libc::flock {
        l_type: small(libc::F_WRLCK),
        l_whence: small(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
