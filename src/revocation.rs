//! Tells the issuer which tokens are no longer wanted (RFC 7009), and forgets none while it does not listen.
//!
//! A session's tokens are revoked once its record is gone, so that nobody can use it meanwhile. From then on this
//! process has them alone; so each is put into the store's outbox before the issuer is asked the first time, and
//! taken out when the issuer has had its say. What is left there, by an issuer that was away or by a crash, any
//! gateway runs later (`outbox`).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config;
use crate::oidc::{Grants, Revocation, RevokeError, TokenKind};
use crate::secret::Secret;
use crate::telemetry::chain;
use crate::tokens::{Identity, Tokens};

use errand::Errand;

mod errand;
mod outbox;

pub use outbox::Outbox;

/// How long one try may take.
const TRY: Duration = Duration::from_secs(30);

/// Of how many issuers that no app has any more revocations are still run.
const MOST_FORMER: usize = 32;

/// The revocations of one app.
#[derive(Clone, Debug)]
pub struct Revocations {
    issuers: Arc<[Issuer]>,
    outbox: Option<Arc<Outbox>>,
}

/// One of an app's issuers, and what it knows the app as.
#[derive(Clone, Debug)]
struct Issuer {
    grants: Arc<dyn Grants>,
    /// The app's origin.
    app: Arc<str>,
    url: Arc<str>,
    client_id: Arc<str>,
}

/// A token that is no longer wanted.
#[derive(Clone, Copy, Debug)]
pub struct Unwanted<'a> {
    token: &'a Secret,
    kind: TokenKind,
    /// When it dies by itself, where that is known.
    expires_at: Option<Timestamp>,
}

/// What became of a try.
enum Tried {
    /// The issuer has had its say, with this result.
    Settled(&'static str),
    /// The issuer gave no answer that can be used, and wants to be left alone for this long.
    Missed { retry_after: Duration },
}

impl Revocations {
    /// Revokes at this app's issuers, once, for one who has no outbox: what is missed then is lost.
    pub fn new(app: &config::App, grants: &Arc<dyn Grants>) -> Self {
        let origin: Arc<str> = app.origin.as_str().into();
        let issuers = app.oidc.iter().map(|oidc| Issuer {
            grants: Arc::clone(grants),
            app: Arc::clone(&origin),
            url: oidc.issuer.as_str().into(),
            client_id: oidc.client_id.as_str().into(),
        });
        Self { issuers: issuers.collect(), outbox: None }
    }

    /// Revokes at this app's issuers, and keeps what is missed.
    pub fn with_outbox(app: &config::App, grants: &Arc<dyn Grants>, outbox: Arc<Outbox>) -> Self {
        Self { outbox: Some(outbox), ..Self::new(app, grants) }
    }

    /// At the issuers that apps had `before` and have no more, those that went last first: what waits for them in the
    /// outbox nobody else may be able to run.
    #[must_use]
    pub fn of_former_apps(now: &[Self], before: &[Self]) -> Self {
        let is_still = |former: &Issuer| {
            let mut issuers = now.iter().flat_map(|app| app.issuers.iter());
            issuers.any(|issuer| issuer.url == former.url && issuer.client_id == former.client_id)
        };
        let former = before.iter().flat_map(|app| app.issuers.iter()).filter(|issuer| !is_still(issuer));
        Self { issuers: former.take(MOST_FORMER).cloned().collect(), outbox: None }
    }

    /// R51: the refresh token, then the access token and those of routes, at the issuer that they came from. Done when
    /// each was tried once; what was missed goes on by itself.
    pub async fn revoke(&self, whose: &Identity, tokens: &Tokens) {
        self.revoke_these(whose, &of(tokens)).await;
    }

    /// The same of some tokens, in this order.
    pub async fn revoke_these(&self, whose: &Identity, all: &[Unwanted<'_>]) {
        let Some(issuer) = self.issuers.iter().find(|known| *known.url == whose.issuer) else {
            let issuer = whose.issuer.as_str();
            tracing::error!(event = "revocation.given_up", issuer, "the issuer is not configured any more");
            return;
        };
        match &self.outbox {
            Some(outbox) => outbox.revoke(issuer, &whose.subject, all).await,
            None => {
                for &Unwanted { token, kind, .. } in all {
                    if let Err(error) = issuer.grants.revoke(&issuer.url, token, kind).await {
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
        let asked = self.grants.revoke(&self.url, &errand.token, errand.kind);
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

impl<'a> Unwanted<'a> {
    /// An access token that dies at this moment.
    pub fn access_token(token: &'a Secret, expires_at: Timestamp) -> Self {
        Self { token, kind: TokenKind::AccessToken, expires_at: Some(expires_at) }
    }

    /// A refresh token, which may live for ever.
    pub fn refresh_token(token: &'a Secret) -> Self {
        Self { token, kind: TokenKind::RefreshToken, expires_at: None }
    }
}

fn of(tokens: &Tokens) -> Vec<Unwanted<'_>> {
    let refresh_token = tokens.refresh_token.as_ref().map(Unwanted::refresh_token);
    let access_token = Unwanted::access_token(&tokens.access_token, tokens.expires_at);
    let of_routes = tokens.route_tokens.values();
    let of_routes = of_routes.map(|token| Unwanted::access_token(&token.value, token.expires_at));
    refresh_token.into_iter().chain([access_token]).chain(of_routes).collect()
}
