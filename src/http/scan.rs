//! Where does a head end, of which the bytes come bit by bit, and is it within its limits?
//!
//! Looks at each byte once, however the bytes are cut, and says the same of every cut: what a fault is,
//! depends on the bytes before it only. It looks at line ends, sizes and what tells at once that this is no
//! HTTP/1; whether the lines mean anything is the parsers' question.

use super::diagnose;
use super::error::{Fault, Reason};
use super::field::is_token;

/// Bytes that a head may have at most if no limit says less: what a connection keeps in memory.
pub const MAX_HEAD: usize = 64 * 1024;

/// Field lines that a head may have at most where `LimitRequestFields` is 0.
pub const MAX_FIELDS: usize = 1000;

/// Empty lines that are skipped before a request line. RFC 9112, 2.2 asks for one; a client that ends its
/// body with one too many and its next request with another makes two.
pub(super) const MAX_EMPTY_LINES: usize = 4;

/// How large a head may be. All are bytes without the line's CRLF, except `total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeadLimits {
    /// Of the request line or status line; breach: 414.
    pub line: usize,
    /// Field lines; breach: 431.
    pub fields: usize,
    /// Of one field line; breach: 431.
    pub field_size: usize,
    /// Of the whole head with all line ends; breach: 431.
    pub total: usize,
}

impl HeadLimits {
    /// A head of up to so many bytes has no line that is too long.
    pub(super) fn small(&self) -> usize {
        self.line.min(self.field_size).min(self.total)
    }

    /// For heads from backends.
    pub const RESPONSE: Self = Self { line: 8190, fields: 256, field_size: 32 * 1024, total: MAX_HEAD };

    /// For heads from clients: `LimitRequestLine`, `LimitRequestFields` (`None`: [`MAX_FIELDS`]) and
    /// `LimitRequestFieldSize`. The whole may have [`MAX_HEAD`] bytes, or more if a single line may.
    #[must_use]
    pub fn request(line: usize, fields: Option<usize>, field_size: usize) -> Self {
        let fields = fields.unwrap_or(MAX_FIELDS);
        let largest = line.saturating_add(field_size).saturating_add(1024);
        let all = field_size.saturating_add(2).saturating_mul(fields).saturating_add(line).saturating_add(16);
        Self { line, fields, field_size, total: all.min(largest.max(MAX_HEAD)) }
    }
}

/// What kind of head is looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeadKind {
    /// A request line and fields.
    Request,
    /// A status line and fields.
    Response,
    /// Fields only: what follows the last chunk.
    Trailers,
}

/// How far a head has been looked at. One per head: [`HeadScan::reset`] it (or make a new one) for the next.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HeadScan {
    /// Bytes that need no second look. 32 bits do: `scan` refuses limits and inputs above.
    looked: u32,
    /// Where the line begins in which `looked` is.
    line: u32,
    /// Field lines that are complete.
    fields: u32,
    /// Empty lines before the start line.
    empty: u8,
    /// Whether the start line is complete.
    started: bool,
}

impl HeadScan {
    /// At the beginning of a head.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Back to the beginning, for the next head.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether nothing of its head has been looked at.
    #[must_use]
    pub fn is_new(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a byte of the start line has been seen, and not only empty lines before it: if not, a client
    /// that closes or stays silent has not begun a request.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.started || self.looked > self.line
    }

    /// Looks for the end of the head that begins at the beginning of `bytes`, which are all that came so far:
    /// the same ones as last time with more behind them. `Some(end)`: the head is `bytes[..end]`, empty
    /// lines before it included. `None`: more bytes are needed.
    ///
    /// # Errors
    /// If a limit is breached, a line does not end in CRLF, CR is not followed by LF, or the beginning is
    /// not that of a request or response; as early as the bytes tell.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
        kind: HeadKind,
    ) -> Result<Option<usize>, Fault> {
        self.look(bytes, limits, kind).map_err(|reason| match kind {
            HeadKind::Response => Fault::response(reason),
            HeadKind::Request | HeadKind::Trailers => Fault::request(reason),
        })
    }

    /// As `scan`, for callers that know themselves whose fault it is.
    pub(super) fn look(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
        kind: HeadKind,
    ) -> Result<Option<usize>, Reason> {
        if kind == HeadKind::Trailers {
            self.started = true;
        }
        let mut line_at = self.line as usize;
        if !self.started {
            beginning(bytes, line_at, kind)?;
        }
        // At and behind `edge`, the line that is being looked at may have no byte but a LF right there.
        let mut edge = self.edge(line_at, limits);
        let looked = self.looked as usize;
        for found in memchr::memchr2_iter(b'\r', b'\n', bytes.get(looked..).unwrap_or(b"")) {
            let at = looked + found;
            if bytes[at] == b'\r' {
                if at >= edge {
                    return Err(self.breach(line_at, limits));
                }
                match bytes.get(at + 1) {
                    Some(b'\n') => continue,
                    Some(_) => return Err(Reason::BareCr),
                    None => break,
                }
            }
            if at > edge || at >= limits.total {
                return Err(self.breach(line_at, limits));
            }
            if at == line_at || bytes[at - 1] != b'\r' {
                return Err(Reason::BareLf);
            }
            let line = &bytes[line_at..at - 1];
            line_at = at + 1;
            if self.started {
                if line.is_empty() {
                    return Ok(Some(line_at));
                }
                self.fields += 1;
                if self.fields as usize > limits.fields {
                    return Err(Reason::TooManyFields);
                }
            } else if line.is_empty() {
                self.empty += 1;
                if usize::from(self.empty) > MAX_EMPTY_LINES {
                    return Err(Reason::EmptyLines);
                }
                beginning(bytes, line_at, kind)?;
            } else {
                if kind == HeadKind::Request && !line.ends_with(b" HTTP/1.1") {
                    diagnose::request_line(line).map_or(Ok(()), Err)?;
                }
                self.started = true;
            }
            edge = self.edge(line_at, limits);
        }
        if bytes.len() > edge.max(line_at) {
            return Err(self.breach(line_at, limits));
        }
        // A CR at the end is looked at again, together with what follows it.
        let looked = bytes.len() - usize::from(bytes.ends_with(b"\r"));
        self.looked = u32::try_from(looked).map_err(|_| Reason::HeadTooLarge)?;
        self.line = u32::try_from(line_at).map_err(|_| Reason::HeadTooLarge)?;
        Ok(None)
    }

    /// The first offset at which the line that begins at `line_at` may not go on.
    fn edge(&self, line_at: usize, limits: &HeadLimits) -> usize {
        let limit = if self.started { limits.field_size } else { limits.line };
        line_at.saturating_add(limit).saturating_add(1).min(limits.total)
    }

    /// What it is called when that line reaches its edge.
    fn breach(&self, line_at: usize, limits: &HeadLimits) -> Reason {
        if !self.started {
            Reason::LineTooLong
        } else if self.edge(line_at, limits) == limits.total {
            Reason::HeadTooLarge
        } else {
            Reason::FieldTooLarge
        }
    }
}

/// Refuses what cannot be the beginning of a head; `line_at` is where the current line begins.
fn beginning(bytes: &[u8], line_at: usize, kind: HeadKind) -> Result<(), Reason> {
    match kind {
        HeadKind::Request => match bytes.get(line_at) {
            None | Some(b'\r' | b'\n') => Ok(()),
            Some(0x16) => Err(Reason::Tls),
            Some(byte) if is_token(*byte) => Ok(()),
            Some(_) => Err(Reason::Method),
        },
        HeadKind::Response => {
            let known = bytes.len().min(STATUS_LINE.len());
            if bytes[..known] == STATUS_LINE[..known] { Ok(()) } else { Err(Reason::NotHttp) }
        }
        HeadKind::Trailers => Ok(()),
    }
}

/// How every response begins that we understand.
const STATUS_LINE: &[u8] = b"HTTP/1.";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: HeadLimits = HeadLimits { line: 40, fields: 4, field_size: 30, total: 120 };

    /// Scans `bytes` as they would arrive in pieces that end at `cuts`. Returns the verdict only.
    fn scan_in_pieces(bytes: &[u8], cuts: &[usize], kind: HeadKind) -> Result<Option<usize>, Reason> {
        let mut scan = HeadScan::new();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        for end in ends {
            match scan.look(&bytes[..end], &SMALL, kind)? {
                Some(found) => return Ok(Some(found)),
                None => continue,
            }
        }
        Ok(None)
    }

    #[test]
    fn finds_the_end_or_says_what_is_wrong_at_once() {
        use HeadKind::{Request, Response, Trailers};
        for (kind, bytes, want) in [
            (Request, "", Ok(None)),
            (Request, "GET / HTTP/1.1\r\n\r\n", Ok(Some(18))),
            (Request, "GET / HTTP/1.1\r\n\r\nGET /", Ok(Some(18))),
            (Request, "GET / HTTP/1.1\r\nA: b\r\n\r\n", Ok(Some(24))),
            (Request, "GET / HTTP/1.0\r\nA: b\r\n\r", Ok(None)),
            (Request, "\r\nGET / HTTP/1.1\r\n\r\n", Ok(Some(20))),
            (Request, "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", Ok(Some(26))),
            (Request, "\r\n\r\n\r\n\r\n\r\n", Err(Reason::EmptyLines)),
            (Request, "\n", Err(Reason::BareLf)),
            (Request, "\r", Ok(None)),
            (Request, "\rG", Err(Reason::BareCr)),
            (Request, "\u{16}\u{3}\u{1}", Err(Reason::Tls)),
            (Request, "\u{1}\u{2}", Err(Reason::Method)),
            (Request, "\r\n\u{16}", Err(Reason::Tls)),
            (Request, " GET", Err(Reason::Method)),
            (Request, "GET /\r\n", Err(Reason::NoVersion)),
            (Request, "GET\r\n", Err(Reason::RequestLine)),
            (Request, "GET / HTTP/1.1 \r\n", Err(Reason::RequestLine)),
            (Request, "GET / HTTP/1.1x\r\n", Err(Reason::RequestLine)),
            (Request, "GET / HTTP/01.1\r\n", Err(Reason::RequestLine)),
            (Request, "GET / http/1.1\r\n", Err(Reason::RequestLine)),
            (Request, "GET / HTTP/1.2\r\n", Err(Reason::Version)),
            (Request, "GET / HTTP/0.9\r\n", Err(Reason::Version)),
            (Request, "PRI * HTTP/2.0\r\n", Err(Reason::Version)),
            (Request, "GET\t/\tHTTP/1.1\r\n", Err(Reason::Method)),
            (Request, "GE\0T / HTTP/1.0\r\n", Err(Reason::Method)),
            (Request, "GET /\0 HTTP/1.0\r\n", Err(Reason::TargetByte)),
            (Request, "GET / HTTP/1.1\rX: 1\r\n", Err(Reason::BareCr)),
            (Request, "GET / HTTP/1.1\r\r\n", Err(Reason::BareCr)),
            (Request, "GET / HTTP/1.1\n", Err(Reason::BareLf)),
            (Request, "GET / HTTP/1.1\r\nA: b\n", Err(Reason::BareLf)),
            (Request, "GET / HTTP/1.1\r\nA: b\r\n\n", Err(Reason::BareLf)),
            (Request, "GET / HTTP/1.1\r\nA: b\rc", Err(Reason::BareCr)),
            (Request, "GET /aaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\n", Ok(None)),
            (Request, "GET /aaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\n", Ok(None)),
            (Request, "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\n", Err(Reason::LineTooLong)),
            (Request, "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Err(Reason::LineTooLong)),
            (Request, "GET / HTTP/1.1\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n", Ok(None)),
            (Request, "GET / HTTP/1.1\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n", Err(Reason::FieldTooLarge)),
            (Request, "GET / HTTP/1.1\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbbb", Err(Reason::FieldTooLarge)),
            (Request, "GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\nd:\r\n\r\n", Ok(Some(34))),
            (Request, "GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\nd:\r\ne:\r\n", Err(Reason::TooManyFields)),
            (Response, "HTTP/1.1 200 OK\r\n\r\n", Ok(Some(19))),
            (Response, "HTTP/1.0 200\r\n\r\n", Ok(Some(16))),
            (Response, "HTTP", Ok(None)),
            (Response, "HTTP/2.0 200 OK\r\n", Err(Reason::NotHttp)),
            (Response, "\r\n", Err(Reason::NotHttp)),
            (Response, "220 ready", Err(Reason::NotHttp)),
            (Response, "HTTP/1.1 200 OK\n", Err(Reason::BareLf)),
            (Trailers, "\r\nGET", Ok(Some(2))),
            (Trailers, "a: b\r\n\r\n", Ok(Some(8))),
            (Trailers, "a: b\n", Err(Reason::BareLf)),
        ] {
            assert_eq!(scan_in_pieces(bytes.as_bytes(), &[], kind), want, "{bytes:?}");
            let each: Vec<usize> = (0..bytes.len()).collect();
            assert_eq!(scan_in_pieces(bytes.as_bytes(), &each, kind), want, "{bytes:?} byte by byte");
        }
    }

    #[test]
    fn the_whole_head_has_a_limit_too() {
        let head = b"GET / HTTP/1.1\r\na: 345678901234567890123456789\r\n\
                     b: 345678901234567890123456789\r\nc: 345678901234567890123456789\r\n\
                     d: 345678901234567890123456789\r\n\r\n";
        assert_eq!(scan_in_pieces(head, &[], HeadKind::Request), Err(Reason::HeadTooLarge));
        let each: Vec<usize> = (0..head.len()).collect();
        assert_eq!(scan_in_pieces(head, &each, HeadKind::Request), Err(Reason::HeadTooLarge));
    }

    #[test]
    fn a_request_has_begun_with_its_first_byte_that_is_no_line_end() {
        for (bytes, want) in [("", false), ("\r\n", false), ("\r\nG", true), ("G", true)] {
            let mut scan = HeadScan::new();
            assert_eq!(scan.scan(bytes.as_bytes(), &SMALL, HeadKind::Request), Ok(None));
            assert_eq!(scan.has_begun(), want, "{bytes:?}");
        }
    }

    #[test]
    fn limits_of_requests_follow_the_directives_up_to_what_memory_is_for() {
        let usual = HeadLimits::request(8190, Some(100), 8190);
        assert_eq!((usual.line, usual.fields, usual.field_size, usual.total), (8190, 100, 8190, MAX_HEAD));
        assert_eq!(HeadLimits::request(100, Some(2), 50).total, 100 + 2 * 52 + 16);
        assert_eq!(HeadLimits::request(100_000, None, 8190).total, 100_000 + 8190 + 1024);
        assert_eq!(HeadLimits::request(usize::MAX, None, usize::MAX).total, usize::MAX);
    }

    proptest! {
        #[test]
        fn any_split_finds_the_same_end_or_the_same_fault(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "GET / HTTP/1.1", "HTTP/1.1 200 OK", "GET /", "a: b", "\r\n", "\r\n", "\r\n\r\n", "\n", "\r",
                    "x: 4567890123456789", "\0", " ", "HTTP/1.0", "\u{16}", "é",
                ]),
                0..14,
            ),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
            kind in prop::sample::select(vec![HeadKind::Request, HeadKind::Response, HeadKind::Trailers]),
            line in 10..60usize, fields in 0..6usize, field_size in 3..40usize, total in 20..150usize,
        ) {
            let bytes = parts.concat().into_bytes();
            let limits = HeadLimits { line, fields, field_size, total };
            let whole = HeadScan::new().look(&bytes, &limits, kind);
            let mut scan = HeadScan::new();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
            ends.sort_unstable();
            ends.push(bytes.len());
            let mut split = Ok(None);
            for end in ends {
                split = scan.look(&bytes[..end], &limits, kind);
                if split != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(whole, split);
        }
    }
}
