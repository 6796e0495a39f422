//! What do we say when we answer ourselves?

use super::request::Version;
use std::io::Write;

/// The interim response that asks a client for the body it holds back.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a client that said `keep-alive` is told about its connection's future, as httpd does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Persistence {
    /// Whole seconds for which the connection may be idle.
    pub timeout: u64,
    /// Requests that it may still carry; `None` is without limit.
    pub left: Option<u32>,
}

impl Persistence {
    /// Appends Keep-Alive and the Connection that names it.
    pub fn write(self, out: &mut Vec<u8>) {
        write!(out, "Keep-Alive: timeout={}", self.timeout).expect("a Vec takes any bytes");
        if let Some(left) = self.left {
            write!(out, ", max={left}").expect("a Vec takes any bytes");
        }
        out.extend_from_slice(b"\r\nConnection: keep-alive\r\n");
    }
}

/// An answer of our own.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// `200..=599`.
    pub status: u16,
    /// Whether we close the connection behind it.
    pub close: bool,
    /// What the client is told if we do not.
    pub persistence: Option<Persistence>,
    /// The answer is to HEAD: the same fields, no body.
    pub head_only: bool,
    /// IMF-fixdate, from [`super::DateStamp`].
    pub date: &'a str,
    /// What `ServerTokens` lets us say; nothing if empty.
    pub server: &'a str,
    /// What the client speaks: HTTP/1.0 must be told that its connection stays open.
    pub version: Version,
    /// Further fields; names and values as they are to be sent, sound by the caller's word.
    pub fields: &'a [(&'a str, &'a str)],
    /// Retry-After, in seconds.
    pub retry_after: Option<u32>,
    /// The type of `body`.
    pub content_type: &'a str,
    /// The body; `None` for a small page that says what the status means.
    pub body: Option<&'a [u8]>,
}

impl<'a> Reply<'a> {
    /// A page for `status`, behind which the connection is closed; other fields are set by the caller.
    #[must_use]
    pub fn new(status: u16, date: &'a str, server: &'a str) -> Self {
        Self {
            status,
            close: true,
            persistence: None,
            head_only: false,
            date,
            server,
            version: Version::Http11,
            fields: &[],
            retry_after: None,
            content_type: "text/html; charset=utf-8",
            body: None,
        }
    }
}

/// Appends `reply` to `out`. Returns how many bytes of it are body.
pub fn write(out: &mut Vec<u8>, reply: &Reply<'_>) -> usize {
    let page;
    let body = match reply.body {
        _ if matches!(reply.status, 204 | 304) => &[],
        Some(body) => body,
        None => {
            page = page_of(reply.status);
            page.as_bytes()
        }
    };
    head(out, reply, body.len()).expect("a Vec takes any bytes");
    if reply.head_only {
        return 0;
    }
    out.extend_from_slice(body);
    body.len()
}

fn head(out: &mut Vec<u8>, reply: &Reply<'_>, length: usize) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 {} {}\r\nDate: {}\r\n", reply.status, reason(reply.status), reply.date)?;
    if !reply.server.is_empty() {
        write!(out, "Server: {}\r\n", reply.server)?;
    }
    for (name, value) in reply.fields {
        write!(out, "{name}: {value}\r\n")?;
    }
    if let Some(seconds) = reply.retry_after {
        write!(out, "Retry-After: {seconds}\r\n")?;
    }
    if !matches!(reply.status, 204 | 304) {
        write!(out, "Content-Type: {}\r\nContent-Length: {length}\r\n", reply.content_type)?;
    }
    match reply.persistence {
        _ if reply.close => out.extend_from_slice(b"Connection: close\r\n"),
        Some(persistence) => persistence.write(out),
        None if reply.version == Version::Http10 => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        None => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// The page that stands in for a body.
fn page_of(status: u16) -> String {
    let (name, sentence) = (reason(status), sentence(status));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>{status} {name}</title></head>\n\
         <body>\n<h1>{name}</h1>\n<p>{sentence}</p>\n</body>\n</html>\n"
    )
}

/// The reason phrase of `status` as RFC 9110 has it; of unknown ones, that of their class.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => match status / 100 {
            1 => "Interim",
            2 => "Success",
            3 => "Redirection",
            4 => "Client Error",
            _ => "Server Error",
        },
    }
}

/// What `status` means to whoever reads the page.
fn sentence(status: u16) -> &'static str {
    match status {
        400 => "This server could not make sense of the request.",
        403 => "You are not allowed to see this.",
        404 => "There is nothing at this address.",
        405 => "This method cannot be used here.",
        408 => "The request took too long to arrive.",
        411 => "The request must say how long its body is.",
        413 => "The body of the request is larger than this server accepts.",
        414 => "The address in the request is longer than this server accepts.",
        417 => "This server cannot do what the request expects of it.",
        421 => "This server does not answer for that address on this connection.",
        431 => "The header of the request is larger than this server accepts.",
        500 => "Something went wrong in this server. Its log says more.",
        501 => "This server does not know how to do that.",
        502 => "The server behind this one gave no proper answer.",
        503 => "The server behind this one cannot be reached at the moment. Please try again later.",
        504 => "The server behind this one took too long to answer.",
        505 => "This server speaks HTTP/1.1 and HTTP/1.0 only.",
        508 => "The request has come back to a server that it already went through.",
        _ => "This is all there is to say.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Asked, FieldSlots, HeadLimits, Method, ResponseBody, ResponseHead};

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn an_answer_is_what_our_own_reader_takes() {
        for status in
            [200, 204, 304, 400, 404, 408, 413, 414, 417, 421, 431, 500, 501, 502, 503, 504, 505, 599]
        {
            for head_only in [false, true] {
                let mut out = Vec::new();
                let sent = write(&mut out, &Reply { head_only, ..Reply::new(status, DATE, "Ostler") });
                let end = memchr::memmem::find(&out, b"\r\n\r\n").expect("a head ends") + 4;
                assert_eq!(out.len() - end, sent, "{status}");
                let method = if head_only { Method::Head } else { Method::Get };
                let mut slots = FieldSlots::new();
                let asked = Asked { method, upgrade: false };
                let head = ResponseHead::parse(&out[..end], &mut slots, &HeadLimits::RESPONSE, asked)
                    .expect("our own answers are sound");
                assert_eq!((head.status, head.persistent), (status, false));
                assert_eq!(head.reason, reason(status).as_bytes());
                assert_eq!(head.first("Date"), Some(DATE.as_bytes()));
                match head.body {
                    ResponseBody::Length(length) => assert_eq!(length, sent as u64),
                    ResponseBody::Empty => assert_eq!(sent, 0),
                    other => panic!("{status}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn fields_come_as_the_caller_has_set_them() {
        let mut out = Vec::new();
        let reply = Reply {
            close: false,
            version: Version::Http10,
            fields: &[("Allow", "GET, HEAD")],
            retry_after: Some(10),
            content_type: "text/plain",
            body: Some(b"no\n"),
            ..Reply::new(405, DATE, "")
        };
        assert_eq!(write(&mut out, &reply), 3);
        let text = "HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nAllow: GET, HEAD\r\n\
                    Retry-After: 10\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\
                    \r\nno\n";
        assert_eq!(String::from_utf8_lossy(&out), text);
    }
}
