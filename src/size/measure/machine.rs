//! What the machine and its control groups have for a server.

use crate::ids::ChildPid;
use crate::size::budget::Pot;
use crate::size::facts::{Facts, TaskBound};
use crate::sys::{cgroup, limits, memory};

/// What bounds the process `pid` and those that it forks; `tasks` of the processes and threads there are now are the
/// server's own.
///
/// What cannot be read bounds nothing: whoever has no `/proc` learns less, not something wrong.
#[must_use]
pub fn facts(pid: ChildPid, tasks: u64) -> Facts {
    let machine = limits::of_machine();
    let whole = memory::of_machine().ok().map(|memory| Pot {
        name: "this machine (MemTotal)".to_owned(),
        total: memory.total,
        used: memory.total - memory.available,
    });
    let groups = cgroup::of_process(pid).unwrap_or_default();
    let group = |bound: cgroup::Bound| Pot {
        name: bound.file.display().to_string(),
        total: bound.limit,
        used: bound.used,
    };
    // A bound above what there is is none.
    let total = whole.as_ref().map_or(u64::MAX, |pot| pot.total);
    let groups_of_memory = groups.memory.into_iter().filter(|bound| bound.limit < total).map(group);
    let everywhere = TaskBound {
        name: "kernel.threads-max, pid_max".to_owned(),
        limit: machine.tasks,
        others: machine.tasks_used.saturating_sub(tasks),
    };
    let in_group = |bound: cgroup::Bound| TaskBound {
        name: bound.file.display().to_string(),
        limit: bound.limit,
        others: bound.used.saturating_sub(tasks),
    };
    Facts {
        pots: whole.into_iter().chain(groups_of_memory).collect(),
        tasks: std::iter::once(everywhere).chain(groups.tasks.into_iter().map(in_group)).collect(),
        process: limits::of_process(pid).unwrap_or_default(),
        machine,
    }
}

/// What bounds this process and those that it forks, as far as nothing else runs beside it.
#[must_use]
pub fn facts_of_this_process() -> Facts {
    let me = ChildPid::new(std::process::id().cast_signed()).expect("a process has a positive number");
    facts(me, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_tasks() {
        let facts = facts_of_this_process();
        assert!(!facts.pots.is_empty() && facts.pots[0].used < facts.pots[0].total, "{facts:?}");
        assert!(!facts.tasks.is_empty() && facts.tasks[0].limit > 0, "{facts:?}");
    }
}
