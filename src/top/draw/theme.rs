//! Which style means what: the sixteen colours that every terminal has, or none at all.

use crate::scoreboard::state::WorkerState;
use ratatui::style::{Color, Modifier, Style};

/// The styles of a screen.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    /// Whether colours are wanted (`NO_COLOR`). Without them, bold, dim and reversed letters say as much.
    pub colour: bool,
}

impl Theme {
    /// A letter of the grid.
    #[must_use]
    pub fn letter(self, state: Option<WorkerState>) -> Style {
        let plain = Style::new();
        if !self.colour {
            return match state {
                Some(WorkerState::Dead) => plain.add_modifier(Modifier::DIM),
                Some(state) if state.is_busy() => plain.add_modifier(Modifier::REVERSED),
                Some(_) => plain,
                None => plain.add_modifier(Modifier::BOLD),
            };
        }
        let on = |ground| plain.bg(ground);
        match state {
            Some(WorkerState::Dead) => plain.fg(Color::DarkGray),
            Some(WorkerState::Ready) => plain.fg(Color::Green),
            Some(WorkerState::Write | WorkerState::Log | WorkerState::Dns) => {
                on(Color::Blue).fg(Color::White)
            }
            Some(WorkerState::Read | WorkerState::Starting) => on(Color::Magenta).fg(Color::White),
            Some(WorkerState::KeepAlive) => on(Color::Yellow).fg(Color::Black),
            Some(WorkerState::Closing) => on(Color::Cyan).fg(Color::Black),
            Some(WorkerState::Graceful | WorkerState::IdleKill) => on(Color::Gray).fg(Color::Black),
            None => on(Color::Red).fg(Color::White),
        }
    }

    /// What stands in the second row: labels, units, what is as it should be.
    #[must_use]
    pub fn soft(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// What the eye shall find.
    #[must_use]
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// All is well.
    #[must_use]
    pub fn good(self) -> Style {
        self.tint(Color::Green)
    }

    /// Worth a look.
    #[must_use]
    pub fn notable(self) -> Style {
        self.tint(Color::Yellow)
    }

    /// An administrator must act.
    #[must_use]
    pub fn bad(self) -> Style {
        self.tint(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Workers that are busy, in a bar.
    #[must_use]
    pub fn busy(self) -> Style {
        self.tint(Color::Blue)
    }

    /// One of the sparklines.
    #[must_use]
    pub fn spark(self) -> Style {
        self.tint(Color::Cyan)
    }

    /// The bar above a pane; `focused` if the arrows belong to it.
    #[must_use]
    pub fn heading(self, focused: bool) -> Style {
        match (self.colour, focused) {
            (true, true) => Style::new().fg(Color::Black).bg(Color::Cyan),
            (true, false) => Style::new().fg(Color::Black).bg(Color::Gray),
            (false, true) => Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD),
            (false, false) => Style::new().add_modifier(Modifier::REVERSED),
        }
    }

    /// A word on a ground of its own, such as the state of the server.
    #[must_use]
    pub fn badge(self, ground: Color) -> Style {
        if self.colour {
            Style::new().fg(Color::Black).bg(ground).add_modifier(Modifier::BOLD)
        } else {
            Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
        }
    }

    /// How long a request has been under way.
    #[must_use]
    pub fn age(self, micros: u64) -> Style {
        match micros {
            0..1_000_000 => Style::new(),
            1_000_000..10_000_000 => self.notable(),
            _ => self.bad(),
        }
    }

    fn tint(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}
