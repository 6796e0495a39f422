//! The floor of `scripts/bench`: bytes from here to there and back, and nothing parsed, counted or logged.
//!
//! `bench-relay ORIGIN` listens on a free port of loopback, prints its address, and ends when its standard input
//! does. Each client gets a connection of its own to the origin, for as long as it stays. One thread on one
//! edge-triggered poll, as a child of ours under event with one client at a time. Where bodies are small and connections
//! kept alive, a proxy that reads what it passes on can hardly do with less, so the distance from here is the price of
//! being one. Large bodies can be moved cheaper, by larger buffers or by the kernel; and a connection to the origin for
//! each of a client's is more than a proxy with a pool needs.

mod serve;

use mio::net::TcpStream;
use mio::{Events, Interest, Token};
use serve::{LISTENER, STDIN};
use std::io::{self, ErrorKind, Read, Write};

/// As much as the daemon reads at once.
const BUFFER: usize = 64 * 1024;

/// A client and its connection to the origin.
struct Pair {
    sides: [TcpStream; 2],
    /// What side 0 and side 1 have sent and the other could not take yet.
    waiting: [Vec<u8>; 2],
}

impl Pair {
    /// Moves bytes from one side to the other as far as both go; false at the end of either. `closed` if the end may
    /// be there already, its edge with it: then a short read proves nothing.
    fn pump(&mut self, from: usize, buffer: &mut [u8], closed: bool) -> bool {
        let to = 1 - from;
        loop {
            if !self.waiting[from].is_empty() {
                match self.sides[to].write(&self.waiting[from]) {
                    Ok(count) => {
                        self.waiting[from].drain(..count);
                        continue;
                    }
                    Err(error) => return stays(&error),
                }
            }
            let count = match self.sides[from].read(buffer) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) => return stays(&error),
            };
            match self.sides[to].write(&buffer[..count]) {
                Ok(sent) => self.waiting[from].extend_from_slice(&buffer[sent..count]),
                Err(error) if stays(&error) => self.waiting[from].extend_from_slice(&buffer[..count]),
                Err(_) => return false,
            }
            // Less than there was room for: the next byte makes an edge of its own.
            if count < buffer.len() && !closed && self.waiting[from].is_empty() {
                return true;
            }
        }
    }
}

/// Whether the connection goes on after this.
fn stays(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

fn main() -> io::Result<()> {
    let origin = std::env::args()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| io::Error::other("usage: bench-relay ADDRESS"))?;
    let (mut poll, listener) = serve::begin()?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut vacant: Vec<usize> = Vec::new();
    let mut emptied: Vec<usize> = Vec::new();
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        // A place is used again only once no event of this turn can still mean who was there before.
        vacant.append(&mut emptied);
        for event in &events {
            match event.token() {
                STDIN => return Ok(()),
                LISTENER => {
                    while let Ok((client, _)) = listener.accept() {
                        let mut sides = [client, TcpStream::connect(origin)?];
                        let place = vacant.pop().unwrap_or_else(|| {
                            pairs.push(None);
                            pairs.len() - 1
                        });
                        for (side, stream) in sides.iter_mut().enumerate() {
                            let _ = stream.set_nodelay(true);
                            let both = Interest::READABLE | Interest::WRITABLE;
                            poll.registry().register(stream, Token(2 * place + side), both)?;
                        }
                        pairs[place] = Some(Pair { sides, waiting: [Vec::new(), Vec::new()] });
                    }
                }
                Token(token) => {
                    let (place, side) = (token / 2, token % 2);
                    let Some(pair) = pairs[place].as_mut() else { continue };
                    let closed = event.is_read_closed();
                    let goes_on = (!event.is_readable() || pair.pump(side, &mut buffer, closed))
                        && (!event.is_writable()
                            || pair.waiting[1 - side].is_empty()
                            || pair.pump(1 - side, &mut buffer, true));
                    if !goes_on {
                        pairs[place] = None;
                        emptied.push(place);
                    }
                }
            }
        }
    }
}
