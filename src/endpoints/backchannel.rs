//! `POST backchannel-logout`: the issuer itself says that somebody has logged out (OpenID Connect Back-Channel
//! Logout 1.0 §2.5-2.8).
//!
//! A server calls, so there is neither a cookie nor an origin to be guarded; the token's signature is all.

use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::json;

use super::form::is_form;
use super::{Endpoints, ISSUER_WAIT, issuer_too_slow};
use crate::body::Body;
use crate::error::Refusal;
use crate::oidc::{JwtFault, LoggedOut, LogoutToken, LogoutTokenError};
use crate::respond;
use crate::secret::Secret;
use crate::session::{Cause, Whose};
use crate::telemetry::chain;

/// For how long a `jti` is remembered: longer than any token is accepted, be the clocks as far apart as they may.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// Why a request is answered with 400.
enum Invalid {
    Form,
    Token,
    Replayed,
}

impl Endpoints {
    pub(super) async fn backchannel_logout(
        &self,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Body>, Refusal> {
        if !is_form(head) {
            return Ok(invalid(&Invalid::Form));
        }
        let form = self.collect(body).await?;
        let Some(token) = logout_token(&form) else { return Ok(invalid(&Invalid::Form)) };
        let Some(client) = self.clients.for_token(&token) else {
            tracing::warn!(event = "backchannel.refused", error = %JwtFault::Issuer);
            self.note_refused("logout-token");
            return Ok(invalid(&Invalid::Token));
        };
        let read = tokio::time::timeout(ISSUER_WAIT, client.read_logout_token(&token));
        let LogoutToken { id, whose } = match read.await.map_err(|_| issuer_too_slow())? {
            Ok(read) => read,
            Err(LogoutTokenError::Unavailable(unavailable)) => return Err(unavailable.into()),
            Err(error @ LogoutTokenError::Fault(_)) => {
                tracing::warn!(event = "backchannel.refused", error = %chain(&error));
                self.note_refused("logout-token");
                return Ok(invalid(&Invalid::Token));
            }
        };
        let whose = Whose::from(whose);
        let (issuer, client_id) = (client.issuer(), client.id());
        let roster = self.roster.of_client(client);
        match self.sessions.is_claimed_for_client(issuer, client_id, &id).await {
            Ok(false) => {}
            Ok(true) => return Ok(self.replayed()),
            // The issuer may not ask again.
            Err(unavailable) => {
                roster.end_once_possible(whose, Cause::Backchannel);
                return Err(unavailable.into());
            }
        }
        roster.end(whose, Cause::Backchannel).await?;
        // Last, for a token that came to nothing, with this gateway or its store, must be good for another try.
        match self.sessions.claim_once_for_client(issuer, client_id, &id, REMEMBERED).await {
            Ok(true) => {}
            Ok(false) => return Ok(self.replayed()),
            Err(error) => tracing::warn!(event = "backchannel.not_remembered", %error),
        }
        Ok(respond::empty())
    }

    fn replayed(&self) -> Response<Body> {
        tracing::warn!(event = "backchannel.replayed");
        self.note_refused("logout-token");
        invalid(&Invalid::Replayed)
    }
}

impl From<LoggedOut> for Whose {
    fn from(logged_out: LoggedOut) -> Self {
        match logged_out {
            LoggedOut::Subject(subject) => Self::Subject(subject),
            LoggedOut::Sid(sid) => Self::Sid(sid),
            LoggedOut::Both { subject, sid } => Self::SubjectAndSid { subject, sid },
        }
    }
}

/// The one `logout_token` of a form. Parameters that are not known are ignored (§2.5).
fn logout_token(form: &[u8]) -> Option<Secret> {
    let mut tokens = form_urlencoded::parse(form).filter(|(name, _)| name == "logout_token");
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Some(Secret::new(token)),
        (_, _) => None,
    }
}

/// §2.8. Which check failed stands in the log alone.
fn invalid(reason: &Invalid) -> Response<Body> {
    let description = match reason {
        Invalid::Form => "A form with exactly one logout_token is wanted.",
        Invalid::Token => "The logout token is not acceptable.",
        Invalid::Replayed => "The logout token was used before.",
    };
    let mut response = respond::json(&json!({"error": "invalid_request", "error_description": description}));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
