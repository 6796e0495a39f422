//! Bytes on their way out: gathered without copying what has just been read, and kept when a socket is full.
//!
//! A turn reads into its thread's buffer, decides, and sends. What it sends is partly new (heads, chunk sizes)
//! and partly a range of what was read. [`Gather`] lists both in order, so that one `sendmsg` takes them all.
//! Only what the socket refuses is copied, into the connection's [`Backlog`].

use std::io::IoSlice;
use std::ops::Range;

/// Slices handed to one `sendmsg`; more pieces than this leave in several calls.
pub const SLICES: usize = 32;

/// Bytes that are copied more cheaply than they are sent as a piece of their own.
const SMALL: usize = 2048;

/// Bytes to be sent, in order: some owned, some ranges of the input buffer of this turn.
#[derive(Debug, Default)]
pub struct Gather {
    owned: Vec<u8>,
    pieces: Vec<Piece>,
    length: usize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    Owned(Range<usize>),
    Input(Range<usize>),
}

impl Gather {
    /// Nothing to send.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes to be sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.owned.clear();
        self.pieces.clear();
        self.length = 0;
    }

    /// Appends `range` of this turn's input.
    pub fn push_input(&mut self, range: Range<usize>) {
        self.length += range.len();
        match self.pieces.last_mut() {
            Some(Piece::Input(last)) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => self.pieces.push(Piece::Input(range)),
        }
    }

    /// Appends whatever `write` puts at the end of the vector, which may hold earlier bytes.
    pub fn push_with<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let start = self.owned.len();
        let result = write(&mut self.owned);
        let range = start..self.owned.len();
        self.length += range.len();
        match self.pieces.last_mut() {
            Some(Piece::Owned(last)) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => self.pieces.push(Piece::Owned(range)),
        }
        result
    }

    /// Appends `bytes` by copying them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.push_with(|owned| owned.extend_from_slice(bytes));
    }

    /// Takes back everything from `length` bytes on.
    pub fn truncate(&mut self, length: usize) {
        while self.length > length {
            let surplus = self.length - length;
            let Some(last) = self.pieces.last_mut() else { return };
            let range = match last {
                Piece::Owned(range) | Piece::Input(range) => range,
            };
            if range.len() > surplus {
                range.end -= surplus;
                self.length = length;
            } else {
                self.length -= range.len();
                self.pieces.pop();
            }
        }
    }

    /// Copies what is small and comes from the input to what is owned before it: the kernel takes one piece with less
    /// ado than two.
    pub fn join(&mut self, input: &[u8]) {
        if let [Piece::Owned(owned), Piece::Input(range)] = &mut self.pieces[..]
            && range.len() <= SMALL
            && owned.end == self.owned.len()
        {
            self.owned.extend_from_slice(&input[range.clone()]);
            owned.end = self.owned.len();
            self.pieces.truncate(1);
        }
    }

    /// What is to be sent, if it is one piece: a whole exchange's head and body mostly are.
    #[must_use]
    pub fn single<'s>(&'s self, input: &'s [u8]) -> Option<&'s [u8]> {
        match &self.pieces[..] {
            [Piece::Owned(range)] => Some(&self.owned[range.clone()]),
            [Piece::Input(range)] => Some(&input[range.clone()]),
            _ => None,
        }
    }

    /// Fills `slices` with what is to be sent, `skip` bytes left out at the front. Returns how many it filled.
    pub fn slices<'s>(
        &'s self,
        input: &'s [u8],
        mut skip: usize,
        slices: &mut [IoSlice<'s>; SLICES],
    ) -> usize {
        let mut count = 0;
        for piece in &self.pieces {
            let mut bytes = match piece {
                Piece::Owned(range) => &self.owned[range.clone()],
                Piece::Input(range) => &input[range.clone()],
            };
            if skip >= bytes.len() {
                skip -= bytes.len();
                continue;
            }
            bytes = &bytes[skip..];
            skip = 0;
            slices[count] = IoSlice::new(bytes);
            count += 1;
            if count == SLICES {
                break;
            }
        }
        count
    }

    /// Appends everything but the first `skip` bytes to `rest`.
    pub fn copy_from(&self, input: &[u8], mut skip: usize, rest: &mut Backlog) {
        for piece in &self.pieces {
            let bytes = match piece {
                Piece::Owned(range) => &self.owned[range.clone()],
                Piece::Input(range) => &input[range.clone()],
            };
            let from = skip.min(bytes.len());
            skip -= from;
            rest.push(&bytes[from..]);
        }
    }
}

/// What a socket would not take yet.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    sent: usize,
}

/// A backlog that grew beyond this gives its memory back when it has been sent.
const KEEP: usize = 4096;

impl Backlog {
    /// Whether all has been sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// What is still to be sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Appends `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The first `count` bytes have been sent.
    pub fn advance(&mut self, count: usize) {
        self.sent = (self.sent + count).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets everything, and gives back much memory.
    pub fn clear(&mut self) {
        self.sent = 0;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(gather: &Gather, input: &[u8], skip: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = gather.slices(input, skip, &mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn pieces_come_out_in_order_whatever_is_skipped() {
        let input = b"0123456789";
        let mut gather = Gather::new();
        gather.push(b"head ");
        gather.push(b"more ");
        gather.push_input(2..4);
        gather.push_input(4..6);
        gather.push(b" tail");
        let whole = b"head more 2345 tail";
        assert_eq!(gather.len(), whole.len());
        assert_eq!(gather.pieces.len(), 3, "neighbours are merged");
        for skip in 0..=whole.len() {
            assert_eq!(flat(&gather, input, skip), &whole[skip..], "skip {skip}");
            let mut rest = Backlog::default();
            gather.copy_from(input, skip, &mut rest);
            assert_eq!(rest.bytes(), &whole[skip..], "copy, skip {skip}");
        }
        assert_eq!(gather.single(input), None);
    }

    #[test]
    fn one_piece_is_known_as_such() {
        let input = b"0123456789";
        let mut gather = Gather::new();
        assert_eq!(gather.single(input), None);
        gather.push(b"head");
        gather.push(b" body");
        assert_eq!(gather.single(input), Some(&b"head body"[..]));
        gather.clear();
        gather.push_input(2..4);
        assert_eq!(gather.single(input), Some(&b"23"[..]));
    }

    #[test]
    fn a_head_and_a_small_body_become_one_piece() {
        let input = [7; SMALL + 1];
        let joined = |build: fn(&mut Gather, usize), length| {
            let mut gather = Gather::new();
            build(&mut gather, length);
            let before = flat(&gather, &input, 0);
            gather.join(&input);
            assert_eq!(flat(&gather, &input, 0), before);
            assert_eq!(gather.len(), before.len());
            gather.pieces.len()
        };
        fn head_and_body(gather: &mut Gather, length: usize) {
            gather.push(b"head");
            gather.push_input(0..length);
        }
        assert_eq!(joined(head_and_body, SMALL), 1);
        assert_eq!(joined(head_and_body, SMALL + 1), 2, "too much to copy");
        assert_eq!(joined(head_and_body, 0), 1);
        assert_eq!(joined(|gather, length| gather.push_input(0..length), 9), 1, "nothing before it");
        let chunk = |gather: &mut Gather, length| {
            head_and_body(gather, length);
            gather.push(b"tail");
        };
        assert_eq!(joined(chunk, 9), 3);
        let cut = |gather: &mut Gather, length| {
            gather.push(b"head and more");
            gather.truncate(4);
            gather.push_input(0..length);
        };
        assert_eq!(joined(cut, 9), 2, "what was taken back lies in between");
    }

    #[test]
    fn truncating_takes_back_what_came_last() {
        let input = b"0123456789";
        for keep in 0..=9 {
            let mut gather = Gather::new();
            gather.push(b"abc");
            gather.push_input(0..3);
            gather.push(b"def");
            gather.truncate(keep);
            assert_eq!(flat(&gather, input, 0), &b"abc012def"[..keep], "keep {keep}");
        }
    }

    #[test]
    fn a_backlog_gives_back_its_memory_once_sent() {
        let mut backlog = Backlog::default();
        backlog.push(&[7; 2 * KEEP]);
        backlog.advance(KEEP);
        assert_eq!(backlog.bytes().len(), KEEP);
        backlog.advance(KEEP);
        assert!(backlog.is_empty());
        assert_eq!(backlog.bytes.capacity(), 0);
    }
}
