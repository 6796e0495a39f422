//! How many children there are, what they are called, and what the death of one costs.

use crate::support::load::all_served;
use crate::support::{Backend, Client, Daemon, Home, Load, Mpm, at_once, holds_for, processes, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The numbers of the founding document's first configuration, or twenty servers under prefork.
struct Numbers {
    limits: &'static str,
    start: usize,
    most_children: usize,
    most_requests: usize,
    burst: usize,
    max_idle: u32,
    min_idle: u32,
}

fn numbers(mpm: Mpm) -> Numbers {
    if mpm.is_prefork() {
        Numbers {
            limits: "StartServers 2\nMaxRequestWorkers 20\nMinSpareServers 2\nMaxSpareServers 5\n",
            start: 2,
            most_children: 20,
            most_requests: 20,
            burst: 40,
            max_idle: 5,
            min_idle: 2,
        }
    } else {
        Numbers {
            limits: "StartServers 2\nMaxClients 150\nMinSpareThreads 25\nMaxSpareThreads 75\nThreadsPerChild 25\n",
            start: 2,
            most_children: 6,
            most_requests: 150,
            burst: 200,
            max_idle: 75,
            min_idle: 25,
        }
    }
}

/// Spare limits with which three children with the usual threads are neither too few nor too many.
fn at_rest(mpm: Mpm) -> &'static str {
    if mpm == Mpm::Prefork { "MinSpareServers 1\nMaxSpareServers 5\n" } else { "" }
}

under_each_mpm! {
    fn children_follow_the_load_up_and_down(mpm) {
        let Numbers { limits, start, most_children, most_requests, burst, max_idle, min_idle } = numbers(mpm);
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("{limits}ProxyPass / {}/", backend.url()));
        daemon.tolerate("MaxRequestWorkers");
        assert_eq!(daemon.children().len(), start);
        let address = daemon.address();
        let clients = at_once(burst, move |_| crate::support::daemon::get(address, "/hold"));
        // The origin holds every request, so the children must grow to the last, and the rest must wait.
        backend.wait_for_now(most_requests);
        assert_eq!(daemon.wait_for_children(most_children).len(), most_children);
        let full = u32::try_from(most_requests).expect("small");
        let status = daemon.wait_for_status("every worker busy", |status| status.busy == full);
        assert_eq!(status.idle, 0, "{}", status.text);
        daemon.wait_for_log(&format!("MaxRequestWorkers {most_requests} reached"));
        holds_for("MaxRequestWorkers is the most that is under way", Duration::from_millis(500), || {
            backend.now() == most_requests && daemon.children().len() == most_children
        });
        backend.release();
        all_served(clients);
        assert_eq!((backend.requests(), backend.most()), (burst as u64, most_requests));
        let in_band = |idle: u32| (min_idle..=max_idle).contains(&idle);
        let status = daemon.wait_for_status("spare children gone", |status| status.busy == 0 && in_band(status.idle));
        let threads = if mpm.is_prefork() { 1 } else { 25 };
        daemon.wait_for_children(status.idle as usize / threads);
        assert_eq!(daemon.get("/after").status, 200);
    }

    fn a_rush_of_requests_that_take_two_seconds_is_served_whole(mpm) {
        let Numbers { limits, most_children, most_requests, burst, .. } = numbers(mpm);
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("{limits}ProxyPass / {}/", backend.url()));
        daemon.tolerate("MaxRequestWorkers");
        let address = daemon.address();
        let clients = at_once(burst, move |_| crate::support::daemon::get(address, "/delay/2000"));
        daemon.wait_for_children(most_children);
        all_served(clients);
        assert!(backend.most() <= most_requests, "{} at once", backend.most());
    }

    fn titles_tell_master_and_children_apart(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("StartServers 3\n{}ProxyPass / {}/", at_rest(mpm), backend.url()));
        let master = processes::title(daemon.master());
        assert!(master.contains("ostler") && master.contains("master"), "{master}");
        let titles: BTreeSet<String> = daemon.wait_for_children(3).into_iter().map(processes::title).collect();
        assert_eq!(titles.len(), 3, "each has a slot of its own: {titles:?}");
        for title in titles {
            assert!(title.contains("ostler") && !title.contains("master"), "{title}");
            assert!(title.contains("slot") && title.contains("generation 1"), "{title}");
        }
    }

    fn a_child_killed_by_any_signal_is_replaced(mpm) {
        let backend = Backend::start();
        let daemon =
            Daemon::under(mpm, &format!("StartServers 3\n{}ProxyPass / {}/", at_rest(mpm), backend.url()));
        daemon.tolerate("child");
        // The second is a real-time signal, which has a number and no name.
        for (number, name) in [(9, "SIGKILL"), (34, "signal 34")] {
            let before = daemon.wait_for_children(3);
            let victim = before[0];
            let kill = format!("kill -{number} {victim}");
            let sent = std::process::Command::new("/bin/sh").args(["-c", &kill]).status();
            assert!(sent.expect("there is a shell").success());
            let line = daemon.wait_for_log(&format!("killed by {name}"));
            assert!(line.contains(&format!("child {victim} ")), "{line}");
            let after = daemon.wait_for_children(3);
            assert!(!after.contains(&victim) && before[1..].iter().all(|pid| after.contains(pid)));
            assert_eq!(daemon.get("/").status, 200);
        }
        assert!(!daemon.log().contains("cannot wait for children"));
    }

    fn a_killed_child_takes_what_it_held_and_no_more(mpm) {
        let backend = Backend::start();
        let limits = if mpm.is_prefork() {
            "StartServers 4\nMinSpareServers 2\nMaxSpareServers 8\nMaxRequestWorkers 8\n"
        } else {
            "StartServers 2\nThreadsPerChild 10\nMaxRequestWorkers 40\nMinSpareThreads 10\nMaxSpareThreads 40\n"
        };
        let daemon = Daemon::under(mpm, &format!("{limits}ExtendedStatus On\nProxyPass / {}/", backend.url()));
        daemon.tolerate("child");
        let mut victim = daemon.connect();
        victim.send("GET /hold/the-victim HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        let pid = daemon.child_of(&victim);
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there");
        assert!(victim.answer("GET").is_err(), "the request died with its child");
        let line = daemon.wait_for_line("who died and how", |line| {
            line.contains(&format!("child {pid} ")) && line.contains("SIGKILL")
        });
        assert!(line.contains("slot ") && line.contains("generation 1"), "{line}");
        let is_its_request = |line: &str| line.contains("/hold/the-victim") && !line.contains(":debug]");
        daemon.wait_for_line("which request it held", is_its_request);
        // The pool heals: as many children as before, none of them the dead one, and requests are served.
        wait_until("a new child", || {
            let children = daemon.children();
            (children.len() >= if mpm.is_prefork() { 4 } else { 2 } && !children.contains(&pid)).then_some(())
        });
        backend.release();
        for _ in 0..20 {
            assert_eq!(daemon.get("/").status, 200);
        }
    }
}

#[test]
fn new_connections_spread_evenly_over_idle_children() {
    for mpm in [Mpm::Event, Mpm::Worker] {
        let backend = Backend::start();
        let daemon = Daemon::under(
            mpm,
            &format!(
                "StartServers 4\nThreadsPerChild 25\nMaxRequestWorkers 100\nMinSpareThreads 25\nMaxSpareThreads 100\n\
                 KeepAliveTimeout 600\nMaxKeepAliveRequests 0\nProxyPass / {}/",
                backend.url()
            ),
        );
        let mut clients = Vec::new();
        let children = daemon.children();
        for _ in 0..64 {
            // Idle children is what this is about: one that has not come back to its poll is none.
            crate::support::wait_until("all children in their polls", || {
                children.iter().all(|child| processes::waits_in_its_poll(*child)).then_some(())
            });
            let mut client = daemon.connect();
            assert_eq!(client.get("/").expect("an answer").status, 200);
            clients.push(client);
        }
        let spread = daemon.connections();
        assert_eq!(spread.iter().sum::<usize>(), 64, "{mpm:?}: {spread:?}");
        assert!(
            spread.len() == 4 && spread.iter().all(|count| (12..=20).contains(count)),
            "{mpm:?}: {spread:?}"
        );
    }
}

/// Plays steady load against a recycling directive and sees children come and go.
fn recycles(mpm: Mpm, directive: &str, seconds: u64) {
    let backend = Backend::start();
    let (begin, limits) = if mpm.is_prefork() {
        (8, "StartServers 8\nMinSpareServers 4\nMaxSpareServers 12\nMaxRequestWorkers 24\n")
    } else {
        (
            4,
            "StartServers 4\nThreadsPerChild 8\nMaxRequestWorkers 64\nMinSpareThreads 16\nMaxSpareThreads 40\n",
        )
    };
    let text = format!(
        "{limits}{directive}\nKeepAliveTimeout 15\nMaxKeepAliveRequests 0\nProxyPass / {}/",
        backend.url()
    );
    let daemon = Daemon::under(mpm, &text);
    let load = Load::start(daemon.address(), 8, "/", Duration::from_millis(4));
    let (start, mut ever, mut last) = (Instant::now(), BTreeSet::new(), BTreeSet::new());
    while start.elapsed() < Duration::from_secs(seconds) {
        let look = || daemon.children().into_iter().collect::<BTreeSet<_>>();
        // A list that is read while one of it ends may lack its neighbour, says proc(5).
        last = Some(look()).filter(|seen| seen.len() >= begin).unwrap_or_else(look);
        // Nobody has too much to do, so nobody leaves but for an heir who serves already.
        assert!(last.len() >= begin, "a child left before its heir was there: {last:?}");
        // A tenth of the children at a time, and one at least. Under prefork there are spare ones as well.
        assert!(
            mpm.is_prefork() || last.len() <= begin + 1,
            "more than one child is replaced at a time: {last:?}"
        );
        ever.extend(last.iter().copied());
        std::thread::sleep(Duration::from_millis(20));
    }
    let outcome = load.finish();
    assert!(outcome.failures.is_empty(), "{} failed: {:?}", outcome.failures.len(), outcome.failures[0]);
    assert!(outcome.served > 400, "only {} requests in {seconds} s", outcome.served);
    assert_eq!(backend.requests(), outcome.served, "no request was sent twice or lost");
    // A child ends with its budget, give or take the jitter and what runs while its heir gets ready.
    let ended = (ever.len() - last.len()) as u64;
    let budgets = outcome.served / 200;
    assert!(ended >= budgets / 4 && ended >= 1, "{ended} children replaced in {} requests", outcome.served);
}

under_each_mpm! {
    fn children_are_replaced_after_so_many_requests_and_none_is_lost(mpm) {
        recycles(mpm, "MaxRequestsPerChild 200", 6);
    }
}

#[test]
fn children_are_replaced_after_so_many_connections() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!(
        "StartServers 2\nThreadsPerChild 10\nMaxRequestWorkers 40\nMinSpareThreads 10\nMaxSpareThreads 40\n\
         MaxConnectionsPerChild 50\nProxyPass / {}/",
        backend.url()
    ));
    let first = daemon.children();
    for round in 0..200 {
        assert_eq!(daemon.get("/").status, 200, "connection {round}");
    }
    wait_until("both first children gone", || {
        let children = daemon.children();
        (!children.is_empty() && first.iter().all(|pid| !children.contains(pid))).then_some(())
    });
    assert_eq!(daemon.get("/after").status, 200);
}

#[test]
fn kill_9_under_load_costs_prefork_at_most_the_one_request() {
    let backend = Backend::start();
    let daemon = Daemon::under(
        Mpm::Prefork,
        &format!(
            "StartServers 10\nMinSpareServers 2\nMaxSpareServers 12\nMaxRequestWorkers 24\nKeepAliveTimeout 30\n\
             MaxKeepAliveRequests 0\nProxyPass / {}/",
            backend.url()
        ),
    );
    daemon.tolerate("child");
    let load = Load::start(daemon.address(), 8, "/", Duration::from_millis(2));
    wait_until("the load under way", || (backend.requests() > 200).then_some(()));
    for round in 1..=3_u32 {
        let before = daemon.children();
        // One that serves: a client's connection is its.
        let serving = processes::connections(&before, daemon.address());
        let busy = serving.into_iter().find(|(_, count)| *count > 0).map(|(pid, _)| pid);
        let victim = busy.expect("eight clients are served by somebody");
        kill(Pid::from_raw(victim), Signal::SIGKILL).expect("it is there");
        daemon.wait_for_line("who died", |line| {
            line.contains(&format!("child {victim} ")) && line.contains("SIGKILL")
        });
        let so_far = backend.requests();
        wait_until("the load goes on", || (backend.requests() > so_far + 200).then_some(()));
        assert!(daemon.children().len() >= 8, "round {round}: the pool heals");
    }
    let outcome = load.finish();
    assert!(outcome.failures.len() <= 3, "one each at most: {:?}", outcome.failures);
}

#[test]
fn threads_of_one_child_share_its_memory() {
    // Forty requests at once: one child under worker, forty under prefork, and far less memory for the one.
    let mut memory = Vec::new();
    for (mpm, limits) in [
        (Mpm::Worker, "StartServers 1\nThreadsPerChild 40\nMaxRequestWorkers 40\nMinSpareThreads 1\n"),
        (Mpm::Prefork, "StartServers 40\nMaxRequestWorkers 40\nMinSpareServers 1\nMaxSpareServers 40\n"),
    ] {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("{limits}ProxyPass / {}/", backend.url()));
        let address = daemon.address();
        let clients = at_once(40, move |_| crate::support::daemon::get(address, "/hold"));
        backend.wait_for_now(40);
        let private = |pid: &i32| processes::private_kib(*pid).unwrap_or(0);
        memory.push(daemon.children().iter().map(private).sum::<u64>());
        backend.release();
        all_served(clients);
    }
    assert!(memory[0] * 3 < memory[1], "worker {} KiB, prefork {} KiB", memory[0], memory[1]);
}

#[test]
fn a_connection_waits_in_the_backlog_until_a_worker_is_free() {
    for mpm in [Mpm::Worker, Mpm::Prefork] {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", mpm.one_child(), backend.url()));
        daemon.tolerate("MaxRequestWorkers");
        let workers = if mpm.is_prefork() { 1 } else { 25 };
        let address = daemon.address();
        let busy = at_once(workers, move |_| crate::support::daemon::get(address, "/hold"));
        backend.wait_for_now(workers);
        let mut waiting = Client::connect(address);
        waiting.send("GET /waits HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        holds_for("nobody takes it", Duration::from_millis(300), || backend.asked_for("/waits") == 0);
        backend.release();
        assert_eq!(waiting.answer("GET").expect("an answer").status, 200, "{mpm:?}");
        all_served(busy);
    }
}

/// Of two listeners: a child that was woken for a client at one of them finds, by the time that it runs, another's at the
/// other, for whom a sibling has been woken. It takes the one that only itself knows of.
#[test]
fn clients_who_come_at_two_listeners_at_once_are_both_served() {
    for mpm in [Mpm::Prefork, Mpm::Worker] {
        let limits =
            if mpm.is_prefork() { "MinSpareServers 1" } else { "ThreadsPerChild 1\nMinSpareThreads 1" };
        // On one core nobody runs before both have come.
        processes::on_one_core(|| {
            let backend = Backend::start();
            // Nor does whoever is woken take the core from whoever woke it.
            let mut command = Command::new("chrt");
            command.args(["--batch", "0", env!("CARGO_BIN_EXE_ostler")]).stdin(Stdio::null());
            let daemon = Daemon::by(
                command,
                Home::new(),
                &format!(
                    "MPM {}\nListen 127.0.0.1:0\nListen 127.0.0.2:0\nStartServers 2\nServerLimit 2\nMaxRequestWorkers 2\n\
                 {limits}\nKeepAliveTimeout 60\nProxyPass / {}/",
                    mpm.name(),
                    backend.url()
                ),
            );
            daemon.tolerate("MaxRequestWorkers");
            let children = daemon.wait_for_children(2);
            for round in 0..20 {
                // Both wait in the kernel for a client.
                wait_until("both children to rest", || {
                    let wait = children.iter().all(|child| processes::waits_in_its_poll(*child));
                    (wait && daemon.status().busy == 0).then_some(())
                });
                let mut clients = [0, 1].map(|place| Client::connect(daemon.addresses()[place]));
                for (place, client) in clients.iter_mut().enumerate() {
                    let answer = client.get("/").unwrap_or_else(|why| {
                    panic!("{mpm:?}, round {round}: the client at listener {place} waits beside an idle child: {why:?}")
                });
                    assert_eq!(answer.status, 200);
                }
            }
        });
    }
}
