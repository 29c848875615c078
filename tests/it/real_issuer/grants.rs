//! What a real provider says of tokens and users besides the code flow.

use super::*;

const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";

#[tokio::test]
async fn rfc7662_an_opaque_token_that_dies_at_the_issuer_is_noticed() {
    let issuer = issuer("client_secret_basic", json!({})).await;
    let (upstream, clock) = (Upstream::start().await, clock());
    let mut setup = setup(&issuer, &upstream, "client_secret_basic").clock(clock.clone());
    setup.oidc += "\nintrospection: {interval: 30s}";
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    log_in(&mut browser).await;
    for _ in 0..2 {
        assert_eq!(browser.fetch("/api/orders").await.status, 200);
        clock.advance(Duration::from_secs(31));
    }
    assert_eq!(issuer.state().await.introspections, [true]);
    issuer.kill_access_tokens().await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    let (state, tokens) = (issuer.state().await, upstream.tokens());
    assert_eq!((state.introspections.as_slice(), state.refreshes()), ([true, false].as_slice(), 1));
    assert_eq!(tokens[0], tokens[1]);
    assert_eq!(state.alive("access_token"), [&tokens[2]]);
}

/// The user types the code into another device, and sends it with these fields once more.
async fn confirm(issuer: &RealIssuer, shown: &Value, fields: &[(&str, &str)]) -> Answer {
    let mut phone = Browser::at("https://phone.test", ([127, 0, 0, 1], 9).into());
    let address = shown["verification_uri"].as_str().unwrap();
    assert!(address.starts_with(issuer.url()), "{shown}");
    let page = phone.navigate(address).await;
    let page = phone.fill_form(&page, &[("user_code", shown["user_code"].as_str().unwrap())]).await;
    let page = phone.fill_form(&page, fields).await;
    if fields.is_empty() { phone.fill_form(&page, &USER).await } else { page }
}

#[tokio::test]
async fn rfc8628_a_login_on_another_device_is_understood() {
    let grants = json!({"grant_types": ["authorization_code", "refresh_token", DEVICE]});
    let issuer = issuer_with("client_secret_basic", json!({}), &grants).await;
    let (upstream, clock) = (Upstream::start().await, clock());
    let mut setup = setup(&issuer, &upstream, "client_secret_basic").clock(clock.clone());
    setup.oidc += "\ndevice_authorization: true";
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    let post = async |browser: &mut Browser, path: &str| {
        let answer = browser.script(http::Method::POST, path, &[("x-csrf", "1")], "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        clock.advance(Duration::from_secs(5));
        answer.json()
    };

    let shown = post(&mut browser, "/bff/device").await;
    assert_eq!(post(&mut browser, "/bff/device/poll").await["status"], "pending");
    confirm(&issuer, &shown, &[("abort", "yes")]).await;
    assert_eq!(post(&mut browser, "/bff/device/poll").await["status"], "denied");

    let shown = post(&mut browser, "/bff/device").await;
    let page = confirm(&issuer, &shown, &[]).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(post(&mut browser, "/bff/device/poll").await["status"], "authenticated");
    assert_eq!(browser.fetch("/bff/session").await.json()["user"]["sub"], "alice");
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    clock.advance(Duration::from_secs(301));
    assert_eq!(browser.fetch("/api/orders").await.status, 200, "with a refresh token, like any session");
    assert_eq!(issuer.state().await.refreshes(), 1);
}

#[tokio::test]
async fn signed_userinfo_is_understood() {
    let signed = json!({"userinfo_signed_response_alg": "RS256"});
    let issuer = issuer_with("client_secret_basic", json!({}), &signed).await;
    let upstream = Upstream::start().await;
    let mut setup = setup(&issuer, &upstream, "client_secret_basic");
    setup.oidc += "\nuserinfo: true";
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    log_in(&mut browser).await;
    let user = browser.fetch("/bff/session").await.json()["user"].clone();
    assert_eq!((&user["sub"], &user["preferred_username"]), (&json!("alice"), &json!("alice")));
    assert_eq!((&user["iss"], &user["aud"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn an_encrypted_id_token_logs_nobody_in_and_the_log_says_why() {
    // The public key of RFC 7517 appendix A.1.
    let encrypted = json!({
        "id_token_encrypted_response_alg": "ECDH-ES",
        "id_token_encrypted_response_enc": "A256GCM",
        "jwks": {"keys": [{
            "kty": "EC", "crv": "P-256", "use": "enc", "kid": "1",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        }]},
    });
    let issuer = issuer_with("client_secret_basic", json!({}), &encrypted).await;
    let upstream = Upstream::start().await;
    let gateway = setup(&issuer, &upstream, "client_secret_basic").start_process().await;
    let mut browser = Browser::new(gateway.address);
    let page = browser.navigate("/bff/login?return_to=/").await;
    let answer = browser.fill_form(&page, &USER).await;
    assert_eq!((answer.status.as_u16(), browser.session_cookie()), (400, None), "{}", answer.text());
    until(async || gateway.has_logged("id_token_encrypted_response_alg")).await;
}
