//! The connections of a child, by number, with one state word for each.
//!
//! The connection is the unit of scheduling. Its word says whether nobody, the run queue or a thread has it,
//! and what has happened to it since a thread last looked. An edge that comes while a thread works on it is
//! noted, never lost, and never lets a second thread in:
//!
//! ```text
//! free --insert--> running --end--> idle --post--> queued --begin--> running --end--> idle
//!                    |                                                | post
//!                    remove                                           v
//!                    v                                              running, with news --end--> queued again
//!                  free
//! ```
//!
//! Whoever inserts a connection is alone with it until it says that its turn has ended: nobody else begins it before
//! its socket is watched.
//!
//! A connection itself lives on the heap, from accept to close. Its number has 16 bytes elsewhere, and numbers are used
//! again from the lowest on: a child that has had ten thousand connections gives their memory back.

use super::tokens::{AGE_MASK, Aged};
use crate::config::bounds;
use crate::config::model::Mpm;
use crate::sys::cells::{Cell, Cells};
use std::io;
use std::ops::{BitOr, BitOrAssign};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What has happened to a connection; a set of at most 12, as many as the state word has room for.
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

/// There is no connection of this number. A word that has never been written to says so.
const FREE: u64 = 0;
const IDLE: u64 = 1;
const QUEUED: u64 = 2;
const RUNNING: u64 = 3;
const STATE: u64 = 3;
const NEWS_SHIFT: u32 = 2;
const NEWS: u64 = 0xfff << NEWS_SHIFT;
/// A worker row reserved for the connection while it waited, plus 1; 0 is none.
const GRANT_SHIFT: u32 = 14;
const GRANT: u64 = (MAX_ROWS as u64) << GRANT_SHIFT;
const AGE_SHIFT: u32 = 32;

/// As many worker rows as a state word can name.
pub const MAX_ROWS: u32 = (1 << 18) - 1;

const _: () = assert!(bounds(Mpm::Event).1 <= MAX_ROWS);
const _: () =
    assert!((STATE | NEWS | GRANT) >> AGE_SHIFT == 0 && News::GO_OVER.0 as u64 <= NEWS >> NEWS_SHIFT);

fn age_of(word: u64) -> u32 {
    (word >> AGE_SHIFT) as u32
}

/// Whether that is the word of this connection, not of another that has its number.
fn is(word: u64, who: Aged) -> bool {
    age_of(word) == who.age && word & STATE != FREE
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

/// The connections of a child, by number: the state word of each, and itself while nobody runs it.
pub struct Table<T> {
    cells: Cells<T>,
    numbers: Mutex<Numbers>,
    live: AtomicU32,
    capacity: u32,
}

/// Which numbers are taken.
#[derive(Default)]
struct Numbers {
    /// A bit for each number below `fresh`: set while it is free.
    free: Vec<u64>,
    /// No word before this one has a bit set.
    from: usize,
    /// Numbers from here on have never been used.
    fresh: u32,
    /// No connection is younger: words that went back to the kernel have forgotten their ages.
    youngest: u32,
}

impl Numbers {
    /// The lowest that is free, below `capacity`.
    fn take(&mut self, capacity: u32) -> Option<u32> {
        while let Some(word) = self.free.get_mut(self.from) {
            if *word != 0 {
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                return Some(self.from as u32 * u64::BITS + bit);
            }
            self.from += 1;
        }
        let number = (self.fresh < capacity).then_some(self.fresh)?;
        self.fresh += 1;
        Some(number)
    }

    fn give(&mut self, number: u32) {
        let place = (number / u64::BITS) as usize;
        if self.free.len() <= place {
            self.free.resize(place + 1, 0);
        }
        self.free[place] |= 1 << (number % u64::BITS);
        self.from = self.from.min(place);
    }

    /// Whether nobody has it, and whoever had it is done with it.
    fn is_free(&self, number: u32) -> bool {
        let bit = |word: &u64| word & (1 << (number % u64::BITS)) != 0;
        number >= self.fresh || self.free.get((number / u64::BITS) as usize).is_some_and(bit)
    }
}

impl<T> Table<T> {
    /// Room for `capacity` connections; memory is taken as they come.
    ///
    /// # Errors
    /// ENOMEM, where no address space is to be had.
    pub fn new(capacity: u32) -> io::Result<Self> {
        let cells = Cells::new(capacity)?;
        Ok(Self { cells, numbers: Mutex::default(), live: AtomicU32::new(0), capacity })
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

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, index: u32) -> &Cell<T> {
        self.cells.get(index).expect("an index comes from `insert`, which stays below the capacity")
    }

    /// Makes a connection with the lowest number that is free. The caller runs it, as if it had begun it: what comes is
    /// noted until it puts the connection back or removes it. `None`, and nothing is made, if the table is full.
    pub fn insert(&self, make: impl FnOnce(Aged) -> T) -> Option<(Aged, Box<T>)> {
        let (index, youngest) = {
            let mut numbers = self.numbers();
            (numbers.take(self.capacity)?, numbers.youngest)
        };
        let cell = self.known(index);
        let aged = Aged { index, age: age_of(cell.word.load(Ordering::Acquire)).max(youngest) };
        let made = Box::new(make(aged));
        // Nobody else changes the word of a number that is free.
        cell.word.store((u64::from(aged.age) << AGE_SHIFT) | RUNNING, Ordering::Release);
        self.live.fetch_add(1, Ordering::Relaxed);
        Some((aged, made))
    }

    /// Notes `news` for a connection.
    pub fn post(&self, who: Aged, news: News) -> Posted {
        self.tell(who, 0, u64::from(news.0) << NEWS_SHIFT)
    }

    /// Clears these bits of its state word, sets those, and queues it if it is idle.
    fn tell(&self, who: Aged, clear: u64, set: u64) -> Posted {
        let Some(cell) = self.cells.get(who.index) else { return Posted::Gone };
        let mut seen = cell.word.load(Ordering::Acquire);
        loop {
            if !is(seen, who) {
                return Posted::Gone;
            }
            let idle = seen & STATE == IDLE;
            let state = if idle { QUEUED } else { seen & STATE };
            let next = (seen & !(STATE | clear)) | set | state;
            match cell.word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return if idle { Posted::Queue } else { Posted::Noted },
                Err(now) => seen = now,
            }
        }
    }

    /// Whether that connection is there still. It may be gone by the time that the caller hears of it; it never
    /// comes back.
    #[must_use]
    pub fn has(&self, who: Aged) -> bool {
        self.cells.get(who.index).is_some_and(|cell| is(cell.word.load(Ordering::Acquire), who))
    }

    /// A thread takes a queued connection, and is alone with it until it puts it back or removes it. Returns what has
    /// happened to it. A number is queued once, and only while its connection is there; `None` would be a fault of ours.
    pub fn begin(&self, index: u32) -> (Option<Box<T>>, News) {
        let cell = self.known(index);
        let seen = cell
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                Some((word & !(STATE | NEWS)) | RUNNING)
            })
            .expect("the closure always gives a value");
        (cell.take(), news_of(seen))
    }

    /// The thread has done what it could, and puts the connection back. `false` if news came meanwhile: the connection
    /// is queued again, and the caller must put it into the run queue (or `begin` again at once).
    pub fn end(&self, index: u32, conn: Box<T>) -> bool {
        let cell = self.known(index);
        cell.put(conn);
        let seen = cell
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let state = if word & NEWS == 0 { IDLE } else { QUEUED };
                Some((word & !STATE) | state)
            })
            .expect("the closure always gives a value");
        seen & NEWS == 0
    }

    /// The thread that runs a connection puts it back, but wants another turn for it at once.
    pub fn requeue(&self, index: u32, conn: Box<T>) {
        let cell = self.known(index);
        cell.put(conn);
        cell.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| Some((word & !STATE) | QUEUED))
            .expect("the closure always gives a value");
    }

    /// The thread that runs a connection keeps it: its number is free again.
    pub fn remove(&self, index: u32) {
        let cell = self.known(index);
        cell.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                let age = age_of(old).wrapping_add(1) & AGE_MASK;
                Some((u64::from(age) << AGE_SHIFT) | FREE)
            })
            .expect("the closure always gives a value");
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.numbers().give(index);
    }

    /// Reserves a worker row for a connection that waits, and tells it; `row` is below [`MAX_ROWS`].
    pub fn grant(&self, who: Aged, row: u32) -> Posted {
        self.tell(who, GRANT, (u64::from(row + 1) << GRANT_SHIFT) | (u64::from(News::ROW.0) << NEWS_SHIFT))
    }

    /// Takes the row that was reserved for this connection, if any.
    pub fn take_grant(&self, index: u32) -> Option<u32> {
        let word = &self.known(index).word;
        // Hardly ever is there one: a look costs less than an exchange.
        if word.load(Ordering::Acquire) & GRANT == 0 {
            return None;
        }
        (((word.fetch_and(!GRANT, Ordering::AcqRel) & GRANT) >> GRANT_SHIFT) as u32).checked_sub(1)
    }

    /// A crowd is gone: gives the memory of numbers back that nobody has, page by page.
    ///
    /// # Errors
    /// If the kernel does not take it.
    pub fn give_back(&self) -> io::Result<()> {
        // Nobody takes a number meanwhile.
        let mut numbers = self.numbers();
        let page = Cells::<T>::per_page();
        for first in (0..numbers.fresh).step_by(page as usize) {
            let range = first..first.saturating_add(page);
            if range.clone().all(|number| numbers.is_free(number)) {
                let ages = range
                    .clone()
                    .filter_map(|number| Some(age_of(self.cells.get(number)?.word.load(Ordering::Acquire))));
                numbers.youngest = ages.fold(numbers.youngest, u32::max);
                self.cells.give_back(range)?;
            }
        }
        Ok(())
    }

    /// Every connection that there is now, for news that concern all.
    pub fn all(&self) -> impl Iterator<Item = Aged> + '_ {
        self.some(0, u32::MAX).0
    }

    /// At most `most` of [`Table::all`], from number `first` on, and the number behind them; `None` at the end.
    pub fn some(&self, first: u32, most: u32) -> (impl Iterator<Item = Aged> + '_, Option<u32>) {
        let fresh = self.numbers().fresh;
        let behind = first.saturating_add(most).min(fresh);
        let found = (first..behind).filter_map(|index| {
            let word = self.cells.get(index)?.word.load(Ordering::Acquire);
            (word & STATE != FREE).then(|| Aged { index, age: age_of(word) })
        });
        (found, (behind < fresh).then_some(behind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, AtomicUsize};

    /// A connection whose first turn has ended.
    fn idle<T>(table: &Table<T>, what: T) -> Aged {
        let (who, conn) = table.insert(|_| what).expect("room");
        assert!(table.end(who.index, conn));
        who
    }

    /// A thread that has begun a connection lets it go.
    fn end_of<T>(table: &Table<T>, who: Aged) {
        assert!(table.begin(who.index).0.is_some());
        table.remove(who.index);
    }

    #[test]
    fn whoever_inserts_a_connection_is_alone_with_it_and_a_free_number_is_nobody() {
        let table = Table::new(2).expect("address space");
        let (who, conn) = table.insert(|_| ()).expect("room");
        assert_eq!(table.all().collect::<Vec<_>>(), [who]);
        assert_eq!(table.post(who, News::TIMER), Posted::Noted, "it is not to be begun yet");
        assert!(!table.end(who.index, conn), "what came meanwhile");
        end_of(&table, who);
        assert_eq!(table.all().count(), 0);
        let next = Aged { age: who.age + 1, ..who };
        assert_eq!((table.post(next, News::TIMER), table.has(next)), (Posted::Gone, false));
    }

    #[test]
    fn news_for_an_idle_connection_queues_it_once() {
        let table = Table::new(10).expect("address space");
        let who = idle(&table, ());
        assert_eq!(table.post(who, News::CLIENT_READ), Posted::Queue);
        assert_eq!(table.post(who, News::UPSTREAM_READ), Posted::Noted);
        let (conn, news) = table.begin(who.index);
        assert_eq!(news, News::CLIENT_READ | News::UPSTREAM_READ);
        assert_eq!(table.post(who, News::TIMER), Posted::Noted, "running");
        assert!(!table.end(who.index, conn.expect("there")), "news came while it ran: queued again");
        let (conn, news) = table.begin(who.index);
        assert_eq!(news, News::TIMER);
        assert!(table.end(who.index, conn.expect("there")));
    }

    #[test]
    fn late_news_do_not_reach_the_next_connection_of_that_number() {
        let table = Table::new(1).expect("address space");
        assert!(!table.is_full());
        let first = idle(&table, 1);
        assert!(table.is_full());
        assert_eq!(table.insert(|_| 2), None, "full");
        table.post(first, News::CLIENT_READ);
        end_of(&table, first);
        let second = idle(&table, 2);
        assert_eq!(second.index, first.index);
        assert_eq!(table.post(first, News::CLIENT_READ), Posted::Gone);
        assert_eq!(table.post(second, News::CLIENT_READ), Posted::Queue);
        assert_eq!(table.post(Aged { index: 99, age: 0 }, News::TIMER), Posted::Gone);
    }

    #[test]
    fn the_lowest_free_number_is_used_again() {
        let table = Table::new(200).expect("address space");
        let all: Vec<Aged> = (0..200).map(|_| idle(&table, ())).collect();
        assert_eq!(all.last().map(|who| who.index), Some(199));
        for index in [199, 64, 63, 130, 5] {
            end_of(&table, all[index as usize]);
            assert!(!table.has(all[index as usize]));
        }
        assert!(table.has(all[6]));
        let mut again = Vec::new();
        while let Some((who, _)) = table.insert(|_| ()) {
            assert_eq!(who.age, 1);
            again.push(who.index);
        }
        assert_eq!(again, [5, 63, 64, 130, 199]);
        assert!(table.is_full());
    }

    #[test]
    fn numbers_whose_memory_went_back_are_not_those_of_before() {
        let page = Cells::<u32>::per_page();
        let table = Table::new(4 * page).expect("address space");
        let all: Vec<Aged> = (0..3 * page + 1).map(|number| idle(&table, number)).collect();
        // One is used twice, and one of another page stays.
        let (often, stays) = (all[3], all[page as usize + 7]);
        let end = |who: Aged| {
            assert_eq!(table.post(who, News::TIMER), Posted::Queue);
            end_of(&table, who);
        };
        end(often);
        let again = idle(&table, 0);
        assert_eq!((again.index, again.age), (often.index, 1));
        end(again);
        all.iter().filter(|who| ![often, stays].contains(who)).for_each(|who| end(*who));
        table.give_back().expect("memory of our own");
        assert_eq!(table.all().collect::<Vec<_>>(), [stays]);
        assert!([often, again, all[0]].iter().all(|who| table.post(*who, News::TIMER) == Posted::Gone));
        let next: Vec<Aged> = (0..5).map(|number| idle(&table, number)).collect();
        assert_eq!(next.iter().map(|who| who.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(next.iter().all(|who| who.age >= 2), "{next:?}");
        assert!([often, again].iter().all(|who| !table.has(*who)));
        assert_eq!(table.post(stays, News::TIMER), Posted::Queue);
        assert_eq!(table.begin(stays.index).0, Some(Box::new(stays.index)), "its page has stayed");
    }

    #[test]
    fn a_row_goes_to_who_waits_for_it_and_to_nobody_else() {
        for row in [0, 1, MAX_ROWS - 1] {
            let table = Table::new(1).expect("address space");
            let who = idle(&table, ());
            assert_eq!(table.take_grant(who.index), None);
            assert_eq!(table.grant(who, row), Posted::Queue);
            let (conn, news) = table.begin(who.index);
            assert_eq!(news, News::ROW);
            assert_eq!(table.take_grant(who.index), Some(row));
            assert_eq!(table.take_grant(who.index), None, "once");
            assert_eq!(table.post(who, News(0xfff)), Posted::Noted);
            assert_eq!(table.take_grant(who.index), None, "news are no row");
            assert!(!table.end(who.index, conn.expect("there")));
            assert_eq!(table.grant(who, row), Posted::Noted, "queued");
            end_of(&table, who);
            assert_eq!(table.grant(who, row), Posted::Gone);
            assert_eq!(table.take_grant(who.index), None, "not the next one's");
        }
    }

    #[test]
    fn no_edge_is_lost_and_no_second_thread_gets_in() {
        let table = Arc::new(Table::new(1).expect("address space"));
        let who = idle(&table, 0_u64);
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
                        let (conn, news) = table.begin(index);
                        let mut conn = conn.expect("nobody else has it");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two threads in one connection");
                        assert!(news.has(News::CLIENT_READ));
                        *conn += 1;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        if !table.end(index, conn) {
                            queue.lock().expect("no panic").push(index);
                        }
                    }
                });
            }
        });
        assert_eq!(table.post(who, News::TIMER), Posted::Queue, "idle at the end: every edge was taken");
    }
}
