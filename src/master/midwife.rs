//! The process between an old master and the new one, while it is not certain that there will be one.
//!
//! It starts the program and is its parent until the old master has made up its mind: so it can end the new one without
//! ever hitting a stranger, and tell how it ended. When it leaves, the new master becomes a child of the process that
//! all orphans go to: as a daemon is from its start, and as systemd wants to see it when it is told the new main
//! process (one that is not its child it would not wait for at a stop).

use crate::ids::ChildPid;
use crate::master::bequest::{Bequest, LONGEST, VARIABLE};
use crate::master::error::cause;
use crate::master::heritage::hear;
use crate::master::invocation::Invocation;
use crate::orders::Heard;
use crate::sys::poll::{self, Seen, Wish};
use crate::sys::process::{self, ChildExit, signal_name};
use crate::sys::{fd, socket, title};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

/// What it tells the old master.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// The program runs under this number.
    Started(ChildPid),
    /// It could not be started, or has ended: how, for a sentence that has the program as its subject.
    Ended(String),
}

/// What the old master tells it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// To leave the new master alone.
    Leave,
    /// To kill it, if it still lives, and tell how it ended.
    End,
}

impl News {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Started(pid) => format!("started {pid}"),
            Self::Ended(how) => format!("ended {how}"),
        }
        .into_bytes()
    }

    /// What a packet says; `None` if it makes no sense.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Self> {
        match String::from_utf8_lossy(packet).split_once(' ')? {
            ("started", pid) => pid.parse().ok().and_then(ChildPid::new).map(Self::Started),
            ("ended", how) => Some(Self::Ended(how.to_owned())),
            _ => None,
        }
    }
}

impl Wanted {
    /// The packet.
    #[must_use]
    pub fn encode(self) -> &'static [u8] {
        match self {
            Self::Leave => b"leave",
            Self::End => b"end",
        }
    }

    fn decode(packet: &[u8]) -> Option<Self> {
        [Self::Leave, Self::End].into_iter().find(|wanted| wanted.encode() == packet)
    }
}

/// What the new master is to be given, and whom the midwife answers to.
#[derive(Debug)]
pub struct Birth<'a> {
    /// What is started.
    pub invocation: &'a Invocation,
    /// What it is left.
    pub bequest: &'a Bequest,
    /// Its end of the words.
    pub words: OwnedFd,
    /// Where its standard error stream goes, for the old master to hear.
    pub standard_error: OwnedFd,
    /// The midwife's own end.
    pub cord: OwnedFd,
}

/// Forks the midwife.
///
/// # Errors
/// If there is no room for a process.
pub fn call(birth: Birth<'_>) -> std::io::Result<ChildPid> {
    let own = [birth.standard_error.as_raw_fd(), birth.cord.as_raw_fd()];
    let keep: Vec<_> = birth.bequest.descriptors().chain(own).collect();
    process::spawn_child_keeping(&keep, move || attend(birth))
}

/// In the forked process.
fn attend(birth: Birth<'_>) -> ChildExit {
    let Birth { invocation, bequest, words, standard_error, cord } = birth;
    title::set_title("ostler: midwife of an upgrade");
    let tell = |news: &News| {
        let packet = news.encode();
        let _ = socket::send(cord.as_fd(), &packet[..packet.len().min(LONGEST)]);
    };
    let mut child = match start(invocation, bequest, standard_error.as_fd()) {
        Ok(child) => child,
        Err(error) => {
            tell(&News::Ended(format!("cannot be started: {}", cause(&error))));
            return ChildExit::OK;
        }
    };
    // Whoever holds these is the new master, and its end is to be seen.
    drop((words, standard_error));
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(ChildPid::new) {
        tell(&News::Started(pid));
    }
    loop {
        match hear(cord.as_fd(), Wanted::decode) {
            Heard::Message(Wanted::End) => {
                tell(&News::Ended(end(&mut child)));
                return ChildExit::OK;
            }
            // Without an old master the new one is the best that there is.
            Heard::Message(Wanted::Leave) | Heard::Gone => return ChildExit::OK,
            Heard::Nonsense => {}
            Heard::Nothing => {
                let wish = Wish { fd: cord.as_fd(), read: true, write: false };
                if poll::wait(&[wish], None, &mut [Seen::default()]).is_err() {
                    return ChildExit(1);
                }
            }
        }
    }
}

fn start(
    invocation: &Invocation,
    bequest: &Bequest,
    standard_error: BorrowedFd<'_>,
) -> std::io::Result<Child> {
    if let Some(directory) = &invocation.directory {
        // If it is gone, so is what relative names would have meant; absolute ones are as good from here.
        let _ = std::env::set_current_dir(directory);
    }
    let mut command = Command::new(&invocation.program);
    if let [name, arguments @ ..] = &invocation.arguments[..] {
        command.arg0(name).args(arguments);
    }
    command.env(VARIABLE, bequest.to_string()).stderr(Stdio::from(fd::duplicate(standard_error)?));
    let keep: Vec<_> = bequest.descriptors().collect();
    process::start_program(&mut command, &keep)
}

/// Kills it, unless it has ended already, and says how it ended.
fn end(child: &mut Child) -> String {
    // It may have ended by itself, or be about to: then the status is its own.
    let waited = child.try_wait().ok().flatten().or_else(|| {
        let _ = child.kill();
        None
    });
    match waited.map_or_else(|| child.wait(), Ok) {
        Ok(status) => how(status),
        Err(error) => format!("cannot be waited for: {}", cause(&error)),
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was killed by {}", signal_name(signal)),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let pid = ChildPid::new(77).unwrap();
        for news in [News::Started(pid), News::Ended("was killed by SIGKILL".to_owned())] {
            assert_eq!(News::decode(&news.encode()), Some(news));
        }
        for wanted in [Wanted::Leave, Wanted::End] {
            assert_eq!(Wanted::decode(wanted.encode()), Some(wanted));
        }
        for nonsense in ["", "started", "started x", "started -1", "left 3"] {
            assert_eq!(News::decode(nonsense.as_bytes()), None, "{nonsense}");
            assert_eq!(Wanted::decode(nonsense.as_bytes()), None, "{nonsense}");
        }
    }
}
