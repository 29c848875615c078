//! How the client proves itself at the issuer's endpoints (RFC 6749 §2.3.1, RFC 7591 §2): by a secret, by a JWT that
//! it signs (RFC 7523 §2.2), or by the certificate of the connection (RFC 8705 §2).

use ::http::header::AUTHORIZATION;
use ::http::{HeaderName, HeaderValue, Uri};
use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::byte_serialize;
use serde_json::json;

use super::error::{CallFault, IssuerUnavailable};
use super::http::Answer;
use super::signing_key::SigningKey;
use super::{Client, authorization};
use crate::clock::Timestamp;
use crate::config::{AssertionAudience, ClientAuth, InvalidSigningKey};
use crate::random::Random;
use crate::reloaded::Reload;
use crate::secret::Secret;

/// How long an assertion is good, in seconds: as long as its way may take, and the clocks may differ.
const ASSERTION_LIFETIME: u64 = 60;

/// What goes with each request to an endpoint at which the client proves itself.
pub(super) enum ClientAuthentication {
    /// In the `Authorization` header, which takes any base64.
    Basic(Option<HeaderValue>),
    /// In the form.
    Post { client_id: String, client_secret: Secret },
    /// A JWT of its own for each request.
    PrivateKeyJwt { client_id: String, key: SigningKey, issuer: String, audience: AssertionAudience },
    /// The name alone: a public client has no proof, and a certificate is one by itself (RFC 8705 §2).
    Named { client_id: String },
}

impl Client {
    /// `POST` of a form to an endpoint at which the client proves itself. All of them are asked by this, and each
    /// call brings a proof of its own: an issuer takes an assertion once (RFC 7523 §3).
    pub(super) async fn post_as_client(
        &self,
        endpoint: &Uri,
        parameters: &[(&str, &str)],
    ) -> Result<Answer, IssuerUnavailable> {
        self.post_as_client_with(endpoint, parameters, []).await
    }

    /// The same, with these fields beside the client's own.
    pub(super) async fn post_as_client_with<const N: usize>(
        &self,
        endpoint: &Uri,
        parameters: &[(&str, &str)],
        fields: [(HeaderName, HeaderValue); N],
    ) -> Result<Answer, IssuerUnavailable> {
        let signed = self.authentication.sign(endpoint, parameters, self.clock.now(), self.random);
        let (form, authorization) = signed.map_err(|Unspecified| CallFault::NotSigned)?;
        let authorization = authorization.map(|value| (AUTHORIZATION, value));
        Ok(self.http.post(endpoint, form, authorization.into_iter().chain(fields)).await?)
    }
}

impl ClientAuthentication {
    pub(super) fn new(client_id: &str, issuer: &str, method: &ClientAuth) -> Result<Self, InvalidSigningKey> {
        let client_id = client_id.to_owned();
        Ok(match method {
            ClientAuth::ClientSecretBasic(secret) => Self::Basic(basic(&client_id, secret)),
            ClientAuth::ClientSecretPost(secret) => Self::Post { client_id, client_secret: secret.clone() },
            ClientAuth::PrivateKeyJwt { key, audience } => {
                let (key, issuer) = (SigningKey::new(key)?, issuer.to_owned());
                Self::PrivateKeyJwt { client_id, key, issuer, audience: *audience }
            }
            ClientAuth::MutualTls | ClientAuth::None => Self::Named { client_id },
        })
    }

    /// Reads the key again, where the client has one that signs.
    pub(super) fn reload(&self) -> Option<Reload> {
        match self {
            Self::PrivateKeyJwt { key, .. } => Some(key.reload()),
            Self::Basic(_) | Self::Post { .. } | Self::Named { .. } => None,
        }
    }

    /// Whether the form names the client.
    fn is_in_form(&self) -> bool {
        match self {
            Self::Basic(_) => false,
            Self::Post { .. } | Self::PrivateKeyJwt { .. } | Self::Named { .. } => true,
        }
    }

    /// The whole form with the client's proof, and the header that goes with it.
    fn sign(
        &self,
        endpoint: &Uri,
        parameters: &[(&str, &str)],
        now: Timestamp,
        random: Random,
    ) -> Result<(String, Option<HeaderValue>), Unspecified> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        // A pushed authorization request names the client by itself, and no parameter may stand twice.
        form.extend_pairs(parameters.iter().filter(|(name, _)| !self.is_in_form() || *name != "client_id"));
        let header = match self {
            Self::Basic(header) => header.clone(),
            Self::Post { client_id, client_secret } => {
                form.append_pair("client_id", client_id);
                form.append_pair("client_secret", client_secret.expose());
                None
            }
            Self::PrivateKeyJwt { client_id, key, issuer, audience } => {
                let audience = match audience {
                    AssertionAudience::Issuer => issuer.clone(),
                    AssertionAudience::Endpoint => endpoint.to_string(),
                };
                let issued_at = now.as_secs();
                let assertion = key.sign(
                    "JWT",
                    &json!({
                        "iss": client_id,
                        "sub": client_id,
                        "aud": audience,
                        "jti": random.token::<16>(),
                        "iat": issued_at,
                        "exp": issued_at + ASSERTION_LIFETIME,
                    }),
                )?;
                form.append_pair("client_id", client_id);
                form.append_pair("client_assertion_type", ASSERTION_TYPE);
                form.append_pair("client_assertion", assertion.expose());
                None
            }
            Self::Named { client_id } => {
                form.append_pair("client_id", client_id);
                None
            }
        };
        Ok((form.finish(), header))
    }
}

/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// R60: both halves are form-encoded before they are joined, or a colon in an id would move the seam.
fn basic(client_id: &str, secret: &Secret) -> Option<HeaderValue> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let credentials = format!("{}:{}", encoded(client_id), encoded(secret.expose()));
    authorization("Basic", &STANDARD.encode(credentials))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::os::unix::fs::PermissionsExt;

    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    use super::*;
    use crate::config::SigningKey;

    fn authentication(method: &ClientAuth) -> (String, Option<HeaderValue>) {
        let authentication = ClientAuthentication::new("a:b c", "https://id.example.com", method).unwrap();
        let endpoint = Uri::from_static("https://id.example.com/token");
        let now = Timestamp::from_secs(1_700_000_000);
        authentication.sign(&endpoint, &[("grant_type", "x y")], now, Random::SYSTEM).unwrap()
    }

    #[test]
    fn r60_client_secret_basic_form_encodes_both_halves() {
        let (form, header) = authentication(&ClientAuth::ClientSecretBasic(Secret::new("p%:+ü")));
        assert_eq!(form, "grant_type=x+y");
        let header = header.unwrap();
        let credentials = STANDARD.decode(header.to_str().unwrap().strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(String::from_utf8(credentials).unwrap(), "a%3Ab+c:p%25%3A%2B%C3%BC");
        assert_eq!(format!("{header:?}"), "Sensitive");
    }

    /// RFC 8037 appendix A.1.
    const KEY: &str = r#"{"kty": "OKP", "crv": "Ed25519", "kid": "a",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    /// The header and the claims of the assertion that goes with a request, and what else is in the form.
    fn assertion(audience: AssertionAudience) -> (Value, Value, HashMap<String, String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, KEY).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let key = SigningKey::in_file(path);
        let (form, header) = authentication(&ClientAuth::PrivateKeyJwt { key, audience });
        assert_eq!(header, None);
        let mut form: HashMap<_, _> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let assertion = form.remove("client_assertion").unwrap();
        let parts: Vec<_> = assertion.split('.').collect();
        let json = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        (json(parts[0]), json(parts[1]), form)
    }

    #[test]
    fn an_assertion_is_the_clients_own_for_the_issuer_alone_and_for_a_minute() {
        let (header, mut claims, form) = assertion(AssertionAudience::Issuer);
        assert_eq!(header, json!({"alg": "EdDSA", "typ": "JWT", "kid": "a"}));
        let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
        let now = 1_700_000_000;
        let issuer = "https://id.example.com";
        assert_eq!(
            claims,
            json!({"iss": "a:b c", "sub": "a:b c", "aud": issuer, "iat": now, "exp": now + 60})
        );
        let rest = [
            ("grant_type", "x y"),
            ("client_id", "a:b c"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ];
        assert_eq!(form, rest.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let (_, claims, _) = assertion(AssertionAudience::Endpoint);
        assert_eq!(claims["aud"], "https://id.example.com/token");
        assert_ne!(claims["jti"], jti);
    }

    #[test]
    fn the_client_is_named_in_the_form_with_its_secret_or_with_nothing() {
        let (form, header) = authentication(&ClientAuth::ClientSecretPost(Secret::new("p&q")));
        assert_eq!((form.as_str(), header), ("grant_type=x+y&client_id=a%3Ab+c&client_secret=p%26q", None));
        for method in [ClientAuth::None, ClientAuth::MutualTls] {
            let (form, header) = authentication(&method);
            assert_eq!((form.as_str(), header), ("grant_type=x+y&client_id=a%3Ab+c", None));
        }
    }
}
