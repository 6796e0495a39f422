//! What holds for any bytes and any split of them.

use super::rig::{Message, Talk, World, read_request, read_responses};
use crate::http::Method;
use crate::proxy::exchange::{Failure, Refusal};
use proptest::prelude::*;

/// Hands `bytes` over in pieces that end at `cuts`.
fn in_pieces(bytes: &[u8], cuts: &[usize], mut take: impl FnMut(&[u8])) {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    let mut start = 0;
    for end in ends {
        if start < end {
            take(&bytes[start..end]);
            start = end;
        }
    }
}

fn fields(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(names), 0..6).prop_map(|lines| lines.concat())
}

const REQUEST_FIELDS: &[&str] = &[
    "Accept: */*\r\n",
    "X-A:  one \t\r\n",
    "x-a: two\r\n",
    "X-Empty:\r\n",
    "Connection: X-A, keep-alive\r\n",
    "Connection: close\r\n",
    "TE: trailers\r\n",
    "TE: gzip\r\n",
    "Keep-Alive: 5\r\n",
    "Cookie: a=b; c=d\r\n",
    "Upgrade: websocket\r\n",
    "Connection: Upgrade\r\n",
    "Via: 1.0 x\r\n",
    "X-Forwarded-For: 1.2.3.4\r\n",
    "Authorization: Basic YTpi\r\n",
    "X-B: \u{e9}\r\n",
];

const RESPONSE_FIELDS: &[&str] = &[
    "Server: s\r\n",
    "X-A:  one \t\r\n",
    "x-a: two\r\n",
    "Connection: X-A\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Keep-Alive: timeout=5\r\n",
    "Set-Cookie: a\r\n",
    "Set-Cookie: b\r\n",
    "Trailer: X-T\r\n",
    "Upgrade: h2c\r\n",
    "Location: /x\r\n",
    "ETag: \"\u{e9}\"\r\n",
];

/// A body, framed: in chunks, with trailers, by its length, or not at all.
fn framed(may_be_bare: bool) -> impl Strategy<Value = (String, Vec<u8>)> {
    let data = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..5);
    let long = prop::collection::vec(Just(vec![b'x'; 3000]), 0..3);
    let trailers = prop::sample::select(vec!["", "", "X-T: 1\r\n", "X-T: 1\r\nX-U: 2\r\n"]);
    (prop_oneof![4 => data, 1 => long], 0..3u8, trailers).prop_map(move |(chunks, kind, trailers)| match kind
    {
        0 if may_be_bare => (String::new(), chunks.concat()),
        0 | 1 => (format!("Content-Length: {}\r\n", chunks.concat().len()), chunks.concat()),
        _ => {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:X};e=\"f\"\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
            ("Transfer-Encoding: chunked\r\n".to_owned(), body)
        }
    })
}

/// One sound HTTP/1.1 or 1.0 request.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "BREW"]);
    let target = prop::sample::select(vec!["/", "/a/b?c=d", "/x?", "http://h:80/y?z", "/~a;b=c"]);
    (method, target, fields(REQUEST_FIELDS), framed(false), any::<bool>(), any::<bool>()).prop_map(
        |(method, target, fields, (framing, body), has_body, is_old)| {
            let (framing, body) = if has_body { (framing, body) } else { (String::new(), Vec::new()) };
            let is_old = is_old && !framing.starts_with("Transfer");
            let version = if is_old { "1.0" } else { "1.1" };
            let mut bytes =
                format!("{method} {target} HTTP/{version}\r\nHost: h\r\n{fields}{framing}\r\n").into_bytes();
            bytes.extend(body);
            bytes
        },
    )
}

/// Up to two interim responses and a sound final one, and whether the backend must close behind it.
fn response() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let status =
        prop::sample::select(vec!["200 OK", "404 Not Found", "204 No Content", "304 Not Modified", "500 x"]);
    let interims = prop::sample::select(vec![
        "",
        "",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 x\r\n\r\n",
    ]);
    (status, interims, fields(RESPONSE_FIELDS), framed(true), any::<bool>()).prop_map(
        |(status, interims, fields, (framing, body), is_old)| {
            let is_old = is_old && !framing.starts_with("Transfer");
            let version = if is_old { "1.0" } else { "1.1" };
            let is_empty = status.starts_with("204") || status.starts_with("304");
            let framing = if status.starts_with("204") { String::new() } else { framing };
            let mut bytes =
                format!("{interims}HTTP/{version} {status}\r\nDate: d\r\n{fields}{framing}\r\n").into_bytes();
            if !is_empty {
                bytes.extend(body);
            }
            (bytes, framing.is_empty() && !is_empty)
        },
    )
}

fn is_head(request: &[u8]) -> bool {
    request.starts_with(b"HEAD ")
}

/// The head only, if the request is a HEAD.
fn for_method(request: &[u8], response: &[u8]) -> Vec<u8> {
    if !is_head(request) {
        return response.to_vec();
    }
    let last = memchr::memmem::rfind(response, b"Date: d").expect("all have a date");
    let end = last + memchr::memmem::find(&response[last..], b"\r\n\r\n").expect("a head ends") + 4;
    response[..end].to_vec()
}

fn responses(talk: &Talk<'_>, request: &[u8]) -> Vec<Message> {
    let method = if is_head(request) { Method::Head } else { Method::Get };
    read_responses(&talk.to_client, method)
}

/// Chunks may be cut in another way; all else is the same.
fn assert_same(one: &Talk<'_>, other: &Talk<'_>, request: &[u8]) {
    assert_eq!(one.verdict(), other.verdict());
    if one.to_client != other.to_client {
        assert_eq!(responses(one, request), responses(other, request));
    }
    if one.to_backend != other.to_backend && one.refusal.is_none() {
        assert_eq!(read_request(&one.to_backend), read_request(&other.to_backend));
    }
}

const SOUP: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "HEAD /x HTTP/1.0\r\n",
    "POST / HTTP/1.1\r\n",
    "PUT / HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n",
    "HTTP/1.0 304 x\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "Host: h\r\n",
    "Host: h\r\n\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "Connection: Upgrade\r\n",
    "Upgrade: websocket\r\n",
    "TE: trailers\r\n",
    "\r\n",
    "\r\n\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\n",
    "hello",
    "X: y\r\n",
    "\n",
    "\r",
    "\0",
    ":",
    " ",
    "ffffffffffffffff\r\n",
    "\u{e9}",
];

fn soup() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        20 => prop::sample::select(SOUP).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => Just(vec![b'a'; 9000]),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

/// Heads that are often sound, with soup behind them.
fn mostly_request() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        soup(),
        (request(), soup()).prop_map(|(mut bytes, more)| {
            bytes.extend(more);
            bytes
        }),
    ]
}

fn mostly_response() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        soup(),
        (response(), soup()).prop_map(|((mut bytes, _), more)| {
            bytes.extend(more);
            bytes
        }),
    ]
}

/// The same with `Expect: 100-continue` behind Host.
fn expecting(request: &[u8]) -> Vec<u8> {
    let mut bytes = request.to_vec();
    if let Some(at) = memchr::memmem::find(request, b"Host: h\r\n") {
        bytes.splice(at..at, *b"Expect: 100-continue\r\n");
    }
    bytes
}

proptest! {
    #[test]
    fn a_forwarded_request_is_the_one_that_was_sent(bytes in request()) {
        let world = World::plain();
        let mut talk = world.talk();
        talk.client(&bytes);
        let (sent, got) = (read_request(&bytes), read_request(&talk.to_backend));
        prop_assert_eq!(&got.what, &sent.what);
        prop_assert_eq!(&got.body, &sent.body);
        prop_assert_eq!(&got.trailers, &sent.trailers);
        prop_assert_eq!(&got.end_to_end, &sent.end_to_end);
        prop_assert!(got.whole && talk.client_rest.is_empty());
        prop_assert_eq!(got.all("host"), vec!["127.0.0.1:3000"]);
    }

    #[test]
    fn a_response_that_is_passed_on_is_the_one_that_was_given(
        request in request(),
        (response, closes) in response(),
    ) {
        let world = World::plain();
        let response = for_method(&request, &response);
        let mut talk = world.talk();
        talk.client(&request);
        talk.backend(&response);
        if closes {
            talk.backend_closes();
        }
        prop_assert!(talk.exchange.is_over());
        let method = if is_head(&request) { Method::Head } else { Method::Get };
        let given = read_responses(&response, method);
        let given = given.last().expect("a final one");
        let got = responses(&talk, &request);
        let got = got.last().expect("a final one");
        prop_assert_eq!(&got.what, &given.what);
        prop_assert_eq!(&got.body, &given.body);
        prop_assert_eq!(&got.end_to_end, &given.end_to_end);
        prop_assert!(got.whole || got.until_close);
        prop_assert_eq!(talk.exchange.record.body_sent, got.body.len() as u64);
        // The client can tell the end of this response without the end of its connection.
        prop_assert!(!(talk.exchange.client_may_be_kept() && got.until_close));
        let says_close = got.all("connection") == ["close"];
        prop_assert_eq!(talk.exchange.client_may_be_kept(), !says_close);
    }

    #[test]
    fn any_split_says_the_same(
        request in mostly_request(),
        response in mostly_response(),
        closes in any::<bool>(),
        client_cuts in prop::collection::vec(any::<usize>(), 0..8),
        backend_cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        // A client that sends its body without waiting has no expectations: there the split does matter.
        prop_assume!(memchr::memmem::find(&request, b"Expect").is_none());
        let world = World::new("ProxyAddHeaders Off\nLimitRequestBody 30\nProxyPass / http://127.0.0.1/");
        let (mut whole, mut split) = (world.talk(), world.talk());
        whole.client(&request);
        whole.backend(&response);
        in_pieces(&request, &client_cuts, |piece| split.client(piece));
        in_pieces(&response, &backend_cuts, |piece| split.backend(piece));
        if closes {
            whole.backend_closes();
            split.backend_closes();
        }
        assert_same(&whole, &split, &request);
    }

    #[test]
    fn no_bytes_in_any_order_break_it(
        request in mostly_request(),
        response in mostly_response(),
        client_cuts in prop::collection::vec(any::<usize>(), 0..5),
        backend_cuts in prop::collection::vec(any::<usize>(), 0..5),
        order in prop::collection::vec(0..12u8, 0..12),
        expects in any::<bool>(),
    ) {
        let request = if expects { expecting(&request) } else { request };
        let world = World::plain();
        let mut talk = world.talk();
        let (mut from_client, mut from_backend) = (Vec::new(), Vec::new());
        in_pieces(&request, &client_cuts, |piece| from_client.push(piece.to_vec()));
        in_pieces(&response, &backend_cuts, |piece| from_backend.push(piece.to_vec()));
        let (mut from_client, mut from_backend) = (from_client.into_iter(), from_backend.into_iter());
        for event in order {
            match event {
                0..5 => from_client.next().into_iter().for_each(|piece| talk.client(&piece)),
                5..9 => from_backend.next().into_iter().for_each(|piece| talk.backend(&piece)),
                9 => talk.expect_expires(),
                10 if talk.begun.is_some() => talk.client_closes(),
                _ => talk.backend_closes(),
            }
        }
        let is_tunnel = talk.exchange.record.status == 101;
        if !is_tunnel && talk.refusal.is_none() && !talk.to_backend.is_empty() {
            read_request(&talk.to_backend);
        }
        let asked = if talk.exchange.record.parsed && request.trim_ascii_start().starts_with(b"HEAD ") {
            Method::Head
        } else {
            Method::Get
        };
        let got = read_responses(&talk.to_client, asked);
        prop_assert!(got.iter().filter(|message| message.is_final).count() <= 1);
        let exchange = &talk.exchange;
        if exchange.is_over() && exchange.client_may_be_kept() {
            prop_assert!(!exchange.wants_request() && !exchange.record.aborted);
            prop_assert!(got.last().is_some_and(|message| message.whole));
        }
        if exchange.backend_may_be_kept() {
            prop_assert!(exchange.is_over() && talk.failure.is_none() && talk.refusal.is_none());
            prop_assert!(read_request(&talk.to_backend).whole);
        }
        // Whatever happens then, there is an end.
        if talk.begun.is_some() && !talk.exchange.is_over() {
            talk.fail(&Failure::Timeout);
            prop_assert!(talk.exchange.is_over() && !talk.exchange.backend_may_be_kept());
        } else if talk.begun.is_none() {
            talk.refuse(&Refusal::TooSlow);
            prop_assert!(talk.exchange.is_over() && !talk.exchange.client_may_be_kept());
        }
    }
}
