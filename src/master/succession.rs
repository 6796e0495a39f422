//! An upgrade, as the new master sees it: its children serve beside those of the old one; it says so, locks the PidFile
//! when the old one has unlocked it, and is the master when that one drains.
//!
//! If the old master dies meanwhile, nobody else is there to serve: then it goes on without being asked.

use crate::clock::Tick;
use crate::master::bequest::{Answer, Word};
use crate::master::deaths::span;
use crate::master::error::{StartError, cause};
use crate::master::generation;
use crate::master::listeners::Listeners;
use crate::master::start::take_pid_file;
use crate::master::supervisor::{Master, Phase, notice};
use crate::orders::Heard;
use crate::scoreboard::board::Board;
use crate::scoreboard::facts::ReloadOutcome;
use crate::sys::time;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use sd_notify::NotifyState;
use slog::error;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// The token of what the old master says.
const TOKEN: Token = Token(usize::MAX - 5);

impl Master {
    /// Watches what the old master says.
    ///
    /// # Errors
    /// If the kernel has no room for it.
    pub(super) fn watch_predecessor(&self) -> std::io::Result<()> {
        let Some(predecessor) = &self.predecessor else { return Ok(()) };
        let fd = predecessor.as_fd().as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&fd), TOKEN, Interest::READABLE)
    }

    /// The children serve: says so to the old master. `false` if there is none.
    pub(super) fn is_announced_to_predecessor(&mut self) -> bool {
        let Some(predecessor) = &self.predecessor else { return false };
        let (places, takes_over) = (predecessor.kept.clone(), predecessor.takes_over);
        predecessor.say(&Word::Ready { places, takes_over });
        self.phase = Phase::Following;
        true
    }

    /// Hears the old master.
    pub(super) fn heed_predecessor(&mut self, now: Tick) {
        while let Some(predecessor) = self.predecessor.as_mut().filter(|_| self.failure.is_none()) {
            let is_following = self.phase == Phase::Following;
            let heard = if predecessor.is_gone { Heard::Gone } else { predecessor.hear() };
            match heard {
                Heard::Message(Answer::Go) if is_following => self.take_over(now),
                Heard::Message(Answer::Farewell { reload, upgrade }) if predecessor.has_left => {
                    self.wanted = reload.then_some("SIGHUP");
                    self.wanted_upgrade = upgrade.then_some("SIGUSR2");
                    self.succeed();
                }
                // Whoever could have ended this process is gone, or slower than this word.
                Heard::Message(Answer::Off) => self.fail(StartError::NotWanted, now),
                Heard::Message(_) | Heard::Nonsense => {}
                Heard::Nothing => return,
                Heard::Gone => {
                    predecessor.is_gone = true;
                    if !is_following {
                        // First the children.
                        return;
                    }
                    if !predecessor.has_left {
                        self.take_over(now);
                    }
                    self.succeed();
                }
            }
        }
    }

    /// The PidFile is free.
    fn take_over(&mut self, now: Tick) {
        match take_pid_file(&self.generation, true) {
            Ok(file) => self.pid_file = file,
            Err(error) => return self.fail(error, now),
        }
        // Before the old one leaves: at no time does a reader find a server that has stopped.
        if let Some(path) = &self.generation.config.scoreboard_file
            && let Err(error) = Board::publish(path)
        {
            error!(self.estate.log, "the new scoreboard cannot take its place: {}", cause(&error));
        }
        if let Some(listeners) = &mut self.generation.listeners {
            listeners.take_possession();
            listeners.adjust(&self.generation.config);
        }
        if let Some(predecessor) = &mut self.predecessor {
            // With those that nobody uses any more their names go.
            std::mem::take(&mut predecessor.status).take_possession();
            predecessor.has_left = true;
            predecessor.say(&Word::Taken);
        }
    }

    /// This is the master from now on. Nothing, if it could not take over.
    pub(super) fn succeed(&mut self) {
        let Some(predecessor) = self.predecessor.take_if(|predecessor| predecessor.has_left) else { return };
        let _ = self.poll.registry().deregister(&mut SourceFd(&predecessor.as_fd().as_raw_fd()));
        let now = time::now();
        let current = &self.generation;
        self.phase = Phase::Serving;
        let took = Duration::from_micros(now.micros_since(predecessor.begun));
        let text = format!("serving generation {} ({})", current.number, span(took));
        let board = self.estate.board.current();
        board.set_upgraded(
            &ReloadOutcome { wall_micros: predecessor.begun_wall, done: true, text: &text },
            now,
        );
        let ready = self.ready();
        let addresses = current.listeners.as_ref().map(Listeners::addresses).unwrap_or_default();
        let shape = generation::shape(current.config.mpm, &current.config.limits, ready);
        let (mpm, log) = (current.config.mpm.name(), &self.estate.log);
        let name = format!("ostler/{} ({mpm})", env!("CARGO_PKG_VERSION"));
        notice(
            log,
            &format!("{name} configured -- resuming normal operations after process {}", predecessor.pid),
        );
        notice(log, &format!("{text}: {mpm} on {addresses}; {shape}"));
        let status = format!("serving on {addresses}");
        let states =
            [NotifyState::MainPid(std::process::id()), NotifyState::Ready, NotifyState::Status(&status)];
        let _ = sd_notify::notify(&states);
        self.settle();
    }

    /// There will be no new master, and the old one is told why. The children that there are finish what they have,
    /// as those of a master that died.
    pub(super) fn is_called_off(&self, failure: &StartError) -> bool {
        let Some(predecessor) = &self.predecessor else { return false };
        predecessor.failed([failure.sentence().as_str()]);
        self.generation.config.scoreboard_file.iter().for_each(|path| Board::abandon(path));
        true
    }
}
