//! Random bytes, from the kernel each time.
//!
//! Never from a generator in user space: a child inherits such a generator's state by fork, and all children
//! would draw the same numbers.

use std::io;

/// Fills `bytes`. Waits only in the first moments of a boot, before the kernel has gathered enough.
///
/// # Errors
/// On kernels older than 3.17, which lack the call.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: the pointer and length describe `rest`, which we may write for the whole call.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(count) => rest = &mut rest[count..],
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// A number of 64 random bits.
///
/// # Errors
/// As [`fill`].
pub fn number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(number().unwrap(), number().unwrap());
        fill(&mut []).unwrap();
    }
}
