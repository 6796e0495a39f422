//! Starting, in the order that lets every fault be told to the person who starts us.
//!
//! What can fail is done first, in the foreground, while nothing has been touched: PidFile looked at, names
//! resolved, logs opened, addresses bound. Only then does the daemon leave the terminal; what is left to fail
//! (lock, scoreboard, first child) it reports to the launching process.

use crate::clock::Tick;
use crate::config::model::Config;
use crate::groom::MOST_CLIENTS;
use crate::log::line::Module;
use crate::master::bequest::HAND_OVER;
use crate::master::boards::Boards;
use crate::master::detach::{self, Place, Report};
use crate::master::error::{StartError, cause};
use crate::master::generation::{self, Generation};
use crate::master::heritage::{Heritage, Predecessor};
use crate::master::invocation::Invocation;
use crate::master::listeners::{Listener, Listeners};
use crate::master::logs::Logs;
use crate::master::pidfile::{self, PidFile, Taken};
use crate::master::reload::Reader;
use crate::master::resolve::Descent;
use crate::master::resolver;
use crate::master::signals;
use crate::master::spawn::Estate;
use crate::master::status_doors::StatusDoors;
use crate::master::supervisor::Master;
use crate::scoreboard::board::{Birth, Board, Shape};
use crate::scoreboard::facts::Facts;
use crate::scoreboard::snapshot::{Life, Snapshot};
use crate::size::descriptors;
use crate::size::measure::machine;
use crate::size::warnings::warnings;
use crate::sys::lock::Holder;
use crate::sys::privilege;
use crate::sys::signal::SignalPipe;
use crate::sys::{fd, process, signal, socket, time, title};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory under `/run` or `$XDG_RUNTIME_DIR` that is ours to make: it is gone after each boot.
const RUN_DIRECTORY: &str = "ostler";

/// What is needed to start.
#[derive(Debug)]
pub struct Startup {
    /// What to obey. The master completes it: addresses of names.
    pub config: Config,
    /// Where it was read from; `None` without a file.
    pub config_path: Option<PathBuf>,
    /// Stay in the foreground.
    pub foreground: bool,
    /// What the reading of the configuration had to remark: written to the error log.
    pub notes: Vec<String>,
    /// What a daemon in the foreground says on standard output once it serves.
    pub greeting: Option<String>,
    /// Reads and checks the configuration once more, for a reload, as it was read for the start.
    pub reader: Reader,
    /// How the program was started, for an upgrade; `None` if that cannot be repeated.
    pub invocation: Option<Invocation>,
    /// What it was given beside its arguments.
    pub heritage: Heritage,
}

/// Starts the daemon. In the foreground it returns when the daemon has stopped, with its exit code; otherwise
/// the launching process returns 0 once the daemon serves, and the daemon itself with its own exit code.
///
/// # Errors
/// If it does not start. Nothing is left behind then.
pub fn run(startup: Startup) -> Result<i32, StartError> {
    let Startup { config, config_path, foreground, notes, greeting, reader, invocation, heritage } = startup;
    let fault = |source| StartError::System { what: "prepare the standard streams", source };
    fd::ensure_standard_streams().map_err(fault)?;
    let Heritage { listeners: inherited, mut predecessor } = heritage;
    let left = predecessor.as_mut().map(StatusDoors::left_by).unwrap_or_default();
    if let Some(predecessor) = &mut predecessor {
        predecessor.settle_standard_error();
    } else {
        refuse_a_second_start(&config)?;
    }
    let (found, descriptors) = match Found::of(config, &inherited, &left) {
        Ok(found) => found,
        Err(error) => return refuse(error, &mut Report::default(), predecessor.as_ref(), None),
    };
    if let Some(predecessor) = &mut predecessor {
        predecessor.kept = found.listeners.places_among(&inherited);
        predecessor.status = left;
    } else {
        // Nobody else serves at those of a service manager.
        found.listeners.adjust(&found.config);
    }
    drop(inherited);
    let Found { config, descent, logs, listeners, doors } = found;
    let report = if foreground {
        Report::to_terminal(greeting)
    } else if predecessor.is_some() {
        // It is where the old one was, and that had left the terminal.
        detach::settle_down().map_err(fault)?;
        Report::default()
    } else {
        match detach::detach()? {
            Place::Launcher(outcome) => {
                doors.disown();
                return outcome.map(|()| 0);
            }
            Place::Daemon(report) => report,
        }
    };
    doors.move_in();
    let now: Tick = time::now().tick();
    let number = predecessor.as_ref().map_or(generation::FIRST, |predecessor| predecessor.generation);
    let mut generation = Generation::new(number, Arc::new(config), listeners, logs, descent.identity, now);
    generation.doors = doors;
    let log = &generation.log;
    for note in &notes {
        slog::warn!(log, "{note}"; "module" => Module::Config.name());
    }
    if let Some(note) = &descent.note {
        slog::warn!(log, "{note}"; "module" => Module::Unixd.name());
    }
    for warning in warnings(&generation.config, &machine::facts_of_this_process()) {
        slog::warn!(log, "{warning}"; "module" => Module::Core.name());
    }
    slog::debug!(log, "RLIMIT_NOFILE is {descriptors}");
    Home { generation, config_path, reader, invocation, predecessor, foreground }.serve(report)
}

/// What the start needs of the machine.
struct Found {
    config: Config,
    descent: Descent,
    logs: Logs,
    listeners: Listeners,
    doors: StatusDoors,
}

impl Found {
    /// Looks up, opens and binds, and raises the limit on descriptors to what is given back too.
    fn of(mut config: Config, inherited: &[Listener], left: &StatusDoors) -> Result<(Self, u64), StartError> {
        let descriptors = enough_descriptors(&config)?;
        let descent = resolver::look_up_and_wait(&mut config)?;
        // The time zone is read from its file once; children may not be able to.
        crate::log::prepare();
        let logs = Logs::open(&config)?;
        let open: Vec<&Listener> = inherited.iter().collect();
        let listeners = Listeners::bind_beside(&config, &open)?;
        let group = descent.identity.as_ref().map(|identity| identity.gid);
        let doors = StatusDoors::bind_beside(&config, group, &[left])?;
        Ok((Self { config, descent, logs, listeners, doors }, descriptors))
    }
}

/// What has been found, opened and bound, for the process that stays.
struct Home {
    generation: Generation,
    config_path: Option<PathBuf>,
    reader: Reader,
    invocation: Option<Invocation>,
    predecessor: Option<Predecessor>,
    foreground: bool,
}

impl Home {
    /// Becomes the master.
    fn serve(mut self, mut report: Report) -> Result<i32, StartError> {
        let hand_over = self.hand_over();
        let Generation { logs, config, log, .. } = &self.generation;
        let apart = logs.error_log_apart(config).is_some();
        let log = log.clone();
        // From here on a signal finds the loop, and no PidFile is left behind.
        let heard = signals::heard(process::has_controlling_terminal());
        let signals = match SignalPipe::new(&heard) {
            Ok(signals) => signals,
            Err(source) => {
                let error = StartError::System { what: "watch for signals", source };
                return refuse(error, &mut report, self.predecessor.as_ref(), apart.then_some(&log));
            }
        };
        let hand_over = match hand_over {
            Ok(hand_over) => hand_over,
            Err(source) => {
                let error = StartError::System { what: "make a pair of sockets", source };
                return refuse(error, &mut report, self.predecessor.as_ref(), apart.then_some(&log));
            }
        };
        // Over an upgrade it is the old master's until the children of this one serve.
        let taken =
            if self.predecessor.is_some() { Ok(None) } else { take_pid_file(&self.generation, false) };
        let pid_file = match taken {
            Ok(pid_file) => pid_file,
            Err(error) => return refuse(error, &mut report, None, apart.then_some(&log)),
        };
        let board = match self.make_board() {
            Ok(board) => board,
            Err(error) => {
                pid_file.into_iter().for_each(PidFile::remove);
                return refuse(error, &mut report, self.predecessor.as_ref(), apart.then_some(&log));
            }
        };
        let captive_stderr = !self.foreground;
        if captive_stderr
            && let Some(errors) = logs.error_log_apart(config)
            && let Err(error) = fd::redirect_standard_error(errors)
        {
            // It stays the terminal's then, which whoever started us may wait for in vain to be closed. What is
            // written there from now on (a panic) belongs into the log, and all faults are reported.
            slog::warn!(log, "standard error stays where it was: {}", cause(&error));
        }
        let predecessor = self.predecessor.take();
        let Self { mut generation, config_path, reader, invocation, .. } = self;
        title::set_title(&generation.title(config_path.as_deref()));
        signal::ignore_write_faults();
        let counted = generation.number;
        let board = Boards::new(board);
        let estate = Estate {
            board,
            counted,
            hand_over,
            log,
            shortage_told: false,
            captive_stderr,
            config_path,
            reader,
            invocation,
        };
        generation.begun = time::now().tick();
        Master::new(estate, generation, pid_file, report, predecessor, signals)?.run()
    }

    /// Over which children hand connections over: the old master's, if its children and ours understand each other.
    fn hand_over(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        let Some(predecessor) = &mut self.predecessor else { return socket::pair() };
        match HAND_OVER.map(|end| predecessor.heirloom(&end.name())) {
            [Some(receive), Some(send)] => {
                predecessor.takes_over = self.generation.hands_over();
                Ok((receive, send))
            }
            _ => socket::pair(),
        }
    }

    fn make_board(&self) -> Result<Board, StartError> {
        let config = &self.generation.config;
        let limits = &config.limits;
        let mut left_over = None;
        if let Some(path) = &config.scoreboard_file {
            make_run_directory(path);
            // What cannot be read is nobody's any more.
            if self.predecessor.is_none()
                && let Ok(other) = Snapshot::read(path)
            {
                let pid = other.server.master_pid;
                match other.life {
                    Life::Running => return Err(StartError::BoardHeld { pid, path: path.clone() }),
                    Life::Dead | Life::BeforeReboot => left_over = Some((pid, path)),
                    Life::Stopped | Life::Unknown => {}
                }
            }
        }
        let shape = Shape::new(limits.server_limit, limits.thread_limit, config.backends.len());
        let (now, wall_micros) = (time::now(), time::wall_micros());
        let birth = Birth { pid: std::process::id(), now, wall_micros };
        let path = config.scoreboard_file.as_deref();
        // Over an upgrade the name is the old master's, too.
        let make = if self.predecessor.is_some() { Board::prepare } else { Board::create };
        let create = |facts: &Facts<'_>| make(path, &shape, &birth, facts);
        let board = self.generation.with_facts(self.config_path.as_deref(), wall_micros, create);
        let mut board = board.map_err(StartError::Board)?;
        if let Some((pid, path)) = left_over {
            slog::warn!(
                self.generation.log,
                "ScoreBoardFile {} is left over from process {pid}, which did not stop in good order; what its \
                 workers held is kept: ostler status --scoreboard {}",
                path.display(),
                Board::previous(path).display()
            );
        }
        board
            .set_backends(self.generation.number, config.backends.iter().map(|backend| backend.url.as_str()));
        Ok(board)
    }
}

/// Locks and writes the PidFile, if there is to be one. What stands in it is no leftover if it was `handed` over.
pub(super) fn take_pid_file(generation: &Generation, handed: bool) -> Result<Option<PidFile>, StartError> {
    let Some(path) = &generation.config.pid_file else { return Ok(None) };
    make_run_directory(path);
    let taken = PidFile::take(path).map_err(|source| StartError::PidFile { path: path.clone(), source })?;
    match taken {
        Taken::Ours { file, left_behind } => {
            if let Some(old) = left_behind.filter(|_| !handed) {
                slog::warn!(
                    generation.log,
                    "PidFile {} is left over from {old}: that one did not stop in good order",
                    path.display()
                );
            }
            Ok(Some(file))
        }
        Taken::Held(holder) => Err(running(holder, path)),
    }
}

/// Tells everybody who should know that there will be no daemon. The launching process prints what it is told, the old
/// master logs it; in the foreground `main` prints what it is given.
fn refuse(
    error: StartError,
    report: &mut Report,
    predecessor: Option<&Predecessor>,
    log: Option<&slog::Logger>,
) -> Result<i32, StartError> {
    let sentence = error.sentence();
    if let Some(predecessor) = predecessor {
        predecessor.failed([sentence.as_str()]);
        return Ok(1);
    }
    if let Some(log) = log {
        slog::crit!(log, "{sentence}");
    }
    if report.is_awaited() {
        report.failed(&sentence);
        return Ok(1);
    }
    Err(error)
}

fn refuse_a_second_start(config: &Config) -> Result<(), StartError> {
    let Some(path) = &config.pid_file else { return Ok(()) };
    match pidfile::holder(path) {
        Ok(Holder::Nobody) => Ok(()),
        Ok(holder) => Err(running(holder, path)),
        Err(source) => Err(StartError::PidFile { path: path.clone(), source }),
    }
}

fn running(holder: Holder, path: &Path) -> StartError {
    let pid = match holder {
        Holder::Process(pid) => Some(pid),
        Holder::Elsewhere | Holder::Nobody => None,
    };
    StartError::Running { pid, path: path.to_owned() }
}

/// Makes the directory of a PidFile, ScoreBoardFile or StatusListen if it is the one that no package can make for good, since
/// `/run` is empty after each boot. Whatever goes wrong shows when the file is opened.
pub(super) fn make_run_directory(file: &Path) {
    if let Some(directory) = file.parent().filter(|directory| directory.ends_with(RUN_DIRECTORY)) {
        let _ = fs::DirBuilder::new().mode(0o755).create(directory);
    }
}

/// Raises RLIMIT_NOFILE as far as it goes, and checks that the master and a child can live with it.
pub(super) fn enough_descriptors(config: &Config) -> Result<u64, StartError> {
    let fault = |source| StartError::System { what: "raise RLIMIT_NOFILE", source };
    let limit = match privilege::raise_nofile() {
        Ok(limit) => limit,
        Err(_) => privilege::nofile().map_err(fault)?.0,
    };
    for (whom, needed) in needs(config) {
        if limit < needed {
            return Err(StartError::Descriptors { limit, needed, whom });
        }
    }
    Ok(limit)
}

/// How many descriptors the processes need at least.
fn needs(config: &Config) -> Vec<(String, u64)> {
    let mut needs = descriptors::needs(config).to_vec();
    if !config.status_listen.is_empty() {
        let (doors, logs) = (config.status_listen.len(), 2 * config.log_targets.len());
        needs.push(("the groom".to_owned(), descriptors::FIXED + (logs + doors + MOST_CLIENTS) as u64));
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};

    #[test]
    fn the_groom_needs_descriptors_where_there_is_one() {
        let text = "Listen 127.0.0.1:0\nStatusListen 0\n";
        let config = config::from_text("test", text, &Options::default()).expect("a valid text").config;
        let logs = 2 * config.log_targets.len() as u64;
        assert_eq!(needs(&config)[2], ("the groom".to_owned(), 24 + logs + 1 + 64));
    }

    #[test]
    fn only_our_own_run_directory_is_made() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let ours = home.path().join("ostler/ostler.pid");
        let other = home.path().join("typo/ostler.pid");
        make_run_directory(&ours);
        make_run_directory(&other);
        assert!(ours.parent().is_some_and(Path::is_dir));
        assert!(!other.parent().is_some_and(Path::exists), "a misspelt path must not become a directory");
    }
}
