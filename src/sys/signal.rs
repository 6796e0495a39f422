//! Signals: blocked, ignored, or read from a descriptor. No code of ours runs in signal context.
//!
//! The master hears them as bytes in a pipe (signal-hook's handler writes one), so that they are one more
//! source of its poll. A child ignores what a terminal or a service manager sends to whole groups, and has
//! TERM blocked in every thread, to be read from [`terminate_descriptor`]. A prefork child has the kernel signal what its
//! orders socket has to say ([`Knock`]).

use mio::net::UnixStream;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use nix::sys::signal::Signal;

/// What a process that forks from the master ignores from its first moment.
///
/// PIPE and XFSZ are answered as errors of the write instead. The others reach whole groups (Ctrl-C in a
/// terminal, a service manager): the master hears them and tells its children by their orders sockets.
const IGNORED_BY_CHILDREN: [Signal; 8] = [
    Signal::SIGPIPE,
    Signal::SIGXFSZ,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Signals as a source for a mio poll.
#[derive(Debug)]
pub struct SignalPipe(SignalDelivery<UnixStream, SignalOnly>);

impl SignalPipe {
    /// From now on, these signals arrive here and do nothing else.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        let numbers = signals.iter().map(|&signal| signal as i32);
        let writer = OwnedFd::from(writer);
        Ok(Self(SignalDelivery::with_pipe(reader, writer, SignalOnly, numbers)?))
    }

    /// What to register with a poll, for readability.
    pub fn source(&mut self) -> &mut UnixStream {
        self.0.get_read_mut()
    }

    /// Which signals came since the last call. Several of one kind count once, as the kernel has it.
    pub fn pending(&mut self) -> Vec<Signal> {
        self.0.pending().filter_map(|number| Signal::try_from(number).ok()).collect()
    }
}

/// The signals a thread had blocked before [`block_all`].
#[derive(Debug)]
pub struct Mask(SigSet);

/// Blocks every signal in the calling thread, and says what was blocked before.
#[must_use]
pub fn block_all() -> Mask {
    let mut before = SigSet::empty();
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))
        .expect("the sets are ours, and SIG_SETMASK is a way that the kernel knows");
    Mask(before)
}

/// Blocks again exactly what was blocked before [`block_all`].
pub fn restore(mask: &Mask) {
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask.0), None)
        .expect("the set is ours, and SIG_SETMASK is a way that the kernel knows");
}

/// Ignores PIPE and XFSZ, as the master does: a write that fails says so itself.
pub fn ignore_write_faults() {
    for signal in [Signal::SIGPIPE, Signal::SIGXFSZ] {
        dispose(signal, SigHandler::SigIgn);
    }
}

/// The first steps of a forked child, which has every signal blocked: takes the master's handlers away, then
/// unblocks everything but TERM, which it will read from [`terminate_descriptor`].
pub(super) fn enter_child() {
    // SEGV and BUS: Rust's own handler tells a stack overflow from other faults, but swallows the first signal
    // that somebody sends.
    for signal in [Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGSEGV, Signal::SIGBUS] {
        dispose(signal, SigHandler::SigDfl);
    }
    for signal in IGNORED_BY_CHILDREN {
        dispose(signal, SigHandler::SigIgn);
    }
    let mut terminate = SigSet::empty();
    terminate.add(Signal::SIGTERM);
    restore(&Mask(terminate));
}

/// Gives every signal that a child ignores its default back, and lets all in: for a program that is about to take this
/// process over, which inherits both.
pub(super) fn default_all() {
    for signal in IGNORED_BY_CHILDREN {
        dispose(signal, SigHandler::SigDfl);
    }
    restore(&Mask(SigSet::empty()));
}

/// For a child: a non-blocking descriptor that is readable once TERM has come. It needs no reading: a TERM that
/// stays pending stays readable, for every poll of the process.
///
/// # Errors
/// If no descriptor is left.
pub fn terminate_descriptor() -> io::Result<OwnedFd> {
    let mut terminate = SigSet::empty();
    terminate.add(Signal::SIGTERM);
    let descriptor = SignalFd::with_flags(&terminate, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    Ok(descriptor.into())
}

/// Whether TERM has come; `descriptor` is from [`terminate_descriptor`].
#[must_use]
pub fn is_pending(descriptor: &OwnedFd) -> bool {
    let wish = super::poll::Wish { fd: std::os::fd::AsFd::as_fd(descriptor), read: true, write: false };
    let mut seen = [super::poll::Seen::default()];
    super::poll::wait(&[wish], Some(std::time::Duration::ZERO), &mut seen).is_ok_and(|count| count > 0)
}

/// A flag that is up once a socket has something to read: the kernel sends IO to this process then, and signal-hook's
/// handler raises the flag. To look at it is no call, and the signal ends a read that waits.
#[derive(Debug)]
pub struct Knock(Arc<AtomicBool>);

impl Knock {
    /// At `socket`, from now on. The flag is up already, as there may be something to read.
    ///
    /// # Errors
    /// If the signal or the socket is not to be had.
    pub fn at(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(true));
        signal_hook::flag::register(Signal::SIGIO as i32, Arc::clone(&flag))?;
        let pid = nix::unistd::getpid().as_raw();
        // SAFETY: the descriptor is open, and the argument is a plain number.
        Errno::result(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETOWN, pid) })?;
        let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
        fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_ASYNC))?;
        Ok(Self(flag))
    }

    /// Whether there has been something to read since [`Knock::answer`].
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes the flag down; what comes after this raises it again. Then read until there is nothing more.
    pub fn answer(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Stops this process, as Ctrl-Z would have if its signal were not read from a descriptor; returns once somebody lets
/// it go on.
pub fn stop_this_process() {
    nix::sys::signal::raise(Signal::SIGSTOP).expect("a process may signal itself");
}

fn dispose(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the new disposition is to ignore or the default, so no code of ours can run in signal context;
    // the old one is not looked at.
    unsafe { nix::sys::signal::sigaction(signal, &action) }
        .expect("only KILL, STOP and numbers out of range are refused");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{socket, time};
    use std::os::fd::AsFd;

    fn until(knock: &Knock) {
        let begin = time::now();
        while !knock.is_heard() {
            assert!(time::now().micros_since(begin) < 10_000_000, "nobody has knocked");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_comes_and_the_other_sides_end_are_heard() {
        let (ours, theirs) = socket::pair().unwrap();
        let knock = Knock::at(ours.as_fd()).unwrap();
        assert!(knock.is_heard(), "something may have come before");
        for message in [b"one", b"two"] {
            knock.answer();
            assert!(!knock.is_heard());
            socket::send(theirs.as_fd(), message).unwrap();
            until(&knock);
            assert_eq!(socket::recv(ours.as_fd(), &mut [0; 8]).unwrap(), 3);
        }
        knock.answer();
        drop(theirs);
        until(&knock);
    }
}
