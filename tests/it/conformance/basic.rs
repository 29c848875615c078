//! `oidcc-client-basic-certification-test-plan`, with `response_type=code` and `client_secret_basic`.

use super::{Suite, modules};
use crate::support::issuer::Algorithm;

#[tokio::test]
async fn oidcc_client_test() {
    modules::code_flow(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_iss() {
    modules::invalid_iss(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_missing_sub() {
    modules::missing_sub(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_aud() {
    modules::invalid_aud(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_missing_iat() {
    modules::missing_iat(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_kid_absent_single_jwks() {
    modules::kid_absent_single_jwks(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_kid_absent_multiple_jwks() {
    modules::kid_absent_multiple_jwks(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_rs256() {
    modules::idtoken_sig_rs256(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_none() {
    modules::idtoken_sig_none(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_sig_rs256() {
    modules::invalid_sig(Suite::open().await, Algorithm::Rs256).await;
}

#[tokio::test]
async fn oidcc_client_test_userinfo_invalid_sub() {
    modules::userinfo_invalid_sub(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_nonce_invalid() {
    modules::nonce_invalid(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_scope_userinfo_claims() {
    modules::scope_userinfo_claims(Suite::open().await).await;
}

#[tokio::test]
async fn oidcc_client_test_client_secret_basic() {
    modules::client_secret_basic(Suite::open().await).await;
}
