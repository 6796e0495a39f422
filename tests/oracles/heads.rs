//! Are heads found, and read as the strict reader reads them, however they are cut?

use super::strict::{self, Framing, Message, Taste};
use super::ways_to_cut;
use ostler::http::{
    Asked, Expectation, Fault, FieldSlots, Fields, HeadKind, HeadLimits, HeadScan, Method, Reason,
    RequestBody, RequestHead, ResponseBody, ResponseHead, Version,
};

/// What clients may send by default.
fn limits() -> HeadLimits {
    HeadLimits::request(8190, Some(100), 8190)
}

/// Looks for the end of a head, the bytes in one piece and in others; all must say the same.
fn scan(bytes: &[u8], limits: &HeadLimits, kind: HeadKind) -> Result<Option<usize>, Fault> {
    let whole = HeadScan::new().scan(bytes, limits, kind);
    for cuts in ways_to_cut(bytes, bytes.len()) {
        let mut scan = HeadScan::new();
        let mut split = scan.scan(b"", limits, kind);
        for end in cuts {
            split = scan.scan(&bytes[..end], limits, kind);
            if split != Ok(None) {
                break;
            }
            assert!(end <= limits.total, "what waits for more is bounded");
        }
        assert_eq!(whole, split, "however it is cut");
    }
    whole
}

/// Whether a head that is sound may be refused for this all the same: a limit, or what we do not serve.
fn is_policy(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::LineTooLong
            | Reason::FieldTooLarge
            | Reason::TooManyFields
            | Reason::HeadTooLarge
            | Reason::TooManyOptions
            | Reason::HostMismatch
    )
}

/// Any bytes as a request head: found, parsed and refused as the strict reader would.
pub fn request(bytes: &[u8]) {
    let limits = limits();
    let strict = strict::request(bytes, Taste::Received);
    let end = match scan(bytes, &limits, HeadKind::Request) {
        Ok(Some(end)) => end,
        Ok(None) => {
            assert!(!matches!(strict, Ok(Some(_))), "a whole head is found: {strict:?}");
            // Without its end it is no head.
            let _ = RequestHead::parse(bytes, &mut FieldSlots::new(), &limits).expect_err("incomplete");
            return;
        }
        Err(fault) => {
            let is_right = is_policy(fault.reason) || !matches!(strict, Ok(Some(_)));
            assert!(is_right, "refused ({fault}) and sound: {strict:?}");
            return;
        }
    };
    let mut slots = FieldSlots::new();
    match (
        RequestHead::parse(&bytes[..end], &mut slots, &limits),
        strict::request(&bytes[..end], Taste::Received),
    ) {
        (Ok(head), Ok(Some(message))) => agree(&head, &message),
        (Ok(head), strict) => panic!("taken and not sound: {head:?} {strict:?}"),
        (Err(fault), Ok(Some(message))) => {
            assert!(is_policy(fault.reason), "refused ({fault}) and sound: {message:?}")
        }
        (Err(fault), _) => assert!(matches!(fault.status, 400 | 414 | 421 | 431 | 501 | 505), "{fault:?}"),
    }
}

/// A request head as both understand it.
pub fn agree(head: &RequestHead<'_, '_>, message: &Message) {
    assert_eq!(head.method, message.method);
    assert_eq!(head.target, message.target);
    assert_eq!(head.version == Version::Http11, message.is_http_11);
    assert_eq!(head.persistent, message.persists());
    let want = match message.framing.expect("a request has one") {
        Framing::Length(length) => RequestBody::Length(length),
        Framing::Chunked => RequestBody::Chunked,
        Framing::Nothing | Framing::UntilClose => RequestBody::Empty,
    };
    assert_eq!(head.body, want);
    let upgrades = message.is_http_11 && message.lists("connection", "upgrade");
    assert_eq!(head.upgrade, only(&message.all("upgrade")).filter(|_| upgrades));
    assert_eq!(head.accepts_trailers, message.is_http_11 && message.lists("te", "trailers"));
    if !message.is_http_11 {
        assert_eq!(head.expectation, Expectation::None);
    }
    // A host may be called "*", too.
    let is_absolute = head.target.first() != Some(&b'/') && head.target != b"*";
    let from_target = is_absolute.then(|| {
        let text = String::from_utf8_lossy(head.target);
        let rest = text.get(7..).filter(|_| text.contains("://")).unwrap_or(&text).to_owned();
        rest.split(['/', '?']).next().unwrap_or_default().as_bytes().to_vec()
    });
    let from_host = || message.all("host").first().map(|host| host.to_vec()).unwrap_or_default();
    let authority = from_target.unwrap_or_else(from_host);
    assert_eq!(head.authority, authority);
    fields(head.fields, message);
}

fn fields(fields: Fields<'_, '_>, message: &Message) {
    let mut got = Vec::new();
    let nominated = message.nominated();
    for field in fields.iter() {
        let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
        assert_eq!(field.hop, is_hop(&name, &nominated), "{name} with {nominated:?}");
        got.push((name, field.value.to_vec()));
    }
    assert_eq!(got, message.fields);
}

/// Whether a field ends at this hop: RFC 9110, 7.6.1, and the framing fields, which are written anew.
pub fn is_hop(name: &str, nominated: &[String]) -> bool {
    const ALWAYS: &[&str] = &[
        "connection",
        "content-length",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let is_option = ["close", "keep-alive", "upgrade"].contains(&name);
    ALWAYS.contains(&name) || (name != "host" && !is_option && nominated.iter().any(|one| one == name))
}

/// The one value there is, if there is one.
fn only<'v>(values: &[&'v [u8]]) -> Option<&'v [u8]> {
    if let [value] = values { Some(value) } else { None }
}

/// Any bytes as a response head, to a GET that asked for an upgrade, a GET that did not, and a HEAD.
pub fn response(bytes: &[u8]) {
    let limits = HeadLimits::RESPONSE;
    let strict = strict::response(bytes, false, Taste::Received);
    let end = match scan(bytes, &limits, HeadKind::Response) {
        Ok(Some(end)) => end,
        Ok(None) => {
            assert!(!matches!(strict, Ok(Some(_))), "a whole head is found: {strict:?}");
            return;
        }
        Err(fault) => {
            assert_eq!(fault.status, 502);
            let is_right = is_policy(fault.reason) || !matches!(strict, Ok(Some(_)));
            assert!(is_right, "refused ({fault}) and sound: {strict:?}");
            return;
        }
    };
    for (method, upgrade) in [(Method::Get, true), (Method::Get, false), (Method::Head, false)] {
        let mut slots = FieldSlots::new();
        let asked = Asked { method, upgrade };
        let strict = strict::response(&bytes[..end], method == Method::Head, Taste::Received);
        match (ResponseHead::parse(&bytes[..end], &mut slots, &limits, asked), strict) {
            (Ok(head), Ok(Some(message))) => same_response(&head, &message, upgrade),
            (Ok(head), strict) => panic!("taken and not sound: {head:?} {strict:?}"),
            (Err(fault), Ok(Some(message))) => {
                let is_right =
                    is_policy(fault.reason) || message.status == 101 && !is_switch(&message, upgrade);
                assert!(is_right, "refused ({fault}) and sound: {message:?}");
            }
            (Err(fault), _) => assert_eq!(fault.status, 502),
        }
    }
}

/// Whether a 101 is one that may be taken.
pub fn is_switch(message: &Message, asked: bool) -> bool {
    let is_named = only(&message.all("upgrade")).is_some_and(|name| !name.is_empty());
    asked && message.is_http_11 && is_named && message.lists("connection", "upgrade")
}

fn same_response(head: &ResponseHead<'_, '_>, message: &Message, asked: bool) {
    assert_eq!(head.status, message.status);
    assert_eq!(head.version == Version::Http11, message.is_http_11);
    let want = match message.framing.expect("a response has one") {
        Framing::Nothing => ResponseBody::Empty,
        Framing::Length(length) => ResponseBody::Length(length),
        Framing::Chunked => ResponseBody::Chunked,
        Framing::UntilClose => ResponseBody::UntilClose,
    };
    assert_eq!(head.body, want);
    if head.status == 101 {
        assert!(is_switch(message, asked) && head.upgrade.is_some() && !head.persistent);
    } else {
        assert_eq!(head.upgrade, None);
    }
    if head.persistent {
        assert!(message.persists() && head.body != ResponseBody::UntilClose);
    }
    fields(head.fields, message);
}
