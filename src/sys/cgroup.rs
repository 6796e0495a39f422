//! What a control group, of version 2 or 1, lets its members have: memory and processes.
//!
//! Every group from the process's own up to the root of what is mounted bounds it; the kernel asks them all.

use crate::ids::ChildPid;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A bound, and how much of it is taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bound {
    /// The file that says it.
    pub file: PathBuf,
    /// The most.
    pub limit: u64,
    /// What is taken now; of memory, without what the kernel would give back before anything else (cached files).
    pub used: u64,
}

/// The bounds that hold for a process.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    /// Bytes of memory, the kernel's own for these processes included.
    pub memory: Vec<Bound>,
    /// Processes and threads.
    pub tasks: Vec<Bound>,
}

/// The bounds of the groups that a process is in.
///
/// # Errors
/// If the process is gone, or `/proc` is not mounted.
pub fn of_process(pid: ChildPid) -> io::Result<Bounds> {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw()))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut bounds = Bounds::default();
    for group in places(&groups, &mounts) {
        for directory in group.upwards() {
            let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
            for file in group.version.memory_files() {
                bounds.memory.extend(memory(&directory, file, group.version, read));
            }
            let limit = read("pids.max").and_then(|text| number(&text));
            if let (Some(limit), Some(used)) = (limit, read("pids.current").and_then(|text| number(&text))) {
                bounds.tasks.push(Bound { file: directory.join("pids.max"), limit, used });
            }
        }
    }
    Ok(bounds)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn memory_files(self) -> &'static [&'static str] {
        match self {
            Self::One => &["memory.limit_in_bytes"],
            // Above the second a group is held up until it has given memory back: as bad as swapping.
            Self::Two => &["memory.max", "memory.high"],
        }
    }
}

/// A group as a directory.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Place {
    version: Version,
    /// Where its hierarchy is mounted.
    mount: PathBuf,
    /// Below the mount; empty for the root.
    below: PathBuf,
}

impl Place {
    /// The group and those above it, as far as they can be seen.
    fn upwards(&self) -> Vec<PathBuf> {
        self.below.ancestors().map(|below| self.mount.join(below)).collect()
    }
}

/// Where the groups of `/proc/PID/cgroup` lie, by `/proc/self/mountinfo`.
fn places(groups: &str, mounts: &str) -> Vec<Place> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut words = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let wanted = |name: &str| controllers.split(',').any(|controller| controller == name);
        let version = match controllers {
            "" => Version::Two,
            _ if wanted("memory") || wanted("pids") => Version::One,
            _ => continue,
        };
        let mount = mounts.lines().find_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let mut front = front.split(' ').skip(3);
            let (root, mount) = (front.next()?, front.next()?);
            let mut back = back.split(' ');
            let (kind, options) = (back.next()?, back.nth(1)?);
            let is_it = match version {
                Version::Two => kind == "cgroup2",
                Version::One => {
                    kind == "cgroup"
                        && options.split(',').any(|option| controllers.split(',').any(|name| name == option))
                }
            };
            is_it.then(|| (root.to_owned(), PathBuf::from(mount)))
        });
        if let Some((root, mount)) = mount {
            // In a container the mount begins at the group itself, or the path is told as from outside.
            let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
            let below = below.strip_prefix("/").unwrap_or(below);
            let goes_up = below.components().any(|part| part.as_os_str() == "..");
            let below = if goes_up { PathBuf::new() } else { below.to_owned() };
            found.push(Place { version, mount, below });
        }
    }
    found
}

fn memory(
    directory: &Path,
    file: &str,
    version: Version,
    read: impl Fn(&str) -> Option<String>,
) -> Option<Bound> {
    let limit = number(&read(file)?)?;
    let (current, prefix) = match version {
        Version::One => ("memory.usage_in_bytes", "total_"),
        Version::Two => ("memory.current", ""),
    };
    let statistics = read("memory.stat").unwrap_or_default();
    let cached =
        ["inactive_file", "active_file"].map(|name| statistic(&statistics, &format!("{prefix}{name}")));
    let used = number(&read(current)?)?.saturating_sub(cached.iter().sum());
    Some(Bound { file: directory.join(file), limit, used })
}

/// Version 1 says "no limit" by a number that no machine has.
const NO_LIMIT: u64 = 1 << 62;

/// A number; `None` for `max`.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|number| *number < NO_LIMIT)
}

/// The number behind a name; 0 if it is not there.
fn statistic(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const ONE: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        39 31 0:36 /docker/x /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

    #[test]
    fn groups_are_found_under_both_versions_and_in_containers() {
        let shown = |groups: &str, mounts: &str| -> Vec<String> {
            let places = places(groups, mounts);
            places.iter().flat_map(Place::upwards).map(|path| path.display().to_string()).collect()
        };
        for (groups, mounts, want) in [
            (
                "0::/system.slice/ostler.service\n",
                TWO,
                &[
                    "/sys/fs/cgroup/system.slice/ostler.service",
                    "/sys/fs/cgroup/system.slice",
                    "/sys/fs/cgroup/",
                ] as &[&str],
            ),
            ("0::/\n", TWO, &["/sys/fs/cgroup/"]),
            ("0::/../../outside\n", TWO, &["/sys/fs/cgroup/"]),
            (
                "8:pids:/docker/x/y\n4:memory:/a\n3:cpuset:/\n",
                ONE,
                &[
                    "/sys/fs/cgroup/pids/y",
                    "/sys/fs/cgroup/pids/",
                    "/sys/fs/cgroup/memory/a",
                    "/sys/fs/cgroup/memory/",
                ],
            ),
            ("0::/\n", ONE, &[]),
            ("nonsense\n", TWO, &[]),
            ("", "", &[]),
        ] {
            assert_eq!(shown(groups, mounts), want, "{groups:?}");
        }
    }

    #[test]
    fn memory_bounds_do_not_count_cached_files_as_taken() {
        let files = |version| {
            move |file: &str| {
                let text = match (version, file) {
                    (Version::Two, "memory.max") => "1000000\n",
                    (Version::Two, "memory.high") => "max\n",
                    (Version::Two, "memory.current") => "600000\n",
                    (Version::Two, "memory.stat") => "anon 1\ninactive_file 100000\nactive_file 50000\n",
                    (Version::One, "memory.limit_in_bytes") => "9223372036854771712\n",
                    (Version::One, "memory.usage_in_bytes") => "5\n",
                    _ => return None,
                };
                Some(text.to_owned())
            }
        };
        let here = Path::new("/g");
        let bound = |file: &str, version| memory(here, file, version, files(version));
        let want = Bound { file: "/g/memory.max".into(), limit: 1_000_000, used: 450_000 };
        assert_eq!(bound("memory.max", Version::Two), Some(want));
        assert_eq!(bound("memory.high", Version::Two), None);
        assert_eq!(bound("memory.limit_in_bytes", Version::One), None);
    }

    #[test]
    fn this_process_is_in_some_group_or_none() {
        let me = ChildPid::new(std::process::id().cast_signed()).expect("a process has a positive number");
        let bounds = of_process(me).expect("/proc is there");
        assert!(bounds.memory.iter().chain(&bounds.tasks).all(|bound| bound.limit < NO_LIMIT), "{bounds:?}");
    }
}
