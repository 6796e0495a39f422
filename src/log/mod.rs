//! Lines, and where they go.
//!
//! [`mod@line`] knows levels, modules and the shape of an error line; [`mod@format`] compiles `LogFormat` and renders
//! it; [`access`] is one host's access logs; [`sink`] owns descriptors and is the only file here that writes;
//! [`stamp`] turns seconds into text.

pub mod access;
mod capture;
mod escape;
pub mod format;
pub mod line;
pub mod sink;
pub mod stamp;

pub use capture::{Capture, RequestFacts};
pub use stamp::prepare;
