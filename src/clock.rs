//! Points in time as plain numbers: CLOCK_MONOTONIC, the same for all processes of one boot.
//!
//! Nothing here reads a clock; `sys::time` does. Deadlines are coarse ([`Tick`], milliseconds); what is
//! measured and shown is fine ([`Moment`], microseconds).

use std::time::Duration;

/// Milliseconds of CLOCK_MONOTONIC. Deadlines are made of these.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tick(pub u64);

impl Tick {
    /// Later than any deadline: "never".
    pub const NEVER: Self = Self(u64::MAX);

    /// This point plus `span`, rounded up to a millisecond; saturates at [`Tick::NEVER`].
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        // In 64 bits: this is done for each deadline, and a division of 128 is a call.
        let part = u64::from(span.subsec_nanos().div_ceil(1_000_000));
        Self(self.0.saturating_add(span.as_secs().saturating_mul(1000).saturating_add(part)))
    }

    /// How long until this point, seen from `now`; zero once it has passed.
    #[must_use]
    pub fn until(self, now: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(now.0))
    }
}

/// Microseconds of CLOCK_MONOTONIC. Zero means "not yet".
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Moment(pub u64);

impl Moment {
    /// The same point, rounded down to a millisecond.
    #[must_use]
    pub fn tick(self) -> Tick {
        Tick(self.0 / 1000)
    }

    /// Microseconds from `earlier` to this point; 0 if it lies ahead.
    #[must_use]
    pub fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_round_up_and_saturate() {
        for (start, span, want) in [
            (5, Duration::from_millis(7), 12),
            (5, Duration::from_micros(1), 6),
            (5, Duration::ZERO, 5),
            (5, Duration::new(3, 999_000_001), 4005),
            (u64::MAX - 1, Duration::from_secs(9), u64::MAX),
            (0, Duration::MAX, u64::MAX),
        ] {
            assert_eq!(Tick(start).after(span), Tick(want), "{start} + {span:?}");
        }
    }

    #[test]
    fn a_passed_deadline_is_due_now() {
        assert_eq!(Tick(3).until(Tick(9)), Duration::ZERO);
        assert_eq!(Moment(2_500).micros_since(Moment(9_000)), 0);
    }
}
