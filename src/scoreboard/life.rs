//! Whether the server that a scoreboard tells of still runs, and what its processes have used.
//!
//! A pid alone proves nothing: it may have been given again, or be meant in another container. So the file
//! keeps the boot, the pid namespace and the start time beside it, and `/proc` is asked for all three.

use crate::sys::shm;
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
    /// Can't be told from here, for example from another container.
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
    stat(pid).filter(|stat| !stat.ended).map(|stat| stat.start_ticks)
}

/// The load averages over 1, 5 and 15 minutes.
#[must_use]
pub fn load() -> Option<[f64; 3]> {
    parse_load(&fs::read_to_string("/proc/loadavg").ok()?)
}

/// Whether the master lives.
#[must_use]
pub fn look(identity: &Identity<'_>) -> Life {
    judge(identity, boot_id().as_deref(), pid_namespace(), start_ticks(identity.pid))
}

/// What the master and its children have used, those that `/proc` knows of and those of `children` that are its own:
/// their numbers are gossip. `None` if children end faster than they can be counted.
#[must_use]
pub fn usage(master: u32, children: impl Iterator<Item = u32>) -> Option<Usage> {
    let mut pids: Vec<u32> = children.collect();
    // Children that count on a former board are not among those of the current one.
    if let Ok(known) = fs::read_to_string(format!("/proc/{master}/task/{master}/children")) {
        pids.extend(known.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    pids.dedup();
    let mut before = stat(master).filter(|stat| !stat.ended)?;
    for _ in 0..TRIES {
        // One that has ended and is not reaped yet has its time still with itself.
        let living: Vec<Stat> =
            pids.iter().filter_map(|pid| stat(*pid)).filter(|stat| stat.parent == master).collect();
        let after = stat(master).filter(|stat| !stat.ended)?;
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
fn judge(
    identity: &Identity<'_>,
    boot_now: Option<&str>,
    namespace_now: Option<u64>,
    start_now: Option<u64>,
) -> Life {
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
    if start_now == Some(identity.start_ticks) { Life::Running } else { Life::Dead }
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

fn stat(pid: u32) -> Option<Stat> {
    if pid == 0 {
        return None;
    }
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
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
        for (identity, boot, namespace, start, want) in [
            (file, Some("b"), Some(9), Some(500), Life::Running),
            (file, Some("b"), Some(9), None, Life::Dead),
            (file, Some("b"), Some(9), Some(501), Life::Dead),
            (file, Some("c"), Some(9), Some(500), Life::BeforeReboot),
            (file, None, Some(9), Some(500), Life::Running),
            (file, Some("b"), Some(8), None, Life::Unknown),
            (file, Some("b"), None, None, Life::Unknown),
            (Identity { start_ticks: 0, ..file }, Some("b"), Some(9), Some(500), Life::Unknown),
            (Identity { stopped: true, ..file }, Some("b"), Some(9), Some(500), Life::Stopped),
        ] {
            assert_eq!(judge(&identity, boot, namespace, start), want, "{identity:?} {boot:?} {start:?}");
        }
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
