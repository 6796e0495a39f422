//! ProxyPass and its kin: rules, parameters, locations.

use super::super::model::{Endpoint, Forward, Handler, LocationMatcher, Require, Target};
use super::*;
use crate::ids::BackendId;
use std::time::Duration;

fn rules(text: &str) -> Vec<(String, Option<(u32, String)>)> {
    let mut rules = good(text).config.hosts.remove(0).rules;
    rules.pop();
    rules
        .into_iter()
        .map(|rule| {
            let target = match rule.target {
                Target::Exclude => None,
                Target::Forward(Forward { backend: BackendId(id), base, .. }) => Some((id, base)),
            };
            (rule.path, target)
        })
        .collect()
}

#[test]
fn rules_keep_their_order_and_share_equal_backends() {
    let text = "ProxyPass /no !\nProxyPass /a http://127.0.0.1:1\nProxyPass /b/ http://127.0.0.1:1/x/ ttl=60\n\
                ProxyPass /c http://127.0.0.1:1/x timeout=5\nProxyPass //d///e http://LOCALHOST:80/\n\
                ProxyPass /f http://[::1]:81/g";
    let some = |id, base: &str| Some((id, base.to_owned()));
    assert_eq!(
        rules(text),
        [
            ("/no".to_owned(), None),
            ("/a".to_owned(), some(0, "/")),
            ("/b/".to_owned(), some(0, "/x/")),
            ("/c".to_owned(), some(1, "/x")),
            ("/d/e".to_owned(), some(2, "/")),
            ("/f".to_owned(), some(3, "/g")),
        ]
    );
    let config = good(text).config;
    let backend = |id| config.backend(BackendId(id));
    assert_eq!(
        (backend(0).url.as_str(), backend(0).host_field.as_str()),
        ("http://127.0.0.1:1", "127.0.0.1:1")
    );
    assert_eq!((backend(2).url.as_str(), backend(2).host_field.as_str()), ("http://localhost", "localhost"));
    assert_eq!((backend(3).url.as_str(), backend(3).host_field.as_str()), ("http://[::1]:81", "[::1]:81"));
    assert_eq!(backend(1).timeout, Some(Duration::from_secs(5)));
    let address = "[::1]:81".parse().expect("an address");
    assert_eq!(
        backend(3).endpoint,
        Endpoint::Tcp { host: "::1".to_owned(), port: 81, addresses: vec![address] }
    );
    assert_eq!(
        backend(2).endpoint,
        Endpoint::Tcp { host: "localhost".to_owned(), port: 80, addresses: Vec::new() }
    );
}

#[test]
fn parameters_reach_the_backend() {
    let config = good(
        "ProxyPass /a http://h:1/a connectiontimeout=300ms timeout=5 max=7 ttl=9 retry=3 enablereuse=off keepalive=on nocanon noquery\n\
         ProxyPass /b http://h:1/b disablereuse=on\nProxyPass /c http://h:1/c\nProxyPass /d \"unix:/run/my app.sock|http://app.local/d\"",
    )
    .config;
    let first = &config.backends[0];
    assert_eq!(first.connect_timeout, Some(Duration::from_millis(300)));
    assert_eq!(first.timeout, Some(Duration::from_secs(5)));
    assert_eq!(first.max.map(u32::from), Some(7));
    assert_eq!((first.ttl.as_secs(), first.retry.as_secs()), (9, 3));
    assert_eq!((first.reuse, first.keepalive), (false, true));
    let Target::Forward(forward) = &config.hosts[0].rules[0].target else { panic!("it forwards") };
    assert!(forward.nocanon && forward.noquery);
    assert!(!config.backends[1].reuse);
    let plain = &config.backends[2];
    assert_eq!((plain.connect_timeout, plain.timeout, plain.max), (None, None, None));
    assert_eq!(
        (plain.ttl.as_secs(), plain.retry.as_secs(), plain.reuse, plain.keepalive),
        (60, 0, true, false)
    );
    let socket = &config.backends[3];
    assert_eq!(socket.endpoint, Endpoint::Unix("/run/my app.sock".into()));
    assert_eq!((socket.url.as_str(), socket.host_field.as_str()), ("unix:/run/my app.sock", "app.local"));
}

#[test]
fn proxy_sections_set_parameters_for_urls_below_theirs() {
    let text = "ProxyPass /a http://h:1/deep/a\nProxyPass /b http://h:1/b timeout=9\nProxyPass /c http://h:1/deeper\nProxyPass /d http://i/\n\
                <Proxy http://h:1>\nProxySet timeout=5 ttl=6\n</Proxy>\nProxySet http://h:1/deep timeout=7\n<Proxy *>\nProxySet max=3\n</Proxy>";
    let config = good(text).config;
    let of = |rule: usize| {
        let Target::Forward(forward) = &config.hosts[0].rules[rule].target else { panic!("it forwards") };
        let backend = config.backend(forward.backend);
        (backend.timeout.map(|time| time.as_secs()), backend.ttl.as_secs(), backend.max.map(u32::from))
    };
    assert_eq!(of(0), (Some(7), 6, Some(3)));
    assert_eq!(of(1), (Some(9), 6, Some(3)));
    assert_eq!(of(2), (Some(5), 6, Some(3)));
    assert_eq!(of(3), (None, 60, Some(3)));
    assert_eq!(
        notes("<Proxy http://elsewhere>\nProxySet ttl=5\n</Proxy>"),
        ["warning 1:1: no ProxyPass leads to this url, so nothing follows from this"]
    );
}

#[test]
fn sides_that_disagree_about_the_closing_slash_are_told() {
    for (text, want) in [
        ("ProxyPass /a http://h/b", None),
        ("ProxyPass /a/ http://h/b/", None),
        ("ProxyPass /a http://h", None),
        ("ProxyPass /a/ http://h", None),
        ("ProxyPass / http://h", None),
        ("ProxyPass / http://h/", None),
        (
            "ProxyPass /a/ http://h/b",
            Some(
                "warning 1:15: only the path ends in a slash; /a/x is asked for as /bx; let both end in a slash, or neither",
            ),
        ),
        (
            "ProxyPass /a http://h/b/",
            Some(
                "warning 1:14: only the url ends in a slash; /a/x is asked for as /b//x; let both end in a slash, or neither",
            ),
        ),
        (
            "ProxyPass /a http://h/",
            Some(
                "warning 1:14: only the url ends in a slash; /a/x is asked for as /x here, as //x by httpd; \
                  let both end in a slash, or neither",
            ),
        ),
        (
            "<Location /a/>\nProxyPass http://h/b\n</Location>",
            Some(
                "warning 2:11: only the path ends in a slash; /a/x is asked for as /bx; let both end in a slash, or neither",
            ),
        ),
    ] {
        let all = notes(text);
        let told = all.iter().map(String::as_str).find(|note| note.contains("slash"));
        assert_eq!(told, want, "{text}");
    }
}

#[test]
fn a_rule_behind_a_wider_one_is_told() {
    assert_eq!(
        notes("ProxyPass /a http://h/a\nProxyPass /a/b !\nProxyPass /ab http://h/ab"),
        ["warning 2:1: no request comes here: the earlier \"/a\" matches first; \
          of several that match, the first counts; put the longer path first"]
    );
}

#[test]
fn locations_hold_what_they_say() {
    let text = "<Location /app>\nProxyPass http://h:1/app retry=5\nProxyPassReverse http://h:1/app\nProxyPassReverse http://j/app\n\
                ProxyPreserveHost On\nProxyAddHeaders Off\nLimitRequestBody 0\n</Location>\n\
                <Location /server-status>\nSetHandler server-status\nRequire local\nRequire ip 10 192.168.0.0/16 172.16.0.0/255.240.0.0 2001:db8::/32 192.0.2.7\n</Location>\n\
                <Location \"/x/*\">\nProxyPass !\nRequire all denied\n</Location>\n<LocationMatch \"^/(a|b)\\.d$\">\n</LocationMatch>\n<Location ~ ^/r>\n</Location>\n\
                <LocationMatch ^/(Ä|x)/[^x]+$>\n</LocationMatch>\n\
                <VirtualHost *>\n<Location />\nRequire all granted\n</Location>\n</VirtualHost>";
    let config = good(text).config;
    let [app, status, glob, regex, tilde, bytes] = config.hosts[0].locations.as_slice() else {
        panic!("six")
    };
    assert!(matches!(&app.matcher, LocationMatcher::Prefix(path) if path == "/app"));
    assert!(matches!(&app.target, Some(Target::Forward(forward)) if forward.base == "/app"));
    let reverse = app.reverse.as_ref().expect("one");
    assert_eq!((reverse.path.as_str(), reverse.url.as_str()), ("/app", "http://h:1/app"));
    assert_eq!(config.hosts[0].reverse[0].url, "http://j/app");
    assert_eq!(
        (app.preserve_host, app.add_headers, app.limit_request_body),
        (Some(true), Some(false), Some(None))
    );
    assert_eq!(status.handler, Some(Handler::ServerStatus));
    let ip = |net: &str| Require::Ip(net.parse().expect("a network"));
    assert_eq!(
        status.require.as_deref(),
        Some(&[
            Require::Local,
            ip("10.0.0.0/8"),
            ip("192.168.0.0/16"),
            ip("172.16.0.0/12"),
            ip("2001:db8::/32"),
            ip("192.0.2.7/32")
        ] as &[_])
    );
    assert!(matches!(&glob.matcher, LocationMatcher::Glob(pattern) if pattern.as_str() == "/x/*"));
    assert_eq!(
        (&glob.target, glob.require.as_deref()),
        (&Some(Target::Exclude), Some(&[Require::AllDenied] as &[_]))
    );
    assert!(
        matches!(&regex.matcher, LocationMatcher::Regex(found) if found.is_match(b"/a.d") && !found.is_match(b"/axd"))
    );
    assert!(matches!(&tilde.matcher, LocationMatcher::Regex(found) if found.is_match(b"/rest")));
    assert!(
        matches!(&bytes.matcher, LocationMatcher::Regex(found) if found.is_match("/Ä/\u{fc}".as_bytes()) && found.is_match(b"/\xc3\x84/\xff"))
    );
    let host = &config.hosts[1];
    assert_eq!(host.locations.len(), 7, "the main server's first");
    assert_eq!(host.locations[6].require.as_deref(), Some(&[Require::AllGranted] as &[_]));
}

#[test]
fn handlers_are_known_by_their_names() {
    for (word, want) in [
        ("server-status", Handler::ServerStatus),
        ("metrics", Handler::Metrics),
        ("Metrics", Handler::Metrics),
    ] {
        let config = good(&format!("<Location /x>\nSetHandler {word}\n</Location>")).config;
        assert_eq!(config.hosts[0].locations[0].handler, Some(want), "{word}");
    }
}

#[test]
fn a_status_page_behind_a_rule_is_told() {
    let page = "<Location /server-status>\nSetHandler server-status\n</Location>";
    let told = "nobody sees this page: the ProxyPass for \"/\" goes first; \
                a line \"ProxyPass !\" in the section keeps /server-status here";
    assert_eq!(notes(&format!("ProxyPass / http://h\n{page}"))[0], format!("warning 2:1: {told}"));
    assert!(
        notes(&format!("ProxyPass /server-status !\nProxyPass / http://h\n{page}"))
            .iter()
            .all(|note| !note.contains("nobody"))
    );
    assert!(notes(&page.replace("SetH", "ProxyPass !\nSetH")).is_empty());
}

#[test]
fn mapping_that_is_not_built_or_makes_no_sense_is_refused() {
    for (text, want) in [
        ("ProxyPass /a https://h/a", "1:14: ProxyPass: TLS to backends is not built yet"),
        ("ProxyPass /a balancer://c/a", "1:14: ProxyPass: balancing is not built yet; name one backend"),
        ("ProxyPass /a fcgi://h/a", "1:14: ProxyPass: fcgi backends are not built yet; http is"),
        ("ProxyPass /a ws://h/a", "1:14: ProxyPass: ws:// is not built yet; http:// passes upgrades on too"),
        (
            "ProxyPass /a h/a",
            "1:14: ProxyPass: \"h/a\" is not a url; write http://address:port/, or ! for a path that is not to be proxied",
        ),
        ("ProxyPass /a http:h", "1:14: ProxyPass: \"http:h\" is not a url; write http://address:port/"),
        ("ProxyPass /a http://u@h/a", "1:14: ProxyPass: a user in the url of a backend is not built yet"),
        ("ProxyPass /a http://h:0/a", "1:14: ProxyPass: port 0 leads nowhere"),
        ("ProxyPass /a http:///a", "1:14: ProxyPass: \"\" is not the name of a host"),
        ("ProxyPass /a http://h/a?b", "1:14: ProxyPass: a query in the url of a backend is not built yet"),
        (
            "ProxyPass /a \"http://h/a b\"",
            "1:14: ProxyPass: \" \" has no place in the path of a url; write it as % and two hexadecimal digits",
        ),
        (
            "ProxyPass /a unix:run/x|http://h/a",
            "1:14: ProxyPass: the socket \"run/x\" is not an absolute path",
        ),
        (
            "ProxyPass /a unix:/run/x",
            "1:14: ProxyPass: \"unix:/run/x\" names a socket but no url; write unix:/path/of/socket|http://name/",
        ),
        ("ProxyPass a http://h/a", "1:11: \"a\" does not begin with a slash; write a path, such as /app"),
        (
            "ProxyPass /a",
            "1:1: ProxyPass needs a url, or ! for a path that is not to be proxied; usage: ProxyPass [path] url|! [parameter=value ...]",
        ),
        ("ProxyPass /a ! max=5", "1:16: nothing may follow !"),
        ("ProxyPass /a http://h/a max=0", "1:25: max: 0 is too small; 1 is the least"),
        ("ProxyPass /a http://h/a tmeout=5", "1:25: there is no parameter \"tmeout\"; did you mean timeout?"),
        ("ProxyPass /a http://h/a timeout", "1:25: \"timeout\" is no parameter; write timeout=value"),
        ("ProxyPass /a http://h/a loadfactor=5", "1:25: loadfactor: balancing is not built yet"),
        (
            "ProxyPass /a http://h/a smax=5",
            "1:25: smax: a second bound of connections is not built yet; max and ttl are",
        ),
        ("ProxyPass /%2f http://h/a", "1:11: %2F never occurs in a path that is compared"),
        (
            "ProxyPassMatch ^/a http://h",
            "1:1: ProxyPassMatch: this way of mapping paths is not built yet; ProxyPass serves for plain prefixes",
        ),
        ("<Proxy balancer://c>\n</Proxy>", "1:8: <Proxy>: balancing is not built yet; name one backend"),
        (
            "<Proxy http://h>\nRequire all granted\nRequire local\n</Proxy>",
            "3:1: in <Proxy>, only \"Require all granted\" may stand; <Location> decides who may ask",
        ),
        (
            "<LocationMatch ^/a>\nProxyPass http://h/\n</LocationMatch>",
            "2:1: where a pattern matches, nobody knows what remains of the path; only \"ProxyPass !\" may stand here; a plain <Location /path> can have a url",
        ),
        (
            "<LocationMatch ^/(a>\n</LocationMatch>",
            "1:16: this is no regular expression: unclosed group; back references and look-around are not known here, so that matching stays fast",
        ),
        (
            "<LocationMatch ^/[aä]>\n</LocationMatch>",
            "1:16: this is no regular expression: Unicode not allowed here; paths are compared byte by byte, so a set holds ASCII letters only: write (a|ä) instead of [aä]",
        ),
        (
            "<Location \"/a[b\">\n</Location>",
            "1:11: this is no pattern: the [ is never closed; for the letter itself, write [[]",
        ),
        (
            "<Location \"/[b/]*\">\n</Location>",
            "1:11: this is no pattern: the [ is never closed; for the letter itself, write [[]",
        ),
        (
            "<Location \"/[bä]\">\n</Location>",
            "1:11: this is no pattern: a set holds ASCII letters only; names and paths are compared byte by byte, and such a letter is several; * matches it",
        ),
        (
            "Include \"a[b.conf\"",
            "1:9: a[b.conf is no pattern: the [ is never closed; for the letter itself, write [[]",
        ),
        (
            "<Location a>\n</Location>",
            "1:11: \"a\" does not begin with a slash; a location is a path, such as /app",
        ),
        ("<Location /a /b>\n</Location>", "1:11: \"/a\" is not ~; a path with blanks stands in quotes"),
        (
            "<Location /a>\nSetHandler server-info\n</Location>",
            "2:12: the handler \"server-info\" is not built in; server-status and metrics are",
        ),
        ("<Location /a>\nRequire valid-user\n</Location>", "2:9: Require: authentication is not built yet"),
        (
            "<Location /a>\nRequire all\n</Location>",
            "2:9: Require: \"all\" wants one word: granted or denied",
        ),
        (
            "<Location /a>\nRequire all grnated\n</Location>",
            "2:13: Require: \"grnated\" is not granted or denied",
        ),
        (
            "<Location /a>\nRequire ip 300.1\n</Location>",
            "2:12: Require: \"300.1\" is not a network; write an address, 192.0.2.0/24, 192.0.2 or 2001:db8::/32",
        ),
        (
            "<Location /a>\nProxyPass http://h/a\nProxyPass http://i/a\n</Location>",
            "3:1: a location has one ProxyPass",
        ),
        (
            "<Location /a>\n<Location /b>\n</Location>\n</Location>",
            "2:1: <Location> has no place in <Location>; it stands outside of all sections or in <VirtualHost>",
        ),
        (
            "ProxyPassReverse /a",
            "1:1: outside of <Location>, ProxyPassReverse needs a path and a url; usage: ProxyPassReverse path url",
        ),
        (
            "ProxyPassReverse /a h",
            "1:21: \"h\" is not a url; write the url that the backend puts into Location, such as http://127.0.0.1:3000/",
        ),
    ] {
        assert_eq!(faults(text), [want], "{text}");
    }
}

#[test]
fn a_server_that_proxies_nothing_is_told() {
    let options = Options { after: Vec::new(), ..options() };
    let loaded = run_with("Listen 80", &options, &MemoryFiles::default()).expect("it loads");
    assert_eq!(
        said(&loaded.notes, Severity::Warning),
        [
            "no ProxyPass leads anywhere, so every request will earn 404; write ProxyPass / http://127.0.0.1:3000/"
        ]
    );
    let Err(faults) = run_with("", &options, &MemoryFiles::default()) else { panic!("nobody listens") };
    assert!(faults.to_string().contains("there is no Listen line, so nobody could connect"), "{faults}");
}
