//! The whole arithmetic as text, line by line.

use super::advice::Advice;
use super::budget::{Budget, others};
use super::forecast::Line;
use super::observed::{ChildSeen, Measured, Source};
use super::shown;
use super::snippet::snippet;
use crate::config::model::Mpm;
use std::fmt::Write as _;

/// What is to be told of one sizing.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// What one of each thing costs.
    pub measured: &'a Measured,
    /// What there is.
    pub budget: &'a Budget,
    /// What fits.
    pub advice: &'a Advice,
    /// What else there is to say, a sentence each.
    pub remarks: &'a [String],
}

/// Width of the first column.
const NAME: usize = 26;

/// The page.
#[must_use]
pub fn page(told: &Told<'_>) -> String {
    let Told { measured, budget, advice, remarks } = *told;
    let mut text = String::new();
    costs(&mut text, measured, advice.plan.mpm);
    memory(&mut text, budget);
    ceilings(&mut text, advice);
    forecast(&mut text, advice, budget);
    let remarks: Vec<&String> = remarks.iter().chain(&advice.remarks).collect();
    if !remarks.is_empty() {
        text.push('\n');
    }
    for remark in remarks {
        // Into a String, which takes everything; below too.
        let _ = writeln!(text, "Note: {remark}");
    }
    let _ = write!(text, "\nTo be pasted into the configuration:\n\n{}", snippet(advice, budget.bytes));
    text
}

/// `2 children of 25 threads`, `8 children`.
fn children_of(count: usize, threads: u32, mpm: Mpm) -> String {
    let children = if count == 1 { "child" } else { "children" };
    match mpm {
        Mpm::Prefork => format!("{count} {children}"),
        Mpm::Event | Mpm::Worker => format!("{count} {children} of {threads} threads"),
    }
}

fn costs(text: &mut String, measured: &Measured, mpm: Mpm) {
    let tree = &measured.tree;
    let whose = match measured.child {
        Source::Live => format!("the live server, pid {}", tree.pid),
        Source::Private | Source::Known => "a private server under load on loopback".to_owned(),
    };
    let connections = match mpm {
        Mpm::Event => format!(", {} connections idle", tree.idle()),
        Mpm::Worker | Mpm::Prefork => String::new(),
    };
    let _ = writeln!(
        text,
        "Measured ({}): {whose}, {}, {} busy{connections}",
        mpm.name(),
        children_of(tree.children.len(), tree.threads, mpm),
        tree.busy(),
    );
    let mut row = |name: &str, figure: String| {
        let _ = writeln!(text, "  {name:<NAME$} {figure}");
    };
    let both = |pss: u64, private: u64| format!("PSS {:>9}   USS {:>9}", shown(pss), shown(private));
    row("master", both(tree.master.pss, tree.master.private));
    let by_pss = |child: &&ChildSeen| child.memory.pss;
    let smallest = tree.children.iter().min_by_key(by_pss);
    let largest = tree.children.iter().max_by_key(by_pss);
    if let (Some(smallest), Some(largest)) = (smallest, largest) {
        row("smallest child", both(smallest.memory.pss, smallest.memory.private));
        row("largest child", both(largest.memory.pss, largest.memory.private));
    }
    row("all together", format!("PSS {:>9}", shown(tree.pss())));
    if tree.swap() > 0 {
        row("of it swapped out", format!("    {:>9}", shown(tree.swap())));
    }
    row(
        "scoreboard, shared",
        format!("    {:>9}   of {} that it may take", shown(tree.board_used), shown(tree.board)),
    );
    let costs = &measured.costs;
    let mut cost = |name: &str, bytes: u64, source: Source| {
        let note = match source {
            Source::Live => "this server's",
            Source::Private if measured.child == Source::Live => {
                "by a private server: too little difference here"
            }
            Source::Private => "",
            Source::Known => "as known of this version; not measured",
        };
        let line = format!("  {name:<NAME$}     {:>9}   {note}", shown(bytes));
        let _ = writeln!(text, "{}", line.trim_end());
    };
    if mpm != Mpm::Prefork {
        cost("each thread", costs.thread, measured.thread);
    }
    cost("each busy worker", costs.busy, measured.busy);
    if mpm == Mpm::Event {
        cost("each idle connection", costs.idle, measured.idle);
    }
}

fn memory(text: &mut String, budget: &Budget) {
    let _ = writeln!(text, "\nThe memory");
    let mut row = |name: &str, bytes: u64, note: &str| {
        let line = format!("  {name:<NAME$}     {:>9}   {note}", shown(bytes));
        let _ = writeln!(text, "{}", line.trim_end());
    };
    match &budget.pot {
        Some(pot) => {
            row("there is", pot.total, &pot.name);
            let note = match budget.own {
                0 => String::new(),
                own => format!("without the {} of this server", shown(own)),
            };
            row("- used by others", others(pot, budget.own), &note);
            row("- to stay free", budget.reserve, "--reserve; a tenth of it by default");
        }
        None => {
            row("asked for", budget.bytes.saturating_add(budget.reserve), "--memory");
            if budget.reserve > 0 {
                row("- to stay free", budget.reserve, "--reserve");
            }
        }
    }
    row("= for the server", budget.bytes, "");
    if let Some((pot, left)) = &budget.above {
        let _ = writeln!(
            text,
            "  More than there is: {} has {} left; beyond that the machine would swap.",
            pot.name,
            shown(*left)
        );
    }
}

fn ceilings(text: &mut String, advice: &Advice) {
    let _ = writeln!(text, "\nThe most children");
    for (place, ceiling) in advice.ceilings.iter().enumerate() {
        let mark = if place == advice.lowest { "<-" } else { "  " };
        let _ = writeln!(text, "  {:<NAME$}     {:>9} {mark} {}", ceiling.what, ceiling.most, ceiling.how);
    }
}

fn forecast(text: &mut String, advice: &Advice, budget: &Budget) {
    let Advice { plan, forecast, .. } = advice;
    let workers = plan.workers();
    let shape = match plan.mpm {
        Mpm::Prefork => format!("{} children = {workers} workers", plan.children),
        Mpm::Event | Mpm::Worker => {
            format!("{} children x {} threads = {workers} workers", plan.children, plan.threads)
        }
    };
    let idle = match plan.all_children() * u64::from(plan.idle) {
        0 => String::new(),
        idle => format!(", and {idle} idle connections"),
    };
    let _ = writeln!(text, "\nAt its most: {shape}{idle}");
    lines(text, &forecast.processes);
    sum(text, "= processes (PSS)", forecast.pss(), "what smem or \"ostler size\" will show");
    lines(text, &forecast.kernel);
    sum(text, "= kernel, for them", forecast.kernel(), "in no process's figures");
    sum(text, "= together", forecast.total(), &format!("of {}", shown(budget.bytes)));
    let fits = if advice.reload_lacks.is_empty() {
        "fits too".to_owned()
    } else {
        format!("does not fit ({}); --reload leaves room for it", advice.reload_lacks.join(", "))
    };
    let _ = writeln!(
        text,
        "While a reload under full load drains the old children, up to {}: {fits}.",
        shown(advice.reloading)
    );
}

fn lines(text: &mut String, lines: &[Line]) {
    for line in lines {
        let Line { what, count, each } = line;
        let _ = writeln!(text, "  {what:<NAME$} {count:>8} x {:>9} {:>11}", shown(*each), shown(line.sum()));
    }
}

fn sum(text: &mut String, name: &str, bytes: u64, note: &str) {
    let line = format!("  {name:<NAME$} {:>32}   {note}", shown(bytes));
    let _ = writeln!(text, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::super::advice::advise;
    use super::super::advice::tests::{QUESTION, facts};
    use super::super::budget::{Asked, Pot, budget};
    use super::super::forecast::tests::{COSTS, KERNEL};
    use super::super::observed::tests::tree;
    use super::*;

    #[test]
    fn the_page_shows_the_arithmetic_line_by_line() {
        let measured = Measured {
            costs: COSTS,
            child: Source::Live,
            thread: Source::Known,
            busy: Source::Private,
            idle: Source::Live,
            tree: tree(25, &[(3, 40), (5, 900)]),
        };
        let pot = Pot { name: "this machine (MemTotal)".into(), total: 1 << 30, used: 300 << 20 };
        let budget = budget(&[pot], 10 << 20, Asked::default()).expect("a pot");
        let advice = advise(&QUESTION, &COSTS, &KERNEL, &budget, &facts()).expect("some fit");
        let remarks = ["this is said too".to_owned()];
        let page = page(&Told { measured: &measured, budget: &budget, advice: &advice, remarks: &remarks });
        let want = include_str!("page.txt");
        assert_eq!(page, want, "\n{page}");
    }
}
