//! What the flags that only ask are answered with: `-v`, `-V`, `-l`, `-M`, `-L`, `-S`, `-t`. Text out, nothing else.
//!
//! The forms are httpd's where scripts read them: `Server version:`, `Compiled in modules:`, `Loaded Modules:`,
//! `VirtualHost configuration:`.

use super::DEFAULT_CONFIG;
use crate::config;
use crate::config::model::{Config, HostAddress, LogTarget, VirtualHost};

use crate::scoreboard::layout::{LAYOUT_VERSION, Shape};
use std::fmt::{self, Display, Write as _};
use std::path::Path;

/// `-v`.
#[must_use]
pub fn version() -> String {
    format!("Server version: Ostler/{} (Unix)\n", env!("CARGO_PKG_VERSION"))
}

/// `-V`.
#[must_use]
pub fn build() -> String {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "{}Architecture:   {}-bit, {}\nServer MPM:     event, worker, prefork (the configuration chooses)\n\
         Build:          {profile}\nServer compiled with....\n \
         -D SERVER_CONFIG_FILE=\"{DEFAULT_CONFIG}\"\n \
         -D SCOREBOARD_LAYOUT={LAYOUT_VERSION}\n",
        version(),
        usize::BITS,
        std::env::consts::ARCH,
    )
}

/// `-l`.
#[must_use]
pub fn modules_by_file() -> String {
    listed("Compiled in modules:", config::built_in_modules().map(|(_, file)| format!("  {file}\n")))
}

/// `-M`.
#[must_use]
pub fn modules() -> String {
    listed("Loaded Modules:", config::built_in_modules().map(|(name, _)| format!(" {name} (static)\n")))
}

fn listed(heading: &str, lines: impl Iterator<Item = String>) -> String {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    format!("{heading}\n{}", lines.concat())
}

/// `-L`: as httpd's, the directive and what it takes, and below it, indented, what it is for and where it may
/// stand.
#[must_use]
pub fn directives() -> String {
    let mut text = String::new();
    for entry in config::listing() {
        let known_to = if entry.mpms == "every MPM" { String::new() } else { format!("; {}", entry.mpms) };
        // Into a String, which takes everything.
        let _ = writeln!(
            text,
            "{}\n\t{}\n\tAllowed in: {}{known_to}\n\tDefault: {}",
            entry.synopsis, entry.doc, entry.contexts, entry.default
        );
        if !entry.aliases.is_empty() {
            let _ = writeln!(text, "\tAlso: {}", entry.aliases.join(", "));
        }
    }
    text
}

/// `-t`, when there is no fault: what will hold.
#[must_use]
pub fn what_holds(config: &Config) -> String {
    let limits = &config.limits;
    let shape = Shape::new(limits.server_limit, limits.thread_limit, config.backends.len());
    let status: Vec<String> = config.status_listen.iter().map(ToString::to_string).collect();
    let status = if status.is_empty() { String::new() } else { format!("status on {}\n", status.join(", ")) };
    format!("Syntax OK\n{}\n{status}", config::effective(config, shape.file_size()))
}

/// `-S`.
#[must_use]
pub fn hosts(config: &Config) -> String {
    let mut text = String::new();
    // Into a String, which takes everything.
    let _ = write_hosts(&mut text, config);
    text
}

fn write_hosts(text: &mut String, config: &Config) -> fmt::Result {
    writeln!(text, "Listeners:")?;
    for listen in &config.listen {
        writeln!(text, "         {}", listen.address)?;
    }
    if !config.status_listen.is_empty() {
        writeln!(text, "Status listeners:")?;
    }
    for listen in &config.status_listen {
        writeln!(text, "         {listen}")?;
    }
    let (main, others) = config.hosts.split_first().expect("hosts[0] is the main server");
    if !others.is_empty() {
        writeln!(text, "VirtualHost configuration:")?;
    }
    let mut addresses: Vec<HostAddress> = Vec::new();
    for address in others.iter().flat_map(|host| &host.addresses) {
        if !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    for address in addresses {
        let there: Vec<&VirtualHost> =
            others.iter().filter(|host| host.addresses.contains(&address)).collect();
        write_address(text, address, &there)?;
    }
    writeln!(text, "Main server: {}", full_name(main))?;
    writeln!(text, "ServerRoot: \"{}\"", config.server_root.display())?;
    let error_log = &config.log_targets[config.error_log.index()];
    writeln!(text, "Main ErrorLog: {}", shown(error_log))?;
    writeln!(text, "PidFile: {}", path_or_none(config.pid_file.as_deref()))?;
    writeln!(text, "ScoreBoardFile: {}", path_or_none(config.scoreboard_file.as_deref()))?;
    for (label, name) in [("User", &config.user), ("Group", &config.group)] {
        if let Some(name) = name {
            writeln!(text, "{label}: name=\"{name}\"")?;
        }
    }
    Ok(())
}

/// One address of the VirtualHosts. As in httpd, a host that is alone there stands on the address's own line.
fn write_address(text: &mut String, address: HostAddress, hosts: &[&VirtualHost]) -> fmt::Result {
    let address = shown_address(address);
    if let [only] = hosts {
        writeln!(text, "{address:<22} {}", full_name(only))?;
        return write_aliases(text, only);
    }
    writeln!(text, "{address:<22} is a NameVirtualHost")?;
    for (index, host) in hosts.iter().enumerate() {
        if index == 0 {
            writeln!(text, "         default server {}", full_name(host))?;
        }
        writeln!(text, "         namevhost {}", full_name(host))?;
        write_aliases(text, host)?;
    }
    Ok(())
}

fn write_aliases(text: &mut String, host: &VirtualHost) -> fmt::Result {
    host.aliases.iter().try_for_each(|alias| {
        let kind = if alias.contains(['*', '?']) { "wild alias" } else { "alias" };
        writeln!(text, "                 {kind} {alias}")
    })
}

fn full_name(host: &VirtualHost) -> String {
    host.port.map_or_else(|| host.name.clone(), |port| format!("{}:{port}", host.name))
}

fn shown_address(address: HostAddress) -> String {
    let ip = match address.ip {
        None => "*".to_owned(),
        Some(ip) if ip.is_ipv6() => format!("[{ip}]"),
        Some(ip) => ip.to_string(),
    };
    format!("{ip}:{}", address.port.map_or_else(|| "*".to_owned(), |port| port.to_string()))
}

fn shown(target: &LogTarget) -> String {
    match target {
        LogTarget::File(path) => quoted(path.display()),
        LogTarget::Program(command) => quoted(format_args!("|{command}")),
        LogTarget::Stderr => "standard error".to_owned(),
        LogTarget::Stdout => "standard output".to_owned(),
    }
}

fn quoted(what: impl Display) -> String {
    format!("\"{what}\"")
}

fn path_or_none(path: Option<&Path>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| quoted(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    fn config(text: &str) -> Config {
        let text = format!("Listen 127.0.0.1:80\nServerName main.test\nErrorLog /dev/stderr\n{text}");
        match config::from_text("test", &text, &Options::default()) {
            Ok(loaded) => loaded.config,
            Err(faults) => panic!("{faults}"),
        }
    }

    #[test]
    fn hosts_are_shown_as_httpd_shows_them() {
        let config = config(
            "Listen [::1]:8080\nStatusListen 81\nStatusListen unix:/run/status\nUser nobody\nProxyPass / http://127.0.0.1:3000/\n\
             <VirtualHost *:80>\nServerName a.test\nServerAlias b.test *.c.test\n</VirtualHost>\n\
             <VirtualHost *:80>\nServerName d.test:8000\n</VirtualHost>\n\
             <VirtualHost [::1]:8080>\nServerName e.test\n</VirtualHost>\n",
        );
        assert_eq!(
            hosts(&config),
            "Listeners:\n         127.0.0.1:80\n         [::1]:8080\n\
             Status listeners:\n         127.0.0.1:81\n         unix:/run/status\n\
             VirtualHost configuration:\n\
             *:80                   is a NameVirtualHost\n\
             \x20        default server a.test\n\
             \x20        namevhost a.test\n\
             \x20                alias b.test\n\
             \x20                wild alias *.c.test\n\
             \x20        namevhost d.test:8000\n\
             [::1]:8080             e.test\n\
             Main server: main.test\n\
             ServerRoot: \"/\"\n\
             Main ErrorLog: standard error\n\
             PidFile: none\n\
             ScoreBoardFile: none\n\
             User: name=\"nobody\"\n"
        );
    }

    #[test]
    fn what_holds_has_the_numbers_and_the_size_of_the_board() {
        let config = config(
            "MPM worker\nServerLimit 6\nMaxRequestWorkers 150\nProxyPass / http://127.0.0.1:3000/\n\
                    StatusListen 81\nStatusListen unix:/run/status\n",
        );
        let text = what_holds(&config);
        assert!(text.ends_with("status on 127.0.0.1:81, unix:/run/status\n"), "{text}");
        let bytes = Shape::new(6, config.limits.thread_limit, 1).file_size();
        let want = format!(
            "worker: 6 children x 25 threads = 150 workers, scoreboard {} KiB\n",
            bytes.div_ceil(1024)
        );
        assert!(text.starts_with("Syntax OK\n") && text.contains(&want), "{text}");
    }

    #[test]
    fn lists_are_complete() {
        assert_eq!(modules().lines().count(), modules_by_file().lines().count());
        assert!(modules().contains("\n mpm_event_module (static)\n"));
        assert!(modules_by_file().contains("\n  mod_proxy.c\n"));
        assert!(version().starts_with("Server version: Ostler/"));
        assert!(build().starts_with(&version()));
        for entry in config::listing() {
            assert!(directives().contains(&format!("{}\n\t", entry.synopsis)), "{}", entry.name);
        }
    }
}
