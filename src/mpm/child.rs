//! What a child's threads share, and how a child begins and ends.

use super::accept::{Door, Doors, Newcomer};
use super::conn::{BUFFER, Conn, Scratch};
use super::handover::HandOver;
use super::lead::Lead;
use super::pipes::Pipes;
use super::quota::Quota;
use super::relay::Active;
use super::rows::Rows;
use super::table::Table;
use super::timers::{Due, Timers};
use super::tokens::Source;
use super::upstream::{Links, Place};
use super::{event, prefork, worker};
use crate::buf::Gather;
use crate::clock::{Moment, Tick};
use crate::config::model::{Config, Handler, Mpm};
use crate::http::{DateStamp, HeadLimits};
use crate::ids::{Generation, HostId, ListenerId, LogTargetId, SlotIndex};
use crate::log::access::AccessLogs;
use crate::log::line::{cause, notice};
use crate::log::sink::Sink;
use crate::orders::{Orders, Word};
use crate::proxy::exchange::{Context, Exchange};
use crate::proxy::router::Router;
use crate::scoreboard::board::BoardReader;
use crate::scoreboard::row::ChildBlock;
use crate::size::descriptors;
use crate::status;
use crate::sys::fd::EventFd;
use crate::sys::privilege::{self, Identity};
use crate::sys::process::ChildExit;
use crate::sys::{heap, process, random, socket, time};
use mio::{Poll, Registry, Waker};
use slog::{Logger, debug, error, warn};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything a child gets from its master, by fork.
pub struct Inheritance {
    /// What to do; never changes.
    pub config: Arc<Config>,
    /// Our number.
    pub slot: SlotIndex,
    /// Our generation.
    pub generation: Generation,
    /// The listening sockets, and where they really listen (port 0 has become one).
    pub listeners: Vec<(ListenerId, OwnedFd, SocketAddr)>,
    /// Our end of the orders socket.
    pub orders: OwnedFd,
    /// Both ends of the socket over which children hand over connections, the receiving one first; `None` where
    /// they don't.
    pub hand_over: Option<(OwnedFd, OwnedFd)>,
    /// Our block of the scoreboard.
    pub block: ChildBlock,
    /// The whole of it, to be read.
    pub board: BoardReader,
    /// The error log.
    pub logger: Logger,
    /// What logs go to, by [`LogTargetId`].
    pub logs: Vec<Sink>,
    /// Who to become; `None` where the master is not root.
    pub identity: Option<Identity>,
    /// That children cannot start for want of something has been told, and need not be again.
    pub shortage_told: bool,
}

/// What a connection counts as in the process row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gauge {
    /// Nothing: it is not there.
    None,
    /// A head is awaited or coming in, or a row is awaited.
    Heads,
    /// An exchange is under way.
    Exchange,
    /// Idle between requests.
    KeepAlive,
    /// Lingering.
    Closing,
    /// A tunnel.
    Tunnel,
}

/// What the event driver adds.
pub(super) struct Event {
    pub(super) rows: Rows,
    pub(super) table: Table<Conn>,
    pub(super) links: Links,
    pub(super) timers: Timers,
    /// The most connections; the table has some room beyond, for those that an exclusive wake brings.
    limit: u32,
}

impl Event {
    /// A crowd is gone: gives back what was kept for each of its connections, whether or not it is still there.
    ///
    /// # Errors
    /// If the kernel does not take it.
    pub(super) fn give_back(&self) -> io::Result<()> {
        self.timers.give_back(|due| self.wants(*due));
        self.rows.give_back();
        self.table.give_back()
    }

    /// Whether that deadline is anybody's still.
    fn wants(&self, due: Due) -> bool {
        match due {
            Due::Connection(who) => self.table.has(who),
            Due::Pool(_) => true,
        }
    }
}

/// What belongs to one virtual host.
struct Host {
    logs: AccessLogs,
    limits: HeadLimits,
}

/// What the threads of a child share.
pub struct Child {
    /// What to do.
    pub config: Arc<Config>,
    /// Hosts and paths.
    pub router: Router,
    /// Our block of the scoreboard.
    pub block: ChildBlock,
    /// The error log.
    pub log: Logger,
    /// To the master and back.
    pub orders: Orders,
    /// Our generation.
    pub generation: Generation,
    /// Cores that this process may use.
    pub(super) cores: u32,
    /// That children cannot start for want of something has been told.
    pub(super) shortage_told: bool,
    pub(super) doors: Doors,
    pub(super) lead: Lead,
    pub(super) poll: Mutex<Poll>,
    pub(super) registry: Registry,
    /// For large bodies.
    pub(super) pipes: Pipes,
    pub(super) waker: Waker,
    /// Until when the leader sleeps in the poll; 0 while nobody does.
    pub(super) leader_until: AtomicU64,
    pub(super) event: Option<Event>,
    /// To other children (event).
    pub(super) hand_over: Option<HandOver>,
    /// Our number.
    pub(super) slot: SlotIndex,
    /// When an idle connection is closed at the latest: [`Tick::NEVER`] unless the child is leaving.
    pub idle_until: AtomicU64,
    pub(super) leaving: AtomicBool,
    /// `idle_until` has come nearer, and idle connections have not been told yet (event).
    pub(super) hurries: AtomicBool,
    /// Until when a child whose master is gone accepts what waits; [`Tick::NEVER`] otherwise.
    pub(super) accept_until: AtomicU64,
    /// Threads that serve a connection, or that could not be made (worker).
    pub(super) serving: Mutex<u32>,
    /// Threads that wait for their client, their backend or an order (worker, prefork).
    pub(super) waiting_threads: AtomicU32,
    /// Listeners that a leader has been told of and not looked at yet, in that order (worker).
    pub(super) waiting: Mutex<VecDeque<u32>>,
    /// An order to accept has come and not been carried out.
    pub(super) accept_all: AtomicBool,
    /// Client connections that are open.
    pub(super) open: AtomicU32,
    /// Signalled when the child's last connection is gone and it is leaving.
    pub(super) over: EventFd,
    /// Signalled once when the child is to leave; readable from then on.
    pub(super) leave: EventFd,
    /// The steward sleeps without a timer and wants to be told when there is work.
    pub(super) steward_asleep: AtomicBool,
    /// How it is told.
    pub(super) bell: EventFd,
    /// How each thread learns that a place at its connection's backend is free (worker, prefork).
    pub(super) bells: Vec<EventFd>,
    clock: AtomicU64,
    wall: AtomicU64,
    wall_read: AtomicU64,
    pub(super) said_full: AtomicU64,
    said_short: AtomicU64,
    said_limit: AtomicBool,
    /// When idle connections to backends are due, where no timer watches them.
    pub(super) sweep_at: AtomicU64,
    pub(super) quota: Quota,
    hosts: Vec<Host>,
    pub(super) places: Vec<Place>,
    server: String,
    pub(super) board: BoardReader,
    any_logs: bool,
    /// Whether a connection's own address must be asked for: hosts or logs depend on it.
    needs_local: bool,
}

/// Connections that an exclusive wake may bring beyond the limit.
const LATE: u32 = 64;

/// Serves until the master says otherwise. Drops privileges, starts threads, says so, serves, leaves.
pub fn run(inheritance: Inheritance) -> ChildExit {
    let log = inheritance.logger.clone();
    let mpm = inheritance.config.mpm;
    let shortage_told = inheritance.shortage_told;
    heap::share(process::allowed_cores());
    match Child::new(inheritance) {
        Ok(child) => {
            let child: &'static Child = Box::leak(Box::new(child));
            let exit = match mpm {
                Mpm::Event => event::run(child),
                Mpm::Worker => worker::run(child),
                Mpm::Prefork => prefork::run(child),
            };
            child.block.gone();
            exit
        }
        Err(fault) if process::is_shortage(&fault) => {
            let why = cause(&fault);
            if shortage_told {
                debug!(log, "this child cannot serve: {why}"; "module" => "core");
            } else {
                error!(log, "this child cannot serve: {why}; it leaves"; "module" => "core");
            }
            ChildExit::SICK
        }
        Err(fault) => {
            error!(log, "this child cannot serve: {}", cause(&fault); "module" => "core");
            ChildExit::FATAL
        }
    }
}

impl Child {
    fn new(inheritance: Inheritance) -> io::Result<Self> {
        let Inheritance {
            config,
            slot,
            generation,
            listeners,
            orders,
            hand_over,
            block,
            board,
            logger,
            logs,
            identity,
            shortage_told,
        } = inheritance;
        if let Some(identity) = &identity {
            privilege::become_identity(identity)?;
            if config.core_dump_directory.is_some() {
                // A change of user takes the right to leave a core away.
                privilege::allow_core_dumps()?;
            }
        }
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, Source::Nudge.token())?;
        let leave = EventFd::new()?;
        let (listening, logging) = (listeners.len() as u64, logs.len() as u64);
        let doors = listeners.into_iter().map(|(_, fd, local)| Door { fd, local, last: false }).collect();
        let (handed, hand_over) = hand_over.unzip();
        let doors = Doors::new(doors, handed, poll.as_raw_fd());
        let threads = config.limits.threads_per_child;
        let (soft, _) = privilege::nofile().unwrap_or((1024, 1024));
        let spare =
            soft.saturating_sub(descriptors::of_a_child(config.mpm, threads.into(), listening, logging));
        // Under worker and prefork nothing else bounds them: they may not take what connections need.
        let pipes = descriptors::pipes_of_a_child(soft).min(spare / 2) as u32;
        let event = (config.mpm == Mpm::Event).then(|| {
            let room = descriptors::connections_of_a_child(soft, listening, logging);
            let room = room.clamp(u64::from(threads), 1 << 24) as u32;
            let limit = config.limits.max_connections_per_process.map_or(room, |most| most.get().min(room));
            // Descriptors run out before tickets do.
            let links = soft.clamp(1, 1 << 24) as u32;
            io::Result::Ok(Event {
                rows: Rows::new(threads),
                table: Table::new(limit + LATE)?,
                links: Links::new(links),
                timers: Timers::default(),
                limit,
            })
        });
        let event = event.transpose()?;
        let seats = if event.is_some() { 0 } else { threads };
        let bells = (0..seats).map(|_| EventFd::new()).collect::<io::Result<Vec<_>>>()?;
        let hosts: Vec<Host> = config
            .hosts
            .iter()
            .map(|host| {
                let sinks = host.access_logs.iter().map(|log| {
                    let LogTargetId(target) = log.target;
                    (log.format.clone(), logs[target as usize].clone())
                });
                let limits = &host.limits;
                let fields = limits.fields.map(|most| most.get() as usize);
                let mut heads = HeadLimits::request(limits.line as usize, fields, limits.field_size as usize);
                heads.total = heads.total.min(BUFFER);
                Host { logs: AccessLogs::new(sinks, logger.clone()), limits: heads }
            })
            .collect();
        let any_logs = hosts.iter().any(|host| !host.logs.is_empty());
        let needs_local = any_logs || config.hosts.iter().any(|host| !host.addresses.is_empty());
        let child = Self {
            router: Router::new(&config),
            // The steward sets it to what there is.
            lead: Lead::new(threads as usize, 1),
            places: config.backends.iter().map(Place::new).collect(),
            server: config.server_tokens.product(),
            // Without randomness the children draw by their numbers.
            quota: Quota::new(&config.limits, random::number().unwrap_or(u64::from(slot.0) * 7)),
            orders: Orders::new(orders),
            log: logger,
            block,
            generation,
            cores: u32::try_from(process::allowed_cores()).unwrap_or(u32::MAX),
            shortage_told,
            doors,
            poll: Mutex::new(poll),
            registry,
            pipes: Pipes::new(pipes),
            waker,
            leader_until: AtomicU64::new(0),
            event,
            hand_over: hand_over.map(HandOver::new),
            slot,
            idle_until: AtomicU64::new(Tick::NEVER.0),
            leaving: AtomicBool::new(false),
            hurries: AtomicBool::new(false),
            accept_until: AtomicU64::new(Tick::NEVER.0),
            serving: Mutex::new(0),
            waiting_threads: AtomicU32::new(0),
            waiting: Mutex::default(),
            accept_all: AtomicBool::new(false),
            open: AtomicU32::new(0),
            over: EventFd::new()?,
            leave,
            steward_asleep: AtomicBool::new(false),
            bell: EventFd::new()?,
            bells,
            clock: AtomicU64::new(0),
            wall: AtomicU64::new(0),
            wall_read: AtomicU64::new(0),
            said_full: AtomicU64::new(0),
            said_short: AtomicU64::new(0),
            said_limit: AtomicBool::new(false),
            sweep_at: AtomicU64::new(Tick::NEVER.0),
            hosts,
            board,
            any_logs,
            needs_local,
            config,
        };
        child.read_clock();
        Ok(child)
    }

    // --- time ---------------------------------------------------------------------------------------------

    /// Reads the clock, once per turn; everybody else takes [`Child::now`].
    pub(super) fn read_clock(&self) -> Moment {
        let now = time::now();
        self.clock.store(now.0, Ordering::Relaxed);
        // The wall clock may be set at any time: it is compared ten times a second.
        if now.0.saturating_sub(self.wall_read.load(Ordering::Relaxed)) > 100_000 {
            self.wall.store(time::wall_micros().wrapping_sub(now.0), Ordering::Relaxed);
            self.wall_read.store(now.0, Ordering::Relaxed);
        }
        now
    }

    /// The time of the current turn.
    pub(super) fn now(&self) -> Moment {
        Moment(self.clock.load(Ordering::Relaxed))
    }

    fn wall_of(&self, moment: Moment) -> u64 {
        self.wall.load(Ordering::Relaxed).wrapping_add(moment.0)
    }

    // --- what an exchange needs ---------------------------------------------------------------------------

    pub(super) fn context<'a>(&'a self, conn: &Conn, date: &'a mut DateStamp, now: Moment) -> Context<'a> {
        Context {
            config: &self.config,
            router: &self.router,
            now,
            date: date.at(self.wall_of(now) / 1_000_000),
            server: &self.server,
            peer: conn.peer,
            local: conn.local,
            may_keep: conn.may_keep(self),
        }
    }

    pub(super) fn head_limits(&self, host: HostId) -> &HeadLimits {
        &self.hosts[host.index()].limits
    }

    pub(super) fn access_logs(&self, host: HostId) -> &AccessLogs {
        &self.hosts[host.index()].logs
    }

    /// An exchange to be filled, used before if there is one.
    pub(super) fn active(&self, scratch: &mut Scratch, now: Moment) -> Box<Active> {
        let mut active = scratch.spares.pop().unwrap_or_default();
        active.started = now;
        if self.any_logs {
            active.started_wall = self.wall_of(now);
        }
        active
    }

    /// Answers a request of our own pages.
    #[cold]
    pub(super) fn handle(
        &self,
        handler: Handler,
        query: Option<&[u8]>,
        exchange: &mut Exchange,
        cx: &Context<'_>,
        out: &mut Gather,
    ) {
        match self.board.snapshot() {
            Ok(snapshot) => {
                let status_now = status::Now {
                    moment: time::now(),
                    wall_micros: time::wall_micros(),
                    zone: jiff::tz::TimeZone::system(),
                };
                let page = status::page(&snapshot, status::Form::of(handler, query), &status_now);
                exchange.answer(200, page.content_type, Some(page.body.as_bytes()), cx, out);
            }
            Err(fault) => {
                error!(self.log, "{}: {}; the client gets 503", handler.name(), cause(&fault); "module" => "status");
                exchange.answer(503, "text/html; charset=utf-8", None, cx, out);
            }
        }
    }

    /// Our end of a new connection. The kernel is asked only where hosts or logs depend on it and the listener is for
    /// all addresses.
    pub(super) fn local_of(&self, newcomer: &Newcomer) -> SocketAddr {
        if self.needs_local && newcomer.local.ip().is_unspecified() {
            socket::local_address(newcomer.fd.as_fd()).unwrap_or(newcomer.local)
        } else {
            newcomer.local
        }
    }

    // --- listeners ----------------------------------------------------------------------------------------

    /// Whether a further connection would have to wait.
    pub(super) fn is_crowded(&self) -> bool {
        self.event.as_ref().is_some_and(|event| event.rows.is_full() || event.table.len() >= event.limit)
    }

    /// Watches the listeners again, if there is room again.
    pub(super) fn perhaps_open(&self) {
        if self.doors.are_shut()
            && self.event.is_some()
            && !self.is_leaving()
            && !self.is_crowded()
            && self.doors.resume_at() == Tick::NEVER
        {
            self.open_doors();
        }
    }

    pub(super) fn open_doors(&self) {
        if let Err(fault) = self.doors.open(self.now().tick()) {
            error!(self.log, "cannot watch the listeners: {}; this child accepts nothing for now", cause(&fault);
                "module" => "core");
            // It may sleep already, and for longer than the pause.
            self.nudge_leader();
        }
    }

    /// The child has as many connections as it may: said once, until there is room for a tenth again.
    pub(super) fn note_limit(&self, event: &Event) {
        let open = event.table.len();
        if open >= event.limit && !self.said_limit.swap(true, Ordering::Relaxed) {
            warn!(self.log, "{open} connections are open, as many as this child may have \
                (MaxConnectionsPerProcess, or RLIMIT_NOFILE); further clients wait or go to other children";
                "module" => "mpm_event");
        } else if open < event.limit - event.limit / 10 && self.said_limit.load(Ordering::Relaxed) {
            self.said_limit.store(false, Ordering::Relaxed);
        }
    }

    /// There was a want of descriptors, and there is none any more.
    pub(super) fn say_relief(&self) {
        notice!(self.log, "clients can be accepted again"; "module" => "core");
    }

    /// Somebody else should accept. Told to the master at most every 100 ms.
    pub(super) fn say_short(&self) {
        let now = self.now().0;
        if now.saturating_sub(self.said_short.load(Ordering::Relaxed)) > 100_000 {
            self.said_short.store(now, Ordering::Relaxed);
            self.say(Word::Short);
        }
    }

    /// A client could not be accepted. Told to the administrator if it is `news`, and to the master.
    pub(super) fn say_shortage(&self, fault: &io::Error, news: bool) {
        self.say_short();
        if news {
            warn!(self.log, "cannot accept: {}; trying again soon. Raise RLIMIT_NOFILE or lower MaxConnectionsPerProcess", cause(fault);
                "module" => "core");
        }
    }

    /// A sibling that had been woken for a connection may have died: a leader looks at every listener.
    pub(super) fn accept_what_waits(&self) {
        self.accept_all.store(true, Ordering::SeqCst);
        self.nudge_leader();
    }

    // --- deadlines ----------------------------------------------------------------------------------------

    /// Asks for a wake-up, and wakes a leader that would sleep past it.
    pub(super) fn schedule(&self, event: &Event, at: Tick, due: Due) {
        if event.timers.schedule(at, due, |due| event.wants(*due))
            && self.leader_until.load(Ordering::SeqCst) > Timers::rounded(at).0
        {
            self.nudge_leader();
        }
    }

    pub(super) fn nudge_leader(&self) {
        if let Err(fault) = self.waker.wake() {
            error!(self.log, "cannot wake the leader: {}", cause(&fault); "module" => "core");
        }
    }

    // --- threads ------------------------------------------------------------------------------------------

    /// A connection's code panicked: the connection is lost, nothing else.
    pub(super) fn panicked(&self, what: &str) {
        self.block.panicked();
        error!(self.log, "a bug in Ostler: {what}; one connection is lost, please report it"; "module" => "core");
    }

    /// Wakes the steward if it sleeps: there is work.
    pub(super) fn wake_steward(&self) {
        if self.steward_asleep.load(Ordering::SeqCst) && self.steward_asleep.swap(false, Ordering::SeqCst) {
            self.bell.signal();
        }
    }

    /// The poll; only a leader asks.
    pub(super) fn poll_lock(&self) -> std::sync::MutexGuard<'_, Poll> {
        self.poll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a panic said.
pub(super) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
