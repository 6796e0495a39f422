//! What `/proc` tells of memory: one process's share, and the machine's.
//!
//! PSS counts a page that n processes map as 1/n of a page for each, so that sums over processes are true. What the
//! kernel itself keeps for a process is in none of it, but for the page tables.

use crate::ids::ChildPid;
use std::fs;
use std::io;

/// A process's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ProcessMemory {
    /// Its proportional share of all it maps.
    pub pss: u64,
    /// Of that, what is neither program nor library: heap, stacks, and memory shared with its family. On kernels
    /// before 5.4, which do not tell them apart, all of it.
    pub own: u64,
    /// What nobody else maps (USS).
    pub private: u64,
    /// Program, libraries and other files as they are mapped and in memory, whoever shares them.
    pub files: u64,
    /// What has been swapped out.
    pub swap: u64,
    /// Page tables: the kernel's, for this process.
    pub page_tables: u64,
    /// Address space, used or not.
    pub address_space: u64,
    /// Threads.
    pub threads: u32,
    /// The number of its parent.
    pub parent: u32,
}

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MachineMemory {
    /// MemTotal.
    pub total: u64,
    /// MemAvailable: what can be had without swapping.
    pub available: u64,
    /// SwapTotal.
    pub swap_total: u64,
    /// SwapFree.
    pub swap_free: u64,
}

/// The memory of a process.
///
/// # Errors
/// ENOENT or ESRCH if it is gone; EACCES if it is another user's, or has changed its user, and we are not root.
pub fn of_process(pid: ChildPid) -> io::Result<ProcessMemory> {
    let pid = pid.as_raw();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_process(&rollup, &status).ok_or_else(|| unknown("smaps_rollup"))
}

/// The memory of this machine.
///
/// # Errors
/// If `/proc` is not mounted.
pub fn of_machine() -> io::Result<MachineMemory> {
    parse_machine(&fs::read_to_string("/proc/meminfo")?).ok_or_else(|| unknown("meminfo"))
}

fn unknown(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{file} has not the form that is known"))
}

/// The number of `Name:   123 kB` in bytes, or of `Name:  123` as it stands.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut words = line.split_ascii_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    if words.next() == Some("kB") { number.checked_mul(1024) } else { Some(number) }
}

fn parse_process(rollup: &str, status: &str) -> Option<ProcessMemory> {
    let pss = field(rollup, "Pss")?;
    let own = field(rollup, "Pss_Anon").zip(field(rollup, "Pss_Shmem")).map(|(anon, shmem)| anon + shmem);
    Some(ProcessMemory {
        pss,
        own: own.unwrap_or(pss),
        private: field(rollup, "Private_Clean")? + field(rollup, "Private_Dirty")?,
        files: if own.is_some() { field(status, "RssFile").unwrap_or(0) } else { 0 },
        swap: field(rollup, "SwapPss").unwrap_or(0),
        page_tables: field(status, "VmPTE").unwrap_or(0),
        address_space: field(status, "VmSize").unwrap_or(0),
        threads: u32::try_from(field(status, "Threads").unwrap_or(1)).unwrap_or(u32::MAX),
        parent: u32::try_from(field(status, "PPid").unwrap_or(0)).unwrap_or(0),
    })
}

fn parse_machine(text: &str) -> Option<MachineMemory> {
    let total = field(text, "MemTotal")?;
    Some(MachineMemory {
        total,
        // Kernels before 3.14 do not tell; what is free is the least it can be.
        available: field(text, "MemAvailable").or_else(|| field(text, "MemFree"))?.min(total),
        swap_total: field(text, "SwapTotal").unwrap_or(0),
        swap_free: field(text, "SwapFree").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLUP: &str = "5555cdf0a000-7ffd09708000 ---p 00000000 00:00 0    [rollup]\nRss:   1596 kB\nPss:    280 kB\n\
        Pss_Dirty:  108 kB\nPss_Anon:  100 kB\nPss_File:  172 kB\nPss_Shmem:   8 kB\nShared_Clean: 1452 kB\n\
        Private_Clean:   36 kB\nPrivate_Dirty:  108 kB\nSwap:  4 kB\nSwapPss:  2 kB\n";
    const STATUS: &str = "Name:\tostler\nPPid:\t7\nVmPeak:\t 3080 kB\nVmSize:\t 3060 kB\nRssFile:\t 1508 kB\nVmPTE:\t   48 kB\nThreads:\t26\n";

    #[test]
    fn a_process_is_read_field_by_field() {
        let want = ProcessMemory {
            pss: 280 << 10,
            own: 108 << 10,
            private: 144 << 10,
            files: 1508 << 10,
            swap: 2 << 10,
            page_tables: 48 << 10,
            address_space: 3060 << 10,
            threads: 26,
            parent: 7,
        };
        assert_eq!(parse_process(ROLLUP, STATUS), Some(want));
        let old = ROLLUP.replace("Pss_Anon", "Other");
        let want = ProcessMemory { own: want.pss, files: 0, ..want };
        assert_eq!(parse_process(&old, STATUS), Some(want), "an old kernel");
        for broken in ["", "Pss: kB\n", "Pss:\n", "Pss: -3 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 1 kB\n"] {
            assert_eq!(parse_process(broken, STATUS), None, "{broken:?}");
        }
    }

    #[test]
    fn a_machine_is_read() {
        let text = "MemTotal:  2000 kB\nMemFree:  100 kB\nMemAvailable:  900 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n";
        let kib = |number: u64| number * 1024;
        let want =
            MachineMemory { total: kib(2000), available: kib(900), swap_total: kib(50), swap_free: kib(20) };
        assert_eq!(parse_machine(text), Some(want));
        let old = text.replace("MemAvailable", "Other");
        assert_eq!(parse_machine(&old).map(|memory| memory.available), Some(kib(100)));
        assert_eq!(parse_machine(""), None);
    }

    #[test]
    fn this_process_and_this_machine_have_memory() {
        let me = ChildPid::new(std::process::id().cast_signed()).expect("a process has a positive number");
        let mine = of_process(me).expect("one's own memory may be read");
        let machine = of_machine().expect("/proc is there");
        assert!(mine.pss > 0 && mine.own <= mine.pss && mine.threads > 0, "{mine:?}");
        assert!(machine.total > mine.pss && machine.available <= machine.total, "{machine:?}");
    }
}
