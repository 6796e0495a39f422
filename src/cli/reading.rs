//! From a [`Source`] to a configuration: asks the machine for what the text alone cannot tell.

use super::{ConfigFile, OneLiner, Source};
use crate::config::{self, Faults, Loaded, Options};
use crate::sys::privilege;
use std::fs;
use std::path::PathBuf;

/// Where PidFile and ScoreBoardFile are for a daemon that root starts.
const RUN_DIR: &str = "/run/ostler";

/// Reads and checks what `source` means.
///
/// # Errors
/// Every fault of the configuration.
pub fn read(source: &Source) -> Result<Loaded, Faults> {
    match source {
        Source::File(file) => read_file(file),
        Source::OneLiner(flags) => without_a_file("the command line", &text(flags)?),
    }
}

/// The configuration that stands for `--listen`, `--to` and `--mpm`.
///
/// # Errors
/// What is wrong with their values.
pub fn text(flags: &OneLiner) -> Result<String, Faults> {
    config::one_liner(&flags.listen, &flags.to, Some(flags.mpm))
}

/// Reads a text that is in no file. Nothing has a place by default then: what the text does not name is not
/// written.
///
/// # Errors
/// Every fault of the configuration.
pub fn without_a_file(name: &str, text: &str) -> Result<Loaded, Faults> {
    config::from_text(name, text, &Options { run_dir: PathBuf::new(), ..options() })
}

fn read_file(file: &ConfigFile) -> Result<Loaded, Faults> {
    let root =
        file.server_root.as_deref().map(|root| std::path::absolute(root).unwrap_or_else(|_| root.to_owned()));
    let options = Options {
        defines: file.defines.clone(),
        mpm: file.mpm,
        before: file.before.clone(),
        after: file.after.clone(),
        ..options()
    };
    config::load(&file.path, &Options { server_root: root, ..options })
}

/// What the machine and the environment tell.
fn options() -> Options {
    Options {
        run_dir: run_dir(),
        hostname: fs::read_to_string("/proc/sys/kernel/hostname")
            .ok()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty()),
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        ..Options::default()
    }
}

/// Relative to the ServerRoot, which the file may still name.
fn run_dir() -> PathBuf {
    if privilege::is_root() {
        return PathBuf::from(RUN_DIR);
    }
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|directory| directory.is_absolute())
        .map_or_else(|| PathBuf::from("."), |directory| directory.join("ostler"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Mpm;

    #[test]
    fn what_is_in_no_file_writes_no_file() {
        let source = Source::OneLiner(OneLiner {
            listen: "127.0.0.1:8080".to_owned(),
            to: "http://127.0.0.1:3000".to_owned(),
            mpm: Mpm::Prefork,
        });
        let config = read(&source).unwrap_or_else(|faults| panic!("{faults}")).config;
        assert_eq!((config.mpm, config.pid_file, config.scoreboard_file), (Mpm::Prefork, None, None));
    }

    #[test]
    fn the_command_line_stands_around_the_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a \"b\".conf");
        fs::write(
            &path,
            "Listen 127.0.0.1:80\nServerName a.test\nProxyPass /${WHERE} http://127.0.0.1:3000/\n",
        )
        .unwrap();
        let file = ConfigFile {
            path,
            named: true,
            server_root: Some(home.path().to_owned()),
            mpm: Some(Mpm::Worker),
            before: vec!["Define WHERE there/".to_owned()],
            after: vec!["PidFile after.pid".to_owned(), "Timeout 7".to_owned()],
            ..ConfigFile::default()
        };
        let config = read(&Source::File(file)).unwrap_or_else(|faults| panic!("{faults}")).config;
        assert_eq!(config.mpm, Mpm::Worker);
        assert_eq!(config.pid_file, Some(home.path().join("after.pid")));
        assert_eq!(config.hosts[0].timeout.as_secs(), 7);
        assert_eq!(config.hosts[0].rules[0].path, "/there/");
    }
}
