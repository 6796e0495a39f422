//! Which virtual host a request is for: by our address first, then by the name the client asked for.
//!
//! As httpd: the sections with the most exact address are the only ones looked at; among them a name decides, and
//! the first listed answers for names that none has. Names are hashed; only those with wildcards are tried one by
//! one.

use crate::config::model::{Config, HostAddress, VirtualHost};
use crate::ids::HostId;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// The longest name that can match: DNS knows none above 253 bytes.
const LONGEST_NAME: usize = 255;

/// The virtual hosts by address and name.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    sets: Vec<NameSet>,
    exact: HashMap<(IpAddr, u16), usize>,
    by_ip: HashMap<IpAddr, usize>,
    by_port: HashMap<u16, usize>,
    any: Option<usize>,
}

/// The hosts of one address.
#[derive(Debug)]
struct NameSet {
    /// The first listed.
    default: HostId,
    names: HashMap<Box<[u8]>, HostId>,
    /// Aliases with `*` or `?`, in the order of their hosts.
    wild: Vec<(Box<[u8]>, HostId)>,
}

impl Hosts {
    pub(super) fn new(config: &Config) -> Self {
        let mut hosts = Self::default();
        for (id, host) in (0..).map(HostId).zip(&config.hosts).skip(1) {
            for address in &host.addresses {
                let at = hosts.set_of(*address, id);
                hosts.sets[at].add(id, host);
            }
        }
        hosts
    }

    fn set_of(&mut self, address: HostAddress, id: HostId) -> usize {
        let next = self.sets.len();
        let at = match (address.ip.map(|ip| ip.to_canonical()), address.port) {
            (Some(ip), Some(port)) => *self.exact.entry((ip, port)).or_insert(next),
            (Some(ip), None) => *self.by_ip.entry(ip).or_insert(next),
            (None, Some(port)) => *self.by_port.entry(port).or_insert(next),
            (None, None) => *self.any.get_or_insert(next),
        };
        if at == next {
            self.sets.push(NameSet { default: id, names: HashMap::new(), wild: Vec::new() });
        }
        at
    }

    pub(super) fn find(&self, local: SocketAddr, authority: &[u8]) -> HostId {
        match self.at_address(local) {
            Some(set) => set.find(authority),
            None => HostId(0),
        }
    }

    fn at_address(&self, local: SocketAddr) -> Option<&NameSet> {
        if self.sets.is_empty() {
            return None;
        }
        let (ip, port) = (local.ip().to_canonical(), local.port());
        // Asking an empty map costs no hash.
        let at = self.exact.get(&(ip, port));
        let at =
            at.or_else(|| self.by_ip.get(&ip)).or_else(|| self.by_port.get(&port)).or(self.any.as_ref())?;
        self.sets.get(*at)
    }
}

impl NameSet {
    fn add(&mut self, id: HostId, host: &VirtualHost) {
        for name in std::iter::once(&host.name).chain(&host.aliases) {
            let name: Box<[u8]> = without_dot(name.as_bytes()).to_ascii_lowercase().into();
            if name.contains(&b'*') || name.contains(&b'?') {
                self.wild.push((name, id));
            } else if !name.is_empty() {
                // Where two hosts claim a name, the first has it.
                self.names.entry(name).or_insert(id);
            }
        }
    }

    fn find(&self, authority: &[u8]) -> HostId {
        let name = without_dot(without_port(authority));
        let mut lower = [0; LONGEST_NAME];
        let Some(lower) = lower.get_mut(..name.len()) else { return self.default };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let exact = self.names.get(&*lower).copied();
        // httpd asks host by host, so a wildcard of an earlier host wins over the full name of a later one.
        let earlier = self.wild.iter().take_while(|(_, id)| exact.is_none_or(|exact| *id < exact));
        let wild = earlier.map(|(pattern, id)| (pattern, *id)).find(|(pattern, _)| matches(pattern, lower));
        wild.map(|(_, id)| id).or(exact).unwrap_or(self.default)
    }
}

fn without_port(authority: &[u8]) -> &[u8] {
    let end = match authority {
        [b'[', ..] => memchr::memchr(b']', authority).map(|at| at + 1),
        _ => memchr::memchr(b':', authority),
    };
    &authority[..end.unwrap_or(authority.len())]
}

fn without_dot(name: &[u8]) -> &[u8] {
    name.strip_suffix(b".").unwrap_or(name)
}

/// `*` stands for any bytes, `?` for one. Takes at most `pattern.len() * name.len()` steps.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when a byte differs: behind the last star, one byte of the name later.
    let mut again: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                again = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match again {
                Some((star, from)) => {
                    again = Some((star, from + 1));
                    p = star;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_whole_names() {
        for (pattern, name, want) in [
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "a.example.orgx", false),
            ("www?.x", "www1.x", true),
            ("www?.x", "www.x", false),
            ("*", "", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a*", "a", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
        }
    }

    #[test]
    fn a_port_is_no_part_of_a_name() {
        for (authority, want) in [
            ("a.b:80", "a.b"),
            ("a.b", "a.b"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("[::1", "[::1"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(without_port(authority.as_bytes()), want.as_bytes(), "{authority}");
        }
    }
}
