//! One thread, one connection, to its end: the worker and prefork drivers' way through the same engine.

use super::child::{Child, panic_text};
use super::conn::{Conn, Scratch, Turn, patience};
use super::nap::{Awaited, Habit};
use super::table::News;
use crate::clock::Tick;
use crate::log::line::cause;
use crate::sys::fd::EventFd;
use crate::sys::poll::{self, Seen, Wish};
use slog::error;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a thread of a child that leaves looks whether its connection is to end earlier than it was told.
const LOOK: Duration = Duration::from_secs(1);

/// What a thread listens to beside its connection.
pub trait Interrupt {
    /// The descriptor to watch; `None` once there is nothing more to hear.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
    /// Whether it is known, without a call, to be readable: so that one who naps need not ask the kernel. What is not known
    /// is heard at the next look.
    fn has_knocked(&self) -> bool;
    /// It is readable. `false`: the thread is to leave at once, whatever it is doing.
    fn heard(&mut self) -> bool;
}

/// Serves `conn` until it is over. `false`: the thread is to leave at once.
pub fn serve(child: &Child, conn: &mut Conn, scratch: &mut Scratch, interrupt: &mut dyn Interrupt) -> bool {
    let bell = &child.bells[conn.who.index as usize];
    let outcome = catch_unwind(AssertUnwindSafe(|| rounds(child, conn, scratch, interrupt, bell)));
    let stay = outcome.unwrap_or_else(|payload| {
        child.panicked(&panic_text(payload.as_ref()));
        *scratch = Scratch::new();
        true
    });
    // What was read from one client is never another's.
    scratch.early = None;
    let now = child.read_clock();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| conn.close(child, scratch, now))) {
        child.panicked(&panic_text(payload.as_ref()));
    }
    stay
}

fn rounds(
    child: &Child,
    conn: &mut Conn,
    scratch: &mut Scratch,
    interrupt: &mut dyn Interrupt,
    bell: &EventFd,
) -> bool {
    let mut news = News::NONE;
    let mut habit = Habit::new(child.now().tick());
    loop {
        let now = child.read_clock();
        habit.end(news == News::TIMER, now.tick());
        let turn = conn.run(news, child, scratch, now);
        debug_assert!(scratch.early.is_none(), "what a nap has read is what is read next");
        let deadline = match turn {
            Turn::Over => return true,
            Turn::Again => {
                news = News::NONE;
                // Both sides may be as fast as we are for as long as a body lasts; the master must be heard meanwhile.
                match interrupt.descriptor().map_or(Ok(false), poll::is_readable) {
                    Ok(true) if !interrupt.heard() => return false,
                    Ok(_) => continue,
                    Err(fault) => {
                        error!(child.log, "waiting for orders: {}; a connection is closed", cause(&fault); "module" => "core");
                        return true;
                    }
                }
            }
            // Threads that serve one connection to its end hand none over.
            Turn::Wait(deadline) | Turn::HandOver(deadline) => deadline,
        };
        let awaited = conn.awaited();
        // An order that came before a request is heard before it. In the middle of an exchange one can wait.
        let is_called = awaited == Some(Awaited::Client) && interrupt.has_knocked();
        let naps = habit.begin(awaited, deadline, is_called, now.tick());
        // Whoever waits here is not stuck: the steward looks.
        child.waiting_threads.fetch_add(1, Ordering::Relaxed);
        let waited = match awaited.filter(|_| naps).and_then(|awaited| conn.nap(awaited, scratch)) {
            Some(news) => {
                let listens = awaited == Some(Awaited::Client) || news == News::TIMER;
                Ok((news, listens && interrupt.has_knocked()))
            }
            None => {
                // An order that leaves less time than the last one has nothing of its own to be heard by.
                let look = if child.is_leaving() { now.tick().after(LOOK) } else { Tick::NEVER };
                wait(conn, interrupt.descriptor(), bell, deadline.min(look), now.tick())
            }
        };
        child.waiting_threads.fetch_sub(1, Ordering::Relaxed);
        match waited {
            Ok((seen, interrupted)) => {
                news = seen;
                if interrupted && !interrupt.heard() {
                    return false;
                }
            }
            Err(fault) => {
                error!(child.log, "waiting for a connection: {}; it is closed", cause(&fault); "module" => "core");
                return true;
            }
        }
    }
}

/// Waits for whatever `conn` waits for, the interrupt, or a place at its backend. Also says whether it was the
/// interrupt.
fn wait(
    conn: &Conn,
    interrupt: Option<BorrowedFd<'_>>,
    bell: &EventFd,
    deadline: Tick,
    now: Tick,
) -> std::io::Result<(News, bool)> {
    let (client, upstream) = conn.wishes();
    let listen = |fd| Wish { fd, read: true, write: false };
    // The bell tells of a place at a backend, and each descriptor costs.
    let bell_wish = conn.waits_for_place().then(|| listen(bell.as_fd()));
    let wishes = [client, upstream, interrupt.map(listen), bell_wish];
    let mut seen = [Seen::default(); 4];
    poll::wait(&wishes, patience(deadline, now), &mut seen)?;
    let mut news = News::NONE;
    let [of_client, of_upstream, of_interrupt, of_bell] = seen;
    if of_client.readable {
        news |= News::CLIENT_READ;
    }
    if of_client.writable {
        news |= News::CLIENT_WRITE;
    }
    if client.is_some_and(|wish| !wish.read) && of_client.readable && of_client.writable {
        // Not wished for, so this is a hang-up or an error: the client is gone.
        news |= News::CLIENT_BROKEN;
    }
    if of_upstream.readable {
        news |= News::UPSTREAM_READ;
    }
    if of_upstream.writable {
        news |= News::UPSTREAM_WRITE;
    }
    if of_bell.readable && bell.clear() {
        news |= News::LINK;
    }
    if news == News::NONE {
        news = News::TIMER;
    }
    Ok((news, of_interrupt.readable))
}
