//! The proof that the clients count: servers that misbehave on purpose, and what must be seen of each.
//!
//! A count of lost requests that is always 0 would look just like a daemon that loses none, so the program begins
//! with this. It takes a blink.

use crate::crowd::{Loss, one_client, usual_body};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a server does with one connection.
type Server = fn(&mut TcpStream);

/// Between two requests of the client: time enough for the server's next move to be seen.
const PAUSE: Duration = Duration::from_millis(5);

/// Name, behaviour, requests asked, then what must be seen: served, ends at rest, farewells, and the loss.
type Case = (&'static str, Server, u32, (u64, u64, u64), Option<Loss>);

const CASES: &[Case] = &[
    ("a good server", |line| while answer(line, right) {}, 3, (3, 0, 0), None),
    ("one that says farewell", |line| _ = answer(line, last), 2, (2, 0, 2), None),
    ("one that closes at rest", |line| _ = answer(line, right), 2, (2, 1, 0), None),
    ("one that closes a new connection", |line| drop(request(line)), 1, (0, 0, 0), Some(Loss::Closed)),
    (
        "one that resets a new connection",
        |line| {
            request(line);
            let _ = SockRef::from(&*line).set_linger(Some(Duration::ZERO));
        },
        1,
        (0, 0, 0),
        Some(Loss::Reset),
    ),
    (
        "one that closes under the second request",
        |line| {
            answer(line, right);
            request(line);
        },
        2,
        (1, 0, 0),
        Some(Loss::Dropped),
    ),
    (
        "one that cuts its answer",
        |line| {
            answer(line, |token| {
                let mut bytes = right(token);
                bytes.truncate(bytes.len() - 1);
                bytes
            });
        },
        1,
        (0, 0, 0),
        Some(Loss::Truncated),
    ),
    ("one that answers another", |line| _ = answer(line, |_| right("0-0")), 1, (0, 0, 0), Some(Loss::Mixed)),
    (
        "one that is busy",
        |line| _ = answer(line, |_| b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()),
        1,
        (0, 0, 0),
        Some(Loss::ServerError),
    ),
    (
        "one that says more than was asked",
        |line| {
            answer(line, right);
            let _ = line.write_all(b"HTTP/1.1 408 Late\r\n\r\n");
            request(line);
        },
        2,
        (2, 0, 0),
        Some(Loss::Malformed),
    ),
];

/// Plays all of them; what was miscounted.
pub fn miscounts() -> Vec<String> {
    CASES.iter().filter_map(miscount).collect()
}

fn miscount((name, server, requests, (served, ends, farewells), loss): &Case) -> Option<String> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let address = listener.local_addr().expect("it is bound");
    let is_over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok((mut line, _)) = listener.accept() {
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                server(&mut line);
            }
        });
        let seen = one_client(address, *requests, PAUSE);
        is_over.store(true, Ordering::SeqCst);
        // The server looks up once more and finds that it is over.
        drop(TcpStream::connect(address));
        seen
    });
    let lost: Vec<Loss> = seen.losses.keys().copied().collect();
    let is_right = (seen.served, seen.idle_ends.len() as u64, seen.farewells) == (*served, *ends, *farewells)
        && (lost.as_slice(), seen.lost()) == (loss.as_slice(), u64::from(loss.is_some()));
    (!is_right).then(|| {
        let (ends, farewells) = (seen.idle_ends.len(), seen.farewells);
        format!(
            "{name}: {} served, {ends} ends at rest, {farewells} farewells, lost {:?}",
            seen.served, seen.losses
        )
    })
}

/// Waits for a request and gives its token; `None` if the client has gone.
fn request(line: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        line.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    Some(head.split("X-Token: ").nth(1)?.split("\r\n").next()?.to_owned())
}

/// Answers one request; false if there is none any more.
fn answer(line: &mut TcpStream, bytes: impl Fn(&str) -> Vec<u8>) -> bool {
    request(line).is_some_and(|token| line.write_all(&bytes(&token)).is_ok())
}

/// What the origin would say.
fn right(token: &str) -> Vec<u8> {
    let body = usual_body(token);
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
}

/// The same, and the connection's end.
fn last(token: &str) -> Vec<u8> {
    let body = usual_body(token);
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), &body].concat()
}
