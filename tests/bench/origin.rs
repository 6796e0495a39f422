//! The server behind every contestant of `scripts/bench`: one thread, as little work as the answer allows.
//!
//! `bench-origin` listens on a free port of loopback, prints its address, and ends when its standard input does; for
//! whatever is written to that it prints how many requests it has answered, and how many connections it has taken.
//! A request for `/BYTES` is answered with so many `x`, one for `/BYTES/MS` only after so many milliseconds; a
//! body (with Content-Length) is read to its end first, and `Connection: close` is obeyed. It is no model of a
//! server: whatever it does not expect ends the connection, which the client then reports.

// A program that measures has no clock handed in.
#![allow(clippy::disallowed_methods)]

mod serve;

use mio::net::TcpStream;
use mio::{Events, Interest, Token};
use serve::{LISTENER, STDIN};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::time::{Duration, Instant};

/// The largest body that is asked for.
const MOST: usize = 16 << 20;

struct Conn {
    stream: TcpStream,
    /// Tells this connection from earlier ones in its place.
    age: u64,
    head: Vec<u8>,
    /// Bytes of the request's body still to come.
    body: usize,
    asked: Option<Asked>,
    /// The answer's head, and how much of head and body is sent.
    answer: Vec<u8>,
    sent: usize,
    length: usize,
    closes: bool,
}

#[derive(Clone, Copy)]
struct Asked {
    length: usize,
    delay: Duration,
    close: bool,
}

/// What a head asks for, and the length of its body.
fn read_head(head: &[u8]) -> Option<(Asked, usize)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let target = lines.next()?.split(' ').nth(1)?.strip_prefix('/')?;
    let (length, delay) = target.split_once('/').unwrap_or((target, "0"));
    let mut asked = Asked {
        length: length.parse().ok()?,
        delay: Duration::from_millis(delay.parse().ok()?),
        close: false,
    };
    let mut body = 0;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            body = value.trim().parse().ok()?;
        } else if name.eq_ignore_ascii_case("connection") {
            asked.close = value.trim().eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
    }
    (asked.length <= MOST).then_some((asked, body))
}

/// What the connection needs next.
enum Next {
    /// Bytes, or room for them.
    Event,
    /// This much time.
    Time(Duration),
}

impl Conn {
    /// Moves on as far as it goes, counting the answers that it begins; an error is the end of it.
    fn drive(&mut self, input: &mut [u8], fill: &[u8], answered: &mut u64) -> io::Result<Next> {
        loop {
            if self.sent < self.answer.len() + self.length {
                let head = self.answer.get(self.sent..).unwrap_or_default();
                let from = self.sent.saturating_sub(self.answer.len());
                let parts = [IoSlice::new(head), IoSlice::new(&fill[from..self.length])];
                match self.stream.write_vectored(&parts) {
                    Ok(count) => self.sent += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Event),
                    Err(error) => return Err(error),
                }
                continue;
            }
            if self.closes {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            let count = match self.stream.read(input) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Event),
                Err(error) => return Err(error),
            };
            if let Some(delay) = self.take(&input[..count])? {
                if !delay.is_zero() {
                    return Ok(Next::Time(delay));
                }
                self.begin_answer();
                *answered += 1;
            } else if count < input.len() {
                return Ok(Next::Event);
            }
        }
    }

    /// Takes bytes of a request; says how long its answer waits once it is complete.
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<Option<Duration>> {
        if self.asked.is_none() {
            let have = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n") else {
                return if self.head.len() < 16384 { Ok(None) } else { Err(ErrorKind::InvalidData.into()) };
            };
            let (asked, body) = read_head(&self.head[..end]).ok_or(ErrorKind::InvalidData)?;
            bytes = &bytes[end + 4 - have..];
            self.asked = Some(asked);
            self.body = body;
        }
        // More than the body would be a pipelined request: nobody here sends such.
        self.body = self.body.checked_sub(bytes.len()).ok_or(ErrorKind::InvalidData)?;
        Ok(self.asked.filter(|_| self.body == 0).map(|asked| asked.delay))
    }

    fn begin_answer(&mut self) {
        let asked = self.asked.take().expect("a request is complete");
        self.head.clear();
        self.answer.clear();
        (self.sent, self.length, self.closes) = (0, asked.length, asked.close);
        // Into a Vec a write can't fail.
        let _ = write!(
            self.answer,
            "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\n{}\r\n",
            asked.length,
            if asked.close { "Connection: close\r\n" } else { "" }
        );
    }
}

fn main() -> io::Result<()> {
    let (mut poll, listener) = serve::begin()?;
    let fill = vec![b'x'; MOST];
    let mut input = vec![0; 256 * 1024];
    let mut events = Events::with_capacity(1024);
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut vacant: Vec<usize> = Vec::new();
    let mut ages = 0;
    let mut answered = 0_u64;
    let mut due: BTreeSet<(Instant, usize, u64)> = BTreeSet::new();
    loop {
        let wait = due.first().map(|(at, ..)| at.saturating_duration_since(Instant::now()));
        if let Err(error) = poll.poll(&mut events, wait)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        let mut ready: Vec<usize> = Vec::with_capacity(64);
        for event in &events {
            match event.token() {
                STDIN => {
                    if io::stdin().read(&mut input)? == 0 {
                        return Ok(());
                    }
                    println!("{answered} {ages}");
                }
                LISTENER => {
                    while let Ok((mut stream, _)) = listener.accept() {
                        let _ = stream.set_nodelay(true);
                        let place = vacant.pop().unwrap_or_else(|| {
                            conns.push(None);
                            conns.len() - 1
                        });
                        let both = Interest::READABLE | Interest::WRITABLE;
                        poll.registry().register(&mut stream, Token(place), both)?;
                        ages += 1;
                        conns[place] = Some(Conn {
                            stream,
                            age: ages,
                            head: Vec::new(),
                            body: 0,
                            asked: None,
                            answer: Vec::new(),
                            sent: 0,
                            length: 0,
                            closes: false,
                        });
                    }
                }
                Token(place) => ready.push(place),
            }
        }
        let now = Instant::now();
        while let Some(&(at, place, age)) = due.first().filter(|(at, ..)| *at <= now) {
            due.remove(&(at, place, age));
            if let Some(conn) = conns[place].as_mut().filter(|conn| conn.age == age) {
                conn.begin_answer();
                answered += 1;
                ready.push(place);
            }
        }
        for place in ready {
            let Some(conn) = conns[place].as_mut() else { continue };
            match conn.drive(&mut input, &fill, &mut answered) {
                Ok(Next::Event) => {}
                Ok(Next::Time(delay)) => {
                    due.insert((Instant::now() + delay, place, conn.age));
                }
                Err(_) => {
                    // Closing takes it out of the poll: no other process has it.
                    conns[place] = None;
                    vacant.push(place);
                }
            }
        }
    }
}
