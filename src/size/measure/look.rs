//! A server as its scoreboard and `/proc` show it now.

use super::MeasureError;
use crate::ids::ChildPid;
use crate::scoreboard::snapshot::Snapshot;
use crate::size::observed::{ChildSeen, Tree};
use crate::sys::memory::{self, ProcessMemory};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The memory of all processes of the server whose scoreboard, at `board`, is `snapshot`. The numbers there are gossip:
/// who is not a child of the master's, or is gone meanwhile, is left out.
///
/// # Errors
/// If the master's or a child's memory may not be read.
pub fn tree(board: &Path, snapshot: &Snapshot) -> Result<Tree, MeasureError> {
    let server = &snapshot.server;
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let master = read(server.master_pid)?
        .ok_or_else(|| MeasureError::Memory { pid: server.master_pid, source: gone() })?;
    let mut children = Vec::new();
    for child in snapshot.children.iter().filter(|child| child.is_alive()) {
        if let Some(memory) = read(child.pid)?.filter(|memory| memory.parent == server.master_pid) {
            children.push(ChildSeen {
                slot: child.slot,
                pid: child.pid,
                memory,
                busy: child.busy,
                connections: child.connections.total,
            });
        }
    }
    let file = fs::metadata(board).ok();
    Ok(Tree {
        pid: server.master_pid,
        master,
        children,
        threads: server.threads_per_child.max(1),
        board: file.as_ref().map_or(0, fs::Metadata::len),
        // The kernel counts blocks of 512 bytes, whatever the file system's are.
        board_used: file.map_or(0, |file| file.blocks() * 512),
    })
}

/// The memory of a process; `None` if there is no such process any more.
fn read(pid: u32) -> Result<Option<ProcessMemory>, MeasureError> {
    /// ESRCH: it went away between the opening and the reading.
    const NO_SUCH_PROCESS: i32 = 3;
    let Some(number) = i32::try_from(pid).ok().and_then(ChildPid::new) else { return Ok(None) };
    match memory::of_process(number) {
        Ok(memory) => Ok(Some(memory)),
        Err(fault)
            if fault.kind() == io::ErrorKind::NotFound || fault.raw_os_error() == Some(NO_SUCH_PROCESS) =>
        {
            Ok(None)
        }
        Err(source) => Err(MeasureError::Memory { pid, source }),
    }
}
