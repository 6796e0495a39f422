//! The load for a private server: an origin that holds requests until it is told to let them go, and the clients
//! whose requests it holds.
//!
//! A thread to a connection of the origin, which is a few hundred at most; the clients are sockets that one thread looks
//! after.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Stack of a connection's thread, in bytes: nothing here recurses.
const STACK: usize = 64 * 1024;

/// A request whose path has this is held.
const HOLD: &[u8] = b"GET /hold";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// How long a client waits for an answer before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// The origin. Dropped, it closes all connections.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Requests held now.
    held: u64,
    /// Counts up with each release.
    released: u64,
    over: bool,
    connections: Vec<TcpStream>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origin {
    /// Listens at a free port on 127.0.0.1.
    ///
    /// # Errors
    /// If loopback cannot be bound, or no thread can be made.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let accept = move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = Arc::clone(&accepting);
                {
                    let mut state = shared.state();
                    if state.over {
                        return;
                    }
                    state.connections.extend(stream.try_clone());
                }
                // Errors here are the server's doing, which has stopped: there is nobody to tell.
                let serve = move || drop(serve(stream, &shared));
                let _ = thread::Builder::new().stack_size(STACK).spawn(serve);
            }
        };
        thread::Builder::new().stack_size(STACK).spawn(accept)?;
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it holds.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.shared.state().held
    }

    /// Answers all requests that it holds.
    pub fn release(&self) {
        self.shared.state().released += 1;
        self.shared.changed.notify_all();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.over = true;
        for connection in state.connections.drain(..) {
            // An error means that it is closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // The accepting thread looks up once more, and finds that it is over.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            count => head.extend_from_slice(&piece[..count]),
        }
        // Our own clients ask for nothing that has a body, one at a time.
        if head.ends_with(b"\r\n\r\n") {
            if head.starts_with(HOLD) {
                let mut state = shared.state();
                state.held += 1;
                let before = state.released;
                while state.released == before && !state.over {
                    state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.held -= 1;
            }
            stream.write_all(ANSWER)?;
            head.clear();
        }
    }
}

/// A client with one connection.
#[derive(Debug)]
pub struct Client(TcpStream);

impl Client {
    /// Connects to the server.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Asks, and does not wait for the answer, which is held back.
    ///
    /// # Errors
    /// As a write to the connection.
    pub fn ask_held(&mut self) -> io::Result<()> {
        self.0.write_all(b"GET /hold HTTP/1.1\r\nHost: size.test\r\n\r\n")
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// As [`Client::answer`].
    pub fn ask(&mut self) -> io::Result<()> {
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: size.test\r\n\r\n")?;
        self.answer()
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// If the connection ends first, the answer is not the origin's, or none comes.
    pub fn answer(&mut self) -> io::Result<()> {
        let mut answer = Vec::new();
        let mut piece = [0; 1024];
        loop {
            match self.0.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => answer.extend_from_slice(&piece[..count]),
            }
            if !b"HTTP/1.1 200 ".starts_with(&answer[..answer.len().min(13)]) {
                let text = String::from_utf8_lossy(&answer).into_owned();
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            if answer.ends_with(b"\r\n\r\nok") {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_held_until_released_and_others_are_answered() {
        let origin = Origin::start().unwrap();
        let mut held: Vec<Client> = (0..3).map(|_| Client::connect(origin.address()).unwrap()).collect();
        for client in &mut held {
            client.ask_held().unwrap();
        }
        let mut other = Client::connect(origin.address()).unwrap();
        while origin.held() < 3 {
            other.ask().unwrap();
        }
        origin.release();
        for client in &mut held {
            client.answer().unwrap();
        }
        assert_eq!(origin.held(), 0);
        drop(origin);
        assert!(other.ask().is_err(), "an origin that is gone answers nobody");
    }
}
