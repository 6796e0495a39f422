//! The table of flags: httpd's letters where httpd has one, long names for what is our own.
//!
//! Parses, and refuses what does not go together; does nothing itself. `main` obeys the [`Wish`] that comes out.
//! A test holds the man page to this table.

pub mod answers;
pub mod reading;
pub mod sizing;
pub mod watch;

use crate::config::model::Mpm;
use crate::status::Form;
use clap::builder::PossibleValue;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use sizing::{SizeWords, Sizing};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration file that is read when no flag names one.
pub const DEFAULT_CONFIG: &str = "/etc/ostler/ostler.conf";

/// Where, below the directory of `-d`, the configuration file lies when `-f` does not name it.
pub const CONFIG_BELOW_ROOT: &str = "conf/ostler.conf";

/// A reverse proxy daemon with Apache's process model and configuration language.
#[derive(Debug, Parser)]
#[command(
    name = "ostler",
    disable_version_flag = true,
    args_override_self = true,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    max_term_width = 100,
    after_help = "Try it: `ostler demo` serves at once on 127.0.0.1:8080.\n\
                  Without a file: `ostler --listen 127.0.0.1:8080 --to http://127.0.0.1:3000`."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Tool>,

    /// Configuration file [default: conf/ostler.conf below -d, else /etc/ostler/ostler.conf]
    #[arg(short = 'f', value_name = "FILE")]
    file: Option<PathBuf>,

    /// ServerRoot: where relative paths start from, until the file says otherwise
    #[arg(short = 'd', value_name = "SERVERROOT")]
    server_root: Option<PathBuf>,

    /// Define NAME for <IfDefine>; -DFOREGROUND stays in the foreground, -DDUMP_VHOSTS is -S
    #[arg(short = 'D', value_name = "NAME")]
    define: Vec<String>,

    /// A directive to be read before the file
    #[arg(short = 'C', value_name = "DIRECTIVE", allow_hyphen_values = true)]
    before: Vec<String>,

    /// A directive to be read after the file
    #[arg(short = 'c', value_name = "DIRECTIVE", allow_hyphen_values = true)]
    after: Vec<String>,

    /// Check the configuration: print all of its faults, or `Syntax OK` and what will hold
    #[arg(short = 't')]
    test: bool,

    /// Check the configuration and show its listeners and virtual hosts
    #[arg(short = 'S')]
    hosts: bool,

    /// List the directives: default, where allowed, what for
    #[arg(short = 'L')]
    directives: bool,

    /// List the built-in modules by file, as httpd does
    #[arg(short = 'l')]
    modules_by_file: bool,

    /// List the built-in modules by the name that LoadModule and <IfModule> know
    #[arg(short = 'M')]
    modules: bool,

    /// Show the version
    #[arg(short = 'v', alias = "version")]
    version: bool,

    /// Show the version and what was built in
    #[arg(short = 'V')]
    build: bool,

    /// Stay in the foreground, with all children (httpd's -X has one process; here it is -DFOREGROUND)
    #[arg(short = 'X')]
    foreground: bool,

    /// Accepted for httpd's sake: there is no DocumentRoot whose check could be left out
    #[arg(short = 'T')]
    no_document_root_check: bool,

    /// Control the daemon of this configuration
    #[arg(short = 'k', value_name = "ORDER", value_enum)]
    order: Option<OrderWord>,

    /// Without a file: listen on this address (PORT, ADDRESS:PORT or [ADDRESS]:PORT)
    #[arg(long, value_name = "ADDR", requires = "to",
        conflicts_with_all = ["file", "server_root", "order", "define", "before", "after"])]
    listen: Option<String>,

    /// Without a file: hand all requests to this backend (http://HOST[:PORT][/PATH])
    #[arg(long, value_name = "URL", requires = "listen")]
    to: Option<String>,

    /// The process model, whatever the file says [default without a file: event]
    #[arg(long, value_name = "NAME", value_enum)]
    mpm: Option<MpmWord>,

    /// Print the configuration file that would do the same as --listen and --to, and leave
    #[arg(long, requires = "listen")]
    print_config: bool,

    /// Refused: see `refuse`. Known here so that the refusal can say what to do instead.
    #[arg(short = 'e', value_name = "LEVEL", hide = true)]
    startup_level: Option<String>,

    /// Refused, as -e.
    #[arg(short = 'E', value_name = "FILE", hide = true)]
    startup_log: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Serve at once: a proxy on 127.0.0.1 in front of a small built-in origin
    Demo(DemoWords),
    /// Show the children and workers of a daemon, from its scoreboard file, without asking it
    Status(StatusWords),
    /// Watch the children and workers of a daemon live in the terminal, from its scoreboard file
    Top(TopWords),
    /// Measure what the server takes, and say which limits fit the memory there is
    Size(SizeWords),
}

#[derive(Args, Debug)]
struct DemoWords {
    /// The process model
    #[arg(long, value_name = "NAME", value_enum, default_value_t = MpmWord(Mpm::Event))]
    mpm: MpmWord,

    /// The port on 127.0.0.1; if it is taken, a free one is used
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,

    /// Print the configuration that the demo runs, and leave
    #[arg(long)]
    print_config: bool,
}

#[derive(Args, Debug)]
struct StatusWords {
    #[command(flatten)]
    board: BoardWords,

    /// As httpd's lines for collectors, like ?auto of the status page
    #[arg(long, conflicts_with_all = ["json", "prometheus"])]
    auto: bool,

    /// Everything that the scoreboard tells, as JSON on one line
    #[arg(long, conflicts_with = "prometheus")]
    json: bool,

    /// In Prometheus' text format, like SetHandler metrics
    #[arg(long)]
    prometheus: bool,

    /// Show it again every SECONDS, 2 if left out, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = interval)]
    watch: Option<Duration>,
}

#[derive(Args, Debug)]
struct TopWords {
    #[command(flatten)]
    board: BoardWords,

    /// Look at the scoreboard every SECONDS; + and - change it
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
}

/// Where a scoreboard is.
#[derive(Args, Debug)]
struct BoardWords {
    /// Configuration file, which names the scoreboard
    #[arg(short = 'f', value_name = "FILE")]
    file: Option<PathBuf>,

    /// ServerRoot, as for the daemon
    #[arg(short = 'd', value_name = "SERVERROOT")]
    server_root: Option<PathBuf>,

    /// Define NAME for <IfDefine>, as for the daemon
    #[arg(short = 'D', value_name = "NAME")]
    define: Vec<String>,

    /// Read this scoreboard file; no configuration is needed then
    #[arg(long, value_name = "PATH", conflicts_with_all = ["file", "server_root", "define"])]
    scoreboard: Option<PathBuf>,
}

/// What `--watch` and `--interval` take.
fn interval(word: &str) -> Result<Duration, String> {
    let seconds = word.parse().ok().filter(|seconds: &f64| (0.1..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "seconds from 0.1 to 86400".to_owned())
}

/// [`Mpm`] as a word on the command line.
#[derive(Clone, Copy, Debug)]
struct MpmWord(Mpm);

impl ValueEnum for MpmWord {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(Mpm::Event), Self(Mpm::Worker), Self(Mpm::Prefork)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

/// What may stand behind `-k`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum OrderWord {
    Start,
    Stop,
    GracefulStop,
    Restart,
    Graceful,
    #[value(hide = true)]
    Reload,
    Upgrade,
    Status,
}

/// What the command line asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wish {
    /// Answers that need no configuration, in this order.
    Tell(Vec<Fact>),
    /// Read the configuration, say whether it holds, and show what `hosts` asks for too.
    Check {
        /// What to read.
        source: Source,
        /// `-S`: the virtual hosts as well.
        hosts: bool,
    },
    /// Print the configuration that stands for the flags.
    PrintConfig(OneLiner),
    /// Serve.
    Start {
        /// What to read.
        source: Source,
        /// Stay in the foreground.
        foreground: bool,
    },
    /// `-k stop`, `-k graceful-stop`: tell the running daemon of this configuration to stop.
    Stop(ConfigFile),
    /// `-k graceful`, `-k restart`: have the running daemon of this configuration reload; start it if none runs.
    Reload {
        /// What to read.
        file: ConfigFile,
        /// If it is to be started: stay in the foreground.
        foreground: bool,
    },
    /// `-k upgrade`: have the running daemon of this configuration replaced by the program as it lies on the disk.
    Upgrade(ConfigFile),
    /// `-k status`: whether it runs, in a few lines.
    Brief(ConfigFile),
    /// `ostler status`.
    Status(Look),
    /// `ostler top`.
    Top {
        /// Of which scoreboard.
        board: Board,
        /// Time between two looks.
        interval: Duration,
    },
    /// `ostler size`.
    Size(Sizing),
    /// `ostler demo`.
    Demo {
        /// The process model.
        mpm: Mpm,
        /// The wished-for port on 127.0.0.1.
        port: u16,
        /// Only print the configuration.
        print_config: bool,
    },
}

/// One answer that needs no configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fact {
    /// `-v`
    Version,
    /// `-V`
    Build,
    /// `-l`
    ModulesByFile,
    /// `-M`
    Modules,
    /// `-L`
    Directives,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// From a file.
    File(ConfigFile),
    /// From `--listen`, `--to` and `--mpm`.
    OneLiner(OneLiner),
}

impl Source {
    /// The same, wherever the process may go.
    #[must_use]
    pub fn absolute(&self) -> Self {
        let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        match self {
            Self::File(file) => Self::File(ConfigFile {
                path: whole(&file.path),
                server_root: file.server_root.as_deref().map(whole),
                ..file.clone()
            }),
            Self::OneLiner(flags) => Self::OneLiner(flags.clone()),
        }
    }
}

/// A proxy without a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OneLiner {
    /// `--listen`, as written.
    pub listen: String,
    /// `--to`, as written.
    pub to: String,
    /// `--mpm`, or event.
    pub mpm: Mpm,
}

/// A configuration file, and what the command line adds to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConfigFile {
    /// The file. Relative to the working directory, or to `-d` where that is given.
    pub path: PathBuf,
    /// Whether a flag named it; a missing file is explained at more length if not.
    pub named: bool,
    /// `-d`.
    pub server_root: Option<PathBuf>,
    /// `--mpm`.
    pub mpm: Option<Mpm>,
    /// `-D`, without the names that are orders to us.
    pub defines: Vec<String>,
    /// `-C`.
    pub before: Vec<String>,
    /// `-c`.
    pub after: Vec<String>,
}

/// What `ostler status` is to show, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Look {
    /// Of which scoreboard.
    pub board: Board,
    /// In which form; `None`: as text for people.
    pub form: Option<Form>,
    /// Again and again, so far apart.
    pub watch: Option<Duration>,
}

/// Where `ostler status` and `ostler top` find the scoreboard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Board {
    /// At the place that this configuration names.
    Of(ConfigFile),
    /// Here.
    At(PathBuf),
}

/// Parses the command line (`args` begins with the program's name).
///
/// # Errors
///
/// For `--help` too; `print()` and `exit_code()` of the error are what is left to do.
pub fn parse<I, T>(args: I) -> Result<Wish, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    Cli::try_parse_from(args).map_err(say_how_it_is_ordered)?.wish()
}

/// `ostler stop` is a word too little, and worth more than a refusal.
fn say_how_it_is_ordered(error: clap::Error) -> clap::Error {
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if OrderWord::from_str(word, true).is_ok() => {
            refuse(&if word == "status" {
                "status stands before its options, as in ostler status -f FILE; or it is an order for -k: \
                 ostler -k status"
                    .to_owned()
            } else {
                format!("{word} is an order for -k: ostler -k {word}")
            })
        }
        _ => error,
    }
}

/// The whole table, for the test of the man page.
#[must_use]
pub fn table() -> clap::Command {
    Cli::command()
}

fn refuse(sentence: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::InvalidValue, format!("{sentence}\n"))
}

impl Cli {
    fn wish(mut self) -> Result<Wish, clap::Error> {
        match self.command.take() {
            Some(Tool::Demo(words)) => {
                let DemoWords { mpm, port, print_config } = words;
                return Ok(Wish::Demo { mpm: mpm.0, port, print_config });
            }
            Some(Tool::Status(words)) => return Ok(Wish::Status(words.look())),
            Some(Tool::Top(words)) => {
                return Ok(Wish::Top { board: words.board.board(), interval: words.interval });
            }
            Some(Tool::Size(words)) => return Ok(Wish::Size(words.sizing())),
            None => {}
        }
        self.refuse_what_we_have_not()?;
        let orders = self.take_orders_among_defines();
        self.modules |= orders.modules;
        let facts = self.facts();
        if !facts.is_empty() {
            return Ok(Wish::Tell(facts));
        }
        let order = self.order;
        let foreground = self.foreground || orders.foreground || self.listen.is_some();
        let (test, hosts, print_config) = (self.test, self.hosts || orders.hosts, self.print_config);
        let source = self.source();
        Ok(match (order, source) {
            (_, Source::OneLiner(flags)) if print_config => Wish::PrintConfig(flags),
            (_, source) if test || hosts => Wish::Check { source, hosts },
            (Some(OrderWord::Stop | OrderWord::GracefulStop), Source::File(file)) => Wish::Stop(file),
            (Some(OrderWord::Restart | OrderWord::Graceful | OrderWord::Reload), Source::File(file)) => {
                Wish::Reload { file, foreground }
            }
            (Some(OrderWord::Upgrade), Source::File(file)) => Wish::Upgrade(file),
            (Some(OrderWord::Status), Source::File(file)) => Wish::Brief(file),
            (_, source) => Wish::Start { source, foreground },
        })
    }

    fn refuse_what_we_have_not(&self) -> Result<(), clap::Error> {
        if self.startup_level.is_some() {
            return Err(refuse(
                "there is no -e: faults and warnings of the start always go to stderr, LogLevel rules what \
                 follows",
            ));
        }
        if self.startup_log.is_some() {
            return Err(refuse("there is no -E: let the shell redirect stderr (2>FILE)"));
        }
        Ok(())
    }

    fn facts(&self) -> Vec<Fact> {
        [
            (self.version, Fact::Version),
            (self.build, Fact::Build),
            (self.modules_by_file, Fact::ModulesByFile),
            (self.modules, Fact::Modules),
            (self.directives, Fact::Directives),
        ]
        .into_iter()
        .filter_map(|(asked, fact)| asked.then_some(fact))
        .collect()
    }

    /// Takes those names of `-D` that httpd treats as orders out of the list.
    fn take_orders_among_defines(&mut self) -> DefinedOrders {
        let mut orders = DefinedOrders::default();
        self.define.retain(|name| {
            match name.as_str() {
                // <IfDefine FOREGROUND> works in httpd, so these stay in the list as well.
                "FOREGROUND" | "NO_DETACH" | "DEBUG" | "ONE_PROCESS" => {
                    orders.foreground = true;
                    return true;
                }
                "DUMP_VHOSTS" | "DUMP_RUN_CFG" => orders.hosts = true,
                "DUMP_MODULES" => orders.modules = true,
                _ => return true,
            }
            false
        });
        orders
    }

    fn source(self) -> Source {
        let mpm = self.mpm.map(|word| word.0);
        match (self.listen, self.to) {
            (Some(listen), Some(to)) => {
                Source::OneLiner(OneLiner { listen, to, mpm: mpm.unwrap_or(Mpm::Event) })
            }
            _ => Source::File(ConfigFile {
                mpm,
                before: self.before,
                after: self.after,
                ..config_file(self.file, self.server_root, self.define)
            }),
        }
    }
}

/// What `-D` can order.
#[derive(Default)]
struct DefinedOrders {
    foreground: bool,
    hosts: bool,
    modules: bool,
}

impl BoardWords {
    fn board(self) -> Board {
        match self.scoreboard {
            Some(path) => Board::At(path),
            None => Board::Of(config_file(self.file, self.server_root, self.define)),
        }
    }
}

impl StatusWords {
    fn look(self) -> Look {
        let forms = [(self.auto, Form::Auto), (self.json, Form::Json), (self.prometheus, Form::Prometheus)];
        let form = forms.into_iter().find_map(|(asked, form)| asked.then_some(form));
        Look { board: self.board.board(), form, watch: self.watch }
    }
}

/// httpd's rule where `-d` is given (a relative file lies below it); the shell's rule where it is not.
fn config_file(file: Option<PathBuf>, server_root: Option<PathBuf>, defines: Vec<String>) -> ConfigFile {
    let named = file.is_some() || server_root.is_some();
    let root = server_root.as_deref();
    let path = match (file, root) {
        (Some(file), Some(root)) => root.join(file),
        (Some(file), None) => file,
        (None, Some(root)) => root.join(CONFIG_BELOW_ROOT),
        (None, None) => Path::new(DEFAULT_CONFIG).to_owned(),
    };
    ConfigFile { path, named, server_root, defines, ..ConfigFile::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::budget::Asked;
    use crate::size::inquiry::Form as SizeForm;

    /// What is read if no flag names a file.
    fn file_by_default() -> ConfigFile {
        ConfigFile { path: DEFAULT_CONFIG.into(), ..ConfigFile::default() }
    }

    fn wish(line: &str) -> Result<Wish, String> {
        parse(["ostler"].into_iter().chain(line.split_whitespace())).map_err(|error| error.to_string())
    }

    fn file(path: &str) -> ConfigFile {
        ConfigFile { path: path.into(), named: true, ..ConfigFile::default() }
    }

    #[test]
    fn the_table_is_sound() {
        table().debug_assert();
    }

    #[test]
    fn flags_become_wishes() {
        let default = ConfigFile { path: DEFAULT_CONFIG.into(), ..ConfigFile::default() };
        let one = OneLiner {
            listen: "127.0.0.1:8080".to_owned(),
            to: "http://127.0.0.1:3000".to_owned(),
            mpm: Mpm::Prefork,
        };
        let root = |path: &str| ConfigFile { server_root: Some("/srv".into()), ..file(path) };
        let defined = |names: &[&str]| ConfigFile {
            defines: names.iter().map(|&name| name.to_owned()).collect(),
            ..file("x")
        };
        let look = |board, form, millis: Option<u64>| {
            Wish::Status(Look { board, form, watch: millis.map(Duration::from_millis) })
        };
        for (line, want) in [
            ("", Wish::Start { source: Source::File(default.clone()), foreground: false }),
            ("-k start", Wish::Start { source: Source::File(default.clone()), foreground: false }),
            ("-X", Wish::Start { source: Source::File(default), foreground: true }),
            ("-f x -k stop", Wish::Stop(file("x"))),
            ("-f x -k graceful-stop", Wish::Stop(file("x"))),
            ("-f x -k graceful", Wish::Reload { file: file("x"), foreground: false }),
            ("-f x -k upgrade", Wish::Upgrade(file("x"))),
            ("-f x -k status", Wish::Brief(file("x"))),
            ("-f x -k restart -X", Wish::Reload { file: file("x"), foreground: true }),
            ("-tfx", Wish::Check { source: Source::File(file("x")), hosts: false }),
            ("-tS -f x", Wish::Check { source: Source::File(file("x")), hosts: true }),
            ("-t -DDUMP_VHOSTS -f x", Wish::Check { source: Source::File(file("x")), hosts: true }),
            ("-d /srv -S", Wish::Check { source: Source::File(root("/srv/conf/ostler.conf")), hosts: true }),
            ("-d /srv -f a.conf -t", Wish::Check { source: Source::File(root("/srv/a.conf")), hosts: false }),
            ("-d /srv -f /a.conf -t", Wish::Check { source: Source::File(root("/a.conf")), hosts: false }),
            (
                "-f x -DSSL -D FOREGROUND",
                Wish::Start { source: Source::File(defined(&["SSL", "FOREGROUND"])), foreground: true },
            ),
            (
                "--listen 127.0.0.1:8080 --to http://127.0.0.1:3000 --mpm prefork",
                Wish::Start { source: Source::OneLiner(one.clone()), foreground: true },
            ),
            (
                "--listen 127.0.0.1:8080 --to http://127.0.0.1:3000 --mpm prefork --print-config",
                Wish::PrintConfig(one),
            ),
            ("-vL", Wish::Tell(vec![Fact::Version, Fact::Directives])),
            ("-t -D DUMP_MODULES", Wish::Tell(vec![Fact::Modules])),
            ("-t -t -f x -f y", Wish::Check { source: Source::File(file("y")), hosts: false }),
            ("--version", Wish::Tell(vec![Fact::Version])),
            ("-l -V", Wish::Tell(vec![Fact::Build, Fact::ModulesByFile])),
            ("status -f x", look(Board::Of(file("x")), None, None)),
            ("status --scoreboard b", look(Board::At("b".into()), None, None)),
            ("status --auto -f x", look(Board::Of(file("x")), Some(Form::Auto), None)),
            ("status --json -f x", look(Board::Of(file("x")), Some(Form::Json), None)),
            ("status --prometheus -f x", look(Board::Of(file("x")), Some(Form::Prometheus), None)),
            ("status --watch -f x", look(Board::Of(file("x")), None, Some(2_000))),
            ("status -f x --watch 0.5 --json", look(Board::Of(file("x")), Some(Form::Json), Some(500))),
            ("top -f x", Wish::Top { board: Board::Of(file("x")), interval: Duration::from_secs(1) }),
            (
                "top --interval 0.2 --scoreboard b",
                Wish::Top { board: Board::At("b".into()), interval: Duration::from_millis(200) },
            ),
            ("size", Wish::Size(Sizing::of(Board::Of(file_by_default())))),
            (
                "size -f x --memory 512M --reserve 1G --mpm prefork --idle 3 --reload --private --json",
                Wish::Size(Sizing {
                    mpm: Some(Mpm::Prefork),
                    asked: Asked { memory: Some(512 << 20), reserve: Some(1 << 30) },
                    idle: Some(3),
                    reload: true,
                    private: true,
                    form: SizeForm::Json,
                    ..Sizing::of(Board::Of(ConfigFile { mpm: Some(Mpm::Prefork), ..file("x") }))
                }),
            ),
            (
                "size --scoreboard b --print-config",
                Wish::Size(Sizing { form: SizeForm::Config, ..Sizing::of(Board::At("b".into())) }),
            ),
            ("demo", Wish::Demo { mpm: Mpm::Event, port: 8080, print_config: false }),
            (
                "demo --mpm worker --port 0 --print-config",
                Wish::Demo { mpm: Mpm::Worker, port: 0, print_config: true },
            ),
        ] {
            assert_eq!(wish(line).as_ref(), Ok(&want), "{line}");
        }
    }

    #[test]
    fn what_is_not_honoured_is_refused_with_a_sentence() {
        for (line, part) in [
            ("-k halt", "invalid value 'halt'"),
            ("-e debug", "LogLevel"),
            ("-E /tmp/x", "2>FILE"),
            ("--listen 127.0.0.1:80", "--to <URL>"),
            ("--to http://a", "--listen <ADDR>"),
            ("--print-config", "--listen <ADDR>"),
            ("--listen 80 --to http://a -f x", "cannot be used with"),
            ("--listen 80 --to http://a -k stop", "cannot be used with"),
            ("--listen 80 --to http://a -DX", "cannot be used with"),
            ("demo --mpm thread", "invalid value 'thread'"),
            ("demo --port 70000", "70000"),
            ("status -f x --scoreboard y", "cannot be used with"),
            ("status --auto --json", "cannot be used with"),
            ("status --json --prometheus", "cannot be used with"),
            ("status --watch 0", "seconds from 0.1"),
            ("status --watch nan", "seconds from 0.1"),
            ("top -f x --scoreboard y", "cannot be used with"),
            ("top --interval 0", "seconds from 0.1"),
            ("top --interval nan", "seconds from 0.1"),
            ("size --memory 5X", "is not a number"),
            ("size --memory -5", "unexpected argument '-5'"),
            ("size --json --print-config", "cannot be used with"),
            ("size --scoreboard x -f y", "cannot be used with"),
            ("-t demo", "cannot be used with"),
            ("stop", "ostler -k stop"),
            ("nonsense", "nonsense"),
        ] {
            let error = wish(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
