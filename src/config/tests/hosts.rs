//! Addresses, virtual hosts, logs and limits: what becomes of each word.

use super::super::model::{
    HostAddress, Listen, LogTarget, ReadTimeout, RequestLimits, ServerTokens, StatusListen, Via,
};
use super::*;
use crate::log::line::{Level, Module};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

#[test]
fn a_server_without_words_has_the_defaults_of_the_reference() {
    let config = good("").config;
    assert_eq!(config.listen_backlog, 511);
    assert_eq!((config.send_buffer, config.receive_buffer), (None, None));
    assert_eq!(config.graceful_shutdown_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.graceful_reload_timeout, Some(Duration::from_secs(60)));
    assert_eq!(config.child_stall_timeout, Duration::from_secs(30));
    assert!(config.extended_status && !config.see_request_tail);
    assert_eq!(config.server_tokens, ServerTokens::Full);
    assert_eq!(config.pid_file.as_deref(), Some(Path::new("/run/ostler/ostler.pid")));
    assert_eq!(config.scoreboard_file.as_deref(), Some(Path::new("/run/ostler/ostler.scoreboard")));
    assert_eq!(config.server_root, Path::new("/etc/ostler"));
    assert_eq!(config.log_targets, [LogTarget::Stderr]);
    assert_eq!(config.error_log.index(), 0);
    let [host] = config.hosts.as_slice() else { panic!("one host") };
    assert_eq!((host.name.as_str(), host.port), ("box.example", None));
    assert_eq!((host.timeout.as_secs(), host.proxy_timeout.as_secs()), (60, 60));
    assert!(host.keep_alive.enabled);
    assert_eq!(host.keep_alive.timeout.as_secs(), 5);
    assert_eq!(host.keep_alive.max_requests, NonZeroU32::new(100));
    let limits = RequestLimits {
        line: 8190,
        fields: NonZeroU32::new(100),
        field_size: 8190,
        body: NonZeroU64::new(1 << 30),
    };
    assert_eq!(host.limits, limits);
    let header = ReadTimeout {
        start: Some(Duration::from_secs(20)),
        max: Some(Duration::from_secs(40)),
        min_rate: NonZeroU32::new(500),
    };
    assert_eq!(host.read_timeout.header, header);
    assert_eq!(host.read_timeout.body, ReadTimeout { max: None, ..header });
    assert!(!host.forwarding.preserve_host && host.forwarding.add_headers);
    assert_eq!(host.forwarding.via, Via::Off);
    assert_eq!(host.log_levels.default_level(), Level::Warn);
    assert!(host.access_logs.is_empty());
}

#[test]
fn addresses_for_the_status() {
    let tcp = |text: &str| {
        StatusListen::Tcp(Listen { address: text.parse().expect("an address"), any_family: false })
    };
    let unix = |path: &str| StatusListen::Unix(path.into());
    for (text, want) in [
        ("", vec![]),
        ("StatusListen 81", vec![tcp("127.0.0.1:81")]),
        ("StatusListen 0\nStatusListen [::1]:0", vec![tcp("127.0.0.1:0"), tcp("[::1]:0")]),
        ("Listen 127.0.0.1:0\nStatusListen 0", vec![tcp("127.0.0.1:0")]),
        ("StatusListen unix:/run/x/status", vec![unix("/run/x/status")]),
        ("StatusListen UNIX:status", vec![unix("/etc/ostler/status")]),
        ("DefaultRuntimeDir /run/x\nStatusListen unix:status", vec![unix("/run/x/status")]),
    ] {
        let loaded = good(text);
        assert_eq!(loaded.config.status_listen, want, "{text}");
        assert!(loaded.notes.is_empty(), "{text}: {:?}", loaded.notes);
    }
    for text in ["192.0.2.1:81", "*:81", "0.0.0.0:81", "[::]:81"] {
        let said = notes(&format!("StatusListen {text}"));
        let want = format!("warning 1:14: whoever can reach {text} may read the status");
        assert!(said.len() == 1 && said[0].starts_with(&want), "{said:?}");
    }
    for (text, want) in [
        (
            "StatusListen 9998\nStatusListen 127.0.0.1:9998",
            "2:14: StatusListen 127.0.0.1:9998 is there already",
        ),
        ("Listen 81\nStatusListen 81", "2:14: Listen 81 and StatusListen 127.0.0.1:81 overlap"),
        (
            "StatusListen 81\nListen 127.0.0.1:81",
            "2:8: StatusListen 127.0.0.1:81 and Listen 127.0.0.1:81 overlap",
        ),
        ("StatusListen [::1]:81\nListen *:81", "2:8: StatusListen [::1]:81 and Listen 81 overlap"),
        ("StatusListen 0\nStatusListen 127.0.0.1:0", "2:14: StatusListen 127.0.0.1:0 is there already"),
        ("StatusListen localhost:81", "1:14: StatusListen: \"localhost\" is not an address"),
        ("StatusListen unix:", "1:14: StatusListen: \"unix:\" names no socket"),
        ("StatusListen unix:/run/", "1:14: StatusListen: \"unix:/run/\" names no socket"),
        ("PidFile /run/x\nStatusListen unix:/run/x", "2:14: this is the PidFile, too"),
        ("ErrorLog /run/x\nStatusListen unix:/run/x", "2:14: this is a log, too"),
        ("StatusListen unix:/run/x\nStatusListen unix:/run/x", "2:14: this is another StatusListen, too"),
        ("ScoreBoardFile /run/x\nStatusListen unix:/run/x", "2:14: this is the ScoreBoardFile, too"),
    ] {
        let all = faults(text);
        assert!(all.len() == 1 && all[0].starts_with(want), "{text}: {all:?}");
    }
    let long = format!("StatusListen unix:/{}", "x".repeat(107));
    assert_eq!(faults(&long), ["1:14: the path of a socket can have 107 bytes at most, and this has 108"]);
    assert!(faults(&long[..long.len() - 1]).is_empty());
}

#[test]
fn addresses_to_listen_on() {
    let any = |port: u16| Listen { address: ([0u16; 8], port).into(), any_family: true };
    let one = |text: &str| Listen { address: text.parse().expect("an address"), any_family: false };
    for (text, want) in [
        ("Listen 80", vec![any(80)]),
        ("Listen *:80", vec![any(80)]),
        ("Listen 127.0.0.1:80 http", vec![one("127.0.0.1:80")]),
        ("Listen [::1]:80", vec![one("[::1]:80")]),
        ("Listen [fe80::1%2]:80", vec![one("[fe80::1%2]:80")]),
        ("Listen 0.0.0.0:80\nListen [::]:80", vec![one("0.0.0.0:80"), one("[::]:80")]),
        (
            "Listen 127.0.0.1:80\nListen 127.0.0.2:80\nListen 81",
            vec![one("127.0.0.1:80"), one("127.0.0.2:80"), any(81)],
        ),
        ("Listen 127.0.0.1:0", vec![one("127.0.0.1:0")]),
    ] {
        let mut listen = good(text).config.listen;
        assert_eq!(listen.pop(), Some(any(9999)));
        assert_eq!(listen, want, "{text}");
    }
    assert_eq!(
        faults(
            "Listen 80\nListen 80\nListen 127.0.0.1:80\nListen 0.0.0.0:81\nListen 10.0.0.1:81\nListen 443 https\nListen 82 xyz\nListen 65536\nListen ::1:80\nListen [::1\nListen localhost:80\nListen 127.0.0.1\nListen [::1]x"
        ),
        [
            "2:8: Listen 80 is there already; each connection must belong to one of them; leave one out",
            "3:8: Listen 80 and Listen 127.0.0.1:80 overlap; each connection must belong to one of them; leave one out",
            "5:8: Listen 0.0.0.0:81 and Listen 10.0.0.1:81 overlap; each connection must belong to one of them; leave one out",
            "6:12: TLS is not built in yet",
            "7:11: \"xyz\" is not a protocol of ours",
            "8:8: Listen: \"65536\" is not a port; 65535 is the highest",
            "9:8: Listen: \"::1:80\" needs brackets around its address; write [2001:db8::1]:80",
            "10:8: Listen: \"[::1\" has no closing bracket",
            "11:8: Listen: \"localhost\" is not an address; names are not looked up here; write the address, such as 192.0.2.1 or [2001:db8::1]",
            "12:8: Listen: \"127.0.0.1\" has no port; write 127.0.0.1:80",
            "13:8: Listen: \"[::1]x\" is no address with a port",
        ]
    );
}

#[test]
fn hosts_inherit_what_they_do_not_say() {
    let text = "Timeout 10\nServerName Main.Example.\nKeepAlive Off\nLimitRequestFields 7\nProxyVia Full\nCustomLog logs/main common\nErrorLog logs/error\nLogLevel info proxy:debug\n\
                <VirtualHost *:9999 [2001:db8::1]:9999 _default_>\nServerName a.example:8080\nServerAlias B.example *.c.example\n\
                ProxyTimeout 7\nRequestReadTimeout header=5\nLogLevel http:trace2\n</VirtualHost>\n\
                <VirtualHost 192.0.2.1>\nTimeout 20\nCustomLog logs/own combined\nErrorLog logs/own-error\nLogLevel error\n</VirtualHost>\n\
                MaxKeepAliveRequests 9\nProxyPreserveHost On";
    let config = good(text).config;
    let [main, first, second] = config.hosts.as_slice() else { panic!("three hosts") };
    let address =
        |ip: Option<&str>, port| HostAddress { ip: ip.map(|ip| ip.parse().expect("an address")), port };
    assert_eq!(
        first.addresses,
        [address(None, Some(9999)), address(Some("2001:db8::1"), Some(9999)), address(None, None)]
    );
    assert_eq!((first.name.as_str(), first.port), ("a.example", Some(8080)));
    assert_eq!(first.aliases, ["b.example", "*.c.example"]);
    assert_eq!((second.name.as_str(), second.port), ("main.example", None));
    for host in [main, first, second] {
        assert!(!host.keep_alive.enabled && host.forwarding.preserve_host);
        assert_eq!(host.keep_alive.max_requests, NonZeroU32::new(9));
        assert_eq!(host.limits.fields, NonZeroU32::new(7));
        assert_eq!(host.forwarding.via, Via::Full);
        assert_eq!(host.rules.len(), 1, "the main server's rules hold everywhere");
        assert_eq!(host.read_timeout.body, main.read_timeout.body);
    }
    assert_eq!(first.read_timeout.header.start, Some(Duration::from_secs(5)));
    assert_eq!((first.timeout.as_secs(), first.proxy_timeout.as_secs()), (10, 7));
    // Nobody said ProxyTimeout, so it follows the host's own Timeout.
    assert_eq!((second.timeout.as_secs(), second.proxy_timeout.as_secs()), (20, 20));
    let path = |id: crate::ids::LogTargetId| config.log_targets[id.index()].clone();
    let file = |name: &str| LogTarget::File(Path::new("/etc/ostler").join(name));
    assert_eq!(path(first.error_log), file("logs/error"));
    assert_eq!(path(second.error_log), file("logs/own-error"));
    assert_eq!(path(first.access_logs[0].target), file("logs/main"));
    assert_eq!(path(second.access_logs[0].target), file("logs/own"));
    assert_eq!(config.log_targets.len(), 4);
    let level = |host: &super::super::model::VirtualHost, module| host.log_levels.get(module);
    assert_eq!(level(first, Module::Http), Level::Trace2);
    assert_eq!(level(first, Module::Proxy), Level::Debug);
    assert_eq!(level(first, Module::Core), Level::Info);
    assert_eq!(level(second, Module::Proxy), Level::Error);
}

#[test]
fn log_targets_are_files_programs_and_streams_once_each() {
    let text = "ErrorLog /dev/stderr\nCustomLog \"|/usr/bin/rotatelogs -l x 86400\" combined\nCustomLog ||cat common\n\
                CustomLog /dev/stdout \"%h \\\"%r\\\" %>s\"\nTransferLog /var/log/x\nCustomLog /var/log/x agent\n\
                LogFormat \"%h mine\" common\nLogFormat \"%t\"";
    let config = good(text).config;
    assert_eq!(
        config.log_targets,
        [
            LogTarget::Stderr,
            LogTarget::Program("/usr/bin/rotatelogs -l x 86400".to_owned()),
            LogTarget::Program("cat".to_owned()),
            LogTarget::Stdout,
            LogTarget::File("/var/log/x".into()),
        ]
    );
    assert_eq!(config.hosts[0].access_logs.len(), 5);
    assert_eq!(
        faults(
            "ErrorLog syslog:local1\nErrorLog \"\"\nErrorLog \"| \"\nErrorLog \"|$ \"\nCustomLog x comon\nCustomLog x \"%Z\"\n\
                CustomLog x common env=!quiet\nLogLevel loud\nLogLevel proxi:info warn\nLogFormat"
        ),
        [
            "1:10: \"syslog:local1\" is not built yet; /dev/stderr reaches the service manager's log",
            "2:10: the name of a file is empty",
            "3:10: no program stands behind the |",
            "4:10: no program stands behind the |",
            "5:13: there is no log format \"comon\"; did you mean common?",
            "6:13: this is no log format: unknown code %Z (byte 0 of the format)",
            "7:20: conditions for log lines are not built yet",
            "8:10: LogLevel: \"loud\" is not a level; the levels are emerg alert crit error warn notice info debug trace1 to trace8",
            "9:10: LogLevel: there is no module \"proxi\"; did you mean proxy?",
            "10:1: LogFormat needs a word; usage: LogFormat format [nickname]",
        ]
    );
    assert_eq!(notes("LogLevel warn ssl:debug"), ["note 1:15: no line is ever told by \"ssl\""]);
}

#[test]
fn values_are_judged_word_by_word() {
    for (line, want) in [
        ("Timeout 0", "1:9: Timeout: this time must be above 0"),
        ("Timeout -5", "1:9: Timeout: \"-5\" is below 0"),
        ("ListenBacklog --5", "1:15: ListenBacklog: \"--5\" is not a number"),
        ("ListenBacklog -", "1:15: ListenBacklog: \"-\" is not a number"),
        ("ListenBacklog -99999999999999999999", "1:15: ListenBacklog: \"-99999999999999999999\" is below 0"),
        (
            "Timeout 5x",
            "1:9: Timeout: \"x\" is not a unit of time; the units are ms, s, mi and h; without one it is seconds",
        ),
        (
            "Timeout ten",
            "1:9: Timeout: \"ten\" is not a time; write a number of seconds, or a number with ms, s, mi or h",
        ),
        ("Timeout 99999999", "1:9: Timeout: \"99999999\" is too long; 21 days are the most"),
        (
            "Timeout 5 6",
            "1:11: Timeout takes one word, so \"6\" is too much; usage: Timeout seconds|number ms",
        ),
        (
            "KeepAliveTimeout 0",
            "1:18: KeepAliveTimeout: this time must be above 0; KeepAlive Off closes a connection after each answer",
        ),
        ("KeepAlive maybe", "1:11: KeepAlive: \"maybe\" is not On or Off"),
        (
            "ServerTokens Pro",
            "1:14: ServerTokens: \"Pro\" is not Full, OS, Minimal, Min, Minor, Major, Prod or ProductOnly; did you mean Prod?",
        ),
        ("MPM wroker", "1:5: MPM: \"wroker\" is not event, worker or prefork; did you mean worker?"),
        ("ListenBacklog 0", "1:15: ListenBacklog: 0 is too small; 1 is the least"),
        ("SendBufferSize 511", "1:16: SendBufferSize: 511 is too small; 512 is the least"),
        ("LimitRequestBody 10X", "1:18: LimitRequestBody: \"10X\" is not a number"),
        ("LimitRequestBody xM", "1:18: LimitRequestBody: \"xM\" is not a size"),
        ("LimitRequestLine 0", "1:18: LimitRequestLine: 0 is too small; 1 is the least"),
        (
            "RequestReadTimeout header=20-10,MinRate=500",
            "1:20: RequestReadTimeout: in \"20-10\" the second time must be above the first",
        ),
        (
            "RequestReadTimeout header=20-40",
            "1:20: RequestReadTimeout: the second time means nothing without a MinRate that extends the first; write 20-40,MinRate=500",
        ),
        (
            "RequestReadTimeout head=20",
            "1:20: \"head\" is not a part of a request; the parts are header and body",
        ),
        (
            "RequestReadTimeout header",
            "1:20: RequestReadTimeout: \"\" is not a time; write a number of seconds, or a number with ms, s, mi or h",
        ),
        ("User \"a b\"", "1:6: User: \"a b\" is not a name"),
        ("User #x", "1:1: User needs a word; usage: User name|#number"),
        ("Group #-1", "1:7: Group: \"-1\" is below 0"),
        ("ServerName a_b/c", "1:12: ServerName: \"a_b/c\" is not the name of a host"),
        (
            "ServerName https://x",
            "1:12: ServerName: \"https\" in ServerName is not built yet; write the name alone",
        ),
        ("ServerRoot /nowhere", "1:12: there is no directory \"/nowhere\""),
        ("CoreDumpDirectory cores", "1:19: there is no directory \"/etc/ostler/cores\""),
        (
            "EnableExceptionHook On",
            "1:21: there are no modules that could hook into a crash; CoreDumpDirectory, and the error log's account of what a dead child held, serve instead",
        ),
        (
            "ProxyRequests On",
            "1:15: Ostler is a reverse proxy and does not forward for clients; leave the line out, or write ProxyRequests Off",
        ),
        ("PidFile \"\"", "1:9: the name of a file is empty"),
    ] {
        assert_eq!(faults(line), [want], "{line}");
    }
}

#[test]
fn a_number_of_a_million_dashes_is_one_fault() {
    let dashes = "-".repeat(1_000_000);
    let shown = "-".repeat(60);
    for (line, want) in [
        (
            "Timeout ",
            format!(
                "1:9: Timeout: \"{shown}…\" is not a time; write a number of seconds, or a number with ms, s, mi or h"
            ),
        ),
        ("ListenBacklog ", format!("1:15: ListenBacklog: \"{shown}…\" is not a number")),
    ] {
        assert_eq!(faults(&format!("{line}{dashes}")), [want]);
    }
}

#[test]
fn files_lie_where_the_server_root_says() {
    let config = good("PidFile run/a.pid\nScoreBoardFile none").config;
    assert_eq!(config.pid_file.as_deref(), Some(Path::new("/etc/ostler/run/a.pid")));
    assert_eq!(config.scoreboard_file, None);
    let config = good("DefaultRuntimeDir /run/my\nPidFile a.pid").config;
    assert_eq!(config.pid_file.as_deref(), Some(Path::new("/run/my/a.pid")));
    assert_eq!(config.scoreboard_file.as_deref(), Some(Path::new("/run/my/ostler.scoreboard")));
    let options = Options { server_root: Some("sub".into()), run_dir: Default::default(), ..options() };
    let config = run_with("", &options, &MemoryFiles::default()).expect("it loads").config;
    assert_eq!((config.pid_file, config.scoreboard_file), (None, None));
    assert_eq!(config.server_root, Path::new("/etc/ostler/sub"));
}

#[test]
fn users_may_be_numbers_despite_the_comment_sign() {
    let config = good("User #1000 # who\nGroup staff #x").config;
    assert_eq!((config.user.as_deref(), config.group.as_deref()), (Some("#1000"), Some("staff")));
}

#[test]
fn hosts_that_nobody_reaches_are_told() {
    assert_eq!(
        notes(
            "<VirtualHost *:81>\nServerName a\n</VirtualHost>\n<VirtualHost *>\nServerName a\n</VirtualHost>\n<VirtualHost *>\nServerName A\n</VirtualHost>"
        ),
        [
            "warning 1:1: nobody comes to this host: there is no Listen for port 81; write Listen 81",
            "warning 7:1: an earlier host has the same addresses and the name a; \
             requests for it go there; join the two, or give this one another name",
        ]
    );
}

#[test]
fn an_unspecified_address_of_a_host_is_every_address() {
    for (word, want) in [
        ("*:80", (None, Some(80))),
        ("0.0.0.0:80", (None, Some(80))),
        ("[::]:81", (None, Some(81))),
        ("[::ffff:0.0.0.0]", (None, None)),
        ("0.0.0.0", (None, None)),
        ("0.0.0.0:*", (None, None)),
        ("127.0.0.1:80", (Some("127.0.0.1"), Some(80))),
    ] {
        let loaded = good(&format!("Listen 80\nListen 81\n<VirtualHost {word}>\n</VirtualHost>"));
        let [address] = loaded.config.hosts[1].addresses[..] else { panic!("{word}") };
        let ip = want.0.map(|ip| ip.parse().expect("an address"));
        assert_eq!((address.ip, address.port), (ip, want.1), "{word}");
    }
}

#[test]
fn limits_that_the_engine_bounds_are_lowered() {
    let text = "LimitRequestLine 2000000\nLimitRequestFields 32767\nLimitRequestFieldSize 99999999999";
    let limits = good(text).config.hosts[0].limits;
    assert_eq!((limits.line, limits.fields.map(u32::from), limits.field_size), (64_512, Some(1000), 64_512));
    assert_eq!(
        notes(text),
        [
            "warning 1:18: LimitRequestLine 2000000 is above 64512; 64512 holds",
            "warning 2:20: LimitRequestFields 32767 is above 1000; 1000 holds",
            "warning 3:23: LimitRequestFieldSize 99999999999 is above 64512; 64512 holds",
        ]
    );
}
