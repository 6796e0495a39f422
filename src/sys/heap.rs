//! The allocator: glibc's, or whatever malloc the C library has.

/// Gives the heap's free pages back to the kernel, those between pieces in use as well. What has been freed is kept
/// otherwise: glibc gives back by itself only what is free at the end of a heap, and one small piece there holds all
/// before it. It takes as long as there are free pages, some hundred microseconds per megabyte, during which other
/// threads that allocate may wait: for the quiet after a crowd. A C library other than glibc is left alone.
///
/// glibc's malloc is what this program allocates with, and this call is why it can be. An allocator that gives pages
/// back by itself (jemalloc after a while, mimalloc at the next allocations) is some ten thousand lines of C to build
/// and to follow up, does so only while somebody allocates or with a thread of its own in each process, and keeps pages
/// for each of a thousand threads. Here the hot path allocates nothing, so that there is no speed to be had for that,
/// and who has the most free memory, a child after a crowd, is known.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes its own locks and touches only memory that nobody has allocated.
    unsafe {
        libc::malloc_trim(0);
    }
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
