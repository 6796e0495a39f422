//! What does this request head say?
//!
//! `httparse` walks the bytes; everything it lets pass and RFC 9112 forbids to a proxy is refused here.
//! A parsed head is a view of the caller's bytes; nothing is allocated for up to [`ROOM`] fields.

use super::diagnose;
use super::error::{Fault, Reason};
use super::field::{FieldKind, FieldSlots, Fields, members, number};
use super::framing::{Framing, RequestBody};
use super::options::Options;
use super::scan::{HeadLimits, MAX_EMPTY_LINES};
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
    /// What the client expects.
    pub expectation: Expectation,
    /// The protocols the client would switch to, if Connection says `upgrade` too and the version allows it.
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
        Self::read(head, slots, limits).map_err(Fault::request)
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

    fn read(head: &'b [u8], slots: &'h mut FieldSlots, limits: &HeadLimits) -> Result<Self, Reason> {
        let mut room = [const { MaybeUninit::uninit() }; ROOM];
        let start = match start(head, &mut room[..ROOM.min(limits.fields)], slots) {
            Err(Reason::TooManyFields) if limits.fields > ROOM => {
                let mut room = vec![MaybeUninit::uninit(); limits.fields.min(head.len() / 4)];
                start(head, &mut room, slots)?
            }
            other => other?,
        };
        let version = Version::of_minor(start.minor);
        let is_http_11 = version == Version::Http11;
        let kind = Method::of(start.method);
        let target = target::read(start.target, kind)?;

        let mut framing = Framing::default();
        let mut host = None;
        let mut hosts = 0;
        let mut has_connection = false;
        let mut expectation = Expectation::None;
        let mut upgrade = None;
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
                FieldKind::Upgrade => upgrade = upgrade.or(Some(slot.value(head))),
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
            None if is_http_11 => return Err(Reason::NoHost),
            _ => {}
        }
        let options =
            if has_connection { Options::read(head, &mut slots.slots)? } else { Options::default() };
        let waits = is_http_11
            && (expectation == Expectation::Other
                || !matches!(body, RequestBody::Empty | RequestBody::Length(0)));
        Ok(Self {
            line: start.line,
            method: start.method,
            kind,
            target: start.target,
            form: target.form,
            path: target.path,
            query: target.query,
            version,
            authority: target.authority.or(host).unwrap_or(b""),
            fields: slots.view(head),
            body,
            persistent: options.persistent(is_http_11),
            expectation: if waits { expectation } else { Expectation::None },
            upgrade: upgrade.filter(|_| options.upgrade && is_http_11),
            accepts_trailers: accepts_trailers && is_http_11,
        })
    }
}

/// A request line taken apart.
struct Start<'b> {
    line: &'b [u8],
    method: &'b str,
    target: &'b [u8],
    minor: u8,
}

/// Parses `head` into its request line and `slots`.
fn start<'b>(
    head: &'b [u8],
    room: &mut [MaybeUninit<httparse::Header<'b>>],
    slots: &mut FieldSlots,
) -> Result<Start<'b>, Reason> {
    // The parser skips any number of empty lines and takes LF for their end; we do neither.
    let mut at = 0;
    while head[at..].starts_with(b"\r\n") {
        at += 2;
    }
    if at > 2 * MAX_EMPTY_LINES {
        return Err(Reason::EmptyLines);
    }
    let mut raw = httparse::Request::new(&mut []);
    match raw.parse_with_uninit_headers(head, room) {
        Ok(httparse::Status::Complete(end)) if end == head.len() => {}
        Ok(_) => return Err(Reason::Incomplete),
        Err(error) => return Err(diagnose::request(head, error)),
    }
    let (Some(method), Some(target), Some(minor)) = (raw.method, raw.path, raw.version) else {
        return Err(Reason::Incomplete);
    };
    // `method SP target SP HTTP/1.x CRLF`, with exactly one space each, is all that the parser takes.
    let end = at + method.len() + 1 + target.len() + 1 + "HTTP/1.1".len();
    if head.get(end..end + 2) != Some(b"\r\n") {
        return Err(Reason::BareLf);
    }
    slots.fill(head, raw.headers)?;
    Ok(Start { line: &head[at..end], method, target: target.as_bytes(), minor })
}
