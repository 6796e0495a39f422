//! `ostler status`: what the scoreboard tells without asking the server.

use crate::support::load::all_served;
use crate::support::{Backend, Daemon, Mpm, at_once, ostler};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

under_each_mpm! {
    fn children_workers_and_totals_are_shown(mpm) {
        let backend = Backend::start();
        let limits = if mpm.is_prefork() {
            "StartServers 3\nMaxRequestWorkers 3\nMinSpareServers 1\n"
        } else {
            "StartServers 1\nServerLimit 1\nThreadsPerChild 3\nMaxRequestWorkers 3\nMinSpareThreads 1\n"
        };
        let daemon = Daemon::under(mpm, &format!("{limits}ProxyPass / {}/", backend.url()));
        daemon.tolerate("MaxRequestWorkers");
        let status = daemon.wait_for_status("three idle workers", |status| (status.busy, status.idle) == (0, 3));
        for child in daemon.children() {
            assert!(status.text.contains(&child.to_string()), "pid {child} in\n{}", status.text);
        }
        assert!(status.text.contains("generation 1"), "{}", status.text);
        assert!(status.text.contains(mpm.name()), "{}", status.text);
        // A child's line has its pid second and its workers' letters last.
        let letters = |text: &str, letter: char| {
            let pids: Vec<String> = daemon.children().iter().map(i32::to_string).collect();
            let is_child = |words: &Vec<&str>| words.get(1).is_some_and(|pid| pids.iter().any(|known| known == pid));
            let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(is_child);
            lines.filter_map(|words| words.last().copied()).flat_map(str::chars).filter(|c| *c == letter).count()
        };
        assert_eq!(letters(&status.text, '_'), 3, "{}", status.text);
        // With every worker held, and a client waiting behind them, the answer comes all the same.
        let address = daemon.address();
        let clients = at_once(4, move |_| crate::support::daemon::get(address, "/hold"));
        backend.wait_for_now(3);
        let status = daemon.wait_for_status("three busy workers", |status| (status.busy, status.idle) == (3, 0));
        assert_eq!(letters(&status.text, 'W'), 3, "{}", status.text);
        backend.release();
        all_served(clients);
        daemon.wait_for_status("three idle workers again", |status| (status.busy, status.idle) == (0, 3));
    }
}

#[test]
fn a_dead_daemons_last_state_can_be_read() {
    let backend = Backend::start();
    let mut daemon = Daemon::under(Mpm::Event, &format!("ProxyPass / {}/", backend.url()));
    assert_eq!(daemon.get("/").status, 200);
    daemon.tolerate("master");
    kill(Pid::from_raw(daemon.master()), Signal::SIGKILL).expect("it is there");
    daemon.wait_for_end();
    let run = ostler(&["status", "-f", &daemon.home().config().to_string_lossy()]);
    let said = run.stdout.clone() + &run.stderr;
    assert!(run.code.is_some() && said.contains("generation"), "{run:?}");
    assert!(
        said.contains("not running") || said.contains("dead") || said.contains("gone"),
        "it says so: {said}"
    );
}

under_each_mpm! {
    fn after_a_kill_of_all_it_tells_what_each_worker_held_for_whom_and_since_when(mpm) {
        let backend = Backend::start();
        let mut daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        daemon.tolerate("child");
        let mut client = daemon.ask("/hold?the-one");
        backend.wait_for_now(1);
        // The master first, so that nobody is left to take a slot back.
        let children = daemon.children();
        for pid in [&[daemon.master()], &children[..]].concat() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        daemon.wait_for_end();
        let run = ostler(&["status", "-f", &daemon.home().config().to_string_lossy()]);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stdout.contains("\nnot running since "), "{}", run.stdout);
        let held = run.stdout.lines().find(|line| line.contains("\"GET /hold?the-one HTTP/1.1\""));
        let held = held.unwrap_or_else(|| panic!("the request in\n{}", run.stdout));
        let pattern = format!(r" W +\d+ .+  \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  {} proxy.test ", client.address());
        assert!(regex::Regex::new(&pattern).expect("a literal pattern").is_match(held), "{held}");
        assert!(held.ends_with(&format!(" to {}", backend.url())), "{held}");
        backend.release();
        let _ = client.rest();
    }
}

#[test]
fn a_scoreboard_that_is_none_is_refused_with_a_sentence() {
    let home = crate::support::Home::new();
    let config = home.write_whole("ProxyPass / http://127.0.0.1:9/");
    let config = config.to_string_lossy();
    let missing = ostler(&["status", "-f", &config]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.stderr.contains("scoreboard"), "{missing:?}");
    for bytes in [Vec::new(), b"not a scoreboard at all".to_vec(), crate::support::pattern(100_000, 5)] {
        std::fs::write(home.path("scoreboard"), &bytes).expect("the test's own");
        let run = ostler(&["status", "-f", &config]);
        assert_eq!(run.code, Some(3), "{} bytes: {run:?}", bytes.len());
        assert!(run.stderr.contains("scoreboard") && !run.stderr.contains("panicked"), "{run:?}");
    }
}

#[test]
fn totals_never_go_backwards_when_children_die() {
    let backend = Backend::start();
    let daemon = Daemon::under(
        Mpm::Prefork,
        &format!("StartServers 3\nMaxRequestWorkers 6\nMinSpareServers 2\nProxyPass / {}/", backend.url()),
    );
    daemon.tolerate("child");
    for _ in 0..30 {
        assert_eq!(daemon.get("/").status, 200);
    }
    let total = |text: &str| -> Option<u64> {
        let pattern = regex::Regex::new(r"(?m)^requests\s+(\d+)").expect("a literal pattern");
        pattern.captures(text)?[1].parse().ok()
    };
    let before = daemon.wait_for_status("thirty requests", |status| total(&status.text) == Some(30));
    for child in daemon.children() {
        kill(Pid::from_raw(child), Signal::SIGKILL).expect("it is there");
        daemon.wait_for_line("who died", |line| {
            line.contains(&format!("child {child} ")) && line.contains("SIGKILL")
        });
    }
    assert!(total(&daemon.status().text) >= total(&before.text), "{}\n{}", before.text, daemon.status().text);
}
