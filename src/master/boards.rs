//! One scoreboard, or while a reload has changed its shape, several: the master's hand on all of them.
//!
//! A configuration that needs more room than the board has gets a new one, of a new inode, which takes the name once
//! its generation serves. Children forked before keep theirs; what they counted is added to the new one: at the
//! change what they had counted by then, and at their end the rest. So no counter goes backwards, and a slot's number
//! belongs to one child at a time on whichever board it is.

use crate::clock::Moment;
use crate::ids::{ChildPid, SlotIndex};
use crate::scoreboard::board::{Board, BoardError, BoardReader, Ending, Loan, Shape};
use crate::scoreboard::row::ChildBlock;
use crate::scoreboard::snapshot::Worker;
use crate::scoreboard::sums::Sums;
use std::io;
use std::ops::Range;
use std::path::Path;

/// A board that is not the current one any more, until its last child is gone.
#[derive(Debug)]
struct Former {
    board: Board,
    /// What of it the current board counts already.
    credited: Sums,
}

/// Every board that has a child.
#[derive(Debug)]
pub struct Boards {
    current: Board,
    /// For a generation that comes up and does not fit the current one.
    next: Option<Board>,
    former: Vec<Former>,
}

impl Boards {
    /// With one board.
    #[must_use]
    pub fn new(current: Board) -> Self {
        Self { current, next: None, former: Vec::new() }
    }

    /// The current one, for what its header tells.
    pub fn current(&mut self) -> &mut Board {
        &mut self.current
    }

    /// What the current one has room for.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.current.shape()
    }

    /// How many slots the board has on which a child of the current generation, or of the `next`, is forked.
    #[must_use]
    pub fn slots(&self, next: bool) -> u32 {
        let board = self.next.as_ref().filter(|_| next).unwrap_or(&self.current);
        board.shape().slots()
    }

    /// Where on its board a child of the current generation, or of the `next`, is to be put: in the first of these
    /// ranges that has room.
    ///
    /// A generation that comes up with a larger board begins behind the end of the current one. Lower down it could
    /// take every slot that the current generation has to grow into, and that one has to bear the load meanwhile.
    #[must_use]
    pub fn places(&self, next: bool) -> [Range<u32>; 2] {
        let slots = self.slots(next);
        [if next && self.next.is_some() { self.slots(false)..slots } else { 0..slots }, 0..slots]
    }

    /// What the board has room for that a generation would get which needs this much: at least what there is now, so
    /// that every slot keeps its number.
    #[must_use]
    pub fn grown(&self, wanted: &Shape) -> Shape {
        let now = self.shape();
        Shape {
            server_limit: now.server_limit.max(wanted.server_limit),
            thread_limit: now.thread_limit.max(wanted.thread_limit),
            backend_rows: now.backend_rows.max(wanted.backend_rows),
        }
    }

    /// The generation that comes up counts on `board`, which has no name yet.
    pub fn prepare(&mut self, board: Board) {
        self.next = Some(board);
    }

    /// The generation that came up does not serve.
    pub fn withdraw(&mut self, path: Option<&Path>) {
        if let Some(board) = self.next.take() {
            path.into_iter().for_each(Board::abandon);
            // Its children may still serve: they keep it, and it is counted with the current one in the end.
            self.former.push(Former { board, credited: Sums::default() });
            self.forget();
        }
    }

    /// The generation that came up serves: if it has a board of its own, that is the current one now.
    ///
    /// # Errors
    /// If it can't be given its name; it is the current one all the same.
    pub fn advance(&mut self, path: Option<&Path>) -> io::Result<()> {
        let Some(next) = self.next.take() else { return Ok(()) };
        let former = std::mem::replace(&mut self.current, next);
        self.current.succeed(&former);
        let mut published = Ok(());
        // Whoever reads the new board waits until it has all that could be read on the former as long as that had
        // the name.
        let credited = self.current.credit(&former, None, || published = path.map_or(Ok(()), Board::publish));
        self.former.push(Former { board: former, credited });
        self.forget();
        published
    }

    /// The board that a child of the current generation, or of the one that comes up, is forked on.
    pub fn lending(&mut self, next: bool) -> &mut Board {
        match &mut self.next {
            Some(board) if next => board,
            _ => &mut self.current,
        }
    }

    /// Lends a slot; see [`Board::lend`].
    ///
    /// # Errors
    /// If the board has no room.
    pub fn lend(
        &mut self,
        next: bool,
        slot: SlotIndex,
        loan: &Loan<'_>,
        now: Moment,
    ) -> Result<(ChildBlock, BoardReader), BoardError> {
        let board = self.lending(next);
        Ok((board.lend(slot, loan, now)?, board.reader()))
    }

    /// The child in `slot` has been forked and this is its number.
    pub fn set_pid(&mut self, next: bool, slot: SlotIndex, pid: ChildPid) {
        self.lending(next).set_pid(slot, pid);
    }

    /// The child in `slot` has ended.
    pub fn take_back(&mut self, slot: SlotIndex, ending: Ending, now: Moment) {
        // At most one of them has lent it.
        self.current.take_back(slot, ending, now);
        self.next.iter_mut().for_each(|board| board.take_back(slot, ending, now));
        self.former.iter_mut().for_each(|former| former.board.take_back(slot, ending, now));
        self.forget();
    }

    /// Counts what the last child of a former board has left, and gives that board up.
    fn forget(&mut self) {
        let current = &self.current;
        self.former.retain(|former| {
            let is_used = former.board.is_lent();
            if !is_used {
                current.credit(&former.board, Some(&former.credited), || ());
            }
            is_used
        });
    }

    /// In a child, right after the fork: everything but its own block becomes read-only.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn protect_others(&self, next: bool, slot: SlotIndex) -> io::Result<()> {
        let own = self.next.as_ref().filter(|_| next).unwrap_or(&self.current);
        for board in self.all() {
            if std::ptr::eq(board, own) {
                board.protect_others(slot)?;
            } else {
                board.protect_all()?;
            }
        }
        Ok(())
    }

    /// In a process without a slot, right after the fork: all of it becomes read-only.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn protect_all(&self) -> io::Result<()> {
        self.all().try_for_each(Board::protect_all)
    }

    fn all(&self) -> impl Iterator<Item = &Board> {
        let former = self.former.iter().map(|former| &former.board);
        [&self.current].into_iter().chain(&self.next).chain(former)
    }

    /// Worker rows that the child in `slot` says it holds.
    #[must_use]
    pub fn busy(&self, slot: SlotIndex) -> u32 {
        self.all().map(|board| board.busy(slot)).max().unwrap_or(0)
    }

    /// Open connections that the child in `slot` says it has.
    #[must_use]
    pub fn connections(&self, slot: SlotIndex) -> u32 {
        self.all().map(|board| board.connections(slot)).max().unwrap_or(0)
    }

    /// Whether the child in `slot` says that it has tunnels.
    #[must_use]
    pub fn has_tunnels(&self, slot: SlotIndex) -> bool {
        self.all().any(|board| board.has_tunnels(slot))
    }

    /// Whether the child in `slot` says that it has nothing left but tunnels.
    #[must_use]
    pub fn has_only_tunnels(&self, slot: SlotIndex) -> bool {
        self.all().any(|board| board.has_only_tunnels(slot))
    }

    /// What the workers of `slot` hold.
    #[must_use]
    pub fn post_mortem(&self, slot: SlotIndex) -> Vec<Worker> {
        self.all().map(|board| board.post_mortem(slot)).find(|held| !held.is_empty()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BackendId, Generation, WorkerIndex};
    use crate::scoreboard::board::Birth;
    use crate::scoreboard::facts::Facts;
    use std::sync::atomic::Ordering::Relaxed;

    fn board(shape: &Shape) -> Board {
        let birth = Birth { pid: 1, now: Moment(1), wall_micros: 1 };
        let facts = Facts {
            generation: Generation(1),
            wall_micros: 1,
            mpm: "event",
            version: "Ostler/0.1.0",
            server_name: "a.test",
            config_path: None,
            listeners: "",
            max_request_workers: 4,
            threads_per_child: 2,
            min_spare: 1,
            max_spare: 4,
            start_servers: 1,
            extended: true,
        };
        Board::prepare(None, shape, &birth, &facts).expect("memory")
    }

    fn lend(boards: &mut Boards, next: bool, slot: u32) -> ChildBlock {
        let loan = Loan {
            generation: Generation(1),
            mpm: "event",
            threads: 2,
            extended: true,
            see_request_tail: false,
        };
        boards.lend(next, SlotIndex(slot), &loan, Moment(2)).expect("room").0
    }

    fn serve(block: &ChildBlock, requests: u64) {
        for _ in 0..requests {
            block.worker(WorkerIndex(0)).finish(Moment(3), Some(1), 10, 100);
        }
        block.backend(BackendId(9)).requests.fetch_add(requests, Relaxed);
    }

    /// Requests, and those of the backends that have no row of their own.
    fn counted(boards: &mut Boards) -> (u64, u64) {
        let snapshot = boards.current().reader().snapshot().expect("a snapshot");
        (snapshot.totals.requests, snapshot.backends.last().map_or(0, |others| others.requests))
    }

    #[test]
    fn nothing_is_lost_or_counted_twice_when_the_board_changes() {
        let small = Shape { server_limit: 1, thread_limit: 2, backend_rows: 1 };
        let mut boards = Boards::new(board(&small));
        let (gone, stays) = (lend(&mut boards, false, 0), lend(&mut boards, false, 1));
        serve(&gone, 5);
        serve(&stays, 7);
        boards.take_back(SlotIndex(0), Ending::Clean, Moment(4));
        assert_eq!(counted(&mut boards), (12, 12));

        let large = boards.grown(&Shape { server_limit: 4, thread_limit: 1, backend_rows: 3 });
        assert_eq!(large, Shape { server_limit: 4, thread_limit: 2, backend_rows: 3 });
        assert_eq!(boards.places(true), [0..2, 0..2]);
        boards.prepare(board(&large));
        assert_eq!(boards.places(true), [2..8, 0..8], "what is the current generation's is taken last");
        assert_eq!(boards.places(false), [0..2, 0..2]);
        let new = lend(&mut boards, true, 5);
        serve(&new, 100);
        assert_eq!(counted(&mut boards).0, 12, "it is not in force yet");
        boards.advance(None).expect("without a name nothing can fail");
        assert_eq!(counted(&mut boards).0, 112);
        assert_eq!((boards.shape(), boards.former.len()), (large, 1));

        stays.set_busy(2);
        assert_eq!((boards.busy(SlotIndex(1)), boards.busy(SlotIndex(5))), (2, 0), "each on its own board");
        serve(&stays, 3);
        assert_eq!(counted(&mut boards).0, 112, "told when it has ended");
        boards.take_back(SlotIndex(1), Ending::Clean, Moment(5));
        assert_eq!((counted(&mut boards).0, boards.former.len()), (115, 0));
    }

    /// Requests by url, those of all others last.
    fn by_url(boards: &mut Boards) -> Vec<(String, u64)> {
        let snapshot = boards.current().reader().snapshot().expect("a snapshot");
        snapshot.backends.iter().map(|backend| (backend.url.clone(), backend.requests)).collect()
    }

    fn ask(block: &ChildBlock, backend: u32, requests: u64) {
        block.backend(BackendId(backend)).requests.fetch_add(requests, Relaxed);
    }

    #[test]
    fn what_a_refused_generation_served_is_counted_with_its_urls_or_with_the_others() {
        let small = Shape { server_limit: 1, thread_limit: 2, backend_rows: 3 };
        let mut boards = Boards::new(board(&small));
        boards.current().set_backends(Generation(1), ["a", "b"]);
        let old = lend(&mut boards, false, 0);
        let large = boards.grown(&Shape { backend_rows: 8, ..small });
        let mut next = board(&large);
        next.keep_rows_of(boards.current());
        boards.prepare(next);
        boards.lending(true).set_backends(Generation(2), ["new", "b", "further", "a"]);
        let new = lend(&mut boards, true, 1);
        (0..4).for_each(|backend| ask(&new, backend, 10 + u64::from(backend)));
        ask(&new, 9, 1000);
        ask(&old, 0, 3);
        boards.withdraw(None);
        boards.take_back(SlotIndex(1), Ending::Clean, Moment(5));
        let named = |url: &str, requests| (url.to_owned(), requests);
        assert_eq!(boards.former.len(), 0);
        assert_eq!(by_url(&mut boards)[..2], [named("a", 16), named("b", 11)]);
        assert_eq!(by_url(&mut boards).last().map(|others| others.1), Some(1000 + 10 + 12));
    }

    #[test]
    fn a_generation_that_is_not_to_be_leaves_the_board_as_it_was() {
        let small = Shape { server_limit: 1, thread_limit: 2, backend_rows: 1 };
        let mut boards = Boards::new(board(&small));
        boards.prepare(board(&Shape { server_limit: 2, ..small }));
        let new = lend(&mut boards, true, 3);
        boards.withdraw(None);
        assert_eq!(boards.shape(), small);
        serve(&new, 4);
        boards.take_back(SlotIndex(3), Ending::Clean, Moment(5));
        assert_eq!((counted(&mut boards).0, boards.former.len()), (4, 0), "it has served all the same");
    }
}
