//! What is the time in a Date field?
//!
//! The clock is read elsewhere; this writes a second as IMF-fixdate (RFC 9110, 5.6.7), once per second.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// The last second that has a four-digit year: 9999-12-31 23:59:59.
const LAST_SECOND: u64 = 253_402_300_799;

/// A Date, kept until the second is over.
#[derive(Clone, Debug)]
pub struct DateStamp {
    second: u64,
    text: String,
}

impl DateStamp {
    /// A stamp that has not been asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self { second: u64::MAX, text: String::with_capacity(32) }
    }

    /// `seconds` since 1970 as `Sun, 06 Nov 1994 08:49:37 GMT`; times past the year 9999 are its last second.
    pub fn at(&mut self, seconds: u64) -> &str {
        if seconds != self.second {
            self.second = seconds;
            self.text.clear();
            let time = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND));
            write!(self.text, "{}", httpdate::HttpDate::from(time)).expect("a String takes any text");
        }
        &self.text
    }
}

impl Default for DateStamp {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_imf_fixdate_and_never_panics() {
        let mut stamp = DateStamp::new();
        for (seconds, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(stamp.at(seconds), want);
        }
    }
}
