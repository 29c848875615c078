//! Signed authorization requests (RFC 9101).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::config::SigningKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::issuer::Endpoint;
use crate::support::signing_keys::{ED25519, P256, RSA, private_key, public_jwk};

use super::*;

/// A client that signs its requests, at an issuer that takes no others.
async fn signing(arguments: &str, change: impl FnOnce(&mut config::Oidc)) -> (Parties, TempDir) {
    let (pem, folder) = (private_key(arguments), TempDir::new().unwrap());
    let path = folder.path().join("key");
    fs::write(&path, &pem).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let parties = Parties::start_with(|oidc| {
        oidc.authorization.request_object = Some(SigningKey::in_file(path));
        change(oidc);
    })
    .await;
    let key = public_jwk(&pem);
    parties.issuer.behave(|behaviour| behaviour.request_key = Some(key));
    (parties, folder)
}

async fn asked(parties: &Parties) -> Vec<(String, String)> {
    let expected = parties.client.expect(Some(60), None);
    let url = parties.client.authorization_url(&request(&expected)).await.unwrap();
    match parties.issuer.received_at(Endpoint::Push).pop() {
        Some(pushed) => pushed.form,
        None => url.query_pairs().into_owned().collect(),
    }
}

/// Header and claims of a request object.
fn parts(parameters: &[(String, String)]) -> (Value, Value) {
    let (_, request) = parameters.iter().find(|(name, _)| name == "request").expect("a request object");
    let mut parts = request.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let mut part = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (part(), part())
}

#[tokio::test]
async fn rfc9101_a_signed_request_logs_in_pushed_or_not() {
    for arguments in [RSA, P256, ED25519] {
        for takes_pushed_requests in [false, true] {
            let (parties, _folder) = signing(arguments, |_| {}).await;
            parties.issuer.behave(|behaviour| behaviour.takes_pushed_requests = takes_pushed_requests);
            parties.log_in().await.unwrap();
        }
    }
}

#[tokio::test]
async fn rfc9101_4_all_that_is_asked_for_is_signed_for_the_issuer_and_for_a_short_time() {
    let resource = ["https://api.test", "urn:test:other"];
    let (parties, _folder) =
        signing(P256, |oidc| oidc.authorization.resource = resource.map(str::to_owned).to_vec()).await;
    let parameters = asked(&parties).await;
    let names: Vec<_> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["client_id", "response_type", "scope", "request"], "Core §6.1 wants these beside it");
    let (header, claims) = parts(&parameters);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("oauth-authz-req+jwt"), &json!("ES256")));
    for (name, value) in [
        ("iss", json!(CLIENT_ID)),
        ("client_id", json!(CLIENT_ID)),
        ("aud", json!(parties.issuer.url())),
        ("response_type", json!("code")),
        ("redirect_uri", json!(REDIRECT_URI)),
        ("state", json!("state-1")),
        ("code_challenge_method", json!("S256")),
        ("audience", json!("https://api.test")),
        ("max_age", json!(60)),
        ("resource", json!(resource)),
    ] {
        assert_eq!(claims[name], value, "{name}");
    }
    let now = parties.clock.now().as_secs();
    assert_eq!(
        (&claims["iat"], &claims["nbf"], &claims["exp"]),
        (&json!(now), &json!(now), &json!(now + 300))
    );
    let (_, other) = parts(&asked(&parties).await);
    assert_ne!(claims["jti"], other["jti"], "each is another");
}

#[tokio::test]
async fn rfc9126_3_a_pushed_request_object_stands_alone() {
    let (parties, _folder) = signing(P256, |_| {}).await;
    parties.issuer.behave(|behaviour| behaviour.takes_pushed_requests = true);
    let names: Vec<_> = asked(&parties).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["request"], "the client proves itself in a header");
    let secret = ClientAuth::ClientSecretPost(Secret::new(CLIENT_SECRET));
    let (parties, _folder) = signing(P256, |oidc| oidc.client_auth = secret).await;
    parties.issuer.behave(|behaviour| behaviour.takes_pushed_requests = true);
    let names: Vec<_> = asked(&parties).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["request", "client_id", "client_secret"], "and that is all there is besides");
}

#[tokio::test]
async fn rfc9101_no_parameter_takes_the_place_of_a_claim() {
    let (parties, _folder) = signing(P256, |oidc| {
        let parameters = [("aud", "https://evil.test"), ("iss", "another"), ("exp", "9999999999")];
        oidc.authorization_parameters =
            parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    })
    .await;
    let (_, claims) = parts(&asked(&parties).await);
    assert_eq!((&claims["aud"], &claims["iss"]), (&json!(parties.issuer.url()), &json!(CLIENT_ID)));
    assert!(claims["exp"].is_u64());
}

#[tokio::test]
async fn the_key_that_signs_requests_is_replaced_while_it_is_used_and_a_wrong_one_is_not_taken() {
    let (parties, folder) = signing(P256, |_| {}).await;
    let (path, next) = (folder.path().join("key"), private_key(RSA));
    let reload = || parties.client.reloads().for_each(|reload| reload.run());
    let algorithm = async || parts(&asked(&parties).await).0["alg"].clone();
    for wrong in ["nothing", &next[..next.len() / 2], ""] {
        fs::write(&path, wrong).unwrap();
        reload();
        assert_eq!(algorithm().await, "ES256", "{wrong}");
    }
    fs::write(&path, &next).unwrap();
    assert_eq!(algorithm().await, "ES256", "not yet");
    reload();
    assert_eq!(algorithm().await, "RS256");
    parties.issuer.behave(|behaviour| behaviour.request_key = Some(public_jwk(&next)));
    parties.log_in().await.unwrap();
}

#[tokio::test]
async fn check_offer_finds_an_issuer_that_takes_no_request_objects() {
    let (parties, _folder) = signing(P256, |_| {}).await;
    parties.client.check_offer().await.unwrap();
    let (parties, _folder) = signing(P256, |_| {}).await;
    parties.issuer.behave(|behaviour| {
        behaviour.metadata.insert("request_parameter_supported".to_owned(), Value::Null);
    });
    assert!(parties.client.check_offer().await.is_err());
}
