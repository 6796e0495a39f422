//! A request's path, brought into one spelling before anybody compares it.
//!
//! What httpd does in three passes happens in one: unreserved characters are decoded, runs of slashes merged, dot
//! segments removed, everything else encoded in one way. Unlike httpd, which decodes all and encodes again what
//! it must, a reserved character that came encoded stays encoded (RFC 9110, 7.7: `%3B` is not `;`); rules and
//! sections still see it decoded.

/// A path that cannot be served, and the status that says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BadPath(pub(super) u16);

/// What [`normalise`] had to do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Changes {
    /// Something is percent-encoded, so that the decoded path is another.
    pub(super) encoded: bool,
    /// Dot segments were removed: the client's own bytes may lead elsewhere than what was matched.
    pub(super) dots: bool,
}

const PLAIN: u8 = 0;
const SLASH: u8 = 1;
const DOT: u8 = 2;
/// Stands for itself only when encoded, or is the percent sign.
const OTHER: u8 = 4;

/// What each byte is in a path. Plain: the characters that httpd leaves alone (RFC 3986 pchar).
const CLASSES: [u8; 256] = {
    let mut classes = [OTHER; 256];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            classes[byte] = PLAIN;
        }
        byte += 1;
    }
    let plain = b"~$-_+!*'(),;:@&=";
    let mut at = 0;
    while at < plain.len() {
        classes[plain[at] as usize] = PLAIN;
        at += 1;
    }
    classes[b'/' as usize] = SLASH;
    classes[b'.' as usize] = DOT;
    classes
};

/// Whether `raw` is in its one spelling already, and its own decoded form: nearly every path is.
pub(super) fn is_verbatim(raw: &[u8]) -> bool {
    if raw.first() != Some(&b'/') {
        return false;
    }
    let mut seen = 0;
    let mut after_slash = 0;
    for byte in raw {
        let class = CLASSES[usize::from(*byte)];
        // After a slash, another slash or a dot needs a closer look.
        seen |= (class & OTHER) | (class & after_slash);
        after_slash = if class == SLASH { SLASH | DOT } else { 0 };
    }
    seen == 0
}

/// Appends the one spelling of `raw` to `out`.
///
/// 400: does not begin with a slash, climbs above the root, has a NUL, or a `%` without two hexadecimal digits.
/// 404: has an encoded slash (httpd's `AllowEncodedSlashes Off`) or an encoded NUL.
pub(super) fn normalise(raw: &[u8], out: &mut Vec<u8>) -> Result<Changes, BadPath> {
    let start = out.len();
    out.push(b'/');
    let mut rest = match raw {
        [] => raw,
        [b'/', rest @ ..] => rest,
        _ => return Err(BadPath(400)),
    };
    let mut changes = Changes::default();
    let mut unservable = false;
    let mut segment = out.len();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'/' => {
                changes.dots |= end_segment(out, start, segment)?;
                if out.last() != Some(&b'/') {
                    out.push(b'/');
                }
                segment = out.len();
            }
            b'%' => {
                let [high, low, after @ ..] = rest else { return Err(BadPath(400)) };
                let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low)) else {
                    return Err(BadPath(400));
                };
                rest = after;
                let byte = high << 4 | low;
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(byte);
                } else {
                    // A broken triple further on outweighs this, as in httpd.
                    unservable |= byte == b'/' || byte == 0;
                    changes.encoded = true;
                    push_encoded(out, byte);
                }
            }
            0 => return Err(BadPath(400)),
            _ if CLASSES[usize::from(byte)] == OTHER => {
                changes.encoded = true;
                push_encoded(out, byte);
            }
            _ => out.push(byte),
        }
    }
    changes.dots |= end_segment(out, start, segment)?;
    if unservable { Err(BadPath(404)) } else { Ok(changes) }
}

/// Removes the segment that begins at `segment` if it is `.` or `..`, the latter with the one before it; what is
/// left ends in a slash then. Tells whether it did.
fn end_segment(out: &mut Vec<u8>, start: usize, segment: usize) -> Result<bool, BadPath> {
    match &out[segment..] {
        b"." => out.truncate(segment),
        b".." => {
            let parent = out[start..segment - 1].iter().rposition(|byte| *byte == b'/');
            let parent = parent.ok_or(BadPath(400))?;
            out.truncate(start + parent + 1);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Appends what the one spelling in `canonical` stands for.
pub(super) fn decode(canonical: &[u8], out: &mut Vec<u8>) {
    let mut rest = canonical;
    loop {
        let plain = memchr::memchr(b'%', rest).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        match &rest[plain..] {
            [_, high, low, after @ ..] => {
                let digits = (hex_value(*high).unwrap_or(0), hex_value(*low).unwrap_or(0));
                out.push(digits.0 << 4 | digits.1);
                rest = after;
            }
            _ => return,
        }
    }
}

/// Where in `canonical` the first `count` decoded bytes end.
pub(super) fn encoded_length(canonical: &[u8], count: usize) -> usize {
    let mut at = 0;
    for _ in 0..count {
        at += if canonical.get(at) == Some(&b'%') { 3 } else { 1 };
    }
    at.min(canonical.len())
}

/// Whether `rule` (decoded, slashes merged) is a prefix of `path` (the same) that ends at a segment border; the
/// length of what matched.
pub(super) fn prefix(rule: &[u8], path: &[u8]) -> Option<usize> {
    let rest = path.strip_prefix(rule)?;
    (rule.last() == Some(&b'/') || rest.first().is_none_or(|byte| *byte == b'/')).then_some(rule.len())
}

/// As [`prefix`] on the client's own bytes: any run of slashes stands for one.
pub(super) fn prefix_of_raw(rule: &[u8], raw: &[u8]) -> Option<usize> {
    let mut at = 0;
    for byte in rule {
        if raw.get(at) != Some(byte) {
            return None;
        }
        at += 1;
        if *byte == b'/' {
            at += raw[at..].iter().take_while(|byte| **byte == b'/').count();
        }
    }
    (rule.last() == Some(&b'/') || raw.get(at).is_none_or(|byte| *byte == b'/')).then_some(at)
}

/// Whether a target may stand in a request line: no control character, no blank.
pub(super) fn is_sendable(target: &[u8]) -> bool {
    target.iter().fold(true, |sendable, byte| sendable & (*byte > b' ') & (*byte != 0x7f))
}

fn push_encoded(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spelt(raw: &str) -> Result<(String, String), u16> {
        let mut canonical = Vec::new();
        normalise(raw.as_bytes(), &mut canonical).map_err(|BadPath(status)| status)?;
        let mut decoded = Vec::new();
        decode(&canonical, &mut decoded);
        let text = |bytes: Vec<u8>| bytes.iter().map(|byte| char::from(*byte)).collect();
        Ok((text(canonical), text(decoded)))
    }

    #[test]
    fn a_path_has_one_spelling() {
        for (raw, canonical, decoded) in [
            ("", "/", "/"),
            ("/", "/", "/"),
            ("//", "/", "/"),
            ("//app//x", "/app/x", "/app/x"),
            ("/a/./b", "/a/b", "/a/b"),
            ("/a/.", "/a/", "/a/"),
            ("/a/b/..", "/a/", "/a/"),
            ("/a/b/../../c", "/c", "/c"),
            ("/a//../b", "/b", "/b"),
            ("/a/..", "/", "/"),
            ("/.../..a/.b/a.", "/.../..a/.b/a.", "/.../..a/.b/a."),
            ("/%2e%2E/x/..", "400", ""),
            ("/x/%2e%2E/y", "/y", "/y"),
            ("/%7Eu/%41", "/~u/A", "/~u/A"),
            ("/a%20b%3bc", "/a%20b%3Bc", "/a b;c"),
            ("/a;b=1,c:@!$&'()*+", "/a;b=1,c:@!$&'()*+", "/a;b=1,c:@!$&'()*+"),
            ("/a[0]|\"<>^`{}\\", "/a%5B0%5D%7C%22%3C%3E%5E%60%7B%7D%5C", "/a[0]|\"<>^`{}\\"),
            ("/%0d%0aX:%201", "/%0D%0AX:%201", "/\r\nX: 1"),
            ("/%25%32%66", "/%252f", "/%2f"),
            ("/%c3%bc", "/%C3%BC", "/\u{c3}\u{bc}"),
            ("/a b\n", "/a%20b%0A", "/a b\n"),
            ("/..", "400", ""),
            ("/a/../..", "400", ""),
            ("/../etc", "400", ""),
            ("a", "400", ""),
            ("*", "400", ""),
            ("/%", "400", ""),
            ("/%4", "400", ""),
            ("/%zz%4", "400", ""),
            ("/%2f%zz", "400", ""),
            ("/a\0", "400", ""),
            ("/a%2Fb", "404", ""),
            ("/a%00b", "404", ""),
        ] {
            let want = match canonical.parse() {
                Ok(status) => Err(status),
                Err(_) => Ok((canonical.to_string(), decoded.to_string())),
            };
            assert_eq!(spelt(raw), want, "{raw}");
        }
    }

    #[test]
    fn prefixes_end_at_segment_borders() {
        for (rule, path, want) in [
            ("/app", "/app", Some(4)),
            ("/app", "/app/x", Some(4)),
            ("/app", "/apple", None),
            ("/app", "/ap", None),
            ("/app/", "/app", None),
            ("/app/", "/app/", Some(5)),
            ("/app/", "/app/x", Some(5)),
            ("/", "/", Some(1)),
            ("/", "/x", Some(1)),
            ("/s/", "/s", None),
        ] {
            assert_eq!(prefix(rule.as_bytes(), path.as_bytes()), want, "{rule} {path}");
            assert_eq!(prefix_of_raw(rule.as_bytes(), path.as_bytes()), want, "{rule} {path}");
        }
        for (rule, raw, want) in [
            ("/app", "//app//x", Some(5)),
            ("/app/", "//app//x", Some(7)),
            ("/a/b", "/a///b", Some(6)),
            ("/app", "/%61pp", None),
            ("/", "///", Some(3)),
        ] {
            assert_eq!(prefix_of_raw(rule.as_bytes(), raw.as_bytes()), want, "{rule} {raw}");
        }
    }

    proptest! {
        #[test]
        fn the_fast_look_agrees_with_the_slow_one(raw in "/([a-c./%;]|%2[0-9a-fA-F]|//|/\\.){0,12}") {
            let raw = raw.as_bytes();
            let mut out = Vec::new();
            let outcome = normalise(raw, &mut out);
            if is_verbatim(raw) {
                prop_assert_eq!(outcome, Ok(Changes::default()));
                prop_assert_eq!(&out, raw);
            }
        }

        #[test]
        fn the_one_spelling_is_its_own_and_is_safe(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut once = Vec::new();
            let mut slashed = vec![b'/'];
            slashed.extend(raw);
            if normalise(&slashed, &mut once).is_ok() {
                prop_assert!(is_sendable(&once));
                prop_assert!(!once.windows(2).any(|pair| pair == b"//"));
                prop_assert!(!once.split(|byte| *byte == b'/').any(|part| part == b"." || part == b".."));
                let mut twice = Vec::new();
                prop_assert!(normalise(&once, &mut twice).is_ok());
                prop_assert_eq!(&once, &twice);
                let mut decoded = Vec::new();
                decode(&once, &mut decoded);
                prop_assert_eq!(encoded_length(&once, decoded.len()), once.len());
            }
        }
    }
}
