//! Which of these bytes are body?
//!
//! A reader without buffers: it is handed what came, says what to do with how much of it, and is handed the
//! rest again with more behind it. Size lines and trailers must lie in one piece before they are taken; both
//! are bounded, so that a caller with room for [`TRAILER_LIMITS`]`.total` bytes never gets stuck.

use super::chunked::read_size_line;
use super::error::{Fault, Reason, Side};
use super::field::MAX_TRAILERS;
use super::field::with_raw_trailers;
use super::framing::{RequestBody, ResponseBody};
use super::scan::{HeadKind, HeadLimits, HeadScan};
use std::ops::Range;

/// How much may follow the last chunk; a breach is a 431.
pub const TRAILER_LIMITS: HeadLimits =
    HeadLimits { line: 0, fields: MAX_TRAILERS, field_size: 8190, total: 16 * 1024 };

/// Bytes by which size lines and their extensions may exceed what chunks of their size need, per body.
const MAX_OVERHEAD: u32 = 16 * 1024;

/// What the input holds next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// Bytes of the body, by their place in the input; never empty.
    Data(Range<usize>),
    /// The trailer section with its empty line, by its place in the input; sound, and readable by
    /// [`super::Fields::of_trailers`]. [`Piece::End`] is next.
    Trailers(Range<usize>),
    /// Nothing that could be told yet: what was not consumed must come again, with more behind it.
    More,
    /// The body is over; what was not consumed belongs to the next message.
    End,
}

/// Reads one body. At most 40 bytes, no buffer.
#[derive(Clone, Debug)]
pub struct Body {
    side: Side,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// So many bytes are still to come; with 0 the body is over.
    Length(u64),
    UntilClose,
    Chunked {
        step: Step,
        overhead: u32,
    },
}

#[derive(Clone, Debug)]
enum Step {
    /// Before a size line.
    Size,
    /// In a chunk's data; so many bytes are still to come, never 0.
    Data(u64),
    /// Before the CRLF behind a chunk's data.
    DataEnd,
    /// Behind the last chunk.
    Trailers(HeadScan),
}

impl Body {
    /// For the body that a request head announced.
    #[must_use]
    pub fn for_request(body: RequestBody) -> Self {
        let state = match body {
            RequestBody::Empty => State::Length(0),
            RequestBody::Length(length) => State::Length(length),
            RequestBody::Chunked => State::CHUNKED,
        };
        Self { side: Side::Request, state }
    }

    /// For the body that a response head announced.
    #[must_use]
    pub fn for_response(body: ResponseBody) -> Self {
        let state = match body {
            ResponseBody::Empty => State::Length(0),
            ResponseBody::Length(length) => State::Length(length),
            ResponseBody::Chunked => State::CHUNKED,
            ResponseBody::UntilClose => State::UntilClose,
        };
        Self { side: Side::Response, state }
    }

    /// Says what `input` begins with, and how much of it is dealt with then: those bytes are not to be
    /// handed in again (data among them included), the others are. To be called again until it says
    /// [`Piece::More`] or [`Piece::End`].
    ///
    /// # Errors
    /// If the bytes are no body; the connection cannot be used further then.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Piece), Fault> {
        let side = self.side;
        match &mut self.state {
            State::Length(0) => Ok((0, Piece::End)),
            State::Length(left) => {
                let count = take(left, input.len());
                Ok((count, if count == 0 { Piece::More } else { Piece::Data(0..count) }))
            }
            State::UntilClose if input.is_empty() => Ok((0, Piece::More)),
            State::UntilClose => Ok((input.len(), Piece::Data(0..input.len()))),
            State::Chunked { step, overhead } => {
                let (consumed, piece) =
                    step.next(input, overhead).map_err(|reason| Fault::new(side, reason))?;
                if matches!(piece, Piece::End | Piece::Trailers(_)) {
                    self.state = State::Length(0);
                }
                Ok((consumed, piece))
            }
        }
    }

    /// Whether the body is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Length(0))
    }

    /// To be told when the peer has closed and every byte has been handed in: ends a body that lasts until
    /// then.
    ///
    /// # Errors
    /// If the body is not over.
    pub fn end_of_input(&mut self) -> Result<(), Fault> {
        match self.state {
            State::Length(0) => Ok(()),
            State::UntilClose => {
                self.state = State::Length(0);
                Ok(())
            }
            _ => Err(Fault::new(self.side, Reason::Truncated)),
        }
    }

    /// How many of the bytes to come are data for certain, so that they may pass unseen (say, by splice) if
    /// [`Body::pass`] is told.
    #[must_use]
    pub fn plain(&self) -> u64 {
        match &self.state {
            State::Length(left) | State::Chunked { step: Step::Data(left), .. } => *left,
            State::UntilClose => u64::MAX,
            State::Chunked { .. } => 0,
        }
    }

    /// Takes note that `count` bytes of data, at most [`Body::plain`], have passed.
    pub fn pass(&mut self, count: u64) {
        debug_assert!(count <= self.plain(), "only plain bytes may pass unseen");
        match &mut self.state {
            State::Length(left) => *left = left.saturating_sub(count),
            State::UntilClose => {}
            State::Chunked { step, .. } => {
                if let Step::Data(left) = step {
                    *left = left.saturating_sub(count);
                    if *left == 0 {
                        *step = Step::DataEnd;
                    }
                }
            }
        }
    }
}

impl State {
    const CHUNKED: Self = Self::Chunked { step: Step::Size, overhead: 0 };
}

impl Step {
    fn next(&mut self, input: &[u8], overhead: &mut u32) -> Result<(usize, Piece), Reason> {
        let mut at = 0;
        loop {
            match self {
                Self::DataEnd => match (input.get(at), input.get(at + 1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        at += 2;
                        *self = Self::Size;
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok((at, Piece::More)),
                    _ => return Err(Reason::ChunkEnd),
                },
                Self::Size => {
                    let Some((length, size)) = read_size_line(&input[at..])? else {
                        return Ok((at, Piece::More));
                    };
                    at += length;
                    // A byte of data may cost as much as a sender of one-byte chunks needs, and no more.
                    let needed = size.saturating_mul(2).saturating_add(20).min(u64::from(u32::MAX)) as u32;
                    *overhead = overhead.saturating_add(length as u32).saturating_sub(needed);
                    if *overhead > MAX_OVERHEAD {
                        return Err(Reason::ChunkOverhead);
                    }
                    *self = if size == 0 { Self::Trailers(HeadScan::new()) } else { Self::Data(size) };
                }
                Self::Data(left) => {
                    let start = at;
                    at += take(left, input.len() - at);
                    if at == start {
                        return Ok((at, Piece::More));
                    }
                    let data = start..at;
                    if *left == 0 {
                        // Mostly its CRLF is there too, and need not be handed in again. If something else
                        // is there, the data is still good; the fault comes with the next call.
                        *self = Self::DataEnd;
                        if input[at..].starts_with(b"\r\n") {
                            at += 2;
                            *self = Self::Size;
                        }
                    }
                    return Ok((at, Piece::Data(data)));
                }
                Self::Trailers(scan) => {
                    return match scan.look(&input[at..], &TRAILER_LIMITS, HeadKind::Trailers)? {
                        None => Ok((at, Piece::More)),
                        Some(2) => Ok((at + 2, Piece::End)),
                        Some(length) => {
                            let section = at..at + length;
                            with_raw_trailers(&input[section.clone()], |_| Ok(()))?;
                            Ok((section.end, Piece::Trailers(section)))
                        }
                    };
                }
            }
        }
    }
}

/// Takes up to `available` from `left`, and says how many it took.
fn take(left: &mut u64, available: usize) -> usize {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
    *left -= count as u64;
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::chunked;
    use crate::http::field::{FieldSlots, Fields};
    use proptest::prelude::*;

    /// What a body came to: its data, its trailer section, and how it ended.
    #[derive(Debug, Default, Eq, PartialEq)]
    struct Read {
        data: Vec<u8>,
        trailers: Vec<u8>,
        /// The input's length up to the end of the body, once that is reached.
        end: Option<usize>,
        fault: Option<Reason>,
    }

    /// Reads `input` as it would arrive in pieces that end at `cuts`, keeping what was not consumed.
    fn read(mut body: Body, input: &[u8], cuts: &[usize]) -> Read {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(input.len());
        let mut read = Read::default();
        let mut start = 0;
        for end in ends {
            loop {
                match body.next(&input[start..end.max(start)]) {
                    Err(fault) => {
                        read.fault = Some(fault.reason);
                        return read;
                    }
                    Ok((consumed, piece)) => {
                        let from = start;
                        start += consumed;
                        match piece {
                            Piece::Data(range) => {
                                assert!(!range.is_empty() && range.end <= consumed);
                                read.data.extend_from_slice(&input[from..][range]);
                            }
                            Piece::Trailers(range) => read.trailers.extend_from_slice(&input[from..][range]),
                            Piece::More => break,
                            Piece::End => {
                                assert!(body.is_done() && body.end_of_input().is_ok());
                                read.end = Some(start);
                                return read;
                            }
                        }
                    }
                }
            }
        }
        read
    }

    fn chunked_request() -> Body {
        Body::for_request(RequestBody::Chunked)
    }

    #[test]
    fn chunked_bodies_end_where_they_say() {
        let done = |data: &str, trailers: &str, end| Read {
            data: data.into(),
            trailers: trailers.into(),
            end: Some(end),
            fault: None,
        };
        let failed = |data: &str, reason| Read { data: data.into(), fault: Some(reason), ..Read::default() };
        let waits = |data: &str| Read { data: data.into(), ..Read::default() };
        for (input, want) in [
            ("0\r\n\r\n", done("", "", 5)),
            ("0;z\r\n\r\nGET /", done("", "", 7)),
            ("5\r\nhello\r\n0\r\n\r\n", done("hello", "", 15)),
            ("5;x=\"y\"\r\nhello\r\n006\r\n world\r\n0\r\n\r\n", done("hello world", "", 34)),
            (
                "1e\r\nGET /smuggled/abc HTTP/1.1\r\nX:\r\n0\r\n\r\n",
                done("GET /smuggled/abc HTTP/1.1\r\nX:", "", 41),
            ),
            ("5\r\nhello\r\n0\r\nX-T: 1\r\n\r\nG", done("hello", "X-T: 1\r\n\r\n", 23)),
            (
                "5\r\nhello\r\n0\r\nContent-Length: 44\r\n\r\n",
                done("hello", "Content-Length: 44\r\n\r\n", 35),
            ),
            ("5\r\nhello0\r\n\r\n", failed("hello", Reason::ChunkEnd)),
            ("5\r\nhelloXX0\r\n\r\n", failed("hello", Reason::ChunkEnd)),
            ("5\r\nhello\n0\r\n\r\n", failed("hello", Reason::ChunkEnd)),
            ("5\r\nhello\r\r\n0\r\n\r\n", failed("hello", Reason::ChunkEnd)),
            ("5\nhello", failed("", Reason::BareLf)),
            ("xyz\r\n", failed("", Reason::ChunkSize)),
            ("5\r\nhello\r\n\r\n", failed("hello", Reason::ChunkSize)),
            ("0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", failed("", Reason::NoColon)),
            ("0\r\nX : 1\r\n\r\n", failed("", Reason::BlankBeforeColon)),
            ("0\r\n X: 1\r\n\r\n", failed("", Reason::Fold)),
            ("0\r\nX: 1\n\r\n", failed("", Reason::BareLf)),
            ("0\r\nX: \0\r\n\r\n", failed("", Reason::FieldValue)),
            ("0\r\n\n", failed("", Reason::BareLf)),
            ("5\r\nhel", waits("hel")),
            ("5\r\nhello", waits("hello")),
            ("5\r\nhello\r", waits("hello")),
            ("0\r\n\r", waits("")),
            ("0\r\nX: 1\r\n", waits("")),
        ] {
            assert_eq!(read(chunked_request(), input.as_bytes(), &[]), want, "{input:?}");
            let each: Vec<usize> = (0..input.len()).collect();
            assert_eq!(read(chunked_request(), input.as_bytes(), &each), want, "{input:?} byte by byte");
        }
    }

    #[test]
    fn trailers_and_extensions_are_bounded() {
        let long_field = format!("0\r\nX: {}", "a".repeat(9000));
        assert_eq!(read(chunked_request(), long_field.as_bytes(), &[]).fault, Some(Reason::FieldTooLarge));
        let many = format!("0\r\n{}", "X: a\r\n".repeat(65));
        assert_eq!(read(chunked_request(), many.as_bytes(), &[]).fault, Some(Reason::TooManyFields));
        let large = format!("0\r\n{}", format!("X: {}\r\n", "a".repeat(8000)).repeat(3));
        assert_eq!(read(chunked_request(), large.as_bytes(), &[]).fault, Some(Reason::HeadTooLarge));
        let drops = format!("1;{}\r\nx\r\n", "a".repeat(900)).repeat(40);
        assert_eq!(read(chunked_request(), drops.as_bytes(), &[]).fault, Some(Reason::ChunkOverhead));
        let plain = "1\r\nx\r\n".repeat(100_000);
        assert_eq!(read(chunked_request(), plain.as_bytes(), &[]).fault, None);
    }

    #[test]
    fn faults_of_a_body_have_the_status_of_their_side() {
        let status = |mut body: Body| body.next(b"x").map_err(|fault| fault.status);
        assert_eq!(status(chunked_request()), Err(400));
        assert_eq!(status(Body::for_response(ResponseBody::Chunked)), Err(502));
    }

    #[test]
    fn lengths_and_closes_delimit() {
        let mut body = Body::for_request(RequestBody::Length(5));
        assert_eq!(body.next(b""), Ok((0, Piece::More)));
        assert_eq!(body.next(b"hel"), Ok((3, Piece::Data(0..3))));
        assert_eq!(body.end_of_input().map_err(|fault| fault.status), Err(400));
        assert_eq!(body.plain(), 2);
        assert_eq!(body.next(b"loGET"), Ok((2, Piece::Data(0..2))));
        assert_eq!(body.next(b"GET"), Ok((0, Piece::End)));
        assert!(body.is_done());

        for empty in [
            Body::for_request(RequestBody::Empty),
            Body::for_request(RequestBody::Length(0)),
            Body::for_response(ResponseBody::Empty),
        ] {
            assert!(empty.is_done());
        }

        let mut body = Body::for_response(ResponseBody::UntilClose);
        assert_eq!(body.next(b"all"), Ok((3, Piece::Data(0..3))));
        assert_eq!(body.next(b""), Ok((0, Piece::More)));
        assert!(!body.is_done());
        assert_eq!(body.end_of_input(), Ok(()));
        assert!(body.is_done());

        let mut body = Body::for_response(ResponseBody::Length(1));
        assert_eq!(body.end_of_input().map_err(|fault| fault.status), Err(502));
    }

    #[test]
    fn plain_bytes_may_pass_unseen() {
        let mut body = chunked_request();
        assert_eq!(body.plain(), 0);
        assert_eq!(body.next(b"a\r\nhel"), Ok((6, Piece::Data(3..6))));
        assert_eq!(body.plain(), 7);
        body.pass(7);
        assert_eq!(body.next(b"\r\n0\r\n\r\n"), Ok((7, Piece::End)));
    }

    #[test]
    fn trailers_are_read_and_framing_fields_among_them_marked() {
        let mut slots = FieldSlots::new();
        let fields =
            Fields::of_trailers(b"X-Sum: 7\r\nHost: evil\r\nTransfer-Encoding: x\r\n\r\n", &mut slots)
                .expect("the section is sound");
        let seen: Vec<_> = fields.iter().map(|field| (field.name, field.value, field.hop)).collect();
        assert_eq!(
            seen,
            [(&b"X-Sum"[..], &b"7"[..], false), (b"Host", b"evil", true), (b"Transfer-Encoding", b"x", true)]
        );
    }

    #[test]
    fn a_body_reader_is_small() {
        assert!(size_of::<Body>() <= 40, "{}", size_of::<Body>());
    }

    proptest! {
        #[test]
        fn any_split_of_a_chunked_stream_reads_the_same(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "5\r\nhello\r\n", "1\r\nx\r\n", "0\r\n", "\r\n", "X-T: 1\r\n", "5;a=\"b\"\r\nhello\r\n", "5\n",
                    "a\r\n0123456789\r\n", "\r", "\n", "5", ";", "\"", "\0", "g", " ", "0\r\n\r\n",
                ]),
                0..12,
            ),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let input = parts.concat().into_bytes();
            prop_assert_eq!(read(chunked_request(), &input, &[]), read(chunked_request(), &input, &cuts));
        }

        #[test]
        fn what_was_encoded_is_read_back(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in prop::collection::vec(any::<usize>(), 0..8),
            behind in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                chunked::write_chunk(chunk, &mut wire);
            }
            wire.extend_from_slice(chunked::LAST_CHUNK);
            let end = wire.len();
            wire.extend_from_slice(&behind);
            let got = read(Body::for_response(ResponseBody::Chunked), &wire, &cuts);
            prop_assert_eq!(got, Read { data: chunks.concat(), end: Some(end), ..Read::default() });
        }

        #[test]
        fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
            read(chunked_request(), &input, &[1, 7]);
        }
    }
}
