//! Laws for any text: no panic, no endless loop, a place for every fault.

use super::super::directives::TABLE;
use super::super::one_liner;
use super::*;
use proptest::prelude::*;

/// Words that lead deep into the code, where plain noise would stop at the first.
fn word() -> impl Strategy<Value = String> {
    let names: Vec<String> = TABLE.iter().map(|entry| entry.name.to_owned()).collect();
    let sections: Vec<String> = TABLE
        .iter()
        .filter(|entry| entry.section)
        .flat_map(|entry| [format!("<{}", entry.name), format!("</{}>", entry.name)])
        .collect();
    let pieces = [
        "\"",
        "'",
        "\\",
        "\\\n",
        "\n",
        "\r\n",
        "#",
        " ",
        "\t",
        ">",
        "<",
        "</",
        "!",
        "${",
        "}",
        "${a}",
        "$",
        "%",
        "%2f",
        "/",
        "//",
        "/a",
        "/a/*",
        "[",
        "[::1]:80",
        "*:80",
        "80",
        "0",
        "99999999999999999999",
        "-1",
        "1.5",
        "5ms",
        "On",
        "Off",
        "none",
        "all",
        "granted",
        "ip",
        "10.0.0.0/8",
        "http://h:1/a",
        "http://",
        "unix:/s|http://h/",
        "timeout=5",
        "max=",
        "=",
        "header=20-40,MinRate=500",
        "^/(a",
        "~",
        "|",
        "|x",
        "%h %{x}i",
        "common",
        "info",
        "mpm_worker_module",
        "worker",
        "é",
        "\u{feff}",
        "\u{fffd}",
        "\0",
        "\u{202e}",
        "Include ostler.conf",
        "*.conf",
        "[!a-c]*",
        "\\*",
    ];
    prop_oneof![
        4 => proptest::sample::select(names),
        2 => proptest::sample::select(sections),
        6 => proptest::sample::select(pieces.map(str::to_owned).to_vec()),
        1 => any::<String>(),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let glue = prop_oneof![4 => Just(" "), 3 => Just("\n"), 1 => Just(""), 1 => Just("\\\n")];
    proptest::collection::vec((word(), glue), 0..60)
        .prop_map(|words| words.into_iter().map(|(word, glue)| word + glue).collect())
}

/// Reads it both ways, and shows what is said.
fn try_all(text: &str) {
    let shown = match run(text) {
        Ok(loaded) => loaded.notes,
        Err(faults) => {
            assert!(faults.count() > 0);
            assert!(faults.to_string().contains("fault"));
            assert!(!faults.render(true).is_empty());
            faults.0
        }
    };
    for diagnostic in shown {
        assert!(!diagnostic.message().is_empty());
        let (line, column) = diagnostic.position().map_or((1, 1), |(_, line, column)| (line, column));
        assert!(line >= 1 && column >= 1);
        assert!(!diagnostic.to_string().is_empty() && !diagnostic.render(false).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_of_likely_words_panics(text in text()) {
        try_all(&text);
    }

    #[test]
    fn no_text_at_all_panics(text in any::<String>()) {
        try_all(&text);
    }

    #[test]
    fn no_one_liner_panics(listen in word(), to in word()) {
        if let Ok(text) = one_liner(&listen, &to, None) {
            let loaded = run_with(&text, &Options::default(), &MemoryFiles::default());
            prop_assert!(loaded.is_ok() || text.contains("${"), "{}\n{}", text, loaded.err().map_or_else(String::new, |faults| faults.to_string()));
        }
    }

    /// Where lines are broken by a backslash does not matter to what they say.
    #[test]
    fn joined_lines_say_the_same(words in proptest::collection::vec("[a-z/:.]{1,8}", 1..6), cut in 0usize..6) {
        let plain = format!("ServerAlias {}", words.join(" "));
        let at = plain.char_indices().nth((cut * 5).min(plain.len() - 1)).map_or(0, |(at, _)| at);
        let broken = format!("{}\\\n{}", &plain[..at], &plain[at..]);
        let inside = |text: &str| {
            let all = run(&format!("<VirtualHost *>\n{text}\n</VirtualHost>"));
            all.map(|loaded| loaded.config.hosts[1].aliases.clone()).map_err(|faults| faults.count())
        };
        prop_assert_eq!(inside(&plain), inside(&broken));
    }
}
