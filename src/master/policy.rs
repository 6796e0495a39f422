//! How many children: the spare arithmetic, as a function of numbers alone.
//!
//! Busy and idle count workers (rows), over the children of the current generation that are not leaving.
//! Below MinSpare children are forked in steps that double: at once where no worker is idle, else if it lasts.
//! Above MaxSpare they are sent away, unhurriedly.
//! The counting is the caller's, and so is the doing.

use crate::clock::Tick;
use crate::config::model::ChildLimits;
use std::time::Duration;

/// The longest that a step of growth waits for the children it forked; how long a shortage or a limit must last
/// until it counts, while some worker is idle (httpd looks once a second); the pause in which a new shortage still
/// counts as the same one; and the pause between two steps of retiring.
pub const STEP: Duration = Duration::from_secs(1);

/// How long MaxRequestWorkers must be out of reach before an episode counts as over, so that a load that
/// swings about the limit is told once.
const CALM: Duration = Duration::from_secs(10);

/// Most children that one step forks, whatever the pace.
const FASTEST: u32 = 32;

/// What the master counted, of the current generation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Census {
    /// Children that are not leaving, ready or not.
    pub active: u32,
    /// Those of them that are not ready yet; their workers count as idle, since they soon will be.
    pub starting: u32,
    /// Workers taken.
    pub busy: u32,
    /// Workers free.
    pub idle: u32,
    /// Slots of the scoreboard without a child.
    pub free_slots: u32,
}

/// The bounds that the configuration sets, in workers where not said otherwise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// `MinSpareThreads`, `MinSpareServers`.
    pub min_spare: u32,
    /// `MaxSpareThreads`, `MaxSpareServers`; at least `min_spare + threads_per_child`.
    pub max_spare: u32,
    /// Workers per child, at least 1.
    pub threads_per_child: u32,
    /// Most children, at least 1: MaxRequestWorkers / ThreadsPerChild.
    pub max_children: u32,
}

impl Limits {
    /// The bounds of a configuration.
    #[must_use]
    pub fn new(limits: &ChildLimits) -> Self {
        let threads_per_child = limits.threads_per_child.max(1);
        let max_children = (limits.max_request_workers / threads_per_child).max(1);
        let min_spare = limits.min_spare.clamp(1, max_children * threads_per_child);
        let max_spare = limits.max_spare.max(min_spare + threads_per_child);
        Self { min_spare, max_spare, threads_per_child, max_children }
    }

    /// Children needed for so many workers.
    fn children_for(&self, workers: u32) -> u32 {
        workers.div_ceil(self.threads_per_child)
    }

    /// Whether a child that died should be replaced at once: unless enough idle ones are left to keep a fresh
    /// one from being sent away again.
    #[must_use]
    pub fn wants_replacement(&self, census: &Census) -> bool {
        census.active < self.max_children && census.idle + self.threads_per_child <= self.max_spare
    }
}

/// Children in the course of being replaced because they have served their number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recycling {
    /// Heirs that start, and the old that finish what they have.
    pub changing: u32,
    /// The old that have nothing left but tunnels, which may last for ever.
    pub lingering: u32,
}

/// Whether one more child may be replaced because it has served its number: a tenth of them at a time, and at least one.
///
/// An old one that has nothing left but tunnels costs no capacity, and no one knows when it ends: it holds nobody up, as
/// long as there are slots for as many children as the load may ask for, and one for a reload, which is what would end
/// it. So with the next that `may_linger`, because it has tunnels now; it stays where it is until they are gone.
#[must_use]
pub fn may_recycle(census: &Census, limits: &Limits, recycling: Recycling, may_linger: bool) -> bool {
    let growth = limits.max_children.saturating_sub(census.active);
    let reserve = if recycling.lingering > 0 || may_linger { growth + 1 } else { 0 };
    recycling.changing < (census.active / 10).max(1) && census.free_slots > reserve
}

/// What to do now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// All is well, or nothing can be done.
    Nothing,
    /// Fork so many children.
    Fork(u32),
    /// Send so many away, the least busy ones.
    Retire(u32),
}

/// What the administrator should know, said when it begins and when it ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Report {
    /// Every worker is taken and no child may be added.
    LimitReached,
    /// Fewer than MinSpare workers are free and no child may be added.
    LimitNear,
    /// No longer, after so long.
    LimitLeft(Duration),
    /// Children are needed and allowed, but leaving ones hold every slot.
    NoSlot,
    /// There are slots again, after so long.
    SlotsAgain(Duration),
}

/// Shortage that forking cannot end, and what has been said of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Episode {
    /// Since when, with calm moments in between.
    since: Option<Tick>,
    /// When it last was so.
    last: Tick,
    /// Since when it has been so at each look.
    unbroken: Option<Tick>,
    /// Since when no worker has been idle at each look.
    full: Option<Tick>,
    said: bool,
    said_full: bool,
}

impl Episode {
    const NONE: Self =
        Self { since: None, last: Tick(0), unbroken: None, full: None, said: false, said_full: false };

    fn seen(&mut self, full: bool, now: Tick) {
        self.since.get_or_insert(now);
        self.last = now;
        self.unbroken.get_or_insert(now);
        if full {
            self.full.get_or_insert(now);
        } else {
            self.full = None;
        }
    }

    fn not_seen(&mut self) {
        self.unbroken = None;
        self.full = None;
    }

    /// When this episode has something to say, or ends.
    fn deadline(&self) -> Option<Tick> {
        let calm = self.since.map(|_| self.last.after(CALM));
        let full = self.full.filter(|_| !self.said_full).map(|since| since.after(STEP));
        let near = self.unbroken.filter(|_| !self.said && !self.said_full).map(|since| since.after(STEP));
        match self.unbroken {
            Some(_) => [full, near].into_iter().flatten().min(),
            None => calm,
        }
    }
}

/// What [`decide`] remembers from one time to the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pace {
    /// How many the next step may fork.
    rate: u32,
    /// When the step under way began; `None` between steps.
    step: Option<Tick>,
    /// When the last step ended.
    ended: Option<Tick>,
    /// Since when there has been a shortage at each look.
    short: Option<Tick>,
    /// Since when there is a surplus, or when one was last acted upon.
    surplus: Option<Tick>,
    limit: Episode,
    slots: Episode,
}

impl Pace {
    /// At rest.
    pub const SLOW: Self = Self {
        rate: 1,
        step: None,
        ended: None,
        short: None,
        surplus: None,
        limit: Episode::NONE,
        slots: Episode::NONE,
    };
}

/// A decision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// What to say.
    pub report: Option<Report>,
    /// When to ask again although nothing has happened; `None`: whenever something does.
    pub again: Option<Tick>,
}

/// What to do about this census, and the pace from here on.
#[must_use]
pub fn decide(census: &Census, limits: &Limits, pace: Pace, now: Tick) -> (Decision, Pace) {
    let mut pace = pace;
    if pace.step.is_some_and(|begin| census.starting == 0 || begin.after(STEP) <= now) {
        pace.step = None;
        pace.ended = Some(now);
    }
    let (mut action, mut blocked) = (Action::Nothing, None);
    if census.idle > limits.max_spare {
        pace.short = None;
        action = retire(census, limits, &mut pace, now);
    } else {
        pace.surplus = None;
        if census.idle < limits.min_spare || census.active == 0 {
            pace.short.get_or_insert(now);
            (action, blocked) = grow(census, limits, &mut pace, now);
        } else {
            pace.short = None;
        }
    }
    let report = tell(census, blocked, &mut pace, now);
    let forks_at = pace.short.filter(|_| blocked.is_none()).map(|since| match pace.step {
        Some(begin) => begin.after(STEP),
        None => since.after(STEP),
    });
    let step_ends = pace.step.map(|begin| begin.after(STEP));
    // Nobody is sent away while others are still starting.
    let retires_at = pace.surplus.map(|since| since.max(pace.step.unwrap_or(since)).after(STEP));
    let deadlines = [forks_at, step_ends, retires_at, pace.limit.deadline(), pace.slots.deadline()];
    // One that has come and could not be used must not spin.
    let again = deadlines.into_iter().flatten().min().map(|at| at.max(Tick(now.0 + 1)));
    (Decision { action, report, again }, pace)
}

/// Why a shortage can't be met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Blocked {
    Limit,
    Slots,
}

fn grow(census: &Census, limits: &Limits, pace: &mut Pace, now: Tick) -> (Action, Option<Blocked>) {
    let allowed = limits.max_children.saturating_sub(census.active);
    if allowed == 0 {
        return (Action::Nothing, Some(Blocked::Limit));
    }
    if census.free_slots == 0 {
        return (Action::Nothing, Some(Blocked::Slots));
    }
    if pace.step.is_some() {
        return (Action::Nothing, None);
    }
    let is_same = pace.ended.is_some_and(|ended| now <= ended.after(STEP));
    let lasts = pace.short.is_some_and(|since| since.after(STEP) <= now);
    if census.idle > 0 && !is_same && !lasts {
        return (Action::Nothing, None);
    }
    if !is_same {
        pace.rate = 1;
    }
    let mut count = pace.rate.min(census.free_slots).min(allowed);
    if census.idle > 0 {
        count = count.min(limits.children_for(limits.min_spare.saturating_sub(census.idle)).max(1));
    }
    pace.rate = pace.rate.saturating_mul(2).min(FASTEST);
    pace.step = Some(now);
    (Action::Fork(count), None)
}

fn retire(census: &Census, limits: &Limits, pace: &mut Pace, now: Tick) -> Action {
    let since = *pace.surplus.get_or_insert(now);
    if now < since.after(STEP) || pace.step.is_some() {
        return Action::Nothing;
    }
    let surplus = limits.children_for(census.idle - limits.max_spare);
    // Each that goes takes at most all its workers out of the idle ones.
    let spared = census.idle.saturating_sub(limits.min_spare) / limits.threads_per_child;
    let quarter = (census.active / 4).max(1);
    let others = census.active.saturating_sub(1);
    match surplus.min(spared).min(quarter).min(others) {
        0 => Action::Nothing,
        count => {
            pace.surplus = Some(now);
            Action::Retire(count)
        }
    }
}

fn tell(census: &Census, blocked: Option<Blocked>, pace: &mut Pace, now: Tick) -> Option<Report> {
    for (episode, kind) in [(&mut pace.limit, Blocked::Limit), (&mut pace.slots, Blocked::Slots)] {
        if blocked != Some(kind) {
            episode.not_seen();
            continue;
        }
        episode.seen(census.idle == 0, now);
        let lasts = |since: Option<Tick>| since.is_some_and(|since| since.after(STEP) <= now);
        match kind {
            Blocked::Limit if lasts(episode.full) && !episode.said_full => {
                episode.said_full = true;
                return Some(Report::LimitReached);
            }
            Blocked::Limit if lasts(episode.unbroken) && !episode.said && !episode.said_full => {
                episode.said = true;
                return Some(Report::LimitNear);
            }
            Blocked::Slots if lasts(episode.unbroken) && !episode.said => {
                episode.said = true;
                return Some(Report::NoSlot);
            }
            Blocked::Limit | Blocked::Slots => {}
        }
    }
    for (episode, left) in [
        (&mut pace.limit, Report::LimitLeft as fn(Duration) -> Report),
        (&mut pace.slots, Report::SlotsAgain as fn(Duration) -> Report),
    ] {
        let over = episode.unbroken.is_none() && episode.last.after(CALM) <= now;
        if let Some(since) = episode.since.filter(|_| over) {
            let (lasted, was_said) = (episode.last.until(since), episode.said || episode.said_full);
            *episode = Episode::NONE;
            if was_said {
                return Some(left(lasted));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { min_spare: 25, max_spare: 75, threads_per_child: 25, max_children: 6 };

    fn census(active: u32, starting: u32, busy: u32) -> Census {
        let idle = active * 25 - busy;
        Census { active, starting, busy, idle, free_slots: 12 - active }
    }

    fn ask(census: &Census, pace: &mut Pace, now: u64) -> Action {
        let (decision, next) = decide(census, &LIMITS, *pace, Tick(now));
        *pace = next;
        decision.action
    }

    #[test]
    fn one_look_at_a_pool_at_rest() {
        let many = Limits { min_spare: 75, max_spare: 250, threads_per_child: 25, max_children: 16 };
        let prefork = Limits { min_spare: 5, max_spare: 10, threads_per_child: 1, max_children: 256 };
        for (limits, active, idle, free_slots, want, why) in [
            (&LIMITS, 2, 50, 10, Action::Nothing, "within the band"),
            (&LIMITS, 2, 25, 10, Action::Nothing, "exactly MinSpare"),
            (&LIMITS, 2, 24, 10, Action::Nothing, "one below MinSpare: not at first sight"),
            (&LIMITS, 2, 0, 10, Action::Fork(1), "no idle one: the pace alone counts"),
            (&LIMITS, 6, 0, 6, Action::Nothing, "at MaxRequestWorkers"),
            (&LIMITS, 2, 0, 0, Action::Nothing, "no slot"),
            (&LIMITS, 0, 0, 12, Action::Fork(1), "nobody at all"),
            (&LIMITS, 4, 76, 8, Action::Nothing, "a surplus is not acted on at first sight"),
            (&many, 16, 0, 16, Action::Nothing, "full"),
            (&prefork, 5, 0, 500, Action::Fork(1), "prefork counts children"),
        ] {
            let busy = active * limits.threads_per_child - idle;
            let census = Census { active, starting: 0, busy, idle, free_slots };
            assert_eq!(decide(&census, limits, Pace::SLOW, Tick(9)).0.action, want, "{why}");
        }
    }

    #[test]
    fn a_tenth_may_be_replaced_at_a_time_and_tunnels_hold_nobody_up() {
        for (most, active, changing, lingering, free_slots, want, why) in [
            (20, 1, 0, 0, 1, true, "at least one"),
            (20, 1, 1, 0, 5, false, "one at a time"),
            (20, 19, 1, 0, 9, false, "a tenth of 19 is one"),
            (20, 20, 1, 0, 9, true, "a tenth of 20 is two"),
            (20, 20, 2, 0, 9, false, "and not three"),
            (2, 2, 0, 0, 0, false, "no slot"),
            (2, 2, 0, 0, 1, true, "the last slot, for a moment"),
            (2, 2, 0, 1, 2, true, "an old one with tunnels does not count"),
            (2, 2, 0, 7, 2, true, "however many"),
            (2, 2, 0, 1, 1, false, "but one slot is left for a reload"),
            (2, 2, 1, 1, 9, false, "nor does it make room for more"),
            (2, 1, 0, 1, 2, false, "and one for each child that the load may ask for"),
            (2, 1, 0, 1, 3, true, "which there is here"),
            (16, 3, 0, 1, 14, false, "thirteen and a reload"),
            (16, 3, 0, 1, 15, true, "and the heir"),
            (1, 2, 0, 1, 2, true, "more than there may be, for a moment"),
        ] {
            let census = Census { active, starting: 0, busy: 0, idle: 0, free_slots };
            let limits = Limits { max_children: most, ..LIMITS };
            let recycling = Recycling { changing, lingering };
            assert_eq!(may_recycle(&census, &limits, recycling, false), want, "{why}");
            let one_more = Recycling { changing, lingering: lingering.max(1) };
            let same = may_recycle(&census, &limits, one_more, false);
            assert_eq!(may_recycle(&census, &limits, recycling, true), same, "{why}; it may be the first");
        }
    }

    #[test]
    fn a_dip_below_min_spare_forks_nobody_unless_it_lasts_or_none_is_idle() {
        let mut pace = Pace::SLOW;
        assert_eq!(ask(&census(2, 0, 26), &mut pace, 0), Action::Nothing);
        assert_eq!(ask(&census(2, 0, 20), &mut pace, 900), Action::Nothing);
        assert_eq!(ask(&census(2, 0, 26), &mut pace, 950), Action::Nothing, "a new dip");
        assert_eq!(ask(&census(2, 0, 49), &mut pace, 1949), Action::Nothing);
        assert_eq!(ask(&census(2, 0, 26), &mut pace, 1950), Action::Fork(1), "it has lasted a second");
        let mut pace = Pace::SLOW;
        assert_eq!(ask(&census(2, 0, 49), &mut pace, 0), Action::Nothing);
        assert_eq!(ask(&census(2, 0, 50), &mut pace, 1), Action::Fork(1), "none is idle");
    }

    #[test]
    fn steps_double_while_the_shortage_lasts_and_need_caps_them() {
        let limits = Limits { min_spare: 75, max_spare: 250, threads_per_child: 25, max_children: 100 };
        let mut pace = Pace::SLOW;
        let mut active = 3;
        let mut forked = Vec::new();
        for turn in 0..6 {
            let census = Census { active, starting: 0, busy: active * 25, idle: 0, free_slots: 200 - active };
            let (decision, next) = decide(&census, &limits, pace, Tick(turn * 5));
            pace = next;
            let Action::Fork(count) = decision.action else { panic!("{decision:?}") };
            forked.push(count);
            active += count;
        }
        assert_eq!(forked, [1, 2, 4, 8, 16, 32]);
        let census = Census { active, starting: 0, busy: active * 25 - 1, idle: 1, free_slots: 100 };
        let (decision, _) = decide(&census, &limits, pace, Tick(30));
        assert_eq!(decision.action, Action::Fork(3), "74 workers are missing, which 3 children make good");
    }

    #[test]
    fn a_step_ends_when_its_children_are_ready_or_after_a_second() {
        let mut pace = Pace::SLOW;
        assert_eq!(ask(&census(2, 0, 50), &mut pace, 0), Action::Fork(1));
        let waiting = Census { idle: 0, busy: 75, ..census(3, 1, 75) };
        assert_eq!(ask(&waiting, &mut pace, 10), Action::Nothing, "one is still starting");
        assert_eq!(ask(&census(3, 0, 75), &mut pace, 20), Action::Fork(2), "ready, and full again");
        let waiting = Census { idle: 0, busy: 125, ..census(5, 2, 125) };
        assert_eq!(ask(&waiting, &mut pace, 900), Action::Nothing);
        assert_eq!(ask(&waiting, &mut pace, 1020), Action::Fork(1), "a second is long enough; one is left");
    }

    #[test]
    fn the_pace_survives_a_moment_in_the_band_but_not_a_second() {
        let mut pace = Pace::SLOW;
        assert_eq!(ask(&census(2, 0, 50), &mut pace, 0), Action::Fork(1));
        assert_eq!(ask(&census(3, 0, 50), &mut pace, 5), Action::Nothing, "ready, not yet taken");
        assert_eq!(ask(&census(3, 0, 75), &mut pace, 300), Action::Fork(2), "the same rush");
        assert_eq!(ask(&census(5, 0, 100), &mut pace, 310), Action::Nothing);
        assert_eq!(ask(&census(5, 0, 125), &mut pace, 1311), Action::Fork(1), "a new one");
    }

    #[test]
    fn a_surplus_goes_by_steps_a_second_apart() {
        let limits = Limits { min_spare: 25, max_spare: 75, threads_per_child: 25, max_children: 40 };
        let mut pace = Pace::SLOW;
        let mut look = |active: u32, idle: u32, now: u64| {
            let census = Census { active, starting: 0, busy: active * 25 - idle, idle, free_slots: 40 };
            let (decision, next) = decide(&census, &limits, pace, Tick(now));
            pace = next;
            decision.action
        };
        assert_eq!(look(40, 1000, 0), Action::Nothing);
        assert_eq!(look(40, 1000, 999), Action::Nothing);
        assert_eq!(look(40, 1000, 1000), Action::Retire(10), "a quarter");
        assert_eq!(look(30, 750, 1001), Action::Nothing);
        assert_eq!(look(30, 750, 2000), Action::Retire(7));
        assert_eq!(look(4, 76, 3000), Action::Retire(1), "one worker too many is one too many");
        assert_eq!(look(3, 75, 3500), Action::Nothing);
        assert_eq!(look(4, 76, 4000), Action::Nothing, "the band was reached in between");
        assert_eq!(look(4, 76, 5000), Action::Retire(1));
    }

    #[test]
    fn a_surplus_that_must_wait_for_a_step_is_not_asked_about_in_vain() {
        let mut pace = Pace::SLOW;
        assert_eq!(ask(&census(2, 0, 50), &mut pace, 0), Action::Fork(1));
        let surplus = Census { active: 5, starting: 1, busy: 0, idle: 125, free_slots: 7 };
        for (now, again) in [(10, 1_000), (500, 1_000), (999, 1_000)] {
            let (decision, next) = decide(&surplus, &LIMITS, pace, Tick(now));
            pace = next;
            assert_eq!((decision.action, decision.again), (Action::Nothing, Some(Tick(again))));
        }
        assert_eq!(ask(&surplus, &mut pace, 1_010), Action::Retire(1));
    }

    #[test]
    fn the_limit_is_told_once_an_episode() {
        let mut pace = Pace::SLOW;
        let mut look = |busy: u32, now: u64| {
            let (decision, next) = decide(&census(6, 0, busy), &LIMITS, pace, Tick(now));
            pace = next;
            decision.report
        };
        assert_eq!(look(100, 0), None);
        assert_eq!(look(130, 100), None, "not at first sight");
        assert_eq!(look(140, 1_099), None);
        assert_eq!(look(140, 1_100), Some(Report::LimitNear));
        assert_eq!(look(150, 1_300), None);
        assert_eq!(look(150, 2_299), None);
        assert_eq!(look(150, 2_300), Some(Report::LimitReached));
        assert_eq!(look(149, 2_400), None);
        assert_eq!(look(150, 2_500), None);
        assert_eq!(look(150, 9_500), None);
        assert_eq!(look(100, 9_600), None, "a dip is no end");
        assert_eq!(look(150, 12_000), None);
        assert_eq!(look(80, 13_000), None);
        assert_eq!(look(80, 22_000), Some(Report::LimitLeft(Duration::from_millis(11_900))));
        assert_eq!(look(150, 30_000), None);
        assert_eq!(look(150, 31_000), Some(Report::LimitReached), "a new episode, straight to the limit");
    }

    #[test]
    fn a_limit_that_was_only_touched_is_not_told() {
        let mut pace = Pace::SLOW;
        for now in (0..100_000).step_by(700) {
            let busy = if now % 1400 == 0 { 150 } else { 80 };
            let (decision, next) = decide(&census(6, 0, busy), &LIMITS, pace, Tick(now));
            pace = next;
            assert_eq!(decision.report, None, "{now}");
        }
    }

    #[test]
    fn a_scoreboard_without_room_is_told_once() {
        let mut pace = Pace::SLOW;
        let mut look = |free_slots: u32, busy: u32, now: u64| {
            let census = Census { free_slots, ..census(4, 0, busy) };
            let (decision, next) = decide(&census, &LIMITS, pace, Tick(now));
            pace = next;
            (decision.action, decision.report)
        };
        assert_eq!(look(0, 100, 0), (Action::Nothing, None));
        assert_eq!(look(0, 100, 1_000), (Action::Nothing, Some(Report::NoSlot)));
        assert_eq!(look(0, 100, 1_050), (Action::Nothing, None));
        assert_eq!(look(1, 100, 1_100), (Action::Fork(1), None));
        let again = Report::SlotsAgain(Duration::from_millis(1_050));
        assert_eq!(look(1, 50, 11_050), (Action::Nothing, Some(again)));
    }

    #[test]
    fn at_rest_nobody_asks_again() {
        let (decision, pace) = decide(&census(2, 0, 0), &LIMITS, Pace::SLOW, Tick(5));
        assert_eq!(decision, Decision { action: Action::Nothing, report: None, again: None });
        assert_eq!(pace, Pace::SLOW);
        let (decision, _) = decide(&census(2, 0, 50), &LIMITS, Pace::SLOW, Tick(5));
        assert_eq!(decision.again, Some(Tick(1005)), "the end of the step");
    }

    #[test]
    fn the_references_growth_from_one_child_takes_steps_of_one_two_and_four() {
        // Its vector 6: StartServers 1, MinSpare 200, MaxSpare 250, ThreadsPerChild 25, MaxRequestWorkers 400.
        let limits = Limits { min_spare: 200, max_spare: 250, threads_per_child: 25, max_children: 16 };
        let (mut pace, mut now, mut active, mut forked) = (Pace::SLOW, 0, 1, Vec::new());
        loop {
            let census = Census { active, starting: 0, busy: 0, idle: active * 25, free_slots: 32 - active };
            let (decision, next) = decide(&census, &limits, pace, Tick(now));
            pace = next;
            match decision.action {
                Action::Fork(count) => {
                    forked.push((now, count));
                    active += count;
                    // They get ready 20 ms later.
                    now += 20;
                }
                _ => match decision.again {
                    Some(again) => now = again.0,
                    None => break,
                },
            }
        }
        assert_eq!((active, limits.children_for(200)), (8, 8), "200 idle workers");
        assert_eq!(forked, [(1_000, 1), (1_020, 2), (1_040, 4)], "httpd takes a second for each step");
        assert_eq!(pace.rate, 8, "the rate is forgotten with the shortage");
        let census = Census { active: 8, starting: 0, busy: 200, idle: 0, free_slots: 24 };
        assert_eq!(decide(&census, &limits, pace, Tick(60_000)).0.action, Action::Fork(1), "back to one");
    }

    #[test]
    fn who_is_replaced() {
        assert!(LIMITS.wants_replacement(&census(2, 0, 0)), "2 idle of 25 and a third are no surplus");
        assert!(!LIMITS.wants_replacement(&census(3, 0, 0)), "a fourth would be sent away again");
        assert!(!LIMITS.wants_replacement(&census(6, 0, 150)), "the limit holds");
    }

    fn any_limits() -> impl Strategy<Value = Limits> {
        (1..=64u32, 1..=64u32, 1..=200u32, 0..=200u32).prop_map(|(threads, children, min, above)| {
            let min_spare = min.min(threads * children);
            Limits {
                min_spare,
                max_spare: min_spare + threads + above,
                threads_per_child: threads,
                max_children: children,
            }
        })
    }

    proptest! {
        /// Whatever happens: never more than is vacant or allowed, never below MinSpare, and at rest by itself.
        #[test]
        fn the_laws_hold_over_any_history(
            limits in any_limits(),
            slots in 1..=128u32,
            history in prop::collection::vec((0..=100u32, any::<bool>(), 0..=1500u64), 1..80),
        ) {
            let mut pace = Pace::SLOW;
            let (mut active, mut starting, mut now) = (0u32, 0u32, 0u64);
            let mut forked_last: Option<u32> = None;
            for (load, ready, passed) in history {
                now += passed;
                if ready { starting = 0; }
                let workers = active * limits.threads_per_child;
                let usable = (active - starting) * limits.threads_per_child;
                let busy = usable * load / 100;
                let idle = workers - busy;
                let census = Census {
                    active, starting, busy, idle, free_slots: slots.saturating_sub(active),
                };
                let (decision, next) = decide(&census, &limits, pace, Tick(now));
                pace = next;
                match decision.action {
                    Action::Fork(count) => {
                        prop_assert!(count >= 1);
                        prop_assert!(count <= census.free_slots);
                        prop_assert!(active + count <= limits.max_children);
                        prop_assert!(idle < limits.min_spare || active == 0);
                        let doubled = forked_last.map_or(1, |last| last * 2);
                        prop_assert!(count <= doubled.max(1), "{count} after {forked_last:?}");
                        if idle > 0 {
                            let missing = limits.min_spare - idle;
                            prop_assert!((count - 1) * limits.threads_per_child < missing);
                        }
                        // A step that was capped still doubles the pace.
                        forked_last = Some(forked_last.map_or(1, |last| (last * 2).min(32)));
                        active += count;
                        starting += count;
                    }
                    Action::Retire(count) => {
                        prop_assert!(count >= 1 && count < active);
                        prop_assert!(count <= (active / 4).max(1));
                        prop_assert!(idle > limits.max_spare);
                        prop_assert!(idle - count * limits.threads_per_child >= limits.min_spare);
                        active -= count;
                        starting = starting.min(active);
                    }
                    Action::Nothing => {
                        let can = active < limits.max_children && census.free_slots > 0;
                        if idle == 0 && can {
                            prop_assert!(starting > 0, "when none is idle, only a step is waited for");
                        }
                        if idle < limits.min_spare && can {
                            let again = decision.again.expect("a shortage is looked at again");
                            prop_assert!(again.0 <= now + 1_000);
                        }
                    }
                }
                if let Some(again) = decision.again {
                    prop_assert!(again.0 > now, "a deadline that has passed would spin");
                }
            }
        }

        /// Under full load the pool reaches MaxRequestWorkers in about as many steps as the limit has bits.
        #[test]
        fn a_rush_reaches_the_limit_in_logarithmic_steps(limits in any_limits()) {
            let mut pace = Pace::SLOW;
            let (mut active, mut steps) = (0, 0u32);
            while active < limits.max_children {
                let busy = active * limits.threads_per_child;
                let census = Census { active, starting: 0, busy, idle: 0, free_slots: 128 };
                let (decision, next) = decide(&census, &limits, pace, Tick(u64::from(steps)));
                pace = next;
                let Action::Fork(count) = decision.action else { panic!("{decision:?}") };
                active += count;
                steps += 1;
            }
            prop_assert!(steps <= limits.max_children.ilog2() + 2 + limits.max_children / 32, "{steps}");
        }
    }
}
