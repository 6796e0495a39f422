//! `-k stop` and `-k graceful-stop`: finding the running master and waiting until it is gone.
//!
//! The master is whoever holds the lock on the PidFile; the number written in it is for people and scripts.

use crate::ids::ChildPid;
use crate::master::deaths::span;
use crate::master::error::cause;
use crate::master::pidfile;
use crate::sys::poll::{self, Seen, Wish};
use crate::sys::process;
use crate::sys::signal::Signal;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is waited beyond GracefulShutdownTimeout: for the ladder of the stop, down to SIGKILL.
const BEYOND: Duration = Duration::from_secs(15);

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
            Self::NoPidFile => {
                f.write_str("the configuration names no PidFile, so the master cannot be found")
            }
            Self::PidFile { path, source } => {
                write!(f, "cannot read PidFile {}: {}", path.display(), cause(source))
            }
            Self::Signal { pid, source } => {
                write!(f, "cannot signal ostler (pid {pid}): {}; run this as its owner", cause(source))
            }
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
    let find =
        || pidfile::master(path).map_err(|source| ControlError::PidFile { path: path.to_owned(), source });
    let none_runs = || Ok(Stopped::NoneRuns(path.to_owned()));
    let Some(pid) = find()? else { return none_runs() };
    let watched = match process::watch(pid) {
        Ok(watched) => watched,
        Err(_) if !process::is_alive(pid) => return Ok(Stopped::Gone(pid)),
        Err(source) => return Err(ControlError::Signal { pid, source }),
    };
    // It held the lock after we began to watch: so the number was not somebody else's by then.
    if find()? != Some(pid) {
        return none_runs();
    }
    match process::kill(pid, Signal::SIGTERM) {
        Err(_) if !process::is_alive(pid) => return Ok(Stopped::Gone(pid)),
        Err(source) => return Err(ControlError::Signal { pid, source }),
        Ok(()) => {}
    }
    let limit = patience.map(|patience| patience + BEYOND);
    let wish = Wish { fd: watched.as_fd(), read: true, write: false };
    match poll::wait(&[wish], limit, &mut [Seen::default()]) {
        Ok(0) => Err(ControlError::StillThere { pid, waited: limit.unwrap_or_default() }),
        Ok(_) => Ok(Stopped::Gone(pid)),
        Err(source) => Err(ControlError::Signal { pid, source }),
    }
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
    }
}
