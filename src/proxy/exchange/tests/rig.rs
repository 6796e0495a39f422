//! A client and a backend made of bytes, and an exchange between them, driven as `mpm::relay` drives it: what is
//! not consumed comes again with more behind it.

use crate::buf::{Backlog, Gather};
use crate::clock::Moment;
use crate::config::model::Config;
use crate::config::{Options, from_text};
use crate::http::{
    Asked, Body, FieldKind, FieldSlots, Fields, HeadKind, HeadLimits, HeadScan, MAX_HEAD, Method, Piece,
    RequestHead, ResponseBody, ResponseHead,
};
use crate::ids::HostId;
use crate::proxy::exchange::{Aftermath, Arrival, Begun, Context, Desk, Exchange, Failure, Refusal, Shown};
use crate::proxy::router::Router;
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 40000);
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);

/// Bytes before the input in its buffer, so that an offset that is forgotten shows.
const AT: usize = 5;

/// `\n` stands for CRLF.
pub fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// The other way round, for messages of failed tests.
pub fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

/// What there is besides the bytes.
pub struct World {
    config: Config,
    router: Router,
    /// The child is not leaving; that can change at any time.
    pub may_keep: Cell<bool>,
    /// The number of the request on its connection.
    pub requests: u32,
    pub peer: SocketAddr,
}

impl World {
    /// With these lines behind a Listen and a ServerName.
    pub fn new(lines: &str) -> Self {
        let text = format!("Listen 10.0.0.1:80\nServerName proxy.test\n{lines}\n");
        let config = from_text("test", &text, &Options::default())
            .unwrap_or_else(|faults| panic!("{text}\n{faults}"))
            .config;
        let router = Router::new(&config);
        Self { config, router, may_keep: Cell::new(true), requests: 1, peer: PEER }
    }

    /// One backend, and nothing added to requests.
    pub fn plain() -> Self {
        Self::new("ProxyAddHeaders Off\nProxyPass / http://127.0.0.1:3000/")
    }

    pub fn context(&self) -> Context<'_> {
        Context {
            config: &self.config,
            router: &self.router,
            now: Moment(1_000_000),
            date: DATE,
            server: "Ostler",
            peer: self.peer,
            local: LOCAL,
            may_keep: self.may_keep.get(),
        }
    }

    pub fn talk(&self) -> Talk<'_> {
        Talk {
            world: self,
            exchange: Exchange::default(),
            begun: None,
            to_backend: Vec::new(),
            to_client: Vec::new(),
            observed: Vec::new(),
            trailers: Vec::new(),
            failure: None,
            refusal: None,
            aftermath: None,
            client_rest: Vec::new(),
            backend_rest: Vec::new(),
            excess: 0,
            scan: HeadScan::new(),
            slots: FieldSlots::new(),
            path: Vec::new(),
            out: Gather::new(),
        }
    }

    /// A whole exchange: all of the request, then all of the response, of which `\n` is CRLF.
    pub fn exchange(&self, request: &str, response: &str, closes: bool) -> Talk<'_> {
        let mut talk = self.talk();
        talk.client(&crlf(request));
        talk.backend(&crlf(response));
        if closes {
            talk.backend_closes();
        }
        talk
    }

    /// What the backend gets of a request.
    pub fn forwarded(&self, request: &str) -> String {
        let mut talk = self.talk();
        talk.client(&crlf(request));
        shown(&talk.to_backend)
    }
}

/// One exchange under way.
pub struct Talk<'w> {
    world: &'w World,
    pub exchange: Exchange,
    pub begun: Option<Begun>,
    pub to_backend: Vec<u8>,
    pub to_client: Vec<u8>,
    /// What was shown of heads: the request's host as a number, then statuses.
    pub observed: Vec<u16>,
    /// The lines behind bodies that were shown.
    pub trailers: Vec<u8>,
    pub failure: Option<Failure>,
    pub refusal: Option<Refusal>,
    pub aftermath: Option<Aftermath>,
    /// Read from the client and not consumed.
    pub client_rest: Vec<u8>,
    backend_rest: Vec<u8>,
    /// Bytes of the backend behind its response.
    pub excess: usize,
    scan: HeadScan,
    slots: FieldSlots,
    path: Vec<u8>,
    out: Gather,
}

fn flat(out: &Gather, input: &[u8]) -> Vec<u8> {
    let mut all = Backlog::default();
    out.copy_from(input, 0, &mut all);
    assert_eq!(all.bytes().len(), out.len(), "what is gathered has the length it says");
    all.bytes().to_vec()
}

impl Talk<'_> {
    /// Bytes of the client arrive.
    pub fn client(&mut self, bytes: &[u8]) {
        self.client_rest.extend_from_slice(bytes);
        if self.begun.is_none() {
            self.client_head();
        }
        self.client_body();
    }

    fn client_head(&mut self) {
        let limits = &self.world.config.host(HostId(0)).limits;
        let limits = HeadLimits::request(
            limits.line as usize,
            limits.fields.map(|fields| fields.get() as usize),
            limits.field_size as usize,
        );
        let cx = self.world.context();
        let found = match RequestHead::find(&mut self.scan, &self.client_rest, &mut self.slots, &limits) {
            Ok(Some(found)) => found,
            Ok(None) => {
                assert!(self.client_rest.len() <= limits.total, "an endless head is refused in time");
                return;
            }
            Err(fault) => {
                self.begun = Some(Begun::Refused(Refusal::Malformed(fault)));
                self.refuse(&Refusal::Malformed(fault));
                return;
            }
        };
        let bytes: Vec<u8> = self.client_rest.drain(..found.end).collect();
        self.out.clear();
        let observed = &mut self.observed;
        let begun = self.exchange.begin(
            &bytes,
            Arrival {
                requests: self.world.requests,
                more: !self.client_rest.is_empty(),
                limits: &limits,
                found,
            },
            Desk { slots: &mut self.slots, path: &mut self.path, out: &mut self.out },
            &cx,
            &mut |_, host| observed.push(host.index() as u16),
        );
        self.to_client.extend(flat(&self.out, &[]));
        match &begun {
            Begun::Forward(_) => self.to_backend.extend_from_slice(self.exchange.request_head()),
            Begun::Refused(refusal) => {
                let refusal = refusal.clone();
                self.refuse(&refusal);
            }
            Begun::Answered | Begun::Handle(_) => {}
        }
        self.begun = Some(begun);
    }

    fn client_body(&mut self) {
        let is_under_way = matches!(self.begun, Some(Begun::Forward(_))) && self.aftermath.is_none();
        if !is_under_way || !self.exchange.wants_request() || self.client_rest.is_empty() {
            return;
        }
        let mut input = vec![b'?'; AT];
        input.extend_from_slice(&self.client_rest);
        self.out.clear();
        let trailers = &mut self.trailers;
        let mut observe = |lines: &[u8]| trailers.extend_from_slice(lines);
        match self.exchange.request_bytes(&input[AT..], AT, &mut observe, &mut self.out) {
            Ok(used) => {
                assert!(
                    self.out.len() <= 2 * input.len() + 64,
                    "what goes out is in proportion to what came"
                );
                self.to_backend.extend(flat(&self.out, &input));
                self.client_rest.drain(..used);
                let bound = if self.exchange.wants_request() { MAX_HEAD } else { usize::MAX };
                assert!(self.client_rest.len() < bound, "what waits for more is bounded");
            }
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// The client ends its side.
    pub fn client_closes(&mut self) {
        if self.exchange.wants_request() && !self.exchange.is_tunnel() {
            self.refuse(&Refusal::CutShort);
        }
    }

    /// Bytes of the backend arrive.
    pub fn backend(&mut self, bytes: &[u8]) {
        if !matches!(self.begun, Some(Begun::Forward(_))) || !self.exchange.wants_response() {
            self.excess += bytes.len();
            return;
        }
        self.backend_rest.extend_from_slice(bytes);
        let mut input = vec![b'?'; AT];
        input.extend_from_slice(&self.backend_rest);
        let cx = self.world.context();
        self.out.clear();
        let observed = &mut self.observed;
        let trailers = &mut self.trailers;
        let outcome = self.exchange.response_bytes(
            &input[AT..],
            AT,
            &mut self.slots,
            &cx,
            &mut |shown| match shown {
                Shown::Head(head) => {
                    observed.push(String::from_utf8_lossy(&head[9..12]).parse().expect("a status"));
                }
                Shown::Trailers(lines) => trailers.extend_from_slice(lines),
            },
            &mut self.out,
        );
        assert!(self.out.len() <= 2 * input.len() + 16 * 1024, "what goes out is in proportion to what came");
        self.to_client.extend(flat(&self.out, &input));
        match outcome {
            Ok(used) => {
                self.backend_rest.drain(..used);
                if self.exchange.is_over() {
                    self.excess += self.backend_rest.len();
                    self.backend_rest.clear();
                }
                assert!(self.backend_rest.len() < MAX_HEAD, "what waits for more is bounded");
            }
            Err(failure) => self.fail(&failure),
        }
        self.client_body();
    }

    /// The backend ends its side.
    pub fn backend_closes(&mut self) {
        if !matches!(self.begun, Some(Begun::Forward(_))) || !self.exchange.wants_response() {
            return;
        }
        self.out.clear();
        match self.exchange.response_ended(&mut self.out) {
            Ok(()) => self.to_client.extend(flat(&self.out, &[])),
            Err(failure) => self.fail(&failure),
        }
    }

    pub fn fail(&mut self, failure: &Failure) {
        let cx = self.world.context();
        self.out.clear();
        self.aftermath = Some(self.exchange.fail(failure, &cx, &mut self.out));
        self.to_client.extend(flat(&self.out, &[]));
        self.failure = Some(failure.clone());
    }

    pub fn refuse(&mut self, refusal: &Refusal) {
        let cx = self.world.context();
        self.out.clear();
        self.aftermath = Some(self.exchange.refuse(refusal, &cx, &mut self.out));
        self.to_client.extend(flat(&self.out, &[]));
        self.refusal = Some(refusal.clone());
    }

    /// The second that a backend may be silent on Expect is over.
    pub fn expect_expires(&mut self) {
        self.out.clear();
        self.exchange.ask_for_body(&mut self.out);
        self.to_client.extend(flat(&self.out, &[]));
        self.client_body();
    }

    /// All that the log and the connections learn, for comparison.
    pub fn verdict(&self) -> String {
        let exchange = &self.exchange;
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} over={} tunnel={} client={} backend={} linger={}",
            exchange.record,
            self.begun,
            self.observed,
            shown(&self.trailers),
            self.failure,
            self.refusal,
            self.aftermath,
            exchange.is_over(),
            exchange.is_tunnel(),
            exchange.client_may_be_kept(),
            exchange.backend_may_be_kept(),
            exchange.must_linger(),
        )
    }
}

/// A message as our own strict parser understands it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    pub line: Vec<u8>,
    /// Method, or status.
    pub what: String,
    pub fields: Vec<(String, Vec<u8>)>,
    /// Those that no hop has any business with.
    pub end_to_end: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<u8>,
    /// The message is complete.
    pub whole: bool,
    /// It lasts until the connection ends.
    pub until_close: bool,
    /// No further response follows.
    pub is_final: bool,
}

impl Message {
    /// The values of a field.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.fields
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    fn take_body(&mut self, mut body: Body, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let (used, piece) = body.next(&bytes[at..]).expect("a sound body");
            match piece {
                Piece::Data(range) => self.body.extend_from_slice(&bytes[at..][range]),
                Piece::Trailers(range) => self.trailers.extend_from_slice(&bytes[at..][range]),
                Piece::More => return at + used,
                Piece::End => {
                    self.whole = true;
                    return at + used;
                }
            }
            at += used;
        }
    }
}

fn head_end(bytes: &[u8], kind: HeadKind) -> usize {
    HeadScan::new()
        .scan(bytes, &HeadLimits::RESPONSE, kind)
        .unwrap_or_else(|fault| panic!("{fault}: {}", shown(bytes)))
        .unwrap_or_else(|| panic!("a whole head: {}", shown(bytes)))
}

/// Reads one request; what is behind it must not be there.
pub fn read_request(bytes: &[u8]) -> Message {
    let end = head_end(bytes, HeadKind::Request);
    let mut slots = FieldSlots::new();
    let head = RequestHead::parse(&bytes[..end], &mut slots, &HeadLimits::RESPONSE)
        .unwrap_or_else(|fault| panic!("{fault}: {}", shown(bytes)));
    let mut message = Message {
        line: head.line.to_vec(),
        what: head.method.to_owned(),
        fields: head.fields.iter().map(pair).collect(),
        end_to_end: end_to_end(head.fields),
        ..Message::default()
    };
    let used = message.take_body(Body::for_request(head.body), &bytes[end..]);
    assert_eq!(end + used, bytes.len(), "one request and no more: {}", shown(bytes));
    message
}

/// Reads responses up to the final one, with nothing behind it, or as many as there are.
pub fn read_responses(bytes: &[u8], method: Method) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + head_end(&bytes[at..], HeadKind::Response);
        let mut slots = FieldSlots::new();
        let asked = Asked { method, upgrade: true };
        let head = ResponseHead::parse(&bytes[at..end], &mut slots, &HeadLimits::RESPONSE, asked)
            .unwrap_or_else(|fault| panic!("{fault}: {}", shown(bytes)));
        let mut message = Message {
            what: head.status.to_string(),
            fields: head.fields.iter().map(pair).collect(),
            end_to_end: end_to_end(head.fields),
            is_final: !head.is_interim(),
            until_close: head.body == ResponseBody::UntilClose,
            ..Message::default()
        };
        at = end;
        if head.status == 101 {
            message.body = bytes[at..].to_vec();
            at = bytes.len();
        } else if message.is_final {
            at += message.take_body(Body::for_response(head.body), &bytes[at..]);
            assert_eq!(at, bytes.len(), "one response and no more: {}", shown(bytes));
        }
        messages.push(message);
    }
    messages
}

fn end_to_end(fields: Fields<'_, '_>) -> Vec<(String, Vec<u8>)> {
    fields.iter().filter(|field| !field.hop && field.kind != FieldKind::Host).map(pair).collect()
}

fn pair(field: crate::http::Field<'_>) -> (String, Vec<u8>) {
    (String::from_utf8_lossy(field.name).to_ascii_lowercase(), field.value.to_vec())
}
