//! TLS in front of a server that speaks none. It lets anybody in, or those alone who show a certificate of an authority.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::certificates::{Authority, Certificate};

pub struct Door {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

/// The certificates that were shown at a door, one for each connection that had one.
pub type Shown = Arc<Mutex<Vec<CertificateDer<'static>>>>;

impl Door {
    /// Shows this certificate, which is for `localhost`, and wants one of this authority where there is one.
    pub async fn build(certificate: &Certificate, clients: Option<&Authority>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(settings(certificate, clients))) }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.listener.local_addr().unwrap().port())
    }

    /// Opens it to this server, for as long as the test runs.
    pub fn lead_to(self, inside: SocketAddr) -> Shown {
        let all = Shown::default();
        let shown = Arc::clone(&all);
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.listener.accept().await {
                let (acceptor, shown) = (self.acceptor.clone(), Arc::clone(&shown));
                tokio::spawn(async move {
                    let Ok(mut outer) = acceptor.accept(stream).await else { return };
                    let chain = outer.get_ref().1.peer_certificates().unwrap_or_default();
                    shown.lock().unwrap().extend(chain.first().map(|own| own.clone().into_owned()));
                    let Ok(mut inner) = TcpStream::connect(inside).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                });
            }
        });
        all
    }
}

/// How a server shows this certificate, and wants one of this authority where there is one.
pub fn settings(certificate: &Certificate, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(authority.pem()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_file(&certificate.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
    builder.with_single_cert(chain, key).unwrap()
}
