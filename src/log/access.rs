//! One finished request to one line of each access log of its host.

use super::capture::{Capture, RequestFacts};
use super::format::{ClockUnit, Code, LogFormat, Unit, UpstreamCode, When};
use super::sink::{Appended, Sink};
use super::{escape, stamp};
use crate::clock::Moment;
use crate::sys::process;
use std::cell::Cell;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

/// What is known of a request once its last byte is sent, or its connection gone.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// Who asks.
    pub client: SocketAddr,
    /// The other end of the connection; the client, unless a trusted proxy spoke for it.
    pub peer: SocketAddr,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// `ServerName` of the host that served it.
    pub host_name: &'a str,
    /// The port of `ServerName`, or the local one.
    pub port: u16,
    /// The status sent; 0 if none was.
    pub status: u16,
    /// Bytes of the response's body that were sent, without framing.
    pub body_bytes: u64,
    /// All bytes of the request, heads and framing included.
    pub bytes_in: u64,
    /// All bytes of the response, head and framing included.
    pub bytes_out: u64,
    /// When the request began: microseconds since 1970.
    pub start_wall_us: u64,
    /// The same, on the clock that durations are measured by.
    pub start: Moment,
    /// When it was over.
    pub end: Moment,
    /// Requests served on this connection before this one.
    pub kept_alive: u32,
    /// How the connection stands.
    pub connection: ConnectionEnd,
    /// Who made the response.
    pub answerer: Answerer<'a>,
    /// The backend's part in it, if one was tried.
    pub upstream: Option<UpstreamRecord<'a>>,
    /// Why the backend's answer is not what the client got.
    pub proxy_error: Option<&'a str>,
}

/// How a connection stands after a request: `%X`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionEnd {
    /// Gone before the response was complete: `X`.
    Aborted,
    /// Open for another request: `+`.
    Kept,
    /// Closed behind the response: `-`.
    Closed,
}

/// Who made a response: `%R`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answerer<'a> {
    /// Ourselves, with an error.
    Nobody,
    /// A backend; its url.
    Backend(&'a str),
    /// `SetHandler`; its name.
    Handler(&'a str),
}

/// A backend's part in a request. Times are microseconds.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamRecord<'a> {
    /// Where the last attempt went.
    pub address: UpstreamAddress<'a>,
    /// The status it answered; `None` if it did not.
    pub status: Option<u16>,
    /// How long the connect took; 0 on a reused connection, `None` if it failed.
    pub connect_us: Option<u64>,
    /// From the begin of the request to the first byte of the backend's response.
    pub header_us: Option<u64>,
    /// From the begin of the first attempt to the last byte of the response.
    pub total_us: Option<u64>,
    /// Connections tried, at least 1.
    pub attempts: u32,
    /// Whether the connection had served a request before.
    pub reused: bool,
}

/// Where a connection to a backend goes.
#[derive(Clone, Copy, Debug)]
pub enum UpstreamAddress<'a> {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(&'a str),
}

impl LogFormat {
    /// Appends the line of `record`, its end included. Allocates nothing once `line` is large enough.
    pub fn render(&self, record: &AccessRecord<'_>, capture: &Capture, line: &mut Vec<u8>) {
        let mut from = 0;
        for item in &self.items {
            if item.statuses.as_ref().is_some_and(|statuses| !statuses.hold(record.status)) {
                line.push(b'-');
                continue;
            }
            match &item.code {
                Code::Captured(index) => match capture.value(self.slot(*index), &mut from) {
                    Some(value) => line.extend_from_slice(value),
                    None => line.push(b'-'),
                },
                Code::HostAsked(index) => match capture.value(self.slot(*index), &mut from) {
                    Some(value) => line.extend_from_slice(value),
                    None => push_text(line, record.host_name),
                },
                code => render_code(code, record, line),
            }
        }
        line.push(b'\n');
    }

    fn slot(&self, index: usize) -> u16 {
        self.first_slot.saturating_add(u16::try_from(index).unwrap_or(u16::MAX))
    }
}

fn render_code(code: &Code, record: &AccessRecord<'_>, line: &mut Vec<u8>) {
    match code {
        Code::Literal(text) => line.extend_from_slice(text),
        Code::Dash | Code::Captured(_) | Code::HostAsked(_) => line.push(b'-'),
        Code::ClientIp => push_ip(line, record.client.ip()),
        Code::PeerIp => push_ip(line, record.peer.ip()),
        Code::LocalIp => push_ip(line, record.local.ip()),
        Code::BodyBytes => push_number(line, record.body_bytes),
        Code::BodyBytesOrDash => {
            push_number_or_dash(line, Some(record.body_bytes).filter(|bytes| *bytes > 0))
        }
        Code::TimeTaken(unit) => {
            let micros = record.end.micros_since(record.start);
            push_number(
                line,
                match unit {
                    Unit::Seconds => micros / 1_000_000,
                    Unit::Millis => micros / 1000,
                    Unit::Micros => micros,
                },
            );
        }
        Code::KeptAlive => push_number(line, u64::from(record.kept_alive)),
        Code::CanonicalPort => push_number(line, u64::from(record.port)),
        Code::LocalPort => push_number(line, u64::from(record.local.port())),
        Code::ClientPort => push_number(line, u64::from(record.client.port())),
        Code::Pid => push_number(line, u64::from(std::process::id())),
        Code::Tid => push_number(line, u64::from(process::gettid())),
        Code::TidHex => write!(line, "{:x}", process::gettid()).expect("a Vec takes everything"),
        Code::Answerer => match record.answerer {
            Answerer::Nobody => line.push(b'-'),
            Answerer::Backend(url) => {
                line.extend_from_slice(b"proxy:");
                push_text(line, url);
            }
            Answerer::Handler(name) => push_text(line, name),
        },
        Code::Status => push_number_or_dash(line, Some(record.status).filter(|s| *s > 0).map(u64::from)),
        Code::Stamp(when) => stamp::push_access_stamp(line, wall(record, *when)),
        Code::Strftime { when, id, format } => {
            stamp::push_custom_stamp(line, *id, format, wall(record, *when));
        }
        Code::Clock { when, unit } => push_clock(line, wall(record, *when), *unit),
        Code::ServerName => push_text(line, record.host_name),
        Code::ConnectionEnd => line.push(match record.connection {
            ConnectionEnd::Aborted => b'X',
            ConnectionEnd::Kept => b'+',
            ConnectionEnd::Closed => b'-',
        }),
        Code::BytesIn => push_number(line, record.bytes_in),
        Code::BytesOut => push_number(line, record.bytes_out),
        Code::BytesBoth => push_number(line, record.bytes_in.saturating_add(record.bytes_out)),
        Code::Upstream(code) => match &record.upstream {
            Some(upstream) => push_upstream(line, upstream, *code),
            None => line.push(b'-'),
        },
        Code::ProxyError => match record.proxy_error {
            Some(reason) => push_text(line, reason),
            None => line.push(b'-'),
        },
    }
}

fn push_upstream(line: &mut Vec<u8>, upstream: &UpstreamRecord<'_>, code: UpstreamCode) {
    match code {
        UpstreamCode::Address => match upstream.address {
            UpstreamAddress::Tcp(address) => write!(line, "{address}").expect("a Vec takes everything"),
            UpstreamAddress::Unix(path) => {
                line.extend_from_slice(b"unix:");
                push_text(line, path);
            }
        },
        UpstreamCode::Status => push_number_or_dash(line, upstream.status.map(u64::from)),
        UpstreamCode::Connect => push_number_or_dash(line, upstream.connect_us),
        UpstreamCode::Header => push_number_or_dash(line, upstream.header_us),
        UpstreamCode::Time => push_number_or_dash(line, upstream.total_us),
        UpstreamCode::Attempts => push_number(line, u64::from(upstream.attempts)),
        UpstreamCode::Reused => line.extend_from_slice(if upstream.reused { b"yes" } else { b"no" }),
    }
}

fn wall(record: &AccessRecord<'_>, when: When) -> u64 {
    match when {
        When::Begin => record.start_wall_us,
        When::End => record.start_wall_us.saturating_add(record.end.micros_since(record.start)),
    }
}

fn push_clock(line: &mut Vec<u8>, wall_us: u64, unit: ClockUnit) {
    match unit {
        ClockUnit::Second => push_number(line, wall_us / 1_000_000),
        ClockUnit::Milli => push_number(line, wall_us / 1000),
        ClockUnit::Micro => push_number(line, wall_us),
        ClockUnit::MilliFraction => line.extend_from_slice(&stamp::fraction(wall_us % 1_000_000)[..3]),
        ClockUnit::MicroFraction => line.extend_from_slice(&stamp::fraction(wall_us % 1_000_000)),
    }
}

fn push_text(line: &mut Vec<u8>, text: &str) {
    escape::push(line, text.as_bytes());
}

fn push_number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_number_or_dash(line: &mut Vec<u8>, number: Option<u64>) {
    match number {
        Some(number) => push_number(line, number),
        None => line.push(b'-'),
    }
}

/// An IPv4 client that came by an IPv6 socket is shown as IPv4.
fn push_ip(line: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mut text = [0_u8; 16];
            let mut length = 0;
            for octet in ip.octets() {
                let mut digits = itoa::Buffer::new();
                let digits = digits.format(octet).as_bytes();
                text[length..length + digits.len()].copy_from_slice(digits);
                text[length + digits.len()] = b'.';
                length += digits.len() + 1;
            }
            line.extend_from_slice(&text[..length - 1]);
        }
        IpAddr::V6(ip) => write!(line, "{ip}").expect("a Vec takes everything"),
    }
}

/// The access logs of one host, ready to be written by any thread of a child.
#[derive(Clone, Debug)]
pub struct AccessLogs {
    logs: Vec<(LogFormat, Sink)>,
    wants_response: bool,
    errors: slog::Logger,
}

thread_local! {
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A line's buffer above this size is given back after the line that needed it.
const LINE_KEPT: usize = 16 * 1024;

impl AccessLogs {
    /// The logs of a host, in the order of its `CustomLog` lines; `errors` hears when one cannot be written.
    pub fn new(logs: impl IntoIterator<Item = (LogFormat, Sink)>, errors: slog::Logger) -> Self {
        let mut slot = 0;
        let logs: Vec<_> = logs
            .into_iter()
            .map(|(mut format, sink)| {
                slot = format.take_slots(slot);
                (format, sink)
            })
            .collect();
        Self { wants_response: logs.iter().any(|(format, _)| format.wants_response()), logs, errors }
    }

    /// Whether the host has no access log, so that nothing need be gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// See [`LogFormat::capture_request`].
    pub fn capture_request<'s, 'f, I>(
        &'s self,
        facts: &RequestFacts<'_>,
        fields: impl Fn(&'s str) -> I,
        out: &mut Capture,
    ) where
        I: IntoIterator<Item = &'f [u8]>,
    {
        self.logs.iter().for_each(|(format, _)| format.capture_request(facts, &fields, out));
    }

    /// Whether any of the logs wants a field of the response.
    #[must_use]
    pub fn wants_response(&self) -> bool {
        self.wants_response
    }

    /// See [`LogFormat::capture_response`].
    pub fn capture_response<'s, 'f, I>(&'s self, fields: impl Fn(&'s str) -> I, out: &mut Capture)
    where
        I: IntoIterator<Item = &'f [u8]>,
    {
        self.logs.iter().for_each(|(format, _)| format.capture_response(&fields, out));
    }

    /// See [`LogFormat::capture_request_trailers`].
    pub fn capture_request_trailers<'s, 'f, I>(&'s self, fields: impl Fn(&'s str) -> I, out: &mut Capture)
    where
        I: IntoIterator<Item = &'f [u8]>,
    {
        self.logs.iter().for_each(|(format, _)| format.capture_request_trailers(&fields, out));
    }

    /// See [`LogFormat::capture_response_trailers`].
    pub fn capture_response_trailers<'s, 'f, I>(&'s self, fields: impl Fn(&'s str) -> I, out: &mut Capture)
    where
        I: IntoIterator<Item = &'f [u8]>,
    {
        self.logs.iter().for_each(|(format, _)| format.capture_response_trailers(&fields, out));
    }

    /// Writes the line of `record` to each log.
    pub fn write(&self, record: &AccessRecord<'_>, capture: &Capture) {
        if self.logs.is_empty() {
            return;
        }
        let mut line = LINE.try_with(Cell::take).unwrap_or_default();
        for (format, sink) in &self.logs {
            line.clear();
            format.render(record, capture, &mut line);
            self.say(&sink.append(&line));
        }
        if line.capacity() <= LINE_KEPT {
            let _ = LINE.try_with(|kept| kept.set(line));
        }
    }

    fn say(&self, appended: &Appended) {
        match appended {
            Appended::Written | Appended::StillFailing => {}
            Appended::Failed(fault) => {
                slog::error!(self.errors, "cannot write the access log, lines are lost until it can be: {}", fault;
                    "module" => "log_config");
            }
            Appended::Recovered(count) => {
                slog::warn!(self.errors, "the access log can be written again, {} lines were lost", count;
                    "module" => "log_config");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::line::LogLevels;
    use crate::sys::fd;
    use std::os::fd::AsFd;

    const RECORD: AccessRecord<'_> = AccessRecord {
        client: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), 4711),
        peer: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 200)), 4712),
        local: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 8080),
        host_name: "www.example.org",
        port: 443,
        status: 200,
        body_bytes: 2326,
        bytes_in: 120,
        bytes_out: 2500,
        start_wall_us: 1_795_338_027_123_456,
        start: Moment(5_000_000),
        end: Moment(7_001_500),
        kept_alive: 3,
        connection: ConnectionEnd::Kept,
        answerer: Answerer::Backend("http://127.0.0.1:3000"),
        upstream: Some(UpstreamRecord {
            address: UpstreamAddress::Tcp(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 3000)),
            status: Some(502),
            connect_us: Some(90),
            header_us: None,
            total_us: Some(1500),
            attempts: 2,
            reused: true,
        }),
        proxy_error: Some("connection reset by backend"),
    };

    const FACTS: RequestFacts<'_> = RequestFacts {
        line: b"GET /a%20b?q=1 HTTP/1.1",
        method: b"GET",
        path: b"/a%20b",
        query: Some(b"q=1"),
        protocol: b"HTTP/1.1",
        host: b"asked.example",
    };

    fn field(name: &str) -> Option<&'static [u8]> {
        match name.to_ascii_lowercase().as_str() {
            "referer" => Some(b"http://r/\"x\""),
            "user-agent" => Some(b"curl/8"),
            "cookie" => Some(b"a=1; id=me\x7f"),
            "empty" => Some(b""),
            _ => None,
        }
    }

    fn rendered(format: &str, record: &AccessRecord<'_>, captured: bool) -> String {
        let format = LogFormat::parse(format).expect(format);
        let mut capture = Capture::new();
        if captured {
            format.capture_request(&FACTS, field, &mut capture);
            format
                .capture_response(|name| (name == "Content-Type").then_some(&b"text/html"[..]), &mut capture);
            format.capture_request_trailers(|name| (name == "Sum").then_some(&b"42"[..]), &mut capture);
            format.capture_response_trailers(|name| (name == "Sum").then_some(&b"43"[..]), &mut capture);
        }
        let mut line = Vec::new();
        format.render(record, &capture, &mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        String::from_utf8(line).expect("escaped lines are ASCII")
    }

    #[test]
    fn every_code_prints_its_value() {
        for (format, want) in [
            ("%a %{c}a %h %{c}h %A", "192.0.2.7 198.51.100.200 192.0.2.7 198.51.100.200 10.0.0.1"),
            ("%B %b %I %O %S", "2326 2326 120 2500 2620"),
            ("%D %T %{s}T %{ms}T %{us}T", "2001500 2 2 2001 2001500"),
            ("%m %U %q %H %V %v", "GET /a b ?q=1 HTTP/1.1 asked.example www.example.org"),
            ("\"%r\" %s %>s %<s", "\"GET /a%20b?q=1 HTTP/1.1\" 200 200 200"),
            ("%{Referer}i|%{Absent}i|%{Empty}i", "http://r/\\\"x\\\"|-|"),
            ("%{id}C %{none}C", "me\\x7f -"),
            ("%{Content-Type}o %{Absent}o", "text/html -"),
            ("%{Sum}^ti %{Sum}^to %{None}^ti", "42 43 -"),
            ("%k %l %u %X", "3 - - +"),
            ("%p %{canonical}p %{local}p %{remote}p", "443 443 8080 4711"),
            ("%R", "proxy:http://127.0.0.1:3000"),
            ("%{sec}t %{msec}t %{usec}t", "1795338027 1795338027123 1795338027123456"),
            ("%{msec_frac}t %{usec_frac}t %{end:usec_frac}t", "123 123456 124956"),
            ("%{end:sec}t %{begin:%s}t %{end:%s}t", "1795338029 1795338027 1795338029"),
            ("%{upstream}a %{upstream_status}x", "127.0.0.1:3000 502"),
            ("%{upstream_connect}x %{upstream_header}x %{upstream_time}x", "90 - 1500"),
            ("%{upstream_attempts}x %{upstream_reused}x", "2 yes"),
            ("%{proxy-error}n", "connection reset by backend"),
            ("%400,501{User-Agent}i %200,304{User-Agent}i %!200{User-Agent}i", "- curl/8 -"),
            ("100%% \\t\\\\ \\x \\\"", "100% \t\\ \\x \""),
        ] {
            assert_eq!(rendered(format, &RECORD, true), want, "{format}");
        }
        let ours = rendered("%P %{pid}P %{tid}P %{hextid}P", &RECORD, true);
        let tid = process::gettid();
        assert_eq!(ours, format!("{0} {0} {tid} {tid:x}", std::process::id()));
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let record = AccessRecord {
            client: "[::ffff:192.0.2.7]:1".parse().expect("an address"),
            peer: "[2001:db8::1]:1".parse().expect("an address"),
            status: 0,
            body_bytes: 0,
            connection: ConnectionEnd::Aborted,
            answerer: Answerer::Nobody,
            upstream: None,
            proxy_error: None,
            end: Moment(0),
            ..RECORD
        };
        for (format, want) in [
            ("%h %{c}a %>s %b %B %X %R %D", "192.0.2.7 2001:db8::1 - - 0 X - 0"),
            ("\"%r\" %m %U %q %H %V %{Referer}i %{id}C", "\"-\" - - - - www.example.org - -"),
            ("%{upstream}a %{upstream_time}x %{upstream_reused}x %{proxy-error}n", "- - - -"),
        ] {
            assert_eq!(rendered(format, &record, false), want, "{format}");
        }
        let record = AccessRecord { answerer: Answerer::Handler("server-status"), ..record };
        assert_eq!(rendered("%R", &record, true), "server-status");
    }

    #[test]
    fn combined_is_httpd_s() {
        let line = rendered("combined", &RECORD, true);
        let (front, rest) = line.split_once('[').expect("a stamp");
        let (_, rest) = rest.split_once(']').expect("a stamp");
        assert_eq!(front, "192.0.2.7 - - ");
        assert_eq!(rest, " \"GET /a%20b?q=1 HTTP/1.1\" 200 2326 \"http://r/\\\"x\\\"\" \"curl/8\"");
    }

    #[test]
    fn logs_of_one_host_share_a_capture() {
        let (first_end, first) = fd::pipe().expect("a pipe");
        let (second_end, second) = fd::pipe().expect("a pipe");
        let (_errors_end, errors) = fd::pipe().expect("a pipe");
        let parse = |text| LogFormat::parse(text).expect(text);
        let logs = AccessLogs::new(
            [(parse("%m %{Referer}i"), Sink::from(first)), (parse("%U %{X}o %m"), Sink::from(second))],
            super::super::sink::logger(Sink::from(errors), &LogLevels::default()),
        );
        assert!(!logs.is_empty());
        let mut capture = Capture::new();
        for _ in 0..2 {
            capture.clear();
            logs.capture_request(&FACTS, field, &mut capture);
            logs.capture_response(|_| Some(&b"y"[..]), &mut capture);
            logs.write(&RECORD, &capture);
        }
        let mut bytes = [0; 256];
        for (end, want) in [(first_end, "GET http://r/\\\"x\\\"\n"), (second_end, "/a b y GET\n")] {
            let count = fd::read(end.as_fd(), &mut bytes).expect("both lines");
            assert_eq!(String::from_utf8_lossy(&bytes[..count]), want.repeat(2));
        }
    }
}
