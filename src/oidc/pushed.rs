//! Pushed authorization requests (RFC 9126): the request goes to the issuer directly, which checks the client and
//! all it asks for before a browser is sent there; nobody can read it on the way, or change it.

use ::http::{StatusCode, Uri};

use super::Client;
use super::discovery::Metadata;
use super::error::{AuthorizationError, DocumentFault, PushedFault};
use super::http::Answer;
use crate::config::PushedAuthorizationRequests;

/// How long a `request_uri` may be, in bytes: it has to fit in an address.
const LONGEST_REQUEST_URI: usize = 1024;

impl Client {
    /// Whether the issuer takes authorization requests and sends its responses in the ways that are configured, as far
    /// as its metadata say. For an operator: a login finds it out by itself.
    ///
    /// # Errors
    /// Where it does not, or its metadata are not to be had.
    pub async fn check_offer(&self) -> Result<(), super::IssuerUnavailable> {
        let metadata = self.discovery.metadata().await?;
        self.push_endpoint(&metadata)?;
        if self.request_signer.is_some() && !metadata.takes_request_objects {
            return Err(DocumentFault::TakesNoRequestObjects.into());
        }
        let mode = self.oidc.authorization.response_mode.as_str();
        if metadata.response_modes.iter().any(|offered| offered == mode) {
            Ok(())
        } else {
            Err(DocumentFault::ResponseMode(mode).into())
        }
    }

    /// Where the request is pushed to; `None` where it goes through the browser.
    pub(super) fn push_endpoint<'a>(&self, metadata: &'a Metadata) -> Result<Option<&'a Uri>, DocumentFault> {
        let endpoint = metadata.pushed_authorization_request_endpoint.as_ref();
        match (self.oidc.authorization.pushed, endpoint) {
            (PushedAuthorizationRequests::Required, None) => Err(DocumentFault::TakesNoPushedRequests),
            (PushedAuthorizationRequests::Off, _) if metadata.requires_pushed_authorization_requests => {
                Err(DocumentFault::WantsPushedRequests)
            }
            (PushedAuthorizationRequests::Off, _) => Ok(None),
            (PushedAuthorizationRequests::Auto | PushedAuthorizationRequests::Required, endpoint) => {
                Ok(endpoint)
            }
        }
    }

    /// Pushes the request, and gives what is left for the browser to bring (RFC 9126 §4).
    pub(super) async fn push(
        &self,
        endpoint: &Uri,
        parameters: &[(&str, &str)],
    ) -> Result<Vec<(String, String)>, AuthorizationError> {
        let answer = self.post_as_client(endpoint, parameters).await?;
        if answer.is_inconclusive() {
            return Err(answer.unavailable().into());
        }
        if answer.status.is_client_error() {
            return match answer.error_code().as_deref() {
                // As some issuers say it of a trouble of their own.
                Some("temporarily_unavailable" | "server_error") => Err(answer.unavailable().into()),
                _ => Err(AuthorizationError::Refused { error: answer.refusal() }),
            };
        }
        let request_uri = request_uri(&answer)?;
        Ok(vec![
            ("client_id".to_owned(), self.oidc.client_id.clone()),
            ("request_uri".to_owned(), request_uri),
        ])
    }
}

/// What the issuer knows the request by from now on, and for how long does not matter: the browser goes there at once.
fn request_uri(answer: &Answer) -> Result<String, PushedFault> {
    // 201 by RFC 9126 §2.2; some issuers answer with 200.
    if !matches!(answer.status, StatusCode::CREATED | StatusCode::OK) {
        return Err(PushedFault::Status(answer.status));
    }
    let body = answer.json_object().ok_or(PushedFault::NotJson)?;
    let uri = body.get("request_uri").and_then(serde_json::Value::as_str);
    let is_uri = |uri: &&str| {
        (1..=LONGEST_REQUEST_URI).contains(&uri.len()) && uri.bytes().all(|byte| byte.is_ascii_graphic())
    };
    uri.filter(is_uri).map(str::to_owned).ok_or(PushedFault::RequestUri)
}
