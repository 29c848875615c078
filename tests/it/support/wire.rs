//! A client that writes bytes, for what a well-behaved one cannot be made to send.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::wait::in_time;

pub struct Wire<S = TcpStream> {
    pub stream: S,
    unread: Vec<u8>,
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came to the end that its framing announced.
    pub whole: bool,
}

/// The head of a request to the app under test, with these fields, each ended by CRLF.
pub fn head(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n")
}

/// One request on a connection of its own.
pub async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Reply {
    let mut wire = Wire::connect(address).await;
    wire.send(request).await;
    wire.reply().await
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// From this address of the machine's own, such as `127.0.0.2`.
    pub async fn connect_from(own: IpAddr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((own, 0).into()).unwrap();
        Self::over(socket.connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends what may find the connection closed.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// The next answer that is final, read to its end.
    pub async fn reply(&mut self) -> Reply {
        loop {
            let mut reply = self.reply_head().await;
            if (100..200).contains(&reply.status) && reply.status != 101 {
                continue;
            }
            self.read_body(&mut reply).await;
            return reply;
        }
    }

    /// The head of the next answer, interim ones too.
    pub async fn reply_head(&mut self) -> Reply {
        let end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at;
            }
            assert!(self.more().await, "the connection ended in {:?}", String::from_utf8_lossy(&self.unread));
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines.map(|line| line.split_once(':').unwrap());
        let fields = fields.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
        Reply { status, fields, body: Vec::new(), whole: false }
    }

    /// The next chunk of a chunked body; `None` at its end.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line().await?;
        let size = usize::from_str_radix(&line, 16).unwrap();
        let chunk = self.exactly(size).await?;
        self.line().await?;
        (size > 0).then_some(chunk)
    }

    /// Up to this many bytes that come next; fewer where the connection ends first.
    pub async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.unread.drain(..length).collect())
    }

    /// All that comes until the other end closes, or resets.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.unread)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn read_body(&mut self, reply: &mut Reply) {
        if matches!(reply.status, 101 | 204 | 304) {
            reply.whole = true;
        } else if reply.field("transfer-encoding").is_some() {
            loop {
                match self.line().await.map(|line| usize::from_str_radix(&line, 16).unwrap()) {
                    None => return,
                    Some(0) => break,
                    Some(size) => {
                        let Some(chunk) = self.exactly(size).await else { return };
                        reply.body.extend(chunk);
                        self.line().await;
                    }
                }
            }
            // Trailers, up to the empty line.
            while let Some(line) = self.line().await {
                if line.is_empty() {
                    reply.whole = true;
                    return;
                }
                let (name, value) = line.split_once(':').unwrap();
                reply.fields.push((format!("trailer {}", name.to_lowercase()), value.trim().to_owned()));
            }
        } else if let Some(length) = reply.field("content-length") {
            let length = length.parse().unwrap();
            match self.exactly(length).await {
                Some(body) => (reply.body, reply.whole) = (body, true),
                None => reply.body = std::mem::take(&mut self.unread),
            }
        } else {
            (reply.body, reply.whole) = (self.rest().await, true);
        }
    }

    /// Waits for more; `false` where the connection has ended.
    async fn more(&mut self) -> bool {
        in_time(self.stream.read_buf(&mut self.unread)).await.is_ok_and(|length| length > 0)
    }
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The CODE of a problem document.
    pub fn problem(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(document["status"], self.status, "{document}");
        document["type"].as_str().unwrap().strip_prefix("urn:cloakroom:").unwrap().to_owned()
    }
}

/// What a server reads of a request: its head, and no more than came with it.
pub async fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.windows(4).any(|part| part == b"\r\n\r\n") {
        let length = in_time(stream.read_buf(&mut head)).await.unwrap();
        assert!(length > 0, "the connection ended in {:?}", String::from_utf8_lossy(&head));
    }
    head
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
