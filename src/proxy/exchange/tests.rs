//! What exchanges say to both sides: tables, and laws over any split of the bytes.

mod faults;
mod keeping;
mod laws;
mod requests;
mod responses;
mod rig;
mod unseen;
