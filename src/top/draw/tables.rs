//! The two tables: the backends, the busiest first, and the requests under way.

use super::pen::{fit, put, put_bar};
use super::theme::Theme;
use super::workers::part;
use crate::scoreboard::snapshot::{Backend, Snapshot};
use crate::status::figures::{grouped, per, span};
use crate::top::flights::Flight;
use crate::top::history::{BackendInterval, Interval};
use crate::top::view::{Pane, View};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::cmp::Reverse;

/// The lines of the table of backends.
pub struct Backends<'a> {
    rows: Vec<(&'a Backend, Option<&'a BackendInterval>)>,
    interval: Option<&'a Interval>,
}

impl<'a> Backends<'a> {
    /// The busiest first: by requests of the last interval, then by requests on their way, then by all so far.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, interval: Option<&'a Interval>) -> Self {
        let of = |backend: &Backend| {
            interval.and_then(|interval| interval.backends.iter().find(|one| one.row == backend.row))
        };
        let mut rows: Vec<_> = snapshot.backends.iter().map(|backend| (backend, of(backend))).collect();
        rows.sort_by_key(|(backend, recent)| {
            Reverse((recent.map_or(0, |recent| recent.requests), backend.busy, backend.requests))
        });
        Self { rows, interval }
    }

    /// Lines, the heading aside.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.rows.len()
    }

    /// Draws the table with its heading.
    pub fn draw(&self, view: &mut View, theme: Theme, area: Rect, buffer: &mut Buffer) {
        let page = usize::from(area.height.saturating_sub(1));
        let offset = view.settle(Pane::Backends, self.rows.len(), page);
        let wide = area.width >= 64;
        let left = if wide {
            "   REQ/S  IN FLIGHT     P50     P99    ERRORS  BACKEND"
        } else {
            "   REQ/S IN FL     P99  ERR BACKEND"
        };
        let right = match self.rows.len() {
            1 => format!("1 backend{} ", part(offset, page, 1)),
            count => format!("{count} backends{} ", part(offset, page, count)),
        };
        put_bar(buffer, area, left, &[&right], theme.heading(view.pane == Pane::Backends));
        for (row, (backend, recent)) in (1..area.height).zip(self.rows.iter().skip(offset)) {
            put(buffer, area, row, &self.line(backend, *recent, theme, wide));
        }
    }

    fn line(
        &self,
        backend: &Backend,
        recent: Option<&BackendInterval>,
        theme: Theme,
        wide: bool,
    ) -> Line<'static> {
        let rate = match (self.interval, recent) {
            (Some(interval), Some(recent)) => per(interval.per_second(recent.requests)),
            _ => "-".to_owned(),
        };
        let quantile = |per_mille| {
            let micros = recent.and_then(|recent| recent.latency.quantile(per_mille));
            micros.map_or_else(|| "-".to_owned(), span)
        };
        let news = recent.map_or(0, |recent| recent.failures);
        let errors = match (backend.failures, news) {
            (all, 0) => grouped(all),
            (all, news) => format!("{} (+{})", grouped(all), grouped(news)),
        };
        let alarm = match (backend.failures, news) {
            (0, _) => Style::new(),
            (_, 0) => theme.notable(),
            _ => theme.bad(),
        };
        if wide {
            Line::from(vec![
                Span::styled(format!("{rate:>8}"), theme.strong()),
                Span::raw(format!(
                    " {:>10} {:>7} {:>7}",
                    grouped(backend.busy),
                    quantile(500),
                    quantile(990)
                )),
                Span::styled(format!(" {errors:>9}"), alarm),
                Span::raw(format!("  {}", backend.url)),
            ])
        } else {
            Line::from(vec![
                Span::styled(format!("{rate:>8}"), theme.strong()),
                Span::raw(format!(" {:>5} {:>7}", backend.busy, quantile(990))),
                Span::styled(
                    format!(
                        " {:>4}",
                        if news > 0 { format!("+{news}") } else { backend.failures.to_string() }
                    ),
                    alarm,
                ),
                Span::raw(format!(" {}", backend.url)),
            ])
        }
    }
}

/// Which columns the table of requests has, and how wide they are; 0: none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Columns {
    worker: usize,
    client: usize,
    /// Whether the client's port is shown.
    port: bool,
    host: usize,
    request: usize,
    backend: usize,
    thread: usize,
}

/// Columns of the age, and of the letter behind it.
const AGE: usize = 8;

impl Columns {
    /// For a table of this width.
    fn of(width: u16) -> Self {
        let mut columns = match width {
            0..50 => Self::default(),
            50..76 => Self { worker: 7, client: 15, ..Self::default() },
            76..110 => Self { worker: 7, client: 15, host: 15, ..Self::default() },
            110..150 => Self { worker: 7, client: 15, host: 20, backend: 24, ..Self::default() },
            150.. => Self {
                worker: 8,
                client: 21,
                port: true,
                host: 24,
                backend: 32,
                thread: 8,
                ..Self::default()
            },
        };
        let others = [columns.worker, columns.client, columns.host, columns.backend, columns.thread];
        let taken: usize = others.iter().filter(|wide| **wide > 0).map(|wide| wide + 1).sum();
        columns.request = usize::from(width).saturating_sub(AGE + 3 + taken);
        columns
    }

    fn heading(self, request: &str) -> String {
        let mut text = format!("{:>AGE$}  ", "AGE");
        for (name, width) in [
            ("WORKER", self.worker),
            ("CLIENT", self.client),
            ("HOST", self.host),
            (request, self.request),
            ("BACKEND", self.backend),
            ("THREAD", self.thread),
        ] {
            if width > 0 {
                text.push(' ');
                text.push_str(&fit(name, width));
            }
        }
        text
    }
}

/// The requests under way.
pub struct Requests<'a> {
    /// In the order that was asked for.
    pub flights: &'a [Flight<'a>],
    /// How many there are without the filter.
    pub all: usize,
}

impl Requests<'_> {
    /// Draws the table with its heading.
    pub fn draw(&self, view: &mut View, theme: Theme, area: Rect, buffer: &mut Buffer) {
        let page = usize::from(area.height.saturating_sub(1));
        let offset = view.settle(Pane::Requests, self.flights.len(), page);
        let columns = Columns::of(area.width);
        let heading = theme.heading(view.pane == Pane::Requests);
        let (shown, all) = (self.flights.len(), self.all);
        let count = if shown == all {
            grouped(all as u64)
        } else {
            format!("{} of {}", grouped(shown as u64), grouped(all as u64))
        };
        let mut sum = format!("REQUEST  {count} by {}", view.sort.name());
        if view.reversed {
            sum += ", reversed";
        }
        if shown > page {
            sum += &format!(", {}-{}", grouped(offset as u64 + 1), grouped((offset + page) as u64));
        }
        put_bar(buffer, area, &columns.heading(&sum), &[], heading);
        for (row, flight) in (1..area.height).zip(self.flights.iter().skip(offset)) {
            put(buffer, area, row, &line(flight, columns, theme));
        }
        if self.flights.is_empty() {
            let text = if self.all > 0 {
                "           the filter lets none through"
            } else {
                "           none under way"
            };
            put(buffer, area, 1, &Line::styled(text, theme.soft()));
        }
    }
}

fn line(flight: &Flight<'_>, columns: Columns, theme: Theme) -> Line<'static> {
    let age = match flight.age {
        Some(micros) => Span::styled(format!("{:>AGE$}", span(micros)), theme.age(micros)),
        None => Span::raw(format!("{:>AGE$}", "")),
    };
    let letter = Span::styled(flight.worker.letter().to_string(), theme.letter(flight.worker.state));
    let mut spans = vec![age, Span::raw(" "), letter];
    let mut column = |text: &str, width: usize, style: Style| {
        if width > 0 {
            spans.push(Span::raw(" "));
            spans.push(Span::styled(fit(text, width), style));
        }
    };
    let request = flight.request();
    let plain = Style::new();
    column(&format!("{}-{}", flight.child.slot, flight.worker.index), columns.worker, plain);
    column(&flight.client(columns.port), columns.client, plain);
    let host = request.map_or_else(String::new, |request| {
        format!("{}{}", request.host, if request.host_cut { "..." } else { "" })
    });
    column(&host, columns.host, plain);
    match request {
        Some(request) => column(&request.shown_line(), columns.request, theme.strong()),
        None => column(flight.instead(), columns.request, theme.soft()),
    }
    column(flight.backend, columns.backend, plain);
    column(&flight.worker.tid.to_string(), columns.thread, theme.soft());
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fill_the_width_and_no_more() {
        for width in 0..300u16 {
            let columns = Columns::of(width);
            let heading = columns.heading("REQUEST").chars().count();
            assert!(heading <= usize::from(width).max(AGE + 2), "{width}: {columns:?}");
            if width >= 50 {
                assert!(columns.request >= 15, "{width}: {columns:?}");
                assert_eq!(heading, usize::from(width), "{columns:?}");
            }
        }
    }
}
