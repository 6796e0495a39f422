//! One slot as the master has it: the block of the child that lives there.

use super::board::{many, one};
use super::sums::backend_counters;
use crate::clock::Moment;
use crate::scoreboard::layout::{BackendCounters, BlockPlaces, LatencyCounts, ProcessRow, Shape, WorkerRow};
use crate::scoreboard::state::Stage;
use crate::scoreboard::words::clear;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// The master's private knowledge of one slot.
pub(super) struct Slot {
    pub(super) process: &'static ProcessRow,
    pub(super) workers: &'static [WorkerRow],
    pub(super) latency: &'static LatencyCounts,
    pub(super) backends: &'static [BackendCounters],
    /// The block's place in the mapping and the file.
    pub(super) range: Range<usize>,
    /// Whether the file system has set room aside for the block.
    pub(super) reserved: bool,
    /// Threads of the child that has it.
    pub(super) lent: Option<u32>,
}

impl Slot {
    pub(super) fn cut(block: &'static mut [u8], start: usize, shape: &Shape) -> Self {
        let places = BlockPlaces::of(shape.thread_limit, shape.backend_rows);
        let range = start..start + block.len();
        let (process, rest) = block.split_at_mut(places.workers as usize);
        let (workers, rest) = rest.split_at_mut((places.latency - places.workers) as usize);
        let (latency, rest) = rest.split_at_mut((places.backends - places.latency) as usize);
        let (backends, _) = rest.split_at_mut((places.end - places.backends) as usize);
        Self {
            process: one(process),
            workers: many(workers),
            latency: one(latency),
            backends: many(backends),
            range,
            reserved: false,
            lent: None,
        }
    }

    /// Makes the block as if nobody had ever had it.
    pub(super) fn wipe(&self) {
        let process = self.process;
        for field in [&process.pid, &process.generation, &process.threads, &process.flags, &process.stage] {
            field.store(0, Relaxed);
        }
        clear([&process.mpm, &process.started, &process.ended, &process.panics]);
        clear(&process.reserved);
        self.clear_gauges();
        for row in self.workers {
            row.state.store(0, Relaxed);
            row.reserved.iter().for_each(|byte| byte.store(0, Relaxed));
            for field in [&row.tid, &row.sequence, &row.backend] {
                field.store(0, Relaxed);
            }
            clear([&row.requests, &row.bytes_in, &row.bytes_out, &row.duration, &row.ended, &row.last]);
            clear([&row.started, &row.lengths, &row.client_family, &row.protocol]);
            clear(row.client_address.iter().chain(&row.host).chain(&row.line));
        }
        clear(&self.latency.counts);
        for backend in self.backends {
            for counter in backend_counters(backend) {
                clear([counter]);
            }
            clear(&backend.latency.counts);
        }
    }

    /// What remains of a child that has ended: no pid, no gauge, dead rows with their last strings.
    pub(super) fn rest(&self, now: Moment) {
        self.process.pid.store(0, Relaxed);
        self.process.stage.store(Stage::Free as u32, Relaxed);
        self.process.ended.store(now.0, Relaxed);
        self.clear_gauges();
        for row in self.workers {
            row.state.store(0, Relaxed);
        }
    }

    fn clear_gauges(&self) {
        let process = self.process;
        let counts = &process.connections;
        for gauge in [
            &process.busy,
            &process.load,
            &process.takes,
            &counts.total,
            &counts.keep_alive,
            &counts.wait_io,
            &counts.writing,
            &counts.closing,
            &counts.tunnels,
        ] {
            gauge.store(0, Relaxed);
        }
        clear([&counts.accepted, &counts.handed_over, &counts.taken_over]);
        for backend in self.backends {
            backend.busy.store(0, Relaxed);
        }
    }
}
