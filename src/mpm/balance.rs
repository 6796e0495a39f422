//! Does a child have more than its share of the work, and how many connections should it give to its siblings?
//!
//! The kernel gives a connection to whoever waits first, and a burst to whoever runs. Kept-alive connections stay where
//! they are, so what a burst did would last. And connections are not alike: of as many, one child's may rest and
//! another's may never do. So children compare their *load*, the worker rows that are held on average; only
//! where hardly any is held, the connections are counted. A child that is ahead lets others accept and take over, and
//! hands connections over, each when it is between two requests: so it is one of those that are used.
//!
//! * A connection holds one worker row at most. As many as there are whole workers above the average may go, and nobody
//!   falls below it by that. Less than a worker goes only where both ends come nearer to the average.
//! * The average is made over several times what a request takes, or chance would be taken for habit, and follows the
//!   work with a delay. What has gone and does not show yet is remembered, so that nothing is given twice.
//! * Where connections are many and each does little, as many as there are workers too much make no difference: once a
//!   gift shows, the next is made larger.
//! * Where there are more children than cores could run, what is spread over all of them costs a switch of process for
//!   each request, and gains nothing: connections stay together in *bunches*. A child that has no more than a bunch has
//!   too little to give, however little others have.
//! * While somebody is far ahead only those far below the average take over; another would have to pass it on. Somebody
//!   always takes.
//!
//! Decides; the steward looks, `handover` and the leader act.

use crate::scoreboard::row::Siblings;

/// A worker row that is held all the time: loads are counted in these parts of it.
pub const WORKER: u32 = 1 << 16;

/// Looks at the rows from one comparison with the siblings to the next; with a look every 8 ms, about 50 ms.
const LOOKS: u32 = 6;

/// How much of the load is replaced by what was seen since the last comparison, in 1024ths: at most, for an average over
/// about a quarter of a second, and at least.
const REPLACED: (i64, i64) = (196, 6);

/// An average is made over so many times what a request takes, if that is longer.
const REQUESTS: i64 = 4;

/// A burst goes on elsewhere when it has brought so many connections more than a child's share.
const BURST: u32 = 3;

/// Comparisons after which an average is what it will be.
const SETTLED: u32 = 9;

/// Comparisons for which a gift stands: connections go when they are between two requests.
const OPEN: u32 = 40;

/// Comparisons after which it is forgotten what a gift was worth: two seconds.
const FORGETS: u32 = 40;

/// Comparisons in a row after which what lies there is taken to lie for good: a fifth of a second.
const UNREAD: u32 = 4;

/// Comparisons for which nobody is believed then: ten seconds.
const WITHOUT: u32 = 200;

/// Children to a core that keep it busy, whatever each of them waits for.
const BUSY: u32 = 2;

/// How many connections, or worker rows held, stay together in one of `children`, each with `threads` workers, on so
/// many `cores`: 1 where there are not many to a core. Never more than a quarter of a child's workers, so that children
/// that have much to do share it evenly.
#[must_use]
pub fn bunch(children: u32, cores: u32, threads: u32) -> u32 {
    children.div_ceil(cores.saturating_mul(BUSY).max(1)).min(threads / 4).max(1)
}

/// What a child is to do until its next comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Advice {
    /// So many connections should go.
    pub give: u32,
    /// Connections of other children may come.
    pub takes: bool,
}

impl Advice {
    /// Of a child that has no reason to give, or to refuse.
    pub const NONE: Self = Self { give: 0, takes: true };
}

/// What a child knows of itself when it compares.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// Its open connections.
    pub connections: u32,
    /// Requests that it has answered so far.
    pub answered: u64,
    /// Connections that it has handed over so far.
    pub handed_over: u64,
    /// So many stay together, see [`bunch`].
    pub bunch: u32,
}

/// A child's load, and what it has given away of it.
#[derive(Clone, Copy, Debug)]
pub struct Balance {
    /// In parts of [`WORKER`].
    load: i64,
    /// What has gone and is in `load` still.
    gone: i64,
    /// What a connection that goes is taken to hold.
    weight: i64,
    /// The sum of the rows held, over so many looks.
    seen: (u64, u32),
    /// Rows held and requests answered lately, in parts: what a request takes is the one divided by the other.
    lately: (i64, i64),
    /// Comparisons that the average is made of.
    age: u32,
    /// Comparisons so far.
    clock: u32,
    gift: Gift,
    answered: u64,
    handed_over: u64,
    /// Loads are compared, not connections.
    by_load: bool,
}

/// What a child has begun to give because it was ahead.
#[derive(Clone, Copy, Debug, Default)]
struct Gift {
    /// At which comparison.
    clock: u32,
    /// How far ahead it was.
    ahead: i64,
    /// So many connections were to go.
    size: i64,
    /// Connections that have gone since.
    given: i64,
}

impl Default for Balance {
    fn default() -> Self {
        Self::new()
    }
}

impl Balance {
    /// Of a child that has done nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            load: 0,
            gone: 0,
            weight: i64::from(WORKER),
            seen: (0, 0),
            lately: (0, 0),
            age: 0,
            clock: 0,
            gift: Gift::default(),
            answered: 0,
            handed_over: 0,
            by_load: false,
        }
    }

    /// The worker rows that are held on average, in parts of [`WORKER`].
    #[must_use]
    pub fn load(&self) -> u32 {
        u32::try_from(self.load).unwrap_or(if self.load < 0 { 0 } else { u32::MAX })
    }

    /// So many rows are held now. Whether it is time to compare.
    pub fn look(&mut self, busy: u32) -> bool {
        self.seen = (self.seen.0 + u64::from(busy.min(1 << 20)), self.seen.1 + 1);
        self.seen.1 >= LOOKS
    }

    /// Nothing has happened for long, and `busy` rows are held: that is the load.
    pub fn rest(&mut self, busy: u32) {
        let (answered, handed_over) = (self.answered, self.handed_over);
        *self = Self { load: whole(busy), answered, handed_over, ..Self::new() };
    }

    /// Takes in what was seen since the last comparison, and compares.
    pub fn compare(&mut self, own: Own, siblings: &Siblings) -> Advice {
        self.follow(own);
        if siblings.count == 0 {
            return Advice::NONE;
        }
        let all = i64::from(siblings.count) + 1;
        let average = sum(siblings.load).saturating_add(self.load) / all;
        // At the border between the two ways connections must not go to and fro.
        let was_by_load = self.by_load;
        self.by_load = average >= whole(1) || (self.by_load && average >= whole(1) / 2);
        if self.by_load && !was_by_load {
            (self.weight, self.gift) = (whole(1), Gift::default());
        }
        let mut advice =
            if self.by_load { self.by_load(own, siblings, average) } else { self.by_count(own, siblings) };
        if siblings.takers == 0 {
            advice.takes = true;
            // Nobody would have it.
            advice.give = 0;
        }
        advice
    }

    fn follow(&mut self, own: Own) {
        self.age = self.age.saturating_add(1);
        self.clock = self.clock.saturating_add(1);
        let answered = sum(own.answered.saturating_sub(self.answered));
        self.answered = own.answered;
        let (rows, looks) = std::mem::take(&mut self.seen);
        let seen = if looks > 0 { sum(rows).saturating_mul(whole(1)) / i64::from(looks) } else { self.load };
        // Both fade alike: of a child that does nothing now it is known still what a request took.
        let fade = |was: i64, now: i64| was - was / 8 + now;
        self.lately = (fade(self.lately.0, seen), fade(self.lately.1, answered.saturating_mul(whole(1))));
        // A change that is no chance (four times what chance does to a sum of independent requests): what was before it
        // tells nothing of what comes.
        let change = (seen - self.load) / 256;
        if change.saturating_mul(change) > self.load.max(whole(1)).saturating_mul(16) {
            (self.age, self.gone) = (1, 0);
        }
        // In the beginning all that has been seen counts alike.
        let young = 1024 / i64::from(self.age);
        let (most, least) = (REPLACED.0.max(young), REPLACED.1.max(young));
        let (held, answered) = self.lately;
        let part = (answered.saturating_mul(1024) / (held * REQUESTS).max(1)).clamp(least, most);
        let part = if held == 0 { most } else { part };
        self.load += (seen - self.load) * part / 1024;
        let given = own.handed_over.saturating_sub(self.handed_over);
        self.handed_over = own.handed_over;
        // Whatever the row says: no overflow.
        let given = sum(given).min(1 << 20);
        self.gift.given = (self.gift.given + given).min(1 << 20);
        self.gone = (self.gone - self.gone * part / 1024 + given * self.weight).min(self.load);
    }

    fn by_load(&mut self, own: Own, siblings: &Siblings, average: i64) -> Advice {
        let one = whole(1);
        // Whoever has less than a bunch is as good as one that has it.
        let few = if own.bunch > 1 { whole(own.bunch) } else { 0 };
        let average = average.max(few);
        let (most, least) = (i64::from(siblings.most), i64::from(siblings.least).max(few));
        let ahead = self.load - self.gone - average;
        // Of an average over little time chance is larger.
        let is_young = self.age < SETTLED;
        let chance = if is_young { (average * one / i64::from(self.age)).isqrt() * 3 / 2 } else { 0 };
        let far = (one * 3 / 4).max(average / 8).max(few / 2).max(chance);
        let gap = one + average * 3 / 16;
        let wants = if ahead >= far {
            ahead
        } else if !is_young && self.load >= most && self.load - 2 * self.gone - least > gap {
            // Nobody is far above the average, but somebody is far below it: whoever has most gives. What has gone may
            // have gone there, and does not show there either.
            one
        } else {
            0
        };
        let give = self.next_gift(wants, self.load - average, own);
        let (top, bottom) = (most.max(self.load), least.min(self.load));
        let is_even = top - bottom <= gap && top - average < far;
        Advice { give, takes: is_even || self.load <= i64::midpoint(average, bottom) }
    }

    /// One gift at a time. Once it shows it is known what it was worth: where connections are many and each does little, as
    /// many as there are workers too much make no difference, and the next is larger.
    fn next_gift(&mut self, wants: i64, ahead: i64, own: Own) -> u32 {
        let gift = self.gift;
        let since = self.clock - gift.clock;
        let promised = gift.given * self.weight;
        if wants == 0 {
            return 0;
        }
        if since < OPEN && gift.given < gift.size {
            let size = (gift.size - gift.given).min((wants / self.weight).max(1));
            return u32::try_from(size).unwrap_or(u32::MAX).min(own.connections);
        }
        if since > FORGETS {
            self.weight = whole(1);
        } else if self.gone * 4 > promised {
            return 0;
        } else if promised >= whole(3) / 2 {
            let fell = gift.ahead - ahead;
            if fell * 2 < promised {
                // Not less than an even share of the load: more than all it could not give.
                let even = self.load / i64::from(own.connections.max(1));
                self.weight = (self.weight / 2).max(even).clamp(1, whole(1));
            } else if fell > promised {
                self.weight = (self.weight * 2).min(whole(1));
            }
        }
        let size = (wants / self.weight).clamp(1, i64::from(own.connections.max(1)));
        self.gift = Gift { clock: self.clock, ahead, size, given: 0 };
        u32::try_from(size).unwrap_or(u32::MAX).min(own.connections)
    }

    fn by_count(&mut self, own: Own, siblings: &Siblings) -> Advice {
        let give = surplus(own.connections, siblings.count, siblings.connections, own.bunch);
        self.weight = (self.load / i64::from(own.connections.max(1))).clamp(1, whole(1));
        Advice { give, takes: give == 0 }
    }
}

/// Whether those that say that they take over connections do so. One that stands still (stopped, or on its way out of
/// the world) says it for ever, and what is given lies there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trust {
    /// Comparisons in a row at which something lay there.
    unread: u32,
    /// Comparisons until it is tried again.
    without: u32,
}

impl Trust {
    /// `gifts_lie`: whether connections of children lie there at this comparison, and this child does not look for them.
    /// Whether siblings that say they take are to be believed until the next.
    pub fn compare(&mut self, gifts_lie: impl FnOnce() -> bool) -> bool {
        if let Some(less) = self.without.checked_sub(1) {
            self.without = less;
            return less == 0;
        }
        self.unread = if gifts_lie() { self.unread + 1 } else { 0 };
        if self.unread < UNREAD {
            return true;
        }
        *self = Self { unread: 0, without: WITHOUT };
        false
    }
}

/// Whether a child with so many connections and that load should let its siblings accept, in the middle of a burst: it has
/// more connections than its share (and than a [`bunch`]) by far, and not much less work.
#[must_use]
pub fn has_enough(connections: u32, load: u32, siblings: &Siblings, bunch: u32) -> bool {
    let all = u64::from(siblings.count) + 1;
    surplus(connections, siblings.count, siblings.connections, bunch) >= BURST
        && u64::from(load).saturating_mul(all) >= siblings.load.saturating_add(u64::from(load)) / 4 * 3
}

fn whole(workers: u32) -> i64 {
    i64::from(workers.min(1 << 20)) * i64::from(WORKER)
}

fn sum(count: u64) -> i64 {
    // Sums of what others have written: a board that makes no sense makes no overflow.
    i64::try_from(count).unwrap_or(i64::MAX).min(1 << 38)
}

/// How many connections a child with `mine` should give to its `siblings`, which have `theirs` together. 0 up to a
/// sixteenth (or half a [`bunch`]) above the average of all: below that, moving costs more than it mends. A bunch stays in
/// any case.
fn surplus(mine: u32, siblings: u32, theirs: u64, bunch: u32) -> u32 {
    if siblings == 0 {
        return 0;
    }
    let all = u64::from(mine).saturating_add(theirs);
    let average = all.div_ceil(u64::from(siblings) + 1).max(u64::from(bunch));
    let near = (average / 16).max(u64::from(bunch / 2));
    if u64::from(mine) <= average.saturating_add(near) {
        return 0;
    }
    u32::try_from(u64::from(mine).saturating_sub(average)).unwrap_or(mine)
}

#[cfg(test)]
mod tests;
