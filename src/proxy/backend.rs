//! Is a backend up, and when may it be tried again?
//!
//! Shared by the threads of a child, without a lock: one word, the time until which it is left alone.

use crate::clock::Tick;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a child knows of one backend's health.
#[derive(Debug, Default)]
pub struct Health {
    /// Milliseconds until which it is left alone; 0: it is not.
    until: AtomicU64,
    /// Requests that were turned away meanwhile.
    turned_away: AtomicU64,
}

impl Health {
    /// Whether a request may try it now.
    #[must_use]
    pub fn may_try(&self, now: Tick) -> bool {
        now.0 >= self.until.load(Ordering::Relaxed)
    }

    /// It could not be connected; `retry` of zero lets the next request try at once. Whether this is news: it
    /// was thought to be well.
    pub fn failed(&self, now: Tick, retry: Duration) -> bool {
        let until = if retry.is_zero() { 1 } else { now.after(retry).0 };
        self.until.swap(until, Ordering::Relaxed) == 0
    }

    /// It was left alone at the cost of a request.
    pub fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// It was connected. If this is news, since it had failed before: how many requests have been turned away.
    pub fn worked(&self) -> Option<u64> {
        // Looked at first, so that a healthy backend's word stays a shared cache line.
        let news = self.until.load(Ordering::Relaxed) != 0 && self.until.swap(0, Ordering::Relaxed) != 0;
        news.then(|| self.turned_away.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_backend_is_left_alone_for_retry() {
        let health = Health::default();
        assert!(health.may_try(Tick(1000)));
        assert_eq!(health.worked(), None, "nothing new");
        assert!(health.failed(Tick(1000), Duration::from_secs(5)), "news");
        assert!(!health.failed(Tick(1000), Duration::from_secs(5)), "known");
        assert!(!health.may_try(Tick(5999)));
        health.turn_away();
        assert!(health.may_try(Tick(6000)));
        assert_eq!(health.worked(), Some(1), "news");
    }

    #[test]
    fn without_retry_the_next_request_tries_again() {
        let health = Health::default();
        assert!(health.failed(Tick(1000), Duration::ZERO));
        assert!(health.may_try(Tick(1000)));
        assert!(!health.failed(Tick(1001), Duration::ZERO), "said once");
        assert_eq!(health.worked(), Some(0));
    }
}
