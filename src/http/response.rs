//! What does this response head say?
//!
//! As strict as with requests: a field cut in two, a folded line, two lengths or bytes that are not HTTP fail
//! the whole response, because what a client would make of them is anybody's guess. A fault is a 502.

use super::diagnose;
use super::error::{Fault, Reason};
use super::field::{FieldKind, FieldSlots, Fields, members, number};
use super::framing::{Framing, ResponseBody};
use super::options::Options;
use super::request::{Method, ROOM, Stop, Version};
use super::scan::{HeadKind, HeadLimits, HeadScan};
use std::mem::MaybeUninit;

/// What a response answers, as far as its meaning depends on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Asked {
    /// The method we sent.
    pub method: Method,
    /// Whether we sent Upgrade.
    pub upgrade: bool,
}

/// A response head that is sound.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'b, 'h> {
    /// The version the backend speaks.
    pub version: Version,
    /// `100..=599`; below 200 an interim response, which another one follows (101 apart).
    pub status: u16,
    /// The reason phrase as sent, perhaps empty: no control character but HTAB.
    pub reason: &'b [u8],
    /// All fields in order, the hop-by-hop ones included.
    pub fields: Fields<'b, 'h>,
    /// Where the body ends.
    pub body: ResponseBody,
    /// What Content-Length says, also where there is no body (HEAD, 304): it may be said again there.
    pub length: Option<u64>,
    /// Whether the backend's connection may serve another request once the body is over. Interim responses
    /// can say no for the final one.
    pub persistent: bool,
    /// In a 101: the protocol that the connection speaks from here on. The caller checks that it is what was
    /// asked for.
    pub upgrade: Option<&'b [u8]>,
}

impl<'b, 'h> ResponseHead<'b, 'h> {
    /// Parses `head`, which ends with its empty line, as [`super::HeadScan`] delimits it, as an answer to
    /// what was `asked`.
    ///
    /// # Errors
    /// Whatever is not a sound answer; always a 502.
    pub fn parse(
        head: &'b [u8],
        slots: &'h mut FieldSlots,
        limits: &HeadLimits,
        asked: Asked,
    ) -> Result<Self, Fault> {
        outline(head, slots, limits)
            .and_then(|outline| Self::read(head, outline, slots, asked))
            .map_err(Fault::response)
    }

    /// Looks for the end of the head at the beginning of `bytes`, as [`HeadScan::scan`] does. One that comes whole, is
    /// small and has nothing odd about it, as most are, is taken apart on the way: half the work. Its fields are then in
    /// `slots`, which [`ResponseHead::of`] wants as they are.
    ///
    /// # Errors
    /// As with [`HeadScan::scan`].
    pub fn find(
        scan: &mut HeadScan,
        bytes: &[u8],
        slots: &mut FieldSlots,
        limits: &HeadLimits,
    ) -> Result<Option<FoundResponse>, Fault> {
        if scan.is_new()
            && let Some(outline) = Outline::of_usual(bytes, slots, limits)
        {
            return Ok(Some(FoundResponse { end: outline.end, outline: Some(outline) }));
        }
        let end = scan.scan(bytes, limits, HeadKind::Response)?;
        Ok(end.map(|end| FoundResponse { end, outline: None }))
    }

    /// Parses what was found: `head` is the bytes up to its end.
    ///
    /// # Errors
    /// As [`ResponseHead::parse`].
    pub fn of(
        head: &'b [u8],
        found: FoundResponse,
        slots: &'h mut FieldSlots,
        limits: &HeadLimits,
        asked: Asked,
    ) -> Result<Self, Fault> {
        match found.outline {
            Some(outline) => Self::read(head, outline, slots, asked).map_err(Fault::response),
            None => Self::parse(head, slots, limits, asked),
        }
    }

    /// The value of the first field called `name`, in any case of letters.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&'b [u8]> {
        self.fields.first(name)
    }

    /// Whether the final response is still to come.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// The seconds for which the backend promises to keep an idle connection (`Keep-Alive: timeout=5`).
    #[must_use]
    pub fn keep_alive_timeout(&self) -> Option<u64> {
        let value = self.fields.first_of(FieldKind::KeepAlive)?;
        members(value).find_map(|parameter| match parameter.split_at_checked(8) {
            Some((name, seconds)) if name.eq_ignore_ascii_case(b"timeout=") => number(seconds),
            _ => None,
        })
    }

    fn read(
        head: &'b [u8],
        outline: Outline,
        slots: &'h mut FieldSlots,
        asked: Asked,
    ) -> Result<Self, Reason> {
        let version = Version::of_minor(outline.minor);
        let is_http_11 = version == Version::Http11;
        let status = outline.status;
        // `HTTP/1.1 200`, then nothing or a space and the reason, which the parser has found free of control
        // characters but drops if it is not ASCII.
        let end = memchr::memchr(b'\r', head).ok_or(Reason::BareLf)?;
        let reason = head.get("HTTP/1.1 200 ".len()..end).unwrap_or(b"");
        if !(100..=599).contains(&status) {
            return Err(Reason::StatusCode);
        }

        let mut framing = Framing::default();
        let mut has_connection = false;
        let mut upgrade = None;
        let mut upgrades = 0;
        for slot in &slots.slots {
            match slot.kind {
                FieldKind::Connection => has_connection = true,
                FieldKind::ContentLength => framing.add_length(slot.value(head))?,
                FieldKind::TransferEncoding => framing.add_encoding(slot.value(head)),
                FieldKind::Upgrade => {
                    upgrade = Some(slot.value(head));
                    upgrades += 1;
                }
                _ => {}
            }
        }
        let body = framing.response(is_http_11, status, asked.method == Method::Head)?;
        let options =
            if has_connection { Options::read(head, &mut slots.slots)? } else { Options::default() };
        let is_asked = status == 101 && options.upgrade && asked.upgrade && is_http_11;
        let upgrade = upgrade.filter(|_| is_asked && upgrades == 1);
        let is_tunnel = status == 101 || (asked.method == Method::Connect && (200..300).contains(&status));
        if is_tunnel && upgrade.is_none_or(<[u8]>::is_empty) {
            return Err(Reason::Switch);
        }
        // A 204 that announces a body may send one, which would be taken for the next response.
        let is_honest =
            status != 204 || (!framing.encoded && framing.length.is_none_or(|length| length == 0));
        Ok(Self {
            version,
            status,
            reason,
            fields: slots.view(head),
            body,
            length: framing.length,
            persistent: options.persistent(is_http_11)
                && body != ResponseBody::UntilClose
                && is_honest
                && !is_tunnel,
            upgrade,
        })
    }
}

/// A head that is there.
#[derive(Clone, Copy, Debug)]
pub struct FoundResponse {
    /// How many bytes it has, empty lines before it included.
    pub end: usize,
    outline: Option<Outline>,
}

/// Where the lines of a response head are: what the status line says here, the fields in the [`FieldSlots`] that were
/// lent for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Outline {
    minor: u8,
    status: u16,
    end: usize,
}

impl Outline {
    /// Of the head at the beginning of `bytes`, if it is all there, small, and as heads mostly are.
    fn of_usual(bytes: &[u8], slots: &mut FieldSlots, limits: &HeadLimits) -> Option<Self> {
        // The parser passes over empty lines.
        if bytes.first() != Some(&b'H') {
            return None;
        }
        let mut room = [const { MaybeUninit::uninit() }; ROOM];
        let outline = walk(bytes, &mut room[..ROOM.min(limits.fields)], slots).ok()?;
        (outline.end <= limits.small()).then_some(outline)
    }
}

/// The outline of `head`, which is one and no more.
fn outline(head: &[u8], slots: &mut FieldSlots, limits: &HeadLimits) -> Result<Outline, Reason> {
    // The parser skips empty lines before the status line, which is a leniency for requests only.
    if !head.starts_with(b"HTTP/") {
        return Err(Reason::NotHttp);
    }
    let mut room = [const { MaybeUninit::uninit() }; ROOM];
    let found = match walk(head, &mut room[..ROOM.min(limits.fields)], slots) {
        Err(Stop::Parser(httparse::Error::TooManyHeaders)) if limits.fields > ROOM => {
            let mut room = vec![MaybeUninit::uninit(); limits.fields.min(head.len() / 4)];
            walk(head, &mut room, slots)
        }
        other => other,
    };
    match found {
        Ok(outline) if outline.end == head.len() => Ok(outline),
        Ok(_) | Err(Stop::Partial) => Err(Reason::Incomplete),
        Err(Stop::Parser(error)) => Err(diagnose::response(head, error)),
        Err(Stop::Reason(reason)) => Err(reason),
    }
}

/// Lets the parser go through the head at the beginning of `bytes`, and fills `slots`.
fn walk<'b>(
    bytes: &'b [u8],
    room: &mut [MaybeUninit<httparse::Header<'b>>],
    slots: &mut FieldSlots,
) -> Result<Outline, Stop> {
    let mut raw = httparse::Response::new(&mut []);
    let end =
        match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut raw, bytes, room) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) => return Err(Stop::Partial),
            Err(error) => return Err(Stop::Parser(error)),
        };
    let (Some(minor), Some(status)) = (raw.version, raw.code) else {
        return Err(Stop::Partial);
    };
    slots.fill(&bytes[..end], raw.headers).map_err(Stop::Reason)?;
    Ok(Outline { minor, status, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: Asked = Asked { method: Method::Get, upgrade: false };

    fn parse<'b, 'h>(
        head: &'b str,
        slots: &'h mut FieldSlots,
        asked: Asked,
    ) -> Result<ResponseHead<'b, 'h>, Reason> {
        ResponseHead::parse(head.as_bytes(), slots, &HeadLimits::RESPONSE, asked).map_err(|fault| {
            assert_eq!(fault.status, 502);
            fault.reason
        })
    }

    #[test]
    fn a_sound_head_is_taken_apart() {
        let text = "HTTP/1.1 404 Not  F\u{f6}und\r\nX-Test: caf\u{e9}\r\nContent-Length: 2\r\n\
                    Connection: X-Hop\r\nX-Hop: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
                    Keep-Alive: max=9, Timeout=77\r\n\r\n";
        let mut slots = FieldSlots::new();
        let head = parse(text, &mut slots, GET).expect("sound");
        assert_eq!((head.version, head.status), (Version::Http11, 404));
        assert_eq!(head.reason, "Not  F\u{f6}und".as_bytes());
        assert_eq!((head.body, head.length), (ResponseBody::Length(2), Some(2)));
        assert!(head.persistent && !head.is_interim());
        assert_eq!(head.keep_alive_timeout(), Some(77));
        let cookies: Vec<_> = head.fields.all_of(FieldKind::SetCookie).collect();
        assert_eq!(cookies, [b"a", b"b"]);
        let stays: Vec<_> = head.fields.iter().filter(|field| !field.hop).map(|field| field.name).collect();
        assert_eq!(stays, [&b"X-Test"[..], b"Set-Cookie", b"Set-Cookie"]);
    }

    #[test]
    fn status_lines_are_sound_or_fail_the_response() {
        for (line, want) in [
            ("HTTP/1.1 200 OK", Ok((200, "OK"))),
            ("HTTP/1.0 200 OK", Ok((200, "OK"))),
            ("HTTP/1.1 200 ", Ok((200, ""))),
            ("HTTP/1.1 200", Ok((200, ""))),
            ("HTTP/1.1 599 \tOdd", Ok((599, "\tOdd"))),
            ("HTTP/1.1 099 Odd", Err(Reason::StatusCode)),
            ("HTTP/1.1 600 Odd", Err(Reason::StatusCode)),
            ("HTTP/1.1 2000 OK", Err(Reason::StatusLine)),
            ("HTTP/1.1 20 OK", Err(Reason::StatusLine)),
            ("HTTP/1.1 2x0 OK", Err(Reason::StatusLine)),
            ("HTTP/1.1  200 OK", Err(Reason::StatusLine)),
            ("HTTP/1.1", Err(Reason::Version)),
            ("HTTP/1.1 200 O\0K", Err(Reason::StatusLine)),
            ("HTTP/1.1 200 O\rK", Err(Reason::BareCr)),
            ("HTTP/2.0 200 OK", Err(Reason::Version)),
            ("HTTP/1.2 200 OK", Err(Reason::Version)),
            ("\r\nHTTP/1.1 200 OK", Err(Reason::NotHttp)),
            ("220 smtp.test ESMTP ready", Err(Reason::NotHttp)),
            ("", Err(Reason::NotHttp)),
        ] {
            for lines in ["Content-Length: 0\r\n", ""] {
                let text = format!("{line}\r\n{lines}\r\n");
                let mut slots = FieldSlots::new();
                let got = parse(&text, &mut slots, GET).map(|head| (head.status, head.reason));
                assert_eq!(got, want.map(|(status, reason)| (status, reason.as_bytes())), "{line:?}");
            }
        }
    }

    #[test]
    fn malformed_fields_fail_the_response() {
        for (lines, want) in [
            ("X-Fold: one\r\n two\r\n", Reason::Fold),
            ("Content-Length : 2\r\n", Reason::BlankBeforeColon),
            ("X-Test: a\rSet-Cookie: x=1\r\n", Reason::BareCr),
            ("X-Test: a\nSet-Cookie: x=1\r\n", Reason::BareLf),
            ("X Bad(Name): v\r\n", Reason::FieldName),
            ("X-Test: a\0b\r\n", Reason::FieldValue),
            ("NoColon\r\n", Reason::NoColon),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Reason::TwoLengths),
            ("Content-Length: five\r\n", Reason::Length),
            ("Content-Length: +5\r\n", Reason::Length),
            ("Content-Length: 18446744073709551621\r\n", Reason::Length),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Reason::LengthAndEncoding),
            ("Transfer-Encoding: chunked, identity\r\n", Reason::Encoding),
            ("Transfer-Encoding: foo, chunked\r\n", Reason::UnknownEncoding),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
            assert_eq!(parse(&text, &mut FieldSlots::new(), GET).map(|_| ()), Err(want), "{lines:?}");
        }
        let bare = "HTTP/1.1 200 OK\nContent-Length: 2\n\n";
        assert_eq!(parse(bare, &mut FieldSlots::new(), GET).map(|_| ()), Err(Reason::BareLf));
        let bare = "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\n";
        assert_eq!(parse(bare, &mut FieldSlots::new(), GET).map(|_| ()), Err(Reason::BareLf));
    }

    #[test]
    fn connections_are_reused_only_after_a_body_with_an_end() {
        for (text, method, body, persistent) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Method::Get, ResponseBody::UntilClose, false),
            ("HTTP/1.1 200 OK\r\n\r\n", Method::Head, ResponseBody::Empty, true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Method::Head,
                ResponseBody::Empty,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Method::Get,
                ResponseBody::Chunked,
                true,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", Method::Get, ResponseBody::Length(1), true),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n",
                Method::Get,
                ResponseBody::Length(1),
                false,
            ),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", Method::Get, ResponseBody::Length(1), false),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n",
                Method::Get,
                ResponseBody::Length(1),
                true,
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
                Method::Get,
                ResponseBody::Empty,
                true,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", Method::Get, ResponseBody::Empty, true),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Method::Get, ResponseBody::Empty, true),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Method::Get, ResponseBody::Empty, false),
            (
                "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
                Method::Get,
                ResponseBody::Empty,
                false,
            ),
            ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Method::Get, ResponseBody::Empty, true),
        ] {
            let mut slots = FieldSlots::new();
            let head = parse(text, &mut slots, Asked { method, upgrade: false }).expect(text);
            assert_eq!((head.body, head.persistent), (body, persistent), "{text:?}");
        }
    }

    #[test]
    fn a_switch_of_protocols_must_have_been_asked_for() {
        let sound = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        let asked = Asked { method: Method::Get, upgrade: true };
        let mut slots = FieldSlots::new();
        let head = parse(sound, &mut slots, asked).expect("asked for");
        assert_eq!((head.upgrade, head.persistent), (Some(&b"websocket"[..]), false));
        assert!(!head.is_interim());
        for (text, asked) in [
            (sound, GET),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", asked),
            ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n", asked),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade:\r\nConnection: Upgrade\r\n\r\n", asked),
            (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
                asked,
            ),
            ("HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", asked),
            ("HTTP/1.1 200 OK\r\n\r\n", Asked { method: Method::Connect, upgrade: false }),
        ] {
            let got = parse(text, &mut FieldSlots::new(), asked).map(|_| ());
            assert_eq!(got, Err(Reason::Switch), "{text:?}");
        }
        let refused = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        assert_eq!(parse(refused, &mut slots, asked).expect("sound").upgrade, None);
    }

    proptest! {
        #[test]
        fn the_short_way_leads_to_the_same(
            edits in prop::collection::vec(
                (
                    any::<usize>(),
                    0..4usize,
                    prop::sample::select(vec!["", "\r", "\n", "\r\n", " ", ":", "\0", "HTTP/1.0", "204", "\u{e9}", "\r\n\r\n"]),
                ),
                0..4,
            ),
        ) {
            let mut bytes = b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 3\r\nX-A: 1\r\n\r\nabc".to_vec();
            for (at, drop, text) in edits {
                let at = at % bytes.len();
                let end = (at + drop).min(bytes.len());
                bytes.splice(at..end, text.bytes());
            }
            let (limits, mut slots) = (HeadLimits::RESPONSE, FieldSlots::new());
            let found = ResponseHead::find(&mut HeadScan::new(), &bytes, &mut slots, &limits);
            let end = HeadScan::new().scan(&bytes, &limits, HeadKind::Response);
            prop_assert_eq!(found.map(|found| found.map(|found| found.end)), end);
            if let Ok(Some(found)) = found {
                let bytes = &bytes[..found.end];
                let short = format!("{:?}", ResponseHead::of(bytes, found, &mut slots, &limits, GET));
                let mut slots = FieldSlots::new();
                let long = ResponseHead::parse(bytes, &mut slots, &limits, GET);
                prop_assert_eq!(short, format!("{long:?}"));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            start in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 ", "HTTP/1.1 200"]),
            mut bytes in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut head = start.as_bytes().to_vec();
            head.append(&mut bytes);
            let mut slots = FieldSlots::new();
            let _ = ResponseHead::parse(&head, &mut slots, &HeadLimits::RESPONSE, GET);
            head.extend_from_slice(b"\r\n\r\n");
            let _ = ResponseHead::parse(&head, &mut slots, &HeadLimits::RESPONSE, GET);
        }
    }
}
