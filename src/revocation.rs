//! Tells the issuer which tokens are no longer wanted (RFC 7009), and forgets none while it does not listen.
//!
//! A session's tokens are revoked once its record is gone, so that nobody can use it meanwhile. From then on this
//! process has them alone; so each is put into the store's outbox before the issuer is asked the first time, and
//! taken out when the issuer has had its say. What is left there, by an issuer that was away or by a crash, any
//! gateway runs later (`outbox`).

use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::oidc::{Grants, Revocation, RevokeError, TokenKind};
use crate::secret::Secret;
use crate::telemetry::chain;
use crate::tokens::Tokens;

use errand::Errand;

mod errand;
mod outbox;

pub use outbox::Outbox;

/// How long one try may take.
const TRY: Duration = Duration::from_secs(30);

/// The revocations of one app.
#[derive(Clone, Debug)]
pub struct Revocations {
    issuer: Issuer,
    outbox: Option<Arc<Outbox>>,
}

/// An app's issuer, and what it knows the app as.
#[derive(Clone, Debug)]
struct Issuer {
    grants: Arc<dyn Grants>,
    /// The app's origin.
    app: Arc<str>,
    url: Arc<str>,
    client_id: Arc<str>,
}

/// What became of a try.
enum Tried {
    /// The issuer has had its say, with this result.
    Settled(&'static str),
    /// The issuer gave no answer that can be used, and wants to be left alone for this long.
    Missed { retry_after: Duration },
}

impl Revocations {
    /// Revokes at this issuer, once, for one who has no outbox: what is missed then is lost.
    pub fn new(grants: Arc<dyn Grants>) -> Self {
        let nobody: Arc<str> = "".into();
        let issuer = Issuer { grants, app: nobody.clone(), url: nobody.clone(), client_id: nobody };
        Self { issuer, outbox: None }
    }

    /// Revokes at this app's issuer, and keeps what is missed.
    pub fn with_outbox(app: &config::App, grants: Arc<dyn Grants>, outbox: Arc<Outbox>) -> Self {
        let issuer = Issuer {
            grants,
            app: app.origin.as_str().into(),
            url: app.oidc.issuer.as_str().into(),
            client_id: app.oidc.client_id.as_str().into(),
        };
        Self { issuer, outbox: Some(outbox) }
    }

    /// R51: the refresh token, then the access token. Done when each was tried once; what was missed goes on
    /// by itself.
    pub async fn revoke(&self, tokens: &Tokens) {
        match &self.outbox {
            Some(outbox) => outbox.revoke(&self.issuer, tokens).await,
            None => {
                for (token, kind) in of(tokens) {
                    if let Err(error) = self.issuer.grants.revoke(token, kind).await {
                        tracing::warn!(event = "revocation.missed", kind = kind.as_str(), error = %chain(&error));
                    }
                }
            }
        }
    }
}

impl Issuer {
    /// Asks the issuer once.
    async fn run(&self, errand: &Errand) -> Tried {
        let kind = errand.kind.as_str();
        let asked = self.grants.revoke(&errand.token, errand.kind);
        match tokio::time::timeout(TRY, asked).await {
            Ok(Ok(Revocation::Revoked)) => Tried::Settled("revoked"),
            Ok(Ok(Revocation::NotOffered)) => Tried::Settled("not_offered"),
            Ok(Err(error @ RevokeError::Refused { .. })) => {
                tracing::error!(event = "revocation.refused", app = &*self.app, kind, error = %chain(&error));
                Tried::Settled("refused")
            }
            Ok(Err(RevokeError::Unavailable(unavailable))) => {
                tracing::warn!(event = "revocation.missed", app = &*self.app, kind, error = %chain(&unavailable));
                Tried::Missed { retry_after: unavailable.retry_after().unwrap_or_default() }
            }
            Err(_) => {
                tracing::warn!(
                    event = "revocation.missed",
                    app = &*self.app,
                    kind,
                    error = "no answer in time"
                );
                Tried::Missed { retry_after: Duration::ZERO }
            }
        }
    }
}

fn of(tokens: &Tokens) -> impl Iterator<Item = (&Secret, TokenKind)> {
    let refresh_token = tokens.refresh_token.as_ref().map(|token| (token, TokenKind::RefreshToken));
    refresh_token.into_iter().chain([(&tokens.access_token, TokenKind::AccessToken)])
}
