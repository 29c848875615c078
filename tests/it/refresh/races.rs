//! A browser that goes away, and a logout, while the issuer has the refresh token.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{World, assert_ended};
use crate::support::gateway::SESSION_COOKIE;
use crate::support::issuer::{Endpoint, Fault};

impl World {
    /// A request of a browser that goes away while the issuer has the refresh token. The gateway has
    /// given it up when this returns.
    async fn abandoned_call(&self) {
        let mut stream = TcpStream::connect(self.gateway.address).await.unwrap();
        let cookie = self.browser.session_cookie().unwrap();
        let request = format!(
            "GET /api HTTP/1.1\r\nhost: shop.test\r\nx-csrf: 1\r\ncookie: {SESSION_COOKIE}={cookie}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        self.issuer.until(|issuer| issuer.held() == 1).await;
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "the request is not answered");
    }
}

#[tokio::test]
async fn a_browser_that_goes_away_cancels_nothing() {
    let mut world = World::start().await;
    let first = world.token().await;
    world.issuer.hold_token_answers();
    world.advance(300);
    world.abandoned_call().await;
    world.issuer.release_token_answers();
    assert_ne!(world.token().await, first);
    assert_eq!(world.refreshes(), 1);
    world.advance(300);
    world.token().await;
    assert_eq!(world.refreshes(), 2, "the rotated refresh token was kept");
}

#[tokio::test]
async fn a_logout_during_a_refresh_wins_and_the_late_tokens_are_revoked() {
    let mut world = World::start().await;
    let first = world.token().await;
    world.issuer.hold_token_answers();
    world.advance(300);
    let waiting = world.calls(3);
    world.issuer.until(|issuer| issuer.held() == 1).await;
    let late = world.issuer.living_refresh_tokens();
    assert!(world.log_out().await.clears(SESSION_COOKIE));
    world.issuer.release_token_answers();
    for answer in waiting.join_all().await {
        assert_ended(&answer, "unauthenticated");
    }
    // The tokens of the session, and those that came late.
    world.issuer.until(|issuer| issuer.revoked().len() == 4).await;
    assert_eq!(world.issuer.revoked()[2..3], late);
    assert_ended(&world.call().await, "unauthenticated");
    assert_eq!((world.upstream.tokens(), world.refreshes()), (vec![first], 1));
}

#[tokio::test]
async fn a_logout_during_a_refresh_in_the_background_wins_too() {
    let mut world = World::start().await;
    world.issuer.hold_token_answers();
    world.advance(250);
    world.token().await;
    world.issuer.until(|issuer| issuer.held() == 1).await;
    let late = world.issuer.living_refresh_tokens();
    assert!(world.log_out().await.clears(SESSION_COOKIE));
    world.issuer.release_token_answers();
    world.issuer.until(|issuer| issuer.revoked().len() == 4).await;
    assert_eq!(world.issuer.revoked()[2..3], late);
    assert_ended(&world.call().await, "unauthenticated");
}

#[tokio::test]
async fn waiters_of_a_dead_session_do_not_wait_for_its_revocation() {
    let mut world = World::start().await;
    world.issuer.hold_token_answers();
    world.advance(300);
    let calls = world.calls(2);
    world.issuer.until(|issuer| issuer.held() == 1).await;
    world.log_out().await;
    world.issuer.fail(Endpoint::Revoke, Fault::Silence);
    world.issuer.release_token_answers();
    for answer in calls.join_all().await {
        assert_ended(&answer, "unauthenticated");
    }
    assert_ended(&world.call().await, "unauthenticated");
}
