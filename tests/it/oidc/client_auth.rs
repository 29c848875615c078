//! Clients that prove themselves by a JWT of their own (RFC 7523, OpenID Connect Core §9).

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cloakroom::config::{AssertionAudience, SigningKey};
use cloakroom::oidc::{RefreshError, TokenKind};
use tempfile::TempDir;

use crate::support::issuer::{Endpoint, Fault};
use crate::support::signing_keys::{ED25519, P256, RSA, private_key, public_jwk};

use super::*;

/// A file with this in it, which only its owner can read.
fn file(folder: &TempDir, content: &str) -> PathBuf {
    let path = folder.path().join("key");
    write(&path, content);
    path
}

fn write(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The issuer knows the public half of this key, and takes nothing else.
fn register(parties: &Parties, pem: &str) {
    let key = (public_jwk(pem), parties.issuer.url());
    parties.issuer.behave(|behaviour| behaviour.client_key = Some(key));
}

async fn with_key(path: &Path) -> Parties {
    let key = SigningKey::in_file(path.to_owned());
    let audience = AssertionAudience::Issuer;
    Parties::start_with(|oidc| oidc.client_auth = ClientAuth::PrivateKeyJwt { key, audience }).await
}

fn assertions(parties: &Parties) -> Vec<String> {
    let requests = parties.issuer.received();
    requests.iter().filter_map(|request| request.field("client_assertion")).map(str::to_owned).collect()
}

#[tokio::test]
async fn an_assertion_is_taken_wherever_the_client_proves_itself_and_each_is_another() {
    for arguments in [RSA, P256, ED25519] {
        let (pem, folder) = (private_key(arguments), TempDir::new().unwrap());
        let parties = with_key(&file(&folder, &pem)).await;
        register(&parties, &pem);
        let (tokens, identity) = parties.log_in().await.unwrap();
        let tokens = parties.client.refresh(&tokens, &identity).await.unwrap();
        parties.client.revoke(tokens.refresh_token.as_ref().unwrap(), TokenKind::RefreshToken).await.unwrap();
        assert!(!parties.issuer.is_alive(tokens.access_token.expose()));
        let assertions = assertions(&parties);
        assert_eq!(assertions.len(), 3, "a code, a refresh and a revocation");
        assert_eq!(assertions.iter().collect::<HashSet<_>>().len(), 3);
    }
}

/// An issuer has seen an assertion even where it gave no answer (RFC 7523 §3).
#[tokio::test]
async fn each_try_brings_a_fresh_assertion() {
    let (pem, folder) = (private_key(P256), TempDir::new().unwrap());
    let parties = with_key(&file(&folder, &pem)).await;
    register(&parties, &pem);
    parties.issuer.behave(|behaviour| behaviour.rotates = false);
    let (tokens, identity) = parties.log_in().await.unwrap();
    for fault in [Fault::ResetAfter, Fault::status(503), Fault::ResetBefore] {
        parties.issuer.fail_once(Endpoint::Token, fault);
        let refused = parties.client.refresh(&tokens, &identity).await.unwrap_err();
        assert!(matches!(refused, RefreshError::Ambiguous(_)), "{refused:?}");
        parties.client.refresh(&tokens, &identity).await.unwrap();
    }
    let assertions = assertions(&parties);
    assert_eq!((assertions.len(), assertions.iter().collect::<HashSet<_>>().len()), (7, 7));
}

#[tokio::test]
async fn a_key_that_the_issuer_does_not_know_is_the_operators_fault() {
    let (folder, pem) = (TempDir::new().unwrap(), private_key(P256));
    let parties = with_key(&file(&folder, &pem)).await;
    register(&parties, &pem);
    let (tokens, identity) = parties.log_in().await.unwrap();
    register(&parties, &private_key(P256));
    let refused = parties.client.refresh(&tokens, &identity).await.unwrap_err();
    assert!(matches!(&refused, RefreshError::Refused { error } if error == "invalid_client"), "{refused:?}");
}

#[tokio::test]
async fn an_issuer_that_insists_on_its_endpoints_is_given_them() {
    let (folder, pem) = (TempDir::new().unwrap(), private_key(ED25519));
    let key = SigningKey::in_file(file(&folder, &pem));
    let audience = AssertionAudience::Endpoint;
    let parties =
        Parties::start_with(|oidc| oidc.client_auth = ClientAuth::PrivateKeyJwt { key, audience }).await;
    register(&parties, &pem);
    let refused = parties.log_in().await.unwrap_err();
    assert!(matches!(&refused, RedeemError::Refused { error } if error == "invalid_client"), "{refused:?}");
    let endpoint = format!("{}/token", parties.issuer.url());
    parties.issuer.behave(|behaviour| behaviour.client_key.as_mut().unwrap().1 = endpoint);
    parties.log_in().await.unwrap();
}

#[tokio::test]
async fn a_key_is_replaced_while_it_is_used_and_a_wrong_one_is_not_taken() {
    let (folder, first, second) = (TempDir::new().unwrap(), private_key(P256), private_key(RSA));
    let path = file(&folder, &first);
    let parties = with_key(&path).await;
    let reload = || parties.client.reloads().for_each(|reload| reload.run());
    register(&parties, &first);
    parties.log_in().await.unwrap();

    write(&path, &second);
    parties.log_in().await.unwrap();
    reload();
    assert!(parties.log_in().await.is_err(), "the issuer does not know it yet");
    register(&parties, &second);
    parties.log_in().await.unwrap();

    for wrong in ["nothing", &second[..second.len() / 2], ""] {
        write(&path, wrong);
        reload();
        parties.log_in().await.unwrap();
    }
    fs::remove_file(&path).unwrap();
    reload();
    parties.log_in().await.unwrap();
    write(&path, &first);
    reload();
    register(&parties, &first);
    parties.log_in().await.unwrap();
}

#[tokio::test]
async fn a_client_without_its_key_is_not_built() {
    let folder = TempDir::new().unwrap();
    let key = SigningKey::in_file(folder.path().join("nowhere"));
    let audience = AssertionAudience::Issuer;
    let mut oidc = registration("http://127.0.0.1:9");
    oidc.client_auth = ClientAuth::PrivateKeyJwt { key, audience };
    assert!(client(&oidc, clock()).is_err());
}
