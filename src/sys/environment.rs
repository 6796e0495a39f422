//! The environment, where it is changed.

use std::ffi::OsString;

/// Takes a variable out of the environment, so that no program that we start later sees it.
///
/// To be called before there is a second thread.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn take_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: no other thread may read the environment meanwhile; the caller promises that there is none, as the
    // start of `main` and the master (invariant 2) can.
    unsafe { std::env::remove_var(name) };
    Some(value)
}
