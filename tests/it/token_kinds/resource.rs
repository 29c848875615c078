//! `token: {access_token: {resource: …}}` (RFC 8707 §2.2): the refresh token is redeemed for a token of each resource.

use serde_json::json;

use super::{World, assert_forbidden, assert_issuer_unavailable};
use crate::support::echo::open_tunnel;
use crate::support::issuer::{Endpoint, Fault};

impl World {
    /// The resources that were asked for, in order; `None` for a refresh without one.
    fn resources(&self) -> Vec<Option<String>> {
        let requests = self.issuer().received_at(Endpoint::Token).into_iter();
        let refreshes = requests.filter(|request| request.field("grant_type") == Some("refresh_token"));
        refreshes.map(|request| request.field("resource").map(str::to_owned)).collect()
    }
}

fn resource(name: &str) -> Option<String> {
    Some(format!("https://{name}.test"))
}

#[tokio::test]
async fn each_resource_is_asked_for_once_and_no_rotated_refresh_token_is_lost() {
    let mut world = World::start().await;
    let own = world.token("/api").await;
    world.issuer().hold_token_answers();
    let calls = world.calls(&["/resource", "/resource/too"], 20);
    world.issuer().until(|issuer| issuer.held() == 1).await;
    world.issuer().release_token_answers();
    assert!(calls.join_all().await.iter().all(|answer| answer.status == 200));
    let mut resources = world.resources();
    resources.sort();
    assert_eq!(resources, [resource("orders"), resource("stock")]);
    let (orders, stock) = (world.token("/resource").await, world.token("/resource/too").await);
    assert!(orders.starts_with("resource-") && stock.starts_with("resource-") && orders != stock);
    assert_eq!(world.token("/api").await, own, "the access token stays");

    for round in 1..3 {
        world.advance(300);
        assert!(
            world
                .calls(&["/resource", "/api", "/resource/too"], 5)
                .join_all()
                .await
                .iter()
                .all(|a| a.status == 200)
        );
        assert_eq!(world.resources().len(), 2 + 3 * round, "{:?}", world.resources());
        let own = world.token("/api").await;
        assert!(world.issuer().is_alive(&own), "no spent refresh token has come back");
    }
}

#[tokio::test]
async fn a_refresh_of_the_access_token_leaves_it_as_it_is() {
    let mut world = World::start().await;
    world.issuer().behave(|behaviour| behaviour.route_expires_in = Some(json!(3600)));
    let (own, first) = (world.token("/api").await, world.token("/resource").await);
    world.advance(300);
    assert_ne!(world.token("/api").await, own);
    assert_eq!(world.token("/resource").await, first);
    assert_eq!(world.resources(), [resource("orders"), None]);
}

#[tokio::test]
async fn r51_a_logout_revokes_the_newest_refresh_token_and_then_all_others() {
    let mut world = World::start().await;
    let (own, orders) = (world.token("/api").await, world.token("/resource").await);
    let refresh_token = world.issuer().living_refresh_tokens();
    world.log_out().await;
    world.issuer().until(|issuer| issuer.revoked().len() == 3).await;
    assert_eq!(world.issuer().revoked(), [refresh_token[0].clone(), own, orders]);
}

#[tokio::test]
async fn a_logout_meanwhile_wins_and_the_refresh_token_that_comes_is_revoked() {
    let world = World::start().await;
    world.issuer().hold_token_answers();
    let calls = world.calls(&["/resource"], 5);
    world.issuer().until(|issuer| issuer.held() == 1).await;
    let rotated = world.issuer().living_refresh_tokens();
    world.log_out().await;
    world.issuer().release_token_answers();
    for answer in calls.join_all().await {
        assert_eq!(answer.problem(), "unauthenticated");
    }
    world.issuer().until(|issuer| issuer.revoked().iter().any(|token| token.starts_with("resource-"))).await;
    assert!(world.issuer().revoked().contains(&rotated[0]));
}

#[tokio::test]
async fn a_refused_resource_is_403_and_ends_nothing() {
    for error in ["invalid_target", "invalid_grant"] {
        let mut world = World::start().await;
        world.issuer().behave(|behaviour| behaviour.refuses_targets = Some(error));
        for _ in 0..20 {
            assert_forbidden(&world.browser.fetch("/resource").await);
        }
        assert_eq!(world.resources().len(), 1, "{error}");
        world.advance(300);
        world.token("/api").await;
        world.issuer().behave(|behaviour| behaviour.refuses_targets = None);
        world.advance(2);
        world.token("/resource").await;
    }
}

#[tokio::test]
async fn a_login_that_the_issuer_has_ended_ends_the_session_once_its_access_token_is_to_be_refreshed() {
    let mut world = World::start().await;
    let first = world.token("/resource").await;
    world.issuer().end_login_of(&first);
    world.advance(300);
    assert_eq!(world.browser.fetch("/resource").await.problem(), "session-ended");
}

#[tokio::test]
async fn after_an_answer_that_was_lost_the_refresh_token_is_spared_for_as_long_as_the_access_token_can_be_used()
 {
    let mut world = World::start().await;
    world.issuer().fail_once(Endpoint::Token, Fault::status(503));
    for answer in world.calls(&["/resource"], 10).join_all().await {
        assert_issuer_unavailable(&answer);
    }
    assert_eq!(world.resources().len(), 1);
    // Stale: after anything else, a refresh would be under way now.
    world.advance(241);
    for _ in 0..5 {
        world.token("/api").await;
    }
    assert_eq!(world.resources().len(), 1);
    // Who needs it gets it by the ordinary back-off, and with it all is well.
    world.token("/resource").await;
    world.advance(60);
    world.token("/api").await;
    assert_eq!(world.resources(), [resource("orders"), resource("orders"), None]);
}

#[tokio::test]
async fn a_websocket_is_opened_with_it() {
    let world = World::start().await;
    let cookie = world.browser.session_cookie().unwrap();
    let mut tunnel = open_tunnel(world.shop.gateway.address, "/ws/resource", &cookie).await;
    tunnel.send("x").await;
    assert_eq!(tunnel.exactly(1).await.unwrap(), b"x");
    assert!(world.echo.heads()[0].to_lowercase().contains("authorization: bearer resource-"));
}
