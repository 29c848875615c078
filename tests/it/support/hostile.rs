//! Clients that would wear a gateway out, each kind in its own way, until they are cut off (R65). All but one
//! kind come in TLS.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    fields, frame,
};
use super::gateway::ORIGIN;
use super::https::Https;
use super::wire::head;

/// What a hostile client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connects, and says nothing.
    Silent,
    /// Sends half of a TLS handshake.
    HalfHandshake,
    /// Is silent once the handshake is done.
    SilentInTls,
    /// Sends a head byte by byte.
    DrippingHead,
    /// Sends a body byte by byte.
    DrippingBody,
    /// Begins a body, and goes no further.
    StalledBody,
    /// Sends a chunked body without an end, as fast as it is taken.
    EndlessChunks,
    /// Asks for much, and reads nothing.
    Reader,
    /// Opens a WebSocket, and leaves it.
    IdleWebSocket,
    /// Is silent behind the preface of HTTP/2.
    SilentInHttp2,
    /// Asks and resets at once, again and again (CVE-2023-44487).
    Resets,
    /// Sends nothing but PING.
    Pings,
    /// Sends nothing but SETTINGS.
    Settings,
    /// Begins a field block that has no end (CVE-2024-27316).
    Continuations,
    /// Sends DATA without data.
    EmptyData,
    /// Asks for much, and opens no window for it.
    ZeroWindow,
}

/// All of them.
pub const KINDS: [Kind; 16] = [
    Kind::Silent,
    Kind::HalfHandshake,
    Kind::SilentInTls,
    Kind::DrippingHead,
    Kind::DrippingBody,
    Kind::StalledBody,
    Kind::EndlessChunks,
    Kind::Reader,
    Kind::IdleWebSocket,
    Kind::SilentInHttp2,
    Kind::Resets,
    Kind::Pings,
    Kind::Settings,
    Kind::Continuations,
    Kind::EmptyData,
    Kind::ZeroWindow,
];

/// Between two bytes of those who drip, and two pieces of those who flood, for they share our processor.
const PAUSE: Duration = Duration::from_millis(100);

/// Whom they attack. `/large` has more than fits into the buffers on the way; `/ws` takes WebSockets.
#[derive(Clone)]
pub struct Victim {
    pub address: SocketAddr,
    pub http1: Https,
    pub http2: Https,
}

impl Kind {
    /// Whether a limit ends what it does. A body that moves is let through, however slowly: it takes a
    /// connection's place and no more.
    pub fn is_cut_off(self) -> bool {
        self != Self::DrippingBody
    }

    /// Goes on until it is cut off. Those who read nothing never see that they were.
    pub async fn attack(self, victim: &Victim) -> io::Result<()> {
        let large = head("GET /large", "");
        let post = head("POST /", "Content-Length: 1000000\r\n");
        let chunked = head("POST /", "Transfer-Encoding: chunked\r\n");
        let upgrade = head(
            "GET /ws",
            &format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {ORIGIN}\r\n"
            ),
        );
        match self {
            Self::Silent => waits(TcpStream::connect(victim.address).await?, "").await,
            // The head of a record and of a ClientHello (RFC 8446 §4.1.2).
            Self::HalfHandshake => {
                waits(TcpStream::connect(victim.address).await?, b"\x16\x03\x01\x02\x00\x01\x00").await
            }
            Self::SilentInTls => waits(victim.http1().await?, "").await,
            Self::DrippingHead => repeats(victim.http1().await?, "GET / HTTP/1.1\r\nX: ", b"a").await,
            Self::DrippingBody => repeats(victim.http1().await?, post, b"a").await,
            Self::StalledBody => waits(victim.http1().await?, post + "abc").await,
            Self::EndlessChunks => {
                let chunk = [b"4000\r\n", [b'x'; 0x4000].as_slice(), b"\r\n"].concat().repeat(16);
                repeats(victim.http1().await?, chunked, &chunk).await
            }
            Self::Reader => reads_nothing(victim.http1().await?, large).await,
            Self::IdleWebSocket => waits(victim.http1().await?, upgrade).await,
            Self::SilentInHttp2 => waits(victim.http2().await?, preface(&[])).await,
            Self::Resets => resets(victim.http2().await?).await,
            Self::Pings => {
                repeats(victim.http2().await?, preface(&[]), &frame(PING, 0, 0, [0; 8]).repeat(500)).await
            }
            Self::Settings => {
                repeats(victim.http2().await?, preface(&[]), &frame(SETTINGS, 0, 0, []).repeat(500)).await
            }
            Self::Continuations => {
                let begun = [preface(&[]), frame(HEADERS, 0, 1, request("POST", "/"))].concat();
                repeats(victim.http2().await?, begun, &frame(CONTINUATION, 0, 1, [0; 8]).repeat(50)).await
            }
            Self::EmptyData => {
                let begun = [preface(&[]), frame(HEADERS, END_HEADERS, 1, request("POST", "/"))].concat();
                repeats(victim.http2().await?, begun, &frame(DATA, 0, 1, []).repeat(500)).await
            }
            Self::ZeroWindow => {
                let no_window = [0, 4, 0, 0, 0, 0]; // SETTINGS_INITIAL_WINDOW_SIZE
                let asked = frame(HEADERS, END_HEADERS | END_STREAM, 1, request("GET", "/large"));
                waits(victim.http2().await?, [preface(&no_window), asked].concat()).await
            }
        }
    }
}

impl Victim {
    async fn http1(&self) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        Ok(self.http1.connect(self.address).await?.stream)
    }

    async fn http2(&self) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        Ok(self.http2.connect(self.address).await?.stream)
    }
}

/// Sends this and no more.
async fn waits(mut stream: impl AsyncRead + AsyncWrite + Unpin, first: impl AsRef<[u8]>) -> io::Result<()> {
    stream.write_all(first.as_ref()).await?;
    ends(&mut stream).await;
    Ok(())
}

/// Sends this, and then the other for as long as it is taken.
async fn repeats(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    first: impl AsRef<[u8]>,
    then: &[u8],
) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    write.write_all(first.as_ref()).await?;
    let sends = async {
        while write.write_all(then).await.is_ok() && write.flush().await.is_ok() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = sends => {}
        () = ends(&mut read) => {}
    }
    Ok(())
}

/// Asks on a stream after another, and resets each.
async fn resets(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    write.write_all(&preface(&[])).await?;
    let sends = async {
        for batch in 0.. {
            let streams = (batch * 50..(batch + 1) * 50).map(|number| 2 * number + 1);
            let frames: Vec<u8> = streams
                .flat_map(|stream| {
                    let asked = frame(HEADERS, END_HEADERS | END_STREAM, stream, request("GET", "/"));
                    [asked, frame(RST_STREAM, 0, stream, CANCEL.to_be_bytes())].concat()
                })
                .collect();
            if write.write_all(&frames).await.is_err() || write.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = sends => {}
        () = ends(&mut read) => {}
    }
    Ok(())
}

/// Asks, and never reads. It does not see its end, and stays until it is dropped.
async fn reads_nothing(mut stream: impl AsyncWrite + Unpin, first: impl AsRef<[u8]>) -> io::Result<()> {
    stream.write_all(first.as_ref()).await?;
    std::future::pending().await
}

/// Reads whatever comes, to the end.
async fn ends(stream: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
}

/// What a connection in HTTP/2 begins with, and these settings.
fn preface(settings: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()
}

/// The field block of a request to the app under test.
fn request(method: &str, path: &str) -> Vec<u8> {
    fields(&[(":method", method), (":scheme", "https"), (":authority", "shop.test"), (":path", path)])
}
