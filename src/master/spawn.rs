//! Forking one child: what it is given, what it must not keep, and its first steps.

use crate::clock::Moment;
use crate::config::model::Config;
use crate::ids::{self, ChildPid, SlotIndex};
use crate::master::boards::Boards;
use crate::master::error::cause;
use crate::master::generation::Generation;
use crate::master::invocation::Invocation;
use crate::master::reload::Reader;
use crate::mpm::child::{self, Inheritance};
use crate::orders::Orders;
use crate::scoreboard::board::{BoardError, Ending, Loan};
use crate::sys::process::{self, ChildExit};
use crate::sys::{fd, socket, title};
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// Why there is no new child.
#[derive(Debug)]
pub enum ForkError {
    /// The scoreboard has no room.
    Board(BoardError),
    /// The kernel has none, or is not to be asked.
    System(io::Error),
}

impl fmt::Display for ForkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board(error) => match error.source() {
                Some(source) => write!(f, "{error}: {}", cause(source)),
                None => error.fmt(f),
            },
            Self::System(error) => f.write_str(&cause(error)),
        }
    }
}

impl From<io::Error> for ForkError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// What outlives generations.
#[derive(Debug)]
pub struct Estate {
    /// The scoreboard.
    pub board: Boards,
    /// Whose backends the next child counts.
    pub counted: ids::Generation,
    /// Over which children hand connections over to each other, the receiving end first. One pair for all
    /// generations, so that one can hand over to the next.
    pub hand_over: (OwnedFd, OwnedFd),
    /// The main error log: the current generation's.
    pub log: slog::Logger,
    /// That children cannot start for want of something has been told.
    pub shortage_told: bool,
    /// Standard error is the error log too, and moves with it.
    pub captive_stderr: bool,
    /// Where the configuration is read from; `None` without a file.
    pub config_path: Option<PathBuf>,
    /// How it is read.
    pub reader: Reader,
    /// How the program was started; `None` if that cannot be repeated.
    pub invocation: Option<Invocation>,
}

impl Estate {
    /// Has children that are forked from now on count the backends of `generation`, which is the current one or the
    /// `next`.
    pub fn count_for(&mut self, generation: &Generation, next: bool) {
        let urls = generation.config.backends.iter().map(|backend| backend.url.as_str());
        self.board.lending(next).set_backends(generation.number, urls);
        self.counted = generation.number;
    }

    /// Forks a child of `generation`, which is the current one or the `next`, into `slot`, which must be free.
    ///
    /// # Errors
    /// If the scoreboard or the kernel has no room. Nothing has changed then.
    pub fn fork(
        &mut self,
        generation: &Generation,
        next: bool,
        slot: SlotIndex,
        now: Moment,
    ) -> Result<(ChildPid, Orders), ForkError> {
        is_alone()?;
        let Some(listeners) = &generation.listeners else {
            return Err(io::Error::other("the listeners are closed").into());
        };
        let listeners = listeners.for_child()?;
        let (orders, orders_of_child) = socket::pair()?;
        let config = &generation.config;
        let (receive, send) = &self.hand_over;
        let hand_over = generation.hands_over().then(|| Ok((receive.try_clone()?, send.try_clone()?)));
        let hand_over = hand_over.transpose().map_err(ForkError::System)?;
        let loan = Loan {
            generation: generation.number,
            mpm: config.mpm.name(),
            threads: config.limits.threads_per_child,
            extended: config.extended_status,
            see_request_tail: config.see_request_tail,
        };
        if self.counted != generation.number {
            // The one before may still replace a child while the next comes up.
            self.count_for(generation, next);
        }
        let (block, reader) = self.board.lend(next, slot, &loan, now).map_err(ForkError::Board)?;
        let inheritance = Inheritance {
            config: Arc::clone(config),
            slot,
            generation: generation.number,
            listeners,
            orders: orders_of_child,
            hand_over,
            block,
            board: reader,
            logger: generation.log.clone(),
            logs: generation.logs.for_child(),
            identity: generation.identity.clone(),
            shortage_told: self.shortage_told,
        };
        let mut keep = generation.logs.kept_by_child();
        keep.push(inheritance.board.as_fd().as_raw_fd());
        keep.push(inheritance.orders.as_raw_fd());
        keep.extend(
            inheritance.hand_over.iter().flat_map(|(receive, send)| [receive, send]).map(AsRawFd::as_raw_fd),
        );
        keep.extend(inheritance.listeners.iter().map(|(_, fd, _)| fd.as_raw_fd()));
        let board = &self.board;
        // The master's own is the current generation's log until the next one serves.
        let errors = generation.logs.error_log_apart(config).filter(|_| next && self.captive_stderr);
        let body = move || {
            if let Some(errors) = errors {
                // Two descriptors that are open: nothing can go wrong.
                let _ = fd::redirect_standard_error(errors);
            }
            first_steps(inheritance, board, next)
        };
        match process::spawn_child_keeping(&keep, body) {
            Ok(pid) => {
                self.board.set_pid(next, slot, pid);
                Ok((pid, Orders::new(orders)))
            }
            Err(error) => {
                self.board.take_back(slot, Ending::Clean, now);
                Err(error.into())
            }
        }
    }
}

/// Makes sure that there is no second thread: it might hold a lock at the moment of the fork, and the forked process
/// would wait for that for ever. (Without /proc nobody can tell.)
pub(super) fn is_alone() -> io::Result<()> {
    match process::threads().unwrap_or(1) {
        1 => Ok(()),
        threads => Err(io::Error::other(format!("the master has {threads} threads, which is a bug"))),
    }
}

/// In the child, which has no descriptor any more but those it is given.
fn first_steps(inheritance: Inheritance, board: &Boards, next: bool) -> ChildExit {
    let Inheritance { config, slot, generation, logger, .. } = &inheritance;
    title::set_title(&format!("ostler: {} child, slot {slot}, generation {generation}", config.mpm.name()));
    if let Err(error) = board.protect_others(next, *slot) {
        slog::crit!(logger, "cannot make the rest of the scoreboard read-only: {}", cause(&error));
        return ChildExit::FATAL;
    }
    go_where_cores_go(config, logger);
    child::run(inheritance)
}

/// In a forked process: a core is left in the working directory.
pub(super) fn go_where_cores_go(config: &Config, log: &slog::Logger) {
    if let Some(directory) = &config.core_dump_directory
        && let Err(error) = std::env::set_current_dir(directory)
    {
        let directory = directory.display();
        slog::warn!(log, "CoreDumpDirectory {directory}: {}; a crash leaves no core there", cause(&error));
    }
}
