//! One daemon before one origin, and what a scenario does with them: configurations, orders, words of the log.

use crate::crowd::{self, Seen};
use crate::options::Options;
use crate::scenarios::Played;
use crate::support::{Backend, Daemon, Home, Mpm, PATIENCE, ostler, processes, wait_until};
use nix::sys::signal::Signal;
use ostler::scoreboard::snapshot::{Child, Snapshot};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// The process group of the daemon that runs now, for whoever has to end it early.
static GROUP: Mutex<Option<i32>> = Mutex::new(None);

/// The daemon of this master runs now.
fn watch_over(master: i32) {
    *group() = processes::look(master).map(|process| process.group);
}

/// [`GROUP`], to be looked at or emptied.
pub fn group() -> MutexGuard<'static, Option<i32>> {
    GROUP.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// One run: a scenario under a driver.
#[derive(Clone, Copy, Debug)]
pub struct Case<'o> {
    /// The scenario's name.
    pub name: &'static str,
    /// The driver it begins with.
    pub mpm: Mpm,
    /// What `HandOver` says; `None` if the directive is not written.
    pub hand_over: Option<bool>,
    /// How much of everything.
    pub options: &'o Options,
}

impl Case<'_> {
    /// The name of this run as a file name.
    pub fn label(&self) -> String {
        let hand_over = match self.hand_over {
            None => "",
            Some(true) => "-handover-on",
            Some(false) => "-handover-off",
        };
        format!("{}-{}{hand_over}", self.name, self.mpm.name())
    }
}

/// What a scenario has to tell.
#[derive(Debug, Default)]
pub struct Report {
    /// What was done to the daemon: `100 reloads (97 carried out)`.
    pub done: String,
    /// What the clients saw.
    pub seen: Seen,
    /// From HUP to ready as the daemon says it, milliseconds.
    pub reloads: Vec<u64>,
    /// Other figures, a line each.
    pub notes: Vec<String>,
    /// Broken rules.
    pub faults: Vec<String>,
    /// The scenario can't be played with this daemon, and why.
    pub skipped: Option<String>,
}

impl Report {
    /// Notes a broken rule unless `holds`.
    pub fn rule(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(otherwise());
        }
    }

    /// The rules of everything but a kill: every request answered, and nobody closed while resting.
    pub fn nothing_lost(&mut self) {
        if self.seen.lost() > 0 {
            self.faults.push(format!("{} requests lost", self.seen.lost()));
        }
        if !self.seen.idle_ends.is_empty() {
            self.faults.push(format!(
                "{} kept connections closed within their grace, without an answer that says so",
                self.seen.idle_ends.len()
            ));
        }
        self.everybody_was_served();
    }

    /// No kind of client has stood outside all the time.
    pub fn everybody_was_served(&mut self) {
        for ((kind, _), served) in crowd::CLIENTS.into_iter().zip(self.seen.by_kind) {
            if served == 0 {
                self.faults.push(format!("no {kind} client was ever served"));
            }
        }
    }
}

/// A daemon under test with its origin.
pub struct Rig<'c> {
    /// What is played.
    pub case: Case<'c>,
    /// The daemon.
    pub daemon: Daemon,
    /// What its log has said of reloads.
    pub words: Words,
    origin: Backend,
}

impl<'c> Rig<'c> {
    /// Starts a daemon under the case's driver; `extra` are further directives.
    pub fn start(case: Case<'c>, extra: &str) -> Self {
        let origin = crowd::origin();
        let home = Home::new();
        let words = Words::of(home.path("error.log"));
        let text = text(case, case.mpm, extra, &origin);
        let daemon = Daemon::at(home, &text);
        watch_over(daemon.master());
        Self { case, daemon, words, origin }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.daemon.address()
    }

    /// Writes another configuration; it is in force with the next reload.
    pub fn write(&self, mpm: Mpm, extra: &str) {
        self.daemon.home().write_whole(&text(self.case, mpm, extra, &self.origin));
    }

    /// Orders a reload and waits for its outcome.
    pub fn reload(&mut self) -> Outcome {
        self.words.read();
        let before = self.words.outcomes.len();
        self.daemon.signal(Signal::SIGHUP);
        self.outcome(before)
    }

    /// Waits for the outcome that comes after so many.
    pub fn outcome(&mut self, before: usize) -> Outcome {
        let begun = Instant::now();
        loop {
            self.words.read();
            if let Some(outcome) = self.words.outcomes.get(before) {
                return outcome.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "no outcome of a reload within {PATIENCE:?}");
            assert!(self.daemon.is_running() || self.heir_is_running(), "the master has ended");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until half a second has brought no outcome of a reload. An order that comes while another waits is one
    /// with it, so the last outcome is known by the silence after it.
    pub fn settle_reloads(&mut self) {
        wait_until("no reload under way", || {
            let known = self.words.outcomes.len();
            std::thread::sleep(Duration::from_millis(500));
            self.words.read();
            (self.words.outcomes.len() == known).then_some(())
        });
    }

    /// Whether the PidFile names a process that runs: after an upgrade the old master may leave before the new one
    /// has said that it serves.
    fn heir_is_running(&self) -> bool {
        self.daemon.home().read("ostler.pid").trim().parse().is_ok_and(processes::is_alive)
    }

    /// Goes on with the master that has taken over.
    pub fn follow(&self) {
        watch_over(self.daemon.follow());
    }

    /// Waits until all generations but the last have left and no child comes or goes any more.
    pub fn settle(&self) {
        const REST: Duration = Duration::from_millis(1200);
        let begun = Instant::now();
        let mut last = (Vec::new(), Instant::now());
        // Spare children come and go by steps of a second.
        while last.1.elapsed() < REST {
            let is_leaving = |child: &Child| child.is_alive() && child.is_leaving();
            let children = self.daemon.children();
            if children != last.0 || snapshot(&self.daemon).children.iter().any(is_leaving) {
                last = (children, Instant::now());
            }
            assert!(begun.elapsed() < PATIENCE * 2, "the daemon does not come to rest");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Looks the log over and ends the daemon. After a broken rule, tells what is known and keeps the evidence.
    pub fn end(self, mut report: Report) -> Played {
        let complaints = self.daemon.complaints();
        report.rule(complaints.is_empty(), || format!("the log complains:\n  {}", complaints.join("\n  ")));
        if report.faults.is_empty() || report.skipped.is_some() {
            return (report, None);
        }
        eprintln!("{}", self.daemon.report());
        // They have been told.
        self.daemon.tolerate("");
        let place = self.keep_evidence(&report);
        (report, Some(place))
    }

    /// Copies what tells of a failure to a directory that stays, and gives its name.
    fn keep_evidence(&self, report: &Report) -> PathBuf {
        let name = format!("ostler-stress-{}-{}", std::process::id(), self.case.label());
        let place = std::env::temp_dir().join(name);
        let _ = std::fs::create_dir_all(&place);
        let home = self.daemon.home();
        for name in files(&home.path("")) {
            let _ = std::fs::copy(home.path(&name), place.join(&name));
        }
        let notes = report.notes.iter().map(ToString::to_string);
        let losses = report.seen.notes.iter().map(ToString::to_string);
        let lines: Vec<String> = report.faults.iter().cloned().chain(notes).chain(losses).collect();
        let _ = std::fs::write(place.join("losses.txt"), lines.join("\n") + "\n");
        place
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log and what else there is: {}", self.keep_evidence(&Report::default()).display());
        }
    }
}

/// The scoreboard as it is now.
pub fn snapshot(daemon: &Daemon) -> Snapshot {
    Snapshot::read(&daemon.home().path("scoreboard")).expect("the daemon has a scoreboard")
}

fn text(case: Case<'_>, mpm: Mpm, extra: &str, origin: &Backend) -> String {
    let hand_over = match case.hand_over {
        None => "",
        Some(true) => "HandOver On\n",
        Some(false) => "HandOver Off\n",
    };
    format!("MPM {}\n{hand_over}{extra}ProxyPass / {}/", mpm.name(), origin.url())
}

/// What came of a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// A new generation serves, after so many milliseconds.
    Serving {
        /// Its number.
        generation: u32,
        /// From the order to ready.
        millis: u64,
    },
    /// The old one goes on.
    Refused,
    /// The daemon does not know how.
    NotBuilt,
}

/// The error log, read as it grows.
pub struct Words {
    path: PathBuf,
    offset: u64,
    rest: String,
    /// Outcomes of reloads, in order.
    pub outcomes: Vec<Outcome>,
}

impl Words {
    fn of(path: PathBuf) -> Self {
        Self { path, offset: 0, rest: String::new(), outcomes: Vec::new() }
    }

    /// Takes in what has been written since.
    pub fn read(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(self.offset)).and_then(|_| file.read_to_end(&mut bytes));
        self.offset += read.unwrap_or(0) as u64;
        self.rest += &String::from_utf8_lossy(&bytes);
        let Some(end) = self.rest.rfind('\n') else { return };
        let lines = self.rest.drain(..=end).collect::<String>();
        self.outcomes.extend(lines.lines().filter_map(outcome));
    }

    /// What each reload took that was carried out, in milliseconds.
    pub fn times(&self) -> Vec<u64> {
        self.outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Serving { millis, .. } => Some(*millis),
                Outcome::Refused | Outcome::NotBuilt => None,
            })
            .collect()
    }

    /// How many were refused.
    pub fn refused(&self) -> usize {
        self.outcomes.iter().filter(|outcome| **outcome == Outcome::Refused).count()
    }
}

/// `…] serving generation 5 (12 ms) (event) serving on …`, `…] reload refused, still serving generation 4`.
fn outcome(line: &str) -> Option<Outcome> {
    static SERVING: OnceLock<regex::Regex> = OnceLock::new();
    let pattern = SERVING.get_or_init(|| {
        regex::Regex::new(r"\] serving generation (\d+) \((\d+) (ms|s)").expect("a literal pattern")
    });
    if line.contains(" refused, still serving generation ") {
        return Some(Outcome::Refused);
    }
    if line.contains(": upgrade is not built yet, ") {
        return Some(Outcome::NotBuilt);
    }
    let found = pattern.captures(line)?;
    let unit = if &found[3] == "ms" { 1 } else { 1000 };
    Some(Outcome::Serving {
        generation: found[1].parse().ok()?,
        millis: found[2].parse::<u64>().ok()? * unit,
    })
}

/// What the program says of a configuration with this line, or `None` if it takes it.
pub fn refusal(line: &str) -> Option<String> {
    let home = Home::new();
    let config = home.write_whole(&format!("{line}\nProxyPass / http://127.0.0.1:9/"));
    let run = ostler(&["-t", "-f", &config.to_string_lossy()]);
    (run.code != Some(0)).then(|| run.stderr.lines().next().unwrap_or_default().to_owned())
}

/// The middle and the last of some numbers.
pub fn median_and_worst<T: Copy + Ord>(numbers: &[T]) -> Option<(T, T)> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
}

/// The files of a directory, sorted.
pub fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
