//! Sums over the rows of a snapshot, and what follows from them and the time.

use crate::clock::Moment;
use crate::scoreboard::snapshot::{Child, Connections, Life, Snapshot, Worker};
use crate::scoreboard::state::{Stage, WorkerState};
use crate::status::Now;

/// What a snapshot adds up to.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The moment that the snapshot is about: now, or the last sign of life of a server that is gone.
    pub as_of: Moment,
    /// Microseconds since the master started, at that moment.
    pub uptime: u64,
    /// Children there are.
    pub processes: u32,
    /// Of these, how many finish what they have and go.
    pub leaving: u32,
    /// Of these, how many do not serve yet.
    pub starting: u32,
    /// Workers held, in children that are not leaving.
    pub busy: u32,
    /// Workers held, in children that are leaving.
    pub graceful: u32,
    /// Workers that wait for work, in children of the current generation that are not leaving.
    pub idle: u32,
    /// Rows per state, in the order of [`WorkerState::ALL`], over children there are.
    pub letters: [u32; WorkerState::ALL.len()],
    /// One entry per generation that has a child, oldest first.
    pub generations: Vec<GenerationTally>,
    /// Connections of all children there are.
    pub connections: Connections,
    /// Means since the start; `None` before the first second or the first request.
    pub rates: Rates,
}

/// One generation's children.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GenerationTally {
    /// Which.
    pub generation: u32,
    /// Its children.
    pub children: u32,
    /// Of these, leaving.
    pub leaving: u32,
    /// Workers held.
    pub busy: u32,
    /// Workers that wait for work.
    pub idle: u32,
}

/// Means since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Requests per second.
    pub requests: Option<f64>,
    /// Bytes sent per second.
    pub bytes: Option<f64>,
    /// Bytes sent per request.
    pub bytes_per_request: Option<f64>,
    /// Milliseconds per request.
    pub millis_per_request: Option<f64>,
}

impl Tally {
    /// Adds up.
    #[must_use]
    pub fn of(snapshot: &Snapshot, now: &Now) -> Self {
        let as_of = match snapshot.life {
            Life::Running | Life::Unknown => now.moment,
            // Another boot's moments are on another clock: only what the file itself tells can be compared.
            Life::Stopped | Life::Dead | Life::BeforeReboot => snapshot.last_sign(),
        };
        let mut tally = Self {
            as_of,
            uptime: as_of.micros_since(snapshot.server.started),
            processes: 0,
            leaving: 0,
            starting: 0,
            busy: 0,
            graceful: 0,
            idle: 0,
            letters: [0; WorkerState::ALL.len()],
            generations: Vec::new(),
            connections: Connections::default(),
            rates: Rates::default(),
        };
        let there = |child: &&Child| child.is_alive() && child.stage != Some(Stage::Gone);
        for child in snapshot.children.iter().filter(there) {
            tally.add(child, snapshot.server.generation);
        }
        tally.generations.sort_by_key(|generation| generation.generation);
        tally.rates = Rates::of(snapshot, tally.uptime);
        tally
    }

    fn add(&mut self, child: &Child, current: u32) {
        let busy = rows(child, Worker::is_busy);
        let idle = rows(child, |worker| worker.state == Some(WorkerState::Ready));
        self.processes += 1;
        if child.is_leaving() {
            self.leaving += 1;
            self.graceful += busy;
        } else {
            self.busy += busy;
            if child.generation == current {
                self.idle += idle;
            }
        }
        if child.stage == Some(Stage::Starting) {
            self.starting += 1;
        }
        for state in child.workers.iter().filter_map(|worker| worker.state) {
            self.letters[state as usize] += 1;
        }
        let at = self.generations.iter().position(|entry| entry.generation == child.generation);
        let at = at.unwrap_or_else(|| {
            self.generations.push(GenerationTally { generation: child.generation, ..Default::default() });
            self.generations.len() - 1
        });
        let generation = &mut self.generations[at];
        generation.children += 1;
        generation.leaving += u32::from(child.is_leaving());
        generation.busy += busy;
        generation.idle += idle;
        let (sum, more) = (&mut self.connections, &child.connections);
        for (sum, more) in [
            (&mut sum.total, more.total),
            (&mut sum.keep_alive, more.keep_alive),
            (&mut sum.wait_io, more.wait_io),
            (&mut sum.writing, more.writing),
            (&mut sum.closing, more.closing),
            (&mut sum.tunnels, more.tunnels),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in [
            (&mut sum.accepted, more.accepted),
            (&mut sum.handed_over, more.handed_over),
            (&mut sum.taken_over, more.taken_over),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

    /// Whether there are children, and all of them are to leave: nobody takes connections any more.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.processes > 0 && self.processes == self.leaving
    }

    /// Whether all of MaxRequestWorkers are busy, so that whoever comes now waits.
    #[must_use]
    pub fn is_full(&self, max_request_workers: u32) -> bool {
        max_request_workers > 0 && self.busy >= max_request_workers
    }

    /// The uptime in whole seconds.
    #[must_use]
    pub fn uptime_seconds(&self) -> u64 {
        self.uptime / 1_000_000
    }
}

fn rows(child: &Child, which: impl Fn(&Worker) -> bool) -> u32 {
    child.workers.iter().filter(|worker| which(worker)).count() as u32
}

impl Rates {
    fn of(snapshot: &Snapshot, uptime: u64) -> Self {
        let totals = &snapshot.totals;
        let seconds = (uptime / 1_000_000) as f64;
        let requests = totals.requests as f64;
        let per = |value: f64, by: f64| (by > 0.0).then(|| value / by);
        Self {
            requests: per(requests, seconds),
            bytes: per(totals.bytes_out as f64, seconds),
            bytes_per_request: per(totals.bytes_out as f64, requests),
            millis_per_request: per(totals.duration as f64 / 1000.0, requests),
        }
    }
}

/// Microseconds from the beginning of a worker's last request to a moment; `None` if no request is known.
#[must_use]
pub fn since_request(worker: &Worker, as_of: Moment) -> Option<u64> {
    let request = worker.request()?;
    Some(as_of.micros_since(Moment(request.started)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::example;

    #[test]
    fn the_example_adds_up() {
        let (snapshot, now) = example();
        let tally = Tally::of(&snapshot, &now);
        assert_eq!((tally.processes, tally.leaving, tally.starting), (2, 1, 0));
        assert_eq!((tally.busy, tally.graceful, tally.idle), (1, 1, 3));
        assert_eq!(tally.letters, [0, 0, 6, 0, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            tally.generations,
            [GenerationTally { generation: 1, children: 2, leaving: 1, busy: 2, idle: 6 }]
        );
        assert_eq!((tally.connections.total, tally.connections.keep_alive), (6, 4));
        assert_eq!(tally.uptime_seconds(), 10);
        assert_eq!(tally.rates.requests, Some(0.3));
        assert_eq!(tally.rates.bytes_per_request, Some(2000.0));
        assert_eq!(tally.rates.millis_per_request, Some(2.0));
    }

    #[test]
    fn an_old_generation_is_not_spare() {
        let (mut snapshot, now) = example();
        snapshot.server.generation = 2;
        let tally = Tally::of(&snapshot, &now);
        assert_eq!((tally.busy, tally.graceful, tally.idle), (1, 1, 0));
    }

    #[test]
    fn a_server_that_is_gone_is_told_of_as_of_its_last_sign() {
        let (mut snapshot, now) = example();
        snapshot.life = Life::Dead;
        let tally = Tally::of(&snapshot, &now);
        assert_eq!(tally.as_of, Moment(9_500_000));
        let busy = &snapshot.children[0].workers[0];
        assert_eq!(since_request(busy, tally.as_of), Some(1_500_000));
        assert_eq!(since_request(&snapshot.children[0].workers[1], tally.as_of), None);
    }

    #[test]
    fn nothing_yet_has_no_rates() {
        let (mut snapshot, mut now) = example();
        snapshot.totals = Default::default();
        now.moment = snapshot.server.started;
        assert_eq!(Tally::of(&snapshot, &now).rates, Rates::default());
    }
}
