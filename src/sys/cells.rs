//! A place for each of very many things that are there now and then: a word that many threads change, and a box that one
//! thread at a time takes out and puts back.
//!
//! Places are numbered, and lie in memory of their own: pages that no number has touched take none, and pages that are
//! not needed any more go back to the kernel.

use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use zerocopy::FromZeros;

/// One place. At first its word is 0, and no box is there.
#[derive(Debug, FromZeros)]
#[repr(C)]
pub struct Cell<T> {
    /// Its meaning is its users' business.
    pub word: AtomicU64,
    rests: AtomicPtr<T>,
}

impl<T> Cell<T> {
    /// Takes the box out, if one is there.
    #[must_use]
    pub fn take(&self) -> Option<Box<T>> {
        self.swap(ptr::null_mut())
    }

    /// Puts a box there; one that is there already is dropped.
    pub fn put(&self, content: Box<T>) {
        drop(self.swap(Box::into_raw(content)));
    }

    /// `content` is null or of a box that nobody has any more.
    fn swap(&self, content: *mut T) -> Option<Box<T>> {
        let found = self.rests.swap(content, Ordering::AcqRel);
        // SAFETY: it must come from `Box::into_raw`, and nobody else may make a box of it. Nothing else is ever stored
        // here, and each swap gives what was there to one caller.
        (!found.is_null()).then(|| unsafe { Box::from_raw(found) })
    }
}

/// Places by number, from 0 on.
#[derive(Debug)]
pub struct Cells<T> {
    map: MmapRaw,
    count: u32,
    /// Boxes move between threads; nobody shares one.
    contents: PhantomData<Mutex<T>>,
}

impl<T> Cells<T> {
    /// `count` of them, at least 1. Takes address space only.
    ///
    /// # Errors
    /// ENOMEM, where not even that is to be had.
    pub fn new(count: u32) -> io::Result<Self> {
        let count = count.max(1);
        let map =
            MmapOptions::new().len(count as usize * size_of::<Cell<T>>()).no_reserve_swap().map_anon()?;
        Ok(Self { map: MmapRaw::from(map), count, contents: PhantomData })
    }

    /// The place of this number; `None` if it has none.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&Cell<T>> {
        if number >= self.count {
            return None;
        }
        let first = self.map.as_ptr().cast::<Cell<T>>();
        // SAFETY: `add` must stay inside the allocation: `number` is below `count`, for which it was made.
        let place = unsafe { first.add(number as usize) };
        // SAFETY: it must be aligned (the mapping begins with a page, 16 bytes each), live as long as `self`, whose the
        // mapping is, and be initialised: it was zeros, which are a cell (FromZeros). What changes it is atomic.
        Some(unsafe { &*place })
    }

    /// So many places are one page of memory, the unit of [`Cells::give_back`].
    #[must_use]
    pub fn per_page() -> u32 {
        u32::try_from(super::shm::page_size() / size_of::<Cell<T>>()).unwrap_or(1).max(1)
    }

    /// Gives back the memory of these numbers, so far as they have whole pages; their words are 0 then. A box that rests in
    /// one of them is lost.
    ///
    /// # Errors
    /// What madvise(2) says; then nothing has changed.
    pub fn give_back(&self, numbers: Range<u32>) -> io::Result<()> {
        let page = super::shm::page_size();
        let bytes = |number: u32| number.min(self.count) as usize * size_of::<Cell<T>>();
        let (from, to) = (bytes(numbers.start).next_multiple_of(page), bytes(numbers.end) / page * page);
        if from >= to {
            return Ok(());
        }
        // SAFETY: nobody may rely on what is in these pages staying as it is. They are private memory of cells only: all in
        // them is atomic, and what it becomes is zeros, a cell.
        unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) }
    }
}

impl<T> Drop for Cells<T> {
    fn drop(&mut self) {
        for number in 0..self.count {
            drop(self.get(number).and_then(Cell::take));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_box_is_taken_once_and_dropped_once() {
        let what = Arc::new(());
        let cells = Cells::new(3).expect("address space");
        assert!(cells.get(3).is_none());
        let cell = cells.get(2).expect("the last");
        assert!(cell.take().is_none());
        cell.put(Box::new(Arc::clone(&what)));
        cell.put(Box::new(Arc::clone(&what)));
        assert_eq!(Arc::strong_count(&what), 2, "the first has gone");
        assert!(cell.take().is_some() && cell.take().is_none());
        cell.put(Box::new(Arc::clone(&what)));
        drop(cells);
        assert_eq!(Arc::strong_count(&what), 1);
    }

    #[test]
    fn whole_pages_go_back_and_are_new_again() {
        let page = Cells::<u8>::per_page();
        let cells = Cells::<u8>::new(4 * page).expect("address space");
        let word = |number: u32| &cells.get(number).expect("there are four pages").word;
        for number in 0..4 * page {
            word(number).store(7, Ordering::Relaxed);
        }
        cells.give_back(1..3 * page + 1).expect("memory of our own");
        for (number, want) in
            [(0, 7), (page - 1, 7), (page, 0), (3 * page - 1, 0), (3 * page, 7), (4 * page - 1, 7)]
        {
            assert_eq!(word(number).load(Ordering::Relaxed), want, "{number}");
        }
        word(page).store(9, Ordering::Relaxed);
        cells.give_back(page + 1..2 * page).expect("no whole page");
        assert_eq!(word(page).load(Ordering::Relaxed), 9);
    }
}
