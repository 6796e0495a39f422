//! What the person in front of the screen has chosen, and what each key changes about it.
//!
//! Pure. The loop asks [`View::press`] what a key means and does what comes back; drawing reads the choices, and
//! tells how far each pane can be scrolled.

use super::keys::Key;
use std::time::Duration;

/// What `+` and `-` go through, in milliseconds.
const INTERVALS: [u64; 9] = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

/// The most letters of a filter: more than any field it is looked for in.
const FILTER_LETTERS: usize = 128;

/// A part of the screen that scrolls by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pane {
    /// The letters, child by child.
    Workers,
    /// The backends, the busiest first.
    Backends,
    /// The requests under way.
    Requests,
}

impl Pane {
    /// All of them, from top to bottom.
    pub const ALL: [Self; 3] = [Self::Workers, Self::Backends, Self::Requests];
}

/// What the requests are in the order of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sort {
    /// The longest under way first.
    Age,
    /// By slot and worker.
    Slot,
    /// By the client's address.
    Client,
    /// By the host.
    Host,
    /// By the request line.
    Request,
    /// By the backend.
    Backend,
}

impl Sort {
    const ALL: [Self; 6] = [Self::Age, Self::Slot, Self::Client, Self::Host, Self::Request, Self::Backend];

    /// The word on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Slot => "slot",
            Self::Client => "client",
            Self::Host => "host",
            Self::Request => "request",
            Self::Backend => "backend",
        }
    }
}

/// How the workers are drawn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// The first of the others that fits.
    Fitting,
    /// A line (or more) for each child: pid, generation, stage, and a letter for each worker.
    Rows,
    /// Slot and letters only, as many children side by side as there is room for.
    Dense,
    /// A bar for each child.
    Bars,
}

impl Form {
    const ALL: [Self; 4] = [Self::Fitting, Self::Rows, Self::Dense, Self::Bars];

    /// The word on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fitting => "what fits",
            Self::Rows => "rows",
            Self::Dense => "letters",
            Self::Bars => "bars",
        }
    }
}

/// What a key asks of the loop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    /// Nothing has changed.
    Nothing,
    /// Draw what is known in the new way.
    Draw,
    /// Draw everything anew: something else may have written to the screen.
    Redraw,
    /// Look at the scoreboard now.
    Look,
    /// Stand aside until the shell wakes us.
    Suspend,
    /// Leave.
    Quit,
}

/// The choices.
#[derive(Clone, Debug)]
pub struct View {
    /// What the arrows scroll.
    pub pane: Pane,
    /// Whether that pane has the others' room as well.
    pub zoomed: bool,
    /// Lines that are scrolled away, pane by pane. Drawing holds them to what there is.
    pub offsets: [usize; Pane::ALL.len()],
    /// Lines that were visible when the pane was last drawn.
    pub pages: [usize; Pane::ALL.len()],
    /// The order of the requests.
    pub sort: Sort,
    /// The other way round.
    pub reversed: bool,
    /// Only what holds this, in lower case; empty: all.
    pub filter: String,
    /// While a filter is being typed: the one before.
    pub typing: Option<String>,
    /// Whether the scoreboard is left alone.
    pub paused: bool,
    /// Time between two looks.
    pub interval: Duration,
    /// How the workers are drawn.
    pub form: Form,
    /// Whether the keys are explained.
    pub help: bool,
}

impl View {
    /// The choices to begin with.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            pane: Pane::Workers,
            zoomed: false,
            offsets: [0; Pane::ALL.len()],
            pages: [0; Pane::ALL.len()],
            sort: Sort::Age,
            reversed: false,
            filter: String::new(),
            typing: None,
            paused: false,
            interval,
            form: Form::Fitting,
            help: false,
        }
    }

    /// What a key means now.
    pub fn press(&mut self, key: Key) -> Wish {
        match key {
            Key::Control('c') => return Wish::Quit,
            Key::Control('l') => return Wish::Redraw,
            Key::Control('z') => return Wish::Suspend,
            _ => {}
        }
        if self.typing.is_some() {
            return self.type_filter(key);
        }
        match key {
            Key::Char('q') => return Wish::Quit,
            // Esc closes what is open, and what is open last of all is the program.
            Key::Escape if self.help => self.help = false,
            Key::Escape if self.zoomed => self.zoomed = false,
            Key::Escape => return Wish::Quit,
            Key::Char('?' | 'h') => self.help = !self.help,
            Key::Char('/') => self.typing = Some(self.filter.clone()),
            Key::Char('s') => self.sort = next(&Sort::ALL, self.sort),
            Key::Char('r') => self.reversed = !self.reversed,
            Key::Char('g') => {
                self.form = next(&Form::ALL, self.form);
                self.offsets[Pane::Workers as usize] = 0;
            }
            Key::Char('z') | Key::Enter => self.zoomed = !self.zoomed,
            Key::Tab => self.pane = next(&Pane::ALL, self.pane),
            Key::BackTab => {
                let last = next(&Pane::ALL, next(&Pane::ALL, self.pane));
                self.pane = last;
            }
            Key::Char('p' | ' ') => {
                self.paused = !self.paused;
                return if self.paused { Wish::Draw } else { Wish::Look };
            }
            Key::Char('+' | '=') => self.interval = longer(self.interval),
            Key::Char('-') => self.interval = shorter(self.interval),
            Key::Up | Key::Char('k') => self.scroll(|offset, _| offset.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.scroll(|offset, _| offset.saturating_add(1)),
            Key::PageUp => self.scroll(usize::saturating_sub),
            Key::PageDown => self.scroll(usize::saturating_add),
            Key::Home => self.scroll(|_, _| 0),
            Key::End => self.scroll(|_, _| usize::MAX),
            _ => return Wish::Nothing,
        }
        Wish::Draw
    }

    /// Scrolls the pane that the arrows belong to: from offset and page to the new offset.
    fn scroll(&mut self, to: impl Fn(usize, usize) -> usize) {
        let pane = self.pane as usize;
        self.offsets[pane] = to(self.offsets[pane], self.pages[pane].max(1));
    }

    fn type_filter(&mut self, key: Key) -> Wish {
        match key {
            Key::Enter => self.typing = None,
            Key::Escape => self.filter = self.typing.take().unwrap_or_default(),
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Control('u') => self.filter.clear(),
            Key::Char(letter) if self.filter.chars().count() < FILTER_LETTERS => {
                self.filter.extend(letter.to_lowercase());
            }
            _ => return Wish::Nothing,
        }
        self.offsets[Pane::Requests as usize] = 0;
        Wish::Draw
    }

    /// Draws `pane` in `page` lines although it has `lines`: how many are scrolled away.
    pub fn settle(&mut self, pane: Pane, lines: usize, page: usize) -> usize {
        let offset = &mut self.offsets[pane as usize];
        *offset = (*offset).min(lines.saturating_sub(page));
        self.pages[pane as usize] = page;
        *offset
    }
}

fn next<T: Copy + PartialEq>(all: &[T], now: T) -> T {
    let at = all.iter().position(|one| *one == now).unwrap_or(0);
    all[(at + 1) % all.len()]
}

fn longer(interval: Duration) -> Duration {
    let steps = INTERVALS.map(Duration::from_millis);
    steps.into_iter().find(|step| *step > interval).unwrap_or(interval)
}

fn shorter(interval: Duration) -> Duration {
    let steps = INTERVALS.map(Duration::from_millis);
    steps.into_iter().rfind(|step| *step < interval).unwrap_or(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View::new(Duration::from_secs(1))
    }

    fn type_in(view: &mut View, text: &str) {
        for letter in text.chars() {
            view.press(Key::Char(letter));
        }
    }

    #[test]
    fn keys_and_what_they_ask_for() {
        for (key, want) in [
            (Key::Char('q'), Wish::Quit),
            (Key::Escape, Wish::Quit),
            (Key::Control('c'), Wish::Quit),
            (Key::Control('z'), Wish::Suspend),
            (Key::Control('l'), Wish::Redraw),
            (Key::Char('p'), Wish::Draw),
            (Key::Char('x'), Wish::Nothing),
            (Key::Backspace, Wish::Nothing),
            (Key::Down, Wish::Draw),
        ] {
            assert_eq!(view().press(key), want, "{key:?}");
        }
        let mut view = view();
        view.press(Key::Char(' '));
        assert!(view.paused);
        assert_eq!(view.press(Key::Char('p')), Wish::Look, "who goes on wants to see now");
    }

    #[test]
    fn escape_closes_what_is_open_before_it_leaves() {
        let mut view = view();
        view.press(Key::Char('z'));
        view.press(Key::Char('?'));
        assert_eq!((view.press(Key::Escape), view.help, view.zoomed), (Wish::Draw, false, true));
        assert_eq!((view.press(Key::Escape), view.zoomed), (Wish::Draw, false));
        assert_eq!(view.press(Key::Escape), Wish::Quit);
    }

    #[test]
    fn a_filter_is_typed_kept_or_given_up() {
        let mut view = view();
        type_in(&mut view, "/Qux");
        assert_eq!((view.filter.as_str(), view.typing.as_deref()), ("qux", Some("")));
        view.press(Key::Backspace);
        assert_eq!(
            (view.press(Key::Enter), view.filter.as_str(), view.typing.is_none()),
            (Wish::Draw, "qu", true)
        );
        type_in(&mut view, "/x");
        view.press(Key::Escape);
        assert_eq!(view.filter, "qu");
        type_in(&mut view, "/");
        view.press(Key::Control('u'));
        type_in(&mut view, &"y".repeat(1000));
        assert_eq!(view.filter.len(), FILTER_LETTERS);
        assert_eq!(view.press(Key::Control('c')), Wish::Quit, "whatever is being typed");
    }

    #[test]
    fn orders_forms_and_panes_go_round() {
        let mut view = view();
        for _ in Sort::ALL {
            view.press(Key::Char('s'));
        }
        for _ in Form::ALL {
            view.press(Key::Char('g'));
        }
        assert_eq!((view.sort, view.form, view.pane), (Sort::Age, Form::Fitting, Pane::Workers));
        view.press(Key::Tab);
        assert_eq!(view.pane, Pane::Backends);
        view.press(Key::BackTab);
        view.press(Key::BackTab);
        assert_eq!(view.pane, Pane::Requests);
    }

    #[test]
    fn intervals_have_ends() {
        let mut view = View::new(Duration::from_millis(1_500));
        view.press(Key::Char('-'));
        assert_eq!(view.interval, Duration::from_secs(1));
        for _ in 0..20 {
            view.press(Key::Char('-'));
        }
        assert_eq!(view.interval, Duration::from_millis(100));
        for _ in 0..20 {
            view.press(Key::Char('+'));
        }
        assert_eq!(view.interval, Duration::from_secs(60));
        view.interval = Duration::from_secs(3600);
        view.press(Key::Char('+'));
        assert_eq!(view.interval, Duration::from_secs(3600));
    }

    #[test]
    fn scrolling_stays_within_what_there_is() {
        let mut view = view();
        assert_eq!(view.settle(Pane::Workers, 100, 10), 0);
        view.press(Key::PageDown);
        view.press(Key::Down);
        view.press(Key::Up);
        assert_eq!(view.settle(Pane::Workers, 100, 10), 10);
        view.press(Key::End);
        view.press(Key::Down);
        assert_eq!(view.settle(Pane::Workers, 100, 10), 90);
        assert_eq!(view.settle(Pane::Workers, 5, 10), 0);
        view.press(Key::Home);
        assert_eq!(view.offsets[Pane::Workers as usize], 0);
    }
}
