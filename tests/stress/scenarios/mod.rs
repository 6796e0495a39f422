//! What is done to a daemon under load, and the rules that must hold.

mod kill;
mod mix;
mod recycle;
mod reloads;
mod soak;
mod stop;
mod upgrade;

use crate::rig::{Case, Report};
use std::time::Duration;

/// Something to play.
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What it does and asks for, in a sentence.
    pub about: &'static str,
    /// Whether `HandOver` makes a difference to it.
    pub hands_over: bool,
    /// Plays it.
    pub play: fn(Case<'_>) -> Played,
    /// After so long it counts as hanging.
    pub limit: Duration,
}

/// How a scenario has ended: what it has to tell, and the directory where the evidence of a failure lies.
pub type Played = (Report, Option<std::path::PathBuf>);

/// All of them, in the order in which they are played.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "reload",
        about: "100 HUPs, 100 ms apart: no request lost, nobody closed while resting",
        hands_over: true,
        play: reloads::plain,
        limit: Duration::from_secs(180),
    },
    Scenario {
        name: "reload-mpm",
        about: "20 reloads, each to the next MPM: the same",
        hands_over: true,
        play: reloads::mpm,
        limit: Duration::from_secs(180),
    },
    Scenario {
        name: "reload-limit",
        about: "20 reloads, each with another ServerLimit and ThreadLimit: the same",
        hands_over: true,
        play: reloads::limits,
        limit: Duration::from_secs(180),
    },
    Scenario {
        name: "reload-bad",
        about: "30 reloads that fail in different ways: each is refused, no child is disturbed, and a good one works after all",
        hands_over: false,
        play: reloads::bad,
        limit: Duration::from_secs(180),
    },
    Scenario {
        name: "recycle",
        about: "MaxRequestsPerChild 50, so that children come and go all the time: no request lost",
        hands_over: true,
        play: recycle::play,
        limit: Duration::from_secs(240),
    },
    Scenario {
        name: "mix",
        about: "reloads, good and faulty, of everything, and children sent away, at random: no request lost",
        hands_over: true,
        play: mix::play,
        limit: Duration::from_secs(900),
    },
    Scenario {
        name: "upgrade",
        about: "10 USR2, each of which puts a new binary in the place of the old: no request lost",
        hands_over: true,
        play: upgrade::play,
        limit: Duration::from_secs(240),
    },
    Scenario {
        name: "stop",
        about: "graceful stops: what accept(2) has returned is answered; what it never returned is counted apart",
        hands_over: false,
        play: stop::play,
        limit: Duration::from_secs(300),
    },
    Scenario {
        name: "kill",
        about: "100 kill -9 of random children: nobody but who was connected to the dead one notices",
        hands_over: false,
        play: kill::play,
        limit: Duration::from_secs(300),
    },
    Scenario {
        name: "soak",
        about: "a million requests and 200 reloads: afterwards everything is as it was before",
        hands_over: false,
        play: soak::play,
        limit: Duration::from_secs(1800),
    },
];
