//! Revocation and the issuer's own logout.

use std::collections::BTreeMap;
use std::time::Duration;

use cloakroom::oidc::{Revocation, RevokeError, TokenKind};
use cloakroom::secret::Secret;
use http::header::AUTHORIZATION;
use serde_json::json;

use crate::support::issuer::{CLIENT_ID, Endpoint, Fault};

use super::Parties;

async fn outcome_of(fault: Fault) -> Result<Revocation, RevokeError> {
    let parties = Parties::start().await;
    parties.issuer.fail(Endpoint::Revoke, fault);
    parties.client.revoke(&Secret::new("token"), TokenKind::RefreshToken).await
}

#[tokio::test]
async fn r51_a_revoked_token_is_dead_at_the_issuer() {
    let parties = Parties::start().await;
    let (tokens, _) = parties.log_in().await.unwrap();
    let refresh_token = tokens.refresh_token.unwrap();
    let revoked = parties.client.revoke(&refresh_token, TokenKind::RefreshToken).await.unwrap();
    assert_eq!(revoked, Revocation::Revoked);
    let revoked = parties.client.revoke(&tokens.access_token, TokenKind::AccessToken).await.unwrap();
    assert_eq!(revoked, Revocation::Revoked);
    assert_eq!(parties.issuer.revoked(), [refresh_token.expose(), tokens.access_token.expose()]);
    assert!(!parties.issuer.is_alive(refresh_token.expose()));
    let hints: Vec<_> = parties
        .issuer
        .received_at(Endpoint::Revoke)
        .iter()
        .map(|request| {
            assert!(request.headers.contains_key(AUTHORIZATION), "the client proves itself");
            request.field("token_type_hint").unwrap().to_owned()
        })
        .collect();
    assert_eq!(hints, ["refresh_token", "access_token"]);
}

#[tokio::test]
async fn r51_trouble_means_not_yet_revoked() {
    for fault in [Fault::status(503), Fault::status(429), Fault::html(500), Fault::ResetBefore] {
        let outcome = outcome_of(fault.clone()).await;
        assert!(matches!(outcome, Err(RevokeError::Unavailable(_))), "{fault:?}: {outcome:?}");
    }
    let Err(RevokeError::Unavailable(unavailable)) = outcome_of(Fault::busy(9)).await else {
        panic!("a 503")
    };
    assert_eq!(unavailable.retry_after(), Some(Duration::from_secs(9)));
}

#[tokio::test]
async fn r51_what_the_issuer_does_not_revoke_is_left_out() {
    let unsupported = outcome_of(Fault::error(400, "unsupported_token_type")).await.unwrap();
    assert_eq!(unsupported, Revocation::NotOffered);

    let parties = Parties::start().await;
    parties.issuer.behave(|behaviour| {
        behaviour.metadata.insert("revocation_endpoint".to_owned(), json!(null));
    });
    let outcome = parties.client.revoke(&Secret::new("token"), TokenKind::AccessToken).await.unwrap();
    assert_eq!(outcome, Revocation::NotOffered);
}

#[tokio::test]
async fn r51_a_refusal_is_the_operators_fault() {
    for (fault, kept) in [(Fault::invalid_client(), "invalid_client"), (Fault::html(404), "status 404")] {
        let outcome = outcome_of(fault).await;
        assert!(matches!(&outcome, Err(RevokeError::Refused { error }) if error == kept), "{outcome:?}");
    }
}

#[tokio::test]
async fn r53_the_issuers_logout_page_gets_hint_client_return_address_and_state() {
    let parties = Parties::start().await;
    let id_token = Secret::new("the.id.token");
    let url = parties.client.end_session_url(Some(&id_token), "state-2").await.unwrap().unwrap();
    assert!(url.as_str().starts_with(&format!("{}/end-session?", parties.issuer.url())));
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let expected: BTreeMap<String, String> = [
        ("client_id", CLIENT_ID),
        ("id_token_hint", "the.id.token"),
        ("post_logout_redirect_uri", "https://shop.test/bff/logout/callback"),
        ("state", "state-2"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    assert_eq!(query, expected);
}

#[tokio::test]
async fn r53_a_hint_that_no_server_would_take_is_left_out() {
    let parties = Parties::start().await;
    for id_token in [None, Some(Secret::new("x".repeat(7000)))] {
        let url = parties.client.end_session_url(id_token.as_ref(), "s").await.unwrap().unwrap();
        assert!(url.query_pairs().all(|(name, _)| name != "id_token_hint"));
    }
}

#[tokio::test]
async fn r53_an_issuer_without_a_logout_page_is_left_out() {
    let parties = Parties::start().await;
    parties.issuer.behave(|behaviour| {
        behaviour.metadata.insert("end_session_endpoint".to_owned(), json!(null));
    });
    assert!(parties.client.end_session_url(None, "s").await.unwrap().is_none());
}

#[tokio::test]
async fn the_configured_parameters_go_with_a_logout() {
    let parties = Parties::start_with(|oidc| {
        oidc.end_session_parameters = [("logout_uri".to_owned(), "https://shop.test/bye".to_owned())].into();
    })
    .await;
    let url = parties.client.end_session_url(None, "state-1").await.unwrap().unwrap();
    let sent: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!((sent["logout_uri"].as_str(), sent["state"].as_str()), ("https://shop.test/bye", "state-1"));
}
