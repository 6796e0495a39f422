//! What is said about a connection that goes from one child to another, beside its descriptor.
//!
//! One message of fixed length, over the SOCK_SEQPACKET pair that all children inherit: nobody is addressed, and
//! whoever takes it has it whole. The connection is between two requests, and nothing of the next has been read.
//! Moments are on CLOCK_MONOTONIC, which all processes of the machine share.

use crate::clock::Tick;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Version of the message; another one is not understood. A new binary (an upgrade) may know a newer one.
pub const VERSION: u8 = 1;

/// Length of the message in bytes.
pub const LENGTH: usize = 16 + 2 * ADDRESS;

/// Length of an address in bytes.
const ADDRESS: usize = 28;

/// What the next child has to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Passage {
    /// Where the listener is bound that it came by.
    pub listener: SocketAddr,
    /// The client's address.
    pub peer: SocketAddr,
    /// Requests begun on it so far.
    pub requests: u32,
    /// When it is closed if no request comes.
    pub deadline: Tick,
}

impl Passage {
    /// The message: version and three zero bytes, `requests`, `deadline` in milliseconds, `listener`, `peer`;
    /// numbers little-endian. An address: 4 or 6, a zero byte, the port (high byte first), 16 bytes of address (IPv4:
    /// the first four), IPv6 flow and scope.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION;
        bytes[4..8].copy_from_slice(&self.requests.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.deadline.0.to_le_bytes());
        bytes[16..16 + ADDRESS].copy_from_slice(&encode(&self.listener));
        bytes[16 + ADDRESS..].copy_from_slice(&encode(&self.peer));
        bytes
    }

    /// What a message says; `None` if it makes no sense.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        let [VERSION, 0, 0, 0, ..] = *bytes else { return None };
        Some(Self {
            requests: u32::from_le_bytes(part(bytes, 4)?),
            deadline: Tick(u64::from_le_bytes(part(bytes, 8)?)),
            listener: decode(&part(bytes, 16)?)?,
            peer: decode(&part(bytes, 16 + ADDRESS)?)?,
        })
    }
}

fn part<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
    bytes.get(from..from + N)?.try_into().ok()
}

fn encode(address: &SocketAddr) -> [u8; ADDRESS] {
    let mut bytes = [0; ADDRESS];
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            bytes[0] = 4;
            bytes[4..8].copy_from_slice(&address.ip().octets());
        }
        SocketAddr::V6(address) => {
            bytes[0] = 6;
            bytes[4..20].copy_from_slice(&address.ip().octets());
            bytes[20..24].copy_from_slice(&address.flowinfo().to_le_bytes());
            bytes[24..28].copy_from_slice(&address.scope_id().to_le_bytes());
        }
    }
    bytes
}

fn decode(bytes: &[u8; ADDRESS]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    match bytes {
        [4, 0, _, _, a, b, c, d, rest @ ..] if rest.iter().all(|byte| *byte == 0) => {
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d)), port))
        }
        [6, 0, ..] => {
            let ip = Ipv6Addr::from(part::<16>(bytes, 4)?);
            let flow = u32::from_le_bytes(part(bytes, 20)?);
            let scope = u32::from_le_bytes(part(bytes, 24)?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(listener: &str, peer: SocketAddr) -> Passage {
        let listener = listener.parse().expect("an address");
        Passage { listener, peer, requests: 7, deadline: Tick(0x0102_0304_0506_0708) }
    }

    fn local() -> SocketAddr {
        "127.0.0.1:50123".parse().expect("an address")
    }

    #[test]
    fn a_message_comes_back_as_what_it_was() {
        let link_local = SocketAddrV6::new("fe80::1".parse().expect("an address"), 443, 5, 2);
        for sent in [
            passage("0.0.0.0:80", local()),
            passage("[::]:8080", link_local.into()),
            Passage { requests: 0, deadline: Tick::NEVER, ..passage("127.0.0.1:1", local()) },
        ] {
            assert_eq!(Passage::decode(&sent.encode()), Some(sent));
        }
    }

    #[test]
    fn what_makes_no_sense_is_not_believed() {
        let good = passage("127.0.0.1:80", local()).encode();
        assert_eq!(Passage::decode(&good[..LENGTH - 1]), None, "short");
        assert_eq!(Passage::decode(&[good.as_slice(), &[0]].concat()), None, "long");
        assert_eq!(Passage::decode(&[0; LENGTH]), None, "zeros");
        // (byte, value): another version, reserved bytes, a family that is none, rubbish behind an IPv4 address
        for (place, value) in [(0, 2), (3, 1), (16, 5), (17, 1), (30, 1), (16 + ADDRESS, 0)] {
            let mut bad = good;
            bad[place] = value;
            assert_eq!(Passage::decode(&bad), None, "byte {place} is {value}");
        }
    }
}
