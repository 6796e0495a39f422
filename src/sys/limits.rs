//! How much of what is not memory a process and this machine may have: descriptors, processes, ports.

use crate::ids::ChildPid;
use std::fs;
use std::io;

/// The hard limits of a process; `None`: none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ProcessLimits {
    /// RLIMIT_NOFILE, which a daemon of ours raises its soft limit to.
    pub files: Option<u64>,
    /// RLIMIT_AS, bytes.
    pub address_space: Option<u64>,
    /// RLIMIT_NPROC: processes and threads of its user; root is not bound by it.
    pub tasks: Option<u64>,
}

/// What the whole machine may have, and has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MachineLimits {
    /// `fs.file-max`: open files.
    pub files: u64,
    /// Open files now.
    pub files_used: u64,
    /// The lower of `kernel.threads-max` and `kernel.pid_max`: processes and threads.
    pub tasks: u64,
    /// Processes and threads now.
    pub tasks_used: u64,
    /// `net.ipv4.ip_local_port_range`: connections at one time to one address of a backend.
    pub ports: u64,
    /// What `net.ipv4.tcp_wmem` gives a connection to begin with, bytes.
    pub send_buffer: u64,
}

impl Default for MachineLimits {
    /// Of a machine that tells nothing.
    fn default() -> Self {
        parse_machine("", "", ["", ""], "", "", "")
    }
}

/// The limits of a process.
///
/// # Errors
/// If it is gone; EACCES if it is another user's.
pub fn of_process(pid: ChildPid) -> io::Result<ProcessLimits> {
    Ok(parse_process(&fs::read_to_string(format!("/proc/{}/limits", pid.as_raw()))?))
}

/// The limits of this machine. What cannot be read is taken for unlimited, the ports and the buffer for the kernel's
/// defaults.
#[must_use]
pub fn of_machine() -> MachineLimits {
    let read = |path: &str| fs::read_to_string(format!("/proc/{path}")).unwrap_or_default();
    parse_machine(
        &read("sys/fs/file-max"),
        &read("sys/fs/file-nr"),
        [&read("sys/kernel/threads-max"), &read("sys/kernel/pid_max")],
        &read("loadavg"),
        &read("sys/net/ipv4/ip_local_port_range"),
        &read("sys/net/ipv4/tcp_wmem"),
    )
}

fn parse_process(text: &str) -> ProcessLimits {
    let hard = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    ProcessLimits {
        files: hard("Max open files"),
        address_space: hard("Max address space"),
        tasks: hard("Max processes"),
    }
}

/// The word of that place as a number.
fn word(text: &str, place: usize) -> Option<u64> {
    text.split_ascii_whitespace().nth(place)?.parse().ok()
}

fn parse_machine(
    file_max: &str,
    file_nr: &str,
    tasks: [&str; 2],
    load: &str,
    ports: &str,
    buffer: &str,
) -> MachineLimits {
    // `0.1 0.2 0.3 2/345 6789`: 345 of them.
    let tasks_used =
        load.split_ascii_whitespace().nth(3).and_then(|word| word.split_once('/')?.1.parse().ok());
    let (first, last) = (word(ports, 0).unwrap_or(32_768), word(ports, 1).unwrap_or(60_999));
    MachineLimits {
        files: word(file_max, 0).unwrap_or(u64::MAX),
        files_used: word(file_nr, 0).unwrap_or(0),
        tasks: tasks.iter().filter_map(|text| word(text, 0)).min().unwrap_or(u64::MAX),
        tasks_used: tasks_used.unwrap_or(0),
        ports: (last + 1).saturating_sub(first),
        send_buffer: word(buffer, 1).unwrap_or(16_384),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_process_are_the_hard_ones() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max processes             96365                96366                processes\n\
            Max open files            1024                 20000                files\n\
            Max address space         unlimited            unlimited            bytes\n";
        let want = ProcessLimits { files: Some(20_000), address_space: None, tasks: Some(96_366) };
        assert_eq!(parse_process(text), want);
        assert_eq!(parse_process(""), ProcessLimits::default());
    }

    #[test]
    fn limits_of_the_machine_are_read_and_have_defaults() {
        let have = parse_machine(
            "2466193\n",
            "3104\t0\t2466193\n",
            ["192731\n", "32768\n"],
            "0.52 0.58 0.59 2/345 12345\n",
            "32768\t60999\n",
            "4096\t16384\t4194304\n",
        );
        let want = MachineLimits {
            files: 2_466_193,
            files_used: 3104,
            tasks: 32_768,
            tasks_used: 345,
            ports: 28_232,
            send_buffer: 16_384,
        };
        assert_eq!(have, want);
        let none = MachineLimits::default();
        assert_eq!((none.files, none.tasks, none.ports, none.tasks_used), (u64::MAX, u64::MAX, 28_232, 0));
        assert_eq!(parse_machine("", "", ["", ""], "x", "9 3", "").ports, 0);
    }

    #[test]
    fn this_machine_has_limits() {
        let me = ChildPid::new(std::process::id().cast_signed()).expect("a process has a positive number");
        assert!(of_process(me).expect("one's own may be read").files.is_none_or(|files| files > 0));
        assert!(of_machine().tasks_used > 0);
    }
}
