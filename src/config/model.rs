//! What the daemon obeys, once every word of the configuration has been read and checked.
//!
//! No invalid value has a type here, and nobody downstream checks again. Built by `check`, completed by the
//! master with what only a machine can tell (addresses of names, numeric user and group), then never changed:
//! children inherit it by fork.

use super::pattern::ShellPattern;
use crate::ids::{BackendId, HostId, LogTargetId};
use crate::log::format::LogFormat;
use crate::log::line::LogLevels;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

/// A whole configuration, valid in itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// The driver: `MPM`, `LoadModule mpm_*_module`, or what the file's `IfModule` sections imply.
    pub mpm: Mpm,
    /// How many children and threads, after all clamps.
    pub limits: ChildLimits,
    /// `ServerRoot`: what relative paths start from.
    pub server_root: PathBuf,
    /// `PidFile`, absolute. `None` in the one-liner and the demo, which need no file.
    pub pid_file: Option<PathBuf>,
    /// `ScoreBoardFile`, absolute. `None`: an unnamed one that only our own processes see.
    pub scoreboard_file: Option<PathBuf>,
    /// `User`, as written (a name or `#number`). The master resolves it.
    pub user: Option<String>,
    /// `Group`, as written.
    pub group: Option<String>,
    /// `Listen`, in the order of the file; at least one; no two equal.
    pub listen: Vec<Listen>,
    /// `StatusListen`, in the order of the file; no two overlap each other or a `Listen`.
    pub status_listen: Vec<StatusListen>,
    /// `ListenBacklog`, at least 1; the kernel caps it at `net.core.somaxconn`.
    pub listen_backlog: u32,
    /// `SendBufferSize` in bytes; `None` leaves it to the system.
    pub send_buffer: Option<u32>,
    /// `ReceiveBufferSize` in bytes; `None` leaves it to the system.
    pub receive_buffer: Option<u32>,
    /// `CoreDumpDirectory`: where a child that crashes leaves its core.
    pub core_dump_directory: Option<PathBuf>,
    /// `ErrorLog` of the main server.
    pub error_log: LogTargetId,
    /// Every file, program or stream that some log goes to, once each.
    pub log_targets: Vec<LogTarget>,
    /// `GracefulShutdownTimeout`; `None` (written as 0) waits for ever.
    pub graceful_shutdown_timeout: Option<Duration>,
    /// `GracefulReloadTimeout`; `None` (written as 0) waits for ever.
    pub graceful_reload_timeout: Option<Duration>,
    /// `ChildStallTimeout`: a child that does not answer the master's ping for so long is replaced.
    pub child_stall_timeout: Duration,
    /// `ExtendedStatus`: whether rows show client, request, times and bytes.
    pub extended_status: bool,
    /// `HandOver`: connections between two requests move from leaving or full children to others (event).
    pub hand_over: bool,
    /// `SeeRequestTail`: rows keep the end of a long request line instead of its beginning.
    pub see_request_tail: bool,
    /// `ServerTokens`: how much our own responses tell in `Server`.
    pub server_tokens: ServerTokens,
    /// The virtual hosts; `hosts[0]` is the main server, which answers where no other matches the address.
    pub hosts: Vec<VirtualHost>,
    /// Every server behind us, once per address and set of parameters.
    pub backends: Vec<Backend>,
}

impl Config {
    /// The host of `id`.
    #[must_use]
    pub fn host(&self, id: HostId) -> &VirtualHost {
        &self.hosts[id.index()]
    }

    /// The backend of `id`.
    #[must_use]
    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[id.index()]
    }
}

/// Multi-Processing Module: who waits for whom.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mpm {
    /// Leader and followers on one poll; the default.
    Event,
    /// A thread to a connection.
    Worker,
    /// A process to a connection.
    Prefork,
}

impl Mpm {
    /// The word used in the configuration, the logs and the status page.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Worker => "worker",
            Self::Prefork => "prefork",
        }
    }
}

/// The sizing directives after all clamps (httpd's section "MPM common directives").
///
/// A *worker* is a thread's worth of work; under prefork `threads_per_child` is 1, so that a child is a
/// worker and `MinSpareServers` reads as `min_spare`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChildLimits {
    /// `StartServers`: children forked at start, `1..=max_children`.
    pub start: u32,
    /// `ServerLimit`: the most children of one generation that the scoreboard has room for.
    pub server_limit: u32,
    /// `ThreadLimit`: worker rows per slot. 1 under prefork.
    pub thread_limit: u32,
    /// `ThreadsPerChild`, `1..=thread_limit`. 1 under prefork.
    pub threads_per_child: u32,
    /// `MaxRequestWorkers`, a multiple of `threads_per_child`.
    pub max_request_workers: u32,
    /// `MinSpareThreads` or `MinSpareServers`, in workers, at most `max_request_workers`.
    pub min_spare: u32,
    /// `MaxSpareThreads` or `MaxSpareServers`, in workers, above `min_spare + threads_per_child`.
    pub max_spare: u32,
    /// `MaxConnectionsPerChild`: connections after which a child is replaced; `None` never.
    pub max_connections_per_child: Option<NonZeroU64>,
    /// `MaxRequestsPerChild`: requests after which a child is replaced; `None` never.
    pub max_requests_per_child: Option<NonZeroU64>,
    /// `MaxConnectionsPerProcess` (event): open client connections of one child; `None`: from RLIMIT_NOFILE.
    pub max_connections_per_process: Option<NonZeroU32>,
    /// `ThreadStackSize` in bytes; `None` is the system's.
    pub thread_stack_size: Option<usize>,
}

impl ChildLimits {
    /// The most children of one generation: MaxRequestWorkers / ThreadsPerChild.
    #[must_use]
    pub fn max_children(&self) -> u32 {
        self.max_request_workers / self.threads_per_child
    }

    /// Slots of the scoreboard: twice ServerLimit, so that a reload always finds room.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.server_limit * 2
    }
}

/// One `Listen` line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listen {
    /// Where; `[::]:80` stands for `Listen 80` where the kernel maps IPv4 into IPv6. Port 0 asks the kernel.
    pub address: SocketAddr,
    /// Whether the line named no address, so that IPv4 alone will do on a machine without IPv6.
    pub any_family: bool,
}

/// One `StatusListen` line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StatusListen {
    /// An address. A line that names a port alone means 127.0.0.1.
    Tcp(Listen),
    /// A stream socket in the file system, absolute, at most 107 bytes.
    Unix(PathBuf),
}

impl fmt::Display for StatusListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listen) => listen.address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where lines of a log go.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum LogTarget {
    /// A file, absolute, opened for appending by the master.
    File(PathBuf),
    /// A program that reads lines from its standard input (`"|command"`), started by the master.
    Program(String),
    /// The standard error stream (also what `/dev/stderr` means).
    Stderr,
    /// The standard output stream (`/dev/stdout`).
    Stdout,
}

/// `ServerTokens`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServerTokens {
    /// `Ostler/0.1.0 (Unix)`, as `OS` and `Full`.
    Full,
    /// `Ostler/0.1.0`
    Minimal,
    /// `Ostler/0.1`
    Minor,
    /// `Ostler/0`
    Major,
    /// `Ostler`
    ProductOnly,
}

impl ServerTokens {
    /// What we call ourselves in Server.
    #[must_use]
    pub fn product(self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let mut parts = version.split('.');
        let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
        match self {
            Self::Full => format!("Ostler/{version} (Unix)"),
            Self::Minimal => format!("Ostler/{version}"),
            Self::Minor => format!("Ostler/{major}.{minor}"),
            Self::Major => format!("Ostler/{major}"),
            Self::ProductOnly => "Ostler".to_owned(),
        }
    }
}

/// A virtual host, or the main server; what it does not set it has inherited from the main server.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// The addresses of `<VirtualHost …>`; empty for the main server.
    pub addresses: Vec<HostAddress>,
    /// `ServerName`, lower case, without port.
    pub name: String,
    /// The port of `ServerName`, if it named one.
    pub port: Option<u16>,
    /// `ServerAlias`, lower case; `*` and `?` are wildcards.
    pub aliases: Vec<String>,
    /// `Timeout`: each wait for the client while a request or response is under way.
    pub timeout: Duration,
    /// `ProxyTimeout`: each wait for a backend that sets no `timeout` itself.
    pub proxy_timeout: Duration,
    /// `KeepAlive`, `KeepAliveTimeout`, `MaxKeepAliveRequests`.
    pub keep_alive: KeepAlive,
    /// `RequestReadTimeout`.
    pub read_timeout: ReadTimeouts,
    /// `LimitRequest*`.
    pub limits: RequestLimits,
    /// `CustomLog`s, in order.
    pub access_logs: Vec<AccessLog>,
    /// `ErrorLog`, or the main server's.
    pub error_log: LogTargetId,
    /// `LogLevel`.
    pub log_levels: LogLevels,
    /// `ProxyPass` outside of sections: the main server's first, then the host's; the first match wins.
    pub rules: Vec<ProxyRule>,
    /// `ProxyPassReverse` outside of sections, in order; the first match wins.
    pub reverse: Vec<ReverseRule>,
    /// `ProxyPreserveHost`, `ProxyAddHeaders`, `ProxyVia`.
    pub forwarding: Forwarding,
    /// `<Location>` and `<LocationMatch>`, in the order of the file, the main server's first; of several that
    /// match, a later one's settings win.
    pub locations: Vec<Location>,
}

/// One address of `<VirtualHost addr:port …>`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HostAddress {
    /// `None` for `*`, `_default_` and the unspecified addresses.
    pub ip: Option<IpAddr>,
    /// `None` for `:*` or no port.
    pub port: Option<u16>,
}

/// Keeping client connections open between requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeepAlive {
    /// `KeepAlive On`.
    pub enabled: bool,
    /// `KeepAliveTimeout`: how long a connection may stay idle.
    pub timeout: Duration,
    /// `MaxKeepAliveRequests`; `None` (written as 0) is without limit.
    pub max_requests: Option<NonZeroU32>,
}

/// `RequestReadTimeout header=… body=…`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReadTimeouts {
    /// For a whole request head, from the first byte (from accept for the first request).
    pub header: ReadTimeout,
    /// For a whole request body.
    pub body: ReadTimeout,
}

/// `start[-max][,MinRate=rate]`: `start` to begin with, one second more per `min_rate` bytes, never above `max`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReadTimeout {
    /// `None` (written as 0) is without limit.
    pub start: Option<Duration>,
    /// The most that the bytes can extend it to; `None` without limit.
    pub max: Option<Duration>,
    /// Bytes per second that keep it going; `None`: bytes do not extend it.
    pub min_rate: Option<NonZeroU32>,
}

/// `LimitRequest*`: breaches earn 414, 431, 400 and 413.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestLimits {
    /// `LimitRequestLine`: bytes of the request line without its end.
    pub line: u32,
    /// `LimitRequestFields`; `None` (written as 0) leaves the engine's own bound.
    pub fields: Option<NonZeroU32>,
    /// `LimitRequestFieldSize`: bytes of one field line.
    pub field_size: u32,
    /// `LimitRequestBody` in bytes; `None` (written as 0) is without limit.
    pub body: Option<NonZeroU64>,
}

/// One `CustomLog`.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where it goes.
    pub target: LogTargetId,
    /// What a line holds.
    pub format: LogFormat,
}

/// One `ProxyPass`, outside of sections.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProxyRule {
    /// The path it is for: decoded, runs of slashes merged; always begins with `/`.
    pub path: String,
    /// What to do with a request whose path it matches.
    pub target: Target,
}

/// What `ProxyPass` says of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// `!`: not to be proxied.
    Exclude,
    /// Hand it to a backend.
    Forward(Forward),
}

/// The right side of a `ProxyPass`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forward {
    /// Who gets it.
    pub backend: BackendId,
    /// The path of the url, at least `/`; what remains of the request's path is put behind it byte for byte.
    pub base: String,
    /// `nocanon`: the client's own bytes go out, not the decoded and re-encoded path.
    pub nocanon: bool,
    /// `noquery`: the query string stays here.
    pub noquery: bool,
}

/// One `ProxyPassReverse`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReverseRule {
    /// Our path, which replaces `url` at the front of Location, Content-Location, URI and Destination.
    pub path: String,
    /// The backend's url as written, for example `http://127.0.0.1:3000/app`.
    pub url: String,
}

/// Which fields we set on requests, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Forwarding {
    /// `ProxyPreserveHost`: send the client's Host instead of the backend's.
    pub preserve_host: bool,
    /// `ProxyAddHeaders`: send X-Forwarded-For, -Host and -Server.
    pub add_headers: bool,
    /// `ProxyVia`.
    pub via: Via,
}

/// `ProxyVia`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// Leave Via alone.
    Off,
    /// Add `1.1 name`.
    On,
    /// Add `1.1 name (Ostler/version)`.
    Full,
    /// Remove every Via, add none.
    Block,
}

/// A `<Location>` or `<LocationMatch>`; `None` means that the section does not say.
#[derive(Clone, Debug)]
pub struct Location {
    /// Which paths it is for.
    pub matcher: LocationMatcher,
    /// `ProxyPass` inside the section; its own path is the section's.
    pub target: Option<Target>,
    /// `ProxyPassReverse` inside the section.
    pub reverse: Option<ReverseRule>,
    /// `SetHandler`.
    pub handler: Option<Handler>,
    /// `Require`, any of which lets the client in.
    pub require: Option<Vec<Require>>,
    /// `LimitRequestBody`; the inner `None` is without limit.
    pub limit_request_body: Option<Option<NonZeroU64>>,
    /// `ProxyPreserveHost`.
    pub preserve_host: Option<bool>,
    /// `ProxyAddHeaders`.
    pub add_headers: Option<bool>,
}

/// How a section finds its paths. All match on the decoded path with runs of slashes merged.
#[derive(Clone, Debug)]
pub enum LocationMatcher {
    /// `<Location /x>`: at a segment border, or anywhere below if it ends in a slash.
    Prefix(String),
    /// `<Location "/x/*">`: a shell pattern for the whole path.
    Glob(ShellPattern),
    /// `<LocationMatch>` or `<Location ~>`: a regular expression, found anywhere.
    Regex(regex::bytes::Regex),
}

/// What answers instead of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handler {
    /// `SetHandler server-status`
    ServerStatus,
    /// `SetHandler metrics`
    Metrics,
}

impl Handler {
    /// Every handler that is built in.
    pub const ALL: [Self; 2] = [Self::ServerStatus, Self::Metrics];

    /// Its name behind `SetHandler`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ServerStatus => "server-status",
            Self::Metrics => "metrics",
        }
    }
}

/// One `Require` line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Require {
    /// `all granted`
    AllGranted,
    /// `all denied`
    AllDenied,
    /// `local`: a loopback client, or one that has our own address.
    Local,
    /// `ip`: a client in this network.
    Ip(IpNet),
}

/// A server behind us, with the parameters that a `ProxyPass` line gave it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Backend {
    /// Scheme, host and port as shown in logs and status: `http://127.0.0.1:3000`, `unix:/run/app.sock`.
    pub url: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// What Host says when the client's is not preserved: `127.0.0.1:3000`, the port left out if it is 80.
    pub host_field: String,
    /// `connectiontimeout`; else `timeout`, else the host's `ProxyTimeout`.
    pub connect_timeout: Option<Duration>,
    /// `timeout`; else the host's `ProxyTimeout`.
    pub timeout: Option<Duration>,
    /// `max`: connections to it per child; `None`: as many as the child has workers.
    pub max: Option<NonZeroU32>,
    /// `ttl`: how long a connection may stay idle in the pool; 60 s if not given.
    pub ttl: Duration,
    /// `retry`: how long it is left alone after it could not be connected; zero (the default here) tries again
    /// with each request.
    pub retry: Duration,
    /// Whether connections are kept for the next request (`enablereuse`, `disablereuse`).
    pub reuse: bool,
    /// `keepalive`: SO_KEEPALIVE on its connections.
    pub keepalive: bool,
}

/// Where a backend is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Endpoint {
    /// A name or address, and a port. `addresses` is filled by `check` for a literal address and by the master,
    /// before the first fork, for a name; never empty once children run.
    Tcp {
        /// The name or literal address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// What the name resolved to, in the order to be tried.
        addresses: Vec<SocketAddr>,
    },
    /// A stream socket in the file system.
    Unix(PathBuf),
}
