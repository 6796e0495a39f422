//! The oracles of `tests/oracles` with every `cargo test`: each seed as it is, and mutations of them, always the
//! same ones. What looks for more, and for longer, is `scripts/fuzz`.

use crate::oracles::mutate::{Chance, mutated};
use crate::oracles::{TARGETS, ways_to_cut};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// The seeds of a target, in the order of their names.
fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name);
    let mut seeds: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be listed").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a seed can be read")))
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 5, "{name} has seeds");
    seeds
}

/// Tries all seeds of a target, and `count` mutations of them.
fn holds(name: &str, count: usize) {
    let (_, check) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let attempt = |from: &str, bytes: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| check(bytes))).is_err() {
            panic!("{name}, from {from}:\nb\"{}\"", bytes.escape_ascii());
        }
    };
    let seeds = seeds(name);
    for (path, bytes) in &seeds {
        attempt(path, bytes);
    }
    let mut chance = Chance::new(1);
    for _ in 0..count {
        let (path, bytes) = &seeds[chance.below(seeds.len())];
        let (_, other) = &seeds[chance.below(seeds.len())];
        attempt(path, &mutated(bytes, other, &mut chance));
    }
}

#[test]
fn request_heads_are_read_as_a_strict_reader_does() {
    holds("request_head", 2000);
}

#[test]
fn response_heads_are_read_as_a_strict_reader_does() {
    holds("response_head", 2000);
}

#[test]
fn chunked_bodies_end_where_a_strict_reader_says() {
    holds("chunked", 2000);
}

#[test]
fn there_is_one_answer_to_where_a_body_ends() {
    holds("framing", 250);
}

#[test]
fn any_text_is_a_configuration_or_faults() {
    holds("config", 100);
}

#[test]
fn any_bytes_from_both_sides_are_exchanges_that_can_be_told() {
    holds("session", 2000);
}

#[test]
fn pieces_end_with_the_bytes() {
    for length in [0, 1, 5, 700] {
        for cuts in ways_to_cut(b"abc", length) {
            assert!(cuts.is_sorted() && cuts.last().is_none_or(|last| *last == length), "{length}: {cuts:?}");
        }
    }
}
