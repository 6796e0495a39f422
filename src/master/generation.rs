//! What one reading of the configuration brings to life: its number, its configuration, its listeners, its logs.
//!
//! One is current. Those before it stay, as [`Retired`], until their last child is gone.

use crate::clock::Tick;
use crate::config::model::{ChildLimits, Config, Mpm};
use crate::ids;
use crate::log::line::Module;
use crate::master::backoff::Backoff;
use crate::master::deaths::span;
use crate::master::listeners::Listeners;
use crate::master::logs::Logs;
use crate::master::policy::{Limits, Pace};
use crate::master::status_doors::StatusDoors;
use crate::scoreboard::facts::Facts;
use crate::sys::privilege::Identity;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The first generation's number.
pub const FIRST: ids::Generation = ids::Generation(1);

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
    /// The sockets of `StatusListen`, for its groom.
    pub doors: StatusDoors,
    /// The open logs.
    pub logs: Logs,
    /// The main error log, as this generation has it.
    pub log: slog::Logger,
    /// Who its children become.
    pub identity: Option<Identity>,
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
    pub fn new(
        number: ids::Generation,
        config: Arc<Config>,
        listeners: Listeners,
        logs: Logs,
        identity: Option<Identity>,
        now: Tick,
    ) -> Self {
        let log = logger(&logs, &config);
        let limits = Limits::new(&config.limits);
        let initial = config.limits.start.min(limits.max_children).max(1);
        Self {
            number,
            config,
            listeners: Some(listeners),
            doors: StatusDoors::default(),
            logs,
            log,
            identity,
            limits,
            pace: Pace::SLOW,
            crashes: CRASHES,
            initial,
            owed: 0,
            was_ready: false,
            begun: now,
        }
    }

    /// Whether its children hand connections between two requests over to each other.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.config.hand_over && self.config.mpm == Mpm::Event
    }

    /// What the scoreboard's header tells of it.
    pub fn with_facts<T>(
        &self,
        config_path: Option<&Path>,
        wall_micros: u64,
        tell: impl FnOnce(&Facts<'_>) -> T,
    ) -> T {
        let limits = &self.config.limits;
        let listeners =
            self.listeners.as_ref().map(Listeners::addresses).unwrap_or_default().replace(", ", " ");
        let version = format!("Ostler/{}", env!("CARGO_PKG_VERSION"));
        tell(&Facts {
            generation: self.number,
            wall_micros,
            mpm: self.config.mpm.name(),
            version: &version,
            server_name: &self.config.hosts[0].name,
            config_path,
            listeners: &listeners,
            max_request_workers: limits.max_request_workers,
            threads_per_child: limits.threads_per_child,
            min_spare: limits.min_spare,
            max_spare: limits.max_spare,
            start_servers: limits.start,
            extended: self.config.extended_status,
        })
    }

    /// The master's title while this generation is the current one.
    #[must_use]
    pub fn title(&self, config_path: Option<&Path>) -> String {
        let path = config_path.map_or_else(String::new, |path| format!(" {}", path.display()));
        format!("ostler: master ({}, generation {}){path}", self.config.mpm.name(), self.number)
    }

    /// How long idle kept-alive connections of a leaving child stay open: as long as their clients may expect
    /// (KeepAliveTimeout), but not longer than `at_most`. A request that is on its way is so still answered.
    #[must_use]
    pub fn grace(&self, at_most: Option<Duration>) -> Duration {
        let hosts = self.config.hosts.iter();
        let expected = hosts.map(|host| host.keep_alive.timeout).max().unwrap_or_default();
        expected.min(at_most.unwrap_or(Duration::MAX))
    }

    /// The same where the server goes on, or stops within `left`: at most GracefulReloadTimeout, and in a stop so
    /// much less than the whole time that what is only idle is closed before it is cut.
    #[must_use]
    pub fn grace_within(&self, left: Option<Duration>) -> Duration {
        let most = self.config.graceful_reload_timeout.unwrap_or(Duration::MAX);
        let left = left.map_or(Duration::MAX, |left| left - (left / 10).min(Duration::from_secs(1)));
        self.grace(Some(most.min(left)))
    }
}

/// A generation that another has taken the place of, until its last child is gone.
#[derive(Debug)]
pub struct Retired {
    /// Its number.
    pub number: ids::Generation,
    /// What its children have promised their clients: how long idle connections stay open.
    pub grace: Duration,
    /// Its log programs, as long as its children may write to them.
    /// `None` if they are still those of the current generation, because the whole master leaves.
    pub logs: Option<Logs>,
    /// Listeners that the one after it does not have; closed once nobody waits there.
    pub vanished: Listeners,
    /// How far it is.
    pub step: Leaving,
    /// When what is still under way is cut; `None` never.
    pub deadline: Option<Tick>,
}

/// How far a retired generation has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leaving {
    /// Its vanished listeners hear nothing new; its children go on accepting until this moment.
    Settling(Tick),
    /// Its children drain; when its vanished listeners are looked at next.
    Draining(Tick),
    /// They have been told to leave at once, and are killed at this moment.
    Cut(Tick),
}

/// The error log of a configuration, with the driver's name in its lines.
pub fn logger(logs: &Logs, config: &Config) -> slog::Logger {
    let module = match config.mpm {
        Mpm::Event => Module::MpmEvent,
        Mpm::Worker => Module::MpmWorker,
        Mpm::Prefork => Module::MpmPrefork,
    };
    logs.logger(config).new(slog::o!("module" => module.name()))
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
            [(2, None, 2), (600, None, 600), (600, Some(3), 3), (2, Some(30), 2), (5, Some(0), 0)]
        {
            let text = format!("Listen 127.0.0.1:0\nErrorLog /dev/stderr\nKeepAliveTimeout {keep_alive}\n");
            let config = config::from_text("test", &text, &Options::default()).expect("a valid text").config;
            let listeners = Listeners::bind(&config).expect("port 0 is always free");
            let logs = Logs::open(&config).expect("stderr is always open");
            let generation = Generation::new(FIRST, Arc::new(config), listeners, logs, None, Tick(0));
            let grace = generation.grace(at_most.map(Duration::from_secs));
            assert_eq!(grace, Duration::from_secs(want), "KeepAliveTimeout {keep_alive}, {at_most:?}");
        }
    }

    #[test]
    fn the_grace_ends_before_a_stop_cuts_and_with_graceful_reload_timeout() {
        for (keep_alive, reload, left, want) in [
            (5, 60, None, 5_000),
            (600, 60, None, 60_000),
            (600, 0, None, 600_000),
            (15, 60, Some(30), 15_000),
            (600, 60, Some(30), 29_000),
            (600, 60, Some(1), 900),
            (600, 60, Some(0), 0),
        ] {
            let text = format!(
                "Listen 127.0.0.1:0\nErrorLog /dev/stderr\nKeepAliveTimeout {keep_alive}\n\
                 GracefulReloadTimeout {reload}\n"
            );
            let config = config::from_text("test", &text, &Options::default()).expect("a valid text").config;
            let listeners = Listeners::bind(&config).expect("port 0 is always free");
            let logs = Logs::open(&config).expect("stderr is always open");
            let generation = Generation::new(FIRST, Arc::new(config), listeners, logs, None, Tick(0));
            let grace = generation.grace_within(left.map(Duration::from_secs));
            assert_eq!(grace, Duration::from_millis(want), "{keep_alive}, {reload}, {left:?}");
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
