//! A scoreboard as something to look at: text for a terminal, a page for a browser, lines for collectors.
//!
//! Pure: a [`Snapshot`] and the time go in, text comes out. Who reads the board and who sends the text is
//! decided on other floors.

pub mod auto;
pub mod brief;
pub mod chart;
pub mod figures;
pub mod html;
pub mod json;
pub mod prometheus;
pub mod tally;
pub mod text;

use crate::clock::Moment;
use crate::config::model::Handler;
use crate::scoreboard::snapshot::Snapshot;
use jiff::tz::TimeZone;

/// When a page is made, and in which time zone it is read.
#[derive(Clone, Debug)]
pub struct Now {
    /// On the monotonic clock, as the board's moments are.
    pub moment: Moment,
    /// In microseconds since 1970.
    pub wall_micros: u64,
    /// What dates are shown in.
    pub zone: TimeZone,
}

/// Which page is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// A page for a browser.
    Html(html::Options),
    /// `?auto`: httpd's lines for collectors.
    Auto,
    /// `?json`: everything.
    Json,
    /// `?prometheus`, `SetHandler metrics`: Prometheus' text format.
    Prometheus,
}

impl Form {
    /// What a request to a handler asks for.
    #[must_use]
    pub fn of(handler: Handler, query: Option<&[u8]>) -> Self {
        match handler {
            Handler::ServerStatus => Self::from_query(query),
            Handler::Metrics => Self::Prometheus,
        }
    }

    /// What a listener that has nothing but the status answers a path with; `None`: nothing is there.
    #[must_use]
    pub fn at(path: &[u8], query: Option<&[u8]>) -> Option<Self> {
        match path {
            b"/" | b"/server-status" => Some(Self::of(Handler::ServerStatus, query)),
            b"/metrics" => Some(Self::of(Handler::Metrics, query)),
            _ => None,
        }
    }

    /// Reads `auto`, `json`, `prometheus`, `refresh[=seconds]` and `notable`, in any order with `&` between them, as
    /// httpd does; of several forms the first holds, and words that are not known are passed over.
    #[must_use]
    pub fn from_query(query: Option<&[u8]>) -> Self {
        let mut options = html::Options::default();
        let mut form = None;
        for word in query.unwrap_or_default().split(|byte| *byte == b'&') {
            let (name, value) = match word.iter().position(|byte| *byte == b'=') {
                Some(at) => (&word[..at], Some(&word[at + 1..])),
                None => (word, None),
            };
            match name {
                b"auto" => form = form.or(Some(Self::Auto)),
                b"json" => form = form.or(Some(Self::Json)),
                b"prometheus" => form = form.or(Some(Self::Prometheus)),
                b"notable" => options.tables = false,
                b"refresh" => options.refresh = Some(seconds(value)),
                _ => {}
            }
        }
        form.unwrap_or(Self::Html(options))
    }
}

/// What `refresh=` says; 10 if it is missing or makes no sense.
fn seconds(value: Option<&[u8]>) -> u32 {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).filter(|seconds| (1..=86_400).contains(seconds)).unwrap_or(10)
}

/// A page and what to call it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// The value of Content-Type.
    pub content_type: &'static str,
    /// The page.
    pub body: String,
}

/// Makes the page that was asked for.
#[must_use]
pub fn page(snapshot: &Snapshot, form: Form, now: &Now) -> Page {
    match form {
        Form::Html(options) => {
            Page { content_type: "text/html; charset=UTF-8", body: html::page(snapshot, options, now) }
        }
        Form::Auto => {
            Page { content_type: "text/plain; charset=ISO-8859-1", body: auto::page(snapshot, now) }
        }
        Form::Json => Page { content_type: "application/json", body: json::page(snapshot, now) },
        Form::Prometheus => {
            Page { content_type: prometheus::CONTENT_TYPE, body: prometheus::page(snapshot, now) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::snapshot::Life;
    use crate::scoreboard::tests::{bytes_of, lived_in};
    use proptest::prelude::*;

    /// The board of the scoreboard's own tests, 10 s after its master began.
    pub(super) fn example() -> (Snapshot, Now) {
        let mut snapshot = lived_in().reader().snapshot().expect("a snapshot");
        snapshot.life = Life::Running;
        snapshot.usage = None;
        snapshot.load = None;
        (snapshot, now())
    }

    pub(super) fn now() -> Now {
        let zone = TimeZone::UTC;
        Now { moment: Moment(15_000_000), wall_micros: 1_700_000_010_000_000, zone }
    }

    #[test]
    fn queries_choose_the_form() {
        let html = |refresh, tables| Form::Html(html::Options { refresh, tables });
        for (query, want) in [
            (None, html(None, true)),
            (Some(""), html(None, true)),
            (Some("auto"), Form::Auto),
            (Some("json"), Form::Json),
            (Some("prometheus&json"), Form::Prometheus),
            (Some("refresh=5"), html(Some(5), true)),
            (Some("refresh"), html(Some(10), true)),
            (Some("refresh=0"), html(Some(10), true)),
            (Some("refresh=-1&notable"), html(Some(10), false)),
            (Some("notable&refresh=3&x=y"), html(Some(3), false)),
            (Some("refresh=3&auto"), Form::Auto),
            (Some("automatic"), html(None, true)),
        ] {
            assert_eq!(Form::from_query(query.map(str::as_bytes)), want, "{query:?}");
        }
    }

    #[test]
    fn a_listener_of_its_own_has_two_pages() {
        let html = Form::Html(html::Options::default());
        for (path, query, want) in [
            ("/", None, Some(html)),
            ("/server-status", None, Some(html)),
            ("/server-status", Some("auto"), Some(Form::Auto)),
            ("/metrics", None, Some(Form::Prometheus)),
            ("/metrics", Some("auto"), Some(Form::Prometheus)),
            ("/metrics/", None, None),
            ("/favicon.ico", None, None),
            ("", Some("auto"), None),
        ] {
            assert_eq!(Form::at(path.as_bytes(), query.map(str::as_bytes)), want, "{path} {query:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn no_board_however_broken_panics_a_page(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..60),
            life in prop::sample::select(vec![Life::Running, Life::Dead, Life::BeforeReboot, Life::Unknown]),
            moment: u64, wall_micros: u64,
        ) {
            let mut bytes = bytes_of(&lived_in());
            let last = bytes.len() / 8;
            for (index, value) in damage {
                // Keep the magic and the layout, or there would be nothing to show.
                let at = (2 + index.index(last - 2)) * 8;
                bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
            }
            if let Ok(mut snapshot) = Snapshot::of_bytes(&bytes) {
                snapshot.life = life;
                let now = Now { moment: Moment(moment), wall_micros, zone: TimeZone::UTC };
                for form in [Form::Auto, Form::Json, Form::Prometheus, Form::from_query(None)] {
                    prop_assert!(!page(&snapshot, form, &now).body.is_empty());
                }
                let text = text::page(&snapshot, &now);
                prop_assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()));
            }
        }
    }
}
