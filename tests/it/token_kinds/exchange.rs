//! `token: {exchange: …}` (RFC 8693): the session's access token is exchanged for one that the upstream takes.

use http::Method;
use serde_json::json;

use super::{World, assert_forbidden, assert_issuer_unavailable};
use crate::support::echo::open_tunnel;
use crate::support::issuer::{Endpoint, Fault, TOKEN_EXCHANGE};
use crate::support::wait::until;

pub(super) const GRANT: &str = TOKEN_EXCHANGE;

impl World {
    fn exchanges(&self) -> usize {
        self.issuer().token_requests(TOKEN_EXCHANGE)
    }

    /// How many refreshes were asked for, with a resource or without.
    fn refreshes(&self) -> usize {
        self.issuer().token_requests("refresh_token")
    }
}

#[tokio::test]
async fn it_is_exchanged_once_for_all_who_want_it_at_once_and_sent_to_its_upstream_alone() {
    let mut world = World::start().await;
    world.issuer().hold_token_answers();
    let calls = world.calls(&["/exchanged"], 50);
    world.issuer().until(|issuer| issuer.held() == 1).await;
    world.issuer().release_token_answers();
    assert!(calls.join_all().await.iter().all(|answer| answer.status == 200));
    assert_eq!(world.exchanges(), 1);
    let tokens = world.shop.upstream.tokens();
    assert!(tokens.iter().all(|token| *token == tokens[0] && token.starts_with("exchanged-")), "{tokens:?}");

    let asked = world.asked();
    let own = world.token("/api").await;
    let expected = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", &own),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("scope", "read"),
        ("audience", "orders"),
    ];
    for (name, value) in expected {
        assert_eq!(asked.field(name), Some(value), "{name}");
    }
    assert_eq!(asked.field("resource"), None);
    assert_ne!(world.token("/exchanged/too").await, tokens[0]);
    assert_eq!(world.asked().field("resource"), Some("urn:stock"));
    assert_eq!((world.exchanges(), world.refreshes()), (2, 0));
}

#[tokio::test]
async fn several_at_once_all_find_their_way_into_the_session() {
    let world = World::start().await;
    world.issuer().hold_token_answers();
    let calls = world.calls(&["/exchanged", "/exchanged/too"], 10);
    world.issuer().until(|issuer| issuer.held() == 2).await;
    world.issuer().release_token_answers();
    assert!(calls.join_all().await.iter().all(|answer| answer.status == 200));
    assert!(
        world.calls(&["/exchanged", "/exchanged/too"], 5).join_all().await.iter().all(|a| a.status == 200)
    );
    assert_eq!(world.exchanges(), 2);
}

#[tokio::test]
async fn without_a_session_there_is_nothing_to_exchange() {
    let mut world = World::start().await;
    let mut stranger = crate::support::browser::Browser::new(world.shop.gateway.address);
    assert_eq!(stranger.fetch("/exchanged").await.problem(), "unauthenticated");
    assert_eq!(stranger.fetch("/exchanged/too").await.status, 200);
    assert_eq!(world.shop.upstream.tokens(), [""; 0]);
    world.token("/exchanged/too").await;
    assert_eq!(world.exchanges(), 1);
}

#[tokio::test]
async fn it_is_had_anew_when_the_access_token_was_refreshed() {
    let mut world = World::start().await;
    world.issuer().behave(|behaviour| behaviour.route_expires_in = Some(json!(3600)));
    let first = world.token("/exchanged").await;
    world.advance(300);
    let second = world.token("/exchanged").await;
    assert_ne!(first, second);
    assert_eq!((world.refreshes(), world.exchanges()), (1, 2));
    let own = world.token("/api").await;
    assert_eq!(world.asked().field("subject_token"), Some(own.as_str()));
    world.token("/exchanged").await;
    assert_eq!((world.refreshes(), world.exchanges()), (1, 2));
}

#[tokio::test]
async fn one_that_dies_sooner_than_the_access_token_is_replaced_before_it_does() {
    let mut world = World::start().await;
    world.issuer().behave(|behaviour| behaviour.route_expires_in = Some(json!(60)));
    let first = world.token("/exchanged").await;
    world.advance(50);
    assert_eq!(world.token("/exchanged").await, first, "stale, and used");
    until(async || world.token("/exchanged").await != first).await;
    assert_eq!(world.exchanges(), 2);
    let second = world.token("/exchanged").await;
    world.advance(60);
    assert_ne!(world.token("/exchanged").await, second, "waited for");
    assert_eq!((world.refreshes(), world.exchanges()), (0, 3));
}

#[tokio::test]
async fn r51_a_logout_revokes_it_after_the_others() {
    let mut world = World::start().await;
    let refresh_token = world.issuer().living_refresh_tokens().remove(0);
    let (own, exchanged) = (world.token("/api").await, world.token("/exchanged").await);
    world.log_out().await;
    world.issuer().until(|issuer| issuer.revoked().len() == 3).await;
    assert_eq!(world.issuer().revoked(), [refresh_token, own, exchanged]);
}

#[tokio::test]
async fn a_logout_while_it_is_exchanged_wins_and_what_comes_is_revoked() {
    let world = World::start().await;
    world.issuer().hold_token_answers();
    let calls = world.calls(&["/exchanged"], 5);
    world.issuer().until(|issuer| issuer.held() == 1).await;
    world.log_out().await;
    world.issuer().release_token_answers();
    for answer in calls.join_all().await {
        assert_eq!(answer.problem(), "unauthenticated");
    }
    world.issuer().until(|issuer| issuer.revoked().iter().any(|token| token.starts_with("exchanged-"))).await;
    assert_eq!(world.shop.upstream.tokens(), [""; 0]);
}

/// The refresh token is rotated while the exchange is written, and must not be lost over that; whoever is first.
#[tokio::test]
async fn an_exchange_and_a_refresh_at_once_lose_nothing() {
    for exchange_first in [true, false] {
        let mut world = World::start().await;
        let first = world.token("/api").await;
        world.advance(250);
        world.issuer().hold_token_answers();
        let exchanging = |world: &World| world.calls(&["/exchanged/too"], 3);
        let mut calls = if exchange_first { exchanging(&world) } else { world.calls(&["/api"], 1) };
        world.issuer().until(|issuer| issuer.held() == 1 + usize::from(exchange_first)).await;
        if !exchange_first {
            calls.join_all().await;
            calls = exchanging(&world);
            world.issuer().until(|issuer| issuer.held() == 2).await;
        }
        world.issuer().release_token_answers();
        assert!(calls.join_all().await.iter().all(|answer| answer.status == 200));
        until(async || world.token("/api").await != first).await;
        let exchanged = world.token("/exchanged/too").await;
        assert!(world.issuer().is_alive(&exchanged));
        assert_eq!(world.refreshes(), 1);
        for refreshes in 2..4 {
            world.advance(300);
            let own = world.token("/api").await;
            world.token("/exchanged/too").await;
            assert!(world.issuer().is_alive(&own), "no spent refresh token has come back");
            assert_eq!(world.refreshes(), refreshes);
        }
        // What was exchanged for a token that was refreshed meanwhile was thrown away, and the session lives.
        let revoked = world.issuer().revoked();
        assert!(revoked.iter().all(|token| token.starts_with("exchanged-")), "{revoked:?}");
    }
}

/// The subject token may be dead before its time: then another is fetched, and exchanged; once in a while.
#[tokio::test]
async fn an_access_token_that_the_issuer_has_killed_is_replaced_and_the_new_one_exchanged() {
    let mut world = World::start().await;
    for refreshes in 1..4 {
        let own = world.token("/api").await;
        world.issuer().kill(&own);
        world.issuer().behave(|behaviour| behaviour.route_expires_in = Some(json!(60)));
        world.advance(60);
        let answers = world.calls(&["/exchanged"], 20).join_all().await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(world.refreshes(), refreshes);
        let another = world.token("/api").await;
        assert_ne!(another, own);
        assert_eq!(world.asked().field("subject_token"), Some(another.as_str()));
    }
    assert_eq!(world.exchanges(), 6);
}

#[tokio::test]
async fn an_access_token_that_cannot_be_replaced_is_403_and_one_of_an_ended_login_ends_the_session() {
    let mut world = World::start().await;
    let own = world.token("/api").await;
    world.issuer().kill(&own);
    world.issuer().fail(Endpoint::Token, Fault::error(400, "invalid_request"));
    assert_forbidden(&world.browser.fetch("/exchanged").await);
    world.issuer().heal(Endpoint::Token);
    world.issuer().end_login_of(&own);
    world.advance(31);
    assert_eq!(world.browser.fetch("/exchanged").await.problem(), "session-ended");
}

#[tokio::test]
async fn a_refused_exchange_is_403_without_a_storm_and_all_else_goes_on() {
    for (error, is_of_subject) in [
        ("invalid_target", false),
        ("access_denied", false),
        ("invalid_request", true),
        ("invalid_token", true),
        ("invalid_grant", true),
    ] {
        let mut world = World::start().await;
        world.issuer().behave(|behaviour| behaviour.refuses_targets = Some(error));
        for _ in 0..20 {
            assert_forbidden(&world.browser.fetch("/exchanged").await);
        }
        let tries = 1 + usize::from(is_of_subject);
        assert_eq!((world.exchanges(), world.refreshes()), (tries, tries - 1), "{error}");
        world.token("/api").await;
        world.issuer().behave(|behaviour| behaviour.refuses_targets = None);
        world.advance(2);
        world.token("/exchanged").await;
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_is_503_on_its_route_alone() {
    let mut world = World::start().await;
    world.issuer().fail(Endpoint::Token, Fault::status(500));
    for answer in world.calls(&["/exchanged"], 20).join_all().await {
        assert_issuer_unavailable(&answer);
    }
    assert!(world.exchanges() <= 2);
    world.token("/api").await;
    world.issuer().heal(Endpoint::Token);
    world.advance(2);
    world.token("/exchanged").await;
}

#[tokio::test]
async fn an_answer_of_another_type_is_not_used() {
    for other in [json!("urn:ietf:params:oauth:token-type:refresh_token"), json!(null), json!(7)] {
        let mut world = World::start().await;
        world.issuer().behave(|behaviour| behaviour.issued_token_type = other);
        assert_issuer_unavailable(&world.browser.fetch("/exchanged").await);
        assert_eq!(world.shop.upstream.tokens(), [""; 0]);
    }
}

#[tokio::test]
async fn one_that_the_upstream_refuses_is_exchanged_anew_once() {
    let mut world = World::start().await;
    let first = world.token("/exchanged").await;
    world.refuse(&first);
    let answers = world.calls(&["/exchanged"], 20).join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_ne!(world.token("/exchanged").await, first);
    assert_eq!((world.refreshes(), world.exchanges()), (0, 2));
}

#[tokio::test]
async fn r32_the_scopes_that_a_route_requires_are_those_of_the_token_it_sends() {
    let mut world = World::start().await;
    assert_eq!(
        world.browser.fetch("/scoped").await.status,
        200,
        "`read` was asked for, and no other was told"
    );
    world.issuer().behave(|behaviour| behaviour.route_scope = Some("write".to_owned()));
    world.advance(300);
    assert_forbidden(&world.browser.fetch("/scoped").await);
    world.token("/exchanged").await;
}

#[tokio::test]
async fn a_websocket_and_a_large_body_go_with_it() {
    let mut world = World::start().await;
    let cookie = world.browser.session_cookie().unwrap();
    let mut tunnel = open_tunnel(world.shop.gateway.address, "/ws/exchanged", &cookie).await;
    tunnel.send("x").await;
    assert_eq!(tunnel.exactly(1).await.unwrap(), b"x");
    assert!(world.echo.heads()[0].to_lowercase().contains("authorization: bearer exchanged-"));
    let body: &'static str = "0123456789abcdef".repeat(64 * 1024).leak();
    let answer = world.browser.script(Method::POST, "/exchanged", &[("x-csrf", "1")], body).await;
    assert_eq!((answer.status.as_u16(), world.shop.upstream.last().body.len()), (200, 1024 * 1024));
    assert_eq!(world.exchanges(), 1);
    world.log_out().await;
    assert!(crate::support::wait::in_time(tunnel.rest()).await.is_empty(), "closed");
}
