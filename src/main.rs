//! Flags in, exit code out: the one place that prints an error and leaves the process.

use jiff::tz::TimeZone;
use ostler::cli::sizing::Sizing;
use ostler::cli::watch::watch;
use ostler::cli::{self, Board, ConfigFile, Fact, Look, Source, Wish, answers, reading};
use ostler::config::model::{Config, LogTarget, Mpm};
use ostler::config::{Diagnostic, Faults, Loaded};
use ostler::demo::{self, origin::Origin};
use ostler::master::control::{Answer, Ask};
use ostler::master::error::cause;
use ostler::master::{self, Heritage, Invocation, Reader, StartError, Startup, control};
use ostler::scoreboard::snapshot::{Life, Snapshot};
use ostler::size::inquiry::{self, Inquiry};
use ostler::size::measure::machine;
use ostler::size::warnings::warnings;
use ostler::status::Form;
use ostler::status::brief::Verdict;
use ostler::top::{self, TopError};
use ostler::{status, sys};
use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The wish was understood and not granted.
const FAILED: u8 = 1;

/// Why a wish was not granted.
enum Failure {
    /// The configuration has faults.
    Faults(Faults),
    /// Anything else; a line for the person who asked.
    Sentence(String),
    /// Nobody can read the answer. If the reader has closed its end, it has got what it wanted.
    Output(io::Error),
}

impl Failure {
    /// On standard error.
    fn tell(&self) {
        tell(&self.text());
    }

    /// For a terminal.
    fn text(&self) -> String {
        match self {
            Self::Faults(faults) => format!("{}\n", faults.render(true)),
            // Some sentences have the daemon as their subject.
            Self::Sentence(sentence) if sentence.starts_with("ostler ") => format!("{sentence}\n"),
            Self::Sentence(sentence) => format!("ostler: {sentence}\n"),
            Self::Output(error) => format!("ostler: cannot write: {error}\n"),
        }
    }

    /// Line by line, for a log.
    fn lines(&self) -> Vec<String> {
        match self {
            Self::Faults(Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
            Self::Sentence(sentence) => sentence.lines().map(str::to_owned).collect(),
            Self::Output(error) => vec![format!("cannot write: {error}")],
        }
    }
}

/// What this process was given at its start.
struct Given {
    invocation: Option<Invocation>,
    heritage: Result<Heritage, StartError>,
}

impl Given {
    /// Whether this is the new program of an upgrade.
    fn follows(&self) -> bool {
        self.heritage.as_ref().is_ok_and(|heritage| heritage.predecessor.is_some())
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}

fn main() -> ExitCode {
    // Without /proc there is no room for titles, and nothing else is lost.
    let _ = sys::title::init_title();
    // What this process was given is nobody else's, whatever it is asked for.
    let mut given = Given { invocation: Invocation::of_this_process().ok(), heritage: Heritage::take() };
    let granted = match cli::parse(std::env::args_os()) {
        Ok(wish) => grant(wish, &mut given),
        Err(error) => {
            // Help goes to standard output, refusals to standard error; neither is worth a panic.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(FAILED));
        }
    };
    match granted {
        Ok(code) => code,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            if let Ok(Heritage { predecessor: Some(predecessor), .. }) = &given.heritage {
                // The old master tells everybody.
                predecessor.failed(failure.lines().iter().map(String::as_str));
                return ExitCode::from(FAILED);
            }
            failure.tell();
            ExitCode::from(FAILED)
        }
    }
}

fn grant(wish: Wish, given: &mut Given) -> Result<ExitCode, Failure> {
    match wish {
        // Whatever had the old master start is not to be done again.
        Wish::Reload { file, foreground } if given.follows() => start(&Source::File(file), foreground, given),
        Wish::Tell(facts) => say(&facts.into_iter().map(answer).collect::<String>()),
        Wish::Check { source, hosts } => check(&source, hosts),
        Wish::PrintConfig(flags) => say(&reading::text(&flags)?),
        Wish::Start { source, foreground } => start(&source, foreground, given),
        Wish::Stop(file) => stop(file),
        Wish::Reload { file, foreground } => reload(file, foreground, given),
        Wish::Upgrade(file) => upgrade(file),
        Wish::Brief(file) => Ok(tell_briefly(file)),
        Wish::Status(look) => Ok(show_status(look)),
        Wish::Top { board, interval } => show_top(board, interval),
        Wish::Size(sizing) => size(sizing),
        Wish::Demo { mpm, port, print_config: true } => {
            say(&demo::shown_config(mpm, port, sys::privilege::is_root()))
        }
        Wish::Demo { mpm, port, print_config: false } => run_demo(mpm, port),
    }
}

fn answer(fact: Fact) -> String {
    match fact {
        Fact::Version => answers::version(),
        Fact::Build => answers::build(),
        Fact::ModulesByFile => answers::modules_by_file(),
        Fact::Modules => answers::modules(),
        Fact::Directives => answers::directives(),
    }
}

/// `-t` and `-S`.
fn check(source: &Source, hosts: bool) -> Result<ExitCode, Failure> {
    let Loaded { config, notes } = read(source)?;
    tell(&rendered(&notes));
    known_here(&config)?;
    for warning in warnings(&config, &machine::facts_of_this_process()) {
        tell(&format!("warning: {warning}\n"));
    }
    let hosts = if hosts { answers::hosts(&config) } else { String::new() };
    say(&format!("{hosts}{}", answers::what_holds(&config)))
}

/// Refuses a User or Group that this machine does not have, as a start would.
fn known_here(config: &Config) -> Result<(), Failure> {
    if !sys::privilege::is_root() {
        return Ok(());
    }
    let missing = |directive: &'static str, name: &String| {
        let known = match directive {
            "User" => sys::privilege::find_user(name).map(|found| found.is_some()),
            _ => sys::privilege::find_group(name).map(|found| found.is_some()),
        };
        // What cannot be looked up now may be there at the start.
        (!known.unwrap_or(true)).then(|| StartError::Nobody { directive, name: name.clone() })
    };
    let user = config.user.as_ref().and_then(|name| missing("User", name));
    match user.or_else(|| config.group.as_ref().and_then(|name| missing("Group", name))) {
        Some(error) => Err(Failure::Sentence(error.sentence())),
        None => Ok(()),
    }
}

fn start(source: &Source, foreground: bool, given: &mut Given) -> Result<ExitCode, Failure> {
    let loaded = read(source)?;
    let config_path = match source {
        Source::File(file) => Some(absolute(&file.path)),
        Source::OneLiner(_) => None,
    };
    // Where the error log is the terminal, the notes come by that road.
    let log = &loaded.config.log_targets[loaded.config.error_log.index()];
    if *log != LogTarget::Stderr && !given.follows() {
        tell(&rendered(&loaded.notes));
    }
    // The daemon leaves the working directory that relative paths begin in.
    let again = source.absolute();
    let reader = Reader::new(move || reading::read(&again));
    serve(loaded, config_path, foreground, None, reader, given)
}

/// Becomes the daemon, or starts it and returns.
fn serve(
    loaded: Loaded,
    config_path: Option<PathBuf>,
    foreground: bool,
    greeting: Option<String>,
    reader: Reader,
    given: &mut Given,
) -> Result<ExitCode, Failure> {
    let notes = loaded.notes.iter().map(ToString::to_string).collect();
    let heritage = std::mem::replace(&mut given.heritage, Ok(Heritage::default()));
    let heritage = heritage.map_err(|error| Failure::Sentence(error.sentence()))?;
    let invocation = given.invocation.take();
    let config = loaded.config;
    let startup = Startup { config, config_path, foreground, notes, greeting, reader, invocation, heritage };
    match master::run(startup) {
        Ok(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(FAILED))),
        // As httpd's -k start; who wants it in the foreground has not got what it asked for.
        Err(error @ StartError::Running { .. }) if !foreground => say(&format!("{error}\n")),
        Err(error) => Err(Failure::Sentence(error.sentence())),
    }
}

/// `-k stop`.
fn stop(file: ConfigFile) -> Result<ExitCode, Failure> {
    let config = read_of_daemon(file).inspect_err(|failure| {
        if let Failure::Faults(_) = failure {
            tell(
                "ostler: nobody was told to stop, since the configuration that names PidFile has faults; \
                  correct it, or send SIGTERM to the master\n\n",
            );
        }
    })?;
    match control::stop(config.pid_file.as_deref(), config.graceful_shutdown_timeout) {
        Ok(stopped) => say(&format!("{stopped}\n")),
        Err(error) => Err(Failure::Sentence(error.to_string())),
    }
}

/// `-k graceful` and `-k restart`. A configuration with a fault is refused before anybody is disturbed.
fn reload(file: ConfigFile, foreground: bool, given: &mut Given) -> Result<ExitCode, Failure> {
    let source = Source::File(file);
    let config = read(&source)?.config;
    match ask(Ask::Reload, &config)? {
        Answer::NoneRuns(_) => {
            say("ostler is not running, trying to start it\n")?;
            start(&source, foreground, given)
        }
        answer => say(&answered(Ask::Reload, &answer)),
    }
}

/// `-k upgrade`. As a reload, but that nobody is started if nobody runs: then there is nothing to follow.
fn upgrade(file: ConfigFile) -> Result<ExitCode, Failure> {
    let config = read(&Source::File(file))?.config;
    match ask(Ask::Upgrade, &config)? {
        Answer::NoneRuns(path) => Err(Failure::Sentence(format!(
            "ostler is not running: nobody holds {}; -k start starts it",
            path.display()
        ))),
        answer => say(&answered(Ask::Upgrade, &answer)),
    }
}

fn ask(what: Ask, config: &Config) -> Result<Answer, Failure> {
    control::ask(what, config.pid_file.as_deref(), config.scoreboard_file.as_deref())
        .map_err(|error| Failure::Sentence(error.to_string()))
}

fn answered(what: Ask, answer: &Answer) -> String {
    match answer {
        Answer::Serving(text) => format!("{text}\n"),
        Answer::Unseen(pid) => {
            format!("ostler (pid {pid}) has been told to {what}; its error log tells what comes of it\n")
        }
        Answer::NoneRuns(path) => format!("ostler is not running: nobody holds {}\n", path.display()),
    }
}

/// The verdict as the exit code; what could not be told is told on standard error.
fn verdict(told: Result<(String, Verdict), Failure>) -> ExitCode {
    let (text, verdict) = match told {
        Ok(told) => told,
        Err(failure) => {
            failure.tell();
            return ExitCode::from(Verdict::Unreadable as u8);
        }
    };
    // Nobody reads it, and the exit code says enough.
    let _ = say(&text);
    ExitCode::from(verdict as u8)
}

/// `-k status`.
fn tell_briefly(file: ConfigFile) -> ExitCode {
    verdict(read_of_daemon(file).and_then(|config| {
        let (pid_file, scoreboard) = (config.pid_file.as_deref(), config.scoreboard_file.as_deref());
        let holder = match pid_file.map(control::master) {
            Some(Ok(holder)) => holder,
            Some(Err(error)) => {
                return Err(Failure::Sentence(format!("cannot read PidFile: {}", cause(&error))));
            }
            None => None,
        };
        let none = || {
            let places = pid_file.into_iter().chain(scoreboard).map(|path| path.display().to_string());
            let places: Vec<String> = places.collect();
            let places = if places.is_empty() { "it has neither".to_owned() } else { places.join(", ") };
            format!("ostler is not running (looked at PidFile and ScoreBoardFile: {places})\n")
        };
        match (holder, scoreboard.map(|path| (path, path.try_exists()))) {
            (None, Some((_, Ok(false))) | None) => Ok((none(), Verdict::Stopped)),
            (Some(pid), None) => {
                let text = format!("ostler (pid {pid}) is running; ScoreBoardFile none, so that is all\n");
                Ok((text, Verdict::Serving))
            }
            (_, Some((path, _))) => {
                let (snapshot, now) = look_at(path)?;
                let ended = matches!(snapshot.life, Life::Stopped | Life::Dead | Life::BeforeReboot);
                if let (true, Some(pid), Some(pid_file)) = (ended, holder, pid_file) {
                    let text = format!(
                        "ostler (pid {pid}) holds {}, but the scoreboard at {} is not its own: it starts or ends \
                         just now, or another daemon has the same ScoreBoardFile\n",
                        pid_file.display(),
                        path.display()
                    );
                    return Ok((text, Verdict::Unreadable));
                }
                let first = if ended { none() } else { String::new() };
                Ok((first + &status::brief::brief(&snapshot, &now), Verdict::of(&snapshot, &now)))
            }
        }
    }))
}

/// `ostler status`.
fn show_status(look: Look) -> ExitCode {
    let path = match find_board(look.board) {
        Ok(path) => path,
        Err(failure) => return verdict(Err(failure)),
    };
    let page = || show_board(&path, look.form);
    let Some(every) = look.watch else {
        let (text, found) = page();
        return match text {
            Ok(text) => verdict(Ok((text, found))),
            Err(failure) => {
                failure.tell();
                ExitCode::from(found as u8)
            }
        };
    };
    let told = || {
        let (text, found) = page();
        (text.unwrap_or_else(|failure| failure.text()), found)
    };
    match watch(every, &path.display().to_string(), told) {
        Ok(last) => ExitCode::from(last as u8),
        Err(error) => verdict(Err(Failure::Output(error))),
    }
}

/// `ostler top`.
fn show_top(board: Board, interval: Duration) -> Result<ExitCode, Failure> {
    let path = find_board(board)?;
    top::run(&path, interval).map_err(|error| match error {
        TopError::Board(_) if is_no_board(&path) => Failure::Sentence(no_board(&path)),
        error => Failure::Sentence(with_cause(&error)),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Where the scoreboard is.
fn find_board(board: Board) -> Result<PathBuf, Failure> {
    match board {
        Board::At(path) => Ok(path),
        Board::Of(file) => {
            let name = file.path.display().to_string();
            read_of_daemon(file)?.scoreboard_file.ok_or_else(|| {
                Failure::Sentence(format!("{name} says ScoreBoardFile none, so there is nothing to read"))
            })
        }
    }
}

fn is_no_board(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

fn no_board(path: &Path) -> String {
    format!(
        "there is no scoreboard at {}; either the daemon of this configuration has never run, or its file is elsewhere, \
         which --scoreboard can name",
        path.display()
    )
}

/// The scoreboard at `path` in a form, or why not, and what it amounts to.
fn show_board(path: &Path, form: Option<Form>) -> (Result<String, Failure>, Verdict) {
    if is_no_board(path) {
        return (Err(Failure::Sentence(no_board(path))), Verdict::Stopped);
    }
    match look_at(path) {
        Ok((snapshot, now)) => {
            let text = match form {
                None => status::text::page(&snapshot, &now) + &before(path),
                Some(form) => status::page(&snapshot, form, &now).body,
            };
            (Ok(text), Verdict::of(&snapshot, &now))
        }
        Err(failure) => (Err(failure), Verdict::Unreadable),
    }
}

/// Where the scoreboard lies that was at `path` before this one, if it is still there.
fn before(path: &Path) -> String {
    let previous = ostler::scoreboard::board::Board::previous(path);
    let tell = |path: &Path| format!("\nthe one before: ostler status --scoreboard {}\n", path.display());
    if previous.exists() { tell(&previous) } else { String::new() }
}

/// `ostler size`. Without a configuration the defaults are sized.
fn size(sizing: Sizing) -> Result<ExitCode, Failure> {
    let (config, board, board_is_named) = match sizing.board {
        Board::At(path) => (None, Some(path), true),
        Board::Of(file) if is_missing(&file) => (None, None, false),
        Board::Of(file) => {
            let config = reading::read(&Source::File(file))?.config;
            let board = config.scoreboard_file.clone();
            (Some(config), board, false)
        }
    };
    let Sizing { mpm, asked, idle, reload, private, form, .. } = sizing;
    let inquiry = Inquiry { config, board, board_is_named, mpm, asked, idle, reload, private, form };
    match inquiry::answer(&inquiry) {
        Ok(text) => say(&text),
        Err(error) => Err(Failure::Sentence(with_cause(&error))),
    }
}

/// The scoreboard at `path` as it is now.
fn look_at(path: &Path) -> Result<(Snapshot, status::Now), Failure> {
    let snapshot = Snapshot::read(path).map_err(|error| Failure::Sentence(with_cause(&error)))?;
    let now = status::Now {
        moment: sys::time::now(),
        wall_micros: sys::time::wall_micros(),
        zone: TimeZone::system(),
    };
    Ok((snapshot, now))
}

fn run_demo(mpm: Mpm, port: u16) -> Result<ExitCode, Failure> {
    let cannot = |error: StartError| Failure::Sentence(error.sentence());
    let wished = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let place =
        demo::choose_port(port).map_err(|source| cannot(StartError::Listen { address: wished, source }))?;
    let origin = Origin::start()
        .map_err(|source| cannot(StartError::System { what: "start the demo's origin", source }))?;
    let text = demo::config_text(mpm, place.address, origin.address(), sys::privilege::is_root());
    let loaded = reading::without_a_file(demo::NAME, &text)?;
    let reader = Reader::new(move || reading::without_a_file(demo::NAME, &text));
    let greeting = demo::greeting(mpm, place, port, origin.address());
    // With its origin and its port it is not a thing to be started beside itself.
    let mut given = Given { invocation: None, heritage: Ok(Heritage::default()) };
    serve(loaded, None, true, Some(greeting), reader, &mut given)
}

/// Reads the configuration for somebody who wants to serve or to check; where there is none and none was named,
/// says what to do instead.
fn read(source: &Source) -> Result<Loaded, Failure> {
    match source {
        Source::File(file) if is_missing(file) => Err(Failure::Sentence(format!(
            "there is no configuration at {}\n  \
             ostler demo                              shows how it works, on 127.0.0.1:8080\n  \
             ostler --listen 127.0.0.1:8080 --to URL  serves without a file (--print-config makes one)\n  \
             ostler -f FILE                           reads another file",
            file.path.display()
        ))),
        source => Ok(reading::read(source)?),
    }
}

/// Reads the configuration of a daemon that is there already.
fn read_of_daemon(file: ConfigFile) -> Result<Config, Failure> {
    if is_missing(&file) {
        let path = file.path.display();
        return Err(Failure::Sentence(format!(
            "there is no configuration at {path}; name the daemon's with -f"
        )));
    }
    Ok(reading::read(&Source::File(file))?.config)
}

fn is_missing(file: &ConfigFile) -> bool {
    !file.named && !file.path.exists()
}

fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn rendered(notes: &[Diagnostic]) -> String {
    ostler::config::diagnostic::render_all(notes, true)
}

/// An error and what caused it, as one sentence.
fn with_cause(error: &dyn Error) -> String {
    let mut sentence = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        sentence.push_str(": ");
        sentence.push_str(&cause(error));
        next = error.source();
    }
    sentence
}

/// Answers on standard output.
fn say(text: &str) -> Result<ExitCode, Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// Remarks and errors on standard error. If that is gone, the exit code is all that is left to tell.
fn tell(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}
