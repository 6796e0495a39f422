//! What is wrong with a configuration, where, and what to do: `file:line:column`, the line, a caret, a hint.
//!
//! While a configuration is read, everything there is to say goes into one [`Report`], with spans. In the end
//! the report becomes [`Diagnostic`]s in the order of the text, which need nothing else to be shown.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Something that an administrator may like to know; nothing needs to be done.
    Note,
    /// Works, but not as written, or not for ever.
    Warning,
    /// Keeps the whole configuration from being used.
    Error,
}

impl Severity {
    /// `note`, `warning` or `error`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A file of a configuration: an index of [`Sources`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileId(pub u32);

/// A stretch of one file, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// Which file.
    pub file: FileId,
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// From the beginning of one to the end of another span of the same file.
    #[must_use]
    pub fn to(self, last: Self) -> Self {
        if last.file == self.file { Self { end: last.end.max(self.end), ..self } } else { self }
    }
}

/// The text of a file, as often as it was included.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: Arc<str>,
    /// Where each line begins; the first is 0.
    lines: Vec<u32>,
    /// The name and line of each file that led here, the innermost first.
    trail: Vec<(String, u32)>,
    /// Where the reading stood, file by file, when this one was included.
    order: Vec<u32>,
}

impl Source {
    /// Line and column of a byte, both from 1; columns count characters.
    fn locate(&self, at: u32) -> (u32, u32) {
        let line = self.lines.partition_point(|&start| start <= at).max(1);
        let start = self.lines[line - 1] as usize;
        let before = self.text.get(start..at as usize).unwrap_or("");
        (as_u32(line), as_u32(before.chars().count() + 1))
    }

    /// The bytes of a line, its end left out; `line` counts from 1.
    fn line_range(&self, line: u32) -> (usize, usize) {
        let start = self.lines[line as usize - 1] as usize;
        let end = self.lines.get(line as usize).map_or(self.text.len(), |&next| next as usize);
        (start, start + self.text[start..end].trim_end_matches(['\n', '\r']).len())
    }
}

fn as_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// All files read so far.
#[derive(Debug, Default)]
pub struct Sources(Vec<Arc<Source>>);

impl Sources {
    /// Takes a file in; `included_at` is the place of the `Include` that led to it.
    pub fn add(&mut self, name: String, text: Arc<str>, included_at: Option<Span>) -> FileId {
        let mut lines = vec![0];
        lines.extend(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| as_u32(at + 1)));
        let (mut trail, mut order) = (Vec::new(), vec![as_u32(self.0.len())]);
        if let Some(span) = included_at {
            let parent = &self.0[span.file.0 as usize];
            trail.push((parent.name.clone(), parent.locate(span.start).0));
            trail.extend(parent.trail.iter().cloned());
            order = parent.order.iter().copied().chain([span.start, as_u32(self.0.len())]).collect();
        }
        self.0.push(Arc::new(Source { name, text, lines, trail, order }));
        FileId(as_u32(self.0.len() - 1))
    }

    /// The text of a file.
    #[must_use]
    pub fn text(&self, file: FileId) -> Arc<str> {
        Arc::clone(&self.0[file.0 as usize].text)
    }

    /// `name:line` of a span, for a diagnostic that speaks of two places.
    #[must_use]
    pub fn place(&self, span: Span) -> String {
        let source = &self.0[span.file.0 as usize];
        format!("{}:{}", source.name, source.locate(span.start).0)
    }
}

/// One thing to say, before the whole text is known.
#[derive(Debug)]
pub struct Item {
    severity: Severity,
    span: Option<Span>,
    message: String,
    hints: Vec<String>,
    kind: Option<&'static str>,
}

impl Item {
    /// Says that the message belongs to a kind of which there may be many, and of which one explains all.
    pub fn kind(&mut self, kind: &'static str) -> &mut Self {
        self.kind = Some(kind);
        self
    }

    /// Adds what the reader can do.
    pub fn hint(&mut self, text: impl Into<String>) -> &mut Self {
        self.hints.push(visible(text.into()));
        self
    }
}

/// `text` with nothing that a terminal obeys and no second line for a log: it may have words of the file in it.
fn visible(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        show(letter, &mut shown);
    }
    shown
}

/// Appends a letter, or what stands for it if it is a control character.
fn show(letter: char, shown: &mut String) {
    if letter.is_control() { shown.extend(letter.escape_default()) } else { shown.push(letter) }
}

/// Everything said while a configuration is read.
#[derive(Debug, Default)]
pub struct Report(Vec<Item>);

impl Report {
    fn push(&mut self, severity: Severity, span: Option<Span>, message: String) -> &mut Item {
        self.0.push(Item { severity, span, message: visible(message), hints: Vec::new(), kind: None });
        self.0.last_mut().expect("one was pushed just now")
    }

    /// Something that keeps the configuration from being used.
    pub fn fault(&mut self, span: Span, message: impl Into<String>) -> &mut Item {
        self.push(Severity::Error, Some(span), message.into())
    }

    /// A fault of the configuration as a whole.
    pub fn fault_of_all(&mut self, message: impl Into<String>) -> &mut Item {
        self.push(Severity::Error, None, message.into())
    }

    /// Something that works otherwise than as written.
    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Item {
        self.push(Severity::Warning, Some(span), message.into())
    }

    /// Something worth knowing.
    pub fn note(&mut self, span: Span, message: impl Into<String>) -> &mut Item {
        self.push(Severity::Note, Some(span), message.into())
    }

    /// A warning about the configuration as a whole.
    pub fn warning_of_all(&mut self, message: impl Into<String>) -> &mut Item {
        self.push(Severity::Warning, None, message.into())
    }

    /// Whether anything keeps the configuration from being used.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        self.0.iter().any(|item| item.severity == Severity::Error)
    }

    /// What was said, in the order of the text; what concerns no place comes last.
    #[must_use]
    pub fn finish(self, sources: &Sources) -> Vec<Diagnostic> {
        let mut keyed: Vec<(bool, Vec<u32>, Diagnostic)> = self
            .0
            .into_iter()
            .map(|item| {
                let place = item.span.map(|span| Place {
                    source: Arc::clone(&sources.0[span.file.0 as usize]),
                    start: span.start,
                    end: span.end,
                });
                let order = place.as_ref().map_or_else(Vec::new, |place| {
                    place.source.order.iter().copied().chain([place.start]).collect()
                });
                let Item { severity, message, hints, kind, .. } = item;
                (place.is_none(), order, Diagnostic { severity, message, hints, place, kind })
            })
            .collect();
        keyed.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        keyed.into_iter().map(|(_, _, diagnostic)| diagnostic).collect()
    }
}

#[derive(Clone, Debug)]
struct Place {
    source: Arc<Source>,
    start: u32,
    end: u32,
}

/// One fault, warning or note, with all that is needed to show it.
///
/// `Display` is one line, as for the error log: `ostler.conf:14:9: what; hint`.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    severity: Severity,
    message: String,
    hints: Vec<String>,
    place: Option<Place>,
    kind: Option<&'static str>,
}

impl Diagnostic {
    /// A fault that has no place in a text, such as a file that cannot be read.
    #[must_use]
    pub fn fault(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            hints: Vec::new(),
            place: None,
            kind: None,
        }
    }

    /// How much it matters.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What happened, without place or hints.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the reader can do.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The file, line and column (both from 1, in characters), unless it concerns the whole.
    #[must_use]
    pub fn position(&self) -> Option<(&str, u32, u32)> {
        self.place.as_ref().map(|place| {
            let (line, column) = place.source.locate(place.start);
            (place.source.name.as_str(), line, column)
        })
    }

    /// What is equal where one explanation does for both.
    fn gist(&self) -> (Severity, bool, &str, &[String]) {
        match self.kind {
            Some(kind) => (self.severity, true, kind, &[]),
            None => (self.severity, false, self.message.as_str(), self.hints.as_slice()),
        }
    }

    /// The words that the caret would stand under.
    fn words(&self) -> &str {
        self.place
            .as_ref()
            .map_or("", |place| place.source.text.get(place.start as usize..place.end as usize).unwrap_or(""))
    }

    /// The line with a caret under the words, as for a terminal.
    #[must_use]
    pub fn render(&self, styled: bool) -> String {
        self.render_with(&[], styled)
    }

    /// As [`Self::render`], and the places of others that are alike.
    fn render_with(&self, others: &[&Self], styled: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(self.message.as_str());
        let mut trail = Vec::new();
        let mut group = match &self.place {
            None => Group::with_title(title),
            Some(place) => {
                let source = &*place.source;
                let (line, _) = source.locate(place.start);
                let (start, end) = source.line_range(line);
                // A span that goes on over continuation lines is shown where it begins.
                let first = (place.start as usize).clamp(start, end);
                let last = (place.end as usize).clamp(first, end);
                trail.extend(source.trail.iter().map(|(file, line)| format!("included at {file}:{line}")));
                title.element(
                    Snippet::source(&source.text[start..end])
                        .line_start(line as usize)
                        .path(source.name.as_str())
                        .annotation(AnnotationKind::Primary.span(first - start..last - start)),
                )
            }
        };
        let places = places(others);
        for text in trail.iter().chain(&places) {
            group = group.element(Level::NOTE.message(text.as_str()));
        }
        for hint in &self.hints {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let text = renderer.render(&[group]);
        // Lines without source text are padded with blanks, which would only trouble a log.
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, line, column)) = self.position() {
            write!(f, "{name}:{line}:{column}: ")?;
        }
        f.write_str(&self.message)?;
        self.hints.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

/// Above so many things that Ostler does not have, the last line says what to do with them all.
const MANY_FOREIGN: usize = 5;

/// Where else the same is to be said: the words with line and column, file by file.
fn places(others: &[&Diagnostic]) -> Option<String> {
    const WIDTH: usize = 96;
    let mut text = match others.len() {
        0 => return None,
        1 => String::from("the same once more:"),
        count => format!("the same {count} times more:"),
    };
    let (mut file, mut words) = ("", "");
    let mut rest = others.iter().filter_map(|other| Some((other.position()?, other.words()))).peekable();
    while let Some(((name, line, column), here)) = rest.next() {
        let mut part = String::new();
        if name != file {
            (file, words) = (name, "");
            text.push_str(&format!("\n{name}"));
        }
        if here != words {
            words = here;
            part.push_str(&format!(" {}", quoted(here.trim_start_matches('<')).trim_matches('"')));
        }
        part.push_str(&format!(" {line}:{column}"));
        // One directive line under line is one block to the reader too.
        let mut last = line;
        while let Some(&((_, next, _), _)) =
            rest.peek().filter(|&&(at, next)| at == (name, last + 1, column) && next == here)
        {
            last = next;
            rest.next();
        }
        if last > line {
            part.push_str(&format!("-{last}:{column}"));
        }
        let length = text.len() - text.rfind('\n').map_or(0, |at| at + 1);
        if length + part.len() > WIDTH {
            text.push_str("\n ");
        }
        text.push_str(&part);
    }
    Some(text)
}

/// What there is to say, with lines and carets. Of what is alike, only the first few are shown so; of the others
/// the places are named.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic], styled: bool) -> String {
    // Up to here, each is more readable with its own line.
    const MOST_IN_FULL: usize = 3;
    let mut alike: HashMap<_, Vec<&Diagnostic>> = HashMap::new();
    for diagnostic in diagnostics {
        alike.entry(diagnostic.gist()).or_default().push(diagnostic);
    }
    let mut text = String::new();
    for diagnostic in diagnostics {
        let others = match alike.get(&diagnostic.gist()).map(Vec::as_slice) {
            Some([first, others @ ..]) if others.len() >= MOST_IN_FULL => {
                if !std::ptr::eq(*first, diagnostic) {
                    continue;
                }
                others
            }
            _ => &[],
        };
        text.push_str(&diagnostic.render_with(others, styled));
        text.push_str("\n\n");
    }
    text
}

/// Why a configuration is not used: every fault of it, in the order of the text, with the warnings between.
#[derive(Clone, Debug)]
pub struct Faults(pub Vec<Diagnostic>);

impl Faults {
    /// How many of them are errors.
    ///
    /// Those that are shown together are counted one by one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// All with their lines, and a last line that counts the faults.
    #[must_use]
    pub fn render(&self, styled: bool) -> String {
        let mut text = render_all(&self.0, styled);
        match self.count() {
            1 => text.push_str("1 fault"),
            count => text.push_str(&format!("{count} faults")),
        }
        let foreign = self.0.iter().filter(|diagnostic| diagnostic.kind.is_some()).count();
        // With a handful the sentences speak for themselves.
        if foreign > MANY_FOREIGN {
            text.push_str(&format!(
                "; {foreign} of them name what this version does not have: leave those lines out, or put them \
                 between <IfModule mod_....c> and </IfModule>, which passes over what is not built in"
            ));
        }
        text
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Faults {}

/// The one of `known` that `word` was most likely meant to be: at most 1 + a quarter of its length away.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let allowed = 1 + word.chars().count() / 4;
    known
        .into_iter()
        // A distance is never below the difference of the lengths; so most need not be measured.
        .filter(|name| name.len().abs_diff(word.len()) <= allowed)
        .map(|name| (strsim::osa_distance(&word, &name.to_ascii_lowercase()), name))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// A word of the user's between quotation marks: shortened if long, and with nothing that a terminal obeys.
#[must_use]
pub fn quoted(word: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown = String::from("\"");
    for (count, letter) in word.chars().enumerate() {
        if count == LONGEST {
            shown.push('…');
            break;
        }
        show(letter, &mut shown);
    }
    shown.push('"');
    shown
}
