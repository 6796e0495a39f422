//! The actors without the daemon: a client that forgives, or an origin that errs, would make every other test
//! worthless.

use super::client::Framing;
use super::{Backend, Client, Failure, Hash, at_once, pattern};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

fn address(backend: &Backend) -> SocketAddr {
    backend.authority().parse().expect("an address")
}

#[test]
fn the_origin_does_as_the_path_says() {
    let backend = Backend::start();
    let mut client = Client::connect(address(&backend));
    let echo = client.get("/x?y").expect("an answer").echo();
    assert_eq!((echo.method(), echo.target(), echo.field("host")), ("GET", "/x?y", Some("test")));
    let body = pattern(100_000, 1);
    assert_eq!(client.post("/up", &body).expect("an answer").echo().body(), (body.len(), Hash::of(&body)));
    client.send("POST /up HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n");
    assert_eq!(client.answer("POST").expect("an answer").echo().body(), (3, Hash::of(b"abc")));
    for (target, framing) in [("/bytes/5000", Framing::Length), ("/chunked/5000", Framing::Chunked)] {
        let answer = client.get(target).expect("an answer");
        assert_eq!((answer.framing, answer.body == pattern(5000, 5000)), (framing, true), "{target}");
    }
    assert_eq!(client.get("/status/204").map(|answer| answer.framing), Ok(Framing::None));
    assert_eq!(client.get("/close/5000").map(|answer| answer.framing), Ok(Framing::Close));
    let ask = |target: &str| Client::connect(address(&backend)).get(target).map(|answer| answer.status);
    assert_eq!(ask("/cut/1000"), Err(Failure::Cut(500)));
    assert_eq!(ask("/hangup"), Err(Failure::Closed));
    assert_eq!(ask("/reset"), Err(Failure::Reset));
}

#[test]
fn the_origin_counts_and_holds() {
    let backend = Backend::start();
    let address = address(&backend);
    let clients = at_once(200, move |_| Client::connect(address).get("/hold").map(|answer| answer.status));
    backend.wait_for_now(200);
    backend.release();
    assert!(clients.into_iter().all(|client| client.join().is_ok_and(|status| status == Ok(200))));
    assert_eq!(
        (backend.requests(), backend.connections(), backend.most(), backend.now()),
        (200, 200, 200, 0)
    );
}

#[test]
fn the_client_forgives_nothing() {
    for (bytes, is_good) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", true),
        ("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi", true),
        (
            "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            true,
        ),
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", false),
        ("HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nhi", false),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh", false),
        ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", false),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            false,
        ),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", false),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nhi", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more", false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
        let address = listener.local_addr().expect("bound");
        let origin = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the client comes");
            let _ = stream.read(&mut [0; 1000]).expect("a request");
            stream.write_all(bytes.as_bytes()).expect("sent");
        });
        let mut client = Client::connect(address);
        let outcome =
            client.get("/").map(|answer| answer.text()).and_then(|text| client.closed().map(|()| text));
        assert_eq!(outcome.as_deref() == Ok("hi"), is_good, "{bytes:?}: {outcome:?}");
        origin.join().expect("the origin is content");
    }
}
