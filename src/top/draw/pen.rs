//! Text onto a buffer, line by line, never outside its area.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::borrow::Cow;

/// Writes `line` into row `row` of `area`, counted from 0; what is outside is left out.
pub fn put(buffer: &mut Buffer, area: Rect, row: u16, line: &Line<'_>) {
    let area = area.intersection(buffer.area);
    if row < area.height && area.width > 0 {
        buffer.set_line(area.x, area.y + row, line, area.width);
    }
}

/// Writes `left`, and at the other end `right` if there is room for both with a blank between.
pub fn put_both(buffer: &mut Buffer, area: Rect, row: u16, left: &Line<'_>, right: &Line<'_>) {
    put(buffer, area, row, left);
    let (left, right_width) = (columns(left), columns(right));
    if right_width > 0 && left.saturating_add(right_width) < area.width {
        let at = area.width - right_width;
        put(buffer, Rect { x: area.x + at, width: right_width, ..area }, row, right);
    }
}

/// Gives the first row a style, and writes onto it `left`, and at its other end the first of `rights` that has room.
pub fn put_bar(buffer: &mut Buffer, area: Rect, left: &str, rights: &[&str], style: Style) {
    let area = area.intersection(buffer.area);
    if area.height > 0 {
        buffer.set_style(Rect { height: 1, ..area }, style);
        let line = |text: &str| Line::from(Span::styled(text.to_owned(), style));
        let left = line(left);
        let room = usize::from(area.width).saturating_sub(left.width() + 1);
        let right = rights.iter().map(|right| line(right)).find(|right| right.width() <= room);
        put_both(buffer, area, 0, &left, &right.unwrap_or_default());
    }
}

/// How many columns a line takes.
#[must_use]
pub fn columns(line: &Line<'_>) -> u16 {
    u16::try_from(line.width()).unwrap_or(u16::MAX)
}

/// `text` in `width` columns, filled up with blanks; if it is longer, its end is an ellipsis.
#[must_use]
pub fn fit(text: &str, width: usize) -> String {
    let mut fitted = cut(text, width).into_owned();
    let missing = width.saturating_sub(Span::raw(&fitted).width());
    fitted.extend(std::iter::repeat_n(' ', missing));
    fitted
}

/// `text`, or as much of it as stands before an ellipsis in `width` columns.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if Span::raw(text).width() <= width {
        return text.into();
    }
    let mut kept = String::new();
    let mut columns = 0;
    for letter in text.chars() {
        let next = Span::raw(letter.to_string()).width();
        if columns + next + 1 > width {
            break;
        }
        columns += next;
        kept.push(letter);
    }
    if width > 0 {
        kept.push('\u{2026}');
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fits_whatever_its_letters() {
        for (text, width, want) in [
            ("abc", 5, "abc  "),
            ("abcde", 5, "abcde"),
            ("abcdef", 5, "abcd\u{2026}"),
            ("abc", 1, "\u{2026}"),
            ("abc", 0, ""),
            ("\u{99ac}\u{99ac}\u{99ac}", 5, "\u{99ac}\u{99ac}\u{2026}"),
            ("\u{99ac}\u{99ac}\u{99ac}", 4, "\u{99ac}\u{2026} "),
        ] {
            assert_eq!(fit(text, width), want, "{text} in {width}");
        }
    }

    #[test]
    fn a_bar_has_the_longest_end_that_fits() {
        let area = Rect::new(0, 0, 12, 1);
        for (rights, want) in [
            (&["right", "r"][..], "left   right"),
            (&["too long for it", "r"], "left       r"),
            (&["too long for it"], "left        "),
        ] {
            let mut buffer = Buffer::empty(area);
            put_bar(&mut buffer, area, "left", rights, Style::new());
            assert_eq!((0..12).map(|x| buffer[(x, 0)].symbol()).collect::<String>(), want);
        }
    }

    #[test]
    fn nothing_is_written_outside() {
        let area = Rect::new(0, 0, 6, 2);
        let mut buffer = Buffer::empty(area);
        for (area, row) in
            [(area, 7), (Rect::new(9, 9, 3, 3), 0), (Rect::new(4, 1, 30, 30), 0), (Rect::new(0, 0, 0, 0), 0)]
        {
            put_both(&mut buffer, area, row, &Line::raw("left"), &Line::raw("r"));
        }
        for area in [Rect::new(9, 9, 3, 3), Rect::new(4, 1, 30, 30), Rect::new(0, 0, 0, 0)] {
            put_bar(&mut buffer, area, "left", &["r"], Style::new());
        }
        let row = |y| (0..6).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        assert_eq!((row(0).as_str(), row(1).as_str()), ("      ", "    le"));
    }
}
