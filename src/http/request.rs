//! What does this request head say?
//!
//! `httparse` walks the bytes; everything it lets pass and RFC 9112 forbids to a proxy is refused here.
//! A parsed head is a view of the caller's bytes; nothing is allocated for up to [`ROOM`] fields.

use super::diagnose;
use super::error::{Fault, Reason};
use super::field::{FieldKind, FieldSlots, Fields, is_token, members, number};
use super::framing::{Framing, RequestBody};
use super::options::Options;
use super::scan::{HeadKind, HeadLimits, HeadScan, MAX_EMPTY_LINES};
use super::target::{self, TargetForm};
use std::mem::MaybeUninit;

/// Fields for which there is room on the stack; heads that have and may have more are parsed a second time.
pub(super) const ROOM: usize = 128;

/// A method, as far as it makes a difference to a proxy.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs)] // the variants are the methods
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    /// To be refused by the caller (or answered, with Max-Forwards): it echoes what was not meant for it.
    Trace,
    /// To be refused by the caller: a reverse proxy opens no tunnels to where the client likes.
    Connect,
    /// Any other token; forwarded as it is.
    Other,
}

impl Method {
    /// The method of this name; names are case-sensitive.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "PATCH" => Self::Patch,
            "TRACE" => Self::Trace,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// Whether a second try does no more than the first (RFC 9110, 9.2.2); of unknown methods nobody knows.
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

/// The version of a message. What we send is HTTP/1.1, whatever we received.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

impl Version {
    pub(super) fn of_minor(minor: u8) -> Self {
        if minor == 0 { Self::Http10 } else { Self::Http11 }
    }

    /// As it stands in a start line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// What the client expects before it sends its body (RFC 9110, 10.1.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expectation {
    /// Nothing; also in HTTP/1.0, and where there is no body to wait for.
    None,
    /// `100-continue`: a 100 or a final status before the body.
    Continue,
    /// Something else, which earns 417.
    Other,
}

/// A request head that is sound.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'b, 'h> {
    /// The request line as sent, without CRLF.
    pub line: &'b [u8],
    /// The method as sent; a token.
    pub method: &'b str,
    /// What the method is.
    pub kind: Method,
    /// The target as sent: no blank, no control character, no fragment; UTF-8.
    pub target: &'b [u8],
    /// The form of `target`.
    pub form: TargetForm,
    /// The path as sent, not decoded: begins with `/` or is `*`; empty for CONNECT. An empty path of an
    /// absolute form is `/`.
    pub path: &'b [u8],
    /// What follows the first `?` of the target, if there is one.
    pub query: Option<&'b [u8]>,
    /// The version the client speaks.
    pub version: Version,
    /// The host and port asked for: the target's if it has one, else Host's (RFC 9112, 3.2.2). Valid by
    /// [`super::is_authority`]; empty if Host is empty or (in HTTP/1.0) missing.
    pub authority: &'b [u8],
    /// All fields in order, Host and the hop-by-hop ones included.
    pub fields: Fields<'b, 'h>,
    /// Where the body ends.
    pub body: RequestBody,
    /// Whether the client's connection may serve another request.
    pub persistent: bool,
    /// Whether the client said `keep-alive`, which HTTP/1.1 does not need; it would like to know for how long.
    pub asks_keep_alive: bool,
    /// What the client expects.
    pub expectation: Expectation,
    /// The protocols the client would switch to, if Connection says `upgrade` too and the version allows it. They
    /// are in one line, or not taken for a wish at all: of several lines, readers see the first, the last or all.
    pub upgrade: Option<&'b [u8]>,
    /// Whether the client takes trailers (`TE: trailers`).
    pub accepts_trailers: bool,
}

impl<'b, 'h> RequestHead<'b, 'h> {
    /// Parses `head`, which ends with its empty line and may begin with empty ones, as [`super::HeadScan`]
    /// delimits it. The sizes of its lines have been checked there; the number of fields is checked here too.
    ///
    /// # Errors
    /// Whatever RFC 9112 forbids, with the status it earns.
    pub fn parse(head: &'b [u8], slots: &'h mut FieldSlots, limits: &HeadLimits) -> Result<Self, Fault> {
        outline(head, slots, limits)
            .and_then(|outline| Self::read(head, outline, slots))
            .map_err(Fault::request)
    }

    /// Looks for the end of the head at the beginning of `bytes`, as [`HeadScan::scan`] does. One that comes whole, is
    /// small and has nothing odd about it, as most are, is taken apart on the way: half the work. Its fields are then in
    /// `slots`, which [`RequestHead::of`] wants as they are.
    ///
    /// # Errors
    /// As with [`HeadScan::scan`].
    pub fn find(
        scan: &mut HeadScan,
        bytes: &[u8],
        slots: &mut FieldSlots,
        limits: &HeadLimits,
    ) -> Result<Option<FoundRequest>, Fault> {
        if scan.is_new()
            && let Some(outline) = Outline::of_usual(bytes, slots, limits)
        {
            return Ok(Some(FoundRequest { end: outline.end, outline: Some(outline) }));
        }
        let end = scan.scan(bytes, limits, HeadKind::Request)?;
        Ok(end.map(|end| FoundRequest { end, outline: None }))
    }

    /// Parses what was found: `head` is the bytes up to its end.
    ///
    /// # Errors
    /// As [`RequestHead::parse`].
    pub fn of(
        head: &'b [u8],
        found: FoundRequest,
        slots: &'h mut FieldSlots,
        limits: &HeadLimits,
    ) -> Result<Self, Fault> {
        match found.outline {
            Some(outline) => Self::read(head, outline, slots).map_err(Fault::request),
            None => Self::parse(head, slots, limits),
        }
    }

    /// The value of the first field called `name`, in any case of letters.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&'b [u8]> {
        self.fields.first(name)
    }

    /// Max-Forwards of an OPTIONS or TRACE request (RFC 9110, 7.6.2): at 0 we are the last to see it.
    #[must_use]
    pub fn max_forwards(&self) -> Option<u64> {
        match self.kind {
            Method::Options | Method::Trace => self.fields.first_of(FieldKind::MaxForwards).and_then(number),
            _ => None,
        }
    }

    fn read(head: &'b [u8], outline: Outline, slots: &'h mut FieldSlots) -> Result<Self, Reason> {
        let line = &head[outline.line_at..outline.line_end];
        let method = std::str::from_utf8(&line[..outline.method_length]).map_err(|_| Reason::Method)?;
        let asked = &line[method.len() + 1..line.len() - " HTTP/1.1".len()];
        let version = Version::of_minor(outline.minor);
        let is_http_11 = version == Version::Http11;
        let kind = Method::of(method);
        let target = target::read(asked, kind)?;

        let mut framing = Framing::default();
        let mut host = None;
        let mut hosts = 0;
        let mut has_connection = false;
        let mut expectation = Expectation::None;
        let mut upgrade = None;
        let mut upgrades = 0;
        let mut accepts_trailers = false;
        for slot in &slots.slots {
            match slot.kind {
                FieldKind::Other => {}
                FieldKind::Host => {
                    host = Some(slot.value(head));
                    hosts += 1;
                }
                FieldKind::Connection => has_connection = true,
                FieldKind::ContentLength => framing.add_length(slot.value(head))?,
                FieldKind::TransferEncoding => framing.add_encoding(slot.value(head)),
                FieldKind::Expect => {
                    for member in members(slot.value(head)) {
                        let is_known =
                            member.eq_ignore_ascii_case(b"100-continue") && expectation != Expectation::Other;
                        expectation = if is_known { Expectation::Continue } else { Expectation::Other };
                    }
                }
                FieldKind::Upgrade => {
                    upgrade = Some(slot.value(head));
                    upgrades += 1;
                }
                FieldKind::Te => {
                    accepts_trailers |=
                        members(slot.value(head)).any(|member| member.eq_ignore_ascii_case(b"trailers"));
                }
                _ => {}
            }
        }
        let body = framing.request(is_http_11)?;
        match host {
            _ if hosts > 1 => return Err(Reason::TwoHosts),
            Some(host) if !target::is_authority(host) => return Err(Reason::BadHost),
            // CONNECT is not served, whatever Host says beside it.
            Some(host)
                if kind != Method::Connect
                    && target.authority.is_some_and(|named| !target::is_same_authority(named, host)) =>
            {
                return Err(Reason::HostMismatch);
            }
            None if is_http_11 => return Err(Reason::NoHost),
            _ => {}
        }
        let options =
            if has_connection { Options::read(head, &mut slots.slots)? } else { Options::default() };
        let waits = is_http_11
            && (expectation == Expectation::Other
                || !matches!(body, RequestBody::Empty | RequestBody::Length(0)));
        Ok(Self {
            line,
            method,
            kind,
            target: asked,
            form: target.form,
            path: target.path,
            query: target.query,
            version,
            authority: target.authority.or(host).unwrap_or(b""),
            fields: slots.view(head),
            body,
            persistent: options.persistent(is_http_11),
            asks_keep_alive: options.keep_alive,
            expectation: if waits { expectation } else { Expectation::None },
            upgrade: upgrade.filter(|_| options.upgrade && upgrades == 1 && is_http_11),
            accepts_trailers: accepts_trailers && is_http_11,
        })
    }
}

/// A head that is there.
#[derive(Clone, Copy, Debug)]
pub struct FoundRequest {
    /// How many bytes it has, empty lines before it included.
    pub end: usize,
    outline: Option<Outline>,
}

/// Where the lines of a request head are: the request line here, the fields in the [`FieldSlots`] that were lent for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Outline {
    line_at: usize,
    line_end: usize,
    method_length: usize,
    minor: u8,
    end: usize,
}

impl Outline {
    /// Of the head at the beginning of `bytes`, if it is all there, small, and as heads mostly are.
    fn of_usual(bytes: &[u8], slots: &mut FieldSlots, limits: &HeadLimits) -> Option<Self> {
        // The parser passes over empty lines.
        if !bytes.first().is_some_and(|byte| is_token(*byte)) {
            return None;
        }
        let mut room = [const { MaybeUninit::uninit() }; ROOM];
        let outline = walk(bytes, 0, &mut room[..ROOM.min(limits.fields)], slots).ok()?;
        (outline.minor == 1 && outline.end <= limits.small()).then_some(outline)
    }
}

/// Why there is no outline.
pub(super) enum Stop {
    Partial,
    Parser(httparse::Error),
    Reason(Reason),
}

/// The outline of `head`, which is one and no more.
fn outline(head: &[u8], slots: &mut FieldSlots, limits: &HeadLimits) -> Result<Outline, Reason> {
    // The parser skips any number of empty lines and takes LF for their end; we do neither.
    let mut at = 0;
    while head[at..].starts_with(b"\r\n") {
        at += 2;
    }
    if at > 2 * MAX_EMPTY_LINES {
        return Err(Reason::EmptyLines);
    }
    let mut room = [const { MaybeUninit::uninit() }; ROOM];
    let found = match walk(head, at, &mut room[..ROOM.min(limits.fields)], slots) {
        Err(Stop::Parser(httparse::Error::TooManyHeaders)) if limits.fields > ROOM => {
            let mut room = vec![MaybeUninit::uninit(); limits.fields.min(head.len() / 4)];
            walk(head, at, &mut room, slots)
        }
        other => other,
    };
    match found {
        Ok(outline) if outline.end == head.len() => Ok(outline),
        Ok(_) | Err(Stop::Partial) => Err(Reason::Incomplete),
        Err(Stop::Parser(error)) => Err(diagnose::request(head, error)),
        Err(Stop::Reason(reason)) => Err(reason),
    }
}

/// Lets the parser go through the head at the beginning of `bytes`, whose request line is at `at`, and fills `slots`.
fn walk<'b>(
    bytes: &'b [u8],
    at: usize,
    room: &mut [MaybeUninit<httparse::Header<'b>>],
    slots: &mut FieldSlots,
) -> Result<Outline, Stop> {
    let mut raw = httparse::Request::new(&mut []);
    let end = match raw.parse_with_uninit_headers(bytes, room) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Err(Stop::Partial),
        Err(error) => return Err(Stop::Parser(error)),
    };
    let (Some(method), Some(target), Some(minor)) = (raw.method, raw.path, raw.version) else {
        return Err(Stop::Partial);
    };
    // `method SP target SP HTTP/1.x CRLF`, with exactly one space each, is all that the parser takes.
    let line_end = at + method.len() + 1 + target.len() + 1 + "HTTP/1.1".len();
    if bytes.get(line_end..line_end + 2) != Some(b"\r\n") {
        return Err(Stop::Reason(Reason::BareLf));
    }
    slots.fill(&bytes[..end], raw.headers).map_err(Stop::Reason)?;
    Ok(Outline { line_at: at, line_end, method_length: method.len(), minor, end })
}

#[cfg(test)]
mod tests;
