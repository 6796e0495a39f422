//! PLACEHOLDER until the room is built: answers each connection with one line and closes it.

use crate::config::model::Config;
use crate::ids::{Generation, ListenerId, SlotIndex};
use crate::mpm::orders::{Heard, Order, Orders, Word};
use crate::scoreboard::row::ChildBlock;
use crate::sys::poll::{self, Seen, Wish};
use crate::sys::privilege::Identity;
use crate::sys::process::ChildExit;
use crate::sys::{privilege, signal, socket};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

/// What a child has from its master.
pub struct Inheritance {
    /// What it obeys.
    pub config: Arc<Config>,
    /// Its slot.
    pub slot: SlotIndex,
    /// Its generation.
    pub generation: Generation,
    /// The listening sockets.
    pub listeners: Vec<(ListenerId, OwnedFd)>,
    /// Its end of the orders socket.
    pub orders: OwnedFd,
    /// Its block of the scoreboard.
    pub block: ChildBlock,
    /// The error log.
    pub logger: slog::Logger,
    /// Log targets by number.
    pub log_fds: Vec<RawFd>,
    /// Who to become.
    pub identity: Option<Identity>,
    /// Random bits, for the jitter of recycling.
    pub heir_jitter: u64,
}

/// Serves.
pub fn run(inheritance: Inheritance) -> ChildExit {
    let Inheritance { orders, listeners, identity, block, .. } = inheritance;
    if let Some(identity) = identity
        && privilege::become_identity(&identity).is_err()
    {
        return ChildExit::FATAL;
    }
    let orders = Orders::new(orders);
    let Ok(term) = signal::terminate_descriptor() else { return ChildExit::SICK };
    block.ready();
    let _ = orders.send_word(Word::Ready);
    loop {
        let mut wishes = vec![Wish { fd: orders.as_fd(), read: true, write: false }];
        wishes.push(Wish { fd: term.as_fd(), read: true, write: false });
        wishes.extend(listeners.iter().map(|(_, fd)| Wish { fd: fd.as_fd(), read: true, write: false }));
        let mut seen = vec![Seen::default(); wishes.len()];
        let _ = poll::wait(&wishes, None, &mut seen);
        for (_, fd) in &listeners {
            while let Ok((client, _)) = socket::accept(fd.as_fd()) {
                let text = format!("HTTP/1.0 200 OK\r\n\r\n{}\n", std::process::id());
                let _ = socket::send(client.as_fd(), text.as_bytes());
            }
        }
        if seen[1].readable {
            let _ = orders.send_word(Word::Draining);
            return ChildExit::OK;
        }
        loop {
            match orders.recv_order() {
                Heard::Message(Order::Ping(ping)) => {
                    let _ = orders.send_word(Word::Pong { ping, progress_ms: 0 });
                }
                Heard::Message(Order::Accept) | Heard::Nonsense => {}
                Heard::Message(Order::Drain { .. } | Order::Stop) | Heard::Gone => return ChildExit::OK,
                Heard::Nothing => break,
            }
        }
    }
}
