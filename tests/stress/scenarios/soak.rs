//! A long life in short: many requests and reloads, after which everything is as it was.
//!
//! What is measured is measured at rest, without a client: once after the first reloads, when every cache has
//! its size, and once at the end. The tolerances stand in [`TOLERANCES`].

use super::Played;
use crate::crowd::{Crowd, Seen};
use crate::rest;
use crate::rig::{Case, Outcome, Report, Rig, files, snapshot};
use crate::support::processes;
use std::time::Duration;

/// What may have grown between the two measurements, and by how much.
const TOLERANCES: [(&str, u64); 8] = [
    ("descriptors of the master", 0),
    ("memory of the master, KiB", 512),
    ("memory of all together, KiB", 2048),
    ("children", 0),
    ("threads", 0),
    ("rows in use", 0),
    ("zombies", 0),
    ("files in the run directory", 0),
];

/// In the order of [`TOLERANCES`].
type Figures = [u64; 8];

/// Serves and reloads.
pub fn play(case: Case<'_>) -> Played {
    let mut rig = Rig::start(case, "");
    let mut report = Report::default();
    let (reloads, requests) = (case.options.reloads(5, 200), u64::from(case.options.requests()));
    phase(&mut rig, &mut report, reloads.div_ceil(10), requests.div_ceil(10));
    let (before, _) = measure(&mut rig);
    phase(&mut rig, &mut report, reloads, requests);
    let (after, listing) = measure(&mut rig);
    for ((name, tolerance), (before, after)) in TOLERANCES.iter().zip(before.into_iter().zip(after)) {
        report.notes.push(format!("{name}: {before} before, {after} after (at most {tolerance} more)"));
        report.rule(after <= before + tolerance, || format!("{name} grew from {before} to {after}"));
    }
    if report.faults.iter().any(|fault| fault.starts_with("files")) {
        report.notes.push(format!("files: {listing:?}"));
    }
    report.reloads = rig.words.times();
    report.done = format!("{} requests, {} reloads", report.seen.served, report.reloads.len());
    report.nothing_lost();
    report.rule(rig.words.refused() == 0, || format!("{} reloads refused", rig.words.refused()));
    rig.end(report)
}

/// So many requests, and so many reloads spread evenly among them.
fn phase(rig: &mut Rig<'_>, report: &mut Report, reloads: u32, requests: u64) {
    let crowd = Crowd::start(rig.address());
    let mut done = 0;
    while crowd.served() < requests || done < reloads {
        let due = u64::from(done) * requests / u64::from(reloads.max(1));
        if done < reloads && crowd.served() >= due {
            if rig.reload() == Outcome::Refused {
                break;
            }
            done += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let seen = crowd.finish();
    let span = report.seen.span + seen.span;
    report.seen.add(Seen { span, ..seen });
    report.seen.span = span;
}

/// Counts what is there once nothing moves, in a generation that has served nobody yet.
fn measure(rig: &mut Rig<'_>) -> (Figures, Vec<String>) {
    rig.settle();
    rig.reload();
    rig.settle();
    let master = rig.daemon.master();
    let children = rig.daemon.children();
    let tree: Vec<i32> = children.iter().copied().chain([master]).collect();
    let sum = |figure: &dyn Fn(i32) -> Option<u64>| tree.iter().filter_map(|pid| figure(*pid)).sum();
    let board = snapshot(&rig.daemon);
    let listing = files(&rig.daemon.home().path(""));
    let is_zombie = |process: &&processes::Process| process.parent == master && process.state == 'Z';
    let figures = [
        rest::descriptors(master).unwrap_or(0),
        processes::figure(master, "RssAnon").unwrap_or(0),
        sum(&rest::own_kib),
        children.len() as u64,
        sum(&|pid| processes::figure(pid, "Threads")),
        board.children.iter().filter(|child| child.is_alive()).count() as u64,
        processes::all().iter().filter(is_zombie).count() as u64,
        listing.len() as u64,
    ];
    (figures, listing)
}
