//! The child: moves bytes.

pub mod orders;
