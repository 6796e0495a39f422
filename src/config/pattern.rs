//! Shell patterns, as in `Include` and `<Location "/x/*">`: httpd's apr_fnmatch with APR_FNM_PATHNAME.
//!
//! `*` stands for any bytes, `?` for one, `[...]` for one of a set, `[!...]` or `[^...]` for one outside of it, and
//! none of them for a slash; a backslash takes the meaning from what follows. A pattern becomes a regular
//! expression of bytes when the configuration is read, so that the time of a match grows with the length of a path
//! alone, however many stars there are. Unlike httpd, which takes a `[` that is never closed for the letter, we say
//! that it is not: a section for paths that nobody meant protects nothing.

use regex::bytes::{Regex, RegexBuilder};
use std::fmt::Write as _;

/// The longest pattern, in bytes: as the system's PATH_MAX.
const LONGEST: usize = 4096;

/// Any bytes within a segment.
const ANY: &str = "[^/]*";

/// A pattern for a whole path, or for a name in a directory.
#[derive(Clone, Debug)]
pub struct ShellPattern {
    text: String,
    regex: Regex,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PatternError {
    /// What is wrong.
    pub message: &'static str,
    /// What to write instead.
    pub hint: &'static str,
}

const UNCLOSED: PatternError =
    PatternError { message: "the [ is never closed", hint: "for the letter itself, write [[]" };
const NOT_ASCII: PatternError = PatternError {
    message: "a set holds ASCII letters only",
    hint: "names and paths are compared byte by byte, and such a letter is several; * matches it",
};
const TOO_LONG: PatternError =
    PatternError { message: "it has more than 4096 bytes", hint: "write several shorter ones" };

impl ShellPattern {
    /// Whether `text` has anything in it that could make it more than a path.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.contains(['*', '?', '['])
    }

    /// Reads a pattern.
    ///
    /// # Errors
    /// A `[` without its `]` before the next slash, letters beyond ASCII in a set, or too long a text.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.len() > LONGEST {
            return Err(TOO_LONG);
        }
        let regex = RegexBuilder::new(&translate(text.as_bytes())?).unicode(false).build();
        // What comes of a pattern of that length is far below the crate's bound.
        Ok(Self { text: text.to_owned(), regex: regex.map_err(|_| TOO_LONG)? })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches the whole of `path`.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.regex.is_match(path)
    }
}

fn translate(pattern: &[u8]) -> Result<String, PatternError> {
    let mut regex = String::from(r"\A");
    let mut rest = pattern;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'*' if regex.ends_with(ANY) => {}
            b'*' => regex.push_str(ANY),
            b'?' => regex.push_str("[^/]"),
            b'[' => rest = set(after, &mut regex)?,
            b'\\' if !after.is_empty() => {
                literal(after[0], &mut regex);
                rest = &after[1..];
            }
            byte => literal(byte, &mut regex),
        }
    }
    regex.push_str(r"\z");
    Ok(regex)
}

fn literal(byte: u8, regex: &mut String) {
    if byte == b'/' || byte.is_ascii_alphanumeric() {
        regex.push(byte.into());
    } else {
        // Writing to a String does not fail.
        let _ = write!(regex, r"\x{byte:02X}");
    }
}

/// Appends the set that `text`, what follows a `[`, begins with; tells what follows its `]`.
fn set<'t>(text: &'t [u8], regex: &mut String) -> Result<&'t [u8], PatternError> {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let begin = usize::from(negated);
    // The letter at a place, and where what follows it begins.
    let letter = |at: usize| {
        let escaped = usize::from(text.get(at) == Some(&b'\\'));
        match text.get(at + escaped) {
            None | Some(b'/') => Err(UNCLOSED),
            Some(&byte) if byte.is_ascii() => Ok((byte, at + escaped + 1)),
            Some(_) => Err(NOT_ASCII),
        }
    };
    let mut members = [false; 256];
    let mut at = begin;
    // A bracket that comes first is a member.
    while at == begin || text.get(at) != Some(&b']') {
        let (low, behind) = letter(at)?;
        // So is a dash that comes last.
        let range = text.get(behind) == Some(&b'-') && text.get(behind + 1).is_some_and(|byte| *byte != b']');
        let (high, behind) = if range { letter(behind + 1)? } else { (low, behind) };
        // Upside down, a range has no member.
        for byte in low..=high {
            members[usize::from(byte)] = true;
        }
        at = behind;
    }
    members = members.map(|member| member != negated);
    members[usize::from(b'/')] = false;
    class(&members, regex);
    Ok(&text[at + 1..])
}

/// Appends a class of all that are `true`.
fn class(members: &[bool; 256], regex: &mut String) {
    let length = regex.len();
    regex.push('[');
    let mut from = None;
    for byte in 0..=u8::MAX {
        let member = members[usize::from(byte)];
        let last = byte == u8::MAX || !members[usize::from(byte) + 1];
        if member {
            let from = *from.get_or_insert(byte);
            if last {
                let _ = write!(regex, r"\x{from:02X}-\x{byte:02X}");
            }
        }
        if last {
            from = None;
        }
    }
    if regex.len() == length + 1 {
        // Nothing matches it.
        regex.push_str(r"^\x00-\xFF");
    }
    regex.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libapr-1 (1.7.2) says, where it takes the pattern for one.
    #[test]
    fn patterns_match_as_httpd_s_do() {
        for (pattern, path, want) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a.c", "abc", false),
            ("(a|b)+$", "(a|b)+$", true),
            ("*", "", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("**", "ab", true),
            ("**", "a/b", false),
            ("a*", "a", true),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbx", false),
            ("?", "\n", true),
            ("?", "/", false),
            ("?", "", false),
            ("/x/*/y", "/x//y", true),
            ("/x/*/y", "/x/a/b/y", false),
            ("[ab]", "b", true),
            ("[ab]", "c", false),
            ("[!ab]", "c", true),
            ("[^ab]", "c", true),
            ("[^ab]", "a", false),
            ("[^ab]", "", false),
            ("[^^]", "^", false),
            ("[^^]", "!", true),
            ("[!!]", "!", false),
            ("[a!]", "!", true),
            ("x[!a]y", "x/y", false),
            ("[]a]", "]", true),
            ("[!]a]", "b", true),
            ("[!]a]", "]", false),
            ("[[a]", "[", true),
            ("[a-c]", "b", true),
            ("[a-c]", "-", false),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            ("[a-c-e]", "-", true),
            ("[a-c-e]", "d", false),
            ("[z-a]", "z", false),
            ("[z-a]", "m", false),
            ("[!z-a]", "m", true),
            ("[+-9]", "/", false),
            ("[+-9]", "0", true),
            ("[[:alpha:]]", "b", false),
            ("[[:alpha:]]", "a]", true),
            (r"[\]]", "]", true),
            (r"[\a-c]", "b", true),
            (r"[a-\c]", "b", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"\[a", "[a", true),
            (r"\/a", "/a", true),
            (r"a\", r"a\", true),
            (r"\\", r"\", true),
        ] {
            let found = ShellPattern::new(pattern).unwrap_or_else(|error| panic!("{pattern} {error:?}"));
            assert_eq!(found.matches(path.as_bytes()), want, "{pattern} {path:?}");
        }
        let any = ShellPattern::new("/é?[^a]*").expect("a pattern");
        assert!(any.matches(b"/\xc3\xa9\xff\x80\n") && !any.matches(b"/\xc3\xa9\xffa"));
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for (text, want) in [
            ("[", UNCLOSED),
            ("a[", UNCLOSED),
            ("[]", UNCLOSED),
            ("[!]", UNCLOSED),
            ("[a", UNCLOSED),
            ("[a-", UNCLOSED),
            ("[a-b", UNCLOSED),
            (r"[a\", UNCLOSED),
            (r"[a\]", UNCLOSED),
            ("[a/b]", UNCLOSED),
            ("[+-/]", UNCLOSED),
            ("[ä]", NOT_ASCII),
            ("[a-ö]", NOT_ASCII),
            (&"?".repeat(LONGEST + 1), TOO_LONG),
        ] {
            assert_eq!(ShellPattern::new(text).expect_err(text), want, "{text}");
        }
        for longest in ["?", "*?", "[!a-ce]", "\\*"] {
            let text: String =
                longest.chars().cycle().take(LONGEST / longest.len() * longest.len()).collect();
            assert!(ShellPattern::new(&text).is_ok(), "{longest}");
        }
    }
}
