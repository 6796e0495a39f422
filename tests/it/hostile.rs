//! Peers that mean harm, and a machine that has no more to give: what they cost must stay bounded, and end.

use crate::support::processes::{figure, limit, ticks};
use crate::support::{Backend, Client, Daemon, Failure, at_once, descriptors, wait_until};
use std::io::Write;
use std::time::{Duration, Instant};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

under_each_mpm! {
    fn a_tunnel_whose_origin_has_no_more_to_say_costs_nothing(mpm) {
        // The origin says its last byte, and goes on listening.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
        let origin = listener.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().expect("the daemon comes");
            let _ = stream.read(&mut [0; 4000]).expect("a request");
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nlast")
                .expect("sent");
            stream.shutdown(std::net::Shutdown::Write).expect("open until now");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            rest
        });
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / http://{origin}/", mpm.one_child()));
        let mut client = daemon.connect();
        client.send(UPGRADE);
        let [pid] = daemon.children()[..] else { panic!("one child") };
        let got = client.rest().expect("the head, what the origin said, and its end");
        assert!(got.ends_with(b"\r\n\r\nlast"), "{:?}", String::from_utf8_lossy(&got));
        let before = ticks(pid);
        std::thread::sleep(Duration::from_secs(1));
        let used = ticks(pid) - before;
        assert!(used < 15, "{used} ticks in a second of silence");
        client.send("still here");
        client.finish_sending();
        assert_eq!(thread.join().expect("the origin is content"), b"still here");
    }

    fn a_body_that_stalls_is_given_up_however_fast_it_began(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("Timeout 2\nProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        // At 500 bytes a second (RequestReadTimeout's default rate) this much earns more than half an hour.
        client.send("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n");
        client.send(vec![b'x'; 1_000_000]);
        let start = Instant::now();
        let answer = client.answer("POST").map(|answer| answer.status);
        assert_eq!(answer, Ok(408), "after {:?}", start.elapsed());
    }

    fn a_want_of_descriptors_passes_and_leaves_no_trace(mpm) {
        descriptors();
        let backend = Backend::start();
        let shape = if mpm.is_prefork() {
            mpm.one_child()
        } else {
            "StartServers 1\nServerLimit 1\nThreadsPerChild 50\nMaxRequestWorkers 50\nMinSpareThreads 1\n"
        };
        let daemon = Daemon::under(mpm, &format!("{shape}KeepAliveTimeout 1\nProxyPass / {}/", backend.url()));
        for words in ["Too many open files", "MaxRequestWorkers"] {
            daemon.tolerate(words);
        }
        let [pid] = daemon.children()[..] else { panic!("one child") };
        let used = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it is ours").count();
        limit(pid, "nofile", used as u64 + 20);
        let address = daemon.address();
        for _ in 0..3 {
            for client in at_once(60, move |_| crate::support::daemon::get(address, "/delay/100")) {
                // Late, or told so: never left without an answer.
                let status = client.join().expect("a client never panics").map(|answer| answer.status);
                assert!(matches!(status, Ok(200 | 503)), "{status:?}");
            }
        }
        limit(pid, "nofile", 1000);
        daemon.wait_for_status("no worker is held any more", |status| status.busy == 0);
        wait_until("no connection is left", || (daemon.connections().iter().sum::<usize>() == 0).then_some(()));
        let threads: Vec<_> = at_once(40, move |_| crate::support::daemon::get(address, "/delay/100"));
        crate::support::load::all_served(threads);
        daemon.assert_alive(&[pid]);
    }

    fn a_client_that_leaves_at_any_point_takes_nothing_with_it(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", mpm.one_child(), backend.url()));
        let request = b"POST /up HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
            GET /bytes/300000 HTTP/1.1\r\nHost: test\r\n\r\n";
        for cut in 0..=request.len() {
            let mut client = daemon.connect();
            client.send(&request[..cut]);
            if cut % 2 == 0 {
                let socket = socket2::SockRef::from(&*client.stream());
                socket.set_linger(Some(Duration::ZERO)).expect("a connected socket takes options");
            }
        }
        assert_eq!(daemon.get("/after").status, 200);
        daemon.wait_for_status("no worker is held any more", |status| status.busy == 0);
        wait_until("no connection is left", || (daemon.connections().iter().sum::<usize>() == 0).then_some(()));
    }

    fn thousands_of_requests_in_one_go_are_answered_in_order(mpm) {
        const REQUESTS: usize = 5000;
        let backend = Backend::start();
        let text = format!("{}MaxKeepAliveRequests 0\nProxyPass / {}/", mpm.one_child(), backend.url());
        let daemon = Daemon::under(mpm, &text);
        let mut client = daemon.connect();
        let mut sender = client.stream().try_clone().expect("a descriptor is free");
        let thread = std::thread::spawn(move || {
            for nth in 0..REQUESTS {
                let request = format!("GET /{nth} HTTP/1.1\r\nHost: test\r\n\r\n");
                sender.write_all(request.as_bytes()).expect("the daemon takes them all");
            }
        });
        let ask = |client: &mut Client| -> Result<String, Failure> {
            Ok(client.answer("GET")?.echo().target().to_owned())
        };
        for nth in 0..REQUESTS {
            assert_eq!(ask(&mut client), Ok(format!("/{nth}")));
        }
        thread.join().expect("all sent");
    }

    fn a_client_that_only_asks_is_read_no_further_than_it_reads(mpm) {
        let backend = Backend::start();
        let text = format!("{}MaxKeepAliveRequests 0\nProxyPass / {}/", mpm.one_child(), backend.url());
        let daemon = Daemon::under(mpm, &text);
        assert_eq!(daemon.get("/before").status, 200);
        let child = daemon.wait_for_children(1)[0];
        let before = figure(child, "VmHWM").expect("the kernel knows");
        let mut client = daemon.connect();
        client.stream().set_write_timeout(Some(Duration::from_secs(2))).expect("not zero");
        let one = b"GET /bytes/20000 HTTP/1.1\r\nHost: test\r\n\r\n";
        let many = one.repeat(1000);
        let mut sent = 0;
        while sent < 64 << 20 {
            match client.stream().write(&many[sent % one.len()..]) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        assert!(sent < 64 << 20, "requests for a gigabyte and more were taken of a client that reads nothing");
        let after = figure(child, "VmHWM").expect("the kernel knows");
        assert!(after - before < 8 * 1024, "from {before} to {after} KiB: requests or answers were hoarded");
        // It has not been forgotten: what it asked for first comes first, and goes on.
        for _ in 0..50 {
            assert_eq!(client.answer("GET").map(|answer| (answer.status, answer.body.len())), Ok((200, 20_000)));
        }
    }
}
