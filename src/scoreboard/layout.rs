//! What lies where in the scoreboard file: structures of atomics, and the arithmetic of their places.
//!
//! Everything is `repr(C)`, in the machine's byte order, without hidden padding (`IntoBytes` would refuse it)
//! and without a pointer. A change of any offset or meaning is a new [`LAYOUT_VERSION`] and a new man page; a test
//! compares that page with these structures field by field.

use crate::scoreboard::histogram::BUCKETS;
use crate::sys::shm;
use std::mem::size_of;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// The first eight bytes of the file.
pub const MAGIC: [u8; 8] = *b"OstlerSB";

/// Version of the layout. Readers refuse any other.
pub const LAYOUT_VERSION: u32 = 1;

/// Written in the machine's byte order, so that a file from another kind of machine is told from garbage.
pub const BYTE_ORDER: u32 = 0x0102_0304;

/// Bytes of a client's `Host` that a worker row keeps.
pub const HOST_BYTES: usize = 80;

/// Bytes of a request line that a worker row keeps.
pub const LINE_BYTES: usize = 128;

/// Bytes of a protocol name that a worker row keeps.
pub const PROTOCOL_BYTES: usize = 8;

/// Bytes of a backend's url that the table keeps.
pub const URL_BYTES: usize = 120;

/// The most backends that are counted apart; the others share the last row.
pub const MAX_BACKEND_ROWS: u32 = 128;

/// Process row: rows show client, request, times (`ExtendedStatus On`).
pub const FLAG_EXTENDED: u32 = 1;

/// Process row: of a long request line the end is kept (`SeeRequestTail On`).
pub const FLAG_TAIL: u32 = 2;

/// Worker row: the request line was longer than what is kept.
pub const CUT_LINE: u16 = 1;

/// Worker row: the beginning of the line is what was cut off, not its end.
pub const CUT_FRONT: u16 = 2;

/// Worker row: the host was longer than what is kept.
pub const CUT_HOST: u16 = 4;

/// The front of the file. Written by the master alone; read-only in children.
///
/// The front half is written once; what a reload changes comes behind `sequence` and changes under it.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`LAYOUT_VERSION`].
    pub layout: AtomicU32,
    /// [`BYTE_ORDER`].
    pub byte_order: AtomicU32,
    /// Bytes from the start of the file to the first block: this structure and all tables.
    pub header_length: AtomicU64,
    /// Bytes of the whole file; grows when blocks are appended.
    pub file_length: AtomicU64,
    /// Bytes of a page; blocks start on page borders.
    pub page_size: AtomicU32,
    /// `ServerLimit`.
    pub server_limit: AtomicU32,
    /// `ThreadLimit`.
    pub thread_limit: AtomicU32,
    /// Slots: entries of the slot table.
    pub slots: AtomicU32,
    /// Rows of the backend table, of the totals and of each block; the last stands for all others.
    pub backend_rows: AtomicU32,
    /// Bytes of a [`SlotEntry`].
    pub slot_entry_size: AtomicU32,
    /// Bytes of a [`BackendEntry`].
    pub backend_entry_size: AtomicU32,
    /// Bytes of a [`ProcessRow`].
    pub process_row_size: AtomicU32,
    /// Bytes of a [`WorkerRow`].
    pub worker_row_size: AtomicU32,
    /// Bytes of a [`BackendCounters`].
    pub backend_row_size: AtomicU32,
    /// Buckets of a histogram.
    pub histogram_buckets: AtomicU32,
    /// The master.
    pub master_pid: AtomicU32,
    /// Offset of the slot table: `slots` times [`SlotEntry`].
    pub slot_table: AtomicU64,
    /// Offset of the backend table: `backend_rows` times [`BackendEntry`].
    pub backend_table: AtomicU64,
    /// Offset of the totals: [`Totals`], then `backend_rows` times [`BackendCounters`].
    pub totals: AtomicU64,
    /// When the master started, in clock ticks since boot as `/proc/PID/stat` has it: tells it from a later
    /// process of the same number. 0: unknown.
    pub master_start_ticks: AtomicU64,
    /// Inode of the master's pid namespace, in which all pids here are meant. 0: unknown.
    pub pid_namespace: AtomicU64,
    /// Microseconds of CLOCK_REALTIME at creation.
    pub started_wall: AtomicU64,
    /// Microseconds of CLOCK_MONOTONIC at creation; all other moments in the file are on this clock.
    pub started: AtomicU64,
    /// The kernel's boot id, 36 characters; moments and pids of another boot mean nothing now.
    pub boot_id: [AtomicU64; 5],
    /// When the master last wrote to the header (CLOCK_MONOTONIC).
    pub updated: AtomicU64,
    /// Odd while the fields from here to the end of the header, or the backend table, are being written.
    pub sequence: AtomicU32,
    /// The generation that new children belong to.
    pub generation: AtomicU32,
    /// Microseconds of CLOCK_REALTIME when that generation began.
    pub generation_wall: AtomicU64,
    /// Microseconds of CLOCK_REALTIME when the master stopped in good order; 0 while it runs.
    pub stopped_wall: AtomicU64,
    /// How often a configuration was read successfully, the first at start.
    pub config_reads: AtomicU32,
    /// How often a reload was refused.
    pub reloads_refused: AtomicU32,
    /// Outcome of the last reload or upgrade: 0 none yet, 1 done, 2 refused.
    pub reload_outcome: AtomicU32,
    /// [`FLAG_EXTENDED`] if the generation's rows show requests.
    pub flags: AtomicU32,
    /// Microseconds of CLOCK_REALTIME of the last reload or upgrade.
    pub reload_wall: AtomicU64,
    /// `MaxRequestWorkers`.
    pub max_request_workers: AtomicU32,
    /// `ThreadsPerChild`.
    pub threads_per_child: AtomicU32,
    /// `MinSpareThreads` or `MinSpareServers`, in workers.
    pub min_spare: AtomicU32,
    /// `MaxSpareThreads` or `MaxSpareServers`, in workers.
    pub max_spare: AtomicU32,
    /// `StartServers`.
    pub start_servers: AtomicU32,
    /// Bytes of `version` in use.
    pub version_length: AtomicU32,
    /// Bytes of `server_name` in use.
    pub server_name_length: AtomicU32,
    /// Bytes of `config_path` in use.
    pub config_path_length: AtomicU32,
    /// Bytes of `listeners` in use.
    pub listeners_length: AtomicU32,
    /// Bytes of `reload_text` in use.
    pub reload_text_length: AtomicU32,
    /// `event`, `worker` or `prefork`, padded with zero bytes.
    pub mpm: AtomicU64,
    /// Name and version, for example `Ostler/0.1.0`.
    pub version: [AtomicU64; 8],
    /// `ServerName` of the main server.
    pub server_name: [AtomicU64; 16],
    /// The configuration file.
    pub config_path: [AtomicU64; 64],
    /// The bound addresses, a blank between them.
    pub listeners: [AtomicU64; 64],
    /// What the last reload said: the first fault of a refused one.
    pub reload_text: [AtomicU64; 64],
    /// The groom, which answers for `StatusListen`; 0: there is none.
    pub groom_pid: AtomicU32,
    /// How often a groom died and was replaced.
    pub grooms_replaced: AtomicU32,
    /// When the groom was forked (CLOCK_MONOTONIC).
    pub groom_started: AtomicU64,
    /// Children that live now, of whatever generation: slots of this file that are lent.
    pub children: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
    /// Zero.
    pub spare: [AtomicU64; 2],
}

/// One slot: where its block is. Written by the master.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct SlotEntry {
    /// Offset of the block in the file, on a page border.
    pub offset: AtomicU64,
    /// Bytes of the block, whole pages.
    pub length: AtomicU64,
    /// Worker rows in the block.
    pub workers: AtomicU32,
    /// Backend rows in the block.
    pub backends: AtomicU32,
    /// How many children have had the slot. While it is 0 the block is a hole in the file.
    pub lent: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
}

/// One row of the backend table: whom the counters of that number are about. Written by the master.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct BackendEntry {
    /// Bytes of `url` in use; 0: nobody.
    pub length: AtomicU32,
    /// The last generation that named it.
    pub generation: AtomicU32,
    /// `http://127.0.0.1:3000`, cut if longer.
    pub url: [AtomicU64; URL_BYTES / 8],
}

/// What children that are gone have counted; a child's counters are added when it has ended. Written by the
/// master under `sequence`, together with the emptying of the block.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Totals {
    /// Odd while a block is being added: sums over totals and blocks are wrong now.
    pub sequence: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
    /// Requests answered.
    pub requests: AtomicU64,
    /// Bytes read from clients.
    pub bytes_in: AtomicU64,
    /// Bytes sent to clients.
    pub bytes_out: AtomicU64,
    /// Sum of the requests' durations in microseconds.
    pub duration: AtomicU64,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Panics caught.
    pub panics: AtomicU64,
    /// Children forked, those that live included.
    pub children_started: AtomicU64,
    /// Children that have ended.
    pub children_ended: AtomicU64,
    /// Of these, how many ended by a fault.
    pub children_failed: AtomicU64,
    /// Connections that a child handed over to another.
    pub handed_over: AtomicU64,
    /// Connections that a child took over from another.
    pub taken_over: AtomicU64,
    /// Zero.
    pub spare: [AtomicU64; 4],
    /// Latencies of requests.
    pub latency: LatencyCounts,
}

/// A histogram: one counter per bucket of [`crate::scoreboard::histogram`].
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct LatencyCounts {
    /// Requests per bucket.
    pub counts: [AtomicU64; BUCKETS],
}

/// A child, at the front of its block. The first half is the master's, written before the fork (the pid just
/// after it); the rest is the child's.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ProcessRow {
    /// The child; 0: the slot is free.
    pub pid: AtomicU32,
    /// Its generation.
    pub generation: AtomicU32,
    /// Worker rows in use: `ThreadsPerChild` of its generation.
    pub threads: AtomicU32,
    /// [`FLAG_EXTENDED`], [`FLAG_TAIL`].
    pub flags: AtomicU32,
    /// The driver's name, padded with zero bytes.
    pub mpm: AtomicU64,
    /// When it was forked (CLOCK_MONOTONIC).
    pub started: AtomicU64,
    /// When the master took the slot back (CLOCK_MONOTONIC); 0 while lent.
    pub ended: AtomicU64,
    /// Worker rows held on average lately, in 65,536ths (event).
    pub load: AtomicU32,
    /// 1: it takes over connections of its siblings (event).
    pub takes: AtomicU32,
    /// Zero.
    pub reserved: [AtomicU64; 2],
    /// [`crate::scoreboard::state::Stage`].
    pub stage: AtomicU32,
    /// Worker rows held now.
    pub busy: AtomicU32,
    /// Panics caught.
    pub panics: AtomicU64,
    /// What its connections are doing.
    pub connections: ConnectionCounts,
}

/// A child's client connections by what they do. All its threads add and subtract.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ConnectionCounts {
    /// All that are open.
    pub total: AtomicU32,
    /// Idle between two requests (httpd's ConnsAsyncKeepAlive).
    pub keep_alive: AtomicU32,
    /// A head is coming in, or a request waits for a worker row (ConnsAsyncWaitIO).
    pub wait_io: AtomicU32,
    /// The rest of a response is being sent without a thread (ConnsAsyncWriting).
    pub writing: AtomicU32,
    /// Lingering (ConnsAsyncClosing).
    pub closing: AtomicU32,
    /// Tunnels that hold no worker row.
    pub tunnels: AtomicU32,
    /// Accepted since the child began.
    pub accepted: AtomicU64,
    /// Handed over to other children, between two requests.
    pub handed_over: AtomicU64,
    /// Taken over from other children.
    pub taken_over: AtomicU64,
}

/// A worker: five cache lines, one writer. The first line is what changes all the time; the rest changes
/// once per request, under `sequence`.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(64))]
pub struct WorkerRow {
    /// [`crate::scoreboard::state::WorkerState`].
    pub state: AtomicU8,
    /// Zero.
    pub reserved: [AtomicU8; 3],
    /// The thread that holds the row or last moved its exchange.
    pub tid: AtomicU32,
    /// Odd while the fields from `started` on are being written.
    pub sequence: AtomicU32,
    /// Row of the backend table plus one; 0: no backend yet.
    pub backend: AtomicU32,
    /// Requests finished.
    pub requests: AtomicU64,
    /// Bytes read from clients.
    pub bytes_in: AtomicU64,
    /// Bytes sent to clients.
    pub bytes_out: AtomicU64,
    /// Sum of the requests' durations in microseconds.
    pub duration: AtomicU64,
    /// When the last request ended (CLOCK_MONOTONIC).
    pub ended: AtomicU64,
    /// Duration of the last finished request in microseconds.
    pub last: AtomicU64,
    /// When the last request began (CLOCK_MONOTONIC); 0: none was noted.
    pub started: AtomicU64,
    /// Four 16-bit numbers: bytes in use of `host`, of `line`, of `protocol`, and [`CUT_LINE`] and the like.
    pub lengths: AtomicU64,
    /// Client: byte 0 is 4 or 6 (0: unknown), bytes 2 and 3 the port, high byte first.
    pub client_family: AtomicU64,
    /// Client's address in network order, IPv4 in the first four bytes.
    pub client_address: [AtomicU64; 2],
    /// For example `HTTP/1.1`.
    pub protocol: AtomicU64,
    /// The virtual host as the client named it.
    pub host: [AtomicU64; HOST_BYTES / 8],
    /// The request line without its end.
    pub line: [AtomicU64; LINE_BYTES / 8],
}

/// What passed between us and one backend; all threads of a child add to it.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct BackendCounters {
    /// Requests sent to it, repeated ones counted again.
    pub requests: AtomicU64,
    /// Attempts that brought no response, connects that failed included.
    pub failures: AtomicU64,
    /// Connections made.
    pub connects: AtomicU64,
    /// Requests that went over a connection used before.
    pub reused: AtomicU64,
    /// Bytes sent to it.
    pub bytes_out: AtomicU64,
    /// Bytes received from it.
    pub bytes_in: AtomicU64,
    /// Sum of its response times in microseconds.
    pub duration: AtomicU64,
    /// Requests that wait for it or receive from it now.
    pub busy: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
    /// Its response times.
    pub latency: LatencyCounts,
}

const _: () = assert!(size_of::<Header>() == 2048);
const _: () = assert!(size_of::<SlotEntry>() == 32);
const _: () = assert!(size_of::<BackendEntry>() == 128);
const _: () = assert!(size_of::<Totals>() == 128 + 8192);
const _: () = assert!(size_of::<ProcessRow>() == 128);
const _: () = assert!(size_of::<WorkerRow>() == 320);
const _: () = assert!(size_of::<BackendCounters>() == 64 + 8192);

impl LatencyCounts {
    /// Counts one latency, in microseconds.
    pub fn count(&self, micros: u64) {
        if let Some(counter) = self.counts.get(crate::scoreboard::histogram::bucket(micros)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// How many have been counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, counter| sum.wrapping_add(counter.load(Relaxed)))
    }
}

impl BackendCounters {
    /// Counts one response time, in microseconds.
    pub fn latency(&self, micros: u64) {
        self.duration.fetch_add(micros, Relaxed);
        self.latency.count(micros);
    }
}

/// How large a scoreboard is: what decides every offset in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shape {
    /// `ServerLimit`, at least 1.
    pub server_limit: u32,
    /// `ThreadLimit`, at least 1: worker rows per slot.
    pub thread_limit: u32,
    /// Rows for backends, the last of which stands for all that find no row of their own.
    pub backend_rows: u32,
}

impl Shape {
    /// Room for two generations of `server_limit` children, and for `backends` and a few more that a reload
    /// may bring.
    #[must_use]
    pub fn new(server_limit: u32, thread_limit: u32, backends: usize) -> Self {
        let wanted = u32::try_from(backends).unwrap_or(u32::MAX).saturating_add(1);
        let rows = wanted.min(MAX_BACKEND_ROWS).next_multiple_of(4);
        Self { server_limit: server_limit.max(1), thread_limit: thread_limit.max(1), backend_rows: rows }
    }

    /// Slots: twice ServerLimit, since that bounds one generation and a reload must always find room.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.server_limit.saturating_mul(2)
    }

    /// Bytes of the whole file. Blocks of slots that no child has had yet are holes and cost nothing.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        Places::of(self, shm::page_size() as u64).file_length
    }

    /// Bytes of one slot's block, whole pages.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        Places::of(self, shm::page_size() as u64).block_length
    }
}

/// The offsets that follow from a [`Shape`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Places {
    /// Of the slot table.
    pub slot_table: u64,
    /// Of the backend table.
    pub backend_table: u64,
    /// Of the totals.
    pub totals: u64,
    /// Of the first block.
    pub header_length: u64,
    /// Bytes of a block.
    pub block_length: u64,
    /// Bytes of all.
    pub file_length: u64,
}

impl Places {
    /// Tables behind each other on 64-byte borders, blocks on page borders.
    #[must_use]
    pub fn of(shape: &Shape, page: u64) -> Self {
        let slots = u64::from(shape.slots());
        let slot_table = size_of::<Header>() as u64;
        let backend_table = (slot_table + slots * size_of::<SlotEntry>() as u64).next_multiple_of(64);
        let rows = u64::from(shape.backend_rows);
        let totals = backend_table + rows * size_of::<BackendEntry>() as u64;
        let totals_end = totals + size_of::<Totals>() as u64 + rows * size_of::<BackendCounters>() as u64;
        let header_length = totals_end.next_multiple_of(page);
        let block_length = BlockPlaces::of(shape.thread_limit, shape.backend_rows).end.next_multiple_of(page);
        Self {
            slot_table,
            backend_table,
            totals,
            header_length,
            block_length,
            file_length: header_length + slots * block_length,
        }
    }
}

/// The offsets inside one block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockPlaces {
    /// Of the first worker row, right behind the process row.
    pub workers: u64,
    /// Of the child's histogram.
    pub latency: u64,
    /// Of the first backend row.
    pub backends: u64,
    /// Behind the last backend row.
    pub end: u64,
}

impl BlockPlaces {
    /// Process row, worker rows, histogram, backend rows.
    #[must_use]
    pub fn of(workers: u32, backends: u32) -> Self {
        let first = size_of::<ProcessRow>() as u64;
        let latency = first + u64::from(workers) * size_of::<WorkerRow>() as u64;
        let rows = latency + size_of::<LatencyCounts>() as u64;
        let end = rows + u64::from(backends) * size_of::<BackendCounters>() as u64;
        Self { workers: first, latency, backends: rows, end }
    }

    /// A row's range within the block.
    #[must_use]
    pub fn worker(&self, index: u32) -> Range<u64> {
        let start = self.workers + u64::from(index) * size_of::<WorkerRow>() as u64;
        start..start + size_of::<WorkerRow>() as u64
    }
}

#[cfg(test)]
mod tests;
