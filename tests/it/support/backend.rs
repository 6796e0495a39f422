//! An origin that does what the request's path tells it, or what the test's own handler does, and counts.
//!
//! A thread to a connection, so that hundreds of requests can be held at once. A request counts as being *at
//! the origin* from the last byte of its head until just before the first byte of its answer: a proxy that
//! has the answer may send the next request before this program's thread has run again.

use super::{Hash, PATIENCE, pattern};
use socket2::SockRef;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

type Handler = dyn Fn(&mut Exchange) -> io::Result<()> + Send + Sync;

/// A running origin; it ends, with all its connections, when dropped.
pub struct Backend {
    shared: Arc<Shared>,
    place: Place,
}

enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

struct Shared {
    name: String,
    handler: Box<Handler>,
    tally: Mutex<Tally>,
    changed: Condvar,
}

#[derive(Default)]
struct Tally {
    requests: u64,
    now: usize,
    most: usize,
    connections: u64,
    is_released: bool,
    is_stopping: bool,
    lines: HashMap<u64, Line>,
    targets: HashMap<String, usize>,
}

impl Backend {
    /// An origin that obeys the path (see [`by_path`]).
    pub fn start() -> Self {
        Self::named("origin")
    }

    /// The same, reporting this name, where a test has several.
    pub fn named(name: &str) -> Self {
        Self::tcp("127.0.0.1:0", name, by_path)
    }

    /// An origin with its own mind.
    pub fn with(handler: impl Fn(&mut Exchange) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::tcp("127.0.0.1:0", "origin", handler)
    }

    /// An origin that answers every request with these bytes as they are, then closes.
    pub fn raw(bytes: &'static [u8]) -> Self {
        Self::with(move |exchange| {
            exchange.raw(bytes)?;
            exchange.close();
            Ok(())
        })
    }

    /// An origin on a socket in the file system.
    pub fn unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("the directory is the test's own");
        let backend = Self::new(Place::Unix(path.to_owned()), "unix", by_path);
        let shared = Arc::clone(&backend.shared);
        spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if !shared.take(Line::Unix(stream)) {
                    break;
                }
            }
        });
        backend
    }

    fn tcp(
        address: &str,
        name: &str,
        handler: impl Fn(&mut Exchange) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        super::descriptors();
        let listener = TcpListener::bind(address).expect("port 0 is always free");
        // The standard library asks for a queue of 128 only; hundreds of connections come at once here.
        SockRef::from(&listener).listen(4096).expect("a listening socket may listen again");
        let place = Place::Tcp(listener.local_addr().expect("bound above"));
        let backend = Self::new(place, name, handler);
        let shared = Arc::clone(&backend.shared);
        spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let _ = stream.set_nodelay(true);
                if !shared.take(Line::Tcp(stream)) {
                    break;
                }
            }
        });
        backend
    }

    fn new(
        place: Place,
        name: &str,
        handler: impl Fn(&mut Exchange) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            handler: Box::new(handler),
            tally: Mutex::default(),
            changed: Condvar::new(),
        };
        Self { shared: Arc::new(shared), place }
    }

    /// `http://127.0.0.1:PORT`, or `unix:PATH|http://origin` for a socket in the file system.
    pub fn url(&self) -> String {
        match &self.place {
            Place::Tcp(address) => format!("http://{address}"),
            Place::Unix(path) => format!("unix:{}|http://origin", path.display()),
        }
    }

    /// `127.0.0.1:PORT`
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Tcp(address) => address.to_string(),
            Place::Unix(_) => "origin".to_owned(),
        }
    }

    /// Requests that have arrived so far.
    pub fn requests(&self) -> u64 {
        self.shared.tally().requests
    }

    /// Requests that are here now.
    pub fn now(&self) -> usize {
        self.shared.tally().now
    }

    /// The most requests that were ever here at one time.
    pub fn most(&self) -> usize {
        self.shared.tally().most
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.tally().connections
    }

    /// How many requests for `target` have arrived.
    pub fn asked_for(&self, target: &str) -> usize {
        self.shared.tally().targets.get(target).copied().unwrap_or(0)
    }

    /// Lets every held request go, now and from now on.
    pub fn release(&self) {
        self.shared.tally().is_released = true;
        self.shared.changed.notify_all();
    }

    /// Waits until exactly so many requests are here.
    #[track_caller]
    pub fn wait_for_now(&self, count: usize) {
        let mut tally = self.shared.tally();
        let start = Instant::now();
        while tally.now != count {
            let now = tally.now;
            assert!(start.elapsed() < PATIENCE, "{now} requests at the origin, not {count}");
            tally = wait(&self.shared.changed, tally);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let mut tally = self.shared.tally();
        tally.is_stopping = true;
        tally.lines.drain().for_each(|(_, line)| line.end());
        drop(tally);
        self.shared.changed.notify_all();
        // The accepting thread looks up once more, finds that it is over and lets the listener go.
        match &self.place {
            Place::Tcp(address) => drop(TcpStream::connect(address)),
            Place::Unix(path) => drop(UnixStream::connect(path)),
        }
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Gives a new connection its thread; false once the origin is ending.
    fn take(self: &Arc<Self>, line: Line) -> bool {
        let mut tally = self.tally();
        if tally.is_stopping {
            return false;
        }
        tally.connections += 1;
        let number = tally.connections;
        let Ok(second) = line.second() else { return true };
        tally.lines.insert(number, second);
        drop(tally);
        let shared = Arc::clone(self);
        spawn(move || {
            let mut line = line;
            let mut buffer = Vec::new();
            let mut nth = 0;
            while let Ok(Some(request)) = Request::read(&mut line, &mut buffer) {
                nth += 1;
                let mut exchange =
                    Exchange::new(&shared, request, line, std::mem::take(&mut buffer), number, nth);
                let outcome = (shared.handler)(&mut exchange);
                exchange.leave();
                let drained =
                    outcome.and_then(|()| if exchange.is_last { Ok(()) } else { exchange.skip_body() });
                let is_last = exchange.is_last || drained.is_err();
                let is_reset = exchange.is_reset;
                line = exchange.line;
                buffer = exchange.buffer;
                if is_reset {
                    // Only the close of the last descriptor resets; a shutdown would say a polite FIN first.
                    shared.tally().lines.remove(&number);
                    return;
                }
                if is_last {
                    break;
                }
            }
            line.end();
            shared.tally().lines.remove(&number);
        });
        true
    }
}

/// A head as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The target.
    pub target: String,
    /// `HTTP/1.1`
    pub version: String,
    /// Field lines, names in lower case.
    pub fields: Vec<(String, String)>,
}

impl Request {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn read(line: &mut Line, buffer: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let mut piece = [0; 16 * 1024];
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            match line.read(&mut piece)? {
                0 => return Ok(None),
                count => buffer.extend_from_slice(&piece[..count]),
            }
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&head);
        let mut lines = text.split_terminator("\r\n");
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let (method, target, version) = (word(), word(), word());
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Some(Self { method, target, version, fields }))
    }
}

enum Body {
    Length(usize),
    Chunked,
    Read,
}

/// One request and what is answered to it.
pub struct Exchange {
    /// What was asked.
    pub request: Request,
    /// The number of this connection, from 1.
    pub connection: u64,
    /// The number of this request on its connection, from 1.
    pub nth: u64,
    shared: Arc<Shared>,
    line: Line,
    buffer: Vec<u8>,
    body: Body,
    is_here: bool,
    is_last: bool,
    is_reset: bool,
    awaits_continue: bool,
}

impl Exchange {
    fn new(
        shared: &Arc<Shared>,
        request: Request,
        line: Line,
        buffer: Vec<u8>,
        connection: u64,
        nth: u64,
    ) -> Self {
        let mut tally = shared.tally();
        tally.requests += 1;
        tally.now += 1;
        tally.most = tally.most.max(tally.now);
        *tally.targets.entry(request.target.clone()).or_default() += 1;
        drop(tally);
        shared.changed.notify_all();
        let body = match (request.field("transfer-encoding"), request.field("content-length")) {
            (Some(_), _) => Body::Chunked,
            (None, Some(length)) => Body::Length(length.parse().unwrap_or(0)),
            (None, None) => Body::Read,
        };
        let awaits_continue = request.field("expect").is_some();
        let is_last = request.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let shared = Arc::clone(shared);
        Self {
            request,
            connection,
            nth,
            shared,
            line,
            buffer,
            body,
            is_here: true,
            is_last,
            is_reset: false,
            awaits_continue,
        }
    }

    /// The path, in segments.
    pub fn segments(&self) -> Vec<String> {
        let path = self.request.target.split('?').next().unwrap_or_default();
        path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    }

    /// Waits until the test releases the held requests, or ends.
    pub fn hold(&self) {
        let mut tally = self.shared.tally();
        while !tally.is_released && !tally.is_stopping {
            tally = wait(&self.shared.changed, tally);
        }
    }

    /// Reads the body, piece by piece, saying 100 first if the client waits for that.
    pub fn read_body(&mut self, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
        if self.awaits_continue && !matches!(self.body, Body::Read) {
            self.line.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.read_body_deaf(&mut sink)
    }

    /// Reads the body without ever saying 100.
    pub fn read_body_deaf(&mut self, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
        match std::mem::replace(&mut self.body, Body::Read) {
            Body::Read => Ok(()),
            Body::Length(length) => self.take(length, &mut sink),
            Body::Chunked => loop {
                let size = self.text_line()?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| io::Error::other(format!("chunk size {size:?}")))?;
                if size == 0 {
                    while !self.text_line()?.is_empty() {}
                    return Ok(());
                }
                self.take(size, &mut sink)?;
                self.text_line()?;
            },
        }
    }

    fn skip_body(&mut self) -> io::Result<()> {
        self.read_body_deaf(|_| {})
    }

    /// Answers 200 with a report of all that arrived, the body's length and hash included.
    pub fn echo(&mut self) -> io::Result<()> {
        let (mut length, mut hash) = (0, Hash::EMPTY);
        self.read_body(|bytes| {
            length += bytes.len();
            hash = hash.and(bytes);
        })?;
        let Request { method, target, version, fields } = &self.request;
        let mut report =
            format!("method {method}\ntarget {target}\nversion {version}\norigin {}\n", self.shared.name);
        report += &format!("connection {}\nnth {}\nbody {length} {:x}\n", self.connection, self.nth, hash.0);
        for (name, value) in fields {
            report += &format!("field {name}: {value}\n");
        }
        self.respond(200, &[("content-type", "text/plain")], report.as_bytes())
    }

    /// Answers with a body of known length (none to HEAD, none with 204 and 304).
    pub fn respond(&mut self, status: u16, fields: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut bytes = head(status, fields);
        let has_length = status != 204 && status >= 200;
        if has_length {
            bytes += &format!("Content-Length: {}\r\n", body.len());
        }
        bytes += "\r\n";
        let mut bytes = bytes.into_bytes();
        if self.request.method != "HEAD" && has_length && status != 304 {
            bytes.extend_from_slice(body);
        }
        self.raw(&bytes)
    }

    /// Answers 200 with a chunked body (none to HEAD), so many bytes a chunk, and this trailer section.
    pub fn respond_chunked(&mut self, body: &[u8], chunk: usize, trailers: &str) -> io::Result<()> {
        self.raw((head(200, &[("transfer-encoding", "chunked")]) + "\r\n").as_bytes())?;
        if self.request.method == "HEAD" {
            return Ok(());
        }
        for piece in body.chunks(chunk.max(1)) {
            let mut bytes = format!("{:x}\r\n", piece.len()).into_bytes();
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
            self.raw(&bytes)?;
        }
        self.raw(format!("0\r\n{trailers}\r\n").as_bytes())
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.leave();
        self.line.write_all(bytes)
    }

    /// Ends the connection once the handler returns.
    pub fn close(&mut self) {
        self.leave();
        self.is_last = true;
    }

    /// Ends the connection with a reset.
    pub fn reset(&mut self) {
        self.close();
        self.is_reset = true;
        self.line.reset();
    }

    fn leave(&mut self) {
        if std::mem::take(&mut self.is_here) {
            self.shared.tally().now -= 1;
            self.shared.changed.notify_all();
        }
    }

    fn take(&mut self, mut length: usize, sink: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while length > 0 {
            if self.buffer.is_empty() {
                self.more()?;
            }
            let count = length.min(self.buffer.len());
            sink(&self.buffer[..count]);
            self.buffer.drain(..count);
            length -= count;
        }
        Ok(())
    }

    fn text_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut piece = [0; 64 * 1024];
        match self.line.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&piece[..count]);
                Ok(())
            }
        }
    }
}

/// What the first segment of the path asks for; anything else is answered with a report of the request.
///
/// `/hold` waits for the test's release, `/delay/MS` for time; `/bytes/N`, `/chunked/N` and `/close/N` send N
/// bytes of `pattern(N, N)` in that framing; `/status/CODE`; `/cut/N` promises N bytes and sends half;
/// `/hangup` and `/reset` end without an answer; `/deaf` never says 100.
pub fn by_path(exchange: &mut Exchange) -> io::Result<()> {
    let segments = exchange.segments();
    let number = segments.get(1).and_then(|word| word.parse::<usize>().ok()).unwrap_or(0);
    match segments.first().map_or("", String::as_str) {
        "hold" => {
            exchange.hold();
            exchange.echo()
        }
        "delay" => {
            std::thread::sleep(Duration::from_millis(number as u64));
            exchange.echo()
        }
        "bytes" => exchange.respond(200, &[], &pattern(number, number as u64)),
        "chunked" => exchange.respond_chunked(&pattern(number, number as u64), 1000, ""),
        "close" => {
            let mut bytes = (head(200, &[("connection", "close")]) + "\r\n").into_bytes();
            bytes.extend_from_slice(&pattern(number, number as u64));
            exchange.close();
            exchange.raw(&bytes)
        }
        "status" => exchange.respond(u16::try_from(number).unwrap_or(500), &[], b"as you wish\n"),
        "cut" => {
            let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\n").into_bytes();
            bytes.extend_from_slice(&pattern(number / 2, number as u64));
            exchange.close();
            exchange.raw(&bytes)
        }
        "hangup" => {
            exchange.close();
            Ok(())
        }
        "reset" => {
            exchange.reset();
            Ok(())
        }
        "deaf" => {
            exchange.awaits_continue = false;
            exchange.echo()
        }
        _ => exchange.echo(),
    }
}

fn head(status: u16, fields: &[(&str, &str)]) -> String {
    let mut head = format!("HTTP/1.1 {status} As Told\r\nX-Origin: yes\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    head
}

fn wait<'t>(changed: &Condvar, tally: MutexGuard<'t, Tally>) -> MutexGuard<'t, Tally> {
    changed.wait_timeout(tally, Duration::from_millis(500)).unwrap_or_else(|poisoned| poisoned.into_inner()).0
}

fn spawn(body: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(body)
        .expect("the machine has room for a thread");
}

enum Line {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Line {
    fn second(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    fn end(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// From now on a close is a reset. Bytes that were never read make it one on a Unix socket.
    fn reset(&self) {
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Read for Line {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
