//! What a client gets of each kind of response.

use super::rig::{DATE, World, crlf, shown};

const GET: &str = "GET / HTTP/1.1\nHost: h\n\n";
const HEAD: &str = "HEAD / HTTP/1.1\nHost: h\n\n";
const OLD: &str = "GET / HTTP/1.0\n\n";
const OLD_KEPT: &str = "GET / HTTP/1.0\nConnection: keep-alive\n\n";
const LAST: &str = "GET / HTTP/1.1\nHost: h\nConnection: close\n\n";
const TRAILERS: &str = "GET / HTTP/1.1\nHost: h\nTE: trailers\n\n";

#[test]
fn responses_are_framed_anew_for_the_client() {
    let world = World::plain();
    // The request; the response and whether the backend closes behind it; what the client gets, with Date
    // taken out; whether its connection and the backend's are kept.
    for (request, response, closes, want, kept) in [
        (
            GET,
            "HTTP/1.1 200 OK\nContent-Length: 2\nX: y\n\nok",
            false,
            "HTTP/1.1 200 OK\nX: y\nContent-Length: 2\n\nok",
            (true, true),
        ),
        (
            GET,
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            false,
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            (true, true),
        ),
        (
            GET,
            "HTTP/1.1 299\nContent-Length: 0\n\n",
            false,
            "HTTP/1.1 299 \nContent-Length: 0\n\n",
            (true, true),
        ),
        (
            GET,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n002;x\nok\n0\n\n",
            false,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n",
            (true, true),
        ),
        (
            GET,
            "HTTP/1.1 200 OK\n\nok",
            true,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n",
            (true, false),
        ),
        (
            GET,
            "HTTP/1.1 200 OK\n\n",
            true,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\n\n",
            (true, false),
        ),
        (
            GET,
            "HTTP/1.0 200 OK\nContent-Length: 2\n\nok",
            false,
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            (true, false),
        ),
        (
            GET,
            "HTTP/1.0 200 OK\nContent-Length: 2\nConnection: keep-alive\n\nok",
            false,
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            (true, true),
        ),
        (
            GET,
            "HTTP/1.1 200 OK\nContent-Length: 2\nConnection: close\n\nok",
            false,
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            (true, false),
        ),
        // What the client wants of its own connection.
        (
            LAST,
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            false,
            "HTTP/1.1 200 OK\nContent-Length: 2\nConnection: close\n\nok",
            (false, true),
        ),
        (
            OLD,
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            false,
            "HTTP/1.1 200 OK\nContent-Length: 2\nConnection: close\n\nok",
            (false, true),
        ),
        (
            OLD_KEPT,
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            false,
            "HTTP/1.1 200 OK\nContent-Length: 2\nKeep-Alive: timeout=5, max=99\nConnection: keep-alive\n\nok",
            (true, true),
        ),
        // HTTP/1.0 has no chunks: what has no length lasts until we close.
        (
            OLD_KEPT,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\nX: y\n\n",
            false,
            "HTTP/1.1 200 OK\nConnection: close\n\nok",
            (false, true),
        ),
        (OLD_KEPT, "HTTP/1.1 200 OK\n\nok", true, "HTTP/1.1 200 OK\nConnection: close\n\nok", (false, false)),
        (
            OLD_KEPT,
            "HTTP/1.1 304 Not Modified\n\n",
            false,
            "HTTP/1.1 304 Not Modified\nKeep-Alive: timeout=5, max=99\nConnection: keep-alive\n\n",
            (true, true),
        ),
        // No body, whatever the fields say; the length of what a GET would have had may be told.
        (
            HEAD,
            "HTTP/1.1 200 OK\nContent-Length: 2\n\n",
            false,
            "HTTP/1.1 200 OK\nContent-Length: 2\n\n",
            (true, true),
        ),
        (HEAD, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", false, "HTTP/1.1 200 OK\n\n", (true, true)),
        (HEAD, "HTTP/1.1 200 OK\n\n", false, "HTTP/1.1 200 OK\n\n", (true, true)),
        (
            GET,
            "HTTP/1.1 304 Not Modified\nContent-Length: 2\nETag: \"e\"\n\n",
            false,
            "HTTP/1.1 304 Not Modified\nETag: \"e\"\nContent-Length: 2\n\n",
            (true, true),
        ),
        // A 204 may not even say that it has none (RFC 9110, 8.6).
        (GET, "HTTP/1.1 204 No Content\n\n", false, "HTTP/1.1 204 No Content\n\n", (true, true)),
        (
            GET,
            "HTTP/1.1 204 No Content\nContent-Length: 0\n\n",
            false,
            "HTTP/1.1 204 No Content\n\n",
            (true, true),
        ),
        (
            GET,
            "HTTP/1.1 204 No Content\nContent-Length: 5\n\n",
            false,
            "HTTP/1.1 204 No Content\n\n",
            (true, false),
        ),
        // Trailers reach who asked for them, without what may not be there.
        (
            TRAILERS,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: X\n\n2\nok\n0\nX:  y\nContent-Length: 9\n\n",
            false,
            "HTTP/1.1 200 OK\nTrailer: X\nTransfer-Encoding: chunked\n\n2\nok\n0\nX: y\n\n",
            (true, true),
        ),
        (
            TRAILERS,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nConnection: X-T\n\n0\nX-T: 1\nX-U: 2\n\n",
            false,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\nX-U: 2\n\n",
            (true, true),
        ),
        (
            TRAILERS,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\nSet-Cookie: y\n\n",
            false,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\n\n",
            (true, true),
        ),
        (
            TRAILERS,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n",
            false,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n",
            (true, true),
        ),
        (
            GET,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: X\n\n2\nok\n0\nX: y\n\n",
            false,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n",
            (true, true),
        ),
        // Hop by hop, and named as such.
        (
            GET,
            "HTTP/1.1 200 OK\nKeep-Alive: timeout=5\nConnection: X-A, keep-alive\nX-A: 1\nX-B: 2\n\
               Proxy-Authenticate: x\nProxy-Connection: x\nUpgrade: h2c\nTE: x\nServer: s\nSet-Cookie: a\nSet-Cookie: b\n\
               Content-Length: 0\n\n",
            false,
            "HTTP/1.1 200 OK\nX-B: 2\nServer: s\nSet-Cookie: a\nSet-Cookie: b\nContent-Length: 0\n\n",
            (true, true),
        ),
    ] {
        let talk = world.exchange(request, response, closes);
        let date = format!("Date: {DATE}\n");
        let got = shown(&talk.to_client);
        assert_eq!(got.matches(&date).count(), 1, "{got}");
        assert_eq!(got.replacen(&date, "", 1), want, "{request}{response}");
        let exchange = &talk.exchange;
        assert!(exchange.is_over(), "{response}");
        assert_eq!(
            (exchange.client_may_be_kept(), exchange.backend_may_be_kept()),
            kept,
            "{request}{response}"
        );
        let body = want.split_once("\n\n").map_or("", |(_, body)| body);
        assert_eq!(exchange.record.body_sent, if body.contains("ok") { 2 } else { 0 }, "{response}");
        assert!(!exchange.record.aborted && exchange.record.failure.is_none(), "{response}");
        assert_eq!(exchange.record.status, exchange.record.upstream_status);
    }
}

#[test]
fn the_date_is_the_backend_s_if_it_has_one() {
    let world = World::plain();
    for (fields, want) in [
        ("Date: yesterday\n", "Date: yesterday\n"),
        ("date: yesterday\n", "date: yesterday\n"),
        ("", &*format!("Date: {DATE}\n")),
        ("Connection: Date\nDate: yesterday\n", &*format!("Date: {DATE}\n")),
    ] {
        let talk = world.exchange(GET, &format!("HTTP/1.1 200 OK\n{fields}Content-Length: 0\n\n"), false);
        assert_eq!(shown(&talk.to_client), format!("HTTP/1.1 200 OK\n{want}Content-Length: 0\n\n"));
    }
}

#[test]
fn urls_of_the_backend_become_ours() {
    let lines = "ProxyAddHeaders Off\nProxyPass /app http://127.0.0.1:3000\nProxyPassReverse /app http://127.0.0.1:3000\n\
                 <Location /in>\nProxyPass http://127.0.0.1:3001\nProxyPassReverse http://127.0.0.1:3001\n</Location>";
    let world = World::new(lines);
    for (target, host, field, want) in [
        ("/app", "Host: we:81\n", "Location: http://127.0.0.1:3000/x", "Location: http://we:81/app/x"),
        (
            "/app",
            "Host: we\n",
            "content-location: http://127.0.0.1:3000/",
            "content-location: http://we/app/",
        ),
        ("/app", "Host: we\n", "URI: http://127.0.0.1:3000/a", "URI: http://we/app/a"),
        ("/app", "Host:\n", "Location: http://127.0.0.1:3000/x", "Location: http://proxy.test/app/x"),
        ("/app", "Host: we\n", "Location: http://elsewhere/", "Location: http://elsewhere/"),
        ("/app", "Host: we\n", "Location: http://127.0.0.1:30001/", "Location: http://127.0.0.1:30001/"),
        ("/app", "Host: we\n", "Link: http://127.0.0.1:3000/x", "Link: http://127.0.0.1:3000/x"),
        // A section's rule holds in the section.
        ("/app", "Host: we\n", "Location: http://127.0.0.1:3001/x", "Location: http://127.0.0.1:3001/x"),
        ("/in/y", "Host: we\n", "Location: http://127.0.0.1:3001/x", "Location: http://we/in/x"),
    ] {
        let mut talk = world.talk();
        talk.client(&crlf(&format!("GET {target} HTTP/1.1\n{host}\n")));
        talk.backend(&crlf(&format!("HTTP/1.1 302 Found\n{field}\nContent-Length: 0\n\n")));
        let got = shown(&talk.to_client);
        assert!(got.starts_with(&format!("HTTP/1.1 302 Found\n{want}\n")), "{target} {host} {field}: {got}");
    }
}

#[test]
fn via_is_added_as_the_policy_says() {
    let version = env!("CARGO_PKG_VERSION");
    for (policy, want) in [
        ("Off", "Via: 1.1 b\n".to_owned()),
        ("On", "Via: 1.1 b\nVia: 1.0 proxy.test\n".to_owned()),
        ("Full", format!("Via: 1.1 b\nVia: 1.0 proxy.test (Ostler/{version})\n")),
        ("Block", String::new()),
    ] {
        let world = World::new(&format!("ProxyVia {policy}\nProxyPass / http://127.0.0.1/"));
        let talk = world.exchange(GET, "HTTP/1.0 200 OK\nDate: d\nVia: 1.1 b\nContent-Length: 0\n\n", false);
        assert_eq!(shown(&talk.to_client), format!("HTTP/1.1 200 OK\nDate: d\n{want}Content-Length: 0\n\n"));
    }
}

#[test]
fn interim_responses_reach_who_can_bear_them() {
    let world = World::plain();
    let hints = "HTTP/1.1 103 Early Hints\nLink: </s.css>\nConnection: X\nX: y\n\n";
    let fine = "HTTP/1.1 200 OK\nDate: d\nContent-Length: 0\n\n";
    for (request, response, want) in [
        (GET, format!("{hints}{fine}"), format!("HTTP/1.1 103 Early Hints\nLink: </s.css>\n\n{fine}")),
        (
            OLD_KEPT,
            format!("{hints}{fine}"),
            "HTTP/1.1 200 OK\nDate: d\nContent-Length: 0\nKeep-Alive: timeout=5, max=99\nConnection: keep-alive\n\n".to_owned(),
        ),
        // Nobody waits for a 100 here.
        (GET, format!("HTTP/1.1 100 Continue\n\n{fine}"), fine.to_owned()),
        (
            GET,
            format!("{}{fine}", "HTTP/1.1 102 Processing\n\n".repeat(10)),
            format!("{}{fine}", "HTTP/1.1 102 Processing\n\n".repeat(10)),
        ),
    ] {
        let talk = world.exchange(request, &response, false);
        assert_eq!(shown(&talk.to_client), want, "{request}{response}");
        assert!(talk.exchange.client_may_be_kept() && talk.exchange.backend_may_be_kept(), "{response}");
        assert_eq!(talk.observed, [0, 200], "interim heads are nobody's business");
    }
    // An interim response can announce that the final one is the connection's last.
    let talk = world.exchange(GET, &format!("HTTP/1.1 103 Early Hints\nConnection: close\n\n{fine}"), false);
    assert!(talk.exchange.client_may_be_kept() && !talk.exchange.backend_may_be_kept());
}

#[test]
fn trailers_are_shown_as_they_came_also_where_they_end() {
    let world = World::plain();
    for request in [TRAILERS, "GET / HTTP/1.1\nHost: h\n\n", "GET / HTTP/1.0\nHost: h\n\n"] {
        let response = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\nX:  y\nDate: d\n\n";
        let talk = world.exchange(request, response, false);
        assert_eq!(shown(&talk.trailers), "X:  y\nDate: d\n\n", "{request}");
    }
    let talk = world.exchange(TRAILERS, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\n\n", false);
    assert!(talk.trailers.is_empty());
    let mut talk = world.talk();
    talk.client(&crlf("PUT / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n2\nok\n0\nVia: x\n\n"));
    assert_eq!(shown(&talk.trailers), "Via: x\n\n");
}

const EXPECTING: &str = "PUT / HTTP/1.1\nHost: h\nContent-Length: 2\nExpect: 100-continue\n\n";

#[test]
fn a_100_that_is_waited_for_is_passed_on_and_lets_the_body_through() {
    let world = World::plain();
    let mut talk =
        world.exchange(EXPECTING, "HTTP/1.1 103 Early Hints\n\nHTTP/1.1 100 Continue\nX: y\n\n", false);
    assert_eq!(shown(&talk.to_client), "HTTP/1.1 103 Early Hints\n\nHTTP/1.1 100 Continue\nX: y\n\n");
    assert!(!talk.exchange.expects_continue() && talk.exchange.wants_request());
    talk.client(b"ok");
    assert!(talk.to_backend.ends_with(b"\r\n\r\nok"));
    talk.backend(&crlf("HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: 0\n\n"));
    assert_eq!(shown(&talk.to_client).matches("100 Continue").count(), 1, "a second one is for nobody");
    assert!(talk.exchange.client_may_be_kept() && talk.exchange.backend_may_be_kept());
}

#[test]
fn a_backend_that_is_deaf_to_expect_gets_the_body_all_the_same() {
    let world = World::plain();
    let mut talk = world.talk();
    talk.client(&crlf(EXPECTING));
    talk.expect_expires();
    talk.expect_expires();
    assert_eq!(shown(&talk.to_client), "HTTP/1.1 100 Continue\n\n");
    talk.client(b"ok");
    talk.backend(&crlf("HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nDate: d\nContent-Length: 0\n\n"));
    assert_eq!(
        shown(&talk.to_client),
        "HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nDate: d\nContent-Length: 0\n\n"
    );
}

#[test]
fn a_final_status_instead_of_100_is_not_followed_by_one() {
    let world = World::plain();
    for (status, body_is_taken) in [("401 Unauthorized", false), ("302 Found", false), ("200 OK", true)] {
        let mut talk =
            world.exchange(EXPECTING, &format!("HTTP/1.1 {status}\nDate: d\nContent-Length: 2\n\nn"), false);
        assert!(!talk.exchange.expects_continue(), "{status}");
        talk.expect_expires();
        // A refusal asks for no body; behind a success, a backend may still be waiting for it.
        assert_eq!(talk.exchange.wants_request(), body_is_taken, "{status}");
        talk.backend(b"o");
        assert_eq!(
            shown(&talk.to_client),
            format!("HTTP/1.1 {status}\nDate: d\nContent-Length: 2\nConnection: close\n\nno")
        );
        let exchange = &talk.exchange;
        assert!(exchange.is_over() && exchange.must_linger());
        assert!(!exchange.client_may_be_kept() && !exchange.backend_may_be_kept(), "{status}");
    }
}

#[test]
fn a_response_before_the_body_is_complete_ends_the_connection() {
    let world = World::plain();
    let post = "POST / HTTP/1.1\nHost: h\nContent-Length: 4\n\nab";
    let mut talk = world.exchange(post, "HTTP/1.1 200 OK\nDate: d\nContent-Length: 2\n\no", false);
    assert!(talk.exchange.wants_request(), "the upload goes on meanwhile");
    talk.client(b"cd");
    assert!(talk.to_backend.ends_with(b"abcd"));
    talk.backend(b"k");
    assert_eq!(
        shown(&talk.to_client),
        "HTTP/1.1 200 OK\nDate: d\nContent-Length: 2\nConnection: close\n\nok"
    );
    assert!(!talk.exchange.client_may_be_kept(), "it has been told so");
    assert!(talk.exchange.backend_may_be_kept(), "both messages are complete");

    let talk = world.exchange(post, "HTTP/1.1 413 Content Too Large\nContent-Length: 0\n\n", false);
    assert!(talk.exchange.is_over() && !talk.exchange.wants_request());
    assert!(!talk.exchange.client_may_be_kept() && !talk.exchange.backend_may_be_kept());
    assert!(talk.exchange.must_linger());
}

const SWITCH: &str = "GET / HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: websocket\n\n";

#[test]
fn a_tunnel_passes_bytes_as_they_are() {
    let world = World::plain();
    let mut talk = world.talk();
    talk.client(&crlf(SWITCH));
    talk.client(b"early");
    let asked = talk.to_backend.len();
    assert_eq!(talk.client_rest, b"early", "not before the backend has agreed");
    talk.backend(&crlf(
        "HTTP/1.1 101 Switching Protocols\nDate: d\nUpgrade: WebSocket\nConnection: upgrade\nX: y\n\nfirst",
    ));
    assert_eq!(
        shown(&talk.to_client),
        "HTTP/1.1 101 Switching Protocols\nDate: d\nX: y\nUpgrade: WebSocket\nConnection: Upgrade\n\nfirst"
    );
    talk.client(b" HTTP/1.1\r\n\0");
    talk.backend(b"\0\r\n\r\n");
    assert_eq!(&talk.to_backend[asked..], b"early HTTP/1.1\r\n\0");
    assert!(talk.to_client.ends_with(b"first\0\r\n\r\n"));
    let exchange = &talk.exchange;
    assert!(exchange.is_tunnel() && exchange.wants_request() && exchange.wants_response());
    assert!(!exchange.client_may_be_kept() && !exchange.backend_may_be_kept() && !exchange.may_repeat(false));
    assert_eq!((exchange.record.status, exchange.record.upstream_status), (101, 101));
    talk.backend_closes();
    assert!(talk.exchange.is_over() && !talk.exchange.record.aborted);
}

#[test]
fn a_declined_switch_is_an_ordinary_response() {
    let world = World::plain();
    let talk = world.exchange(SWITCH, "HTTP/1.1 200 OK\nContent-Length: 0\n\n", false);
    let exchange = &talk.exchange;
    assert!(exchange.client_may_be_kept() && exchange.backend_may_be_kept() && !exchange.is_tunnel());
}
