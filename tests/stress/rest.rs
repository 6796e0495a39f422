//! What the kernel counts of a process: children, descriptors, memory.

use std::fs;

/// Its children, zombies included, if it has one thread as a master has. Quick, for who looks often; empty if it
/// is gone.
pub fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Its open descriptors.
pub fn descriptors(pid: i32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// Its own memory with its part of what it shares by fork, in KiB. The scoreboard is left out: it grows to what the
/// busiest moment needed, and is there to stay.
pub fn own_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?.split_whitespace().next()?.parse().ok()
}
