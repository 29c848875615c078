//! The clients of an app's OpenID issuers: each builds the URLs the browser is sent to, redeems codes and
//! refresh tokens, checks ID tokens and logout tokens, and revokes.
//!
//! Keeps OAuth 2.0 (RFC 6749) with PKCE (RFC 7636), OpenID Connect Core, Discovery, RP-Initiated and
//! Back-Channel Logout, token revocation (RFC 7009), introspection (RFC 7662), issuer identification (RFC 9207), client
//! assertions (RFC 7523), mutual TLS (RFC 8705), proofs of possession (RFC 9449), the device authorization grant (RFC 8628),
//! pushed (RFC 9126) and signed authorization requests (RFC 9101), resource indicators (RFC 8707), token exchange (RFC 8693) and signed authorization
//! responses (JARM). What an issuer says is
//! never believed by its own word: answers are bounded in size and time, redirects are not followed,
//! and its error texts never leave this room.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;

use crate::clock::Clock;
use crate::config;
use crate::dpop::{Key, Nonce};
use crate::random::Random;
use crate::reloaded::Reload;
use crate::secret::Secret;

use client_auth::ClientAuthentication;
use discovery::Discovery;
use http::Http;
use jwks::PublishedKeys;
use signing_key::SigningKey;

pub use authorize::AuthorizationRequest;
pub use clients::Clients;
pub use device::{DeviceAuthorization, DeviceLogin};
pub use discovery::Availability;
pub use error::{
    AuthorizationError, BuildError, CallFault, DeviceAuthorizationError, DeviceAuthorizationFault,
    DocumentFault, IdTokenFault, IntrospectError, IssuerUnavailable, JwtFault, LogoutTokenFault, PushedFault,
    RedeemError, RefreshError, ResponseError, ResponseIssuerError, RevokeError, SecurityEventError,
    SecurityEventFault, TokenFault, UserinfoFault,
};
pub use grants::Grants;
pub use introspect::Introspection;
pub use jwks::KEY_RENEWAL_INTERVAL;
pub use logout_token::{LoggedOut, LogoutToken, LogoutTokenError};
pub use response::AuthorizationResponse;
pub use revoke::{Revocation, TokenKind};
pub use security_event::{EndedSubject, SecurityEvent};
pub use transmitter::Transmitter;
pub use trial::Trial;

mod authorize;
mod cache;
mod client_auth;
mod clients;
mod device;
pub mod discovery;
mod dpop;
mod end_session;
mod error;
mod grants;
mod http;
pub mod id_token;
mod introspect;
pub mod json;
pub mod jwks;
pub mod jwt;
mod logout_token;
mod pushed;
mod request_object;
mod response;
mod revoke;
mod route_token;
mod security_event;
mod signing_key;
pub mod token;
mod transmitter;
mod trial;
mod userinfo;

/// The client of one app at one issuer.
pub struct Client {
    oidc: config::Oidc,
    redirect_uri: String,
    post_logout_redirect_uri: String,
    authentication: ClientAuthentication,
    /// Signs authorization requests, where they are to be signed.
    request_signer: Option<SigningKey>,
    http: Arc<Http>,
    discovery: Discovery,
    keys: PublishedKeys,
    /// What the client's own tokens are bound to, where they are; those of a login have a key of their own.
    dpop_key: Option<Arc<Key>>,
    /// What the issuer wants to see in proofs, as an authorization server and as the keeper of userinfo.
    nonce: Nonce,
    userinfo_nonce: Nonce,
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
    /// What the code is bound to (RFC 9449 §10), and its tokens will be.
    pub dpop_key: Option<Arc<Key>>,
}

impl Client {
    /// A client that has not yet spoken to its issuer: discovery waits until it is needed.
    ///
    /// # Errors
    /// Where TLS cannot be set up, or the client's own key or certificate cannot be used.
    pub fn new(
        oidc: &config::Oidc,
        redirect_uri: String,
        post_logout_redirect_uri: String,
        clock: Arc<dyn Clock>,
        random: Random,
    ) -> Result<Self, BuildError> {
        let http = Arc::new(Http::new(oidc)?);
        Ok(Self {
            authentication: ClientAuthentication::new(
                &oidc.client_id,
                oidc.issuer.as_str(),
                &oidc.client_auth,
            )?,
            request_signer: oidc.authorization.request_object.as_ref().map(SigningKey::new).transpose()?,
            discovery: Discovery::new(oidc, Arc::clone(&http), Arc::clone(&clock)),
            keys: PublishedKeys::new(Arc::clone(&http), Arc::clone(&clock)),
            dpop_key: oidc.dpop_bound_access_tokens.then(|| Arc::new(Key::generate(random))),
            nonce: Nonce::default(),
            userinfo_nonce: Nonce::default(),
            oidc: oidc.clone(),
            redirect_uri,
            post_logout_redirect_uri,
            http,
            clock,
            random,
        })
    }

    /// Whether this is the client that such a configuration describes.
    fn is_still(&self, oidc: &config::Oidc, redirect_uri: &str, post_logout_redirect_uri: &str) -> bool {
        self.oidc == *oidc
            && self.redirect_uri == redirect_uri
            && self.post_logout_redirect_uri == post_logout_redirect_uri
    }

    /// How old the issuer's word on an access token may be; `None` where it is not asked.
    pub fn introspection_interval(&self) -> Option<Duration> {
        self.oidc.introspection
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

    /// What it is called among the app's several issuers.
    pub fn name(&self) -> Option<&str> {
        self.oidc.name.as_deref()
    }

    /// Where its issuer sends the browser back to, below `base_path`.
    pub fn callback_path(&self) -> String {
        self.oidc.callback_path()
    }

    /// The client's id there.
    pub fn id(&self) -> &str {
        &self.oidc.client_id
    }

    /// Reads the client's certificate and keys again, those that it has.
    pub fn reloads(&self) -> impl Iterator<Item = Reload> {
        let keys = self
            .authentication
            .reload()
            .into_iter()
            .chain(self.request_signer.as_ref().map(SigningKey::reload));
        self.http.reload().into_iter().chain(keys)
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
