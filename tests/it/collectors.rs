//! Collectors as they are in the field read us as if we were httpd, and Prometheus as itself: the Debian packages'
//! own programs, whose figures are held to the scoreboard.
//!
//! A collector that the machine lacks is named and passed over; `scripts/test` installs them all.

use crate::support::daemon::run;
use crate::support::load::all_served;
use crate::support::{
    Backend, Client, Daemon, Failure, Mpm, Response, at_once, ostler, processes, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// Workers that a watched daemon has.
const WORKERS: u64 = 6;

/// Of these, how many have a request at the backend.
const HELD: u64 = 2;

/// Requests answered before anybody looks.
const SERVED: u64 = 30;

/// A daemon whose status is served on the site's own listener, with some requests served and some held.
struct Watched {
    daemon: Daemon,
    backend: Backend,
    held: Vec<JoinHandle<Result<Response, Failure>>>,
}

impl Watched {
    fn start(mpm: Mpm) -> Self {
        let backend = Backend::start();
        let limits = if mpm.is_prefork() {
            "StartServers 6\nServerLimit 6\nMaxRequestWorkers 6\nMinSpareServers 1\nMaxSpareServers 6\n"
        } else {
            "StartServers 2\nServerLimit 2\nThreadsPerChild 3\nMaxRequestWorkers 6\nMinSpareThreads 1\nMaxSpareThreads 6\n"
        };
        let daemon = Daemon::under(
            mpm,
            &format!(
                "{limits}<Location /server-status>\nProxyPass !\nSetHandler server-status\nRequire local\n</Location>\n\
                 <Location /metrics>\nProxyPass !\nSetHandler metrics\nRequire local\n</Location>\n\
                 <Location /hidden>\nProxyPass !\nSetHandler metrics\nRequire all denied\n</Location>\n\
                 ProxyPass / {}/",
                backend.url()
            ),
        );
        for _ in 0..SERVED {
            assert_eq!(daemon.get("/bytes/5000").status, 200);
        }
        let address = daemon.address();
        let held = at_once(HELD as usize, move |_| crate::support::daemon::get(address, "/hold"));
        backend.wait_for_now(HELD as usize);
        let watched = Self { daemon, backend, held };
        watched.rest(SERVED);
        watched
    }

    /// Waits until nobody serves but the workers that are held, after so many requests. An answer is read before its
    /// worker has gone back and counted it.
    fn rest(&self, requests: u64) {
        wait_until("the others idle", || {
            let document = document(&self.daemon);
            let number = |pointer: &str| document.pointer(pointer).and_then(Value::as_u64);
            let now = (number("/workers/idle"), number("/totals/requests"));
            (now == (Some(WORKERS - HELD), Some(requests))).then_some(())
        });
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.daemon.address())
    }

    /// What the scoreboard says, without asking the server.
    fn number(&self, pointer: &str) -> u64 {
        let document = document(&self.daemon);
        document.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {document}"))
    }

    /// Lets the held requests go.
    fn end(self) {
        self.backend.release();
        all_served(self.held);
    }
}

/// `ostler status --json`.
#[track_caller]
fn document(daemon: &Daemon) -> Value {
    let config = daemon.home().config();
    let run = ostler(&["status", "--json", "-f", &config.to_string_lossy()]);
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// A collector's program, or word that it is not there.
fn found(places: &[&str]) -> Option<PathBuf> {
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let program = places.iter().find_map(|place| {
        if place.starts_with('/') {
            Some(PathBuf::from(place)).filter(|path| path.exists())
        } else {
            std::env::split_paths(&in_path).map(|directory| directory.join(place)).find(|path| path.exists())
        }
    });
    if program.is_none() {
        eprintln!("skipped, there is no {}; scripts/test installs it", places.join(" nor "));
    }
    program
}

/// A program of the field that runs until the test is over, in a process group of its own: httpd's prefork ends its
/// whole group.
struct Peer(Child);

impl Peer {
    fn start(mut command: Command, output: &Path) -> Self {
        let output = File::create(output).expect("the directory is the test's own");
        let errors = output.try_clone().expect("a descriptor is free");
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        Self(command.spawn().expect("it can be run"))
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("it is our own child").is_some()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        for pid in processes::members(self.0.id() as i32) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// What a plugin of Munin's says.
fn munin(plugin: &Path, watched: &Watched, arguments: &[&str]) -> String {
    let mut command = Command::new(plugin);
    command.args(arguments).env("url", watched.url("/server-status?auto"));
    command.env("ports", watched.daemon.address().port().to_string());
    let run = run(command);
    assert_eq!(run.code, Some(0), "{run:?}");
    run.stdout
}

under_each_mpm! {
    fn munins_plugins_read_us(mpm) {
        let names = ["apache_accesses", "apache_processes", "apache_volume"];
        let plugins = names.map(|name| found(&[&format!("/usr/share/munin/plugins/{name}")]));
        let [Some(accesses), Some(processes), Some(volume)] = plugins else { return };
        let watched = Watched::start(mpm);
        let port = watched.daemon.address().port();
        let value = |text: &str, name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{port}.value ")));
            line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
        };
        for plugin in [&accesses, &processes, &volume] {
            assert_eq!(munin(plugin, &watched, &["autoconf"]), "yes\n");
        }
        // A page tells of everything but the request that it answers.
        watched.rest(SERVED + 3);
        assert_eq!(value(&munin(&accesses, &watched, &[]), "accesses"), SERVED + 3);
        watched.rest(SERVED + 4);
        let text = munin(&processes, &watched, &[]);
        let (busy, idle) = (value(&text, "busy"), value(&text, "idle"));
        assert_eq!((busy, idle, value(&text, "free")), (HELD + 1, WORKERS - HELD - 1, 0), "{text}");
        watched.rest(SERVED + 5);
        let kibibytes = watched.number("/totals/bytes_out") / 1024;
        assert!(kibibytes >= SERVED * 5000 / 1024);
        assert_eq!(value(&munin(&volume, &watched, &[]), "volume"), kibibytes * 1024);
        watched.end();
    }

    fn nagios_checks_read_us(mpm) {
        let plugins = ["check_http", "check_httpd_status"].map(|name| found(&[&format!("/usr/lib/nagios/plugins/{name}")]));
        let [Some(http), Some(status)] = plugins else { return };
        let watched = Watched::start(mpm);
        let port = watched.daemon.address().port().to_string();
        let mut command = Command::new(http);
        command.args(["-I", "127.0.0.1", "-p", &port, "-u", "/server-status?auto", "-e", "200"]);
        command.args(["-s", &format!("BusyWorkers: {}", HELD + 1)]);
        let answer = run(command);
        assert_eq!(answer.code, Some(0), "{answer:?}");

        // It keeps what it saw in /tmp, under the name of the host.
        let host = format!("ostler-it-{}-{port}", std::process::id());
        let mut command = Command::new(status);
        command.args(["-H", &host, "-u", &watched.url("/server-status?auto")]);
        watched.rest(SERVED + 1);
        let answer = run(command);
        for entry in fs::read_dir("/tmp").expect("it is there").flatten() {
            if entry.file_name().to_string_lossy().starts_with(&host) {
                fs::remove_file(entry.path()).expect("it was made for this test");
            }
        }
        assert_eq!(answer.code, Some(0), "{answer:?}");
        let (busy, idle) = (HELD + 1, WORKERS - HELD - 1);
        for part in [
            "HTTPD_STATUS OK".to_owned(),
            format!("{busy}/{idle} Busy/Idle, 0/{WORKERS} Open/Total"),
            format!("Waiting={idle};"),
            format!("Sending={busy};"),
        ] {
            assert!(answer.stdout.contains(&part), "{part} in {}", answer.stdout);
        }
        watched.end();
    }
}

/// The keys of a page, but for one that depends on whether the processor's clock has ticked.
fn keys(page: &str) -> Vec<String> {
    let keys = page.lines().filter_map(|line| line.split_once(':')).map(|(key, _)| key.to_owned());
    keys.filter(|key| key != "CPULoad").collect()
}

under_each_mpm! {
    fn our_keys_are_httpds_in_its_order(mpm) {
        let Some(httpd) = found(&["apache2", "/usr/sbin/apache2"]) else { return };
        let modules = format!("/usr/lib/apache2/modules/mod_mpm_{}.so", mpm.name());
        if found(&[&modules]).is_none() {
            return;
        }
        let watched = Watched::start(mpm);
        let home = watched.daemon.home();
        let place = home.path("");
        let place = place.display();
        // It cannot be asked for its port, so it is told one that was free a moment ago.
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let name = mpm.name();
        let text = format!(
            "ServerRoot \"{place}\"\nServerName httpd.test\nListen {address}\nPidFile \"{place}/httpd.pid\"\n\
             ErrorLog \"{place}/httpd.log\"\nDefaultRuntimeDir \"{place}\"\nUser nobody\nGroup nogroup\n\
             LoadModule mpm_{name}_module \"{modules}\"\nLoadModule status_module /usr/lib/apache2/modules/mod_status.so\n\
             LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
             <Location /server-status>\nSetHandler server-status\nRequire all granted\n</Location>\n"
        );
        let config = home.path("httpd.conf");
        fs::write(&config, text).expect("the directory is the test's own");
        let mut command = Command::new(httpd);
        command.arg("-f").arg(&config).arg("-DFOREGROUND");
        let output = home.path("httpd.output");
        let mut peer = Peer::start(command, &output);
        // Some keys need a second of life and a request.
        let mut page_of = |address: std::net::SocketAddr| {
            wait_until("a page with all its keys", || {
                let said = || fs::read_to_string(&output).unwrap_or_default() + &home.read("httpd.log");
                assert!(!peer.has_ended(), "httpd has ended: {}", said());
                let answer = Client::try_connect(address).ok()?.get("/server-status?auto").ok()?;
                Some(answer.text()).filter(|page| page.contains("DurationPerReq: ") && page.contains("ReqPerSec: "))
            })
        };
        let (theirs, ours) = (page_of(address), page_of(watched.daemon.address()));
        // Its children go when it does, if it is asked to.
        let master: i32 = home.read("httpd.pid").trim().parse().expect("it has written its PidFile");
        processes::send(master, Signal::SIGTERM);
        wait_until("httpd's end", || peer.has_ended().then_some(()));
        // Since 2.4.58 it tells of GracefulWorkers.
        if keys(&theirs).iter().any(|key| key == "GracefulWorkers") {
            assert_eq!(keys(&ours), keys(&theirs), "ours:\n{ours}\nhttpd's:\n{theirs}");
        } else {
            eprintln!("skipped, this httpd is too old to be compared with");
        }
        watched.end();
    }
}

#[test]
fn collectds_apache_plugin_reads_us() {
    let Some(collectd) = found(&["collectd", "/usr/sbin/collectd"]) else { return };
    if found(&["/usr/lib/collectd/apache.so"]).is_none() {
        return;
    }
    let watched = Watched::start(Mpm::Event);
    let home = watched.daemon.home();
    let place = home.path("");
    let place = place.display();
    let config = home.path("collectd.conf");
    let text = format!(
        "BaseDir \"{place}\"\nPIDFile \"{place}/collectd.pid\"\nTypesDB \"/usr/share/collectd/types.db\"\n\
         Hostname \"watcher\"\nInterval 1\nLoadPlugin apache\nLoadPlugin csv\n\
         <Plugin apache>\n<Instance \"ostler\">\nURL \"{}\"\n</Instance>\n</Plugin>\n\
         <Plugin csv>\nDataDir \"{place}/csv\"\nStoreRates false\n</Plugin>\n",
        watched.url("/server-status?auto")
    );
    fs::write(&config, text).expect("the directory is the test's own");
    let output = home.path("collectd.output");
    let mut command = Command::new(collectd);
    command.arg("-f").arg("-C").arg(&config);
    let mut peer = Peer::start(command, &output);
    let said = || fs::read_to_string(&output).unwrap_or_default();
    // The first value that it has kept of a type.
    let mut kept = |kind: &str| -> f64 {
        let directory = home.path("csv/watcher/apache-ostler");
        wait_until(&format!("collectd to keep {kind}"), || {
            assert!(!peer.has_ended(), "collectd has ended: {}", said());
            let files = fs::read_dir(&directory).ok()?.flatten();
            let mut files = files.filter(|entry| {
                let name = entry.file_name();
                name.to_string_lossy().strip_prefix(kind).is_some_and(|rest| rest.starts_with("-2"))
            });
            let text = fs::read_to_string(files.next()?.path()).ok()?;
            let line = text.split_inclusive('\n').nth(1)?.strip_suffix('\n')?;
            line.split_once(',')?.1.parse().ok()
        })
    };
    for (kind, want) in [
        ("apache_requests", SERVED),
        ("apache_connections", HELD + 1),
        ("apache_idle_workers", WORKERS - HELD - 1),
        ("apache_scoreboard-sending", HELD + 1),
        ("apache_scoreboard-waiting", WORKERS - HELD - 1),
        ("apache_scoreboard-open", 0),
    ] {
        assert_eq!(kept(kind), want as f64, "{kind}: {}", said());
    }
    assert!(kept("apache_bytes") >= (SERVED * 5000 / 1024 * 1024) as f64);
    drop(peer);
    watched.end();
}

under_each_mpm! {
    fn promtool_finds_nothing_to_say(mpm) {
        let Some(promtool) = found(&["promtool"]) else { return };
        let watched = Watched::start(mpm);
        let page = watched.daemon.get("/metrics");
        assert_eq!((page.status, page.field("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
        assert_eq!(watched.daemon.get("/hidden").status, 403);
        let config = watched.daemon.home().config();
        let printed = ostler(&["status", "--prometheus", "-f", &config.to_string_lossy()]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        for text in [page.text(), watched.daemon.get("/server-status?prometheus").text(), printed.stdout] {
            let mut command = Command::new(&promtool);
            command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("it can be run");
            child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
            let output = child.wait_with_output().expect("it is our own child");
            assert!(output.status.success(), "{output:?}\n{text}");
            assert!(output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}\n{text}");
        }
        watched.end();
    }
}

#[test]
fn prometheus_scrapes_us() {
    let Some(prometheus) = found(&["prometheus"]) else { return };
    let watched = Watched::start(Mpm::Event);
    let home = watched.daemon.home();
    let config = home.path("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n  - job_name: ostler\n    \
         static_configs:\n      - targets: ['{}']\n",
        watched.daemon.address()
    );
    fs::write(&config, text).expect("the directory is the test's own");
    // It does not say which port it was given, so it is told one that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let mut command = Command::new(prometheus);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", home.path("prometheus").display()))
        .arg(format!("--web.listen-address={address}"));
    let output = home.path("prometheus.output");
    let mut peer = Peer::start(command, &output);
    let mut query = |expression: &str| -> f64 {
        wait_until(&format!("Prometheus to know {expression}"), || {
            assert!(!peer.has_ended(), "it has ended: {}", fs::read_to_string(&output).unwrap_or_default());
            let target = format!("/api/v1/query?query={expression}");
            let answer = Client::try_connect(address).ok()?.get(&target).ok()?;
            let document: Value = serde_json::from_slice(&answer.body).ok()?;
            let value = document.pointer("/data/result/0/value/1")?;
            value.as_str()?.parse().ok()
        })
    };
    assert_eq!(query("up"), 1.0);
    let scrapes = query("ostler_requests_total") - SERVED as f64;
    assert!(scrapes >= 0.0 && scrapes.fract() == 0.0, "{scrapes}");
    for (expression, want) in [
        ("ostler_up", 1),
        ("ostler_busy_workers", HELD + 1),
        ("ostler_idle_workers", WORKERS - HELD - 1),
        ("ostler_max_request_workers", WORKERS),
        ("sum(ostler_workers)", WORKERS),
        ("count(ostler_child_requests_total)", 2),
        ("ostler_backend_busy_requests", HELD),
        ("ostler_backend_response_seconds_count", SERVED),
    ] {
        assert_eq!(query(expression), want as f64, "{expression}");
    }
    drop(peer);
    watched.end();
}
