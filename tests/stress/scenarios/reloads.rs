//! Reloads: many, other MPMs, other limits, faulty ones.

use super::Played;
use crate::crowd::Crowd;
use crate::rig::{Case, Outcome, Report, Rig};
use crate::support::{Mpm, wait_until};
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// From one order to the next.
const PACE: Duration = Duration::from_millis(100);

/// Orders 100 ms apart whether or not the last one has been carried out.
pub fn plain(case: Case<'_>) -> Played {
    let mut rig = Rig::start(case, "");
    let crowd = Crowd::start(rig.address());
    let count = case.options.reloads(15, 100);
    let begun = Instant::now();
    for turn in 0..count {
        // The pace is the clock's, not that of a busy machine's sleep.
        std::thread::sleep((begun + PACE * turn).saturating_duration_since(Instant::now()));
        rig.daemon.signal(Signal::SIGHUP);
    }
    let before = rig.words.outcomes.len();
    rig.outcome(before);
    rig.settle_reloads();
    let mut report = Report { seen: crowd.finish(), reloads: rig.words.times(), ..Report::default() };
    report.done = format!("{count} HUP, {} carried out", report.reloads.len());
    report.nothing_lost();
    report.rule(rig.words.refused() == 0, || format!("{} reloads refused", rig.words.refused()));
    // Merging is right while one is under way; a daemon that does hardly any is not what this is for.
    report.rule(report.reloads.len() as u32 * 5 >= count, || "fewer than a fifth carried out".to_owned());
    rig.end(report)
}

/// Each reload changes the MPM: from each of the three to each other in six steps.
pub fn mpm(case: Case<'_>) -> Played {
    const CIRCLE: [Mpm; 3] = [Mpm::Event, Mpm::Worker, Mpm::Prefork];
    const WAY: [usize; 6] = [1, 2, 0, 2, 1, 0];
    let first = CIRCLE.iter().position(|mpm| *mpm == case.mpm).expect("all are in the circle");
    one_by_one(case, case.options.reloads(6, 20), "", |turn| {
        (CIRCLE[(first + WAY[turn as usize % WAY.len()]) % CIRCLE.len()], String::new())
    })
}

/// Each reload changes ServerLimit, and ThreadLimit where there is one.
pub fn limits(case: Case<'_>) -> Played {
    let sizes = [(4, 20), (8, 25), (3, 40), (16, 10), (2, 64)];
    let extra = |(servers, threads): (u32, u32)| match case.mpm {
        Mpm::Prefork => format!("ServerLimit {0}\nMaxRequestWorkers {0}\n", servers * threads),
        Mpm::Event | Mpm::Worker => format!(
            "ServerLimit {servers}\nThreadLimit {threads}\nThreadsPerChild {threads}\nMaxRequestWorkers {}\n",
            servers * threads
        ),
    };
    let first = extra(sizes[4]);
    one_by_one(case, case.options.reloads(4, 20), &first, |turn| (case.mpm, extra(sizes[turn as usize % 5])))
}

/// Reloads of changing configurations, each after the outcome of the last.
fn one_by_one(case: Case<'_>, count: u32, first: &str, next: impl Fn(u32) -> (Mpm, String)) -> Played {
    let mut rig = Rig::start(case, first);
    let crowd = Crowd::start(rig.address());
    let mut refused = 0;
    for turn in 0..count {
        let begun = Instant::now();
        let (mpm, extra) = next(turn);
        rig.write(mpm, &extra);
        refused += u32::from(rig.reload() == Outcome::Refused);
        std::thread::sleep(PACE.saturating_sub(begun.elapsed()).max(PACE / 2));
    }
    let mut report = Report { seen: crowd.finish(), reloads: rig.words.times(), ..Report::default() };
    report.done = format!("{count} reloads");
    report.nothing_lost();
    report.rule(refused == 0, || format!("{refused} reloads refused"));
    rig.end(report)
}

/// Faults of many kinds; the old generation must not even notice.
pub fn bad(case: Case<'_>) -> Played {
    let mut rig = Rig::start(case, "");
    rig.daemon.tolerate(":error]");
    let other = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let taken = other.local_addr().expect("it is bound");
    let faults = [
        "NoSuchDirective on\n".to_owned(),
        "CustomLog /nonexistent/access.log common\n".to_owned(),
        format!("Listen 127.0.0.1:0\nListen {taken}\n"),
        "Timeout soon\n".to_owned(),
        "PidFile other.pid\n".to_owned(),
        "Include /nonexistent/*.conf\n".to_owned(),
        "<VirtualHost *:80>\n".to_owned(),
        "ProxyPass /x http://no-such-host.invalid/\n".to_owned(),
    ];
    let crowd = Crowd::start(rig.address());
    wait_until("a served request", || (crowd.served() > 0).then_some(()));
    let count = case.options.reloads(8, 30);
    let mut report = Report::default();
    for turn in 0..count {
        let begun = Instant::now();
        let fault = &faults[turn as usize % faults.len()];
        rig.write(case.mpm, fault);
        let outcome = rig.reload();
        report.rule(outcome == Outcome::Refused, || format!("{fault:?} was not refused: {outcome:?}"));
        std::thread::sleep(PACE.saturating_sub(begun.elapsed()));
    }
    let generation = crate::rig::snapshot(&rig.daemon).server.generation;
    report.rule(generation == 1, || format!("generation {generation} serves, and none was good"));
    rig.write(case.mpm, "");
    let outcome = rig.reload();
    report.rule(matches!(outcome, Outcome::Serving { .. }), || format!("a good one after all: {outcome:?}"));
    report.seen = crowd.finish();
    report.done = format!("{count} faulty reloads, {} refused, then a good one", rig.words.refused());
    report.reloads = rig.words.times();
    report.nothing_lost();
    rig.end(report)
}
