//! Children and threads: the founding configurations, the reference's vectors, every clamp.

use super::super::files::MemoryFiles;
use super::super::model::{ChildLimits, Mpm};
use super::super::{Severity, effective};
use super::*;

fn numbers(limits: &ChildLimits) -> [u32; 7] {
    let ChildLimits { start, server_limit, thread_limit, threads_per_child, .. } = *limits;
    let ChildLimits { max_request_workers, min_spare, max_spare, .. } = *limits;
    [start, server_limit, thread_limit, threads_per_child, max_request_workers, min_spare, max_spare]
}

#[test]
fn without_a_word_the_defaults_of_the_mpm_hold() {
    for (mpm, want) in [
        (Mpm::Event, [3, 16, 64, 25, 400, 75, 250]),
        (Mpm::Worker, [3, 16, 64, 25, 400, 75, 250]),
        (Mpm::Prefork, [5, 256, 1, 1, 256, 5, 10]),
    ] {
        let loaded = good(&format!("MPM {}", mpm.name()));
        assert_eq!(loaded.config.mpm, mpm);
        assert_eq!(numbers(&loaded.config.limits), want, "{mpm:?}");
        assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
        let limits = loaded.config.limits;
        assert_eq!((limits.max_connections_per_child, limits.max_requests_per_child), (None, None));
        assert_eq!((limits.max_connections_per_process, limits.thread_stack_size), (None, None));
    }
}

#[test]
fn the_founding_configurations_load_as_they_stand() {
    let first = include_str!("../../../tests/configs/seed-worker.conf");
    let second = include_str!("../../../tests/configs/seed-worker-limits.conf");
    for (text, want, line) in [
        (
            first,
            [2, 16, 64, 25, 150, 25, 75],
            "worker: 6 children x 25 threads = 150 workers, scoreboard 412 KiB",
        ),
        (
            second,
            [2, 32, 128, 128, 4096, 25, 154],
            "worker: 32 children x 128 threads = 4096 workers, scoreboard 412 KiB",
        ),
    ] {
        let files = MemoryFiles::default().with("/etc/ostler/seed.conf", text);
        let main = "Listen 80\nProxyPass / http://127.0.0.1:3000/\nInclude seed.conf\n";
        let loaded = run_with(main, &Options::default(), &files).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(loaded.config.mpm, Mpm::Worker);
        assert_eq!(numbers(&loaded.config.limits), want);
        assert_eq!(effective(&loaded.config, 412 * 1024).lines().next(), Some(line));
        let warnings = said(&loaded.notes, Severity::Warning).join("\n");
        for wanted in [
            "MaxRequestPerChild is misspelt, but understood; its name is MaxRequestsPerChild",
            "MaxClients is an old name; today it is MaxRequestWorkers",
        ] {
            assert!(warnings.contains(wanted), "{warnings}");
        }
        let notes = said(&loaded.notes, Severity::Note).join("\n");
        assert!(notes.contains("the MPM is worker"), "{notes}");
    }
}

#[test]
fn every_clamp_speaks() {
    for (text, want, said) in [
        // The reference's vectors 1, 2 and 4.
        (
            "ThreadsPerChild 100",
            [3, 16, 64, 64, 384, 75, 250],
            &[
                "note 1:17 MaxRequestWorkers (400 by default) is no multiple of ThreadsPerChild 64; 384 holds",
                "warning 1:17 ThreadsPerChild 100 is above ThreadLimit (64 by default); 64 holds; \
                 a line \"ThreadLimit 100\" would allow it",
            ] as &[&str],
        ),
        (
            "MaxRequestWorkers 90",
            [3, 16, 64, 25, 75, 75, 250],
            &[
                "warning 1:19 MaxRequestWorkers 90 is no multiple of ThreadsPerChild (25 by default); 75 holds",
            ],
        ),
        (
            "MaxRequestWorkers 900",
            [3, 16, 64, 25, 400, 75, 250],
            &[
                "warning 1:19 MaxRequestWorkers 900 needs 36 children, above ServerLimit (16 by default); 400 holds; \
               a line \"ServerLimit 36\" would allow it",
            ],
        ),
        (
            "MinSpareThreads 0",
            [3, 16, 64, 25, 400, 1, 250],
            &["warning 1:17 MinSpareThreads 0 is below 1; 1 holds"],
        ),
        (
            "MinSpareThreads 75\nMaxSpareThreads 75",
            [3, 16, 64, 25, 400, 75, 101],
            &["warning 2:17 MaxSpareThreads 75 is below MinSpareThreads + ThreadsPerChild + 1; 101 holds; \
               or ending one child would at once make another one needed"],
        ),
        // The others, in the order of the reference.
        (
            "ServerLimit 0",
            [1, 1, 64, 25, 25, 25, 250],
            &[
                "warning 1:13 ServerLimit 0 is below 1; 1 holds",
                "note 1:13 MaxRequestWorkers (400 by default) needs 16 children, above ServerLimit 1; 25 holds; \
             a line \"ServerLimit 16\" would allow it",
                "note 1:13 StartServers (3 by default) is above the most children, 1; 1 holds",
                "note 1:13 MinSpareThreads (75 by default) is above MaxRequestWorkers 25; 25 holds",
            ],
        ),
        (
            "ServerLimit 20001",
            [3, 20000, 64, 25, 400, 75, 250],
            &["warning 1:13 ServerLimit 20001 is above 20000; 20000 holds"],
        ),
        (
            "ThreadLimit 100001",
            [3, 16, 100_000, 25, 400, 75, 250],
            &["warning 1:13 ThreadLimit 100001 is above 100000; 100000 holds"],
        ),
        (
            "ThreadsPerChild 0\nThreadLimit 0",
            [3, 16, 1, 1, 16, 16, 250],
            &[
                "warning 1:17 ThreadsPerChild 0 is below 1; 1 holds",
                "note 1:17 MaxRequestWorkers (400 by default) needs 400 children, above ServerLimit (16 by default); \
             16 holds; a line \"ServerLimit 400\" would allow it",
                "note 1:17 MinSpareThreads (75 by default) is above MaxRequestWorkers 16; 16 holds",
                "warning 2:13 ThreadLimit 0 is below 1; 1 holds",
            ],
        ),
        (
            "MaxRequestWorkers 10",
            [1, 16, 64, 25, 25, 25, 250],
            &[
                "warning 1:19 MaxRequestWorkers 10 is below ThreadsPerChild (25 by default); 25 holds",
                "note 1:19 StartServers (3 by default) is above the most children, 1; 1 holds",
                "note 1:19 MinSpareThreads (75 by default) is above MaxRequestWorkers 25; 25 holds",
            ],
        ),
        (
            "StartServers 0",
            [1, 16, 64, 25, 400, 75, 250],
            &["warning 1:14 StartServers 0 is below 1; 1 holds"],
        ),
        (
            "StartServers 17",
            [16, 16, 64, 25, 400, 75, 250],
            &["warning 1:14 StartServers 17 is above the most children, 16; 16 holds"],
        ),
        (
            "MPM prefork\nMaxRequestWorkers 300",
            [5, 256, 1, 1, 256, 5, 10],
            &[
                "warning 2:19 MaxRequestWorkers 300 needs 300 children, above ServerLimit (256 by default); 256 holds; \
             a line \"ServerLimit 300\" would allow it",
            ],
        ),
        (
            "MPM prefork\nMaxRequestWorkers 0\nMinSpareServers 0\nMaxSpareServers 1",
            [1, 256, 1, 1, 1, 1, 2],
            &[
                "warning 2:19 MaxRequestWorkers 0 is below 1; 1 holds",
                "note 2:19 StartServers (5 by default) is above the most children, 1; 1 holds",
                "warning 3:17 MinSpareServers 0 is below 1; 1 holds",
                "warning 4:17 MaxSpareServers 1 is below MinSpareServers + 1; 2 holds; \
             or ending one child would at once make another one needed",
            ],
        ),
        (
            "MPM worker\nThreadLimit 20001",
            [3, 16, 20_000, 25, 400, 75, 250],
            &["warning 2:13 ThreadLimit 20001 is above 20000; 20000 holds"],
        ),
        // Numbers at the edge of what they are counted in.
        (
            "MPM prefork\nServerLimit 4294967295\nMaxRequestWorkers 4294967295\nStartServers 1",
            [1, 200_000, 1, 1, 200_000, 5, 10],
            &[
                "warning 2:13 ServerLimit 4294967295 is above 200000; 200000 holds",
                "warning 3:19 MaxRequestWorkers 4294967295 needs 4294967295 children, above ServerLimit 200000; \
             200000 holds; a line \"ServerLimit 200000\" would allow it",
            ],
        ),
    ] {
        let loaded = good(text);
        assert_eq!(numbers(&loaded.config.limits), want, "{text}");
        let got: Vec<String> = notes(text).into_iter().filter(|note| !note.contains("the MPM is")).collect();
        let mut want: Vec<&str> = said.to_vec();
        let mut got: Vec<&str> = got.iter().map(String::as_str).collect();
        want.sort_unstable();
        got.sort_unstable();
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got.replace(": ", " "), want.replace(": ", " "), "{text}");
        }
        assert_eq!(got.len(), want.len(), "{text}\n{got:#?}");
    }
}

#[test]
fn a_number_that_is_none_is_refused_with_its_place() {
    // The reference's vector 3.
    assert_eq!(faults("StartServers abc"), ["1:14: StartServers: \"abc\" is not a number"]);
    assert_eq!(faults("StartServers -1"), ["1:14: StartServers: \"-1\" is below 0"]);
    assert_eq!(
        faults("StartServers 99999999999"),
        ["1:14: StartServers: 99999999999 is too large; 4294967295 is the most"]
    );
}

#[test]
fn children_are_recycled_by_requests_or_by_connections() {
    let limits = good("MaxRequestsPerChild 200\nMaxConnectionsPerChild 100").config.limits;
    assert_eq!(limits.max_requests_per_child.map(u64::from), Some(200));
    assert_eq!(limits.max_connections_per_child.map(u64::from), Some(100));
    let told = notes("MaxRequestsPerChild 200");
    assert_eq!(
        told,
        ["note 1:1: this counts requests here, where httpd counts connections; \
          MaxConnectionsPerChild counts connections; of both, the first reached counts"]
    );
    assert!(notes("MaxRequestsPerChild 0").is_empty());
}

#[test]
fn old_and_misspelt_names_are_understood_and_the_last_line_counts() {
    let loaded = good("MaxRequestWorkers 50\nMaxClients 100\nThreadPerChild 50");
    assert_eq!(loaded.config.limits.max_request_workers, 100);
    assert_eq!(loaded.config.limits.threads_per_child, 50);
    let warnings = said(&loaded.notes, Severity::Warning);
    assert_eq!(
        warnings,
        [
            "2:1: MaxClients is an old name; today it is MaxRequestWorkers",
            "3:1: ThreadPerChild is misspelt, but understood; its name is ThreadsPerChild",
        ]
    );
}

#[test]
fn bounds_that_cannot_hold_are_raised() {
    let limits = good("MaxConnectionsPerProcess 5\nThreadStackSize 100").config.limits;
    assert_eq!(limits.max_connections_per_process.map(u32::from), Some(25));
    assert_eq!(limits.thread_stack_size, Some(65_536));
    assert_eq!(good("ThreadStackSize 1M").config.limits.thread_stack_size, Some(1 << 20));
}

#[test]
fn what_will_hold_fits_in_a_line() {
    for (text, want) in [
        ("", "event: 16 children x 25 threads = 400 workers, scoreboard 3 KiB"),
        ("MPM prefork", "prefork: 256 children = 256 workers, scoreboard 3 KiB"),
        ("MPM prefork\nMaxRequestWorkers 1", "prefork: 1 child = 1 worker, scoreboard 3 KiB"),
        (
            "MPM worker\nMaxRequestWorkers 1\nThreadsPerChild 1",
            "worker: 1 child x 1 thread = 1 worker, scoreboard 3 KiB",
        ),
    ] {
        let text = effective(&good(text).config, 2049);
        let (first, second) = text.split_once('\n').expect("two lines");
        assert_eq!(first, want);
        assert!(second.starts_with("while a reload drains old children, up to "), "{second}");
    }
}
