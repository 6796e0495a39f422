//! The PidFile: under a lock while its master lives, so that a number left behind misleads nobody.
//!
//! The lock is fcntl's: it belongs to the process, is not inherited by children, and goes with the process
//! however that ends. It would also go if the master closed any other descriptor of the file, so the file is
//! opened once and kept. Written in place, never renamed: the lock is on the inode.

use crate::ids::ChildPid;
use crate::sys::lock::{self, Holder};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most bytes of a file left behind that anybody would take for a number.
const LONGEST: usize = 64;

/// The file of a running master: this process.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

/// What taking the file came to.
#[derive(Debug)]
pub enum Taken {
    /// It is ours.
    Ours {
        /// The file.
        file: PidFile,
        /// What stood in it: the last master left without removing it.
        left_behind: Option<String>,
    },
    /// Another master holds it.
    Held(Holder),
}

impl PidFile {
    /// Locks the file at `path` and writes our number. To be called in the process that stays the master, after
    /// the last fork on the way there.
    ///
    /// # Errors
    /// If it can't be opened, locked or written.
    pub fn take(path: &Path) -> io::Result<Taken> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(path)?;
            if !lock::try_lock(file.as_fd())? {
                match lock::holder(file.as_fd())? {
                    Holder::Nobody => continue,
                    holder => return Ok(Taken::Held(holder)),
                }
            }
            // Its last owner may have removed it between our opening and locking: then we hold a lock on a
            // file that nobody can find.
            if !is_at(&file, path) {
                continue;
            }
            let left_behind = Some(read_all(&file)?).filter(|text| !text.is_empty());
            let file = Self { path: path.to_owned(), file };
            file.write()?;
            return Ok(Taken::Ours { file, left_behind });
        }
    }

    /// Lets another process lock it. The number in it stays until that one writes its own.
    ///
    /// # Errors
    /// None that Linux documents.
    pub fn unlock(&self) -> io::Result<()> {
        lock::unlock(self.file.as_fd())
    }

    /// Takes it back after [`PidFile::unlock`].
    ///
    /// # Errors
    /// If another process has locked it, or it cannot be written.
    pub fn lock_again(&self) -> io::Result<()> {
        if !lock::try_lock(self.file.as_fd())? {
            return Err(io::Error::other("another process has locked it"));
        }
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let text = format!("{}\n", std::process::id());
        // In one write over all that stands there, so that nobody reads our number and the rest of a longer one.
        let before =
            usize::try_from(self.file.metadata()?.len()).map_or(LONGEST, |length| length.min(LONGEST));
        let mut bytes = text.clone().into_bytes();
        bytes.resize(text.len().max(before), b'\n');
        self.file.write_all_at(&bytes, 0)?;
        self.file.set_len(text.len() as u64)
    }

    /// Removes the file, unless somebody has put another in its place; then unlocks.
    pub fn remove(self) {
        if is_at(&self.file, &self.path) {
            // If it can't be removed, the next master finds an unlocked file and takes it over.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Who holds the file at `path`.
///
/// # Errors
/// If it exists and can't be read.
pub fn holder(path: &Path) -> io::Result<Holder> {
    match File::open(path) {
        Ok(file) => lock::holder(file.as_fd()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Holder::Nobody),
        Err(error) => Err(error),
    }
}

/// The master that runs under the file at `path`, if it is one of this pid namespace.
///
/// # Errors
/// If it exists and can't be read.
pub fn master(path: &Path) -> io::Result<Option<ChildPid>> {
    Ok(match holder(path)? {
        Holder::Process(pid) => Some(pid),
        Holder::Nobody | Holder::Elsewhere => None,
    })
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// What stands in the file, made harmless for a log line.
fn read_all(file: &File) -> io::Result<String> {
    let mut bytes = [0; 32];
    let count = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).trim().escape_default().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{self, ChildExit, Death};

    fn take(path: &Path) -> (PidFile, Option<String>) {
        match PidFile::take(path).unwrap() {
            Taken::Ours { file, left_behind } => (file, left_behind),
            Taken::Held(holder) => panic!("held by {holder:?}"),
        }
    }

    #[test]
    fn it_is_written_locked_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ostler.pid");
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
        let (file, left_behind) = take(&path);
        assert_eq!(left_behind, None);

        // Another process sees who holds it and cannot take it. (To open the file here, even to read it, would
        // unlock it at the close.)
        let me = std::process::id();
        let other = process::spawn_child(|| {
            let seen = master(&path).ok().flatten().is_some_and(|pid| pid.as_raw().unsigned_abs() == me);
            let written = fs::read_to_string(&path).is_ok_and(|text| text == format!("{me}\n"));
            let refused = matches!(PidFile::take(&path), Ok(Taken::Held(Holder::Process(_))));
            if seen && written && refused { ChildExit::OK } else { ChildExit(1) }
        });
        assert_eq!(process::wait_for(other.unwrap()).unwrap(), Death::Exited(0));

        file.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_number_left_behind_misleads_nobody() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ostler.pid");
        // Our own number: what a container's master, always 1, finds after a crash.
        fs::write(&path, format!("{}\nand more that is longer\n", std::process::id())).unwrap();
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
        let (file, left_behind) = take(&path);
        assert!(left_behind.unwrap().starts_with(&std::process::id().to_string()));
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        file.remove();
    }

    #[test]
    fn what_somebody_else_put_there_is_not_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ostler.pid");
        let (file, _) = take(&path);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "not ours").unwrap();
        file.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "not ours");
    }

    #[test]
    fn a_place_that_is_not_there_is_an_error() {
        let error = PidFile::take(Path::new("/nonexistent/ostler.pid")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
