//! The issuer's metadata: endpoints that are called are protected, and are the same place for the browser and
//! for us (R9, R12).

use cloakroom::config::{Issuer, is_loopback};
use cloakroom::oidc::discovery::Metadata;
use cloakroom::oidc::json;
use http::Uri;
use jsonwebtoken::AlgorithmFamily;
use serde_json::{Map, Value};
use url::Url;

/// The document that was found at the issuer's address.
pub fn run(data: &[u8]) {
    let Some(mut document) = json::object(data) else { return };
    for issuer in ["https://id.example.com/realms/shop", "http://127.0.0.1:8080"] {
        let Ok(issuer) = Issuer::parse(issuer) else { return };
        for uses_mutual_tls in [false, true] {
            let read = |document: &Map<String, Value>| Metadata::new(document, &issuer, uses_mutual_tls);
            if let Ok(metadata) = read(&document) {
                assert_eq!(document["issuer"], issuer.as_str());
                check(&metadata, &issuer);
            }
            // Another issuer's document is refused, and this one's would be read alike.
            document.insert("issuer".to_owned(), issuer.as_str().into());
            if let Ok(metadata) = read(&document) {
                check(&metadata, &issuer);
                document.insert("issuer".to_owned(), Value::from(format!("{issuer}/")));
                assert!(read(&document).is_err());
            }
        }
    }
}

fn check(metadata: &Metadata, issuer: &Issuer) {
    let pages = [Some(&metadata.authorization_endpoint), metadata.end_session_endpoint.as_ref()];
    for page in pages.into_iter().flatten() {
        check_protected(page, issuer);
    }
    let calls = [
        Some(&metadata.token_endpoint),
        Some(&metadata.jwks_uri),
        metadata.userinfo_endpoint.as_ref(),
        metadata.revocation_endpoint.as_ref(),
    ];
    for call in calls.into_iter().flatten() {
        let url = Url::parse(&call.to_string()).expect("it was read from a URL");
        check_protected(&url, issuer);
        assert_eq!(call.host(), url.host_str());
        assert_eq!(call.scheme_str(), Some(url.scheme()));
        assert_eq!(call.port_u16(), url.port());
        assert_eq!(call.to_string().parse::<Uri>().ok().as_ref(), Some(call));
    }
    for algorithm in &metadata.id_token_algorithms {
        assert_ne!(algorithm.family(), AlgorithmFamily::Hmac);
    }
}

fn check_protected(url: &Url, issuer: &Issuer) {
    let is_plain_loopback = url.scheme() == "http" && issuer.is_plain() && is_loopback(url);
    assert!(url.scheme() == "https" || is_plain_loopback, "{url}");
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{url}");
    assert!(url.host_str().is_some_and(|host| !host.is_empty()), "{url}");
}
