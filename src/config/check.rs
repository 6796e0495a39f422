//! Directives to [`Config`]: every word judged, every fault collected, nothing left for anybody to ask again.
//!
//! What holds by default is read from the table first, like a file before the file; so there is one way for a
//! value to come about. Then the file is walked once, and in the end hosts inherit, backends get their numbers
//! and the sizing directives are clamped.

use self::listening::StatusWish;
use super::diagnostic::{Report, Sources, Span, quoted};
use super::directives::{self, Contexts, Drivers, Entry, Key, Spelling, TABLE, Treatment};
use super::files::{FileKind, Files};
use super::host::HostDraft;
use super::lexer::{Lexer, Line, Value, Word};
use super::load::Options;
use super::model::{Config, Listen, LogTarget, Mpm, ServerTokens, StatusListen, VirtualHost};
use super::parser::{Directive, Node, Tree};
use super::sizing::{Given, Sizing};
use super::values::{self, ValueError};
use super::{backend::Backends, foreign, modules};
use crate::ids::LogTargetId;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod listening;

/// Turns a tree into a configuration. What is wrong goes into the report; with a fault in it, the value is
/// meaningless and must not be used.
#[must_use]
pub fn check(
    tree: &Tree,
    options: &Options,
    files: &dyn Files,
    sources: &mut Sources,
    report: &mut Report,
) -> Config {
    let mut checker = Checker {
        report,
        files,
        options,
        root: tree.server_root.clone(),
        mpm: tree.mpm,
        server: Server::default(),
        sizing: Sizing::default(),
        hosts: Vec::new(),
        targets: Vec::new(),
        target_ids: HashMap::new(),
        presetting: true,
        listens: false,
    };
    let mut main = HostDraft::default();
    let presets = presets(tree.mpm, sources);
    checker.host_nodes(&mut main, &presets, Contexts::SERVER);
    checker.presetting = false;
    checker.host_nodes(&mut main, &tree.nodes, Contexts::SERVER);
    checker.finish(main)
}

/// The table's defaults as directives.
fn presets(mpm: Mpm, sources: &mut Sources) -> Vec<Node> {
    let lines =
        TABLE.iter().filter(|entry| entry.treatment == Treatment::Honoured && entry.drivers.know(mpm));
    let lines = lines.filter_map(|entry| Some(format!("{} {}\n", entry.name, entry.preset.words(mpm)?)));
    let text: Arc<str> = Arc::from(lines.collect::<String>());
    let file = sources.add("the table of directives".to_owned(), Arc::clone(&text), None);
    let mut lexer = Lexer::new(file, &text);
    let no_variables = |_: &str| Value::Unknown { message: String::new(), hint: None };
    std::iter::from_fn(|| lexer.next_line())
        .map(|line| match line.read(&no_variables) {
            Ok(Line::Directive { name, args }) => Node::Directive(Directive { name, args }),
            other => unreachable!("the table presets with plain directives, not {other:?}"),
        })
        .collect()
}

/// Whether as many words follow as the table asks for; says so if not.
pub fn shape(report: &mut Report, entry: &Entry, name: &Word, args: &[Word]) -> bool {
    let (least, most) = entry.words;
    let usage = format!("usage: {}", entry.synopsis());
    if args.len() < least {
        let message = match (args.len(), least) {
            (0, 1) => format!("{} needs a word", entry.shown()),
            _ => format!("{} needs {least} words", entry.shown()),
        };
        report.fault(name.span, message).hint(usage);
        return false;
    }
    if let Some(surplus) = args.get(most) {
        let words = if most == 1 { "one word".to_owned() } else { format!("{most} words at most") };
        let message = format!("{} takes {words}, so {} is too much", entry.shown(), quoted(&surplus.text));
        report.fault(surplus.span, message).hint(usage);
        return false;
    }
    true
}

/// What only the server as a whole can say.
#[derive(Debug, Default)]
struct Server {
    listen: Vec<(Listen, Span)>,
    status: Vec<(StatusWish, Span)>,
    listen_backlog: u32,
    send_buffer: Option<u32>,
    receive_buffer: Option<u32>,
    core_dump_directory: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    pid_file: Option<FileChoice>,
    scoreboard_file: Option<FileChoice>,
    scoreboard_at: Option<Span>,
    user: Option<String>,
    group: Option<String>,
    graceful_shutdown_timeout: Duration,
    graceful_reload_timeout: Duration,
    child_stall_timeout: Duration,
    extended_status: bool,
    hand_over: bool,
    see_request_tail: bool,
    server_tokens: Option<ServerTokens>,
}

/// `PidFile` and `ScoreBoardFile`.
#[derive(Debug)]
enum FileChoice {
    Nowhere,
    At(String),
}

/// What the walk carries along.
pub(super) struct Checker<'a> {
    pub(super) report: &'a mut Report,
    files: &'a dyn Files,
    options: &'a Options,
    pub(super) root: PathBuf,
    mpm: Mpm,
    server: Server,
    sizing: Sizing,
    hosts: Vec<HostDraft>,
    targets: Vec<LogTarget>,
    target_ids: HashMap<LogTarget, LogTargetId>,
    /// The table's defaults are being read, not the file.
    presetting: bool,
    /// Some line was, or was most likely meant to be, a Listen; if it is wrong, that has been said.
    listens: bool,
}

impl Checker<'_> {
    /// Says that a word is no value for its directive.
    pub(super) fn wrong(&mut self, directive: &Directive, word: &Word, error: ValueError) {
        let name = directives::find(&directive.name.text).map_or("", |(entry, _)| entry.name);
        self.wrong_in(name, word, error);
    }

    pub(super) fn wrong_in(&mut self, name: &str, word: &Word, error: ValueError) {
        let item = self.report.fault(word.span, format!("{name}: {}", error.message));
        if let Some(hint) = error.hint {
            item.hint(hint);
        }
    }

    /// The value of a directive's first word, if it is one.
    pub(super) fn value<T>(
        &mut self,
        directive: &Directive,
        read: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        let word = &directive.args[0];
        read(&word.text).map_err(|error| self.wrong(directive, word, error)).ok()
    }

    /// The number of a log target, the same for the same target.
    pub(super) fn target(&mut self, target: LogTarget) -> LogTargetId {
        if let Some(&id) = self.target_ids.get(&target) {
            return id;
        }
        let id = LogTargetId(u32::try_from(self.targets.len()).expect("a file holds fewer than 2^32 lines"));
        self.targets.push(target.clone());
        self.target_ids.insert(target, id);
        id
    }

    /// Judges a name in its place. `None` if nothing remains to be done; why has been said.
    fn entry(
        &mut self,
        name: &Word,
        args: &[Word],
        section: bool,
        context: Contexts,
    ) -> Option<&'static Entry> {
        let found = if section { directives::find_section(&name.text) } else { directives::find(&name.text) };
        let Some((entry, spelling)) = found else {
            self.unknown(name, section);
            return None;
        };
        self.listens |= entry.key == Key::Listen;
        match spelling {
            Spelling::Current => {}
            Spelling::Old => {
                self.report
                    .warning(name.span, format!("{} is an old name", name.text))
                    .hint(format!("today it is {}", entry.name));
            }
            Spelling::Misspelt => {
                self.report
                    .warning(name.span, format!("{} is misspelt, but understood", name.text))
                    .hint(format!("its name is {}", entry.name));
            }
        }
        if let Treatment::Refused(why) = entry.treatment {
            self.report.fault(name.span, format!("{}: {why}", entry.shown()));
            return None;
        }
        if !entry.contexts.contain(context) {
            self.report
                .fault(name.span, format!("{} has no place {}", entry.shown(), context.told()))
                .hint(format!("it stands {}", entry.contexts.told()));
            return None;
        }
        if !entry.drivers.know(self.mpm) {
            let module = match entry.drivers {
                Drivers::Prefork => "mpm_prefork_module",
                Drivers::Event => "mpm_event_module",
                Drivers::Threaded | Drivers::All => "!mpm_prefork_module",
            };
            let (drivers, mpm) = (entry.drivers.told(), self.mpm.name());
            self.report
                .fault(name.span, format!("{} belongs to {drivers}, and the MPM is {mpm}", entry.shown()))
                .hint(format!("within <IfModule {module}> it holds only where it belongs"));
            return None;
        }
        // A section's inside is judged even if its own line is wrong.
        if !shape(self.report, entry, name, args) && !section {
            return None;
        }
        if let Treatment::Idle(why) = entry.treatment {
            self.report.note(name.span, format!("{} has no meaning here: {why}", entry.name));
            return None;
        }
        Some(entry)
    }

    fn unknown(&mut self, name: &Word, section: bool) {
        let (shown, what) =
            if section { (format!("<{}>", name.text), "section") } else { (quoted(&name.text), "directive") };
        if let Some(sentence) = foreign::sentence(&name.text) {
            let shown = if section { shown } else { name.text.clone() };
            self.report.fault(name.span, format!("{shown}: {sentence}")).kind(sentence);
            return;
        }
        let item = self.report.fault(name.span, format!("{what} {shown} is not known"));
        let near = directives::suggestion(&name.text, section);
        self.listens |= near.is_some_and(|(_, today)| today == "Listen");
        match (near, directives::suggestion(&name.text, !section)) {
            (Some((near, _)), _) if section => item.hint(format!("did you mean <{near}>?")),
            (Some((near, today)), _) if near == today => item.hint(format!("did you mean {near}?")),
            (Some((near, today)), _) => {
                item.hint(format!("did you mean {near}, which is called {today} today?"))
            }
            (None, Some((near, _))) if section => {
                item.hint(format!("{near} is no section; write it without brackets"))
            }
            (None, Some((near, _))) => item.hint(format!("<{near}> is a section; write it in brackets")),
            (None, None) => item.hint("-L lists all that are"),
        };
    }

    /// A directive that the table allows here and nobody reads: the table and the code have come apart.
    pub(super) fn misplaced(&mut self, directive: &Directive) {
        self.report.fault(directive.name.span, format!("{} is not built in this place", directive.name.text));
    }

    /// The directives of a section that holds no other sections.
    pub(super) fn directives<'n>(
        &mut self,
        nodes: &'n [Node],
        context: Contexts,
    ) -> Vec<(Key, &'n Directive)> {
        let mut known = Vec::new();
        for node in nodes {
            match node {
                Node::Directive(directive) => {
                    let entry = self.entry(&directive.name, &directive.args, false, context);
                    known.extend(entry.map(|entry| (entry.key, directive)));
                }
                Node::Section(section) => {
                    // No section of the table stands in these, so this always speaks.
                    let _ = self.entry(&section.name, &section.args, true, context);
                }
            }
        }
        known
    }

    /// What stands in a host, or outside of all sections.
    pub(super) fn host_nodes(&mut self, draft: &mut HostDraft, nodes: &[Node], context: Contexts) {
        for node in nodes {
            match node {
                Node::Directive(directive) => {
                    if let Some(entry) = self.entry(&directive.name, &directive.args, false, context)
                        && !self.in_host(draft, entry.key, directive)
                        && !self.in_server(entry.key, directive)
                    {
                        self.misplaced(directive);
                    }
                }
                Node::Section(section) => {
                    let Some(entry) = self.entry(&section.name, &section.args, true, context) else {
                        continue;
                    };
                    if entry.key == Key::VirtualHost {
                        let host = self.virtual_host(section);
                        self.hosts.push(host);
                    } else {
                        // The table has no other section outside of conditions, which the parser has decided.
                        self.section_in_host(draft, entry.key, section);
                    }
                }
            }
        }
    }

    fn given(&mut self, directive: &Directive, old: Given) -> Given {
        let value = self.value(directive, values::count);
        self.given_value(directive, value, old)
    }

    fn given_value(&self, directive: &Directive, value: Option<u32>, old: Given) -> Given {
        let at = (!self.presetting).then_some(directive.args[0].span);
        value.map_or(old, |value| Given::new(value, at))
    }

    /// A directive of the server as a whole; `false` if it is none.
    fn in_server(&mut self, key: Key, directive: &Directive) -> bool {
        if self.in_sizing(key, directive) {
            return true;
        }
        macro_rules! set {
            ($field:ident, $read:expr) => {
                if let Some(value) = self.value(directive, $read) {
                    self.server.$field = value;
                }
            };
        }
        let word = &directive.args[0];
        match key {
            Key::Listen => self.listen(directive),
            Key::StatusListen => self.status_listen(directive),
            Key::ListenBacklog => set!(listen_backlog, |word| {
                // listen(2) takes a C int.
                values::number_within(word, 1, 0x7fff_ffff)
                    .map(|value| u32::try_from(value).unwrap_or(u32::MAX))
            }),
            Key::SendBufferSize => set!(send_buffer, buffer_size),
            Key::ReceiveBufferSize => set!(receive_buffer, buffer_size),
            Key::CoreDumpDirectory => {
                let path = self.root.join(&word.text);
                if self.files.kind(&path) != Some(FileKind::Directory) {
                    let message = format!("there is no directory {}", quoted(&path.display().to_string()));
                    self.report.fault(word.span, message);
                }
                self.report
                    .note(directive.name.span, "children of root leave a core only if the system lets them")
                    .hint("sysctl fs.suid_dumpable decides, since they have changed their user");
                self.server.core_dump_directory = Some(path);
            }
            Key::DefaultRuntimeDir => self.server.runtime_dir = Some(self.root.join(&word.text)),
            Key::PidFile => self.server.pid_file = self.file_choice(word),
            Key::ScoreBoardFile => {
                self.server.scoreboard_file = self.file_choice(word);
                self.server.scoreboard_at = Some(word.span);
            }
            Key::User => set!(user, |word| values::identity(word).map(Some)),
            Key::Group => set!(group, |word| values::identity(word).map(Some)),
            Key::GracefulShutdownTimeout => set!(graceful_shutdown_timeout, values::duration),
            Key::GracefulReloadTimeout => set!(graceful_reload_timeout, values::duration),
            Key::ChildStallTimeout => set!(child_stall_timeout, values::wait),
            Key::ExtendedStatus => set!(extended_status, values::on_off),
            Key::HandOver => set!(hand_over, values::on_off),
            Key::SeeRequestTail => set!(see_request_tail, values::on_off),
            Key::ServerTokens => set!(server_tokens, |word| values::server_tokens(word).map(Some)),
            Key::EnableExceptionHook => {
                if self.value(directive, values::on_off) == Some(true) {
                    self.report
                        .fault(word.span, "there are no modules that could hook into a crash")
                        .hint("CoreDumpDirectory, and the error log's account of what a dead child held, serve instead");
                }
            }
            Key::ServerRoot => {
                if self.files.kind(&self.root) != Some(FileKind::Directory) {
                    self.report.fault(word.span, format!("there is no directory {}", quoted(&word.text)));
                }
            }
            Key::Mpm => {
                self.value(directive, values::mpm);
            }
            Key::LoadModule => self.load_module(word),
            _ => return false,
        }
        true
    }

    fn in_sizing(&mut self, key: Key, directive: &Directive) -> bool {
        macro_rules! given {
            ($field:ident) => {
                self.sizing.$field = self.given(directive, self.sizing.$field)
            };
        }
        match key {
            Key::StartServers => given!(start),
            Key::ServerLimit => given!(server_limit),
            Key::ThreadLimit => given!(thread_limit),
            Key::ThreadsPerChild => given!(threads_per_child),
            Key::MaxRequestWorkers => given!(max_request_workers),
            Key::MinSpareThreads | Key::MinSpareServers => given!(min_spare),
            Key::MaxSpareThreads | Key::MaxSpareServers => given!(max_spare),
            Key::MaxConnectionsPerChild => {
                self.sizing.max_connections_per_child =
                    self.value(directive, values::number).unwrap_or_default();
            }
            Key::MaxRequestsPerChild => {
                let most = self.value(directive, values::number).unwrap_or_default();
                self.sizing.max_requests_per_child = most;
                if most > 0 {
                    self.report
                        .note(
                            directive.name.span,
                            "this counts requests here, where httpd counts connections",
                        )
                        .hint("MaxConnectionsPerChild counts connections; of both, the first reached counts");
                }
            }
            Key::MaxConnectionsPerProcess => given!(max_connections_per_process),
            Key::ThreadStackSize => {
                let size = self.value(directive, |word| match values::size(word)? {
                    size @ 0..=0x4000_0000 => Ok(u32::try_from(size).unwrap_or(u32::MAX)),
                    _ => Err(values::number_within("1073741825", 0, 0x4000_0000).expect_err("it is above")),
                });
                self.sizing.thread_stack_size =
                    self.given_value(directive, size, self.sizing.thread_stack_size);
            }
            _ => return false,
        }
        true
    }

    fn file_choice(&mut self, word: &Word) -> Option<FileChoice> {
        if word.text.is_empty() {
            self.report.fault(word.span, "the name of a file is empty");
            return None;
        }
        Some(if word.is("none") { FileChoice::Nowhere } else { FileChoice::At(word.text.clone()) })
    }

    fn load_module(&mut self, word: &Word) {
        let name = &word.text;
        if modules::mpm(name).is_some() || modules::is_built_in(name) {
            return;
        }
        if let Some(feature) = modules::feature(name) {
            self.report
                .fault(word.span, format!("{feature}: not built in yet ({name})"))
                .kind("a module that is not built in");
            return;
        }
        let item = self.report.fault(word.span, format!("there is no module {} in Ostler", quoted(name)));
        match super::diagnostic::nearest(name, modules::names()) {
            Some(near) => item.hint(format!("did you mean {near}?")),
            None => item.hint("modules are parts of the program; none can be loaded"),
        };
    }

    /// Lets hosts inherit, and puts everything in its place.
    fn finish(mut self, mut main: HostDraft) -> Config {
        let limits = self.sizing.settle(self.mpm, self.report);
        if !self.listens {
            self.report
                .fault_of_all("there is no Listen line, so nobody could connect")
                .hint("write Listen 80, or Listen 127.0.0.1:8080");
        }
        // Among faults, this would most likely only be their consequence.
        if !self.report.has_faults() && !main.answers() && !self.hosts.iter().any(HostDraft::answers) {
            self.report
                .warning_of_all("no ProxyPass leads anywhere, so every request will earn 404")
                .hint("write ProxyPass / http://127.0.0.1:3000/");
        }
        let hostname =
            self.options.hostname.clone().unwrap_or_else(|| "localhost".to_owned()).to_ascii_lowercase();
        let mut backends = Backends::default();
        let mut drafts = std::mem::take(&mut self.hosts);
        self.unreachable_hosts(&drafts);

        if main.error_log.is_none() {
            main.error_log = Some(self.target(LogTarget::Stderr));
        }
        let main_host = main.settle(None, &mut [], &hostname, &mut backends, &mut self, None);
        let mut main_sets = std::mem::take(&mut main.sets);
        let mut hosts: Vec<VirtualHost> = vec![main_host];
        for draft in &mut drafts {
            let host =
                draft.settle(hosts.first(), &mut main_sets, &hostname, &mut backends, &mut self, Some(&main));
            hosts.push(host);
        }
        let sets = main_sets.iter().chain(drafts.iter().flat_map(|draft| &draft.sets));
        for set in sets.filter(|set| !set.used && set.url.is_some()) {
            self.report.warning(set.span, "no ProxyPass leads to this url, so nothing follows from this");
        }
        let error_log = hosts[0].error_log;
        let server = self.server;
        let run_dir = server
            .runtime_dir
            .clone()
            .or_else(|| Some(self.options.run_dir.clone()).filter(|dir| !dir.as_os_str().is_empty()));
        let base = server.runtime_dir.as_ref().unwrap_or(&self.root);
        let place = |choice: &Option<FileChoice>, name: &str| match choice {
            Some(FileChoice::Nowhere) => None,
            Some(FileChoice::At(path)) => Some(base.join(path)),
            // Components leave out the dot of "here, wherever ServerRoot is".
            None => {
                run_dir.as_ref().map(|dir| self.root.join(dir).components().collect::<PathBuf>().join(name))
            }
        };
        let pid_file = place(&server.pid_file, "ostler.pid");
        let scoreboard_file = place(&server.scoreboard_file, "ostler.scoreboard");
        if let (Some(path), Some(at)) = (&scoreboard_file, server.scoreboard_at) {
            let is_log = |target: &LogTarget| matches!(target, LogTarget::File(log) if log == path);
            let other = if pid_file.as_ref() == Some(path) {
                Some("the PidFile")
            } else {
                self.targets.iter().any(is_log).then_some("a log")
            };
            if let Some(other) = other {
                self.report
                    .fault(at, format!("this is {other}, too, which would lose its name"))
                    .hint("give the scoreboard a file of its own");
            }
        }
        let status_listen: Vec<StatusListen> = server
            .status
            .iter()
            .map(|(wish, at)| self::listening::settle(wish, *at, base, self.report))
            .collect();
        for (place, (listen, (_, at))) in status_listen.iter().zip(&server.status).enumerate() {
            let StatusListen::Unix(path) = listen else { continue };
            let is_log = |target: &LogTarget| matches!(target, LogTarget::File(log) if log == path);
            let other = match () {
                () if pid_file.as_ref() == Some(path) => "the PidFile",
                () if scoreboard_file.as_ref() == Some(path) => "the ScoreBoardFile",
                () if self.targets.iter().any(is_log) => "a log",
                () if status_listen[..place].contains(listen) => "another StatusListen",
                () => continue,
            };
            let message = format!("this is {other}, too; a socket needs a name of its own");
            self.report.fault(*at, message);
        }
        let forever = |time: Duration| Some(time).filter(|time| !time.is_zero());
        Config {
            mpm: self.mpm,
            limits,
            pid_file,
            scoreboard_file,
            server_root: self.root,
            user: server.user,
            group: server.group,
            listen: server.listen.into_iter().map(|(listen, _)| listen).collect(),
            status_listen,
            listen_backlog: server.listen_backlog,
            send_buffer: server.send_buffer,
            receive_buffer: server.receive_buffer,
            core_dump_directory: server.core_dump_directory,
            error_log,
            log_targets: self.targets,
            graceful_shutdown_timeout: forever(server.graceful_shutdown_timeout),
            graceful_reload_timeout: forever(server.graceful_reload_timeout),
            child_stall_timeout: server.child_stall_timeout,
            extended_status: server.extended_status,
            hand_over: server.hand_over,
            see_request_tail: server.see_request_tail,
            server_tokens: server.server_tokens.expect("the table presets it"),
            hosts,
            backends: backends.into_list(),
        }
    }

    /// Hosts that no request can reach: at a port where nobody listens, or behind one of the same name.
    fn unreachable_hosts(&mut self, drafts: &[HostDraft]) {
        let ports: Vec<u16> = self.server.listen.iter().map(|(listen, _)| listen.address.port()).collect();
        // Port 0 is any port the kernel likes.
        let any = ports.is_empty() || ports.contains(&0);
        let mut seen = HashSet::new();
        for draft in drafts {
            let Some(span) = draft.at else { continue };
            let deaf = |port: Option<u16>| port.is_some_and(|port| !ports.contains(&port));
            if !any && !draft.addresses.is_empty() && draft.addresses.iter().all(|address| deaf(address.port))
            {
                let port = draft.addresses[0].port.unwrap_or_default();
                self.report
                    .warning(span, format!("nobody comes to this host: there is no Listen for port {port}"))
                    .hint(format!("write Listen {port}"));
            }
            if let Some((name, _)) = &draft.name {
                let addresses: Vec<_> =
                    draft.addresses.iter().map(|address| (address.ip, address.port)).collect();
                if !seen.insert((addresses, name)) {
                    self.report
                        .warning(span, format!("an earlier host has the same addresses and the name {name}"))
                        .hint("requests for it go there; join the two, or give this one another name");
                }
            }
        }
    }
}

/// A socket buffer: 0 leaves it to the system; below 512 bytes httpd refuses, and so do we.
fn buffer_size(word: &str) -> Result<Option<u32>, ValueError> {
    match values::size(word)? {
        0 => Ok(None),
        size if size < 512 => Err(values::number_within(word, 512, u64::MAX).expect_err("it is below 512")),
        // setsockopt takes a C int, and the kernel doubles it.
        _ => values::number_within(word, 512, 0x3fff_ffff).map(|size| u32::try_from(size).ok()),
    }
}
