//! What was wrong with a head that did not parse?
//!
//! Off the hot path: walks the lines with plain comparisons and names the first thing it finds, so that the
//! log and the client learn more than "bad request". It never lets a head pass: where it finds nothing, the
//! parser's own verdict stands.

use super::error::Reason;
use super::field::is_token;

/// The first fault of a request's head.
#[cold]
pub(super) fn request(head: &[u8], verdict: httparse::Error) -> Reason {
    let mut rest = head;
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        rest = after;
    }
    match first_line(rest) {
        Err(reason) => reason,
        Ok((line, after)) => request_line(line).unwrap_or_else(|| fields(after, verdict)),
    }
}

/// The first fault of a response's head.
#[cold]
pub(super) fn response(head: &[u8], verdict: httparse::Error) -> Reason {
    match first_line(head) {
        Err(reason) => reason,
        Ok((line, after)) => status_line(line).unwrap_or_else(|| fields(after, verdict)),
    }
}

/// The first fault of field lines that end with an empty line.
#[cold]
pub(super) fn fields(section: &[u8], verdict: httparse::Error) -> Reason {
    if verdict == httparse::Error::TooManyHeaders {
        return Reason::TooManyFields;
    }
    let mut rest = section;
    while !rest.is_empty() {
        match first_line(rest) {
            Err(reason) => return reason,
            Ok((line, after)) => {
                if let Some(reason) = field_line(line) {
                    return reason;
                }
                rest = after;
            }
        }
    }
    match verdict {
        httparse::Error::TooManyHeaders => Reason::TooManyFields,
        httparse::Error::HeaderName => Reason::FieldName,
        httparse::Error::HeaderValue => Reason::FieldValue,
        httparse::Error::NewLine => Reason::BareCr,
        httparse::Error::Status => Reason::StatusLine,
        httparse::Error::Token => Reason::RequestLine,
        httparse::Error::Version => Reason::Version,
    }
}

/// What is wrong with a request line (without its CRLF); `None` if it is one of HTTP/1.1 or HTTP/1.0.
pub(super) fn request_line(line: &[u8]) -> Option<Reason> {
    if line.contains(&b'\r') {
        return Some(Reason::BareCr);
    }
    let Some(space) = memchr::memchr(b' ', line) else {
        let is_word = !line.is_empty() && line.iter().all(|byte| is_token(*byte));
        return Some(if is_word { Reason::RequestLine } else { Reason::Method });
    };
    let (method, rest) = (&line[..space], &line[space + 1..]);
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Some(Reason::Method);
    }
    let Some(space) = memchr::memrchr(b' ', rest) else {
        return Some(if rest.starts_with(b"/") { Reason::NoVersion } else { Reason::RequestLine });
    };
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    if target.is_empty() || target.contains(&b' ') {
        return Some(Reason::RequestLine);
    }
    if target.iter().any(u8::is_ascii_control) || std::str::from_utf8(target).is_err() {
        return Some(Reason::TargetByte);
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => None,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Some(Reason::Version),
        _ => Some(Reason::RequestLine),
    }
}

/// What is wrong with a status line, as far as its syntax goes.
fn status_line(line: &[u8]) -> Option<Reason> {
    match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', code @ ..] => match code {
            _ if code.contains(&b'\r') => Some(Reason::BareCr),
            [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9'] => None,
            [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', reason @ ..] => {
                reason.iter().any(|byte| is_forbidden(*byte)).then_some(Reason::StatusLine)
            }
            _ => Some(Reason::StatusLine),
        },
        [b'H', b'T', b'T', b'P', b'/', ..] => Some(Reason::Version),
        _ => Some(Reason::NotHttp),
    }
}

/// What is wrong with a field line (without its CRLF); the empty line is none.
fn field_line(line: &[u8]) -> Option<Reason> {
    match line.first() {
        None => return None,
        Some(b' ' | b'\t') => return Some(Reason::Fold),
        Some(_) => {}
    }
    if line.contains(&b'\r') {
        return Some(Reason::BareCr);
    }
    let Some(colon) = memchr::memchr(b':', line) else { return Some(Reason::NoColon) };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    match name.iter().position(|byte| !is_token(*byte)) {
        Some(at) if name[at..].iter().all(|byte| matches!(byte, b' ' | b'\t')) => {
            Some(Reason::BlankBeforeColon)
        }
        Some(_) => Some(Reason::FieldName),
        None if name.is_empty() => Some(Reason::FieldName),
        None => value.iter().any(|byte| is_forbidden(*byte)).then_some(Reason::FieldValue),
    }
}

/// Control characters other than HTAB.
fn is_forbidden(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// The first line of `bytes` without its CRLF, and what follows it.
fn first_line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    let end = memchr::memchr(b'\n', bytes).ok_or(Reason::Incomplete)?;
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Reason::BareLf)?;
    Ok((line, &bytes[end + 1..]))
}
