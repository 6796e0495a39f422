//! When is a child used up (MaxRequestsPerChild, MaxConnectionsPerChild)?
//!
//! Children that began together must not end together, and each must have an heir before it leaves: so each draws
//! its limit, a tenth up or down, and says so when nine tenths of that are gone. The master does the rest; until it
//! sends the child away, the child serves on.

use crate::config::model::ChildLimits;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// When the child is used up (MaxRequestsPerChild, MaxConnectionsPerChild).
pub struct Quota {
    requests: AtomicU64,
    connections: AtomicU64,
    request_limit: u64,
    connection_limit: u64,
    said: AtomicBool,
}

impl Quota {
    /// The limits, each a tenth up or down by chance, so that children that began together do not end together,
    /// and a tenth less than that, so that there is time for an heir.
    pub fn new(limits: &ChildLimits, spread_by: u64) -> Self {
        let chance = |limit: Option<std::num::NonZeroU64>| {
            limit.map_or(u64::MAX, |limit| {
                let spread = (limit.get() / 5).max(1);
                let shift = spread_by % (spread + 1);
                let drawn = limit.get() - limit.get() / 10 + shift;
                (drawn - drawn / 10).max(1)
            })
        };
        Self {
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            request_limit: chance(limits.max_requests_per_child),
            connection_limit: chance(limits.max_connections_per_child),
            said: AtomicBool::new(false),
        }
    }

    /// A connection has been accepted. Whether the child has just become nearly used up.
    pub fn connection(&self) -> bool {
        Self::count(&self.connections, self.connection_limit) && self.news()
    }

    /// A request has begun. Whether the child has just become nearly used up.
    pub fn request(&self) -> bool {
        Self::count(&self.requests, self.request_limit) && self.news()
    }

    /// Without a limit nothing is counted, and no cache line is fought over.
    fn count(counter: &AtomicU64, limit: u64) -> bool {
        limit != u64::MAX && counter.fetch_add(1, Ordering::Relaxed) + 1 >= limit
    }

    /// Whether the child is nearly used up.
    pub fn is_near(&self) -> bool {
        self.said.load(Ordering::Relaxed)
    }

    fn news(&self) -> bool {
        !self.said.load(Ordering::Relaxed) && !self.said.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    fn limits(requests: u64) -> ChildLimits {
        ChildLimits {
            start: 1,
            server_limit: 1,
            thread_limit: 1,
            threads_per_child: 1,
            max_request_workers: 1,
            min_spare: 1,
            max_spare: 3,
            max_connections_per_child: None,
            max_requests_per_child: NonZeroU64::new(requests),
            max_connections_per_process: None,
            thread_stack_size: None,
        }
    }

    #[test]
    fn the_end_is_near_once_and_within_a_tenth_of_nine_tenths() {
        for limit in [1_u64, 5, 50, 200, 100_000] {
            for chance in [0, 1, 7, u64::MAX / 2, u64::MAX] {
                let quota = Quota::new(&limits(limit), chance);
                let said: Vec<u64> = (1..=limit * 2).filter(|_| quota.request()).collect();
                assert_eq!(said.len(), 1, "limit {limit}, chance {chance}");
                let (least, most) = (limit * 8 / 10, limit + limit / 50 + 1);
                assert!((least..=most).contains(&said[0].max(1)), "limit {limit}, chance {chance}: {said:?}");
            }
        }
    }

    #[test]
    fn without_a_limit_it_is_never_near() {
        let quota = Quota::new(&limits(0), 3);
        assert!((0..10_000).all(|_| !quota.request() && !quota.connection()));
    }
}
