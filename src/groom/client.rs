//! One connection: reads a head, has it answered, sends the answer; one request at a time, and nothing that waits.
//!
//! What a client may hold is bounded: a head of [`HEAD`] bytes, one answer, so many seconds at each stage. A client
//! that sends faster than it reads stays unread in the kernel.

use super::ask::{self, Entrance, Verdict};
use super::desk::{Desk, Manner};
use crate::clock::Tick;
use crate::http::{Fault, HeadKind, HeadLimits, HeadScan, Method, RequestBody, RequestHead, Version};
use crate::sys::poll::Wish;
use crate::sys::socket;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Bytes that a head may have.
const HEAD: usize = 8 * 1024;

/// How large a head may be.
const LIMITS: HeadLimits = HeadLimits { line: HEAD, fields: 100, field_size: HEAD, total: HEAD };

/// How long a head may take: the first from the connection's beginning, others from their first byte.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(5);

/// How long a connection may be idle between two requests: longer than collectors commonly pause.
const IDLE_TIME: Duration = Duration::from_secs(90);

/// How long the sending of one answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// How long, and for how many bytes, a client is listened to that has its last answer and has not closed yet: a close
/// with unread bytes would reset the connection, and the answer might be lost with it.
const PARTING_TIME: Duration = Duration::from_secs(2);
const PARTING_BYTES: usize = 64 * 1024;

/// Requests that one connection may carry.
const MOST_REQUESTS: u32 = 100;

/// What a connection is at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// No byte of a request has come.
    Idle,
    /// A head is coming in.
    Head,
    /// An answer goes out.
    Answering {
        /// It is the last.
        close: bool,
    },
    /// The last answer is out; so many bytes are still taken.
    Parting {
        /// That many.
        left: usize,
    },
}

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    fd: OwnedFd,
    entrance: Entrance,
    /// What has come and is not answered yet.
    bytes: Vec<u8>,
    scan: HeadScan,
    /// `bytes` have not been looked at since the last answer.
    unseen: bool,
    out: Vec<u8>,
    sent: usize,
    stage: Stage,
    since: Tick,
    deadline: Tick,
    /// Requests that it may still carry.
    left: u32,
}

/// How far the reading has come.
enum Read {
    /// More must come.
    Wait,
    /// An answer is to be sent.
    Answer,
    /// The client is gone.
    Over,
}

impl Client {
    /// A connection that has just been accepted.
    pub fn new(fd: OwnedFd, entrance: Entrance, now: Tick) -> Self {
        Self {
            fd,
            entrance,
            bytes: Vec::new(),
            scan: HeadScan::new(),
            unseen: false,
            out: Vec::new(),
            sent: 0,
            stage: Stage::Idle,
            since: now,
            deadline: now.after(HEAD_TIME),
            left: MOST_REQUESTS,
        }
    }

    /// What it waits for.
    pub fn wish(&self) -> Wish<'_> {
        let write = matches!(self.stage, Stage::Answering { .. });
        Wish { fd: self.fd.as_fd(), read: !write, write }
    }

    /// When it has waited for long enough.
    pub fn deadline(&self) -> Tick {
        self.deadline
    }

    /// Whether it has something to do without anything happening: another request came with the last.
    pub fn is_hungry(&self) -> bool {
        self.unseen
    }

    /// Whether an answer goes out.
    pub fn is_answering(&self) -> bool {
        matches!(self.stage, Stage::Answering { .. })
    }

    /// Since when it has been waiting for the client: its beginning, or the end of its last answer.
    pub fn since(&self) -> Tick {
        self.since
    }

    /// Reads, has at most one request answered, and sends, as far as that goes without waiting. Whether the connection
    /// stays.
    pub fn advance(&mut self, desk: &mut Desk, is_leaving: bool, now: Tick) -> bool {
        if matches!(self.stage, Stage::Idle | Stage::Head) {
            match self.read(desk, is_leaving, now) {
                Read::Wait => return true,
                Read::Over => return false,
                Read::Answer => {}
            }
        }
        if let Stage::Answering { close } = self.stage {
            match self.send() {
                Ok(false) => return true,
                Err(_) => return false,
                Ok(true) if close => {
                    let _ = socket::shutdown_write(self.fd.as_fd());
                    self.stage = Stage::Parting { left: PARTING_BYTES };
                    self.since = now;
                    self.deadline = now.after(PARTING_TIME);
                }
                Ok(true) => self.rest(now),
            }
        }
        match self.stage {
            Stage::Parting { left } => self.part(left),
            _ => true,
        }
    }

    /// Its deadline is over. Whether the connection stays.
    pub fn expire(&mut self, desk: &mut Desk, is_leaving: bool, now: Tick) -> bool {
        match self.stage {
            Stage::Head => {
                self.refuse(desk, 408, now);
                self.advance(desk, is_leaving, now)
            }
            Stage::Idle | Stage::Answering { .. } | Stage::Parting { .. } => false,
        }
    }

    /// Reads until a head is complete or nothing more is there.
    fn read(&mut self, desk: &mut Desk, is_leaving: bool, now: Tick) -> Read {
        loop {
            if !self.bytes.is_empty() {
                self.unseen = false;
                match self.scan.scan(&self.bytes, &LIMITS, HeadKind::Request) {
                    Ok(Some(end)) => {
                        self.answer(end, desk, is_leaving, now);
                        return Read::Answer;
                    }
                    Err(fault) => {
                        self.refuse(desk, fault.status, now);
                        return Read::Answer;
                    }
                    Ok(None) if self.stage == Stage::Idle && self.scan.has_begun() => {
                        self.stage = Stage::Head;
                        self.deadline = self.deadline.min(now.after(HEAD_TIME));
                    }
                    Ok(None) => {}
                }
            }
            let mut piece = [0; 4096];
            match socket::recv(self.fd.as_fd(), &mut piece) {
                Ok(0) => return Read::Over,
                Ok(count) => self.bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::Wait,
                Err(_) => return Read::Over,
            }
        }
    }

    /// Has the request answered whose head is `bytes[..end]`.
    fn answer(&mut self, end: usize, desk: &mut Desk, is_leaving: bool, now: Tick) {
        let (entrance, left) = (self.entrance, self.left - 1);
        let understood = understand(&self.bytes[..end], desk, entrance);
        let (verdict, asked) = match understood {
            Ok(understood) => understood,
            Err(fault) => return self.refuse(desk, fault.status, now),
        };
        self.bytes.drain(..end);
        self.scan.reset();
        let close = !asked.persistent || left == 0 || is_leaving;
        let manner = Manner {
            head_only: asked.head_only,
            version: asked.version,
            close,
            keep: asked.asks_keep_alive.then_some((IDLE_TIME, left)),
        };
        desk.write(&mut self.out, verdict, &manner);
        self.left = left;
        self.begin_answer(close, now);
    }

    /// Answers bytes that are no request, or come too slowly. Nothing behind them is a request either.
    fn refuse(&mut self, desk: &mut Desk, status: u16, now: Tick) {
        let manner = Manner { head_only: false, version: Version::Http11, close: true, keep: None };
        desk.write(&mut self.out, Verdict::Refused(status), &manner);
        self.bytes = Vec::new();
        self.begin_answer(true, now);
    }

    fn begin_answer(&mut self, close: bool, now: Tick) {
        self.stage = Stage::Answering { close };
        self.since = now;
        self.deadline = now.after(ANSWER_TIME);
    }

    /// Sends what is left of the answer. Whether that was all.
    fn send(&mut self) -> io::Result<bool> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match socket::send(self.fd.as_fd(), rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        // An idle connection holds no page.
        self.out = Vec::new();
        self.sent = 0;
        Ok(true)
    }

    /// Waits for the next request, if it is not there already.
    fn rest(&mut self, now: Tick) {
        self.stage = Stage::Idle;
        self.since = now;
        self.unseen = !self.bytes.is_empty();
        self.deadline = now.after(if self.unseen { HEAD_TIME } else { IDLE_TIME });
        if !self.unseen {
            self.bytes = Vec::new();
        }
    }

    /// Takes what the client still sends. Whether the connection stays.
    fn part(&mut self, mut left: usize) -> bool {
        let mut piece = [0; 4096];
        while left > 0 {
            match socket::recv(self.fd.as_fd(), &mut piece) {
                Ok(0) => return false,
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stage = Stage::Parting { left };
                    return true;
                }
                Err(_) => return false,
            }
        }
        false
    }
}

/// What of a request matters to its connection.
#[derive(Clone, Copy)]
struct Asked {
    head_only: bool,
    version: Version,
    persistent: bool,
    asks_keep_alive: bool,
}

fn understand(head: &[u8], desk: &mut Desk, entrance: Entrance) -> Result<(Verdict, Asked), Fault> {
    let Desk { slots, own_name, .. } = desk;
    let head = RequestHead::parse(head, slots, &LIMITS)?;
    // A body would have to be read before the next head can be found: not worth it for a page that takes none.
    let is_bare = matches!(head.body, RequestBody::Empty | RequestBody::Length(0));
    let asked = Asked {
        head_only: head.kind == Method::Head,
        version: head.version,
        persistent: head.persistent && is_bare,
        asks_keep_alive: head.asks_keep_alive,
    };
    Ok((ask::judge(&head, entrance, own_name), asked))
}
