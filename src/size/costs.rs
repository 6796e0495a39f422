//! What one of each thing takes: of the processes' own memory, and of the kernel's.
//!
//! The first kind is measured, on the spot by [`measure`](super::measure) or, for a look without measuring, taken
//! from [`Costs::known`]. The kernel's kind is in no process's figures, so it is counted by constants.

use crate::config::model::Mpm;

/// What the processes of a server take, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Costs {
    /// Program and libraries as far as they are in memory: once, whatever the number of processes.
    pub text: u64,
    /// The master, without what it keeps for each child.
    pub master: u64,
    /// A child that has nothing to do, with the master's and the scoreboard's share of it.
    pub child: u64,
    /// Of that, each serving thread.
    pub thread: u64,
    /// The serving threads of the child that was measured.
    pub threads: u32,
    /// A worker that is busy, beyond the same one idle.
    pub busy: u64,
    /// An idle connection (event; 0 for the others, where it holds a worker).
    pub idle: u64,
    /// Page tables of that child.
    pub page_tables: u64,
    /// Address space of that child, used or not.
    pub address_space: u64,
}

/// Page tables that each further thread costs, for its stack and its arena.
pub const THREAD_PAGE_TABLES: u64 = 4_300;

impl Costs {
    /// What a release build took on Linux 6.18, x86-64, glibc 2.36: for the look that `-t` and the start take, which
    /// measures nothing. Measured by `ostler size --private --json --mpm event` (and `worker`, `prefork`); an order of
    /// magnitude elsewhere, and enough to tell what cannot fit.
    #[must_use]
    pub const fn known(mpm: Mpm) -> Self {
        const KIB: u64 = 1024;
        let event = Self {
            text: 5_900 * KIB,
            master: 600 * KIB,
            child: 600 * KIB,
            thread: 13 * KIB,
            threads: 25,
            busy: 1_600,
            idle: 335,
            page_tables: 220 * KIB,
            address_space: 1 << 30,
        };
        match mpm {
            Mpm::Event => event,
            Mpm::Worker => Self {
                child: 480 * KIB,
                thread: 9 * KIB,
                busy: 14_100,
                idle: 0,
                page_tables: 224 * KIB,
                ..event
            },
            Mpm::Prefork => Self {
                child: 163 * KIB,
                thread: 0,
                threads: 1,
                busy: 17_500,
                idle: 0,
                page_tables: 63 * KIB,
                address_space: 22 << 20,
                ..event
            },
        }
    }

    /// A child of so many threads.
    #[must_use]
    pub fn child_of(&self, threads: u32) -> u64 {
        stretched(self.child, self.thread, self.threads, threads)
    }

    /// The page tables of a child of so many threads. Their upper levels, which no file tells, are a page more.
    #[must_use]
    pub fn page_tables_of(&self, threads: u32) -> u64 {
        stretched(self.page_tables, THREAD_PAGE_TABLES, self.threads, threads) + 4096
    }
}

/// `whole` of `had` parts, for `want` of them.
fn stretched(whole: u64, part: u64, had: u32, want: u32) -> u64 {
    let more = part.saturating_mul(u64::from(want.saturating_sub(had)));
    let less = part.saturating_mul(u64::from(had.saturating_sub(want)));
    whole.saturating_add(more).saturating_sub(less)
}

/// What the kernel keeps, in bytes: no process's figures have it, but it is memory all the same, and a control group is
/// charged for it. Linux 6.18, x86-64. Measured by `scripts/bench --kernel` on a machine that does nothing else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kernel {
    /// A process: its structures, its map, its table of descriptors.
    pub process: u64,
    /// A thread: its structures and its stack.
    pub thread: u64,
    /// A TCP connection's end: socket, file, name, watch.
    pub socket: u64,
    /// Bytes under way to the client of a busy worker: what a connection's send buffer holds to begin with. A guess for
    /// what depends on the clients; `net.ipv4.tcp_mem` bounds all of them together.
    pub under_way: u64,
}

impl Kernel {
    /// With this much under way for each busy worker.
    #[must_use]
    pub const fn with_under_way(under_way: u64) -> Self {
        Self { process: 28 << 10, thread: 22 << 10, socket: 3_800, under_way }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_grows_with_its_threads() {
        let costs =
            Costs { child: 1000, thread: 10, threads: 25, page_tables: 200_000, ..Costs::known(Mpm::Event) };
        for (threads, want) in [(25, 1000), (26, 1010), (125, 2000), (5, 800), (1, 760)] {
            assert_eq!(costs.child_of(threads), want, "{threads}");
        }
        assert_eq!(costs.page_tables_of(25), 204_096);
        assert_eq!(costs.page_tables_of(35), 204_096 + 10 * THREAD_PAGE_TABLES);
        assert_eq!(Costs { child: 5, thread: 10, ..costs }.child_of(1), 0, "never below nothing");
        assert_eq!(Costs { thread: u64::MAX, ..costs }.child_of(30), u64::MAX);
    }
}
