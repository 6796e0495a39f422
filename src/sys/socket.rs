//! Sockets: listening, accepting, connecting, moving bytes. All non-blocking and CLOEXEC from birth.
//!
//! No call here waits, except [`recv_waiting`], and that only where [`Waiting::allow`] has said so.
//! What every request does goes past libc (rustix): its functions are points of cancellation, which nobody here makes use
//! of, and a page more that a process which has just been switched to must fetch.
//!
//! Calls that a signal interrupts are made again here; `WouldBlock` is the caller's to handle.

use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use nix::sys::stat::{Mode, umask};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, SockRef, Socket, Type};
use std::io::{self, IoSlice};
use std::net::{Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

/// How to listen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenOptions {
    /// Connections that the kernel holds until they are accepted; it caps this at `net.core.somaxconn`.
    pub backlog: u32,
    /// For an IPv6 wildcard address: IPv4 clients too.
    pub any_family: bool,
    /// SO_SNDBUF of accepted connections in bytes; `None` is the system's.
    pub send_buffer: Option<u32>,
    /// SO_RCVBUF of accepted connections in bytes; `None` is the system's.
    pub receive_buffer: Option<u32>,
    /// Another socket of ours listens on an overlapping address and has been [`share_port`]d for this bind. The new one
    /// takes its clients only after [`hear_new_connections`]; until then they see lost packets.
    pub beside: bool,
}

/// A socket that listens on `address`; accepted ones inherit TCP_NODELAY, SO_KEEPALIVE and the buffer sizes.
///
/// # Errors
/// EADDRINUSE, EACCES (a port below 1024 without root), EADDRNOTAVAIL, EAFNOSUPPORT (no IPv6).
pub fn listen(address: &SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
    let socket = stream(Domain::for_address(*address), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_keepalive(true)?;
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!options.any_family)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    socket.set_reuse_port(options.beside)?;
    socket.bind(&SockAddr::from(*address))?;
    if options.beside {
        // If that cannot be, they are queued at once, and lost if nobody comes to accept them.
        let _ = drop_new_connections(socket.as_fd());
    }
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    if options.beside {
        socket.set_reuse_port(false)?;
    }
    Ok(socket.into())
}

/// A stream socket that listens at `path`, for its owner and group (mode 0660). The file of a socket that nobody
/// answers at is replaced; any other file is left alone. The process's umask is another for a moment, so it is to be
/// called where there is one thread.
///
/// # Errors
/// EADDRINUSE if somebody answers there, or if it is no socket; ENOENT, EACCES, EROFS of the directory.
pub fn listen_unix(path: &Path, backlog: u32) -> io::Result<OwnedFd> {
    let address = SockAddr::unix(path)?;
    let bind = || -> io::Result<OwnedFd> {
        let socket = stream(Domain::UNIX, None)?;
        // The mode must hold from the first moment on.
        let mask = umask(Mode::from_bits_truncate(0o117));
        let bound = socket.bind(&address);
        umask(mask);
        bound?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(socket.into())
    };
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
            std::fs::remove_file(path)?;
            bind()
        }
        other => other,
    }
}

/// Whether what lies at `path` is a socket whose listener is gone.
fn is_left_over(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket && connect_unix(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether `fd` is a stream socket of the file system that listens.
///
/// # Errors
/// ENOTSOCK if it is no socket at all.
pub fn is_unix_listener(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let socket = SockRef::from(&fd);
    Ok(socket.domain()? == Domain::UNIX && socket.r#type()? == Type::STREAM && socket.is_listener()?)
}

/// Lets another socket of ours that says so too ([`ListenOptions::beside`]) be bound to an overlapping address, or
/// no longer.
///
/// # Errors
/// None that a listener of ours can meet.
pub fn share_port(listener: BorrowedFd<'_>, share: bool) -> io::Result<()> {
    SockRef::from(&listener).set_reuse_port(share)
}

/// Whether an IPv6 socket can be bound here.
///
/// # Errors
/// EAFNOSUPPORT or EADDRNOTAVAIL if not.
pub fn has_ipv6() -> io::Result<()> {
    stream(Domain::IPV6, Some(Protocol::TCP))?
        .bind(&SockAddr::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))))
}

/// Whether `fd` is a TCP socket that listens.
///
/// # Errors
/// ENOTSOCK if it is no socket at all.
pub fn is_tcp_listener(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let socket = SockRef::from(&fd);
    let is_inet = matches!(socket.domain()?, Domain::IPV4 | Domain::IPV6);
    Ok(is_inet && socket.r#type()? == Type::STREAM && socket.is_listener()?)
}

/// Whether a socket of IPv6 takes IPv4 clients too, if it is bound to the wildcard address.
///
/// # Errors
/// ENOTSOCK.
pub fn takes_any_family(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let socket = SockRef::from(&fd);
    Ok(socket.domain()? == Domain::IPV6 && !socket.only_v6()?)
}

/// Gives a listener that is open already, perhaps made by somebody else, what [`listen`] gives a new one, but for its
/// address: for connections to come.
///
/// # Errors
/// EINVAL if it does not listen any more.
pub fn adjust_listener(listener: BorrowedFd<'_>, options: &ListenOptions) -> io::Result<()> {
    let socket = SockRef::from(&listener);
    socket.set_nonblocking(true)?;
    socket.set_keepalive(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))
}

/// Makes a listener hear new connections again after [`drop_new_connections`].
///
/// # Errors
/// ENOENT if it was not deaf.
pub fn hear_new_connections(listener: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&listener).detach_filter()
}

/// The next connection of `listener`, and who is at its other end.
///
/// # Errors
/// `WouldBlock` if there is none; EMFILE, ENFILE, ENOBUFS, ENOMEM if the machine is short of something; the
/// connection's own fault (ECONNABORTED, EPROTO and the network's) if it died in the queue.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    let (socket, peer) = accept_any(listener)?;
    Ok((socket, peer.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?))
}

/// As [`accept`], for listeners of any family; only one of the internet tells who is there.
///
/// # Errors
/// As [`accept`].
pub fn accept_any(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    loop {
        let mut accepted = -1;
        let fill = |storage: *mut SockAddrStorage, length: *mut libc::socklen_t| {
            // SAFETY: `try_init` hands in a storage that any address fits, and its length.
            accepted = unsafe { libc::accept4(listener.as_raw_fd(), storage.cast(), length, flags) };
            if accepted < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: `fill` either fails or has had the kernel write an address and its length.
        let address = unsafe { SockAddr::try_init(fill) };
        let address = match address {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?.1,
        };
        // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(accepted) };
        return Ok((socket, address.as_socket()));
    }
}

/// How far a connect has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Connecting {
    /// Connected.
    Done,
    /// The socket becomes writable when it is decided; then ask [`connect_outcome`].
    InProgress,
}

/// Begins to connect to `address`, with TCP_NODELAY, and SO_KEEPALIVE if `keepalive`.
///
/// # Errors
/// What connect(2) says at once: ECONNREFUSED on loopback, ENETUNREACH, EADDRNOTAVAIL (no local port left).
pub fn connect_tcp(address: &SocketAddr, keepalive: bool) -> io::Result<(OwnedFd, Connecting)> {
    let socket = stream(Domain::for_address(*address), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if keepalive {
        socket.set_keepalive(true)?;
    }
    connect(socket, &SockAddr::from(*address))
}

/// Begins to connect to the stream socket at `path`.
///
/// # Errors
/// ENOENT, ECONNREFUSED, EACCES; `WouldBlock` if its backlog is full, which nothing will tell the end of.
pub fn connect_unix(path: &Path) -> io::Result<(OwnedFd, Connecting)> {
    let address = SockAddr::unix(path)?;
    connect(stream(Domain::UNIX, None)?, &address)
}

fn connect(socket: Socket, address: &SockAddr) -> io::Result<(OwnedFd, Connecting)> {
    let progress = match socket.connect(address) {
        Ok(()) => Connecting::Done,
        // An interrupted connect goes on by itself, as one in progress does.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            Connecting::InProgress
        }
        Err(error) => return Err(error),
    };
    Ok((socket.into(), progress))
}

/// How a connect ended that was in progress; `WouldBlock` if it has not. Asking takes the answer away.
///
/// # Errors
/// Why it failed.
pub fn connect_outcome(fd: BorrowedFd<'_>) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

/// recv(2) into `buf`; 0 is the other side's end.
///
/// # Errors
/// `WouldBlock`, or why the connection is broken.
pub fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::net::recv(fd, &mut *buf, RecvFlags::DONTWAIT))?.0)
}

/// As [`recv`], but waits for the first byte, as long as [`Waiting::allow`] has said.
///
/// # Errors
/// `WouldBlock` after that time, `Interrupted` by a signal, or why the connection is broken.
pub fn recv_waiting(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(fd, buf, RecvFlags::empty())?.0)
}

/// Whether reads from a socket may wait: not as it is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    is_allowed: bool,
    has_limit: bool,
}

impl Waiting {
    /// Lets [`recv_waiting`] wait for up to `limit`, the same each time, on `fd`. It is blocking from now on: calls outside
    /// this room, such as splice(2), would wait for ever.
    ///
    /// # Errors
    /// If a filter on calls is against it.
    pub fn allow(&mut self, fd: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
        if !self.has_limit {
            SockRef::from(&fd).set_read_timeout(Some(limit))?;
            self.has_limit = true;
        }
        if !self.is_allowed {
            rustix::io::ioctl_fionbio(fd, false)?;
            self.is_allowed = true;
        }
        Ok(())
    }

    /// No call on `fd` waits from now on.
    ///
    /// # Errors
    /// As [`Waiting::allow`].
    pub fn forbid(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.is_allowed {
            rustix::io::ioctl_fionbio(fd, true)?;
            self.is_allowed = false;
        }
        Ok(())
    }
}

/// What a look at a connection shows, without taking anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peek {
    /// Open, and nothing to read.
    Quiet,
    /// Bytes wait.
    Readable,
    /// The other side has closed or reset it.
    Closed,
}

/// Looks whether a connection has bytes or has been closed, without taking anything.
///
/// # Errors
/// Any but those that mean a broken connection, which are [`Peek::Closed`].
pub fn peek(fd: BorrowedFd<'_>) -> io::Result<Peek> {
    let mut byte = [0];
    match retry_on_intr(|| rustix::net::recv(fd, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT)) {
        Ok((0, _)) => Ok(Peek::Closed),
        Ok(_) => Ok(Peek::Readable),
        Err(Errno::AGAIN) => Ok(Peek::Quiet),
        Err(Errno::CONNRESET | Errno::TIMEDOUT | Errno::PIPE | Errno::HOSTUNREACH | Errno::NETUNREACH) => {
            Ok(Peek::Closed)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a connection is open and has nothing to read.
#[must_use]
pub fn is_quiet(fd: BorrowedFd<'_>) -> bool {
    matches!(peek(fd), Ok(Peek::Quiet))
}

const SEND: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// send(2) of `bytes` without SIGPIPE; returns how many the kernel took.
///
/// # Errors
/// `WouldBlock`, `BrokenPipe`, `ConnectionReset`, or why else the connection is broken.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::net::send(fd, bytes, SEND))?)
}

/// sendmsg(2) of `parts` without SIGPIPE; returns how many bytes the kernel took.
///
/// # Errors
/// As [`send`].
pub fn send_vectored(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut nothing_else = SendAncillaryBuffer::default();
    Ok(retry_on_intr(|| rustix::net::sendmsg(fd, parts, &mut nothing_else, SEND))?)
}

/// Says that no more will be written; the other side may go on.
///
/// # Errors
/// `NotConnected` if the connection is gone already.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).shutdown(Shutdown::Write)
}

/// Has the close of this connection reset it instead of ending it in order: the other side must not take what it
/// has got for the whole.
///
/// # Errors
/// None that matters: the close is orderly then.
pub fn reset_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_linger(Some(Duration::ZERO))
}

/// Our own end's address: for a listener on port 0, the port that the kernel chose.
///
/// # Errors
/// For a socket that is not of the internet.
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    SockRef::from(&fd).local_addr()?.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}

/// Two connected sockets that keep the borders of messages (SOCK_SEQPACKET): orders go over them.
///
/// # Errors
/// If no descriptor is left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(nix::sys::socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Makes a listener deaf to new connections (they see lost packets and try again), while those under way are
/// still completed: so that it can be accepted empty, then closed, and nobody is reset.
///
/// # Errors
/// EPERM where the filter has been locked.
pub fn drop_new_connections(listener: BorrowedFd<'_>) -> io::Result<()> {
    // Classic BPF; the packet begins with the TCP header, whose byte 13 holds the flags.
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let op = |code: u32, jump_false: u8, k: u32| {
        SockFilter::new(u16::try_from(code).expect("BPF codes have 16 bits"), 0, jump_false, k)
    };
    let filter = [
        op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 13),
        op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, SYN | ACK),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, SYN),
        op(libc::BPF_RET | libc::BPF_K, 0, 0),
        op(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
    ];
    SockRef::from(&listener).attach_filter(&filter)
}

/// Ends a listener for every process that holds it: from now on connections are refused, and what is still
/// queued is reset.
///
/// # Errors
/// `NotConnected` if it has been shut already.
pub fn shut_listener(listener: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&listener).shutdown(Shutdown::Read)
}

fn stream(domain: Domain, protocol: Option<Protocol>) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM.nonblocking(), protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{self, Seen, Wish};
    use crate::sys::time;
    use std::os::fd::AsFd;

    const OPTIONS: ListenOptions = ListenOptions {
        backlog: 16,
        any_family: false,
        send_buffer: None,
        receive_buffer: None,
        beside: false,
    };

    fn until(fd: &OwnedFd, write: bool) {
        let wish = Wish { fd: fd.as_fd(), read: !write, write };
        poll::wait(&[wish], None, &mut [Seen::default()]).unwrap();
    }

    fn connected() -> (OwnedFd, OwnedFd) {
        let listener = listen(&"127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let address = local_address(listener.as_fd()).unwrap();
        assert_ne!(address.port(), 0);
        let (client, progress) = connect_tcp(&address, true).unwrap();
        if progress == Connecting::InProgress {
            until(&client, true);
        }
        connect_outcome(client.as_fd()).unwrap();
        until(&listener, false);
        let (server, peer) = accept(listener.as_fd()).unwrap();
        assert_eq!(peer, local_address(client.as_fd()).unwrap());
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        (client, server)
    }

    #[test]
    fn accepted_sockets_inherit_what_the_listener_was_told() {
        let (_client, server) = connected();
        let server = SockRef::from(&server);
        assert!(server.tcp_nodelay().unwrap());
        assert!(server.keepalive().unwrap());
        assert!(server.nonblocking().unwrap());
    }

    #[test]
    fn bytes_and_ends_arrive() {
        let (client, server) = connected();
        let mut bytes = [0; 16];
        assert_eq!(recv(server.as_fd(), &mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(peek(server.as_fd()).unwrap(), Peek::Quiet);

        assert_eq!(send(client.as_fd(), b"one ").unwrap(), 4);
        let parts = [IoSlice::new(b"two "), IoSlice::new(b"three")];
        assert_eq!(send_vectored(client.as_fd(), &parts).unwrap(), 9);
        shutdown_write(client.as_fd()).unwrap();
        until(&server, false);
        assert_eq!(peek(server.as_fd()).unwrap(), Peek::Readable);
        let mut read = Vec::new();
        loop {
            match recv(server.as_fd(), &mut bytes) {
                Ok(0) => break,
                Ok(count) => read.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => until(&server, false),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(read, b"one two three");
        assert_eq!(peek(server.as_fd()).unwrap(), Peek::Closed);
    }

    #[test]
    fn no_call_but_one_waits_where_reads_may() {
        let (client, server) = connected();
        let is_too_early =
            |outcome: io::Result<usize>| outcome.unwrap_err().kind() == io::ErrorKind::WouldBlock;
        let mut bytes = [0; 16];
        assert!(
            is_too_early(recv_waiting(server.as_fd(), &mut bytes)),
            "not before it is said that they may"
        );
        let mut waiting = Waiting::default();
        waiting.allow(server.as_fd(), Duration::from_millis(20)).unwrap();
        let begin = time::now();
        assert!(is_too_early(recv_waiting(server.as_fd(), &mut bytes)));
        assert!(time::now().micros_since(begin) >= 20_000, "it has waited");

        let (tell, told) = std::sync::mpsc::channel();
        let mut nothing = [0; 16];
        std::thread::spawn(move || {
            let long = Duration::from_secs(600);
            Waiting::default().allow(client.as_fd(), long).unwrap();
            assert!(is_too_early(recv(client.as_fd(), &mut nothing)));
            assert_eq!(peek(client.as_fd()).unwrap(), Peek::Quiet);
            // Until nothing more goes in.
            let piece = [7; 65536];
            while send(client.as_fd(), &piece).is_ok() {}
            assert!(is_too_early(send(client.as_fd(), &piece)));
            assert!(is_too_early(send_vectored(
                client.as_fd(),
                &[IoSlice::new(&piece), IoSlice::new(&piece)]
            )));
            tell.send(client).unwrap();
        });
        let client = told.recv_timeout(Duration::from_secs(60)).expect("a call has waited, or failed");
        assert!(recv_waiting(server.as_fd(), &mut bytes).unwrap() > 0);
        drop(client);

        let (client, server) = connected();
        waiting = Waiting::default();
        waiting.allow(server.as_fd(), Duration::from_secs(600)).unwrap();
        waiting.forbid(server.as_fd()).unwrap();
        assert!(is_too_early(recv_waiting(server.as_fd(), &mut bytes)), "not once it is forbidden");
        waiting.allow(server.as_fd(), Duration::from_secs(600)).unwrap();
        std::thread::spawn(move || send(client.as_fd(), b"at last").unwrap());
        assert_eq!(recv_waiting(server.as_fd(), &mut bytes).unwrap(), 7, "bytes end the wait");
    }

    #[test]
    fn a_refused_connection_says_so() {
        let listener = listen(&"127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let address = local_address(listener.as_fd()).unwrap();
        drop(listener);
        let refused = match connect_tcp(&address, false) {
            Err(error) => error,
            Ok((fd, Connecting::Done)) => panic!("connected to nobody: {fd:?}"),
            Ok((fd, Connecting::InProgress)) => {
                until(&fd, true);
                connect_outcome(fd.as_fd()).unwrap_err()
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let missing = connect_unix(Path::new("/nonexistent/socket")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_taken_address_is_refused() {
        let listener = listen(&"127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let address = local_address(listener.as_fd()).unwrap();
        assert_eq!(listen(&address, &OPTIONS).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_pair_keeps_messages_apart() {
        let (one, other) = pair().unwrap();
        assert_eq!(send(one.as_fd(), b"first").unwrap(), 5);
        assert_eq!(send(one.as_fd(), b"second").unwrap(), 6);
        let mut bytes = [0; 16];
        assert_eq!(recv(other.as_fd(), &mut bytes).unwrap(), 5);
        assert_eq!(recv(other.as_fd(), &mut bytes).unwrap(), 6);
        drop(one);
        assert_eq!(recv(other.as_fd(), &mut bytes).unwrap(), 0);
    }

    #[test]
    fn a_shut_listener_refuses_although_somebody_holds_it() {
        let listener = listen(&"127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let address = local_address(listener.as_fd()).unwrap();
        let held_elsewhere = listener.try_clone().unwrap();
        drop_new_connections(listener.as_fd()).unwrap();
        shut_listener(listener.as_fd()).unwrap();
        let refused = match connect_tcp(&address, false) {
            Err(error) => error,
            Ok((fd, _)) => {
                until(&fd, true);
                connect_outcome(fd.as_fd()).unwrap_err()
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(accept(held_elsewhere.as_fd()).is_err());
        assert!(shut_listener(listener.as_fd()).is_err());
    }

    #[test]
    fn a_deaf_listener_still_hands_out_what_was_queued() {
        let listener = listen(&"127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let address = local_address(listener.as_fd()).unwrap();
        let (early, _) = connect_tcp(&address, false).unwrap();
        until(&early, true);
        drop_new_connections(listener.as_fd()).unwrap();
        let (_late, progress) = connect_tcp(&address, false).unwrap();
        assert_eq!(progress, Connecting::InProgress, "its first packet is lost");
        until(&listener, false);
        let (server, _) = accept(listener.as_fd()).unwrap();
        assert_eq!(send(early.as_fd(), b"served").unwrap(), 6);
        until(&server, false);
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_socket_file_is_replaced_only_if_nobody_answers_there() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("status");
        let first = listen_unix(&path, 4).unwrap();
        assert!(is_unix_listener(first.as_fd()).unwrap() && !is_tcp_listener(first.as_fd()).unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let (client, _) = connect_unix(&path).unwrap();
        let (server, peer) = accept_any(first.as_fd()).unwrap();
        assert_eq!(peer, None);
        assert_eq!(send(client.as_fd(), b"x").unwrap(), 1);
        assert_eq!(recv(server.as_fd(), &mut [0; 4]).unwrap(), 1);
        assert_eq!(listen_unix(&path, 4).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(connect_unix(&path).is_ok(), "the first still listens");
        drop(first);
        let second = listen_unix(&path, 4).unwrap();
        assert!(connect_unix(&path).is_ok());
        drop(second);
        let file = home.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(listen_unix(&file, 4).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }
}
