//! Heads as they leave us, piece by piece; whole exchanges are the business of `exchange`'s tests.

use super::*;
use crate::buf::{Backlog, Gather};
use crate::http::{Asked, FieldSlots, HeadLimits};

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

const PLAN: RequestPlan<'static> = RequestPlan {
    target: b"/t",
    host: b"b:1",
    forwarding: Forwarding { preserve_host: false, add_headers: false, via: Via::Off },
    authority: b"we:81",
    client: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    name: "name",
    expect: false,
    reuse: true,
    upgrade: None,
};

fn requested(request: &str, plan: &RequestPlan<'_>) -> String {
    let (bytes, mut slots, mut out) = (crlf(request), FieldSlots::new(), Vec::new());
    let head = RequestHead::parse(&bytes, &mut slots, &HeadLimits::RESPONSE).expect("a sound head");
    request_head(&head, plan, &mut out);
    shown(&out)
}

#[test]
fn connection_says_what_this_hop_needs() {
    let get = "GET / HTTP/1.1\nHost: h\n\n";
    let te = "GET / HTTP/1.1\nHost: h\nTE: trailers\n\n";
    let upgrade = Some(&b"websocket"[..]);
    for (request, reuse, upgrade, want) in [
        (get, true, None, ""),
        (get, false, None, "Connection: close\n"),
        (get, true, upgrade, "Upgrade: websocket\nConnection: Upgrade\n"),
        (get, false, upgrade, "Upgrade: websocket\nConnection: Upgrade\n"),
        (te, true, None, "TE: trailers\nConnection: TE\n"),
        (te, false, None, "TE: trailers\nConnection: TE, close\n"),
        (te, true, upgrade, "TE: trailers\nUpgrade: websocket\nConnection: TE, Upgrade\n"),
    ] {
        let got = requested(request, &RequestPlan { reuse, upgrade, ..PLAN });
        assert_eq!(got, format!("GET /t HTTP/1.1\nHost: b:1\n{want}\n"));
    }
}

#[test]
fn forwarding_fields_are_ours_where_they_are_wanted() {
    let request =
        "GET / HTTP/1.0\nX-Forwarded-For: a\nVia: 1.0 x\nX-Forwarded-Proto: p\nForwarded: for=a\n\n";
    let kept = "Via: 1.0 x\nX-Forwarded-Proto: p\nForwarded: for=a\n";
    for (add_headers, via, authority, want) in [
        (false, Via::Off, "h", format!("X-Forwarded-For: a\n{kept}")),
        (false, Via::On, "h", format!("X-Forwarded-For: a\n{kept}Via: 1.0 name\n")),
        (false, Via::Block, "h", "X-Forwarded-For: a\nX-Forwarded-Proto: p\nForwarded: for=a\n".to_owned()),
        (
            true,
            Via::Off,
            "h:1",
            format!("{kept}X-Forwarded-For: 127.0.0.1\nX-Forwarded-Host: h:1\nX-Forwarded-Server: name\n"),
        ),
        (true, Via::Off, "", format!("{kept}X-Forwarded-For: 127.0.0.1\nX-Forwarded-Server: name\n")),
    ] {
        let forwarding = Forwarding { preserve_host: false, add_headers, via };
        let got = requested(request, &RequestPlan { forwarding, authority: authority.as_bytes(), ..PLAN });
        assert_eq!(got, format!("GET /t HTTP/1.1\nHost: b:1\n{want}\n"));
    }
}

#[test]
fn a_name_that_backends_take_for_one_of_ours_forges_nothing() {
    let forwarding = Forwarding { preserve_host: false, add_headers: true, via: Via::Off };
    for (name, passes) in [
        ("X-Forwarded-For", false),
        ("x_forwarded_for", false),
        ("X-Forwarded_Host", false),
        ("X_FORWARDED_SERVER", false),
        ("X_Forwarded_Fob", true),
        ("Y_Forwarded_For", true),
        ("X-Forwarded.For", true),
    ] {
        let request = format!("GET / HTTP/1.1\nHost: h\n{name}: forged\n\n");
        for (add_headers, want) in [(true, passes), (false, true)] {
            let plan = RequestPlan { forwarding: Forwarding { add_headers, ..forwarding }, ..PLAN };
            assert_eq!(requested(&request, &plan).contains("forged"), want, "{name} {add_headers}");
        }
    }
}

#[test]
fn lines_that_came_as_we_write_them_and_others_come_out_alike() {
    // Between each two: nothing, a line that ends here, or one that has to be spelt anew.
    let plain = ["A: 1", "B-c: two words", "D: \u{e9}\t:"];
    for between in [
        "",
        "Connection: x",
        "Expect: 100-continue",
        "Odd:1",
        "Odd:  1",
        "Odd: 1 ",
        "Odd:",
        "Odd: ",
        "oDD:\t1",
    ] {
        let (mut request, mut want) = (String::new(), String::new());
        for line in plain {
            request += &format!("{line}\n{between}\n").replace("\n\n", "\n");
            want += &format!("{line}\n");
            if let Some((name, value)) =
                between.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("odd"))
            {
                want += &format!("{name}: {}\n", value.trim());
            }
        }
        let got = requested(&format!("GET / HTTP/1.1\nHost: h\n{request}\n"), &PLAN);
        assert_eq!(got, format!("GET /t HTTP/1.1\nHost: b:1\n{want}\n"), "{between:?}");
    }
}

#[test]
fn status_lines_are_ours_whatever_the_backend_wrote() {
    for (line, want) in [
        ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK"),
        ("HTTP/1.0 200 OK", "HTTP/1.1 200 OK"),
        ("HTTP/1.1 299", "HTTP/1.1 299 "),
        ("HTTP/1.1 299 ", "HTTP/1.1 299 "),
        ("HTTP/1.1 599 a  b\u{e9}", "HTTP/1.1 599 a  b\u{e9}"),
    ] {
        for fields in ["", "A: b\n", "A:b\n", "Connection: close\nA: b\n"] {
            let bytes = crlf(&format!("{line}\n{fields}\n"));
            let (mut slots, mut out) = (FieldSlots::new(), Vec::new());
            let asked = Asked { method: Method::Get, upgrade: false };
            let head = ResponseHead::parse(&bytes, &mut slots, &HeadLimits::RESPONSE, asked).expect("sound");
            interim_head(&head, Via::Off, "name", &mut out);
            let passed = if fields.is_empty() { "" } else { "A: b\n" };
            assert_eq!(shown(&out), format!("{want}\n{passed}\n"), "{line:?} {fields:?}");
        }
    }
}

#[test]
fn addresses_are_written_as_everybody_writes_them() {
    for address in ["0.0.0.0", "9.10.99.100", "255.249.1.200", "2001:db8::7"] {
        let (plain, mut out) = (address.parse().expect("an address"), Vec::new());
        display(&mut out, plain);
        assert_eq!(shown(&out), address);
    }
    let mut out = Vec::new();
    display(&mut out, "::ffff:192.0.2.7".parse().expect("an address"));
    assert_eq!(shown(&out), "192.0.2.7");
}

#[test]
fn max_forwards_never_goes_below_zero_and_above_what_came() {
    for (value, want) in [("3", "2"), ("1", "0"), ("0", "0"), ("007", "6"), ("-1", "-1"), ("", "")] {
        let got = requested(&format!("OPTIONS / HTTP/1.1\nHost: h\nMax-Forwards: {value}\n\n"), &PLAN);
        assert_eq!(got, format!("OPTIONS /t HTTP/1.1\nHost: b:1\nMax-Forwards: {want}\n\n"));
    }
}

#[test]
fn interim_heads_carry_neither_framing_nor_what_ends_here() {
    let bytes =
        crlf("HTTP/1.0 103 Early Hints\nContent-Length: 0\nConnection: X\nX: y\nVia: 1.1 b\nLink: l\n\n");
    for (policy, want) in [
        (Via::Off, "Via: 1.1 b\nLink: l\n"),
        (Via::On, "Via: 1.1 b\nLink: l\nVia: 1.0 name\n"),
        (Via::Block, "Link: l\n"),
    ] {
        let (mut slots, mut out) = (FieldSlots::new(), Vec::new());
        let asked = Asked { method: Method::Get, upgrade: false };
        let head =
            ResponseHead::parse(&bytes, &mut slots, &HeadLimits::RESPONSE, asked).expect("a sound head");
        interim_head(&head, policy, "name", &mut out);
        assert_eq!(shown(&out), format!("HTTP/1.1 103 Early Hints\n{want}\n"));
    }
}

#[test]
fn trailers_that_frame_or_route_are_left_out() {
    for (options, section, want) in [
        ("", "\n", "\n"),
        ("", "X: 1\nx-y:\n\n", "X: 1\nx-y: \n\n"),
        (
            "",
            "Content-Length: 1\nX: 1\nHost: h\nTransfer-Encoding: chunked\nSet-Cookie: a\nTrailer: X\n\n",
            "X: 1\n\n",
        ),
        ("", "Connection: close\n\n", "\n"),
        // What Connection names ends here, wherever it stands.
        ("close, x ,X-Z,", "X: 1\nx-y: 2\nx-z: 3\n\n", "x-y: 2\n\n"),
    ] {
        let mut out = Vec::new();
        trailers(&crlf(section), options.as_bytes(), &mut out);
        assert_eq!(shown(&out), want, "{section}");
    }
}

#[test]
fn pieces_of_a_body_are_copied_if_small_and_pointed_at_if_large() {
    let input: Vec<u8> = (0..6000).map(|number| (number % 251) as u8).collect();
    for (range, in_chunks) in
        [(3..10, false), (3..10, true), (10..4106, true), (10..4107, true), (0..6000, false)]
    {
        let mut out = Gather::new();
        let at = 7;
        let mut buffer = vec![0; at];
        buffer.extend_from_slice(&input);
        body_piece(&input, range.clone(), at, in_chunks, &mut out);
        let mut all = Backlog::default();
        out.copy_from(&buffer, 0, &mut all);
        let mut want = Vec::new();
        if in_chunks {
            chunked::write_chunk(&input[range.clone()], &mut want);
        } else {
            want.extend_from_slice(&input[range.clone()]);
        }
        assert_eq!(all.bytes(), want, "{range:?} {in_chunks}");
        // Of a large piece nothing is owned: in another buffer it reads otherwise.
        let mut other = Backlog::default();
        out.copy_from(&vec![255; buffer.len()], 0, &mut other);
        assert_eq!(other.bytes() == want, range.len() <= 4096, "{range:?}");
    }
}
