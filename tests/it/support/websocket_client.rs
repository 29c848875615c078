//! A browser's end of a WebSocket, of a library that keeps RFC 6455.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use http::{Request, header};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::gateway::ORIGIN;

pub struct WebSocketClient(WebSocketStream<TcpStream>);

/// Why there is no WebSocket.
#[derive(Debug)]
pub enum NotOpened {
    /// The connection ended before there was an answer.
    Broken,
    /// It was answered with this status.
    Refused(u16),
}

/// As what a WebSocket has ended for the app, where nobody has said goodbye (RFC 6455 §7.1.5).
pub const CUT: u16 = 1006;

impl WebSocketClient {
    /// Opens one, with this cookie of the session.
    pub async fn open(address: SocketAddr, path: &str, cookie: &str) -> Result<Self, NotOpened> {
        let request = Request::get(format!("ws://shop.test{path}"))
            .header(header::HOST, "shop.test")
            .header(header::ORIGIN, ORIGIN)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .header(header::COOKIE, cookie);
        let stream = TcpStream::connect(address).await.map_err(|_| NotOpened::Broken)?;
        match client_async(request.body(()).unwrap(), stream).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(answer)) => Err(NotOpened::Refused(answer.status().as_u16())),
            Err(_) => Err(NotOpened::Broken),
        }
    }

    /// Sends a message and waits until it has come back; the code of the end where there is one before.
    pub async fn exchange(&mut self, text: &str) -> Result<(), u16> {
        if self.0.send(Message::text(text)).await.is_err() {
            return Err(self.closed().await);
        }
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(back))) if back.as_str() == text => return Ok(()),
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(1005, |frame| frame.code.into());
                    self.closed().await;
                    return Err(code);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(CUT),
            }
        }
    }

    /// Waits until it is closed; the code of the end.
    pub async fn closed(&mut self) -> u16 {
        let mut code = CUT;
        while let Some(Ok(message)) = self.0.next().await {
            if let Message::Close(frame) = message {
                code = frame.map_or(1005, |frame| frame.code.into());
            }
        }
        code
    }
}
