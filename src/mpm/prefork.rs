//! The prefork driver: a process to a connection. One thread; the orders socket is in every poll it makes, and what comes
//! there ends its naps.

use super::accept::Came;
use super::blocking::{self, Interrupt};
use super::child::Child;
use super::conn::{Conn, Scratch};
use super::tokens::{Aged, Source};
use crate::clock::{Moment, Tick};
use crate::ids::WorkerIndex;
use crate::log::line::cause;
use crate::orders::{Heard, Heir, Order, Word};
use crate::scoreboard::state::WorkerState;
use crate::sys::process::ChildExit;
use crate::sys::signal::{self, Knock};
use mio::unix::SourceFd;
use mio::{Events, Interest};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use slog::{error, warn};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

const ROW: WorkerIndex = WorkerIndex(0);

/// Without a client for so long, a child keeps no pipes: what a user's pipes may hold together is limited.
const REST: Duration = Duration::from_secs(1);

/// Serves until it is told to leave, and its connection is over.
pub fn run(child: &'static Child) -> ChildExit {
    let mut master = match Master::new(child) {
        Ok(master) => master,
        Err(fault) => {
            error!(child.log, "this child cannot hear its master: {}", cause(&fault); "module" => "mpm_prefork");
            return ChildExit::FATAL;
        }
    };
    let mut poll = child.poll_lock();
    let ear = master.ear.0.as_raw_fd();
    if let Err(fault) =
        child.registry.register(&mut SourceFd(&ear), Source::Nudge.token(), Interest::READABLE)
    {
        error!(child.log, "this child cannot hear its master: {}", cause(&fault); "module" => "mpm_prefork");
        return ChildExit::FATAL;
    }
    child.open_doors();
    let mut scratch = Scratch::new();
    let mut events = Events::with_capacity(16);
    child.block.worker(ROW).free();
    child.block.ready();
    child.say(Word::Ready);
    // First come, first served: of what came with a wake-up nobody else has been told of the first, and of the others
    // somebody has.
    let mut waiting: VecDeque<u32> = VecDeque::new();
    loop {
        if !master.heard() {
            return ChildExit::OK;
        }
        let ordered = std::mem::take(&mut master.accept);
        if ordered {
            waiting.extend(0..child.doors.count());
        }
        let next = if child.is_leaving() {
            match leaving(child, &waiting, &scratch) {
                None => return ChildExit::OK,
                next => next,
            }
        } else {
            waiting.pop_front().and_then(|place| accept(child, place, &scratch))
        };
        if let Some(mut conn) = next {
            if ordered && child.doors.have_clients() {
                // It takes one, and who else waits may wait for whoever has died. When all are busy, nobody is told often.
                child.say_short();
            }
            master.busy(true);
            let stay = blocking::serve(child, &mut conn, &mut scratch, &mut master);
            drop(conn);
            child.closed();
            child.block.worker(ROW).free();
            master.busy(false);
            if !stay {
                return ChildExit::OK;
            }
            continue;
        }
        if !waiting.is_empty() {
            continue;
        }
        let now = child.read_clock();
        child.sweep_all(now.tick());
        let until = child.doors.resume_at().min(child.next_sweep());
        let mut timeout = (until != Tick::NEVER).then(|| until.until(now.tick()));
        let keeps_pipes = child.pipes.has_idle();
        if keeps_pipes {
            timeout = Some(timeout.map_or(REST, |timeout| timeout.min(REST)));
        }
        if let Err(fault) = poll.poll(&mut events, timeout)
            && fault.kind() != io::ErrorKind::Interrupted
        {
            error!(child.log, "the poll failed: {}", cause(&fault); "module" => "mpm_prefork");
        }
        let now = child.read_clock();
        if keeps_pipes && events.is_empty() {
            child.pipes.close_idle();
        }
        waiting.extend(events.iter().filter_map(|seen| match Source::of(seen.token()) {
            Source::Listener(place) => Some(place),
            _ => None,
        }));
        if child.doors.resume_at() <= now.tick() {
            child.open_doors();
        }
    }
}

fn accept(child: &Child, place: u32, scratch: &Scratch) -> Option<Conn> {
    // Not the turn's: this thread may have slept since, and a client's time begins now.
    let now = child.read_clock();
    match child.doors.accept(place, child.bunch(), now.tick()) {
        Came::Client(newcomer) => {
            let writer = child.block.worker(ROW);
            writer.moved_by(scratch.tid);
            writer.set_state(WorkerState::Read);
            Some(Conn::new(Aged { index: 0, age: 0 }, newcomer, Some(ROW), child, now))
        }
        Came::Nobody | Came::Nonsense => None,
        Came::Shortage(fault, news) => {
            child.say_shortage(&fault, news);
            None
        }
    }
}

/// The next client of a child that leaves: what waits at a listener where nobody else will take it, or the one that
/// it may have been woken for (the first of `waiting`).
fn leaving(child: &Child, waiting: &VecDeque<u32>, scratch: &Scratch) -> Option<Conn> {
    let is_late = child.close_in_time(child.read_clock().tick());
    let places = waiting.iter().copied().chain(0..child.doors.count());
    for place in places.take_while(|_| !is_late) {
        if let Some(conn) = accept(child, place, scratch) {
            child.doors.close_shared();
            return Some(conn);
        }
    }
    child.doors.close();
    None
}

/// The master's orders and TERM, heard between clients and while one is served.
struct Master<'a> {
    child: &'a Child,
    /// Readable when either has something to say: one descriptor for every poll.
    ear: Epoll,
    /// The orders have something to say.
    knock: Knock,
    /// TERM; heard once. It does not knock: whoever naps hears it at the next look.
    terminate: Option<OwnedFd>,
    /// The master is gone.
    orphan: bool,
    accept: bool,
    /// What the master believes us to be.
    said_busy: bool,
    /// When it was last told that we are idle.
    said: Moment,
}

/// How often the master is told that this child is idle, at most.
const SAY: u64 = 100_000;

impl<'a> Master<'a> {
    fn new(child: &'a Child) -> io::Result<Self> {
        let terminate = signal::terminate_descriptor()?;
        let ear = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        ear.add(&child.orders, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        ear.add(&terminate, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        Ok(Self {
            child,
            ear,
            knock: Knock::at(child.orders.as_fd())?,
            terminate: Some(terminate),
            orphan: false,
            accept: false,
            said_busy: false,
            said: Moment(0),
        })
    }

    fn busy(&mut self, busy: bool) {
        self.child.block.set_busy(u32::from(busy));
        let now = self.child.now();
        if busy && !self.said_busy {
            self.said_busy = true;
            self.child.say(Word::Full);
        } else if !busy && now.micros_since(self.said) >= SAY {
            // Left unsaid, the master takes us for busy, and looks for itself soon.
            self.said = now;
            self.said_busy = false;
            self.child.say(Word::Census(0));
        }
    }

    fn leave(&self, grace: Duration, heir: Heir) {
        self.child.begin_leaving(grace, heir);
    }
}

impl Interrupt for Master<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (self.terminate.is_some() || !self.orphan).then(|| self.ear.0.as_fd())
    }

    fn has_knocked(&self) -> bool {
        self.knock.is_heard()
    }

    fn heard(&mut self) -> bool {
        self.knock.answer();
        if self.terminate.as_ref().is_some_and(signal::is_pending) {
            // Closed: it would be seen for ever. Our epoll is its only other holder, and forgets it.
            self.terminate = None;
            self.child.say(Word::Draining);
            self.leave(self.child.keep_alive_grace(), Heir::Accepts);
        }
        while !self.orphan {
            match self.child.orders.recv_order() {
                Heard::Nothing => return true,
                Heard::Nonsense => {
                    warn!(self.child.log, "an order that makes no sense, ignored"; "module" => "mpm_prefork");
                }
                Heard::Gone => {
                    if !self.child.is_leaving() {
                        warn!(self.child.log, "the master is gone; this child finishes its request and leaves";
                            "module" => "mpm_prefork");
                    }
                    self.child.begin_leaving_orphaned();
                    if self.child.open.load(Ordering::SeqCst) > 0 {
                        // What waits is for those who are free: this one may be busy for long, and would keep
                        // the addresses from the next master.
                        self.child.doors.close();
                    }
                    self.orphan = true;
                    // It was added, and both are open.
                    let _ = self.ear.delete(&self.child.orders);
                }
                Heard::Message(order) => match order {
                    Order::Stop => return false,
                    Order::Accept => self.accept = true,
                    Order::LastAt(place) => self.child.doors.mark_last(place),
                    Order::Ping(ping) => {
                        self.child.say(Word::Pong { ping, progress_ms: 0 });
                        self.child.repeat();
                    }
                    Order::Drain { grace_ms, heir } => {
                        self.leave(Duration::from_millis(u64::from(grace_ms)), heir);
                    }
                },
            }
        }
        true
    }
}
