//! Backends: the url and the parameters of `ProxyPass`, `<Proxy>` and `ProxySet`, and which lines share one.
//!
//! A backend is an address together with its parameters. Lines that agree in both share a backend and its
//! connections; lines that differ do not, so that a parameter always holds for the line it stands in.

use super::diagnostic::{Report, Span, nearest, quoted};
use super::directives::Treatment;
use super::lexer::Word;
use super::model::{Backend, Endpoint};
use super::values::{self, BackendUrl, ValueError};
use crate::ids::BackendId;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// A parameter of `ProxyPass` and `ProxySet`, as `-L` and the manual show it.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What follows the equals sign.
    pub usage: &'static str,
    /// What holds without it: words to be read, or `None` with a sentence in `told`.
    pub preset: Option<&'static str>,
    /// What holds without it, where that is no value of its own.
    pub told: &'static str,
    /// One line.
    pub doc: &'static str,
    /// What becomes of it.
    pub treatment: Treatment,
}

const fn honoured(
    name: &'static str,
    usage: &'static str,
    preset: Option<&'static str>,
    told: &'static str,
    doc: &'static str,
) -> Parameter {
    Parameter { name, usage, preset, told, doc, treatment: Treatment::Honoured }
}

const fn refused(name: &'static str, why: &'static str) -> Parameter {
    Parameter { name, usage: "", preset: None, told: "", doc: "", treatment: Treatment::Refused(why) }
}

const fn idle(name: &'static str, why: &'static str) -> Parameter {
    Parameter { name, usage: "", preset: None, told: "", doc: "", treatment: Treatment::Idle(why) }
}

const BALANCING: &str = "balancing is not built yet";
const CHECKS: &str = "health checks are not built yet";

/// All of them, by name.
pub static PARAMETERS: &[Parameter] = &[
    refused("acquire", "waiting for a free connection is not built yet; a full backend earns 503"),
    refused("addressttl", "looking up names again is not built yet; a reload does"),
    honoured("connectiontimeout", "seconds|number ms", None, "as timeout", "how long a connect may take"),
    honoured("disablereuse", "On|Off", None, "Off", "closes each connection after one request"),
    honoured("enablereuse", "On|Off", Some("On"), "", "keeps connections for further requests"),
    refused("failonstatus", BALANCING),
    refused("failontimeout", BALANCING),
    idle("flushpackets", "what a backend sends goes on at once"),
    idle("flushwait", "what a backend sends goes on at once"),
    refused("forcerecovery", BALANCING),
    refused("growth", BALANCING),
    refused("hcexpr", CHECKS),
    refused("hcfails", CHECKS),
    refused("hcinterval", CHECKS),
    refused("hcmethod", CHECKS),
    refused("hcpasses", CHECKS),
    refused("hctemplate", CHECKS),
    refused("hcuri", CHECKS),
    idle("iobuffersize", "buffers belong to threads and fit every backend"),
    honoured("keepalive", "On|Off", Some("Off"), "", "lets the kernel probe idle connections (SO_KEEPALIVE)"),
    refused("lbmethod", BALANCING),
    refused("lbset", BALANCING),
    refused("loadfactor", BALANCING),
    refused("mapping", "other ways of reading a path are not built yet"),
    honoured("max", "number", None, "the child's workers", "the most connections of one child"),
    refused("maxattempts", BALANCING),
    refused("min", "keeping connections ready is not built yet"),
    refused("nofailover", BALANCING),
    refused("nonce", BALANCING),
    refused("ping", "asking a backend before each request is not built yet"),
    refused("receivebuffersize", "receive buffers of backends are not built yet"),
    refused("redirect", BALANCING),
    refused("responsefieldsize", "limits of a backend's fields are not built yet"),
    honoured("retry", "seconds", Some("0"), "", "how long a backend is left alone that could not be reached"),
    refused("route", BALANCING),
    refused("scolonpathdelim", BALANCING),
    refused("secret", "AJP backends are not built yet"),
    refused("smax", "a second bound of connections is not built yet; max and ttl are"),
    refused("status", BALANCING),
    refused("stickysession", BALANCING),
    refused("stickysessionsep", BALANCING),
    honoured("timeout", "seconds|number ms", None, "as ProxyTimeout", "each wait for the backend"),
    honoured("ttl", "seconds", Some("60"), "", "how long a connection may stay idle"),
    refused("upgrade", "choosing protocols to upgrade to is not built yet"),
];

/// The parameters of one line; `None` where it says nothing.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    connect_timeout: Option<Duration>,
    timeout: Option<Duration>,
    max: Option<NonZeroU32>,
    ttl: Option<Duration>,
    retry: Option<Duration>,
    reuse: Option<bool>,
    keepalive: Option<bool>,
}

impl Parameters {
    /// What the table says.
    fn presets() -> Self {
        let mut all = Self::default();
        for parameter in PARAMETERS {
            if let Some(words) = parameter.preset {
                all.set(parameter.name, words).expect("the table's own presets are values");
            }
        }
        all
    }

    /// Reads `name=value`. What is wrong goes into the report.
    pub fn read(&mut self, word: &Word, report: &mut Report) {
        let Some((name, value)) = word.text.split_once('=') else {
            let item = report.fault(word.span, format!("{} is no parameter", quoted(&word.text)));
            if PARAMETERS.iter().any(|parameter| word.is(parameter.name)) {
                item.hint(format!("write {}=value", word.text));
            }
            return;
        };
        let Some(parameter) = PARAMETERS.iter().find(|parameter| name.eq_ignore_ascii_case(parameter.name))
        else {
            let item = report.fault(word.span, format!("there is no parameter {}", quoted(name)));
            if let Some(near) = nearest(name, PARAMETERS.iter().map(|parameter| parameter.name)) {
                item.hint(format!("did you mean {near}?"));
            }
            return;
        };
        match parameter.treatment {
            Treatment::Refused(why) => {
                report.fault(word.span, format!("{}: {why}", parameter.name));
            }
            Treatment::Idle(why) => {
                report.note(word.span, format!("{} has no meaning here: {why}", parameter.name));
            }
            Treatment::Honoured => {
                if let Err(error) = self.set(parameter.name, value) {
                    let item = report.fault(word.span, format!("{}: {}", parameter.name, error.message));
                    if let Some(hint) = error.hint {
                        item.hint(hint);
                    }
                }
            }
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ValueError> {
        match name {
            "connectiontimeout" => self.connect_timeout = Some(values::wait(value)?),
            "timeout" => self.timeout = Some(values::wait(value)?),
            "max" => {
                let most = values::number_within(value, 1, u32::MAX.into())?;
                self.max = u32::try_from(most).ok().and_then(NonZeroU32::new);
            }
            "ttl" => self.ttl = Some(values::wait(value)?),
            "retry" => self.retry = Some(values::duration(value)?),
            "disablereuse" => self.reuse = Some(!values::on_off(value)?),
            "enablereuse" => self.reuse = Some(values::on_off(value)?),
            "keepalive" => self.keepalive = Some(values::on_off(value)?),
            other => unreachable!("{other} is honoured by the table but by nobody else"),
        }
        Ok(())
    }

    /// Lets what `other` says hold over this.
    fn overlay(&mut self, other: &Self) {
        self.connect_timeout = other.connect_timeout.or(self.connect_timeout);
        self.timeout = other.timeout.or(self.timeout);
        self.max = other.max.or(self.max);
        self.ttl = other.ttl.or(self.ttl);
        self.retry = other.retry.or(self.retry);
        self.reuse = other.reuse.or(self.reuse);
        self.keepalive = other.keepalive.or(self.keepalive);
    }
}

/// A `<Proxy>` section or a `ProxySet` line: parameters for every backend whose url begins so.
#[derive(Clone, Debug)]
pub struct ProxySet {
    /// The url; `None` for `*`, every backend.
    pub url: Option<BackendUrl>,
    /// What it says.
    pub parameters: Parameters,
    /// Where.
    pub span: Span,
    /// Whether some backend was under it.
    pub used: bool,
}

impl ProxySet {
    /// How closely it fits; `None` if it does not.
    fn fit(&self, url: &BackendUrl) -> Option<usize> {
        let Some(own) = &self.url else { return Some(0) };
        let same = own.socket == url.socket && own.host == url.host && own.port == url.port;
        let rest = url.path.strip_prefix(own.path.trim_end_matches('/'))?;
        (same && (rest.is_empty() || rest.starts_with('/'))).then_some(1 + own.path.len())
    }
}

/// All backends, each once.
#[derive(Debug, Default)]
pub struct Backends {
    list: Vec<Backend>,
    index: HashMap<Backend, BackendId>,
}

impl Backends {
    /// The backend of a url with its parameters. `sets` are in the order in which later ones win, if they fit
    /// equally well.
    pub fn intern(&mut self, url: &BackendUrl, own: &Parameters, sets: &mut [&mut [ProxySet]]) -> BackendId {
        let mut parameters = Parameters::presets();
        let mut fitting: Vec<(usize, &mut ProxySet)> = sets
            .iter_mut()
            .flat_map(|sets| sets.iter_mut())
            .filter_map(|set| set.fit(url).map(|fit| (fit, set)))
            .collect();
        fitting.sort_by_key(|&(fit, _)| fit);
        for (_, set) in fitting {
            set.used = true;
            parameters.overlay(&set.parameters);
        }
        parameters.overlay(own);
        let backend = build(url, &parameters);
        if let Some(&id) = self.index.get(&backend) {
            return id;
        }
        let id = BackendId(u32::try_from(self.list.len()).expect("a file holds fewer than 2^32 lines"));
        self.list.push(backend.clone());
        self.index.insert(backend, id);
        id
    }

    /// All of them, by their ids.
    #[must_use]
    pub fn into_list(self) -> Vec<Backend> {
        self.list
    }
}

fn build(url: &BackendUrl, parameters: &Parameters) -> Backend {
    let endpoint = match &url.socket {
        Some(path) => Endpoint::Unix(PathBuf::from(path)),
        None => Endpoint::Tcp {
            host: url.host.clone(),
            port: url.port,
            addresses: url.ip().map(|ip| SocketAddr::new(ip, url.port)).into_iter().collect(),
        },
    };
    let preset = "the table presets it";
    Backend {
        url: url.shown(),
        endpoint,
        host_field: url.authority(),
        connect_timeout: parameters.connect_timeout,
        timeout: parameters.timeout,
        max: parameters.max,
        ttl: parameters.ttl.expect(preset),
        retry: parameters.retry.expect(preset),
        reuse: parameters.reuse.expect(preset),
        keepalive: parameters.keepalive.expect(preset),
    }
}
