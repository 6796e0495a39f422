//! Bodies that must pass as they are: encoded, in ranges, larger than 32 bits count, in single bytes, or broken off.

use crate::support::{Backend, Client, Daemon, Failure, pattern};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};

under_each_mpm! {
    fn encoded_and_ranged_bodies_are_not_touched(mpm) {
        // The first bytes of a gzip file, and then anything: to a proxy without filters it is all one.
        let zipped = [&[0x1f, 0x8b, 8, 0][..], &pattern(50_000, 3)].concat();
        let whole = pattern(100_000, 4);
        let (answer, part) = (zipped.clone(), whole[500..70_500].to_vec());
        let backend = Backend::with(move |exchange| match exchange.request.field("range") {
            Some("bytes=500-70499") => {
                let fields = [("Content-Range", "bytes 500-70499/100000"), ("Accept-Ranges", "bytes")];
                exchange.respond(206, &fields, &part)
            }
            Some(_) => exchange.respond(416, &[("Content-Range", "bytes */100000")], b""),
            None => exchange.respond(200, &[("Content-Encoding", "gzip"), ("ETag", "\"a-gzip\"")], &answer),
        });
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        let answer = client.get("/zipped").expect("an answer");
        assert_eq!((answer.field("content-encoding"), answer.field("etag")), (Some("gzip"), Some("\"a-gzip\"")));
        assert!(answer.body == zipped, "other bytes");
        let answer = client.ask("GET / HTTP/1.1\r\nHost: test\r\nRange: bytes=500-70499\r\n\r\n").expect("an answer");
        assert_eq!((answer.status, answer.field("content-range")), (206, Some("bytes 500-70499/100000")));
        assert!(answer.body == whole[500..70_500], "other bytes");
        let answer = client.ask("GET / HTTP/1.1\r\nHost: test\r\nRange: bytes=9-1\r\n\r\n").expect("an answer");
        assert_eq!((answer.status, answer.field("content-range")), (416, Some("bytes */100000")));
    }

    fn single_bytes_add_up_both_ways(mpm) {
        let backend = Backend::with(|exchange| {
            let mut body = Vec::new();
            exchange.read_body(|bytes| body.extend_from_slice(bytes))?;
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-End: 1\r\n\r\n".to_vec();
            for byte in &body {
                bytes.extend_from_slice(&[b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            bytes.iter().try_for_each(|byte| exchange.raw(&[*byte]))
        });
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        client.stream().set_nodelay(true).expect("it is TCP");
        let body = pattern(300, 5);
        for head in ["Content-Length: 300\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n12c\r\n"] {
            let end = if head.starts_with('T') { "\r\n0\r\n\r\n" } else { "" };
            let request = [b"POST / HTTP/1.1\r\nHost: test\r\n", head.as_bytes(), &body, end.as_bytes()].concat();
            request.iter().for_each(|byte| client.send([*byte]));
            let answer = client.answer("POST").expect("an answer");
            assert!(answer.body == body && answer.field("x-end") == Some("1"), "{head:?}");
        }
    }

    fn what_breaks_off_looks_whole_to_nobody(mpm) {
        // Up: the backend must see an end that is none, whichever way the body is framed.
        let (tell, told) = mpsc::channel();
        let down = Arc::new(AtomicU8::new(0));
        let way = Arc::clone(&down);
        let backend = Backend::with(move |exchange| {
            if exchange.request.method == "POST" {
                let mut length = 0;
                let whole = exchange.read_body(|bytes| length += bytes.len()).is_ok();
                let _ = tell.send((length, whole));
                return Ok(());
            }
            let (head, end) = match way.load(Ordering::Relaxed) {
                0 => ("Content-Length: 100000\r\n\r\n", ""),
                1 => ("Transfer-Encoding: chunked\r\n\r\n186a0\r\n", ""),
                // All the data, and no last chunk.
                _ => ("Transfer-Encoding: chunked\r\n\r\nc350\r\n", "\r\n"),
            };
            exchange.raw(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes())?;
            exchange.raw(&pattern(50_000, 6))?;
            exchange.raw(end.as_bytes())?;
            exchange.close();
            Ok(())
        });
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        daemon.tolerate("proxy");
        for head in ["Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n186a0\r\n"] {
            let mut client = daemon.connect();
            client.send(format!("POST /up HTTP/1.1\r\nHost: test\r\n{head}"));
            client.send(pattern(50_000, 6));
            drop(client);
            let (length, whole) = told.recv().expect("the backend tells");
            assert!(length <= 50_000 && !whole, "{head:?}: {length} bytes, whole: {whole}");
        }
        // Down: the client must see the same.
        for way in 0..3 {
            down.store(way, Ordering::Relaxed);
            let answer = daemon.connect().get("/down");
            let is_cut = matches!(answer, Err(Failure::Cut(_) | Failure::Reset));
            assert!(is_cut, "{way}: {:?}", answer.map(|answer| answer.body.len()));
            // An HTTP/1.0 client knows no chunks: for it, only a reset is no end.
            let old = daemon.connect().ask("GET /down HTTP/1.0\r\nHost: test\r\n\r\n");
            let is_cut = matches!(old, Err(Failure::Cut(_) | Failure::Reset));
            assert!(is_cut, "{way}, HTTP/1.0: {:?}", old.map(|answer| answer.body.len()));
        }
    }
}

/// Five GiB up and down, in zeros: more than 32 bits count.
#[test]
fn five_gibibytes_go_up_and_come_down() {
    const SIZE: u64 = 5 << 30;
    let backend = Backend::with(|exchange| {
        let mut length = 0;
        exchange.read_body(|bytes| length += bytes.len() as u64)?;
        if length > 0 {
            return exchange.respond(200, &[], length.to_string().as_bytes());
        }
        exchange.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())?;
        let block = vec![0; 1 << 20];
        (0..SIZE >> 20).try_for_each(|_| exchange.raw(&block))
    });
    let daemon = Daemon::start(&format!("LimitRequestBody 0\nProxyPass / {}/", backend.url()));
    let mut client: Client = daemon.connect();
    client.send(format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {SIZE}\r\n\r\n"));
    let mut block = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        client.stream().write_all(&block).expect("it is taken");
    }
    assert_eq!(client.answer("POST").expect("an answer").text(), SIZE.to_string());
    client.send("GET /down HTTP/1.1\r\nHost: test\r\n\r\n");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.stream().read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.contains(&format!("content-length: {SIZE}\r\n")), "{head}");
    let zeros = block.clone();
    for _ in 0..SIZE >> 20 {
        client.stream().read_exact(&mut block).expect("all of it comes");
        assert!(block == zeros, "other bytes came than were sent");
    }
    let answer = client.post("/next", b"ab").expect("the connection is where it should be");
    assert_eq!(answer.text(), "2");
}
