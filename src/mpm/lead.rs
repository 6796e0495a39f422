//! Leader and followers: who waits in the poll, who is called up.
//!
//! One serving thread, the leader, waits in the child's poll. When work comes it gives the lead back, which
//! wakes nobody, and does the work itself; whoever runs out of work first takes the lead again. A follower is
//! called up (the last one parked first, its cache is warm) only when several connections are ready and fewer
//! threads run than this child's share of the cores, or by the steward when nobody has begun anything for a
//! while: then whoever has the work is stuck in it.
//!
//! The lead is a guard: a panic or an early return gives it back.

use crate::sys::time;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

/// How long a follower keeps its buffers after it was parked.
const REST: Duration = Duration::from_secs(10);

/// What a thread does next.
pub enum Turn<'a> {
    /// Wait in the poll; the lead is yours until you drop it.
    Lead(Guard<'a>),
    /// Serve this connection.
    Work(u32),
    /// You have been parked for long: give your buffers back, and ask again.
    Rest,
    /// Leave.
    Leave,
}

/// Who leads, who works, who is parked, and what is ready.
pub struct Lead {
    state: Mutex<State>,
    seats: Box<[Seat]>,
    /// The cores there are for this process: more threads than that never run by our doing.
    share: AtomicUsize,
    /// How often somebody entered the poll or took a connection out of the queue; the steward compares.
    moves: AtomicU64,
}

struct State {
    queue: VecDeque<u32>,
    led: bool,
    parked: Vec<usize>,
    running: usize,
    /// A connection has been queued again although it had its turn: before it gets another, the poll is asked.
    stale: bool,
    over: bool,
    /// Followers that were called up for somebody who is stuck, and how often that has happened.
    stand_ins: usize,
    epoch: u64,
    /// In which epoch each thread began its turn.
    begun: Box<[u64]>,
}

/// Where a thread is parked.
#[derive(Default)]
struct Seat {
    thread: OnceLock<Thread>,
    called: AtomicBool,
}

impl Lead {
    /// For `threads` threads on `share` cores; all count as running until they first ask for work.
    #[must_use]
    pub fn new(threads: usize, share: usize) -> Self {
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                led: false,
                parked: Vec::with_capacity(threads),
                running: threads,
                stale: false,
                over: false,
                stand_ins: 0,
                epoch: 0,
                begun: vec![0; threads].into_boxed_slice(),
            }),
            seats: (0..threads).map(|_| Seat::default()).collect(),
            share: AtomicUsize::new(share.max(1)),
            moves: AtomicU64::new(0),
        }
    }

    /// From now on there are so many cores for this process; 0 counts as 1.
    pub fn set_share(&self, cores: usize) {
        self.share.store(cores.max(1), Ordering::Relaxed);
    }

    /// So many of the threads that count as running are not there (they could not be made).
    pub fn leaves(&self, count: usize) {
        let mut state = self.lock();
        state.running = state.running.saturating_sub(count);
    }

    /// One more thread is about to ask for work; it counts as running until it does.
    pub fn joins(&self) {
        self.lock().running += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread has nothing to do: gives it work, the lead, or parks it until it is called.
    /// `seat` is the thread's own number, `0..threads`.
    pub fn next(&self, seat: usize) -> Turn<'_> {
        self.seats[seat].thread.get_or_init(std::thread::current);
        let mut rested = false;
        let mut state = self.lock();
        // Whoever was stuck finds a stand-in at work, and sits down in its place.
        let mut relieved = state.stand_ins > 0 && state.begun[seat] < state.epoch && !state.over;
        if relieved {
            state.stand_ins -= 1;
            // Unless there is work and nobody but this one to do it: a stand-in that leads may sleep in the poll.
            let others = state.running.saturating_sub(1 + usize::from(state.led));
            relieved = others > 0 || (state.led && state.queue.is_empty());
        }
        loop {
            if relieved {
                relieved = false;
                let called;
                (state, called) = self.sit_down(seat, state);
                rested = !called;
                continue;
            }
            state.begun[seat] = state.epoch;
            if state.stale && !state.led {
                state.stale = false;
                state.led = true;
                return Turn::Lead(Guard { lead: self, brief: !state.queue.is_empty() });
            }
            if let Some(index) = state.queue.pop_front() {
                self.moved();
                let caller = if state.queue.is_empty() { None } else { self.call_up(&mut state) };
                drop(state);
                Self::wake(caller);
                return Turn::Work(index);
            }
            if state.over {
                state.running -= 1;
                return Turn::Leave;
            }
            if !state.led {
                state.led = true;
                return Turn::Lead(Guard { lead: self, brief: false });
            }
            if rested {
                return Turn::Rest;
            }
            let called;
            (state, called) = self.sit_down(seat, state);
            rested = !called;
        }
    }

    /// Parks the thread of `seat` until it is called, or for [`REST`]. Either way it counts as running afterwards;
    /// `false` if it was not called.
    fn sit_down<'a>(
        &'a self,
        seat: usize,
        mut state: MutexGuard<'a, State>,
    ) -> (MutexGuard<'a, State>, bool) {
        state.running -= 1;
        state.parked.push(seat);
        drop(state);
        let called = self.park(seat);
        let mut state = self.lock();
        if called {
            return (state, true);
        }
        match state.parked.iter().position(|&other| other == seat) {
            Some(place) => {
                state.parked.remove(place);
                state.running += 1;
                (state, false)
            }
            // Called just now: whoever did so has counted us as running.
            None => {
                self.seats[seat].called.store(false, Ordering::Relaxed);
                (state, true)
            }
        }
    }

    /// Parked for good, after a rest: like [`Lead::next`], but without giving buffers back again.
    pub fn next_after_rest(&self, seat: usize) -> Turn<'_> {
        loop {
            let mut state = self.lock();
            if state.queue.is_empty() && !state.over && state.led {
                state.running -= 1;
                state.parked.push(seat);
                drop(state);
                while !self.seats[seat].called.swap(false, Ordering::AcqRel) {
                    std::thread::park();
                }
                continue;
            }
            // It has only just been called: it is nobody that was stuck.
            state.begun[seat] = state.epoch;
            drop(state);
            return self.next(seat);
        }
    }

    /// Waits until the thread of `seat` is called, or for [`REST`]; whether it was called.
    fn park(&self, seat: usize) -> bool {
        let called = &self.seats[seat].called;
        let begun = time::now();
        while !called.load(Ordering::Acquire) {
            let passed = Duration::from_micros(time::now().micros_since(begun));
            let left = REST.saturating_sub(passed);
            if left.is_zero() {
                break;
            }
            // Returns at once for a call that was seen before its thread had slept: then there is time left.
            std::thread::park_timeout(left);
        }
        called.swap(false, Ordering::AcqRel)
    }

    /// Picks the follower that was parked last, if one more thread may run. The caller wakes it after unlocking.
    fn call_up(&self, state: &mut State) -> Option<&Seat> {
        if state.running >= self.share.load(Ordering::Relaxed) { None } else { self.call_anyone(state) }
    }

    fn call_anyone(&self, state: &mut State) -> Option<&Seat> {
        let seat = &self.seats[state.parked.pop()?];
        state.running += 1;
        seat.called.store(true, Ordering::Release);
        Some(seat)
    }

    fn wake(seat: Option<&Seat>) {
        if let Some(thread) = seat.and_then(|seat| seat.thread.get()) {
            thread.unpark();
        }
    }

    /// Puts one ready connection into the run queue. The caller is a running thread and will ask for work.
    pub fn push(&self, index: u32) {
        self.lock().queue.push_back(index);
    }

    /// Puts a connection that has had its turn at the end of the run queue; others, in the poll perhaps, come
    /// first.
    pub fn push_again(&self, index: u32) {
        let mut state = self.lock();
        state.queue.push_back(index);
        state.stale = true;
    }

    /// Keeps no more room in the run queue than it needs now.
    pub fn give_back(&self) {
        self.lock().queue.shrink_to_fit();
    }

    /// Nothing is to be done: somebody waits in the poll, and nobody in the queue.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.led && state.queue.is_empty()
    }

    /// How often somebody has entered the poll or taken a connection out of the queue.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::SeqCst)
    }

    fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// The steward's look. `last` is what the look before returned: if nobody has entered the poll or begun a turn
    /// since, and nobody is in the poll or somebody waits to be served, whoever runs is stuck, and a follower is
    /// called up in its place. A long queue that gets shorter is no reason: a second thread would only take turns
    /// with the first.
    pub fn stand_by(&self, last: u64) -> u64 {
        let moves = self.moves.load(Ordering::Relaxed);
        if moves == last {
            let mut state = self.lock();
            // A leader in the poll serves nobody who is in the queue already.
            let idle = state.led && state.queue.is_empty();
            let seat = if idle { None } else { self.call_anyone(&mut state) };
            if seat.is_some() {
                state.stand_ins += 1;
                state.epoch += 1;
                // The stand-in's own turn begins after this.
            }
            drop(state);
            Self::wake(seat);
        }
        moves
    }

    /// Nothing is left to do: every thread that asks is told to leave. Wakes all parked ones; the caller wakes a
    /// leader out of its poll.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.over = true;
        while let Some(seat) = self.call_anyone(&mut state) {
            Self::wake(Some(seat));
        }
    }
}

/// The lead: whoever holds it is the one thread in the poll.
pub struct Guard<'a> {
    lead: &'a Lead,
    brief: bool,
}

impl Guard<'_> {
    /// Connections wait for their turn: the poll is only asked, not waited in.
    #[must_use]
    pub fn is_brief(&self) -> bool {
        self.brief
    }

    /// The leader is about to wait.
    pub fn entering_poll(&self) {
        self.lead.moved();
    }

    /// Gives the lead back with what the poll brought; calls up a follower only if more than one connection is
    /// ready and a core is free for it.
    pub fn pass(self, ready: &mut Vec<u32>) {
        let mut state = self.lead.lock();
        state.led = false;
        state.queue.extend(ready.drain(..));
        let seat = if state.queue.len() > 1 { self.lead.call_up(&mut state) } else { None };
        drop(state);
        Lead::wake(seat);
        std::mem::forget(self);
    }

    /// Gives the lead to a parked follower, since this thread will be busy for long (the worker driver).
    pub fn promote(self) {
        let mut state = self.lead.lock();
        state.led = false;
        let seat = self.lead.call_anyone(&mut state);
        drop(state);
        Lead::wake(seat);
        std::mem::forget(self);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut state = self.lead.lock();
        state.led = false;
        // Only a panic comes here: the thread may be gone for good, so that somebody else must lead.
        let seat = self.lead.call_anyone(&mut state);
        drop(state);
        Lead::wake(seat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn lead_of<'a>(lead: &'a Lead, seat: usize) -> Guard<'a> {
        match lead.next(seat) {
            Turn::Lead(guard) => guard,
            _ => panic!("seat {seat} should lead"),
        }
    }

    fn until_parked(lead: &Lead) {
        while lead.lock().parked.is_empty() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_leader_does_the_work_itself_and_wakes_nobody() {
        let lead = Lead::new(1, 4);
        lead_of(&lead, 0).pass(&mut vec![7]);
        assert!(matches!(lead.next(0), Turn::Work(7)));
        let guard = lead_of(&lead, 0);
        assert!(lead.is_idle());
        guard.pass(&mut vec![]);
        assert!(!lead.is_idle());
    }

    #[test]
    fn a_follower_is_called_up_only_when_a_core_is_free_for_it() {
        for (cores, want) in [(1, 0), (2, 1)] {
            let lead = Lead::new(2, cores);
            let (said, heard) = mpsc::channel();
            std::thread::scope(|scope| {
                let guard = lead_of(&lead, 0);
                let lead = &lead;
                scope.spawn(move || {
                    loop {
                        match lead.next(1) {
                            Turn::Work(index) => said.send(index).expect("heard"),
                            Turn::Lead(guard) => guard.pass(&mut vec![]),
                            Turn::Rest => {}
                            Turn::Leave => break,
                        }
                    }
                });
                until_parked(lead);
                guard.pass(&mut vec![1, 2]);
                if want == 1 {
                    heard.recv().expect("the follower got one of the two");
                } else {
                    assert!(matches!(lead.next(0), Turn::Work(1)));
                    assert!(matches!(lead.next(0), Turn::Work(2)));
                    assert!(heard.try_recv().is_err(), "nobody was called");
                }
                lead.finish();
            });
        }
    }

    #[test]
    fn a_panic_gives_the_lead_back() {
        let lead = Lead::new(1, 1);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = lead_of(&lead, 0);
            panic!("in the poll");
        }));
        assert!(outcome.is_err());
        lead_of(&lead, 0).pass(&mut vec![]);
    }

    #[test]
    fn whoever_was_stuck_sits_down_when_a_stand_in_is_at_work() {
        let lead = Lead::new(2, 1);
        let (said, heard) = mpsc::channel();
        std::thread::scope(|scope| {
            let guard = lead_of(&lead, 0);
            let lead = &lead;
            scope.spawn(move || {
                // The stand-in: gets the lead, holds it, and only then lets the test go on.
                let Turn::Lead(guard) = lead.next(1) else { panic!("it should lead") };
                said.send(()).expect("heard");
                until_parked(lead);
                assert_eq!(lead.lock().running, 1, "one core, one runner");
                guard.pass(&mut vec![5]);
                assert!(matches!(lead.next(1), Turn::Work(5)), "nobody else took it");
                lead.finish();
            });
            until_parked(lead);
            guard.pass(&mut vec![]);
            lead.stand_by(0);
            heard.recv().expect("the stand-in leads");
            assert!(matches!(lead.next(0), Turn::Leave), "it slept until the end");
        });
    }

    #[test]
    fn a_stand_in_that_had_rested_does_not_take_itself_for_the_one_that_is_stuck() {
        let lead = Lead::new(2, 1);
        let (said, heard) = mpsc::channel();
        std::thread::scope(|scope| {
            let guard = lead_of(&lead, 0);
            let lead = &lead;
            scope.spawn(move || {
                lead.seats[1].thread.get_or_init(std::thread::current);
                said.send(matches!(lead.next_after_rest(1), Turn::Lead(_))).expect("heard");
            });
            until_parked(lead);
            guard.pass(&mut vec![]);
            lead.stand_by(lead.moves());
            let leads = heard.recv_timeout(Duration::from_secs(10));
            lead.finish();
            assert_eq!(leads, Ok(true), "nobody else is there to lead");
        });
    }

    #[test]
    fn whoever_was_stuck_goes_on_while_there_is_work_and_its_stand_in_sleeps_in_the_poll() {
        let lead = Lead::new(2, 1);
        let (said, heard) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let guard = lead_of(&lead, 0);
            let lead = &lead;
            scope.spawn(move || {
                let Turn::Lead(guard) = lead.next(1) else { panic!("it should lead") };
                said.send(()).expect("heard");
                gone.recv().expect("told");
                guard.pass(&mut vec![]);
            });
            until_parked(lead);
            guard.pass(&mut vec![]);
            lead.stand_by(lead.moves());
            heard.recv().expect("the stand-in leads");
            lead.push(7);
            assert!(matches!(lead.next(0), Turn::Work(7)));
            go.send(()).expect("it listens");
        });
    }

    #[test]
    fn a_call_that_was_seen_before_its_thread_slept_ends_no_later_sleep() {
        let lead = Lead::new(2, 1);
        let (said, heard) = mpsc::channel();
        std::thread::scope(|scope| {
            let _guard = lead_of(&lead, 0);
            let lead = &lead;
            scope.spawn(move || {
                std::thread::current().unpark();
                said.send(matches!(lead.next(1), Turn::Leave)).expect("heard");
            });
            let early = heard.recv_timeout(Duration::from_millis(50));
            lead.finish();
            assert!(early.is_err(), "it did not sleep");
            assert_eq!(heard.recv(), Ok(true));
        });
    }

    #[test]
    fn the_steward_calls_a_follower_when_the_only_runner_is_stuck() {
        let lead = Lead::new(2, 1);
        let (said, heard) = mpsc::channel();
        std::thread::scope(|scope| {
            let guard = lead_of(&lead, 0);
            guard.entering_poll();
            let lead = &lead;
            scope.spawn(move || {
                loop {
                    match lead.next(1) {
                        Turn::Lead(guard) => {
                            guard.entering_poll();
                            said.send(()).expect("heard");
                            guard.pass(&mut vec![]);
                            break;
                        }
                        Turn::Rest => {}
                        _ => panic!("no work here"),
                    }
                }
            });
            until_parked(lead);
            let last = lead.stand_by(0);
            assert_eq!(lead.stand_by(last), last, "somebody leads: nobody is called");
            assert!(heard.try_recv().is_err());
            guard.pass(&mut vec![]);
            lead.stand_by(last);
            heard.recv().expect("the follower leads");
        });
    }
}
