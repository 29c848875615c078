//! A line for each answer, on standard output: what it says, and what it never says (R62).

use http::Method;
use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::gateway::{GatewayProcess, NO_ISSUER, ORIGIN, Setup};
use crate::support::issuer::Issuer;
use crate::support::upstream::{Upstream, full};
use crate::support::wait::until;
use crate::support::wire::{Wire, ask, head};

/// Stops the program, and gives all lines of its access log.
async fn stop(running: GatewayProcess) -> Vec<String> {
    running.signal("TERM");
    let (code, _, accesses) = running.ended_with_accesses().await;
    assert_eq!(code, Some(0));
    accesses
}

fn parsed(lines: &[String]) -> Vec<Value> {
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[tokio::test]
async fn each_answer_is_a_line_with_what_was_asked_and_what_was_answered() {
    let upstream = Upstream::answering(|_| full("x".repeat(1000))).await;
    let setup = Setup::new(NO_ISSUER).for_users("/api", &upstream.url()).for_anybody("/", &upstream.url());
    let running = setup.start_process().await;
    let request = head("GET /shop/a?code=canary-1234567890", "User-Agent: wire/1 \"quoted\"\r\n");
    assert_eq!(ask(running.address, request).await.body.len(), 1000);
    let mut wire = Wire::connect(running.address).await;
    wire.send(head("HEAD /shop/b", "")).await;
    // The length it names is of a body that does not come.
    assert_eq!(wire.reply_head().await.status, 200);
    ask(running.address, head("POST /api/orders", "X-CSRF: 1\r\nContent-Length: 0\r\n")).await;
    ask(running.address, head("GET /bff/session", "X-CSRF: 1\r\n")).await;
    ask(running.address, head("GET //", "")).await;
    ask(running.address, "GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n").await;
    let lines = stop(running).await;
    // A line is written at an answer's end, which may come later than the client has seen it.
    let mut said: Vec<_> = parsed(&lines)
        .into_iter()
        .map(|line| {
            assert_eq!((&line["event"], &line["client"]), (&"access".into(), &"127.0.0.1".into()), "{line}");
            assert_eq!(line["protocol"], "HTTP/1.1", "{line}");
            assert!(line["duration_ms"].as_f64().is_some_and(|took| took < 60_000.0), "{line}");
            assert!(
                line["timestamp"].as_str().unwrap().ends_with('Z') && line["request_id"].is_string(),
                "{line}"
            );
            let of = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            let numbers = [&line["status"], &line["bytes"]].map(|number| number.as_u64().unwrap());
            (of("app"), of("route"), of("method"), of("path"), numbers[0], numbers[1] > 0)
        })
        .collect();
    let expected = [
        (ORIGIN, "/", "GET", "/shop/a", 200, true),
        (ORIGIN, "/", "HEAD", "/shop/b", 200, false),
        (ORIGIN, "/api", "POST", "/api/orders", 401, true),
        (ORIGIN, "/bff/session", "GET", "/bff/session", 200, true),
        (ORIGIN, "/", "GET", "//", 400, true),
        ("-", "-", "GET", "/", 421, true),
    ];
    let mut expected = expected.map(|(app, route, method, path, status, has_bytes)| {
        (app.to_owned(), route.to_owned(), method.to_owned(), path.to_owned(), status, has_bytes)
    });
    said.sort();
    expected.sort();
    assert_eq!(said, expected);
    let first = parsed(&lines).into_iter().find(|line| line["path"] == "/shop/a").unwrap();
    assert_eq!((&first["bytes"], &first["user_agent"]), (&1000.into(), &"wire/1 \"quoted\"".into()));
    assert_eq!(first["request_id"], upstream.arrived()[0].headers["x-request-id"].to_str().unwrap());
    assert!(lines.iter().all(|line| !line.contains("canary")), "{lines:?}");
}

#[tokio::test]
async fn a_line_is_there_soon_though_nothing_else_comes_and_when_the_client_has_gone() {
    let upstream = Upstream::answering(|_| full(vec![b'x'; 8_000_000])).await;
    let running = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url()).start_process().await;
    let mut wire = Wire::connect(running.address).await;
    wire.send(head("GET /large", "")).await;
    wire.reply_head().await;
    drop(wire);
    until(async || running.accesses().len() == 1).await;
    let line = &parsed(&running.accesses())[0];
    assert_eq!((&line["path"], &line["status"]), (&"/large".into(), &200.into()));
    assert!(line["bytes"].as_u64().unwrap() < 8_000_000, "{line}");
}

#[tokio::test]
async fn nothing_a_client_sends_ends_a_line_and_the_lines_of_many_are_whole() {
    let upstream = Upstream::answering(|_| full("{}")).await;
    let running = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url()).start_process().await;
    let clients = (0..8).map(|client| {
        let address = running.address;
        tokio::spawn(async move {
            let mut wire = Wire::connect(address).await;
            for number in 0..250 {
                let line = format!("GET /{client}/{number}/\"'{{}}~{}", "long".repeat(number % 7 * 50));
                wire.send(head(&line, "User-Agent: \"},\t{\"event\":\"forged\\\u{e9}\u{85}\r\n")).await;
                wire.reply().await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let lines = stop(running).await;
    assert_eq!(lines.len(), 2000);
    let mut paths: Vec<_> =
        parsed(&lines).iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 2000);
    assert!(lines.iter().all(|line| line.matches("\"event\":\"").count() == 1 && !line.contains("forged\"")));
}

#[tokio::test]
async fn the_client_is_the_one_in_front_of_trusted_proxies() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.server = "trusted_proxies: [\"127.0.0.1/32\"]".to_owned();
    let running = setup.start_process().await;
    ask(running.address, head("GET /", "X-Forwarded-For: 198.51.100.1, 203.0.113.5\r\n")).await;
    let lines = stop(running).await;
    assert_eq!(parsed(&lines)[0]["client"], "203.0.113.5");
}

#[tokio::test]
async fn it_is_text_where_the_log_is_and_nothing_where_it_is_switched_off() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    for (telemetry, count) in
        [("telemetry: {log: {format: text}}\n", 1), ("telemetry: {access_log: false}\n", 0)]
    {
        telemetry.clone_into(&mut setup.telemetry);
        let running = setup.start_process().await;
        ask(running.address, head("GET /shop", "")).await;
        let lines = stop(running).await;
        assert_eq!(lines.len(), count, "{lines:?}");
        for line in lines {
            assert!(line.contains(" access ") && line.contains(" path=\"/shop\" "), "{line}");
            assert!(line.contains(" status=200 "), "{line}");
        }
    }
}

#[tokio::test]
async fn a_line_of_the_log_names_the_request_that_its_line_here_names() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let setup =
        Setup::new(&issuer.url()).for_users("/api", &upstream.url()).for_anybody("/", &upstream.url());
    let running = setup.start_process().await;
    let mut browser = Browser::new(running.address);
    browser.log_in("/").await;
    let refused = browser.script(Method::GET, "/api/orders", &[], "").await;
    let id = refused.headers["x-request-id"].to_str().unwrap().to_owned();
    running.signal("TERM");
    let (_, lines, accesses) = running.ended_with_accesses().await;
    for (lines, event) in [(&lines, "request.refused"), (&accesses, "access")] {
        let of_request: Vec<_> = parsed(lines).into_iter().filter(|line| line["request_id"] == *id).collect();
        assert_eq!(of_request.len(), 1, "{event}: {lines:?}");
        assert_eq!(of_request[0]["event"], event);
    }
}
