//! Authorization requests and responses in all their ways, as another implementation understands them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::support::signing_keys::{P256, private_key, public_jwk};

use super::*;

/// What has to be pushed, and may be signed.
fn features() -> Value {
    json!({
        "jwtResponseModes": {"enabled": true},
        "pushedAuthorizationRequests": {"enabled": true, "requirePushedAuthorizationRequests": true},
    })
}

#[tokio::test]
async fn pushed_requests_and_responses_of_each_mode_are_understood() {
    let issuer = issuer("client_secret_basic", json!({"features": features()})).await;
    let upstream = Upstream::start().await;
    for (number, mode) in ["query", "form_post", "jwt", "query.jwt", "form_post.jwt"].into_iter().enumerate()
    {
        let mut setup = setup(&issuer, &upstream, "client_secret_basic");
        setup.oidc += &format!("\npushed_authorization_requests: required\nresponse_mode: {mode}");
        let gateway = setup.start().await;
        let mut browser = Browser::new(gateway.address);
        log_in(&mut browser).await;
        assert_eq!(browser.fetch("/api/orders").await.status, 200, "{mode}");
        assert_eq!(issuer.state().await.pushed, number + 1, "{mode}");
    }
}

#[tokio::test]
async fn a_pushed_request_is_understood_from_a_client_of_each_kind() {
    for method in ["client_secret_post", "none"] {
        let issuer = issuer(method, json!({"features": features()})).await;
        let upstream = Upstream::start().await;
        let gateway = setup(&issuer, &upstream, method).start().await;
        log_in(&mut Browser::new(gateway.address)).await;
        assert_eq!(issuer.state().await.pushed, 1, "{method}");
    }
}

#[tokio::test]
async fn an_issuer_that_insists_on_pushed_requests_is_not_asked_in_another_way() {
    let issuer = issuer("client_secret_basic", json!({"features": features()})).await;
    let upstream = Upstream::start().await;
    let mut setup = setup(&issuer, &upstream, "client_secret_basic");
    setup.oidc += "\npushed_authorization_requests: off";
    let gateway = setup.start().await;
    let answer = Browser::new(gateway.address).visit("/bff/login").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
}

#[tokio::test]
async fn rfc8707_each_access_token_is_for_the_resource() {
    let resource = "https://api.shop.test/orders";
    let issuer = issuer("client_secret_basic", json!({"resources": [resource]})).await;
    let upstream = Upstream::start().await;
    let clock = clock();
    let mut setup = setup(&issuer, &upstream, "client_secret_basic").clock(clock.clone());
    setup.oidc += &format!("\nresource: [{resource}]");
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    log_in(&mut browser).await;
    clock.advance(Duration::from_secs(301));
    let answer = browser.fetch("/api/orders").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let state = issuer.state().await;
    let access_tokens = state.tokens.iter().filter(|token| token.kind == "access_token");
    let audiences: Vec<_> = access_tokens.map(|token| token.audience.as_deref()).collect();
    assert_eq!(audiences, [Some(resource), Some(resource)], "by the code and by the refresh");
}

#[tokio::test]
async fn core_5_5_a_claim_that_is_asked_for_alone_is_told() {
    let issuer = issuer("client_secret_basic", json!({})).await;
    let upstream = Upstream::start().await;
    let mut setup = setup(&issuer, &upstream, "client_secret_basic");
    setup.oidc = setup.oidc.replace("profile, ", "");
    setup.oidc += "\nclaims: {id_token: {preferred_username: , auth_time: {essential: true}}}";
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    log_in(&mut browser).await;
    let session = browser.fetch("/bff/session").await.json();
    assert_eq!(session["user"]["preferred_username"], "alice", "{session}");
    assert!(session["user"]["auth_time"].is_u64(), "{session}");
}

#[tokio::test]
async fn a_silent_login_finds_who_is_logged_in_there_and_nobody_else() {
    let issuer = issuer("client_secret_basic", json!({})).await;
    let upstream = Upstream::start().await;
    let gateway = setup(&issuer, &upstream, "client_secret_basic").start().await;
    let mut browser = Browser::new(gateway.address);
    let silent = "/bff/login?prompt=none&return_to=/shop";
    let landed = browser.navigate(silent).await;
    assert_eq!(landed.url.path(), "/shop", "{}", landed.text());
    assert_eq!(browser.session_cookie(), None);

    log_in(&mut browser).await;
    let first = browser.session_cookie().unwrap();
    let landed = browser.navigate(silent).await;
    assert_eq!(landed.url.path(), "/shop", "{}", landed.text());
    assert_ne!(browser.session_cookie().unwrap(), first);
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
}

#[tokio::test]
async fn rfc9101_signed_requests_are_understood_pushed_or_not() {
    let (pem, folder) = (private_key(P256), TempDir::new().unwrap());
    let path = folder.path().join("key");
    fs::write(&path, &pem).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut key = public_jwk(&pem);
    key["kid"] = json!("requests-1");
    let client = json!({
        "jwks": {"keys": [key]},
        "request_object_signing_alg": "ES256",
        "require_signed_request_object": true,
    });
    let options = json!({"features": {"requestObjects": {"enabled": true}}});
    let issuer = issuer_with("client_secret_basic", options, &client).await;
    let upstream = Upstream::start().await;
    for pushed in ["auto", "off"] {
        let mut setup = setup(&issuer, &upstream, "client_secret_basic");
        setup.oidc += &format!(
            "\npushed_authorization_requests: {pushed}\nrequest_object: {{key: {{file: {}}}, kid: requests-1}}\n\
             claims: {{id_token: {{auth_time: {{essential: true}}}}}}",
            path.display()
        );
        let gateway = setup.start().await;
        let mut browser = Browser::new(gateway.address);
        log_in(&mut browser).await;
        assert_eq!(browser.fetch("/api/orders").await.status, 200, "{pushed}");
    }
    assert_eq!(issuer.state().await.pushed, 1);
}
