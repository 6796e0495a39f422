//! A private server: this program, started in a directory of its own on a free port of loopback, put under load,
//! measured and stopped. Nothing of it is left, whatever happens: it is told to stop when we end, however we end.

use super::MeasureError;
use super::load::{Client, Origin};
use super::look;
use crate::clock::Tick;
use crate::config::model::Mpm;
use crate::ids::ChildPid;
use crate::scoreboard::snapshot::Snapshot;
use crate::scoreboard::state::Stage;
use crate::size::observed::{Samples, Tree};
use crate::sys::process;
use crate::sys::signal::{Signal, SignalPipe};
use crate::sys::{privilege, random, time};
use std::fs::{self, DirBuilder, File};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// How long all of it may take. It takes about a second where the machine has one to spare.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a server that says nothing of itself is looked at again.
const GLANCE: Duration = Duration::from_millis(3);

/// How long a server that was told to stop may take.
const STOPPING: Duration = Duration::from_secs(5);

/// Of a child with more threads, this many are measured, and the others reckoned.
const MOST_THREADS: u32 = 128;

/// Requests held at one time, at most: each takes two descriptors and a thread of ours.
const MOST_HELD: u32 = 400;

/// Idle connections at the second count, at most.
const MOST_IDLE: u64 = 1536;

/// Where memory is all that a file takes; so the scoreboard counts as the processes' own.
const IN_MEMORY: &str = "/dev/shm";

/// What is to be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trial {
    /// The driver.
    pub mpm: Mpm,
    /// ThreadsPerChild.
    pub threads: u32,
    /// ThreadStackSize, bytes.
    pub stack: Option<usize>,
}

/// Measures private servers of `trial`'s kind, one after the other.
///
/// # Errors
/// If one cannot be started, does not serve, or cannot be read; and if a signal asks us to leave.
pub fn measure(trial: &Trial) -> Result<Samples, MeasureError> {
    let system = |what| move |source| MeasureError::System { what, source };
    // A connection has both of its ends here.
    let files = privilege::raise_nofile().map_err(system("raise RLIMIT_NOFILE"))?;
    let signals = SignalPipe::new(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    let mut watch = Watch {
        until: time::now().tick().after(PATIENCE),
        signals: signals.map_err(system("hear signals"))?,
    };
    let threads = trial.threads.clamp(1, MOST_THREADS);
    let (few, more) = counts(trial.mpm, threads);
    let origin = Origin::start().map_err(system("listen on loopback"))?;
    let start = |children, threads, watch: &mut Watch| {
        Server::start(&Trial { threads, ..*trial }, children, origin.address(), watch)
    };
    let mut samples = Samples::default();
    {
        let mut server = start(few, threads, &mut watch)?;
        let same = server.tree()?;
        let mut crowd = Crowd::new(&origin);
        let workers = few * threads;
        crowd.hold(workers.div_ceil(2), &server, &mut watch)?;
        samples.half = server.tree()?;
        crowd.hold(workers, &server, &mut watch)?;
        samples.full = server.tree()?;
        crowd.release(&server)?;
        if trial.mpm == Mpm::Event {
            // What is left beside the clients' two descriptors and some air.
            let most = (files.saturating_sub(1000) / 2).clamp(64, MOST_IDLE);
            samples.idle = Some(idle(&server, most, &mut watch)?);
        }
        drop(crowd);
        server.stop();
        if trial.mpm != Mpm::Prefork {
            let other = if threads > MOST_THREADS / 2 { threads / 2 } else { threads * 2 };
            let mut server = start(few, other, &mut watch)?;
            samples.threads = Some((server.tree()?, same));
            server.stop();
        }
    }
    let mut server = start(more, threads, &mut watch)?;
    let mut crowd = Crowd::new(&origin);
    crowd.hold(more * threads, &server, &mut watch)?;
    samples.more = server.tree()?;
    crowd.release(&server)?;
    server.stop();
    Ok(samples)
}

/// How many children make the first and the second measurement.
fn counts(mpm: Mpm, threads: u32) -> (u32, u32) {
    match mpm {
        // A child holds copies of the pages that the master has written to since its fork: few for the first
        // children, then the same for each.
        Mpm::Prefork => (48, 144),
        Mpm::Event | Mpm::Worker => {
            let more = (MOST_HELD / threads).clamp(3, 8);
            (if more >= 6 { 2 } else { 1 }, more)
        }
    }
}

/// Opens idle connections, each of which has had an answer, and looks at two counts of them.
fn idle(server: &Server, most: u64, watch: &mut Watch) -> Result<[(u64, Tree); 2], MeasureError> {
    let mut clients = Vec::new();
    let mut look = |count: u64| -> Result<(u64, Tree), MeasureError> {
        while (clients.len() as u64) < count {
            watch.check(|| format!("{} of {count} idle connections were made", clients.len()), server)?;
            let mut client = server.connect()?;
            client.ask().map_err(|source| MeasureError::System { what: "ask the private server", source })?;
            clients.push(client);
        }
        Ok((count, server.tree()?))
    };
    Ok([look(most / 4)?, look(most)?])
}

/// The bounds of patience: time, and signals.
struct Watch {
    until: Tick,
    signals: SignalPipe,
}

impl Watch {
    fn check(&mut self, what: impl FnOnce() -> String, server: &Server) -> Result<(), MeasureError> {
        if !self.signals.pending().is_empty() {
            return Err(MeasureError::Interrupted);
        }
        if time::now().tick() > self.until {
            return Err(server.stuck(what()));
        }
        Ok(())
    }
}

/// The clients whose requests are held.
struct Crowd<'o> {
    origin: &'o Origin,
    clients: Vec<Client>,
}

impl<'o> Crowd<'o> {
    fn new(origin: &'o Origin) -> Self {
        Self { origin, clients: Vec::new() }
    }

    /// Adds clients until so many requests are held.
    fn hold(&mut self, count: u32, server: &Server, watch: &mut Watch) -> Result<(), MeasureError> {
        while self.clients.len() < count as usize {
            let mut client = server.connect()?;
            client
                .ask_held()
                .map_err(|source| MeasureError::System { what: "ask the private server", source })?;
            self.clients.push(client);
        }
        while self.origin.held() < u64::from(count) {
            watch.check(|| format!("only {} of {count} workers became busy", self.origin.held()), server)?;
            thread::park_timeout(GLANCE);
        }
        Ok(())
    }

    /// Has all of them answered, and ends them.
    fn release(&mut self, server: &Server) -> Result<(), MeasureError> {
        self.origin.release();
        for mut client in self.clients.drain(..) {
            client.answer().map_err(|fault| server.stuck(format!("a request was lost: {fault}")))?;
        }
        Ok(())
    }
}

/// A directory that goes with its owner.
struct Home(PathBuf);

impl Home {
    fn new() -> Result<Self, MeasureError> {
        let random = random::number().unwrap_or_default();
        let name = format!("ostler-size-{}-{random:016x}", std::process::id());
        let in_memory = Path::new(IN_MEMORY).join(&name);
        let make = |path: PathBuf| match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(MeasureError::Directory { path, source }),
        };
        make(in_memory).or_else(|_| make(std::env::temp_dir().join(name)))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What cannot be removed now is nothing that anybody could do something about here.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running private server. Dropped, it is stopped and its directory removed.
struct Server {
    home: Home,
    process: Child,
    address: SocketAddr,
    children: u32,
}

impl Server {
    /// Starts a server of exactly so many children, and waits until they serve.
    fn start(
        trial: &Trial,
        children: u32,
        origin: SocketAddr,
        watch: &mut Watch,
    ) -> Result<Self, MeasureError> {
        let system = |what| move |source| MeasureError::System { what, source };
        let home = Home::new()?;
        let file = home.0.join("ostler.conf");
        let text = text(trial, children, &home.0, origin, privilege::is_root());
        fs::write(&file, text).map_err(system("write the private server's configuration"))?;
        let said = File::create(home.0.join("said")).map_err(system("write into the private directory"))?;
        let second = said.try_clone().map_err(system("write into the private directory"))?;
        // Not by its name: the file of that name may be another by now.
        let mut command = Command::new("/proc/self/exe");
        command.arg("-X").arg("-f").arg(&file).stdin(Stdio::null()).stdout(said).stderr(second);
        let process = process::start_companion(&mut command).map_err(system("start a private server"))?;
        let mut server = Self { home, process, address: SocketAddr::from(([127, 0, 0, 1], 0)), children };
        loop {
            if let Some(address) = server.ready() {
                server.address = address;
                return Ok(server);
            }
            if let Ok(Some(status)) = server.process.try_wait() {
                return Err(server.stuck(format!("it has ended with {status}")));
            }
            watch.check(|| format!("not all of its {children} children came to serve"), &server)?;
            thread::park_timeout(GLANCE);
        }
    }

    fn board(&self) -> PathBuf {
        self.home.0.join("scoreboard")
    }

    /// Where it listens, once all of its children serve.
    fn ready(&self) -> Option<SocketAddr> {
        let snapshot = Snapshot::read(&self.board()).ok()?;
        let serving = snapshot.children.iter().filter(|child| child.stage == Some(Stage::Ready)).count();
        if serving < self.children as usize {
            return None;
        }
        snapshot.server.listeners.split_ascii_whitespace().next()?.parse().ok()
    }

    fn connect(&self) -> Result<Client, MeasureError> {
        Client::connect(self.address)
            .map_err(|source| MeasureError::System { what: "connect to the private server", source })
    }

    fn tree(&self) -> Result<Tree, MeasureError> {
        let snapshot = Snapshot::read(&self.board())
            .map_err(|fault| self.stuck(format!("its scoreboard cannot be read: {fault}")))?;
        look::tree(&self.board(), &snapshot)
    }

    fn stuck(&self, what: String) -> MeasureError {
        let read = |name: &str| fs::read_to_string(self.home.0.join(name)).unwrap_or_default();
        let said = read("said") + &read("error.log");
        let lines: Vec<&str> = said.lines().rev().take(3).collect();
        MeasureError::Stuck { what, said: lines.into_iter().rev().collect::<Vec<_>>().join(" / ") }
    }

    /// Stops it now, and waits until it is gone.
    fn stop(&mut self) {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Some(pid) = ChildPid::new(self.process.id().cast_signed()) {
            // An error means that it has ended in this moment.
            let _ = process::kill(pid, Signal::SIGINT);
        }
        let until = time::now().tick().after(STOPPING);
        while matches!(self.process.try_wait(), Ok(None)) {
            if time::now().tick() > until {
                // Its children see its end, and leave.
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            thread::park_timeout(GLANCE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The configuration of a private server: exactly so many children, all the time.
fn text(trial: &Trial, children: u32, home: &Path, origin: SocketAddr, root: bool) -> String {
    let Trial { mpm, threads, stack } = *trial;
    // By number, since the group has one name here and another there.
    let user = if root { "User #65534\nGroup #65534\n" } else { "" };
    let workers = children * threads;
    let limits = match mpm {
        Mpm::Prefork => format!(
            "ServerLimit {children}\nMaxRequestWorkers {children}\nMinSpareServers {children}\nMaxSpareServers {}\n",
            children + 1
        ),
        Mpm::Event | Mpm::Worker => format!(
            "ServerLimit {children}\nThreadLimit {threads}\nThreadsPerChild {threads}\nMaxRequestWorkers {workers}\n\
             MinSpareThreads {workers}\nMaxSpareThreads {}\n{}",
            workers + threads + 1,
            stack.map_or_else(String::new, |bytes| format!("ThreadStackSize {bytes}\n")),
        ),
    };
    let home = home.display();
    format!(
        "# A private server of \"ostler size\".\nMPM {}\nServerRoot \"{home}\"\nListen 127.0.0.1:0\n\
         ServerName size.test\n{user}PidFile none\nScoreBoardFile \"{home}/scoreboard\"\n\
         ErrorLog \"{home}/error.log\"\nKeepAlive On\nKeepAliveTimeout 300\nMaxKeepAliveRequests 0\n\
         StartServers {children}\n{limits}ProxyPass / http://{origin}/ retry=0\n",
        mpm.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};

    #[test]
    fn a_private_servers_configuration_is_read_without_a_remark() {
        for (mpm, threads) in [(Mpm::Event, 25), (Mpm::Worker, 128), (Mpm::Prefork, 1), (Mpm::Event, 1)] {
            for root in [false, true] {
                let trial = Trial { mpm, threads, stack: Some(1 << 20) };
                let (few, more) = counts(mpm, threads);
                assert!(few < more && more * threads <= MOST_HELD.max(3 * threads));
                let origin = SocketAddr::from(([127, 0, 0, 1], 3000));
                let text = text(&trial, more, Path::new("/tmp"), origin, root);
                let loaded = config::from_text("test", &text, &Options::default())
                    .unwrap_or_else(|faults| panic!("{faults}\n{text}"));
                assert!(loaded.notes.is_empty(), "{:?}\n{text}", loaded.notes);
                let limits = loaded.config.limits;
                assert_eq!((limits.max_children(), limits.start), (more, more), "{text}");
            }
        }
    }

    #[test]
    fn a_private_directory_goes_with_its_owner() {
        let home = Home::new().expect("there is a place for it");
        let path = home.0.clone();
        fs::write(path.join("x"), "x").expect("it is ours");
        drop(home);
        assert!(!path.exists());
    }
}
