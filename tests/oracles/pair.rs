//! A client and a backend, and the exchanges between them, driven as `mpm` drives them: what is not consumed comes
//! again with more behind it, one request after the other, and a backend's connection is used again if it may be.

use super::heads;
use super::script::{Event, Script};
use super::strict::{self, Taste};
use ostler::buf::{Backlog, Gather};
use ostler::clock::Moment;
use ostler::config::model::Config;
use ostler::config::{Options, from_text};
use ostler::http::{FieldSlots, HeadLimits, HeadScan, MAX_HEAD, RequestHead};
use ostler::ids::HostId;
use ostler::proxy::exchange::{Aftermath, Arrival, Begun, Context, Desk, Exchange, Failure, Record, Refusal};
use ostler::proxy::router::Router;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

pub const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 40000);
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);

/// What a script plays in: a configuration, and what it means for heads.
pub struct World {
    config: Config,
    router: Router,
    /// ProxyAddHeaders
    pub adds_headers: bool,
    /// ProxyVia
    pub via: &'static str,
    /// ProxyPreserveHost
    pub preserves_host: bool,
    /// ProxyPassReverse
    pub reverses: bool,
    /// The backend's connections are used again.
    pub reuses: bool,
    /// LimitRequestBody, 0 for none.
    pub body_limit: u64,
    /// What every target for the backend begins with.
    pub base: &'static str,
}

impl World {
    fn new(lines: &str) -> Self {
        let text = format!("Listen 10.0.0.1:80\nServerName proxy.test\n{lines}\n");
        let config = from_text("world", &text, &Options::default())
            .unwrap_or_else(|faults| panic!("{text}\n{faults}"))
            .config;
        let router = Router::new(&config);
        Self {
            config,
            router,
            adds_headers: false,
            via: "Off",
            preserves_host: false,
            reverses: false,
            reuses: true,
            body_limit: 1 << 30,
            base: "/",
        }
    }

    fn limits(&self) -> HeadLimits {
        let limits = &self.config.host(HostId(0)).limits;
        let fields = limits.fields.map(|fields| fields.get() as usize);
        HeadLimits::request(limits.line as usize, fields, limits.field_size as usize)
    }
}

/// The worlds by number.
static WORLDS: LazyLock<[World; 3]> = LazyLock::new(|| {
    [
        World::new("ProxyAddHeaders Off\nProxyPass / http://127.0.0.1:3000/"),
        World {
            adds_headers: true,
            via: "On",
            preserves_host: true,
            reverses: true,
            body_limit: 30,
            ..World::new(
                "ProxyVia On\nProxyPreserveHost On\nLimitRequestBody 30\nProxyPass / http://127.0.0.1:3000/\n\
                 ProxyPassReverse / http://127.0.0.1:3000/",
            )
        },
        World {
            via: "Block",
            reuses: false,
            base: "/base/",
            ..World::new(
                "ProxyVia Block\nProxyAddHeaders Off\nMaxKeepAliveRequests 2\nLimitRequestLine 200\n\
                 LimitRequestFields 8\nLimitRequestFieldSize 300\nProxyPass /no !\n\
                 ProxyPass / http://127.0.0.1:3000/base/ nocanon disablereuse=On",
            )
        },
    ]
});

/// The world of a number; there is one for each.
pub fn world(number: usize) -> &'static World {
    &WORLDS[number % WORLDS.len()]
}

/// What is known of one exchange once it is over, or at the end of the script.
#[derive(Debug)]
pub struct Account {
    pub begun: Option<Begun>,
    /// The request's bytes as far as they were taken: its head, and of its body (or the tunnel) what was consumed.
    pub request: Vec<u8>,
    /// What went to the backend, by connection; more than one if it was sent again.
    pub to_backend: Vec<Vec<u8>>,
    /// The response's bytes as far as they were consumed; of one that failed, all that came.
    pub response: Vec<u8>,
    /// The backend ended its side.
    pub backend_closed: bool,
    pub to_client: Vec<u8>,
    pub failure: Option<Failure>,
    pub refusal: Option<Refusal>,
    pub aftermath: Option<Aftermath>,
    pub record: Record,
    pub over: bool,
    pub tunnel: bool,
    pub keeps_client: bool,
    pub keeps_backend: bool,
    pub lingers: bool,
    /// We asked for the body ourselves.
    pub asked_for_body: bool,
    /// How many requests the connection had had, this one included.
    pub number: u32,
}

impl Account {
    fn new(number: u32) -> Self {
        Self {
            begun: None,
            request: Vec::new(),
            to_backend: Vec::new(),
            response: Vec::new(),
            backend_closed: false,
            to_client: Vec::new(),
            failure: None,
            refusal: None,
            aftermath: None,
            record: Record::default(),
            over: false,
            tunnel: false,
            keeps_client: false,
            keeps_backend: false,
            lingers: false,
            asked_for_body: false,
            number,
        }
    }

    /// Whether it went to the backend.
    pub fn is_forwarded(&self) -> bool {
        matches!(self.begun, Some(Begun::Forward(_)))
    }
}

/// Plays a script; `cut` says where an event's bytes are cut, by its number and its length.
pub fn play(script: &Script, cut: &dyn Fn(usize, usize) -> Vec<usize>) -> Vec<Account> {
    let mut pair = Pair::new(world(script.world));
    for (number, event) in script.events.iter().enumerate() {
        let pieces = |run: &[u8], take: &mut dyn FnMut(&[u8], bool)| {
            let mut start = 0;
            for end in cut(number, run.len()) {
                take(&run[start..end], end < run.len());
                start = end;
            }
        };
        match event {
            Event::Client(run) => pieces(run, &mut |piece, more| pair.client(piece, more)),
            Event::Backend(run) => {
                pieces(run, &mut |piece, _| pair.backend(piece));
                pair.settle(false);
            }
            Event::ClientCloses => pair.client_closes(),
            Event::BackendCloses => pair.backend_closes(),
            Event::ExpectExpires => pair.expect_expires(),
            Event::ChildLeaves => pair.may_keep = false,
        }
    }
    pair.end()
}

struct Pair {
    world: &'static World,
    exchange: Exchange,
    scan: HeadScan,
    slots: FieldSlots,
    path: Vec<u8>,
    out: Gather,
    may_keep: bool,
    /// The client's connection is open.
    open: bool,
    /// There is an idle connection to the backend.
    pooled: bool,
    /// The backend's connection had served before, and has said nothing since this request went out on it.
    reused: bool,
    responded: bool,
    excess: bool,
    client_rest: Vec<u8>,
    backend_rest: Vec<u8>,
    requests: u32,
    current: Option<Account>,
    accounts: Vec<Account>,
}

/// Bytes before the input in its buffer, so that an offset that is forgotten shows.
const AT: usize = 3;

fn flat(out: &Gather, input: &[u8]) -> Vec<u8> {
    let mut all = Backlog::default();
    out.copy_from(input, 0, &mut all);
    assert_eq!(all.bytes().len(), out.len(), "what is gathered has the length it says");
    all.bytes().to_vec()
}

fn placed(bytes: &[u8]) -> Vec<u8> {
    [&[b'?'; AT], bytes].concat()
}

impl Pair {
    fn new(world: &'static World) -> Self {
        Self {
            world,
            exchange: Exchange::default(),
            scan: HeadScan::new(),
            slots: FieldSlots::new(),
            path: Vec::new(),
            out: Gather::new(),
            may_keep: true,
            open: true,
            pooled: false,
            reused: false,
            responded: false,
            excess: false,
            client_rest: Vec::new(),
            backend_rest: Vec::new(),
            requests: 0,
            current: None,
            accounts: Vec::new(),
        }
    }

    fn context(&self) -> Context<'static> {
        Context {
            config: &self.world.config,
            router: &self.world.router,
            now: Moment(1_000_000),
            date: "Sun, 06 Nov 1994 08:49:37 GMT",
            server: "Ostler",
            peer: PEER,
            local: LOCAL,
            may_keep: self.may_keep,
        }
    }

    fn client(&mut self, piece: &[u8], more: bool) {
        if self.open {
            self.client_rest.extend_from_slice(piece);
            self.settle(more);
        }
    }

    /// Goes on as far as the bytes go; `more` are about to come.
    fn settle(&mut self, more: bool) {
        while self.open {
            if self.current.is_none() && !self.begin(more) {
                return;
            }
            self.feed_backend();
            if !self.exchange.is_over() {
                return;
            }
            self.finish();
        }
    }

    /// The next request, if its head is here.
    fn begin(&mut self, more: bool) -> bool {
        let limits = self.world.limits();
        let found = match RequestHead::find(&mut self.scan, &self.client_rest, &mut self.slots, &limits) {
            Ok(Some(found)) => found,
            Ok(None) => {
                assert!(self.client_rest.len() <= limits.total.min(MAX_HEAD), "a head that waits is bounded");
                return false;
            }
            Err(fault) => {
                self.requests += 1;
                self.current = Some(Account::new(self.requests));
                self.refuse(Refusal::Malformed(fault));
                return true;
            }
        };
        self.requests += 1;
        let mut account = Account::new(self.requests);
        let bytes: Vec<u8> = self.client_rest.drain(..found.end).collect();
        let cx = self.context();
        self.out.clear();
        let begun = self.exchange.begin(
            &bytes,
            Arrival {
                requests: self.requests,
                more: more || !self.client_rest.is_empty(),
                limits: &limits,
                found,
            },
            Desk { slots: &mut self.slots, path: &mut self.path, out: &mut self.out },
            &cx,
            &mut |head, _| match strict::request(&bytes, Taste::Received) {
                Ok(Some(message)) => heads::agree(head, &message),
                other => panic!("taken and not sound: {head:?} {other:?}"),
            },
        );
        account.request = bytes;
        account.to_client.extend(flat(&self.out, &[]));
        match &begun {
            Begun::Forward(_) => {
                let head = self.exchange.request_head();
                assert!(head.len() <= 2 * account.request.len() + 1024, "a head is rebuilt in proportion");
                account.to_backend.push(head.to_vec());
                self.reused = std::mem::take(&mut self.pooled);
                (self.responded, self.excess) = (false, false);
            }
            Begun::Refused(_) | Begun::Answered | Begun::Handle(_) => {}
        }
        account.begun = Some(begun.clone());
        self.current = Some(account);
        if let Begun::Refused(refusal) = begun {
            self.refuse(refusal);
        }
        true
    }

    fn feed_backend(&mut self) {
        let Some(account) = self.current.as_mut().filter(|account| account.is_forwarded()) else { return };
        if !self.exchange.wants_request() || self.client_rest.is_empty() {
            return;
        }
        let input = placed(&self.client_rest);
        self.out.clear();
        match self.exchange.request_bytes(&input[AT..], AT, &mut |_| (), &mut self.out) {
            Ok(used) => {
                assert!(
                    self.out.len() <= 6 * input.len() + 64,
                    "what goes out is in proportion to what came"
                );
                account.to_backend.last_mut().expect("it is forwarded").extend(flat(&self.out, &input));
                account.request.extend(self.client_rest.drain(..used));
                let waits = self.exchange.wants_request();
                assert!(!waits || self.client_rest.len() < MAX_HEAD, "what waits for more is bounded");
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn backend(&mut self, piece: &[u8]) {
        let is_awaited =
            self.current.as_ref().is_some_and(Account::is_forwarded) && self.exchange.wants_response();
        if !is_awaited {
            // Unasked: the connection is not used (again).
            self.excess = true;
            self.pooled = false;
            return;
        }
        self.responded = true;
        self.backend_rest.extend_from_slice(piece);
        let input = placed(&self.backend_rest);
        let cx = self.context();
        self.out.clear();
        let outcome =
            self.exchange.response_bytes(&input[AT..], AT, &mut self.slots, &cx, &mut |_| (), &mut self.out);
        assert!(self.out.len() <= 6 * input.len() + 16 * 1024, "what goes out is in proportion to what came");
        let account = self.current.as_mut().expect("there is one");
        account.to_client.extend(flat(&self.out, &input));
        match outcome {
            Ok(used) => {
                account.response.extend(self.backend_rest.drain(..used));
                if self.exchange.is_over() {
                    self.excess |= !self.backend_rest.is_empty();
                    self.backend_rest.clear();
                }
                assert!(self.backend_rest.len() < MAX_HEAD, "what waits for more is bounded");
                self.feed_backend();
            }
            Err(failure) => {
                account.response.append(&mut self.backend_rest);
                self.fail(failure);
            }
        }
    }

    fn client_closes(&mut self) {
        if !self.open {
            return;
        }
        if self.current.is_none() || self.exchange.is_tunnel() {
            self.open = false;
        } else if self.exchange.wants_request() {
            self.refuse(Refusal::CutShort);
            self.settle(false);
        }
    }

    fn backend_closes(&mut self) {
        self.pooled = false;
        let Some(account) = self.current.as_mut().filter(|account| account.is_forwarded()) else { return };
        if !self.open || !self.exchange.wants_response() {
            return;
        }
        account.backend_closed = true;
        if self.exchange.is_tunnel() {
            self.open = false;
            return;
        }
        self.out.clear();
        match self.exchange.response_ended(&mut self.out) {
            Ok(()) => account.to_client.extend(flat(&self.out, &[])),
            Err(_) if self.reused && self.exchange.may_repeat(self.responded) => {
                account.backend_closed = false;
                account.to_backend.push(self.exchange.request_head().to_vec());
                self.reused = false;
                return;
            }
            Err(failure) => self.fail(failure),
        }
        self.settle(false);
    }

    fn expect_expires(&mut self) {
        if self.current.as_ref().is_some_and(Account::is_forwarded) && self.exchange.expects_continue() {
            self.out.clear();
            self.exchange.ask_for_body(&mut self.out);
            let account = self.current.as_mut().expect("there is one");
            account.to_client.extend(flat(&self.out, &[]));
            account.asked_for_body = true;
            self.settle(false);
        }
    }

    fn fail(&mut self, failure: Failure) {
        let cx = self.context();
        self.out.clear();
        let aftermath = self.exchange.fail(&failure, &cx, &mut self.out);
        let account = self.current.as_mut().expect("there is one");
        account.to_client.extend(flat(&self.out, &[]));
        (account.failure, account.aftermath) = (Some(failure), Some(aftermath));
        self.backend_rest.clear();
    }

    fn refuse(&mut self, refusal: Refusal) {
        let cx = self.context();
        self.out.clear();
        let aftermath = self.exchange.refuse(&refusal, &cx, &mut self.out);
        let account = self.current.as_mut().expect("there is one");
        account.to_client.extend(flat(&self.out, &[]));
        (account.refusal, account.aftermath) = (Some(refusal), Some(aftermath));
        self.backend_rest.clear();
    }

    /// The exchange is over: the connections go on or end.
    fn finish(&mut self) {
        let mut account = self.current.take().expect("there is one");
        account.over = true;
        account.keeps_client = self.exchange.client_may_be_kept();
        account.keeps_backend = account.is_forwarded() && self.exchange.backend_may_be_kept() && !self.excess;
        account.lingers = self.exchange.must_linger();
        account.record = self.exchange.record.clone();
        self.pooled = account.keeps_backend && !account.backend_closed;
        self.open = account.keeps_client;
        self.accounts.push(account);
        self.exchange.reset();
        self.scan.reset();
        self.backend_rest.clear();
    }

    fn end(mut self) -> Vec<Account> {
        if let Some(mut account) = self.current.take() {
            account.tunnel = self.exchange.is_tunnel();
            account.record = self.exchange.record.clone();
            self.accounts.push(account);
        }
        self.accounts
    }
}
