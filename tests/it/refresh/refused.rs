//! An upstream that says `invalid_token`: one refresh, and the request once more.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use http::{Method, Response};

use super::{World, assert_ended};
use crate::support::issuer::{Endpoint, Fault};
use crate::support::upstream::{Arrived, Body, Upstream, full, status};

const REFUSAL: &str = "Bearer realm=\"api\", error=\"invalid_token\"";

/// Refuses the tokens in the set, and says so.
async fn refusing() -> (Upstream, Arc<Mutex<HashSet<String>>>) {
    let refused = Arc::new(Mutex::new(HashSet::new()));
    let set = Arc::clone(&refused);
    let answer = move |arrived: &Arrived| {
        let token = arrived.headers.get("authorization").map(|value| value.to_str().unwrap());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        if token.is_some_and(|token| set.lock().unwrap().contains(token)) { refusal() } else { full("") }
    };
    (Upstream::answering(answer).await, refused)
}

fn refusal() -> Response<Body> {
    status(401, &[("www-authenticate", REFUSAL)])
}

impl World {
    /// The first token is refused from now on.
    async fn refused() -> Self {
        let (upstream, refused) = refusing().await;
        let mut world = Self::start_with(upstream, |_, _| {}).await;
        let first = world.token().await;
        refused.lock().unwrap().insert(first);
        world
    }
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_the_body_sent_again_byte_for_byte() {
    let mut world = World::refused().await;
    let body: &'static str = "0123456789abcdef".repeat(4096).leak();
    let fields = [("x-csrf", "1"), ("content-type", "text/plain")];
    let answer = world.browser.script(Method::POST, "/api/orders?a=b", &fields, body).await;
    assert_eq!(answer.status, 200);
    let arrived = world.upstream.arrived().split_off(world.upstream.arrived().len() - 2);
    let [first, second] = [&arrived[0], &arrived[1]];
    assert_ne!(first.headers["authorization"], second.headers["authorization"]);
    assert_eq!((&first.method, &first.target, &first.body), (&second.method, &second.target, &second.body));
    assert_eq!(second.headers["content-type"], "text/plain");
    assert_eq!(first.body.len(), 64 * 1024);
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test]
async fn a_body_too_large_to_keep_gets_the_upstreams_own_answer() {
    let mut world = World::refused().await;
    let body: &'static str = "0123456789abcdef".repeat(4097).leak();
    let answer = world.browser.script(Method::POST, "/api/orders", &[("x-csrf", "1")], body).await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["www-authenticate"].to_str().unwrap()),
        (401, REFUSAL)
    );
    assert!(answer.set_cookies().is_empty());
    assert_eq!(world.refreshes(), 0);
}

#[tokio::test]
async fn requests_refused_together_share_one_refresh_and_all_are_sent_again() {
    let world = World::refused().await;
    let answers = world.calls(30).join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test]
async fn an_upstream_that_refuses_every_token_is_no_refresh_storm() {
    let upstream =
        Upstream::answering(
            |arrived| {
                if arrived.headers.contains_key("authorization") { refusal() } else { full("") }
            },
        );
    let mut world = World::start_with(upstream.await, |_, _| {}).await;
    for _ in 0..20 {
        let answer = world.call().await;
        assert_eq!((answer.status.as_u16(), answer.set_cookies().len()), (401, 0));
        assert_eq!(answer.headers["www-authenticate"], REFUSAL);
    }
    assert_eq!((world.refreshes(), world.upstream.tokens().len()), (1, 21));
    for answer in world.calls(20).join_all().await {
        assert_eq!(answer.status, 401);
    }
    assert_eq!(world.refreshes(), 1);
    world.advance(30);
    world.call().await;
    assert_eq!(world.refreshes(), 2, "later it may help");
}

#[tokio::test]
async fn a_token_that_was_accepted_and_is_refused_later_is_replaced_again() {
    let (upstream, refused) = refusing().await;
    let mut world = World::start_with(upstream, |_, _| {}).await;
    for refreshes in 1..=3 {
        let token = world.token().await;
        refused.lock().unwrap().insert(token);
        assert_eq!(world.call().await.status, 200);
        assert_eq!(world.refreshes(), refreshes);
    }
}

#[tokio::test]
async fn any_other_401_is_passed_on_untouched() {
    for challenge in [
        None,
        Some("Basic realm=\"invalid_token\""),
        Some("Bearer"),
        Some("Bearer error=\"insufficient_scope\""),
    ] {
        let upstream = Upstream::answering(move |arrived| {
            if !arrived.headers.contains_key("authorization") {
                return full("");
            }
            let mut response = full("its own words");
            *response.status_mut() = http::StatusCode::UNAUTHORIZED;
            response
                .headers_mut()
                .extend(challenge.map(|value| (http::header::WWW_AUTHENTICATE, value.parse().unwrap())));
            response
        });
        let mut world = World::start_with(upstream.await, |_, _| {}).await;
        let answer = world.call().await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (401, "its own words"));
        assert!(answer.set_cookies().is_empty());
        assert_eq!((world.refreshes(), world.upstream.tokens().len()), (0, 1), "{challenge:?}");
    }
}

#[tokio::test]
async fn where_no_other_token_is_to_be_had_the_upstreams_own_answer_stands() {
    let mut world = World::refused().await;
    world.issuer.fail(Endpoint::Token, Fault::status(500));
    for _ in 0..5 {
        let answer = world.call().await;
        assert_eq!((answer.status.as_u16(), answer.set_cookies().len()), (401, 0));
        assert_eq!(answer.headers["www-authenticate"], REFUSAL);
    }
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test]
async fn without_a_refresh_token_a_refusal_is_passed_on() {
    let (upstream, refused) = refusing().await;
    let without = |issuer: &crate::support::issuer::Issuer| {
        issuer.behave(|behaviour| behaviour.issues_refresh_tokens = false);
    };
    let mut world = World::start_with(upstream, |issuer, _| without(issuer)).await;
    let first = world.token().await;
    refused.lock().unwrap().insert(first);
    assert_eq!(world.call().await.status, 401);
    assert_eq!(world.refreshes(), 0);
}

#[tokio::test]
async fn a_login_that_the_issuer_has_ended_ends_the_session() {
    let mut world = World::refused().await;
    let first = world.upstream.tokens().pop().unwrap();
    world.issuer.end_login_of(&first);
    assert_ended(&world.call().await, "session-ended");
}

#[tokio::test]
async fn r32_a_scope_that_shrank_with_the_replacement_is_forbidden() {
    let (upstream, refused) = refusing().await;
    let profile = format!("path: /profile, upstream: \"{}\", required_scopes: [profile]", upstream.url());
    let mut world = World::start_with(upstream, |_, setup| setup.add_route(&profile)).await;
    let first = world.token().await;
    refused.lock().unwrap().insert(first);
    world.issuer.behave(|behaviour| behaviour.scope = Some("openid".to_owned()));
    assert_eq!(world.browser.fetch("/profile").await.problem(), "forbidden");
    assert_eq!(world.upstream.tokens().len(), 2, "the shrunk token is not sent there");
}
