//! A client that speaks HTTP/2 as browsers do, without TLS.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use url::Url;

use super::gateway::ORIGIN;
use super::wait::{in_time, until};
use super::wire::Reply;

/// A connection; it ends when it is dropped.
pub struct Http2 {
    sender: SendRequest<Bytes>,
    running: AbortHandle,
}

/// A request to the app under test.
pub fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("{ORIGIN}{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Reply {
    Http2::connect(address).await.ask(request("GET", path, fields)).await
}

/// One exchange of a browser's: it sends no `Host`, and cookies in crumbs (RFC 9113 §8.2.3).
pub async fn exchange(
    address: SocketAddr,
    url: &Url,
    request: Request<Full<Bytes>>,
) -> (StatusCode, HeaderMap, Bytes) {
    let (mut head, body) = request.into_parts();
    head.uri = url[..url::Position::AfterQuery].parse().unwrap();
    head.headers.remove(header::HOST);
    if let Some(cookies) = head.headers.remove(header::COOKIE) {
        for crumb in cookies.to_str().unwrap().split("; ") {
            head.headers.append(header::COOKIE, crumb.parse().unwrap());
        }
    }
    let body = body.collect().await.unwrap().to_bytes();
    let mut connection = Http2::connect(address).await;
    let (response, mut outgoing) = connection.send(Request::from_parts(head, ()), body.is_empty()).await;
    if !body.is_empty() {
        // An answer may come before the request is read.
        let _ = send_all(&mut outgoing, body, true).await;
    }
    let (head, mut incoming) = in_time(response).await.unwrap().into_parts();
    let mut content = Vec::new();
    while let Some(data) = chunk(&mut incoming).await {
        content.extend(data.unwrap());
    }
    (head.status, head.headers, content.into())
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        let running = tokio::spawn(connection).abort_handle();
        Self { sender, running }
    }

    /// Sends a request without a body, and reads its answer to the end.
    pub async fn ask(&mut self, request: Request<()>) -> Reply {
        let (response, _) = self.send(request, true).await;
        read(in_time(response).await.unwrap()).await
    }

    /// Sends the head of a request, and its end with it where that is all.
    pub async fn send(&mut self, request: Request<()>, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut sender = in_time(self.sender.clone().ready()).await.unwrap();
        sender.send_request(request, ends).unwrap()
    }

    /// Waits until the server has said that it takes extended CONNECT (RFC 8441 §3).
    pub async fn takes_extended_connect(&mut self) {
        until(async || self.sender.is_extended_connect_protocol_enabled()).await;
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Sends all of this, as fast as it is taken.
pub async fn send_all(
    outgoing: &mut SendStream<Bytes>,
    mut data: Bytes,
    ends: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        outgoing.reserve_capacity(data.len());
        let capacity = in_time(std::future::poll_fn(|context| outgoing.poll_capacity(context))).await;
        let capacity = capacity.ok_or(h2::Reason::CANCEL)??;
        let part = data.split_to(capacity.min(data.len()));
        outgoing.send_data(part, ends && data.is_empty())?;
    }
    Ok(())
}

/// What comes next of a body; `None` at its end.
pub async fn chunk(incoming: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    loop {
        match in_time(incoming.data()).await? {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                incoming.flow_control().release_capacity(data.len()).unwrap();
                return Some(Ok(data));
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

/// An answer, read to its end.
pub async fn read(response: Response<RecvStream>) -> Reply {
    let (head, mut incoming) = response.into_parts();
    let fields = |headers: &HeaderMap, prefix: &str| {
        let fields = headers.iter();
        fields
            .map(|(name, value)| (format!("{prefix}{name}"), value.to_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let mut reply = Reply {
        status: head.status.as_u16(),
        fields: fields(&head.headers, ""),
        body: Vec::new(),
        whole: false,
    };
    while let Some(data) = chunk(&mut incoming).await {
        match data {
            Ok(data) => reply.body.extend(data),
            Err(_) => return reply,
        }
    }
    match in_time(incoming.trailers()).await {
        Ok(trailers) => {
            reply.fields.extend(trailers.map(|trailers| fields(&trailers, "trailer ")).unwrap_or_default());
            reply.whole = true;
        }
        Err(_) => reply.whole = false,
    }
    reply
}
