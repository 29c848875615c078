//! The main job against a provider that is not ours (npm oidc-provider) and a real Redis.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, ManualClock, SystemClock};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::browser::{Answer, Browser};
use crate::support::dpop::proof;
use crate::support::gateway::{ORIGIN, SESSION_COOKIE, Setup};
use crate::support::issuer::{CLIENT_ID, CLIENT_SECRET};
use crate::support::port::Reserved;
use crate::support::real_issuer::RealIssuer;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::until;

mod authorization;
mod client_auth;
mod grants;
mod route_tokens;

const USER: [(&str, &str); 2] = [("login", "alice"), ("password", "wonderland")];

#[tokio::test]
async fn a_session_outlives_its_tokens_and_nothing_outlives_its_logout() {
    let issuer = issuer("client_secret_basic", json!({"access_token_ttl": 3})).await;
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let gateway = setup(&issuer, &upstream, "client_secret_basic").redis(&redis.url()).start_process().await;
    let mut browser = Browser::new(gateway.address);

    assert_eq!(browser.fetch("/api/orders").await.problem(), "unauthenticated");
    log_in(&mut browser).await;
    let session = browser.fetch("/bff/session").await.json();
    assert_eq!((&session["authenticated"], &session["user"]["sub"]), (&json!(true), &json!("alice")));
    let cookie = browser.session_cookie().unwrap();

    until(async || {
        let answer = browser.fetch("/api/orders").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = upstream.tokens();
        tokens.first() != tokens.last()
    })
    .await;
    assert_eq!(browser.session_cookie().unwrap(), cookie, "the cookie does not change at a refresh");

    log_out(&mut browser).await;
    assert_eq!(browser.session_cookie(), None);
    let state = issuer.state().await;
    assert_eq!(state.alive("refresh_token"), [""; 0]);
    assert_eq!(state.alive("access_token"), [""; 0]);
    assert_eq!(state.end_sessions, 1);
    let hints = state.revocations.iter().map(|asked| (asked.token_type_hint.as_deref(), asked.status));
    let expected = [(Some("refresh_token"), 200), (Some("access_token"), 200)];
    assert_eq!(hints.collect::<Vec<_>>(), expected, "the refresh token first");
    let keys = redis.command::<Vec<String>>(&["KEYS", "*"]).await;
    let but_spent_logins = keys.iter().filter(|key| !key.starts_with("cloakroom:once:"));
    assert_eq!(but_spent_logins.count(), 0, "what is left in the store: {keys:?}");

    let asked = upstream.arrived().len();
    browser.plant(SESSION_COOKIE, &cookie);
    let answer = browser.fetch("/api/orders").await;
    assert_eq!((answer.problem(), answer.clears(SESSION_COOKIE)), ("unauthenticated".to_owned(), true));
    assert_eq!(upstream.arrived().len(), asked);
}

#[tokio::test]
async fn r54_a_logout_at_the_issuer_ends_the_session_by_the_back_channel() {
    let (port, upstream) = (Reserved::new(), Upstream::start().await);
    let back_channel = json!({
        "backchannel_logout_uri": format!("{ORIGIN}/bff/backchannel-logout"),
        "backchannel_logout_session_required": true,
    });
    let options = json!({"gateway_port": port.address().port()});
    let issuer = issuer_with("client_secret_basic", options, &back_channel).await;
    let mut setup = setup(&issuer, &upstream, "client_secret_basic");
    setup.listen = port.address().to_string();
    let gateway = setup.start().await;
    let (mut browser, mut elsewhere) = (Browser::new(gateway.address), Browser::new(gateway.address));
    log_in(&mut browser).await;
    log_in(&mut elsewhere).await;

    // The user logs out there, and the app is not asked.
    let page = browser.navigate(&format!("{}/session/end", issuer.url())).await;
    browser.fill_form(&page, &[("logout", "yes")]).await;
    assert_eq!(issuer.state().await.backchannel, ["done"]);
    assert_eq!(browser.fetch("/api/orders").await.problem(), "unauthenticated");
    assert_eq!(elsewhere.fetch("/api/orders").await.status, 200, "another login of the same user");
    until(async || issuer.state().await.revocations.len() == 2).await;
    assert_eq!(issuer.state().await.alive("refresh_token").len(), 1);
}

#[tokio::test]
async fn client_secret_basic_is_understood() {
    is_understood("client_secret_basic").await;
}

#[tokio::test]
async fn client_secret_post_is_understood() {
    is_understood("client_secret_post").await;
}

#[tokio::test]
async fn a_public_client_is_understood() {
    is_understood("none").await;
}

/// A login, a refresh and a logout: each asks an endpoint that authenticates the client.
async fn is_understood(method: &str) {
    let issuer = issuer(method, json!({})).await;
    let upstream = Upstream::start().await;
    let clock = clock();
    let gateway = setup(&issuer, &upstream, method).clock(clock.clone()).start().await;
    let mut browser = Browser::new(gateway.address);

    log_in(&mut browser).await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    clock.advance(Duration::from_secs(301));
    let answer = browser.fetch("/api/orders").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let state = issuer.state().await;
    assert_eq!(state.token_requests.iter().map(|asked| asked.status).collect::<Vec<_>>(), [200, 200]);
    assert_eq!((state.refreshes(), state.alive("refresh_token").len()), (1, 1));
    // By the issuer's clock the first lives, too.
    assert_eq!(state.alive("access_token").len(), 2);

    log_out(&mut browser).await;
    let state = issuer.state().await;
    assert_eq!(state.revocations.iter().map(|asked| asked.status).collect::<Vec<_>>(), [200, 200]);
    assert_eq!(state.alive("refresh_token"), [""; 0]);
    assert_eq!(state.alive("access_token"), [""; 0]);
}

#[tokio::test]
async fn rfc9449_a_confidential_client_proves_possession_and_answers_to_nonces() {
    proves_possession("client_secret_basic").await;
}

#[tokio::test]
async fn rfc9449_a_public_client_whose_refresh_tokens_are_bound_proves_possession() {
    proves_possession("none").await;
}

/// A login, refreshes and a logout at an issuer that wants its nonce in each proof.
async fn proves_possession(method: &str) {
    let options = json!({"access_token_ttl": 3, "dpop_nonces": true});
    let metadata = json!({"dpop_bound_access_tokens": true});
    let issuer = issuer_with(method, options, &metadata).await;
    let upstream = Upstream::start().await;
    let mut setup = setup(&issuer, &upstream, method);
    setup.oidc += "\ndpop_bound_access_tokens: true\nuserinfo: true";
    setup.routes = setup.routes.replacen("path: /api,", "path: /api, dpop: true,", 1);
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    log_in(&mut browser).await;
    let session = browser.fetch("/bff/session").await.json();
    assert_eq!(session["user"]["sub"], "alice", "by the word of userinfo, too");

    let (mut tokens, mut keys) = (HashSet::new(), HashSet::new());
    until(async || {
        let answer = browser.fetch("/api/orders").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let arrived = upstream.last();
        let token = arrived.headers["authorization"].to_str().unwrap().strip_prefix("DPoP ").unwrap();
        let uri = format!("{}/api/orders", upstream.url());
        let proof = proof(&arrived.headers, "GET", &uri, Some(token), SystemClock.now().as_secs());
        keys.insert(proof.unwrap().unwrap().thumbprint);
        tokens.insert(token.to_owned());
        tokens.len() == 3
    })
    .await;
    assert_eq!(keys.len(), 1, "one key for the session's life");
    let state = issuer.state().await;
    let statuses: Vec<_> = state.token_requests.iter().map(|asked| asked.status).collect();
    assert_eq!(statuses, [400, 200, 200, 200], "the nonce was asked for once");

    log_out(&mut browser).await;
    let state = issuer.state().await;
    assert_eq!(state.revocations.iter().map(|asked| asked.status).collect::<Vec<_>>(), [200, 200]);
    assert_eq!(state.alive("refresh_token"), [""; 0]);
    assert_eq!(state.alive("access_token"), [""; 0]);
}

/// A second use of a rotated refresh token would end the grant, and the next call with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_requests_at_expiry_over_two_gateways_refresh_once() {
    // Longer than the lease lives unless it is renewed.
    let issuer = issuer("client_secret_basic", json!({"refresh_delay": 3500})).await;
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let clock = clock();
    let setup = setup(&issuer, &upstream, "client_secret_basic").redis(&redis.url()).clock(clock.clone());
    let gateways = [setup.start().await, setup.start().await];
    let mut browser = Browser::new(gateways[0].address);
    log_in(&mut browser).await;

    clock.advance(Duration::from_secs(301));
    let calls = (0..50).map(|number| {
        let mut window = browser.window();
        window.switch_to(gateways[number % 2].address);
        async move { window.fetch("/api/orders").await }
    });
    for answer in join_all(calls).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let state = issuer.state().await;
    assert_eq!(state.refreshes(), 1);
    let alive = state.alive("access_token").last().map(|token| (*token).to_owned());
    let tokens = upstream.tokens();
    assert_eq!(tokens.len(), 50);
    assert!(tokens.iter().all(|token| Some(token) == alive.as_ref()), "all went with the new token");

    clock.advance(Duration::from_secs(301));
    assert_eq!(browser.fetch("/api/orders").await.status, 200, "the grant has survived");
    assert_eq!(issuer.state().await.refreshes(), 2);
}

#[tokio::test]
async fn a_wrong_password_at_the_issuer_starts_no_session() {
    let issuer = issuer("client_secret_basic", json!({})).await;
    let upstream = Upstream::start().await;
    let gateway = setup(&issuer, &upstream, "client_secret_basic").start().await;
    let mut browser = Browser::new(gateway.address);
    let page = browser.navigate("/bff/login?return_to=/").await;
    let page = browser.fill_form(&page, &[("login", "alice"), ("password", "guess")]).await;
    assert_eq!(page.status, 401);
    assert_eq!(browser.session_cookie(), None);
    assert_eq!(browser.fetch("/bff/session").await.json(), json!({"authenticated": false}));
    // The login that is under way can still be finished.
    browser.fill_form(&page, &USER).await;
    assert!(browser.session_cookie().is_some());
}

async fn issuer(method: &str, options: Value) -> RealIssuer {
    issuer_with(method, options, &json!({})).await
}

/// With these in the client's metadata.
async fn issuer_with(method: &str, mut options: Value, metadata: &Value) -> RealIssuer {
    let mut client = json!({
        "client_id": CLIENT_ID,
        "token_endpoint_auth_method": method,
        "redirect_uris": [format!("{ORIGIN}/bff/callback")],
        "post_logout_redirect_uris": [format!("{ORIGIN}/bff/logout/callback")],
    });
    if method.starts_with("client_secret_") {
        client["client_secret"] = json!(CLIENT_SECRET);
    }
    client.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    options["clients"] = json!([client]);
    RealIssuer::start(&options).await
}

fn setup(issuer: &RealIssuer, upstream: &Upstream, method: &str) -> Setup {
    let authentication = match method {
        "none" => "none".to_owned(),
        written if written.starts_with('{') => written.to_owned(),
        secret => format!("{{{secret}: {{env: CLIENT_SECRET}}}}"),
    };
    let mut setup =
        Setup::new(issuer.url()).for_users("/api", &upstream.url()).for_anybody("/", &upstream.url());
    // OpenID Connect Core §11: offline_access is granted only with consent.
    setup.oidc = format!(
        "client_auth: {authentication}\nscopes: [openid, profile, offline_access]\n\
         authorization_parameters: {{prompt: consent}}"
    );
    setup
}

/// The gateway's time, which starts at the issuer's: that one's cannot be moved.
fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::starting_at(SystemClock.now()))
}

async fn log_in(browser: &mut Browser) {
    let page = browser.navigate("/bff/login?return_to=/").await;
    let landed = browser.fill_form(&page, &USER).await;
    assert_eq!(landed.url.as_str(), format!("{ORIGIN}/"), "{} {}", landed.status, landed.text());
    assert!(browser.session_cookie().is_some(), "a session cookie is set");
}

async fn log_out(browser: &mut Browser) -> Answer {
    let page = browser.navigate("/bff/logout").await;
    let page = browser.fill_form(&page, &[]).await;
    let landed = browser.fill_form(&page, &[("logout", "yes")]).await;
    assert_eq!(landed.url.as_str(), format!("{ORIGIN}/"), "{} {}", landed.status, landed.text());
    landed
}
