//! `-k stop`, `-k graceful`, `-k upgrade` and their like: finding the running master, telling it, and waiting for the
//! outcome.
//!
//! The master is whoever holds the lock on the PidFile; the number written in it is for people and scripts.

use crate::ids::ChildPid;
use crate::master::deaths::span;
use crate::master::error::cause;
use crate::master::pidfile;
use crate::scoreboard::snapshot::{Life, Snapshot};
use crate::sys::poll::{self, Seen, Wish};
use crate::sys::process;
use crate::sys::signal::Signal;
use crate::sys::time;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is waited beyond GracefulShutdownTimeout: for the ladder of the stop, down to SIGKILL.
const BEYOND: Duration = Duration::from_secs(15);

/// How long the outcome of a reload is waited for, and how often it is looked for.
const OUTCOME: Duration = Duration::from_secs(120);
const GLANCE: Duration = Duration::from_millis(5);

/// How long after the end of an old master the new one may take to say that it serves.
const SUCCESSION: Duration = Duration::from_secs(10);

/// How often the holder of a PidFile is looked for that names a living process, and the pause between two looks.
const LOOKS: u32 = 20;

/// What is asked of a master that goes on serving.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ask {
    /// The new configuration.
    Reload,
    /// The new program.
    Upgrade,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reload => "reload",
            Self::Upgrade => "upgrade",
        })
    }
}

/// What came of it.
#[derive(Debug, Eq, PartialEq)]
pub enum Answer {
    /// It is done: `serving generation 5 (12 ms)`.
    Serving(String),
    /// It has been asked for; without a scoreboard file nobody but the error log tells what came of it.
    Unseen(ChildPid),
    /// Nobody runs: nobody holds this PidFile.
    NoneRuns(PathBuf),
}

/// What came of it, to be printed.
#[derive(Debug, Eq, PartialEq)]
pub enum Stopped {
    /// The master is gone.
    Gone(ChildPid),
    /// There was none, which is just as well.
    NoneRuns(PathBuf),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(pid) => write!(f, "ostler (pid {pid}) has stopped"),
            Self::NoneRuns(path) => write!(f, "ostler is not running: nobody holds {}", path.display()),
        }
    }
}

/// Why it was not stopped.
#[derive(Debug)]
pub enum ControlError {
    /// The configuration names no PidFile.
    NoPidFile,
    /// The PidFile can't be read.
    PidFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The master may not be signalled.
    Signal {
        /// The master.
        pid: ChildPid,
        /// Why.
        source: io::Error,
    },
    /// It goes on with the old configuration.
    Refused {
        /// What was asked.
        ask: Ask,
        /// The first fault.
        fault: String,
    },
    /// It has ended meanwhile.
    Ended {
        /// What was asked.
        ask: Ask,
        /// The master.
        pid: ChildPid,
    },
    /// It has not said what came of it.
    NoOutcome {
        /// What was asked.
        ask: Ask,
        /// The master.
        pid: ChildPid,
    },
    /// It still runs.
    StillThere {
        /// The master.
        pid: ChildPid,
        /// How long we have waited.
        waited: Duration,
    },
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPidFile => f.write_str(
                "the configuration says PidFile none, so the master cannot be found; set PidFile, or signal the \
                 master yourself (ostler status shows its number)",
            ),
            Self::PidFile { path, source } => {
                write!(f, "cannot read PidFile {}: {}", path.display(), cause(source))
            }
            Self::Signal { pid, source } => {
                write!(f, "cannot signal ostler (pid {pid}): {}; run this as its owner", cause(source))
            }
            Self::Refused { ask, fault } => {
                write!(f, "{ask} refused, the server goes on as before: {fault}; its error log has the rest")
            }
            Self::Ended { ask, pid } => {
                write!(f, "ostler (pid {pid}) has ended before the {ask} was done; its error log tells why")
            }
            Self::NoOutcome { ask, pid } => write!(
                f,
                "ostler (pid {pid}) has not finished the {ask} within {}; its error log tells whom it waits for",
                span(OUTCOME)
            ),
            Self::StillThere { pid, waited } => write!(
                f,
                "ostler (pid {pid}) is still finishing requests after {}; kill -INT {pid} ends it at once",
                span(*waited)
            ),
        }
    }
}

impl std::error::Error for ControlError {}

/// Stops the master that runs under `pid_file` and waits until it is gone: `patience` and some more, or for ever
/// if that is `None` (as GracefulShutdownTimeout 0 has it).
///
/// # Errors
/// If it cannot be found, signalled or waited for.
pub fn stop(pid_file: Option<&Path>, patience: Option<Duration>) -> Result<Stopped, ControlError> {
    let path = pid_file.ok_or(ControlError::NoPidFile)?;
    let (pid, watched) = match tell(path, Signal::SIGTERM)? {
        Told::Nobody => return Ok(Stopped::NoneRuns(path.to_owned())),
        Told::Gone(pid) => return Ok(Stopped::Gone(pid)),
        Told::Master(pid, watched) => (pid, watched),
    };
    let limit = patience.map(|patience| patience + BEYOND);
    let wish = Wish { fd: watched.as_fd(), read: true, write: false };
    match poll::wait(&[wish], limit, &mut [Seen::default()]) {
        Ok(0) => Err(ControlError::StillThere { pid, waited: limit.unwrap_or_default() }),
        Ok(_) => Ok(Stopped::Gone(pid)),
        Err(source) => Err(ControlError::Signal { pid, source }),
    }
}

/// Has the master that runs under `pid_file` reload or upgrade, and waits for what comes of it, which is read from
/// `scoreboard`. The configuration should have been checked before.
///
/// # Errors
/// If it cannot be found or signalled, or refuses.
pub fn ask(ask: Ask, pid_file: Option<&Path>, scoreboard: Option<&Path>) -> Result<Answer, ControlError> {
    let path = pid_file.ok_or(ControlError::NoPidFile)?;
    let asked = time::wall_micros();
    let signal = match ask {
        Ask::Reload => Signal::SIGHUP,
        Ask::Upgrade => Signal::SIGUSR2,
    };
    let (pid, watched) = match tell(path, signal)? {
        Told::Nobody => return Ok(Answer::NoneRuns(path.to_owned())),
        Told::Gone(pid) => return Err(ControlError::Ended { ask, pid }),
        Told::Master(pid, watched) => (pid, watched),
    };
    let Some(scoreboard) = scoreboard else { return Ok(Answer::Unseen(pid)) };
    let mut limit = time::now().tick().after(OUTCOME);
    let mut has_ended = false;
    while time::now().tick() < limit {
        // The outcome carries the time at which its reload began: an older one was under way before we asked.
        let outcome = Snapshot::read(scoreboard).ok().and_then(|snapshot| snapshot.server.last_reload);
        if let Some(outcome) = outcome.filter(|outcome| outcome.wall >= asked) {
            return if outcome.done {
                Ok(Answer::Serving(outcome.text))
            } else {
                Err(ControlError::Refused { ask, fault: outcome.text })
            };
        }
        let wish = Wish { fd: watched.as_fd(), read: true, write: false };
        let (wishes, mut seen) = ([wish], [Seen::default()]);
        let open = usize::from(!has_ended);
        if poll::wait(&wishes[..open], Some(GLANCE), &mut seen[..open]).is_ok_and(|count| count > 0) {
            // An old master may be gone before the new one has written that it serves; and of the two files that the
            // name meant during the last look, it may have been the old one.
            has_ended = true;
            limit = limit.min(time::now().tick().after(SUCCESSION));
        }
        let is_running = |snapshot: Snapshot| matches!(snapshot.life, Life::Running | Life::Unknown);
        if has_ended && ask == Ask::Reload && !Snapshot::read(scoreboard).is_ok_and(is_running) {
            break;
        }
    }
    Err(if has_ended { ControlError::Ended { ask, pid } } else { ControlError::NoOutcome { ask, pid } })
}

/// Whom a signal has reached.
enum Told {
    /// Nobody holds the PidFile.
    Nobody,
    /// The master has just ended.
    Gone(ChildPid),
    /// The master, with a descriptor that is readable once it has ended.
    Master(ChildPid, OwnedFd),
}

/// Signals the master that holds the lock on `path`, and nobody else.
fn tell(path: &Path, signal: Signal) -> Result<Told, ControlError> {
    let find = || master(path).map_err(|source| ControlError::PidFile { path: path.to_owned(), source });
    let Some(pid) = find()? else { return Ok(Told::Nobody) };
    let watched = match process::watch(pid) {
        Ok(watched) => watched,
        Err(_) if !process::is_alive(pid) => return Ok(Told::Gone(pid)),
        Err(source) => return Err(ControlError::Signal { pid, source }),
    };
    // It held the lock after we began to watch: so the number was not somebody else's by then.
    if find()? != Some(pid) {
        return Ok(Told::Nobody);
    }
    match process::kill(pid, signal) {
        Err(_) if !process::is_alive(pid) => Ok(Told::Gone(pid)),
        Err(source) => Err(ControlError::Signal { pid, source }),
        Ok(()) => Ok(Told::Master(pid, watched)),
    }
}

/// The master that holds `path`. During an upgrade there is a moment in which the old one has given the lock up and the
/// new one does not have it yet; so a file that names a living process is looked at again.
///
/// # Errors
/// If it exists and cannot be read.
pub fn master(path: &Path) -> io::Result<Option<ChildPid>> {
    for _ in 0..LOOKS {
        if let Some(pid) = pidfile::master(path)? {
            return Ok(Some(pid));
        }
        let named = std::fs::read_to_string(path).ok();
        let named = named.and_then(|text| text.trim().parse().ok()).and_then(ChildPid::new);
        if !named.is_some_and(process::is_alive) {
            return Ok(None);
        }
        let _ = poll::wait::<Wish<'_>>(&[], Some(GLANCE), &mut []);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::pidfile::{PidFile, Taken};
    use crate::sys::fd;
    use crate::sys::process::{ChildExit, Death};

    #[test]
    fn a_master_is_found_by_its_lock_and_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ostler.pid");
        assert_eq!(stop(Some(&path), None).unwrap(), Stopped::NoneRuns(path.clone()));
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(stop(Some(&path), None).unwrap(), Stopped::NoneRuns(path.clone()), "a number is no lock");

        let (reader, writer) = fd::pipe().unwrap();
        let master = process::spawn_child(|| {
            let Ok(Taken::Ours { file, .. }) = PidFile::take(&path) else { return ChildExit(1) };
            let Ok(terminate) = crate::sys::signal::terminate_descriptor() else { return ChildExit(2) };
            let _ = fd::write(writer.as_fd(), b"x");
            let wish = Wish { fd: terminate.as_fd(), read: true, write: false };
            let _ = poll::wait(&[wish], None, &mut [Seen::default()]);
            file.remove();
            ChildExit::OK
        })
        .unwrap();
        assert_eq!(fd::read(reader.as_fd(), &mut [0]).unwrap(), 1);
        assert_eq!(stop(Some(&path), Some(Duration::ZERO)).unwrap(), Stopped::Gone(master));
        assert!(!path.exists());
        assert_eq!(process::wait_for(master).unwrap(), Death::Exited(0));
    }

    #[test]
    fn without_a_pid_file_it_says_so() {
        assert!(matches!(stop(None, None), Err(ControlError::NoPidFile)));
        for what in [Ask::Reload, Ask::Upgrade] {
            assert!(matches!(ask(what, None, None), Err(ControlError::NoPidFile)));
        }
    }
}
