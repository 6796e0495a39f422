//! The ladder down: ask, insist, kill, and its times. Decides; the supervisor carries it out.

use crate::clock::Tick;
use std::time::Duration;

/// How long the kernel keeps dropping new connections before the children are asked, so that handshakes under
/// way are completed; then how long the children have to accept them, and again while some are left.
const SETTLE: Duration = Duration::from_millis(50);

/// From "leave now" to SIGKILL.
const INSIST: Duration = Duration::from_secs(3);

/// From SIGKILL to going without them: what even that does not end hangs in the kernel.
const GIVE_UP: Duration = Duration::from_secs(5);

/// A rung of the ladder.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rung {
    /// The kernel drops new connections; those under way are completed.
    Close,
    /// Children drain: they accept what is queued and finish what is under way.
    Ask,
    /// The listeners are shut, whoever still holds one: new connections are refused.
    Shut,
    /// Children leave now.
    Insist,
    /// SIGKILL.
    Kill,
    /// The master goes without them.
    GiveUp,
}

/// Where on the ladder we are.
#[derive(Clone, Copy, Debug)]
pub struct Ladder {
    rung: Rung,
    next: Tick,
    patience: Tick,
}

impl Ladder {
    /// A graceful stop that insists after `timeout`; `None` waits for ever.
    #[must_use]
    pub fn graceful(now: Tick, timeout: Option<Duration>) -> Self {
        let patience = timeout.map_or(Tick::NEVER, |timeout| now.after(timeout));
        Self { rung: Rung::Close, next: now.after(SETTLE).min(patience), patience }
    }

    /// A stop at once.
    #[must_use]
    pub fn hard(now: Tick) -> Self {
        Self { rung: Rung::Insist, next: now.after(INSIST), patience: now }
    }

    /// The rung we stand on.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// When the next rung is due; [`Tick::NEVER`] if it is not.
    #[must_use]
    pub fn next(&self) -> Tick {
        self.next
    }

    /// How long the children have from now to finish; `None` for ever.
    #[must_use]
    pub fn left(&self, now: Tick) -> Option<Duration> {
        (self.patience != Tick::NEVER).then(|| self.patience.until(now))
    }

    /// While connections still wait to be accepted, the listeners stay open a little longer: to be called when
    /// [`Rung::Shut`] is due. Not for ever: half of the time is the children's to finish in.
    #[must_use]
    pub fn keep_open(&mut self, begun: Tick, now: Tick) -> bool {
        let half = self.left(begun).map_or(Tick::NEVER, |whole| begun.after(whole / 2));
        let may = self.rung == Rung::Ask && now.after(SETTLE) < half;
        if may {
            self.next = now.after(SETTLE);
        }
        may
    }

    /// Somebody has lost patience: straight to the rung where children leave now. `false` if we are there or
    /// below already.
    #[must_use]
    pub fn hasten(&mut self, now: Tick) -> bool {
        let hastened = self.rung < Rung::Insist;
        if hastened {
            *self = Self::hard(now);
        }
        hastened
    }

    /// Steps down one rung if it is time, and says onto which.
    #[must_use]
    pub fn step(&mut self, now: Tick) -> Option<Rung> {
        if now < self.next {
            return None;
        }
        (self.rung, self.next) = match self.rung {
            Rung::Close if now < self.patience => (Rung::Ask, now.after(SETTLE).min(self.patience)),
            Rung::Ask if now < self.patience => (Rung::Shut, self.patience),
            Rung::Close | Rung::Ask | Rung::Shut => (Rung::Insist, now.after(INSIST)),
            Rung::Insist => (Rung::Kill, now.after(GIVE_UP)),
            Rung::Kill | Rung::GiveUp => (Rung::GiveUp, Tick::NEVER),
        };
        Some(self.rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descent(mut ladder: Ladder) -> Vec<(u64, Rung)> {
        let mut steps = Vec::new();
        while ladder.next() != Tick::NEVER {
            let now = ladder.next();
            assert_eq!(ladder.step(Tick(now.0 - 1)), None, "not yet");
            steps.push((now.0, ladder.step(now).unwrap()));
        }
        steps
    }

    #[test]
    fn each_ladder_has_its_times() {
        let graceful = Ladder::graceful(Tick(1_000), Some(Duration::from_secs(30)));
        assert_eq!(
            descent(graceful),
            [
                (1_050, Rung::Ask),
                (1_100, Rung::Shut),
                (31_000, Rung::Insist),
                (34_000, Rung::Kill),
                (39_000, Rung::GiveUp)
            ]
        );
        let for_ever = Ladder::graceful(Tick(1_000), None);
        assert_eq!(descent(for_ever), [(1_050, Rung::Ask), (1_100, Rung::Shut)]);
        let no_time = Ladder::graceful(Tick(1_000), Some(Duration::from_millis(20)));
        assert_eq!(descent(no_time)[0], (1_020, Rung::Insist));
        assert_eq!(descent(Ladder::hard(Tick(1_000))), [(4_000, Rung::Kill), (9_000, Rung::GiveUp)]);
    }

    #[test]
    fn impatience_goes_one_way() {
        let mut ladder = Ladder::graceful(Tick(0), None);
        assert!(ladder.hasten(Tick(10)));
        assert_eq!(ladder.rung(), Rung::Insist);
        assert_eq!(ladder.left(Tick(10)), Some(Duration::ZERO));
        assert!(!ladder.hasten(Tick(20)));
        assert_eq!(descent(ladder)[0], (3_010, Rung::Kill), "asking twice does not delay it");
    }

    #[test]
    fn queued_connections_hold_the_door_for_half_of_the_time() {
        let begun = Tick(0);
        let mut ladder = Ladder::graceful(begun, Some(Duration::from_secs(1)));
        assert!(!ladder.keep_open(begun, Tick(50)), "nobody has been asked yet");
        assert_eq!(ladder.step(Tick(50)), Some(Rung::Ask));
        let mut now = ladder.next();
        while ladder.keep_open(begun, now) {
            now = ladder.next();
        }
        assert_eq!(now, Tick(450));
        assert_eq!(ladder.step(now), Some(Rung::Shut));
        assert!(!ladder.keep_open(begun, now), "it is shut");
        assert_eq!(ladder.left(now), Some(Duration::from_millis(550)));
    }
}
