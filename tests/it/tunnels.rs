//! WebSockets with a client and a server that neither know of each other's proxy nor are ours.

use crate::support::{Daemon, Mpm, descriptors, pattern, wait_until};
use nix::sys::signal::Signal;
use ostler::scoreboard::snapshot::Snapshot;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tungstenite::{Message, WebSocket};

/// A server that echoes text and binary messages, and answers an ordinary request as its library does: with a 400.
/// Its threads end with their connections.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let address = listener.local_addr().expect("bound");
    spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            spawn(move || {
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while let Ok(message) = socket.read() {
                    if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A thread with a stack that a thousand of can be had.
fn spawn(body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(256 * 1024).spawn(body).expect("the machine has room for a thread");
}

fn open(daemon: &Daemon, target: &str) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(daemon.address()).expect("the daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket has one");
    let (socket, response) =
        tungstenite::client(format!("ws://test{target}"), stream).expect("the switch is made");
    assert_eq!(response.status(), 101);
    socket
}

fn assert_echoes(socket: &mut WebSocket<TcpStream>, message: Message) {
    socket.send(message.clone()).expect("sent");
    assert_eq!(socket.read().expect("an echo"), message);
}

under_each_mpm! {
    fn a_websocket_says_the_same_through_the_daemon(mpm) {
        let daemon = Daemon::under(mpm, &format!("ProxyPass /chat http://{}/", echo_server()));
        let mut socket = open(&daemon, "/chat");
        assert_echoes(&mut socket, Message::text("hello"));
        assert_echoes(&mut socket, Message::text(""));
        assert_echoes(&mut socket, Message::binary(pattern(1_000_000, 7)));
        socket.send(Message::Ping("are you there".into())).expect("sent");
        assert_eq!(socket.read().expect("an answer"), Message::Pong("are you there".into()));
        // Both ends say goodbye, and then the connections end.
        socket.close(None).expect("sent");
        assert!(socket.read().is_ok_and(|message| message.is_close()));
        assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
    }
}

under_each_mpm! {
    fn what_a_client_sends_after_its_server_has_ended_arrives_to_the_last_byte(mpm) {
        const LENGTH: usize = 20_000_000;
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
        let server = listener.local_addr().expect("bound");
        let (tell, told) = mpsc::channel();
        spawn(move || {
            let (mut stream, _) = listener.accept().expect("the daemon connects");
            read_head(&mut stream);
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(answer).expect("it listens");
            stream.shutdown(Shutdown::Write).expect("it is open");
            // Slower than the client: its last byte is with the daemon when much before it is still to come.
            let (mut count, mut piece) = (0, vec![0; 100_000]);
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                count += length;
                thread::sleep(Duration::from_millis(2));
            }
            let _ = tell.send(count);
        });
        let daemon = Daemon::under(mpm, &format!("ProxyPass /chat http://{server}/"));
        let mut client = TcpStream::connect(daemon.address()).expect("the daemon listens");
        client.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket has one");
        let request = b"GET /chat HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.write_all(request).expect("it listens");
        assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
        assert_eq!(client.read(&mut [0]).expect("the server's end is passed on"), 0);
        client.write_all(&pattern(LENGTH, 1)).expect("the server reads");
        client.shutdown(Shutdown::Write).expect("it is open");
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(LENGTH));
    }
}

/// A head, and not a byte more.
fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (String::new(), [0]);
    while !head.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(char::from(byte[0]));
    }
    head
}

#[test]
fn a_thousand_tunnels_hold_no_worker_and_live_through_a_reload() {
    // Four descriptors a tunnel: the client's and the server's are this program's, the other two the child's.
    let room = usize::try_from(descriptors()).unwrap_or(usize::MAX);
    assert!(
        room >= 2500,
        "a limit of {room} descriptors leaves no room for a thousand tunnels; raise ulimit -n"
    );
    let text = format!(
        "{}ThreadsPerChild 25\nMaxRequestWorkers 25\nProxyPass /chat http://{}/ max=2000\n",
        "StartServers 1\nMinSpareThreads 1\n",
        echo_server()
    );
    let daemon = Daemon::under(Mpm::Event, &text);
    let mut sockets: Vec<_> = (0..1000).map(|_| open(&daemon, "/chat")).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        assert_echoes(socket, Message::text(format!("before {number}")));
    }
    let status = daemon.wait_for_status("no worker held", |status| status.busy == 0);
    assert_eq!(status.idle, 25, "{}", status.text);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("] serving generation 2");
    assert_eq!(daemon.get("/none").status, 404, "there are workers for others");
    for (number, socket) in sockets.iter_mut().enumerate() {
        assert_echoes(socket, Message::text(format!("after {number}")));
    }
}

/// Bytes from clients and to clients, as the scoreboard tells them to those who ask nothing of the daemon.
fn counted(daemon: &Daemon) -> (u64, u64) {
    let board = daemon.home().path("scoreboard");
    let totals = Snapshot::read(&board).expect("a daemon's scoreboard can always be read").totals;
    (totals.bytes_in, totals.bytes_out)
}

under_each_mpm! {
    fn what_passes_through_a_tunnel_is_counted_while_it_does(mpm) {
        const LENGTH: usize = 10 * 1024 * 1024;
        let text = format!("{}ProxyPass /chat http://{}/", mpm.one_child(), echo_server());
        let daemon = Daemon::under(mpm, &text);
        let mut socket = open(&daemon, "/chat");
        let pass = |socket: &mut WebSocket<TcpStream>| {
            (0..10).for_each(|number| assert_echoes(socket, Message::binary(pattern(LENGTH / 10, number))));
        };
        let wait_for = |rounds: u64| {
            let least = rounds * LENGTH as u64;
            let told = wait_until("the tunnel's bytes", || {
                Some(counted(&daemon)).filter(|(bytes_in, bytes_out)| *bytes_in.min(bytes_out) >= least)
            });
            // The heads, and what frames the messages; nothing is told twice.
            let most = least + 16 * 1024;
            assert!(told.0 <= most && told.1 <= most, "{told:?} after {rounds} rounds");
        };
        pass(&mut socket);
        wait_for(1);
        pass(&mut socket);
        socket.close(None).expect("sent");
        while socket.read().is_ok() {}
        wait_for(2);
    }

    fn a_child_that_ends_with_its_last_tunnel_has_counted_its_bytes(mpm) {
        const LENGTH: usize = 1024 * 1024;
        let text = format!("{}ProxyPass /chat http://{}/", mpm.one_child(), echo_server());
        let daemon = Daemon::under(mpm, &text);
        let child = daemon.children()[0];
        let mut socket = open(&daemon, "/chat");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("] serving generation 2");
        assert_echoes(&mut socket, Message::binary(pattern(LENGTH, 1)));
        drop(socket);
        wait_until("the former child to go", || (!daemon.children().contains(&child)).then_some(()));
        let (bytes_in, bytes_out) = counted(&daemon);
        assert!(bytes_in.min(bytes_out) >= LENGTH as u64, "{bytes_in} in, {bytes_out} out");
    }
}
