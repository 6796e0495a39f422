//! How this process was started, so that an upgrade can start the program the same way: which file, which arguments,
//! in which directory.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A start that can be repeated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invocation {
    /// The program's file, by the name that it was started by and not by what that links to: a new version may be one
    /// that a link is pointed at.
    pub program: PathBuf,
    /// Its name for itself, and its arguments.
    pub arguments: Vec<OsString>,
    /// Where relative paths among them begin; `None` if that place has no name.
    pub directory: Option<PathBuf>,
}

impl Invocation {
    /// How this very process was started. To be asked before the title is set and the directory left.
    ///
    /// # Errors
    /// If neither the arguments nor /proc tell which file it runs.
    pub fn of_this_process() -> io::Result<Self> {
        let arguments: Vec<OsString> = env::args_os().collect();
        let directory = env::current_dir().ok();
        let running = Path::new("/proc/self/exe");
        let named = arguments.first().and_then(|name| {
            let places = places(name, directory.as_deref(), env::var_os("PATH").as_deref());
            places.into_iter().find(|place| is_same_file(place, running))
        });
        let program = named.map_or_else(env::current_exe, Ok)?;
        Ok(Self { program, arguments, directory })
    }
}

/// Where a program of this name may lie, as execvp(3) looks for it.
fn places(name: &OsStr, directory: Option<&Path>, path: Option<&OsStr>) -> Vec<PathBuf> {
    let below = |place: PathBuf| directory.map_or_else(|| place.clone(), |directory| directory.join(&place));
    if name.as_bytes().contains(&b'/') {
        return vec![below(PathBuf::from(name))];
    }
    path.map(|path| env::split_paths(path).map(|place| below(place.join(name))).collect()).unwrap_or_default()
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_where_the_shell_found_it() {
        let home = Some(Path::new("/home"));
        let path = Some(OsStr::new("/sbin:bin::/usr/bin"));
        for (name, directory, path, want) in [
            ("/sbin/ostler", home, path, &["/sbin/ostler"][..]),
            ("./ostler", home, path, &["/home/./ostler"]),
            ("out/ostler", None, path, &["out/ostler"]),
            ("ostler", home, path, &["/sbin/ostler", "/home/bin/ostler", "/home/ostler", "/usr/bin/ostler"]),
            ("ostler", home, None, &[]),
        ] {
            let want: Vec<PathBuf> = want.iter().map(PathBuf::from).collect();
            assert_eq!(places(OsStr::new(name), directory, path), want, "{name}");
        }
    }

    #[test]
    fn this_very_process_knows_its_file() {
        let invocation = Invocation::of_this_process().unwrap();
        assert!(is_same_file(&invocation.program, Path::new("/proc/self/exe")), "{invocation:?}");
        assert_eq!(invocation.arguments.len(), env::args_os().count());
    }
}
