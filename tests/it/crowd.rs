//! Thousands of connections that want nothing must not delay one that does (event).

use crate::support::{Backend, Client, Daemon, Mpm, descriptors, processes, wait_until};
use std::time::{Duration, Instant};

#[test]
fn a_new_request_is_answered_at_once_among_thousands_of_idle_and_slow_ones() {
    // Both ends of every connection are on this machine: the test holds one, the children the other.
    let room = usize::try_from(descriptors()).unwrap_or(usize::MAX);
    let crowd = 2_000.min(room.saturating_sub(500) / 2);
    assert!(crowd >= 200, "a limit of {room} descriptors leaves no room for a crowd; raise ulimit -n");
    let backend = Backend::start();
    let daemon = Daemon::under(
        Mpm::Event,
        &format!(
            "StartServers 2\nThreadsPerChild 25\nMaxRequestWorkers 50\nMinSpareThreads 25\nKeepAliveTimeout 600\n\
             RequestReadTimeout header=600 body=600\nProxyPass / {}/",
            backend.url()
        ),
    );
    let mut idle = Vec::with_capacity(crowd);
    for _ in 0..crowd {
        let mut client = daemon.connect();
        assert_eq!(client.get("/").expect("an answer").status, 200);
        idle.push(client);
    }
    let mut slow = Vec::with_capacity(crowd);
    for _ in 0..crowd {
        let mut client = daemon.connect();
        client.send("GET /slow HTTP/1.1\r\nHost: te");
        slow.push(client);
    }
    let mut waits: Vec<Duration> = (0..21).map(|_| ask(&daemon)).collect();
    waits.sort_unstable();
    assert!(waits[10] < Duration::from_millis(500), "at once? {waits:?}");
    assert!(waits[20] < Duration::from_secs(5), "at once? {waits:?}");
    let status = daemon.wait_for_status("no worker held", |status| status.busy == 0);
    assert_eq!(status.idle, 50, "{}", status.text);
    let held = || daemon.connections().iter().sum::<usize>();
    wait_until("every connection accepted and none given up", || (held() == 2 * crowd).then_some(()));
    // None of them was given up: some of each kind go on where they were.
    for client in idle.iter_mut().step_by(100) {
        assert_eq!(client.get("/again").expect("an answer").echo().target(), "/again");
    }
    for client in slow.iter_mut().step_by(100) {
        client.send("st\r\n\r\n");
        assert_eq!(client.answer("GET").expect("an answer").echo().target(), "/slow");
    }
}

#[test]
fn a_child_gives_the_memory_of_a_crowd_back_once_the_crowd_is_gone() {
    let room = usize::try_from(descriptors()).unwrap_or(usize::MAX);
    let crowd = 3_000.min(room.saturating_sub(500) / 2);
    assert!(crowd >= 2_000, "a limit of {room} descriptors leaves no room for a crowd; raise ulimit -n");
    let backend = Backend::start();
    // No deadline of these connections passes while the test runs.
    let daemon = Daemon::under(
        Mpm::Event,
        &format!("{}\nKeepAliveTimeout 600\nProxyPass / {}/", Mpm::Event.one_child(), backend.url()),
    );
    let child = daemon.wait_for_children(1)[0];
    let heap = || processes::heap_kib(child).expect("it is alive");
    for _ in 0..100 {
        ask(&daemon);
    }
    let before = heap();
    let mut clients = Vec::with_capacity(crowd);
    for _ in 0..crowd {
        let mut client = daemon.connect();
        assert_eq!(client.get("/").expect("an answer").status, 200);
        clients.push(client);
    }
    let with = heap();
    assert!(
        with > before + crowd as u64 / 4,
        "each is to be seen: {before} KiB before, {with} KiB with them"
    );
    drop(clients);
    // A seventh, and what a busy machine may make of one thread or another meanwhile.
    let enough = before + before / 7 + 256;
    assert!(with > enough, "{before} KiB before, {with} KiB with them: nothing could be seen of their going");
    let mut after = with;
    wait_until(
        &format!("{before} KiB before, {with} KiB with {crowd} connections, at most {enough} KiB after them"),
        || {
            after = heap();
            (after <= enough).then_some(())
        },
    );
    eprintln!("{crowd} connections: {before} KiB before, {with} KiB with them, {after} KiB after them");
    // It serves on, and numbers are used again.
    assert!(ask(&daemon) < Duration::from_secs(5));
    assert_eq!(daemon.children(), [child]);
}

fn ask(daemon: &Daemon) -> Duration {
    let start = Instant::now();
    let mut client = Client::connect(daemon.address());
    assert_eq!(client.get("/new").expect("an answer").status, 200);
    start.elapsed()
}
