//! TLS towards an upstream: whom to believe, who we are, and what is spoken behind it.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::connect::{Connected, Offer, Stream};
use crate::config;
use crate::connector::ClientTls;
use crate::proxy::BuildError;
use crate::reloaded::Reload;

// As they are registered (RFC 7301 §6, RFC 9113 §3.1).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// How TLS is spoken to the servers of one upstream.
pub(super) struct Tls {
    tls: ClientTls,
    server_name: ServerName<'static>,
}

impl Tls {
    pub(super) fn new(upstream: &config::Upstream) -> Result<Self, BuildError> {
        let host = upstream.url.host_str().unwrap_or_default();
        let name = upstream.tls.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())?;
        let tls = ClientTls::new(upstream.tls.ca.as_ref(), upstream.tls.identity.as_ref())?;
        Ok(Self { tls, server_name })
    }

    /// How TLS is spoken now: another one whenever our certificate is another.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.tls.config()
    }

    /// Reads our certificate again, where there is one.
    pub(super) fn reload(&self) -> Option<Reload> {
        self.tls.reload()
    }

    pub(super) async fn handshake(
        &self,
        stream: Stream,
        offer: Offer,
        config: &Arc<ClientConfig>,
    ) -> io::Result<Connected> {
        let protocols: &[&[u8]] = match offer {
            Offer::Http1 => &[HTTP1],
            Offer::Http2 => &[HTTP2],
            Offer::Either => &[HTTP2, HTTP1],
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let connector = connector.with_alpn(protocols.iter().map(|name| name.to_vec()).collect());
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
