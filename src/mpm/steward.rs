//! The child's first thread: hears orders, stands by, tells the master how things are.
//!
//! It serves nobody, so that a child answers its master however busy it is. While there is work it looks every few
//! milliseconds whether somebody has been in the poll or begun a turn; if not, whoever has the work is stuck in it (a
//! disk that stalls a log, say), and a follower is called up. With nothing to do it sleeps without a timer, but for the one after
//! which it gives back what a crowd of connections needed.

use super::balance::{Advice, Balance, Trust};
use super::child::Child;
use super::crew::Crew;
use super::giveback::GiveBack;
use super::progress::Progress;
use super::tokens::Aged;
use crate::clock::{Moment, Tick};
use crate::log::line::cause;
use crate::orders::{Heard, Heir, Order, Word};
use crate::sys::heap;
use crate::sys::poll::{self, Seen, Wish};
use crate::sys::process::ChildExit;
use crate::sys::signal;
use slog::{error, warn};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often it looks while there is work, where a child has much of a core to itself.
const LOOK: Duration = Duration::from_millis(8);

/// Children on a core from which on stewards look less often: each look is a context switch, which the children's work
/// pays for, and a child that has an eighth of a core is late by more than a look in any case.
const CROWD: u32 = 4;

/// A stuck child of a crowd waits for so many times [`LOOK`] at most.
const RAREST: u32 = 5;

/// Times [`LOOK`] without anything new after which it sleeps: a second.
const QUIET: u32 = 125;

/// How often the master is told how many rows are taken, at most.
const CENSUS: u64 = 100_000;

/// Says that the child is ready, then stands by until the child is over. Returns how it ends.
pub fn run(child: &'static Child, crew: Crew) -> ChildExit {
    let terminate = match signal::terminate_descriptor() {
        Ok(terminate) => terminate,
        Err(fault) => {
            error!(child.log, "this child cannot hear signals: {}", cause(&fault); "module" => "core");
            return ChildExit::FATAL;
        }
    };
    child.block.set_load(0, true);
    child.block.ready();
    child.say(Word::Ready);
    let mut steward = Steward {
        child,
        crew,
        orphan: false,
        moves: 0,
        quiet: 0,
        awake: true,
        waited: None,
        said: 0,
        said_at: Moment(0),
        progress: Progress::new(child.read_clock()),
        balance: Balance::new(),
        trust: Trust::default(),
        giving: GiveBack::new(),
    };
    let mut terminated = false;
    loop {
        let listen = |fd| Wish { fd, read: true, write: false };
        let wishes = [
            // A socket whose other end is gone would be seen for ever.
            if steward.orphan { listen(child.over.as_fd()) } else { listen(child.orders.as_fd()) },
            listen(child.bell.as_fd()),
            listen(child.over.as_fd()),
            Wish { fd: terminate.as_fd(), read: !terminated, write: false },
        ];
        let mut seen = [Seen::default(); 4];
        let timeout = steward.timeout();
        if let Err(fault) = poll::wait(&wishes, timeout, &mut seen) {
            error!(child.log, "this child cannot wait for orders: {}", cause(&fault); "module" => "core");
            return ChildExit::FATAL;
        }
        let now = crate::sys::time::now();
        steward.progress.look(now);
        if !steward.awake {
            // Nothing was to be done; whoever has begun since then has only just rung.
            steward.progress.moved();
        }
        let [orders, bell, over, term] = seen.map(|seen| seen.readable);
        if over {
            return ChildExit::OK;
        }
        if bell {
            child.bell.clear();
            steward.awake = true;
            steward.quiet = 0;
        }
        if term && !terminated {
            terminated = true;
            child.say(Word::Draining);
            steward.leave(child.keep_alive_grace(), Heir::TakesOver);
        }
        if orders && !steward.orphan && !steward.hear() {
            return ChildExit::OK;
        }
        steward.look(now);
    }
}

struct Steward {
    child: &'static Child,
    crew: Crew,
    /// The master is gone, and the orders socket with it.
    orphan: bool,
    /// How often somebody had moved on when it looked last.
    moves: u64,
    /// Looks since something was new.
    quiet: u32,
    awake: bool,
    /// Who had waited longest for a worker row at the last look.
    waited: Option<Aged>,
    /// What the master was told last.
    said: u32,
    said_at: Moment,
    progress: Progress,
    /// How the child's load compares with its siblings'.
    balance: Balance,
    trust: Trust,
    giving: GiveBack,
}

/// How many of `cores` are there for each of `children`, all of which may be busy: a thread more than that takes its
/// time from a sibling's, and waking it costs more than it gains.
fn share(cores: u32, children: u32) -> usize {
    usize::try_from(cores.div_ceil(children.max(1))).unwrap_or(usize::MAX)
}

/// How many times [`LOOK`] is between two looks.
fn stretch(cores: u32, children: u32) -> u32 {
    (children / cores.saturating_mul(CROWD).max(1)).clamp(1, RAREST)
}

impl Steward {
    fn stretch(&self) -> u32 {
        stretch(self.child.cores, self.child.block.children())
    }

    fn timeout(&self) -> Option<Duration> {
        if self.awake {
            return Some(LOOK * self.stretch());
        }
        let next = self.child.next_sweep().min(self.crew.due()).min(self.giving.due());
        (next != Tick::NEVER).then(|| next.until(crate::sys::time::now().tick()))
    }

    /// Whether the child stays.
    fn hear(&mut self) -> bool {
        loop {
            match self.child.orders.recv_order() {
                Heard::Nothing => return true,
                Heard::Nonsense => {
                    warn!(self.child.log, "an order that makes no sense, ignored"; "module" => "core");
                }
                Heard::Gone => {
                    if !self.child.is_leaving() {
                        warn!(self.child.log, "the master is gone; this child finishes what it has and leaves";
                            "module" => "core");
                    }
                    self.child.begin_leaving_orphaned();
                    self.child.nudge_leader();
                    self.awake = true;
                    self.quiet = 0;
                    self.orphan = true;
                    return true;
                }
                Heard::Message(order) => match order {
                    Order::Stop => return false,
                    Order::Accept => self.child.accept_what_waits(),
                    Order::LastAt(place) => self.child.doors.mark_last(place),
                    Order::Ping(ping) => {
                        self.child.say(Word::Pong { ping, progress_ms: self.stuck_for() });
                        self.child.repeat();
                    }
                    Order::Drain { grace_ms, heir } => {
                        self.leave(Duration::from_millis(u64::from(grace_ms)), heir);
                    }
                },
            }
        }
    }

    fn leave(&mut self, grace: Duration, heir: Heir) {
        self.child.begin_leaving(grace, heir);
        self.child.nudge_leader();
        // A socket that takes no more connections is looked after from here.
        self.awake = true;
        self.quiet = 0;
    }

    /// How long every thread that has work has got nowhere, in milliseconds.
    fn stuck_for(&self) -> u32 {
        if self.child.lead.is_idle() {
            return 0;
        }
        u32::try_from(self.progress.stuck_for().as_millis()).unwrap_or(u32::MAX)
    }

    fn look(&mut self, now: Moment) {
        let child = self.child;
        self.crew.tend(now.tick());
        if self.orphan {
            child.close_in_time(now.tick());
        }
        child.sweep_if_unwatched(now.tick());
        child.settle();
        if self.giving.look(child.open.load(Ordering::Relaxed), now.tick()) {
            if let Some(event) = &child.event
                && let Err(fault) = event.give_back()
            {
                warn!(child.log, "cannot give memory back: {}; it stays with this child", cause(&fault); "module" => "core");
            }
            child.lead.give_back();
            heap::trim();
        }
        if !self.awake {
            return;
        }
        child.lead.set_share(share(child.cores, child.block.children()));
        let moves = child.lead.stand_by(self.moves);
        if moves != self.moves {
            self.quiet = 0;
            self.progress.moved();
        } else if child.lead.is_idle() {
            self.progress.moved();
            self.quiet += self.stretch();
        } else if child.waiting_threads.load(Ordering::Relaxed) > 0 {
            self.progress.moved();
        }
        self.moves = moves;
        let mut at_rest = true;
        if let Some(over) = &child.hand_over {
            // Who waits at two looks has waited for long enough to be better off elsewhere.
            let waits = child.longest_unread();
            let vacancies = if waits.is_some() && self.waited == waits { child.vacancies() } else { 0 };
            self.waited = waits;
            at_rest = waits.is_none() && !over.is_unfinished();
            if over.look(vacancies) {
                child.nudge_leader();
            }
        }
        let busy = child.busy_now();
        if child.hand_over.is_some() && self.balance.look(busy) {
            let mut siblings = child.block.siblings();
            let is_trusting = self.trust.compare(|| child.doors.leaves_gifts());
            if !is_trusting {
                siblings.takers = 0;
            }
            if let Some(over) = &child.hand_over {
                over.set_on_its_own(!is_trusting);
            }
            let advice = self.balance.compare(child.standing(), &siblings);
            child.follow(if child.is_leaving() { Advice::NONE } else { advice }, self.balance.load());
        }
        if busy != self.said && now.micros_since(self.said_at) >= CENSUS {
            self.said = busy;
            self.said_at = now;
            child.say(Word::Census(busy));
        }
        if self.quiet >= QUIET && busy == self.said && at_rest {
            self.awake = false;
            self.balance.rest(busy);
            child.follow(Advice::NONE, self.balance.load());
            child.steward_asleep.store(true, Ordering::SeqCst);
            // Somebody may have begun between the look and the word: they did not ring.
            if child.lead.moves() != self.moves || !child.lead.is_idle() {
                child.steward_asleep.store(false, Ordering::SeqCst);
                self.awake = true;
                self.quiet = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_share_the_cores() {
        for (cores, children, want) in
            [(1, 1, 1), (2, 1, 2), (2, 2, 1), (2, 16, 1), (4, 3, 2), (64, 40, 2), (8, 0, 8), (1, u32::MAX, 1)]
        {
            assert_eq!(share(cores, children), want, "{cores} cores, {children} children");
        }
    }

    #[test]
    fn stewards_of_a_crowd_look_less_often() {
        for (cores, children, want) in
            [(1, 1, 1), (1, 7, 1), (1, 8, 2), (2, 16, 2), (2, 64, 5), (64, 128, 1), (1, 128, 5), (0, 0, 1)]
        {
            assert_eq!(stretch(cores, children), want, "{cores} cores, {children} children");
        }
    }
}
