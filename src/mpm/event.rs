//! The event driver: ready connections are moved on by whichever thread is free (see `lead`).
//!
//! The leader's poll watches listeners and every client and backend socket, edge-triggered, each registered once (but that
//! room to write to a client is watched for only once there was none).
//! An edge is posted to its connection's state word; a connection that was idle goes into the run queue. A
//! connection in a turn never blocks: it goes as far as it can, then the next one.

use super::accept::Came;
use super::child::{Child, Event, Gauge, panic_text};
use super::conn::{Conn, Scratch, Turn as ConnTurn};
use super::crew::Crew;
use super::handover;
use super::lead::{Guard, Turn};
use super::steward;
use super::table::{News, Posted};
use super::timers::{Due, Timers};
use super::tokens::{Aged, Source};
use super::upstream::{self, Owner};
use crate::clock::{Moment, Tick};
use crate::ids::WorkerIndex;
use crate::log::line::cause;
use crate::sys::process::ChildExit;
use mio::unix::SourceFd;
use mio::{Events, Interest};
use slog::error;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// For how long a child that has more than its share lets others accept, at most.
const ASIDE: Duration = Duration::from_millis(50);

/// Events taken from the kernel at once.
const BATCH: usize = 512;

/// Serves until the child is told to leave, and its last connection is gone.
pub fn run(child: &'static Child) -> ChildExit {
    for row in 0..child.config.limits.threads_per_child {
        child.block.worker(WorkerIndex(row)).free();
    }
    child.open_doors();
    match Crew::start(child, serve) {
        Some(crew) => {
            let exit = steward::run(child, crew);
            // In good order its last connection is gone, and all rows are free.
            child.settle();
            exit
        }
        None => ChildExit::SICK,
    }
}

/// What a leader needs beside its buffers.
struct Leader {
    events: Events,
    ready: Vec<u32>,
    due: Vec<(Tick, Due)>,
}

impl Leader {
    /// After a turn in which thousands were due: keeps room for as many as the poll brings at once.
    fn give_back(&mut self) {
        if self.due.capacity() > 4 * BATCH {
            self.due.shrink_to(BATCH);
        }
        if self.ready.capacity() > 4 * BATCH {
            self.ready.shrink_to(BATCH);
        }
    }
}

fn serve(child: &'static Child, seat: usize) {
    let event = child.event.as_ref().expect("this is the event driver");
    let mut scratch = Some(Scratch::new());
    let mut leader = Leader { events: Events::with_capacity(BATCH), ready: Vec::new(), due: Vec::new() };
    let mut turn = child.lead.next(seat);
    loop {
        turn = match turn {
            Turn::Leave => return,
            Turn::Rest => {
                scratch = None;
                child.pipes.close_idle();
                child.lead.next_after_rest(seat)
            }
            Turn::Lead(guard) => {
                if let Err(payload) =
                    catch_unwind(AssertUnwindSafe(|| lead(child, event, &guard, &mut leader)))
                {
                    child.panicked(&panic_text(payload.as_ref()));
                }
                // Whatever has been found ready goes into the run queue, come what may.
                guard.pass(&mut leader.ready);
                leader.give_back();
                child.wake_steward();
                child.lead.next(seat)
            }
            Turn::Work(index) => {
                work(child, event, index, scratch.get_or_insert_with(Scratch::new));
                child.lead.next(seat)
            }
        };
    }
}

/// Waits in the poll once, and gathers what came.
fn lead(child: &Child, event: &Event, guard: &Guard<'_>, leader: &mut Leader) {
    let Leader { events, ready, due } = leader;
    let brief = guard.is_brief();
    let mut poll = child.poll_lock();
    guard.entering_poll();
    let timeout = if brief {
        Some(std::time::Duration::ZERO)
    } else {
        // Said before the timers are looked at: who sets an earlier one afterwards knows that it must wake us.
        child.leader_until.store(u64::MAX, Ordering::SeqCst);
        let until = event.timers.next().min(child.doors.resume_at());
        child.leader_until.store(until.0, Ordering::SeqCst);
        if event.timers.next() < until {
            Some(std::time::Duration::ZERO)
        } else {
            (until != Tick::NEVER).then(|| until.until(child.read_clock().tick()))
        }
    };
    let polled = poll.poll(events, timeout);
    child.leader_until.store(0, Ordering::SeqCst);
    let now = child.read_clock();
    if let Err(fault) = polled
        && fault.kind() != io::ErrorKind::Interrupted
    {
        error!(child.log, "the poll failed: {}", cause(&fault); "module" => "mpm_event");
    }
    drop(poll);
    for (source, seen) in answers_first(events.iter().map(|seen| (Source::of(seen.token()), seen))) {
        match source {
            Source::Client(who) => post(event, who, client_news(seen), ready),
            Source::Upstream(ticket) => upstream_edge(child, event, ticket, upstream::news(seen), ready),
            Source::Listener(place) => {
                accept(child, event, place, now, ready);
            }
            Source::Nudge => {}
        }
    }
    if event.timers.next() <= now.tick() {
        event.timers.take_due(now.tick(), due);
        for (_, due) in due.drain(..) {
            match due {
                Due::Connection(who) => post(event, who, News::TIMER, ready),
                Due::Pool(id) => child.sweep(id, now.tick()),
            }
        }
    }
    let may_return = child.doors.resume_at() <= now.tick() || (child.doors.is_aside() && !child.is_ahead());
    if may_return && !child.is_leaving() {
        child.open_doors();
    }
    if child.accept_all.swap(false, Ordering::SeqCst) && !child.is_leaving() {
        accept_what_waits(child, event, now, ready);
    }
    if child.is_leaving() && (!child.doors.are_closed() || child.hurries.load(Ordering::Relaxed)) {
        leave(child, event, now, ready);
    }
    handover::lead(child, event, now, ready);
}

/// What came, backends' news before all other. Who waits for an answer asked before those whose requests have only just
/// come, whose first halves would otherwise be served before everyone's second. And a connection that its backend closed
/// is out of the pool before a request looks for one.
fn answers_first<T>(came: impl Iterator<Item = (Source, T)> + Clone) -> impl Iterator<Item = (Source, T)> {
    let is_backends = |(source, _): &(Source, T)| matches!(source, Source::Upstream(_));
    came.clone().filter(is_backends).chain(came.filter(move |one| !is_backends(one)))
}

pub(super) fn post(event: &Event, who: Aged, news: News, ready: &mut Vec<u32>) {
    if event.table.post(who, news) == Posted::Queue {
        ready.push(who.index);
    }
}

fn client_news(seen: &mio::event::Event) -> News {
    let mut news = News::NONE;
    if seen.is_readable() || seen.is_read_closed() {
        news |= News::CLIENT_READ;
    }
    if seen.is_writable() {
        news |= News::CLIENT_WRITE;
    }
    if seen.is_read_closed() {
        news |= News::CLIENT_CLOSED;
    }
    // A hang-up without an error is both sides' orderly end: what came before it is still to be read.
    if seen.is_error() {
        news |= News::CLIENT_BROKEN;
    }
    news
}

fn upstream_edge(child: &Child, event: &Event, ticket: Aged, news: News, ready: &mut Vec<u32>) {
    match event.links.edge(ticket) {
        Owner::Connection(who) => post(event, who, news, ready),
        // Room to write, on an idle connection, is no news.
        Owner::Pool(id) if news.has(News::UPSTREAM_READ | News::UPSTREAM_CLOSED) => {
            child.idle_edge(id, ticket);
            // Somebody may have taken it out of the pool just before: then the edge is for them.
            if let Owner::Connection(who) = event.links.owner(ticket) {
                post(event, who, news, ready);
            }
        }
        Owner::Pool(_) | Owner::Gone => {}
    }
}

/// Watches the socket of a connection that is new here. Room to write is not watched for: there is some at first, and an
/// edge that says so would be a turn for nothing.
pub(super) fn watch(child: &Child, who: Aged, fd: RawFd) -> io::Result<()> {
    child.registry.register(&mut SourceFd(&fd), Source::Client(who).token(), Interest::READABLE)
}

/// From now on the poll tells as well when a client that took no more has room again; the kernel looks at once, so that
/// nothing is missed. `false`, and told, if it can't.
#[cold]
fn watch_for_room(child: &Child, conn: &mut Conn) -> bool {
    let fd = conn.client().as_raw_fd();
    let token = Source::Client(conn.who).token();
    let watched =
        child.registry.reregister(&mut SourceFd(&fd), token, Interest::READABLE | Interest::WRITABLE);
    conn.room_is_watched = watched.is_ok();
    if let Err(fault) = watched {
        say_unwatched(child, &fault);
    }
    conn.room_is_watched
}

pub(super) fn say_unwatched(child: &Child, fault: &io::Error) {
    error!(child.log, "cannot watch a connection: {}; it is closed. fs.epoll.max_user_watches bounds what a user may watch",
        cause(fault); "module" => "mpm_event");
}

/// A listener has somebody: accepts one, and says whether there was one. A child that is full does so, too (nobody
/// else was woken for it), and then stops watching.
fn accept(child: &Child, event: &Event, place: u32, now: Moment, ready: &mut Vec<u32>) -> bool {
    let came = take(child, event, place, now, ready);
    child.note_limit(event);
    if child.is_crowded() && !child.doors.are_shut() {
        child.doors.shut();
        // Somebody may have come in between, and have woken nobody but us.
        take(child, event, place, now, ready);
        // A row may have been given back between the look and the shutting.
        child.perhaps_open();
    } else if came && !child.doors.are_shut() && child.is_ahead_with_one_more() {
        child.doors.step_aside(now.tick().after(ASIDE));
        take(child, event, place, now, ready);
    }
    came
}

/// Takes one connection at `place`, if there is one.
fn take(child: &Child, event: &Event, place: u32, now: Moment, ready: &mut Vec<u32>) -> bool {
    if event.table.is_full() {
        // Even the room for late ones is taken: who waits goes on waiting.
        child.doors.shut();
        return false;
    }
    let _expecting = child.expecting();
    match child.doors.accept(place, child.bunch(), now.tick()) {
        Came::Client(newcomer) => {
            let fd = newcomer.fd.as_raw_fd();
            let taken_over = newcomer.passage.is_some();
            let made = event.table.insert(|who| Conn::new(who, newcomer, None, child, now));
            let Some((who, mut conn)) = made else {
                // Taken back by another thread just now, the last room has gone: it has been closed with its descriptor.
                child.doors.shut();
                return false;
            };
            if let Err(fault) = watch(child, who, fd) {
                say_unwatched(child, &fault);
                conn.gauge(Gauge::None, child);
                event.table.remove(who.index);
                child.closed();
                if child.doors.are_closed() {
                    // What has come back to one that leaves has nobody else: better closed than forgotten.
                    return true;
                }
                child.doors.turn_away(now.tick());
                return false;
            }
            // One that was taken over tells by an edge of its own whether bytes wait; its first turn is for its deadline.
            if !taken_over {
                event.table.post(who, News::CLIENT_READ);
            }
            event.table.requeue(who.index, conn);
            ready.push(who.index);
            true
        }
        Came::Nonsense => {
            error!(child.log, "what another child handed over makes no sense; it is closed"; "module" => "mpm_event");
            true
        }
        Came::Nobody => false,
        Came::Shortage(fault, news) => {
            child.say_shortage(&fault, news);
            false
        }
    }
}

/// A child whose rows are all held listens no more, before it passes on what it can't serve: it would be woken for its
/// own connections.
pub(super) fn listen_no_more(child: &Child, event: &Event, now: Moment, ready: &mut Vec<u32>) {
    for place in 0..child.doors.count() {
        if child.doors.are_shut() {
            return;
        }
        accept(child, event, place, now, ready);
    }
}

/// A sibling that had been woken for connections may have died: takes all that wait, as far as there is room.
#[cold]
fn accept_what_waits(child: &Child, event: &Event, now: Moment, ready: &mut Vec<u32>) {
    for place in 0..child.doors.count() {
        while !child.is_crowded() && accept(child, event, place, now, ready) {}
    }
}

/// Takes all that other children have handed over and nobody has taken.
pub(super) fn accept_handed(child: &Child, event: &Event, now: Moment, ready: &mut Vec<u32>) {
    let place = child.doors.handed_place();
    while accept(child, event, place, now, ready) {}
}

/// The child is leaving: takes what waits at its listeners if nobody else will, or what it may have been woken
/// for, and closes them. Idle connections learn their new deadline.
#[cold]
fn leave(child: &Child, event: &Event, now: Moment, ready: &mut Vec<u32>) {
    for place in 0..child.doors.handed_place() {
        let most = if child.doors.is_last(place) { child.config.listen_backlog } else { 1 };
        for _ in 0..most {
            if !accept(child, event, place, now, ready) {
                break;
            }
        }
    }
    child.doors.close();
    child.hurries.store(false, Ordering::SeqCst);
    for who in event.table.all() {
        post(event, who, News::TIMER, ready);
    }
    child.perhaps_over();
}

/// One turn of one connection.
fn work(child: &Child, event: &Event, index: u32, scratch: &mut Scratch) {
    let (Some(mut conn), news) = event.table.begin(index) else { return };
    // Read after `begin`: not older than the timer whose news it has just taken.
    let now = child.now();
    let outcome = catch_unwind(AssertUnwindSafe(|| conn.run(news, child, scratch, now)));
    let turn = match outcome {
        Ok(ConnTurn::HandOver(_)) if handover::hand_over(child, event, &mut conn, now) => ConnTurn::Over,
        Ok(ConnTurn::Wait(_)) if conn.lacks_room() && !watch_for_room(child, &mut conn) => ConnTurn::Over,
        Ok(turn) => turn,
        Err(payload) => {
            child.panicked(&panic_text(payload.as_ref()));
            *scratch = Scratch::new();
            ConnTurn::Over
        }
    };
    match turn {
        ConnTurn::Over => {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| conn.close(child, scratch, now))) {
                child.panicked(&panic_text(payload.as_ref()));
            }
            // Out of the table before the descriptor is closed: its number may come back at once.
            event.table.remove(index);
            drop(conn);
            child.closed();
        }
        ConnTurn::Again => {
            event.table.requeue(index, conn);
            child.lead.push_again(index);
        }
        ConnTurn::Wait(deadline) | ConnTurn::HandOver(deadline) => {
            if let Some(at) = Timers::further(deadline, conn.scheduled, now.tick()) {
                conn.scheduled = at;
                if at != Tick::NEVER {
                    child.schedule(event, at, Due::Connection(conn.who));
                }
            }
            if !event.table.end(index, conn) {
                child.lead.push(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_before_requests_and_each_in_its_order() {
        let one = |index| Aged { index, age: 0 };
        let came = [
            Source::Client(one(1)),
            Source::Listener(0),
            Source::Upstream(one(2)),
            Source::Client(one(3)),
            Source::Nudge,
            Source::Upstream(one(1)),
        ];
        let served: Vec<_> = answers_first(came.into_iter().zip(0..)).collect();
        let want = [2, 5, 0, 1, 3, 4].map(|place| (came[place], place));
        assert_eq!(served, want);
    }
}
