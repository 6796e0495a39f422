//! A want of something (processes, descriptors, memory): told once when it begins, once when it is over.
//!
//! It is over when what had failed has succeeded and nothing has failed for a while, so that a machine at its limit,
//! where every other attempt succeeds, is not a line a second. Decides; the supervisor tells.

use crate::clock::Tick;
use std::time::Duration;

/// How long nothing may fail until the want counts as over.
const CALM: Duration = Duration::from_secs(3);

/// What is remembered of a want.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Shortage {
    /// When it began; `None` while all is well.
    since: Option<Tick>,
    /// The last failure.
    last: Tick,
    /// The first success after that.
    success: Option<Tick>,
}

impl Shortage {
    /// Something has failed for want of it. Whether that is news.
    #[must_use]
    pub fn fail(&mut self, now: Tick) -> bool {
        self.last = now;
        self.success = None;
        let is_news = self.since.is_none();
        self.since.get_or_insert(now);
        is_news
    }

    /// The same has succeeded.
    pub fn succeed(&mut self, now: Tick) {
        if self.since.is_some() {
            self.success.get_or_insert(now);
        }
    }

    /// Whether it lasts.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.since.is_some()
    }

    /// When it will be over if nothing fails any more; `None` if there is none, or nothing has succeeded yet.
    #[must_use]
    pub fn ends(&self) -> Option<Tick> {
        self.success.map(|_| self.last.after(CALM))
    }

    /// Ends it if it is time, and says how long it lasted: from the first failure to the first success that held.
    #[must_use]
    pub fn end(&mut self, now: Tick) -> Option<Duration> {
        let ends = self.ends().filter(|&ends| ends <= now);
        let (since, success) = ends.and(self.since.zip(self.success))?;
        *self = Self::default();
        Some(success.until(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens at a time, in seconds.
    #[derive(Clone, Copy)]
    enum Event {
        Fails,
        Succeeds,
        Look,
    }
    use Event::{Fails, Look, Succeeds};

    #[test]
    fn it_is_told_once_each_way() {
        for (why, events, want) in [
            ("all is well", &[(1, Succeeds), (100, Look)][..], &[][..]),
            ("a single failure, never tried again", &[(1, Fails), (100, Look)], &[(1, None)]),
            (
                "over once something has succeeded and held",
                &[(1, Fails), (2, Fails), (5, Succeeds), (6, Look), (7, Look)],
                &[(1, None), (6, Some(4))],
            ),
            ("a success alone does not end it", &[(1, Fails), (2, Succeeds), (3, Look)], &[(1, None)]),
            (
                "at the limit every other attempt succeeds",
                &[(1, Fails), (2, Succeeds), (3, Fails), (4, Succeeds), (5, Fails), (7, Look), (20, Look)],
                &[(1, None)],
            ),
            (
                "the next one is news again",
                &[(1, Fails), (2, Succeeds), (4, Look), (5, Fails), (6, Fails)],
                &[(1, None), (4, Some(1)), (5, None)],
            ),
        ] {
            let mut shortage = Shortage::default();
            let mut told = Vec::new();
            for &(second, event) in events {
                let now = Tick(second * 1_000);
                match event {
                    Fails if shortage.fail(now) => told.push((second, None)),
                    Fails => {}
                    Succeeds => shortage.succeed(now),
                    Look => told.extend(shortage.end(now).map(|lasted| (second, Some(lasted.as_secs())))),
                }
            }
            assert_eq!(told, want, "{why}");
        }
    }

    #[test]
    fn it_says_when_to_look() {
        let mut shortage = Shortage::default();
        assert_eq!((shortage.ends(), shortage.lasts()), (None, false));
        assert!(shortage.fail(Tick(1_000)));
        assert_eq!((shortage.ends(), shortage.lasts()), (None, true));
        shortage.succeed(Tick(1_500));
        assert_eq!(shortage.ends(), Some(Tick(4_000)));
        assert_eq!(shortage.end(Tick(3_999)), None);
        assert_eq!(shortage.end(Tick(4_000)), Some(Duration::from_millis(500)));
        assert_eq!(shortage, Shortage::default());
    }
}
