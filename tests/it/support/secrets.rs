//! Whatever passes between the browser, the gateway and the issuer that opens something.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloakroom::config::SessionKey;
use cloakroom::seal::{Context, KeyRing, Purpose};
use http::header::AUTHORIZATION;
use serde_json::Value;
use url::Url;

use super::browser::Browser;
use super::gateway::{ORIGIN, SESSION_KEY};
use super::issuer::{CLIENT_SECRET, Issuer};
use super::upstream::Upstream;

/// Parameters whose values nobody else may learn.
const NAMES: [&str; 9] = [
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "id_token_hint",
    "nonce",
    "refresh_token",
    "state",
    "token",
];

/// The secrets that came to the issuer and to the upstream, and those in the addresses that a browser has
/// visited.
pub fn that_passed(issuer: &Issuer, upstream: &Upstream, visited: &[Url]) -> HashSet<String> {
    let mut secrets = HashSet::from([CLIENT_SECRET, SESSION_KEY, "eyJhbGci"].map(str::to_owned));
    let is_secret = |name: &str| NAMES.contains(&name);
    for request in issuer.received() {
        let parameters = request.form.into_iter().chain(request.query);
        secrets.extend(parameters.filter(|(name, _)| is_secret(name)).map(|(_, value)| value));
        let credentials = request.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap());
        secrets.extend(credentials.map(|value| value.trim_start_matches("Basic ").to_owned()));
    }
    for url in visited {
        let parameters = url.query_pairs().into_owned();
        secrets.extend(parameters.filter(|(name, _)| is_secret(name)).map(|(_, value)| value));
    }
    secrets.extend(upstream.tokens());
    secrets.retain(|secret| secret.len() > 2);
    secrets
}

/// The keys that the tokens of a browser's logins under way will be bound to, as they lie sealed in its cookies.
pub fn keys_of_logins(browser: &Browser) -> Vec<String> {
    let logins = browser.cookie_names().into_iter().filter(|name| name.contains("-login-"));
    let keys = logins.map(|name| {
        let sealed = URL_SAFE_NO_PAD.decode(browser.cookie(&name).unwrap()).unwrap();
        let context = Context { purpose: Purpose::LoginCookie, name: &name, app: ORIGIN };
        let login: Value = serde_json::from_slice(&ring().open(&context, &sealed).unwrap()).unwrap();
        login["dpop_key"].as_str().expect("a key").to_owned()
    });
    keys.collect()
}

/// The key ring of the gateways under test.
pub fn ring() -> KeyRing {
    let key: [u8; 32] = STANDARD.decode(SESSION_KEY).unwrap().try_into().unwrap();
    KeyRing::new(&[SessionKey::new(key)])
}
