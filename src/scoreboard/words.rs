//! Strings in shared memory: as 64-bit words, under a sequence counter.
//!
//! One writer: counter to odd, fence, words, counter to even. A reader that finds the counter even and
//! unchanged around its copy has a whole one. No lock, so a writer killed half-way blocks nobody: it leaves
//! the counter odd, readers show "unknown", and the next writer of the row goes on from there.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::Release, fence};

/// Runs `write` between the two steps of `sequence`. There must be one writer at a time.
pub fn write_under(sequence: &AtomicU32, write: impl FnOnce()) {
    let odd = sequence.load(Relaxed).wrapping_add(1) | 1;
    sequence.store(odd, Relaxed);
    fence(Release);
    write();
    sequence.store(odd.wrapping_add(1), Release);
}

/// Stores `bytes` from the front of `words`, in memory order; what does not fit is left off. Returns how many
/// bytes were stored. Words behind the last byte keep what they held.
pub fn store_bytes(words: &[AtomicU64], bytes: &[u8]) -> usize {
    let kept = &bytes[..bytes.len().min(words.len() * 8)];
    let (whole, rest) = kept.as_chunks::<8>();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u64::from_ne_bytes(*chunk), Relaxed);
    }
    if !rest.is_empty()
        && let Some(word) = words.get(whole.len())
    {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        word.store(u64::from_ne_bytes(last), Relaxed);
    }
    kept.len()
}

/// Adds to a counter that has one writer: a load and a store, no locked operation.
pub fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// Zeroes words, leaving those alone that are zero, so that untouched pages stay so.
pub fn clear<'a>(words: impl IntoIterator<Item = &'a AtomicU64>) {
    for word in words {
        if word.load(Relaxed) != 0 {
            word.store(0, Relaxed);
        }
    }
}

/// Stores a text and its length, cut to what there is room for.
pub(super) fn set_text(length: &AtomicU32, words: &[AtomicU64], text: &[u8]) {
    let stored = store_bytes(words, text);
    length.store(u32::try_from(stored).unwrap_or(0), Relaxed);
}

/// A name of at most eight bytes, padded with zeros.
pub(super) fn word(name: &str) -> u64 {
    let word = AtomicU64::new(0);
    store_bytes(std::slice::from_ref(&word), name.as_bytes());
    word.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(words: &[AtomicU64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect()
    }

    #[test]
    fn bytes_keep_their_order_and_never_run_over() {
        for (text, want_length, want) in [
            ("", 0, "xxxxxxxxxxxxxxxx"),
            ("abc", 3, "abc\0\0\0\0\0xxxxxxxx"),
            ("abcdefgh", 8, "abcdefghxxxxxxxx"),
            ("abcdefghi", 9, "abcdefghi\0\0\0\0\0\0\0"),
            ("abcdefghijklmnopqrs", 16, "abcdefghijklmnop"),
        ] {
            let words: [AtomicU64; 2] = [const { AtomicU64::new(u64::from_ne_bytes(*b"xxxxxxxx")) }; 2];
            assert_eq!(store_bytes(&words, text.as_bytes()), want_length, "{text}");
            assert_eq!(bytes_of(&words), want.as_bytes(), "{text}");
        }
    }

    #[test]
    fn the_sequence_is_even_again_even_after_a_writer_that_died() {
        for (before, during, after) in
            [(0, 1, 2), (2, 3, 4), (3, 5, 6), (u32::MAX, 1, 2), (u32::MAX - 1, u32::MAX, 0)]
        {
            let sequence = AtomicU32::new(before);
            write_under(&sequence, || assert_eq!(sequence.load(Relaxed), during));
            assert_eq!(sequence.load(Relaxed), after);
        }
    }
}
