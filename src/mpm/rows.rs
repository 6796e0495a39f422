//! The worker rows of an event child: an exchange holds exactly one, from its complete head to the last byte of
//! its response. Who finds none waits here, first come, first served.

use super::table::{Posted, Table};
use super::tokens::Aged;
use crate::ids::WorkerIndex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The rows of a child.
#[derive(Debug)]
pub struct Rows {
    inner: Mutex<Inner>,
    busy: AtomicU32,
    total: u32,
    loose: Loose,
}

/// Bytes of connections that hold no row (tunnels, mostly) and are still to be added to one: only its holder may write
/// to a row. Tunnels write here often, and nothing that every request looks at is beside it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Loose {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    /// Free rows; the one that was given back last is taken first, since its memory is warm.
    free: Vec<WorkerIndex>,
    /// Who waits, and whether nothing of its request has been read.
    waiting: VecDeque<(Aged, bool)>,
}

/// What came of giving a row back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Freed {
    /// It is free.
    Free,
    /// It went to a connection that waited; if `queue`, the caller puts that one into the run queue.
    Granted {
        /// Whom it went to.
        who: Aged,
        /// Whether it must be put into the run queue.
        queue: bool,
    },
}

impl Rows {
    /// `total` free rows.
    #[must_use]
    pub fn new(total: u32) -> Self {
        let free = (0..total).rev().map(WorkerIndex).collect();
        let inner = Mutex::new(Inner { free, waiting: VecDeque::new() });
        Self { inner, busy: AtomicU32::new(0), total, loose: Loose::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows held now.
    #[must_use]
    pub fn busy(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Whether all are held.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.busy() == self.total
    }

    /// Takes a row; with none free, `who` goes to the end of the line. Also says whether it was the last free one.
    /// `unread`: nothing of its request has been read yet. `show` is told how many are held, under the lock: the last
    /// word is the true one.
    pub fn take(&self, who: Aged, unread: bool, show: impl FnOnce(u32)) -> Option<(WorkerIndex, bool)> {
        let mut inner = self.lock();
        let row = inner.free.pop();
        match row {
            Some(row) => {
                let busy = self.busy.load(Ordering::Relaxed) + 1;
                self.busy.store(busy, Ordering::Relaxed);
                show(busy);
                Some((row, busy == self.total))
            }
            None => {
                inner.waiting.push_back((who, unread));
                None
            }
        }
    }

    /// Gives a row back, or to whoever has waited longest; `show` as for [`Rows::take`].
    pub fn give<T>(&self, row: WorkerIndex, table: &Table<T>, show: impl FnOnce(u32)) -> Freed {
        let mut inner = self.lock();
        while let Some((who, _)) = inner.waiting.pop_front() {
            match table.grant(who, row.0) {
                Posted::Gone => {}
                posted => return Freed::Granted { who, queue: posted == Posted::Queue },
            }
        }
        inner.free.push(row);
        let busy = self.busy.load(Ordering::Relaxed).saturating_sub(1);
        self.busy.store(busy, Ordering::Relaxed);
        show(busy);
        Freed::Free
    }

    /// A connection that waited goes away. After this no row can be granted to it.
    pub fn leave_line(&self, who: Aged) {
        self.lock().waiting.retain(|(other, _)| *other != who);
    }

    /// Counts bytes from and to the client of a connection that holds no row.
    pub fn count_loose(&self, bytes_in: u64, bytes_out: u64) {
        self.loose.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.loose.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
    }

    /// Gives what has been counted so to `add`, with a free row, which nobody else takes meanwhile. With none free, or
    /// nothing counted, it does nothing.
    pub fn settle(&self, add: impl FnOnce(WorkerIndex, u64, u64)) {
        let Loose { bytes_in, bytes_out } = &self.loose;
        if bytes_in.load(Ordering::Relaxed) == 0 && bytes_out.load(Ordering::Relaxed) == 0 {
            return;
        }
        let inner = self.lock();
        if let Some(row) = inner.free.last() {
            add(*row, bytes_in.swap(0, Ordering::Relaxed), bytes_out.swap(0, Ordering::Relaxed));
        }
    }

    /// Keeps no more room than those need who wait now.
    pub fn give_back(&self) {
        self.lock().waiting.shrink_to_fit();
    }

    /// Who has waited longest of those of whose requests nothing has been read.
    #[must_use]
    pub fn longest_unread(&self) -> Option<Aged> {
        if self.is_full() { self.first_unread(1).pop() } else { None }
    }

    /// The first `most` who wait and of whose requests nothing has been read; they stay in the line.
    #[must_use]
    pub fn first_unread(&self, most: usize) -> Vec<Aged> {
        let inner = self.lock();
        inner.waiting.iter().filter(|(_, unread)| *unread).map(|(who, _)| *who).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_those_who_waited_in_their_order() {
        let table: Table<()> = Table::new(8).expect("address space");
        let rows = Rows::new(1);
        let idle = || {
            let (who, conn) = table.insert(|_| ()).expect("room");
            assert!(table.end(who.index, conn));
            who
        };
        let whos: Vec<Aged> = (0..3).map(|_| idle()).collect();
        let (row, last) = rows.take(whos[0], true, |_| {}).expect("free");
        assert!(last && rows.is_full());
        assert_eq!(rows.take(whos[1], false, |_| {}), None);
        assert_eq!(rows.take(whos[2], true, |_| {}), None);
        assert_eq!(rows.longest_unread(), Some(whos[2]));
        assert_eq!(rows.first_unread(5), [whos[2]]);
        assert_eq!(rows.give(row, &table, |_| {}), Freed::Granted { who: whos[1], queue: true });
        assert_eq!(table.take_grant(whos[1].index), Some(row.0));
        rows.leave_line(whos[2]);
        assert_eq!(rows.give(row, &table, |_| {}), Freed::Free);
        assert_eq!(rows.busy(), 0);
    }

    #[test]
    fn what_was_counted_without_a_row_is_given_to_a_free_one_once() {
        let table: Table<()> = Table::new(8).expect("address space");
        let rows = Rows::new(2);
        let (who, _) = table.insert(|_| ()).expect("room");
        let settled = || {
            let mut added = Vec::new();
            rows.settle(|row, bytes_in, bytes_out| added.push((row.0, bytes_in, bytes_out)));
            added
        };
        assert_eq!(settled(), []);
        rows.count_loose(1, 20);
        rows.count_loose(2, 0);
        let (held, _) = rows.take(who, true, |_| {}).expect("free");
        let (other, _) = rows.take(who, true, |_| {}).expect("free");
        assert_eq!(settled(), [], "each row has its writer");
        rows.give(other, &table, |_| {});
        assert_ne!(held, other);
        assert_eq!(settled(), [(other.0, 3, 20)]);
        assert_eq!(settled(), []);
    }
}
