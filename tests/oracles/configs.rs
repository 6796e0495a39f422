//! Does any text make a configuration that can be used, or faults that can be shown?

use ostler::config::files::MemoryFiles;
use ostler::config::{Diagnostic, Options, effective, read};
use ostler::ids::HostId;
use ostler::proxy::router::{Asked, Router};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Any bytes as a configuration file, beside one that it may include.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let files = MemoryFiles::default()
        .with("/etc/more.conf", "LogLevel info\n<Location /more>\nProxyPass !\n</Location>\n")
        .with("/etc/test.conf", bytes);
    let options = Options::default();
    let run = || read("test.conf", &text, Path::new("/etc"), &options, &files);
    let (one, two) = (run(), run());
    match (one, two) {
        (Ok(loaded), Ok(again)) => {
            shown(&loaded.notes, &text);
            assert_eq!(
                format!("{:?}", loaded.config),
                format!("{:?}", again.config),
                "the same text, the same meaning"
            );
            let config = &loaded.config;
            let summary = effective(config, 4096);
            assert!(summary.contains(config.mpm.name()) && summary.lines().count() >= 2);
            let router = Router::new(config);
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            for host in 0..config.hosts.len() {
                for path in [&b"/"[..], b"/a/../more/%41?", b"/%", b"//x"] {
                    let asked = Asked { path, query: Some(b"q"), client: local, local };
                    let mut target = Vec::new();
                    router.route(config, HostId(host as u32), &asked, &mut target);
                    let is_sendable = target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
                    assert!(is_sendable && (target.is_empty() || target[0] == b'/'), "{target:?}");
                }
            }
        }
        (Err(faults), Err(again)) => {
            assert!(faults.count() > 0 && !faults.render(true).is_empty());
            assert_eq!(faults.to_string(), again.to_string());
            shown(&faults.0, &text);
        }
        (one, two) => panic!("once so and once so: {one:?} {two:?}"),
    }
}

/// Each can be shown, at a place that is there.
fn shown(diagnostics: &[Diagnostic], text: &str) {
    for diagnostic in diagnostics {
        assert!(!diagnostic.message().is_empty() && !diagnostic.render(false).is_empty());
        let message = diagnostic.to_string();
        assert!(message.chars().all(|letter| letter == '\n' || !letter.is_control()), "{message:?}");
        if let Some((name, line, column)) = diagnostic.position() {
            assert!(line >= 1 && column >= 1, "{message}");
            if name == "test.conf" {
                assert!(line as usize <= text.split('\n').count(), "{message} is behind the end");
            }
        }
    }
}
