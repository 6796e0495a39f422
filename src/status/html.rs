//! The status page for a browser: no script, no picture, nothing fetched from anywhere.
//!
//! maud escapes every value; nothing that a client sent is ever put in unescaped.

use crate::scoreboard::histogram::Histogram;
use crate::scoreboard::snapshot::{Child, Life, Shown, Snapshot, Worker};
use crate::scoreboard::state::{Stage, WorkerState};
use crate::status::Now;
use crate::status::chart;
use crate::status::figures::{bytes, date, grouped, per, share, span};
use crate::status::tally::{Tally, since_request};
use crate::status::text;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// What the query asked of the page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// Load it again after so many seconds.
    pub refresh: Option<u32>,
    /// Whether the tables of children and workers are wanted (`?notable`: no).
    pub tables: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { refresh: None, tables: true }
    }
}

/// Goes into the page, so that it fetches nothing.
const STYLE: &str = include_str!("page.css");

/// The page.
#[must_use]
pub fn page(snapshot: &Snapshot, options: Options, now: &Now) -> String {
    let tally = Tally::of(snapshot, now);
    let name = &snapshot.server.server_name;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if let Some(seconds) = options.refresh { meta http-equiv="refresh" content=(seconds); }
                title { "Server Status of " (name) }
                // Ours, and constant: the one thing that is not escaped.
                style { (PreEscaped(STYLE)) }
            }
            body {
                (heading(snapshot, &tally, now))
                (room(snapshot, &tally))
                (cards(snapshot, &tally))
                (grid(snapshot))
                h2 { "Latency" }
                (chart::wide(&snapshot.totals.latency))
                @if options.tables {
                    (backends(snapshot))
                    @if snapshot.server.extended { (requests(snapshot, &tally)) }
                    (children(snapshot, &tally))
                    @if snapshot.server.extended { (rested(snapshot, &tally)) }
                }
                footer {
                    "Also as " a href="?auto" { "?auto" } " and " a href="?json" { "?json" }
                    "; " a href="?refresh=5" { "?refresh=5" } " keeps this page fresh."
                }
            }
        }
    };
    page.into_string()
}

fn heading(snapshot: &Snapshot, tally: &Tally, now: &Now) -> Markup {
    let server = &snapshot.server;
    html! {
        h1 { "Server Status of " (server.server_name) }
        p class=[lifeless(snapshot).then_some("bad")] {
            (server.version) " (" (server.mpm) "), " (text::life(snapshot, tally, now))
        }
        p {
            "Generation " (server.generation) " since " (date(server.generation_wall, &now.zone))
            @if !server.listeners.is_empty() { ", listening on " (server.listeners) }
        }
        p {
            "Now " (date(now.wall_micros, &now.zone))
            @if let Some([one, five, fifteen]) = snapshot.load {
                ", load " (format!("{one:.2} {five:.2} {fifteen:.2}"))
            }
        }
        @if let Some(reload) = &server.last_reload {
            p class=[(!reload.done).then_some("bad")] {
                "Last reload or upgrade " @if reload.done { "done" } @else { "refused" } " at " (date(reload.wall, &now.zone))
                @if !reload.text.is_empty() { ": " (reload.text) }
            }
        }
        @if !snapshot.settled {
            p class="bad" { "The sums " (text::unsettled(snapshot.life)) "." }
        }
    }
}

/// Whether this is about a server that is gone.
fn lifeless(snapshot: &Snapshot) -> bool {
    !matches!(snapshot.life, Life::Running | Life::Unknown)
}

/// How much of MaxRequestWorkers is taken: the one thing to see from across the room.
fn room(snapshot: &Snapshot, tally: &Tally) -> Markup {
    let limit = u64::from(snapshot.server.max_request_workers);
    let [busy, graceful, idle] = [tally.busy, tally.graceful, tally.idle].map(u64::from);
    // While a reload drains old children, there are more than MaxRequestWorkers.
    let whole = limit.max(busy + graceful + idle);
    let full = tally.is_full(snapshot.server.max_request_workers);
    html! {
        div class="room" {
            @for (class, part) in [("W", busy), ("G", graceful), ("_", idle)] {
                i class=(class) style={ "width:" (format!("{:.2}", share(part, whole))) "%" } {}
            }
        }
        p class=[full.then_some("bad")] {
            (busy) " of " (limit) " workers busy (" (format!("{:.0}", share(busy, limit))) " %), " (idle) " idle"
            @if graceful > 0 { ", " (graceful) " finishing in children that leave" }
            @if full { ": MaxRequestWorkers is reached, further clients wait" }
            @else if limit > busy + idle { ", room for " (limit - busy - idle) " more" }
        }
    }
}

fn cards(snapshot: &Snapshot, tally: &Tally) -> Markup {
    let totals = &snapshot.totals;
    let quantile = |per_mille| totals.latency.quantile(per_mille).map_or_else(|| "-".to_owned(), span);
    let per_second =
        tally.rates.requests.map_or_else(String::new, |rate| format!(", {} a second", per(rate)));
    let connections = &tally.connections;
    let cards = [
        (tally.busy.to_string(), "workers busy".to_owned(), false),
        (tally.idle.to_string(), "workers idle".to_owned(), false),
        (connections.total.to_string(), format!("connections, {} kept alive", connections.keep_alive), false),
        (
            tally.processes.to_string(),
            format!(
                "children, {} draining; {} ended by a fault so far",
                tally.leaving,
                grouped(totals.children_failed)
            ),
            totals.children_failed > 0,
        ),
        (grouped(totals.requests), format!("requests{per_second}"), false),
        (bytes(totals.bytes_out), format!("sent, {} received", bytes(totals.bytes_in)), false),
        (quantile(500), "median latency".to_owned(), false),
        (quantile(990), format!("p99 latency; p99.9 {}", quantile(999)), false),
    ];
    html! {
        div class="cards" {
            @for (figure, meaning, bad) in &cards {
                div class="card" { b { (figure) } span class=[bad.then_some("bad")] { (meaning) } }
            }
        }
    }
}

/// A cell per worker, a line per child.
fn grid(snapshot: &Snapshot) -> Markup {
    html! {
        h2 { "Scoreboard" }
        @for child in shown(snapshot) {
            div class="child" {
                span { "slot " (child.slot) ", pid " (child.pid) ", gen " (child.generation)
                    @if child.is_leaving() { ", draining" }
                }
                (bar(child))
                span class="of" { (busy(child)) "/" (child.workers.len()) }
                div class="grid" {
                    @for worker in &child.workers {
                        i class=[class(worker)] title=(hint(worker)) { (worker.letter()) }
                    }
                }
            }
        }
        div class="legend" {
            @for state in WorkerState::ALL {
                @let letter = state.letter();
                div { i class=[(letter != '.').then_some(letter)] { (letter) } " " (state.meaning()) }
            }
        }
    }
}

/// How much of a child is busy.
fn bar(child: &Child) -> Markup {
    let (busy, all) = (busy(child), child.workers.len() as u64);
    let full = busy > 0 && busy == all;
    html! {
        span class="bar" { i class=[full.then_some("full")] style={ "width:" (format!("{:.0}", share(busy, all))) "%" } {} }
    }
}

fn busy(child: &Child) -> u64 {
    child.workers.iter().filter(|worker| worker.is_busy()).count() as u64
}

/// A dot is no name for a class, and neither is the letter of a byte that makes no sense.
fn class(worker: &Worker) -> Option<char> {
    worker.state.filter(|state| *state != WorkerState::Dead).map(WorkerState::letter)
}

fn hint(worker: &Worker) -> String {
    let meaning = worker.state.map_or("makes no sense", WorkerState::meaning);
    match worker.request() {
        Some(request) if worker.is_busy() => format!("{}: {meaning}: {}", worker.index, request.shown_line()),
        _ => format!("{}: {meaning}", worker.index),
    }
}

fn shown(snapshot: &Snapshot) -> impl Iterator<Item = &Child> {
    snapshot.children.iter().filter(|child| child.stage != Some(Stage::Free))
}

fn children(snapshot: &Snapshot, tally: &Tally) -> Markup {
    html! {
        h2 { "Children" }
        div class="scroll" { table {
            thead { tr {
                th class="n" { "Slot" } th class="n" { "PID" } th class="n" { "Gen" } th class="n" { "Age" }
                th { "Stage" } th class="n" { "Busy" } th class="n" { "Median" } th class="n" { "p99" } th class="n" { "Connections" }
                th class="n" { "coming in" } th class="n" { "going out" } th class="n" { "kept alive" }
                th class="n" { "closing" } th class="n" { "tunnels" } th class="n" { "Accepted" }
                th class="n" { "handed over" } th class="n" { "taken over" }
                th class="n" { "Panics" }
            } }
            tbody {
                @for child in shown(snapshot) {
                    tr {
                        td class="n" { (child.slot) } td class="n" { (child.pid) }
                        td class="n" { (child.generation) }
                        td class="n" { (span(tally.as_of.micros_since(child.started))) }
                        td { (child.stage.map_or("?", Stage::name)) }
                        td class="n" { (busy(child)) "/" (child.workers.len()) }
                        (quantiles(&child.latency))
                        @let connections = &child.connections;
                        @for count in [
                            connections.total, connections.wait_io, connections.writing,
                            connections.keep_alive, connections.closing, connections.tunnels,
                        ] { td class="n" { (count) } }
                        @for count in [connections.accepted, connections.handed_over, connections.taken_over] {
                            td class="n" { (count) }
                        }
                        (alarming(child.panics))
                    }
                }
            }
        } }
    }
}

/// A count that should be 0.
fn alarming(count: u64) -> Markup {
    html! { td class=(if count > 0 { "n bad" } else { "n" }) { (grouped(count)) } }
}

/// What is being done now, the longest first.
fn requests(snapshot: &Snapshot, tally: &Tally) -> Markup {
    let mut busy: Vec<(&Child, &Worker)> = shown(snapshot)
        .flat_map(|child| child.workers.iter().map(move |worker| (child, worker)))
        .filter(|(_, worker)| worker.is_busy())
        .collect();
    busy.sort_by_key(|(_, worker)| std::cmp::Reverse(since_request(worker, tally.as_of)));
    html! {
        h2 { "Requests under way" }
        @if busy.is_empty() { p { "None." } } @else {
            div class="scroll" { table {
                thead { tr {
                    th { "Worker" } th {} th class="n" { "For" } th { "Request" } th { "Client" } th { "Host" }
                    th { "Backend" } th class="n" { "Thread" }
                } }
                tbody {
                    @for (child, worker) in &busy {
                        tr {
                            td { (child.slot) "-" (worker.index) }
                            td { (worker.letter()) }
                            td class="n" {
                                @if let Some(since) = since_request(worker, tally.as_of) { (span(since)) }
                            }
                            (asked(snapshot, worker))
                            td class="n" { (worker.tid) }
                        }
                    }
                }
            } }
        }
    }
}

/// The workers that wait and have worked before, folded away: there may be thousands.
fn rested(snapshot: &Snapshot, tally: &Tally) -> Markup {
    let rested: Vec<(&Child, &Worker)> = shown(snapshot)
        .flat_map(|child| child.workers.iter().map(move |worker| (child, worker)))
        .filter(|(_, worker)| !worker.is_busy() && worker.requests > 0)
        .collect();
    html! {
        @if !rested.is_empty() {
            details {
                summary { "Idle workers and their last requests (" (rested.len()) ")" }
                div class="scroll" { table {
                    thead { tr {
                        th { "Worker" } th class="n" { "Begun" } th class="n" { "Took" } th { "Request" } th { "Client" } th { "Host" } th { "Backend" } th class="n" { "Requests" } th class="n" { "Time" }
                        th class="n" { "In" } th class="n" { "Out" }
                    } }
                    tbody {
                        @for (child, worker) in &rested {
                            tr {
                                td { (child.slot) "-" (worker.index) }
                                td class="n" {
                                    @if let Some(since) = since_request(worker, tally.as_of) { (span(since)) " ago" }
                                }
                                td class="n" { (span(worker.last)) }
                                (asked(snapshot, worker))
                                td class="n" { (grouped(worker.requests)) }
                                td class="n" { (span(worker.duration)) }
                                td class="n" { (bytes(worker.bytes_in)) }
                                td class="n" { (bytes(worker.bytes_out)) }
                            }
                        }
                    }
                } }
                p { "The last four columns are sums over all requests of a worker." }
            }
        }
    }
}

/// Four cells: what was asked for, by whom, of which host, and who answers.
fn asked(snapshot: &Snapshot, worker: &Worker) -> Markup {
    let backend = snapshot.backends.iter().find(|backend| Some(backend.row) == worker.backend);
    html! {
        @if let Some(request) = worker.request() {
            td class="wide" { (request.shown_line()) }
            td { @if let Some(client) = request.client { (client) } @else { "?" } }
            td { (request.host) @if request.host_cut { "..." } }
            td { @if let Some(backend) = backend { (backend.url) } }
        } @else {
            td class="wide" { @if worker.request == Shown::Torn { "(changing)" } } td {} td {} td {}
        }
    }
}

/// Two cells: median and p99.
fn quantiles(latency: &Histogram) -> Markup {
    html! {
        @for per_mille in [500, 990] {
            td class="n" { (latency.quantile(per_mille).map_or_else(|| "-".to_owned(), span)) }
        }
    }
}

fn backends(snapshot: &Snapshot) -> Markup {
    html! {
        @if !snapshot.backends.is_empty() {
            h2 { "Backends" }
            div class="scroll" { table {
                thead { tr {
                    th { "Backend" } th class="n" { "Requests" } th class="n" { "Failed" } th class="n" { "Busy" }
                    th class="n" { "Connects" } th class="n" { "Reused" } th class="n" { "Sent" }
                    th class="n" { "Received" } th class="n" { "Median" } th class="n" { "p99" } th { "Latency" }
                } }
                tbody {
                    @for backend in &snapshot.backends {
                        tr {
                            td { (backend.url) }
                            td class="n" { (grouped(backend.requests)) }
                            (alarming(backend.failures))
                            td class="n" { (backend.busy) }
                            td class="n" { (grouped(backend.connects)) }
                            td class="n" { (grouped(backend.reused)) }
                            td class="n" { (bytes(backend.bytes_out)) }
                            td class="n" { (bytes(backend.bytes_in)) }
                            (quantiles(&backend.latency))
                            td { (chart::small(&backend.latency)) }
                        }
                    }
                }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::example;

    #[test]
    fn the_page_shows_every_worker_once_and_what_it_does() {
        let (snapshot, now) = example();
        let page = page(&snapshot, Options::default(), &now);
        assert_eq!(page.matches("<i class=\"W\" title").count(), 2);
        assert_eq!(page.matches("<i class=\"_\" title").count(), 6);
        for part in [
            "<title>Server Status of www.example.org</title>",
            "slot 0, pid 4711, gen 1",
            "<td class=\"wide\">POST /second HTTP/1.1</td>",
            "[2001:db8::7]:40000",
            "<td>unix:/run/app.sock</td>",
            "ostler.conf:3:1: no",
            "gracefully finishing",
            "1 of 8 workers busy (12 %), 3 idle, 1 finishing in children that leave, room for 4 more",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains("http-equiv") && !page.contains("<script"));
    }

    #[test]
    fn the_longest_request_comes_first_and_a_full_house_is_said() {
        let (mut snapshot, now) = example();
        snapshot.server.max_request_workers = 1;
        let workers = &mut snapshot.children[0].workers;
        workers[1] = workers[0].clone();
        workers[2] = Worker { state: Some(WorkerState::Ready), requests: 2, ..workers[0].clone() };
        for (worker, (line, started)) in snapshot.children[0]
            .workers
            .iter_mut()
            .zip([("GET /young HTTP/1.1", 9_000_000), ("GET /old HTTP/1.1", 1)])
        {
            worker.state = Some(WorkerState::Write);
            if let Shown::Request(request) = &mut worker.request {
                (request.line, request.started) = (line.into(), started);
            } else {
                panic!("the example's first worker has a request");
            }
        }
        let page = page(&snapshot, Options::default(), &now);
        let (old, young) = (page.rfind("GET /old"), page.rfind("GET /young"));
        assert!(old.is_some() && old < young, "{page}");
        assert!(page.contains("MaxRequestWorkers is reached, further clients wait"), "{page}");
        assert!(page.contains("<summary>Idle workers and their last requests (1)</summary>"), "{page}");
    }

    #[test]
    fn what_a_client_sent_is_escaped() {
        let (mut snapshot, now) = example();
        let hostile = "<img src=x onerror=alert(1)>\"'&";
        for child in &mut snapshot.children {
            for worker in &mut child.workers {
                if let Shown::Request(request) = &mut worker.request {
                    request.line = hostile.into();
                    request.host = hostile.into();
                    request.protocol = hostile.into();
                }
            }
        }
        snapshot.server.server_name = hostile.into();
        let page = page(&snapshot, Options::default(), &now);
        assert!(!page.contains("<img") && !page.contains("\"'&"));
        assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;&quot;"));
    }

    #[test]
    fn options_are_obeyed() {
        let (mut snapshot, now) = example();
        let small = page(&snapshot, Options { refresh: Some(7), tables: false }, &now);
        assert!(small.contains("http-equiv=\"refresh\" content=\"7\"") && !small.contains("<table"));
        snapshot.server.extended = false;
        let plain = page(&snapshot, Options::default(), &now);
        assert!(
            plain.contains("Children</h2>")
                && !plain.contains("under way</h2>")
                && !plain.contains("details>")
        );
    }
}
