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
