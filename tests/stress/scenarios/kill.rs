//! `kill -9` of random children: nobody but who was connected to the dead one may notice.
//!
//! The child is stopped first, so that the scoreboard says for certain how many connections it holds when it
//! dies, then killed. Every connection that ends from then on must be one of those: what was seen in vain is
//! set against the deaths before it, the last first, and none may be left over. How long the place stays empty
//! is measured from the kill until the kernel lists as many children as before.

use super::Played;
use crate::crowd::Crowd;
use crate::random::Random;
use crate::rest;
use crate::rig::{Case, Report, Rig, median_and_worst, snapshot};
use crate::support::{Mpm, processes, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// How long after a kill a client may come upon it, on a machine that has much else to do.
const ECHO: Duration = Duration::from_secs(5);

/// A child's end.
struct Death {
    at: Instant,
    /// Connections it had. One more may have been on its way from accept(2) to the scoreboard.
    held: u64,
    /// Connections that have ended and are set against this death.
    ended: u64,
    /// Of these, with a request on them.
    lost: u64,
    /// Until there were as many children as before.
    back: Duration,
}

/// A number of children that stays the same, so that *as many as before* has a meaning.
fn sizes(mpm: Mpm) -> &'static str {
    match mpm {
        Mpm::Prefork => {
            "ServerLimit 64\nStartServers 64\nMaxRequestWorkers 64\nMinSpareServers 64\nMaxSpareServers 65\n"
        }
        Mpm::Event | Mpm::Worker => {
            "ServerLimit 4\nStartServers 4\nThreadsPerChild 25\nMaxRequestWorkers 100\nMinSpareThreads 100\n"
        }
    }
}

/// Kills one after the other.
pub fn play(case: Case<'_>) -> Played {
    let rig = Rig::start(case, sizes(case.mpm));
    let children = if case.mpm.is_prefork() { 64 } else { 4 };
    rig.daemon.wait_for_children(children);
    rig.daemon.tolerate("killed by SIGKILL");
    let crowd = Crowd::start(rig.address());
    wait_until("served requests", || (crowd.served() > 100).then_some(()));
    let mut random = Random(case.options.seed);
    let mut report = Report::default();
    let mut deaths = Vec::new();
    for _ in 0..case.options.kills() {
        let pids = wait_until("as many children as there were", || {
            let pids = living(rig.daemon.master());
            (pids.len() == children).then_some(pids)
        });
        let victim = pids[random.below(pids.len())];
        let Some(death) = end(&rig, victim, children) else {
            report.faults.push(format!("child {victim} was not replaced within {ECHO:?}"));
            break;
        };
        deaths.push(death);
        std::thread::sleep(Duration::from_millis(20 + random.below(60) as u64));
    }
    std::thread::sleep(Duration::from_millis(300));
    report.seen = crowd.finish();
    report.done = format!("{} children killed", deaths.len());
    judge(&mut report, &mut deaths, case.mpm);
    let times: Vec<u128> = deaths.iter().map(|death| death.back.as_micros()).collect();
    if let Some((median, worst)) = median_and_worst(&times) {
        let millis = |micros: u128| micros as f64 / 1000.0;
        report.notes.push(format!(
            "from kill to as many children as before: median {:.1} ms, worst {:.1} ms",
            millis(median),
            millis(worst)
        ));
    }
    rig.end(report)
}

/// The children that live, as the kernel lists them.
fn living(master: i32) -> Vec<i32> {
    rest::children(master).into_iter().filter(|pid| processes::is_alive(*pid)).collect()
}

/// Stops, looks up and kills a child; `None` if its place stays empty.
fn end(rig: &Rig<'_>, victim: i32, children: usize) -> Option<Death> {
    let (master, pid) = (rig.daemon.master(), Pid::from_raw(victim));
    kill(pid, Signal::SIGSTOP).expect("it is a child of the daemon");
    wait_until("a stopped child", || {
        processes::look(victim).filter(|process| matches!(process.state, 'T' | 'Z')).map(drop)
    });
    let board = snapshot(&rig.daemon);
    let row = board.children.iter().find(|child| child.pid as i32 == victim);
    let held = row.map_or(0, |child| u64::from(child.connections.total));
    // Before the call: a client may hear of it sooner than this thread.
    let at = Instant::now();
    kill(pid, Signal::SIGKILL).expect("it is stopped, not gone");
    loop {
        let others = rest::children(master).into_iter().filter(|child| *child != victim).count();
        let back = at.elapsed();
        if others >= children {
            return Some(Death { at, held, ended: 0, lost: 0, back });
        }
        if back > ECHO {
            return None;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Sets every connection that ended in vain against a death.
fn judge(report: &mut Report, deaths: &mut [Death], mpm: Mpm) {
    let most = |death: &Death| if mpm.is_prefork() { 1 } else { death.held + 1 };
    let mut set = |at: Instant, is_loss: bool| {
        let may = |death: &&mut Death| death.at <= at && at - death.at < ECHO && death.ended < most(death);
        let Some(death) = deaths.iter_mut().rev().find(may) else { return false };
        death.ended += 1;
        death.lost += u64::from(is_loss);
        true
    };
    let at_rest = report.seen.idle_ends.iter().filter(|at| !set(**at, false)).count();
    let unexplained: Vec<String> = report
        .seen
        .notes
        .iter()
        .filter(|note| !(note.loss.is_by_death() && set(note.at, true)))
        .map(ToString::to_string)
        .collect();
    let sum = |figure: fn(&Death) -> u64| deaths.iter().map(figure).sum::<u64>();
    report.notes.push(format!(
        "the dead held {} connections: {} were lost with a request on them, at most {} by one death; {} ended at rest",
        sum(|death| death.held),
        sum(|death| death.lost),
        deaths.iter().map(|death| death.lost).max().unwrap_or(0),
        report.seen.idle_ends.len()
    ));
    report.rule(unexplained.is_empty(), || {
        format!("{} losses that no death explains:\n  {}", unexplained.len(), unexplained.join("\n  "))
    });
    report.rule(at_rest == 0, || format!("{at_rest} connections ended at rest that no death explains"));
    report.everybody_was_served();
}
