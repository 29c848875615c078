//! How the client proves itself at the issuer's endpoints (RFC 6749 §2.3.1, RFC 7591 §2).

use ::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::byte_serialize;

use super::authorization;
use crate::config::ClientAuth;
use crate::secret::Secret;

/// What goes with each request to the token and revocation endpoints.
pub(super) enum ClientAuthentication {
    /// In the `Authorization` header, which takes any base64.
    Basic(Option<HeaderValue>),
    /// In the form.
    Post { client_id: String, client_secret: Secret },
    /// A public client, which names itself.
    None { client_id: String },
}

impl ClientAuthentication {
    pub(super) fn new(client_id: &str, method: &ClientAuth) -> Self {
        let client_id = client_id.to_owned();
        match method {
            ClientAuth::ClientSecretBasic(secret) => Self::Basic(basic(&client_id, secret)),
            ClientAuth::ClientSecretPost(secret) => Self::Post { client_id, client_secret: secret.clone() },
            ClientAuth::None => Self::None { client_id },
        }
    }

    /// The whole form with the client's proof, and the header that goes with it.
    pub(super) fn sign(&self, parameters: &[(&str, &str)]) -> (String, Option<HeaderValue>) {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(parameters);
        let header = match self {
            Self::Basic(header) => header.clone(),
            Self::Post { client_id, client_secret } => {
                form.append_pair("client_id", client_id);
                form.append_pair("client_secret", client_secret.expose());
                None
            }
            Self::None { client_id } => {
                form.append_pair("client_id", client_id);
                None
            }
        };
        (form.finish(), header)
    }
}

/// R60: both halves are form-encoded before they are joined, or a colon in an id would move the seam.
fn basic(client_id: &str, secret: &Secret) -> Option<HeaderValue> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let credentials = format!("{}:{}", encoded(client_id), encoded(secret.expose()));
    authorization("Basic", &STANDARD.encode(credentials))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authentication(method: &ClientAuth) -> (String, Option<HeaderValue>) {
        ClientAuthentication::new("a:b c", method).sign(&[("grant_type", "x y")])
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

    #[test]
    fn client_secret_post_and_none_name_the_client_in_the_form() {
        let (form, header) = authentication(&ClientAuth::ClientSecretPost(Secret::new("p&q")));
        assert_eq!((form.as_str(), header), ("grant_type=x+y&client_id=a%3Ab+c&client_secret=p%26q", None));
        let (form, header) = authentication(&ClientAuth::None);
        assert_eq!((form.as_str(), header), ("grant_type=x+y&client_id=a%3Ab+c", None));
    }
}
