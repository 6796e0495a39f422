//! `ostler size`: what it forecasts is what a server at its most takes, and it leaves nothing behind.
//!
//! `OSTLER_TEST_MEMORY` (for example 512M: thousands of threads or processes) makes the servers that are loaded to the
//! full larger than they are by default.

use crate::support::{Daemon, Home, Mpm, descriptors, ostler, processes, run, wait_until};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An origin of one thread and one descriptor a connection, since there will be thousands: answers `/`, and never
/// `/hold`.
struct Holder {
    address: SocketAddr,
    held: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Holder {
    fn start() -> Self {
        let poll = Poll::new().expect("a descriptor is free");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a descriptor is free");
        let listener =
            TcpListener::bind("127.0.0.1:0".parse().expect("an address")).expect("port 0 is always free");
        let address = listener.local_addr().expect("bound above");
        let held = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let (count, end) = (Arc::clone(&held), Arc::clone(&over));
        let thread = std::thread::spawn(move || serve(poll, listener, &count, &end));
        Self { address, held, over, waker, thread: Some(thread) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.waker.wake().expect("its poll is there");
        self.thread.take().map(JoinHandle::join);
    }
}

fn serve(mut poll: Poll, mut listener: TcpListener, held: &AtomicU64, over: &AtomicBool) {
    poll.registry().register(&mut listener, Token(1), Interest::READABLE).expect("it is new");
    let mut events = Events::with_capacity(1024);
    let mut connections: HashMap<usize, TcpStream> = HashMap::new();
    let mut next = 2;
    while !over.load(Ordering::SeqCst) {
        // Interrupted: look again.
        let _ = poll.poll(&mut events, None);
        for event in events.iter() {
            let Token(number) = event.token();
            if number == 1 {
                while let Ok((mut stream, _)) = listener.accept() {
                    poll.registry()
                        .register(&mut stream, Token(next), Interest::READABLE)
                        .expect("it is new");
                    connections.insert(next, stream);
                    next += 1;
                }
            }
            let Some(stream) = connections.get_mut(&number) else { continue };
            let mut piece = [0; 4096];
            loop {
                match stream.read(&mut piece) {
                    // A head of ours comes in one piece.
                    Ok(count) if count > 0 && piece.starts_with(b"GET /hold") => {
                        held.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(count) if count > 0 => drop(stream.write_all(ANSWER)),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    _ => {
                        connections.remove(&number);
                        break;
                    }
                }
            }
        }
    }
}

/// A client's connection that has sent this.
fn client(address: SocketAddr, request: &[u8]) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(address).expect("the daemon listens");
    stream.write_all(request).expect("the daemon reads");
    stream
}

fn document(arguments: &[&str]) -> Value {
    document_by(Command::new(env!("CARGO_BIN_EXE_ostler")), arguments)
}

fn document_by(mut program: Command, arguments: &[&str]) -> Value {
    program.args(["size", "--json"]).args(arguments);
    let run = run(program);
    assert_eq!(run.code, Some(0), "{run:?}");
    serde_json::from_str(&run.stdout).unwrap_or_else(|fault| panic!("{fault}: {}", run.stdout))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn pss(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it is there");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a field of that name");
    line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).expect("a number") * 1024
}

/// Idle connections for each worker of event.
const IDLE: &str = "1";

/// Sizes, starts a server of the limits that are named, has all of its workers busy, and compares.
fn load_to_the_full(mpm: Mpm, memory: &str) {
    let disk = Home::new();
    // A program of its own: pages that daemons of other tests map as well would count for a part only. The one that is
    // measured, too: how much is mapped around a page that is come to depends on how the file lies in the page cache.
    let program = disk.path("ostler");
    fs::copy(env!("CARGO_BIN_EXE_ostler"), &program).expect("there is room for a copy");
    let arguments = ["--private", "--mpm", mpm.name(), "--memory", memory, "--idle", IDLE];
    let told = document_by(Command::new(&program), &arguments);
    let workers = number(&told["limits"]["max_request_workers"]);
    let children = number(&told["limits"]["server_limit"]);
    let idle =
        told["limits"]["max_connections_per_process"].as_u64().map_or(0, |most| most * children - workers);
    // Both ends of every connection are here, but for the daemon's.
    let needed = 2 * workers + idle + 100;
    assert!(descriptors() > needed, "{needed} descriptors are needed; raise ulimit -n");
    let origin = Holder::start();
    let snippet = told["configuration"].as_str().expect("lines of a configuration");
    assert!(!snippet.contains("StartServers"), "too few children for a forecast to be tried: {snippet}");
    let spare = if mpm.is_prefork() { "SpareServers" } else { "SpareThreads" };
    let start = format!("StartServers {children}\nMin{spare} {workers}\nMax{spare} {}\n", 2 * workers);
    let text = format!("{snippet}{start}KeepAliveTimeout 600\nProxyPass / http://{}/\n", origin.address);
    let daemon = Daemon::by(Command::new(&program), Home::in_memory(), &text);
    let count = usize::try_from(children).expect("few enough");
    daemon.wait_for_children(count);
    // Not quite all: where one child has got more of them than others, its workers could not all become busy.
    let mut quiet = Vec::new();
    for _ in 0..idle * 3 / 4 {
        let mut stream = client(daemon.address(), b"GET / HTTP/1.1\r\nHost: size.test\r\n\r\n");
        let mut answer = [0; 512];
        assert!(stream.read(&mut answer).expect("an answer") > 0);
        quiet.push(stream);
    }
    let mut busy = Vec::new();
    for _ in 0..workers {
        busy.push(client(daemon.address(), b"GET /hold HTTP/1.1\r\nHost: size.test\r\n\r\n"));
    }
    wait_until(&format!("{workers} busy workers"), || {
        (origin.held.load(Ordering::SeqCst) == workers).then_some(())
    });
    let pids = daemon.children();
    assert_eq!(pids.len(), count);
    let took = pss(daemon.master()) + pids.iter().map(|pid| pss(*pid)).sum::<u64>();
    let forecast = number(&told["forecast"]["pss"]);
    let ratio = took as f64 / forecast as f64;
    let whole = number(&told["forecast"]["total"]);
    eprintln!(
        "{} {memory}: {children} children, {workers} busy, {} idle: PSS {took}, forecast {forecast}, ratio {ratio:.3}; \
         with the kernel's {whole} of {}",
        mpm.name(),
        quiet.len(),
        number(&told["budget"]["bytes"]),
    );
    assert!(
        (0.85..=1.15).contains(&ratio),
        "PSS {took} is {ratio:.3} of what was forecast, {forecast}: {told:#}"
    );
    assert!(whole <= number(&told["budget"]["bytes"]), "{told:#}");
    // Hundreds of children that all end at once may take their time on a small machine.
    daemon.tolerate("it does not stop; killed");
    drop(busy);
}

under_each_mpm! {
    fn a_server_of_the_limits_that_are_named_takes_what_was_forecast(mpm) {
        let memory = std::env::var("OSTLER_TEST_MEMORY").unwrap_or_else(|_| "64M".to_owned());
        load_to_the_full(mpm, &memory);
    }

    fn a_live_server_is_measured_as_it_is(mpm) {
        let origin = Holder::start();
        let limits = match mpm {
            Mpm::Prefork => "StartServers 4\nServerLimit 4\nMaxRequestWorkers 4\nMinSpareServers 4\n",
            _ => "StartServers 2\nServerLimit 2\nThreadsPerChild 4\nMaxRequestWorkers 8\nMinSpareThreads 8\n",
        };
        let daemon = Daemon::under(mpm, &format!("{limits}ProxyPass / http://{}/\n", origin.address));
        let children = daemon.wait_for_children(if mpm.is_prefork() { 4 } else { 2 });
        let _busy: Vec<_> =
            (0..2).map(|_| client(daemon.address(), b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        daemon.wait_for_status("two busy workers", |status| status.busy == 2);
        let config = daemon.home().config();
        let config = config.to_str().expect("a plain path");
        let told = document(&["-f", config, "--memory", "256M"]);
        let seen = &told["measured"];
        assert_eq!(seen["master_pid"], daemon.master(), "{told:#}");
        assert_eq!(told["costs"]["from"]["child"], "live", "{told:#}");
        assert_eq!(seen["busy"], 2, "{told:#}");
        let listed = seen["children"].as_array().expect("a list");
        let mut pids: Vec<i32> =
            listed.iter().map(|child| i32::try_from(number(&child["pid"])).expect("small")).collect();
        pids.sort_unstable();
        assert_eq!(pids, children);
        assert!(listed.iter().all(|child| number(&child["memory"]["uss"]) > 0), "{told:#}");
        let threads = if mpm.is_prefork() { 1 } else { 4 };
        assert_eq!(told["limits"]["threads_per_child"], threads, "{told:#}");
        let page = ostler(&["size", "-f", config, "--memory", "256M"]);
        assert!(page.stdout.contains(&format!("the live server, pid {}", daemon.master())), "{page:?}");
        // By its scoreboard alone, too.
        let board = daemon.home().path("scoreboard");
        let told = document(&["--scoreboard", board.to_str().expect("a plain path"), "--memory", "256M"]);
        assert_eq!((&told["mpm"], &told["measured"]["master_pid"]), (&mpm.name().into(), &daemon.master().into()));
    }
}

#[test]
fn another_process_model_than_the_live_one_is_measured_privately() {
    let daemon = Daemon::under(Mpm::Worker, "ProxyPass / http://127.0.0.1:9/\n");
    let config = daemon.home().config();
    let told =
        document(&["-f", config.to_str().expect("a plain path"), "--mpm", "prefork", "--memory", "256M"]);
    assert_eq!(
        (&told["mpm"], &told["costs"]["from"]["child"]),
        (&"prefork".into(), &"private".into()),
        "{told:#}"
    );
    let remark = told["remarks"][0].as_str().expect("a remark");
    assert!(remark.contains("runs worker, not prefork; a private one was measured instead"), "{remark}");
}

#[test]
fn what_cannot_fit_is_refused_in_a_sentence() {
    for (arguments, want) in [
        (&["--memory", "1M"] as &[&str], "ostler: not even one child fits: with the master it needs "),
        (&["--scoreboard", "/nowhere/board"], "ostler: cannot open the scoreboard /nowhere/board: "),
    ] {
        let run = ostler(&[&["size"], arguments].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
        assert!(run.stderr.starts_with(want), "{run:?}");
    }
}

/// Directories of private servers that this process made.
fn directories(pid: u32) -> Vec<String> {
    let list = |place: &str| {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let temporary = std::env::temp_dir();
    let mut names = list("/dev/shm");
    names.extend(list(temporary.to_str().expect("a plain path")));
    names.retain(|name| name.starts_with(&format!("ostler-size-{pid}-")));
    names
}

#[test]
fn a_private_server_ends_with_whoever_started_it() {
    for signal in [None, Some(Signal::SIGINT), Some(Signal::SIGKILL)] {
        let mut size = Command::new(env!("CARGO_BIN_EXE_ostler"))
            .args(["size", "--private", "--memory", "256M", "--mpm", "worker"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the program can be run");
        let pid = i32::try_from(size.id()).expect("small");
        let master = wait_until("a private server", || {
            if size.try_wait().expect("it is our own child").is_some() {
                panic!("it has ended without a private server");
            }
            processes::children_of(pid)
                .first()
                .copied()
                .filter(|master| !processes::children_of(*master).is_empty())
        });
        if let Some(signal) = signal {
            kill(Pid::from_raw(pid), signal).expect("it is there");
        }
        let status = size.wait().expect("it is our own child");
        assert_eq!(status.success(), signal.is_none(), "{signal:?}: {status}");
        wait_until("the private server's end", || (!processes::is_alive(master)).then_some(()));
        if signal != Some(Signal::SIGKILL) {
            assert_eq!(directories(size.id()), [] as [&str; 0], "{signal:?}");
        }
        for name in directories(size.id()) {
            for place in ["/dev/shm", std::env::temp_dir().to_str().expect("a plain path")] {
                let _ = fs::remove_dir_all(format!("{place}/{name}"));
            }
        }
    }
}

#[test]
fn a_maximum_that_cannot_fit_is_told_by_a_check_and_at_the_start() {
    let text = "MaxConnectionsPerProcess 100000000\nProxyPass / http://127.0.0.1:9/\n";
    let daemon = Daemon::start(text);
    let memory = "1599999600 idle connections) would take about ";
    let files = "MaxConnectionsPerProcess 100000000 needs 2000001";
    let line = daemon.wait_for_log(memory);
    assert!(line.contains(":warn]"), "{line}");
    daemon.wait_for_log(files);
    let run = ostler(&["-t", "-f", daemon.home().config().to_str().expect("a plain path")]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains(memory) && run.stderr.contains(files), "{run:?}");
    assert!(run.stdout.starts_with("Syntax OK\n"), "{run:?}");
}
