//! Where lines go: descriptors that the master opened for appending.
//!
//! One write per line, so that lines of many processes never mix: O_APPEND sees to that for files, PIPE_BUF for
//! pipes. A reopened log reaches everybody by `dup3` onto the same number, so a [`Sink`] is never exchanged.
//! A write that fails loses its line, is counted, and is said once.

use super::line::{Escaping, Heading, Level, LogLevels, Module, write_heading};
use crate::sys::{process, time};
use slog::{Drain, KV, Key, Never, OwnedKVList, Record, Serializer};
use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// PIPE_BUF on Linux: a pipe takes so many bytes as one piece.
const PIPE_LINE: usize = 4096;
/// How a line ends that was longer than a pipe takes as one piece.
const CUT: &[u8] = b"...\n";

/// A log's descriptor. Clones share it.
#[derive(Clone, Debug)]
pub struct Sink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    pipe: bool,
    /// Lines lost since the last that was written.
    losing: AtomicU64,
    /// Lines lost since the start of this process.
    lost: AtomicU64,
}

/// What became of a line.
#[derive(Debug)]
pub enum Appended {
    /// It is written.
    Written,
    /// It is written, after so many were lost: worth a line in the error log.
    Recovered(u64),
    /// It is lost, and it is the first: worth a line in the error log.
    Failed(io::Error),
    /// It is lost, as those before it.
    StillFailing,
}

impl From<OwnedFd> for Sink {
    fn from(fd: OwnedFd) -> Self {
        let file = File::from(fd);
        let pipe = file.metadata().is_ok_and(|facts| facts.file_type().is_fifo());
        Self(Arc::new(Inner { file, pipe, losing: AtomicU64::new(0), lost: AtomicU64::new(0) }))
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl AsRawFd for Sink {
    fn as_raw_fd(&self) -> RawFd {
        self.0.file.as_raw_fd()
    }
}

impl Sink {
    /// Writes one line, its end included, by one write. A line too long for a pipe is cut to what the pipe takes
    /// as one piece, never split.
    pub fn append(&self, line: &[u8]) -> Appended {
        match self.write(line) {
            Ok(()) if self.0.losing.load(Ordering::Relaxed) == 0 => Appended::Written,
            Ok(()) => match self.0.losing.swap(0, Ordering::Relaxed) {
                0 => Appended::Written,
                count => Appended::Recovered(count),
            },
            Err(fault) => {
                self.0.lost.fetch_add(1, Ordering::Relaxed);
                match self.0.losing.fetch_add(1, Ordering::Relaxed) {
                    0 => Appended::Failed(fault),
                    _ => Appended::StillFailing,
                }
            }
        }
    }

    /// Lines that this process could not write.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut file = &self.0.file;
        if self.0.pipe && line.len() > PIPE_LINE {
            let parts = [IoSlice::new(&line[..PIPE_LINE - CUT.len()]), IoSlice::new(CUT)];
            return retry(|| file.write_vectored(&parts)).map(drop);
        }
        // A second write happens only where a file system was full in the middle of a line.
        let mut rest = line;
        while !rest.is_empty() {
            match retry(|| file.write(rest))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => rest = &rest[count..],
            }
        }
        Ok(())
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// A logger that writes httpd's error lines into `sink`.
///
/// The pair `"module" => "proxy"` names who speaks (`core` without it), `"client" => addr` whom it is about; other
/// pairs follow the message as `, key=value`. A tag names the levels that slog lacks; for the one that is common,
/// there is [`super::line::notice`].
pub fn logger(sink: Sink, levels: &LogLevels) -> slog::Logger {
    slog::Logger::root(ErrorLog { sink, levels: *levels }, slog::o!())
}

/// The drain behind [`logger`].
#[derive(Debug)]
pub struct ErrorLog {
    sink: Sink,
    levels: LogLevels,
}

/// Buffers of a thread, so that a line costs no allocation.
#[derive(Default)]
struct Scratch {
    line: String,
    pairs: Pairs,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Buffers above this size are given back after the line that needed them.
const SCRATCH_KEPT: usize = 16 * 1024;

impl Drain for ErrorLog {
    type Ok = ();
    type Err = Never;

    fn is_enabled(&self, level: slog::Level) -> bool {
        // Notices come as Info and are always written.
        level.is_at_least(slog::Level::Info) || level.is_at_least(self.levels.finest().carrier())
    }

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let level = Level::of(record.level(), record.tag());
        let mut finder = ModuleFinder(None);
        // Neither these serializers nor `String` ever fail.
        let _ = record.kv().serialize(record, &mut finder);
        if finder.0.is_none() {
            let _ = values.serialize(record, &mut finder);
        }
        let module = finder.0.unwrap_or(Module::Core);
        if !self.levels.admits(module, level) {
            return Ok(());
        }
        // Taken out, not borrowed: a value whose Display logs must not find the buffer in use.
        let mut scratch = SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_default();
        scratch.pairs.clear();
        let _ = record.kv().serialize(record, &mut scratch.pairs);
        let _ = values.serialize(record, &mut scratch.pairs);
        let Scratch { line, pairs } = &mut *scratch;
        compose(line, record, level, module, pairs);
        self.write(line);
        if line.capacity() <= SCRATCH_KEPT {
            let _ = SCRATCH.try_with(|kept| kept.set(Some(scratch)));
        }
        Ok(())
    }
}

impl ErrorLog {
    fn write(&self, line: &mut String) {
        // The error log is where faults are said; for its own there is only stderr, and if that fails, nothing.
        match self.sink.append(line.as_bytes()) {
            Appended::Written | Appended::StillFailing => {}
            Appended::Failed(fault) => {
                let _ = writeln!(io::stderr(), "ostler: cannot write the error log, lines are lost: {fault}");
            }
            Appended::Recovered(count) => {
                let _ =
                    writeln!(io::stderr(), "ostler: the error log can be written again, {count} lines lost");
            }
        }
    }
}

fn compose(line: &mut String, record: &Record<'_>, level: Level, module: Module, pairs: &Pairs) {
    line.clear();
    let heading = Heading {
        wall_us: time::wall_micros(),
        module,
        level,
        pid: std::process::id(),
        tid: process::gettid(),
        client: pairs.has_client.then_some(pairs.client.as_str()),
    };
    write_heading(line, &heading);
    let _ = Escaping(line).write_fmt(*record.msg());
    pairs.write(line);
    line.push('\n');
}

/// Finds the module before anything is formatted, so that a line that nobody wants costs little.
struct ModuleFinder(Option<Module>);

impl Serializer for ModuleFinder {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        match value.as_str() {
            Some(name) => self.emit_str(key, name),
            None if key == "module" => self.emit_str(key, &value.to_string()),
            None => Ok(()),
        }
    }

    fn emit_str(&mut self, key: Key, value: &str) -> slog::Result {
        // The record's own pair comes first and wins over those of its logger.
        if key == "module" && self.0.is_none() {
            self.0 =
                Module::ALL.iter().copied().find(|module| module.name() == value).or(Module::parse(value));
        }
        Ok(())
    }
}

/// The pairs of a record: the client apart, the others as text.
#[derive(Default)]
struct Pairs {
    client: String,
    has_client: bool,
    text: String,
    /// Where each pair begins in `text`. slog gives them last first.
    starts: Vec<usize>,
}

impl Pairs {
    fn clear(&mut self) {
        self.client.clear();
        self.has_client = false;
        self.text.clear();
        self.starts.clear();
    }

    fn write(&self, line: &mut String) {
        let mut end = self.text.len();
        for start in self.starts.iter().rev() {
            line.push_str(", ");
            line.push_str(&self.text[*start..end]);
            end = *start;
        }
    }
}

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        match key {
            "module" => {}
            "client" if self.has_client => {}
            "client" => {
                self.has_client = true;
                self.client.write_fmt(*value)?;
            }
            _ => {
                self.starts.push(self.text.len());
                self.text.push_str(key);
                self.text.push('=');
                Escaping(&mut self.text).write_fmt(*value)?;
            }
        }
        Ok(())
    }

    fn emit_none(&mut self, _: Key) -> slog::Result {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::line::Client;
    use crate::log::line::notice;
    use crate::sys::fd;
    use slog::{debug, error, info, o, trace, warn};
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn reading() -> (File, Sink) {
        let (end, sink) = fd::pipe().expect("a pipe");
        (File::from(end), Sink::from(sink))
    }

    /// Everything written, once all writers are gone, without what differs from run to run.
    fn lines(mut end: File) -> Vec<String> {
        let mut text = String::new();
        end.read_to_string(&mut text).expect("log lines are text");
        let us = format!("[pid {}:tid ", std::process::id());
        text.lines()
            .map(|line| {
                let (stamp, rest) = line.split_once("] ").expect("a stamp");
                assert_eq!(stamp.len(), "[Sun Nov 22 09:00:27.123456 2026".len(), "{line}");
                let (module, rest) = rest.split_once(' ').expect("module and level");
                let (_, rest) = rest.strip_prefix(&us).expect("our pid").split_once("] ").expect("a tid");
                format!("{module} {rest}")
            })
            .collect()
    }

    #[test]
    fn pairs_go_into_their_brackets_and_behind_the_message() {
        let (end, sink) = reading();
        let log = logger(sink, &LogLevels::new(Level::Trace8));
        let child = log.new(o!("module" => "mpm_event", "slot" => 3));
        let client = Client("[::ffff:192.0.2.7]:4711".parse().expect("an address"));
        error!(log, "plain");
        notice!(child, "{} up", "child");
        warn!(child, "mine"; "module" => "proxy", "client" => client, "backend" => "b\n", "tries" => 2);
        debug!(log, "x"; "client" => %"10.0.0.1:1", "none" => None::<u8>);
        trace!(log, # "trace5", "deep\x1b[m"; "module" => "no such module");
        slog::crit!(log, # "emerg", "over");
        drop((log, child));
        assert_eq!(
            lines(end),
            [
                "[core:error] plain",
                "[mpm_event:notice] child up, slot=3",
                "[proxy:warn] [client 192.0.2.7:4711] mine, slot=3, backend=b\\n, tries=2",
                "[core:debug] [client 10.0.0.1:1] x",
                "[core:trace5] deep\\x1b[m",
                "[core:emerg] over",
            ]
        );
    }

    #[test]
    fn each_module_has_its_level_and_a_notice_always_passes() {
        let (end, sink) = reading();
        let mut levels = LogLevels::new(Level::Error);
        levels.set(Module::Proxy, Level::Debug);
        let log = logger(sink, &levels);
        warn!(log, "not this");
        warn!(log, "this"; "module" => "proxy");
        debug!(log, "this too"; "module" => "proxy");
        trace!(log, "not this"; "module" => "proxy");
        debug!(log, "not this"; "module" => "http");
        notice!(log, "always");
        drop(log);
        assert_eq!(lines(end), ["[proxy:warn] this", "[proxy:debug] this too", "[core:notice] always"]);
    }

    #[test]
    fn a_value_that_logs_while_it_is_shown_does_no_harm() {
        struct Talkative(slog::Logger);
        impl fmt::Display for Talkative {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                info!(self.0, "inner");
                f.write_str("outer")
            }
        }
        let (end, sink) = reading();
        let log = logger(sink, &LogLevels::new(Level::Info));
        info!(log, "{}", Talkative(log.clone()));
        drop(log);
        assert_eq!(lines(end), ["[core:info] inner", "[core:info] outer"]);
    }

    #[test]
    fn a_line_too_long_for_a_pipe_is_cut_not_split() {
        let (mut end, sink) = reading();
        for length in [PIPE_LINE, PIPE_LINE + 1, 3 * PIPE_LINE] {
            let mut line = vec![b'x'; length - 1];
            line.push(b'\n');
            assert!(matches!(sink.append(&line), Appended::Written));
        }
        drop(sink);
        let mut text = String::new();
        end.read_to_string(&mut text).expect("text");
        let ends: Vec<_> = text.lines().map(|line| (line.len() + 1, line.ends_with("..."))).collect();
        assert_eq!(ends, [(PIPE_LINE, false), (PIPE_LINE, true), (PIPE_LINE, true)]);
    }

    #[test]
    fn losses_are_counted_and_said_once() {
        let (end, other) = UnixStream::pair().expect("a socket pair");
        end.set_nonblocking(true).expect("non-blocking");
        let sink = Sink::from(OwnedFd::from(end));
        let line = vec![b'x'; 1 << 16];
        let mut failed = 0;
        while failed < 3 {
            match sink.append(&line) {
                Appended::Written => assert_eq!(failed, 0),
                Appended::Failed(fault) => {
                    assert_eq!((failed, fault.kind()), (0, io::ErrorKind::WouldBlock));
                    failed = 1;
                }
                Appended::StillFailing => failed += 1,
                Appended::Recovered(_) => panic!("nobody has read"),
            }
        }
        other.set_nonblocking(true).expect("non-blocking");
        let mut other = other;
        while matches!(other.read(&mut vec![0; 1 << 16]), Ok(count) if count > 0) {}
        assert!(matches!(sink.append(b"back\n"), Appended::Recovered(3)));
        assert!(matches!(sink.append(b"fine\n"), Appended::Written));
        assert_eq!(sink.lost(), 3);
    }
}
