//! What is decided while lines are read: the MPM, conditions, variables, includes.

use super::super::files::MemoryFiles;
use super::super::model::Mpm;
use super::super::{Severity, one_liner};
use super::*;

#[test]
fn the_mpm_is_found_wherever_it_is_named() {
    for (text, want) in [
        ("", Mpm::Event),
        ("MPM worker", Mpm::Worker),
        ("mpm PREFORK", Mpm::Prefork),
        ("LoadModule mpm_worker_module modules/mod_mpm_worker.so", Mpm::Worker),
        ("<IfModule mpm_worker_module>\nMaxClients 150\n</IfModule>", Mpm::Worker),
        ("<IfModule worker.c>\nMaxClients 150\n</IfModule>", Mpm::Worker),
        ("<IfModule mpm_prefork_module>\n</IfModule>\n<IfModule prefork.c>\n</IfModule>", Mpm::Prefork),
        // Two of them say nothing.
        ("<IfModule mpm_worker_module>\n</IfModule>\n<IfModule mpm_prefork_module>\n</IfModule>", Mpm::Event),
        // A negation says nothing either.
        ("<IfModule !mpm_prefork_module>\n</IfModule>", Mpm::Event),
        // A line that names it is stronger, wherever it stands.
        ("<IfModule mpm_worker_module>\nMaxClients 150\n</IfModule>\nMPM event", Mpm::Event),
        (
            "<IfModule !mpm_event_module>\n<IfModule !mpm_worker_module>\nLoadModule mpm_prefork_module x\n</IfModule>\n</IfModule>",
            Mpm::Prefork,
        ),
        ("# MPM worker\n<IfModule ssl_module>\nMPM worker\n</IfModule>", Mpm::Event),
    ] {
        assert_eq!(good(text).config.mpm, want, "{text}");
    }
}

#[test]
fn lines_of_another_mpm_are_passed_over_in_its_section_and_refused_outside() {
    let text = "<IfModule mpm_prefork_module>\nMinSpareServers x\nNonsense\n</IfModule>\nMPM worker";
    assert!(notes(text).is_empty());
    assert_eq!(
        faults("MPM worker\nMinSpareServers 5"),
        ["2:1: MinSpareServers belongs to prefork, and the MPM is worker; \
          within <IfModule mpm_prefork_module> it holds only where it belongs"]
    );
    assert_eq!(
        faults("MPM prefork\nThreadsPerChild 25\nAsyncRequestWorkerFactor 2"),
        [
            "2:1: ThreadsPerChild belongs to event and worker, and the MPM is prefork; \
             within <IfModule !mpm_prefork_module> it holds only where it belongs",
            "3:1: AsyncRequestWorkerFactor belongs to event, and the MPM is prefork; \
             within <IfModule mpm_event_module> it holds only where it belongs",
        ]
    );
}

#[test]
fn two_mpms_are_a_fault_unless_the_command_line_decides() {
    let text = "MPM worker\nLoadModule mpm_event_module x.so";
    assert_eq!(
        faults(text),
        [
            "2:12: the MPM is worker already, by ostler.conf:1; one MPM runs at a time; leave one of the two lines out"
        ]
    );
    let options = Options { mpm: Some(Mpm::Prefork), ..options() };
    let loaded = run_with("MPM worker", &options, &MemoryFiles::default()).expect("loads");
    assert_eq!(loaded.config.mpm, Mpm::Prefork);
    assert_eq!(said(&loaded.notes, Severity::Note), ["1:5: the command line says prefork instead"]);
}

#[test]
fn conditions_hold_or_not() {
    for (condition, holds) in [
        ("<IfModule mod_proxy.c>", true),
        ("<IfModule proxy_module>", true),
        ("<IfModule !mod_proxy.c>", false),
        ("<IfModule mod_ssl.c>", false),
        ("<IfModule !ssl_module>", true),
        ("<IfModule mpm_event_module>", true),
        ("<IfModule mpm_prefork_module>", false),
        ("<IfDefine GIVEN>", true),
        ("<IfDefine !GIVEN>", false),
        ("<IfDefine MISSING>", false),
        ("<IfFile there.conf>", true),
        ("<IfFile /etc/ostler/there.conf>", true),
        ("<IfFile !there.conf>", false),
        ("<IfFile absent.conf>", false),
        ("<IfFile /etc/ostler>", true),
        ("<IfFile !.>", false),
        ("<IfVersion >= 2.4>", true),
        ("<IfVersion 2.4.68>", true),
        ("<IfVersion !>= 2.4>", false),
        ("<IfVersion < 2.4>", false),
        ("<IfVersion = 2.2>", false),
        ("<IfDirective ProxyPass>", true),
        ("<IfDirective SSLEngine>", false),
        ("<IfSection Location>", true),
        ("<IfSection !Directory>", true),
    ] {
        let name = condition[1..].split_whitespace().next().expect("a name");
        let text = format!("MPM event\n{condition}\nTimeout 7\n</{name}>");
        let options = Options { defines: vec!["GIVEN".to_owned()], ..options() };
        let files = MemoryFiles::default().with("/etc/ostler/there.conf", "");
        let loaded = run_with(&text, &options, &files).unwrap_or_else(|faults| panic!("{text}\n{faults}"));
        assert_eq!(loaded.config.hosts[0].timeout.as_secs() == 7, holds, "{condition}");
    }
}

#[test]
fn a_module_that_is_almost_one_is_asked_about() {
    assert_eq!(
        notes("<IfModule mpm_workers_module>\n</IfModule>"),
        ["warning 1:11: there is no module \"mpm_workers_module\"; did you mean mpm_worker_module?"]
    );
}

#[test]
fn only_built_in_modules_load() {
    let text = "LoadModule proxy_module modules/mod_proxy.so\nLoadModule proxy_http_module x\nLoadModule status_module x\n\
                LoadModule log_config_module x\nLoadModule reqtimeout_module x\nLoadModule authz_core_module x\n\
                LoadModule authz_host_module x\nLoadModule unixd_module x\nLoadModule so_module x";
    assert!(notes(text).is_empty());
    assert_eq!(
        faults("LoadModule ssl_module modules/mod_ssl.so\nLoadModule prxy_module x\nLoadModule my_own x"),
        [
            "1:12: TLS: not built in yet (ssl_module)",
            "2:12: there is no module \"prxy_module\" in Ostler; did you mean proxy_module?",
            "3:12: there is no module \"my_own\" in Ostler; modules are parts of the program; none can be loaded",
        ]
    );
}

#[test]
fn variables_come_from_define_the_command_line_and_the_environment() {
    let options = Options {
        defines: vec!["FROM_FLAG=12".to_owned()],
        environment: vec![("FROM_OUTSIDE".to_owned(), "13".to_owned())],
        ..options()
    };
    let text = "Define here 11\nDefine both ${here}1\nTimeout ${here}\nKeepAliveTimeout ${FROM_FLAG}\n\
                ProxyTimeout ${FROM_OUTSIDE}\nLimitRequestFields ${both}\nUnDefine both";
    let loaded =
        run_with(text, &options, &MemoryFiles::default()).unwrap_or_else(|faults| panic!("{faults}"));
    let host = &loaded.config.hosts[0];
    assert_eq!(host.timeout.as_secs(), 11);
    assert_eq!(host.keep_alive.timeout.as_secs(), 12);
    assert_eq!(host.proxy_timeout.as_secs(), 13);
    assert_eq!(host.limits.fields.map(u32::from), Some(111));
    // A value may bring several words along.
    let loaded = good("Define rule \"/x http://127.0.0.1:1/x\"\nProxyPass ${rule}");
    assert_eq!(loaded.config.hosts[0].rules[0].path, "/x");
    assert_eq!(
        faults("Define PORT 80\nListen ${PROT}\nDefine EMPTY\nListen ${EMPTY}\nListen 1${PORT}x"),
        [
            "2:8: the variable \"PROT\" is not defined; did you mean ${PORT}?",
            "4:8: EMPTY is defined without a value; write Define EMPTY value, or -D EMPTY=value",
            "5:8: Listen: \"180x\" is not an address; names are not looked up here; \
             write the address, such as 192.0.2.1 or [2001:db8::1]",
        ]
    );
}

#[test]
fn defines_of_defines_end() {
    let mut text = "Define a 0123456789\n".to_owned();
    for _ in 0..40 {
        text.push_str("Define a ${a}${a}\n");
    }
    let all = faults(&text);
    assert!(all[0].ends_with("the variables make this line too long"), "{all:?}");
}

#[test]
fn includes_are_read_in_order_and_relative_to_the_server_root() {
    let files = MemoryFiles::default()
        .with("/etc/ostler/conf.d/20-b.conf", "Define b 2\nTimeout ${a}${b}")
        .with("/etc/ostler/conf.d/10-a.conf", "Define a 1")
        .with("/etc/ostler/conf.d/.hidden.conf", "Nonsense")
        .with("/etc/ostler/conf.d/notes.txt", "Nonsense")
        .with("/srv/x/deep/one.conf", "KeepAliveTimeout 9")
        .with("/srv/x/deep/two/more.conf", "ProxyTimeout 8");
    let text = "Include conf.d/*.conf\nIncludeOptional none/*.conf\nIncludeOptional none.conf\n\
                ServerRoot /srv\nInclude x/*/one.conf\nInclude x/deep";
    let loaded = run_with(text, &options(), &files).unwrap_or_else(|faults| panic!("{faults}"));
    let host = &loaded.config.hosts[0];
    assert_eq!(host.timeout.as_secs(), 12);
    assert_eq!((host.keep_alive.timeout.as_secs(), host.proxy_timeout.as_secs()), (9, 8));
    assert_eq!(loaded.config.server_root, Path::new("/srv"));
}

#[test]
fn patterns_of_includes_are_httpd_s() {
    for (pattern, want) in [
        // As Debian ships it: neither hidden files nor an editor's.
        ("sites/[^.#]*", ["a.conf", "z#"]),
        ("sites/[!.#]*", ["a.conf", "z#"]),
        ("sites/*", ["#a.conf#", "a.conf z#"]),
        ("sites/**", ["#a.conf#", "a.conf z#"]),
        ("sites/\\#*", ["#a.conf#", ""]),
        ("sites/.*", [".hidden", ""]),
        ("sites/\\.[h]*", [".hidden", ""]),
        ("sites/[.]*", ["", ""]),
        ("sites/?hidden", ["", ""]),
    ] {
        let mut files = MemoryFiles::default();
        for name in ["#a.conf#", ".hidden", "a.conf", "z#"] {
            files =
                files.with(&format!("/etc/ostler/sites/{name}"), format!("Define seen \"${{seen}} {name}\""));
        }
        let text = format!("Define seen \"\"\nIncludeOptional {pattern}\nPidFile \"/${{seen}}\"");
        let loaded = run_with(&text, &options(), &files).unwrap_or_else(|faults| panic!("{text}\n{faults}"));
        let seen = loaded.config.pid_file.expect("it is set").to_string_lossy().into_owned();
        assert_eq!(seen.trim_start_matches(['/', ' ']), want.join(" ").trim(), "{pattern}");
    }
}

#[test]
fn includes_that_lead_nowhere_or_back_are_faults() {
    let files = MemoryFiles::default()
        .with("/etc/ostler/ring.conf", "Include round.conf")
        .with("/etc/ostler/round.conf", "# again\n  Include ring.conf")
        .with("/etc/ostler/open.conf", "<VirtualHost *>\n")
        .with("/etc/ostler/close.conf", "</VirtualHost>\n");
    let text = "Include absent.conf\nInclude absent/*.conf\nInclude ring.conf\nInclude open.conf\nInclude close.conf";
    let Err(Faults(all)) = run_with(text, &options(), &files) else { panic!("it must not load") };
    assert_eq!(
        said(&all, Severity::Error),
        [
            "1:9: there is no file \"/etc/ostler/absent.conf\"; IncludeOptional takes files that may be missing",
            "2:9: there is no file \"/etc/ostler/absent/*.conf\"; IncludeOptional takes files that may be missing",
            "/etc/ostler/round.conf:2:11: /etc/ostler/ring.conf would include itself",
            "/etc/ostler/open.conf:1:1: <VirtualHost> is never closed; a line </VirtualHost> is missing",
            "/etc/ostler/close.conf:1:1: </VirtualHost> closes nothing",
        ]
    );
    let trail = all[2].render(false);
    assert!(
        trail.contains("included at /etc/ostler/ring.conf:1") && trail.contains("included at ostler.conf:3"),
        "{trail}"
    );
}

#[test]
fn includes_within_includes_have_an_end() {
    let mut files = MemoryFiles::default();
    for depth in 0..30 {
        files = files.with(&format!("/etc/ostler/{depth}.conf"), format!("Include {}.conf", depth + 1));
    }
    let Err(Faults(all)) = run_with("Include 0.conf", &options(), &files) else { panic!("it must not load") };
    assert_eq!(
        said(&all, Severity::Error),
        ["/etc/ostler/19.conf:1:9: more than 20 files within each other"]
    );
}

#[test]
fn lines_of_the_command_line_stand_before_and_after_the_file() {
    let options = Options {
        before: vec!["Define t 5".to_owned(), "Listen 80".to_owned()],
        after: vec!["Timeout 1x".to_owned()],
        ..Options::default()
    };
    let Err(Faults(all)) = run_with("Timeout ${t}\nNonsense", &options, &MemoryFiles::default()) else {
        panic!("it must not load")
    };
    assert_eq!(
        said(&all, Severity::Error),
        [
            "2:1: directive \"Nonsense\" is not known; -L lists all that are",
            "-c:1:9: Timeout: \"x\" is not a unit of time; the units are ms, s, mi and h; without one it is seconds",
        ]
    );
}

#[test]
fn an_error_line_speaks_for_itself() {
    assert_eq!(
        faults("<IfModule !ssl_module>\nError \"this file\" needs TLS\n</IfModule>"),
        ["2:1: this file needs TLS"]
    );
}

#[test]
fn the_one_liner_is_a_file_too() {
    let text = one_liner("127.0.0.1:8080", "http://127.0.0.1:3000", Some(Mpm::Worker)).expect("good words");
    assert_eq!(
        text,
        "# What \"ostler --listen 127.0.0.1:8080 --to http://127.0.0.1:3000 --mpm worker\" does.\n\
         MPM worker\n\
         Listen 127.0.0.1:8080\n\
         # For a daemon, take the next three lines out and give ErrorLog a file: then -k and status find it.\n\
         PidFile none\n\
         ScoreBoardFile none\n\
         ErrorLog /dev/stderr\n\
         ProxyPass / \"http://127.0.0.1:3000/\"\n\
         ProxyPassReverse / \"http://127.0.0.1:3000/\"\n"
    );
    let loaded = run_with(&text, &Options::default(), &MemoryFiles::default()).expect("it loads");
    assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
    assert_eq!((loaded.config.pid_file, loaded.config.scoreboard_file), (None, None));
    let faults = one_liner("nowhere", "https://x", None).expect_err("two bad words").to_string();
    assert!(
        faults.contains("--listen:1:1") && faults.contains("--to:1:1") && faults.ends_with("2 faults"),
        "{faults}"
    );
    let unix = one_liner("80", "unix:/run/my \"app\".sock|http://app/x", None).expect("good words");
    let loaded = run_with(&unix, &Options::default(), &MemoryFiles::default())
        .unwrap_or_else(|faults| panic!("{unix}{faults}"));
    assert_eq!(loaded.config.backends[0].url, "unix:/run/my \"app\".sock");
}
