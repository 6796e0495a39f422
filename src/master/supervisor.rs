//! The loop: wait, hear, act. One thread, no sleep: events and deadlines drive it (invariant 2).
//!
//! Decisions are made elsewhere ([`policy`], [`shutdown`], [`pulse`], [`deaths`]); here they are carried out.
//! What keeps the children as many and as well as they should be is in `upkeep`.
//!
//! [`policy`]: super::policy
//! [`shutdown`]: super::shutdown
//! [`pulse`]: super::pulse
//! [`deaths`]: super::deaths

use crate::clock::{Moment, Tick};
use crate::ids::{self, ChildPid, SlotIndex};
use crate::master::backoff::Backoff;
use crate::master::children::{Child, Children, Stage, Why};
use crate::master::deaths::{self, Meaning, Obituary, span};
use crate::master::detach::Report;
use crate::master::error::{StartError, cause};
use crate::master::generation::{self, Generation, Retired};
use crate::master::groom::Grooms;
use crate::master::heritage::Predecessor;
use crate::master::listeners::Listeners;
use crate::master::logs::Logs;
use crate::master::pidfile::PidFile;
use crate::master::pulse::Pulse;
use crate::master::reload::Reload;
use crate::master::shortage::Shortage;
use crate::master::shutdown::Rung;
use crate::master::signals::{self, Command};
use crate::master::spawn::Estate;
use crate::master::stop::Stop;
use crate::master::upgrade::{Successor, Upgrade};
use crate::orders::{Heard, Word};
use crate::scoreboard::board::Ending;
use crate::sys::process::{self, ChildExit, Death};
use crate::sys::signal::SignalPipe;
use crate::sys::{text, time};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slog::{debug, error, info, warn};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// The token of the signals; children have their slots' numbers.
const SIGNALS: Token = Token(usize::MAX);

/// The token of the process that looks up names.
pub(super) const RESOLVER: Token = Token(usize::MAX - 1);

/// How long the first child may take to get ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the others may take before the daemon says that it serves.
const GATHERING: Duration = Duration::from_secs(2);

/// How many children may die before any is ready, until the start counts as failed.
const ATTEMPTS: u32 = 3;

/// Waking so much later than planned means that the master itself was stopped.
const STALL: Duration = Duration::from_secs(1);

/// Most words that are heard from one child before the others have their turn.
const BREATH: usize = 64;

/// How far the start has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// No child has got ready yet.
    Starting {
        /// How many have died meanwhile.
        deaths: u32,
    },
    /// One has; the others may follow.
    Gathering,
    /// They have, and the old master, whose place this one is to take, has been told so.
    Following,
    /// We have said that we serve.
    Serving,
}

/// The master.
#[derive(Debug)]
pub struct Master {
    pub(super) estate: Estate,
    pub(super) generation: Generation,
    /// Those before it whose last child is not gone yet, oldest first.
    pub(super) retired: Vec<Retired>,
    /// The highest number that a generation ever had.
    pub(super) numbers: ids::Generation,
    pub(super) reload: Option<Reload>,
    /// The signal that asked for another reload.
    pub(super) wanted: Option<&'static str>,
    /// Whether it has been told that this one waits.
    pub(super) said_waiting: bool,
    pub(super) upgrade: Option<Upgrade>,
    /// The signal that asked for another upgrade.
    pub(super) wanted_upgrade: Option<&'static str>,
    /// The master that has taken this one's place.
    pub(super) successor: Option<Successor>,
    /// The master whose place this one is to take.
    pub(super) predecessor: Option<Predecessor>,
    pub(super) children: Children,
    pub(super) grooms: Grooms,
    pub(super) poll: Poll,
    signals: SignalPipe,
    /// Forks that the kernel refused.
    pub(super) refusals: Backoff,
    /// The kernel's want of what a fork needs.
    pub(super) no_fork: Shortage,
    /// Children's want of what they need to start.
    pub(super) no_start: Shortage,
    pub(super) phase: Phase,
    pub(super) stop: Option<Stop>,
    pub(super) pid_file: Option<PidFile>,
    pub(super) report: Report,
    /// Why the start has failed.
    pub(super) failure: Option<StartError>,
    /// Whether a child had more to say than was heard.
    unheard: bool,
}

impl Master {
    /// A master that has no child yet.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn new(
        estate: Estate,
        generation: Generation,
        pid_file: Option<PidFile>,
        report: Report,
        predecessor: Option<Predecessor>,
        mut signals: SignalPipe,
    ) -> Result<Self, StartError> {
        let fault = |source| StartError::System { what: "watch for signals", source };
        let poll = Poll::new().map_err(fault)?;
        poll.registry().register(signals.source(), SIGNALS, Interest::READABLE).map_err(fault)?;
        let slots = estate.board.shape().slots();
        let master = Self {
            estate,
            numbers: generation.number,
            generation,
            retired: Vec::new(),
            reload: None,
            wanted: None,
            said_waiting: false,
            upgrade: None,
            wanted_upgrade: None,
            successor: None,
            predecessor,
            children: Children::new(slots),
            grooms: Grooms::default(),
            poll,
            signals,
            refusals: Backoff::new(
                Duration::from_millis(100),
                Duration::from_secs(10),
                Duration::from_secs(60),
            ),
            no_fork: Shortage::default(),
            no_start: Shortage::default(),
            phase: Phase::Starting { deaths: 0 },
            stop: None,
            pid_file,
            report,
            failure: None,
            unheard: false,
        };
        master.watch_predecessor().map_err(fault)?;
        Ok(master)
    }

    /// Runs until it is told to stop and has no child left. Returns the exit code.
    ///
    /// # Errors
    /// If no child ever got ready; nothing is left behind then.
    pub fn run(mut self) -> Result<i32, StartError> {
        let mut events = Events::with_capacity(64);
        loop {
            let now = time::now();
            let wake = self.upkeep(now);
            if let Some(code) = self.ended(now.tick()) {
                return self.leave(code);
            }
            let now = now.tick();
            let wake = if self.unheard { now } else { wake };
            let timeout = (wake != Tick::NEVER).then(|| wake.until(now));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    // Cannot be, but must not spin without a trace.
                    error!(self.estate.log, "the master's poll fails: {}", cause(&error));
                }
                _ => {}
            }
            let now = time::now().tick();
            if wake != Tick::NEVER && now > wake.after(STALL) {
                debug!(self.estate.log, "the master itself was held up for {}", span(now.until(wake)));
                self.children.iter_mut().for_each(|(_, child)| child.pulse.pardon(now));
                self.grooms.pardon(now);
            }
            self.hear(&events, now);
            self.heed_predecessor(now);
            self.obey(now);
            self.reap(now);
        }
    }

    /// Hears every child that has something to say.
    fn hear(&mut self, events: &Events, now: Tick) {
        let mut slots: Vec<SlotIndex> = if std::mem::take(&mut self.unheard) {
            self.children.iter().map(|(slot, _)| slot).collect()
        } else {
            let tokens = events.iter().map(|event| event.token()).filter(|token| *token != SIGNALS);
            tokens.filter_map(|token| u32::try_from(token.0).ok()).map(SlotIndex).collect()
        };
        slots.dedup();
        for slot in slots {
            let mut words = 0;
            // An event may be older than the child that now has the slot; then there is nothing to hear.
            while let Some(child) = self.children.get(slot).filter(|child| !child.deaf) {
                match child.orders.recv_word() {
                    Heard::Message(word) => self.heed(slot, word, now),
                    Heard::Nonsense => {
                        debug!(self.estate.log, "child {} says something that makes no sense", child.pid)
                    }
                    Heard::Nothing => break,
                    Heard::Gone => self.hang_up(slot),
                }
                words += 1;
                if words == BREATH {
                    self.unheard = true;
                    break;
                }
            }
        }
    }

    /// Acts on a word of the child in `slot`. What follows from a census follows in the next upkeep.
    fn heed(&mut self, slot: SlotIndex, word: Word, now: Tick) {
        let Some(child) = self.children.get_mut(slot) else { return };
        match word {
            Word::Ready if child.ready.is_none() => {
                child.ready = Some(now);
                child.pulse = Pulse::new(now);
                if child.stage == Stage::Starting {
                    child.stage = Stage::Ready;
                }
                let (pid, number, heir_of) = (child.pid, child.generation, child.heir_of.take());
                let took = span(now.until(child.forked));
                debug!(self.estate.log, "child {pid} (slot {slot}) is ready after {took}");
                self.no_start.succeed(now);
                let next = self.reload.as_mut().and_then(Reload::next_mut);
                for generation in [Some(&mut self.generation), next].into_iter().flatten() {
                    if generation.number == number {
                        generation.was_ready = true;
                        generation.listeners.iter_mut().for_each(Listeners::begin);
                    }
                }
                if let Phase::Starting { .. } = self.phase {
                    self.phase = Phase::Gathering;
                }
                if let Some(old) = heir_of.and_then(|pid| self.children.slot_of(pid)) {
                    self.drain(old, Why::Recycled, now);
                }
            }
            Word::NearEnd => child.near_end = true,
            Word::Draining if child.is_active() => {
                child.stage = Stage::Draining(Why::Itself);
                let (pid, number) = (child.pid, child.generation);
                // An heir on its way takes its place anyway.
                if !self.children.has_heir(pid) {
                    self.owe(number);
                }
                self.nudge();
            }
            Word::Pong { ping, progress_ms } => {
                let (pid, number) = (child.pid, child.generation);
                if let Some(took) = child.pulse.answer(ping, now) {
                    info!(
                        self.estate.log,
                        "child {pid} (slot {slot}, generation {number}) answers again, after {}",
                        span(took)
                    );
                }
                let still = Duration::from_millis(progress_ms.into());
                if still >= self.generation.config.child_stall_timeout {
                    let how = format!("its threads have made no progress for {}", span(still));
                    self.give_up_on(slot, &how, now);
                }
            }
            Word::Short => self.nudge_but(slot),
            Word::Ready | Word::Draining | Word::Full | Word::Census(_) => {}
        }
    }

    /// Carries out the signals that have come.
    fn obey(&mut self, now: Tick) {
        for signal in self.signals.pending() {
            match signals::command(signal) {
                Some(Command::Stop) => self.begin_stop(signal, false, now),
                Some(Command::GracefulStop) => self.begin_stop(signal, true, now),
                Some(Command::Reload | Command::Upgrade) if self.has_left() => {
                    let successor = self.successor.as_ref().map(ToString::to_string).unwrap_or_default();
                    warn!(self.estate.log, "caught {}, but {successor} serves here now", signal.as_str());
                }
                // One that comes while another is under way is carried out after it; many are one.
                Some(Command::Reload) if self.stop.is_none() => self.wanted = Some(signal.as_str()),
                Some(Command::Upgrade) if self.stop.is_none() => self.wanted_upgrade = Some(signal.as_str()),
                Some(Command::Reload | Command::Upgrade) => {
                    warn!(self.estate.log, "caught {}, but this server is stopping", signal.as_str());
                }
                // Each turn of the loop reaps anyway.
                Some(Command::Reap) | None => {}
            }
        }
    }

    /// Takes every child that has ended out of the table, until there is none.
    fn reap(&mut self, now: Tick) {
        loop {
            match process::reap() {
                Ok(Some((pid, death))) => self.bury(pid, death, now),
                Ok(None) => return,
                Err(error) => {
                    error!(self.estate.log, "cannot wait for children: {}", cause(&error));
                    return;
                }
            }
        }
    }

    fn bury(&mut self, pid: ChildPid, death: Death, now: Tick) {
        // Its last words may explain its death.
        if let Some(slot) = self.children.slot_of(pid) {
            self.hear_out(slot, now);
        }
        let Some((slot, child)) = self.children.remove(pid) else {
            if let Some(reload) = &mut self.reload {
                reload.reaped(pid);
            }
            if self.upgrade.as_mut().is_some_and(|upgrade| upgrade.reaped(pid))
                || self.groom_reaped(pid, death, now)
            {
                return;
            }
            let mut logs = self.all_logs();
            if let Some(line) = logs.iter_mut().find_map(|logs| logs.reaped(pid, death, now)) {
                error!(self.estate.log, "{line}");
            }
            return;
        };
        if !child.deaf {
            // Before the close (invariant 9), although nobody else holds this end.
            let _ = self.poll.registry().deregister(&mut SourceFd(&child.orders.as_raw_fd()));
        }
        let obituary = Obituary {
            pid,
            slot,
            generation: child.generation,
            forked: child.forked,
            ready: child.ready,
            leaving: child.is_leaving(),
            killed: child.stage == Stage::Killed,
            death,
        };
        let meaning = obituary.meaning(now);
        let sentence = obituary.sentence(now);
        let held = match meaning {
            Meaning::Fault { .. } => deaths::held(&self.estate.board.post_mortem(slot)),
            Meaning::Expected | Meaning::Left => String::new(),
        };
        let ending = if meaning == Meaning::Expected { Ending::Clean } else { Ending::Fault };
        let ending = if meaning == Meaning::Left { Ending::Clean } else { ending };
        self.estate.board.take_back(slot, ending, time::now());
        let is_missed = child.is_active() && child.heir_of.is_none() && !self.children.has_heir(pid);
        if is_missed {
            self.owe(child.generation);
        }
        let is_current = child.generation == self.generation.number;
        if child.is_active()
            && let Some(reload) = &mut self.reload
            && reload.next().is_some_and(|next| next.number == child.generation)
        {
            reload.failure.get_or_insert_with(|| format!("the new generation does not come up: {sentence}"));
        }
        match meaning {
            Meaning::Expected => debug!(self.estate.log, "{sentence}"),
            Meaning::Left => info!(self.estate.log, "{sentence}"),
            Meaning::Fault { .. } if obituary.is_shortage() && self.stop.is_none() => {
                if is_current {
                    self.generation.crashes.fail(now);
                }
                if self.no_start.fail(now) {
                    self.estate.shortage_told = true;
                    let living = self.children.count(|child| child.stage == Stage::Ready);
                    error!(self.estate.log, "{sentence}; trying on, {living} ready meanwhile");
                } else {
                    debug!(self.estate.log, "{sentence}; trying on");
                }
            }
            Meaning::Fault { back_off: true } if self.stop.is_none() && is_current => {
                let delay = self.generation.crashes.fail(now);
                error!(self.estate.log, "{sentence}{held}; next try in {}", span(delay));
            }
            Meaning::Fault { .. } => {
                let next = if is_missed && self.stop.is_none() { "; another takes its place" } else { "" };
                error!(self.estate.log, "{sentence}{held}{next}");
            }
        }
        if let Phase::Starting { deaths } = &mut self.phase
            && self.stop.is_none()
        {
            *deaths += 1;
            let hopeless = [ChildExit::FATAL.0, ChildExit::SICK.0].map(Death::Exited).contains(&death);
            if self.children.is_empty() && (hopeless || *deaths >= ATTEMPTS) {
                let log = self.generation.logs.error_log_name();
                self.fail(StartError::NoChild { how: format!("{sentence}; see {log}") }, now);
            }
        }
        self.nudge();
    }

    /// Hears what a child said before it ended.
    fn hear_out(&mut self, slot: SlotIndex, now: Tick) {
        for _ in 0..BREATH {
            let Some(child) = self.children.get(slot).filter(|child| !child.deaf) else { return };
            match child.orders.recv_word() {
                Heard::Message(word) => self.heed(slot, word, now),
                Heard::Nonsense => {}
                Heard::Nothing | Heard::Gone => return,
            }
        }
    }

    /// The child in `slot` has closed its end: it is about to end, and has nothing more to say.
    fn hang_up(&mut self, slot: SlotIndex) {
        if let Some(child) = self.children.get_mut(slot) {
            child.deaf = true;
            let _ = self.poll.registry().deregister(&mut SourceFd(&child.orders.as_raw_fd()));
        }
    }

    /// Puts a freshly forked child into the table.
    pub(super) fn adopt(&mut self, slot: SlotIndex, child: Child) -> io::Result<()> {
        let token = Token(slot.index());
        let registered = self.poll.registry().register(
            &mut SourceFd(&child.orders.as_raw_fd()),
            token,
            Interest::READABLE,
        );
        self.children.insert(slot, child);
        registered
    }

    /// A child of this generation is to be replaced. Nobody replaces those of a generation that leaves, or that is
    /// not the current one yet.
    fn owe(&mut self, number: ids::Generation) {
        if number == self.generation.number && self.stop.is_none() {
            self.generation.owed += 1;
        }
    }

    /// The logs of all generations.
    pub(super) fn all_logs(&mut self) -> Vec<&mut Logs> {
        let next = self.reload.as_mut().and_then(Reload::next_mut).map(|next| &mut next.logs);
        let retired = self.retired.iter_mut().filter_map(|retired| retired.logs.as_mut());
        retired.chain([&mut self.generation.logs]).chain(next).collect()
    }

    /// The slots of the children that satisfy `test`.
    pub(super) fn slots(&self, test: impl Fn(&Child) -> bool) -> Vec<SlotIndex> {
        self.children.iter().filter(|(_, child)| test(child)).map(|(slot, _)| slot).collect()
    }

    /// Says that we serve, once the generation's first children are ready or have had their time.
    pub(super) fn announce(&mut self, now: Tick) -> Option<Tick> {
        if self.phase != Phase::Gathering || self.stop.is_some() {
            return None;
        }
        let patience = self.generation.begun.after(GATHERING);
        let starting = self.children.count(|child| child.stage == Stage::Starting);
        if (starting > 0 || self.generation.initial > 0) && now < patience {
            return Some(patience);
        }
        if self.is_announced_to_predecessor() {
            // One that is gone already will not wake us.
            return self.predecessor.as_ref().is_some_and(|predecessor| predecessor.is_gone).then_some(now);
        }
        self.phase = Phase::Serving;
        let config = &self.generation.config;
        let (mpm, log) = (config.mpm, &self.estate.log);
        let addresses = self.generation.listeners.as_ref().map(|listeners| listeners.addresses());
        let addresses = addresses.unwrap_or_default();
        let shape = generation::shape(mpm, &config.limits, self.ready());
        let name = format!("ostler/{} ({})", env!("CARGO_PKG_VERSION"), mpm.name());
        notice(log, &format!("{name} configured -- resuming normal operations"));
        notice(log, &format!("{name} serving on {addresses}; {shape}"));
        self.report.serving();
        let status = format!("serving on {addresses}");
        let states = [sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&status)];
        if let Err(error) = sd_notify::notify(&states) {
            warn!(log, "cannot tell the service manager that we are ready: {}", cause(&error));
        }
        self.settle();
        None
    }

    /// What a start or a reload runs through is over; from here on this process mostly waits.
    pub(super) fn settle(&self) {
        if let Err(error) = text::let_go() {
            debug!(self.estate.log, "the start's memory stays with this process: {}", cause(&error));
        }
    }

    /// How many children are ready.
    pub(super) fn ready(&self) -> u32 {
        self.children.count(|child| child.stage == Stage::Ready)
    }

    /// Fails the start if nobody has got ready in time. Returns when to look again.
    pub(super) fn watch_start(&mut self, now: Tick) -> Option<Tick> {
        let Phase::Starting { .. } = self.phase else { return None };
        let deadline = self.generation.begun.after(PATIENCE);
        if now < deadline || self.stop.is_some() {
            return Some(deadline);
        }
        let how = format!("none within {}; see {}", span(PATIENCE), self.generation.logs.error_log_name());
        self.fail(StartError::NoChild { how }, now);
        None
    }

    /// Whether another master has taken the place of this one, and this one need not even tell it anything.
    pub(super) fn has_left(&self) -> bool {
        self.successor.is_some() && self.upgrade.is_none()
    }

    /// The exit code, once there is nothing left to do.
    fn ended(&self, now: Tick) -> Option<i32> {
        if self.failure.is_some() && self.predecessor.is_some() {
            return Some(1);
        }
        let is_empty = self.children.is_empty() && self.grooms.are_gone(now);
        if self.has_left() && is_empty {
            return Some(0);
        }
        let stop = self.stop.as_ref()?;
        if is_empty {
            return Some(0);
        }
        (stop.ladder.rung() == Rung::GiveUp).then_some(1)
    }

    fn leave(mut self, code: i32) -> Result<i32, StartError> {
        let Moment(now) = time::now();
        self.estate.board.current().stopped(Moment(now), time::wall_micros());
        if let Some(file) = self.pid_file.take() {
            file.remove();
        }
        if self.failure.is_some() && self.predecessor.is_some() {
            // The old master has been told, and tells everybody.
            return Ok(code);
        }
        if let Some(failure) = self.failure.take() {
            let sentence = failure.sentence();
            if self.generation.logs.error_log_apart(&self.generation.config).is_some() {
                slog::crit!(self.estate.log, "{sentence}");
            }
            if self.report.is_awaited() {
                self.report.failed(&sentence);
                return Ok(1);
            }
            return Err(failure);
        }
        let lived = span(Moment(now).tick().until(self.generation.begun));
        let number = self.generation.number;
        let line = match &self.successor {
            Some(successor) => {
                format!("generation {number} is gone, which had served for {lived}; {successor} serves")
            }
            None => format!("stopped; generation {number} had served for {lived}"),
        };
        notice(&self.estate.log, &line);
        Ok(code)
    }
}

/// A line that is written whatever LogLevel says: a turning point.
pub(super) fn notice(log: &slog::Logger, line: &str) {
    slog::info!(log, # "notice", "{line}");
}
