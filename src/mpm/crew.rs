//! A child's serving threads: made at the start, and those that could not be made then, later.
//!
//! A machine that has no more threads to give (RLIMIT_NPROC, a cgroup's pids.max, no room for stacks) gets fewer
//! of them, not a dead child: it serves with what it has and goes on trying, ever more rarely. Only a child
//! without a single thread leaves; its master has others, or tries again later.

use super::child::Child;
use crate::clock::Tick;
use crate::ids::WorkerIndex;
use crate::log::line::{cause, notice};
use crate::sys::time;
use slog::{debug, error, warn};
use std::io;
use std::time::Duration;

/// The first and the longest pause before the missing threads are asked for again.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What a serving thread runs: its child, and its own number.
pub type Serve = fn(&'static Child, usize);

/// The serving threads of a child.
pub struct Crew {
    child: &'static Child,
    serve: Serve,
    /// Seats without a thread, highest first.
    missing: Vec<usize>,
    pause: Duration,
    again: Tick,
}

impl Crew {
    /// Starts `ThreadsPerChild` threads, or as many as the machine has. `None`, and a line that says why, if that
    /// is not a single one.
    pub fn start(child: &'static Child, serve: Serve) -> Option<Self> {
        let wanted = child.config.limits.threads_per_child as usize;
        let missing: Vec<usize> = (0..wanted).rev().collect();
        let mut crew = Self { child, serve, missing, pause: PAUSE.0, again: Tick::NEVER };
        let Err(fault) = crew.fill() else { return Some(crew) };
        let count = wanted - crew.missing.len();
        if count == 0 {
            let why = cause(&fault);
            if child.shortage_told {
                debug!(child.log, "not one of {wanted} threads could be made: {why}"; "module" => "core");
            } else {
                error!(child.log, "not one of {wanted} threads could be made: {why}; this child leaves";
                    "module" => "core");
            }
            return None;
        }
        warn!(child.log, "only {count} of {wanted} threads could be made: {}; this child serves with them and \
            tries on", cause(&fault); "module" => "core");
        for &seat in &crew.missing {
            child.absent(seat);
        }
        crew.again = time::now().tick().after(crew.pause);
        Some(crew)
    }

    /// When the missing threads are to be asked for again; [`Tick::NEVER`] if none is missing.
    #[must_use]
    pub fn due(&self) -> Tick {
        self.again
    }

    /// Asks for the missing threads again, if it is time.
    pub fn tend(&mut self, now: Tick) {
        if now < self.again {
            return;
        }
        if self.child.is_leaving() {
            self.again = Tick::NEVER;
            return;
        }
        let before = self.missing.len();
        match self.fill_again() {
            Ok(()) => {
                let count = self.child.config.limits.threads_per_child;
                notice!(self.child.log, "all {count} threads are there now"; "module" => "core");
                self.again = Tick::NEVER;
            }
            Err(_) => {
                // Some progress: the rest may come soon.
                let some = self.missing.len() < before;
                self.pause = if some { PAUSE.0 } else { (self.pause * 2).min(PAUSE.1) };
                self.again = now.after(self.pause);
            }
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        while let Some(&seat) = self.missing.last() {
            self.spawn(seat)?;
            self.missing.pop();
        }
        Ok(())
    }

    /// As [`Crew::fill`], for seats that have been declared absent.
    fn fill_again(&mut self) -> io::Result<()> {
        while let Some(&seat) = self.missing.last() {
            // Before it runs: from its first step on it counts itself.
            self.child.present(seat);
            if let Err(fault) = self.spawn(seat) {
                self.child.absent(seat);
                return Err(fault);
            }
            self.missing.pop();
        }
        Ok(())
    }

    fn spawn(&self, seat: usize) -> io::Result<()> {
        let mut builder = std::thread::Builder::new().name(format!("worker {seat}"));
        if let Some(size) = self.child.config.limits.thread_stack_size {
            builder = builder.stack_size(size);
        }
        let (child, serve) = (self.child, self.serve);
        builder.spawn(move || serve(child, seat)).map(drop)
    }
}

impl Child {
    /// There is no thread for this seat: it is not running, and under worker its row serves nobody.
    fn absent(&self, seat: usize) {
        self.lead.leaves(1);
        if self.rows_are_held_by_connections() {
            self.block.worker(row(seat)).dead();
            self.takes_one();
        }
    }

    /// There will be, in a moment.
    fn present(&self, seat: usize) {
        self.lead.joins();
        if self.rows_are_held_by_connections() {
            self.block.worker(row(seat)).free();
            self.finished_one();
        }
    }
}

fn row(seat: usize) -> WorkerIndex {
    WorkerIndex(u32::try_from(seat).expect("ThreadLimit fits"))
}
