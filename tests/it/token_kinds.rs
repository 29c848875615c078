//! Which token goes upstream: one of the client's own, one that the session's is exchanged for, one for a resource; and
//! who may use a route, by the claims about them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use tokio::task::JoinSet;

use crate::support::browser::{Answer, Browser};
use crate::support::echo::Echo;
use crate::support::gateway::Setup;
use crate::support::issuer::{Endpoint, Issuer, Received};
use crate::support::shop::Shop;
use crate::support::upstream::{Arrived, Upstream, full, status};

mod across_gateways;
mod claims;
mod client_credentials;
mod exchange;
mod resource;

const REFUSAL: &str = "Bearer error=\"invalid_token\"";

/// A shop whose clock stands still, with routes for each kind of token, and a user. Tokens live for 300 s, and are
/// stale in the last 60 s. Its upstream refuses the tokens that it is told to.
struct World {
    shop: Shop,
    echo: Echo,
    refused: Arc<Mutex<HashSet<String>>>,
    browser: Browser,
}

impl World {
    async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    async fn start_with(change: impl FnOnce(&Issuer, &mut Setup)) -> Self {
        let refused = Arc::new(Mutex::new(HashSet::new()));
        let set = Arc::clone(&refused);
        let upstream = Upstream::answering(move |arrived: &Arrived| {
            let is_refused = bearer(arrived).is_some_and(|token| set.lock().unwrap().contains(&token));
            if is_refused { status(401, &[("www-authenticate", REFUSAL)]) } else { full("") }
        })
        .await;
        let (clock, echo) = (crate::support::clock::clock(), Echo::start().await);
        let issuer = Issuer::start_with(clock.clone()).await;
        // Without connections kept open, a stopped issuer is a refused connection and nothing else.
        issuer.behave(|behaviour| behaviour.keeps_connections = false);
        let (url, echo_url) = (upstream.url(), echo.url.clone());
        let shop = Shop::open_among(clock, issuer, upstream, |issuer, setup| {
            add_routes(setup, &url, &echo_url);
            change(issuer, setup);
        });
        let shop = shop.await;
        let browser = shop.user().await;
        Self { shop, echo, refused, browser }
    }

    /// Calls this route, and gives the token that came upstream.
    async fn token(&mut self, path: &str) -> String {
        let answer = self.browser.fetch(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        bearer(&self.shop.upstream.last()).expect("a token")
    }

    /// That many calls of each path at a time, each from a window of its own.
    fn calls(&self, paths: &[&'static str], count: usize) -> JoinSet<Answer> {
        let mut calls = JoinSet::new();
        for path in paths.iter().copied().cycle().take(count * paths.len()) {
            let mut window = self.browser.window();
            calls.spawn(async move { window.fetch(path).await });
        }
        calls
    }

    fn refuse(&self, token: &str) {
        self.refused.lock().unwrap().insert(token.to_owned());
    }

    fn advance(&self, seconds: u64) {
        self.shop.clock.advance(Duration::from_secs(seconds));
    }

    fn issuer(&self) -> &Issuer {
        &self.shop.issuer
    }

    /// The last request to the token endpoint.
    fn asked(&self) -> Received {
        self.issuer().received_at(Endpoint::Token).pop().expect("a request")
    }

    async fn log_out(&self) {
        let fields = [("x-csrf", "1"), ("accept", "application/json")];
        let answer = self.browser.window().script(Method::POST, "/bff/logout", &fields, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn add_routes(setup: &mut Setup, url: &str, echo: &str) {
    let own =
        "token: {client_credentials: {scopes: [read, write], resource: \"urn:orders\", audience: orders}}";
    for (path, keys) in [
        ("/own/anybody", format!("auth: none, {own}")),
        ("/own/perhaps", format!("auth: optional, {own}")),
        ("/own/users", own.to_owned()),
        ("/own/plain", "token: client_credentials".to_owned()),
        ("/exchanged", "token: {exchange: {audience: orders, scopes: [read]}}".to_owned()),
        ("/exchanged/too", "auth: optional, token: {exchange: {resource: \"urn:stock\"}}".to_owned()),
        ("/resource", "token: {access_token: {resource: \"https://orders.test\"}}".to_owned()),
        ("/resource/too", "token: {access_token: {resource: \"https://stock.test\"}}".to_owned()),
        (
            "/scoped",
            "token: {exchange: {audience: orders, scopes: [read]}}, required_scopes: [read]".to_owned(),
        ),
    ] {
        setup.add_route(&format!("path: {path}, upstream: \"{url}\", {keys}"));
    }
    for (path, token) in [
        ("/ws/own", "client_credentials"),
        ("/ws/exchanged", "{exchange: {audience: orders, scopes: [read]}}"),
        ("/ws/resource", "{access_token: {resource: \"https://orders.test\"}}"),
    ] {
        setup.add_route(&format!("path: {path}, upstream: \"{echo}\", websocket: true, token: {token}"));
    }
}

fn bearer(arrived: &Arrived) -> Option<String> {
    let token = arrived.headers.get("authorization")?.to_str().unwrap();
    Some(token.strip_prefix("Bearer ").expect("a bearer token").to_owned())
}

/// 503 `issuer-unavailable` that says when to come back, and keeps the cookie.
#[track_caller]
fn assert_issuer_unavailable(answer: &Answer) {
    let told = (answer.status.as_u16(), answer.problem());
    assert_eq!(told, (503, "issuer-unavailable".to_owned()), "{}", answer.text());
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert!(answer.set_cookies().is_empty());
}

#[track_caller]
fn assert_forbidden(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "forbidden"), "{}", answer.text());
    assert!(answer.set_cookies().is_empty());
}
