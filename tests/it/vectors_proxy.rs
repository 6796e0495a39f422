//! The test vectors of the proxying notes: what httpd does, what its users expect, and where this program means to
//! be better. Numbers are those of the notes; each is shown here or where the table says.
//!
//! | number | what | shown by |
//! |---|---|---|
//! | 1 | the first rule that matches wins; `!` only before it | `rules_win_in_the_order_of_the_file` |
//! | 2 | whole segments; runs of slashes; no other port | `proxy::rules_are_tried_in_order_and_match_whole_segments`, `proxy::a_client_cannot_complete_the_authority_of_a_rule_without_a_path` |
//! | 3 | our X-Forwarded-For can't be named away | `what_we_add_cannot_be_named_away` |
//! | 4, 5, 16, 17 | several backends, trusted peers | with the balancer |
//! | 6 | a silent backend is 504, garbage 502 | `silence_is_a_504_and_garbage_a_502` |
//! | 7 | one retry of a GET, none of a POST | `proxy::a_get_whose_pooled_connection_just_died_is_sent_once_more`, `proxy::a_post_whose_pooled_connection_just_died_is_not_repeated` |
//! | 8 | Content-Length with Transfer-Encoding: here a 400 and a close | `what_frames_a_body_in_doubt_is_refused` |
//! | 9 | malformed lengths, unknown codings | the same |
//! | 10 | sizes of chunks | the same, and `a_blank_or_an_extension_behind_a_chunk_size_is_taken` |
//! | 11 | LimitRequestBody while streaming | `a_body_over_its_limit_costs_the_backend_connection` |
//! | 12 | a backend deaf to Expect costs a second | `a_backend_deaf_to_expect_costs_a_second` |
//! | 13 | 101 that was not asked for, or to something else | `a_switch_that_was_not_asked_for_is_a_502` |
//! | 14 | the log of a body cut short | `logging::an_answer_that_was_cut_is_logged_with_what_was_sent` |
//! | 15 | interim responses: ten, not eleven | `ten_interim_responses_pass_and_eleven_do_not` |
//! | 18 | a field line of 100 kB | `nothing_of_a_response_with_a_huge_field_passes` |
//!
//! And of the text before them, what no other module shows: RequestReadTimeout with a rate, in both phases.

use crate::support::{Backend, Client, Daemon, Hash};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn proxied(backend: &Backend) -> Daemon {
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    daemon.tolerate("proxy");
    daemon
}

#[test]
fn rules_win_in_the_order_of_the_file() {
    let (x, y) = (Backend::named("x"), Backend::named("y"));
    let lines = |first: &str, second: &str| format!("{first}\n{second}\n");
    let (deep, flat) = (format!("ProxyPass /a/b {}", x.url()), format!("ProxyPass /a {}", y.url()));
    let cut = "ProxyPass /a/b !".to_owned();
    for (text, want) in [
        (lines(&deep, &flat), Some("x")),
        (lines(&flat, &deep), Some("y")),
        (lines(&flat, &cut), Some("y")),
        (lines(&cut, &flat), None),
    ] {
        let answer = Daemon::start(&text).get("/a/b/c");
        match want {
            Some(name) => assert_eq!(answer.echo().origin(), name, "{text}"),
            None => assert_eq!(answer.status, 404, "{text}"),
        }
    }
}

#[test]
fn what_we_add_cannot_be_named_away() {
    let backend = Backend::start();
    let daemon = proxied(&backend);
    let request = "GET / HTTP/1.1\r\nHost: test\r\nConnection: X-Forwarded-For, X-Forwarded-Host, Host, close\r\n\
                   X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\n\r\n";
    let echo = daemon.connect().ask(request).expect("an answer").echo();
    assert_eq!(echo.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(echo.all("x-forwarded-host"), ["test"]);
    assert_eq!(echo.all("host"), [backend.authority().as_str()]);
}

#[test]
fn silence_is_a_504_and_garbage_a_502() {
    let backend = Backend::with(|exchange| match exchange.request.target.as_str() {
        "/hold" => {
            exchange.hold();
            exchange.close();
            Ok(())
        }
        _ => {
            exchange.raw(b"garbage\r\n\r\nmore of it")?;
            exchange.close();
            Ok(())
        }
    });
    let daemon = Daemon::start(&format!("ProxyPass / {}/ timeout=1", backend.url()));
    daemon.tolerate("proxy");
    assert_eq!(daemon.get("/hold").status, 504);
    let answer = daemon.get("/garbage");
    assert_eq!(answer.status, 502);
    assert!(!answer.text().contains("garbage"), "{}", answer.text());
    backend.release();
}

#[test]
fn what_frames_a_body_in_doubt_is_refused() {
    let backend = Backend::start();
    let daemon = proxied(&backend);
    let chunked = |body: &str| format!("Transfer-Encoding: chunked\r\n\r\n{body}");
    for (rest, statuses) in [
        // 8: httpd takes the chunks and closes afterwards; a doubt is a doubt.
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), [400].as_slice()),
        // 9
        ("Content-Length: +5\r\n\r\nhello".to_owned(), &[400]),
        ("Content-Length: 5, 6\r\n\r\nhello".to_owned(), &[400]),
        ("Content-Length: 5, 5\r\n\r\nhello".to_owned(), &[400]),
        ("Content-Length: 0x5\r\n\r\nhello".to_owned(), &[400]),
        ("Content-Length:\r\n\r\nhello".to_owned(), &[400]),
        ("Transfer-Encoding: gzip\r\n\r\n".to_owned(), &[400, 501]),
        // 10
        (chunked("0x5\r\nhello\r\n0\r\n\r\n"), &[400]),
        (chunked("5\nhello\r\n0\r\n\r\n"), &[400]),
        (chunked("00000000000000005\r\nhello\r\n0\r\n\r\n"), &[400]),
    ] {
        let mut client = daemon.connect();
        client.send(format!(
            "POST /doubt HTTP/1.1\r\nHost: test\r\n{rest}GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        let answer = client.answer("POST").unwrap_or_else(|failure| panic!("{rest:?}: {failure:?}"));
        assert!(statuses.contains(&answer.status) && answer.closes(), "{rest:?}: {}", answer.status);
        assert_eq!(client.closed(), Ok(()), "{rest:?}");
    }
    assert_eq!(backend.asked_for("/behind"), 0);
    assert_eq!(daemon.get("/after").status, 200);
}

#[test]
fn a_blank_or_an_extension_behind_a_chunk_size_is_taken() {
    let backend = Backend::start();
    let daemon = proxied(&backend);
    let mut client = daemon.connect();
    for size in ["5 ", "5;ext=1", "5;a=\"b;c\""] {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nhello\r\n0\r\n\r\n"
        ));
        let echo = client.answer("POST").unwrap_or_else(|failure| panic!("{size:?}: {failure:?}")).echo();
        assert_eq!(echo.body(), (5, Hash::of(b"hello")), "{size:?}");
    }
}

#[test]
fn a_switch_that_was_not_asked_for_is_a_502() {
    const TO_WEBSOCKET: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nsmuggled";
    const TO_OTHER: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nsmuggled";
    const TO_BOTH: &[u8] =
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nsmuggled";
    let asked = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    for (fields, answer, want) in [
        ("", TO_WEBSOCKET, 502),
        ("Upgrade: websocket\r\n", TO_WEBSOCKET, 502),
        ("Upgrade: h2c\r\nConnection: Upgrade\r\n", TO_OTHER, 502),
        (asked, TO_OTHER, 502),
        (asked, TO_BOTH, 502),
        (asked, TO_WEBSOCKET, 101),
    ] {
        let backend = Backend::raw(answer);
        let daemon = proxied(&backend);
        let mut client = daemon.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
        if want == 101 {
            client.finish_sending();
            let bytes = client.rest().expect("the tunnel ends with its two sides");
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.starts_with("HTTP/1.1 101 ") && text.ends_with("\r\n\r\nsmuggled"), "{text}");
        } else {
            let answer = client.answer("GET").unwrap_or_else(|failure| panic!("{fields:?}: {failure:?}"));
            assert_eq!((answer.status, answer.text().contains("smuggled")), (want, false), "{fields:?}");
        }
    }
}

#[test]
fn ten_interim_responses_pass_and_eleven_do_not() {
    let count = Arc::new(AtomicUsize::new(10));
    let wanted = Arc::clone(&count);
    let backend = Backend::with(move |exchange| {
        for _ in 0..wanted.load(Ordering::Relaxed) {
            exchange.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")?;
        }
        exchange.respond(200, &[], b"hints given")
    });
    let daemon = proxied(&backend);
    let answer = daemon.get("/");
    assert_eq!((answer.interim, answer.status), (vec![103; 10], 200));
    count.store(11, Ordering::Relaxed);
    assert_eq!(daemon.get("/").status, 502);
}

#[test]
fn nothing_of_a_response_with_a_huge_field_passes() {
    let backend = Backend::with(|exchange| {
        let huge = "a".repeat(100_000);
        exchange.raw(
            format!("HTTP/1.1 200 OK\r\nX-Early: seen\r\nX-Huge: {huge}\r\nContent-Length: 0\r\n\r\n")
                .as_bytes(),
        )
    });
    let answer = proxied(&backend).get("/");
    assert_eq!((answer.status, answer.field("x-early"), answer.field("x-huge")), (502, None, None));
    assert!(!answer.text().contains("aaaa"));
}

/// Sends `text` at once, then `piece` every 100 ms until told to stop or nobody takes it.
fn trickle(
    client: &mut Client,
    text: &str,
    piece: &'static str,
    stop: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    client.send(text);
    let mut stream = client.stream().try_clone().expect("there are descriptors left");
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        for _ in 0..300 {
            std::thread::sleep(Duration::from_millis(100));
            if stop.load(Ordering::Relaxed) || stream.write_all(piece.as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_client_that_keeps_its_rate_gets_more_than_the_first_second() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!(
        "RequestReadTimeout header=1-60,MinRate=10 body=1-60,MinRate=10\nProxyPass / {}/",
        backend.url()
    ));
    let start = Instant::now();
    let mut client = daemon.connect();
    for (text, end) in [
        ("GET /head HTTP/1.1\r\nHost: test\r\nX-Long: ", "\r\n\r\n"),
        (
            "POST /body HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n",
            "0\r\n\r\n",
        ),
    ] {
        client.send(text);
        let piece =
            if end.starts_with('0') { "14\r\n01234567890123456789\r\n" } else { "01234567890123456789" };
        for _ in 0..15 {
            std::thread::sleep(Duration::from_millis(100));
            client.send(piece);
        }
        client.send(end);
        let answer = client.answer("GET").unwrap_or_else(|failure| panic!("{text:?}: {failure:?}"));
        assert_eq!(answer.status, 200, "{text:?}");
    }
    assert!(start.elapsed() >= Duration::from_secs(3), "each took longer than its first second");
}

under_each_mpm! {
    fn a_body_over_its_limit_costs_the_backend_connection(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!(
            "{}LimitRequestBody 10\nProxyPass / {}/",
            mpm.one_child(),
            backend.url()
        ));
        daemon.tolerate("proxy");
        let before = daemon.get("/before").echo().connection();
        let mut client = daemon.connect();
        // The first chunk fits and leaves for the backend; the second does not.
        client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n");
        backend.wait_for_now(1);
        client.send("3\r\n9ab\r\n0\r\n\r\n");
        assert_eq!(client.answer("POST").expect("an answer").status, 413);
        assert_eq!(client.closed(), Ok(()));
        let after = daemon.get("/after").echo().connection();
        assert_ne!(before, after, "what the backend makes of half a body is nobody's answer");
    }

    fn a_backend_deaf_to_expect_costs_a_second(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        let start = Instant::now();
        client.send("POST /deaf HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(client.interim(), Ok(100));
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(900), "the backend is asked first: {waited:?}");
        assert!(waited < Duration::from_secs(30), "the whole time-out was waited for: {waited:?}");
        client.send("abcd");
        assert_eq!(client.answer("POST").expect("an answer").echo().body(), (4, Hash::of(b"abcd")));
    }

    fn a_client_below_its_rate_is_a_408_in_both_phases(mpm) {
        // Ten bytes a second earn half a second each: the second that is given, and what the first bytes earn, run out.
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!(
            "RequestReadTimeout header=1-20,MinRate=20 body=1-20,MinRate=20\nProxyPass / {}/",
            backend.url()
        ));
        daemon.tolerate("proxy");
        for text in [
            "GET / HTTP/1.1\r\nHost: test\r\nX: ",
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n",
        ] {
            let mut client = daemon.connect();
            let stop = Arc::new(AtomicBool::new(false));
            let sender = trickle(&mut client, text, "x", &stop);
            let answer = client.answer("GET").unwrap_or_else(|failure| panic!("{text:?}: {failure:?}"));
            stop.store(true, Ordering::Relaxed);
            assert_eq!(answer.status, 408, "{text:?}");
            sender.join().expect("it only sends");
        }
    }
}
