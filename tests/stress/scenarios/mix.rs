//! Everything at once that an administrator may do, in random order and at random times, on top of recycling.
//!
//! The orders do not wait for each other: a reload falls into an upgrade, a child is sent away while its
//! generation drains. What is ordered follows from the seed; when it is carried out, the machine decides.

use super::Played;
use crate::crowd::Crowd;
use crate::random::Random;
use crate::rest;
use crate::rig::{Case, Report, Rig, snapshot};
use crate::support::Mpm;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// Directives between which reloads change.
const EXTRAS: [&str; 4] = [
    "MaxRequestsPerChild 200\n",
    "",
    "MaxConnectionsPerChild 100\n",
    "ServerLimit 200\nKeepAliveTimeout 2\nMaxRequestsPerChild 500\n",
];

/// Orders at random for as long as is asked for.
pub fn play(case: Case<'_>) -> Played {
    let mut rig = Rig::start(case, EXTRAS[0]);
    rig.daemon.tolerate("refused");
    rig.daemon.tolerate("NoSuchDirective");
    // The one that is sent away may be of a generation that is only just coming up.
    rig.daemon.tolerate("the new generation does not come up: child");
    let crowd = Crowd::start(rig.address());
    let mut random = Random(case.options.seed);
    let (begun, span) = (Instant::now(), Duration::from_secs(case.options.seconds().into()));
    let (mut orders, mut mpm) = ([0_u32; 4], case.mpm);
    while begun.elapsed() < span {
        let order = random.below(4);
        orders[order] += 1;
        match order {
            0 => {
                rig.write(mpm, EXTRAS[random.below(EXTRAS.len())]);
                rig.daemon.signal(Signal::SIGHUP);
            }
            1 => {
                mpm = [Mpm::Event, Mpm::Worker, Mpm::Prefork][random.below(3)];
                rig.write(mpm, EXTRAS[random.below(EXTRAS.len())]);
                rig.daemon.signal(Signal::SIGUSR1);
            }
            2 => {
                rig.write(mpm, "NoSuchDirective\n");
                rig.daemon.signal(Signal::SIGHUP);
            }
            _ => {
                let children = rest::children(rig.daemon.master());
                if !children.is_empty() {
                    // It may have gone since.
                    let _ = kill(Pid::from_raw(children[random.below(children.len())]), Signal::SIGTERM);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(random.below(150) as u64));
    }
    rig.write(mpm, "");
    rig.settle_reloads();
    rig.reload();
    let mut report = Report { seen: crowd.finish(), reloads: rig.words.times(), ..Report::default() };
    let totals = snapshot(&rig.daemon).totals;
    report.done = format!(
        "{} reloads ordered, {} to another MPM, {} faulty; {} children sent away; {} came",
        orders[0] + orders[1] + orders[2],
        orders[1],
        orders[2],
        orders[3],
        totals.children_started
    );
    report.nothing_lost();
    report.rule(totals.children_failed == 0, || format!("{} children failed", totals.children_failed));
    rig.end(report)
}
