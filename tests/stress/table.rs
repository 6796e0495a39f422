//! What a run has shown, for people to read.

use crate::crowd::time_of_day;
use crate::rig::{Report, median_and_worst};
use crate::scenarios::SCENARIOS;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// One scenario under one driver.
pub struct Row {
    /// Both.
    pub label: String,
    /// How long it took.
    pub took: Duration,
    /// What it told.
    pub report: Report,
    /// Where the evidence of a failure lies.
    pub evidence: Option<PathBuf>,
}

impl Row {
    fn verdict(&self) -> &'static str {
        match (&self.report.skipped, self.report.faults.is_empty()) {
            (Some(_), _) => "not built",
            (None, true) => "ok",
            (None, false) => "BROKEN",
        }
    }
}

/// What there is to play.
pub fn scenarios() -> String {
    SCENARIOS.iter().fold(String::new(), |mut text, scenario| {
        let _ = writeln!(text, "{:13} {}", scenario.name, scenario.about);
        text
    })
}

/// One run in full.
pub fn told(row: &Row) -> String {
    let Report { done, seen, notes, faults, skipped, .. } = &row.report;
    let mut text = format!("{}: {} ({:.1} s)\n  {done}\n", row.label, row.verdict(), row.took.as_secs_f64());
    let mut line = |words: String| {
        let _ = writeln!(text, "  {words}");
    };
    if let Some(why) = skipped {
        line(why.clone());
    }
    line(format!(
        "{} served ({} on connections that said close) over {} connections, {:.0} a second; slowest {:.0} ms at {}",
        seen.served,
        seen.farewells,
        seen.connections,
        seen.rate(),
        seen.slowest.as_secs_f64() * 1000.0,
        seen.slowest_at.map_or("no time".to_owned(), time_of_day)
    ));
    for (loss, count) in &seen.losses {
        line(format!("lost, {loss}: {count}"));
    }
    if !seen.idle_ends.is_empty() {
        line(format!("closed while at rest, seen before the next request: {}", seen.idle_ends.len()));
    }
    notes.iter().for_each(|note| line(note.clone()));
    faults.iter().for_each(|fault| line(format!("BROKEN: {fault}")));
    if !faults.is_empty() {
        seen.notes.iter().take(10).for_each(|note| line(note.to_string()));
    }
    if let Some(place) = &row.evidence {
        line(format!("configuration, log and losses: {}", place.display()));
    }
    text
}

/// All runs, a line each.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:28} {:>9} {:>7} {:>5} {:>6} {:>15} {:>10}  {:9} {}\n",
        "run", "served", "per s", "lost", "closed", "ready, ms", "slowest,ms", "verdict", "what was done"
    );
    for row in rows {
        let Report { done, seen, reloads, .. } = &row.report;
        let ready =
            median_and_worst(reloads).map_or("-".to_owned(), |(median, worst)| format!("{median} / {worst}"));
        let kinds: Vec<String> = seen.losses.iter().map(|(loss, count)| format!("{count} {loss}")).collect();
        let lost = if kinds.is_empty() { String::new() } else { format!("; lost: {}", kinds.join(", ")) };
        let _ = writeln!(
            text,
            "{:28} {:>9} {:>7.0} {:>5} {:>6} {:>15} {:>10.0}  {:9} {done}{lost}",
            row.label,
            seen.served,
            seen.rate(),
            seen.lost(),
            seen.idle_ends.len(),
            ready,
            seen.slowest.as_secs_f64() * 1000.0,
            row.verdict()
        );
    }
    text += "ready: from the order to the new generation's (or master's) word, median / worst. closed: kept \
             connections that ended while at rest.\n";
    text
}
