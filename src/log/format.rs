//! `LogFormat`, compiled once: text to a list of items, or the fault and where it is.
//!
//! Knows every code and modifier; `access` renders the items, `capture` fills the values that only a message's
//! head has.

use super::stamp;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A compiled format.
#[derive(Clone, Debug)]
pub struct LogFormat {
    pub(super) items: Vec<Item>,
    /// What must be copied while heads are at hand; the slot of each is its index plus `first_slot`.
    pub(super) sources: Vec<Source>,
    /// Several formats of one host share a capture; `access` tells them apart by this.
    pub(super) first_slot: u16,
}

/// One code, and the statuses it is for.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) code: Code,
    pub(super) statuses: Option<Statuses>,
}

/// `%400,501{…}i` or `%!200{…}i`.
#[derive(Clone, Debug)]
pub(super) struct Statuses {
    codes: Vec<u16>,
    except: bool,
}

impl Statuses {
    pub(super) fn hold(&self, status: u16) -> bool {
        self.codes.contains(&status) != self.except
    }
}

/// What is printed.
#[derive(Clone, Debug)]
pub(super) enum Code {
    Literal(Vec<u8>),
    Dash,
    ClientIp,
    PeerIp,
    LocalIp,
    BodyBytes,
    BodyBytesOrDash,
    TimeTaken(Unit),
    /// An index of `LogFormat::sources`.
    Captured(usize),
    /// The same, with the server's name where the client named none.
    HostAsked(usize),
    KeptAlive,
    CanonicalPort,
    LocalPort,
    ClientPort,
    Pid,
    Tid,
    TidHex,
    Answerer,
    Status,
    Stamp(When),
    Strftime {
        when: When,
        id: u32,
        format: String,
    },
    Clock {
        when: When,
        unit: ClockUnit,
    },
    ServerName,
    ConnectionEnd,
    BytesIn,
    BytesOut,
    BytesBoth,
    Upstream(UpstreamCode),
    ProxyError,
}

/// Of `%T`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Seconds,
    Millis,
    Micros,
}

/// Of `%t`.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Begin,
    End,
}

/// Of `%{sec}t` and its kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClockUnit {
    Second,
    Milli,
    Micro,
    MilliFraction,
    MicroFraction,
}

/// Of the upstream codes.
#[derive(Clone, Copy, Debug)]
pub(super) enum UpstreamCode {
    Address,
    Status,
    Connect,
    Header,
    Time,
    Attempts,
    Reused,
}

/// A value that is gone once the head is: copied when it is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Source {
    RequestLine,
    Method,
    Path,
    Query,
    Protocol,
    Host,
    RequestField(String),
    Cookie(String),
    RequestTrailer(String),
    ResponseField(String),
    ResponseTrailer(String),
}

/// What is wrong with a format.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FormatError {
    /// Bytes from the beginning of the format to the `%` of the code.
    pub at: usize,
    /// What is wrong there.
    pub fault: FormatFault,
}

/// The faults of a format.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FormatFault {
    /// The format ends within a code.
    Unfinished,
    /// No such code.
    Unknown(String),
    /// The code needs a name in braces.
    NeedsName(String),
    /// The code does not take what stands in its braces; the second is what it takes.
    BadArgument(String, &'static str),
    /// The code exists in httpd and has no meaning here; the second says why.
    Meaningless(String, &'static str),
    /// The time format is none; the second is what strftime says.
    BadTime(String, String),
    /// A status that is none.
    BadStatus(String),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            FormatFault::Unfinished => write!(f, "the format ends within a code")?,
            FormatFault::Unknown(code) => write!(f, "unknown code {code}")?,
            FormatFault::NeedsName(code) => write!(f, "{code} needs a name, as in %{{Name}}{}", &code[1..])?,
            FormatFault::BadArgument(code, takes) => write!(f, "{code} takes {takes}")?,
            FormatFault::Meaningless(code, why) => write!(f, "{code} has no meaning here: {why}")?,
            FormatFault::BadTime(code, why) => write!(f, "{code} is not a time format: {why}")?,
            FormatFault::BadStatus(digits) => write!(f, "{digits} is not a status")?,
        }
        write!(f, " (byte {} of the format)", self.at)
    }
}

impl std::error::Error for FormatError {}

/// The formats that have a name without a `LogFormat` line: httpd's own and those every distribution ships.
pub const NICKNAMES: &[(&str, &str)] = &[
    ("common", "%h %l %u %t \"%r\" %>s %b"),
    ("combined", "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\""),
    ("vhost_combined", "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\""),
    ("referer", "%{Referer}i -> %U"),
    ("agent", "%{User-agent}i"),
];

impl LogFormat {
    /// Compiles a format, or the one that a nickname of [`NICKNAMES`] stands for. Nicknames that the
    /// configuration defines are its own affair and come first.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let text = NICKNAMES.iter().find(|(name, _)| *name == text).map_or(text, |(_, format)| format);
        Parser { text, at: 0, items: Vec::new(), sources: Vec::new() }.parse()
    }

    /// Whether any value must be copied while a head is at hand.
    #[must_use]
    pub fn needs_capture(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Whether it asks for a field of the response.
    pub(super) fn wants_response(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, Source::ResponseField(_)))
    }

    /// Gives this format's values slots that begin at `first`; returns the first slot behind them.
    pub(super) fn take_slots(&mut self, first: u16) -> u16 {
        self.first_slot = first;
        first.saturating_add(u16::try_from(self.sources.len()).unwrap_or(u16::MAX))
    }
}

/// Ids of time formats; each keeps a stamp of its own in each thread.
static NEXT_FORMAT: AtomicU32 = AtomicU32::new(0);

struct Parser<'a> {
    text: &'a str,
    at: usize,
    items: Vec<Item>,
    sources: Vec<Source>,
}

/// A code with what stands between its `%` and its letter.
struct Spec<'a> {
    start: usize,
    argument: Option<&'a str>,
    statuses: Option<Statuses>,
}

impl<'a> Parser<'a> {
    fn parse(mut self) -> Result<LogFormat, FormatError> {
        while let Some(c) = self.next() {
            match c {
                '%' => self.code()?,
                '\\' => self.backslash(),
                other => self.literal(other),
            }
        }
        Ok(LogFormat { items: self.items, sources: self.sources, first_slot: 0 })
    }

    fn next(&mut self) -> Option<char> {
        let c = self.text[self.at..].chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn literal(&mut self, c: char) {
        let mut bytes = [0; 4];
        let bytes = c.encode_utf8(&mut bytes).as_bytes();
        match self.items.last_mut() {
            Some(Item { code: Code::Literal(text), .. }) => text.extend_from_slice(bytes),
            _ => self.items.push(Item { code: Code::Literal(bytes.to_vec()), statuses: None }),
        }
    }

    /// `\n`, `\t`, `\r`, `\\`; the configuration's quotes have taken `\"` already. Others stay as they are.
    fn backslash(&mut self) {
        match self.next() {
            Some('n') => self.literal('\n'),
            Some('t') => self.literal('\t'),
            Some('r') => self.literal('\r'),
            Some(quoted @ ('\\' | '"')) => self.literal(quoted),
            Some(other) => {
                self.literal('\\');
                self.literal(other);
            }
            None => self.literal('\\'),
        }
    }

    fn code(&mut self) -> Result<(), FormatError> {
        let start = self.at - 1;
        let mut spec = Spec { start, argument: None, statuses: None };
        let mut except = false;
        loop {
            let Some(c) = self.next() else {
                return Err(FormatError { at: start, fault: FormatFault::Unfinished });
            };
            match c {
                '%' if self.at == start + 2 => {
                    self.literal('%');
                    return Ok(());
                }
                // Of an internal redirect, the first or the last request. There are none here: both are the one.
                '<' | '>' | ',' => {}
                '!' => except = true,
                '0'..='9' => {
                    let status = self.status(start)?;
                    let known = spec.statuses.get_or_insert(Statuses { codes: Vec::new(), except: false });
                    known.codes.push(status);
                    known.except = except;
                }
                '{' => {
                    let rest = &self.text[self.at..];
                    let Some(length) = rest.find('}') else {
                        return Err(FormatError { at: start, fault: FormatFault::Unfinished });
                    };
                    spec.argument = Some(&rest[..length]);
                    self.at += length + 1;
                }
                '^' => {
                    let word: String = self.text[self.at..].chars().take(2).collect();
                    self.at += word.len();
                    return self.trailer(spec, &word);
                }
                letter => return self.letter(spec, letter),
            }
        }
    }

    /// The rest of a status whose first digit has just been read.
    fn status(&mut self, start: usize) -> Result<u16, FormatError> {
        let digits = &self.text[self.at - 1..];
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        let digits = &digits[..length];
        self.at += length - 1;
        match digits.parse() {
            Ok(status @ 100..=599) => Ok(status),
            _ => Err(FormatError { at: start, fault: FormatFault::BadStatus(digits.to_string()) }),
        }
    }

    fn trailer(&mut self, spec: Spec<'a>, word: &str) -> Result<(), FormatError> {
        let fail = |fault| Err(FormatError { at: spec.start, fault });
        let make: fn(String) -> Source = match word {
            "ti" => Source::RequestTrailer,
            "to" => Source::ResponseTrailer,
            _ if word.len() < 2 => return fail(FormatFault::Unfinished),
            _ => return fail(FormatFault::Unknown(format!("%^{word}"))),
        };
        let Some(name) = spec.argument.filter(|name| !name.is_empty()) else {
            return fail(FormatFault::NeedsName(format!("%^{word}")));
        };
        let code = Code::Captured(self.source(make(name.to_string())));
        self.items.push(Item { code, statuses: spec.statuses });
        Ok(())
    }

    fn source(&mut self, source: Source) -> usize {
        match self.sources.iter().position(|known| *known == source) {
            Some(slot) => slot,
            None => {
                self.sources.push(source);
                self.sources.len() - 1
            }
        }
    }

    fn captured(&mut self, source: Source) -> Code {
        Code::Captured(self.source(source))
    }

    fn letter(&mut self, spec: Spec<'a>, letter: char) -> Result<(), FormatError> {
        let code = self.resolve(letter, spec.argument);
        let code = code.map_err(|fault| FormatError { at: spec.start, fault })?;
        self.items.push(Item { code, statuses: spec.statuses });
        Ok(())
    }

    fn resolve(&mut self, letter: char, argument: Option<&str>) -> Result<Code, FormatFault> {
        let argument = argument.filter(|argument| !argument.is_empty());
        let shown = || match argument {
            Some(argument) => format!("%{{{argument}}}{letter}"),
            None => format!("%{letter}"),
        };
        let bad = |takes| Err(FormatFault::BadArgument(shown(), takes));
        let meaningless = |why| Err(FormatFault::Meaningless(shown(), why));
        let name = || argument.map(str::to_string).ok_or_else(|| FormatFault::NeedsName(shown()));
        Ok(match (letter, argument) {
            ('a', None) => Code::ClientIp,
            ('a', Some("c")) => Code::PeerIp,
            ('a', Some("upstream")) => Code::Upstream(UpstreamCode::Address),
            ('a', Some(_)) => return bad("nothing, c (the connection's peer) or upstream"),
            // Names of clients are not looked up: a log must never wait for DNS.
            ('h', None) => Code::ClientIp,
            ('h', Some("c")) => Code::PeerIp,
            ('h', Some(_)) => return bad("nothing or c (the connection's peer)"),
            ('A', _) => Code::LocalIp,
            ('B', _) => Code::BodyBytes,
            ('b', _) => Code::BodyBytesOrDash,
            ('C', _) => self.captured(Source::Cookie(name()?)),
            ('D', _) => Code::TimeTaken(Unit::Micros),
            ('e', _) => return meaningless("requests have no environment"),
            ('f', _) => return meaningless("no files are served"),
            ('H', _) => self.captured(Source::Protocol),
            ('i', _) => self.captured(Source::RequestField(name()?)),
            ('k', _) => Code::KeptAlive,
            ('l', _) => Code::Dash,
            ('L', _) => return meaningless("lines of the error log carry no id"),
            ('m', _) => self.captured(Source::Method),
            ('n', Some("proxy-error")) => Code::ProxyError,
            ('n', Some(_)) => return meaningless("the one note there is, is proxy-error"),
            ('n', None) => return Err(FormatFault::NeedsName(shown())),
            ('o', _) => self.captured(Source::ResponseField(name()?)),
            ('p', None | Some("canonical")) => Code::CanonicalPort,
            ('p', Some("local")) => Code::LocalPort,
            ('p', Some("remote")) => Code::ClientPort,
            ('p', Some(_)) => return bad("canonical, local or remote"),
            ('P', None | Some("pid")) => Code::Pid,
            ('P', Some("tid")) => Code::Tid,
            ('P', Some("hextid")) => Code::TidHex,
            ('P', Some(_)) => return bad("pid, tid or hextid"),
            ('q', _) => self.captured(Source::Query),
            ('r', _) => self.captured(Source::RequestLine),
            ('R', _) => Code::Answerer,
            ('s', _) => Code::Status,
            ('t', _) => time(argument).map_err(|why| FormatFault::BadTime(shown(), why))?,
            ('T', None | Some("s")) => Code::TimeTaken(Unit::Seconds),
            ('T', Some("ms")) => Code::TimeTaken(Unit::Millis),
            ('T', Some("us")) => Code::TimeTaken(Unit::Micros),
            ('T', Some(_)) => return bad("s, ms or us"),
            // Nobody is asked for a password here.
            ('u', _) => Code::Dash,
            ('U', _) => self.captured(Source::Path),
            ('v', _) => Code::ServerName,
            ('V', _) => Code::HostAsked(self.source(Source::Host)),
            ('X', _) => Code::ConnectionEnd,
            ('I', _) => Code::BytesIn,
            ('O', _) => Code::BytesOut,
            ('S', _) => Code::BytesBoth,
            ('x', Some("upstream_status")) => Code::Upstream(UpstreamCode::Status),
            ('x', Some("upstream_connect")) => Code::Upstream(UpstreamCode::Connect),
            ('x', Some("upstream_header")) => Code::Upstream(UpstreamCode::Header),
            ('x', Some("upstream_time")) => Code::Upstream(UpstreamCode::Time),
            ('x', Some("upstream_attempts")) => Code::Upstream(UpstreamCode::Attempts),
            ('x', Some("upstream_reused")) => Code::Upstream(UpstreamCode::Reused),
            ('x', Some(name)) if name.starts_with("SSL_") => return meaningless("TLS is not built in"),
            ('x', Some(_)) => {
                return bad("upstream_status, _connect, _header, _time, _attempts or _reused");
            }
            ('x', None) => return Err(FormatFault::NeedsName(shown())),
            ('c', _) => return Err(FormatFault::Unknown("%c (%X shows how the connection ended)".into())),
            _ => return Err(FormatFault::Unknown(shown())),
        })
    }
}

/// The argument of `%t`.
fn time(argument: Option<&str>) -> Result<Code, String> {
    let argument = argument.unwrap_or("");
    let (when, format) = match argument.split_once(':') {
        Some(("begin", format)) => (When::Begin, format),
        Some(("end", format)) => (When::End, format),
        _ if argument == "begin" => (When::Begin, ""),
        _ if argument == "end" => (When::End, ""),
        _ => (When::Begin, argument),
    };
    Ok(match format {
        "" => Code::Stamp(when),
        "sec" => Code::Clock { when, unit: ClockUnit::Second },
        "msec" => Code::Clock { when, unit: ClockUnit::Milli },
        "usec" => Code::Clock { when, unit: ClockUnit::Micro },
        "msec_frac" => Code::Clock { when, unit: ClockUnit::MilliFraction },
        "usec_frac" => Code::Clock { when, unit: ClockUnit::MicroFraction },
        format => {
            stamp::check_format(format)?;
            let id = NEXT_FORMAT.fetch_add(1, Ordering::Relaxed);
            Code::Strftime { when, id, format: format.to_string() }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nickname_compiles() {
        for (name, text) in NICKNAMES {
            let by_name = LogFormat::parse(name).expect("a nickname is a good format");
            let by_text = LogFormat::parse(text).expect("a nickname's text is a good format");
            assert_eq!(by_name.items.len(), by_text.items.len(), "{name}");
        }
    }

    #[test]
    fn faults_say_what_and_where() {
        for (text, at, says) in [
            ("%", 0, "the format ends within a code"),
            ("%h %{Referer", 3, "the format ends within a code"),
            ("%h %{Referer}", 3, "the format ends within a code"),
            ("%^t", 0, "the format ends within a code"),
            ("ab %Z", 3, "unknown code %Z"),
            ("%^FB", 0, "unknown code %^FB"),
            ("%i", 0, "%i needs a name, as in %{Name}i"),
            ("%{}o", 0, "%o needs a name"),
            ("%^ti", 0, "%^ti needs a name, as in %{Name}^ti"),
            ("%f", 0, "%f has no meaning here: no files are served"),
            ("%{PATH}e", 0, "%{PATH}e has no meaning here"),
            ("%L", 0, "%L has no meaning here"),
            ("%{x}n", 0, "%{x}n has no meaning here"),
            ("%{SSL_CIPHER}x", 0, "TLS is not built in"),
            ("%{what}x", 0, "%{what}x takes upstream_status"),
            ("%{ns}T", 0, "%{ns}T takes s, ms or us"),
            ("%{x}p", 0, "canonical, local or remote"),
            ("%{x}P", 0, "pid, tid or hextid"),
            ("%{x}a", 0, "upstream"),
            ("grün %9s", 6, "9 is not a status"),
            ("%99999s", 0, "99999 is not a status"),
            ("%{%!}t", 0, "%{%!}t is not a time format"),
        ] {
            let error = LogFormat::parse(text).expect_err(text);
            assert_eq!(error.at, at, "{text}");
            let said = error.to_string();
            assert!(said.contains(says), "{text}: {said}");
            assert!(said.ends_with(&format!("(byte {at} of the format)")), "{said}");
        }
    }

    #[test]
    fn equal_values_are_copied_once() {
        let format = LogFormat::parse("%r %{Host}i %{Host}i %r %400{Host}i").expect("a good format");
        assert_eq!(format.sources, [Source::RequestLine, Source::RequestField("Host".into())]);
        assert!(format.needs_capture());
        assert!(!LogFormat::parse("%h %l %u %t %>s %b %D").expect("a good format").needs_capture());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(%|[<>!,0-9{}^a-zA-Z%\\\\ é])*") {
            let _ = LogFormat::parse(&text);
        }
    }
}
