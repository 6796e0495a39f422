//! What the master tells its children: orders, and to those that do not hear, SIGKILL.

use crate::clock::Tick;
use crate::ids::SlotIndex;
use crate::master::children::{Child, Stage, Why};
use crate::master::deaths;
use crate::master::error::cause;
use crate::master::generation;
use crate::master::supervisor::Master;
use crate::orders::{Heir, Order};
use crate::sys::process;
use crate::sys::signal::Signal;
use slog::{debug, error};
use std::time::Duration;

/// How soon an order is tried again that found no room.
const RETRY: Duration = Duration::from_millis(100);

impl Master {
    /// Sends an order. A child that has not read for long gets one that must arrive as soon as it reads; pings tell
    /// whether it lives.
    pub(super) fn order(&mut self, slot: SlotIndex, order: Order) {
        if let Some(child) = self.children.get_mut(slot).filter(|child| !child.deaf)
            && let Err(error) = child.tell(order)
        {
            debug!(
                self.estate.log,
                "child {} (slot {slot}) cannot be told {order:?}: {}",
                child.pid,
                cause(&error)
            );
        }
    }

    /// Has the child in `slot` finish what it has and leave.
    pub(super) fn drain(&mut self, slot: SlotIndex, why: Why, now: Tick) {
        let left = match (&self.stop, why) {
            (Some(stop), Why::Stop) => stop.ladder.left(now),
            // Nothing is cut for a recycling or a surplus, however long it takes.
            _ => None,
        };
        let grace = self.generation.grace_within(left);
        self.drain_within(slot, why, grace);
    }

    /// The same, with these times.
    pub(super) fn drain_within(&mut self, slot: SlotIndex, why: Why, grace: Duration) {
        let heir = self.heir(why);
        let Some(child) = self.children.get_mut(slot).filter(|child| child.is_active()) else { return };
        child.stage = Stage::Draining(why);
        child.near_end = false;
        let order = Order::Drain { grace_ms: generation::milliseconds(grace), heir };
        debug!(self.estate.log, "child {} (slot {slot}) drains: {why:?}", child.pid);
        self.order(slot, order);
    }

    /// Who takes over from a child that leaves for this reason.
    pub(super) fn heir(&self, why: Why) -> Heir {
        let takes_over = match (&self.successor, why) {
            (Some(successor), _) => successor.takes_over,
            (None, Why::Stop) => return Heir::Nobody,
            (None, _) => self.generation.hands_over(),
        };
        if takes_over { Heir::TakesOver } else { Heir::Accepts }
    }

    /// Tells the children that leave already that nobody takes over their connections any more.
    pub(super) fn disinherit(&mut self, heir: Heir, grace: Duration) {
        let grace_ms = generation::milliseconds(grace);
        for slot in self.slots(|child| !child.is_active()) {
            self.order(slot, Order::Drain { grace_ms, heir });
        }
    }

    /// Kills a child that does not live any more but has not died either.
    pub(super) fn give_up_on(&mut self, slot: SlotIndex, how: &str, now: Tick) {
        let Some(child) = self.children.get_mut(slot).filter(|child| child.stage != Stage::Killed) else {
            return;
        };
        let (pid, number, was_active) = (child.pid, child.generation, child.is_active());
        let was_starting = child.stage == Stage::Starting;
        child.stage = Stage::Killed;
        let held = deaths::held(&self.estate.board.post_mortem(slot));
        let mut next = "";
        let is_current = number == self.generation.number;
        if was_active && is_current && self.stop.is_none() {
            next = " and replaced";
            self.generation.owed += 1;
        }
        if was_starting && is_current {
            self.generation.crashes.fail(now);
        }
        if was_active
            && let Some(reload) = &mut self.reload
            && reload.next().is_some_and(|next| next.number == number)
        {
            reload.failure.get_or_insert_with(|| format!("child {pid} of the new generation: {how}"));
        }
        error!(self.estate.log, "child {pid} (slot {slot}, generation {number}): {how}; killed{next}{held}");
        // It stands in the table, so the kernel has not given its number to anybody else.
        let _ = process::kill(pid, Signal::SIGKILL);
        self.nudge();
    }

    /// Has a child with free workers accept: a wake-up for a connection may have gone to one that cannot.
    pub(super) fn nudge(&mut self) {
        self.nudge_one(|_| true);
    }

    /// The same, but not the one in `asker`, which can't.
    pub(super) fn nudge_but(&mut self, asker: SlotIndex) {
        self.nudge_one(|slot| slot != asker);
    }

    fn nudge_one(&mut self, may: impl Fn(SlotIndex) -> bool) {
        let ready = self.children.iter().filter(|(slot, child)| child.stage == Stage::Ready && may(*slot));
        // One that does not answer its ping will not hear this either.
        let (board, late) = (&self.estate.board, |child: &Child| child.pulse.is_late());
        if let Some((slot, _)) = ready.min_by_key(|(slot, child)| (late(child), board.busy(*slot))) {
            self.order(slot, Order::Accept);
        }
    }

    /// Sends what could not be sent before. When to look again, if something is left.
    pub(super) fn catch_up(&mut self, now: Tick) -> Option<Tick> {
        let is_behind = self.children.iter_mut().fold(false, |behind, (_, child)| child.catch_up() || behind);
        is_behind.then(|| now.after(RETRY))
    }
}
