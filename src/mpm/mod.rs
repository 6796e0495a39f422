//! The child: moves bytes.

pub mod child;
pub mod orders;
