//! Counters that never go backwards: over deaths, reloads, and a reload that changes the scoreboard's shape.

use crate::support::{Backend, Client, Daemon, Load, processes, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ostler::scoreboard::snapshot::Snapshot;
use ostler::scoreboard::state::Stage;
use ostler::status::{Form, Now, page};
use ostler::sys::time;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What one reader has seen of every counter.
#[derive(Default)]
struct Seen {
    last: HashMap<String, f64>,
    /// Series that were less than before.
    back: Vec<String>,
}

impl Seen {
    fn look(&mut self, page: &str) {
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { panic!("{line:?}") };
            let metric = name.split_once('{').map_or(name, |(metric, _)| metric);
            if !["_total", "_bucket", "_sum", "_count"].iter().any(|end| metric.ends_with(end)) {
                continue;
            }
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
            if let Some(before) = self.last.insert(name.to_owned(), value)
                && value < before
            {
                self.back.push(format!("{name}: {before}, then {value}"));
            }
        }
    }
}

/// Looks again and again until told to stop.
struct Reader {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
    thread: JoinHandle<Seen>,
}

impl Reader {
    fn start(mut page: impl FnMut() -> Option<String> + Send + 'static) -> Self {
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (flag, count) = (Arc::clone(&stop), Arc::clone(&looks));
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !flag.load(Ordering::Relaxed) {
                if let Some(page) = page() {
                    seen.look(&page);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            seen
        });
        Self { stop, looks, thread }
    }

    fn of_file(path: PathBuf) -> Self {
        Self::start(move || {
            let snapshot = Snapshot::read(&path).expect("a daemon's scoreboard can always be read");
            let zone = jiff::tz::TimeZone::UTC;
            let now = Now { moment: time::now(), wall_micros: time::wall_micros(), zone };
            Some(page(&snapshot, Form::Prometheus, &now).body)
        })
    }

    /// Waits until it has looked so many times more.
    #[track_caller]
    fn look_on(&self, times: usize) {
        let looks = || self.looks.load(Ordering::Relaxed);
        let before = looks();
        wait_until("the reader to look", || (looks() >= before + times).then_some(()));
    }

    /// Stops it; no look saw a counter step back.
    #[track_caller]
    fn finish(self) -> HashMap<String, f64> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().expect("a reader never panics");
        assert!(seen.back.is_empty(), "counters went backwards: {:#?}", seen.back);
        seen.last
    }
}

/// Waits until another generation serves.
#[track_caller]
fn reload(daemon: &Daemon) {
    let count = || daemon.log().matches("] serving generation ").count();
    let before = count();
    daemon.signal(Signal::SIGHUP);
    wait_until("another generation", || (count() > before).then_some(()));
}

/// A child that serves and is not to leave.
fn ready_child(daemon: &Daemon) -> i32 {
    let board = daemon.home().path("scoreboard");
    let children = Snapshot::read(&board).expect("a daemon's scoreboard can always be read").children;
    // One may be ready before its master has noted its number.
    let mut ready = children.iter().filter(|child| child.stage == Some(Stage::Ready) && child.pid > 0);
    i32::try_from(ready.next().expect("one serves").pid).expect("the kernel's numbers are small")
}

under_each_mpm! {
    fn no_counter_goes_backwards_over_deaths_and_reloads(mpm) {
        let backend = Backend::start();
        let limits = |most: u32| if mpm.is_prefork() {
            format!("StartServers 3\nServerLimit {most}\nMaxRequestWorkers {most}\nMinSpareServers 1\n")
        } else {
            format!("StartServers 2\nServerLimit {most}\nThreadsPerChild 4\nMaxRequestWorkers {}\nMinSpareThreads 4\n", most * 4)
        };
        let text = |most: u32| format!(
            "MPM {}\n{}<Location /metrics>\nProxyPass !\nSetHandler metrics\n</Location>\nProxyPass / {}/",
            mpm.name(), limits(most), backend.url()
        );
        let daemon = Daemon::at(crate::support::Home::new(), &text(8));
        daemon.tolerate("child");
        daemon.tolerate("cannot");
        let address = daemon.address();
        let load = Load::start(address, 3, "/bytes/100", Duration::from_millis(1));
        let file = Reader::of_file(daemon.home().path("scoreboard"));
        // A child that is killed takes the page with it, and another answers.
        let served = Reader::start(move || {
            let answer = Client::try_connect(address).ok()?.get("/metrics").ok()?;
            (answer.status == 200).then(|| answer.text())
        });
        for _ in 0..5 {
            file.look_on(5);
            reload(&daemon);
            file.look_on(5);
            served.look_on(3);
            let victim = ready_child(&daemon);
            processes::send(victim, Signal::SIGKILL);
            daemon.wait_for_line("who died", |line| {
                line.contains(&format!("child {victim} ")) && line.contains("SIGKILL")
            });
        }
        served.look_on(3);
        served.finish();
        // A board with more slots is another file, and what counts on the former is told there once it has ended.
        for most in [12, 16, 20] {
            file.look_on(5);
            daemon.home().write_whole(&text(most));
            reload(&daemon);
        }
        let slots = if mpm.is_prefork() { 20 } else { 80 };
        daemon.wait_for_status("the new limit", |status| status.text.contains(&format!(", at most {slots}")));
        file.look_on(20);
        let outcome = load.finish();
        let last = file.finish();
        assert!(outcome.served > 100, "{outcome:?}");
        let told = last["ostler_requests_total"];
        assert!(told > 100.0 && last["ostler_children_failed_total"] >= 5.0, "{told}");
        assert!(last["ostler_cpu_seconds_total{mode=\"user\"}"] + last["ostler_cpu_seconds_total{mode=\"system\"}"] > 0.0);
    }
}

/// A generation that is about to go still replaces its children, perhaps after the next has all of its own.
#[test]
fn requests_are_counted_with_their_backend_whoever_was_forked_last() {
    let (one, other) = (Backend::start(), Backend::start());
    let passes = [format!("ProxyPass /one {}\n", one.url()), format!("ProxyPass /other {}\n", other.url())];
    let text = |turn: usize| {
        format!(
            "MPM prefork\nStartServers 12\nServerLimit 40\nMaxRequestWorkers 40\nMinSpareServers 1\n{}{}",
            passes[turn % 2],
            passes[(turn + 1) % 2]
        )
    };
    let daemon = Daemon::at(crate::support::Home::new(), &text(0));
    let board = daemon.home().path("scoreboard");
    // It may have gone since it was looked up.
    let leave = |child| kill(Pid::from_raw(child), Signal::SIGTERM);
    let counted = || {
        let backends = Snapshot::read(&board).expect("a daemon's scoreboard can always be read").backends;
        let of = |backend: &Backend| {
            let is_it = |row: &&ostler::scoreboard::snapshot::Backend| row.url.starts_with(&backend.url());
            backends.iter().find(is_it).map_or(0, |row| row.requests)
        };
        [of(&one), of(&other)]
    };
    for turn in 1..=6 {
        daemon.home().write_whole(&text(turn));
        daemon.signal(Signal::SIGHUP);
        wait_until("another generation", || {
            let serves = daemon.log().matches("] serving generation ").count() == turn;
            if !serves {
                let _ = leave(ready_child(&daemon));
            }
            serves.then_some(())
        });
        for _ in 0..4 {
            let child = ready_child(&daemon);
            let _ = leave(child);
            wait_until("it to go", || (!daemon.children().contains(&child)).then_some(()));
        }
        let before = counted();
        for _ in 0..12 {
            assert_eq!(daemon.get("/one/bytes/1").status, 200);
            assert_eq!(daemon.get("/other/bytes/1").status, 200);
            assert_eq!(daemon.get("/one/bytes/1").status, 200);
        }
        assert_eq!(counted(), [before[0] + 24, before[1] + 12], "after reload {turn}");
    }
}
