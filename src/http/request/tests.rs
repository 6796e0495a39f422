//! Heads that are taken apart, and those that are refused.

use super::*;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { line: 8190, fields: 100, field_size: 8190, total: 60_000 };

/// Parses without scanning first: the parser must hold alone.
fn parse<'b, 'h>(head: &'b [u8], slots: &'h mut FieldSlots) -> Result<RequestHead<'b, 'h>, Fault> {
    RequestHead::parse(head, slots, &LIMITS)
}

/// What becomes of `GET / HTTP/1.1`, a Host, and `lines`.
fn with_fields(lines: &str) -> Result<(), Reason> {
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
    parse(head.as_bytes(), &mut FieldSlots::new()).map(|_| ()).map_err(|fault| fault.reason)
}

#[test]
fn the_short_way_is_for_heads_that_are_whole_small_and_usual() {
    let limits = HeadLimits { line: 60, fields: 2, field_size: 60, total: 1000 };
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(40));
    for (bytes, want) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", Some(27)),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /", Some(27)),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r", None),
        ("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", None),
        ("GET / HTTP/1.0\r\nHost: h\r\n\r\n", None),
        ("GET / HTTP/1.1\nHost: h\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: h\r\n\n\r\n\r\n", None),
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: h\rx\r\n\r\n", None),
        ("GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\n\r\n", None),
        (long.as_str(), None),
    ] {
        let found = Outline::of_usual(bytes.as_bytes(), &mut FieldSlots::new(), &limits);
        assert_eq!(found.map(|outline| outline.end), want, "{bytes:?}");
    }
}

#[test]
fn a_sound_head_is_taken_apart() {
    let text = "\r\nPOST /a/b?c=d HTTP/1.1\r\nHost: \t conf.test:80 \t\r\ncOnTeNt-LeNgTh:5\r\nX-Empty:\r\n\
                X-Test:\t a\u{e9} b \t \r\nTE: gzip, trailers\r\nExpect: 100-Continue\r\n\r\n";
    let mut slots = FieldSlots::new();
    let head = parse(text.as_bytes(), &mut slots).expect("sound");
    assert_eq!(head.line, b"POST /a/b?c=d HTTP/1.1");
    assert_eq!((head.method, head.kind), ("POST", Method::Post));
    assert_eq!((head.target, head.form), (&b"/a/b?c=d"[..], TargetForm::Origin));
    assert_eq!((head.path, head.query), (&b"/a/b"[..], Some(&b"c=d"[..])));
    assert_eq!((head.version, head.authority), (Version::Http11, &b"conf.test:80"[..]));
    assert_eq!((head.body, head.persistent), (RequestBody::Length(5), true));
    assert_eq!((head.expectation, head.upgrade), (Expectation::Continue, None));
    assert!(head.accepts_trailers);
    let fields: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
    let want: [(&[u8], &[u8]); 6] = [
        (b"Host", b"conf.test:80"),
        (b"cOnTeNt-LeNgTh", b"5"),
        (b"X-Empty", b""),
        (b"X-Test", "a\u{e9} b".as_bytes()),
        (b"TE", b"gzip, trailers"),
        (b"Expect", b"100-Continue"),
    ];
    assert_eq!(fields, want);
    assert_eq!(head.first("x-test"), Some("a\u{e9} b".as_bytes()));
    assert_eq!(head.first("x-none"), None);
}

#[test]
fn request_lines_are_one_of_http_1_or_refused() {
    for (line, want) in [
        ("GET / HTTP/1.1", Ok(())),
        ("GET / HTTP/1.0", Ok(())),
        ("get / HTTP/1.1", Ok(())),
        ("F!#$%&'*+.^_`|~0 / HTTP/1.1", Ok(())),
        ("GET /\u{c3}\u{a9} HTTP/1.1", Ok(())),
        ("GET /a%20b;c=1,d/%7Eu/!$&'()*+:@?q=a%26b&r=/?x HTTP/1.1", Ok(())),
        ("GET\t/\tHTTP/1.1", Err((400, Reason::Method))),
        ("GET\u{b}/\u{c}HTTP/1.1", Err((400, Reason::Method))),
        ("GE\0T / HTTP/1.1", Err((400, Reason::Method))),
        ("G(T / HTTP/1.1", Err((400, Reason::Method))),
        (" GET / HTTP/1.1", Err((400, Reason::Method))),
        ("GET  HTTP/1.1", Err((400, Reason::RequestLine))),
        ("GET  / HTTP/1.1", Err((400, Reason::RequestLine))),
        ("GET /  HTTP/1.1", Err((400, Reason::RequestLine))),
        ("GET / HTTP/1.1 ", Err((400, Reason::RequestLine))),
        ("GET / a HTTP/1.1", Err((400, Reason::RequestLine))),
        ("GET / HTTP/1.1x", Err((400, Reason::RequestLine))),
        ("GET / HTTP/01.1", Err((400, Reason::RequestLine))),
        ("GET / http/1.1", Err((400, Reason::RequestLine))),
        ("GET /\0x HTTP/1.1", Err((400, Reason::TargetByte))),
        ("GET /\u{7f}x HTTP/1.1", Err((400, Reason::TargetByte))),
        ("GET /\tx HTTP/1.1", Err((400, Reason::TargetByte))),
        ("GET /x#frag HTTP/1.1", Err((400, Reason::Fragment))),
        ("GET * HTTP/1.1", Err((400, Reason::TargetForm))),
        ("GET ?a HTTP/1.1", Err((400, Reason::TargetForm))),
        ("GET @127.0.0.2:9/a HTTP/1.1", Err((400, Reason::TargetForm))),
        ("CONNECT / HTTP/1.1", Err((400, Reason::TargetForm))),
        ("CONNECT h HTTP/1.1", Err((400, Reason::TargetForm))),
        ("CONNECT h:443 HTTP/1.1", Ok(())),
        ("GET https://h/ HTTP/1.1", Err((421, Reason::Misdirected))),
        ("GET http:///a HTTP/1.1", Err((400, Reason::Authority))),
        ("GET http://u@h/ HTTP/1.1", Err((400, Reason::UserInfo))),
        ("GET /", Err((400, Reason::NoVersion))),
        ("GET", Err((400, Reason::RequestLine))),
        ("GET / HTTP/1.1\rX: 1", Err((400, Reason::BareCr))),
        ("GET / HTTP/1.2", Err((505, Reason::Version))),
        ("GET / HTTP/0.9", Err((505, Reason::Version))),
        ("GET / HTTP/2.0", Err((505, Reason::Version))),
        ("PRI * HTTP/2.0", Err((505, Reason::Version))),
    ] {
        let head = format!("{line}\r\nHost: h\r\n\r\n");
        let got = parse(head.as_bytes(), &mut FieldSlots::new()).map(|_| ());
        assert_eq!(got.map_err(|fault| (fault.status, fault.reason)), want, "{line:?}");
    }
    let latin = b"GET /\xe9 HTTP/1.1\r\nHost: h\r\n\r\n";
    let fault = parse(latin, &mut FieldSlots::new()).expect_err("no URI and no UTF-8");
    assert_eq!(fault.reason, Reason::TargetByte);
}

#[test]
fn field_lines_are_sound_or_refused() {
    for (lines, want) in [
        ("X-Test: 1\r\n", Ok(())),
        ("X_Test: v\r\n", Ok(())),
        ("X-Test:\r\n", Ok(())),
        ("X-Test : 1\r\n", Err(Reason::BlankBeforeColon)),
        ("X-Test\t: 1\r\n", Err(Reason::BlankBeforeColon)),
        ("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", Err(Reason::BlankBeforeColon)),
        ("X-Test: one\r\n two\r\n", Err(Reason::Fold)),
        ("X-Test: one\r\n\ttwo\r\n", Err(Reason::Fold)),
        ("Content-Length:\r\n 5\r\n", Err(Reason::Fold)),
        ("X-Test: a\r\n \r\nX-Late: 1\r\n", Err(Reason::Fold)),
        (" X-Test: 1\r\n", Err(Reason::Fold)),
        (": x\r\n", Err(Reason::FieldName)),
        ("X(Test): 1\r\n", Err(Reason::FieldName)),
        ("X Test: 1\r\n", Err(Reason::FieldName)),
        ("X-\0Test: 1\r\n", Err(Reason::FieldName)),
        ("X-T\u{e9}st: 1\r\n", Err(Reason::FieldName)),
        ("NoColon\r\n", Err(Reason::NoColon)),
        ("X-Test: a\u{1}b\r\n", Err(Reason::FieldValue)),
        ("X-Test: a\0\r\n", Err(Reason::FieldValue)),
        ("X-Test: a\u{7f}\r\n", Err(Reason::FieldValue)),
        ("X-Test: \u{b}a\r\n", Err(Reason::FieldValue)),
        ("X-Test: a\r\r\n", Err(Reason::BareCr)),
        ("X-Test: a\rb\r\n", Err(Reason::BareCr)),
        ("X-Test: a\nX-B: b\r\n", Err(Reason::BareLf)),
        ("X-Test: a\n", Err(Reason::BareLf)),
        ("\n", Err(Reason::BareLf)),
        ("\r\nX-Behind: the head\r\n", Err(Reason::Incomplete)),
    ] {
        assert_eq!(with_fields(lines), want, "{lines:?}");
    }
    let bare = b"GET / HTTP/1.1\nHost: h\nX-Test: 1\n\n";
    assert_eq!(parse(bare, &mut FieldSlots::new()).map(|_| ()).map_err(|fault| fault.status), Err(400));
    for cut in ["", "\r\n", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: h\r\n"] {
        let got = parse(cut.as_bytes(), &mut FieldSlots::new()).map(|_| ()).map_err(|fault| fault.reason);
        assert_eq!(got, Err(Reason::Incomplete), "{cut:?}");
    }
}

#[test]
fn host_is_there_once_and_is_one() {
    for (head, want) in [
        ("GET / HTTP/1.1\r\nHost: h:1\r\n\r\n", Ok("h:1")),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Ok("")),
        ("GET / HTTP/1.0\r\n\r\n", Ok("")),
        ("GET / HTTP/1.0\r\nHost: h\r\n\r\n", Ok("h")),
        ("GET / HTTP/1.1\r\n\r\n", Err(Reason::NoHost)),
        ("GET http://h/ HTTP/1.1\r\n\r\n", Err(Reason::NoHost)),
        ("GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", Err(Reason::TwoHosts)),
        ("GET / HTTP/1.0\r\nHost: h\r\nHost: i\r\n\r\n", Err(Reason::TwoHosts)),
        ("GET http://h/ HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", Err(Reason::TwoHosts)),
        ("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", Err(Reason::BadHost)),
        ("GET / HTTP/1.1\r\nHost: h, i\r\n\r\n", Err(Reason::BadHost)),
        ("GET http://h:8/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", Err(Reason::HostMismatch)),
        ("GET http://h:8/ HTTP/1.1\r\nHost: h\r\n\r\n", Err(Reason::HostMismatch)),
        ("GET http://h/ HTTP/1.1\r\nHost:\r\n\r\n", Err(Reason::HostMismatch)),
        ("GET http://h/ HTTP/1.0\r\nHost: i\r\n\r\n", Err(Reason::HostMismatch)),
        ("GET http://H:80/ HTTP/1.1\r\nHost: h:\r\n\r\n", Ok("H:80")),
        ("GET http://h:8/ HTTP/1.0\r\n\r\n", Ok("h:8")),
        ("GET http://h/ HTTP/1.1\r\nHost: e vil\r\n\r\n", Err(Reason::BadHost)),
        ("OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n", Ok("h")),
        ("CONNECT h:443 HTTP/1.1\r\nHost: i\r\n\r\n", Ok("h:443")),
    ] {
        let mut slots = FieldSlots::new();
        let got = parse(head.as_bytes(), &mut slots).map(|head| head.authority);
        assert_eq!(got.map_err(|fault| fault.reason), want.map(str::as_bytes), "{head:?}");
    }
}

#[test]
fn framing_faults_have_their_status() {
    for (lines, want) in [
        ("Content-Length: 5\r\nContent-Length: 5\r\n", (400, Reason::TwoLengths)),
        ("Content-Length: -5\r\n", (400, Reason::Length)),
        ("Content-Length: \u{b}5\r\n", (400, Reason::FieldValue)),
        ("Content-Length: 18446744073709551621\r\n", (400, Reason::Length)),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", (400, Reason::LengthAndEncoding)),
        ("Transfer-Encoding: chunked\0\r\n", (400, Reason::FieldValue)),
        ("Transfer-Encoding: gzip, chunked\r\n", (501, Reason::UnknownEncoding)),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        let fault = parse(head.as_bytes(), &mut FieldSlots::new()).expect_err(lines);
        assert_eq!((fault.status, fault.reason), want, "{lines:?}");
    }
    assert_eq!(with_fields("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n"), Ok(()));
    assert_eq!(with_fields("Content-Length:\t5\t\r\n"), Ok(()));
}

#[test]
fn connection_decides_what_stays_and_whether_we_do() {
    // lines, HTTP/1.1 persistent, HTTP/1.0 persistent, fields that end here
    let cases: &[(&str, bool, bool, &[&str])] = &[
        ("", true, false, &[]),
        ("Connection: close\r\n", false, false, &["Connection"]),
        ("Connection: Keep-Alive\r\n", true, true, &["Connection"]),
        ("Connection: keep-alive, close\r\n", false, false, &["Connection"]),
        (
            "Connection: keep-alive,  x-ONE ,,X-Two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\n",
            true,
            true,
            &["Connection", "X-One", "X-Two"],
        ),
        (
            "X-Hop: 1\r\nConnection: close, X-Hop\r\nX-Hop: 2\r\n",
            false,
            false,
            &["X-Hop", "Connection", "X-Hop"],
        ),
        ("Connection: Host\r\n", true, false, &["Connection"]),
        ("Connection: a b, \u{e9}, closed\r\nA: b\r\n", true, false, &["Connection"]),
        (
            "Proxy-Connection: close\r\nKeep-Alive: 300\r\nTE: x\r\nTrailer: y\r\nUpgrade: z\r\n",
            true,
            false,
            &["Proxy-Connection", "Keep-Alive", "TE", "Trailer", "Upgrade"],
        ),
        ("Content-Length: 3\r\nCookie: a=b\r\n", true, false, &["Content-Length"]),
    ];
    for (lines, persists_11, persists_10, ends) in cases {
        for (version, persists) in [("1.1", persists_11), ("1.0", persists_10)] {
            let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{lines}\r\n");
            let mut slots = FieldSlots::new();
            let head = parse(text.as_bytes(), &mut slots).expect(lines);
            assert_eq!(head.persistent, *persists, "{lines:?} {version}");
            let hops: Vec<_> = head.fields.iter().filter(|field| field.hop).map(|field| field.name).collect();
            let ends: Vec<_> = ends.iter().map(|name| name.as_bytes()).collect();
            assert_eq!(hops, ends, "{lines:?}");
        }
    }
    let many = format!("Connection: {}\r\n", "a,".repeat(65));
    assert_eq!(with_fields(&many), Err(Reason::TooManyOptions));
}

#[test]
fn expectation_upgrade_and_max_forwards() {
    for (text, expectation, upgrade, forwards) in [
        ("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5", Expectation::Continue, None, None),
        (
            "POST / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked",
            Expectation::Continue,
            None,
            None,
        ),
        ("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5", Expectation::None, None, None),
        ("GET / HTTP/1.1\r\nExpect: 100-continue", Expectation::None, None, None),
        ("GET / HTTP/1.1\r\nExpect:", Expectation::None, None, None),
        ("GET / HTTP/1.1\r\nExpect: 200-maybe", Expectation::Other, None, None),
        ("POST / HTTP/1.1\r\nExpect: x, 100-continue\r\nContent-Length: 5", Expectation::Other, None, None),
        (
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade",
            Expectation::None,
            Some("websocket"),
            None,
        ),
        ("GET / HTTP/1.1\r\nUpgrade: websocket", Expectation::None, None, None),
        (
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade",
            Expectation::None,
            None,
            None,
        ),
        ("GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade", Expectation::None, None, None),
        ("OPTIONS / HTTP/1.1\r\nMax-Forwards: 3", Expectation::None, None, Some(3)),
        ("OPTIONS / HTTP/1.1\r\nMax-Forwards: x", Expectation::None, None, None),
        ("GET / HTTP/1.1\r\nMax-Forwards: 0", Expectation::None, None, None),
    ] {
        let full = format!("{text}\r\nHost: h\r\n\r\n");
        let mut slots = FieldSlots::new();
        let head = parse(full.as_bytes(), &mut slots).expect(text);
        assert_eq!(head.expectation, expectation, "{text:?}");
        assert_eq!(head.upgrade, upgrade.map(str::as_bytes), "{text:?}");
        assert_eq!(head.max_forwards(), forwards, "{text:?}");
    }
}

#[test]
fn as_many_fields_as_the_limit_says() {
    let head = |count| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let parse = |count, fields| {
        let limits = HeadLimits { fields, ..LIMITS };
        let mut slots = FieldSlots::new();
        let parsed =
            RequestHead::parse(head(count).as_bytes(), &mut slots, &limits).map(|head| head.fields.len());
        parsed.map_err(|fault| (fault.status, fault.reason))
    };
    let too_many = Err((431, Reason::TooManyFields));
    assert_eq!(parse(100, 100), Ok(100));
    assert_eq!(parse(101, 100), too_many);
    assert_eq!(parse(ROOM, 1000), Ok(ROOM));
    assert_eq!(parse(ROOM + 1, 1000), Ok(ROOM + 1));
    assert_eq!(parse(1000, 1000), Ok(1000));
    assert_eq!(parse(1001, 1000), too_many);
    assert_eq!(parse(2, 1), too_many);
}

/// What a strict peer checks of a head, written down independently of the parser.
fn is_strict(head: &[u8]) -> bool {
    let Some(mut rest) = head.strip_suffix(b"\r\n\r\n") else { return false };
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        rest = after;
    }
    let text: Vec<char> = rest.iter().map(|byte| *byte as char).collect();
    let text: String = text.into_iter().collect();
    let mut lines = text.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or("").split(' ').collect();
    let token = |text: &str| !text.is_empty() && text.bytes().all(is_token_byte);
    let [method, target, version] = words[..] else { return false };
    let mut hosts = 0;
    let fields_are_sound = lines.all(|line| {
        let Some((name, value)) = line.split_once(':') else { return false };
        hosts += u32::from(name.eq_ignore_ascii_case("host"));
        token(name) && !value.chars().any(|char| char.is_ascii_control() && char != '\t')
    });
    token(method)
        && !target.is_empty()
        && !target.chars().any(|char| char.is_ascii_control() || char == '#')
        && (version == "HTTP/1.1" && hosts == 1 || version == "HTTP/1.0" && hosts <= 1)
        && fields_are_sound
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

proptest! {
    #[test]
    fn what_is_taken_is_strict(
        edits in prop::collection::vec(
            (
                any::<usize>(),
                0..2usize,
                prop::sample::select(vec![
                    "\r", "\n", "\r\n", "\0", " ", "\t", "\u{b}", "\u{7f}", ":", ",", ";", "#", "@", "\r\n ", "\n\n",
                    "\r\r\n", "Host: i\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "é", "",
                ]),
            ),
            0..4,
        ),
        cut in any::<usize>(),
    ) {
        let mut head = b"\r\nGET /a?b=c HTTP/1.1\r\nHost: conf.test\r\nX-A: 1\r\nAccept: */*\r\n\r\n".to_vec();
        for (at, drop, text) in edits {
            let at = at % head.len();
            let end = (at + drop).min(head.len());
            head.splice(at..end, text.bytes());
        }
        let mut slots = FieldSlots::new();
        if parse(&head, &mut slots).is_ok() {
            prop_assert!(is_strict(&head), "{:?}", String::from_utf8_lossy(&head));
        }
        // What scanning and parsing make of the stream does not depend on how it is cut.
        let outcome = |cut: usize| {
            let mut scan = HeadScan::new();
            for end in [cut, head.len()] {
                if let Some(end) = scan.scan(&head[..end], &LIMITS, HeadKind::Request)? {
                    let mut slots = FieldSlots::new();
                    return parse(&head[..end], &mut slots).map(|_| Some(end));
                }
            }
            Ok(None)
        };
        prop_assert_eq!(outcome(0), outcome(cut % (head.len() + 1)));
        // The short way leads to the same, with whatever comes behind the head.
        for behind in ["", "\r\n", "x", "GET / HTTP/1.1\r\n\r\n"] {
            let bytes = [&head[..], behind.as_bytes()].concat();
            let mut slots = FieldSlots::new();
            let found = RequestHead::find(&mut HeadScan::new(), &bytes, &mut slots, &LIMITS);
            let end = HeadScan::new().scan(&bytes, &LIMITS, HeadKind::Request);
            prop_assert_eq!(found.map(|found| found.map(|found| found.end)), end);
            if let Ok(Some(found)) = found {
                let bytes = &bytes[..found.end];
                let short = format!("{:?}", RequestHead::of(bytes, found, &mut slots, &LIMITS));
                prop_assert_eq!(short, format!("{:?}", parse(bytes, &mut FieldSlots::new())));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        start in prop::sample::select(vec!["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: h\r\n"]),
        mut bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut head = start.as_bytes().to_vec();
        head.append(&mut bytes);
        let mut slots = FieldSlots::new();
        let _ = parse(&head, &mut slots);
        head.extend_from_slice(b"\r\n\r\n");
        let _ = parse(&head, &mut slots);
    }
}
