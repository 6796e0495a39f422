//! Client connections between requests: how long they stay, when they go, and what they cost.

use crate::hot_path::{calls, no_strace, skip};
use crate::support::{Backend, Client, Daemon, Mpm, processes, wait_until};

under_each_mpm! {
    fn one_connection_carries_many_requests(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        for round in 0..50 {
            let answer = client.get(&format!("/{round}")).expect("an answer");
            assert_eq!(answer.echo().target(), format!("/{round}"));
            assert!(!answer.closes(), "round {round}: {:?}", answer.fields);
        }
        let last = client.ask("GET /last HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("an answer");
        assert!(last.closes(), "{:?}", last.fields);
        assert_eq!(client.closed(), Ok(()));
    }

    fn pipelined_requests_are_answered_in_order(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        let mut requests = String::new();
        for round in 0..10 {
            let pause = if round % 3 == 0 { 30 } else { 0 };
            requests += &format!("GET /delay/{pause}/{round} HTTP/1.1\r\nHost: test\r\n\r\n");
        }
        requests += "POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhelloGET /end HTTP/1.1\r\nHost: test\r\n\r\n";
        client.send(requests);
        for round in 0..10 {
            let echo = client.answer("GET").expect("an answer").echo();
            assert!(echo.target().ends_with(&format!("/{round}")), "{round}: {}", echo.target());
        }
        assert_eq!(client.answer("POST").expect("an answer").echo().body().0, 5);
        assert_eq!(client.answer("GET").expect("an answer").echo().target(), "/end");
    }

    fn an_idle_connection_ends_after_its_time(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/\nKeepAliveTimeout 1", backend.url()));
        let mut client = daemon.connect();
        assert_eq!(client.get("/").expect("an answer").status, 200);
        assert_eq!(client.closed(), Ok(()));
    }

    fn the_last_request_allowed_on_a_connection_closes_it(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/\nMaxKeepAliveRequests 3", backend.url()));
        let mut client = daemon.connect();
        let closes: Vec<bool> = (0..3).map(|_| client.get("/").expect("an answer").closes()).collect();
        assert_eq!(closes, [false, false, true]);
        assert_eq!(client.closed(), Ok(()));
    }

    fn waiting_clients_get_their_turn_when_idle_ones_hold_every_worker(mpm) {
        // Under event an idle connection holds no worker; under the others its time must run out first.
        let backend = Backend::start();
        let limits = if mpm.is_prefork() {
            "StartServers 2\nMaxRequestWorkers 2"
        } else {
            "StartServers 1\nThreadsPerChild 2\nMaxRequestWorkers 2\nMinSpareThreads 1"
        };
        let text = format!("{limits}\nKeepAliveTimeout 2\nProxyPass / {}/", backend.url());
        let daemon = Daemon::under(mpm, &text);
        let mut idle: Vec<Client> = (0..2).map(|_| daemon.connect()).collect();
        for client in &mut idle {
            assert_eq!(client.get("/").expect("an answer").status, 200);
        }
        assert_eq!(daemon.get("/new").status, 200);
    }
}

#[test]
fn keep_alive_can_be_off() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/\nKeepAlive Off", backend.url()));
    let mut client = daemon.connect();
    assert!(client.get("/").expect("an answer").closes());
    assert_eq!(client.closed(), Ok(()));
}

#[test]
fn an_http_1_0_client_keeps_its_connection_only_if_it_asks() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let mut client = daemon.connect();
    for _ in 0..3 {
        let answer =
            client.ask("GET /bytes/10 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").expect("an answer");
        let connection = answer.field("connection").unwrap_or("").to_ascii_lowercase();
        assert_eq!((answer.status, connection.as_str()), (200, "keep-alive"));
    }
    let answer = client.ask("GET /bytes/10 HTTP/1.0\r\n\r\n").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(client.closed(), Ok(()));
}

#[test]
fn under_event_an_idle_connection_holds_no_worker() {
    // The founding document's promise: with every worker's worth of idle connections open, and far more, a new
    // request is served at once. The time-out is longer than this test is ready to wait.
    let backend = Backend::start();
    let daemon = Daemon::under(
        Mpm::Event,
        &format!(
            "StartServers 1\nThreadsPerChild 2\nMaxRequestWorkers 2\nMinSpareThreads 1\nKeepAliveTimeout 600\n\
             ProxyPass / {}/",
            backend.url()
        ),
    );
    let mut idle: Vec<Client> = (0..50).map(|_| daemon.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    assert_eq!(daemon.get("/new").status, 200);
    let status = daemon.wait_for_status("no busy worker", |status| status.busy == 0);
    assert_eq!(status.idle, 2, "{}", status.text);
    for client in &mut idle {
        assert_eq!(client.get("/again").expect("none was closed for a newcomer").status, 200);
    }
}

#[test]
fn an_idle_connection_that_the_client_leaves_is_let_go() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/\nKeepAliveTimeout 600", backend.url()));
    let mut clients: Vec<Client> = (0..20).map(|_| daemon.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    assert_eq!(daemon.connections().iter().sum::<usize>(), 20);
    drop(clients);
    wait_until("the daemon's ends closed", || {
        (daemon.connections().iter().sum::<usize>() == 0).then_some(())
    });
}

#[test]
fn while_every_worker_is_busy_idle_connections_end_as_ever_and_stand_in_nobodys_way() {
    let backend = Backend::start();
    let text = format!(
        "MPM event\nStartServers 1\nServerLimit 1\nThreadsPerChild 2\nMaxRequestWorkers 2\nMinSpareThreads 1\n\
         KeepAliveTimeout 2\nProxyPass / {}/",
        backend.url()
    );
    let daemon = Daemon::at(crate::support::Home::new(), &text);
    daemon.tolerate("MaxRequestWorkers");
    let mut idle: Vec<Client> = (0..6).map(|_| daemon.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    let mut busy: Vec<Client> = (0..2).map(|_| daemon.connect()).collect();
    for client in &mut busy {
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    backend.wait_for_now(2);
    // One that asks waits for a worker, however long that takes.
    idle[0].send("GET /asked HTTP/1.1\r\nHost: test\r\n\r\n");
    // Some leave, some have nothing to say: both are let go with all workers busy.
    idle.truncate(3);
    let open = || daemon.connections().iter().sum::<usize>();
    wait_until("those that left to be gone", || (open() == 5).then_some(()));
    for client in &mut idle[1..] {
        client.closed().expect("KeepAliveTimeout holds");
    }
    wait_until("those that were silent to be gone", || (open() == 3).then_some(()));
    backend.release();
    assert_eq!(idle[0].answer("GET").expect("an answer").status, 200);
    for client in &mut busy {
        assert_eq!(client.answer("GET").expect("an answer").status, 200);
    }
}

#[test]
fn a_pooled_connection_that_the_origin_closes_while_idle_is_not_used_again() {
    let backend = Backend::with(|exchange| {
        exchange.echo()?;
        exchange.close();
        Ok(())
    });
    let daemon = Daemon::start(&format!("{}ProxyPass / {}/", Mpm::Event.one_child(), backend.url()));
    let mut client = daemon.connect();
    for round in 0..20 {
        // A POST is never sent twice, so a stale connection would show as a 502.
        let answer = client.post(&format!("/{round}"), b"x");
        assert_eq!(answer.expect("an answer").status, 200, "round {round}");
        // No word tells that the daemon has seen the close; the loopback takes microseconds for it.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Connections to an origin, as its end sees them.
fn connections_to(backend: &Backend) -> usize {
    let address = backend.authority().parse().expect("an address");
    processes::connections(&[std::process::id() as i32], address).into_values().sum()
}

/// The first thread of a child of worker sleeps when there is nothing to do, and a thread that has a client does not pass by
/// whoever wakes it.
#[test]
fn what_comes_to_rest_while_the_child_sleeps_is_closed_in_time() {
    let backend = Backend::start();
    // No question of the master's wakes it either.
    let limits = Mpm::Worker.one_child();
    let text = format!("{limits}ChildStallTimeout 3600\nProxyPass /there {} ttl=1", backend.url());
    let daemon = Daemon::under(Mpm::Worker, &text);
    let [child] = daemon.children()[..] else { panic!("one child") };
    let mut client = daemon.connect();
    assert_eq!(client.get("/nowhere").expect("an answer").status, 404);
    wait_until("a first thread that sleeps without a timer", || {
        let call = std::fs::read_to_string(format!("/proc/{child}/task/{child}/syscall")).unwrap_or_default();
        let words: Vec<&str> = call.split_whitespace().collect();
        (words.first() == Some(&nix::libc::SYS_ppoll.to_string().as_str()) && words.get(3) == Some(&"0x0"))
            .then_some(())
    });
    assert_eq!(client.get("/there").expect("an answer").status, 200);
    assert_eq!(connections_to(&backend), 1);
    wait_until("its end", || (connections_to(&backend) == 0).then_some(()));
}

/// The first thread of a child of worker closes what has been idle for too long, while others let go of more.
#[test]
fn what_comes_to_rest_while_the_idle_are_looked_through_is_closed_in_time() {
    if let Some(why) = no_strace() {
        return skip(&why);
    }
    let closes = |child: i32| {
        let call = std::fs::read_to_string(format!("/proc/{child}/task/{child}/syscall")).unwrap_or_default();
        call.starts_with(&format!("{} ", nix::libc::SYS_close))
    };
    let (early, late) = (Backend::start(), Backend::start());
    // The place of the one that is let go of is looked at before the other's, whose old connection is closed.
    let text = format!(
        "{}ProxyPass /early {} ttl=1\nProxyPass /late {} ttl=1",
        Mpm::Worker.one_child(),
        early.url(),
        late.url()
    );
    let daemon = Daemon::under(Mpm::Worker, &text);
    let [child] = daemon.children()[..] else { panic!("one child") };
    let attempt = || {
        let mut is_in_time = false;
        let options = ["-e", "trace=close", "-e", "inject=close:delay_enter=1500000"];
        let seen = calls(child, &daemon.home().path(""), &options, || {
            let mut first = daemon.ask("/late");
            first.answer("GET").expect("an answer").echo();
            wait_until("the old connection to be closed", || closes(child).then_some(()));
            let mut second = daemon.ask("/early");
            second.answer("GET").expect("an answer").echo();
            is_in_time = closes(child);
            wait_until("the old connection's end", || (connections_to(&late) == 0).then_some(()));
        });
        wait_until("the end of what came to rest", || (connections_to(&early) == 0).then_some(()));
        seen.map(|_| is_in_time)
    };
    let mut attempts = (0..5).map(|_| attempt()).skip_while(|in_time| *in_time == Ok(false));
    match attempts.next() {
        Some(Err(why)) => skip(&why),
        in_time => assert!(in_time.is_some(), "no answer came while a connection was being closed"),
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_disturbs_nobody() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("{}ProxyPass / {}/", Mpm::Event.one_child(), backend.url()));
    for _ in 0..30 {
        let mut client = daemon.connect();
        client.send("GET /bytes/1000000 HTTP/1.1\r\nHost: test\r\n\r\n");
        drop(client);
        let mut client = daemon.connect();
        client.send("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nonly this");
        drop(client);
        let mut client = daemon.connect();
        assert_eq!(client.get("/still/here").expect("an answer").echo().target(), "/still/here");
    }
    daemon.wait_for_status("every worker free again", |status| status.busy == 0);
}
