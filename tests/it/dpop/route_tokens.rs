//! Tokens of other kinds than the session's access token: bound to keys as that one is.

use super::*;
use crate::support::issuer::TOKEN_EXCHANGE;

/// A shop with a route for each kind, all of which get proofs.
async fn shop_of_kinds() -> Shop {
    shop_before(Upstream::start().await, |_, setup| {
        let url = setup.upstream();
        for (path, keys) in [
            ("/own", "auth: none, token: client_credentials"),
            ("/exchanged", "token: {exchange: {audience: orders}}"),
            ("/resource", "token: {access_token: {resource: \"https://orders.test\"}}"),
        ] {
            setup.add_route(&format!("path: {path}, upstream: \"{url}\", dpop: true, {keys}"));
        }
    })
    .await
}

/// Calls this route, and gives the key that was proved there: the one that the token was had with, by this grant.
async fn key_at(shop: &Shop, browser: &mut Browser, path: &str, grant: &str) -> String {
    let answer = browser.fetch(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let (proof, _) = proved(shop, &shop.upstream.last(), &format!("{}{path}", shop.upstream.url()));
    let request = shop.issuer.received_at(Endpoint::Token).pop().unwrap();
    assert_eq!(request.field("grant_type"), Some(grant));
    assert_eq!(proof_of(shop, &request).thumbprint, proof.thumbprint, "{path}");
    proof.thumbprint
}

#[tokio::test]
async fn rfc9449_what_is_had_with_the_sessions_tokens_is_bound_to_the_sessions_key() {
    let shop = shop_of_kinds().await;
    let mut browser = shop.user().await;
    let session = key(&shop);
    for _ in 0..2 {
        for (path, grant) in [("/exchanged", TOKEN_EXCHANGE), ("/resource", "refresh_token")] {
            assert_eq!(key_at(&shop, &mut browser, path, grant).await, session, "{path}");
        }
        advance(&shop, 301);
    }
}

#[tokio::test]
async fn rfc9449_the_clients_own_token_is_bound_to_one_key_whoever_uses_it() {
    let shop = shop_of_kinds().await;
    let (mut alice, mut stranger) = (shop.user().await, shop.browser());
    let session = key(&shop);
    let own = key_at(&shop, &mut stranger, "/own", "client_credentials").await;
    assert_ne!(own, session);
    assert_eq!(key_at(&shop, &mut alice, "/own", "client_credentials").await, own);
    advance(&shop, 301);
    assert_eq!(key_at(&shop, &mut stranger, "/own", "client_credentials").await, own);
    assert_eq!(shop.issuer.token_requests("client_credentials"), 2);
}
