//! Stopping: carries out what the ladder of [`shutdown`](super::shutdown) decides.

use crate::clock::Tick;
use crate::master::children::{Child, Stage, Why};
use crate::master::error::StartError;
use crate::master::generation;
use crate::master::listeners::Listeners;
use crate::master::shutdown::{Ladder, Rung};
use crate::master::supervisor::{Master, Phase, notice};
use crate::orders::Order;
use crate::sys::signal::Signal;
use slog::{error, warn};

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) ladder: Ladder,
    pub(super) begun: Tick,
}

impl Master {
    /// Begins to stop, or hastens a stop under way.
    pub(super) fn begin_stop(&mut self, signal: Signal, graceful: bool, now: Tick) {
        let name = signal.as_str();
        if let Some(stop) = &mut self.stop {
            if stop.ladder.hasten(now) {
                let cut = self.what_is_cut();
                notice(&self.estate.log, &format!("caught {name}, stopping now{cut}"));
                self.insist();
            }
            return;
        }
        // One that is all but the master is the master.
        self.succeed();
        self.call_off_reload(now);
        self.call_off_upgrade(now);
        if self.successor.is_none() && self.predecessor.is_none() {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        }
        let is_starting = matches!(self.phase, Phase::Starting { .. } | Phase::Following);
        if is_starting
            || self.predecessor.is_some()
            || (self.phase == Phase::Gathering && self.report.is_awaited())
        {
            self.fail(StartError::CalledOff { signal: name }, now);
        } else if graceful {
            let timeout = self.generation.config.graceful_shutdown_timeout;
            let busy = self.children.count(|child| child.stage != Stage::Killed);
            let within = generation::within(timeout);
            let plural = if busy == 1 { "" } else { "ren" };
            let line =
                format!("caught {name}, stopping gracefully: {busy} child{plural} may finish {within}");
            notice(&self.estate.log, &line);
            if let Some(listeners) = &self.generation.listeners {
                listeners.deafen();
            }
            self.stop = Some(Stop { ladder: Ladder::graceful(now, timeout), begun: now });
        } else {
            let cut = self.what_is_cut();
            notice(&self.estate.log, &format!("caught {name}, stopping now{cut}"));
            self.stop = Some(Stop { ladder: Ladder::hard(now), begun: now });
            self.insist();
        }
    }

    /// For a line about a stop that waits for nobody: the requests under way, by the scoreboard.
    fn what_is_cut(&self) -> String {
        let busy = |(slot, _)| self.estate.board.busy(slot);
        match self.children.iter().map(busy).fold(0, u32::saturating_add) {
            0 => String::new(),
            1 => "; 1 request under way is cut".to_owned(),
            count => format!("; {count} requests under way are cut"),
        }
    }

    /// The start has failed: whoever waits hears why, and what there is of it stops.
    pub(super) fn fail(&mut self, failure: StartError, now: Tick) {
        if self.failure.is_none() {
            let called_off = self.is_called_off(&failure);
            self.failure = Some(failure);
            if called_off {
                return;
            }
            self.stop = Some(Stop { ladder: Ladder::hard(now), begun: now });
            self.insist();
        }
    }

    /// Goes down the ladder as far as it is time to.
    pub(super) fn step_down(&mut self, now: Tick) {
        let Some(stop) = &mut self.stop else { return };
        if stop.ladder.rung() == Rung::Ask && stop.ladder.next() <= now {
            let queued = self.generation.listeners.as_ref().is_some_and(Listeners::has_queued);
            if queued && stop.ladder.keep_open(stop.begun, now) {
                return;
            }
        }
        match stop.ladder.step(now) {
            Some(Rung::Ask) => {
                let grace = self.generation.grace_within(stop.ladder.left(now));
                self.disinherit(self.heir(Why::Stop), grace);
                for slot in self.slots(Child::is_active) {
                    self.drain(slot, Why::Stop, now);
                }
            }
            Some(Rung::Shut) => self.shut_listeners(),
            Some(Rung::Insist) => {
                let count = self.children.count(|_| true);
                let plural = if count == 1 { "child has" } else { "children have" };
                warn!(self.estate.log, "{count} {plural} not finished in time, stopping now");
                self.insist();
            }
            Some(Rung::Kill) => {
                for slot in self.slots(|child| child.stage != Stage::Killed) {
                    self.give_up_on(slot, "it does not stop", now);
                }
            }
            Some(Rung::GiveUp) => {
                error!(
                    self.estate.log,
                    "{} children cannot even be killed; leaving them",
                    self.children.count(|_| true)
                );
            }
            Some(Rung::Close) | None => {}
        }
    }

    /// Orders every child to leave at once.
    fn insist(&mut self) {
        self.shut_listeners();
        for slot in self.slots(|child| !matches!(child.stage, Stage::Stopping | Stage::Killed)) {
            self.order(slot, Order::Stop);
            if let Some(child) = self.children.get_mut(slot) {
                child.stage = Stage::Stopping;
            }
        }
    }

    fn shut_listeners(&mut self) {
        if let Some(listeners) = self.generation.listeners.take() {
            listeners.shut();
        }
        for retired in &mut self.retired {
            std::mem::take(&mut retired.vanished).shut();
        }
    }
}
