//! A client that fails with a cause, not with a panic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use crate::support::gateway::{ORIGIN, SESSION_COOKIE};
use crate::world::World;

/// Longer than a gateway lets a request wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// One connection to the gateway.
pub enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub async fn open(world: &Arc<World>, in_http2: bool) -> Result<Self, String> {
        within("connecting", async {
            if in_http2 {
                let wire = world.http2.connect(world.gateway.address).await.map_err(|error| kind(&error))?;
                let stream = TokioIo::new(wire.stream);
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.map_err(|error| cause(&error))?;
                tokio::spawn(connection);
                Ok(Self::Http2(sender))
            } else {
                let wire = world.http1.connect(world.gateway.address).await.map_err(|error| kind(&error))?;
                let (sender, connection) =
                    http1::handshake(TokioIo::new(wire.stream)).await.map_err(|error| cause(&error))?;
                tokio::spawn(connection.with_upgrades());
                Ok(Self::Http1(sender))
            }
        })
        .await
    }

    /// The answer, its body unread.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        within("answering", async {
            let answer = match self {
                Self::Http1(sender) => {
                    sender.ready().await.map_err(|error| cause(&error))?;
                    sender.send_request(request).await
                }
                Self::Http2(sender) => {
                    sender.ready().await.map_err(|error| cause(&error))?;
                    sender.send_request(request).await
                }
            };
            answer.map_err(|error| cause(&error))
        })
        .await
    }

    /// The body of an answer that must be 200.
    pub async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, String> {
        let answer = self.send(request).await?;
        let status = answer.status();
        let body = within("the body", async {
            answer.into_body().collect().await.map(Collected::to_bytes).map_err(|error| cause(&error))
        });
        let body = body.await?;
        if status == 200 { Ok(body) } else { Err(status.as_u16().to_string()) }
    }

    /// A request of the app's script, with this session.
    pub fn request(&self, method: Method, path: &str, cookie: &str, body: Bytes) -> Request<Full<Bytes>> {
        let target = match self {
            Self::Http1(_) => path.to_owned(),
            Self::Http2(_) => format!("{ORIGIN}{path}"),
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("cookie", format!("{SESSION_COOKIE}={cookie}"))
            .header("origin", ORIGIN)
            .header("x-csrf", "1");
        let request = match self {
            Self::Http1(_) => request.header("host", "shop.test"),
            Self::Http2(_) => request,
        };
        request.body(Full::new(body)).unwrap()
    }
}

async fn within<T>(what: &str, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(format!("no end of {what}")))
}

fn kind(error: &std::io::Error) -> String {
    format!("{:?}", error.kind())
}

fn cause(error: &hyper::Error) -> String {
    error.to_string()
}
