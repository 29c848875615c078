//! A transmitter of security events (OpenID Shared Signals Framework 1.0 §7): its metadata, its keys, and the tokens
//! that it has signed. Fetched, bounded and kept like an issuer's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::Uri;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::cache::Cached;
use super::discovery::{Endpoints, fetch_document};
use super::error::{
    CallFault, DocumentFault, IssuerUnavailable, JwtFault, SecurityEventError, SecurityEventFault,
};
use super::http::Http;
use super::jwks::PublishedKeys;
use super::jwt::{Jwt, SignatureError};
use super::security_event::{LONGEST_AGE, SecurityEvent};
use crate::clock::Clock;
use crate::config;
use crate::connector;
use crate::secret::Secret;

/// For one call to the transmitter.
const TIMEOUT: Duration = Duration::from_secs(10);

/// R12: what events may be signed with. The metadata name none, so that the keys decide among the asymmetric ones.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
];

/// Who sends an app security events.
pub struct Transmitter {
    issuer: config::Issuer,
    audience: Vec<String>,
    http: Arc<Http>,
    metadata: Cached<Metadata>,
    keys: PublishedKeys,
    clock: Arc<dyn Clock>,
}

/// What the gateway needs of a transmitter's metadata (§7.1).
struct Metadata {
    jwks_uri: Uri,
    /// Parts of a subject that must be understood, or the event be ignored.
    critical_subject_members: Vec<String>,
}

impl Transmitter {
    /// For how long a token may come again after it was made, and a while: so long its `jti` is remembered.
    pub const REMEMBERED: Duration = Duration::from_secs(LONGEST_AGE + 60 * 60);

    /// A transmitter that was not yet spoken to.
    ///
    /// # Errors
    /// Where the machine has no root certificates.
    pub fn new(
        signals: &config::SharedSignals,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, connector::BuildError> {
        let http = Arc::new(Http::to(&signals.transmitter, None, None, TIMEOUT)?);
        Ok(Self {
            issuer: signals.transmitter.clone(),
            audience: signals.audience.clone(),
            metadata: Cached::new(Arc::clone(&clock)),
            keys: PublishedKeys::new(Arc::clone(&http), Arc::clone(&clock)),
            http,
            clock,
        })
    }

    /// Its name, as configured.
    pub fn issuer(&self) -> &str {
        self.issuer.as_str()
    }

    /// Fetches the metadata unless they are known, to see whether the transmitter is there.
    ///
    /// # Errors
    /// Where it is not.
    pub async fn discover(&self) -> Result<(), IssuerUnavailable> {
        self.metadata().await.map(drop)
    }

    /// What a security event token says, once all checks have passed but that of its `jti`.
    ///
    /// # Errors
    /// [`SecurityEventError::Unavailable`] says nothing about the token.
    pub async fn read(&self, token: &Secret) -> Result<SecurityEvent, SecurityEventError> {
        let jwt = Jwt::read(token, &ALGORITHMS).map_err(SecurityEventFault::from)?;
        let metadata = self.metadata().await?;
        let critical = &metadata.critical_subject_members;
        let said = SecurityEvent::check(&jwt, self.issuer(), &self.audience, critical, self.clock.now())?;
        // Last, for it may have to fetch keys: whatever anybody sends here must not make us do so.
        match self.keys.check_signature(&metadata.jwks_uri, &jwt).await {
            Ok(()) => Ok(said),
            Err(SignatureError::Unavailable(unavailable)) => Err(unavailable.into()),
            Err(SignatureError::Fault(fault)) => Err(SecurityEventFault::from(fault).into()),
        }
    }

    async fn metadata(&self) -> Result<Arc<Metadata>, IssuerUnavailable> {
        self.metadata.get(fetch(self.issuer.clone(), Arc::clone(&self.http))).await
    }
}

impl Metadata {
    fn new(document: &Map<String, Value>, transmitter: &config::Issuer) -> Result<Self, DocumentFault> {
        if document.get("issuer").and_then(Value::as_str) != Some(transmitter.as_str()) {
            return Err(DocumentFault::Issuer);
        }
        let endpoints = Endpoints::new(document, transmitter.is_plain());
        let critical = document.get("critical_subject_members").and_then(Value::as_array);
        let critical = critical.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        Ok(Self { jwks_uri: endpoints.required("jwks_uri")?.1, critical_subject_members: critical.collect() })
    }
}

impl fmt::Debug for Transmitter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Transmitter").field("issuer", &self.issuer()).finish_non_exhaustive()
    }
}

impl From<JwtFault> for SecurityEventError {
    fn from(fault: JwtFault) -> Self {
        Self::Fault(fault.into())
    }
}

async fn fetch(transmitter: config::Issuer, http: Arc<Http>) -> Result<Metadata, IssuerUnavailable> {
    let document = fetch_document(&transmitter, &http).await?;
    Ok(Metadata::new(&document, &transmitter).map_err(CallFault::from)?)
}
