//! For how long a child's serving threads have got nowhere, although there is work. Decides; the steward looks.
//!
//! Only what was watched counts. A steward that has not looked for long slept because nothing was to be done, or
//! was itself stopped with the whole process, and so were the threads: nothing of that is held against them.

use crate::clock::Moment;
use std::time::Duration;

/// A longer pause than this between two looks is a sleep or a stop; a steward that is awake looks every few
/// milliseconds.
const BLINK: Duration = Duration::from_secs(1);

/// What the steward remembers of the serving threads.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since when nobody has been seen to move.
    since: Moment,
    /// When it looked last.
    looked: Moment,
}

impl Progress {
    /// Threads that have just been started.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self { since: now, looked: now }
    }

    /// The steward is awake now; to be called each time before anything else.
    pub fn look(&mut self, now: Moment) {
        if Duration::from_micros(now.micros_since(self.looked)) > BLINK {
            self.since = now;
        }
        self.looked = now;
    }

    /// Somebody has moved on since the last look, or there is nothing to do.
    pub fn moved(&mut self) {
        self.since = self.looked;
    }

    /// For how long nobody has moved on.
    #[must_use]
    pub fn stuck_for(&self) -> Duration {
        Duration::from_micros(self.looked.micros_since(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    #[test]
    fn only_what_was_watched_counts() {
        // Looks in milliseconds, whether somebody had moved by then, and what is reported afterwards.
        for (why, looks, want) in [
            ("at once", &[(0, false)][..], 0),
            ("each look finds somebody at work", &[(8, true), (16, true), (24, true)], 0),
            ("nobody has moved since the first", &[(8, true), (16, false), (24, false), (508, false)], 500),
            ("moved again in the end", &[(8, true), (500, false), (900, true)], 0),
            ("a sleep of a minute", &[(8, true), (60_008, false)], 0),
            ("a sleep, then stuck", &[(8, true), (60_008, false), (60_508, false)], 500),
            ("stuck, then stopped as a whole, then stuck", &[(8, true), (900, false), (40_000, false)], 0),
        ] {
            let mut progress = Progress::new(Moment(0));
            for (at, moved) in looks {
                progress.look(Moment(at * MS));
                if *moved {
                    progress.moved();
                }
            }
            assert_eq!(progress.stuck_for(), Duration::from_millis(want), "{why}");
        }
    }

    #[test]
    fn what_lasts_is_reported_however_long() {
        let mut progress = Progress::new(Moment(0));
        for look in 0..5_000 {
            progress.look(Moment(look * 8 * MS));
        }
        assert_eq!(progress.stuck_for(), Duration::from_millis(4_999 * 8));
    }
}
