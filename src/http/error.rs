//! What was wrong with the bytes, and the status it earns.
//!
//! A [`Fault`] ends its connection: after bytes that do not parse nobody knows where the next message begins.

use std::fmt;

/// Who sent the bytes: a client, whose faults earn a 4xx or 5xx of their own, or a backend, whose faults are
/// all a 502 for the client.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// The bytes are a request's.
    Request,
    /// The bytes are a response's.
    Response,
}

/// A message that cannot be taken, as the log and the client learn of it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Fault {
    /// The status for the client: 400, 414, 421, 431, 501 or 505 for a request, 502 for a response.
    pub status: u16,
    /// What was wrong.
    pub reason: Reason,
}

impl Fault {
    /// A fault in bytes from `side`.
    #[must_use]
    pub fn new(side: Side, reason: Reason) -> Self {
        match side {
            Side::Request => Self::request(reason),
            Side::Response => Self::response(reason),
        }
    }

    /// A fault in a client's bytes.
    #[cold]
    #[must_use]
    pub fn request(reason: Reason) -> Self {
        Self { status: reason.request_status(), reason }
    }

    /// A fault in a backend's bytes: 502, whatever it is.
    #[cold]
    #[must_use]
    pub fn response(reason: Reason) -> Self {
        Self { status: 502, reason }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for Fault {}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $status:literal $text:literal,)*) => {
        /// What can be wrong with a message.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// The status that a request earns by this fault.
            fn request_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

reasons! {
    /// The first byte is that of a TLS record.
    Tls 400 "a TLS handshake where plain HTTP is spoken",
    /// A response that does not begin with `HTTP/1.`; RFC 9112 has no HTTP/0.9 responses.
    NotHttp 400 "not an HTTP/1 message",
    /// More empty lines before a request line than any client sends by mistake.
    EmptyLines 400 "too many empty lines before the request line",
    /// `LimitRequestLine`.
    LineTooLong 414 "the request line is too long",
    /// `LimitRequestFieldSize`.
    FieldTooLarge 431 "a field line is too long",
    /// `LimitRequestFields`.
    TooManyFields 431 "too many field lines",
    /// All lines together are more than a connection may keep in memory.
    HeadTooLarge 431 "the head is too large",
    /// LF without CR before it.
    BareLf 400 "a line ended by LF without CR",
    /// CR without LF behind it (RFC 9112, 2.2).
    BareCr 400 "CR without LF",
    /// The head ends before its empty line, or there is more behind it.
    Incomplete 400 "an incomplete head",
    /// The method is no token.
    Method 400 "the method is not a token",
    /// Not `method SP target SP version`.
    RequestLine 400 "the request line is not method, target and version with one space between",
    /// A request line without a version, as HTTP/0.9 had it.
    NoVersion 400 "a request line without a version",
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version 505 "a version other than HTTP/1.1 and HTTP/1.0",
    /// A control character, or bytes that are not UTF-8, in the target.
    TargetByte 400 "a byte in the target that no URI has",
    /// `#` in the target.
    Fragment 400 "a fragment in the target",
    /// None of the four forms, or one that does not go with the method (RFC 9112, 3.2).
    TargetForm 400 "a target that has none of the forms its method allows",
    /// A URI of a scheme that is not ours.
    Scheme 400 "a target whose scheme is not http",
    /// An https URI over a connection without TLS (RFC 9110, 7.4).
    Misdirected 421 "an https target on a connection without TLS",
    /// User information in an authority (RFC 9110, 4.2.4).
    UserInfo 400 "user information in the authority",
    /// The target's authority is not `host[:port]`, or has no host.
    Authority 400 "the target's authority is not a host and port",
    /// HTTP/1.1 without Host (RFC 9112, 3.2).
    NoHost 400 "no Host field",
    /// Two Host lines, even if equal.
    TwoHosts 400 "more than one Host field",
    /// Host is not `uri-host[:port]`.
    BadHost 400 "the Host field is not a host and port",
    /// The target names another authority than Host (RFC 9112, 3.2.2). Ignoring Host would do by the letter; but
    /// who sends two names wants two readers to see different ones.
    HostMismatch 400 "the target and the Host field name different authorities",
    /// A line that begins with a blank (RFC 9112, 5.2): refused in both directions.
    Fold 400 "a folded field line",
    /// `Name : value` (RFC 9112, 5.1).
    BlankBeforeColon 400 "a blank between a field's name and its colon",
    /// A field line without colon.
    NoColon 400 "a field line without colon",
    /// A field name that is no token.
    FieldName 400 "a field name that is not a token",
    /// NUL or another control character in a value.
    FieldValue 400 "a control character in a field's value",
    /// More nominations in Connection than anybody has use for.
    TooManyOptions 400 "too many options in Connection",
    /// Content-Length is not a number of at most 63 bits.
    Length 400 "the Content-Length is not a number",
    /// Two Content-Length lines, even if equal.
    TwoLengths 400 "more than one Content-Length",
    /// Content-Length beside Transfer-Encoding (RFC 9112, 6.1).
    LengthAndEncoding 400 "Content-Length and Transfer-Encoding in one message",
    /// Transfer-Encoding in an HTTP/1.0 message (RFC 9112, 6.1).
    EncodingInHttp10 400 "Transfer-Encoding in an HTTP/1.0 message",
    /// `chunked` is not the last coding, is there twice, or the list is malformed.
    Encoding 400 "a Transfer-Encoding that does not end in one chunked",
    /// Codings before `chunked` that we do not know.
    UnknownEncoding 501 "a transfer coding other than chunked",
    /// Not `HTTP/1.x SP nnn SP reason`.
    StatusLine 400 "not a status line",
    /// A status code outside of 100..=599 (RFC 9110, 15).
    StatusCode 400 "a status code outside of 100 to 599",
    /// An interim response that announces a body.
    FramedInterim 400 "an interim response with a body",
    /// 101 to a request that asked for no upgrade, or without naming the protocol.
    Switch 400 "101 Switching Protocols where no such switch was asked for",
    /// Not `1*HEXDIG` where a chunk's size is due.
    ChunkSize 400 "a chunk size that is not a hexadecimal number",
    /// More than 16 digits or 63 bits.
    ChunkTooLarge 400 "a chunk size out of range",
    /// A control character or an open quote in a chunk extension.
    ChunkExtension 400 "a malformed chunk extension",
    /// A size line with its extensions is too long, or all of them are out of proportion to the data.
    ChunkOverhead 400 "chunk extensions out of proportion",
    /// No CRLF behind a chunk's data.
    ChunkEnd 400 "no CRLF behind a chunk's data",
    /// The input ended before the message did.
    Truncated 400 "the message ended before its time",
}
