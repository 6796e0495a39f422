//! Measuring: what processes of a server take, live or private, and what the machine has.
//!
//! [`look`] reads a server that runs, [`machine`] what there is, [`private`] starts a server of this program's own,
//! puts it under [`load`], reads it as if it were any other, and stops it. What the figures mean is decided by
//! [`observed`](super::observed).

pub mod load;
pub mod look;
pub mod machine;
pub mod private;

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why something could not be measured.
#[derive(Debug)]
pub enum MeasureError {
    /// A process's memory may not be read.
    Memory {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// The private server did not come as far as this.
    Stuck {
        /// How far.
        what: String,
        /// The last lines that it said.
        said: String,
    },
    /// The private server could not be set up.
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A signal asked us to leave.
    Interrupted,
    /// A directory of ours could not be made.
    Directory {
        /// Its name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for MeasureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { pid, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "the memory of process {pid} may be read by root only (smaps_rollup)")
            }
            Self::Memory { pid, .. } => write!(f, "cannot read the memory of process {pid}"),
            Self::Stuck { what, said } if said.is_empty() => write!(f, "the private server: {what}"),
            Self::Stuck { what, said } => write!(f, "the private server: {what}; it said: {said}"),
            Self::System { what, .. } => write!(f, "cannot {what}"),
            Self::Interrupted => write!(f, "interrupted; the private server has been stopped"),
            Self::Directory { path, .. } => write!(f, "cannot make the directory {}", path.display()),
        }
    }
}

impl std::error::Error for MeasureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // The sentence says it all.
            Self::Memory { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => None,
            Self::Memory { source, .. } | Self::System { source, .. } | Self::Directory { source, .. } => {
                Some(source)
            }
            Self::Stuck { .. } | Self::Interrupted => None,
        }
    }
}
