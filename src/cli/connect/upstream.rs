//! Each address of an upstream: can it be reached, does TLS come about, and is HTTP/2 spoken where that is wanted?

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Finding, certificate, in_time};
use crate::clock::Timestamp;
use crate::config::{Address, Protocol, Upstream};
use crate::connector::ClientTls;
use crate::telemetry::chain;

/// HTTP/2's connection preface with an empty SETTINGS frame (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Of a frame, at the fourth byte of its head (RFC 9113 §4.1, §6.5).
const SETTINGS: u8 = 4;

/// Why nothing can be sent there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it cannot be reached")]
    Away(#[source] std::io::Error),
    #[error("TLS could not be agreed upon")]
    Tls(#[source] std::io::Error),
    #[error("it does not speak HTTP/2")]
    NotHttp2,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) async fn check(upstream: &Upstream, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tls = match tls(upstream) {
        Ok(tls) => tls,
        Err(fault) => {
            let remedy = "see that `tls` of this upstream names files that can be read, and a server's name";
            return vec![Finding::fault(format!("upstream {}", upstream.url), fault, remedy)];
        }
    };
    for address in upstream.servers() {
        let part = format!("upstream {} at {address}", upstream.url);
        match in_time(connect(&address, tls.as_ref(), upstream.protocol)).await {
            Ok(None) => findings.push(Finding::good(part)),
            Ok(Some(not_after)) => {
                findings.push(certificate::judge(&format!("{part}: certificate"), Some(not_after), now));
            }
            Err(fault) => {
                let remedy = "see that it runs, can be reached from here, and has a certificate for this name of an \
                     authority that is believed";
                findings.push(Finding::fault(part, fault, remedy));
            }
        }
    }
    findings
}

pub(super) type Tls = (TlsConnector, ServerName<'static>);

fn tls(upstream: &Upstream) -> Result<Option<Tls>, String> {
    if upstream.url.scheme() != "https" {
        return Ok(None);
    }
    let (ca, identity) = (upstream.tls.ca.as_ref(), upstream.tls.identity.as_ref());
    let believed = ClientTls::new(ca, identity).map_err(|error| chain(&error))?;
    let name = upstream.tls.server_name.as_deref().or(upstream.url.host_str()).unwrap_or_default();
    towards(&believed, name, upstream.protocol).map(Some)
}

/// TLS to a server of this name.
pub(super) fn towards(believed: &ClientTls, name: &str, protocol: Protocol) -> Result<Tls, String> {
    let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned());
    let protocols: &[&[u8]] = match protocol {
        Protocol::Http1 => &[b"http/1.1"],
        Protocol::Http2 => &[b"h2"],
        Protocol::Auto => &[b"h2", b"http/1.1"],
    };
    let mut config = ClientConfig::clone(&believed.config());
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let connector = TlsConnector::from(Arc::new(config));
    Ok((connector, name.map_err(|error| chain(&error))?))
}

/// Until when the server's certificate is good, in seconds since 1970, where it has one.
pub(super) async fn connect(
    address: &Address,
    tls: Option<&Tls>,
    protocol: Protocol,
) -> Result<Option<u64>, Unusable> {
    let mut stream: Box<dyn Stream> = match address {
        Address::Tcp { host, port } => {
            Box::new(TcpStream::connect((host.as_str(), *port)).await.map_err(Unusable::Away)?)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(Unusable::Away)?),
    };
    let Some((connector, name)) = tls else {
        return match protocol {
            Protocol::Http2 => speak_http2(&mut stream).await.map(|()| None),
            Protocol::Auto | Protocol::Http1 => Ok(None),
        };
    };
    let stream = connector.connect(name.clone(), stream).await.map_err(Unusable::Tls)?;
    let session = stream.get_ref().1;
    if protocol == Protocol::Http2 && session.alpn_protocol() != Some(b"h2".as_slice()) {
        return Err(Unusable::NotHttp2);
    }
    let own = session.peer_certificates().and_then(|chain| chain.first());
    Ok(own.and_then(certificate::not_after))
}

/// A server that speaks it begins with its settings.
async fn speak_http2(stream: &mut Box<dyn Stream>) -> Result<(), Unusable> {
    let mut head = [0; 9];
    let spoken = async {
        stream.write_all(PREFACE).await?;
        stream.read_exact(&mut head).await
    };
    match spoken.await {
        Ok(_) if head[3] == SETTINGS => Ok(()),
        Ok(_) | Err(_) => Err(Unusable::NotHttp2),
    }
}
