//! The way to another server: name, TCP and TLS, all within one deadline.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tokio::net::TcpStream;
use tower::BoxError;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;

use crate::config::{CertificateAuthorities, Identity, InvalidIdentity};
use crate::reloaded::{Reload, Reloaded};

/// Makes connections in one version of HTTP, plain or with TLS as the address says.
pub type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// How long a connection that nobody uses is kept. Shorter than the 5 s after which Node.js, the shortest of
/// the common servers, closes: a request that meets a connection in the moment of its closing leaves everyone
/// in doubt whether it was processed.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// No connection can ever be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing to verify a certificate with.
    #[error("the machine's root certificates cannot be loaded")]
    RootCertificates(#[source] io::Error),
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// Our own certificate or its key.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
}

/// TLS towards another server: whom to believe, and who we are, which may change.
pub struct ClientTls {
    /// Without a certificate of our own.
    bare: Arc<ClientConfig>,
    own: Option<Own>,
}

/// A certificate of our own, and how TLS is spoken with it.
struct Own {
    identity: Arc<Reloaded<Identity>>,
    spoken: Mutex<(Arc<CertifiedKey>, Arc<ClientConfig>)>,
}

impl ClientTls {
    /// With the certificates that these authorities have signed, or with those of the machine's where there are
    /// none; and with a certificate of our own for those who ask.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(
        authorities: Option<&CertificateAuthorities>,
        identity: Option<&Identity>,
    ) -> Result<Self, BuildError> {
        let builder = match authorities {
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authorities.pem()).flatten());
                builder()?.with_root_certificates(roots)
            }
            None => builder()?.with_native_roots().map_err(BuildError::RootCertificates)?,
        };
        let bare = Arc::new(builder.with_no_client_auth());
        let own = identity.map(|identity| {
            let identity = Arc::new(Reloaded::new(identity.clone())?);
            let shown = identity.current();
            let config = Arc::new(showing(&bare, &shown));
            Ok::<_, InvalidIdentity>(Own { identity, spoken: Mutex::new((shown, config)) })
        });
        Ok(Self { own: own.transpose()?, bare })
    }

    /// For those who never speak TLS, and need no certificate authorities.
    ///
    /// # Errors
    /// Where the TLS library refuses its own defaults.
    pub fn none() -> Result<Self, BuildError> {
        let bare = builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        Ok(Self { bare: Arc::new(bare), own: None })
    }

    /// How TLS is spoken now: another one whenever our certificate is another.
    pub fn config(&self) -> Arc<ClientConfig> {
        let Some(Own { identity, spoken }) = &self.own else { return Arc::clone(&self.bare) };
        let shown = identity.current();
        let mut spoken = spoken.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&spoken.0, &shown) {
            let config = Arc::new(showing(&self.bare, &shown));
            *spoken = (shown, config);
        }
        Arc::clone(&spoken.1)
    }

    /// Reads our certificate again, where there is one.
    pub fn reload(&self) -> Option<Reload> {
        self.own.as_ref().map(|own| own.identity.reload())
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClientTls({:?})", self.own.as_ref().map(|own| &own.identity))
    }
}

/// A connector that gives up after `timeout`, the TLS handshake included: what it could not connect, it
/// has sent nothing to.
pub fn connector(timeout: Duration, tls: ClientConfig) -> Connector {
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    Connector::new(Timeout::new(connector.enable_http1().wrap_connector(tcp(timeout)), timeout))
}

/// The same for connections in HTTP/2.
pub fn http2_connector(timeout: Duration, tls: ClientConfig) -> Connector {
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    Connector::new(Timeout::new(connector.enable_http2().wrap_connector(tcp(timeout)), timeout))
}

fn tcp(timeout: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Shared out among the addresses of a name, so that a dead one does not use up all of it.
    tcp.set_connect_timeout(Some(timeout));
    tcp
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, BuildError> {
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(BuildError::Tls)
}

fn showing(bare: &ClientConfig, shown: &CertifiedKey) -> ClientConfig {
    let mut config = bare.clone();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown.clone()));
    // A session that is resumed is one of whoever began it, by the certificate of that time.
    config.resumption = Resumption::default();
    config
}
