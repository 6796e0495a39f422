//! A terminal for a program under test: a pseudo-terminal of the kernel's, and a screen that reads what is written.

use super::{GLANCE, PATIENCE, processes};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{Termios, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running program and the terminal that it was started in, which controls it.
pub struct Terminal {
    process: Child,
    /// The end of the person in front of it.
    keyboard: File,
    /// The program's end, kept open so that its modes can be read when the program has gone.
    line: Option<OwnedFd>,
    path: PathBuf,
    before: Termios,
    begun: Instant,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a terminal has rows and columns")
}

impl Terminal {
    /// Starts `program` in a new terminal of this size.
    #[track_caller]
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        columns: u16,
        rows: u16,
    ) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } =
            openpty(&size, None).expect("the kernel has a terminal to give");
        let path = nix::unistd::ttyname(&slave).expect("it has a name");
        let before = tcgetattr(&slave).expect("it is a terminal");
        let end = || slave.try_clone().expect("a descriptor is free");
        let begun = Instant::now();
        // It makes the terminal the one that controls the program: only such a one tells of a new size.
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(program)
            .args(arguments)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .stdin(end())
            .stdout(end())
            .stderr(end());
        let process = command.spawn().expect("setsid is part of util-linux");
        let keyboard = File::from(master);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 0)));
        let reader = read_into(keyboard.try_clone().expect("a descriptor is free"), Arc::clone(&screen));
        Self { process, keyboard, line: Some(slave), path, before, begun, screen, reader: Some(reader) }
    }

    /// Types.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        processes::send(i32::try_from(self.process.id()).expect("the kernel's numbers are small"), signal);
    }

    /// Gives the terminal another size; the kernel tells the program.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.with(|screen| screen.set_size(cells(rows), cells(columns)));
        let mut stty = Command::new("stty");
        stty.arg("-F").arg(&self.path);
        stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
        assert!(stty.status().expect("stty is part of coreutils").success(), "{stty:?}");
    }

    /// What stands on the screen, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.with(|screen| {
            let (_, columns) = screen.screen().size();
            screen.screen().rows(0, columns.get()).map(|line| line.trim_end().to_owned()).collect()
        })
    }

    /// Waits until the screen satisfies `is_so`, and gives its lines and how long after the start that was.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, is_so: impl Fn(&[String]) -> bool) -> (Vec<String>, Duration) {
        let start = Instant::now();
        loop {
            let lines = self.lines();
            if is_so(&lines) {
                return (lines, self.begun.elapsed());
            }
            let ended = self.process.try_wait().expect("it is our own child");
            assert!(ended.is_none(), "it ended ({ended:?}) before: {what}\n{}", lines.join("\n"));
            assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}\n{}", lines.join("\n"));
            std::thread::sleep(GLANCE);
        }
    }

    /// Waits until some line of the screen holds `words`.
    #[track_caller]
    pub fn wait_for_words(&mut self, words: &str) -> Vec<String> {
        self.wait_for(words, |lines| lines.iter().any(|line| line.contains(words))).0
    }

    /// Whether the program draws on the other screen, without a cursor.
    pub fn is_taken(&self) -> bool {
        self.with(|screen| screen.screen().alternate_screen() && screen.screen().hide_cursor())
    }

    /// Whether any cell has a colour.
    pub fn has_colour(&self) -> bool {
        self.with(|screen| {
            let screen = screen.screen();
            let (rows, columns) = screen.size();
            let cells = (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
            let plain = vt100::Color::Default;
            cells
                .filter_map(|(row, column)| screen.cell(row, column))
                .any(|cell| cell.fgcolor() != plain || cell.bgcolor() != plain)
        })
    }

    /// Waits for the program's end, and asserts that the terminal is as it was: its modes, its screen, its cursor.
    #[track_caller]
    pub fn wait_for_end(mut self) -> (ExitStatus, Vec<String>) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().expect("it is our own child") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end:\n{}", self.lines().join("\n"));
            std::thread::sleep(GLANCE);
        };
        let line = self.line.take().expect("taken here only");
        assert!(
            tcgetattr(&line).expect("it is a terminal") == self.before,
            "modes of the terminal have changed"
        );
        // Without the program's end, whoever reads the other one sees its end once all has been read.
        drop(line);
        self.reader.take().expect("taken here only").join().expect("a screen never panics");
        self.with(|screen| {
            let screen = screen.screen();
            assert!(!screen.alternate_screen(), "the other screen is left");
            assert!(!screen.hide_cursor(), "the cursor is back");
        });
        (status, self.lines())
    }

    fn with<T>(&self, look: impl FnOnce(&mut vt100::Parser) -> T) -> T {
        look(&mut self.screen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Harmless if it has ended and been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
        drop(self.line.take());
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read_into(mut from: File, screen: Arc<Mutex<vt100::Parser>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        // EIO: nobody has the other end any more.
        while let Ok(count @ 1..) = from.read(&mut piece) {
            screen.lock().unwrap_or_else(PoisonError::into_inner).process(&piece[..count]);
        }
    })
}
