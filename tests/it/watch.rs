//! `ostler status --watch`, in a pipe and on a terminal.

use crate::support::{Backend, Daemon, Home, Mpm, processes, wait_until};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};

/// A program whose output goes to a file; killed, if it is still there, when dropped.
struct Watcher {
    process: Child,
    home: Home,
}

impl Watcher {
    fn start(mut command: Command) -> Self {
        let home = Home::new();
        let output = File::create(home.path("shown")).expect("the directory is the test's own");
        let errors = output.try_clone().expect("a descriptor is free");
        let process = command.stdin(Stdio::piped()).stdout(output).stderr(errors).spawn();
        Self { process: process.expect("it can be run"), home }
    }

    fn shown(&self) -> String {
        let bytes = fs::read(self.home.path("shown")).expect("it was made at the start");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        wait_until(what, || Some(self.shown()).filter(|shown| is_so(shown)))
    }

    /// Its exit code once it has ended by itself.
    #[track_caller]
    fn end(&mut self) -> Option<i32> {
        let ended = || self.process.try_wait().expect("it is our own child");
        wait_until("the end of the watch", ended).code()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn daemon(backend: &Backend) -> Daemon {
    Daemon::under(Mpm::Event, &format!("{}ProxyPass / {}/", Mpm::Event.one_child(), backend.url()))
}

#[test]
fn into_a_pipe_one_page_follows_the_other_until_a_signal_ends_it() {
    let backend = Backend::start();
    let mut daemon = daemon(&backend);
    let path = daemon.home().path("scoreboard");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
    command.args(["status", "--watch", "0.1", "--json", "--scoreboard"]).arg(&path);
    let mut watcher = Watcher::start(command);
    let documents = |shown: &str| shown.matches("\"life\":\"running\"").count();
    watcher.wait_for("two documents", |shown| documents(shown) >= 2);
    for line in watcher.shown().split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        serde_json::from_str::<serde_json::Value>(line).expect("each line is a document");
    }
    // It goes on when the server stops, and leaves with what it saw last.
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_end();
    watcher.wait_for("a server that has stopped", |shown| shown.contains("\"life\":\"stopped\""));
    processes::send(watcher.process.id() as i32, Signal::SIGINT);
    assert_eq!(watcher.end(), Some(1), "{}", watcher.shown());
}

#[test]
fn a_scoreboard_may_come_later() {
    let home = Home::new();
    let path = home.path("later");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
    command.args(["status", "--watch", "0.1", "--scoreboard"]).arg(&path);
    let mut watcher = Watcher::start(command);
    watcher.wait_for("word that there is none", |shown| shown.contains("there is no scoreboard at"));
    let backend = Backend::start();
    let daemon = daemon(&backend);
    fs::hard_link(daemon.home().path("scoreboard"), &path).expect("both are temporary directories");
    watcher.wait_for("the daemon's", |shown| shown.contains("\nrunning for "));
    processes::send(watcher.process.id() as i32, Signal::SIGTERM);
    assert_eq!(watcher.end(), Some(0), "{}", watcher.shown());
}

/// `script` gives it a terminal and types what it is told.
#[test]
fn a_terminal_is_drawn_in_place_and_given_back() {
    let backend = Backend::start();
    let daemon = daemon(&backend);
    let path = daemon.home().path("scoreboard");
    let program = env!("CARGO_BIN_EXE_ostler");
    let command_line =
        format!("stty rows 9 cols 60; exec '{program}' status --watch 0.1 --scoreboard '{}'", path.display());
    let mut command = Command::new("script");
    command.args(["--quiet", "--flush", "--return", "--command", &command_line, "/dev/null"]);
    command.env("TERM", "xterm").env("SHELL", "/bin/sh");
    let mut watcher = Watcher::start(command);
    let frames = |shown: &str| shown.matches("\x1b[HEvery 0.1 s: ").count();
    let shown = watcher.wait_for("three frames", |shown| frames(shown) >= 3);
    assert!(
        shown.contains("\nrunning for ") && shown.contains(" more lines, for a taller window"),
        "{shown:?}"
    );
    watcher.process.stdin.as_mut().expect("piped").write_all(b"\x03").expect("it reads");
    assert_eq!(watcher.end(), Some(0), "{:?}", watcher.shown());
    let shown = watcher.shown();
    let (enter, leave) = ("\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l");
    for (word, place) in [(enter, shown.find(enter)), (leave, shown.find(leave))] {
        assert_eq!(shown.matches(word).count(), 1, "{shown:?}");
        assert!(place.is_some());
    }
    assert!(shown.trim_end().ends_with(leave), "nothing comes behind: {shown:?}");
}
