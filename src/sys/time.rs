//! The two clocks: one that never jumps, for deadlines, and the one on the wall, for logs.

use crate::clock::Moment;
use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in microseconds: the same for all processes of one boot, never set back.
#[must_use]
pub fn now() -> Moment {
    Moment(micros(ClockId::CLOCK_MONOTONIC))
}

/// CLOCK_REALTIME: microseconds since 1970. It may jump; for what people read only.
#[must_use]
pub fn wall_micros() -> u64 {
    micros(ClockId::CLOCK_REALTIME)
}

fn micros(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("Linux has had both clocks since 2.6, and the pointer is ours");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec() / 1000).unwrap_or(0);
    seconds * 1_000_000 + micros
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_run_backwards() {
        let first = now();
        assert!(first <= now());
        assert!(first > Moment(0), "zero means \"not yet\" and must not be an answer");
    }

    #[test]
    fn the_wall_clock_counts_from_1970_in_microseconds() {
        let in_2020 = 1_577_836_800_000_000;
        assert!(wall_micros() > in_2020);
    }
}
