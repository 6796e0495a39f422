//! Whether what a configuration says can fit: for `-t` and the start, which measure nothing.

use super::costs::{Costs, Kernel};
use super::descriptors;
use super::facts::Facts;
use super::forecast::{Forecast, Plan};
use super::shown;
use crate::config::model::{Config, Mpm};

/// One sentence for everything that cannot fit, with what to do.
#[must_use]
pub fn warnings(config: &Config, facts: &Facts) -> Vec<String> {
    [
        memory(config, facts),
        connections(config, facts),
        start(config, facts),
        tasks(config, facts),
        files(config, facts),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The configured server at its most. Idle connections count where the file bounds them; by default the descriptors
/// do, and they would allow for more than anybody has.
fn plan(config: &Config) -> Plan {
    let limits = &config.limits;
    let most = limits.max_connections_per_process.filter(|_| config.mpm == Mpm::Event);
    Plan {
        mpm: config.mpm,
        children: limits.max_children(),
        threads: limits.threads_per_child,
        idle: most.map_or(0, |most| most.get().saturating_sub(limits.threads_per_child)),
        generations: 1,
    }
}

fn shape(plan: &Plan) -> String {
    match plan.mpm {
        Mpm::Prefork => format!("{} children", plan.children),
        Mpm::Event | Mpm::Worker => format!("{} children x {} threads", plan.children, plan.threads),
    }
}

fn memory(config: &Config, facts: &Facts) -> Option<String> {
    let pot = facts.pots.iter().min_by_key(|pot| pot.total)?;
    let plan = plan(config);
    let kernel = Kernel::with_under_way(facts.machine.send_buffer);
    let total = Forecast::of(&plan, &Costs::known(config.mpm), &kernel).total();
    let idle = match plan.idle {
        0 => String::new(),
        idle => format!(", {} idle connections", u64::from(idle) * plan.all_children()),
    };
    (total > pot.total).then(|| {
        format!(
            "MaxRequestWorkers {} ({}{idle}) would take about {} at its most, and {} has {}: it would swap, or be killed; \
             \"ostler size\" measures what fits",
            plan.workers(),
            shape(&plan),
            shown(total),
            pot.name,
            shown(pot.total)
        )
    })
}

fn connections(config: &Config, facts: &Facts) -> Option<String> {
    if config.mpm != Mpm::Event {
        return None;
    }
    let wanted = u64::from(config.limits.max_connections_per_process?.get());
    let limit = facts.process.files?;
    let (listeners, logs) = (config.listen.len() as u64, config.log_targets.len() as u64);
    let holds = descriptors::connections_of_a_child(limit, listeners, logs)
        .max(u64::from(config.limits.threads_per_child));
    (holds < wanted).then(|| {
        format!(
            "MaxConnectionsPerProcess {wanted} needs {} descriptors in each child, two for a connection, and \
             RLIMIT_NOFILE allows {limit}; {holds} connections hold",
            descriptors::for_connections(wanted, listeners, logs)
        )
    })
}

fn start(config: &Config, facts: &Facts) -> Option<String> {
    let limit = facts.process.files?;
    let (whom, needed) = descriptors::needs(config).into_iter().find(|(_, needed)| *needed > limit)?;
    Some(format!(
        "{whom} needs at least {needed} descriptors, and RLIMIT_NOFILE allows {limit}: it would not start; raise the \
         limit, or lower ThreadsPerChild or ServerLimit"
    ))
}

fn tasks(config: &Config, facts: &Facts) -> Option<String> {
    let plan = plan(config);
    let needed = 1 + plan.all_children() * plan.tasks_of_a_child();
    let bound = facts.tasks.iter().filter(|bound| bound.limit < needed).min_by_key(|bound| bound.limit)?;
    Some(format!(
        "MaxRequestWorkers {} ({}) needs {needed} processes and threads, and {} allows {}; children could not be made",
        plan.workers(),
        shape(&plan),
        bound.name,
        bound.limit
    ))
}

fn files(config: &Config, facts: &Facts) -> Option<String> {
    let plan = plan(config);
    let (listeners, logs) = (config.listen.len() as u64, config.log_targets.len() as u64);
    let each = descriptors::of_a_child(plan.mpm, plan.threads.into(), listeners, logs) + u64::from(plan.idle);
    let needed = plan.all_children() * each;
    (facts.machine.files < needed).then(|| {
        format!(
            "{} with all their connections need {needed} open files, and fs.file-max allows {} on this machine",
            shape(&plan),
            facts.machine.files
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::advice::tests::facts;
    use super::super::budget::Pot;
    use super::super::facts::TaskBound;
    use super::*;
    use crate::config::{self, Options};

    fn said(text: &str, change: impl Fn(&mut Facts)) -> Vec<String> {
        let text = format!("Listen 127.0.0.1:80\nServerName a.test\nErrorLog /dev/stderr\n{text}");
        let config = config::from_text("test", &text, &Options::default()).expect("a valid text").config;
        let mut facts = facts();
        facts.pots = vec![Pot { name: "this machine (MemTotal)".into(), total: 1 << 30, used: 0 }];
        change(&mut facts);
        warnings(&config, &facts)
    }

    #[test]
    fn defaults_fit_a_usual_machine() {
        for mpm in ["event", "worker", "prefork"] {
            assert_eq!(said(&format!("MPM {mpm}"), |_| {}), [] as [&str; 0], "{mpm}");
        }
        assert_eq!(said("MPM event", |facts| *facts = Facts::default()), [] as [&str; 0], "nothing known");
    }

    #[test]
    fn what_cannot_fit_is_told_with_numbers() {
        let big = "ServerLimit 1000\nMaxRequestWorkers 25000";
        for (text, change, want) in [
            (
                format!("MPM event\n{big}"),
                (|_| {}) as fn(&mut Facts),
                "MaxRequestWorkers 25000 (1000 children x 25 threads) would take about ",
            ),
            (
                "MPM prefork\nServerLimit 9000\nMaxRequestWorkers 9000".to_owned(),
                |_| {},
                "MaxRequestWorkers 9000 (9000 children) would take about ",
            ),
            (
                "MaxConnectionsPerProcess 9000".to_owned(),
                |facts| facts.pots.insert(0, Pot { name: "/g/memory.max".into(), total: 300 << 20, used: 0 }),
                "MaxRequestWorkers 400 (16 children x 25 threads, 143600 idle connections) would take about ",
            ),
            (
                "MaxConnectionsPerProcess 20000\nServerLimit 1\nMaxRequestWorkers 25\nStartServers 1\nMinSpareThreads 25"
                    .to_owned(),
                |_| {},
                "MaxConnectionsPerProcess 20000 needs 40146 descriptors in each child, two for a connection, and \
                 RLIMIT_NOFILE allows 20000; 9927 connections hold",
            ),
            (
                "ThreadLimit 200\nThreadsPerChild 200\nMaxRequestWorkers 400".to_owned(),
                |facts| facts.process.files = Some(300),
                "a child of 200 threads needs at least 427 descriptors, and RLIMIT_NOFILE allows 300: it would not start; \
                 raise the limit, or lower ThreadsPerChild or ServerLimit",
            ),
            (
                "MPM worker".to_owned(),
                |facts| facts.tasks.push(TaskBound { name: "/g/pids.max".into(), limit: 100, others: 3 }),
                "MaxRequestWorkers 400 (16 children x 25 threads) needs 417 processes and threads, and /g/pids.max allows \
                 100; children could not be made",
            ),
            (
                "MPM worker".to_owned(),
                |facts| facts.machine.files = 1000,
                "16 children x 25 threads with all their connections need 1632 open files, and fs.file-max allows 1000 on \
                 this machine",
            ),
        ] {
            let said = said(&text, change);
            assert_eq!(said.len(), 1, "{text}: {said:?}");
            assert!(said[0].starts_with(want), "{text}: {said:?}\nwant {want}");
        }
        let said = said(&format!("MPM event\n{big}"), |_| {});
        assert!(
            said[0].ends_with("and this machine (MemTotal) has 1.0 GiB: it would swap, or be killed; \"ostler size\" measures what fits"),
            "{said:?}"
        );
    }
}
