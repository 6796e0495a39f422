//! The manual page and the table tell the same.

use super::super::backend::PARAMETERS;
use super::super::directives::Treatment;
use super::super::listing;
use crate::log::format::LogFormat;
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../../man/ostler.conf.5");

/// The lines between a heading and the next heading of any kind.
fn part(heading: &str) -> Vec<&'static str> {
    let lines = PAGE.lines().skip_while(|line| *line != heading).skip(1);
    let lines: Vec<&str> =
        lines.take_while(|line| !line.starts_with(".Sh ") && !line.starts_with(".Ss ")).collect();
    assert!(!lines.is_empty(), "the page has no {heading}");
    lines
}

/// What the items of a part that begin with `macro_name` say: name to the lines of the item.
fn items(heading: &str, macro_name: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut items = BTreeMap::new();
    let mut name = None;
    for line in part(heading) {
        if let Some(rest) = line.strip_prefix(".It ").and_then(|rest| rest.strip_prefix(macro_name)) {
            name = rest.split_whitespace().next();
            let before = name.and_then(|name| items.insert(name, Vec::new()));
            assert!(before.is_none(), "{name:?} stands twice");
        } else if let Some(lines) = name.and_then(|name| items.get_mut(name)) {
            lines.push(line);
        }
    }
    items
}

/// The value of a line such as `Default: 5.` among the last lines of an item.
fn said<'l>(lines: &[&'l str], label: &str) -> Option<&'l str> {
    lines.iter().find_map(|line| line.strip_prefix(label)?.strip_suffix('.'))
}

#[test]
fn the_page_explains_exactly_the_directives_of_the_table() {
    let page = items(".Sh DIRECTIVES", "Ic ");
    let table: Vec<_> =
        listing().into_iter().filter(|listed| !listed.name.starts_with("ProxyPass ")).collect();
    let names = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(
        names(page.keys().map(|name| (*name).to_owned()).collect()),
        names(table.iter().map(|listed| listed.name.clone()).collect())
    );
    for listed in table {
        let lines = &page[listed.name.as_str()];
        assert_eq!(said(lines, "Context: "), Some(listed.contexts.as_str()), "{}", listed.name);
        assert_eq!(said(lines, "Default: "), Some(listed.default.as_str()), "{}", listed.name);
        let mpms = Some(listed.mpms).filter(|mpms| *mpms != "every MPM");
        assert_eq!(said(lines, "MPM: "), mpms, "{}", listed.name);
        let idle = listed.doc.contains("no meaning here");
        assert_eq!(lines[0] == "Taken without effect, with a note.", idle, "{}", listed.name);
        for alias in listed.aliases {
            assert!(
                lines.contains(&format!(".Ic {alias}").as_str()),
                "{} does not tell of {alias}",
                listed.name
            );
        }
    }
}

#[test]
fn the_page_explains_exactly_the_parameters_that_are_honoured() {
    let page = items(".Ss Parameters", "Cm ");
    let honoured = PARAMETERS.iter().filter(|parameter| parameter.treatment == Treatment::Honoured);
    let honoured: BTreeMap<_, _> =
        honoured.map(|parameter| (parameter.name, parameter.preset.unwrap_or(parameter.told))).collect();
    let told: BTreeMap<_, _> =
        page.iter().map(|(name, lines)| (*name, said(lines, "Default: ").unwrap_or_default())).collect();
    assert_eq!(told, honoured);
    for parameter in PARAMETERS.iter().filter(|parameter| matches!(parameter.treatment, Treatment::Idle(_))) {
        assert!(PAGE.contains(&format!(".Cm {}", parameter.name)), "{}", parameter.name);
    }
}

#[test]
fn every_log_code_of_the_page_compiles() {
    let mut codes = 0;
    for line in part(".Sh LOGS").iter().filter_map(|line| line.strip_prefix(".It ")) {
        for code in line.split(" , ").filter_map(|item| item.strip_prefix("Li \\&")) {
            let code = code.replace("{format}", "{%H:%M}");
            assert!(LogFormat::parse(&code).is_ok(), "{code}");
            codes += 1;
        }
    }
    assert!(codes > 40, "{codes}");
}

#[test]
fn the_examples_of_the_page_load() {
    let examples = PAGE.split(".Sh EXAMPLES").nth(1).expect("there are examples");
    let mut count = 0;
    for example in examples.split(".Bd -literal -offset indent\n").skip(1) {
        let text = example.split("\n.Ed").next().expect("the literal ends");
        let loaded = super::super::from_text("example", text, &super::options_without_extras());
        let loaded = loaded.unwrap_or_else(|faults| panic!("{text}\n{faults}"));
        assert!(loaded.notes.is_empty(), "{text}\n{:?}", loaded.notes);
        count += 1;
    }
    assert_eq!(count, 2);
}
