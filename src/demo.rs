//! `ostler demo`: the proxy, in front of a small origin server of its own.
//!
//! Runs through a configuration text like any other daemon, which `--print-config` shows. Binds nothing but
//! loopback, writes no file, and leaves no process behind.

pub mod origin;

use crate::config::model::Mpm;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// What stands in for the origin's address where the text is shown and no origin runs.
const SOME_APPLICATION: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3000);

/// The name that faults and the log give to the text.
pub const NAME: &str = "the demo's configuration";

/// The configuration of a demo that listens on `listen` in front of `origin`; `root`: for a master that is root.
#[must_use]
pub fn config_text(mpm: Mpm, listen: SocketAddr, origin: SocketAddr, root: bool) -> String {
    let mpm = mpm.name();
    // By number, since the group has one name here and another there.
    let user = if root { "User #65534\nGroup #65534\n" } else { "" };
    format!(
        "# What \"ostler demo\" does.\n\
         MPM {mpm}\n\
         Listen {listen}\n\
         ServerName {host}\n\
         {user}\
         PidFile none\n\
         ScoreBoardFile none\n\
         ErrorLog /dev/stderr\n\
         \n\
         # What each worker is doing. The page is ours, so its path is kept from the origin.\n\
         ProxyPass /server-status !\n\
         <Location /server-status>\n\
         \x20   SetHandler server-status\n\
         \x20   Require local\n\
         </Location>\n\
         \n\
         ProxyPass / http://{origin}/\n\
         ProxyPassReverse / http://{origin}/\n",
        host = listen.ip(),
    )
}

/// The text for `--print-config`: with the port that was wished for, and an application's usual port in the
/// place of the built-in origin.
#[must_use]
pub fn shown_config(mpm: Mpm, port: u16, root: bool) -> String {
    let text = config_text(mpm, (Ipv4Addr::LOCALHOST, port).into(), SOME_APPLICATION, root);
    format!("{text}# The demo's own origin listens on a free port; put your application's here.\n")
}

/// Where the demo listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// On 127.0.0.1.
    pub address: SocketAddr,
    /// Whether the wished-for port was taken, so that this is another.
    pub instead: bool,
}

/// `port` on 127.0.0.1 if it can be had, else a free one.
///
/// The port is free again when this returns, for the master to bind. Somebody else may be faster; then the start
/// fails with the sentence that any taken port earns.
///
/// # Errors
/// If the port may not be bound at all (below 1024 without root), or loopback has none left.
pub fn choose_port(port: u16) -> io::Result<Place> {
    let probe = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr();
    match probe(port) {
        Ok(address) => Ok(Place { address, instead: false }),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Ok(Place { address: probe(0)?, instead: true })
        }
        Err(error) => Err(error),
    }
}

/// What the demo says once it serves.
#[must_use]
pub fn greeting(mpm: Mpm, place: Place, wished: u16, origin: SocketAddr) -> String {
    let base = format!("http://{}", place.address);
    let instead =
        if place.instead { format!("Port {wished} is taken; this one is free.\n") } else { String::new() };
    let width = base.len() + "/server-status".len();
    let line = |path: &str, what: &str| format!("  {:<width$}  {what}\n", format!("{base}{path}"));
    format!(
        "Ostler {version} ({mpm}) serves on {address}, in front of a small origin on {origin}.\n{instead}\n{root}{slow}\
         {status}\nTry the second in a few tabs and look at the third. Ctrl-C ends the demo.\n",
        version = env!("CARGO_PKG_VERSION"),
        mpm = mpm.name(),
        address = place.address,
        root = line("/", "a page that shows the request as it reached the origin"),
        slow = line("/slow", "an answer that takes two seconds"),
        status = line("/server-status", "what each worker is doing"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Handler;
    use crate::config::{self, Options};

    #[test]
    fn the_text_is_a_configuration_without_a_complaint() {
        for mpm in [Mpm::Event, Mpm::Worker, Mpm::Prefork] {
            let listen: SocketAddr = "127.0.0.1:8080".parse().unwrap();
            for text in [
                config_text(mpm, listen, SOME_APPLICATION, false),
                config_text(mpm, listen, SOME_APPLICATION, true),
                shown_config(mpm, 8080, false),
            ] {
                let loaded = config::from_text(NAME, &text, &Options::default())
                    .unwrap_or_else(|faults| panic!("{}", faults.render(false)));
                assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
                let config = loaded.config;
                assert_eq!(config.mpm, mpm);
                assert_eq!(config.listen.iter().map(|listen| listen.address).collect::<Vec<_>>(), [listen]);
                assert_eq!(config.hosts[0].locations[0].handler, Some(Handler::ServerStatus));
                assert_eq!((config.pid_file, config.scoreboard_file), (None, None));
            }
        }
    }

    #[test]
    fn a_taken_port_is_replaced() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let holder = TcpListener::bind(taken).unwrap();
        let place = choose_port(taken.port()).unwrap();
        assert!(place.instead && place.address.ip().is_loopback() && place.address != taken);
        let text = greeting(Mpm::Event, place, taken.port(), SOME_APPLICATION);
        assert!(text.contains(&format!("Port {} is taken", taken.port())), "{text}");
        assert!(text.contains(&format!("http://{}/slow ", place.address)), "{text}");
        drop(holder);
        assert!(!choose_port(0).unwrap().instead);
    }
}
