//! What the end of a child means, and the line that tells of it. Decides; the supervisor acts.

use crate::clock::Tick;
use crate::ids::{ChildPid, Generation, SlotIndex};
use crate::scoreboard::snapshot::Worker;
use crate::sys::process::{ChildExit, Death, signal_name};
use crate::sys::signal::Signal;
use std::fmt::Write as _;
use std::time::Duration;

/// A child that dies of a fault so soon after it got ready is likely to do it again.
pub const EARLY: Duration = Duration::from_secs(1);

/// Most requests that the line about a death lists.
const LISTED: usize = 10;

/// What the master knows of a child that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Obituary {
    /// Its number.
    pub pid: ChildPid,
    /// Its slot.
    pub slot: SlotIndex,
    /// Its generation.
    pub generation: Generation,
    /// When it was forked.
    pub forked: Tick,
    /// When it said that it was ready.
    pub ready: Option<Tick>,
    /// Whether it was leaving, by order or of its own accord.
    pub leaving: bool,
    /// Whether the master has killed it, which has been told already.
    pub killed: bool,
    /// How it ended.
    pub death: Death,
}

/// What an end means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Meaning {
    /// As ordered.
    Expected,
    /// It left by itself, with nothing wrong.
    Left,
    /// A fault, or a killing by somebody else.
    Fault {
        /// Whether the next is likely to end the same way, so that it should not be forked at once.
        back_off: bool,
    },
}

impl Obituary {
    /// What this end means at `now`.
    #[must_use]
    pub fn meaning(&self, now: Tick) -> Meaning {
        if self.killed {
            return Meaning::Expected;
        }
        let fault = self.death != Death::Exited(ChildExit::OK.0);
        let Some(ready) = self.ready else {
            // A stop or a drain may come before a child is ready; any other end at that point is a bad sign.
            return if self.leaving && !fault {
                Meaning::Expected
            } else {
                Meaning::Fault { back_off: true }
            };
        };
        match (fault, self.leaving) {
            (false, true) => Meaning::Expected,
            (false, false) => Meaning::Left,
            (true, leaving) => {
                let from_outside = matches!(self.death, Death::Killed { signal, .. }
                    if signal == Signal::SIGKILL as i32 || signal == Signal::SIGTERM as i32);
                let back_off = !leaving && !from_outside && now <= ready.after(EARLY);
                Meaning::Fault { back_off }
            }
        }
    }

    /// Whether it could not start for want of something, as others before it perhaps.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        self.ready.is_none() && self.death == Death::Exited(ChildExit::SICK.0)
    }

    /// Who, how and at what age: `child 4711 (slot 3, generation 2) killed by SIGSEGV after 4 min 2 s`.
    #[must_use]
    pub fn sentence(&self, now: Tick) -> String {
        let mut line = format!("child {} (slot {}, generation {}) ", self.pid, self.slot, self.generation);
        match self.death {
            Death::Exited(0) => line.push_str("left"),
            Death::Exited(status) if status == ChildExit::SICK.0 => {
                line.push_str("gave up: the machine is short of something, its own line says of what");
            }
            Death::Exited(status) if status == ChildExit::FATAL.0 => {
                line.push_str("gave up: it cannot work like this, its own line says why");
            }
            Death::Exited(status) if status == ChildExit::PANIC.0 => {
                line.push_str("ended by a panic, which is a bug in ostler");
            }
            Death::Exited(status) => {
                let _ = write!(line, "exited with status {status}");
            }
            Death::Killed { signal, core } => {
                let dumped = if core { " (core dumped)" } else { "" };
                let _ = write!(line, "killed by {}{dumped}", signal_name(signal));
            }
        }
        let when = match self.ready {
            Some(_) => "after",
            None => "before it was ready, after",
        };
        let _ = write!(line, ", {when} {}", span(now.until(self.forked)));
        line
    }
}

/// What the rows of a dead child held, for the same line: `; it held 2 requests: …`. Empty if nothing.
#[must_use]
pub fn held(workers: &[Worker]) -> String {
    if workers.is_empty() {
        return String::new();
    }
    let plural = if workers.len() == 1 { "" } else { "s" };
    let mut text = format!("; it held {} request{plural}: ", workers.len());
    for (index, worker) in workers.iter().take(LISTED).enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        let _ = write!(text, "{}", worker.letter());
        match worker.request() {
            Some(request) => {
                if let Some(client) = request.client {
                    let _ = write!(text, " {client}");
                }
                let _ = write!(text, " \"{}\"", request.line);
                if !request.host.is_empty() {
                    let _ = write!(text, " for {}", request.host);
                }
            }
            None => text.push_str(" (unknown)"),
        }
    }
    if workers.len() > LISTED {
        let _ = write!(text, " and {} more", workers.len() - LISTED);
    }
    text
}

/// A time span as people say it, in two units at most: `40 ms`, `4 s`, `5 min 3 s`, `3 h 20 min`, `2 d 4 h`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{big} {big_unit}")
        } else {
            format!("{big} {big_unit} {small} {small_unit}")
        }
    };
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86400 => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86400, "d", seconds / 3600 % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::scoreboard::snapshot::{Cut, Request, Shown};
    use crate::scoreboard::state::WorkerState;

    const OK: Death = Death::Exited(0);
    const SEGV: Death = Death::Killed { signal: 11, core: true };
    const KILL: Death = Death::Killed { signal: 9, core: false };
    const TERM: Death = Death::Killed { signal: 15, core: false };
    const SICK: Death = Death::Exited(7);

    fn obituary(ready: Option<u64>, leaving: bool, death: Death) -> Obituary {
        Obituary {
            pid: ChildPid::new(4711).unwrap(),
            slot: SlotIndex(3),
            generation: Generation(2),
            forked: Tick(1_000),
            ready: ready.map(Tick),
            leaving,
            killed: false,
            death,
        }
    }

    #[test]
    fn what_an_end_means() {
        let fault = |back_off| Meaning::Fault { back_off };
        for (ready, leaving, death, now, want, why) in [
            (Some(1_010), true, OK, 9_000, Meaning::Expected, "as ordered"),
            (Some(1_010), false, OK, 9_000, Meaning::Left, "by itself"),
            (None, true, OK, 1_005, Meaning::Expected, "stopped while it started"),
            (None, false, OK, 1_005, fault(true), "left before it was ready"),
            (None, false, KILL, 1_005, fault(true), "before ready, whatever it was"),
            (None, false, SICK, 1_005, fault(true), "could not start"),
            (Some(1_010), false, SEGV, 2_010, fault(true), "a second after ready"),
            (Some(1_010), false, SEGV, 2_011, fault(false), "more than a second after"),
            (Some(1_010), false, KILL, 1_020, fault(false), "somebody's kill says nothing about the next"),
            (Some(1_010), false, TERM, 1_020, fault(false), "as KILL"),
            (Some(1_010), true, SEGV, 1_020, fault(false), "it was leaving anyway"),
        ] {
            assert_eq!(obituary(ready, leaving, death).meaning(Tick(now)), want, "{why}");
        }
        let killed = Obituary { killed: true, ..obituary(Some(1_010), false, KILL) };
        assert_eq!(killed.meaning(Tick(9_000)), Meaning::Expected, "our own work");
    }

    #[test]
    fn the_line_says_who_how_and_when() {
        for (ready, death, now, want) in [
            (
                Some(1_010),
                SEGV,
                243_000,
                "child 4711 (slot 3, generation 2) killed by SIGSEGV (core dumped), after 4 min 2 s",
            ),
            (
                None,
                KILL,
                1_012,
                "child 4711 (slot 3, generation 2) killed by SIGKILL, before it was ready, after 12 ms",
            ),
            (Some(1_010), OK, 5_000, "child 4711 (slot 3, generation 2) left, after 4 s"),
            (
                Some(1_010),
                Death::Exited(101),
                5_000,
                "child 4711 (slot 3, generation 2) ended by a panic, which is a bug in ostler, after 4 s",
            ),
        ] {
            assert_eq!(obituary(ready, false, death).sentence(Tick(now)), want);
        }
    }

    fn worker(line: &str, request: bool) -> Worker {
        let request = Request {
            client: "192.0.2.7:40000".parse().ok(),
            host: "example.org".into(),
            host_cut: false,
            line: line.into(),
            cut: Cut::Whole,
            protocol: "HTTP/1.1".into(),
            started: 0,
        }
        .into_shown(request);
        Worker {
            index: 0,
            state: Some(WorkerState::Write),
            tid: 1,
            requests: 0,
            bytes_in: 0,
            bytes_out: 0,
            duration: 0,
            last: 0,
            ended: Moment(0),
            backend: None,
            request,
        }
    }

    trait IntoShown {
        fn into_shown(self, known: bool) -> Shown;
    }

    impl IntoShown for Request {
        fn into_shown(self, known: bool) -> Shown {
            if known { Shown::Request(self) } else { Shown::Nothing }
        }
    }

    #[test]
    fn the_line_lists_what_was_lost() {
        assert_eq!(held(&[]), "");
        assert_eq!(
            held(&[worker("GET /a HTTP/1.1", true), worker("", false)]),
            "; it held 2 requests: W 192.0.2.7:40000 \"GET /a HTTP/1.1\" for example.org, W (unknown)"
        );
        let many: Vec<Worker> = (0..25).map(|_| worker("GET / HTTP/1.1", true)).collect();
        assert!(held(&many).ends_with(" and 15 more"));
    }

    #[test]
    fn spans_are_told_in_two_units() {
        for (ms, want) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (303_000, "5 min 3 s"),
            (12_000_000, "3 h 20 min"),
            (187_200_000, "2 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), want);
        }
    }
}
