//! What becomes of both sides when something goes wrong, before and after the response has begun.

use super::rig::{Talk, World, crlf, read_responses, shown};
use crate::http::{Fault, Method, Reason};
use crate::proxy::exchange::{Aftermath, Failure, Refusal};

const GET: &str = "GET / HTTP/1.1\nHost: h\n\n";
const POST: &str = "POST / HTTP/1.1\nHost: h\nContent-Length: 4\n\nab";

fn failures() -> Vec<(Failure, u16, &'static str)> {
    vec![
        (Failure::Connect("refused".to_owned()), 503, "connect_failed"),
        (Failure::ConnectTimeout, 503, "connect_timeout"),
        (Failure::LeftAlone, 503, "left_alone"),
        (Failure::NoPlace, 503, "no_place"),
        (Failure::Timeout, 504, "read_timeout"),
        (Failure::Closed, 502, "closed"),
        (Failure::Malformed(Fault::response(Reason::NotHttp)), 502, "malformed"),
        (Failure::TooManyInterims, 502, "too_many_interims"),
        (Failure::WrongProtocol, 502, "wrong_protocol"),
        (Failure::Resources("no descriptors".to_owned()), 503, "resources"),
    ]
}

fn refusals() -> Vec<(Refusal, u16)> {
    vec![
        (Refusal::Malformed(Fault::request(Reason::ChunkSize)), 400),
        (Refusal::Malformed(Fault::request(Reason::UnknownEncoding)), 501),
        (Refusal::TooLarge, 413),
        (Refusal::TooSlow, 408),
        (Refusal::CutShort, 400),
    ]
}

/// An answer of ours, and the last words on this exchange.
fn assert_answered(talk: &Talk<'_>, status: u16, keeps: bool, what: &str) {
    let answers = read_responses(&talk.to_client, Method::Get);
    let answer = answers.last().expect("an answer");
    assert_eq!(answer.what, status.to_string(), "{what}");
    assert!(answer.whole && !answer.body.is_empty(), "{what}");
    assert_eq!(answer.all("connection").is_empty(), keeps, "{what}");
    assert_eq!(answer.all("retry-after").is_empty(), status != 503, "{what}");
    let exchange = &talk.exchange;
    assert_eq!(talk.aftermath, Some(Aftermath::Answered), "{what}");
    assert_eq!(exchange.client_may_be_kept(), keeps, "{what}");
    assert!(exchange.is_over() && !exchange.backend_may_be_kept() && !exchange.may_repeat(false), "{what}");
    assert!(!exchange.wants_request() && !exchange.wants_response(), "{what}");
    assert_eq!((exchange.record.status, exchange.record.upstream_status), (status, 0), "{what}");
    assert_eq!(exchange.record.body_sent, answer.body.len() as u64, "{what}");
    assert!(!exchange.record.aborted, "{what}");
}

fn assert_cut(talk: &Talk<'_>, what: &str) {
    let exchange = &talk.exchange;
    assert_eq!(talk.aftermath, Some(Aftermath::Cut), "{what}");
    assert!(exchange.record.aborted && exchange.is_over(), "{what}");
    assert!(!exchange.client_may_be_kept() && !exchange.backend_may_be_kept(), "{what}");
    assert_eq!((exchange.record.status, exchange.record.body_sent), (200, 2), "what was sent stands, {what}");
}

#[test]
fn a_backend_s_failure_is_answered_or_cuts_what_has_begun() {
    let world = World::plain();
    for (failure, status, word) in failures() {
        let what = failure.to_string();
        assert!(!what.is_empty() && !what.ends_with('.') && failure.status() == status, "{what}");
        for (request, before, keeps) in [
            (GET, "", true),
            // Interim responses don't count as an answer.
            (GET, "HTTP/1.1 103 Early Hints\n\n", true),
            ("GET / HTTP/1.1\nHost: h\nConnection: close\n\n", "", false),
            // Of this request bytes may still be under way.
            (POST, "", false),
        ] {
            let mut talk = world.exchange(request, before, false);
            talk.fail(&failure);
            assert_answered(&talk, status, keeps, &what);
            assert_eq!(talk.exchange.record.failure, Some(word));
        }
        for response in [
            "HTTP/1.1 200 OK\nContent-Length: 5\n\nok",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n",
            "HTTP/1.1 200 OK\n\nok",
        ] {
            let mut talk = world.exchange(GET, response, false);
            let sent = talk.to_client.len();
            talk.fail(&failure);
            assert_eq!(talk.to_client.len(), sent, "not a byte behind what has begun, no last chunk either");
            assert_cut(&talk, &what);
            assert_eq!(talk.exchange.record.failure, Some(word));
        }
    }
}

#[test]
fn a_refused_request_is_answered_or_cuts_what_has_begun() {
    let world = World::plain();
    for (refusal, status) in refusals() {
        let what = refusal.to_string();
        assert!(!what.is_empty() && refusal.status() == status, "{what}");
        let mut talk = world.exchange(POST, "", false);
        talk.refuse(&refusal);
        assert_answered(&talk, status, false, &what);
        assert!(talk.exchange.must_linger(), "{what}");
        assert_eq!(talk.exchange.record.failure, None, "no fault of the backend's");

        let mut talk = world.exchange(POST, "HTTP/1.1 200 OK\nContent-Length: 5\n\nok", false);
        let sent = talk.to_client.len();
        talk.refuse(&refusal);
        assert_eq!(talk.to_client.len(), sent, "{what}");
        assert_cut(&talk, &what);

        // Before there was a head.
        let mut talk = world.talk();
        talk.refuse(&refusal);
        let answers = read_responses(&talk.to_client, Method::Get);
        assert_eq!(
            (&*answers[0].what, answers[0].all("connection")),
            (&*status.to_string(), vec!["close".to_owned()])
        );
        assert!(
            !talk.exchange.client_may_be_kept()
                && talk.exchange.must_linger()
                && !talk.exchange.record.parsed
        );
    }
}

#[test]
fn a_failure_answered_to_head_has_no_body() {
    let world = World::plain();
    let mut talk = world.exchange("HEAD / HTTP/1.1\nHost: h\n\n", "", false);
    talk.fail(&Failure::Timeout);
    let got = shown(&talk.to_client);
    assert!(got.starts_with("HTTP/1.1 504 ") && got.ends_with("\n\n"), "{got}");
    assert!(talk.exchange.client_may_be_kept() && talk.exchange.record.body_sent == 0);
}

#[test]
fn what_is_no_response_is_a_502_and_none_of_it_is_passed_on() {
    let world = World::plain();
    let switch = "GET / HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: websocket\n\n";
    let long = format!("HTTP/1.1 200 OK\nX: {}", "x".repeat(100_000));
    let interims = "HTTP/1.1 102 Processing\n\n".repeat(11);
    let malformed = |reason| Failure::Malformed(Fault::response(reason));
    for (request, response, want) in [
        (GET, "garbage", malformed(Reason::NotHttp)),
        (GET, "HTTP/2 200\n\n", malformed(Reason::NotHttp)),
        (GET, "HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 2\n\nok", malformed(Reason::TwoLengths)),
        (
            GET,
            "HTTP/1.1 200 OK\nContent-Length: 2\nTransfer-Encoding: chunked\n\n",
            malformed(Reason::LengthAndEncoding),
        ),
        (GET, "HTTP/1.1 200 OK\nA B: c\n\n", malformed(Reason::FieldName)),
        (GET, "HTTP/1.1 200 OK\nA: b\n c\n\n", malformed(Reason::Fold)),
        (GET, &long, malformed(Reason::FieldTooLarge)),
        (GET, "HTTP/1.1 999 Odd\n\n", malformed(Reason::StatusCode)),
        (GET, "HTTP/1.1 103 Hints\nContent-Length: 5\n\n", malformed(Reason::FramedInterim)),
        (
            GET,
            "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: upgrade\n\n",
            malformed(Reason::Switch),
        ),
        (switch, "HTTP/1.1 101 Switching Protocols\nConnection: upgrade\n\n", malformed(Reason::Switch)),
        (
            switch,
            "HTTP/1.1 101 Switching Protocols\nUpgrade: h2c\nConnection: upgrade\n\n",
            Failure::WrongProtocol,
        ),
    ] {
        let talk = world.exchange(request, response, false);
        assert_eq!(talk.failure, Some(want.clone()), "{response}");
        assert_answered(&talk, 502, true, response);
        let mut slow = world.talk();
        slow.client(&crlf(request));
        for byte in crlf(response) {
            slow.backend(&[byte]);
        }
        assert_eq!(slow.failure, Some(want), "{response} byte by byte");
        assert_eq!(shown(&slow.to_client), shown(&talk.to_client));
    }
    let talk = world.exchange(GET, &interims, false);
    assert_eq!(talk.failure, Some(Failure::TooManyInterims));
    assert_eq!(shown(&talk.to_client).matches("HTTP/1.1 102").count(), 10);
    for cut_short in ["", "HTTP/1.1 200 OK\nX", "HTTP/1.1 103 Hints\n\n"] {
        let talk = world.exchange(GET, cut_short, true);
        assert_eq!(talk.failure, Some(Failure::Closed), "{cut_short}");
        assert_answered(&talk, 502, true, cut_short);
    }
}

#[test]
fn a_response_that_breaks_off_is_noticed_by_the_client() {
    let world = World::plain();
    for (response, closes) in [
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\nok", true),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n", true),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n", true),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\nzz\n", false),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nokx", false),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\nA B: c\n\n", false),
    ] {
        let talk = world.exchange(GET, response, closes);
        assert_cut(&talk, response);
        let answers = read_responses(&talk.to_client, Method::Get);
        assert!(!answers[0].whole && answers[0].body == b"ok", "{response}");
    }
}

#[test]
fn a_body_that_makes_no_sense_or_is_too_large_is_refused() {
    let world = World::new("LimitRequestBody 10\nProxyPass / http://127.0.0.1/");
    let chunked = "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n";
    for (body, want) in [
        ("5 \nhello\n0\n\n", None),
        ("5;ext=1\nhello\n5\nworld\n0\n\n", None),
        ("b\nhello world\n0\n\n", Some(Refusal::TooLarge)),
        ("5\nhello\n6\n world", Some(Refusal::TooLarge)),
        ("0x5\nhello", Some(Refusal::Malformed(Fault::request(Reason::ChunkSize)))),
        ("11111111111111111\n", Some(Refusal::Malformed(Fault::request(Reason::ChunkTooLarge)))),
        ("5\nhelloX", Some(Refusal::Malformed(Fault::request(Reason::ChunkEnd)))),
        ("0\nX : y\n\n", Some(Refusal::Malformed(Fault::request(Reason::BlankBeforeColon)))),
    ] {
        let mut talk = world.talk();
        talk.client(&crlf(chunked));
        talk.client(&crlf(body));
        assert_eq!(talk.refusal, want, "{body}");
        if let Some(refusal) = want {
            assert_answered(&talk, refusal.status(), false, body);
        }
    }
    let mut talk = world.talk();
    talk.client(&crlf("POST / HTTP/1.1\nHost: h\nContent-Length: 4\n\nab"));
    talk.client_closes();
    assert_eq!(talk.refusal, Some(Refusal::CutShort));
    assert_answered(&talk, 400, false, "cut short");
}

#[test]
fn a_client_that_goes_away_leaves_nothing_to_be_kept() {
    let world = World::plain();
    for response in ["", "HTTP/1.1 200 OK\nContent-Length: 5\n\nok"] {
        let mut talk = world.exchange(GET, response, false);
        talk.exchange.cut();
        let exchange = &talk.exchange;
        assert!(exchange.record.aborted && exchange.is_over(), "{response}");
        assert!(!exchange.client_may_be_kept() && !exchange.backend_may_be_kept(), "{response}");
    }
}
