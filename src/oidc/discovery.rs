//! The issuer's metadata (OpenID Connect Discovery §4, RFC 8414 §3): which endpoints it has.

use std::sync::Arc;
use std::time::Duration;

use ::http::{StatusCode, Uri};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::{Map, Value};
use url::Url;

use super::cache::Cached;
use super::error::{CallFault, DocumentFault, IssuerUnavailable};
use super::http::Http;
use crate::clock::Clock;
use crate::config::{Issuer, is_loopback};

/// Fetches the metadata of one issuer, and keeps them.
pub(super) struct Discovery {
    issuer: Issuer,
    http: Arc<Http>,
    cached: Cached<Metadata>,
}

/// What the gateway needs of the metadata.
#[derive(Debug)]
pub struct Metadata {
    /// Where the browser is sent to log in.
    pub authorization_endpoint: Url,
    /// Where codes and refresh tokens are redeemed.
    pub token_endpoint: Uri,
    /// Where the key set is.
    pub jwks_uri: Uri,
    /// Where more about the user is told (Core §5.3).
    pub userinfo_endpoint: Option<Uri>,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_endpoint: Option<Uri>,
    /// Where the browser is sent to log out.
    pub end_session_endpoint: Option<Url>,
    /// Those ID tokens may be signed with: asymmetric ones alone.
    pub id_token_algorithms: Vec<Algorithm>,
    /// Whether each authorization response carries `iss` (RFC 9207 §3).
    pub sends_iss: bool,
}

/// The last known state of discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Nobody has logged in yet, so nobody has asked.
    Unknown,
    /// The last fetch of the metadata brought them.
    Available,
    /// The last fetch failed.
    Unavailable,
}

impl Discovery {
    pub(super) fn new(issuer: &Issuer, http: Arc<Http>, clock: Arc<dyn Clock>) -> Self {
        Self { issuer: issuer.clone(), http, cached: Cached::new(clock) }
    }

    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, IssuerUnavailable> {
        self.cached.get(fetch(self.issuer.clone(), Arc::clone(&self.http))).await
    }

    /// The metadata, by the word of an issuer that was there within `age`.
    pub(super) async fn confirmed(&self, age: Duration) -> Result<Arc<Metadata>, IssuerUnavailable> {
        self.cached.no_older_than(age, fetch(self.issuer.clone(), Arc::clone(&self.http))).await
    }

    /// The metadata as they were last fetched, however long ago. Asks nobody.
    pub(super) fn known(&self) -> Option<Arc<Metadata>> {
        self.cached.peek()
    }

    pub(super) fn availability(&self) -> Availability {
        match self.cached.last_fetch_succeeded() {
            None => Availability::Unknown,
            Some(true) => Availability::Available,
            Some(false) => Availability::Unavailable,
        }
    }
}

impl Metadata {
    /// Reads the metadata that were found at this issuer's address.
    ///
    /// # Errors
    /// Where they are another issuer's, or an endpoint is missing that is needed, or is not https.
    pub fn new(document: &Map<String, Value>, issuer: &Issuer) -> Result<Self, DocumentFault> {
        if document.get("issuer").and_then(Value::as_str) != Some(issuer.as_str()) {
            return Err(DocumentFault::Issuer);
        }
        let endpoints = Endpoints { document, plain_allowed: issuer.is_plain() };
        Ok(Self {
            authorization_endpoint: endpoints.required("authorization_endpoint")?.0,
            token_endpoint: endpoints.required("token_endpoint")?.1,
            jwks_uri: endpoints.required("jwks_uri")?.1,
            userinfo_endpoint: endpoints.optional("userinfo_endpoint")?.map(|endpoint| endpoint.1),
            revocation_endpoint: endpoints.optional("revocation_endpoint")?.map(|endpoint| endpoint.1),
            end_session_endpoint: endpoints.optional("end_session_endpoint")?.map(|endpoint| endpoint.0),
            id_token_algorithms: id_token_algorithms(document),
            sends_iss: document.get("authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
        })
    }
}

/// Reads endpoints out of the metadata.
struct Endpoints<'a> {
    document: &'a Map<String, Value>,
    plain_allowed: bool,
}

impl Endpoints<'_> {
    fn required(&self, name: &'static str) -> Result<(Url, Uri), DocumentFault> {
        self.optional(name)?.ok_or(DocumentFault::Endpoint(name))
    }

    /// An endpoint, for the browser and for us. A bad one is no missing one.
    fn optional(&self, name: &'static str) -> Result<Option<(Url, Uri)>, DocumentFault> {
        let text = match self.document.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value.as_str().ok_or(DocumentFault::Endpoint(name))?,
        };
        let url = Url::parse(text).ok().filter(|url| is_protected(url, self.plain_allowed));
        let endpoint = url.and_then(|url| Some((url.as_str().parse().ok()?, url)));
        endpoint.map(|(uri, url)| Some((url, uri))).ok_or(DocumentFault::Endpoint(name))
    }
}

async fn fetch(issuer: Issuer, http: Arc<Http>) -> Result<Metadata, IssuerUnavailable> {
    let answer = http.get(issuer.metadata_address(), None).await?;
    if answer.is_inconclusive() {
        return Err(answer.unavailable());
    }
    if answer.status != StatusCode::OK {
        return Err(CallFault::from(DocumentFault::Status(answer.status)).into());
    }
    let document = answer.json_object().ok_or(DocumentFault::NotJson).map_err(CallFault::from)?;
    Ok(Metadata::new(&document, &issuer).map_err(CallFault::from)?)
}

/// R12: the issuer's list, without symmetric algorithms, `none`, and those not known here. RS256 where
/// there is no list, which every issuer must support (Discovery §3).
fn id_token_algorithms(document: &Map<String, Value>) -> Vec<Algorithm> {
    match document.get("id_token_signing_alg_values_supported").and_then(Value::as_array) {
        None => vec![Algorithm::RS256],
        Some(names) => names
            .iter()
            .filter_map(|name| name.as_str()?.parse::<Algorithm>().ok())
            .filter(|algorithm| algorithm.family() != AlgorithmFamily::Hmac)
            .collect(),
    }
}

/// https, or http on loopback where the issuer itself is such a one.
fn is_protected(url: &Url, plain_allowed: bool) -> bool {
    let scheme_is_good = match url.scheme() {
        "https" => true,
        "http" => plain_allowed && is_loopback(url),
        _ => false,
    };
    scheme_is_good && url.username().is_empty() && url.password().is_none() && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(issuer: &str, change: &Value) -> Result<Metadata, DocumentFault> {
        let mut document = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize?tenant=a"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"),
        });
        let document = document.as_object_mut().unwrap();
        document.extend(change.as_object().unwrap().clone());
        Metadata::new(document, &Issuer::parse(issuer).unwrap())
    }

    #[test]
    fn r9_the_issuer_is_compared_as_text() {
        assert!(metadata("https://id.test/a", &json!({})).is_ok());
        for other in ["https://id.test/a/", "https://ID.test/a", "https://id.test:443/a"] {
            let refused = metadata("https://id.test/a", &json!({"issuer": other})).unwrap_err();
            assert_eq!(refused, DocumentFault::Issuer, "{other}");
        }
    }

    #[test]
    fn r9_endpoints_are_https_unless_the_issuer_is_on_loopback() {
        for bad in [
            "http://id.test/token",
            "http://127.0.0.1/token",
            "ftp://id.test",
            "/token",
            "https://u:p@id.test/",
        ] {
            let refused = metadata("https://id.test", &json!({"token_endpoint": bad})).unwrap_err();
            assert_eq!(refused, DocumentFault::Endpoint("token_endpoint"), "{bad}");
        }
        for good in
            ["http://127.0.0.1:1/token", "http://[::1]:1/token", "http://localhost/token", "https://id.test/"]
        {
            assert!(metadata("http://127.0.0.1:1", &json!({"token_endpoint": good})).is_ok(), "{good}");
        }
        let refused =
            metadata("http://127.0.0.1:1", &json!({"token_endpoint": "http://id.test/"})).unwrap_err();
        assert_eq!(refused, DocumentFault::Endpoint("token_endpoint"));
    }

    #[test]
    fn r9_a_bad_optional_endpoint_is_not_taken_for_a_missing_one() {
        let refused =
            metadata("https://id.test", &json!({"revocation_endpoint": "http://id.test/"})).unwrap_err();
        assert_eq!(refused, DocumentFault::Endpoint("revocation_endpoint"));
        assert!(metadata("https://id.test", &json!({"revocation_endpoint": null})).is_ok());
    }

    #[test]
    fn r12_symmetric_and_unknown_algorithms_are_left_out() {
        let list =
            json!({"id_token_signing_alg_values_supported": ["none", "HS256", "ES256", "PS512", "XX"]});
        let algorithms = metadata("https://id.test", &list).unwrap().id_token_algorithms;
        assert_eq!(algorithms, [Algorithm::ES256, Algorithm::PS512]);
        let algorithms = metadata("https://id.test", &json!({})).unwrap().id_token_algorithms;
        assert_eq!(algorithms, [Algorithm::RS256]);
    }
}
