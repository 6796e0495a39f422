//! Does a child have more than its share of the connections, and how many should go to its siblings?
//!
//! The kernel gives a connection to whoever waits first, and a burst to whoever runs. Kept-alive connections stay where
//! they are, so what a burst did would last. A child that finds itself ahead lets others accept, and hands what is too
//! much over to them, each connection when it is between two requests. Decides; `handover` and the leader act.

/// How many connections a child with `mine` should give to its `siblings`, which have `theirs` together. 0 up to a
/// sixteenth above the average of all: below that, moving costs more than it mends.
#[must_use]
pub fn surplus(mine: u32, siblings: u32, theirs: u64) -> u32 {
    if siblings == 0 {
        return 0;
    }
    let all = u64::from(mine).saturating_add(theirs);
    let average = all.div_ceil(u64::from(siblings) + 1);
    if u64::from(mine) <= average.saturating_add(average / 16) {
        return 0;
    }
    u32::try_from(u64::from(mine).saturating_sub(average)).unwrap_or(mine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_far_above_the_average_goes() {
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
            assert_eq!(surplus(mine, siblings, theirs), want, "{mine} beside {theirs} of {siblings}");
        }
    }

    proptest! {
        #[test]
        fn nobody_falls_below_the_average_and_somebody_is_never_ahead(
            counts in proptest::collection::vec(0_u32..100_000, 1..40),
        ) {
            let all: u64 = counts.iter().map(|count| u64::from(*count)).sum();
            let siblings = u32::try_from(counts.len() - 1).expect("few");
            let given: Vec<u32> =
                counts.iter().map(|mine| surplus(*mine, siblings, all - u64::from(*mine))).collect();
            prop_assert!(given.contains(&0), "whoever accepts must be there");
            for (mine, given) in counts.iter().zip(given) {
                prop_assert!(given == 0 || u64::from(mine - given) * counts.len() as u64 >= all);
            }
        }
    }
}
