//! What a file means, as `-t` tells it and as the running daemon shows it.

use crate::support::{Backend, Daemon, Home, Run, ostler};

/// The founding document's two configurations, as they stand there.
const SEEDS: [(&str, &str, &str); 2] =
    [("seed-worker.conf", "6 x 25 = 150", "150"), ("seed-worker-limits.conf", "32 x 128 = 4096", "4096")];

fn seed(name: &str) -> String {
    format!("{}/tests/configs/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// `-t` of a whole file.
#[track_caller]
fn check(text: &str) -> Run {
    let home = Home::new();
    let config = home.write_whole(text);
    let run = ostler(&["-t", "-f", &config.to_string_lossy()]);
    for left in ["ostler.pid", "scoreboard", "error.log"] {
        assert!(!home.path(left).exists(), "-t leaves {left} behind");
    }
    run
}

#[test]
fn the_founding_configurations_load_as_they_stand() {
    for (name, product, workers) in SEEDS {
        let run = check(&format!("Include \"{}\"\nProxyPass / http://127.0.0.1:9/", seed(name)));
        assert_eq!(run.code, Some(0), "{name}: {run:?}");
        let all = run.stdout.clone() + &run.stderr;
        assert!(all.contains("Syntax OK"), "{name}: {all}");
        let (children, rest) = product.split_once(" x ").expect("a product");
        let threads = rest.split(' ').next().expect("a product");
        let is_it = |line: &str| {
            line.contains("worker")
                && [children, threads, workers].iter().all(|number| has_number(line, number))
        };
        assert!(all.lines().any(is_it), "{name}: {product} in {all}");
        // The old spellings are told, each with today's.
        for (old, new) in [
            ("MaxClients", ["MaxRequestWorkers"].as_slice()),
            ("MaxRequestPerChild", &["MaxRequestsPerChild", "MaxConnectionsPerChild"]),
        ] {
            let is_told = all.contains(old) && new.iter().any(|name| all.contains(name));
            assert!(is_told, "{name}: {old}, today one of {new:?}, in {all}");
        }
    }
}

fn has_number(line: &str, number: &str) -> bool {
    line.split(|c: char| !c.is_ascii_digit()).any(|word| word == number)
}

#[test]
fn the_founding_configurations_serve() {
    let backend = Backend::start();
    for (name, _, _) in SEEDS {
        let home = Home::new();
        let text = format!("Include \"{}\"\nProxyPass / {}/", seed(name), backend.url());
        let daemon = Daemon::at(home, &text);
        assert_eq!(daemon.get("/").status, 200, "{name}");
        assert_eq!(daemon.children().len(), 2, "{name}");
        let threads = if name == "seed-worker.conf" { 25 } else { 128 };
        let status = daemon.status();
        assert_eq!(status.busy + status.idle, 2 * threads, "{name}: {}", status.text);
    }
}

#[test]
fn the_driver_is_what_the_file_says_or_implies() {
    for (text, want) in [
        ("", "event"),
        ("MPM worker", "worker"),
        ("LoadModule mpm_prefork_module modules/mod_mpm_prefork.so", "prefork"),
        ("<IfModule mpm_worker_module>\nStartServers 1\n</IfModule>", "worker"),
        (
            "<IfModule mpm_worker_module>\nStartServers 1\n</IfModule>\n<IfModule prefork.c>\nStartServers 1\n</IfModule>",
            "event",
        ),
        ("MPM event\n<IfModule mpm_worker_module>\nThreadsPerChild 1\nNonsense 1\n</IfModule>", "event"),
    ] {
        let run = check(&format!("{text}\nProxyPass / http://127.0.0.1:9/"));
        assert_eq!(run.code, Some(0), "{text}: {run:?}");
        let all = run.stdout + &run.stderr;
        assert!(
            all.lines().any(|line| line.contains(want) && line.contains("worker")),
            "{text}: {want} in {all}"
        );
    }
}

#[test]
fn clamps_are_spoken_of_and_hold() {
    let run = check("MPM worker\nThreadsPerChild 100\nProxyPass / http://127.0.0.1:9/");
    assert_eq!(run.code, Some(0), "{run:?}");
    let all = run.stdout + &run.stderr;
    assert!(all.contains("ThreadLimit"), "{all}");
    let holds = |line: &str| has_number(line, "6") && has_number(line, "64") && has_number(line, "384");
    assert!(all.lines().any(holds), "6 children x 64 threads = 384 workers in {all}");
}

#[test]
fn every_fault_is_told_with_its_place() {
    let text = "ProxyPass / http://127.0.0.1:9/\nKeepAlve On\nTimeout never\n<VirtualHost *:80>\nMPM event\n";
    let home = Home::new();
    let config = home.write_whole(text);
    let run = ostler(&["-t", "-f", &config.to_string_lossy()]);
    assert_eq!(run.code, Some(1), "{run:?}");
    let whole = home.read("ostler.conf");
    let all = run.stdout + &run.stderr;
    for (line, hint) in
        [("KeepAlve On", "KeepAlive"), ("Timeout never", "never"), ("<VirtualHost *:80>", "VirtualHost")]
    {
        let number = whole.lines().position(|known| known == line).expect("written above") + 1;
        assert!(all.contains(&format!("ostler.conf:{number}:")), "{line}, line {number}, in {all}");
        assert!(all.contains(hint), "{hint} in {all}");
        assert!(all.contains(line), "the line itself, {line}, in {all}");
    }
    assert!(all.contains('^'), "a caret in {all}");
    assert!(!all.contains("Syntax OK"), "{all}");
}

#[test]
fn the_language_has_its_comments_continuations_variables_and_includes() {
    let backend = Backend::start();
    let home = Home::new();
    std::fs::create_dir(home.path("more")).expect("the test's own");
    std::fs::write(home.path("more/1.conf"), "Define BASE /one\n").expect("the test's own");
    std::fs::write(home.path("more/2.conf"), format!("Define ORIGIN {}\n", backend.url()))
        .expect("the test's own");
    let text = format!(
        "IncludeOptional \"{0}/none-*.conf\"\nInclude \"{0}/more/*.conf\"\n\
         KeepAliveTimeout\t7   # a comment behind its arguments\n\
         <IfDefine ORIGIN>\nProxyPass \\\n  \"/quoted path\" \\\n  ${{ORIGIN}}${{BASE}}\n</IfDefine>\n\
         <IfFile \"{0}/no-such-file\">\nNonsense\n</IfFile>\n<IfModule !mod_nothing.c>\nProxyPass /plain ${{ORIGIN}}/plain\n</IfModule>\n",
        home.path("").display().to_string().trim_end_matches('/'),
    );
    let daemon = Daemon::at(home, &text);
    assert_eq!(daemon.get("/quoted%20path/x").echo().target(), "/one/x");
    assert_eq!(daemon.get("/plain/x").echo().target(), "/plain/x");
}

#[test]
fn the_one_liner_needs_no_file() {
    let backend = Backend::start();
    let run =
        ostler(&["--listen", "127.0.0.1:0", "--to", &backend.url(), "--mpm", "worker", "--print-config"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("Listen 127.0.0.1:0") && run.stdout.contains(&backend.url()), "{run:?}");
    // What it prints is a file that does the same; only the log is wanted where the test can read it.
    assert!(run.stdout.contains("ErrorLog /dev/stderr\n"), "{run:?}");
    let daemon = Daemon::at(Home::new(), &run.stdout.replace("ErrorLog /dev/stderr\n", ""));
    assert_eq!(daemon.get("/x").echo().target(), "/x");
}

#[test]
fn lists_of_directives_and_modules_are_printed() {
    let run = ostler(&["-L"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for name in ["MaxRequestWorkers", "ProxyPass", "KeepAliveTimeout", "ScoreBoardFile"] {
        assert!(run.stdout.contains(name), "{name} in {run:?}");
    }
    assert_eq!(ostler(&["-v"]).code, Some(0));
}
