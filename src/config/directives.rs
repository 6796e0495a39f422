//! The table: every directive and section with its names, places, words, default, one line of explanation,
//! and what becomes of it.
//!
//! The parser, the checks, the defaults, `-L` and the manual page all follow it; nothing about a directive is
//! said twice.

use super::diagnostic::nearest;
use super::model::Mpm;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Where a directive may stand: a set of the four places.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Contexts(u8);

impl Contexts {
    /// Outside of all sections.
    pub const SERVER: Self = Self(1);
    /// In `<VirtualHost>`.
    pub const HOST: Self = Self(2);
    /// In `<Location>` and `<LocationMatch>`.
    pub const LOCATION: Self = Self(4);
    /// In `<Proxy>`.
    pub const PROXY: Self = Self(8);

    const SERVER_AND_HOST: Self = Self(3);
    const ALL_BUT_PROXY: Self = Self(7);
    const ANYWHERE: Self = Self(15);

    /// Each single place with what it is called in `-L` and in messages.
    const NAMES: [(Self, &'static str, &'static str); 4] = [
        (Self::SERVER, "server", "outside of all sections"),
        (Self::HOST, "virtual host", "in <VirtualHost>"),
        (Self::LOCATION, "location", "in <Location>"),
        (Self::PROXY, "proxy", "in <Proxy>"),
    ];

    /// Whether all places of `other` are among these.
    #[must_use]
    pub fn contain(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The places as `-L` lists them: `server, virtual host`.
    #[must_use]
    pub fn listed(self) -> String {
        self.join(", ", |name| name.1)
    }

    /// The places in a sentence: `outside of all sections or in <Location>`.
    #[must_use]
    pub fn told(self) -> String {
        self.join(" or ", |name| name.2)
    }

    fn join(
        self,
        between: &str,
        word: impl Fn(&(Self, &'static str, &'static str)) -> &'static str,
    ) -> String {
        Self::NAMES.iter().filter(|name| self.contain(name.0)).map(word).collect::<Vec<_>>().join(between)
    }
}

/// Which drivers know a directive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drivers {
    /// All three.
    All,
    /// Event only.
    Event,
    /// Event and worker.
    Threaded,
    /// Prefork only.
    Prefork,
}

impl Drivers {
    /// Whether `mpm` is one of them.
    #[must_use]
    pub fn know(self, mpm: Mpm) -> bool {
        match self {
            Self::All => true,
            Self::Event => mpm == Mpm::Event,
            Self::Threaded => mpm != Mpm::Prefork,
            Self::Prefork => mpm == Mpm::Prefork,
        }
    }

    /// Their names, as in a sentence.
    #[must_use]
    pub fn told(self) -> &'static str {
        match self {
            Self::All => "every MPM",
            Self::Event => "event",
            Self::Threaded => "event and worker",
            Self::Prefork => "prefork",
        }
    }
}

/// What holds where a file says nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Preset {
    /// These words, read like those of a file.
    Words(&'static str),
    /// These words under event, worker and prefork.
    PerMpm(&'static str, &'static str, &'static str),
    /// What the sentence says.
    Told(&'static str),
}

impl Preset {
    /// The words to be read under `mpm`, if it is words.
    #[must_use]
    pub fn words(self, mpm: Mpm) -> Option<&'static str> {
        match (self, mpm) {
            (Self::Words(words), _)
            | (Self::PerMpm(words, _, _), Mpm::Event)
            | (Self::PerMpm(_, words, _), Mpm::Worker)
            | (Self::PerMpm(_, _, words), Mpm::Prefork) => Some(words),
            (Self::Told(_), _) => None,
        }
    }

    /// As `-L` and the manual show it.
    #[must_use]
    pub fn shown(self) -> String {
        match self {
            Self::Words(words) | Self::Told(words) => words.to_owned(),
            Self::PerMpm(event, worker, prefork) if event == worker => format!("{event} (prefork {prefork})"),
            Self::PerMpm(event, worker, prefork) => format!("{event} (worker {worker}, prefork {prefork})"),
        }
    }
}

/// What becomes of a directive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Treatment {
    /// Done.
    Honoured,
    /// Taken without effect, with a note: `has no meaning here: ` and this.
    Idle(&'static str),
    /// A fault, with this sentence.
    Refused(&'static str),
}

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A directive or section of the table, to be matched on.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[allow(missing_docs, reason = "each is the directive of the same name; the table explains it")]
        pub enum Key { $($(#[$doc])* $name),* }
    };
}

keys! {
    ChildStallTimeout, CoreDumpDirectory, CustomLog, DefaultRuntimeDir, Define, EnableExceptionHook, Error,
    ErrorLog, ExtendedStatus, GracefulReloadTimeout, GracefulShutdownTimeout, Group, HandOver, IfDefine,
    IfDirective, IfFile, IfModule, IfSection, IfVersion, Include, IncludeOptional, KeepAlive, KeepAliveTimeout,
    LimitRequestBody, LimitRequestFieldSize, LimitRequestFields, LimitRequestLine, Listen, ListenBacklog,
    LoadModule, Location, LocationMatch, LogFormat, LogLevel, MaxConnectionsPerChild,
    MaxConnectionsPerProcess, MaxKeepAliveRequests, MaxRequestWorkers, MaxRequestsPerChild, MaxSpareServers,
    MaxSpareThreads, MinSpareServers, MinSpareThreads, Mpm, PidFile, Proxy, ProxyAddHeaders, ProxyPass,
    ProxyPassReverse, ProxyPreserveHost, ProxyRequests, ProxySet, ProxyTimeout, ProxyVia, ReceiveBufferSize,
    RequestReadTimeout, Require, ScoreBoardFile, SeeRequestTail, SendBufferSize, ServerAlias, ServerLimit,
    ServerName, ServerRoot, ServerTokens, SetHandler, StartServers, StatusListen, ThreadLimit, ThreadStackSize,
    ThreadsPerChild, Timeout, TransferLog, UnDefine, User, VirtualHost,
    /// Not honoured; the table's treatment says all.
    NotHonoured,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Today's name.
    pub name: &'static str,
    /// What the checks match on.
    pub key: Key,
    /// Whether it is a section (`<Name>`).
    pub section: bool,
    /// Where it may stand.
    pub contexts: Contexts,
    /// Which drivers know it.
    pub drivers: Drivers,
    /// What follows the name.
    pub usage: &'static str,
    /// The least and the most words that may follow.
    pub words: (usize, usize),
    /// What holds without it.
    pub preset: Preset,
    /// One line.
    pub doc: &'static str,
    /// What becomes of it.
    pub treatment: Treatment,
    /// Names of former days, taken with a warning.
    pub old: &'static [&'static str],
    /// Wrong names that are met in the field, taken with a warning.
    pub misspelt: &'static [&'static str],
}

const MANY: usize = usize::MAX;

const fn directive(
    name: &'static str,
    key: Key,
    contexts: Contexts,
    words: (usize, usize),
    usage: &'static str,
    doc: &'static str,
) -> Entry {
    Entry {
        name,
        key,
        section: false,
        contexts,
        drivers: Drivers::All,
        usage,
        words,
        preset: Preset::Told("none"),
        doc,
        treatment: Treatment::Honoured,
        old: &[],
        misspelt: &[],
    }
}

const fn section(
    name: &'static str,
    key: Key,
    contexts: Contexts,
    words: (usize, usize),
    usage: &'static str,
    doc: &'static str,
) -> Entry {
    Entry { section: true, ..directive(name, key, contexts, words, usage, doc) }
}

/// Taken without effect.
const fn idle(name: &'static str, usage: &'static str, doc: &'static str, why: &'static str) -> Entry {
    Entry {
        treatment: Treatment::Idle(why),
        ..directive(name, Key::NotHonoured, Contexts::SERVER, (1, MANY), usage, doc)
    }
}

/// Known by name and refused.
const fn refused(
    name: &'static str,
    contexts: Contexts,
    usage: &'static str,
    doc: &'static str,
    why: &'static str,
) -> Entry {
    Entry {
        treatment: Treatment::Refused(why),
        ..directive(name, Key::NotHonoured, contexts, (0, MANY), usage, doc)
    }
}

impl Entry {
    const fn preset(self, words: &'static str) -> Self {
        Self { preset: Preset::Words(words), ..self }
    }

    const fn per_mpm(self, event: &'static str, worker: &'static str, prefork: &'static str) -> Self {
        Self { preset: Preset::PerMpm(event, worker, prefork), ..self }
    }

    const fn told(self, sentence: &'static str) -> Self {
        Self { preset: Preset::Told(sentence), ..self }
    }

    const fn only(self, drivers: Drivers) -> Self {
        Self { drivers, ..self }
    }

    const fn within(self, contexts: Contexts) -> Self {
        Self { contexts, ..self }
    }

    const fn once(self, old: &'static [&'static str]) -> Self {
        Self { old, ..self }
    }

    const fn mistaken(self, misspelt: &'static [&'static str]) -> Self {
        Self { misspelt, ..self }
    }

    /// `Listen [address:]port [http]`, or `<Location [~] path>`.
    #[must_use]
    pub fn synopsis(&self) -> String {
        if self.section {
            format!("<{} {}>", self.name, self.usage)
        } else {
            format!("{} {}", self.name, self.usage)
        }
    }

    /// The name as a message shows it: `Listen`, `<Location>`.
    #[must_use]
    pub fn shown(&self) -> String {
        if self.section { format!("<{}>", self.name) } else { self.name.to_owned() }
    }
}

/// How a name relates to its entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spelling {
    /// Today's.
    Current,
    /// Of former days.
    Old,
    /// Wrong, but known from the field.
    Misspelt,
}

static INDEX: LazyLock<HashMap<String, (&'static Entry, Spelling)>> = LazyLock::new(|| {
    let mut index = HashMap::new();
    let keep_case = |entry: &Entry, name: &str| -> String {
        let name = name.to_ascii_lowercase();
        if entry.section { format!("<{name}") } else { name }
    };
    for entry in TABLE {
        index.insert(keep_case(entry, entry.name), (entry, Spelling::Current));
        for name in entry.old {
            index.insert(keep_case(entry, name), (entry, Spelling::Old));
        }
        for name in entry.misspelt {
            index.insert(keep_case(entry, name), (entry, Spelling::Misspelt));
        }
    }
    index
});

/// The directive of a name, capitals or not.
#[must_use]
pub fn find(name: &str) -> Option<(&'static Entry, Spelling)> {
    INDEX.get(&name.to_ascii_lowercase()).copied()
}

/// The section of a name, capitals or not.
#[must_use]
pub fn find_section(name: &str) -> Option<(&'static Entry, Spelling)> {
    INDEX.get(&format!("<{}", name.to_ascii_lowercase())).copied()
}

/// The directive (or section) that a wrong name was most likely meant to be: the name that is near, and what it
/// is called today.
#[must_use]
pub fn suggestion(name: &str, section: bool) -> Option<(&'static str, &'static str)> {
    let entries = TABLE.iter().filter(|entry| entry.section == section);
    let names = entries.flat_map(|entry| std::iter::once(&entry.name).chain(entry.old).chain(entry.misspelt));
    let near = nearest(name, names.copied())?;
    let (entry, _) = if section { find_section(near) } else { find(near) }?;
    Some((near, entry.name))
}

const SERVER: Contexts = Contexts::SERVER;
const BOTH: Contexts = Contexts::SERVER_AND_HOST;
const WITH_LOCATION: Contexts = Contexts::ALL_BUT_PROXY;
const ANYWHERE: Contexts = Contexts::ANYWHERE;

/// All of it, by name.
#[rustfmt::skip]
pub static TABLE: &[Entry] = &[
    idle("AcceptFilter", "protocol filter", "what the kernel waits for before it hands a connection over",
        "a child takes a connection at once and waits for its first bytes itself; RequestReadTimeout serves instead")
        .told("no filter"),
    idle("AsyncRequestWorkerFactor", "factor", "idle connections allowed per idle worker",
        "an idle connection holds no worker; MaxConnectionsPerProcess serves instead")
        .only(Drivers::Event).told("no factor"),
    directive("ChildStallTimeout", Key::ChildStallTimeout, SERVER, (1, 1), "seconds",
        "a child that does not answer the master, or is stuck, for so long is replaced")
        .preset("30"),
    directive("CoreDumpDirectory", Key::CoreDumpDirectory, SERVER, (1, 1), "directory",
        "where a child that crashes leaves its core")
        .told("the working directory"),
    directive("CustomLog", Key::CustomLog, BOTH, (2, 3), "file|\"|program\" format|nickname",
        "one line for each request"),
    directive("DefaultRuntimeDir", Key::DefaultRuntimeDir, SERVER, (1, 1), "directory",
        "where PidFile and ScoreBoardFile are, unless they are absolute")
        .told("/run/ostler; without root $XDG_RUNTIME_DIR/ostler, or ServerRoot"),
    directive("Define", Key::Define, ANYWHERE, (1, 2), "name [value]",
        "sets a variable for ${name} and <IfDefine name>; lines below see it"),
    directive("EnableExceptionHook", Key::EnableExceptionHook, SERVER, (1, 1), "Off",
        "hooks of modules at a crash; there are none, so only Off is taken")
        .preset("Off"),
    directive("Error", Key::Error, ANYWHERE, (1, MANY), "message",
        "a fault with this message, for files that check their own conditions"),
    directive("ErrorLog", Key::ErrorLog, BOTH, (1, 1), "file|\"|program\"",
        "where errors are told; /dev/stderr is the standard error stream")
        .told("/dev/stderr"),
    directive("ExtendedStatus", Key::ExtendedStatus, SERVER, (1, 1), "On|Off",
        "whether the scoreboard shows each worker's client, request, times and bytes")
        .preset("On"),
    directive("GracefulReloadTimeout", Key::GracefulReloadTimeout, SERVER, (1, 1), "seconds",
        "how long children of an old generation may finish their requests; 0 for ever")
        .preset("60"),
    directive("GracefulShutdownTimeout", Key::GracefulShutdownTimeout, SERVER, (1, 1), "seconds",
        "how long a graceful stop waits for requests under way; 0 for ever")
        .preset("30"),
    directive("Group", Key::Group, SERVER, (1, 1), "name|#number",
        "the group that children run as, if the master is root")
        .told("the first group of User"),
    directive("HandOver", Key::HandOver, SERVER, (1, 1), "On|Off",
        "whether idle connections move from leaving, full or crowded children to others (event)")
        .preset("On"),
    idle("HostnameLookups", "On|Off|Double", "asking DNS for the names of clients",
        "a log never waits for DNS; the log's reader can ask")
        .within(WITH_LOCATION).told("Off"),
    section("IfDefine", Key::IfDefine, ANYWHERE, (1, 1), "[!]name",
        "lines that count only if the name was given with -D or Define"),
    section("IfDirective", Key::IfDirective, ANYWHERE, (1, 1), "[!]name",
        "lines that count only if there is a directive of that name"),
    section("IfFile", Key::IfFile, ANYWHERE, (1, 1), "[!]file",
        "lines that count only if there is such a file"),
    section("IfModule", Key::IfModule, ANYWHERE, (1, 1), "[!]module",
        "lines that count only if the module is built in; of the MPMs, only the chosen one is"),
    section("IfSection", Key::IfSection, ANYWHERE, (1, 1), "[!]name",
        "lines that count only if there is a section of that name"),
    section("IfVersion", Key::IfVersion, ANYWHERE, (1, 2), "[[!]operator] version",
        "lines that count only for some versions of httpd; what is read here is the language of 2.4.68"),
    directive("Include", Key::Include, ANYWHERE, (1, 1), "file|directory|pattern",
        "reads other files here; it is a fault if there are none"),
    directive("IncludeOptional", Key::IncludeOptional, ANYWHERE, (1, 1), "file|directory|pattern",
        "reads other files here, if there are any"),
    directive("KeepAlive", Key::KeepAlive, BOTH, (1, 1), "On|Off",
        "whether a client's connection may carry several requests")
        .preset("On"),
    directive("KeepAliveTimeout", Key::KeepAliveTimeout, BOTH, (1, 1), "seconds|number ms",
        "how long a client's connection may be idle between requests")
        .preset("5"),
    directive("LimitRequestBody", Key::LimitRequestBody, WITH_LOCATION, (1, 1), "bytes",
        "the longest request body; 0 without limit; more earns 413")
        .preset("1073741824"),
    directive("LimitRequestFields", Key::LimitRequestFields, BOTH, (1, 1), "number",
        "the most header fields of a request; 0 leaves the engine's own bound; more earns 431")
        .preset("100"),
    directive("LimitRequestFieldSize", Key::LimitRequestFieldSize, BOTH, (1, 1), "bytes",
        "the longest header field of a request; more earns 431")
        .preset("8190"),
    directive("LimitRequestLine", Key::LimitRequestLine, BOTH, (1, 1), "bytes",
        "the longest request line; more earns 414")
        .preset("8190"),
    directive("Listen", Key::Listen, SERVER, (1, 2), "[address:]port [http]",
        "an address to take connections on; at least one is needed"),
    directive("ListenBacklog", Key::ListenBacklog, SERVER, (1, 1), "number",
        "connections that may wait in the kernel; net.core.somaxconn is its bound")
        .preset("511"),
    idle("ListenCoresBucketsRatio", "ratio", "several sockets for each address",
        "all children share one socket for each address and are woken one at a time")
        .told("0"),
    idle("ListenTCPDeferAccept", "seconds", "how long the kernel waits for a connection's first bytes",
        "a child takes a connection at once and waits for its first bytes itself; RequestReadTimeout serves instead")
        .told("not deferred"),
    directive("LoadModule", Key::LoadModule, SERVER, (1, 2), "module [file]",
        "names a part that must be there; nothing is loaded; an MPM's module chooses the MPM"),
    section("Location", Key::Location, BOTH, (1, 2), "[~] path",
        "settings for requests whose path begins so, or matches a shell pattern"),
    section("LocationMatch", Key::LocationMatch, BOTH, (1, 1), "regex",
        "settings for requests whose path the regular expression finds itself in"),
    directive("LogFormat", Key::LogFormat, BOTH, (1, 2), "format [nickname]",
        "names a format for CustomLog; without a nickname, the format of TransferLog"),
    directive("LogLevel", Key::LogLevel, BOTH, (1, MANY), "[module:]level ...",
        "which errors are told: emerg alert crit error warn notice info debug trace1 to trace8")
        .preset("warn"),
    directive("MaxConnectionsPerChild", Key::MaxConnectionsPerChild, SERVER, (1, 1), "number",
        "connections after which a child is replaced; 0 never")
        .preset("0"),
    directive("MaxConnectionsPerProcess", Key::MaxConnectionsPerProcess, SERVER, (1, 1), "number",
        "client connections that one child may have open, idle ones included")
        .only(Drivers::Event).told("what the limit of open files allows"),
    directive("MaxKeepAliveRequests", Key::MaxKeepAliveRequests, BOTH, (1, 1), "number",
        "requests that one connection may carry; 0 without limit")
        .preset("100"),
    idle("MaxMemFree", "KiB", "memory that an allocator keeps for later",
        "there are no pools to trim; buffers are given back when a thread has rested for 10 s")
        .told("nothing to keep"),
    directive("MaxRequestsPerChild", Key::MaxRequestsPerChild, SERVER, (1, 1), "number",
        "requests after which a child is replaced; 0 never")
        .preset("0").mistaken(&["MaxRequestPerChild"]),
    directive("MaxRequestWorkers", Key::MaxRequestWorkers, SERVER, (1, 1), "number",
        "requests served at one time; further ones wait in the ListenBacklog")
        .per_mpm("400", "400", "256").once(&["MaxClients"]),
    directive("MaxSpareServers", Key::MaxSpareServers, SERVER, (1, 1), "number",
        "with more idle children than this, some are ended")
        .only(Drivers::Prefork).preset("10"),
    directive("MaxSpareThreads", Key::MaxSpareThreads, SERVER, (1, 1), "number",
        "with more idle threads than this, children are ended")
        .only(Drivers::Threaded).preset("250"),
    directive("MinSpareServers", Key::MinSpareServers, SERVER, (1, 1), "number",
        "with fewer idle children than this, more are made")
        .only(Drivers::Prefork).preset("5"),
    directive("MinSpareThreads", Key::MinSpareThreads, SERVER, (1, 1), "number",
        "with fewer idle threads than this, more children are made")
        .only(Drivers::Threaded).preset("75"),
    directive("MPM", Key::Mpm, SERVER, (1, 1), "event|worker|prefork",
        "the process model: who waits for whom")
        .told("event, or the only one that an <IfModule> names"),
    idle("Mutex", "mechanism [name]", "locks between children",
        "children share no lock; the kernel wakes one for each connection")
        .once(&["AcceptMutex", "LockFile"]).told("no lock"),
    idle("NameVirtualHost", "address[:port]", "addresses with several hosts",
        "hosts at the same address are always told apart by name")
        .told("every address"),
    directive("PidFile", Key::PidFile, SERVER, (1, 1), "file|none",
        "where the master's process id is written")
        .told("ostler.pid in DefaultRuntimeDir"),
    section("Proxy", Key::Proxy, BOTH, (1, 1), "url|*",
        "holds ProxySet for the backends whose url begins so"),
    directive("ProxyAddHeaders", Key::ProxyAddHeaders, WITH_LOCATION, (1, 1), "On|Off",
        "whether backends get X-Forwarded-For, X-Forwarded-Host and X-Forwarded-Server")
        .preset("On"),
    directive("ProxyPass", Key::ProxyPass, WITH_LOCATION, (1, MANY), "[path] url|! [parameter=value ...] [nocanon] [noquery]",
        "hands requests below a path to a backend; the first that matches wins; in <Location> without path"),
    directive("ProxyPassReverse", Key::ProxyPassReverse, WITH_LOCATION, (1, 2), "[path] url",
        "puts our path in the place of the backend's url in Location and its like"),
    directive("ProxyPreserveHost", Key::ProxyPreserveHost, WITH_LOCATION, (1, 1), "On|Off",
        "whether a backend gets the client's Host instead of its own name")
        .preset("Off"),
    directive("ProxyRequests", Key::ProxyRequests, BOTH, (1, 1), "Off",
        "forward proxying; Ostler is a reverse proxy, so only Off is taken")
        .preset("Off"),
    directive("ProxySet", Key::ProxySet, Contexts(SERVER.0 | Contexts::HOST.0 | Contexts::PROXY.0), (1, MANY), "[url] parameter=value ...",
        "parameters for the backends whose url begins so; in <Proxy> without url"),
    idle("ProxyStatus", "Off|On|Full", "backends on the status page",
        "the status page always shows them")
        .within(BOTH),
    directive("ProxyTimeout", Key::ProxyTimeout, BOTH, (1, 1), "seconds|number ms",
        "each wait for a backend that has no timeout of its own")
        .told("as Timeout"),
    directive("ProxyVia", Key::ProxyVia, BOTH, (1, 1), "On|Off|Full|Block",
        "what becomes of the Via field")
        .preset("Off"),
    directive("ReceiveBufferSize", Key::ReceiveBufferSize, SERVER, (1, 1), "bytes",
        "the kernel's receive buffer of a client's connection; 0 leaves it to the system")
        .preset("0"),
    directive("RequestReadTimeout", Key::RequestReadTimeout, BOTH, (1, 3), "[header=time[-most][,MinRate=bytes]] [body=...]",
        "how long a request may take to arrive; more earns 408")
        .preset("header=20-40,MinRate=500 body=20,MinRate=500"),
    directive("Require", Key::Require, Contexts(Contexts::LOCATION.0 | Contexts::PROXY.0), (1, MANY), "all granted|all denied|local|ip network ...",
        "who may ask for this location; of several lines, any will do")
        .told("all granted"),
    refused("Sandbox", SERVER, "On|Off", "confines children to what they need",
        "confining children is not built yet")
        .told("Off"),
    directive("ScoreBoardFile", Key::ScoreBoardFile, SERVER, (1, 1), "file|none",
        "the shared memory that shows what each worker does")
        .told("ostler.scoreboard in DefaultRuntimeDir"),
    directive("SeeRequestTail", Key::SeeRequestTail, SERVER, (1, 1), "On|Off",
        "whether the scoreboard keeps the end of a long request line instead of its beginning")
        .preset("Off"),
    directive("SendBufferSize", Key::SendBufferSize, SERVER, (1, 1), "bytes",
        "the kernel's send buffer of a client's connection; 0 leaves it to the system")
        .preset("0"),
    idle("ServerAdmin", "address", "whom error pages name",
        "error pages name nobody")
        .within(BOTH).told("nobody"),
    directive("ServerAlias", Key::ServerAlias, Contexts::HOST, (1, MANY), "name ...",
        "further names of a virtual host; * and ? stand for any letters"),
    directive("ServerLimit", Key::ServerLimit, SERVER, (1, 1), "number",
        "the most children that the scoreboard has room for")
        .per_mpm("16", "16", "256"),
    directive("ServerName", Key::ServerName, BOTH, (1, 1), "name[:port]",
        "the name that a host goes by, in our own links and for choosing among virtual hosts")
        .told("the machine's name"),
    directive("ServerRoot", Key::ServerRoot, SERVER, (1, 1), "directory",
        "what paths in the configuration start from")
        .told("the directory of the configuration file"),
    idle("ServerSignature", "On|Off|EMail", "a line below error pages",
        "error pages carry no signature")
        .within(WITH_LOCATION).told("Off"),
    directive("ServerTokens", Key::ServerTokens, SERVER, (1, 1), "Full|OS|Minimal|Minor|Major|Prod",
        "how much our own answers tell about us in the Server field")
        .preset("Full"),
    directive("SetHandler", Key::SetHandler, Contexts::LOCATION, (1, 1), "server-status|metrics",
        "what answers instead of a backend"),
    directive("StartServers", Key::StartServers, SERVER, (1, 1), "number",
        "children made at start; load decides after that")
        .per_mpm("3", "3", "5"),
    directive("StatusListen", Key::StatusListen, SERVER, (1, 1), "[address:]port|unix:path",
        "a socket of its own for the status, answered when every worker is busy; a port alone is on 127.0.0.1"),
    directive("ThreadLimit", Key::ThreadLimit, SERVER, (1, 1), "number",
        "the most threads of a child that the scoreboard has room for")
        .only(Drivers::Threaded).preset("64"),
    directive("ThreadsPerChild", Key::ThreadsPerChild, SERVER, (1, 1), "number",
        "the threads of each child, which is the requests it serves at one time")
        .only(Drivers::Threaded).preset("25").mistaken(&["ThreadPerChild"]),
    directive("ThreadStackSize", Key::ThreadStackSize, SERVER, (1, 1), "bytes",
        "the stack of each thread; 0 leaves it to the system")
        .only(Drivers::Threaded).preset("0"),
    directive("Timeout", Key::Timeout, BOTH, (1, 1), "seconds|number ms",
        "each wait for a client while a request or its answer is under way")
        .preset("60"),
    idle("TraceEnable", "Off|On|extended", "answering TRACE",
        "TRACE is always refused, with 405")
        .within(BOTH).told("Off"),
    directive("TransferLog", Key::TransferLog, BOTH, (1, 1), "file|\"|program\"",
        "one line for each request, in the format of the last LogFormat without a nickname, or common"),
    directive("UnDefine", Key::UnDefine, ANYWHERE, (1, 1), "name",
        "takes a Define back for the lines below"),
    idle("UseCanonicalName", "On|Off|DNS", "which name our own links use",
        "our own links use what the client called us, else ServerName")
        .within(WITH_LOCATION).told("Off"),
    directive("User", Key::User, SERVER, (1, 1), "name|#number",
        "the user that children run as, if the master is root")
        .told("the master's"),
    section("VirtualHost", Key::VirtualHost, SERVER, (1, MANY), "address[:port] ...",
        "a host of its own at some of our addresses; what it does not set comes from outside"),
];
