//! Why the daemon does not start: one variant for each thing that the administrator would do something
//! different about.

use crate::config::model::StatusListen;
use crate::ids::ChildPid;
pub use crate::log::line::cause;
use crate::master::bequest::VARIABLE;
use crate::scoreboard::board::BoardError;
use nix::errno::Errno;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Why the daemon does not start.
#[derive(Debug)]
pub enum StartError {
    /// Another one runs under the same PidFile.
    Running {
        /// Its master; `None` if it lives in another pid namespace.
        pid: Option<ChildPid>,
        /// The PidFile.
        path: PathBuf,
    },
    /// Another one runs and shows itself in the same ScoreBoardFile.
    BoardHeld {
        /// Its master.
        pid: u32,
        /// The ScoreBoardFile.
        path: PathBuf,
    },
    /// A backend's name is unknown.
    Resolve {
        /// The backend as configured.
        url: String,
        /// The name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// The process that looks names up has failed, or has said what is wrong: the whole sentence.
    LookUp(String),
    /// `User` or `Group` names nobody.
    Nobody {
        /// `User` or `Group`.
        directive: &'static str,
        /// As written.
        name: String,
    },
    /// `User` is a number that the system does not know, and there is no `Group`.
    NoGroup {
        /// As written.
        user: String,
    },
    /// The system's users or groups cannot be read.
    Accounts {
        /// `User` or `Group`.
        directive: &'static str,
        /// As written.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A log cannot be opened.
    Log {
        /// The file or program.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// An address cannot be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A `StatusListen` cannot be listened on.
    StatusListen {
        /// The line.
        listen: StatusListen,
        /// Why.
        source: io::Error,
    },
    /// The service manager has passed a socket that no `Listen` asks for.
    NotAsked {
        /// Where it is bound.
        address: SocketAddr,
        /// Whether it takes clients of both families.
        any_family: bool,
    },
    /// The service manager has passed something that cannot be listened on.
    Passed {
        /// The descriptor.
        number: RawFd,
        /// Its name, or nothing.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// What an old master is said to have left to this one is not so.
    Heritage {
        /// What is wrong.
        what: &'static str,
    },
    /// RLIMIT_NOFILE is too small.
    Descriptors {
        /// What it is.
        limit: u64,
        /// What is needed.
        needed: u64,
        /// For whom: "the master" or "a child of 25 threads".
        whom: String,
    },
    /// The PidFile cannot be written.
    PidFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no scoreboard.
    Board(BoardError),
    /// The kernel refuses something that it usually does not.
    System {
        /// What we wanted: "fork", "watch for signals".
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// No child ever got ready.
    NoChild {
        /// How the last one ended, or how long none got ready.
        how: String,
    },
    /// The old master, which this one was to follow, goes on.
    NotWanted,
    /// The start was called off by a signal.
    CalledOff {
        /// The signal's name.
        signal: &'static str,
    },
    /// The detached daemon has told why it failed.
    Daemon {
        /// Its own sentence.
        reason: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { pid: Some(pid), path } => {
                write!(f, "ostler (pid {pid}) is already running: it holds {}", path.display())
            }
            Self::Running { pid: None, path } => {
                write!(
                    f,
                    "ostler is already running: a process of another container holds {}",
                    path.display()
                )
            }
            Self::BoardHeld { pid, path } => write!(
                f,
                "ScoreBoardFile {}: ostler (pid {pid}) is running and shows itself there",
                path.display()
            ),
            Self::Resolve { url, host, .. } => write!(f, "ProxyPass {url}: cannot resolve {host}"),
            Self::LookUp(sentence) => f.write_str(sentence),
            Self::Nobody { directive, name } => {
                write!(f, "{directive} {name}: there is no such {}", directive.to_lowercase())
            }
            Self::NoGroup { user } => {
                write!(f, "User {user}: the system does not know this number, so it has no group of its own")
            }
            Self::Accounts { directive, name, .. } => write!(f, "{directive} {name}: cannot look it up"),
            Self::Log { target, .. } => write!(f, "cannot open log {target}"),
            Self::Listen { address, .. } => write!(f, "cannot listen on {address}"),
            Self::StatusListen { listen, .. } => write!(f, "cannot listen on {listen} for the status"),
            Self::NotAsked { address, any_family } => {
                let both = if *any_family { " (IPv4 too)" } else { "" };
                write!(
                    f,
                    "the service manager has passed a socket on {address}{both} that no Listen asks for: clients \
                     would connect there, and wait for ever"
                )
            }
            Self::Passed { number, name, what } => {
                let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
                write!(f, "LISTEN_FDS: descriptor {number}{name} {what}")
            }
            Self::Heritage { what } => {
                write!(f, "{VARIABLE}: {what}; only a master that is upgraded may set it")
            }
            Self::Descriptors { limit, needed, whom } => {
                write!(f, "RLIMIT_NOFILE is {limit}, but {whom} needs {needed} descriptors")
            }
            Self::PidFile { path, .. } => write!(f, "cannot write PidFile {}", path.display()),
            Self::Board(error) => error.fmt(f),
            Self::System { what, .. } => write!(f, "cannot {what}"),
            Self::NoChild { how } => write!(f, "no child got ready: {how}"),
            Self::NotWanted => f.write_str("the old master has called the upgrade off"),
            Self::CalledOff { signal } => write!(f, "{signal} came before the daemon served"),
            Self::Daemon { reason } => f.write_str(reason),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Resolve { source, .. }
            | Self::Accounts { source, .. }
            | Self::Log { source, .. }
            | Self::Listen { source, .. }
            | Self::StatusListen { source, .. }
            | Self::PidFile { source, .. }
            | Self::System { source, .. } => Some(source),
            Self::Board(error) => error.source(),
            Self::Running { .. }
            | Self::BoardHeld { .. }
            | Self::Nobody { .. }
            | Self::LookUp(_)
            | Self::NoGroup { .. }
            | Self::NotAsked { .. }
            | Self::Passed { .. }
            | Self::Heritage { .. }
            | Self::Descriptors { .. }
            | Self::NoChild { .. }
            | Self::NotWanted
            | Self::CalledOff { .. }
            | Self::Daemon { .. } => None,
        }
    }
}

impl StartError {
    /// What the administrator may do about it.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        use io::ErrorKind::{
            AddrInUse, AddrNotAvailable, NotFound, PermissionDenied, ReadOnlyFilesystem, StorageFull,
        };
        let advice = match self {
            Self::Listen { address, source } => match source.kind() {
                PermissionDenied if address.port() < 1024 => {
                    "ports below 1024 need root or CAP_NET_BIND_SERVICE; start as root or use a higher port"
                }
                AddrInUse => "another process listens there; stop it (ss -ltnp shows it) or change Listen",
                AddrNotAvailable => "no interface of this machine has this address; correct Listen",
                _ => return None,
            },
            Self::StatusListen { listen: StatusListen::Tcp(_), source } => match source.kind() {
                AddrInUse => {
                    "another process listens there; stop it (ss -ltnp shows it) or change StatusListen"
                }
                AddrNotAvailable => "no interface of this machine has this address; correct StatusListen",
                PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE; use a higher port",
                _ => return None,
            },
            Self::StatusListen { listen: StatusListen::Unix(_), source } => match source.kind() {
                AddrInUse => "another process answers there, or it is no socket; choose another path",
                _ => file_advice(source)?,
            },
            Self::NotAsked { address, .. } => {
                return Some(format!("add Listen {address}, or take it out of the socket unit"));
            }
            Self::Passed { .. } => "correct the socket unit: ListenStream= with an address or a port",
            Self::Resolve { .. } => "correct the name, or write an address",
            Self::Nobody { directive, .. } => {
                return Some(format!("create it, or correct {directive}"));
            }
            Self::NoGroup { .. } => "set Group",
            Self::BoardHeld { .. } => "stop it, or give this one another ScoreBoardFile",
            Self::Log { source, .. } if source.raw_os_error() == Some(Errno::ENXIO as i32) => {
                "nobody reads from it, if it is a pipe: start its reader first"
            }
            Self::Log { source, .. } | Self::PidFile { source, .. } => file_advice(source)?,
            Self::Board(BoardError::Create { source, .. }) => file_advice(source)?,
            Self::Board(BoardError::Room { source, .. }) if source.kind() == StorageFull => {
                "make room on the file system of ScoreBoardFile, or lower ServerLimit or ThreadLimit"
            }
            Self::Board(BoardError::Room { .. }) => "lower ServerLimit or ThreadLimit",
            Self::Descriptors { whom, .. } if whom.starts_with("the master") => {
                "raise it (ulimit -n, or LimitNOFILE= of the unit) or lower ServerLimit"
            }
            Self::Descriptors { whom, .. } if whom == "the groom" => {
                "raise it (ulimit -n, or LimitNOFILE= of the unit), or do without StatusListen"
            }
            Self::Descriptors { .. } => {
                "raise it (ulimit -n, or LimitNOFILE= of the unit) or lower ThreadsPerChild"
            }
            Self::Accounts { .. }
            | Self::LookUp(_)
            | Self::Board(BoardError::Shape { .. })
            | Self::Running { .. }
            | Self::Heritage { .. }
            | Self::System { .. }
            | Self::NoChild { .. }
            | Self::NotWanted
            | Self::CalledOff { .. }
            | Self::Daemon { .. } => return None,
        };
        return Some(advice.to_owned());

        fn file_advice(source: &io::Error) -> Option<&'static str> {
            match source.kind() {
                NotFound => Some("create the directory, or correct the path"),
                PermissionDenied => Some("start as root, or choose a place that you may write to"),
                ReadOnlyFilesystem => Some("choose a place that can be written to"),
                StorageFull => Some("make room on its file system"),
                _ => None,
            }
        }
    }

    /// What the program leaves with. Finding a daemon running is no failure for who asked for one in the
    /// background (as httpd has it), but is for a service manager that waits for this very process.
    #[must_use]
    pub fn exit_code(&self, foreground: bool) -> i32 {
        i32::from(foreground || !matches!(self, Self::Running { .. }))
    }

    /// The whole sentence for the person who started us: what, why, and what to do.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut sentence = self.to_string();
        if let Some(source) = self.source() {
            sentence.push_str(": ");
            sentence.push_str(&cause(source));
        }
        if let Some(advice) = self.advice() {
            sentence.push_str("; ");
            sentence.push_str(&advice);
        }
        sentence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_says_what_why_and_what_to_do() {
        let os = io::Error::from_raw_os_error;
        let (eacces, enoent, enxio, eaddrinuse, enospc) = (13, 2, 6, 98, 28);
        for (error, want) in [
            (
                StartError::Listen { address: "127.0.0.1:80".parse().unwrap(), source: os(eacces) },
                "cannot listen on 127.0.0.1:80: Permission denied; ports below 1024 need root or \
                 CAP_NET_BIND_SERVICE; start as root or use a higher port",
            ),
            (
                StartError::Listen { address: "[::]:8080".parse().unwrap(), source: os(eaddrinuse) },
                "cannot listen on [::]:8080: Address already in use; another process listens there; stop it \
                 (ss -ltnp shows it) or change Listen",
            ),
            (
                StartError::Log { target: "/run/log.fifo".into(), source: os(enxio) },
                "cannot open log /run/log.fifo: No such device or address; nobody reads from it, if it is a pipe: \
                 start its reader first",
            ),
            (
                StartError::PidFile { path: "/no/where.pid".into(), source: os(enoent) },
                "cannot write PidFile /no/where.pid: No such file or directory; create the directory, or \
                 correct the path",
            ),
            (
                StartError::Board(BoardError::Create { path: "/s/board".into(), source: os(enospc) }),
                "cannot create the scoreboard file /s/board: No space left on device; make room on its file \
                 system",
            ),
            (
                StartError::Nobody { directive: "User", name: "www".into() },
                "User www: there is no such user; create it, or correct User",
            ),
            (
                StartError::Descriptors { limit: 64, needed: 98, whom: "a child of 25 threads".into() },
                "RLIMIT_NOFILE is 64, but a child of 25 threads needs 98 descriptors; raise it (ulimit -n, or \
                 LimitNOFILE= of the unit) or lower ThreadsPerChild",
            ),
            (
                StartError::Running { pid: ChildPid::new(77), path: "/run/o.pid".into() },
                "ostler (pid 77) is already running: it holds /run/o.pid",
            ),
        ] {
            assert_eq!(error.sentence(), want);
            let is_running = matches!(error, StartError::Running { .. });
            assert_eq!((error.exit_code(true), error.exit_code(false)), (1, i32::from(!is_running)));
            assert!(!error.sentence().ends_with('.') && !error.sentence().contains('\n'));
        }
    }
}
