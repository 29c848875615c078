//! The client of one OpenID issuer: it builds the URLs the browser is sent to, redeems codes and
//! refresh tokens, checks ID tokens and logout tokens, and revokes.
//!
//! Keeps OAuth 2.0 (RFC 6749) with PKCE (RFC 7636), OpenID Connect Core, Discovery, RP-Initiated and
//! Back-Channel Logout, token revocation (RFC 7009) and issuer identification (RFC 9207). What an issuer says is
//! never believed by its own word: answers are bounded in size and time, redirects are not followed,
//! and its error texts never leave this room.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;

use crate::clock::Clock;
use crate::config;
use crate::connector;
use crate::random::Random;
use crate::secret::Secret;

use cache::Cached;
use client_auth::ClientAuthentication;
use discovery::Discovery;
use http::Http;
use jwks::KeySet;

pub use authorize::AuthorizationRequest;
pub use discovery::Availability;
pub use error::{
    CallFault, DocumentFault, IdTokenFault, IssuerUnavailable, JwtFault, LogoutTokenFault, RedeemError,
    RefreshError, ResponseIssuerError, RevokeError, TokenFault, UserinfoFault,
};
pub use grants::Grants;
pub use jwks::KEY_RENEWAL_INTERVAL;
pub use logout_token::{LoggedOut, LogoutToken, LogoutTokenError};
pub use revoke::{Revocation, TokenKind};

mod authorize;
mod cache;
mod client_auth;
pub mod discovery;
mod end_session;
mod error;
mod grants;
mod http;
pub mod id_token;
pub mod json;
pub mod jwks;
pub mod jwt;
mod logout_token;
mod revoke;
pub mod token;
mod userinfo;

/// The client of one app's issuer.
pub struct Client {
    oidc: config::Oidc,
    redirect_uri: String,
    post_logout_redirect_uri: String,
    authentication: ClientAuthentication,
    http: Arc<Http>,
    discovery: Discovery,
    keys: Cached<KeySet>,
    clock: Arc<dyn Clock>,
    random: Random,
}

/// What the callback of one login must bring, kept in its login cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// `nonce` of the ID token (Core §3.1.2.1).
    pub nonce: Secret,
    /// The PKCE `code_verifier` (RFC 7636 §4.1).
    pub verifier: Secret,
    /// Seconds since the user last proved who they are, where asked for.
    pub max_age: Option<u64>,
    /// Authentication contexts, one of which must have been met, where asked for.
    pub acr_values: Option<Vec<String>>,
}

impl Client {
    /// A client that has not yet spoken to its issuer: discovery waits until it is needed.
    ///
    /// # Errors
    /// Where the machine has no root certificates.
    pub fn new(
        oidc: &config::Oidc,
        redirect_uri: String,
        post_logout_redirect_uri: String,
        clock: Arc<dyn Clock>,
        random: Random,
    ) -> Result<Self, connector::BuildError> {
        let http = Arc::new(Http::new(oidc.timeout, !oidc.issuer.is_plain())?);
        Ok(Self {
            authentication: ClientAuthentication::new(&oidc.client_id, &oidc.client_auth),
            discovery: Discovery::new(&oidc.issuer, Arc::clone(&http), Arc::clone(&clock)),
            keys: Cached::new(Arc::clone(&clock)),
            oidc: oidc.clone(),
            redirect_uri,
            post_logout_redirect_uri,
            http,
            clock,
            random,
        })
    }

    /// Fetches the issuer's metadata unless it is known, to see whether the issuer is there.
    ///
    /// # Errors
    /// Where it is not.
    pub async fn discover(&self) -> Result<(), IssuerUnavailable> {
        self.discovery.metadata().await.map(drop)
    }

    /// Sees whether the issuer is there, unless that was done within `age`.
    ///
    /// # Errors
    /// Where it is not.
    pub async fn confirm(&self, age: Duration) -> Result<(), IssuerUnavailable> {
        self.discovery.confirmed(age).await.map(drop)
    }

    /// The issuer, as configured.
    pub fn issuer(&self) -> &str {
        self.oidc.issuer.as_str()
    }

    /// The client's id there.
    pub fn id(&self) -> &str {
        &self.oidc.client_id
    }

    /// The last known state of discovery. Asks nobody.
    pub fn availability(&self) -> Availability {
        self.discovery.availability()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("issuer", &self.issuer())
            .field("client_id", &self.oidc.client_id)
            .finish_non_exhaustive()
    }
}

/// How long answers that seldom change are used: the metadata and the keys.
const CACHE_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// An `Authorization` (RFC 9110 §11.6.2), kept out of every `Debug`. `None` where it cannot be sent.
fn authorization(scheme: &str, credentials: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("{scheme} {credentials}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
