//! Tokens that are bound to a key, and the proofs that go with them (DPoP, RFC 9449).

use std::time::Duration;

use crate::support::browser::{Answer, Browser};
use crate::support::dpop::{Proof, proof};
use crate::support::gateway::Setup;
use crate::support::issuer::{Dpop, Endpoint, Issuer, Received};
use crate::support::shop::Shop;
use crate::support::upstream::{Arrived, Upstream};

mod route_tokens;
mod tokens;
mod upstreams;

/// A shop whose tokens are bound to keys, at an issuer that insists on it, and whose API gets proofs.
async fn shop() -> Shop {
    shop_before(Upstream::start().await, |_, _| {}).await
}

/// The same before this upstream, after the issuer and the setup were changed.
async fn shop_before(upstream: Upstream, change: impl FnOnce(&Issuer, &mut Setup)) -> Shop {
    let clock = crate::support::clock::clock();
    let issuer = Issuer::start_with(clock.clone()).await;
    issuer.behave(|behaviour| behaviour.dpop.required = true);
    Shop::open_among(clock, issuer, upstream, |issuer, setup| {
        bind(setup);
        change(issuer, setup);
    })
    .await
}

/// Has tokens bound to keys, and proofs sent to `/api`.
fn bind(setup: &mut Setup) {
    setup.oidc += "\ndpop_bound_access_tokens: true";
    setup.routes = setup.routes.replacen("path: /api,", "path: /api, dpop: true,", 1);
}

/// Has the issuer deal with proofs in another way.
fn change(issuer: &Issuer, change: impl FnOnce(&mut Dpop)) {
    issuer.behave(|behaviour| change(&mut behaviour.dpop));
}

/// The proof of a token request, which is good but for its nonce.
fn proof_of(shop: &Shop, request: &Received) -> Proof {
    let uri = format!("{}/token", shop.issuer.url());
    proof(&request.headers, "POST", &uri, None, shop.clock_now()).unwrap().expect("a proof")
}

/// The proofs of all token requests, which are of this very second.
fn proofs(shop: &Shop) -> Vec<Proof> {
    shop.issuer.received_at(Endpoint::Token).iter().map(|request| proof_of(shop, request)).collect()
}

/// The thumbprint of the key of the one login so far.
fn key(shop: &Shop) -> String {
    let [proof] = proofs(shop).try_into().expect("one login");
    proof.thumbprint
}

/// The proof that came with a request to the upstream, good for its token, and the token.
fn proved(shop: &Shop, arrived: &Arrived, uri: &str) -> (Proof, String) {
    let token = token(arrived).expect("a token that is bound to a key");
    let method = arrived.method.as_str();
    let proof = proof(&arrived.headers, method, uri, Some(&token), shop.clock_now());
    (proof.unwrap().expect("a proof"), token)
}

/// The token that came to the upstream as one that is bound to a key.
fn token(arrived: &Arrived) -> Option<String> {
    arrived.headers.get("authorization")?.to_str().ok()?.strip_prefix("DPoP ").map(str::to_owned)
}

async fn call(browser: &mut Browser) -> Answer {
    browser.fetch("/api/orders").await
}

fn advance(shop: &Shop, seconds: u64) {
    shop.clock.advance(Duration::from_secs(seconds));
}
