//! Which connections are kept, which requests are repeated, and when a client gets time to close.

use super::rig::{World, crlf, shown};
use crate::proxy::exchange::Exchange;

const FINE: &str = "HTTP/1.1 200 OK\nContent-Length: 0\n\n";

#[test]
fn a_client_is_kept_as_far_as_all_agree() {
    let on = "ProxyPass / http://127.0.0.1/";
    let most = "MaxKeepAliveRequests 3\nProxyPass / http://127.0.0.1/";
    for (lines, requests, may_keep, version, connection, want) in [
        (on, 1, true, "1.1", "", true),
        (on, 1, true, "1.1", "close", false),
        (on, 1, true, "1.1", "keep-alive, close", false),
        (on, 1, true, "1.0", "", false),
        (on, 1, true, "1.0", "Keep-Alive", true),
        // The child is leaving.
        (on, 1, false, "1.1", "", false),
        ("KeepAlive Off\nProxyPass / http://127.0.0.1/", 1, true, "1.1", "", false),
        (most, 2, true, "1.1", "", true),
        (most, 3, true, "1.1", "", false),
        (most, 4, true, "1.1", "", false),
        (on, 99, true, "1.1", "", true),
        (on, 100, true, "1.1", "", false),
        ("MaxKeepAliveRequests 0\nProxyPass / http://127.0.0.1/", 1_000_000, true, "1.1", "", true),
    ] {
        let mut world = World::new(lines);
        world.requests = requests;
        world.may_keep.set(may_keep);
        for (path, has_backend) in [("/", true), ("/%zz", false)] {
            let connection =
                if connection.is_empty() { String::new() } else { format!("Connection: {connection}\n") };
            let request = format!("GET {path} HTTP/{version}\nHost: h\n{connection}\n");
            let talk = world.exchange(&request, FINE, false);
            assert_eq!(talk.exchange.backend().is_some(), has_backend);
            assert_eq!(talk.exchange.client_may_be_kept(), want, "{lines} {requests} {request}");
            let said = String::from_utf8_lossy(&talk.to_client).contains("Connection: close\r\n");
            assert_eq!(said, !want, "the client is told: {lines} {requests} {request}");
        }
    }
}

#[test]
fn a_client_that_says_keep_alive_is_told_for_how_long() {
    let short = "KeepAliveTimeout 1500ms\nMaxKeepAliveRequests 0\nProxyPass / http://127.0.0.1/";
    for (lines, requests, version, connection, want) in [
        (
            "ProxyPass / http://127.0.0.1/",
            1,
            "1.1",
            "keep-alive",
            "Keep-Alive: timeout=5, max=99\nConnection: keep-alive\n",
        ),
        (
            "ProxyPass / http://127.0.0.1/",
            99,
            "1.0",
            "x, Keep-Alive",
            "Keep-Alive: timeout=5, max=1\nConnection: keep-alive\n",
        ),
        ("ProxyPass / http://127.0.0.1/", 100, "1.1", "keep-alive", "Connection: close\n"),
        (short, 5000, "1.1", "keep-alive", "Keep-Alive: timeout=1\nConnection: keep-alive\n"),
        // Nobody asked, or nothing is kept.
        (short, 1, "1.1", "x", ""),
        (short, 1, "1.1", "keep-alive, close", "Connection: close\n"),
        ("KeepAlive Off\nProxyPass / http://127.0.0.1/", 1, "1.1", "keep-alive", "Connection: close\n"),
    ] {
        let mut world = World::new(lines);
        world.requests = requests;
        // An answer of the backend, and one of ours.
        for path in ["/", "/%zz"] {
            let request = format!("GET {path} HTTP/{version}\nHost: h\nConnection: {connection}\n\n");
            let talk = world.exchange(&request, FINE, false);
            let all = shown(&talk.to_client);
            let told: String = all
                .split_inclusive('\n')
                .filter(|line| line.starts_with("Keep-Alive:") || line.starts_with("Connection:"))
                .collect();
            assert_eq!(told, want, "{lines} {requests} {request}\n{all}");
        }
    }
}

#[test]
fn nothing_behind_a_refused_connect_is_read_as_a_request() {
    let world = World::plain();
    let talk = world.exchange("CONNECT h:443 HTTP/1.1\nHost: h:443\n\n", "", false);
    assert!(shown(&talk.to_client).starts_with("HTTP/1.1 405 "));
    assert!(!talk.exchange.client_may_be_kept() && talk.exchange.must_linger());
}

#[test]
fn a_child_that_starts_to_leave_says_so_with_the_next_head() {
    for (leaves_before, response, says_so) in [
        ("the head", "HTTP/1.1 200 OK\nContent-Length: 2\n\n", true),
        ("the body", "HTTP/1.1 200 OK\nContent-Length: 2\n\n", false),
        ("the failure", "HTTP/1.1 2", true),
    ] {
        let world = World::plain();
        let mut talk = world.talk();
        talk.client(&crlf("GET / HTTP/1.1\nHost: h\n\n"));
        world.may_keep.set(leaves_before == "the body");
        talk.backend(&crlf(response));
        world.may_keep.set(false);
        if leaves_before == "the failure" {
            talk.backend_closes();
        } else {
            talk.backend(b"ok");
        }
        let said = String::from_utf8_lossy(&talk.to_client).contains("Connection: close\r\n");
        // What has been promised is kept: the next request is answered with the last word.
        assert_eq!((said, talk.exchange.client_may_be_kept()), (says_so, !says_so), "before {leaves_before}");
    }
}

#[test]
fn a_backend_is_kept_when_both_messages_are_complete_and_both_sides_agree() {
    let keep = World::plain();
    let never = World::new("ProxyPass / http://127.0.0.1/ disablereuse=On");
    let get = "GET / HTTP/1.1\nHost: h\n\n";
    for (world, request, response, closes, want) in [
        (&keep, get, FINE, false, true),
        (&keep, get, "", false, false),
        (&keep, get, "HTTP/1.1 200 OK\nContent-Length: 5\n\nok", false, false),
        (&keep, get, "HTTP/1.1 200 OK\nContent-Length: 0\nConnection: close\n\n", false, false),
        (&keep, get, "HTTP/1.0 200 OK\nContent-Length: 0\n\n", false, false),
        (&keep, get, "HTTP/1.1 200 OK\n\nok", true, false),
        (&keep, get, "HTTP/1.1 204 No Content\nTransfer-Encoding: chunked\n\n", false, false),
        (&keep, "POST / HTTP/1.1\nHost: h\nContent-Length: 2\n\no", FINE, false, false),
        (&keep, "POST / HTTP/1.1\nHost: h\nContent-Length: 2\n\nok", FINE, false, true),
        (&keep, "PUT / HTTP/1.1\nHost: h\nContent-Length: 2\nExpect: 100-continue\n\n", FINE, false, false),
        (&never, get, FINE, false, false),
    ] {
        let talk = world.exchange(request, response, closes);
        assert_eq!(talk.exchange.backend_may_be_kept(), want, "{request}{response}");
    }
}

#[test]
fn a_client_gets_time_to_close_unless_it_has_nothing_more_to_say() {
    let world = World::plain();
    for (request, want) in [
        ("GET / HTTP/1.1\nHost: h\n\n", true),
        ("GET / HTTP/1.1\nHost: h\nConnection: close\n\n", false),
        ("GET / HTTP/1.0\n\n", false),
        ("GET / HTTP/1.0\nConnection: keep-alive\n\n", true),
        ("POST / HTTP/1.0\nContent-Length: 2\n\no", true),
        ("POST / HTTP/1.0\nContent-Length: 2\n\nok", false),
        ("POST / HTTP/1.1\nHost: h\nConnection: close\nTransfer-Encoding: chunked\n\n0\n", true),
        ("GET /\n", true),
    ] {
        let talk = world.exchange(request, FINE, false);
        assert_eq!(talk.exchange.must_linger(), want, "{request}");
    }
}

/// The method, the rest of the head, the body that has come, and what the backend has said: whether the request
/// may be sent again, if nothing of a response has come.
#[test]
fn a_request_is_repeated_only_if_that_can_do_no_harm() {
    let world = World::plain();
    let bodies = [
        // Whether all there is to send is in the head.
        ("", "", true),
        ("Content-Length: 0\n", "", true),
        ("Content-Length: 2\n", "", false),
        ("Content-Length: 2\n", "o", false),
        ("Content-Length: 2\n", "ok", false),
        ("Content-Length: 2\nExpect: 100-continue\n", "", true),
        ("Transfer-Encoding: chunked\n", "", false),
        ("Transfer-Encoding: chunked\n", "2\n", false),
        ("Transfer-Encoding: chunked\n", "2\nok\n0\n\n", false),
        // The last chunk is not in the head, and has been passed on.
        ("Transfer-Encoding: chunked\n", "0\n\n", false),
        ("Transfer-Encoding: chunked\n", "0\nX: y\n\n", false),
        ("Transfer-Encoding: chunked\nExpect: 100-continue\n", "", true),
    ];
    let methods = [
        ("GET", true),
        ("HEAD", true),
        ("PUT", true),
        ("DELETE", true),
        ("OPTIONS", true),
        ("POST", false),
        ("PATCH", false),
        ("BREW", false),
    ];
    for (method, is_idempotent) in methods {
        for (fields, body, is_all_here) in bodies {
            for (response, is_silent) in [
                ("", true),
                ("HTTP/1.1 103 Early Hints\n\n", false),
                ("HTTP/1.1 100 Continue\n\n", false),
                ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", false),
                ("garbage", false),
            ] {
                let mut talk = world.talk();
                talk.client(&crlf(&format!("{method} / HTTP/1.1\nHost: h\n{fields}\n")));
                talk.client(&crlf(body));
                talk.backend(&crlf(response));
                let want = is_idempotent && is_all_here && is_silent;
                let what = format!("{method} {fields:?} {body:?} {response:?}");
                assert_eq!(talk.exchange.may_repeat(false), want, "{what}");
                assert!(!talk.exchange.may_repeat(true), "{what}");
                if want {
                    assert_eq!(talk.to_backend, talk.exchange.request_head(), "{what}");
                }
            }
        }
    }
    assert!(!Exchange::default().may_repeat(false), "there is nothing to send");
}

#[test]
fn a_backend_may_send_a_body_where_there_is_none_by_rule() {
    let world = World::plain();
    for (method, response, want) in [
        ("GET", "200 OK\nContent-Length: 0\n\n", false),
        ("HEAD", "200 OK\nContent-Length: 5\n\n", true),
        ("HEAD", "404 Not Found\n\n", true),
        ("GET", "204 No Content\n\n", true),
        ("GET", "304 Not Modified\nContent-Length: 5\n\n", true),
        ("GET", "205 Reset Content\nContent-Length: 0\n\n", false),
    ] {
        let request = format!("{method} / HTTP/1.1\nHost: h\n\n");
        let talk = world.exchange(&request, &format!("HTTP/1.1 {response}"), false);
        assert!(talk.exchange.is_over(), "{method} {response}");
        assert_eq!(talk.exchange.response_may_be_misframed(), want, "{method} {response}");
    }
}

#[test]
fn precious_is_what_would_be_lost() {
    let world = World::plain();
    for (request, want) in [
        ("GET / HTTP/1.1\nHost: h\n\n", false),
        ("POST / HTTP/1.1\nHost: h\n\n", true),
        ("PUT / HTTP/1.1\nHost: h\nContent-Length: 2\n\n", true),
        ("PUT / HTTP/1.1\nHost: h\nContent-Length: 0\n\n", false),
        ("BREW / HTTP/1.1\nHost: h\n\n", true),
    ] {
        let mut talk = world.talk();
        talk.client(&crlf(request));
        assert_eq!(talk.exchange.is_precious(), want, "{request}");
    }
}

#[test]
fn an_exchange_that_is_used_again_remembers_nothing() {
    let world = World::new("ProxyPass / http://127.0.0.1/\nProxyPassReverse / http://127.0.0.1/");
    let big = format!("GET / HTTP/1.1\nHost: h\nX: {}\nY: {}\n\n", "x".repeat(4000), "y".repeat(4000));
    for request in [
        big.as_str(),
        "PUT / HTTP/1.1\nHost: h\nContent-Length: 2\nExpect: 100-continue\n\n",
        "GET / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: websocket\nTE: trailers\n\n",
        "nonsense\n",
    ] {
        let mut talk = world.talk();
        talk.client(&crlf(request));
        talk.backend(b"HTTP/1.1 2");
        talk.exchange.reset();
        assert_eq!(format!("{:?}", talk.exchange), format!("{:?}", Exchange::default()), "{request}");
        assert!(talk.exchange.request_head().is_empty());
    }
}
