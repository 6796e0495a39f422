//! The parent: moves processes; one thread; reads nothing off the network.

pub mod backoff;
pub mod children;
pub mod deaths;
pub mod error;
pub mod generation;
pub mod listeners;
pub mod logs;
pub mod pidfile;
pub mod policy;
pub mod pulse;
pub mod resolve;
pub mod shutdown;
pub mod signals;
