//! Ostler, a reverse proxy daemon with Apache's process model: the map of the house.
//!
//! A room uses rooms on lower floors only; neighbours on a floor do not know each other. Read upwards.
//! `p` marks a pure room: no socket, file, clock, random number or thread.
//!
//! | floor | rooms |
//! |---|---|
//! | 7 | `main`, `cli`, `demo`: flags in, exit code out |
//! | 6 | [`master`]: moves processes; one thread; reads nothing off the network |
//! | 5 | [`mpm`]: the child; moves bytes; [`groom`]: the helper beside the children; answers for `StatusListen` |
//! | 5 | [`top`]: the scoreboard as a live view in a terminal |
//! | 4 | [`proxy`] p: what to do with a request; [`status`] p: the scoreboard as a page; [`size`]: what memory the server needs, and which limits fit |
//! | 3 | [`config`] p: text to `Config`, or all its faults at once |
//! | 2 | [`http`] p: bytes to messages and back; [`scoreboard`]: the shared memory; [`log`]: lines and where they go; [`orders`]: what master and children say to each other |
//! | 1 | [`sys`]: the kernel; the only room with libc, rustix and `unsafe` |
//! | 0 | [`ids`], [`clock`], [`buf`] p: numbers with a meaning, bytes on their way out |
//!
//! Invariants, numbered so that comments can cite them:
//!
//! 1. Rooms look down only (`tests/it/architecture.rs` reads every path and says who looks up).
//! 2. The master has one thread and reads no byte off the network.
//! 3. The scoreboard holds no pointer; each row has one writer; the master counts by it, but never indexes
//!    or signals by it.
//! 4. A forked child never returns into the master's code. Its `Config` came by fork and never changes.
//! 5. A reload touches nothing until the whole new configuration has been read, checked and bound.
//! 6. Bytes off the network never panic: they earn a status and a close. A bug's panic costs one connection,
//!    is logged and counted; panics unwind in every profile and poisoned locks are recovered.
//! 7. Signals arrive as a readable descriptor, or (a prefork child's orders) as a flag; no code of ours runs in
//!    signal context. Every descriptor is born CLOEXEC.
//! 8. Readiness is said, not slept for: the daemon writes its bound addresses once it serves.
//! 9. EPOLL_CTL_DEL comes before close or sendmsg of any descriptor that another process may hold.

pub mod buf;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod groom;
pub mod http;
pub mod ids;
pub mod log;
pub mod master;
pub mod mpm;
pub mod orders;
pub mod proxy;
pub mod scoreboard;
pub mod size;
pub mod status;
#[allow(unsafe_code)]
pub mod sys;
pub mod top;
