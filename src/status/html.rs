//! The status page for a browser: no script, no picture, nothing fetched from anywhere.
//!
//! maud escapes every value; nothing that a client sent is ever put in unescaped.

use crate::scoreboard::snapshot::{Child, Snapshot, Worker};
use crate::scoreboard::state::{Stage, WorkerState};
use crate::status::Now;
use crate::status::figures::{bytes, date, general, grouped, share, span};
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

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2430;--soft:#5b6675;--line:#d9dee5;--ground:#fff;--card:#f5f7f9;\
--idle:#cfe8d5;--busy:#2f7dd1;--read:#8a63d2;--keep:#e3c565;--close:#d98c4a;--grace:#7f8b99;--dead:#e9ecef}\
@media(prefers-color-scheme:dark){:root{--ink:#e5e9ef;--soft:#9aa6b5;--line:#333c48;--ground:#14181e;\
--card:#1c222a;--idle:#24513a;--busy:#3f8fe6;--read:#9d7be0;--keep:#a98d2f;--close:#b56a2c;--grace:#6a7683;\
--dead:#262d36}}\
body{margin:0 auto;max-width:76rem;padding:1.5rem;font:15px/1.45 system-ui,sans-serif;color:var(--ink);\
background:var(--ground)}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .6rem}p{margin:.3rem 0;color:var(--soft)}\
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.7rem;margin-top:1.2rem}\
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}\
.card b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.card span{color:var(--soft)}\
.child{display:flex;gap:.8rem;align-items:baseline;margin:.35rem 0}.child>span{flex:0 0 11rem;\
color:var(--soft);font-size:.85rem;font-variant-numeric:tabular-nums}\
.grid{font:12px/1 ui-monospace,monospace;display:flex;flex-wrap:wrap;gap:2px}\
.grid i,.legend i{font-style:normal;width:15px;height:15px;line-height:15px;text-align:center;\
border-radius:3px;background:var(--dead);display:inline-block}\
i._{background:var(--idle)!important}i.W,i.L,i.D{background:var(--busy)!important;color:#fff}\
i.R,i.S{background:var(--read)!important;color:#fff}i.K{background:var(--keep)!important}\
i.C{background:var(--close)!important;color:#fff}i.G,i.I{background:var(--grace)!important;color:#fff}\
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;font-size:.85rem;color:var(--soft);margin-top:.8rem}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.87rem;\
font-variant-numeric:tabular-nums}th,td{text-align:left;padding:.28rem .6rem;\
border-bottom:1px solid var(--line);white-space:nowrap}th{color:var(--soft);font-weight:600}\
td.n,th.n{text-align:right}td.wide{white-space:normal;word-break:break-all;min-width:18rem;\
font-family:ui-monospace,monospace;font-size:.8rem}\
.bar{display:inline-block;width:6rem;height:.55rem;background:var(--idle);border-radius:.3rem;overflow:hidden}\
.bar i{display:block;height:100%;background:var(--busy)}\
.bad{color:#c0392b}footer{margin-top:2rem;color:var(--soft);font-size:.85rem}";

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
                (cards(snapshot, &tally))
                (grid(snapshot))
                @if options.tables {
                    (children(snapshot, &tally))
                    @if snapshot.server.extended { (workers(snapshot, &tally)) }
                    (backends(snapshot))
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
        p {
            (server.version) ", mpm " (server.mpm) ", generation " (server.generation)
            " since " (date(server.generation_wall, &now.zone))
        }
        p { (text::life(snapshot, tally, now)) }
        p {
            "Now " (date(now.wall_micros, &now.zone))
            @if let Some([one, five, fifteen]) = snapshot.load {
                ", load " (format!("{one:.2} {five:.2} {fifteen:.2}"))
            }
            @if !server.listeners.is_empty() { ", listening on " (server.listeners) }
        }
        @if let Some(reload) = &server.last_reload {
            p class=[(!reload.done).then_some("bad")] {
                "Last reload " @if reload.done { "done" } @else { "refused" } " at " (date(reload.wall, &now.zone))
                @if !reload.text.is_empty() { ": " (reload.text) }
            }
        }
        @if !snapshot.settled {
            p class="bad" { "The sums may count a child twice: the master ended while it was adding up." }
        }
    }
}

fn cards(snapshot: &Snapshot, tally: &Tally) -> Markup {
    let totals = &snapshot.totals;
    let quantile = |per_mille| totals.latency.quantile(per_mille).map_or_else(|| "-".to_owned(), span);
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), general);
    let limit = snapshot.server.max_request_workers;
    let cards = [
        (tally.busy.to_string(), format!("requests or connections in work, of {limit}")),
        (tally.idle.to_string(), format!("idle workers; {} gracefully finishing", tally.graceful)),
        (
            tally.connections.total.to_string(),
            format!("connections, {} kept alive", tally.connections.keep_alive),
        ),
        (grouped(totals.requests), format!("requests, {} per second", rate(tally.rates.requests))),
        (bytes(totals.bytes_out), format!("sent, {} received", bytes(totals.bytes_in))),
        (quantile(500), format!("median latency; p99 {}, p99.9 {}", quantile(990), quantile(999))),
        (
            tally.processes.to_string(),
            format!(
                "children, {} draining; {} ended by a fault",
                tally.leaving,
                grouped(totals.children_failed)
            ),
        ),
    ];
    html! {
        div class="cards" {
            @for (figure, meaning) in &cards { div class="card" { b { (figure) } span { (meaning) } } }
        }
    }
}

/// A cell per worker, a line per child.
fn grid(snapshot: &Snapshot) -> Markup {
    html! {
        h2 { "Scoreboard" }
        @for child in shown(snapshot) {
            div class="child" {
                span { "slot " (child.slot) ", pid " (child.pid) ", gen " (child.generation) }
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
                th { "Stage" } th { "Busy" } th class="n" { "Workers" } th class="n" { "Conns" }
                th class="n" { "wait-io" } th class="n" { "writing" } th class="n" { "keep-alive" }
                th class="n" { "closing" } th class="n" { "tunnels" } th class="n" { "Accepted" }
                th class="n" { "Panics" }
            } }
            tbody {
                @for child in shown(snapshot) {
                    @let busy = child.workers.iter().filter(|worker| worker.is_busy()).count() as u64;
                    @let all = child.workers.len() as u64;
                    tr {
                        td class="n" { (child.slot) } td class="n" { (child.pid) }
                        td class="n" { (child.generation) }
                        td class="n" { (span(tally.as_of.micros_since(child.started))) }
                        td { (child.stage.map_or("?", Stage::name)) }
                        td { span class="bar" { i style={ "width:" (format!("{:.0}", share(busy, all))) "%" } {} } }
                        td class="n" { (busy) "/" (all) }
                        @let connections = &child.connections;
                        @for count in [
                            connections.total, connections.wait_io, connections.writing,
                            connections.keep_alive, connections.closing, connections.tunnels,
                        ] { td class="n" { (count) } }
                        td class="n" { (connections.accepted) }
                        td class="n" { (child.panics) }
                    }
                }
            }
        } }
    }
}

/// The workers that do or have done something.
fn workers(snapshot: &Snapshot, tally: &Tally) -> Markup {
    html! {
        h2 { "Workers" }
        div class="scroll" { table {
            thead { tr {
                th { "Srv" } th class="n" { "PID" } th class="n" { "Acc" } th { "M" } th class="n" { "SS" }
                th class="n" { "Req" } th class="n" { "Dur" } th class="n" { "In" } th class="n" { "Out" }
                th { "Client" } th { "Protocol" } th { "VHost" } th { "Backend" } th { "Request" }
            } }
            tbody {
                @for child in shown(snapshot) {
                    @for worker in child.workers.iter().filter(|worker| worker.is_busy() || worker.requests > 0) {
                        (row(snapshot, child, worker, tally))
                    }
                }
            }
        } }
        p {
            "Srv: slot-generation. Acc: requests of this worker in this child. M: mode. SS: since the beginning of "
            "the last request. Req: the last one that ended. Dur: sum of all."
        }
    }
}

fn row(snapshot: &Snapshot, child: &Child, worker: &Worker, tally: &Tally) -> Markup {
    let backend = snapshot.backends.iter().find(|backend| Some(backend.row) == worker.backend);
    html! {
        tr {
            td { (child.slot) "-" (child.generation) }
            td class="n" { (child.pid) }
            td class="n" { (worker.requests) }
            td { (worker.letter()) }
            td class="n" { @if let Some(since) = since_request(worker, tally.as_of) { (span(since)) } }
            td class="n" { (span(worker.last)) }
            td class="n" { (span(worker.duration)) }
            td class="n" { (bytes(worker.bytes_in)) }
            td class="n" { (bytes(worker.bytes_out)) }
            @if let Some(request) = worker.request() {
                td { @if let Some(client) = request.client { (client) } @else { "?" } }
                td { (request.protocol) }
                td { (request.host) @if request.host_cut { "..." } }
                td { @if let Some(backend) = backend { (backend.url) } }
                td class="wide" { (request.shown_line()) }
            } @else {
                td {} td {} td {} td {} td {}
            }
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
                    th class="n" { "Received" } th class="n" { "Median" } th class="n" { "p99" }
                } }
                tbody {
                    @for backend in &snapshot.backends {
                        tr {
                            td { (backend.url) }
                            td class="n" { (grouped(backend.requests)) }
                            td class="n" { (grouped(backend.failures)) }
                            td class="n" { (backend.busy) }
                            td class="n" { (grouped(backend.connects)) }
                            td class="n" { (grouped(backend.reused)) }
                            td class="n" { (bytes(backend.bytes_out)) }
                            td class="n" { (bytes(backend.bytes_in)) }
                            @for per_mille in [500, 990] {
                                td class="n" { (backend.latency.quantile(per_mille).map_or_else(|| "-".to_owned(), span)) }
                            }
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
    use crate::scoreboard::snapshot::Shown;
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
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains("http-equiv") && !page.contains("<script"));
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
        assert!(plain.contains("Children</h2>") && !plain.contains("Workers</h2>"));
    }
}
