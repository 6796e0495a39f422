//! The allocator: glibc's, or whatever malloc the C library has.

/// Gives the heap's free pages back to the kernel, those between pieces in use as well. What has been freed is kept
/// otherwise: glibc gives back by itself only what is free at the end of a heap, and one small piece there holds all
/// before it. It takes about 150 us for each MiB that is given back, during which other threads that allocate may wait:
/// for the quiet after a crowd. A C library other than glibc is left alone.
///
/// This call is why glibc's malloc can be what we allocate with. jemalloc and mimalloc give pages back without being
/// asked, but when somebody allocates, or from a thread of their own in each process; they are ten thousand lines of C
/// and more, to be built and followed up; and they keep pages for each thread, of which there may be a thousand. Their
/// strength is the speed of an allocation, and a request on a warm connection makes none (`tests/it/hot_path.rs`). Who
/// has much free memory is known here: a child after a crowd.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes its own locks and touches only memory that nobody has allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// From now on threads share so many heaps, at least 1; glibc would make eight for each core, one to a thread, each with
/// pages of its own. For threads that rarely allocate: a warm request does not. Said before there are threads.
pub fn share(heaps: usize) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes a number that malloc looks at when a thread first allocates.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::try_from(heaps.max(1)).unwrap_or(libc::c_int::MAX));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = heaps;
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_in_use_stays_as_it_is() {
        let pieces: Vec<Box<[u8]>> = (0..2000).map(|i| vec![i as u8; 320].into_boxed_slice()).collect();
        let kept: Vec<Box<[u8]>> = pieces.into_iter().step_by(50).collect();
        super::trim();
        for (i, piece) in kept.iter().enumerate() {
            assert!(piece.iter().all(|byte| *byte == (i * 50) as u8));
        }
    }
}
