//! New binaries in the place of the old, again and again.

use super::Played;
use crate::crowd::Crowd;
use crate::rig::{Case, Report, Rig};
use crate::support::PATIENCE;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// What came of an order.
enum Change {
    /// Another master has the PidFile, after so long.
    Master(i32, Duration),
    /// The daemon's word that it does not do this.
    Refused(String),
    /// Nothing.
    Nothing,
}

/// Upgrades, each after the last has been carried out and the old master has gone.
pub fn play(case: Case<'_>) -> Played {
    let mut rig = Rig::start(case, "");
    let crowd = Crowd::start(rig.address());
    let mut report = Report::default();
    let mut times = Vec::new();
    for turn in 1..=case.options.upgrades() {
        match upgrade(&rig) {
            Change::Master(pid, took) => {
                times.push(took.as_millis() as u64);
                let has_left = rig.follow(pid);
                report.rule(has_left, || format!("upgrade {turn}: the old master stays"));
            }
            Change::Refused(line) => {
                report.skipped = Some(format!("this daemon refuses USR2: {line}"));
                break;
            }
            Change::Nothing => {
                report.faults.push(format!("upgrade {turn}: no new master within {PATIENCE:?}"));
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    report.seen = crowd.finish();
    report.done = format!("{} upgrades", times.len());
    report.reloads = times;
    if report.skipped.is_none() {
        report.nothing_lost();
    }
    rig.end(report)
}

fn upgrade(rig: &Rig<'_>) -> Change {
    let old = rig.daemon.master();
    let before = rig.daemon.log().len();
    rig.daemon.signal(Signal::SIGUSR2);
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let now: Option<i32> = rig.daemon.home().read("ostler.pid").trim().parse().ok();
        if let Some(now) = now.filter(|now| *now != old) {
            return Change::Master(now, begun.elapsed());
        }
        let log = rig.daemon.log();
        let news = log.get(before..).unwrap_or_default();
        if let Some(line) =
            news.lines().find(|line| line.contains("upgrade") && line.contains("still serving"))
        {
            return Change::Refused(line.to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Change::Nothing
}
