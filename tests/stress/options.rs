//! What is asked for: which scenarios, under which drivers, how much of each.

use crate::scenarios::SCENARIOS;
use crate::support::Mpm;

/// How the program is used; also what `--help` prints.
pub const USAGE: &str = "\
Works a real daemon under load, with clients that retry nothing, and counts every request that is lost.

usage: scripts/stress [SCENARIO...] [OPTION...]

  --list            what there is to play
  --short           a few seconds of each, as continuous integration does it
  --mpm NAME        event, worker or prefork; may be repeated (all three)
  --hand-over WHAT  on, off or both: idle connections move to staying children (both, where the daemon can)
  --reloads N       reloads of a scenario that reloads
  --kills N         children killed
  --upgrades N      new binaries started
  --rounds N        graceful stops
  --seconds S       length of a scenario that has no count
  --requests N      length of the soak
  --seed N          of the random choices
";

/// Which values `HandOver` shall have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HandOver {
    /// Only On.
    On,
    /// Only Off.
    Off,
    /// One after the other.
    Both,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of scenarios, in the order in which they are played.
    pub scenarios: Vec<&'static str>,
    /// Drivers.
    pub mpms: Vec<Mpm>,
    /// Values of `HandOver`.
    pub hand_over: HandOver,
    /// As little of each as still means something.
    pub is_short: bool,
    /// Only say what there is.
    pub lists: bool,
    /// Only say how to use this.
    pub helps: bool,
    reloads: Option<u32>,
    kills: Option<u32>,
    upgrades: Option<u32>,
    rounds: Option<u32>,
    seconds: Option<u32>,
    requests: Option<u32>,
    /// Where random choices begin.
    pub seed: u64,
}

impl Options {
    /// Reads the command line, without the program's name.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            scenarios: Vec::new(),
            mpms: Vec::new(),
            hand_over: HandOver::Both,
            is_short: false,
            lists: false,
            helps: false,
            reloads: None,
            kills: None,
            upgrades: None,
            rounds: None,
            seconds: None,
            requests: None,
            seed: 1,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--list" => options.lists = true,
                "--help" | "-h" => options.helps = true,
                "--short" => options.is_short = true,
                "--mpm" => options.mpms.push(mpm(&value()?)?),
                "--hand-over" => {
                    options.hand_over = match value()?.as_str() {
                        "on" => HandOver::On,
                        "off" => HandOver::Off,
                        "both" => HandOver::Both,
                        other => return Err(format!("--hand-over is on, off or both, not {other}")),
                    }
                }
                "--reloads" => options.reloads = Some(number(&word, &value()?)?),
                "--kills" => options.kills = Some(number(&word, &value()?)?),
                "--upgrades" => options.upgrades = Some(number(&word, &value()?)?),
                "--rounds" => options.rounds = Some(number(&word, &value()?)?),
                "--seconds" => options.seconds = Some(number(&word, &value()?)?),
                "--requests" => options.requests = Some(number(&word, &value()?)?),
                "--seed" => options.seed = u64::from(number(&word, &value()?)?),
                name => match SCENARIOS.iter().find(|scenario| scenario.name == name) {
                    Some(scenario) => options.scenarios.push(scenario.name),
                    None => return Err(format!("there is no scenario {name}; --list names them")),
                },
            }
        }
        if options.scenarios.is_empty() {
            options.scenarios = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        }
        if options.mpms.is_empty() {
            options.mpms = vec![Mpm::Event, Mpm::Worker, Mpm::Prefork];
        }
        Ok(options)
    }

    /// The number asked for, or else `short` or `long`.
    fn given(&self, asked: Option<u32>, short: u32, long: u32) -> u32 {
        asked.unwrap_or(if self.is_short { short } else { long })
    }

    /// How many reloads where `long` is the usual number.
    pub fn reloads(&self, short: u32, long: u32) -> u32 {
        self.given(self.reloads, short, long)
    }

    /// How many children are killed.
    pub fn kills(&self) -> u32 {
        self.given(self.kills, 8, 100)
    }

    /// How many upgrades.
    pub fn upgrades(&self) -> u32 {
        self.given(self.upgrades, 2, 10)
    }

    /// How many graceful stops.
    pub fn rounds(&self) -> u32 {
        self.given(self.rounds, 1, 10)
    }

    /// How long what has no other measure goes on.
    pub fn seconds(&self) -> u32 {
        self.given(self.seconds, 1, 20)
    }

    /// How many requests a soak serves.
    pub fn requests(&self) -> u32 {
        self.given(self.requests, 3_000, 1_000_000)
    }
}

fn mpm(name: &str) -> Result<Mpm, String> {
    [Mpm::Event, Mpm::Worker, Mpm::Prefork]
        .into_iter()
        .find(|mpm| mpm.name() == name)
        .ok_or_else(|| format!("--mpm is event, worker or prefork, not {name}"))
}

fn number(option: &str, text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{option} wants a number above 0, not {text}")),
    }
}
