//! Each answer of the issuer that is no new token, and what becomes of the session.

use serde_json::json;

use super::{World, assert_ended, assert_unavailable, retry_after};
use crate::support::browser::Browser;
use crate::support::gateway::SESSION_COOKIE;
use crate::support::issuer::{Draft, Endpoint, Fault};
use crate::support::upstream::Upstream;
use crate::support::wait::until;

impl World {
    async fn with_timeout(timeout: &str) -> Self {
        let timeout = format!("\ntimeout: {timeout}");
        Self::start_with(Upstream::start().await, |_, setup| setup.oidc += &timeout).await
    }

    /// An answer that promises nothing was given to a session whose token is dead: it stays, and goes on
    /// once the issuer does.
    async fn assert_recovers(&mut self) {
        let answer = self.call().await;
        assert_unavailable(&answer, "issuer-unavailable");
        self.issuer.heal(Endpoint::Token);
        self.advance(retry_after(&answer));
        self.token().await;
    }
}

#[tokio::test]
async fn r31_invalid_grant_ends_the_session_once() {
    let mut world = World::start().await;
    let first = world.token().await;
    let cookie = world.browser.session_cookie().unwrap();
    world.issuer.end_login_of(&first);
    world.advance(300);
    assert_ended(&world.call().await, "session-ended");
    assert!(world.browser.session_cookie().is_none());
    world.browser.plant(SESSION_COOKIE, &cookie);
    assert_ended(&world.call().await, "unauthenticated");
    assert_eq!(world.session().await, json!({"authenticated": false}));
    assert_eq!((world.refreshes(), world.upstream.tokens().len()), (1, 1));
}

#[tokio::test]
async fn r31_invalid_grant_in_the_background_ends_the_session_too() {
    let mut world = World::start().await;
    let first = world.token().await;
    world.issuer.end_login_of(&first);
    world.advance(250);
    world.token().await;
    until(async || world.session().await == json!({"authenticated": false})).await;
}

#[tokio::test]
async fn a_refused_connection_is_a_503_and_the_session_stays() {
    let mut world = World::start().await;
    let first = world.token().await;
    world.issuer.stop().await;
    world.advance(300);
    let answers = world.calls(10).join_all().await;
    answers.iter().for_each(|answer| assert_unavailable(answer, "issuer-unavailable"));
    world.issuer.restart().await;
    world.advance(answers.iter().map(retry_after).max().unwrap());
    assert_ne!(world.token().await, first);
    assert_eq!(world.refreshes(), 1, "nothing had been sent");
}

#[tokio::test]
async fn what_may_have_been_processed_is_not_sent_again_before_the_token_is_about_to_die() {
    for fault in [
        Fault::status(500),
        Fault::html(502),
        Fault::busy(7),
        Fault::status(429),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::huge(),
        Fault::html(200),
        Fault::text(200, "application/json", "{"),
        Fault::json(200, json!({})),
        Fault::error(400, "temporarily_unavailable"),
    ] {
        let mut world = World::start().await;
        let first = world.token().await;
        world.issuer.fail(Endpoint::Token, fault.clone());
        // At 250, 270, 294 and 296 s of the token's life.
        for (later, refreshes) in [(250, 1), (20, 1), (24, 1), (2, 2)] {
            world.advance(later);
            for _ in 0..5 {
                assert_eq!(world.token().await, first, "{fault:?}");
            }
            world.issuer.until(|_| world.refreshes() >= refreshes).await;
            assert_eq!(world.refreshes(), refreshes, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn after_the_token_died_the_session_waits_for_the_issuer_to_recover() {
    for fault in [
        Fault::status(500),
        Fault::html(502),
        Fault::busy(7),
        Fault::status(429),
        Fault::ResetBefore,
        Fault::huge(),
        Fault::html(200),
        Fault::json(200, json!({"access_token": "a"})),
        Fault::invalid_client(),
        Fault::error(400, "unauthorized_client"),
        Fault::html(403),
        Fault::status(404),
    ] {
        let mut world = World::start().await;
        world.issuer.fail(Endpoint::Token, fault.clone());
        world.advance(300);
        for _ in 0..10 {
            assert_unavailable(&world.call().await, "issuer-unavailable");
        }
        assert_eq!(world.refreshes(), 1, "{fault:?} is no storm");
        world.assert_recovers().await;
        assert_eq!(world.refreshes(), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn the_issuers_retry_after_is_kept() {
    let mut world = World::start().await;
    world.issuer.fail(Endpoint::Token, Fault::busy(40));
    world.advance(300);
    assert_eq!(retry_after(&world.call().await), 40);
    world.advance(39);
    assert_unavailable(&world.call().await, "issuer-unavailable");
    assert_eq!(world.refreshes(), 1);
    world.issuer.heal(Endpoint::Token);
    world.advance(1);
    world.token().await;
}

#[tokio::test]
async fn a_long_outage_is_no_request_storm() {
    let mut world = World::start().await;
    world.issuer.fail(Endpoint::Token, Fault::status(500));
    world.advance(300);
    for _ in 0..120 {
        assert_unavailable(&world.call().await, "issuer-unavailable");
        world.advance(1);
    }
    // 1, 2, 4, 8, 16, and then 30 s, each at least half of that.
    assert!(world.refreshes() <= 12, "{} requests in two minutes", world.refreshes());
    assert!(world.refreshes() >= 6, "{} requests in two minutes", world.refreshes());
    world.advance(30);
    world.issuer.heal(Endpoint::Token);
    world.token().await;
}

#[tokio::test]
async fn an_issuer_that_is_away_is_asked_by_few_sessions_and_serves_all_once_it_is_back() {
    let world = World::start().await;
    let mut browsers = Vec::new();
    for _ in 0..20 {
        let mut browser = Browser::new(world.gateway.address);
        browser.log_in("/shop").await;
        browsers.push(browser);
    }
    world.issuer.fail(Endpoint::Token, Fault::status(500));
    world.advance(300);
    for browser in &mut browsers {
        assert_unavailable(&browser.fetch("/api").await, "issuer-unavailable");
    }
    assert!(world.refreshes() < 10, "{} of 20 sessions asked", world.refreshes());
    world.issuer.heal(Endpoint::Token);
    world.advance(1);
    for browser in browsers.iter_mut().rev() {
        assert_eq!(browser.fetch("/api").await.status, 200);
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_a_503_and_the_session_stays() {
    let mut world = World::with_timeout("1s").await;
    world.issuer.fail(Endpoint::Token, Fault::Silence);
    world.advance(300);
    world.assert_recovers().await;
}

#[tokio::test]
async fn waiting_ends_long_before_the_issuers_time_does_and_the_refresh_goes_on() {
    let mut world = World::start().await;
    let first = world.token().await;
    world.issuer.hold_token_answers();
    world.advance(300);
    let answers = world.calls(3).join_all().await;
    assert_eq!(world.issuer.held(), 1, "the issuer has not answered yet");
    answers.iter().for_each(|answer| assert_unavailable(answer, "issuer-unavailable"));
    world.issuer.release_token_answers();
    assert_ne!(world.token().await, first);
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test]
async fn an_operators_fault_logs_nobody_out() {
    let mut world = World::start().await;
    let mut browsers = Vec::new();
    for _ in 0..3 {
        let mut browser = Browser::new(world.gateway.address);
        browser.log_in("/shop").await;
        browsers.push(browser);
    }
    world.issuer.fail(Endpoint::Token, Fault::invalid_client());
    world.advance(250);
    world.token().await;
    world.advance(50);
    for browser in &mut browsers {
        assert_unavailable(&browser.fetch("/api").await, "issuer-unavailable");
    }
    world.issuer.heal(Endpoint::Token);
    world.advance(30);
    for browser in &mut browsers {
        assert_eq!(browser.fetch("/api").await.status, 200);
    }
}

#[tokio::test]
async fn r30_a_refreshed_id_token_about_another_login_ends_the_session() {
    for (name, value) in [("sub", "mallory"), ("aud", "another client"), ("iss", "https://evil.test")] {
        let mut world = World::start().await;
        world.issuer.tamper(move |draft: &mut Draft| draft.claims[name] = json!(value));
        world.advance(300);
        assert_ended(&world.call().await, "session-ended");
        assert!(world.upstream.tokens().is_empty(), "{name}");
        // Those of before, and those that came with the wrong ID token.
        world.issuer.until(|issuer| issuer.revoked().len() == 4).await;
        assert!(world.issuer.living_refresh_tokens().is_empty(), "{name}");
    }
}
