//! Heads as they leave us: hop-by-hop fields out, framing made anew, Via and X-Forwarded-* in (RFC 9110, 7.6).
//!
//! What is forwarded is always rebuilt from what was understood; framing is never copied. Our own fields are
//! added after the hop-by-hop ones are gone, so that a client can't have them stripped by naming them in
//! Connection, and X-Forwarded-* that a client sent are replaced: the left part of such a list is whatever the
//! client liked to write.

use crate::config::model::{Forwarding, Via};
use crate::http::reply::Persistence;
use crate::http::{
    Field, FieldKind, FieldSlots, Fields, MAX_TRAILERS, Method, RequestBody, RequestHead, ResponseHead,
    Version, chunked, is_token, members,
};
use std::net::IpAddr;

/// What a request's head says beside what the client sent.
#[derive(Clone, Copy, Debug)]
pub struct RequestPlan<'a> {
    /// The request-target for the backend.
    pub target: &'a [u8],
    /// Host for the backend.
    pub host: &'a [u8],
    /// ProxyAddHeaders, ProxyVia.
    pub forwarding: Forwarding,
    /// What the client calls us, for X-Forwarded-Host.
    pub authority: &'a [u8],
    /// Who the client is.
    pub client: IpAddr,
    /// What we call ourselves, for X-Forwarded-Server and Via.
    pub name: &'a str,
    /// Whether the backend is asked to wait with us for the client's body.
    pub expect: bool,
    /// Whether the backend connection is to be used again.
    pub reuse: bool,
    /// Whether to pass the client's wish for another protocol on.
    pub upgrade: Option<&'a [u8]>,
}

/// Appends the request head for the backend to `out`.
pub fn request_head(head: &RequestHead<'_, '_>, plan: &RequestPlan<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(plan.target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    named(out, b"Host: ", plan.host);
    let mut run = Run::new(head.fields, 0);
    for field in head.fields.iter() {
        match field.kind {
            _ if field.hop => {}
            FieldKind::Host | FieldKind::ContentLength | FieldKind::TransferEncoding | FieldKind::Expect => {}
            FieldKind::XForwardedFor | FieldKind::XForwardedHost | FieldKind::XForwardedServer
                if plan.forwarding.add_headers => {}
            FieldKind::Via if plan.forwarding.via == Via::Block => {}
            FieldKind::MaxForwards => {
                run.end(out);
                max_forwards(head, &field, out);
            }
            _ => run.add(&field, out),
        }
    }
    run.end(out);
    via(plan.forwarding.via, head.version, plan.name, out);
    if plan.forwarding.add_headers {
        out.extend_from_slice(b"X-Forwarded-For: ");
        display(out, plan.client);
        out.extend_from_slice(b"\r\n");
        if !plan.authority.is_empty() {
            named(out, b"X-Forwarded-Host: ", plan.authority);
        }
        named(out, b"X-Forwarded-Server: ", plan.name.as_bytes());
    }
    if plan.expect {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    match head.body {
        RequestBody::Empty => {}
        RequestBody::Length(length) => length_line(out, length),
        RequestBody::Chunked => {
            announced_trailers(head.fields, out);
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
    }
    let mut connection: [&[u8]; 3] = [b"", b"", b""];
    let mut options = 0;
    let mut option = |name: &'static [u8]| {
        connection[options] = name;
        options += 1;
    };
    if head.accepts_trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
        option(b"TE");
    }
    if let Some(protocol) = plan.upgrade {
        named(out, b"Upgrade: ", protocol);
        option(b"Upgrade");
    }
    if !plan.reuse && plan.upgrade.is_none() {
        option(b"close");
    }
    if options > 0 {
        out.extend_from_slice(b"Connection: ");
        for (place, name) in connection[..options].iter().enumerate() {
            if place > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(name);
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Max-Forwards: one less for OPTIONS (the caller has answered a 0; TRACE is refused), as it is for everything else.
fn max_forwards(head: &RequestHead<'_, '_>, field: &Field<'_>, out: &mut Vec<u8>) {
    match head.max_forwards() {
        Some(hops) if head.kind == Method::Options => {
            out.extend_from_slice(b"Max-Forwards: ");
            decimal(out, hops.saturating_sub(1));
            out.extend_from_slice(b"\r\n");
        }
        _ => line(out, field.name, field.value),
    }
}

/// How the response's body reaches the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// There is none; a length, if given, is what a GET would have had (HEAD, 304).
    Empty(Option<u64>),
    /// As many bytes as told.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until we close (an HTTP/1.0 client, and a length that nobody knows).
    UntilClose,
}

/// What a final response's head says beside what the backend sent.
#[derive(Debug)]
pub struct ResponsePlan<'a, F: FnMut(&[u8], &mut Vec<u8>) -> bool> {
    /// How the body goes out.
    pub encoding: Encoding,
    /// The client's version.
    pub client: Version,
    /// Whether the client's connection stays open afterwards.
    pub keep: bool,
    /// What the client is told if it does.
    pub persistence: Option<Persistence>,
    /// ProxyVia, and what we call ourselves.
    pub via: Via,
    /// Our name.
    pub name: &'a str,
    /// The time, where the backend did not say it (RFC 9110, 6.6.1).
    pub date: &'a str,
    /// Whether the trailers that follow are passed on.
    pub trailers: bool,
    /// The protocol that a 101 switches to.
    pub upgrade: Option<&'a [u8]>,
    /// Rewrites a url of the backend into one of ours (ProxyPassReverse): appends it and says so, or does not.
    pub reverse: Option<F>,
}

/// Appends a response head for the client to `out`.
pub fn response_head<F: FnMut(&[u8], &mut Vec<u8>) -> bool>(
    head: &ResponseHead<'_, '_>,
    plan: &mut ResponsePlan<'_, F>,
    out: &mut Vec<u8>,
) {
    let mut run = Run::new(head.fields, status_line(head, out));
    let mut dated = false;
    for field in head.fields.iter() {
        match field.kind {
            _ if field.hop => {}
            FieldKind::ContentLength | FieldKind::TransferEncoding => {}
            FieldKind::Via if plan.via == Via::Block => {}
            FieldKind::Location | FieldKind::ContentLocation | FieldKind::Uri | FieldKind::Destination => {
                run.end(out);
                moved(&field, plan.reverse.as_mut(), out);
            }
            FieldKind::Date => {
                dated = true;
                run.add(&field, out);
            }
            _ => run.add(&field, out),
        }
    }
    run.end(out);
    if !dated {
        named(out, b"Date: ", plan.date.as_bytes());
    }
    via(plan.via, head.version, plan.name, out);
    match plan.encoding {
        Encoding::Empty(None) | Encoding::UntilClose => {}
        Encoding::Empty(Some(length)) | Encoding::Length(length) => length_line(out, length),
        Encoding::Chunked => {
            if plan.trailers {
                announced_trailers(head.fields, out);
            }
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
    }
    if let Some(protocol) = plan.upgrade {
        named(out, b"Upgrade: ", protocol);
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    } else if let (true, Some(persistence)) = (plan.keep, plan.persistence) {
        persistence.write(out);
    } else if !plan.keep {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if plan.client == Version::Http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends Trailer with the names announced there that may be behind a body and don't end at this hop (RFC 9110,
/// 6.6.2 and 7.6.1); nothing if none is left.
fn announced_trailers(fields: Fields<'_, '_>, out: &mut Vec<u8>) {
    let start = out.len();
    let ends_here = |name: &[u8]| {
        fields.all_of(FieldKind::Connection).flat_map(members).any(|option| option.eq_ignore_ascii_case(name))
    };
    for name in fields.all_of(FieldKind::Trailer).flat_map(members).take(MAX_TRAILERS) {
        if name.iter().all(|byte| is_token(*byte))
            && !FieldKind::of(name).is_barred_from_trailers()
            && !ends_here(name)
        {
            out.extend_from_slice(if out.len() == start { b"Trailer: " } else { b", " });
            out.extend_from_slice(name);
        }
    }
    if out.len() > start {
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends an interim response's head (1xx other than 101) for the client to `out`.
pub fn interim_head(head: &ResponseHead<'_, '_>, policy: Via, name: &str, out: &mut Vec<u8>) {
    let mut run = Run::new(head.fields, status_line(head, out));
    for field in head.fields.iter().filter(|field| !field.hop) {
        match field.kind {
            FieldKind::ContentLength | FieldKind::TransferEncoding => {}
            FieldKind::Via if policy == Via::Block => {}
            _ => run.add(&field, out),
        }
    }
    run.end(out);
    via(policy, head.version, name, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends what Connection lists to `options`: trailers of these names end at this hop too (RFC 9110, 7.6.1).
pub fn options(fields: Fields<'_, '_>, options: &mut Vec<u8>) {
    for value in fields.all_of(FieldKind::Connection) {
        options.extend_from_slice(value);
        options.push(b',');
    }
}

/// Appends a trailer section and its empty line to `out`, without fields that may not be there (RFC 9110, 6.5.1):
/// behind the body, nobody checks any more what frames, routes or identifies. `options` is what Connection lists.
pub fn trailers(section: &[u8], options: &[u8], out: &mut Vec<u8>) {
    // Trailers are rare enough for a store of their own.
    let mut slots = FieldSlots::new();
    // The body's reader has checked the section; what it should have missed is not passed on.
    if let Ok(fields) = Fields::of_trailers(section, &mut slots) {
        let is_named = |name: &[u8]| members(options).any(|option| option.eq_ignore_ascii_case(name));
        for field in fields.iter().filter(|field| !field.hop && !is_named(field.name)) {
            line(out, field.name, field.value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// A field that holds a url, as ProxyPassReverse has it.
fn moved<F: FnMut(&[u8], &mut Vec<u8>) -> bool>(
    field: &Field<'_>,
    reverse: Option<&mut F>,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend_from_slice(field.name);
    out.extend_from_slice(b": ");
    if reverse.is_some_and(|rewrite| rewrite(field.value, out)) {
        out.extend_from_slice(b"\r\n");
    } else {
        out.truncate(start);
        line(out, field.name, field.value);
    }
}

/// The status line, if it is not as it came. Returns how much of the head is then to be copied with what follows it.
fn status_line(head: &ResponseHead<'_, '_>, out: &mut Vec<u8>) -> usize {
    const BEFORE_REASON: usize = "HTTP/1.1 200 ".len();
    let bytes = head.fields.head();
    let end = BEFORE_REASON + head.reason.len() + 2;
    // A reason may be left out with the blank before it, which we never do.
    if head.version == Version::Http11
        && bytes.get(BEFORE_REASON - 1) == Some(&b' ')
        && bytes.get(end - 2..end) == Some(b"\r\n")
    {
        return end;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(head.status));
    out.push(b' ');
    out.extend_from_slice(head.reason);
    out.extend_from_slice(b"\r\n");
    0
}

/// Lines of a head that are passed on as they came: neighbours are copied as one piece.
struct Run<'b, 'h> {
    fields: Fields<'b, 'h>,
    lines: std::ops::Range<usize>,
}

impl<'b, 'h> Run<'b, 'h> {
    /// The first `length` bytes of the head are part of it.
    fn new(fields: Fields<'b, 'h>, length: usize) -> Self {
        Self { fields, lines: 0..length }
    }

    /// `field` comes next; it is spelt anew unless it came as we spell it.
    fn add(&mut self, field: &Field<'b>, out: &mut Vec<u8>) {
        match self.fields.line_of(field) {
            Some(line) if line.start == self.lines.end => self.lines.end = line.end,
            Some(line) => {
                self.end(out);
                self.lines = line;
            }
            None => {
                self.end(out);
                line(out, field.name, field.value);
            }
        }
    }

    /// Something else comes next.
    fn end(&mut self, out: &mut Vec<u8>) {
        if !self.lines.is_empty() {
            out.extend_from_slice(&self.fields.head()[self.lines.clone()]);
            self.lines = 0..0;
        }
    }
}

fn via(policy: Via, received: Version, name: &str, out: &mut Vec<u8>) {
    let version: &[u8] = if received == Version::Http10 { b"1.0 " } else { b"1.1 " };
    match policy {
        Via::Off | Via::Block => return,
        Via::On | Via::Full => {
            out.extend_from_slice(b"Via: ");
            out.extend_from_slice(version);
            out.extend_from_slice(name.as_bytes());
        }
    }
    if policy == Via::Full {
        out.extend_from_slice(concat!(" (Ostler/", env!("CARGO_PKG_VERSION"), ")").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A line whose name is known here; `prefix` has the colon and the blank.
fn named<const LENGTH: usize>(out: &mut Vec<u8>, prefix: &[u8; LENGTH], value: &[u8]) {
    out.reserve(LENGTH + value.len() + 2);
    out.extend_from_slice(prefix);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length_line(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn display(out: &mut Vec<u8>, address: IpAddr) {
    use std::io::Write;
    // An IPv4 client of an IPv6 listener is an IPv4 client.
    match address.to_canonical() {
        // Without the formatter, which costs as much as all other fields of a head.
        IpAddr::V4(address) => {
            let mut text = [0; "255.255.255.255".len()];
            let mut length = 0;
            let mut push = |byte| {
                text[length] = byte;
                length += 1;
            };
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    push(b'.');
                }
                if octet >= 100 {
                    push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    push(b'0' + octet / 10 % 10);
                }
                push(b'0' + octet % 10);
            }
            out.extend_from_slice(&text[..length]);
        }
        IpAddr::V6(address) => write!(out, "{address}").expect("a Vec takes everything"),
    }
}

/// Appends `data`, of which a chunk may be made, to what is sent: small pieces by copying, so that a body of
/// tiny chunks does not become a thousand slices.
pub fn body_piece(
    input: &[u8],
    range: std::ops::Range<usize>,
    at: usize,
    in_chunks: bool,
    out: &mut crate::buf::Gather,
) {
    /// Up to this many bytes a copy costs less than a slice of its own and `sendmsg` in place of `send`.
    const SMALL: usize = 4096;
    if in_chunks {
        out.push_with(|owned| chunked::size_line(range.len() as u64, owned));
    }
    if range.len() <= SMALL {
        out.push(&input[range]);
    } else {
        out.push_input(at + range.start..at + range.end);
    }
    if in_chunks {
        out.push(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
