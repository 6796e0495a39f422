//! `ostler demo`: the proxy, in front of a small origin server of its own.

pub mod origin;
