//! What the header tells of the server besides its shape: the configuration in force, how reloads went, who answers for
//! `StatusListen`, which master it is, and whether it has stopped.

use crate::clock::Moment;
use crate::ids::Generation;
use crate::scoreboard::board::Board;
use crate::scoreboard::layout::FLAG_EXTENDED;
use crate::scoreboard::life;
use crate::scoreboard::words::{set_text, word, write_under};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

/// What the header tells of the configuration in force. Texts that are too long are cut.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The generation that new children belong to.
    pub generation: Generation,
    /// When that generation began, in microseconds since 1970.
    pub wall_micros: u64,
    /// `event`, `worker` or `prefork`.
    pub mpm: &'a str,
    /// Name and version in three numbers, `Ostler/0.1.0`, whatever `ServerTokens` says: collectors need them.
    pub version: &'a str,
    /// `ServerName` of the main server.
    pub server_name: &'a str,
    /// The configuration file, if there is one.
    pub config_path: Option<&'a Path>,
    /// The bound addresses, a blank between them.
    pub listeners: &'a str,
    /// `MaxRequestWorkers`.
    pub max_request_workers: u32,
    /// `ThreadsPerChild`.
    pub threads_per_child: u32,
    /// `MinSpareThreads` or `MinSpareServers`, in workers.
    pub min_spare: u32,
    /// `MaxSpareThreads` or `MaxSpareServers`, in workers.
    pub max_spare: u32,
    /// `StartServers`.
    pub start_servers: u32,
    /// `ExtendedStatus`.
    pub extended: bool,
}

/// Who answers for `StatusListen`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroomFacts {
    /// Its pid; 0: there is none.
    pub pid: u32,
    /// When it was forked.
    pub started: Moment,
    /// How many before it died and were replaced.
    pub replaced: u32,
}

/// How a reload went.
#[derive(Clone, Copy, Debug)]
pub struct ReloadOutcome<'a> {
    /// When, in microseconds since 1970.
    pub wall_micros: u64,
    /// Whether the new configuration is in force.
    pub done: bool,
    /// One line: the first fault of a refused one.
    pub text: &'a str,
}

impl Board {
    /// Tells readers what configuration is in force: at start, once the addresses are bound, and at each reload.
    pub fn set_facts(&self, facts: &Facts<'_>, now: Moment) {
        let header = self.header;
        write_under(&header.sequence, || {
            for (field, value) in [
                (&header.generation, facts.generation.0),
                (&header.max_request_workers, facts.max_request_workers),
                (&header.threads_per_child, facts.threads_per_child),
                (&header.min_spare, facts.min_spare),
                (&header.max_spare, facts.max_spare),
                (&header.start_servers, facts.start_servers),
                (&header.flags, if facts.extended { FLAG_EXTENDED } else { 0 }),
            ] {
                field.store(value, Relaxed);
            }
            header.generation_wall.store(facts.wall_micros, Relaxed);
            header.mpm.store(word(facts.mpm), Relaxed);
            let path = facts.config_path.map_or(&b""[..], |path| path.as_os_str().as_bytes());
            set_text(&header.version_length, &header.version, facts.version.as_bytes());
            set_text(&header.server_name_length, &header.server_name, facts.server_name.as_bytes());
            set_text(&header.config_path_length, &header.config_path, path);
            set_text(&header.listeners_length, &header.listeners, facts.listeners.as_bytes());
        });
        header.updated.store(now.0, Relaxed);
    }

    /// Tells readers how a reload went, and counts it.
    pub fn set_reload(&self, outcome: &ReloadOutcome<'_>, now: Moment) {
        let header = self.header;
        write_under(&header.sequence, || {
            let counter = if outcome.done { &header.config_reads } else { &header.reloads_refused };
            counter.store(counter.load(Relaxed).saturating_add(1), Relaxed);
        });
        self.set_upgraded(outcome, now);
    }

    /// Tells what came of an upgrade: as [`Board::set_reload`], but that the reading of the configuration is counted
    /// already.
    pub fn set_upgraded(&self, outcome: &ReloadOutcome<'_>, now: Moment) {
        let header = self.header;
        write_under(&header.sequence, || {
            header.reload_outcome.store(if outcome.done { 1 } else { 2 }, Relaxed);
            header.reload_wall.store(outcome.wall_micros, Relaxed);
            set_text(&header.reload_text_length, &header.reload_text, outcome.text.as_bytes());
        });
        header.updated.store(now.0, Relaxed);
    }

    /// The master has another pid now.
    pub fn set_master_pid(&self, pid: u32) {
        self.header.master_start_ticks.store(life::start_ticks(pid).unwrap_or(0), Relaxed);
        self.header.master_pid.store(pid, Relaxed);
    }

    /// Tells readers who answers for `StatusListen`.
    pub fn set_groom(&self, facts: &GroomFacts, now: Moment) {
        let header = self.header;
        write_under(&header.sequence, || {
            header.groom_pid.store(facts.pid, Relaxed);
            header.grooms_replaced.store(facts.replaced, Relaxed);
            header.groom_started.store(facts.started.0, Relaxed);
        });
        header.updated.store(now.0, Relaxed);
    }

    /// The server has stopped in good order. The file stays: it tells what was.
    pub fn stopped(&self, now: Moment, wall_micros: u64) {
        write_under(&self.header.sequence, || self.header.stopped_wall.store(wall_micros, Relaxed));
        self.header.updated.store(now.0, Relaxed);
    }
}
