//! Whole-daemon tests: the real binary on port 0, in a directory and a process group of its own.
//!
//! A test waits for the daemon's word (a line of its log, a process that appears, bytes on a socket) and never
//! for time to pass; every wait has a bound far above what a busy machine needs. `support` holds the three
//! actors: `Daemon`, the `Backend` behind it and the `Client` before it.

// A test has no clock handed in and must look again until a process of its own has moved.
#![allow(clippy::disallowed_methods)]

#[macro_use]
mod support;

#[path = "../oracles/mod.rs"]
mod oracles;

mod architecture;
mod children;
mod collectors;
mod config;
mod crowd;
mod demo;
mod framing;
mod groom;
mod handover;
mod hostile;
mod hot_path;
mod keepalive;
mod large;
mod laws;
mod limits;
mod logging;
mod man;
mod mixing;
mod page;
mod proxy;
mod reader;
mod reload;
mod robust;
mod signals;
mod size;
mod startup;
mod status;
mod tools;
mod top;
mod totals;
mod transfers;
mod tunnels;
mod upgrade;
mod vectors;
mod vectors_proxy;
mod watch;
