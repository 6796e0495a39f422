//! The status for a terminal: what `ostler status` prints.

use crate::clock::Moment;
use crate::scoreboard::snapshot::{Child, Life, Request, Shown, Snapshot, Worker};
use crate::scoreboard::state::{Stage, WorkerState};
use crate::status::Now;
use crate::status::figures::{bytes, date, grouped, per, span, stamp, words};
use crate::status::tally::{Tally, since_request};
use std::fmt::{Result, Write};

/// Letters to a line.
const WIDTH: usize = 64;

/// The whole report.
#[must_use]
pub fn page(snapshot: &Snapshot, now: &Now) -> String {
    let tally = Tally::of(snapshot, now);
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = write(&mut text, snapshot, &tally, now);
    text
}

fn write(text: &mut String, snapshot: &Snapshot, tally: &Tally, now: &Now) -> Result {
    write_server(text, snapshot, tally, now)?;
    write_sums(text, snapshot, tally)?;
    write_children(text, snapshot, tally)?;
    write_requests(text, snapshot, tally, now)?;
    write_backends(text, snapshot)
}

fn write_server(text: &mut String, snapshot: &Snapshot, tally: &Tally, now: &Now) -> Result {
    let server = &snapshot.server;
    let title = [&server.version, &server.server_name].map(String::as_str);
    writeln!(text, "{}", title.join(" ").trim())?;
    writeln!(text, "{}", life(snapshot, tally, now))?;
    writeln!(
        text,
        "generation {} since {}; mpm {}; {} x {} threads",
        server.generation,
        date(server.generation_wall, &now.zone),
        server.mpm,
        server.max_request_workers.checked_div(server.threads_per_child).unwrap_or(0),
        server.threads_per_child,
    )?;
    for (label, value) in [("config", &server.config_path), ("listening on", &server.listeners)] {
        if !value.is_empty() {
            writeln!(text, "{label} {value}")?;
        }
    }
    if let Some(reload) = &server.last_reload {
        let outcome = if reload.done { "done" } else { "refused" };
        write!(text, "last reload or upgrade {outcome} at {}", date(reload.wall, &now.zone))?;
        writeln!(text, "{}{}", if reload.text.is_empty() { "" } else { ": " }, reload.text)?;
    }
    if server.reloads_refused > 0 {
        writeln!(text, "reloads and upgrades refused so far: {}", server.reloads_refused)?;
    }
    writeln!(text)
}

/// Whether it runs, in a sentence.
#[must_use]
pub fn life(snapshot: &Snapshot, tally: &Tally, now: &Now) -> String {
    let server = &snapshot.server;
    let pid = server.master_pid;
    let last = || date(snapshot.wall_of(snapshot.last_sign()).min(now.wall_micros), &now.zone);
    match snapshot.life {
        Life::Running => {
            let uptime = words(tally.uptime_seconds());
            let since = date(server.started_wall, &now.zone);
            let ending = match tally.leaving {
                _ if !tally.is_ending() => String::new(),
                1 => "; stopping: 1 child finishes, nobody takes new connections".to_owned(),
                count => format!("; stopping: {count} children finish, nobody takes new connections"),
            };
            format!(
                "running for {} (since {since}), master {pid}{ending}",
                if uptime.is_empty() { "0 seconds" } else { &uptime }
            )
        }
        Life::Stopped => {
            let when = server.stopped_wall.unwrap_or_default();
            format!("not running since {}: it was stopped; this is how it ended", date(when, &now.zone))
        }
        Life::Dead => format!(
            "not running since {} or later: master {pid} is gone without a word; this is what its workers held",
            last()
        ),
        Life::BeforeReboot => format!(
            "not running since {} or later: the machine has been started anew; this is what its workers held",
            last()
        ),
        Life::Unknown => {
            format!("master {pid} can't be seen from here; last sign of life {}", last())
        }
    }
}

/// What is to be said of sums that are not of one moment.
#[must_use]
pub fn unsettled(life: Life) -> &'static str {
    match life {
        Life::Running => {
            "may count a child twice or not at all: the master is adding up children that have ended"
        }
        Life::Unknown => {
            "may count a child twice or not at all: the master is adding up children that have ended, or ended itself \
             while it was"
        }
        Life::Stopped | Life::Dead | Life::BeforeReboot => {
            "may count a child twice: the master ended while it was adding up"
        }
    }
}

fn write_sums(text: &mut String, snapshot: &Snapshot, tally: &Tally) -> Result {
    let server = &snapshot.server;
    let totals = &snapshot.totals;
    let connections = &tally.connections;
    writeln!(
        text,
        "workers      {} busy, {} idle, {} finishing; spare {} to {}, at most {}{}",
        tally.busy,
        tally.idle,
        tally.graceful,
        server.min_spare,
        server.max_spare,
        server.max_request_workers,
        if tally.is_full(server.max_request_workers) { ": reached, further clients wait" } else { "" }
    )?;
    write_letters(text, tally)?;
    writeln!(
        text,
        "connections  {} open: {} kept alive, {} coming in, {} going out, {} closing, {} tunnels; {} accepted, \
         {} handed over",
        connections.total,
        connections.keep_alive,
        connections.wait_io,
        connections.writing,
        connections.closing,
        connections.tunnels,
        grouped(totals.accepted),
        grouped(totals.handed_over)
    )?;
    write!(text, "requests     {}", grouped(totals.requests))?;
    if let Some(rate) = tally.rates.requests {
        write!(text, ", {}/s", per(rate))?;
    }
    write!(text, "; {} in, {} out", bytes(totals.bytes_in), bytes(totals.bytes_out))?;
    if let Some(rate) = tally.rates.bytes {
        write!(text, ", {}/s out", bytes(rate as u64))?;
    }
    writeln!(text)?;
    let quantile = |per_mille| totals.latency.quantile(per_mille).map(span);
    if let (Some(half), Some(most), Some(worst)) = (quantile(500), quantile(990), quantile(999)) {
        writeln!(text, "latency      median {half}, p99 {most}, p99.9 {worst}")?;
    }
    writeln!(
        text,
        "children     {} ready, {} starting, {} draining; {} started, {} ended, {} by a fault; {} panics",
        tally.processes - tally.leaving - tally.starting,
        tally.starting,
        tally.leaving,
        grouped(totals.children_started),
        grouped(totals.children_ended),
        grouped(totals.children_failed),
        grouped(totals.panics)
    )?;
    if let Some(groom) = &server.groom {
        let age = span(tally.as_of.micros_since(groom.started));
        write!(text, "groom        {} for {age}, answers for StatusListen", groom.pid)?;
        match server.grooms_replaced {
            0 => writeln!(text)?,
            count => writeln!(text, "; {} before it died", grouped(count.into()))?,
        }
    }
    if tally.generations.len() > 1 {
        for generation in &tally.generations {
            writeln!(
                text,
                "generation   {}: {} children ({} draining), {} busy, {} idle",
                generation.generation,
                generation.children,
                generation.leaving,
                generation.busy,
                generation.idle
            )?;
        }
    }
    if !snapshot.settled {
        writeln!(text, "the sums {}", unsettled(snapshot.life))?;
    }
    Ok(())
}

/// How many workers do what, by their letters.
fn write_letters(text: &mut String, tally: &Tally) -> Result {
    let states = WorkerState::ALL.iter().zip(tally.letters).filter(|(_, count)| *count > 0);
    let parts: Vec<String> =
        states.map(|(state, count)| format!("{count} {} {}", state.letter(), state.meaning())).collect();
    if parts.is_empty() { Ok(()) } else { writeln!(text, "letters      {}", parts.join(", ")) }
}

fn write_children(text: &mut String, snapshot: &Snapshot, tally: &Tally) -> Result {
    let shown: Vec<&Child> =
        snapshot.children.iter().filter(|child| child.stage != Some(Stage::Free)).collect();
    if shown.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n slot      pid  gen      age  stage      conns  requests       sent   busy  workers")?;
    for child in shown {
        let letters: Vec<char> = child.workers.iter().map(Worker::letter).collect();
        let mut lines = letters.chunks(WIDTH).map(|line| line.iter().collect::<String>());
        let busy = child.workers.iter().filter(|worker| worker.is_busy()).count();
        let sum = |of: fn(&Worker) -> u64| child.workers.iter().map(of).fold(0, u64::saturating_add);
        writeln!(
            text,
            "{:>5} {:>8} {:>4} {:>8}  {:<9} {:>6} {:>9} {:>10} {:>6}  {}",
            child.slot,
            child.pid,
            child.generation,
            span(tally.as_of.micros_since(child.started)),
            child.stage.map_or("?", Stage::name),
            child.connections.total,
            sum(|worker| worker.requests),
            bytes(sum(|worker| worker.bytes_out)),
            busy,
            lines.next().unwrap_or_default()
        )?;
        for line in lines {
            writeln!(text, "{:75}{line}", "")?;
        }
    }
    Ok(())
}

/// What the busy ones do, the one that has been at it longest first.
fn write_requests(text: &mut String, snapshot: &Snapshot, tally: &Tally, now: &Now) -> Result {
    let busy = snapshot.children.iter().filter(|child| child.extended).flat_map(|child| {
        child.workers.iter().filter(|worker| worker.is_busy()).map(move |worker| (child, worker))
    });
    let mut busy: Vec<_> = busy
        .map(|(child, worker)| (since_request(worker, tally.as_of).unwrap_or(0), child, worker))
        .collect();
    if busy.is_empty() {
        return Ok(());
    }
    busy.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
    // A server that runs is looked at now; of one that is gone, somebody will want to find the hour in its logs.
    let gone = !matches!(snapshot.life, Life::Running | Life::Unknown);
    let since = if gone { "since                " } else { "" };
    writeln!(text, "\n slot-worker      tid      for  {since}client, host, request, backend")?;
    for (since, child, worker) in busy {
        write!(
            text,
            "{:>5}-{:<4} {} {:>8} {:>8}  ",
            child.slot,
            worker.index,
            worker.letter(),
            worker.tid,
            span(since)
        )?;
        match &worker.request {
            Shown::Request(request) => {
                if gone {
                    write!(text, "{}  ", stamp(snapshot.wall_of(Moment(request.started)), &now.zone))?;
                }
                writeln!(text, "{}{}", facts(request), backend(snapshot, worker))?;
            }
            Shown::Nothing => writeln!(text, "no request yet")?,
            Shown::Torn => writeln!(text, "(changing)")?,
        }
    }
    Ok(())
}

fn facts(request: &Request) -> String {
    let client = request.client.map_or_else(|| "?".to_owned(), |client| client.to_string());
    let host = match (request.host.as_str(), request.host_cut) {
        ("", _) => "-".to_owned(),
        (host, false) => host.to_owned(),
        (host, true) => format!("{host}..."),
    };
    format!("{client} {host} \"{}\"", request.shown_line())
}

fn backend(snapshot: &Snapshot, worker: &Worker) -> String {
    let row = snapshot.backends.iter().find(|backend| Some(backend.row) == worker.backend);
    row.map_or_else(String::new, |backend| format!(" to {}", backend.url))
}

fn write_backends(text: &mut String, snapshot: &Snapshot) -> Result {
    if snapshot.backends.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "\n   requests  failed   busy  connects    reused       sent   received   median      p99    p99.9  backend"
    )?;
    for backend in &snapshot.backends {
        let quantile = |per_mille| backend.latency.quantile(per_mille).map_or_else(|| "-".to_owned(), span);
        writeln!(
            text,
            "{:>11} {:>7} {:>6} {:>9} {:>9} {:>10} {:>10} {:>8} {:>8} {:>8}  {}",
            backend.requests,
            backend.failures,
            backend.busy,
            backend.connects,
            backend.reused,
            bytes(backend.bytes_out),
            bytes(backend.bytes_in),
            quantile(500),
            quantile(990),
            quantile(999),
            backend.url
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::example;

    #[test]
    fn the_report_of_a_running_server() {
        let (snapshot, now) = example();
        let want = r#"Ostler/0.1.0 www.example.org
running for 10 seconds (since Tuesday, 14-Nov-2023 22:13:20 UTC), master 1
generation 1 since Tuesday, 14-Nov-2023 22:13:20 UTC; mpm event; 2 x 4 threads
config /etc/ostler/ostler.conf
listening on 127.0.0.1:8080 [::1]:8080
last reload or upgrade refused at Tuesday, 14-Nov-2023 22:13:29 UTC: ostler.conf:3:1: no
reloads and upgrades refused so far: 1

workers      1 busy, 3 idle, 1 finishing; spare 2 to 8, at most 8
letters      6 _ waiting for connection, 2 W sending reply
connections  6 open: 4 kept alive, 0 coming in, 0 going out, 0 closing, 0 tunnels; 15 accepted, 3 handed over
requests     3, 0.3/s; 300 B in, 5.9 KiB out, 600 B/s out
latency      median 2.0 ms, p99 2.0 ms, p99.9 2.0 ms
children     1 ready, 0 starting, 1 draining; 3 started, 1 ended, 1 by a fault; 0 panics

 slot      pid  gen      age  stage      conns  requests       sent   busy  workers
    0     4711    1    9.0 s  ready          3         1    2.0 KiB      1  W___
    1     4712    1    9.0 s  draining       3         1    2.0 KiB      1  W___

 slot-worker      tid      for  client, host, request, backend
    0-0    W      100    7.0 s  [2001:db8::7]:40000 b.example "POST /second HTTP/1.1" to unix:/run/app.sock
    1-0    W      101    7.0 s  [2001:db8::7]:40000 b.example "POST /second HTTP/1.1" to unix:/run/app.sock

   requests  failed   busy  connects    reused       sent   received   median      p99    p99.9  backend
          3       0      0         3         0        0 B        0 B   1.5 ms   1.5 ms   1.5 ms  http://127.0.0.1:3000
          0       0      0         0         0        0 B        0 B        -        -        -  unix:/run/app.sock
"#;
        assert_eq!(page(&snapshot, &now), want);
    }

    #[test]
    fn a_server_that_is_gone_is_told_of_at_once() {
        let (mut snapshot, now) = example();
        for (life, stopped, want) in [
            (
                Life::Dead,
                None,
                "not running since Tuesday, 14-Nov-2023 22:13:24 UTC or later: master 1 is gone",
            ),
            (
                Life::BeforeReboot,
                None,
                "not running since Tuesday, 14-Nov-2023 22:13:24 UTC or later: the machine",
            ),
            (
                Life::Stopped,
                Some(1_700_000_009_000_000),
                "not running since Tuesday, 14-Nov-2023 22:13:29 UTC: it was",
            ),
            (
                Life::Unknown,
                None,
                "master 1 can't be seen from here; last sign of life Tuesday, 14-Nov-2023 22:13:24",
            ),
        ] {
            snapshot.life = life;
            snapshot.server.stopped_wall = stopped;
            let page = page(&snapshot, &now);
            let line = page.lines().nth(1).unwrap_or_default();
            assert!(line.starts_with(want), "{line}");
            let held = r#"    0-0    W      100    1.5 s  2023-11-14 22:13:23  [2001:db8::7]:40000 b.example "POST /second"#;
            assert_eq!(page.contains(held), life != Life::Unknown, "{page}");
            assert!(page.contains("POST /second"), "{page}");
        }
    }

    #[test]
    fn sums_in_motion_are_no_sign_of_death() {
        let (mut snapshot, now) = example();
        assert!(!page(&snapshot, &now).contains("the sums"));
        snapshot.settled = false;
        for (life, want) in [
            (Life::Running, "twice or not at all: the master is adding up children that have ended\n"),
            (
                Life::Unknown,
                "twice or not at all: the master is adding up children that have ended, or ended itself while it was\n",
            ),
            (Life::Dead, "twice: the master ended while it was adding up\n"),
        ] {
            snapshot.life = life;
            let page = page(&snapshot, &now);
            assert!(page.contains(&format!("\nthe sums may count a child {want}")), "{page}");
        }
    }

    #[test]
    fn a_full_house_is_said() {
        let (mut snapshot, now) = example();
        snapshot.server.max_request_workers = 1;
        let page = page(&snapshot, &now);
        assert!(page.contains(", at most 1: reached, further clients wait\n"), "{page}");
    }

    #[test]
    fn many_workers_are_folded_and_a_torn_row_is_said_to_be() {
        let (mut snapshot, now) = example();
        let child = &mut snapshot.children[0];
        let row = child.workers[0].clone();
        child.workers = vec![row; 70];
        child.workers[1].request = Shown::Torn;
        let page = page(&snapshot, &now);
        assert!(page.contains(&format!("  {}\n{:75}WWWWWW\n", "W".repeat(64), "")), "{page}");
        assert!(page.contains("(changing)"), "{page}");
    }
}
