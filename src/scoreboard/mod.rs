//! The scoreboard: what every worker is doing, in memory that any process can read.
//!
//! One file for the life of a master: a header, then one page-aligned block per slot with the child's own
//! row, a row for each of its workers, a latency histogram and counters per backend. The man page
//! `ostler-scoreboard(5)` documents every byte, and a test holds it to [`layout`].
//!
//! Three hands and no lock: [`board`] is the master's, [`row`] the child's, [`snapshot`] the reader's. Each
//! field has one writer; strings are guarded by sequence counters ([`words`]). What is read is gossip: a
//! broken child may have written anything, so every value is checked before it is believed, and the master
//! takes no index, length or pid from here (invariant 3).

pub mod board;
mod decode;
pub mod facts;
mod file;
pub mod histogram;
pub mod layout;
pub mod life;
mod read;
pub mod row;
mod slot;
pub mod snapshot;
pub mod state;
pub mod sums;
#[cfg(test)]
pub(crate) mod tests;
mod words;
