//! The master's hand: creates the scoreboard, lends a slot to a child before the fork, takes it back after
//! the child's end.
//!
//! The master's own knowledge (which slots are lent, to how many threads, where each block lies) is kept in
//! private memory; of what children write it reads numbers only, clamped, and text only to show it.

use crate::clock::Moment;
use crate::ids::{Generation, SlotIndex};
use crate::scoreboard::facts::Facts;
use crate::scoreboard::file;
pub use crate::scoreboard::layout::Shape;
use crate::scoreboard::layout::{
    BYTE_ORDER, BackendCounters, BackendEntry, BlockPlaces, FLAG_EXTENDED, FLAG_TAIL, Header, LAYOUT_VERSION,
    MAGIC, Places, ProcessRow, SlotEntry, Totals, URL_BYTES, WorkerRow,
};
use crate::scoreboard::row::ChildBlock;
use crate::scoreboard::slot::Slot;
use crate::scoreboard::snapshot::{Reader, Snapshot, SnapshotError, Worker};
use crate::scoreboard::state::Stage;
use crate::scoreboard::sums::{add, drain, drain_all, drain_backend};
use crate::scoreboard::words::{set_text, store_bytes, word, write_under};
use crate::scoreboard::{life, read};
use crate::sys::shm::{self, SharedMap};
use std::fmt;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use zerocopy::FromBytes;

/// Why there is no scoreboard, or no room in it.
#[derive(Debug)]
pub enum BoardError {
    /// The file can't be made.
    Create {
        /// Its name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No memory for it, or no room on its file system.
    Room {
        /// Bytes that were asked for.
        bytes: u64,
        /// Why.
        source: io::Error,
    },
    /// The board has no such slot or not so many rows in one.
    Shape {
        /// The slot that was asked for.
        slot: SlotIndex,
        /// The threads it was asked for.
        threads: u32,
    },
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { path, .. } => write!(f, "cannot create the scoreboard file {}", path.display()),
            Self::Room { bytes, .. } => write!(f, "no room for {bytes} bytes of scoreboard"),
            Self::Shape { slot, threads } => {
                write!(f, "the scoreboard has no slot {slot} with {threads} workers")
            }
        }
    }
}

impl std::error::Error for BoardError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Create { source, .. } | Self::Room { source, .. } => Some(source),
            Self::Shape { .. } => None,
        }
    }
}

/// Who makes the board, and when.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// The master's pid.
    pub pid: u32,
    /// Now, on the monotonic clock.
    pub now: Moment,
    /// Now, in microseconds since 1970.
    pub wall_micros: u64,
}

/// What a child is when its slot is lent.
#[derive(Clone, Copy, Debug)]
pub struct Loan<'a> {
    /// Its generation.
    pub generation: Generation,
    /// Its driver's name.
    pub mpm: &'a str,
    /// `ThreadsPerChild`, at most the board's `thread_limit`.
    pub threads: u32,
    /// `ExtendedStatus`.
    pub extended: bool,
    /// `SeeRequestTail`.
    pub see_request_tail: bool,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// It left, or was told to.
    Clean,
    /// It died of a fault.
    Fault,
}

/// The scoreboard, as the master has it.
pub struct Board {
    /// Not for children, where nobody may grow or rewrite the file.
    writer: File,
    reader: BoardReader,
    map: SharedMap,
    shape: Shape,
    pub(super) header: &'static Header,
    slot_table: &'static [SlotEntry],
    backend_table: &'static [BackendEntry],
    pub(super) totals: &'static Totals,
    pub(super) backend_totals: &'static [BackendCounters],
    pub(super) slots: Vec<Slot>,
    /// The process rows of all slots, for children to look at their siblings'.
    processes: Arc<[&'static ProcessRow]>,
    /// Urls that have a row, by row.
    pub(super) urls: Vec<String>,
    /// The current generation's backends to rows.
    backend_rows: Arc<[u32]>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// An open scoreboard to take snapshots of, for processes that the master has forked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BoardReader(Arc<File>);

impl BoardReader {
    /// The board as it is now. Costs a few system calls per child and no lock.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        Snapshot::of_file(&self.0, Reader::Child)
    }

    /// Worker rows that are free now in the children of `generation` that serve, but for the one in `except`. To go
    /// by, not to trust: they may be taken a moment later. Costs two system calls per child and no lock.
    pub fn vacancies(&self, generation: Generation, except: SlotIndex) -> Result<u32, SnapshotError> {
        read::vacancies(&*self.0, generation, except)
    }
}

impl AsFd for BoardReader {
    /// The descriptor, which can only read: for the list of those that a child keeps.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Board {
    /// Makes a new scoreboard: a file of a new inode under `path`, whose predecessor is kept as `PATH.prev`, or
    /// unnamed memory. Call it in the process that will be the master to the end, before its first fork.
    pub fn create(
        path: Option<&Path>,
        shape: &Shape,
        birth: &Birth,
        facts: &Facts<'_>,
    ) -> Result<Self, BoardError> {
        let board = Self::prepare(path, shape, birth, facts)?;
        if let Some(path) = path {
            let named = |source| BoardError::Create { path: path.to_owned(), source };
            Self::publish(path).map_err(named).inspect_err(|_| Self::abandon(path))?;
        }
        Ok(board)
    }

    /// As [`Board::create`], but without the name: [`Board::publish`] gives it, [`Board::abandon`] does without.
    pub fn prepare(
        path: Option<&Path>,
        shape: &Shape,
        birth: &Birth,
        facts: &Facts<'_>,
    ) -> Result<Self, BoardError> {
        let board = match path {
            None => {
                let named = |source| BoardError::Create { path: PathBuf::from("(memory)"), source };
                let file = shm::memory_file("ostler-scoreboard").map_err(named)?;
                // A descriptor that can't write for the children; without /proc they share ours.
                let reader = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
                    .or_else(|_| file.try_clone())
                    .map_err(named)?;
                let board = Self::fill(file, reader, shape, birth, facts)?;
                shm::fix_length(&board.writer).map_err(named)?;
                board
            }
            Some(path) => {
                let named = |source| BoardError::Create { path: path.to_owned(), source };
                let file = file::create(path).map_err(named)?;
                let made = file::reopen(path)
                    .map_err(named)
                    .and_then(|reader| Self::fill(file, reader, shape, birth, facts));
                made.inspect_err(|_| file::abandon(path))?
            }
        };
        Ok(board)
    }

    /// Where the one before lies that had the name `path`, if there was one.
    #[must_use]
    pub fn previous(path: &Path) -> PathBuf {
        file::previous(path)
    }

    /// Gives the board that was prepared for `path` its name.
    pub fn publish(path: &Path) -> io::Result<()> {
        file::publish(path)
    }

    /// The board that was prepared for `path` will not get that name.
    pub fn abandon(path: &Path) {
        file::abandon(path);
    }

    /// Gives an empty file its size, maps it, cuts the mapping into rows and writes the header.
    fn fill(
        file: File,
        reader: File,
        shape: &Shape,
        birth: &Birth,
        facts: &Facts<'_>,
    ) -> Result<Self, BoardError> {
        let page = shm::page_size();
        let places = Places::of(shape, page as u64);
        let no_room = |source| BoardError::Room { bytes: places.file_length, source };
        let total = usize::try_from(places.file_length)
            .map_err(|_| no_room(io::Error::from(io::ErrorKind::OutOfMemory)))?;
        shm::reserve(&file, 0..places.header_length).map_err(no_room)?;
        file.set_len(places.file_length).map_err(no_room)?;
        let (map, bytes) = SharedMap::new(&file, total).map_err(no_room)?;

        let (front, blocks) = bytes.split_at_mut(places.header_length as usize);
        let (header, rest) = front.split_at_mut(size_of::<Header>());
        let (slot_table, rest) = rest.split_at_mut((places.backend_table - places.slot_table) as usize);
        let (backend_table, rest) = rest.split_at_mut((places.totals - places.backend_table) as usize);
        let (totals, rest) = rest.split_at_mut(size_of::<Totals>());
        let (backend_totals, _) =
            rest.split_at_mut(shape.backend_rows as usize * size_of::<BackendCounters>());
        let slot_bytes = shape.slots() as usize * size_of::<SlotEntry>();
        let mut slots = Vec::with_capacity(shape.slots() as usize);
        for (index, block) in blocks.chunks_exact_mut(places.block_length as usize).enumerate() {
            let start = places.header_length as usize + index * places.block_length as usize;
            slots.push(Slot::cut(block, start, shape));
        }
        let board = Self {
            writer: file,
            reader: BoardReader(Arc::new(reader)),
            map,
            shape: *shape,
            header: one(header),
            slot_table: many(&mut slot_table[..slot_bytes]),
            backend_table: many(backend_table),
            totals: one(totals),
            backend_totals: many(backend_totals),
            processes: slots.iter().map(|slot| slot.process).collect(),
            slots,
            urls: Vec::new(),
            backend_rows: Arc::from([]),
        };
        board.write_shape(&places, page);
        board.write_birth(birth);
        board.header.config_reads.store(1, Relaxed);
        board.set_facts(facts, birth.now);
        // Last, so that whatever has the magic has a header.
        board.header.magic.store(u64::from_ne_bytes(MAGIC), Release);
        Ok(board)
    }

    fn write_shape(&self, places: &Places, page: usize) {
        let header = self.header;
        let size = |size: usize| u32::try_from(size).expect("a row is smaller than 4 GiB");
        for (field, value) in [
            (&header.layout, LAYOUT_VERSION),
            (&header.byte_order, BYTE_ORDER),
            (&header.page_size, size(page)),
            (&header.server_limit, self.shape.server_limit),
            (&header.thread_limit, self.shape.thread_limit),
            (&header.slots, self.shape.slots()),
            (&header.backend_rows, self.shape.backend_rows),
            (&header.slot_entry_size, size(size_of::<SlotEntry>())),
            (&header.backend_entry_size, size(size_of::<BackendEntry>())),
            (&header.process_row_size, size(size_of::<ProcessRow>())),
            (&header.worker_row_size, size(size_of::<WorkerRow>())),
            (&header.backend_row_size, size(size_of::<BackendCounters>())),
            (&header.histogram_buckets, size(crate::scoreboard::histogram::BUCKETS)),
        ] {
            field.store(value, Relaxed);
        }
        for (field, value) in [
            (&header.header_length, places.header_length),
            (&header.file_length, places.file_length),
            (&header.slot_table, places.slot_table),
            (&header.backend_table, places.backend_table),
            (&header.totals, places.totals),
        ] {
            field.store(value, Relaxed);
        }
        for (entry, slot) in self.slot_table.iter().zip(&self.slots) {
            entry.offset.store(slot.range.start as u64, Relaxed);
            entry.length.store(slot.range.len() as u64, Relaxed);
            entry.workers.store(self.shape.thread_limit, Relaxed);
            entry.backends.store(self.shape.backend_rows, Relaxed);
        }
        if let Some(others) = self.backend_table.last() {
            set_text(&others.length, &others.url, b"(others)");
        }
    }

    fn write_birth(&self, birth: &Birth) {
        let header = self.header;
        header.master_pid.store(birth.pid, Relaxed);
        header.master_start_ticks.store(life::start_ticks(birth.pid).unwrap_or(0), Relaxed);
        header.pid_namespace.store(life::pid_namespace().unwrap_or(0), Relaxed);
        header.started_wall.store(birth.wall_micros, Relaxed);
        header.started.store(birth.now.0, Relaxed);
        store_bytes(&header.boot_id, life::boot_id().unwrap_or_default().as_bytes());
    }

    /// Gives each backend of a generation a row, by its url: the one that an earlier generation gave it, a free
    /// one, or the last one, which all share that find none. Children lent slots from now on count by this.
    pub fn set_backends<'a>(&mut self, generation: Generation, urls: impl IntoIterator<Item = &'a str>) {
        let others = self.shape.backend_rows.saturating_sub(1);
        let mut rows = Vec::new();
        let header = self.header;
        write_under(&header.sequence, || {
            for url in urls {
                let known = self.urls.iter().position(|known| known == url);
                let row = known.unwrap_or_else(|| {
                    if self.urls.len() < others as usize {
                        self.urls.push(url.to_owned());
                        self.urls.len() - 1
                    } else {
                        others as usize
                    }
                });
                let row = row.min(others as usize);
                let entry = &self.backend_table[row];
                if row != others as usize {
                    set_text(&entry.length, &entry.url, &url.as_bytes()[..url.len().min(URL_BYTES)]);
                }
                entry.generation.store(generation.0, Relaxed);
                rows.push(row as u32);
            }
        });
        self.backend_rows = Arc::from(rows);
    }

    /// Readies a slot for a child that is about to be forked, and gives that child's hand on it: reserves its
    /// room, wipes it, writes the master's half of the process row. The pid follows by [`Board::set_pid`].
    pub fn lend(&mut self, slot: SlotIndex, loan: &Loan<'_>, now: Moment) -> Result<ChildBlock, BoardError> {
        let (Some(place), Some(entry)) =
            (self.slots.get_mut(slot.index()), self.slot_table.get(slot.index()))
        else {
            return Err(BoardError::Shape { slot, threads: loan.threads });
        };
        let Some(workers) = place.workers.get(..loan.threads as usize) else {
            return Err(BoardError::Shape { slot, threads: loan.threads });
        };
        if !place.reserved {
            let range = place.range.start as u64..place.range.end as u64;
            shm::reserve(&self.writer, range)
                .map_err(|source| BoardError::Room { bytes: place.range.len() as u64, source })?;
            place.reserved = true;
        }
        place.wipe();
        let flags =
            if loan.extended { FLAG_EXTENDED } else { 0 } | if loan.see_request_tail { FLAG_TAIL } else { 0 };
        let process = place.process;
        process.generation.store(loan.generation.0, Relaxed);
        process.threads.store(loan.threads, Relaxed);
        process.flags.store(flags, Relaxed);
        process.mpm.store(word(loan.mpm), Relaxed);
        process.started.store(now.0, Relaxed);
        process.stage.store(Stage::Starting as u32, Relaxed);
        entry.lent.store(entry.lent.load(Relaxed).saturating_add(1), Release);
        add(&self.totals.children_started, 1);
        self.header.updated.store(now.0, Relaxed);
        place.lent = Some(loan.threads);
        let block = ChildBlock {
            process,
            workers,
            latency: place.latency,
            backends: place.backends,
            backend_rows: Arc::clone(&self.backend_rows),
            children: &self.header.children,
            processes: Arc::clone(&self.processes),
            own: slot,
            flags,
        };
        self.count_children();
        Ok(block)
    }

    /// The child in `slot` has been forked and this is its number.
    pub fn set_pid(&self, slot: SlotIndex, pid: crate::ids::ChildPid) {
        if let Some(place) = self.slots.get(slot.index()) {
            place.process.pid.store(pid.as_raw().unsigned_abs(), Relaxed);
        }
    }

    /// The child in `slot` has ended: adds what it counted to the totals, and frees the slot. What its rows
    /// last said stays readable until the slot is lent again. Ask [`Board::post_mortem`] before.
    pub fn take_back(&mut self, slot: SlotIndex, ending: Ending, now: Moment) {
        let Some(place) = self.slots.get_mut(slot.index()) else { return };
        let Some(_) = place.lent.take() else { return };
        let totals = self.totals;
        write_under(&totals.sequence, || {
            for row in place.workers {
                drain(&row.requests, &totals.requests);
                drain(&row.bytes_in, &totals.bytes_in);
                drain(&row.bytes_out, &totals.bytes_out);
                drain(&row.duration, &totals.duration);
            }
            drain(&place.process.panics, &totals.panics);
            let connections = &place.process.connections;
            drain(&connections.accepted, &totals.accepted);
            drain(&connections.handed_over, &totals.handed_over);
            drain(&connections.taken_over, &totals.taken_over);
            drain_all(&place.latency.counts, &totals.latency.counts);
            for (mine, sum) in place.backends.iter().zip(self.backend_totals) {
                drain_backend(mine, sum);
            }
            place.rest(now);
            add(&totals.children_ended, 1);
            if ending == Ending::Fault {
                add(&totals.children_failed, 1);
            }
        });
        self.count_children();
        self.header.updated.store(now.0, Relaxed);
    }

    fn count_children(&self) {
        let lent = self.slots.iter().filter(|slot| slot.lent.is_some()).count();
        self.header.children.store(u32::try_from(lent).unwrap_or(u32::MAX), Relaxed);
    }

    /// In a child, right after the fork: everything but its own block becomes read-only. Of the board's two
    /// descriptors a child may keep the reader's only ([`BoardReader::as_fd`]); the other can write.
    pub fn protect_others(&self, slot: SlotIndex) -> io::Result<()> {
        let Some(own) = self.slots.get(slot.index()).map(|place| place.range.clone()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let end = self.slots.last().map_or(own.end, |last| last.range.end);
        self.map.protect_read_only(0..own.start)?;
        self.map.protect_read_only(own.end..end)
    }

    /// In a child of another board: all of this one becomes read-only.
    pub fn protect_all(&self) -> io::Result<()> {
        self.map.protect_read_only(0..self.slots.last().map_or(0, |last| last.range.end))
    }

    /// Whether a child has a slot of it.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        self.slots.iter().any(|slot| slot.lent.is_some())
    }

    /// Goes on where `former` stops: the story of reloads, and which backend has which row. The new board has at
    /// least as many rows.
    pub fn succeed(&mut self, former: &Self) {
        let (header, old) = (self.header, former.header);
        write_under(&header.sequence, || {
            for (mine, theirs) in [
                (&header.config_reads, &old.config_reads),
                (&header.reloads_refused, &old.reloads_refused),
                (&header.reload_outcome, &old.reload_outcome),
                (&header.reload_text_length, &old.reload_text_length),
            ] {
                mine.store(theirs.load(Relaxed), Relaxed);
            }
            header.reload_wall.store(old.reload_wall.load(Relaxed), Relaxed);
            for (mine, theirs) in header.reload_text.iter().zip(&old.reload_text) {
                mine.store(theirs.load(Relaxed), Relaxed);
            }
            header.started_wall.store(old.started_wall.load(Relaxed), Relaxed);
            header.started.store(old.started.load(Relaxed), Relaxed);
        });
    }

    /// Gives the backends of an earlier board the rows that they had there; to be called before
    /// [`Board::set_backends`].
    pub fn keep_rows_of(&mut self, former: &Self) {
        let others = self.shape.backend_rows.saturating_sub(1) as usize;
        self.urls = former.urls.iter().take(others).cloned().collect();
        write_under(&self.header.sequence, || {
            for (url, entry) in self.urls.iter().zip(self.backend_table) {
                set_text(&entry.length, &entry.url, &url.as_bytes()[..url.len().min(URL_BYTES)]);
            }
        });
    }

    /// Worker rows that the child in `slot` says it holds, at most the threads it has; 0 for a free slot.
    #[must_use]
    pub fn busy(&self, slot: SlotIndex) -> u32 {
        self.lent(slot).map_or(0, |(place, threads)| place.process.busy.load(Relaxed).min(threads))
    }

    /// Open connections that the child in `slot` says it has: to choose by, not to trust.
    #[must_use]
    pub fn connections(&self, slot: SlotIndex) -> u32 {
        self.lent(slot).map_or(0, |(place, _)| place.process.connections.total.load(Relaxed))
    }

    /// Whether the child in `slot` says that it has tunnels: to choose by, not to trust.
    #[must_use]
    pub fn has_tunnels(&self, slot: SlotIndex) -> bool {
        let counts = self.lent(slot).map(|(place, _)| &place.process.connections);
        counts.is_some_and(|counts| counts.tunnels.load(Relaxed) > 0)
    }

    /// Whether the child in `slot` says that all connections it has left are tunnels: to choose by, not to trust.
    #[must_use]
    pub fn has_only_tunnels(&self, slot: SlotIndex) -> bool {
        let counts = self.lent(slot).map(|(place, _)| &place.process.connections);
        counts.is_some_and(|counts| {
            let total = counts.total.load(Relaxed);
            total > 0 && counts.tunnels.load(Relaxed) == total
        })
    }

    /// What the workers of `slot` hold, checked and printable: for the log line about a child that died.
    #[must_use]
    pub fn post_mortem(&self, slot: SlotIndex) -> Vec<Worker> {
        let Some((place, threads)) = self.lent(slot) else { return Vec::new() };
        let rows = BlockPlaces::of(threads, 0);
        let start = place.range.start as u64 + rows.workers;
        let mut workers = read::read_workers(&*self.reader.0, start, threads).unwrap_or_default();
        workers.retain(Worker::is_busy);
        workers
    }

    /// A way to take snapshots, for this process and the children it forks.
    #[must_use]
    pub fn reader(&self) -> BoardReader {
        self.reader.clone()
    }

    /// The shape the board was made with.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    fn lent(&self, slot: SlotIndex) -> Option<(&Slot, u32)> {
        let place = self.slots.get(slot.index())?;
        Some((place, place.lent?))
    }
}

pub(super) fn one<T: FromBytes + zerocopy::IntoBytes + zerocopy::KnownLayout>(
    bytes: &'static mut [u8],
) -> &'static T {
    T::mut_from_bytes(bytes).expect("Places puts every structure on its border and gives it its size")
}

pub(super) fn many<T: FromBytes + zerocopy::IntoBytes + zerocopy::KnownLayout>(
    bytes: &'static mut [u8],
) -> &'static [T] {
    <[T]>::mut_from_bytes(bytes).expect("Places puts every table on its border and gives it whole rows")
}

#[cfg(test)]
impl Board {
    /// The header itself, to damage it.
    pub(super) fn header_of_tests(&self) -> &'static Header {
        self.header
    }

    /// The totals themselves, to damage them.
    pub(super) fn totals_of_tests(&self) -> &'static Totals {
        self.totals
    }

    /// The file.
    pub(super) fn file_of_tests(&self) -> &File {
        &self.writer
    }
}
