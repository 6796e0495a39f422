//! The groom, as its master sees it: forked for `StatusListen`, replaced when it dies or hangs, sent away when another
//! has taken its place, and last of all when the server stops. It is none of the children: it has no slot, counts in no
//! arithmetic, and no stop waits for it longer than [`LEAVE`].

use crate::clock::{Moment, Tick};
use crate::groom::{self, Inheritance};
use crate::ids::{self, ChildPid};
use crate::master::backoff::Backoff;
use crate::master::deaths::{EARLY, span};
use crate::master::error::cause;
use crate::master::generation::{Generation, milliseconds};
use crate::master::pulse::{Beat, Pulse};
use crate::master::spawn::{Estate, go_where_cores_go, is_alone};
use crate::master::status_doors::StatusDoors;
use crate::master::supervisor::{Master, notice};
use crate::orders::{Heard, Heir, Order, Orders, Word};
use crate::scoreboard::facts::GroomFacts;
use crate::sys::process::{self, ChildExit, Death, signal_name};
use crate::sys::signal::Signal;
use crate::sys::{socket, time, title};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use slog::{debug, error, info, warn};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

/// The token of what grooms say; there are so few that all are heard then.
const TOKEN: Token = Token(usize::MAX - 6);

/// How long a groom that another follows may keep idle clients, whose next request would be lost with them.
const GRACE: Duration = Duration::from_secs(5);

/// From there to SIGKILL.
const INSIST: Duration = Duration::from_secs(3);

/// From "leave now" to SIGKILL, and from there to going without it.
const LEAVE: Duration = Duration::from_millis(500);

/// Where a groom is on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Forked; has not said that it is ready.
    Starting,
    /// It answers.
    Serving,
    /// It takes nobody new; killed at this moment.
    Draining(Tick),
    /// It was told to leave at once; killed at this moment.
    Stopping(Tick),
    /// It was sent SIGKILL; nobody waits for it longer than this.
    Killed(Tick),
}

impl Stage {
    fn is_active(self) -> bool {
        matches!(self, Self::Starting | Self::Serving)
    }
}

/// One groom.
#[derive(Debug)]
struct Groom {
    pid: ChildPid,
    generation: ids::Generation,
    orders: Orders,
    stage: Stage,
    forked: Moment,
    ready: Option<Tick>,
    pulse: Pulse,
}

/// The groom, and those before it that are not gone yet, oldest first.
#[derive(Debug)]
pub(super) struct Grooms {
    list: Vec<Groom>,
    /// Those that die young, and forks that the kernel refuses.
    failures: Backoff,
    /// How many died and were replaced.
    replaced: u32,
    /// What the current generation does not listen on any more, until the one that answers there has been told to go: so
    /// that a reload can ask for it again.
    pub(super) vanishing: StatusDoors,
}

impl Default for Grooms {
    fn default() -> Self {
        let failures =
            Backoff::new(Duration::from_millis(100), Duration::from_secs(30), Duration::from_secs(60));
        Self { list: Vec::new(), failures, replaced: 0, vanishing: StatusDoors::default() }
    }
}

impl Grooms {
    /// Whether the master need not wait for one.
    pub(super) fn are_gone(&self, now: Tick) -> bool {
        self.list.iter().all(|groom| matches!(groom.stage, Stage::Killed(until) if until <= now))
    }

    /// The master itself was held up: answers may be on their way since long.
    pub(super) fn pardon(&mut self, now: Tick) {
        self.list.iter_mut().for_each(|groom| groom.pulse.pardon(now));
    }

    /// What the scoreboard tells: the one that answers, or will.
    fn facts(&self) -> GroomFacts {
        let active = self.list.iter().rfind(|groom| groom.stage.is_active());
        GroomFacts {
            pid: active.map_or(0, |groom| groom.pid.as_raw().unsigned_abs()),
            started: active.map_or(Moment(0), |groom| groom.forked),
            replaced: self.replaced,
        }
    }
}

/// The order that is due to a groom; `None` if it may stay as it is.
fn due(stage: Stage, is_over: bool, is_superseded: bool) -> Option<Order> {
    match stage {
        Stage::Starting | Stage::Serving | Stage::Draining(_) if is_over => Some(Order::Stop),
        Stage::Starting | Stage::Serving if is_superseded => {
            Some(Order::Drain { grace_ms: milliseconds(GRACE), heir: Heir::Accepts })
        }
        _ => None,
    }
}

/// What follows a groom's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    /// Another is forked after so long.
    After(Duration),
    /// Another answers already.
    Answered,
    /// Nobody: the server stops, or has no `StatusListen` any more.
    Nobody,
}

/// How a groom has ended that should not have ended so, and what is next.
fn obituary(pid: ChildPid, death: Death, lived: Duration, next: Next) -> String {
    let how = match death {
        Death::Exited(status) if status == ChildExit::PANIC.0 => {
            "ended by a panic, which is a bug in ostler,".to_owned()
        }
        Death::Exited(status) if [ChildExit::SICK, ChildExit::FATAL].contains(&ChildExit(status)) => {
            "gave up, its own line says why,".to_owned()
        }
        Death::Exited(status) => format!("exited with status {status}"),
        Death::Killed { signal, core } => {
            format!("killed by {}{}", signal_name(signal), if core { " (core dumped)" } else { "" })
        }
    };
    let next = match next {
        Next::After(Duration::ZERO) => {
            "another takes its place now, and StatusListen waits so long".to_owned()
        }
        Next::After(delay) => {
            format!("another takes its place in {}, and StatusListen waits so long", span(delay))
        }
        Next::Answered => "it was leaving, and another answers".to_owned(),
        Next::Nobody => "nobody answers for StatusListen any more".to_owned(),
    };
    format!("groom {pid} {how} after {}; {next}; the sites are not concerned", span(lived))
}

impl Master {
    /// Sees to it that there is a groom if there is a `StatusListen`, that it lives, and that it goes when it should.
    /// When to look again.
    pub(super) fn tend_grooms(&mut self, now: Moment) -> Option<Tick> {
        let tick = now.tick();
        self.hear_grooms(tick);
        let again = self.fork_groom(now);
        self.dismiss_grooms(tick);
        let due = self.feel_grooms(tick);
        let has_none = |groom: &Groom| groom.generation == self.generation.number || !groom.stage.is_active();
        if self.grooms.list.iter().all(has_none) {
            self.grooms.vanishing = StatusDoors::default();
        }
        [again, due].into_iter().flatten().min()
    }

    /// Forks one if one is missing. When to try again, if that cannot be.
    fn fork_groom(&mut self, now: Moment) -> Option<Tick> {
        let generation = &self.generation;
        let is_there = |groom: &Groom| groom.generation == generation.number && groom.stage.is_active();
        // Over an upgrade the old master's answers until it parts, and all its clients wait at the same door.
        let is_wanted = !generation.doors.is_empty() && self.stop.is_none() && self.predecessor.is_none();
        if !is_wanted || self.grooms.list.iter().any(is_there) {
            return None;
        }
        let tick = now.tick();
        if let Some(until) = self.grooms.failures.waits(tick) {
            return Some(until);
        }
        let forked = fork(&mut self.estate, generation).and_then(|(pid, orders)| {
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&orders.as_raw_fd()), TOKEN, Interest::READABLE).inspect_err(
                |_| {
                    // It is our child and has not been reaped, so the number is its own.
                    let _ = process::kill(pid, Signal::SIGKILL);
                },
            )?;
            Ok((pid, orders))
        });
        match forked {
            Ok((pid, orders)) => {
                let (generation, pulse) = (generation.number, Pulse::default());
                let groom = Groom {
                    pid,
                    generation,
                    orders,
                    stage: Stage::Starting,
                    forked: now,
                    ready: None,
                    pulse,
                };
                self.grooms.list.push(groom);
                self.show_groom();
                None
            }
            Err(fault) => {
                let is_news = !self.grooms.failures.failing();
                let delay = self.grooms.failures.fail(tick);
                let line = format!("cannot fork the groom, so StatusListen waits: {}", cause(&fault));
                if is_news {
                    error!(self.estate.log, "{line}; trying on");
                } else {
                    debug!(self.estate.log, "{line}; next try in {}", span(delay));
                }
                Some(tick.after(delay))
            }
        }
    }

    /// Hears what they have to say.
    fn hear_grooms(&mut self, now: Tick) {
        let (log, doors) = (&self.estate.log, &self.generation.doors);
        for groom in &mut self.grooms.list {
            let pid = groom.pid;
            loop {
                match groom.orders.recv_word() {
                    Heard::Message(Word::Ready) if groom.stage == Stage::Starting => {
                        groom.stage = Stage::Serving;
                        groom.ready = Some(now);
                        groom.pulse = Pulse::new(now);
                        notice(log, &format!("status on {}, answered by groom {pid}", doors.addresses()));
                    }
                    Heard::Message(Word::Pong { ping, .. }) => {
                        if let Some(took) = groom.pulse.answer(ping, now) {
                            info!(log, "groom {pid} answers again, after {}", span(took));
                        }
                    }
                    // Somebody has sent it TERM.
                    Heard::Message(Word::Draining) if groom.stage.is_active() => {
                        groom.stage = Stage::Draining(now.after(GRACE + INSIST));
                    }
                    Heard::Message(_) | Heard::Nonsense => {}
                    // Its end is seen when it is reaped; its socket is readable till then.
                    Heard::Gone => {
                        let fd = groom.orders.as_raw_fd();
                        let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
                        break;
                    }
                    Heard::Nothing => break,
                }
            }
        }
    }

    /// Sends those away whose time has come.
    fn dismiss_grooms(&mut self, now: Tick) {
        // A master that another has followed waits for it a little, for the sake of idle clients.
        let is_over = self.children.is_empty() && self.stop.is_some();
        let is_unwanted = self.generation.doors.is_empty();
        let mut is_superseded = is_unwanted;
        for groom in self.grooms.list.iter_mut().rev() {
            let order = due(groom.stage, is_over, is_superseded);
            is_superseded |= groom.stage == Stage::Serving;
            let Some(order) = order else { continue };
            debug!(self.estate.log, "groom {} goes: {order:?}", groom.pid);
            // One that cannot hear it is killed when its time is over.
            let _ = groom.orders.send_order(order);
            groom.stage = match order {
                Order::Stop => Stage::Stopping(now.after(LEAVE)),
                _ => Stage::Draining(now.after(GRACE + INSIST)),
            };
        }
    }

    /// Pings the one that serves, and kills those that do not answer or do not go. When to look again.
    fn feel_grooms(&mut self, now: Tick) -> Option<Tick> {
        let timeout = self.generation.config.child_stall_timeout;
        let log = &self.estate.log;
        let mut next: Option<Tick> = None;
        for groom in &mut self.grooms.list {
            let pid = groom.pid;
            let mut kill = None;
            let due = match groom.stage {
                Stage::Starting => {
                    let due = groom.forked.tick().after(timeout);
                    kill = (due <= now).then(|| format!("not ready after {}", span(timeout)));
                    due
                }
                Stage::Serving => loop {
                    // It has nothing else to do: asking is cheap, and finds it stuck before somebody else does.
                    match groom.pulse.beat(true, timeout, now) {
                        Beat::Fine(due) => break due,
                        Beat::Ping(number) => {
                            let _ = groom.orders.send_order(Order::Ping(number));
                        }
                        Beat::Late(lasted) => warn!(
                            log,
                            "groom {pid} has not answered for {}; killed if it does not within {} \
                             (ChildStallTimeout)",
                            span(lasted),
                            span(timeout)
                        ),
                        Beat::Silent(lasted) => {
                            kill = Some(format!("no answer for {}", span(lasted)));
                            break now;
                        }
                    }
                },
                Stage::Draining(until) | Stage::Stopping(until) => {
                    kill = (until <= now).then(|| "it does not leave".to_owned());
                    until
                }
                Stage::Killed(until) if until <= now => continue,
                Stage::Killed(until) => until,
            };
            let due = match kill {
                None => due,
                Some(how) => {
                    let is_missed = groom.stage.is_active();
                    let next = if is_missed { " and replaced; StatusListen waits so long" } else { "" };
                    error!(log, "groom {pid}: {how}; killed{next}");
                    self.grooms.replaced = self.grooms.replaced.saturating_add(u32::from(is_missed));
                    groom.stage = Stage::Killed(now.after(LEAVE));
                    // It has not been reaped, so the kernel has not given its number to anybody else.
                    let _ = process::kill(pid, Signal::SIGKILL);
                    now.after(LEAVE)
                }
            };
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        next.map(|next| next.max(Tick(now.0 + 1)))
    }

    /// Process `pid` has been reaped; whether it was a groom.
    pub(super) fn groom_reaped(&mut self, pid: ChildPid, death: Death, now: Tick) -> bool {
        // Its last words may explain its end.
        self.hear_grooms(now);
        let Some(place) = self.grooms.list.iter().position(|groom| groom.pid == pid) else { return false };
        let groom = self.grooms.list.remove(place);
        // Before the close (invariant 9), although nobody else holds this end.
        let _ = self.poll.registry().deregister(&mut SourceFd(&groom.orders.as_raw_fd()));
        let lived = now.until(groom.forked.tick());
        match groom.stage {
            Stage::Killed(_) => debug!(self.estate.log, "groom {pid} is gone, after {}", span(lived)),
            Stage::Draining(_) | Stage::Stopping(_) if death == Death::Exited(ChildExit::OK.0) => {
                debug!(self.estate.log, "groom {pid} left, after {}", span(lived));
            }
            Stage::Starting | Stage::Serving if self.stop.is_none() => {
                let is_early = groom.ready.is_none_or(|ready| now <= ready.after(EARLY));
                let delay = if is_early { self.grooms.failures.fail(now) } else { Duration::ZERO };
                self.grooms.replaced = self.grooms.replaced.saturating_add(1);
                error!(self.estate.log, "{}", obituary(pid, death, lived, Next::After(delay)));
            }
            _ => {
                let is_answered = self.grooms.list.iter().any(|groom| groom.stage.is_active());
                let next = if is_answered { Next::Answered } else { Next::Nobody };
                error!(self.estate.log, "{}", obituary(pid, death, lived, next));
            }
        }
        self.show_groom();
        true
    }

    /// Tells readers of the scoreboard.
    pub(super) fn show_groom(&mut self) {
        let facts = self.grooms.facts();
        self.estate.board.current().set_groom(&facts, time::now());
    }
}

/// Forks it.
fn fork(estate: &mut Estate, generation: &Generation) -> io::Result<(ChildPid, Orders)> {
    is_alone()?;
    let (orders, orders_of_groom) = socket::pair()?;
    let inheritance = Inheritance {
        config: Arc::clone(&generation.config),
        doors: generation.doors.for_groom()?,
        orders: orders_of_groom,
        board: estate.board.current().reader(),
        logger: generation.log.clone(),
        identity: generation.identity.clone(),
    };
    // Above all none of the sites' listeners: whoever held one would keep its address, and be taken for a taker.
    let mut keep = generation.logs.kept_by_child();
    keep.push(inheritance.board.as_fd().as_raw_fd());
    keep.push(inheritance.orders.as_raw_fd());
    keep.extend(inheritance.doors.iter().map(|(fd, _)| fd.as_raw_fd()));
    let boards = &estate.board;
    let pid = process::spawn_child_keeping(&keep, move || {
        title::set_title("ostler: groom");
        if let Err(fault) = boards.protect_all() {
            slog::crit!(inheritance.logger, "cannot make the scoreboard read-only: {}", cause(&fault));
            return ChildExit::FATAL;
        }
        go_where_cores_go(&inheritance.config, &inheritance.logger);
        groom::run(inheritance)
    })?;
    Ok((pid, Orders::new(orders)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_to_go() {
        let drain = Some(Order::Drain { grace_ms: 5_000, heir: Heir::Accepts });
        let later = Tick(9);
        for (stage, is_over, is_superseded, want) in [
            (Stage::Starting, false, false, None),
            (Stage::Serving, false, false, None),
            (Stage::Serving, false, true, drain),
            (Stage::Starting, false, true, drain),
            (Stage::Draining(later), false, true, None),
            (Stage::Draining(later), true, true, Some(Order::Stop)),
            (Stage::Serving, true, false, Some(Order::Stop)),
            (Stage::Stopping(later), true, true, None),
            (Stage::Killed(later), true, true, None),
        ] {
            assert_eq!(due(stage, is_over, is_superseded), want, "{stage:?} {is_over} {is_superseded}");
        }
    }

    #[test]
    fn its_death_is_told_in_one_line() {
        let pid = ChildPid::new(77).expect("positive");
        let kill = Death::Killed { signal: 9, core: false };
        for (death, next, how, then) in [
            (
                kill,
                Next::After(Duration::ZERO),
                "killed by SIGKILL",
                "another takes its place now, and StatusListen waits so long",
            ),
            (
                Death::Exited(101),
                Next::After(Duration::from_millis(100)),
                "ended by a panic, which is a bug in ostler,",
                "another takes its place in 100 ms, and StatusListen waits so long",
            ),
            (
                Death::Exited(15),
                Next::Answered,
                "gave up, its own line says why,",
                "it was leaving, and another answers",
            ),
            (
                Death::Exited(3),
                Next::Nobody,
                "exited with status 3",
                "nobody answers for StatusListen any more",
            ),
        ] {
            let line = obituary(pid, death, Duration::from_secs(4), next);
            assert_eq!(line, format!("groom 77 {how} after 4 s; {then}; the sites are not concerned"));
        }
    }
}
