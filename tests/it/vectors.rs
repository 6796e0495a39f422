//! The reference's test vectors (its section 13), each where it is shown, with our answer where it differs.
//!
//! | vector | shown by |
//! |---|---|
//! | 1 ThreadsPerChild above ThreadLimit | `config::tests::sizes::every_clamp_speaks` |
//! | 2 MaxRequestWorkers no multiple, above ServerLimit | the same |
//! | 3 `StartServers abc`: refused with its place | `config::tests::sizes::a_number_that_is_none_is_refused_with_its_place` |
//! | 4 MinSpareThreads 0, MaxSpareThreads too low: with a note | `config::tests::sizes::every_clamp_speaks` |
//! | 5 ServerLimit changed by a reload: holds at once | `reload::a_reload_may_change_the_limits`, [`a_reload_that_raises_server_limit_lets_the_pool_grow`] |
//! | 6 growth by 1, 2, 4 | `policy::tests::the_references_growth_from_one_child_takes_steps_of_one_two_and_four` |
//! | 7 the same after a reload: no shortage, the generation begins with what it needs | `reload::tests::a_new_generation_begins_with_what_the_old_one_needs`, [`a_new_generation_begins_with_its_spare_workers`] |
//! | 8 a surplus goes by steps: a quarter of the children at most | `policy::tests::a_surplus_goes_by_steps_a_second_apart` |
//! | 9 three SIGKILLs: each replaced at once, no back-off | [`three_kills_in_a_row_are_three_replacements_at_once`] |
//! | 10 exit 7: one of many; all of the first | `robust::children_without_memory_for_a_thread_are_a_want_and_no_crash`, [`a_start_without_a_single_thread_fails_with_a_reason`] |
//! | 11 exit 15: a line and at most a back-off, never the end of a server that serves | `deaths::tests::what_an_end_means` |
//! | 12 event's limit of connections by idle workers | none: MaxConnectionsPerProcess bounds connections, rows bound requests (`crowd`, `limits`) |
//! | 13 a graceful restart: `close` on what is under way, idle connections have their grace | `reload`, `robust::a_kept_alive_client_has_the_time_that_it_was_promised` |
//! | 14 a bad configuration: still serving, the fault in the status | `reload::a_generation_that_does_not_come_up_changes_nothing`, [`a_refused_reload_is_told_by_the_status`] |
//! | 15 a reload with every thread busy | [`a_reload_with_every_worker_busy_serves_new_clients_at_once`] |
//! | 16 recycling without a gap, in a short form | [`recycling_leaves_no_gap_and_few_children_at_a_time`] |
//! | 17 a graceful stop with a stopped child | [`a_stopped_child_does_not_hold_up_a_graceful_stop`] |
//! | 18 the master killed | `signals::children_leave_when_their_master_is_killed`, [`what_is_under_way_when_the_master_is_killed_is_answered`] |
//! | 19 `?auto` for collectors | `status::auto` and the status tests |
//! | 20 a scoreboard full of noise | [`a_scoreboard_full_of_noise_harms_nobody`], [`no_child_can_shorten_the_scoreboard`] |

use crate::support::load::all_served;
use crate::support::processes::send;
use crate::support::{
    Backend, Client, Daemon, Home, Load, Mpm, at_once, is_root, ostler, processes, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a_reload_that_raises_server_limit_lets_the_pool_grow() {
    let backend = Backend::start();
    let text = |servers: u32| {
        format!(
            "MPM event\nServerLimit {servers}\nThreadsPerChild 1\nMaxRequestWorkers {servers}\nStartServers 1\n\
             MinSpareThreads 1\nProxyPass / {}/",
            backend.url()
        )
    };
    let daemon = Daemon::at(Home::new(), &text(2));
    let address = daemon.address();
    // More than there are workers: one may be accepted by a child that has just become full.
    let mut clients = at_once(5, move |_| crate::support::daemon::get(address, "/hold"));
    backend.wait_for_now(2);
    daemon.home().write_whole(&text(6));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("] serving generation 2");
    clients.extend(at_once(24, move |_| crate::support::daemon::get(address, "/hold")));
    backend.wait_for_now(8);
    backend.release();
    all_served(clients);
}

#[test]
fn a_new_generation_begins_with_its_spare_workers() {
    let backend = Backend::start();
    let daemon = Daemon::start(&format!(
        "StartServers 1\nMinSpareThreads 200\nMaxSpareThreads 250\nThreadsPerChild 25\nMaxRequestWorkers 400\n\
         ProxyPass / {}/",
        backend.url()
    ));
    // From one child it takes three steps; a new generation is there at once.
    daemon.wait_for_children(8);
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_for_log("] serving generation 2");
    assert!(line.contains("8 children x 25 threads = 200 workers"), "{line}");
}

under_each_mpm! {
    fn three_kills_in_a_row_are_three_replacements_at_once(mpm) {
        let backend = Backend::start();
        let limits = if mpm.is_prefork() {
            "StartServers 5\nMinSpareServers 5\n"
        } else {
            "StartServers 5\nThreadsPerChild 5\nMaxRequestWorkers 25\nMinSpareThreads 25\n"
        };
        let daemon = Daemon::under(mpm, &format!("{limits}ProxyPass / {}/", backend.url()));
        daemon.tolerate("child");
        let children = daemon.wait_for_children(5);
        let start = Instant::now();
        for pid in &children[..3] {
            send(*pid, Signal::SIGKILL);
        }
        wait_until("five again", || {
            let now = daemon.children();
            (now.len() == 5 && children[..3].iter().all(|gone| !now.contains(gone))).then_some(())
        });
        println!("{}: {:?} until there were five again", mpm.name(), start.elapsed());
        for pid in &children[..3] {
            let line = daemon.wait_for_log(&format!("child {pid} "));
            assert!(line.contains("SIGKILL") && line.contains("another takes its place"), "{line}");
        }
        assert!(daemon.lines_with("next try in").is_empty(), "somebody's kill is no reason to wait");
        assert_eq!(daemon.get("/").status, 200);
    }

    fn children_that_die_young_are_replaced_ever_later(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("{}ProxyPass / {}/", mpm.one_child(), backend.url()));
        daemon.tolerate("child");
        // A fault within a second of being ready, again and again.
        for delay in ["100 ms", "200 ms", "400 ms"] {
            let [pid] = daemon.wait_for_children(1)[..] else { panic!("one child") };
            daemon.wait_for_status("it is ready", |status| status.text.contains(&pid.to_string()) && status.idle > 0);
            send(pid, Signal::SIGSEGV);
            let line = daemon.wait_for_log(&format!("child {pid} "));
            assert!(line.contains("SIGSEGV") && line.contains(&format!("next try in {delay}")), "{line}");
        }
        assert_eq!(daemon.get("/").status, 200);
    }

    fn a_reload_with_every_worker_busy_serves_new_clients_at_once(mpm) {
        let backend = Backend::start();
        let limits = if mpm.is_prefork() {
            "ServerLimit 8\nMaxRequestWorkers 8\nStartServers 8\nMinSpareServers 1\nMaxSpareServers 8\n"
        } else {
            "ServerLimit 2\nThreadsPerChild 4\nMaxRequestWorkers 8\nStartServers 2\nMinSpareThreads 1\nMaxSpareThreads 8\n"
        };
        let daemon = Daemon::under(mpm, &format!("{limits}ProxyPass / {}/", backend.url()));
        let address = daemon.address();
        // More than there are workers: one may be accepted by a child that has just become full.
        let clients = at_once(11, move |_| crate::support::daemon::get(address, "/hold"));
        backend.wait_for_now(8);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("] serving generation 2");
        let start = Instant::now();
        assert_eq!(daemon.get("/new").status, 200);
        println!("{}: {:?} for a new client", mpm.name(), start.elapsed());
        assert!(backend.now() >= 8, "all eight are still under way");
        backend.release();
        all_served(clients);
    }

    fn recycling_leaves_no_gap_and_few_children_at_a_time(mpm) {
        let backend = Backend::start();
        let limits = if mpm.is_prefork() {
            "StartServers 10\nMinSpareServers 5\nMaxSpareServers 20\nMaxRequestWorkers 20\n"
        } else {
            "StartServers 10\nThreadsPerChild 4\nMaxRequestWorkers 80\nMinSpareThreads 20\nMaxSpareThreads 80\n"
        };
        let daemon = Daemon::under(
            mpm,
            &format!("{limits}MaxConnectionsPerChild 100\nKeepAliveTimeout 1\nProxyPass / {}/", backend.url()),
        );
        let (address, stop) = (daemon.address(), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&stop);
        let clients = at_once(4, move |_| {
            let (mut longest, mut count) = (Duration::ZERO, 0);
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                assert_eq!(crate::support::daemon::get(address, "/").map(|answer| answer.status), Ok(200));
                longest = longest.max(start.elapsed());
                count += 1;
            }
            (longest, count)
        });
        let (begin, mut ever, mut most) = (Instant::now(), BTreeSet::new(), 0);
        while begin.elapsed() < Duration::from_secs(5) || ever.len() < 13 {
            assert!(begin.elapsed() < crate::support::PATIENCE, "few were replaced: {}", ever.len());
            let children = daemon.children();
            most = most.max(children.len());
            ever.extend(children);
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        let seen: Vec<_> = clients.into_iter().map(|client| client.join().expect("each was answered")).collect();
        let longest = seen.iter().map(|(longest, _)| *longest).max().expect("four clients");
        let count: u32 = seen.iter().map(|(_, count)| count).sum();
        println!("{}: {count} connections, the longest took {longest:?}; {} children ever, {most} at most", mpm.name(), ever.len());
        assert!(longest < Duration::from_secs(5), "a gap of {longest:?}");
        // Ten, and a tenth of them twice: one that leaves and its heir. (Look and count are not one moment.)
        assert!(most <= 13, "{most} children at a time");
    }

    fn a_stopped_child_does_not_hold_up_a_graceful_stop(mpm) {
        let backend = Backend::start();
        let mut daemon = Daemon::under(
            mpm,
            &format!("GracefulShutdownTimeout 5\nExtendedStatus On\nProxyPass / {}/", backend.url()),
        );
        daemon.tolerate("child");
        let mut held = daemon.ask("/hold/by-the-stopped");
        backend.wait_for_now(1);
        let pid = daemon.child_of(&held);
        send(pid, Signal::SIGSTOP);
        let start = Instant::now();
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_end();
        let took = start.elapsed();
        assert!(took < Duration::from_secs(15), "{took:?}");
        let line = daemon.wait_for_log("it does not stop; killed");
        assert!(line.contains(&format!("child {pid} ")) && line.contains("/hold/by-the-stopped"), "{line}");
        assert!(held.answer("GET").is_err(), "its request died with it");
    }

    fn what_is_under_way_when_the_master_is_killed_is_answered(mpm) {
        let backend = Backend::start();
        let mut daemon = Daemon::under(mpm, &format!("KeepAliveTimeout 20\nProxyPass / {}/", backend.url()));
        let mut kept = daemon.connect();
        assert!(!kept.get("/").expect("an answer").closes());
        let mut held = daemon.ask("/hold");
        backend.wait_for_now(1);
        let (address, children) = (daemon.address(), daemon.children());
        let config = daemon.home().read("ostler.conf").replace("127.0.0.1:0", &address.to_string());
        daemon.tolerate("master");
        send(daemon.master(), Signal::SIGKILL);
        daemon.wait_for_end();
        wait_until("the listener closed", || Client::try_connect(address).is_err().then_some(()));
        // The next start needs nobody's help: neither the old PidFile nor the old children are in its way.
        daemon.home().write(&config);
        let file = daemon.home().config().to_string_lossy().into_owned();
        let next = ostler(&["-k", "start", "-f", &file]);
        assert_eq!(next.code, Some(0), "{next:?}");
        assert_eq!(crate::support::daemon::get(address, "/new").map(|answer| answer.status), Ok(200));
        assert_eq!(kept.get("/once-more").expect("an answer").status, 200);
        backend.release();
        let answer = held.answer("GET").expect("the orphan answers what it had");
        assert_eq!((answer.status, answer.closes()), (200, true));
        wait_until("the orphans gone", || children.iter().all(|pid| !processes::is_alive(*pid)).then_some(()));
        let previous = daemon.home().path("scoreboard.prev").exists();
        let stopped = ostler(&["-k", "stop", "-f", &file]);
        assert!(stopped.code == Some(0) && previous, "{stopped:?}");
    }
}

#[test]
fn a_start_without_a_single_thread_fails_with_a_reason() {
    for mpm in [Mpm::Event, Mpm::Worker] {
        let home = Home::new();
        let config = home.write_whole(&format!(
            "MPM {}\nThreadStackSize 1073741824\nProxyPass / http://127.0.0.1:9/",
            mpm.name()
        ));
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -v 900000; exec \"$0\" -X -f \"$1\"", env!("CARGO_BIN_EXE_ostler")])
            .arg(&config);
        let run = crate::support::daemon::run(command);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stderr.contains("the machine is short of something"), "{run:?}");
        assert!(home.read("error.log").contains("not one of 25 threads could be made"), "{run:?}");
        assert!(!home.path("ostler.pid").exists(), "a PidFile is left behind");
    }
}

#[test]
fn a_refused_reload_is_told_by_the_status() {
    let backend = Backend::start();
    let good = format!("MPM event\nProxyPass / {}/", backend.url());
    let daemon = Daemon::at(Home::new(), &good);
    daemon.tolerate(":error]");
    daemon.home().write_whole(&format!("{good}\nNoSuchDirective on"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("reload refused, still serving generation 1");
    daemon.home().write_whole(&good);
    let status = daemon.wait_for_status("the refusal", |status| status.text.contains("NoSuchDirective"));
    assert!(status.text.contains("generation 1"), "{}", status.text);
    assert_eq!(daemon.get("/").status, 200);
}

/// A process that has nothing to do with the daemon, and notes every signal that it gets.
struct Bystander {
    process: std::process::Child,
    notes: std::path::PathBuf,
}

impl Bystander {
    #[track_caller]
    fn start(home: &Path) -> Self {
        let notes = home.join("signals");
        let ready = home.join("ready");
        let script = "for s in HUP INT QUIT USR1 USR2 TERM WINCH CONT CHLD SEGV ABRT ALRM PIPE; do \
                      trap \"echo $s >> $0\" $s; done; : > $1; while :; do read -r line; done";
        let process = Command::new("sh")
            .args(["-c", script])
            .arg(&notes)
            .arg(&ready)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("there is a shell");
        wait_until("the bystander", || ready.exists().then_some(()));
        Self { process, notes }
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Panics if it has been signalled.
    #[track_caller]
    fn is_unharmed(&mut self) {
        assert!(self.process.try_wait().expect("our own child").is_none(), "it is dead");
        assert_eq!(fs::read_to_string(&self.notes).unwrap_or_default(), "", "it was signalled");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes all over a file until it is dropped.
struct Noise {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Noise {
    /// `fill` gets a buffer as long as the file.
    fn start(path: &Path, mut fill: Fill) -> Self {
        let file = fs::OpenOptions::new().write(true).open(path).expect("it is there");
        let length = file.metadata().expect("open").len();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; usize::try_from(length).expect("small")];
            let mut rounds = 0;
            while !flag.load(Ordering::Relaxed) {
                fill(&mut buffer);
                file.write_all_at(&buffer, 0).expect("a file of that length");
                rounds += 1;
                std::thread::sleep(Duration::from_micros(500));
            }
            rounds
        });
        Self { stop, thread: Some(thread) }
    }

    /// How often it has written.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().expect("it only writes"))
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Fills a buffer, anew each time it is called.
type Fill = Box<dyn FnMut(&mut [u8]) + Send>;

/// What a hostile child might fill the scoreboard with. The front is spared by some, so that what comes after it is
/// read at all.
fn noises(bystander: u32, front: usize) -> Vec<(&'static str, Fill)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    vec![
        (
            "random",
            Box::new(move |buffer: &mut [u8]| {
                buffer
                    .chunks_mut(8)
                    .for_each(|word| word.copy_from_slice(&random().to_le_bytes()[..word.len()]));
            }),
        ),
        ("all ones", Box::new(|buffer: &mut [u8]| buffer.fill(0xff))),
        ("all zeros", Box::new(|buffer: &mut [u8]| buffer.fill(0))),
        (
            "the bystander's pid everywhere",
            Box::new(move |buffer: &mut [u8]| {
                buffer
                    .chunks_mut(4)
                    .for_each(|word| word.copy_from_slice(&bystander.to_le_bytes()[..word.len()]));
            }),
        ),
        (
            "the bystander's pid behind the front",
            Box::new(move |buffer: &mut [u8]| {
                let rest = &mut buffer[front..];
                rest.chunks_mut(4)
                    .for_each(|word| word.copy_from_slice(&bystander.to_le_bytes()[..word.len()]));
            }),
        ),
    ]
}

under_each_mpm! {
    fn a_scoreboard_full_of_noise_harms_nobody(mpm) {
        let backend = Backend::start();
        let limits = if mpm.is_prefork() {
            "ServerLimit 6\nMaxRequestWorkers 6\nStartServers 2\nMinSpareServers 1\nMaxSpareServers 4\n"
        } else {
            "ServerLimit 4\nThreadLimit 4\nThreadsPerChild 4\nMaxRequestWorkers 16\nStartServers 2\n\
             MinSpareThreads 2\nMaxSpareThreads 10\n"
        };
        let mut daemon = Daemon::under(
            mpm,
            &format!(
                "{limits}ExtendedStatus On\nMaxRequestsPerChild 40\nChildStallTimeout 10\n\
                 <Location \"/server-status\">\nSetHandler server-status\n</Location>\n\
                 ProxyPass /server-status !\nProxyPass / {}/",
                backend.url()
            ),
        );
        for words in ["child", "scoreboard", "server-status"] {
            daemon.tolerate(words);
        }
        let page = daemon.get("/server-status?auto");
        assert!(String::from_utf8_lossy(&page.body).contains("Scoreboard: "), "it is the page that is asked for");
        let mut bystander = Bystander::start(&daemon.home().path(""));
        let board = daemon.home().path("scoreboard");
        let config = daemon.home().config().to_string_lossy().into_owned();
        let mut generation = 1;
        for (name, noise) in noises(bystander.pid(), 8192) {
            println!("{}: {name}", mpm.name());
            let noise = Noise::start(&board, noise);
            let load = Load::start(daemon.address(), 3, "/bytes/3000", Duration::from_millis(2));
            // A child dies.
            let victim = wait_until("a child", || daemon.children().first().copied());
            let _ = kill(Pid::from_raw(victim), Signal::SIGKILL);
            daemon.wait_for_line("its end", |line| line.contains(&format!("child {victim} ")));
            assert_eq!(daemon.get("/").status, 200, "{name}");
            // A reload.
            daemon.signal(Signal::SIGHUP);
            generation += 1;
            daemon.wait_for_log(&format!("] serving generation {generation} "));
            assert_eq!(daemon.get("/").status, 200, "{name}");
            // Those who read it say something, or that there is nothing to be said.
            for arguments in [vec!["status", "-f", &config], vec!["-k", "status", "-f", &config]] {
                let run = ostler(&arguments);
                let said = run.stdout.clone() + &run.stderr;
                assert!(run.code.is_some() && !said.is_empty() && !said.contains("panicked"), "{name}: {run:?}");
            }
            for query in ["", "?auto", "?json"] {
                let page = daemon.get(&format!("/server-status{query}"));
                assert!([200, 503].contains(&page.status), "{name}: {}", page.status);
            }
            let seen = load.finish();
            // The victim may have held one of each client.
            assert!(seen.served > 0 && seen.failures.len() <= 3, "{name}: {:?}", seen.failures);
            assert!(noise.end() > 1, "{name}: it has written");
            bystander.is_unharmed();
        }
        assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
        // A graceful stop under noise, with a request under way.
        let mut held = daemon.ask("/hold");
        backend.wait_for_now(1);
        let (_, noise) = noises(bystander.pid(), 8192).swap_remove(3);
        let noise = Noise::start(&board, noise);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_log("stopping gracefully");
        backend.release();
        assert_eq!(held.answer("GET").expect("an answer").status, 200);
        assert_eq!(daemon.wait_for_end().and_then(|status| status.code()), Some(0));
        noise.end();
        bystander.is_unharmed();
    }

    fn no_child_can_shorten_the_scoreboard(mpm) {
        // A store to a mapping behind the end of its file is a SIGBUS, the master's too.
        let backend = Backend::start();
        let user = if is_root() { "User nobody\nGroup nogroup\n" } else { "" };
        for place in ["", "ScoreBoardFile none\n"] {
            let text = format!("{user}{place}ProxyPass / {}/", backend.url());
            let daemon = Daemon::under(mpm, &text);
            for child in daemon.children() {
                let mut boards = 0;
                for entry in fs::read_dir(format!("/proc/{child}/fd")).expect("it runs").flatten() {
                    let target = fs::read_link(entry.path()).unwrap_or_default();
                    if !target.to_string_lossy().contains("scoreboard") {
                        continue;
                    }
                    boards += 1;
                    let number = entry.file_name().to_string_lossy().into_owned();
                    let info = fs::read_to_string(format!("/proc/{child}/fdinfo/{number}")).expect("it is open");
                    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags").trim();
                    let flags = u32::from_str_radix(flags, 8).expect("octal");
                    assert_eq!(flags & 3, 0, "{number} -> {} can write: {info}", target.display());
                    // Nor may the child's user open it again for writing, by whatever name.
                    let facts = fs::metadata(entry.path()).expect("it is open");
                    let others = processes::figure(child, "Uid").map(|uid| uid as u32);
                    assert!(!is_root() || others != Some(facts.uid()), "it is the child's own");
                    assert_eq!(facts.mode() & 0o022, 0, "{:o}", facts.mode());
                }
                assert_eq!(boards, 1, "one descriptor to read by");
            }
        }
    }
}
