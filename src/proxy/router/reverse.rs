//! `ProxyPassReverse`: a backend's own address in a response becomes ours.

use crate::config::model::ReverseRule;

/// Rewrites `value`, a url that a backend put into Location, Content-Location, URI or Destination, by the first
/// of `rules` whose url stands at its front; `false` and `out` untouched if none does.
///
/// Scheme and host are compared in any case; a rule's url that is only a path, with the path of a whole url of any
/// host, too, since a backend may know itself by another name. Beyond httpd, a rule's url must end where a segment does:
/// `http://10.0.0.1:80` is not the front of `http://10.0.0.1:8080/`.
pub(super) fn rewrite<'r>(
    rules: impl IntoIterator<Item = &'r ReverseRule>,
    value: &[u8],
    our_origin: &str,
    out: &mut Vec<u8>,
) -> bool {
    for rule in rules {
        let Some(rest) = strip(rule.url.as_bytes(), value) else { continue };
        let path = rule.path.as_bytes();
        // A rule may also name a whole url of ours.
        if rule.path.starts_with('/') {
            out.extend_from_slice(our_origin.as_bytes());
        }
        // `ProxyPassReverse / http://backend` is the common way to write it, and must not double the slash.
        let doubled = path.last() == Some(&b'/') && rest.first() == Some(&b'/');
        out.extend_from_slice(&path[..path.len() - usize::from(doubled)]);
        out.extend_from_slice(rest);
        return true;
    }
    false
}

fn strip<'v>(url: &[u8], value: &'v [u8]) -> Option<&'v [u8]> {
    let value = if url.first() == Some(&b'/') { path_of(value) } else { value };
    let (front, rest) = value.split_at_checked(url.len())?;
    let origin = origin_length(url);
    let same = front[..origin].eq_ignore_ascii_case(&url[..origin]) && front[origin..] == url[origin..];
    let ends = url.last() == Some(&b'/') || rest.first().is_none_or(|byte| b"/?#".contains(byte));
    (same && ends).then_some(rest)
}

/// What follows scheme and host; of what has none, everything.
fn path_of(value: &[u8]) -> &[u8] {
    // A "://" further on belongs to a path, a query or a fragment.
    let scheme = value.iter().position(|byte| b":/?#".contains(byte)).unwrap_or(0);
    match value[scheme..].strip_prefix(b"://") {
        Some(rest) if scheme > 0 => {
            let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
            &rest[end..]
        }
        _ => value,
    }
}

/// The length of `http://host:port`; 0 for a url that is only a path.
fn origin_length(url: &[u8]) -> usize {
    let Some(colon) = memchr::memmem::find(url, b"://") else { return 0 };
    let host = colon + 3;
    host + memchr::memchr(b'/', &url[host..]).unwrap_or(url.len() - host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_s_address_becomes_ours() {
        let rule = |path: &str, url: &str| ReverseRule { path: path.into(), url: url.into() };
        let rules = [
            rule("/app/", "http://127.0.0.1:3000/inner/"),
            rule("/app", "http://127.0.0.1:3000"),
            rule("/", "http://Host.example"),
            rule("/rel/", "/private/"),
            rule("https://elsewhere.example/", "http://b:1/"),
        ];
        for (value, want) in [
            ("http://127.0.0.1:3000/inner/x?y#z", Some("http://we:80/app/x?y#z")),
            ("http://127.0.0.1:3000/x", Some("http://we:80/app/x")),
            ("http://127.0.0.1:3000", Some("http://we:80/app")),
            ("http://127.0.0.1:3000?q", Some("http://we:80/app?q")),
            ("http://127.0.0.1:30001/x", None),
            ("http://127.0.0.1:3000@evil.example/", None),
            ("HTTP://hOST.Example/Login", Some("http://we:80/Login")),
            ("http://host.example", Some("http://we:80/")),
            ("http://host.example.org/", None),
            ("https://host.example/", None),
            ("http://b:1/x", Some("https://elsewhere.example/x")),
            ("/private/x", Some("http://we:80/rel/x")),
            // A rule whose url is only a path: whatever host stands before that path.
            ("http://any.example:81/private/x", Some("http://we:80/rel/x")),
            ("HTTPS://any.example/private/", Some("http://we:80/rel/")),
            ("http://any.example/privately", None),
            ("http://any.example/Private/x", None),
            ("http://any.example/a/private/x", None),
            ("http://any.example?/private/x", None),
            ("http://any.example", None),
            ("//any.example/private/x", None),
            ("/login?to=http://any.example/private/x", None),
            ("login#http://any.example/private/x", None),
            ("http:/private/x", None),
            ("://h/private/x", None),
            ("/login", None),
            ("", None),
        ] {
            let mut out = Vec::new();
            let done = rewrite(&rules, value.as_bytes(), "http://we:80", &mut out);
            assert_eq!(done.then(|| String::from_utf8_lossy(&out).into_owned()).as_deref(), want, "{value}");
            assert!(done || out.is_empty());
        }
    }
}
