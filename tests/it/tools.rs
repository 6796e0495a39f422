//! The program as a tool: what it answers, and how it leaves when there is nothing to do or nobody to listen.

use crate::support::daemon::run;
use crate::support::{Backend, Daemon, Home, Mpm, ostler};
use std::process::{Command, Stdio};

#[test]
fn without_a_configuration_it_says_what_to_do() {
    if std::path::Path::new("/etc/ostler/ostler.conf").exists() {
        return;
    }
    let none = ostler(&[]);
    assert_eq!(none.code, Some(1), "{none:?}");
    for words in ["no configuration at /etc/ostler/ostler.conf", "ostler demo", "--listen", "-f FILE"] {
        assert!(none.stderr.contains(words), "{words}: {none:?}");
    }
    let early = ostler(&["-f", "/nowhere/ostler.conf", "status"]);
    assert!(early.code == Some(2) && early.stderr.contains("ostler status -f FILE"), "{early:?}");
    for (arguments, code) in [(&["status"][..], 3), (&["-k", "status"], 3), (&["-k", "stop"], 1)] {
        let run = ostler(arguments);
        assert_eq!((run.code, run.stderr.lines().count()), (Some(code), 1), "{run:?}");
    }
}

#[test]
fn what_is_not_built_is_refused_in_one_line() {
    for (arguments, words) in [(["-e", "debug"], "LogLevel"), (["-E", "startup.log"], "2>FILE")] {
        let run = ostler(&arguments);
        assert_eq!((run.code, run.stderr.lines().count()), (Some(2), 1), "{run:?}");
        assert!(run.stderr.contains(words), "{run:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    for arguments in [&["-L"][..], &["-M"], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ostler"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it is our own child");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn virtual_hosts_are_listed() {
    let home = Home::new();
    let config = home.write_whole(
        "ProxyPass / http://127.0.0.1:9/\n<VirtualHost *:80>\nServerName a.test\nServerAlias b.test\n</VirtualHost>",
    );
    for arguments in [["-S", "-f"], ["-DDUMP_VHOSTS", "-f"]] {
        let run = ostler(&[arguments[0], arguments[1], &config.to_string_lossy()]);
        assert_eq!(run.code, Some(0), "{run:?}");
        for line in ["VirtualHost configuration:", "a.test", "alias b.test", "Syntax OK"] {
            assert!(run.stdout.contains(line), "{line}: {run:?}");
        }
    }
}

#[test]
fn a_line_of_the_command_line_has_faults_like_one_of_the_file() {
    let home = Home::new();
    let config = home.write_whole("ProxyPass / http://127.0.0.1:9/").to_string_lossy().into_owned();
    let good = ostler(&["-t", "-f", &config, "-C", "Timeout 5", "-c", "KeepAlive Off"]);
    assert_eq!(good.code, Some(0), "{good:?}");
    let bad = ostler(&["-t", "-f", &config, "-c", "KeepAlive maybe"]);
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(bad.stderr.contains("maybe") && bad.stderr.contains("-c:1:11"), "{bad:?}");
}

#[test]
fn the_script_shows_the_status_too() {
    let backend = Backend::start();
    let daemon = Daemon::under(Mpm::Prefork, &format!("ProxyPass / {}/", backend.url()));
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/ostler-status"));
    script
        .env("OSTLER", env!("CARGO_BIN_EXE_ostler"))
        .arg("--scoreboard")
        .arg(daemon.home().path("scoreboard"));
    let shown = run(script);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains(&daemon.master().to_string()), "{shown:?}");
    for (form, begin) in [
        ("--auto", "proxy.test\nServerVersion: Ostler/"),
        ("--json", "{\""),
        ("--prometheus", "# HELP ostler_build_info "),
    ] {
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/ostler-status"));
        script.env("OSTLER", env!("CARGO_BIN_EXE_ostler")).args([form, "-f"]).arg(daemon.home().config());
        let shown = run(script);
        assert!(shown.code == Some(0) && shown.stdout.starts_with(begin), "{form}: {shown:?}");
    }

    let mut lost = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/ostler-status"));
    lost.env("OSTLER", "/nowhere/ostler");
    let lost = run(lost);
    assert!(lost.code == Some(3) && lost.stderr.contains("OSTLER"), "{lost:?}");
}

#[test]
fn a_second_start_says_that_it_runs_and_succeeds() {
    let backend = Backend::start();
    let daemon = Daemon::detached(Mpm::Event, &format!("ProxyPass / {}/", backend.url()));
    let again = ostler(&["-k", "start", "-f", &daemon.home().config().to_string_lossy()]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains(&format!("(pid {}) is already running", daemon.master())), "{again:?}");
    let stopped = ostler(&["-k", "graceful-stop", "-f", &daemon.home().config().to_string_lossy()]);
    assert!(stopped.code == Some(0) && stopped.stdout.contains("has stopped"), "{stopped:?}");
    let none = ostler(&["-k", "stop", "-f", &daemon.home().config().to_string_lossy()]);
    assert!(none.code == Some(0) && none.stdout.contains("not running"), "{none:?}");
}

#[test]
fn the_configuration_in_the_readme_loads_without_a_complaint() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("it is there");
    let (_, rest) = readme.split_once("```apache\n").expect("the README has a configuration");
    let (text, _) = rest.split_once("```").expect("a block ends");
    let home = Home::new();
    let config = home.write(text).to_string_lossy().into_owned();
    let run = ostler(&["-t", "-f", &config]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    assert!(run.stdout.contains("event: 6 children x 25 threads = 150 workers"), "{run:?}");
}
