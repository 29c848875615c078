//! Pushed authorization requests (RFC 9126), and what a request may ask for besides.

use std::collections::BTreeMap;
use std::time::Duration;

use cloakroom::config::{self, ClientAuth, PushedAuthorizationRequests, ResponseMode};
use cloakroom::oidc::{AuthorizationError, CallFault, DocumentFault, IssuerUnavailable, PushedFault};
use cloakroom::secret::Secret;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::support::issuer::{CLIENT_ID, CLIENT_SECRET, Endpoint, Fault};

use super::{Parties, REDIRECT_URI, request};

async fn pushing(pushed: PushedAuthorizationRequests) -> Parties {
    let parties = Parties::start_with(|oidc| oidc.authorization.pushed = pushed).await;
    parties.issuer.behave(|behaviour| behaviour.takes_pushed_requests = true);
    parties
}

async fn refusal(fault: Fault) -> AuthorizationError {
    let parties = pushing(PushedAuthorizationRequests::Auto).await;
    parties.issuer.fail(Endpoint::Push, fault);
    let expected = parties.client.expect(None, None);
    let refused = parties.client.authorization_url(&request(&expected)).await;
    assert!(parties.issuer.received_at(Endpoint::Authorize).is_empty());
    refused.expect_err("nobody is sent there")
}

fn document_fault(error: &IssuerUnavailable) -> Option<DocumentFault> {
    match error.fault() {
        CallFault::Metadata(fault) => Some(*fault),
        _ => None,
    }
}

#[tokio::test]
async fn rfc9126_4_the_browser_brings_a_client_id_and_a_request_uri_and_nothing_else() {
    let parties = pushing(PushedAuthorizationRequests::Auto).await;
    parties.issuer.behave(|behaviour| {
        let endpoint = json!(format!("{}/authorize?tenant=t", parties.issuer.url()));
        behaviour.metadata.insert("authorization_endpoint".to_owned(), endpoint);
    });
    let expected = parties.client.expect(Some(60), None);
    let url = parties.client.authorization_url(&request(&expected)).await.unwrap();
    let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names, ["tenant", "client_id", "request_uri"]);

    let [pushed] = parties.issuer.received_at(Endpoint::Push).try_into().unwrap();
    assert!(pushed.headers.contains_key(AUTHORIZATION), "the client proves itself");
    assert!(pushed.query.is_empty());
    let form: BTreeMap<&str, &str> =
        pushed.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(form.len(), pushed.form.len(), "no parameter stands twice");
    for (name, value) in [
        ("audience", "https://api.test"),
        ("client_id", CLIENT_ID),
        ("code_challenge_method", "S256"),
        ("max_age", "60"),
        ("nonce", expected.nonce.expose()),
        ("redirect_uri", REDIRECT_URI),
        ("response_type", "code"),
        ("scope", "openid profile offline_access"),
        ("state", "state-1"),
    ] {
        assert_eq!(form.get(name), Some(&value), "{name}");
    }
    assert_eq!(form.len(), 10, "these and the code_challenge");
}

#[tokio::test]
async fn rfc9126_2_each_way_to_prove_oneself_names_the_client_once() {
    for method in [
        ClientAuth::ClientSecretBasic(Secret::new(CLIENT_SECRET)),
        ClientAuth::ClientSecretPost(Secret::new(CLIENT_SECRET)),
        ClientAuth::None,
    ] {
        let parties = Parties::start_with(|oidc| oidc.client_auth = method.clone()).await;
        parties.issuer.behave(|behaviour| {
            behaviour.takes_pushed_requests = true;
            behaviour.public_client = true;
        });
        parties.log_in().await.unwrap();
        assert_eq!(parties.issuer.received_at(Endpoint::Push).len(), 1, "{method:?}");
    }
}

#[tokio::test]
async fn rfc9126_5_requests_are_pushed_where_issuer_and_configuration_agree() {
    let parties = Parties::start().await;
    parties.log_in().await.unwrap();
    assert!(parties.issuer.received_at(Endpoint::Push).is_empty(), "auto, and the issuer takes none");
    let parties = pushing(PushedAuthorizationRequests::Off).await;
    parties.log_in().await.unwrap();
    assert!(parties.issuer.received_at(Endpoint::Push).is_empty(), "off");
    let parties = pushing(PushedAuthorizationRequests::Required).await;
    parties.log_in().await.unwrap();
    assert_eq!(parties.issuer.received_at(Endpoint::Push).len(), 1, "required");
}

#[tokio::test]
async fn rfc9126_5_where_issuer_and_configuration_disagree_nobody_is_sent_there() {
    let insisting = pushing(PushedAuthorizationRequests::Off).await;
    let require = ("require_pushed_authorization_requests".to_owned(), json!(true));
    insisting.issuer.behave(|behaviour| behaviour.metadata.extend([require]));
    let unwilling =
        Parties::start_with(|oidc| oidc.authorization.pushed = PushedAuthorizationRequests::Required).await;
    for (parties, fault) in
        [(insisting, DocumentFault::WantsPushedRequests), (unwilling, DocumentFault::TakesNoPushedRequests)]
    {
        let expected = parties.client.expect(None, None);
        match parties.client.authorization_url(&request(&expected)).await.unwrap_err() {
            AuthorizationError::Unavailable(error) => assert_eq!(document_fault(&error), Some(fault)),
            other => panic!("{other:?}"),
        }
        // `check --connect` tells an operator before anybody else finds out.
        assert_eq!(document_fault(&parties.client.check_offer().await.unwrap_err()), Some(fault));
    }
}

#[tokio::test]
async fn check_offer_finds_a_response_mode_that_the_issuer_does_not_have() {
    let modes = |modes: Value| ("response_modes_supported".to_owned(), modes);
    for (mode, offered, is_good) in [
        (ResponseMode::FormPost, json!(["query", "form_post"]), true),
        (ResponseMode::Jwt, json!(["query", "form_post"]), false),
        (ResponseMode::Query, Value::Null, true),
        (ResponseMode::FormPost, Value::Null, false),
    ] {
        let parties = Parties::start_with(|oidc| oidc.authorization.response_mode = mode).await;
        parties.issuer.behave(|behaviour| behaviour.metadata.extend([modes(offered)]));
        let found = parties.client.check_offer().await;
        let fault = found.as_ref().err().and_then(document_fault);
        assert_eq!(fault, (!is_good).then_some(DocumentFault::ResponseMode(mode.as_str())));
    }
}

#[tokio::test]
async fn rfc9126_2_3_a_refused_request_is_told_by_its_code_alone() {
    for (fault, code) in [
        (Fault::error(400, "invalid_request"), "invalid_request"),
        (Fault::invalid_client(), "invalid_client"),
        (Fault::error(400, "invalid\nrequest"), "status 400"),
        (Fault::html(403), "status 403"),
        (Fault::status(413), "status 413"),
    ] {
        let refused = refusal(fault).await;
        match &refused {
            AuthorizationError::Refused { error } => assert_eq!(error, code),
            other => panic!("{other:?}"),
        }
        assert!(!format!("{refused:?} {refused}").contains("own words"));
    }
}

#[tokio::test]
async fn rfc9126_an_issuer_that_does_not_take_the_request_now_is_away() {
    for (fault, wait) in [
        (Fault::status(500), None),
        (Fault::busy(7), Some(Duration::from_secs(7))),
        (Fault::status(429), None),
        (Fault::error(400, "temporarily_unavailable"), None),
        (Fault::error(400, "server_error"), None),
        (Fault::status(302), None),
        (Fault::ResetBefore, None),
        (Fault::ResetAfter, None),
        (Fault::huge(), None),
    ] {
        match refusal(fault.clone()).await {
            AuthorizationError::Unavailable(error) => assert_eq!(error.retry_after(), wait, "{fault:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn rfc9126_2_2_an_answer_without_a_usable_request_uri_is_refused() {
    for (fault, expected) in [
        (Fault::html(200), PushedFault::NotJson),
        (
            Fault::text(201, "application/json", r#"{"request_uri":"a:b","request_uri":"c:d"}"#),
            PushedFault::NotJson,
        ),
        (Fault::json(201, json!({"expires_in": 60})), PushedFault::RequestUri),
        (Fault::json(201, json!({"request_uri": ""})), PushedFault::RequestUri),
        (Fault::json(201, json!({"request_uri": 1})), PushedFault::RequestUri),
        (Fault::json(201, json!({"request_uri": "a b"})), PushedFault::RequestUri),
        (Fault::json(201, json!({"request_uri": "a".repeat(1025)})), PushedFault::RequestUri),
        (
            Fault::json(202, json!({"request_uri": "urn:a:b"})),
            PushedFault::Status(http::StatusCode::ACCEPTED),
        ),
    ] {
        match refusal(fault).await {
            AuthorizationError::PushedAnswer(fault) => assert_eq!(fault, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn rfc8707_2_the_resource_is_named_at_login_and_at_each_token_request() {
    let resource = ["https://api.test", "urn:test:other"];
    for takes_pushed_requests in [false, true] {
        let parties =
            Parties::start_with(|oidc| oidc.authorization.resource = resource.map(str::to_owned).to_vec())
                .await;
        parties.issuer.behave(|behaviour| behaviour.takes_pushed_requests = takes_pushed_requests);
        let expected = parties.client.expect(None, None);
        let url = parties.client.authorization_url(&request(&expected)).await.unwrap();
        let asked: Vec<_> = match takes_pushed_requests {
            true => parties.issuer.received_at(Endpoint::Push)[0].form.clone(),
            false => url.query_pairs().into_owned().collect(),
        };
        assert_eq!(resources(&asked), resource);
        let (tokens, identity) = parties.log_in_expecting(&expected).await.unwrap();
        parties.client.refresh(&tokens, &identity).await.unwrap();
        let requests = parties.issuer.received_at(Endpoint::Token);
        assert_eq!(requests.len(), 2);
        for request in requests {
            assert_eq!(resources(&request.form), resource, "{:?}", request.field("grant_type"));
        }
    }
}

fn resources(parameters: &[(String, String)]) -> Vec<&str> {
    parameters.iter().filter(|(name, _)| name == "resource").map(|(_, value)| value.as_str()).collect()
}

#[tokio::test]
async fn core_5_5_claims_are_asked_for_as_json() {
    let asked = json!({"userinfo": {"email": null}, "id_token": {"auth_time": {"essential": true}}});
    let parties = Parties::start_with(|oidc| oidc.authorization.claims = claims(&asked)).await;
    let expected = parties.client.expect(None, None);
    let url = parties.client.authorization_url(&request(&expected)).await.unwrap();
    let (_, sent) = url.query_pairs().find(|(name, _)| name == "claims").unwrap();
    assert_eq!(serde_json::from_str::<Value>(&sent).unwrap(), asked);
    parties.log_in().await.unwrap();
}

#[tokio::test]
async fn core_5_5_1_1_an_essential_acr_is_held_to_whatever_the_login_asks_for() {
    for (acr, met) in [
        (json!({"essential": true, "values": ["gold", "platinum"]}), ["gold", "platinum"].as_slice()),
        (json!({"essential": true, "value": "gold"}), &["gold"]),
        (json!({"essential": true}), &["gold", "platinum", "silver"]),
        (json!({"values": ["gold"]}), &["gold", "platinum", "silver", ""]),
    ] {
        let asked = json!({"id_token": {"acr": acr}});
        for told in ["gold", "platinum", "silver", ""] {
            let parties = Parties::start_with(|oidc| oidc.authorization.claims = claims(&asked)).await;
            parties.issuer.tamper(move |draft| match told {
                "" => _ = draft.claims.as_object_mut().unwrap().remove("acr"),
                told => draft.claims["acr"] = json!(told),
            });
            assert_eq!(parties.log_in().await.is_ok(), met.contains(&told), "{acr} {told}");
        }
    }
    // A login that asks for less does not get less.
    let asked = json!({"id_token": {"acr": {"essential": true, "values": ["gold"]}}});
    let parties = Parties::start_with(|oidc| oidc.authorization.claims = claims(&asked)).await;
    let expected = parties.client.expect(None, Some("silver"));
    assert!(parties.log_in_expecting(&expected).await.is_err());
}

/// Read as the file's are.
fn claims(asked: &Value) -> config::Claims {
    let yaml = format!(
        "{{server: {{listen: '127.0.0.1:0'}}, sessions: {{keys: [{{env: KEY}}], store: {{memory: {{}}}}}}, apps: [{{\
         origin: 'https://shop.test', routes: [{{path: /, upstream: 'https://a.test'}}], \
         oidc: {{issuer: 'https://id.test', client_id: shop, client_auth: none, claims: {asked}}}}}]}}"
    );
    let key = |_: &str| Some("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_owned());
    let loaded = config::parse("test.yaml", &yaml, &key).unwrap_or_else(|faults| panic!("{faults}\n{yaml}"));
    loaded.config.apps[0].oidc[0].authorization.claims.clone()
}
