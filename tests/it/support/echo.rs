//! A server behind the gateway that takes each WebSocket handshake and sends back what it gets.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::gateway::{ORIGIN, SESSION_COOKIE};
use super::wire::{Wire, head, read_head};

pub struct Echo {
    pub url: String,
    heads: Arc<Mutex<Vec<String>>>,
    running: AbortHandle,
}

impl Echo {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&heads);
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&noted)));
            }
        });
        Self { url, heads, running: running.abort_handle() }
    }

    /// The heads of the handshakes so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Opens a tunnel at this gateway, as a browser with this session cookie does.
pub async fn open_tunnel(gateway: std::net::SocketAddr, path: &str, cookie: &str) -> Wire {
    let fields = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {ORIGIN}\r\nCookie: {SESSION_COOKIE}={cookie}\r\n"
    );
    let mut wire = Wire::connect(gateway).await;
    wire.send(head(&format!("GET {path}"), &fields)).await;
    assert_eq!(wire.reply().await.status, 101);
    wire
}

async fn serve(mut stream: TcpStream, heads: Arc<Mutex<Vec<String>>>) {
    let head = read_head(&mut stream).await;
    heads.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    }
}
