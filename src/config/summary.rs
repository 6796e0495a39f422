//! What will hold, in a line for `-t` and the log; and the table of directives for `-L`.

use super::backend::PARAMETERS;
use super::directives::{TABLE, Treatment};
use super::model::{Config, Mpm};

/// What the numbers come to: `event: 16 children x 25 threads = 400 workers, scoreboard 412 KiB`, and below it
/// what a reload may make of them. `board_bytes` is the size of the scoreboard.
#[must_use]
pub fn effective(config: &Config, board_bytes: u64) -> String {
    let limits = &config.limits;
    let (children, threads) = (limits.max_children(), limits.threads_per_child);
    let plural = |count: u32, one: &'static str, many: &'static str| if count == 1 { one } else { many };
    let shape = match config.mpm {
        Mpm::Prefork => format!("{children} {}", plural(children, "child", "children")),
        Mpm::Event | Mpm::Worker => format!(
            "{children} {} x {threads} {}",
            plural(children, "child", "children"),
            plural(threads, "thread", "threads")
        ),
    };
    let workers = limits.max_request_workers;
    format!(
        "{}: {shape} = {workers} {}, scoreboard {} KiB\n\
         while a reload drains old children, up to {} children and {} workers at one time",
        config.mpm.name(),
        plural(workers, "worker", "workers"),
        board_bytes.div_ceil(1024),
        u64::from(children) * 2,
        u64::from(workers) * 2,
    )
}

/// A directive, section or parameter as `-L` shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// `Listen`, `<Location>`, or `ProxyPass timeout=` for a parameter.
    pub name: String,
    /// The whole line: `Listen [address:]port [http]`.
    pub synopsis: String,
    /// Where it may stand: `server, virtual host`.
    pub contexts: String,
    /// Which MPMs know it: `every MPM`, `event and worker`.
    pub mpms: &'static str,
    /// What holds without it.
    pub default: String,
    /// What it is for; if it is not honoured, why.
    pub doc: String,
    /// Other names that are taken, with a warning.
    pub aliases: Vec<&'static str>,
}

/// The whole table, by name, and the parameters of `ProxyPass` behind it.
#[must_use]
pub fn listing() -> Vec<Listed> {
    let doc = |doc: &str, treatment: Treatment| match treatment {
        Treatment::Honoured => doc.to_owned(),
        Treatment::Idle(why) => format!("{doc} (no meaning here: {why})"),
        Treatment::Refused(why) => format!("{doc} ({why})"),
    };
    let directives = TABLE.iter().map(|entry| Listed {
        name: entry.shown(),
        synopsis: entry.synopsis(),
        contexts: entry.contexts.listed(),
        mpms: entry.drivers.told(),
        default: entry.preset.shown(),
        doc: doc(entry.doc, entry.treatment),
        aliases: entry.old.iter().chain(entry.misspelt).copied().collect(),
    });
    let honoured = PARAMETERS.iter().filter(|parameter| parameter.treatment == Treatment::Honoured);
    let parameters = honoured.map(|parameter| Listed {
        name: format!("ProxyPass {}=", parameter.name),
        synopsis: format!("ProxyPass path url {}={}", parameter.name, parameter.usage),
        contexts: "server, virtual host, location, proxy".to_owned(),
        mpms: "every MPM",
        default: parameter.preset.unwrap_or(parameter.told).to_owned(),
        doc: parameter.doc.to_owned(),
        aliases: Vec::new(),
    });
    directives.chain(parameters).collect()
}
