//! Certificates and keys: the listener's, and those towards upstreams.

use crate::support::certificates::{Authority, Certificate};

use super::*;

fn server(certificate: &Path, key: &Path) -> String {
    let tls = format!("tls: {{certificate: {}, private_key: {}}}", certificate.display(), key.display());
    with("  listen:", &format!("  {tls}\n  listen:"))
}

fn upstream(url: &str, tls: &str) -> String {
    with("upstream: https://orders.internal:9000", &format!("upstream: {{url: \"{url}\", tls: «{{{tls}}}}}"))
}

fn problem(text: &str) -> (String, String) {
    let found = faults(&text.replace('«', ""));
    let [fault] = found.as_slice() else { panic!("{found:#?}") };
    (fault.text.clone(), fault.problem.clone())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_certificate_and_its_key_are_looked_at_when_the_file_is_read() {
    let authority = Authority::new();
    let Certificate { certificate, key } = authority.issue("own", "DNS:shop.example.com", 7);
    let other = authority.issue("other", "DNS:shop.example.com", 7);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(config(&server(&certificate, &key)).server.tls.is_some());

    assert_eq!(problem(&server(Path::new("/nowhere"), &key)).0, "/nowhere");
    assert!(problem(&server(&key, &key)).1.contains("no certificate"));
    fs::set_permissions(&certificate, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(problem(&server(&certificate, &certificate)).1.contains("no private key"));
    fs::set_permissions(&other.key, fs::Permissions::from_mode(0o600)).unwrap();
    let (text, mismatch) = problem(&server(&certificate, &other.key));
    assert!(text == shown(&other.key) && mismatch.contains("do not belong together"), "{mismatch}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o604)).unwrap();
    let (text, exposed) = problem(&server(&certificate, &key));
    assert!(text == shown(&key) && exposed.contains("read by others"), "{exposed}");
    assert!(problem(&server(&certificate, authority.pem().parent().unwrap())).1.contains("not a file"));
}

/// RFC 8705 §3.
#[test]
fn a_token_that_is_bound_to_a_certificate_and_goes_without_it_is_warned_of() {
    let authority = Authority::new();
    let Certificate { certificate, key } = authority.issue("client", "DNS:gateway", 7);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let own = format!("{{certificate: {}, private_key: {}}}", shown(&certificate), shown(&key));
    let bound = |text: &str| {
        let bound = "tls_client_certificate_bound_access_tokens: true";
        text.replace("client_auth: none", &format!("client_auth: {{tls_client_auth: {own}}}\n      {bound}"))
    };
    let url = "upstream: https://orders.internal:9000";
    let route = |keys: &str| with(url, keys);
    let warnings = accepted(&bound(&route(url))).warnings;
    assert_eq!((warnings.len(), warnings[0].text.as_str()), (1, "/api"));
    assert!(warnings[0].problem.contains("bound to a certificate"), "{}", warnings[0].problem);
    let beside = |more: &str| route(&format!("{url}\n        {more}"));
    let with_certificate = route(&format!("upstream: {{url: \"https://orders.internal:9000\", tls: {own}}}"));
    for good in [with_certificate, beside("token: none"), beside("auth: none")] {
        assert_eq!(accepted(&bound(&good)).warnings, [], "{good}");
    }
    assert_eq!(accepted(&route(url)).warnings, []);
}

/// RFC 8705.
#[test]
fn a_client_has_one_certificate_for_its_proof_or_beside_it() {
    let authority = Authority::new();
    let Certificate { certificate, key } = authority.issue("client", "DNS:gateway", 7);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let own = format!("{{certificate: {}, private_key: {}}}", shown(&certificate), shown(&key));
    let oidc = |text: &str| config(text).apps.remove(0).oidc.remove(0);
    for method in ["tls_client_auth", "self_signed_tls_client_auth"] {
        let found = oidc(&with("client_auth: none", &format!("client_auth: {{{method}: {own}}}")));
        assert!(matches!(found.client_auth, ClientAuth::MutualTls) && found.identity.is_some());
        assert!(found.uses_mutual_tls() && !found.tls_client_certificate_bound_access_tokens);
    }
    let beside = |more: &str| with("client_auth: none", &format!("client_auth: none\n      {more}"));
    let found = oidc(&beside(&format!("tls: {own}")));
    assert!(found.identity.is_some() && found.ca.is_none() && !found.uses_mutual_tls());
    let bound = "tls_client_certificate_bound_access_tokens: true";
    let found = oidc(&beside(&format!("tls: {own}\n      {bound}")));
    assert!(found.uses_mutual_tls() && found.tls_client_certificate_bound_access_tokens);
    let found = oidc(&beside(&format!("tls: {{ca: {}}}", shown(&authority.pem()))));
    assert!(found.ca.is_some() && found.identity.is_none());

    let name = "tls_client_certificate_bound_access_tokens: «true";
    refused_in(&beside(name), "true", "where the client has none");
    let twice = format!("client_auth: «{{tls_client_auth: {own}}}\n      tls: {own}");
    refused_in(&with("client_auth: none", &twice), "[redacted]", "two certificates");
    let plain = beside(&format!("tls: «{own}")).replace("https://id.example.com", "http://localhost:9000");
    refused_in(&plain, "{…}", "without it");
    let lonely = beside(&format!("tls: {{certificate: «{}}}", shown(&certificate)));
    refused_in(&lonely, &shown(&certificate), "without its key");
    let mismatch = beside(&format!("tls: {{certificate: {}, private_key: «{}}}", shown(&key), shown(&key)));
    assert!(problem(&mismatch).1.contains("no certificate"));
}

#[test]
fn a_damaged_certificate_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.pem");
    fs::write(&damaged, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    let (text, problem) = problem(&server(&damaged, &damaged));
    assert!(text == shown(&damaged) && problem.contains("no certificate"), "{problem}");
}

#[test]
fn an_upstream_has_authorities_a_certificate_and_a_name_of_its_own() {
    let authority = Authority::new();
    let Certificate { certificate, key } = authority.issue("client", "DNS:gateway", 7);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let (certificate, key, ca) = (shown(&certificate), shown(&key), shown(&authority.pem()));
    let tls =
        format!("ca: {ca}, certificate: {certificate}, private_key: {key}, server_name: orders.internal");
    let config = config(&upstream("https://10.0.0.7", &tls).replace('«', ""));
    let Target::Upstream(found) = &config.apps[0].routes[0].target else { panic!() };
    assert!(found.tls.ca.is_some() && found.tls.identity.is_some());
    assert_eq!(found.tls.server_name.as_deref(), Some("orders.internal"));

    refused_in(&upstream("http://localhost", &format!("ca: {ca}")), "{…}", "without TLS");
    for (tls, text, problem) in [
        (format!("certificate: «{certificate}"), &certificate, "without its key"),
        (format!("private_key: «{key}"), &key, "without its certificate"),
        (format!("ca: «{key}"), &key, "no certificate"),
    ] {
        refused_in(&upstream("https://orders", &tls).replacen('«', "", 1), text, problem);
    }
    let unnamed = upstream("https://orders", "server_name: «'not a name'").replacen('«', "", 1);
    refused_in(&unnamed, "not a name", "not a name that a certificate can have");
}
