//! The status page in a browser that people use, against the scoreboard that it is made from.

use crate::support::daemon::run;
use crate::support::load::all_served;
use crate::support::{Backend, Daemon, Mpm, at_once};
use regex::Regex;
use std::collections::BTreeMap;
use std::process::Command;

/// The letters of each child, by pid.
type Grid = BTreeMap<String, String>;

/// What Chromium has made of a page once it is loaded: the document as it stands then.
fn loaded(url: &str) -> String {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let mut browser = Command::new("chromium");
    browser
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", url]);
    let run = run(browser);
    assert_eq!(run.code, Some(0), "chromium (Debian's package of that name): {run:?}");
    run.stdout
}

/// The first two groups of each match.
fn captures<'t>(pattern: &str, text: &'t str) -> Vec<[&'t str; 2]> {
    let pattern = Regex::new(pattern).expect("a literal pattern");
    let groups =
        |found: regex::Captures<'t>| [1, 2].map(|group| found.get(group).map_or("", |group| group.as_str()));
    pattern.captures_iter(text).map(groups).collect()
}

/// The letters of the page's grid.
fn grid_of_page(document: &str) -> Grid {
    let letters = |cells: &str| {
        let cells = captures(r#"<i(?: class="([^"]*)")? title="[^"]*">([^<]*)</i>"#, cells);
        cells
            .iter()
            .map(|[class, letter]| {
                assert!(
                    class == letter || (class.is_empty() && *letter == "."),
                    "a cell's colour is its letter's"
                );
                *letter
            })
            .collect::<String>()
    };
    let children = captures(r#"(?s)slot \d+, pid (\d+), gen .*?<div class="grid">(.*?)</div>"#, document);
    children.iter().map(|[pid, cells]| ((*pid).to_owned(), letters(cells))).collect()
}

/// The letters that `ostler status` shows.
fn grid_of_scoreboard(text: &str) -> Grid {
    let children = captures(r"(?m)^ +\d+ +(\d+) +\d+ .* (ready|draining) .*$", text);
    assert!(!children.is_empty(), "{text}");
    let line = |pid: &str| text.lines().find(|line| line.split_whitespace().nth(1) == Some(pid));
    let letters = |pid: &str| line(pid)?.split_whitespace().last();
    children
        .iter()
        .map(|[pid, _]| ((*pid).to_owned(), letters(pid).expect("just found").to_owned()))
        .collect()
}

#[test]
fn chromium_shows_the_scoreboard_as_it_is() {
    let backend = Backend::start();
    let daemon = Daemon::under(
        Mpm::Event,
        &format!(
            "StartServers 2\nServerLimit 2\nThreadsPerChild 5\nMaxRequestWorkers 10\nMinSpareThreads 1\nMaxSpareThreads 10\n\
             <Location /server-status>\nProxyPass !\nSetHandler server-status\n</Location>\nProxyPass / {}/",
            backend.url()
        ),
    );
    for _ in 0..20 {
        assert_eq!(daemon.get("/bytes/1000").status, 200);
    }
    let address = daemon.address();
    let clients =
        at_once(4, move |number| crate::support::daemon::get(address, &format!("/hold/<{number}>")));
    backend.wait_for_now(4);
    // From here on nothing moves but the browser's own requests.
    let status = daemon.wait_for_status("four busy workers", |status| (status.busy, status.idle) == (4, 6));
    let document = loaded(&format!("http://{address}/server-status?refresh=60"));
    let (shown, want) = (grid_of_page(&document), grid_of_scoreboard(&status.text));
    assert_eq!(
        shown.keys().collect::<Vec<_>>(),
        want.keys().collect::<Vec<_>>(),
        "{document}\n{}",
        status.text
    );
    let pairs = |pid: &String| shown[pid].chars().zip(want[pid].chars()).collect::<Vec<_>>();
    let mut others: Vec<(char, char)> =
        want.keys().flat_map(pairs).filter(|(shown, held)| shown != held).collect();
    others.sort_unstable();
    // The page tells of itself: its request takes a worker like any other.
    assert_eq!(others, [('W', '_')], "{shown:?} {want:?}");
    assert!(want.iter().all(|(pid, letters)| shown[pid].len() == letters.len()), "{shown:?} {want:?}");
    for number in 0..4 {
        // Escaped once, and shown as it was sent.
        let request = format!("GET /hold/&lt;{number}&gt; HTTP/1.1");
        assert!(document.contains(&format!("<td class=\"wide\">{request}</td>")), "{request}\n{document}");
    }
    for part in [
        "5 of 10 workers busy (50 %), 5 idle",
        "http-equiv=\"refresh\" content=\"60\"",
        "<div class=\"bars\"><i",
        "<b class=\"p99\" title=\"p99 ",
        "<div class=\"bars small\">",
    ] {
        assert!(document.contains(part), "{part}\n{document}");
    }
    // Nothing is fetched for it, and nothing runs in it.
    for part in ["<script", "src=", "<link", "url(", "@import"] {
        assert!(!document.contains(part), "{part}\n{document}");
    }
    backend.release();
    all_served(clients);
}
