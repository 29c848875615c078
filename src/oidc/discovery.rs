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
use crate::config::{Issuer, Oidc, is_loopback};

/// Fetches the metadata of one issuer, and keeps them.
pub(super) struct Discovery {
    issuer: Issuer,
    uses_mutual_tls: bool,
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
    /// Where authorization requests are pushed (RFC 9126 §5).
    pub pushed_authorization_request_endpoint: Option<Uri>,
    /// Whether no others are taken (RFC 9126 §5).
    pub requires_pushed_authorization_requests: bool,
    /// Whether authorization requests may be signed (Discovery §3).
    pub takes_request_objects: bool,
    /// How authorization responses may come back; in the query where nothing is said (RFC 8414 §2).
    pub response_modes: Vec<String>,
    /// Those authorization responses may be signed with (JARM §4): asymmetric ones alone, RS256 where nothing is said.
    pub authorization_algorithms: Vec<Algorithm>,
    /// Where more about the user is told (Core §5.3).
    pub userinfo_endpoint: Option<Uri>,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_endpoint: Option<Uri>,
    /// Where access tokens are confirmed (RFC 7662).
    pub introspection_endpoint: Option<Uri>,
    /// Where a login on another device begins (RFC 8628).
    pub device_authorization_endpoint: Option<Uri>,
    /// Where the browser is sent to log out.
    pub end_session_endpoint: Option<Url>,
    /// Those ID tokens may be signed with: asymmetric ones alone.
    pub id_token_algorithms: Vec<Algorithm>,
    /// Those a userinfo answer may be signed with, likewise; as ID tokens where the issuer does not say.
    pub userinfo_algorithms: Vec<Algorithm>,
    /// The languages of its pages (Discovery §3).
    pub ui_locales_supported: Vec<String>,
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
    pub(super) fn new(oidc: &Oidc, http: Arc<Http>, clock: Arc<dyn Clock>) -> Self {
        let (issuer, uses_mutual_tls) = (oidc.issuer.clone(), oidc.uses_mutual_tls());
        Self { issuer, uses_mutual_tls, http, cached: Cached::new(clock) }
    }

    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, IssuerUnavailable> {
        self.cached.get(self.fetch()).await
    }

    /// The metadata, by the word of an issuer that was there within `age`.
    pub(super) async fn confirmed(&self, age: Duration) -> Result<Arc<Metadata>, IssuerUnavailable> {
        self.cached.no_older_than(age, self.fetch()).await
    }

    fn fetch(&self) -> impl Future<Output = Result<Metadata, IssuerUnavailable>> + Send + use<> {
        fetch(self.issuer.clone(), self.uses_mutual_tls, Arc::clone(&self.http))
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
    /// Reads the metadata that were found at this issuer's address. A client that uses mutual TLS asks at
    /// `mtls_endpoint_aliases` instead, where there are such (RFC 8705 §5).
    ///
    /// # Errors
    /// Where they are another issuer's, or an endpoint is missing that is needed, or is not https.
    pub fn new(
        document: &Map<String, Value>,
        issuer: &Issuer,
        uses_mutual_tls: bool,
    ) -> Result<Self, DocumentFault> {
        if document.get("issuer").and_then(Value::as_str) != Some(issuer.as_str()) {
            return Err(DocumentFault::Issuer);
        }
        let aliases = if uses_mutual_tls { aliases(document)? } else { None };
        let endpoints = Endpoints { document, aliases, plain_allowed: issuer.is_plain() };
        Ok(Self {
            authorization_endpoint: endpoints.required("authorization_endpoint")?.0,
            token_endpoint: endpoints
                .direct("token_endpoint")?
                .ok_or(DocumentFault::Endpoint("token_endpoint"))?,
            jwks_uri: endpoints.required("jwks_uri")?.1,
            pushed_authorization_request_endpoint: endpoints
                .direct("pushed_authorization_request_endpoint")?,
            requires_pushed_authorization_requests: document.get("require_pushed_authorization_requests")
                == Some(&Value::Bool(true)),
            takes_request_objects: document.get("request_parameter_supported") == Some(&Value::Bool(true)),
            response_modes: response_modes(document),
            userinfo_endpoint: endpoints.direct("userinfo_endpoint")?,
            revocation_endpoint: endpoints.direct("revocation_endpoint")?,
            introspection_endpoint: endpoints.direct("introspection_endpoint")?,
            device_authorization_endpoint: endpoints.direct("device_authorization_endpoint")?,
            end_session_endpoint: endpoints.optional("end_session_endpoint")?.map(|endpoint| endpoint.0),
            authorization_algorithms: algorithms(document, "authorization_signing_alg_values_supported")
                .unwrap_or_else(|| vec![Algorithm::RS256]),
            id_token_algorithms: id_token_algorithms(document),
            userinfo_algorithms: algorithms(document, "userinfo_signing_alg_values_supported")
                .unwrap_or_else(|| id_token_algorithms(document)),
            ui_locales_supported: texts(document, "ui_locales_supported").unwrap_or_default(),
            sends_iss: document.get("authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
        })
    }
}

/// Reads endpoints out of the metadata.
pub(super) struct Endpoints<'a> {
    document: &'a Map<String, Value>,
    /// For a client that uses mutual TLS.
    aliases: Option<&'a Map<String, Value>>,
    plain_allowed: bool,
}

impl<'a> Endpoints<'a> {
    /// Those of one whom we do not prove ourselves to.
    pub(super) fn new(document: &'a Map<String, Value>, plain_allowed: bool) -> Self {
        Self { document, aliases: None, plain_allowed }
    }

    /// An endpoint for us alone, at which the client proves itself, or shows a token that is bound to its certificate.
    fn direct(&self, name: &'static str) -> Result<Option<Uri>, DocumentFault> {
        let alias = self.aliases.map(|aliases| self.read(aliases, name)).transpose()?.flatten();
        let endpoint = if alias.is_some() { alias } else { self.optional(name)? };
        Ok(endpoint.map(|endpoint| endpoint.1))
    }

    pub(super) fn required(&self, name: &'static str) -> Result<(Url, Uri), DocumentFault> {
        self.optional(name)?.ok_or(DocumentFault::Endpoint(name))
    }

    /// An endpoint, for the browser and for us.
    fn optional(&self, name: &'static str) -> Result<Option<(Url, Uri)>, DocumentFault> {
        self.read(self.document, name)
    }

    /// A bad endpoint is no missing one.
    fn read(
        &self,
        document: &Map<String, Value>,
        name: &'static str,
    ) -> Result<Option<(Url, Uri)>, DocumentFault> {
        let text = match document.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value.as_str().ok_or(DocumentFault::Endpoint(name))?,
        };
        let url = Url::parse(text).ok().filter(|url| is_protected(url, self.plain_allowed));
        let endpoint = url.and_then(|url| Some((url.as_str().parse().ok()?, url)));
        endpoint.map(|(uri, url)| Some((url, uri))).ok_or(DocumentFault::Endpoint(name))
    }
}

/// RFC 8705 §5.
fn aliases(document: &Map<String, Value>) -> Result<Option<&Map<String, Value>>, DocumentFault> {
    const NAME: &str = "mtls_endpoint_aliases";
    match document.get(NAME) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(aliases)) => Ok(Some(aliases)),
        Some(_) => Err(DocumentFault::Endpoint(NAME)),
    }
}

async fn fetch(
    issuer: Issuer,
    uses_mutual_tls: bool,
    http: Arc<Http>,
) -> Result<Metadata, IssuerUnavailable> {
    let document = fetch_document(&issuer, &http).await?;
    Ok(Metadata::new(&document, &issuer, uses_mutual_tls).map_err(CallFault::from)?)
}

/// The metadata that are found at an issuer's, or a transmitter's, address.
pub(super) async fn fetch_document(
    issuer: &Issuer,
    http: &Http,
) -> Result<Map<String, Value>, IssuerUnavailable> {
    let answer = http.get(issuer.metadata_address(), []).await?;
    if answer.is_inconclusive() {
        return Err(answer.unavailable());
    }
    if answer.status != StatusCode::OK {
        return Err(CallFault::from(DocumentFault::Status(answer.status)).into());
    }
    Ok(answer.json_object().ok_or(DocumentFault::NotJson).map_err(CallFault::from)?)
}

/// R12: the issuer's list, without symmetric algorithms, `none`, and those not known here. RS256 where
/// there is no list, which every issuer must support (Discovery §3).
fn id_token_algorithms(document: &Map<String, Value>) -> Vec<Algorithm> {
    algorithms(document, "id_token_signing_alg_values_supported").unwrap_or_else(|| vec![Algorithm::RS256])
}

fn algorithms(document: &Map<String, Value>, list: &str) -> Option<Vec<Algorithm>> {
    let names = document.get(list)?.as_array()?.iter();
    let known = names.filter_map(|name| name.as_str()?.parse::<Algorithm>().ok());
    Some(known.filter(|algorithm| algorithm.family() != AlgorithmFamily::Hmac).collect())
}

/// RFC 8414 §2, with its default.
fn response_modes(document: &Map<String, Value>) -> Vec<String> {
    texts(document, "response_modes_supported")
        .unwrap_or_else(|| vec!["query".to_owned(), "fragment".to_owned()])
}

/// The texts of a list; `None` where there is none.
fn texts(document: &Map<String, Value>, name: &str) -> Option<Vec<String>> {
    let listed = document.get(name)?.as_array()?.iter();
    Some(listed.filter_map(|text| text.as_str().map(str::to_owned)).collect())
}

/// https, or http on loopback where the issuer itself is such a one.
pub(super) fn is_protected(url: &Url, plain_allowed: bool) -> bool {
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
        Metadata::new(document, &Issuer::parse(issuer).unwrap(), false)
    }

    /// RFC 8705 §5.
    #[test]
    fn a_client_that_uses_mutual_tls_asks_at_the_aliases_where_there_are_such() {
        let mut document = json!({
            "issuer": "https://id.test",
            "authorization_endpoint": "https://id.test/authorize",
            "token_endpoint": "https://id.test/token",
            "revocation_endpoint": "https://id.test/revoke",
            "userinfo_endpoint": "https://id.test/userinfo",
            "jwks_uri": "https://id.test/jwks",
            "mtls_endpoint_aliases": {
                "authorization_endpoint": "https://mtls.id.test/authorize",
                "token_endpoint": "https://mtls.id.test/token",
                "userinfo_endpoint": "https://mtls.id.test/userinfo",
                "pushed_authorization_request_endpoint": "https://mtls.id.test/push",
                "introspection_endpoint": "https://mtls.id.test/introspect",
                "device_authorization_endpoint": "https://mtls.id.test/device",
                "jwks_uri": "https://mtls.id.test/jwks",
            },
        });
        let read = |document: &Value, uses_mutual_tls| {
            let issuer = Issuer::parse("https://id.test").unwrap();
            Metadata::new(document.as_object().unwrap(), &issuer, uses_mutual_tls)
        };
        let metadata = read(&document, true).unwrap();
        assert_eq!(metadata.token_endpoint, "https://mtls.id.test/token");
        for (endpoint, path) in [
            (metadata.userinfo_endpoint, "userinfo"),
            (metadata.pushed_authorization_request_endpoint, "push"),
            (metadata.introspection_endpoint, "introspect"),
            (metadata.device_authorization_endpoint, "device"),
        ] {
            assert_eq!(endpoint.unwrap().to_string(), format!("https://mtls.id.test/{path}"));
        }
        assert_eq!(metadata.revocation_endpoint.unwrap(), "https://id.test/revoke", "it has no alias");
        assert_eq!(metadata.jwks_uri, "https://id.test/jwks", "anybody may ask there");
        assert_eq!(metadata.authorization_endpoint.as_str(), "https://id.test/authorize", "the browser's");
        assert_eq!(read(&document, false).unwrap().token_endpoint, "https://id.test/token");

        document["mtls_endpoint_aliases"]["token_endpoint"] = json!("http://mtls.id.test/token");
        assert_eq!(read(&document, true).unwrap_err(), DocumentFault::Endpoint("token_endpoint"));
        assert!(read(&document, false).is_ok());
        document["mtls_endpoint_aliases"] = json!("https://mtls.id.test");
        assert_eq!(read(&document, true).unwrap_err(), DocumentFault::Endpoint("mtls_endpoint_aliases"));
        document["mtls_endpoint_aliases"] = json!(null);
        assert_eq!(read(&document, true).unwrap().token_endpoint, "https://id.test/token");
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
