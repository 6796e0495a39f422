//! Where the lines of logs go: files, programs and streams, opened once by the master, held open for all.
//!
//! Children inherit the descriptors by number. A log program is started here and started again when it ends;
//! its pipe outlives it, so that what is written meanwhile is not lost.

use crate::clock::Tick;
use crate::config::model::{Config, LogTarget};
use crate::ids::ChildPid;
use crate::log::sink::{self, Sink};
use crate::master::backoff::Backoff;
use crate::master::error::{StartError, cause};
use crate::sys::fd;
use crate::sys::process::{Death, signal_name};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Delays between starts of a log program that keeps ending.
const RESTARTS: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(30), Duration::from_secs(60));

/// What a service manager gives to its service, not to the programs of that service.
const PRIVATE_VARIABLES: [&str; 5] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC"];

/// Every log target of a configuration, open.
#[derive(Debug)]
pub struct Logs {
    targets: Vec<Target>,
    error_log: Sink,
    error_log_name: String,
}

#[derive(Debug)]
struct Target {
    /// What children write to.
    sink: Sink,
    program: Option<Program>,
}

#[derive(Debug)]
struct Program {
    command: String,
    /// The other end of the pipe. Kept here, so that a write does not fail while the program is down.
    reader: OwnedFd,
    pid: Option<ChildPid>,
    restarts: Backoff,
    /// When to start it again, if it is down.
    due: Tick,
}

impl Logs {
    /// Opens everything that `config` writes logs to. Programs are not started yet.
    ///
    /// # Errors
    /// For the first that cannot be opened.
    pub fn open(config: &Config) -> Result<Self, StartError> {
        Self::open_beside(config, None)
    }

    /// Opens everything that `config` writes logs to: files anew, so that one that has been renamed gets a
    /// successor; a program that `old` runs already is written to as before ([`Logs::inherit`] it then).
    ///
    /// # Errors
    /// For the first that cannot be opened.
    pub fn open_beside(config: &Config, old: Option<&Self>) -> Result<Self, StartError> {
        let mut targets = Vec::with_capacity(config.log_targets.len());
        for target in &config.log_targets {
            let running = old.zip(command(target)).and_then(|(old, command)| old.running(command));
            let opened = match running {
                Some(sink) => Ok(Target { sink, program: None }),
                None => open(target),
            };
            targets.push(opened.map_err(|source| StartError::Log { target: name(target), source })?);
        }
        let error_log = &targets[config.error_log.index()];
        let error_log_name = name(&config.log_targets[config.error_log.index()]);
        let error_log = own_writer(error_log.sink.as_fd())
            .map_err(|source| StartError::Log { target: error_log_name.clone(), source })?;
        Ok(Self { targets, error_log: Sink::from(error_log), error_log_name })
    }

    fn running(&self, command: &str) -> Option<Sink> {
        let is_it = |target: &&Target| target.program.as_ref().is_some_and(|own| own.command == command);
        self.targets.iter().find(is_it).map(|target| target.sink.clone())
    }

    /// Takes over the programs of `old` that these logs write to as well.
    pub fn inherit(&mut self, old: &mut Self, config: &Config) {
        for (target, own) in config.log_targets.iter().zip(&mut self.targets) {
            if own.program.is_none()
                && let Some(command) = command(target)
            {
                let theirs = old.targets.iter_mut().map(|target| &mut target.program);
                let mut theirs =
                    theirs.filter(|program| program.as_ref().is_some_and(|it| it.command == command));
                own.program = theirs.next().and_then(Option::take);
            }
        }
    }

    /// The main error log.
    pub fn logger(&self, config: &Config) -> slog::Logger {
        sink::logger(self.error_log.clone(), &config.hosts[0].log_levels)
    }

    /// Where the main error log is, for a sentence that sends the reader there.
    #[must_use]
    pub fn error_log_name(&self) -> &str {
        &self.error_log_name
    }

    /// The main error log's descriptor, if it is a file or a program and not one of our own streams.
    #[must_use]
    pub fn error_log_apart(&self, config: &Config) -> Option<BorrowedFd<'_>> {
        let target = &config.log_targets[config.error_log.index()];
        let is_apart = matches!(target, LogTarget::File(_) | LogTarget::Program(_));
        is_apart.then(|| self.error_log.as_fd())
    }

    /// What children write to, by `LogTargetId`.
    #[must_use]
    pub fn for_child(&self) -> Vec<Sink> {
        self.targets.iter().map(|target| target.sink.clone()).collect()
    }

    /// Every descriptor that a child must keep: its targets and the error log.
    #[must_use]
    pub fn kept_by_child(&self) -> Vec<RawFd> {
        let targets = self.targets.iter().map(|target| target.sink.as_raw_fd());
        targets.chain([self.error_log.as_raw_fd()]).collect()
    }

    /// Whether what is written to `stream` is read by one of these programs.
    #[must_use]
    pub fn hear(&self, stream: BorrowedFd<'_>) -> bool {
        let mut programs = self.targets.iter().filter_map(|target| target.program.as_ref());
        programs.any(|program| fd::are_the_same(program.reader.as_fd(), stream).unwrap_or(false))
    }

    /// Starts each program that is down and due; one that is `mute` has its standard error stream thrown away.
    /// Returns what went wrong, one sentence each.
    pub fn start_programs(&mut self, mute: bool, now: Tick) -> Vec<String> {
        let mut faults = Vec::new();
        for program in self.targets.iter_mut().filter_map(|target| target.program.as_mut()) {
            if program.pid.is_some() || now < program.due {
                continue;
            }
            match start(&program.command, program.reader.as_fd(), mute) {
                Ok(pid) => program.pid = Some(pid),
                Err(error) => {
                    let delay = program.restarts.fail(now);
                    program.due = now.after(delay);
                    faults.push(format!(
                        "cannot start log program {:?}: {}; next try in {}",
                        program.command,
                        cause(&error),
                        super::deaths::span(delay)
                    ));
                }
            }
        }
        faults
    }

    /// Notes the end of process `pid` if it was a log program, and says so. It will be started again.
    pub fn reaped(&mut self, pid: ChildPid, death: Death, now: Tick) -> Option<String> {
        let program = self
            .targets
            .iter_mut()
            .filter_map(|target| target.program.as_mut())
            .find(|program| program.pid == Some(pid))?;
        program.pid = None;
        let delay = program.restarts.fail(now);
        program.due = now.after(delay);
        let how = match death {
            Death::Exited(status) => format!("ended with status {status}"),
            Death::Killed { signal, .. } => format!("was killed by {}", signal_name(signal)),
        };
        let next = super::deaths::span(delay);
        Some(format!("log program {:?} (pid {pid}) {how}; started again in {next}", program.command))
    }

    /// When [`Logs::start_programs`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let down = self.targets.iter().filter_map(|target| target.program.as_ref());
        down.filter(|program| program.pid.is_none()).map(|program| program.due).min()
    }
}

fn command(target: &LogTarget) -> Option<&str> {
    match target {
        LogTarget::Program(command) => Some(command),
        LogTarget::File(_) | LogTarget::Stderr | LogTarget::Stdout => None,
    }
}

/// A log target as people know it.
fn name(target: &LogTarget) -> String {
    match target {
        LogTarget::File(path) => path.display().to_string(),
        LogTarget::Program(command) => format!("|{command}"),
        LogTarget::Stderr => "/dev/stderr".to_owned(),
        LogTarget::Stdout => "/dev/stdout".to_owned(),
    }
}

fn open(target: &LogTarget) -> io::Result<Target> {
    let plain = |writer: OwnedFd| Target { sink: Sink::from(writer), program: None };
    match target {
        LogTarget::File(path) => fd::append(path, 0o640).map(plain),
        LogTarget::Program(command) => {
            let (reader, writer) = fd::pipe()?;
            let command = command.clone();
            let program = Program { command, reader, pid: None, restarts: RESTARTS, due: Tick(0) };
            Ok(Target { sink: Sink::from(writer), program: Some(program) })
        }
        LogTarget::Stderr => fd::duplicate(io::stderr().as_fd()).map(plain),
        LogTarget::Stdout => fd::duplicate(io::stdout().as_fd()).map(plain),
    }
}

/// The error log's own descriptor. Of a pipe, one that does not block: whoever reads it may be slow, and the
/// master must not wait for them; a line that finds the pipe full is lost and counted.
fn own_writer(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let copy = File::from(fd::duplicate(fd)?);
    if copy.metadata()?.file_type().is_fifo() {
        // A new open file, so that the flag does not reach those who share the old one.
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let own =
            OpenOptions::new().write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path);
        if let Ok(own) = own {
            return Ok(own.into());
        }
    }
    Ok(copy.into())
}

/// Starts a log program, as the shell understands its line. It leads a process group of its own, since it must
/// outlive a Ctrl-C for the last lines, and ends by itself when the last writer is gone.
fn start(command: &str, stdin: BorrowedFd<'_>, mute: bool) -> io::Result<ChildPid> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("exec {command}"));
    shell.stdin(Stdio::from(fd::duplicate(stdin)?));
    if mute {
        shell.stderr(Stdio::null());
    }
    shell.process_group(0);
    for variable in PRIVATE_VARIABLES {
        shell.env_remove(variable);
    }
    // Reaped with the other children; dropping the handle leaves the process alone.
    let child = shell.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(ChildPid::new);
    Ok(pid.expect("the kernel's numbers are positive and fit an int"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};
    use std::io::Read;

    fn config(text: &str) -> Config {
        let text = format!("Listen 127.0.0.1:0\n{text}\n");
        config::from_text("test", &text, &Options::default()).expect("a valid text").config
    }

    #[test]
    fn files_are_opened_for_appending_and_for_their_group() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("error.log");
        let config = config(&format!("ErrorLog {0}\nCustomLog {0} common", path.display()));
        std::fs::write(&path, "before\n").unwrap();
        let logs = Logs::open(&config).unwrap();
        slog::error!(logs.logger(&config), "something happened");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("before\n") && text.ends_with("something happened\n"), "{text}");
        assert_eq!(logs.for_child().len(), config.log_targets.len());
        assert_eq!(logs.kept_by_child().len(), config.log_targets.len() + 1);
        assert!(logs.error_log_apart(&config).is_some());

        std::fs::remove_file(&path).unwrap();
        drop(Logs::open(&config).unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "nothing for others, no writing for the group: {mode:o}");
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_named() {
        let config = config("ErrorLog /nonexistent/error.log");
        let sentence = Logs::open(&config).unwrap_err().sentence();
        assert_eq!(
            sentence,
            "cannot open log /nonexistent/error.log: No such file or directory; create the directory, or \
             correct the path"
        );
    }

    #[test]
    fn a_reload_opens_files_anew_and_keeps_programs() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("error.log");
        let config = config(&format!("ErrorLog {}\nCustomLog \"|cat\" common", path.display()));
        let mut old = Logs::open(&config).unwrap();
        old.targets.iter_mut().filter_map(|target| target.program.as_mut()).for_each(|program| {
            program.pid = ChildPid::new(4711);
        });
        std::fs::rename(&path, home.path().join("error.log.1")).unwrap();
        let mut new = Logs::open_beside(&config, Some(&old)).unwrap();
        slog::error!(new.logger(&config), "to the new one");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("to the new one\n"));
        assert_eq!(new.deadline(), None, "the program is the old one's until it is handed over");
        new.inherit(&mut old, &config);
        assert_eq!((old.deadline(), new.deadline()), (None, None));
        assert!(old.reaped(ChildPid::new(4711).unwrap(), Death::Exited(0), Tick(0)).is_none());
        assert!(new.reaped(ChildPid::new(4711).unwrap(), Death::Exited(0), Tick(0)).is_some());
    }

    #[test]
    fn a_program_that_keeps_ending_is_started_ever_later() {
        let config = config("ErrorLog \"|true\"");
        let mut logs = Logs::open(&config).unwrap();
        assert_eq!(logs.deadline(), Some(Tick(0)), "it is to be started");
        let pid = ChildPid::new(4711).unwrap();
        for (now, want) in [(1_000, "100 ms"), (1_100, "200 ms"), (1_300, "400 ms")] {
            // As if it had been started: the process itself is not the point here.
            logs.targets.iter_mut().filter_map(|target| target.program.as_mut()).for_each(|program| {
                program.pid = Some(pid);
            });
            assert_eq!(logs.deadline(), None);
            let line = logs.reaped(pid, Death::Exited(0), Tick(now)).unwrap();
            assert!(line.starts_with("log program \"true\" (pid 4711) ended with status 0"), "{line}");
            assert!(line.ends_with(&format!("started again in {want}")), "{line}");
        }
        assert_eq!(logs.deadline(), Some(Tick(1_700)));
        assert!(logs.start_programs(false, Tick(1_699)).is_empty(), "not yet");
        assert_eq!(logs.reaped(ChildPid::new(5).unwrap(), Death::Exited(0), Tick(2_000)), None, "not ours");
    }

    #[test]
    fn a_stream_is_known_that_ends_in_a_program() {
        let config = config("ErrorLog \"|cat\"\nCustomLog /dev/null common");
        let mut logs = Logs::open(&config).unwrap();
        let errors = fd::duplicate(logs.error_log_apart(&config).unwrap()).unwrap();
        assert!(logs.hear(errors.as_fd()));
        assert!(!logs.hear(io::stderr().as_fd()) && !logs.hear(logs.targets[1].sink.as_fd()));
        let mut next = Logs::open_beside(&config, Some(&logs)).unwrap();
        assert!(!next.hear(errors.as_fd()), "the program is the old one's until it is handed over");
        next.inherit(&mut logs, &config);
        assert!(next.hear(errors.as_fd()) && !logs.hear(errors.as_fd()));
    }

    #[test]
    fn a_full_pipe_blocks_nobody_who_writes_errors() {
        let (reader, writer) = fd::pipe().unwrap();
        let own = File::from(own_writer(writer.as_fd()).unwrap());
        let line = [b'x'; 4096];
        let mut written = 0;
        let full = loop {
            match std::io::Write::write(&mut &own, &line) {
                Ok(count) => written += count,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop((own, writer));
        let mut read = Vec::new();
        File::from(reader).read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), written);
    }
}
