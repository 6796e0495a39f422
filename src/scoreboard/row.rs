//! The child's hand: the one writer of its block.
//!
//! Everything is a relaxed store or, where several threads of the child count the same thing, a relaxed
//! addition. Nothing here waits, allocates or can fail.

use crate::clock::Moment;
use crate::ids::{BackendId, SlotIndex, WorkerIndex};
pub use crate::scoreboard::layout::ConnectionCounts;
use crate::scoreboard::layout::{
    BackendCounters, CUT_FRONT, CUT_HOST, CUT_LINE, FLAG_EXTENDED, FLAG_TAIL, HOST_BYTES, LINE_BYTES,
    LatencyCounts, ProcessRow, WorkerRow,
};
use crate::scoreboard::state::{Stage, WorkerState};
use crate::scoreboard::words::{bump, store_bytes, write_under};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// What a worker row shows of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// Who asks.
    pub client: SocketAddr,
    /// The effective host, as the client named it; may be empty.
    pub host: &'a str,
    /// The request line without its end; cut to fit.
    pub line: &'a [u8],
    /// For example `HTTP/1.1`.
    pub protocol: &'a str,
    /// When the request began.
    pub start: Moment,
}

/// What siblings say of themselves. To go by, not to trust: any number may be anything.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Siblings {
    /// How many there are.
    pub count: u32,
    /// Their connections together.
    pub connections: u64,
    /// The worker rows that they hold on average together, in 65,536ths.
    pub load: u64,
    /// What the one of them that holds most holds.
    pub most: u32,
    /// What the one of them that holds least holds; the largest number if there is none.
    pub least: u32,
    /// Those that take over connections now.
    pub takers: u32,
}

/// Slots that a child looks at to compare itself with its siblings.
const LOOKED_AT: usize = 256;

/// A handle onto the block of one slot, for the child that lives there and its threads.
#[derive(Clone)]
pub struct ChildBlock {
    pub(super) process: &'static ProcessRow,
    pub(super) workers: &'static [WorkerRow],
    pub(super) latency: &'static LatencyCounts,
    pub(super) backends: &'static [BackendCounters],
    /// This generation's backends to rows of the table, which outlives generations.
    pub(super) backend_rows: Arc<[u32]>,
    /// The master's count of the children that have a slot of this board.
    pub(super) children: &'static AtomicU32,
    /// The process rows of all slots of this board, by slot; read-only but for this child's own.
    pub(super) processes: Arc<[&'static ProcessRow]>,
    /// The slot of this child.
    pub(super) own: SlotIndex,
    pub(super) flags: u32,
}

impl ChildBlock {
    /// The child serves.
    pub fn ready(&self) {
        self.process.stage.store(Stage::Ready as u32, Relaxed);
    }

    /// The child finishes what it has and takes nothing new.
    pub fn quiescing(&self) {
        self.process.stage.store(Stage::Quiescing as u32, Relaxed);
    }

    /// The child is about to exit.
    pub fn gone(&self) {
        self.process.stage.store(Stage::Gone as u32, Relaxed);
    }

    /// How many worker rows the child may use: `ThreadsPerChild`.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// How many children there are now, this one among them.
    #[must_use]
    pub fn children(&self) -> u32 {
        self.children.load(Relaxed).max(1)
    }

    /// What the children of this one's generation say that serve beside it and have a worker row free: a full one would
    /// take nothing over. Of very many those in the slots behind its own are looked at.
    #[must_use]
    pub fn siblings(&self) -> Siblings {
        let generation = self.process.generation.load(Relaxed);
        let serves = |row: &&&'static ProcessRow| {
            row.stage.load(Relaxed) == Stage::Ready as u32
                && row.generation.load(Relaxed) == generation
                && row.busy.load(Relaxed) < row.threads.load(Relaxed)
        };
        let (before, from) = self.processes.split_at(self.own.index().min(self.processes.len()));
        let others = from.iter().skip(1).chain(before);
        let mut all = Siblings { least: u32::MAX, ..Siblings::default() };
        for row in others.take(LOOKED_AT).filter(serves) {
            let load = row.load.load(Relaxed);
            all.count += 1;
            all.connections += u64::from(row.connections.total.load(Relaxed));
            all.load += u64::from(load);
            all.most = all.most.max(load);
            all.least = all.least.min(load);
            all.takers += u32::from(row.takes.load(Relaxed) == 1);
        }
        all
    }

    /// Requests that the child has answered: as many as latencies were counted.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.latency.total()
    }

    /// The worker rows held on average, as last told.
    #[must_use]
    pub fn load(&self) -> u32 {
        self.process.load.load(Relaxed)
    }

    /// Tells how many worker rows are held on average, and whether connections of siblings may come.
    pub fn set_load(&self, load: u32, takes: bool) {
        self.process.load.store(load, Relaxed);
        self.process.takes.store(u32::from(takes), Relaxed);
    }

    /// The row of a worker. One thread at a time may write to it.
    ///
    /// # Panics
    /// If `index` is not below [`ChildBlock::workers`].
    #[must_use]
    pub fn worker(&self, index: WorkerIndex) -> RowWriter<'_> {
        RowWriter { row: &self.workers[index.index()], block: self }
    }

    /// Gauges of what the child's connections do, and how many it accepted, handed over, took over.
    #[must_use]
    pub fn connections(&self) -> &'static ConnectionCounts {
        &self.process.connections
    }

    /// Tells how many worker rows are held now. The master's arithmetic is made of this.
    pub fn set_busy(&self, busy: u32) {
        self.process.busy.store(busy, Relaxed);
    }

    /// Counts a panic that was caught.
    pub fn panicked(&self) {
        self.process.panics.fetch_add(1, Relaxed);
    }

    /// Counts the latency of one finished request, in microseconds.
    pub fn latency(&self, micros: u64) {
        self.latency.count(micros);
    }

    /// The counters of a backend. Backends that found no row of their own share the last.
    #[must_use]
    pub fn backend(&self, id: BackendId) -> &'static BackendCounters {
        &self.backends[self.backend_row(id)]
    }

    /// Whether rows shall be told of requests at all (`ExtendedStatus`).
    #[must_use]
    pub fn extended(&self) -> bool {
        self.flags & FLAG_EXTENDED != 0
    }

    /// `backends` is never empty and the last row is everybody's.
    fn backend_row(&self, id: BackendId) -> usize {
        let last = self.backends.len() - 1;
        self.backend_rows.get(id.index()).map_or(last, |row| (*row as usize).min(last))
    }
}

impl std::fmt::Debug for ChildBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildBlock").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

/// The hand on one worker row.
#[derive(Clone, Copy)]
pub struct RowWriter<'a> {
    row: &'static WorkerRow,
    block: &'a ChildBlock,
}

impl RowWriter<'_> {
    /// Shows what the worker does: one byte.
    pub fn set_state(&self, state: WorkerState) {
        self.row.state.store(state as u8, Relaxed);
    }

    /// The thread is being made.
    pub fn starting(&self) {
        self.set_state(WorkerState::Starting);
    }

    /// The row is taken, for a connection or an exchange, by thread `tid`: state `R`.
    pub fn hold(&self, tid: u32) {
        self.row.tid.store(tid, Relaxed);
        self.set_state(WorkerState::Read);
    }

    /// Another thread moves the exchange on.
    pub fn moved_by(&self, tid: u32) {
        self.row.tid.store(tid, Relaxed);
    }

    /// A request has begun. Does nothing unless `ExtendedStatus` is on.
    pub fn request(&self, facts: &RequestFacts<'_>) {
        if self.block.flags & FLAG_EXTENDED == 0 {
            return;
        }
        let row = self.row;
        let mut cut = 0;
        let host = facts.host.as_bytes();
        if host.len() > HOST_BYTES {
            cut |= CUT_HOST;
        }
        let mut line = facts.line;
        if line.len() > LINE_BYTES {
            cut |= CUT_LINE;
            if self.block.flags & FLAG_TAIL != 0 {
                cut |= CUT_FRONT;
                line = &line[line.len() - LINE_BYTES..];
            }
        }
        let (family, address) = client_words(facts.client);
        row.backend.store(0, Relaxed);
        write_under(&row.sequence, || {
            row.started.store(facts.start.0, Relaxed);
            row.client_family.store(family, Relaxed);
            row.client_address[0].store(address[0], Relaxed);
            row.client_address[1].store(address[1], Relaxed);
            let host = store_bytes(&row.host, host);
            let line = store_bytes(&row.line, line);
            let protocol = store_bytes(std::slice::from_ref(&row.protocol), facts.protocol.as_bytes());
            row.lengths.store(pack_lengths([host as u16, line as u16, protocol as u16, cut]), Relaxed);
        });
    }

    /// The request goes to this backend.
    pub fn backend(&self, id: BackendId) {
        self.row.backend.store(self.block.backend_row(id) as u32 + 1, Relaxed);
    }

    /// A request has ended, with what it read from and sent to the client, heads included, after so many microseconds;
    /// `None` for a tunnel, whose life is no duration of a request. The strings stay.
    pub fn finish(&self, now: Moment, took: Option<u64>, bytes_in: u64, bytes_out: u64) {
        let row = self.row;
        bump(&row.requests, 1);
        bump(&row.bytes_in, bytes_in);
        bump(&row.bytes_out, bytes_out);
        if let Some(took) = took {
            bump(&row.duration, took);
            row.last.store(took, Relaxed);
        }
        row.ended.store(now.0, Relaxed);
    }

    /// Bytes came from clients and went to clients, of no request that ends now: those of a tunnel.
    pub fn passed(&self, bytes_in: u64, bytes_out: u64) {
        bump(&self.row.bytes_in, bytes_in);
        bump(&self.row.bytes_out, bytes_out);
    }

    /// Nobody holds the row: state `_`.
    pub fn free(&self) {
        self.set_state(WorkerState::Ready);
    }

    /// No thread stands behind the row: state `.`.
    pub fn dead(&self) {
        self.set_state(WorkerState::Dead);
    }
}

/// The two halves of a client as [`WorkerRow`] keeps them. An IPv4 address in IPv6's clothes is shown bare.
fn client_words(client: SocketAddr) -> (u64, [u64; 2]) {
    let port = client.port().to_be_bytes();
    let mut address = [0; 16];
    let family = match client.ip().to_canonical() {
        IpAddr::V4(v4) => {
            address[..4].copy_from_slice(&v4.octets());
            4
        }
        IpAddr::V6(v6) => {
            address = v6.octets();
            6
        }
    };
    let halves = address.as_chunks::<8>().0;
    (
        u64::from_ne_bytes([family, 0, port[0], port[1], 0, 0, 0, 0]),
        [u64::from_ne_bytes(halves[0]), u64::from_ne_bytes(halves[1])],
    )
}

/// Four 16-bit numbers in memory order.
fn pack_lengths(numbers: [u16; 4]) -> u64 {
    let mut bytes = [0; 8];
    for (pair, number) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
        *pair = number.to_ne_bytes();
    }
    u64::from_ne_bytes(bytes)
}
