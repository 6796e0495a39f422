//! The parent: moves processes; one thread; reads nothing off the network.
//!
//! [`start`] opens what can be opened and becomes the master; [`supervisor`] is its loop, `upkeep` what it does
//! in each turn, `stop` how it ends, [`reload`] how one generation takes the place of another; `upgrade` and `succession`
//! are the two sides of one master taking the place of another; `groom` looks after the helper that answers for
//! `StatusListen`. Decided apart, as functions of numbers: [`policy`], [`pulse`], [`shutdown`], [`deaths`], [`backoff`],
//! [`shortage`]. [`control`] is the other side: `-k stop`.

pub mod backoff;
pub mod bequest;
pub mod boards;
pub mod children;
pub mod control;
pub mod deaths;
pub mod detach;
pub mod error;
pub mod generation;
mod groom;
pub mod heritage;
pub mod invocation;
pub mod listeners;
pub mod logs;
pub mod midwife;
pub mod pidfile;
pub mod policy;
pub mod pulse;
pub mod reload;
pub mod resolve;
pub mod resolver;
pub mod shortage;
pub mod shutdown;
pub mod signals;
pub mod spawn;
pub mod start;
pub mod status_doors;
mod stop;
mod succession;
pub mod supervisor;
mod tell;
mod upgrade;
mod upkeep;

pub use error::StartError;
pub use heritage::Heritage;
pub use invocation::Invocation;
pub use reload::Reader;
pub use start::{Startup, run};
