//! The reader's eye: a scoreboard as checked, plain values.
//!
//! Reads the file with plain reads and never maps it, so a file that is shorter than it claims is an error
//! and not a SIGBUS, and a hole costs no memory. Needs no server: a file that a dead one left reads as well.
//! Every number is clamped or refused, every string made printable, no index is used unchecked.

use crate::clock::Moment;
pub use crate::scoreboard::decode::{Cut, MAX_COUNT, Request};
use crate::scoreboard::decode::{count, padded, printable, printable_text, text};
use crate::scoreboard::histogram::{BUCKETS, Histogram};
use crate::scoreboard::layout::{
    BYTE_ORDER, BackendCounters, BackendEntry, BlockPlaces, FLAG_EXTENDED, Header, LAYOUT_VERSION, MAGIC,
    MAX_BACKEND_ROWS, ProcessRow, SlotEntry, Totals as TotalsRow, WorkerRow,
};
use crate::scoreboard::life::{self, Identity};
pub use crate::scoreboard::life::{Life, Usage};
use crate::scoreboard::state::{Stage, WorkerState};
use std::fmt;
use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, fence};
use zerocopy::FromBytes;

/// How often a copy that changed while it was made is made again.
const TRIES: usize = 8;

/// The most worker rows that a file may claim for all its slots together.
const MAX_ROWS: u64 = 10_000_000;

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

/// A scoreboard at one point in time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the header says.
    pub server: Server,
    /// Whether that server runs.
    pub life: Life,
    /// Processor time of a live server, where `/proc` tells.
    pub usage: Option<Usage>,
    /// The machine's load averages over 1, 5 and 15 minutes, where `/proc` tells.
    pub load: Option<[f64; 3]>,
    /// The slots that have had a child, in order.
    pub children: Vec<Child>,
    /// The backends that have a name, in the order of the table.
    pub backends: Vec<Backend>,
    /// Sums over all children, those that are gone included.
    pub totals: Totals,
    /// Whether the sums are of one moment. False if the master died while it was adding a child up.
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
    /// Of these, without a response.
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
    /// Latencies.
    pub latency: Histogram,
}

/// Something that holds the bytes of a scoreboard.
pub(super) trait Source {
    /// How many there are.
    fn length(&self) -> io::Result<u64>;
    /// Fills the buffer from `offset` on, or fails.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl Source for &[u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let part = start.and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Snapshot {
    /// Reads the file of a running server or of one that is gone, and looks whether it runs.
    pub fn read(path: &Path) -> Result<Self, SnapshotError> {
        let file =
            File::open(path).map_err(|source| SnapshotError::Open { path: path.to_owned(), source })?;
        Self::of_file(&file)
    }

    /// Reads bytes that were a file; whether the server lives is not looked up.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        take(&bytes).map(|(snapshot, _)| snapshot)
    }

    /// Reads an open file, and looks whether its server runs.
    pub(super) fn of_file(file: &File) -> Result<Self, SnapshotError> {
        let (mut snapshot, (start_ticks, pid_namespace)) = take(file)?;
        let server = &snapshot.server;
        snapshot.life = life::look(&Identity {
            pid: server.master_pid,
            start_ticks,
            pid_namespace,
            boot_id: &server.boot_id,
            stopped: server.stopped_wall.is_some(),
        });
        snapshot.load = life::load();
        if snapshot.life == Life::Running {
            let children = snapshot.children.iter().filter(|child| child.is_alive()).map(|child| child.pid);
            snapshot.usage = life::usage(snapshot.server.master_pid, children);
        }
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

/// What tells the master from others, as the header has it: start in ticks, pid namespace.
type Tokens = (u64, u64);

/// A header that has been checked, and the tables' places.
struct Front {
    header: Box<Header>,
    slots: u32,
    backend_rows: u32,
    thread_limit: u32,
    slot_table: u64,
    backend_table: u64,
    totals: u64,
    header_length: u64,
    file_length: u64,
}

fn take(source: &dyn Source) -> Result<(Snapshot, Tokens), SnapshotError> {
    let front = read_front(source)?;
    let (server, names) = read_server(source, &front)?;
    let tokens = (front.header.master_start_ticks.load(Relaxed), front.header.pid_namespace.load(Relaxed));
    let sequence_at = front.totals + offset_of!(TotalsRow, sequence) as u64;
    let mut tries = 0;
    loop {
        tries += 1;
        let before = read_u32(source, sequence_at)?;
        fence(Acquire);
        let (children, backends, totals) = read_counts(source, &front, &names)?;
        fence(Acquire);
        let settled = before.is_multiple_of(2) && before == read_u32(source, sequence_at)?;
        if settled || tries == TRIES {
            let snapshot = Snapshot {
                server,
                life: Life::Unknown,
                usage: None,
                load: None,
                children,
                backends,
                totals,
                settled,
            };
            return Ok((snapshot, tokens));
        }
    }
}

fn read_front(source: &dyn Source) -> Result<Front, SnapshotError> {
    let actual = source.length().map_err(|source| SnapshotError::Read { source })?;
    if actual < size_of::<Header>() as u64 {
        return Err(SnapshotError::NotAScoreboard);
    }
    let header: Box<Header> = Box::new(read_row(source, 0)?);
    if header.magic.load(Relaxed).to_ne_bytes() != MAGIC {
        return Err(SnapshotError::NotAScoreboard);
    }
    match header.byte_order.load(Relaxed) {
        BYTE_ORDER => {}
        other if other == BYTE_ORDER.swap_bytes() => return Err(SnapshotError::ByteOrder),
        _ => return Err(SnapshotError::NotAScoreboard),
    }
    let found = header.layout.load(Relaxed);
    if found != LAYOUT_VERSION {
        return Err(SnapshotError::Layout { found });
    }
    for (field, want) in [
        (&header.slot_entry_size, size_of::<SlotEntry>()),
        (&header.backend_entry_size, size_of::<BackendEntry>()),
        (&header.process_row_size, size_of::<ProcessRow>()),
        (&header.worker_row_size, size_of::<WorkerRow>()),
        (&header.backend_row_size, size_of::<BackendCounters>()),
        (&header.histogram_buckets, BUCKETS),
    ] {
        if field.load(Relaxed) as usize != want {
            return Err(SnapshotError::Inconsistent { what: "the size of a row" });
        }
    }
    let claimed = header.file_length.load(Relaxed);
    if claimed > actual {
        return Err(SnapshotError::Short { claimed, actual });
    }
    let front = Front {
        slots: header.slots.load(Relaxed),
        backend_rows: header.backend_rows.load(Relaxed),
        thread_limit: header.thread_limit.load(Relaxed),
        slot_table: header.slot_table.load(Relaxed),
        backend_table: header.backend_table.load(Relaxed),
        totals: header.totals.load(Relaxed),
        header_length: header.header_length.load(Relaxed),
        file_length: claimed,
        header,
    };
    if front.backend_rows > MAX_BACKEND_ROWS {
        return Err(SnapshotError::Inconsistent { what: "the number of backends" });
    }
    let rows = u64::from(front.backend_rows);
    let slot_bytes = u64::from(front.slots) * size_of::<SlotEntry>() as u64;
    let backend_bytes = rows * size_of::<BackendEntry>() as u64;
    let totals_bytes = size_of::<TotalsRow>() as u64 + rows * size_of::<BackendCounters>() as u64;
    for (start, length) in
        [(front.slot_table, slot_bytes), (front.backend_table, backend_bytes), (front.totals, totals_bytes)]
    {
        // Tables of a board that has grown may lie behind the blocks, but never outside the file.
        if !within(start, length, size_of::<Header>() as u64, claimed) {
            return Err(SnapshotError::Inconsistent { what: "the place of a table" });
        }
    }
    Ok(front)
}

/// Whether `start..start + length` lies in `low..high`.
fn within(start: u64, length: u64, low: u64, high: u64) -> bool {
    start >= low && start.checked_add(length).is_some_and(|end| end <= high)
}

/// Name of each backend row and the generation that last used it.
type Names = Vec<(String, u32)>;

/// The part of the header that changes, and the backend table, copied whole if the master lets us.
fn read_server(source: &dyn Source, front: &Front) -> Result<(Server, Names), SnapshotError> {
    let sequence_at = offset_of!(Header, sequence) as u64;
    let mut tries = 0;
    loop {
        tries += 1;
        let before = read_u32(source, sequence_at)?;
        fence(Acquire);
        let header: Header = read_row(source, 0)?;
        let mut names = Vec::new();
        for row in 0..u64::from(front.backend_rows) {
            let at = front.backend_table + row * size_of::<BackendEntry>() as u64;
            let entry: BackendEntry = read_row(source, at)?;
            let url = text(&entry.url, entry.length.load(Relaxed) as usize);
            names.push((printable(&url), entry.generation.load(Relaxed)));
        }
        fence(Acquire);
        // A master that died in the middle leaves a mixture; it is shown as it is, every value is checked.
        let whole = before.is_multiple_of(2) && before == read_u32(source, sequence_at)?;
        if whole || tries == TRIES {
            return Ok((server_of(&header, front), names));
        }
    }
}

fn server_of(header: &Header, front: &Front) -> Server {
    let number = |field: &AtomicU32| field.load(Relaxed);
    let own = |words, length: &AtomicU32| printable_text(&text(words, number(length) as usize));
    let stopped = header.stopped_wall.load(Relaxed);
    let last_reload = match number(&header.reload_outcome) {
        outcome @ (1 | 2) => Some(Reload {
            done: outcome == 1,
            wall: count(&header.reload_wall),
            text: own(&header.reload_text, &header.reload_text_length),
        }),
        _ => None,
    };
    Server {
        master_pid: number(&header.master_pid),
        started_wall: count(&header.started_wall),
        started: Moment(count(&header.started)),
        boot_id: printable(&padded(&header.boot_id)),
        updated: Moment(count(&header.updated)),
        stopped_wall: (stopped != 0).then_some(stopped.min(MAX_COUNT)),
        generation: number(&header.generation),
        generation_wall: count(&header.generation_wall),
        config_reads: number(&header.config_reads),
        reloads_refused: number(&header.reloads_refused),
        last_reload,
        mpm: printable(&padded(std::slice::from_ref(&header.mpm))),
        version: own(&header.version, &header.version_length),
        server_name: own(&header.server_name, &header.server_name_length),
        config_path: own(&header.config_path, &header.config_path_length),
        listeners: own(&header.listeners, &header.listeners_length),
        extended: number(&header.flags) & FLAG_EXTENDED != 0,
        server_limit: number(&header.server_limit),
        thread_limit: front.thread_limit,
        slots: front.slots,
        max_request_workers: number(&header.max_request_workers),
        threads_per_child: number(&header.threads_per_child),
        min_spare: number(&header.min_spare),
        max_spare: number(&header.max_spare),
        start_servers: number(&header.start_servers),
    }
}

type Counts = (Vec<Child>, Vec<Backend>, Totals);

/// Everything that counts: the totals of children that are gone, and every block.
fn read_counts(source: &dyn Source, front: &Front, names: &Names) -> Result<Counts, SnapshotError> {
    let mut totals = read_totals(source, front)?;
    let mut backends = Vec::with_capacity(names.len());
    let first = front.totals + size_of::<TotalsRow>() as u64;
    for (row, (url, generation)) in (0u32..).zip(names) {
        let mut backend = Backend::named(row, url.clone(), *generation);
        backend.add(source, first + u64::from(row) * size_of::<BackendCounters>() as u64)?;
        backends.push(backend);
    }
    let mut children = Vec::new();
    let mut rows_so_far = 0u64;
    for slot in 0..front.slots {
        let at = front.slot_table + u64::from(slot) * size_of::<SlotEntry>() as u64;
        let entry: SlotEntry = read_row(source, at)?;
        if entry.lent.load(Relaxed) == 0 {
            continue;
        }
        rows_so_far += u64::from(entry.workers.load(Relaxed));
        if rows_so_far > MAX_ROWS {
            return Err(SnapshotError::Inconsistent { what: "the number of workers" });
        }
        let child = read_block(source, front, slot, &entry, &mut backends)?;
        totals.add(&child);
        children.push(child);
    }
    backends.retain(|backend| !backend.url.is_empty());
    // The shared row is only worth showing once somebody shares it.
    let last = front.backend_rows.saturating_sub(1);
    backends.retain(|backend| backend.row != last || backend.requests + backend.connects > 0);
    Ok((children, backends, totals))
}

fn read_totals(source: &dyn Source, front: &Front) -> Result<Totals, SnapshotError> {
    let row: TotalsRow = read_row(source, front.totals)?;
    let mut latency = Histogram::default();
    for (bucket, counter) in row.latency.counts.iter().enumerate() {
        latency.add(bucket, count(counter));
    }
    Ok(Totals {
        requests: count(&row.requests),
        bytes_in: count(&row.bytes_in),
        bytes_out: count(&row.bytes_out),
        duration: count(&row.duration),
        accepted: count(&row.accepted),
        panics: count(&row.panics),
        children_started: count(&row.children_started),
        children_ended: count(&row.children_ended),
        children_failed: count(&row.children_failed),
        latency,
    })
}

impl Totals {
    fn add(&mut self, child: &Child) {
        for worker in &child.workers {
            self.requests = self.requests.saturating_add(worker.requests);
            self.bytes_in = self.bytes_in.saturating_add(worker.bytes_in);
            self.bytes_out = self.bytes_out.saturating_add(worker.bytes_out);
            self.duration = self.duration.saturating_add(worker.duration);
        }
        self.accepted = self.accepted.saturating_add(child.connections.accepted);
        self.panics = self.panics.saturating_add(child.panics);
        self.latency.merge(&child.latency);
    }
}

impl Backend {
    fn named(row: u32, url: String, generation: u32) -> Self {
        Self {
            row,
            url,
            generation,
            requests: 0,
            failures: 0,
            connects: 0,
            reused: 0,
            bytes_out: 0,
            bytes_in: 0,
            duration: 0,
            busy: 0,
            latency: Histogram::default(),
        }
    }

    /// Adds the counters that lie at `offset`.
    fn add(&mut self, source: &dyn Source, offset: u64) -> Result<(), SnapshotError> {
        let row: BackendCounters = read_row(source, offset)?;
        for (sum, counter) in [
            (&mut self.requests, &row.requests),
            (&mut self.failures, &row.failures),
            (&mut self.connects, &row.connects),
            (&mut self.reused, &row.reused),
            (&mut self.bytes_out, &row.bytes_out),
            (&mut self.bytes_in, &row.bytes_in),
            (&mut self.duration, &row.duration),
        ] {
            *sum = sum.saturating_add(count(counter));
        }
        self.busy = self.busy.saturating_add(u64::from(row.busy.load(Relaxed)));
        for (bucket, counter) in row.latency.counts.iter().enumerate() {
            self.latency.add(bucket, count(counter));
        }
        Ok(())
    }
}

fn read_block(
    source: &dyn Source,
    front: &Front,
    slot: u32,
    entry: &SlotEntry,
    backends: &mut [Backend],
) -> Result<Child, SnapshotError> {
    let (offset, length) = (entry.offset.load(Relaxed), entry.length.load(Relaxed));
    let (rows, backend_rows) = (entry.workers.load(Relaxed), entry.backends.load(Relaxed));
    let places = BlockPlaces::of(rows, backend_rows.min(MAX_BACKEND_ROWS));
    if places.end > length || !within(offset, length, front.header_length, front.file_length) {
        return Err(SnapshotError::Inconsistent { what: "the place of a slot" });
    }
    let process: ProcessRow = read_row(source, offset)?;
    let threads = process.threads.load(Relaxed).min(rows);
    let workers = read_workers(source, offset + places.workers, threads)?;
    let mut latency = Histogram::default();
    let counts: crate::scoreboard::layout::LatencyCounts = read_row(source, offset + places.latency)?;
    for (bucket, counter) in counts.counts.iter().enumerate() {
        latency.add(bucket, count(counter));
    }
    for (row, backend) in (0..backend_rows).zip(backends) {
        backend
            .add(source, offset + places.backends + u64::from(row) * size_of::<BackendCounters>() as u64)?;
    }
    let number = |field: &AtomicU32| field.load(Relaxed);
    let connections = &process.connections;
    let ended = count(&process.ended);
    Ok(Child {
        slot,
        pid: number(&process.pid),
        generation: number(&process.generation),
        mpm: printable(&padded(std::slice::from_ref(&process.mpm))),
        stage: Stage::from_number(number(&process.stage)),
        extended: number(&process.flags) & FLAG_EXTENDED != 0,
        started: Moment(count(&process.started)),
        ended: (ended != 0).then_some(Moment(ended)),
        busy: number(&process.busy).min(threads),
        panics: count(&process.panics),
        connections: Connections {
            total: number(&connections.total),
            keep_alive: number(&connections.keep_alive),
            wait_io: number(&connections.wait_io),
            writing: number(&connections.writing),
            closing: number(&connections.closing),
            tunnels: number(&connections.tunnels),
            accepted: count(&connections.accepted),
        },
        workers,
        latency,
    })
}

/// The worker rows that lie at `offset`, each whole or known to be torn.
pub(super) fn read_workers(
    source: &dyn Source,
    offset: u64,
    threads: u32,
) -> Result<Vec<Worker>, SnapshotError> {
    let size = size_of::<WorkerRow>();
    let bytes = threads as usize * size;
    // Three copies of all rows: the first and the last for the sequence counters, which so are read before
    // and after whatever order the kernel copies a row in.
    let mut copies = [vec![0; bytes], vec![0; bytes], vec![0; bytes]];
    for copy in &mut copies {
        fill(source, copy, offset)?;
        fence(Acquire);
    }
    let [before, rows, after] = &copies;
    let mut workers = Vec::with_capacity(threads as usize);
    for index in 0..threads {
        let range = index as usize * size..(index as usize + 1) * size;
        let mut row = row_of(&rows[range.clone()])?;
        let sequence = sequence_of(&before[range.clone()]);
        let mut whole = sequence.is_multiple_of(2) && sequence == sequence_of(&after[range.clone()]);
        for _ in 1..TRIES {
            if whole {
                break;
            }
            (row, whole) = read_worker(source, offset + range.start as u64)?;
        }
        workers.push(worker_of(index, &row, whole));
    }
    Ok(workers)
}

/// One row, and whether it was still while it was copied.
fn read_worker(source: &dyn Source, offset: u64) -> Result<(WorkerRow, bool), SnapshotError> {
    let sequence_at = offset + offset_of!(WorkerRow, sequence) as u64;
    let before = read_u32(source, sequence_at)?;
    fence(Acquire);
    let row: WorkerRow = read_row(source, offset)?;
    fence(Acquire);
    let whole = before.is_multiple_of(2) && before == read_u32(source, sequence_at)?;
    Ok((row, whole))
}

fn sequence_of(row: &[u8]) -> u32 {
    let at = offset_of!(WorkerRow, sequence);
    row.get(at..at + 4).map_or(1, |four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

fn worker_of(index: u32, row: &WorkerRow, whole: bool) -> Worker {
    let request = if whole { Request::of(row).map_or(Shown::Nothing, Shown::Request) } else { Shown::Torn };
    Worker {
        index,
        state: WorkerState::from_byte(row.state.load(Relaxed)),
        tid: row.tid.load(Relaxed),
        requests: count(&row.requests),
        bytes_in: count(&row.bytes_in),
        bytes_out: count(&row.bytes_out),
        duration: count(&row.duration),
        last: count(&row.last),
        ended: Moment(count(&row.ended)),
        backend: row.backend.load(Relaxed).checked_sub(1).filter(|row| *row < MAX_BACKEND_ROWS),
        request,
    }
}

fn fill(source: &dyn Source, buffer: &mut [u8], offset: u64) -> Result<(), SnapshotError> {
    source.fill(buffer, offset).map_err(|source| SnapshotError::Read { source })
}

fn read_u32(source: &dyn Source, offset: u64) -> Result<u32, SnapshotError> {
    let mut bytes = [0; 4];
    fill(source, &mut bytes, offset)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// A structure of the layout as a private copy.
fn read_row<T: FromBytes>(source: &dyn Source, offset: u64) -> Result<T, SnapshotError> {
    let mut bytes = vec![0; size_of::<T>()];
    fill(source, &mut bytes, offset)?;
    row_of(&bytes)
}

fn row_of<T: FromBytes>(bytes: &[u8]) -> Result<T, SnapshotError> {
    T::read_from_bytes(bytes).map_err(|_| SnapshotError::Inconsistent { what: "the size of a row" })
}
