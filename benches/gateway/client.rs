//! A client with connections to one proxy, over HTTP/1.1 or HTTP/2: as little work as can be, too.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::request::{HOST, Requests, read_answer};

/// How many streams one HTTP/2 connection has at a time, as a page that fetches a few things at once.
pub const STREAMS: usize = 8;

/// Ports of one address are few, and some of them rest from the last use.
const SOURCE_ADDRESSES: usize = 100;

/// A way to a proxy.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// Whose certificates are believed.
    pub authority: Arc<RootCertStore>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http1OverTls,
    Http2OverTls,
}

/// A connection in plain text or over TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

pub struct Client {
    target: Target,
    requests: Requests,
    /// Over HTTP/1.1: the connections without a request under way; the one that has rested longest is first.
    idle: RefCell<VecDeque<Box<dyn Stream>>>,
    /// Over HTTP/2: all of them.
    shared: Vec<SendRequest<Bytes>>,
}

/// What a request is written to, and its answer read to.
#[derive(Default)]
pub struct Buffers {
    out: Vec<u8>,
    pub answer: Vec<u8>,
}

impl Client {
    /// Opens so many connections or, over HTTP/2, so few that all of these requests are under way at a time.
    pub async fn connect(target: Target, requests: Requests, connections: usize) -> Self {
        let (mut idle, mut shared) = (VecDeque::new(), Vec::new());
        match target.protocol {
            Protocol::Http1 | Protocol::Http1OverTls => {
                for number in 0..connections {
                    idle.push_back(target.connect(number).await.expect("a connection"));
                }
            }
            Protocol::Http2OverTls => {
                for number in 0..connections.div_ceil(STREAMS) {
                    let stream = target.connect(number).await.expect("a connection");
                    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
                    tokio::task::spawn_local(connection);
                    shared.push(sender);
                }
            }
        }
        Self { target, requests, idle: RefCell::new(idle), shared }
    }

    /// How many users there are.
    pub fn users(&self) -> usize {
        self.requests.users()
    }

    /// One request of a user, and its answer to the end; gives the body's place in the buffer.
    ///
    /// # Errors
    /// Where the answer is not a whole one with status 200.
    pub async fn exchange(&self, worker: usize, user: usize, buffers: &mut Buffers) -> Result<Range<usize>> {
        if self.target.protocol == Protocol::Http2OverTls {
            let sender = self.shared[worker % self.shared.len()].clone();
            return exchange_http2(sender, self.requests.http2(user), buffers).await.map_err(Error::other);
        }
        let resting = self.idle.borrow_mut().pop_front();
        let stream = match resting {
            Some(stream) => stream,
            // In the place of one that has failed.
            None => self.target.connect(worker).await?,
        };
        self.exchange_over(stream, user, buffers).await
    }

    /// Opens one more connection, over HTTP/1.1, with a request of a user at once.
    ///
    /// # Errors
    /// Where the connection fails, or the answer is not a whole one with status 200.
    pub async fn grow(&self, number: usize, user: usize, buffers: &mut Buffers) -> Result<Range<usize>> {
        self.exchange_over(self.target.connect(number).await?, user, buffers).await
    }

    async fn exchange_over(
        &self,
        mut stream: Box<dyn Stream>,
        user: usize,
        buffers: &mut Buffers,
    ) -> Result<Range<usize>> {
        self.requests.write(user, &mut buffers.out);
        stream.write_all(&buffers.out).await?;
        stream.flush().await?;
        let body = read_answer(&mut *stream, &mut buffers.answer).await?;
        self.idle.borrow_mut().push_back(stream);
        Ok(body)
    }
}

impl Target {
    /// Opens a connection, from one of several addresses.
    ///
    /// # Errors
    /// Where the connection fails.
    pub async fn connect(&self, number: usize) -> Result<Box<dyn Stream>> {
        let stream = self.connect_plain(number).await?;
        let protocols: &[&[u8]] = match self.protocol {
            Protocol::Http1 => return Ok(Box::new(stream)),
            Protocol::Http1OverTls => &[b"http/1.1"],
            Protocol::Http2OverTls => &[b"h2"],
        };
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(Error::other)?
                .with_root_certificates(Arc::clone(&self.authority))
                .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(HOST).map_err(Error::other)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(protocols[0]) {
            return Err(Error::other("another protocol was chosen"));
        }
        Ok(Box::new(stream))
    }

    /// The same without TLS.
    ///
    /// # Errors
    /// Where the connection fails.
    pub async fn connect_plain(&self, number: usize) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        let last = u8::try_from(1 + number % SOURCE_ADDRESSES).unwrap_or(1);
        socket.bind(SocketAddr::from((IpAddr::V4(Ipv4Addr::new(127, 0, 1, last)), 0)))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Those who believe what this authority has signed.
pub fn believers(authority: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).expect("a PEM file") {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    Arc::new(roots)
}

async fn exchange_http2(
    sender: SendRequest<Bytes>,
    request: http::Request<()>,
    buffers: &mut Buffers,
) -> std::result::Result<Range<usize>, h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, _) = sender.send_request(request, true)?;
    let (head, mut body) = response.await?.into_parts();
    buffers.answer.clear();
    while let Some(data) = body.data().await {
        let data = data?;
        buffers.answer.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    if head.status != 200 {
        return Err(h2::Reason::REFUSED_STREAM.into());
    }
    Ok(0..buffers.answer.len())
}
