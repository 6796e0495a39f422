//! What must hold for any bytes: one function a target, each given raw bytes and panicking where the program is
//! wrong.
//!
//! Shared by the fuzz targets of `tests/fuzz`, which look for such bytes for as long as they are let, and by
//! `tests/it/laws.rs`, which tries a bounded number of mutations of the same seeds with every `cargo test`.
//!
//! | file | its question |
//! |---|---|
//! | `strict` | what does this message say? (an independent reader) |
//! | `heads` | are heads found, and read as `strict` reads them, however they are cut? |
//! | `bodies` | are chunked bodies, and is framing as a whole? |
//! | `script` | which bytes does which side send, in which order? |
//! | `pair` | a client and a backend, and the exchanges between them, driven as `mpm` drives them |
//! | `judge` | was every exchange of a script what it had to be? |
//! | `configs` | does any text make a configuration or faults that can be shown? |
//! | `mutate` | bytes that are much like these |

pub mod bodies;
pub mod configs;
pub mod heads;
pub mod judge;
pub mod mutate;
pub mod pair;
pub mod script;
pub mod strict;

/// A target's name, which is also the directory of its seeds, and what must hold for any input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 6] = [
    ("request_head", heads::request),
    ("response_head", heads::response),
    ("chunked", bodies::chunked),
    ("framing", bodies::framing),
    ("config", configs::check),
    ("session", judge::session),
];

/// Ends of pieces for `length` bytes, that depend on `bytes` only, so that a finding can be repeated: byte by byte
/// where that is cheap, and a few cuts by chance.
pub fn ways_to_cut(bytes: &[u8], length: usize) -> Vec<Vec<usize>> {
    let mut chance = mutate::Chance::of(bytes);
    let mut ways = Vec::new();
    if length <= 600 {
        ways.push((1..=length).collect());
    }
    for _ in 0..2 {
        let mut cuts: Vec<usize> =
            (0..=chance.below(6)).map(|_| chance.below(length + 1)).chain([length]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        ways.push(cuts);
    }
    ways
}
