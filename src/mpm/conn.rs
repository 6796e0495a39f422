//! One client connection: its socket, its session, and the exchange it is at.
//!
//! [`Conn::run`] moves it as far as it goes without blocking, whoever calls: the threads of an event child when
//! an edge has come, or the one thread of a worker or prefork child that serves it, after poll(2) on what
//! [`Conn::wishes`] names, or a nap. It has no idea which.
//!
//! What has been read and not understood yet (part of a head, the bytes behind a request) is kept in `rest`
//! and put before what is read next, so that everybody parses one contiguous piece.

use super::accept::{ELSEWHERE, Newcomer};
use super::child::{Child, Gauge};
use super::nap::{Awaited, Early};
use super::passage::Passage;
use super::relay::Active;
use super::table::News;
use super::tokens::Aged;
use crate::buf::{Backlog, Gather, SLICES};
use crate::clock::{Moment, Tick};
use crate::http::{DateStamp, FieldSlots, HeadScan, MAX_HEAD};
use crate::ids::{HostId, WorkerIndex};
use crate::log::line::Client;
use crate::proxy::exchange::Refusal;
use crate::proxy::session::{Expiry, Phase, Session, Waits};
use crate::scoreboard::state::WorkerState;
use crate::sys::poll::Wish;
use crate::sys::socket::{self, Waiting};
use memmap2::MmapMut;
use slog::{debug, info};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Bytes of a thread's buffer; a head must fit.
pub const BUFFER: usize = MAX_HEAD;

/// Bytes that one connection moves per turn before others get theirs.
pub(super) const TURN: usize = 256 * 1024;

/// What a request counts for against [`TURN`] beside its bytes: answering many in a row is work, too.
pub(super) const REQUEST: usize = 4096;

/// Exchanges that a thread keeps to use them again; one may begin many that others end, and the other way round.
const SPARES: usize = 64;

/// What a thread needs to serve: one set per thread, given back when it rests.
pub struct Scratch {
    /// What was read last. A mapping of its own: pages that no read touches cost nothing, and all go back when the
    /// thread rests.
    pub input: MmapMut,
    /// What a nap has put there already.
    pub(super) early: Option<Early>,
    /// What goes out next.
    pub out: Gather,
    /// Room for parsed fields.
    pub slots: FieldSlots,
    /// Room for a rewritten path.
    pub path: Vec<u8>,
    /// Exchanges to be used again.
    pub spares: Vec<Box<Active>>,
    /// The time as a Date field has it.
    pub date: DateStamp,
    /// The thread's number with the kernel.
    pub tid: u32,
}

impl Scratch {
    /// For the calling thread.
    #[must_use]
    pub fn new() -> Self {
        Self {
            input: MmapMut::map_anon(BUFFER).expect("a thread that serves has memory for its buffer"),
            early: None,
            out: Gather::new(),
            slots: FieldSlots::new(),
            path: Vec::new(),
            spares: Vec::new(),
            date: DateStamp::new(),
            tid: crate::sys::process::gettid(),
        }
    }

    /// An exchange is over; it has been reset.
    pub(super) fn spare(&mut self, active: Box<Active>) {
        if self.spares.len() < SPARES {
            self.spares.push(active);
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// Nothing more can be done until news come, or until then.
    Wait(Tick),
    /// There is more to do, but others are waiting.
    Again,
    /// The connection is over.
    Over,
    /// It is between two requests, and better off with another child.
    /// If nobody takes it, it waits until then.
    HandOver(Tick),
}

/// What a step did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Something; look again.
    Moved,
    /// Nothing; wait.
    Blocked,
    /// The connection is over.
    Over,
}

/// A client connection.
pub struct Conn {
    /// Its number in an event child; elsewhere of no meaning.
    pub who: Aged,
    pub(super) client: OwnedFd,
    /// Whether reads from it may wait ([`super::nap`]).
    pub(super) waiting: Waiting,
    /// The client's address.
    pub peer: SocketAddr,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// The listener that it came by, or [`ELSEWHERE`]: then the next response is its last.
    pub listener: u32,
    pub(super) session: Session,
    pub(super) scan: HeadScan,
    /// Bytes that have been read and not consumed.
    pub(super) rest: Vec<u8>,
    /// Bytes that the client would not take yet.
    pub(super) backlog: Backlog,
    pub(super) active: Option<Box<Active>>,
    pub(super) row: Option<WorkerIndex>,
    /// What may work when tried: bits of [`News`] that stay until a call says otherwise.
    pub(super) ready: News,
    /// The poll tells when the client takes bytes again (event).
    pub(super) room_is_watched: bool,
    /// `rest` is to be looked at before anything is read: a whole head may be in it.
    pub(super) again: bool,
    /// The client has sent its last byte.
    pub(super) eof: bool,
    /// The host of the last request, whose time-outs hold.
    pub(super) host: HostId,
    /// When its timer fires next.
    pub scheduled: Tick,
    gauge: Gauge,
}

impl Conn {
    /// A connection that has just been accepted. `row` is given where a connection holds one from accept to close
    /// (worker, prefork).
    #[must_use]
    pub fn new(who: Aged, newcomer: Newcomer, row: Option<WorkerIndex>, child: &Child, now: Moment) -> Self {
        if newcomer.relieved {
            child.say_relief();
        }
        let local = child.local_of(&newcomer);
        let Newcomer { fd: client, peer, place: listener, passage, .. } = newcomer;
        child.arrived(passage.is_some());
        let host = child.router.host(local, b"");
        let (session, ready) = match passage {
            // Whether bytes wait is told when it is watched.
            Some(Passage { requests, deadline, .. }) => (
                Session::resumed(requests, deadline, child.config.host(host), now.tick()),
                News::CLIENT_WRITE,
            ),
            None => (Session::new(now.tick()), News::CLIENT_READ | News::CLIENT_WRITE),
        };
        let gauge = if session.is_kept_alive() { Gauge::KeepAlive } else { Gauge::Heads };
        let mut conn = Self {
            who,
            client,
            waiting: Waiting::default(),
            peer,
            local,
            listener,
            session,
            scan: HeadScan::new(),
            rest: Vec::new(),
            backlog: Backlog::default(),
            active: None,
            row,
            ready,
            room_is_watched: false,
            again: false,
            eof: false,
            host,
            scheduled: Tick::NEVER,
            gauge: Gauge::None,
        };
        conn.gauge(gauge, child);
        conn
    }

    /// The client's socket.
    #[must_use]
    pub fn client(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }

    pub(super) fn gauge(&mut self, gauge: Gauge, child: &Child) {
        if self.gauge != gauge {
            child.gauge(self.gauge, gauge);
            self.gauge = gauge;
        }
    }

    /// Moves on as far as it goes.
    pub fn run(&mut self, news: News, child: &Child, scratch: &mut Scratch, now: Moment) -> Turn {
        self.ready |= news;
        if let Some(row) = self.row {
            child.block.worker(row).moved_by(scratch.tid);
        }
        if news.has(News::ROW) && self.row.is_none() {
            self.row = child.granted_row(self.who);
        }
        if news.has(News::CLIENT_BROKEN) && self.client_is_broken(child, scratch, now) {
            return Turn::Over;
        }
        let mut moved = 0;
        let mut tried = false;
        loop {
            let step = match self.session.phase() {
                Phase::Idle | Phase::Head => self.read_head(child, scratch, now, &mut moved),
                Phase::Row => self.wait_for_row(now),
                Phase::Linger => self.linger_on(scratch, now, &mut moved),
                Phase::Place | Phase::Connect | Phase::Exchange | Phase::Tunnel => {
                    self.relay(child, scratch, now, &mut moved)
                }
            };
            match step {
                Step::Over => return Turn::Over,
                Step::Moved if moved >= TURN => return Turn::Again,
                Step::Moved => {}
                Step::Blocked => {
                    if self.is_between_requests() && child.hands_over(news) {
                        return Turn::HandOver(self.deadline(child).0);
                    }
                    let (deadline, expiry) = self.deadline(child);
                    if deadline > now.tick() {
                        return Turn::Wait(deadline);
                    }
                    let untried = last_look(expiry);
                    if !tried && untried != News::NONE {
                        tried = true;
                        self.ready |= untried;
                        continue;
                    }
                    if self.expire(expiry, child, scratch, now) == Step::Over {
                        return Turn::Over;
                    }
                }
            }
        }
    }

    /// When it has to be looked at if nothing happens, and why.
    #[must_use]
    pub fn deadline(&self, child: &Child) -> (Tick, Expiry) {
        let host = child.config.host(self.host);
        let mut silence = host.proxy_timeout;
        let mut connect = silence;
        let mut waits = Waits { client_write: self.owes_client(), ..Waits::default() };
        if let Some(active) = &self.active {
            if let Some(id) = active.exchange.backend() {
                let backend = child.config.backend(id);
                silence = backend.timeout.unwrap_or(host.proxy_timeout);
                connect = backend.connect_timeout.unwrap_or(silence);
            }
            waits.client_body = active.takes_client_bytes() && !active.exchange.has_answered();
            waits.upstream = active.exchange.wants_response();
            waits.expect = active.exchange.expects_continue();
        }
        let idle_until = Tick(child.idle_until.load(std::sync::atomic::Ordering::Relaxed));
        self.session.deadline(host, connect, silence, waits, idle_until)
    }

    /// Whether bytes are here that the client would not take yet.
    pub(super) fn owes_client(&self) -> bool {
        !self.backlog.is_empty() || self.active.as_ref().is_some_and(|active| active.down.pipe.is_some())
    }

    /// Whether the client took no more when it was last written to, and nobody tells when it does.
    pub(super) fn lacks_room(&self) -> bool {
        !self.ready.has(News::CLIENT_WRITE) && !self.room_is_watched
    }

    /// Whether nothing of a request or a response is here: whoever has the descriptor has the whole connection.
    fn is_between_requests(&self) -> bool {
        matches!(self.session.phase(), Phase::Idle | Phase::Row)
            && self.rest.is_empty()
            && self.backlog.is_empty()
            && self.active.is_none()
            && self.row.is_none()
            && !self.eof
            && self.listener != ELSEWHERE
    }

    /// What another child has to know to go on with it.
    pub(super) fn passage(&self, child: &Child, now: Moment) -> Option<Passage> {
        let host = child.config.host(self.host);
        let zero = Duration::ZERO;
        // One that waits for a row waits for us, with its request before it.
        let deadline = match self.session.phase() {
            Phase::Row => now.tick().after(host.timeout),
            _ => self.session.deadline(host, zero, zero, Waits::default(), Tick::NEVER).0,
        };
        let listener = child.doors.bound(self.listener)?;
        Some(Passage { listener, peer: self.peer, requests: self.session.requests(), deadline })
    }

    /// Whether its next response may say that more requests are welcome.
    pub(super) fn may_keep(&self, child: &Child) -> bool {
        self.listener != ELSEWHERE && (!child.is_leaving() || (child.may_hand_over() && self.rest.is_empty()))
    }

    /// What a thread that serves only this connection waits for, with the client and with the backend.
    #[must_use]
    pub fn wishes(&self) -> (Option<Wish<'_>>, Option<Wish<'_>>) {
        let client_read = match self.session.phase() {
            Phase::Idle | Phase::Head | Phase::Linger => true,
            Phase::Row | Phase::Place | Phase::Connect => false,
            Phase::Exchange | Phase::Tunnel => {
                self.active.as_ref().is_some_and(|active| active.takes_client_bytes())
            }
        };
        let (read, write) = (client_read && !self.eof, self.owes_client());
        // Without a wish, too: a client that is gone is seen. But once both sides have said that they will send no
        // more, that looks the same, and there may be bytes yet.
        let is_orderly = self.active.as_ref().is_some_and(|active| active.client_told);
        let client = (read || write || !is_orderly).then(|| Wish { fd: self.client.as_fd(), read, write });
        let upstream = self.active.as_ref().and_then(|active| {
            let link = active.link.as_ref()?;
            let read = !link.connecting
                && !active.backend_eof
                && !self.owes_client()
                && active.exchange.wants_response();
            let write = link.connecting || !link.backlog.is_empty() || active.up.pipe.is_some();
            (read || write).then(|| Wish { fd: link.fd.as_fd(), read, write })
        });
        (client, upstream)
    }

    /// Whether it stands in the line for a place at its backend.
    #[must_use]
    pub fn waits_for_place(&self) -> bool {
        self.session.phase() == Phase::Place
    }

    /// Whether the client is gone for good; then nothing that is under way has a reader.
    #[cold]
    fn client_is_broken(&mut self, child: &Child, scratch: &mut Scratch, now: Moment) -> bool {
        match self.session.phase() {
            // What it sent before may still be read; the read tells.
            Phase::Idle | Phase::Head | Phase::Linger => {
                self.ready |= News::CLIENT_READ | News::CLIENT_CLOSED;
                false
            }
            Phase::Row | Phase::Place | Phase::Connect | Phase::Exchange | Phase::Tunnel => {
                debug!(child.log, "the client reset its connection"; "module" => "proxy",
                    "client" => %Client(self.peer));
                self.abandon(child, scratch, now);
                true
            }
        }
    }

    /// Reads from the client behind what is left of earlier reads. `Ok(None)`: nothing there now. `Some(0)`: no
    /// more, ever. The bytes are `scratch.input[..rest + n]`, and `rest` is empty afterwards.
    pub(super) fn read_client(&mut self, scratch: &mut Scratch) -> io::Result<Option<usize>> {
        let have = self.rest.len();
        match scratch.receive(Awaited::Client, self.client.as_fd(), have) {
            Ok(count) => {
                if count == 0 {
                    self.eof = true;
                    self.ready.0 &= !News::CLIENT_READ.0;
                } else if have + count < scratch.input.len() && !self.ready.has(News::CLIENT_CLOSED) {
                    // Less than there was room for: the next byte makes an edge of its own.
                    self.ready.0 &= !News::CLIENT_READ.0;
                }
                scratch.input[..have].copy_from_slice(&self.rest);
                self.drop_rest();
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready.0 &= !News::CLIENT_READ.0;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn drop_rest(&mut self) {
        // An idle connection owns no buffer.
        self.rest = Vec::new();
    }

    /// Keeps bytes that have been read and not consumed.
    pub(super) fn keep_rest(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.rest.extend_from_slice(bytes);
        }
    }

    /// Counts what has been handed to the kernel or kept for it.
    pub(super) fn count_out(&mut self, outcome: &io::Result<usize>) {
        if let (Ok(count), Some(active)) = (outcome, &mut self.active) {
            active.bytes_out += *count as u64;
        }
    }

    /// Sends `out` to the client, or keeps what it does not take. Returns how many bytes `out` had.
    pub(super) fn send_client(&mut self, input: &[u8], out: &Gather) -> io::Result<usize> {
        let total = out.len();
        if !self.backlog.is_empty() || !self.ready.has(News::CLIENT_WRITE) {
            out.copy_from(input, 0, &mut self.backlog);
            return Ok(total);
        }
        let sent = send_gather(self.client.as_fd(), input, out)?;
        if sent < total {
            self.ready.0 &= !News::CLIENT_WRITE.0;
            out.copy_from(input, sent, &mut self.backlog);
        }
        Ok(total)
    }

    /// Sends what the client would not take earlier. Whether all of it is gone now.
    pub(super) fn flush_client(&mut self, now: Tick) -> io::Result<bool> {
        while !self.backlog.is_empty() && self.ready.has(News::CLIENT_WRITE) {
            match socket::send(self.client.as_fd(), self.backlog.bytes()) {
                Ok(count) => {
                    self.backlog.advance(count);
                    self.session.client_moved(now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ready.0 &= !News::CLIENT_WRITE.0;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.backlog.is_empty())
    }

    pub(super) fn set_state(&self, state: WorkerState, child: &Child) {
        if let Some(row) = self.row {
            child.block.worker(row).set_state(state);
        }
    }

    /// A deadline has passed.
    #[cold]
    fn expire(&mut self, expiry: Expiry, child: &Child, scratch: &mut Scratch, now: Moment) -> Step {
        match expiry {
            Expiry::Idle | Expiry::Linger => Step::Over,
            Expiry::Head => {
                let bytes = std::mem::take(&mut self.rest);
                scratch.input[..bytes.len()].copy_from_slice(&bytes);
                self.refuse_head(&Refusal::TooSlow, bytes.len(), child, scratch, now)
            }
            Expiry::ClientStalled | Expiry::Tunnel => {
                info!(child.log, "{}", if expiry == Expiry::Tunnel {
                    "the tunnel was silent for too long, closed"
                } else {
                    "the client does not take its response (Timeout), connection closed"
                }; "module" => "proxy", "client" => %Client(self.peer));
                self.abandon(child, scratch, now);
                Step::Over
            }
            Expiry::Body | Expiry::UpstreamStalled | Expiry::Connect | Expiry::Place | Expiry::Expect => {
                self.exchange_expired(expiry, child, scratch, now)
            }
        }
    }

    /// After the last response: reads and throws away until the client has closed, or its time is over.
    #[inline(never)]
    fn linger_on(&mut self, scratch: &mut Scratch, now: Moment, moved: &mut usize) -> Step {
        self.drop_rest();
        if self.session.has_lingered(now.tick()) {
            return Step::Over;
        }
        if !self.ready.has(News::CLIENT_READ) {
            return Step::Blocked;
        }
        match self.read_client(scratch) {
            Ok(Some(0)) | Err(_) => Step::Over,
            Ok(Some(count)) => {
                self.session.client_moved(now.tick());
                *moved += count;
                Step::Moved
            }
            Ok(None) => Step::Blocked,
        }
    }

    /// All has been said: gives the client time to read it, then closes.
    #[inline(never)]
    pub(super) fn begin_linger(&mut self, child: &Child, now: Moment) -> Step {
        if self.eof || socket::shutdown_write(self.client.as_fd()).is_err() {
            return Step::Over;
        }
        self.session.linger(now.tick());
        self.gauge(Gauge::Closing, child);
        if child.rows_are_held_by_connections() {
            self.set_state(WorkerState::Closing, child);
        }
        self.ready |= News::CLIENT_READ;
        Step::Moved
    }

    /// The next request may come.
    pub(super) fn next_request(&mut self, child: &Child, now: Moment) {
        self.session.keep(now.tick());
        self.gauge(Gauge::KeepAlive, child);
        if child.rows_are_held_by_connections() {
            self.set_state(WorkerState::KeepAlive, child);
        }
    }

    /// The connection is gone: gives back what it holds.
    pub fn close(&mut self, child: &Child, scratch: &mut Scratch, now: Moment) {
        self.abandon(child, scratch, now);
        child.leave_line(self);
        self.gauge(Gauge::None, child);
    }
}

/// What is tried once more before a connection is given up, whatever the kernel has said of it: no connection is closed as
/// idle without a last look for bytes, and a socket is called writable again only when a third of its buffer is free, which
/// a peer that takes its bytes slowly but steadily may need longer for than a time-out.
fn last_look(expiry: Expiry) -> News {
    match expiry {
        Expiry::Idle => News::CLIENT_READ,
        Expiry::ClientStalled => News::CLIENT_WRITE,
        Expiry::UpstreamStalled => News::UPSTREAM_READ | News::UPSTREAM_WRITE,
        Expiry::Tunnel => News::CLIENT_WRITE | News::UPSTREAM_WRITE,
        Expiry::Head | Expiry::Body | Expiry::Connect | Expiry::Place | Expiry::Expect | Expiry::Linger => {
            News::NONE
        }
    }
}

/// An idle connection's whole cost, but for the kernel's share, with what malloc adds: it owns no buffer.
const _: () =
    assert!((size_of::<Conn>() + 8).next_multiple_of(16) + size_of::<crate::sys::cells::Cell<Conn>>() <= 384);

/// Sends as much of `out` as the socket takes. A full socket is not an error: it took less.
pub(super) fn send_gather(fd: BorrowedFd<'_>, input: &[u8], out: &Gather) -> io::Result<usize> {
    if let Some(bytes) = out.single(input) {
        return match socket::send(fd, bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            outcome => outcome,
        };
    }
    let total = out.len();
    let mut sent = 0;
    while sent < total {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = out.slices(input, sent, &mut slices);
        let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        match socket::send_vectored(fd, &slices[..count]) {
            Ok(taken) => {
                sent += taken;
                if taken < offered {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// How long a wait may take, for poll(2).
#[must_use]
pub fn patience(deadline: Tick, now: Tick) -> Option<Duration> {
    (deadline != Tick::NEVER).then(|| deadline.until(now))
}
