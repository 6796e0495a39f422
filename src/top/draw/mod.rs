//! A frame: the model onto a buffer of any size.
//!
//! Pure: the same model makes the same frame. [`plan`] decides what has room; each part draws itself into what it
//! is given. Texts of others come printable from the snapshot, and the buffer drops control characters besides, so
//! nothing in a scoreboard can reach the terminal as anything but text.

mod header;
mod pen;
mod tables;
pub mod theme;
mod workers;

use super::flights::flights;
use super::model::Model;
use super::view::{Pane, View};
use crate::scoreboard::state::WorkerState;
use pen::{columns, put};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Widget};
use tables::{Backends, Requests};
use theme::Theme;
use workers::Workers;

/// Below this height of all panes together, only the chosen one is shown.
const ROOM_FOR_ALL: u16 = 9;

/// From this height on there are sparklines.
const ROOM_FOR_SPARKS: u16 = 18;

/// Keys and what they do, for the help.
pub const KEYS: [(&str, &str); 13] = [
    ("q, Esc, Ctrl-C", "leave; Esc first closes what is open"),
    ("Tab, Shift-Tab", "choose the pane that the arrows scroll"),
    ("Up, Down, k, j", "scroll a line"),
    ("PgUp, PgDn", "scroll a page"),
    ("Home, End", "to the first line, to the last"),
    ("z, Enter", "give the chosen pane all the room"),
    ("g", "workers as what fits, rows, letters, bars"),
    ("s", "sort by age, slot, client, host, request, backend"),
    ("r", "sort the other way round"),
    ("/", "filter requests by text; empty: all"),
    ("p, Space", "pause"),
    ("+, -", "look less often, more often"),
    ("?, h", "this help"),
];

/// Where everything goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Plan {
    header: Rect,
    sparks: Rect,
    /// By [`Pane`]; a pane without height is not shown.
    panes: [Rect; Pane::ALL.len()],
    footer: Rect,
}

/// Gives every part its lines. `remarks` are lines of the header, `wanted` those of each pane, its heading included.
fn plan(area: Rect, remarks: usize, wanted: [usize; Pane::ALL.len()], view: &View) -> Plan {
    let height = area.height;
    let footer = u16::from(height >= 4);
    let header = match height {
        0..3 => 0,
        3..6 => 1,
        6..10 => 2,
        10..14 => 3,
        14..ROOM_FOR_SPARKS => header::LINES,
        _ => {
            header::LINES + u16::try_from(remarks).unwrap_or(u16::MAX).min(2 + (height - ROOM_FOR_SPARKS) / 8)
        }
    };
    let sparks = if height >= ROOM_FOR_SPARKS { header::SPARKS } else { 0 };
    let room = height - footer - header - sparks;
    let heights = if view.zoomed || room < ROOM_FOR_ALL {
        let mut heights = [0; Pane::ALL.len()];
        heights[view.pane as usize] = room;
        heights
    } else {
        share_out(room, wanted)
    };
    let mut top = area.y;
    let mut next = |height: u16| {
        let part = Rect { y: top, height, ..area };
        top += height;
        part
    };
    Plan { header: next(header), sparks: next(sparks), panes: heights.map(&mut next), footer: next(footer) }
}

/// Half for the workers, a fifth for the backends, the rest for the requests; what one does not want, the others get.
fn share_out(room: u16, wanted: [usize; Pane::ALL.len()]) -> [u16; Pane::ALL.len()] {
    let [workers, backends, requests] = wanted.map(|lines| u16::try_from(lines).unwrap_or(u16::MAX));
    let backends_get = backends.min((room / 5).max(3));
    let workers_get = workers.min((room / 2).max(3)).min(room - backends_get);
    let left = room - backends_get - workers_get;
    let spare = left.saturating_sub(requests.max(2));
    let more_workers = spare.min(workers - workers_get);
    let more_backends = (spare - more_workers).min(backends - backends_get);
    [workers_get + more_workers, backends_get + more_backends, left - more_workers - more_backends]
}

/// Draws everything. Holds the choices to what there is: how far a pane can be scrolled, and its page.
pub fn draw(model: &mut Model, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let remarks = header::remarks(model, theme);
    let mut view = model.view.clone();
    let look = &model.look;
    let (flights, all) = flights(&look.snapshot, look.tally.as_of, &view);
    let workers = Workers::new(&look.snapshot, &flights, &view);
    let backends = Backends::new(&look.snapshot, model.history.interval());
    let requests = Requests { flights: &flights, all };

    let heading = |lines: usize| lines.saturating_add(1);
    let mut wanted = [0, heading(backends.lines()), heading(flights.len())];
    // The form depends on the room, and the room on the form: the first form that gets what it wants is drawn.
    let forms = match view.form {
        super::view::Form::Fitting => {
            &[super::view::Form::Rows, super::view::Form::Dense, super::view::Form::Bars][..]
        }
        _ => std::slice::from_ref(&view.form),
    };
    let mut placed = Plan::default();
    for form in forms {
        wanted[Pane::Workers as usize] = heading(workers.lines(*form, area.width).max(1));
        placed = plan(area, remarks.len(), wanted, &view);
        if usize::from(placed.panes[Pane::Workers as usize].height) >= wanted[Pane::Workers as usize] {
            break;
        }
    }

    header::draw(model, &remarks, theme, placed.header, buffer);
    header::draw_sparks(model, theme, placed.sparks, buffer);
    let [for_workers, for_backends, for_requests] = placed.panes;
    workers.draw(&mut view, theme, for_workers, buffer);
    backends.draw(&mut view, theme, for_backends, buffer);
    requests.draw(&mut view, theme, for_requests, buffer);
    draw_footer(&view, theme, placed.footer, buffer);
    if view.help {
        draw_help(theme, area, buffer);
    }
    model.view = view;
}

fn draw_footer(view: &View, theme: Theme, area: Rect, buffer: &mut Buffer) {
    if view.typing.is_some() {
        let line = Line::from(vec![
            Span::styled(" filter: ", theme.strong()),
            Span::raw(view.filter.clone()),
            Span::styled("_", theme.strong()),
            Span::styled("  Enter keeps it, Esc gives it up", theme.soft()),
        ]);
        return put(buffer, area, 0, &line);
    }
    let mut spans = vec![];
    if !view.filter.is_empty() {
        spans.push(Span::styled(format!(" only {:?} ", view.filter), theme.notable()));
    }
    for (key, what) in [
        ("q", "quit"),
        ("?", "help"),
        ("Tab", "pane"),
        ("z", "zoom"),
        ("s", "sort"),
        ("/", "filter"),
        ("g", "grid"),
        ("p", if view.paused { "go on" } else { "pause" }),
        ("+ -", "pace"),
    ] {
        spans.push(Span::styled(format!(" {key}"), theme.strong()));
        spans.push(Span::styled(format!(" {what} "), theme.soft()));
    }
    put(buffer, area, 0, &Line::from(spans));
}

fn draw_help(theme: Theme, area: Rect, buffer: &mut Buffer) {
    let key = |(key, what): &(&str, &'static str)| {
        Line::from(vec![Span::styled(format!("  {key:<16}"), theme.strong()), Span::raw(*what)])
    };
    let letter = |state: &WorkerState| {
        let letter = state.letter().to_string();
        let letter = Span::styled(letter, theme.letter(Some(*state)));
        Line::from(vec![Span::raw("  "), letter, Span::raw(format!("  {}", state.meaning()))])
    };
    let lines: Vec<Line<'_>> =
        KEYS.iter().map(key).chain([Line::raw("")]).chain(WorkerState::ALL.iter().map(letter)).collect();
    let width = lines.iter().map(columns).max().unwrap_or(0).saturating_add(4).min(area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let window =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
            .intersection(buffer.area);
    Clear.render(window, buffer);
    let block = Block::bordered().title(" ostler top: keys and letters ");
    let inside = block.inner(window);
    block.render(window, buffer);
    for (row, line) in (0..).zip(&lines) {
        put(buffer, inside, row, line);
    }
}

#[cfg(test)]
mod tests;
