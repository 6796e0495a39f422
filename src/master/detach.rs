//! Leaving the terminal: the process that was started waits, and says how the start went.
//!
//! Two forks and a new session between them, so that the daemon can never get a controlling terminal. The
//! launching process hears over a pipe; its end without a word means that the daemon died.

use crate::master::error::StartError;
use crate::sys::fd;
use crate::sys::process::{self, Side};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

const SERVING: u8 = b'S';
const FAILED: u8 = b'F';

/// Longest reason that is passed on, in bytes.
const LONGEST: usize = 4096;

/// Which process this is now.
#[derive(Debug)]
pub enum Place {
    /// The one that was started; the daemon serves, or has said why not.
    Launcher(Result<(), StartError>),
    /// The daemon.
    Daemon(Report),
}

/// Tells whoever looks on how the start went: the launching process, or a person at the terminal.
#[derive(Debug, Default)]
pub struct Report {
    launcher: Option<OwnedFd>,
    greeting: Option<String>,
}

impl Report {
    /// For a daemon in the foreground: no process waits, but there may be something to say on standard output
    /// once it serves.
    #[must_use]
    pub fn to_terminal(greeting: Option<String>) -> Self {
        Self { launcher: None, greeting }
    }

    fn to_launcher(pipe: OwnedFd) -> Self {
        Self { launcher: Some(pipe), greeting: None }
    }

    /// Whether a process waits.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.launcher.is_some()
    }

    /// The daemon serves.
    pub fn serving(&mut self) {
        self.say(&[SERVING]);
        if let Some(greeting) = self.greeting.take() {
            // A reader that has gone away misses nothing that it still wants.
            let mut out = io::stdout().lock();
            let _ = out.write_all(greeting.as_bytes()).and_then(|()| out.flush());
        }
    }

    /// The daemon does not start, for this reason.
    pub fn failed(&mut self, reason: &str) {
        let mut message = vec![FAILED];
        message.extend_from_slice(&reason.as_bytes()[..reason.len().min(LONGEST)]);
        self.say(&message);
    }

    fn say(&mut self, message: &[u8]) {
        if let Some(pipe) = self.launcher.take() {
            // A launcher that was killed has no use for it; a pipe takes this much without blocking.
            let _ = fd::write(pipe.as_fd(), message);
        }
    }
}

/// Forks into the background. The launching process returns when the daemon has reported.
///
/// # Errors
/// If the kernel refuses; only the launching process sees that.
pub fn detach() -> Result<Place, StartError> {
    let fault = |source| StartError::System { what: "detach from the terminal", source };
    let (reader, writer) = fd::pipe().map_err(fault)?;
    match process::split().map_err(fault)? {
        Side::Parent(middle) => {
            drop(writer);
            let heard = hear(&reader);
            // It ended long ago, when it had forked the daemon.
            let _ = process::wait_for(middle);
            Ok(Place::Launcher(heard))
        }
        Side::Child => {
            drop(reader);
            let mut report = Report::to_launcher(writer);
            match leave_terminal() {
                Ok(Side::Child) => Ok(Place::Daemon(report)),
                Ok(Side::Parent(_)) => process::leave(0),
                Err(source) => {
                    report.failed(&fault(source).sentence());
                    process::leave(1)
                }
            }
        }
    }
}

fn leave_terminal() -> io::Result<Side> {
    process::new_session()?;
    let side = process::split()?;
    if side == Side::Child {
        settle_down()?;
    }
    Ok(side)
}

/// What a daemon does once it has left the terminal: it keeps no directory and no stream of whoever started it.
///
/// # Errors
/// If /dev/null cannot be opened.
pub fn settle_down() -> io::Result<()> {
    std::env::set_current_dir("/")?;
    fd::silence_standard_streams()
}

fn hear(reader: &OwnedFd) -> Result<(), StartError> {
    let mut message = Vec::new();
    let mut bytes = [0; 512];
    loop {
        match fd::read(reader.as_fd(), &mut bytes) {
            Ok(0) => break,
            Ok(count) => message.extend_from_slice(&bytes[..count]),
            Err(source) => return Err(StartError::System { what: "hear from the daemon", source }),
        }
    }
    match message.split_first() {
        Some((&SERVING, _)) => Ok(()),
        Some((_, reason)) => Err(StartError::Daemon { reason: String::from_utf8_lossy(reason).into_owned() }),
        None => {
            let reason = "the daemon died before it could serve; its error log may say more".to_owned();
            Err(StartError::Daemon { reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_is_heard() {
        for (tell, want) in [
            ((|report| report.serving()) as fn(&mut Report), None),
            (|report| report.failed("no child got ready"), Some("no child got ready")),
            (|_| (), Some("the daemon died before it could serve; its error log may say more")),
        ] {
            let (reader, writer) = fd::pipe().unwrap();
            let mut report = Report::to_launcher(writer);
            assert!(report.is_awaited());
            tell(&mut report);
            drop(report);
            let heard = hear(&reader).err().map(|error| error.sentence());
            assert_eq!(heard.as_deref(), want);
        }
    }
}
