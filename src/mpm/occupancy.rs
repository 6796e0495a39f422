//! How full a child is: its connections by what they do, its worker rows, and what the master is told of both.

use super::child::{Child, Gauge};
use super::conn::Conn;
use super::rows::Freed;
use super::tokens::Aged;
use crate::ids::WorkerIndex;
use crate::orders::Word;
use crate::proxy::session::Phase;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl Child {
    pub(super) fn gauge(&self, from: Gauge, to: Gauge) {
        let counts = self.block.connections();
        let gauge = |gauge: Gauge| match gauge {
            Gauge::None | Gauge::Exchange => None,
            Gauge::Heads => Some(&counts.wait_io),
            Gauge::KeepAlive => Some(&counts.keep_alive),
            Gauge::Closing => Some(&counts.closing),
            Gauge::Tunnel => Some(&counts.tunnels),
        };
        if let Some(gauge) = gauge(from) {
            gauge.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(gauge) = gauge(to) {
            gauge.fetch_add(1, Ordering::Relaxed);
        }
        if from == Gauge::None {
            counts.total.fetch_add(1, Ordering::Relaxed);
        } else if to == Gauge::None {
            counts.total.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A connection has been accepted, or has been `taken_over` from another child.
    pub(super) fn arrived(&self, taken_over: bool) {
        self.open.fetch_add(1, Ordering::SeqCst);
        let counts = self.block.connections();
        let counter = if taken_over { &counts.taken_over } else { &counts.accepted };
        counter.fetch_add(1, Ordering::Relaxed);
        if self.quota.connection() {
            self.say(Word::NearEnd);
        }
    }

    /// A request has begun.
    pub(super) fn begun(&self) {
        if self.quota.request() {
            self.say(Word::NearEnd);
        }
    }

    /// The master asks how we are: what it may have missed is said again.
    pub(super) fn repeat(&self) {
        if self.quota.is_near() && !self.is_leaving() {
            self.say(Word::NearEnd);
        }
    }

    /// A connection is gone.
    pub(super) fn closed(&self) {
        let left = self.open.fetch_sub(1, Ordering::SeqCst) - 1;
        if left == 0 && self.is_leaving() {
            self.perhaps_over();
        }
        self.perhaps_open();
    }

    /// Tells the master. A master that does not read is told later, by its own ping, or is gone.
    pub(super) fn say(&self, word: Word) {
        let _ = self.orders.send_word(word);
    }

    /// Under worker and prefork a connection holds its thread's row from accept to close.
    pub(super) fn rows_are_held_by_connections(&self) -> bool {
        self.event.is_none()
    }

    /// Whether whoever needs a row now has to wait for it.
    pub(super) fn has_no_row(&self) -> bool {
        self.event.as_ref().is_some_and(|event| event.rows.is_full())
    }

    /// A row, or a place in the line.
    pub(super) fn take_row(&self, who: Aged, unread: bool) -> Option<WorkerIndex> {
        let event = self.event.as_ref()?;
        let (row, last) = event.rows.take(who, unread, |busy| self.block.set_busy(busy))?;
        if last {
            self.say_full();
        }
        Some(row)
    }

    /// Rows held now.
    pub(super) fn busy_now(&self) -> u32 {
        match &self.event {
            Some(event) => event.rows.busy(),
            None => *self.serving(),
        }
    }

    /// A thread of a worker child has taken a connection.
    pub(super) fn takes_one(&self) {
        let full = {
            let mut serving = self.serving();
            *serving += 1;
            self.block.set_busy(*serving);
            *serving == self.config.limits.threads_per_child
        };
        if full {
            self.say_full();
        }
    }

    /// A thread of a worker child is done with its connection.
    pub(super) fn finished_one(&self) {
        let mut serving = self.serving();
        *serving -= 1;
        self.block.set_busy(*serving);
    }

    fn serving(&self) -> std::sync::MutexGuard<'_, u32> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last row is taken: the master may have to fork. Said at most every 100 ms.
    pub(super) fn say_full(&self) {
        let now = self.now().0;
        let last = self.said_full.load(Ordering::Relaxed);
        if now.saturating_sub(last) > 100_000 {
            self.said_full.store(now, Ordering::Relaxed);
            self.say(Word::Full);
        }
    }

    pub(super) fn granted_row(&self, who: Aged) -> Option<WorkerIndex> {
        self.event.as_ref()?.table.take_grant(who.index).map(WorkerIndex)
    }

    /// Gives back the row of a connection that does not need it now (event; elsewhere connections keep theirs).
    pub(super) fn give_row(&self, conn: &mut Conn) {
        let Some(event) = &self.event else { return };
        let Some(row) = conn.row.take() else { return };
        self.block.worker(row).free();
        match event.rows.give(row, &event.table, |busy| self.block.set_busy(busy)) {
            Freed::Granted { who, queue } => {
                if queue {
                    self.lead.push(who.index);
                }
            }
            Freed::Free => {
                self.perhaps_open();
            }
        }
    }

    /// Adds what was counted without a row to one that is free.
    pub(super) fn settle(&self) {
        if let Some(event) = &self.event {
            event.rows.settle(|row, bytes_in, bytes_out| self.block.worker(row).passed(bytes_in, bytes_out));
        }
    }

    /// A connection goes away: it waits for nothing any more.
    pub(super) fn leave_line(&self, conn: &mut Conn) {
        if let Some(event) = &self.event {
            if conn.row.is_none() && conn.session.phase() == Phase::Row {
                event.rows.leave_line(conn.who);
            }
            if conn.row.is_none() {
                conn.row = self.granted_row(conn.who);
            }
            self.give_row(conn);
        }
    }
}
