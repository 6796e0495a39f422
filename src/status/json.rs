//! `?json`: everything the scoreboard tells, for programs.
//!
//! Names and units are a promise to whoever reads them: fields are added, never changed or taken away. Times
//! of day are `_unix_us` (microseconds since 1970), spans end in their unit, what is not known is null.

use crate::clock::Moment;
use crate::scoreboard::histogram::{Histogram, upper_bound};
use crate::scoreboard::snapshot::{Child, Cut, Life, Shown, Snapshot, Worker};
use crate::scoreboard::state::{Stage, WorkerState};
use crate::status::Now;
use crate::status::auto::letters;
use crate::status::tally::Tally;
use serde_json::{Map, Value, json};

/// The document, one line.
#[must_use]
pub fn page(snapshot: &Snapshot, now: &Now) -> String {
    let mut text = document(snapshot, now).to_string();
    text.push('\n');
    text
}

/// The document as a value.
#[must_use]
pub fn document(snapshot: &Snapshot, now: &Now) -> Value {
    let tally = Tally::of(snapshot, now);
    let server = &snapshot.server;
    json!({
        "time_unix_us": now.wall_micros,
        "life": life(snapshot.life),
        "as_of_unix_us": snapshot.wall_of(tally.as_of),
        "settled": snapshot.settled,
        "server": {
            "version": server.version,
            "name": server.server_name,
            "mpm": server.mpm,
            "config": server.config_path,
            "listeners": server.listeners.split_ascii_whitespace().collect::<Vec<_>>(),
            "master_pid": server.master_pid,
            "boot_id": server.boot_id,
            "started_unix_us": server.started_wall,
            "stopped_unix_us": server.stopped_wall,
            "uptime_us": tally.uptime,
            "generation": server.generation,
            "generation_unix_us": server.generation_wall,
            "config_reads": server.config_reads,
            "reloads_refused": server.reloads_refused,
            "last_reload": server.last_reload.as_ref().map(|reload| json!({
                "done": reload.done,
                "unix_us": reload.wall,
                "text": reload.text,
            })),
            "groom": server.groom.map(|groom| json!({
                "pid": groom.pid,
                "started_unix_us": snapshot.wall_of(groom.started),
            })),
            "grooms_replaced": server.grooms_replaced,
            "extended_status": server.extended,
            "limits": {
                "server_limit": server.server_limit,
                "thread_limit": server.thread_limit,
                "slots": server.slots,
                "start_servers": server.start_servers,
                "threads_per_child": server.threads_per_child,
                "max_request_workers": server.max_request_workers,
                "min_spare": server.min_spare,
                "max_spare": server.max_spare,
            },
        },
        "load": snapshot.load,
        "cpu_seconds": snapshot.usage.map(|usage| json!({
            "user": usage.living.user,
            "system": usage.living.system,
            "ended_user": usage.ended.user,
            "ended_system": usage.ended.system,
        })),
        "workers": workers(&tally),
        "connections": connections(&tally.connections),
        "totals": totals(snapshot, &tally),
        "generations": tally.generations.iter().map(|generation| json!({
            "generation": generation.generation,
            "children": generation.children,
            "leaving": generation.leaving,
            "busy": generation.busy,
            "idle": generation.idle,
        })).collect::<Vec<_>>(),
        "scoreboard": letters(snapshot),
        "children": snapshot.children.iter().map(|child| self::child(snapshot, child, &tally)).collect::<Vec<_>>(),
        "backends": snapshot.backends.iter().map(|backend| json!({
            "row": backend.row,
            "url": backend.url,
            "generation": backend.generation,
            "requests": backend.requests,
            "failures": backend.failures,
            "busy": backend.busy,
            "connects": backend.connects,
            "reused": backend.reused,
            "bytes_out": backend.bytes_out,
            "bytes_in": backend.bytes_in,
            "duration_us": backend.duration,
            "latency": latency(&backend.latency),
        })).collect::<Vec<_>>(),
    })
}

fn life(life: Life) -> &'static str {
    match life {
        Life::Running => "running",
        Life::Stopped => "stopped",
        Life::Dead => "dead",
        Life::BeforeReboot => "before_reboot",
        Life::Unknown => "unknown",
    }
}

fn workers(tally: &Tally) -> Value {
    let states = WorkerState::ALL.iter().zip(tally.letters);
    json!({
        "busy": tally.busy,
        "idle": tally.idle,
        "graceful": tally.graceful,
        "processes": tally.processes,
        "starting": tally.starting,
        "leaving": tally.leaving,
        "by_letter": states
            .map(|(state, count)| (state.letter().to_string(), Value::from(count)))
            .collect::<Map<_, _>>(),
    })
}

fn connections(counts: &crate::scoreboard::snapshot::Connections) -> Value {
    json!({
        "total": counts.total,
        "keep_alive": counts.keep_alive,
        "wait_io": counts.wait_io,
        "writing": counts.writing,
        "closing": counts.closing,
        "tunnels": counts.tunnels,
    })
}

fn totals(snapshot: &Snapshot, tally: &Tally) -> Value {
    let totals = &snapshot.totals;
    json!({
        "requests": totals.requests,
        "bytes_in": totals.bytes_in,
        "bytes_out": totals.bytes_out,
        "duration_us": totals.duration,
        "accepted": totals.accepted,
        "handed_over": totals.handed_over,
        "taken_over": totals.taken_over,
        "panics": totals.panics,
        "children_started": totals.children_started,
        "children_ended": totals.children_ended,
        "children_failed": totals.children_failed,
        "requests_per_second": tally.rates.requests,
        "bytes_per_second": tally.rates.bytes,
        "bytes_per_request": tally.rates.bytes_per_request,
        "ms_per_request": tally.rates.millis_per_request,
        "latency": latency(&totals.latency),
    })
}

/// Quantiles, and the buckets that hold anything as pairs of their upper end and their count.
fn latency(histogram: &Histogram) -> Value {
    let buckets = histogram.counts().iter().enumerate().filter(|(_, count)| **count > 0);
    json!({
        "count": histogram.total(),
        "p50_us": histogram.quantile(500),
        "p99_us": histogram.quantile(990),
        "p999_us": histogram.quantile(999),
        "buckets": buckets.map(|(bucket, count)| json!([upper_bound(bucket), count])).collect::<Vec<_>>(),
    })
}

fn child(snapshot: &Snapshot, child: &Child, tally: &Tally) -> Value {
    json!({
        "slot": child.slot,
        "pid": child.pid,
        "generation": child.generation,
        "mpm": child.mpm,
        "stage": child.stage.map(Stage::name),
        "started_unix_us": snapshot.wall_of(child.started),
        "ended_unix_us": child.ended.map(|ended| snapshot.wall_of(ended)),
        "age_us": tally.as_of.micros_since(child.started),
        "busy": child.busy,
        "panics": child.panics,
        "accepted": child.connections.accepted,
        "handed_over": child.connections.handed_over,
        "taken_over": child.connections.taken_over,
        "connections": connections(&child.connections),
        "latency": latency(&child.latency),
        "workers": child.workers.iter().map(|worker| self::worker(snapshot, worker, tally)).collect::<Vec<_>>(),
    })
}

fn worker(snapshot: &Snapshot, worker: &Worker, tally: &Tally) -> Value {
    json!({
        "index": worker.index,
        "state": worker.letter().to_string(),
        "busy": worker.is_busy(),
        "tid": worker.tid,
        "requests": worker.requests,
        "bytes_in": worker.bytes_in,
        "bytes_out": worker.bytes_out,
        "duration_us": worker.duration,
        "last_us": worker.last,
        "ended_unix_us": (worker.ended != Moment(0)).then(|| snapshot.wall_of(worker.ended)),
        "backend": worker.backend,
        "torn": worker.request == Shown::Torn,
        "request": worker.request().map(|request| json!({
            "client": request.client.map(|client| client.ip().to_string()),
            "client_port": request.client.map(|client| client.port()),
            "host": request.host,
            "line": request.line,
            "cut": match request.cut {
                Cut::Whole => Value::Null,
                Cut::Front => "front".into(),
                Cut::End => "end".into(),
            },
            "protocol": request.protocol,
            "started_unix_us": snapshot.wall_of(Moment(request.started)),
            "since_us": tally.as_of.micros_since(Moment(request.started)),
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::example;

    #[test]
    fn the_document_says_what_the_board_says() {
        let (snapshot, now) = example();
        let document: Value = serde_json::from_str(&page(&snapshot, &now)).expect("valid JSON");
        for (pointer, want) in [
            ("/life", json!("running")),
            ("/server/listeners/1", json!("[::1]:8080")),
            ("/server/uptime_us", json!(10_000_000)),
            ("/server/last_reload/done", json!(false)),
            ("/workers/by_letter/W", json!(2)),
            ("/workers/by_letter/.", json!(0)),
            ("/connections/keep_alive", json!(4)),
            ("/totals/requests", json!(3)),
            ("/totals/latency/buckets", json!([[2015, 3]])),
            ("/generations/0/leaving", json!(1)),
            ("/scoreboard", json!("W___G...")),
            ("/children/0/pid", json!(4711)),
            ("/children/1/stage", json!("draining")),
            ("/children/2/ended_unix_us", json!(1_700_000_004_000_000u64)),
            ("/children/0/workers/0/request/line", json!("POST /second HTTP/1.1")),
            ("/children/0/workers/0/request/client", json!("2001:db8::7")),
            ("/children/0/workers/0/request/since_us", json!(7_000_000)),
            ("/children/0/workers/0/request/cut", Value::Null),
            ("/children/0/workers/1/request", Value::Null),
            ("/backends/0/requests", json!(3)),
            ("/load", Value::Null),
        ] {
            assert_eq!(document.pointer(pointer), Some(&want), "{pointer}");
        }
    }
}
