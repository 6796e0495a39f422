//! Apache's configuration language: text in, [`model::Config`] or all faults at once out.

pub mod model;
