//! The first command a newcomer types: it serves at once, on loopback only, and says what to try.

use crate::support::{Client, Mpm, PATIENCE, processes, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex::Regex;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A running program with its output in a file; killed with all its children when dropped.
struct Running {
    process: Child,
    dir: tempfile::TempDir,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let output = File::create(dir.path().join("output")).expect("the directory is the test's own");
        let second = output.try_clone().expect("a descriptor is free");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
        command.args(arguments).current_dir(dir.path()).env("HOME", dir.path());
        let command = command.stdin(Stdio::null()).stdout(output).stderr(second).process_group(0);
        Self { process: command.spawn().expect("the program can be run"), dir }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("the kernel's numbers are small")
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("output")).expect("the program writes text")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (pid, output) = (self.pid(), self.output());
        let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        let start = std::time::Instant::now();
        let is_over = |process: &mut Child| matches!(process.try_wait(), Ok(Some(_)));
        while !(is_over(&mut self.process) && processes::members(pid).is_empty())
            && start.elapsed() < PATIENCE
        {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let left = processes::members(pid);
        for member in &left {
            let _ = kill(Pid::from_raw(*member), Signal::SIGKILL);
        }
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("---- output\n{output}");
        } else {
            assert!(left.is_empty(), "Ctrl-C leaves {left:?} behind\n{output}");
        }
    }
}

fn addresses(text: &str) -> Vec<std::net::SocketAddr> {
    let pattern = Regex::new(r"127\.0\.0\.1:\d+").expect("a literal pattern");
    let mut found: Vec<_> = pattern.find_iter(text).filter_map(|word| word.as_str().parse().ok()).collect();
    found.dedup();
    found
}

under_each_mpm! {
    fn the_demo_serves_at_once_and_prints_what_to_try(mpm) {
        let demo = Running::start(&["demo", "--mpm", mpm.name(), "--port", "0"]);
        let url = Regex::new(r"http://(127\.0\.0\.1:\d+)(/\S*)").expect("a literal pattern");
        let urls = wait_until("three URLs to try", || {
            let output = demo.output();
            let urls: Vec<(String, String)> = url
                .captures_iter(&output)
                .map(|found| (found[1].to_owned(), found[2].trim_end_matches(['`', '\'', '"', '.', ',']).to_owned()))
                .collect();
            (urls.len() >= 3 && !urls[0].0.ends_with(":0")).then_some(urls)
        });
        for (authority, target) in urls.iter().take(3) {
            let answer = Client::connect(authority.parse().expect("an address")).get(target).expect("an answer");
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--fail", "--noproxy", "*", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}"]);
            curl.arg(format!("http://{authority}{target}"));
            assert_eq!(crate::support::daemon::run(curl).stdout, "200", "{target}");
        }
        let status = urls.iter().find(|(_, target)| target.contains("status")).expect("the status page is one of them");
        let page = Client::connect(status.0.parse().expect("an address")).get(&status.1).expect("an answer");
        assert!(page.text().contains(mpm.name()), "{}", page.text());
    }

    fn the_one_liner_serves(mpm) {
        let backend = crate::support::Backend::start();
        let url = backend.url();
        let running = Running::start(&["--listen", "127.0.0.1:0", "--to", &url, "--mpm", mpm.name()]);
        let origin = backend.authority();
        let address = wait_until("its address", || {
            let found = addresses(&running.output());
            found.into_iter().find(|address| address.port() != 0 && address.to_string() != origin)
        });
        let answer = Client::connect(address).get("/x?y").expect("an answer");
        assert_eq!(answer.echo().target(), "/x?y");
        let children = processes::children_of(running.pid());
        assert!(!children.is_empty());
        assert!(running.output().lines().count() <= 12, "few lines:\n{}", running.output());
    }
}

#[test]
fn a_taken_port_is_no_obstacle_to_the_demo() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let port = taken.local_addr().expect("bound").port().to_string();
    let demo = Running::start(&["demo", "--port", &port, "--mpm", Mpm::Event.name()]);
    let url = Regex::new(r"http://(127\.0\.0\.1:\d+)/").expect("a literal pattern");
    let authority = wait_until("another port", || {
        let output = demo.output();
        let found = url.captures(&output)?[1].to_owned();
        (!found.ends_with(&format!(":{port}"))).then_some(found)
    });
    assert_eq!(
        Client::connect(authority.parse().expect("an address")).get("/").expect("an answer").status,
        200
    );
}
