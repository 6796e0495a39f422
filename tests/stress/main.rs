//! The stress program: a real daemon under load, and every request that gets lost.
//!
//! `scripts/stress` is its front. A scenario does one thing to a daemon again and again (reload it, kill its
//! children, stop it) while clients of three kinds work it and retry nothing. A run is over when every scenario
//! has been played under every driver; a table tells of all of them. It fails if a rule was broken, and then
//! keeps configuration, log and losses in a directory that it names.

// A program that measures has no clock handed in, and looks again until a process of its own has moved.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../it/support/mod.rs"]
#[macro_use]
mod support;

mod crowd;
mod options;
mod proof;
mod random;
mod rest;
mod rig;
mod scenarios;
mod table;

use crate::options::{HandOver, Options, USAGE};
use crate::rig::{Case, Report, group, refusal};
use crate::scenarios::{Played, SCENARIOS, Scenario};
use crate::support::{Mpm, processes};
use crate::table::Row;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            eprintln!("stress: {fault}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.helps || options.lists {
        print!("{}", if options.helps { USAGE.to_owned() } else { table::scenarios() });
        return ExitCode::SUCCESS;
    }
    let miscounts = proof::miscounts();
    if !miscounts.is_empty() {
        eprintln!(
            "the clients do not count rightly, so their counts prove nothing:\n  {}",
            miscounts.join("\n  ")
        );
        return ExitCode::FAILURE;
    }
    end_the_daemon_with_us();
    let begun = Instant::now();
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{build} build, {cores} cores, seed {}", options.seed);
    let mut rows = Vec::new();
    for (scenario, case) in cases(&options) {
        let row = play(scenario, case);
        println!("{}", table::told(&row));
        rows.push(row);
    }
    println!("\n{}", table::table(&rows));
    let broken = rows.iter().filter(|row| !row.report.faults.is_empty()).count();
    let seconds = begun.elapsed().as_secs();
    match broken {
        0 => {
            println!("{} runs in {seconds} s, no rule broken", rows.len());
            ExitCode::SUCCESS
        }
        _ => {
            println!("{} runs in {seconds} s, {broken} of them BROKE A RULE", rows.len());
            ExitCode::FAILURE
        }
    }
}

/// What is to be played, in order.
fn cases(options: &Options) -> Vec<(&'static Scenario, Case<'_>)> {
    let wanted = match options.hand_over {
        HandOver::On => vec![true],
        HandOver::Off => vec![false],
        HandOver::Both => vec![true, false],
    };
    let refused = refusal("HandOver On");
    if let Some(line) = &refused {
        println!("this daemon has no hand-over, so nothing is written of it: {line}");
    }
    let mut cases = Vec::new();
    for name in &options.scenarios {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == *name).expect("names were checked");
        for mpm in &options.mpms {
            // A kept connection holds its thread or process under the others, so there is nothing to hand over;
            // a scenario that changes the MPM comes by event whichever it begins with.
            if options.is_short && *name == "reload-mpm" && *mpm != options.mpms[0] {
                // It comes by all of them anyway.
                continue;
            }
            let can_hand_over = scenario.hands_over && (*mpm == Mpm::Event || *name == "reload-mpm");
            let values: Vec<Option<bool>> = if refused.is_none() && can_hand_over {
                wanted.iter().copied().map(Some).collect()
            } else {
                vec![None]
            };
            let case = |hand_over| (scenario, Case { name, mpm: *mpm, hand_over, options });
            cases.extend(values.into_iter().map(case));
        }
    }
    cases
}

/// Plays one scenario within its bounds.
fn play(scenario: &'static Scenario, case: Case<'_>) -> Row {
    println!("{} ...", case.label());
    let begun = Instant::now();
    let (sender, receiver) = channel::<Option<Played>>();
    let played = std::thread::scope(|scope| {
        scope.spawn(|| {
            let played = catch_unwind(AssertUnwindSafe(|| (scenario.play)(case))).ok();
            let _ = sender.send(played);
        });
        match receiver.recv_timeout(scenario.limit) {
            Ok(played) => played,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let group = *group();
                println!("{} hangs after {:?}; processes:", case.label(), scenario.limit);
                println!("{}", group.map(processes::tree).unwrap_or_default());
                end_daemon();
                // Its thread may never come back, so there is no going on.
                std::process::exit(1);
            }
        }
    });
    let (report, evidence) = played.unwrap_or_else(|| {
        end_daemon();
        let faults = vec!["it could not be played to its end; see above".to_owned()];
        (Report { faults, ..Report::default() }, None)
    });
    *group() = None;
    Row { label: case.label(), took: begun.elapsed(), report, evidence }
}

/// Kills the daemon that runs now, by the numbers of its processes.
fn end_daemon() {
    let group = group().take();
    for pid in group.filter(|group| *group > 1).map(processes::members).unwrap_or_default() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// The daemon is in a process group of its own and hears no Ctrl-C; so it is ended with this program.
fn end_the_daemon_with_us() {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).expect("both can be caught");
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            end_daemon();
            // A moment for the kernel to take them away, so that the terminal is quiet afterwards.
            std::thread::sleep(Duration::from_millis(50));
            std::process::exit(128 + signal);
        }
    });
}
