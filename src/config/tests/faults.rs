//! All faults of a file in one go, each in its place, and how they look.

use super::super::from_text;
use super::*;

const BROKEN: &str = "\
# A file with something of everything.
Lisen 80
  StartServers\tabc
<VirtualHost *:80
DocumentRoot /var/www
<Location /a>
    Listen 81
    Colour \"blue
</VirtualHost>
ProxyPass \\
    /x \\
    htp://h/x
<IfModule ssl_module>
    Nothing here is read
    <Files *>
    </Files>
</IfModule>
</Locaton>
Timeout 5 # a comment \"
Timeout ü5
<Directory />
    Options None
</Directory>
Location /b
";

#[test]
fn all_faults_come_at_once_in_the_order_of_the_text() {
    assert_eq!(
        faults(BROKEN),
        [
            "2:1: directive \"Lisen\" is not known; did you mean Listen?",
            "3:16: StartServers: \"abc\" is not a number",
            "4:1: this has no \">\" at its end; a section begins with <Name words> on a line of its own",
            "5:1: DocumentRoot: serving files is not what Ostler does; \
             ProxyPass hands requests to a server that does",
            "6:1: <Location> is not closed before </VirtualHost>",
            "7:5: Listen has no place in <Location>; it stands outside of all sections",
            "8:12: the quotation mark is never closed",
            "12:5: ProxyPass: \"htp://h/x\" is not a url of a backend; write http://address:port/",
            "18:1: </Locaton> closes nothing",
            "20:9: Timeout: \"ü5\" is not a time; write a number of seconds, or a number with ms, s, mi or h",
            "21:1: <Directory>: serving files is not what Ostler does; \
             ProxyPass hands requests to a server that does",
            "24:1: directive \"Location\" is not known; <Location> is a section; write it in brackets",
        ]
    );
}

#[test]
fn faults_look_like_this() {
    let text = "Listen 80\n\n\tStartServers\tabc # words\nMaxClints 5\n<Location /a>\n";
    let faults = from_text("ostler.conf", text, &Options::default()).expect_err("three faults");
    assert_eq!(
        faults.to_string(),
        r#"error: StartServers: "abc" is not a number
 --> ostler.conf:3:15
  |
3 |     StartServers    abc # words
  |                     ^^^

error: directive "MaxClints" is not known
 --> ostler.conf:4:1
  |
4 | MaxClints 5
  | ^^^^^^^^^
  |
  = help: did you mean MaxClients, which is called MaxRequestWorkers today?

error: <Location> is never closed
 --> ostler.conf:5:1
  |
5 | <Location /a>
  | ^^^^^^^^^
  |
  = help: a line </Location> is missing

3 faults"#
    );
    assert_eq!(faults.count(), 3);
    let styled = faults.render(true);
    assert!(styled.contains("\u{1b}[") && styled.ends_with("3 faults"), "{styled}");
    assert_eq!(faults.0[0].to_string(), "ostler.conf:3:15: StartServers: \"abc\" is not a number");
}

#[test]
fn a_fault_on_a_joined_line_is_shown_where_it_stands() {
    let faults =
        from_text("o", "Listen 80\nProxyPass /x \\\r\n   http://h/x \\\n   mex=5\n", &Options::default());
    let text = faults.expect_err("one fault").to_string();
    assert!(text.contains("--> o:4:4") && text.contains("4 |    mex=5"), "{text}");
}

#[test]
fn a_comment_that_goes_on_is_told() {
    assert_eq!(
        notes("# see \\\nTimeout 5\nTimeout 6"),
        ["warning 1:7: this backslash makes the next line part of the comment"]
    );
    assert_eq!(
        notes("ProxyTimeout 7 \\\n # see\\\r\n x \\\nTimeout 5\nTimeout 6"),
        ["warning 2:7: this backslash makes the next line part of the comment"]
    );
    assert_eq!(
        notes("<IfDefine X>\nTimeout 6 # C:\\\n</IfDefine>\n</IfDefine>"),
        ["warning 2:15: this backslash makes the next line part of the comment"]
    );
    // In quotes it is no comment, in front of one nothing is lost, and behind the last line there is none to lose.
    assert!(notes("PidFile \"/a # \\\nb\"\nTimeout 5 \\\n# c\nTimeout 6 # d \\\n").is_empty());
}

#[test]
fn letters_that_have_no_place_are_pointed_at() {
    assert_eq!(faults("Timeout \u{1}5"), ["1:9: a control character (U+0001) has no place here"]);
    assert_eq!(faults("ServerName \u{fffd}"), ["1:12: this is not UTF-8"]);
    // In comments, any bytes may stand.
    assert!(faults("# \u{fffd}\u{1}\nTimeout 5 # \u{fffd}").is_empty());
}

#[test]
fn sections_that_cross_are_untangled() {
    assert_eq!(
        faults("<VirtualHost *>\n<Location /a>\n</VirtualHost>\n</Location>"),
        ["2:1: <Location> is not closed before </VirtualHost>", "4:1: </Location> closes nothing",]
    );
    assert_eq!(
        faults("<IfDefine X>\n<Location /a>\n</IfDefine>"),
        ["2:1: <Location> is not closed before </IfDefine>"]
    );
    assert_eq!(
        faults("<Location /a>\n</Locaton>\nTimeout 5"),
        ["2:1: </Locaton> closes nothing; did you mean </Location>?"]
    );
    let deep = "<Location /a>\n".repeat(60);
    assert!(faults(&deep).iter().any(|fault| fault == "51:1: more than 50 sections within each other"));
}

#[test]
fn well_known_words_of_httpd_get_a_sentence() {
    for (line, want) in [
        ("SSLEngine on", "TLS is not built in yet"),
        ("RewriteEngine on", "rewriting is not built yet"),
        ("Header set X y", "setting fields is not built yet"),
        ("<Directory /var/www>\n</Directory>", "serving files is not what Ostler does"),
        ("BalancerMember http://h", "balancing is not built yet"),
        ("Order deny,allow", "these are httpd 2.2's"),
        ("<If true>\n</If>", "expressions are not built"),
        ("Sandbox On", "not built yet"),
    ] {
        let all = faults(line);
        assert!(all.len() == 1 && all[0].contains(want), "{line}: {all:?}");
    }
    assert_eq!(
        faults("<Listen 80>\n</Listen>"),
        ["1:1: section <Listen> is not known; Listen is no section; write it without brackets"]
    );
    assert_eq!(
        faults("Location /b"),
        ["1:1: directive \"Location\" is not known; <Location> is a section; write it in brackets"]
    );
}

#[test]
fn a_crowd_of_the_same_is_shown_once_with_all_its_places() {
    let many = "Listen 80\nAddType a b\n  AddIcon c\nAddIcon d\nAddIcon d\nAddLanguage e f\nLisen 1\nOptions g\nDirectoryIndex h\n";
    let faults = from_text("o.conf", many, &Options::default()).expect_err("eight faults");
    let text = faults.to_string();
    assert_eq!(text.matches("-->").count(), 2, "{text}");
    for part in [
        "error: AddType: serving files is not what Ostler does",
        "the same 6 times more:",
        " AddIcon 3:3 4:1-5:1 AddLanguage 6:1 Options 8:1 DirectoryIndex 9:1\n",
        "error: directive \"Lisen\" is not known",
        "\n8 faults; 7 of them name what this version does not have: leave those lines out,",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let few = "Listen 80\nAddType a b\nAddIcon c\nAddIcon d\n";
    let text = from_text("o.conf", few, &Options::default()).expect_err("three faults").to_string();
    assert!(text.matches("-->").count() == 3 && text.ends_with("\n3 faults"), "{text}");
}

#[test]
fn words_of_the_file_are_shown_with_nothing_that_a_terminal_obeys() {
    for text in [
        "</Loc\u{1b}[2Jation>\n",
        "<Location /a>\n</Fil\u{7}es>\n</Location>\n",
        "Li\u{8}sten 80\n",
        "Define a \"x\u{1b}y\"\nListen ${a}\n",
        "<Location /\u{85}\n",
    ] {
        let faults = from_text("ostler.conf", text, &Options::default()).expect_err("a fault");
        for shown in [faults.to_string(), faults.render(false)] {
            let odd = shown.chars().find(|letter| letter.is_control() && *letter != '\n');
            assert_eq!(odd, None, "{shown:?}");
        }
    }
    assert_eq!(faults("</Fil\u{7}es>\n")[0], "1:1: </Fil\\u{7}es> closes nothing");
}

#[test]
fn the_scoreboard_has_a_file_of_its_own() {
    for (line, want) in [
        ("ErrorLog logs/a\nScoreBoardFile logs/a", "2:16: this is a log, too"),
        ("CustomLog /var/x common\nScoreBoardFile /var/x", "2:16: this is a log, too"),
        ("PidFile run/a\nScoreBoardFile run/a", "2:16: this is the PidFile, too"),
    ] {
        let all = faults(line);
        assert!(all.len() == 1 && all[0].contains(want), "{line}: {all:?}");
    }
    assert_eq!(faults("ErrorLog logs/a\nScoreBoardFile logs/b\nPidFile none"), [""; 0]);
}
