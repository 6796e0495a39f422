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
