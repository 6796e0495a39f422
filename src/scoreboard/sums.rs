//! What has been counted: from a child's block into the totals, and from one board to the next.

use crate::scoreboard::board::Board;
use crate::scoreboard::histogram::BUCKETS;
use crate::scoreboard::layout::{BackendCounters, WorkerRow};
use crate::scoreboard::snapshot::MAX_COUNT;
use crate::scoreboard::words::write_under;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// All that a board has counted at one moment, in an order of its own; see [`Board::sums`].
#[derive(Clone, Debug, Default)]
pub struct Sums(Vec<u64>);

/// Counters of a backend beside its histogram.
const BACKEND_COUNTERS: usize = 7;

impl Board {
    /// Everything that has been counted here, by children that are gone and those that live.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let mut sums = Sums(self.all_totals().map(|total| total.load(Relaxed)).collect());
        for slot in self.slots.iter().filter(|slot| slot.lent.is_some()) {
            let rows = || slot.workers.iter();
            let of = |field: fn(&WorkerRow) -> &AtomicU64| {
                rows().map(|row| clamped(field(row))).fold(0, u64::saturating_add)
            };
            let scalars = [
                of(|row| &row.requests),
                of(|row| &row.bytes_in),
                of(|row| &row.bytes_out),
                of(|row| &row.duration),
                clamped(&slot.process.connections.accepted),
                clamped(&slot.process.panics),
                0,
                0,
                0,
                clamped(&slot.process.connections.handed_over),
                clamped(&slot.process.connections.taken_over),
            ];
            let backends = slot.backends.iter().flat_map(counted_by_backend).map(clamped);
            let live = scalars.into_iter().chain(slot.latency.counts.iter().map(clamped)).chain(backends);
            for (sum, live) in sums.0.iter_mut().zip(live) {
                *sum = sum.saturating_add(live);
            }
        }
        sums
    }

    /// Adds what another board of at most as many backends has counted, as far as that goes beyond `credited`. What
    /// it has counted is asked for once readers wait.
    pub fn credit(&self, sums: impl FnOnce() -> Sums, credited: Option<&Sums>) -> Sums {
        let mut counted = Sums::default();
        write_under(&self.totals.sequence, || {
            counted = sums();
            let sums = &counted;
            let before = credited.map_or(&[][..], |credited| &credited.0).iter().chain(std::iter::repeat(&0));
            let news = sums.0.iter().zip(before).map(|(now, before)| now.saturating_sub(*before));
            // The last row is for backends that have none of their own, however many rows there are.
            let totals: Vec<&AtomicU64> = self.all_totals().collect();
            let last_row = sums.0.len() - BACKEND_COUNTERS - BUCKETS;
            let further = totals.len() - sums.0.len();
            for (index, news) in news.enumerate() {
                let place = if index < last_row { index } else { index + further };
                add(totals[place], news);
            }
        });
        counted
    }

    fn all_totals(&self) -> impl Iterator<Item = &AtomicU64> {
        let totals = self.totals;
        let scalars = [
            &totals.requests,
            &totals.bytes_in,
            &totals.bytes_out,
            &totals.duration,
            &totals.accepted,
            &totals.panics,
            &totals.children_started,
            &totals.children_ended,
            &totals.children_failed,
            &totals.handed_over,
            &totals.taken_over,
        ];
        let backends = self.backend_totals.iter().flat_map(counted_by_backend);
        scalars.into_iter().chain(&totals.latency.counts).chain(backends)
    }
}

/// The counters of a backend in the order of the layout.
pub(super) fn backend_counters(counters: &BackendCounters) -> [&AtomicU64; BACKEND_COUNTERS] {
    [
        &counters.requests,
        &counters.failures,
        &counters.connects,
        &counters.reused,
        &counters.bytes_out,
        &counters.bytes_in,
        &counters.duration,
    ]
}

pub(super) fn counted_by_backend(counters: &BackendCounters) -> impl Iterator<Item = &AtomicU64> {
    backend_counters(counters).into_iter().chain(&counters.latency.counts)
}

/// A child's count. It may be anything; sums stay where readers believe them.
pub(super) fn clamped(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed).min(MAX_COUNT)
}

pub(super) fn drain_backend(from: &BackendCounters, to: &BackendCounters) {
    for (from, to) in backend_counters(from).into_iter().zip(backend_counters(to)) {
        drain(from, to);
    }
    drain_all(&from.latency.counts, &to.latency.counts);
}

pub(super) fn drain_all(from: &[AtomicU64], to: &[AtomicU64]) {
    for (from, to) in from.iter().zip(to) {
        drain(from, to);
    }
}

/// Moves a child's count to the totals. It may be anything; the sum stays where readers believe it.
pub(super) fn drain(from: &AtomicU64, to: &AtomicU64) {
    let count = from.load(Relaxed);
    if count != 0 {
        from.store(0, Relaxed);
        add(to, count.min(MAX_COUNT));
    }
}

/// Adds to a counter of the master's.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).saturating_add(by), Relaxed);
}
