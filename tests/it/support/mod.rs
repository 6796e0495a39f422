//! The three actors of a whole-daemon test, and what they share: bounds, drivers, bodies.

pub mod backend;
pub mod client;
pub mod daemon;
pub mod load;
pub mod processes;
mod selftest;
pub mod terminal;

pub use backend::Backend;
pub use client::{Client, Failure, Response};
pub use daemon::{Daemon, Home, Mpm, Run, ostler, run};
pub use load::{Load, at_once};

use std::sync::Once;
use std::time::{Duration, Instant};

/// How long anything may take before it counts as never coming: far above what a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// How often a thing that says nothing of itself (a process table, a file) is looked at again.
const GLANCE: Duration = Duration::from_millis(5);

/// Looks until `look` finds something; panics with `what` once [`PATIENCE`] is over.
#[track_caller]
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for: {what}");
        std::thread::sleep(GLANCE);
    }
}

/// Looks at `fact` again and again for `span`; panics with `what` as soon as it does not hold.
///
/// For what must *not* happen, which no word can announce. A slow machine makes such a look weaker, not wrong.
#[track_caller]
pub fn holds_for(what: &str, span: Duration, mut fact: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < span {
        assert!(fact(), "no longer true: {what}");
        std::thread::sleep(GLANCE);
    }
}

/// Raises the soft limit on descriptors to the hard one (once) and says what it is.
pub fn descriptors() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    static RAISE: Once = Once::new();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can always be read");
    RAISE.call_once(|| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit anybody may go");
    });
    hard
}

/// Whether the tests run as root, which may write anywhere and change users.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// `length` bytes without a short period, told apart by `seed`.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// FNV-1a over bytes that come piece by piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hash(pub u64);

impl Hash {
    /// Of no bytes at all.
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// With `bytes` behind what was there.
    pub fn and(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)))
    }

    /// Of all of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::EMPTY.and(bytes)
    }
}

/// One test per driver: `under_each_mpm! { fn name(mpm) { … } }` makes `name::event`, `::worker`, `::prefork`.
macro_rules! under_each_mpm {
    ($($(#[$note:meta])* fn $name:ident($mpm:ident) $body:block)*) => {$(
        $(#[$note])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn play($mpm: crate::support::Mpm) $body

            #[test]
            fn event() {
                play(crate::support::Mpm::Event);
            }

            #[test]
            fn worker() {
                play(crate::support::Mpm::Worker);
            }

            #[test]
            fn prefork() {
                play(crate::support::Mpm::Prefork);
            }
        }
    )*};
}
