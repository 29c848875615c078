//! Private keys that sign: their forms, and what each signs with.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::config::{AssertionAudience, PrivateKey, SigningKey};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::signing_keys::{ED25519, P256, RSA, jwk, openssl, private_key, public_jwk};

use super::*;

/// A file that only its owner can read.
fn file(folder: &TempDir, content: &str) -> PathBuf {
    let path = folder.path().join("key");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn private_key_jwt(keys: &str) -> String {
    with("client_auth: none", &format!("client_auth: {{private_key_jwt: {keys}}}"))
}

fn signing_key(text: &str) -> SigningKey {
    match config(text).apps.remove(0).oidc.remove(0).client_auth {
        ClientAuth::PrivateKeyJwt { key, .. } => key,
        other => panic!("{other:?}"),
    }
}

/// The key that a file of this content holds, with what is said of it beside it.
fn read(content: &str, beside: &str) -> PrivateKey {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{{key: {{file: {}}}{beside}}}", file(&folder, content).display());
    signing_key(&private_key_jwt(&text)).load().unwrap()
}

/// Why a key of this content, with what is said of it beside it, is refused.
fn problem(content: &str, beside: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, content);
    let found = faults(&private_key_jwt(&format!("{{key: {{file: {}}}{beside}}}", path.display())));
    let [fault] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((fault.text.as_str(), fault.remedy.is_empty()), (path.to_str().unwrap(), false));
    fault.problem.clone()
}

/// Whether the public half of a key in PEM takes what the key has signed.
fn signs(key: &PrivateKey, pem: &str) -> bool {
    let public: jsonwebtoken::jwk::Jwk = serde_json::from_value(public_jwk(pem)).unwrap();
    let algorithm: Algorithm = key.algorithm().as_str().parse().unwrap();
    let signature = URL_SAFE_NO_PAD.encode(key.sign(b"a message").unwrap());
    let public = DecodingKey::from_jwk(&public).unwrap();
    crypto::verify(&signature, b"a message", &public, algorithm).unwrap()
        && !crypto::verify(&signature, b"another", &public, algorithm).unwrap()
}

#[test]
fn a_key_of_each_kind_is_read_in_each_form_and_signs_as_is_usual_or_as_it_is_told() {
    for (arguments, other_form, usual, told) in [
        (RSA, Some("rsa -traditional"), "RS256", "PS256"),
        (P256, Some("ec"), "ES256", "ES256"),
        (ED25519, None, "EdDSA", "EdDSA"),
    ] {
        let pem = private_key(arguments);
        let mut forms = vec![pem.clone(), jwk(&pem).to_string()];
        forms.extend(other_form.map(|form| openssl(form, &pem)));
        for form in &forms {
            let key = read(form, "");
            assert_eq!((key.algorithm().as_str(), key.kid()), (usual, None), "{arguments}");
            assert!(signs(&key, &pem), "{arguments}");
            let key = read(form, &format!(", algorithm: {told}, kid: mine"));
            assert_eq!((key.algorithm().as_str(), key.kid()), (told, Some("mine")), "{arguments}");
            assert!(signs(&key, &pem), "{arguments}");
        }
    }
}

#[test]
fn a_jwk_says_its_own_name_and_algorithm() {
    let pem = private_key(RSA);
    let mut with = jwk(&pem);
    with.as_object_mut().unwrap().extend(
        [("kid", json!("k1")), ("alg", json!("PS256")), ("use", json!("sig")), ("key_ops", json!(["sign"]))]
            .map(|(name, value)| (name.to_owned(), value)),
    );
    let key = read(&with.to_string(), "");
    assert_eq!((key.algorithm().as_str(), key.kid()), ("PS256", Some("k1")));
    assert!(signs(&key, &pem));
    let key = read(&with.to_string(), ", algorithm: PS256, kid: other");
    assert_eq!(key.kid(), Some("other"), "what is said beside it goes before");
    assert!(problem(&with.to_string(), ", algorithm: RS256").contains("for another algorithm"));

    let mut edwards = jwk(&private_key(ED25519));
    edwards["alg"] = json!("Ed25519"); // RFC 9864
    assert_eq!(read(&edwards.to_string(), "").algorithm().as_str(), "EdDSA");
}

/// RFC 8037 appendix A.4: Ed25519 signs the same alike, always.
#[test]
fn the_signature_is_that_of_the_published_example() {
    let jwk = json!({"kty": "OKP", "crv": "Ed25519",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    assert_eq!(
        URL_SAFE_NO_PAD.encode(read(&jwk.to_string(), "").sign(message).unwrap()),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

/// A key in PEM with another last line.
fn damaged(pem: &str) -> String {
    let mut lines: Vec<_> = pem.lines().map(str::to_owned).collect();
    let last = lines.len() - 3;
    lines[last] = "A".repeat(64);
    lines.join("\n")
}

#[test]
fn a_key_that_cannot_sign_is_refused_with_its_reason() {
    let rsa = private_key(RSA);
    for (content, beside, expected) in [
        (private_key("-algorithm RSA -pkeyopt rsa_keygen_bits:1024"), "", "too short"),
        (private_key("-algorithm EC -pkeyopt ec_paramgen_curve:P-384"), "", "of a kind"),
        (openssl("ecparam -genkey -noout -name secp384r1", ""), "", "of a kind"),
        (private_key("-algorithm X25519"), "", "of a kind"),
        (private_key("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048"), "", "of a kind"),
        (openssl("rsa -pubout", &rsa), "", "a public key"),
        (openssl("pkcs8 -topk8 -passout pass:hunter2", &rsa), "", "is encrypted"),
        (openssl("rsa -traditional -aes128 -passout pass:hunter2", &rsa), "", "is encrypted"),
        (damaged(&rsa), "", "damaged"),
        ("hunter2".to_owned(), "", "neither a private key in PEM nor a JWK"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2\n".to_owned(), "", "neither a private key in PEM nor a JWK"),
        (rsa.clone(), ", algorithm: ES256", "cannot sign with ES256"),
        (rsa.clone(), ", algorithm: EdDSA", "cannot sign with EdDSA"),
        (private_key(P256), ", algorithm: PS256", "cannot sign with PS256"),
        (private_key(ED25519), ", algorithm: ES256", "cannot sign with ES256"),
    ] {
        let problem = problem(&content, beside);
        assert!(problem.contains(expected), "{expected}: {problem}");
    }
}

#[test]
fn a_jwk_that_cannot_sign_is_refused_with_its_reason() {
    let good = jwk(&private_key(RSA));
    let without = |name: &str| {
        let mut jwk = good.clone();
        jwk.as_object_mut().unwrap().remove(name);
        jwk.to_string()
    };
    let with = |name: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[name] = value;
        jwk.to_string()
    };
    let own = good.to_string();
    let mut foreign = jwk(&private_key(P256));
    foreign["x"] = jwk(&private_key(P256))["x"].clone();
    for (content, expected) in [
        (without("d"), "a public key"),
        (without("p"), "lacks a part"),
        (without("qi"), "lacks a part"),
        (without("kty"), "damaged"),
        (with("dq", good["dp"].clone()), "damaged"),
        (with("d", json!("not base64!")), "damaged"),
        (with("kty", json!("oct")), "of a kind"),
        (with("use", json!("enc")), "not for signatures"),
        (with("key_ops", json!(["verify"])), "not for signatures"),
        (with("alg", json!("RSA-OAEP")), "for another algorithm"),
        (with("alg", json!("ES256")), "cannot sign with ES256"),
        (own.replacen('{', "{\"d\":\"AQAB\",", 1), "damaged"),
        (jwk(&private_key("-algorithm EC -pkeyopt ec_paramgen_curve:P-384")).to_string(), "of a kind"),
        (foreign.to_string(), "damaged"),
        (json!({"keys": [good]}).to_string(), "damaged"),
    ] {
        let problem = problem(&content, "");
        assert!(problem.contains(expected), "{expected}: {problem}");
    }
}

#[test]
fn the_short_form_is_the_key_alone_from_a_file_or_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, &private_key(P256));
    let key = signing_key(&private_key_jwt(&format!("{{file: {}}}", path.display())));
    assert_eq!(key.file(), Some(path.as_path()));
    let key = signing_key(&private_key_jwt("{env: JWK}"));
    assert_eq!((key.file(), key.load().unwrap().kid()), (None, Some("from-env")));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    let found = faults(&private_key_jwt(&format!("{{file: {}}}", path.display())));
    assert!(found[0].problem.contains("can be read by others"), "{}", found[0]);
    refused("client_auth: none", "client_auth: {private_key_jwt: {env: «SECRET}}", "SECRET", "neither");
    refused(
        "client_auth: none",
        "client_auth: {private_key_jwt: «hunter2}",
        "[redacted]",
        "written in the file",
    );
    refused(
        "client_auth: none",
        "client_auth: {private_key_jwt: {key: «hunter2}}",
        "[redacted]",
        "in the file",
    );
    refused(
        "client_auth: none",
        "client_auth: {private_key_jwt: «{kid: a}}",
        "apps[0].oidc.client_auth.private_key_jwt.key",
        "missing",
    );
}

#[test]
fn an_assertion_is_for_the_issuer_unless_the_endpoint_is_asked_for() {
    let audience = |text: &str| match config(&private_key_jwt(text)).apps[0].oidc[0].client_auth {
        ClientAuth::PrivateKeyJwt { audience, .. } => audience,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(audience("{env: JWK}"), AssertionAudience::Issuer);
    assert_eq!(audience("{key: {env: JWK}}"), AssertionAudience::Issuer);
    assert_eq!(audience("{key: {env: JWK}, audience: endpoint}"), AssertionAudience::Endpoint);
}

#[test]
fn r64_a_private_key_is_never_shown() {
    let pem = private_key(P256);
    let d = jwk(&pem)["d"].as_str().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let text = private_key_jwt(&format!("{{file: {}}}", file(&folder, &pem).display()));
    let shown = format!("{:?} {:?}", config(&text), signing_key(&text).load().unwrap());
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(!shown.contains(&d) && !shown.contains(&body[10..40]), "{shown}");
    let shown = format!("{:?}", config(&private_key_jwt("{env: JWK}")));
    assert!(!shown.contains("nWGxne_9"), "{shown}");
}
