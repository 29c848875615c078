//! A server of WebSockets behind the gateway, of a library that keeps RFC 6455: it sends messages back.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

pub struct WebSocketEcho {
    pub address: SocketAddr,
    running: AbortHandle,
}

/// What an echo takes its handshakes in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    Http1,
    /// By prior knowledge, with extended CONNECT (RFC 8441).
    Http2,
}

impl WebSocketEcho {
    /// At a path that ends in `/raw` it takes permessage-deflate, and sends back bytes instead of messages.
    pub async fn start(spoken: Spoken) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (stream, service) = (TokioIo::new(stream), service_fn(answer));
                if spoken == Spoken::Http1 {
                    let serving = http1::Builder::new().serve_connection(stream, service).with_upgrades();
                    tokio::spawn(serving);
                } else {
                    let mut builder = http2::Builder::new(TokioExecutor::new());
                    builder.enable_connect_protocol();
                    tokio::spawn(builder.serve_connection(stream, service));
                }
            }
        });
        Self { address, running: running.abort_handle() }
    }
}

impl Drop for WebSocketEcho {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    let is_raw = request.uri().path().ends_with("/raw");
    tokio::spawn(async move {
        let stream = TokioIo::new(upgrade.await.unwrap());
        if is_raw { raw(stream).await } else { echo(stream).await }
    });
    let mut response = Response::new(Empty::new());
    let fields = response.headers_mut();
    if is_raw {
        let offered = request.headers()[header::SEC_WEBSOCKET_EXTENSIONS].to_str().unwrap();
        assert_eq!(offered, "permessage-deflate; client_max_window_bits, x-other");
        let taken = HeaderValue::from_static("permessage-deflate; server_no_context_takeover");
        fields.insert(header::SEC_WEBSOCKET_EXTENSIONS, taken);
    }
    if request.version() != Version::HTTP_2 {
        let accept = derive_accept_key(request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes());
        fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept.parse().unwrap());
        fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    }
    Ok(response)
}

async fn raw(stream: impl AsyncRead + AsyncWrite) {
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

/// Says why it fails a connection (RFC 6455 §7.1.7), and reads on to its end, so that it is not reset.
async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let fault: Option<u16> = loop {
        match socket.next().await {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            Some(Ok(_)) => {}
            Some(Err(Error::Protocol(_))) => break Some(1002),
            Some(Err(Error::Utf8(_))) => break Some(1007),
            Some(Err(_)) | None => break None,
        }
    };
    let mut stream = socket.into_inner();
    if let Some(code) = fault {
        let _ = stream.write_all(&[&[0x88, 2], &code.to_be_bytes()[..]].concat()).await;
    }
    let _ = stream.shutdown().await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}
