//! The listening sockets: one per address, made by the master, shared by all children.
//!
//! Over a reload a socket whose line stays is kept, with its port and with what waits in it; new ones are bound
//! beside the old, and those that vanish are left open until nobody waits there any more.

use crate::config::model::{Config, Listen};
use crate::ids::ListenerId;
use crate::master::error::StartError;
use crate::sys::poll::{self, Seen, Wish};
use crate::sys::socket::{self, ListenOptions};
use nix::errno::Errno;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Who else holds a socket, and so whether it may be ended for everybody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// Nobody but this master and its children.
    Us,
    /// The master before this one, which may yet go on with it.
    Predecessor,
    /// The service manager, which passed it to us, keeps it, and passes it to the next one: we close it, and no more.
    Manager,
}

/// One address that we listen on.
#[derive(Debug)]
pub struct Listener {
    /// Its place in `Config::listen`.
    pub id: ListenerId,
    /// The line that asked for it.
    pub listen: Listen,
    /// An IPv6 wildcard that takes IPv4 clients too.
    pub any_family: bool,
    /// The socket.
    pub fd: OwnedFd,
    /// Where it is really bound: with the port that the kernel chose, where the configuration said 0.
    pub address: SocketAddr,
    /// Who else holds it.
    pub owner: Owner,
    /// It has been bound for this generation, and none of its children is ready yet.
    pub is_new: bool,
}

impl Listener {
    fn is_same_as(&self, other: &Self) -> bool {
        self.address == other.address && self.any_family == other.any_family
    }
}

/// All addresses of a generation, in the order of the file.
#[derive(Debug, Default)]
pub struct Listeners(Vec<Listener>);

impl Listeners {
    /// Binds every `Listen` of `config`, or none.
    ///
    /// # Errors
    /// For the first that cannot be bound; those before it are closed again.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        Self::bind_beside(config, &[])
    }

    /// Binds every `Listen` of `config`, or none; takes a second descriptor of those that `open` holds for the same
    /// line already. What `open` holds stays as it is, until [`Listeners::adjust`].
    ///
    /// A socket of the service manager's that no line asks for is a fault, and not only closed: the manager keeps it
    /// open, so that clients could still connect there and would wait for an answer for ever.
    ///
    /// # Errors
    /// For the first that cannot be bound; those bound before it are closed again. For one that nobody asked for.
    pub fn bind_beside(config: &Config, open: &[&Listener]) -> Result<Self, StartError> {
        let mut free: Vec<&Listener> = open.to_vec();
        let mut bind = |(index, listen): (usize, &Listen)| {
            let id = ListenerId(u32::try_from(index).expect("a file has no 4 billion lines"));
            let options = options(listen, config);
            let any_family = options.any_family;
            let same = |old: &&Listener| {
                let is_there = old.listen == *listen || old.address == listen.address;
                (is_there && old.any_family == any_family) || is_all_there_is(old, listen)
            };
            let known = free.iter().position(same).map(|place| free.swap_remove(place));
            let fd = match known {
                Some(known) => known.fd.try_clone(),
                None => bind_one(listen, options, open),
            };
            let fd = fd.map_err(|source| StartError::Listen { address: listen.address, source })?;
            let owner = known.map_or(Owner::Us, |known| known.owner);
            let address = socket::local_address(fd.as_fd()).unwrap_or(listen.address);
            Ok(Listener { id, listen: *listen, any_family, fd, address, owner, is_new: known.is_none() })
        };
        let bound = config.listen.iter().enumerate().map(&mut bind).collect::<Result<_, _>>()?;
        match free.iter().find(|listener| listener.owner == Owner::Manager) {
            Some(Listener { address, any_family, .. }) => {
                Err(StartError::NotAsked { address: *address, any_family: *any_family })
            }
            None => Ok(Self(bound)),
        }
    }

    /// Gives those that were open before what `config` says of all, for connections to come. To be called when it is
    /// certain that this configuration is the one that serves: others may serve at them until then.
    pub fn adjust(&self, config: &Config) {
        for listener in &self.0 {
            // It listens; what it can't be given, a larger buffer say, it does without.
            let _ = socket::adjust_listener(listener.fd.as_fd(), &options(&listener.listen, config));
        }
    }

    /// What those keep that `old` has too although this `config` does not say it any more, a sentence for each
    /// directive: the kernel takes back no buffer's size.
    #[must_use]
    pub fn remnants(&self, config: &Config, old: &Self, old_config: &Config) -> Vec<String> {
        let kept = self.0.iter().filter(|mine| old.0.iter().any(|theirs| theirs.is_same_as(mine)));
        let kept: Vec<String> = kept.map(|listener| listener.address.to_string()).collect();
        let sizes = [
            ("SendBufferSize", old_config.send_buffer, config.send_buffer),
            ("ReceiveBufferSize", old_config.receive_buffer, config.receive_buffer),
        ];
        let is_gone =
            |before: Option<u32>, now: Option<u32>| before.is_some() && now.is_none() && !kept.is_empty();
        let gone = sizes.into_iter().filter(|&(_, before, now)| is_gone(before, now));
        gone.map(|(name, ..)| {
            let keeps = if kept.len() == 1 { "keeps its size" } else { "keep their sizes" };
            format!(
                "{name} is not set any more, but {} {keeps} until the server is stopped and started",
                kept.join(", ")
            )
        })
        .collect()
    }

    /// The places, in `others`, of those that are here too.
    #[must_use]
    pub fn places_among(&self, others: &[Listener]) -> Vec<usize> {
        let is_here = |theirs: &Listener| self.0.iter().any(|mine| mine.is_same_as(theirs));
        others.iter().enumerate().filter(|(_, theirs)| is_here(theirs)).map(|(place, _)| place).collect()
    }

    /// Those at these places, and the others.
    #[must_use]
    pub fn pick(self, places: &[usize]) -> (Self, Self) {
        let (picked, others): (Vec<_>, Vec<_>) =
            self.0.into_iter().enumerate().partition(|(place, _)| places.contains(place));
        let listeners = |list: Vec<(usize, Listener)>| Self(list.into_iter().map(|(_, it)| it).collect());
        (listeners(picked), listeners(others))
    }

    /// The master before this one has nothing to do with them any more.
    pub fn take_possession(&mut self) {
        for listener in self.0.iter_mut().filter(|listener| listener.owner == Owner::Predecessor) {
            listener.owner = Owner::Us;
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<&Listener> {
        self.0.iter().collect()
    }

    /// Those whose socket `other` has too, and those whose it has not.
    #[must_use]
    pub fn divide(self, other: &Self) -> (Self, Self) {
        let is_kept = |mine: &Listener| other.0.iter().any(|theirs| theirs.is_same_as(mine));
        let (kept, gone) = self.0.into_iter().partition(is_kept);
        (Self(kept), Self(gone))
    }

    /// The places of all, as children know them.
    pub fn places(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|listener| listener.id.0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// There is a child that accepts: those that lie beside others take the clients of these from now on. Before, they
    /// would only queue them, and those would be lost if this generation did not come up.
    pub fn begin(&mut self) {
        for listener in self.0.iter_mut().filter(|listener| listener.is_new) {
            listener.is_new = false;
            // One that lies beside nobody is not deaf.
            let _ = socket::hear_new_connections(listener.fd.as_fd());
        }
    }

    /// Has the kernel let new connections in again after [`Listeners::deafen`].
    pub fn listen_again(&self) {
        for listener in &self.0 {
            let _ = socket::hear_new_connections(listener.fd.as_fd());
        }
    }

    /// The bound addresses, `127.0.0.1:8080, [::1]:8080`.
    #[must_use]
    pub fn addresses(&self) -> String {
        let mut list = String::new();
        for listener in &self.0 {
            let comma = if list.is_empty() { "" } else { ", " };
            // Writing to a String can't fail.
            let _ = write!(list, "{comma}{}", listener.address);
        }
        list
    }

    /// A second descriptor of each socket, for a child, and where it is bound.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn for_child(&self) -> io::Result<Vec<(ListenerId, OwnedFd, SocketAddr)>> {
        let copy = |listener: &Listener| Ok((listener.id, listener.fd.try_clone()?, listener.address));
        self.0.iter().map(copy).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Has the kernel drop new connections, in all processes that share the sockets; those under way are still
    /// completed and can be accepted. Failing is no harm: what then comes in between is reset by the close. Those that
    /// somebody else holds too are left as they are.
    pub fn deafen(&self) {
        for listener in self.ours() {
            let _ = socket::drop_new_connections(listener.fd.as_fd());
        }
    }

    /// Ends the sockets for all processes that share them, so that a child that is stuck, or that looks at its
    /// listeners only between requests, keeps no port. Those that somebody else holds too are closed here only.
    pub fn shut(self) {
        for listener in self.ours() {
            let _ = socket::shut_listener(listener.fd.as_fd());
        }
    }

    fn ours(&self) -> impl Iterator<Item = &Listener> {
        self.0.iter().filter(|listener| listener.owner == Owner::Us)
    }

    /// Whether a connection waits to be accepted.
    #[must_use]
    pub fn has_queued(&self) -> bool {
        let sockets = self.0.iter().map(|listener| listener.fd.as_fd());
        let wishes: Vec<Wish<'_>> = sockets.map(|fd| Wish { fd, read: true, write: false }).collect();
        let mut seen = vec![Seen::default(); wishes.len()];
        poll::wait(&wishes, Some(Duration::ZERO), &mut seen).is_ok_and(|count| count > 0)
    }
}

fn options(listen: &Listen, config: &Config) -> ListenOptions {
    ListenOptions {
        backlog: config.listen_backlog,
        any_family: takes_ipv4(listen, &config.listen),
        send_buffer: config.send_buffer,
        receive_buffer: config.receive_buffer,
        beside: false,
    }
}

/// Binds one line's address, or for one that names none, what this machine has.
pub(super) fn bind_one(listen: &Listen, options: ListenOptions, open: &[&Listener]) -> io::Result<OwnedFd> {
    let address = listen.address;
    match bind_address(&address, options, open) {
        Err(error) if listen.any_family && address.is_ipv6() && is_without_ipv6(&error) => {
            bind_address(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())), options, open)
        }
        other => other,
    }
}

/// Binds one address. Where a socket of ours holds an overlapping one (`*:80` and `10.0.0.1:80`), both agree to
/// share the port for the moment of this bind.
fn bind_address(address: &SocketAddr, options: ListenOptions, open: &[&Listener]) -> io::Result<OwnedFd> {
    let refused = match socket::listen(address, &options) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
        other => return other,
    };
    let ours: Vec<&&Listener> = open.iter().filter(|ours| ours.address.port() == address.port()).collect();
    if ours.is_empty() {
        return Err(refused);
    }
    let share = |share| {
        for listener in &ours {
            // One that can't share has the bind refused, which is told.
            let _ = socket::share_port(listener.fd.as_fd(), share);
        }
    };
    share(true);
    let bound = socket::listen(address, &ListenOptions { beside: true, ..options });
    share(false);
    bound
}

/// Where there is no IPv6, the service manager's socket for a line that names no address is one of IPv4 alone, as ours
/// would be.
fn is_all_there_is(passed: &Listener, listen: &Listen) -> bool {
    let all_of_ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.address.port()));
    listen.any_family
        && passed.owner == Owner::Manager
        && passed.address == all_of_ipv4
        && socket::has_ipv6().is_err_and(|error| is_without_ipv6(&error))
}

/// As httpd: an IPv6 wildcard takes IPv4 connections too, unless the file lists the IPv4 wildcard of the same
/// port by itself.
pub(super) fn takes_ipv4(listen: &Listen, all: &[Listen]) -> bool {
    let port = listen.address.port();
    let has_own =
        all.iter().any(|other| port != 0 && other.address == SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    listen.address.is_ipv6() && listen.address.ip().is_unspecified() && !has_own
}

fn is_without_ipv6(error: &io::Error) -> bool {
    let reason = error.raw_os_error().map(Errno::from_raw);
    matches!(reason, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: &str, any_family: bool) -> Listen {
        Listen { address: address.parse().unwrap(), any_family }
    }

    fn config(text: &str) -> Config {
        crate::config::from_text("test", text, &crate::config::Options::default())
            .expect("a valid text")
            .config
    }

    #[test]
    fn every_address_is_bound_or_none() {
        let listeners = Listeners::bind(&config("Listen 127.0.0.1:0\nListen 127.0.0.2:0")).unwrap();
        assert_eq!(listeners.count(), 2);
        let addresses = listeners.addresses();
        assert!(addresses.starts_with("127.0.0.1:") && addresses.contains(", 127.0.0.2:"), "{addresses}");
        assert!(!addresses.contains(":0"), "the real ports are told: {addresses}");
        let first = listeners.0[0].address;

        let taken = config(&format!("Listen 127.0.0.3:0\nListen {first}"));
        match Listeners::bind(&taken) {
            Err(StartError::Listen { address, source }) => {
                assert_eq!((address, source.kind()), (first, io::ErrorKind::AddrInUse));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reload_keeps_what_stays_and_binds_what_is_new_beside_it() {
        let old = Listeners::bind(&config("Listen 127.0.0.1:0\nListen 127.0.0.2:0")).unwrap();
        let waiting = std::net::TcpStream::connect(old.0[0].address).unwrap();
        let port = old.0[1].address.port();
        let text = format!("Listen 127.0.0.1:0\nListen 0.0.0.0:{port}");
        let mut new = Listeners::bind_beside(&config(&text), &old.all()).unwrap();
        assert_eq!(new.0[0].address, old.0[0].address, "port 0 keeps what the kernel chose");
        assert!(new.has_queued(), "and what waits there");
        assert_eq!(new.0[1].address.port(), port, "the wildcard beside the one address that it covers");
        let kept = new.0[0].address;
        let (_, vanished) = old.divide(&new);
        assert_eq!((vanished.count(), vanished.places().next()), (1, Some(1)));
        assert!(std::net::TcpStream::connect(("127.0.0.2", port)).is_ok(), "the old one still hears");
        new.begin();
        vanished.shut();
        assert!(std::net::TcpStream::connect(kept).is_ok(), "what stays is not shut");
        assert!(std::net::TcpStream::connect(("127.0.0.2", port)).is_ok(), "the wildcard has taken over");
        drop(waiting);

        let stranger = std::net::TcpListener::bind("127.0.0.3:0").unwrap();
        let text = format!("Listen 127.0.0.1:0\nListen {}", stranger.local_addr().unwrap());
        let error = Listeners::bind_beside(&config(&text), &new.all()).unwrap_err();
        assert!(error.sentence().contains("Address already in use"), "{error}");
    }

    #[test]
    fn a_child_gets_descriptors_of_the_same_sockets() {
        let listeners = Listeners::bind(&config("Listen 127.0.0.1:0")).unwrap();
        let address = listeners.0[0].address;
        let for_child = listeners.for_child().unwrap();
        assert_eq!(for_child.len(), 1);
        assert_eq!((for_child[0].0, for_child[0].2), (ListenerId(0), address));
        assert!(!listeners.has_queued());
        let _client = std::net::TcpStream::connect(address).unwrap();
        assert!(listeners.has_queued());
        socket::accept(for_child[0].1.as_fd()).unwrap();
        assert!(!listeners.has_queued());
        listeners.shut();
        assert!(std::net::TcpStream::connect(address).is_err(), "shut for the child's descriptor too");
    }

    #[test]
    fn which_wildcards_take_ipv4() {
        let all = [
            listen("[::]:80", true),
            listen("[::]:81", false),
            listen("0.0.0.0:81", false),
            listen("[::1]:82", false),
            listen("0.0.0.0:83", false),
            listen("[::]:0", true),
            listen("0.0.0.0:0", false),
        ];
        let want = [true, false, false, false, false, true, false];
        for (listen, want) in all.iter().zip(want) {
            assert_eq!(takes_ipv4(listen, &all), want, "{}", listen.address);
        }
    }
}
