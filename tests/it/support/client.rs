//! A client that sends exactly the bytes it is told to and reads answers by the letter of RFC 9112.
//!
//! Whatever a lenient client would forgive is a [`Failure::Malformed`] here.

use super::{Hash, PATIENCE};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// The longest head this client reads.
const HEAD_LIMIT: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The connection could not be made.
    Refused(String),
    /// The connection ended before the first byte of an answer.
    Closed,
    /// The connection was reset before the answer was whole.
    Reset,
    /// The connection ended within an answer, after so many bytes of its body.
    Cut(usize),
    /// Nothing came for as long as this client is ready to wait.
    Silent,
    /// Bytes that are no answer.
    Malformed(String),
}

/// How the end of a body was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// There can be none (HEAD, 204, 304).
    None,
    /// `Content-Length`
    Length,
    /// `Transfer-Encoding: chunked`
    Chunked,
    /// The end of the connection.
    Close,
}

/// One final answer, with the interim ones that came before it.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status of each 1xx before the answer.
    pub interim: Vec<u16>,
    /// 0 or 1: the digit behind `HTTP/1.`.
    pub minor: u8,
    /// The status code.
    pub status: u16,
    /// Field lines in order, names in lower case.
    pub fields: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
    /// Trailer lines in order, names in lower case.
    pub trailers: Vec<(String, String)>,
    /// How the end was told.
    pub framing: Framing,
}

impl Response {
    /// The one value of a field; `None` if there is none. Two lines are a fault of the test's question.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values =
            self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "more than one {name}: {:?}", self.fields);
        value
    }

    /// Whether the answer announces the end of its connection.
    pub fn closes(&self) -> bool {
        let connection = self.field("connection").unwrap_or("").to_ascii_lowercase();
        let has = |option: &str| connection.split(',').any(|word| word.trim() == option);
        self.framing == Framing::Close || has("close") || (self.minor == 0 && !has("keep-alive"))
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the origin says it was asked (see `backend::Exchange::echo`).
    #[track_caller]
    pub fn echo(&self) -> Echo {
        assert_eq!(self.status, 200, "{}", self.text());
        Echo(self.text())
    }
}

/// The origin's report of the request it got.
pub struct Echo(String);

impl Echo {
    #[track_caller]
    fn line(&self, name: &str) -> &str {
        let found = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in the origin's report:\n{}", self.0))
    }

    /// The method.
    #[track_caller]
    pub fn method(&self) -> &str {
        self.line("method")
    }

    /// The request target as it arrived.
    #[track_caller]
    pub fn target(&self) -> &str {
        self.line("target")
    }

    /// `HTTP/1.1`
    #[track_caller]
    pub fn version(&self) -> &str {
        self.line("version")
    }

    /// The name the origin was started with.
    #[track_caller]
    pub fn origin(&self) -> &str {
        self.line("origin")
    }

    /// The number of the origin's connection, from 1.
    #[track_caller]
    pub fn connection(&self) -> u64 {
        self.line("connection").parse().expect("the origin writes a number")
    }

    /// Length and hash of the body.
    #[track_caller]
    pub fn body(&self) -> (usize, Hash) {
        let (length, hash) = self.line("body").split_once(' ').expect("the origin writes two words");
        let hash = u64::from_str_radix(hash, 16).expect("the origin writes hex");
        (length.parse().expect("the origin writes a number"), Hash(hash))
    }

    /// All values of a field that arrived, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let value = |line: &'_ str| -> Option<(usize, usize)> {
            let (known, _) = line.strip_prefix("field ")?.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some((6 + known.len() + 2, line.len()))
        };
        self.0.lines().filter_map(|line| value(line).map(|(from, to)| &line[from..to])).collect()
    }

    /// The one value of a field that arrived.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "more than one {name} at the origin:\n{}", self.0);
        values.first().copied()
    }
}

/// One connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects; a refusal is a failed test.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|failure| panic!("connect to {address}: {failure:?}"))
    }

    /// Connects, or says why not.
    pub fn try_connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream =
            TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| Failure::Refused(e.to_string()))?;
        stream.set_nodelay(true).expect("a fresh socket takes options");
        stream.set_read_timeout(Some(PATIENCE)).expect("a fresh socket takes options");
        stream.set_write_timeout(Some(PATIENCE)).expect("a fresh socket takes options");
        Ok(Self::over(stream))
    }

    /// A client on a connection that the test has made, with time-outs of its own.
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Our own end.
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket has an address")
    }

    /// The socket itself, for tests that read or write in their own way.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends bytes as they are. A connection that the daemon has closed already is not a failure yet: its
    /// answer may be waiting to be read.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Whether bytes have come that no answer has used.
    #[allow(dead_code, reason = "the stress program's, which shares these actors")]
    pub fn has_leftover(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Says that no more will be sent.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Asks with GET and `Host: test`, keeping the connection.
    pub fn get(&mut self, target: &str) -> Result<Response, Failure> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.answer("GET")
    }

    /// Asks with a body of a known length, keeping the connection.
    pub fn post(&mut self, target: &str, body: &[u8]) -> Result<Response, Failure> {
        let length = body.len();
        self.send(format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n"));
        self.send(body);
        self.answer("POST")
    }

    /// Sends a whole request as it is written and reads its answer.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Result<Response, Failure> {
        let request = request.as_ref();
        let method = String::from_utf8_lossy(request.split(|byte| *byte == b' ').next().unwrap_or_default())
            .into_owned();
        self.send(request);
        self.answer(&method)
    }

    /// Reads the answer to a request that had this method.
    pub fn answer(&mut self, method: &str) -> Result<Response, Failure> {
        let mut interim = Vec::new();
        loop {
            let head = self.head()?;
            if (100..200).contains(&head.status) && head.status != 101 {
                interim.push(head.status);
                continue;
            }
            return self.body(method, head, interim);
        }
    }

    /// Reads one interim answer, which must be the next thing to come.
    pub fn interim(&mut self) -> Result<u16, Failure> {
        let head = self.head()?;
        if (100..200).contains(&head.status) {
            Ok(head.status)
        } else {
            malformed(format!("{} is final", head.status))
        }
    }

    /// Waits until the daemon closes; anything that comes instead is a failure.
    pub fn closed(&mut self) -> Result<(), Failure> {
        match self.more() {
            Ok(true) => malformed(format!("unasked bytes {:?}", String::from_utf8_lossy(&self.buffer))),
            Ok(false) if self.buffer.is_empty() => Ok(()),
            Ok(false) => malformed(format!("left over {:?}", String::from_utf8_lossy(&self.buffer))),
            Err(Failure::Reset) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Everything that comes until the connection ends, as it is.
    pub fn rest(&mut self) -> Result<Vec<u8>, Failure> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    fn head(&mut self) -> Result<Head, Failure> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.len() > HEAD_LIMIT {
                return malformed("a head without an end".to_owned());
            }
            match self.more() {
                Ok(true) => {}
                Ok(false) if self.buffer.is_empty() => return Err(Failure::Closed),
                Ok(false) => {
                    return malformed(format!("cut head {:?}", String::from_utf8_lossy(&self.buffer)));
                }
                Err(failure) => return Err(failure),
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        Head::parse(&head[..end - 2])
    }

    fn body(&mut self, method: &str, head: Head, interim: Vec<u16>) -> Result<Response, Failure> {
        let mut body = Vec::new();
        let mut trailers = Vec::new();
        let framing = head.framing(method)?;
        match framing {
            (Framing::None, _) => {}
            (Framing::Length, length) => self.take(length, &mut body)?,
            (Framing::Chunked, _) => loop {
                let line = self.line(body.len())?;
                let size = line.split(';').next().unwrap_or_default();
                if size.is_empty() || size.len() > 8 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return malformed(format!("chunk size {line:?}"));
                }
                let size = usize::from_str_radix(size, 16).expect("checked above");
                if size == 0 {
                    trailers = self.trailers(body.len())?;
                    break;
                }
                self.take(size, &mut body)?;
                let end = self.line(body.len())?;
                if !end.is_empty() {
                    return malformed(format!("chunk of {size} goes on with {end:?}"));
                }
            },
            (Framing::Close, _) => {
                while self.more()? {}
                body = std::mem::take(&mut self.buffer);
            }
        }
        let Head { minor, status, fields } = head;
        Ok(Response { interim, minor, status, fields, body, trailers, framing: framing.0 })
    }

    fn trailers(&mut self, so_far: usize) -> Result<Vec<(String, String)>, Failure> {
        let mut trailers = Vec::new();
        loop {
            let line = self.line(so_far)?;
            if line.is_empty() {
                return Ok(trailers);
            }
            trailers.push(field(&line)?);
        }
    }

    /// One line without its CRLF.
    fn line(&mut self, so_far: usize) -> Result<String, Failure> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return match String::from_utf8(line[..at].to_vec()) {
                    Ok(line) if !line.contains(['\r', '\n', '\0']) => Ok(line),
                    _ => malformed(format!("line {line:?}")),
                };
            }
            if !self.more()? {
                return Err(Failure::Cut(so_far));
            }
        }
    }

    fn take(&mut self, length: usize, into: &mut Vec<u8>) -> Result<(), Failure> {
        let end = into.len() + length;
        while self.buffer.len() + into.len() < end {
            into.append(&mut self.buffer);
            if !self.more()? {
                return Err(Failure::Cut(into.len()));
            }
        }
        let rest = self.buffer.split_off(end - into.len());
        into.append(&mut self.buffer);
        self.buffer = rest;
        Ok(())
    }

    /// Waits for bytes; false at the end of the connection.
    fn more(&mut self) -> Result<bool, Failure> {
        let mut piece = [0; 64 * 1024];
        loop {
            return match self.stream.read(&mut piece) {
                Ok(0) => Ok(false),
                Ok(count) => {
                    self.buffer.extend_from_slice(&piece[..count]);
                    Ok(true)
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(Failure::Silent),
                    _ => Err(Failure::Reset),
                },
            };
        }
    }
}

struct Head {
    minor: u8,
    status: u16,
    fields: Vec<(String, String)>,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self, Failure> {
        let Ok(text) = std::str::from_utf8(head) else {
            return malformed(format!("head {:?}", String::from_utf8_lossy(head)));
        };
        let mut lines = text.split_terminator("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let bytes = status_line.as_bytes();
        let is_status_line = bytes.len() >= 13
            && bytes.starts_with(b"HTTP/1.")
            && matches!(bytes[7], b'0' | b'1')
            && bytes[8] == b' '
            && bytes[9..12].iter().all(u8::is_ascii_digit)
            && bytes[12] == b' '
            && !status_line.contains(|c: char| c.is_control());
        if !is_status_line {
            return malformed(format!("status line {status_line:?}"));
        }
        let status = status_line[9..12].parse().expect("three digits");
        let fields = lines.map(field).collect::<Result<_, _>>()?;
        Ok(Self { minor: bytes[7] - b'0', status, fields })
    }

    /// RFC 9112, 6.3, with every doubt an error.
    fn framing(&self, method: &str) -> Result<(Framing, usize), Failure> {
        let values = |name: &'static str| self.fields.iter().filter(move |(known, _)| known == name);
        let lengths: Vec<_> = values("content-length").collect();
        let codings: Vec<_> = values("transfer-encoding").collect();
        let length = match lengths.as_slice() {
            [] => None,
            [(_, digits)] if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| Failure::Malformed(format!("length {digits}")))?)
            }
            _ => return malformed(format!("Content-Length {lengths:?}")),
        };
        if !codings.is_empty() && (length.is_some() || self.minor == 0 || self.status == 204) {
            return malformed(format!("Transfer-Encoding where none may be: {:?}", self.fields));
        }
        if method == "HEAD" || self.status == 204 || self.status == 304 || self.status < 200 {
            return Ok((Framing::None, 0));
        }
        match (codings.as_slice(), length) {
            ([(_, coding)], None) if coding.eq_ignore_ascii_case("chunked") => Ok((Framing::Chunked, 0)),
            ([], Some(length)) => Ok((Framing::Length, length)),
            ([], None) => Ok((Framing::Close, 0)),
            _ => malformed(format!("Transfer-Encoding {codings:?}")),
        }
    }
}

fn field(line: &str) -> Result<(String, String), Failure> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    match line.split_once(':') {
        Some((name, value))
            if !name.is_empty()
                && name.chars().all(is_token)
                && !value.contains(|c: char| c.is_control() && c != '\t') =>
        {
            Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
        }
        _ => malformed(format!("field line {line:?}")),
    }
}

fn malformed<T>(what: String) -> Result<T, Failure> {
    Err(Failure::Malformed(what))
}
