//! Our own answers: what a client or an origin must not do, or does not do in time.

use crate::support::backend::{Exchange, by_path};
use crate::support::{Backend, Client, Daemon, Failure, Mpm, pattern};
use socket2::{Domain, Socket, Type};
use std::io::{self, Write};
use std::iter;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

under_each_mpm! {
    fn a_head_that_does_not_come_in_time_is_a_408(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/\nRequestReadTimeout header=1", backend.url()));
        let mut client = daemon.connect();
        client.send("GET /slow HTTP/1.1\r\nHost: te");
        let answer = client.answer("GET").expect("an answer");
        assert_eq!((answer.status, answer.closes()), (408, true));
        assert_eq!(client.closed(), Ok(()));
        assert_eq!(backend.requests(), 0);
    }

    fn a_body_that_does_not_come_in_time_is_a_408(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/\nRequestReadTimeout body=1", backend.url()));
        daemon.tolerate("proxy");
        let mut client = daemon.connect();
        client.send("POST /slow HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nonly this");
        let answer = client.answer("POST").expect("an answer");
        assert_eq!((answer.status, answer.closes()), (408, true));
        assert_eq!(client.closed(), Ok(()));
    }

    fn a_refused_upload_gets_its_answer_through(mpm) {
        // The client is still sending when the answer comes; a close with unread bytes would reset it away.
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("LimitRequestBody 1000\nProxyPass / {}/", backend.url()));
        for _ in 0..20 {
            let mut client = daemon.connect();
            client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
            client.send(pattern(1_000_000, 1));
            assert_eq!(client.answer("POST").expect("the answer survives the close").status, 413);
        }
    }

    fn bytes_behind_a_body_do_not_reset_the_answer_away(mpm) {
        // More than is on its way to a client that has not begun to read: the rest waits in the daemon's kernel when
        // the connection is closed.
        const SIZE: usize = 2_000_000;
        let (tell, told) = mpsc::channel();
        let backend = Backend::with(move |exchange| {
            exchange.read_body(|_| {})?;
            let _ = tell.send(());
            exchange.hold();
            exchange.respond(200, &[], &pattern(SIZE, 5))
        });
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        for (length, is_apart) in [(5, true), (200_000, false)] {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_recv_buffer_size(16 * 1024).expect("a fresh socket takes options");
            socket.connect(&daemon.address().into()).expect("the daemon listens");
            let mut client = Client::over(socket.into());
            let head = format!("POST /up HTTP/1.0\r\nContent-Length: {length}\r\n\r\n");
            let mut request = [head.as_bytes(), &pattern(length, 1)].concat();
            if is_apart {
                client.send(&request);
                told.recv().expect("the origin has the body");
                // Never part of a request (RFC 9112, 2.2), but some clients send it.
                client.send("\r\n");
                backend.release();
            } else {
                request.extend(b"\r\n");
                client.send(&request);
                told.recv().expect("the origin has the body");
            }
            std::thread::sleep(Duration::from_millis(300));
            let answer = client.answer("POST").unwrap_or_else(|failure| panic!("{length}: {failure:?}"));
            assert!(answer.body == pattern(SIZE, 5), "{length}: other bytes");
        }
    }

    fn an_answer_that_has_begun_is_not_cut_for_want_of_the_body(mpm) {
        // The origin answers at once, for three seconds, and the client, which waits for 100, never sends its body.
        let backend = Backend::with(|exchange| {
            exchange.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for _ in 0..6 {
                std::thread::sleep(Duration::from_millis(500));
                exchange.raw(b"5\r\nabcde\r\n")?;
            }
            exchange.close();
            exchange.raw(b"0\r\n\r\n")
        });
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/\nRequestReadTimeout body=1", backend.url()));
        let mut client = daemon.connect();
        client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n");
        let answer = client.answer("PUT").expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, 30));
    }

    fn a_body_that_dribbles_does_not_keep_a_silent_origin_from_being_given_up(mpm) {
        let backend = Backend::with(|exchange| {
            exchange.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")?;
            exchange.read_body_deaf(|_| {})
        });
        let text = format!("ProxyTimeout 2\nProxyPass / {}/\nRequestReadTimeout body=1", backend.url());
        let daemon = Daemon::under(mpm, &text);
        daemon.tolerate("proxy");
        let mut client = daemon.connect();
        client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n");
        let mut sender = client.stream().try_clone().expect("a descriptor is free");
        let sending = std::thread::spawn(move || {
            // For far longer than both time-outs together.
            (0..300).any(|_| {
                std::thread::sleep(Duration::from_millis(100));
                sender.write_all(b"x").is_err()
            })
        });
        let answer = client.answer("PUT");
        assert!(matches!(answer, Err(Failure::Cut(_) | Failure::Reset)), "{answer:?}");
        drop(client);
        assert!(sending.join().expect("no panic"), "it was let dribble on");
    }

    fn an_origin_that_refuses_is_a_503_and_one_that_is_silent_a_504(mpm) {
        // A port that we hold without listening: every connection to it is refused.
        let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        held.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("port 0 is always free");
        let refused = held.local_addr().ok().and_then(|address| address.as_socket()).expect("bound above");
        let backend = Backend::start();
        let daemon = Daemon::under(
            mpm,
            &format!(
                "ProxyTimeout 1\nProxyPass /refused http://{refused}\nProxyPass / {}/",
                backend.url()
            ),
        );
        daemon.tolerate("proxy");
        let start = Instant::now();
        assert_eq!(daemon.get("/refused").status, 503);
        assert_eq!(daemon.get("/hold").status, 504);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert_eq!(daemon.get("/hangup").status, 502);
        assert_eq!(daemon.get("/reset").status, 502);
        assert_eq!(daemon.get("/after").status, 200, "one failure does not shut the origin out");
    }
}

#[test]
fn an_origin_that_never_accepts_is_a_504() {
    // A queue of one that nobody empties: once it is full the kernel answers no further SYN.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("port 0 is always free");
    listener.listen(0).expect("it may listen");
    let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("bound above");
    let mut queue = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queue.push(stream);
        assert!(queue.len() < 100, "the kernel's queue has no end");
    }
    let daemon = Daemon::start(&format!("ProxyPass / http://{address}/ connectiontimeout=1 timeout=30"));
    daemon.tolerate("proxy");
    let start = Instant::now();
    let status = daemon.get("/").status;
    assert!(status == 503 || status == 504, "{status}");
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "connectiontimeout is what counts: {:?}",
        start.elapsed()
    );
}

#[test]
fn what_is_too_long_is_refused_by_the_right_status() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!(
        "LimitRequestLine 200\nLimitRequestFields 10\nLimitRequestFieldSize 300\nLimitRequestBody 1000\n\
         ProxyPass / {}/",
        backend.url()
    ));
    let many = |count: usize| -> String { (0..count).map(|number| format!("X-{number}: x\r\n")).collect() };
    let chunked = |length: usize| format!("{length:x}\r\n{}\r\n0\r\n\r\n", "b".repeat(length));
    let post = "POST / HTTP/1.1\r\nHost: test\r\n";
    for (what, request, statuses) in [
        (
            "a line that just fits",
            format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(180)),
            [200].as_slice(),
        ),
        ("a long line", format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(300)), &[414]),
        ("a line without an end", format!("GET /{}", "a".repeat(5000)), &[414]),
        (
            "a long field",
            format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "a".repeat(400)),
            &[431, 400],
        ),
        ("as many fields as may be", format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", many(9)), &[200]),
        ("many fields", format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", many(20)), &[431, 400]),
        ("a body that just fits", format!("{post}Content-Length: 1000\r\n\r\n{}", "b".repeat(1000)), &[200]),
        ("a long body", format!("{post}Content-Length: 1001\r\n\r\n{}", "b".repeat(1001)), &[413]),
        (
            "chunks that just fit",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n{}", chunked(1000)),
            &[200],
        ),
        ("chunks that do not", format!("{post}Transfer-Encoding: chunked\r\n\r\n{}", chunked(1001)), &[413]),
    ] {
        let mut client = daemon.connect();
        let answer = client.ask(&request).unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
        assert!(statuses.contains(&answer.status), "{what}: {}", answer.status);
        if answer.status != 200 {
            assert_eq!(client.closed(), Ok(()), "{what}");
        }
    }
}

#[test]
fn a_path_without_a_rule_is_a_404_of_our_own() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass /app {}", backend.url()));
    let mut client = daemon.connect();
    let answer = client.get("/elsewhere").expect("an answer");
    assert_eq!((answer.status, answer.closes()), (404, false));
    assert!(answer.field("server").is_some_and(|server| server.starts_with("Ostler")), "{:?}", answer.fields);
    assert!(answer.field("date").is_some_and(|date| date.ends_with(" GMT")), "{:?}", answer.fields);
    assert!(answer.text().contains("404"), "{}", answer.text());
    let head = client.ask("HEAD /elsewhere HTTP/1.1\r\nHost: test\r\n\r\n").expect("an answer");
    assert_eq!(head.status, 404);
    assert_eq!(client.get("/app/x").expect("the connection goes on").status, 200);
}

#[test]
fn the_slow_origin_of_one_client_does_not_hold_up_others() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let mut slow = daemon.connect();
    slow.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    backend.wait_for_now(1);
    for _ in 0..50 {
        assert_eq!(daemon.get("/").status, 200);
    }
    backend.release();
    assert_eq!(slow.answer("GET").expect("an answer").status, 200);
}

#[test]
fn max_bounds_the_connections_to_an_origin() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!(
        "StartServers 1\nServerLimit 1\nThreadsPerChild 20\nMaxRequestWorkers 20\nMinSpareThreads 1\n\
         ProxyPass / {}/ max=3",
        backend.url()
    ));
    let address = daemon.address();
    let clients = crate::support::at_once(12, move |_| crate::support::daemon::get(address, "/delay/100"));
    crate::support::load::all_served(clients);
    assert!(backend.most() <= 3, "{} at once", backend.most());
}

/// An origin that does as `act` says, with `max=1` at `/app`, and the order in which requests arrive.
fn one_place(
    mpm: Mpm,
    act: impl Fn(&mut Exchange) -> io::Result<()> + Send + Sync + 'static,
) -> (Backend, Daemon, Arc<Mutex<Vec<String>>>) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let backend = Backend::with(move |exchange| {
        seen.lock().expect("no panic").push(exchange.request.target.clone());
        act(exchange)
    });
    let text = format!("{}ProxyPass /app {} max=1", mpm.one_child(), backend.url());
    (backend, Daemon::under(mpm, &text), order)
}

/// Asks for `target`, and returns once that request stands in the line.
fn line_up(daemon: &Daemon, target: &str) -> Client {
    let mut client = daemon.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    for _ in 0..50 {
        assert_eq!(daemon.get("/elsewhere").status, 404);
    }
    client
}

#[test]
fn who_waits_for_a_place_at_an_origin_gets_the_next_that_is_free() {
    for mpm in [Mpm::Event, Mpm::Worker] {
        let (backend, daemon, order) = one_place(mpm, by_path);
        let mut many = daemon.connect();
        let targets: Vec<String> =
            iter::once("/hold".to_owned()).chain((1..=50).map(|number| format!("/a{number}"))).collect();
        let request = |target| format!("GET /app{target} HTTP/1.1\r\nHost: test\r\n\r\n");
        many.send(targets.iter().map(request).collect::<String>());
        backend.wait_for_now(1);
        let mut one = line_up(&daemon, "/app/b");
        backend.release();
        assert_eq!(one.answer("GET").expect("an answer").status, 200);
        for target in &targets {
            assert_eq!(many.answer("GET").expect(target).status, 200);
        }
        let order = order.lock().expect("no panic");
        assert_eq!(
            (&order[..3], order.len()),
            (&["/hold", "/b", "/a1"].map(str::to_owned)[..], 52),
            "{mpm:?}"
        );
    }
}

#[test]
fn a_request_that_is_repeated_keeps_its_place_at_the_origin() {
    for mpm in [Mpm::Event, Mpm::Worker] {
        // The first connection is closed under its second request, unanswered.
        let (backend, daemon, order) = one_place(mpm, |exchange| {
            if (exchange.connection, exchange.nth) == (1, 2) {
                exchange.hold();
                exchange.close();
                return Ok(());
            }
            by_path(exchange)
        });
        let mut first = daemon.connect();
        assert_eq!(first.get("/app/a").expect("an answer").status, 200);
        first.send("GET /app/again HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        let mut second = line_up(&daemon, "/app/b");
        backend.release();
        for client in [&mut first, &mut second] {
            assert_eq!(client.answer("GET").expect("an answer").status, 200);
        }
        assert_eq!(order.lock().expect("no panic")[..], ["/a", "/again", "/again", "/b"], "{mpm:?}");
    }
}
