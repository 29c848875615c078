//! One exchange with one server: the connection, and what is spoken on it.

use std::sync::{Arc, Mutex, PoisonError};

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Uri};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::servers::ServerAddress;
use super::{Answer, BuildError, ForwardError, tunnel};
use crate::body::Body;
use crate::config::{self, Protocol, Timeouts};
use crate::reloaded::Reload;

mod connect;
mod extended_connect;
mod http1;
mod http2;
mod pool;
mod tls;
mod upload;

use connect::{ConnectError, Connected, Connector, Offer};
use pool::Pool;
use upload::Upload;

/// The way to the servers of one upstream.
#[derive(Debug)]
pub(super) struct Transport {
    connector: Connector,
    protocol: Protocol,
    header_count: usize,
    open: Open,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
}

/// The open connections.
#[derive(Debug)]
enum Open {
    /// For good.
    Lasting(Arc<Connections>),
    /// For as long as we show the same certificate: to a connection that began with another one, a token that is
    /// bound to this one (RFC 8705 §3) is worth nothing.
    WithCertificate(Mutex<Arc<Connections>>),
}

/// Connections that are alike but for their server.
#[derive(Debug)]
struct Connections {
    tls: Option<Arc<ClientConfig>>,
    http1: Arc<Pool>,
    http2: http2::Connections,
}

/// An exchange that came to no response.
#[derive(Debug)]
pub(super) struct Failed {
    /// Why.
    pub(super) error: ForwardError,
    /// The request as it was, where the server has surely not processed it (RFC 9110 §9.2.2).
    pub(super) unprocessed: Option<Box<Request<Body>>>,
}

impl Transport {
    pub(super) fn new(upstream: &config::Upstream, timeouts: Timeouts) -> Result<Self, BuildError> {
        let authority: Authority = upstream.url.authority().parse()?;
        let connector = Connector::new(upstream, timeouts.connect)?;
        let connections = Arc::new(Connections::new(connector.tls_config()));
        let open = match upstream.tls.identity {
            Some(_) => Open::WithCertificate(Mutex::new(connections)),
            None => Open::Lasting(connections),
        };
        Ok(Self {
            connector,
            protocol: upstream.protocol,
            header_count: upstream.header_count,
            open,
            scheme: if upstream.url.scheme() == "https" { Scheme::HTTPS } else { Scheme::HTTP },
            host: HeaderValue::from_str(authority.as_str())?,
            authority,
        })
    }

    /// A target in absolute form, as HTTP/2 and proofs of possession have it.
    pub(super) fn absolute(&self, target: &Uri) -> Result<Uri, http::Error> {
        let mut parts = target.clone().into_parts();
        (parts.scheme, parts.authority) = (Some(self.scheme.clone()), Some(self.authority.clone()));
        Ok(Uri::from_parts(parts)?)
    }

    /// Reads our certificate again, where there is one.
    pub(super) fn reload(&self) -> Option<Reload> {
        self.connector.reload()
    }

    /// Sends a request, whose target is in origin form, and gives it up where no answer has begun when it is due.
    pub(super) async fn send(
        &self,
        server: &ServerAddress,
        mut request: Box<Request<Body>>,
        due: Option<Instant>,
    ) -> Result<Answer, Failed> {
        let upload = Upload::watch(&mut request);
        let offer = match self.protocol {
            Protocol::Http1 => Offer::Http1,
            Protocol::Http2 => Offer::Http2,
            // A WebSocket begins in HTTP/1.1 wherever that is spoken.
            Protocol::Auto if !self.connector.is_secure() || tunnel::is_handshake(&request) => Offer::Http1,
            Protocol::Auto => Offer::Either,
        };
        let open = self.open();
        if offer != Offer::Http1
            && let Some(connection) = open.http2.slot(server).pick()
        {
            return Box::pin(self.send_in_http2(connection, request, &upload, due)).await;
        }
        while offer != Offer::Http2
            && let Some(link) = open.http1.take(server)
        {
            match http1::send(link, request, &self.host, &upload, &open.http1, due).await {
                // The server had closed it, or had said something unasked.
                Err(Failed { unprocessed: Some(again), .. }) => request = again,
                answered => return answered,
            }
        }
        match Box::pin(in_time(due, self.connect(server, offer, &open))).await {
            Some(Ok(Connection::Http1(link))) => {
                http1::send(link, request, &self.host, &upload, &open.http1, due).await
            }
            Some(Ok(Connection::Http2(connection))) => {
                Box::pin(self.send_in_http2(connection, request, &upload, due)).await
            }
            Some(Err(error)) => {
                Err(Failed { error: ForwardError::Connect(error.into()), unprocessed: Some(request) })
            }
            None => Err(Failed::too_late()),
        }
    }

    async fn send_in_http2(
        &self,
        connection: Arc<http2::Connection>,
        mut request: Box<Request<Body>>,
        upload: &Upload,
        due: Option<Instant>,
    ) -> Result<Answer, Failed> {
        let target = request.uri().clone();
        match self.absolute(&target) {
            Ok(absolute) => *request.uri_mut() = absolute,
            Err(error) => return Err(Failed { error: ForwardError::Address(error), unprocessed: None }),
        }
        let sent = in_time(due, connection.send(request, upload)).await;
        let mut sent = sent.unwrap_or_else(|| Err(Failed::too_late()));
        if let Err(Failed { unprocessed: Some(again), .. }) = &mut sent {
            *again.uri_mut() = target;
        }
        sent
    }

    /// The connections that a request may go over.
    fn open(&self) -> Arc<Connections> {
        match &self.open {
            Open::Lasting(open) => Arc::clone(open),
            Open::WithCertificate(open) => {
                let tls = self.connector.tls_config();
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                if open.tls.as_ref().map(Arc::as_ptr) != tls.as_ref().map(Arc::as_ptr) {
                    *open = Arc::new(Connections::new(tls));
                }
                Arc::clone(&open)
            }
        }
    }

    async fn connect(
        &self,
        server: &ServerAddress,
        offer: Offer,
        open: &Connections,
    ) -> Result<Connection, ConnectError> {
        let slot = open.http2.slot(server);
        let _opening = if offer == Offer::Http2 || offer == Offer::Either && slot.is_spoken() {
            // One is opened at a time, for all who wait.
            let opening = self.connector.in_time(slot.opening.lock()).await?;
            if let Some(connection) = slot.pick() {
                return Ok(Connection::Http2(connection));
            }
            Some(opening)
        } else {
            None
        };
        match self.connector.connect(server, offer, open.tls.as_ref()).await? {
            Connected::Http1(stream) => {
                Ok(Connection::Http1(http1::open(stream, server, self.header_count).await?))
            }
            Connected::Http2(stream) => Ok(Connection::Http2(slot.open(stream).await?)),
        }
    }
}

impl Failed {
    /// The server may have acted, and has said nothing.
    pub(super) fn too_late() -> Self {
        Self { error: ForwardError::Timeout, unprocessed: None }
    }
}

impl Connections {
    fn new(tls: Option<Arc<ClientConfig>>) -> Self {
        Self { tls, http1: Arc::default(), http2: http2::Connections::default() }
    }
}

/// `None` where it is not done when it is due.
async fn in_time<T>(due: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match due {
        Some(due) => timeout_at(due, work).await.ok(),
        None => Some(work.await),
    }
}

enum Connection {
    Http1(Box<http1::Link>),
    Http2(Arc<http2::Connection>),
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use http::HeaderMap;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::body;
    use crate::proxy::EarlyHints;

    fn transport() -> Transport {
        let timeout = Duration::from_secs(60);
        let timeouts = Timeouts { connect: timeout, response: timeout, idle: timeout };
        let upstream = config::Upstream {
            url: url::Url::parse("http://orders.internal").unwrap(),
            strip_prefix: None,
            addresses: Vec::new(),
            protocol: Protocol::Auto,
            header_count: 100,
            tls: config::UpstreamTls::default(),
            health: None,
        };
        Transport::new(&upstream, timeouts).unwrap()
    }

    fn request() -> Box<Request<Body>> {
        Box::new(Request::builder().uri("/a?b").body(body::full("")).unwrap())
    }

    /// Answers each request with its own head, behind `interim`.
    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, interim: &str) {
        let mut seen = Vec::new();
        while stream.read_buf(&mut seen).await.unwrap_or(0) > 0 {
            if seen.ends_with(b"\r\n\r\n") {
                let head = format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.len());
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&std::mem::take(&mut seen)).await.unwrap();
            }
        }
    }

    async fn text(answer: Answer) -> String {
        let bytes = answer.response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_unix_socket_is_a_server_as_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = ServerAddress::Unix(path.into());
        let transport = transport();
        let served = async {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, "").await;
        };
        let asked = async {
            // One after another on the one connection that is accepted.
            for _ in 0..3 {
                let seen = text(transport.send(&server, request(), None).await.unwrap()).await;
                assert_eq!(seen, "GET /a?b HTTP/1.1\r\nhost: orders.internal\r\n\r\n");
            }
        };
        tokio::select! { () = served => panic!("the connection is kept"), () = asked => {} }
    }

    #[tokio::test]
    async fn early_hints_are_heard_and_bring_links_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = ServerAddress::Tcp(listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heard);
        let mut request = request();
        let hear = EarlyHints(Arc::new(move |links: HeaderMap| noted.lock().unwrap().push(links)));
        request.extensions_mut().insert(hear);
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nLink: </b.js>\r\nSet-Cookie: a=1\r\n\r\n\
                       HTTP/1.1 102 Processing\r\nLink: </no>\r\n\r\n";
        let served = async { serve(listener.accept().await.unwrap().0, interim).await };
        let transport = transport();
        let asked = async { text(transport.send(&server, request, None).await.unwrap()).await };
        tokio::select! {
            () = served => panic!("the connection is kept"),
            seen = asked => assert!(seen.starts_with("GET /a?b")),
        }
        let heard = heard.lock().unwrap();
        let [links] = heard.as_slice() else { panic!("{heard:?}") };
        assert_eq!(links.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["link", "link"]);
        assert_eq!(links.get_all("link").iter().collect::<Vec<_>>(), ["</a.css>", "</b.js>"]);
    }

    #[tokio::test]
    async fn a_request_for_which_there_is_no_connection_comes_back_as_it_was() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = ServerAddress::Tcp(listener.local_addr().unwrap());
        drop(listener);
        let failed = transport().send(&nobody, request(), None).await.unwrap_err();
        assert!(matches!(failed.error, ForwardError::Connect(_)));
        let again = failed.unprocessed.unwrap();
        assert_eq!((again.uri(), again.headers().len()), (request().uri(), 0));
    }

    #[tokio::test]
    async fn who_gives_up_half_way_drops_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = ServerAddress::Tcp(listener.local_addr().unwrap());
        let transport = transport();
        let came = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_buf(&mut Vec::with_capacity(100)).await.unwrap();
            stream
        };
        let mut stream = tokio::select! {
            stream = came => stream,
            _ = transport.send(&server, request(), None) => panic!("nobody answered"),
        };
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    }
}
