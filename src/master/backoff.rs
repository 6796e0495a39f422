//! When to try again what has just failed: at once, then ever later, up to a bound.

use crate::clock::Tick;
use std::time::Duration;

/// A delay that doubles with each failure and is forgotten after a quiet time.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    quiet: Duration,
    delay: Duration,
    until: Tick,
    failed: bool,
}

impl Backoff {
    /// The first failure delays by `first`, each further one twice as long as the last, at most `longest`. Once
    /// `quiet` has passed after a delay without a new failure, all is forgotten.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration, quiet: Duration) -> Self {
        Self { first, longest, quiet, delay: Duration::ZERO, until: Tick(0), failed: false }
    }

    /// Notes a failure; returns after how long to try again.
    pub fn fail(&mut self, now: Tick) -> Duration {
        let recent = self.failed && now <= self.until.after(self.quiet);
        self.delay = if recent { (self.delay * 2).min(self.longest) } else { self.first };
        self.until = now.after(self.delay);
        self.failed = true;
        self.delay
    }

    /// Notes a success; returns whether there had been failures since the last.
    pub fn succeed(&mut self) -> bool {
        self.until = Tick(0);
        std::mem::take(&mut self.failed)
    }

    /// Until when not to try; `None` if one may.
    #[must_use]
    pub fn waits(&self, now: Tick) -> Option<Tick> {
        (now < self.until).then_some(self.until)
    }

    /// Whether the last try failed.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn delays_double_up_to_a_bound_and_are_forgotten() {
        let mut backoff = Backoff::new(MS(100), MS(1_000), MS(5_000));
        assert_eq!(backoff.waits(Tick(0)), None);
        let mut now = Tick(50);
        for want in [100, 200, 400, 800, 1_000, 1_000] {
            assert_eq!(backoff.fail(now), MS(want));
            assert_eq!(backoff.waits(now), Some(now.after(MS(want))));
            now = now.after(MS(want));
            assert_eq!(backoff.waits(now), None, "the time has come");
        }
        assert_eq!(backoff.fail(now.after(MS(5_001))), MS(100), "long ago");
    }

    #[test]
    fn a_success_ends_it() {
        let mut backoff = Backoff::new(MS(100), MS(1_000), MS(5_000));
        assert!(!backoff.succeed(), "nothing had failed");
        backoff.fail(Tick(0));
        backoff.fail(Tick(0));
        assert!(backoff.failing());
        assert!(backoff.succeed());
        assert_eq!(backoff.waits(Tick(1)), None);
        assert_eq!(backoff.fail(Tick(2)), MS(100));
    }
}
