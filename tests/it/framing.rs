//! Where messages end, both ways, under hostile and under honest bytes.

use crate::support::client::Framing;
use crate::support::{Backend, Client, Daemon, Failure, Hash, pattern, processes};
use std::io::{Read, Write};

const MIB: usize = 1024 * 1024;

under_each_mpm! {
    fn bodies_of_every_framing_arrive_byte_for_byte(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        for (kind, length, framing) in [
            ("bytes", 0, [Framing::Length].as_slice()),
            ("bytes", 1, &[Framing::Length]),
            ("bytes", 100_000, &[Framing::Length]),
            ("chunked", 0, &[Framing::Chunked]),
            ("chunked", 999, &[Framing::Chunked]),
            ("chunked", 100_000, &[Framing::Chunked]),
            ("close", 100_000, &[Framing::Chunked, Framing::Close]),
        ] {
            let mut client = daemon.connect();
            let answer = client.get(&format!("/{kind}/{length}")).expect("an answer");
            assert_eq!(answer.status, 200, "{kind}/{length}");
            assert!(framing.contains(&answer.framing), "{kind}/{length}: {:?}", answer.framing);
            assert!(answer.body == pattern(length, length as u64), "{kind}/{length}: other bytes");
            if !answer.closes() {
                assert_eq!(client.get("/next").expect("an answer").echo().target(), "/next");
            }
        }
        let body = pattern(100_000, 7);
        let mut client = daemon.connect();
        let echo = client.post("/up", &body).expect("an answer").echo();
        assert_eq!(echo.body(), (body.len(), Hash::of(&body)));
        client.send("POST /up HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(777) {
            client.send(format!("{:X};name=value\r\n", chunk.len()));
            client.send(chunk);
            client.send("\r\n");
        }
        client.send("0\r\nX-Trailer: 1\r\n\r\n");
        assert_eq!(client.answer("POST").expect("an answer").echo().body(), (body.len(), Hash::of(&body)));
        assert_eq!(client.get("/next").expect("an answer").echo().target(), "/next");
    }

    fn ten_mebibytes_go_up_and_come_down_whole(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let body = pattern(10 * MIB, 11);
        let mut client = daemon.connect();
        assert_eq!(client.post("/up", &body).expect("an answer").echo().body(), (body.len(), Hash::of(&body)));
        let answer = client.get(&format!("/bytes/{}", 10 * MIB)).expect("an answer");
        assert!(answer.body == pattern(10 * MIB, 10 * MIB as u64), "other bytes");
    }

    fn a_client_that_does_not_read_costs_no_memory(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", mpm.one_child(), backend.url()));
        assert_eq!(daemon.get("/bytes/100000").status, 200);
        let child = daemon.wait_for_children(1)[0];
        let before = processes::figure(child, "VmHWM").expect("the kernel knows");
        let mut client = daemon.connect();
        let length = 64 * MIB;
        client.send(format!("GET /bytes/{length} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        // Small bites for a while, as the origin pushes as hard as it can; then all the rest.
        let mut bite = [0; 1000];
        for _ in 0..50 {
            client.stream().read_exact(&mut bite).expect("bytes come");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let rest = client.rest().expect("the rest comes");
        let after = processes::figure(child, "VmHWM").expect("the kernel knows");
        assert!(rest.len() + 50 * bite.len() > length, "only {} bytes came", rest.len());
        assert!(rest[rest.len() - MIB..] == pattern(length, length as u64)[length - MIB..], "other bytes");
        assert!(after - before < 8 * 1024, "from {before} to {after} KiB: the body was buffered");
    }

    fn an_origin_that_does_not_read_costs_no_memory(mpm) {
        let backend = Backend::with(|exchange| {
            exchange.hold();
            exchange.echo()
        });
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", mpm.one_child(), backend.url()));
        let mut client = daemon.connect();
        let child = daemon.wait_for_children(1)[0];
        let before = processes::figure(child, "VmHWM").expect("the kernel knows");
        let body = pattern(64 * MIB, 3);
        client.send(format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
        backend.wait_for_now(1);
        // The kernel's buffers on the way take some MiB; then a write stays without progress.
        let stream = client.stream();
        stream.set_write_timeout(Some(std::time::Duration::from_secs(2))).expect("not zero");
        let mut sent = 0;
        while sent < body.len() {
            match stream.write(&body[sent..(sent + MIB).min(body.len())]) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        assert!(sent < body.len(), "64 MiB went to an origin that reads nothing");
        let after = processes::figure(child, "VmHWM").expect("the kernel knows");
        assert!(after - before < 8 * 1024, "from {before} to {after} KiB: the body was buffered");
        backend.release();
        stream.set_write_timeout(Some(crate::support::PATIENCE)).expect("not zero");
        client.send(&body[sent..]);
        assert_eq!(client.answer("POST").expect("an answer").echo().body(), (body.len(), Hash::of(&body)));
    }

    fn an_http_1_0_client_gets_what_it_can_read(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        for kind in ["bytes", "chunked", "close"] {
            let mut client = daemon.connect();
            let answer = client.ask(format!("GET /{kind}/5000 HTTP/1.0\r\n\r\n")).expect("an answer");
            assert_eq!(answer.status, 200, "{kind}");
            assert_ne!(answer.framing, Framing::Chunked, "{kind}");
            assert!(answer.body == pattern(5000, 5000), "{kind}: other bytes");
            assert_eq!(client.closed(), Ok(()), "{kind}");
        }
    }

    fn a_body_cut_short_by_the_origin_never_looks_whole(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        daemon.tolerate("proxy");
        match daemon.connect().get("/cut/10000") {
            Err(Failure::Cut(_) | Failure::Reset) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(daemon.get("/after").status, 200);
    }
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let mut client = daemon.connect();
    let head = client.ask("HEAD /bytes/1234 HTTP/1.1\r\nHost: test\r\n\r\n").expect("an answer");
    assert_eq!((head.status, head.field("content-length")), (200, Some("1234")));
    let head = client.ask("HEAD /chunked/1234 HTTP/1.1\r\nHost: test\r\n\r\n").expect("an answer");
    assert_eq!((head.status, head.field("content-length")), (200, None));
    for status in [204, 304] {
        let answer = client.get(&format!("/status/{status}")).expect("an answer");
        assert_eq!((answer.status, answer.framing), (status, Framing::None));
        assert_eq!(client.get("/next").expect("an answer").echo().target(), "/next", "after {status}");
    }
}

#[test]
fn trailers_pass_when_the_client_takes_them() {
    let backend = Backend::with(|exchange| exchange.respond_chunked(b"the body", 3, "X-Sum: 42\r\n"));
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let asks = "GET / HTTP/1.1\r\nHost: test\r\nTE: trailers\r\nConnection: TE\r\n\r\n";
    let answer = daemon.connect().ask(asks).expect("an answer");
    assert_eq!(answer.text(), "the body");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
}

#[test]
fn an_early_answer_stops_the_upload() {
    let backend = Backend::with(|exchange| {
        exchange.respond(413, &[("Connection", "close")], b"enough")?;
        exchange.close();
        Ok(())
    });
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    daemon.tolerate("proxy");
    let mut client = daemon.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", 64 * MIB));
    client.send(pattern(100_000, 1));
    let answer = client.answer("POST").expect("an answer, with most of the body still here");
    assert_eq!((answer.status, answer.text().as_str()), (413, "enough"));
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let mut client = daemon.connect();
    for byte in
        b"POST /slow HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    {
        client.send([*byte]);
    }
    let echo = client.answer("POST").expect("an answer").echo();
    assert_eq!((echo.target(), echo.body()), ("/slow", (5, Hash::of(b"hello"))));
}

/// What no client may say: a status and a close.
#[test]
fn garbage_from_a_client_earns_a_status_and_a_close() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let long_size = "1".repeat(17);
    for (bytes, statuses) in [
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), [400].as_slice()),
        ("GET\r\n\r\n".to_owned(), &[400]),
        ("GET /\r\n\r\n".to_owned(), &[400, 505]),
        ("GET / HTTP/1.1 extra\r\nHost: test\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/3.0\r\nHost: test\r\n\r\n".to_owned(), &[400, 505]),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/1.1\r\nHost : test\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/1.1\r\nHost: test\r\nno colon\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/1.1\r\nHost: test\r\nX: a\0b\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/1.1\r\nHost: test\r\nX: a\rb\r\n\r\n".to_owned(), &[400]),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: +5\r\n\r\nhello".to_owned(), &[400]),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0x5\r\n\r\nhello".to_owned(), &[400]),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length:\r\n\r\nhello".to_owned(), &[400]),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5, 5\r\n\r\nhello".to_owned(), &[400]),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello".to_owned(), &[400]),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999999999999\r\n\r\n".to_owned(), &[400, 413]),
        (
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            &[400],
        ),
        ("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), &[400, 501]),
        ("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked, gzip\r\n\r\n".to_owned(), &[400, 501]),
        ("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\n".to_owned(), &[400]),
        ("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n".to_owned(), &[400]),
        (format!("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{long_size}\r\n"), &[400, 413]),
    ] {
        let mut client = daemon.connect();
        client.send(&bytes);
        client.finish_sending();
        let answer = client.answer("POST").unwrap_or_else(|failure| panic!("{bytes:?}: {failure:?}"));
        assert!(statuses.contains(&answer.status), "{bytes:?}: {}", answer.status);
        assert!(answer.closes(), "{bytes:?}: the connection is to be kept: {:?}", answer.fields);
        assert_eq!(client.closed(), Ok(()), "{bytes:?}");
    }
    assert_eq!(daemon.get("/after").status, 200);
}

#[test]
fn a_request_hidden_behind_a_refused_one_is_never_seen() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Content-Length: -1",
    ] {
        let mut client = daemon.connect();
        client.send(format!("POST /refused HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n0\r\n\r\n"));
        client.send("GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = client.answer("POST").unwrap_or_else(|failure| panic!("{framing}: {failure:?}"));
        assert!(answer.status == 400 || answer.status == 501, "{framing}: {}", answer.status);
        assert_eq!(client.closed(), Ok(()), "{framing}");
    }
    assert_eq!(daemon.get("/after").status, 200);
    assert_eq!(backend.asked_for("/smuggled"), 0);
}

/// What no origin may say: 502, and the client learns nothing of it.
#[test]
fn garbage_from_an_origin_is_a_502() {
    let long_field: &'static [u8] = Box::leak(
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(300_000)).into_bytes().into_boxed_slice(),
    );
    for bytes in [
        b"garbage\r\n\r\n".as_slice(),
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: cut",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n",
        long_field,
    ] {
        let backend = Backend::raw(bytes);
        let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
        daemon.tolerate("proxy");
        let sent = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        let answer = daemon.get("/");
        assert_eq!(answer.status, 502, "{sent:?}");
        assert_eq!(answer.field("x"), None, "{sent:?}");
    }
}

#[test]
fn bytes_that_an_origin_pushes_unasked_poison_nobody() {
    let pushed = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&pushed);
    let backend = Backend::with(move |exchange| {
        exchange.echo()?;
        let sent = exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        sent
    });
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    daemon.tolerate("proxy");
    for round in 0..10 {
        let target = format!("/{round}");
        assert_eq!(daemon.get(&target).echo().target(), target);
        // What comes only when the next request is on its way is its answer, as far as anybody can tell.
        crate::support::wait_until("the origin has pushed", || {
            (pushed.load(std::sync::atomic::Ordering::SeqCst) > round).then_some(())
        });
    }
}

#[test]
fn random_bytes_end_no_child() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let before = daemon.children();
    for seed in 0..200 {
        let mut client = Client::connect(daemon.address());
        client.send(pattern(200 + 7 * seed, seed as u64));
        client.finish_sending();
        let _ = client.rest();
    }
    assert_eq!(daemon.get("/after").status, 200);
    daemon.assert_alive(&before);
}
