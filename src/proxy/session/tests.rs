//! Deadlines: what is waited for in each phase, and until when.

use super::*;
use crate::config::{Options, from_text};
use proptest::prelude::*;

const CONNECT: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(40);
const QUIET: Waits = Waits { client_write: false, client_body: false, upstream: false, expect: false };

/// The main server of a configuration with these lines.
fn host(lines: &str) -> VirtualHost {
    let text = format!("Listen 10.0.0.1:80\n{lines}\nProxyPass / http://127.0.0.1/\n");
    let loaded = from_text("test", &text, &Options::default()).unwrap_or_else(|faults| panic!("{faults}"));
    loaded.config.hosts[0].clone()
}

fn due(session: &Session, host: &VirtualHost, waits: Waits) -> (u64, Expiry) {
    let (tick, expiry) = session.deadline(host, CONNECT, SILENCE, waits, Tick::NEVER);
    (tick.0, expiry)
}

const NEVER: u64 = u64::MAX;

#[test]
fn each_phase_has_its_deadline() {
    let host = host("Timeout 50\nKeepAliveTimeout 5\nRequestReadTimeout header=20 body=10");
    let mut session = Session::new(Tick(1000));
    assert_eq!((session.phase(), session.requests(), session.is_kept_alive()), (Phase::Idle, 0, false));
    assert_eq!(due(&session, &host, QUIET), (21_000, Expiry::Idle));
    // The first head's clock runs from accept.
    session.head_bytes(5, Tick(9000));
    assert_eq!((session.phase(), due(&session, &host, QUIET)), (Phase::Head, (21_000, Expiry::Head)));
    session.wait_for_row(Tick(10_000));
    assert_eq!((session.phase(), due(&session, &host, QUIET).0), (Phase::Row, NEVER));
    session.resume_head(true, Tick(11_000));
    assert_eq!((session.phase(), due(&session, &host, QUIET)), (Phase::Head, (31_000, Expiry::Head)));
    session.begin(Tick(12_000));
    assert_eq!((session.phase(), session.requests()), (Phase::Exchange, 1));
    session.wait_for_place(Tick(13_000));
    session.wait_for_place(Tick(14_000));
    assert_eq!((session.phase(), due(&session, &host, QUIET)), (Phase::Place, (53_000, Expiry::Place)));
    session.connecting(Tick(15_000));
    assert_eq!((session.phase(), due(&session, &host, QUIET)), (Phase::Connect, (18_000, Expiry::Connect)));
    session.connected(Tick(16_000));
    let waits = Waits { upstream: true, ..QUIET };
    assert_eq!(
        (session.phase(), due(&session, &host, waits)),
        (Phase::Exchange, (56_000, Expiry::UpstreamStalled))
    );
    session.keep(Tick(20_000));
    assert!(session.is_kept_alive());
    assert_eq!(due(&session, &host, QUIET), (25_000, Expiry::Idle));
    // The next head's clock runs from its own first byte.
    session.head_bytes(5, Tick(24_000));
    assert_eq!(due(&session, &host, QUIET), (44_000, Expiry::Head));
    session.head_bytes(9, Tick(30_000));
    assert_eq!(due(&session, &host, QUIET), (44_000, Expiry::Head));
    session.begin(Tick(31_000));
    session.tunnel(Tick(32_000));
    assert_eq!((session.phase(), due(&session, &host, QUIET)), (Phase::Tunnel, (82_000, Expiry::Tunnel)));
    session.upstream_moved(Tick(33_000));
    session.client_moved(Tick(34_000));
    assert_eq!(
        due(&session, &host, QUIET),
        (84_000, Expiry::Tunnel),
        "the longer time-out, from the last byte"
    );
    session.linger(Tick(90_000));
    assert_eq!((session.phase(), due(&session, &host, QUIET)), (Phase::Linger, (92_000, Expiry::Linger)));
    for seconds in 91..=119 {
        session.client_moved(Tick(seconds * 1000));
    }
    assert_eq!(due(&session, &host, QUIET), (120_000, Expiry::Linger), "not for ever");
}

#[test]
fn a_row_that_comes_before_any_byte_of_the_head_begins_an_idle_wait() {
    let host = host("KeepAliveTimeout 5");
    let mut session = Session::new(Tick(0));
    session.begin(Tick(0));
    session.keep(Tick(1000));
    session.wait_for_row(Tick(2000));
    session.resume_head(false, Tick(60_000));
    assert!(session.is_kept_alive());
    assert_eq!(due(&session, &host, QUIET), (65_000, Expiry::Idle));
}

/// `RequestReadTimeout`, the bytes of the head and of the body that came at once, and when each is due.
#[test]
fn bytes_earn_time_by_the_rate() {
    for (lines, bytes, head, body) in [
        ("", 0, 20_000, 20_000),
        ("", 500, 21_000, 21_000),
        ("", 250, 20_500, 20_500),
        // header=20-40 has an end, body=20 has none but Timeout after the last byte.
        ("", 20_000, 40_000, 60_000),
        ("Timeout 300", 20_000, 40_000, 60_000),
        ("Timeout 300", 50_000, 40_000, 120_000),
        ("RequestReadTimeout header=10 body=30", 5000, 10_000, 30_000),
        ("RequestReadTimeout header=10,MinRate=100 body=5-8,MinRate=1000", 1000, 20_000, 6000),
        ("RequestReadTimeout header=10-12,MinRate=100 body=5-8,MinRate=1000", 9000, 12_000, 8000),
        // Without a limit of its own, each wait is still bounded by Timeout.
        ("RequestReadTimeout header=0 body=0", 10, 60_000, 60_000),
        ("Timeout 7\nRequestReadTimeout header=0 body=0", 10, 7000, 7000),
        ("Timeout 7", 10, 7000, 7000),
    ] {
        let host = host(lines);
        let mut session = Session::new(Tick(0));
        session.head_bytes(bytes, Tick(0));
        assert_eq!(due(&session, &host, QUIET), (head, Expiry::Head), "{lines} {bytes}");
        session.begin(Tick(0));
        session.connected(Tick(0));
        let waits = Waits { client_body: true, upstream: true, ..QUIET };
        session.body_bytes(bytes);
        assert_eq!(due(&session, &host, waits), (body, Expiry::Body), "{lines} {bytes}");
    }
}

#[test]
fn a_client_that_goes_silent_in_its_upload_has_not_earned_hours() {
    let host = host("");
    let mut session = Session::new(Tick(0));
    session.begin(Tick(0));
    session.connected(Tick(0));
    let waits = Waits { client_body: true, upstream: true, ..QUIET };
    for second in 1..=100 {
        session.body_bytes(1_000_000);
        session.client_moved(Tick(second * 1000));
        session.upstream_moved(Tick(second * 1000));
    }
    assert_eq!(due(&session, &host, waits), (160_000, Expiry::Body));
}

#[test]
fn a_body_is_in_time_as_long_as_its_bytes_earn_it() {
    for (lines, bytes, at, want) in [
        ("RequestReadTimeout body=10,MinRate=500", 0, 9_999, true),
        ("RequestReadTimeout body=10,MinRate=500", 0, 10_000, false),
        ("RequestReadTimeout body=10,MinRate=500", 5_000, 19_999, true),
        ("RequestReadTimeout body=10,MinRate=500", 5_000, 20_000, false),
        ("RequestReadTimeout body=0", 0, 1_000_000, true),
    ] {
        let mut session = Session::new(Tick(0));
        session.begin(Tick(0));
        session.body_bytes(bytes);
        assert_eq!(session.body_is_in_time(&host(lines), Tick(at)), want, "{lines}, {bytes} by {at}");
    }
}

#[test]
fn who_is_waited_for_decides_in_an_exchange() {
    let host = host("Timeout 50\nRequestReadTimeout header=20 body=10");
    let mut session = Session::new(Tick(0));
    session.begin(Tick(0));
    session.connected(Tick(1000));
    session.client_moved(Tick(2000));
    session.upstream_moved(Tick(3000));
    let all = [false, true];
    for client_write in all {
        for client_body in all {
            for upstream in all {
                for expect in all {
                    let waits = Waits { client_write, client_body, upstream, expect };
                    let want = match (client_write, client_body, upstream, expect) {
                        (_, _, _, true) => (2000, Expiry::Expect),
                        (true, ..) => (52_000, Expiry::ClientStalled),
                        (_, true, ..) => (11_000, Expiry::Body),
                        (_, _, true, _) => (43_000, Expiry::UpstreamStalled),
                        _ => (NEVER, Expiry::UpstreamStalled),
                    };
                    assert_eq!(due(&session, &host, waits), want, "{waits:?}");
                }
            }
        }
    }
    // A 100 that came starts the body's clock anew.
    session.body_begins(Tick(70_000));
    assert_eq!(due(&session, &host, Waits { client_body: true, ..QUIET }), (80_000, Expiry::Body));
    session.client_asked(Tick(75_000));
    assert_eq!(due(&session, &host, Waits { client_write: true, ..QUIET }), (125_000, Expiry::ClientStalled));
}

#[test]
fn a_backend_is_not_blamed_for_the_time_its_bytes_waited_for_the_client() {
    let host = host("Timeout 50");
    let mut session = Session::new(Tick(0));
    session.begin(Tick(0));
    session.connected(Tick(0));
    session.upstream_moved(Tick(1000));
    session.client_asked(Tick(1000));
    // A slow client takes all of it bit by bit; nothing is read from the backend meanwhile.
    for second in (10..=90).step_by(40) {
        assert!(
            due(&session, &host, Waits { client_write: true, upstream: true, ..QUIET }).0 >= second * 1000
        );
        session.client_moved(Tick(second * 1000));
    }
    assert_eq!(
        due(&session, &host, Waits { upstream: true, ..QUIET }),
        (90_000 + 40_000, Expiry::UpstreamStalled)
    );
}

#[test]
fn an_idle_connection_of_a_leaving_child_has_its_grace() {
    let host = host("Timeout 50\nKeepAliveTimeout 5\nRequestReadTimeout header=20 body=10");
    let at = |session: &Session, until| session.deadline(&host, CONNECT, SILENCE, QUIET, Tick(until)).0.0;
    let mut session = Session::new(Tick(0));
    assert_eq!((at(&session, 3000), at(&session, 90_000)), (3000, 20_000));
    assert_eq!(at(&session, 500), 2000, "it has only just connected");
    session.head_bytes(3, Tick(0));
    assert_eq!(at(&session, 3000), 20_000, "a request that has begun is not cut");
    session.begin(Tick(0));
    session.keep(Tick(1000));
    assert_eq!((at(&session, 4000), at(&session, 90_000)), (4000, 6000));
    assert_eq!(at(&session, 0), 3000, "its response has outlived the grace, and has not told it");
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Head(usize),
    Row,
    Resume(bool),
    Begin,
    Place,
    Connecting,
    Connected,
    ClientMoved,
    ClientAsked,
    UpstreamMoved,
    BodyBegins,
    Tunnel,
    Keep,
    Linger,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    prop_oneof![
        (0..100_000usize).prop_map(Head),
        any::<bool>().prop_map(Resume),
        prop::sample::select(vec![
            Row,
            Begin,
            Begin,
            Place,
            Connecting,
            Connected,
            ClientMoved,
            ClientAsked,
            UpstreamMoved,
            BodyBegins,
            Tunnel,
            Keep,
            Linger,
        ]),
    ]
}

fn apply(session: &mut Session, event: Event, now: Tick) {
    match event {
        Event::Head(total) => session.head_bytes(total, now),
        Event::Row => session.wait_for_row(now),
        Event::Resume(begun) => session.resume_head(begun, now),
        Event::Begin => session.begin(now),
        Event::Place => session.wait_for_place(now),
        Event::Connecting => session.connecting(now),
        Event::Connected => session.connected(now),
        Event::ClientMoved => session.client_moved(now),
        Event::ClientAsked => session.client_asked(now),
        Event::UpstreamMoved => session.upstream_moved(now),
        Event::BodyBegins => session.body_begins(now),
        Event::Tunnel => session.tunnel(now),
        Event::Keep => session.keep(now),
        Event::Linger => session.linger(now),
    }
}

fn waits() -> impl Strategy<Value = Waits> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(client_write, client_body, upstream, expect)| Waits { client_write, client_body, upstream, expect },
    )
}

proptest! {
    /// Whatever came before: what has just begun to be waited for is not late already.
    #[test]
    fn nothing_is_late_when_nothing_has_been_waited_for(
        events in prop::collection::vec((event(), 0..200_000u64), 0..12),
        waits in waits(),
    ) {
        let host = host("");
        let mut session = Session::new(Tick(0));
        let mut now = Tick(0);
        for (event, pause) in events {
            now = Tick(now.0 + pause);
            apply(&mut session, event, now);
            // Where there was no wait for the client to come, the step itself starts the clock.
            let starts = matches!(
                event,
                Event::Row | Event::Resume(_) | Event::Begin | Event::Connecting | Event::Connected
                    | Event::Tunnel | Event::Keep | Event::Linger
            );
            let (tick, _) = session.deadline(&host, CONNECT, SILENCE, waits, Tick::NEVER);
            prop_assert!(!starts || tick > now, "{event:?} at {now:?}: {tick:?}");
            let moves = match session.phase() {
                Phase::Exchange if waits.expect => {
                    matches!(event, Event::BodyBegins) && !waits.client_write && !waits.upstream
                }
                Phase::Exchange if waits.client_write => matches!(event, Event::ClientMoved | Event::ClientAsked),
                Phase::Exchange if waits.client_body => matches!(event, Event::BodyBegins),
                Phase::Exchange => matches!(event, Event::UpstreamMoved | Event::ClientMoved),
                Phase::Tunnel => matches!(event, Event::UpstreamMoved | Event::ClientMoved),
                _ => false,
            };
            prop_assert!(!moves || tick > now, "{event:?} at {now:?}: {tick:?}");
        }
    }

    #[test]
    fn more_bytes_are_never_due_earlier(few in 0..10_000_000usize, more in 0..10_000_000usize, max in 21..90u32) {
        let host = host(&format!("Timeout 1000\nRequestReadTimeout header=20-{max},MinRate=500 body=20,MinRate=1"));
        let at = |bytes| {
            let mut session = Session::new(Tick(0));
            session.head_bytes(bytes, Tick(0));
            due(&session, &host, QUIET).0
        };
        prop_assert!(at(few) <= at(few + more));
        prop_assert!((20_000..=u64::from(max) * 1000).contains(&at(few)));
    }

    #[test]
    fn no_count_of_bytes_overflows(bytes in prop::collection::vec(any::<usize>(), 0..4)) {
        let host = host("RequestReadTimeout header=20,MinRate=1 body=20,MinRate=1");
        let mut session = Session::new(Tick(u64::MAX - 5));
        session.begin(Tick(u64::MAX - 5));
        for count in bytes {
            session.body_bytes(count);
            let waits = Waits { client_body: true, ..QUIET };
            prop_assert!(due(&session, &host, waits).0 >= u64::MAX - 5);
            session.head_bytes(count, Tick(u64::MAX - 4));
        }
    }
}
