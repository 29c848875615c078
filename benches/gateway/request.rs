//! The one request that everybody is sent, as bytes and for HTTP/2, and what is read of its answer.

use std::fmt::Write;
use std::io::{Error, Result};
use std::ops::Range;

use http::{HeaderValue, Request, header};
use tokio::io::{AsyncRead, AsyncReadExt};

pub const HOST: &str = "shop.test";

/// What a browser's script sends, and the field that the gateway asks for.
const FIELDS: [(&str, &str); 6] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "application/json"),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("sec-fetch-site", "same-origin"),
    ("x-csrf", "1"),
];

/// The same request of one user, or of many.
#[derive(Clone, Debug)]
pub struct Requests {
    path: &'static str,
    /// What stands before the cookie.
    head: String,
    /// The `Cookie` field of each user.
    cookies: Vec<HeaderValue>,
}

impl Requests {
    pub fn new(path: &'static str, cookies: &[String]) -> Self {
        let cookies = cookies.iter().map(|cookie| format!("{cookie}; theme=dark").try_into().unwrap());
        Self { path, head: head(path), cookies: cookies.collect() }
    }

    /// The same with another path.
    pub fn to(&self, path: &'static str) -> Self {
        Self { path, head: head(path), cookies: self.cookies.clone() }
    }

    /// How many users there are.
    pub fn users(&self) -> usize {
        self.cookies.len()
    }

    /// A user's request.
    pub fn write(&self, user: usize, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(self.head.as_bytes());
        into.extend_from_slice(self.cookies[user].as_bytes());
        into.extend_from_slice(b"\r\n\r\n");
    }

    /// The same for HTTP/2.
    pub fn http2(&self, user: usize) -> Request<()> {
        let mut request = Request::get(format!("https://{HOST}{}", self.path));
        for (name, value) in FIELDS {
            request = request.header(name, value);
        }
        request.header(header::COOKIE, self.cookies[user].clone()).body(()).unwrap()
    }

    /// A user's WebSocket handshake.
    pub fn handshake(&self, user: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.to(WEBSOCKET).write(user, &mut bytes);
        bytes.truncate(bytes.len() - 2);
        bytes.extend_from_slice(
            format!(
                "origin: https://{HOST}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .as_bytes(),
        );
        bytes
    }
}

fn head(path: &str) -> String {
    let mut head = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n");
    for (name, value) in FIELDS {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head + "cookie: "
}

/// Where WebSockets are taken.
pub const WEBSOCKET: &str = "/ws";

/// The upstream's word that the connection is one now, by the example of RFC 6455 §1.3, whose key is sent.
pub const HANDSHAKE_ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A masked text frame with `Hello`, as a client sends it (RFC 6455 §5.7).
pub const FRAME: &[u8] = &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

/// The same from a server, without a mask.
pub const FRAME_BACK: &[u8] = b"\x81\x05Hello";

/// Reads an answer with status 200 and a known length to its end, and gives its body's place in the buffer.
///
/// # Errors
/// Where the connection fails or ends, or where the answer is another.
pub async fn read_answer(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    buffer: &mut Vec<u8>,
) -> Result<Range<usize>> {
    buffer.clear();
    let start = loop {
        read_more(stream, buffer).await?;
        if let Some(end) = head_end(buffer) {
            break end;
        }
    };
    if !buffer.starts_with(b"HTTP/1.1 200") {
        return Err(refused(buffer));
    }
    let end = start + content_length(&buffer[..start]).ok_or_else(|| refused(buffer))?;
    while buffer.len() < end {
        read_more(stream, buffer).await?;
    }
    Ok(start..end)
}

/// Where the head of a message is over.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|place| place + 4)
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let mut lines = head.split(|byte| *byte == b'\n');
    let line =
        lines.find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}

async fn read_more(stream: &mut (impl AsyncRead + Unpin + ?Sized), buffer: &mut Vec<u8>) -> Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(Error::other("the connection has ended")),
        _ => Ok(()),
    }
}

fn refused(answer: &[u8]) -> Error {
    Error::other(format!("answered: {}", String::from_utf8_lossy(answer)))
}
