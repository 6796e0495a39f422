//! Whether a server serves, in a line or two and in a number: what `ostler -k status` prints, and what both it and
//! `ostler status` leave with.

use crate::scoreboard::snapshot::{Life, Snapshot};
use crate::status::Now;
use crate::status::figures::date;
use crate::status::tally::Tally;
use crate::status::text::life;

/// What it amounts to. The number of each is the exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Verdict {
    /// It serves. Also if that cannot be told from here, as from another container or where `/proc` hides it.
    Serving = 0,
    /// It does not run, or is stopping: nobody takes connections.
    Stopped = 1,
    /// It serves, and all of MaxRequestWorkers are busy: whoever comes now waits.
    Full = 2,
    /// Nobody can tell: its scoreboard cannot be read.
    Unreadable = 3,
}

impl Verdict {
    /// Of what the scoreboard says.
    #[must_use]
    pub fn of(snapshot: &Snapshot, now: &Now) -> Self {
        match snapshot.life {
            Life::Stopped | Life::Dead | Life::BeforeReboot => Self::Stopped,
            Life::Running | Life::Unknown => {
                let (most, tally) = (snapshot.server.max_request_workers, Tally::of(snapshot, now));
                match () {
                    () if tally.is_ending() => Self::Stopped,
                    () if tally.is_full(most) => Self::Full,
                    () => Self::Serving,
                }
            }
        }
    }
}

/// Whether it runs, since when, what it is doing, and what came of the last reload.
#[must_use]
pub fn brief(snapshot: &Snapshot, now: &Now) -> String {
    let (server, tally) = (&snapshot.server, Tally::of(snapshot, now));
    let mut text = life(snapshot, &tally, now);
    if matches!(snapshot.life, Life::Running | Life::Unknown) {
        let most = server.max_request_workers;
        let full = if tally.is_full(most) { ", further clients wait" } else { "" };
        text += &format!(
            "\ngeneration {}, mpm {}: {} of at most {most} workers busy{full}",
            server.generation, server.mpm, tally.busy
        );
        if let Some(reload) = &server.last_reload {
            let outcome = if reload.done { "done" } else { "refused" };
            let when = date(reload.wall, &now.zone);
            text += &format!("\nlast reload or upgrade {outcome} at {when}: {}", reload.text);
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::snapshot::Child;
    use crate::status::tests::example;

    #[test]
    fn what_runs_is_told_in_three_lines() {
        let (mut snapshot, now) = example();
        let want = "running for 10 seconds (since Tuesday, 14-Nov-2023 22:13:20 UTC), master 1\n\
                    generation 1, mpm event: 1 of at most 8 workers busy\n\
                    last reload or upgrade refused at Tuesday, 14-Nov-2023 22:13:29 UTC: ostler.conf:3:1: no\n";
        assert_eq!(brief(&snapshot, &now), want);
        snapshot.server.max_request_workers = 1;
        snapshot.server.last_reload = None;
        let text = brief(&snapshot, &now);
        assert!(text.ends_with("1 of at most 1 workers busy, further clients wait\n"), "{text}");
    }

    #[test]
    fn the_verdict_follows_from_life_and_load() {
        let (mut snapshot, now) = example();
        for (life, most, want) in [
            (Life::Running, 8, Verdict::Serving),
            (Life::Unknown, 8, Verdict::Serving),
            (Life::Running, 1, Verdict::Full),
            (Life::Stopped, 1, Verdict::Stopped),
            (Life::Dead, 8, Verdict::Stopped),
            (Life::BeforeReboot, 8, Verdict::Stopped),
        ] {
            (snapshot.life, snapshot.server.max_request_workers) = (life, most);
            assert_eq!(Verdict::of(&snapshot, &now), want, "{life:?}, {most}");
        }
        snapshot.life = Life::Running;
        snapshot.children.retain(Child::is_leaving);
        assert_eq!(Verdict::of(&snapshot, &now), Verdict::Stopped);
        let text = brief(&snapshot, &now);
        let want = "master 1; stopping: 1 child finishes, nobody takes new connections\n";
        assert!(text.contains(want), "{text}");
        snapshot.life = Life::Dead;
        assert_eq!(brief(&snapshot, &now).lines().count(), 1);
    }
}
