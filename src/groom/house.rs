//! Who is heard, served and waited for, and until when: the groom's one loop.
//!
//! One thread and one poll(2) for all: orders first, then new clients, then those that are there. No step waits, and
//! none is longer than the making of one page.

use super::Inheritance;
use super::ask::Entrance;
use super::client::Client;
use super::clients::{Clients, MOST};
use super::desk::Desk;
use crate::clock::Tick;
use crate::http::{DateStamp, FieldSlots};
use crate::log::line::cause;
use crate::orders::{Heard, Order, Orders, Word};
use crate::sys::poll::{self, Seen, Wish};
use crate::sys::{process, signal, socket, time};
use slog::{Logger, error, warn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How long idle clients may stay where somebody has sent TERM.
const GRACE: Duration = Duration::from_secs(5);

/// How long nobody is accepted after a want of descriptors or memory.
const RECOVERY: Duration = Duration::from_millis(100);

struct House {
    orders: Orders,
    /// `None` once TERM has come: it stays readable.
    terminate: Option<OwnedFd>,
    doors: Vec<(OwnedFd, Entrance)>,
    clients: Clients,
    desk: Desk,
    log: Logger,
    /// When to leave at the latest, if it is leaving.
    leave_by: Option<Tick>,
    /// When to accept again after a want.
    accept_at: Tick,
    /// That want has been told.
    told_want: bool,
}

/// Answers until an order says otherwise, or the master is gone.
pub(super) fn serve(inheritance: Inheritance, log: Logger) -> io::Result<()> {
    let Inheritance { config, doors, orders, board, .. } = inheritance;
    let desk = Desk {
        board,
        product: config.server_tokens.product(),
        own_name: config.hosts[0].name.clone(),
        slots: FieldSlots::new(),
        date: DateStamp::new(),
        log: log.clone(),
        told: Tick(0),
    };
    let mut house = House {
        orders: Orders::new(orders),
        terminate: Some(signal::terminate_descriptor()?),
        doors,
        clients: Clients::default(),
        desk,
        log,
        leave_by: None,
        accept_at: Tick(0),
        told_want: false,
    };
    house.say(Word::Ready);
    while house.turn()? {}
    Ok(())
}

impl House {
    /// Waits for something to happen, and sees to it. Whether to go on.
    fn turn(&mut self) -> io::Result<bool> {
        let now = time::now().tick();
        let accepts = self.accept_at <= now;
        let read = |fd| Wish { fd, read: true, write: false };
        let mut wishes = vec![read(self.orders.as_fd())];
        wishes.extend(self.terminate.iter().map(|fd| read(fd.as_fd())));
        let first_door = wishes.len();
        let doors = if accepts { &self.doors[..] } else { &[] };
        wishes.extend(doors.iter().map(|(fd, _)| read(fd.as_fd())));
        let first_client = wishes.len();
        wishes.extend(self.clients.iter().map(Client::wish));
        let mut seen = vec![Seen::default(); wishes.len()];
        poll::wait(&wishes, self.timeout(now), &mut seen)?;
        drop(wishes);

        let now = time::now().tick();
        if seen[0].readable && !self.hear(now) {
            return Ok(false);
        }
        if first_door > 1 && seen[1].readable {
            self.terminate = None;
            self.say(Word::Draining);
            self.begin_leaving(now.after(GRACE), now);
        }
        self.attend(&seen[first_client..], now);
        if seen[first_door..first_client].iter().any(|door| door.readable) {
            self.welcome(now);
        }
        Ok(self.leave_by.is_none_or(|leave_by| now < leave_by && !self.clients.is_empty()))
    }

    fn timeout(&self, now: Tick) -> Option<Duration> {
        if self.clients.iter().any(Client::is_hungry) {
            return Some(Duration::ZERO);
        }
        let recovery = (self.accept_at > now && !self.doors.is_empty()).then_some(self.accept_at);
        let next = [self.clients.deadline(), self.leave_by, recovery].into_iter().flatten().min();
        next.map(|next| next.until(now))
    }

    /// Hears the master. Whether to go on.
    fn hear(&mut self, now: Tick) -> bool {
        loop {
            match self.orders.recv_order() {
                Heard::Nothing => return true,
                // Whoever reads the status of a server without a master asks the file.
                Heard::Gone => return false,
                Heard::Nonsense => warn!(self.log, "an order that makes no sense, ignored"),
                Heard::Message(Order::Ping(ping)) => self.say(Word::Pong { ping, progress_ms: 0 }),
                Heard::Message(Order::Drain { grace_ms, .. }) => {
                    self.begin_leaving(now.after(Duration::from_millis(grace_ms.into())), now);
                }
                Heard::Message(Order::Stop) => {
                    // What has been asked already gets its answer, as far as that goes without waiting.
                    self.leave_by = Some(now);
                    self.welcome(now);
                    self.attend(&[], now);
                    return false;
                }
                // These are about the sites' clients.
                Heard::Message(Order::Accept | Order::LastAt(_)) => {}
            }
        }
    }

    fn say(&self, word: Word) {
        // A master that is gone is noticed by its silence.
        let _ = self.orders.send_word(word);
    }

    /// Takes nobody new from here on, and leaves when the last is gone, at the latest at `leave_by`. Who waits at the
    /// doors now is still let in: it may be that nobody else comes to open.
    fn begin_leaving(&mut self, leave_by: Tick, now: Tick) {
        self.leave_by = Some(self.leave_by.map_or(leave_by, |former| former.min(leave_by)));
        self.welcome(now);
        self.doors.clear();
    }

    /// Lets everybody in who waits, and serves them at once if they have asked already.
    fn welcome(&mut self, now: Tick) {
        let is_leaving = self.leave_by.is_some();
        for (door, entrance) in &self.doors {
            // Whoever is behind these has the next turn.
            for _ in 0..2 * MOST {
                let fd = match socket::accept_any(door.as_fd()) {
                    Ok((fd, _)) => fd,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if process::is_shortage(&error) => {
                        self.accept_at = now.after(RECOVERY);
                        if !std::mem::replace(&mut self.told_want, true) {
                            warn!(self.log, "StatusListen cannot accept: {}; trying on", cause(&error));
                        }
                        break;
                    }
                    // That connection has died in the queue.
                    Err(_) => continue,
                };
                self.told_want = false;
                let mut client = Client::new(fd, *entrance, now);
                let desk = &mut self.desk;
                if survives(&self.log, || client.advance(desk, is_leaving, now)) {
                    self.clients.admit(client);
                }
            }
        }
    }

    /// Goes on with those of whom something was seen, that have more to do, or that have waited for long enough.
    /// Without any word of what was seen, with all.
    fn attend(&mut self, seen: &[Seen], now: Tick) {
        let is_leaving = self.leave_by.is_some();
        let Self { clients, desk, log, .. } = self;
        clients.retain(|place, client| {
            let is_called = seen.get(place).is_none_or(|seen| seen.readable || seen.writable);
            survives(log, || {
                let stays = !(is_called || client.is_hungry()) || client.advance(desk, is_leaving, now);
                stays && (client.deadline() > now || client.expire(desk, is_leaving, now))
            })
        });
    }
}

/// What `step` says; `false` if it panics: a bug of ours costs that one connection.
fn survives(log: &Logger, step: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| {
        error!(
            log,
            "a bug in Ostler: an answer for StatusListen ended by a panic; one connection is lost, please \
                     report it"
        );
        false
    })
}
