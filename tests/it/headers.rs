//! What crosses the gateway in the head of a message, towards the upstream and back.

use std::collections::HashSet;

use http::{HeaderMap, Method};

use crate::support::browser::Browser;
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::issuer::Issuer;
use crate::support::upstream::{Upstream, full, status};
use crate::support::wire::{ask, head};

/// Whom a client or a proxy would like an upstream to believe.
const CLAIMS: [(&str, &str); 30] = [
    ("Authorization", "Bearer forged"),
    ("Proxy-Authorization", "Basic forged"),
    ("X-Forwarded-For", "forged"),
    ("X-Forwarded-Host", "forged"),
    ("X-Forwarded-Proto", "forged"),
    ("X-Forwarded-Port", "forged"),
    ("X-Forwarded-Prefix", "forged"),
    ("X-Forwarded-User", "forged"),
    ("X-Forwarded-Email", "forged"),
    ("X-Forwarded-Access-Token", "forged"),
    ("X-Forwarded-Client-Cert", "forged"),
    ("X-Forwarded", "forged"),
    ("Forwarded", "for=forged"),
    ("Forwarded-For", "forged"),
    ("X_Forwarded_For", "forged"),
    ("X-Forwarded_For", "forged"),
    ("x.forwarded.host", "forged"),
    ("X-FORWARDED_USER", "forged"),
    ("X-Real-IP", "forged"),
    ("X_Real_IP", "forged"),
    ("X-Auth-Request-User", "forged"),
    ("X_Auth_Request_Email", "forged"),
    ("X-Remote-User", "forged"),
    ("Remote_User", "forged"),
    ("X-Original-URL", "forged"),
    ("X-Rewrite-URL", "forged"),
    ("X-Original-Host", "forged"),
    ("X-Host", "forged"),
    ("X-Request-Id", "forged"),
    ("True-Client-IP", "forged"),
];

/// One route for each way of access to the same upstream.
const ROUTES: [&str; 5] = ["/required", "/optional", "/none", "/tokenless", "/own"];

async fn every_route(issuer: &Issuer, upstream: &Upstream) -> Gateway {
    let url = upstream.url();
    let mut setup = Setup::new(&issuer.url());
    setup.server = "h2c: true".to_owned();
    setup
        .for_users("/required", &url)
        .route(&format!("path: /optional, upstream: \"{url}\", auth: optional"))
        .for_anybody("/none", &url)
        .route(&format!("path: /tokenless, upstream: \"{url}\", token: none"))
        .route(&format!("path: /own, upstream: \"{url}\", csrf: same_origin"))
        .for_anybody("/", &url)
        .start()
        .await
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn r34_r36_the_token_goes_up_and_nothing_a_client_claims_on_every_kind_of_route() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let gateway = every_route(&issuer, &upstream).await;
    for mut browser in Browser::of_each_protocol(gateway.address) {
        browser.log_in("/").await;
        for route in ROUTES {
            for method in [Method::GET, Method::POST] {
                let fields: Vec<_> =
                    [("x-csrf", "1"), ("x-kept", "kept")].into_iter().chain(CLAIMS).collect();
                let answer = browser.script(method, route, &fields, "").await;
                assert_eq!(answer.status, 200, "{route} {}", answer.text());
                let headers = upstream.last().headers;
                for (name, value) in &headers {
                    assert!(!value.to_str().unwrap().contains("forged"), "{route}: {name}: {value:?}");
                }
                assert_eq!(headers["x-kept"], "kept");
                let token = all(&headers, "authorization");
                if matches!(route, "/none" | "/tokenless") {
                    assert!(token.is_empty(), "{route}");
                } else {
                    assert_eq!(token.len(), 1, "{route}");
                    assert!(issuer.is_alive(token[0].strip_prefix("Bearer ").unwrap()));
                }
                assert_eq!(all(&headers, "x-forwarded-for"), ["127.0.0.1"]);
                assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
                assert_eq!(all(&headers, "x-forwarded-host"), ["shop.test"]);
                assert_eq!(all(&headers, "forwarded"), ["for=127.0.0.1;host=\"shop.test\";proto=https"]);
                assert_eq!(all(&headers, "host"), [upstream.address.to_string()]);
            }
        }
    }
}

#[tokio::test]
async fn r34_our_cookies_stay_here_and_others_pass_byte_for_byte() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let gateway = every_route(&issuer, &upstream).await;
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/").await;
    let session = browser.session_cookie().unwrap();
    let csrf = "X-CSRF: 1\r\nSec-Fetch-Site: same-origin\r\n";
    for route in ROUTES {
        for (lines, expected) in [
            (format!("Cookie: __Host-cloakroom={session}\r\n"), None),
            (format!("Cookie: a=1; __Host-cloakroom={session}; b=\"x y\"\r\n"), Some("a=1; b=\"x y\"")),
            (
                format!("Cookie: a=1\r\nCookie: __Host-cloakroom={session}\r\nCookie: b=%20;c\r\n"),
                Some("a=1; b=%20; c"),
            ),
            (format!("Cookie:__Host-cloakroom={session};a==;=b;__host-CLOAKROOM=x\r\n"), Some("a==; =b")),
            (
                format!(
                    "Cookie: __Host-cloakroom-login-abc=1; __Host-cloakroom={session}; x__Host-cloakroom=2; __Host-cloakroomy=3\r\n"
                ),
                Some("x__Host-cloakroom=2; __Host-cloakroomy=3"),
            ),
            (format!("Cookie: __Host-cloakroom={session}; __Host-cloakroom={session}\r\n"), None),
            (format!("Connection: cookie\r\nCookie: a=1; __Host-cloakroom={session}\r\n"), None),
        ] {
            let reply = ask(gateway.address, head(&format!("GET {route}"), &format!("{csrf}{lines}"))).await;
            assert_eq!(reply.status, 200, "{route} {lines} {}", reply.text());
            let headers = upstream.last().headers;
            let cookies = all(&headers, "cookie");
            assert_eq!(cookies, expected.into_iter().collect::<Vec<_>>(), "{route} {lines}");
            for (name, value) in &headers {
                assert!(!value.to_str().unwrap().contains(&session), "{route}: {name}");
            }
        }
    }
}

#[tokio::test]
async fn r37_connection_takes_out_what_it_names_and_never_the_token() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let gateway = every_route(&issuer, &upstream).await;
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/").await;
    let fields = [
        ("x-csrf", "1"),
        ("connection", "authorization, x-hop, x-forwarded-for, forwarded, x-request-id, traceparent, host"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
        ("proxy-authenticate", "Basic"),
    ];
    assert_eq!(browser.script(Method::GET, "/required", &fields, "").await.status, 200);
    let headers = upstream.last().headers;
    for name in fields.iter().map(|(name, _)| *name).filter(|name| *name != "x-csrf") {
        assert!(!headers.contains_key(name), "{name}: {headers:?}");
    }
    for name in ["authorization", "x-forwarded-for", "forwarded", "x-request-id", "traceparent", "host"] {
        assert_eq!(all(&headers, name).len(), 1, "{name}");
    }
}

#[tokio::test]
async fn r37_a_name_in_connection_counts_whatever_else_stands_there() {
    let upstream = Upstream::start().await;
    let gateway = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url()).start().await;
    for connection in [&b"X-Hop"[..], b"x-hop,", b"close\r\nConnection: x-hop", b"\xff, x-hop", b"x-hop\t"] {
        let mut request = b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Hop: 1\r\nConnection: ".to_vec();
        request.extend_from_slice(connection);
        request.extend_from_slice(b"\r\n\r\n");
        assert_eq!(ask(gateway.address, request).await.status, 200);
        assert!(!upstream.last().headers.contains_key("x-hop"), "{:?}", String::from_utf8_lossy(connection));
    }
}

#[tokio::test]
async fn r36_a_chain_is_lengthened_for_a_trusted_proxy_alone() {
    let upstream = Upstream::start().await;
    let route = format!("path: /, upstream: \"{}\", auth: none", upstream.url());
    let fields = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 198.51.100.7\r\nForwarded: for=192.0.2.1;proto=http\r\n\
        X-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: ftp\r\nX-Forwarded-User: root\r\n";
    for (server, trusted) in [
        ("trusted_proxies: [127.0.0.0/8]", true),
        ("trusted_proxies: [10.0.0.0/8, 127.0.0.1]", true),
        ("trusted_proxies: [10.0.0.0/8]", false),
        ("", false),
    ] {
        let mut setup = Setup::new(NO_ISSUER).route(&route);
        server.clone_into(&mut setup.server);
        let gateway = setup.start().await;
        assert_eq!(ask(gateway.address, head("GET /", fields)).await.status, 200);
        let headers = upstream.last().headers;
        let ours = "for=127.0.0.1;host=\"shop.test\";proto=https";
        if trusted {
            assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.1, 198.51.100.7, 127.0.0.1"]);
            assert_eq!(all(&headers, "forwarded"), [format!("for=192.0.2.1;proto=http, {ours}")]);
        } else {
            assert_eq!(all(&headers, "x-forwarded-for"), ["127.0.0.1"]);
            assert_eq!(all(&headers, "forwarded"), [ours]);
        }
        // The origin is configured, so nobody is asked what it is.
        assert_eq!(all(&headers, "x-forwarded-host"), ["shop.test"]);
        assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
        assert!(!headers.contains_key("x-forwarded-user"));
    }
}

#[tokio::test]
async fn a_trace_is_carried_on_and_every_request_has_a_name_of_its_own() {
    let upstream = Upstream::start().await;
    let gateway = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url()).start().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let fields = format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\ntracestate: a=b\r\n");
    let mut names = HashSet::new();
    for _ in 0..3 {
        let reply = ask(gateway.address, head("GET /", &fields)).await;
        let headers = upstream.last().headers;
        let carried = all(&headers, "traceparent")[0];
        assert!(carried.starts_with(&format!("00-{trace}-")) && carried.ends_with("-01"), "{carried}");
        assert!(!carried.contains("b7ad6b7169203331"), "our own span stands between");
        assert_eq!(all(&headers, "tracestate"), ["a=b"]);
        assert_eq!(reply.field("x-request-id"), Some(all(&headers, "x-request-id")[0]));
        names.insert(reply.field("x-request-id").unwrap().to_owned());
    }
    assert_eq!(names.len(), 3);
    for faulty in [
        "",
        "traceparent: 00-zzz\r\ntracestate: a=b\r\n",
        "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\ntracestate: a=b\r\n",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntraceparent: 00-x\r\ntracestate: a=b\r\n",
    ] {
        ask(gateway.address, head("GET /", faulty)).await;
        let headers = upstream.last().headers;
        let begun = all(&headers, "traceparent");
        assert_eq!((begun.len(), begun[0].len()), (1, 55), "{faulty}");
        assert!(!begun[0].contains(trace) && !headers.contains_key("tracestate"), "{faulty}");
    }
    // Answers of our own have a name too, so that a user can tell an operator.
    assert!(ask(gateway.address, head("GET //", "")).await.field("x-request-id").is_some());
}

#[tokio::test]
async fn r46_an_upstream_cannot_touch_session_origin_or_token() {
    let issuer = Issuer::start().await;
    let upstream = Upstream::answering(|arrived| {
        let token = arrived.headers.get("authorization").map_or("none", |value| value.to_str().unwrap());
        let bare = token.trim_start_matches("Bearer ");
        status(
            200,
            &[
                ("set-cookie", "__Host-cloakroom=forged; Path=/; Secure"),
                ("set-cookie", " __HOST-Cloakroom =forged; Path=/"),
                ("set-cookie", "__Host-cloakroom-login-x=forged; Path=/"),
                ("set-cookie", "theme=dark; Path=/"),
                ("set-cookie", "lang=en; Path=/"),
                ("clear-site-data", "\"*\""),
                ("access-control-allow-origin", "https://evil.test"),
                ("access-control-allow-credentials", "true"),
                ("access-control-allow-headers", "x-csrf"),
                ("authorization", token),
                ("x-debug-token", bare),
                ("x-debug", &format!("you sent {token}!")),
                ("x-kept", "1"),
            ],
        )
    })
    .await;
    let gateway = every_route(&issuer, &upstream).await;
    for mut browser in Browser::of_each_protocol(gateway.address) {
        browser.log_in("/").await;
        let session = browser.session_cookie().unwrap();
        for route in ROUTES {
            let answer = browser.fetch(route).await;
            assert_eq!(answer.headers["x-kept"], "1", "{route}");
            assert_eq!(
                all(&answer.headers, "set-cookie"),
                ["theme=dark; Path=/", "lang=en; Path=/"],
                "{route}"
            );
            for (name, value) in &answer.headers {
                assert!(
                    !name.as_str().starts_with("access-control-allow-") && name != "clear-site-data",
                    "{name}"
                );
                for token in upstream.tokens() {
                    assert!(!value.to_str().unwrap().contains(&token), "{route}: {name} carries the token");
                }
            }
            assert!(!answer.headers.contains_key("authorization"));
            assert_eq!(browser.session_cookie().unwrap(), session);
        }
    }
}

#[tokio::test]
async fn r37_hop_by_hop_fields_of_an_answer_stay_behind() {
    let upstream = Upstream::answering(|_| {
        status(
            200,
            &[
                ("connection", "x-hop, cache-control"),
                ("x-hop", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authenticate", "Basic"),
                ("proxy-connection", "keep-alive"),
                ("upgrade", "h2c"),
                ("cache-control", "public"),
                ("x-kept", "1"),
            ],
        )
    })
    .await;
    let issuer = Issuer::start().await;
    let gateway = every_route(&issuer, &upstream).await;
    for mut browser in Browser::of_each_protocol(gateway.address) {
        browser.log_in("/").await;
        for route in ROUTES {
            let answer = browser.fetch(route).await;
            for name in ["x-hop", "keep-alive", "proxy-authenticate", "proxy-connection", "upgrade"] {
                assert!(!answer.headers.contains_key(name), "{route} {name}");
            }
            assert_eq!(answer.headers["x-kept"], "1");
            // R44 holds though `Connection` names the field.
            assert_eq!(answer.headers.contains_key("cache-control"), route != "/none", "{route}");
        }
    }
}

#[tokio::test]
async fn r44_no_shared_cache_keeps_what_a_session_was_shown() {
    let issuer = Issuer::start().await;
    let upstream =
        Upstream::answering(|arrived| match arrived.headers.get("x-ask").map(|ask| ask.to_str().unwrap()) {
            Some(control) => {
                let mut response = full("mine");
                response.headers_mut().insert("cache-control", control.parse().unwrap());
                response.headers_mut().insert("surrogate-control", "max-age=60".parse().unwrap());
                response.headers_mut().insert("cdn-cache-control", "max-age=60".parse().unwrap());
                response
            }
            None => full("mine"),
        })
        .await;
    let gateway = every_route(&issuer, &upstream).await;
    for mut browser in Browser::of_each_protocol(gateway.address) {
        browser.log_in("/").await;
        for route in ["/required", "/optional", "/tokenless", "/own"] {
            let answer = browser.fetch(route).await;
            assert_eq!(answer.headers["cache-control"], "no-store", "{route}");
            for control in
                ["public, max-age=600", "s-maxage=600", "PUBLIC", "max-age=60, S-MaxAge=9", "immutable"]
            {
                let answer =
                    browser.script(Method::GET, route, &[("x-csrf", "1"), ("x-ask", control)], "").await;
                let kept = answer.headers["cache-control"].to_str().unwrap().to_lowercase();
                assert!(kept.contains("private") || kept.contains("no-store"), "{route} {control}: {kept}");
                assert!(!kept.contains("public") && !kept.contains("s-maxage"), "{route} {control}: {kept}");
                assert!(!answer.headers.contains_key("surrogate-control"), "{route}");
                assert!(!answer.headers.contains_key("cdn-cache-control"), "{route}");
            }
        }
        // What is the same for everybody may be kept by everybody.
        let answer = browser.script(Method::GET, "/none", &[("x-ask", "public, max-age=600")], "").await;
        assert_eq!(answer.headers["cache-control"], "public, max-age=600");
        // An anonymous answer where a session would change it must not be shown to those who have one.
        let mut stranger = Browser::new(gateway.address);
        let answer =
            stranger.script(Method::GET, "/optional", &[("x-csrf", "1"), ("x-ask", "public")], "").await;
        let vary = all(&answer.headers, "vary").join(", ").to_lowercase();
        assert!(vary.contains("cookie"), "{:?}", answer.headers);
    }
}

#[tokio::test]
async fn r41_the_token_follows_no_redirect() {
    let (issuer, elsewhere) = (Issuer::start().await, Upstream::start().await);
    let target = elsewhere.url();
    let upstream = Upstream::answering(move |arrived| match arrived.target.as_str() {
        "/required" => status(307, &[("location", &target)]),
        _ => full("home"),
    })
    .await;
    let gateway = every_route(&issuer, &upstream).await;
    for mut browser in Browser::of_each_protocol(gateway.address) {
        browser.log_in("/").await;
        let answer = browser.fetch("/required").await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers["location"].to_str().unwrap()),
            (307, elsewhere.url().as_str())
        );
        assert!(elsewhere.arrived().is_empty());
    }
}
