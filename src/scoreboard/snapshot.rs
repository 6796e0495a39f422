//! A scoreboard as checked, plain values: what a reader is given.
//!
//! Needs no server: a file that a dead one left reads as well, and so does its `.prev`. Every number has been
//! clamped or refused, every string made printable. How it is read is [`read`](super::read)'s business.

use crate::clock::Moment;
pub use crate::scoreboard::decode::{Cut, MAX_COUNT, Request};
use crate::scoreboard::histogram::Histogram;
use crate::scoreboard::layout::LAYOUT_VERSION;
use crate::scoreboard::life::{self, Identity};
pub use crate::scoreboard::life::{Life, Usage};
use crate::scoreboard::read::{Source, TRIES, take};
use crate::scoreboard::state::{Stage, WorkerState};
use crate::sys::poll::{self, Wish};
use nix::fcntl::OFlag;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a file could not be read as a scoreboard.
#[derive(Debug)]
pub enum SnapshotError {
    /// It can't be opened.
    Open {
        /// Its name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can't be read.
    Read {
        /// Why.
        source: io::Error,
    },
    /// It does not begin like one.
    NotAScoreboard,
    /// It was written on a machine of the other byte order.
    ByteOrder,
    /// It has another layout than this program knows.
    Layout {
        /// The one it has.
        found: u32,
    },
    /// It ends before what it says it holds.
    Short {
        /// Bytes it claims.
        claimed: u64,
        /// Bytes there are.
        actual: u64,
    },
    /// What it says of itself can't be.
    Inconsistent {
        /// What can't be.
        what: &'static str,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, .. } => write!(f, "cannot open the scoreboard {}", path.display()),
            Self::Read { .. } => write!(f, "cannot read the scoreboard"),
            Self::NotAScoreboard => write!(f, "not a scoreboard of ours"),
            Self::ByteOrder => write!(f, "a scoreboard from a machine of the other byte order"),
            Self::Layout { found } => {
                write!(f, "a scoreboard of layout {found}; this program reads layout {LAYOUT_VERSION}")
            }
            Self::Short { claimed, actual } => {
                write!(f, "the scoreboard claims {claimed} bytes and has {actual}")
            }
            Self::Inconsistent { what } => write!(f, "the scoreboard contradicts itself: {what}"),
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { source, .. } | Self::Read { source } => Some(source),
            _ => None,
        }
    }
}

/// How often, and how far apart, one who may wait looks anew for sums of one moment: some 50 ms in all, and the master
/// needs far less for a child. More would keep whoever asks of a file whose writer died in another container.
const PAUSES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(5);

/// Who reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reader {
    /// A process that the master has forked. It has others to serve, and never waits.
    Child,
    /// Anybody else, by the file's name: may wait a moment for sums that are of one.
    Stranger,
}

/// A scoreboard at one point in time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the header says.
    pub server: Server,
    /// Whether that server runs.
    pub life: Life,
    /// Processor time of a live server, where `/proc` tells of all its processes.
    pub usage: Option<Usage>,
    /// The machine's load averages over 1, 5 and 15 minutes, where `/proc` tells.
    pub load: Option<[f64; 3]>,
    /// The slots that have had a child, in order.
    pub children: Vec<Child>,
    /// The backends that have a name, in the order of the table.
    pub backends: Vec<Backend>,
    /// Sums over all children, those that are gone included.
    pub totals: Totals,
    /// Whether the sums are of one moment. False if the master was adding children up all the while, or died while it
    /// was.
    pub settled: bool,
}

/// The master and the configuration in force.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// The master.
    pub master_pid: u32,
    /// When it started, in microseconds since 1970.
    pub started_wall: u64,
    /// When it started, on the clock of all other moments.
    pub started: Moment,
    /// The boot it ran under.
    pub boot_id: String,
    /// When it last wrote to the header.
    pub updated: Moment,
    /// When it stopped in good order, in microseconds since 1970.
    pub stopped_wall: Option<u64>,
    /// The generation that new children belong to.
    pub generation: u32,
    /// When that generation began, in microseconds since 1970.
    pub generation_wall: u64,
    /// Configurations read successfully, the first included.
    pub config_reads: u32,
    /// Reloads refused.
    pub reloads_refused: u32,
    /// The last reload.
    pub last_reload: Option<Reload>,
    /// `event`, `worker` or `prefork`.
    pub mpm: String,
    /// Name and version.
    pub version: String,
    /// `ServerName`.
    pub server_name: String,
    /// The configuration file; empty if there is none.
    pub config_path: String,
    /// The bound addresses, a blank between them.
    pub listeners: String,
    /// The groom, which answers for `StatusListen`.
    pub groom: Option<Groom>,
    /// How often a groom died and was replaced.
    pub grooms_replaced: u32,
    /// Whether rows tell of requests.
    pub extended: bool,
    /// `ServerLimit`.
    pub server_limit: u32,
    /// `ThreadLimit`.
    pub thread_limit: u32,
    /// Slots of the board.
    pub slots: u32,
    /// `MaxRequestWorkers`.
    pub max_request_workers: u32,
    /// `ThreadsPerChild`.
    pub threads_per_child: u32,
    /// `MinSpareThreads` or `MinSpareServers`, in workers.
    pub min_spare: u32,
    /// `MaxSpareThreads` or `MaxSpareServers`, in workers.
    pub max_spare: u32,
    /// `StartServers`.
    pub start_servers: u32,
}

/// The helper process that answers for `StatusListen`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Groom {
    /// Its number. For showing only.
    pub pid: u32,
    /// When it was forked.
    pub started: Moment,
}

/// How the last reload went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reload {
    /// Whether the new configuration came into force.
    pub done: bool,
    /// When, in microseconds since 1970.
    pub wall: u64,
    /// What it said.
    pub text: String,
}

/// A slot and the child that has it or had it last.
#[derive(Clone, Debug)]
pub struct Child {
    /// The slot.
    pub slot: u32,
    /// The child's number; 0 once it is gone. For showing only.
    pub pid: u32,
    /// Its generation.
    pub generation: u32,
    /// Its driver.
    pub mpm: String,
    /// Where it is in its life; `None` if the row makes no sense.
    pub stage: Option<Stage>,
    /// Whether its rows tell of requests.
    pub extended: bool,
    /// When it was forked.
    pub started: Moment,
    /// When it ended; `None` while it lives.
    pub ended: Option<Moment>,
    /// Worker rows it says it holds, at most all.
    pub busy: u32,
    /// Panics caught.
    pub panics: u64,
    /// Its connections.
    pub connections: Connections,
    /// Its worker rows: `ThreadsPerChild` of them.
    pub workers: Vec<Worker>,
    /// Latencies of its requests.
    pub latency: Histogram,
}

impl Child {
    /// Whether a child is there, as far as the row tells.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.stage.is_some_and(|stage| stage != Stage::Free) && self.ended.is_none()
    }

    /// Whether it finishes what it has and takes nothing new.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        matches!(self.stage, Some(Stage::Quiescing | Stage::Gone))
    }
}

/// A child's connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Connections {
    /// Open now.
    pub total: u32,
    /// Idle between requests.
    pub keep_alive: u32,
    /// A head is coming in, or a request waits for a worker.
    pub wait_io: u32,
    /// A response is being sent without a worker.
    pub writing: u32,
    /// Lingering.
    pub closing: u32,
    /// Tunnels without a worker.
    pub tunnels: u32,
    /// Accepted so far.
    pub accepted: u64,
    /// Handed over to other children so far.
    pub handed_over: u64,
    /// Taken over from other children so far.
    pub taken_over: u64,
}

/// One worker row.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its number within the slot.
    pub index: u32,
    /// What it does; `None` if the byte makes no sense, which counts as dead.
    pub state: Option<WorkerState>,
    /// The thread that holds it.
    pub tid: u32,
    /// Requests finished.
    pub requests: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Sum of durations, microseconds.
    pub duration: u64,
    /// Duration of the last finished request, microseconds.
    pub last: u64,
    /// When the last request ended; zero: none yet.
    pub ended: Moment,
    /// Row of the backend table.
    pub backend: Option<u32>,
    /// The request it serves or served last.
    pub request: Shown,
}

/// What a row tells of its request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shown {
    /// None yet, or `ExtendedStatus` is off.
    Nothing,
    /// It changed each time it was looked at, or its writer died while writing.
    Torn,
    /// This.
    Request(Request),
}

impl Worker {
    /// The state's letter; `?` for one that makes no sense.
    #[must_use]
    pub fn letter(&self) -> char {
        self.state.map_or('?', WorkerState::letter)
    }

    /// Whether the row is held.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.state.is_some_and(WorkerState::is_busy)
    }

    /// The request, if it is known.
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        match &self.request {
            Shown::Request(request) => Some(request),
            Shown::Nothing | Shown::Torn => None,
        }
    }
}

/// A row of the backend table, with sums over all children.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The row.
    pub row: u32,
    /// Whom it stands for.
    pub url: String,
    /// The last generation that named it.
    pub generation: u32,
    /// Requests sent.
    pub requests: u64,
    /// Attempts that brought no response, connects that failed included.
    pub failures: u64,
    /// Connections made.
    pub connects: u64,
    /// Requests over a used connection.
    pub reused: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Sum of response times, microseconds.
    pub duration: u64,
    /// Requests on their way now.
    pub busy: u64,
    /// Response times.
    pub latency: Histogram,
}

/// Sums since the server started.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Requests finished.
    pub requests: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Sum of durations, microseconds.
    pub duration: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Panics caught.
    pub panics: u64,
    /// Children forked.
    pub children_started: u64,
    /// Children ended.
    pub children_ended: u64,
    /// Of these, by a fault.
    pub children_failed: u64,
    /// Connections that a child handed over to another.
    pub handed_over: u64,
    /// Connections that a child took over from another; the difference are on their way, or lost with a child.
    pub taken_over: u64,
    /// Latencies.
    pub latency: Histogram,
}

impl Snapshot {
    /// Reads the file of a running server or of one that is gone, and looks whether it runs.
    pub fn read(path: &Path) -> Result<Self, SnapshotError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let file = Self::open(path)?;
            let snapshot = Self::of_file(&file, Reader::Stranger)?;
            // A board that lost its name meanwhile may tell of more than its heir knows yet.
            let (read, named) = (file.metadata(), std::fs::metadata(path));
            let is_it = read.is_ok_and(|read| {
                named.is_ok_and(|named| (named.dev(), named.ino()) == (read.dev(), read.ino()))
            });
            if is_it || tries == TRIES {
                return Ok(snapshot);
            }
        }
    }

    fn open(path: &Path) -> Result<File, SnapshotError> {
        // A pipe under that name must not keep us waiting; for a file the flag means nothing.
        OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(|source| SnapshotError::Open { path: path.to_owned(), source })
    }

    /// Reads bytes that were a file; whether the server lives is not looked up.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        take(&bytes).map(|(snapshot, _)| snapshot)
    }

    /// Reads an open file, and looks whether its server runs.
    pub(super) fn of_file(file: &File, reader: Reader) -> Result<Self, SnapshotError> {
        // Nothing is waited for but the time, which may end early.
        let pause = || drop(poll::wait::<Wish<'_>>(&[], Some(PAUSE), &mut []));
        let mut snapshot = Self::settle(file, reader, pause)?;
        snapshot.load = life::load();
        if snapshot.life == Life::Running {
            let children = snapshot.children.iter().filter(|child| child.is_alive()).map(|child| child.pid);
            snapshot.usage = life::usage(snapshot.server.master_pid, children);
        }
        Ok(snapshot)
    }

    /// Looks until the sums are of one moment, as far as it makes sense to and the reader has the time.
    pub(super) fn settle(
        source: &dyn Source,
        reader: Reader,
        mut pause: impl FnMut(),
    ) -> Result<Self, SnapshotError> {
        let mut pauses = 0;
        loop {
            let snapshot = Self::look(source, reader)?;
            let may_settle = matches!(snapshot.life, Life::Running | Life::Unknown);
            if snapshot.settled || !may_settle || reader == Reader::Child || pauses == PAUSES {
                return Ok(snapshot);
            }
            pauses += 1;
            pause();
        }
    }

    /// Reads all, and looks whether the server runs.
    fn look(source: &dyn Source, reader: Reader) -> Result<Self, SnapshotError> {
        let (mut snapshot, (start_ticks, pid_namespace)) = take(source)?;
        let server = &snapshot.server;
        let master = Identity {
            pid: server.master_pid,
            start_ticks,
            pid_namespace,
            boot_id: &server.boot_id,
            stopped: server.stopped_wall.is_some(),
        };
        snapshot.life = match reader {
            Reader::Child => life::look_up(&master),
            Reader::Stranger => life::look(&master),
        };
        Ok(snapshot)
    }

    /// The last sign of life in the file: the last thing that any row or the header tells of.
    #[must_use]
    pub fn last_sign(&self) -> Moment {
        let rows = self.children.iter().flat_map(|child| {
            let workers = child.workers.iter().flat_map(|worker| {
                [worker.ended, Moment(worker.request().map_or(0, |request| request.started))]
            });
            workers.chain([child.started, child.ended.unwrap_or_default()])
        });
        rows.chain([self.server.updated]).max().unwrap_or_default()
    }

    /// A moment of the server's monotonic clock in microseconds since 1970.
    #[must_use]
    pub fn wall_of(&self, moment: Moment) -> u64 {
        let since = moment.0.saturating_sub(self.server.started.0);
        self.server.started_wall.saturating_add(since)
    }
}
