//! Tables and laws of the router, on configurations made by hand.

use super::*;
use crate::config::model::{
    AccessLog, Backend, ChildLimits, Endpoint, Forwarding, HostAddress, KeepAlive, Listen, LogTarget, Mpm,
    ReadTimeout, ReadTimeouts, RequestLimits, ReverseRule, ServerTokens, Via,
};
use crate::config::pattern::ShellPattern;
use crate::ids::LogTargetId;
use crate::log::line::LogLevels;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::time::Duration;

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn host(name: &str) -> VirtualHost {
    let unlimited = ReadTimeout { start: None, max: None, min_rate: None };
    VirtualHost {
        addresses: Vec::new(),
        name: name.to_string(),
        port: None,
        aliases: Vec::new(),
        timeout: Duration::from_secs(60),
        proxy_timeout: Duration::from_secs(60),
        keep_alive: KeepAlive { enabled: true, timeout: Duration::from_secs(5), max_requests: None },
        read_timeout: ReadTimeouts { header: unlimited, body: unlimited },
        limits: RequestLimits { line: 8190, fields: None, field_size: 8190, body: None },
        access_logs: Vec::<AccessLog>::new(),
        error_log: LogTargetId(0),
        log_levels: LogLevels::default(),
        rules: Vec::new(),
        reverse: Vec::new(),
        forwarding: Forwarding { preserve_host: false, add_headers: true, via: Via::Off },
        locations: Vec::new(),
    }
}

fn config(hosts: Vec<VirtualHost>) -> Config {
    Config {
        mpm: Mpm::Event,
        limits: ChildLimits {
            start: 1,
            server_limit: 1,
            thread_limit: 1,
            threads_per_child: 1,
            max_request_workers: 1,
            min_spare: 1,
            max_spare: 1,
            max_connections_per_child: None,
            max_requests_per_child: None,
            max_connections_per_process: None,
            thread_stack_size: None,
        },
        server_root: "/".into(),
        pid_file: None,
        scoreboard_file: None,
        user: None,
        group: None,
        listen: vec![Listen { address: LOCAL, any_family: false }],
        status_listen: Vec::new(),
        listen_backlog: 1,
        send_buffer: None,
        receive_buffer: None,
        core_dump_directory: None,
        error_log: LogTargetId(0),
        log_targets: vec![LogTarget::Stderr],
        graceful_shutdown_timeout: None,
        graceful_reload_timeout: None,
        child_stall_timeout: Duration::from_secs(30),
        extended_status: true,
        hand_over: true,
        see_request_tail: false,
        server_tokens: ServerTokens::Full,
        hosts,
        backends: (0..9)
            .map(|number| Backend {
                url: format!("http://10.0.1.{number}"),
                endpoint: Endpoint::Tcp { host: format!("10.0.1.{number}"), port: 80, addresses: Vec::new() },
                host_field: format!("10.0.1.{number}"),
                connect_timeout: None,
                timeout: None,
                max: None,
                ttl: Duration::from_secs(60),
                retry: Duration::ZERO,
                reuse: true,
                keepalive: false,
            })
            .collect(),
    }
}

/// `-` excludes; else a number of a backend and what follows it: `2/base`, `2/base nocanon noquery`.
fn target(text: &str) -> Target {
    if text == "!" {
        return Target::Exclude;
    }
    let mut words = text.split(' ');
    let url = words.next().expect("split gives at least one");
    let (number, base) = url.split_at(1);
    let words: Vec<_> = words.collect();
    Target::Forward(Forward {
        backend: BackendId(number.parse().expect("a digit")),
        base: base.to_string(),
        nocanon: words.contains(&"nocanon"),
        noquery: words.contains(&"noquery"),
    })
}

fn rules(list: &[(&str, &str)]) -> Vec<ProxyRule> {
    list.iter().map(|(path, text)| ProxyRule { path: (*path).to_string(), target: target(text) }).collect()
}

fn location(matcher: LocationMatcher) -> Location {
    Location {
        matcher,
        target: None,
        reverse: None,
        handler: None,
        require: None,
        limit_request_body: None,
        preserve_host: None,
        add_headers: None,
    }
}

fn section(prefix: &str) -> Location {
    location(LocationMatcher::Prefix(prefix.to_string()))
}

fn route_of(config: &Config, url: &str) -> (Route, String) {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, Some(query.as_bytes())),
        None => (url, None),
    };
    let mut out = b"left over".to_vec();
    let asked = Asked { path: path.as_bytes(), query, client: CLIENT, local: LOCAL.ip() };
    let route = Router::new(config).route(config, HostId(0), &asked, &mut out);
    (route, String::from_utf8(out).expect("tests ask in text"))
}

/// `2/x` for backend 2 and its target; else a status.
fn outcome(config: &Config, url: &str) -> String {
    let (route, target) = route_of(config, url);
    match route.action {
        Action::Forward(backend) => format!("{backend}{target}"),
        Action::Handler(Handler::ServerStatus) => format!("status{target}"),
        Action::Handler(Handler::Metrics) => format!("metrics{target}"),
        Action::NotFound => format!("404{target}"),
        Action::Denied(status) => format!("{status}{target}"),
    }
}

fn check(list: &[(&str, &str)], cases: &[(&str, &str)]) {
    let mut main = host("main");
    main.rules = rules(list);
    let config = config(vec![main]);
    for (url, want) in cases {
        assert_eq!(outcome(&config, url), *want, "{url} with {list:?}");
    }
}

#[test]
fn the_first_rule_that_matches_wins() {
    check(&[("/a/b", "1/x"), ("/a", "2/y")], &[("/a/b/c", "1/x/c"), ("/a/c", "2/y/c"), ("/b", "404")]);
    check(&[("/a", "2/y"), ("/a/b", "1/x")], &[("/a/b/c", "2/y/b/c")]);
    check(&[("/a/b", "!"), ("/a", "1/")], &[("/a/b/c", "404"), ("/a/bc", "1/bc")]);
    check(&[("/a", "1/"), ("/a/b", "!")], &[("/a/b/c", "1/b/c")]);
}

#[test]
fn rules_match_whole_segments() {
    check(
        &[("/app", "1/app"), ("/s/", "2/")],
        &[
            ("/apple", "404"),
            ("/app", "1/app"),
            ("/app/", "1/app/"),
            ("//app//x", "1/app/x"),
            ("/s", "404"),
            ("/s/", "2/"),
            ("/s/x", "2/x"),
        ],
    );
}

#[test]
fn no_path_completes_a_host_or_a_port() {
    for base in ["/", ""] {
        let target = format!("1{base}");
        check(&[("/d/", &target)], &[("/d/1/x", "1/1/x"), ("/d/", "1/"), ("/d/@evil", "1/@evil")]);
        check(&[("/d", &target)], &[("/d/1/x", "1/1/x"), ("/d", "1/")]);
        check(&[("/", &target)], &[("/1/x", "1/1/x"), ("/", "1/"), ("", "1/"), ("/:1", "1/:1")]);
    }
}

#[test]
fn what_remains_follows_byte_for_byte() {
    check(&[("/d", "1/in/")], &[("/d/x", "1/in//x")]);
    check(&[("/d/", "1/in")], &[("/d/x", "1/inx")]);
    check(
        &[("/a b", "1/c")],
        &[("/a%20b/%20", "1/c/%20"), ("/a%20b", "1/c"), ("/%61%20b;x", "404"), ("/%61%20b/;%3b", "1/c/;%3B")],
    );
    check(&[("/\u{fc}", "1/u")], &[("/%C3%BC/x", "1/u/x"), ("/%c3%bcx", "404")]);
}

#[test]
fn queries_follow_unless_they_must_not() {
    check(
        &[("/n", "1/n noquery"), ("/raw", "2/raw nocanon"), ("/", "3/")],
        &[
            ("/x?q=%2f&r=/?x", "3/x?q=%2f&r=/?x"),
            ("/x?", "3/x?"),
            ("/n/x?q", "1/n/x"),
            ("/n/x?a b", "1/n/x"),
            ("/raw/x?q", "2/raw/x?q"),
            ("/x?a b", "403"),
            ("/x?a\u{1}", "403"),
            ("/x?a\u{7f}", "403"),
            ("/x?\u{fc}", "3/x?\u{fc}"),
        ],
    );
}

#[test]
fn nocanon_sends_the_client_s_bytes_where_they_show_the_match() {
    check(
        &[("/app", "1/in nocanon"), ("/", "2/ nocanon")],
        &[
            ("/app/%7E[x]//y", "1/in/%7E[x]//y"),
            ("/app/a%3bb", "1/in/a%3bb"),
            // The bytes do not show what matched: the one spelling goes out.
            ("/%61pp/%7Ex", "1/in/~x"),
            ("//app/%7Ex", "1/in/~x"),
            // Raw, the backend could resolve this to what lies above /in.
            ("/app/../app/x", "1/in/x"),
            ("/app/y/%2e%2e/x", "1/in/x"),
            ("/app/a b", "403"),
            ("/app/a\u{1}b", "403"),
            ("/%7Eu", "2/%7Eu"),
        ],
    );
}

#[test]
fn paths_that_are_none_are_refused() {
    check(
        &[("/", "1/")],
        &[
            ("/..", "400"),
            ("/a/%2e%2e/..", "400"),
            ("/%zz", "400"),
            ("a", "400"),
            ("*", "400"),
            ("/a%2Fb", "404"),
            ("/%00", "404"),
            ("/a%0d%0aX:y", "1/a%0D%0AX:y"),
        ],
    );
}

#[test]
fn dot_segments_do_not_get_around_an_exclusion() {
    check(
        &[("/private", "!"), ("/", "1/")],
        &[
            ("/x/../private", "404"),
            ("/x/%2e%2e/private/y", "404"),
            ("/./private", "404"),
            ("//private", "404"),
            ("/%70rivate", "404"),
            ("/privately", "1/privately"),
        ],
    );
}

#[test]
fn a_section_s_proxypass_goes_before_the_list_and_the_last_section_wins() {
    let mut main = host("main");
    main.rules = rules(&[("/", "9/")]);
    for (prefix, text) in [("/a", "1/one"), ("/a/b", "2/two"), ("/no", "!"), ("/slash/", "3/three/")] {
        main.locations.push(Location { target: Some(target(text)), ..section(prefix) });
    }
    main.locations.push(Location {
        target: Some(target("4/")),
        ..location(LocationMatcher::Regex(regex::bytes::Regex::new(r"\.php$").expect("a good pattern")))
    });
    main.locations.push(Location {
        target: Some(target("5/g")),
        ..location(LocationMatcher::Glob(ShellPattern::new("/g/*/x").expect("a good pattern")))
    });
    main.locations.push(section("/a/b/c"));
    let config = config(vec![main]);
    for (url, want) in [
        ("/a/x", "1/one/x"),
        ("/a/b/x", "2/two/x"),
        ("/a/b/c", "2/two/c"),
        ("/ab", "9/ab"),
        ("/no/x", "404"),
        ("/nox", "9/nox"),
        ("/slash/x", "3/three/x"),
        ("/slash", "9/slash"),
        ("/a/i.php", "4/a/i.php"),
        ("/a/i.%70hp?q", "4/a/i.php?q"),
        ("/g/1/x", "5/g/g/1/x"),
        ("/g/1/2/x", "9/g/1/2/x"),
        ("/g/%ff/x", "5/g/g/%FF/x"),
    ] {
        assert_eq!(outcome(&config, url), want, "{url}");
    }
}

/// As a file would say it, behind `Listen 80` and before a rule for all paths.
fn written(text: &str) -> Config {
    let text = format!("Listen 80\n{text}\nProxyPass / http://10.0.1.1/");
    crate::config::from_text("test", &text, &crate::config::Options::default()).expect("a valid text").config
}

#[test]
fn no_byte_of_a_path_slips_past_a_regular_expression() {
    for text in ["<LocationMatch ^/admin/.*$>", "<Location ~ ^/admin/[^b]$>"] {
        let name = &text[1..text.find(' ').expect("a word")];
        let config = written(&format!("{text}\nRequire all denied\n</{name}>"));
        for (url, want) in [
            ("/admin/a", "403"),
            ("/admin/%FF", "403"),
            ("/admin/%0A", "403"),
            ("/admin/%C3", "403"),
            ("/other/%FF", "0/other/%FF"),
        ] {
            assert_eq!(outcome(&config, url), want, "{url} with {text}");
        }
    }
}

#[test]
fn a_section_s_shell_pattern_is_read_as_httpd_reads_it() {
    for (pattern, inside, outside) in [
        ("/v[^0-9]*", ["/vx", "/v%FF1"], ["/v1", "/v"]),
        ("/v[!0-9]*", ["/vx", "/v-2"], ["/v1", "/v/x"]),
        ("/a/**/b", ["/a/x/b", "/a/%0A/b"], ["/a/b", "/a/x/y/b"]),
        ("/a/**", ["/a/x", "/a/"], ["/a/x/y", "/a"]),
        ("/x\\*?", ["/x*y", "/x**"], ["/xay", "/x*"]),
        ("/d/[+-9]", ["/d/-", "/d/0"], ["/d//", "/d/"]),
    ] {
        let config = written(&format!("<Location \"{pattern}\">\nRequire all denied\n</Location>"));
        for url in inside {
            assert_eq!(outcome(&config, url), "403", "{url} with {pattern}");
        }
        for url in outside {
            assert_ne!(outcome(&config, url), "403", "{url} with {pattern}");
        }
    }
}

#[test]
fn a_pattern_of_many_stars_answers_a_path_of_many_dashes_at_once() {
    // Were each star to try each of the others' places, this would take longer than anybody waits.
    let config = written("<Location \"/dl/*-*-*-*-*-*-*-*.zip\">\nRequire all denied\n</Location>");
    let dashes = "-".repeat(8000);
    assert_eq!(outcome(&config, &format!("/dl/{dashes}.zip")), "403");
    assert_ne!(outcome(&config, &format!("/dl/{dashes}/")), "403");
    assert_ne!(outcome(&config, &format!("/dl/{dashes}")), "403");
}

#[test]
fn a_handler_answers_what_is_not_proxied() {
    let mut main = host("main");
    main.locations.push(Location { handler: Some(Handler::ServerStatus), ..section("/server-status") });
    main.locations.push(Location { handler: Some(Handler::ServerStatus), ..section("/taken") });
    main.rules = rules(&[("/server-status", "!"), ("/taken", "1/")]);
    let config = config(vec![main]);
    for (url, want) in
        [("/server-status?auto", "status"), ("/server-statusx", "404"), ("/taken/x", "1/x"), ("/", "404")]
    {
        assert_eq!(outcome(&config, url), want, "{url}");
    }
}

#[test]
fn any_require_lets_in_and_the_last_section_decides() {
    let net = |text: &str| Require::Ip(text.parse().expect("a network"));
    for (sections, want) in [
        (vec![vec![Require::AllDenied]], "403"),
        (vec![vec![Require::AllGranted]], "1/x"),
        (vec![vec![Require::AllDenied], vec![Require::AllGranted]], "1/x"),
        (vec![vec![Require::AllGranted], vec![Require::AllDenied]], "403"),
        (vec![vec![net("192.0.2.0/24")]], "1/x"),
        (vec![vec![net("198.51.100.0/24")]], "403"),
        (vec![vec![Require::AllDenied, net("192.0.2.7/32")]], "1/x"),
        (vec![vec![Require::Local]], "403"),
        (vec![vec![]], "1/x"),
    ] {
        let mut main = host("main");
        main.rules = rules(&[("/", "1/")]);
        main.locations =
            sections.iter().map(|list| Location { require: Some(list.clone()), ..section("/") }).collect();
        assert_eq!(outcome(&config(vec![main]), "/x"), want, "{sections:?}");
    }
    for (client, local, want) in [
        ("127.0.0.9", "10.0.0.1", true),
        ("::1", "10.0.0.1", true),
        ("::ffff:127.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "::ffff:10.0.0.1", true),
        ("10.0.0.2", "10.0.0.1", false),
    ] {
        let ip = |text: &str| text.parse().expect("an address");
        let asked = Asked { path: b"/", query: None, client: ip(client), local: ip(local) };
        assert_eq!(lets_in(&[Require::Local], &asked), want, "{client} {local}");
    }
}

#[test]
fn later_sections_override_settings() {
    let mut main = host("main");
    main.rules = rules(&[("/", "1/")]);
    main.limits.body = NonZeroU64::new(7);
    main.locations.push(Location {
        limit_request_body: Some(None),
        preserve_host: Some(true),
        ..section("/a")
    });
    main.locations.push(Location {
        limit_request_body: Some(NonZeroU64::new(9)),
        add_headers: Some(false),
        ..section("/a/b")
    });
    let config = config(vec![main]);
    for (url, limit, preserve_host, add_headers) in
        [("/", Some(7), false, true), ("/a", None, true, true), ("/a/b", Some(9), true, false)]
    {
        let (route, _) = route_of(&config, url);
        assert_eq!(route.limit_request_body.map(NonZeroU64::get), limit, "{url}");
        assert_eq!((route.preserve_host, route.add_headers), (preserve_host, add_headers), "{url}");
    }
}

#[test]
fn reverse_rules_of_matching_sections_hold() {
    let reverse = |path: &str, url: &str| ReverseRule { path: path.into(), url: url.into() };
    let mut main = host("main");
    main.rules = rules(&[("/", "1/")]);
    main.reverse.push(reverse("/first/", "http://b/first/"));
    for depth in 0..7 {
        let prefix = format!("/a{}", "/n".repeat(depth));
        let rule = reverse(&format!("{prefix}/"), &format!("http://b{depth}/"));
        main.locations.push(Location { reverse: Some(rule), ..section(&prefix) });
    }
    let config = config(vec![main]);
    let router = Router::new(&config);
    let (route, _) = route_of(&config, "/a/n/n/n/n/n/n");
    for (value, want) in [
        ("http://b/first/x", Some("http://we/first/x")),
        ("http://b0/x", Some("http://we/a/x")),
        ("http://b6/x", Some("http://we/a/n/n/n/n/n/n/x")),
        ("http://b7/x", None),
    ] {
        let mut out = Vec::new();
        let done = router.rewrite_location(
            &config,
            HostId(0),
            &route.reverse,
            value.as_bytes(),
            "http://we",
            &mut out,
        );
        assert_eq!(done.then(|| String::from_utf8_lossy(&out).into_owned()).as_deref(), want, "{value}");
    }
    let (elsewhere, _) = route_of(&config, "/b");
    assert!(!router.rewrite_location(
        &config,
        HostId(0),
        &elsewhere.reverse,
        b"http://b0/x",
        "http://we",
        &mut Vec::new()
    ));
}

fn at(ip: Option<&str>, port: Option<u16>) -> HostAddress {
    HostAddress { ip: ip.map(|ip| ip.parse().expect("an address")), port }
}

#[test]
fn hosts_are_found_by_address_then_by_name() {
    let named = |name: &str, aliases: &[&str], addresses: &[HostAddress]| VirtualHost {
        aliases: aliases.iter().map(ToString::to_string).collect(),
        addresses: addresses.to_vec(),
        ..host(name)
    };
    let any = at(None, Some(80));
    let ours = at(Some("10.0.0.1"), Some(80));
    let config = config(vec![
        host("main.example"),
        named("first.example", &["*.first.example"], &[any]),
        named("second.example", &["a.first.example", "www?.second.example"], &[any]),
        named("inner.example", &["Alias.Example."], &[ours]),
        named("deep.example", &[], &[ours, at(Some("10.0.0.1"), None)]),
        named("[::1]", &[], &[at(Some("::1"), None)]),
        named("six.example", &[], &[at(Some("::1"), Some(8080)), at(Some("::1"), None)]),
        named("third.example", &["*"], &[any]),
        named("fourth.example", &[], &[any]),
    ]);
    let router = Router::new(&config);
    for (local, authority, want) in [
        // 10.0.0.9:80 is known to `*:80` only.
        ("10.0.0.9:80", "first.example", 1),
        ("10.0.0.9:80", "FIRST.Example.:99", 1),
        ("10.0.0.9:80", "a.first.example", 1),
        ("10.0.0.9:80", "second.example", 2),
        ("10.0.0.9:80", "www1.second.example", 2),
        ("10.0.0.9:80", "fourth.example", 7),
        ("10.0.0.9:80", "main.example", 7),
        ("10.0.0.9:80", "inner.example", 7),
        ("[::ffff:10.0.0.9]:80", "second.example", 2),
        // The exact address hides the wildcard ones.
        ("10.0.0.1:80", "inner.example", 3),
        ("10.0.0.1:80", "alias.example", 3),
        ("10.0.0.1:80", "deep.example:80", 4),
        ("10.0.0.1:80", "second.example", 3),
        ("10.0.0.1:80", "", 3),
        ("[::ffff:10.0.0.1]:80", "deep.example", 4),
        ("10.0.0.1:81", "inner.example", 4),
        ("[::1]:9", "[::1]:9", 5),
        ("[::1]:9", "six.example", 6),
        ("[::1]:8080", "[::1]:8080", 6),
        // Nobody claims it: the main server, whatever name is asked for.
        ("10.0.0.9:81", "second.example", 0),
    ] {
        let local = local.parse().expect("an address");
        assert_eq!(router.host(local, authority.as_bytes()), HostId(want), "{local} {authority}");
    }
    let long = vec![b'a'; 300];
    assert_eq!(router.host(LOCAL, &long), HostId(3));
}

#[test]
fn many_hosts_are_found_without_looking_at_each() {
    let hosts = (0..10_000).map(|number| VirtualHost {
        addresses: vec![at(None, None)],
        ..host(&format!("host{number}.example"))
    });
    let config = config(hosts.collect());
    let router = Router::new(&config);
    for number in [1, 2, 5_000, 9_999] {
        assert_eq!(router.host(LOCAL, format!("host{number}.example").as_bytes()), HostId(number));
    }
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        Just(b"/".to_vec()),
        Just(b"/d/".to_vec()),
        Just(b"..".to_vec()),
        Just(b"%2e".to_vec()),
        Just(b"%0d%0a".to_vec()),
        Just(b"%20".to_vec()),
        Just(b"%2F".to_vec()),
        any::<u8>().prop_map(|byte| format!("%{byte:02x}").into_bytes()),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_request_panics_or_breaks_a_request_line(
        path in hostile(),
        slash in any::<bool>(),
        query in proptest::option::of(hostile()),
        base in "/?[ -~]{0,6}",
        nocanon in any::<bool>(),
    ) {
        let mut main = host("main");
        let forward = Forward { backend: BackendId(1), base, nocanon, noquery: false };
        for prefix in ["/d/", "/x", "/"] {
            main.rules.push(ProxyRule { path: prefix.into(), target: Target::Forward(forward.clone()) });
        }
        main.locations.push(location(LocationMatcher::Glob(ShellPattern::new("/*/y").expect("a good pattern"))));
        let config = config(vec![main]);
        let path = if slash { [b"/".as_slice(), &path].concat() } else { path };
        let asked = Asked { path: &path, query: query.as_deref(), client: CLIENT, local: LOCAL.ip() };
        let mut out = Vec::new();
        let route = Router::new(&config).route(&config, HostId(0), &asked, &mut out);
        match route.action {
            Action::Forward(_) => {
                prop_assert_eq!(out.first(), Some(&b'/'));
                prop_assert!(!out.iter().any(|byte| byte.is_ascii_control() || *byte == b' '));
            }
            _ => prop_assert!(out.is_empty()),
        }
    }

    #[test]
    fn no_authority_panics(authority in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut other = host("other.example");
        other.addresses.push(at(None, None));
        other.aliases.push("*a?*".into());
        let config = config(vec![host("main"), other]);
        prop_assert_eq!(Router::new(&config).host(LOCAL, &authority), HostId(1));
    }
}
