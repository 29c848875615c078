//! The refresh: what is kept, and what each failure says about the refresh token.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::oidc::{CallFault, RefreshError, TokenKind};
use cloakroom::secret::Secret;
use cloakroom::tokens::{Identity, Tokens};
use serde_json::json;

use crate::support::issuer::{Draft, Endpoint, Fault, Signature};

use super::Parties;

impl Parties {
    async fn logged_in() -> (Self, Tokens, Identity) {
        let parties = Self::start().await;
        // Without connections kept open, a stopped issuer is a refused connection and nothing else.
        parties.issuer.behave(|behaviour| behaviour.keeps_connections = false);
        let (tokens, identity) = parties.log_in().await.expect("a good login");
        (parties, tokens, identity)
    }
}

async fn refusal(fault: Fault) -> RefreshError {
    let (parties, tokens, identity) = Parties::logged_in().await;
    parties.issuer.fail(Endpoint::Token, fault);
    parties.client.refresh(&tokens, &identity).await.expect_err("the refresh fails")
}

async fn outcome_of(change: impl Fn(&mut Draft) + Send + 'static) -> (Tokens, Result<Tokens, RefreshError>) {
    let (parties, tokens, identity) = Parties::logged_in().await;
    parties.issuer.tamper(change);
    let outcome = parties.client.refresh(&tokens, &identity).await;
    (tokens, outcome)
}

fn text(token: Option<&Secret>) -> &str {
    token.expect("a token").expose()
}

#[tokio::test]
async fn r28_a_rotated_refresh_token_takes_the_old_ones_place() {
    let (parties, old, identity) = Parties::logged_in().await;
    parties.clock.advance(Duration::from_secs(200));
    let new = parties.client.refresh(&old, &identity).await.unwrap();
    assert_ne!(new.access_token, old.access_token);
    assert_ne!(new.id_token, old.id_token);
    assert_eq!(new.expires_at.since(old.expires_at), Duration::from_secs(200));
    assert!(!parties.issuer.is_alive(text(old.refresh_token.as_ref())));
    assert!(parties.issuer.is_alive(text(new.refresh_token.as_ref())));
    let request = parties.issuer.received_at(Endpoint::Token).remove(1);
    assert!(request.headers.contains_key("authorization"), "the client proves itself");
    assert_eq!(request.field("scope"), None);
}

#[tokio::test]
async fn what_the_answer_omits_is_kept() {
    let (parties, old, identity) = Parties::logged_in().await;
    parties.issuer.behave(|behaviour| {
        behaviour.rotates = false;
        behaviour.refreshes_id_token = false;
    });
    let new = parties.client.refresh(&old, &identity).await.unwrap();
    assert_ne!(new.access_token, old.access_token);
    assert_eq!((&new.refresh_token, &new.id_token), (&old.refresh_token, &old.id_token));
    assert_eq!(new.scopes, old.scopes);
}

#[tokio::test]
async fn r32_a_shrunk_scope_is_seen_and_stays() {
    let (parties, old, identity) = Parties::logged_in().await;
    parties.issuer.behave(|behaviour| behaviour.scope = Some("openid".to_owned()));
    let shrunk = parties.client.refresh(&old, &identity).await.unwrap();
    assert_eq!(shrunk.scopes, ["openid"]);
    parties.issuer.behave(|behaviour| behaviour.scope = None);
    assert_eq!(parties.client.refresh(&shrunk, &identity).await.unwrap().scopes, ["openid"]);
}

#[tokio::test]
async fn r31_invalid_grant_is_said_only_by_a_well_formed_answer() {
    // Some issuers say it with 403, or as another type.
    for fault in [
        Fault::invalid_grant(),
        Fault::error(401, "invalid_grant"),
        Fault::error(403, "invalid_grant"),
        Fault::text(400, "text/plain", r#"{"error":"invalid_grant"}"#),
        Fault::text(400, "text/json; charset=utf-8", r#"{"error":"invalid_grant"}"#),
    ] {
        assert!(matches!(refusal(fault.clone()).await, RefreshError::InvalidGrant), "{fault:?}");
    }
    for fault in [
        Fault::text(400, "text/html", r#"<p>{"error":"invalid_grant"}</p>"#),
        Fault::text(400, "application/json", "invalid_grant"),
        Fault::text(400, "application/json", r#"{"error":"invalid_grant","error":"x"}"#),
        Fault::json(400, json!({"error": ["invalid_grant"]})),
        Fault::json(400, json!({"error_description": "invalid_grant"})),
    ] {
        let refused = refusal(fault.clone()).await;
        assert!(matches!(refused, RefreshError::Refused { .. }), "{fault:?}: {refused:?}");
    }
    for fault in [
        Fault::error(500, "invalid_grant"),
        Fault::error(200, "invalid_grant"),
        Fault::error(429, "invalid_grant"),
        Fault::text(200, "text/plain", r#"{"access_token":"a","token_type":"Bearer"}"#),
    ] {
        let refused = refusal(fault.clone()).await;
        assert!(matches!(refused, RefreshError::Ambiguous(_)), "{fault:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_token_that_was_used_up_is_an_invalid_grant() {
    let (parties, old, identity) = Parties::logged_in().await;
    let new = parties.client.refresh(&old, &identity).await.unwrap();
    assert!(matches!(parties.client.refresh(&old, &identity).await, Err(RefreshError::InvalidGrant)));
    assert!(!parties.issuer.is_alive(text(new.refresh_token.as_ref())), "reuse kills the family");
}

#[tokio::test]
async fn a_session_without_a_refresh_token_asks_nobody() {
    let (parties, old, identity) = Parties::logged_in().await;
    let without = Tokens { refresh_token: None, ..old };
    assert!(matches!(parties.client.refresh(&without, &identity).await, Err(RefreshError::InvalidGrant)));
    assert_eq!(parties.issuer.token_requests("refresh_token"), 0);
}

#[tokio::test]
async fn what_may_have_been_processed_is_ambiguous() {
    for fault in [
        Fault::status(500),
        Fault::html(502),
        Fault::status(429),
        Fault::status(408),
        Fault::status(302),
        Fault::status(204),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::huge(),
        Fault::html(200),
        Fault::json(200, json!({})),
        Fault::json(200, json!({"access_token": "a"})),
        Fault::error(400, "temporarily_unavailable"),
    ] {
        let refused = refusal(fault.clone()).await;
        assert!(matches!(refused, RefreshError::Ambiguous(_)), "{fault:?}: {refused:?}");
    }
    let RefreshError::Ambiguous(unavailable) = refusal(Fault::busy(7)).await else { panic!("a 503") };
    assert_eq!(unavailable.retry_after(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn an_answer_that_never_comes_is_ambiguous() {
    let (parties, tokens, identity) = Parties::logged_in().await;
    let impatient = parties.impatient().await;
    parties.issuer.fail(Endpoint::Token, Fault::Silence);
    let refused = impatient.refresh(&tokens, &identity).await.unwrap_err();
    assert!(
        matches!(&refused, RefreshError::Ambiguous(why) if matches!(why.fault(), CallFault::TimedOut(_))),
        "{refused:?}"
    );
    assert_eq!(parties.issuer.token_requests("refresh_token"), 1);
}

#[tokio::test]
async fn a_broken_connection_never_sends_the_refresh_token_twice() {
    for fault in [Fault::ResetBefore, Fault::ResetAfter] {
        let (parties, tokens, identity) = Parties::logged_in().await;
        // On a connection that was used before, where hyper would try again what it has not yet written.
        parties.issuer.behave(|behaviour| behaviour.keeps_connections = true);
        parties.client.revoke(&Secret::new("unknown"), TokenKind::AccessToken).await.unwrap();
        parties.issuer.fail_once(Endpoint::Token, fault);
        let refused = parties.client.refresh(&tokens, &identity).await.unwrap_err();
        assert!(matches!(refused, RefreshError::Ambiguous(_)), "{refused:?}");
        assert_eq!(parties.issuer.token_requests("refresh_token"), 1);
    }
}

#[tokio::test]
async fn a_refused_connection_sends_nothing_and_a_later_try_succeeds() {
    let (mut parties, tokens, identity) = Parties::logged_in().await;
    parties.issuer.stop().await;
    for _ in 0..3 {
        let refused = parties.client.refresh(&tokens, &identity).await.unwrap_err();
        assert!(
            matches!(&refused, RefreshError::NotSent(why) if matches!(why.fault(), CallFault::NotSent(_))),
            "{refused:?}"
        );
    }
    parties.issuer.restart().await;
    assert!(parties.client.refresh(&tokens, &identity).await.is_ok());
    assert_eq!(parties.issuer.token_requests("refresh_token"), 1);
}

#[tokio::test]
async fn an_unknown_token_endpoint_sends_nothing() {
    let (_parties, tokens, identity) = Parties::logged_in().await;
    let fresh = Parties::start_with(|oidc| oidc.timeout = Duration::from_millis(300)).await;
    fresh.issuer.fail(Endpoint::Discovery, Fault::Silence);
    let refused = fresh.client.refresh(&tokens, &identity).await.unwrap_err();
    assert!(matches!(refused, RefreshError::NotSent(_)), "{refused:?}");
    assert_eq!(fresh.issuer.token_requests("refresh_token"), 0);
}

#[tokio::test]
async fn an_operators_fault_names_the_error_and_ends_nothing() {
    for (fault, kept) in [
        (Fault::invalid_client(), "invalid_client"),
        (Fault::error(400, "unauthorized_client"), "unauthorized_client"),
        (Fault::html(403), "status 403"),
        (Fault::status(404), "status 404"),
    ] {
        let refused = refusal(fault.clone()).await;
        assert!(
            matches!(&refused, RefreshError::Refused { error } if error == kept),
            "{fault:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn r30_a_refreshed_id_token_has_the_same_iss_sub_and_aud() {
    for (name, other) in [
        ("iss", json!("https://evil.test")),
        ("sub", json!("mallory")),
        ("aud", json!("other")),
        ("aud", json!(["shop:1", "other"])),
        ("nonce", json!("another login's")),
    ] {
        let claim = other.clone();
        let (parties, tokens, identity) = Parties::logged_in().await;
        parties.issuer.tamper(move |draft| draft.claims[name] = claim.clone());
        let outcome = parties.client.refresh(&tokens, &identity).await;
        let Err(RefreshError::WrongIdentity(issued)) = outcome else { panic!("{name} {other}: {outcome:?}") };
        assert!(parties.issuer.is_alive(issued.access_token.expose()));
        let issued_anew = issued.refresh_token.as_ref().unwrap();
        parties.client.revoke(issued_anew, TokenKind::RefreshToken).await.unwrap();
        assert!(parties.issuer.living_refresh_tokens().is_empty(), "what was issued can be revoked");
        assert!(!parties.issuer.is_alive(issued.access_token.expose()));
    }
}

#[tokio::test]
async fn r30_the_same_nonce_may_come_again() {
    let parties = Parties::start().await;
    let expected = parties.client.expect(None, None);
    let (tokens, identity) = parties.log_in_expecting(&expected).await.unwrap();
    let nonce = expected.nonce.expose().to_owned();
    parties.issuer.tamper(move |draft| draft.claims["nonce"] = json!(nonce));
    assert!(parties.client.refresh(&tokens, &identity).await.is_ok());
}

#[tokio::test]
async fn r12_a_refreshed_id_token_with_a_bad_signature_is_garbage() {
    for change in [
        (|draft| draft.signature = Signature::Foreign) as fn(&mut Draft),
        |draft| draft.header["alg"] = json!("none"),
        |draft| draft.claims["at_hash"] = json!("AAAAAAAAAAAAAAAAAAAAAA"),
        |draft| draft.raw_claims = Some("{".to_owned()),
    ] {
        let (_, outcome) = outcome_of(change).await;
        assert!(matches!(outcome, Err(RefreshError::Ambiguous(_))), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_drifting_clock_does_not_cost_the_rotated_refresh_token() {
    let (old, outcome) = outcome_of(|draft| draft.claims["iat"] = json!(0)).await;
    let new = outcome.unwrap();
    assert_ne!(new.refresh_token, old.refresh_token);
    assert_eq!(new.id_token, old.id_token, "the doubtful one is not kept");
}

#[tokio::test]
async fn keys_out_of_reach_do_not_cost_the_rotated_refresh_token() {
    let (parties, old, identity) = Parties::logged_in().await;
    parties.issuer.rotate_keys();
    parties.issuer.fail(Endpoint::Jwks, Fault::status(503));
    let new = parties.client.refresh(&old, &identity).await.unwrap();
    assert!(parties.issuer.is_alive(text(new.refresh_token.as_ref())));
    assert_eq!(new.id_token, old.id_token, "the unverified one is not kept");

    parties.issuer.tamper(|draft| draft.claims["sub"] = json!("mallory"));
    let refused = parties.client.refresh(&new, &identity).await;
    assert!(matches!(refused, Err(RefreshError::WrongIdentity(_))), "{refused:?}");
}

#[tokio::test]
async fn r33_an_odd_expires_in_is_no_loop() {
    for (expires_in, seconds) in [
        (Some(json!("120")), 120),
        (Some(json!(0)), 60),
        (Some(json!(-1)), 60),
        (Some(json!("soon")), 60),
        (None, 60),
    ] {
        let (parties, old, identity) = Parties::logged_in().await;
        parties.issuer.behave(|behaviour| behaviour.expires_in.clone_from(&expires_in));
        let new = parties.client.refresh(&old, &identity).await.unwrap();
        assert_eq!(new.expires_at.since(new.issued_at), Duration::from_secs(seconds), "{expires_in:?}");
    }
}

#[tokio::test]
async fn a_life_counts_from_the_answer_not_from_the_request() {
    let (parties, old, identity) = Parties::logged_in().await;
    parties.issuer.hold_token_answers();
    let slow = async {
        parties.issuer.until(|issuer| issuer.held() == 1).await;
        parties.clock.advance(Duration::from_secs(20));
        parties.issuer.release_token_answers();
    };
    let client = Arc::clone(&parties.client);
    let refresh = {
        let old = old.clone();
        tokio::spawn(async move { client.refresh(&old, &identity).await })
    };
    slow.await;
    let new = refresh.await.unwrap().unwrap();
    assert_eq!(new.issued_at.since(old.issued_at), Duration::from_secs(20));
    assert_eq!(new.expires_at.since(new.issued_at), Duration::from_secs(300));
}
