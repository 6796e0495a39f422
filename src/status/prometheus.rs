//! `SetHandler metrics`, `?prometheus`: the scoreboard for Prometheus, in its text exposition format 0.0.4.
//!
//! Names, labels and units are a promise, as those of [`json`](super::json) are: base units (seconds, bytes),
//! counters end in `_total`.
//!
//! Counters are sums over children that live and those that are gone, so they do not go backwards when a child dies
//! or a reload replaces all of them. While the sums can't be had of one moment (`Snapshot::settled`) they are left
//! out: a gap is no harm, a step back would look like a new start. What is told of a single child carries its slot,
//! pid and generation, so a series belongs to one child and ends with it.

use crate::scoreboard::histogram::{Histogram, upper_bound};
use crate::scoreboard::snapshot::{Backend, Child, Connections, Life, Snapshot, Worker};
use crate::scoreboard::state::{Stage, WorkerState};
use crate::status::Now;
use crate::status::tally::Tally;
use std::fmt::{Display, Write};

/// The value of Content-Type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds of a histogram's buckets: powers of two of a microsecond, by their exponents; 128 us to 67 s. The
/// scoreboard's own buckets have borders there, so the counts are exact.
const BOUNDS: std::ops::RangeInclusive<u32> = 7..=26;

/// The page.
#[must_use]
pub fn page(snapshot: &Snapshot, now: &Now) -> String {
    let tally = Tally::of(snapshot, now);
    let mut page = Exposition(String::with_capacity(16 * 1024));
    server(&mut page, snapshot);
    limits(&mut page, snapshot);
    workers(&mut page, &tally);
    children(&mut page, snapshot, &tally);
    connections(&mut page, &tally.connections);
    if snapshot.settled {
        totals(&mut page, snapshot);
    }
    backends(&mut page, snapshot);
    page.0
}

/// What a family of series is.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text as it grows. Every family is begun once, and its samples follow.
struct Exposition(String);

impl Exposition {
    /// Begins a family.
    fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.0, name }
    }

    /// A family of one series without labels.
    fn one(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample("", &[], value);
    }
}

/// A family that takes samples.
struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// One line; `suffix` is empty but for the parts of a histogram.
    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// The lines of one histogram, whose sum is in microseconds.
    fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram, sum: u64) {
        let mut counts = histogram.counts().iter().enumerate().peekable();
        let mut below = 0u64;
        for bound in BOUNDS.map(|exponent| 1u64 << exponent) {
            while let Some((_, count)) = counts.next_if(|(bucket, _)| upper_bound(*bucket) < bound) {
                below = below.saturating_add(*count);
            }
            self.bucket(labels, &seconds(bound).to_string(), below);
        }
        let total = histogram.total();
        self.bucket(labels, "+Inf", total);
        self.sample("_sum", labels, seconds(sum));
        self.sample("_count", labels, total);
    }

    fn bucket(&mut self, labels: &[(&str, &str)], bound: &str, count: u64) {
        let labels: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
        self.sample("_bucket", &labels, count);
    }
}

/// A label's value: backslash, quote and line end are what could end it.
fn push_escaped(text: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            letter => text.push(letter),
        }
    }
}

/// Microseconds as seconds, to the last digit.
fn seconds(micros: u64) -> impl Display {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn server(page: &mut Exposition, snapshot: &Snapshot) {
    use Kind::{Counter, Gauge};
    let server = &snapshot.server;
    let version = server.version.split_once('/').map_or(server.version.as_str(), |(_, version)| version);
    page.family("ostler_build_info", Gauge, "The program that runs, by its version; always 1.").sample(
        "",
        &[("version", version)],
        1,
    );
    page.family("ostler_server_info", Gauge, "The server by its name and its process model; always 1.")
        .sample("", &[("server_name", &server.server_name), ("mpm", &server.mpm)], 1);
    let up = matches!(snapshot.life, Life::Running | Life::Unknown);
    let help = "Whether the master runs; 1 also where that can't be seen, as from another container or past hidepid.";
    page.one("ostler_up", Gauge, help, u8::from(up));
    let help = "When the server started, in seconds since 1970.";
    page.one("ostler_start_time_seconds", Gauge, help, seconds(server.started_wall));
    let help = "The generation that new children belong to: 1 at the start, one more after each reload.";
    page.one("ostler_generation", Gauge, help, server.generation);
    let help = "When that generation began, in seconds since 1970.";
    page.one("ostler_generation_start_time_seconds", Gauge, help, seconds(server.generation_wall));
    let help = "Configurations that came into force, the first included.";
    page.one("ostler_config_reads_total", Counter, help, server.config_reads);
    let help = "Reloads and upgrades that were refused or failed, so that the former configuration went on.";
    page.one("ostler_reloads_refused_total", Counter, help, server.reloads_refused);
    if let Some(reload) = &server.last_reload {
        let help = "Whether the last reload or upgrade succeeded; absent before the first.";
        page.one("ostler_last_reload_successful", Gauge, help, u8::from(reload.done));
        let help = "When the last reload or upgrade was asked for, in seconds since 1970.";
        page.one("ostler_last_reload_timestamp_seconds", Gauge, help, seconds(reload.wall));
    }
    let help = "Whether ExtendedStatus is On.";
    page.one("ostler_extended_status", Gauge, help, u8::from(server.extended));
    let help = "Whether the sums are of one moment; where they are not (0), counters are left out.";
    page.one("ostler_scoreboard_settled", Gauge, help, u8::from(snapshot.settled));
}

fn limits(page: &mut Exposition, snapshot: &Snapshot) {
    let server = &snapshot.server;
    for (name, help, value) in [
        (
            "ostler_max_request_workers",
            "MaxRequestWorkers: requests served at one time.",
            server.max_request_workers,
        ),
        ("ostler_threads_per_child", "ThreadsPerChild (prefork: 1).", server.threads_per_child),
        ("ostler_server_limit", "ServerLimit: children of one generation.", server.server_limit),
        ("ostler_thread_limit", "ThreadLimit: worker rows that each slot has.", server.thread_limit),
        ("ostler_slots", "Slots of the scoreboard, which a reload needs more of.", server.slots),
        ("ostler_min_spare_workers", "MinSpareThreads or MinSpareServers, in workers.", server.min_spare),
        ("ostler_max_spare_workers", "MaxSpareThreads or MaxSpareServers, in workers.", server.max_spare),
        ("ostler_start_servers", "StartServers: children made at start.", server.start_servers),
    ] {
        page.one(name, Kind::Gauge, help, value);
    }
}

fn workers(page: &mut Exposition, tally: &Tally) {
    let help = "Worker rows by what they are doing, over all children.";
    let mut family = page.family("ostler_workers", Kind::Gauge, help);
    for (state, count) in WorkerState::ALL.iter().zip(tally.letters) {
        family.sample("", &[("state", state.name())], count);
    }
    for (name, help, value) in [
        (
            "ostler_busy_workers",
            "Workers with a request (prefork, worker: with a connection), but for draining children.",
            tally.busy,
        ),
        (
            "ostler_idle_workers",
            "Workers that wait for work, in children of the current generation.",
            tally.idle,
        ),
        ("ostler_draining_workers", "Workers that finish their work in draining children.", tally.graceful),
    ] {
        page.one(name, Kind::Gauge, help, value);
    }
}

fn children(page: &mut Exposition, snapshot: &Snapshot, tally: &Tally) {
    let ready = tally.processes.saturating_sub(tally.starting).saturating_sub(tally.leaving);
    let mut family =
        page.family("ostler_children", Kind::Gauge, "Child processes by where they are in their lives.");
    for (stage, count) in
        [(Stage::Starting, tally.starting), (Stage::Ready, ready), (Stage::Quiescing, tally.leaving)]
    {
        family.sample("", &[("stage", stage.name())], count);
    }
    let draining = tally.generations.iter().filter(|entry| entry.leaving == entry.children).count();
    let help = "Generations whose children all drain.";
    page.one("ostler_draining_generations", Kind::Gauge, help, draining);

    let children: Vec<(&Child, [String; 3])> = snapshot
        .children
        .iter()
        .filter(|child| child.is_alive() && child.stage != Some(Stage::Gone))
        .map(|child| (child, [child.slot, child.pid, child.generation].map(|number| number.to_string())))
        .collect();
    let mut of_each = |name, kind, help, value: &dyn Fn(&Child) -> String| {
        let mut family = page.family(name, kind, help);
        for (child, [slot, pid, generation]) in &children {
            let labels = [("slot", slot.as_str()), ("pid", pid), ("generation", generation)];
            family.sample("", &labels, value(child));
        }
    };
    let rows = |child: &Child| child.workers.iter().filter(|worker| worker.is_busy()).count();
    let sum = |child: &Child, of: fn(&Worker) -> u64| {
        child.workers.iter().map(of).fold(0, u64::saturating_add).to_string()
    };
    of_each(
        "ostler_child_start_time_seconds",
        Kind::Gauge,
        "When a child was forked, in seconds since 1970.",
        &|child| seconds(snapshot.wall_of(child.started)).to_string(),
    );
    of_each(
        "ostler_child_draining",
        Kind::Gauge,
        "Whether a child finishes what it has and leaves.",
        &|child| u8::from(child.is_leaving()).to_string(),
    );
    of_each("ostler_child_workers", Kind::Gauge, "Worker rows of a child.", &|child| {
        child.workers.len().to_string()
    });
    of_each("ostler_child_busy_workers", Kind::Gauge, "Of these, how many are held.", &|child| {
        rows(child).to_string()
    });
    of_each("ostler_child_connections", Kind::Gauge, "Client connections that a child has open.", &|child| {
        child.connections.total.to_string()
    });
    if snapshot.settled {
        of_each(
            "ostler_child_requests_total",
            Kind::Counter,
            "Requests that a child has finished.",
            &|child| sum(child, |worker| worker.requests),
        );
        of_each(
            "ostler_child_sent_bytes_total",
            Kind::Counter,
            "Bytes that a child has sent to clients.",
            &|child| sum(child, |worker| worker.bytes_out),
        );
    }
}

fn connections(page: &mut Exposition, counts: &Connections) {
    let apart = [
        ("keep_alive", counts.keep_alive),
        ("wait_io", counts.wait_io),
        ("writing", counts.writing),
        ("closing", counts.closing),
        ("tunnel", counts.tunnels),
    ];
    // What is none of these is with a worker. The counts are not of one moment, so they may not quite agree.
    let with_worker = apart.iter().fold(counts.total, |rest, (_, count)| rest.saturating_sub(*count));
    let help = "Open client connections: with a worker, idle between requests, with a request coming in or in \
                line for a worker, with the rest of a response going out, closing, and tunnels.";
    let mut family = page.family("ostler_connections", Kind::Gauge, help);
    family.sample("", &[("state", "serving")], with_worker);
    for (state, count) in apart {
        family.sample("", &[("state", state)], count);
    }
}

fn totals(page: &mut Exposition, snapshot: &Snapshot) {
    let totals = &snapshot.totals;
    for (name, help, value) in [
        ("ostler_requests_total", "Requests finished.", totals.requests),
        ("ostler_received_bytes_total", "Bytes received from clients.", totals.bytes_in),
        ("ostler_sent_bytes_total", "Bytes sent to clients.", totals.bytes_out),
        ("ostler_connections_accepted_total", "Client connections accepted.", totals.accepted),
        (
            "ostler_connections_handed_over_total",
            "Client connections that a child handed over to another.",
            totals.handed_over,
        ),
        (
            "ostler_connections_taken_over_total",
            "Client connections that a child took over from another.",
            totals.taken_over,
        ),
        ("ostler_children_started_total", "Children forked.", totals.children_started),
        ("ostler_children_ended_total", "Children that have ended.", totals.children_ended),
        (
            "ostler_children_failed_total",
            "Of these, how many by a fault: a signal, a panic, an exit that was not asked for.",
            totals.children_failed,
        ),
        ("ostler_panics_total", "Panics caught, each of which cost a connection.", totals.panics),
    ] {
        page.one(name, Kind::Counter, help, value);
    }
    if let Some(usage) = &snapshot.usage {
        let help = "Processor time of the master and all its children.";
        let mut family = page.family("ostler_cpu_seconds_total", Kind::Counter, help);
        // Of two sums of the same ticks one may be less by the last bit.
        let sum = |living: f64, ended: f64| seconds(((living + ended) * 1e6).round() as u64);
        family.sample("", &[("mode", "user")], sum(usage.living.user, usage.ended.user));
        family.sample("", &[("mode", "system")], sum(usage.living.system, usage.ended.system));
    }
    let help = "From the whole head of a request to the last byte of its response; tunnels have none.";
    page.family("ostler_request_duration_seconds", Kind::Histogram, help).histogram(
        &[],
        &totals.latency,
        totals.duration,
    );
}

fn backends(page: &mut Exposition, snapshot: &Snapshot) {
    let backends = by_url(&snapshot.backends);
    let help = "Requests that a backend is serving now.";
    let mut family = page.family("ostler_backend_busy_requests", Kind::Gauge, help);
    for backend in &backends {
        family.sample("", &[("backend", &backend.url)], backend.busy);
    }
    if !snapshot.settled {
        return;
    }
    for (name, help, value) in [
        (
            "ostler_backend_requests_total",
            "Requests sent to a backend, repeated ones counted again.",
            (|backend| backend.requests) as fn(&Backend) -> u64,
        ),
        (
            "ostler_backend_failures_total",
            "Attempts that brought no response, connects that failed included.",
            |backend| backend.failures,
        ),
        ("ostler_backend_connects_total", "Connections made to a backend.", |backend| backend.connects),
        ("ostler_backend_reused_total", "Requests that went over a connection used before.", |backend| {
            backend.reused
        }),
        ("ostler_backend_sent_bytes_total", "Bytes sent to a backend.", |backend| backend.bytes_out),
        ("ostler_backend_received_bytes_total", "Bytes received from a backend.", |backend| backend.bytes_in),
    ] {
        let mut family = page.family(name, Kind::Counter, help);
        for backend in &backends {
            family.sample("", &[("backend", &backend.url)], value(backend));
        }
    }
    let help = "From the beginning of a request to a backend to the first byte of its response.";
    let mut family = page.family("ostler_backend_response_seconds", Kind::Histogram, help);
    for backend in &backends {
        family.histogram(&[("backend", &backend.url)], &backend.latency, backend.duration);
    }
}

/// Rows of one name together: urls that differ only behind what a row keeps are one series.
fn by_url(rows: &[Backend]) -> Vec<Backend> {
    let mut backends: Vec<Backend> = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(known) = backends.iter_mut().find(|known| known.url == row.url) else {
            backends.push(row.clone());
            continue;
        };
        for (sum, more) in [
            (&mut known.requests, row.requests),
            (&mut known.failures, row.failures),
            (&mut known.connects, row.connects),
            (&mut known.reused, row.reused),
            (&mut known.bytes_out, row.bytes_out),
            (&mut known.bytes_in, row.bytes_in),
            (&mut known.duration, row.duration),
            (&mut known.busy, row.busy),
        ] {
            *sum = sum.saturating_add(more);
        }
        known.latency.merge(&row.latency);
    }
    backends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::histogram::bucket;
    use crate::scoreboard::life::{CpuTime, Usage};
    use crate::status::tests::example;
    use std::collections::{BTreeMap, BTreeSet};

    /// Every series with its value, by what stands before the value; asserts what the format demands.
    fn series(page: &str) -> BTreeMap<&str, f64> {
        let mut series = BTreeMap::new();
        let (mut families, mut family, mut kind) = (BTreeSet::new(), "", "");
        assert!(page.ends_with('\n'));
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split_once(' ').expect("a name and a sentence").0;
                assert!(families.insert(family), "{family} is there twice");
            } else if let Some(words) = line.strip_prefix("# TYPE ") {
                let (of, is) = words.split_once(' ').expect("a name and a kind");
                assert_eq!(of, family, "TYPE follows HELP");
                kind = is;
                assert_eq!(kind == "counter", family.ends_with("_total"), "{family}");
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a series and a value");
                let metric = name.split_once('{').map_or(name, |(metric, _)| metric);
                let suffixes: &[&str] =
                    if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffixes.iter().any(|suffix| format!("{family}{suffix}") == metric), "{line}");
                let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(series.insert(name, value).is_none(), "{name} is there twice");
            }
        }
        series
    }

    #[test]
    fn the_page_says_what_the_board_says() {
        let (mut snapshot, now) = example();
        let cpu = |user, system| CpuTime { user, system };
        snapshot.usage = Some(Usage { living: cpu(0.5, 0.25), ended: cpu(1.0, 0.25) });
        let page = page(&snapshot, &now);
        let series = series(&page);
        let child = r#"{slot="0",pid="4711",generation="1"}"#;
        let backend = r#"{backend="http://127.0.0.1:3000"}"#;
        for (name, want) in [
            (r#"ostler_build_info{version="0.1.0"}"#.to_owned(), 1.0),
            (r#"ostler_server_info{server_name="www.example.org",mpm="event"}"#.to_owned(), 1.0),
            ("ostler_up".to_owned(), 1.0),
            ("ostler_start_time_seconds".to_owned(), 1_700_000_000.0),
            ("ostler_generation".to_owned(), 1.0),
            ("ostler_reloads_refused_total".to_owned(), 1.0),
            ("ostler_last_reload_successful".to_owned(), 0.0),
            ("ostler_last_reload_timestamp_seconds".to_owned(), 1_700_000_009.0),
            ("ostler_max_request_workers".to_owned(), 8.0),
            (r#"ostler_workers{state="write"}"#.to_owned(), 2.0),
            (r#"ostler_workers{state="ready"}"#.to_owned(), 6.0),
            (r#"ostler_workers{state="dead"}"#.to_owned(), 0.0),
            ("ostler_busy_workers".to_owned(), 1.0),
            ("ostler_idle_workers".to_owned(), 3.0),
            ("ostler_draining_workers".to_owned(), 1.0),
            (r#"ostler_children{stage="ready"}"#.to_owned(), 1.0),
            (r#"ostler_children{stage="draining"}"#.to_owned(), 1.0),
            ("ostler_draining_generations".to_owned(), 0.0),
            (format!("ostler_child_start_time_seconds{child}"), 1_700_000_001.0),
            (format!("ostler_child_requests_total{child}"), 1.0),
            (format!("ostler_child_busy_workers{child}"), 1.0),
            (r#"ostler_child_draining{slot="1",pid="4712",generation="1"}"#.to_owned(), 1.0),
            (r#"ostler_connections{state="serving"}"#.to_owned(), 2.0),
            (r#"ostler_connections{state="keep_alive"}"#.to_owned(), 4.0),
            ("ostler_requests_total".to_owned(), 3.0),
            ("ostler_sent_bytes_total".to_owned(), 6_000.0),
            ("ostler_connections_handed_over_total".to_owned(), 3.0),
            ("ostler_children_failed_total".to_owned(), 1.0),
            (r#"ostler_cpu_seconds_total{mode="user"}"#.to_owned(), 1.5),
            (r#"ostler_request_duration_seconds_bucket{le="0.001024"}"#.to_owned(), 0.0),
            (r#"ostler_request_duration_seconds_bucket{le="0.002048"}"#.to_owned(), 3.0),
            (r#"ostler_request_duration_seconds_bucket{le="+Inf"}"#.to_owned(), 3.0),
            ("ostler_request_duration_seconds_sum".to_owned(), 0.006),
            ("ostler_request_duration_seconds_count".to_owned(), 3.0),
            (format!("ostler_backend_requests_total{backend}"), 3.0),
            (format!("ostler_backend_response_seconds_sum{backend}"), 0.0045),
            (
                r#"ostler_backend_response_seconds_bucket{backend="http://127.0.0.1:3000",le="0.002048"}"#
                    .to_owned(),
                3.0,
            ),
            (r#"ostler_backend_requests_total{backend="unix:/run/app.sock"}"#.to_owned(), 0.0),
        ] {
            assert_eq!(series.get(name.as_str()), Some(&want), "{name} in\n{page}");
        }
        assert!(!page.contains("4713"), "a child that has ended has no series: {page}");
    }

    #[test]
    fn bounds_are_borders_of_the_buckets() {
        for exponent in BOUNDS {
            let bound = 1u64 << exponent;
            assert_ne!(bucket(bound - 1), bucket(bound));
        }
        let mut histogram = Histogram::default();
        for micros in [0, 127, 128, 255, 1 << 26, u64::MAX] {
            histogram.add(bucket(micros), 1);
        }
        let mut page = Exposition(String::new());
        page.family("x", Kind::Histogram, "X.").histogram(&[("a", "b")], &histogram, 1_000_001);
        let lines: Vec<&str> = page.0.lines().collect();
        assert_eq!(lines[2], r#"x_bucket{a="b",le="0.000128"} 2"#);
        assert_eq!(lines[3], r#"x_bucket{a="b",le="0.000256"} 4"#);
        assert_eq!(lines[21], r#"x_bucket{a="b",le="67.108864"} 4"#);
        assert_eq!(
            lines[22..],
            [r#"x_bucket{a="b",le="+Inf"} 6"#, r#"x_sum{a="b"} 1.000001"#, r#"x_count{a="b"} 6"#]
        );
    }

    #[test]
    fn names_cannot_end_their_quotes() {
        let (mut snapshot, now) = example();
        snapshot.server.server_name = "a\"} 7\nb\\".into();
        let page = page(&snapshot, &now);
        assert!(page.contains(r#"server_name="a\"} 7\nb\\",mpm="#), "{page}");
        series(&page);
    }

    #[test]
    fn backends_of_one_name_are_one_series() {
        let (mut snapshot, now) = example();
        let mut twin = snapshot.backends[0].clone();
        twin.row = 9;
        snapshot.backends.push(twin);
        let page = page(&snapshot, &now);
        let series = series(&page);
        let backend = r#"{backend="http://127.0.0.1:3000"}"#;
        assert_eq!(series[format!("ostler_backend_requests_total{backend}").as_str()], 6.0);
        assert_eq!(series[format!("ostler_backend_response_seconds_count{backend}").as_str()], 6.0);
    }

    #[test]
    fn sums_of_no_one_moment_are_left_out() {
        let (mut snapshot, now) = example();
        snapshot.settled = false;
        snapshot.life = Life::Dead;
        let page = page(&snapshot, &now);
        let series = series(&page);
        assert_eq!((series["ostler_up"], series["ostler_scoreboard_settled"]), (0.0, 0.0));
        let counters: Vec<_> =
            series.keys().filter(|name| name.contains("_total") || name.contains("_bucket")).collect();
        assert_eq!(counters, [&"ostler_config_reads_total", &"ostler_reloads_refused_total"]);
        assert_eq!(series["ostler_busy_workers"], 1.0);
    }
}
