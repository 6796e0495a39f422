//! As many children as there should be, and all of them alive: what the master does in each turn of its loop.

use crate::clock::{Moment, Tick};
use crate::ids::{ChildPid, SlotIndex};
use crate::master::children::{Child, Stage, Why};
use crate::master::deaths::span;
use crate::master::policy::{self, Action, Census, Report};
use crate::master::pulse::{Beat, Pulse};
use crate::master::reload::Reload;
use crate::master::supervisor::Master;
use crate::orders::Order;
use slog::{debug, error, info, warn};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

/// While there is work, the master looks at least so often, in case a child's word was lost.
const GLANCE: Duration = Duration::from_secs(1);

/// The earliest of the points in time that there are.
fn earliest(points: impl IntoIterator<Item = Option<Tick>>) -> Tick {
    points.into_iter().flatten().min().unwrap_or(Tick::NEVER)
}

impl Master {
    /// Does what is due, and says when the next thing will be, if nothing happens before.
    pub(super) fn upkeep(&mut self, now: Moment) -> Tick {
        let tick = now.tick();
        let programs = self.keep_programs(tick);
        let pulses = self.feel_pulses(tick);
        let unsent = self.catch_up(tick);
        let grooms = self.tend_grooms(now);
        if self.stop.is_some() {
            self.step_down(tick);
            let rung = self.stop.as_ref().map(|stop| stop.ladder.next());
            return earliest([programs, pulses, unsent, grooms, rung]);
        }
        if self.successor.is_some() {
            let retired = self.tend_retired(tick);
            let upgrade = self.tend_upgrade(now);
            let glance = (!self.children.is_empty()).then(|| tick.after(GLANCE));
            return earliest([programs, pulses, grooms, retired, upgrade, glance]);
        }
        // In this order: a reload may wait for a generation to be gone.
        let retired = self.tend_retired(tick);
        let reload = self.tend_reload(now);
        let upgrade = self.tend_upgrade(now);
        if self.successor.is_some() {
            return tick;
        }
        let growth = self.grow_and_shrink(now);
        let relief = self.tell_of_relief(tick);
        let start = self.watch_start(tick);
        let announcement = self.announce(tick);
        let is_working =
            |(slot, child): (SlotIndex, &Child)| child.is_leaving() || self.estate.board.busy(slot) > 0;
        let glance = self.children.iter().any(is_working).then(|| tick.after(GLANCE));
        earliest([
            programs,
            pulses,
            unsent,
            grooms,
            reload,
            upgrade,
            retired,
            growth,
            relief,
            start,
            announcement,
            glance,
        ])
    }

    fn keep_programs(&mut self, now: Tick) -> Option<Tick> {
        let mut logs = self.all_logs();
        // Our own may be the pipe of an ErrorLog that is a program. Whichever held that as its standard error stream
        // would keep the program from ever finding its end, and that program itself would read its own complaints.
        let is_due = logs.iter().filter_map(|logs| logs.deadline()).any(|due| due <= now);
        let mute = is_due && logs.iter().any(|logs| logs.hear(std::io::stderr().as_fd()));
        let faults: Vec<String> = logs.iter_mut().flat_map(|logs| logs.start_programs(mute, now)).collect();
        let deadline = logs.iter().filter_map(|logs| logs.deadline()).min();
        for fault in faults {
            error!(self.estate.log, "{fault}");
        }
        deadline
    }

    /// Pings children and gives up on those that do not answer, or do not get ready.
    fn feel_pulses(&mut self, now: Tick) -> Option<Tick> {
        let timeout = self.generation.config.child_stall_timeout;
        let board = &self.estate.board;
        let busy = self.children.iter().any(|(slot, child)| child.is_leaving() || board.busy(slot) > 0);
        let mut next: Option<Tick> = None;
        let mut silent = Vec::new();
        let mut late = Vec::new();
        let mut pings = Vec::new();
        for (slot, child) in self.children.iter_mut() {
            let due = match (child.stage, child.ready) {
                (Stage::Killed, _) => continue,
                (_, None) => {
                    let due = child.forked.after(timeout);
                    if due <= now {
                        silent.push((slot, format!("not ready after {}", span(timeout))));
                    }
                    due
                }
                (_, Some(_)) => loop {
                    match child.pulse.beat(busy, timeout, now) {
                        Beat::Fine(due) => break due,
                        Beat::Ping(number) => pings.push((slot, number)),
                        Beat::Late(lasted) => late.push((slot, child.pid, child.generation, lasted)),
                        Beat::Silent(lasted) => {
                            silent.push((slot, format!("no answer for {}", span(lasted))));
                            break now.after(timeout);
                        }
                    }
                },
            };
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        for (slot, number) in pings {
            self.order(slot, Order::Ping(number));
        }
        for (slot, pid, number, lasted) in late {
            warn!(
                self.estate.log,
                "child {pid} (slot {slot}, generation {number}) has not answered for {}; killed if it does not \
                 within {} (ChildStallTimeout)",
                span(lasted),
                span(timeout)
            );
            // Connections that it was woken for wait for somebody else.
            self.nudge();
        }
        for (slot, how) in silent {
            self.give_up_on(slot, &how, now);
        }
        next.map(|next| next.max(Tick(now.0 + 1)))
    }

    /// Forks and retires as the spare arithmetic, deaths and recycling ask for.
    fn grow_and_shrink(&mut self, now: Moment) -> Option<Tick> {
        let tick = now.tick();
        if let Some(until) = self.refusals.waits(tick).or(self.generation.crashes.waits(tick)) {
            return Some(until);
        }
        while self.generation.initial > 0 && self.fork(None, now) {
            self.generation.initial -= 1;
        }
        while self.generation.owed > 0 {
            if !self.generation.limits.wants_replacement(&self.census()) {
                self.generation.owed = 0;
            } else if self.fork(None, now) {
                self.generation.owed -= 1;
            } else {
                break;
            }
        }
        self.fork_heirs(now);
        if let Some(until) = self.refusals.waits(tick) {
            return Some(until);
        }
        let census = self.census();
        let (decision, pace) = policy::decide(&census, &self.generation.limits, self.generation.pace, tick);
        self.generation.pace = pace;
        if let Some(report) = decision.report {
            self.tell(report);
        }
        match decision.action {
            Action::Nothing => {}
            Action::Fork(count) => {
                debug!(self.estate.log, "{} workers busy, {} idle: {count} more", census.busy, census.idle);
                for _ in 0..count {
                    if !self.fork(None, now) {
                        break;
                    }
                }
            }
            Action::Retire(count) => {
                info!(self.estate.log, "{} workers idle, more than MaxSpare: {count} go", census.idle);
                self.retire(count, tick);
            }
        }
        // A fork that was refused has a time of its own.
        [decision.again, self.refusals.waits(tick)].into_iter().flatten().min()
    }

    /// What the spare arithmetic counts: children of this generation that are not leaving. An heir that starts
    /// is left out, since it takes another's place.
    pub(super) fn census(&self) -> Census {
        let threads = self.generation.limits.threads_per_child;
        let mut census = Census { active: 0, starting: 0, busy: 0, idle: 0, free_slots: self.room() };
        for (slot, child) in self.children.iter() {
            let is_heir = child.stage == Stage::Starting && child.heir_of.is_some();
            if child.generation != self.generation.number || !child.is_active() || is_heir {
                continue;
            }
            let busy = self.estate.board.busy(slot).min(threads);
            census.active += 1;
            census.starting += u32::from(child.stage == Stage::Starting);
            census.busy += busy;
            census.idle += threads - busy;
        }
        census
    }

    /// Forks heirs for children whose end is near, a tenth of the children at once and at least one.
    fn fork_heirs(&mut self, now: Moment) {
        let current = self.generation.number;
        let near_end =
            |child: &Child| child.near_end && child.stage == Stage::Ready && child.generation == current;
        let waiting = self.children.iter().filter(|(_, child)| near_end(child));
        let mut waiting: Vec<(SlotIndex, ChildPid)> =
            waiting.map(|(slot, child)| (slot, child.pid)).collect();
        waiting.retain(|&(_, pid)| !self.children.has_heir(pid));
        if waiting.is_empty() {
            return;
        }
        let mut census = self.census();
        let board = &self.estate.board;
        let mut recycling = self.children.recycling(|slot| board.has_only_tunnels(slot));
        for (slot, pid) in waiting {
            let may_linger = self.estate.board.has_tunnels(slot);
            if !policy::may_recycle(&census, &self.generation.limits, recycling, may_linger) {
                continue;
            }
            if !self.fork(Some(pid), now) {
                break;
            }
            census.free_slots = census.free_slots.saturating_sub(1);
            recycling.changing += 1;
        }
    }

    /// Slots that children of the current generation may have.
    fn room(&self) -> u32 {
        self.children.free_slots(self.estate.board.slots(false))
    }

    /// Forks one child of the current generation. `false` if that cannot be: there is none,
    /// or the kernel refuses.
    fn fork(&mut self, heir_of: Option<ChildPid>, now: Moment) -> bool {
        self.fork_of(false, heir_of, now)
    }

    /// The same for the generation that comes up.
    pub(super) fn fork_next(&mut self, now: Moment) -> bool {
        self.fork_of(true, None, now)
    }

    fn fork_of(&mut self, next: bool, heir_of: Option<ChildPid>, now: Moment) -> bool {
        let places = self.estate.board.places(next);
        let Some(slot) = places.into_iter().find_map(|slots| self.children.free_slot(slots)) else {
            return false;
        };
        let tick = now.tick();
        let generation =
            if next { self.reload.as_ref().and_then(Reload::next) } else { Some(&self.generation) };
        let Some(generation) = generation else { return false };
        let number = generation.number;
        match self.estate.fork(generation, next, slot, now) {
            Ok((pid, orders)) => {
                self.refusals.succeed();
                self.no_fork.succeed(tick);
                let child = Child {
                    pid,
                    generation: number,
                    stage: Stage::Starting,
                    orders,
                    unsent: VecDeque::new(),
                    deaf: false,
                    forked: tick,
                    ready: None,
                    near_end: false,
                    heir_of,
                    pulse: Pulse::default(),
                };
                if let Err(error) = self.adopt(slot, child) {
                    let how = format!("its orders socket cannot be watched: {error}");
                    self.give_up_on(slot, &how, tick);
                }
                true
            }
            Err(error) => {
                let delay = span(self.refusals.fail(tick));
                if self.no_fork.fail(tick) {
                    let living = self.children.count(|child| child.stage == Stage::Ready);
                    error!(
                        self.estate.log,
                        "cannot fork a child: {error}; trying on, {living} ready meanwhile"
                    );
                } else {
                    debug!(self.estate.log, "cannot fork a child: {error}; next try in {delay}");
                }
                false
            }
        }
    }

    /// Tells when what was wanting has been there for a while. When to look again.
    fn tell_of_relief(&mut self, now: Tick) -> Option<Tick> {
        if let Some(lasted) = self.no_fork.end(now) {
            info!(self.estate.log, "children can be forked again, after {}", span(lasted));
        }
        if let Some(lasted) = self.no_start.end(now) {
            self.estate.shortage_told = false;
            info!(self.estate.log, "children can start again, after {}", span(lasted));
        }
        [self.no_fork.ends(), self.no_start.ends()].into_iter().flatten().min()
    }

    /// Sends `count` children away: those that are least busy, and of these the ones with the fewest connections.
    fn retire(&mut self, count: u32, now: Tick) {
        let board = &self.estate.board;
        let current = self.generation.number;
        let mut slots = self.slots(|child| child.stage == Stage::Ready && child.generation == current);
        // Each row is read once: children write to them meanwhile, and a sort whose keys move may panic.
        slots.sort_by_cached_key(|&slot| (board.busy(slot), board.connections(slot), Reverse(slot)));
        slots.truncate(count as usize);
        for slot in slots {
            self.drain(slot, Why::Surplus, now);
        }
    }

    /// Tells the administrator what the spare arithmetic has run into.
    fn tell(&self, report: Report) {
        let limits = &self.generation.config.limits;
        let (log, most) = (&self.estate.log, limits.max_request_workers);
        match report {
            Report::LimitReached => {
                error!(
                    log,
                    "MaxRequestWorkers {most} reached, clients will wait; raise it or shorten requests"
                );
            }
            Report::LimitNear => warn!(
                log,
                "MaxRequestWorkers {most} is within reach: fewer than {} workers are idle and no child may be added",
                self.generation.limits.min_spare
            ),
            Report::LimitLeft(lasted) => {
                info!(log, "MaxRequestWorkers {most} is out of reach again, after {}", span(lasted));
            }
            Report::NoSlot => error!(
                log,
                "children are needed, but leaving ones hold every slot of the scoreboard ({}); waiting for them",
                self.estate.board.slots(false)
            ),
            Report::SlotsAgain(lasted) => {
                info!(log, "the scoreboard has had room for new children again, after {}", span(lasted));
            }
        }
    }
}
