//! The hot path's parts, each done as often as asked, for `scripts/bench --instructions` and `--times`.
//!
//! `hot-path PART COUNT` does a part COUNT times; `hot-path --list` names the parts; `hot-path --times` prints the
//! nanoseconds of each. The inputs are a browser's request and a server's response; everything that a child makes
//! once (its configuration, its buffers) is made before the first time, so the difference between two counts is
//! the part alone. Nothing here reads a socket, a file or a clock while it counts.

// A program that measures has no clock handed in.
#![allow(clippy::disallowed_methods)]

use ostler::buf::Gather;
use ostler::clock::Moment;
use ostler::config::model::{Config, Forwarding, Via};
use ostler::config::{Options, from_text};
use ostler::http::{
    Asked as AskedOfBackend, Body, FieldSlots, HeadLimits, HeadScan, Method, RequestHead, ResponseHead,
};
use ostler::ids::{BackendId, Generation, SlotIndex, WorkerIndex};
use ostler::log::access::{AccessRecord, Answerer, ConnectionEnd};
use ostler::log::format::LogFormat;
use ostler::log::{Capture, RequestFacts};
use ostler::mpm::lead::{Lead, Turn};
use ostler::mpm::rows::{Freed, Rows};
use ostler::mpm::table::{News, Posted, Table};
use ostler::mpm::tokens::Aged;
use ostler::proxy::exchange::{Arrival, Begun, Context, Desk, Exchange};
use ostler::proxy::rewrite::{self, RequestPlan};
use ostler::proxy::router::{Asked, Router};
use ostler::scoreboard::board::{Birth, Board, Loan};
use ostler::scoreboard::facts::Facts;
use ostler::scoreboard::layout::Shape;
use ostler::scoreboard::row::{ChildBlock, RequestFacts as RowFacts};
use ostler::scoreboard::state::WorkerState;
use std::hint::black_box;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

const REQUEST: &[u8] = b"GET /shop/items?page=2&order=price HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://www.example.com/shop/\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    \r\n";

const RESPONSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: origin\r\n\
    Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Cache-Control: private, max-age=0\r\n\
    Vary: Accept-Encoding\r\n\
    Connection: keep-alive\r\n\
    \r\n";

const CONFIG: &str = "Listen 10.0.0.1:80\nServerName www.example.com\n\
    ProxyPass /static/ !\nProxyPass /app/ http://127.0.0.1:3001/\nProxyPass / http://127.0.0.1:3000/\n";

/// A part's name, what it is, and how it is done once.
type Part = (&'static str, &'static str, fn(&mut World));

/// In the order in which a request meets them; the last two are those that are about bytes, but for the log line, as a
/// child does them.
const PARTS: [Part; 12] = [
    ("turn", "an edge to its connection's turn, and the end of that (two of a request)", turn),
    ("worker-row", "take a worker row, and give it back", worker_row),
    ("request-head", "find the end of a request's head and parse it", request_head),
    ("response-head", "find the end of a response's head and parse it", response_head),
    ("framing", "walk a chunked body of four pieces", framing),
    ("route", "host and path to a backend", route),
    ("rewrite", "parse a request's head and rebuild it for the backend", rewrite_head),
    ("log-capture", "keep what a combined line wants of the head", log_capture),
    ("log-line", "a line in the combined format", log_line),
    ("row", "tell the scoreboard of a request, from hold to free", row),
    (
        "exchange",
        "a whole warm exchange of 1 KiB: scan, parse, route, rewrite, response, row",
        extended_exchange,
    ),
    ("exchange-plain", "the same with ExtendedStatus Off", plain_exchange),
];

struct World {
    config: Config,
    router: Router,
    limits: HeadLimits,
    slots: FieldSlots,
    path: Vec<u8>,
    out: Gather,
    head: Vec<u8>,
    exchange: Exchange,
    response: Vec<u8>,
    chunked: Vec<u8>,
    format: LogFormat,
    capture: Capture,
    line: Vec<u8>,
    block: ChildBlock,
    /// Of a child with ExtendedStatus Off.
    plain: ChildBlock,
    // The blocks lie in its memory.
    _board: Board,
    peer: SocketAddr,
    local: SocketAddr,
    now: u64,
    lead: Lead,
    rows: Rows,
    /// As large as a record of the engine's is.
    table: Table<[u64; 40]>,
    who: Aged,
    ready: Vec<u32>,
}

impl World {
    fn new() -> Self {
        let config = from_text("hot-path", CONFIG, &Options::default()).expect("it is sound").config;
        let birth = Birth { pid: 1, now: Moment(1), wall_micros: 1 };
        let facts = Facts {
            generation: Generation(1),
            wall_micros: 1,
            mpm: "event",
            version: "Ostler",
            server_name: "www.example.com",
            config_path: None,
            listeners: "10.0.0.1:80",
            max_request_workers: 64,
            threads_per_child: 64,
            min_spare: 1,
            max_spare: 64,
            start_servers: 1,
            extended: true,
        };
        let loan = Loan {
            generation: Generation(1),
            mpm: "event",
            threads: 64,
            extended: true,
            see_request_tail: false,
        };
        let mut board = Board::create(None, &Shape::new(1, 64, 2), &birth, &facts).expect("unnamed memory");
        board.set_backends(Generation(1), ["http://127.0.0.1:3001", "http://127.0.0.1:3000"]);
        let block = board.lend(SlotIndex(0), &loan, Moment(1)).expect("a slot");
        let loan = Loan { extended: false, ..loan };
        let plain = board.lend(SlotIndex(1), &loan, Moment(1)).expect("a slot");
        let limits = HeadLimits::request(8190, Some(100), 8190);
        let table = Table::new(64).expect("address space");
        let (who, conn) = table.insert(|_| [0; 40]).expect("room");
        assert!(table.end(who.index, conn));
        Self {
            lead: Lead::new(1, 1),
            rows: Rows::new(64),
            table,
            who,
            ready: Vec::new(),
            router: Router::new(&config),
            config,
            limits,
            slots: FieldSlots::new(),
            path: Vec::new(),
            out: Gather::new(),
            head: Vec::new(),
            exchange: Exchange::default(),
            response: [RESPONSE_HEAD, &[b'x'; 1024]].concat(),
            chunked: [&b"100\r\n"[..], &[b'x'; 256], b"\r\n"]
                .concat()
                .repeat(4)
                .into_iter()
                .chain(*b"0\r\n\r\n")
                .collect(),
            format: LogFormat::parse("combined").expect("it has a nickname"),
            capture: Capture::new(),
            line: Vec::new(),
            block,
            plain,
            _board: board,
            peer: "192.0.2.7:40000".parse().expect("an address"),
            local: "10.0.0.1:80".parse().expect("an address"),
            now: 1_000_000,
        }
    }

    fn parse(&mut self) -> RequestHead<'static, '_> {
        let found =
            RequestHead::find(&mut HeadScan::new(), black_box(REQUEST), &mut self.slots, &self.limits);
        let found = found.expect("sound").expect("whole");
        RequestHead::of(&REQUEST[..found.end], found, &mut self.slots, &self.limits).expect("sound")
    }
}

fn turn(world: &mut World) {
    let World { lead, table, who, ready, .. } = world;
    let Turn::Lead(guard) = lead.next(0) else { panic!("nobody else leads") };
    guard.entering_poll();
    if table.post(*who, black_box(News::CLIENT_READ)) == Posted::Queue {
        ready.push(who.index);
    }
    guard.pass(ready);
    let Turn::Work(index) = lead.next(0) else { panic!("one is ready") };
    let (conn, news) = table.begin(index);
    assert!(black_box(news).has(News::CLIENT_READ) && table.end(index, conn.expect("it rests there")));
}

fn worker_row(world: &mut World) {
    let World { rows, table, who, .. } = world;
    let (row, _) = rows.take(*who, true, |busy| _ = black_box(busy)).expect("all are free");
    let freed = rows.give(black_box(row), table, |busy| _ = black_box(busy));
    assert!(freed == Freed::Free);
}

fn request_head(world: &mut World) {
    black_box(&world.parse());
}

fn response_head(world: &mut World) {
    let bytes = black_box(&world.response[..]);
    let limits = &HeadLimits::RESPONSE;
    let found = ResponseHead::find(&mut HeadScan::new(), bytes, &mut world.slots, limits);
    let found = found.expect("sound").expect("whole");
    let asked = AskedOfBackend { method: Method::Get, upgrade: false };
    black_box(&ResponseHead::of(&bytes[..found.end], found, &mut world.slots, limits, asked).expect("sound"));
}

fn framing(world: &mut World) {
    let mut body = Body::for_request(ostler::http::RequestBody::Chunked);
    let bytes = black_box(&world.chunked[..]);
    let mut at = 0;
    while !body.is_done() {
        let (used, piece) = body.next(&bytes[at..]).expect("sound");
        black_box(&piece);
        at += used;
    }
    assert_eq!(at, bytes.len());
}

fn route(world: &mut World) {
    let host = world.router.host(world.local, black_box(b"www.example.com"));
    world.path.clear();
    let asked = Asked {
        path: black_box(b"/shop/items"),
        query: Some(b"page=2&order=price"),
        client: world.peer.ip(),
        local: world.local.ip(),
    };
    black_box(&world.router.route(&world.config, host, &asked, &mut world.path));
}

fn rewrite_head(world: &mut World) {
    let client = world.peer.ip();
    let mut out = std::mem::take(&mut world.head);
    out.clear();
    let head = world.parse();
    let plan = RequestPlan {
        target: b"/shop/items?page=2&order=price",
        host: b"127.0.0.1:3000",
        forwarding: Forwarding { preserve_host: false, add_headers: true, via: Via::Off },
        authority: head.authority,
        client,
        name: "www.example.com",
        expect: false,
        reuse: true,
        upgrade: None,
    };
    rewrite::request_head(&head, &plan, &mut out);
    world.head = black_box(out);
}

fn log_capture(world: &mut World) {
    world.capture.clear();
    let facts = RequestFacts {
        line: b"GET /shop/items?page=2&order=price HTTP/1.1",
        method: b"GET",
        path: b"/shop/items",
        query: Some(b"page=2&order=price"),
        protocol: b"HTTP/1.1",
        host: b"www.example.com",
    };
    let field = |name: &str| match name {
        "Referer" => Some(&b"https://www.example.com/shop/"[..]),
        "User-agent" => Some(&b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"[..]),
        _ => None,
    };
    world.format.capture_request(black_box(&facts), field, &mut world.capture);
    black_box(&world.capture);
}

fn log_line(world: &mut World) {
    world.line.clear();
    world.now += 150;
    let record = AccessRecord {
        client: world.peer,
        peer: world.peer,
        local: world.local,
        host_name: "www.example.com",
        port: 80,
        status: 200,
        body_bytes: 1024,
        bytes_in: 500,
        bytes_out: 1300,
        start_wall_us: 1_700_000_000_000_000 + world.now,
        start: Moment(world.now),
        end: Moment(world.now + 120),
        kept_alive: 3,
        connection: ConnectionEnd::Kept,
        answerer: Answerer::Backend("http://127.0.0.1:3000/"),
        upstream: None,
        proxy_error: None,
    };
    world.format.render(black_box(&record), &world.capture, &mut world.line);
    black_box(&world.line);
}

fn row(world: &mut World) {
    world.now += 150;
    let row = world.block.worker(WorkerIndex(7));
    row.hold(4711);
    row.request(&RowFacts {
        client: world.peer,
        host: "www.example.com",
        line: black_box(b"GET /shop/items?page=2&order=price HTTP/1.1"),
        protocol: "HTTP/1.1",
        start: Moment(world.now),
    });
    row.backend(BackendId(1));
    row.set_state(WorkerState::Write);
    row.finish(Moment(world.now + 120), Some(120), 500, 1300);
    world.block.latency(120);
    world.block.backend(BackendId(1)).latency(100);
    row.free();
}

fn extended_exchange(world: &mut World) {
    exchange(world, true);
}

fn plain_exchange(world: &mut World) {
    exchange(world, false);
}

fn exchange(world: &mut World, extended: bool) {
    world.now += 150;
    let World {
        config,
        router,
        limits,
        slots,
        path,
        out,
        exchange,
        response,
        block,
        plain,
        peer,
        local,
        now,
        ..
    } = world;
    let block = if extended { block } else { plain };
    let cx = Context {
        config,
        router,
        now: Moment(*now),
        date: "Sun, 06 Nov 1994 08:49:37 GMT",
        server: "Ostler",
        peer: *peer,
        local: *local,
        may_keep: true,
    };
    let bytes = black_box(REQUEST);
    let found = RequestHead::find(&mut HeadScan::new(), bytes, slots, limits).expect("sound").expect("whole");
    let end = found.end;
    let row = block.worker(WorkerIndex(7));
    row.hold(4711);
    out.clear();
    let begun = exchange.begin(
        &bytes[..end],
        Arrival { requests: 2, more: false, limits, found },
        Desk { slots, path, out },
        &cx,
        &mut |head, _| {
            row.request(&RowFacts {
                client: *peer,
                host: std::str::from_utf8(head.authority).unwrap_or_default(),
                line: head.line,
                protocol: head.version.name(),
                start: Moment(*now),
            });
        },
    );
    let Begun::Forward(id) = begun else { panic!("it has a backend: {begun:?}") };
    row.backend(id);
    black_box(exchange.request_head());
    row.set_state(WorkerState::Write);
    out.clear();
    let used = exchange.response_bytes(black_box(response), 0, slots, &cx, &mut |_| (), out).expect("sound");
    assert!(used == response.len() && exchange.is_over() && exchange.client_may_be_kept());
    black_box(&*out);
    row.finish(Moment(*now + 120), Some(120), 500, 1300);
    block.latency(120);
    block.backend(id).latency(100);
    row.free();
    exchange.reset();
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--list"] => {
            for (name, what, _) in PARTS {
                println!("{name}\t{what}");
            }
        }
        ["--times"] => {
            let mut world = World::new();
            for (name, what, part) in PARTS {
                // The best of several: whatever else the machine does only adds.
                let best = (0..20).map(|_| {
                    let begun = Instant::now();
                    (0..5_000).for_each(|_| part(&mut world));
                    begun.elapsed().as_nanos() as f64 / 5_000.0
                });
                println!("{name:14} {:8.1} ns  {what}", best.fold(f64::INFINITY, f64::min));
            }
        }
        [name, count] => {
            let part = PARTS.iter().find(|(known, ..)| *known == name);
            let (Some((_, _, part)), Ok(count)) = (part, count.parse::<u32>()) else {
                eprintln!("usage: hot-path PART COUNT; --list names the parts");
                return ExitCode::from(2);
            };
            let mut world = World::new();
            (0..count).for_each(|_| part(&mut world));
        }
        _ => {
            eprintln!("usage: hot-path PART COUNT | --list | --times");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
