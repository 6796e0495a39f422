//! A graceful reload: read, check, look up, bind, fork the new generation, wait until it is ready; only then
//! drain the old. Nothing has been touched before (invariant 5), so that any fault leaves the old one serving.
//!
//! Reading is the one time that the master is busy with something else than its children, and it is bounded.

use crate::clock::{Moment, Tick};
use crate::config::model::Config;
use crate::config::{Faults, Loaded};
use crate::ids;
use crate::log::line::Module;
use crate::master::children::{Child, Stage, Why};
use crate::master::deaths::{self, span};
use crate::master::error::{StartError, cause};
use crate::master::generation::{self, Generation, Leaving, Retired};
use crate::master::listeners::{Listener, Listeners};
use crate::master::logs::Logs;
use crate::master::policy::Limits;
use crate::master::resolve::Descent;
use crate::master::resolver::{self, Resolver};
use crate::master::start::enough_descriptors;
use crate::master::status_doors::StatusDoors;
use crate::master::supervisor::{Master, Phase, RESOLVER, notice};
use crate::orders::{Heir, Order};
use crate::scoreboard::board::{Birth, Board, Shape};
use crate::scoreboard::facts::{Facts, ReloadOutcome};
use crate::size::measure::machine;
use crate::size::warnings::warnings;
use crate::sys::process;
use crate::sys::signal::Signal;
use crate::sys::{fd, time, title};
use mio::Interest;
use mio::unix::SourceFd;
use slog::{debug, error, warn};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long the children of a new generation may take to get ready.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the kernel keeps dropping new connections at a listener that vanishes before its queue is emptied, and
/// how often that is looked at.
const SETTLE: Duration = Duration::from_millis(50);

/// From "leave now" to SIGKILL.
const INSIST: Duration = Duration::from_secs(3);

/// So many generations may drain at one time; the next reload waits.
const MOST_RETIRED: usize = 4;

/// Reads and checks the configuration again, as at the start.
pub struct Reader(Box<dyn Fn() -> Result<Loaded, Faults>>);

impl Reader {
    /// That calls `read`.
    pub fn new(read: impl Fn() -> Result<Loaded, Faults> + 'static) -> Self {
        Self(Box::new(read))
    }

    fn read(&self) -> Result<Loaded, Faults> {
        (self.0)()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

/// A reload under way.
#[derive(Debug)]
pub(super) struct Reload {
    begun: Moment,
    begun_wall: u64,
    step: Step,
    /// Why it cannot succeed any more.
    pub(super) failure: Option<String>,
}

#[derive(Debug)]
enum Step {
    /// Names are looked up.
    Resolving { config: Box<Config>, resolver: Resolver },
    /// The new generation's children are forked and get ready.
    Gathering { next: Box<Generation>, deadline: Tick },
}

impl Reload {
    /// The generation that comes up.
    pub(super) fn next(&self) -> Option<&Generation> {
        match &self.step {
            Step::Gathering { next, .. } => Some(next),
            Step::Resolving { .. } => None,
        }
    }

    /// A process that is none of the children has been reaped.
    pub(super) fn reaped(&mut self, pid: ids::ChildPid) {
        if let Step::Resolving { resolver, .. } = &mut self.step {
            resolver.reaped(pid);
        }
    }

    /// The generation that comes up.
    pub(super) fn next_mut(&mut self) -> Option<&mut Generation> {
        match &mut self.step {
            Step::Gathering { next, .. } => Some(next),
            Step::Resolving { .. } => None,
        }
    }
}

impl Master {
    /// Does what is due of a reload, and says when to look again.
    pub(super) fn tend_reload(&mut self, now: Moment) -> Option<Tick> {
        let tick = now.tick();
        if self.reload.is_none() {
            let signal = self.wanted?;
            if self.upgrade.is_some() {
                // Its end wakes us; if it succeeds, the new master is told.
                return None;
            }
            if self.phase != Phase::Serving {
                return Some(tick.after(SETTLE));
            }
            if let Some(whom) = self.reload_waits_for() {
                if !std::mem::replace(&mut self.said_waiting, true) {
                    notice(&self.estate.log, &format!("caught {signal}, the reload waits for {whom}"));
                }
                // The end of a child wakes us.
                return None;
            }
            self.wanted = None;
            self.said_waiting = false;
            self.begin_reload(signal, now);
        }
        let mut reload = self.reload.take()?;
        if let Some(failure) = reload.failure.take() {
            self.refuse(reload, &[failure], tick);
            return Some(tick);
        }
        match reload.step {
            Step::Resolving { config, mut resolver } => match resolver.hear(tick) {
                None => {
                    let deadline = resolver.deadline();
                    reload.step = Step::Resolving { config, resolver };
                    self.reload = Some(reload);
                    return Some(deadline);
                }
                Some(outcome) => {
                    let _ = self.poll.registry().deregister(&mut SourceFd(&resolver.as_fd().as_raw_fd()));
                    drop(resolver);
                    let (begun, begun_wall) = (reload.begun, reload.begun_wall);
                    match outcome {
                        Ok(answers) => {
                            let mut config = *config;
                            let descent = answers.complete(&mut config);
                            self.raise(config, descent, begun, begun_wall, now);
                        }
                        Err(fault) => self.refused(begun_wall, &[fault]),
                    }
                    return Some(tick);
                }
            },
            Step::Gathering { .. } => {
                self.reload = Some(reload);
            }
        }
        self.gather(now)
    }

    /// For whom the next reload has to wait; `None` if it need not.
    fn reload_waits_for(&self) -> Option<String> {
        if self.children.free_slots(u32::MAX) == 0 {
            return Some("a free slot of the scoreboard: leaving children hold them all".to_owned());
        }
        let oldest = self.retired.first().filter(|_| self.retired.len() >= MOST_RETIRED)?;
        Some(format!("generation {} to finish: {MOST_RETIRED} generations drain", oldest.number))
    }

    /// Reads and checks. Nothing is touched yet.
    fn begin_reload(&mut self, signal: &str, now: Moment) {
        let begun_wall = time::wall_micros();
        notice(&self.estate.log, &format!("caught {signal}, reloading"));
        let mut states = vec![sd_notify::NotifyState::Reloading];
        states.extend(sd_notify::NotifyState::monotonic_usec_now());
        let _ = sd_notify::notify(&states);
        let Loaded { config, notes } = match self.estate.reader.read() {
            Ok(loaded) => loaded,
            Err(Faults(faults)) => {
                let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
                return self.refused(begun_wall, &lines);
            }
        };
        if let Some(fault) = self.unchangeable(&config) {
            return self.refused(begun_wall, &[fault]);
        }
        if let Err(fault) = enough_descriptors(&config) {
            return self.refused(begun_wall, &[fault.sentence()]);
        }
        for note in &notes {
            warn!(self.estate.log, "{note}"; "module" => Module::Config.name());
        }
        for warning in warnings(&config, &machine::facts_of_this_process()) {
            warn!(self.estate.log, "{warning}"; "module" => Module::Core.name());
        }
        if !resolver::is_needed(&config) {
            return self.raise(config, Descent { identity: None, note: None }, now, begun_wall, now);
        }
        let resolver = Resolver::start(&config, now.tick()).and_then(|resolver| {
            let fd = resolver.as_fd().as_raw_fd();
            self.poll.registry().register(&mut SourceFd(&fd), RESOLVER, Interest::READABLE)?;
            Ok(resolver)
        });
        match resolver {
            Ok(resolver) => {
                let step = Step::Resolving { config: Box::new(config), resolver };
                self.reload = Some(Reload { begun: now, begun_wall, step, failure: None });
            }
            Err(error) => {
                self.refused(begun_wall, &[format!("cannot look up names: {}", cause(&error))]);
            }
        }
    }

    /// What a reload cannot change.
    fn unchangeable(&self, config: &Config) -> Option<String> {
        let old = &self.generation.config;
        let shown = |path: &Option<PathBuf>| {
            path.as_ref().map_or("none".to_owned(), |path| path.display().to_string())
        };
        for (name, old, new) in [
            ("PidFile", &old.pid_file, &config.pid_file),
            ("ScoreBoardFile", &old.scoreboard_file, &config.scoreboard_file),
        ] {
            if old != new {
                let (old, new) = (shown(old), shown(new));
                return Some(format!(
                    "{name} {new}: a reload cannot change it from {old}; stop the server and start it again"
                ));
            }
        }
        None
    }

    /// Makes a larger scoreboard if `next` does not fit the one there is. It gets its name with the switch.
    fn make_room(&mut self, next: &Generation) -> Result<(), StartError> {
        let limits = &next.config.limits;
        let wanted = Shape::new(limits.server_limit, limits.thread_limit, next.config.backends.len());
        let shape = self.estate.board.shape();
        // Backends that find no row share one; servers and threads need theirs.
        if wanted.server_limit <= shape.server_limit && wanted.thread_limit <= shape.thread_limit {
            return Ok(());
        }
        let shape = self.estate.board.grown(&wanted);
        let (now, wall_micros) = (time::now(), time::wall_micros());
        let birth = Birth { pid: std::process::id(), now, wall_micros };
        let path = next.config.scoreboard_file.as_deref();
        let prepare = |facts: &Facts<'_>| Board::prepare(path, &shape, &birth, facts);
        let board = next.with_facts(self.estate.config_path.as_deref(), wall_micros, prepare);
        let mut board = board.map_err(StartError::Board)?;
        board.keep_rows_of(self.estate.board.current());
        self.estate.board.prepare(board);
        self.children.set_limit(shape.slots());
        Ok(())
    }

    /// Opens logs, binds addresses, and begins to fork. All of it can still be taken back.
    fn raise(&mut self, config: Config, descent: Descent, begun: Moment, begun_wall: u64, now: Moment) {
        let opened = Logs::open_beside(&config, Some(&self.generation.logs)).and_then(|logs| {
            let current = self.generation.listeners.iter().flat_map(Listeners::all);
            let vanished = self.retired.iter().flat_map(|retired| retired.vanished.all());
            let open: Vec<&Listener> = current.chain(vanished).collect();
            let listeners = Listeners::bind_beside(&config, &open)?;
            let group = descent.identity.as_ref().map(|identity| identity.gid);
            let open = [&self.generation.doors, &self.grooms.vanishing];
            let doors = StatusDoors::bind_beside(&config, group, &open)?;
            Ok((logs, listeners, doors))
        });
        let (logs, listeners, doors) = match opened {
            Ok(opened) => opened,
            Err(fault) => return self.refused(begun_wall, &[StartError::sentence(&fault)]),
        };
        if let Some(note) = &descent.note {
            warn!(self.estate.log, "{note}"; "module" => Module::Unixd.name());
        }
        self.numbers = ids::Generation(self.numbers.0 + 1);
        let busy = self.census().busy;
        let tick = now.tick();
        let mut next =
            Generation::new(self.numbers, Arc::new(config), listeners, logs, descent.identity, tick);
        next.doors = doors;
        if let Err(fault) = self.make_room(&next) {
            return self.refused(begun_wall, &[fault.sentence()]);
        }
        // One that had vanished and comes back hears again.
        if let Some(listeners) = &next.listeners {
            for retired in &mut self.retired {
                let vanished = std::mem::take(&mut retired.vanished);
                let (back, gone) = vanished.divide(listeners);
                back.listen_again();
                retired.vanished = gone;
            }
        }
        self.grooms.vanishing.keep_vanishing(&next.doors);
        next.initial = needed(&next, busy).min(self.children.free_slots(self.estate.board.slots(true)));
        let step = Step::Gathering { next: Box::new(next), deadline: tick.after(PATIENCE) };
        self.reload = Some(Reload { begun, begun_wall, step, failure: None });
    }

    /// Forks the new generation's children, and switches once all are ready.
    fn gather(&mut self, now: Moment) -> Option<Tick> {
        let tick = now.tick();
        let reload = self.reload.as_mut()?;
        let Step::Gathering { next, deadline } = &mut reload.step else { return None };
        let (number, deadline) = (next.number, *deadline);
        let mut missing = next.initial;
        while missing > 0 && self.fork_next(now) {
            missing -= 1;
        }
        // With fewer than wanted it begins with those, and the spare arithmetic does the rest.
        let reload = self.reload.as_mut()?;
        if let Some(next) = reload.next_mut() {
            next.initial = 0;
        }
        let of_next = |child: &Child| child.generation == number;
        let starting = self.children.count(|child| of_next(child) && child.stage == Stage::Starting);
        let ready = self.children.count(|child| of_next(child) && child.stage == Stage::Ready);
        if starting == 0 && ready > 0 {
            if let Some(Reload { begun, begun_wall, step: Step::Gathering { next, .. }, .. }) =
                self.reload.take()
            {
                self.switch_to(*next, begun, begun_wall);
            }
            return Some(tick);
        }
        if starting == 0 {
            reload.failure = Some(format!("no child of generation {number} could be forked"));
            return Some(tick);
        }
        if deadline <= tick {
            let late = span(PATIENCE);
            reload.failure =
                Some(format!("{starting} children of generation {number} are not ready after {late}"));
            return Some(tick);
        }
        Some(deadline)
    }

    /// The new generation serves: from here on it is the current one.
    fn switch_to(&mut self, mut next: Generation, begun: Moment, begun_wall: u64) {
        let now = time::now();
        let tick = now.tick();
        next.logs.inherit(&mut self.generation.logs, &next.config);
        let old = std::mem::replace(&mut self.generation, next);
        let current = &self.generation;
        self.estate.log = current.log.clone();
        if let (Some(ours), Some(theirs)) = (&current.listeners, &old.listeners) {
            ours.adjust(&current.config);
            for remnant in ours.remnants(&current.config, theirs, &old.config) {
                warn!(self.estate.log, "{remnant}"; "module" => Module::Core.name());
            }
        }
        if self.estate.captive_stderr
            && let Some(errors) = current.logs.error_log_apart(&current.config)
            && let Err(error) = fd::redirect_standard_error(errors)
        {
            warn!(self.estate.log, "standard error stays where it was: {}", cause(&error));
        }
        // Before anybody is told: who hears that the new one serves should not meet the old one any more.
        self.retire_generation(old, tick);
        let current = &self.generation;
        let path = self.estate.config_path.clone();
        title::set_title(&current.title(path.as_deref()));
        let took = Duration::from_micros(now.micros_since(begun));
        let text = format!("serving generation {} ({})", current.number, span(took));
        let scoreboard = current.config.scoreboard_file.as_deref();
        if let Err(error) = self.estate.board.advance(scoreboard) {
            error!(self.estate.log, "the new scoreboard cannot take its place: {}", cause(&error));
        }
        // The one before may have been the last to fork a child.
        self.estate.count_for(current, false);
        let board = self.estate.board.current();
        current.with_facts(path.as_deref(), time::wall_micros(), |facts| board.set_facts(facts, now));
        board.set_reload(&ReloadOutcome { wall_micros: begun_wall, done: true, text: &text }, now);
        let number = current.number;
        let ready = self.children.count(|child| child.generation == number && child.stage == Stage::Ready);
        let addresses = current.listeners.as_ref().map(Listeners::addresses).unwrap_or_default();
        let shape = generation::shape(current.config.mpm, &current.config.limits, ready);
        let mpm = current.config.mpm.name();
        notice(&self.estate.log, &format!("{text}: {mpm} on {addresses}; {shape}"));
        let status = format!("serving on {addresses}");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&status)]);
        self.settle();
    }

    /// Has the children of a generation that is not wanted any more leave, in good order.
    fn retire_generation(&mut self, mut gone: Generation, now: Tick) {
        let timeout = self.generation.config.graceful_reload_timeout;
        let doors = std::mem::take(&mut gone.doors);
        self.grooms.vanishing.extend(doors.vanishing(&self.generation.doors));
        let vanished = match (gone.listeners.take(), &self.generation.listeners) {
            (Some(theirs), Some(ours)) => theirs.divide(ours).1,
            (theirs, _) => theirs.unwrap_or_default(),
        };
        let retired = Retired {
            number: gone.number,
            grace: gone.grace(timeout),
            logs: Some(gone.logs),
            vanished,
            step: Leaving::Settling(now),
            deadline: timeout.map(|timeout| now.after(timeout)),
        };
        self.let_go(retired, now);
    }

    /// The children of a generation, and the listeners that vanish with it, leave in good order.
    pub(super) fn let_go(&mut self, mut retired: Retired, now: Tick) {
        if !retired.vanished.is_empty() {
            retired.vanished.deafen();
            retired.step = Leaving::Settling(now.after(SETTLE));
        }
        self.retired.push(retired);
        self.tend_retired(now);
    }

    /// Goes on with the generations that leave, and says when to look again.
    pub(super) fn tend_retired(&mut self, now: Tick) -> Option<Tick> {
        let mut next: Option<Tick> = None;
        for mut retired in std::mem::take(&mut self.retired) {
            let number = retired.number;
            let of_it = |child: &Child| child.generation == number;
            if self.children.count(of_it) == 0 {
                retired.vanished.shut();
                debug!(self.estate.log, "generation {number} is gone");
                continue;
            }
            match retired.step {
                Leaving::Settling(until) if until <= now => {
                    if self.heir(Why::Reload) == Heir::Accepts {
                        // Generations before it may still count on those that leave now.
                        self.disinherit(Heir::Accepts, retired.grace);
                    }
                    for slot in self.slots(|child| of_it(child) && child.is_active()) {
                        for place in retired.vanished.places() {
                            self.order(slot, Order::LastAt(place));
                        }
                        self.drain_within(slot, Why::Reload, retired.grace);
                    }
                    // A wake-up for a connection may have gone to one that has just turned away.
                    self.nudge();
                    retired.step = Leaving::Draining(now.after(SETTLE));
                }
                Leaving::Draining(look) if look <= now && !retired.vanished.is_empty() => {
                    if !retired.vanished.has_queued() {
                        std::mem::take(&mut retired.vanished).shut();
                    }
                    retired.step = Leaving::Draining(now.after(SETTLE));
                }
                Leaving::Cut(until) if until <= now => {
                    for slot in self.slots(|child| of_it(child) && child.stage != Stage::Killed) {
                        self.give_up_on(slot, "it does not stop", now);
                    }
                    retired.step = Leaving::Cut(Tick::NEVER);
                }
                Leaving::Settling(_) | Leaving::Draining(_) | Leaving::Cut(_) => {}
            }
            let is_late = retired.deadline.is_some_and(|deadline| deadline <= now);
            if is_late && !matches!(retired.step, Leaving::Cut(_)) {
                self.cut(number);
                retired.step = Leaving::Cut(now.after(INSIST));
            }
            let due = match retired.step {
                Leaving::Settling(until) | Leaving::Cut(until) => Some(until),
                Leaving::Draining(look) => (!retired.vanished.is_empty()).then_some(look),
            };
            let deadline = retired.deadline.filter(|_| !matches!(retired.step, Leaving::Cut(_)));
            next = [next, due, deadline].into_iter().flatten().min();
            self.retired.push(retired);
        }
        next
    }

    /// GracefulReloadTimeout is over for this generation.
    fn cut(&mut self, number: ids::Generation) {
        let timeout = self.generation.config.graceful_reload_timeout.unwrap_or_default();
        let is_left = |child: &Child| {
            child.generation == number && !matches!(child.stage, Stage::Stopping | Stage::Killed)
        };
        for slot in self.slots(is_left) {
            let held = deaths::held(&self.estate.board.post_mortem(slot));
            let Some(child) = self.children.get_mut(slot) else { continue };
            let pid = child.pid;
            child.stage = Stage::Stopping;
            warn!(
                self.estate.log,
                "child {pid} (slot {slot}, generation {number}) has not finished within {} after a reload \
                 (GracefulReloadTimeout), cut{held}",
                span(timeout)
            );
            self.order(slot, Order::Stop);
        }
    }

    /// The reload under way is over: the old generation stays.
    fn refuse(&mut self, reload: Reload, faults: &[String], now: Tick) {
        let begun_wall = reload.begun_wall;
        self.withdraw(reload, now);
        self.refused(begun_wall, faults);
    }

    /// Takes back what a reload has brought to life so far.
    fn withdraw(&mut self, reload: Reload, now: Tick) {
        match reload.step {
            Step::Resolving { resolver, .. } => {
                let _ = self.poll.registry().deregister(&mut SourceFd(&resolver.as_fd().as_raw_fd()));
            }
            Step::Gathering { next, .. } => {
                let number = next.number;
                let is_starting =
                    |child: &Child| child.generation == number && child.stage == Stage::Starting;
                for slot in self.slots(is_starting) {
                    if let Some(child) = self.children.get_mut(slot) {
                        child.stage = Stage::Killed;
                        // It stands in the table, so the kernel has not given its number to anybody else.
                        let _ = process::kill(child.pid, Signal::SIGKILL);
                    }
                }
                self.estate.board.withdraw(next.config.scoreboard_file.as_deref());
                self.children.set_limit(self.estate.board.shape().slots());
                self.estate.count_for(&self.generation, false);
                // Some may serve already.
                self.retire_generation(*next, now);
            }
        }
    }

    /// Tells everybody that nothing has changed, and why.
    fn refused(&mut self, begun_wall: u64, faults: &[String]) {
        let (log, number) = (&self.estate.log, self.generation.number);
        for fault in faults {
            error!(log, "{fault}"; "module" => Module::Config.name());
        }
        error!(log, "reload refused, still serving generation {number}");
        let text = faults.first().map_or("", String::as_str);
        let outcome = ReloadOutcome { wall_micros: begun_wall, done: false, text };
        self.estate.board.current().set_reload(&outcome, time::now());
        let status = format!("reload refused, still serving generation {number}");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&status)]);
    }

    /// The server stops: no reload goes on.
    pub(super) fn call_off_reload(&mut self, now: Tick) {
        self.wanted = None;
        if let Some(reload) = self.reload.take() {
            self.withdraw(reload, now);
            warn!(self.estate.log, "the reload under way is called off");
        }
    }
}

/// How many children a generation begins with: StartServers, and as many as what is under way now and MinSpare
/// need.
fn needed(next: &Generation, busy: u32) -> u32 {
    let Limits { min_spare, threads_per_child, max_children, .. } = next.limits;
    let workers = busy.saturating_add(min_spare);
    next.initial.max(workers.div_ceil(threads_per_child)).min(max_children).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};

    #[test]
    fn a_new_generation_begins_with_what_the_old_one_needs() {
        for (text, busy, want) in [
            ("StartServers 1\nMinSpareThreads 1", 0, 1),
            ("StartServers 3\nMinSpareThreads 1", 0, 3),
            ("StartServers 1\nMinSpareThreads 10", 15, 1),
            ("StartServers 1\nMinSpareThreads 10", 16, 2),
            ("StartServers 1\nMinSpareThreads 75", 325, 16),
            ("StartServers 1\nMinSpareThreads 75", u32::MAX, 16),
        ] {
            let text = format!("MPM event\nListen 127.0.0.1:0\nErrorLog /dev/stderr\n{text}\n");
            let config = config::from_text("test", &text, &Options::default()).expect("a valid text").config;
            let listeners = Listeners::bind(&config).expect("port 0 is always free");
            let logs = Logs::open(&config).expect("stderr is always open");
            let next = Generation::new(generation::FIRST, Arc::new(config), listeners, logs, None, Tick(0));
            assert_eq!(needed(&next, busy), want, "{text}, {busy} busy");
        }
    }
}
