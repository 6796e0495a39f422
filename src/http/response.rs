//! What does this response head say?
//!
//! As strict as with requests: a field cut in two, a folded line, two lengths or bytes that are not HTTP fail
//! the whole response, because what a client would make of them is anybody's guess. A fault is a 502.

use super::diagnose;
use super::error::{Fault, Reason};
use super::field::{FieldKind, FieldSlots, Fields, members, number};
use super::framing::{Framing, ResponseBody};
use super::options::Options;
use super::request::{Method, ROOM, Version};
use super::scan::HeadLimits;
use std::mem::MaybeUninit;

/// What a response answers, as far as its meaning depends on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Asked {
    /// The method we sent.
    pub method: Method,
    /// Whether we sent Upgrade.
    pub upgrade: bool,
}

/// A response head that is sound.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'b, 'h> {
    /// The version the backend speaks.
    pub version: Version,
    /// `100..=599`; below 200 an interim response, which another one follows (101 apart).
    pub status: u16,
    /// The reason phrase as sent, perhaps empty: no control character but HTAB.
    pub reason: &'b [u8],
    /// All fields in order, the hop-by-hop ones included.
    pub fields: Fields<'b, 'h>,
    /// Where the body ends.
    pub body: ResponseBody,
    /// What Content-Length says, also where there is no body (HEAD, 304): it may be said again there.
    pub length: Option<u64>,
    /// Whether the backend's connection may serve another request once the body is over. Interim responses
    /// can say no for the final one.
    pub persistent: bool,
    /// In a 101: the protocol that the connection speaks from here on. The caller checks that it is what was
    /// asked for.
    pub upgrade: Option<&'b [u8]>,
}

impl<'b, 'h> ResponseHead<'b, 'h> {
    /// Parses `head`, which ends with its empty line, as [`super::HeadScan`] delimits it, as an answer to
    /// what was `asked`.
    ///
    /// # Errors
    /// Whatever is not a sound answer; always a 502.
    pub fn parse(
        head: &'b [u8],
        slots: &'h mut FieldSlots,
        limits: &HeadLimits,
        asked: Asked,
    ) -> Result<Self, Fault> {
        Self::read(head, slots, limits, asked).map_err(Fault::response)
    }

    /// The value of the first field called `name`, in any case of letters.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&'b [u8]> {
        self.fields.first(name)
    }

    /// Whether the final response is still to come.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// The seconds for which the backend promises to keep an idle connection (`Keep-Alive: timeout=5`).
    #[must_use]
    pub fn keep_alive_timeout(&self) -> Option<u64> {
        let value = self.fields.first_of(FieldKind::KeepAlive)?;
        members(value).find_map(|parameter| match parameter.split_at_checked(8) {
            Some((name, seconds)) if name.eq_ignore_ascii_case(b"timeout=") => number(seconds),
            _ => None,
        })
    }

    fn read(
        head: &'b [u8],
        slots: &'h mut FieldSlots,
        limits: &HeadLimits,
        asked: Asked,
    ) -> Result<Self, Reason> {
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
        let status = start.status;
        if !(100..=599).contains(&status) {
            return Err(Reason::StatusCode);
        }

        let mut framing = Framing::default();
        let mut has_connection = false;
        let mut upgrade = None;
        for slot in &slots.slots {
            match slot.kind {
                FieldKind::Connection => has_connection = true,
                FieldKind::ContentLength => framing.add_length(slot.value(head))?,
                FieldKind::TransferEncoding => framing.add_encoding(slot.value(head)),
                FieldKind::Upgrade => upgrade = upgrade.or(Some(slot.value(head))),
                _ => {}
            }
        }
        let body = framing.response(is_http_11, status, asked.method == Method::Head)?;
        let options =
            if has_connection { Options::read(head, &mut slots.slots)? } else { Options::default() };
        let upgrade = upgrade.filter(|_| status == 101 && options.upgrade && asked.upgrade && is_http_11);
        let is_tunnel = status == 101 || (asked.method == Method::Connect && (200..300).contains(&status));
        if is_tunnel && upgrade.is_none_or(<[u8]>::is_empty) {
            return Err(Reason::Switch);
        }
        // A 204 that announces a body may send one, which would be taken for the next response.
        let is_honest =
            status != 204 || (!framing.encoded && framing.length.is_none_or(|length| length == 0));
        Ok(Self {
            version,
            status,
            reason: start.reason,
            fields: slots.view(head),
            body,
            length: framing.length,
            persistent: options.persistent(is_http_11)
                && body != ResponseBody::UntilClose
                && is_honest
                && !is_tunnel,
            upgrade,
        })
    }
}

/// A status line taken apart.
struct Start<'b> {
    minor: u8,
    status: u16,
    reason: &'b [u8],
}

/// Parses `head` into its status line and `slots`.
fn start<'b>(
    head: &'b [u8],
    room: &mut [MaybeUninit<httparse::Header<'b>>],
    slots: &mut FieldSlots,
) -> Result<Start<'b>, Reason> {
    // The parser skips empty lines before the status line, which is a leniency for requests only.
    if !head.starts_with(b"HTTP/") {
        return Err(Reason::NotHttp);
    }
    let mut raw = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut raw, head, room) {
        Ok(httparse::Status::Complete(end)) if end == head.len() => {}
        Ok(_) => return Err(Reason::Incomplete),
        Err(error) => return Err(diagnose::response(head, error)),
    }
    let (Some(minor), Some(status)) = (raw.version, raw.code) else {
        return Err(Reason::Incomplete);
    };
    slots.fill(head, raw.headers)?;
    // `HTTP/1.1 200`, then nothing or a space and the reason, which the parser has found free of control
    // characters but drops if it is not ASCII. Before the first field `fill` has seen a CRLF.
    let end = memchr::memchr(b'\r', head).ok_or(Reason::BareLf)?;
    let reason = head.get("HTTP/1.1 200 ".len()..end).unwrap_or(b"");
    Ok(Start { minor, status, reason })
}
