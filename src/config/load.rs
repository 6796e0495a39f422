//! The way in: a file or a text to a [`Config`], or to all its faults. The only part that opens files.

use super::check::check;
use super::diagnostic::{Diagnostic, Faults, Report, Sources};
use super::files::{FileKind, Files};
use super::model::{Config, Mpm};
use super::parser::parse;
use super::values;
use crate::log::line::cause;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes.
const LARGEST_FILE: u64 = 64 << 20;

/// What a configuration is read with, besides its text. Everything that only a machine can tell is in here, so
/// that the same options and files give the same result.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `-D NAME` and `-D NAME=value`.
    pub defines: Vec<String>,
    /// `-d`: the ServerRoot to begin with; a `ServerRoot` line replaces it. `None`: the directory of the file.
    pub server_root: Option<PathBuf>,
    /// `--mpm`: stronger than anything a file says.
    pub mpm: Option<Mpm>,
    /// Where PidFile and ScoreBoardFile are by default. Empty: there are none by default.
    pub run_dir: PathBuf,
    /// The machine's name, for a main server without ServerName. `None`: `localhost`.
    pub hostname: Option<String>,
    /// `-C`: lines to be read before the file.
    pub before: Vec<String>,
    /// `-c`: lines to be read after the file.
    pub after: Vec<String>,
    /// The environment, for `${NAME}`.
    pub environment: Vec<(String, String)>,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// Warnings and notes, in the order of the files.
    pub notes: Vec<Diagnostic>,
}

/// Reads a file and what it includes.
///
/// # Errors
/// Every fault of the configuration.
pub fn load(path: &Path, options: &Options) -> Result<Loaded, Faults> {
    let alone = |message: String| Faults(vec![Diagnostic::fault(message)]);
    let cannot_read = |error: io::Error| alone(format!("cannot read {}: {}", path.display(), cause(&error)));
    let whole = std::path::absolute(path).map_err(cannot_read)?;
    let bytes = Disk.read(&whole).map_err(cannot_read)?;
    let base = whole.parent().unwrap_or(Path::new("/"));
    let text = String::from_utf8_lossy(&bytes);
    read(&path.display().to_string(), &text, base, options, &Disk)
}

/// Reads a text that stands for a file called `name` in the root directory.
///
/// # Errors
/// Every fault of the configuration.
pub fn from_text(name: &str, text: &str, options: &Options) -> Result<Loaded, Faults> {
    read(name, text, Path::new("/"), options, &Disk)
}

/// Reads a text that stands for a file called `name` in the directory `base`, and what it includes, from any
/// file system.
///
/// # Errors
/// Every fault of the configuration.
pub fn read(
    name: &str,
    text: &str,
    base: &Path,
    options: &Options,
    files: &dyn Files,
) -> Result<Loaded, Faults> {
    let (mut sources, mut report) = (Sources::default(), Report::default());
    let tree = parse(name, text, base, options, files, &mut sources, &mut report);
    let config = check(&tree, options, files, &mut sources, &mut report);
    if report.has_faults() {
        return Err(Faults(report.finish(&sources)));
    }
    Ok(Loaded { config, notes: report.finish(&sources) })
}

/// The file that would do what `ostler --listen LISTEN --to URL` does.
///
/// # Errors
/// What is wrong with either word, shown in the word itself.
pub fn one_liner(listen: &str, to: &str, mpm: Option<Mpm>) -> Result<String, Faults> {
    use super::diagnostic::Span;
    let (mut sources, mut report) = (Sources::default(), Report::default());
    let mut judge = |flag: &str, word: &str, error: Option<values::ValueError>| {
        let file = sources.add(flag.to_owned(), word.into(), None);
        if let Some(error) = error {
            let end = u32::try_from(word.len()).unwrap_or(u32::MAX);
            let item = report.fault(Span { file, start: 0, end }, error.message);
            if let Some(hint) = error.hint {
                item.hint(hint);
            }
        }
    };
    let target = if to.contains("://") { to.to_owned() } else { format!("http://{to}") };
    let url = values::backend_url(&target);
    judge("--listen", listen, values::listen(listen).err());
    judge("--to", to, url.as_ref().err().cloned());
    let (false, Ok(url)) = (report.has_faults(), url) else {
        return Err(Faults(report.finish(&sources)));
    };
    // Both sides of the mapping must end in a slash, as `/` does.
    let target = if url.path.ends_with('/') { target } else { format!("{target}/") };
    let flag = mpm.map_or_else(String::new, |mpm| format!(" --mpm {}", mpm.name()));
    let mpm = mpm.unwrap_or(Mpm::Event).name();
    let quoted = target.replace('\\', r"\\").replace('"', r#"\""#);
    Ok(format!(
        "# What \"ostler --listen {listen} --to {to}{flag}\" does.\n\
         MPM {mpm}\n\
         Listen {listen}\n\
         # For a daemon, take the next three lines out and give ErrorLog a file: then -k and status find it.\n\
         PidFile none\n\
         ScoreBoardFile none\n\
         ErrorLog /dev/stderr\n\
         ProxyPass / \"{quoted}\"\n\
         ProxyPassReverse / \"{quoted}\"\n"
    ))
}

/// The disk.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 64 MiB"));
        }
        Ok(bytes)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn kind(&self, path: &Path) -> Option<FileKind> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(if metadata.is_dir() { FileKind::Directory } else { FileKind::File })
    }
}
