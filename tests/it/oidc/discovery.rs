//! Metadata and keys: whom the client believes, how often it asks, and what an outage leaves it.

use std::time::Duration;

use cloakroom::config;
use cloakroom::error::Refusal;
use cloakroom::oidc::{
    Availability, CallFault, DocumentFault, IdTokenFault, IssuerUnavailable, JwtFault, KEY_RENEWAL_INTERVAL,
    RedeemError,
};
use futures_util::FutureExt;
use futures_util::future::join_all;
use http::header::RETRY_AFTER;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::issuer::{Endpoint, Fault};
use crate::support::wait::until;

use super::{Parties, client, registration, request};

/// Longer than metadata and keys are used unasked.
const OLD: Duration = Duration::from_secs(60 * 60);
/// Longer than a failure is remembered.
const SOON: Duration = Duration::from_secs(1);

impl Parties {
    fn asked(&self, endpoint: Endpoint) -> usize {
        self.issuer.received_at(endpoint).len()
    }

    async fn until_availability_is(&self, availability: Availability) {
        until(async || self.client.availability() == availability).await;
    }

    async fn refusal(&self) -> IssuerUnavailable {
        self.client.discover().await.expect_err("discovery fails")
    }
}

#[tokio::test]
async fn discovery_waits_until_needed_and_a_crowd_asks_once() {
    let parties = Parties::start().await;
    assert_eq!(parties.asked(Endpoint::Discovery), 0);
    assert_eq!(parties.client.availability(), Availability::Unknown);

    let crowd = join_all((0..50).map(|_| parties.client.discover())).await;
    assert!(crowd.iter().all(Result::is_ok));
    assert_eq!(parties.asked(Endpoint::Discovery), 1);
    assert_eq!(parties.client.availability(), Availability::Available);
}

#[tokio::test]
async fn a_failure_is_shared_by_a_crowd_and_forgotten_after_a_second() {
    let parties = Parties::start().await;
    parties.issuer.fail(Endpoint::Discovery, Fault::status(503));
    let crowd = join_all((0..50).map(|_| parties.client.discover())).await;
    assert!(crowd.iter().all(Result::is_err));
    assert_eq!(parties.asked(Endpoint::Discovery), 1);
    assert_eq!(parties.client.availability(), Availability::Unavailable);

    parties.issuer.heal(Endpoint::Discovery);
    assert!(parties.client.discover().await.is_err(), "within the second");
    parties.clock.advance(SOON);
    assert!(parties.client.discover().await.is_ok());
    assert_eq!(parties.client.availability(), Availability::Available);
}

#[tokio::test]
async fn an_issuers_retry_after_is_passed_on_to_the_client() {
    let parties = Parties::start().await;
    for (fault, wait) in [(Fault::busy(7), "7"), (Fault::status(503), "2")] {
        parties.issuer.fail_once(Endpoint::Discovery, fault);
        let refusal = Refusal::from(parties.refusal().await);
        assert_eq!(refusal.code().status(), 503);
        let retry_after: Vec<_> = refusal.headers.iter().filter(|(name, _)| name == RETRY_AFTER).collect();
        assert!(matches!(retry_after[..], [(_, value)] if value == wait), "{retry_after:?}");
        parties.clock.advance(SOON);
    }
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start_is_used_once_it_is_up() {
    let mut parties = Parties::start().await;
    parties.issuer.stop().await;
    assert!(matches!(parties.refusal().await.fault(), CallFault::NotSent(_)));
    parties.issuer.restart().await;
    parties.clock.advance(SOON);
    assert!(parties.log_in().await.is_ok());
}

#[tokio::test]
async fn an_outage_keeps_the_last_metadata_for_all_but_who_would_be_sent_there() {
    let parties = Parties::start().await;
    let (tokens, identity) = parties.log_in().await.unwrap();
    parties.issuer.fail(Endpoint::Discovery, Fault::html(502));
    parties.issuer.fail(Endpoint::Jwks, Fault::html(502));
    parties.clock.advance(OLD);
    assert!(parties.client.refresh(&tokens, &identity).await.is_ok());
    parties.until_availability_is(Availability::Unavailable).await;
    let asked = parties.asked(Endpoint::Discovery);
    assert!(parties.client.end_session_url(None, "s").await.is_ok());
    assert_eq!(parties.asked(Endpoint::Discovery), asked, "a failing issuer is not asked each time");

    let expected = parties.client.expect(None, None);
    assert!(parties.client.authorization_url(&request(&expected)).await.is_err());
    parties.issuer.heal(Endpoint::Discovery);
    parties.clock.advance(SOON);
    assert!(parties.client.authorization_url(&request(&expected)).await.is_ok());
    assert_eq!(parties.client.availability(), Availability::Available);
}

#[tokio::test]
async fn metadata_are_fetched_anew_after_an_hour() {
    let parties = Parties::start().await;
    parties.client.discover().await.unwrap();
    parties.issuer.behave(|behaviour| {
        behaviour.metadata.insert("end_session_endpoint".to_owned(), json!(null));
    });
    assert!(parties.client.end_session_url(None, "s").await.unwrap().is_some());
    parties.clock.advance(OLD);
    let is_new = async || parties.client.end_session_url(None, "s").await.unwrap().is_none();
    until(is_new).await;
    assert_eq!(parties.asked(Endpoint::Discovery), 2);
}

#[tokio::test]
async fn nobody_waits_for_new_metadata_while_there_are_old_ones() {
    let parties = Parties::start().await;
    parties.client.discover().await.unwrap();
    parties.issuer.fail(Endpoint::Discovery, Fault::Silence);
    parties.clock.advance(OLD);
    let at_once = || matches!(parties.client.discover().now_or_never(), Some(Ok(())));
    assert!(at_once() && at_once());
    parties.issuer.until(|_| parties.asked(Endpoint::Discovery) == 2).await;
    assert!(at_once() && at_once());
    assert_eq!(parties.asked(Endpoint::Discovery), 2, "one fetch however many want it");
}

#[tokio::test]
async fn a_caller_that_gives_up_cancels_no_fetch() {
    let parties = Parties::start().await;
    let gives_up = || assert!(parties.client.discover().now_or_never().is_none());
    parties.issuer.fail_once(Endpoint::Discovery, Fault::status(503));
    gives_up();
    parties.until_availability_is(Availability::Unavailable).await;
    parties.clock.advance(SOON);
    gives_up();
    parties.until_availability_is(Availability::Available).await;
    assert!(matches!(parties.client.discover().now_or_never(), Some(Ok(()))));
    assert_eq!(parties.asked(Endpoint::Discovery), 2);
}

#[tokio::test]
async fn r9_metadata_that_cannot_be_trusted_are_refused() {
    for (member, value, fault) in [
        ("issuer", json!("https://evil.test"), DocumentFault::Issuer),
        ("issuer", json!(null), DocumentFault::Issuer),
        ("token_endpoint", json!("http://evil.test/token"), DocumentFault::Endpoint("token_endpoint")),
        ("jwks_uri", json!(null), DocumentFault::Endpoint("jwks_uri")),
        ("userinfo_endpoint", json!(7), DocumentFault::Endpoint("userinfo_endpoint")),
    ] {
        let parties = Parties::start().await;
        parties.issuer.behave(|behaviour| {
            behaviour.metadata.insert(member.to_owned(), value.clone());
        });
        let refusal = parties.refusal().await;
        assert!(
            matches!(refusal.fault(), CallFault::Metadata(found) if *found == fault),
            "{member}: {refusal:?}"
        );
    }
}

#[tokio::test]
async fn r9_answers_are_bounded_and_redirects_are_not_followed() {
    let parties = Parties::start().await;
    let refusal = |fault| {
        parties.issuer.fail_once(Endpoint::Discovery, fault);
        parties.clock.advance(SOON);
        parties.refusal()
    };
    assert!(matches!(refusal(Fault::huge()).await.fault(), CallFault::TooLarge));
    assert!(matches!(refusal(Fault::ResetBefore).await.fault(), CallFault::Broken(_)));
    assert!(matches!(refusal(Fault::status(302)).await.fault(), CallFault::Status(status) if *status == 302));
    for fault in [
        Fault::html(200),
        Fault::text(200, "text/plain", "{}"),
        Fault::text(200, "application/json", r#"{"issuer":"a","issuer":"b"}"#),
    ] {
        let refusal = refusal(fault).await;
        assert!(matches!(refusal.fault(), CallFault::Metadata(DocumentFault::NotJson)), "{refusal:?}");
    }
    assert_eq!(parties.issuer.received().len(), 6);
}

#[tokio::test]
async fn r9_an_answer_that_never_comes_is_not_waited_for() {
    let parties = Parties::start_with(|oidc| oidc.timeout = Duration::from_millis(100)).await;
    parties.issuer.fail(Endpoint::Discovery, Fault::Silence);
    assert!(matches!(parties.refusal().await.fault(), CallFault::TimedOut(_)));
}

#[tokio::test]
async fn r61_without_a_tls_handshake_nothing_is_sent() {
    let parties = Parties::start().await;
    let https = registration(&parties.issuer.url().replace("http://", "https://"));
    let client = client(&https, parties.clock.clone()).expect("the machine has root certificates");
    let refused = client.discover().await.expect_err("a server that speaks no TLS");
    assert!(matches!(refused.fault(), CallFault::NotSent(_)), "{refused:?}");
    assert!(parties.issuer.received().is_empty());
}

#[tokio::test]
async fn r61_a_tls_handshake_that_is_never_answered_sends_nothing() {
    let parties = Parties::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("https://{}", listener.local_addr().unwrap());
    // The kernel accepts; nobody ever reads.
    let oidc = config::Oidc { timeout: Duration::from_millis(300), ..registration(&issuer) };
    let client = client(&oidc, parties.clock.clone()).expect("the machine has root certificates");
    let refused = client.discover().await.expect_err("a server that says nothing");
    assert!(matches!(refused.fault(), CallFault::NotSent(_)), "{refused:?}");
}

#[tokio::test]
async fn r17_an_unknown_key_is_fetched_once_by_a_crowd() {
    let parties = Parties::start().await;
    parties.log_in().await.unwrap();
    assert_eq!(parties.asked(Endpoint::Jwks), 1);
    parties.issuer.rotate_keys();
    let crowd = join_all((0..20).map(|_| parties.log_in())).await;
    assert!(crowd.iter().all(Result::is_ok));
    assert_eq!(parties.asked(Endpoint::Jwks), 2);
}

#[tokio::test]
async fn r17_tokens_with_unknown_keys_cannot_make_the_client_ask_without_end() {
    let parties = Parties::start().await;
    parties.log_in().await.unwrap();
    parties.issuer.tamper(|draft| draft.header["kid"] = json!("unknown"));
    for _ in 0..5 {
        let refused = parties.log_in().await.unwrap_err();
        assert!(
            matches!(refused, RedeemError::IdToken(IdTokenFault::Jwt(JwtFault::UnknownKey))),
            "{refused:?}"
        );
    }
    assert_eq!(parties.asked(Endpoint::Jwks), 2);
    parties.clock.advance(KEY_RENEWAL_INTERVAL);
    parties.log_in().await.unwrap_err();
    assert_eq!(parties.asked(Endpoint::Jwks), 3);
}

#[tokio::test]
async fn r17_an_outage_of_the_keys_keeps_the_cached_ones() {
    let parties = Parties::start().await;
    parties.log_in().await.unwrap();
    parties.issuer.fail(Endpoint::Jwks, Fault::status(500));
    parties.clock.advance(OLD);
    assert!(parties.log_in().await.is_ok());

    parties.issuer.rotate_keys();
    parties.clock.advance(SOON);
    let refused = parties.log_in().await.unwrap_err();
    assert!(matches!(refused, RedeemError::Unavailable(_)), "{refused:?}");

    parties.issuer.heal(Endpoint::Jwks);
    parties.clock.advance(SOON);
    assert!(parties.log_in().await.is_ok());
}

#[tokio::test]
async fn r17_a_key_set_that_makes_no_sense_is_no_key_set() {
    let parties = Parties::start().await;
    for fault in [Fault::json(200, json!({})), Fault::html(200), Fault::json(200, json!({"keys": {}}))] {
        parties.issuer.fail_once(Endpoint::Jwks, fault);
        parties.clock.advance(SOON);
        let refused = parties.log_in().await.unwrap_err();
        assert!(
            matches!(&refused, RedeemError::Unavailable(why) if matches!(why.fault(), CallFault::KeySet)),
            "{refused:?}"
        );
    }
}
