//! What goes wrong stays small: a machine that has no more to give, children that hang, a scoreboard that lies.
//!
//! Each want is told once when it begins and once when it is over, and costs no loop.

use crate::hot_path::{calls, no_strace, skip};
use crate::support::load::all_served;
use crate::support::processes::{self, limit, send};
use crate::support::{Backend, Client, Daemon, Home, Load, Mpm, at_once, holds_for, is_root, wait_until};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Threads of the daemon, its master's one included.
fn threads(daemon: &Daemon) -> u64 {
    let pids = daemon.children().into_iter().chain([daemon.master()]);
    pids.filter_map(|pid| processes::figure(pid, "Threads")).sum()
}

/// The daemon's line about `words` is there, and there is only one.
#[track_caller]
fn told_once(daemon: &Daemon, words: &str) {
    daemon.wait_for_log(words);
    let lines = daemon.lines_with(words);
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

/// Three workers to begin with and nine at most, whatever the driver.
fn three_to_nine(mpm: Mpm) -> &'static str {
    if mpm.is_prefork() {
        "StartServers 3\nMaxRequestWorkers 9\nMinSpareServers 1\nMaxSpareServers 9\n"
    } else {
        "StartServers 1\nThreadsPerChild 3\nMaxRequestWorkers 9\nMinSpareThreads 1\nMaxSpareThreads 9\n"
    }
}

under_each_mpm! {
    fn a_want_of_processes_is_told_once_each_way_and_ends_by_itself(mpm) {
        if !is_root() {
            eprintln!("a limit of processes counts those of a user; only root can be another one");
            return;
        }
        let backend = Backend::start();
        let daemon = Daemon::as_somebody(
            mpm,
            &format!("LogLevel debug\n{}ProxyPass / {}/", three_to_nine(mpm), backend.url()),
        );
        daemon.tolerate("cannot fork a child");
        let children = daemon.children();
        limit(daemon.master(), "nproc", threads(&daemon));
        let address = daemon.address();
        // More than there are workers: one may be accepted by a child that has just become full.
        let clients = at_once(14, move |_| crate::support::daemon::get(address, "/hold"));
        backend.wait_for_now(3);
        told_once(&daemon, "cannot fork a child: Resource temporarily unavailable; trying on");
        // At 0.1, 0.3, 0.7, 1.5 and 3.1 s after the first.
        let before = processes::ticks(daemon.master());
        holds_for("few attempts", Duration::from_secs(2), || daemon.lines_with("next try in ").len() <= 5);
        let used = processes::ticks(daemon.master()) - before;
        assert!(used < 20, "{used} ticks of two seconds");
        assert_eq!(daemon.children(), children, "nobody new, and nobody gone");
        limit(daemon.master(), "nproc", 10_000);
        backend.wait_for_now(9);
        told_once(&daemon, "children can be forked again, after ");
        told_once(&daemon, "; trying on");
        backend.release();
        all_served(clients);
    }

    fn a_want_of_descriptors_in_the_master_ends_by_itself(mpm) {
        let backend = Backend::start();
        let limits = if mpm.is_prefork() {
            "StartServers 4\nMinSpareServers 2\nMaxSpareServers 8\n"
        } else {
            "StartServers 2\nThreadsPerChild 5\nMaxRequestWorkers 20\nMinSpareThreads 1\nMaxSpareThreads 20\n"
        };
        let text = format!("MPM {}\nLogLevel debug\n{limits}ProxyPass / {}/", mpm.name(), backend.url());
        let daemon = Daemon::at(Home::new(), &text);
        for words in ["child", "reload refused", "Too many open files"] {
            daemon.tolerate(words);
        }
        let children = daemon.children();
        // Every number below this one is taken.
        let taken = |number: &u64| std::path::Path::new(&format!("/proc/{}/fd/{number}", daemon.master())).exists();
        let free = (0..).find(|number| !taken(number)).expect("there is an end");
        limit(daemon.master(), "nofile", free);
        send(children[0], Signal::SIGKILL);
        told_once(&daemon, "cannot fork a child: Too many open files; trying on");
        for _ in 0..10 {
            assert_eq!(daemon.get("/").status, 200);
        }
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("reload refused, still serving generation 1");
        assert_eq!(daemon.get("/").status, 200);
        daemon.assert_alive(&children[1..]);
        limit(daemon.master(), "nofile", 20_000);
        told_once(&daemon, "children can be forked again, after ");
        told_once(&daemon, "; trying on");
        daemon.wait_for_children(children.len());
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("] serving generation 2");
        assert_eq!(daemon.get("/").status, 200);
    }

    fn a_stopped_child_is_found_by_its_silence_and_replaced(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(
            mpm,
            &format!("ChildStallTimeout 4\nExtendedStatus On\nProxyPass / {}/", backend.url()),
        );
        daemon.tolerate("child");
        let mut held = daemon.ask("/hold/the-stopped");
        backend.wait_for_now(1);
        let pid = daemon.child_of(&held);
        send(pid, Signal::SIGSTOP);
        let late = daemon.wait_for_log("has not answered for");
        assert!(late.contains(&format!("child {pid} ")) && late.contains("ChildStallTimeout"), "{late}");
        let line = daemon.wait_for_log("no answer for 4 s; killed and replaced; it held 1 request: ");
        assert!(line.contains(&format!("child {pid} ")) && line.contains("/hold/the-stopped"), "{line}");
        assert!(held.answer("GET").is_err(), "its request died with it");
        backend.release();
        told_once(&daemon, "has not answered for");
        told_once(&daemon, "no answer for");
        wait_until("another in its place", || {
            let children = daemon.children();
            (!children.contains(&pid) && !children.is_empty()).then_some(())
        });
        for _ in 0..20 {
            assert_eq!(daemon.get("/").status, 200);
        }
    }

    fn a_child_that_goes_on_in_time_is_not_killed(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ChildStallTimeout 12\nProxyPass / {}/", backend.url()));
        let mut held = daemon.ask("/hold");
        backend.wait_for_now(1);
        let children = daemon.children();
        let pid = daemon.child_of(&held);
        send(pid, Signal::SIGSTOP);
        told_once(&daemon, "has not answered for 5 s; killed if it does not within 12 s");
        // What was sent to others is served meanwhile.
        assert_eq!(daemon.get("/meanwhile").status, 200);
        send(pid, Signal::SIGCONT);
        let line = daemon.wait_for_log("answers again, after ");
        assert!(line.contains(&format!("child {pid} ")), "{line}");
        backend.release();
        assert_eq!(held.answer("GET").expect("an answer").status, 200);
        daemon.assert_alive(&children);
        told_once(&daemon, "has not answered for");
        told_once(&daemon, "answers again, after ");
    }

    fn a_stopped_master_holds_nothing_against_its_children(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ChildStallTimeout 3\nProxyPass / {}/", backend.url()));
        let mut held = daemon.ask("/hold");
        backend.wait_for_now(1);
        let children = daemon.children();
        // The master alone, then all of them, as when a container is paused: each time for longer than the time-out.
        let group = [vec![daemon.master()], children.clone()].concat();
        for stopped in [&group[..1], &group[..]] {
            stopped.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
            std::thread::sleep(Duration::from_millis(4_500));
            stopped.iter().for_each(|pid| send(*pid, Signal::SIGCONT));
            holds_for("nobody is killed", Duration::from_millis(2_500), || {
                daemon.children().iter().filter(|pid| children.contains(pid)).count() == children.len()
            });
        }
        backend.release();
        assert_eq!(held.answer("GET").expect("an answer").status, 200);
        assert!(daemon.lines_with("killed").iter().all(|line| line.contains("killed if")), "{}", daemon.log());
    }

    fn a_kept_alive_client_has_the_time_that_it_was_promised(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("KeepAliveTimeout 12\nProxyPass / {}/", backend.url()));
        let mut kept = daemon.connect();
        assert!(!kept.get("/").expect("an answer").closes());
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("] serving generation 2");
        std::thread::sleep(Duration::from_secs(7));
        assert_eq!(kept.get("/late").expect("not closed before its time").status, 200);
    }

    fn logs_are_rotated_without_losing_or_splitting_a_line(mpm) {
        const TURNS: usize = 12;
        let backend = Backend::start();
        let home = Home::new();
        let access = home.path("access.log");
        let errors = home.path("error.log");
        // The error log gets a line for each request, too: the origin is not there.
        let text = format!(
            "MPM {}\n{}CustomLog {} \"begin %r %>s end\"\nProxyPass /nobody http://127.0.0.1:9/\nProxyPass / {}/",
            mpm.name(),
            three_to_nine(mpm),
            access.display(),
            backend.url(),
        );
        let daemon = Daemon::at(home, &text);
        daemon.tolerate("127.0.0.1:9");
        let load = Load::start(daemon.address(), 6, "/bytes/1000", Duration::from_millis(1));
        let mut refused = 0;
        for turn in 0..TURNS {
            assert_eq!(daemon.get("/nobody/x").status, 503);
            refused += 1;
            std::fs::rename(&access, access.with_extension(turn.to_string())).expect("it is there");
            std::fs::rename(&errors, errors.with_extension(turn.to_string())).expect("it is there");
            daemon.signal(if turn % 2 == 0 { Signal::SIGUSR1 } else { Signal::SIGHUP });
            daemon.wait_for_log("] serving generation ");
            wait_until("the new log", || access.exists().then_some(()));
        }
        let outcome = load.finish();
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
        let texts = |log: &std::path::Path| -> String {
            let names = (0..TURNS).map(|turn| log.with_extension(turn.to_string())).chain([log.to_owned()]);
            names.map(|name| std::fs::read_to_string(name).expect("text")).collect()
        };
        let served = outcome.served;
        let count = |status: &str| texts(&access).lines().filter(|line| line.ends_with(status)).count() as u64;
        wait_until("every line", || (count(" 200 end") >= served).then_some(()));
        let whole = texts(&access).lines().filter(|line| line.starts_with("begin GET /")).count() as u64;
        assert_eq!((count(" 200 end"), count(" 503 end")), (served, refused), "whole lines, all lines");
        assert_eq!((whole, texts(&access).lines().count() as u64), (served + refused, served + refused));
        let pattern = regex::Regex::new(r"^\[[^\]]+ \d{4}\] \[\w+:\w+\] \[pid \d+[^\]]*\] .+$").expect("literal");
        for line in texts(&errors).lines() {
            assert!(pattern.is_match(line), "not a whole line: {line:?}");
        }
        let faults = texts(&errors).lines().filter(|line| line.contains("127.0.0.1:9")).count() as u64;
        assert!(faults >= 1, "the error log tells of the backend");
    }
}

#[test]
fn a_child_with_fewer_threads_serves_with_them_and_gets_the_others_later() {
    if !is_root() {
        eprintln!("a limit of processes counts those of a user; only root can be another one");
        return;
    }
    for mpm in [Mpm::Event, Mpm::Worker] {
        let backend = Backend::start();
        let daemon = Daemon::as_somebody(
            mpm,
            &format!(
                "StartServers 1\nServerLimit 1\nThreadsPerChild 10\nMaxRequestWorkers 10\nMinSpareThreads 1\n\
                 ProxyPass / {}/",
                backend.url()
            ),
        );
        daemon.tolerate("child");
        let [first] = daemon.children()[..] else { panic!("one child") };
        // The master, the child's steward, and seven.
        limit(daemon.master(), "nproc", 9);
        send(first, Signal::SIGKILL);
        told_once(&daemon, "only 7 of 10 threads could be made: Resource temporarily unavailable");
        let [second] = daemon.wait_for_children(1)[..] else { panic!("one child") };
        // Under worker a thread serves a connection; under event seven move ten.
        let most = if mpm == Mpm::Worker { 7 } else { 10 };
        let address = daemon.address();
        let clients = at_once(10, move |_| crate::support::daemon::get(address, "/hold"));
        backend.wait_for_now(most);
        let status = daemon.wait_for_status("no worker idle", |status| status.idle == 0);
        if mpm == Mpm::Worker {
            // Three rows are dead, and are shown so.
            assert!(status.text.contains("WWWWWWW..."), "{}", status.text);
        }
        holds_for("no more than that", Duration::from_millis(300), || backend.now() == most);
        limit(second, "nproc", 10_000);
        told_once(&daemon, "all 10 threads are there now");
        assert_eq!(processes::figure(second, "Threads"), Some(11));
        backend.wait_for_now(10);
        backend.release();
        all_served(clients);
        daemon.assert_alive(&[second]);
        daemon.wait_for_status("all idle", |status| (status.busy, status.idle) == (0, 10));
    }
}

#[test]
fn children_without_memory_for_a_thread_are_a_want_and_no_crash() {
    for mpm in [Mpm::Event, Mpm::Worker] {
        let backend = Backend::start();
        let text = format!(
            "LogLevel debug\nStartServers 2\nThreadsPerChild 2\nMaxRequestWorkers 4\nMinSpareThreads 1\n\
             MaxSpareThreads 4\nThreadStackSize 1073741824\nProxyPass / {}/",
            backend.url()
        );
        let daemon = Daemon::under(mpm, &text);
        daemon.tolerate("child");
        let [first, other] = daemon.children()[..] else { panic!("two children") };
        let size = processes::figure(daemon.master(), "VmSize").expect("it runs") << 10;
        limit(daemon.master(), "as", size + (512 << 20));
        send(first, Signal::SIGKILL);
        let line =
            daemon.wait_for_log("gave up: the machine is short of something, its own line says of what");
        assert!(line.contains("; trying on, 1 ready meanwhile"), "{line}");
        daemon.wait_for_line("further attempts at debug", |line| {
            line.contains("gave up: the machine is short") && line.contains(":debug]")
        });
        assert_eq!(daemon.get("/").status, 200);
        holds_for("attempts become rare", Duration::from_secs(2), || {
            daemon.lines_with("gave up: ").len() <= 7
        });
        let serious: Vec<String> =
            daemon.lines_with(":error]").into_iter().filter(|line| !line.contains("SIGKILL")).collect();
        assert_eq!(serious.len(), 2, "the child's word and the master's, once: {serious:#?}");
        daemon.assert_alive(&[other]);
        limit(daemon.master(), "as", 1 << 46);
        daemon.wait_for_children(2);
        told_once(&daemon, "children can start again, after ");
        assert_eq!(daemon.get("/").status, 200);
    }
}

/// As many descriptors are watched as one user may (fs.epoll.max_user_watches), which is nobody's fault who can be asked.
#[test]
fn without_room_for_another_watch_a_request_fails_and_its_backend_is_not_left_alone() {
    if let Some(why) = no_strace() {
        return skip(&why);
    }
    let backend = Backend::start();
    let text =
        format!("{}KeepAliveTimeout 60\nProxyPass / {}/ retry=600", Mpm::Event.one_child(), backend.url());
    let daemon = Daemon::start(&text);
    daemon.tolerate("No space left on device");
    let mut client = daemon.connect();
    assert_eq!(client.ask("TRACE / HTTP/1.1\r\nHost: test\r\n\r\n").expect("an answer").status, 405);
    let options = ["-e", "trace=epoll_ctl", "-e", "inject=epoll_ctl:error=ENOSPC"];
    let mut status = 0;
    let seen = calls(daemon.child_of(&client), &daemon.home().path(""), &options, || {
        status = client.get("/").expect("an answer").status;
    });
    match seen {
        Err(why) => skip(&why),
        Ok(seen) => {
            assert_eq!((status, backend.requests()), (503, 0), "{}", seen.join("\n"));
            assert_eq!(client.get("/").expect("an answer").status, 200, "{}", daemon.log());
        }
    }
}

/// Each client that is accepted then is lost, so that others are better left where they wait.
#[test]
fn who_cannot_watch_a_newcomer_stops_listening_for_a_while() {
    if let Some(why) = no_strace() {
        return skip(&why);
    }
    let backend = Backend::start();
    let limits = "StartServers 1\nServerLimit 1\nThreadsPerChild 1\nMaxRequestWorkers 1\nMinSpareThreads 1\n";
    let daemon = Daemon::start(&format!("{limits}ProxyPass / {}/", backend.url()));
    daemon.tolerate("No space left on device");
    let [child] = daemon.children()[..] else { panic!("one child") };
    // Of each thread the first call fails, and one thread serves.
    let options = ["-e", "trace=epoll_ctl", "-e", "inject=epoll_ctl:error=ENOSPC:when=1"];
    let seen = calls(child, &daemon.home().path(""), &options, || {
        assert!(daemon.connect().get("/lost").is_err(), "nobody watches it");
        assert_eq!(daemon.get("/waits").status, 200);
    });
    match seen {
        Err(why) => skip(&why),
        Ok(seen) => assert!(seen.iter().any(|call| call.contains("EPOLL_CTL_DEL")), "{}", seen.join("\n")),
    }
    assert_eq!(daemon.log().matches("cannot watch a connection").count(), 1, "{}", daemon.log());
}

#[test]
fn threads_that_are_all_stuck_are_found_although_their_steward_answers() {
    for mpm in [Mpm::Event, Mpm::Worker] {
        let backend = Backend::start();
        let home = Home::new();
        let log = home.path("access.fifo");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("the test's own directory");
        // Somebody has it open for reading, and does not read: a pipe that is full holds up whoever writes.
        let mut reader = std::fs::OpenOptions::new().read(true).write(true).open(&log).expect("it is there");
        let text = format!(
            "MPM {}\nStartServers 1\nServerLimit 1\nThreadsPerChild 3\nMaxRequestWorkers 3\nMinSpareThreads 1\n\
             ChildStallTimeout 3\nExtendedStatus On\nCustomLog {} \"%{{x}}i\"\nProxyPass / {}/",
            mpm.name(),
            log.display(),
            backend.url()
        );
        let daemon = Daemon::at(home, &text);
        daemon.tolerate("child");
        daemon.tolerate("cannot write the access log");
        let [first] = daemon.children()[..] else { panic!("one child") };
        let address = daemon.address();
        // 64 KiB of pipe, 4 KiB a line: from the 17th on nobody comes back from the log.
        let long = "x".repeat(4_000);
        let flood = at_once(24, move |_| {
            let mut client = Client::try_connect(address)?;
            client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nx: {long}\r\nConnection: close\r\n\r\n"));
            client.answer("GET")
        });
        let line = daemon.wait_for_log("its threads have made no progress for ");
        assert!(line.contains(&format!("child {first} ")) && line.contains("killed and replaced"), "{line}");
        // The log flows again, until a line that says to stop: so does everything else.
        let drain = std::thread::spawn(move || {
            use std::io::Read;
            let mut seen = [0; 64 * 1024];
            while reader.read(&mut seen).is_ok_and(|count| !seen[..count].ends_with(b"stop\n")) {}
        });
        for client in flood {
            let _ = client.join().expect("a client never panics");
        }
        wait_until("an answer", || {
            (daemon.try_get("/after").is_ok_and(|answer| answer.status == 200)).then_some(())
        });
        let mut last = daemon.connect();
        last.send("GET / HTTP/1.1\r\nHost: test\r\nx: stop\r\n\r\n");
        assert_eq!(last.answer("GET").expect("an answer").status, 200);
        drain.join().expect("it reads");
    }
}

#[test]
fn work_after_a_long_rest_is_no_stall() {
    // The steward of an idle child sleeps; the ping that wakes it must not find the last minute held against it.
    let backend = Backend::start();
    let daemon = Daemon::start(&format!(
        "{}ChildStallTimeout 1\nProxyPass / {}/",
        Mpm::Event.one_child(),
        backend.url()
    ));
    let children = daemon.children();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        assert_eq!(daemon.get("/bytes/100000").status, 200);
        // Longer than the time-out, and not in step with it.
        std::thread::sleep(Duration::from_millis(2_130));
    }
    daemon.assert_alive(&children);
}

/// An origin that makes a tunnel of every request for `/ws` and holds it.
fn tunnels() -> Backend {
    Backend::with(|exchange| {
        if exchange.segments().first().is_some_and(|word| word == "ws") {
            exchange.raw(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )?;
            exchange.hold();
            exchange.close();
            return Ok(());
        }
        crate::support::backend::by_path(exchange)
    })
}

/// A client that has made a tunnel of its connection.
#[track_caller]
fn tunnel(daemon: &Daemon) -> Client {
    let mut tunnel = daemon.connect();
    tunnel.send(
        "GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        use std::io::Read;
        let mut byte = [0];
        tunnel.stream().read_exact(&mut byte).expect("the head of the 101");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    tunnel
}

#[test]
fn recycled_children_with_tunnels_leave_room_for_others_and_for_a_reload() {
    for mpm in [Mpm::Event, Mpm::Worker] {
        for (servers, most) in [(1, 3), (2, 5)] {
            let backend = tunnels();
            let text = format!(
                "StartServers 1\nServerLimit {servers}\nThreadsPerChild 4\nMaxRequestWorkers {}\nMinSpareThreads 1\n\
                 MaxSpareThreads 8\nMaxRequestsPerChild 5\nProxyPass / {}/",
                servers * 4,
                backend.url()
            );
            let daemon = Daemon::under(mpm, &text);
            let mut held = Vec::new();
            for _ in 0..servers {
                held.push(tunnel(&daemon));
                let before = daemon.children();
                // More than any child may have, and then some.
                for _ in 0..40 {
                    assert_eq!(daemon.get("/").status, 200);
                    if daemon.children() != before {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            let address = daemon.address();
            let clients = at_once(most, move |_| crate::support::daemon::get(address, "/hold"));
            backend.wait_for_now(most);
            daemon.signal(Signal::SIGHUP);
            daemon.wait_for_log("] serving generation 2");
            assert_eq!(daemon.get("/").status, 200);
            backend.release();
            all_served(clients);
        }
    }
}

under_each_mpm! {
    fn a_tunnel_does_not_hold_up_the_recycling_of_others(mpm) {
        let backend = tunnels();
        let limits = if mpm.is_prefork() {
            "StartServers 2\nMaxRequestWorkers 8\nMinSpareServers 1\nMaxSpareServers 8\n"
        } else {
            "StartServers 2\nThreadsPerChild 4\nMaxRequestWorkers 32\nMinSpareThreads 1\nMaxSpareThreads 32\n"
        };
        let daemon =
            Daemon::under(mpm, &format!("{limits}MaxRequestsPerChild 20\nProxyPass / {}/", backend.url()));
        let mut tunnel = tunnel(&daemon);
        let holder = daemon.child_of(&tunnel);
        // Enough that its holder is used up, and then some of the others: all but the holder are new in the end.
        // (Under prefork the holder has one request only, and the others come and go beside it.)
        let mut ever = std::collections::BTreeSet::new();
        wait_until("five more children", || {
            assert_eq!(daemon.get("/").status, 200);
            ever.extend(daemon.children());
            (ever.len() >= 7).then_some(())
        });
        assert!(daemon.children().contains(&holder), "the tunnel lives, and its child with it");
        backend.release();
        assert_eq!(tunnel.rest().expect("its end"), b"");
    }
}
