//! The groom: a helper process beside the children. It answers for `StatusListen`, from the scoreboard, so that the
//! status comes when every worker is busy and the sites' backlog is full.
//!
//! Forked by the master as a child is, with orders of its own, but without a slot: it serves none of the sites'
//! clients, holds none of their listeners, and writes to nobody's memory. Its death costs freshness only; the master
//! forks another.
//!
//! | file | its question |
//! |---|---|
//! | `ask` | what does this request want, and may it have it? |
//! | `client` | what does one connection do next? |
//! | `desk` | what is in an answer? |
//! | `clients` | which connections are there, and who goes when one more comes? |
//! | `house` | who is heard, served and waited for, and until when? |

mod ask;
mod client;
mod clients;
mod desk;
mod house;

use crate::config::model::Config;
use crate::log::line::cause;
use crate::scoreboard::board::BoardReader;
use crate::sys::privilege::{self, Identity};
use crate::sys::process::{self, ChildExit};
use slog::{Logger, error};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub use ask::Entrance;
pub use clients::MOST as MOST_CLIENTS;

/// Everything the groom gets from its master, by fork.
pub struct Inheritance {
    /// What to do; never changes.
    pub config: Arc<Config>,
    /// The sockets of `StatusListen`, and what kind of door each is.
    pub doors: Vec<(OwnedFd, Entrance)>,
    /// Our end of the orders socket.
    pub orders: OwnedFd,
    /// The scoreboard, to be read.
    pub board: BoardReader,
    /// The error log.
    pub logger: Logger,
    /// Who to become; `None` where the master is not root.
    pub identity: Option<Identity>,
}

/// Answers until the master says otherwise, or is gone.
#[must_use]
pub fn run(inheritance: Inheritance) -> ChildExit {
    let log = inheritance.logger.new(slog::o!("module" => "status"));
    let served = prepare(&inheritance).and_then(|()| house::serve(inheritance, log.clone()));
    match served {
        Ok(()) => ChildExit::OK,
        Err(fault) => {
            error!(log, "the groom cannot answer for StatusListen: {}; it leaves", cause(&fault));
            if process::is_shortage(&fault) { ChildExit::SICK } else { ChildExit::FATAL }
        }
    }
}

/// Gives up what the master may and the groom need not.
fn prepare(inheritance: &Inheritance) -> io::Result<()> {
    if let Some(identity) = &inheritance.identity {
        privilege::become_identity(identity)?;
        if inheritance.config.core_dump_directory.is_some() {
            // A change of user takes the right to leave a core away.
            privilege::allow_core_dumps()?;
        }
    }
    Ok(())
}
