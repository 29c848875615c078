//! `oidcc-client-config-certification-test-plan`: what the client takes from the issuer's metadata.

use serde_json::json;

use super::{Suite, modules};
use crate::support::issuer::{Endpoint, Issuer};
use crate::support::shop::arrive;
use crate::support::wait::in_time;

#[tokio::test]
async fn oidcc_client_test_discovery_openid_config() {
    let suite = Suite::open().await;
    suite.accepts().await;
    assert_eq!(suite.issuer().received()[0].endpoint, Endpoint::Discovery, "before anything else");
}

#[tokio::test]
async fn oidcc_client_test_discovery_jwks_uri_keys() {
    let suite = Suite::open().await;
    let address = format!("{}jwks?CXzeKhTPlw", suite.issuer().url());
    suite.issuer().behave(|behaviour| {
        behaviour.metadata.insert("jwks_uri".to_owned(), json!(address));
    });
    suite.accepts().await;
    let asked = suite.issuer().received();
    let place = |endpoint| asked.iter().position(|request| request.endpoint == endpoint).unwrap();
    assert!(place(Endpoint::Discovery) < place(Endpoint::Jwks));
    assert!(place(Endpoint::Jwks) < place(Endpoint::Userinfo));
    assert_eq!(asked[place(Endpoint::Jwks)].query[0].0, "CXzeKhTPlw", "the address of the metadata");
}

#[tokio::test]
async fn oidcc_client_test_discovery_issuer_mismatch() {
    let suite = Suite::open().await;
    let other = format!("{}INVALID", suite.issuer().url());
    suite.issuer().behave(|behaviour| {
        behaviour.metadata.insert("issuer".to_owned(), json!(other));
    });
    let page = in_time(suite.shop.browser().navigate("/bff/login")).await;
    assert_eq!(page.status, 503, "{}", page.text());
    assert!(asked_for_nothing_but_metadata(suite.issuer()));
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_none() {
    modules::idtoken_sig_none(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_signing_key_rotation_just_before_signing() {
    let suite = Suite::open().await;
    suite.accepts().await;
    let mut browser = suite.shop.browser();
    let callback = suite.shop.begin(&mut browser, "return_to=/shop").await;
    suite.issuer().rotate_keys();
    assert_eq!(arrive(&mut browser, &callback).await.status, 200);
    suite.is_used(&mut browser).await;
    assert_eq!(suite.issuer().received_at(Endpoint::Jwks).len(), 2);
}

#[tokio::test]
async fn oidcc_client_test_signing_key_rotation() {
    let suite = Suite::open().await;
    suite.accepts().await;
    suite.issuer().rotate_keys();
    suite.accepts().await;
    assert_eq!(suite.issuer().received_at(Endpoint::Jwks).len(), 2, "the keys are fetched again");
}

fn asked_for_nothing_but_metadata(issuer: &Issuer) -> bool {
    issuer.received().iter().all(|request| request.endpoint == Endpoint::Discovery)
}
