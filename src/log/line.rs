//! Levels; the error-log line.

/// `LogLevel`.
#[derive(Clone, Debug)]
pub struct LogLevels {}
