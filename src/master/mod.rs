//! The parent: moves processes; one thread; reads nothing off the network.

pub mod backoff;
pub mod policy;
pub mod pulse;
pub mod shutdown;
pub mod signals;
