//! What bounds the server, as the machine tells it. Gathered by [`measure::machine`](super::measure::machine).

use super::budget::Pot;
use crate::sys::limits::{MachineLimits, ProcessLimits};

/// How many processes and threads there may be, and who says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TaskBound {
    /// `kernel.threads-max, kernel.pid_max`, or the file of a control group.
    pub name: String,
    /// The most.
    pub limit: u64,
    /// How many others than the server has now.
    pub others: u64,
}

/// What the server may have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// Memory: the machine's first, then each control group's.
    pub pots: Vec<Pot>,
    /// Processes and threads.
    pub tasks: Vec<TaskBound>,
    /// What each process may have: the live master's limits, else our own.
    pub process: ProcessLimits,
    /// What all together may have.
    pub machine: MachineLimits,
}
