//! `ostler size`: looks, measures, reckons, and says what came of it.

use super::advice::{Misfit, Question, advise};
use super::budget::{Asked, budget};
use super::costs::{Costs, Kernel};
use super::measure::private::Trial;
use super::measure::{MeasureError, look, machine, private};
use super::observed::{Measured, Samples, Source, Tree, live, live_slope};
use super::page::{Told, page};
use super::{json, snippet};
use crate::config::model::{Config, Endpoint, Mpm};
use crate::ids::ChildPid;
use crate::scoreboard::snapshot::{Life, Snapshot, SnapshotError};
use crate::sys::privilege;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// Idle connections for each worker of event, if neither the command line nor the configuration says.
pub const IDLE_PER_WORKER: u32 = 10;

/// ThreadsPerChild, if nobody says.
const THREADS: u32 = 25;

/// In which form the answer is wanted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Form {
    /// The arithmetic, and the configuration below it.
    #[default]
    Page,
    /// For programs.
    Json,
    /// The configuration alone.
    Config,
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Inquiry {
    /// The configuration, if there is one.
    pub config: Option<Config>,
    /// Where a live server's scoreboard would be.
    pub board: Option<PathBuf>,
    /// Whether the scoreboard was named for itself: then it must be there.
    pub board_is_named: bool,
    /// `--mpm`.
    pub mpm: Option<Mpm>,
    /// `--memory`, `--reserve`.
    pub asked: Asked,
    /// `--idle`: connections for each worker (event).
    pub idle: Option<u32>,
    /// `--reload`.
    pub reload: bool,
    /// `--private`: leave a live server alone.
    pub private: bool,
    /// `--json`, `--print-config`.
    pub form: Form,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The scoreboard that was named can't be read.
    Board(SnapshotError),
    /// Nothing could be measured.
    Measure(MeasureError),
    /// Nobody tells how much memory there is.
    NoMemory,
    /// Nothing fits.
    Misfit(Misfit),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board(error) => error.fmt(f),
            Self::Measure(error) => error.fmt(f),
            Self::NoMemory => {
                write!(f, "/proc/meminfo does not tell how much memory there is; name it with --memory")
            }
            Self::Misfit(misfit) => misfit.fmt(f),
        }
    }
}

impl Error for Unanswered {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Board(error) => error.source(),
            Self::Measure(error) => error.source(),
            Self::NoMemory | Self::Misfit(_) => None,
        }
    }
}

/// Answers.
///
/// # Errors
/// See [`Unanswered`].
pub fn answer(inquiry: &Inquiry) -> Result<String, Unanswered> {
    let mut remarks = Vec::new();
    let running = running(inquiry)?;
    let config = inquiry.config.as_ref();
    let live_mpm = running.as_ref().and_then(|(_, snapshot)| by_name(&snapshot.server.mpm));
    let mpm = inquiry.mpm.or_else(|| config.map(|config| config.mpm)).or(live_mpm).unwrap_or(Mpm::Event);
    let tree = match &running {
        Some(_) if inquiry.private => None,
        Some((_, snapshot)) if live_mpm != Some(mpm) => {
            remarks.push(format!(
                "the live server (pid {}) runs {}, not {}; a private one was measured instead",
                snapshot.server.master_pid,
                snapshot.server.mpm,
                mpm.name()
            ));
            None
        }
        Some((path, snapshot)) => match look::tree(path, snapshot) {
            Ok(tree) if tree.children.is_empty() => None,
            Ok(tree) => Some(tree),
            Err(fault) => {
                let pid = snapshot.server.master_pid;
                remarks.push(format!(
                    "the live server (pid {pid}) was not measured: {fault}; a private one was"
                ));
                None
            }
        },
        None => None,
    };
    let threads = match (mpm, config, &tree) {
        (Mpm::Prefork, _, _) => 1,
        (_, Some(config), _) => config.limits.threads_per_child,
        (_, None, Some(tree)) => tree.threads,
        (_, None, None) => THREADS,
    };
    let stack = config.and_then(|config| config.limits.thread_stack_size);
    let measured = measured(&Trial { mpm, threads, stack }, tree.as_ref()).map_err(Unanswered::Measure)?;
    let me = ChildPid::new(std::process::id().cast_signed()).expect("a process has a positive number");
    let master = tree.as_ref().and_then(|tree| ChildPid::new(tree.pid.cast_signed()));
    let facts = machine::facts(master.unwrap_or(me), tree.as_ref().map_or(0, Tree::tasks));
    let under_way = config.and_then(|config| config.send_buffer);
    let kernel = Kernel::with_under_way(under_way.map_or(facts.machine.send_buffer, u64::from));
    let own = tree.as_ref().map_or(0, |tree| tree.pss() + tree.kernel(&kernel));
    let budget = budget(&facts.pots, own, inquiry.asked).ok_or(Unanswered::NoMemory)?;
    let question = question(inquiry, mpm, threads);
    let advice = advise(&question, &measured.costs, &kernel, &budget, &facts).map_err(Unanswered::Misfit)?;
    let told = Told { measured: &measured, budget: &budget, advice: &advice, remarks: &remarks };
    Ok(match inquiry.form {
        Form::Page => page(&told),
        Form::Json => json::document(&told),
        Form::Config => snippet::snippet(&advice, budget.bytes),
    })
}

/// The scoreboard of a server that runs.
fn running(inquiry: &Inquiry) -> Result<Option<(PathBuf, Snapshot)>, Unanswered> {
    let Some(path) = &inquiry.board else { return Ok(None) };
    match Snapshot::read(path) {
        Ok(snapshot) if snapshot.life == Life::Running => Ok(Some((path.clone(), snapshot))),
        Ok(_) => Ok(None),
        Err(error) if inquiry.board_is_named => Err(Unanswered::Board(error)),
        Err(_) => Ok(None),
    }
}

fn by_name(name: &str) -> Option<Mpm> {
    [Mpm::Event, Mpm::Worker, Mpm::Prefork].into_iter().find(|mpm| mpm.name() == name)
}

/// The costs: from the live server as far as its figures tell, from a private one for the rest.
fn measured(trial: &Trial, tree: Option<&Tree>) -> Result<Measured, MeasureError> {
    let known = Costs::known(trial.mpm);
    let by_trial = |samples: &Samples| samples.costs(&known);
    let Some(tree) = tree else { return private::measure(trial).map(|samples| by_trial(&samples)) };
    // A slope over connections tells nothing of workers.
    let enough = trial.mpm != Mpm::Event && live_slope(trial.mpm, tree).is_some();
    let other = if enough {
        let source = Source::Known;
        Measured {
            costs: known,
            child: source,
            thread: source,
            busy: source,
            idle: source,
            tree: Tree::default(),
        }
    } else {
        by_trial(&private::measure(trial)?)
    };
    Ok(live(trial.mpm, tree, &other))
}

fn question(inquiry: &Inquiry, mpm: Mpm, threads: u32) -> Question {
    let config = inquiry.config.as_ref();
    let bounded = config.and_then(|config| config.limits.max_connections_per_process);
    let idle = match (mpm, inquiry.idle, bounded) {
        (Mpm::Worker | Mpm::Prefork, _, _) => 0,
        (Mpm::Event, Some(idle), _) => idle.saturating_mul(threads),
        (Mpm::Event, None, Some(most)) => most.get().saturating_sub(threads),
        (Mpm::Event, None, None) => IDLE_PER_WORKER.saturating_mul(threads),
    };
    let is_tcp = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Tcp { .. });
    Question {
        mpm,
        threads,
        idle,
        reload: inquiry.reload,
        listeners: config.map_or(1, |config| config.listen.len() as u64),
        logs: config.map_or(1, |config| config.log_targets.len() as u64),
        doors: config.map_or(0, |config| config.status_listen.len() as u64),
        tcp_backends: config.map_or(0, |config| {
            config.backends.iter().filter(|backend| is_tcp(&backend.endpoint)).count() as u64
        }),
        root: privilege::is_root() && config.is_some_and(|config| config.user.is_none()),
    }
}
