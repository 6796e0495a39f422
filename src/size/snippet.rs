//! The limits as lines of a configuration, to be pasted.

use super::advice::Advice;
use super::shown;
use crate::config::model::Mpm;
use std::fmt::Write as _;

/// httpd's defaults, and ours: a limit at or below these is not in the way.
const SERVER_LIMIT: (u32, u32) = (16, 256);
const THREAD_LIMIT: u32 = 64;

/// What is set if nothing is said of spare threads or servers: with fewer workers than that they must be said.
const MOST_SPARE: u64 = 75;

/// The lines, with what they mean. ServerLimit and ThreadLimit bound the two others and size the scoreboard, so they
/// are set only where their defaults are in the way.
#[must_use]
pub fn snippet(advice: &Advice, budget: u64) -> String {
    let plan = &advice.plan;
    let mut text = String::new();
    let mpm = plan.mpm.name();
    // Into a String, which takes everything.
    let _ = writeln!(
        text,
        "# By \"ostler size\": {} at its most, of {} that it may use.\nMPM {mpm}\n<IfModule mpm_{mpm}_module>",
        shown(advice.forecast.total()),
        shown(budget)
    );
    let mut line = |name: &str, value: u64, why: &str| {
        let _ = match why {
            "" => writeln!(text, "    {name:<24} {value}"),
            why => writeln!(text, "    {name:<24} {value:<7} # {why}"),
        };
    };
    let mut bound = |name: &str, value: u32, default: u32| {
        if value > default {
            line(name, value.into(), &format!("the default of {default} would be in the way"));
        } else {
            line(&format!("# {name}"), default.into(), "the default is enough");
        }
    };
    let prefork = plan.mpm == Mpm::Prefork;
    bound("ServerLimit", plan.children, if prefork { SERVER_LIMIT.1 } else { SERVER_LIMIT.0 });
    if !prefork {
        bound("ThreadLimit", plan.threads, THREAD_LIMIT);
        line("ThreadsPerChild", plan.threads.into(), "");
    }
    let why = if prefork {
        format!("{} children", plan.children)
    } else {
        format!("{} children x {} threads", plan.children, plan.threads)
    };
    line("MaxRequestWorkers", plan.workers(), &why);
    if plan.mpm == Mpm::Event {
        let why = format!("{} busy and {} idle", plan.threads, plan.idle);
        line("MaxConnectionsPerProcess", u64::from(plan.threads) + u64::from(plan.idle), &why);
    }
    // Defaults that are above the whole would be lowered, with a note, each time the file is read.
    if plan.children < 5 {
        line("StartServers", 1, "");
    }
    if plan.workers() < MOST_SPARE {
        let (min, max) = if prefork {
            ("MinSpareServers", "MaxSpareServers")
        } else {
            ("MinSpareThreads", "MaxSpareThreads")
        };
        let least = if prefork { 1 } else { u64::from(plan.threads) };
        line(min, least, "");
        line(max, least + u64::from(plan.threads) + 1, "");
    }
    text.push_str("</IfModule>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::super::advice::Question;
    use super::super::advice::advise;
    use super::super::advice::tests::{QUESTION, budget, facts};
    use super::super::forecast::tests::{COSTS, KERNEL};
    use super::*;
    use crate::config::{self, Options};

    fn advice(question: Question, bytes: u64) -> Advice {
        advise(&question, &COSTS, &KERNEL, &budget(bytes), &facts()).expect("some fit")
    }

    #[test]
    fn what_is_pasted_is_read_without_a_remark_and_means_the_same() {
        for mpm in [Mpm::Event, Mpm::Worker, Mpm::Prefork] {
            for threads in [1, 25, 128] {
                for bytes in [20 << 20, 64 << 20, 512 << 20, 1 << 34] {
                    let threads = if mpm == Mpm::Prefork { 1 } else { threads };
                    let idle = if mpm == Mpm::Event { 2 * threads } else { 0 };
                    let advice = advice(Question { mpm, threads, idle, tcp_backends: 0, ..QUESTION }, bytes);
                    let snippet = snippet(&advice, bytes);
                    let text = format!(
                        "Listen 127.0.0.1:80\nServerName a.test\nErrorLog /dev/stderr\n{snippet}ProxyPass / http://127.0.0.1:3000/\n"
                    );
                    let loaded = config::from_text("test", &text, &Options::default())
                        .unwrap_or_else(|faults| panic!("{faults}\n{snippet}"));
                    assert!(loaded.notes.is_empty(), "{:?}\n{snippet}", loaded.notes);
                    let limits = loaded.config.limits;
                    assert_eq!(loaded.config.mpm, mpm);
                    assert_eq!(limits.threads_per_child, threads, "{snippet}");
                    assert_eq!(limits.max_children(), advice.plan.children, "{snippet}");
                    let connections = limits.max_connections_per_process.map(u32::from);
                    assert_eq!(connections, (mpm == Mpm::Event).then_some(threads + idle), "{snippet}");
                }
            }
        }
    }

    #[test]
    fn the_limits_are_set_only_where_their_defaults_are_in_the_way() {
        let few = snippet(&advice(QUESTION, 20 << 20), 20 << 20);
        assert!(few.contains("    # ServerLimit            16      # the default is enough\n"), "{few}");
        assert!(few.contains("    # ThreadLimit            64      # the default is enough\n"), "{few}");
        let many = snippet(&advice(Question { threads: 128, ..QUESTION }, 512 << 20), 512 << 20);
        assert!(
            many.contains("    ServerLimit  ") && many.contains("    ThreadLimit              128"),
            "{many}"
        );
    }
}
