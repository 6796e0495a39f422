//! `ostler top`: the scoreboard as a live view in a terminal.
//!
//! Reads the scoreboard file again and again, under its name, so that the board of a master that has been restarted
//! or replaced is found; asks no server. This file is the loop: it waits for keys, signals and time, looks, and
//! has a frame drawn. What was chosen ([`view`]), what has happened ([`history`]) and how it looks ([`draw`]) are
//! pure.
//!
//! Keys are read here and not by the terminal library: its reader waits without end inside a key whose rest does
//! not come, deaf to signals, and turns without end when the terminal has gone.

pub mod draw;
pub mod flights;
pub mod history;
pub mod keys;
pub mod model;
pub mod screen;
pub mod view;

use crate::clock::Moment;
use crate::scoreboard::snapshot::{Snapshot, SnapshotError};
use crate::status::Now;
use crate::sys::poll::{self, Seen};
use crate::sys::signal::{Signal, SignalPipe};
use crate::sys::time;
use draw::theme::Theme;
use jiff::tz::TimeZone;
use keys::{Decoder, ESCAPE_WAIT};
use model::{Look, Model};
use nix::unistd;
use screen::Screen;
use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use view::{View, Wish};

/// Why there is no view.
#[derive(Debug)]
pub enum TopError {
    /// Standard input or output is none.
    NoTerminal,
    /// The terminal says of itself that its cursor cannot be moved (`TERM=dumb`).
    DumbTerminal,
    /// The scoreboard cannot be read.
    Board(SnapshotError),
    /// The terminal, or the wait for its keys, has failed.
    Terminal(io::Error),
}

impl fmt::Display for TopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTerminal => {
                write!(
                    f,
                    "top wants a terminal to draw on and to read keys from; for a file or a pipe there is ostler status --watch"
                )
            }
            Self::DumbTerminal => {
                write!(
                    f,
                    "top cannot draw on this terminal (TERM is unset or dumb); ostler status --watch can do without"
                )
            }
            Self::Board(error) => error.fmt(f),
            Self::Terminal(_) => write!(f, "cannot use the terminal"),
        }
    }
}

impl Error for TopError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoTerminal | Self::DumbTerminal => None,
            Self::Board(error) => error.source(),
            Self::Terminal(error) => Some(error),
        }
    }
}

impl From<io::Error> for TopError {
    fn from(error: io::Error) -> Self {
        Self::Terminal(error)
    }
}

/// Shows the scoreboard at `path` until somebody has seen enough, and leaves the terminal as it was.
///
/// # Errors
/// If there is no terminal, or the scoreboard cannot be read at the start. One that cannot be read later is told of
/// on the screen, and tried again.
pub fn run(path: &Path, interval: Duration) -> Result<(), TopError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        return Err(TopError::DumbTerminal);
    }
    let zone = TimeZone::system();
    let first = look(path, &zone).map_err(TopError::Board)?;
    let mut model = Model::new(first, View::new(interval));
    let theme = Theme { colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
    // From here on a signal does not end us, so the terminal is always given back.
    let signals = SignalPipe::new(&[
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGWINCH,
        Signal::SIGCONT,
    ])?;
    let screen = Screen::take()?;
    match (Watch { path, zone, theme, screen, signals, keys: Decoder::default() }).go(&mut model) {
        // The terminal was closed, and with it everybody who could be told.
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => Ok(()),
        ended => Ok(ended?),
    }
}

/// Reads the scoreboard now.
fn look(path: &Path, zone: &TimeZone) -> Result<Look, SnapshotError> {
    let snapshot = Snapshot::read(path)?;
    let now = Now { moment: time::now(), wall_micros: time::wall_micros(), zone: zone.clone() };
    Ok(Look::new(snapshot, now))
}

/// What has woken the loop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum News {
    /// Time is up.
    Time,
    /// Keys, or the terminal's end.
    Keys,
    /// A signal.
    Signal,
}

struct Watch<'a> {
    path: &'a Path,
    zone: TimeZone,
    theme: Theme,
    screen: Screen,
    signals: SignalPipe,
    keys: Decoder,
}

impl Watch<'_> {
    fn go(mut self, model: &mut Model) -> io::Result<()> {
        let mut last = model.look.now.moment;
        loop {
            let theme = self.theme;
            self.screen.show(|area, buffer| draw::draw(model, theme, area, buffer))?;
            let wish = match self.wait(model, last)? {
                News::Time => Wish::Look,
                News::Keys => self.read_keys(model)?,
                News::Signal => self.heed_signals()?,
            };
            match wish {
                Wish::Quit => return Ok(()),
                Wish::Look => {
                    if model.view.paused {
                        continue;
                    }
                    model.take(look(self.path, &self.zone).map_err(|error| told(&error)));
                    last = time::now();
                }
                Wish::Suspend => {
                    self.screen.lend(|| {
                        // Without a shell that could wake us, the kernel does not stop us.
                        let _ = nix::sys::signal::raise(Signal::SIGTSTP);
                    })?;
                    model.history.interrupt();
                }
                Wish::Redraw => self.screen.wipe()?,
                Wish::Nothing | Wish::Draw => {}
            }
        }
    }

    /// Sleeps until there is something to do. `last` is when the scoreboard was last looked at.
    fn wait(&mut self, model: &Model, last: Moment) -> io::Result<News> {
        let stdin = io::stdin();
        let interval = u64::try_from(model.view.interval.as_micros()).unwrap_or(u64::MAX);
        let due = Moment(last.0.saturating_add(interval));
        let left = Duration::from_micros(due.micros_since(time::now()));
        let left = if model.view.paused { None } else { Some(left) };
        let escape = self.keys.is_waiting();
        let limit = if escape { Some(left.map_or(ESCAPE_WAIT, |left| left.min(ESCAPE_WAIT))) } else { left };
        let readable = |fd| poll::Wish { fd, read: true, write: false };
        let mut seen = [Seen::default(); 2];
        poll::wait(&[readable(stdin.as_fd()), readable(self.signals.source().as_fd())], limit, &mut seen)?;
        Ok(match seen {
            [_, Seen { readable: true, .. }] => News::Signal,
            [Seen { readable: true, .. }, _] => News::Keys,
            _ if escape => News::Keys,
            _ => News::Time,
        })
    }

    /// Reads what was typed, and does all of it but the last thing that is more than a new drawing.
    fn read_keys(&mut self, model: &mut Model) -> io::Result<Wish> {
        let mut typed = [0; 1024];
        let stdin = io::stdin();
        let keys = if !poll::is_readable(stdin.as_fd())? {
            Vec::from_iter(self.keys.settle())
        } else {
            match unistd::read(stdin.as_fd(), &mut typed)? {
                // The terminal has been closed.
                0 => return Ok(Wish::Quit),
                count => self.keys.feed(&typed[..count]),
            }
        };
        let mut all = Wish::Nothing;
        for key in keys {
            match model.view.press(key) {
                Wish::Nothing => {}
                Wish::Draw if all != Wish::Nothing => {}
                Wish::Quit => return Ok(Wish::Quit),
                wish => all = wish,
            }
        }
        Ok(all)
    }

    fn heed_signals(&mut self) -> io::Result<Wish> {
        for signal in self.signals.pending() {
            match signal {
                // The next frame asks for the size.
                Signal::SIGWINCH => {}
                // Whoever stopped us may have left the terminal in another mode.
                Signal::SIGCONT => self.screen.lend(|| {})?,
                _ => return Ok(Wish::Quit),
            }
        }
        Ok(Wish::Draw)
    }
}

fn told(error: &SnapshotError) -> String {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    match cause.split(" (os error").next() {
        None | Some("") => error.to_string(),
        Some(cause) => format!("{error}: {cause}"),
    }
}
