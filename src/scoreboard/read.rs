//! From a file to a [`Snapshot`]: what is read in which order, and what is believed.
//!
//! Plain reads, no mapping: a file that is shorter than it claims is an error and not a SIGBUS, and a hole costs
//! no memory. No index is used unchecked, and no claim of the file makes us read or reserve more than it has.

use crate::clock::Moment;
use crate::ids::{Generation, SlotIndex};
use crate::scoreboard::decode::{MAX_COUNT, Request, count, padded, printable, printable_text, text};
use crate::scoreboard::histogram::{BUCKETS, Histogram};
use crate::scoreboard::layout::{
    BYTE_ORDER, BackendCounters, BackendEntry, BlockPlaces, FLAG_EXTENDED, Header, LAYOUT_VERSION,
    LatencyCounts, MAGIC, MAX_BACKEND_ROWS, ProcessRow, SlotEntry, Totals as TotalsRow, WorkerRow,
};
use crate::scoreboard::life::Life;
use crate::scoreboard::snapshot::{
    Backend, Child, Connections, Groom, Reload, Server, Shown, Snapshot, SnapshotError, Totals, Worker,
};
use crate::scoreboard::state::{Stage, WorkerState};
use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, fence};
use zerocopy::FromBytes;

/// How often a copy that changed while it was made is made again.
pub(super) const TRIES: usize = 8;

/// The most worker rows that a file may claim for all its slots together.
const MAX_ROWS: u64 = 10_000_000;

/// The most slots that a file may claim; twice the largest ServerLimit is 400,000.
const MAX_SLOTS: u32 = 1_000_000;

/// Something that holds the bytes of a scoreboard.
pub(super) trait Source {
    /// How many there are.
    fn length(&self) -> io::Result<u64>;
    /// Fills the buffer from `offset` on, or fails.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        let metadata = self.metadata()?;
        Ok(if metadata.is_file() { metadata.len() } else { 0 })
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

/// What tells the master from others, as the header has it: start in ticks, pid namespace.
pub(super) type Tokens = (u64, u64);

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

/// Reads everything. Whether the server lives is not looked up.
pub(super) fn take(source: &dyn Source) -> Result<(Snapshot, Tokens), SnapshotError> {
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

/// See [`crate::scoreboard::board::BoardReader::vacancies`].
pub(super) fn vacancies(
    source: &dyn Source,
    generation: Generation,
    except: SlotIndex,
) -> Result<u32, SnapshotError> {
    let front = read_front(source)?;
    let mut free = 0u32;
    for slot in (0..front.slots).filter(|slot| *slot != except.0) {
        let at = front.slot_table + u64::from(slot) * size_of::<SlotEntry>() as u64;
        let entry: SlotEntry = read_row(source, at)?;
        if entry.lent.load(Relaxed) == 0 {
            continue;
        }
        let process: ProcessRow = read_row(source, entry.offset.load(Relaxed))?;
        let serves = Stage::from_number(process.stage.load(Relaxed)) == Some(Stage::Ready);
        if serves && process.pid.load(Relaxed) != 0 && process.generation.load(Relaxed) == generation.0 {
            if process.takes.load(Relaxed) != 1 {
                continue;
            }
            let threads = process.threads.load(Relaxed).min(entry.workers.load(Relaxed));
            free = free.saturating_add(threads.saturating_sub(process.busy.load(Relaxed)));
        }
    }
    Ok(free)
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
    if front.slots > MAX_SLOTS {
        return Err(SnapshotError::Inconsistent { what: "the number of slots" });
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
        groom: Some(number(&header.groom_pid))
            .filter(|pid| *pid != 0)
            .map(|pid| Groom { pid, started: Moment(count(&header.groom_started)) }),
        grooms_replaced: number(&header.grooms_replaced),
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
    let (mut rows_so_far, mut bytes_so_far) = (0u64, 0u64);
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
        // Blocks that lie over each other would make a small file cost any amount of memory.
        bytes_so_far = bytes_so_far.saturating_add(entry.length.load(Relaxed));
        if bytes_so_far > front.file_length {
            return Err(SnapshotError::Inconsistent { what: "the length of the slots" });
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
        handed_over: count(&row.handed_over),
        taken_over: count(&row.taken_over),
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
        for (sum, more) in [
            (&mut self.accepted, child.connections.accepted),
            (&mut self.handed_over, child.connections.handed_over),
            (&mut self.taken_over, child.connections.taken_over),
        ] {
            *sum = sum.saturating_add(more);
        }
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
    let counts: LatencyCounts = read_row(source, offset + places.latency)?;
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
            handed_over: count(&connections.handed_over),
            taken_over: count(&connections.taken_over),
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
