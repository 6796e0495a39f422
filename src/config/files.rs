//! What the reading of a configuration asks of a file system, and how `Include`'s patterns are followed in it.
//!
//! [`super::load`] answers from the disk; tests and [`super::from_text`] answer from memory.

use super::pattern::ShellPattern;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// What a path leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileKind {
    /// Anything that is no directory.
    File,
    /// A directory.
    Directory,
}

/// A file system to read from.
pub trait Files {
    /// All bytes of a file.
    ///
    /// # Errors
    /// The system's, or that the file is too large.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// What there is at a path, if anything.
    fn kind(&self, path: &Path) -> Option<FileKind>;
}

/// Files that are only in memory, by their path. Directories exist as far as files are in them.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(pub BTreeMap<PathBuf, Vec<u8>>);

impl MemoryFiles {
    /// Adds a file.
    #[must_use]
    pub fn with(mut self, path: &str, text: impl Into<Vec<u8>>) -> Self {
        self.0.insert(PathBuf::from(path), text.into());
        self
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let mut names: Vec<OsString> = self
            .0
            .keys()
            .filter_map(|path| path.strip_prefix(directory).ok()?.components().next())
            .map(|component| component.as_os_str().to_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn kind(&self, path: &Path) -> Option<FileKind> {
        if self.0.contains_key(path) {
            return Some(FileKind::File);
        }
        self.0.keys().any(|file| file.starts_with(path)).then_some(FileKind::Directory)
    }
}

/// The longest path, in bytes: the system's PATH_MAX.
const LONGEST_PATH: usize = 4096;

/// Directories within directories that an `Include` follows.
const DEEPEST: usize = 20;

/// The files that an `Include` means, in the order of their names: a file itself, all files below a directory,
/// or what matches a pattern, part by part. An unreadable directory is an error; nothing found is an empty list.
///
/// # Errors
/// A sentence that names the directory or pattern at fault.
pub fn expand(path: &Path, files: &dyn Files) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(format!("a path has {LONGEST_PATH} bytes at most"));
    }
    let parts: Vec<Component> = path.components().collect();
    walk(PathBuf::new(), &parts, files, &mut found)?;
    Ok(found)
}

fn walk(at: PathBuf, parts: &[Component], files: &dyn Files, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let Some((part, rest)) = parts.split_first() else { return collect(at, files, found, 0) };
    let text = part.as_os_str().to_string_lossy();
    if !matches!(part, Component::Normal(_)) || !ShellPattern::is_one(&text) {
        return walk(at.join(part), rest, files, found);
    }
    let pattern = ShellPattern::new(&text)
        .map_err(|error| format!("{text} is no pattern: {}; {}", error.message, error.hint))?;
    let hidden_too = text.starts_with('.') || text.starts_with("\\.");
    if files.kind(&at) != Some(FileKind::Directory) {
        return Ok(());
    }
    for name in names(&at, files)? {
        let bytes = name.as_encoded_bytes();
        if (hidden_too || !bytes.starts_with(b".")) && pattern.matches(bytes) {
            let next = at.join(&name);
            // A file stands for nothing where the pattern wants a directory.
            if rest.is_empty() || files.kind(&next) == Some(FileKind::Directory) {
                walk(next, rest, files, found)?;
            }
        }
    }
    Ok(())
}

fn collect(at: PathBuf, files: &dyn Files, found: &mut Vec<PathBuf>, depth: usize) -> Result<(), String> {
    match files.kind(&at) {
        None => {}
        Some(FileKind::File) => found.push(at),
        Some(FileKind::Directory) if depth == DEEPEST => {
            return Err(format!("{} lies too deep to be included", at.display()));
        }
        Some(FileKind::Directory) => {
            for name in names(&at, files)? {
                collect(at.join(name), files, found, depth + 1)?;
            }
        }
    }
    Ok(())
}

fn names(directory: &Path, files: &dyn Files) -> Result<Vec<OsString>, String> {
    let mut names =
        files.list(directory).map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
    names.sort();
    Ok(names)
}
