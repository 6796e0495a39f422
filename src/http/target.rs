//! Which form has this request-target (RFC 9112, 3.2), and is this an authority (RFC 9110, 7.2)?
//!
//! Bytes above 0x7F in a path are let through where they are UTF-8: no URI has them, but enough clients send
//! them, and no reader takes them for a delimiter.

use super::error::Reason;
use super::request::Method;
use std::net::Ipv6Addr;

/// The form of a request-target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `host:port`, of CONNECT only.
    Authority,
    /// `*` of OPTIONS, or an absolute form of OPTIONS that has neither path nor query.
    Asterisk,
}

/// A target taken apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Target<'b> {
    pub form: TargetForm,
    /// Begins with `/`, or is `*`; empty for CONNECT.
    pub path: &'b [u8],
    /// What follows the first `?`.
    pub query: Option<&'b [u8]>,
    /// Of the absolute and the authority form; never empty.
    pub authority: Option<&'b [u8]>,
}

/// Takes `target` apart, whose bytes the head parser has found to be free of blanks and control characters.
pub(super) fn read(target: &[u8], method: Method) -> Result<Target<'_>, Reason> {
    let delimiter = memchr::memchr2(b'?', b'#', target);
    if delimiter.is_some_and(|at| target[at] == b'#' || memchr::memchr(b'#', &target[at..]).is_some()) {
        return Err(Reason::Fragment);
    }
    let (before, query) = match delimiter {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    };
    if method == Method::Connect {
        return match split_authority(target) {
            Some((host, Some(_))) if !host.is_empty() => {
                Ok(Target { form: TargetForm::Authority, path: b"", query: None, authority: Some(target) })
            }
            _ => Err(Reason::TargetForm),
        };
    }
    if before.first() == Some(&b'/') {
        return Ok(Target { form: TargetForm::Origin, path: before, query, authority: None });
    }
    if target == b"*" && method == Method::Options {
        return Ok(Target { form: TargetForm::Asterisk, path: target, query: None, authority: None });
    }
    let rest = match before.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"http://") => &before[7..],
        Some(_) if before.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https://")) => {
            return Err(Reason::Misdirected);
        }
        _ if memchr::memchr(b':', before).is_some_and(|at| before[at..].starts_with(b"://")) => {
            return Err(Reason::Scheme);
        }
        _ => return Err(Reason::TargetForm),
    };
    let (authority, path) = match memchr::memchr(b'/', rest) {
        Some(at) => rest.split_at(at),
        None => (rest, &b""[..]),
    };
    if memchr::memchr(b'@', authority).is_some() {
        return Err(Reason::UserInfo);
    }
    if split_authority(authority).is_none_or(|(host, _)| host.is_empty()) {
        return Err(Reason::Authority);
    }
    let (form, path): (_, &[u8]) = match (path, query) {
        (b"", None) if method == Method::Options => (TargetForm::Asterisk, b"*"),
        (b"", _) => (TargetForm::Absolute, b"/"),
        _ => (TargetForm::Absolute, path),
    };
    Ok(Target { form, path, query, authority: Some(authority) })
}

/// Whether `bytes` are `uri-host [":" port]`, as Host has it; nothing at all is one too.
#[must_use]
pub fn is_authority(bytes: &[u8]) -> bool {
    split_authority(bytes).is_some()
}

/// Host (with its brackets, if it is an IPv6 address) and port of an authority. `None` if it is not one:
/// with user information, a port that is no number up to 65535, a port without host, or bytes that no host
/// has. `host:` has no port.
#[must_use]
pub fn split_authority(authority: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let end = if authority.first() == Some(&b'[') {
        let close = memchr::memchr(b']', authority)?;
        // The standard library's grammar is RFC 3986's; zones and future versions are nothing to route by.
        std::str::from_utf8(&authority[1..close]).ok()?.parse::<Ipv6Addr>().ok()?;
        close + 1
    } else {
        reg_name(authority)?
    };
    let (host, port) = authority.split_at(end);
    match port {
        [] => Some((host, None)),
        _ if host.is_empty() => None,
        [b':'] => Some((host, None)),
        [b':', digits @ ..] => {
            let port = super::field::number(digits).and_then(|number| u16::try_from(number).ok())?;
            Some((host, Some(port)))
        }
        _ => None,
    }
}

/// Whether two authorities of http URIs name the same host and port, however they are written (RFC 9110, 4.2.3).
pub(super) fn is_same_authority(one: &[u8], other: &[u8]) -> bool {
    const PORT: u16 = 80;
    match (split_authority(one), split_authority(other)) {
        (Some((host, port)), Some((of_other, other_port))) => {
            host.eq_ignore_ascii_case(of_other) && port.unwrap_or(PORT) == other_port.unwrap_or(PORT)
        }
        _ => false,
    }
}

/// Where the reg-name (RFC 3986, 3.2.2) at the beginning of `bytes` ends.
fn reg_name(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            _ if REG_NAME[byte as usize] => at += 1,
            b'%' => {
                let digits = bytes.get(at + 1..at + 3)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                at += 3;
            }
            _ => break,
        }
    }
    Some(at)
}

/// unreserved and sub-delims of RFC 3986.
static REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_goes_with_its_method() {
        use TargetForm::{Absolute, Asterisk, Authority, Origin};
        let ok = |form, path: &'static str, query: Option<&'static str>, authority: Option<&'static str>| {
            Ok(Target {
                form,
                path: path.as_bytes(),
                query: query.map(str::as_bytes),
                authority: authority.map(str::as_bytes),
            })
        };
        for (method, target, want) in [
            (Method::Get, "/", ok(Origin, "/", None, None)),
            (Method::Get, "/a?", ok(Origin, "/a", Some(""), None)),
            (Method::Get, "/a?b?c=/d", ok(Origin, "/a", Some("b?c=/d"), None)),
            (Method::Get, "//h/a:b@c", ok(Origin, "//h/a:b@c", None, None)),
            (Method::Get, "/a#b", Err(Reason::Fragment)),
            (Method::Get, "/a?b#c", Err(Reason::Fragment)),
            (Method::Get, "#", Err(Reason::Fragment)),
            (Method::Get, "?a", Err(Reason::TargetForm)),
            (Method::Get, "a", Err(Reason::TargetForm)),
            (Method::Get, "@127.0.0.2:9/a", Err(Reason::TargetForm)),
            (Method::Get, "*", Err(Reason::TargetForm)),
            (Method::Options, "*", ok(Asterisk, "*", None, None)),
            (Method::Options, "*?a", Err(Reason::TargetForm)),
            (Method::Get, "http://h/a?b", ok(Absolute, "/a", Some("b"), Some("h"))),
            (Method::Get, "HTTP://h:8/a", ok(Absolute, "/a", None, Some("h:8"))),
            (Method::Get, "http://h", ok(Absolute, "/", None, Some("h"))),
            (Method::Get, "http://h?b/c@d", ok(Absolute, "/", Some("b/c@d"), Some("h"))),
            (Method::Options, "http://h", ok(Asterisk, "*", None, Some("h"))),
            (Method::Options, "http://h/", ok(Absolute, "/", None, Some("h"))),
            (Method::Options, "http://h?a", ok(Absolute, "/", Some("a"), Some("h"))),
            (Method::Get, "http://[::1]:8080/", ok(Absolute, "/", None, Some("[::1]:8080"))),
            (Method::Get, "http:///a", Err(Reason::Authority)),
            (Method::Get, "http://:80/a", Err(Reason::Authority)),
            (Method::Get, "http://h:x/a", Err(Reason::Authority)),
            (Method::Get, "http://u@h/a", Err(Reason::UserInfo)),
            (Method::Get, "http://u:p@h/a", Err(Reason::UserInfo)),
            (Method::Get, "http:/a", Err(Reason::TargetForm)),
            (Method::Get, "https://h/a", Err(Reason::Misdirected)),
            (Method::Get, "ftp://h/a", Err(Reason::Scheme)),
            (Method::Get, "unix:/tmp/x|http://127.0.0.2/a", Err(Reason::TargetForm)),
            (Method::Connect, "h:443", ok(Authority, "", None, Some("h:443"))),
            (Method::Connect, "h", Err(Reason::TargetForm)),
            (Method::Connect, "h:", Err(Reason::TargetForm)),
            (Method::Connect, "/a", Err(Reason::TargetForm)),
            (Method::Connect, "http://h/", Err(Reason::TargetForm)),
        ] {
            assert_eq!(read(target.as_bytes(), method), want, "{method:?} {target}");
        }
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let ok = |host: &'static str, port| Some((host.as_bytes(), port));
        for (text, want) in [
            ("", ok("", None)),
            ("conf.test", ok("conf.test", None)),
            ("conf.test:", ok("conf.test", None)),
            ("conf.test:80", ok("conf.test", Some(80))),
            ("conf.test:00080", ok("conf.test", Some(80))),
            ("a_b-c~1!$&'()*+,;=", ok("a_b-c~1!$&'()*+,;=", None)),
            ("a%2fb", ok("a%2fb", None)),
            ("127.0.0.1:1", ok("127.0.0.1", Some(1))),
            ("[::1]", ok("[::1]", None)),
            ("[::ffff:1.2.3.4]:65535", ok("[::ffff:1.2.3.4]", Some(65535))),
            (":80", None),
            (":", None),
            ("conf.test:65536", None),
            ("conf.test:80a", None),
            ("conf.test:+80", None),
            ("conf.test:80:80", None),
            ("conf .test", None),
            ("conf.test, other.test", None),
            ("conf.test?x", None),
            ("conf.test/", None),
            ("u@conf.test", None),
            ("con\u{1}f.test", None),
            ("caf\u{e9}.test", None),
            ("a%zz", None),
            ("a%2", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[]", None),
            ("[fe80::1%25eth0]", None),
            ("[v1.x]", None),
            ("::1", None),
        ] {
            assert_eq!(split_authority(text.as_bytes()), want, "{text}");
        }
    }
}
