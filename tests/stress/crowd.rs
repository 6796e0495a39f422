//! The clients: strict ones that retry nothing and count every outcome apart.
//!
//! A client that keeps its connection looks whether it has ended before it sends the next request: an end that
//! was there to be seen costs nothing and is counted as such. From the first byte of a request on, whatever is
//! not its whole and right answer is a lost request. After an answer that announces the end of its connection
//! a client never sends on it again. Each request has a token of its own, which the origin sends back.

use crate::support::backend::Exchange;
use crate::support::client::{Client, Failure, Framing, Response};
use crate::support::{Backend, at_once, pattern};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Clients of each kind.
pub const CLIENTS: [(Kind, usize); 3] = [(Kind::Busy, 24), (Kind::Thinking, 24), (Kind::Newcomer, 8)];

/// How long a thinking client rests after each answer.
const THOUGHT: Duration = Duration::from_millis(50);

/// How long a client waits for anything before that is a loss.
const TIME_OUT: Duration = Duration::from_secs(10);

/// Bytes of the usual answer behind its token; of the long one, which comes in chunks; of a body that is sent.
const ANSWER: usize = 1000;
const LONG_ANSWER: usize = 20_000;
const UPLOAD: usize = 2000;

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Keeps its connection and asks without a pause.
    Busy,
    /// Keeps its connection and thinks between requests.
    Thinking,
    /// Makes a connection for each request.
    Newcomer,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "busy",
            Self::Thinking => "thinking",
            Self::Newcomer => "newcomer",
        })
    }
}

/// What became of a request that was not answered, or not rightly.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Loss {
    /// No connection: refused.
    Refused,
    /// A new connection was reset before the first byte of an answer.
    Reset,
    /// A new connection was closed before the first byte of an answer.
    Closed,
    /// A used connection ended while the request was being written.
    Unwritten,
    /// A used connection ended after the request had been written, before the first byte of an answer.
    Dropped,
    /// An answer that ended too early.
    Truncated,
    /// Nothing came for ten seconds, a connection included.
    TimeOut,
    /// The answer to another request.
    Mixed,
    /// A status of 500 and above.
    ServerError,
    /// Any other status than 200, bytes that are no answer, bytes that nobody has asked for.
    Malformed,
}

impl Loss {
    /// What the end of the child that held the connection may look like, and nothing else.
    pub fn is_by_death(self) -> bool {
        matches!(self, Self::Reset | Self::Closed | Self::Unwritten | Self::Dropped | Self::Truncated)
    }

    /// The connection was new, and nothing came of it.
    pub fn is_unheard(self) -> bool {
        matches!(self, Self::Reset | Self::Closed)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset when new",
            Self::Closed => "closed when new",
            Self::Unwritten => "ended while written",
            Self::Dropped => "ended once written",
            Self::Truncated => "truncated",
            Self::TimeOut => "timed out",
            Self::Mixed => "mixed up",
            Self::ServerError => "5xx",
            Self::Malformed => "malformed",
        })
    }
}

/// One lost request.
#[derive(Clone, Debug)]
pub struct Note {
    /// What became of it.
    pub loss: Loss,
    /// When that was seen.
    pub at: Instant,
    /// The same by the wall clock.
    wall: SystemTime,
    what: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", time_of_day(self.wall), self.loss, self.what)
    }
}

/// What clients have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests answered with their own token and status 200.
    pub served: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections on which at least one answer began.
    pub answered: u64,
    /// Answers that announced the end of their connection although the client wanted to keep it.
    pub farewells: u64,
    /// Ends of a kept connection that were seen before the next request was begun. No request is lost.
    pub idle_ends: Vec<Instant>,
    /// Clients that met no listener any more and left, where that was asked for.
    pub left: u64,
    /// Lost requests.
    pub losses: BTreeMap<Loss, u64>,
    /// Each of them.
    pub notes: Vec<Note>,
    /// The longest time from the first byte of a request to the last of its answer, the connection included.
    pub slowest: Duration,
    /// When that answer came, by the wall clock.
    pub slowest_at: Option<SystemTime>,
    /// Requests served by kind of client, in the order of [`CLIENTS`].
    pub by_kind: [u64; 3],
    /// How long the clients were at it.
    pub span: Duration,
}

impl Seen {
    /// All losses.
    pub fn lost(&self) -> u64 {
        self.losses.values().sum()
    }

    /// Requests served per second.
    pub fn rate(&self) -> f64 {
        self.served as f64 / self.span.as_secs_f64().max(0.001)
    }

    /// What others have seen as well.
    pub fn add(&mut self, other: Self) {
        self.served += other.served;
        self.connections += other.connections;
        self.answered += other.answered;
        self.farewells += other.farewells;
        self.idle_ends.extend(other.idle_ends);
        self.left += other.left;
        for (loss, count) in other.losses {
            *self.losses.entry(loss).or_default() += count;
        }
        self.notes.extend(other.notes);
        if other.slowest > self.slowest {
            (self.slowest, self.slowest_at) = (other.slowest, other.slowest_at);
        }
        for (sum, count) in self.by_kind.iter_mut().zip(other.by_kind) {
            *sum += count;
        }
    }
}

/// The time of day as the error log writes it, so that the two can be laid side by side.
pub fn time_of_day(wall: SystemTime) -> String {
    let zone = jiff::tz::TimeZone::system();
    let time = jiff::Timestamp::try_from(wall).map(|time| time.to_zoned(zone));
    time.map_or("?".to_owned(), |time| time.strftime("%H:%M:%S%.6f").to_string())
}

/// The body of the usual answer to the request with this token.
pub fn usual_body(token: &str) -> Vec<u8> {
    [token.as_bytes(), b"\n", &pattern(ANSWER, 1)].concat()
}

/// Starts the origin that the clients expect: it sends the token back, with bytes that tell a cut.
pub fn origin() -> Backend {
    let (answer, long) = (pattern(ANSWER, 1), pattern(LONG_ANSWER, 2));
    Backend::with(move |exchange: &mut Exchange| {
        exchange.read_body(|_| {})?;
        let token = exchange.request.field("x-token").unwrap_or_default().to_owned();
        let is_long = exchange.request.target == "/long";
        let body = [token.as_bytes(), b"\n", if is_long { &long } else { &answer }].concat();
        if is_long { exchange.respond_chunked(&body, 4000, "") } else { exchange.respond(200, &[], &body) }
    })
}

/// One busy client that asks so many times; what it saw. For who must know that it counts rightly.
pub fn one_client(address: SocketAddr, requests: u32, pause: Duration) -> Seen {
    let orders = Orders::new(address, false);
    let mut visitor = Visitor::new(&orders, 0, 0);
    for _ in 0..requests {
        visitor.turn();
        std::thread::sleep(pause);
    }
    visitor.seen
}

/// All clients at work.
pub struct Crowd {
    orders: Arc<Orders>,
    begun: Instant,
    threads: Vec<JoinHandle<Seen>>,
}

struct Orders {
    address: SocketAddr,
    /// Leave when the listener is gone: a refusal is no loss then.
    leaves_when_refused: bool,
    stop: AtomicBool,
    served: AtomicU64,
}

impl Orders {
    fn new(address: SocketAddr, leaves_when_refused: bool) -> Self {
        Self { address, leaves_when_refused, stop: AtomicBool::new(false), served: AtomicU64::new(0) }
    }
}

impl Crowd {
    /// Sets all clients of [`CLIENTS`] on `address`, until [`finish`](Self::finish).
    pub fn start(address: SocketAddr) -> Self {
        Self::new(address, false)
    }

    /// The same, but a client to whom a connection is refused has seen the end and leaves.
    pub fn until_refused(address: SocketAddr) -> Self {
        Self::new(address, true)
    }

    fn new(address: SocketAddr, leaves_when_refused: bool) -> Self {
        let orders = Arc::new(Orders::new(address, leaves_when_refused));
        let kinds: Vec<usize> = CLIENTS
            .iter()
            .enumerate()
            .flat_map(|(kind, (_, count))| std::iter::repeat_n(kind, *count))
            .collect();
        let shared = Arc::clone(&orders);
        let threads =
            at_once(kinds.len(), move |number| Visitor::new(&shared, kinds[number], number).visit());
        Self { orders, begun: Instant::now(), threads }
    }

    /// Requests served so far.
    pub fn served(&self) -> u64 {
        self.orders.served.load(Ordering::Relaxed)
    }

    /// Lets every client finish its request and adds up what they saw.
    pub fn finish(mut self) -> Seen {
        self.orders.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until every client has left by itself.
    pub fn wait(mut self) -> Seen {
        self.join()
    }

    fn join(&mut self) -> Seen {
        let mut sum = Seen::default();
        for thread in self.threads.drain(..) {
            sum.add(thread.join().expect("a client never panics"));
        }
        sum.span = self.begun.elapsed();
        sum.notes.sort_by_key(|note| note.at);
        sum
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Relaxed);
    }
}

/// What a look at a kept connection shows.
enum Look {
    Quiet,
    Ended,
    Bytes,
}

/// One client.
struct Visitor<'o> {
    orders: &'o Orders,
    /// Index of [`CLIENTS`].
    kind: usize,
    number: usize,
    requests: u64,
    kept: Option<Kept>,
    seen: Seen,
}

struct Kept {
    client: Client,
    port: u16,
    /// Answers that came on it.
    answers: u64,
}

impl<'o> Visitor<'o> {
    fn new(orders: &'o Orders, kind: usize, number: usize) -> Self {
        Self { orders, kind, number, requests: 0, kept: None, seen: Seen::default() }
    }

    fn kind(&self) -> Kind {
        CLIENTS[self.kind].0
    }

    fn visit(mut self) -> Seen {
        while !self.orders.stop.load(Ordering::Relaxed) {
            if !self.turn() {
                self.seen.left += 1;
                break;
            }
        }
        self.seen
    }

    /// Rests, looks and asks; false if this client has to leave.
    fn turn(&mut self) -> bool {
        let thought = if self.kind() == Kind::Thinking { THOUGHT } else { Duration::ZERO };
        match self.kept.as_mut().map(|kept| look(&mut kept.client, thought)) {
            None => std::thread::sleep(thought),
            Some(Look::Quiet) => {}
            Some(Look::Ended) => {
                self.seen.idle_ends.push(Instant::now());
                self.kept = None;
            }
            Some(Look::Bytes) => {
                let port = self.kept.take().map_or(0, |kept| kept.port);
                self.lose(Loss::Malformed, port, 0, "bytes that nobody asked for", Instant::now());
            }
        }
        self.ask()
    }

    /// One request; false if this client has to leave.
    fn ask(&mut self) -> bool {
        self.requests += 1;
        let begun = Instant::now();
        let mut kept = match self.kept.take().map_or_else(|| self.connect(), Ok) {
            Ok(kept) => kept,
            Err(error) => {
                let is_refused = error.kind() == ErrorKind::ConnectionRefused;
                if is_refused && self.orders.leaves_when_refused {
                    return false;
                }
                let loss = match error.kind() {
                    ErrorKind::ConnectionRefused => Loss::Refused,
                    ErrorKind::ConnectionReset => Loss::Reset,
                    ErrorKind::TimedOut => Loss::TimeOut,
                    _ => Loss::Malformed,
                };
                self.lose(loss, 0, 0, &format!("connect: {error}"), begun);
                std::thread::sleep(Duration::from_millis(10));
                return true;
            }
        };
        let (port, answers) = (kept.port, kept.answers);
        match self.exchange(&mut kept) {
            Ok(answer) => {
                self.seen.served += 1;
                self.seen.by_kind[self.kind] += 1;
                self.orders.served.fetch_add(1, Ordering::Relaxed);
                let took = begun.elapsed();
                if took > self.seen.slowest {
                    (self.seen.slowest, self.seen.slowest_at) = (took, Some(SystemTime::now()));
                }
                if self.kind() == Kind::Newcomer {
                    if let Err(failure) = kept.client.closed() {
                        self.lose(Loss::Malformed, port, answers, &format!("not closed: {failure:?}"), begun);
                    }
                } else if answer.closes() {
                    self.seen.farewells += 1;
                } else {
                    kept.answers += 1;
                    self.kept = Some(kept);
                }
            }
            Err((loss, what)) => self.lose(loss, port, answers, &what, begun),
        }
        true
    }

    fn connect(&mut self) -> io::Result<Kept> {
        let stream = TcpStream::connect_timeout(&self.orders.address, TIME_OUT)?;
        self.seen.connections += 1;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIME_OUT))?;
        stream.set_write_timeout(Some(TIME_OUT))?;
        let port = stream.local_addr()?.port();
        Ok(Kept { client: Client::over(stream), port, answers: 0 })
    }

    /// Sends one request and reads its answer.
    fn exchange(&mut self, kept: &mut Kept) -> Result<Response, (Loss, String)> {
        let token = format!("{}-{}", self.number, self.requests);
        let (method, target, upload) = match self.requests % 8 {
            3 => ("POST", "/", UPLOAD),
            7 => ("GET", "/long", 0),
            _ => ("GET", "/", 0),
        };
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nX-Token: {token}\r\n");
        if upload > 0 {
            let _ = write!(request, "Content-Length: {upload}\r\n");
        }
        request += if self.kind() == Kind::Newcomer { "Connection: close\r\n\r\n" } else { "\r\n" };
        let mut request = request.into_bytes();
        request.resize(request.len() + upload, b'u');

        let is_new = kept.answers == 0;
        let stream = kept.client.stream();
        let written = stream.write_all(&request);
        // An answer may be waiting even if the request could not be written to its end.
        let first = stream.peek(&mut [0]);
        match (&first, &written) {
            (Ok(1..), _) => {}
            (Ok(0), Ok(())) if is_new => return Err((Loss::Closed, "closed without a byte".into())),
            (Ok(0), Ok(())) => return Err((Loss::Dropped, "closed without a byte".into())),
            (Err(error), Ok(())) if is_time_out(error) => {
                return Err((Loss::TimeOut, format!("no byte within {TIME_OUT:?}")));
            }
            (Err(error), Ok(())) if is_new => return Err((Loss::Reset, error.to_string())),
            (Err(error), Ok(())) => return Err((Loss::Dropped, error.to_string())),
            (_, Err(error)) if is_time_out(error) => return Err((Loss::TimeOut, format!("write: {error}"))),
            (_, Err(error)) => {
                return Err((if is_new { Loss::Reset } else { Loss::Unwritten }, format!("write: {error}")));
            }
        }
        if is_new {
            self.seen.answered += 1;
        }
        let answer = kept.client.answer(method).map_err(|failure| match failure {
            Failure::Silent => (Loss::TimeOut, "the answer stops".into()),
            Failure::Malformed(what) if !what.starts_with("cut head") => (Loss::Malformed, what),
            other => (Loss::Truncated, format!("{other:?}")),
        })?;
        check(&answer, target, &token)?;
        Ok(answer)
    }

    fn lose(&mut self, loss: Loss, port: u16, answers: u64, what: &str, begun: Instant) {
        *self.seen.losses.entry(loss).or_default() += 1;
        let at = Instant::now();
        let what = format!(
            "{} client {} port {port}, request {} ({} on this connection), after {:?}: {what}",
            self.kind(),
            self.number,
            self.requests,
            answers + 1,
            at - begun
        );
        self.seen.notes.push(Note { loss, at, wall: SystemTime::now(), what });
    }
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Watches a connection on which nothing is due for `thought`.
fn look(client: &mut Client, thought: Duration) -> Look {
    if client.has_leftover() {
        return Look::Bytes;
    }
    let socket = client.stream();
    if !thought.is_zero() {
        let mut entries = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut entries, PollTimeout::try_from(thought).expect("a short time"));
    }
    match recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
        Err(Errno::EAGAIN | Errno::EINTR) => Look::Quiet,
        Ok(0) | Err(_) => Look::Ended,
        Ok(_) => Look::Bytes,
    }
}

/// Whether this is the answer to the request with this token.
fn check(answer: &Response, target: &str, token: &str) -> Result<(), (Loss, String)> {
    if answer.status >= 500 {
        return Err((Loss::ServerError, format!("status {}", answer.status)));
    }
    if answer.status != 200 {
        return Err((Loss::Malformed, format!("status {}", answer.status)));
    }
    let (framing, length) =
        if target == "/long" { (Framing::Chunked, LONG_ANSWER) } else { (Framing::Length, ANSWER) };
    let mut parts = answer.body.splitn(2, |byte| *byte == b'\n');
    let (echoed, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if echoed != token.as_bytes() {
        return Err((Loss::Mixed, format!("token {:?}, not {token}", String::from_utf8_lossy(echoed))));
    }
    if answer.framing != framing || rest.len() != length {
        return Err((Loss::Truncated, format!("{:?} of {} bytes", answer.framing, rest.len())));
    }
    Ok(())
}
