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
