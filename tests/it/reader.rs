//! The scoreboard file as a stranger reads it: a program that knows ostler-scoreboard(5) and nothing else finds what
//! `ostler status --json` finds.

use crate::support::load::all_served;
use crate::support::{Backend, Daemon, Mpm, at_once, ostler};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::process::Command;

fn by_the_page(daemon: &Daemon) -> Value {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut python = Command::new("python3");
    python
        .arg(format!("{root}/tests/reader/scoreboard.py"))
        .arg(format!("{root}/man/ostler-scoreboard.5"))
        .arg(daemon.home().path("scoreboard"));
    let run = crate::support::daemon::run(python);
    assert_eq!(run.code, Some(0), "{run:?}");
    serde_json::from_str(&run.stdout).expect("JSON")
}

fn by_ourselves(daemon: &Daemon) -> Value {
    let board = daemon.home().path("scoreboard");
    let run = ostler(&["status", "--json", "--scoreboard", &board.to_string_lossy()]);
    serde_json::from_str(&run.stdout).unwrap_or_else(|fault| panic!("{fault}: {run:?}"))
}

/// What both tell, in one form. What one of them does not know is a failure, not a null like the other's.
fn told(strange: &Value, ours: &Value) -> [Vec<(String, Value)>; 2] {
    let mut both = [Vec::new(), Vec::new()];
    let mut tell = |what: &str, strange: &Value, ours: &Value| {
        assert!(!strange.is_null(), "{what} of the page's reader");
        both[0].push((what.to_owned(), strange.clone()));
        both[1].push((what.to_owned(), ours.clone()));
    };
    let totals = &ours["totals"];
    tell("mpm", &strange["mpm"], &ours["server"]["mpm"]);
    tell("generation", &strange["generation"], &ours["server"]["generation"]);
    tell("requests", &strange["requests"], &totals["requests"]);
    tell("bytes_out", &strange["bytes_out"], &totals["bytes_out"]);
    tell("accepted", &strange["accepted"], &totals["accepted"]);
    tell("latencies", &strange["latencies"], &totals["latency"]["count"]);
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let ours_live: Vec<Value> =
        list(&ours["children"]).into_iter().filter(|child| child["ended_unix_us"].is_null()).collect();
    let theirs = list(&strange["children"]);
    tell("children", &theirs.len().into(), &ours_live.len().into());
    for (child, other) in theirs.iter().zip(&ours_live) {
        for name in ["slot", "pid", "generation", "busy"] {
            tell(name, &child[name], &other[name]);
        }
        tell("open", &child["open"], &other["connections"]["total"]);
        let (workers, others) = (list(&child["workers"]), list(&other["workers"]));
        tell("workers", &workers.len().into(), &others.len().into());
        for (worker, other) in workers.iter().zip(&others) {
            tell("state", &worker["state"], &other["state"]);
            tell("requests of a worker", &worker["requests"], &other["requests"]);
            if other["state"] == "W" {
                tell("request", &worker["request"], &other["request"]["line"]);
                tell("host", &worker["host"], &other["request"]["host"]);
                let client = format!(
                    "{}:{}",
                    other["request"]["client"].as_str().unwrap_or("?"),
                    other["request"]["client_port"]
                );
                tell("client", &worker["client"], &client.into());
                let row = |backend: &&Value| backend["row"] == other["backend"];
                let url = ours["backends"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .find(row)
                    .map(|found| found["url"].clone());
                tell("backend", &worker["backend"], &url.expect("a backend has a row"));
            }
        }
    }
    for backend in list(&ours["backends"]) {
        if let Some(url) = backend["url"].as_str() {
            tell(url, &strange["backends"][url], &backend["requests"]);
        }
    }
    both
}

under_each_mpm! {
    fn a_reader_that_is_built_from_the_page_finds_what_we_find(mpm) {
        let backend = Backend::start();
        let limits = if mpm.is_prefork() {
            "StartServers 4\nServerLimit 4\nMaxRequestWorkers 4\nMinSpareServers 1\nMaxSpareServers 4\n"
        } else {
            "StartServers 2\nServerLimit 2\nThreadsPerChild 2\nMaxRequestWorkers 4\nMinSpareThreads 1\nMaxSpareThreads 4\n"
        };
        let daemon = Daemon::under(mpm, &format!("{limits}ProxyPass / {}/", backend.url()));
        (0..20).for_each(|_| assert_eq!(daemon.get("/bytes/100").status, 200));
        // One of the children is gone and counted, another is in its place.
        let victim = daemon.children()[0];
        kill(Pid::from_raw(victim), Signal::SIGTERM).expect("it is the daemon's");
        crate::support::wait_until("another child in its place", || {
            let children = daemon.children();
            (!children.contains(&victim) && by_ourselves(&daemon)["workers"]["idle"] == 4).then_some(())
        });
        let address = daemon.address();
        let clients = at_once(3, move |_| crate::support::daemon::get(address, "/hold?what=this"));
        backend.wait_for_now(3);
        daemon.wait_for_status("three busy workers", |status| status.busy == 3);
        let [strange, ours] = told(&by_the_page(&daemon), &by_ourselves(&daemon));
        assert_eq!(strange, ours);
        let held = strange.iter().filter(|(what, value)| what == "request" && value == "GET /hold?what=this HTTP/1.1");
        assert_eq!(held.count(), 3, "{strange:?}");
        assert!(strange.contains(&("requests".to_owned(), 20.into())), "{strange:?}");
        backend.release();
        all_served(clients);
    }
}

#[test]
fn it_reads_what_a_server_that_was_killed_left_behind() {
    let backend = Backend::start();
    let mut daemon = Daemon::under(Mpm::Event, &format!("ProxyPass / {}/", backend.url()));
    (0..5).for_each(|_| assert_eq!(daemon.get("/bytes/1").status, 200));
    daemon.tolerate("master");
    kill(Pid::from_raw(daemon.master()), Signal::SIGKILL).expect("it is there");
    daemon.wait_for_end();
    assert_eq!(by_the_page(&daemon)["requests"], 5);
}
