//! The whole way from text to `Config`, in memory.

use super::diagnostic::Severity;
use super::files::MemoryFiles;
use super::model::*;
use super::*;
use std::path::Path;

const BASICS: &str = "Listen 80\nProxyPass / http://127.0.0.1:3000/\n";

fn run(text: &str) -> Result<Loaded, Faults> {
    read("ostler.conf", text, Path::new("/etc/ostler"), &Options::default(), &MemoryFiles::default())
}

fn good(text: &str) -> Loaded {
    run(&format!("{BASICS}{text}")).unwrap_or_else(|faults| panic!("{text}\n{faults}"))
}

#[test]
fn print_some() {
    let files = MemoryFiles::default()
        .with("/etc/ostler/seed.conf", include_str!("../../tests/configs/seed-worker-limits.conf"));
    let text = format!("{BASICS}Include seed.conf\n");
    let loaded = read("ostler.conf", &text, Path::new("/etc/ostler"), &Options::default(), &files).unwrap();
    for note in &loaded.notes {
        println!("{}\n", note.render(false));
    }
    println!("{}", effective(&loaded.config, 4096));
    let faults =
        run("Lisen 80\nStartServers abc\n<Location /x>\nListen 80\nDocumentRoot /x\n<VirtualHost>\n")
            .unwrap_err();
    println!("{faults}");
    let _ = good("");
    let _ = Severity::Note;
    println!("{}", one_liner("127.0.0.1:8080", "http://127.0.0.1:3000", None).unwrap());
}
