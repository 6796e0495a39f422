//! What a warm kept-alive request costs: system calls, as strace sees them, and allocations.

use crate::support::{Backend, Client, Daemon, Home, Mpm, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

/// Requests in a look.
const REQUESTS: usize = 20;

/// Waits of one look under event, at most: one for the client's bytes and one for the backend's, and one that is under
/// way at the end.
const EDGES: usize = 2 * (REQUESTS + 1) + 1;

/// Looks until so many were as they should be. A thread that strace or a busy machine holds up for some milliseconds is
/// taken for stuck, and the steward rightly calls up another: that look has a futex more. A hot path that had one in a
/// fifth of its requests would show one look in ninety without.
const LOOKS: usize = 20;
const GOOD: usize = 3;

/// Why strace can't be used here, if so.
pub fn no_strace() -> Option<String> {
    let mut command = Command::new("strace");
    command.args(["-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::piped());
    match command.output() {
        Err(error) => Some(format!("strace: {error}")),
        Ok(done) if !done.status.success() => Some(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        Ok(_) => None,
    }
}

/// The calls of a child's serving threads during `work`, in their order, or why it can't be attached to. `options` of
/// strace may have it look for less, or have calls fail.
pub fn calls(child: i32, home: &Path, options: &[&str], work: impl FnOnce()) -> Result<Vec<String>, String> {
    let (trace, said) = (home.join("strace"), home.join("strace.said"));
    let serves_alone = fs::read_dir(format!("/proc/{child}/task")).is_ok_and(|tasks| tasks.count() == 1);
    let mut strace = Command::new("strace")
        .args(options)
        .args(["-f", "-p", &child.to_string(), "-o"])
        .arg(&trace)
        .stdin(Stdio::null())
        .stderr(File::create(&said).expect("the directory is the test's own"))
        .spawn()
        .expect("it can be run");
    let told = || fs::read_to_string(&said).unwrap_or_default();
    let attached = wait_until("strace to attach or to give up", || {
        // It says so once, when it has all threads.
        let attached = told().contains(" attached");
        let ended = strace.try_wait().expect("it is our own child").is_some();
        (attached || ended).then_some(!ended)
    });
    if !attached {
        return Err(told());
    }
    work();
    kill(Pid::from_raw(strace.id() as i32), Signal::SIGINT).expect("it is our own child");
    strace.wait().expect("it is our own child");
    // Of several threads the first is the steward, which looks from time to time whether all is well.
    let steward = format!("{child} ");
    Ok(fs::read_to_string(&trace)
        .expect("strace writes it")
        .lines()
        .filter(|line| serves_alone || !line.starts_with(&steward))
        .map(|line| line.split_once(' ').map_or(line, |(_, call)| call.trim_start()).to_owned())
        .collect())
}

/// The calls by name, with one word for all that send; the end of one that was cut in two is not a call, nor is what a
/// thread goes on with that strace has stopped.
fn names(calls: &[String]) -> Vec<&str> {
    let is_name =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte));
    calls
        .iter()
        .filter_map(|call| {
            // Before a debug build closes a descriptor the library looks whether it is open.
            call.split_once('(')
                .filter(|(_, rest)| !rest.contains("F_GETFD"))
                .map(|(name, _)| name)
                .filter(|name| is_name(name) && *name != "restart_syscall")
        })
        .map(|name| if ["sendto", "sendmsg"].contains(&name) { "send" } else { name })
        .collect()
}

/// There is nothing to look with: no fault on somebody's machine, but in continuous integration, which has installed it.
#[track_caller]
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "calls can't be looked at: {why}");
    eprintln!("skipped, calls can't be looked at: {why}");
}

/// Whose requests are looked at.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Connection {
    /// Of a client that keeps its connection.
    Kept,
    /// Of clients that each ask once.
    Fresh,
}

/// Plays looks until in [`GOOD`] of them each request made exactly the calls of `want`, in their order, and all of them
/// together at most `waits` that only wait.
#[track_caller]
fn makes_exactly(mpm: Mpm, config: &str, connection: Connection, want: &[&str], waits: usize) {
    if let Some(why) = no_strace() {
        return skip(&why);
    }
    let backend = Backend::with(|exchange| {
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
    });
    let text =
        format!("{}\nMaxKeepAliveRequests 0\n{config}\nProxyPass / {}/", mpm.one_child(), backend.url());
    let daemon = Daemon::under(mpm, &text);
    let mut client = daemon.connect();
    let kept = |client: &mut Client| {
        let answer = client.get("/hot").expect("an answer");
        assert_eq!((answer.status, answer.closes()), (200, false));
    };
    let fresh = || {
        let mut client = daemon.connect();
        let answer =
            client.ask("GET /hot HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").expect("an answer");
        assert_eq!((answer.status, answer.closes()), (200, true));
        client.closed().expect("nothing follows");
    };
    (0..20).for_each(|_| kept(&mut client));
    let child = daemon.child_of(&client);
    let home = daemon.home().path("");
    let (mut last, mut good) = (Vec::new(), 0);
    for _ in 0..LOOKS {
        // One more than looked at: strace may leave before what follows the last answer.
        let work = || {
            (0..=REQUESTS)
                .for_each(|_| if connection == Connection::Kept { kept(&mut client) } else { fresh() });
        };
        last = match calls(child, &home, &[], work) {
            Ok(seen) => seen,
            Err(why) => return skip(&why),
        };
        // A new connection is read before it is known whether bytes are there.
        last.retain(|call| connection == Connection::Kept || !call.contains("= -1 EAGAIN"));
        // What threads waited in when strace came is shown first.
        let mut seen: Vec<&str> = names(&last).into_iter().skip_while(|name| *name != want[0]).collect();
        let all = seen.len();
        seen.retain(|name| !["epoll_wait", "ppoll"].contains(name));
        let waited = all - seen.len();
        let wanted = want.repeat(REQUESTS);
        let rest = seen.get(wanted.len()..).unwrap_or_default();
        // The one more, and whoever waits in a receive has begun the next.
        let is_good = seen.starts_with(&wanted) && want.repeat(2).starts_with(rest) && waited <= waits;
        good += usize::from(is_good);
        if good == GOOD {
            return;
        }
    }
    panic!(
        "in {good} of {LOOKS} looks every request made the calls {want:?}, not in {GOOD}; the last:\n{}",
        last.join("\n")
    );
}

#[test]
fn a_warm_request_is_two_receives_and_two_sends() {
    makes_exactly(Mpm::Event, "", Connection::Kept, &["recvfrom", "send", "recvfrom", "send"], EDGES);
}

#[test]
fn a_connection_of_one_request_is_watched_once_and_closed_without_a_wait() {
    let want = ["accept4", "epoll_ctl", "recvfrom", "send", "recvfrom", "send", "close"];
    // One wait more for each: it comes by a listener.
    makes_exactly(Mpm::Event, "", Connection::Fresh, &want, EDGES + REQUESTS + 1);
}

#[test]
fn the_log_adds_one_write() {
    let want = ["recvfrom", "send", "recvfrom", "send", "write"];
    makes_exactly(Mpm::Event, "CustomLog access.log common", Connection::Kept, &want, EDGES);
}

#[test]
fn a_thread_of_one_connection_waits_in_the_receives_and_looks_up_rarely() {
    // The second receive looks whether the backend has closed the connection. Whoever has waited for long before these
    // requests polls for the first two, and now and then it looks up.
    let want = ["recvfrom", "recvfrom", "send", "recvfrom", "send"];
    for mpm in [Mpm::Worker, Mpm::Prefork] {
        makes_exactly(mpm, "", Connection::Kept, &want, 4);
    }
}

#[test]
fn an_order_ends_a_nap() {
    if let Some(why) = no_strace() {
        return skip(&why);
    }
    let backend = Backend::start();
    let daemon = Daemon::under(Mpm::Prefork, &format!("ProxyPass / {}/", backend.url()));
    let mut last = Vec::new();
    for look in 0..LOOKS {
        let mut client = daemon.connect();
        let ask = |client: &mut Client| (0..10).all(|_| client.get("/").is_ok_and(|answer| !answer.closes()));
        if !ask(&mut client) {
            // It has come to a child that leaves.
            continue;
        }
        let child = daemon.child_of(&client);
        let reloads = || daemon.lines_with("serving generation").len();
        let work = || {
            ask(&mut client);
            let before = reloads();
            daemon.signal(Signal::SIGHUP);
            wait_until("another generation", || (reloads() > before).then_some(()));
            // What the child says to its client now is its last word.
            let last = client.get("/").expect("it was not closed under the client's hand");
            assert!(last.closes(), "in look {look}: {:?}", last.fields);
        };
        last = match calls(child, &daemon.home().path(""), &[], work) {
            Ok(seen) => seen,
            Err(why) => return skip(&why),
        };
        let is_interrupted = |call: &&String| call.starts_with("recvfrom(") && call.contains("= -1 EINTR");
        if last.iter().any(|call| is_interrupted(&call))
            && last.iter().any(|call| call.starts_with("--- SIGIO"))
        {
            return;
        }
    }
    panic!("in none of {LOOKS} looks a nap was interrupted; the last:\n{}", last.join("\n"));
}

/// Allocations for `requests` kept-alive requests, once the daemon has served some.
fn allocations(config: &str, requests: usize) -> u64 {
    let backend = Backend::with(|exchange| {
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
    });
    let home = Home::new();
    let count = home.path("allocations");
    let program = Path::new(env!("CARGO_BIN_EXE_ostler")).with_file_name("examples").join("counting");
    assert!(program.exists(), "{} is missing; cargo build --example counting", program.display());
    let mut counting = Command::new(program);
    counting.arg(&count).stdin(Stdio::null());
    let daemon = Daemon::by(
        counting,
        home,
        &format!(
            "MPM event\nStartServers 1\nServerLimit 1\nThreadsPerChild 4\nMaxRequestWorkers 4\n\
             MinSpareThreads 1\nMaxKeepAliveRequests 0\n{config}\nProxyPass / {}/",
            backend.url()
        ),
    );
    let mut client = daemon.connect();
    let mut ask = |count: usize| {
        for _ in 0..count {
            let answer = client.get("/hot").expect("an answer");
            assert_eq!((answer.status, answer.closes()), (200, false));
        }
    };
    ask(200);
    let counted = || {
        let bytes = fs::read(&count).expect("the daemon has made it");
        u64::from_ne_bytes(bytes.try_into().expect("it has 8 bytes"))
    };
    assert!(counted() > 100, "a daemon that starts allocates, and this one is counted");
    let before = counted();
    ask(requests);
    counted() - before
}

#[test]
fn a_warm_request_allocates_nothing() {
    let requests = 1_000;
    for config in ["", "CustomLog access.log combined"] {
        let count = allocations(config, requests);
        eprintln!("{count} allocations for {requests} requests with {config:?}");
        // Stewards and the master look around from time to time, whatever the number of requests.
        assert!(count < requests as u64 / 20, "{count} allocations for {requests} requests with {config:?}");
    }
}
