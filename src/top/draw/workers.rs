//! The pane of the letters: every worker of every child.
//!
//! Three forms for three sizes of house: a line for each child with all that is known of it; letters alone, children
//! side by side; or a bar for each child, where there are thousands of workers.

use super::pen::{fit, put, put_bar};
use super::theme::Theme;
use crate::scoreboard::snapshot::{Child, Snapshot, Worker};
use crate::scoreboard::state::Stage;
use crate::status::figures::grouped;
use crate::top::flights::{Flight, children};
use crate::top::view::{Form, Pane, View};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use std::collections::HashSet;

/// Columns before the letters of a child in a wide terminal, and in a narrow one.
const WIDE: usize = 37;
const NARROW: usize = 6;

/// From this width on, a child's line tells of more than its slot.
const WIDE_FROM: u16 = 64;

/// Columns of a child's bar.
const BAR: usize = 8;

/// The eighths of a bar's column.
const EIGHTHS: [char; 9] =
    [' ', '\u{258f}', '\u{258e}', '\u{258d}', '\u{258c}', '\u{258b}', '\u{258a}', '\u{2589}', '\u{2588}'];

/// The pane, ready to be drawn.
pub struct Workers<'a> {
    children: Vec<&'a Child>,
    generation: u32,
    /// The most worker rows of a child.
    most: usize,
    /// The workers that the filter lets through, by slot and number; `None` without a filter.
    wanted: Option<HashSet<(u32, u32)>>,
}

impl<'a> Workers<'a> {
    /// `flights` are what the filter lets through.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, flights: &[Flight<'_>], view: &View) -> Self {
        let children: Vec<&Child> = children(snapshot).collect();
        let most = children.iter().map(|child| child.workers.len()).max().unwrap_or(0);
        let wanted = (!view.filter.is_empty())
            .then(|| flights.iter().map(|flight| (flight.child.slot, flight.worker.index)).collect());
        Self { children, generation: snapshot.server.generation, most, wanted }
    }

    /// The form to be drawn in `lines` lines (the heading aside): the one that was asked for, or the first that fits.
    #[must_use]
    pub fn form(&self, asked: Form, width: u16, lines: u16) -> Form {
        let fits = |form: &Form| self.lines(*form, width) <= usize::from(lines);
        match asked {
            Form::Fitting => [Form::Rows, Form::Dense].into_iter().find(fits).unwrap_or(Form::Bars),
            // Side by side, letters are not folded.
            Form::Dense if self.dense_cell() > usize::from(width) => Form::Rows,
            asked => asked,
        }
    }

    /// Lines that a form takes, the heading aside.
    #[must_use]
    pub fn lines(&self, form: Form, width: u16) -> usize {
        match form {
            Form::Fitting | Form::Rows => {
                let fold = fold(width);
                self.children.iter().map(|child| lines_of(child, fold)).sum()
            }
            Form::Dense if self.dense_cell() > usize::from(width) => usize::MAX,
            Form::Dense => self.children.len().div_ceil(self.beside(self.dense_cell(), width)),
            Form::Bars => self.children.len().div_ceil(self.beside(self.bar_cell(), width)),
        }
    }

    /// Draws the pane with its heading.
    pub fn draw(&self, view: &mut View, theme: Theme, area: Rect, buffer: &mut Buffer) {
        let page = area.height.saturating_sub(1);
        let form = self.form(view.form, area.width, page);
        let lines = self.lines(form, area.width);
        let offset = view.settle(Pane::Workers, lines, usize::from(page));
        let left = match form {
            Form::Rows | Form::Fitting if area.width >= WIDE_FROM => {
                " SLOT      PID  GEN STAGE      BUSY  WORKERS".to_owned()
            }
            _ => " WORKERS".to_owned(),
        };
        let part = part(offset, usize::from(page), lines);
        let whole = format!("{} {}{part} ", self.sum(), form.name());
        let short = format!("{}{part} ", form.name());
        put_bar(buffer, area, &left, &[&whole, &short], theme.heading(view.pane == Pane::Workers));
        let area = Rect { y: area.y.saturating_add(1), height: page, ..area };
        match form {
            Form::Rows | Form::Fitting => self.draw_rows(theme, area, offset, buffer),
            Form::Dense => self.draw_dense(theme, area, offset, buffer),
            Form::Bars => self.draw_bars(theme, area, offset, buffer),
        }
        if self.children.is_empty() {
            put(buffer, area, 0, &Line::styled(" no child has been started", theme.soft()));
        }
    }

    fn sum(&self) -> String {
        let workers: usize = self.children.iter().map(|child| child.workers.len()).sum();
        let plural = if self.children.len() == 1 { "child" } else { "children" };
        format!("{} {plural}, {} workers,", self.children.len(), grouped(workers as u64))
    }

    fn draw_rows(&self, theme: Theme, area: Rect, offset: usize, buffer: &mut Buffer) {
        let fold = fold(area.width);
        let all = self.children.iter().flat_map(|child| {
            let pieces = child.workers.chunks(fold).map(|piece| (*child, piece)).enumerate();
            // A child that has no rows yet has a line all the same.
            pieces.chain(child.workers.is_empty().then_some((0, (*child, &child.workers[..]))))
        });
        for (row, (nth, (child, piece))) in (0..area.height).zip(all.skip(offset)) {
            let mut spans = if nth == 0 { self.facts(child, theme, area.width) } else { blank(area.width) };
            spans.extend(self.letters(child, piece, theme));
            put(buffer, area, row, &Line::from(spans));
        }
    }

    /// What stands before the letters.
    fn facts(&self, child: &Child, theme: Theme, width: u16) -> Vec<Span<'static>> {
        let stage = match child.stage {
            Some(Stage::Ready) => theme.good(),
            None | Some(Stage::Gone) => theme.bad(),
            _ => theme.notable(),
        };
        if width < WIDE_FROM {
            return vec![Span::styled(format!("{:>width$} ", child.slot, width = NARROW - 1), stage)];
        }
        let of = if child.generation == self.generation { Style::new() } else { theme.notable() };
        let busy = busy(child);
        let held = format!("{:>7}", format!("{busy}/{}", child.workers.len()));
        vec![
            Span::raw(format!("{:>5} {:>8} ", child.slot, child.pid)),
            Span::styled(format!("{:>4} ", child.generation), of),
            Span::styled(fit(child.stage.map_or("?", Stage::name), 8), stage),
            Span::styled(
                held,
                if busy > 0 && busy == child.workers.len() { theme.bad() } else { Style::new() },
            ),
            Span::raw("  "),
        ]
    }

    fn draw_dense(&self, theme: Theme, area: Rect, offset: usize, buffer: &mut Buffer) {
        let beside = self.beside(self.dense_cell(), area.width);
        for (row, children) in (0..area.height).zip(self.children.chunks(beside).skip(offset)) {
            let mut spans = Vec::new();
            for (nth, child) in children.iter().enumerate() {
                if self.most > 1 || nth == 0 {
                    let label = format!("{:>width$} ", child.slot, width = NARROW - 1);
                    let style = if child.is_leaving() { theme.notable() } else { theme.soft() };
                    spans.push(Span::styled(label, style));
                }
                spans.extend(self.letters(child, &child.workers, theme));
                spans.push(Span::raw(" ".repeat(self.most - child.workers.len())));
            }
            put(buffer, area, row, &Line::from(spans));
        }
    }

    fn draw_bars(&self, theme: Theme, area: Rect, offset: usize, buffer: &mut Buffer) {
        let beside = self.beside(self.bar_cell(), area.width);
        let digits = self.digits();
        for (row, children) in (0..area.height).zip(self.children.chunks(beside).skip(offset)) {
            let mut spans = Vec::new();
            for child in children {
                let (busy, all) = (busy(child), child.workers.len());
                let label = if child.is_leaving() { theme.notable() } else { theme.soft() };
                let bar = if busy > 0 && busy == all { theme.bad() } else { theme.busy() };
                spans.push(Span::styled(format!("{:>width$} ", child.slot, width = NARROW - 1), label));
                spans.push(Span::styled(filled(busy, all), bar.add_modifier(Modifier::UNDERLINED)));
                spans.push(Span::raw(format!(" {busy:>digits$}")));
                spans.push(Span::styled(format!("/{all:<digits$}"), theme.soft()));
            }
            put(buffer, area, row, &Line::from(spans));
        }
    }

    /// One span for each run of the same style.
    fn letters(&self, child: &Child, workers: &[Worker], theme: Theme) -> Vec<Span<'static>> {
        let mut spans: Vec<Span<'static>> = Vec::new();
        for worker in workers {
            let style = match &self.wanted {
                Some(wanted) if !wanted.contains(&(child.slot, worker.index)) => theme.soft(),
                _ => theme.letter(worker.state),
            };
            match spans.last_mut() {
                Some(last) if last.style == style => last.content.to_mut().push(worker.letter()),
                _ => spans.push(Span::styled(worker.letter().to_string(), style)),
            }
        }
        spans
    }

    /// Columns of a child whose letters stand beside another's. Children of one worker share a label.
    fn dense_cell(&self) -> usize {
        if self.most <= 1 { 1 } else { NARROW + self.most }
    }

    /// Columns of a child's bar with its slot and its numbers.
    fn bar_cell(&self) -> usize {
        NARROW + BAR + 2 + 2 * self.digits()
    }

    fn digits(&self) -> usize {
        self.most.to_string().len()
    }

    /// How many cells stand side by side; at least one.
    fn beside(&self, cell: usize, width: u16) -> usize {
        let width = usize::from(width);
        if self.most <= 1 && cell == 1 {
            // Tens are easier to count.
            return match width.saturating_sub(NARROW) {
                few @ 0..10 => few.max(1),
                many => many / 10 * 10,
            };
        }
        (width / cell.max(1)).max(1)
    }
}

fn busy(child: &Child) -> usize {
    child.workers.iter().filter(|worker| worker.is_busy()).count()
}

/// Letters to a line, in a pane of this width: a multiple of eight, if there is room for as many.
fn fold(width: u16) -> usize {
    let prefix = if width < WIDE_FROM { NARROW } else { WIDE };
    match usize::from(width).saturating_sub(prefix) {
        few @ 0..8 => few.max(1),
        many => many / 8 * 8,
    }
}

fn lines_of(child: &Child, fold: usize) -> usize {
    child.workers.len().div_ceil(fold).max(1)
}

fn blank(width: u16) -> Vec<Span<'static>> {
    vec![Span::raw(" ".repeat(if width < WIDE_FROM { NARROW } else { WIDE }))]
}

/// A bar of [`BAR`] columns, of which `part` of `whole` are filled.
fn filled(part: usize, whole: usize) -> String {
    let eighths = match whole {
        0 => 0,
        // What is there at all is seen.
        whole => (part.min(whole) * BAR * 8).div_ceil(whole),
    };
    (0..BAR).map(|column| EIGHTHS[eighths.saturating_sub(column * 8).min(8)]).collect()
}

/// Which lines of how many are visible, if not all.
pub fn part(offset: usize, page: usize, lines: usize) -> String {
    if lines <= page {
        return String::new();
    }
    format!(", {}-{} of {lines}", (offset + 1).min(lines), (offset + page).min(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_filled_by_eighths_and_never_quite_empty() {
        for (part, whole, want) in [
            (0, 64, "        "),
            (1, 64, "\u{258f}       "),
            (8, 64, "\u{2588}       "),
            (12, 64, "\u{2588}\u{258c}      "),
            (64, 64, "\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}"),
            (9, 0, "        "),
        ] {
            assert_eq!(filled(part, whole), want, "{part}/{whole}");
        }
    }

    #[test]
    fn letters_are_folded_at_a_multiple_of_eight() {
        for (width, want) in [(200, 160), (80, 40), (64, 24), (40, 32), (13, 7), (3, 1), (0, 1)] {
            assert_eq!(fold(width), want, "{width}");
        }
    }

    #[test]
    fn what_is_out_of_sight_is_said() {
        assert_eq!(part(0, 5, 5), "");
        assert_eq!(part(3, 5, 20), ", 4-8 of 20");
        assert_eq!(part(0, 0, 20), ", 1-0 of 20");
    }
}
