//! Lines, and where they go.

pub mod format;
pub mod line;
