//! Several apps on one gateway, told apart by `Host`.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use cloakroom::clock::ManualClock;
use cloakroom::config;
use cloakroom::server::Server;
use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::browser::Answer;
use crate::support::clock::clock;
use crate::support::gateway::{ORIGIN, SESSION_COOKIE, Setup, environment};
use crate::support::issuer::{CLIENT_ID, Endpoint, Issuer};
use crate::support::shop::{Shop, bare, location, log_in_bare};
use crate::support::upstream::Upstream;

const DESK: &str = "https://desk.test";

/// The shop and the desk, each with an issuer and an upstream of its own.
struct Two {
    address: SocketAddr,
    shop: (Issuer, Upstream),
    desk: (Issuer, Upstream),
    running: JoinHandle<()>,
}

impl Two {
    async fn start() -> Self {
        let clock = clock();
        let shop = parties(&clock, "alice").await;
        let desk = parties(&clock, "bob").await;
        let route = |upstream: &Upstream| format!("path: /api, upstream: \"{}\"", upstream.url());
        let mut yaml = Setup::new(&shop.0.url()).route(&route(&shop.1)).yaml();
        writeln!(yaml, "  - origin: {DESK}").unwrap();
        writeln!(yaml, "    base_path: /auth").unwrap();
        writeln!(yaml, "    oidc: {{issuer: \"{}\", client_id: \"{CLIENT_ID}\", client_auth: {{client_secret_basic: {{env: CLIENT_SECRET}}}}}}", desk.0.url()).unwrap();
        writeln!(yaml, "    routes: [{{{}}}]", route(&desk.1)).unwrap();
        let loaded = config::parse("test.yaml", &yaml, &environment)
            .unwrap_or_else(|faults| panic!("{faults}\n{yaml}"));
        let server = Server::bind_with_clock(loaded.config, clock).await.unwrap();
        let address = server.address().unwrap();
        Self { address, shop, desk, running: tokio::spawn(server.run(std::future::pending())) }
    }

    async fn fetch(&self, origin: &str, path: &str, cookie: &str) -> Answer {
        bare(self.address, origin, Method::GET, path, &[("x-csrf", "1"), ("cookie", cookie)]).await
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn parties(clock: &Arc<ManualClock>, user: &str) -> (Issuer, Upstream) {
    let issuer = Issuer::start_with(clock.clone()).await;
    issuer.behave(|behaviour| behaviour.user = json!({"sub": user}));
    (issuer, Upstream::start().await)
}

fn session(answer: &Answer) -> String {
    let cookies = answer.set_cookies();
    let cookie = cookies.iter().find(|cookie| cookie.name() == SESSION_COOKIE).unwrap();
    format!("__Host-cloakroom={}", cookie.value())
}

#[tokio::test]
async fn each_host_has_its_own_issuer_upstream_and_sessions() {
    let two = Two::start().await;
    let shop = session(&log_in_bare(two.address, ORIGIN, "/bff", &two.shop.0).await);
    let desk = session(&log_in_bare(two.address, DESK, "/auth", &two.desk.0).await);
    for (origin, base_path, cookie, user) in [(ORIGIN, "/bff", &shop, "alice"), (DESK, "/auth", &desk, "bob")]
    {
        let told = two.fetch(origin, &format!("{base_path}/session"), cookie).await.json();
        let module = two.fetch(origin, &format!("{base_path}/client.js"), cookie).await;
        assert_eq!(module.headers["content-type"], "text/javascript; charset=utf-8");
        assert_eq!(told["user"]["sub"], user);
        assert_eq!(two.fetch(origin, "/api/orders", cookie).await.status, 200);
    }
    for (issuer, upstream) in [&two.shop, &two.desk] {
        assert_eq!((issuer.token_requests("authorization_code"), upstream.arrived().len()), (1, 1));
        assert!(issuer.is_alive(&upstream.tokens()[0]), "each upstream gets its own issuer's token");
    }
    assert_eq!(
        two.fetch(DESK, "/bff/session", &desk).await.problem(),
        "not-found",
        "the shop's paths are not the desk's"
    );
}

#[tokio::test]
async fn r22_a_session_of_one_app_is_worth_nothing_at_another() {
    let two = Two::start().await;
    let shop = session(&log_in_bare(two.address, ORIGIN, "/bff", &two.shop.0).await);
    let answer = two.fetch(DESK, "/api/orders", &shop).await;
    assert_eq!((answer.problem().as_str(), answer.clears(SESSION_COOKIE)), ("unauthenticated", true));
    assert_eq!(two.fetch(DESK, "/auth/session", &shop).await.json(), json!({"authenticated": false}));
    let fields = [("x-csrf", "1"), ("accept", "application/json"), ("cookie", shop.as_str())];
    let answer = bare(two.address, DESK, Method::POST, "/auth/logout", &fields).await;
    assert_eq!(answer.json(), json!({"redirect_to": "/"}));
    assert_eq!(two.fetch(DESK, "/api/orders", "").await.json()["login_url"], "/auth/login");
    assert_eq!(two.fetch(ORIGIN, "/api/orders", &shop).await.status, 200, "and nothing ended it at its own");
    assert!(two.desk.1.arrived().is_empty());
}

#[tokio::test]
async fn r3_a_login_begun_at_one_app_does_not_end_at_another() {
    let two = Two::start().await;
    let sent = bare(two.address, ORIGIN, Method::GET, "/bff/login", &[]).await;
    let login = sent.set_cookies().pop().unwrap();
    let query = two.shop.0.authorize(&location(&sent));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let cookie = format!("{}={}", login.name(), login.value());
    let target = format!("/auth/callback?{query}");
    let answer = bare(two.address, DESK, Method::GET, &target, &[("cookie", &cookie)]).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "login-failed"));
    for (issuer, _) in [&two.shop, &two.desk] {
        assert!(issuer.received_at(Endpoint::Token).is_empty());
    }
}

#[tokio::test]
async fn an_origin_of_another_app_is_foreign() {
    let two = Two::start().await;
    let shop = session(&log_in_bare(two.address, ORIGIN, "/bff", &two.shop.0).await);
    let fields = [("x-csrf", "1"), ("cookie", shop.as_str()), ("origin", DESK)];
    let answer = bare(two.address, ORIGIN, Method::GET, "/api/orders", &fields).await;
    assert_eq!(answer.problem(), "csrf");
}

#[tokio::test]
async fn no_other_host_is_answered() {
    let two = Two::start().await;
    for origin in [
        "https://other.test",
        "https://shop.test.evil.example",
        "https://shop.test:8443",
        "https://127.0.0.1",
        "https://www.shop.test",
        "https://desk.test:80",
    ] {
        for path in ["/", "/bff/login", "/bff/session", "/api/orders"] {
            let answer = bare(two.address, origin, Method::GET, path, &[("x-csrf", "1")]).await;
            assert_eq!(
                (answer.status.as_u16(), answer.problem().as_str()),
                (421, "misdirected"),
                "{origin}{path}"
            );
            assert!(answer.set_cookies().is_empty());
        }
    }
    let page = bare(two.address, "https://other.test", Method::GET, "/", &[("accept", "text/html")]).await;
    assert_eq!(page.status, 421);
    assert!(page.text().starts_with("<!doctype html>"));
}

#[tokio::test]
async fn every_answer_names_its_request_and_the_upstream_is_told_the_same() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let mut seen = HashSet::new();
    for path in ["/api/orders", "/shop", "/bff/session", "/bff/nothing", "/bff/login", "/api//x"] {
        let answer = browser.fetch(path).await;
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(id.len() >= 16 && seen.insert(id.clone()), "{path}: {id}");
        if ["/api/orders", "/shop"].contains(&path) {
            assert_eq!(shop.upstream.last().headers["x-request-id"], id);
        }
    }
    let answer = bare(shop.gateway.address, "https://other.test", Method::GET, "/", &[]).await;
    assert!(answer.headers.contains_key("x-request-id"));
}
