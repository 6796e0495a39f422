//! The numbers that name things, one type each, so that none can stand in for another.
//!
//! All are plain values; what they index lives elsewhere.

use std::fmt;
use std::num::NonZeroI32;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The number as an index into a table.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

number! {
    /// The number of a child: an index of the scoreboard, `0..2 * ServerLimit`.
    SlotIndex(u32)
}
number! {
    /// The number of a worker row within its slot, `0..ThreadsPerChild`.
    WorkerIndex(u32)
}
number! {
    /// All children forked from one reading of the configuration; 1 at start, one more with each reload.
    Generation(u32)
}
number! {
    /// A configured server behind us: an index of `Config::backends`.
    BackendId(u32)
}
number! {
    /// A virtual host: an index of `Config::hosts`; 0 is the main server.
    HostId(u32)
}
number! {
    /// A listening address: an index of `Config::listen`.
    ListenerId(u32)
}
number! {
    /// A log file or log program: an index of `Config::log_targets`.
    LogTargetId(u32)
}

/// A live child of ours. Never 0 or negative, so it can't name a process group in `kill`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChildPid(NonZeroI32);

impl ChildPid {
    /// `None` unless `pid` is positive.
    #[must_use]
    pub fn new(pid: i32) -> Option<Self> {
        if pid > 0 { NonZeroI32::new(pid).map(Self) } else { None }
    }

    /// The kernel's number, always positive.
    #[must_use]
    pub fn as_raw(self) -> i32 {
        self.0.get()
    }
}

impl fmt::Display for ChildPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
