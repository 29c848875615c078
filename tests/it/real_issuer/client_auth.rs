//! Clients that prove themselves by a key or a certificate, to a provider that is not ours.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use crate::support::certificates::{Authority, Certificate};
use crate::support::https::Https;
use crate::support::real_issuer::State;
use crate::support::signing_keys::{ED25519, P256, RSA, private_key, public_jwk};

use super::*;

/// A login, a refresh and a logout: each asks an endpoint that authenticates the client.
#[tokio::test]
async fn private_key_jwt_is_understood_in_each_algorithm() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, algorithm) in [(P256, "ES256"), (RSA, "PS256"), (RSA, "RS256"), (ED25519, "EdDSA")] {
        let (pem, path) = (private_key(arguments), folder.path().join(algorithm));
        fs::write(&path, &pem).unwrap();
        own(&path);
        let mut key = public_jwk(&pem);
        (key["kid"], key["use"]) = (json!("shop-1"), json!("sig"));
        let metadata = json!({"jwks": {"keys": [key]}, "token_endpoint_auth_signing_alg": algorithm});
        let issuer = issuer_with("private_key_jwt", json!({}), &metadata).await;
        let proof = format!(
            "{{private_key_jwt: {{key: {{file: \"{}\"}}, kid: shop-1, algorithm: {algorithm}}}}}",
            path.display()
        );
        let (upstream, clock) = (Upstream::start().await, clock());
        let gateway = setup(&issuer, &upstream, &proof).clock(clock.clone()).start().await;
        let mut browser = Browser::new(gateway.address);
        let state = use_session(&mut browser, &clock, &issuer).await;
        let statuses = state.token_requests.iter().map(|asked| asked.status).collect::<Vec<_>>();
        assert_eq!(statuses, [200, 200], "{algorithm}");
        let statuses = state.revocations.iter().map(|asked| asked.status).collect::<Vec<_>>();
        assert_eq!(statuses, [200, 200], "{algorithm}");
    }
}

/// RFC 8705 §2.1, §3, §5.
#[tokio::test]
async fn tls_client_auth_asks_at_the_aliases_and_tokens_are_bound_to_the_certificate() {
    let authority = Authority::new();
    let client = authority.issue("shop", "DNS:shop", 7);
    let metadata = json!({
        "tls_client_auth_subject_dn": "CN=shop", "tls_client_certificate_bound_access_tokens": true,
    });
    let issuer = issuer_with("tls_client_auth", options(&authority), &metadata).await;
    let proof = format!("{{tls_client_auth: {}}}", identity(&client));
    goes_by_certificate(&issuer, &authority, &proof, &client, true).await;
}

/// RFC 8705 §2.2.
#[tokio::test]
async fn self_signed_tls_client_auth_is_understood() {
    let (authority, other) = (Authority::new(), Authority::new());
    // As good as a self-signed one: the provider believes nobody who has signed it.
    let client = other.issue("shop", "DNS:shop", 7);
    let mut key = public_jwk(&fs::read_to_string(&client.key).unwrap());
    key["x5c"] = json!([STANDARD.encode(der(&client.certificate))]);
    let metadata = json!({"jwks": {"keys": [key]}, "tls_client_certificate_bound_access_tokens": true});
    let issuer = issuer_with("self_signed_tls_client_auth", options(&authority), &metadata).await;
    let proof = format!("{{self_signed_tls_client_auth: {}}}", identity(&client));
    goes_by_certificate(&issuer, &authority, &proof, &client, true).await;
}

/// RFC 8705 §3: bound tokens for a client that proves itself in another way.
#[tokio::test]
async fn tokens_are_bound_to_a_certificate_beside_another_proof() {
    let authority = Authority::new();
    let client = authority.issue("shop", "DNS:shop", 7);
    for is_bound in [true, false] {
        let metadata = json!({"tls_client_certificate_bound_access_tokens": is_bound});
        let issuer = issuer_with("client_secret_basic", options(&authority), &metadata).await;
        let proof = format!(
            "{{client_secret_basic: {{env: CLIENT_SECRET}}}}\n\
             tls_client_certificate_bound_access_tokens: {is_bound}"
        );
        goes_by_certificate(&issuer, &authority, &proof, &client, is_bound).await;
    }
}

/// A session whose tokens are bound goes on with another certificate.
#[tokio::test]
async fn a_certificate_that_is_replaced_under_a_running_gateway_is_shown_from_then_on() {
    let authority = Authority::new();
    let [client, next] = ["first", "next"].map(|name| {
        let issued = authority.issue(name, "DNS:shop", 7);
        own(&issued.key);
        issued
    });
    let metadata = json!({"tls_client_certificate_bound_access_tokens": true});
    let issuer = issuer_with("client_secret_basic", options(&authority), &metadata).await;
    let mut setup = setup(&issuer, &Upstream::start().await, "client_secret_basic");
    setup.oidc += &format!(
        "\ntls_client_certificate_bound_access_tokens: true\n{}",
        tls(&authority, &format!(", {}", identity(&client).trim_matches(['{', '}'])))
    );
    let clock = clock();
    let gateway = setup.clock(clock.clone()).start().await;
    let mut browser = browser(gateway.address, &authority);
    log_in(&mut browser).await;
    let shown =
        async || issuer.state().await.tokens.into_iter().filter_map(|token| token.bound_to).next_back();
    assert_eq!(shown().await, Some(thumbprint(&client.certificate)));

    fs::copy(&next.certificate, &client.certificate).unwrap();
    fs::write(&client.key, fs::read(&next.key).unwrap()).unwrap();
    until(async || {
        clock.advance(Duration::from_secs(301));
        browser.fetch("/api/orders").await;
        shown().await == Some(thumbprint(&next.certificate))
    })
    .await;
}

/// A login with userinfo, a refresh and a logout, at the aliases where the tokens are `bound`.
async fn goes_by_certificate(
    issuer: &RealIssuer,
    authority: &Authority,
    proof: &str,
    client: &Certificate,
    bound: bool,
) {
    own(&client.key);
    let (upstream, clock) = (Upstream::start().await, clock());
    let mut setup = setup(issuer, &upstream, "none");
    let own_certificate = match proof.contains("tls_client_auth") {
        true => String::new(),
        false => format!(", {}", identity(client).trim_matches(['{', '}'])),
    };
    setup.oidc = setup.oidc.replace("client_auth: none", &format!("client_auth: {proof}"));
    setup.oidc += &format!("\nuserinfo: true\n{}", tls(authority, &own_certificate));
    let gateway = setup.clock(clock.clone()).start().await;
    let mut browser = browser(gateway.address, authority);
    let state = use_session(&mut browser, &clock, issuer).await;
    let asked = state.token_requests.iter().map(|asked| (asked.status, &asked.at));
    let asked: Vec<_> =
        asked.chain(state.revocations.iter().map(|asked| (asked.status, &asked.at))).collect();
    assert_eq!(asked.len(), 4, "a login, a refresh and two revocations");
    for (status, at) in asked {
        assert_eq!((status, at == issuer.url()), (200, !bound), "{at}");
    }
    let thumbprint = bound.then(|| thumbprint(&client.certificate));
    let access_tokens = state.tokens.iter().filter(|token| token.kind == "access_token");
    assert!(access_tokens.map(|token| &token.bound_to).all(|bound_to| *bound_to == thumbprint));
}

/// Logs in, refreshes and logs out, and gives what the issuer knew of the tokens before that.
async fn use_session(browser: &mut Browser, clock: &Arc<ManualClock>, issuer: &RealIssuer) -> State {
    log_in(browser).await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    clock.advance(Duration::from_secs(301));
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    let tokens = issuer.state().await.tokens;
    log_out(browser).await;
    let state = issuer.state().await;
    assert_eq!(state.alive("refresh_token"), [""; 0]);
    State { tokens, ..state }
}

fn options(authority: &Authority) -> Value {
    let Certificate { certificate, key } = authority.issue("issuer", "IP:127.0.0.1,DNS:localhost", 7);
    json!({"tls": {"certificate": certificate, "key": key, "ca": authority.pem()}})
}

fn tls(authority: &Authority, own: &str) -> String {
    format!("tls: {{ca: \"{}\"{own}}}", authority.pem().display())
}

fn identity(client: &Certificate) -> String {
    format!(
        "{{certificate: \"{}\", private_key: \"{}\"}}",
        client.certificate.display(),
        client.key.display()
    )
}

fn browser(gateway: SocketAddr, authority: &Authority) -> Browser {
    Browser::new(gateway).with_tls_elsewhere(Https::new(authority, &[]))
}

fn own(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn der(certificate: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(certificate).unwrap()
}

/// RFC 8705 §3.1.
fn thumbprint(certificate: &Path) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(der(certificate)))
}
