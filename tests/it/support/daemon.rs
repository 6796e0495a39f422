//! The daemon under test: its directory, its processes, its log; ended and looked over when dropped.

use super::client::{Client, Failure, Response};
use super::{GLANCE, PATIENCE, processes, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The three drivers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mpm {
    /// Leader and followers.
    Event,
    /// A thread to a connection.
    Worker,
    /// A process to a connection.
    Prefork,
}

impl Mpm {
    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Worker => "worker",
            Self::Prefork => "prefork",
        }
    }

    /// Whether a child serves one connection at a time.
    pub fn is_prefork(self) -> bool {
        self == Self::Prefork
    }

    /// Directives for exactly one child, so that two requests must share what a child has (its pool). Under
    /// prefork that child serves one connection at a time.
    pub fn one_child(self) -> &'static str {
        if self.is_prefork() {
            "StartServers 1\nServerLimit 1\nMaxRequestWorkers 1\nMinSpareServers 1\n"
        } else {
            "StartServers 1\nServerLimit 1\nThreadsPerChild 25\nMaxRequestWorkers 25\nMinSpareThreads 1\n"
        }
    }
}

/// A temporary directory with a configuration that keeps all the daemon's files in it.
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// A new one, without a configuration yet.
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("ostler-it-").tempdir().expect("a temporary directory") }
    }

    /// A new one in memory, as /run is, where the scoreboard of a daemon that is set up by a distribution lies: a hole in
    /// it takes nothing there, while a file system that has blocks reads it into the page cache as zeros.
    pub fn in_memory() -> Self {
        let dir = tempfile::Builder::new().prefix("ostler-it-").tempdir_in("/dev/shm");
        Self { dir: dir.expect("every Linux has it") }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `ostler.conf`
    pub fn config(&self) -> PathBuf {
        self.path("ostler.conf")
    }

    /// Writes `text` as it stands, at once: a daemon that reads just now sees the old file or the new one.
    pub fn write(&self, text: &str) -> PathBuf {
        let draft = self.path("ostler.conf.new");
        fs::write(&draft, text).expect("the directory is the test's own");
        fs::rename(draft, self.config()).expect("the directory is the test's own");
        self.config()
    }

    /// Writes `text` behind the lines that keep every file in this directory. A test that listens nowhere
    /// gets `Listen 127.0.0.1:0`.
    pub fn write_whole(&self, text: &str) -> PathBuf {
        let directory = self.dir.path().display();
        let listen = if text.lines().any(|line| line.trim_start().starts_with("Listen ")) {
            ""
        } else {
            "Listen 127.0.0.1:0\n"
        };
        self.write(&format!(
            "ServerRoot \"{directory}\"\nPidFile \"{directory}/ostler.pid\"\n\
             ScoreBoardFile \"{directory}/scoreboard\"\nErrorLog \"{directory}/error.log\"\nLogLevel info\n\
             ServerName proxy.test\n{listen}{text}\n"
        ))
    }

    /// A file's text; empty if it is not there.
    pub fn read(&self, name: &str) -> String {
        fs::read(self.path(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

/// What one bounded run of the program did.
#[derive(Debug)]
pub struct Run {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs the program with these arguments to its end.
#[track_caller]
pub fn ostler(arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
    command.args(arguments);
    run(command)
}

/// Runs a command to its end. Output goes to files: a daemon that it leaves behind may keep them open.
#[track_caller]
pub fn run(mut command: Command) -> Run {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let stdio = |path: &Path| Stdio::from(File::create(path).expect("the directory is the test's own"));
    command.stdin(Stdio::null()).stdout(stdio(&out)).stderr(stdio(&err)).process_group(0);
    let mut child = command.spawn().expect("the program can be run");
    let group = pid_of(&child);
    let status = wait_for_exit(&mut child);
    let read = |path: &Path| fs::read_to_string(path).expect("the program writes text");
    let (stdout, stderr) = (read(&out), read(&err));
    match status {
        Some(status) => Run { code: status.code(), stdout, stderr },
        None => {
            end_group(group);
            let _ = child.wait();
            panic!("{command:?} does not end\nstdout:\n{stdout}\nstderr:\n{stderr}");
        }
    }
}

/// What the daemon says of itself by `ostler status`.
#[derive(Clone, Debug)]
pub struct Status {
    /// Workers with a request (or, by driver, a connection).
    pub busy: u32,
    /// Workers without.
    pub idle: u32,
    /// The whole text.
    pub text: String,
}

/// A running daemon.
pub struct Daemon {
    home: Home,
    /// `None` if it has detached itself.
    process: Option<Child>,
    master: Cell<i32>,
    group: i32,
    addresses: Vec<SocketAddr>,
    tolerated: RefCell<Vec<String>>,
}

/// Tests work daemons to their limits on purpose.
const EXPECTED: &str = "MaxRequestWorkers";

impl Daemon {
    /// Starts with `text` under the default driver.
    #[track_caller]
    pub fn start(text: &str) -> Self {
        Self::under(Mpm::Event, text)
    }

    /// Starts with `text` under `mpm`.
    #[track_caller]
    pub fn under(mpm: Mpm, text: &str) -> Self {
        Self::at(Home::new(), &format!("MPM {}\n{text}", mpm.name()))
    }

    /// Starts in a directory that the test has prepared; `text` itself names the driver.
    #[track_caller]
    pub fn at(home: Home, text: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
        command.stdin(Stdio::null());
        Self::by(command, home, text)
    }

    /// Starts as a user without a name and without rights, whose processes are the daemon's only: to be called by
    /// root. Not from where it was built, which that user may not see.
    #[track_caller]
    pub fn as_somebody(mpm: Mpm, text: &str) -> Self {
        let home = Home::new();
        let id = 50_000 + std::process::id() % 10_000;
        let program = home.path("ostler");
        fs::copy(env!("CARGO_BIN_EXE_ostler"), &program).expect("there is room for a copy");
        chown(home.path("").as_path(), Some(id), Some(id)).expect("root may");
        let mut command = Command::new(program);
        command.uid(id).gid(id);
        Self::by(command, home, &format!("MPM {}\n{text}", mpm.name()))
    }

    /// The same by a command of the test's own, which gets the arguments of a daemon in the foreground.
    #[track_caller]
    pub fn by(mut command: Command, home: Home, text: &str) -> Self {
        super::descriptors();
        let config = home.write_whole(text);
        let output = File::create(home.path("output")).expect("the directory is the test's own");
        let second = output.try_clone().expect("a descriptor is free");
        let process = command
            .args(["-X", "-f"])
            .arg(&config)
            .env("RUST_BACKTRACE", "1")
            .stdout(output)
            .stderr(second)
            .process_group(0)
            .spawn()
            .expect("the program can be run");
        let master = pid_of(&process);
        let mut daemon = Self::new(home, Some(process), master, master);
        daemon.wait_until_serving();
        daemon
    }

    /// Starts by `-k start`, which leaves a daemon behind and returns.
    #[track_caller]
    pub fn detached(mpm: Mpm, text: &str) -> Self {
        Self::detached_at(Home::new(), &format!("MPM {}\n{text}", mpm.name()))
    }

    /// The same in a directory that the test has prepared; `text` itself names the driver.
    #[track_caller]
    pub fn detached_at(home: Home, text: &str) -> Self {
        let config = home.write_whole(text);
        let run = ostler(&["-k", "start", "-f", &config.to_string_lossy()]);
        let master = home.read("ostler.pid").trim().parse().unwrap_or(0);
        let group = processes::look(master).map_or(0, |process| process.group);
        let mut daemon = Self::new(home, None, master, group);
        assert_eq!(run.code, Some(0), "-k start: {run:?}");
        assert!(master > 0, "-k start has returned without a PidFile: {run:?}");
        // It returns when the daemon serves, so the word must be there already, unless a program has yet to write it.
        let is_there = text.contains("ErrorLog \"|") || daemon.log().contains("serving on ");
        assert!(is_there, "-k start has returned before the daemon serves");
        daemon.wait_until_serving();
        daemon
    }

    fn new(home: Home, process: Option<Child>, master: i32, group: i32) -> Self {
        Self {
            home,
            process,
            master: Cell::new(master),
            group,
            addresses: Vec::new(),
            tolerated: RefCell::new(vec![EXPECTED.to_owned()]),
        }
    }

    #[track_caller]
    fn wait_until_serving(&mut self) {
        let start = Instant::now();
        loop {
            if let Some(line) = self.log().lines().find(|line| line.contains("serving on ")) {
                self.addresses = addresses(line);
                assert!(!self.addresses.is_empty(), "no address in {line:?}");
                return;
            }
            if let Some(process) = &mut self.process {
                let status = process.try_wait().expect("it is our own child");
                assert!(status.is_none(), "the daemon has ended: {status:?}\n{}", self.home.read("output"));
            }
            assert!(start.elapsed() < PATIENCE, "the daemon does not say that it serves");
            std::thread::sleep(GLANCE);
        }
    }

    /// Its directory.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Where it listens: the first address.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The master's number.
    pub fn master(&self) -> i32 {
        self.master.get()
    }

    /// Waits until the PidFile names another process, which is the master from then on; its number.
    #[track_caller]
    pub fn follow(&self) -> i32 {
        let master = wait_until("another master", || {
            let pid = self.home.read("ostler.pid").trim().parse().ok()?;
            (pid != self.master()).then_some(pid)
        });
        self.master.set(master);
        master
    }

    /// The numbers of its living children.
    pub fn children(&self) -> Vec<i32> {
        processes::children_of(self.master())
    }

    /// Waits until so many children live, and gives their numbers.
    #[track_caller]
    pub fn wait_for_children(&self, count: usize) -> Vec<i32> {
        wait_until(&format!("{count} children"), || Some(self.children()).filter(|pids| pids.len() == count))
    }

    /// A client that has asked for `target` and reads the answer later.
    #[track_caller]
    pub fn ask(&self, target: &str) -> Client {
        let mut client = self.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client
    }

    /// The child that holds this client's connection.
    #[track_caller]
    pub fn child_of(&self, client: &Client) -> i32 {
        wait_until("a child that holds the connection", || {
            processes::holder(&self.children(), self.address(), client.address())
        })
    }

    /// Lines of the error log, their ends written, that hold `words`.
    pub fn lines_with(&self, words: &str) -> Vec<String> {
        let log = self.log();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }

    /// How many client connections each child holds.
    pub fn connections(&self) -> Vec<usize> {
        processes::connections(&self.children(), self.address()).into_values().collect()
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.master()), signal).expect("the master is there");
    }

    /// A new connection.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        let answer = self.try_get(target);
        answer.unwrap_or_else(|failure| panic!("GET {target}: {failure:?}"))
    }

    /// One GET on a connection of its own, or why there was no answer.
    pub fn try_get(&self, target: &str) -> Result<Response, Failure> {
        get(self.address(), target)
    }

    /// What `ostler status` says.
    #[track_caller]
    pub fn status(&self) -> Status {
        let run = ostler(&["status", "-f", &self.home.config().to_string_lossy()]);
        // Where every worker is busy it leaves with 2.
        assert!(matches!(run.code, Some(0 | 2)), "ostler status: {run:?}");
        let busy = number_before(&run.stdout, "busy");
        let idle = number_before(&run.stdout, "idle");
        let (Some(busy), Some(idle)) = (busy, idle) else {
            panic!("neither busy nor idle in:\n{}", run.stdout)
        };
        Status { busy, idle, text: run.stdout }
    }

    /// Waits until the scoreboard satisfies `is_so`.
    #[track_caller]
    pub fn wait_for_status(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        wait_until(what, || Some(self.status()).filter(|status| is_so(status)))
    }

    /// The error log so far.
    pub fn log(&self) -> String {
        self.home.read("error.log")
    }

    /// Waits for a line of the log that holds `words`, and gives it.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) -> String {
        self.wait_for_line(words, |line| line.contains(words))
    }

    /// Waits for a line of the log that satisfies `is_it`, and gives it.
    #[track_caller]
    pub fn wait_for_line(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        wait_until(&format!("a log line: {what}"), || {
            let log = self.log();
            // The last line may still be without its end.
            let whole = log.rfind('\n').map_or("", |end| &log[..end]);
            whole.lines().find(|line| is_it(line)).map(str::to_owned)
        })
    }

    /// Lines of level error and above that hold `words` are what this test wants to see.
    pub fn tolerate(&self, words: &str) {
        self.tolerated.borrow_mut().push(words.to_owned());
    }

    /// Waits until the master has ended; its exit code, if it is our child.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> Option<ExitStatus> {
        let master = self.master();
        match &mut self.process {
            Some(process) if pid_of(process) == master => {
                let status = wait_for_exit(process);
                assert!(status.is_some(), "the master does not end");
                status
            }
            _ => {
                wait_until("the master's end", || (!processes::is_alive(master)).then_some(()));
                None
            }
        }
    }

    /// Asserts that all of these children still live; new ones may have come beside them.
    #[track_caller]
    pub fn assert_alive(&self, before: &[i32]) {
        let now = self.children();
        assert!(before.iter().all(|child| now.contains(child)), "{before:?} became {now:?}");
    }

    /// Whether the master runs.
    pub fn is_running(&self) -> bool {
        processes::is_alive(self.master())
    }

    /// Lines of the log that an administrator would have to act on, and the test did not ask for.
    pub fn complaints(&self) -> Vec<String> {
        let tolerated = self.tolerated.borrow();
        let is_serious = |line: &str| {
            [":error]", ":crit]", ":alert]", ":emerg]", "panick"].iter().any(|level| line.contains(level))
        };
        let is_tolerated = |line: &str| tolerated.iter().any(|words| line.contains(words.as_str()));
        let text = self.log() + &self.home.read("output");
        text.lines().filter(|line| is_serious(line) && !is_tolerated(line)).map(str::to_owned).collect()
    }

    /// Everything there is to know of a failure.
    pub fn report(&self) -> String {
        format!(
            "---- configuration\n{}\n---- output\n{}\n---- error log (its end)\n{}\n---- processes\n{}",
            self.home.read("ostler.conf"),
            self.home.read("output"),
            tail(&self.log(), 60),
            processes::tree(self.group),
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let is_failing = std::thread::panicking();
        if is_failing {
            eprintln!("{}", self.report());
        }
        if self.master() > 0 && self.is_running() {
            let _ = kill(Pid::from_raw(self.master()), Signal::SIGINT);
        }
        let first_has_ended = match &mut self.process {
            Some(process) => {
                if pid_of(process) != self.master.get() {
                    // It has been followed by another, and may still have something to finish.
                    let _ = kill(Pid::from_raw(pid_of(process)), Signal::SIGINT);
                }
                wait_for_exit(process).is_some()
            }
            None => true,
        };
        let has_ended = first_has_ended && gone_within(PATIENCE, || !self.is_running());
        // Children see their orders socket end when the master does; a moment is theirs.
        let is_empty = gone_within(Duration::from_secs(10), || processes::members(self.group).is_empty());
        let tree = processes::tree(self.group);
        end_group(self.group);
        if let Some(process) = &mut self.process {
            let _ = process.wait();
        }
        if is_failing {
            return;
        }
        assert!(has_ended, "SIGINT does not end the master\n{tree}\n{}", self.report());
        assert!(is_empty, "processes left behind:\n{tree}\n{}", self.report());
        let complaints = self.complaints();
        assert!(complaints.is_empty(), "unexpected: {complaints:#?}\n{}", self.report());
    }
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, target: &str) -> Result<Response, Failure> {
    let mut client = Client::try_connect(address)?;
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
    let answer = client.answer("GET")?;
    client.closed()?;
    Ok(answer)
}

/// The addresses behind `serving on `.
pub fn addresses(line: &str) -> Vec<SocketAddr> {
    let list = line.split("serving on ").nth(1).unwrap_or_default();
    list.split([' ', ',', ';'])
        .map(|word| word.trim_end_matches('.'))
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// The number that stands before `word`: `12 busy`.
fn number_before(text: &str, word: &str) -> Option<u32> {
    let pattern = regex::Regex::new(&format!(r"(\d+) {word}\b")).expect("a literal pattern");
    pattern.captures(text)?.get(1)?.as_str().parse().ok()
}

fn pid_of(process: &Child) -> i32 {
    i32::try_from(process.id()).expect("the kernel's numbers are small")
}

fn wait_for_exit(process: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = process.try_wait().expect("it is our own child") {
            return Some(status);
        }
        if start.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(GLANCE);
    }
}

fn gone_within(span: Duration, is_gone: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !is_gone() {
        if start.elapsed() > span {
            return false;
        }
        std::thread::sleep(GLANCE);
    }
    true
}

/// Kills what is left of a daemon's process group, by number.
fn end_group(group: i32) {
    if group <= 1 || group == nix::unistd::getpgrp().as_raw() {
        return;
    }
    for pid in processes::members(group) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
