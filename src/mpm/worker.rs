//! The worker driver: a thread to a connection.
//!
//! The leader accepts one client, gives the lead to a parked follower, and serves its client to the end. When all
//! threads are busy nobody is in the poll, so the kernel wakes a sibling for the next client, and when all
//! children are full it waits in the listeners' backlog.

use super::accept::Came;
use super::blocking::{self, Interrupt};
use super::child::Child;
use super::conn::{Conn, Scratch};
use super::crew::Crew;
use super::lead::{Guard, Turn};
use super::steward;
use super::tokens::{Aged, Source};
use crate::clock::Tick;
use crate::ids::WorkerIndex;
use crate::log::line::cause;
use crate::scoreboard::state::WorkerState;
use crate::sys::process::ChildExit;
use mio::Events;
use slog::error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Serves until the child is told to leave, and its last connection is gone.
pub fn run(child: &'static Child) -> ChildExit {
    for row in 0..child.config.limits.threads_per_child {
        child.block.worker(WorkerIndex(row)).free();
    }
    child.open_doors();
    match Crew::start(child, serve) {
        Some(crew) => steward::run(child, crew),
        None => ChildExit::SICK,
    }
}

/// A thread hears the order to leave once; its connection then learns its new deadline.
struct Leave<'a> {
    child: &'a Child,
    heard: bool,
}

impl Interrupt for Leave<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.heard).then(|| self.child.leave.as_fd())
    }

    fn has_knocked(&self) -> bool {
        !self.heard && self.child.is_leaving()
    }

    fn heard(&mut self) -> bool {
        self.heard = true;
        true
    }
}

fn serve(child: &'static Child, seat: usize) {
    let row = WorkerIndex(u32::try_from(seat).expect("ThreadLimit fits"));
    let mut scratch = Scratch::new();
    let mut events = Events::with_capacity(16);
    let mut leave = Leave { child, heard: false };
    let mut turn = child.lead.next(seat);
    loop {
        match turn {
            Turn::Leave => break,
            Turn::Work(_) => unreachable!("no connection of this driver is ever queued"),
            Turn::Rest => {
                scratch = Scratch::new();
                child.pipes.close_idle();
                turn = child.lead.next_after_rest(seat);
                continue;
            }
            Turn::Lead(guard) => {
                if let Some(mut conn) = lead(child, &guard, row, &mut events, scratch.tid) {
                    child.takes_one();
                    guard.promote();
                    blocking::serve(child, &mut conn, &mut scratch, &mut leave);
                    child.block.worker(row).free();
                    child.finished_one();
                    drop(conn);
                    child.closed();
                } else {
                    // The listeners are closed: nothing more will come, for anybody.
                    drop(guard);
                    child.lead.finish();
                }
            }
        }
        turn = child.lead.next(seat);
    }
    child.block.worker(row).dead();
}

/// Waits for a client. `None` once the child is leaving and its listeners are closed.
fn lead(child: &Child, guard: &Guard<'_>, row: WorkerIndex, events: &mut Events, tid: u32) -> Option<Conn> {
    let waiting = || child.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if child.is_leaving() {
            return leaving(child, row, tid);
        }
        // What this leader does not get to is left for the next. First come, first served: of what came with a wake-up
        // nobody else has been told of the first.
        let place = waiting().pop_front();
        if let Some(place) = place {
            if let Some(conn) = accept(child, place, row, tid) {
                return Some(conn);
            }
            continue;
        }
        let mut poll = child.poll_lock();
        guard.entering_poll();
        let resume = child.doors.resume_at();
        let timeout = (resume != Tick::NEVER).then(|| resume.until(child.read_clock().tick()));
        let polled = poll.poll(events, timeout);
        drop(poll);
        let now = child.read_clock();
        if let Err(fault) = polled
            && fault.kind() != io::ErrorKind::Interrupted
        {
            error!(child.log, "the poll failed: {}", cause(&fault); "module" => "mpm_worker");
        }
        child.wake_steward();
        if child.accept_all.swap(false, Ordering::SeqCst) {
            waiting().extend(0..child.doors.count());
        }
        for seen in events.iter() {
            if let Source::Listener(place) = Source::of(seen.token()) {
                waiting().push_back(place);
            }
        }
        if child.doors.resume_at() <= now.tick() {
            child.open_doors();
        }
    }
}

fn accept(child: &Child, place: u32, row: WorkerIndex, tid: u32) -> Option<Conn> {
    // Not the turn's: this thread may have slept since, and a client's time begins now.
    let now = child.read_clock();
    let _expecting = child.expecting();
    match child.doors.accept(place, child.bunch(), now.tick()) {
        Came::Client(newcomer) => {
            let writer = child.block.worker(row);
            writer.moved_by(tid);
            writer.set_state(WorkerState::Read);
            Some(Conn::new(Aged { index: row.0, age: 0 }, newcomer, Some(row), child, now))
        }
        Came::Nobody | Came::Nonsense => None,
        Came::Shortage(fault, news) => {
            child.say_shortage(&fault, news);
            None
        }
    }
}

/// The child is leaving: what waits at its listeners is taken if nobody else will take it, or what it may have
/// been woken for; then they are closed.
fn leaving(child: &Child, row: WorkerIndex, tid: u32) -> Option<Conn> {
    let is_late = child.close_in_time(child.read_clock().tick());
    let woken_for = std::mem::take(&mut *child.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    for place in woken_for.into_iter().chain(0..child.doors.count()).take_while(|_| !is_late) {
        if let Some(conn) = accept(child, place, row, tid) {
            child.doors.close_shared();
            return Some(conn);
        }
    }
    child.doors.close();
    child.perhaps_over();
    None
}
