//! A page shown again and again, until somebody ends it: `ostler status --watch`.
//!
//! On a terminal it is drawn in place, as watch(1) does, on the alternate screen, so that nothing of it is left;
//! into a pipe or a file one page follows the other. Whatever ends it, the terminal is given back as it was.

use crate::status::brief::Verdict;
use crate::sys::poll::{self, Seen, Wish};
use crate::sys::signal::{self, Signal, SignalPipe};
use crate::sys::terminal;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::AsFd;
use std::time::Duration;

/// The alternate screen, without a cursor; what is wider than the window is cut by the terminal.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Shows `page` at once and then `every` so often, until INT, TERM, HUP or QUIT comes or nobody reads any more.
/// Returns the last verdict.
///
/// # Errors
/// If there is no descriptor to hear signals by, or the output can't be written.
pub fn watch(
    every: Duration,
    title: &str,
    mut page: impl FnMut() -> (String, Verdict),
) -> io::Result<Verdict> {
    let screen = is_screen();
    let mut signals = vec![Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
    if screen {
        signals.extend([Signal::SIGWINCH, Signal::SIGTSTP]);
    }
    let mut signals = SignalPipe::new(&signals)?;
    let mut show = Show::begin(screen);
    loop {
        let (text, verdict) = page();
        let frame = if screen {
            let rows = terminal::size(io::stdout()).map_or(24, |(rows, _)| usize::from(rows));
            frame(&format!("Every {} s: {title} (Ctrl-C ends)", every.as_secs_f64()), &text, rows)
        } else if show.is_first {
            text
        } else {
            following(text)
        };
        match show.write(&frame) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(verdict),
            written => written?,
        }
        match wait(&mut signals, every)? {
            Woken::Time => {}
            Woken::Ended => return Ok(verdict),
            Woken::Stopped => {
                drop(show);
                signal::stop_this_process();
                show = Show::begin(screen);
            }
        }
    }
}

/// Whether pages can be drawn in place.
fn is_screen() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb")
}

/// Why the wait is over.
enum Woken {
    /// For a new page.
    Time,
    /// Somebody wants it to end.
    Ended,
    /// Ctrl-Z.
    Stopped,
}

fn wait(signals: &mut SignalPipe, every: Duration) -> io::Result<Woken> {
    let source = signals.source();
    let wish = Wish { fd: source.as_fd(), read: true, write: false };
    poll::wait(&[wish], Some(every), &mut [Seen::default()])?;
    let came = signals.pending();
    Ok(if came.iter().any(|signal| ![Signal::SIGWINCH, Signal::SIGTSTP].contains(signal)) {
        Woken::Ended
    } else if came.contains(&Signal::SIGTSTP) {
        Woken::Stopped
    } else {
        Woken::Time
    })
}

/// What has the terminal, and gives it back when dropped.
struct Show {
    screen: bool,
    entered: bool,
    is_first: bool,
}

impl Show {
    fn begin(screen: bool) -> Self {
        Self { screen, entered: false, is_first: true }
    }

    fn write(&mut self, frame: &str) -> io::Result<()> {
        self.is_first = false;
        let mut out = io::stdout().lock();
        if self.screen && !self.entered {
            self.entered = true;
            out.write_all(ENTER.as_bytes())?;
        }
        out.write_all(frame.as_bytes())?;
        out.flush()
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if self.entered {
            let mut out = io::stdout().lock();
            // If the terminal is gone, so is what there was to put in order.
            let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// A page behind another: a line between them, but for pages of one line.
fn following(text: String) -> String {
    if text.lines().nth(1).is_some() { format!("\n{text}") } else { text }
}

/// A window full: the title, an empty line, and as much of the page as there is room for, over whatever is there.
fn frame(title: &str, text: &str, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let room = rows.saturating_sub(2);
    let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
    let mut frame = format!("\x1b[H{title}\x1b[K\n\x1b[K");
    for line in &lines[..shown] {
        // Writing to a String can't fail.
        let _ = write!(frame, "\n{line}\x1b[K");
    }
    if shown < lines.len() {
        let _ = write!(frame, "\n... {} more lines, for a taller window\x1b[K", lines.len() - shown);
    }
    frame.push_str("\x1b[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_window() {
        for (rows, text, want) in [
            (24, "a\nb\n", "\x1b[Ht\x1b[K\n\x1b[K\na\x1b[K\nb\x1b[K\x1b[J"),
            (4, "a\nb\n", "\x1b[Ht\x1b[K\n\x1b[K\na\x1b[K\nb\x1b[K\x1b[J"),
            (
                4,
                "a\nb\nc\n",
                "\x1b[Ht\x1b[K\n\x1b[K\na\x1b[K\n... 2 more lines, for a taller window\x1b[K\x1b[J",
            ),
        ] {
            let frame = frame("t", text, rows);
            assert_eq!(frame, want, "{rows}");
            assert!(frame.lines().count() <= rows);
        }
        for rows in 0..4 {
            let _ = frame("t", "a\nb\nc\n", rows);
        }
    }

    #[test]
    fn pages_in_a_pipe_are_told_apart() {
        assert_eq!(following("{}\n".into()), "{}\n");
        assert_eq!(following("a\nb\n".into()), "\na\nb\n");
    }
}
