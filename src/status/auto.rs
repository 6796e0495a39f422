//! `?auto`: httpd's machine-readable status, key for key and in httpd's order.
//!
//! Collectors in the field read these lines and nothing else, and some refuse a page on one unknown key; so
//! nothing is added here. What else we know is in [`json`](super::json).

use crate::scoreboard::snapshot::{Child, Snapshot, Worker};
use crate::scoreboard::state::WorkerState;
use crate::status::Now;
use crate::status::figures::{date, general, words};
use crate::status::tally::Tally;
use std::fmt::Write;

/// When the program was built, if whoever built it said so.
const BUILT: &str = match option_env!("OSTLER_BUILD_DATE") {
    Some(date) => date,
    None => "unknown",
};

/// The page.
#[must_use]
pub fn page(snapshot: &Snapshot, now: &Now) -> String {
    let mut page = String::new();
    // Writing to a String can't fail.
    let _ = write(&mut page, snapshot, now);
    page
}

fn write(page: &mut String, snapshot: &Snapshot, now: &Now) -> std::fmt::Result {
    let server = &snapshot.server;
    let tally = Tally::of(snapshot, now);
    let name = if server.server_name.is_empty() { "localhost" } else { &server.server_name };
    writeln!(page, "{name}")?;
    writeln!(page, "ServerVersion: {}", server.version)?;
    writeln!(page, "ServerMPM: {}", server.mpm)?;
    writeln!(page, "Server Built: {BUILT}")?;
    writeln!(page, "CurrentTime: {}", date(now.wall_micros, &now.zone))?;
    writeln!(page, "RestartTime: {}", date(server.started_wall, &now.zone))?;
    writeln!(page, "ParentServerConfigGeneration: {}", server.config_reads)?;
    // httpd counts from 0.
    writeln!(page, "ParentServerMPMGeneration: {}", server.generation.saturating_sub(1))?;
    writeln!(page, "ServerUptimeSeconds: {}", tally.uptime_seconds())?;
    let uptime = words(tally.uptime_seconds());
    writeln!(page, "ServerUptime:{}{uptime}", if uptime.is_empty() { "" } else { " " })?;
    for (key, value) in ["Load1", "Load5", "Load15"].into_iter().zip(snapshot.load.unwrap_or([-1.0; 3])) {
        writeln!(page, "{key}: {value:.2}")?;
    }
    if server.extended {
        write_extended(page, snapshot, &tally)?;
    }
    writeln!(page, "BusyWorkers: {}", tally.busy)?;
    writeln!(page, "GracefulWorkers: {}", tally.graceful)?;
    writeln!(page, "IdleWorkers: {}", tally.idle)?;
    if server.mpm == "event" {
        let connections = &tally.connections;
        writeln!(page, "Processes: {}", tally.processes)?;
        writeln!(page, "Stopping: {}", tally.leaving)?;
        writeln!(page, "ConnsTotal: {}", connections.total)?;
        writeln!(page, "ConnsAsyncWaitIO: {}", connections.wait_io)?;
        writeln!(page, "ConnsAsyncWriting: {}", connections.writing)?;
        writeln!(page, "ConnsAsyncKeepAlive: {}", connections.keep_alive)?;
        writeln!(page, "ConnsAsyncClosing: {}", connections.closing)?;
    }
    writeln!(page, "Scoreboard: {}", letters(snapshot))
}

fn write_extended(page: &mut String, snapshot: &Snapshot, tally: &Tally) -> std::fmt::Result {
    // Also where they are not of one moment (`settled`), and a child may be missing or counted twice. Without these
    // lines check_httpd_status warns, and takes all of the next page's for what has come since; Munin asks for them by
    // name before it watches a server at all.
    let totals = &snapshot.totals;
    writeln!(page, "Total Accesses: {}", totals.requests)?;
    writeln!(page, "Total kBytes: {}", totals.bytes_out / 1024)?;
    writeln!(page, "Total Duration: {}", totals.duration / 1000)?;
    let uptime = tally.uptime_seconds();
    // As httpd where it can't ask for times: a zero would be a counter that steps back.
    if let Some(usage) = &snapshot.usage {
        let times = [usage.living.user, usage.living.system, usage.ended.user, usage.ended.system];
        for (key, value) in
            ["CPUUser", "CPUSystem", "CPUChildrenUser", "CPUChildrenSystem"].into_iter().zip(times)
        {
            writeln!(page, "{key}: {}", general(value))?;
        }
        let cpu: f64 = times.iter().sum();
        if cpu > 0.0 && uptime > 0 {
            writeln!(page, "CPULoad: {}", general(100.0 * cpu / uptime as f64))?;
        }
    }
    writeln!(page, "Uptime: {uptime}")?;
    let rates = &tally.rates;
    for (key, value) in [
        ("ReqPerSec", rates.requests),
        ("BytesPerSec", rates.bytes),
        ("BytesPerReq", rates.bytes_per_request),
        ("DurationPerReq", rates.millis_per_request),
    ] {
        if let Some(value) = value {
            writeln!(page, "{key}: {}", general(value))?;
        }
    }
    Ok(())
}

/// One letter per worker, child by child; then dots for children that there could be, so that a server at rest
/// shows MaxRequestWorkers letters. In a child that is leaving, what is busy is `G` and the rest is gone.
#[must_use]
pub fn letters(snapshot: &Snapshot) -> String {
    let server = &snapshot.server;
    let alive: Vec<&Child> = snapshot.children.iter().filter(|child| child.is_alive()).collect();
    let threads = server.threads_per_child.clamp(1, server.thread_limit.max(1)) as usize;
    // Not more than the board could hold, whatever a damaged header says.
    let most = u64::from(server.max_request_workers).min(u64::from(server.slots) * threads as u64);
    let most = usize::try_from(most).unwrap_or(0);
    let mut vacant = (most / threads).saturating_sub(alive.len());
    let mut letters = String::with_capacity(most);
    let mut next_slot = 0;
    for child in alive {
        // Free slots stand where they are, the lowest first.
        while next_slot < child.slot && vacant > 0 {
            letters.extend(std::iter::repeat_n('.', threads));
            next_slot += 1;
            vacant -= 1;
        }
        next_slot = child.slot.saturating_add(1);
        letters.extend(child.workers.iter().map(|worker| letter(worker, child.is_leaving())));
    }
    letters.extend(std::iter::repeat_n('.', vacant * threads));
    letters
}

fn letter(worker: &Worker, leaving: bool) -> char {
    match worker.state {
        // A row that makes no sense counts as dead; httpd has no letter for it.
        None => WorkerState::Dead.letter(),
        Some(_) if leaving => {
            (if worker.is_busy() { WorkerState::Graceful } else { WorkerState::Dead }).letter()
        }
        Some(state) => state.letter(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::life::{CpuTime, Usage};
    use crate::status::tests::example;

    #[test]
    fn the_page_is_httpds_key_for_key() {
        let (mut snapshot, now) = example();
        snapshot.load = Some([11.96, 5.76, 2.4]);
        let cpu = |user, system| CpuTime { user, system };
        snapshot.usage = Some(Usage { living: cpu(0.5, 0.25), ended: cpu(0.0, 0.25) });
        let want = "\
www.example.org
ServerVersion: Ostler/0.1.0
ServerMPM: event
Server Built: unknown
CurrentTime: Tuesday, 14-Nov-2023 22:13:30 UTC
RestartTime: Tuesday, 14-Nov-2023 22:13:20 UTC
ParentServerConfigGeneration: 1
ParentServerMPMGeneration: 0
ServerUptimeSeconds: 10
ServerUptime: 10 seconds
Load1: 11.96
Load5: 5.76
Load15: 2.40
Total Accesses: 3
Total kBytes: 5
Total Duration: 6
CPUUser: 0.5
CPUSystem: 0.25
CPUChildrenUser: 0
CPUChildrenSystem: 0.25
CPULoad: 10
Uptime: 10
ReqPerSec: 0.3
BytesPerSec: 600
BytesPerReq: 2000
DurationPerReq: 2
BusyWorkers: 1
GracefulWorkers: 1
IdleWorkers: 3
Processes: 2
Stopping: 1
ConnsTotal: 6
ConnsAsyncWaitIO: 0
ConnsAsyncWriting: 0
ConnsAsyncKeepAlive: 4
ConnsAsyncClosing: 0
Scoreboard: W___G...
";
        assert_eq!(page(&snapshot, &now), want.replace("unknown", BUILT));
    }

    #[test]
    fn keys_that_mean_nothing_are_left_out() {
        let (mut snapshot, mut now) = example();
        snapshot.server.extended = false;
        snapshot.server.mpm = "prefork".into();
        now.moment = snapshot.server.started;
        let page = page(&snapshot, &now);
        let keys: Vec<&str> =
            page.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "ServerVersion",
                "ServerMPM",
                "Server Built",
                "CurrentTime",
                "RestartTime",
                "ParentServerConfigGeneration",
                "ParentServerMPMGeneration",
                "ServerUptimeSeconds",
                "ServerUptime",
                "Load1",
                "Load5",
                "Load15",
                "BusyWorkers",
                "GracefulWorkers",
                "IdleWorkers",
                "Scoreboard"
            ]
        );
        assert!(page.contains("ServerUptime:\n") && page.contains("Load1: -1.00\n"));
    }

    #[test]
    fn processor_times_that_nobody_knows_are_no_zeros() {
        let (mut snapshot, now) = example();
        snapshot.usage = None;
        let page = page(&snapshot, &now);
        assert!(page.contains("\nTotal Duration: 6\nUptime: 10\n") && !page.contains("CPU"), "{page}");
    }

    #[test]
    fn at_rest_there_are_max_request_workers_letters() {
        let (mut snapshot, _) = example();
        for (max, keep, want) in [
            (8, vec![], "........"),
            (8, vec![0], "W___...."),
            (8, vec![1], "....G..."),
            (12, vec![0, 1], "W___G......."),
            (4, vec![0, 1], "W___G..."),
            (0, vec![], ""),
        ] {
            snapshot.server.max_request_workers = max;
            let mut shown = snapshot.clone();
            shown.children.retain(|child| keep.contains(&child.slot));
            assert_eq!(letters(&shown), want, "{max} {keep:?}");
        }
        snapshot.server.max_request_workers = u32::MAX;
        snapshot.server.threads_per_child = u32::MAX;
        assert!(letters(&snapshot).len() <= 16);
    }
}
