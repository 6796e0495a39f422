//! How much memory the server needs, and which limits fit what there is.
//!
//! The founding rule: with everything at its most the machine must not swap. What the system and other programs use,
//! and what this server uses with all of its children and workers, must fit in physical memory. What a child costs
//! depends on the build and on the system, so it is measured, by [`measure`]; all else here is arithmetic, pure, and
//! shown line by line:
//!
//! [`costs`] (what one of each thing takes) x [`forecast`] (how many of each) against [`budget`] (what there is)
//! gives [`advice`] (what fits), which [`page`], [`snippet`] and [`json`] show. [`warnings`] asks the other way
//! round, for `-t` and the start: whether what a configuration says can fit.

pub mod advice;
pub mod budget;
pub mod costs;
pub mod descriptors;
pub mod facts;
pub mod forecast;
pub mod inquiry;
pub mod json;
pub mod measure;
pub mod observed;
pub mod page;
pub mod snippet;
pub mod warnings;

/// Bytes with a unit: one that a column can be added up in. `812 B`, `4.6 KiB`, `571 KiB`, `11.2 MiB`, `1.5 GiB`.
#[must_use]
pub fn shown(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        // As it would be shown: 1023.97 KiB is 1.0 MiB.
        if value < 999.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" || (value >= 99.95 && unit == "KiB") {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        for (bytes, want) in [
            (0, "0 B"),
            (812, "812 B"),
            (1000, "1.0 KiB"),
            (4700, "4.6 KiB"),
            (571 << 10, "571 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (512 << 20, "512.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(shown(bytes), want, "{bytes}");
        }
    }
}
