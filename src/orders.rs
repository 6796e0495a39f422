//! The language between the master and a child: orders down, words up, one fixed message per packet.
//!
//! They travel over a SOCK_SEQPACKET pair made before the fork, so a message arrives whole or not at all, and
//! end-of-file means that the other side is gone. Numbers are little-endian: byte 0 is the kind, bytes 4..8
//! and 8..12 the arguments, all others are zero.

use crate::sys::socket;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Length of every message in bytes.
pub const LENGTH: usize = 16;

/// What the master tells a child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// Accept no more, finish what is under way, close idle connections after a grace, leave.
    Drain {
        /// How long idle kept-alive connections stay open, in milliseconds.
        grace_ms: u32,
        /// Who takes over.
        heir: Heir,
    },
    /// Cut everything and leave now.
    Stop,
    /// Accept until there is nothing more: a sibling that had been woken for a connection may have died.
    Accept,
    /// Answer with [`Word::Pong`] and this number.
    Ping(u32),
    /// The listener at this place is given up, and nobody else accepts there any more: a child that is told to
    /// drain after this takes what waits there first.
    LastAt(u32),
}

/// Who takes over from a child that leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heir {
    /// Nobody: what waits at the listeners, or has been handed over and not been taken, is this child's to serve.
    Nobody,
    /// Others accept at the listeners, but take no connection that this child has.
    Accepts,
    /// Others accept, and take over connections between two requests.
    TakesOver,
}

impl Heir {
    fn number(self) -> u32 {
        match self {
            Self::Nobody => 0,
            Self::Accepts => 1,
            Self::TakesOver => 2,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [Self::Nobody, Self::Accepts, Self::TakesOver].into_iter().find(|heir| heir.number() == number)
    }
}

/// What a child tells the master.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Word {
    /// Its loop runs: it serves.
    Ready,
    /// It has used up nine tenths of its requests or connections: time to fork an heir.
    NearEnd,
    /// Its last worker row was just taken.
    Full,
    /// So many worker rows are taken; said when it changes, at most every 100 ms.
    Census(u32),
    /// The answer to a ping.
    Pong {
        /// The ping's number.
        ping: u32,
        /// How long ago a serving thread last made progress, in milliseconds; 0 if nothing is to be done.
        progress_ms: u32,
    },
    /// It leaves of its own accord (its requests are used up, or it got TERM), and accepts no more.
    Draining,
    /// It was woken for a client and could not accept, for want of descriptors or memory, or was told to accept what waits
    /// and can serve but one (prefork): nobody else was woken.
    Short,
}

impl Order {
    /// The message.
    #[must_use]
    pub fn encode(self) -> [u8; LENGTH] {
        match self {
            Self::Drain { grace_ms, heir } => message(1, grace_ms, heir.number()),
            Self::Stop => message(2, 0, 0),
            Self::Accept => message(3, 0, 0),
            Self::Ping(number) => message(4, number, 0),
            Self::LastAt(place) => message(6, place, 0),
        }
    }

    /// What a message says; `None` if it makes no sense.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match fields(bytes)? {
            (1, grace_ms, heir) => Self::Drain { grace_ms, heir: Heir::from_number(heir)? },
            (2, 0, 0) => Self::Stop,
            (3, 0, 0) => Self::Accept,
            (4, number, 0) => Self::Ping(number),
            (6, place, 0) => Self::LastAt(place),
            _ => return None,
        })
    }
}

impl Order {
    /// Whether one that cannot be sent now must be sent later: the others may be lost without harm.
    #[must_use]
    pub fn must_arrive(self) -> bool {
        match self {
            Self::Drain { .. } | Self::Stop | Self::LastAt(_) => true,
            Self::Accept | Self::Ping(_) => false,
        }
    }
}

impl Word {
    /// The message.
    #[must_use]
    pub fn encode(self) -> [u8; LENGTH] {
        match self {
            Self::Ready => message(65, 0, 0),
            Self::NearEnd => message(66, 0, 0),
            Self::Full => message(67, 0, 0),
            Self::Census(busy) => message(68, busy, 0),
            Self::Pong { ping, progress_ms } => message(69, ping, progress_ms),
            Self::Draining => message(70, 0, 0),
            Self::Short => message(71, 0, 0),
        }
    }

    /// What a message says; `None` if it makes no sense.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match fields(bytes)? {
            (65, 0, 0) => Self::Ready,
            (66, 0, 0) => Self::NearEnd,
            (67, 0, 0) => Self::Full,
            (68, busy, 0) => Self::Census(busy),
            (69, ping, progress_ms) => Self::Pong { ping, progress_ms },
            (70, 0, 0) => Self::Draining,
            (71, 0, 0) => Self::Short,
            _ => return None,
        })
    }
}

fn message(kind: u8, first: u32, second: u32) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0] = kind;
    bytes[4..8].copy_from_slice(&first.to_le_bytes());
    bytes[8..12].copy_from_slice(&second.to_le_bytes());
    bytes
}

fn fields(bytes: &[u8]) -> Option<(u8, u32, u32)> {
    let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
    let [kind, 0, 0, 0, a, b, c, d, e, f, g, h, 0, 0, 0, 0] = *bytes else { return None };
    Some((kind, u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
}

/// What came over the socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard<T> {
    /// A message.
    Message(T),
    /// A packet that makes no sense; the next may.
    Nonsense,
    /// Nothing for now.
    Nothing,
    /// The other side is gone.
    Gone,
}

/// One end of the pair: the master's, or the child's.
#[derive(Debug)]
pub struct Orders(OwnedFd);

impl Orders {
    /// Takes one end of a [`socket::pair`].
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends to the child.
    ///
    /// # Errors
    /// `WouldBlock` if the child has not read for long, `BrokenPipe` if it is gone.
    pub fn send_order(&self, order: Order) -> io::Result<()> {
        socket::send(self.as_fd(), &order.encode()).map(|_| ())
    }

    /// Sends to the master.
    ///
    /// # Errors
    /// `WouldBlock` if the master has not read for long, `BrokenPipe` if it is gone.
    pub fn send_word(&self, word: Word) -> io::Result<()> {
        socket::send(self.as_fd(), &word.encode()).map(|_| ())
    }

    /// The next order, in the child.
    #[must_use]
    pub fn recv_order(&self) -> Heard<Order> {
        self.hear(Order::decode)
    }

    /// The next word, in the master.
    #[must_use]
    pub fn recv_word(&self) -> Heard<Word> {
        self.hear(Word::decode)
    }

    fn hear<T>(&self, decode: impl Fn(&[u8]) -> Option<T>) -> Heard<T> {
        // One byte more than a message: a packet that is too long is cut to that, and is nonsense.
        let mut bytes = [0; LENGTH + 1];
        match socket::recv(self.as_fd(), &mut bytes) {
            Ok(0) => Heard::Gone,
            Ok(count) => decode(&bytes[..count]).map_or(Heard::Nonsense, Heard::Message),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
            Err(_) => Heard::Gone,
        }
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Orders {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: [Order; 7] = [
        Order::Drain { grace_ms: 5_000, heir: Heir::TakesOver },
        Order::Drain { grace_ms: u32::MAX, heir: Heir::Nobody },
        Order::Stop,
        Order::Accept,
        Order::Ping(0),
        Order::Ping(u32::MAX),
        Order::LastAt(3),
    ];
    const WORDS: [Word; 8] = [
        Word::Ready,
        Word::NearEnd,
        Word::Full,
        Word::Census(25),
        Word::Pong { ping: 7, progress_ms: 1_200 },
        Word::Pong { ping: u32::MAX, progress_ms: u32::MAX },
        Word::Draining,
        Word::Short,
    ];

    #[test]
    fn what_is_encoded_is_decoded_and_neither_side_hears_itself() {
        for order in ORDERS {
            assert_eq!(Order::decode(&order.encode()), Some(order));
            assert_eq!(Word::decode(&order.encode()), None, "{order:?}");
        }
        for word in WORDS {
            assert_eq!(Word::decode(&word.encode()), Some(word));
            assert_eq!(Order::decode(&word.encode()), None, "{word:?}");
        }
    }

    #[test]
    fn nonsense_is_no_message() {
        let mut stop = Order::Stop.encode();
        assert_eq!(Order::decode(&stop[..LENGTH - 1]), None, "too short");
        assert_eq!(Order::decode(&[2; LENGTH + 1]), None, "too long");
        assert_eq!(Order::decode(&[]), None);
        assert_eq!(Order::decode(&[0; LENGTH]), None, "no kind");
        for index in 1..LENGTH {
            stop = Order::Stop.encode();
            stop[index] = 1;
            assert_eq!(Order::decode(&stop), None, "byte {index} is not free");
        }
    }

    #[test]
    fn messages_travel_both_ways_until_one_side_goes() {
        let (master, child) = socket::pair().unwrap();
        let (master, child) = (Orders::new(master), Orders::new(child));
        assert_eq!(child.recv_order(), Heard::Nothing);
        for order in ORDERS {
            master.send_order(order).unwrap();
        }
        socket::send(master.as_fd(), b"what?").unwrap();
        socket::send(master.as_fd(), &[1; 40]).unwrap();
        for order in ORDERS {
            assert_eq!(child.recv_order(), Heard::Message(order));
        }
        assert_eq!(child.recv_order(), Heard::Nonsense);
        assert_eq!(child.recv_order(), Heard::Nonsense);
        child.send_word(Word::Ready).unwrap();
        drop(child);
        assert_eq!(master.recv_word(), Heard::Message(Word::Ready), "said before it went");
        assert_eq!(master.recv_word(), Heard::Gone);
        assert!(master.send_order(Order::Stop).is_err());
    }
}
