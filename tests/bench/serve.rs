//! How the programs of the bench begin: on a free port of loopback, which they print.

use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;

/// Somebody connects.
pub const LISTENER: Token = Token(usize::MAX - 1);
/// Standard input is at its end: whoever started the program wants no more of it.
pub const STDIN: Token = Token(usize::MAX - 2);

/// Listens, says where, and watches for both.
pub fn begin() -> io::Result<(Poll, TcpListener)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(socket.into());
    println!("{}", listener.local_addr()?);
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut SourceFd(&0), STDIN, Interest::READABLE)?;
    Ok((poll, listener))
}
