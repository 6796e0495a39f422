//! Writes answers: pages made of the scoreboard as it is at this moment, and refusals.

use super::ask::Verdict;
use crate::clock::Tick;
use crate::http::reply::{self, Persistence, Reply};
use crate::http::{DateStamp, FieldSlots, Version};
use crate::log::line::cause;
use crate::scoreboard::board::BoardReader;
use crate::status;
use crate::sys::time;
use jiff::tz::TimeZone;
use slog::{Logger, error};
use std::time::Duration;

/// Fields of every answer: it is of this moment only, and is what Content-Type says.
const FIELDS: [(&str, &str); 3] =
    [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), ("Allow", "GET, HEAD")];

/// How often it is told that the scoreboard cannot be read.
const REMINDER: Duration = Duration::from_secs(60);

/// What it takes to answer.
#[derive(Debug)]
pub(super) struct Desk {
    /// The scoreboard.
    pub board: BoardReader,
    /// What we call ourselves in Server.
    pub product: String,
    /// `ServerName` of the main server.
    pub own_name: String,
    /// Where a head's fields are kept while it is judged.
    pub slots: FieldSlots,
    pub(super) date: DateStamp,
    pub(super) log: Logger,
    /// Until when a fault of the scoreboard need not be told again.
    pub(super) told: Tick,
}

/// How an answer is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// To HEAD: the fields without the body.
    pub head_only: bool,
    /// What the client speaks.
    pub version: Version,
    /// The connection ends behind it.
    pub close: bool,
    /// For a client that says keep-alive: how long the connection may be idle, and requests that are left.
    pub keep: Option<(Duration, u32)>,
}

impl Desk {
    /// Appends the answer to `out`.
    pub fn write(&mut self, out: &mut Vec<u8>, verdict: Verdict, manner: &Manner) {
        let (status, page) = match verdict {
            Verdict::Refused(status) => (status, None),
            Verdict::Page(form) => match self.page(form) {
                Some(page) => (200, Some(page)),
                None => (500, None),
            },
        };
        let date = self.date.at(time::wall_micros() / 1_000_000);
        let plain = Reply::new(status, date, &self.product);
        let fields = if status == 405 { &FIELDS[..] } else { &FIELDS[..2] };
        let persistence =
            manner.keep.map(|(idle, left)| Persistence { timeout: idle.as_secs(), left: Some(left) });
        let reply = Reply {
            head_only: manner.head_only,
            version: manner.version,
            close: manner.close,
            persistence,
            fields,
            content_type: page.as_ref().map_or(plain.content_type, |page| page.content_type),
            body: page.as_ref().map(|page| page.body.as_bytes()),
            ..plain
        };
        reply::write(out, &reply);
    }

    fn page(&mut self, form: status::Form) -> Option<status::Page> {
        let moment = time::now();
        let now = status::Now { moment, wall_micros: time::wall_micros(), zone: TimeZone::system() };
        match self.board.snapshot() {
            Ok(snapshot) => Some(status::page(&snapshot, form, &now)),
            Err(fault) => {
                let tick = moment.tick();
                if self.told <= tick {
                    self.told = tick.after(REMINDER);
                    error!(self.log, "StatusListen: {}; clients get 500", cause(&fault));
                }
                None
            }
        }
    }
}
