//! `<Location>` and `<LocationMatch>`, and the mapping lines that stand in them or beside them.

use super::backend::Parameters;
use super::check::Checker;
use super::diagnostic::{Span, quoted};
use super::directives::{Contexts, Key};
use super::lexer::Word;
use super::model::{Handler, LocationMatcher, Require, ReverseRule};
use super::parser::{Directive, Section};
use super::pattern::ShellPattern;
use super::values::{self, BackendUrl};
use std::num::NonZeroU64;

/// What a `ProxyPass` says, before its backend has a number.
#[derive(Debug)]
pub enum Wish {
    /// `!`
    Exclude,
    /// A url with its parameters.
    Forward {
        /// Where to.
        url: BackendUrl,
        /// What stood behind it.
        parameters: Parameters,
        /// `nocanon`
        nocanon: bool,
        /// `noquery`
        noquery: bool,
    },
}

/// A section while it is read.
#[derive(Debug)]
pub struct LocationDraft {
    pub(super) matcher: LocationMatcher,
    /// Where the section begins.
    pub(super) at: Span,
    pub(super) wish: Option<Wish>,
    pub(super) reverse: Vec<ReverseRule>,
    pub(super) handler: Option<Handler>,
    pub(super) require: Option<Vec<Require>>,
    pub(super) limit_request_body: Option<Option<NonZeroU64>>,
    pub(super) preserve_host: Option<bool>,
    pub(super) add_headers: Option<bool>,
}

impl Checker<'_> {
    /// Reads a whole section; `None` if its opening line is wrong (which has been said).
    pub(super) fn location(&mut self, key: Key, section: &Section) -> Option<LocationDraft> {
        let matcher = self.matcher(key, section);
        let mut draft = LocationDraft {
            // A stand-in, so that the lines inside are judged even if the section's own words are wrong.
            matcher: matcher.clone().unwrap_or_else(|| LocationMatcher::Prefix("/".to_owned())),
            at: section.name.span,
            wish: None,
            reverse: Vec::new(),
            handler: None,
            require: None,
            limit_request_body: None,
            preserve_host: None,
            add_headers: None,
        };
        for (key, directive) in self.directives(&section.nodes, Contexts::LOCATION) {
            self.in_location(&mut draft, section, key, directive);
        }
        matcher.map(|_| draft)
    }

    fn matcher(&mut self, key: Key, section: &Section) -> Option<LocationMatcher> {
        let (path, regex) = match section.args.as_slice() {
            [path] => (path, key == Key::LocationMatch),
            [tilde, path] if tilde.text == "~" => (path, true),
            [tilde, _] => {
                self.report
                    .fault(tilde.span, format!("{} is not ~", quoted(&tilde.text)))
                    .hint("a path with blanks stands in quotes");
                return None;
            }
            _ => return None,
        };
        if regex {
            // As httpd: any byte is a letter. Were "." to take only valid UTF-8, or no line's end, a client could
            // get past a section that denies by sending what it leaves out.
            let built = regex::bytes::RegexBuilder::new(&path.text)
                .unicode(false)
                .dot_matches_new_line(true)
                .size_limit(1 << 20)
                .build();
            return match built {
                Ok(regex) => Some(LocationMatcher::Regex(regex)),
                Err(error) => {
                    // The crate's own text draws over several lines; its last one says what is wrong.
                    let text = error.to_string();
                    let what = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
                    let hint = if what.starts_with("Unicode") {
                        "paths are compared byte by byte, so a set holds ASCII letters only: write (a|ä) instead of [aä]"
                    } else {
                        "back references and look-around are not known here, so that matching stays fast"
                    };
                    self.report.fault(path.span, format!("this is no regular expression: {what}")).hint(hint);
                    None
                }
            };
        }
        if !path.text.starts_with('/') {
            self.report
                .fault(path.span, format!("{} does not begin with a slash", quoted(&path.text)))
                .hint("a location is a path, such as /app");
            return None;
        }
        if ShellPattern::is_one(&path.text) {
            return match ShellPattern::new(&path.text) {
                Ok(pattern) => Some(LocationMatcher::Glob(pattern)),
                Err(error) => {
                    self.report
                        .fault(path.span, format!("this is no pattern: {}", error.message))
                        .hint(error.hint);
                    None
                }
            };
        }
        self.path(path).map(LocationMatcher::Prefix)
    }

    fn in_location(&mut self, draft: &mut LocationDraft, section: &Section, key: Key, directive: &Directive) {
        let args = directive.args.as_slice();
        match key {
            Key::ProxyPass => {
                let prefix = match &draft.matcher {
                    LocationMatcher::Prefix(path) => Some(path.clone()),
                    LocationMatcher::Glob(_) | LocationMatcher::Regex(_) => None,
                };
                if draft.wish.is_some() {
                    self.report.fault(directive.name.span, "a location has one ProxyPass");
                    return;
                }
                let wish = self.wish(directive, prefix.as_deref(), args);
                if prefix.is_none() && matches!(wish, Some(Wish::Forward { .. })) {
                    self.report
                        .fault(
                            directive.name.span,
                            "where a pattern matches, nobody knows what remains of the path",
                        )
                        .hint("only \"ProxyPass !\" may stand here; a plain <Location /path> can have a url");
                    return;
                }
                draft.wish = wish;
            }
            Key::ProxyPassReverse => {
                // Clients get the path as it was written, not as requests are compared.
                let (LocationMatcher::Prefix(_), [path]) = (&draft.matcher, section.args.as_slice()) else {
                    self.report
                        .fault(directive.name.span, "a pattern cannot take the place of a url")
                        .hint("a ProxyPassReverse with a path may stand outside of this section");
                    return;
                };
                let path = path.text.clone();
                if let [url] = args {
                    draft.reverse.extend(self.reverse_url(url).map(|url| ReverseRule { path, url }));
                } else {
                    self.report
                        .fault(args[0].span, "in a location, ProxyPassReverse has no path of its own")
                        .hint("usage here: ProxyPassReverse url");
                }
            }
            Key::SetHandler => {
                let known = Handler::ALL.into_iter().find(|handler| args[0].is(handler.name()));
                if known.is_some() {
                    draft.handler = known;
                } else {
                    let item = self.report.fault(
                        args[0].span,
                        format!("the handler {} is not built in", quoted(&args[0].text)),
                    );
                    let names = Handler::ALL.map(Handler::name).join(" and ");
                    item.hint(format!("{names} are"));
                }
            }
            Key::Require => {
                let words: Vec<&str> = args.iter().map(|word| word.text.as_str()).collect();
                match values::require(&words) {
                    Ok(more) => draft.require.get_or_insert_default().extend(more),
                    Err((at, error)) => {
                        self.wrong(directive, &args[at], error);
                        // A section whose Require is wrong must not count as one without.
                        draft.require.get_or_insert_default();
                    }
                }
            }
            Key::LimitRequestBody => {
                let value = self.value(directive, values::size);
                draft.limit_request_body = value.map(NonZeroU64::new).or(draft.limit_request_body);
            }
            Key::ProxyPreserveHost => {
                draft.preserve_host = self.value(directive, values::on_off).or(draft.preserve_host);
            }
            Key::ProxyAddHeaders => {
                draft.add_headers = self.value(directive, values::on_off).or(draft.add_headers);
            }
            _ => self.misplaced(directive),
        }
    }

    /// `url|! [parameter=value …]`, behind the path that it is for.
    pub(super) fn wish(&mut self, directive: &Directive, path: Option<&str>, args: &[Word]) -> Option<Wish> {
        let Some((target, rest)) = args.split_first() else {
            self.report
                .fault(
                    directive.name.span,
                    "ProxyPass needs a url, or ! for a path that is not to be proxied",
                )
                .hint("usage: ProxyPass [path] url|! [parameter=value ...]");
            return None;
        };
        if target.text == "!" {
            if let Some(surplus) = rest.first() {
                self.report.fault(surplus.span, "nothing may follow !");
            }
            return Some(Wish::Exclude);
        }
        let url = self.backend_url(directive, target);
        let (mut parameters, mut nocanon, mut noquery) = (Parameters::default(), false, false);
        for word in rest {
            if word.is("nocanon") {
                nocanon = true;
            } else if word.is("noquery") {
                noquery = true;
            } else if word.is("interpolate") {
                self.report.fault(word.span, "interpolate: variables of requests are not built yet");
            } else {
                parameters.read(word, self.report);
            }
        }
        let url = url?;
        if let Some(path) = path {
            self.slashes(target, path, &url);
        }
        Some(Wish::Forward { url, parameters, nocanon, noquery })
    }

    /// What remains of a request's path is put behind the url byte for byte, so both sides must agree.
    fn slashes(&mut self, target: &Word, path: &str, url: &BackendUrl) {
        let (left, right) = (path.ends_with('/'), url.path.ends_with('/'));
        if url.path.is_empty() || left == right {
            return;
        }
        let (there, example) = if left {
            ("only the path ends in a slash", format!("{path}x is asked for as {}x", url.path))
        } else if url.path == "/" {
            ("only the url ends in a slash", format!("{path}/x is asked for as /x here, as //x by httpd"))
        } else {
            ("only the url ends in a slash", format!("{path}/x is asked for as {}/x", url.path))
        };
        self.report
            .warning(target.span, there)
            .hint(format!("{example}; let both end in a slash, or neither"));
    }

    pub(super) fn backend_url(&mut self, directive: &Directive, word: &Word) -> Option<BackendUrl> {
        values::backend_url(&word.text).map_err(|error| self.wrong(directive, word, error)).ok()
    }

    /// The url of a ProxyPassReverse, as written; of a socket, what its url is called.
    pub(super) fn reverse_url(&mut self, word: &Word) -> Option<String> {
        let text = match word.text.split_once('|') {
            Some((socket, url)) if socket.starts_with("unix:") => url,
            _ => word.text.as_str(),
        };
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("http" | "https" | "ws" | "wss") => Some(text.to_owned()),
            Some("balancer") => {
                self.report.fault(word.span, "balancing is not built yet; name one backend");
                None
            }
            None if text.starts_with('/') => Some(text.to_owned()),
            _ => {
                self.report.fault(word.span, format!("{} is not a url", quoted(text))).hint(
                    "write the url that the backend puts into Location, such as http://127.0.0.1:3000/",
                );
                None
            }
        }
    }

    /// A path to match requests by: decoded, with runs of slashes merged, as requests are.
    pub(super) fn path(&mut self, word: &Word) -> Option<String> {
        if !word.text.starts_with('/') {
            self.report
                .fault(word.span, format!("{} does not begin with a slash", quoted(&word.text)))
                .hint("write a path, such as /app");
            return None;
        }
        let path = decoded(&word.text, word.span, self);
        if let Some(path) = &path
            && *path != word.text
        {
            self.report
                .note(word.span, format!("paths are compared as {}", quoted(path)))
                .hint("requests are decoded and runs of their slashes merged before");
        }
        path
    }
}

fn decoded(text: &str, span: Span, checker: &mut Checker<'_>) -> Option<String> {
    let mut bytes: Vec<u8> = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let digit = |at: usize| after.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        let byte = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                rest = &after[2..];
                let byte = u8::try_from(high * 16 + low).expect("two hexadecimal digits make a byte");
                if byte == b'/' || byte.is_ascii_control() {
                    checker
                        .report
                        .fault(span, format!("%{byte:02X} never occurs in a path that is compared"));
                    return None;
                }
                byte
            }
            _ => first,
        };
        if byte != b'/' || bytes.last() != Some(&b'/') {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| {
            checker.report.fault(span, "decoded, this path is not UTF-8");
        })
        .ok()
}
