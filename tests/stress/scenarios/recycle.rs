//! Children that come and go all the time because each may serve few requests only.

use super::Played;
use crate::crowd::Crowd;
use crate::rig::{Case, Report, Rig, snapshot};
use std::time::Duration;

/// Requests a child may serve.
const REQUESTS: u32 = 50;

/// Recycles for as long as is asked for.
pub fn play(case: Case<'_>) -> Played {
    let rig = Rig::start(case, &format!("MaxRequestsPerChild {REQUESTS}\n"));
    let before = snapshot(&rig.daemon).totals;
    let crowd = Crowd::start(rig.address());
    std::thread::sleep(Duration::from_secs(case.options.seconds().into()));
    let mut report = Report { seen: crowd.finish(), ..Report::default() };
    let totals = snapshot(&rig.daemon).totals;
    let (started, ended) =
        (totals.children_started - before.children_started, totals.children_ended - before.children_ended);
    report.done = format!("{ended} children recycled, {started} started");
    report.nothing_lost();
    report.rule(ended > 0, || "no child was ever recycled".to_owned());
    report.rule(totals.children_failed == 0, || format!("{} children failed", totals.children_failed));
    rig.end(report)
}
