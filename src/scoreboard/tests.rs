//! The three hands together: what one writes another reads, whole, clamped, and never backwards.

use crate::clock::Moment;
use crate::ids::{BackendId, ChildPid, Generation, SlotIndex, WorkerIndex};
use crate::scoreboard::board::{Birth, Board, BoardError, Ending, Loan, Shape};
use crate::scoreboard::facts::{Facts, ReloadOutcome};
use crate::scoreboard::file::previous;
use crate::scoreboard::layout::{BlockPlaces, Header, MAX_BACKEND_ROWS, Places, Totals, WorkerRow};
use crate::scoreboard::read::Source;
use crate::scoreboard::row::{ChildBlock, RequestFacts, Siblings};
use crate::scoreboard::snapshot::{Cut, Life, MAX_COUNT, Reader, Shown, Snapshot, SnapshotError};
use crate::scoreboard::state::{Stage, WorkerState};
use crate::sys::shm;
use proptest::prelude::*;
use std::cell::Cell;
use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

const BIRTH: Birth = Birth { pid: 1, now: Moment(5_000_000), wall_micros: 1_700_000_000_000_000 };

/// A configuration as the header tells it.
pub fn facts() -> Facts<'static> {
    Facts {
        generation: Generation(1),
        wall_micros: BIRTH.wall_micros,
        mpm: "event",
        version: "Ostler/0.1.0",
        server_name: "www.example.org",
        config_path: Some(Path::new("/etc/ostler/ostler.conf")),
        listeners: "127.0.0.1:8080 [::1]:8080",
        max_request_workers: 8,
        threads_per_child: 4,
        min_spare: 2,
        max_spare: 8,
        start_servers: 1,
        extended: true,
    }
}

/// What a child of generation 1 is lent.
pub const LOAN: Loan<'static> =
    Loan { generation: Generation(1), mpm: "event", threads: 4, extended: true, see_request_tail: false };

/// An unnamed board of two children with up to four workers each.
pub fn board() -> Board {
    let mut board = Board::create(None, &Shape::new(2, 4, 2), &BIRTH, &facts()).expect("a board");
    board.set_backends(Generation(1), ["http://127.0.0.1:3000", "unix:/run/app.sock"]);
    board
}

fn request<'a>(line: &'a [u8], host: &'a str, start: u64) -> RequestFacts<'a> {
    RequestFacts {
        client: "[2001:db8::7]:40000".parse().expect("an address"),
        host,
        line,
        protocol: "HTTP/1.1",
        start: Moment(start),
    }
}

/// A board with a little of everything on it: a busy child, one that drains, one that has ended.
pub fn lived_in() -> Board {
    let mut board = board();
    for (slot, pid) in [(0, 4711), (1, 4712), (2, 4713)] {
        let block = board.lend(SlotIndex(slot), &LOAN, Moment(6_000_000)).expect("lent");
        board.set_pid(SlotIndex(slot), ChildPid::new(pid).expect("a pid"));
        block.ready();
        serve(&block, slot);
    }
    board.take_back(SlotIndex(2), Ending::Fault, Moment(9_000_000));
    board.set_reload(
        &ReloadOutcome {
            wall_micros: BIRTH.wall_micros + 9_000_000,
            done: false,
            text: "ostler.conf:3:1: no",
        },
        Moment(9_500_000),
    );
    board
}

fn serve(block: &ChildBlock, slot: u32) {
    for index in 0..4 {
        let row = block.worker(WorkerIndex(index));
        row.starting();
        row.free();
    }
    let row = block.worker(WorkerIndex(0));
    row.hold(100 + slot);
    row.request(&request(b"GET /first?<b>&\"' HTTP/1.1", "a.example", 7_000_000));
    row.backend(BackendId(0));
    let backend = block.backend(BackendId(0));
    backend.requests.fetch_add(1, Relaxed);
    backend.connects.fetch_add(1, Relaxed);
    backend.latency(1500);
    row.finish(Moment(7_002_000), Some(2000), 100, 2000);
    block.latency(2000);
    row.request(&request(b"POST /second HTTP/1.1", "b.example", 8_000_000));
    row.backend(BackendId(1));
    row.set_state(WorkerState::Write);
    block.set_busy(1);
    let connections = block.connections();
    connections.total.store(3, Relaxed);
    connections.keep_alive.store(2, Relaxed);
    connections.accepted.store(5, Relaxed);
    connections.handed_over.store(1, Relaxed);
    if slot == 1 {
        block.quiescing();
    }
}

#[test]
fn what_was_written_is_read() {
    let board = lived_in();
    let snapshot = board.reader().snapshot().expect("a snapshot");
    let server = &snapshot.server;
    assert_eq!((server.generation, server.mpm.as_str(), server.slots), (1, "event", 4));
    assert_eq!(server.config_path, "/etc/ostler/ostler.conf");
    assert_eq!(server.listeners, "127.0.0.1:8080 [::1]:8080");
    assert_eq!((server.config_reads, server.reloads_refused), (1, 1));
    assert_eq!(server.last_reload.as_ref().map(|reload| reload.text.as_str()), Some("ostler.conf:3:1: no"));
    assert!(server.extended && snapshot.settled);

    let stages: Vec<_> = snapshot.children.iter().map(|child| (child.slot, child.pid, child.stage)).collect();
    assert_eq!(
        stages,
        [(0, 4711, Some(Stage::Ready)), (1, 4712, Some(Stage::Quiescing)), (2, 0, Some(Stage::Free))]
    );
    let child = &snapshot.children[0];
    assert_eq!((child.busy, child.connections.total, child.connections.accepted), (1, 3, 5));
    let letters: String = child.workers.iter().map(|worker| worker.letter()).collect();
    assert_eq!(letters, "W___");
    let worker = &child.workers[0];
    assert_eq!((worker.requests, worker.bytes_in, worker.bytes_out), (1, 100, 2000));
    assert_eq!((worker.duration, worker.last, worker.ended), (2000, 2000, Moment(7_002_000)));
    assert_eq!((worker.tid, worker.backend), (100, Some(1)));
    let request = worker.request().expect("a request");
    assert_eq!(request.client, Some("[2001:db8::7]:40000".parse().expect("an address")));
    assert_eq!((request.line.as_str(), request.host.as_str()), ("POST /second HTTP/1.1", "b.example"));
    assert_eq!((request.protocol.as_str(), request.started), ("HTTP/1.1", 8_000_000));

    let totals = &snapshot.totals;
    assert_eq!((totals.requests, totals.bytes_out, totals.accepted), (3, 6000, 15));
    assert_eq!((totals.children_started, totals.children_ended, totals.children_failed), (3, 1, 1));
    assert_eq!(totals.latency.total(), 3);
    assert_eq!(snapshot.backends.len(), 2);
    assert_eq!(snapshot.backends[0].url, "http://127.0.0.1:3000");
    assert_eq!((snapshot.backends[0].requests, snapshot.backends[0].latency.total()), (3, 3));
    // What a child that has ended last did stays readable until its slot is lent again.
    assert_eq!(
        snapshot.children[2].workers[0].request().map(|request| request.line.as_str()),
        Some("POST /second HTTP/1.1")
    );
    assert_eq!(snapshot.wall_of(snapshot.last_sign()), BIRTH.wall_micros + 4_500_000);
}

#[test]
fn of_very_many_slots_those_behind_its_own_are_looked_at() {
    let shape = Shape { server_limit: 400, thread_limit: 1, backend_rows: 1 };
    let mut board = Board::prepare(None, &shape, &BIRTH, &facts()).expect("memory");
    let mut lend = |slot| {
        let block = board.lend(SlotIndex(slot), &Loan { threads: 1, ..LOAN }, Moment(1)).expect("lent");
        block.ready();
        block
    };
    // A generation that came up behind the slots of the one before, and two children that came later.
    let blocks: Vec<ChildBlock> = [400, 401, 799, 0, 100].map(&mut lend).into();
    let counts: Vec<u32> = blocks.iter().map(|block| block.siblings().count).collect();
    assert_eq!(counts, [1, 0, 2, 1, 0], "at most 256 slots, and round the end");
}

#[test]
fn a_child_compares_itself_with_siblings_that_could_take_over_from_it() {
    let mut board = board();
    let lend = |board: &mut Board, slot, generation: u32| {
        let loan = Loan { generation: Generation(generation), ..LOAN };
        board.lend(SlotIndex(slot), &loan, Moment(6_000_000)).expect("lent")
    };
    let own = lend(&mut board, 0, 1);
    let seen = || (own.siblings().count, own.siblings().connections);
    own.ready();
    own.connections().total.store(50, Relaxed);
    assert_eq!((own.children(), seen()), (1, (0, 0)), "it is no sibling of itself");
    let other = lend(&mut board, 1, 1);
    other.connections().total.store(7, Relaxed);
    assert_eq!((own.children(), seen()), (2, (0, 0)), "it only starts");
    other.ready();
    assert_eq!(seen(), (1, 7));
    other.set_load(5, true);
    let whole = Siblings { count: 1, connections: 7, load: 5, most: 5, least: 5, takers: 1 };
    assert_eq!(own.siblings(), whole);
    for (busy, want) in [(3, (1, 7)), (4, (0, 0)), (u32::MAX, (0, 0)), (0, (1, 7))] {
        other.set_busy(busy);
        assert_eq!(seen(), want, "{busy} of its 4 workers are busy");
    }
    let strange = lend(&mut board, 2, 2);
    strange.ready();
    assert_eq!((own.children(), seen()), (3, (1, 7)), "of another generation");
    other.quiescing();
    assert_eq!(seen(), (0, 0), "it leaves");
    board.take_back(SlotIndex(1), Ending::Clean, Moment(9_000_000));
    assert_eq!((own.children(), seen()), (2, (0, 0)));
}

#[test]
fn the_dead_childs_requests_are_told_before_its_slot_is_taken_back() {
    let mut board = lived_in();
    let held = board.post_mortem(SlotIndex(0));
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].request().map(|request| request.shown_line()), Some("POST /second HTTP/1.1".into()));
    board.take_back(SlotIndex(0), Ending::Clean, Moment(10_000_000));
    assert!(board.post_mortem(SlotIndex(0)).is_empty());
    assert!(board.post_mortem(SlotIndex(99)).is_empty());
}

#[test]
fn long_lines_lose_the_end_or_the_front() {
    let mut line = vec![b'x'; 200];
    line[0] = b'^';
    line[199] = b'$';
    for (tail, cut, want_first, want_last) in [(false, Cut::End, '^', 'x'), (true, Cut::Front, 'x', '$')] {
        let mut board = board();
        let loan = Loan { see_request_tail: tail, ..LOAN };
        let block = board.lend(SlotIndex(0), &loan, Moment(1)).expect("lent");
        block.worker(WorkerIndex(0)).request(&request(&line, &"h".repeat(100), 2));
        let snapshot = board.reader().snapshot().expect("a snapshot");
        let request = snapshot.children[0].workers[0].request().expect("a request").clone();
        assert_eq!((request.line.len(), request.cut, request.host.len()), (128, cut, 80));
        assert!(request.host_cut);
        assert_eq!(request.line.chars().next(), Some(want_first));
        assert_eq!(request.line.chars().last(), Some(want_last));
    }
}

#[test]
fn without_extended_status_requests_are_counted_but_not_told() {
    let mut board = board();
    let loan = Loan { extended: false, ..LOAN };
    let block = board.lend(SlotIndex(0), &loan, Moment(1)).expect("lent");
    let row = block.worker(WorkerIndex(0));
    row.hold(1);
    row.request(&request(b"GET / HTTP/1.1", "h", 2));
    row.finish(Moment(9), Some(7), 1, 1);
    let snapshot = board.reader().snapshot().expect("a snapshot");
    let worker = &snapshot.children[0].workers[0];
    assert_eq!((worker.requests, worker.duration, &worker.request), (1, 7, &Shown::Nothing));
    assert!(!block.extended());
}

#[test]
fn a_tunnel_is_a_request_without_a_duration() {
    let mut board = board();
    let block = board.lend(SlotIndex(0), &LOAN, Moment(1)).expect("lent");
    let row = block.worker(WorkerIndex(0));
    for (end, took) in [(150, Some(50)), (900, None), (910, Some(10))] {
        row.request(&request(b"GET / HTTP/1.1", "h", 100));
        row.finish(Moment(end), took, 1, 1);
    }
    let snapshot = board.reader().snapshot().expect("a snapshot");
    assert_eq!((snapshot.totals.duration, snapshot.totals.requests), (60, 3));
    assert_eq!(snapshot.children[0].workers[0].last, 10);
}

/// A board whose master goes on adding up: the sequence of the totals moves at each of so many readings.
struct Moving {
    bytes: Vec<u8>,
    sequence: u64,
    readings: Cell<u32>,
}

impl Source for Moving {
    fn length(&self) -> io::Result<u64> {
        self.bytes.as_slice().length()
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.bytes.as_slice().fill(buffer, offset)?;
        if offset == self.sequence && buffer.len() == 4 {
            let left = self.readings.get();
            buffer.copy_from_slice(&left.wrapping_mul(2).to_ne_bytes());
            self.readings.set(left.saturating_sub(1));
        }
        Ok(())
    }
}

#[test]
fn who_may_wait_waits_for_a_master_that_may_live() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("board");
    let own = Birth { pid: std::process::id(), ..BIRTH };
    let board = Board::create(Some(&path), &Shape::new(1, 1, 0), &own, &facts()).expect("a board");
    let header = board.header_of_tests();
    let sequence = header.totals.load(Relaxed) + offset_of!(Totals, sequence) as u64;
    let (ticks, namespace) = (header.master_start_ticks.load(Relaxed), header.pid_namespace.load(Relaxed));
    // A look reads it 16 times before it gives up.
    for (life, reader, readings, settled, pauses) in [
        (Life::Running, Reader::Stranger, 0, true, 0),
        (Life::Running, Reader::Stranger, 14, true, 0),
        (Life::Running, Reader::Stranger, 40, true, 2),
        (Life::Running, Reader::Stranger, u32::MAX, false, 10),
        (Life::Unknown, Reader::Stranger, 40, true, 2),
        (Life::Dead, Reader::Stranger, 40, false, 0),
        (Life::Running, Reader::Child, 40, false, 0),
    ] {
        header.master_start_ticks.store(ticks + u64::from(life == Life::Dead), Relaxed);
        header.pid_namespace.store(namespace + u64::from(life == Life::Unknown), Relaxed);
        let bytes = fs::read(&path).expect("it is there");
        let source = Moving { bytes, sequence, readings: Cell::new(readings) };
        let mut paused = 0;
        let snapshot = Snapshot::settle(&source, reader, || paused += 1).expect("a snapshot");
        let case = format!("{life:?} {reader:?} {readings}");
        assert_eq!((snapshot.life, snapshot.settled, paused), (life, settled, pauses), "{case}");
    }
}

#[test]
fn readers_wait_while_a_board_gets_what_another_has_counted() {
    let (board, former) = (board(), lived_in());
    let settled = || board.reader().snapshot().expect("a snapshot").settled;
    assert!(settled());
    board.credit(&former, None, || assert!(!settled()));
    let snapshot = board.reader().snapshot().expect("a snapshot");
    assert_eq!((snapshot.settled, snapshot.totals.requests, snapshot.totals.duration), (true, 3, 6000));
}

#[test]
fn the_census_believes_no_more_than_there_are_threads() {
    let mut board = board();
    assert_eq!(board.busy(SlotIndex(0)), 0);
    let block = board.lend(SlotIndex(0), &LOAN, Moment(1)).expect("lent");
    for (said, want) in [(0, 0), (3, 3), (4, 4), (5, 4), (u32::MAX, 4)] {
        block.set_busy(said);
        assert_eq!(board.busy(SlotIndex(0)), want);
    }
    assert_eq!(board.busy(SlotIndex(77)), 0);
    board.take_back(SlotIndex(0), Ending::Clean, Moment(2));
    block.set_busy(3);
    assert_eq!(board.busy(SlotIndex(0)), 0, "nobody has the slot");
}

#[test]
fn a_slot_lent_again_starts_clean_but_for_the_totals() {
    let mut board = lived_in();
    board.take_back(SlotIndex(0), Ending::Clean, Moment(10_000_000));
    board.take_back(SlotIndex(0), Ending::Clean, Moment(10_000_000));
    let before = board.reader().snapshot().expect("a snapshot").totals;
    assert_eq!(before.children_ended, 2, "taking back twice counts once");
    board.lend(SlotIndex(0), &Loan { threads: 2, ..LOAN }, Moment(11_000_000)).expect("lent");
    let snapshot = board.reader().snapshot().expect("a snapshot");
    let child = &snapshot.children[0];
    assert_eq!((child.workers.len(), child.connections.accepted, child.ended), (2, 0, None));
    assert!(child.workers.iter().all(|worker| worker.letter() == '.' && worker.request == Shown::Nothing));
    assert_eq!(snapshot.totals.requests, before.requests);
    assert_eq!(snapshot.totals.latency.total(), before.latency.total());
}

#[test]
fn slots_and_threads_that_the_board_does_not_have_are_refused() {
    let mut board = board();
    for (slot, threads) in [(4, 1), (u32::MAX, 1), (0, 5), (0, u32::MAX)] {
        let loan = Loan { threads, ..LOAN };
        let refused = board.lend(SlotIndex(slot), &loan, Moment(1)).expect_err("refused");
        assert!(matches!(refused, BoardError::Shape { .. }), "{refused}");
    }
    board.take_back(SlotIndex(9), Ending::Clean, Moment(1));
}

#[test]
fn a_backend_keeps_its_row_over_reloads_and_late_ones_share_the_last() {
    let mut board = board();
    assert_eq!(board.shape().backend_rows, 4);
    let count = |board: &mut Board, slot, id, times| {
        let block = board.lend(SlotIndex(slot), &LOAN, Moment(1)).expect("lent");
        block.backend(BackendId(id)).requests.fetch_add(times, Relaxed);
        block.worker(WorkerIndex(0)).backend(BackendId(id));
    };
    count(&mut board, 0, 1, 10);
    board.set_backends(Generation(2), ["unix:/run/app.sock", "http://c", "http://d", "http://e"]);
    count(&mut board, 1, 0, 100);
    count(&mut board, 2, 2, 1000);
    count(&mut board, 3, 99, 2000);
    let snapshot = board.reader().snapshot().expect("a snapshot");
    let seen: Vec<_> = snapshot
        .backends
        .iter()
        .map(|backend| (backend.row, backend.url.as_str(), backend.generation, backend.requests))
        .collect();
    assert_eq!(
        seen,
        [
            (0, "http://127.0.0.1:3000", 1, 0),
            (1, "unix:/run/app.sock", 2, 110),
            (2, "http://c", 2, 0),
            (3, "(others)", 2, 3000)
        ]
    );
    assert_eq!(snapshot.children[3].workers[0].backend, Some(3));
}

#[test]
fn shapes_have_room_and_bounds() {
    for (backends, rows) in
        [(0, 4), (1, 4), (3, 4), (4, 8), (127, 128), (128, 128), (usize::MAX, MAX_BACKEND_ROWS)]
    {
        assert_eq!(Shape::new(1, 1, backends).backend_rows, rows, "{backends}");
    }
    let shape = Shape::new(16, 64, 3);
    let page = shm::page_size() as u64;
    assert!(shape.block_size().is_multiple_of(page));
    let header = Places::of(&shape, page).header_length;
    assert_eq!(shape.file_size(), header + 32 * shape.block_size());
}

#[test]
fn a_named_board_has_holes_where_no_child_was_and_survives_its_master() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ostler.scoreboard");
    let make = |generation| {
        let facts = Facts { generation: Generation(generation), ..facts() };
        Board::create(Some(&path), &Shape::new(64, 64, 1), &BIRTH, &facts).expect("a board")
    };
    let mut first = make(1);
    let block = first.lend(SlotIndex(3), &Loan { threads: 64, ..LOAN }, Moment(1)).expect("lent");
    block.worker(WorkerIndex(63)).request(&request(b"GET /last-words HTTP/1.1", "h", 9));
    let metadata = fs::metadata(&path).expect("metadata");
    assert_eq!(metadata.len(), first.shape().file_size());
    assert!(metadata.blocks() * 512 < metadata.len() / 4, "{} blocks", metadata.blocks());
    assert!(metadata.blocks() * 512 >= first.shape().block_size(), "what is lent is reserved");

    let second = make(2);
    let now = Snapshot::read(&path).expect("a snapshot");
    assert_eq!((now.server.generation, now.children.len()), (2, 0));
    let before = Snapshot::read(&previous(&path)).expect("a snapshot");
    assert_eq!((before.server.generation, before.children[0].slot), (1, 3));
    assert_eq!(
        before.children[0].workers[63].request().map(|request| request.line.as_str()),
        Some("GET /last-words HTTP/1.1")
    );
    second.stopped(Moment(20_000_000), 77);
    let stopped = Snapshot::read(&path).expect("a snapshot");
    assert_eq!((stopped.life, stopped.server.stopped_wall), (Life::Stopped, Some(77)));
}

#[test]
fn whether_the_master_lives_is_seen() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("board");
    let shape = Shape::new(1, 1, 0);
    let own = Birth { pid: std::process::id(), ..BIRTH };
    let board = Board::create(Some(&path), &shape, &own, &facts()).expect("a board");
    let snapshot = Snapshot::read(&path).expect("a snapshot");
    assert_eq!(snapshot.life, Life::Running);
    assert!(snapshot.usage.is_some() && snapshot.load.is_some());
    // The same number again, but not the same process.
    board.header_of_tests().master_start_ticks.fetch_add(1, Relaxed);
    assert_eq!(Snapshot::read(&path).expect("a snapshot").life, Life::Dead);
}

#[test]
fn a_board_that_cannot_be_made_says_why_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let missing = directory.path().join("no/such/board");
    let refused = Board::create(Some(&missing), &Shape::new(1, 1, 0), &BIRTH, &facts()).expect_err("refused");
    assert!(refused.to_string().contains("no/such/board"), "{refused}");
    let taken = directory.path().join("directory");
    fs::create_dir(&taken).expect("directory");
    Board::create(Some(&taken), &Shape::new(1, 1, 0), &BIRTH, &facts()).expect_err("refused");
    let names: Vec<_> = fs::read_dir(directory.path()).expect("list").collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(taken.is_dir());
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().expect("directory");
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    assert!(matches!(Snapshot::read(&pipe), Err(SnapshotError::NotAScoreboard)));
    assert!(matches!(Snapshot::read(directory.path()), Err(SnapshotError::NotAScoreboard)));
    let missing = Snapshot::read(&directory.path().join("missing")).expect_err("refused");
    assert!(missing.to_string().ends_with("/missing"), "{missing}");
}

/// The bytes of a board as a file would have them.
pub fn bytes_of(board: &Board) -> Vec<u8> {
    let mut bytes = vec![0; board.shape().file_size() as usize];
    board.file_of_tests().read_exact_at(&mut bytes, 0).expect("read");
    bytes
}

#[test]
fn files_that_are_not_whole_are_refused_not_touched() {
    let bytes = bytes_of(&lived_in());
    assert!(Snapshot::of_bytes(&bytes).is_ok());
    for length in [0, 1, 8, 2047] {
        assert!(matches!(Snapshot::of_bytes(&bytes[..length]), Err(SnapshotError::NotAScoreboard)));
    }
    for length in [2048, 4096, bytes.len() - 1] {
        assert!(matches!(Snapshot::of_bytes(&bytes[..length]), Err(SnapshotError::Short { .. })));
    }
    let with = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        Snapshot::of_bytes(&bytes).expect_err("refused").to_string()
    };
    assert_eq!(with(0, b"X"), "not a scoreboard of ours");
    assert_eq!(
        with(offset_of!(Header, layout), &2u32.to_ne_bytes()),
        "a scoreboard of layout 2; this program reads layout 1"
    );
    assert_eq!(
        with(offset_of!(Header, byte_order), &0x0403_0201u32.to_ne_bytes()),
        "a scoreboard from a machine of the other byte order"
    );
    for (at, what) in [
        (offset_of!(Header, slot_table), "the place of a table"),
        (offset_of!(Header, backend_table), "the place of a table"),
        (offset_of!(Header, totals), "the place of a table"),
        (offset_of!(Header, slots), "the number of slots"),
        (offset_of!(Header, backend_rows), "the number of backends"),
        (offset_of!(Header, worker_row_size), "the size of a row"),
        (2048, "the place of a slot"),
        (2048 + 16, "the number of workers"),
    ] {
        assert_eq!(with(at, &[0xff; 4]), format!("the scoreboard contradicts itself: {what}"), "{at}");
    }
}

#[test]
fn a_master_or_child_that_died_while_writing_leaves_what_can_be_read() {
    let mut board = board();
    let block = board.lend(SlotIndex(0), &LOAN, Moment(1)).expect("lent");
    let row = block.worker(WorkerIndex(0));
    row.request(&request(b"GET /whole HTTP/1.1", "h", 2));
    row.hold(7);
    block.workers[0].sequence.fetch_add(1, Relaxed);
    board.header_of_tests().sequence.fetch_add(1, Relaxed);
    board.totals_of_tests().sequence.fetch_add(1, Relaxed);
    let snapshot = board.reader().snapshot().expect("a snapshot");
    assert!(!snapshot.settled);
    assert_eq!(snapshot.server.mpm, "event");
    let worker = &snapshot.children[0].workers[0];
    assert_eq!((&worker.request, worker.letter(), worker.tid), (&Shown::Torn, 'R', 7));
    // The next writer of the row goes on from there.
    row.request(&request(b"GET /next HTTP/1.1", "h", 3));
    let snapshot = board.reader().snapshot().expect("a snapshot");
    assert!(snapshot.children[0].workers[0].request().is_some());
}

#[test]
fn a_child_that_writes_garbage_is_clamped() {
    let mut board = board();
    let block = board.lend(SlotIndex(0), &LOAN, Moment(1)).expect("lent");
    let row = &block.workers[1];
    row.state.store(200, Relaxed);
    row.requests.store(u64::MAX, Relaxed);
    row.backend.store(u32::MAX, Relaxed);
    row.started.store(u64::MAX, Relaxed);
    row.lengths.store(u64::MAX, Relaxed);
    row.client_family.store(u64::MAX, Relaxed);
    row.line.iter().for_each(|word| word.store(0x1b1b_1b1b_0a0a_0a0a, Relaxed));
    block.process.threads.store(u32::MAX, Relaxed);
    block.process.stage.store(77, Relaxed);
    block.set_busy(u32::MAX);
    let snapshot = board.reader().snapshot().expect("a snapshot");
    let child = &snapshot.children[0];
    assert_eq!((child.workers.len(), child.busy, child.stage, child.is_alive()), (4, 4, None, false));
    let worker = &child.workers[1];
    assert_eq!(
        (worker.letter(), worker.is_busy(), worker.requests, worker.backend),
        ('?', false, MAX_COUNT, None)
    );
    let request = worker.request().expect("a request");
    assert_eq!((request.client, request.line.len()), (None, 128 * 4));
    assert!(request.line.starts_with("\\x0a\\x0a"));
    board.take_back(SlotIndex(0), Ending::Fault, Moment(2));
    assert_eq!(board.reader().snapshot().expect("a snapshot").totals.requests, MAX_COUNT);
}

#[test]
fn a_reader_never_sees_half_a_string() {
    let mut board = board();
    let block = board.lend(SlotIndex(0), &LOAN, Moment(1)).expect("lent");
    let reader = board.reader();
    let done = AtomicBool::new(false);
    let mut whole = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let row = block.worker(WorkerIndex(2));
            let mut round = 0u64;
            while !done.load(Relaxed) {
                let letter = b'a' + (round % 26) as u8;
                let line = vec![letter; 1 + (round as usize * 7) % 128];
                let host = String::from_utf8(vec![letter; 1 + (round as usize * 5) % 80]).expect("ascii");
                row.request(&request(&line, &host, 1 + u64::from(letter)));
                round += 1;
                if round.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
        });
        for _ in 0..2000 {
            let snapshot = reader.snapshot().expect("a snapshot");
            let Some(request) = snapshot.children[0].workers[2].request() else { continue };
            whole += 1;
            let letter = request.line.as_bytes()[0];
            let text = [request.line.as_bytes(), request.host.as_bytes()].concat();
            assert!(text.iter().all(|byte| *byte == letter), "torn: {request:?}");
            assert_eq!(request.started, 1 + u64::from(letter));
        }
        done.store(true, Relaxed);
    });
    assert!(whole > 0, "eight tries find the row still at least now and then");
}

#[test]
fn no_counter_goes_backwards_while_children_come_and_go() {
    let mut board = board();
    let reader = board.reader();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut last = (0, 0, 0, 0);
            let mut seen = 0;
            while !done.load(Relaxed) {
                let snapshot = reader.snapshot().expect("a snapshot");
                if !snapshot.settled {
                    continue;
                }
                seen += 1;
                let totals = &snapshot.totals;
                let backend = snapshot.backends[0].requests;
                let now = (totals.requests, totals.bytes_out, totals.latency.total(), backend);
                assert!(
                    now.0 >= last.0 && now.1 >= last.1 && now.2 >= last.2 && now.3 >= last.3,
                    "{last:?} to {now:?}"
                );
                last = now;
            }
            seen
        });
        for round in 0..300u32 {
            let slot = SlotIndex(round % 4);
            board.take_back(slot, Ending::Clean, Moment(3));
            let block = board.lend(slot, &LOAN, Moment(1)).expect("lent");
            for index in 0..4 {
                for _ in 0..25 {
                    block.worker(WorkerIndex(index)).finish(Moment(2), Some(3), 1, 10);
                    block.latency(u64::from(round));
                    block.backend(BackendId(0)).requests.fetch_add(1, Relaxed);
                }
            }
            // On one core the watcher, too, wants its turn.
            std::thread::yield_now();
        }
        done.store(true, Relaxed);
        assert!(watcher.join().expect("the watcher saw no step back") > 0);
    });
    let totals = board.reader().snapshot().expect("a snapshot").totals;
    assert_eq!((totals.requests, totals.bytes_out, totals.latency.total()), (30_000, 300_000, 30_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_are_never_believed(bytes in proptest::collection::vec(any::<u8>(), 0..8192)) {
        prop_assert!(Snapshot::of_bytes(&bytes).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A child can write all of its block, and a broken master the rest.
    #[test]
    fn a_damaged_board_is_an_error_or_a_snapshot(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..40),
        in_rows in any::<bool>(),
    ) {
        let board = lived_in();
        let mut bytes = bytes_of(&board);
        let header = Places::of(&board.shape(), shm::page_size() as u64).header_length as usize;
        let block = BlockPlaces::of(4, 0);
        let (start, end) = if in_rows { (header, header + block.latency as usize) } else { (16, 2048 + 128) };
        for (index, value) in damage {
            let at = start + index.index((end - start) / 8) * 8;
            bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        if let Ok(snapshot) = Snapshot::of_bytes(&bytes) {
            let _ = snapshot.last_sign();
            for worker in snapshot.children.iter().flat_map(|child| &child.workers) {
                let _ = (worker.letter(), worker.request().map(|request| request.shown_line()));
                prop_assert!(worker.requests <= MAX_COUNT);
            }
        } else {
            prop_assert!(!in_rows, "a child can't make the whole board unreadable");
        }
    }
}

#[test]
fn rows_do_not_share_cache_lines() {
    assert_eq!(size_of::<WorkerRow>() % 64, 0);
    assert_eq!(BlockPlaces::of(1, 1).workers % 64, 0);
    assert_eq!(offset_of!(WorkerRow, started), 64);
}
