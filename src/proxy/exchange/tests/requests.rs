//! What a backend gets of each kind of request, and what is answered without one.

use super::rig::{World, crlf, read_responses, shown};
use crate::config::model::Handler;
use crate::http::Method;
use crate::proxy::exchange::Begun;

#[test]
fn heads_are_rebuilt_from_what_was_understood() {
    let world = World::plain();
    for (request, want) in [
        ("GET / HTTP/1.1\nHost: h\n\n", "GET / HTTP/1.1\nHost: 127.0.0.1:3000\n\n"),
        // The client's version ends here; of HTTP/1.0 no Host is demanded.
        ("GET /a HTTP/1.0\n\n", "GET /a HTTP/1.1\nHost: 127.0.0.1:3000\n\n"),
        ("\nGET /a HTTP/1.1\nHost: h\n\n", "GET /a HTTP/1.1\nHost: 127.0.0.1:3000\n\n"),
        ("GET /a?b=c&d HTTP/1.1\nHost: h\n\n", "GET /a?b=c&d HTTP/1.1\nHost: 127.0.0.1:3000\n\n"),
        ("GET /a? HTTP/1.1\nHost: h\n\n", "GET /a? HTTP/1.1\nHost: 127.0.0.1:3000\n\n"),
        // The absolute form loses its authority, an unknown method passes.
        ("BREW http://o:1/x?y HTTP/1.1\nHost: o:1\n\n", "BREW /x?y HTTP/1.1\nHost: 127.0.0.1:3000\n\n"),
        ("GET http://o HTTP/1.1\nHost: o\n\n", "GET / HTTP/1.1\nHost: 127.0.0.1:3000\n\n"),
        // End-to-end fields keep their spelling, order and number; blanks around values go.
        (
            "GET / HTTP/1.1\nX-b:  1 \nHost: h\nx-A:\nX-B: 2\nCookie: a=b\nAuthorization: c\nProxy-Authorization: d\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\nX-b: 1\nx-A: \nX-B: 2\nCookie: a=b\nAuthorization: c\n\
             Proxy-Authorization: d\n\n",
        ),
        // Hop by hop by their nature.
        (
            "GET / HTTP/1.1\nHost: h\nConnection: keep-alive\nKeep-Alive: timeout=5\nProxy-Connection: x\nTE: gzip\n\
             Trailer: x\nUpgrade: h2c\nHTTP2-Settings: AAA\nProxy-Authenticate: x\nAccept: b\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\nAccept: b\n\n",
        ),
        // Hop by hop because Connection says so; Host can't be named away.
        (
            "GET / HTTP/1.1\nHost: h\nConnection: x-a, Host, close\nX-A: 1\nX-B: 2\nconnection: cookie\nCookie: c\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\nX-B: 2\n\n",
        ),
        (
            "GET / HTTP/1.1\nHost: h\nTE: trailers, gzip\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\nTE: trailers\nConnection: TE\n\n",
        ),
        // HTTP/1.0 has neither trailers nor upgrades.
        (
            "GET / HTTP/1.0\nHost: h\nTE: trailers\nConnection: upgrade\nUpgrade: websocket\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\n\n",
        ),
        // Max-Forwards is counted down where RFC 9110 says so, and left alone elsewhere.
        (
            "OPTIONS /a HTTP/1.1\nHost: h\nMax-Forwards: 3\n\n",
            "OPTIONS /a HTTP/1.1\nHost: 127.0.0.1:3000\nMax-Forwards: 2\n\n",
        ),
        (
            "OPTIONS /a HTTP/1.1\nHost: h\nMax-Forwards: x\n\n",
            "OPTIONS /a HTTP/1.1\nHost: 127.0.0.1:3000\nMax-Forwards: x\n\n",
        ),
        (
            "GET /a HTTP/1.1\nHost: h\nMax-Forwards: 0\n\n",
            "GET /a HTTP/1.1\nHost: 127.0.0.1:3000\nMax-Forwards: 0\n\n",
        ),
        // WebSocket is the one protocol to switch to, and not together with a body.
        (
            "GET / HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: WebSocket\nSec-WebSocket-Key: k\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\nSec-WebSocket-Key: k\nUpgrade: WebSocket\nConnection: Upgrade\n\n",
        ),
        (
            "GET / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: websocket\nTE: trailers\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\nTE: trailers\nUpgrade: websocket\nConnection: TE, Upgrade\n\n",
        ),
        ("GET / HTTP/1.1\nHost: h\nUpgrade: websocket\n\n", "GET / HTTP/1.1\nHost: 127.0.0.1:3000\n\n"),
        (
            "GET / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: websocket, h2c\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\n\n",
        ),
        (
            "GET / HTTP/1.1\nHost: h\nConnection: upgrade, http2-settings\nUpgrade: h2c\nHTTP2-Settings: AAA\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\n\n",
        ),
        (
            "GET / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: websocket\nContent-Length: 1\n\nx",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\nContent-Length: 1\n\nx",
        ),
    ] {
        assert_eq!(world.forwarded(request), want, "{request}");
    }
}

#[test]
fn bodies_are_framed_anew() {
    let world = World::plain();
    for (request, want) in [
        (
            "POST / HTTP/1.1\nHost: h\nContent-Length: 5\n\nhello",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nContent-Length: 5\n\nhello",
        ),
        (
            "POST / HTTP/1.0\nHost: h\nContent-Length: 005\n\nhello",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nContent-Length: 5\n\nhello",
        ),
        (
            "POST / HTTP/1.1\nHost: h\nContent-Length: 0\n\n",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nContent-Length: 0\n\n",
        ),
        ("POST / HTTP/1.1\nHost: h\n\n", "POST / HTTP/1.1\nHost: 127.0.0.1:3000\n\n"),
        // Extensions and leading zeros of chunk sizes are not copied.
        (
            "POST / HTTP/1.1\nHost: h\ntransfer-encoding: Chunked\n\n005;a=\"b\"\nhello\n0;z\n\n",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
        ),
        (
            "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\nTrailer: X-T\n\n5\nhello\n0\nX-T:  1\nx-u: 2\n\n",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nTrailer: X-T\nTransfer-Encoding: chunked\n\n5\nhello\n0\nX-T: 1\nx-u: 2\n\n",
        ),
        // What is announced may be there, and does not end here; nothing is announced without chunks.
        (
            "POST / HTTP/1.1\nHost: h\nTrailer: X-A, Host, x b,, X-B\nConnection: X-A\nTrailer: x-c, content-length\n\
          Transfer-Encoding: chunked\n\n0\n\n",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nTrailer: X-B, x-c\nTransfer-Encoding: chunked\n\n0\n\n",
        ),
        (
            "POST / HTTP/1.1\nHost: h\nTrailer: X-A\nContent-Length: 0\n\n",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nContent-Length: 0\n\n",
        ),
        // Fields that frame, route or identify have no business behind the body.
        (
            "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n0\nContent-Length: 44\nX-T: 1\nHost: evil\n\
          X-Forwarded-For: 1.2.3.4\n\n",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nTransfer-Encoding: chunked\n\n0\nX-T: 1\n\n",
        ),
        (
            "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n0\nTransfer-Encoding: chunked\n\n",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nTransfer-Encoding: chunked\n\n0\n\n",
        ),
        // Trailers that Connection names end here, as the fields do (RFC 9110, 7.6.1).
        (
            "POST / HTTP/1.1\nHost: h\nConnection: x-t\nConnection: X-V\nTransfer-Encoding: chunked\n\n0\nX-T: 1\n\
          X-U: 2\nx-v: 3\n\n",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nTransfer-Encoding: chunked\n\n0\nX-U: 2\n\n",
        ),
        // What follows belongs to the next request.
        (
            "POST / HTTP/1.1\nHost: h\nContent-Length: 2\n\nokGET / HTTP/1.1\n",
            "POST / HTTP/1.1\nHost: 127.0.0.1:3000\nContent-Length: 2\n\nok",
        ),
    ] {
        assert_eq!(world.forwarded(request), want, "{request}");
        let mut split = world.talk();
        for byte in crlf(request) {
            split.client(&[byte]);
        }
        let (whole, split) = (want.len(), shown(&split.to_backend).len());
        assert!(split >= whole, "{request}: {split} bytes in pieces, {whole} at once");
    }
}

#[test]
fn settings_decide_on_host_forwarding_fields_and_paths() {
    let get = "GET /a/b HTTP/1.1\nHost: Our.Name:81\nX-Forwarded-For: 6.6.6.6\nX-Forwarded-Host: evil\n\
               X-Forwarded-Server: evil\nVia: 1.1 other\n\n";
    let version = env!("CARGO_PKG_VERSION");
    for (lines, request, want) in [
        // What a client says of itself is replaced, not believed.
        (
            "ProxyPass / http://127.0.0.1:3000/",
            get,
            "GET /a/b HTTP/1.1\nHost: 127.0.0.1:3000\nVia: 1.1 other\nX-Forwarded-For: 192.0.2.7\n\
          X-Forwarded-Host: Our.Name:81\nX-Forwarded-Server: proxy.test\n\n",
        ),
        // And can't be had stripped by naming it in Connection.
        (
            "ProxyPass / http://127.0.0.1:3000/",
            "GET / HTTP/1.1\nHost: h\nConnection: X-Forwarded-For, X-Forwarded-Host, close\nX-Forwarded-For: 6.6.6.6\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\nX-Forwarded-For: 192.0.2.7\nX-Forwarded-Host: h\n\
          X-Forwarded-Server: proxy.test\n\n",
        ),
        (
            "ProxyPass / http://127.0.0.1:3000/",
            "GET / HTTP/1.0\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\nX-Forwarded-For: 192.0.2.7\nX-Forwarded-Server: proxy.test\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyPass / http://127.0.0.1:3000/",
            get,
            "GET /a/b HTTP/1.1\nHost: 127.0.0.1:3000\nX-Forwarded-For: 6.6.6.6\nX-Forwarded-Host: evil\n\
          X-Forwarded-Server: evil\nVia: 1.1 other\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyPreserveHost On\nProxyPass / http://127.0.0.1:3000/",
            "GET / HTTP/1.1\nHost: Our.Name:81\n\n",
            "GET / HTTP/1.1\nHost: Our.Name:81\n\n",
        ),
        // The target's authority is as good as Host, and in HTTP/1.0 perhaps all there is.
        (
            "ProxyAddHeaders Off\nProxyPreserveHost On\nProxyPass / http://127.0.0.1:3000/",
            "GET http://o:1/ HTTP/1.0\n\n",
            "GET / HTTP/1.1\nHost: o:1\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyPreserveHost On\nProxyPass / http://127.0.0.1:3000/",
            "GET / HTTP/1.0\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyPreserveHost On\nProxyPass / http://127.0.0.1:3000/",
            "GET / HTTP/1.1\nHost:\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyPass / http://127.0.0.1:80/",
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyVia On\nProxyPass / http://127.0.0.1/",
            "GET / HTTP/1.0\nVia: 1.1 x\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1\nVia: 1.1 x\nVia: 1.0 proxy.test\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyVia Block\nProxyPass / http://127.0.0.1/",
            "GET / HTTP/1.1\nHost: h\nVia: 1.1 x\nvia: 1.1 y\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyVia Full\nProxyPass / http://127.0.0.1/",
            "GET / HTTP/1.1\nHost: h\n\n",
            &format!("GET / HTTP/1.1\nHost: 127.0.0.1\nVia: 1.1 proxy.test (Ostler/{version})\n\n"),
        ),
        (
            "ProxyAddHeaders Off\nProxyPass /app http://127.0.0.1/base",
            "GET /app/x?q HTTP/1.1\nHost: h\n\n",
            "GET /base/x?q HTTP/1.1\nHost: 127.0.0.1\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyPass /app/ http://127.0.0.1/ noquery",
            "GET /app/x?q HTTP/1.1\nHost: h\n\n",
            "GET /x HTTP/1.1\nHost: 127.0.0.1\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyPass / http://127.0.0.1/ disablereuse=On",
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyPass / http://127.0.0.1/ disablereuse=On",
            "GET / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: websocket\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1\nUpgrade: websocket\nConnection: Upgrade\n\n",
        ),
        (
            "ProxyAddHeaders Off\nProxyPass / http://127.0.0.1/ disablereuse=On",
            "GET / HTTP/1.1\nHost: h\nTE: trailers\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1\nTE: trailers\nConnection: TE, close\n\n",
        ),
    ] {
        assert_eq!(World::new(lines).forwarded(request), want, "{lines}\n{request}");
    }
}

#[test]
fn an_ipv4_client_of_an_ipv6_listener_is_an_ipv4_client() {
    let mut world = World::new("ProxyPass / http://127.0.0.1/");
    for (peer, want) in [("[::ffff:192.0.2.9]:5", "192.0.2.9"), ("[2001:db8::1]:5", "2001:db8::1")] {
        world.peer = peer.parse().expect("an address");
        let forwarded = world.forwarded("GET / HTTP/1.1\nHost: h\n\n");
        assert!(forwarded.contains(&format!("X-Forwarded-For: {want}\n")), "{forwarded}");
    }
}

#[test]
fn a_client_that_waits_for_100_is_let_wait_with_the_backend() {
    let world = World::plain();
    let head = "PUT / HTTP/1.1\nHost: h\nContent-Length: 2\nExpect: 100-Continue\n\n";
    let asks = "PUT / HTTP/1.1\nHost: 127.0.0.1:3000\nExpect: 100-continue\nContent-Length: 2\n\n";
    let plain = "PUT / HTTP/1.1\nHost: 127.0.0.1:3000\nContent-Length: 2\n\n";
    for (request, want, waits) in [
        (head, asks, true),
        // It does not wait after all: then nobody has to.
        (&format!("{head}o"), &format!("{plain}o"), false),
        ("PUT / HTTP/1.0\nContent-Length: 2\nExpect: 100-continue\n\n", plain, false),
        (
            "GET / HTTP/1.1\nHost: h\nExpect: 100-continue\n\n",
            "GET / HTTP/1.1\nHost: 127.0.0.1:3000\n\n",
            false,
        ),
        (
            "PUT / HTTP/1.1\nHost: h\nContent-Length: 0\nExpect: 100-continue\n\n",
            "PUT / HTTP/1.1\nHost: 127.0.0.1:3000\nContent-Length: 0\n\n",
            false,
        ),
        (
            "PUT / HTTP/1.1\nHost: h\nConnection: expect\nTransfer-Encoding: chunked\nExpect: 100-continue\n\n",
            "PUT / HTTP/1.1\nHost: 127.0.0.1:3000\nExpect: 100-continue\nTransfer-Encoding: chunked\n\n",
            true,
        ),
    ] {
        let mut talk = world.talk();
        talk.client(&crlf(request));
        assert_eq!(shown(&talk.to_backend), want, "{request}");
        assert_eq!(talk.exchange.expects_continue(), waits, "{request}");
    }
}

/// What is answered at once, without a backend.
#[test]
fn some_requests_are_answered_here() {
    let lines = "LimitRequestBody 10\nLimitRequestLine 100\nLimitRequestFieldSize 50\nLimitRequestFields 3\n\
                 ProxyPass /hidden !\nProxyPass /app http://127.0.0.1/\n\
                 <Location /status>\nSetHandler server-status\n</Location>\n\
                 <Location /secret>\nRequire all denied\n</Location>";
    let world = World::new(lines);
    let long = "x".repeat(120);
    for (request, status, keeps) in [
        ("GET /app HTTP/1.1\nHost: h\nExpect: miracles\n\n", 417, true),
        ("PUT /app HTTP/1.1\nHost: h\nContent-Length: 1\nExpect: miracles\n\n", 417, false),
        ("TRACE /app HTTP/1.1\nHost: h\n\n", 405, true),
        ("TRACE /app HTTP/1.1\nHost: h\nMax-Forwards: 0\n\n", 405, true),
        // What follows may be meant for the tunnel that is not there.
        ("CONNECT h:80 HTTP/1.1\nHost: h:80\n\n", 405, false),
        // We are the last to see these, and can say what we are good for.
        ("OPTIONS /app HTTP/1.1\nHost: h\nMax-Forwards: 0\n\n", 200, true),
        ("OPTIONS * HTTP/1.1\nHost: h\n\n", 200, true),
        ("OPTIONS * HTTP/1.1\nHost: h\nMax-Forwards: 2\n\n", 200, true),
        ("OPTIONS http://h HTTP/1.1\nHost: h\n\n", 200, true),
        ("GET /other HTTP/1.1\nHost: h\n\n", 404, true),
        ("GET /other HTTP/1.1\nHost: h\nConnection: close\n\n", 404, false),
        ("GET /other HTTP/1.0\n\n", 404, false),
        ("GET /other HTTP/1.0\nConnection: keep-alive\n\n", 404, true),
        ("HEAD /other HTTP/1.1\nHost: h\n\n", 404, true),
        ("POST /other HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc", 404, false),
        ("GET /hidden/x HTTP/1.1\nHost: h\n\n", 404, true),
        ("GET /secret HTTP/1.1\nHost: h\n\n", 403, true),
        ("GET /app/%zz HTTP/1.1\nHost: h\n\n", 400, true),
        ("GET /app/%2e%2e/%2e%2e/x HTTP/1.1\nHost: h\n\n", 400, true),
        ("PUT /app HTTP/1.1\nHost: h\nContent-Length: 11\n\n", 413, false),
        ("GET * HTTP/1.1\nHost: h\n\n", 400, false),
        ("GET /app HTTP/1.1\n\n", 400, false),
        ("GET /app HTTP/2.0\n\n", 505, false),
        ("GET /app\n", 400, false),
        ("POST /app HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\nContent-Length: 5\n\n", 400, false),
        ("POST /app HTTP/1.1\nHost: h\nTransfer-Encoding: gzip, chunked\n\n", 501, false),
        (&format!("GET /{long} HTTP/1.1\n"), 414, false),
        (&format!("GET /app HTTP/1.1\nHost: h\nX: {long}\n"), 431, false),
        ("GET /app HTTP/1.1\nHost: h\na:\nb:\nc:\n", 431, false),
    ] {
        let mut talk = world.talk();
        talk.client(&crlf(request));
        assert!(talk.to_backend.is_empty(), "{request}");
        let is_head = request.starts_with("HEAD");
        let method = if is_head { Method::Head } else { Method::Get };
        let answers = read_responses(&talk.to_client, method);
        let answer = &answers[0];
        assert_eq!((answers.len(), &*answer.what), (1, &*status.to_string()), "{request}");
        assert!(answer.whole && answer.body.is_empty() == (is_head || status == 200), "{request}");
        let close = if keeps { vec![] } else { vec!["close"] };
        let is_old = request.contains("HTTP/1.0");
        assert_eq!(
            answer.all("connection"),
            if keeps && is_old { vec!["keep-alive"] } else { close },
            "{request}"
        );
        assert_eq!(answer.all("allow").is_empty(), !matches!(status, 200 | 405), "{request}");
        assert_eq!(answer.all("server"), ["Ostler"]);
        assert!(talk.exchange.is_over() && talk.exchange.has_answered());
        assert_eq!(talk.exchange.client_may_be_kept(), keeps, "{request}");
        let record = &talk.exchange.record;
        assert_eq!((record.status, record.upstream_status, record.failure), (status, 0, None), "{request}");
        assert_eq!(record.body_sent, answer.body.len() as u64, "{request}");
        assert!(!record.aborted && !talk.exchange.backend_may_be_kept());
    }
    let mut talk = world.talk();
    talk.client(&crlf("GET /status?auto HTTP/1.1\nHost: h\n\n"));
    assert_eq!(talk.begun, Some(Begun::Handle(Handler::ServerStatus)));
    assert!(
        talk.exchange.record.handler == Some(Handler::ServerStatus)
            && !talk.exchange.is_over()
            && talk.to_client.is_empty()
    );
    let mut out = crate::buf::Gather::new();
    talk.exchange.answer(200, "text/plain", Some(b"Total: 1\n"), &world.context(), &mut out);
    assert!(talk.exchange.is_over() && talk.exchange.client_may_be_kept());
    assert_eq!(talk.exchange.record.body_sent, 9);
}
