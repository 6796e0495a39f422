//! When does a child give memory back that a crowd of connections needed?
//!
//! What one connection held goes back to the allocator when it is closed, which is enough for the next one. Only after
//! a crowd is it much, and worth asking the allocator to give whole pages back to the kernel.

use crate::clock::Tick;
use std::time::Duration;

/// A crowd: fewer connections than this are not worth a look at every page of the heap.
const CROWD: u32 = 1000;

/// A crowd is gone when no more than one in so many is left.
const LEFT: u32 = 4;

/// How long after that: threads that found nothing more to do have given their buffers back by then (they do after ten
/// seconds), and a crowd that comes again at once finds its memory.
const PAUSE: Duration = Duration::from_secs(11);

/// When a child gives memory back.
#[derive(Debug)]
pub struct GiveBack {
    /// The most connections at any look since it last did.
    peak: u32,
    /// How many there were when it was last put off.
    low: u32,
    due: Tick,
}

impl GiveBack {
    /// No crowd has been there.
    #[must_use]
    pub fn new() -> Self {
        Self { peak: 0, low: 0, due: Tick::NEVER }
    }

    /// When it has to look again, even if nothing happens; [`Tick::NEVER`] unless a crowd has just gone.
    #[must_use]
    pub fn due(&self) -> Tick {
        self.due
    }

    /// Now `open` connections are there. Whether to give memory back.
    pub fn look(&mut self, open: u32, now: Tick) -> bool {
        self.peak = self.peak.max(open);
        if self.peak < CROWD || open >= self.peak / LEFT {
            self.due = Tick::NEVER;
        } else if self.due == Tick::NEVER || open < self.low / 2 {
            // While those that are left go as well, it waits for them.
            self.low = open;
            self.due = now.after(PAUSE);
        } else if now >= self.due {
            self.peak = open;
            self.due = Tick::NEVER;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at so many connections, in seconds since the start; which of the looks gave memory back, and when the next
    /// look is due.
    fn play(looks: &[(u32, u64)]) -> (Vec<usize>, Option<u64>) {
        let mut giving = GiveBack::new();
        let given = looks.iter().enumerate().filter(|(_, (open, at))| giving.look(*open, Tick(at * 1000)));
        let given = given.map(|(place, _)| place).collect();
        (given, (giving.due() != Tick::NEVER).then(|| giving.due().0 / 1000))
    }

    #[test]
    fn memory_goes_back_once_after_a_crowd() {
        for (what, looks, given, due) in [
            ("nobody has come", &[(0, 0), (0, 100)][..], &[][..], None),
            ("too few", &[(999, 0), (0, 1), (0, 100)], &[], None),
            ("they stay", &[(1000, 0), (1000, 1), (1000, 100)], &[], None),
            ("too many stay", &[(1000, 0), (250, 1), (250, 100)], &[], None),
            ("it is too early", &[(1000, 0), (249, 1), (249, 11)], &[], Some(12)),
            ("a crowd went", &[(1000, 0), (249, 1), (249, 12), (249, 30)], &[2], None),
            ("a look that comes late", &[(1000, 0), (0, 1), (0, 500)], &[2], None),
            ("they come again", &[(1000, 0), (0, 1), (900, 5), (900, 30)], &[], None),
            ("and go again", &[(1000, 0), (0, 1), (900, 5), (0, 9), (0, 12), (0, 20)], &[5], None),
            ("the last go slowly", &[(1000, 0), (200, 1), (99, 9), (60, 12), (60, 20)], &[4], None),
            ("one or two more", &[(1000, 0), (200, 1), (150, 11), (140, 12)], &[3], None),
            ("another crowd", &[(1000, 0), (0, 1), (0, 12), (5000, 20), (0, 21), (0, 40)], &[2, 5], None),
            ("few after a crowd", &[(9000, 0), (0, 1), (0, 12), (999, 20), (0, 21), (0, 40)], &[2], None),
        ] {
            assert_eq!(play(looks), (given.to_vec(), due), "{what}");
        }
    }
}
