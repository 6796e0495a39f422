//! A file mapped shared and writable, once, for the life of the process.
//!
//! The mapping is leaked: forked children inherit it, rows are handed out as plain references, and nothing
//! ever unmaps it. What the bytes mean is the scoreboard's business.

use memmap2::{MmapMut, MmapOptions};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{ProtFlags, mprotect};
use std::ffi::c_void;
use std::fs::{File, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::ptr::NonNull;

/// Where a mapping lies, so that parts of it can be made read-only.
///
/// Holds no right to the bytes: those were given out as `&'static mut [u8]` by [`SharedMap::new`].
#[derive(Clone, Copy, Debug)]
pub struct SharedMap {
    start: NonNull<u8>,
    length: usize,
}

impl SharedMap {
    /// Maps the first `length` bytes of `file`, which must have that many.
    ///
    /// The bytes come as an exclusive slice to be cut into structures of atomics before the first fork. From
    /// that fork on other processes write to them too, so nothing but atomics may be made of them.
    pub fn new(file: &File, length: usize) -> io::Result<(Self, &'static mut [u8])> {
        if file.metadata()?.len() < length as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is shorter than the mapping"));
        }
        // SAFETY: the file must not change behind the slice's back. It is ours alone until the first fork (a
        // new inode or a memfd), and by then the caller has turned the slice into atomics, for which a
        // change by another process is an ordinary concurrent store. Nobody shortens it: its length was
        // checked above and its one writable descriptor stays with the master.
        let map: MmapMut = unsafe { MmapOptions::new().len(length).map_mut(file) }?;
        let bytes: &'static mut [u8] = &mut Box::leak(Box::new(map))[..];
        let map = Self { start: NonNull::from(&mut bytes[0]), length: bytes.len() };
        Ok((map, bytes))
    }

    /// Makes a range of the mapping read-only in this process, from now on: a store there is a SIGSEGV. Both
    /// ends of the range must lie on page borders and within the mapping; an empty range does nothing.
    pub fn protect_read_only(&self, range: Range<usize>) -> io::Result<()> {
        if range.start >= range.end {
            return Ok(());
        }
        let page = page_size();
        if range.end > self.length || !range.start.is_multiple_of(page) || !range.end.is_multiple_of(page) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: `add` must stay inside the allocation; `start < end <= length` was just checked.
        let start: NonNull<c_void> = unsafe { self.start.add(range.start) }.cast();
        // SAFETY: mprotect must be given pages whose protection nobody relies on. They belong to our leaked
        // mapping, and only atomics live there; the caller gives up storing to them, and a store by mistake
        // is a fault, never a corruption.
        unsafe { mprotect(start, range.len(), ProtFlags::PROT_READ) }?;
        Ok(())
    }
}

/// An unnamed file in memory, close-on-exec, of zero length. Only its owner may open it again.
pub fn memory_file(name: &str) -> io::Result<File> {
    let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    // The kernel makes it readable and writable for all who can name it, as /proc/PID/fd/N does.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Fixes the length of a [`memory_file`] for good: nobody, its owner included, can shorten it under a mapping
/// (a store there would be a SIGBUS) or make it longer.
pub fn fix_length(file: &File) -> io::Result<()> {
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// Has the file system set aside room for a range of `file`, so that a store through the mapping can't meet
/// a full one (that would be a SIGBUS). Grows the file if the range ends behind its end.
pub fn reserve(file: &File, range: Range<u64>) -> io::Result<()> {
    let (Ok(start), Ok(length)) =
        (libc::off_t::try_from(range.start), libc::off_t::try_from(range.end.saturating_sub(range.start)))
    else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    loop {
        match nix::fcntl::posix_fallocate(file, start, length) {
            Err(Errno::EINTR) => {}
            outcome => return outcome.map_err(io::Error::from),
        }
    }
}

/// Bytes of a page of memory: the unit of [`SharedMap::protect_read_only`].
#[must_use]
pub fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| size.is_power_of_two())
        .unwrap_or(4096)
}

/// Clock ticks to a second, the unit of processor time in `/proc/PID/stat`.
#[must_use]
pub fn ticks_per_second() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok())
        .filter(|ticks| *ticks > 0)
        .unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_stored_is_read_through_the_file() {
        let page = page_size();
        let file = memory_file("test").expect("memfd");
        reserve(&file, 0..2 * page as u64).expect("room");
        let (map, bytes) = SharedMap::new(&file, 2 * page).expect("map");
        bytes[page] = 7;
        map.protect_read_only(0..page).expect("protect");
        bytes[page + 1] = 8;
        let mut seen = [0; 2];
        file.read_exact_at(&mut seen, page as u64).expect("read");
        assert_eq!(seen, [7, 8]);
    }

    #[test]
    fn a_file_whose_length_is_fixed_keeps_it_and_its_room() {
        let page = page_size() as u64;
        let file = memory_file("test").expect("memfd");
        file.set_len(2 * page).expect("room");
        fix_length(&file).expect("a file of our own making");
        assert!(file.set_len(page).is_err() && file.set_len(3 * page).is_err());
        assert_eq!(file.metadata().expect("open").len(), 2 * page);
        reserve(&file, page..2 * page).expect("within its length");
        file.write_all_at(b"x", page).expect("it can be written");
        assert_eq!(file.metadata().expect("open").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_mapping_is_never_longer_than_its_file_and_protects_whole_pages_only() {
        let page = page_size();
        let file = memory_file("test").expect("memfd");
        file.set_len(page as u64).expect("room");
        assert!(SharedMap::new(&file, page + 1).is_err());
        let (map, _bytes) = SharedMap::new(&file, page).expect("map");
        assert!(map.protect_read_only(0..2 * page).is_err());
        assert!(map.protect_read_only(1..page).is_err());
        assert!(map.protect_read_only(page..page).is_ok());
    }

    #[test]
    fn a_store_to_what_is_protected_is_a_fault_and_changes_nothing() {
        use nix::sys::signal::Signal;
        use nix::sys::wait::{WaitStatus, waitpid};
        use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
        use zerocopy::FromBytes;

        let page = page_size();
        let file = memory_file("test").expect("memfd");
        file.set_len(3 * page as u64).expect("room");
        let (map, bytes) = SharedMap::new(&file, 3 * page).expect("map");
        let cells = <[AtomicU8]>::mut_from_bytes(bytes).expect("bytes have no border");
        // SAFETY: of a child of a process with many threads, fork allows only calls that are safe in signal
        // handlers: it makes mprotect and _exit and stores to the mapping, and neither locks nor allocates.
        match unsafe { nix::unistd::fork() }.expect("fork") {
            nix::unistd::ForkResult::Child => {
                let protected = map.protect_read_only(0..page).and(map.protect_read_only(2 * page..3 * page));
                cells[page].store(u8::from(protected.is_ok()), Relaxed);
                let seen = cells[0].load(Relaxed);
                cells[2 * page].store(seen + 1, Relaxed);
                cells[page].store(9, Relaxed);
                // SAFETY: takes no pointer, and runs none of the test process's exit handlers.
                unsafe { libc::_exit(0) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = waitpid(child, None).expect("our child");
                assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGSEGV, _)), "{status:?}");
            }
        }
        assert_eq!([page, 2 * page].map(|at| cells[at].load(Relaxed)), [1, 0]);
    }
}
