//! `StatusListen`: the groom answers whatever the sites' workers do, outlives nobody it should not, and is missed by
//! nobody.

use crate::reload::{free_port, rewrite};
use crate::support::daemon::run;
use crate::support::{
    Backend, Client, Daemon, Failure, Home, Load, Mpm, Response, holds_for, ostler, processes, wait_until,
};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The lines that say where a groom answers.
fn announcements(daemon: &Daemon) -> Vec<String> {
    daemon.lines_with("] status on ")
}

/// Waits for the announcement behind the first `count`; its groom and its addresses.
#[track_caller]
fn announced_after(daemon: &Daemon, count: usize) -> (i32, Vec<String>) {
    let line = wait_until("a groom that answers", || announcements(daemon).get(count).cloned());
    let rest = line.split("] status on ").nth(1).expect("it was found by this");
    let (addresses, pid) = rest.split_once(", answered by groom ").expect("both are told");
    (pid.trim().parse().expect("a number"), addresses.split(", ").map(str::to_owned).collect())
}

/// The first groom and its first address.
#[track_caller]
pub fn groom(daemon: &Daemon) -> (i32, SocketAddr) {
    let (pid, addresses) = announced_after(daemon, 0);
    (pid, addresses[0].parse().expect("an address"))
}

/// One request on a connection of its own, as a client of this machine makes it.
#[track_caller]
fn ask(address: SocketAddr, target: &str) -> Response {
    let mut client = Client::connect(address);
    client
        .ask(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
        .expect("an answer")
}

/// The same through a socket in the file system; the whole answer.
fn ask_unix(path: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(40)))?;
    stream.write_all(b"GET /?auto HTTP/1.1\r\nHost: anything.test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What `ask` gives, and asserts that it comes at once. A machine may be busy for a moment, but not each time.
#[track_caller]
fn promptly<T>(what: &str, ask: impl Fn() -> T) -> T {
    let mut taken = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let answer = ask();
        let took = start.elapsed();
        if took < Duration::from_secs(1) {
            println!("{what}: {took:?}");
            return answer;
        }
        taken.push(took);
    }
    panic!("{what} took {taken:?}");
}

/// Sites with so many workers that none is free while `count` clients hold a request each, and a short queue.
fn few_workers(mpm: Mpm) -> &'static str {
    if mpm.is_prefork() {
        "StartServers 3\nServerLimit 3\nMaxRequestWorkers 3\nMinSpareServers 1\nListenBacklog 2\n"
    } else {
        "StartServers 1\nServerLimit 1\nThreadsPerChild 3\nMaxRequestWorkers 3\nMinSpareThreads 1\nListenBacklog 2\n"
    }
}

under_each_mpm! {
    fn the_status_comes_when_every_worker_is_busy_and_the_backlog_full(mpm) {
        let backend = Backend::start();
        let text = format!("{}StatusListen 0\nTimeout 120\nProxyPass / {}/", few_workers(mpm), backend.url());
        let daemon = Daemon::under(mpm, &text);
        let (first, address) = groom(&daemon);
        let held: Vec<Client> = (0..3).map(|number| daemon.ask(&format!("/hold/{number}"))).collect();
        backend.wait_for_now(3);
        // Until the kernel takes no more either.
        let mut waiting = Vec::new();
        while let Ok(mut stream) = TcpStream::connect_timeout(&daemon.address(), Duration::from_millis(300)) {
            let _ = stream.write_all(b"GET /waits HTTP/1.1\r\nHost: test\r\n\r\n");
            waiting.push(stream);
            assert!(waiting.len() < 500, "the queue has no end");
        }
        let names_all = |text: &str| (0..3).all(|number| text.contains(&format!("GET /hold/{number} HTTP/1.1")));
        let look = || {
            let shown = promptly("ostler status", || daemon.status());
            assert!(names_all(&shown.text) && shown.busy == 3, "{}", shown.text);
            for target in ["/", "/server-status", "/?json"] {
                let answer = promptly(target, || ask(address, target));
                assert!(answer.status == 200 && names_all(&answer.text()), "{target}: {}", answer.text());
            }
            let auto = promptly("?auto", || ask(address, "/?auto")).text();
            assert!(auto.contains("\nBusyWorkers: 3\nGracefulWorkers: 0\nIdleWorkers: 0\n"), "{auto}");
            let metrics = promptly("/metrics", || ask(address, "/metrics"));
            assert!(metrics.status == 200 && metrics.text().contains("# TYPE "), "{}", metrics.text());
        };
        look();
        daemon.tolerate("groom");
        processes::send(first, Signal::SIGKILL);
        let (second, addresses) = announced_after(&daemon, 1);
        assert_ne!(first, second);
        assert_eq!(addresses, [address.to_string()]);
        let line = daemon.wait_for_log(&format!("groom {first} killed by SIGKILL after "));
        assert!(line.contains("another takes its place") && line.contains("the sites are not concerned"), "{line}");
        look();
        assert_eq!(backend.now(), 3, "the sites' requests are as they were");
        let shown = daemon.status().text;
        assert!(shown.contains(&format!("groom        {second} for ")) && shown.contains("1 before it died"), "{shown}");
        drop(waiting);
        backend.release();
        for mut client in held {
            assert_eq!(client.answer("GET").expect("an answer").status, 200);
        }
    }
}

#[test]
fn what_is_asked_earns_what_it_should() {
    let daemon = Daemon::start("StatusListen 0\nProxyPass / http://127.0.0.1:9/");
    let (_, address) = groom(&daemon);
    let status = |request: &str| {
        let answer = Client::connect(address).ask(request).expect("an answer");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{request}");
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{request}");
        (answer.status, answer.closes())
    };
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(8 * 1024));
    for (request, want) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", (200, false)),
        ("HEAD /?json HTTP/1.1\r\nHost: localhost\r\n\r\n", (200, false)),
        ("GET / HTTP/1.0\r\n\r\n", (200, true)),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", (200, false)),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab", (200, true)),
        ("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n", (404, false)),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", (405, false)),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", (421, false)),
        ("GET / HTTP/1.1\r\nHost: proxy.test\r\n\r\n", (200, false)),
        ("GET / HTTP/1.1\r\n\r\n", (400, true)),
        ("\x16\x03\x01\x02\x00", (400, true)),
        ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", (505, true)),
        (&long, (431, true)),
    ] {
        assert_eq!(status(request), want, "{request:?}");
    }
    assert_eq!(
        Client::connect(address)
            .ask("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("an answer")
            .field("allow"),
        Some("GET, HEAD")
    );
    // Two at once are answered one after the other, and a client that has said its last word gets its answer.
    let mut client = Client::connect(address);
    client
        .send("GET /?auto HTTP/1.1\r\nHost: localhost\r\n\r\nGET /?json HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.finish_sending();
    assert!(client.answer("GET").expect("the first").text().contains("BusyWorkers: 0"));
    assert!(client.answer("GET").expect("the second").text().starts_with('{'));
    client.closed().expect("it has nothing more to ask");
    // A head that does not end is waited for in vain, but not for ever.
    let mut slow = Client::connect(address);
    slow.send("GET / HTTP/1.1\r\nHost: local");
    let answer = slow.answer("GET").expect("an answer");
    assert_eq!((answer.status, answer.closes()), (408, true));
}

#[test]
fn a_hundred_requests_are_the_most_of_one_connection() {
    let daemon = Daemon::start("StatusListen 0\nProxyPass / http://127.0.0.1:9/");
    let mut client = Client::connect(groom(&daemon).1);
    let request = "GET /?auto HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send(request.repeat(120));
    for number in 1..=100 {
        let answer = client.answer("GET").expect("an answer");
        assert_eq!((answer.status, answer.closes()), (200, number == 100), "number {number}");
    }
    client.closed().expect("the rest is for another connection");
}

#[test]
fn those_who_never_ask_keep_nobody_out() {
    let daemon = Daemon::start("StatusListen 0\nProxyPass / http://127.0.0.1:9/");
    let (pid, address) = groom(&daemon);
    let mut crowd: Vec<Client> = Vec::new();
    for number in 0..200 {
        let mut client = Client::connect(address);
        match number % 4 {
            0 => client.send("GET / HTTP/1.1\r\nHost: "),
            1 => client.send("G"),
            2 => client.send("\r\n"),
            _ => {}
        }
        crowd.push(client);
        if number % 20 == 0 {
            assert_eq!(promptly("among the idle", || ask(address, "/?json")).status, 200);
        }
    }
    // One that asks for much and reads nothing.
    let mut greedy = Client::connect(address);
    greedy.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2_000));
    for target in ["/", "/?auto", "/metrics"] {
        assert_eq!(promptly("behind all of them", || ask(address, target)).status, 200);
    }
    let open = processes::connections(&[pid], address).values().sum::<usize>();
    assert!(open <= 64, "{open} are open");
    assert!(processes::is_alive(pid));
    assert_eq!(announcements(&daemon).len(), 1, "it is still the first");
}

#[test]
fn reloads_lose_no_request_to_it() {
    let backend = Backend::start();
    let sites = format!("MPM event\nProxyPass / {}/", backend.url());
    let text = |rest: &str| format!("{sites}\nServerName test\n{rest}");
    let home = Home::new();
    let daemon = Daemon::at(home, &text("StatusListen 0\nStatusListen unix:status"));
    let (first, address) = groom(&daemon);
    let path = daemon.home().path("status");
    let kept = Load::start(address, 3, "/?auto", Duration::from_millis(20));
    let all_new = Load::start(address, 2, "/?json", Duration::from_millis(35));
    let mut pids = vec![first];
    for number in 1..=6 {
        // The board grows, too.
        let limit = if number == 3 { "ServerLimit 40\n" } else { "" };
        rewrite(&daemon, &text(&format!("StatusListen 0\nStatusListen unix:status\n{limit}")));
        daemon.signal(Signal::SIGHUP);
        let (pid, addresses) = announced_after(&daemon, number);
        assert_eq!(addresses, [address.to_string(), format!("unix:{}", path.display())]);
        assert!(ask_unix(&path).expect("an answer").starts_with("HTTP/1.1 200 OK"));
        // The old one may take one more before it hears, and shows the board that it knows.
        let rows = format!("\"server_limit\":{}", if number < 3 { 16 } else { 40 });
        let is_new =
            |text: &str| text.contains(&rows) && text.contains(&format!("\"generation\":{}", number + 1));
        wait_until("the new scoreboard", || is_new(&ask(address, "/?json").text()).then_some(()));
        pids.push(pid);
        std::thread::sleep(Duration::from_millis(100));
    }
    for outcome in [kept.finish(), all_new.finish()] {
        assert!(outcome.failures.is_empty() && outcome.served > 0, "{outcome:?}");
    }
    let newest = pids.pop().expect("there are seven");
    wait_until("the old ones' end", || pids.iter().all(|pid| !processes::is_alive(*pid)).then_some(()));
    assert!(processes::is_alive(newest));

    // Moved, refused, and taken away.
    let port = free_port();
    rewrite(&daemon, &text(&format!("StatusListen {port}")));
    daemon.signal(Signal::SIGHUP);
    let (_, addresses) = announced_after(&daemon, 7);
    assert_eq!(addresses, [format!("127.0.0.1:{port}")]);
    assert_eq!(ask(addresses[0].parse().expect("an address"), "/").status, 200);
    wait_until("the old port is given up", || TcpStream::connect(address).is_err().then_some(()));
    assert!(!path.exists(), "nobody listens there");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let taken_at = taken.local_addr().expect("it is bound");
    daemon.tolerate("cannot listen on");
    daemon.tolerate("reload refused");
    rewrite(&daemon, &text(&format!("StatusListen unix:status\nStatusListen {taken_at}")));
    daemon.signal(Signal::SIGHUP);
    let line =
        daemon.wait_for_log(&format!("cannot listen on {taken_at} for the status: Address already in use"));
    assert!(line.contains("change StatusListen"), "{line}");
    daemon.wait_for_log("reload refused, still serving generation 8");
    assert!(!path.exists(), "what was bound before the fault is gone again");
    assert_eq!(ask(addresses[0].parse().expect("an address"), "/").status, 200);

    rewrite(&daemon, &text(""));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("] serving generation 9 (");
    wait_until("no groom", || grooms(&daemon).is_empty().then_some(()));
    assert!(!daemon.status().text.contains("groom"));
    assert_eq!(daemon.get("/bytes/10").status, 200);
}

/// The children that are grooms by their titles.
fn grooms(daemon: &Daemon) -> Vec<i32> {
    daemon.children().into_iter().filter(|pid| processes::title(*pid) == "ostler: groom").collect()
}

#[test]
fn upgrades_lose_no_request_to_it() {
    let backend = Backend::start();
    let text = |rest: &str| format!("MPM event\nProxyPass / {}/\nServerName test\n{rest}", backend.url());
    let daemon = Daemon::at(
        Home::new(),
        &text("StatusListen 0\nStatusListen \"unix:my status\"\nStatusListen unix:old"),
    );
    let (first, address) = groom(&daemon);
    let (path, old) = (daemon.home().path("my status"), daemon.home().path("old"));
    let kept = Load::start(address, 3, "/?auto", Duration::from_millis(20));
    let mut pids = vec![first];
    let mut masters = vec![daemon.master()];
    rewrite(&daemon, &text("StatusListen 0\nStatusListen \"unix:my status\""));
    for number in 1..=3 {
        daemon.signal(Signal::SIGUSR2);
        masters.push(daemon.follow());
        let (pid, addresses) = announced_after(&daemon, number);
        assert_eq!(addresses, [address.to_string(), format!("unix:{}", path.display())]);
        assert!(ask_unix(&path).expect("an answer").starts_with("HTTP/1.1 200 OK"));
        // The old one may take one more before it hears.
        let master = format!("\"master_pid\":{}", daemon.master());
        wait_until("the new master's scoreboard", || {
            ask(address, "/?json").text().contains(&master).then_some(())
        });
        pids.push(pid);
        std::thread::sleep(Duration::from_millis(100));
    }
    let outcome = kept.finish();
    assert!(outcome.failures.is_empty() && outcome.served > 0, "{outcome:?}");
    assert!(!old.exists(), "what the new configuration does not have is taken away");
    masters.pop();
    let newest = pids.pop().expect("there are four");
    wait_until("the old ones' end", || {
        masters.iter().chain(&pids).all(|pid| !processes::is_alive(*pid)).then_some(())
    });
    assert!(processes::is_alive(newest) && path.exists());
    daemon.signal(Signal::SIGTERM);
    wait_until("the end", || (!daemon.is_running()).then_some(()));
    assert!(!path.exists(), "a stop takes the socket away");
}

#[test]
fn a_failed_upgrade_leaves_everything_as_it_was() {
    let daemon = Daemon::start("StatusListen 0\nStatusListen unix:status\nProxyPass / http://127.0.0.1:9/");
    daemon.tolerate(":error]");
    let (pid, address) = groom(&daemon);
    rewrite(
        &daemon,
        "MPM event\nStatusListen 0\nStatusListen unix:status\nStatusListen unix:more\nListen 127.0.0.1:0\nBogus",
    );
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_log("upgrade refused, still serving generation 1");
    assert_eq!(ask(address, "/").status, 200);
    assert!(ask_unix(&daemon.home().path("status")).is_ok());
    assert!(!daemon.home().path("more").exists());
    assert_eq!(grooms(&daemon), [pid]);
}

#[test]
fn a_socket_in_the_file_system_is_treated_with_care() {
    let home = Home::new();
    let path = home.path("status");
    // Left over from somebody who died.
    drop(UnixListener::bind(&path).expect("the test's own"));
    let mut daemon = Daemon::at(home, "MPM event\nStatusListen unix:status\nProxyPass / http://127.0.0.1:9/");
    announced_after(&daemon, 0);
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o660);
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--unix-socket"])
        .arg(&path)
        .arg("http://localhost/server-status?auto")
        .output()
        .expect("curl is there");
    let said = String::from_utf8_lossy(&curl.stdout);
    assert!(curl.status.success() && said.contains("\nScoreboard: "), "{curl:?}");

    // Another daemon with the same socket is refused, and takes nothing away.
    let other = Home::new();
    let config =
        other.write_whole(&format!("StatusListen unix:{}\nProxyPass / http://127.0.0.1:9/", path.display()));
    let refused = ostler(&["-X", "-f", &config.to_string_lossy()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let want = format!("cannot listen on unix:{} for the status: Address already in use", path.display());
    assert!(refused.stderr.contains(&want), "{refused:?}");
    assert!(ask_unix(&path).expect("the first still answers").starts_with("HTTP/1.1 200 OK"));

    // A file that is no socket is nobody's to remove.
    let file = other.path("file");
    fs::write(&file, "precious").expect("the test's own");
    let config = other.write_whole("StatusListen unix:file\nProxyPass / http://127.0.0.1:9/");
    let refused = ostler(&["-k", "start", "-f", &config.to_string_lossy()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "precious");

    // One who is refused for another reason leaves no socket.
    let config = other.write_whole(&format!(
        "StatusListen unix:mine\nListen {}\nProxyPass / http://127.0.0.1:9/",
        daemon.address()
    ));
    assert_eq!(ostler(&["-k", "start", "-f", &config.to_string_lossy()]).code, Some(1));
    assert!(!other.path("mine").exists());

    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_end();
    assert!(!path.exists(), "a stop removes it");
}

#[test]
fn it_becomes_who_the_children_are_and_its_socket_is_their_groups() {
    if !crate::support::is_root() {
        return;
    }
    let text = "User #65533\nGroup #65532\nStatusListen 0\nStatusListen unix:status\nProxyPass / http://127.0.0.1:9/";
    let daemon = Daemon::start(text);
    let (pid, address) = groom(&daemon);
    assert_eq!([processes::figure(pid, "Uid"), processes::figure(pid, "Gid")], [Some(65533), Some(65532)]);
    let found = fs::metadata(daemon.home().path("status")).expect("it is there");
    assert_eq!((found.uid(), found.gid(), found.permissions().mode() & 0o777), (0, 65532, 0o660));
    assert_eq!(ask(address, "/").status, 200);
    // After a reload, too, where whom to become is looked up elsewhere.
    daemon.signal(Signal::SIGHUP);
    let (next, _) = announced_after(&daemon, 1);
    assert_eq!(processes::figure(next, "Uid"), Some(65533));
    assert_eq!(ask(address, "/").status, 200);
}

/// A program as it runs where /proc shows nobody the processes of other users.
///
/// A mount of its own in a namespace of its own. Not a remount: that would change every mount of the same instance, the
/// machine's among them; and a kernel to which all mounts are one instance (before 5.8) does not know the word.
fn where_proc_hides(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.args([r#"mount -t proc -o hidepid=invisible proc /proc && exec "$0" "$@""#, program]);
    command
}

#[test]
fn a_master_that_proc_hides_is_not_taken_for_dead() {
    if !crate::support::is_root() {
        eprintln!("skipped, only root can become others and mount a /proc that hides it from them");
        return;
    }
    let trial = where_proc_hides("true").output();
    if !trial.as_ref().is_ok_and(|trial| trial.status.success()) {
        eprintln!("skipped, no /proc can be had here that hides processes: {trial:?}");
        return;
    }
    let home = Home::new();
    // For a reader of no rights.
    let program = home.path("ostler");
    fs::copy(env!("CARGO_BIN_EXE_ostler"), &program).expect("there is room for a copy");
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("root may");
    open(&home.path(""));
    let text = "MPM event\nUser #65533\nGroup #65532\nStatusListen 0\nProxyPass / http://127.0.0.1:9/\n\
                <Location /own>\nProxyPass !\nSetHandler server-status\nRequire local\n</Location>";
    let mut daemon = Daemon::by(where_proc_hides(env!("CARGO_BIN_EXE_ostler")), home, text);
    open(&daemon.home().path("scoreboard"));
    let (_, address) = groom(&daemon);
    let figures = ask(address, "/?prometheus").text();
    assert!(
        figures.contains("\nostler_up 1\n") && !figures.contains("ostler_cpu_seconds_total"),
        "{figures}"
    );
    let lines = ask(address, "/?auto").text();
    assert!(lines.contains("\nTotal Accesses: ") && !lines.contains("CPU"), "{lines}");
    // Who was forked by the master knows more than that it can't be seen.
    for page in [ask(address, "/").text(), daemon.get("/own").text()] {
        assert!(page.contains("running for ") && !page.contains("not running"), "{page}");
    }

    // A stranger can say neither that it runs nor that it does not. The open file keeps the namespace beyond its end.
    let master = daemon.master();
    let namespace = File::open(format!("/proc/{master}/ns/mnt")).expect("root may");
    let place = format!("--mount=/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let config = daemon.home().config();
    let tell = |arguments: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args([&place, "--setuid", "65531", "--setgid", "65531"]);
        command.arg(&program).args(arguments).arg("-f").arg(&config);
        run(command)
    };
    for arguments in [&["status"][..], &["-k", "status"]] {
        let run = tell(arguments);
        let says = format!("master {master} can't be seen from here; last sign of life ");
        assert!(run.code == Some(0) && run.stdout.contains(&says), "{run:?}");
        assert!(!run.stdout.contains("not running"), "{run:?}");
    }

    // That it is gone, anybody is told.
    daemon.signal(Signal::SIGKILL);
    daemon.wait_for_end();
    let run = tell(&["status"]);
    let says = format!("master {master} is gone without a word");
    assert!(run.code == Some(1) && run.stdout.contains(&says), "{run:?}");
}

#[test]
fn without_a_scoreboard_file_it_is_the_one_who_can_tell() {
    let daemon = Daemon::start("ScoreBoardFile none\nStatusListen 0\nProxyPass / http://127.0.0.1:9/");
    let (_, address) = groom(&daemon);
    assert!(ask(address, "/?auto").text().contains("\nBusyWorkers: 0\n"));
}

#[test]
fn a_detached_daemon_keeps_its_socket() {
    let mut daemon =
        Daemon::detached(Mpm::Event, "StatusListen unix:status\nProxyPass / http://127.0.0.1:9/");
    let path = daemon.home().path("status");
    assert!(ask_unix(&path).expect("an answer").starts_with("HTTP/1.1 200 OK"));
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_end();
    assert!(!path.exists());
}

/// Inodes of sockets that listen on this port.
fn listening(port: u16) -> HashSet<String> {
    let text = fs::read_to_string("/proc/net/tcp").expect("the kernel lists its sockets");
    let words = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_it = |words: &Vec<&str>| words[1].ends_with(&format!(":{port:04X}")) && words[3] == "0A";
    words.filter(is_it).map(|words| words[9].to_owned()).collect()
}

/// Inodes of the sockets that a process has open.
fn sockets_of(pid: i32) -> HashSet<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it is there");
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| {
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    links.filter_map(inode).collect()
}

#[test]
fn it_holds_its_own_sockets_and_nobody_elses() {
    let daemon = Daemon::start("StatusListen 0\nProxyPass / http://127.0.0.1:9/");
    let (pid, address) = groom(&daemon);
    assert_eq!(processes::title(pid), "ostler: groom");
    let held = sockets_of(pid);
    assert!(!held.is_disjoint(&listening(address.port())), "its own");
    assert!(held.is_disjoint(&listening(daemon.address().port())), "none of the sites'");
    for child in daemon.children().into_iter().filter(|child| *child != pid) {
        assert!(sockets_of(child).is_disjoint(&listening(address.port())), "nor have the children its own");
    }
    // It is no child of the spare arithmetic.
    assert!(ask(address, "/?auto").text().contains("\nProcesses: 3\nStopping: 0\n"));
}

#[test]
fn signals_that_reach_whole_groups_leave_it_alone_and_term_has_it_replaced() {
    let daemon = Daemon::start("StatusListen 0\nProxyPass / http://127.0.0.1:9/");
    let (pid, address) = groom(&daemon);
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGPIPE] {
        processes::send(pid, signal);
    }
    assert_eq!(ask(address, "/").status, 200);
    assert!(processes::is_alive(pid));
    processes::send(pid, Signal::SIGTERM);
    let (next, _) = announced_after(&daemon, 1);
    assert_ne!(next, pid);
    assert_eq!(ask(address, "/").status, 200);
    wait_until("the end of the first", || (!processes::is_alive(pid)).then_some(()));
}

#[test]
fn one_that_hangs_is_told_of_and_replaced() {
    let daemon = Daemon::start("StatusListen 0\nChildStallTimeout 2\nProxyPass / http://127.0.0.1:9/");
    daemon.tolerate("groom");
    let (pid, address) = groom(&daemon);
    processes::send(pid, Signal::SIGSTOP);
    daemon.wait_for_log(&format!("groom {pid} has not answered for "));
    let line = daemon.wait_for_log(&format!("groom {pid}: no answer for "));
    assert!(line.contains("killed and replaced"), "{line}");
    let (next, _) = announced_after(&daemon, 1);
    assert_ne!(next, pid);
    assert_eq!(ask(address, "/").status, 200);
    assert!(daemon.status().text.contains("1 before it died"));
}

#[test]
fn those_that_die_young_are_replaced_ever_later() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("StatusListen 0\nProxyPass / {}/", backend.url()));
    daemon.tolerate("groom");
    for number in 0..3 {
        let (pid, _) = announced_after(&daemon, number);
        processes::send(pid, Signal::SIGKILL);
        let line = daemon.wait_for_log(&format!("groom {pid} killed by SIGKILL"));
        // On a slow machine it may have grown old meanwhile.
        assert!(line.contains("its place in ") || line.contains("its place now"), "{line}");
    }
    announced_after(&daemon, 3);
    assert_eq!(daemon.get("/").status, 200, "the sites are not concerned");
}

#[test]
fn a_stop_can_be_watched_to_its_end() {
    let backend = Backend::start();
    let mut daemon = Daemon::start(&format!("StatusListen 0\nProxyPass / {}/", backend.url()));
    let (pid, address) = groom(&daemon);
    let mut held = daemon.ask("/hold");
    backend.wait_for_now(1);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_log("stopping gracefully: ");
    wait_until("the page says so", || {
        let page = ask(address, "/").text();
        (page.contains("stopping: 1 child finishes") && page.contains("GET /hold HTTP/1.1")).then_some(())
    });
    assert!(processes::is_alive(pid));
    backend.release();
    assert_eq!(held.answer("GET").expect("an answer").status, 200);
    let _ = daemon.wait_for_end();
    assert!(!processes::is_alive(pid) && TcpStream::connect(address).is_err());
}

#[test]
fn a_stuck_one_delays_no_stop() {
    let mut daemon = Daemon::start("StatusListen 0\nProxyPass / http://127.0.0.1:9/");
    daemon.tolerate("groom");
    let (pid, _) = groom(&daemon);
    processes::send(pid, Signal::SIGSTOP);
    let start = Instant::now();
    daemon.signal(Signal::SIGINT);
    let _ = daemon.wait_for_end();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(!processes::is_alive(pid));
}

#[test]
fn it_goes_with_its_master_and_what_they_held_can_be_read() {
    let backend = Backend::start();
    let text = format!("MPM event\nStatusListen unix:status\nProxyPass / {}/", backend.url());
    let mut daemon = Daemon::at(Home::new(), &text);
    let (pid, _) = announced_after(&daemon, 0);
    let held: Vec<Client> = (0..2).map(|number| daemon.ask(&format!("/hold/{number}"))).collect();
    backend.wait_for_now(2);
    let (master, children) = (daemon.master(), daemon.children());
    processes::send(master, Signal::SIGKILL);
    daemon.wait_for_end();
    wait_until("the groom's end", || (!processes::is_alive(pid)).then_some(()));
    for child in children.into_iter().filter(|child| *child != pid) {
        processes::send(child, Signal::SIGKILL);
    }
    let config = daemon.home().config().to_string_lossy().into_owned();
    let held_by = format!("master {master} is gone without a word; this is what its workers held");
    let tells = |text: &str| {
        text.contains(&held_by) && (0..2).all(|n| text.contains(&format!("GET /hold/{n} HTTP/1.1")))
    };
    let run = ostler(&["status", "-f", &config]);
    assert!(run.code == Some(1) && tells(&run.stdout), "{run:?}");

    // The next start makes a new scoreboard, and says where that one is.
    let started = ostler(&["-k", "start", "-f", &config]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let previous = daemon.home().path("scoreboard.prev").display().to_string();
    let line =
        daemon.wait_for_log(&format!("is left over from process {master}, which did not stop in good order"));
    assert!(line.ends_with(&format!("ostler status --scoreboard {previous}")), "{line}");
    assert!(
        ask_unix(&daemon.home().path("status")).expect("a new groom answers").starts_with("HTTP/1.1 200 OK")
    );
    let run = ostler(&["status", "-f", &config]);
    assert!(run.code == Some(0) && !tells(&run.stdout), "{run:?}");
    assert!(
        run.stdout.ends_with(&format!("\nthe one before: ostler status --scoreboard {previous}\n")),
        "{run:?}"
    );
    let run = ostler(&["status", "--scoreboard", &previous]);
    assert!(run.code == Some(1) && tells(&run.stdout), "{run:?}");
    let stopped = ostler(&["-k", "stop", "-f", &config]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    drop(held);
}

#[test]
fn an_open_address_is_told_of() {
    let home = Home::new();
    let config = home.write_whole("StatusListen 0.0.0.0:9999\nProxyPass / http://127.0.0.1:9/");
    let run = ostler(&["-t", "-f", &config.to_string_lossy()]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains("whoever can reach 0.0.0.0:9999 may read the status"), "{run:?}");
    assert!(run.stdout.contains("\nstatus on 0.0.0.0:9999\n"), "{run:?}");
    let daemon = Daemon::start("StatusListen 0.0.0.0:0\nProxyPass / http://127.0.0.1:9/");
    let (_, address) = groom(&daemon);
    let local = SocketAddr::from(([127, 0, 0, 1], address.port()));
    // Others know this machine by names of their own.
    let mut client = Client::connect(local);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: box.lan\r\n\r\n").map(|answer| answer.status), Ok(200));
    holds_for("one groom", Duration::from_millis(300), || announcements(&daemon).len() == 1);
    let gone: Result<Response, Failure> = client.ask("nonsense\r\n\r\n");
    assert_eq!(gone.map(|answer| answer.status), Ok(400));
}
