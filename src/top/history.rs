//! What has happened between one look at the scoreboard and the next.
//!
//! Pure: counts and moments come in. Counters never go backwards while a server lives, but a damaged file may
//! say anything, so every difference is clamped at 0; and nothing is compared with another server's counts.

use crate::clock::Moment;
use crate::scoreboard::histogram::Histogram;
use crate::scoreboard::snapshot::{Backend, Snapshot, Totals};
use std::collections::VecDeque;

/// How many intervals are remembered: more than any terminal has columns.
const KEPT: usize = 512;

/// Who a board belongs to: a master and the moment it started.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Owner {
    boot_id: String,
    started: Moment,
    master_pid: u32,
}

/// What was counted at one moment.
#[derive(Clone, Debug)]
struct Mark {
    owner: Owner,
    at: Moment,
    totals: Totals,
    backends: Vec<Backend>,
}

/// What happened between two looks.
#[derive(Clone, Debug)]
pub struct Interval {
    /// How long it was, in microseconds; never 0.
    pub micros: u64,
    /// Requests finished.
    pub requests: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Latencies of the requests finished.
    pub latency: Histogram,
    /// The backends of the later look, in its order.
    pub backends: Vec<BackendInterval>,
}

/// What happened at one backend between two looks.
#[derive(Clone, Debug)]
pub struct BackendInterval {
    /// Its row of the table.
    pub row: u32,
    /// Requests sent to it.
    pub requests: u64,
    /// Of these, without a response.
    pub failures: u64,
    /// Times to the first byte of its responses.
    pub latency: Histogram,
}

/// What is left of an interval that is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Requests per second.
    pub requests: f64,
    /// Median latency in microseconds; `None` if no request was finished.
    pub p50: Option<u64>,
    /// The latency that one in a hundred exceeds.
    pub p99: Option<u64>,
}

/// The last interval in full, and the ones before in short.
#[derive(Debug, Default)]
pub struct History {
    mark: Option<Mark>,
    interval: Option<Interval>,
    samples: VecDeque<Sample>,
}

impl History {
    /// Takes in a further look, made at `now`.
    ///
    /// Of sums that are not of one moment nothing is taken; the next look bridges them.
    pub fn add(&mut self, snapshot: &Snapshot, now: Moment) {
        if !snapshot.settled {
            return;
        }
        let mark = Mark::of(snapshot, now);
        match &self.mark {
            Some(before) if before.owner == mark.owner => {
                // Two looks within one microsecond are one.
                let Some(interval) = Interval::between(before, &mark) else { return };
                self.samples.push_back(interval.sample());
                if self.samples.len() > KEPT {
                    self.samples.pop_front();
                }
                self.interval = Some(interval);
            }
            Some(_) => *self = Self::default(),
            None => self.interval = None,
        }
        self.mark = Some(mark);
    }

    /// Forgets how long ago the last look was: time has passed unseen, and a rate over it would say nothing of now.
    pub fn interrupt(&mut self) {
        self.mark = None;
    }

    /// The last interval; `None` before the second look at a server.
    #[must_use]
    pub fn interval(&self) -> Option<&Interval> {
        self.interval.as_ref()
    }

    /// The last intervals in short, at most `count`, oldest first.
    pub fn samples(&self, count: usize) -> impl Iterator<Item = &Sample> {
        self.samples.iter().skip(self.samples.len().saturating_sub(count))
    }
}

impl Mark {
    fn of(snapshot: &Snapshot, at: Moment) -> Self {
        let server = &snapshot.server;
        Self {
            owner: Owner {
                boot_id: server.boot_id.clone(),
                started: server.started,
                master_pid: server.master_pid,
            },
            at,
            totals: snapshot.totals.clone(),
            backends: snapshot.backends.clone(),
        }
    }
}

impl Interval {
    fn between(before: &Mark, after: &Mark) -> Option<Self> {
        let micros = after.at.micros_since(before.at);
        if micros == 0 {
            return None;
        }
        let grown = |count: fn(&Totals) -> u64| count(&after.totals).saturating_sub(count(&before.totals));
        Some(Self {
            micros,
            requests: grown(|totals| totals.requests),
            bytes_in: grown(|totals| totals.bytes_in),
            bytes_out: grown(|totals| totals.bytes_out),
            latency: more(&after.totals.latency, Some(&before.totals.latency)),
            backends: after
                .backends
                .iter()
                .map(|backend| {
                    // A row that has been given to somebody else begins anew.
                    let same = |old: &&Backend| old.row == backend.row && old.url == backend.url;
                    BackendInterval::between(before.backends.iter().find(same), backend)
                })
                .collect(),
        })
    }

    /// So many in this interval, per second.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 * 1e6 / self.micros as f64
    }

    fn sample(&self) -> Sample {
        Sample {
            requests: self.per_second(self.requests),
            p50: self.latency.quantile(500),
            p99: self.latency.quantile(990),
        }
    }
}

impl BackendInterval {
    fn between(before: Option<&Backend>, after: &Backend) -> Self {
        let grown = |count: fn(&Backend) -> u64| count(after).saturating_sub(before.map_or(0, count));
        Self {
            row: after.row,
            requests: grown(|backend| backend.requests),
            failures: grown(|backend| backend.failures),
            latency: more(&after.latency, before.map(|backend| &backend.latency)),
        }
    }
}

/// What `after` has more than `before`, bucket by bucket.
fn more(after: &Histogram, before: Option<&Histogram>) -> Histogram {
    let mut more = Histogram::default();
    for (bucket, count) in after.counts().iter().enumerate() {
        let old = before.and_then(|before| before.counts().get(bucket)).copied().unwrap_or(0);
        more.add(bucket, count.saturating_sub(old));
    }
    more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::histogram::bucket;
    use crate::scoreboard::tests::lived_in;

    fn look() -> Snapshot {
        lived_in().reader().snapshot().expect("a snapshot")
    }

    fn grow(snapshot: &mut Snapshot, requests: u64, micros: u64) {
        snapshot.totals.requests += requests;
        snapshot.totals.bytes_out += requests * 1000;
        snapshot.totals.latency.add(bucket(micros), requests);
        let backend = &mut snapshot.backends[0];
        backend.requests += requests;
        backend.failures += 1;
        backend.latency.add(bucket(micros), requests);
    }

    #[test]
    fn rates_and_latencies_are_those_of_the_last_interval() {
        let (mut history, mut snapshot) = (History::default(), look());
        grow(&mut snapshot, 1_000_000, 50);
        history.add(&snapshot, Moment(1_000_000));
        assert!(history.interval().is_none() && history.samples(9).next().is_none());
        grow(&mut snapshot, 30, 20_000);
        history.add(&snapshot, Moment(3_000_000));
        let interval = history.interval().expect("two looks make an interval");
        assert_eq!((interval.requests, interval.per_second(interval.requests)), (30, 15.0));
        assert_eq!(interval.per_second(interval.bytes_out), 15_000.0);
        assert!(interval.latency.quantile(500).is_some_and(|micros| micros >= 20_000));
        let backend = &interval.backends[0];
        assert_eq!((backend.requests, backend.failures, backend.latency.total()), (30, 1, 30));
        assert_eq!(interval.backends[1].requests, 0);
        // Nothing at all in the next.
        history.add(&snapshot, Moment(4_000_000));
        let samples: Vec<Sample> = history.samples(9).copied().collect();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[1], Sample { requests: 0.0, p50: None, p99: None });
        assert_eq!(history.samples(1).count(), 1);
    }

    #[test]
    fn what_goes_backwards_is_nothing_and_another_master_begins_anew() {
        let (mut history, mut snapshot) = (History::default(), look());
        grow(&mut snapshot, 10, 100);
        history.add(&snapshot, Moment(1));
        history.add(&look(), Moment(2));
        let interval = history.interval().expect("the same master");
        assert_eq!((interval.requests, interval.latency.total(), interval.backends[0].requests), (0, 0, 0));
        snapshot.server.master_pid += 1;
        grow(&mut snapshot, 10, 100);
        history.add(&snapshot, Moment(3));
        assert!(history.interval().is_none() && history.samples(9).next().is_none());
    }

    #[test]
    fn sums_in_motion_and_looks_without_time_between_are_passed_over() {
        let (mut history, mut snapshot) = (History::default(), look());
        history.add(&snapshot, Moment(1_000_000));
        grow(&mut snapshot, 10, 100);
        snapshot.settled = false;
        history.add(&snapshot, Moment(2_000_000));
        assert!(history.interval().is_none());
        snapshot.settled = true;
        history.add(&snapshot, Moment(3_000_000));
        history.add(&snapshot, Moment(3_000_000));
        let interval = history.interval().expect("two settled looks");
        assert_eq!((interval.micros, interval.requests), (2_000_000, 10));
        history.interrupt();
        history.add(&snapshot, Moment(90_000_000));
        assert_eq!(history.samples(9).count(), 1, "no rate over time unseen");
        assert!(history.interval().is_none());
    }

    #[test]
    fn a_row_that_was_given_to_another_backend_begins_at_nothing() {
        let (mut history, mut snapshot) = (History::default(), look());
        history.add(&snapshot, Moment(1));
        snapshot.backends[0].url = "http://other/".into();
        grow(&mut snapshot, 1, 100);
        history.add(&snapshot, Moment(2));
        let backend = &history.interval().expect("two looks").backends[0];
        assert_eq!(backend.requests, snapshot.backends[0].requests);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut history, snapshot) = (History::default(), look());
        for moment in 0..2 * KEPT as u64 {
            history.add(&snapshot, Moment(moment));
        }
        assert_eq!(history.samples(usize::MAX).count(), KEPT);
    }
}
