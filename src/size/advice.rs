//! Which limits fit: the most children that memory, descriptors, processes and ports each allow, and the least of
//! these.

use super::budget::Budget;
use super::costs::{Costs, Kernel};
use super::descriptors;
use super::facts::Facts;
use super::forecast::{Forecast, Plan, children_that_fit};
use super::shown;
use crate::config::bounds;
use crate::config::model::Mpm;
use std::fmt;

/// What is to be sized.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Question {
    /// The driver.
    pub mpm: Mpm,
    /// ThreadsPerChild; 1 under prefork.
    pub threads: u32,
    /// Idle connections that each child is to hold beside those of its workers (event; 0 for the others).
    pub idle: u32,
    /// Whether a reload under full load is to fit, too.
    pub reload: bool,
    /// Addresses that are listened at.
    pub listeners: u64,
    /// Logs and log programs.
    pub logs: u64,
    /// Addresses of `StatusListen`.
    pub doors: u64,
    /// Backends that are reached by TCP; 0 if none is known.
    pub tcp_backends: u64,
    /// Whether the children stay root, whom RLIMIT_NPROC does not bind.
    pub root: bool,
}

/// Something that bounds the number of children.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ceiling {
    /// What it is: `memory`, `descriptors of the master`.
    pub what: String,
    /// The most children.
    pub most: u32,
    /// The arithmetic.
    pub how: String,
}

/// The limits that fit, and why no more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Advice {
    /// What was asked; `idle` as far as the descriptors allow.
    pub question: Question,
    /// The server at its most, in one generation.
    pub plan: Plan,
    /// What that takes.
    pub forecast: Forecast,
    /// What it takes while a reload under full load drains the old children.
    pub reloading: u64,
    /// What does not suffice for such a reload; empty if it fits.
    pub reload_lacks: Vec<String>,
    /// All that bounds the children, memory first.
    pub ceilings: Vec<Ceiling>,
    /// Which of them is the lowest.
    pub lowest: usize,
    /// What does not keep the server from running, but should be known.
    pub remarks: Vec<String>,
}

/// Why no limits fit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Misfit {
    /// Not a single child.
    NoChild {
        /// What forbids it.
        ceiling: Ceiling,
        /// What one takes, with the master, in bytes.
        needed: u64,
        /// What there is, in bytes.
        budget: u64,
    },
    /// One child of so many threads is more than a process may have descriptors.
    Descriptors {
        /// What it needs.
        needed: u64,
        /// RLIMIT_NOFILE.
        limit: u64,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoChild { ceiling, needed, budget } if ceiling.what == MEMORY => write!(
                f,
                "not even one child fits: with the master it needs {}, and there are {} for the server; fewer \
                 ThreadsPerChild need less",
                shown(*needed),
                shown(*budget)
            ),
            Self::NoChild { ceiling, .. } => {
                write!(f, "not even one child fits: {}: {}", ceiling.what, ceiling.how)
            }
            Self::Descriptors { needed, limit } => write!(
                f,
                "a child needs at least {needed} descriptors, and RLIMIT_NOFILE allows {limit}; raise it, or lower \
                 ThreadsPerChild"
            ),
        }
    }
}

impl std::error::Error for Misfit {}

const MEMORY: &str = "memory";

/// The limits that fit `budget`.
///
/// # Errors
/// If not even one child does.
pub fn advise(
    question: &Question,
    costs: &Costs,
    kernel: &Kernel,
    budget: &Budget,
    facts: &Facts,
) -> Result<Advice, Misfit> {
    let mut question = *question;
    let mut remarks = Vec::new();
    if let Some(files) = facts.process.files {
        let Question { mpm, threads, listeners, logs, .. } = question;
        let needed = descriptors::of_a_child(mpm, u64::from(threads), listeners, logs);
        if files < needed {
            return Err(Misfit::Descriptors { needed, limit: files });
        }
        let room = descriptors::connections_of_a_child(files, listeners, logs).saturating_sub(threads.into());
        if let Some(room) = u32::try_from(room).ok().filter(|room| *room < question.idle) {
            remarks.push(format!(
                "{} idle connections of a child are more than RLIMIT_NOFILE {files} has descriptors for; {room} are \
                 counted",
                question.idle
            ));
            question.idle = room;
        }
    }
    let generations = if question.reload { 2 } else { 1 };
    let Question { mpm, threads, idle, .. } = question;
    let shape = Plan { mpm, children: 0, threads, idle, generations };
    let ceilings = ceilings(&question, &shape, costs, kernel, budget, facts);
    let lowest = (0..ceilings.len()).min_by_key(|place| ceilings[*place].most).expect("memory is always one");
    let plan = Plan { children: ceilings[lowest].most, generations: 1, ..shape };
    if plan.children == 0 {
        return Err(Misfit::NoChild {
            ceiling: ceilings[lowest].clone(),
            needed: Forecast::of(&Plan { children: 1, ..shape }, costs, kernel).total(),
            budget: budget.bytes,
        });
    }
    let twice = Plan { generations: 2, ..shape };
    let reload_lacks = self::ceilings(&question, &twice, costs, kernel, budget, facts)
        .into_iter()
        .filter(|ceiling| ceiling.most < plan.children)
        .map(|ceiling| ceiling.what)
        .collect();
    if let Some(most) = facts.process.address_space
        && costs.address_space > most
    {
        remarks.push(format!(
            "a child takes {} of address space, and RLIMIT_AS allows {}: its threads or its memory will fail; raise it, \
             or set ThreadStackSize",
            shown(costs.address_space),
            shown(most)
        ));
    }
    Ok(Advice {
        question,
        plan,
        forecast: Forecast::of(&plan, costs, kernel),
        reloading: Forecast::of(&Plan { generations: 2, ..plan }, costs, kernel).total(),
        reload_lacks,
        ceilings,
        lowest,
        remarks,
    })
}

fn ceilings(
    question: &Question,
    shape: &Plan,
    costs: &Costs,
    kernel: &Kernel,
    budget: &Budget,
    facts: &Facts,
) -> Vec<Ceiling> {
    let children = |most: u64| u32::try_from(most).unwrap_or(u32::MAX);
    let generations = u64::from(shape.generations);
    let one = Forecast::of(&Plan { children: 1, ..*shape }, costs, kernel).total();
    let none = Forecast::of(&Plan { children: 0, ..*shape }, costs, kernel).total();
    let both = if shape.generations > 1 { ", old and new," } else { "" };
    let mut ceilings = vec![
        Ceiling {
            what: MEMORY.to_owned(),
            most: children_that_fit(shape, costs, kernel, budget.bytes),
            how: format!(
                "({} - {}) / {} for each child{both} with all it holds",
                shown(budget.bytes),
                shown(none),
                shown(one.saturating_sub(none))
            ),
        },
        Ceiling {
            what: "ServerLimit".to_owned(),
            most: bounds(question.mpm).0,
            how: "the highest that the configuration takes".to_owned(),
        },
    ];
    if let Some(files) = facts.process.files {
        let fixed = descriptors::of_the_master(0, question.listeners, question.logs, question.doors);
        ceilings.push(Ceiling {
            what: "descriptors of the master".to_owned(),
            most: children(files.saturating_sub(fixed) / descriptors::SLOTS_OF_A_CHILD),
            how: format!("(RLIMIT_NOFILE {files} - {fixed}) / 2 slots of a child"),
        });
    }
    let tasks = shape.tasks_of_a_child() * generations;
    for bound in facts.tasks.iter().filter(|bound| bound.limit < u64::MAX) {
        let left = bound.limit.saturating_sub(bound.others).saturating_sub(1);
        ceilings.push(Ceiling {
            what: "processes and threads".to_owned(),
            most: children(left / tasks),
            how: format!("({} {} - {} of others) / {tasks}", bound.name, bound.limit, bound.others),
        });
    }
    if let Some(limit) = facts.process.tasks.filter(|_| !question.root) {
        ceilings.push(Ceiling {
            what: "processes of the user".to_owned(),
            most: children(limit.saturating_sub(1) / tasks),
            how: format!("RLIMIT_NPROC {limit} / {tasks}"),
        });
    }
    if facts.machine.files < u64::MAX {
        let Question { mpm, threads, idle, listeners, logs, .. } = *question;
        let each = descriptors::of_a_child(mpm, threads.into(), listeners, logs) + u64::from(idle);
        let left = facts.machine.files.saturating_sub(facts.machine.files_used);
        ceilings.push(Ceiling {
            what: "open files of the machine".to_owned(),
            most: children(left / (each * generations)),
            how: format!(
                "(fs.file-max {} - {}) / {}",
                facts.machine.files,
                facts.machine.files_used,
                each * generations
            ),
        });
    }
    if question.tcp_backends > 0 && facts.machine.ports > 0 {
        let ports = facts.machine.ports.saturating_mul(question.tcp_backends);
        ceilings.push(Ceiling {
            what: "ports towards the backends".to_owned(),
            most: children(ports / (u64::from(question.threads) * generations)),
            how: format!(
                "{} of net.ipv4.ip_local_port_range x {} / {} workers",
                facts.machine.ports,
                match question.tcp_backends {
                    1 => "1 backend".to_owned(),
                    many => format!("{many} backends"),
                },
                u64::from(question.threads) * generations
            ),
        });
    }
    ceilings
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::facts::TaskBound;
    use super::super::forecast::tests::{COSTS, KERNEL};
    use super::*;
    use crate::sys::limits::{MachineLimits, ProcessLimits};

    pub(in crate::size) const QUESTION: Question = Question {
        mpm: Mpm::Event,
        threads: 25,
        idle: 250,
        reload: false,
        listeners: 1,
        logs: 1,
        doors: 0,
        tcp_backends: 1,
        root: false,
    };

    pub(in crate::size) fn facts() -> Facts {
        Facts {
            pots: Vec::new(),
            tasks: vec![TaskBound { name: "kernel.threads-max".into(), limit: 100_000, others: 500 }],
            process: ProcessLimits { files: Some(20_000), address_space: None, tasks: Some(60_000) },
            machine: MachineLimits {
                files: 1_000_000,
                files_used: 1_000,
                tasks: 100_000,
                tasks_used: 500,
                ports: 28_232,
                send_buffer: 16_384,
            },
        }
    }

    pub(in crate::size) fn budget(bytes: u64) -> Budget {
        Budget { pot: None, own: 0, reserve: 0, bytes, above: None }
    }

    #[test]
    fn the_lowest_ceiling_holds() {
        let ask = |bytes, question: Question, facts: Facts| {
            let advice = advise(&question, &COSTS, &KERNEL, &budget(bytes), &facts).expect("some fit");
            (advice.ceilings[advice.lowest].what.clone(), advice.plan.children)
        };
        let much = 1 << 40;
        // One child: 500,000 + 25 x 2,000 + 250 x 300, and the kernel's 204,096 + 30,000 + 26 x 20,000 + 300 x 4,000
        // + 25 x 16,000; the master: 5,000,000 + 50,000.
        let each = 500_000 + 50_000 + 75_000 + 204_096 + 30_000 + 520_000 + 1_200_000 + 400_000;
        let fixed = 5_050_000;
        let few = |change: fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            facts
        };
        let named = |what: &str, children: u32| (what.to_owned(), children);
        let plain = QUESTION;
        assert_eq!(ask(fixed + 10 * each, plain, facts()), named("memory", 10));
        assert_eq!(ask(fixed + 10 * each - 1, plain, facts()), named("memory", 9));
        let lacks = |bytes| {
            let advice = advise(&plain, &COSTS, &KERNEL, &budget(bytes), &facts()).expect("some fit");
            advice.reload_lacks
        };
        assert_eq!(lacks(fixed + 10 * each), ["memory"]);
        assert_eq!(lacks(much), ["ports towards the backends"]);
        assert_eq!(ask(fixed + 10 * each, Question { reload: true, ..plain }, facts()), named("memory", 5));
        assert_eq!(ask(much, plain, facts()), named("ports towards the backends", 28_232 / 25));
        let unix = Question { tcp_backends: 0, ..plain };
        assert_eq!(ask(much, unix, facts()), named("processes of the user", 59_999 / 26));
        let as_root = Question { root: true, ..unix };
        assert_eq!(
            ask(much, as_root, facts()),
            named("open files of the machine", 999_000 / (27 + 50 + 250))
        );
        let files = few(|facts| facts.machine.files = u64::MAX);
        assert_eq!(ask(much, as_root, files), named("processes and threads", 99_499 / 26));
        let tasks = few(|facts| {
            facts.machine.files = u64::MAX;
            facts.tasks.clear();
        });
        assert_eq!(ask(much, as_root, tasks.clone()), named("descriptors of the master", (20_000 - 28) / 2));
        let none = Facts { process: ProcessLimits::default(), ..tasks };
        assert_eq!(ask(much, as_root, none), named("ServerLimit", 20_000));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_it_needs() {
        let refused = |bytes, question: Question, facts: &Facts| {
            advise(&question, &COSTS, &KERNEL, &budget(bytes), facts).expect_err("nothing fits").to_string()
        };
        assert!(
            refused(1 << 20, QUESTION, &facts()).starts_with(
                "not even one child fits: with the master it needs 7.7 MiB, and there are 1.0 MiB for the server"
            ),
            "{}",
            refused(1 << 20, QUESTION, &facts())
        );
        let mut narrow = facts();
        narrow.process.files = Some(60);
        assert_eq!(
            refused(1 << 30, QUESTION, &narrow),
            "a child needs at least 77 descriptors, and RLIMIT_NOFILE allows 60; raise it, or lower ThreadsPerChild"
        );
        let mut full = facts();
        full.tasks[0].others = 99_990;
        assert_eq!(
            refused(1 << 30, QUESTION, &full),
            "not even one child fits: processes and threads: (kernel.threads-max 100000 - 99990 of others) / 26"
        );
    }

    #[test]
    fn idle_connections_are_counted_as_far_as_descriptors_go() {
        let mut narrow = facts();
        narrow.process.files = Some(200);
        narrow.process.address_space = Some(100 << 20);
        let advice = advise(&QUESTION, &COSTS, &KERNEL, &budget(1 << 30), &narrow).expect("some fit");
        // Three pipes of 200 descriptors.
        assert_eq!(advice.question.idle, (200 - 18 - 2 * 3) / 2 - 25);
        assert_eq!(advice.remarks.len(), 2, "{:?}", advice.remarks);
        assert!(advice.remarks[1].contains("RLIMIT_AS allows 100.0 MiB"), "{:?}", advice.remarks);
    }
}
