//! The sockets of `StatusListen`: bound by the master, answered by the groom.
//!
//! Kept over a reload and an upgrade as those of the sites are. A socket in the file system has a name besides, which is
//! taken away when nobody listens there any more: by the master that has the say then, and only if it is still that
//! socket's.

use crate::config::model::{Config, Listen, StatusListen};
use crate::groom::Entrance;
use crate::master::error::StartError;
use crate::master::heritage::Predecessor;
use crate::master::listeners;
use crate::sys::socket::{self, ListenOptions};
use std::cell::Cell;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Connections that the kernel holds until the groom accepts them, which it does at once: what `ListenBacklog` says of
/// the sites' clients is not meant for these.
const BACKLOG: u32 = 128;

/// The name of a socket in the file system. Whoever drops its last copy takes it away, if it is theirs to do so.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    /// Device and inode, so that nobody else's socket is taken away.
    inode: Option<(u64, u64)>,
    /// The process that takes it away; 0: nobody.
    owner: Cell<u32>,
}

impl Name {
    fn new(path: &Path, owner: u32) -> Self {
        Self { path: path.to_owned(), inode: inode(path), owner: Cell::new(owner) }
    }

    fn is_there(&self) -> bool {
        self.inode.is_some() && inode(&self.path) == self.inode
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // A forked process has a copy of this, and nothing to say.
        if self.owner.get() == std::process::id() && self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// One socket.
#[derive(Debug)]
pub struct StatusDoor {
    /// The line that asked for it.
    listen: StatusListen,
    fd: OwnedFd,
    /// Where it is really bound; `None` in the file system.
    address: Option<SocketAddr>,
    name: Option<Rc<Name>>,
}

impl StatusDoor {
    fn new(listen: StatusListen, fd: OwnedFd, owner: u32) -> Self {
        let (address, name) = match &listen {
            StatusListen::Tcp(listen) => {
                (Some(socket::local_address(fd.as_fd()).unwrap_or(listen.address)), None)
            }
            StatusListen::Unix(path) => (None, Some(Rc::new(Name::new(path, owner)))),
        };
        Self { listen, fd, address, name }
    }

    /// Whether it is what `wanted` asks for.
    fn serves(&self, wanted: &StatusListen) -> bool {
        match (wanted, &self.listen, self.address) {
            (StatusListen::Tcp(wanted), StatusListen::Tcp(own), Some(address)) => {
                wanted == own || (wanted.address == address && wanted.any_family == own.any_family)
            }
            (StatusListen::Unix(wanted), StatusListen::Unix(own), _) => {
                wanted == own && self.name.as_ref().is_some_and(|name| name.is_there())
            }
            _ => false,
        }
    }

    fn is_same_as(&self, other: &Self) -> bool {
        match (&self.name, &other.name) {
            (Some(name), Some(theirs)) => Rc::ptr_eq(name, theirs),
            _ => self.address == other.address,
        }
    }

    fn entrance(&self) -> Entrance {
        match self.address {
            None => Entrance::File,
            Some(address) if address.ip().is_loopback() => Entrance::Loopback,
            Some(_) => Entrance::Network,
        }
    }

    /// A second descriptor, for the line `listen`.
    fn again(&self, listen: &StatusListen) -> io::Result<Self> {
        let fd = self.fd.try_clone()?;
        Ok(Self { listen: listen.clone(), fd, address: self.address, name: self.name.clone() })
    }
}

/// All of a generation.
#[derive(Debug, Default)]
pub struct StatusDoors(Vec<StatusDoor>);

impl StatusDoors {
    /// Binds every `StatusListen` of `config`, or none; takes a second descriptor of those that are `open` already. A new
    /// socket in the file system is given to `group`.
    ///
    /// # Errors
    /// For the first that cannot be bound; those bound before it are gone again.
    pub fn bind_beside(config: &Config, group: Option<u32>, open: &[&Self]) -> Result<Self, StartError> {
        let bind = |wanted: &StatusListen| {
            let fault = |source| StartError::StatusListen { listen: wanted.clone(), source };
            if let Some(door) = open.iter().flat_map(|doors| &doors.0).find(|door| door.serves(wanted)) {
                return door.again(wanted).map_err(fault);
            }
            let fd = match wanted {
                StatusListen::Tcp(listen) => bind_address(listen, config),
                StatusListen::Unix(path) => socket::listen_unix(path, BACKLOG).and_then(|fd| {
                    chown(path, None, group).map(|()| fd).inspect_err(|_| drop(fs::remove_file(path)))
                }),
            };
            Ok(StatusDoor::new(wanted.clone(), fd.map_err(fault)?, std::process::id()))
        };
        config.status_listen.iter().map(bind).collect::<Result<_, _>>().map(Self)
    }

    /// Those that an old master has left to this one. Their names are its own until [`StatusDoors::take_possession`].
    #[must_use]
    pub fn left_by(predecessor: &mut Predecessor) -> Self {
        let doors = predecessor.heirlooms(PREFIX).into_iter().filter_map(|(name, fd)| {
            let listen = read_name(&name)?;
            let is_listener = match listen {
                StatusListen::Tcp(_) => socket::is_tcp_listener(fd.as_fd()),
                StatusListen::Unix(_) => socket::is_unix_listener(fd.as_fd()),
            };
            is_listener.unwrap_or(false).then(|| StatusDoor::new(listen, fd, 0))
        });
        Self(doors.collect())
    }

    /// By which names they are left to the master that follows.
    pub fn heirlooms(&self) -> impl Iterator<Item = (String, RawFd)> {
        self.0.iter().map(|door| (name(&door.listen), door.fd.as_raw_fd()))
    }

    /// The names are this process's from now on, whoever had them.
    pub fn take_possession(&self) {
        self.own(std::process::id());
    }

    /// This process has nothing to do with the names any more.
    pub fn disown(&self) {
        self.own(0);
    }

    /// This process goes on with another number than the one that has bound them.
    pub fn move_in(&self) {
        for name in self.names().filter(|name| name.owner.get() != 0) {
            name.owner.set(std::process::id());
        }
    }

    fn own(&self, owner: u32) {
        self.names().for_each(|name| name.owner.set(owner));
    }

    fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().filter_map(|door| door.name.as_deref())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that `next` does not have. The kernel drops new connections there; who waits is still let in.
    #[must_use]
    pub fn vanishing(mut self, next: &Self) -> Self {
        self.0.retain(|door| !next.0.iter().any(|kept| kept.is_same_as(door)));
        for door in self.0.iter().filter(|door| door.address.is_some()) {
            // Failing is no harm: whoever comes until the groom has closed it is reset then.
            let _ = socket::drop_new_connections(door.fd.as_fd());
        }
        self
    }

    /// Those that `next` does not have either; the others hear new connections again.
    pub fn keep_vanishing(&mut self, next: &Self) {
        self.0.retain(|door| {
            let is_back = next.0.iter().any(|kept| kept.is_same_as(door));
            if is_back {
                let _ = socket::hear_new_connections(door.fd.as_fd());
            }
            !is_back
        });
    }

    /// With those of `more`.
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// A second descriptor of each, for the groom.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn for_groom(&self) -> io::Result<Vec<(OwnedFd, Entrance)>> {
        self.0.iter().map(|door| Ok((door.fd.try_clone()?, door.entrance()))).collect()
    }

    /// Where they are really bound, `127.0.0.1:8081, unix:/run/ostler/status`.
    #[must_use]
    pub fn addresses(&self) -> String {
        let shown = |door: &StatusDoor| match door.address {
            Some(address) => address.to_string(),
            None => door.listen.to_string(),
        };
        self.0.iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}

fn bind_address(listen: &Listen, config: &Config) -> io::Result<OwnedFd> {
    let status = config.status_listen.iter().filter_map(|other| match other {
        StatusListen::Tcp(listen) => Some(*listen),
        StatusListen::Unix(_) => None,
    });
    let all: Vec<Listen> = config.listen.iter().copied().chain(status).collect();
    let options = ListenOptions {
        backlog: BACKLOG,
        any_family: listeners::takes_ipv4(listen, &all),
        send_buffer: None,
        receive_buffer: None,
        beside: false,
    };
    listeners::bind_one(listen, options, &[])
}

/// What the names begin with by which these are left to the next master.
const PREFIX: &str = "status-1-";

/// `status-1-tcp-127.0.0.1:0`, `status-1-any-81`, `status-1-unix-/run/my%20status`.
fn name(listen: &StatusListen) -> String {
    match listen {
        StatusListen::Tcp(Listen { address, any_family: true }) => format!("{PREFIX}any-{}", address.port()),
        StatusListen::Tcp(Listen { address, any_family: false }) => format!("{PREFIX}tcp-{address}"),
        StatusListen::Unix(path) => {
            let mut name = format!("{PREFIX}unix-");
            for &byte in path.as_os_str().as_bytes() {
                // Names stand in a list with blanks between.
                match byte {
                    b'%' | 0..=b' ' | 0x7f.. => write!(name, "%{byte:02x}").expect("a String takes any text"),
                    _ => name.push(char::from(byte)),
                }
            }
            name
        }
    }
}

fn read_name(name: &str) -> Option<StatusListen> {
    let (kind, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    match kind {
        "any" => {
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, rest.parse().ok()?));
            Some(StatusListen::Tcp(Listen { address, any_family: true }))
        }
        "tcp" => Some(StatusListen::Tcp(Listen { address: rest.parse().ok()?, any_family: false })),
        "unix" => {
            let mut bytes = Vec::with_capacity(rest.len());
            let mut left = rest.as_bytes();
            while let Some((&byte, after)) = left.split_first() {
                left = after;
                if byte == b'%' {
                    let digits = std::str::from_utf8(left.get(..2)?).ok()?;
                    bytes.push(u8::from_str_radix(digits, 16).ok()?);
                    left = &left[2..];
                } else {
                    bytes.push(byte);
                }
            }
            Some(StatusListen::Unix(PathBuf::from(OsString::from_vec(bytes))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn config(text: &str) -> Config {
        let text = format!("Listen 127.0.0.1:0\n{text}\n");
        let options = crate::config::Options::default();
        crate::config::from_text("test", &text, &options).expect("a valid text").config
    }

    fn bind(text: &str, open: &StatusDoors) -> Result<StatusDoors, StartError> {
        StatusDoors::bind_beside(&config(text), None, &[open])
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let tcp = |text: &str, any_family| {
            StatusListen::Tcp(Listen { address: text.parse().expect("an address"), any_family })
        };
        let unix = |bytes: &[u8]| StatusListen::Unix(PathBuf::from(OsString::from_vec(bytes.to_vec())));
        for (listen, want) in [
            (tcp("127.0.0.1:0", false), "status-1-tcp-127.0.0.1:0"),
            (tcp("[fe80::1%2]:81", false), "status-1-tcp-[fe80::1%2]:81"),
            (tcp("[::]:81", true), "status-1-any-81"),
            (unix(b"/run/a-b,c/status"), "status-1-unix-/run/a-b,c/status"),
            (unix(b"/run/my 100%\xff"), "status-1-unix-/run/my%20100%25%ff"),
        ] {
            assert_eq!(name(&listen), want);
            assert_eq!(read_name(want), Some(listen));
        }
        for nonsense in
            ["", "status-1-", "status-2-any-1", "status-1-any-x", "status-1-tcp-1", "status-1-unix-%x"]
        {
            assert_eq!(read_name(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_reload_keeps_sockets_and_the_last_to_go_takes_the_name_along() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let path = home.path().join("status");
        let text = format!("StatusListen 0\nStatusListen unix:{}", path.display());
        let first = bind(&text, &StatusDoors::default()).expect("free");
        let addresses = first.addresses();
        assert!(addresses.starts_with("127.0.0.1:") && addresses.ends_with("/status"), "{addresses}");
        let _waiting = UnixStream::connect(&path).expect("it listens");
        let second = bind(&text, &first).expect("kept");
        assert_eq!(second.addresses(), addresses, "port 0 keeps what the kernel chose");
        drop(first);
        assert!(UnixStream::connect(&path).is_ok(), "it is still there");
        // Another daemon has the same line: it is told so, and nothing is taken away.
        let refused = bind(&text.replace("StatusListen 0\n", ""), &StatusDoors::default()).unwrap_err();
        assert!(refused.sentence().contains("Address already in use"), "{}", refused.sentence());
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());

        let third = bind(&text, &StatusDoors::default()).expect("free again");
        third.disown();
        drop(third);
        assert!(path.exists(), "another master has the say");
        let fourth = bind(&text, &StatusDoors::default()).expect("what is left over is replaced");
        fs::remove_file(&path).expect("the test's own");
        let fifth = bind(&text, &fourth).expect("one whose name is gone is of no use");
        drop(fourth);
        assert!(UnixStream::connect(&path).is_ok());
        drop(fifth);
        assert!(!path.exists());
    }

    #[test]
    fn one_that_vanishes_and_comes_back_is_the_same() {
        let none = StatusDoors::default();
        let first = bind("StatusListen 0\nStatusListen [::1]:0", &none).expect("free");
        let line = format!("StatusListen {}", first.0[0].address.expect("it is bound"));
        let second = bind("StatusListen [::1]:0", &first).expect("kept");
        let mut vanishing = first.vanishing(&second);
        assert_eq!(vanishing.0.len(), 1);
        let third =
            StatusDoors::bind_beside(&config(&line), None, &[&second, &vanishing]).expect("still open");
        vanishing.keep_vanishing(&third);
        assert!(vanishing.is_empty());
        assert!(
            std::net::TcpStream::connect(third.0[0].address.expect("it is bound")).is_ok(),
            "it hears again"
        );
    }

    #[test]
    fn which_doors_are_for_whom() {
        let doors = bind("StatusListen 0\nStatusListen 0.0.0.0:0", &StatusDoors::default()).expect("free");
        let entrances: Vec<Entrance> = doors.0.iter().map(StatusDoor::entrance).collect();
        assert_eq!(entrances, [Entrance::Loopback, Entrance::Network]);
    }
}
