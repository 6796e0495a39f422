//! Levels, modules, and the error-log line as httpd 2.4 writes it.
//!
//! Time, process and thread come in as arguments; `sink` asks for them.

use super::stamp::push_error_stamp;
use std::fmt::Write as _;
use std::net::SocketAddr;

macro_rules! levels {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// How grave a line is, gravest first; the words of `LogLevel`.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Level { $($(#[$doc])* $name,)* }

        impl Level {
            /// All of them, gravest first.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word in the configuration and between the brackets of a line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

levels! {
    /// The daemon cannot go on.
    Emerg = "emerg",
    /// Somebody must act at once.
    Alert = "alert",
    /// A part has failed.
    Crit = "crit",
    /// Something asked for was not done.
    Error = "error",
    /// It works, but somebody should look.
    Warn = "warn",
    /// Normal, but worth knowing: starts, stops, reloads. Written whatever `LogLevel` says.
    Notice = "notice",
    /// What is going on.
    Info = "info",
    /// For those who read the source.
    Debug = "debug",
    /// Finer still, in eight steps.
    Trace1 = "trace1",
    /// Step 2.
    Trace2 = "trace2",
    /// Step 3.
    Trace3 = "trace3",
    /// Step 4.
    Trace4 = "trace4",
    /// Step 5.
    Trace5 = "trace5",
    /// Step 6.
    Trace6 = "trace6",
    /// Step 7.
    Trace7 = "trace7",
    /// Step 8.
    Trace8 = "trace8",
}

impl Level {
    /// The level that `word` names; upper and lower case are alike.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|level| level.name().eq_ignore_ascii_case(word))
    }

    /// The level of a record: slog has six, so a tag names the others (`crit!(log, # "emerg", "…")`, the blank is
    /// needed).
    #[must_use]
    pub fn of(level: slog::Level, tag: &str) -> Self {
        let plain = match level {
            slog::Level::Critical => Self::Crit,
            slog::Level::Error => Self::Error,
            slog::Level::Warning => Self::Warn,
            slog::Level::Info => Self::Info,
            slog::Level::Debug => Self::Debug,
            slog::Level::Trace => Self::Trace1,
        };
        if tag.is_empty() { plain } else { Self::parse(tag).unwrap_or(plain) }
    }

    /// The slog level whose records may carry this one.
    #[must_use]
    pub fn carrier(self) -> slog::Level {
        match self {
            Self::Emerg | Self::Alert | Self::Crit => slog::Level::Critical,
            Self::Error => slog::Level::Error,
            Self::Warn => slog::Level::Warning,
            Self::Notice | Self::Info => slog::Level::Info,
            Self::Debug => slog::Level::Debug,
            _ => slog::Level::Trace,
        }
    }
}

/// An error as people know it: without the number that Rust puts behind the kernel's words.
#[must_use]
pub fn cause(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, rest)) if rest.ends_with(')') => words.to_owned(),
        _ => text,
    }
}

/// Logs at [`Level::Notice`](crate::log::line::Level::Notice), which slog does not have: turning points that are
/// written whatever `LogLevel` says. Used as slog's own: `notice!(log, "{} up", name; "module" => "core")`.
macro_rules! notice {
    ($log:expr, $($rest:tt)+) => {
        ::slog::log!($log, ::slog::Level::Info, "notice", $($rest)+)
    };
}
pub(crate) use notice;

macro_rules! modules {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Who speaks: the names that an administrator of httpd writes in `LogLevel info proxy:debug`.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Module { $($(#[$doc])* $name,)* }

        impl Module {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name without `mod_` or `_module`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

modules! {
    /// Connections, requests, the master where no driver is meant.
    Core = "core",
    /// The driver event, and the master under it.
    MpmEvent = "mpm_event",
    /// The driver worker, and the master under it.
    MpmWorker = "mpm_worker",
    /// The driver prefork, and the master under it.
    MpmPrefork = "mpm_prefork",
    /// Mapping, pool, back-off.
    Proxy = "proxy",
    /// One exchange with a backend.
    ProxyHttp = "proxy_http",
    /// Messages and their faults.
    Http = "http",
    /// Reading the configuration, reloads.
    Config = "config",
    /// Access logs.
    LogConfig = "log_config",
    /// The status page.
    Status = "status",
    /// `RequestReadTimeout`.
    Reqtimeout = "reqtimeout",
    /// Users, groups, rights.
    Unixd = "unixd",
    /// `Require`.
    AuthzCore = "authz_core",
    /// `Require ip` and `Require local`.
    AuthzHost = "authz_host",
}

impl Module {
    /// The module that `word` names: `proxy`, `proxy_module` or `mod_proxy.c`; upper and lower case are alike.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let word = word.strip_suffix("_module").unwrap_or(&word);
        let word = word.strip_suffix(".c").unwrap_or(word);
        let word = word.strip_prefix("mod_").unwrap_or(word);
        // httpd's own files of these names drop the prefix that its module names keep.
        let word = match word {
            "event" => "mpm_event",
            "worker" => "mpm_worker",
            "prefork" => "mpm_prefork",
            other => other,
        };
        Self::ALL.iter().copied().find(|module| module.name() == word)
    }
}

/// `LogLevel`: one level for all, and others for some modules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogLevels {
    default: Level,
    own: [Option<Level>; Module::ALL.len()],
}

impl Default for LogLevels {
    /// `LogLevel warn`, as httpd.
    fn default() -> Self {
        Self::new(Level::Warn)
    }
}

impl LogLevels {
    /// `default` for every module.
    #[must_use]
    pub const fn new(default: Level) -> Self {
        Self { default, own: [None; Module::ALL.len()] }
    }

    /// `LogLevel debug`: as in httpd, a level without a module also forgets what modules were given before.
    pub fn set_default(&mut self, level: Level) {
        *self = Self::new(level);
    }

    /// `LogLevel proxy:debug`.
    pub fn set(&mut self, module: Module, level: Level) {
        self.own[module as usize] = Some(level);
    }

    /// The level of `module`.
    #[must_use]
    pub fn get(&self, module: Module) -> Level {
        self.own[module as usize].unwrap_or(self.default)
    }

    /// The level of modules that have none of their own.
    #[must_use]
    pub fn default_level(&self) -> Level {
        self.default
    }

    /// Whether a line of `module` at `level` is written. A notice always is: httpd does not let a file suppress
    /// them, so that starts and stops are in every log.
    #[must_use]
    pub fn admits(&self, module: Module, level: Level) -> bool {
        level == Level::Notice || level <= self.get(module)
    }

    /// The most talkative level that any module has.
    #[must_use]
    pub fn finest(&self) -> Level {
        self.own.iter().flatten().copied().fold(self.default, Ord::max)
    }
}

/// What stands in the brackets before a message.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// Microseconds since 1970; shown as local time.
    pub wall_us: u64,
    /// Who speaks.
    pub module: Module,
    /// How grave it is.
    pub level: Level,
    /// The process.
    pub pid: u32,
    /// The thread, the kernel's number.
    pub tid: u32,
    /// The client it is about, in any form.
    pub client: Option<&'a str>,
}

/// Writes `[time] [module:level] [pid N:tid M] [client A:P] `; the message comes behind it.
pub fn write_heading(line: &mut String, heading: &Heading<'_>) {
    let Heading { wall_us, module, level, pid, tid, client } = *heading;
    line.push('[');
    push_error_stamp(line, wall_us);
    line.push_str("] [");
    line.push_str(module.name());
    line.push(':');
    line.push_str(level.name());
    line.push_str("] [pid ");
    line.push_str(itoa::Buffer::new().format(pid));
    line.push_str(":tid ");
    line.push_str(itoa::Buffer::new().format(tid));
    line.push_str("] ");
    if let Some(client) = client {
        line.push_str("[client ");
        push_escaped(line, client);
        line.push_str("] ");
    }
}

/// A client for the `client` pair of a record: `10.0.0.1:4711`, `[::1]:4711`; an IPv4 client that came by an
/// IPv6 socket is shown as IPv4.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub SocketAddr);

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        SocketAddr::new(self.0.ip().to_canonical(), self.0.port()).fmt(f)
    }
}

impl slog::Value for Client {
    fn serialize(
        &self,
        _: &slog::Record<'_>,
        key: slog::Key,
        serializer: &mut dyn slog::Serializer,
    ) -> slog::Result {
        serializer.emit_arguments(key, &format_args!("{self}"))
    }
}

/// Appends `text` so that it stays on its line and cannot steer a terminal: control characters and backslashes
/// are escaped as httpd does (`\n`, `\t`, `\x1b`); quotes and letters of any script stay readable.
pub fn push_escaped(line: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() || c == '\\') {
        line.push_str(&rest[..at]);
        let c = rest[at..].chars().next().expect("find gave the place of a character");
        match c {
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            '\u{8}' => line.push_str("\\b"),
            '\u{b}' => line.push_str("\\v"),
            other => {
                let mut bytes = [0; 4];
                for byte in other.encode_utf8(&mut bytes).bytes() {
                    write!(line, "\\x{byte:02x}").expect("a String takes everything");
                }
            }
        }
        rest = &rest[at + c.len_utf8()..];
    }
    line.push_str(rest);
}

/// A `fmt::Write` that escapes as [`push_escaped`] does, so that a message needs no String of its own.
pub(super) struct Escaping<'a>(pub &'a mut String);

impl std::fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        push_escaped(self.0, text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_by_name_and_ordered_by_gravity() {
        for level in Level::ALL {
            assert_eq!(Level::parse(level.name()), Some(*level));
            assert_eq!(Level::parse(&level.name().to_uppercase()), Some(*level));
        }
        assert_eq!(Level::ALL.len(), 16);
        assert!(Level::Emerg < Level::Warn && Level::Warn < Level::Trace8);
        for word in ["", "warning", "trace", "trace9", "warn "] {
            assert_eq!(Level::parse(word), None, "{word:?}");
        }
    }

    #[test]
    fn modules_are_known_under_all_their_spellings() {
        for (word, want) in [
            ("proxy", Some(Module::Proxy)),
            ("proxy_module", Some(Module::Proxy)),
            ("mod_proxy.c", Some(Module::Proxy)),
            ("MPM_Event_Module", Some(Module::MpmEvent)),
            ("event.c", Some(Module::MpmEvent)),
            ("reqtimeout", Some(Module::Reqtimeout)),
            ("mod_status", Some(Module::Status)),
            ("ssl", None),
            ("", None),
            ("_module", None),
        ] {
            assert_eq!(Module::parse(word), want, "{word:?}");
        }
    }

    #[test]
    fn a_bare_level_forgets_what_modules_had() {
        let mut levels = LogLevels::new(Level::Info);
        levels.set(Module::Proxy, Level::Debug);
        assert_eq!(levels.get(Module::Proxy), Level::Debug);
        assert_eq!(levels.get(Module::Core), Level::Info);
        assert_eq!(levels.finest(), Level::Debug);
        levels.set_default(Level::Error);
        assert_eq!(levels.get(Module::Proxy), Level::Error);
        assert!(levels.admits(Module::Proxy, Level::Notice), "a notice is always written");
        assert!(!levels.admits(Module::Proxy, Level::Warn));
    }

    #[test]
    fn a_tag_names_the_levels_that_slog_lacks() {
        for (carrier, tag, want) in [
            (slog::Level::Info, "", Level::Info),
            (slog::Level::Info, "notice", Level::Notice),
            (slog::Level::Critical, "emerg", Level::Emerg),
            (slog::Level::Trace, "", Level::Trace1),
            (slog::Level::Trace, "trace6", Level::Trace6),
            (slog::Level::Warning, "some other tag", Level::Warn),
        ] {
            assert_eq!(Level::of(carrier, tag), want);
        }
    }

    #[test]
    fn the_heading_is_httpd_s() {
        let mut line = String::new();
        write_heading(
            &mut line,
            &Heading {
                wall_us: 1_795_338_027_123_456,
                module: Module::MpmEvent,
                level: Level::Notice,
                pid: 123,
                tid: 124,
                client: Some("10.0.0.1:4711"),
            },
        );
        // Hours and perhaps the day are the zone's; `stamp` tests them.
        assert!(line.starts_with('[') && line.contains(".123456 2026] "), "{line}");
        assert!(line.ends_with("] [mpm_event:notice] [pid 123:tid 124] [client 10.0.0.1:4711] "), "{line}");
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        for (text, want) in [
            ("plain \"quoted\" 'text'", "plain \"quoted\" 'text'"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("C:\\x", "C:\\\\x"),
            ("\u{1b}[2J\0", "\\x1b[2J\\x00"),
            ("grün \u{85}", "grün \\xc2\\x85"),
        ] {
            let mut line = String::new();
            push_escaped(&mut line, text);
            assert_eq!(line, want);
        }
    }
}
