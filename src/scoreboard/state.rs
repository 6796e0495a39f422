//! What a worker and a child can be doing, as one byte each.

/// What a worker row is doing: httpd's states, numbers and letters.
///
/// The order has a meaning: up to [`WorkerState::Ready`] nothing is being served.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum WorkerState {
    /// `.` no thread stands behind the row.
    Dead = 0,
    /// `S` the thread is being made.
    Starting = 1,
    /// `_` waits for work.
    Ready = 2,
    /// `R` reads a request head.
    Read = 3,
    /// `W` serves a request: waits for the backend or sends the response.
    Write = 4,
    /// `K` waits for the next request of a kept-alive connection (prefork and worker).
    KeepAlive = 5,
    /// `L` writes the access log.
    Log = 6,
    /// `D` looks up a name.
    Dns = 7,
    /// `C` closes the connection, lingering.
    Closing = 8,
    /// `G` finishes its work in a child that is leaving.
    Graceful = 9,
    /// `I` was idle for too long and is going.
    IdleKill = 10,
}

impl WorkerState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Dead,
        Self::Starting,
        Self::Ready,
        Self::Read,
        Self::Write,
        Self::KeepAlive,
        Self::Log,
        Self::Dns,
        Self::Closing,
        Self::Graceful,
        Self::IdleKill,
    ];

    /// `None` for a byte that no writer of ours writes.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// The letter shown on status pages.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Dead => '.',
            Self::Starting => 'S',
            Self::Ready => '_',
            Self::Read => 'R',
            Self::Write => 'W',
            Self::KeepAlive => 'K',
            Self::Log => 'L',
            Self::Dns => 'D',
            Self::Closing => 'C',
            Self::Graceful => 'G',
            Self::IdleKill => 'I',
        }
    }

    /// The state in a word or two, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Read => "read",
            Self::Write => "write",
            Self::KeepAlive => "keep_alive",
            Self::Log => "log",
            Self::Dns => "dns",
            Self::Closing => "closing",
            Self::Graceful => "graceful",
            Self::IdleKill => "idle_kill",
        }
    }

    /// What the letter means, as the legend says it.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Dead => "open slot with no current process",
            Self::Starting => "starting up",
            Self::Ready => "waiting for connection",
            Self::Read => "reading request",
            Self::Write => "sending reply",
            Self::KeepAlive => "keepalive (read)",
            Self::Log => "logging",
            Self::Dns => "DNS lookup",
            Self::Closing => "closing connection",
            Self::Graceful => "gracefully finishing",
            Self::IdleKill => "idle cleanup of worker",
        }
    }

    /// Whether the row is held: a connection or an exchange has it.
    #[must_use]
    pub fn is_busy(self) -> bool {
        self > Self::Ready && self != Self::IdleKill
    }
}

/// Where a child is in its life, as its process row tells.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub enum Stage {
    /// The slot is free.
    #[default]
    Free = 0,
    /// Forked, not serving yet.
    Starting = 1,
    /// Serving.
    Ready = 2,
    /// Told to leave: finishes what it has.
    Quiescing = 3,
    /// About to exit.
    Gone = 4,
}

impl Stage {
    /// `None` for a number that no writer of ours writes.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Free),
            1 => Some(Self::Starting),
            2 => Some(Self::Ready),
            3 => Some(Self::Quiescing),
            4 => Some(Self::Gone),
            _ => None,
        }
    }

    /// The word on status pages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Quiescing => "draining",
            Self::Gone => "gone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_letters_are_httpds() {
        let letters: String = WorkerState::ALL.iter().map(|state| state.letter()).collect();
        assert_eq!(letters, ".S_RWKLDCGI");
        for byte in 0..=u8::MAX {
            let state = WorkerState::from_byte(byte);
            assert_eq!(state.map(|state| state as u8), (byte <= 10).then_some(byte));
        }
    }

    #[test]
    fn stages_are_known_by_number() {
        for number in 0..5 {
            assert_eq!(Stage::from_number(number).map(|stage| stage as u32), Some(number));
        }
        assert_eq!(Stage::from_number(5), None);
    }
}
