//! What reaches the origin, what comes back, and which origin it is.

use crate::support::{Backend, Client, Daemon, Hash, Home, Mpm, Response, processes, wait_until};
use nix::sys::signal::Signal;
use socket2::{Domain, SockAddr, Socket, Type};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

under_each_mpm! {
    fn a_request_reaches_the_origin_and_its_answer_comes_back(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let answer = daemon.get("/some/path?a=b&c=%20d");
        let echo = answer.echo();
        assert_eq!((echo.method(), echo.target()), ("GET", "/some/path?a=b&c=%20d"));
        assert_eq!(echo.version(), "HTTP/1.1");
        assert_eq!(echo.field("host"), Some(backend.authority().as_str()));
        assert_eq!(answer.minor, 1);
        assert_eq!(answer.field("x-origin"), Some("yes"), "the origin's fields come through");
        assert_eq!(backend.requests(), 1);
    }

    fn the_origin_learns_who_asked_and_through_whom(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/\nProxyVia On", backend.url()));
        let answer = daemon
            .connect()
            .ask("GET /x HTTP/1.1\r\nHost: www.example.test:8080\r\nConnection: X-Forwarded-For, close\r\n\r\n")
            .expect("an answer");
        let echo = answer.echo();
        assert_eq!(echo.field("x-forwarded-for"), Some("127.0.0.1"), "a client cannot name it in Connection");
        assert_eq!(echo.field("x-forwarded-host"), Some("www.example.test:8080"));
        assert_eq!(echo.field("x-forwarded-server"), Some("proxy.test"));
        assert!(echo.field("via").is_some_and(|via| via.starts_with("1.1 ")), "{:?}", echo.field("via"));
        assert!(answer.field("via").is_some_and(|via| via.starts_with("1.1 ")), "{:?}", answer.field("via"));
    }

    fn pooled_connections_carry_one_request_after_another(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", mpm.one_child(), backend.url()));
        for round in 0..20 {
            assert_eq!(daemon.get(&format!("/{round}")).status, 200);
        }
        assert_eq!((backend.requests(), backend.connections()), (20, 1));
    }

    fn a_get_whose_pooled_connection_just_died_is_sent_once_more(mpm) {
        // The origin hangs up on the second request of every connection, which a look at the socket beforehand
        // cannot foresee.
        let backend = Backend::with(|exchange| {
            if exchange.nth == 1 {
                return exchange.echo();
            }
            exchange.close();
            Ok(())
        });
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", mpm.one_child(), backend.url()));
        let mut client = daemon.connect();
        for (round, connection) in [(0, 1), (1, 2), (2, 3)] {
            let answer = client.get(&format!("/{round}")).expect("an answer");
            assert_eq!(answer.echo().connection(), connection, "round {round}");
        }
        assert_eq!((backend.asked_for("/1"), backend.asked_for("/2")), (2, 2), "once more, and not twice");
    }

    fn a_post_whose_pooled_connection_just_died_is_not_repeated(mpm) {
        let backend = Backend::with(|exchange| {
            if exchange.nth == 1 {
                return exchange.echo();
            }
            exchange.read_body(|_| {})?;
            exchange.close();
            Ok(())
        });
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", mpm.one_child(), backend.url()));
        daemon.tolerate("proxy");
        let mut client = daemon.connect();
        assert_eq!(client.get("/first").expect("an answer").status, 200);
        assert_eq!(client.post("/order", b"one barrel").expect("an answer").status, 502);
        assert_eq!(backend.asked_for("/order"), 1);
    }
}

/// A child finds a request and a backend's answer, which came in this order: who is to have the answer has waited longer.
#[test]
fn an_answer_is_passed_on_before_a_later_request_is_served() {
    let backend = Backend::with(|exchange| {
        exchange.hold();
        exchange.echo()
    });
    // With a core to each of two threads, both would be served at once.
    let daemon = processes::on_one_core(|| {
        Daemon::start(&format!(
            "{}CustomLog access.log %U\nProxyPass /held {}",
            Mpm::Event.one_child(),
            backend.url()
        ))
    });
    let (mut first, mut second) = (daemon.connect(), daemon.connect());
    assert_eq!(second.get("/before").expect("our own answer").status, 404);
    first.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
    backend.wait_for_now(1);
    let child = daemon.child_of(&first);
    wait_until("a child that waits", || processes::waits_in_its_poll(child).then_some(()));
    processes::send(child, Signal::SIGSTOP);
    wait_until("a child that stands still", || processes::look(child).filter(|child| child.state == 'T'));
    second.send("GET /later HTTP/1.1\r\nHost: test\r\n\r\n");
    backend.release();
    backend.wait_for_now(0);
    processes::send(child, Signal::SIGCONT);
    assert_eq!(first.answer("GET").expect("an answer").status, 200);
    assert_eq!(second.answer("GET").expect("an answer").status, 404);
    // A line may be later than its answer.
    let log = wait_until("three lines", || {
        let log = daemon.home().read("access.log");
        (log.lines().count() == 3).then_some(log)
    });
    assert_eq!(log, "/before\n/held\n/later\n");
}

#[test]
fn curl_gets_the_origins_answer() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let mut command = std::process::Command::new("curl");
    command.args(["-sS", "--fail", "--noproxy", "*", "--max-time", "30"]);
    command.arg(format!("http://{}/from/curl", daemon.address()));
    let run = crate::support::daemon::run(command);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("target /from/curl\n"), "{run:?}");
}

#[test]
fn rules_are_tried_in_order_and_match_whole_segments() {
    let (first, second) = (Backend::named("first"), Backend::named("second"));
    let daemon = Daemon::start(&format!(
        "ProxyPass /app/private !\n\
         ProxyPass /app/deep {second}/deeper\n\
         ProxyPass /app {first}/moved\n\
         ProxyPass /app/never {second}\n\
         ProxyPass /dir/ {second}/\n",
        first = first.url(),
        second = second.url(),
    ));
    for (path, want) in [
        ("/app", Some(("first", "/moved"))),
        ("/app/", Some(("first", "/moved/"))),
        ("/app/x/y?q=1", Some(("first", "/moved/x/y?q=1"))),
        ("/app/never", Some(("first", "/moved/never"))),
        ("/app/deep/er", Some(("second", "/deeper/er"))),
        ("/app/deepest", Some(("first", "/moved/deepest"))),
        ("//app//x", Some(("first", "/moved/x"))),
        ("/dir/x", Some(("second", "/x"))),
        ("/dir/", Some(("second", "/"))),
        ("/app/private", None),
        ("/app/private/x", None),
        ("/apple", None),
        ("/dir", None),
        ("/", None),
    ] {
        let answer = daemon.get(path);
        let Some((origin, target)) = want else {
            assert_eq!(answer.status, 404, "{path}");
            continue;
        };
        let echo = answer.echo();
        assert_eq!((echo.origin(), echo.target().replace("//", "/").as_str()), (origin, target), "{path}");
    }
}

#[test]
fn a_client_cannot_complete_the_authority_of_a_rule_without_a_path() {
    let backend = Backend::start();
    // The rule's sides disagree about the closing slash, so `/d/1/x` must not become `http://127.0.0.1:PORT1/x`.
    let daemon = Daemon::start(&format!("ProxyPass /d/ {}", backend.url()));
    let echo = daemon.get("/d/1/x").echo();
    assert_eq!(echo.target(), "/1/x");
    assert_eq!(echo.field("host"), Some(backend.authority().as_str()));
}

#[test]
fn a_location_has_its_own_proxy_pass_and_the_last_one_wins() {
    let (outer, inner, late) = (Backend::named("outer"), Backend::named("inner"), Backend::named("late"));
    let daemon = Daemon::start(&format!(
        "ProxyPass / {}/\n<Location /in>\nProxyPass {}/was-in\n</Location>\n\
         <Location /in/late>\nProxyPass {}/late\n</Location>\n",
        outer.url(),
        inner.url(),
        late.url(),
    ));
    for (path, want) in [("/out", "outer"), ("/in/x", "inner"), ("/inner", "outer"), ("/in/late/x", "late")] {
        assert_eq!(daemon.get(path).echo().origin(), want, "{path}");
    }
}

#[test]
fn an_origin_may_be_a_socket_in_the_file_system() {
    let home = Home::new();
    let backend = Backend::unix(&home.path("app.sock"));
    let daemon = Daemon::at(home, &format!("ProxyPass /u {}/base", backend.url()));
    let echo = daemon.get("/u/x").echo();
    assert_eq!((echo.origin(), echo.target()), ("unix", "/base/x"));
    assert_eq!(echo.field("host"), Some("origin"));
}

#[test]
fn the_clients_host_is_kept_when_asked_for() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/\nProxyPreserveHost On", backend.url()));
    assert_eq!(daemon.get("/").echo().field("host"), Some("test"));
    // An absolute target says it too; it has to say the same (RFC 9112, 3.2.2).
    let absolute = "GET http://other.test/x HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";
    let echo = daemon.connect().ask(absolute).expect("an answer").echo();
    assert_eq!((echo.field("host"), echo.target()), (Some("other.test"), "/x"));
    let torn =
        daemon.connect().ask("GET http://other.test/x HTTP/1.1\r\nHost: test\r\n\r\n").expect("an answer");
    assert_eq!((torn.status, torn.closes()), (400, true));
}

#[test]
fn forwarding_fields_are_left_out_when_asked_for() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/\nProxyAddHeaders Off", backend.url()));
    let echo = daemon.get("/").echo();
    for name in ["x-forwarded-for", "x-forwarded-host", "x-forwarded-server", "via"] {
        assert_eq!(echo.field(name), None, "{name}");
    }
}

#[test]
fn fields_of_one_hop_stay_on_their_hop() {
    let backend = Backend::with(|exchange| {
        if exchange.request.target == "/answer" {
            return exchange.respond(
                200,
                &[("Connection", "X-Inner"), ("X-Inner", "1"), ("Keep-Alive", "timeout=9"), ("X-Outer", "2")],
                b"",
            );
        }
        exchange.echo()
    });
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let request = "GET /ask HTTP/1.1\r\nHost: test\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=3\r\n\
                   TE: gzip\r\nProxy-Connection: keep-alive\r\nX-End: 2\r\n\r\n";
    let echo = daemon.connect().ask(request).expect("an answer").echo();
    for name in ["x-hop", "keep-alive", "te", "proxy-connection", "upgrade"] {
        assert_eq!(echo.field(name), None, "{name}");
    }
    assert_eq!(echo.field("x-end"), Some("2"));
    let answer = daemon.get("/answer");
    assert_eq!((answer.field("x-inner"), answer.field("x-outer")), (None, Some("2")));
    assert!(!answer.field("keep-alive").is_some_and(|value| value.contains('9')), "{:?}", answer.fields);
}

#[test]
fn locations_of_the_origin_are_turned_into_ours() {
    let backend = Backend::with(|exchange| {
        let own = exchange.request.field("host").unwrap_or_default().to_owned();
        let place = match exchange.request.target.as_str() {
            "/app/abroad" => "http://elsewhere.test/app/x".to_owned(),
            _ => format!("http://{own}/app/next?q=1"),
        };
        exchange.respond(302, &[("Location", &place), ("Content-Location", &place)], b"")
    });
    let url = backend.url();
    let daemon = Daemon::start(&format!("ProxyPass /front {url}/app\nProxyPassReverse /front {url}/app"));
    let answer = daemon.get("/front/here");
    let ours = answer.field("location").expect("a Location").to_owned();
    assert!(ours.starts_with("http://") && ours.ends_with("/front/next?q=1"), "{ours}");
    assert!(!ours.contains(&backend.authority()), "{ours}");
    assert_eq!(answer.field("content-location"), Some(ours.as_str()));
    assert_eq!(daemon.get("/front/abroad").field("location"), Some("http://elsewhere.test/app/x"));
}

#[test]
fn the_name_picks_the_virtual_host() {
    let (main, one, two) = (Backend::named("main"), Backend::named("one"), Backend::named("two"));
    let daemon = Daemon::start(&format!(
        "ProxyPass /main {}/\n\
         <VirtualHost *:*>\nServerName one.test\nServerAlias alias.test *.wild.test\nProxyPass / {}/\n</VirtualHost>\n\
         <VirtualHost *:*>\nServerName two.test\nProxyPass / {}/\n</VirtualHost>\n",
        main.url(),
        one.url(),
        two.url(),
    ));
    for (host, want) in [
        ("one.test", "one"),
        ("ONE.test", "one"),
        ("one.test:8080", "one"),
        ("alias.test", "one"),
        ("very.wild.test", "one"),
        ("two.test", "two"),
        // No host has this name, so the first that has the address answers.
        ("three.test", "one"),
    ] {
        let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(daemon.connect().ask(request).expect("an answer").echo().origin(), want, "{host}");
    }
    let inherited = "GET /main/x HTTP/1.1\r\nHost: two.test\r\nConnection: close\r\n\r\n";
    let echo = daemon.connect().ask(inherited).expect("an answer").echo();
    assert_eq!(echo.origin(), "main", "the main server's rules stand before a host's own");
}

#[test]
fn ipv6_works_on_both_sides_of_a_listener() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6 loopback");
        return;
    }
    let backend = Backend::start();
    let daemon =
        Daemon::start(&format!("Listen [::1]:0\nListen 127.0.0.1:0\nProxyPass / {}/", backend.url()));
    assert_eq!(daemon.addresses().len(), 2);
    for address in daemon.addresses() {
        let echo = crate::support::daemon::get(*address, "/").expect("an answer").echo();
        assert_eq!(echo.field("x-forwarded-for"), Some(address.ip().to_string().as_str()));
    }
}

#[test]
fn connections_are_not_kept_where_reuse_is_off() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/ disablereuse=On", backend.url()));
    for _ in 0..3 {
        assert_eq!(
            daemon.get("/").echo().field("connection").map(str::to_ascii_lowercase),
            Some("close".into())
        );
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn an_expectation_goes_to_the_origin_and_its_100_comes_back() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let mut client = daemon.connect();
    client.send("POST /up HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.interim(), Ok(100));
    client.send("abcd");
    assert_eq!(client.answer("POST").expect("an answer").echo().body(), (4, Hash::of(b"abcd")));
    assert_eq!(client.get("/next").expect("the connection goes on").status, 200);
}

#[test]
fn an_origin_deaf_to_an_expectation_gets_the_body_all_the_same() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let mut client = daemon.connect();
    // A client that waits for 100 sends its body anyway after a while (RFC 9110, 10.1.1); this one sends it
    // along, so that only the daemon's patience with the origin is tried.
    client.send("POST /deaf HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd");
    let start = Instant::now();
    assert_eq!(client.answer("POST").expect("an answer").echo().body(), (4, Hash::of(b"abcd")));
    assert!(start.elapsed() < Duration::from_secs(20), "the whole time-out was waited for");
}

#[test]
fn interim_answers_pass_but_not_without_end() {
    let count = std::sync::Arc::new(AtomicUsize::new(1));
    let wanted = std::sync::Arc::clone(&count);
    let backend = Backend::with(move |exchange| {
        for _ in 0..wanted.load(Ordering::Relaxed) {
            exchange.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")?;
        }
        exchange.respond(200, &[], b"hints given")
    });
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    daemon.tolerate("proxy");
    let answer = daemon.get("/");
    assert_eq!((answer.interim.as_slice(), answer.text().as_str()), ([103].as_slice(), "hints given"));
    let old = daemon.connect().ask("GET / HTTP/1.0\r\nHost: test\r\n\r\n").expect("an answer");
    assert_eq!((old.interim.len(), old.status), (0, 200), "an HTTP/1.0 client knows no interim answer");
    count.store(1000, Ordering::Relaxed);
    assert_eq!(daemon.get("/").status, 502);
}

#[test]
fn the_origins_own_errors_come_through_as_they_are() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    for status in [404, 500, 503] {
        let answer = daemon.get(&format!("/status/{status}"));
        assert_eq!((answer.status, answer.text().as_str()), (status, "as you wish\n"));
    }
}

#[test]
fn an_origin_that_comes_back_is_used_at_once() {
    // A port nobody listens on, which the origin takes later: freed by us a moment before, so not taken by others
    // soon.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let daemon = Daemon::start(&format!("ProxyPass / http://127.0.0.1:{port}/"));
    daemon.tolerate("proxy");
    assert_eq!(daemon.get("/").status, 503);
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("still free");
    let origin = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("the daemon comes");
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).expect("a request");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
            .expect("sent");
    });
    let answer: Response = daemon.get("/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
    origin.join().expect("the origin is content");
}

#[test]
fn many_clients_each_get_their_own_answer() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let address = daemon.address();
    let clients = crate::support::at_once(16, move |client| {
        let mut connection = Client::connect(address);
        for round in 0..50 {
            let target = format!("/{client}/{round}");
            assert_eq!(connection.get(&target).expect("an answer").echo().target(), target);
        }
    });
    for client in clients {
        client.join().expect("every answer was the right one");
    }
    assert_eq!(backend.requests(), 16 * 50);
}

#[test]
fn a_backend_whose_line_is_full_costs_others_none_of_their_connections() {
    let home = Home::new();
    // Nobody accepts here, and as many wait as may.
    let address = SockAddr::unix(home.path("full")).expect("a short path");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a descriptor is left");
    listener.bind(&address).expect("the directory is the test's own");
    listener.listen(0).expect("it is bound");
    let in_line = std::iter::from_fn(|| {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a descriptor is left");
        client.set_nonblocking(true).expect("it is open");
        client.connect(&address).is_ok().then_some(client)
    });
    let in_line: Vec<Socket> = in_line.take(100).collect();
    assert!((1..100).contains(&in_line.len()), "{} wait", in_line.len());
    let other = Backend::start();
    let text = format!(
        "MPM event\n{}ProxyPass /full unix:{}|http://full\nProxyPass / {}/",
        Mpm::Event.one_child(),
        home.path("full").display(),
        other.url()
    );
    let daemon = Daemon::at(home, &text);
    daemon.tolerate("full");
    let five_at_once = || {
        let mut clients: Vec<Client> = (0..5).map(|_| daemon.connect()).collect();
        for client in &mut clients {
            client.send("GET /delay/300 HTTP/1.1\r\nHost: test\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.answer("GET").expect("an answer").status, 200);
        }
        other.connections()
    };
    assert_eq!(five_at_once(), 5);
    assert_eq!(daemon.get("/full").status, 503);
    assert_eq!(five_at_once(), 5, "they were closed for a backend that takes nobody");
    drop(in_line);
}
