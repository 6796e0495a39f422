//! What a process is given at its start beside its arguments: listening sockets by the service manager
//! (`LISTEN_FDS`, sd_listen_fds(3)), or by an old master all that it leaves to the one that follows it
//! ([`bequest`](super::bequest)).
//!
//! Both by the same door: what [`Listeners::bind_beside`](super::listeners::Listeners::bind_beside) finds among them
//! it does not bind. The variables are taken out of the environment; no program that we start sees them.

use crate::clock::Moment;
use crate::config::model::Listen;
use crate::ids::{ChildPid, Generation, ListenerId};
use crate::master::bequest::{Answer, Bequest, LONGEST, VARIABLE, Willed, Word};
use crate::master::error::StartError;
use crate::master::listeners::{Listener, Owner};
use crate::master::status_doors::StatusDoors;
use crate::orders::Heard;
use crate::sys::{environment, fd, socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// The first descriptor that a service manager passes.
const FIRST_PASSED: RawFd = 3;

/// What a service manager says of the sockets that it passes.
const MANAGERS_VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// What this process was given.
#[derive(Debug, Default)]
pub struct Heritage {
    /// Sockets that listen already.
    pub listeners: Vec<Listener>,
    /// The master that this one is to follow.
    pub predecessor: Option<Predecessor>,
}

/// The master that this one is to follow, for as long as it has a say.
#[derive(Debug)]
pub struct Predecessor {
    /// Its number: for showing.
    pub pid: ChildPid,
    /// The generation to begin with.
    pub generation: Generation,
    /// When the upgrade was asked for.
    pub begun: Moment,
    /// The same in microseconds since 1970.
    pub begun_wall: u64,
    /// Of the listeners, by their places, those that this master uses.
    pub kept: Vec<usize>,
    /// The sockets of `StatusListen` that it has left, those included that this master does not use.
    pub status: StatusDoors,
    /// Idle connections of the old master's children may be handed over to ours.
    pub takes_over: bool,
    /// It has unlocked the PidFile, and this master has locked it.
    pub has_left: bool,
    /// It has ended.
    pub is_gone: bool,
    words: OwnedFd,
    standard_error: Option<OwnedFd>,
    others: Vec<(String, OwnedFd)>,
}

impl Heritage {
    /// Takes what there is, and the variables out of the environment. To be called once, at the start of `main`,
    /// before there is a second thread.
    ///
    /// # Errors
    /// If what the variables say is not so.
    pub fn take() -> Result<Self, StartError> {
        let [pid, count, names, _] = MANAGERS_VARIABLES.map(environment::take_variable);
        if let Some(bequest) = environment::take_variable(VARIABLE) {
            let bequest = bequest.to_str().and_then(Bequest::parse);
            return Self::of(bequest.ok_or(StartError::Heritage { what: "its value makes no sense" })?);
        }
        let text = |value: Option<std::ffi::OsString>| value.and_then(|value| value.into_string().ok());
        let passed = passed(std::process::id(), text(pid).as_deref(), text(count).as_deref());
        let names = text(names).unwrap_or_default();
        let names = names.split(':').chain(std::iter::repeat(""));
        let take = |(number, name): (RawFd, &str)| {
            let fault = |what: String| StartError::Passed { number, name: name.to_owned(), what };
            let fd = fd::take_inherited(number).map_err(|error| fault(format!("is not open: {error}")))?;
            if !socket::is_tcp_listener(fd.as_fd()).unwrap_or(false) {
                return Err(fault("is no TCP socket that listens".to_owned()));
            }
            let known = |error: io::Error| fault(format!("does not say where it is bound: {error}"));
            let address = socket::local_address(fd.as_fd()).map_err(known)?;
            let any_family =
                address.ip().is_unspecified() && socket::takes_any_family(fd.as_fd()).unwrap_or(false);
            let listen = Listen { address, any_family };
            let id = ListenerId(number.unsigned_abs());
            Ok(Listener { id, listen, any_family, fd, address, owner: Owner::Manager, is_new: false })
        };
        let listeners = passed.zip(names).map(take).collect::<Result<_, _>>()?;
        Ok(Self { listeners, predecessor: None })
    }

    fn of(bequest: Bequest) -> Result<Self, StartError> {
        let take = |number| {
            fd::take_inherited(number)
                .map_err(|_| StartError::Heritage { what: "a descriptor that it names is not open" })
        };
        let words = take(bequest.words)?;
        let mut predecessor = Predecessor {
            pid: ChildPid::new(bequest.master).ok_or(StartError::Heritage { what: "it names no master" })?,
            generation: bequest.generation,
            begun: bequest.begun,
            begun_wall: bequest.begun_wall,
            kept: Vec::new(),
            status: StatusDoors::default(),
            takes_over: false,
            has_left: false,
            is_gone: false,
            words,
            standard_error: None,
            others: Vec::new(),
        };
        predecessor.say(&Word::Hello);
        predecessor.standard_error = Some(take(bequest.standard_error)?);
        let mut listeners = Vec::with_capacity(bequest.listeners.len());
        for (place, willed) in (0..).zip(bequest.listeners) {
            let Willed { fd, listen, any_family, managers } = willed;
            let fd = take(fd)?;
            if !socket::is_tcp_listener(fd.as_fd()).unwrap_or(false) {
                return Err(StartError::Heritage { what: "a descriptor that it names does not listen" });
            }
            let address = socket::local_address(fd.as_fd()).unwrap_or(listen.address);
            let owner = if managers { Owner::Manager } else { Owner::Predecessor };
            listeners.push(Listener {
                id: ListenerId(place),
                listen,
                any_family,
                fd,
                address,
                owner,
                is_new: false,
            });
        }
        for (name, number) in bequest.others {
            predecessor.others.push((name, take(number)?));
        }
        Ok(Self { listeners, predecessor: Some(predecessor) })
    }
}

/// The descriptors that the service manager has passed to the process `own`.
fn passed(own: u32, pid: Option<&str>, count: Option<&str>) -> std::ops::Range<RawFd> {
    let is_ours = pid.and_then(|pid| pid.parse().ok()) == Some(own);
    let count = count.filter(|_| is_ours).and_then(|count| count.parse::<RawFd>().ok()).unwrap_or(0);
    FIRST_PASSED..FIRST_PASSED.saturating_add(count.max(0))
}

impl Predecessor {
    /// Takes the descriptor that was left under this name, if there is one. Others are closed with [`Predecessor`].
    #[must_use]
    pub fn heirloom(&mut self, name: &str) -> Option<OwnedFd> {
        let place = self.others.iter().position(|(theirs, _)| theirs == name)?;
        Some(self.others.swap_remove(place).1)
    }

    /// Takes all descriptors that were left under a name that begins so.
    #[must_use]
    pub fn heirlooms(&mut self, prefix: &str) -> Vec<(String, OwnedFd)> {
        let (taken, others) =
            std::mem::take(&mut self.others).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.others = others;
        taken
    }

    /// From here on what is written to the standard error stream goes where the old master's went; before, the old
    /// master hears it.
    pub fn settle_standard_error(&mut self) {
        if let Some(stream) = self.standard_error.take() {
            // Two descriptors that are open: nothing can go wrong.
            let _ = fd::redirect_standard_error(stream.as_fd());
        }
    }

    /// Says a word. One that cannot be said finds an old master that is gone, which its silence tells too.
    pub fn say(&self, word: &Word) {
        let _ = socket::send(self.words.as_fd(), &word.encode());
    }

    /// Tells that there will be no new master, and why.
    pub fn failed<'a>(&self, reasons: impl IntoIterator<Item = &'a str>) {
        for reason in reasons {
            self.say(&Word::Fault(reason.to_owned()));
        }
    }

    /// What it answers.
    #[must_use]
    pub fn hear(&self) -> Heard<Answer> {
        hear(self.words.as_fd(), Answer::decode)
    }
}

impl AsFd for Predecessor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.words.as_fd()
    }
}

/// The next packet of a pair, decoded.
pub(super) fn hear<T>(words: BorrowedFd<'_>, decode: impl Fn(&[u8]) -> Option<T>) -> Heard<T> {
    let mut bytes = [0; LONGEST];
    match socket::recv(words, &mut bytes) {
        Ok(0) => Heard::Gone,
        Ok(count) => decode(&bytes[..count]).map_or(Heard::Nonsense, Heard::Message),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
        Err(_) => Heard::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_passed_to_this_process_is_taken() {
        for (pid, count, want) in [
            (None, None, 3..3),
            (Some("77"), Some("2"), 3..5),
            (Some("78"), Some("2"), 3..3),
            (None, Some("2"), 3..3),
            (Some("77"), None, 3..3),
            (Some("77"), Some("-2"), 3..3),
            (Some("77"), Some("two"), 3..3),
            (Some("x"), Some("2"), 3..3),
        ] {
            assert_eq!(passed(77, pid, count), want, "{pid:?} {count:?}");
        }
    }
}
