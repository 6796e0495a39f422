//! Names to numbers: a forked process looks them up and says what it found.
//!
//! A look-up may block, and may load modules that start threads and stay in memory, so the master does none. The
//! process sends one line per packet: `A` and an address of a backend, `I` and whom children become, `N` and a
//! warning, `E` and why it failed, a point at the end. It is killed if it takes too long.

use crate::clock::Tick;
use crate::config::model::{Config, Endpoint};
use crate::ids::ChildPid;
use crate::master::deaths::span;
use crate::master::error::StartError;
use crate::master::error::cause;
use crate::master::resolve::{self, Descent};
use crate::sys::poll::{self, Seen, Wish};
use crate::sys::privilege::{self, Identity};
use crate::sys::process::{self, ChildExit};
use crate::sys::signal::Signal;
use crate::sys::socket;
use crate::sys::time;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long the look-ups may take in all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest line, in bytes.
const LINE: usize = 16 * 1024;

/// What was found.
#[derive(Debug, Default)]
pub struct Answers {
    addresses: Vec<(usize, SocketAddr)>,
    identity: Option<Identity>,
    note: Option<String>,
}

/// The process that looks up.
#[derive(Debug)]
pub struct Resolver {
    pid: ChildPid,
    socket: OwnedFd,
    answers: Answers,
    deadline: Tick,
    /// Its number is not ours any more.
    reaped: bool,
}

/// Whether `config` holds a name that only a look-up turns into a number.
#[must_use]
pub fn is_needed(config: &Config) -> bool {
    let is_name =
        |endpoint: &Endpoint| matches!(endpoint, Endpoint::Tcp { addresses, .. } if addresses.is_empty());
    let accounts = privilege::is_root() && (config.user.is_some() || config.group.is_some());
    accounts || config.backends.iter().any(|backend| is_name(&backend.endpoint))
}

/// Looks up whatever names `config` holds, in a process of its own, and completes it by the answers. Who the children
/// become.
///
/// # Errors
/// For the first name that names nothing, or if the look-ups take too long.
pub fn look_up_and_wait(config: &mut Config) -> Result<Descent, StartError> {
    if !is_needed(config) {
        return resolve::identity(config, privilege::is_root());
    }
    let failed = |error: io::Error| StartError::LookUp(format!("the look-up of names: {}", cause(&error)));
    let mut resolver = Resolver::start(config, time::now().tick()).map_err(failed)?;
    let outcome = loop {
        let now = time::now().tick();
        if let Some(outcome) = resolver.hear(now) {
            break outcome;
        }
        let wish = Wish { fd: resolver.as_fd(), read: true, write: false };
        let patience = resolver.deadline().until(now);
        poll::wait(&[wish], Some(patience), &mut [Seen::default()]).map_err(failed)?;
    };
    let pid = resolver.pid();
    drop(resolver);
    process::wait_for(pid).map_err(failed)?;
    Ok(outcome.map_err(StartError::LookUp)?.complete(config))
}

impl Resolver {
    /// Forks it.
    ///
    /// # Errors
    /// If there is no room for a process.
    pub fn start(config: &Config, now: Tick) -> io::Result<Self> {
        let (socket, theirs) = socket::pair()?;
        let keep = [theirs.as_raw_fd()];
        let pid = process::spawn_child_keeping(&keep, || look_up(config.clone(), &theirs))?;
        Ok(Self { pid, socket, answers: Answers::default(), deadline: now.after(PATIENCE), reaped: false })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> ChildPid {
        self.pid
    }

    /// Process `pid` has been reaped: if that was this one, its number may be anybody's from now on.
    pub fn reaped(&mut self, pid: ChildPid) {
        self.reaped |= pid == self.pid;
    }

    /// When it is given up.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        self.deadline
    }

    /// Hears what it has to say so far: `None` if that is not all yet.
    pub fn hear(&mut self, now: Tick) -> Option<Result<Answers, String>> {
        let mut bytes = [0; LINE];
        loop {
            let line = match socket::recv(self.socket.as_fd(), &mut bytes) {
                Ok(0) => return Some(Err("the look-up of names has ended without an answer".to_owned())),
                Ok(count) => String::from_utf8_lossy(&bytes[..count]).into_owned(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let late = format!("the look-up of names has taken more than {}", span(PATIENCE));
                    return (self.deadline <= now).then_some(Err(late));
                }
                Err(error) => return Some(Err(format!("the look-up of names: {}", cause(&error)))),
            };
            match self.answers.take(&line) {
                Some(Line::More) => {}
                Some(Line::End) => return Some(Ok(std::mem::take(&mut self.answers))),
                Some(Line::Fault(fault)) => return Some(Err(fault)),
                None => {
                    return Some(Err(
                        "the look-up of names has given an answer that makes no sense".to_owned()
                    ));
                }
            }
        }
    }
}

impl AsFd for Resolver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Resolver {
    /// Whatever it is still doing is not wanted any more.
    fn drop(&mut self) {
        if !self.reaped {
            // The kernel keeps its number for us until it is reaped.
            let _ = process::kill(self.pid, Signal::SIGKILL);
        }
    }
}

enum Line {
    More,
    End,
    Fault(String),
}

impl Answers {
    fn take(&mut self, line: &str) -> Option<Line> {
        let (kind, rest) = line.split_at_checked(1)?;
        let rest = rest.trim_start();
        match kind {
            "A" => {
                let (backend, address) = rest.split_once(' ')?;
                self.addresses.push((backend.parse().ok()?, address.parse().ok()?));
            }
            "I" => {
                let mut numbers = rest.split(' ').map(str::parse::<u32>);
                let (uid, gid) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
                let groups = numbers.collect::<Result<_, _>>().ok()?;
                self.identity = Some(Identity { uid, gid, groups });
            }
            "N" => self.note = Some(rest.to_owned()),
            "E" => return Some(Line::Fault(rest.to_owned())),
            "." => return Some(Line::End),
            _ => return None,
        }
        Some(Line::More)
    }

    /// Completes `config` by them.
    pub fn complete(self, config: &mut Config) -> Descent {
        for (backend, address) in self.addresses {
            if let Some(Endpoint::Tcp { addresses, .. }) =
                config.backends.get_mut(backend).map(|backend| &mut backend.endpoint)
            {
                addresses.push(address);
            }
        }
        Descent { identity: self.identity, note: self.note }
    }
}

/// In the forked process.
fn look_up(mut config: Config, out: &OwnedFd) -> ChildExit {
    let is_literal =
        |endpoint: &Endpoint| !matches!(endpoint, Endpoint::Tcp { addresses, .. } if addresses.is_empty());
    let literal: Vec<bool> = config.backends.iter().map(|backend| is_literal(&backend.endpoint)).collect();
    let found =
        resolve::backends(&mut config).and_then(|()| resolve::identity(&config, privilege::is_root()));
    let mut lines = Vec::new();
    match found {
        Err(fault) => lines.push(format!("E {}", fault.sentence())),
        Ok(descent) => {
            for (index, backend) in config.backends.iter().enumerate().filter(|(index, _)| !literal[*index]) {
                if let Endpoint::Tcp { addresses, .. } = &backend.endpoint {
                    lines.extend(addresses.iter().map(|address| format!("A {index} {address}")));
                }
            }
            if let Some(Identity { uid, gid, groups }) = descent.identity {
                let groups: String = groups.iter().map(|group| format!(" {group}")).collect();
                lines.push(format!("I {uid} {gid}{groups}"));
            }
            lines.extend(descent.note.map(|note| format!("N {note}")));
        }
    }
    lines.push(".".to_owned());
    for line in &lines {
        let bytes = &line.as_bytes()[..line.len().min(LINE)];
        while let Err(error) = socket::send(out.as_fd(), bytes) {
            let wish = Wish { fd: out.as_fd(), read: false, write: true };
            if error.kind() != io::ErrorKind::WouldBlock
                || poll::wait(&[wish], None, &mut [Seen::default()]).is_err()
            {
                return ChildExit(1);
            }
        }
    }
    ChildExit::OK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};

    fn config(text: &str) -> Config {
        let text = format!("Listen 127.0.0.1:0\n{text}\n");
        config::from_text("test", &text, &Options::default()).expect("a valid text").config
    }

    fn outcome(config: &Config) -> Result<Answers, String> {
        let mut resolver = Resolver::start(config, Tick(0)).unwrap();
        loop {
            let wish = Wish { fd: resolver.as_fd(), read: true, write: false };
            poll::wait(&[wish], None, &mut [Seen::default()]).unwrap();
            if let Some(outcome) = resolver.hear(Tick(0)) {
                let pid = resolver.pid();
                drop(resolver);
                process::wait_for(pid).unwrap();
                return outcome;
            }
        }
    }

    #[test]
    fn a_process_of_its_own_looks_names_up() {
        let mut config = config("ProxyPass /a http://localhost:3000/\nProxyPass /b http://127.0.0.1:3001/");
        assert!(is_needed(&config));
        let answers = outcome(&config).unwrap();
        answers.complete(&mut config);
        for backend in &config.backends {
            let Endpoint::Tcp { addresses, port, .. } = &backend.endpoint else { panic!("{backend:?}") };
            assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == *port));
            assert!(!addresses.is_empty());
        }
    }

    #[test]
    fn what_it_cannot_find_it_says() {
        let sentence = outcome(&config("ProxyPass / http://no-such-host.invalid:3000/")).unwrap_err();
        assert!(sentence.contains("cannot resolve no-such-host.invalid"), "{sentence}");
    }

    #[test]
    fn lines_are_understood_or_refused() {
        let mut answers = Answers::default();
        for line in ["A 3 127.0.0.1:80", "A 4 [fe80::1%2]:80", "I 33 33 33 44", "N as root"] {
            assert!(matches!(answers.take(line), Some(Line::More)), "{line}");
        }
        assert_eq!((answers.addresses.len(), answers.addresses[0].0), (2, 3));
        assert_eq!(answers.identity, Some(Identity { uid: 33, gid: 33, groups: vec![33, 44] }));
        assert!(matches!(answers.take("."), Some(Line::End)));
        assert!(matches!(answers.take("E no"), Some(Line::Fault(fault)) if fault == "no"));
        for line in ["", "A", "A x 1.2.3.4:5", "A 1 nowhere", "I 1", "I a b", "?", "\u{e4}"] {
            assert!(answers.take(line).is_none(), "{line:?}");
        }
    }
}
