//! Connections between two requests move to other children (`HandOver`, event): their clients notice nothing.
//!
//! A client here retries nothing: a connection that is closed under its hand is an answer that is missing.

use crate::support::{Backend, Client, Daemon, Home, at_once, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

/// Two children of two workers each, and no more.
const TWO_BY_TWO: &str = "KeepAliveTimeout 300\nStartServers 2\nServerLimit 2\nThreadLimit 2\nThreadsPerChild 2\nMaxRequestWorkers 4\n\
    MinSpareThreads 1\nMaxSpareThreads 4\n";

fn event(directives: &str, backend: &Backend) -> String {
    format!("MPM event\n{directives}\nProxyPass / {}/", backend.url())
}

/// Reloads and waits until the new generation serves.
#[track_caller]
fn reload(daemon: &Daemon) {
    let served = || daemon.log().matches("] serving generation ").count();
    let before = served();
    daemon.signal(Signal::SIGHUP);
    wait_until("another generation", || (served() > before).then_some(()));
}

/// How many connections have been handed over, by the status.
fn handed_over(daemon: &Daemon) -> u64 {
    let text = daemon.status().text;
    let words = text.split(" handed over").next().and_then(|before| before.rsplit(' ').next());
    let number = words.map(|word| word.replace(',', "")).and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no number of connections handed over in\n{text}"))
}

#[track_caller]
fn served_by(client: &mut Client, origin: &str) {
    let answer = client.get("/echo").expect("the connection was not closed under the client's hand");
    assert_eq!(answer.echo().origin(), origin);
    assert!(!answer.closes(), "{:?}", answer.fields);
}

#[test]
fn idle_connections_move_to_the_new_generation_and_the_old_one_is_gone() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let daemon = Daemon::at(Home::new(), &event("KeepAliveTimeout 300", &old));
    let mut clients: Vec<Client> = (0..60).map(|_| daemon.connect()).collect();
    for client in &mut clients {
        served_by(client, "old");
    }
    // Those that have not asked for anything yet move, too.
    clients.extend((0..20).map(|_| daemon.connect()));
    let before = daemon.children();
    daemon.wait_for_status("all connections", |status| status.text.contains("80 open"));
    daemon.home().write_whole(&event("KeepAliveTimeout 300", &new));
    reload(&daemon);
    wait_until("the end of the old generation", || {
        daemon.children().iter().all(|pid| !before.contains(pid)).then_some(())
    });
    for client in &mut clients {
        served_by(client, "new");
    }
    assert!(handed_over(&daemon) >= 80, "{}", daemon.status().text);
}

#[test]
fn more_connections_than_the_socket_holds_at_once_move_all() {
    let backend = Backend::start();
    let daemon =
        Daemon::at(Home::new(), &event("KeepAliveTimeout 300\nRequestReadTimeout header=0", &backend));
    let mut clients: Vec<Client> = (0..1500).map(|_| daemon.connect()).collect();
    for client in &mut clients {
        client.get("/bytes/1").expect("an answer");
    }
    let before = daemon.children();
    reload(&daemon);
    wait_until("the end of the old generation", || {
        daemon.children().iter().all(|pid| !before.contains(pid)).then_some(())
    });
    for client in &mut clients {
        client.get("/bytes/1").expect("the connection was not closed under the client's hand");
    }
    assert!(handed_over(&daemon) >= 1500);
}

#[test]
fn a_request_under_way_ends_where_it_began_and_then_its_connection_moves() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let daemon = Daemon::at(Home::new(), &event("", &old));
    let mut client = daemon.ask("/hold");
    old.wait_for_now(1);
    let before = daemon.children();
    daemon.home().write_whole(&event("", &new));
    reload(&daemon);
    old.release();
    let answer = client.answer("GET").expect("an answer");
    assert_eq!(answer.echo().origin(), "old");
    assert!(!answer.closes(), "it will be handed over: {:?}", answer.fields);
    wait_until("the end of the old generation", || {
        daemon.children().iter().all(|pid| !before.contains(pid)).then_some(())
    });
    served_by(&mut client, "new");
}

#[test]
fn no_client_waits_behind_a_full_child_while_another_idles() {
    let backend = Backend::start();
    let daemon = Daemon::at(Home::new(), &event(TWO_BY_TWO, &backend));
    daemon.wait_for_children(2);
    // Three kept-alive connections of one child: of eight, one child has four.
    let mut clients: Vec<(i32, Client)> = Vec::new();
    for _ in 0..8 {
        let mut client = daemon.connect();
        client.get("/bytes/1").expect("an answer");
        clients.push((daemon.child_of(&client), client));
    }
    let children: Vec<i32> = clients.iter().map(|(child, _)| *child).collect();
    let most = |child: &i32| children.iter().filter(|other| *other == child).count();
    let home = *children.iter().max_by_key(|child| most(child)).expect("there are eight");
    clients.retain(|(child, _)| *child == home);
    clients.truncate(3);
    let mut clients: Vec<Client> = clients.into_iter().map(|(_, client)| client).collect();
    let [first, second, third] = clients.as_mut_slice() else { unreachable!("there are three") };
    for client in [first, second] {
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    backend.wait_for_now(2);
    let answer = third.get("/bytes/10").expect("an answer, although its child is full");
    assert!(!answer.closes());
    assert_ne!(daemon.child_of(third), home, "the other child serves it now");
    assert_eq!(handed_over(&daemon), 1, "{}", daemon.status().text);
    // With nobody idle it stays and waits its turn.
    let mut fourth = daemon.connect();
    for client in [&mut *third, &mut fourth] {
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    backend.wait_for_now(4);
    let mut fifth = daemon.connect();
    fifth.send("GET /bytes/10 HTTP/1.1\r\nHost: test\r\n\r\n");
    backend.release();
    assert_eq!(fifth.answer("GET").expect("an answer").status, 200);
    for client in [third, &mut fourth] {
        assert_eq!(client.answer("GET").expect("an answer").status, 200);
    }
}

#[test]
fn without_hand_over_idle_connections_stay_and_are_told() {
    let backend = Backend::start();
    let daemon = Daemon::at(Home::new(), &event("HandOver Off", &backend));
    let mut client = daemon.connect();
    client.get("/bytes/1").expect("an answer");
    reload(&daemon);
    let last = client.get("/bytes/1").expect("it was not closed under the client's hand");
    assert!(last.closes(), "{:?}", last.fields);
    assert_eq!(handed_over(&daemon), 0);
}

#[test]
fn nothing_is_handed_to_another_mpm() {
    let backend = Backend::start();
    let daemon = Daemon::at(Home::new(), &event("", &backend));
    let mut client = daemon.connect();
    client.get("/bytes/1").expect("an answer");
    daemon.home().write_whole(&format!("MPM worker\nProxyPass / {}/", backend.url()));
    reload(&daemon);
    // The new generation serves before the old one has heard that it is to leave.
    wait_until("the last answer on this connection", || {
        let answer = client.get("/bytes/1").expect("it was not closed under the client's hand");
        answer.closes().then_some(())
    });
}

#[test]
fn a_generation_that_leaves_already_hears_that_nobody_takes_over_any_more() {
    let backend = Backend::start();
    let daemon = Daemon::at(Home::new(), &event("LogLevel debug", &backend));
    let mut client = daemon.ask("/hold");
    backend.wait_for_now(1);
    reload(&daemon);
    let prefork = format!("MPM prefork\nLogLevel debug\nProxyPass / {}/", backend.url());
    daemon.home().write_whole(&prefork);
    reload(&daemon);
    daemon.wait_for_log("generation 2 is gone");
    backend.release();
    let answer = client.answer("GET").expect("an answer");
    assert!(answer.closes(), "{:?}", answer.fields);
}

#[test]
fn a_connection_whose_listener_is_gone_gets_one_more_answer() {
    let backend = Backend::start();
    let there = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a free port");
    let text = |listen: &str| event(&format!("Listen 127.0.0.1:0\n{listen}"), &backend);
    let daemon = Daemon::at(Home::new(), &text(&format!("Listen {there}")));
    let mut client = Client::connect(there);
    client.get("/bytes/1").expect("an answer");
    let before = daemon.children();
    daemon.home().write_whole(&text(""));
    reload(&daemon);
    wait_until("the end of the old generation", || {
        daemon.children().iter().all(|pid| !before.contains(pid)).then_some(())
    });
    let last = client.get("/bytes/1").expect("it was not closed under the client's hand");
    assert!(last.closes(), "{:?}", last.fields);
}

#[test]
fn what_counts_for_a_connection_goes_with_it() {
    let backend = Backend::start();
    let daemon = Daemon::at(Home::new(), &event("MaxKeepAliveRequests 3\nKeepAliveTimeout 4", &backend));
    let mut client = daemon.connect();
    let mut silent = daemon.connect();
    silent.get("/bytes/1").expect("an answer");
    for last in [false, false, true] {
        let answer = client.get("/bytes/1").expect("the connection was not closed under the client's hand");
        assert_eq!(answer.closes(), last, "{:?}", answer.fields);
        reload(&daemon);
    }
    silent.closed().expect("its time was over with the new child as with the old");
}

#[test]
fn a_child_that_is_told_to_go_hands_over_to_its_siblings() {
    let backend = Backend::start();
    let daemon = Daemon::at(Home::new(), &event(TWO_BY_TWO, &backend));
    daemon.wait_for_children(2);
    let mut clients: Vec<Client> = (0..10).map(|_| daemon.connect()).collect();
    for client in &mut clients {
        client.get("/bytes/1").expect("an answer");
    }
    let gone = daemon.child_of(&clients[0]);
    kill(Pid::from_raw(gone), Signal::SIGTERM).expect("it lives");
    wait_until("its end", || (!daemon.children().contains(&gone)).then_some(()));
    for client in &mut clients {
        assert!(!client.get("/bytes/1").expect("the connection lives").closes());
    }
}

#[test]
fn a_stop_in_the_middle_of_a_hand_over_answers_everybody() {
    for round in 0..5 {
        let backend = Backend::start();
        let mut daemon = Daemon::at(Home::new(), &event("KeepAliveTimeout 300", &backend));
        let clients: Vec<Client> = (0..300)
            .map(|_| {
                let mut client = daemon.connect();
                client.get("/bytes/1").expect("an answer");
                client
            })
            .collect();
        let clients = std::sync::Mutex::new(clients);
        let clients = std::sync::Arc::new(clients);
        daemon.signal(Signal::SIGHUP);
        wait_until("another generation", || daemon.log().contains("] serving generation ").then_some(()));
        std::thread::sleep(Duration::from_millis(round * 13));
        daemon.signal(Signal::SIGTERM);
        let asked = at_once(10, move |_| {
            let mut lost = Vec::new();
            loop {
                let Some(mut client) = clients.lock().expect("nobody panics").pop() else { return lost };
                if let Err(failure) = client.get("/bytes/1") {
                    lost.push(failure);
                }
            }
        });
        let lost: Vec<_> = asked.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
        assert!(lost.is_empty(), "round {round}: {} lost, the first: {:?}", lost.len(), lost.first());
        assert!(daemon.wait_for_end().is_some_and(|status| status.success()));
    }
}

#[test]
fn a_child_with_more_than_its_share_gives_connections_to_its_siblings() {
    let backend = Backend::named("spread");
    let daemon = Daemon::at(
        Home::new(),
        &event(
            "KeepAliveTimeout 300\nMaxKeepAliveRequests 0\nStartServers 2\nServerLimit 2\nThreadLimit 10\nThreadsPerChild 10\n\
             MaxRequestWorkers 20\nMinSpareThreads 1\nMaxSpareThreads 20",
            &backend,
        ),
    );
    daemon.tolerate("killed by SIGKILL");
    let mut clients: Vec<Client> = (0..40).map(|_| daemon.connect()).collect();
    for client in &mut clients {
        served_by(client, "spread");
    }
    // The child that has fewer of them dies; the one in its place has none, and nobody connects any more.
    let homes: Vec<i32> = clients.iter().map(|client| daemon.child_of(client)).collect();
    let of = |child: i32| homes.iter().filter(|home| **home == child).count();
    let victim = daemon.children().into_iter().min_by_key(|child| of(*child)).expect("two children");
    let mut rest: Vec<Client> = clients
        .into_iter()
        .zip(&homes)
        .filter(|(_, home)| **home != victim)
        .map(|(client, _)| client)
        .collect();
    assert!(rest.len() >= 20, "{homes:?}");
    kill(Pid::from_raw(victim), Signal::SIGKILL).expect("it is the daemon's");
    wait_until("another child in its place", || {
        let children = daemon.children();
        (children.len() == 2 && !children.contains(&victim)).then_some(())
    });
    wait_until("an even spread", || {
        // What has nothing to do stays where it is.
        rest.iter_mut().for_each(|client| served_by(client, "spread"));
        let counts = daemon.connections();
        let (least, most) = (counts.iter().min()?, counts.iter().max()?);
        // A sixteenth above the average is even enough.
        (counts.len() == 2 && most - least <= 4).then_some(())
    });
    assert!(handed_over(&daemon) > 0);
}

/// Forty clients that have asked once, and the child that each is with.
fn forty_on_two_children(backend: &Backend) -> (Daemon, Vec<Client>, Vec<i32>) {
    let daemon = Daemon::at(
        Home::new(),
        &event(
            "KeepAliveTimeout 300\nMaxKeepAliveRequests 0\nStartServers 2\nServerLimit 2\nThreadLimit 40\nThreadsPerChild 40\n\
             MaxRequestWorkers 80\nMinSpareThreads 1\nMaxSpareThreads 80",
            backend,
        ),
    );
    daemon.wait_for_children(2);
    let mut clients: Vec<Client> = (0..40).map(|_| daemon.connect()).collect();
    for client in &mut clients {
        client.get("/bytes/1").expect("an answer");
    }
    let homes = clients.iter().map(|client| daemon.child_of(client)).collect();
    (daemon, clients, homes)
}

/// The child that has most of the connections.
fn busiest(daemon: &Daemon, homes: &[i32]) -> i32 {
    let of = |child: i32| homes.iter().filter(|home| **home == child).count();
    daemon.children().into_iter().max_by_key(|child| of(*child)).expect("two children")
}

#[test]
fn children_share_the_work_and_not_only_the_connections() {
    let backend = Backend::start();
    let (daemon, clients, homes) = forty_on_two_children(&backend);
    // The connections of one child are used all the time, those of the other never again.
    let home = busiest(&daemon, &homes);
    let (mut used, rest): (Vec<_>, Vec<_>) =
        clients.into_iter().zip(&homes).partition(|(_, other)| **other == home);
    assert!(used.len() >= 20, "{homes:?}");
    wait_until("work for both", || {
        for _ in 0..20 {
            for (client, _) in &mut used {
                client.send("GET /delay/20 HTTP/1.1\r\nHost: test\r\n\r\n");
            }
            for (client, _) in &mut used {
                assert_eq!(client.answer("GET").expect("the connection lives").status, 200);
            }
        }
        let stayed = used.iter().filter(|(client, _)| daemon.child_of(client) == home).count();
        // A third and two thirds are far from even, and far from where it began.
        (used.len() / 3..=used.len() * 2 / 3).contains(&stayed).then_some(())
    });
    // What has nothing to do stays where it is.
    for (client, home) in &rest {
        assert_eq!(daemon.child_of(client), **home);
    }
}

#[test]
fn what_is_given_to_a_sibling_that_stands_still_is_taken_back() {
    let backend = Backend::start();
    let (daemon, clients, homes) = forty_on_two_children(&backend);
    let home = busiest(&daemon, &homes);
    let still = daemon.children().into_iter().find(|child| *child != home).expect("two children");
    let used = clients.into_iter().zip(&homes).filter(|(_, other)| **other == home);
    let mut used: Vec<Client> = used.map(|(client, _)| client).collect();
    kill(Pid::from_raw(still), Signal::SIGSTOP).expect("it is the daemon's");
    // It says for ever that it has nothing to do and takes what comes.
    let begun = Instant::now();
    let asking = used.drain(..).map(|mut client| {
        thread::spawn(move || {
            let mut worst = Duration::ZERO;
            while begun.elapsed() < Duration::from_secs(4) {
                let asked = Instant::now();
                assert_eq!(client.get("/delay/20").expect("the connection lives").status, 200);
                worst = worst.max(asked.elapsed());
            }
            worst
        })
    });
    let asking: Vec<_> = asking.collect();
    let worst = asking.into_iter().map(|client| client.join().expect("no panic")).max().expect("some");
    kill(Pid::from_raw(still), Signal::SIGCONT).expect("it is the daemon's");
    println!("the longest wait was {worst:?}; {} were handed over", handed_over(&daemon));
    assert!(worst < Duration::from_secs(3), "a client waited for {worst:?}");
}
