//! The small origin server behind the demo: something to be a proxy for.
//!
//! A process of its own, forked before the master begins, with a plain thread for each connection. It shows
//! what reached it, and can be slow, chunked or an echo. It lives as long as the other end of its tie: when
//! the demo ends, however that comes about, the tie breaks and the origin goes.

use crate::http::{
    Body, Expectation, FieldSlots, HeadKind, HeadLimits, HeadScan, Piece, RequestHead, Version,
};
use crate::ids::ChildPid;
use crate::sys::process::{self, ChildExit};
use crate::sys::time;
use maud::{DOCTYPE, PreEscaped, html};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// How long `/slow` takes.
const SLOW: Duration = Duration::from_secs(2);

/// `/stream`: how many lines, and how long between two of them.
const STREAM: (u32, Duration) = (10, Duration::from_millis(300));

/// How long a connection may stay silent. Above the 60 s for which the proxy keeps idle connections, so that
/// it is the proxy that closes first.
const SILENCE: Duration = Duration::from_secs(90);

/// Bytes read at once.
const READ: usize = 16 * 1024;

/// Stack of a connection's thread, in bytes: nothing here recurses.
const STACK: usize = 128 * 1024;

const LIMITS: HeadLimits =
    HeadLimits { line: 16 * 1024, fields: 200, field_size: 16 * 1024, total: 64 * 1024 };

/// A running origin. Dropped, it stops, and is waited for.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    pid: ChildPid,
    tie: UnixStream,
}

impl Origin {
    /// Binds a free port on 127.0.0.1 and forks. The caller must have one thread.
    ///
    /// # Errors
    /// If loopback cannot be bound, or the machine has no process left.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (ours, theirs) = UnixStream::pair()?;
        let mut ours = Some(ours);
        let pid = process::spawn_child(|| {
            // The child's copy of our end would keep the tie whole for ever.
            ours.take();
            serve(listener, &theirs, address)
        })?;
        let tie = ours.expect("taken in the child only, whose memory is its own");
        Ok(Self { address, pid, tie })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // Shut down rather than closed: the proxy's children have copies of this end.
        let _ = self.tie.shutdown(Shutdown::Write);
        // An error means that the master, who reaps whatever dies, has been faster.
        let _ = process::wait_for(self.pid);
    }
}

/// The process: accepts in a thread, and waits itself for the tie to break. Leaving ends all threads.
fn serve(listener: TcpListener, mut tie: &UnixStream, address: SocketAddr) -> ChildExit {
    crate::sys::title::set_title(&format!("ostler: demo origin on {address}"));
    // As many connections as the system lets us have; with fewer, a big load test meets the limit early.
    let _ = crate::sys::privilege::raise_nofile();
    let accepting = thread::Builder::new().name("accept".to_owned()).spawn(move || accept(&listener));
    if accepting.is_err() {
        return ChildExit::SICK;
    }
    loop {
        match tie.read(&mut [0]) {
            Ok(0) => return ChildExit::OK,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return ChildExit::OK,
        }
    }
}

fn accept(listener: &TcpListener) {
    loop {
        let started = listener.accept().and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SILENCE))?;
            let serve = move || {
                // Errors here are the peer's doing, and there is nobody to tell.
                let _ = Connection { stream, unread: Vec::new() }.serve();
            };
            thread::Builder::new().stack_size(STACK).spawn(serve)
        });
        if started.is_err() {
            // Out of descriptors, threads or memory: some will come back.
            pause(Duration::from_millis(50));
        }
    }
}

/// Lets `span` pass.
fn pause(span: Duration) {
    let start = time::now();
    let wanted = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    loop {
        let gone = time::now().micros_since(start);
        if gone >= wanted {
            return;
        }
        thread::park_timeout(Duration::from_micros(wanted - gone));
    }
}

/// A request as it arrived, without its body.
#[derive(Debug)]
struct Asked {
    /// `GET /x HTTP/1.1`
    line: String,
    method: String,
    /// Without the query.
    path: String,
    fields: Vec<(String, String)>,
    /// HTTP/1.1, so that chunked answers are understood.
    modern: bool,
    persistent: bool,
    expects_continue: bool,
    body: Body,
}

struct Connection {
    stream: TcpStream,
    /// Bytes that have come and were not used yet.
    unread: Vec<u8>,
}

impl Connection {
    fn serve(mut self) -> io::Result<()> {
        loop {
            let mut asked = match self.head()? {
                Some(Ok(asked)) => asked,
                Some(Err(what)) => return self.refuse(&what),
                None => return Ok(()),
            };
            self.answer(&mut asked)?;
            // Whatever of the body was not wanted is in the way of the next request.
            while self.piece(&mut asked.body)?.is_some() {}
            if !asked.persistent {
                return self.stream.shutdown(Shutdown::Write);
            }
        }
    }

    /// Reads more; `false` at the end of input.
    fn read(&mut self) -> io::Result<bool> {
        let length = self.unread.len();
        self.unread.resize(length + READ, 0);
        let result = self.stream.read(&mut self.unread[length..]);
        self.unread.truncate(length + result.as_ref().copied().unwrap_or(0));
        result.map(|count| count > 0)
    }

    /// The next request; `None` if there is none. The inner error is what to tell a peer that does not speak
    /// HTTP.
    fn head(&mut self) -> io::Result<Option<Result<Asked, String>>> {
        let mut scan = HeadScan::new();
        let length = loop {
            match scan.scan(&self.unread, &LIMITS, HeadKind::Request) {
                Ok(Some(length)) => break length,
                Ok(None) if self.read()? => {}
                Ok(None) => return Ok(None),
                Err(fault) => return Ok(Some(Err(fault.to_string()))),
            }
        };
        let asked = Asked::parse(&self.unread[..length]);
        self.unread.drain(..length);
        Ok(Some(asked))
    }

    /// The next bytes of a body; `None` at its end.
    fn piece(&mut self, body: &mut Body) -> io::Result<Option<Vec<u8>>> {
        while !body.is_done() {
            let (used, piece) = body
                .next(&self.unread)
                .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.to_string()))?;
            let data = match piece {
                Piece::Data(range) => Some(self.unread[range].to_vec()),
                Piece::Trailers(_) | Piece::End => None,
                Piece::More => {
                    self.unread.drain(..used);
                    if !self.read()? {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    continue;
                }
            };
            self.unread.drain(..used);
            if data.is_some() {
                return Ok(data);
            }
        }
        Ok(None)
    }

    fn answer(&mut self, asked: &mut Asked) -> io::Result<()> {
        match asked.path.as_str() {
            "/" => {
                let page = page(asked);
                self.whole(asked, "200 OK", "text/html; charset=utf-8", page.as_bytes())
            }
            "/slow" => {
                pause(SLOW);
                self.whole(asked, "200 OK", "text/plain", b"That took two seconds at the origin.\n")
            }
            "/stream" => self.stream(asked),
            "/echo" => self.echo(asked),
            _ => {
                let text = format!("The demo's origin has no {}\n", asked.path);
                self.whole(asked, "404 Not Found", "text/plain; charset=utf-8", text.as_bytes())
            }
        }
    }

    fn start(&mut self, asked: &Asked, status: &str, kind: &str, framing: &str) -> io::Result<()> {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_micros(time::wall_micros()));
        let close = if asked.persistent { "" } else { "Connection: close\r\n" };
        let head = format!(
            "HTTP/1.1 {status}\r\nDate: {date}\r\nServer: ostler-demo\r\nContent-Type: {kind}\r\n\
             Cache-Control: no-store\r\n{framing}{close}\r\n"
        );
        self.stream.write_all(head.as_bytes())
    }

    fn whole(&mut self, asked: &Asked, status: &str, kind: &str, body: &[u8]) -> io::Result<()> {
        self.start(asked, status, kind, &format!("Content-Length: {}\r\n", body.len()))?;
        if asked.method == "HEAD" { Ok(()) } else { self.stream.write_all(body) }
    }

    /// Starts an answer whose length is not known yet. Without chunks, its end is the connection's.
    fn start_open_ended(&mut self, asked: &mut Asked, kind: &str) -> io::Result<()> {
        asked.persistent &= asked.modern;
        let framing = if asked.modern { "Transfer-Encoding: chunked\r\n" } else { "" };
        self.start(asked, "200 OK", kind, framing)
    }

    /// Sends a part of an open-ended body, in one write.
    fn part(&mut self, asked: &Asked, data: &[u8]) -> io::Result<()> {
        if !asked.modern {
            return self.stream.write_all(data);
        }
        let size = format!("{:x}\r\n", data.len());
        self.stream.write_all(&[size.as_bytes(), data, b"\r\n"].concat())
    }

    fn end(&mut self, asked: &Asked) -> io::Result<()> {
        if asked.modern { self.stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }

    fn stream(&mut self, asked: &mut Asked) -> io::Result<()> {
        self.start_open_ended(asked, "text/plain")?;
        if asked.method == "HEAD" {
            return Ok(());
        }
        for number in 1..=STREAM.0 {
            self.part(asked, format!("line {number} of {}\n", STREAM.0).as_bytes())?;
            pause(STREAM.1);
        }
        self.end(asked)
    }

    fn echo(&mut self, asked: &mut Asked) -> io::Result<()> {
        if asked.expects_continue {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let kind = asked.field("content-type").unwrap_or("application/octet-stream").to_owned();
        self.start_open_ended(asked, &kind)?;
        if asked.method == "HEAD" {
            return Ok(());
        }
        while let Some(data) = self.piece(&mut asked.body)? {
            self.part(asked, &data)?;
        }
        self.end(asked)
    }

    fn refuse(&mut self, what: &str) -> io::Result<()> {
        let length = what.len() + 1;
        write!(
            self.stream,
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{what}\n"
        )
    }
}

impl Asked {
    fn parse(head: &[u8]) -> Result<Self, String> {
        let mut slots = FieldSlots::new();
        let request = RequestHead::parse(head, &mut slots, &LIMITS).map_err(|fault| fault.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Self {
            line: text(request.line),
            method: request.method.to_owned(),
            path: text(request.path),
            fields: request.fields.iter().map(|field| (text(field.name), text(field.value))).collect(),
            modern: request.version == Version::Http11,
            persistent: request.persistent,
            expects_continue: request.expectation == Expectation::Continue,
            body: Body::for_request(request.body),
        })
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;\
color:#222;background:#fdfcf9}h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}\
td{border-top:1px solid #ddd;padding:.3rem .6rem .3rem 0;vertical-align:top;overflow-wrap:anywhere}\
td:first-child,code{font-family:ui-monospace,monospace;font-size:.9em}td:first-child{white-space:nowrap}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#1c1b19}td{border-color:#444}a{color:#9cf}}";

/// The request as it arrived, as a page.
fn page(asked: &Asked) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Ostler demo" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Ostler works" }
                p {
                    "This page comes from a small origin server behind the proxy. The request, as it arrived there:"
                }
                p { code { (asked.line) } }
                table {
                    @for (name, value) in &asked.fields {
                        tr { td { (name) } td { (value) } }
                    }
                }
                p { "More to try:" }
                ul {
                    li { a href="/slow" { "/slow" } " takes two seconds: the worker is busy meanwhile" }
                    li { a href="/stream" { "/stream" } " comes in chunks, a line at a time" }
                    li { code { "curl -d 'Hello' " (url(asked)) "/echo" } " sends back what it is sent" }
                    li { a href="/server-status" { "/server-status" } " shows what each worker is doing" }
                }
            }
        }
    }
    .into_string()
}

/// How the client calls us, as far as the proxy has told.
fn url(asked: &Asked) -> String {
    let host = asked.field("x-forwarded-host").or_else(|| asked.field("host")).unwrap_or("127.0.0.1");
    format!("http://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `request` to an origin in a thread of the test, and reads until it closes.
    fn talk(request: &str) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || accept(&listener));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn requests_are_answered_in_order_on_one_connection() {
        let answer = talk(
            "GET /?a=<b> HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: front:8080\r\nX-Odd: <i>\r\n\r\n\
             POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nHello\
             POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n\
             HEAD / HTTP/1.1\r\nHost: x\r\n\r\n\
             POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nxyz",
        );
        let mut rest = answer.as_str();
        for want in [
            "HTTP/1.1 200 OK\r\n",
            "GET /?a=&lt;b&gt; HTTP/1.1",
            "<td>X-Odd</td><td>&lt;i&gt;</td>",
            "http://front:8080/echo",
            "HTTP/1.1 200 OK\r\n",
            "\r\n\r\n5\r\nHello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            "\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            "\r\n\r\nHTTP/1.1 404 Not Found\r\n",
            "Connection: close\r\n\r\n",
            "no /nowhere\n",
        ] {
            let at = rest.find(want).unwrap_or_else(|| panic!("no {want:?} in {rest:?}"));
            rest = &rest[at + want.len()..];
        }
        assert_eq!(rest, "");
    }

    #[test]
    fn a_client_of_http_1_0_gets_no_chunks() {
        let answer = talk("POST /echo HTTP/1.0\r\nContent-Length: 5\r\n\r\nHello");
        assert!(answer.ends_with("\r\n\r\nHello"), "{answer}");
        assert!(!answer.contains("chunked"), "{answer}");
    }

    #[test]
    fn what_is_not_http_is_refused() {
        let answer = talk("nonsense\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}
