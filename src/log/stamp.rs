//! Seconds to text: the stamps of both logs, each made once per second and thread.
//!
//! A stamp costs about a microsecond to make and some nanoseconds to copy, so every thread keeps the last of
//! each kind. The time zone is asked for once, by [`prepare`], while the process may still read files.

use jiff::Timestamp;
use jiff::Zoned;
use jiff::tz::TimeZone;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::OnceLock;

static ZONE: OnceLock<TimeZone> = OnceLock::new();

/// Reads the system's time zone. Call it before rights are given up: a process that may no longer open
/// `/etc/localtime` would silently stamp in UTC.
pub fn prepare() {
    zone();
}

fn zone() -> &'static TimeZone {
    ZONE.get_or_init(TimeZone::system)
}

/// The local time of a second since 1970; seconds beyond jiff's calendar (year 9999) read as 1970.
fn local(second: u64) -> Zoned {
    let second = i64::try_from(second).unwrap_or(0);
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone().clone())
}

/// Formats that `%{…}t` brought, kept per thread; more than these are made anew each time.
const CUSTOM_KEPT: usize = 16;

/// The last stamps of a thread.
struct Stamps {
    error: Kept,
    access: Kept,
    custom: Vec<(u32, Kept)>,
}

struct Kept {
    /// Seconds since 1970; `u64::MAX` before the first.
    second: u64,
    text: String,
}

impl Kept {
    const fn new() -> Self {
        Self { second: u64::MAX, text: String::new() }
    }

    fn at(&mut self, second: u64, format: &str) -> &str {
        if self.second != second {
            self.second = second;
            self.text.clear();
            if write!(self.text, "{}", local(second).strftime(format)).is_err() {
                self.text.clear();
                self.text.push('-');
            }
        }
        &self.text
    }
}

thread_local! {
    static STAMPS: RefCell<Stamps> =
        const { RefCell::new(Stamps { error: Kept::new(), access: Kept::new(), custom: Vec::new() }) };
}

const MICROS: u64 = 1_000_000;
const ERROR_FORMAT: &str = "%a %b %d %H:%M:%S %Y";
const ACCESS_FORMAT: &str = "[%d/%b/%Y:%H:%M:%S %z]";

/// Appends `Sun Nov 22 09:00:27.123456 2026`, the local time of `wall_us` microseconds since 1970.
pub fn push_error_stamp(line: &mut String, wall_us: u64) {
    STAMPS.with_borrow_mut(|stamps| {
        let text = stamps.error.at(wall_us / MICROS, ERROR_FORMAT);
        // The year stands last; the fraction goes before the blank in front of it.
        let (head, year) = text.rsplit_once(' ').unwrap_or((text, ""));
        line.push_str(head);
        line.push('.');
        let digits = fraction(wall_us % MICROS);
        line.extend(digits.iter().map(|digit| char::from(*digit)));
        line.push(' ');
        line.push_str(year);
    });
}

/// Appends `[22/Nov/2026:09:00:27 +0000]`, the local time of `wall_us` microseconds since 1970.
pub fn push_access_stamp(line: &mut Vec<u8>, wall_us: u64) {
    STAMPS.with_borrow_mut(|stamps| {
        line.extend_from_slice(stamps.access.at(wall_us / MICROS, ACCESS_FORMAT).as_bytes());
    });
}

/// Appends the local time of `wall_us` microseconds since 1970 in a strftime format of somebody's own, known to
/// this process as `id`.
pub(super) fn push_custom_stamp(line: &mut Vec<u8>, id: u32, format: &str, wall_us: u64) {
    let second = wall_us / MICROS;
    STAMPS.with_borrow_mut(|stamps| {
        let at = match stamps.custom.iter().position(|(known, _)| *known == id) {
            Some(at) => at,
            None => {
                // A reload brings new ids; the oldest go first.
                if stamps.custom.len() == CUSTOM_KEPT {
                    stamps.custom.remove(0);
                }
                stamps.custom.push((id, Kept::new()));
                stamps.custom.len() - 1
            }
        };
        line.extend_from_slice(stamps.custom[at].1.at(second, format).as_bytes());
    });
}

/// Whether strftime knows all of `format`; what it says if not.
pub(super) fn check_format(format: &str) -> Result<(), String> {
    let sample = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    jiff::fmt::strtime::format(format, &sample).map(drop).map_err(|fault| fault.to_string())
}

/// The six digits of a microsecond within its second.
pub(super) fn fraction(micros: u64) -> [u8; 6] {
    let mut digits = [b'0'; 6];
    let mut rest = micros;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("a remainder of ten is one digit");
        rest /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 09:00:27 UTC.
    const SECOND: u64 = 1_795_338_027;

    #[test]
    fn stamps_have_httpd_s_shape_in_any_zone() {
        let mut line = String::new();
        push_error_stamp(&mut line, SECOND * MICROS + 42);
        let want = local(SECOND).strftime("%a %b %d %H:%M:%S.000042 %Y").to_string();
        assert_eq!(line, want);
        assert_eq!(line.len(), "Sun Nov 22 09:00:27.123456 2026".len());

        let mut line = Vec::new();
        push_access_stamp(&mut line, SECOND * MICROS);
        push_access_stamp(&mut line, SECOND * MICROS + 999_999);
        let half = line.len() / 2;
        assert_eq!(half, "[22/Nov/2026:09:00:27 +0000]".len());
        assert_eq!(line[..half], line[half..], "one second has one stamp");
    }

    #[test]
    fn each_second_and_each_format_has_its_own_text() {
        let mut line = Vec::new();
        for id in 0..40 {
            push_custom_stamp(&mut line, id, &format!("%s-{id} "), 7 * MICROS);
        }
        push_custom_stamp(&mut line, 39, "%s-39 ", 8 * MICROS);
        let text = String::from_utf8(line).expect("stamps are text");
        assert!(text.starts_with("7-0 7-1 ") && text.ends_with("7-39 8-39 "), "{text}");
    }

    #[test]
    fn absurd_times_do_no_harm() {
        let mut line = String::new();
        push_error_stamp(&mut line, u64::MAX);
        assert!(line.contains('.'), "{line}");
    }

    #[test]
    fn unknown_strftime_codes_are_refused() {
        assert!(check_format("%d/%b/%Y %T").is_ok());
        assert!(check_format("%!").is_err());
    }
}
