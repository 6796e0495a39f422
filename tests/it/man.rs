//! Man pages are held to the program: every flag in its place, and nothing that the program does not know.

use std::collections::BTreeSet;
use std::fs;

fn page() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/ostler.8")).expect("the page is there")
}

/// The lines from the heading `start` to the next heading of any kind.
fn part<'p>(page: &'p str, start: &str) -> Vec<&'p str> {
    let lines: Vec<&str> = page.lines().skip_while(|line| *line != start).skip(1).collect();
    assert!(!lines.is_empty(), "the page has no {start:?}");
    lines.into_iter().take_while(|line| !line.starts_with(".Sh ") && !line.starts_with(".Ss ")).collect()
}

/// Flags that the page explains in a list item: `-f FILE`, `--watch [SECONDS]`, as (flag, has a value).
fn explained(lines: &[&str]) -> BTreeSet<(String, bool)> {
    lines
        .iter()
        .filter_map(|line| line.strip_prefix(".It Fl "))
        .map(|item| {
            let (flag, rest) = item.split_once(' ').unwrap_or((item, ""));
            (format!("-{flag}"), rest.starts_with("Ar ") || rest.starts_with("Oo Ar "))
        })
        .collect()
}

/// Flags that the program takes.
fn taken(command: &clap::Command) -> BTreeSet<(String, bool)> {
    command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .map(|argument| {
            let flag = argument
                .get_short()
                .map(|letter| format!("-{letter}"))
                .or_else(|| argument.get_long().map(|word| format!("--{word}")))
                .expect("every argument of ours is a flag");
            (flag, argument.get_action().takes_values())
        })
        .collect()
}

#[test]
fn the_page_explains_exactly_the_flags_that_the_program_takes() {
    let page = page();
    let table = ostler::cli::table();
    assert_eq!(explained(&part(&page, ".Ss Options")), taken(&table), "ostler");
    let mut tools = 0;
    for tool in table.get_subcommands() {
        let heading = format!(".Ss ostler {}", tool.get_name());
        assert_eq!(explained(&part(&page, &heading)), taken(tool), "{heading}");
        tools += 1;
    }
    let headings = page.lines().filter(|line| line.starts_with(".Ss ostler ")).count();
    assert_eq!(headings, tools, "sections of the page for tools");
}

#[test]
fn the_page_explains_exactly_the_keys_of_top() {
    let page = page();
    let lines = part(&page, ".Ss ostler top");
    let explained: Vec<String> = lines
        .iter()
        .filter_map(|line| line.strip_prefix(".It Ic "))
        .map(|keys| keys.replace(" ,", ","))
        .collect();
    let known: Vec<&str> = ostler::top::draw::KEYS.iter().map(|(keys, _)| *keys).collect();
    assert_eq!(explained, known);
}

#[test]
fn the_synopsis_names_every_flag() {
    let page = page();
    let synopsis = part(&page, ".Sh SYNOPSIS").join("\n");
    let words: BTreeSet<&str> = synopsis.split_whitespace().collect();
    let table = ostler::cli::table();
    for (flag, value) in table.get_subcommands().chain([&table]).flat_map(taken) {
        // Letters without a value may stand together: `.Op Fl TX`.
        let (word, letter) = (&flag[1..], flag.chars().nth(1).expect("a flag has a letter"));
        let together = |word: &&str| word.len() < 6 && word.contains(letter) && !word.starts_with(['.', '-']);
        let named = words.contains(word) || (!value && flag.len() == 2 && words.iter().any(together));
        assert!(named, "{flag} is not in the synopsis");
    }
}

#[test]
fn the_orders_of_k_are_explained() {
    let page = page();
    let options = part(&page, ".Ss Options").join("\n");
    let table = ostler::cli::table();
    let order =
        table.get_arguments().find(|argument| argument.get_short() == Some('k')).expect("-k is a flag");
    for value in order.get_possible_values().iter().filter(|value| !value.is_hide_set()) {
        let name = value.get_name();
        let item = |line: &str| line.starts_with(".It Cm") && line.contains(&format!("Cm {name}"));
        assert!(options.lines().any(item), "-k {name} is not explained");
    }
}

/// What a list item of the page says, as a reader sees it: macros gone, lines joined.
fn said(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let words = match line.strip_prefix('.') {
            Some(call) => call.split_once(' ').map_or("", |(_, words)| words),
            None => line,
        };
        for word in words.split_whitespace() {
            if !text.is_empty() && ![".", ",", ";"].contains(&word) {
                text.push(' ');
            }
            text.push_str(word);
        }
    }
    text
}

#[test]
fn the_page_says_of_every_signal_what_the_program_does() {
    let page = page();
    let lines = part(&page, ".Sh SIGNALS");
    let mut items = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if let Some(name) = line.strip_prefix(".It Dv ") {
            let rest = &lines[index + 1..];
            let end =
                rest.iter().position(|line| line.starts_with(".It ") || *line == ".El").expect("a list ends");
            items.push((name.to_owned(), said(&rest[..end])));
        }
    }
    let table = ostler::master::signals::TABLE;
    let want: Vec<_> =
        table.iter().map(|entry| (entry.signal.as_str().to_owned(), entry.sentence.to_owned())).collect();
    assert_eq!(items, want);
}
