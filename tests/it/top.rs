//! `ostler top` in a terminal: what it draws, how it heeds keys and sizes, and what it leaves behind.

use crate::support::load::all_served;
use crate::support::terminal::Terminal;
use crate::support::{Backend, Daemon, Mpm, at_once, ostler, processes};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ostler");

fn top(daemon: &Daemon, columns: u16, rows: u16) -> Terminal {
    let board = daemon.home().path("scoreboard");
    let arguments = ["top", "--interval", "0.1", "--scoreboard", &board.to_string_lossy()];
    Terminal::start(Path::new(PROGRAM), &arguments, &[], columns, rows)
}

/// Under `mpm`, with room for six requests at a time in at most two children.
fn daemon_of_six(mpm: Mpm, backend: &Backend) -> Daemon {
    let limits = if mpm.is_prefork() {
        "StartServers 6\nServerLimit 6\nMaxRequestWorkers 6\nMinSpareServers 1\nMaxSpareServers 6\n"
    } else {
        "StartServers 2\nServerLimit 2\nThreadsPerChild 3\nMaxRequestWorkers 6\nMinSpareThreads 1\nMaxSpareThreads 6\n"
    };
    let daemon = Daemon::under(mpm, &format!("{limits}ProxyPass / {}/", backend.url()));
    daemon.wait_for_status("six idle workers", |status| (status.busy, status.idle) == (0, 6));
    daemon
}

/// The letters of each child in `lines`, by pid: what stands behind a line's `column` words, joined over its folds.
fn letters(lines: &[String], children: &[i32]) -> Vec<(i32, String)> {
    let of = |pid: &i32| {
        let is_its = |line: &&String| line.split_whitespace().nth(1) == Some(&pid.to_string());
        let line = lines.iter().find(is_its)?;
        Some((*pid, line.split_whitespace().last()?.to_owned()))
    };
    children.iter().filter_map(of).collect()
}

under_each_mpm! {
    fn the_grid_is_the_scoreboards(mpm) {
        let backend = Backend::start();
        let daemon = daemon_of_six(mpm, &backend);
        let address = daemon.address();
        let clients = at_once(2, move |number| crate::support::daemon::get(address, &format!("/hold/{number}")));
        backend.wait_for_now(2);
        let status = daemon.wait_for_status("two busy workers", |status| (status.busy, status.idle) == (2, 4));
        let mut top = top(&daemon, 100, 40);
        let (lines, _) = top.wait_for("two requests", |lines| lines.iter().any(|line| line.contains("REQUEST  2 by age")));
        assert!(top.is_taken());
        let children = daemon.children();
        let text: Vec<String> = status.text.lines().map(str::to_owned).collect();
        let want = letters(&text, &children);
        assert_eq!(want.iter().flat_map(|(_, letters)| letters.chars()).filter(|letter| *letter == 'W').count(), 2, "{text:#?}");
        assert_eq!(letters(&lines, &children), want, "{lines:#?}");
        let shown = lines.join("\n");
        for words in ["SERVING", "2 of 6 busy, 4 idle", "GET /hold/0 HTTP/1.1", "GET /hold/1 HTTP/1.1", "127.0.0.1", &backend.url()] {
            assert!(shown.contains(words), "{words}\n{shown}");
        }
        backend.release();
        all_served(clients);
        let after = top.wait_for_words("0 of 6 busy, 6 idle");
        assert!(after.join("\n").contains("none under way"), "{after:#?}");
        top.press("q");
        assert_eq!(top.wait_for_end().0.code(), Some(0));
    }
}

#[test]
fn with_every_worker_busy_it_is_there_at_once_and_names_all_requests() {
    let backend = Backend::start();
    let daemon = daemon_of_six(Mpm::Event, &backend);
    let address = daemon.address();
    // Six are served; the others wait in the kernel.
    let clients = at_once(12, move |number| crate::support::daemon::get(address, &format!("/hold/{number}")));
    backend.wait_for_now(6);
    daemon.wait_for_status("six busy workers", |status| status.busy == 6);
    let is_whole = |lines: &[String]| {
        let named = (0..12)
            .filter(|number| lines.iter().any(|line| line.contains(&format!("GET /hold/{number} "))))
            .count();
        named == 6
            && lines.iter().any(|line| line.contains("FULL"))
            && lines.iter().any(|line| line.contains("6 of 6 busy"))
    };
    // The machine may be busy with other tests; one start of these must have had a fair chance.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut top = top(&daemon, 80, 24);
        let (_, took) = top.wait_for("all six requests by name", is_whole);
        best = best.min(took);
        top.press("q");
        assert_eq!(top.wait_for_end().0.code(), Some(0));
        if best < Duration::from_secs(1) {
            break;
        }
    }
    assert!(best < Duration::from_secs(1), "the first frame came after {best:?}");
    backend.release();
    all_served(clients);
}

#[test]
fn another_size_is_drawn_anew_and_a_filter_sifts() {
    let backend = Backend::start();
    let daemon = daemon_of_six(Mpm::Event, &backend);
    let address = daemon.address();
    let clients =
        at_once(3, move |number| crate::support::daemon::get(address, &format!("/hold/needle{number}")));
    backend.wait_for_now(3);
    let mut top = top(&daemon, 80, 24);
    top.wait_for_words("REQUEST  3 by age");
    for (columns, rows) in [(120, 40), (40, 10), (1, 1), (200, 60), (80, 24)] {
        top.resize(columns, rows);
        top.wait_for("keys in the last line", |lines| {
            lines.len() == usize::from(rows)
                && (rows < 4 || lines.last().is_some_and(|line| line.contains(" q quit ")))
        });
    }
    // Typed letter by letter, and found in any case.
    top.press("/NEEDLE1");
    let typing = top.wait_for_words("REQUEST  1 of 3 by age");
    assert!(typing.join("\n").contains(" filter: needle1_"), "{typing:#?}");
    top.press("\r");
    let lines = top.wait_for_words("only \"needle1\"");
    let shown = lines.join("\n");
    assert!(shown.contains("/hold/needle1 ") && !shown.contains("/hold/needle0 "), "{shown}");
    top.press("/\x15\rs");
    top.wait_for_words("REQUEST  3 by slot");
    top.press("?");
    top.wait_for_words("ostler top: keys and letters");
    top.press("\x1b");
    top.wait_for("the help's end", |lines| !lines.iter().any(|line| line.contains("keys and letters")));
    top.press("p");
    top.wait_for_words(" paused ");
    backend.release();
    all_served(clients);
    daemon.wait_for_status("nobody busy", |status| status.busy == 0);
    assert!(top.lines().join("\n").contains("REQUEST  3 by slot"), "while it pauses, it shows what was");
    top.press("p");
    top.wait_for_words("0 of 6 busy");
    // Something else has written to the screen.
    std::fs::write(top.path(), "\x1b[2J").expect("it is a terminal");
    top.wait_for("an empty screen", |lines| !lines.iter().any(|line| line.contains("0 of 6 busy")));
    top.press("\x0c");
    top.wait_for_words("0 of 6 busy");
    top.press("q");
    assert_eq!(top.wait_for_end().0.code(), Some(0));
}

#[test]
fn however_it_ends_the_terminal_is_as_it_was() {
    let backend = Backend::start();
    let daemon = daemon_of_six(Mpm::Event, &backend);
    for key in ["q", "\x1b", "\x03", "/typing\x03"] {
        let mut top = top(&daemon, 80, 24);
        top.wait_for_words("0 of 6 busy");
        assert!(top.is_taken());
        top.press(key);
        assert_eq!(top.wait_for_end().0.code(), Some(0), "{key:?}");
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        let mut top = top(&daemon, 80, 24);
        top.wait_for_words("0 of 6 busy");
        top.signal(signal);
        assert_eq!(top.wait_for_end().0.code(), Some(0), "{signal:?}");
    }
}

#[test]
fn it_stands_aside_for_the_shell_and_comes_back() {
    let backend = Backend::start();
    let daemon = daemon_of_six(Mpm::Event, &backend);
    let board = daemon.home().path("scoreboard");
    let script = format!(
        "set -m; {PROGRAM} top --interval 0.1 --scoreboard {}; echo the shell is back; read line; fg; echo over",
        board.display()
    );
    let mut top = Terminal::start(Path::new("/bin/bash"), &["--norc", "-c", &script], &[], 80, 24);
    top.wait_for_words("0 of 6 busy");
    top.press("\x1a");
    top.wait_for_words("the shell is back");
    assert!(!top.is_taken());
    top.press("\r");
    top.wait_for_words("0 of 6 busy");
    assert!(top.is_taken());
    top.press("q");
    let (status, lines) = top.wait_for_end();
    assert!(status.success() && lines.iter().any(|line| line == "over"), "{lines:#?}");
}

/// Played by [`a_panic_leaves_the_terminal_as_it_was_and_its_message_readable`] in a process of its own.
const PANIC: &str = "OSTLER_TEST_PANIC";

#[test]
fn a_panic_leaves_the_terminal_as_it_was_and_its_message_readable() {
    if std::env::var_os(PANIC).is_some() {
        let mut screen = ostler::top::screen::Screen::take().expect("the test has given a terminal");
        let _ = screen.show(|_, _| panic!("of the test's own"));
        unreachable!("a drawing that panics does not return");
    }
    let program = std::env::current_exe().expect("a test is a program");
    let name = "top::a_panic_leaves_the_terminal_as_it_was_and_its_message_readable";
    // A backtrace may fill the screen.
    let given = [(PANIC, "1"), ("RUST_BACKTRACE", "0")];
    let terminal = Terminal::start(&program, &["--exact", name, "--nocapture"], &given, 100, 30);
    let (status, lines) = terminal.wait_for_end();
    assert!(!status.success());
    assert!(lines.iter().any(|line| line.contains("of the test's own")), "{lines:#?}");
}

#[test]
fn a_dead_server_is_shown_as_it_was_and_a_new_one_is_found() {
    let backend = Backend::start();
    let mut daemon = daemon_of_six(Mpm::Event, &backend);
    let mut top = top(&daemon, 140, 40);
    top.wait_for_words(&format!("master {}", daemon.master()));
    daemon.signal(Signal::SIGUSR2);
    let master = daemon.follow();
    top.wait_for_words(&format!("master {master}"));
    daemon.wait_for_status("the new one's six idle workers", |status| (status.busy, status.idle) == (0, 6));
    let address = daemon.address();
    let client = at_once(1, move |_| crate::support::daemon::get(address, "/hold/witness"));
    backend.wait_for_now(1);
    top.wait_for_words("GET /hold/witness");
    daemon.tolerate("master");
    let children = daemon.children();
    for pid in [master].iter().chain(&children) {
        processes::send(*pid, Signal::SIGKILL);
    }
    daemon.wait_for_end();
    let lines = top.wait_for_words(&format!("DEAD  master {master} is gone"));
    let shown = lines.join("\n");
    assert!(
        shown.contains("GET /hold/witness") && letters(&lines, &children).len() == children.len(),
        "{shown}"
    );
    // Without its file, what was read stays.
    std::fs::remove_file(daemon.home().path("scoreboard")).expect("it is there");
    let shown = top.wait_for_words("as last read: cannot open").join("\n");
    assert!(shown.contains("No such file or directory") && shown.contains("GET /hold/witness"), "{shown}");
    top.press("q");
    assert_eq!(top.wait_for_end().0.code(), Some(0));
    backend.release();
    for client in client {
        assert!(client.join().expect("a client never panics").is_err());
    }
}

#[test]
fn colours_are_left_out_where_nobody_wants_them() {
    let backend = Backend::start();
    let daemon = daemon_of_six(Mpm::Event, &backend);
    let mut coloured = top(&daemon, 80, 24);
    coloured.wait_for_words("0 of 6 busy");
    assert!(coloured.has_colour());
    let board = daemon.home().path("scoreboard").to_string_lossy().into_owned();
    let arguments = ["top", "--scoreboard", &board];
    let mut plain = Terminal::start(Path::new(PROGRAM), &arguments, &[("NO_COLOR", "1")], 80, 24);
    plain.wait_for_words("0 of 6 busy");
    assert!(!plain.has_colour());
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let home = crate::support::Home::new();
    let board = home.path("scoreboard").to_string_lossy().into_owned();
    let piped = ostler(&["top", "--scoreboard", &board]);
    assert_eq!((piped.code, piped.stderr.lines().count()), (Some(1), 1), "{piped:?}");
    assert!(piped.stderr.contains("ostler status --watch"), "{piped:?}");
    let arguments = ["top", "--scoreboard", &board];
    for (environment, words) in [("dumb", "status --watch"), ("xterm", "there is no scoreboard at ")] {
        let terminal = Terminal::start(Path::new(PROGRAM), &arguments, &[("TERM", environment)], 200, 24);
        let (status, lines) = terminal.wait_for_end();
        assert_eq!(status.code(), Some(1), "{lines:?}");
        assert!(lines.join("\n").contains(words), "{lines:?}");
    }
}
