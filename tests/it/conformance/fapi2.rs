//! `fapi2-security-profile-final-client-test-plan`, for the plain profile with OpenID Connect and unsigned requests, which are pushed.
//!
//! The client proves itself by `private_key_jwt`, with assertions for the issuer alone, as the suite wants them, and its tokens are bound by
//! DPoP, with nonces of issuer and API; what a certificate changes is shown for the three variants that have one. The issuer's keys stand among
//! others that have the same `kid` and are for other algorithms.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use cloakroom::clock::ManualClock;
use http::header::AUTHORIZATION;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use super::{PATH, append, without};
use crate::support::browser::Browser;
use crate::support::certificates::Authority;
use crate::support::clock::{NOW, clock};
use crate::support::gateway::Setup;
use crate::support::issuer::{Algorithm, CLIENT_ID, Draft, Endpoint, Issuer, Signature};
use crate::support::shop::{Shop, arrive, ends_the_login, offers_login, with_query};
use crate::support::signing_keys::{P256, private_key, public_jwk};
use crate::support::tls_door::{Door, Shown};
use crate::support::upstream::{Upstream, full, status};
use crate::support::wait::in_time;

#[tokio::test]
async fn fapi2_security_profile_final_client_test_happy_path() {
    for (client_auth, sender_constrain) in VARIANTS {
        let plan = Plan::open_as(client_auth, sender_constrain).await;
        plan.accepts().await;
        let pushed = plan.issuer().received_at(Endpoint::Push).pop().expect("the request is pushed");
        for name in ["state", "nonce", "code_challenge"] {
            assert!(pushed.field(name).is_some(), "{name}");
        }
        assert_eq!(
            (pushed.field("client_id"), pushed.field("response_type"), pushed.field("code_challenge_method")),
            (Some(CLIENT_ID), Some("code"), Some("S256"))
        );
        assert_eq!((pushed.field("request"), pushed.field("request_uri")), (None, None));
        assert_eq!(pushed.field("client_assertion").is_some(), client_auth == By::Key);
        assert_eq!(pushed.field("dpop_jkt").is_some(), sender_constrain == By::Key);
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_discovery_issuer_mismatch() {
    let plan = Plan::open().await;
    let other = format!("{}INVALID", plan.issuer().url());
    plan.issuer().behave(|behaviour| {
        behaviour.metadata.insert("issuer".to_owned(), json!(other));
    });
    assert_eq!(in_time(plan.shop.browser().visit("/bff/login")).await.status, 503);
    assert!(plan.issuer().received().iter().all(|request| request.endpoint == Endpoint::Discovery));
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_iss() {
    Plan::open().await.refuses(|draft| append(&mut draft.claims["iss"], "1")).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_aud() {
    for (client_auth, sender_constrain) in VARIANTS {
        let plan = Plan::open_as(client_auth, sender_constrain).await;
        plan.refuses(|draft| append(&mut draft.claims["aud"], "1")).await;
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_secondary_aud() {
    let others = json!([CLIENT_ID, format!("{CLIENT_ID}1")]);
    Plan::open().await.refuses(move |draft| draft.claims["aud"] = others.clone()).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_null_alg() {
    let unsigned = |draft: &mut Draft| {
        draft.header = json!({"alg": "none"});
        draft.signature = Signature::Absent;
    };
    Plan::open().await.refuses(unsigned).await;
}

/// RS256, by a key that the issuer publishes: the algorithm is not among those of the metadata.
#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_alternate_alg() {
    let plan = Plan::open().await;
    plan.issuer().behave(|behaviour| behaviour.algorithm = Algorithm::Rs256);
    plan.refuses(|_| {}).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_expired_exp() {
    Plan::open().await.refuses(|draft| draft.claims["exp"] = json!(NOW - 6 * 60)).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_missing_exp() {
    Plan::open().await.refuses(|draft| without(&mut draft.claims, "exp")).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_missing_aud() {
    Plan::open().await.refuses(|draft| without(&mut draft.claims, "aud")).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_missing_iss() {
    Plan::open().await.refuses(|draft| without(&mut draft.claims, "iss")).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_valid_aud_as_array() {
    let plan = Plan::open().await;
    plan.issuer().tamper(|draft| draft.claims["aud"] = json!([CLIENT_ID]));
    plan.accepts().await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_nonce() {
    for (client_auth, sender_constrain) in VARIANTS {
        let plan = Plan::open_as(client_auth, sender_constrain).await;
        plan.refuses(|draft| append(&mut draft.claims["nonce"], "1")).await;
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_missing_nonce() {
    Plan::open().await.refuses(|draft| without(&mut draft.claims, "nonce")).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_authorization_response_iss() {
    for (client_auth, sender_constrain) in VARIANTS {
        let plan = Plan::open_as(client_auth, sender_constrain).await;
        let other = format!("{}1", plan.issuer().url());
        plan.refuses_response("iss", Some(&other)).await;
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_remove_authorization_response_iss() {
    Plan::open().await.refuses_response("iss", None).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_ensure_authorization_response_with_invalid_state_fails() {
    Plan::open().await.refuses_response("state", Some("another")).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_ensure_authorization_response_with_invalid_missing_state_fails()
 {
    Plan::open().await.refuses_response("state", None).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_token_endpoint_response_without_expires_in() {
    let plan = Plan::open().await;
    plan.issuer().behave(|behaviour| behaviour.expires_in = None);
    plan.accepts().await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_token_type_case_insensitivity() {
    for client_auth in [By::Key, By::Certificate] {
        let plan = Plan::open_as(client_auth, By::Certificate).await;
        plan.issuer().behave(|behaviour| behaviour.token_type = json!("bEARER"));
        plan.accepts().await;
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_rs_dpop_auth_scheme_case_insensitivity() {
    let plan = Plan::open_with_keys(Some(NONCE), api("dPOP").await).await;
    plan.accepts().await;
    assert_eq!(
        plan.shop.upstream.arrived().len(),
        2,
        "a proof with the nonce takes the place of one without"
    );
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_happy_path_no_dpop_nonce() {
    let plan = Plan::open_with_keys(None, Upstream::start().await).await;
    plan.accepts().await;
    assert_eq!(
        (plan.issuer().received_at(Endpoint::Token).len(), plan.shop.upstream.arrived().len()),
        (1, 1)
    );
}

/// What issuer and API want to see in proofs.
const NONCE: &str = "suite-nonce-1";

/// What a client proves itself by, and what its tokens are bound to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// `private_key_jwt`, and DPoP.
    Key,
    /// mTLS, either way.
    Certificate,
}

/// Each `client_auth_type` with each `sender_constrain`.
const VARIANTS: [(By, By); 4] = [
    (By::Key, By::Key),
    (By::Certificate, By::Certificate),
    (By::Certificate, By::Key),
    (By::Key, By::Certificate),
];

/// The suite's issuer, and the gateway as its client.
struct Plan {
    shop: Shop,
    sender_constrain: By,
    certificate: Option<ClientCertificate>,
    _folder: TempDir,
}

/// The client's certificate, and who has seen which.
struct ClientCertificate {
    own: CertificateDer<'static>,
    issuer: Shown,
    api: Option<Shown>,
    _authority: Authority,
}

impl Plan {
    async fn open() -> Self {
        Self::open_as(By::Key, By::Key).await
    }

    async fn open_as(client_auth: By, sender_constrain: By) -> Self {
        match (client_auth, sender_constrain) {
            (By::Key, By::Key) => Self::open_with_keys(Some(NONCE), api("DPoP").await).await,
            _ => Self::open_with_certificate(client_auth, sender_constrain).await,
        }
    }

    /// `private_key_jwt` with DPoP; the issuer wants this nonce in proofs.
    async fn open_with_keys(nonce: Option<&str>, upstream: Upstream) -> Self {
        let clock = clock();
        let issuer = Issuer::start_at(clock.clone(), PATH).await;
        let folder = tempfile::tempdir().unwrap();
        let aliases = json!({"token_endpoint": "https://localhost:9/token"});
        let oidc = format!("{}\n{}", with_key(&issuer, &folder), with_dpop(&issuer, nonce));
        let api = format!("path: /api, upstream: \"{}\", dpop: true", upstream.url());
        let shop = shop(clock, issuer, upstream, aliases, &oidc, &api).await;
        Self { shop, sender_constrain: By::Key, certificate: None, _folder: folder }
    }

    /// The client shows a certificate, at the addresses that are meant for that alone, and to the API where its tokens are bound to it.
    async fn open_with_certificate(client_auth: By, sender_constrain: By) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let server = authority.issue("server", "DNS:localhost", 2);
        let own = authority.issue("client", "DNS:client.test", 2);
        fs::set_permissions(&own.key, fs::Permissions::from_mode(0o600)).unwrap();
        let (door, door_for_clients) =
            (Door::build(&server, None).await, Door::build(&server, Some(&authority)).await);
        let clock = clock();
        let issuer = Issuer::start_named(clock.clone(), |_| format!("{}{PATH}", door.url())).await;
        let alias = |endpoint: &str| format!("{}{PATH}{endpoint}", door_for_clients.url());
        let aliases = json!({
            "token_endpoint": alias("token"),
            "userinfo_endpoint": alias("userinfo"),
            "revocation_endpoint": alias("revoke"),
            "pushed_authorization_request_endpoint": alias("push"),
        });
        door.lead_to(issuer.address());
        let seen_by_issuer = door_for_clients.lead_to(issuer.address());
        let nowhere = format!("{}nowhere", issuer.url());
        issuer.behave(|behaviour| {
            for name in ["token_endpoint", "pushed_authorization_request_endpoint"] {
                behaviour.metadata.insert(name.to_owned(), json!(nowhere));
            }
        });
        let (certificate, key) = (own.certificate.display(), own.key.display());
        let identity = format!("certificate: \"{certificate}\", private_key: \"{key}\"");
        let ca = format!("ca: \"{}\"", authority.pem().display());
        let proof = match client_auth {
            By::Key => format!("{}\ntls: {{{ca}, {identity}}}", with_key(&issuer, &folder)),
            By::Certificate => {
                issuer.behave(|behaviour| behaviour.public_client = true);
                format!("client_auth: {{tls_client_auth: {{{identity}}}}}\ntls: {{{ca}}}")
            }
        };
        let (bound, upstream, seen_by_api, to_api) = match sender_constrain {
            By::Key => {
                let upstream = api("DPoP").await;
                let to_api = format!("upstream: \"{}\", dpop: true", upstream.url());
                (with_dpop(&issuer, Some(NONCE)), upstream, None, to_api)
            }
            By::Certificate => {
                let (upstream, door) =
                    (Upstream::start().await, Door::build(&server, Some(&authority)).await);
                let to_api = format!("upstream: {{url: \"{}\", tls: {{{ca}, {identity}}}}}", door.url());
                let seen = door.lead_to(upstream.address);
                ("tls_client_certificate_bound_access_tokens: true", upstream, Some(seen), to_api)
            }
        };
        let own = CertificateDer::from_pem_file(&own.certificate).unwrap();
        let certificate =
            ClientCertificate { own, issuer: seen_by_issuer, api: seen_by_api, _authority: authority };
        let (oidc, api) = (format!("{proof}\n{bound}"), format!("path: /api, {to_api}"));
        let shop = shop(clock, issuer, upstream, aliases, &oidc, &api).await;
        Self { shop, sender_constrain, certificate: Some(certificate), _folder: folder }
    }

    fn issuer(&self) -> &Issuer {
        &self.shop.issuer
    }

    /// The user says yes at the issuer.
    async fn callback(&self, browser: &mut Browser) -> Url {
        self.shop.begin(browser, "return_to=/shop").await
    }

    /// The login succeeds, and the API is called with the token.
    async fn accepts(&self) {
        let mut browser = self.shop.browser();
        let callback = self.callback(&mut browser).await;
        assert_eq!(arrive(&mut browser, &callback).await.status, 200);
        assert_eq!(in_time(browser.fetch("/api/orders")).await.status, 200);
        let authorization = self.shop.upstream.last().headers[AUTHORIZATION].clone();
        let scheme = match self.sender_constrain {
            By::Key => "DPoP ",
            By::Certificate => "Bearer ",
        };
        assert!(authorization.to_str().unwrap().starts_with(scheme), "{authorization:?}");
        if let Some(certificate) = &self.certificate {
            certificate.is_shown();
        }
    }

    /// The login fails with ID tokens that are changed so, and nothing is called after.
    async fn refuses(&self, change: impl Fn(&mut Draft) + Send + 'static) {
        self.issuer().tamper(change);
        let mut browser = self.shop.browser();
        let callback = self.callback(&mut browser).await;
        let page = arrive(&mut browser, &callback).await;
        ends_the_login(&browser, &page, 400);
        let asked = self.issuer().received().into_iter().map(|request| request.endpoint);
        let mut after = asked.skip_while(|endpoint| *endpoint != Endpoint::Token).skip(1);
        assert!(
            after.all(|endpoint| matches!(endpoint, Endpoint::Token | Endpoint::Jwks)),
            "userinfo is not asked"
        );
        assert_eq!(self.shop.upstream.arrived().len(), 0);
    }

    /// The login fails with this parameter of the authorization response changed, and no code is redeemed.
    async fn refuses_response(&self, name: &str, value: Option<&str>) {
        let mut browser = self.shop.browser();
        let callback = self.callback(&mut browser).await;
        let callback = with_query(&callback, |query| {
            query.retain(|(own, _)| own != name);
            query.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        });
        let page = arrive(&mut browser, &callback).await;
        offers_login(&browser, &page, 400);
        assert_eq!(self.issuer().received_at(Endpoint::Token).len(), 0);
    }
}

impl ClientCertificate {
    /// The API has seen the certificate that the issuer has, so that the thumbprint in `cnf` is that of the connection
    /// (RFC 8705 §3.1).
    fn is_shown(&self) {
        for shown in [Some(&self.issuer), self.api.as_ref()].into_iter().flatten() {
            let shown = shown.lock().unwrap();
            assert!(!shown.is_empty() && shown.iter().all(|one| *one == self.own));
        }
    }
}

/// A client that signs assertions for the issuer alone.
fn with_key(issuer: &Issuer, folder: &TempDir) -> String {
    let key = folder.path().join("key.pem");
    let pem = private_key(P256);
    fs::write(&key, &pem).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let client_key = (public_jwk(&pem), issuer.url());
    issuer.behave(|behaviour| behaviour.client_key = Some(client_key));
    format!("client_auth: {{private_key_jwt: {{file: \"{}\"}}}}", key.display())
}

/// Tokens that are bound to a key, by proofs with this nonce.
fn with_dpop(issuer: &Issuer, nonce: Option<&str>) -> &'static str {
    issuer.behave(|behaviour| {
        behaviour.dpop.required = true;
        behaviour.dpop.nonce = nonce.map(str::to_owned);
    });
    "dpop_bound_access_tokens: true"
}

/// The suite's issuer with these addresses for clients with a certificate, and a client of it with these keys of `oidc` and of the
/// API's route.
async fn shop(
    clock: Arc<ManualClock>,
    issuer: Issuer,
    upstream: Upstream,
    aliases: Value,
    oidc: &str,
    api: &str,
) -> Shop {
    issuer.behave(|behaviour| {
        behaviour.takes_pushed_requests = true;
        behaviour.publish = Some(Box::new(among_decoys));
        for (name, value) in [
            ("id_token_signing_alg_values_supported", json!(["ES256"])),
            ("require_pushed_authorization_requests", json!(true)),
            ("tls_client_certificate_bound_access_tokens", json!(true)),
            ("mtls_endpoint_aliases", aliases),
        ] {
            behaviour.metadata.insert(name.to_owned(), value);
        }
    });
    let anybody = format!("path: /, upstream: \"{}\", auth: none", upstream.url());
    let change = |_: &Issuer, setup: &mut Setup| {
        setup.oidc = format!("{oidc}\npushed_authorization_requests: required\nscopes: [openid, profile]");
        setup.routes.clear();
        setup.add_route(api);
        setup.add_route(&anybody);
    };
    Shop::open_among(clock, issuer, upstream, change).await
}

/// An API that takes tokens with a proof that has its nonce, and writes the scheme so.
async fn api(scheme: &'static str) -> Upstream {
    Upstream::answering(move |arrived| {
        let text = |name: &str| arrived.headers.get(name).and_then(|value| value.to_str().ok());
        let has_token = text("authorization").is_some_and(|value| value.starts_with("DPoP "));
        if has_token && text("dpop").is_some_and(|proof| super::claims(proof)["nonce"] == NONCE) {
            return full("{}");
        }
        let challenge = format!("{scheme} error=\"use_dpop_nonce\", algs=\"ES256 PS256\"");
        status(401, &[("www-authenticate", &challenge), ("dpop-nonce", NONCE)])
    })
    .await
}

/// Puts keys for other algorithms under each key's own id.
fn among_decoys(keys: &mut Vec<Value>) {
    let ids: Vec<_> = keys.iter().map(|key| key["kid"].clone()).collect();
    for id in ids {
        let mut decoys = vec![json!({})];
        super::among_others(&mut decoys);
        for mut decoy in decoys {
            decoy["kid"] = id.clone();
            keys.insert(0, decoy);
        }
    }
}
