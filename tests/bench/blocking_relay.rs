//! The floor of the rows of worker and prefork: bytes from here to there and back by whoever has one client at a time, and
//! nothing parsed, counted or logged.
//!
//! `bench-blocking-relay ORIGIN PROCESSES THREADS` listens on a free port of loopback, prints its address, and ends when
//! its standard input does. Each thread of each process takes a client, has a connection of its own to the origin for it,
//! and waits in its reads: four calls and two switches a request, which is what the process model costs by itself. The rest
//! of a proxy of that model is the distance from here.
//!
//! A message is one read, so this is for small ones; and the last request of a connection is told by how its head ends,
//! since who waits for one side does not see the other's end.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

/// As much as the daemon reads at once.
const BUFFER: usize = 64 * 1024;

/// How the bench's last request of a connection ends.
const LAST: &[u8] = b"Connection: close\r\n\r\n";

/// The first word of a process that serves, whose standard input is the listener.
const SERVE: &str = "serve";

/// Serves one client to its end.
fn relay(mut client: TcpStream, origin: &str, buffer: &mut [u8]) -> io::Result<()> {
    let mut upstream = TcpStream::connect(origin)?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    loop {
        let count = client.read(buffer)?;
        let is_last = buffer[..count].ends_with(LAST);
        upstream.write_all(&buffer[..count])?;
        if count == 0 {
            return Ok(());
        }
        let count = upstream.read(buffer)?;
        client.write_all(&buffer[..count])?;
        if count == 0 || is_last {
            return Ok(());
        }
    }
}

fn serve(origin: &str, threads: usize) -> io::Result<()> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let work = || {
        let mut buffer = vec![0; BUFFER];
        while let Ok((client, _)) = listener.accept() {
            // A connection that breaks ends alone.
            let _ = relay(client, origin, &mut buffer);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    Ok(())
}

/// Starts the processes and waits for the end of standard input.
fn lead(origin: &str, processes: usize, threads: &str, children: &mut Vec<Child>) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let listener = OwnedFd::from(listener);
    for _ in 0..processes {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([SERVE, origin, threads]).stdin(Stdio::from(listener.try_clone()?));
        children.push(command.stdout(Stdio::null()).spawn()?);
    }
    drop(listener);
    println!("{address}");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let usage = || io::Error::other("usage: bench-blocking-relay ADDRESS PROCESSES THREADS");
    let count = |word: &str| word.parse::<usize>().map_err(|_| usage());
    match words[..] {
        [SERVE, origin, threads] => serve(origin, count(threads)?),
        [origin, processes, threads] => {
            count(threads)?;
            let mut children = Vec::new();
            let outcome = lead(origin, count(processes)?, threads, &mut children);
            for mut child in children {
                // Who is gone already need not be ended.
                let _ = child.kill();
                let _ = child.wait();
            }
            outcome
        }
        _ => Err(usage()),
    }
}
