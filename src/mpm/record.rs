//! What logs and scoreboard learn of an exchange, once it is over.

use super::child::Child;
use super::conn::Conn;
use super::relay::Active;
use crate::clock::Moment;
use crate::config::model::Endpoint;
use crate::http::{RequestHead, values_in};
use crate::ids::{BackendId, HostId, WorkerIndex};
use crate::log::access::{AccessRecord, Answerer, ConnectionEnd, UpstreamAddress, UpstreamRecord};
use crate::log::line::Client;
use crate::log::{Capture, RequestFacts};
use crate::proxy::exchange::{Failure, Refusal};
use crate::scoreboard::row;
use crate::scoreboard::state::WorkerState;
use slog::{error, info};
use std::net::SocketAddr;

impl Child {
    /// Copies what the access logs of `host` want of a request's head.
    pub(super) fn capture_request(&self, head: &RequestHead<'_, '_>, host: HostId, capture: &mut Capture) {
        let logs = self.access_logs(host);
        if logs.is_empty() {
            return;
        }
        let facts = RequestFacts {
            line: head.line,
            method: head.method.as_bytes(),
            path: head.path,
            query: head.query,
            protocol: head.version.name().as_bytes(),
            host: head.authority,
        };
        logs.capture_request(&facts, |name| head.fields.all(name), capture);
    }

    /// Copies what the access logs of `host` want of a response's head; what is behind it in `bytes` does not matter.
    pub(super) fn capture_response(&self, bytes: &[u8], host: HostId, capture: &mut Capture) {
        let logs = self.access_logs(host);
        if logs.wants_response() {
            logs.capture_response(|name| values_in(bytes, name), capture);
        }
    }

    /// Copies what the access logs of `host` want of a request's trailers.
    #[cold]
    pub(super) fn capture_request_trailers(&self, trailers: &[u8], host: HostId, capture: &mut Capture) {
        self.access_logs(host).capture_request_trailers(|name| values_in(trailers, name), capture);
    }

    /// Copies what the access logs of `host` want of a response's trailers.
    #[cold]
    pub(super) fn capture_response_trailers(&self, trailers: &[u8], host: HostId, capture: &mut Capture) {
        self.access_logs(host).capture_response_trailers(|name| values_in(trailers, name), capture);
    }

    /// Shows a request in its worker row.
    pub(super) fn show_request(
        &self,
        row: Option<WorkerIndex>,
        client: SocketAddr,
        host: HostId,
        line: &[u8],
        protocol: &str,
        start: Moment,
    ) {
        if let Some(row) = row {
            let host = &self.config.host(host).name;
            self.block.worker(row).request(&row::RequestFacts { client, host, line, protocol, start });
        }
    }

    /// Counts what a tunnel has passed on since it was counted last: it may live for days.
    #[cold]
    pub(super) fn count_tunnel(&self, conn: &Conn, active: &mut Active) {
        let (bytes_in, bytes_out) = active.uncounted();
        match (conn.row, &self.event) {
            (Some(row), _) => self.block.worker(row).passed(bytes_in, bytes_out),
            (None, Some(event)) => event.rows.count_loose(bytes_in, bytes_out),
            (None, None) => {}
        }
    }

    /// An exchange is over: counts it, shows it, logs it.
    pub(super) fn record(&self, conn: &Conn, active: &mut Active, kept: bool, now: Moment) {
        let exchange = &active.exchange;
        let record = &exchange.record;
        // A tunnel's life is no response time, and without a row there was no request: its head never came whole.
        let took =
            (record.upstream_status != 101 && conn.row.is_some()).then(|| now.micros_since(active.started));
        if let Some(took) = took {
            self.block.latency(took);
        }
        if let Some(id) = exchange.backend()
            && active.marks.first_byte != Moment(0)
        {
            let counters = self.block.backend(id);
            let took = active.marks.first_byte.micros_since(active.marks.begun);
            counters.latency(took);
        }
        if !self.access_logs(exchange.host()).is_empty() {
            self.write_log(conn, active, kept, now);
        }
        match conn.row {
            Some(row) => {
                let (bytes_in, bytes_out) = active.uncounted();
                self.block.worker(row).finish(now, took, bytes_in, bytes_out);
            }
            // A tunnel under event, or a head that never came whole.
            None => self.count_tunnel(conn, active),
        }
    }

    #[inline(never)]
    fn write_log(&self, conn: &Conn, active: &Active, kept: bool, now: Moment) {
        let exchange = &active.exchange;
        let record = &exchange.record;
        conn.set_state(WorkerState::Log, self);
        let host = self.config.host(exchange.host());
        let aborted = record.aborted || record.status == 0;
        self.access_logs(exchange.host()).write(
            &AccessRecord {
                client: conn.peer,
                peer: conn.peer,
                local: conn.local,
                host_name: &host.name,
                port: host.port.unwrap_or(conn.local.port()),
                status: record.status,
                body_bytes: record.body_sent,
                bytes_in: active.bytes_in,
                bytes_out: active.bytes_out,
                start_wall_us: active.started_wall,
                start: active.started,
                end: now,
                kept_alive: conn.session.requests().saturating_sub(1),
                connection: match (aborted, kept) {
                    (true, _) => ConnectionEnd::Aborted,
                    (false, true) => ConnectionEnd::Kept,
                    (false, false) => ConnectionEnd::Closed,
                },
                answerer: match exchange.backend() {
                    Some(id) if record.upstream_status != 0 => {
                        Answerer::Backend(&self.config.backend(id).url)
                    }
                    _ => record.handler.map_or(Answerer::Nobody, |handler| Answerer::Handler(handler.name())),
                },
                upstream: exchange.backend().and_then(|id| self.upstream_record(id, active, now)),
                proxy_error: record.failure,
            },
            &active.capture,
        );
    }

    fn upstream_record<'a>(
        &'a self,
        id: BackendId,
        active: &Active,
        now: Moment,
    ) -> Option<UpstreamRecord<'a>> {
        let marks = &active.marks;
        if marks.attempts == 0 {
            return None;
        }
        let address = match &self.config.backend(id).endpoint {
            Endpoint::Tcp { addresses, .. } => UpstreamAddress::Tcp(*addresses.get(marks.address)?),
            Endpoint::Unix(path) => UpstreamAddress::Unix(path.to_str().unwrap_or("unix")),
        };
        let since =
            |later: Moment, earlier: Moment| (later != Moment(0)).then(|| later.micros_since(earlier));
        Some(UpstreamRecord {
            address,
            status: (active.exchange.record.upstream_status != 0)
                .then_some(active.exchange.record.upstream_status),
            connect_us: if marks.reused { Some(0) } else { since(marks.connected, marks.dialled) },
            header_us: since(marks.first_byte, active.started),
            total_us: since(now, marks.begun),
            attempts: marks.attempts,
            reused: marks.reused,
        })
    }

    /// A client's request was not taken: of interest to whoever looks into that client's troubles.
    #[cold]
    pub(super) fn log_refusal(&self, client: SocketAddr, refusal: &Refusal) {
        info!(self.log, "request refused with {}: {refusal}", refusal.status();
            "module" => "core", "client" => %Client(client));
    }

    /// Nobody else could be asked, or nobody was to be.
    #[cold]
    pub(super) fn say_answered(&self, status: u16, client: SocketAddr) {
        info!(self.log, "request answered with {status} here"; "module" => "core", "client" => %Client(client));
    }

    /// A backend failed a request.
    #[cold]
    pub(super) fn log_failure(&self, id: BackendId, client: SocketAddr, failure: &Failure) {
        // Its state has been logged when it changed; a request that is turned away for it is not news.
        if *failure != Failure::LeftAlone {
            error!(self.log, "{}: {failure}; the client gets {}", self.config.backend(id).url, failure.status();
                "module" => "proxy", "client" => %Client(client));
        }
    }
}
