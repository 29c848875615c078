//! TLS towards an upstream: whom to believe, who we are, and what is spoken behind it.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::TlsConnector;

use super::connect::{Connected, Offer, Stream};
use crate::config;
use crate::connector;
use crate::proxy::BuildError;

// As they are registered (RFC 7301 §6, RFC 9113 §3.1).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// How TLS is spoken to the servers of one upstream.
pub(super) struct Tls {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

impl Tls {
    /// The private key and all certificates are read now, and kept.
    pub(super) fn new(upstream: &config::Upstream) -> Result<Self, BuildError> {
        let host = upstream.url.host_str().unwrap_or_default();
        let name = upstream.tls.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())?;
        let config = connector::tls(upstream.tls.ca.as_ref())?;
        let config = match &upstream.tls.identity {
            Some(identity) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.load()?)))
            }
            None => config.with_no_client_auth(),
        };
        Ok(Self { connector: TlsConnector::from(Arc::<ClientConfig>::new(config)), server_name })
    }

    pub(super) async fn handshake(&self, stream: Stream, offer: Offer) -> io::Result<Connected> {
        let protocols: &[&[u8]] = match offer {
            Offer::Http1 => &[HTTP1],
            Offer::Http2 => &[HTTP2],
            Offer::Either => &[HTTP2, HTTP1],
        };
        let connector = self.connector.with_alpn(protocols.iter().map(|name| name.to_vec()).collect());
        let stream = connector.connect(self.server_name.clone(), stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok(if is_http2 { Connected::Http2(Box::new(stream)) } else { Connected::Http1(Box::new(stream)) })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tls({:?})", self.server_name)
    }
}
