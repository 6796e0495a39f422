//! The top of the screen: who the server is and how it fares, and how the last minutes were.

use super::pen::{put, put_both};
use super::theme::Theme;
use crate::scoreboard::snapshot::Life;
use crate::status::figures::{bytes, grouped, per, share, span};
use crate::top::model::{Look, Model};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Sparkline, Widget};

/// Lines of the header before the remarks, most important first; a low screen has fewer.
pub const LINES: u16 = 4;

/// Lines of the sparklines, with their titles.
pub const SPARKS: u16 = 3;

/// What an administrator should know beside the numbers, a line each.
#[must_use]
pub fn remarks(model: &Model, theme: Theme) -> Vec<Line<'static>> {
    let Look { snapshot, now, tally } = &model.look;
    let server = &snapshot.server;
    let mut lines = Vec::new();
    if let Some(trouble) = &model.trouble {
        lines.push(Line::styled(format!(" as last read: {trouble}"), theme.bad()));
    }
    if tally.generations.len() > 1 {
        let old = tally.generations.iter().filter(|entry| entry.generation != server.generation);
        let old: Vec<String> = old
            .map(|entry| {
                let plural = if entry.children == 1 { "child" } else { "children" };
                format!("generation {}: {} {plural}, {} busy", entry.generation, entry.children, entry.busy)
            })
            .collect();
        lines.push(Line::styled(format!(" draining {}", old.join("; ")), theme.notable()));
    }
    if let Some(reload) = &server.last_reload {
        let (word, style) = if reload.done { ("done", theme.soft()) } else { ("refused", theme.bad()) };
        let when = time(reload.wall, now.wall_micros, &now.zone);
        let text = if reload.text.is_empty() { String::new() } else { format!(": {}", reload.text) };
        lines.push(Line::styled(format!(" last reload or upgrade {word} {when}{text}"), style));
    }
    if snapshot.totals.children_failed > 0 || snapshot.totals.panics > 0 {
        let text = format!(
            " {} of {} children ended by a fault so far, {} panics",
            grouped(snapshot.totals.children_failed),
            grouped(snapshot.totals.children_started),
            grouped(snapshot.totals.panics)
        );
        lines.push(Line::styled(text, theme.notable()));
    }
    lines
}

/// Draws as many lines of the header as the area has.
pub fn draw(model: &Model, remarks: &[Line<'_>], theme: Theme, area: Rect, buffer: &mut Buffer) {
    let Look { snapshot, now, .. } = &model.look;
    let server = &snapshot.server;
    let name = Line::from(vec![
        Span::styled(format!(" {} {}", server.version, server.server_name), theme.strong()),
        Span::raw(format!("  {}, generation {}", server.mpm, server.generation)),
    ]);
    let clock = time(now.wall_micros, now.wall_micros, &now.zone);
    let clock = if model.view.paused {
        Line::from(vec![
            Span::styled(" paused ", theme.badge(Color::Yellow)),
            Span::raw(format!(" {clock} ")),
        ])
    } else {
        Line::raw(format!("{clock}, every {} ", seconds(model.view.interval.as_secs_f64())))
    };
    put_both(buffer, area, 0, &name, &clock);
    let load = match snapshot.load {
        Some([one, five, fifteen]) => format!("load {one:.2} {five:.2} {fifteen:.2} "),
        None => String::new(),
    };
    put_both(buffer, area, 1, &life(&model.look, theme), &Line::styled(load, theme.soft()));
    put(buffer, area, 2, &room(&model.look, theme, area.width));
    put(buffer, area, 3, &connections(&model.look, theme));
    for (row, remark) in (LINES..area.height).zip(remarks) {
        put(buffer, area, row, remark);
    }
}

/// Whether it serves, in a badge and a sentence.
fn life(look: &Look, theme: Theme) -> Line<'static> {
    let Look { snapshot, now, tally } = look;
    let server = &snapshot.server;
    let pid = server.master_pid;
    let last =
        || time(snapshot.wall_of(snapshot.last_sign()).min(now.wall_micros), now.wall_micros, &now.zone);
    let up = span(tally.uptime);
    let (badge, ground, text) = match snapshot.life {
        Life::Running if tally.is_ending() => {
            let plural = if tally.leaving == 1 { "child finishes" } else { "children finish" };
            let text = format!("{} {plural}, nobody takes new connections; master {pid}", tally.leaving);
            ("STOPPING", Color::Yellow, text)
        }
        Life::Running if tally.is_full(server.max_request_workers) => (
            "FULL",
            Color::Yellow,
            format!("all workers are busy, further clients wait; up {up}, master {pid}"),
        ),
        Life::Running => ("SERVING", Color::Green, format!("up {up}, master {pid}")),
        Life::Stopped => {
            let when = time(server.stopped_wall.unwrap_or_default(), now.wall_micros, &now.zone);
            ("STOPPED", Color::Red, format!("since {when}, in good order; this is how it ended"))
        }
        Life::Dead => {
            let text = format!("master {pid} is gone since {} or later; its workers held:", last());
            ("DEAD", Color::Red, text)
        }
        Life::BeforeReboot => {
            let text = format!("by a reboot after {}; its workers held:", last());
            ("DEAD", Color::Red, text)
        }
        Life::Unknown => {
            let text = format!("master {pid} can't be seen from here; last sign of life {}", last());
            ("UNSEEN", Color::Yellow, text)
        }
    };
    Line::from(vec![
        Span::raw(" "),
        Span::styled(format!(" {badge} "), theme.badge(ground)),
        Span::raw(format!(" {text}")),
    ])
}

/// How much of MaxRequestWorkers is taken, as a bar and in words.
fn room(look: &Look, theme: Theme, width: u16) -> Line<'static> {
    let tally = &look.tally;
    let limit = u64::from(look.snapshot.server.max_request_workers);
    let [busy, graceful, idle] = [tally.busy, tally.graceful, tally.idle].map(u64::from);
    let mut words = format!("{} of {} busy, {} idle", grouped(busy), grouped(limit), grouped(idle));
    if graceful > 0 {
        words += &format!(", {} finishing", grouped(graceful));
    }
    let bar = usize::from(width).saturating_sub(words.len() + 4).min(60);
    // While a reload drains old children, there are more than MaxRequestWorkers.
    let whole = limit.max(busy + graceful + idle);
    let columns = |part: u64| (share(part, whole) * bar as f64 / 100.0).ceil() as usize;
    let mut left = bar;
    let mut spans = vec![Span::raw(" ")];
    for (part, sign, style) in [
        (
            busy,
            "\u{2588}",
            if tally.is_full(look.snapshot.server.max_request_workers) { theme.bad() } else { theme.busy() },
        ),
        (graceful, "\u{2593}", theme.notable()),
        (idle, "\u{2592}", theme.good()),
    ] {
        let count = columns(part).min(left);
        left -= count;
        spans.push(Span::styled(sign.repeat(count), style));
    }
    spans.push(Span::styled("\u{2591}".repeat(left), theme.soft()));
    spans.push(Span::raw(if bar > 0 { "  " } else { "" }));
    spans.push(Span::styled(words, theme.strong()));
    Line::from(spans)
}

fn connections(look: &Look, theme: Theme) -> Line<'static> {
    let counts = &look.tally.connections;
    let plural = if counts.total == 1 { "connection" } else { "connections" };
    let mut spans = vec![Span::raw(format!(" {} {plural}", grouped(counts.total.into())))];
    for (count, what) in [
        (counts.keep_alive, "kept alive"),
        (counts.wait_io, "coming in"),
        (counts.writing, "going out"),
        (counts.closing, "closing"),
        (counts.tunnels, "tunnels"),
    ] {
        if count > 0 {
            spans.push(Span::styled(format!(", {} {what}", grouped(count.into())), theme.soft()));
        }
    }
    let totals = &look.snapshot.totals;
    spans.push(Span::raw(format!("; {} requests", grouped(totals.requests))));
    let sums = format!(", {} in, {} out so far", bytes(totals.bytes_in), bytes(totals.bytes_out));
    spans.push(Span::styled(sums, theme.soft()));
    Line::from(spans)
}

/// Draws the rate of requests on the left, their latencies on the right.
pub fn draw_sparks(model: &Model, theme: Theme, area: Rect, buffer: &mut Buffer) {
    if area.height < SPARKS {
        return;
    }
    let half = area.width / 2;
    let left = Rect { width: half.saturating_sub(1), ..area };
    let right = Rect { x: area.x + half, width: area.width - half, ..area };
    draw_rate(model, theme, left, buffer);
    draw_latency(model, theme, right, buffer);
}

fn draw_rate(model: &Model, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let rates = &model.look.tally.rates;
    let words = match model.history.interval() {
        Some(interval) => vec![
            Span::styled(format!(" {} req/s", per(interval.per_second(interval.requests))), theme.strong()),
            Span::raw(format!("  {}/s out", bytes(interval.per_second(interval.bytes_out) as u64))),
            Span::raw(match area.width {
                0..44 => String::new(),
                _ => format!(", {}/s in", bytes(interval.per_second(interval.bytes_in) as u64)),
            }),
        ],
        // Before the second look there is only the mean.
        None => vec![
            Span::styled(format!(" {} req/s", per(rates.requests.unwrap_or(0.0))), theme.strong()),
            Span::styled("  mean so far", theme.soft()),
        ],
    };
    put(buffer, area, 0, &Line::from(words));
    let bars: Vec<u64> =
        model.history.samples(area.width.into()).map(|sample| bar(sample.requests)).collect();
    let area = Rect { x: area.x + 1, y: area.y + 1, width: area.width.saturating_sub(1), height: SPARKS - 1 };
    spark(bars.into_iter().map(Some).collect(), theme.spark(), area, buffer);
}

fn draw_latency(model: &Model, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let totals = &model.look.snapshot.totals.latency;
    let interval = model.history.interval();
    let latency = interval.map_or(totals, |interval| &interval.latency);
    let quantile = |per_mille| latency.quantile(per_mille).map_or_else(|| "-".to_owned(), span);
    let mut words =
        vec![Span::styled(format!(" median {}, p99 {}", quantile(500), quantile(990)), theme.strong())];
    if interval.is_none() {
        words.push(Span::styled("  so far", theme.soft()));
    } else {
        words.push(Span::raw(format!(", p99.9 {}", quantile(999))));
    }
    put(buffer, area, 0, &Line::from(words));
    let label = 5;
    let room = usize::from(area.width.saturating_sub(label));
    for (row, name, of) in [
        (1, " p50 ", (|sample| sample.p50) as fn(&crate::top::history::Sample) -> Option<u64>),
        (2, " p99 ", |sample| sample.p99),
    ] {
        put(buffer, area, row, &Line::styled(name, theme.soft()));
        let bars =
            model.history.samples(room).map(|sample| of(sample).map(|micros| bar(micros as f64))).collect();
        let row = Rect {
            x: area.x + label.min(area.width),
            y: area.y + row,
            width: area.width.saturating_sub(label),
            height: 1,
        };
        spark(bars, theme.spark(), row, buffer);
    }
}

/// A value that the widget can multiply without overflow.
fn bar(value: f64) -> u64 {
    (value.ceil() as u64).min(u64::from(u32::MAX))
}

/// The newest on the right; where there was nothing to measure, nothing is drawn.
fn spark(bars: Vec<Option<u64>>, style: Style, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(buffer.area);
    let missing = usize::from(area.width).saturating_sub(bars.len());
    let bars = std::iter::repeat_n(None, missing).chain(bars);
    Sparkline::default().data(bars).absent_value_symbol(" ").style(style).render(area, buffer);
}

/// A point in time: of today without the day.
fn time(wall_micros: u64, now_micros: u64, zone: &TimeZone) -> String {
    let zoned = |micros: u64| {
        let micros = i64::try_from(micros).unwrap_or(i64::MAX);
        Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
    };
    let (then, now) = (zoned(wall_micros), zoned(now_micros));
    let format = if then.date() == now.date() { "%H:%M:%S" } else { "%d-%b-%Y %H:%M:%S" };
    then.strftime(format).to_string()
}

/// A span of the administrator's: `1 s`, `0.5 s`.
fn seconds(seconds: f64) -> String {
    format!("{seconds} s")
}
