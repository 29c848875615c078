//! HTTPS: TLS 1.2 and 1.3, and a certificate that may change while the gateway runs.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::clock::Timestamp;
use crate::config::{Identity, InvalidIdentity};
use crate::reloaded::Reloaded;
use crate::telemetry::metrics::Metrics;

/// HTTP/2 as ALPN names it (RFC 9113 §3.1).
const HTTP2: &[u8] = b"h2";

/// HTTP/1.1 as ALPN names it (RFC 7301 §6).
const HTTP11: &[u8] = b"http/1.1";

/// What every client's connection is encrypted with.
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    identity: Arc<Reloaded<Identity>>,
    metrics: Metrics,
}

/// What the two parties have agreed to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreed {
    Http11,
    Http2,
}

impl Tls {
    /// # Errors
    /// Where the certificate cannot be used.
    pub(super) fn new(identity: Identity, metrics: Metrics) -> Result<Self, InvalidTls> {
        let identity = Arc::new(Reloaded::new(identity)?);
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&identity) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP11.to_vec()];
        // Who comes back spares both sides a signature, and this process keeps nothing for it.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        let tls = Self { acceptor: TlsAcceptor::from(Arc::new(config)), identity, metrics };
        tls.note_end();
        Ok(tls)
    }

    /// Whether it is the certificate in these files that it shows.
    pub(super) fn is_of(&self, files: &Identity) -> bool {
        self.identity.files() == files
    }

    /// The server's side of the handshake.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Agreed)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(stream).await?;
        let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok((stream, if speaks_http2 { Agreed::Http2 } else { Agreed::Http11 }))
    }

    /// Until when the certificate is good (RFC 5280 §4.1.2.5).
    pub(super) fn good_until(&self) -> Option<Timestamp> {
        let identity = self.identity.current();
        let certificate = Certificate::from_der(identity.end_entity_cert().ok()?).ok()?;
        let not_after = certificate.tbs_certificate().validity().not_after;
        Some(Timestamp::from_secs(not_after.to_unix_duration().as_secs()))
    }

    /// Reads the certificate and its key again.
    pub(super) fn reload(&self) {
        self.identity.read_again();
        self.note_end();
    }

    /// For those who watch when the certificate is to be replaced.
    fn note_end(&self) {
        if let Some(end) = self.good_until() {
            self.metrics.set_certificate_end(&self.identity.files().certificate, end);
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Tls({:?})", self.identity)
    }
}

impl ResolvesServerCert for Reloaded<Identity> {
    /// One certificate for all apps. Which of them is meant, `Host` says.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTls {
    /// The certificate and its key cannot be used.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// The cryptographic library refuses.
    #[error(transparent)]
    Library(#[from] rustls::Error),
}
