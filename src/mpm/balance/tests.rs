//! The rule by table and by property, and children of a small world that live by it.

use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[test]
fn of_connections_what_is_far_above_the_average_goes() {
    for (mine, siblings, theirs, want) in [
        (100, 0, 0, 0),
        (1, 3, 0, 0),
        (2, 3, 0, 1),
        (2, 3, 3, 0),
        (3, 3, 0, 2),
        (16, 3, 48, 0),
        (17, 3, 47, 0),
        (18, 3, 46, 2),
        (64, 3, 0, 48),
        (4, 1, 4, 0),
        (1000, 1, 900, 0),
        (1100, 1, 800, 150),
        (5, u32::MAX, u64::MAX, 0),
    ] {
        assert_eq!(surplus(mine, siblings, theirs, 1), want, "{mine} beside {theirs} of {siblings}");
    }
}

#[test]
fn where_children_are_many_to_a_core_a_bunch_stays_together() {
    // Children, cores and workers of a child.
    for (children, cores, threads, want) in [
        (1, 1, 25, 1),
        (2, 1, 25, 1),
        (3, 1, 25, 2),
        (4, 2, 25, 1),
        (16, 2, 25, 4),
        (16, 1, 64, 8),
        (128, 1, 25, 6),
        (128, 1, 1000, 64),
        (128, 64, 25, 1),
        (128, 1, 3, 1),
        (0, 0, 0, 1),
        (u32::MAX, u32::MAX, u32::MAX, 1),
    ] {
        assert_eq!(bunch(children, cores, threads), want, "{children}, {cores}, {threads}");
    }
    // Connections of ours and of three siblings together.
    for (mine, theirs, want) in [(4, 0, 0), (6, 0, 0), (7, 0, 3), (64, 0, 48), (18, 46, 0), (19, 45, 3)] {
        assert_eq!(surplus(mine, 3, theirs, 4), want, "{mine} beside {theirs}");
    }
    // Own load and those of three siblings in half workers; what is given, and whether others may give to us.
    for (mine, theirs, give, takes) in [
        (8, [0, 0, 0], 0, true),
        (10, [0, 0, 0], 0, true),
        (12, [0, 0, 0], 2, false),
        (0, [12, 0, 0], 0, true),
        // Those that have their bunch take no more while somebody has less.
        (10, [12, 0, 0], 0, false),
        (6, [12, 10, 10], 0, true),
        // More than that all have: as if there were no bunches.
        (32, [16, 16, 16], 6, false),
        (16, [32, 16, 16], 0, true),
    ] {
        let theirs = theirs.map(halves);
        let mut balance = at(halves(mine));
        balance.by_load = true;
        let advice = balance.compare(Own { bunch: 4, ..OWN }, &siblings(&theirs, 32, 2));
        assert_eq!(advice, Advice { give, takes }, "{mine} beside {theirs:?}");
    }
}

fn siblings(loads: &[u32], connections: u64, takers: u32) -> Siblings {
    Siblings {
        count: u32::try_from(loads.len()).expect("few"),
        connections,
        load: loads.iter().map(|load| u64::from(*load)).sum(),
        most: loads.iter().copied().max().unwrap_or(0),
        least: loads.iter().copied().min().unwrap_or(0),
        takers,
    }
}

/// Halves of a worker.
fn halves(count: u32) -> u32 {
    count * (WORKER / 2)
}

fn at(load: u32) -> Balance {
    let mut balance = Balance { load: i64::from(load), ..Balance::new() };
    balance.age = 100;
    balance
}

const OWN: Own = Own { connections: 16, answered: 0, handed_over: 0, bunch: 1 };

#[test]
fn of_loads_whole_workers_above_the_average_go_and_whoever_is_far_below_takes() {
    // Own load and those of three siblings in half workers; what is given, and whether others may give to us.
    for (mine, theirs, give, takes) in [
        (16, [16, 16, 16], 0, true),
        (17, [16, 16, 15], 0, true),
        (18, [16, 16, 14], 1, false),
        (24, [16, 16, 8], 4, false),
        (8, [16, 16, 24], 0, true),
        (16, [8, 16, 24], 0, false),
        (32, [0, 0, 0], 12, false),
        // Nobody is a worker above the average, but one is far below it.
        (17, [16, 16, 10], 1, false),
        (16, [17, 16, 10], 0, false),
        (10, [17, 16, 16], 0, true),
        // Hardly anybody holds a row: connections count.
        (2, [0, 0, 0], 4, false),
    ] {
        let theirs = theirs.map(halves);
        let advice = at(halves(mine)).compare(OWN, &siblings(&theirs, 32, 2));
        assert_eq!(advice, Advice { give, takes }, "{mine} beside {theirs:?}");
    }
}

#[test]
fn where_nobody_takes_nobody_gives_and_everybody_takes() {
    let advice = at(halves(24)).compare(OWN, &siblings(&[halves(4)], 16, 0));
    assert_eq!(advice, Advice { give: 0, takes: true });
    assert_eq!(at(halves(24)).compare(OWN, &siblings(&[], 0, 0)), Advice { give: 0, takes: true });
}

#[test]
fn whoever_lets_gifts_lie_is_not_believed_for_a_while() {
    let mut trust = Trust::default();
    let mut believed = |lie: bool, times: u32| (0..times).filter(|_| trust.compare(|| lie)).count();
    assert_eq!(believed(true, UNREAD - 1), UNREAD as usize - 1, "it may only be slow");
    assert_eq!(believed(false, 1), 1);
    assert_eq!(believed(true, UNREAD), UNREAD as usize - 1);
    assert_eq!(believed(false, WITHOUT - 1), 0, "whatever lies there");
    assert_eq!(believed(true, UNREAD), UNREAD as usize, "it is tried again");
    assert_eq!(believed(true, 1), 0);
}

#[test]
fn what_has_gone_is_not_given_again_before_it_shows() {
    let mut balance = at(halves(24));
    let beside = siblings(&[halves(8)], 16, 1);
    assert_eq!(balance.compare(OWN, &beside).give, 4);
    let gone = Own { handed_over: 4, ..OWN };
    assert_eq!(balance.compare(gone, &beside).give, 0);
}

#[test]
fn in_a_burst_whoever_has_far_more_connections_and_not_much_less_work_has_enough() {
    // Connections and load, those of three siblings together.
    for (connections, load, theirs, loads, want) in [
        (1, 0, 0, [0, 0, 0], false),
        (4, 0, 0, [0, 0, 0], true),
        (18, 0, 48, [0, 0, 0], false),
        (22, 0, 48, [0, 0, 0], true),
        (1000, 8, 48, [8, 8, 8], true),
        (1000, 6, 48, [8, 8, 8], true),
        (1000, 5, 48, [8, 8, 8], false),
        (1000, u32::MAX, u64::MAX, [u32::MAX; 3], false),
    ] {
        assert_eq!(
            has_enough(connections, load, &siblings(&loads, theirs, 3), 1),
            want,
            "{connections}, {load}"
        );
    }
    assert!(!has_enough(1000, 8, &siblings(&[], 0, 0), 1), "it is alone");
    let alone_busy = |bunch| has_enough(20, 8, &siblings(&[8], 0, 1), bunch);
    assert!(alone_busy(7) && !alone_busy(18));
}

#[test]
fn a_load_is_an_average_over_requests_not_over_chance() {
    let mut quick = Balance::new();
    let mut slow = Balance::new();
    let mut answered = 0;
    for balance in [&mut quick, &mut slow] {
        (0..LOOKS).for_each(|_| _ = balance.look(4));
        balance.compare(OWN, &siblings(&[], 0, 0));
        assert_eq!(balance.load(), 4 * WORKER, "all that is known yet");
    }
    for _ in 0..50 {
        for balance in [&mut quick, &mut slow] {
            assert!((1..LOOKS).all(|_| !balance.look(8)) && balance.look(8), "every {LOOKS} looks");
        }
        answered += 40;
        quick.compare(Own { answered, ..OWN }, &siblings(&[], 0, 0));
        slow.compare(OWN, &siblings(&[], 0, 0));
    }
    assert!(quick.load() > 7 * WORKER + WORKER / 2, "{}", quick.load());
    assert!((5 * WORKER..8 * WORKER).contains(&slow.load()), "{}", slow.load());
    // Nothing is held any more: of short requests that tells at once, of long ones it may be chance.
    let before = (quick.load(), slow.load());
    for balance in [&mut quick, &mut slow] {
        for _ in 0..10 {
            (0..LOOKS).for_each(|_| _ = balance.look(0));
            balance.compare(Own { answered: balance.answered, ..OWN }, &siblings(&[], 0, 0));
        }
    }
    assert!(quick.load() < before.0 / 4 && slow.load() > before.1 / 2, "{} {}", quick.load(), slow.load());
    slow.rest(2);
    assert_eq!(slow.load(), 2 * WORKER);
}

proptest! {
    #[test]
    fn nobody_gives_what_would_put_it_below_the_average_and_somebody_always_takes(
        loads in proptest::collection::vec(0_u32..200 * WORKER, 2..40),
        connections in 0_u32..100_000,
        bunch in 1_u32..40,
    ) {
        let all: i64 = loads.iter().map(|load| i64::from(*load)).sum();
        let average = all / loads.len() as i64;
        let mut takers = 0;
        for (place, load) in loads.iter().enumerate() {
            let mut others = loads.clone();
            others.remove(place);
            let own = Own { connections, answered: 0, handed_over: 0, bunch };
            let mut balance = at(*load);
            let advice = balance.compare(own, &siblings(&others, u64::from(connections) * others.len() as u64, 1));
            takers += u32::from(advice.takes);
            let after = i64::from(*load) - i64::from(advice.give) * whole(1);
            // The one connection of somebody who is less than a worker ahead may hold a whole one.
            prop_assert!(advice.give == 0 || after >= average - 1 || (advice.give == 1 && i64::from(*load) >= average));
            prop_assert!(advice.give == 0 || !advice.takes, "{advice:?} gives to itself");
        }
        prop_assert!(takers > 0);
    }

    #[test]
    fn numbers_without_sense_do_no_harm(
        (load, sum, connections, theirs) in any::<(u32, u64, u32, u64)>(),
        (most, least, takers, count) in any::<(u32, u32, u32, u32)>(),
        (answered, handed_over, busy, bunch) in any::<(u64, u64, u32, u32)>(),
    ) {
        let siblings = Siblings { count, connections: theirs, load: sum, most, least, takers };
        let mut balance = at(load);
        for _ in 0..3 {
            balance.look(busy);
            let advice = balance.compare(Own { connections, answered, handed_over, bunch }, &siblings);
            prop_assert!(advice.give <= connections);
        }
    }
}

/// A generator whose numbers are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }

    /// Microseconds to the next of `rate` events a second.
    fn gap(&mut self, rate: f64) -> u64 {
        let chance = (self.below(1 << 30) as f64 + 1.0) / f64::from(1 << 30);
        (-chance.ln() * 1e6 / rate) as u64
    }
}

/// Whose turn it is to ask: the client that has answered last, as a pool of connections does it, or anyone.
#[derive(Clone, Copy, Debug)]
enum Choice {
    LastFirst,
    Anyone,
}

#[derive(Clone, Copy, Debug)]
struct World {
    children: usize,
    clients: usize,
    choice: Choice,
    /// All begin at the first so many children.
    first: usize,
    /// Requests a second.
    rate: f64,
    /// Microseconds.
    takes: u64,
    seconds: u64,
    bunch: u32,
}

struct Lives {
    /// Row-seconds of each child in the second half.
    busy: Vec<u64>,
    /// Moves in the first half and the second.
    moves: [u32; 2],
    /// Connections that nobody took.
    nobody: u32,
}

impl Lives {
    /// How far the child that is furthest from even is from it.
    fn uneven(&self) -> f64 {
        let even = self.busy.iter().sum::<u64>() as f64 / self.busy.len() as f64;
        self.busy.iter().map(|busy| (*busy as f64 - even).abs() / even).fold(0.0, f64::max)
    }
}

/// Lets children serve clients that begin wherever `dice` will have them. Looks are 8 ms apart, and no two children
/// look at the same time.
fn live(world: World, dice: &mut Dice) -> Lives {
    let World { children, clients, choice, first, rate, takes, seconds, bunch } = world;
    let mut homes: Vec<usize> = (0..clients).map(|_| dice.below(first.min(children))).collect();
    let mut free: Vec<usize> = (0..clients).collect();
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut looks: BinaryHeap<Reverse<(u64, usize)>> =
        (0..children).map(|child| Reverse((dice.below(48_000) as u64, child))).collect();
    let mut balances = vec![Balance::new(); children];
    let (mut busy, mut answered, mut gone) = (vec![0_u32; children], vec![0; children], vec![0; children]);
    let mut advices = vec![Advice { give: 0, takes: true }; children];
    let mut lives = Lives { busy: vec![0; children], moves: [0, 0], nobody: 0 };
    // Who was given one last, and how many in a row.
    let mut row = (0, u32::MAX);
    let (mut next, mut last, end) = (dice.gap(rate), 0, seconds * 1_000_000);
    loop {
        let done = ends.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let look = looks.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let now = next.min(done).min(look);
        if now >= end {
            return lives;
        }
        let half = usize::from(now > end / 2);
        if half == 1 {
            for (sum, busy) in lives.busy.iter_mut().zip(&busy) {
                *sum += u64::from(*busy) * (now - last);
            }
        }
        last = now;
        if now == done {
            let Some(Reverse((_, client))) = ends.pop() else { unreachable!("it was there") };
            let child = homes[client];
            busy[child] -= 1;
            answered[child] += 1;
            if advices[child].give > 0 {
                let takers: Vec<usize> =
                    (0..children).filter(|other| *other != child && advices[*other].takes).collect();
                if takers.is_empty() {
                    lives.nobody += 1;
                } else {
                    advices[child].give -= 1;
                    gone[child] += 1;
                    lives.moves[half] += 1;
                    // Whoever has begun a bunch stays in front.
                    if row.1 >= bunch || !takers.contains(&row.0) {
                        row = (takers[dice.below(takers.len())], 0);
                    }
                    row.1 += 1;
                    homes[client] = row.0;
                }
            }
            free.push(client);
        } else if now == look {
            let Some(Reverse((_, child))) = looks.pop() else { unreachable!("it was there") };
            looks.push(Reverse((now + 8_000, child)));
            if balances[child].look(busy[child]) {
                let loads: Vec<u32> = balances
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != child)
                    .map(|(_, other)| other.load())
                    .collect();
                let count = |child| homes.iter().filter(|home| **home == child).count();
                let own = Own {
                    connections: count(child) as u32,
                    answered: answered[child],
                    handed_over: gone[child],
                    bunch,
                };
                let takers = (0..children).filter(|other| *other != child && advices[*other].takes).count();
                let theirs = siblings(&loads, (clients - count(child)) as u64, takers as u32);
                advices[child] = balances[child].compare(own, &theirs);
            }
        } else {
            next = now + dice.gap(rate).max(1);
            // Who finds nobody free asks no more: half of what there can be is asked for.
            if !free.is_empty() {
                let client = match choice {
                    Choice::LastFirst => free.len() - 1,
                    Choice::Anyone => dice.below(free.len()),
                };
                let client = free.swap_remove(client);
                busy[homes[client]] += 1;
                ends.push(Reverse((now + takes + dice.below(1_000) as u64, client)));
            }
        }
    }
}

#[test]
fn wherever_clients_begin_the_work_ends_up_even_and_connections_come_to_rest() {
    let plain = World {
        children: 4,
        clients: 64,
        choice: Choice::LastFirst,
        first: usize::MAX,
        rate: 2_800.0,
        takes: 10_000,
        seconds: 8,
        bunch: 1,
    };
    let anyone = World { choice: Choice::Anyone, ..plain };
    let sixteen = World { children: 16, clients: 256, rate: 8_000.0, ..plain };
    let long = World { rate: 32.0, takes: 1_000_000, seconds: 80, ..anyone };
    // A world, and how many connections may still move in a second once all should be even. Which connections
    // are used changes all the time where the last one is used first.
    for (world, restless) in [
        (plain, 6.0),
        (World { first: 3, ..plain }, 6.0),
        (World { children: 2, ..plain }, 3.0),
        (sixteen, 20.0),
        (World { first: 4, ..sixteen }, 20.0),
        (World { rate: 4_500.0, ..sixteen }, 20.0),
        (anyone, 2.0),
        (World { children: 2, ..anyone }, 1.0),
        (World { choice: Choice::Anyone, ..sixteen }, 5.0),
        (World { clients: 640, rate: 4_000.0, ..anyone }, 3.0),
        // Each connection does little: hundreds have to go.
        (World { clients: 4_000, first: 3, rate: 20_000.0, ..anyone }, 20.0),
        (World { clients: 4_000, first: 3, seconds: 24, ..anyone }, 20.0),
        (World { first: 1, ..plain }, 6.0),
        (World { first: 1, ..sixteen }, 20.0),
        (World { rate: 20_000.0, takes: 500, ..anyone }, 2.0),
        // Chance is larger than habit where requests take long: still nobody runs to and fro.
        (long, 0.4),
        (World { choice: Choice::LastFirst, ..long }, 0.6),
        (World { children: 8, clients: 128, rate: 64.0, seconds: 160, ..long }, 2.0),
        // A quarter of their workers would stay together; half of them are busy.
        (World { children: 16, clients: 256, rate: 16_000.0, bunch: 4, ..anyone }, 20.0),
        (World { children: 16, clients: 256, rate: 16_000.0, bunch: 4, first: 3, ..anyone }, 20.0),
    ] {
        for seed in 1..=3_u64 {
            let lives = live(world, &mut Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let told = format!("{world:?}, seed {seed}: {:?}, moves {:?}", lives.busy, lives.moves);
            assert!(lives.uneven() <= 0.2, "{told}: {:.2} from even", lives.uneven());
            assert!(f64::from(lives.moves[1]) <= restless * world.seconds as f64 / 2.0, "{told}");
            assert!(lives.moves[0] as usize <= 3 * world.clients, "{told}");
            assert_eq!(lives.nobody, 0, "somebody takes what is given: {told}");
        }
    }
}

#[test]
fn connections_of_few_clients_stay_in_few_of_many_children() {
    let world = World {
        children: 32,
        clients: 64,
        choice: Choice::Anyone,
        first: 4,
        rate: 3_000.0,
        takes: 10_000,
        seconds: 8,
        bunch: 16,
    };
    for (first, used) in [(4, 4), (1, 4), (32, 32)] {
        for seed in 1..=3 {
            let lives = live(World { first, ..world }, &mut Dice(seed));
            let told = format!("from {first}, seed {seed}: {:?}, moves {:?}", lives.busy, lives.moves);
            let busy = lives.busy.iter().filter(|busy| **busy > 0).count();
            assert!(busy <= 2 * used && lives.moves[1] <= 8, "{told}");
            let most = lives.busy.iter().max().map_or(0, |most| *most);
            assert!(most <= 22 * world.seconds * 1_000_000 / 2, "far more than a bunch: {told}");
        }
    }
}
