//! A client in TLS, for what is written into it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::Authority;
use super::wait::in_time;
use super::wire::Wire;

/// Who connects in TLS, and remembers sessions to resume.
#[derive(Clone)]
pub struct Https {
    config: Arc<ClientConfig>,
}

impl Https {
    /// Believes this authority, and would speak these protocols.
    pub fn new(authority: &Authority, protocols: &[&str]) -> Self {
        Self::with_versions(authority, protocols, rustls::ALL_VERSIONS)
    }

    pub fn with_versions(
        authority: &Authority,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.pem()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config) }
    }

    /// Where a browser of these tests, which speaks no TLS, gets to the gateway in it.
    pub async fn door(&self, gateway: SocketAddr) -> SocketAddr {
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, inside) = (door.local_addr().unwrap(), self.clone());
        tokio::spawn(async move {
            while let Ok((mut browser, _)) = door.accept().await {
                let inside = inside.clone();
                tokio::spawn(async move {
                    if let Ok(mut wire) = inside.connect(gateway).await {
                        let _ = tokio::io::copy_bidirectional(&mut browser, &mut wire.stream).await;
                    }
                });
            }
        });
        address
    }

    /// Connects to the gateway as to `localhost`.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Wire<TlsStream<TcpStream>>> {
        self.connect_after(address, "").await
    }

    /// The same, once these bytes were sent.
    pub async fn connect_after(
        &self,
        address: SocketAddr,
        before: impl AsRef<[u8]>,
    ) -> io::Result<Wire<TlsStream<TcpStream>>> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(before.as_ref()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        Ok(Wire::over(in_time(connector.connect(name, stream)).await?))
    }
}
