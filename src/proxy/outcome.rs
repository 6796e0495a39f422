//! How an exchange can go wrong, whose fault it is, and which status and word that earns.

use crate::http::Fault;
use std::fmt;

/// Interim responses (1xx) to one request; a backend that sends more is broken.
pub(super) const MAX_INTERIMS: u8 = 10;

/// What went wrong on the backend's side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// It could not be connected.
    Connect(String),
    /// It did not accept the connection in time.
    ConnectTimeout,
    /// It failed a moment ago and is left alone (`retry`).
    LeftAlone,
    /// None of its connections became free in time (`max`).
    NoPlace,
    /// It neither answered nor took our bytes in time.
    Timeout,
    /// It closed or reset the connection before its response was whole.
    Closed,
    /// What it said is not HTTP.
    Malformed(Fault),
    /// More interim responses than anybody can mean.
    TooManyInterims,
    /// It switched to a protocol that was not asked for.
    WrongProtocol,
    /// We have no more descriptors, or the like.
    Resources(String),
}

impl Failure {
    /// The status the client gets.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Connect(_)
            | Self::ConnectTimeout
            | Self::LeftAlone
            | Self::NoPlace
            | Self::Resources(_) => 503,
            Self::Timeout => 504,
            Self::Closed | Self::Malformed(_) | Self::TooManyInterims | Self::WrongProtocol => 502,
        }
    }

    /// The word in the access log (`%{proxy-error}n`).
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::LeftAlone => "left_alone",
            Self::NoPlace => "no_place",
            Self::Timeout => "read_timeout",
            Self::Closed => "closed",
            Self::Malformed(_) => "malformed",
            Self::TooManyInterims => "too_many_interims",
            Self::WrongProtocol => "wrong_protocol",
            Self::Resources(_) => "resources",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "cannot connect: {why}"),
            Self::ConnectTimeout => f.write_str("cannot connect in time (connectiontimeout)"),
            Self::LeftAlone => {
                f.write_str("failed a moment ago, not tried again before its retry time is over")
            }
            Self::NoPlace => f.write_str("none of its connections became free in time (max)"),
            Self::Timeout => f.write_str("was silent for too long (timeout, ProxyTimeout)"),
            Self::Closed => f.write_str("closed the connection before its response was complete"),
            Self::Malformed(fault) => write!(f, "sent a response that is not valid: {fault}"),
            Self::TooManyInterims => write!(f, "sent more than {MAX_INTERIMS} interim responses"),
            Self::WrongProtocol => f.write_str("switched to a protocol that was not asked for"),
            Self::Resources(why) => write!(f, "not tried: {why}"),
        }
    }
}

/// Why a client's request is not taken (any further).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Its bytes make no sense.
    Malformed(Fault),
    /// Its body is larger than LimitRequestBody: 413.
    TooLarge,
    /// It took too long to come (RequestReadTimeout): 408.
    TooSlow,
    /// It ended before it was complete: 400, should anybody still listen.
    CutShort,
}

impl Refusal {
    /// The status it earns.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(fault) => fault.status,
            Self::TooLarge => 413,
            Self::TooSlow => 408,
            Self::CutShort => 400,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(fault) => fault.fmt(f),
            Self::TooLarge => f.write_str("the body is larger than LimitRequestBody"),
            Self::TooSlow => f.write_str("it did not come in time (RequestReadTimeout)"),
            Self::CutShort => f.write_str("the client closed before it was complete"),
        }
    }
}

/// What becomes of the client after a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Aftermath {
    /// It gets an answer of ours, which has been gathered.
    Answered,
    /// It has part of a response already: its connection must end so that it notices.
    Cut,
}
