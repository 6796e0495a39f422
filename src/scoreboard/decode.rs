//! Bytes that anybody may have written, made into values that are safe to show.

use crate::scoreboard::layout::{CUT_FRONT, CUT_HOST, CUT_LINE, WorkerRow};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Numbers above this are not counts but garbage; exact in a JSON number, and thousands of them add up without
/// overflow.
pub const MAX_COUNT: u64 = 1 << 53;

/// A count, clamped to [`MAX_COUNT`].
pub fn count(value: &AtomicU64) -> u64 {
    value.load(Relaxed).min(MAX_COUNT)
}

/// The first `length` bytes of `words`, at most all of them.
pub fn text(words: &[AtomicU64], length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// Text up to the first zero byte.
pub fn padded(words: &[AtomicU64]) -> Vec<u8> {
    let mut bytes = text(words, usize::MAX);
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    bytes
}

/// Printable ASCII as it is, everything else as `\xhh`; so nothing can move a terminal's cursor or forge a line.
pub fn printable(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => shown.push_str("\\\\"),
            0x20..=0x7e => shown.push(char::from(byte)),
            _ => {
                // Writing to a String can't fail.
                let _ = write!(shown, "\\x{byte:02x}");
            }
        }
    }
    shown
}

/// A path or message of the administrator's own: letters of any script stay, the rest is as [`printable`].
pub fn printable_text(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_ascii_graphic() || letter == ' ' || (!letter.is_ascii() && letter.is_alphanumeric())
            {
                shown.push(letter);
            } else {
                shown.push_str(&printable(letter.encode_utf8(&mut [0; 4]).as_bytes()));
            }
        }
        shown.push_str(&printable(chunk.invalid()));
    }
    shown
}

/// A request line without the password of an absolute target (`GET http://user:secret@host/ HTTP/1.1`).
pub fn without_password(line: &[u8]) -> Vec<u8> {
    let scheme = line.windows(3).position(|three| three == b"://");
    let masked = scheme.and_then(|scheme| {
        let start = scheme + 3;
        let authority = line.get(start..)?;
        let end = authority.iter().position(|byte| b"/?# ".contains(byte)).unwrap_or(authority.len());
        let at = authority[..end].iter().rposition(|byte| *byte == b'@')?;
        let colon = authority[..at].iter().position(|byte| *byte == b':')?;
        Some([&line[..=start + colon], b"****", &line[start + at..]].concat())
    });
    masked.unwrap_or_else(|| line.to_owned())
}

/// What a request is about, as a worker row tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The client, if the row makes sense.
    pub client: Option<SocketAddr>,
    /// The host that the client named; printable.
    pub host: String,
    /// Whether the host was longer.
    pub host_cut: bool,
    /// The request line, printable, without a password.
    pub line: String,
    /// Whether the line was longer, and which end was lost.
    pub cut: Cut,
    /// The protocol; printable.
    pub protocol: String,
    /// When it began, in microseconds of CLOCK_MONOTONIC.
    pub started: u64,
}

/// Which part of a request line is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// None.
    Whole,
    /// What came before.
    Front,
    /// What follows.
    End,
}

impl Request {
    /// `None` when the row has never told of a request. The row must be a whole copy.
    pub fn of(row: &WorkerRow) -> Option<Self> {
        let started = count(&row.started);
        if started == 0 {
            return None;
        }
        let lengths = row.lengths.load(Relaxed).to_ne_bytes();
        let [host, line, protocol, flags] =
            [0, 2, 4, 6].map(|at| u16::from_ne_bytes([lengths[at], lengths[at + 1]]));
        let cut = match (flags & CUT_LINE != 0, flags & CUT_FRONT != 0) {
            (false, _) => Cut::Whole,
            (true, true) => Cut::Front,
            (true, false) => Cut::End,
        };
        Some(Self {
            client: client(row),
            host: printable(&text(&row.host, host.into())),
            host_cut: flags & CUT_HOST != 0,
            line: printable(&without_password(&text(&row.line, line.into()))),
            cut,
            protocol: printable(&text(std::slice::from_ref(&row.protocol), protocol.into())),
            started,
        })
    }

    /// The line with `...` where it was cut.
    #[must_use]
    pub fn shown_line(&self) -> String {
        match self.cut {
            Cut::Whole => self.line.clone(),
            Cut::Front => format!("...{}", self.line),
            Cut::End => format!("{}...", self.line),
        }
    }
}

fn client(row: &WorkerRow) -> Option<SocketAddr> {
    let [family, _, high, low, ..] = row.client_family.load(Relaxed).to_ne_bytes();
    let halves =
        [&row.client_address[0], &row.client_address[1]].map(|half| half.load(Relaxed).to_ne_bytes());
    let mut address = [0; 16];
    address[..8].copy_from_slice(&halves[0]);
    address[8..].copy_from_slice(&halves[1]);
    let ip = match family {
        4 => IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3])),
        6 => IpAddr::V6(Ipv6Addr::from(address)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn passwords_are_masked_and_nothing_else() {
        for (line, want) in [
            ("GET / HTTP/1.1", "GET / HTTP/1.1"),
            ("GET http://h/ HTTP/1.1", "GET http://h/ HTTP/1.1"),
            ("GET http://u:p@h/ HTTP/1.1", "GET http://u:****@h/ HTTP/1.1"),
            ("GET http://u:p@q:r@h/x@y HTTP/1.1", "GET http://u:****@h/x@y HTTP/1.1"),
            ("GET http://u@h:80/ HTTP/1.1", "GET http://u@h:80/ HTTP/1.1"),
            ("GET http://h:80/a@b HTTP/1.1", "GET http://h:80/a@b HTTP/1.1"),
            ("GET /?next=http://u:p@h HTTP/1.1", "GET /?next=http://u:****@h HTTP/1.1"),
            ("://:@", "://:****@"),
            ("", ""),
        ] {
            assert_eq!(without_password(line.as_bytes()), want.as_bytes(), "{line}");
        }
    }

    #[test]
    fn text_of_others_is_ascii_and_our_own_keeps_its_letters() {
        assert_eq!(printable("a\x1b[2J\\\u{e4}".as_bytes()), "a\\x1b[2J\\\\\\xc3\\xa4");
        assert_eq!(printable_text("/srv/\u{e4}\u{202e}\n".as_bytes()), "/srv/\u{e4}\\xe2\\x80\\xae\\x0a");
        assert_eq!(printable_text(b"a\xffb"), "a\\xffb");
    }

    proptest! {
        #[test]
        fn nothing_unprintable_gets_through(bytes: Vec<u8>) {
            prop_assert!(printable(&bytes).bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert!(!printable_text(&bytes).chars().any(char::is_control));
            let _ = without_password(&bytes);
        }
    }
}
