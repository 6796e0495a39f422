//! What one reading of the configuration brings to life: its number, its configuration, its listeners.
//!
//! There is one at a time until the issue on reload; then the old one stays until its last child is gone.

use crate::clock::Tick;
use crate::config::model::{ChildLimits, Config, Mpm};
use crate::ids;
use crate::master::backoff::Backoff;
use crate::master::deaths::span;
use crate::master::listeners::Listeners;
use crate::master::policy::{Limits, Pace};
use std::sync::Arc;
use std::time::Duration;

/// The first generation's number.
pub const FIRST: ids::Generation = ids::Generation(1);

/// The longest that a leaving child keeps an idle connection open, so that a request that is on its way is
/// still answered.
const GRACE: Duration = Duration::from_secs(5);

/// Delays between forks while children of a generation die young.
const CRASHES: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(30), Duration::from_secs(60));

/// A generation, as its master has it.
#[derive(Debug)]
pub struct Generation {
    /// Its number.
    pub number: ids::Generation,
    /// What its children obey.
    pub config: Arc<Config>,
    /// Where it listens; `None` once they are closed for good.
    pub listeners: Option<Listeners>,
    /// The bounds of the spare arithmetic.
    pub limits: Limits,
    /// The pace of the spare arithmetic.
    pub pace: Pace,
    /// Children that die young.
    pub crashes: Backoff,
    /// Children still to be forked whatever the spare arithmetic says: StartServers.
    pub initial: u32,
    /// Children that died and are to be replaced.
    pub owed: u32,
    /// Whether one of its children ever got ready.
    pub was_ready: bool,
    /// When it was made.
    pub begun: Tick,
}

impl Generation {
    /// A generation that has no child yet.
    #[must_use]
    pub fn new(number: ids::Generation, config: Arc<Config>, listeners: Listeners, now: Tick) -> Self {
        let limits = Limits::new(&config.limits);
        let initial = config.limits.start.min(limits.max_children).max(1);
        Self {
            number,
            config,
            listeners: Some(listeners),
            limits,
            pace: Pace::SLOW,
            crashes: CRASHES,
            initial,
            owed: 0,
            was_ready: false,
            begun: now,
        }
    }

    /// How long idle kept-alive connections of a leaving child stay open: as long as their clients may expect,
    /// but not longer than [`GRACE`] or `at_most`.
    #[must_use]
    pub fn grace(&self, at_most: Option<Duration>) -> Duration {
        let hosts = self.config.hosts.iter();
        let expected = hosts.map(|host| host.keep_alive.timeout).max().unwrap_or_default();
        expected.min(GRACE).min(at_most.unwrap_or(GRACE))
    }
}

/// What the configuration amounts to, for the line that says that we serve.
#[must_use]
pub fn shape(mpm: Mpm, limits: &ChildLimits, children: u32) -> String {
    let plural = |count: u32| if count == 1 { "" } else { "ren" };
    match mpm {
        Mpm::Prefork => {
            format!("{children} child{}, at most {}", plural(children), limits.max_children())
        }
        Mpm::Event | Mpm::Worker => format!(
            "{children} child{} x {} threads = {} workers, at most {}",
            plural(children),
            limits.threads_per_child,
            children * limits.threads_per_child,
            limits.max_request_workers
        ),
    }
}

/// Milliseconds for an order; what is too long for one becomes the longest that fits.
#[must_use]
pub fn milliseconds(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// `within 30 s`, or that there is no limit.
#[must_use]
pub fn within(timeout: Option<Duration>) -> String {
    timeout.map_or_else(|| "however long it takes".to_owned(), |timeout| format!("within {}", span(timeout)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};

    #[test]
    fn what_a_configuration_amounts_to() {
        for (text, children, want) in [
            ("MPM event", 3, "3 children x 25 threads = 75 workers, at most 400"),
            (
                "MPM worker\nThreadsPerChild 40\nMaxRequestWorkers 40",
                1,
                "1 child x 40 threads = 40 workers, at most 40",
            ),
            ("MPM prefork\nMaxRequestWorkers 20", 5, "5 children, at most 20"),
        ] {
            let text = format!("Listen 127.0.0.1:0\n{text}\n");
            let config = config::from_text("test", &text, &Options::default()).expect("a valid text").config;
            assert_eq!(shape(config.mpm, &config.limits, children), want);
        }
    }

    #[test]
    fn the_grace_is_what_clients_expect_within_bounds() {
        for (keep_alive, at_most, want) in
            [(2, None, 2), (600, None, 5), (600, Some(3), 3), (2, Some(30), 2), (5, Some(0), 0)]
        {
            let text = format!("Listen 127.0.0.1:0\nKeepAliveTimeout {keep_alive}\n");
            let config = config::from_text("test", &text, &Options::default()).expect("a valid text").config;
            let listeners = Listeners::bind(&config).expect("port 0 is always free");
            let generation = Generation::new(FIRST, Arc::new(config), listeners, Tick(0));
            let grace = generation.grace(at_most.map(Duration::from_secs));
            assert_eq!(grace, Duration::from_secs(want), "KeepAliveTimeout {keep_alive}, {at_most:?}");
        }
    }

    #[test]
    fn times_are_told_and_sent() {
        assert_eq!(within(None), "however long it takes");
        assert_eq!(within(Some(Duration::from_secs(90))), "within 1 min 30 s");
        assert_eq!(milliseconds(Duration::from_secs(3)), 3_000);
        assert_eq!(milliseconds(Duration::MAX), u32::MAX);
    }
}
