//! Whether the server that a scoreboard tells of still runs, and what its processes have used.
//!
//! A pid alone proves nothing: it may have been given again, or be meant in another container. So the file
//! keeps the boot, the pid namespace and the start time beside it, and `/proc` is asked for all three.
//!
//! Nor does it prove anything that `/proc` does not show a process: it may hide those of other users. A server is dead
//! only where the kernel says so.

use crate::ids::ChildPid;
use crate::sys::{process, shm};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// How often the processor time is added up anew because a child was reaped meanwhile.
const TRIES: usize = 8;

/// What became of a server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Life {
    /// Its master runs.
    Running,
    /// It stopped in good order.
    Stopped,
    /// Its master is no more, and did not say good-bye.
    Dead,
    /// The machine has been started anew since.
    BeforeReboot,
    /// Can't be told from here, for example from another container, or where `/proc` hides other users' processes.
    #[default]
    Unknown,
}

/// Processor time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// Spent in the program.
    pub user: f64,
    /// Spent in the kernel for it.
    pub system: f64,
}

/// What `/proc` knows about a live server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Of the master and of the children that live.
    pub living: CpuTime,
    /// Of children that have ended.
    pub ended: CpuTime,
}

/// Who the master is, as its file says.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Its pid.
    pub pid: u32,
    /// Its start, in clock ticks since boot; 0: unknown.
    pub start_ticks: u64,
    /// Its pid namespace; 0: unknown.
    pub pid_namespace: u64,
    /// The boot it ran under; empty: unknown.
    pub boot_id: &'a str,
    /// Whether it stopped in good order.
    pub stopped: bool,
}

/// The id of this boot.
#[must_use]
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// The pid namespace of this process.
#[must_use]
pub fn pid_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino())
}

/// When a process began, in clock ticks since boot.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    find(pid).alive().map(|stat| stat.start_ticks)
}

/// The load averages over 1, 5 and 15 minutes.
#[must_use]
pub fn load() -> Option<[f64; 3]> {
    parse_load(&fs::read_to_string("/proc/loadavg").ok()?)
}

/// Whether the master lives.
#[must_use]
pub fn look(identity: &Identity<'_>) -> Life {
    judge(identity, boot_id().as_deref(), pid_namespace(), find(identity.pid))
}

/// The same for a process that the master has forked. It may be another user by now, to whom `/proc` hides the master;
/// but its parent has the master's number only as long as that lives.
#[must_use]
pub fn look_up(identity: &Identity<'_>) -> Life {
    match look(identity) {
        Life::Unknown if process::parent().is_some_and(|parent| number(identity.pid) == Some(parent)) => {
            Life::Running
        }
        life => life,
    }
}

/// What the master and its children have used, those that `/proc` knows of and those of `children` that are its own:
/// their numbers are gossip. `None` if `/proc` hides one of them, or if children end faster than they can be counted.
#[must_use]
pub fn usage(master: u32, children: impl Iterator<Item = u32>) -> Option<Usage> {
    let mut pids: Vec<u32> = children.collect();
    // Children that count on a former board are not among those of the current one.
    if let Ok(known) = fs::read_to_string(format!("/proc/{master}/task/{master}/children")) {
        pids.extend(known.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    pids.dedup();
    let mut before = find(master).alive()?;
    for _ in 0..TRIES {
        let mut living = Vec::with_capacity(pids.len());
        for pid in &pids {
            match find(*pid) {
                // One that has ended and is not reaped yet has its time still with itself.
                Found::Here(stat) if stat.parent == master => living.push(stat),
                Found::Here(_) | Found::Gone => {}
                // A sum without it would be too small, and a counter would step back.
                Found::Hidden => return None,
            }
        }
        let after = find(master).alive()?;
        // One that was reaped meanwhile would count twice or not at all.
        if after.of_ended() == before.of_ended() {
            return Some(sum(&after, &living));
        }
        before = after;
    }
    None
}

fn sum(master: &Stat, living: &[Stat]) -> Usage {
    let ticks = shm::ticks_per_second() as f64;
    let time = |user: u64, system: u64| CpuTime { user: user as f64 / ticks, system: system as f64 / ticks };
    let (mut user, mut system) = (master.user, master.system);
    for stat in living {
        user = user.saturating_add(stat.user);
        system = system.saturating_add(stat.system);
    }
    Usage { living: time(user, system), ended: time(master.children_user, master.children_system) }
}

/// The verdict over what the file says and what `/proc` says.
fn judge(identity: &Identity<'_>, boot_now: Option<&str>, namespace_now: Option<u64>, found: Found) -> Life {
    if identity.stopped {
        return Life::Stopped;
    }
    if !identity.boot_id.is_empty() && boot_now.is_some_and(|boot| boot != identity.boot_id) {
        return Life::BeforeReboot;
    }
    let same_namespace = namespace_now == Some(identity.pid_namespace);
    if !same_namespace || identity.start_ticks == 0 || identity.pid == 0 {
        return Life::Unknown;
    }
    match found {
        Found::Here(stat) if !stat.ended && stat.start_ticks == identity.start_ticks => Life::Running,
        Found::Here(_) | Found::Gone => Life::Dead,
        Found::Hidden => Life::Unknown,
    }
}

/// What the kernel tells of a process number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    /// The process that has it.
    Here(Stat),
    /// No process has it.
    Gone,
    /// Some process has it, or may have it: it is not shown to us.
    Hidden,
}

impl Found {
    fn alive(self) -> Option<Stat> {
        match self {
            Self::Here(stat) => Some(stat).filter(|stat| !stat.ended),
            Self::Gone | Self::Hidden => None,
        }
    }
}

/// The fields of `/proc/PID/stat` that we use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stat {
    /// Whether it is a zombie, or less.
    ended: bool,
    parent: u32,
    user: u64,
    system: u64,
    children_user: u64,
    children_system: u64,
    start_ticks: u64,
}

impl Stat {
    /// The time of reaped children.
    fn of_ended(&self) -> (u64, u64) {
        (self.children_user, self.children_system)
    }
}

/// What a file says is a process number may be none: the kernel gives neither 0 nor any above `i32::MAX`.
fn number(pid: u32) -> Option<ChildPid> {
    i32::try_from(pid).ok().and_then(ChildPid::new)
}

fn find(pid: u32) -> Found {
    let Some(number) = number(pid) else { return Found::Gone };
    match fs::read(format!("/proc/{pid}/stat")) {
        // The name in it is of any bytes.
        Ok(text) => parse_stat(&String::from_utf8_lossy(&text)).map_or(Found::Hidden, Found::Here),
        Err(fault) if process::is_gone(number, &fault) => Found::Gone,
        Err(_) => Found::Hidden,
    }
}

/// The second field is a name in parentheses that may hold blanks and parentheses itself.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ended = matches!(*fields.first()?, "Z" | "X");
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        ended,
        parent: u32::try_from(number(4)?).ok()?,
        user: number(14)?,
        system: number(15)?,
        children_user: number(16)?,
        children_system: number(17)?,
        start_ticks: number(22)?,
    })
}

fn parse_load(text: &str) -> Option<[f64; 3]> {
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().ok());
    Some([fields.next()??, fields.next()??, fields.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_lives_if_boot_namespace_and_start_agree() {
        let file = Identity { pid: 7, start_ticks: 500, pid_namespace: 9, boot_id: "b", stopped: false };
        let born = |start_ticks| {
            let line = format!("7 (ostler) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start_ticks} 0 0");
            parse_stat(&line).expect("a line as the kernel writes it")
        };
        let here = Found::Here(born(500));
        for (identity, boot, namespace, found, want) in [
            (file, Some("b"), Some(9), here, Life::Running),
            (file, Some("b"), Some(9), Found::Here(Stat { ended: true, ..born(500) }), Life::Dead),
            (file, Some("b"), Some(9), Found::Gone, Life::Dead),
            (file, Some("b"), Some(9), Found::Here(born(501)), Life::Dead),
            (file, Some("b"), Some(9), Found::Hidden, Life::Unknown),
            (file, Some("c"), Some(9), here, Life::BeforeReboot),
            (file, Some("c"), Some(9), Found::Hidden, Life::BeforeReboot),
            (file, None, Some(9), here, Life::Running),
            (file, Some("b"), Some(8), Found::Gone, Life::Unknown),
            (file, Some("b"), None, Found::Gone, Life::Unknown),
            (Identity { start_ticks: 0, ..file }, Some("b"), Some(9), here, Life::Unknown),
            (Identity { stopped: true, ..file }, Some("b"), Some(9), here, Life::Stopped),
            (Identity { stopped: true, ..file }, Some("b"), Some(9), Found::Hidden, Life::Stopped),
        ] {
            assert_eq!(judge(&identity, boot, namespace, found), want, "{identity:?} {boot:?} {found:?}");
        }
    }

    #[test]
    fn a_number_without_a_process_is_gone_and_a_file_that_is_not_read_hides_one() {
        // The first two are no process numbers at all, the last is above what any kernel gives.
        for pid in [0, u32::MAX, i32::MAX as u32] {
            assert_eq!(find(pid), Found::Gone, "{pid}");
        }
        let own = number(std::process::id()).expect("a process has a positive number");
        let none = number(i32::MAX as u32).expect("it is positive");
        // ENOENT, ESRCH; EPERM as hidepid=1 says, EACCES, EMFILE.
        for (code, means_gone) in [(2, true), (3, true), (1, false), (13, false), (24, false)] {
            let fault = std::io::Error::from_raw_os_error(code);
            assert!(!process::is_gone(own, &fault), "a process that lives is not gone: {fault}");
            assert_eq!(process::is_gone(none, &fault), means_gone, "{fault}");
        }
    }

    #[test]
    fn whom_a_process_was_forked_by_lives() {
        let pid = process::parent().expect("the test has a parent here").as_raw().unsigned_abs();
        let unknown = Identity { pid, start_ticks: 0, pid_namespace: 0, boot_id: "", stopped: false };
        assert_eq!((look(&unknown), look_up(&unknown)), (Life::Unknown, Life::Running));
        let other = Identity { pid: std::process::id(), ..unknown };
        assert_eq!(look_up(&other), Life::Unknown);
        assert_eq!(look_up(&Identity { stopped: true, ..unknown }), Life::Stopped);
        assert_eq!(look_up(&Identity { pid: 0, ..unknown }), Life::Unknown);
    }

    #[test]
    fn stat_lines_are_read_past_hostile_names() {
        let line = "12 (a) R 1 (x) S 3 12 12 0 -1 4194304 1 2 3 4 50 60 70 80 20 0 1 0 9876 1 2 3";
        let want = Stat {
            ended: false,
            parent: 3,
            user: 50,
            system: 60,
            children_user: 70,
            children_system: 80,
            start_ticks: 9876,
        };
        assert_eq!(parse_stat(line), Some(want));
        assert_eq!(parse_stat(&line.replace(" S ", " Z ")), Some(Stat { ended: true, ..want }));
        for broken in ["", ")", "1 (a) S", "1 (a) S -3 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"] {
            assert_eq!(parse_stat(broken), None, "{broken}");
        }
    }

    #[test]
    fn this_very_process_is_found() {
        let own = std::process::id();
        let ticks = start_ticks(own).expect("a start time");
        let boot = boot_id().expect("a boot id");
        let namespace = pid_namespace().expect("a namespace");
        let identity = Identity {
            pid: own,
            start_ticks: ticks,
            pid_namespace: namespace,
            boot_id: &boot,
            stopped: false,
        };
        assert_eq!(look(&identity), Life::Running);
        assert!(usage(own, [0, 1].into_iter()).is_some());
        assert!(load().is_some());
    }
}
