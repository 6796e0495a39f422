//! How many children and threads: the sizing directives, and every clamp between them, said aloud.
//!
//! The order of the clamps is httpd's, so that the same file gives the same numbers. What httpd does in
//! silence is said here too, since a number that is not the one in the file is a riddle otherwise.

use super::diagnostic::{Report, Span};
use super::model::{ChildLimits, Mpm};
use std::num::{NonZeroU32, NonZeroU64};

/// A number, and the line that says it; without a line it is the table's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// The number.
    pub value: u32,
    /// Where it was said.
    pub at: Option<Span>,
    /// The line that changed it, where it was not said itself.
    pub because: Option<Span>,
}

impl Given {
    /// As a line says it, or the table.
    #[must_use]
    pub fn new(value: u32, at: Option<Span>) -> Self {
        Self { value, at, because: None }
    }
}

/// The sizing directives as written.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "each is the directive of the same name")]
pub struct Sizing {
    pub start: Given,
    pub server_limit: Given,
    pub thread_limit: Given,
    pub threads_per_child: Given,
    pub max_request_workers: Given,
    pub min_spare: Given,
    pub max_spare: Given,
    pub max_connections_per_child: u64,
    pub max_requests_per_child: u64,
    pub max_connections_per_process: Given,
    pub thread_stack_size: Given,
}

/// The highest ServerLimit and ThreadLimit that a configuration may ask for.
#[must_use]
pub const fn bounds(mpm: Mpm) -> (u32, u32) {
    match mpm {
        Mpm::Event => (20_000, 100_000),
        Mpm::Worker => (20_000, 20_000),
        Mpm::Prefork => (200_000, 1),
    }
}

/// Says that a number was changed: a warning where the file asked for it, a note where it was a default that
/// `because` of another line does not fit. Without any line there is nothing to say.
struct Voice<'r> {
    report: &'r mut Report,
}

impl Voice<'_> {
    fn say(
        &mut self,
        given: Given,
        because: &[Given],
        message: &str,
        holds: u32,
        hint: Option<String>,
    ) -> Given {
        let text = format!("{message}; {holds} holds");
        let cause = because.iter().find_map(|cause| cause.at.or(cause.because));
        let item = match (given.at, cause) {
            (Some(span), _) => Some(self.report.warning(span, text)),
            (None, Some(span)) => Some(self.report.note(span, text)),
            (None, None) => None,
        };
        if let (Some(item), Some(hint)) = (item, hint) {
            item.hint(hint);
        }
        Given { value: holds, at: given.at, because: given.because.or(cause) }
    }

    /// Keeps a number within bounds that nothing can move.
    fn within(&mut self, name: &str, given: Given, least: u32, most: u32) -> Given {
        if given.value > most {
            self.say(given, &[], &format!("{name} {} is above {most}", given.value), most, None)
        } else if given.value < least {
            self.say(given, &[], &format!("{name} {} is below {least}", given.value), least, None)
        } else {
            given
        }
    }
}

/// `Name number`, or `Name (number by default)`.
fn named(name: &str, given: Given) -> String {
    match given.at.or(given.because) {
        Some(_) => format!("{name} {}", given.value),
        None => format!("{name} ({} by default)", given.value),
    }
}

impl Sizing {
    /// The numbers that hold under `mpm`.
    #[must_use]
    pub fn settle(self, mpm: Mpm, report: &mut Report) -> ChildLimits {
        let mut voice = Voice { report };
        let (most_servers, most_threads) = bounds(mpm);
        let server_limit = voice.within("ServerLimit", self.server_limit, 1, most_servers);
        let (thread_limit, threads) = match mpm {
            Mpm::Prefork => (Given::new(1, None), Given::new(1, None)),
            Mpm::Event | Mpm::Worker => self.threads(most_threads, &mut voice),
        };
        let workers = self.workers(mpm, server_limit, threads, &mut voice);
        let children = workers.value / threads.value;
        let start = self.start(workers, threads, children, &mut voice);
        let (min_spare, max_spare) = self.spares(mpm, workers, threads, &mut voice);
        // 0 leaves it to the system; less than this would not hold the frames of one request.
        let stack = match self.thread_stack_size {
            Given { value: 0, .. } => None,
            given => usize::try_from(voice.within("ThreadStackSize", given, 65_536, u32::MAX).value).ok(),
        };
        let connections = self.max_connections_per_process;
        let connections = if connections.at.is_some() && connections.value < threads.value {
            let message = format!(
                "{} is below {}, so a child could never be fully used",
                named("MaxConnectionsPerProcess", connections),
                named("ThreadsPerChild", threads)
            );
            voice.say(connections, &[], &message, threads.value, None)
        } else {
            connections
        };
        ChildLimits {
            start: start.value,
            server_limit: server_limit.value,
            thread_limit: thread_limit.value,
            threads_per_child: threads.value,
            max_request_workers: workers.value,
            min_spare: min_spare.value,
            max_spare: max_spare.value,
            max_connections_per_child: NonZeroU64::new(self.max_connections_per_child),
            max_requests_per_child: NonZeroU64::new(self.max_requests_per_child),
            max_connections_per_process: NonZeroU32::new(connections.value),
            thread_stack_size: stack,
        }
    }

    fn threads(self, most: u32, voice: &mut Voice<'_>) -> (Given, Given) {
        let limit = voice.within("ThreadLimit", self.thread_limit, 1, most);
        let threads = self.threads_per_child;
        let threads = if threads.value > limit.value {
            let message =
                format!("{} is above {}", named("ThreadsPerChild", threads), named("ThreadLimit", limit));
            let hint = format!("a line \"ThreadLimit {}\" would allow it", threads.value.min(most));
            voice.say(threads, &[limit], &message, limit.value, Some(hint))
        } else {
            voice.within("ThreadsPerChild", threads, 1, most)
        };
        (limit, threads)
    }

    fn workers(self, mpm: Mpm, server_limit: Given, threads: Given, voice: &mut Voice<'_>) -> Given {
        let name = "MaxRequestWorkers";
        let mut workers = self.max_request_workers;
        if workers.value < threads.value {
            let message = match mpm {
                Mpm::Prefork => format!("{name} {} is below 1", workers.value),
                Mpm::Event | Mpm::Worker => {
                    format!("{} is below {}", named(name, workers), named("ThreadsPerChild", threads))
                }
            };
            workers = voice.say(workers, &[threads], &message, threads.value, None);
        }
        let rest = workers.value % threads.value;
        if rest != 0 {
            let message =
                format!("{} is no multiple of {}", named(name, workers), named("ThreadsPerChild", threads));
            workers = voice.say(workers, &[threads], &message, workers.value - rest, None);
        }
        let children = workers.value / threads.value;
        if children > server_limit.value {
            let message = format!(
                "{} needs {children} children, above {}",
                named(name, workers),
                named("ServerLimit", server_limit)
            );
            // ServerLimit and ThreadsPerChild have bounds, so this cannot overflow.
            let holds = server_limit.value.saturating_mul(threads.value);
            let hint = format!("a line \"ServerLimit {}\" would allow it", children.min(bounds(mpm).0));
            workers = voice.say(workers, &[server_limit, threads], &message, holds, Some(hint));
        }
        workers
    }

    fn start(self, workers: Given, threads: Given, children: u32, voice: &mut Voice<'_>) -> Given {
        let start = voice.within("StartServers", self.start, 1, u32::MAX);
        if start.value <= children {
            return start;
        }
        let message = format!("{} is above the most children, {children}", named("StartServers", start));
        voice.say(start, &[workers, threads, self.server_limit], &message, children, None)
    }

    fn spares(self, mpm: Mpm, workers: Given, threads: Given, voice: &mut Voice<'_>) -> (Given, Given) {
        let (min_name, max_name) = match mpm {
            Mpm::Prefork => ("MinSpareServers", "MaxSpareServers"),
            Mpm::Event | Mpm::Worker => ("MinSpareThreads", "MaxSpareThreads"),
        };
        let mut min = voice.within(min_name, self.min_spare, 1, u32::MAX);
        if min.value > workers.value {
            let message =
                format!("{} is above {}", named(min_name, min), named("MaxRequestWorkers", workers));
            min = voice.say(min, &[workers, threads], &message, workers.value, None);
        }
        // Ending one child takes its threads from the idle ones. Were that to lead below the minimum, the next
        // look would make a child again, and so for ever.
        let (room, rule) = match mpm {
            Mpm::Prefork => (1, "MinSpareServers + 1"),
            Mpm::Event | Mpm::Worker => (threads.value + 1, "MinSpareThreads + ThreadsPerChild + 1"),
        };
        let mut max = self.max_spare;
        let least = min.value.saturating_add(room);
        if max.value < least {
            let message = format!("{} is below {rule}", named(max_name, max));
            let hint = "or ending one child would at once make another one needed".to_owned();
            max = voice.say(max, &[min, threads], &message, least, Some(hint));
        }
        (min, max)
    }
}
