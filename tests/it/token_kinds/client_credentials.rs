//! `token: client_credentials` (RFC 6749 §4.4): one token for all who use the route.

use http::Method;
use serde_json::json;

use super::{World, assert_issuer_unavailable, bearer};
use crate::support::browser::Browser;
use crate::support::echo::open_tunnel;
use crate::support::issuer::{Endpoint, Fault};
use crate::support::metrics::count;
use crate::support::wait::until;

const GRANT: &str = "client_credentials";

impl World {
    fn fetches(&self) -> usize {
        self.issuer().token_requests(GRANT)
    }

    /// Someone whom nobody knows.
    fn stranger(&self) -> Browser {
        Browser::new(self.shop.gateway.address)
    }
}

#[tokio::test]
async fn one_token_is_fetched_for_all_who_want_it_at_once_whoever_they_are() {
    let world = World::start().await;
    world.issuer().hold_token_answers();
    let mut calls = world.calls(&["/own/anybody", "/own/perhaps", "/own/users"], 20);
    for path in ["/own/anybody", "/own/perhaps"] {
        let mut stranger = world.stranger();
        calls.spawn(async move { stranger.fetch(path).await });
    }
    world.issuer().until(|issuer| issuer.held() == 1).await;
    world.issuer().release_token_answers();
    for answer in calls.join_all().await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(world.fetches(), 1);
    let asked = world.asked();
    assert_eq!(asked.field("scope"), Some("read write"));
    assert_eq!((asked.field("resource"), asked.field("audience")), (Some("urn:orders"), Some("orders")));
    assert!(asked.headers.contains_key("authorization"), "the client proves itself");
    let tokens = world.shop.upstream.tokens();
    assert!(tokens.len() == 62 && tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    assert!(tokens[0].starts_with("client-"));
}

#[tokio::test]
async fn who_needs_a_session_for_the_route_needs_it_still() {
    let world = World::start().await;
    let answer = world.stranger().fetch("/own/users").await;
    assert_eq!(answer.problem(), "unauthenticated");
    assert_eq!(world.fetches(), 0);
}

#[tokio::test]
async fn another_target_is_another_token_and_nothing_is_asked_for_that_was_not_configured() {
    let mut world = World::start().await;
    let other = world.token("/own/anybody").await;
    assert_ne!(world.token("/own/plain").await, other);
    let asked = world.asked();
    for name in ["scope", "resource", "audience"] {
        assert_eq!(asked.field(name), None, "{name}");
    }
    assert_eq!(world.token("/own/users").await, other);
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn a_stale_token_is_used_and_replaced_once_in_the_background_and_an_expired_one_is_waited_for() {
    let mut world = World::start().await;
    let first = world.token("/own/anybody").await;
    world.advance(241);
    world.issuer().hold_token_answers();
    for answer in world.calls(&["/own/anybody"], 20).join_all().await {
        assert_eq!(answer.status, 200);
    }
    assert!(world.shop.upstream.tokens().iter().all(|token| *token == first), "no request waits");
    world.issuer().until(|issuer| issuer.held() == 1).await;
    world.issuer().release_token_answers();
    let mut second = first.clone();
    until(async || {
        second = world.token("/own/anybody").await;
        second != first
    })
    .await;
    assert_eq!(world.fetches(), 2);

    world.advance(300);
    world.issuer().hold_token_answers();
    let calls = world.calls(&["/own/anybody"], 20);
    world.issuer().until(|issuer| issuer.held() == 1).await;
    world.issuer().release_token_answers();
    assert!(calls.join_all().await.iter().all(|answer| answer.status == 200));
    assert_ne!(world.token("/own/anybody").await, second);
    assert_eq!(world.fetches(), 3);
}

#[tokio::test]
async fn r33_a_token_whose_life_is_not_told_lives_a_minute() {
    let mut world = World::start().await;
    for odd in [None, Some(json!(0)), Some(json!("soon"))] {
        world.issuer().behave(|behaviour| behaviour.route_expires_in = odd.clone());
        world.advance(301);
        let first = world.token("/own/anybody").await;
        let fetches = world.fetches();
        world.advance(40);
        assert_eq!(world.token("/own/anybody").await, first);
        assert_eq!(world.fetches(), fetches, "{odd:?}");
        world.advance(20);
        assert_ne!(world.token("/own/anybody").await, first);
        assert_eq!(world.fetches(), fetches + 1, "{odd:?}");
    }
}

#[tokio::test]
async fn a_token_is_used_to_its_end_while_the_issuer_is_away_and_then_the_answer_is_503() {
    let mut world = World::start().await;
    let first = world.token("/own/anybody").await;
    world.issuer().fail(Endpoint::Token, Fault::status(500));
    world.advance(299);
    for _ in 0..20 {
        assert_eq!(world.token("/own/anybody").await, first);
    }
    until(async || world.fetches() == 2).await;
    world.advance(1);
    for answer in world.calls(&["/own/anybody", "/own/users"], 20).join_all().await {
        assert_issuer_unavailable(&answer);
    }
    assert!(world.fetches() <= 3, "{}", world.fetches());
    world.issuer().heal(Endpoint::Token);
    world.advance(60);
    assert_ne!(world.token("/own/anybody").await, first);
    let refreshes = "cloakroom_token_refreshes_total{app=\"https://shop.test\",result=\"succeeded\"}";
    assert_eq!(count(world.shop.gateway.admin, refreshes).await, 2);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_is_asked_again_while_the_request_waits() {
    let mut world = World::start().await;
    world.shop.issuer.stop().await;
    let calls = world.calls(&["/own/plain"], 5);
    tokio::task::yield_now().await;
    world.shop.issuer.restart().await;
    assert!(calls.join_all().await.iter().all(|answer| answer.status == 200));
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn what_the_issuer_refuses_or_answers_in_another_type_is_503_and_no_storm() {
    for fault in [Fault::invalid_client(), Fault::error(400, "invalid_scope"), Fault::html(200)] {
        let mut world = World::start().await;
        world.issuer().fail(Endpoint::Token, fault);
        for _ in 0..10 {
            assert_issuer_unavailable(&world.browser.fetch("/own/anybody").await);
        }
        assert_eq!(world.fetches(), 1);
        assert!(world.browser.fetch("/bff/session").await.json()["authenticated"].as_bool().unwrap());
    }
    let mut world = World::start().await;
    world.issuer().behave(|behaviour| behaviour.token_type = json!("mac"));
    assert_issuer_unavailable(&world.browser.fetch("/own/anybody").await);
}

#[tokio::test]
async fn a_browser_that_goes_away_cancels_no_fetch() {
    let mut world = World::start().await;
    world.issuer().hold_token_answers();
    let mut call = world.calls(&["/own/anybody"], 1);
    world.issuer().until(|issuer| issuer.held() == 1).await;
    call.abort_all();
    while call.join_next().await.is_some() {}
    world.issuer().release_token_answers();
    world.token("/own/anybody").await;
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn a_token_that_the_upstream_refuses_is_fetched_anew_once_and_the_body_sent_again() {
    let mut world = World::start().await;
    let first = world.token("/own/anybody").await;
    world.refuse(&first);
    let answers = world.calls(&["/own/anybody"], 20).join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let answer = world.browser.script(Method::POST, "/own/anybody", &[("x-csrf", "1")], "body").await;
    assert_eq!((answer.status.as_u16(), &*world.shop.upstream.last().body), (200, &b"body"[..]));
    assert_eq!(world.fetches(), 2);
    // It is refused again and again, whoever asks.
    for _ in 0..5 {
        let token = bearer(&world.shop.upstream.last()).unwrap();
        world.refuse(&token);
        world.browser.fetch("/own/anybody").await;
    }
    let fetches = world.fetches();
    let token = bearer(&world.shop.upstream.last()).unwrap();
    world.refuse(&token);
    assert_eq!(world.browser.fetch("/own/anybody").await.status, 200);
    assert_eq!(world.fetches(), fetches + 1, "one that was accepted and is refused later is replaced again");
}

#[tokio::test]
async fn an_upstream_that_refuses_every_token_is_no_storm() {
    let mut world = World::start().await;
    let first = world.token("/own/anybody").await;
    world.refuse(&first);
    // Whatever comes next.
    for number in 0..200 {
        let (name, number_of_token) = first.rsplit_once('-').unwrap();
        world.refuse(&format!("{name}-{}", number_of_token.parse::<usize>().unwrap() + number));
    }
    for answer in world.calls(&["/own/anybody"], 20).join_all().await {
        assert_eq!(answer.status, 401);
    }
    for _ in 0..10 {
        assert_eq!(world.browser.fetch("/own/anybody").await.status, 401);
    }
    assert_eq!(world.fetches(), 2);
    world.advance(30);
    world.browser.fetch("/own/anybody").await;
    assert_eq!(world.fetches(), 3, "later it may help");
}

#[tokio::test]
async fn a_logout_revokes_what_is_the_users_and_not_the_clients() {
    let mut world = World::start().await;
    let own = world.token("/own/users").await;
    let users = world.token("/api").await;
    assert_ne!(own, users);
    world.log_out().await;
    world.issuer().until(|issuer| issuer.revoked().contains(&users)).await;
    assert!(!world.issuer().revoked().contains(&own) && world.issuer().is_alive(&own));
}

#[tokio::test]
async fn a_websocket_is_opened_with_it() {
    let world = World::start().await;
    let cookie = world.browser.session_cookie().unwrap();
    let mut tunnel = open_tunnel(world.shop.gateway.address, "/ws/own", &cookie).await;
    tunnel.send("x").await;
    assert_eq!(tunnel.exactly(1).await.unwrap(), b"x");
    assert!(world.echo.heads()[0].to_lowercase().contains("authorization: bearer client-"));
}
