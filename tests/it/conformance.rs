//! The modules of the OpenID Foundation's relying-party plans, each as a test of its name against the whole gateway.
//! docs/conformance.md lists them.
//!
//! The issuer here does as the suite's does: its name has a path and ends in a slash, its keys have no `alg`, stand among others of many
//! kinds, and some that the gateway does not know.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};
use url::Url;

use crate::support::browser::{Answer, Browser, post_form};
use crate::support::clock::clock;
use crate::support::gateway::Setup;
use crate::support::issuer::{Draft, Endpoint, Issuer};
use crate::support::shop::{Shop, ends_the_login, location, parameter};
use crate::support::upstream::Upstream;
use crate::support::wait::in_time;

mod back_channel_logout;
mod basic;
mod comprehensive;
mod config;
mod fapi2;
mod form_post;
mod front_channel_logout;
mod modules;
mod refresh_token;
mod rp_initiated_logout;
mod third_party_login;

/// The suite's issuer is at such a path.
const PATH: &str = "/test/a/cloakroom/";

/// What the plans want of a client's configuration: userinfo is asked at each login.
const OIDC: &str = "scopes: [openid, profile, email, offline_access]\nuserinfo: true";

/// One run of a module: the suite's issuer, and the gateway with its app as the client under test.
struct Suite {
    shop: Shop,
}

impl Suite {
    async fn open() -> Self {
        Self::open_with("").await
    }

    /// The same, with more keys of `oidc`.
    async fn open_with(oidc: &str) -> Self {
        let clock = clock();
        let issuer = Issuer::start_at(clock.clone(), PATH).await;
        issuer.behave(|behaviour| behaviour.publish = Some(Box::new(among_others)));
        let change = |_: &Issuer, setup: &mut Setup| setup.oidc = format!("{OIDC}\n{oidc}");
        Self { shop: Shop::open_among(clock, issuer, Upstream::start().await, change).await }
    }

    fn issuer(&self) -> &Issuer {
        &self.shop.issuer
    }

    /// Each ID token is changed before it is signed.
    fn tamper(self, change: impl Fn(&mut Draft) + Send + 'static) -> Self {
        self.issuer().tamper(change);
        self
    }

    /// The login succeeds: userinfo is asked with the access token, and a call to the API carries it.
    async fn accepts(&self) -> Browser {
        let mut browser = self.shop.browser();
        in_time(browser.log_in("/shop")).await;
        self.is_used(&mut browser).await;
        browser
    }

    /// The session of a login that succeeded.
    async fn is_used(&self, browser: &mut Browser) {
        assert_eq!(in_time(browser.fetch("/api/orders")).await.status, 200);
        let token = self.shop.upstream.tokens().pop().expect("the call carries a token");
        assert!(self.issuer().is_alive(&token));
        let asked = self.issuer().received_at(Endpoint::Userinfo).pop().expect("userinfo is asked");
        assert_eq!(asked.headers[AUTHORIZATION], format!("Bearer {token}"));
        assert!(
            asked.query.is_empty() && asked.form.is_empty(),
            "the token is in the header alone (RFC 6750 §2)"
        );
    }

    /// The login fails, and the user is told: no session, no userinfo asked, and no token sent anywhere.
    async fn refuses(&self) {
        self.refuses_after_userinfo().await;
        assert_eq!(self.issuer().received_at(Endpoint::Userinfo).len(), 0, "the client stopped before");
    }

    /// The same, but that userinfo itself is what is refused.
    async fn refuses_after_userinfo(&self) {
        let mut browser = self.shop.browser();
        let page = in_time(browser.navigate("/bff/login?return_to=/shop")).await;
        ends_the_login(&browser, &page, 400);
        assert_eq!(self.issuer().token_requests("authorization_code"), 1);
        assert_eq!(browser.fetch("/api/orders").await.status, 401);
        assert_eq!(self.shop.upstream.arrived().len(), 0);
    }

    /// The user logs out by the app's button. Gives what the browser carries to the issuer's `end_session_endpoint`.
    async fn log_out(&self, browser: &mut Browser) -> Url {
        let answer = in_time(browser.submit("/bff/logout")).await;
        assert_eq!((answer.status.as_u16(), browser.session_cookie()), (303, None), "{}", answer.text());
        let request = location(&answer);
        assert!(request.as_str().starts_with(&format!("{}end-session?", self.issuer().url())), "{request}");
        let hint = parameter(&request, "id_token_hint").expect("a hint");
        assert_eq!(claims(&hint)["iss"], self.issuer().url(), "an ID token of this issuer");
        let back = parameter(&request, "post_logout_redirect_uri");
        assert_eq!(back.as_deref(), Some("https://shop.test/bff/logout/callback"));
        assert!(parameter(&request, "state").is_some_and(|state| !state.is_empty()));
        request
    }

    /// The issuer sends the browser back after a logout, with this `state`: whatever it is, the user is in the app again.
    async fn is_back(&self, browser: &mut Browser, state: Option<&str>) {
        let mut back = Url::parse("https://shop.test/bff/logout/callback").unwrap();
        back.query_pairs_mut().extend_pairs(state.map(|state| ("state", state)));
        let page = in_time(browser.navigate(back.as_str())).await;
        assert_eq!((page.status.as_u16(), page.url.path()), (200, "/"), "{}", page.text());
        assert_eq!(browser.fetch("/bff/session").await.json(), json!({"authenticated": false}));
    }

    /// The issuer's server posts a logout token to the gateway.
    async fn tell(&self, sid: &str, change: impl FnOnce(&mut Draft)) -> Answer {
        let token = self.issuer().logout_token(|draft| {
            draft.claims["sid"] = json!(sid);
            draft.claims["ignored_claim"] = json!("What is not known is to be ignored.");
            change(draft);
        });
        let form = format!("logout_token={token}");
        in_time(post_form(self.shop.gateway.address, "/bff/backchannel-logout", &form)).await
    }

    /// The issuer's page has the gateway's in a frame.
    async fn frame(&self, sid: &str) -> Answer {
        let mut url = Url::parse("https://shop.test/bff/frontchannel-logout").unwrap();
        url.query_pairs_mut().append_pair("iss", &self.issuer().url()).append_pair("sid", sid);
        let fields = [
            ("accept", "text/html"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "iframe"),
        ];
        self.shop.bare(http::Method::GET, &url[url::Position::BeforePath..], &fields).await
    }
}

/// Puts the issuer's keys, without `alg`, among others such as the suite publishes.
fn among_others(keys: &mut Vec<Value>) {
    for key in keys.iter_mut() {
        without(key, "alg");
    }
    let n = URL_SAFE_NO_PAD.encode([0xC3; 256]);
    let coordinate = URL_SAFE_NO_PAD.encode([0x42; 32]);
    keys.insert(0, json!({"kty": "RSA", "use": "sig", "kid": "other-rsa", "e": "AQAB", "n": n}));
    keys.extend([
        json!({"kty": "EC", "crv": "secp256k1", "use": "sig", "kid": "k", "x": coordinate, "y": coordinate}),
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": "ed", "x": coordinate}),
        json!({"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "enc", "e": "AQAB", "n": n}),
        json!({"kty": "EC", "crv": "P-256", "use": "enc", "alg": "ECDH-ES", "x": coordinate, "y": coordinate}),
    ]);
}

/// What a JWT says, unchecked.
fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).expect("a JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

/// Takes a member out.
fn without(object: &mut Value, name: &str) {
    object.as_object_mut().unwrap().remove(name);
}

/// Makes a text another one.
fn append(text: &mut Value, suffix: &str) {
    *text = json!(format!("{}{suffix}", text.as_str().unwrap()));
}
