//! Lines to directives and sections: includes followed, variables replaced, conditions decided.
//!
//! What httpd does while it reads is done here, in the order of the lines: `Define`, `Include`, `ServerRoot`,
//! `LoadModule`, `<IfModule>` and its like. What a directive means is `check`'s.
//!
//! A file is read twice. The first time finds the MPM, by which the second decides `<IfModule mpm_…_module>`
//! from its first line on; so the line that names it may stand anywhere.

use super::diagnostic::{Report, Sources, Span, nearest, quoted};
use super::directives::{self, Key};
use super::files::{FileKind, Files, expand};
use super::lexer::{Lexer, Line, Logical, Value, Word};
use super::load::Options;
use super::model::Mpm;
use super::{modules, values};
use crate::log::line::cause;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directive or a section, conditions and includes resolved.
#[derive(Debug)]
pub enum Node {
    /// `Name word …`
    Directive(Directive),
    /// `<Name word …>` to `</Name>`
    Section(Section),
}

/// `Name word …`
#[derive(Debug)]
pub struct Directive {
    /// Its name as written.
    pub name: Word,
    /// What follows.
    pub args: Vec<Word>,
}

/// `<Name word …>` to `</Name>`
#[derive(Debug)]
pub struct Section {
    /// Its name as written.
    pub name: Word,
    /// What follows in the opening line.
    pub args: Vec<Word>,
    /// What stands inside.
    pub nodes: Vec<Node>,
}

/// What a file says, as far as its lines tell.
#[derive(Debug)]
pub struct Tree {
    /// In order.
    pub nodes: Vec<Node>,
    /// The MPM that holds.
    pub mpm: Mpm,
    /// `ServerRoot`, or what stands for it.
    pub server_root: PathBuf,
}

/// Files within files.
const DEEPEST_INCLUDE: usize = 20;
/// Files in all, each counted as often as it is read.
const MOST_INCLUDES: usize = 100_000;
/// Sections within sections.
const DEEPEST_SECTION: usize = 50;

/// Reads a file whose text is at hand, and what it includes.
#[must_use]
pub fn parse(
    name: &str,
    text: &str,
    base: &Path,
    options: &Options,
    files: &dyn Files,
    sources: &mut Sources,
    report: &mut Report,
) -> Tree {
    let mut known = HashMap::new();
    let mut first = (Sources::default(), Report::default());
    let mut scout = Parser::new(options, files, base, &mut first.0, &mut first.1, &mut known, None);
    scout.all(name, text);
    let said = scout.said;
    let implied = match scout.implied.as_slice() {
        [first, others @ ..] if others.iter().all(|mpm| mpm == first) => Some(*first),
        _ => None,
    };
    let mpm = options.mpm.or(said).or(implied).unwrap_or(Mpm::Event);

    let mut parser = Parser::new(options, files, base, sources, report, &mut known, Some(mpm));
    parser.only_implied = options.mpm.is_none() && said.is_none() && implied.is_some();
    parser.all(name, text);
    Tree { nodes: parser.nodes, mpm, server_root: parser.server_root }
}

/// An open section or condition.
enum Frame {
    /// Its content counts, and belongs to it.
    Section(Section),
    /// A condition that holds.
    Passed(Word),
    /// A condition that does not hold, or a section within it.
    Skipped(Word),
}

impl Frame {
    fn name(&self) -> &Word {
        match self {
            Self::Section(section) => &section.name,
            Self::Passed(name) | Self::Skipped(name) => name,
        }
    }
}

/// How a condition came out.
struct Decision {
    holds: bool,
}

struct Parser<'a> {
    options: &'a Options,
    files: &'a dyn Files,
    sources: &'a mut Sources,
    report: &'a mut Report,
    /// The text of each file by its path, so that both readings see the same.
    known: &'a mut HashMap<PathBuf, Arc<str>>,
    /// The MPM that holds; `None` while it is being found.
    mpm: Option<Mpm>,
    /// The MPM that a line named, and where: the first one counts.
    said: Option<Mpm>,
    said_at: Option<Span>,
    /// The MPMs of `<IfModule mpm_…>`.
    implied: Vec<Mpm>,
    /// The MPM follows from an `<IfModule>` alone; said once.
    only_implied: bool,
    defines: BTreeMap<String, Option<String>>,
    server_root: PathBuf,
    /// Paths of the files being read, the innermost last.
    open_files: Vec<PathBuf>,
    includes: usize,
    frames: Vec<Frame>,
    nodes: Vec<Node>,
}

impl<'a> Parser<'a> {
    fn new(
        options: &'a Options,
        files: &'a dyn Files,
        base: &Path,
        sources: &'a mut Sources,
        report: &'a mut Report,
        known: &'a mut HashMap<PathBuf, Arc<str>>,
        mpm: Option<Mpm>,
    ) -> Self {
        let defines = options.defines.iter().map(|define| match define.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (define.clone(), None),
        });
        Self {
            options,
            files,
            sources,
            report,
            known,
            mpm,
            said: None,
            said_at: None,
            implied: Vec::new(),
            only_implied: false,
            defines: defines.collect(),
            server_root: options
                .server_root
                .as_deref()
                .map_or_else(|| base.to_owned(), |root| base.join(root)),
            open_files: Vec::new(),
            includes: 0,
            frames: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// The file between the lines of `-C` and `-c`.
    fn all(&mut self, name: &str, text: &str) {
        for (name, text) in [
            ("-C", self.options.before.join("\n").as_str()),
            (name, text),
            ("-c", self.options.after.join("\n").as_str()),
        ] {
            self.file(name, Arc::from(text), None);
        }
    }

    fn file(&mut self, name: &str, text: Arc<str>, included_at: Option<Span>) {
        let file = self.sources.add(name.to_owned(), Arc::clone(&text), included_at);
        let base = self.frames.len();
        let mut lexer = Lexer::new(file, &text);
        while let Some(line) = lexer.next_line() {
            self.line(line, base);
        }
        while self.frames.len() > base {
            let name = self.close();
            self.report
                .fault(name.span, format!("<{}> is never closed", name.text))
                .hint(format!("a line </{}> is missing", name.text));
        }
    }

    fn line(&mut self, line: Logical, base: usize) {
        if let Some(span) = line.comment_goes_on() {
            self.report.warning(span, "this backslash makes the next line part of the comment");
        }
        if line.is_comment() {
            return;
        }
        if matches!(self.frames.last(), Some(Frame::Skipped(_))) {
            match line.skim() {
                Some(Line::Open { name, .. }) => self.frames.push(Frame::Skipped(name)),
                Some(Line::Close { name }) => self.closing(&name, base),
                Some(Line::Directive { .. }) | None => {}
            }
            return;
        }
        let line = line.read(&|name| self.value_of(name)).or_else(|broken| {
            for fault in broken.faults {
                let item = self.report.fault(fault.span, fault.message);
                if let Some(hint) = fault.hint {
                    item.hint(hint);
                }
            }
            broken.meant.ok_or(())
        });
        match line {
            Err(()) => {}
            Ok(Line::Directive { name, args }) => self.directive(name, args),
            Ok(Line::Open { name, args }) => self.opening(name, args),
            Ok(Line::Close { name }) => self.closing(&name, base),
        }
    }

    fn value_of(&self, name: &str) -> Value<'_> {
        match self.defines.get(name) {
            Some(Some(value)) => return Value::Is(value),
            Some(None) => {
                return Value::Unknown {
                    message: format!("{name} is defined without a value"),
                    hint: Some(format!("write Define {name} value, or -D {name}=value")),
                };
            }
            None => {}
        }
        if let Some((_, value)) = self.options.environment.iter().find(|(known, _)| known == name) {
            return Value::Is(value);
        }
        let names = self.defines.keys().map(String::as_str);
        let environment = self.options.environment.iter().map(|(name, _)| name.as_str());
        Value::Unknown {
            message: format!("the variable {} is not defined", quoted(name)),
            hint: Some(match nearest(name, names.chain(environment)) {
                Some(near) => format!("did you mean ${{{near}}}?"),
                None if name.starts_with("APACHE_") => {
                    "Debian sets it in /etc/apache2/envvars, which a shell can read before it starts us; Define \
                     or -D name=value does as well"
                        .to_owned()
                }
                None => "Define sets it, or -D name=value, or the environment".to_owned(),
            }),
        }
    }

    fn push(&mut self, node: Node) {
        let section = self.frames.iter_mut().rev().find_map(|frame| match frame {
            Frame::Section(section) => Some(section),
            Frame::Passed(_) | Frame::Skipped(_) => None,
        });
        section.map_or(&mut self.nodes, |section| &mut section.nodes).push(node);
    }

    fn opening(&mut self, name: Word, args: Vec<Word>) {
        if self.frames.len() >= DEEPEST_SECTION {
            self.report.fault(name.span, format!("more than {DEEPEST_SECTION} sections within each other"));
            self.frames.push(Frame::Skipped(name));
            return;
        }
        let key = directives::find_section(&name.text).map(|(entry, _)| entry.key);
        let frame = match key.and_then(|key| self.condition(key, &name, &args)) {
            None => Frame::Section(Section { name, args, nodes: Vec::new() }),
            Some(Decision { holds: true }) => Frame::Passed(name),
            Some(Decision { holds: false }) => Frame::Skipped(name),
        };
        self.frames.push(frame);
    }

    fn closing(&mut self, name: &Word, base: usize) {
        let open = self.frames[base..].iter().rposition(|frame| frame.name().is(&name.text));
        let Some(open) = open.map(|open| base + open) else {
            let item = self.report.fault(name.span, format!("</{}> closes nothing", name.text));
            let innermost = self.frames[base..].last().map(|frame| frame.name().text.clone());
            if let Some(innermost) = innermost {
                if nearest(&name.text, [innermost.as_str()]).is_some() {
                    item.hint(format!("did you mean </{innermost}>?"));
                    self.close();
                } else {
                    item.hint(format!("the section that is open here is <{innermost}>"));
                }
            }
            return;
        };
        while self.frames.len() > open + 1 {
            let inner = self.close();
            self.report.fault(inner.span, format!("<{}> is not closed before </{}>", inner.text, name.text));
        }
        self.close();
    }

    /// Ends the innermost section or condition.
    fn close(&mut self) -> Word {
        let frame = self.frames.pop().expect("closed only while one is open");
        let name = frame.name().clone();
        if let Frame::Section(section) = frame {
            self.push(Node::Section(section));
        }
        name
    }

    /// Decides a condition; `None` if the section is none.
    fn condition(&mut self, key: Key, name: &Word, args: &[Word]) -> Option<Decision> {
        let negated = args.first().is_some_and(|word| word.text.starts_with('!'));
        let test = args.first().map(|word| word.text.trim_start_matches('!').to_owned()).unwrap_or_default();
        let bare: fn(&mut Self, &str, &Word, bool) -> bool = match key {
            Key::IfModule => Self::has_module,
            Key::IfDefine => |parser, test, _, _| parser.defines.contains_key(test),
            Key::IfDirective => |_, test, _, _| directives::find(test).is_some(),
            Key::IfSection => |_, test, _, _| directives::find_section(test).is_some(),
            Key::IfFile => |parser, test, _, _| parser.files.kind(&parser.server_root.join(test)).is_some(),
            Key::IfVersion => {
                let holds = self.version(name, args);
                return Some(Decision { holds });
            }
            _ => return None,
        };
        let (Some(word), 1) = (args.first(), args.len()) else {
            self.shape(name, args, true);
            return Some(Decision { holds: false });
        };
        let holds = bare(self, &test, word, negated) != negated;
        Some(Decision { holds })
    }

    fn has_module(&mut self, test: &str, word: &Word, negated: bool) -> bool {
        let Some(mpm) = modules::mpm(test) else {
            let known = modules::is_built_in(test);
            if !known
                && modules::feature(test).is_none()
                && let Some(near) = nearest(test, modules::names())
            {
                self.report
                    .warning(word.span, format!("there is no module {}", quoted(test)))
                    .hint(format!("did you mean {near}?"));
            }
            return known;
        };
        match self.mpm {
            Some(chosen) => {
                if self.only_implied && !negated {
                    self.only_implied = false;
                    let name = chosen.name();
                    self.report
                        .note(
                            word.span,
                            format!(
                                "the MPM is {name}, since this is the only one that the file has settings for"
                            ),
                        )
                        .hint(format!("a line \"MPM {name}\" says so plainly"));
                }
                mpm == chosen
            }
            None => {
                if !negated && self.said.is_none() {
                    self.implied.push(mpm);
                }
                self.said == Some(mpm)
            }
        }
    }

    /// `<IfVersion >= 2.4>`: what is read here is the language of httpd 2.4.
    fn version(&mut self, name: &Word, args: &[Word]) -> bool {
        const OURS: [u32; 3] = [2, 4, 68];
        let (operator, version) = match args {
            [version] => ("=", version),
            [operator, version] => (operator.text.as_str(), version),
            _ => {
                self.shape(name, args, true);
                return false;
            }
        };
        let (operator, negated) = operator.strip_prefix('!').map_or((operator, false), |rest| (rest, true));
        let parts: Option<Vec<u32>> = version.text.split('.').map(|part| part.parse().ok()).collect();
        let Some(parts) = parts.filter(|parts| parts.len() <= OURS.len()) else {
            self.report.fault(version.span, format!("{} is not a version", quoted(&version.text)));
            return false;
        };
        // Parts that are not written count as 0, as in httpd.
        let wanted: Vec<u32> = parts.into_iter().chain([0; 3]).take(OURS.len()).collect();
        let order = OURS.as_slice().cmp(wanted.as_slice());
        let holds = match operator {
            "=" | "==" => order.is_eq(),
            ">" => order.is_gt(),
            ">=" => order.is_ge(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            _ => {
                self.report
                    .fault(args[0].span, format!("{} does not compare versions", quoted(operator)))
                    .hint("write = > >= < or <=");
                return false;
            }
        };
        holds != negated
    }

    /// Says what words a directive or section of the table wants, if these are not they.
    fn shape(&mut self, name: &Word, args: &[Word], section: bool) -> bool {
        let found = if section { directives::find_section(&name.text) } else { directives::find(&name.text) };
        found.is_none_or(|(entry, _)| super::check::shape(self.report, entry, name, args))
    }

    fn directive(&mut self, name: Word, args: Vec<Word>) {
        match directives::find(&name.text).map(|(entry, _)| entry.key) {
            Some(Key::Define) => {
                if self.shape(&name, &args, false) {
                    if args[0].text.contains(':') || args[0].text.is_empty() {
                        self.report.fault(args[0].span, "the name of a variable has letters, and no colon");
                    } else {
                        self.defines.insert(args[0].text.clone(), args.get(1).map(|word| word.text.clone()));
                    }
                }
            }
            Some(Key::UnDefine) => {
                if self.shape(&name, &args, false) {
                    self.defines.remove(&args[0].text);
                }
            }
            Some(Key::Error) => {
                if self.shape(&name, &args, false) {
                    let text: Vec<&str> = args.iter().map(|word| word.text.as_str()).collect();
                    self.report.fault(name.span, text.join(" "));
                }
            }
            Some(key @ (Key::Include | Key::IncludeOptional)) => {
                if self.shape(&name, &args, false) {
                    self.include(&args[0], key == Key::IncludeOptional);
                }
            }
            key => {
                match (key, args.as_slice()) {
                    (Some(Key::ServerRoot), [root]) if !root.text.is_empty() => {
                        self.server_root = self.server_root.join(&root.text);
                    }
                    (Some(Key::Mpm), [word]) => {
                        if let Ok(mpm) = values::mpm(&word.text) {
                            self.say_mpm(mpm, word.span);
                        }
                    }
                    (Some(Key::LoadModule), [word, ..]) => {
                        if let Some(mpm) = modules::mpm(&word.text) {
                            self.say_mpm(mpm, word.span);
                        }
                    }
                    _ => {}
                }
                self.push(Node::Directive(Directive { name, args }));
            }
        }
    }

    fn say_mpm(&mut self, mpm: Mpm, span: Span) {
        match (self.said, self.said_at) {
            (Some(before), Some(at)) if before != mpm => {
                let place = self.sources.place(at);
                self.report
                    .fault(span, format!("the MPM is {} already, by {place}", before.name()))
                    .hint("one MPM runs at a time; leave one of the two lines out");
            }
            (Some(_), _) => {}
            (None, _) => {
                self.said = Some(mpm);
                self.said_at = Some(span);
                if let Some(chosen) = self.mpm.filter(|&chosen| chosen != mpm) {
                    self.report.note(span, format!("the command line says {} instead", chosen.name()));
                }
            }
        }
    }

    fn include(&mut self, word: &Word, optional: bool) {
        let path = self.server_root.join(&word.text);
        let found = match expand(&path, self.files) {
            Ok(found) => found,
            Err(sentence) => {
                self.report.fault(word.span, sentence);
                return;
            }
        };
        // An empty directory is no mistake; a name or pattern without a file is.
        if found.is_empty() && !optional && self.files.kind(&path) != Some(FileKind::Directory) {
            self.report
                .fault(word.span, format!("there is no file {}", quoted(&path.display().to_string())))
                .hint("IncludeOptional takes files that may be missing");
        }
        for path in found {
            if self.open_files.contains(&path) {
                self.report.fault(word.span, format!("{} would include itself", path.display()));
                continue;
            }
            if self.open_files.len() >= DEEPEST_INCLUDE {
                self.report.fault(word.span, format!("more than {DEEPEST_INCLUDE} files within each other"));
                return;
            }
            self.includes += 1;
            if self.includes > MOST_INCLUDES {
                if self.includes == MOST_INCLUDES + 1 {
                    self.report.fault(word.span, format!("more than {MOST_INCLUDES} files"));
                }
                return;
            }
            let Some(text) = self.text_of(&path, word.span) else { continue };
            self.open_files.push(path.clone());
            self.file(&path.display().to_string(), text, Some(word.span));
            self.open_files.pop();
        }
    }

    fn text_of(&mut self, path: &Path, span: Span) -> Option<Arc<str>> {
        if let Some(text) = self.known.get(path) {
            return Some(Arc::clone(text));
        }
        match self.files.read(path) {
            Ok(bytes) => {
                let text: Arc<str> = Arc::from(String::from_utf8_lossy(&bytes));
                self.known.insert(path.to_owned(), Arc::clone(&text));
                Some(text)
            }
            Err(error) => {
                self.report.fault(span, format!("cannot read {}: {}", path.display(), cause(&error)));
                None
            }
        }
    }
}
