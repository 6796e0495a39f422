//! What an event of the poll is about, packed into its token, with an age: a late event can't hit a new one.

use mio::Token;

/// A numbered thing with the age of its number. Numbers are used again; the pair never is (within 2^30 uses).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Aged {
    /// Index into its table.
    pub index: u32,
    /// How often that index had been given out before.
    pub age: u32,
}

/// Ages wrap here: 30 bits are what a token has room for.
pub const AGE_MASK: u32 = (1 << 30) - 1;

/// What woke the poll.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// A client's socket; the index is its connection's.
    Client(Aged),
    /// A backend's socket; the index is its link's.
    Upstream(Aged),
    /// A listener, by its place in the child's list.
    Listener(u32),
    /// An order to leave, or somebody who wants the leader to look again.
    Nudge,
}

const KIND_SHIFT: u32 = 62;
const AGE_SHIFT: u32 = 32;

impl Source {
    /// The 64 bits that the kernel keeps for us.
    #[must_use]
    pub fn token(self) -> Token {
        let pack = |kind: u64, aged: Aged| {
            (kind << KIND_SHIFT) | (u64::from(aged.age & AGE_MASK) << AGE_SHIFT) | u64::from(aged.index)
        };
        let bits = match self {
            Self::Client(aged) => pack(0, aged),
            Self::Upstream(aged) => pack(1, aged),
            Self::Listener(index) => pack(2, Aged { index, age: 0 }),
            Self::Nudge => pack(3, Aged { index: 0, age: 0 }),
        };
        // Linux on 64-bit machines only: `usize` has 64 bits (asserted below).
        Token(bits as usize)
    }

    /// The reverse of [`Source::token`].
    #[must_use]
    pub fn of(token: Token) -> Self {
        let bits = token.0 as u64;
        let aged = Aged { index: bits as u32, age: (bits >> AGE_SHIFT) as u32 & AGE_MASK };
        match bits >> KIND_SHIFT {
            0 => Self::Client(aged),
            1 => Self::Upstream(aged),
            2 => Self::Listener(aged.index),
            _ => Self::Nudge,
        }
    }
}

const _: () = assert!(size_of::<usize>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_what_it_was() {
        for source in [
            Source::Client(Aged { index: 0, age: 0 }),
            Source::Client(Aged { index: u32::MAX, age: AGE_MASK }),
            Source::Upstream(Aged { index: 7, age: 1 }),
            Source::Listener(3),
            Source::Nudge,
        ] {
            assert_eq!(Source::of(source.token()), source);
        }
    }
}
