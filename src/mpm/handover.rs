//! When and how a connection between two requests goes to another child (`HandOver`, event driver).
//!
//! All children hold both ends of one SOCK_SEQPACKET pair. A child that leaves sends what is idle there, so that no
//! client is closed and the child is gone with its last request; a child whose worker rows are all held sends those
//! on which a new request has arrived, while a sibling has a row free. Whoever has room receives (see `accept`), so
//! that a receiver that is killed strands nothing. Where the socket takes no more, a connection stays where it is.
//!
//! Nothing may be left in the socket when nobody receives any more: a child that leaves without an heir stops
//! sending, and then takes back what it finds there, its own last words included.

use super::balance::{self, Advice, Own};
use super::child::{Child, Event};
use super::conn::Conn;
use super::event::{self, accept_handed};
use super::table::News;
use super::tokens::Aged;
use crate::clock::Moment;
use crate::log::line::cause;
use crate::proxy::session::Phase;
use crate::sys::passing;
use mio::unix::SourceFd;
use slog::{error, warn};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Connections that are looked at again at once after the socket was full: some more than it holds.
const BATCH: u32 = 512;

/// So many clients between two looks of the steward are a burst.
const BURST: u32 = 4;

/// The sending end, and what is to be done with it.
#[derive(Debug)]
pub struct HandOver {
    socket: OwnedFd,
    /// Connections that have come since the steward's last look.
    came: AtomicU32,
    /// This child is leaving, and others take over its idle connections.
    has_heir: AtomicBool,
    /// The socket took no more; idle connections wait until the steward's next look.
    full: AtomicBool,
    /// Idle connections that have to be looked at again begin at this number, plus 1; 0: none has to.
    again_from: AtomicU32,
    /// Whether the socket has been full since that number was last 1.
    was_full: AtomicBool,
    /// A leader has to carry on from there.
    retry: AtomicBool,
    /// So many connections that wait for a row are better off elsewhere.
    go_over: AtomicU32,
    /// So many connections are to go (see `balance`): each when it is between two requests.
    surplus: AtomicU32,
    /// Whoever says that it takes over connections does not (see `balance`).
    on_its_own: AtomicBool,
    /// A leader has to take what is there: nobody else may, or this child may have been woken for it, and watches no more.
    take_back: AtomicBool,
    /// Another fault than a full socket has been told of.
    complained: AtomicBool,
}

impl HandOver {
    /// `socket` is the sending end.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            came: AtomicU32::new(0),
            has_heir: AtomicBool::new(false),
            full: AtomicBool::new(false),
            again_from: AtomicU32::new(0),
            was_full: AtomicBool::new(false),
            retry: AtomicBool::new(false),
            go_over: AtomicU32::new(0),
            surplus: AtomicU32::new(0),
            on_its_own: AtomicBool::new(false),
            take_back: AtomicBool::new(false),
            complained: AtomicBool::new(false),
        }
    }

    /// The child leaves. With no heir, it has to take back what was not taken over.
    pub fn leaving(&self, has_heir: bool) {
        self.has_heir.store(has_heir, Ordering::SeqCst);
        if !has_heir {
            self.take_back.store(true, Ordering::SeqCst);
        }
    }

    /// Whether this child is leaving and others take over its idle connections.
    #[must_use]
    pub fn has_heir(&self) -> bool {
        self.has_heir.load(Ordering::Relaxed)
    }

    /// Whether an idle connection should try now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.has_heir() && !self.full.load(Ordering::Relaxed)
    }

    /// Whether a leader has yet to take what is there.
    #[must_use]
    pub fn has_to_take_back(&self) -> bool {
        self.take_back.load(Ordering::SeqCst)
    }

    fn refused(&self, fault: &io::Error, child: &Child) {
        self.full.store(true, Ordering::Relaxed);
        self.was_full.store(true, Ordering::Relaxed);
        let _ = self.again_from.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed);
        if !passing::is_full(fault) && !self.complained.swap(true, Ordering::Relaxed) {
            warn!(child.log, "cannot hand a connection over to another child: {}; it stays here", cause(fault);
                "module" => "mpm_event");
        }
    }

    /// The steward's look: whether there is something for a leader to do, because the socket was full, or because
    /// `vacancies` worker rows of siblings are free while requests wait here.
    pub fn look(&self, vacancies: u32) -> bool {
        self.full.store(false, Ordering::Relaxed);
        self.came.store(0, Ordering::Relaxed);
        let retry = self.is_unfinished();
        self.retry.store(retry, Ordering::Release);
        self.go_over.store(vacancies, Ordering::Relaxed);
        retry || vacancies > 0
    }

    /// From now on so many connections are to go, each when it is between two requests.
    pub fn set_surplus(&self, count: u32) {
        self.surplus.store(count, Ordering::Relaxed);
    }

    /// Whether siblings are to be relied on.
    pub fn set_on_its_own(&self, on_its_own: bool) {
        self.on_its_own.store(on_its_own, Ordering::Relaxed);
    }

    fn is_on_its_own(&self) -> bool {
        self.on_its_own.load(Ordering::Relaxed)
    }

    /// Whether this child had more than its share when the steward last looked, and has given less than that.
    #[must_use]
    pub fn has_surplus(&self) -> bool {
        self.surplus.load(Ordering::Relaxed) > 0
    }

    /// Whether one connection more should go; it counts as gone.
    fn gives_away(&self) -> bool {
        self.has_surplus()
            && !self.full.load(Ordering::Relaxed)
            && self
                .surplus
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1))
                .is_ok()
    }

    /// Whether idle connections wait for room in the socket.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.has_heir() && self.again_from.load(Ordering::Relaxed) != 0
    }
}

impl Child {
    /// Whether idle connections are leaving for other children.
    pub(super) fn may_hand_over(&self) -> bool {
        self.hand_over.as_ref().is_some_and(HandOver::has_heir)
    }

    /// Whether a connection that is between two requests, and has this news, should go to another child now.
    pub(super) fn hands_over(&self, news: News) -> bool {
        self.hand_over
            .as_ref()
            .is_some_and(|over| over.is_open() || news.has(News::GO_OVER) || over.gives_away())
    }

    /// Whether others should accept for now.
    pub(super) fn is_ahead(&self) -> bool {
        self.hand_over.as_ref().is_some_and(|over| over.has_surplus() || self.has_enough())
    }

    /// A client has come; whether others should accept for now. In a burst, in which the steward is too slow to say so,
    /// each [`BURST`]th compares.
    pub(super) fn is_ahead_with_one_more(&self) -> bool {
        self.hand_over.as_ref().is_some_and(|over| {
            let came = over.came.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            over.has_surplus() || (came.is_multiple_of(BURST) && self.has_enough())
        })
    }

    fn has_enough(&self) -> bool {
        if self.hand_over.as_ref().is_none_or(HandOver::is_on_its_own) {
            return false;
        }
        let connections = self.block.connections().total.load(Ordering::Relaxed);
        balance::has_enough(connections, self.block.load(), &self.block.siblings(), self.bunch())
    }

    /// So many connections come to one child before it is another's turn.
    pub(super) fn bunch(&self) -> u32 {
        match self.block.children() {
            1 => u32::MAX,
            // Those that serve one connection at a time have one by one.
            _ if self.event.is_none() => 1,
            children => balance::bunch(children, self.cores, self.config.limits.threads_per_child),
        }
    }

    /// What the child knows of itself.
    pub(super) fn standing(&self) -> Own {
        let counts = self.block.connections();
        Own {
            connections: counts.total.load(Ordering::Relaxed),
            answered: self.block.answered(),
            handed_over: counts.handed_over.load(Ordering::Relaxed),
            bunch: self.bunch(),
        }
    }

    /// What the steward found is done from now on; `load` is what others compare with.
    pub(super) fn follow(&self, advice: Advice, load: u32) {
        let Some(over) = &self.hand_over else { return };
        // Before anything is given away: it would come back.
        match self.doors.take_from_others(advice.takes, self.now().tick()) {
            Ok(false) => {}
            Ok(true) => {
                over.take_back.store(true, Ordering::SeqCst);
                self.nudge_leader();
            }
            Err(fault) => {
                error!(self.log, "cannot watch for connections of other children: {}; this child accepts nothing for now",
                    cause(&fault); "module" => "mpm_event");
                self.nudge_leader();
            }
        }
        // Who has no room takes nothing, whatever its share.
        let has_room = !self.is_crowded() && (!self.doors.are_shut() || self.doors.is_aside());
        self.block.set_load(load, advice.takes && has_room);
        over.set_surplus(advice.give);
    }

    /// The connection whose request has waited longest for a worker row, of those that could go to another child.
    pub(super) fn longest_unread(&self) -> Option<Aged> {
        self.event.as_ref()?.rows.longest_unread()
    }

    /// Free worker rows of our siblings.
    pub(super) fn vacancies(&self) -> u32 {
        // A board that makes no sense now may do so at the next look.
        self.board.vacancies(self.generation, self.slot).unwrap_or(0)
    }
}

/// What a leader does between two polls: tells connections that it is time to go, takes back those that nobody took.
pub(super) fn lead(child: &Child, event: &Event, now: Moment, ready: &mut Vec<u32>) {
    let Some(over) = &child.hand_over else { return };
    // Every turn of the poll comes by here: a look costs less than a swap.
    if over.go_over.load(Ordering::Relaxed) > 0 {
        let go = over.go_over.swap(0, Ordering::Relaxed);
        super::event::listen_no_more(child, event, now, ready);
        for who in event.rows.first_unread(go as usize) {
            super::event::post(event, who, News::GO_OVER, ready);
        }
    }
    if over.retry.load(Ordering::Relaxed)
        && over.retry.swap(false, Ordering::Acquire)
        && let Some(first) = over.again_from.load(Ordering::Relaxed).checked_sub(1)
    {
        let (batch, next) = event.table.some(first, BATCH);
        for who in batch {
            super::event::post(event, who, News::TIMER, ready);
        }
        // A round in which the socket was full is followed by another.
        let next = next.map_or(u32::from(over.was_full.load(Ordering::Relaxed)), |next| next + 1);
        if next <= 1 {
            over.was_full.store(false, Ordering::Relaxed);
        }
        over.again_from.store(next, Ordering::Relaxed);
    }
    if over.has_to_take_back() {
        // The child is not over before, even if it has no connection.
        let _expecting = child.expecting();
        over.take_back.store(false, Ordering::SeqCst);
        accept_handed(child, event, now, ready);
    }
}

/// Sends a connection that is between two requests to another child. Whether it is gone: then the caller drops it.
/// It is not watched any more while it is sent: a watch would live on with the other child's descriptor.
pub(super) fn hand_over(child: &Child, event: &Event, conn: &mut Conn, now: Moment) -> bool {
    let (Some(over), Some(passage)) = (&child.hand_over, conn.passage(child, now)) else { return false };
    let waited = conn.session.phase() == Phase::Row;
    if waited {
        event.rows.leave_line(conn.who);
        conn.row = child.granted_row(conn.who);
        if conn.row.is_some() {
            // Just in time: it is served here. The word that it has a row is on its way.
            return false;
        }
    }
    let fd = conn.client().as_raw_fd();
    if let Err(fault) = child.registry.deregister(&mut SourceFd(&fd)) {
        error!(child.log, "cannot stop watching a connection: {}; it is closed", cause(&fault);
            "module" => "mpm_event");
        return true;
    }
    match passing::send(over.socket.as_fd(), &passage.encode(), conn.client()) {
        Ok(()) => {
            child.block.connections().handed_over.fetch_add(1, Ordering::Relaxed);
            if child.is_leaving() && !over.has_heir() {
                // Too late: others may have looked for the last time.
                let mut ready = Vec::new();
                accept_handed(child, event, now, &mut ready);
                for index in ready {
                    child.lead.push(index);
                }
            }
            true
        }
        Err(fault) => {
            over.refused(&fault, child);
            if waited {
                conn.row = child.take_row(conn.who, true);
                if conn.row.is_some() {
                    // It has its row by itself, and must hear of it as if it had been given one.
                    event.table.post(conn.who, News::ROW);
                }
            }
            conn.room_is_watched = false;
            if let Err(fault) = event::watch(child, conn.who, fd) {
                event::say_unwatched(child, &fault);
                return true;
            }
            false
        }
    }
}
