//! A client that does not wait for its answers: requests go out when they are due, not when the last is done.
//!
//! `bench-open-loop ADDRESS TARGET BYTES CONNECTIONS RATE LEAD SECONDS` sends RATE requests a second, at random times
//! (exponential gaps, always the same ones), over CONNECTIONS kept-alive connections, and prints one line of
//! JSON. A latency counts from the moment at which the request was due, so a request that had to wait for a free
//! connection is late by that too: what a slow server does to those behind shows, which a closed loop (wrk) hides by
//! sending less. What was due in the first LEAD milliseconds is not counted: then all connections are new. Every answer
//! must be a 200 with BYTES times `x` and no more.
//!
//! `p99` is of all answers. `p99_tenths` is the median of the p99s of the tenths of seconds in which the requests were due: a
//! virtual machine that stands still for some milliseconds every other second makes the one whatever it is for
//! everybody, and is in few of the others.
//!
//! Whether this program itself was late is told, for the caller to judge, and nothing is left out for it: `most_late` is
//! by how much at most, in microseconds, and `spoiled_share` how many of the requests fell due or were under way meanwhile.

// A program that measures has no clock handed in.
#![allow(clippy::disallowed_methods)]

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

const TIMER: Token = Token(usize::MAX - 1);
/// How long answers may take that are still out at the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a stretch is that has a p99 of its own.
const TENTH: Duration = Duration::from_millis(100);
/// This late for a request, the program has not run when it should have.
const LATE: Duration = Duration::from_millis(1);

/// What is asked for on the command line.
struct Order {
    address: SocketAddr,
    request: String,
    /// Bytes of a right answer's body.
    want: usize,
    connections: usize,
    /// Requests a second.
    rate: usize,
    lead: Duration,
    /// From the start to the moment after which nothing is due.
    span: Duration,
}

impl Order {
    fn parse(words: &[String]) -> Option<Self> {
        let [address, target, bytes, connections, rate, lead, seconds] = words else { return None };
        let lead = Duration::from_millis(lead.parse().ok()?);
        Some(Self {
            address: address.parse().ok()?,
            request: format!("GET {target} HTTP/1.1\r\nHost: bench.test\r\n\r\n"),
            want: bytes.parse().ok()?,
            connections: connections.parse::<usize>().ok()?.max(1),
            rate: rate.parse::<usize>().ok()?.max(1),
            lead,
            span: lead + Duration::from_secs(seconds.parse().ok()?),
        })
    }
}

struct Conn {
    stream: TcpStream,
    /// When the request that is under way was due.
    due: Option<Duration>,
    head: Vec<u8>,
    /// Bytes of the body still to come, once the head is there.
    body: Option<usize>,
}

/// Whether a head, without its last line end, is a 200's with a body of so many bytes.
fn is_expected(head: &[u8], want: usize) -> bool {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = format!("content-length: {want}");
    text.starts_with("http/1.1 200 ") && text.split("\r\n").any(|line| line == length)
}

/// Takes bytes of an answer; whether it is complete.
fn take(conn: &mut Conn, mut bytes: &[u8], want: usize) -> io::Result<bool> {
    let wrong = |what: &str, bytes: &[u8]| {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        io::Error::other(format!("{what}: {shown:?}"))
    };
    if conn.due.is_none() {
        return Err(wrong("bytes that nobody asked for", bytes));
    }
    let mut left = match conn.body {
        Some(left) => left,
        None => {
            let have = conn.head.len();
            conn.head.extend_from_slice(bytes);
            let Some(end) = memchr::memmem::find(&conn.head, b"\r\n\r\n") else { return Ok(false) };
            if !is_expected(&conn.head[..end], want) {
                return Err(wrong("not the answer that was expected", &conn.head));
            }
            bytes = &bytes[end + 4 - have..];
            conn.head.clear();
            want
        }
    };
    if bytes.len() > left || bytes.iter().any(|byte| *byte != b'x') {
        return Err(wrong("not the body that was expected", bytes));
    }
    left -= bytes.len();
    conn.body = (left > 0).then_some(left);
    Ok(left == 0)
}

/// Reads what there is; whether the answer is complete.
fn receive(conn: &mut Conn, input: &mut [u8], want: usize) -> io::Result<bool> {
    loop {
        match conn.stream.read(input) {
            Ok(0) => return Err(io::Error::other("a connection was closed")),
            Ok(count) => {
                if take(conn, &input[..count], want)? {
                    return Ok(true);
                }
                if count < input.len() {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// A generator whose seed is fixed, so that all contestants meet the same.
struct Dice(u64);

impl Dice {
    /// 53 bits.
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
}

/// The gaps between requests: exponential.
struct Gaps {
    dice: Dice,
    mean: f64,
}

impl Gaps {
    fn next(&mut self) -> Duration {
        let chance = (self.dice.draw() as f64 + 1.0) / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-chance.ln() * self.mean)
    }
}

/// What is told at the end; times are since the start.
struct Tally {
    lead: Duration,
    /// Of each answer the tenth of a second in which its request was due, and the microseconds that it took.
    answers: Vec<(u32, u32)>,
    most_late: Duration,
    /// When this program last came back from where it was not running.
    back: Duration,
    /// Requests that were due or under way then.
    spoiled: usize,
}

impl Tally {
    /// A request is looked at for the first time.
    fn fell_due(&mut self, due: Duration, now: Duration) {
        if due >= self.lead {
            self.most_late = self.most_late.max(now - due);
        }
        if now - due > LATE {
            self.back = now;
        }
    }

    /// A request is answered.
    fn answered(&mut self, due: Duration, now: Duration) {
        if due < self.lead {
            return;
        }
        let tenth = (due.as_nanos() / TENTH.as_nanos()) as u32;
        self.answers.push((tenth, u32::try_from((now - due).as_micros()).unwrap_or(u32::MAX)));
        if due < self.back {
            self.spoiled += 1;
        }
    }

    /// The line of JSON.
    fn told(mut self) -> String {
        self.answers.sort_unstable();
        let tenths = self.answers.chunk_by(|one, other| one.0 == other.0);
        // Sorted by the time that they took, each.
        let mut tails: Vec<u32> =
            tenths.map(|answers| at(answers.len(), 0.99, |place| answers[place].1)).collect();
        tails.sort_unstable();
        let mut all: Vec<u32> = self.answers.iter().map(|(_, micros)| *micros).collect();
        all.sort_unstable();
        format!(
            "{{\"p50\": {}, \"p99\": {}, \"p99_tenths\": {}, \"most_late\": {}, \"spoiled_share\": {:.6}}}",
            at(all.len(), 0.5, |place| all[place]),
            at(all.len(), 0.99, |place| all[place]),
            at(tails.len(), 0.5, |place| tails[place]),
            self.most_late.as_micros(),
            self.spoiled as f64 / all.len().max(1) as f64
        )
    }
}

/// What stands at that share of `count` in their order; 0 of none.
fn at(count: usize, share: f64, which: impl Fn(usize) -> u32) -> u32 {
    if count == 0 { 0 } else { which((count as f64 * share) as usize) }
}

struct Client {
    order: Order,
    poll: Poll,
    timer: TimerFd,
    conns: Vec<Conn>,
    /// The connections on which nothing is under way.
    free: Vec<usize>,
    /// When the requests were due that have no connection yet.
    waiting: VecDeque<Duration>,
    gaps: Gaps,
    choice: Dice,
    start: Instant,
    /// When the next request is due.
    next: Duration,
    tally: Tally,
}

impl Client {
    fn connect(order: Order) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
        let mut conns = Vec::with_capacity(order.connections);
        for place in 0..order.connections {
            let stream = std::net::TcpStream::connect(order.address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(place), Interest::READABLE)?;
            conns.push(Conn { stream, due: None, head: Vec::new(), body: None });
        }
        let mut gaps = Gaps { dice: Dice(0x9e37_79b9_7f4a_7c15), mean: 1.0 / order.rate as f64 };
        let tally = Tally {
            lead: order.lead,
            answers: Vec::with_capacity(order.rate * (order.span.as_secs() as usize + 1) * 11 / 10),
            most_late: Duration::ZERO,
            back: Duration::ZERO,
            spoiled: 0,
        };
        Ok(Self {
            free: (0..conns.len()).collect(),
            waiting: VecDeque::new(),
            next: gaps.next(),
            choice: Dice(0x2545_f491_4f6c_dd1d),
            start: Instant::now(),
            order,
            poll,
            timer,
            conns,
            gaps,
            tally,
        })
    }

    /// Sends all that is due, and takes the answers, until the last one.
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut input = vec![0; 64 * 1024];
        loop {
            let now = self.start.elapsed();
            self.note_due(now);
            self.send()?;
            let out = self.waiting.len() + self.conns.len() - self.free.len();
            if self.next >= self.order.span && out == 0 {
                return Ok(());
            }
            if now > self.order.span + PATIENCE {
                return Err(io::Error::other(format!(
                    "{out} requests are still unanswered {PATIENCE:?} after the end"
                )));
            }
            self.wait(&mut events)?;
            // The timer is set anew before the next wait, which also clears it.
            for event in events.iter().filter(|event| event.token() != TIMER) {
                self.receive(event.token().0, &mut input)?;
            }
        }
    }

    fn note_due(&mut self, now: Duration) {
        while self.next <= now && self.next < self.order.span {
            self.waiting.push_back(self.next);
            self.tally.fell_due(self.next, now);
            self.next += self.gaps.next();
        }
    }

    /// Sends what is due, as long as connections are free.
    fn send(&mut self) -> io::Result<()> {
        while !self.free.is_empty()
            && let Some(due) = self.waiting.pop_front()
        {
            // Any of them: all take part, and in no order that would have one child of a server busy after the other.
            let place = self.free.swap_remove(self.choice.draw() as usize % self.free.len());
            let conn = &mut self.conns[place];
            // A request is smaller than an empty send buffer.
            if conn.stream.write(self.order.request.as_bytes())? < self.order.request.len() {
                return Err(io::Error::other("a send buffer is smaller than a request"));
            }
            conn.due = Some(due);
        }
        Ok(())
    }

    /// Waits for answers, and no longer than until the next request is due.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        if self.next < self.order.span {
            let gap = self.next.saturating_sub(self.start.elapsed()).max(Duration::from_nanos(1));
            self.timer.set(Expiration::OneShot(TimeSpec::from_duration(gap)), TimerSetTimeFlags::empty())?;
        }
        match self.poll.poll(events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes what has come on a connection, which is free again when its answer is complete.
    fn receive(&mut self, place: usize, input: &mut [u8]) -> io::Result<()> {
        let conn = &mut self.conns[place];
        if receive(conn, input, self.order.want)?
            && let Some(due) = conn.due.take()
        {
            let now = self.start.elapsed();
            // First, so that an answer that this program took up late counts among the spoiled.
            self.note_due(now);
            self.tally.answered(due, now);
            self.free.push(place);
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let order = Order::parse(&words).ok_or_else(|| {
        io::Error::other("usage: bench-open-loop ADDRESS TARGET BYTES CONNECTIONS RATE LEAD SECONDS")
    })?;
    let mut client = Client::connect(order)?;
    client.run()?;
    println!("{}", client.tally.told());
    Ok(())
}
