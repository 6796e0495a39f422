//! A new configuration in a running daemon: nobody who connects, asks or waits may notice.
//!
//! The clients retry nothing. One that keeps its connection goes on until an answer announces the end of it;
//! whatever else ends it is a lost request.

use crate::support::daemon::get;
use crate::support::{Backend, Client, Daemon, Home, Load, Mpm, holds_for, ostler, processes, wait_until};
use nix::sys::signal::Signal;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writes `text` as the daemon's configuration; it is in force with the next reload.
pub fn rewrite(daemon: &Daemon, text: &str) {
    daemon.home().write_whole(text);
}

/// How many reloads have been carried out.
fn reloads(daemon: &Daemon) -> usize {
    daemon.log().matches("] serving generation ").count()
}

/// Reloads and waits until the new generation serves; its number.
#[track_caller]
fn reload(daemon: &Daemon) -> usize {
    let before = reloads(daemon);
    daemon.signal(Signal::SIGHUP);
    wait_until("another generation", || (reloads(daemon) > before).then_some(()));
    before + 2
}

/// Reloads in vain; the log from then on.
#[track_caller]
fn refused(daemon: &Daemon) -> String {
    daemon.tolerate(":error]");
    let before = daemon.log();
    daemon.signal(Signal::SIGHUP);
    wait_until("a refusal", || {
        let log = daemon.log()[before.len()..].to_owned();
        log.contains("reload refused, still serving generation").then_some(log)
    })
}

/// A port that nobody has just now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    listener.local_addr().expect("it is bound").port()
}

/// Clients that make a connection for each request.
struct Newcomers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(u64, Vec<String>)>>,
}

impl Newcomers {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let body = move |stop: Arc<AtomicBool>| {
            let (mut served, mut failures) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                match get(address, "/bytes/1000") {
                    Ok(answer) if answer.status == 200 => served += 1,
                    other => failures.push(format!("{other:?}")),
                }
            }
            (served, failures)
        };
        let spawn = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || body(stop))
        };
        let threads = (0..clients).map(spawn).collect();
        Self { stop, threads }
    }

    fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = (0, Vec::new());
        for thread in self.threads {
            let (served, failures) = thread.join().expect("a client never panics");
            sum.0 += served;
            sum.1.extend(failures);
        }
        sum
    }
}

/// All three kinds of clients at once.
pub struct Crowd {
    busy: Load,
    thinking: Load,
    newcomers: Newcomers,
}

impl Crowd {
    /// Twenty clients.
    pub fn start(address: SocketAddr) -> Self {
        Self {
            busy: Load::start(address, 8, "/bytes/1000", Duration::ZERO),
            thinking: Load::start(address, 8, "/bytes/1000", Duration::from_millis(50)),
            newcomers: Newcomers::start(address, 4),
        }
    }

    /// Panics if a request was lost; how many were served.
    #[track_caller]
    pub fn finish(self) -> u64 {
        let (busy, thinking, newcomers) =
            (self.busy.finish(), self.thinking.finish(), self.newcomers.finish());
        let served = busy.served + thinking.served + newcomers.0;
        let lost: Vec<String> =
            busy.failures.into_iter().chain(thinking.failures).chain(newcomers.1).collect();
        println!("{served} served, {} lost", lost.len());
        assert!(lost.is_empty(), "{} of {served} lost: {:#?}", lost.len(), &lost[..lost.len().min(10)]);
        assert!(busy.served > 0 && thinking.served > 0 && newcomers.0 > 0);
        served
    }
}

/// Twenty reloads, or as many as `scripts/stress` asks for.
fn how_many() -> u32 {
    std::env::var("OSTLER_RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(20)
}

/// The times that the daemon says its reloads took, in milliseconds.
fn times(daemon: &Daemon) -> Vec<u64> {
    let pattern = regex::Regex::new(r"\] serving generation \d+ \((\d+) ms\)").expect("a literal pattern");
    let log = daemon.log();
    let mut times: Vec<u64> = pattern.captures_iter(&log).filter_map(|found| found[1].parse().ok()).collect();
    times.sort_unstable();
    times
}

under_each_mpm! {
    fn twenty_reloads_lose_no_request(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let crowd = Crowd::start(daemon.address());
        for _ in 0..how_many() {
            daemon.signal(Signal::SIGHUP);
            std::thread::sleep(Duration::from_millis(100));
        }
        wait_until("the last reload", || daemon.log().contains("] serving generation ").then_some(()));
        crowd.finish();
        let times = times(&daemon);
        println!("{} under {}: median {} ms, {times:?}", times.len(), mpm.name(), times[times.len() / 2]);
        assert!(times.len() >= 4, "few reloads: {times:?}");
    }

    fn a_new_configuration_takes_effect_for_all(mpm) {
        let (old, new) = (Backend::named("old"), Backend::named("new"));
        let text = |backend: &Backend| format!("MPM {}\nProxyPass / {}/", mpm.name(), backend.url());
        let daemon = Daemon::at(Home::new(), &text(&old));
        let mut kept = daemon.connect();
        assert_eq!(kept.get("/echo").expect("an answer").echo().origin(), "old");
        let address = daemon.address();
        rewrite(&daemon, &text(&new));
        assert_eq!(reload(&daemon), 2);
        // An old child may have accepted one more client before it heard.
        wait_until("an answer of the new generation", || {
            (daemon.get("/echo").echo().origin() == "new").then_some(())
        });
        let last = kept.get("/echo").expect("it was not closed under the client's hand");
        if mpm == Mpm::Event {
            assert_eq!(last.echo().origin(), "new", "handed over");
        } else {
            assert!(last.closes(), "the old generation says good-bye: {:?}", last.fields);
        }
        assert_eq!(address, daemon.address());
        let status = daemon.status();
        assert!(status.text.contains("generation 2"), "{}", status.text);
    }

    fn a_bad_configuration_changes_nothing(mpm) {
        let backend = Backend::start();
        let good = format!("MPM {}\nProxyPass / {}/", mpm.name(), backend.url());
        let daemon = Daemon::at(Home::new(), &good);
        let children = daemon.children();
        rewrite(&daemon, &format!("{good}\nNoSuchDirective on\nTimeout soon"));
        let log = refused(&daemon);
        assert!(log.contains("reload refused, still serving generation 1"), "{log}");
        for (fault, place) in [("NoSuchDirective", ":10:1:"), ("soon", ":11:9:")] {
            let is_it = |line: &&str| line.contains(fault) && line.contains("ostler.conf:");
            let line = log.lines().find(is_it);
            assert!(line.is_some_and(|line| line.contains(place)), "{fault} at {place}:\n{log}");
        }
        assert_eq!(daemon.get("/").status, 200);
        daemon.assert_alive(&children);
        rewrite(&daemon, &good);
        assert_eq!(reload(&daemon), 2);
        assert_eq!(daemon.get("/").status, 200);
    }

    fn new_connections_are_served_while_every_old_worker_is_busy(mpm) {
        let backend = Backend::start();
        let sizes = if mpm.is_prefork() {
            "StartServers 2\nServerLimit 2\nMaxRequestWorkers 2\nMinSpareServers 1\nMaxSpareServers 2\n"
        } else {
            "StartServers 1\nServerLimit 1\nThreadsPerChild 2\nThreadLimit 2\nMaxRequestWorkers 2\nMinSpareThreads 1\n"
        };
        let daemon = Daemon::under(mpm, &format!("{sizes}ProxyPass / {}/", backend.url()));
        let mut busy: Vec<Client> = (0..2).map(|_| daemon.connect()).collect();
        for client in &mut busy {
            client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        }
        backend.wait_for_now(2);
        let mut waiting = daemon.connect();
        waiting.send("GET /bytes/10 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        reload(&daemon);
        let begun = Instant::now();
        assert_eq!(daemon.get("/bytes/10").status, 200);
        println!("served {:?} after the reload", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(5), "it had to wait: {:?}", begun.elapsed());
        if mpm == Mpm::Event {
            // The one that a full child of this driver has accepted already waits there for a worker.
            backend.release();
        }
        assert_eq!(waiting.answer("GET").expect("an answer").status, 200);
        backend.release();
        for client in &mut busy {
            assert_eq!(client.answer("GET").expect("an answer").status, 200);
        }
    }

    fn what_is_not_finished_in_time_is_cut_and_told(mpm) {
        let backend = Backend::start();
        let daemon =
            Daemon::under(mpm, &format!("GracefulReloadTimeout 1\nExtendedStatus On\nProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(1);
        reload(&daemon);
        let line = daemon.wait_for_log("(GracefulReloadTimeout), cut");
        assert!(line.contains("generation 1") && line.contains("GET /hold"), "{line}");
        assert!(client.answer("GET").is_err(), "the request was cut");
        assert_eq!(daemon.get("/").status, 200);
    }

    fn a_client_whose_response_outlives_the_grace_may_ask_once_more(mpm) {
        let backend = Backend::with(|exchange| {
            if exchange.segments() != ["long"] {
                return exchange.echo();
            }
            exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")?;
            exchange.hold();
            exchange.raw(b"-last")
        });
        let text = format!("HandOver Off\nKeepAliveTimeout 1\nProxyPass / {}/", backend.url());
        let daemon = Daemon::under(mpm, &text);
        let mut client = daemon.connect();
        client.send("GET /long HTTP/1.1\r\nHost: test\r\n\r\n");
        let begun = client.stream().peek(&mut [0]).expect("the response begins");
        assert_eq!(begun, 1);
        reload(&daemon);
        // The grace of the old generation is over before the response is.
        std::thread::sleep(Duration::from_millis(1500));
        backend.release();
        let long = client.answer("GET").expect("it is not cut");
        assert!(!long.closes(), "its head was sent before anybody knew");
        std::thread::sleep(Duration::from_millis(100));
        let last = client.get("/").expect("it had been promised another request");
        assert_eq!(last.status, 200);
        assert!(last.closes(), "and now it is told");
    }

    fn listeners_come_go_and_move(mpm) {
        let backend = Backend::start();
        let (port, url) = (free_port(), backend.url());
        let text = |listen: &str| format!("MPM {}\nListen 127.0.0.1:0\n{listen}\nProxyPass / {url}/", mpm.name());
        let daemon = Daemon::at(Home::new(), &text(""));
        let there = SocketAddr::from(([127, 0, 0, 1], port));
        rewrite(&daemon, &text(&format!("Listen {there}")));
        reload(&daemon);
        assert_eq!(get(there, "/").map(|answer| answer.status), Ok(200));

        let crowd = Crowd::start(there);
        for listen in [format!("Listen 0.0.0.0:{port}"), format!("Listen {there}"), format!("Listen 0.0.0.0:{port}")] {
            rewrite(&daemon, &text(&listen));
            reload(&daemon);
            std::thread::sleep(Duration::from_millis(200));
        }
        crowd.finish();

        rewrite(&daemon, &text(""));
        reload(&daemon);
        wait_until("the port is free again", || TcpListener::bind(there).ok().map(drop));
        assert_eq!(daemon.get("/").status, 200, "the one on port 0 has kept its port");
    }
}

#[test]
fn what_waits_at_a_listener_that_vanishes_is_served() {
    let backend = Backend::start();
    let (port, url) = (free_port(), backend.url());
    let sizes = "StartServers 1\nServerLimit 1\nThreadsPerChild 1\nMaxRequestWorkers 1\nMinSpareThreads 1";
    let text =
        |listen: &str| format!("MPM worker\n{sizes}\nListen 127.0.0.1:0\n{listen}\nProxyPass / {url}/");
    let there = SocketAddr::from(([127, 0, 0, 1], port));
    let daemon = Daemon::at(Home::new(), &text(&format!("Listen {there}")));
    let mut busy = Client::connect(there);
    busy.send("GET /hold HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    backend.wait_for_now(1);
    let mut waiting: Vec<Client> = (0..5).map(|_| Client::connect(there)).collect();
    for client in &mut waiting {
        client.send("GET /bytes/10 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    }
    rewrite(&daemon, &text(""));
    reload(&daemon);
    backend.release();
    assert_eq!(busy.answer("GET").expect("an answer").status, 200);
    for client in &mut waiting {
        assert_eq!(client.answer("GET").expect("an answer").status, 200);
    }
    wait_until("the port is free again", || TcpListener::bind(there).ok().map(drop));
}

#[test]
fn a_reload_may_change_the_mpm() {
    let backend = Backend::start();
    let text = |mpm: Mpm| format!("MPM {}\nProxyPass / {}/", mpm.name(), backend.url());
    let daemon = Daemon::at(Home::new(), &text(Mpm::Event));
    let crowd = Crowd::start(daemon.address());
    for mpm in [Mpm::Worker, Mpm::Prefork, Mpm::Event, Mpm::Prefork, Mpm::Worker, Mpm::Event] {
        rewrite(&daemon, &text(mpm));
        reload(&daemon);
        std::thread::sleep(Duration::from_millis(150));
    }
    crowd.finish();
    println!("{:?}", times(&daemon));
}

#[test]
fn a_reload_may_change_the_limits() {
    let backend = Backend::start();
    let text = |servers: u32, threads: u32| {
        format!(
            "MPM event\nServerLimit {servers}\nThreadLimit {threads}\nThreadsPerChild {threads}\n\
             MaxRequestWorkers {}\nStartServers 1\nMinSpareThreads 1\nProxyPass / {}/",
            servers * threads,
            backend.url()
        )
    };
    let daemon = Daemon::at(Home::new(), &text(2, 10));
    let crowd = Crowd::start(daemon.address());
    for (servers, threads) in [(4, 20), (1, 40), (8, 5), (2, 10)] {
        rewrite(&daemon, &text(servers, threads));
        let generation = reload(&daemon);
        daemon.wait_for_status("the new generation", |status| {
            status.text.contains(&format!("generation {generation}"))
        });
    }
    crowd.finish();
    println!("{:?}", times(&daemon));
}

#[test]
fn a_generation_that_does_not_come_up_changes_nothing() {
    let backend = Backend::start();
    let good = format!("MPM event\nProxyPass / {}/", backend.url());
    let daemon = Daemon::at(Home::new(), &good);
    let children = daemon.children();
    // A log that cannot be opened; a name that nobody has; a port that another holds; what no reload may change.
    let other = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let taken = other.local_addr().expect("it is bound");
    for (line, words) in [
        ("CustomLog /nonexistent/access.log common".to_owned(), "cannot open log /nonexistent/access.log"),
        ("ProxyPass /x http://no-such-host.invalid/".to_owned(), "cannot resolve no-such-host.invalid"),
        (format!("Listen 127.0.0.1:0\nListen {taken}"), "cannot listen on"),
        ("PidFile other.pid".to_owned(), "PidFile"),
    ] {
        rewrite(&daemon, &format!("{line}\n{good}"));
        let log = refused(&daemon);
        assert!(log.contains(words), "{line}:\n{log}");
        assert_eq!(daemon.get("/").status, 200, "{line}");
        daemon.assert_alive(&children);
    }
    rewrite(&daemon, &good);
    reload(&daemon);
    assert_eq!(daemon.get("/").status, 200);
}

/// How many of twenty clients find room in the kernel's queue while nobody accepts.
#[track_caller]
fn queued(daemon: &Daemon) -> usize {
    let [child] = daemon.wait_for_children(1)[..] else { panic!("one child") };
    // Whoever has queued before has been accepted then.
    assert_eq!(daemon.get("/").status, 200);
    processes::send(child, Signal::SIGSTOP);
    wait_until("its stop", || processes::look(child).filter(|process| process.state == 'T'));
    let connect = |_| TcpStream::connect_timeout(&daemon.address(), Duration::from_millis(300)).ok();
    let clients: Vec<TcpStream> = (0..20).map_while(connect).collect();
    processes::send(child, Signal::SIGCONT);
    clients.len()
}

#[test]
fn a_socket_is_changed_only_by_a_reload_that_succeeds() {
    let backend = Backend::start();
    let good = format!("MPM event\n{}ProxyPass / {}/", Mpm::Event.one_child(), backend.url());
    let daemon = Daemon::at(Home::new(), &format!("Listen 127.0.0.1:0\nSendBufferSize 65536\n{good}"));
    assert_eq!(queued(&daemon), 20);
    let other = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let taken = other.local_addr().expect("it is bound");
    rewrite(&daemon, &format!("Listen 127.0.0.1:0\nListenBacklog 7\nListen {taken}\n{good}"));
    let log = refused(&daemon);
    assert!(log.contains("cannot listen on"), "{log}");
    assert_eq!(queued(&daemon), 20, "refused");
    rewrite(&daemon, &format!("Listen 127.0.0.1:0\nListenBacklog 7\n{good}"));
    reload(&daemon);
    let line = daemon.wait_for_log("SendBufferSize");
    assert!(line.contains(&format!("not set any more, but {} keeps its size", daemon.address())), "{line}");
    assert!((1..20).contains(&queued(&daemon)), "carried out");
}

#[test]
fn children_that_cannot_work_are_given_up_and_the_old_ones_stay() {
    let backend = Backend::start();
    let good = format!("MPM worker\nStartServers 2\nProxyPass / {}/", backend.url());
    let daemon = Daemon::at(Home::new(), &good);
    let children = daemon.children();
    // From now on the master's children have no room for a single stack of this size.
    let size = processes::figure(daemon.master(), "VmSize").expect("it runs") << 10;
    processes::limit(daemon.master(), "as", size + (512 << 20));
    // It gets a scoreboard of its own, with more slots and more backends.
    let more: String =
        (1..10).map(|number| format!("ProxyPass /{number} http://127.0.0.1:{number}9/\n")).collect();
    rewrite(&daemon, &format!("ThreadStackSize 1073741824\nServerLimit 40\n{more}{good}"));
    let log = refused(&daemon);
    assert!(log.contains("the new generation does not come up: child "), "{log}");
    assert_eq!(daemon.get("/").status, 200);
    daemon.assert_alive(&children);
    wait_until("nothing is left of it", || (daemon.children().len() == children.len()).then_some(()));
    rewrite(&daemon, &good);
    reload(&daemon);
    assert_eq!(daemon.get("/").status, 200);
}

#[test]
fn a_refused_reload_takes_no_client_from_a_listener_that_goes_on() {
    let backend = Backend::start();
    let port = free_port();
    let there = SocketAddr::from(([127, 0, 0, 1], port));
    let text = |listen: &str| {
        format!("MPM worker\nStartServers 2\nListen {listen}:{port}\nProxyPass / {}/", backend.url())
    };
    let daemon = Daemon::at(Home::new(), &text("0.0.0.0"));
    let size = processes::figure(daemon.master(), "VmSize").expect("it runs") << 10;
    processes::limit(daemon.master(), "as", size + (512 << 20));
    rewrite(&daemon, &format!("ThreadStackSize 1073741824\n{}", text("127.0.0.1")));
    // Those that come between the bind and the refusal may have to knock twice.
    let clients = Newcomers::start(there, 6);
    for _ in 0..5 {
        let log = refused(&daemon);
        assert!(log.contains("the new generation does not come up: child "), "{log}");
        std::thread::sleep(Duration::from_millis(100));
    }
    rewrite(&daemon, &text("127.0.0.1"));
    reload(&daemon);
    let (served, failures) = clients.finish();
    assert!(failures.is_empty(), "{} of {served} lost: {failures:#?}", failures.len());
    assert_eq!(get(there, "/").map(|answer| answer.status), Ok(200));
}

#[test]
fn rotating_a_log_loses_and_splits_no_line() {
    let backend = Backend::start();
    let home = Home::new();
    let log = home.path("access.log");
    let text = format!(
        "MPM event\nCustomLog {} \"begin %r %>s end\"\nProxyPass / {}/",
        log.display(),
        backend.url()
    );
    let daemon = Daemon::at(home, &text);
    let crowd = Crowd::start(daemon.address());
    for turn in 0..5 {
        std::fs::rename(&log, log.with_extension(turn.to_string())).expect("it is there");
        std::fs::rename(daemon.home().path("error.log"), daemon.home().path("error.old"))
            .expect("it is there");
        daemon.signal(Signal::SIGUSR1);
        wait_until("the new log", || log.exists().then_some(()));
        daemon.wait_for_log("] serving generation ");
        std::thread::sleep(Duration::from_millis(100));
    }
    let served = crowd.finish();
    let names: Vec<_> =
        (0..5).map(|turn| log.with_extension(turn.to_string())).chain([log.clone()]).collect();
    let lines = || {
        let read = |path: &std::path::PathBuf| std::fs::read_to_string(path).expect("text");
        let text: String = names.iter().map(read).collect();
        let whole = text.lines().filter(|line| line.starts_with("begin GET ") && line.ends_with(" 200 end"));
        (whole.count() as u64, text.lines().count() as u64)
    };
    wait_until("every line", || (lines().0 >= served).then_some(()));
    assert_eq!(lines(), (served, served), "whole lines, all lines");
}

#[test]
fn a_log_that_is_a_pipe_without_a_reader_holds_nobody_up() {
    let home = Home::new();
    let pipe = home.path("access.fifo");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("the test's own directory");
    let reader = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe);
    let reader = reader.expect("it is there");
    let backend = Backend::start();
    let text = format!("MPM event\nCustomLog {} common\nProxyPass / {}/", pipe.display(), backend.url());
    let daemon = Daemon::at(home, &text);
    reload(&daemon);
    drop(reader);
    let log = refused(&daemon);
    assert!(log.contains("access.fifo: No such device or address; nobody reads from it"), "{log}");
    daemon.tolerate("cannot write the access log");
    assert_eq!(daemon.get("/").status, 200);
}

#[test]
fn ten_at_once_are_one_or_two() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    for _ in 0..10 {
        daemon.signal(Signal::SIGHUP);
    }
    wait_until("a reload", || (reloads(&daemon) > 0).then_some(()));
    holds_for("few reloads", Duration::from_millis(500), || reloads(&daemon) <= 3);
    assert_eq!(daemon.get("/").status, 200);
}

#[test]
fn a_fifth_generation_waits_for_the_first() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!("ProxyPass / {}/", backend.url()));
    let mut held = Vec::new();
    for count in 1..=4 {
        let mut client = daemon.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        backend.wait_for_now(count);
        held.push(client);
        reload(&daemon);
        // Until the old ones have turned away from their listeners, they may still accept the next client.
        std::thread::sleep(Duration::from_millis(300));
    }
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_for_log("the reload waits for ");
    assert!(line.contains("generation 1 to finish"), "{line}");
    assert_eq!(daemon.get("/").status, 200);
    backend.release();
    for client in &mut held {
        assert_eq!(client.answer("GET").expect("an answer").status, 200);
    }
    wait_until("the fifth reload", || (reloads(&daemon) == 5).then_some(()));
}

#[test]
fn k_graceful_says_what_came_of_it() {
    let backend = Backend::start();
    let good = format!("MPM event\nProxyPass / {}/", backend.url());
    let mut daemon = Daemon::detached(Mpm::Event, &format!("ProxyPass / {}/", backend.url()));
    let config = daemon.home().config().to_string_lossy().into_owned();
    let pattern =
        regex::Regex::new(r"^serving generation (\d+) \(\d+ (ms|s)\)\n$").expect("a literal pattern");
    for (order, want) in [("graceful", "2"), ("restart", "3")] {
        let run = ostler(&["-k", order, "-f", &config]);
        assert_eq!(run.code, Some(0), "{run:?}");
        let found = pattern.captures(&run.stdout).unwrap_or_else(|| panic!("{run:?}"));
        assert_eq!(&found[1], want);
    }
    // A bad file is refused before anybody is signalled; what only the daemon can find is told as well.
    rewrite(&daemon, &format!("{good}\nNoSuchDirective"));
    let run = ostler(&["-k", "graceful", "-f", &config]);
    assert!(run.code == Some(1) && run.stderr.contains("NoSuchDirective"), "{run:?}");
    assert!(!daemon.log().contains("refused"), "the daemon has not been disturbed");
    rewrite(&daemon, &format!("{good}\nCustomLog /nonexistent/access.log common"));
    daemon.tolerate(":error]");
    let run = ostler(&["-k", "graceful", "-f", &config]);
    assert!(run.code == Some(1) && run.stderr.contains("/nonexistent/access.log"), "{run:?}");
    rewrite(&daemon, &good);
    assert_eq!(ostler(&["-k", "stop", "-f", &config]).code, Some(0));
    daemon.wait_for_end();
}

#[test]
fn k_graceful_starts_what_does_not_run() {
    let backend = Backend::start();
    let home = Home::new();
    let config = home.write_whole(&format!("ProxyPass / {}/", backend.url()));
    let config = config.to_string_lossy().into_owned();
    let run = ostler(&["-k", "graceful", "-f", &config]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("not running"), "{run:?}");
    let stopped = ostler(&["-k", "stop", "-f", &config]);
    assert!(stopped.code == Some(0) && stopped.stdout.contains("has stopped"), "{stopped:?}");
}
