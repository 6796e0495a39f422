//! Starting where it cannot work: exit 1, one sentence that says what and what to do, and nothing left behind.

use crate::support::daemon::run;
use crate::support::{Backend, Daemon, Home, Mpm, Run, is_root, ostler};
use std::fs;
use std::net::TcpListener;
use std::process::Command;

/// Starts in the foreground (which is to fail) and by `-k start` (likewise); both must refuse alike.
#[track_caller]
fn refusals(home: &Home, text: &str) -> Vec<Run> {
    let config = home.write_whole(text).to_string_lossy().into_owned();
    let runs = vec![ostler(&["-X", "-f", &config]), ostler(&["-k", "start", "-f", &config])];
    for run in &runs {
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(!home.path("ostler.pid").exists(), "a PidFile is left behind: {run:?}");
        assert!(!run.stderr.contains("panicked"), "{run:?}");
    }
    runs
}

/// The same, and every run says it in one line that holds all of `words`.
#[track_caller]
fn one_line_says(runs: &[Run], words: &[&str]) {
    for run in runs {
        let lines: Vec<&str> = run.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        let says_all =
            |line: &&str| words.iter().all(|word| line.to_lowercase().contains(&word.to_lowercase()));
        assert_eq!(lines.iter().filter(|line| says_all(line)).count(), 1, "{words:?} in one line of {run:?}");
    }
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let address = taken.local_addr().expect("bound").to_string();
    let home = Home::new();
    let runs = refusals(&home, &format!("Listen {address}\nProxyPass / http://127.0.0.1:9/"));
    one_line_says(&runs, &["cannot listen on", &address, "in use"]);
    assert!(!home.path("scoreboard").exists(), "a scoreboard is left behind");
}

#[test]
fn a_pid_file_that_cannot_be_written() {
    let home = Home::new();
    let path = home.path("nowhere/ostler.pid");
    let runs = refusals(&home, &format!("PidFile \"{}\"\nProxyPass / http://127.0.0.1:9/", path.display()));
    one_line_says(&runs, &[&path.to_string_lossy()]);
}

#[test]
fn a_log_that_cannot_be_written() {
    for directive in ["ErrorLog \"{}\"", "CustomLog \"{}\" common"] {
        let home = Home::new();
        let path = home.path("nowhere/some.log").to_string_lossy().into_owned();
        let runs =
            refusals(&home, &format!("{}\nProxyPass / http://127.0.0.1:9/", directive.replace("{}", &path)));
        one_line_says(&runs, &[&path]);
    }
}

#[test]
fn a_scoreboard_that_cannot_be_written() {
    let home = Home::new();
    let path = home.path("nowhere/board");
    let runs =
        refusals(&home, &format!("ScoreBoardFile \"{}\"\nProxyPass / http://127.0.0.1:9/", path.display()));
    one_line_says(&runs, &[&path.to_string_lossy()]);
}

#[test]
fn a_user_that_is_unknown() {
    if !is_root() {
        eprintln!("User is a warning without root");
        return;
    }
    let home = Home::new();
    let runs = refusals(&home, "User no-such-user-here\nProxyPass / http://127.0.0.1:9/");
    one_line_says(&runs, &["no-such-user-here"]);
    let home = Home::new();
    let runs = refusals(&home, "User nobody\nGroup no-such-group-here\nProxyPass / http://127.0.0.1:9/");
    one_line_says(&runs, &["no-such-group-here"]);
}

#[test]
fn too_few_descriptors() {
    let home = Home::new();
    let config = home.write_whole("ProxyPass / http://127.0.0.1:9/");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 24; exec \"$0\" -X -f \"$1\"", env!("CARGO_BIN_EXE_ostler")]).arg(&config);
    let run = run(command);
    assert_eq!(run.code, Some(1), "{run:?}");
    one_line_says(&[run], &["24", "nofile"]);
    assert!(!home.path("ostler.pid").exists(), "a PidFile is left behind");
}

#[test]
fn a_daemon_of_the_same_pid_file() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let before = daemon.home().read("ostler.pid");
    let run = ostler(&["-X", "-f", &daemon.home().config().to_string_lossy()]);
    assert_ne!(run.code, None, "{run:?}");
    assert!((run.stdout + &run.stderr).contains("running"), "it says so");
    assert_eq!(daemon.home().read("ostler.pid"), before, "the first one's PidFile stays");
    assert_eq!(daemon.get("/").status, 200);
    daemon.status();
}

#[test]
fn a_daemon_of_the_same_scoreboard() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    daemon.tolerate("is running and shows itself there");
    let home = daemon.home();
    let text = fs::read_to_string(home.config()).expect("the daemon has read it");
    let other = home.path("other.conf");
    let pid_file = home.path("other.pid").display().to_string();
    fs::write(&other, text + &format!("PidFile \"{pid_file}\"\n")).expect("the directory is the test's own");
    for flags in [&["-X"][..], &["-k", "start"]] {
        let run = ostler(&[flags, &["-f", &other.to_string_lossy()]].concat());
        assert_eq!(run.code, Some(1), "{run:?}");
        let said = format!("ostler (pid {}) is running and shows itself there", daemon.master());
        assert!(run.stderr.contains(&said), "{run:?}");
        assert!(!home.path("other.pid").exists(), "its PidFile is left behind");
    }
    assert!(daemon.status().text.contains(&format!("master {}", daemon.master())));
}

#[test]
fn faults_of_a_configuration_are_all_told_and_nothing_starts() {
    let home = Home::new();
    let runs = refusals(&home, "ProxyPss / http://127.0.0.1:9/\nKeepAliveTimeout soon\nListen 99999999");
    let text = fs::read_to_string(home.config()).expect("written above");
    for run in &runs {
        for (word, hint) in
            [("ProxyPss", "ProxyPass"), ("KeepAliveTimeout", "soon"), ("Listen 9", "99999999")]
        {
            let number = text.lines().position(|line| line.contains(word)).expect("written above") + 1;
            assert!(run.stderr.contains(&format!("ostler.conf:{number}:")), "line {number} in {run:?}");
            assert!(run.stderr.contains(hint), "{hint} in {run:?}");
        }
    }
    assert!(
        !home.path("error.log").exists() || home.read("error.log").is_empty(),
        "a faulty file opens no log"
    );
    assert!(!home.path("scoreboard").exists());
}

#[test]
fn a_configuration_that_is_not_there() {
    let home = Home::new();
    let run = ostler(&["-X", "-f", &home.path("missing.conf").to_string_lossy()]);
    assert_eq!(run.code, Some(1), "{run:?}");
    one_line_says(&[run], &["missing.conf", "no such file"]);
}

#[test]
fn children_serve_as_the_user_that_was_asked_for() {
    if !is_root() {
        eprintln!("only root can change users");
        return;
    }
    let backend = Backend::start();
    for mpm in [Mpm::Event, Mpm::Prefork] {
        let daemon =
            Daemon::under(mpm, &format!("User nobody\nGroup nogroup\nProxyPass / {}/", backend.url()));
        assert_eq!(daemon.get("/").status, 200);
        for child in daemon.children() {
            let user = crate::support::processes::figure(child, "Uid").expect("the kernel knows");
            let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("every system has it");
            assert_eq!(user, u64::from(nobody.uid.as_raw()), "{mpm:?}");
        }
        assert_eq!(crate::support::processes::figure(daemon.master(), "Uid"), Some(0));
        // Whatever the system asks for its names was loaded elsewhere.
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.master())).expect("it lives");
        assert!(!maps.contains("libnss_"), "{maps}");
    }
}
