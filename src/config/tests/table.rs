//! The table and the code that reads by it stay together.

use super::super::backend::PARAMETERS;
use super::super::directives::{Contexts, TABLE, Treatment, find, find_section};
use super::super::model::Mpm;
use super::super::{foreign, listing};
use super::*;

/// Words that each honoured directive takes.
const SAMPLES: &[(&str, &str)] = &[
    ("ChildStallTimeout", "30"),
    ("CoreDumpDirectory", "/etc/ostler"),
    ("CustomLog", "logs/access common"),
    ("DefaultRuntimeDir", "/run/x"),
    ("Define", "a b"),
    ("EnableExceptionHook", "off"),
    ("Error", "never read"),
    ("ErrorLog", "logs/error"),
    ("ExtendedStatus", "off"),
    ("GracefulReloadTimeout", "0"),
    ("GracefulShutdownTimeout", "10"),
    ("Group", "#1000"),
    ("HandOver", "off"),
    ("Include", "ostler.conf"),
    ("IncludeOptional", "none*"),
    ("KeepAlive", "off"),
    ("KeepAliveTimeout", "500ms"),
    ("LimitRequestBody", "10M"),
    ("LimitRequestFieldSize", "4096"),
    ("LimitRequestFields", "0"),
    ("LimitRequestLine", "4096"),
    ("Listen", "[::1]:81 http"),
    ("ListenBacklog", "10"),
    ("LoadModule", "proxy_module modules/mod_proxy.so"),
    ("LogFormat", "\"%h %r\" short"),
    ("LogLevel", "info proxy:debug"),
    ("MPM", "event"),
    ("MaxConnectionsPerChild", "10"),
    ("MaxConnectionsPerProcess", "1000"),
    ("MaxKeepAliveRequests", "0"),
    ("MaxRequestWorkers", "100"),
    ("MaxRequestsPerChild", "10"),
    ("MaxSpareServers", "10"),
    ("MaxSpareThreads", "100"),
    ("MinSpareServers", "5"),
    ("MinSpareThreads", "25"),
    ("PidFile", "none"),
    ("ProxyAddHeaders", "off"),
    ("ProxyPass", "/a http://127.0.0.1:1/b"),
    ("ProxyPassReverse", "/a http://127.0.0.1:1/b"),
    ("ProxyPreserveHost", "on"),
    ("ProxyRequests", "off"),
    ("ProxySet", "http://127.0.0.1:9/x timeout=5"),
    ("ProxyTimeout", "10"),
    ("ProxyVia", "block"),
    ("ReceiveBufferSize", "4096"),
    ("RequestReadTimeout", "header=10 body=0"),
    ("Require", "all granted"),
    ("ScoreBoardFile", "run/board"),
    ("SeeRequestTail", "on"),
    ("SendBufferSize", "4096"),
    ("ServerAlias", "*.example.org"),
    ("ServerLimit", "20"),
    ("ServerName", "www.example.org:80"),
    ("ServerRoot", "/etc/ostler"),
    ("ServerTokens", "Prod"),
    ("SetHandler", "server-status"),
    ("StartServers", "2"),
    ("StatusListen", "unix:status"),
    ("ThreadLimit", "30"),
    ("ThreadStackSize", "0"),
    ("ThreadsPerChild", "20"),
    ("Timeout", "30"),
    ("TransferLog", "logs/transfer"),
    ("UnDefine", "a"),
    ("User", "#1000"),
];

#[test]
fn every_honoured_directive_is_read_wherever_the_table_allows_it() {
    for entry in TABLE.iter().filter(|entry| !entry.section && entry.treatment == Treatment::Honoured) {
        let sample = SAMPLES.iter().find(|(name, _)| *name == entry.name);
        let (_, words) = sample.unwrap_or_else(|| panic!("{} has no sample", entry.name));
        for (context, open, close) in [
            (Contexts::SERVER, "", ""),
            (Contexts::HOST, "<VirtualHost *:9999>\n", "</VirtualHost>\n"),
            (Contexts::LOCATION, "<Location /l>\n", "</Location>\n"),
            (Contexts::PROXY, "<Proxy http://127.0.0.1:9>\n", "</Proxy>\n"),
        ] {
            let mpm = if entry.drivers.know(Mpm::Event) { "event" } else { "prefork" };
            // In some places a word is less.
            let words = match (entry.name, context) {
                ("ProxyPass" | "ProxyPassReverse", Contexts::LOCATION) => "http://127.0.0.1:1/b",
                ("ProxySet", Contexts::PROXY) => "timeout=5",
                _ => words,
            };
            let line = format!("{} {words}", entry.name);
            let line = match entry.name {
                "Error" => format!("<IfDefine NEVER>\n{line}\n</IfDefine>"),
                "Include" => format!("{line}.other"),
                _ => line,
            };
            let text = format!("MPM {mpm}\n{open}{line}\n{close}");
            let files = MemoryFiles::default().with("/etc/ostler/ostler.conf.other", "");
            let loaded = run_with(&text, &options(), &files);
            assert_eq!(
                loaded.is_ok(),
                entry.contexts.contain(context) || entry.name == "Error",
                "{text}\n{}",
                loaded.err().map_or_else(String::new, |faults| faults.to_string())
            );
        }
    }
}

#[test]
fn what_is_idle_is_taken_with_a_note_and_what_is_refused_is_a_fault() {
    for entry in TABLE {
        let mpm = if entry.drivers.know(Mpm::Event) { "event" } else { "prefork" };
        let text = format!("MPM {mpm}\n{} some words", entry.name);
        match entry.treatment {
            Treatment::Honoured => {}
            Treatment::Idle(why) => {
                assert_eq!(notes(&text), [format!("note 2:1: {} has no meaning here: {why}", entry.name)]);
            }
            Treatment::Refused(why) => assert_eq!(faults(&text), [format!("2:1: {}: {why}", entry.name)]),
        }
    }
}

#[test]
fn names_are_sorted_and_mean_one_thing() {
    let names: Vec<String> = TABLE.iter().map(|entry| entry.name.to_ascii_lowercase()).collect();
    assert!(names.is_sorted(), "{names:?}");
    let parameters: Vec<&str> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
    assert!(parameters.is_sorted(), "{parameters:?}");
    for entry in TABLE {
        for name in std::iter::once(&entry.name).chain(entry.old).chain(entry.misspelt) {
            let found = if entry.section { find_section(name) } else { find(name) };
            assert_eq!(found.map(|(found, _)| found.name), Some(entry.name), "{name}");
            assert_eq!(foreign::sentence(name), None, "{name} is ours");
        }
        assert!(entry.words.0 <= entry.words.1);
        assert!(!entry.doc.ends_with('.') && !entry.doc.contains('\n'), "{}", entry.doc);
    }
}

#[test]
fn every_parameter_is_treated_as_the_table_says() {
    for parameter in PARAMETERS {
        let value = if parameter.usage.starts_with("On") { "On" } else { "3" };
        let text = format!("ProxyPass /a http://127.0.0.1:1/a {}={value}", parameter.name);
        match parameter.treatment {
            Treatment::Honoured => assert!(notes(&text).is_empty(), "{text}"),
            Treatment::Idle(why) => {
                assert_eq!(
                    notes(&text),
                    [format!("note 1:35: {} has no meaning here: {why}", parameter.name)]
                );
            }
            Treatment::Refused(why) => {
                assert_eq!(faults(&text), [format!("1:35: {}: {why}", parameter.name)])
            }
        }
    }
}

#[test]
fn the_listing_shows_all_of_it() {
    let all = listing();
    assert!(all.len() > TABLE.len());
    let listen = all.iter().find(|listed| listed.name == "Listen").expect("it is there");
    assert_eq!(listen.synopsis, "Listen [address:]port [http]");
    assert_eq!((listen.contexts.as_str(), listen.default.as_str()), ("server", "none"));
    let start = all.iter().find(|listed| listed.name == "StartServers").expect("it is there");
    assert_eq!(start.default, "3 (prefork 5)");
    let workers = all.iter().find(|listed| listed.name == "MaxRequestWorkers").expect("it is there");
    assert_eq!(workers.aliases, ["MaxClients"]);
    assert!(all.iter().any(|listed| listed.name == "ProxyPass ttl=" && listed.default == "60"));
    assert!(
        all.iter().any(|listed| listed.name == "<Location>" && listed.contexts == "server, virtual host")
    );
}
