//! Latencies in log-linear buckets: 32 to each power of two, so a value is known to 3.2 % at worst.
//!
//! Buckets are counters, so histograms of several children add up, bucket by bucket.

/// Number of buckets.
pub const BUCKETS: usize = 1024;

/// The first latency, in microseconds, that is too long to be told apart: 2^36, 19 hours.
pub const LIMIT_MICROS: u64 = 1 << 36;

/// The bucket of a latency; longer ones than [`LIMIT_MICROS`] count in the last.
#[must_use]
pub fn bucket(micros: u64) -> usize {
    let micros = micros.min(LIMIT_MICROS - 1);
    let power = 63 - (micros | 1).leading_zeros();
    if power <= 5 {
        micros as usize
    } else {
        let shift = power - 5;
        ((shift as usize) << 5) + (micros >> shift) as usize
    }
}

/// The largest latency, in microseconds, that falls into the bucket.
#[must_use]
pub fn upper_bound(bucket: usize) -> u64 {
    if bucket < 64 {
        return bucket as u64;
    }
    let bucket = bucket.min(BUCKETS - 1);
    let shift = (bucket >> 5) - 1;
    let lowest = ((bucket & 31) as u64 + 32) << shift;
    lowest + (1 << shift) - 1
}

/// Counts per bucket, as plain values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS] }
    }
}

impl Histogram {
    /// One count per bucket, in order.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Adds `count` to a bucket; a bucket that does not exist is left out.
    pub fn add(&mut self, bucket: usize, count: u64) {
        if let Some(slot) = self.counts.get_mut(bucket) {
            *slot = slot.saturating_add(count);
        }
    }

    /// Adds another one, bucket by bucket.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// How many latencies were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The latency in microseconds that `per_mille` of a thousand do not exceed (500 is the median), rounded
    /// up to its bucket's end; `None` when nothing was counted.
    #[must_use]
    pub fn quantile(&self, per_mille: u32) -> Option<u64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let rank = (u128::from(total) * u128::from(per_mille.min(1000))).div_ceil(1000).max(1);
        let mut seen = 0u128;
        let index = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= rank
        });
        index.map(upper_bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for index in 0..BUCKETS {
            let last = upper_bound(index);
            assert_eq!(bucket(last), index);
            assert_eq!(bucket(last + 1), (index + 1).min(BUCKETS - 1));
        }
        assert_eq!(upper_bound(BUCKETS - 1), LIMIT_MICROS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_known_sets() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), None);
        for micros in 1..=50 {
            histogram.add(bucket(micros), 1);
        }
        for (per_mille, want) in [(0, 1), (20, 1), (21, 2), (500, 25), (990, 50), (1000, 50), (5000, 50)] {
            assert_eq!(histogram.quantile(per_mille), Some(want), "{per_mille}");
        }
    }

    proptest! {
        #[test]
        fn a_bucket_is_never_off_by_more_than_one_in_thirty_two(micros in 0..LIMIT_MICROS) {
            let high = upper_bound(bucket(micros));
            prop_assert!(high >= micros);
            prop_assert!((high - micros) as f64 <= micros as f64 * 0.032);
        }
    }
}
