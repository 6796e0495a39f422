//! Which bytes may pass without being looked at, and that an exchange stands afterwards where it would had it seen
//! them.

use super::rig::{World, crlf};

const GET: &str = "GET / HTTP/1.1\nHost: h\n\n";

#[test]
fn only_a_length_told_on_both_sides_passes_unseen() {
    let get_10 = "GET / HTTP/1.0\nHost: h\n\n";
    let head = "HEAD / HTTP/1.1\nHost: h\n\n";
    for (request, response, want) in [
        (GET, "", 0),
        (GET, "HTTP/1.1 200 OK\nContent-Le", 0),
        (GET, "HTTP/1.1 200 OK\nContent-Length: 9\n\n", 9),
        (GET, "HTTP/1.1 200 OK\nContent-Length: 9\n\n1234", 5),
        (GET, "HTTP/1.1 200 OK\nContent-Length: 9\n\n123456789", 0),
        (GET, "HTTP/1.1 200 OK\nContent-Length: 0\n\n", 0),
        (GET, "HTTP/1.1 100 Continue\n\n", 0),
        (get_10, "HTTP/1.1 200 OK\nContent-Length: 9\n\n", 9),
        (GET, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n9\n1", 0),
        (get_10, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n9\n1", 0),
        (GET, "HTTP/1.0 200 OK\n\n1", 0),
        (head, "HTTP/1.1 200 OK\nContent-Length: 9\n\n", 0),
        (GET, "HTTP/1.1 204 No Content\n\n", 0),
        (GET, "HTTP/1.1 304 Not Modified\nContent-Length: 9\n\n", 0),
    ] {
        let world = World::plain();
        let talk = world.exchange(request, response, false);
        assert_eq!(talk.exchange.response_unseen(), want, "{request}{response}");
    }
    let expects = "POST / HTTP/1.1\nHost: h\nContent-Length: 9\nExpect: 100-continue\n\n";
    for (request, response, want) in [
        (GET, "", 0),
        ("POST / HTTP/1.1\nHost: h\nContent-Length: 9\n\n", "", 9),
        ("POST / HTTP/1.1\nHost: h\nContent-Length: 9\n\n1234", "", 5),
        // An early response does not end the request.
        ("POST / HTTP/1.1\nHost: h\nContent-Length: 9\n\n1234", "HTTP/1.1 200 OK\nContent-Length: 1\n\n", 5),
        ("POST / HTTP/1.1\nHost: h\nContent-Length: 9\n\n1234", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", 0),
        ("POST / HTTP/1.1\nHost: h\nContent-Length: 9\n\n123456789", "", 0),
        ("POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n9\n1", "", 0),
        (expects, "", 0),
        (expects, "HTTP/1.1 100 Continue\n\n", 9),
        (expects, "HTTP/1.1 403 No\nContent-Length: 1\n\n", 0),
    ] {
        let world = World::plain();
        let talk = world.exchange(request, response, false);
        assert_eq!(talk.exchange.request_unseen(), want, "{request}{response}");
    }
}

#[test]
fn a_body_that_may_grow_too_long_is_looked_at() {
    let request = "POST / HTTP/1.1\nHost: h\nContent-Length: 9\n\n";
    for (limit, want) in [(9, 9), (8, 0)] {
        let world = World::new(&format!("LimitRequestBody {limit}\nProxyPass / http://127.0.0.1:3000/"));
        assert_eq!(world.exchange(request, "", false).exchange.request_unseen(), want, "{limit}");
    }
}

#[test]
fn unseen_bytes_count_as_seen_ones() {
    let body = "0123456789";
    let request = format!("POST / HTTP/1.1\nHost: h\nContent-Length: {}\n\n", body.len());
    let response = format!("HTTP/1.1 200 OK\nContent-Length: {}\n\n", body.len());
    for seen in 0..=body.len() {
        for first in 0..=body.len() - seen {
            let world = World::plain();
            let mut want = world.talk();
            want.client(&crlf(&request));
            want.client(body.as_bytes());
            want.backend(&crlf(&response));
            want.backend(body.as_bytes());
            let mut talk = world.talk();
            talk.client(&crlf(&request));
            talk.client(&body.as_bytes()[..seen]);
            let second = (body.len() - seen - first) as u64;
            for count in [first as u64, second] {
                talk.exchange.request_passed(count);
            }
            assert!(!talk.exchange.wants_request());
            talk.backend(&crlf(&response));
            assert!(!talk.exchange.is_over());
            talk.backend(&body.as_bytes()[..seen]);
            for count in [first as u64, second] {
                talk.exchange.response_passed(count);
            }
            assert_eq!(talk.exchange.record.body_sent, body.len() as u64);
            assert_eq!(talk.verdict(), want.verdict(), "{seen} seen, then {first} and {second} unseen");
            assert!(talk.exchange.is_over() && talk.exchange.client_may_be_kept());
            assert!(talk.exchange.backend_may_be_kept());
        }
    }
}

#[test]
fn a_body_that_ends_early_is_cut_however_it_passed() {
    let world = World::plain();
    let mut talk = world.exchange(GET, "HTTP/1.1 200 OK\nContent-Length: 9\n\n12", false);
    talk.exchange.response_passed(6);
    assert_eq!(talk.exchange.response_unseen(), 1);
    talk.backend_closes();
    assert!(talk.failure.is_some() && talk.exchange.record.aborted);
    assert!(!talk.exchange.client_may_be_kept() && !talk.exchange.backend_may_be_kept());
}
