//! One request and its response: bytes of both sides in, bytes for both sides out.
//!
//! Sans-I/O. `mpm::conn` reads, hands the bytes in, and sends what has been gathered; it opens and keeps the
//! backend's connection as [`Begun`] and [`Exchange::backend_may_be_kept`] say. Nothing is ever buffered whole:
//! what is not consumed stays with the caller and comes again with more behind it.

pub use super::outcome::{Aftermath, Failure, Refusal};
use super::rewrite::{self, Encoding, RequestPlan, body_piece};
use super::router::{Action, Asked as Question, ReverseScope, Router};
use crate::buf::Gather;
use crate::clock::Moment;
use crate::config::model::{Config, Forwarding, Handler, VirtualHost};
use crate::http::reply::{self, Persistence, Reply};
use crate::http::{
    Body, Expectation, FieldSlots, FoundRequest, HeadLimits, HeadScan, Method, Piece, RequestBody,
    RequestHead, TargetForm, Version, chunked,
};
use crate::ids::{BackendId, HostId};
use std::net::SocketAddr;

/// What an exchange shows of a response to whoever logs it.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// The final head, as the client gets it.
    Head(&'a [u8]),
    /// The lines behind the body, as they came, whether or not the client gets them.
    Trailers(&'a [u8]),
}

/// What an exchange needs to know of the world, each time it is asked.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Hosts and paths.
    pub router: &'a Router,
    /// Now.
    pub now: Moment,
    /// Now, as a Date field has it.
    pub date: &'a str,
    /// What we call ourselves in Server.
    pub server: &'a str,
    /// The client.
    pub peer: SocketAddr,
    /// Our end of the client's connection.
    pub local: SocketAddr,
    /// Whether the connection may be kept as far as the process is concerned: it is not leaving.
    pub may_keep: bool,
}

/// How a request's head came.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    /// Requests on this connection, this one included.
    pub requests: u32,
    /// Whether bytes follow the head already.
    pub more: bool,
    /// What it may measure.
    pub limits: &'a HeadLimits,
    /// How its end was found; the desk's slots are still as that left them.
    pub found: FoundRequest,
}

/// Where a head is worked on; lent by the thread.
pub struct Desk<'a> {
    /// Room for its fields.
    pub slots: &'a mut FieldSlots,
    /// Room for the rewritten path.
    pub path: &'a mut Vec<u8>,
    /// What goes to the client.
    pub out: &'a mut Gather,
}

/// What a request wants, once its head has been read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Begun {
    /// A connection to this backend.
    Forward(BackendId),
    /// An answer that only the process can give; [`Exchange::answer`] takes it.
    Handle(Handler),
    /// Nothing: it has been answered.
    Answered,
    /// Nothing: its head makes no sense; to be handed to [`Exchange::refuse`].
    Refused(Refusal),
}

/// What the access log and the scoreboard want to know of an exchange.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The status sent, 0 as long as there is none.
    pub status: u16,
    /// The backend's status, 0 if it gave none.
    pub upstream_status: u16,
    /// Bytes of the response's body that were sent, without chunk sizes.
    pub body_sent: u64,
    /// Whether the response was cut short, or the client went away.
    pub aborted: bool,
    /// Why the backend failed, if it did.
    pub failure: Option<&'static str>,
    /// Whether the exchange got as far as a head that could be read.
    pub parsed: bool,
    /// Which of our own pages was the answer.
    pub handler: Option<Handler>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// The response's head is awaited.
    Head,
    /// The response's body is passed on.
    Body,
    /// Bytes are passed on both ways as they are.
    Tunnel,
    /// The response is complete.
    Over,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expect {
    No,
    /// The client waits for 100 (Continue), or for a final status, before it sends its body.
    Waiting,
    /// The client sends its body.
    Settled,
    /// The client has been given a final status that makes its body pointless: none is read.
    Declined,
}

/// One request and its response. Used again for the next one, so that its buffers need not be made anew.
#[derive(Debug)]
pub struct Exchange {
    host: HostId,
    backend: Option<BackendId>,
    method: Method,
    version: Version,
    /// The rewritten head, kept until the backend begins to answer: it may have to be sent twice.
    head: Vec<u8>,
    request: Body,
    request_chunked: bool,
    /// What the request's Connection lists, if trailers may follow.
    request_options: Vec<u8>,
    body_limit: Option<u64>,
    body_seen: u64,
    expect: Expect,
    idempotent: bool,
    wants_trailers: bool,
    upgrade: bool,
    forwarding: Forwarding,
    reverse: ReverseScope,
    /// scheme://host[:port] as the client knows us; filled only where ProxyPassReverse may need it.
    origin: String,
    stage: Stage,
    scan: HeadScan,
    response: Body,
    /// What the response's Connection lists, if trailers are to be passed on.
    response_options: Vec<u8>,
    encoding: Encoding,
    interims: u8,
    keep_client: bool,
    /// What the client wants to be told if its connection is kept.
    persistence: Option<Persistence>,
    /// The client meant to send another request on this connection.
    wanted_more: bool,
    keep_backend: bool,
    /// What the log will want to know.
    pub record: Record,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            host: HostId(0),
            backend: None,
            method: Method::Other,
            version: Version::Http11,
            head: Vec::new(),
            request: Body::for_request(RequestBody::Empty),
            request_chunked: false,
            request_options: Vec::new(),
            body_limit: None,
            body_seen: 0,
            expect: Expect::No,
            idempotent: false,
            wants_trailers: false,
            upgrade: false,
            forwarding: Forwarding {
                preserve_host: false,
                add_headers: false,
                via: crate::config::model::Via::Off,
            },
            reverse: ReverseScope::default(),
            origin: String::new(),
            stage: Stage::Head,
            scan: HeadScan::new(),
            response: Body::for_request(RequestBody::Empty),
            response_options: Vec::new(),
            encoding: Encoding::Empty(None),
            interims: 0,
            keep_client: false,
            persistence: None,
            wanted_more: false,
            keep_backend: false,
            record: Record::default(),
        }
    }
}

/// The one protocol that requests may switch to.
const WEBSOCKET: &[u8] = b"websocket";

/// What a 405 must tell (RFC 9110, section 15.5.6), and an OPTIONS may: all but CONNECT and TRACE pass.
const ALLOW: &[(&str, &str)] = &[("Allow", "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS")];

/// A buffer that grew beyond this is not carried over to the next exchange.
const KEEP_HEAD: usize = 4096;

impl Exchange {
    /// Forgets the exchange that was, keeps its buffers if they are small.
    pub fn reset(&mut self) {
        let mut head = std::mem::take(&mut self.head);
        let mut origin = std::mem::take(&mut self.origin);
        if head.capacity() > KEEP_HEAD {
            head = Vec::new();
        }
        head.clear();
        origin.clear();
        *self = Self { head, origin, ..Self::default() };
    }

    /// Reads a request's head. `observe` is shown what it says, and which host it is for. Answers of ours go into
    /// `desk.out`.
    pub fn begin<'b>(
        &mut self,
        bytes: &'b [u8],
        arrival: Arrival<'_>,
        desk: Desk<'_>,
        cx: &Context<'_>,
        observe: &mut dyn FnMut(&RequestHead<'b, '_>, HostId),
    ) -> Begun {
        let Desk { slots, path: scratch, out } = desk;
        let head = match RequestHead::of(bytes, arrival.found, slots, arrival.limits) {
            Ok(head) => head,
            Err(fault) => return Begun::Refused(Refusal::Malformed(fault)),
        };
        self.record.parsed = true;
        self.host = cx.router.host(cx.local, head.authority);
        let host = cx.config.host(self.host);
        self.method = head.kind;
        self.version = head.version;
        self.request = Body::for_request(head.body);
        self.request_chunked = head.body == RequestBody::Chunked;
        if self.request_chunked {
            rewrite::options(head.fields, &mut self.request_options);
        }
        self.idempotent = head.kind.is_idempotent();
        self.wants_trailers = head.accepts_trailers;
        self.wanted_more = head.persistent;
        self.keep_client = cx.may_keep
            && head.persistent
            && host.keep_alive.enabled
            && host.keep_alive.max_requests.is_none_or(|most| arrival.requests < most.get());
        self.persistence = head.asks_keep_alive.then(|| Persistence {
            timeout: host.keep_alive.timeout.as_secs(),
            left: host.keep_alive.max_requests.map(|most| most.get().saturating_sub(arrival.requests)),
        });
        observe(&head, self.host);

        match head.expectation {
            Expectation::None => {}
            Expectation::Continue => {
                if head.body != RequestBody::Empty && head.version != Version::Http10 && !arrival.more {
                    self.expect = Expect::Waiting;
                }
            }
            Expectation::Other => return self.reply(417, cx, out),
        }
        match head.kind {
            Method::Connect => {
                // A client that hopes for its tunnel may have sent the first bytes for it already, which are not
                // ours to read as a request.
                self.keep_client = false;
                return self.reply(405, cx, out);
            }
            Method::Trace => return self.reply(405, cx, out),
            // Asked of us, as the server or as the last in line (RFC 9110, 7.6.2 and 9.3.7).
            Method::Options if head.form == TargetForm::Asterisk || head.max_forwards() == Some(0) => {
                self.answer_with(200, ALLOW, "text/plain", Some(b""), cx, out);
                return Begun::Answered;
            }
            _ => {}
        }
        scratch.clear();
        let question =
            Question { path: head.path, query: head.query, client: cx.peer.ip(), local: cx.local.ip() };
        let route = cx.router.route(cx.config, self.host, &question, scratch);
        self.body_limit = route.limit_request_body.map(std::num::NonZeroU64::get);
        if let (RequestBody::Length(length), Some(limit)) = (head.body, self.body_limit)
            && length > limit
        {
            return self.reply(413, cx, out);
        }
        match route.action {
            Action::NotFound => self.reply(404, cx, out),
            Action::Denied(status) => self.reply(status, cx, out),
            Action::Handler(handler) => {
                self.record.handler = Some(handler);
                Begun::Handle(handler)
            }
            Action::Forward(id) => {
                self.forwarding = Forwarding {
                    preserve_host: route.preserve_host,
                    add_headers: route.add_headers,
                    via: host.forwarding.via,
                };
                self.backend = Some(id);
                let backend = cx.config.backend(id);
                self.keep_backend = backend.reuse;
                // Other protocols would need to be understood: h2c, say, would be a way around everything here.
                let upgrade = head
                    .upgrade
                    .filter(|names| head.body == RequestBody::Empty && names.eq_ignore_ascii_case(WEBSOCKET));
                self.upgrade = upgrade.is_some();
                if !host.reverse.is_empty() || !route.reverse.is_empty() {
                    self.reverse = route.reverse;
                    self.origin.push_str("http://");
                    // A valid authority is ASCII.
                    match std::str::from_utf8(head.authority) {
                        Ok(authority) if !authority.is_empty() => self.origin.push_str(authority),
                        _ => self.origin.push_str(&host.name),
                    }
                }
                let preserved = self.forwarding.preserve_host && !head.authority.is_empty();
                let plan = RequestPlan {
                    target: scratch,
                    host: if preserved { head.authority } else { backend.host_field.as_bytes() },
                    forwarding: self.forwarding,
                    authority: head.authority,
                    client: cx.peer.ip(),
                    name: &host.name,
                    expect: self.expect == Expect::Waiting,
                    reuse: backend.reuse,
                    upgrade,
                };
                rewrite::request_head(&head, &plan, &mut self.head);
                Begun::Forward(id)
            }
        }
    }

    /// The host whose settings hold although no head could be read.
    pub fn set_host(&mut self, host: HostId) {
        self.host = host;
    }

    /// The virtual host that the request is for.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The backend it goes to.
    #[must_use]
    pub fn backend(&self) -> Option<BackendId> {
        self.backend
    }

    /// The request's head for the backend, until the backend begins to answer.
    #[must_use]
    pub fn request_head(&self) -> &[u8] {
        &self.head
    }

    /// Whether bytes of the client are wanted: its body is not complete.
    #[must_use]
    pub fn wants_request(&self) -> bool {
        match self.stage {
            Stage::Tunnel => true,
            Stage::Over => false,
            Stage::Head | Stage::Body => !self.request.is_done() && self.expect != Expect::Declined,
        }
    }

    /// Whether the client holds its body back until it hears from the backend.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.expect == Expect::Waiting
    }

    /// Whether bytes of the backend are wanted.
    #[must_use]
    pub fn wants_response(&self) -> bool {
        self.stage != Stage::Over
    }

    /// Whether the response, and with it the exchange, is complete.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether the response has begun, and only the end of the connection tells the client where it ends.
    #[must_use]
    pub fn ends_by_close(&self) -> bool {
        self.record.status != 0 && self.encoding == Encoding::UntilClose
    }

    /// Whether bytes pass as they are.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.stage == Stage::Tunnel
    }

    /// Whether the client has been sent part of a final response, or all of it.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.record.status != 0
    }

    /// Whether the client's connection may serve another request after this one.
    #[must_use]
    pub fn client_may_be_kept(&self) -> bool {
        self.keep_client && self.request.is_done()
    }

    /// Whether the client may have sent, or be sending, more than we have read: closing at once could reset the
    /// connection before it has read our answer. A client that said itself that this is its last request sends
    /// no more.
    #[must_use]
    pub fn must_linger(&self) -> bool {
        !self.request.is_done() || !self.record.parsed || self.wanted_more
    }

    /// Whether bytes of a body have been read.
    #[must_use]
    pub fn had_a_body(&self) -> bool {
        self.body_seen > 0 || self.request_chunked
    }

    /// Whether the backend's connection may serve another request after this one.
    #[must_use]
    pub fn backend_may_be_kept(&self) -> bool {
        self.keep_backend && self.stage == Stage::Over && self.request.is_done()
    }

    /// Whether the response had no body by rule, whatever its fields say: a backend that does not know the rule sends one
    /// (RFC 9110, sections 6.4.1 and 9.3.2).
    #[must_use]
    pub fn response_may_be_misframed(&self) -> bool {
        self.method == Method::Head || matches!(self.record.upstream_status, 204 | 304)
    }

    /// Whether this request may be sent a second time, on a fresh connection, when a connection that had served
    /// before was closed by the backend (RFC 9110, section 9.2.2; RFC 9112, section 9.3.1). Only a request that
    /// has no effect of its own or the same effect twice, whose bytes are all still here, and of whose response
    /// not a byte has come.
    #[must_use]
    pub fn may_repeat(&self, response_begun: bool) -> bool {
        !response_begun
            && self.idempotent
            && self.stage == Stage::Head
            && self.interims == 0
            && self.body_seen == 0
            && self.record.status == 0
            && !self.head.is_empty()
            && self.only_head_is_out()
    }

    /// Whether all that has been sent of the request is its head: a chunked body that is complete, however empty,
    /// had its last chunk passed on.
    fn only_head_is_out(&self) -> bool {
        self.expect == Expect::Waiting || (self.request.is_done() && !self.request_chunked)
    }

    /// Whether the request could do harm if it were lost on a connection that has just died unnoticed.
    #[must_use]
    pub fn is_precious(&self) -> bool {
        !self.idempotent || !self.request.is_done()
    }

    /// Takes bytes of the client's body (or tunnel); `at` is where `input` begins in this turn's buffer. Returns
    /// how many were consumed; what is for the backend goes into `out`. `observe` is shown the lines behind the body, as
    /// they came.
    ///
    /// # Errors
    /// Why the request is not taken any further; the caller hands it to [`Exchange::refuse`].
    pub fn request_bytes(
        &mut self,
        input: &[u8],
        at: usize,
        observe: &mut dyn FnMut(&[u8]),
        out: &mut Gather,
    ) -> Result<usize, Refusal> {
        if self.stage == Stage::Tunnel {
            out.push_input(at..at + input.len());
            return Ok(input.len());
        }
        if self.expect == Expect::Waiting && !input.is_empty() {
            self.expect = Expect::Settled;
        }
        let mut used = 0;
        while !self.request.is_done() {
            let (consumed, piece) = self.request.next(&input[used..]).map_err(Refusal::Malformed)?;
            let base = used;
            used += consumed;
            match piece {
                Piece::Data(range) => {
                    self.body_seen += range.len() as u64;
                    if self.body_limit.is_some_and(|limit| self.body_seen > limit) {
                        return Err(Refusal::TooLarge);
                    }
                    let range = base + range.start..base + range.end;
                    body_piece(input, range, at, self.request_chunked, out);
                }
                Piece::Trailers(range) => {
                    out.push(chunked::LAST_SIZE_LINE);
                    let section = &input[base + range.start..base + range.end];
                    observe(section);
                    out.push_with(|owned| rewrite::trailers(section, &self.request_options, owned));
                }
                Piece::End => {
                    if self.request_chunked {
                        out.push(chunked::LAST_CHUNK);
                    }
                }
                Piece::More => break,
            }
        }
        Ok(used)
    }

    /// The backend failed: an answer of ours goes into `out` if the client has not been sent one yet.
    pub fn fail(&mut self, failure: &Failure, cx: &Context<'_>, out: &mut Gather) -> Aftermath {
        self.record.failure = Some(failure.word());
        self.keep_backend = false;
        if self.has_answered() {
            self.cut();
            return Aftermath::Cut;
        }
        self.reply(failure.status(), cx, out);
        Aftermath::Answered
    }

    /// The response can't be completed: the client must notice.
    pub fn cut(&mut self) {
        self.record.aborted = true;
        self.keep_client = false;
        self.keep_backend = false;
        self.stage = Stage::Over;
    }

    /// The request is not taken (any further): an answer of ours goes into `out`, or what has begun is cut.
    pub fn refuse(&mut self, refusal: &Refusal, cx: &Context<'_>, out: &mut Gather) -> Aftermath {
        self.keep_client = false;
        self.keep_backend = false;
        if self.has_answered() {
            self.cut();
            return Aftermath::Cut;
        }
        self.reply(refusal.status(), cx, out);
        Aftermath::Answered
    }

    /// The backend has been silent on `Expect: 100-continue` for too long: asks for the body ourselves.
    pub fn ask_for_body(&mut self, out: &mut Gather) {
        if self.expect == Expect::Waiting {
            self.expect = Expect::Settled;
            out.push(reply::CONTINUE);
        }
    }

    /// An answer of our own, with a page that says what the status means.
    fn reply(&mut self, status: u16, cx: &Context<'_>, out: &mut Gather) -> Begun {
        self.answer(status, "text/html; charset=utf-8", None, cx, out);
        Begun::Answered
    }

    /// An answer of our own, with `body` or the page that belongs to the status.
    pub fn answer(
        &mut self,
        status: u16,
        content_type: &str,
        body: Option<&[u8]>,
        cx: &Context<'_>,
        out: &mut Gather,
    ) {
        let fields = if status == 405 { ALLOW } else { &[] };
        self.answer_with(status, fields, content_type, body, cx, out);
    }

    fn answer_with(
        &mut self,
        status: u16,
        fields: &[(&str, &str)],
        content_type: &str,
        body: Option<&[u8]>,
        cx: &Context<'_>,
        out: &mut Gather,
    ) {
        self.keep_client &= self.request.is_done() && cx.may_keep && self.record.parsed;
        let reply = Reply {
            status,
            version: self.version,
            close: !self.keep_client,
            persistence: self.persistence,
            head_only: self.method == Method::Head,
            date: cx.date,
            server: cx.server,
            content_type,
            fields,
            retry_after: (status == 503).then_some(1),
            body,
        };
        self.record.status = status;
        self.record.body_sent += out.push_with(|owned| reply::write(owned, &reply)) as u64;
        self.head.clear();
        self.stage = Stage::Over;
    }

    /// What time-outs and names belong to this request.
    #[must_use]
    pub fn settings<'c>(&self, config: &'c Config) -> &'c VirtualHost {
        config.host(self.host)
    }
}

mod response;
#[cfg(test)]
mod tests;
mod unseen;
