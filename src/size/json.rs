//! The whole arithmetic for programs. Sizes are in bytes; fields are added, never changed or taken away.

use super::advice::Advice;
use super::budget::others;
use super::forecast::Line;
use super::observed::Tree;
use super::page::Told;
use super::snippet::snippet;
use crate::sys::memory::ProcessMemory;
use serde_json::{Value, json};

/// The document, one line.
#[must_use]
pub fn document(told: &Told<'_>) -> String {
    let Told { measured, budget, advice, remarks } = *told;
    let costs = &measured.costs;
    let value = json!({
        "mpm": advice.plan.mpm.name(),
        "measured": tree(&measured.tree),
        "costs": {
            "text": costs.text,
            "master": costs.master,
            "child": costs.child,
            "thread": costs.thread,
            "threads": costs.threads,
            "busy_worker": costs.busy,
            "idle_connection": costs.idle,
            "page_tables": costs.page_tables,
            "address_space": costs.address_space,
            "from": {
                "child": measured.child.name(),
                "thread": measured.thread.name(),
                "busy_worker": measured.busy.name(),
                "idle_connection": measured.idle.name(),
            },
        },
        "budget": {
            "name": budget.pot.as_ref().map(|pot| &pot.name),
            "total": budget.pot.as_ref().map(|pot| pot.total),
            "others": budget.pot.as_ref().map(|pot| others(pot, budget.own)),
            "own": budget.own,
            "reserve": budget.reserve,
            "bytes": budget.bytes,
            "above": budget.above.as_ref().map(|(pot, left)| json!({ "name": pot.name, "left": left })),
        },
        "limits": limits(advice),
        "ceilings": advice.ceilings.iter().enumerate().map(|(place, ceiling)| json!({
            "what": ceiling.what,
            "children": ceiling.most,
            "how": ceiling.how,
            "holds": place == advice.lowest,
        })).collect::<Vec<_>>(),
        "forecast": {
            "processes": lines(&advice.forecast.processes),
            "kernel": lines(&advice.forecast.kernel),
            "pss": advice.forecast.pss(),
            "kernel_bytes": advice.forecast.kernel(),
            "total": advice.forecast.total(),
            "while_reloading": advice.reloading,
            "reload_lacks": advice.reload_lacks,
        },
        "remarks": remarks.iter().chain(&advice.remarks).collect::<Vec<_>>(),
        "configuration": snippet(advice, budget.bytes),
    });
    format!("{value}\n")
}

fn limits(advice: &Advice) -> Value {
    let plan = &advice.plan;
    let event = plan.mpm == crate::config::model::Mpm::Event;
    json!({
        "server_limit": plan.children,
        "thread_limit": plan.threads,
        "threads_per_child": plan.threads,
        "max_request_workers": plan.workers(),
        "max_connections_per_process": event.then_some(u64::from(plan.threads) + u64::from(plan.idle)),
    })
}

fn lines(lines: &[Line]) -> Vec<Value> {
    lines
        .iter()
        .map(|line| json!({ "what": line.what, "count": line.count, "each": line.each, "sum": line.sum() }))
        .collect()
}

fn tree(tree: &Tree) -> Value {
    json!({
        "master_pid": tree.pid,
        "threads_per_child": tree.threads,
        "busy": tree.busy(),
        "idle_connections": tree.idle(),
        "pss": tree.pss(),
        "swap": tree.swap(),
        "scoreboard_length": tree.board,
        "scoreboard_used": tree.board_used,
        "master": memory(&tree.master),
        "children": tree.children.iter().map(|child| json!({
            "slot": child.slot,
            "pid": child.pid,
            "busy": child.busy,
            "connections": child.connections,
            "memory": memory(&child.memory),
        })).collect::<Vec<_>>(),
    })
}

fn memory(memory: &ProcessMemory) -> Value {
    json!({
        "pss": memory.pss,
        "uss": memory.private,
        "own": memory.own,
        "swap": memory.swap,
        "page_tables": memory.page_tables,
        "address_space": memory.address_space,
        "threads": memory.threads,
    })
}

#[cfg(test)]
mod tests {
    use super::super::advice::advise;
    use super::super::advice::tests::{QUESTION, budget, facts};
    use super::super::forecast::tests::{COSTS, KERNEL};
    use super::super::observed::tests::tree;
    use super::super::observed::{Measured, Source};
    use super::*;

    #[test]
    fn the_document_agrees_with_itself() {
        let source = Source::Private;
        let tree = tree(25, &[(3, 40), (5, 900)]);
        let measured =
            Measured { costs: COSTS, child: source, thread: source, busy: source, idle: source, tree };
        let budget = budget(256 << 20);
        let advice = advise(&QUESTION, &COSTS, &KERNEL, &budget, &facts()).expect("some fit");
        let text = document(&Told { measured: &measured, budget: &budget, advice: &advice, remarks: &[] });
        let value: Value = serde_json::from_str(&text).expect("it is JSON");
        let sums = |lines: &Value| -> u64 {
            lines.as_array().expect("a list").iter().filter_map(|line| line["sum"].as_u64()).sum()
        };
        let forecast = &value["forecast"];
        assert_eq!(forecast["pss"].as_u64(), Some(sums(&forecast["processes"])));
        assert_eq!(
            forecast["total"].as_u64(),
            Some(sums(&forecast["processes"]) + sums(&forecast["kernel"]))
        );
        assert!(forecast["total"].as_u64() <= value["budget"]["bytes"].as_u64());
        let limits = &value["limits"];
        assert_eq!(limits["max_request_workers"], json!(limits["server_limit"].as_u64().map(|n| n * 25)));
        assert_eq!(limits["max_connections_per_process"], json!(275));
        assert_eq!(value["measured"]["children"].as_array().map(Vec::len), Some(2));
    }
}
