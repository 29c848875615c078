//! One request, one answer: routes, methods, bodies, and what the browser hears when an upstream fails.

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::browser::Browser;
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::issuer::Issuer;
use crate::support::upstream::{Upstream, full, status};
use crate::support::wait::in_time;
use crate::support::wire::{Wire, ask, head, read_head};

/// A gateway without sessions in front of this upstream, under every path.
async fn open(upstream: &Upstream) -> Gateway {
    Setup::new(NO_ISSUER).for_anybody("/", &upstream.url()).start().await
}

/// A server whose every connection gets these bytes once a head has come; then it closes.
async fn answering_with(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") && stream.read_buf(&mut seen).await.unwrap_or(0) > 0 {}
            let _ = stream.write_all(bytes).await;
        }
    });
    url
}

#[tokio::test]
async fn the_longest_route_wins_on_segment_boundaries_whatever_the_order() {
    let upstream = Upstream::start().await;
    let mut routes = vec![("/", "root"), ("/api", "api"), ("/api/orders", "orders"), ("/api/ord", "ord")];
    for _ in 0..2 {
        let mut setup = Setup::new(NO_ISSUER);
        for (path, base) in &routes {
            setup =
                setup.route(&format!("path: {path}, upstream: \"{}/{base}\", auth: none", upstream.url()));
        }
        let gateway = setup.start().await;
        for (path, base) in [
            ("/", "root"),
            ("/apis", "root"),
            ("/api", "api"),
            ("/api/", "api"),
            ("/api/order", "api"),
            ("/api/ord", "ord"),
            ("/api/ord/ers", "ord"),
            ("/api/orders", "orders"),
            ("/api/orders/7?a=b", "orders"),
            ("/api/orders-old", "api"),
            ("/API/orders", "root"),
        ] {
            assert_eq!(ask(gateway.address, head(&format!("GET {path}"), "")).await.status, 200);
            assert_eq!(upstream.last().target, format!("/{base}{path}"));
        }
        routes.reverse();
    }
}

#[tokio::test]
async fn a_prefix_is_stripped_and_the_upstreams_own_path_put_in_front() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(NO_ISSUER)
        .route(&format!(
            "path: /public, upstream: {{url: \"{}\", strip_prefix: /public}}, auth: none",
            upstream.url()
        ))
        .route(&format!(
            "path: /a/b, upstream: {{url: \"{}/v1/\", strip_prefix: /a}}, auth: none",
            upstream.url()
        ));
    let gateway = setup.start().await;
    for (asked, seen) in [
        ("/public", "/"),
        ("/public/", "/"),
        ("/public?q=1", "/?q=1"),
        ("/public/x/public/y?public", "/x/public/y?public"),
        ("/publi%63/x", "/x"),
        ("/a/b", "/v1/b"),
        ("/a/b/c/", "/v1/b/c/"),
    ] {
        assert_eq!(ask(gateway.address, head(&format!("GET {asked}"), "")).await.status, 200);
        assert_eq!(upstream.last().target, seen, "{asked}");
    }
}

#[tokio::test]
async fn nothing_but_configured_paths_is_served() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(NO_ISSUER)
        .route(&format!("path: /api, upstream: \"{}\", auth: none, methods: [GET, POST]", upstream.url()));
    let gateway = setup.start().await;
    for path in
        ["/", "/apis", "/favicon.ico", "/bff", "/bff/", "/bff/nothing", "/bff/login/x", "/livez", "/metrics"]
    {
        let reply = ask(gateway.address, head(&format!("GET {path}"), "")).await;
        assert_eq!((reply.status, reply.problem()), (404, "not-found".to_owned()), "{path}");
    }
    let page =
        ask(gateway.address, head("GET /nothing", "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n")).await;
    assert_eq!((page.status, page.field("content-type")), (404, Some("text/html; charset=utf-8")));
    assert!(upstream.arrived().is_empty());
}

#[tokio::test]
async fn a_method_outside_methods_is_405_with_allow() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(NO_ISSUER)
        .route(&format!("path: /api, upstream: \"{}\", auth: none, methods: [GET, POST]", upstream.url()));
    let gateway = setup.start().await;
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get"] {
        let reply = ask(gateway.address, head(&format!("{method} /api"), "")).await;
        assert_eq!((reply.status, reply.field("allow")), (405, Some("GET, POST")), "{method}");
    }
    assert!(upstream.arrived().is_empty());
    assert_eq!(ask(gateway.address, head("POST /api", "Content-Length: 0\r\n")).await.status, 200);
}

#[tokio::test]
async fn every_method_passes_where_none_is_named() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        assert_eq!(ask(gateway.address, head(&format!("{method} /x"), "")).await.status, 200);
        assert_eq!(upstream.last().method, method);
    }
}

#[tokio::test]
async fn r38_connect_and_trace_are_answered_here() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream).await;
    let trace = ask(gateway.address, head("TRACE /", "")).await;
    assert_eq!(trace.status, 405);
    assert!(!trace.field("allow").unwrap().contains("TRACE"));
    let target = upstream.address;
    for request in [
        head("CONNECT shop.test", ""),
        head("CONNECT shop.test:443", ""),
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"),
        head(&format!("CONNECT {target}"), ""),
    ] {
        let reply = ask(gateway.address, &request).await;
        assert!(matches!(reply.status, 400 | 405 | 421), "{request} {reply:?}");
    }
    assert!(upstream.arrived().is_empty());
}

#[tokio::test]
async fn r38_one_host_and_that_of_an_app() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream).await;
    let target = upstream.address;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: shop.test\r\nHost: shop.test\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: shop.test\r\nHost: evil.test\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: shop.test, evil.test\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: user@shop.test\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: shop.test/x\r\n\r\n".to_owned(), 400),
        ("GET http://evil.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_owned(), 400),
        ("GET http://shop.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_owned(), 400),
        (format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n"), 421),
        ("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_owned(), 421),
        ("GET / HTTP/1.1\r\nHost: shop.test.evil.test\r\n\r\n".to_owned(), 421),
        ("GET / HTTP/1.1\r\nHost: shop.test.\r\n\r\n".to_owned(), 421),
        ("GET / HTTP/1.1\r\nHost: shop.test:80\r\n\r\n".to_owned(), 421),
        ("GET / HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: shop.test\r\n\r\n".to_owned(), 421),
    ] {
        let reply = ask(gateway.address, &request).await;
        assert_eq!(reply.status, status, "{request} {}", reply.text());
        assert_eq!(reply.problem(), if status == 421 { "misdirected" } else { "bad-request" });
    }
    assert!(upstream.arrived().is_empty());
    for good in ["Host: SHOP.test", "Host: shop.test:443"] {
        assert_eq!(
            ask(gateway.address, format!("GET / HTTP/1.1\r\n{good}\r\n\r\n")).await.status,
            200,
            "{good}"
        );
    }
    // RFC 9112 §3.2.2: a server takes the absolute form, and what it names is what the host is.
    let absolute = "GET https://shop.test/a?b HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    assert_eq!(ask(gateway.address, absolute).await.status, 200);
    assert_eq!(upstream.last().target, "/a?b");
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served_and_let_go() {
    let upstream = Upstream::answering(|_| full("hello")).await;
    let gateway = open(&upstream).await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send("POST /old HTTP/1.0\r\nHost: shop.test\r\nContent-Length: 3\r\n\r\nabc").await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    assert!(reply.field("transfer-encoding").is_none());
    assert!(wire.rest().await.is_empty(), "and the connection ends");
    assert_eq!(upstream.last().body, "abc");
}

#[tokio::test]
async fn what_an_upstream_answers_is_passed_on_untouched() {
    let upstream = Upstream::answering(|arrived| match arrived.target.as_str() {
        "/redirect" => status(302, &[("location", "http://elsewhere.test/login?a=b"), ("x-kept", "1")]),
        "/post-redirect" => status(307, &[("location", "../relative")]),
        "/none" => status(204, &[]),
        "/unchanged" => status(304, &[("etag", "\"1\"")]),
        "/head" => status(200, &[("content-length", "1234"), ("etag", "\"2\"")]),
        "/gzip" => {
            let mut response = full(&b"\x1f\x8b\x08\x00 not for us to read"[..]);
            response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            response
        }
        "/teapot" => status(418, &[("set-cookie", "a=1"), ("set-cookie", "b=2"), ("retry-after", "7")]),
        "/denied" => status(401, &[("www-authenticate", "Basic realm=\"upstream\"")]),
        _ => status(500, &[("content-type", "application/problem+json")]),
    })
    .await;
    let gateway = open(&upstream).await;
    let mut wire = Wire::connect(gateway.address).await;
    let mut get = async |line: &str| {
        wire.send(head(line, "")).await;
        if line.starts_with("HEAD") { wire.reply_head().await } else { wire.reply().await }
    };

    let reply = get("GET /redirect").await;
    assert_eq!((reply.status, reply.field("location")), (302, Some("http://elsewhere.test/login?a=b")));
    assert_eq!(reply.field("x-kept"), Some("1"));
    assert_eq!(get("POST /post-redirect").await.field("location"), Some("../relative"));
    let reply = get("GET /none").await;
    assert_eq!(
        (reply.status, reply.field("content-length"), reply.field("transfer-encoding")),
        (204, None, None)
    );
    let reply = get("GET /unchanged").await;
    assert_eq!(
        (reply.status, reply.field("etag"), reply.field("transfer-encoding")),
        (304, Some("\"1\""), None)
    );
    let reply = get("HEAD /head").await;
    assert_eq!(
        (reply.status, reply.field("content-length"), reply.field("etag")),
        (200, Some("1234"), Some("\"2\""))
    );
    let reply = get("GET /gzip").await;
    assert_eq!(reply.body, b"\x1f\x8b\x08\x00 not for us to read");
    assert_eq!((reply.field("content-encoding"), reply.field("content-length")), (Some("gzip"), Some("23")));
    let reply = get("GET /teapot").await;
    let cookies = reply.fields.iter().filter(|(name, _)| name == "set-cookie").count();
    assert_eq!((reply.status, cookies, reply.field("retry-after")), (418, 2, Some("7")));
    assert_eq!(get("GET /denied").await.field("www-authenticate"), Some("Basic realm=\"upstream\""));
    assert_eq!(get("GET /broken").await.status, 500);
}

#[tokio::test]
async fn a_request_keeps_its_framing() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream).await;
    for (request, length, encoding, body) in [
        (head("GET /", ""), None, None, ""),
        (head("DELETE /", ""), None, None, ""),
        (head("POST /", "Content-Length: 0\r\n"), Some("0"), None, ""),
        (head("POST /", "Content-Length: 3\r\n") + "abc", Some("3"), None, "abc"),
        (head("GET /", "Content-Length: 3\r\n") + "abc", Some("3"), None, "abc"),
        (
            head("POST /", "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n",
            None,
            Some("chunked"),
            "abc",
        ),
        (
            head("GET /", "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n",
            None,
            Some("chunked"),
            "abc",
        ),
    ] {
        assert_eq!(ask(gateway.address, &request).await.status, 200, "{request}");
        let arrived = upstream.last();
        let field = |name: &str| arrived.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((field("content-length"), field("transfer-encoding")), (length, encoding), "{request}");
        assert_eq!(arrived.body, body, "{request}");
    }
}

#[tokio::test]
async fn an_expectation_is_met_here_and_not_passed_on() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream).await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("PUT /", "Content-Length: 4\r\nExpect: 100-continue\r\n")).await;
    assert_eq!(wire.reply_head().await.status, 100);
    wire.send("body").await;
    assert_eq!(wire.reply().await.status, 200);
    let arrived = upstream.last();
    assert_eq!(arrived.body, "body");
    assert!(!arrived.headers.contains_key("expect"), "it was met");

    let refused =
        ask(gateway.address, head("PUT /bff/nothing", "Content-Length: 4\r\nExpect: 100-continue\r\n")).await;
    assert_eq!(refused.status, 404, "without asking for the body");
}

/// RFC 9110 §10.1.1 lets the gateway answer for itself.
#[tokio::test]
async fn a_server_that_refuses_early_is_heard_though_the_body_was_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gateway = Setup::new(NO_ISSUER).for_anybody("/", &url).start().await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("PUT /", "Content-Length: 4\r\nExpect: 100-continue\r\n")).await;
    let (mut server, _) = in_time(listener.accept()).await.unwrap();
    read_head(&mut server).await;
    assert_eq!(wire.reply_head().await.status, 100);
    let refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    server.write_all(refusal).await.unwrap();
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (413, "no"), "with nothing of the body sent");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_502_or_a_page_for_people() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let gateway = Setup::new(NO_ISSUER).for_anybody("/", &url).start().await;
    let reply = ask(gateway.address, head("GET /api", "")).await;
    assert_eq!((reply.status, reply.problem()), (502, "upstream-unavailable".to_owned()));
    let page =
        ask(gateway.address, head("GET /api", "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n")).await;
    assert_eq!((page.status, page.field("content-type")), (502, Some("text/html; charset=utf-8")));
    assert_eq!(page.field("cache-control"), Some("no-store"));
    assert!(page.text().contains("<h1>"));
    for text in [reply.text(), page.text()] {
        assert!(!text.contains("127.0.0.1"), "nothing of the inside is shown: {text}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_502() {
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        b"",
    ] {
        let url = answering_with(bytes).await;
        let gateway = Setup::new(NO_ISSUER).for_anybody("/", &url).start().await;
        let reply = ask(gateway.address, head("GET /api", "")).await;
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!((reply.status, reply.problem()), (502, "upstream-unavailable".to_owned()), "{shown}");
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_the_routes_time_is_504() {
    let upstream = Upstream::raw(|_| std::future::pending()).await;
    let setup = Setup::new(NO_ISSUER)
        .route(&format!(
            "path: /fast, upstream: \"{}\", auth: none, timeouts: {{response: 100ms}}",
            upstream.url()
        ))
        .for_anybody("/slow", &upstream.url());
    let gateway = setup.start().await;
    let mut slow = Wire::connect(gateway.address).await;
    slow.send(head("GET /slow", "")).await;
    let reply = ask(gateway.address, head("POST /fast", "Content-Length: 2\r\n") + "ab").await;
    assert_eq!((reply.status, reply.problem()), (504, "upstream-timeout".to_owned()));
    let page = ask(gateway.address, head("GET /fast", "Accept: text/html\r\n")).await;
    assert_eq!((page.status, page.field("content-type")), (504, Some("text/html; charset=utf-8")));
    let mut byte = [0];
    assert!(slow.stream.try_read(&mut byte).is_err(), "the other route has its own time");
}

#[tokio::test]
async fn a_script_without_a_session_gets_401_and_nothing_reaches_the_upstream() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let gateway = Setup::new(&issuer.url()).for_users("/api", &upstream.url()).start().await;
    let mut browser = Browser::new(gateway.address);
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let answer = browser.script(method, "/api/x", &[("x-csrf", "1")], "").await;
        assert_eq!((answer.status.as_u16(), answer.problem()), (401, "unauthenticated".to_owned()));
        assert_eq!(answer.json()["login_url"], "/bff/login");
    }
    let answer = browser.visit("/api/x?y=z").await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.headers["location"], "/bff/login?return_to=%2Fapi%2Fx%3Fy%3Dz");
    assert!(upstream.arrived().is_empty());
}
