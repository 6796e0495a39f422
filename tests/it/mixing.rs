//! Every answer belongs to its request: strict clients without a second try, each request with a token of its own
//! that the origin gives back, while children come, go and are killed.
//!
//! `OSTLER_TEST_SECONDS` makes each load last longer than it does by default.

use crate::support::{Backend, Client, Daemon, Failure, Hash, Mpm, pattern};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// As many connections as there are clients.
const CLIENTS: u64 = 64;

/// What the clients have seen.
#[derive(Debug, Default)]
struct Seen {
    served: u64,
    /// Connections that could not be made.
    refused: u64,
    /// Requests without a whole answer, by reason.
    lost: BTreeMap<String, u64>,
    /// Our own error answers, by status.
    errors: BTreeMap<u16, u64>,
    /// Answers to somebody else's request, or with a changed body.
    mixed: Vec<String>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.served += other.served;
        self.refused += other.refused;
        for (why, count) in other.lost {
            *self.lost.entry(why).or_default() += count;
        }
        for (status, count) in other.errors {
            *self.errors.entry(status).or_default() += count;
        }
        self.mixed.extend(other.mixed);
    }

    #[track_caller]
    fn assert_flawless(&self) {
        assert!(self.mixed.is_empty(), "mixed up: {self:?}");
        assert!(self.errors.is_empty() && self.lost.is_empty() && self.refused == 0, "{self:?}");
        assert!(self.served > CLIENTS, "hardly anything was asked: {self:?}");
    }
}

/// How long each load lasts.
fn span() -> Duration {
    let seconds = std::env::var("OSTLER_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// An origin that says what it was asked: token, method, length and hash of the body; padded, framed as asked.
fn teller() -> Backend {
    Backend::with(|exchange| {
        let (mut length, mut hash) = (0, Hash::EMPTY);
        exchange.read_body(|bytes| {
            length += bytes.len();
            hash = hash.and(bytes);
        })?;
        let segments = exchange.segments();
        let [token, padding, framing] = &segments[..] else { return exchange.respond(400, &[], b"") };
        let size = padding.parse().unwrap_or(0);
        let mut body = format!("{token} {} {length} {:x}\n", exchange.request.method, hash.0).into_bytes();
        body.extend_from_slice(&pattern(size, size as u64));
        // What belongs to this answer and not to the next is in the head, too: there is no body to HEAD.
        let fields = format!("X-Token: {token}\r\n");
        let is_head = exchange.request.method == "HEAD";
        if framing == "chunked" {
            let mut bytes =
                format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            for piece in body.chunks(if is_head { usize::MAX } else { 5000 }) {
                if !is_head {
                    bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    bytes.extend_from_slice(piece);
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            bytes.extend_from_slice(if is_head { b"" } else { b"0\r\n\r\n" });
            exchange.raw(&bytes)
        } else {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
            let mut bytes = head.into_bytes();
            if !is_head {
                bytes.extend_from_slice(&body);
            }
            exchange.raw(&bytes)
        }
    })
}

/// A small generator; the same client asks for the same things in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % sides
    }
}

struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Crowd {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..CLIENTS)
            .map(|number| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || one_client(address, number, &stop))
            })
            .collect();
        Self { stop, threads }
    }

    fn finish(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for thread in self.threads.drain(..) {
            seen.add(thread.join().expect("a client never panics"));
        }
        eprintln!(
            "{} served, {} refused, lost {:?}, errors {:?}, {} mixed",
            seen.served,
            seen.refused,
            seen.lost,
            seen.errors,
            seen.mixed.len()
        );
        seen
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn one_client(address: SocketAddr, number: u64, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut kept: Option<Client> = None;
    // One client in four makes a connection for each request.
    let is_brief = number.is_multiple_of(4);
    for nth in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut client = match kept.take().map_or_else(|| Client::try_connect(address), Ok) {
            Ok(client) => client,
            Err(_) => {
                seen.refused += 1;
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        let token = format!("c{number}n{nth}");
        let padding = [0, 100, 3000, 20_000, 150_000][usize::try_from(dice.roll(5)).expect("small")];
        let framing = if dice.roll(2) == 0 { "length" } else { "chunked" };
        let length = [0, 10, 2000, 70_000][usize::try_from(dice.roll(4)).expect("small")];
        let ends = is_brief || dice.roll(50) == 0;
        let (method, body) = match dice.roll(6) {
            0 => ("HEAD", None),
            1 | 2 => ("POST", Some(pattern(length, nth))),
            _ => ("GET", None),
        };
        let is_chunked = body.is_some() && dice.roll(2) == 0;
        let request =
            request(method, &format!("/{token}/{padding}/{framing}"), body.as_deref(), is_chunked, ends);
        // A part of the requests arrives in two pieces.
        let cut = if dice.roll(8) == 0 {
            usize::try_from(dice.roll(request.len() as u64)).expect("small")
        } else {
            request.len()
        };
        client.send(&request[..cut]);
        if cut < request.len() {
            std::thread::yield_now();
            client.send(&request[cut..]);
        }
        let answer = match client.answer(method) {
            Ok(answer) => answer,
            Err(failure) => {
                let why = match failure {
                    Failure::Malformed(what) => {
                        seen.mixed.push(format!("{token}: {what}"));
                        continue;
                    }
                    Failure::Cut(_) => "Cut".to_owned(),
                    other => format!("{other:?}"),
                };
                *seen.lost.entry(why).or_default() += 1;
                continue;
            }
        };
        if answer.status != 200 {
            *seen.errors.entry(answer.status).or_default() += 1;
            continue;
        }
        let mut wanted = Vec::new();
        if method != "HEAD" {
            let body = body.unwrap_or_default();
            let told = format!("{token} {method} {} {:x}\n", body.len(), Hash::of(&body).0);
            wanted = told.into_bytes();
            wanted.extend_from_slice(&pattern(padding, padding as u64));
        }
        if answer.field("x-token") != Some(token.as_str()) || answer.body != wanted {
            let got = String::from_utf8_lossy(&answer.body[..answer.body.len().min(60)]).into_owned();
            seen.mixed.push(format!("{token} got {:?} {got:?}", answer.field("x-token")));
            continue;
        }
        seen.served += 1;
        if ends && !answer.closes() {
            seen.mixed.push(format!("{token}: asked to close, and the answer does not say so"));
        }
        if !answer.closes() {
            kept = Some(client);
        } else if let Err(failure) = client.closed() {
            seen.mixed.push(format!("{token}: after the last answer: {failure:?}"));
        }
    }
    seen
}

fn request(method: &str, target: &str, body: Option<&[u8]>, is_chunked: bool, ends: bool) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
    if ends {
        bytes += "Connection: close\r\n";
    }
    let Some(body) = body else { return (bytes + "\r\n").into_bytes() };
    if !is_chunked {
        bytes += &format!("Content-Length: {}\r\n\r\n", body.len());
        let mut bytes = bytes.into_bytes();
        bytes.extend_from_slice(body);
        return bytes;
    }
    let mut bytes = (bytes + "Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for piece in body.chunks(1 + body.len() / 3) {
        bytes.extend_from_slice(format!("{:X};n=v\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Room for every client at once, and a child more or less does no harm.
fn shape(mpm: Mpm) -> &'static str {
    if mpm.is_prefork() {
        "StartServers 70\nServerLimit 140\nMaxRequestWorkers 140\nMinSpareServers 5\nMaxSpareServers 80\n"
    } else {
        "StartServers 4\nServerLimit 8\nThreadsPerChild 25\nMaxRequestWorkers 200\nMinSpareThreads 25\nMaxSpareThreads 150\n"
    }
}

under_each_mpm! {
    fn answers_belong_to_their_requests(mpm) {
        let backend = teller();
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", shape(mpm), backend.url()));
        let crowd = Crowd::start(daemon.address());
        std::thread::sleep(span());
        crowd.finish().assert_flawless();
        daemon.wait_for_status("all at rest", |status| status.busy == 0);
    }

    fn no_answer_is_lost_while_children_are_recycled(mpm) {
        let backend = teller();
        // Nearly every child of prefork would otherwise be at its end at the same time.
        let limits = if mpm.is_prefork() { "MaxRequestsPerChild 50\n" } else { "MaxRequestsPerChild 200\n" };
        let daemon = Daemon::under(mpm, &format!("{}{limits}ProxyPass / {}/", shape(mpm), backend.url()));
        let before = daemon.children();
        let crowd = Crowd::start(daemon.address());
        std::thread::sleep(span());
        crate::support::wait_until("a child that is replaced", || {
            let now = daemon.children();
            before.iter().any(|pid| !now.contains(pid)).then_some(())
        });
        crowd.finish().assert_flawless();
    }

    fn a_killed_child_never_mixes_up_the_others(mpm) {
        let backend = teller();
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", shape(mpm), backend.url()));
        daemon.tolerate("child");
        daemon.tolerate("held");
        let crowd = Crowd::start(daemon.address());
        let start = Instant::now();
        let mut killed = 0;
        while start.elapsed() < span() {
            std::thread::sleep(Duration::from_millis(500));
            let children = daemon.children();
            if let Some(pid) = children.get(killed * 7 % children.len().max(1)) {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
                killed += 1;
            }
        }
        let seen = crowd.finish();
        assert!(seen.mixed.is_empty() && seen.errors.is_empty() && seen.refused == 0, "{seen:?}");
        let lost: u64 = seen.lost.values().sum();
        // A child takes at most the connections that it held with it.
        assert!(lost <= killed as u64 * if mpm.is_prefork() { 1 } else { CLIENTS }, "{killed} killed: {seen:?}");
        daemon.wait_for_status("all at rest", |status| status.busy == 0);
    }

    fn what_was_accepted_is_answered_before_the_end(mpm) {
        let backend = teller();
        let mut daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", shape(mpm), backend.url()));
        let crowd = Crowd::start(daemon.address());
        std::thread::sleep(span() / 2);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_end();
        let seen = crowd.finish();
        assert!(seen.mixed.is_empty() && seen.errors.is_empty(), "{seen:?}");
        assert!(seen.lost.is_empty(), "accepted and not answered: {seen:?}");
    }
}
