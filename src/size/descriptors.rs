//! How many descriptors the processes need, and how many connections a number of them is enough for.

use crate::config::model::{Config, Mpm};

/// Descriptors that a process of ours has whatever it does: streams, poll, signals, scoreboard, and some air.
pub const FIXED: u64 = 24;

/// Descriptors of a child beside those of its connections, listeners and logs: standard streams, polls, bells, the
/// scoreboard, orders.
pub const OF_A_CHILD: u64 = 16;

/// Pipes of a child at its most. The kernel counts the room of all pipes of a user: `pipe-user-pages-soft` is 64 MiB, or
/// 256 pipes.
const MOST_PIPES: u64 = 64;

/// Slots of the scoreboard for each child of ServerLimit, and the descriptor that the master has of each child.
pub const SLOTS_OF_A_CHILD: u64 = 2;

/// What both kinds of process need beside what they do: listeners and logs, these in both ends of a pipe.
#[must_use]
pub fn common(listeners: u64, logs: u64) -> u64 {
    FIXED + listeners + 2 * logs
}

/// What a child of so many threads needs at least: a worker serves one client and one backend at a time, and has a
/// bell where it waits for a place at its backend by itself.
#[must_use]
pub fn of_a_child(mpm: Mpm, threads: u64, listeners: u64, logs: u64) -> u64 {
    common(listeners, logs) + if mpm == Mpm::Event { 2 * threads } else { 3 * threads }
}

/// What the master of so many slots needs: while it forks, it holds a second descriptor of each listener. With a groom,
/// the groom's orders, and a second descriptor of each of its `doors` (`StatusListen`).
#[must_use]
pub fn of_the_master(slots: u64, listeners: u64, logs: u64, doors: u64) -> u64 {
    let grooms = if doors == 0 { 0 } else { 2 * doors + 2 };
    common(listeners, logs) + slots + listeners + grooms
}

/// How many descriptors the master and a child of `config` need at least.
#[must_use]
pub fn needs(config: &Config) -> [(String, u64); 2] {
    let count = |length: usize| length as u64;
    let (listeners, logs) = (count(config.listen.len()), count(config.log_targets.len()));
    let threads = u64::from(config.limits.threads_per_child);
    let slots = u64::from(config.limits.slots());
    let child = match config.mpm {
        Mpm::Prefork => "a child".to_owned(),
        Mpm::Event | Mpm::Worker => format!("a child of {threads} threads"),
    };
    [
        (child, of_a_child(config.mpm, threads, listeners, logs)),
        (
            format!("the master of {slots} slots"),
            of_the_master(slots, listeners, logs, count(config.status_listen.len())),
        ),
    ]
}

/// Pipes that large bodies go through, of a child with so many descriptors: two descriptors each, so this is a
/// thirty-second of them. Without one a body is copied, so that nothing hangs on their number.
#[must_use]
pub fn pipes_of_a_child(files: u64) -> u64 {
    (files / 64).min(MOST_PIPES)
}

/// How many connections a child of event may have with so many descriptors, each with one to a backend.
#[must_use]
pub fn connections_of_a_child(files: u64, listeners: u64, logs: u64) -> u64 {
    files.saturating_sub(OF_A_CHILD + listeners + logs + 2 * pipes_of_a_child(files)) / 2
}

/// How many descriptors a child of event needs for so many connections.
#[must_use]
pub fn for_connections(connections: u64, listeners: u64, logs: u64) -> u64 {
    let all_but_pipes = 2 * connections + OF_A_CHILD + listeners + logs;
    // With n pipes there are from 64 n to 64 n + 63 descriptors, of which 2 n are theirs.
    let pipes = (all_but_pipes / 62).min(MOST_PIPES);
    all_but_pipes + 2 * pipes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};

    fn config(text: &str) -> Config {
        config::from_text("test", text, &Options::default()).expect("a valid text").config
    }

    #[test]
    fn how_many_descriptors_are_needed() {
        let text = "Listen 127.0.0.1:0\nListen 127.0.0.1:1\nServerLimit 4\n";
        let event = config(&format!("MPM event\n{text}ThreadsPerChild 10\nMaxRequestWorkers 40\n"));
        let [(child, of_child), (master, of_master)] = needs(&event);
        let logs = 2 * event.log_targets.len() as u64;
        assert_eq!((child.as_str(), of_child), ("a child of 10 threads", 24 + 2 + logs + 20));
        assert_eq!((master.as_str(), of_master), ("the master of 8 slots", 24 + 2 + logs + 8 + 2));
        let with_status = config(&format!("MPM event\n{text}StatusListen 0\n"));
        assert_eq!(needs(&with_status)[1].1, of_master + 4);
        let prefork = config(&format!("MPM prefork\n{text}MaxRequestWorkers 4\n"));
        assert_eq!(needs(&prefork)[0], ("a child".to_owned(), 24 + 2 + logs + 3));
    }

    #[test]
    fn a_connection_takes_two() {
        // 16 pipes of 1024 descriptors, 64 of 20,000.
        for (files, want) in [(1024, 486), (20_000, 9926), (19, 0), (0, 0)] {
            assert_eq!(connections_of_a_child(files, 2, 1), want, "{files}");
        }
    }

    #[test]
    fn what_is_needed_for_connections_is_enough_and_no_more() {
        for connections in (1..10_000).chain([50_000, 1 << 20]) {
            let files = for_connections(connections, 2, 1);
            assert_eq!(connections_of_a_child(files, 2, 1), connections, "{files}");
            assert!(connections_of_a_child(files - 1, 2, 1) < connections, "{files}");
        }
    }
}
