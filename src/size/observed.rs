//! From what was seen of processes to what one of each thing costs.

use super::costs::{Costs, Kernel};
use crate::config::model::Mpm;
use crate::sys::memory::ProcessMemory;

/// A child as it was seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ChildSeen {
    /// Its slot.
    pub slot: u32,
    /// Its process.
    pub pid: u32,
    /// Its memory.
    pub memory: ProcessMemory,
    /// Worker rows it held.
    pub busy: u32,
    /// Client connections it had open.
    pub connections: u32,
}

impl ChildSeen {
    /// Connections beside those of its busy workers.
    #[must_use]
    pub fn idle(&self) -> u32 {
        self.connections.saturating_sub(self.busy)
    }
}

/// A server as it was seen at one time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tree {
    /// The master's process.
    pub pid: u32,
    /// The master's memory.
    pub master: ProcessMemory,
    /// Its children.
    pub children: Vec<ChildSeen>,
    /// ThreadsPerChild.
    pub threads: u32,
    /// Bytes of the scoreboard's file, holes included.
    pub board: u64,
    /// Bytes of it that are in memory or on the disk.
    pub board_used: u64,
}

impl Tree {
    fn all(&self) -> impl Iterator<Item = &ProcessMemory> {
        self.children.iter().map(|child| &child.memory).chain([&self.master])
    }

    /// The PSS of all processes.
    #[must_use]
    pub fn pss(&self) -> u64 {
        self.all().map(|memory| memory.pss).sum()
    }

    /// What of it is neither program nor library.
    #[must_use]
    pub fn own(&self) -> u64 {
        self.all().map(|memory| memory.own).sum()
    }

    /// What is swapped out.
    #[must_use]
    pub fn swap(&self) -> u64 {
        self.all().map(|memory| memory.swap).sum()
    }

    /// Program and libraries, once: what the process that has most of them in memory has.
    #[must_use]
    pub fn text(&self) -> u64 {
        self.all().map(|memory| memory.files).max().unwrap_or(0)
    }

    /// Processes and threads.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.all().map(|memory| u64::from(memory.threads)).sum()
    }

    /// What the kernel keeps for it now.
    #[must_use]
    pub fn kernel(&self, kernel: &Kernel) -> u64 {
        let tables: u64 = self.all().map(|memory| memory.page_tables).sum();
        let sockets = self.idle() + 2 * self.busy();
        tables
            + self.all().count() as u64 * kernel.process
            + self.tasks() * kernel.thread
            + sockets * kernel.socket
            + self.busy() * kernel.under_way
    }

    /// Busy workers.
    #[must_use]
    pub fn busy(&self) -> u64 {
        self.children.iter().map(|child| u64::from(child.busy)).sum()
    }

    /// Connections beside those of busy workers.
    #[must_use]
    pub fn idle(&self) -> u64 {
        self.children.iter().map(|child| u64::from(child.idle())).sum()
    }

    /// The page tables of a child, on average.
    #[must_use]
    pub fn page_tables(&self) -> u64 {
        average(self.children.iter().map(|child| child.memory.page_tables))
    }

    /// The address space of the child that has most.
    #[must_use]
    pub fn address_space(&self) -> u64 {
        self.children.iter().map(|child| child.memory.address_space).max().unwrap_or(0)
    }
}

fn average(values: impl ExactSizeIterator<Item = u64>) -> u64 {
    let count = values.len() as u64;
    values.sum::<u64>().checked_div(count).unwrap_or(0)
}

/// Where a cost comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// From the live server.
    Live,
    /// From a server of our own under load.
    Private,
    /// From [`Costs::known`].
    Known,
}

impl Source {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Private => "private",
            Self::Known => "known",
        }
    }
}

/// What one of each thing costs, and how that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Measured {
    /// The costs.
    pub costs: Costs,
    /// Where those of a child and of the master come from.
    pub child: Source,
    /// Where that of a thread comes from.
    pub thread: Source,
    /// Where that of a busy worker comes from.
    pub busy: Source,
    /// Where that of an idle connection comes from.
    pub idle: Source,
    /// What was looked at: the live server, or the private one at its most.
    pub tree: Tree,
}

/// What was seen of a private server: of few and of more children, each time with all workers busy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Samples {
    /// A few children, half of their workers busy.
    pub half: Tree,
    /// The same, all busy.
    pub full: Tree,
    /// More children, all busy.
    pub more: Tree,
    /// As few children as the first, with other threads, not busy; and the first, not busy.
    pub threads: Option<(Tree, Tree)>,
    /// Idle connections at two counts.
    pub idle: Option<[(u64, Tree); 2]>,
}

impl Samples {
    /// The costs; what could not be told from the samples is taken from `known`.
    #[must_use]
    pub fn costs(&self, known: &Costs) -> Measured {
        let full = self.full.own();
        let workers = self.full.busy().saturating_sub(self.half.busy());
        let busy = full.saturating_sub(self.half.own()).checked_div(workers).unwrap_or(known.busy);
        let count = |tree: &Tree| tree.children.len() as u64;
        let added = count(&self.more).saturating_sub(count(&self.full));
        let busy_child = self.more.own().saturating_sub(full).checked_div(added).unwrap_or(0);
        let child = busy_child.saturating_sub(busy * u64::from(self.full.threads));
        let thread = self.threads.as_ref().and_then(|(other, same)| {
            let (more, fewer) = if other.threads > same.threads { (other, same) } else { (same, other) };
            let threads = u64::from(more.threads - fewer.threads) * count(more);
            more.own().saturating_sub(fewer.own()).checked_div(threads)
        });
        let idle = self.idle.as_ref().and_then(|[(few, before), (many, after)]| {
            after.own().saturating_sub(before.own()).checked_div(many.saturating_sub(*few))
        });
        let costs = Costs {
            text: self.more.text().max(self.full.text()),
            master: full.saturating_sub(busy_child * count(&self.full)),
            child,
            thread: thread.unwrap_or(known.thread),
            threads: self.full.threads,
            busy,
            idle: idle.unwrap_or(known.idle),
            page_tables: self.more.page_tables(),
            address_space: self.more.address_space(),
        };
        let source = |found: bool| if found { Source::Private } else { Source::Known };
        Measured {
            costs,
            child: Source::Private,
            thread: source(thread.is_some()),
            busy: Source::Private,
            idle: source(idle.is_some()),
            tree: self.more.clone(),
        }
    }
}

/// From so few children no slope is told.
const FEWEST: usize = 4;

/// The spread of connections that a slope needs.
const SPREAD_OF_CONNECTIONS: u32 = 64;

/// How much of the differences between children a slope must explain.
const EXPLAINED: f64 = 0.8;

/// What the live server's own figures tell of a busy worker and of an idle connection, where its children differ enough
/// for that: under event, of a connection; else, of a worker.
#[must_use]
pub fn live_slope(mpm: Mpm, tree: &Tree) -> Option<u64> {
    let used = |child: &ChildSeen| if mpm == Mpm::Event { child.connections } else { child.busy };
    let least = tree.children.iter().map(used).min()?;
    let most = tree.children.iter().map(used).max()?;
    let spread = match mpm {
        Mpm::Event => SPREAD_OF_CONNECTIONS,
        Mpm::Worker => tree.threads.div_ceil(4).max(2),
        Mpm::Prefork => 1,
    };
    if tree.children.len() < FEWEST || most - least < spread {
        return None;
    }
    let points = tree.children.iter().map(|child| (f64::from(used(child)), child.memory.own as f64));
    let (slope, explained) = line_through(&points.collect::<Vec<_>>())?;
    (slope > 0.0 && explained >= EXPLAINED).then_some(slope as u64)
}

/// The slope of the line of least squares, and the part of the variance that it explains.
fn line_through(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.len() as f64;
    let mean = |part: fn(&(f64, f64)) -> f64| points.iter().map(part).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
        points.iter().map(|(x, y)| term(x - mean_x, y - mean_y)).sum()
    };
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    (xx > 0.0 && yy > 0.0).then(|| (xy / xx, xy * xy / (xx * yy)))
}

/// What the live server tells; `other` (a private server's costs, or the known ones) fills in what it does not.
#[must_use]
pub fn live(mpm: Mpm, tree: &Tree, other: &Measured) -> Measured {
    let slope = live_slope(mpm, tree);
    let mut costs = other.costs;
    let (mut busy, mut idle) = (other.busy, other.idle);
    if let Some(slope) = slope {
        if mpm == Mpm::Event {
            (costs.idle, idle) = (slope, Source::Live);
        } else {
            (costs.busy, busy) = (slope, Source::Live);
        }
    }
    let children = tree.children.len() as u64;
    let connections = if mpm == Mpm::Event { tree.idle() * costs.idle } else { 0 };
    // The master's share of each child cannot be told from its own: what is above the known base counts as theirs.
    costs.master = tree.master.own.min(other.costs.master);
    let theirs = tree.own().saturating_sub(costs.master + tree.busy() * costs.busy + connections);
    costs.child = theirs.checked_div(children).unwrap_or(other.costs.child);
    costs.threads = tree.threads;
    costs.text = tree.text();
    costs.page_tables = tree.page_tables();
    costs.address_space = tree.address_space();
    Measured { costs, child: Source::Live, thread: other.thread, busy, idle, tree: tree.clone() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::forecast::tests::COSTS;
    use super::*;

    /// A server that costs exactly [`COSTS`], with so many busy workers and idle connections in each child.
    pub(in crate::size) fn tree(threads: u32, used: &[(u32, u32)]) -> Tree {
        let child = |(slot, (busy, idle)): (usize, &(u32, u32))| {
            let own = COSTS.child_of(threads) + u64::from(*busy) * COSTS.busy + u64::from(*idle) * COSTS.idle;
            let memory = ProcessMemory {
                pss: own + 1_000,
                own,
                private: own - 500,
                files: 3_000_000,
                page_tables: COSTS.page_tables,
                address_space: COSTS.address_space,
                threads: threads + 1,
                parent: 7,
                ..ProcessMemory::default()
            };
            ChildSeen {
                slot: slot as u32,
                pid: 100 + slot as u32,
                memory,
                busy: *busy,
                connections: busy + idle,
            }
        };
        let master = ProcessMemory {
            pss: COSTS.master + 9_000,
            own: COSTS.master,
            files: COSTS.text,
            threads: 1,
            ..ProcessMemory::default()
        };
        let children = used.iter().enumerate().map(child).collect();
        Tree { pid: 7, master, children, threads, board: 1 << 20, board_used: 300 << 10 }
    }

    #[test]
    fn a_private_servers_samples_give_every_cost() {
        let samples = Samples {
            half: tree(25, &[(12, 0), (12, 0)]),
            full: tree(25, &[(25, 0), (25, 0)]),
            more: tree(25, &[(25, 0); 6]),
            threads: Some((tree(50, &[(0, 0), (0, 0)]), tree(25, &[(0, 0), (0, 0)]))),
            idle: Some([(200, tree(25, &[(0, 100), (0, 100)])), (1000, tree(25, &[(0, 500), (0, 500)]))]),
        };
        let known = Costs::known(Mpm::Event);
        let measured = samples.costs(&known);
        assert_eq!(measured.costs, COSTS);
        assert_eq!((measured.thread, measured.idle), (Source::Private, Source::Private));
        let less = Samples { threads: None, idle: None, ..samples };
        let measured = less.costs(&known);
        assert_eq!((measured.costs.thread, measured.costs.idle), (known.thread, known.idle));
        assert_eq!((measured.thread, measured.idle), (Source::Known, Source::Known));
        // Nothing seen at all is nobody's panic.
        let _ = Samples::default().costs(&known);
    }

    #[test]
    fn a_live_server_gives_a_slope_where_its_children_differ() {
        let level = |used: &[(u32, u32)], mpm| live_slope(mpm, &tree(25, used));
        let spread = &[(0, 0), (10, 100), (5, 200), (20, 900)];
        let (few, same) = (&spread[..3], &[(5, 100); 6]);
        // A busy worker costs more than its connection, so the slope is a little above.
        let slope = level(spread, Mpm::Event).expect("they differ");
        assert!((300..340).contains(&slope), "{slope}");
        assert_eq!(level(few, Mpm::Event), None, "too few children");
        assert_eq!(level(same, Mpm::Event), None, "all alike");
        let busy = &[(0, 0), (10, 0), (5, 0), (25, 0)];
        assert_eq!(level(busy, Mpm::Worker), Some(COSTS.busy));
        assert_eq!(level(&[(0, 0), (1, 0), (0, 0), (1, 0)], Mpm::Worker), None, "too little spread");
        assert_eq!(level(&[(0, 0), (1, 0), (0, 0), (1, 0)], Mpm::Prefork), Some(COSTS.busy));
        assert_eq!(level(&[], Mpm::Prefork), None);
        // What it has been through counts for more than what it does now: no slope can be told.
        let mut noisy = tree(25, spread);
        noisy.children[0].memory.own += 5_000_000;
        assert_eq!(live_slope(Mpm::Event, &noisy), None);
    }

    #[test]
    fn a_live_servers_figures_add_up_to_what_it_takes() {
        let other = Measured {
            costs: Costs { idle: 999, busy: 5_000, ..COSTS },
            child: Source::Private,
            thread: Source::Private,
            busy: Source::Private,
            idle: Source::Private,
            tree: Tree::default(),
        };
        let busy = tree(25, &[(0, 0), (10, 0), (5, 0), (25, 0)]);
        let measured = live(Mpm::Worker, &busy, &other);
        assert_eq!(Costs { idle: COSTS.idle, ..measured.costs }, COSTS);
        assert_eq!(
            (measured.busy, measured.idle, measured.child),
            (Source::Live, Source::Private, Source::Live)
        );
        // Without a slope the other's cost of a worker is taken, and the rest is the children's.
        let few = tree(25, &[(10, 0), (10, 0)]);
        let measured = live(Mpm::Worker, &few, &other);
        assert_eq!((measured.busy, measured.costs.busy), (Source::Private, 5_000));
        assert_eq!(measured.costs.child, COSTS.child - 10 * 3_000);
        // A server without children.
        assert_eq!(live(Mpm::Worker, &tree(25, &[]), &other).costs.child, COSTS.child);
    }
}
