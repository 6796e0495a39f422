//! An upgrade, as the old master sees it: it starts the program as it now lies on the disk, leaves it the listening
//! sockets, waits until the children of the new master serve, frees the PidFile for it, and only then drains its own
//! children and ends. Whatever goes wrong before that leaves the old one serving as if nothing had been asked.
//!
//! What the two say to each other is in [`bequest`](super::bequest); who stands between them, in
//! [`midwife`](super::midwife); the new one's side, in `succession`.

use crate::clock::{Moment, Tick};
use crate::ids::{self, ChildPid};
use crate::master::bequest::{Answer, Bequest, HAND_OVER, Willed, Word};
use crate::master::deaths::span;
use crate::master::error::cause;
use crate::master::generation::{Leaving, Retired};
use crate::master::heritage::hear;
use crate::master::listeners::{Listeners, Owner};
use crate::master::midwife::{self, Birth, News, Wanted};
use crate::master::status_doors::StatusDoors;
use crate::master::supervisor::{Master, Phase, notice};
use crate::orders::Heard;
use crate::scoreboard::board::Board;
use crate::scoreboard::facts::ReloadOutcome;
use crate::sys::signal::Signal;
use crate::sys::{fd, process, socket, time, title};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use sd_notify::NotifyState;
use slog::{error, warn};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// The tokens of what the new master, its standard error stream and the midwife say.
const TOKENS: [Token; 3] = [Token(usize::MAX - 2), Token(usize::MAX - 3), Token(usize::MAX - 4)];

/// How long the program may take to say that it is an ostler.
const RECOGNISED: Duration = Duration::from_secs(10);

/// How long the new master may take from then on until its children serve: as those of a reload, and the look-up of
/// names before.
const READY: Duration = Duration::from_secs(35);

/// How long it may take to lock the PidFile; and the midwife, to do as it is told.
const PROMPT: Duration = Duration::from_secs(10);

/// How often it is looked whether a reload's listeners are gone.
const GLANCE: Duration = Duration::from_millis(50);

/// How much is kept of what the program says on its standard error stream, in bytes and in lines of the log.
const SAID: usize = 8 * 1024;
const LINES: usize = 20;

/// The master that has taken this one's place.
#[derive(Debug)]
pub(super) struct Successor {
    /// Its number, if it is known.
    pid: Option<ChildPid>,
    /// Its children take over idle connections of ours.
    pub(super) takes_over: bool,
}

impl fmt::Display for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("the new master"),
        }
    }
}

/// An upgrade under way.
#[derive(Debug)]
pub(super) struct Upgrade {
    begun_wall: u64,
    /// `None` once it has been reaped.
    midwife: Option<ChildPid>,
    words: OwnedFd,
    standard_error: OwnedFd,
    cord: OwnedFd,
    /// The new master's number.
    pid: Option<ChildPid>,
    /// What it says on its standard error stream, and by words.
    said: Vec<u8>,
    faults: Vec<String>,
    step: Step,
    deadline: Tick,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    /// The program has been started.
    Started,
    /// It is an ostler, and gets ready.
    Coming,
    /// It may lock the PidFile. It uses the listeners at these places.
    Handing {
        /// Those.
        places: Vec<usize>,
        /// Its children take idle connections of ours over.
        takes_over: bool,
    },
    /// It is the master; the midwife leaves it.
    Parting,
    /// It is not to be, and the midwife ends it.
    Failing,
}

impl Upgrade {
    /// Process `pid` has been reaped; whether it was the midwife.
    pub(super) fn reaped(&mut self, pid: ChildPid) -> bool {
        let is_it = self.midwife == Some(pid);
        if is_it {
            self.midwife = None;
        }
        is_it
    }

    fn descriptors(&self) -> [RawFd; 3] {
        [self.words.as_raw_fd(), self.standard_error.as_raw_fd(), self.cord.as_raw_fd()]
    }

    fn tell_midwife(&self, wanted: Wanted) {
        // One that cannot be told is gone, which is seen when it is reaped.
        let _ = socket::send(self.cord.as_fd(), wanted.encode());
    }

    /// It is not to be.
    fn give_up(&mut self, why: Option<String>, now: Tick) {
        if self.step != Step::Failing {
            self.step = Step::Failing;
            self.deadline = now.after(PROMPT);
            self.faults.extend(why);
            self.tell_midwife(Wanted::End);
            // For one that its midwife cannot end any more: it must not believe this master dead and take its place.
            let _ = socket::send(self.words.as_fd(), Answer::Off.encode());
        }
    }

    /// Keeps what the program says on its standard error stream.
    fn overhear(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = fd::read(self.standard_error.as_fd(), &mut bytes) {
            let room = SAID.saturating_sub(self.said.len());
            self.said.extend_from_slice(&bytes[..count.min(room)]);
        }
    }

    /// What the midwife has found out about a program that has ended.
    fn news(&mut self, now: Tick) {
        loop {
            match hear(self.cord.as_fd(), News::decode) {
                Heard::Message(News::Started(pid)) => self.pid = Some(pid),
                Heard::Message(News::Ended(how)) => {
                    if self.faults.is_empty() {
                        self.faults.push(format!("the new program {how}"));
                    }
                    self.give_up(None, now);
                }
                Heard::Nonsense => {}
                Heard::Nothing | Heard::Gone => return,
            }
        }
    }

    /// Why there is no new master: what it said by words, or else on its standard error stream.
    fn reasons(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.said);
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).take(LINES);
        let lines = lines.map(|line| format!("the new program says: {line}"));
        let mut reasons = self.faults.clone();
        if reasons.is_empty() {
            reasons.push("the new program has ended, nobody knows how".to_owned());
        }
        reasons.extend(lines);
        reasons
    }
}

impl Master {
    /// Does what is due of an upgrade, and says when to look again.
    pub(super) fn tend_upgrade(&mut self, now: Moment) -> Option<Tick> {
        let tick = now.tick();
        if self.upgrade.is_none() {
            let signal = self.wanted_upgrade?;
            let is_closing = self.retired.iter().any(|retired| !retired.vanished.is_empty())
                || !self.grooms.vanishing.is_empty();
            if self.phase != Phase::Serving || is_closing {
                return Some(tick.after(GLANCE));
            }
            if self.reload.is_some() {
                return None;
            }
            self.wanted_upgrade = None;
            self.begin_upgrade(signal, now);
        }
        let mut upgrade = self.upgrade.take()?;
        upgrade.overhear();
        upgrade.news(tick);
        self.heed_new_master(&mut upgrade, tick);
        if upgrade.deadline <= tick {
            match &upgrade.step {
                Step::Started => {
                    let late = span(RECOGNISED);
                    let why = format!(
                        "the new program is no ostler that could follow this one: it has not said so within {late}"
                    );
                    upgrade.give_up(Some(why), tick);
                }
                Step::Coming => {
                    upgrade.give_up(Some(format!("the new master is not ready after {}", span(READY))), tick);
                }
                Step::Handing { .. } => {
                    let late = span(PROMPT);
                    upgrade.give_up(
                        Some(format!("the new master has not locked the PidFile within {late}")),
                        tick,
                    );
                }
                Step::Parting | Step::Failing => {
                    if let Some(midwife) = upgrade.midwife {
                        // It is our child and has not been reaped, so the number is its own.
                        let _ = process::kill(midwife, Signal::SIGKILL);
                    }
                    upgrade.deadline = tick.after(PROMPT);
                }
            }
        }
        match (&upgrade.step, upgrade.midwife) {
            (Step::Parting, None) => {
                self.part(&upgrade);
                self.end_upgrade(&upgrade);
                Some(tick)
            }
            (Step::Failing, None) => {
                // Its last words may still be under way.
                upgrade.overhear();
                self.end_upgrade(&upgrade);
                self.go_on(&upgrade);
                Some(tick)
            }
            (Step::Started | Step::Coming, None) => {
                upgrade
                    .give_up(Some("the process that had started the new program has ended".to_owned()), tick);
                self.upgrade = Some(upgrade);
                Some(tick)
            }
            // One that hands over may have done so just now: its word, its end or its time tells.
            (Step::Handing { .. }, None) | (_, Some(_)) => {
                let deadline = upgrade.deadline;
                self.upgrade = Some(upgrade);
                Some(deadline)
            }
        }
    }

    /// Starts the program.
    fn begin_upgrade(&mut self, signal: &str, now: Moment) {
        let begun_wall = time::wall_micros();
        let program = self.estate.invocation.as_ref().map(|invocation| invocation.program.display());
        // Process 1 starts nothing.
        let program = program.filter(|_| std::process::id() != 1);
        let program = program.map_or_else(String::new, |program| format!(": starting {program}"));
        notice(&self.estate.log, &format!("caught {signal}, upgrading{program}"));
        let _ = sd_notify::notify(&[NotifyState::Status("upgrading")]);
        match self.call_midwife(now, begun_wall) {
            Ok(upgrade) => self.upgrade = Some(upgrade),
            Err(fault) => self.refuse_upgrade(begun_wall, &[fault]),
        }
    }

    fn call_midwife(&mut self, now: Moment, begun_wall: u64) -> Result<Upgrade, String> {
        if std::process::id() == 1 {
            return Err(
                "this is process 1, and with its end everything in its container would end; start a new \
                        container instead"
                    .to_owned(),
            );
        }
        let Some(invocation) = &self.estate.invocation else {
            return Err("it is not known how this server was started; start it anew".to_owned());
        };
        let fault = |error: io::Error| format!("cannot start the new program: {}", cause(&error));
        let (words, words_of_heir) = socket::pair().map_err(fault)?;
        let (cord, cord_of_midwife) = socket::pair().map_err(fault)?;
        let (standard_error, written) = fd::pipe().map_err(fault)?;
        fd::set_nonblocking(standard_error.as_fd()).map_err(fault)?;
        let own_standard_error = fd::duplicate(io::stderr().as_fd()).map_err(fault)?;
        let listeners = self.generation.listeners.as_ref().map(Listeners::all).unwrap_or_default();
        let willed = listeners.iter().map(|listener| Willed {
            fd: listener.fd.as_raw_fd(),
            listen: listener.listen,
            any_family: listener.any_family,
            managers: listener.owner == Owner::Manager,
        });
        let (receive, send) = &self.estate.hand_over;
        let ends = HAND_OVER.into_iter().zip([receive, send]);
        let hand_over = ends.map(|(end, fd)| (end.name(), fd.as_raw_fd()));
        let bequest = Bequest {
            master: std::process::id().cast_signed(),
            generation: ids::Generation(self.numbers.0 + 1),
            begun: now,
            begun_wall,
            words: words_of_heir.as_raw_fd(),
            standard_error: own_standard_error.as_raw_fd(),
            listeners: willed.collect(),
            // What else outlives a master is taken up again by name (`Predecessor::heirloom`).
            others: hand_over.chain(self.generation.doors.heirlooms()).collect(),
        };
        let birth = Birth {
            invocation,
            bequest: &bequest,
            words: words_of_heir,
            standard_error: written,
            cord: cord_of_midwife,
        };
        let midwife = midwife::call(birth).map_err(fault)?;
        let upgrade = Upgrade {
            begun_wall,
            midwife: Some(midwife),
            words,
            standard_error,
            cord,
            pid: None,
            said: Vec::new(),
            faults: Vec::new(),
            step: Step::Started,
            deadline: now.tick().after(RECOGNISED),
        };
        for (fd, token) in upgrade.descriptors().into_iter().zip(TOKENS) {
            // What cannot be watched is looked at when the deadline comes.
            let _ = self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE);
        }
        Ok(upgrade)
    }

    /// Hears the new master.
    fn heed_new_master(&mut self, upgrade: &mut Upgrade, now: Tick) {
        loop {
            let word = match hear(upgrade.words.as_fd(), Word::decode) {
                Heard::Message(word) => word,
                Heard::Nothing => return,
                Heard::Nonsense => continue,
                Heard::Gone => {
                    if upgrade.step != Step::Parting {
                        upgrade.give_up(None, now);
                    }
                    return;
                }
            };
            match (&upgrade.step, word) {
                (Step::Started, Word::Hello) => {
                    upgrade.step = Step::Coming;
                    upgrade.deadline = now.after(READY);
                }
                (Step::Coming, Word::Ready { places, takes_over }) => {
                    if let Some(file) = &self.pid_file
                        && let Err(error) = file.unlock()
                    {
                        upgrade.give_up(Some(format!("cannot unlock the PidFile: {}", cause(&error))), now);
                        return;
                    }
                    upgrade.step = Step::Handing { places, takes_over };
                    upgrade.deadline = now.after(PROMPT);
                    let _ = socket::send(upgrade.words.as_fd(), Answer::Go.encode());
                }
                (Step::Handing { places, takes_over }, Word::Taken) => {
                    let places = places.clone();
                    self.successor = Some(Successor { pid: upgrade.pid, takes_over: *takes_over });
                    self.pid_file = None;
                    self.generation.doors.disown();
                    self.retire_all(&places, now);
                    upgrade.step = Step::Parting;
                    upgrade.deadline = now.after(PROMPT);
                    upgrade.tell_midwife(Wanted::Leave);
                }
                (_, Word::Fault(reason)) => upgrade.faults.push(reason),
                (_, word) => warn!(self.estate.log, "the new master says {word:?} out of turn"),
            }
        }
    }

    /// This master's last generation leaves. The listeners at `places` are the new master's from now on: they are
    /// closed here, and no more; the others vanish as they do at a reload.
    fn retire_all(&mut self, places: &[usize], now: Tick) {
        let (_, vanished) = self.generation.listeners.take().unwrap_or_default().pick(places);
        let timeout = self.generation.config.graceful_reload_timeout;
        let grace = self.generation.grace(timeout);
        self.generation.initial = 0;
        self.generation.owed = 0;
        let retired = Retired {
            number: self.generation.number,
            grace,
            logs: None,
            vanished,
            step: Leaving::Settling(now),
            deadline: timeout.map(|timeout| now.after(timeout)),
        };
        self.let_go(retired, now);
    }

    /// The new master is told that it is alone now, and the service manager who is.
    fn part(&mut self, upgrade: &Upgrade) {
        if let Some(pid) = upgrade.pid {
            // Before the new one speaks for itself: the manager listens to the main process only.
            let _ = sd_notify::notify(&[NotifyState::MainPid(pid.as_raw().unsigned_abs())]);
        }
        let successor = self.successor.as_ref().map(ToString::to_string).unwrap_or_default();
        title::set_title(&format!("{}, leaving", self.generation.title(self.estate.config_path.as_deref())));
        // Closed here, so that the groom goes and the new master's has the doors for itself.
        self.generation.doors = StatusDoors::default();
        let left = self.children.count(|_| true);
        let plural = if left == 1 { "child finishes" } else { "children finish" };
        notice(&self.estate.log, &format!("upgraded: {successor} serves; {left} {plural} here"));
        let reload = self.wanted.take().is_some();
        let farewell = Answer::Farewell { reload, upgrade: self.wanted_upgrade.take().is_some() };
        let _ = socket::send(upgrade.words.as_fd(), farewell.encode());
    }

    /// There is no new master: everything stays as it was.
    fn go_on(&mut self, upgrade: &Upgrade) {
        if let Some(file) = &self.pid_file
            && let Err(error) = file.lock_again()
        {
            error!(self.estate.log, "the PidFile cannot be locked again: {}", cause(&error));
        }
        // What it may have left half done, if it was killed.
        self.generation.config.scoreboard_file.iter().for_each(|path| Board::abandon(path));
        self.refuse_upgrade(upgrade.begun_wall, &upgrade.reasons());
        // A wake-up for a connection may have gone to a child of the other one.
        self.nudge();
    }

    fn refuse_upgrade(&mut self, begun_wall: u64, faults: &[String]) {
        let (log, number) = (&self.estate.log, self.generation.number);
        for fault in faults {
            error!(log, "{fault}");
        }
        let outcome = format!("upgrade refused, still serving generation {number}");
        error!(log, "{outcome}");
        let text = faults.first().map_or("", String::as_str);
        let outcome_told = ReloadOutcome { wall_micros: begun_wall, done: false, text };
        self.estate.board.current().set_reload(&outcome_told, time::now());
        let _ = sd_notify::notify(&[NotifyState::Status(&outcome)]);
    }

    fn end_upgrade(&mut self, upgrade: &Upgrade) {
        for fd in upgrade.descriptors() {
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
    }

    /// The server stops: no upgrade goes on. One that is all but done is done.
    pub(super) fn call_off_upgrade(&mut self, now: Tick) {
        self.wanted_upgrade = None;
        let Some(mut upgrade) = self.upgrade.take() else { return };
        if upgrade.step == Step::Parting {
            self.part(&upgrade);
        } else {
            warn!(self.estate.log, "the upgrade under way is called off");
            upgrade.give_up(Some("called off".to_owned()), now);
            self.generation.config.scoreboard_file.iter().for_each(|path| Board::abandon(path));
        }
        // The midwife has been told what to do; it does so, and is reaped as any process.
        self.end_upgrade(&upgrade);
    }
}
