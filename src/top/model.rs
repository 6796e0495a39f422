//! All that a frame is drawn from: the last look at the scoreboard, what happened before it, and the choices.
//!
//! Pure.

use super::history::History;
use super::view::View;
use crate::scoreboard::snapshot::Snapshot;
use crate::status::Now;
use crate::status::tally::Tally;

/// A scoreboard, and when it was looked at.
#[derive(Clone, Debug)]
pub struct Look {
    /// What it said.
    pub snapshot: Snapshot,
    /// When.
    pub now: Now,
    /// What it adds up to.
    pub tally: Tally,
}

impl Look {
    /// Adds up.
    #[must_use]
    pub fn new(snapshot: Snapshot, now: Now) -> Self {
        let tally = Tally::of(&snapshot, &now);
        Self { snapshot, now, tally }
    }
}

/// Everything on the screen.
#[derive(Debug)]
pub struct Model {
    /// The last look that succeeded.
    pub look: Look,
    /// The looks before it.
    pub history: History,
    /// What the person in front of it has chosen.
    pub view: View,
    /// Why the file could not be read the last time.
    pub trouble: Option<String>,
}

impl Model {
    /// After the first look.
    #[must_use]
    pub fn new(look: Look, view: View) -> Self {
        let mut history = History::default();
        history.add(&look.snapshot, look.now.moment);
        Self { look, history, view, trouble: None }
    }

    /// Takes in a further look, or why there was none: the last one stays on the screen then.
    pub fn take(&mut self, look: Result<Look, String>) {
        match look {
            Ok(look) => {
                self.history.add(&look.snapshot, look.now.moment);
                (self.look, self.trouble) = (look, None);
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
    }
}
