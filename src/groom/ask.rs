//! What does this request want, and may it have it? Decides; sends nothing.
//!
//! There is no `Require` at a `StatusListen`: whoever can connect may ask. A browser can be made to connect for a
//! stranger, though: a page of `evil.example` whose name is rebound to 127.0.0.1 would be let in by the browser's
//! same-origin rule. Its requests carry the stranger's name in Host, which is how they are told.

use crate::http::{Expectation, Method, RequestHead, split_authority};
use crate::status::Form;
use std::net::IpAddr;

/// What kind of door a client came in by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entrance {
    /// A loopback address: clients of this machine, and what their browsers load.
    Loopback,
    /// Any other address: the administrator has opened it to others, by whatever name they know it.
    Network,
    /// A socket in the file system, which no browser reaches.
    File,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It gets this page.
    Page(Form),
    /// It gets this status.
    Refused(u16),
}

/// Judges a sound head. `own_name` is the main server's `ServerName`.
#[must_use]
pub fn judge(head: &RequestHead<'_, '_>, entrance: Entrance, own_name: &str) -> Verdict {
    if entrance == Entrance::Loopback && !is_own(head.authority, own_name) {
        return Verdict::Refused(421);
    }
    if head.expectation == Expectation::Other {
        return Verdict::Refused(417);
    }
    if !matches!(head.kind, Method::Get | Method::Head) {
        return Verdict::Refused(405);
    }
    Form::at(head.path, head.query).map_or(Verdict::Refused(404), Verdict::Page)
}

/// Whether an authority names this server: an address, `localhost`, or our own name; any port. None at all is what
/// only clients of HTTP/1.0 have, among which is no browser.
fn is_own(authority: &[u8], own_name: &str) -> bool {
    let Some((host, _)) = split_authority(authority) else { return false };
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let host = host.strip_suffix('.').unwrap_or(host);
    host.is_empty()
        || host.starts_with('[')
        || host.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || host.eq_ignore_ascii_case(own_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{FieldSlots, HeadLimits};

    fn judged(head: &str, entrance: Entrance) -> Verdict {
        let limits = HeadLimits::request(8190, None, 8190);
        let mut slots = FieldSlots::new();
        let head = RequestHead::parse(head.as_bytes(), &mut slots, &limits).expect("a sound head");
        judge(&head, entrance, "www.example.org")
    }

    #[test]
    fn paths_and_methods() {
        let html = Verdict::Page(Form::from_query(None));
        for (line, want) in [
            ("GET / HTTP/1.1", html),
            ("GET /server-status HTTP/1.1", html),
            ("HEAD /server-status?auto HTTP/1.1", Verdict::Page(Form::Auto)),
            ("GET /?json HTTP/1.1", Verdict::Page(Form::Json)),
            ("GET http://localhost/?auto HTTP/1.1", Verdict::Page(Form::Auto)),
            ("GET /metrics HTTP/1.1", Verdict::Page(Form::Prometheus)),
            ("GET /server-status/ HTTP/1.1", Verdict::Refused(404)),
            ("GET /favicon.ico HTTP/1.1", Verdict::Refused(404)),
            ("GET /%73erver-status HTTP/1.1", Verdict::Refused(404)),
            ("POST / HTTP/1.1", Verdict::Refused(405)),
            ("OPTIONS * HTTP/1.1", Verdict::Refused(405)),
            ("TRACE / HTTP/1.1", Verdict::Refused(405)),
            ("get / HTTP/1.1", Verdict::Refused(405)),
        ] {
            assert_eq!(
                judged(&format!("{line}\r\nHost: localhost\r\n\r\n"), Entrance::Loopback),
                want,
                "{line}"
            );
        }
        let expecting = "GET / HTTP/1.1\r\nHost: localhost\r\nExpect: the-best\r\n\r\n";
        assert_eq!(judged(expecting, Entrance::Loopback), Verdict::Refused(417));
    }

    #[test]
    fn a_rebound_name_is_told_by_its_host() {
        for (host, is_ours) in [
            ("127.0.0.1", true),
            ("127.0.0.1:81", true),
            ("192.0.2.7:81", true),
            ("[::1]:81", true),
            ("localhost", true),
            ("LocalHost.:81", true),
            ("www.example.org", true),
            ("WWW.Example.Org:8080", true),
            ("", true),
            ("evil.example", false),
            ("www.example.org.evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("example.org", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let page = Verdict::Page(Form::from_query(None));
            let want = if is_ours { page } else { Verdict::Refused(421) };
            assert_eq!(judged(&head, Entrance::Loopback), want, "{host}");
            for entrance in [Entrance::Network, Entrance::File] {
                assert_eq!(judged(&head, entrance), page, "{host} {entrance:?}");
            }
        }
        assert!(matches!(judged("GET / HTTP/1.0\r\n\r\n", Entrance::Loopback), Verdict::Page(_)));
        let absolute = "GET http://evil.example/ HTTP/1.0\r\n\r\n";
        assert_eq!(judged(absolute, Entrance::Loopback), Verdict::Refused(421));
    }
}
