//! Processes: forking, reaping, signalling, and leaving the terminal.

use super::signal::{self, Signal};
use crate::ids::ChildPid;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command};

/// What a child leaves with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChildExit(pub i32);

impl ChildExit {
    /// It was told to go, or had served its number of requests.
    pub const OK: Self = Self(0);
    /// The machine is short of something (threads, descriptors); it may work later. httpd's CHILDSICK.
    pub const SICK: Self = Self(7);
    /// It cannot work with this configuration or on this machine. httpd's CHILDFATAL.
    pub const FATAL: Self = Self(15);
    /// A panic reached its first function: a bug of ours.
    pub const PANIC: Self = Self(101);
}

/// How a child ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Death {
    /// By itself, with this status, `0..=255`.
    Exited(i32),
    /// By a signal.
    Killed {
        /// The signal's number.
        signal: i32,
        /// Whether it left a core.
        core: bool,
    },
}

/// Whether `fault` says that the machine, or this user, is short of something at present: processes, threads,
/// memory, descriptors, watches.
#[must_use]
pub fn is_shortage(fault: &io::Error) -> bool {
    let errno = fault.raw_os_error().map(Errno::from_raw);
    errno.is_some_and(|errno| {
        use Errno::{EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC};
        [EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC].contains(&errno)
    })
}

/// Forks. The child runs `body` and leaves by `_exit`: it never returns into the master's code.
///
/// In the child, `body` runs with the master's signal handlers gone; PIPE, XFSZ, HUP, INT, QUIT, USR1, USR2 and
/// WINCH ignored; TERM blocked, to be read from [`signal::terminate_descriptor`]; all others at their default.
///
/// # Errors
/// EAGAIN if the user may have no more processes, ENOMEM.
pub fn spawn_child(body: impl FnOnce() -> ChildExit) -> io::Result<ChildPid> {
    let mask = signal::block_all();
    // SAFETY: the master has one thread (invariant 2), so the child inherits no lock that another thread held,
    // and `body` may allocate.
    let forked = unsafe { libc::fork() };
    match forked {
        0 => {
            signal::enter_child();
            let exit = catch_unwind(AssertUnwindSafe(body)).unwrap_or(ChildExit::PANIC);
            leave(exit.0)
        }
        -1 => {
            let error = io::Error::last_os_error();
            signal::restore(&mask);
            Err(error)
        }
        pid => {
            signal::restore(&mask);
            Ok(ChildPid::new(pid).expect("fork returns -1, 0 or the number of a child"))
        }
    }
}

/// As [`spawn_child`], but first closes every descriptor in the child except 0, 1, 2 and those in `keep`.
///
/// What the master owns (its poll, its signals, the other children's orders) must not live on in a child: a
/// held orders socket would hide the master's death, a held listener keep its address. Since `body` never
/// returns into the master's code, nobody uses or closes those numbers again.
///
/// # Errors
/// As [`spawn_child`].
pub fn spawn_child_keeping(keep: &[RawFd], body: impl FnOnce() -> ChildExit) -> io::Result<ChildPid> {
    let mut keep: Vec<RawFd> = keep.to_vec();
    keep.sort_unstable();
    spawn_child(move || {
        close_all_but(&keep);
        body()
    })
}

/// Closes every descriptor above 2 that is not in `keep`, which is sorted.
fn close_all_but(keep: &[RawFd]) {
    let mut first = libc::STDERR_FILENO.unsigned_abs() + 1;
    for fd in keep.iter().map(|fd| fd.unsigned_abs()).filter(|&fd| fd > libc::STDERR_FILENO.unsigned_abs()) {
        if first < fd {
            close_range(first, fd - 1);
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: takes no pointer. Only a fresh child calls this, before its body; the owners of these numbers are
    // the master's values, which the child neither uses nor drops.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // Kernels before 5.9: one by one.
    let highest = super::privilege::nofile().map_or(1024, |(soft, _)| soft);
    let highest = u32::try_from(highest).unwrap_or(u32::MAX).min(1 << 20);
    for fd in first..=last.min(highest) {
        // SAFETY: as above; numbers that are not open are refused.
        unsafe { libc::close(fd.cast_signed()) };
    }
}

/// Leaves at once: no destructor, no exit handler and no buffer of a forked process belongs to it.
pub fn leave(status: i32) -> ! {
    // SAFETY: takes no pointer and does not return. `exit` would run the exit handlers of the process that we
    // were forked from a second time.
    unsafe { libc::_exit(status) }
}

/// Which side of [`split`] one is on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The one that called, with the new one's number.
    Parent(ChildPid),
    /// The new one.
    Child,
}

/// Forks, and both sides go on. For detaching from the terminal only, before there is anything to share.
///
/// # Errors
/// As [`spawn_child`].
pub fn split() -> io::Result<Side> {
    // SAFETY: called while the process has one thread, as `spawn_child`; the child goes on with memory of its own.
    let forked = unsafe { libc::fork() };
    match forked {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(ChildPid::new(pid).expect("fork returns -1, 0 or the number of a child"))),
    }
}

/// Leads a new session, without a controlling terminal.
///
/// # Errors
/// EPERM if we lead a process group already.
pub fn new_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Whether the process has a controlling terminal, whose resizing would send it WINCH.
#[must_use]
pub fn has_controlling_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Starts a program that gets the descriptors of `keep`, under their numbers, and no other but the standard streams;
/// with every signal at its default, whatever this process ignores.
///
/// # Errors
/// As [`Command::spawn`]: the program is not there, is none, or there is no room for a process.
pub fn start_program(command: &mut Command, keep: &[RawFd]) -> io::Result<Child> {
    let keep = keep.to_vec();
    let prepare = move || {
        signal::default_all();
        keep.iter().try_for_each(|&number| {
            // SAFETY: the caller holds these open while it starts the program.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
        })?;
        Ok(())
    };
    // SAFETY: between fork and exec `prepare` makes system calls only: it takes no lock and no memory.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

/// Starts a program that is told to stop (INT) when the calling thread ends, however that comes about; in a process
/// group of its own, which a terminal's Ctrl-C does not reach, and with every signal at its default.
///
/// # Errors
/// As [`Command::spawn`].
pub fn start_companion(command: &mut Command) -> io::Result<Child> {
    let prepare = || {
        signal::default_all();
        // SAFETY: this prctl takes numbers only.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec `prepare` makes system calls only: it takes no lock and no memory.
    unsafe { command.process_group(0).pre_exec(prepare) };
    command.spawn()
}

/// A child that has ended, or `None` if none has (also if we have no child at all). To be called until `None`,
/// because signals merge: one CHLD may stand for many.
///
/// # Errors
/// None that Linux documents; passed on rather than hidden.
pub fn reap() -> io::Result<Option<(ChildPid, Death)>> {
    match wait(-1, libc::WNOHANG) {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        other => other,
    }
}

/// Waits until this child has ended. For the short-lived ones of [`split`] only: it blocks.
///
/// # Errors
/// ECHILD if it is not our child.
pub fn wait_for(pid: ChildPid) -> io::Result<Death> {
    let ended = wait(pid.as_raw(), 0)?;
    ended.map(|(_, death)| death).ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))
}

/// waitpid(2) until a child has ended; `None` if none has and `flags` say not to wait for one.
///
/// Not nix's: that fails where it has no name for the signal, a real-time one, when the kernel has given up the child
/// already. Nobody would ever learn of that end, and its number would be signalled when it is somebody else's.
fn wait(pid: libc::pid_t, flags: libc::c_int) -> io::Result<Option<(ChildPid, Death)>> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is ours alone until the call returns.
        match unsafe { libc::waitpid(pid, &raw mut status, flags) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
            0 => return Ok(None),
            ended => {
                if let Some(death) = death(status) {
                    let pid = ChildPid::new(ended).expect("waitpid returns -1, 0 or the number of a child");
                    return Ok(Some((pid, death)));
                }
            }
        }
    }
}

/// What a status of waitpid(2) says; `None` if the child was only stopped or continued.
fn death(status: libc::c_int) -> Option<Death> {
    if libc::WIFEXITED(status) {
        return Some(Death::Exited(libc::WEXITSTATUS(status)));
    }
    let killed = || Death::Killed { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) };
    libc::WIFSIGNALED(status).then(killed)
}

/// Sends `signal` to one process.
///
/// # Errors
/// ESRCH if it is gone, EPERM if it is not ours.
pub fn kill(pid: ChildPid, signal: Signal) -> io::Result<()> {
    nix::sys::signal::kill(Pid::from_raw(pid.as_raw()), signal)?;
    Ok(())
}

/// A descriptor that becomes readable when the process has ended, ours or not.
///
/// # Errors
/// ESRCH if it is gone; ENOSYS on kernels before 5.3.
pub fn watch(pid: ChildPid) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    match RawFd::try_from(result) {
        Ok(fd) if fd >= 0 => {
            // SAFETY: the kernel has just made this descriptor (CLOEXEC) for us, so nobody else owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a process of this number exists, ours or not.
#[must_use]
pub fn is_alive(pid: ChildPid) -> bool {
    !matches!(nix::sys::signal::kill(Pid::from_raw(pid.as_raw()), None), Err(Errno::ESRCH))
}

/// Whether `fault`, of reading below `/proc/PID`, means that there is no such process. ENOENT alone does not: where
/// `/proc` is mounted with hidepid, as by a service manager's ProtectProc, it is said of every process of another user,
/// and kill(2) still knows them. Any other error tells of the reader and not of the process.
#[must_use]
pub fn is_gone(pid: ChildPid, fault: &io::Error) -> bool {
    let is_absent = matches!(fault.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ESRCH));
    is_absent && !is_alive(pid)
}

/// Who has forked this process, as long as that one lives; `None` if it is in another pid namespace.
#[must_use]
pub fn parent() -> Option<ChildPid> {
    ChildPid::new(nix::unistd::getppid().as_raw())
}

/// The kernel's number of the calling thread.
#[must_use]
pub fn gettid() -> u32 {
    nix::unistd::gettid().as_raw().unsigned_abs()
}

/// How many threads this process has.
///
/// # Errors
/// If /proc is not mounted.
pub fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// How many cores this process may use, at least 1.
#[must_use]
pub fn allowed_cores() -> usize {
    let this_thread = Pid::from_raw(0);
    let count = sched_getaffinity(this_thread)
        .map_or(1, |cores| (0..CpuSet::count()).filter(|&core| cores.is_set(core).unwrap_or(false)).count());
    count.max(1)
}

/// The name of a signal, `SIGSEGV`, or `signal 40` for those without one.
#[must_use]
pub fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{self, Seen, Wish};
    use std::os::fd::{AsFd, AsRawFd};

    fn run(body: impl FnOnce() -> ChildExit) -> Death {
        wait_for(spawn_child(body).unwrap()).unwrap()
    }

    #[test]
    fn a_child_leaves_with_what_its_body_says() {
        for exit in [ChildExit::OK, ChildExit::SICK, ChildExit::FATAL, ChildExit(200)] {
            assert_eq!(run(|| exit), Death::Exited(exit.0));
        }
    }

    #[test]
    fn a_panic_in_a_child_ends_there() {
        // resume_unwind: no message, whose printing would take a lock that another test's thread may hold.
        let death = run(|| std::panic::resume_unwind(Box::new(())));
        assert_eq!(death, Death::Exited(ChildExit::PANIC.0));
    }

    #[test]
    fn a_child_hears_term_as_a_descriptor_and_ignores_what_groups_are_sent() {
        let death = run(|| {
            let me = ChildPid::new(nix::unistd::getpid().as_raw()).expect("a process has a positive number");
            for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGWINCH, Signal::SIGTERM]
            {
                if kill(me, signal).is_err() {
                    return ChildExit(1);
                }
            }
            let Ok(terminate) = signal::terminate_descriptor() else { return ChildExit(2) };
            let mut seen = [Seen::default()];
            let wish = Wish { fd: terminate.as_fd(), read: true, write: false };
            let count = poll::wait(&[wish], None, &mut seen);
            if count.is_ok_and(|count| count == 1) { ChildExit::OK } else { ChildExit(3) }
        });
        assert_eq!(death, Death::Exited(0));
    }

    #[test]
    fn a_child_keeps_only_the_descriptors_it_is_given() {
        let (reader, writer) = crate::sys::fd::pipe().unwrap();
        let (other, another) = crate::sys::fd::pipe().unwrap();
        let keep = [writer.as_raw_fd(), reader.as_raw_fd()];
        let body = || {
            let kept = crate::sys::fd::write(writer.as_fd(), b"x").is_ok();
            let closed = [&other, &another].iter().all(|fd| {
                crate::sys::fd::duplicate(fd.as_fd())
                    .is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
            });
            if kept && closed { ChildExit::OK } else { ChildExit(1) }
        };
        let pid = spawn_child_keeping(&keep, body).unwrap();
        assert_eq!(wait_for(pid).unwrap(), Death::Exited(0));
        assert_eq!(crate::sys::fd::read(reader.as_fd(), &mut [0; 2]).unwrap(), 1);
    }

    #[test]
    fn every_child_is_reaped_and_its_death_told() {
        // The last two are real-time signals, which nix has no name for.
        for number in [libc::SIGKILL, libc::SIGTRAP, 34, 64] {
            // In a process of its own, for waiting for any child would steal those of other tests.
            let death = run(|| {
                let victim = spawn_child(|| {
                    // No core is to be left on the disk.
                    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
                    let mut nothing = [];
                    let _ = poll::wait::<Wish<'_>>(&[], None, &mut nothing);
                    ChildExit::OK
                });
                let Ok(victim) = victim else { return ChildExit(1) };
                // SAFETY: takes numbers only; the child has not been waited for, so the number is its own.
                if !matches!(reap(), Ok(None)) || unsafe { libc::kill(victim.as_raw(), number) } != 0 {
                    return ChildExit(2);
                }
                loop {
                    match reap() {
                        Ok(None) => std::thread::yield_now(),
                        Ok(Some((pid, Death::Killed { signal, .. })))
                            if (pid, signal) == (victim, number) =>
                        {
                            break;
                        }
                        _ => return ChildExit(3),
                    }
                }
                if matches!(reap(), Ok(None)) { ChildExit::OK } else { ChildExit(4) }
            });
            assert_eq!(death, Death::Exited(0), "signal {number}");
        }
    }

    #[test]
    fn what_the_kernel_says_of_an_end_is_understood() {
        let killed = |signal, core| Some(Death::Killed { signal, core });
        for (status, want) in [
            (0x0000, Some(Death::Exited(0))),
            (0x0700, Some(Death::Exited(7))),
            (0xff00, Some(Death::Exited(255))),
            (0x0009, killed(9, false)),
            (0x008b, killed(11, true)),
            (0x0022, killed(34, false)),
            (0x0040, killed(64, false)),
            (0x137f, None),
            (0xffff, None),
        ] {
            assert_eq!(death(status), want, "{status:#x}");
        }
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(64), "signal 64");
    }

    #[test]
    fn there_is_a_core_and_a_thread() {
        assert!(allowed_cores() >= 1);
        assert!(threads().unwrap() >= 1);
    }
}
