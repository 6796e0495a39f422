//! The program's own text, as this process has it mapped.

use nix::sys::mman::{MmapAdvise, madvise};
use std::ffi::c_void;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;

/// Lets go of what was mapped of the program for something that is over: a start, or a reload, runs through a megabyte and
/// a half that a process which only waits for signals does not need, and that counts as its memory as long as it is mapped.
/// The pages stay in the page cache, as any file's; what runs from here on is mapped again as it is come to.
///
/// # Errors
/// If /proc is not mounted, or what madvise(2) says; then nothing has changed.
pub fn let_go() -> io::Result<()> {
    let program = fs::metadata("/proc/self/exe")?.ino();
    let maps = fs::read_to_string("/proc/self/maps")?;
    for (start, length) in maps.lines().filter_map(|line| text_of(line, program)) {
        let Some(start) = NonNull::new(start as *mut c_void) else { continue };
        // SAFETY: nobody may rely on what these pages have been made since they were mapped. They are mapped from a file
        // that the kernel lets nobody write to while it runs, readable and executable, and so as they are in the file:
        // Rust programs are linked without relocations in their text.
        unsafe { madvise(start, length, MmapAdvise::MADV_DONTNEED) }?;
    }
    Ok(())
}

/// Where the text of the file `inode` is mapped, if this line of /proc/self/maps tells of it: `start-end r-xp offset device
/// inode path`. Start and length.
fn text_of(line: &str, inode: u64) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let is_text = words.next()? == "r-xp" && words.nth(2)?.parse() == Ok(inode);
    (is_text && start < end).then_some((start, end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_text_is_let_go_of() {
        for (line, want) in [
            ("5581c000-5582d000 r-xp 00010000 fe:01 4711    /usr/sbin/ostler", Some((0x5581_c000, 0x11000))),
            (
                "5581c000-5582d000 r-xp 00010000 fe:01 4711    /usr/sbin/ostler (deleted)",
                Some((0x5581_c000, 0x11000)),
            ),
            ("5581c000-5582d000 r-xp 00010000 fe:01 4712    /usr/lib/libc.so.6", None),
            ("5582d000-5582e000 r--p 00010000 fe:01 4711    /usr/sbin/ostler", None),
            ("5582d000-5582e000 rwxp 00010000 fe:01 4711    /usr/sbin/ostler", None),
            ("7ffd0000-7ffd1000 r-xp 00000000 00:00 0       [vdso]", None),
            ("", None),
        ] {
            assert_eq!(text_of(line, 4711), want, "{line}");
        }
    }

    /// KiB of this program's text that are mapped.
    fn mapped() -> u64 {
        let program = fs::metadata("/proc/self/exe").expect("/proc is mounted").ino();
        let smaps = fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
        let (mut is_text, mut sum) = (false, 0);
        for line in smaps.lines() {
            if let Some(kib) = line.strip_prefix("Rss:").filter(|_| is_text) {
                sum +=
                    kib.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
            } else if line.contains(" r-xp ") || line.contains(" r--p ") || line.contains(" rw-p ") {
                is_text = text_of(line, program).is_some();
            }
        }
        sum
    }

    #[test]
    fn what_is_not_running_is_unmapped_and_what_runs_is_mapped_again() {
        let pattern = regex::Regex::new("a(b|c)+d").expect("it is sound");
        assert!(pattern.is_match("xabcbd"));
        let before = mapped();
        let_go().expect("/proc is mounted");
        assert!(mapped() < before, "{before} KiB before and {} after", mapped());
        assert!(pattern.is_match("xabcbd"));
    }
}
