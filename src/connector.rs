//! The way to another server: name, TCP and TLS, all within one deadline.

use std::io;
use std::time::Duration;

use http::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tokio::net::TcpStream;
use tower::BoxError;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;

use crate::config::CertificateAuthorities;

/// Makes connections in HTTP/1.1, plain or with TLS as the address says.
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
}

/// A connector that gives up after `timeout`, the TLS handshake included: what it could not connect, it
/// has sent nothing to. The machine's root certificates are loaded where `tls` is wanted; without them
/// no certificate is good.
///
/// # Errors
/// Where TLS is wanted and cannot be set up.
pub fn connector(timeout: Duration, tls: bool) -> Result<Connector, BuildError> {
    let config =
        if tls { self::tls(None)? } else { builder()?.with_root_certificates(RootCertStore::empty()) };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Shared out among the addresses of a name, so that a dead one does not use up all of it.
    tcp.set_connect_timeout(Some(timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config.with_no_client_auth())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Connector::new(Timeout::new(connector, timeout)))
}

/// TLS with the certificates that these authorities have signed; with those of the machine's where there
/// are none.
///
/// # Errors
/// Where TLS cannot be set up.
pub fn tls(
    authorities: Option<&CertificateAuthorities>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, BuildError> {
    let Some(authorities) = authorities else {
        return builder()?.with_native_roots().map_err(BuildError::RootCertificates);
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authorities.pem()).flatten());
    Ok(builder()?.with_root_certificates(roots))
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, BuildError> {
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(BuildError::Tls)
}
