//! What a server takes with everything at its most: all children there, all workers busy, all connections open.

use super::costs::{Costs, Kernel};
use crate::config::model::Mpm;

/// A server at its most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The driver.
    pub mpm: Mpm,
    /// Children of one generation: MaxRequestWorkers / ThreadsPerChild.
    pub children: u32,
    /// ThreadsPerChild; 1 under prefork.
    pub threads: u32,
    /// Idle connections of each child beside those of its busy workers (event).
    pub idle: u32,
    /// How many generations are there at one time: 2 while a reload under full load drains the old one.
    pub generations: u32,
}

impl Plan {
    /// All workers of one generation: MaxRequestWorkers.
    #[must_use]
    pub fn workers(&self) -> u64 {
        u64::from(self.children) * u64::from(self.threads)
    }

    /// Children of all generations.
    #[must_use]
    pub fn all_children(&self) -> u64 {
        u64::from(self.children) * u64::from(self.generations)
    }

    fn all_workers(&self) -> u64 {
        self.workers() * u64::from(self.generations)
    }

    fn all_idle(&self) -> u64 {
        self.all_children() * u64::from(self.idle)
    }

    /// Threads of a child: those that serve and, but under prefork, the steward.
    #[must_use]
    pub fn tasks_of_a_child(&self) -> u64 {
        match self.mpm {
            Mpm::Prefork => 1,
            Mpm::Event | Mpm::Worker => u64::from(self.threads) + 1,
        }
    }
}

/// One line of the arithmetic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// What is counted.
    pub what: &'static str,
    /// How many.
    pub count: u64,
    /// Bytes of one.
    pub each: u64,
}

impl Line {
    /// Bytes of all.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }
}

/// The whole arithmetic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forecast {
    /// What the processes' own figures (PSS) will show.
    pub processes: Vec<Line>,
    /// What the kernel keeps for them.
    pub kernel: Vec<Line>,
}

impl Forecast {
    /// What `plan` takes.
    #[must_use]
    pub fn of(plan: &Plan, costs: &Costs, kernel: &Kernel) -> Self {
        let line = |what, count, each| Line { what, count, each };
        let (children, workers, idle) = (plan.all_children(), plan.all_workers(), plan.all_idle());
        let mut processes = vec![
            line("program and libraries", 1, costs.text),
            line("master", 1, costs.master),
            line("children", children, costs.child_of(plan.threads)),
            line("busy workers", workers, costs.busy),
        ];
        if idle > 0 {
            processes.push(line("idle connections", idle, costs.idle));
        }
        let kernel = vec![
            line("page tables of a child", children, costs.page_tables_of(plan.threads)),
            line("processes", children + 1, kernel.process),
            line("threads", 1 + children * plan.tasks_of_a_child(), kernel.thread),
            line("sockets", workers * 2 + idle, kernel.socket),
            line("bytes under way", workers, kernel.under_way),
        ];
        Self { processes, kernel }
    }

    /// What `smem`, or the sum of PSS over all processes, will show.
    #[must_use]
    pub fn pss(&self) -> u64 {
        self.processes.iter().map(Line::sum).fold(0, u64::saturating_add)
    }

    /// What the kernel will keep.
    #[must_use]
    pub fn kernel(&self) -> u64 {
        self.kernel.iter().map(Line::sum).fold(0, u64::saturating_add)
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.pss().saturating_add(self.kernel())
    }
}

/// How many children of `plan`'s shape fit `budget` bytes; its own number of children does not matter.
#[must_use]
pub fn children_that_fit(plan: &Plan, costs: &Costs, kernel: &Kernel, budget: u64) -> u32 {
    let total = |children| Forecast::of(&Plan { children, ..*plan }, costs, kernel).total();
    // Every line is a number of children times something, or does not depend on it.
    let each = total(1).saturating_sub(total(0)).max(1);
    let most = budget.saturating_sub(total(0)) / each;
    u32::try_from(most).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::size) const COSTS: Costs = Costs {
        text: 4_000_000,
        master: 1_000_000,
        child: 500_000,
        thread: 10_000,
        threads: 25,
        busy: 2_000,
        idle: 300,
        page_tables: 200_000,
        address_space: 300 << 20,
    };
    pub(in crate::size) const KERNEL: Kernel =
        Kernel { process: 30_000, thread: 20_000, socket: 4_000, under_way: 16_000 };

    #[test]
    fn every_line_is_count_times_cost() {
        let plan = Plan { mpm: Mpm::Event, children: 4, threads: 25, idle: 250, generations: 1 };
        let forecast = Forecast::of(&plan, &COSTS, &KERNEL);
        let shown = |lines: &[Line]| -> Vec<(&'static str, u64, u64)> {
            lines.iter().map(|line| (line.what, line.count, line.sum())).collect()
        };
        assert_eq!(
            shown(&forecast.processes),
            [
                ("program and libraries", 1, 4_000_000),
                ("master", 1, 1_000_000),
                ("children", 4, 2_000_000),
                ("busy workers", 100, 200_000),
                ("idle connections", 1000, 300_000),
            ]
        );
        assert_eq!(
            shown(&forecast.kernel),
            [
                ("page tables of a child", 4, 4 * 204_096),
                ("processes", 5, 150_000),
                ("threads", 105, 2_100_000),
                ("sockets", 1200, 4_800_000),
                ("bytes under way", 100, 1_600_000),
            ]
        );
        assert_eq!((forecast.pss(), forecast.total()), (7_500_000, 7_500_000 + 816_384 + 8_650_000));
    }

    #[test]
    fn a_reload_under_full_load_doubles_all_but_the_master() {
        let once = Plan { mpm: Mpm::Worker, children: 4, threads: 25, idle: 0, generations: 1 };
        let (once, twice) = (
            Forecast::of(&once, &COSTS, &KERNEL),
            Forecast::of(&Plan { generations: 2, ..once }, &COSTS, &KERNEL),
        );
        let fixed = 5_000_000 + 30_000 + 20_000;
        assert_eq!(twice.total() - fixed, 2 * (once.total() - fixed));
    }

    #[test]
    fn a_prefork_child_has_one_thread() {
        let plan = Plan { mpm: Mpm::Prefork, children: 10, threads: 1, idle: 0, generations: 1 };
        let costs = Costs { threads: 1, ..COSTS };
        let forecast = Forecast::of(&plan, &costs, &KERNEL);
        assert_eq!(forecast.kernel[2], Line { what: "threads", count: 11, each: 20_000 });
        assert!(forecast.processes.iter().all(|line| line.what != "idle connections"));
    }

    proptest! {
        #[test]
        fn what_fits_fits_and_one_more_does_not(
            budget in 0_u64..1 << 40, threads in 1_u32..2000, idle in 0_u32..5000, generations in 1_u32..3,
            mpm in prop::sample::select(vec![Mpm::Event, Mpm::Worker]),
        ) {
            let plan = Plan { mpm, children: 0, threads, idle, generations };
            let total = |children| Forecast::of(&Plan { children, ..plan }, &COSTS, &KERNEL).total();
            let children = children_that_fit(&plan, &COSTS, &KERNEL, budget);
            prop_assert!(children == 0 || total(children) <= budget);
            prop_assert!(total(children + 1) > budget);
        }
    }
}
