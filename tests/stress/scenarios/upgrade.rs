//! New binaries in the place of the old, again and again.

use super::Played;
use crate::crowd::Crowd;
use crate::rig::{Case, Outcome, Report, Rig};
use crate::support::{PATIENCE, processes};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Upgrades, each after the new master serves and the one before it has gone.
pub fn play(case: Case<'_>) -> Played {
    let mut rig = Rig::start(case, "");
    let crowd = Crowd::start(rig.address());
    let mut report = Report::default();
    let mut done = 0;
    for turn in 1..=case.options.upgrades() {
        let old = rig.daemon.master();
        let before = rig.words.outcomes.len();
        rig.daemon.signal(Signal::SIGUSR2);
        match rig.outcome(before) {
            Outcome::Serving { .. } => {}
            Outcome::Refused => {
                report.faults.push(format!("upgrade {turn} was refused"));
                break;
            }
            Outcome::NotBuilt => {
                report.skipped = Some("this daemon refuses USR2: upgrade is not built yet".to_owned());
                break;
            }
        }
        rig.follow();
        done += 1;
        let begun = Instant::now();
        while processes::is_alive(old) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
        if processes::is_alive(old) {
            report.faults.push(format!("upgrade {turn}: the old master is still there after {PATIENCE:?}"));
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    report.seen = crowd.finish();
    report.reloads = rig.words.times();
    report.done = format!("{done} upgrades");
    if report.skipped.is_none() {
        report.nothing_lost();
    }
    rig.end(report)
}
