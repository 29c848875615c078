//! What holds in HTTP/1.1 holds in HTTP/2: hosts, paths, framing, fields, cookies.

use super::open;
use crate::paths::AMBIGUOUS;
use crate::support::browser::Browser;
use crate::support::frames::{self, Frames, Outcome};
use crate::support::gateway::{SESSION_COOKIE, Setup};
use crate::support::http2::{self, Http2, request};
use crate::support::issuer::Issuer;
use crate::support::upstream::{Upstream, status};

#[tokio::test]
async fn a_request_and_its_answer_pass() {
    let upstream = Upstream::answering(|arrived| status(404, &[("x-target", &arrived.target)])).await;
    let gateway = open(&upstream, "").await;
    let mut client = Http2::connect(gateway.address).await;
    for _ in 0..3 {
        let reply = client.ask(request("DELETE", "/a/b?c=%20", &[("x-kept", "1")])).await;
        assert_eq!((reply.status, reply.field("x-target")), (404, Some("/a/b?c=%20")));
        assert!(reply.field("date").is_some() && reply.field("x-request-id").is_some());
    }
    let arrived = upstream.last();
    assert_eq!((arrived.method.as_str(), &arrived.headers["x-kept"]), ("DELETE", &"1".parse().unwrap()));
    assert_eq!(arrived.headers["host"], upstream.address.to_string());
}

#[tokio::test]
async fn r38_one_host_or_the_same_twice_and_no_connect_and_no_trace() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "").await;
    let ask = async |method: &str, authority: Option<&str>, host: &[&str]| {
        let mut list = vec![(":method", method)];
        if method != "CONNECT" {
            list.extend([(":scheme", "https"), (":path", "/")]);
        }
        list.extend(authority.map(|authority| (":authority", authority)));
        list.extend(host.iter().map(|host| ("host", *host)));
        frames::ask(gateway.address, frames::fields(&list)).await
    };
    assert_eq!(ask("GET", Some("shop.test"), &[]).await, Outcome::Status(200));
    assert_eq!(ask("GET", None, &["shop.test"]).await, Outcome::Status(200));
    assert_eq!(ask("GET", Some("shop.test"), &["Shop.test"]).await, Outcome::Status(200));
    let served = upstream.arrived().len();
    for (authority, host) in [
        (Some("shop.test"), &["other.test"][..]),
        (Some("other.test"), &["shop.test"]),
        (Some("shop.test"), &["shop.test", "shop.test"]),
        (None, &["shop.test", "other.test"]),
        (None, &[]),
        (Some("user@shop.test"), &[]),
    ] {
        assert_eq!(ask("GET", authority, host).await, Outcome::Status(400), "{authority:?} {host:?}");
    }
    assert_eq!(ask("GET", Some("other.test"), &[]).await, Outcome::Status(421));
    assert_eq!(ask("CONNECT", Some("shop.test"), &[]).await, Outcome::Status(405));
    assert_eq!(ask("TRACE", Some("shop.test"), &[]).await, Outcome::Status(405));
    assert_eq!(upstream.arrived().len(), served);
}

#[tokio::test]
async fn r35_an_ambiguous_path_is_400_and_never_reaches_an_upstream() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "").await;
    for path in AMBIGUOUS {
        let outcome = frames::ask(gateway.address, frames::head("GET", path, &[])).await;
        assert_eq!(outcome, Outcome::Status(400), "{path}");
    }
    for path in ["/a b", "/a\tb", "/a\0b", "/a\x7fb", "api", "*", "", "/\r\nX: 1"] {
        let outcome = frames::ask(gateway.address, frames::head("GET", path, &[])).await;
        assert!(
            matches!(outcome, Outcome::Status(400) | Outcome::Reset(_) | Outcome::Gone(Some(_))),
            "{path:?} {outcome:?}"
        );
    }
    assert!(upstream.arrived().is_empty(), "{:?}", upstream.arrived());
}

#[tokio::test]
async fn r39_what_frames_a_message_in_http_1_1_does_not_pass() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "").await;
    for field in [
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("content-length", "-1"),
        ("content-length", "+3"),
        ("content-length", "3, 4"),
        ("Content-Length", "3"),
        ("x", "a\r\nb: c"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x", " a"),
        ("x", "a\t"),
        ("x y", "1"),
        ("x:y", "1"),
        ("x\r\ny", "1"),
        ("", "1"),
    ] {
        let mut client = Frames::connect(gateway.address).await;
        client.send(frames::frame(1, frames::END_HEADERS, 1, frames::head("POST", "/", &[field]))).await;
        client.try_send(frames::frame(0, frames::END_STREAM, 1, "abc")).await;
        let outcome = client.outcome(1).await;
        assert!(matches!(outcome, Outcome::Reset(_) | Outcome::Gone(Some(_))), "{field:?} {outcome:?}");
    }
    assert!(upstream.arrived().is_empty(), "{:?}", upstream.arrived());
}

#[tokio::test]
async fn r39_a_body_longer_or_shorter_than_its_length_is_not_passed_on_as_whole() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "").await;
    for (length, body) in [("4", "abc"), ("2", "abc")] {
        let mut client = Frames::connect(gateway.address).await;
        let head = frames::head("POST", "/", &[("content-length", length)]);
        client.send(frames::frame(1, frames::END_HEADERS, 1, head)).await;
        client.send(frames::frame(0, frames::END_STREAM, 1, body)).await;
        assert_eq!(client.outcome(1).await, Outcome::Reset(frames::PROTOCOL_ERROR), "{length}");
    }
    assert!(upstream.arrived().iter().all(|arrived| arrived.body != "abc" && arrived.body != "ab"));
}

#[tokio::test]
async fn r26_crumbs_are_one_cookie_and_two_values_of_ours_are_refused() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let mut setup =
        Setup::new(&issuer.url()).for_users("/api", &upstream.url()).for_anybody("/", &upstream.url());
    setup.server = "h2c: true".to_owned();
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/").await;
    let ours = format!("{SESSION_COOKIE}={}", browser.session_cookie().unwrap());
    let fields = [("x-csrf", "1"), ("cookie", "a=1"), ("cookie", &ours), ("cookie", "b=2")];
    let reply = http2::get(gateway.address, "/api", &fields).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let cookies: Vec<_> = upstream.last().headers.get_all("cookie").iter().cloned().collect();
    assert_eq!(cookies, ["a=1; b=2"]);
    assert_eq!(upstream.tokens().len(), 1);

    let other = format!("{SESSION_COOKIE}=other");
    let fields = [("x-csrf", "1"), ("cookie", &ours), ("cookie", &other)];
    let reply = http2::get(gateway.address, "/api", &fields).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
}

#[tokio::test]
async fn r65_too_large_a_head_and_too_many_fields_are_431() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "header_bytes: 8KiB\nheader_count: 20").await;
    let many: Vec<_> = (0..21).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
    let large = "x".repeat(9000);
    let mut client = Http2::connect(gateway.address).await;
    assert_eq!(client.ask(request("GET", "/", &many)).await.status, 431);
    assert_eq!(client.ask(request("GET", "/", &[("x-large", &large)])).await.status, 431);
    assert!(upstream.arrived().is_empty());
    let crumbs = vec![("cookie", "a=1"); 40];
    assert_eq!(client.ask(request("GET", "/", &crumbs)).await.status, 200, "a cookie in crumbs is one field");
    assert_eq!(client.ask(request("GET", "/", &many[..20])).await.status, 200, "the connection goes on");
}
