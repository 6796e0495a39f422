//! Bytes of a terminal to keys.
//!
//! Pure: reads nothing and knows no clock. Terminals send Esc and the first byte of an arrow key alike, so a lone
//! Esc is a key only once nothing has followed it for [`ESCAPE_WAIT`]; whoever reads says when that is over.

use std::time::Duration;

/// How long after an Esc the rest of a longer key may still come, over a slow line.
pub const ESCAPE_WAIT: Duration = Duration::from_millis(50);

/// A sequence that is longer than this is no key of ours.
const LONGEST: usize = 32;

const ESCAPE: u8 = 0x1b;

/// A key that was pressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Key {
    /// A letter, a digit, a sign.
    Char(char),
    /// A letter with Ctrl, in lower case.
    Control(char),
    /// Enter.
    Enter,
    /// Backspace.
    Backspace,
    /// Esc.
    Escape,
    /// Tab.
    Tab,
    /// Tab with Shift.
    BackTab,
    /// The arrow up.
    Up,
    /// The arrow down.
    Down,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
}

/// Finds the keys in what a terminal sends, however it is cut into pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a key whose end has not come yet.
    rest: Vec<u8>,
}

/// What stands at the front of some bytes.
enum Front {
    /// A key, or something that is none, and how many bytes it takes.
    Whole(Option<Key>, usize),
    /// Perhaps a key, when more has come.
    Unfinished,
}

impl Decoder {
    /// The keys that are complete with `bytes`.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.rest.extend_from_slice(bytes);
        let mut keys = Vec::new();
        let mut at = 0;
        while at < self.rest.len() {
            match front(&self.rest[at..]) {
                Front::Whole(key, length) => {
                    keys.extend(key);
                    at += length;
                }
                Front::Unfinished if self.rest.len() - at > LONGEST => at = self.rest.len(),
                Front::Unfinished => break,
            }
        }
        self.rest.drain(..at);
        keys
    }

    /// Whether more may belong to what has come so far; call [`Decoder::settle`] after [`ESCAPE_WAIT`] then.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Nothing has followed: an Esc was the key itself, anything else was no key.
    pub fn settle(&mut self) -> Option<Key> {
        let rest = std::mem::take(&mut self.rest);
        (rest == [ESCAPE]).then_some(Key::Escape)
    }
}

/// `bytes` is not empty.
fn front(bytes: &[u8]) -> Front {
    let one = |key| Front::Whole(Some(key), 1);
    match bytes[0] {
        ESCAPE => sequence(bytes),
        b'\r' | b'\n' => one(Key::Enter),
        b'\t' => one(Key::Tab),
        0x7f | 0x08 => one(Key::Backspace),
        byte @ 1..=26 => one(Key::Control(char::from(byte - 1 + b'a'))),
        byte @ 0x20..=0x7e => one(Key::Char(char::from(byte))),
        0x00..=0x1f => Front::Whole(None, 1),
        _ => letter(bytes),
    }
}

/// A letter of more than one byte.
fn letter(bytes: &[u8]) -> Front {
    let length = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Front::Whole(None, 1),
    };
    let Some(whole) = bytes.get(..length) else { return Front::Unfinished };
    match std::str::from_utf8(whole).ok().and_then(|text| text.chars().next()) {
        Some(letter) if !letter.is_control() => Front::Whole(Some(Key::Char(letter)), length),
        Some(_) => Front::Whole(None, length),
        None => Front::Whole(None, 1),
    }
}

/// What begins with Esc.
fn sequence(bytes: &[u8]) -> Front {
    match bytes.get(1) {
        None => Front::Unfinished,
        Some(b'[') => {
            let Some(end) = bytes[2..].iter().position(|byte| !(0x20..=0x3f).contains(byte)) else {
                return Front::Unfinished;
            };
            let (parameters, last) = (&bytes[2..2 + end], bytes[2 + end]);
            if !(0x40..=0x7e).contains(&last) {
                // Broken off by something else, which may be a key of its own.
                return Front::Whole(None, 2 + end);
            }
            let key = match last {
                b'~' => tilde(parameters),
                b'Z' => Some(Key::BackTab),
                last => cursor(last),
            };
            Front::Whole(key, 3 + end)
        }
        Some(b'O') => match bytes.get(2) {
            None => Front::Unfinished,
            Some(last) => Front::Whole(cursor(*last), 3),
        },
        Some(&ESCAPE) => Front::Whole(Some(Key::Escape), 1),
        // A letter with Alt means nothing here.
        Some(_) => Front::Whole(None, 2),
    }
}

fn cursor(last: u8) -> Option<Key> {
    match last {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'H' => Some(Key::Home),
        b'F' => Some(Key::End),
        _ => None,
    }
}

/// The key of `ESC [ NUMBER ~`; what stands behind a `;` are Shift, Alt and Ctrl.
fn tilde(parameters: &[u8]) -> Option<Key> {
    match parameters.split(|byte| *byte == b';').next()? {
        b"1" | b"7" => Some(Key::Home),
        b"4" | b"8" => Some(Key::End),
        b"5" => Some(Key::PageUp),
        b"6" => Some(Key::PageDown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_known_by_their_bytes() {
        use Key::{BackTab, Backspace, Char, Control, Down, End, Enter, Home, PageDown, PageUp, Tab, Up};
        for (bytes, want) in [
            (&b"q"[..], vec![Char('q')]),
            (b"\x03\x1a", vec![Control('c'), Control('z')]),
            (b"/a\r", vec![Char('/'), Char('a'), Enter]),
            (b"\x7f\x08\t", vec![Backspace, Backspace, Tab]),
            (b"\x1b[A\x1b[B\x1bOA\x1bOB", vec![Up, Down, Up, Down]),
            (b"\x1b[5~\x1b[6~\x1b[6;2~", vec![PageUp, PageDown, PageDown]),
            (b"\x1b[H\x1b[F\x1b[1~\x1b[4~", vec![Home, End, Home, End]),
            (b"\x1b[Z", vec![BackTab]),
            // Not ours: the arrow left, F5, a letter with Alt, a zero byte.
            (b"\x1b[D\x1b[15~\x1bx\0q", vec![Char('q')]),
            // A sequence that is broken off by a key.
            (b"\x1b[1;\x03", vec![Control('c')]),
            ("\u{e4}\u{1f40e}".as_bytes(), vec![Char('\u{e4}'), Char('\u{1f40e}')]),
            (b"\xff\xc3q", vec![Char('q')]),
        ] {
            let mut decoder = Decoder::default();
            assert_eq!(decoder.feed(bytes), want, "{bytes:?}");
            assert!(!decoder.is_waiting(), "{bytes:?}");
        }
    }

    #[test]
    fn a_lone_escape_is_a_key_once_nothing_has_followed() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(b"\x1b"), []);
        assert!(decoder.is_waiting());
        assert_eq!(decoder.feed(b"[A"), [Key::Up]);
        assert_eq!(decoder.feed(b"\x1b"), []);
        assert_eq!(decoder.settle(), Some(Key::Escape));
        assert!(!decoder.is_waiting());
        assert_eq!(decoder.feed(b"\x1b\x1b"), [Key::Escape]);
        assert_eq!(decoder.settle(), Some(Key::Escape));
        assert_eq!(decoder.feed(b"\x1b["), []);
        assert_eq!(decoder.settle(), None);
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_reads_the_same(bytes in proptest::collection::vec(
            prop_oneof![Just(ESCAPE), Just(b'['), Just(b';'), Just(b'~'), 0x30..0x40u8, any::<u8>()], 0..40), cut: prop::sample::Index) {
            let at = if bytes.is_empty() { 0 } else { cut.index(bytes.len()) };
            let (mut whole, mut parts) = (Decoder::default(), Decoder::default());
            let want = whole.feed(&bytes);
            let mut keys = parts.feed(&bytes[..at]);
            prop_assert!(parts.rest.len() <= LONGEST);
            keys.extend(parts.feed(&bytes[at..]));
            // What is cut off for its length may be cut off elsewhere.
            if bytes.len() <= LONGEST {
                prop_assert_eq!(keys, want);
            }
        }
    }
}
