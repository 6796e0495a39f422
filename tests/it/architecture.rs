//! The rules of the house that a compiler does not know: who may use whom, and where `unsafe` lives.
//!
//! The floors are read from the table at the top of `src/lib.rs`, so the map that a newcomer reads is the one
//! that is enforced.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file with its comments and literals blanked out: same lines, code only.
struct Source {
    /// Path below `src/`, for messages.
    name: String,
    /// The room it belongs to: the first component of its path, without `.rs`.
    room: String,
    /// What is left of it, line by line.
    code: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&src).expect("it was found there").display().to_string();
            let room =
                name.split('/').next().expect("split yields one piece").trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(path).expect("sources are UTF-8");
            Source { name, room, code: code_only(&text) }
        })
        .collect()
}

/// `text` with comments, strings and character literals replaced by blanks, line breaks kept.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end > at {
            out.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(if bytes[at].is_ascii() { char::from(bytes[at]) } else { ' ' });
            at += 1;
        }
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at` itself if none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        let mut depth = 0;
        let mut index = 0;
        while index < rest.len() {
            if rest[index..].starts_with(b"/*") {
                depth += 1;
                index += 2;
            } else if rest[index..].starts_with(b"*/") {
                depth -= 1;
                index += 2;
                if depth == 0 {
                    return at + index;
                }
            } else {
                index += 1;
            }
        }
        return bytes.len();
    }
    if !in_word {
        // r"…", br#"…"#: ends at the quote with as many hashes.
        let prefix = [&b"br"[..], b"cr", b"r"].into_iter().find(|prefix| rest.starts_with(prefix));
        if let Some(prefix) = prefix {
            let hashes = rest[prefix.len()..].iter().take_while(|&&byte| byte == b'#').count();
            let open = prefix.len() + hashes;
            if rest.get(open) == Some(&b'"') {
                let mut close = vec![b'"'];
                close.resize(1 + hashes, b'#');
                let body = &rest[open + 1..];
                let length = body.windows(close.len()).position(|window| window == close);
                return length.map_or(bytes.len(), |length| at + open + 1 + length + close.len());
            }
        }
    }
    let quote = |quote: u8, from: usize| -> Option<usize> {
        let mut index = from;
        while index < rest.len() {
            match rest[index] {
                b'\\' => index += 2,
                byte if byte == quote => return Some(at + index + 1),
                _ => index += 1,
            }
        }
        None
    };
    match rest[0] {
        b'"' => quote(b'"', 1).unwrap_or(bytes.len()),
        // A character: '\…' or one character and a quote; anything else is a lifetime.
        b'\'' if rest.get(1) == Some(&b'\\') => quote(b'\'', 1).unwrap_or(bytes.len()),
        b'\'' => {
            let width = match rest.get(1) {
                Some(byte) if *byte >= 0xf0 => 4,
                Some(byte) if *byte >= 0xe0 => 3,
                Some(byte) if *byte >= 0xc0 => 2,
                _ => 1,
            };
            if rest.get(1 + width) == Some(&b'\'') { at + 2 + width } else { at }
        }
        _ => at,
    }
}

/// Floor of every room, from the table in lib.rs: `| 5 | [`mpm`]: the child; … |`.
fn floors() -> BTreeMap<String, u32> {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs is there");
    let mut floors = BTreeMap::new();
    for line in text.lines() {
        let Some(row) = line.strip_prefix("//! | ") else { continue };
        let Some((floor, rooms)) = row.split_once(" | ") else { continue };
        let Ok(floor) = floor.trim().parse::<u32>() else { continue };
        for name in rooms.split('`').skip(1).step_by(2) {
            let path = root().join("src").join(name);
            if path.is_dir() || path.with_extension("rs").is_file() {
                floors.insert(name.to_owned(), floor);
            }
        }
    }
    floors
}

/// Every room that `code` names by `crate::room` or `crate::{room::…, room}` (in the binary: `ostler::`), with
/// its line, counted from 1.
fn rooms_named(code: &str, krate: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let pattern = format!("{krate}::");
    for (start, _) in code.match_indices(&pattern) {
        let before = code[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let mut at = start + pattern.len();
        let line = |at: usize| 1 + code[..at].matches('\n').count();
        let word = |at: usize| -> String {
            code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        if !code[at..].starts_with('{') {
            found.push((line(at), word(at)));
            continue;
        }
        let mut depth = 0;
        let mut at_item = false;
        for c in code[at..].chars() {
            match c {
                '{' => {
                    depth += 1;
                    at_item = depth == 1;
                }
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                ',' => at_item = depth == 1,
                c if c.is_whitespace() => {}
                _ if at_item => {
                    found.push((line(at), word(at)));
                    at_item = false;
                }
                _ => {}
            }
            at += c.len_utf8();
        }
    }
    found
}

/// Macros live at the root of the crate whatever room they are written in; so, the room of each.
fn exported_macros(sources: &[Source]) -> BTreeMap<String, String> {
    let mut macros = BTreeMap::new();
    for source in sources {
        for (_, after) in
            source.code.match_indices("macro_rules!").map(|(at, word)| source.code.split_at(at + word.len()))
        {
            let name = after.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            macros.insert(name, source.room.clone());
        }
    }
    macros
}

/// The part of a file that is in the program: its tests come last and may print.
fn without_tests(source: &Source) -> &str {
    if source.name.ends_with("tests.rs") {
        return "";
    }
    source.code.find("#[cfg(test)]\nmod ").map_or(&source.code, |end| &source.code[..end])
}

/// Lines on which `word` stands as a word of its own; `word` may end in `!`.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    code.match_indices(word)
        .filter(|(start, _)| {
            let inside = |c: char| c.is_alphanumeric() || c == '_';
            let before = code[..*start].chars().next_back();
            let after = code[start + word.len()..].chars().next();
            !before.is_some_and(inside) && (word.ends_with('!') || !after.is_some_and(inside))
        })
        .map(|(start, _)| 1 + code[..start].matches('\n').count())
        .collect()
}

fn fail_if_any(faults: &[String]) {
    let mut text = String::new();
    for fault in faults {
        writeln!(text, "  {fault}").expect("a String takes everything");
    }
    assert!(faults.is_empty(), "\n{text}");
}

#[test]
fn rooms_look_down_only() {
    let floors = floors();
    let sources = sources();
    let macros = exported_macros(&sources);
    assert!(floors.len() >= 12, "the map in lib.rs was not understood: {floors:?}");
    let mut faults = Vec::new();
    for source in &sources {
        let krate = if source.room == "main" { "ostler" } else { "crate" };
        if source.room == "lib" {
            continue;
        }
        let Some(&floor) = floors.get(&source.room) else {
            faults.push(format!("{}: its room is not on the map in lib.rs", source.name));
            continue;
        };
        for (line, name) in rooms_named(&source.code, krate) {
            let room = macros.get(&name).unwrap_or(&name);
            let Some(&other) = floors.get(room) else {
                faults.push(format!("{}:{line}: names {room}, which is not on the map", source.name));
                continue;
            };
            if *room == source.room || other < floor || source.room == "main" {
                continue;
            }
            let how = if other == floor { "looks into its neighbour" } else { "looks up to" };
            faults.push(format!("{}:{line}: {how} {room}", source.name));
        }
    }
    fail_if_any(&faults);
}

#[test]
fn only_sys_is_unsafe_and_talks_to_the_kernel() {
    let mut faults = Vec::new();
    for source in sources() {
        for line in lines_with(&source.code, "unsafe") {
            // Beside sys, one marker impl: that the rows of the scoreboard are made of atomics only.
            if source.room != "sys" && source.name != "scoreboard/layout.rs" {
                faults.push(format!("{}:{line}: unsafe outside of sys", source.name));
            }
        }
        for name in ["libc", "rustix"] {
            for line in lines_with(&source.code, name).into_iter().filter(|_| source.room != "sys") {
                faults.push(format!("{}:{line}: {name} outside of sys", source.name));
            }
        }
    }
    fail_if_any(&faults);
}

#[test]
fn nothing_is_left_half_done() {
    let mut faults = Vec::new();
    for source in sources() {
        for word in ["todo!", "unimplemented!", "dbg!"] {
            for line in lines_with(&source.code, word) {
                faults.push(format!("{}:{line}: {word}", source.name));
            }
        }
        // These panic when their reader has gone; a tool writes with writeln! and takes that for success.
        for word in ["println!", "print!", "eprintln!", "eprint!"] {
            for line in lines_with(without_tests(&source), word) {
                faults.push(format!("{}:{line}: {word} panics on a closed pipe", source.name));
            }
        }
    }
    fail_if_any(&faults);
}

#[test]
fn comments_and_literals_are_not_taken_for_code() {
    for (text, want) in [
        ("a // unsafe\nb", "a          \nb"),
        ("a /* x /* y */ */ b", "a                 b"),
        ("f(\"unsafe \\\" x\") g", "f(             ) g"),
        ("r#\"un\"safe\"# z", "             z"),
        ("x<'a> 'b' '\\'' c", "x<'a>          c"),
    ] {
        assert_eq!(code_only(text), want, "{text}");
    }
}

#[test]
fn paths_are_found_in_every_form() {
    let code = "use crate::config::model;\nuse crate::{\n    http::{field, head},\n    sys,\n};\nlet x = crate::mpm::run();\n\
                notcrate::x; my::crate::y";
    let want = [(1, "config"), (3, "http"), (4, "sys"), (6, "mpm")];
    let want: Vec<_> = want.into_iter().map(|(line, room)| (line, room.to_owned())).collect();
    assert_eq!(rooms_named(code, "crate"), want);
    assert_eq!(lines_with("unsafe { }\nunsafe_code\nan unsafe\ndbg!(x)", "unsafe"), [1, 3]);
}

#[test]
fn the_readme_shows_the_map_of_the_house() {
    let library = fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs is there");
    let readme = fs::read_to_string(root().join("README.md")).expect("the README is there");
    let rows: Vec<String> = library
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .map(|row| format!("| {}", row.replace("[`", "`").replace("`]", "`")))
        .collect();
    assert!(rows.len() >= 9, "the map in lib.rs was not understood: {rows:?}");
    for row in rows {
        assert!(readme.lines().any(|line| line == row), "the README's map lacks: {row}");
    }
}
