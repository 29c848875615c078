//! Whatever passes between the browser, the gateway and the issuer that opens something.

use std::collections::HashSet;

use http::header::AUTHORIZATION;
use url::Url;

use super::gateway::SESSION_KEY;
use super::issuer::{CLIENT_SECRET, Issuer};
use super::upstream::Upstream;

/// Parameters whose values nobody else may learn.
const NAMES: [&str; 8] =
    ["client_secret", "code", "code_verifier", "id_token_hint", "nonce", "refresh_token", "state", "token"];

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
