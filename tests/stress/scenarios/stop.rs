//! Graceful stops: what accept(2) has returned is answered.
//!
//! A client cannot tell whether the daemon ever had its connection: the kernel completes a connection by
//! itself and queues it at the listener, and whatever is still queued when the listener is closed is reset.
//! The daemon's account in the scoreboard tells: connections accepted less connections answered are those
//! that it had and lost, and there must be none. The other resets are the kernel's, and are shown apart.

use super::Played;
use crate::crowd::{Crowd, Loss};
use crate::rig::{Case, Report, Rig, snapshot};
use crate::support::wait_until;
use nix::sys::signal::Signal;
use std::time::Duration;

/// How long clients are at it before the order.
const WORK: Duration = Duration::from_millis(700);

/// Starts and stops daemons.
pub fn play(case: Case<'_>) -> Played {
    let mut report = Report::default();
    let rounds = case.options.rounds();
    let (mut unheard, mut times) = (0, Vec::new());
    for round in 1..=rounds {
        let mut rig = Rig::start(case, "");
        let crowd = Crowd::until_refused(rig.address());
        wait_until("served requests", || (crowd.served() > 100).then_some(()));
        std::thread::sleep(WORK);
        let begun = std::time::Instant::now();
        rig.daemon.signal(Signal::SIGTERM);
        let status = rig.daemon.wait_for_end();
        times.push(begun.elapsed().as_millis());
        let seen = crowd.wait();
        let accepted = snapshot(&rig.daemon).totals.accepted;
        let resets: u64 =
            seen.losses.iter().filter(|(loss, _)| loss.is_unheard()).map(|(_, count)| count).sum();
        let lost = seen.lost() - resets;
        report.rule(status.is_some_and(|status| status.success()), || {
            format!("round {round}: the master ended with {status:?}")
        });
        report.rule(accepted == seen.answered, || {
            format!(
                "round {round}: accept(2) returned {accepted} connections, {} were answered: {resets} ended \
                 without an answer",
                seen.answered
            )
        });
        report.rule(lost == 0, || format!("round {round}: {lost} requests lost on connections it had"));
        unheard += resets;
        report.seen.span += seen.span;
        let (span, failed) = (report.seen.span, !report.faults.is_empty());
        report.seen.add(seen);
        report.seen.span = span;
        if failed || round == rounds {
            finish(&mut report, round, unheard, &times);
            return rig.end(report);
        }
        if let (_, Some(place)) = rig.end(Report::default()) {
            return (report, Some(place));
        }
    }
    unreachable!("the last round returns")
}

fn finish(report: &mut Report, rounds: u32, unheard: u64, times: &[u128]) {
    report.done = format!("{rounds} graceful stops");
    report.everybody_was_served();
    if let Some((median, worst)) = crate::rig::median_and_worst(times) {
        report.notes.push(format!("from TERM to the master's end: median {median} ms, worst {worst} ms"));
    }
    let ends = report.seen.idle_ends.len();
    if ends > 0 {
        report
            .notes
            .push(format!("{ends} kept connections closed while no request was on them, as a stop may"));
    }
    if unheard > 0 {
        report.notes.push(format!(
            "{unheard} connections reset between connect(2) and accept(2): they were complete for the kernel, \
             which queues them at the listener, and still queued when the listener was closed"
        ));
        for loss in [Loss::Reset, Loss::Closed] {
            report.seen.losses.remove(&loss);
        }
    }
}
