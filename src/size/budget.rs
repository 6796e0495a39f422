//! What there is for the server: the machine's memory, or its control group's, less what others use and what is to
//! stay free.

/// Memory that bounds the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pot {
    /// `this machine (MemTotal)`, or the file of a control group.
    pub name: String,
    /// Bytes there are.
    pub total: u64,
    /// Bytes taken now and not to be had back without swapping, those of the server itself included.
    pub used: u64,
}

/// What the administrator asks for, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Asked {
    /// `--memory`: what the server may use, whatever the machine has left.
    pub memory: Option<u64>,
    /// `--reserve`: what is to stay free beside what others use now.
    pub reserve: Option<u64>,
}

/// The sum, line by line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Where the memory is; `None` if `--memory` said how much.
    pub pot: Option<Pot>,
    /// What the server itself has taken of it now; 0 if none runs.
    pub own: u64,
    /// What stays free.
    pub reserve: u64,
    /// What the server may use.
    pub bytes: u64,
    /// `--memory` is more than the tightest of these has left.
    pub above: Option<(Pot, u64)>,
}

/// Of what there is, this part stays free unless `--reserve` says otherwise: for the cache of files, and for peaks of
/// others.
const RESERVED_PART: u64 = 10;

/// The budget: of several pots (the machine, each control group above the server) the one that leaves least. `own` is
/// what the live server takes of each.
///
/// `None` without a pot and without `--memory`.
#[must_use]
pub fn budget(pots: &[Pot], own: u64, asked: Asked) -> Option<Budget> {
    let left = |pot: &Pot| pot.total.saturating_sub(others(pot, own));
    let reserve = |pot: &Pot| asked.reserve.unwrap_or(pot.total / RESERVED_PART);
    if let Some(memory) = asked.memory {
        // Whoever names the sum has thought of the rest.
        let reserve = asked.reserve.unwrap_or(0);
        let tightest = pots.iter().min_by_key(|pot| left(pot));
        let above = tightest.map(|pot| (pot.clone(), left(pot))).filter(|(_, left)| *left < memory);
        return Some(Budget { pot: None, own, reserve, bytes: memory.saturating_sub(reserve), above });
    }
    let pot = pots.iter().min_by_key(|pot| left(pot).saturating_sub(reserve(pot)))?;
    let reserve = reserve(pot);
    let bytes = left(pot).saturating_sub(reserve);
    Some(Budget { pot: Some(pot.clone()), own, reserve, bytes, above: None })
}

/// What others than the server use of a pot.
#[must_use]
pub fn others(pot: &Pot, own: u64) -> u64 {
    pot.used.saturating_sub(own).min(pot.total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pot(name: &str, total: u64, used: u64) -> Pot {
        Pot { name: name.to_owned(), total, used }
    }

    #[test]
    fn the_tightest_pot_counts() {
        let machine = pot("machine", 1000, 300);
        let group = pot("group", 400, 100);
        let asked = |memory, reserve| Asked { memory, reserve };
        let both = [machine, group];
        let alone = &both[..1];
        for (pots, own, wish, want) in [
            (alone, 0, asked(None, None), (Some("machine"), 100, 600)),
            (alone, 50, asked(None, None), (Some("machine"), 100, 650)),
            (&both, 0, asked(None, None), (Some("group"), 40, 260)),
            (&both, 100, asked(None, Some(0)), (Some("group"), 0, 400)),
            // More used by itself than the group knows of: others cannot be less than nothing.
            (&both, 200, asked(None, Some(0)), (Some("group"), 0, 400)),
            (alone, 0, asked(None, Some(5000)), (Some("machine"), 5000, 0)),
            (alone, 0, asked(Some(512), None), (None, 0, 512)),
            (alone, 0, asked(Some(512), Some(12)), (None, 12, 500)),
            (&[], 0, asked(Some(512), None), (None, 0, 512)),
        ] {
            let have = budget(pots, own, wish).expect("there is a pot or a wish");
            let shape = (have.pot.as_ref().map(|pot| pot.name.as_str()), have.reserve, have.bytes);
            assert_eq!(shape, want, "{pots:?} {own} {wish:?}");
        }
        assert_eq!(budget(&[], 0, Asked::default()), None);
    }

    #[test]
    fn a_wish_above_what_is_left_is_told() {
        let pots = [pot("machine", 1000, 300), pot("group", 400, 100)];
        let wish = |memory| Asked { memory: Some(memory), reserve: None };
        let above = |memory| budget(&pots, 0, wish(memory)).and_then(|budget| budget.above);
        assert_eq!(above(301), Some((pots[1].clone(), 300)));
        assert_eq!(above(300), None);
    }
}
