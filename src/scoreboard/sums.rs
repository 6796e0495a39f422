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

/// Counters of a backend with its histogram.
const OF_BACKEND: usize = BACKEND_COUNTERS + BUCKETS;

/// Counters that concern no backend in particular: they come first.
const COMMON: usize = SCALARS + BUCKETS;

/// Those of them that are no histogram's.
const SCALARS: usize = 11;

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
            let scalars: [u64; SCALARS] = [
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

    /// Adds what another board has counted, as far as that goes beyond `credited`: to the same url where it has a row
    /// here, else to the row of all others. `meanwhile` is done once readers wait, before the other's counts are read.
    pub fn credit(&self, from: &Self, credited: Option<&Sums>, meanwhile: impl FnOnce()) -> Sums {
        let mut counted = Sums::default();
        write_under(&self.totals.sequence, || {
            meanwhile();
            counted = from.sums();
            let before = credited.map_or(&[][..], |credited| &credited.0).iter().chain(std::iter::repeat(&0));
            let mut news = counted.0.iter().zip(before).map(|(now, before)| now.saturating_sub(*before));
            let totals: Vec<&AtomicU64> = self.all_totals().collect();
            let (common, by_backend) = totals.split_at(COMMON);
            for (total, news) in common.iter().zip(news.by_ref()) {
                add(total, news);
            }
            for row in 0..from.backend_totals.len() {
                let place = self.row_like(from, row) * OF_BACKEND;
                for (total, news) in by_backend[place..place + OF_BACKEND].iter().zip(news.by_ref()) {
                    add(total, news);
                }
            }
        });
        counted
    }

    /// Where the backend is counted here that has this row of another board.
    fn row_like(&self, other: &Self, row: usize) -> usize {
        let others = self.backend_totals.len() - 1;
        let Some(url) = other.urls.get(row) else { return others };
        let same = self.urls.get(row).filter(|known| *known == url).map(|_| row);
        same.or_else(|| self.urls.iter().position(|known| known == url)).unwrap_or(others).min(others)
    }

    fn all_totals(&self) -> impl Iterator<Item = &AtomicU64> {
        let totals = self.totals;
        let scalars: [&AtomicU64; SCALARS] = [
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
