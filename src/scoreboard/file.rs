//! Where the scoreboard file comes from and where its predecessor goes.
//!
//! Each master makes a new inode, complete before it has the name, so a reader that opens the name never
//! finds half a header, and readers and children of the one before keep theirs. The one before stays
//! reachable as `NAME.prev`: what the workers of a server that died were doing.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Readable by the owner and the group, writable by the owner.
const MODE: u32 = 0o640;

/// `path` with a suffix behind its file name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Where the file of the master before lies.
#[must_use]
pub fn previous(path: &Path) -> PathBuf {
    with_suffix(path, ".prev")
}

/// The name of a file that is not complete yet.
fn unfinished(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

/// An empty file of a new inode beside `path`, not yet under its name.
pub fn create(path: &Path) -> io::Result<File> {
    let name = unfinished(path);
    remove(&name)?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(&name)?;
    // Whatever the umask took away is given back.
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

/// Opens the unfinished file once more, for reading only.
pub fn reopen(path: &Path) -> io::Result<File> {
    File::open(unfinished(path))
}

/// Gives the finished file its name; what had the name before becomes `.prev`. At no time is the name without
/// a file.
pub fn publish(path: &Path) -> io::Result<()> {
    let kept = previous(path);
    if let Ok(existing) = fs::symlink_metadata(path) {
        if existing.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        remove(&kept)?;
        // Not every file system has hard links; then the name is free for a moment.
        if fs::hard_link(path, &kept).is_err() {
            fs::rename(path, &kept)?;
        }
    }
    fs::rename(unfinished(path), path)
}

/// Takes back what [`create`] made when it can't be finished.
pub fn abandon(path: &Path) {
    // Best effort: the next start removes it, and the fault that led here is what gets reported.
    let _ = fs::remove_file(unfinished(path));
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;

    fn make(path: &Path, text: &str) -> u64 {
        let mut file = create(path).expect("created");
        file.write_all(text.as_bytes()).expect("written");
        publish(path).expect("published");
        file.metadata().expect("metadata").ino()
    }

    #[test]
    fn each_master_gets_a_new_inode_and_the_last_one_is_kept() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("board");
        make(&path, "first");
        let mut held = File::open(&path).expect("open");
        let second = make(&path, "second");
        let third = make(&path, "third");
        assert_ne!(second, third);
        let mut text = String::new();
        held.read_to_string(&mut text).expect("read");
        assert_eq!(text, "first", "a reader keeps what it opened");
        assert_eq!(fs::read_to_string(&path).expect("read"), "third");
        assert_eq!(fs::read_to_string(previous(&path)).expect("read"), "second");
        assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 2);
        assert_eq!(fs::metadata(&path).expect("metadata").mode() & 0o777, MODE);
    }

    #[test]
    fn a_leftover_or_a_planted_link_is_replaced_not_followed() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("board");
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").expect("written");
        std::os::unix::fs::symlink(&victim, unfinished(&path)).expect("link");
        std::os::unix::fs::symlink(&victim, &path).expect("link");
        make(&path, "board");
        assert_eq!(fs::read_to_string(&victim).expect("read"), "precious");
        assert!(fs::symlink_metadata(&path).expect("metadata").is_file());
    }
}
