//! Stopping: what is finished first, what is cut, and who hears of it.

use crate::support::{Backend, Client, Daemon, Home, Mpm, holds_for, ostler, processes, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Waits until nobody takes connections at this address any more.
#[track_caller]
fn wait_until_refused(address: SocketAddr) {
    wait_until("the listener closed", || Client::try_connect(address).is_err().then_some(()));
}

under_each_mpm! {
    fn term_lets_requests_finish(mpm) {
        let backend = Backend::start();
        let mut daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        daemon.signal(Signal::SIGTERM);
        wait_until_refused(daemon.address());
        assert!(daemon.is_running(), "a request is under way");
        backend.release();
        let answer = client.answer("GET").expect("an answer");
        assert_eq!((answer.status, answer.closes()), (200, true), "{:?}", answer.fields);
        assert_eq!(daemon.wait_for_end().and_then(|status| status.code()), Some(0));
        assert!(!daemon.home().path("ostler.pid").exists(), "the PidFile is gone");
    }

    fn a_second_term_waits_for_nobody(mpm) {
        let backend = Backend::start();
        let mut daemon = Daemon::under(mpm, &format!("GracefulShutdownTimeout 0\nProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        daemon.tolerate("caught SIGHUP, but");
        daemon.signal(Signal::SIGTERM);
        wait_until_refused(daemon.address());
        wait_until("the idle children left", || (daemon.children().len() == 1).then_some(()));
        let status = ostler(&["-k", "status", "-f", &daemon.home().config().to_string_lossy()]);
        assert!(status.code == Some(1) && status.stdout.contains("; stopping: 1 child finishes"), "{status:?}");
        daemon.signal(Signal::SIGHUP);
        wait_until("the order is not lost in silence", || {
            daemon.log().contains("caught SIGHUP, but this server is stopping").then_some(())
        });
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_end();
        assert!(client.answer("GET").is_err(), "the request was cut");
        let log = daemon.log();
        assert!(log.contains("caught SIGTERM, stopping now; 1 request under way is cut"), "{log}");
    }

    fn int_waits_for_nobody(mpm) {
        let backend = Backend::start();
        let mut daemon = Daemon::under(mpm, &format!("GracefulShutdownTimeout 0\nProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        daemon.signal(Signal::SIGINT);
        daemon.wait_for_end();
        assert!(client.answer("GET").is_err(), "the request was cut");
        assert!(!daemon.home().path("ostler.pid").exists(), "the PidFile is gone");
    }

    fn a_graceful_stop_has_an_end(mpm) {
        let backend = Backend::start();
        let mut daemon = Daemon::under(mpm, &format!("GracefulShutdownTimeout 1\nProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        let start = Instant::now();
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_end();
        assert!(start.elapsed() >= Duration::from_millis(900), "it was not waited for at all");
        assert!(client.answer("GET").is_err(), "the request was cut");
    }

    fn a_kept_alive_connection_may_ask_once_more_of_a_leaving_child(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("KeepAliveTimeout 25\nProxyPass / {}/", backend.url()));
        let mut kept = daemon.connect();
        assert!(!kept.get("/").expect("an answer").closes());
        let mut busy = daemon.connect();
        busy.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        daemon.signal(Signal::SIGTERM);
        wait_until_refused(daemon.address());
        let answer = kept.get("/once-more").expect("it was not closed under the client's hand");
        assert_eq!((answer.status, answer.closes()), (200, true), "{:?}", answer.fields);
        backend.release();
        assert_eq!(busy.answer("GET").expect("an answer").status, 200);
    }

    fn a_stop_closes_in_time_what_a_reload_had_left_idle_for_longer(mpm) {
        let backend = Backend::start();
        let mut daemon = Daemon::under(
            mpm,
            &format!("HandOver Off\nKeepAliveTimeout 120\nGracefulShutdownTimeout 4\nProxyPass / {}/", backend.url()),
        );
        let mut idle = daemon.connect();
        assert!(!idle.get("/").expect("an answer").closes());
        let child = daemon.child_of(&idle);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("serving generation 2");
        holds_for("its child keeps it", Duration::from_millis(300), || processes::is_alive(child));
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_end();
        idle.closed().expect("an orderly end");
        assert_eq!(daemon.lines_with("not finished in time"), [""; 0]);
    }

    fn children_leave_when_their_master_is_killed(mpm) {
        let backend = Backend::start();
        let home = Home::new();
        let directory = home.path("");
        let mut daemon = Daemon::at(home, &format!("MPM {}\nProxyPass / {}/", mpm.name(), backend.url()));
        let (address, children) = (daemon.address(), daemon.children());
        assert!(!children.is_empty());
        daemon.tolerate("master");
        kill(Pid::from_raw(daemon.master()), Signal::SIGKILL).expect("it is there");
        daemon.wait_for_end();
        wait_until("no child left", || children.iter().all(|pid| !processes::is_alive(*pid)).then_some(()));
        wait_until_refused(address);
        // The stale PidFile and scoreboard are no obstacle to the next one, and the port is free.
        let again = directory.join("again.conf");
        let text = std::fs::read_to_string(directory.join("ostler.conf")).expect("written by the test");
        std::fs::write(&again, text.replace("127.0.0.1:0", &address.to_string())).expect("the test's own");
        let again = again.to_string_lossy().into_owned();
        let run = ostler(&["-k", "start", "-f", &again]);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert_eq!(crate::support::daemon::get(address, "/").map(|answer| answer.status), Ok(200));
        let pid = std::fs::read_to_string(directory.join("ostler.pid")).expect("a PidFile");
        let pid = pid.trim().parse().expect("a number");
        assert_eq!(ostler(&["-k", "stop", "-f", &again]).code, Some(0));
        wait_until("the second one's end", || (!processes::is_alive(pid)).then_some(()));
    }

    fn start_detaches_and_stop_stops(mpm) {
        let backend = Backend::start();
        let mut daemon = Daemon::detached(mpm, &format!("ProxyPass / {}/", backend.url()));
        assert_eq!(daemon.get("/").status, 200);
        let master = processes::look(daemon.master()).expect("it runs");
        assert_ne!(master.group, nix::unistd::getpgrp().as_raw(), "it has left our group");
        let config = daemon.home().config().to_string_lossy().into_owned();
        // A second start finds the first and leaves it alone.
        let again = ostler(&["-k", "start", "-f", &config]);
        assert!((again.stdout + &again.stderr).contains("running"), "it says so");
        assert_eq!(daemon.home().read("ostler.pid").trim(), daemon.master().to_string());
        assert_eq!(daemon.get("/").status, 200);
        let mut client = daemon.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        let stopping = std::thread::spawn(move || ostler(&["-k", "stop", "-f", &config]));
        wait_until_refused(daemon.address());
        backend.release();
        assert_eq!(client.answer("GET").map(|answer| answer.status), Ok(200), "-k stop is graceful");
        assert_eq!(stopping.join().expect("it ends").code, Some(0));
        daemon.wait_for_end();
        assert!(!daemon.home().path("ostler.pid").exists(), "the PidFile is gone");
    }

    fn a_terminated_child_finishes_its_requests_and_is_replaced(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        let pid = daemon.child_of(&client);
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it is there");
        assert_eq!(daemon.get("/meanwhile").status, 200);
        backend.release();
        assert_eq!(client.answer("GET").expect("an answer").status, 200);
        wait_until("the child's end", || (!processes::is_alive(pid)).then_some(()));
        assert_eq!(daemon.get("/after").status, 200);
    }
}

#[test]
fn stop_without_a_daemon_says_so() {
    let home = Home::new();
    let config = home.write_whole("ProxyPass / http://127.0.0.1:9/");
    let run = ostler(&["-k", "stop", "-f", &config.to_string_lossy()]);
    assert_eq!(run.code, Some(0), "what was asked for is so already: {run:?}");
    assert!(run.stdout.contains("not running"), "{run:?}");
}

#[test]
fn a_pid_file_never_names_a_stranger_to_stop() {
    // A PidFile left by a crash may hold the number of a process that is not ours: without the lock on the file
    // nobody is signalled.
    let home = Home::new();
    let config = home.write_whole("ProxyPass / http://127.0.0.1:9/");
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn().expect("sleep can be run");
    std::fs::write(home.path("ostler.pid"), format!("{}\n", stranger.id())).expect("the test's own");
    let run = ostler(&["-k", "stop", "-f", &config.to_string_lossy()]);
    let is_unharmed = stranger.try_wait().expect("our own child").is_none();
    let _ = stranger.kill();
    let _ = stranger.wait();
    assert!(is_unharmed, "{run:?}");
    assert!(run.stdout.contains("not running"), "{run:?}");
}

#[test]
fn signals_for_the_whole_terminal_reach_the_children_without_harm() {
    // A terminal's Ctrl-C, a hang-up, a changed window hit every process of the group. The master decides.
    let backend = Backend::start();
    let daemon = Daemon::under(Mpm::Event, &format!("ProxyPass / {}/", backend.url()));
    let children = daemon.children();
    for signal in [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
        Signal::SIGPIPE,
        Signal::SIGXFSZ,
    ] {
        for child in &children {
            kill(Pid::from_raw(*child), signal).expect("it is there");
        }
    }
    for _ in 0..20 {
        assert_eq!(daemon.get("/").status, 200);
    }
    daemon.assert_alive(&children);
}

#[test]
fn a_client_that_resets_ends_no_child() {
    let backend = Backend::start();
    let daemon = Daemon::under(Mpm::Event, &format!("ProxyPass / {}/", backend.url()));
    let children = daemon.children();
    for _ in 0..50 {
        let mut client = daemon.connect();
        client.send("GET /bytes/1000000 HTTP/1.1\r\nHost: test\r\n\r\n");
        socket2::SockRef::from(&*client.stream())
            .set_linger(Some(Duration::ZERO))
            .expect("a socket takes options");
    }
    assert_eq!(daemon.get("/after").status, 200);
    daemon.assert_alive(&children);
}
