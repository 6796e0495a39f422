//! One client connection over its requests: what it waits for, until when, and what happens if it waits in vain.
//!
//! Pure: the times are arguments, the wishes are values. `mpm::conn` owns the sockets and obeys. The bytes
//! themselves are the business of [`super::exchange`].

use crate::clock::Tick;
use crate::config::model::{ReadTimeout, VirtualHost};
use std::time::Duration;

/// How long a client may go on sending after we have said all (httpd's MAX_SECS_TO_LINGER).
const LINGER: Duration = Duration::from_secs(30);
/// How long it may stay silent meanwhile (httpd's SECONDS_TO_LINGER).
const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// How long a client of a leaving child may take to begin its next request, however soon that child leaves, if it
/// cannot know: it has only just connected, or its last response began before the child was told to go (or while
/// others were to take the connection over) and said nothing of a close.
const UNTOLD: Duration = Duration::from_secs(2);
/// How long a backend may stay silent on `Expect: 100-continue` before the body is asked for all the same
/// (RFC 9110, section 10.1.1: a client must not wait for ever, and neither must we).
const EXPECT: Duration = Duration::from_secs(1);

/// What a client connection is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Nothing of a request has come yet (on a new connection, or a kept-alive one).
    Idle,
    /// A request head is coming in.
    Head,
    /// A whole request head is here, but no worker row.
    Row,
    /// A request waits for one of the backend's connections (`max`).
    Place,
    /// A connection to the backend is being made.
    Connect,
    /// Request and response are under way.
    Exchange,
    /// All has been said; the client's last bytes are read and thrown away, so that no reset overtakes our answer.
    Linger,
    /// Bytes pass both ways, uninterpreted.
    Tunnel,
}

/// What is open while an exchange runs; the deadline depends on whom we are waiting for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Waits {
    /// The client does not take what we have for it.
    pub client_write: bool,
    /// The client's request body is still coming (and the backend takes it), and nothing has been answered: a 408 can
    /// still be said.
    pub client_body: bool,
    /// The backend does not take what we have for it, or has not answered yet, or its body is still coming.
    pub upstream: bool,
    /// The client waits for 100 (Continue).
    pub expect: bool,
}

/// A deadline that has passed, and what to do about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expiry {
    /// No request came in time: close, without a word.
    Idle,
    /// The head did not come in time: 408.
    Head,
    /// The request body did not come in time: 408.
    Body,
    /// The client does not take our bytes: give up on it.
    ClientStalled,
    /// The backend is silent: 504.
    UpstreamStalled,
    /// The backend does not accept our connection: 503.
    Connect,
    /// No connection to the backend became free: 503.
    Place,
    /// The backend says neither 100 nor anything else: ask for the body ourselves.
    Expect,
    /// The client has had its time to close: close.
    Linger,
    /// Nobody says anything in the tunnel: close it.
    Tunnel,
}

/// The times of one client connection.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    /// Requests begun on this connection.
    requests: u32,
    /// When the phase began.
    since: Tick,
    /// When the client last took bytes from us, or was first asked to.
    client: Tick,
    /// When the backend last gave or took bytes.
    upstream: Tick,
    /// When the request body began.
    body: Tick,
    /// Bytes of the head, then of the body, for the rate of RequestReadTimeout.
    arrived: u64,
}

impl Session {
    /// A connection that has just been accepted.
    #[must_use]
    pub fn new(now: Tick) -> Self {
        Self {
            phase: Phase::Idle,
            requests: 0,
            since: now,
            client: now,
            upstream: now,
            body: now,
            arrived: 0,
        }
    }

    /// A connection that another process has had, with `requests` so far: idle, to be closed at `deadline`, but not
    /// later than if it had just become idle here.
    #[must_use]
    pub fn resumed(requests: u32, deadline: Tick, host: &VirtualHost, now: Tick) -> Self {
        let fresh = Self { requests, ..Self::new(Tick(0)) };
        let zero = Duration::ZERO;
        let (span, _) = fresh.deadline(host, zero, zero, Waits::default(), Tick::NEVER);
        Self { requests, ..Self::new(Tick(deadline.0.saturating_sub(span.0)).min(now)) }
    }

    /// What it is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Requests begun so far.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// Between requests, after at least one.
    #[must_use]
    pub fn is_kept_alive(&self) -> bool {
        self.phase == Phase::Idle && self.requests > 0
    }

    fn enter(&mut self, phase: Phase, now: Tick) {
        self.phase = phase;
        self.since = now;
    }

    /// Bytes of a head came, but not the whole.
    pub fn head_bytes(&mut self, total: usize, now: Tick) {
        if self.phase == Phase::Idle {
            // The first request's clock runs from accept: a client that connects and trickles gains nothing.
            let since = if self.requests == 0 { self.since } else { now };
            self.enter(Phase::Head, since);
        }
        self.client = now;
        self.arrived = total as u64;
    }

    /// A whole head is here, but no row for it.
    pub fn wait_for_row(&mut self, now: Tick) {
        self.enter(Phase::Row, now);
    }

    /// It has been given a row; whether part of its head has been read.
    pub fn resume_head(&mut self, begun: bool, now: Tick) {
        self.enter(if begun { Phase::Head } else { Phase::Idle }, now);
        self.client = now;
    }

    /// A request begins.
    pub fn begin(&mut self, now: Tick) {
        self.requests = self.requests.saturating_add(1);
        self.enter(Phase::Exchange, now);
        (self.client, self.upstream, self.body, self.arrived) = (now, now, now, 0);
    }

    /// The backend's `max` is reached.
    pub fn wait_for_place(&mut self, now: Tick) {
        if self.phase != Phase::Place {
            self.enter(Phase::Place, now);
        }
    }

    /// A connection to the backend is being made.
    pub fn connecting(&mut self, now: Tick) {
        self.enter(Phase::Connect, now);
    }

    /// The exchange has its backend.
    pub fn connected(&mut self, now: Tick) {
        self.enter(Phase::Exchange, now);
        (self.client, self.upstream, self.body) = (now, now, now);
    }

    /// The client took or gave bytes.
    pub fn client_moved(&mut self, now: Tick) {
        self.client = now;
    }

    /// The client has bytes to take from now on.
    pub fn client_asked(&mut self, now: Tick) {
        self.client = now;
    }

    /// The client gave bytes of its body.
    pub fn body_bytes(&mut self, count: usize) {
        self.arrived = self.arrived.saturating_add(count as u64);
    }

    /// Whether what has come of the client's body earns it more time.
    #[must_use]
    pub fn body_is_in_time(&self, host: &VirtualHost, now: Tick) -> bool {
        now < self.reading(&host.read_timeout.body, self.body)
    }

    /// The client's body is asked for from now on (after `Expect: 100-continue`).
    pub fn body_begins(&mut self, now: Tick) {
        self.body = now;
        self.client = now;
    }

    /// The backend gave or took bytes.
    pub fn upstream_moved(&mut self, now: Tick) {
        self.upstream = now;
    }

    /// The exchange has become a tunnel.
    pub fn tunnel(&mut self, now: Tick) {
        self.enter(Phase::Tunnel, now);
        (self.client, self.upstream) = (now, now);
    }

    /// The exchange is over and the connection stays for the next request.
    pub fn keep(&mut self, now: Tick) {
        self.enter(Phase::Idle, now);
        self.arrived = 0;
    }

    /// All has been said; the client gets time to close.
    pub fn linger(&mut self, now: Tick) {
        self.client = now;
        self.enter(Phase::Linger, now);
    }

    /// Whether a client that goes on sending has had its time.
    #[must_use]
    pub fn has_lingered(&self, now: Tick) -> bool {
        self.phase == Phase::Linger && now >= self.since.after(LINGER)
    }

    /// When the connection has to be looked at if nothing happens, and why.
    ///
    /// `connect` and `silence` are the backend's connect time-out and time-out; `idle_until` is when an idle
    /// connection of a leaving child is closed at the latest.
    #[must_use]
    pub fn deadline(
        &self,
        host: &VirtualHost,
        connect: Duration,
        silence: Duration,
        waits: Waits,
        idle_until: Tick,
    ) -> (Tick, Expiry) {
        match self.phase {
            Phase::Idle if self.requests == 0 => {
                let head = self.reading(&host.read_timeout.header, self.since);
                (head.min(self.since.after(host.timeout)).min(self.leaving(idle_until)), Expiry::Idle)
            }
            Phase::Idle => {
                let kept = self.since.after(host.keep_alive.timeout);
                (kept.min(self.leaving(idle_until)), Expiry::Idle)
            }
            Phase::Head => {
                let silence = self.client.max(self.since).after(host.timeout);
                (self.reading(&host.read_timeout.header, self.since).min(silence), Expiry::Head)
            }
            // It waits for us, not we for it.
            Phase::Row => (Tick::NEVER, Expiry::Head),
            Phase::Place => (self.since.after(silence), Expiry::Place),
            Phase::Connect => (self.since.after(connect), Expiry::Connect),
            Phase::Linger => {
                let end = self.since.after(LINGER).min(self.client.after(LINGER_SILENCE));
                (end, Expiry::Linger)
            }
            Phase::Tunnel => {
                let span = silence.max(host.timeout);
                (self.client.max(self.upstream).after(span), Expiry::Tunnel)
            }
            Phase::Exchange => {
                let mut first = (Tick::NEVER, Expiry::UpstreamStalled);
                let mut consider = |tick: Tick, expiry: Expiry| {
                    if tick < first.0 {
                        first = (tick, expiry);
                    }
                };
                if waits.client_write {
                    consider(self.client.after(host.timeout), Expiry::ClientStalled);
                } else if waits.client_body && !waits.expect {
                    // Bytes that came fast may have earned hours; a silence is too long all the same. It begins
                    // anew when the backend has taken what kept us from reading.
                    let still = self.client.max(self.upstream).max(self.body).after(host.timeout);
                    consider(self.reading(&host.read_timeout.body, self.body).min(still), Expiry::Body);
                } else if waits.upstream {
                    // While the client took its time, nothing was read from the backend.
                    consider(self.upstream.max(self.client).after(silence), Expiry::UpstreamStalled);
                }
                if waits.expect {
                    consider(self.body.after(EXPECT), Expiry::Expect);
                }
                first
            }
        }
    }

    /// When a leaving child closes the connection, which is idle.
    fn leaving(&self, idle_until: Tick) -> Tick {
        idle_until.max(self.since.after(UNTOLD))
    }

    /// RequestReadTimeout: `start` after `from`, one second more per `min_rate` bytes, never beyond `max`.
    fn reading(&self, limit: &ReadTimeout, from: Tick) -> Tick {
        let Some(start) = limit.start else { return Tick::NEVER };
        let earned = limit.min_rate.map_or(Duration::ZERO, |rate| {
            Duration::from_millis(self.arrived.saturating_mul(1000) / u64::from(rate.get()))
        });
        let span = start + earned;
        from.after(limit.max.map_or(span, |max| span.min(max.max(start))))
    }
}

#[cfg(test)]
mod tests;
