//! `oidcc-client-formpost-basic-certification-test-plan`: the Basic plan, answered by forms that the browser posts.

use super::{Suite, modules};
use crate::support::issuer::Algorithm;

#[tokio::test]
async fn oidcc_client_test() {
    modules::code_flow(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_iss() {
    modules::invalid_iss(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_missing_sub() {
    modules::missing_sub(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_aud() {
    modules::invalid_aud(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_missing_iat() {
    modules::missing_iat(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_kid_absent_single_jwks() {
    modules::kid_absent_single_jwks(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_kid_absent_multiple_jwks() {
    modules::kid_absent_multiple_jwks(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_rs256() {
    modules::idtoken_sig_rs256(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_none() {
    modules::idtoken_sig_none(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_sig_rs256() {
    modules::invalid_sig(form_post().await, Algorithm::Rs256).await;
}

#[tokio::test]
async fn oidcc_client_test_userinfo_invalid_sub() {
    modules::userinfo_invalid_sub(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_nonce_invalid() {
    modules::nonce_invalid(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_scope_userinfo_claims() {
    modules::scope_userinfo_claims(form_post().await).await;
}

#[tokio::test]
async fn oidcc_client_test_client_secret_basic() {
    modules::client_secret_basic(form_post().await).await;
}

async fn form_post() -> Suite {
    Suite::open_with("response_mode: form_post").await
}
