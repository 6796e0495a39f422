//! The connections of a child: a slab that grows by chunks, with one state word for each connection.
//!
//! The connection is the unit of scheduling. Its word says whether nobody, the run queue or a thread has it,
//! and what has happened to it since a thread last looked. An edge that comes while a thread works on it is
//! noted, never lost, and never lets a second thread in:
//!
//! ```text
//! idle --post--> queued --begin--> running --end--> idle
//!                                   | post
//!                                   v
//!                                 running, with news --end--> queued again
//! ```

use super::tokens::{AGE_MASK, Aged};
use std::ops::{BitOr, BitOrAssign};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Connections per chunk: memory is taken for so many at once.
const CHUNK: usize = 64;

/// What has happened to a connection; a set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct News(pub u16);

impl News {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The client's socket may have bytes, or its end.
    pub const CLIENT_READ: Self = Self(1);
    /// The client's socket may take bytes.
    pub const CLIENT_WRITE: Self = Self(1 << 1);
    /// The client has closed its sending side: a short read is not the last one.
    pub const CLIENT_CLOSED: Self = Self(1 << 2);
    /// The client's connection is broken (reset): nobody reads what we send.
    pub const CLIENT_BROKEN: Self = Self(1 << 3);
    /// The backend's socket may have bytes, or its end.
    pub const UPSTREAM_READ: Self = Self(1 << 4);
    /// The backend's socket may take bytes, or has been connected.
    pub const UPSTREAM_WRITE: Self = Self(1 << 5);
    /// The backend has closed its sending side.
    pub const UPSTREAM_CLOSED: Self = Self(1 << 6);
    /// A deadline has passed.
    pub const TIMER: Self = Self(1 << 7);
    /// A worker row has been reserved for it.
    pub const ROW: Self = Self(1 << 8);
    /// A place among the backend's connections has become free.
    pub const LINK: Self = Self(1 << 9);
    /// A sibling has a free worker row: better served there.
    pub const GO_OVER: Self = Self(1 << 10);

    /// Whether any of `other` is in this set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for News {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for News {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

const IDLE: u64 = 0;
const QUEUED: u64 = 1;
const RUNNING: u64 = 2;
const STATE: u64 = 3;
const NEWS_SHIFT: u32 = 2;
const NEWS: u64 = 0xffff << NEWS_SHIFT;
const AGE_SHIFT: u32 = 32;

fn word(age: u32, news: News, state: u64) -> u64 {
    (u64::from(age) << AGE_SHIFT) | (u64::from(news.0) << NEWS_SHIFT) | state
}

fn news_of(word: u64) -> News {
    News(((word & NEWS) >> NEWS_SHIFT) as u16)
}

/// What became of news.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Posted {
    /// The connection was idle: whoever posted must put it into the run queue.
    Queue,
    /// It is queued or running already and will see the news.
    Noted,
    /// That connection is no more.
    Gone,
}

/// A connection and its state word.
pub(super) struct Slot<T> {
    word: AtomicU64,
    /// A worker row reserved for this connection while it waited, plus 1; 0 is none.
    granted: AtomicU32,
    held: Mutex<Option<T>>,
}

/// The connections of a child, by number.
pub struct Table<T> {
    chunks: Box<[Chunk<T>]>,
    free: Mutex<Free>,
    live: AtomicU32,
    capacity: u32,
}

/// Connections whose memory is taken together, once the first of them comes.
type Chunk<T> = OnceLock<Box<[Slot<T>]>>;

struct Free {
    /// Numbers given back, last in, first out.
    list: Vec<u32>,
    /// Numbers from here on have never been used.
    fresh: u32,
}

impl<T> Table<T> {
    /// Room for `capacity` connections; memory is taken as they come.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        let chunks = (0..(capacity as usize).div_ceil(CHUNK)).map(|_| OnceLock::new()).collect();
        Self {
            chunks,
            free: Mutex::new(Free { list: Vec::new(), fresh: 0 }),
            live: AtomicU32::new(0),
            capacity,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room for another.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// The most there can be.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        self.chunks.get(index as usize / CHUNK)?.get()?.get(index as usize % CHUNK)
    }

    fn known(&self, index: u32) -> &Slot<T> {
        self.slot(index).expect("an index comes from `insert`, and chunks are never given back")
    }

    /// Takes `item` in, idle. `None` if the table is full; `item` is then dropped.
    pub fn insert(&self, make: impl FnOnce(Aged) -> T) -> Option<Aged> {
        let index = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            match free.list.pop() {
                Some(index) => index,
                None if free.fresh < self.capacity => {
                    free.fresh += 1;
                    free.fresh - 1
                }
                None => return None,
            }
        };
        let chunk = self.chunks[index as usize / CHUNK].get_or_init(|| {
            (0..CHUNK)
                .map(|_| Slot { word: AtomicU64::new(0), granted: AtomicU32::new(0), held: Mutex::new(None) })
                .collect()
        });
        let slot = &chunk[index as usize % CHUNK];
        let age = (slot.word.load(Ordering::Acquire) >> AGE_SHIFT) as u32;
        let aged = Aged { index, age };
        *slot.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(make(aged));
        self.live.fetch_add(1, Ordering::Relaxed);
        Some(aged)
    }

    /// Notes `news` for a connection.
    pub fn post(&self, who: Aged, news: News) -> Posted {
        let Some(slot) = self.slot(who.index) else { return Posted::Gone };
        let mut seen = slot.word.load(Ordering::Acquire);
        loop {
            if (seen >> AGE_SHIFT) as u32 != who.age {
                return Posted::Gone;
            }
            let idle = seen & STATE == IDLE;
            let state = if idle { QUEUED } else { seen & STATE };
            let next = (seen & !STATE) | (u64::from(news.0) << NEWS_SHIFT) | state;
            match slot.word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return if idle { Posted::Queue } else { Posted::Noted },
                Err(now) => seen = now,
            }
        }
    }

    /// A thread takes a queued connection: from here on it is alone with it. Returns what has happened to it.
    ///
    /// The guard holds `None` only if the connection was removed under it, which the word rules out.
    pub fn begin(&self, index: u32) -> (MutexGuard<'_, Option<T>>, News) {
        let slot = self.known(index);
        let seen = slot
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                Some((word & !(STATE | NEWS)) | RUNNING)
            })
            .expect("the closure always gives a value");
        (slot.held.lock().unwrap_or_else(PoisonError::into_inner), news_of(seen))
    }

    /// The thread has done what it could. `false` if news came meanwhile: the connection is queued again, and
    /// the caller must put it into the run queue (or `begin` again at once).
    pub fn end(&self, index: u32) -> bool {
        let slot = self.known(index);
        let seen = slot
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let state = if word & NEWS == 0 { IDLE } else { QUEUED };
                Some((word & !STATE) | state)
            })
            .expect("the closure always gives a value");
        seen & NEWS == 0
    }

    /// The thread that runs a connection ends its turn, but wants another one at once.
    pub fn requeue(&self, index: u32) {
        let slot = self.known(index);
        slot.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| Some((word & !STATE) | QUEUED))
            .expect("the closure always gives a value");
    }

    /// The thread that runs a connection has taken it out of its guard: its number is free again.
    pub fn remove(&self, index: u32) {
        let slot = self.known(index);
        slot.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                let age = ((old >> AGE_SHIFT) as u32).wrapping_add(1) & AGE_MASK;
                Some(word(age, News::NONE, IDLE))
            })
            .expect("the closure always gives a value");
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).list.push(index);
    }

    /// Reserves a worker row for a connection that waits, and tells it.
    pub fn grant(&self, who: Aged, row: u32) -> Posted {
        let Some(slot) = self.slot(who.index) else { return Posted::Gone };
        if (slot.word.load(Ordering::Acquire) >> AGE_SHIFT) as u32 != who.age {
            return Posted::Gone;
        }
        // The connection can't go away between the look and the store: one that waits for a row is taken off
        // the waiting list (under the rows' lock, which our caller holds) before it is removed.
        slot.granted.store(row + 1, Ordering::Release);
        self.post(who, News::ROW)
    }

    /// Takes the row that was reserved for this connection, if any.
    pub fn take_grant(&self, index: u32) -> Option<u32> {
        self.known(index).granted.swap(0, Ordering::AcqRel).checked_sub(1)
    }

    /// Every connection that may exist now, for news that concern all.
    pub fn all(&self) -> impl Iterator<Item = Aged> + '_ {
        self.some(0, u32::MAX).0
    }

    /// At most `most` of [`Table::all`], from number `first` on, and the number behind them; `None` at the end.
    pub fn some(&self, first: u32, most: u32) -> (impl Iterator<Item = Aged> + '_, Option<u32>) {
        let fresh = self.free.lock().unwrap_or_else(PoisonError::into_inner).fresh;
        let behind = first.saturating_add(most).min(fresh);
        let found = (first..behind).filter_map(|index| {
            let word = self.slot(index)?.word.load(Ordering::Acquire);
            Some(Aged { index, age: (word >> AGE_SHIFT) as u32 })
        });
        (found, (behind < fresh).then_some(behind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn news_for_an_idle_connection_queues_it_once() {
        let table = Table::new(10);
        let who = table.insert(|_| ()).expect("room");
        assert_eq!(table.post(who, News::CLIENT_READ), Posted::Queue);
        assert_eq!(table.post(who, News::UPSTREAM_READ), Posted::Noted);
        let (guard, news) = table.begin(who.index);
        assert_eq!(news, News::CLIENT_READ | News::UPSTREAM_READ);
        assert_eq!(table.post(who, News::TIMER), Posted::Noted, "running");
        drop(guard);
        assert!(!table.end(who.index), "news came while it ran: queued again");
        let (guard, news) = table.begin(who.index);
        assert_eq!(news, News::TIMER);
        drop(guard);
        assert!(table.end(who.index));
    }

    #[test]
    fn late_news_do_not_reach_the_next_connection_of_that_number() {
        let table = Table::new(1);
        assert!(!table.is_full());
        let first = table.insert(|_| 1).expect("room");
        assert!(table.is_full());
        assert_eq!(table.insert(|_| 2), None, "full");
        table.post(first, News::CLIENT_READ);
        table.begin(first.index).0.take();
        table.remove(first.index);
        let second = table.insert(|_| 2).expect("room again");
        assert_eq!(second.index, first.index);
        assert_eq!(table.post(first, News::CLIENT_READ), Posted::Gone);
        assert_eq!(table.post(second, News::CLIENT_READ), Posted::Queue);
        assert_eq!(table.post(Aged { index: 99, age: 0 }, News::TIMER), Posted::Gone);
    }

    #[test]
    fn no_edge_is_lost_and_no_second_thread_gets_in() {
        let table = Arc::new(Table::new(1));
        let who = table.insert(|_| 0_u64).expect("room");
        let queue = Arc::new(Mutex::new(Vec::new()));
        let inside = Arc::new(AtomicUsize::new(0));
        let posts = 20_000_u64;
        let seen = Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..posts {
                        if table.post(who, News::CLIENT_READ) == Posted::Queue {
                            queue.lock().expect("no panic").push(who.index);
                        }
                        seen.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let done = seen.load(Ordering::SeqCst) == 2 * posts;
                        let Some(index) = queue.lock().expect("no panic").pop() else {
                            if done {
                                break;
                            }
                            std::thread::yield_now();
                            continue;
                        };
                        let (mut guard, news) = table.begin(index);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two threads in one connection");
                        assert!(news.has(News::CLIENT_READ));
                        *guard.as_mut().expect("held") += 1;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                        if !table.end(index) {
                            queue.lock().expect("no panic").push(index);
                        }
                    }
                });
            }
        });
        assert_eq!(table.post(who, News::TIMER), Posted::Queue, "idle at the end: every edge was taken");
    }
}
