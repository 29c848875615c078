//! `POST security-events`: a transmitter tells of a security event (OpenID Shared Signals Framework 1.0), as RFC 8935
//! has it pushed, and the sessions that it names end.
//!
//! A server calls, so there is neither a cookie nor an origin to be guarded; the token's signature is all, and what
//! else the transmitter was told to prove itself by.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::form::is_of_type;
use super::{Endpoints, ISSUER_WAIT, issuer_too_slow};
use crate::body::Body;
use crate::clock::Clock;
use crate::config;
use crate::connector;
use crate::error::{Reason, Refusal};
use crate::oidc::{
    EndedSubject, JwtFault, SecurityEvent, SecurityEventError, SecurityEventFault, Transmitter,
};
use crate::respond;
use crate::secret::Secret;
use crate::session::{Cause, Whose};
use crate::telemetry::chain;

/// Whose security events are taken, and by what they are known.
#[derive(Debug)]
pub struct Signals {
    transmitter: Transmitter,
    config: config::SharedSignals,
}

impl Signals {
    /// The events that the configuration names. What there was `before` is kept where that is as it was.
    ///
    /// # Errors
    /// Where the machine has no root certificates.
    pub fn new(
        signals: &config::SharedSignals,
        clock: &Arc<dyn Clock>,
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, connector::BuildError> {
        if let Some(before) = before.filter(|before| before.config == *signals) {
            return Ok(Arc::clone(before));
        }
        let transmitter = Transmitter::new(signals, Arc::clone(clock))?;
        Ok(Arc::new(Self { transmitter, config: signals.clone() }))
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(wanted) = &self.config.authorization else { return true };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        // By their hashes, so that the time it takes tells nothing about the text.
        let is_wanted = |given: &HeaderValue| Sha256::digest(given) == Sha256::digest(wanted.expose());
        matches!((given.next(), given.next()), (Some(only), None) if is_wanted(only))
    }
}

impl Endpoints {
    pub(super) async fn security_events(&self, head: &Parts, body: Body) -> Result<Response<Body>, Refusal> {
        let Some(signals) = &self.signals else {
            return Err(Refusal::new(Reason::NoSecurityEvents));
        };
        if !signals.is_authorized(&head.headers) {
            tracing::warn!(
                event = "signals.refused",
                error = "the Authorization field is not the one agreed on"
            );
            self.note_refused("security-event");
            return Ok(refused("authentication_failed", "The Authorization field is not the one agreed on."));
        }
        if !is_of_type(head, "application/secevent+jwt") {
            return Ok(refused("invalid_request", "A body of application/secevent+jwt is wanted."));
        }
        let body = self.collect(body).await?;
        let Ok(token) = std::str::from_utf8(&body).map(|text| Secret::new(text.trim())) else {
            return Ok(refused("invalid_request", "The body is no security event token."));
        };
        let read = tokio::time::timeout(ISSUER_WAIT, signals.transmitter.read(&token));
        match read.await.map_err(|_| issuer_too_slow())? {
            Ok(said) => self.act_upon(said, &signals.transmitter).await,
            Err(SecurityEventError::Unavailable(unavailable)) => Err(unavailable.into()),
            Err(error @ SecurityEventError::Fault(fault)) => {
                tracing::warn!(event = "signals.refused", error = %chain(&error));
                self.note_refused("security-event");
                Ok(explain(fault))
            }
        }
    }

    /// Ends what the event names. Where the store is away the transmitter is told so, and sends it again.
    async fn act_upon(
        &self,
        said: SecurityEvent,
        transmitter: &Transmitter,
    ) -> Result<Response<Body>, Refusal> {
        let SecurityEvent { id, ended, names_unknown } = said;
        if names_unknown {
            tracing::warn!(event = "signals.subject_unknown", "it is named in a way that is not known here");
        }
        if ended.is_empty() {
            return Ok(accepted());
        }
        // Each app has a stream of its own, and acts upon the same token by itself.
        let (sender, receiver) = (transmitter.issuer(), self.sessions.app());
        if self.sessions.is_claimed_for_client(sender, receiver, &id).await? {
            tracing::info!(event = "signals.repeated");
            return Ok(accepted());
        }
        for EndedSubject { issuer, whose } in ended {
            let client = match &issuer {
                Some(issuer) => self.clients.of(issuer),
                // A name without an issuer is the transmitter's own.
                None => self.clients.of(sender).or(self.clients.only()),
            };
            match client {
                Some(client) => {
                    // Other apps of this client may not trust the transmitter.
                    let roster = self.roster.of_client(client).of_app(receiver);
                    roster.end(Whose::from(whose), Cause::SharedSignals).await?;
                }
                None => tracing::warn!(event = "signals.subject_unknown", "its issuer is none of this app's"),
            }
        }
        // Last, for a token that came to nothing must be good for another try.
        let remembered = Transmitter::REMEMBERED;
        if let Err(error) = self.sessions.claim_once_for_client(sender, receiver, &id, remembered).await {
            tracing::warn!(event = "signals.not_remembered", %error);
        }
        Ok(accepted())
    }
}

/// RFC 8935 §2.2.
fn accepted() -> Response<Body> {
    let mut response = respond::empty();
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

fn explain(fault: SecurityEventFault) -> Response<Body> {
    match fault {
        SecurityEventFault::Jwt(JwtFault::Issuer) => {
            refused("invalid_issuer", "Security events of this issuer are not taken here.")
        }
        SecurityEventFault::Audience | SecurityEventFault::Jwt(JwtFault::Audience) => {
            refused("invalid_audience", "The token is for another receiver.")
        }
        SecurityEventFault::Jwt(
            JwtFault::Algorithm | JwtFault::UnknownKey | JwtFault::Signature | JwtFault::Encrypted,
        ) => refused("invalid_key", "The token is not signed by a key that its issuer publishes."),
        SecurityEventFault::Jwt(
            JwtFault::TooLarge
            | JwtFault::Malformed
            | JwtFault::Critical
            | JwtFault::AuthorizedParty
            | JwtFault::Expired
            | JwtFault::IssuedAt
            | JwtFault::NotBefore,
        )
        | SecurityEventFault::Type
        | SecurityEventFault::TokenId
        | SecurityEventFault::Events
        | SecurityEventFault::Subject => {
            refused("invalid_request", "The security event token is not acceptable.")
        }
    }
}

/// RFC 8935 §2.3, §2.4. Which check failed stands in the log alone.
fn refused(err: &'static str, description: &'static str) -> Response<Body> {
    let mut response = respond::json(&json!({"err": err, "description": description}));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    response
}
