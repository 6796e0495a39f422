//! The lines of the error log and of access logs, as administrators and their tools know them.

use crate::support::{Backend, Daemon, Home, Mpm, holds_for, processes, wait_until};
use nix::sys::signal::Signal;
use regex::Regex;
use socket2::SockRef;
use std::time::Duration;

/// Waits until `name` has so many lines, and gives them.
#[track_caller]
fn lines(daemon: &Daemon, name: &str, count: usize) -> Vec<String> {
    wait_until(&format!("{count} lines in {name}"), || {
        let text = daemon.home().read(name);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (text.ends_with('\n') && lines.len() >= count).then_some(lines)
    })
}

under_each_mpm! {
    fn every_request_leaves_a_line_in_the_access_log(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(
            mpm,
            &format!("CustomLog access.log combined\nCustomLog \"other.log\" \"%m %U%q %>s %B %X\"\nProxyPass / {}/", backend.url()),
        );
        let mut client = daemon.connect();
        client
            .ask("GET /bytes/5?a=b HTTP/1.1\r\nHost: test\r\nUser-Agent: tester \"1\"\r\nReferer: http://from/\r\n\r\n")
            .expect("an answer");
        client.ask("POST /status/404 HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").expect("an answer");
        // Lines of one child's connections come in no fixed order: wait for these before the next.
        lines(&daemon, "other.log", 2);
        let mut bad = daemon.connect();
        bad.ask("NOT HTTP\r\n\r\n").expect("an answer");
        let access = lines(&daemon, "access.log", 3);
        let common = r#"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"#;
        for (line, want) in access.iter().zip([
            r#"{} "GET /bytes/5\?a=b HTTP/1\.1" 200 5 "http://from/" "tester \\"1\\""$"#,
            r#"{} "POST /status/404 HTTP/1\.1" 404 12 "-" "-"$"#,
            r#"{} "[^"]*" 400 \S+ "-" "-"$"#,
        ]) {
            let pattern = Regex::new(&want.replace("{}", common)).expect("a literal pattern");
            assert!(pattern.is_match(line), "{line}\nis not\n{want}");
        }
        let other = lines(&daemon, "other.log", 3);
        assert_eq!(other[..2], ["GET /bytes/5?a=b 200 5 +".to_owned(), "POST /status/404 404 12 -".to_owned()]);
    }

    fn the_error_log_speaks_as_httpd_does(mpm) {
        let backend = Backend::start();
        let daemon = Daemon::under(mpm, &format!("ProxyPass / {}/", backend.url()));
        daemon.tolerate("proxy");
        assert_eq!(daemon.get("/hangup").status, 502);
        let line = daemon.wait_for_line("the failure", |line| line.contains("[client 127.0.0.1:"));
        let pattern = Regex::new(
            r"^\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\.\d{6} \d{4}\] \[\w+:\w+\] \[pid \d+(:tid \d+)?\] .+$",
        )
        .expect("a literal pattern");
        for line in daemon.log().lines() {
            assert!(pattern.is_match(line), "{line}");
        }
        assert!(line.contains("[proxy"), "{line}");
        assert!(line.contains(&backend.authority()), "it names the origin: {line}");
    }
}

#[test]
fn an_answer_that_was_cut_is_logged_with_what_was_sent() {
    let backend = Backend::start();
    let daemon = Daemon::under(
        Mpm::Event,
        &format!("LogFormat \"%>s %B %X\" cut\nCustomLog access.log cut\nProxyPass / {}/", backend.url()),
    );
    daemon.tolerate("proxy");
    assert!(daemon.connect().get("/cut/10000").is_err());
    assert_eq!(lines(&daemon, "access.log", 1)[0], "200 5000 X");
}

#[test]
fn a_log_may_be_a_program() {
    let backend = Backend::start();
    let home = Home::new();
    let target = home.path("piped.log");
    let text = format!(
        "CustomLog \"|/bin/cat >> '{}'\" \"%m %U\"\nProxyPass / {}/",
        target.display(),
        backend.url()
    );
    let daemon = Daemon::at(home, &text);
    assert_eq!(daemon.get("/piped").status, 200);
    assert_eq!(lines(&daemon, "piped.log", 1)[0], "GET /piped");
}

/// The process that has written its number to this file.
#[track_caller]
fn number_in(daemon: &Daemon, name: &str) -> i32 {
    wait_until(&format!("a number in {name}"), || daemon.home().read(name).trim().parse().ok())
}

#[track_caller]
fn wait_for_end(pid: i32) {
    wait_until("its end, since nobody writes to it any more", || (!processes::is_alive(pid)).then_some(()));
}

#[test]
fn an_error_log_program_ends_when_nobody_writes_to_it_any_more() {
    let home = Home::new();
    let place = home.path("").display().to_string();
    let text = |name: &str| {
        format!(
            "MPM event\nErrorLog \"|sh -c 'echo $$ >{place}{name}.pid; exec cat >>{place}error.log'\"\n\
             CustomLog \"|sh -c 'exec cat >/dev/null'\" common\nProxyPass / http://127.0.0.1:9/"
        )
    };
    let mut daemon = Daemon::detached_at(home, &text("first"));
    let first = number_in(&daemon, "first.pid");
    // The other program goes on over this reload.
    daemon.home().write_whole(&text("second"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("] serving generation 2");
    let second = number_in(&daemon, "second.pid");
    wait_for_end(first);
    daemon.signal(Signal::SIGUSR2);
    daemon.follow();
    daemon.wait_for_log("] serving generation 3");
    wait_for_end(second);
    let third = number_in(&daemon, "second.pid");
    assert!(processes::is_alive(third));
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_end();
    wait_for_end(third);
}

#[test]
fn what_an_error_log_program_says_does_not_come_back_to_it() {
    let home = Home::new();
    let log = home.path("error.log").display().to_string();
    let text = format!("MPM event\nErrorLog \"|tee /dev/stderr >>{log}\"\nProxyPass / http://127.0.0.1:9/");
    let mut daemon = Daemon::detached_at(home, &text);
    holds_for("each line is there once", Duration::from_millis(300), || {
        daemon.lines_with("serving on ").len() <= 1
    });
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_end();
}

#[test]
fn a_virtual_host_logs_for_itself() {
    let backend = Backend::start();
    let daemon = Daemon::under(
        Mpm::Event,
        &format!(
            "CustomLog main.log \"%v %U\"\nProxyPass / {0}/\n\
             <VirtualHost *:*>\nServerName one.test\nCustomLog one.log \"%v %U\"\n</VirtualHost>\n",
            backend.url()
        ),
    );
    let request = "GET /x HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";
    assert_eq!(daemon.connect().ask(request).expect("an answer").status, 200);
    assert_eq!(lines(&daemon, "one.log", 1), ["one.test /x"]);
    assert_eq!(
        daemon.home().read("main.log"),
        "",
        "a host with a log of its own does not use the main one's"
    );
}

#[test]
fn hostile_bytes_cannot_forge_a_line() {
    let backend = Backend::start();
    let daemon = Daemon::under(
        Mpm::Event,
        &format!("CustomLog access.log \"%r|%{{User-Agent}}i|\"\nProxyPass / {}/", backend.url()),
    );
    let mut client = daemon.connect();
    client
        .ask(b"GET /a HTTP/1.1\r\nHost: test\r\nUser-Agent: a\tb\xff\"\\c\r\nConnection: close\r\n\r\n")
        .expect("an answer");
    lines(&daemon, "access.log", 1);
    let mut client = daemon.connect();
    client.send(b"GET /\x1b[31m\x07 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.answer("GET").expect("an answer").status, 400);
    let access = lines(&daemon, "access.log", 2);
    assert_eq!(access[0], r#"GET /a HTTP/1.1|a\tb\xff\"\\c|"#);
    let is_plain = |line: &String| line.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    assert!(access.iter().all(is_plain) && daemon.log().bytes().all(|byte| byte != 0x1b), "{access:?}");
}

#[test]
fn lines_of_many_clients_never_mix() {
    let backend = Backend::start();
    let daemon =
        Daemon::under(Mpm::Event, &format!("CustomLog access.log \"%U\"\nProxyPass / {}/", backend.url()));
    let address = daemon.address();
    let long = "x".repeat(300);
    let clients = crate::support::at_once(8, move |client| {
        let mut connection = crate::support::Client::connect(address);
        for round in 0..50 {
            let target = format!("/{client}/{round}/{long}");
            assert_eq!(connection.get(&target).expect("an answer").status, 200);
        }
    });
    for client in clients {
        client.join().expect("served");
    }
    let mut seen = lines(&daemon, "access.log", 400);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 400);
    assert!(seen.iter().all(|line| line.starts_with('/') && line.ends_with(&"x".repeat(300))));
}

/// Asks one after the other, each on a connection of its own.
fn ask_each(daemon: &Daemon, requests: &[&str]) {
    for (count, request) in requests.iter().enumerate() {
        daemon.connect().ask(request).expect("an answer");
        lines(daemon, "access.log", count + 1);
    }
}

#[test]
fn fields_of_responses_are_logged_as_the_client_got_them() {
    let backend = Backend::with(|exchange| {
        let location = format!("http://{}/inner/x", exchange.request.field("host").unwrap_or_default());
        let fields = [
            ("Content-Type", "text/html ; charset=utf-8"),
            ("Location", location.as_str()),
            ("Set-Cookie", "a=1"),
            ("set-cookie", "b=2; Path=/"),
            ("X-Many", "one"),
            ("X-Many", "two"),
            ("X-Hop", "mine"),
            ("Connection", "x-hop"),
        ];
        exchange.respond(302, &fields, b"")
    });
    let format =
        "%>s|%{Location}o|%{content-type}o|%{Set-Cookie}o|%{X-Many}o|%{X-Hop}o|%{Content-Length}o|%{Absent}o";
    let daemon = Daemon::under(
        Mpm::Event,
        &format!(
            "LogFormat \"{format}\" all\nCustomLog access.log all\nCustomLog \"other.log\" \"%{{X-Many}}o\"\n\
             ProxyPass /outer {0}/inner\nProxyPassReverse /outer {0}/inner",
            backend.url()
        ),
    );
    ask_each(&daemon, &["GET /outer/x HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n"]);
    let want = "302|http://test.example/outer/x|text/html|a=1, b=2; Path=/|one, two|-|0|-";
    assert_eq!(lines(&daemon, "access.log", 1), [want]);
    assert_eq!(lines(&daemon, "other.log", 1), ["one, two"]);
}

under_each_mpm! {
    fn fields_of_our_own_answers_are_logged(mpm) {
        let backend = Backend::start();
        let text = format!(
            "CustomLog access.log \"%>s|%{{Content-Type}}o|%{{Allow}}o|%{{Retry-After}}o|%{{Connection}}o|%{{h1}}o\"\n\
             <Location /status>\nProxyPass !\nSetHandler server-status\n</Location>\n\
             <Location /closed>\nRequire all denied\n</Location>\n\
             ProxyPass /there {0}/\nProxyPass /hangup {0}/hangup\nProxyPass /closed {0}/\n",
            backend.url()
        );
        let daemon = Daemon::under(mpm, &text);
        daemon.tolerate("proxy");
        ask_each(&daemon, &[
            "GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n",
            "GET /closed HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
            "TRACE /there HTTP/1.1\r\nHost: test\r\n\r\n",
            "GET /status?auto HTTP/1.1\r\nHost: test\r\n\r\n",
            "GET /hangup HTTP/1.1\r\nHost: test\r\n\r\n",
            "NOT HTTP\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ]);
        assert_eq!(lines(&daemon, "access.log", 7), [
            "404|text/html|-|-|-|-",
            "403|text/html|-|-|close|-",
            "405|text/html|GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS|-|-|-",
            "200|text/plain|-|-|-|-",
            "502|text/html|-|-|-|-",
            "400|text/html|-|-|close|-",
            "400|text/html|-|-|close|-",
        ]);
    }

    fn an_answer_of_our_own_that_cannot_be_sent_is_logged_as_aborted(mpm) {
        let backend = Backend::start();
        let text = format!("CustomLog access.log \"%U %>s %X\"\nProxyPass /there {}", backend.url());
        let daemon = Daemon::under(mpm, &text);
        let mut client = daemon.connect();
        assert_eq!(client.get("/kept").expect("an answer").status, 404);
        let child = daemon.child_of(&client);
        // The request waits in the kernel when the reset comes: it can still be read, and nothing can be sent.
        processes::send(child, Signal::SIGSTOP);
        wait_until("a child that stands still", || processes::look(child).filter(|child| child.state == 'T'));
        client.send("GET /gone HTTP/1.1\r\nHost: test\r\n\r\n");
        let socket = SockRef::from(&*client.stream());
        socket.set_linger(Some(Duration::ZERO)).expect("a connected socket takes options");
        drop(client);
        processes::send(child, Signal::SIGCONT);
        assert_eq!(lines(&daemon, "access.log", 2), ["/kept 404 +", "/gone 404 X"]);
    }

    fn trailers_are_logged_whether_or_not_they_are_passed_on(mpm) {
        let backend = Backend::with(|exchange| {
            exchange.read_body(|_| {})?;
            exchange.respond_chunked(b"hello", 5, "Sum: 43\r\nsum: \"44\"\r\n")
        });
        let daemon = Daemon::under(
            mpm,
            &format!(
                "CustomLog access.log \"%{{Sum}}^ti|%{{Sum}}^to|%{{None}}^to|%{{Sum}}i\"\nProxyPass / {}/",
                backend.url()
            ),
        );
        ask_each(&daemon, &[
            "POST / HTTP/1.1\r\nHost: test\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\nSum: 42\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: test\r\n\r\n",
        ]);
        let given = r#"43, \"44\"|-|-"#;
        assert_eq!(lines(&daemon, "access.log", 3), [format!("42|{given}"), format!("-|{given}"), format!("-|{given}")]);
    }
}

#[test]
fn repeated_fields_of_requests_are_logged_as_one() {
    let backend = Backend::start();
    let daemon = Daemon::under(
        Mpm::Event,
        &format!(
            "CustomLog access.log \"%{{X-A}}i|%{{X-B}}i|%{{one}}C|%{{two}}C|%{{none}}C\"\nProxyPass / {}/",
            backend.url()
        ),
    );
    ask_each(
        &daemon,
        &["GET / HTTP/1.1\r\nHost: test\r\nx-a: 1\r\nCookie: one=a; three=c\r\nX-A: 2, 3\r\nX-B: only\r\n\
            X-a:\r\nCookie: two=b\r\nConnection: close\r\n\r\n"],
    );
    assert_eq!(lines(&daemon, "access.log", 1), ["1, 2, 3, |only|a|b|-"]);
}
