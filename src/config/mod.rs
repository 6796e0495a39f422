//! Apache's configuration language: text in, [`model::Config`] or all faults at once out.
//!
//! `lexer` finds words, `parser` follows includes and conditions, `check` judges every word by the table in
//! `directives` and builds the `Config`; `load` is the way in and the only file that opens files. What there is
//! to say is collected by `diagnostic`, so that one reading tells all.

mod backend;
mod check;
pub mod diagnostic;
pub mod directives;
pub mod files;
mod foreign;
mod host;
mod lexer;
mod load;
mod location;
pub mod model;
mod modules;
mod parser;
pub mod pattern;
mod sizing;
mod summary;
mod values;

pub use diagnostic::{Diagnostic, Faults, Severity};
pub use load::{Loaded, Options, from_text, load, one_liner, read};
pub use modules::built_in as built_in_modules;
pub use sizing::bounds;
pub use summary::{Listed, effective, listing};
pub use values::size as read_size;

#[cfg(test)]
mod tests;
