//! Whether a child still lives: pings and answers. Decides; the supervisor sends.
//!
//! Pings are frequent while there is something to do and rare when there is not, so that an idle server
//! hardly wakes.

use crate::clock::Tick;
use std::time::Duration;

/// What the master remembers of one child's answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pulse {
    /// The ping that has not been answered, and since when.
    asked: Option<(u32, Tick)>,
    /// It has been told that the answer is late.
    told: bool,
    /// When the last answer came, or the child became ready.
    heard: Tick,
    number: u32,
}

/// What to do about a child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Beat {
    /// Nothing before this.
    Fine(Tick),
    /// Send it a ping of this number.
    Ping(u32),
    /// It has not answered for so long, which is worth a line; it may still do so.
    Late(Duration),
    /// It has not answered for so long, and will not.
    Silent(Duration),
}

/// An answer that takes longer than this, or than half of the time-out, is late.
const LATE: Duration = Duration::from_secs(5);

impl Pulse {
    /// A child that has just said that it is ready.
    #[must_use]
    pub fn new(now: Tick) -> Self {
        Self { asked: None, told: false, heard: now, number: 0 }
    }

    /// An answer to ping `number`; an old one counts for nothing. How long it took, if it was told to be late.
    pub fn answer(&mut self, number: u32, now: Tick) -> Option<Duration> {
        let (_, since) = self.asked.take_if(|(asked, _)| *asked == number)?;
        self.heard = now;
        std::mem::take(&mut self.told).then(|| now.until(since))
    }

    /// Whether an answer is late: what this child is told now it may not hear.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.told
    }

    /// After a stall of our own: the answer may be on its way since long, so the time begins anew.
    pub fn pardon(&mut self, now: Tick) {
        if let Some((_, since)) = &mut self.asked {
            *since = now;
        }
    }

    /// What is due now. A child that is `busy`, or whose siblings are, is asked three times within `timeout`, but not more
    /// often than once a second; an idle one once.
    #[must_use]
    pub fn beat(&mut self, busy: bool, timeout: Duration, now: Tick) -> Beat {
        if let Some((_, since)) = self.asked {
            let (late, silent) = (since.after(LATE.min(timeout / 2)), since.after(timeout));
            if silent <= now {
                Beat::Silent(now.until(since))
            } else if self.told {
                Beat::Fine(silent)
            } else if late <= now {
                self.told = true;
                Beat::Late(now.until(since))
            } else {
                Beat::Fine(late)
            }
        } else {
            let pause = if busy { (timeout / 3).max(Duration::from_secs(1)) } else { timeout };
            let next = self.heard.after(pause);
            if now < next {
                return Beat::Fine(next);
            }
            self.number = self.number.wrapping_add(1);
            self.asked = Some((self.number, now));
            Beat::Ping(self.number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[test]
    fn a_busy_child_is_asked_more_often_than_an_idle_one() {
        for (busy, first) in [(true, 10_000), (false, 30_000)] {
            let mut pulse = Pulse::new(Tick(0));
            assert_eq!(pulse.beat(busy, TIMEOUT, Tick(0)), Beat::Fine(Tick(first)));
            assert_eq!(pulse.beat(busy, TIMEOUT, Tick(first)), Beat::Ping(1));
            assert_eq!(pulse.beat(busy, TIMEOUT, Tick(first + 5)), Beat::Fine(Tick(first + 5_000)));
            assert_eq!(pulse.answer(1, Tick(first + 6)), None, "in good time");
            assert_eq!(pulse.beat(busy, TIMEOUT, Tick(first + 6)), Beat::Fine(Tick(2 * first + 6)));
        }
    }

    #[test]
    fn silence_is_noticed_and_only_the_right_answer_ends_it() {
        let mut pulse = Pulse::new(Tick(0));
        assert_eq!(pulse.beat(true, TIMEOUT, Tick(10_000)), Beat::Ping(1));
        assert_eq!(pulse.answer(0, Tick(10_001)), None);
        assert_eq!(pulse.answer(2, Tick(10_001)), None);
        assert!(!pulse.is_late());
        assert_eq!(pulse.beat(true, TIMEOUT, Tick(15_000)), Beat::Late(Duration::from_secs(5)));
        assert!(pulse.is_late());
        assert_eq!(pulse.beat(true, TIMEOUT, Tick(15_001)), Beat::Fine(Tick(40_000)), "told once");
        assert_eq!(pulse.beat(true, TIMEOUT, Tick(40_000)), Beat::Silent(TIMEOUT));
        assert_eq!(pulse.answer(1, Tick(40_001)), Some(Duration::from_millis(30_001)));
        assert!(!pulse.is_late());
        assert_eq!(pulse.beat(true, TIMEOUT, Tick(40_001)), Beat::Fine(Tick(50_001)));
    }

    #[test]
    fn our_own_stall_is_not_held_against_a_child() {
        let mut pulse = Pulse::new(Tick(0));
        assert_eq!(pulse.beat(true, TIMEOUT, Tick(10_000)), Beat::Ping(1));
        pulse.pardon(Tick(90_000));
        assert_eq!(pulse.beat(true, TIMEOUT, Tick(90_000)), Beat::Fine(Tick(95_000)));
        assert_eq!(pulse.beat(true, TIMEOUT, Tick(120_000)), Beat::Silent(TIMEOUT));
    }

    #[test]
    fn short_timeouts_do_not_make_a_storm() {
        let mut pulse = Pulse::new(Tick(0));
        assert_eq!(pulse.beat(true, Duration::from_secs(1), Tick(10)), Beat::Fine(Tick(1_000)));
        assert_eq!(pulse.beat(true, Duration::from_secs(1), Tick(1_000)), Beat::Ping(1));
        assert_eq!(
            pulse.beat(true, Duration::from_secs(1), Tick(1_500)),
            Beat::Late(Duration::from_millis(500))
        );
    }
}
