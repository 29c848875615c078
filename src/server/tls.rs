//! HTTPS: TLS 1.2 and 1.3, and a certificate that may change while the gateway runs.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Identity, IdentityFile, InvalidIdentity};

/// HTTP/2 as ALPN names it (RFC 9113 §3.1).
const HTTP2: &[u8] = b"h2";

/// HTTP/1.1 as ALPN names it (RFC 7301 §6).
const HTTP11: &[u8] = b"http/1.1";

/// What every client's connection is encrypted with.
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

/// What the two parties have agreed to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreed {
    Http11,
    Http2,
}

/// The certificate that is shown, and the files it comes from.
#[derive(Debug)]
struct Certificate {
    identity: Identity,
    shown: Mutex<Arc<CertifiedKey>>,
}

impl Tls {
    /// # Errors
    /// Where the certificate cannot be used.
    pub(super) fn new(identity: Identity) -> Result<Self, InvalidTls> {
        let shown = Mutex::new(Arc::new(identity.load()?));
        let certificate = Arc::new(Certificate { identity, shown });
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP11.to_vec()];
        // Who comes back spares both sides a signature, and this process keeps nothing for it.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
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

    /// Reads the files again and again. Where they have become wrong, the last good certificate is shown on.
    /// They are read and compared whole: in Kubernetes they are links whose folder is replaced under them.
    pub(super) async fn watch(&self, interval: Duration) {
        let mut last_fault = None;
        loop {
            tokio::time::sleep(interval).await;
            let fault = self.certificate.read_again().err();
            if let Some(error) =
                fault.as_ref().filter(|error| last_fault.as_ref() != Some(&error.to_string()))
            {
                let Identity { certificate, private_key } = &self.certificate.identity;
                let file = match error.file {
                    IdentityFile::Certificate => certificate,
                    IdentityFile::PrivateKey => private_key,
                };
                tracing::error!(
                    event = "server.certificate_refused", file = %file.display(), %error,
                    "the last good one is shown on"
                );
            }
            last_fault = fault.map(|error| error.to_string());
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Tls({:?})", self.certificate.identity)
    }
}

impl Certificate {
    fn read_again(&self) -> Result<(), InvalidIdentity> {
        let read = self.identity.load()?;
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        // A certificate has one key, so that another key comes with another certificate.
        if read.cert != shown.cert {
            *shown = Arc::new(read);
            tracing::info!(event = "server.certificate_replaced");
        }
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    /// One certificate for all apps. Which of them is meant, `Host` says.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)))
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
