//! The main job as a person does it: real Chromium, a real provider, clicks.

use serde_json::json;

use crate::support::chromium;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::{CLIENT_ID, CLIENT_SECRET};
use crate::support::port::Reserved;
use crate::support::real_issuer::RealIssuer;
use crate::support::terminator::Terminator;
use crate::support::upstream::Upstream;

const SPA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/spa");

/// An app with its issuer and its API, as the scenarios want it.
pub struct App {
    pub origin: String,
    pub issuer: RealIssuer,
    _upstream: Upstream,
    _gateway: Gateway,
    _terminator: Option<Terminator>,
    _port: Option<Reserved>,
}

#[tokio::test]
async fn login_call_refresh_and_logout_by_clicks() {
    App::on_http().await.runs("login_call_refresh_logout").await;
}

#[tokio::test]
async fn the_cookie_has_its_attributes_on_http() {
    App::on_http().await.runs("cookie_attributes").await;
}

#[tokio::test]
async fn the_cookie_has_its_attributes_on_https() {
    App::on_https().await.runs("cookie_attributes").await;
}

#[tokio::test]
async fn a_strict_cookie_does_not_loop_on_http() {
    App::on_http().await.runs("strict_does_not_loop").await;
}

#[tokio::test]
async fn a_strict_cookie_does_not_loop_on_https() {
    App::on_https().await.runs("strict_does_not_loop").await;
}

#[tokio::test]
async fn two_tabs_that_log_in_at_once_both_finish() {
    App::on_http().await.runs("two_tabs").await;
}

#[tokio::test]
async fn a_script_finds_no_token() {
    App::on_http().await.runs("no_token_in_script").await;
}

#[tokio::test]
async fn a_silent_login_asks_nobody_at_an_issuer_of_another_site() {
    App::on_http().await.runs("silent_login").await;
}

#[tokio::test]
async fn a_silent_login_asks_nobody_at_an_issuer_of_the_same_site() {
    App::beside_its_issuer().await.runs("silent_login").await;
}

#[tokio::test]
async fn r21_a_posted_response_logs_in_by_clicks_on_http() {
    let app = App::on_http_with(|setup| setup.oidc.push_str("\nresponse_mode: form_post")).await;
    app.runs("login_call_refresh_logout").await;
}

#[tokio::test]
async fn r21_a_posted_response_logs_in_by_clicks_on_https() {
    let app = App::on_https_with(|setup| setup.oidc.push_str("\nresponse_mode: form_post")).await;
    app.runs("login_call_refresh_logout").await;
}

impl App {
    /// Chromium talks to the gateway itself.
    pub async fn on_http() -> Self {
        Self::on_http_with(|_| {}).await
    }

    pub async fn on_http_with(change: impl FnOnce(&mut Setup)) -> Self {
        Self::on_host("localhost", change).await
    }

    /// Cookies take no notice of ports: to a browser this is the issuer's own site.
    pub async fn beside_its_issuer() -> Self {
        Self::on_host("127.0.0.1", |_| {}).await
    }

    async fn on_host(host: &str, change: impl FnOnce(&mut Setup)) -> Self {
        let port = Reserved::new();
        let origin = format!("http://{host}:{}", port.address().port());
        let listen = port.address().to_string();
        let adapt = |setup: &mut Setup| {
            setup.listen = listen;
            change(setup);
        };
        Self { _port: Some(port), ..Self::start(origin, adapt).await }
    }

    /// A TLS terminator stands in front of the gateway.
    async fn on_https() -> Self {
        Self::on_https_with(|_| {}).await
    }

    async fn on_https_with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut terminator = Terminator::start().await;
        let trusted = "trusted_proxies: [127.0.0.1/32]".to_owned();
        let adapt = |setup: &mut Setup| {
            setup.server = trusted;
            change(setup);
        };
        let app = Self::start(terminator.origin().to_owned(), adapt).await;
        terminator.forward_to(app._gateway.address).await;
        Self { _terminator: Some(terminator), ..app }
    }

    async fn start(origin: String, adapt: impl FnOnce(&mut Setup)) -> Self {
        let issuer = RealIssuer::start(&json!({
            "access_token_ttl": 5,
            "clients": [{
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "redirect_uris": [format!("{origin}/bff/callback")],
                "post_logout_redirect_uris": [format!("{origin}/bff/logout/callback")],
            }],
        }))
        .await;
        let upstream = Upstream::start().await;
        let mut setup = Setup::new(issuer.url())
            .for_users("/api", &upstream.url())
            .route(&format!("path: /private, upstream: \"{}\", auth: required, csrf: off", upstream.url()))
            .route(&format!("path: /, files: \"{SPA}\""));
        setup.oidc.push_str("\nauthorization_parameters: {prompt: consent}");
        setup.origin.clone_from(&origin);
        adapt(&mut setup);
        let gateway = setup.start().await;
        Self { origin, issuer, _upstream: upstream, _gateway: gateway, _terminator: None, _port: None }
    }

    async fn runs(&self, scenario: &str) {
        chromium::run(scenario, &json!({"gateway": self.origin, "admin": self.issuer.admin()})).await;
    }
}
