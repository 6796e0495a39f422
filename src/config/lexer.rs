//! Text to lines, lines to words, each with its place.
//!
//! The rules are httpd's: a backslash at the end of a line joins it to the next; `#` at the beginning of a line
//! is a comment; words are parted by blanks; a word may stand in double or single quotes, where a backslash
//! takes the meaning from the quote and from itself; `${NAME}` is replaced before words are parted. One thing
//! is ours: `#` after a blank and outside of quotes begins a comment as well.

use super::diagnostic::{FileId, Span};

/// A word of a line, with escapes and variables replaced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Word {
    /// What it says.
    pub text: String,
    /// Where it stands, with its quotes.
    pub span: Span,
    /// Whether it stood in quotes.
    pub quoted: bool,
}

impl Word {
    /// Whether it says `text`, capitals or not.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.text.eq_ignore_ascii_case(text)
    }
}

/// What one logical line is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Line {
    /// `Name word …`
    Directive {
        /// Its first word.
        name: Word,
        /// The others.
        args: Vec<Word>,
    },
    /// `<Name word …>`
    Open {
        /// What follows the bracket.
        name: Word,
        /// The words before the closing bracket.
        args: Vec<Word>,
    },
    /// `</Name>`
    Close {
        /// What follows `</`.
        name: Word,
    },
}

/// A line with faults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broken {
    /// All of them, in order.
    pub faults: Vec<LexError>,
    /// What the line most likely was, if it begins or ends a section; so that one wrong bracket does not make
    /// every line behind it look wrong.
    pub meant: Option<Line>,
}

impl From<Vec<LexError>> for Broken {
    fn from(faults: Vec<LexError>) -> Self {
        Self { faults, meant: None }
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LexError {
    /// Where.
    pub span: Span,
    /// What.
    pub message: String,
    /// What to do, if that is not plain.
    pub hint: Option<String>,
}

/// The longest line after its variables have been replaced, in bytes; keeps `Define`s of `Define`s from growing
/// without end.
const LONGEST_LINE: usize = 1 << 20;

/// Stands for a value of `${NAME}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value<'a> {
    /// Replace it with this.
    Is(&'a str),
    /// Nobody knows it; the sentence says so.
    Unknown {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// The logical lines of one file that are neither empty nor comments.
#[derive(Debug)]
pub struct Lexer<'t> {
    file: FileId,
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    /// Begins at the top of a file. A byte order mark is passed over.
    #[must_use]
    pub fn new(file: FileId, text: &'t str) -> Self {
        Self { file, text, at: if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 } }
    }

    /// The next logical line with anything on it.
    pub fn next_line(&mut self) -> Option<Logical> {
        while self.at < self.text.len() {
            let line = self.join();
            if !line.text.trim_start_matches(is_blank).is_empty() {
                return Some(line);
            }
        }
        None
    }

    /// One logical line: as many physical ones as backslashes join.
    fn join(&mut self) -> Logical {
        let mut line = Logical { file: self.file, text: String::new(), pieces: Vec::new() };
        loop {
            let start = self.at;
            let end = memchr::memchr(b'\n', &self.text.as_bytes()[start..])
                .map_or(self.text.len(), |length| start + length);
            self.at = (end + 1).min(self.text.len());
            let physical = &self.text[start..end];
            let physical = physical.strip_suffix('\r').unwrap_or(physical);
            line.pieces.push(Piece { at: line.text.len(), source: start, whole: None });
            match physical.strip_suffix('\\') {
                Some(most) => line.text.push_str(most),
                None => {
                    line.text.push_str(physical);
                    break;
                }
            }
            if self.at >= self.text.len() {
                break;
            }
        }
        line
    }
}

fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

fn span(file: FileId, start: usize, end: usize) -> Span {
    let narrow = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    Span { file, start: narrow(start), end: narrow(end) }
}

/// Where a stretch of a logical line comes from.
#[derive(Clone, Debug)]
struct Piece {
    /// Where it begins in the logical line.
    at: usize,
    /// Where it begins in the file.
    source: usize,
    /// For the value of a variable: where `${NAME}` ends in the file; all of it comes from the whole of that.
    whole: Option<usize>,
}

/// A logical line: joined, variables not yet replaced.
#[derive(Clone, Debug)]
pub struct Logical {
    file: FileId,
    text: String,
    pieces: Vec<Piece>,
}

impl Logical {
    /// Whether the whole line is a comment.
    #[must_use]
    pub fn is_comment(&self) -> bool {
        self.text.trim_start_matches(is_blank).starts_with('#')
    }

    /// The backslash that makes the next line part of a comment, which may begin behind a directive.
    #[must_use]
    pub fn comment_goes_on(&self) -> Option<Span> {
        if self.pieces.len() < 2 {
            return None;
        }
        let begin = self.comment()?;
        let next = self.pieces.partition_point(|piece| piece.at <= begin);
        let (piece, next) = (&self.pieces[next.checked_sub(1)?], self.pieces.get(next)?);
        let backslash = piece.source + (next.at - piece.at);
        Some(span(self.file, backslash, backslash + 1))
    }

    /// Replaces the variables and parts the words.
    ///
    /// # Errors
    /// Every fault of the line, in its order.
    pub fn read<'v>(mut self, value_of: &dyn Fn(&str) -> Value<'v>) -> Result<Line, Broken> {
        self.drop_comment();
        let mut faults = self.substitute(value_of);
        faults.extend(self.strange_letters());
        let mut words = match self.words() {
            Ok(words) => words,
            Err(fault) => {
                faults.push(fault);
                return Err(faults.into());
            }
        };
        let first = words.remove(0);
        let (line, fault) = if !first.quoted && first.text.starts_with('<') {
            tag(first, words)
        } else {
            (Some(Line::Directive { name: first, args: words }), None)
        };
        faults.extend(fault);
        match line {
            Some(line) if faults.is_empty() => Ok(line),
            // What a broken directive was meant to be is anybody's guess.
            Some(Line::Directive { .. }) => Err(faults.into()),
            meant => Err(Broken { faults, meant }),
        }
    }

    /// The line's shape alone, for what a condition leaves out: variables are not looked up, words not judged.
    #[must_use]
    pub fn skim(mut self) -> Option<Line> {
        self.drop_comment();
        let words = self.words().ok()?;
        let mut words = words.into_iter();
        let first = words.next()?;
        if first.quoted || !first.text.starts_with('<') {
            return Some(Line::Directive { name: first, args: Vec::new() });
        }
        tag(first, words.collect()).0
    }

    /// Cuts off a comment at the line's end.
    fn drop_comment(&mut self) {
        if let Some(begin) = self.comment() {
            self.text.truncate(begin);
        }
    }

    /// Where a comment begins.
    fn comment(&self) -> Option<usize> {
        let mut first = "";
        for (count, found) in (Scan { text: &self.text, at: 0 }).enumerate() {
            let word = &self.text[found.start..found.end];
            if count == 0 {
                first = word;
            }
            // `User #1000` names a user by number.
            let names = first.eq_ignore_ascii_case("User") || first.eq_ignore_ascii_case("Group");
            let number = word.strip_prefix('#').is_some_and(|rest| {
                rest.trim_start_matches('-').starts_with(|letter: char| letter.is_ascii_digit())
            });
            if word.starts_with('#') && !(count == 1 && names && number) {
                return Some(found.start);
            }
        }
        None
    }

    /// Puts values in the place of `${NAME}`.
    fn substitute<'v>(&mut self, value_of: &dyn Fn(&str) -> Value<'v>) -> Vec<LexError> {
        let mut faults = Vec::new();
        if !self.text.contains("${") {
            return faults;
        }
        let mut after = Self { file: self.file, text: String::new(), pieces: Vec::new() };
        let mut at = 0;
        // Copies a stretch as it stands, with every piece border inside it.
        let copy = |after: &mut Self, from: usize, to: usize| {
            let mut from = from;
            while from < to {
                let border = self.pieces.iter().map(|piece| piece.at).find(|&border| border > from);
                let end = border.map_or(to, |border| border.min(to));
                let source = self.source_of(from).0;
                after.pieces.push(Piece { at: after.text.len(), source, whole: None });
                after.text.push_str(&self.text[from..end]);
                from = end;
            }
        };
        while let Some(open) = self.text[at..].find("${").map(|open| at + open) {
            let Some(close) = self.text[open..].find('}').map(|close| open + close) else { break };
            let name = &self.text[open + 2..close];
            copy(&mut after, at, open);
            at = close + 1;
            // As in httpd: a colon means a map of another module, and an empty name nothing.
            if name.is_empty() || name.contains(':') {
                copy(&mut after, open, at);
                continue;
            }
            match value_of(name) {
                Value::Is(value) if after.text.len() + value.len() > LONGEST_LINE => {
                    let message = "the variables make this line too long".to_owned();
                    faults.push(LexError { span: self.span(open, at), message, hint: None });
                    break;
                }
                Value::Is(value) => {
                    let (source, _) = self.source_of(open);
                    let (_, whole) = self.source_of(close);
                    after.pieces.push(Piece { at: after.text.len(), source, whole: Some(whole) });
                    after.text.push_str(value);
                }
                Value::Unknown { message, hint } => {
                    copy(&mut after, open, at);
                    faults.push(LexError { span: self.span(open, at), message, hint });
                }
            }
        }
        copy(&mut after, at, self.text.len());
        *self = after;
        faults
    }

    /// Bytes that are no UTF-8 (the reader put U+FFFD there) and control characters.
    fn strange_letters(&self) -> Option<LexError> {
        let (at, letter) = self.text.char_indices().find(|&(_, letter)| {
            letter == char::REPLACEMENT_CHARACTER || (letter.is_control() && !is_blank(letter))
        })?;
        let message = if letter == char::REPLACEMENT_CHARACTER {
            "this is not UTF-8".to_owned()
        } else {
            format!("a control character (U+{:04X}) has no place here", u32::from(letter))
        };
        Some(LexError { span: self.span(at, at + letter.len_utf8()), message, hint: None })
    }

    fn words(&self) -> Result<Vec<Word>, LexError> {
        let mut words = Vec::new();
        for found in (Scan { text: &self.text, at: 0 }) {
            if found.unclosed {
                let message = "the quotation mark is never closed".to_owned();
                return Err(LexError { span: self.span(found.start, found.start + 1), message, hint: None });
            }
            let inside = match found.quote {
                Some(_) => &self.text[found.start + 1..found.end - 1],
                None => &self.text[found.start..found.end],
            };
            words.push(Word {
                text: unescape(inside, found.quote),
                span: self.span(found.start, found.end),
                quoted: found.quote.is_some(),
            });
        }
        if words.is_empty() {
            let message = "nothing is left of this line".to_owned();
            return Err(LexError { span: self.span(0, self.text.len()), message, hint: None });
        }
        Ok(words)
    }

    /// Start and end in the file of the byte at `at` of the logical line.
    fn source_of(&self, at: usize) -> (usize, usize) {
        let index = self.pieces.partition_point(|piece| piece.at <= at).max(1) - 1;
        match self.pieces.get(index) {
            None => (0, 0),
            Some(Piece { source, whole: Some(end), .. }) => (*source, *end),
            Some(piece) => (piece.source + (at - piece.at), piece.source + (at - piece.at) + 1),
        }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let first = self.source_of(start).0;
        let last = if end > start { self.source_of(end - 1).1 } else { first };
        span(self.file, first, last.max(first))
    }
}

/// Takes a `\` away before another, and before the quote that the word stands in.
fn unescape(inside: &str, quote: Option<char>) -> String {
    if !inside.contains('\\') {
        return inside.to_owned();
    }
    let mut text = String::with_capacity(inside.len());
    let mut letters = inside.chars().peekable();
    while let Some(letter) = letters.next() {
        match letters.peek() {
            Some(&next) if letter == '\\' && (next == '\\' || Some(next) == quote) => {
                text.push(next);
                letters.next();
            }
            _ => text.push(letter),
        }
    }
    text
}

/// A word as it stands, quotes included.
struct Found {
    start: usize,
    end: usize,
    quote: Option<char>,
    unclosed: bool,
}

/// Parts a line into words.
struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl Iterator for Scan<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let rest = self.text[self.at..].trim_start_matches(is_blank);
        let start = self.text.len() - rest.len();
        let first = rest.chars().next()?;
        let bytes = rest.as_bytes();
        let (length, quote, unclosed) = if matches!(first, '"' | '\'') {
            let mut at = 1;
            loop {
                match bytes.get(at) {
                    None => break (bytes.len(), Some(first), true),
                    // Only these two are escapes; before anything else a backslash is itself.
                    Some(b'\\') if matches!(bytes.get(at + 1), Some(&next) if next == b'\\' || next == first as u8) =>
                    {
                        at += 2;
                    }
                    Some(&byte) if byte == first as u8 => break (at + 1, Some(first), false),
                    Some(_) => at += 1,
                }
            }
        } else {
            (rest.find(is_blank).unwrap_or(rest.len()), None, false)
        };
        self.at = start + length;
        Some(Found { start, end: start + length, quote, unclosed })
    }
}

/// A line that begins with `<`: what it is, or most likely was; and what is wrong with it.
fn tag(first: Word, mut args: Vec<Word>) -> (Option<Line>, Option<LexError>) {
    let whole = args.last().map_or(first.span, |last| first.span.to(last.span));
    let wrong = |message: &str, span: Span| LexError { span, message: message.to_owned(), hint: None };
    let mut name = Word { text: first.text[1..].to_owned(), ..first };
    let last = args.last_mut().unwrap_or(&mut name);
    let inside = (if last.quoted { None } else { last.text.strip_suffix('>') }).map(str::to_owned);
    let unclosed = inside.is_none().then(|| LexError {
        hint: Some("a section begins with <Name words> on a line of its own".to_owned()),
        ..wrong("this has no \">\" at its end", whole)
    });
    if let Some(inside) = inside {
        // The bracket is no part of the word, so the caret should not stand under it either.
        last.span.end = last.span.end.saturating_sub(1).max(last.span.start);
        last.text = inside;
    }
    if args.last().is_some_and(|last| last.text.is_empty() && !last.quoted) {
        args.pop();
    }
    let closing = name.text.strip_prefix('/').map(str::to_owned);
    if closing.as_ref().unwrap_or(&name.text).is_empty() {
        return (None, Some(wrong("a section needs a name directly after its bracket", whole)));
    }
    let surplus = args.first().map(|word| word.span);
    let line = match closing {
        None => Line::Open { name, args },
        Some(text) => Line::Close { name: Word { text, ..name } },
    };
    let fault = unclosed.or_else(|| match (&line, surplus) {
        (Line::Close { name }, Some(surplus)) => {
            Some(wrong(&format!("nothing may stand after </{}", name.text), surplus))
        }
        _ => None,
    });
    (Some(line), fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(name: &str) -> Value<'static> {
        match name {
            "a" => Value::Is("one"),
            "two" => Value::Is("1 2"),
            "quoted" => Value::Is("\"x y\" #z"),
            _ => Value::Unknown { message: format!("no {name}"), hint: None },
        }
    }

    fn lines(text: &str) -> Vec<Result<Line, Broken>> {
        let mut lexer = Lexer::new(FileId(0), text);
        std::iter::from_fn(|| lexer.next_line())
            .filter(|line| !line.is_comment())
            .map(|line| line.read(&value_of))
            .collect()
    }

    /// Each word with the stretch of text that it comes from.
    fn words(text: &str) -> Vec<(String, &str)> {
        let place = |word: &Word| &text[word.span.start as usize..word.span.end as usize];
        let mut all = Vec::new();
        for line in lines(text) {
            match line.unwrap_or_else(|broken| panic!("{text:?} {broken:?}")) {
                Line::Directive { name, args } | Line::Open { name, args } => {
                    all.extend(
                        std::iter::once(name).chain(args).map(|word| (word.text.clone(), place(&word))),
                    );
                }
                Line::Close { name } => all.push((format!("/{}", name.text), place(&name))),
            }
        }
        all
    }

    #[test]
    fn lines_are_parted_into_words_with_their_places() {
        for (text, want) in [
            ("", vec![]),
            ("\n  \t\r\n# x\n   # y", vec![]),
            ("\u{feff}A b", vec![("A", "A"), ("b", "b")]),
            ("  A\tb  c \r\n", vec![("A", "A"), ("b", "b"), ("c", "c")]),
            ("A \"b c\" 'd \"e'", vec![("A", "A"), ("b c", "\"b c\""), ("d \"e", "'d \"e'")]),
            // Only the quote itself and the backslash are escaped; all others keep their backslash.
            (
                r#"A "x\"y\\z\d\'" \d\\ '\''"#,
                vec![("A", "A"), (r#"x"y\z\d\'"#, r#""x\"y\\z\d\'""#), (r"\d\", r"\d\\"), ("'", r"'\''")],
            ),
            // A quote within a word is a letter, and after a closing quote a new word begins.
            ("A b\"c \"d\"e", vec![("A", "A"), ("b\"c", "b\"c"), ("d", "\"d\""), ("e", "e")]),
            ("A b # c \"", vec![("A", "A"), ("b", "b")]),
            ("A b#c \"# d\"", vec![("A", "A"), ("b#c", "b#c"), ("# d", "\"# d\"")]),
            ("A b \\\n  c\\\r\nd", vec![("A", "A"), ("b", "b"), ("cd", "c\\\r\nd")]),
            ("A b\\", vec![("A", "A"), ("b", "b")]),
            (
                "A x${a}y ${two} ${map:x} ${} ${a",
                vec![
                    ("A", "A"),
                    ("xoney", "x${a}y"),
                    ("1", "${two}"),
                    ("2", "${two}"),
                    ("${map:x}", "${map:x}"),
                    ("${}", "${}"),
                    ("${a", "${a"),
                ],
            ),
            // A value may bring quotes along, but no comment.
            ("A ${quoted}", vec![("A", "A"), ("x y", "${quoted}"), ("#z", "${quoted}")]),
            (
                "<Location \"/a b\" > # c\n</Location>",
                vec![("Location", "<Location"), ("/a b", "\"/a b\""), ("/Location", "</Location")],
            ),
            ("<IfModule !a>", vec![("IfModule", "<IfModule"), ("!a", "!a")]),
            ("<IfVersion >= 2.4>", vec![("IfVersion", "<IfVersion"), (">=", ">="), ("2.4", "2.4")]),
            (
                "User #1 #2\nUser # x\ngroup #-2",
                vec![("User", "User"), ("#1", "#1"), ("User", "User"), ("group", "group"), ("#-2", "#-2")],
            ),
        ] {
            let want: Vec<(String, &str)> =
                want.into_iter().map(|(word, place)| (word.to_owned(), place)).collect();
            assert_eq!(words(text), want, "{text:?}");
        }
    }

    #[test]
    fn faults_of_a_line_have_their_places() {
        for (text, start, end, message) in [
            ("A \"b", 2, 3, "the quotation mark is never closed"),
            ("A 'b\\'", 2, 3, "the quotation mark is never closed"),
            ("A x${none}", 3, 10, "no none"),
            ("<A b", 0, 4, "this has no \">\" at its end"),
            ("<A b> c", 0, 7, "this has no \">\" at its end"),
            ("<>", 0, 2, "a section needs a name directly after its bracket"),
            ("< A>", 0, 4, "a section needs a name directly after its bracket"),
            ("</>", 0, 3, "a section needs a name directly after its bracket"),
            ("</A b>", 4, 5, "nothing may stand after </A"),
            ("A \u{7f}", 2, 3, "a control character (U+007F) has no place here"),
        ] {
            let broken = lines(text).remove(0).expect_err(text);
            let [fault] = broken.faults.as_slice() else { panic!("{text:?} {broken:?}") };
            assert_eq!(
                (fault.span.start, fault.span.end, fault.message.as_str()),
                (start, end, message),
                "{text:?}"
            );
        }
    }
}
