//! Host and path to a route: who answers, what a backend is asked, which settings hold.
//!
//! httpd's mapping: the last matching `<Location>` with a `ProxyPass` first, then the list in the order of the
//! file, first match wins; `!` ends the search. A `ProxyPass` goes before `SetHandler`, so a status page below a
//! proxied path needs its `!`. Pure; the hot path reads the client's bytes once and allocates nothing.

mod hosts;
mod path;
mod reverse;

use crate::config::model::{
    Config, Forward, Handler, Location, LocationMatcher, ProxyRule, Require, Target, VirtualHost,
};
use crate::ids::{BackendId, HostId};
use hosts::Hosts;
use path::BadPath;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;

/// Finds hosts and routes. Built once per configuration.
#[derive(Debug)]
pub struct Router {
    hosts: Hosts,
}

/// What a route depends on.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The path as the client sent it; empty stands for `/`.
    pub path: &'a [u8],
    /// What follows the question mark, if there is one.
    pub query: Option<&'a [u8]>,
    /// Who asks, for `Require`.
    pub client: IpAddr,
    /// Our end of the connection, for `Require local`.
    pub local: IpAddr,
}

/// What to do with a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Who answers.
    pub action: Action,
    /// `ProxyPreserveHost`
    pub preserve_host: bool,
    /// `ProxyAddHeaders`
    pub add_headers: bool,
    /// `LimitRequestBody` in bytes; `None` is without limit.
    pub limit_request_body: Option<NonZeroU64>,
    /// Which sections' `ProxyPassReverse` hold for the response.
    pub reverse: ReverseScope,
}

/// Who answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// A backend; its target is in `out`.
    Forward(BackendId),
    /// One of our own pages.
    Handler(Handler),
    /// Nobody: 404.
    NotFound,
    /// We refuse: 400 for a path that is none, 403 for who may not or what cannot be sent on.
    Denied(u16),
}

/// The matching sections that have a `ProxyPassReverse`, in order. Nested deeper than its inline room, it
/// allocates.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ReverseScope {
    first: [u32; Self::INLINE],
    count: u8,
    more: Vec<u32>,
}

impl ReverseScope {
    const INLINE: usize = 4;

    /// Whether no section has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, location: usize) {
        let location = u32::try_from(location).expect("a configuration has fewer than 2^32 sections");
        match self.first.get_mut(usize::from(self.count)) {
            Some(place) => {
                *place = location;
                self.count += 1;
            }
            None => self.more.push(location),
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.first[..usize::from(self.count)].iter().chain(&self.more).map(|location| *location as usize)
    }
}

/// The settings that sections may change, and what they say of the path.
struct Sections<'c> {
    target: Option<(&'c Location, &'c Target)>,
    handler: Option<Handler>,
    require: Option<&'c [Require]>,
    route: Route,
}

impl Router {
    /// Indexes the virtual hosts of `config`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { hosts: Hosts::new(config) }
    }

    /// The host that answers on `local` for `authority` (`name[:port]` as the client sent it, or empty). An
    /// address that no section names belongs to the main server; a name that no host has, to the first host of
    /// the address. Costs two hashes, however many hosts there are.
    #[must_use]
    pub fn host(&self, local: SocketAddr, authority: &[u8]) -> HostId {
        self.hosts.find(local, authority)
    }

    /// What to do with a request to `host`. With [`Action::Forward`], `out` holds the target for the backend:
    /// path and query, beginning with a slash, without control character or blank. Otherwise it is empty.
    pub fn route(&self, config: &Config, host: HostId, asked: &Asked<'_>, out: &mut Vec<u8>) -> Route {
        out.clear();
        let host = config.host(host);
        let mut route = Route {
            action: Action::NotFound,
            preserve_host: host.forwarding.preserve_host,
            add_headers: host.forwarding.add_headers,
            limit_request_body: host.limits.body,
            reverse: ReverseScope::default(),
        };
        let raw = if asked.path.is_empty() { b"/" } else { asked.path };
        if path::is_verbatim(raw) {
            return decide(
                host,
                asked,
                &Spelling { raw, canonical: raw, decoded: raw, dots: false },
                route,
                out,
            );
        }
        // The spellings are made in two buffers of their own only here, where a path needs more than a look.
        let mut canonical = Vec::with_capacity(raw.len() * 2);
        match path::normalise(raw, &mut canonical) {
            Err(BadPath(404)) => route,
            Err(BadPath(status)) => {
                route.action = Action::Denied(status);
                route
            }
            Ok(changes) => {
                let mut decoded = Vec::new();
                if changes.encoded {
                    path::decode(&canonical, &mut decoded);
                }
                let decoded = if changes.encoded { &decoded } else { &canonical };
                let spelling = Spelling { raw, canonical: &canonical, decoded, dots: changes.dots };
                decide(host, asked, &spelling, route, out)
            }
        }
    }

    /// Rewrites `value`, a url in Location, Content-Location, URI or Destination of a backend's response, by the
    /// `ProxyPassReverse` rules that hold for `route`: the host's, then those of its sections. `our_origin` is
    /// what the client sees of us, `http://host:port`. `false` and `out` untouched if no rule is for it.
    pub fn rewrite_location(
        &self,
        config: &Config,
        host: HostId,
        scope: &ReverseScope,
        value: &[u8],
        our_origin: &str,
        out: &mut Vec<u8>,
    ) -> bool {
        let host = config.host(host);
        let in_sections = scope.iter().filter_map(|at| host.locations.get(at)?.reverse.as_ref());
        reverse::rewrite(host.reverse.iter().chain(in_sections), value, our_origin, out)
    }
}

/// A path three ways.
struct Spelling<'a> {
    /// As the client sent it.
    raw: &'a [u8],
    /// In its one spelling, encoded.
    canonical: &'a [u8],
    /// What that stands for; rules and sections are compared with it.
    decoded: &'a [u8],
    /// Whether `raw` had dot segments.
    dots: bool,
}

fn decide(
    host: &VirtualHost,
    asked: &Asked<'_>,
    path: &Spelling<'_>,
    route: Route,
    out: &mut Vec<u8>,
) -> Route {
    let Sections { target, handler, require, mut route } = walk(host, path.decoded, route);
    if require.is_some_and(|require| !lets_in(require, asked)) {
        route.action = Action::Denied(403);
        return route;
    }
    let mapped = target
        .and_then(|(location, target)| Some((target, matched_by_section(location, path)?)))
        .or_else(|| host.rules.iter().find_map(|rule| Some((&rule.target, matched_by_rule(rule, path)?))));
    route.action = match (mapped, handler) {
        (Some((Target::Forward(forward), matched)), _) => {
            if compose(forward, matched, asked.query, path, out) {
                Action::Forward(forward.backend)
            } else {
                out.clear();
                Action::Denied(403)
            }
        }
        (_, Some(handler)) => Action::Handler(handler),
        (_, None) => Action::NotFound,
    };
    route
}

/// Goes through the sections in order: what a later one says replaces what an earlier one said.
fn walk<'c>(host: &'c VirtualHost, decoded: &[u8], route: Route) -> Sections<'c> {
    let mut sections = Sections { target: None, handler: None, require: None, route };
    for (at, location) in host.locations.iter().enumerate() {
        if !is_for(&location.matcher, decoded) {
            continue;
        }
        if let Some(target) = &location.target {
            sections.target = Some((location, target));
        }
        if location.reverse.is_some() {
            sections.route.reverse.push(at);
        }
        sections.handler = location.handler.or(sections.handler);
        sections.require = location.require.as_deref().or(sections.require);
        let route = &mut sections.route;
        route.limit_request_body = location.limit_request_body.unwrap_or(route.limit_request_body);
        route.preserve_host = location.preserve_host.unwrap_or(route.preserve_host);
        route.add_headers = location.add_headers.unwrap_or(route.add_headers);
    }
    sections
}

fn is_for(matcher: &LocationMatcher, decoded: &[u8]) -> bool {
    match matcher {
        LocationMatcher::Prefix(prefix) => path::prefix(prefix.as_bytes(), decoded).is_some(),
        LocationMatcher::Glob(pattern) => pattern.matches(decoded),
        LocationMatcher::Regex(regex) => regex.is_match(decoded),
    }
}

/// Whether any of `require` lets the client in; an empty list says nothing.
fn lets_in(require: &[Require], asked: &Asked<'_>) -> bool {
    let (client, local) = (asked.client.to_canonical(), asked.local.to_canonical());
    require.is_empty()
        || require.iter().any(|require| match require {
            Require::AllGranted => true,
            Require::AllDenied => false,
            Require::Local => client.is_loopback() || client == local,
            Require::Ip(net) => net.contains(&client),
        })
}

/// How much of a path a rule took.
struct Matched<'c> {
    /// The rule's own path; empty if it takes nothing away.
    prefix: &'c [u8],
    /// Bytes of the decoded path.
    length: usize,
}

fn matched_by_rule<'c>(rule: &'c ProxyRule, path: &Spelling<'_>) -> Option<Matched<'c>> {
    matched_by_prefix(rule.path.as_bytes(), path)
}

/// A section with a pattern takes nothing away: the whole path follows, as with httpd's ProxyPassMatch.
fn matched_by_section<'c>(location: &'c Location, path: &Spelling<'_>) -> Option<Matched<'c>> {
    match &location.matcher {
        LocationMatcher::Prefix(prefix) => matched_by_prefix(prefix.as_bytes(), path),
        LocationMatcher::Glob(_) | LocationMatcher::Regex(_) => Some(Matched { prefix: b"", length: 0 }),
    }
}

fn matched_by_prefix<'c>(prefix: &'c [u8], path: &Spelling<'_>) -> Option<Matched<'c>> {
    Some(Matched { prefix, length: path::prefix(prefix, path.decoded)? })
}

/// Appends url + rest of the path + query to `out`; `false` if that must not be sent.
fn compose(
    forward: &Forward,
    matched: Matched<'_>,
    query: Option<&[u8]>,
    path: &Spelling<'_>,
    out: &mut Vec<u8>,
) -> bool {
    // Dot segments that a backend would resolve could climb out of `base`; then, and where the client's own bytes
    // do not show what matched, they are not safe to send, and the one spelling serves instead.
    let own = (forward.nocanon && !path.dots)
        .then(|| path::prefix_of_raw(matched.prefix, path.raw).filter(|length| *length == matched.length));
    let rest = match own.flatten() {
        Some(length) => &path.raw[length..],
        None => &path.canonical[path::encoded_length(path.canonical, matched.length)..],
    };
    let base = forward.base.as_bytes();
    // The closing slash of an authority without a path is ours, not the administrator's: `/d` to `http://h` asks
    // for `/x`, not `//x`. And whatever the two sides say, the target begins with a slash, so that what a client
    // sends can never complete a host or a port.
    let base = if base == b"/" && rest.first() == Some(&b'/') { b"" } else { base };
    if base.first().or(rest.first()) != Some(&b'/') {
        out.push(b'/');
    }
    out.extend_from_slice(base);
    out.extend_from_slice(rest);
    if let Some(query) = query.filter(|_| !forward.noquery) {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    path::is_sendable(out)
}

#[cfg(test)]
mod tests;
