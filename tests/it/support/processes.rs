//! What the kernel says of the daemon's processes: parents, titles, memory, and who holds which connection.
//!
//! Reads /proc only, so it does not depend on what the daemon says of itself.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;

/// One line of the process table.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent's number.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// The kernel's letter; `Z` is dead and unreaped.
    pub state: char,
}

/// Reads one process, or `None` if it is gone.
pub fn look(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself hold parentheses and blanks.
    let mut rest = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = rest.next()?.chars().next()?;
    let parent = rest.next()?.parse().ok()?;
    let group = rest.next()?.parse().ok()?;
    Some(Process { pid, parent, group, state })
}

/// All processes of the machine.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    entries.filter_map(|entry| look(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// Does something while this thread, and whom it starts meanwhile, may run on one core only.
pub fn on_one_core<T>(act: impl FnOnce() -> T) -> T {
    let here = Pid::from_raw(0);
    let allowed = sched_getaffinity(here).expect("a thread may ask for its own");
    let first = (0..CpuSet::count()).find(|core| allowed.is_set(*core).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.expect("this thread runs somewhere")).expect("it is in the set of all");
    sched_setaffinity(here, &one).expect("it is among those allowed");
    let result = act();
    sched_setaffinity(here, &allowed).expect("it was so before");
    result
}

/// Whether `pid` runs (a zombie does not).
pub fn is_alive(pid: i32) -> bool {
    look(pid).is_some_and(|process| process.state != 'Z')
}

/// Sends `signal` to a process that is there.
#[track_caller]
pub fn send(pid: i32, signal: Signal) {
    assert!(pid > 0, "that would be a whole group of processes");
    kill(Pid::from_raw(pid), signal).expect("it is there");
}

/// The living children of `parent` that run the same program: not a log program, not a zombie.
pub fn children_of(parent: i32) -> Vec<i32> {
    let program = fs::read_link(format!("/proc/{parent}/exe")).ok();
    let is_child = |process: &Process| {
        process.parent == parent
            && process.state != 'Z'
            && fs::read_link(format!("/proc/{}/exe", process.pid)).ok() == program
    };
    let mut pids: Vec<i32> = all().into_iter().filter(is_child).map(|process| process.pid).collect();
    pids.sort_unstable();
    pids
}

/// The living processes of a group.
pub fn members(group: i32) -> Vec<i32> {
    let in_group = |process: &Process| process.group == group && process.state != 'Z';
    all().into_iter().filter(in_group).map(|process| process.pid).collect()
}

/// What `ps` shows as the command.
pub fn title(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim().to_owned()
}

/// A field of /proc/PID/status, for example `VmRSS` or `Threads`, as its first number.
pub fn figure(pid: i32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Sets a soft limit of a running process, for example `nofile`, as `prlimit` names it.
#[track_caller]
pub fn limit(pid: i32, name: &str, most: u64) {
    let option = format!("--{name}={most}:");
    let mut command = std::process::Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), &option]);
    // A root that lacks CAP_SYS_RESOURCE, as in a container, may do so only as the process's own user.
    let ids = [figure(pid, "Uid"), figure(pid, "Gid")].map(|id| id.and_then(|id| u32::try_from(id).ok()));
    if let [Some(uid), Some(gid)] = ids
        && uid != nix::unistd::geteuid().as_raw()
    {
        command.uid(uid).gid(gid);
    }
    let status = command.status();
    assert!(status.expect("prlimit is part of util-linux").success(), "prlimit {option} of {pid}");
}

/// Processor time that a process has used so far, in ticks of the kernel (a hundredth of a second).
pub fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Memory that nobody else shares with `pid`, in KiB.
pub fn private_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let private = |line: &str| line.strip_prefix("Private_")?.split_whitespace().nth(1)?.parse::<u64>().ok();
    Some(text.lines().filter_map(private).sum())
}

/// Memory of `pid` that no file is behind (heap and stacks), in KiB; what it shares counts for its part.
pub fn heap_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pss_Anon:")?.split_whitespace().next()?.parse().ok())
}

/// A group's processes, one a line, for a failed test's report.
pub fn tree(group: i32) -> String {
    let mut lines = String::new();
    for process in all().into_iter().filter(|process| process.group == group) {
        let Process { pid, parent, state, .. } = process;
        lines += &format!("  {pid} (parent {parent}, {state}) {}\n", title(pid));
    }
    lines
}

/// How many established connections to `listener` each of `pids` holds.
pub fn connections(pids: &[i32], listener: SocketAddr) -> BTreeMap<i32, usize> {
    let ends = sockets(listener, None);
    pids.iter().map(|pid| (*pid, held(*pid).intersection(&ends).count())).collect()
}

/// Which of `pids` holds the connection to `listener` whose other end is `client`.
pub fn holder(pids: &[i32], listener: SocketAddr, client: SocketAddr) -> Option<i32> {
    let ends = sockets(listener, Some(client.port()));
    pids.iter().copied().find(|pid| !held(*pid).is_disjoint(&ends))
}

/// The inodes of established connections with our side's port that of `listener`.
fn sockets(listener: SocketAddr, peer: Option<u16>) -> HashSet<u64> {
    let table = if listener.is_ipv6() { "/proc/net/tcp6" } else { "/proc/net/tcp" };
    let text = fs::read_to_string(table).expect("the kernel lists its sockets");
    let port = |end: &str| u16::from_str_radix(end.rsplit(':').next()?, 16).ok();
    let inode = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_ours = port(words.get(1)?)? == listener.port() && *words.get(3)? == "01";
        let is_asked = peer.is_none_or(|peer| words.get(2).and_then(|end| port(end)) == Some(peer));
        if is_ours && is_asked { words.get(9)?.parse().ok() } else { None }
    };
    text.lines().skip(1).filter_map(inode).filter(|inode| *inode != 0).collect()
}

/// The inodes of all sockets that `pid` has open.
fn held(pid: i32) -> HashSet<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return HashSet::new() };
    let inode =
        |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    entries.filter_map(|entry| inode(fs::read_link(entry.ok()?.path()).ok()?)).collect()
}

/// Whether a thread of the process is asleep in epoll_wait: it is idle, and the next event wakes it. Also where
/// that cannot be told.
pub fn waits_in_its_poll(pid: i32) -> bool {
    /// epoll_wait, epoll_pwait and epoll_pwait2 of x86-64.
    const POLLS: [&str; 3] = ["232 ", "281 ", "441 "];
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let mut calls = threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("syscall")));
    calls.any(|call| call.map_or(true, |call| POLLS.iter().any(|number| call.starts_with(number))))
}
