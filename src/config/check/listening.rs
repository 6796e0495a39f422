//! `Listen` and `StatusListen`: which addresses, and that none is asked for twice.

use super::super::diagnostic::{Report, Span, quoted};
use super::super::model::{Listen, StatusListen};
use super::super::parser::Directive;
use super::super::values;
use super::Checker;
use std::path::Path;

/// A `StatusListen`, before it is known where relative paths begin.
#[derive(Debug)]
pub(super) enum StatusWish {
    /// An address.
    Tcp(Listen),
    /// A socket in the file system.
    Unix(String),
}

/// The kernel's sockaddr_un holds 108 bytes with the closing zero.
const LONGEST_PATH: usize = 107;

impl Checker<'_> {
    pub(super) fn listen(&mut self, directive: &Directive) {
        match directive.args.get(1) {
            Some(protocol) if protocol.is("https") => {
                self.report.fault(protocol.span, "TLS is not built in yet");
            }
            Some(protocol) if !protocol.is("http") => {
                self.report
                    .fault(protocol.span, format!("{} is not a protocol of ours", quoted(&protocol.text)));
            }
            _ => {}
        }
        let Some(listen) = self.value(directive, values::listen) else { return };
        if self.is_free("Listen", listen, directive.args[0].span) {
            self.server.listen.push((listen, directive.args[0].span));
        }
    }

    pub(super) fn status_listen(&mut self, directive: &Directive) {
        let word = &directive.args[0];
        let span = word.span;
        let path = word.text.get(..5).filter(|start| start.eq_ignore_ascii_case("unix:"));
        if path.is_some() {
            let path = &word.text[5..];
            if path.is_empty() || path.ends_with('/') || path.chars().any(char::is_control) {
                self.report
                    .fault(span, format!("StatusListen: {} names no socket", quoted(&word.text)))
                    .hint("write unix:/run/ostler/status");
                return;
            }
            self.server.status.push((StatusWish::Unix(path.to_owned()), span));
            return;
        }
        let Some(listen) = self.value(directive, values::status_listen) else { return };
        if !self.is_free("StatusListen", listen, span) {
            return;
        }
        if !listen.address.ip().is_loopback() {
            self.report
                .warning(span, format!("whoever can reach {} may read the status", shown(listen)))
                .hint(
                    "no Require holds there: it shows clients, their requests and the backends; a port alone, \
                     127.0.0.1 or unix:/path stay on this machine",
                );
        }
        self.server.status.push((StatusWish::Tcp(listen), span));
    }

    /// Whether the kernel would let `listen` be bound beside what is asked for already; says so if not.
    fn is_free(&mut self, name: &str, listen: Listen, span: Span) -> bool {
        let sites = self.server.listen.iter().map(|(other, _)| ("Listen", *other));
        let status = self.server.status.iter().filter_map(|(wish, _)| match wish {
            StatusWish::Tcp(other) => Some(("StatusListen", *other)),
            StatusWish::Unix(_) => None,
        });
        // Two lines of one kind must differ, so that a reload knows which socket is whose; of two kinds, each gets a
        // port of its own where the kernel is asked for one.
        let clashes = |(theirs, other): &(&str, Listen)| {
            overlap(*other, listen) && (*theirs == name || listen.address.port() != 0)
        };
        let Some((theirs, other)) = sites.chain(status).find(clashes) else {
            return true;
        };
        // What a port alone stands for differs.
        let written = |name: &str, listen: Listen| match name {
            "Listen" => format!("Listen {}", as_listen(listen)),
            _ => format!("StatusListen {}", shown(listen)),
        };
        let message = if other == listen && theirs == name {
            format!("{} is there already", written(name, listen))
        } else {
            format!("{} and {} overlap", written(theirs, other), written(name, listen))
        };
        self.report.fault(span, message).hint("each connection must belong to one of them; leave one out");
        false
    }
}

/// Completes a wish: relative paths begin in `base`.
pub(super) fn settle(wish: &StatusWish, at: Span, base: &Path, report: &mut Report) -> StatusListen {
    match wish {
        StatusWish::Tcp(listen) => StatusListen::Tcp(*listen),
        StatusWish::Unix(path) => {
            let path = base.join(path);
            let length = path.as_os_str().len();
            if length > LONGEST_PATH {
                report.fault(
                    at,
                    format!(
                        "the path of a socket can have {LONGEST_PATH} bytes at most, and this has {length}"
                    ),
                );
            }
            StatusListen::Unix(path)
        }
    }
}

/// `Listen` as one would write it.
fn as_listen(listen: Listen) -> String {
    if listen.any_family { listen.address.port().to_string() } else { listen.address.to_string() }
}

/// The address of `StatusListen` as one would write it.
fn shown(listen: Listen) -> String {
    if listen.any_family { format!("*:{}", listen.address.port()) } else { listen.address.to_string() }
}

/// Whether the kernel would refuse the second of two.
fn overlap(one: Listen, other: Listen) -> bool {
    if one == other {
        return true;
    }
    if one.address.port() != other.address.port() || one.address.port() == 0 {
        return false;
    }
    let covers = |wide: Listen, narrow: Listen| {
        wide.any_family
            || (wide.address.ip().is_unspecified() && wide.address.is_ipv4() == narrow.address.is_ipv4())
    };
    covers(one, other) || covers(other, one)
}
