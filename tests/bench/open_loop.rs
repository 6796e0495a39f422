//! A client that does not wait for its answers: requests go out when they are due, not when the last is done.
//!
//! `bench-open-loop ADDRESS TARGET BYTES CONNECTIONS RATE LEAD SECONDS` sends RATE requests a second, at random times
//! (exponential gaps, always the same ones), over CONNECTIONS kept-alive connections, and prints one line of
//! JSON. A latency counts from the moment at which the request was due, so a request that had to wait for a free
//! connection is late by that too: what a slow server does to those behind shows, which a closed loop (wrk) hides by
//! sending less. What was due in the first LEAD milliseconds is not counted: then all connections are new. Nor is what
//! was due or under way while this program itself did not run although something was due (its core is not its own): that
//! is `spoiled`, and `most_late` is for how long at most. Every answer must be a 200 with BYTES times `x` and no more.

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
/// This late for a request, the program has not run when it should have.
const LATE: Duration = Duration::from_millis(1);

struct Conn {
    stream: TcpStream,
    /// When the request that is under way was due.
    due: Option<Duration>,
    head: Vec<u8>,
    /// Bytes of the body still to come, once the head is there.
    body: Option<usize>,
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
            let text = String::from_utf8_lossy(&conn.head[..end]).to_ascii_lowercase();
            if !text.starts_with("http/1.1 200 ") || !text.contains(&format!("\r\ncontent-length: {want}\r"))
            {
                // The length may be the last field.
                if !text.starts_with("http/1.1 200 ")
                    || !text.ends_with(&format!("\r\ncontent-length: {want}"))
                {
                    return Err(wrong("not the answer that was expected", &conn.head));
                }
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

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let usage =
        || io::Error::other("usage: bench-open-loop ADDRESS TARGET BYTES CONNECTIONS RATE LEAD SECONDS");
    let [address, target, bytes, connections, rate, lead, seconds] = &words[..] else { return Err(usage()) };
    let address: SocketAddr = address.parse().map_err(|_| usage())?;
    let number = |word: &String| word.parse::<usize>().map_err(|_| usage());
    let (want, connections) = (number(bytes)?, number(connections)?.max(1));
    let rate = number(rate)?.max(1);
    let lead = Duration::from_millis(number(lead)? as u64);
    let span = lead + Duration::from_secs(number(seconds)? as u64);
    let request = format!("GET {target} HTTP/1.1\r\nHost: bench.test\r\n\r\n");

    let mut poll = Poll::new()?;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
    let mut conns = Vec::with_capacity(connections);
    for place in 0..connections {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(place), Interest::READABLE)?;
        conns.push(Conn { stream, due: None, head: Vec::new(), body: None });
    }
    let mut free: Vec<usize> = (0..connections).collect();
    let mut waiting: VecDeque<Duration> = VecDeque::new();
    let mut gaps = Gaps { dice: Dice(0x9e37_79b9_7f4a_7c15), mean: 1.0 / rate as f64 };
    let mut choice = Dice(0x2545_f491_4f6c_dd1d);
    let mut latencies: Vec<u32> = Vec::with_capacity(rate * (span.as_secs() as usize + 1) * 11 / 10);
    let mut events = Events::with_capacity(1024);
    let mut input = vec![0; 64 * 1024];
    let start = Instant::now();
    let mut next = gaps.next();
    let mut most_waiting = 0;
    let mut most_late = Duration::ZERO;
    // When it last came back from where it was not running; what was due before, and is not over, is spoiled.
    let mut back = Duration::ZERO;
    let mut spoiled = 0;
    loop {
        let now = start.elapsed();
        while next <= now && next < span {
            waiting.push_back(next);
            if next >= lead {
                most_late = most_late.max(now - next);
            }
            if now - next > LATE {
                back = now;
            }
            next += gaps.next();
        }
        most_waiting = most_waiting.max(waiting.len());
        while let Some(due) = waiting.front().copied()
            && !free.is_empty()
        {
            waiting.pop_front();
            // Any of them: all take part, and in no order that would have one child of a server busy after the other.
            let place = free.swap_remove(choice.draw() as usize % free.len());
            // A request is smaller than an empty send buffer.
            let count = conns[place].stream.write(request.as_bytes())?;
            if count < request.len() {
                return Err(io::Error::other("a send buffer is smaller than a request"));
            }
            conns[place].due = Some(due);
        }
        if next >= span && waiting.is_empty() && free.len() == connections {
            break;
        }
        if now > span + PATIENCE {
            let out = waiting.len() + connections - free.len();
            return Err(io::Error::other(format!(
                "{out} requests are still unanswered {PATIENCE:?} after the end"
            )));
        }
        if next < span {
            let gap = next.saturating_sub(start.elapsed()).max(Duration::from_nanos(1));
            timer.set(Expiration::OneShot(TimeSpec::from_duration(gap)), TimerSetTimeFlags::empty())?;
        }
        if let Err(error) = poll.poll(&mut events, Some(Duration::from_millis(100)))
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            let Token(place) = event.token();
            if event.token() == TIMER {
                // Set anew before the next wait, which also clears it.
                continue;
            }
            if receive(&mut conns[place], &mut input, want)?
                && let Some(due) = conns[place].due.take()
            {
                let late = start.elapsed().saturating_sub(due).as_micros();
                if due < lead {
                    // The connections are new.
                } else if due < back {
                    spoiled += 1;
                } else {
                    latencies.push(u32::try_from(late).unwrap_or(u32::MAX));
                }
                free.push(place);
            }
        }
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0);
    println!(
        "{{\"requests\": {}, \"seconds\": {:.3}, \"p50\": {}, \"p99\": {}, \"p999\": {}, \"most_waiting\": {most_waiting}, \
         \"most_late\": {}, \"spoiled\": {spoiled}}}",
        latencies.len() + spoiled,
        start.elapsed().saturating_sub(lead).as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        most_late.as_micros()
    );
    Ok(())
}
