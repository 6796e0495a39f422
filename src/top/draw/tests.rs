//! Frames of every size, from boards of every condition.

use super::*;
use crate::clock::Moment;
use crate::scoreboard::snapshot::{Life, Shown, Snapshot};
use crate::scoreboard::state::Stage;
use crate::scoreboard::tests::{bytes_of, lived_in};
use crate::status::Now;
use crate::top::model::Look;
use crate::top::view::{Form, Sort};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::time::Duration;

const THEMES: [Theme; 2] = [Theme { colour: true }, Theme { colour: false }];

fn now(seconds: u64) -> Now {
    Now {
        moment: Moment(5_000_000 + seconds * 1_000_000),
        wall_micros: 1_700_000_000_000_000 + seconds * 1_000_000,
        zone: TimeZone::UTC,
    }
}

fn snapshot() -> Snapshot {
    let mut snapshot = lived_in().reader().snapshot().expect("a snapshot");
    snapshot.life = Life::Running;
    snapshot.load = Some([0.5, 0.25, 0.125]);
    snapshot
}

fn model(snapshot: Snapshot) -> Model {
    Model::new(Look::new(snapshot, now(10)), View::new(Duration::from_secs(1)))
}

/// A house of `children` with `threads` workers each, every third worker busy.
fn house(children: u32, threads: u32) -> Snapshot {
    let mut snapshot = snapshot();
    let mut child = snapshot.children[0].clone();
    let (busy, idle) = (child.workers[0].clone(), child.workers[1].clone());
    child.workers = (0..threads)
        .map(|index| {
            let mut worker = if index % 3 == 0 { busy.clone() } else { idle.clone() };
            worker.index = index;
            worker
        })
        .collect();
    snapshot.children = (0..children)
        .map(|slot| crate::scoreboard::snapshot::Child { slot, pid: 10_000 + slot, ..child.clone() })
        .collect();
    snapshot.server.max_request_workers = children * threads;
    snapshot
}

fn frame(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal of the test's own");
    let theme = Theme { colour: true };
    terminal.draw(|frame| draw(model, theme, frame.area(), frame.buffer_mut())).expect("it cannot fail");
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(row).collect()
}

#[track_caller]
fn assert_holds(frame: &[String], parts: &[&str]) {
    for part in parts {
        assert!(frame.iter().any(|line| line.contains(part)), "{part:?} is not in\n{}", frame.join("\n"));
    }
}

#[test]
fn a_terminal_of_eighty_columns_shows_it_all() {
    let mut model = model(snapshot());
    let mut later = model.look.snapshot.clone();
    later.totals.requests += 1500;
    later.totals.bytes_out += 3 * 1024 * 1024;
    later.totals.latency.add(crate::scoreboard::histogram::bucket(4_000), 1500);
    later.backends[0].requests += 1500;
    later.backends[0].failures += 2;
    later.backends[0].latency.add(crate::scoreboard::histogram::bucket(3_000), 1500);
    model.take(Ok(Look::new(later, now(11))));
    let frame = frame(&mut model, 80, 24);
    assert_holds(
        &frame,
        &[
            " Ostler/0.1.0 www.example.org  event, generation 1",
            "22:13:31, every 1 s",
            "  SERVING  up 11 s, master 1",
            "load 0.50 0.25 0.12",
            "1 of 8 busy, 3 idle, 1 finishing",
            " 6 connections, 4 kept alive; 1,503 requests",
            " last reload or upgrade refused 22:13:29: ostler.conf:3:1: no",
            " 1,500 req/s  3.0 MiB/s out",
            " median 4.0 ms, p99 4.0 ms",
            " SLOT      PID  GEN STAGE      BUSY  WORKERS",
            "    0     4711    1 ready       1/4  W___",
            "    1     4712    1 draining    1/4  W___",
            "   1,500          0  3.0 ms  3.0 ms    2 (+2)  http://127.0.0.1:3000",
            "   8.0 s W 0-0     2001:db8::7     b.example       POST /second HTTP/1.1",
            "REQUEST  2 by age",
            " q quit  ? help ",
        ],
    );
    assert!(
        frame.iter().position(|line| line.contains("127.0.0.1:3000"))
            < frame.iter().position(|line| line.contains("app.sock")),
        "the busiest first"
    );
}

#[test]
fn the_first_look_shows_means() {
    let frame = frame(&mut model(snapshot()), 120, 40);
    assert_holds(&frame, &["0.3 req/s  mean so far", "median 2.0 ms, p99 2.0 ms  so far"]);
}

#[test]
fn what_became_of_the_server_is_said_first() {
    for (life, stopped, want) in [
        (Life::Dead, None, "DEAD  master 1 is gone since 22:13:24 or later; its workers held:"),
        (Life::BeforeReboot, None, "DEAD  by a reboot after 22:13:24; its workers held:"),
        (Life::Unknown, None, "UNSEEN  master 1 can't be seen from here; last sign of life 22:13:24"),
        (
            Life::Stopped,
            Some(1_700_000_009_000_000),
            "STOPPED  since 22:13:29, in good order; this is how it ended",
        ),
    ] {
        let mut snapshot = snapshot();
        (snapshot.life, snapshot.server.stopped_wall) = (life, stopped);
        let frame = frame(&mut model(snapshot), 80, 24);
        assert!(frame[1].contains(want), "{}", frame[1]);
        assert_holds(&frame, &["POST /second HTTP/1.1"]);
    }
    let mut full = snapshot();
    full.server.max_request_workers = 1;
    assert!(frame(&mut model(full), 80, 24)[1].contains("FULL  all workers are busy, further clients wait"));
    let mut ending = snapshot();
    ending.children.retain(|child| child.stage == Some(Stage::Quiescing));
    assert!(frame(&mut model(ending), 80, 24)[1].contains("STOPPING  1 child finishes, nobody takes"));
}

#[test]
fn generations_that_drain_and_files_that_cannot_be_read_are_told_of() {
    let mut snapshot = snapshot();
    snapshot.server.generation = 2;
    snapshot.children[0].generation = 2;
    let mut model = model(snapshot);
    model.take(Err("cannot open the scoreboard /run/x: No such file or directory".to_owned()));
    assert_holds(
        &frame(&mut model, 100, 34),
        &[
            "draining generation 1: 1 child, 1 busy",
            "as last read: cannot open the scoreboard /run/x: No such file or directory",
        ],
    );
    let again = model.look.clone();
    model.take(Ok(again));
    assert!(!frame(&mut model, 100, 34).join("\n").contains("/run/x"));
}

#[test]
fn the_grid_takes_the_form_that_fits() {
    for (children, threads, width, height, want) in [
        (4, 25, 80, 24, Form::Rows),
        (20, 25, 80, 24, Form::Bars),
        (12, 25, 120, 40, Form::Rows),
        (40, 25, 120, 40, Form::Dense),
        (200, 1, 80, 24, Form::Dense),
        (300, 64, 200, 60, Form::Bars),
        (1, 1000, 80, 24, Form::Bars),
    ] {
        let mut model = model(house(children, threads));
        let frame = frame(&mut model, width, height);
        assert_holds(&frame, &[&format!("workers, {}", want.name())]);
        let busy = children * threads.div_ceil(3);
        if want == Form::Rows || want == Form::Dense {
            let grid = frame.iter().skip_while(|line| !line.contains("WORKERS")).skip(1);
            let grid = grid.take_while(|line| !line.contains("IN FLIGHT"));
            let letters = grid.flat_map(|line| line.chars()).filter(|letter| *letter == 'W').count();
            assert_eq!(letters, busy as usize, "{}", frame.join("\n"));
        }
    }
}

#[test]
fn a_house_of_thousands_can_be_scrolled_through() {
    let mut model = model(house(300, 64));
    model.view.form = Form::Rows;
    let first = frame(&mut model, 80, 24);
    assert_holds(&first, &["rows, 1-6 of 600", " 10000    1 ready     22/64  W__W"]);
    model.view.press(crate::top::keys::Key::End);
    let last = frame(&mut model, 80, 24);
    assert_holds(&last, &["rows, 595-600 of 600", "  299    10299"]);
    model.view.press(crate::top::keys::Key::Char('z'));
    let zoomed = frame(&mut model, 80, 24);
    assert_eq!(zoomed.iter().filter(|line| line.contains("ready")).count(), 6, "{}", zoomed.join("\n"));
    assert!(!zoomed.join("\n").contains("BACKEND"));
}

#[test]
fn the_filter_is_obeyed_and_shown() {
    let mut snapshot = snapshot();
    for child in &mut snapshot.children {
        if let (1, Shown::Request(request)) = (child.slot, &mut child.workers[0].request) {
            request.line = "GET /needle HTTP/1.1".into();
        }
    }
    let mut model = model(snapshot);
    for key in "/Needle".chars() {
        model.view.press(crate::top::keys::Key::Char(key));
    }
    let typing = frame(&mut model, 80, 24);
    assert_holds(&typing, &[" filter: needle_", "REQUEST  1 of 2 by age", "GET /needle"]);
    model.view.press(crate::top::keys::Key::Enter);
    assert_holds(&frame(&mut model, 80, 24), &["only \"needle\"", "1 of 2 by age"]);
    model.view.filter = "nowhere".into();
    assert_holds(&frame(&mut model, 80, 24), &["the filter lets none through", "0 of 2 by age"]);
}

#[test]
fn help_names_every_key_and_letter() {
    let mut model = model(snapshot());
    model.view.help = true;
    let frame = frame(&mut model, 80, 30);
    for (key, what) in KEYS {
        assert_holds(&frame, &[key, what]);
    }
    assert_holds(&frame, &["W  sending reply", "_  waiting for connection"]);
}

#[test]
fn a_plan_fills_the_screen_and_nothing_lies_over_anything() {
    let mut view = View::new(Duration::from_secs(1));
    for zoomed in [false, true] {
        view.zoomed = zoomed;
        for height in 0..80 {
            for remarks in [0, 2, 9] {
                for wanted in
                    [[1, 1, 1], [2, 2, 2], [7, 2, 40], [700, 130, 1], [usize::MAX, 1, 1], [9, 99, 9]]
                {
                    let area = Rect::new(0, 0, 80, height);
                    let placed = plan(area, remarks, wanted, &view);
                    let parts = [
                        placed.header,
                        placed.sparks,
                        placed.panes[0],
                        placed.panes[1],
                        placed.panes[2],
                        placed.footer,
                    ];
                    let mut top = 0;
                    for part in parts {
                        assert_eq!((part.y, part.width), (top, 80), "{height} {wanted:?}: {placed:?}");
                        top += part.height;
                    }
                    assert_eq!(top, height, "{wanted:?}: {placed:?}");
                    if !zoomed && height >= 24 {
                        assert!(
                            placed.panes[2].height >= 2 && placed.panes[0].height >= wanted[0].min(3) as u16,
                            "{placed:?}"
                        );
                    }
                }
            }
        }
    }
}

fn is_clean(buffer: &Buffer) -> bool {
    buffer.content().iter().all(|cell| !cell.symbol().chars().any(char::is_control))
}

#[test]
fn every_size_has_a_frame() {
    for snapshot in [snapshot(), house(3, 25), house(40, 1), house(0, 0)] {
        for form in [Form::Fitting, Form::Rows, Form::Dense, Form::Bars] {
            let mut model = model(snapshot.clone());
            model.view.form = form;
            let sizes = [0, 1, 7, 40, 63, 64, 80, 130]
                .map(|width| [0, 1, 3, 5, 9, 10, 14, 18, 24, 40].map(|height| (width, height)));
            for (width, height) in sizes.into_iter().flatten().chain([(300, 100)]) {
                model.view.help = height % 2 == 0;
                for theme in THEMES {
                    let area = Rect::new(0, 0, width, height);
                    let mut buffer = Buffer::empty(area);
                    draw(&mut model, theme, area, &mut buffer);
                    assert!(is_clean(&buffer), "{width}x{height}");
                }
            }
        }
    }
}

#[test]
fn without_colour_there_is_none() {
    let area = Rect::new(0, 0, 120, 40);
    let mut buffer = Buffer::empty(area);
    let mut model = model(snapshot());
    model.view.help = true;
    draw(&mut model, Theme { colour: false }, area, &mut buffer);
    use ratatui::style::Color::Reset;
    assert!(buffer.content().iter().all(|cell| (cell.fg, cell.bg) == (Reset, Reset)));
}

#[test]
fn hostile_text_is_text() {
    let hostile = "\x1b[2J\x1b]0;owned\x07\r\n\u{9b}31m\u{202e}x";
    let mut snapshot = snapshot();
    let server = &mut snapshot.server;
    for text in [&mut server.version, &mut server.server_name, &mut server.mpm, &mut server.listeners] {
        *text = hostile.into();
    }
    if let Some(reload) = &mut server.last_reload {
        reload.text = hostile.into();
    }
    snapshot.backends[0].url = hostile.into();
    for worker in snapshot.children.iter_mut().flat_map(|child| &mut child.workers) {
        if let Shown::Request(request) = &mut worker.request {
            (request.line, request.host) = (hostile.into(), hostile.into());
        }
    }
    let mut model = model(snapshot);
    model.trouble = Some(hostile.into());
    for (width, height) in [(200, 60), (80, 24), (40, 10)] {
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        draw(&mut model, THEMES[0], area, &mut buffer);
        assert!(is_clean(&buffer));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_board_however_broken_breaks_a_frame(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..60),
        life in prop::sample::select(vec![Life::Running, Life::Dead, Life::BeforeReboot, Life::Unknown]),
        moment: u64, wall_micros: u64, width in 0..250u16, height in 0..70u16,
        sort in prop::sample::select(vec![Sort::Age, Sort::Client, Sort::Host, Sort::Request, Sort::Backend]),
    ) {
        let mut bytes = bytes_of(&lived_in());
        let last = bytes.len() / 8;
        for (index, value) in damage {
            let at = (2 + index.index(last - 2)) * 8;
            bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        if let Ok(mut broken) = Snapshot::of_bytes(&bytes) {
            broken.life = life;
            let mut model = model(snapshot());
            model.view.sort = sort;
            let now = Now { moment: Moment(moment), wall_micros, zone: TimeZone::UTC };
            model.take(Ok(Look::new(broken, now)));
            let area = Rect::new(0, 0, width, height);
            let mut buffer = Buffer::empty(area);
            draw(&mut model, THEMES[0], area, &mut buffer);
            prop_assert!(is_clean(&buffer));
        }
    }
}
