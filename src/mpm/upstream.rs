//! Connections to backends: opened, lent to one exchange at a time, kept idle, closed.
//!
//! Under event every one is registered with the child's poll once, for its whole life. Its *ticket* leads an
//! edge to its owner's state word; an edge on one that nobody owns means that the backend has closed it, or
//! says something that nobody asked for, and it is closed.

use super::table::News;
use super::tokens::{AGE_MASK, Aged, Source};
use crate::buf::Backlog;
use crate::clock::Moment;
use crate::config::model::{Backend, Endpoint};
use crate::ids::BackendId;
use crate::proxy::backend::Health;
use crate::proxy::pool::Pool;
use crate::sys::socket::{self, Connecting, Waiting};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use nix::errno::Errno;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// A connection to a backend that serves an exchange.
#[derive(Debug)]
pub struct Link {
    /// Its socket.
    pub fd: OwnedFd,
    /// Its number with the poll; `None` where no poll watches it (worker, prefork).
    pub ticket: Option<Aged>,
    /// Whether it had served an exchange before.
    pub reused: bool,
    /// Whether the connect is still under way.
    pub connecting: bool,
    /// Whether a byte of the response has come.
    pub responded: bool,
    /// Whether the backend takes no more bytes (it may still answer).
    pub deaf: bool,
    /// What the socket would not take yet.
    pub backlog: Backlog,
    /// Bytes of the response that have been read but not understood: part of a head or of a size line.
    pub rest: Vec<u8>,
    /// Where it goes: an index of the endpoint's addresses.
    pub address: usize,
    /// Whether more than its last response may be on the way: a backend may think that it had a body.
    pub doubtful: bool,
    /// Whether reads from it may wait ([`super::nap`]).
    pub(super) waiting: Waiting,
    /// Edges that had been seen when it was last read; more of them in the pool mean that something came.
    edges: u32,
}

/// A connection to a backend that serves nobody.
#[derive(Debug)]
pub struct Idle {
    fd: OwnedFd,
    ticket: Option<Aged>,
    edges: u32,
    address: usize,
    doubtful: bool,
    waiting: Waiting,
}

/// What the threads of a child share about one backend.
#[derive(Debug)]
pub struct Place {
    pool: Mutex<Pool<Idle, Aged>>,
    /// Whether it is up.
    pub health: Health,
    /// Whether a timer watches over the idle ones.
    timed: std::sync::atomic::AtomicBool,
}

impl Place {
    /// For `backend`. Without `max` the exchanges of the child are the only bound: each holds a worker row.
    #[must_use]
    pub fn new(backend: &Backend) -> Self {
        let max = backend.max.map_or(u32::MAX, std::num::NonZeroU32::get);
        Self {
            pool: Mutex::new(Pool::new(max, backend.ttl)),
            health: Health::default(),
            timed: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// The idle connections.
    pub fn pool(&self) -> MutexGuard<'_, Pool<Idle, Aged>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller must ask for a timer; it counts as asked for from here on.
    pub fn needs_timer(&self) -> bool {
        !self.timed.load(Ordering::Relaxed) && !self.timed.swap(true, Ordering::Relaxed)
    }

    /// The timer has fired and is not asked for again.
    pub fn timer_done(&self) {
        self.timed.store(false, Ordering::Relaxed);
    }
}

/// Who owns the edges of which ticket (event only).
#[derive(Debug)]
pub struct Links {
    chunks: Box<[OnceLock<Box<[LinkSlot]>>]>,
    free: Mutex<(Vec<u32>, u32)>,
}

#[derive(Debug, Default)]
struct LinkSlot {
    age: AtomicU32,
    /// The owner: bit 63 set, age and index of its connection; 0 while nobody owns it.
    owner: AtomicU64,
    edges: AtomicU32,
    backend: AtomicU32,
}

const CHUNK: usize = 64;
const OWNED: u64 = 1 << 63;

/// Whom an edge concerns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// A connection of ours.
    Connection(Aged),
    /// Nobody: it is idle in this backend's pool.
    Pool(BackendId),
    /// It is closed already.
    Gone,
}

impl Links {
    /// Room for `capacity` at one time.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        let chunks = (0..(capacity as usize).div_ceil(CHUNK)).map(|_| OnceLock::new()).collect();
        Self { chunks, free: Mutex::new((Vec::new(), 0)) }
    }

    fn slot(&self, index: u32) -> Option<&LinkSlot> {
        self.chunks.get(index as usize / CHUNK)?.get()?.get(index as usize % CHUNK)
    }

    /// A ticket for a new connection to `backend` that `owner` has asked for.
    pub fn issue(&self, backend: BackendId, owner: Aged) -> io::Result<Aged> {
        let index = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            match free.0.pop() {
                Some(index) => index,
                None if (free.1 as usize) < self.chunks.len() * CHUNK => {
                    free.1 += 1;
                    free.1 - 1
                }
                None => {
                    return Err(Errno::EMFILE.into());
                }
            }
        };
        let chunk = self.chunks[index as usize / CHUNK]
            .get_or_init(|| (0..CHUNK).map(|_| LinkSlot::default()).collect());
        let slot = &chunk[index as usize % CHUNK];
        slot.backend.store(backend.0, Ordering::Relaxed);
        slot.edges.store(0, Ordering::Relaxed);
        let ticket = Aged { index, age: slot.age.load(Ordering::Acquire) };
        self.assign(ticket, Some(owner));
        Ok(ticket)
    }

    /// Says who owns the edges from now on.
    pub fn assign(&self, ticket: Aged, owner: Option<Aged>) {
        if let Some(slot) = self.slot(ticket.index) {
            let word = owner.map_or(0, |who| OWNED | (u64::from(who.age) << 32) | u64::from(who.index));
            slot.owner.store(word, Ordering::Release);
        }
    }

    /// How many edges it has had.
    #[must_use]
    pub fn edges(&self, ticket: Aged) -> u32 {
        self.slot(ticket.index).map_or(0, |slot| slot.edges.load(Ordering::Acquire))
    }

    /// An edge came: counts it, and says whose it is.
    pub fn edge(&self, ticket: Aged) -> Owner {
        let Some(slot) = self.slot(ticket.index) else { return Owner::Gone };
        if slot.age.load(Ordering::Acquire) != ticket.age {
            return Owner::Gone;
        }
        slot.edges.fetch_add(1, Ordering::AcqRel);
        self.owner(ticket)
    }

    /// Whose it is now.
    #[must_use]
    pub fn owner(&self, ticket: Aged) -> Owner {
        let Some(slot) = self.slot(ticket.index) else { return Owner::Gone };
        let word = slot.owner.load(Ordering::Acquire);
        if slot.age.load(Ordering::Acquire) != ticket.age {
            Owner::Gone
        } else if word & OWNED == 0 {
            Owner::Pool(BackendId(slot.backend.load(Ordering::Relaxed)))
        } else {
            Owner::Connection(Aged { index: word as u32, age: (word >> 32) as u32 & AGE_MASK })
        }
    }

    /// The connection is closed: its ticket is void.
    pub fn void(&self, ticket: Aged) {
        if let Some(slot) = self.slot(ticket.index) {
            slot.owner.store(0, Ordering::Release);
            slot.age.store(ticket.age.wrapping_add(1) & AGE_MASK, Ordering::Release);
            self.free.lock().unwrap_or_else(PoisonError::into_inner).0.push(ticket.index);
        }
    }
}

/// What an event child adds to a connection: its poll, and whose edges are whose.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// The child's poll.
    pub registry: &'a Registry,
    /// Tickets.
    pub links: &'a Links,
    /// The connection that asks.
    pub who: Aged,
}

/// Begins to connect to `backend`, at its address number `address`.
///
/// # Errors
/// What connect(2) says at once.
pub fn connect(
    id: BackendId,
    backend: &Backend,
    address: usize,
    watch: Option<Watch<'_>>,
) -> io::Result<Link> {
    let (fd, connecting) = match &backend.endpoint {
        Endpoint::Tcp { addresses, .. } => {
            let address =
                addresses.get(address).ok_or_else(|| io::Error::other("its name resolves to no address"))?;
            socket::connect_tcp(address, backend.keepalive)?
        }
        Endpoint::Unix(path) => socket::connect_unix(path)?,
    };
    let ticket = match watch {
        None => None,
        Some(watch) => {
            let ticket = watch.links.issue(id, watch.who)?;
            let token = Source::Upstream(ticket).token();
            let interest = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = watch.registry.register(&mut SourceFd(&fd.as_raw_fd()), token, interest) {
                watch.links.void(ticket);
                return Err(error);
            }
            Some(ticket)
        }
    };
    Ok(Link {
        fd,
        ticket,
        reused: false,
        connecting: connecting == Connecting::InProgress,
        responded: false,
        deaf: false,
        backlog: Backlog::default(),
        rest: Vec::new(),
        address,
        doubtful: false,
        waiting: Waiting::default(),
        edges: 0,
    })
}

impl Idle {
    /// Lends it to `who`. `None`, and it is closed, if the backend has closed it or said something unasked.
    ///
    /// `look` asks the kernel in any case: no poll watches it, or the request could do harm if it were lost. So is a doubtful
    /// one: what follows its last response may be here before the poll has told of it, and is no answer to anybody.
    pub fn lend(self, links: Option<(&Links, Aged)>, look: bool) -> Result<Link, Self> {
        let moved = match (links, self.ticket) {
            (Some((links, _)), Some(ticket)) => links.edges(ticket) != self.edges,
            _ => true,
        };
        if (moved || look || self.doubtful) && !socket::is_quiet(self.fd.as_fd()) {
            return Err(self);
        }
        if let (Some((links, who)), Some(ticket)) = (links, self.ticket) {
            links.assign(ticket, Some(who));
        }
        Ok(Link {
            fd: self.fd,
            ticket: self.ticket,
            reused: true,
            connecting: false,
            responded: false,
            deaf: false,
            backlog: Backlog::default(),
            rest: Vec::new(),
            address: self.address,
            doubtful: false,
            waiting: self.waiting,
            edges: self.edges,
        })
    }

    /// Closes it.
    pub fn close(self, links: Option<&Links>) {
        if let (Some(links), Some(ticket)) = (links, self.ticket) {
            links.void(ticket);
        }
    }

    /// Whether it is the one of this ticket.
    #[must_use]
    pub fn is(&self, ticket: Aged) -> bool {
        self.ticket == Some(ticket)
    }
}

impl Link {
    /// About to be read: edges from here on are news.
    pub fn reading(&mut self, links: Option<&Links>) {
        if let (Some(links), Some(ticket)) = (links, self.ticket) {
            self.edges = links.edges(ticket);
        }
    }

    /// Its socket, if what goes over it is what the exchange says, byte by byte: the kernel may write to it and read
    /// from it then, and no call on it waits. `None` for a connection with a layer in between.
    #[must_use]
    pub fn bare(&mut self) -> Option<BorrowedFd<'_>> {
        self.waiting.forbid(self.fd.as_fd()).ok()?;
        Some(self.fd.as_fd())
    }

    /// Whether nothing of the backend's waits to be read.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        socket::is_quiet(self.fd.as_fd())
    }

    /// Nobody uses it now.
    #[must_use]
    pub fn rest(self, links: Option<&Links>) -> Idle {
        if let (Some(links), Some(ticket)) = (links, self.ticket) {
            links.assign(ticket, None);
        }
        let Self { fd, ticket, edges, address, doubtful, waiting, .. } = self;
        Idle { fd, ticket, edges, address, doubtful, waiting }
    }

    /// Closes it. Its descriptor is ours alone (every descriptor is born CLOEXEC, and children don't fork), so
    /// that the close takes it out of the poll as well.
    pub fn close(self, links: Option<&Links>) {
        if let (Some(links), Some(ticket)) = (links, self.ticket) {
            links.void(ticket);
        }
    }

    /// The address it goes to.
    #[must_use]
    pub fn peer(&self, backend: &Backend) -> Option<SocketAddr> {
        match &backend.endpoint {
            Endpoint::Tcp { addresses, .. } => addresses.get(self.address).copied(),
            Endpoint::Unix(_) => None,
        }
    }
}

/// News of a backend's socket in terms of its owner's word.
#[must_use]
pub fn news(event: &mio::event::Event) -> News {
    let mut news = News::NONE;
    if event.is_readable() || event.is_read_closed() || event.is_error() {
        news |= News::UPSTREAM_READ;
    }
    if event.is_writable() || event.is_write_closed() || event.is_error() {
        news |= News::UPSTREAM_WRITE;
    }
    if event.is_read_closed() || event.is_error() {
        news |= News::UPSTREAM_CLOSED;
    }
    news
}

/// When something happened with a backend, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// The first attempt to get a connection.
    pub begun: Moment,
    /// The connection was there.
    pub connected: Moment,
    /// The first byte of the response.
    pub first_byte: Moment,
    /// Connections tried.
    pub attempts: u32,
    /// Whether the last one had served before.
    pub reused: bool,
    /// The last one's address.
    pub address: usize,
    /// When the connect of a fresh connection began.
    pub dialled: Moment,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    const NOBODY: Aged = Aged { index: 7, age: 0 };

    /// A connection that an exchange has used, and the backend's end of it.
    fn link(links: &Links, doubtful: bool) -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a descriptor is free");
        let link = Link {
            fd: ours.into(),
            ticket: Some(links.issue(BackendId(0), NOBODY).expect("there is room")),
            reused: false,
            connecting: false,
            responded: true,
            deaf: false,
            backlog: Backlog::default(),
            rest: Vec::new(),
            address: 0,
            doubtful,
            waiting: Waiting::default(),
            edges: 0,
        };
        (link, theirs)
    }

    #[test]
    fn a_connection_is_looked_at_where_bytes_may_have_come_unseen() {
        let links = Links::new(64);
        for (why, doubtful, look, edge, junk, is_lent) in [
            ("nothing has come", false, false, false, false, true),
            ("a doubtful one with nothing to read", true, false, false, false, true),
            ("an edge without a byte", false, false, true, false, true),
            ("an edge", false, false, true, true, false),
            ("a request that must not be lost", false, true, false, true, false),
            ("a doubtful one, and no edge has been counted yet", true, false, false, true, false),
        ] {
            let (link, mut backend) = link(&links, doubtful);
            let ticket = link.ticket.expect("it has been given one");
            let idle = link.rest(Some(&links));
            assert_eq!(links.owner(ticket), Owner::Pool(BackendId(0)), "{why}");
            if junk {
                backend.write_all(b"HTTP/1.1 200 OK").expect("there is room");
            }
            if edge {
                links.edge(ticket);
            }
            match idle.lend(Some((&links, NOBODY)), look) {
                Ok(link) => {
                    assert!(is_lent, "{why}");
                    assert!(!link.doubtful, "{why}: its next response decides");
                    assert_eq!(links.owner(ticket), Owner::Connection(NOBODY), "{why}");
                    link.close(Some(&links));
                }
                Err(idle) => {
                    assert!(!is_lent, "{why}");
                    idle.close(Some(&links));
                }
            }
            assert_eq!(links.owner(ticket), Owner::Gone, "{why}");
        }
    }
}
