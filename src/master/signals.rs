//! The one table of signals: what each makes the master do, and the sentence for the manual.

use crate::sys::signal::Signal;

/// What a signal orders.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// A child has ended.
    Reap,
    /// Read the configuration anew.
    Reload,
    /// Start the new binary on the same listeners.
    Upgrade,
    /// Finish what is under way, then stop; given twice: stop now.
    GracefulStop,
    /// Stop now.
    Stop,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The signal.
    pub signal: Signal,
    /// What it orders.
    pub command: Command,
    /// What it does, for the manual.
    pub sentence: &'static str,
}

/// Every signal that the master hears.
pub const TABLE: [Entry; 8] = [
    Entry {
        signal: Signal::SIGTERM,
        command: Command::GracefulStop,
        sentence: "Stop gracefully: accept no more, finish the requests under way within \
                   GracefulShutdownTimeout, then leave. A second one stops now.",
    },
    Entry {
        signal: Signal::SIGWINCH,
        command: Command::GracefulStop,
        sentence: "As TERM. Not heard while there is a controlling terminal, which sends it when its window \
                   changes size.",
    },
    Entry {
        signal: Signal::SIGINT,
        command: Command::Stop,
        sentence: "Stop now; requests under way are cut.",
    },
    Entry { signal: Signal::SIGQUIT, command: Command::Stop, sentence: "As INT." },
    Entry {
        signal: Signal::SIGHUP,
        command: Command::Reload,
        sentence: "Reload gracefully: read and check the configuration, bind new addresses, open logs anew, \
                   start a new generation of children; once it is ready, the old one finishes what it has, and \
                   hands idle connections over as HandOver says. After any fault the old one goes on as if nothing \
                   had been asked.",
    },
    Entry { signal: Signal::SIGUSR1, command: Command::Reload, sentence: "As HUP." },
    Entry {
        signal: Signal::SIGUSR2,
        command: Command::Upgrade,
        sentence: "Upgrade: start the program as it now lies on the disk, on the same listeners; once its children \
                   serve, this master and its children finish what they have and end. After any fault they go on as \
                   if nothing had been asked. Refused by process 1 of a container.",
    },
    Entry {
        signal: Signal::SIGCHLD,
        command: Command::Reap,
        sentence: "Sent by the kernel: a child has ended.",
    },
];

/// Which signals to listen for. Without WINCH if a terminal would send it at every change of its size.
#[must_use]
pub fn heard(controlling_terminal: bool) -> Vec<Signal> {
    let signals = TABLE.iter().map(|entry| entry.signal);
    signals.filter(|&signal| !(controlling_terminal && signal == Signal::SIGWINCH)).collect()
}

/// What `signal` orders; `None` if it is none of ours.
#[must_use]
pub fn command(signal: Signal) -> Option<Command> {
    TABLE.iter().find(|entry| entry.signal == signal).map(|entry| entry.command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_orders_one_thing() {
        for (index, entry) in TABLE.iter().enumerate() {
            assert!(
                TABLE[..index].iter().all(|other| other.signal != entry.signal),
                "{:?} twice",
                entry.signal
            );
            assert_eq!(command(entry.signal), Some(entry.command));
            assert!(entry.sentence.ends_with('.'), "{:?}", entry.sentence);
        }
        assert_eq!(command(Signal::SIGSEGV), None);
    }

    #[test]
    fn a_terminal_that_changes_its_size_stops_nothing() {
        assert!(!heard(true).contains(&Signal::SIGWINCH));
        assert!(heard(false).contains(&Signal::SIGWINCH));
        assert_eq!(heard(false).len(), TABLE.len());
    }
}
