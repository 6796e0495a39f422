//! A new program in the place of the running one, and sockets that somebody else has bound: nobody who connects, asks or
//! waits may notice, and whatever goes wrong leaves everything as it was.

use crate::reload::{Crowd, free_port, rewrite};
use crate::support::daemon::{get, run};
use crate::support::{Backend, Client, Daemon, Home, Mpm, Run, holds_for, ostler, processes, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Upgrades, and waits until the new master serves; its number.
#[track_caller]
fn upgrade(daemon: &Daemon) -> i32 {
    let before = served(daemon);
    daemon.signal(Signal::SIGUSR2);
    let master = daemon.follow();
    wait_until("the new master serves", || (served(daemon) > before).then_some(()));
    master
}

/// How often somebody has said that a generation serves.
fn served(daemon: &Daemon) -> usize {
    daemon.log().matches("] serving generation ").count()
}

/// Asks for an upgrade in vain; the log from then on.
#[track_caller]
fn refused(daemon: &Daemon) -> String {
    daemon.tolerate(":error]");
    let before = daemon.log();
    daemon.signal(Signal::SIGUSR2);
    wait_until("a refusal", || {
        let log = daemon.log()[before.len()..].to_owned();
        log.contains("upgrade refused, still serving generation").then_some(log)
    })
}

/// A program of the test's own in `home`, which can be replaced while it runs, and the way to start it.
fn own_program(home: &Home) -> (PathBuf, Command) {
    let program = home.path("program");
    fs::copy(env!("CARGO_BIN_EXE_ostler"), &program).expect("there is room for a copy");
    let mut command = Command::new(&program);
    command.stdin(Stdio::null());
    (program, command)
}

/// Puts a script in the program's place.
fn replace(program: &Path, script: &str) {
    let new = program.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).expect("the test's own");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("the test's own");
    fs::rename(&new, program).expect("the test's own");
}

/// Puts the real program back.
fn restore(program: &Path) {
    let new = program.with_extension("new");
    fs::copy(env!("CARGO_BIN_EXE_ostler"), &new).expect("there is room for a copy");
    fs::rename(&new, program).expect("the test's own");
}

fn order(daemon: &Daemon, order: &str) -> Run {
    ostler(&["-k", order, "-f", &daemon.home().config().to_string_lossy()])
}

/// A command that passes at most two listening sockets as a service manager does, and then runs the program: a shell
/// gets them as standard streams, moves them to descriptors 3 and 4, and becomes the program.
fn activated(sockets: &[&TcpListener], names: &str) -> Command {
    let stdio =
        |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().expect("a descriptor is free")));
    let moves = match sockets {
        [_] => "exec 3<&0 0</dev/null",
        [_, _] => "exec 3<&0 4<&2 0</dev/null 2>&1",
        _ => panic!("one or two"),
    };
    let script = format!(
        "{moves}; export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names}; exec \"$0\" \"$@\"",
        sockets.len()
    );
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_ostler")]).stdin(stdio(sockets[0]));
    command
}

/// A socket that the test holds as a service manager would.
fn held() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

under_each_mpm! {
    fn ten_upgrades_lose_no_request(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let crowd = Crowd::start(daemon.address());
        let mut masters = vec![daemon.master()];
        for _ in 0..10 {
            masters.push(upgrade(&daemon));
            std::thread::sleep(Duration::from_millis(100));
        }
        crowd.finish();
        let log = daemon.log();
        let pattern = regex::Regex::new(r"\] serving generation \d+ \((\d+) ms\)").expect("a literal pattern");
        let times: Vec<&str> = pattern.captures_iter(&log).filter_map(|found| Some(found.get(1)?.as_str())).collect();
        println!("{} took {times:?} ms", mpm.name());
        assert!(log.contains("] serving generation 11 ("), "{log}");
        masters.pop();
        wait_until("the old masters' end", || {
            masters.iter().all(|pid| !processes::is_alive(*pid)).then_some(())
        });
    }

    fn what_is_under_way_is_finished_by_the_old_children(mpm) {
        let backend = Backend::start();
        let mut daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let address = daemon.address();
        let (old, mut long, mut kept) = (daemon.master(), daemon.connect(), daemon.connect());
        assert_eq!(kept.get("/").expect("an answer").status, 200);
        long.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        let new = upgrade(&daemon);
        assert_ne!(old, new);
        assert!(processes::is_alive(old), "it has something to finish");
        // An old child may have accepted one more client before it heard.
        wait_until("new connections are the new children's", || {
            let mut client = Client::connect(address);
            let answer = client.get("/").expect("an answer");
            (answer.status == 200 && !answer.closes()).then_some(())
        });
        let last = kept.get("/").expect("it was not closed under the client's hand");
        // The event driver hands it over; elsewhere the old children say good-bye.
        assert_eq!(last.closes(), mpm != Mpm::Event, "{:?}", last.fields);
        backend.release();
        assert_eq!(long.answer("GET").expect("an answer").status, 200);
        wait_until("the old master's end", || (!processes::is_alive(old)).then_some(()));
        let status = daemon.status();
        assert!(status.text.contains(&format!("master {new}")) && status.text.contains("generation 2"), "{}", status.text);
        // The new one is a master like any other.
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("] serving generation 3 (");
        assert_eq!(daemon.get("/").status, 200);
        assert_eq!(upgrade(&daemon), daemon.master());
        let stopped = order(&daemon, "stop");
        assert_eq!(stopped.code, Some(0), "{stopped:?}");
        assert!(stopped.stdout.contains(&format!("(pid {}) has stopped", daemon.master())), "{stopped:?}");
        daemon.wait_for_end();
        assert!(!daemon.home().path("ostler.pid").exists(), "the PidFile is gone");
        wait_until("the port is free", || TcpListener::bind(address).ok().map(drop));
    }
}

#[test]
fn idle_connections_move_to_the_new_masters_children() {
    let backend = Backend::start();
    let text = |more: &str| format!("MPM event\nKeepAliveTimeout 300\n{more}ProxyPass / {}/", backend.url());
    let daemon = Daemon::at(Home::new(), &text(""));
    let mut clients: Vec<Client> = (0..40).map(|_| daemon.connect()).collect();
    for turn in 0..3 {
        for client in &mut clients {
            assert!(!client.get("/").expect("an answer").closes(), "turn {turn}");
        }
        let old = daemon.master();
        upgrade(&daemon);
        // Not after the grace: at once.
        wait_until("the old master's end", || (!processes::is_alive(old)).then_some(()));
        daemon.wait_for_status("all of them", |status| status.text.contains("40 open"));
    }
    // To one that does not take them, nobody is handed over: the old children say good-bye.
    rewrite(&daemon, &text("HandOver Off\n"));
    let old = daemon.master();
    upgrade(&daemon);
    for client in &mut clients {
        assert!(client.get("/").expect("it was not closed under the client's hand").closes());
    }
    wait_until("the old master's end", || (!processes::is_alive(old)).then_some(()));
}

#[test]
fn process_one_of_a_container_refuses() {
    let backend = Backend::start();
    let home = Home::new();
    let config = home.write_whole(&format!("MPM event\nProxyPass / {}/", backend.url()));
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_ostler"), "-X", "-f"]).arg(&config);
    let Ok(mut container) = command.stdin(Stdio::null()).spawn() else { return };
    let outside = i32::try_from(container.id()).expect("the kernel's numbers are small");
    let log = || home.read("error.log");
    wait_until("a daemon, or none", || {
        (log().contains("serving on ") || container.try_wait().is_ok_and(|ended| ended.is_some()))
            .then_some(())
    });
    let inside = processes::all().into_iter().find(|process| process.parent == outside);
    if let Some(inside) = inside.filter(|_| log().contains("serving on ")) {
        kill(Pid::from_raw(inside.pid), Signal::SIGUSR2).expect("it is there");
        wait_until("a refusal", || {
            log().contains("upgrade refused, still serving generation 1").then_some(())
        });
        let (said, is_alive) = (log(), processes::is_alive(inside.pid));
        kill(Pid::from_raw(inside.pid), Signal::SIGINT).expect("it is there");
        let ended = container.wait().expect("it is our own child");
        assert!(is_alive && said.contains("this is process 1"), "{said}");
        assert!(!said.contains("upgrading: starting"), "nothing was started: {said}");
        assert!(ended.success(), "{ended:?}\n{}", log());
    } else {
        eprintln!("this machine lets nobody make a pid namespace");
        let _ = container.kill();
        let _ = container.wait();
    }
}

#[test]
fn a_program_that_cannot_follow_changes_nothing() {
    let backend = Backend::start();
    let home = Home::new();
    let (program, command) = own_program(&home);
    let good = format!("MPM event\nKeepAliveTimeout 60\nProxyPass / {}/", backend.url());
    let daemon = Daemon::by(command, home, &good);
    let (master, children) = (daemon.master(), daemon.children());
    let mut kept = daemon.connect();
    let unchanged = |kept: &mut Client, case: &str| {
        assert!(!kept.get("/").expect("an answer").closes(), "{case}");
        assert_eq!(daemon.get("/").status, 200, "{case}");
        daemon.assert_alive(&children);
        assert_eq!(daemon.home().read("ostler.pid"), format!("{master}\n"), "{case}");
        wait_until("nothing is left of it", || (daemon.children().len() == children.len()).then_some(()));
        let board = daemon.home().path("scoreboard");
        let status = ostler(&["status", "--scoreboard", &board.to_string_lossy()]);
        let is_told = status.stdout.contains("generation 1 ")
            && status.stdout.contains("last reload or upgrade refused");
        assert!(status.code == Some(0) && is_told, "{case}: {status:?}");
        let mut files: Vec<_> =
            fs::read_dir(daemon.home().path("")).expect("it is there").flatten().collect();
        files.retain(|file| file.file_name().to_string_lossy().contains("scoreboard"));
        assert_eq!(files.len(), 1, "{case}: {files:?}");
    };
    for (script, words) in [
        (
            "echo 'no such library' >&2; exit 1",
            &["ended with status 1", "the new program says: no such library"][..],
        ),
        ("kill -SEGV $$", &["was killed by SIGSEGV"]),
        ("sleep 600", &["has not said so within 10 s"]),
    ] {
        replace(&program, script);
        let log = refused(&daemon);
        assert!(words.iter().all(|words| log.contains(words)), "{script}:\n{log}");
        unchanged(&mut kept, script);
    }
    // The script's own child has outlived it.
    for process in processes::all().iter().filter(|process| process.group == master) {
        if processes::title(process.pid).starts_with("sleep") {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).expect("the test's own");
    assert!(refused(&daemon).contains("cannot be started: Permission denied"), "{}", daemon.log());
    unchanged(&mut kept, "no program");
    fs::remove_file(&program).expect("the test's own");
    assert!(refused(&daemon).contains("cannot be started: No such file or directory"), "{}", daemon.log());
    unchanged(&mut kept, "no file");

    restore(&program);
    let taken = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let taken = taken.local_addr().map(|address| (taken, address)).expect("it is bound");
    for (text, words) in [
        (
            format!("{good}\nNoSuchDirective on\nTimeout soon"),
            &["ostler.conf:11:1:", "ostler.conf:12:9:"][..],
        ),
        (format!("Listen 127.0.0.1:0\nListen {}\n{good}", taken.1), &["Address already in use"]),
        (
            format!("{good}\nCustomLog /nonexistent/access.log common"),
            &["cannot open log /nonexistent/access.log"],
        ),
    ] {
        rewrite(&daemon, &text);
        let log = refused(&daemon);
        assert!(words.iter().all(|words| log.contains(words)), "{text}:\n{log}");
        unchanged(&mut kept, &text);
    }
    rewrite(&daemon, &good);
    upgrade(&daemon);
    assert_eq!(daemon.get("/").status, 200);
    // And again: a failing one after one that worked, and one that works after that.
    let (master, program_of_master) =
        (daemon.master(), fs::read_link(format!("/proc/{}/exe", daemon.master())));
    assert_eq!(program_of_master.expect("it runs"), program);
    replace(&program, "exit 3");
    let log = refused(&daemon);
    assert!(log.contains("ended with status 3") && log.contains("still serving generation 2"), "{log}");
    assert_eq!((daemon.get("/").status, daemon.home().read("ostler.pid")), (200, format!("{master}\n")));
    restore(&program);
    upgrade(&daemon);
    assert_eq!(daemon.get("/").status, 200);
}

/// A script that waits until the test has made the second file, and says so by making the first; then it is an ostler.
fn hesitant(here: &Path, go: &Path) -> String {
    format!(
        "touch '{}'; until test -e '{}'; do sleep 0.02; done; exec '{}' \"$@\"",
        here.display(),
        go.display(),
        env!("CARGO_BIN_EXE_ostler")
    )
}
#[test]
fn an_old_master_that_dies_meanwhile_is_followed_all_the_same() {
    let backend = Backend::start();
    let home = Home::new();
    let (program, command) = own_program(&home);
    let (go, here) = (home.path("go"), home.path("here"));
    let text = format!("MPM event\nProxyPass / {}/", backend.url());
    let mut daemon = Daemon::by(command, home, &text);
    let address = daemon.address();
    // The new program waits for the test before it becomes an ostler.
    replace(&program, &hesitant(&here, &go));
    let crowd = Crowd::start(address);
    daemon.signal(Signal::SIGUSR2);
    wait_until("the new program", || here.exists().then_some(()));
    daemon.tolerate("master");
    kill(Pid::from_raw(daemon.master()), Signal::SIGKILL).expect("it is there");
    daemon.wait_for_end();
    fs::write(&go, "").expect("the test's own");
    daemon.follow();
    daemon.wait_for_log("] serving generation 2 (");
    // Whoever had a connection of the old children's was served to its end, and the sockets were never closed.
    crowd.finish();
    assert_eq!(daemon.get("/").status, 200);
    assert_eq!(order(&daemon, "status").code, Some(0));
}

#[test]
fn a_new_master_that_finds_itself_alone_does_not_hesitate() {
    let backend = Backend::start();
    let home = Home::new();
    let (program, command) = own_program(&home);
    let (go, here) = (home.path("go"), home.path("here"));
    let text = format!("MPM event\nStartServers 1\nMinSpareThreads 1\nProxyPass / {}/", backend.url());
    let mut daemon = Daemon::by(command, home, &text);
    replace(&program, &hesitant(&here, &go));
    daemon.signal(Signal::SIGUSR2);
    wait_until("the new program", || here.exists().then_some(()));
    daemon.tolerate("master");
    let old = daemon.master();
    kill(Pid::from_raw(old), Signal::SIGKILL).expect("it is there");
    daemon.wait_for_end();
    wait_until("its children's end", || (processes::children_of(old).is_empty()).then_some(()));
    fs::write(&go, "").expect("the test's own");
    let start = std::time::Instant::now();
    daemon.follow();
    daemon.wait_for_log("] serving generation 2 (");
    // An idle master sleeps until the next ping, and that is ten seconds at least.
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(daemon.get("/").status, 200);
}

#[test]
fn an_upgrade_whose_midwife_is_killed_leaves_one_master() {
    for pid_file in ["", "PidFile none\n"] {
        let backend = Backend::start();
        let home = Home::new();
        let (program, command) = own_program(&home);
        let (go, here) = (home.path("go"), home.path("here"));
        let text =
            format!("MPM event\nStartServers 1\nMinSpareThreads 1\n{pid_file}ProxyPass / {}/", backend.url());
        let daemon = Daemon::by(command, home, &text);
        replace(&program, &hesitant(&here, &go));
        daemon.tolerate(":error]");
        let children = daemon.children();
        daemon.signal(Signal::SIGUSR2);
        wait_until("the new program", || here.exists().then_some(()));
        let midwife: Vec<i32> = daemon.children().into_iter().filter(|pid| !children.contains(pid)).collect();
        let [midwife] = midwife[..] else { panic!("{midwife:?}") };
        let new = processes::all().into_iter().find(|process| process.parent == midwife);
        let new = new.expect("the new program").pid;
        kill(Pid::from_raw(midwife), Signal::SIGKILL).expect("it is there");
        daemon.wait_for_log("upgrade refused, still serving generation 1");
        fs::write(&go, "").expect("the test's own");
        wait_until("the other one's end", || (!processes::is_alive(new)).then_some(()));
        assert_eq!(daemon.get("/").status, 200);
        daemon.assert_alive(&children);
        assert!(!daemon.log().contains("] serving generation 2 ("), "{}", daemon.log());
    }
}

#[test]
fn what_is_asked_for_during_an_upgrade_is_done_after_it() {
    let backend = Backend::start();
    let home = Home::new();
    let (program, command) = own_program(&home);
    let (go, here) = (home.path("go"), home.path("here"));
    let mut daemon = Daemon::by(command, home, &format!("MPM event\nProxyPass / {}/", backend.url()));
    let script = format!(
        "touch '{}'; until test -e '{}'; do sleep 0.02; done; exec '{}' \"$@\"",
        here.display(),
        go.display(),
        env!("CARGO_BIN_EXE_ostler")
    );
    replace(&program, &script);
    daemon.signal(Signal::SIGUSR2);
    wait_until("the new program", || here.exists().then_some(()));
    let old = daemon.master();
    daemon.signal(Signal::SIGHUP);
    holds_for("it waits", Duration::from_millis(200), || served(&daemon) == 0);
    fs::write(&go, "").expect("the test's own");
    daemon.follow();
    // The upgrade, and the reload by the new master.
    daemon.wait_for_log("] serving generation 2 (");
    daemon.wait_for_log("] serving generation 3 (");
    wait_until("the old one's end", || (!processes::is_alive(old)).then_some(()));

    // A stop calls the upgrade off.
    fs::remove_file(&go).expect("the test's own");
    fs::remove_file(&here).expect("the test's own");
    replace(&program, &script);
    let address = daemon.address();
    // The new master was started by the script: by the name of the program all the same.
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_log("upgrading: starting");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_end();
    wait_until("the port is free", || TcpListener::bind(address).ok().map(drop));
    assert!(!daemon.home().path("ostler.pid").exists());
}

#[test]
fn many_at_once_are_few() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    for signal in [Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGUSR2, Signal::SIGHUP] {
        daemon.signal(signal);
    }
    daemon.follow();
    wait_until("quiet", || {
        let before = (daemon.home().read("ostler.pid"), served(&daemon));
        std::thread::sleep(Duration::from_millis(300));
        (before == (daemon.home().read("ostler.pid"), served(&daemon))).then_some(())
    });
    if daemon.home().read("ostler.pid") != format!("{}\n", daemon.master()) {
        daemon.follow();
    }
    assert!(served(&daemon) <= 4, "{}", daemon.log());
    assert_eq!(daemon.get("/").status, 200);
}

#[test]
fn listeners_come_go_and_move_with_an_upgrade() {
    let backend = Backend::start();
    let (port, url) = (free_port(), backend.url());
    let text = |listen: &str| format!("MPM worker\nListen 127.0.0.1:0\n{listen}\nProxyPass / {url}/");
    let daemon = Daemon::at(Home::new(), &text(""));
    let there = SocketAddr::from(([127, 0, 0, 1], port));
    rewrite(&daemon, &text(&format!("Listen {there}")));
    upgrade(&daemon);
    assert_eq!(get(there, "/").map(|answer| answer.status), Ok(200));
    let crowd = Crowd::start(there);
    for listen in [format!("Listen 0.0.0.0:{port}"), format!("Listen {there}")] {
        rewrite(&daemon, &text(&listen));
        upgrade(&daemon);
        std::thread::sleep(Duration::from_millis(300));
    }
    crowd.finish();
    rewrite(&daemon, &text(""));
    upgrade(&daemon);
    wait_until("the port is free again", || TcpListener::bind(there).ok().map(drop));
    assert_eq!(daemon.get("/").status, 200, "the one on port 0 has kept its port");
}

#[test]
fn a_detached_daemon_stays_what_it_is() {
    let backend = Backend::start();
    let mut daemon = Daemon::detached(Mpm::Event, &format!("ProxyPass / {}/", backend.url()));
    let before = processes::look(daemon.master()).expect("it runs");
    upgrade(&daemon);
    let after = processes::look(daemon.master()).expect("it runs");
    assert_eq!((before.parent, before.group), (after.parent, after.group), "an orphan like the one before");
    let place = fs::read_link(format!("/proc/{}/cwd", daemon.master())).expect("it runs");
    assert_eq!(place, Path::new("/"));
    for (stream, target) in [(0, Path::new("/dev/null")), (2, &daemon.home().path("error.log"))] {
        let held = fs::read_link(format!("/proc/{}/fd/{stream}", daemon.master())).expect("it is open");
        assert_eq!(held, target, "stream {stream}");
    }
    assert_eq!(order(&daemon, "stop").code, Some(0));
    daemon.wait_for_end();
}

#[test]
fn orders_of_the_command_line() {
    let backend = Backend::start();
    let home = Home::new();
    let (program, command) = own_program(&home);
    let limits = "StartServers 1\nServerLimit 1\nThreadsPerChild 1\nMaxRequestWorkers 1\nMinSpareThreads 1\n";
    let good = format!("MPM event\n{limits}ProxyPass / {}/", backend.url());
    let mut daemon = Daemon::by(command, home, &good);
    let status = order(&daemon, "status");
    assert_eq!(status.code, Some(0), "{status:?}");
    for words in
        [format!("master {}", daemon.master()), "generation 1, mpm event: 0 of at most 1 workers".to_owned()]
    {
        assert!(status.stdout.contains(&words), "{words}: {status:?}");
    }

    let done = order(&daemon, "upgrade");
    assert!(done.code == Some(0) && done.stdout.starts_with("serving generation 2 ("), "{done:?}");
    daemon.follow();
    let status = order(&daemon, "status");
    assert!(
        status.stdout.contains("last reload or upgrade done")
            && status.stdout.contains("serving generation 2 ("),
        "{status:?}"
    );

    // A bad configuration disturbs nobody; a bad program is told of.
    rewrite(&daemon, &format!("{good}\nNoSuchDirective on"));
    let bad = order(&daemon, "upgrade");
    assert!(bad.code == Some(1) && bad.stderr.contains("NoSuchDirective"), "{bad:?}");
    assert!(!daemon.log().contains("refused"), "nobody was disturbed: {}", daemon.log());
    rewrite(&daemon, &good);
    daemon.tolerate(":error]");
    replace(&program, "exit 5");
    let bad = order(&daemon, "upgrade");
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(bad.stderr.contains("upgrade refused") && bad.stderr.contains("ended with status 5"), "{bad:?}");
    let status = order(&daemon, "status");
    assert!(status.code == Some(0) && status.stdout.contains("last reload or upgrade refused"), "{status:?}");
    assert!(status.stdout.contains("ended with status 5"), "{status:?}");

    let mut busy = daemon.connect();
    busy.send("GET /hold HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    backend.wait_for_now(1);
    let full =
        wait_until("a full house", || Some(order(&daemon, "status")).filter(|run| run.code == Some(2)));
    assert!(full.stdout.contains("1 of at most 1 workers busy, further clients wait"), "{full:?}");
    backend.release();
    assert_eq!(busy.answer("GET").expect("an answer").status, 200);

    rewrite(&daemon, "NoSuchDirective on");
    let deaf = order(&daemon, "stop");
    assert!(deaf.code == Some(1) && deaf.stderr.contains("nobody was told to stop"), "{deaf:?}");
    rewrite(&daemon, &good);

    // Its scoreboard's name now belongs to one that ended: as when another daemon has taken it.
    let (board, ended) = (daemon.home().path("scoreboard"), daemon.home().path("scoreboard.prev"));
    let own = daemon.home().path("own");
    fs::rename(&board, &own).and_then(|()| fs::rename(&ended, &board)).expect("the test's own");
    let foreign = order(&daemon, "status");
    let is_told = foreign.stdout.contains("is not its own") && !foreign.stdout.contains("is not running");
    assert!(foreign.code == Some(3) && is_told, "{foreign:?}");
    fs::rename(&board, &ended).and_then(|()| fs::rename(&own, &board)).expect("the test's own");

    assert_eq!(order(&daemon, "graceful-stop").code, Some(0));
    daemon.wait_for_end();
    let none = order(&daemon, "status");
    assert!(none.code == Some(1) && none.stdout.contains("ostler is not running"), "{none:?}");
    for name in ["ostler.pid", "scoreboard"] {
        assert!(none.stdout.contains(&*daemon.home().path(name).to_string_lossy()), "{name}: {none:?}");
    }
    let none = order(&daemon, "upgrade");
    assert!(
        none.code == Some(1) && none.stderr.contains("not running") && none.stderr.contains("-k start"),
        "{none:?}"
    );
    fs::write(daemon.home().path("scoreboard"), "no scoreboard").expect("the test's own");
    let unreadable = order(&daemon, "status");
    assert!(unreadable.code == Some(3) && unreadable.stderr.contains("not a scoreboard"), "{unreadable:?}");

    // With nobody there, a restart is a start.
    fs::remove_file(daemon.home().path("scoreboard")).expect("the test's own");
    restore(&program);
    let started = order(&daemon, "restart");
    assert!(
        started.code == Some(0) && started.stdout.contains("not running, trying to start it"),
        "{started:?}"
    );
    daemon.follow();
    // What was started by -k restart is upgraded like any other.
    let done = order(&daemon, "upgrade");
    assert!(done.code == Some(0) && done.stdout.starts_with("serving generation 2 ("), "{done:?}");
    daemon.follow();
    assert_eq!(order(&daemon, "stop").code, Some(0));
    daemon.wait_for_end();
}

#[test]
fn without_a_pid_file_there_is_advice() {
    let home = Home::new();
    let config =
        home.write_whole("PidFile none\nProxyPass / http://127.0.0.1:9/").to_string_lossy().into_owned();
    for order in ["stop", "graceful", "upgrade"] {
        let run = ostler(&["-k", order, "-f", &config]);
        assert!(run.code == Some(1) && run.stderr.contains("set PidFile"), "{order}: {run:?}");
    }
    assert_eq!(ostler(&["-k", "status", "-f", &config]).code, Some(1));
}

#[test]
fn what_is_passed_is_for_nobody_else() {
    let backend = Backend::start();
    let home = Home::new();
    let (socket, address) = held();
    let text = format!(
        "MPM event\nListen {address}\nCustomLog \"|sh -c 'env >{}; exec cat >/dev/null'\" common\nProxyPass / {}/",
        home.path("environment").display(),
        backend.url()
    );
    let mut command = activated(&[&socket], "http");
    command.env("NOTIFY_SOCKET", home.path("nobody-listens"));
    let daemon = Daemon::by(command, home, &text);
    for turn in 0..2 {
        let environment = wait_until("the log program's environment", || {
            Some(daemon.home().read("environment")).filter(|text| text.contains("PATH="))
        });
        for name in ["LISTEN_", "OSTLER_UPGRADE", "NOTIFY_SOCKET"] {
            assert!(!environment.contains(name), "{name} in turn {turn}:\n{environment}");
        }
        fs::remove_file(daemon.home().path("environment")).expect("it was there");
        upgrade(&daemon);
    }
    // Nor does any child hold more sockets than it needs: the listener, its orders, and none of the masters' words.
    assert_eq!(daemon.get("/").status, 200);
}

#[test]
fn a_variable_that_nobody_has_set_on_purpose_is_refused() {
    let home = Home::new();
    let config = home.write_whole("ProxyPass / http://127.0.0.1:9/");
    for value in ["", "1", "1 master=1 generation=2 begun=1,1 words=77 stderr=78"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
        command.args(["-X", "-f"]).arg(&config).env("OSTLER_UPGRADE", value);
        let run = run(command);
        assert!(run.code == Some(1) && run.stderr.contains("OSTLER_UPGRADE"), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
    let mut version = Command::new(env!("CARGO_BIN_EXE_ostler"));
    version.arg("-v").env("OSTLER_UPGRADE", "nonsense");
    assert_eq!(run(version).code, Some(0));
}

under_each_mpm! {
    fn sockets_of_the_service_manager_are_used_and_left_to_it(mpm) {
        let backend = Backend::start();
        let (socket, address) = held();
        // A client that came before the daemon waits in the queue.
        let mut early = Client::connect(address);
        early.send("GET /early HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let text = format!("MPM {}\nListen {address}\nListen 127.0.0.1:0\nProxyPass / {}/", mpm.name(), backend.url());
        let mut daemon = Daemon::by(activated(&[&socket], "http"), Home::new(), &text);
        assert_eq!(daemon.address(), address);
        assert_eq!(early.answer("GET").expect("an answer").status, 200);
        let crowd = Crowd::start(address);
        for _ in 0..3 {
            let before = served(&daemon);
            daemon.signal(Signal::SIGHUP);
            wait_until("a reload", || (served(&daemon) > before).then_some(()));
            upgrade(&daemon);
        }
        crowd.finish();
        // What nobody would answer at is refused, by a reload and by an upgrade.
        daemon.tolerate(":error]");
        rewrite(&daemon, &text.replace(&format!("Listen {address}\n"), ""));
        let log = refused(&daemon);
        assert!(log.contains(&format!("a socket on {address} that no Listen asks for")), "{log}");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("reload refused");
        assert_eq!(daemon.get("/").status, 200);
        let (other, own) = (daemon.addresses()[1], daemon.address());
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_end();
        wait_until("our own port is free", || TcpListener::bind(other).ok().map(drop));
        // The manager's goes on listening, for whom it starts next.
        socket.set_nonblocking(false).expect("a socket takes options");
        let late = TcpStream::connect(own).expect("it listens");
        let (_, peer) = socket.accept().expect("it was not shut down");
        assert_eq!(late.local_addr().ok(), Some(peer));
    }
}

#[test]
fn a_socket_that_is_passed_in_vain_is_a_fault() {
    let home = Home::new();
    let (one, other) = (held(), held());
    let config = home.write_whole(&format!("Listen {}\nProxyPass / http://127.0.0.1:9/", one.1));
    let start = |sockets: &[&TcpListener], names: &str| {
        let mut command = activated(sockets, names);
        command.args(["-X", "-f"]).arg(&config);
        if let [_, second] = sockets {
            command.stderr(Stdio::from(OwnedFd::from(second.try_clone().expect("a descriptor is free"))));
        }
        command.stdout(Stdio::piped());
        command.output().expect("the shell can be run")
    };
    let output = start(&[&one.0, &other.0], "one:other");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains(&format!("a socket on {} that no Listen asks for", other.1)), "{said}");
    assert!(said.contains(&format!("add Listen {}", other.1)), "{said}");
    assert!(!home.path("ostler.pid").exists() && !home.path("scoreboard").exists());

    // What is no listening socket at all.
    let mut command = Command::new("/bin/sh");
    let script = "exec 3</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=null exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_ostler"), "-X", "-f"]).arg(&config);
    let run = run(command);
    assert!(
        run.code == Some(1) && run.stderr.contains("descriptor 3 (null) is no TCP socket that listens"),
        "{run:?}"
    );
}

/// What a service manager is told, message by message.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("the directory is the test's own");
        socket.set_read_timeout(Some(crate::support::PATIENCE)).expect("a socket takes options");
        Self(socket)
    }

    /// The next message that has all of these lines.
    #[track_caller]
    fn wait_for(&self, lines: &[&str]) {
        let mut seen = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            let count =
                self.0.recv(&mut bytes).unwrap_or_else(|error| panic!("{lines:?}: {error}; {seen:?}"));
            let message = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if lines.iter().all(|line| message.lines().any(|told| told.starts_with(line))) {
                return;
            }
            seen.push(message);
        }
    }
}

#[test]
fn the_service_manager_is_told_who_the_main_process_is() {
    let backend = Backend::start();
    let home = Home::new();
    let path = home.path("notify");
    let manager = Manager::at(&path);
    let (program, mut command) = own_program(&home);
    command.env("NOTIFY_SOCKET", &path);
    let mut daemon = Daemon::by(command, home, &format!("MPM event\nProxyPass / {}/", backend.url()));
    manager.wait_for(&["READY=1", "STATUS=serving on "]);
    daemon.signal(Signal::SIGHUP);
    manager.wait_for(&["RELOADING=1"]);
    manager.wait_for(&["READY=1"]);
    daemon.tolerate(":error]");
    replace(&program, "exit 1");
    daemon.signal(Signal::SIGUSR2);
    manager.wait_for(&["STATUS=upgrading"]);
    manager.wait_for(&["STATUS=upgrade refused, still serving generation 2"]);
    restore(&program);
    let old = daemon.master();
    upgrade(&daemon);
    let main = format!("MAINPID={}", daemon.master());
    // First by the old one, to which alone a manager listens until then; the new one is its child by that time.
    manager.wait_for(&[&main]);
    manager.wait_for(&[&main, "READY=1", "STATUS=serving on "]);
    assert_ne!(processes::look(daemon.master()).expect("it runs").parent, old);
    daemon.signal(Signal::SIGTERM);
    manager.wait_for(&["STOPPING=1"]);
    daemon.wait_for_end();
}
