//! Large bodies, which go by another way than small ones (splice(2)) where they can: nobody may notice.

use crate::hot_path::{calls, no_strace, skip};
use crate::support::backend::by_path;
use crate::support::{Backend, Client, Daemon, Failure, Hash, Home, Mpm, pattern, processes, wait_until};
use nix::sys::socket::{MsgFlags, send};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Around what the daemon reads, splices and moves in a turn, and odd ones.
const SIZES: [usize; 9] =
    [65_537, 131_072, 131_277, 196_613, 262_143, 262_144 + 65_536, 524_287, 1_048_577, 3_000_001];

/// One child, so that it is known who serves.
fn one(mpm: Mpm, text: &str) -> Daemon {
    Daemon::under(mpm, &format!("{}\n{text}", mpm.one_child()))
}

/// How many of a process's descriptors are pipes.
fn pipes(pid: i32) -> usize {
    let list = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
    list.flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}

/// A body comes down and goes up on one connection, and what comes behind it is right, too.
#[track_caller]
fn both_ways(client: &mut Client, size: usize) {
    let answer = client.get(&format!("/bytes/{size}")).expect("an answer");
    assert!(answer.body == pattern(size, size as u64), "{size} down: other bytes");
    let body = pattern(size, 1 + size as u64);
    let echo = client.post("/up", &body).expect("an answer").echo();
    assert_eq!(echo.body(), (size, Hash::of(&body)), "{size} up");
}

/// Reads exactly `length` bytes behind the head.
fn read_slowly(stream: &mut TcpStream, length: usize, mut pause: impl FnMut(usize)) -> Vec<u8> {
    let mut byte = [0];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let mut body = vec![0; length];
    for (place, piece) in body.chunks_mut(10_007).enumerate() {
        pause(place);
        stream.read_exact(piece).expect("all of it comes");
    }
    body
}

under_each_mpm! {
    fn they_arrive_as_they_were_sent(mpm) {
        let backend = Backend::start();
        let daemon = one(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        both_ways(&mut client, 10);
        let child = daemon.child_of(&client);
        let before = pipes(child);
        for size in SIZES {
            both_ways(&mut client, size);
        }
        assert!(pipes(child) > before, "nothing was spliced, so nothing was tested:\n{}", daemon.report());
        // The framings that are not spliced.
        for way in ["chunked", "close"] {
            let answer = client.get(&format!("/{way}/1048577")).expect("an answer");
            assert!(answer.body == pattern(1_048_577, 1_048_577), "{way}: other bytes");
        }
        assert_eq!(client.ask("HEAD /bytes/1048577 HTTP/1.1\r\nHost: test\r\n\r\n").expect("an answer").body, b"");
        both_ways(&mut client, 777_777);
        assert!(backend.connections() <= 2, "{} connections to the backend", backend.connections());
    }

    fn requests_behind_them_are_answered_in_order(mpm) {
        let backend = Backend::start();
        let daemon = one(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        let mut requests = Vec::new();
        for size in SIZES {
            requests.extend(format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n").bytes());
            requests.extend(pattern(size, 3));
            requests.extend(format!("GET /bytes/{size} HTTP/1.1\r\nHost: test\r\n\r\n").bytes());
        }
        // Somebody has to read while this is written: the daemon takes no more than it can pass on.
        let mut writer = client.stream().try_clone().expect("a descriptor is free");
        let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &requests));
        for size in SIZES {
            let echo = client.answer("POST").expect("an answer").echo();
            assert_eq!(echo.body(), (size, Hash::of(&pattern(size, 3))), "{size} up");
            let answer = client.answer("GET").expect("an answer");
            assert!(answer.body == pattern(size, size as u64), "{size} down: other bytes");
        }
        writing.join().expect("no panic").expect("all is taken");
    }

    fn they_may_come_in_small_pieces_for_a_while(mpm) {
        let backend = Backend::with(|exchange| {
            if exchange.request.target != "/pieces" {
                return by_path(exchange);
            }
            let body = pattern(2_000_003, 8);
            exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2000003\r\n\r\n")?;
            for part in body.chunks(500_000) {
                let (small, bulk) = part.split_at(part.len().min(100_000));
                for piece in small.chunks(1_999) {
                    exchange.raw(piece)?;
                    std::thread::sleep(Duration::from_micros(200));
                }
                exchange.raw(bulk)?;
            }
            Ok(())
        });
        let daemon = one(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        let answer = client.get("/pieces").expect("an answer");
        assert!(answer.body == pattern(2_000_003, 8), "other bytes");
        let body = pattern(1_000_003, 2);
        client.send("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 1000003\r\n\r\n");
        let (small, bulk) = body.split_at(150_000);
        for piece in small.chunks(1_999) {
            client.send(piece);
            std::thread::sleep(Duration::from_micros(200));
        }
        client.send(bulk);
        let echo = client.answer("POST").expect("an answer").echo();
        assert_eq!(echo.body(), (body.len(), Hash::of(&body)));
    }

    fn a_slow_reader_gets_all_of_it_and_keeps_nobody_waiting(mpm) {
        const SIZE: usize = 6_000_011;
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut slow: Vec<Client> = (0..3).map(|_| daemon.connect()).collect();
        for client in &mut slow {
            client.send(format!("GET /bytes/{SIZE} HTTP/1.1\r\nHost: test\r\n\r\n"));
        }
        let want = pattern(SIZE, SIZE as u64);
        for client in &mut slow {
            let body = read_slowly(client.stream(), SIZE, |place| {
                if place % 100 == 0 {
                    assert_eq!(daemon.get("/bytes/300000").body.len(), 300_000);
                }
            });
            assert!(body == want, "other bytes");
            both_ways(client, 300_001);
        }
    }

    fn urgent_data_in_a_body_neither_stops_nor_spins(mpm) {
        let backend = Backend::start();
        let daemon = one(mpm, &format!("ProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        both_ways(&mut client, 10);
        let child = daemon.child_of(&client);
        let body = pattern(1_000_000, 3);
        client.send(format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
        backend.wait_for_now(1);
        client.send(&body[..400_000]);
        let urgent = send(client.stream().as_raw_fd(), b"!", MsgFlags::MSG_OOB);
        assert_eq!(urgent, Ok(1));
        client.send(&body[400_000..400_001]);
        let spent = || processes::ticks(child);
        let before = spent();
        std::thread::sleep(Duration::from_millis(800));
        assert!(spent() - before < 40, "{} ticks of about 80", spent() - before);
        client.send(&body[400_001..]);
        let echo = client.answer("POST").expect("an answer").echo();
        assert_eq!(echo.body(), (body.len(), Hash::of(&body)));
    }

    fn a_silent_reader_is_given_up(mpm) {
        // More than all buffers on the way take, so that the last of it waits here.
        const SIZE: usize = 60 << 20;
        let backend = Backend::with(|exchange| {
            if exchange.request.target != "/much" {
                return by_path(exchange);
            }
            exchange.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())?;
            let block = vec![0; 1 << 20];
            (0..SIZE >> 20).try_for_each(|_| exchange.raw(&block))
        });
        // The backend, which has to wait for the client, is not the one to be given up.
        let text = format!("Timeout 1\nProxyTimeout 60\nSendBufferSize 65536\nProxyPass / {}/", backend.url());
        let daemon = one(mpm, &text);
        let mut client = daemon.connect();
        // Fast requests, for which a thread of one connection waits in the read, come before.
        for _ in 0..5 {
            assert_eq!(client.get("/bytes/10").expect("an answer").body.len(), 10);
        }
        client.send("GET /much HTTP/1.1\r\nHost: test\r\n\r\n");
        daemon.wait_for_log("the client does not take its response");
        let answer = client.answer("GET");
        assert!(matches!(answer, Err(Failure::Cut(_) | Failure::Reset)), "{:?}", answer.map(|it| it.body.len()));
        both_ways(&mut daemon.connect(), 500_000);
    }

    fn a_reader_that_is_slow_but_steady_gets_all_of_it(mpm) {
        // The kernel says that there is room only once a third of a send buffer is free, which takes this reader longer
        // than Timeout.
        const SIZE: usize = 6_000_011;
        let backend = Backend::start();
        let daemon = one(mpm, &format!("Timeout 2\nProxyTimeout 60\nProxyPass / {}/", backend.url()));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(64 * 1024).expect("a fresh socket takes options");
        socket.connect(&daemon.address().into()).expect("the daemon listens");
        let mut stream = TcpStream::from(socket);
        write!(stream, "GET /bytes/{SIZE} HTTP/1.1\r\nHost: test\r\n\r\n").expect("the daemon reads");
        // 32 KB and a pause, for more than three times Timeout; then as fast as it comes.
        let body = read_slowly(&mut stream, SIZE, |place| {
            if place < 35 * 3 && place % 3 == 0 {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        assert!(body == pattern(SIZE, SIZE as u64), "other bytes");
    }

    fn a_backend_that_falls_silent_is_given_up(mpm) {
        let backend = Backend::with(|exchange| {
            if exchange.request.target != "/silent" {
                return by_path(exchange);
            }
            exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n")?;
            exchange.raw(&pattern(700_000, 1))?;
            exchange.hold();
            exchange.close();
            Ok(())
        });
        let daemon = one(mpm, &format!("ProxyTimeout 3\nProxyPass / {}/", backend.url()));
        daemon.tolerate("proxy");
        let answer = daemon.connect().get("/silent");
        assert_eq!(answer.map(|answer| answer.body.len()).unwrap_err(), Failure::Cut(700_000));
        both_ways(&mut daemon.connect(), 500_000);
        backend.release();
    }

    fn a_backend_that_takes_no_more_is_given_up(mpm) {
        // More than all buffers on the way take.
        const SIZE: usize = 60 << 20;
        let backend = Backend::start();
        let daemon = one(mpm, &format!("ProxyTimeout 2\nProxyPass / {}/", backend.url()));
        daemon.tolerate("proxy");
        let mut client = daemon.connect();
        // As above; and the connection to the backend is theirs.
        for _ in 0..5 {
            assert_eq!(client.get("/bytes/10").expect("an answer").body.len(), 10);
        }
        let mut stream = client.stream().try_clone().expect("a descriptor is left");
        let sender = std::thread::spawn(move || {
            let head = format!("PUT /hold HTTP/1.1\r\nHost: test\r\nContent-Length: {SIZE}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            let block = vec![0; 1 << 20];
            (0..SIZE >> 20).try_for_each(|_| stream.write_all(&block))
        });
        assert_eq!(client.answer("PUT").map(|answer| answer.status), Ok(504));
        drop(client);
        // Whether all of it was taken in the end is not for it to say.
        let _ = sender.join().expect("no panic");
        both_ways(&mut daemon.connect(), 500_000);
        backend.release();
    }

    fn what_breaks_off_is_cut(mpm) {
        let (tell, told) = mpsc::channel();
        let backend = Backend::with(move |exchange| {
            let way = exchange.segments().first().cloned().unwrap_or_default();
            match way.as_str() {
                "closes" | "resets" => {
                    exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
                    exchange.raw(&pattern(600_000, 6))?;
                    if way == "closes" { exchange.close() } else { exchange.reset() }
                    Ok(())
                }
                "taken" => {
                    let mut length = 0;
                    let whole = exchange.read_body(|bytes| length += bytes.len()).is_ok();
                    let _ = tell.send((length, whole));
                    Ok(())
                }
                "endless" => {
                    exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
                    let block = pattern(1 << 20, 7);
                    while exchange.raw(&block).is_ok() {}
                    let _ = tell.send((0, false));
                    exchange.close();
                    Ok(())
                }
                _ => by_path(exchange),
            }
        });
        let daemon = one(mpm, &format!("ProxyPass / {}/", backend.url()));
        daemon.tolerate("proxy");
        let answer = daemon.connect().get("/closes");
        assert_eq!(answer.map(|answer| answer.body.len()).unwrap_err(), Failure::Cut(600_000));
        let answer = daemon.connect().get("/resets");
        assert!(matches!(answer, Err(Failure::Cut(_) | Failure::Reset)), "{:?}", answer.map(|it| it.body.len()));
        // The client leaves: in its own body, and in the backend's.
        let mut client = daemon.connect();
        client.send("POST /taken HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
        client.send(pattern(600_000, 6));
        drop(client);
        let (length, whole) = told.recv().expect("the backend tells");
        assert!(length <= 600_000 && !whole, "{length} bytes, whole: {whole}");
        let mut client = daemon.connect();
        client.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
        client.stream().read_exact(&mut vec![0; 5_000_000]).expect("as much as one wants");
        drop(client);
        told.recv().expect("the backend is told that nobody reads");
        // Nobody gets what was left of these.
        for size in SIZES {
            both_ways(&mut daemon.connect(), size);
        }
    }

    fn a_backend_that_says_more_than_its_body_is_not_used_again(mpm) {
        let backend = Backend::with(|exchange| {
            let segments = exchange.segments();
            if segments.first().is_none_or(|first| first != "more") {
                return by_path(exchange);
            }
            let size: usize = segments[1].parse().expect("a number");
            let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
            bytes.extend(pattern(size, 9));
            bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
            exchange.raw(&bytes)
        });
        let daemon = one(mpm, &format!("SendBufferSize 16384\nProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        for size in (200_000..600_000).step_by(25_000) {
            client.send(format!("GET /more/{size} HTTP/1.1\r\nHost: test\r\n\r\n"));
            // So that of some size all that is behind what the client has not taken lies at the daemon when it goes on:
            // no more news of the backend come then.
            let body = read_slowly(client.stream(), size, |place| {
                if place < 3 {
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            assert!(body == pattern(size, 9), "other bytes");
            let echo = client.get(&format!("/next/{size}")).expect("an answer").echo();
            assert_eq!(echo.target(), format!("/next/{size}"));
        }
    }

    fn without_a_descriptor_for_a_pipe_they_are_copied(mpm) {
        let backend = Backend::start();
        let daemon = one(mpm, &format!("LogLevel debug\nProxyPass / {}/", backend.url()));
        let mut client = daemon.connect();
        both_ways(&mut client, 10);
        let child = daemon.child_of(&client);
        let before = pipes(child);
        // Not one descriptor more than it has: both connections are there.
        let highest = fs::read_dir(format!("/proc/{child}/fd")).expect("it lives");
        let names = highest.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        let mut taken: Vec<u64> = names.collect();
        taken.sort_unstable();
        let free = (0..).find(|number| !taken.contains(number)).expect("descriptors are few");
        processes::limit(child, "nofile", free);
        for size in SIZES {
            both_ways(&mut client, size);
        }
        assert_eq!(pipes(child), before);
        daemon.wait_for_log("a body is copied, not spliced: Too many open files");
    }
}

/// Each child of prefork has pipes of its own, and there may be many children.
#[test]
fn a_process_that_rests_keeps_no_pipe() {
    let backend = Backend::start();
    let daemon = one(Mpm::Prefork, &format!("ProxyPass / {}/", backend.url()));
    let mut client = daemon.connect();
    both_ways(&mut client, 10);
    let child = daemon.child_of(&client);
    let before = pipes(child);
    both_ways(&mut client, 500_000);
    assert!(pipes(child) > before, "nothing was spliced");
    drop(client);
    wait_until("no pipe to be left", || (pipes(child) == before).then_some(()));
    both_ways(&mut daemon.connect(), 500_000);
}

/// A backend on a socket in the file system.
#[test]
fn they_pass_from_and_to_a_unix_socket() {
    let home = Home::new();
    let backend = Backend::unix(&home.path("origin"));
    let daemon = one(Mpm::Event, &format!("ProxyPass / {}/", backend.url()));
    let mut client = daemon.connect();
    for size in SIZES {
        both_ways(&mut client, size);
    }
}

/// The kernel says no: at once, or when bytes are in the pipe already.
#[test]
fn where_the_kernel_does_not_splice_they_are_copied() {
    if let Some(why) = no_strace() {
        return skip(&why);
    }
    for mpm in [Mpm::Event, Mpm::Worker] {
        for fault in ["error=ENOSYS", "error=EINVAL", "error=EINVAL:when=2", "error=EINVAL:when=3+5"] {
            let backend = Backend::start();
            let daemon = one(mpm, &format!("LogLevel debug\nProxyPass / {}/", backend.url()));
            let mut client = daemon.connect();
            both_ways(&mut client, 10);
            let inject = format!("inject=splice:{fault}");
            let options = ["-e", "trace=splice", "-e", &inject];
            let home = daemon.home().path("");
            let seen = calls(daemon.child_of(&client), &home, &options, || {
                for size in SIZES {
                    both_ways(&mut client, size);
                }
            });
            match seen {
                Err(why) => skip(&why),
                Ok(seen) => {
                    assert!(
                        seen.iter().any(|call| call.contains("INJECTED")),
                        "{fault}: {}",
                        seen.join("\n")
                    );
                    daemon.wait_for_log("a body is copied, not spliced: ");
                }
            }
        }
    }
}

/// Waits until `count` stays what it is, although it would go on if it could.
fn wait_for_standstill(count: &AtomicUsize) {
    let mut last = (0, 0);
    wait_until("bytes to come to a standstill", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = count.load(Relaxed);
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        (now > 0 && last.1 >= 15).then_some(())
    });
}

const HELD: usize = 30_000_001;

/// Has the kernel refuse to splice while `work` goes on. Whether it so refused to take bytes out of a pipe.
fn refused_with_bytes(child: i32, daemon: &Daemon, work: impl FnOnce()) -> Result<bool, String> {
    let options = ["-y", "-e", "trace=splice", "-e", "inject=splice:error=EINVAL"];
    let seen = calls(child, &daemon.home().path(""), &options, work)?;
    let from_pipe = |call: &String| call.split(',').next().is_some_and(|from| from.contains("<pipe:"));
    Ok(seen.iter().any(|call| call.contains("INJECTED") && from_pipe(call)))
}

/// A response whose reader stops for a while, and meanwhile the kernel begins to refuse.
fn refused_on_the_way_down(mpm: Mpm) -> Result<bool, String> {
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let backend = Backend::with(move |exchange| {
        if exchange.request.target != "/down" {
            return by_path(exchange);
        }
        exchange.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {HELD}\r\n\r\n").as_bytes())?;
        pattern(HELD, 1).chunks(1 << 18).try_for_each(|piece| {
            exchange.raw(piece)?;
            counter.fetch_add(piece.len(), Relaxed);
            Ok(())
        })
    });
    let daemon = one(mpm, &format!("LogLevel debug\nSendBufferSize 65536\nProxyPass / {}/", backend.url()));
    let mut client = daemon.connect();
    client.send("GET /down HTTP/1.1\r\nHost: test\r\n\r\n");
    // Well behind the beginning, which is not spliced.
    let mut body = read_slowly(client.stream(), HELD / 10, |_| ());
    wait_for_standstill(&written);
    let refused = refused_with_bytes(daemon.child_of(&client), &daemon, || {
        let mut rest = vec![0; HELD - body.len()];
        client.stream().read_exact(&mut rest).expect("all of it comes");
        body.append(&mut rest);
    })?;
    assert!(body == pattern(HELD, 1), "{mpm:?}: other bytes");
    both_ways(&mut client, 300_000);
    Ok(refused)
}

/// The same of a request that its backend does not read for a while.
fn refused_on_the_way_up(mpm: Mpm) -> Result<bool, String> {
    let backend = Backend::start();
    let daemon = one(mpm, &format!("LogLevel debug\nProxyPass / {}/", backend.url()));
    let mut client = daemon.connect();
    let mut stream = client.stream().try_clone().expect("a descriptor is left");
    let body = pattern(HELD, 2);
    let hash = Hash::of(&body);
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let sender = std::thread::spawn(move || {
        let head = format!("POST /hold HTTP/1.1\r\nHost: test\r\nContent-Length: {HELD}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        body.chunks(1 << 18).try_for_each(|piece| {
            stream.write_all(piece)?;
            counter.fetch_add(piece.len(), Relaxed);
            Ok::<(), std::io::Error>(())
        })
    });
    wait_for_standstill(&sent);
    let refused = refused_with_bytes(daemon.child_of(&client), &daemon, || {
        backend.release();
        assert_eq!(client.answer("POST").expect("an answer").echo().body(), (HELD, hash), "{mpm:?}");
    })?;
    sender.join().expect("no panic").expect("all of it is taken");
    both_ways(&mut client, 300_000);
    Ok(refused)
}

/// What waits in a pipe when the kernel says no is copied out of it, and on, though nothing happens that tells of it.
#[test]
fn what_waits_in_a_pipe_when_the_kernel_refuses_to_splice_is_copied() {
    if let Some(why) = no_strace() {
        return skip(&why);
    }
    for mpm in [Mpm::Event, Mpm::Worker] {
        for (way, attempt) in [
            ("down", refused_on_the_way_down as fn(Mpm) -> Result<bool, String>),
            ("up", refused_on_the_way_up),
        ] {
            // What comes in small pieces, as from a machine with much else to do, is not spliced for a while.
            let mut attempts = (0..8).map(|_| attempt(mpm)).skip_while(|refused| *refused == Ok(false));
            match attempts.next() {
                Some(Err(why)) => skip(&why),
                refused => assert!(refused.is_some(), "{mpm:?}, {way}: no pipe was ever left with bytes"),
            }
        }
    }
}

/// Many slow readers at once: when all pipes hold bytes that nobody takes, bodies are copied.
#[test]
fn more_slow_readers_than_pipes_are_all_served() {
    const SIZE: usize = 3_000_017;
    let backend = Backend::start();
    let text = "ThreadsPerChild 100\nThreadLimit 100\nServerLimit 1\nStartServers 1\nMaxRequestWorkers 100\n\
                MinSpareThreads 1\nSendBufferSize 16384";
    let daemon = Daemon::start(&format!("{text}\nProxyPass / {}/", backend.url()));
    let clients: Vec<Client> = (0..90)
        .map(|_| {
            let mut client = daemon.connect();
            client.send(format!("GET /bytes/{SIZE} HTTP/1.1\r\nHost: test\r\n\r\n"));
            client
        })
        .collect();
    let child = daemon.child_of(&clients[0]);
    // 64 at the most, whatever the limit on descriptors; two descriptors each.
    wait_until("pipes to be taken", || (pipes(child) >= 2).then_some(()));
    let want = Hash::of(&pattern(SIZE, SIZE as u64));
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                Hash::of(&read_slowly(client.stream(), SIZE, |_| ()))
            })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().expect("no panic"), want);
    }
    assert!(pipes(child) <= 2 * 64 + 16, "{} pipes", pipes(child));
}
