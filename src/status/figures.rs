//! How numbers and times are written for people and for httpd's collectors.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Six significant digits, no trailing zeros: C's `%g`, which httpd's collectors expect.
#[must_use]
pub fn general(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return "0".to_owned();
    }
    // Rounding decides the exponent: 999999.5 is 1e+06.
    let scientific = format!("{value:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(5 - exponent).unwrap_or(0);
        trim(&format!("{value:.decimals$}"))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(digits), exponent.unsigned_abs())
    }
}

/// A rate for people: `0.3`, `5.5`, `1,234`.
#[must_use]
pub fn per(value: f64) -> String {
    match value {
        ..0.0005 => "0".to_owned(),
        ..0.095 => format!("{value:.3}"),
        ..9.95 => format!("{value:.1}"),
        _ => grouped(value.round() as u64),
    }
}

/// Bytes with a unit of 1024: `0 B`, `1.5 KiB`, `12 GiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" || value >= 100.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// A count with its thousands apart: `1,234,567`.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A span of microseconds as short as a table wants it: `850 us`, `12 ms`, `3.4 s`, `12m34s`, `3h12m`, `5d 3h`.
#[must_use]
pub fn span(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ if seconds < 10 => format!("{:.1} s", micros as f64 / 1e6),
        _ if seconds < 60 => format!("{seconds} s"),
        _ if seconds < 3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Seconds in httpd's words: `1 day 2 hours 3 minutes 4 seconds`; parts that are zero are left out, so 0 is empty.
#[must_use]
pub fn words(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "day"),
        (seconds % 86_400 / 3_600, "hour"),
        (seconds % 3_600 / 60, "minute"),
        (seconds % 60, "second"),
    ];
    let shown = parts.iter().filter(|(number, _)| *number > 0);
    let words: Vec<String> = shown
        .map(|(number, unit)| format!("{number} {unit}{}", if *number == 1 { "" } else { "s" }))
        .collect();
    words.join(" ")
}

/// A point in time as httpd's status has it: `Sunday, 22-Nov-2026 09:00:27 UTC`.
#[must_use]
pub fn date(wall_micros: u64, zone: &TimeZone) -> String {
    shown("%A, %d-%b-%Y %H:%M:%S %Z", wall_micros, zone)
}

/// A point in time for a table: `2026-11-22 09:00:27`.
#[must_use]
pub fn stamp(wall_micros: u64, zone: &TimeZone) -> String {
    shown("%Y-%m-%d %H:%M:%S", wall_micros, zone)
}

fn shown(form: &str, wall_micros: u64, zone: &TimeZone) -> String {
    let micros = i64::try_from(wall_micros).unwrap_or(i64::MAX);
    let point = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    point.to_zoned(zone.clone()).strftime(form).to_string()
}

/// A share of a whole in per cent, 0 of nothing.
#[must_use]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_is_cs() {
        for (value, want) in [
            (0.0, "0"),
            (3.5, "3.5"),
            (1024.0, "1024"),
            (292.571_428, "292.571"),
            (5.571_428, "5.57143"),
            (0.333_333_3, "0.333333"),
            (0.000_123_456_7, "0.000123457"),
            (0.000_012_3, "1.23e-05"),
            (123_456.7, "123457"),
            (999_999.5, "1e+06"),
            (1_234_567.0, "1.23457e+06"),
            (-2.5, "-2.5"),
            (100_000.0, "100000"),
            (f64::NAN, "0"),
        ] {
            assert_eq!(general(value), want);
        }
    }

    #[test]
    fn people_read_units() {
        for (count, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (300 * 1024, "300 KiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(count), want);
        }
        for (count, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), want);
        }
        for (value, want) in
            [(0.0, "0"), (0.012, "0.012"), (0.3, "0.3"), (9.94, "9.9"), (9.96, "10"), (1234.5, "1,235")]
        {
            assert_eq!(per(value), want);
        }
        for (micros, want) in [
            (0, "0 us"),
            (999, "999 us"),
            (1_234, "1.2 ms"),
            (45_678, "45 ms"),
            (1_500_000, "1.5 s"),
            (59_999_999, "59 s"),
            (61_000_000, "1m01s"),
            (3_600_000_000, "1h00m"),
            (90_000_000_000, "1d 1h"),
        ] {
            assert_eq!(span(micros), want);
        }
        for (seconds, want) in [
            (0, ""),
            (1, "1 second"),
            (2, "2 seconds"),
            (93_784, "1 day 2 hours 3 minutes 4 seconds"),
            (3_600, "1 hour"),
        ] {
            assert_eq!(words(seconds), want);
        }
        assert_eq!(share(1, 0), 0.0);
        assert_eq!(share(1, 4), 25.0);
    }

    #[test]
    fn dates_are_httpds() {
        assert_eq!(date(1_795_338_027_000_000, &TimeZone::UTC), "Sunday, 22-Nov-2026 09:00:27 UTC");
        assert_eq!(date(0, &TimeZone::UTC), "Thursday, 01-Jan-1970 00:00:00 UTC");
        assert!(!date(u64::MAX, &TimeZone::UTC).is_empty());
        assert_eq!(stamp(1_795_338_027_000_000, &TimeZone::UTC), "2026-11-22 09:00:27");
    }
}
