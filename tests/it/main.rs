//! The one binary of tests that look at Ostler from outside: at its source, its pages and its behaviour.

mod architecture;
mod man;
