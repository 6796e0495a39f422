//! Was every exchange of a script what it had to be, and the same however its bytes were cut?

use super::heads::is_hop;
use super::pair::{self, Account, PEER, World, world};
use super::script::{Event, Script};
use super::strict::{self, Fields, Framing, Message, Taste};
use super::ways_to_cut;
use ostler::proxy::exchange::Aftermath;

/// Any bytes as a script: no panic, nothing grows without bound, what reaches the backend is the one request that was
/// understood, what reaches the client is the one response that was given, and any split says the same.
pub fn session(bytes: &[u8]) {
    let script = Script::read(bytes);
    let whole = pair::play(&script, &|_, length| vec![length]);
    for account in &whole {
        judge(account, world(script.world));
    }
    let verdicts: Vec<Verdict> = whole.iter().map(Verdict::of).collect();
    let length = |event: &Event| match event {
        Event::Client(run) | Event::Backend(run) => run.len(),
        _ => 0,
    };
    let cuts: Vec<Vec<Vec<usize>>> =
        script.events.iter().map(|event| ways_to_cut(bytes, length(event))).collect();
    for way in [0, 1] {
        let accounts = pair::play(&script, &|number, _| cuts[number][way].clone());
        for account in &accounts {
            judge(account, world(script.world));
        }
        let others: Vec<Verdict> = accounts.iter().map(Verdict::of).collect();
        assert_eq!(verdicts, others, "however it is cut");
    }
}

/// What must not depend on how the bytes were cut. Chunks may be.
#[derive(Debug, Eq, PartialEq)]
struct Verdict {
    outcome: String,
    /// Unless the request was refused in the middle: how much of it was sent before is a matter of time.
    requests: Option<Vec<Message>>,
    responses: Vec<Message>,
}

impl Verdict {
    fn of(account: &Account) -> Self {
        let requests = account.refusal.is_none().then(|| sent(account));
        let Account { begun, record, failure, refusal, aftermath, over, tunnel, .. } = account;
        Self {
            outcome: format!(
                "{begun:?} {record:?} {failure:?} {refusal:?} {aftermath:?} {over} {tunnel} {} {} {}",
                account.keeps_client, account.keeps_backend, account.lingers
            ),
            requests: requests.map(|all| all.into_iter().map(unmeasured).collect()),
            responses: received(account).into_iter().map(unmeasured).collect(),
        }
    }
}

/// Without its length on the wire, which depends on the chunks.
fn unmeasured(message: Message) -> Message {
    Message { length: 0, ..message }
}

/// What the backend got, as the strict reader has it: one request a connection, and nothing behind it.
fn sent(account: &Account) -> Vec<Message> {
    let read = |bytes: &Vec<u8>| match strict::request(bytes, Taste::Sent) {
        Ok(Some(message)) => {
            let is_all = message.length == bytes.len() || account.tunnel || !message.whole;
            assert!(is_all, "more than one request: {:?}", shown(bytes));
            message
        }
        other => panic!("{other:?} was sent: {:?}", shown(bytes)),
    };
    account.to_backend.iter().map(read).collect()
}

/// What the client got: interim responses, and at most one final one with nothing behind it.
fn received(account: &Account) -> Vec<Message> {
    let to_head = account.record.parsed && is_head(account);
    let messages = responses(&account.to_client, to_head, Taste::Sent);
    let messages = messages.unwrap_or_else(|why| panic!("{why}: {:?}", shown(&account.to_client)));
    let length: usize = messages.iter().map(|message| message.length).sum();
    let is_tunnel = messages.last().is_some_and(|message| message.status == 101);
    assert!(is_tunnel || length == account.to_client.len(), "more than one: {:?}", shown(&account.to_client));
    messages
}

/// Responses up to the final one.
fn responses(bytes: &[u8], to_head: bool, taste: Taste) -> Result<Vec<Message>, &'static str> {
    let mut messages: Vec<Message> = Vec::new();
    let mut at = 0;
    while at < bytes.len() && messages.last().is_none_or(|last| last.status < 200 && last.status != 101) {
        match strict::response(&bytes[at..], to_head, taste)? {
            Some(message) => {
                at += message.length;
                messages.push(message);
            }
            None => break,
        }
    }
    Ok(messages)
}

/// The responses that the backend gave. Of one that failed in its body, the head; the body is what it was up to the
/// fault.
fn given(account: &Account) -> Vec<Message> {
    let to_head = is_head(account);
    let bytes = &account.response;
    responses(bytes, to_head, Taste::Received).unwrap_or_else(|why| {
        assert!(account.failure.is_some(), "taken and not sound ({why}): {:?}", shown(bytes));
        let ends = bytes.windows(4).enumerate().filter(|(_, end)| end == b"\r\n\r\n").map(|(at, _)| at + 4);
        let all = ends.map_while(|end| responses(&bytes[..end], to_head, Taste::Received).ok());
        all.last().expect("a head was passed on")
    })
}

fn is_head(account: &Account) -> bool {
    let start = account.request.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    account.request[start..].starts_with(b"HEAD ")
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Everything that must be true of one exchange.
fn judge(account: &Account, world: &World) {
    let asked = strict::request(&account.request, Taste::Received);
    let forwarded = sent(account);
    if account.record.parsed {
        let asked = asked.clone().unwrap_or_else(|why| panic!("{why}: {:?}", shown(&account.request)));
        let asked = asked.unwrap_or_else(|| panic!("no whole head: {:?}", shown(&account.request)));
        for request in &forwarded {
            judge_request(account, &asked, request, world);
        }
        judge_repetition(account, &asked, &forwarded);
        judge_response(account, Some(&asked), world);
        judge_keeping(account, &asked, &forwarded, world);
    } else {
        assert!(forwarded.is_empty() && !account.keeps_client && account.refusal.is_some());
        judge_response(account, None, world);
    }
}

/// What was forwarded is what was asked, rebuilt.
fn judge_request(account: &Account, asked: &Message, request: &Message, world: &World) {
    assert_eq!(request.method, asked.method);
    assert!(!["CONNECT", "TRACE"].contains(&asked.method.as_str()), "{}", asked.method);
    assert!(request.target.starts_with(world.base.as_bytes()), "{:?}", shown(&request.target));
    let query = |target: &[u8]| {
        target.iter().position(|byte| *byte == b'?').map(|at| target[at..].to_vec()).unwrap_or_default()
    };
    assert_eq!(query(&request.target), query(&asked.target));
    let climbs = [&b"/../"[..], b"/./", b"//"].iter().any(|bad| contains(path_of(&request.target), bad));
    assert!(!climbs || world.base != "/", "{:?} is not in its one spelling", shown(&request.target));
    assert_eq!(request.framing, asked.framing);
    if account.refusal.is_none() && !account.tunnel {
        assert_eq!(request.body, asked.body);
        assert_eq!(request.trailers, passed(&asked.trailers, asked));
        assert_eq!(request.whole, asked.whole);
    } else if !account.tunnel {
        assert!(asked.body.starts_with(&request.body), "part of what was asked");
        assert!(!request.whole || asked.whole);
    }
    judge_request_fields(account, asked, request, world);
}

fn path_of(target: &[u8]) -> &[u8] {
    &target[..target.iter().position(|byte| *byte == b'?').unwrap_or(target.len())]
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

/// Trailers that may be passed on.
fn passed(trailers: &Fields, message: &Message) -> Fields {
    const BARRED: &[&str] = &[
        "date",
        "expect",
        "forwarded",
        "host",
        "location",
        "max-forwards",
        "proxy-authorization",
        "set-cookie",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-server",
    ];
    let nominated = message.nominated();
    trailers
        .iter()
        .filter(|(name, _)| !is_hop(name, &nominated) && !BARRED.contains(&as_variable(name).as_str()))
        .cloned()
        .collect()
}

/// `x_forwarded_for` is `x-forwarded-for` to backends that make variables of fields; other names stay.
fn as_variable(name: &str) -> String {
    if name.starts_with('x') { name.replace('_', "-") } else { name.to_owned() }
}

fn judge_request_fields(account: &Account, asked: &Message, request: &Message, world: &World) {
    let nominated = asked.nominated();
    let mut want: Fields = Vec::new();
    for (name, value) in &asked.fields {
        let is_ours = world.adds_headers
            && ["x-forwarded-for", "x-forwarded-host", "x-forwarded-server"]
                .contains(&as_variable(name).as_str());
        let is_out = is_hop(name, &nominated)
            || is_ours
            || ["host", "expect"].contains(&name.as_str())
            || name == "via" && world.via == "Block";
        if is_out {
            continue;
        }
        if name == "max-forwards" && asked.method == "OPTIONS" {
            let digits = String::from_utf8_lossy(asked.all("max-forwards")[0]).into_owned();
            if let Ok(hops) = digits.parse::<i64>()
                && !digits.starts_with(['+', '-'])
            {
                assert!(hops > 0, "the last hop is not forwarded");
                want.push((name.clone(), (hops - 1).to_string().into_bytes()));
                continue;
            }
        }
        want.push((name.clone(), value.clone()));
    }
    let host = request.all("host");
    if world.preserves_host {
        assert!(
            asked.all("host") == host || asked.target[0] != b'/' || asked.all("host").concat().is_empty()
        );
    } else {
        assert_eq!(host, [b"127.0.0.1:3000"]);
    }
    assert_eq!(request.fields[0].0, "host");
    let (passed_on, ours) = request.fields[1..].split_at(want.len().min(request.fields.len() - 1));
    assert_eq!(passed_on, want, "what is not of this hop passes, in order");
    let mut seen = Vec::new();
    for (name, value) in ours {
        assert!(!seen.contains(name), "{name} twice");
        seen.push(name.clone());
        let value = String::from_utf8_lossy(value).into_owned();
        let is_right = match name.as_str() {
            "via" => value == if asked.is_http_11 { "1.1 proxy.test" } else { "1.0 proxy.test" },
            "x-forwarded-for" => value == PEER.ip().to_string(),
            "x-forwarded-host" => !value.is_empty(),
            "x-forwarded-server" => value == "proxy.test",
            "expect" => value == "100-continue" && asked.is_http_11 && asked.lists("expect", "100-continue"),
            "content-length" | "transfer-encoding" => true,
            "trailer" => {
                let announced = |one: &str| asked.lists("trailer", one) && !asked.lists("connection", one);
                request.framing == Some(Framing::Chunked) && value.split(", ").all(announced)
            }
            "te" => value == "trailers" && asked.lists("te", "trailers"),
            "upgrade" => value.eq_ignore_ascii_case("websocket") && asked.lists("connection", "upgrade"),
            "connection" => {
                let names: Vec<&str> = value.split(", ").collect();
                names.contains(&"TE") == seen.contains(&"te".to_owned())
                    && names.contains(&"Upgrade") == seen.contains(&"upgrade".to_owned())
                    && names.iter().all(|name| ["TE", "Upgrade", "close"].contains(name))
            }
            _ => false,
        };
        assert!(is_right, "{name}: {value:?} was added");
    }
    let has = |name: &str| seen.iter().any(|one| one == name);
    assert_eq!(has("x-forwarded-for") && has("x-forwarded-server"), world.adds_headers);
    assert_eq!(has("via"), world.via == "On");
    assert_eq!(has("upgrade"), has("upgrade") && asked.is_http_11);
    assert!(account.number > 0);
}

/// Only what can do no harm twice is sent twice, and then it is the same.
fn judge_repetition(account: &Account, asked: &Message, forwarded: &[Message]) {
    assert!(forwarded.len() <= 2);
    if let [first, second] = forwarded {
        assert!(["GET", "HEAD", "PUT", "DELETE", "OPTIONS"].contains(&asked.method.as_str()));
        assert!(first.body.is_empty() && first.trailers.is_empty(), "a body was sent");
        assert_eq!((&first.fields, &first.target), (&second.fields, &second.target));
        assert!(account.number > 1, "the connection had served before");
    }
}

fn judge_response(account: &Account, asked: Option<&Message>, world: &World) {
    let messages = received(account);
    let (finals, interims): (Vec<&Message>, Vec<&Message>) =
        messages.iter().partition(|message| message.status >= 200 || message.status == 101);
    let status = account.record.status;
    assert_eq!(
        finals.iter().map(|message| message.status).collect::<Vec<_>>(),
        Vec::from_iter((status != 0).then_some(status))
    );
    assert!(interims.len() <= 11);
    let waits = asked.is_some_and(|asked| asked.is_http_11 && asked.lists("expect", "100-continue"));
    let continues = interims.iter().filter(|message| message.status == 100).count();
    assert!(continues <= usize::from(waits), "a 100 that nobody waits for");
    assert!(interims.is_empty() || asked.is_some_and(|asked| asked.is_http_11), "interims for HTTP/1.0");
    let Some(last) = finals.first() else {
        assert!(!account.over, "over without an answer");
        return;
    };
    assert!(last.all("date").len() <= 1 || account.record.upstream_status != 0);
    assert!(!last.all("date").is_empty());
    if account.aftermath == Some(Aftermath::Cut) {
        let shows = !last.whole || last.framing == Some(Framing::UntilClose);
        assert!(account.record.aborted, "a cut is told");
        assert!(shows || account.refusal.is_some(), "what is cut never looks whole");
    } else if account.over && status != 101 {
        assert!(last.whole || last.framing == Some(Framing::UntilClose), "what is over is whole");
    }
    let is_old = asked.is_some_and(|asked| !asked.is_http_11);
    assert!(!(is_old && last.framing == Some(Framing::Chunked)), "chunks for HTTP/1.0");
    if account.record.upstream_status == 0 {
        assert!(status >= 400 || status == 200, "an answer of our own");
        return;
    }
    let asked = asked.expect("it was forwarded");
    assert_eq!(account.record.upstream_status, status);
    judge_passed_on(account, asked, last, &interims, world);
}

/// The final response that was passed on is the one that the backend gave.
fn judge_passed_on(account: &Account, asked: &Message, last: &Message, interims: &[&Message], world: &World) {
    let given = given(account);
    let (origin, before) = given.split_last().expect("something was given");
    assert_eq!(origin.status, last.status);
    assert!(before.len() <= 10, "more than ten interim responses were taken");
    let mut left = before.iter();
    for interim in interims.iter().filter(|one| !(one.status == 100 && account.asked_for_body)) {
        assert!(left.any(|one| one.status == interim.status), "an interim that nobody gave");
    }
    if last.status == 101 {
        let websocket =
            |message: &Message| message.all("upgrade").concat().eq_ignore_ascii_case(b"websocket");
        assert!(
            websocket(asked) && asked.lists("connection", "upgrade") && websocket(origin) && websocket(last)
        );
        let behind = |bytes: &[u8], head: usize| bytes[head..].to_vec();
        let client_head: usize = interims.iter().map(|message| message.length).sum::<usize>() + last.length;
        let origin_head: usize = given.iter().map(|message| message.length).sum();
        assert_eq!(behind(&account.to_client, client_head), behind(&account.response, origin_head));
        let sent = account.to_backend.last().expect("it was forwarded");
        let head = strict::request(sent, Taste::Sent).ok().flatten().expect("it was read before").length;
        assert_eq!(behind(sent, head), behind(&account.request, asked.length));
        return;
    }
    if account.failure.is_some() {
        assert!(last.body.starts_with(&origin.body), "the same body up to the fault");
    } else {
        assert_eq!(last.body, origin.body, "the same body");
    }
    assert_eq!(account.record.body_sent, last.body.len() as u64);
    if last.framing == Some(Framing::Chunked) && asked.lists("te", "trailers") && asked.is_http_11 {
        assert_eq!(last.trailers, passed(&origin.trailers, origin));
    } else {
        assert!(last.trailers.is_empty());
    }
    let nominated = origin.nominated();
    let moved = ["location", "content-location", "uri", "destination"];
    let keep = |(name, value): &(String, Vec<u8>)| {
        let is_out = ["content-length", "transfer-encoding"].contains(&name.as_str())
            || is_hop(name, &nominated)
            || name == "via" && world.via == "Block";
        let value = if world.reverses && moved.contains(&name.as_str()) { Vec::new() } else { value.clone() };
        (!is_out).then(|| (name.clone(), value))
    };
    let want: Fields = origin.fields.iter().filter_map(keep).collect();
    let got: Fields = last.fields.iter().filter_map(keep).collect();
    assert_eq!(got.get(..want.len()), Some(&want[..]), "what is not of this hop passes, in order");
    for (name, _) in &got[want.len()..] {
        assert!(["date", "via"].contains(&name.as_str()), "{name} was added");
    }
}

/// Connections are kept only where both sides know where the message ended, and agree.
fn judge_keeping(account: &Account, asked: &Message, forwarded: &[Message], world: &World) {
    let messages = received(account);
    if account.keeps_client {
        let last = messages.last().expect("there is an answer");
        assert!(
            account.over && last.whole && last.status >= 200 && account.aftermath != Some(Aftermath::Cut)
        );
        assert!(asked.whole && asked.persists() && !last.lists("connection", "close"));
        assert!(asked.is_http_11 || last.lists("connection", "keep-alive"));
        assert!(account.refusal.is_none());
    } else if account.over && account.aftermath != Some(Aftermath::Cut) {
        let last = messages.last().expect("there is an answer");
        assert!(last.lists("connection", "close") || last.status == 101 || account.record.aborted, "says so");
    }
    if account.keeps_backend {
        let given = given(account);
        let origin = given.last().expect("there was one");
        assert!(world.reuses && origin.whole && given.iter().all(Message::persists));
        assert!(account.failure.is_none() && account.refusal.is_none() && account.record.status != 101);
        assert!(
            forwarded.last().is_some_and(|request| request.whole && !request.lists("connection", "close"))
        );
        let length: usize = given.iter().map(|message| message.length).sum();
        assert_eq!(length, account.response.len(), "nothing behind it");
    }
    if account.request.len() as u64 > world.body_limit {
        assert!(
            asked.body.len() as u64 <= world.body_limit || account.refusal.is_some() || forwarded.is_empty()
        );
    }
}
