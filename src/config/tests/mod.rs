//! The whole way from text to `Config` or its faults, in memory.

mod conditions;
mod faults;
mod hosts;
mod manual;
mod properties;
mod proxying;
mod sizes;
mod table;

use super::files::MemoryFiles;
use super::{Diagnostic, Faults, Loaded, Options, Severity, read};
use std::path::Path;

fn options() -> Options {
    Options {
        run_dir: "/run/ostler".into(),
        hostname: Some("Box.Example".to_owned()),
        after: vec!["Listen 9999".to_owned(), "ProxyPass /behind http://127.0.0.1:9/x".to_owned()],
        ..Options::default()
    }
}

fn options_without_extras() -> Options {
    Options { after: Vec::new(), ..options() }
}

fn run_with(text: &str, options: &Options, files: &MemoryFiles) -> Result<Loaded, Faults> {
    read("ostler.conf", text, Path::new("/etc/ostler"), options, files)
}

fn run(text: &str) -> Result<Loaded, Faults> {
    run_with(text, &options(), &MemoryFiles::default().with("/etc/ostler/ostler.conf", text))
}

/// A configuration that must load, with a Listen and a ProxyPass behind it.
fn good(text: &str) -> Loaded {
    run(text).unwrap_or_else(|faults| panic!("{text}\n{faults}"))
}

/// The faults, without warnings and notes, as `line:column message`.
fn faults(text: &str) -> Vec<String> {
    match run(text) {
        Ok(_) => Vec::new(),
        Err(Faults(all)) => said(&all, Severity::Error),
    }
}

/// What was said with a severity, as `line:column message; hints`.
fn said(all: &[Diagnostic], severity: Severity) -> Vec<String> {
    let chosen = all.iter().filter(|diagnostic| diagnostic.severity() == severity);
    chosen.map(|diagnostic| diagnostic.to_string().replacen("ostler.conf:", "", 1)).collect()
}

/// Warnings and notes of a configuration that must load.
fn notes(text: &str) -> Vec<String> {
    let all = good(text).notes;
    all.iter()
        .map(|note| format!("{} {}", note.severity().name(), note).replacen("ostler.conf:", "", 1))
        .collect()
}
