//! `LogFormat`, compiled once.

/// A compiled format.
#[derive(Clone, Debug)]
pub struct LogFormat {}
