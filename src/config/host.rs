//! What a virtual host and the main server may both say, and how a host inherits.

use super::backend::{Backends, Parameters, ProxySet};
use super::check::Checker;
use super::diagnostic::{Span, nearest, quoted};
use super::directives::{Contexts, Key};
use super::lexer::Word;
use super::location::{LocationDraft, Wish};
use super::model::{
    AccessLog, Forward, Forwarding, HostAddress, KeepAlive, Location, LocationMatcher, LogTarget, ProxyRule,
    ReadTimeout, ReadTimeouts, RequestLimits, ReverseRule, Target, Via, VirtualHost,
};
use super::parser::{Directive, Section};
use super::{modules, values};
use crate::http::{MAX_FIELDS, MAX_HEAD};
use crate::ids::LogTargetId;
use crate::log::format::{LogFormat, NICKNAMES};
use crate::log::line::{Level, LogLevels, Module};
use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

/// The longest request line and field that may be asked for: a head is held in memory as a whole, and besides
/// either there must be room for the rest of it.
const LONGEST_LINE: u32 = 63 * 1024;
const _: () = assert!(LONGEST_LINE as usize + 1024 <= MAX_HEAD);
/// The most fields that a head can be parsed into.
const MOST_FIELDS: u32 = 1000;
const _: () = assert!(MOST_FIELDS as usize == MAX_FIELDS);

/// A `ProxyPass` outside of sections, before its backend has a number.
#[derive(Debug)]
struct RuleDraft {
    path: String,
    wish: Wish,
}

/// A `CustomLog`, before all nicknames are known.
#[derive(Debug)]
struct LogDraft {
    target: LogTargetId,
    /// A format or nickname; `None` is TransferLog's.
    format: Option<Word>,
}

/// A host while it is read; `None` where it says nothing itself.
#[derive(Debug, Default)]
pub struct HostDraft {
    pub(super) at: Option<Span>,
    pub(super) addresses: Vec<HostAddress>,
    pub(super) name: Option<(String, Option<u16>)>,
    aliases: Vec<String>,
    timeout: Option<Duration>,
    proxy_timeout: Option<Duration>,
    keep_alive: Option<bool>,
    keep_alive_timeout: Option<Duration>,
    max_keep_alive: Option<Option<NonZeroU32>>,
    read_header: Option<ReadTimeout>,
    read_body: Option<ReadTimeout>,
    limit_line: Option<u32>,
    limit_fields: Option<Option<NonZeroU32>>,
    limit_field_size: Option<u32>,
    limit_body: Option<Option<NonZeroU64>>,
    formats: HashMap<String, LogFormat>,
    last_format: Option<LogFormat>,
    logs: Vec<LogDraft>,
    pub(super) error_log: Option<LogTargetId>,
    levels: Vec<(Option<Module>, Level)>,
    rules: Vec<RuleDraft>,
    reverse: Vec<ReverseRule>,
    preserve_host: Option<bool>,
    add_headers: Option<bool>,
    via: Option<Via>,
    locations: Vec<LocationDraft>,
    pub(super) sets: Vec<ProxySet>,
}

impl HostDraft {
    /// Whether anything here answers a request.
    pub(super) fn answers(&self) -> bool {
        let forwards = |wish: &Wish| matches!(wish, Wish::Forward { .. });
        self.rules.iter().any(|rule| forwards(&rule.wish))
            || self
                .locations
                .iter()
                .any(|location| location.handler.is_some() || location.wish.as_ref().is_some_and(forwards))
    }

    /// The host, where it says nothing itself as `main` says. Both are the same for the main server.
    pub(super) fn settle(
        &mut self,
        main: Option<&VirtualHost>,
        main_sets: &mut [ProxySet],
        name: &str,
        backends: &mut Backends,
        checker: &mut Checker<'_>,
        formats: Option<&Self>,
    ) -> VirtualHost {
        macro_rules! or_main {
            ($own:expr, $main:ident => $value:expr) => {
                $own.or_else(|| main.map(|$main| $value)).expect("the table presets the main server's")
            };
        }
        let timeout = or_main!(self.timeout, main => main.timeout);
        // Unset in both, it follows the Timeout of the host itself; the main server's own is told apart by `said`.
        let said = formats.map_or(self.proxy_timeout, |main| self.proxy_timeout.or(main.proxy_timeout));
        let mut levels = main.map_or_else(LogLevels::default, |main| main.log_levels);
        for &(module, level) in &self.levels {
            match module {
                Some(module) => levels.set(module, level),
                None => levels.set_default(level),
            }
        }
        let access_logs = match main {
            Some(main) if self.logs.is_empty() => main.access_logs.clone(),
            _ => self.access_logs(formats, checker),
        };
        let (name, port) = self
            .name
            .clone()
            .or_else(|| main.map(|main| (main.name.clone(), main.port)))
            .unwrap_or_else(|| (name.to_owned(), None));

        let mut rules = main.map_or_else(Vec::new, |main| main.rules.clone());
        let mut reverse = main.map_or_else(Vec::new, |main| main.reverse.clone());
        let mut locations = main.map_or_else(Vec::new, |main| main.locations.clone());
        let mut sets = std::mem::take(&mut self.sets);
        for rule in self.rules.drain(..) {
            let target = aim(rule.wish, backends, &mut [main_sets, &mut sets]);
            rules.push(ProxyRule { path: rule.path, target });
        }
        reverse.append(&mut self.reverse);
        let mut pages = Vec::new();
        for draft in self.locations.drain(..) {
            if let (Some(_), None, LocationMatcher::Prefix(path)) =
                (draft.handler, &draft.wish, &draft.matcher)
            {
                pages.push((draft.at, path.clone()));
            }
            let target = draft.wish.map(|wish| aim(wish, backends, &mut [main_sets, &mut sets]));
            // The first belongs to the section; a further one means the same beside it.
            let mut own = draft.reverse.into_iter();
            let first = own.next();
            reverse.extend(own);
            locations.push(Location {
                matcher: draft.matcher,
                target,
                reverse: first,
                handler: draft.handler,
                require: draft.require,
                limit_request_body: draft.limit_request_body,
                preserve_host: draft.preserve_host,
                add_headers: draft.add_headers,
            });
        }
        self.sets = sets;
        for (span, path) in pages {
            if let Some(taker) = taker(&path, &locations, &rules) {
                checker
                    .report
                    .warning(
                        span,
                        format!("nobody sees this page: the ProxyPass for {} goes first", quoted(taker)),
                    )
                    .hint(format!("a line \"ProxyPass !\" in the section keeps {path} here"));
            }
        }
        VirtualHost {
            addresses: std::mem::take(&mut self.addresses),
            name,
            port,
            aliases: std::mem::take(&mut self.aliases),
            timeout,
            proxy_timeout: said.unwrap_or(timeout),
            keep_alive: KeepAlive {
                enabled: or_main!(self.keep_alive, main => main.keep_alive.enabled),
                timeout: or_main!(self.keep_alive_timeout, main => main.keep_alive.timeout),
                max_requests: or_main!(self.max_keep_alive, main => main.keep_alive.max_requests),
            },
            read_timeout: ReadTimeouts {
                header: or_main!(self.read_header, main => main.read_timeout.header),
                body: or_main!(self.read_body, main => main.read_timeout.body),
            },
            limits: RequestLimits {
                line: or_main!(self.limit_line, main => main.limits.line),
                fields: or_main!(self.limit_fields, main => main.limits.fields),
                field_size: or_main!(self.limit_field_size, main => main.limits.field_size),
                body: or_main!(self.limit_body, main => main.limits.body),
            },
            access_logs,
            error_log: or_main!(self.error_log, main => main.error_log),
            log_levels: levels,
            rules,
            reverse,
            forwarding: Forwarding {
                preserve_host: or_main!(self.preserve_host, main => main.forwarding.preserve_host),
                add_headers: or_main!(self.add_headers, main => main.forwarding.add_headers),
                via: or_main!(self.via, main => main.forwarding.via),
            },
            locations,
        }
    }

    fn access_logs(&self, main: Option<&Self>, checker: &mut Checker<'_>) -> Vec<AccessLog> {
        let drafts: Vec<&Self> = std::iter::once(self).chain(main).collect();
        self.logs
            .iter()
            .filter_map(|log| {
                let format = match &log.format {
                    None => match drafts.iter().find_map(|draft| draft.last_format.clone()) {
                        Some(format) => Some(format),
                        None => {
                            Some(LogFormat::parse("common").expect("a nickname that the log room defines"))
                        }
                    },
                    Some(word) => match drafts.iter().find_map(|draft| draft.formats.get(&word.text)) {
                        Some(format) => Some(format.clone()),
                        None => checker.format(word, &drafts),
                    },
                };
                format.map(|format| AccessLog { target: log.target, format })
            })
            .collect()
    }
}

/// Gives a wish its backend.
fn aim(wish: Wish, backends: &mut Backends, sets: &mut [&mut [ProxySet]]) -> Target {
    match wish {
        Wish::Exclude => Target::Exclude,
        Wish::Forward { url, parameters, nocanon, noquery } => {
            let backend = backends.intern(&url, &parameters, sets);
            // An authority without a path gets its slash, or a client's path could complete its port.
            let base = if url.path.is_empty() { "/".to_owned() } else { url.path };
            Target::Forward(Forward { backend, base, nocanon, noquery })
        }
    }
}

impl Checker<'_> {
    /// Reads the inside of a `<VirtualHost>`.
    pub(super) fn virtual_host(&mut self, section: &Section) -> HostDraft {
        let mut draft = HostDraft { at: Some(section.name.span), ..HostDraft::default() };
        for word in &section.args {
            match values::host_address(&word.text) {
                Ok(address) => draft.addresses.push(address),
                Err(error) => self.wrong_in("<VirtualHost>", word, error),
            }
        }
        self.host_nodes(&mut draft, &section.nodes, Contexts::HOST);
        draft
    }

    /// A directive that a host and the main server share; `false` if it is none.
    pub(super) fn in_host(&mut self, draft: &mut HostDraft, key: Key, directive: &Directive) -> bool {
        macro_rules! set {
            ($field:ident, $read:expr) => {
                draft.$field = self.value(directive, $read).or(draft.$field.take())
            };
        }
        let args = directive.args.as_slice();
        match key {
            Key::ServerName => set!(name, values::server_name),
            Key::ServerAlias => {
                for word in args {
                    match values::server_alias(&word.text) {
                        Ok(alias) => draft.aliases.push(alias),
                        Err(error) => self.wrong(directive, word, error),
                    }
                }
            }
            Key::Timeout => set!(timeout, values::wait),
            Key::ProxyTimeout => set!(proxy_timeout, values::wait),
            Key::KeepAlive => set!(keep_alive, values::on_off),
            Key::KeepAliveTimeout => set!(keep_alive_timeout, |word| {
                values::wait(word).map_err(|error| match values::duration(word) {
                    Ok(_) => error.or_hint("KeepAlive Off closes a connection after each answer"),
                    Err(_) => error,
                })
            }),
            Key::MaxKeepAliveRequests => {
                set!(max_keep_alive, |word| values::count(word).map(NonZeroU32::new))
            }
            Key::RequestReadTimeout => self.read_timeouts(draft, directive),
            Key::LimitRequestLine => {
                draft.limit_line = self.capped(directive, 1, LONGEST_LINE).or(draft.limit_line);
            }
            Key::LimitRequestFieldSize => {
                draft.limit_field_size = self.capped(directive, 1, LONGEST_LINE).or(draft.limit_field_size);
            }
            Key::LimitRequestFields => {
                let most = self.capped(directive, 0, MOST_FIELDS).map(NonZeroU32::new);
                draft.limit_fields = most.or(draft.limit_fields);
            }
            Key::LimitRequestBody => set!(limit_body, |word| values::size(word).map(NonZeroU64::new)),
            Key::LogFormat => self.log_format(draft, directive),
            Key::CustomLog => {
                if let Some(condition) = args.get(2) {
                    let message = "conditions for log lines are not built yet";
                    self.report.fault(condition.span, message);
                }
                let format = Some(args[1].clone());
                draft.logs.extend(self.log_target(directive).map(|target| LogDraft { target, format }));
            }
            Key::TransferLog => {
                draft.logs.extend(self.log_target(directive).map(|target| LogDraft { target, format: None }));
            }
            Key::ErrorLog => draft.error_log = self.log_target(directive).or(draft.error_log),
            Key::LogLevel => args.iter().for_each(|word| self.log_level(draft, word)),
            Key::ProxyPass => self.rule(draft, directive),
            Key::ProxyPassReverse => match args {
                [path, url] => {
                    if !path.text.starts_with('/') {
                        self.report
                            .fault(path.span, format!("{} does not begin with a slash", quoted(&path.text)))
                            .hint("usage outside of <Location>: ProxyPassReverse path url");
                    }
                    let url = self.reverse_url(url);
                    draft.reverse.extend(url.map(|url| ReverseRule { path: path.text.clone(), url }));
                }
                _ => {
                    self.report
                        .fault(
                            directive.name.span,
                            "outside of <Location>, ProxyPassReverse needs a path and a url",
                        )
                        .hint("usage: ProxyPassReverse path url");
                }
            },
            Key::ProxyPreserveHost => set!(preserve_host, values::on_off),
            Key::ProxyAddHeaders => set!(add_headers, values::on_off),
            Key::ProxyVia => set!(via, values::via),
            Key::ProxyRequests => {
                if self.value(directive, values::on_off) == Some(true) {
                    self.report
                        .fault(args[0].span, "Ostler is a reverse proxy and does not forward for clients")
                        .hint("leave the line out, or write ProxyRequests Off");
                }
            }
            Key::ProxySet => self.proxy_set(draft, directive),
            _ => return false,
        }
        true
    }

    /// A section that a host and the main server share; `false` if it is none.
    pub(super) fn section_in_host(&mut self, draft: &mut HostDraft, key: Key, section: &Section) -> bool {
        match key {
            Key::Location | Key::LocationMatch => draft.locations.extend(self.location(key, section)),
            Key::Proxy => {
                let url = section.args.first().and_then(|word| match word.text.as_str() {
                    "*" => Some(None),
                    text => values::backend_url(text)
                        .map(Some)
                        .map_err(|error| self.wrong_in("<Proxy>", word, error))
                        .ok(),
                });
                let mut parameters = Parameters::default();
                for (key, directive) in self.directives(&section.nodes, Contexts::PROXY) {
                    match key {
                        Key::Require => self.require_in_proxy(directive),
                        _ => directive.args.iter().for_each(|word| parameters.read(word, self.report)),
                    }
                }
                let span = section.name.span;
                draft.sets.extend(url.map(|url| ProxySet { url, parameters, span, used: false }));
            }
            _ => return false,
        }
        true
    }

    /// Whoever may ask for a location may be proxied; so the one thing to say here is what holds anyway.
    fn require_in_proxy(&mut self, directive: &Directive) {
        if !matches!(directive.args.as_slice(), [all, granted] if all.is("all") && granted.is("granted")) {
            self.report
                .fault(directive.name.span, "in <Proxy>, only \"Require all granted\" may stand")
                .hint("<Location> decides who may ask");
        }
    }

    /// A number that the engine bounds: more than that is lowered, with a warning.
    fn capped(&mut self, directive: &Directive, least: u32, most: u32) -> Option<u32> {
        let value = self.value(directive, |word| values::number_within(word, least.into(), u64::MAX))?;
        Some(u32::try_from(value).ok().filter(|&value| value <= most).unwrap_or_else(|| {
            let name = &directive.name.text;
            self.report
                .warning(directive.args[0].span, format!("{name} {value} is above {most}; {most} holds"));
            most
        }))
    }

    fn proxy_set(&mut self, draft: &mut HostDraft, directive: &Directive) {
        let (word, rest) = directive.args.split_first().expect("the table asks for a word");
        let url = self.backend_url(directive, word);
        if rest.is_empty() {
            self.report
                .fault(directive.name.span, "ProxySet needs parameters")
                .hint("usage outside of <Proxy>: ProxySet url parameter=value ...");
        }
        let mut parameters = Parameters::default();
        for word in rest {
            parameters.read(word, self.report);
        }
        let span = directive.name.span;
        draft.sets.extend(url.map(|url| ProxySet { url: Some(url), parameters, span, used: false }));
    }

    fn rule(&mut self, draft: &mut HostDraft, directive: &Directive) {
        let (word, rest) = directive.args.split_first().expect("the table asks for a word");
        let path = self.path(word);
        let wish = self.wish(directive, path.as_deref(), rest);
        if let Some((path, wish)) = path.zip(wish) {
            if let Some(earlier) = draft.rules.iter().find(|rule| covers(&rule.path, &path)) {
                self.report
                    .warning(
                        directive.name.span,
                        format!("no request comes here: the earlier {} matches first", quoted(&earlier.path)),
                    )
                    .hint("of several that match, the first counts; put the longer path first");
            }
            draft.rules.push(RuleDraft { path, wish });
        }
    }

    fn read_timeouts(&mut self, draft: &mut HostDraft, directive: &Directive) {
        for word in &directive.args {
            let (name, value) = word.text.split_once('=').unwrap_or((&word.text, ""));
            let value = match values::read_timeout(value) {
                Ok(value) => value,
                Err(error) => {
                    self.wrong(directive, word, error);
                    continue;
                }
            };
            match name.to_ascii_lowercase().as_str() {
                "header" => draft.read_header = Some(value),
                "body" => draft.read_body = Some(value),
                "handshake" if value.start.is_none() => {}
                "handshake" => {
                    self.report.note(word.span, "handshake has no meaning here: TLS is not built in yet");
                }
                _ => {
                    self.report
                        .fault(word.span, format!("{} is not a part of a request", quoted(name)))
                        .hint("the parts are header and body");
                }
            }
        }
    }

    fn log_level(&mut self, draft: &mut HostDraft, word: &Word) {
        let (module, level) = match word.text.split_once(':') {
            None => (None, word.text.as_str()),
            Some((module, level)) => (Some(module), level),
        };
        let Some(level) = Level::parse(level) else {
            let levels = Level::ALL.iter().map(|level| level.name());
            let item = self.report.fault(word.span, format!("LogLevel: {} is not a level", quoted(level)));
            match nearest(level, levels) {
                Some(near) => item.hint(format!("did you mean {near}?")),
                None => {
                    item.hint("the levels are emerg alert crit error warn notice info debug trace1 to trace8")
                }
            };
            return;
        };
        let module = match module.map(|name| (name, Module::parse(name))) {
            None => None,
            Some((_, Some(module))) => Some(module),
            Some((name, None)) => {
                // A module that httpd has and we lack says nothing at any level.
                let full = format!("{}_module", name.trim_end_matches("_module"));
                if modules::feature(&full).is_some() || modules::is_built_in(&full) {
                    self.report.note(word.span, format!("no line is ever told by {}", quoted(name)));
                } else {
                    let item = self
                        .report
                        .fault(word.span, format!("LogLevel: there is no module {}", quoted(name)));
                    if let Some(near) = nearest(name, Module::ALL.iter().map(|module| module.name())) {
                        item.hint(format!("did you mean {near}?"));
                    }
                }
                return;
            }
        };
        draft.levels.push((module, level));
    }

    fn log_format(&mut self, draft: &mut HostDraft, directive: &Directive) {
        let word = &directive.args[0];
        // A nickname alone chooses TransferLog's format, as in httpd.
        let format = match draft.formats.get(&word.text) {
            Some(format) => Some(format.clone()),
            None => self.format(word, &[draft]),
        };
        // A nickname whose format is faulty stays known, so that the lines which use it are no faults too.
        let stand_in = || directive.args.get(1).and_then(|_| LogFormat::parse("common").ok());
        let Some(format) = format.or_else(stand_in) else { return };
        match directive.args.get(1) {
            None => draft.last_format = Some(format),
            Some(nickname) => {
                draft.formats.insert(nickname.text.clone(), format);
            }
        }
    }

    /// A format, or one of the log's own nicknames.
    fn format(&mut self, word: &Word, drafts: &[&HostDraft]) -> Option<LogFormat> {
        let own = NICKNAMES.iter().map(|&(name, _)| name);
        if !word.text.contains('%') && !own.clone().any(|name| name == word.text) {
            let names = drafts.iter().flat_map(|draft| draft.formats.keys()).map(String::as_str).chain(own);
            let item = self.report.fault(word.span, format!("there is no log format {}", quoted(&word.text)));
            match nearest(&word.text, names) {
                Some(near) => item.hint(format!("did you mean {near}?")),
                None => item.hint(format!("LogFormat \"...\" {} would name one", word.text)),
            };
            return None;
        }
        LogFormat::parse(&word.text)
            .map_err(|error| {
                self.report.fault(word.span, format!("this is no log format: {error}"));
            })
            .ok()
    }

    fn log_target(&mut self, directive: &Directive) -> Option<LogTargetId> {
        let word = &directive.args[0];
        let text = word.text.as_str();
        let target = if let Some(program) = text.strip_prefix('|') {
            // httpd's `||` starts it without a shell and `|$` with one; here the shell always replaces itself.
            let program = program.strip_prefix(['|', '$']).unwrap_or(program).trim();
            if program.is_empty() {
                self.report.fault(word.span, "no program stands behind the |");
                return None;
            }
            LogTarget::Program(program.to_owned())
        } else if text.is_empty() {
            self.report.fault(word.span, "the name of a file is empty");
            return None;
        } else if word.is("syslog") || text.to_ascii_lowercase().starts_with("syslog:") || word.is("journald")
        {
            self.report
                .fault(word.span, format!("{} is not built yet", quoted(text)))
                .hint("/dev/stderr reaches the service manager's log");
            return None;
        } else {
            match text {
                "/dev/stderr" => LogTarget::Stderr,
                "/dev/stdout" => LogTarget::Stdout,
                _ => LogTarget::File(self.root.join(text)),
            }
        };
        Some(self.target(target))
    }
}

/// The path of the `ProxyPass` that takes requests for `path` to a backend, if one does. The last section that
/// has one decides, then the first rule.
fn taker<'a>(path: &str, locations: &'a [Location], rules: &'a [ProxyRule]) -> Option<&'a str> {
    let in_sections =
        locations.iter().rev().filter_map(|location| match (&location.matcher, &location.target) {
            (LocationMatcher::Prefix(prefix), Some(target)) => Some((prefix.as_str(), target)),
            _ => None,
        });
    let outside = rules.iter().map(|rule| (rule.path.as_str(), &rule.target));
    let (taker, target) = in_sections.chain(outside).find(|(prefix, _)| covers(prefix, path))?;
    matches!(target, Target::Forward(_)).then_some(taker)
}

/// Whether a rule for `earlier` takes every request that one for `later` would get.
fn covers(earlier: &str, later: &str) -> bool {
    match later.strip_prefix(earlier) {
        None => false,
        Some(rest) => rest.is_empty() || earlier.ends_with('/') || rest.starts_with('/'),
    }
}
