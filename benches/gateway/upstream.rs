//! The server behind every proxy: as little work as can be. It answers each request
//! with the same kilobyte, `/echo` with the head that has come, and a WebSocket's handshake with a tunnel.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::spawn_local;

use crate::request::{FRAME_BACK, HANDSHAKE_ANSWER};

/// The body of the answers, in bytes.
pub const ANSWER: usize = 1024;

/// Answers with the request's own head.
pub const ECHO: &str = "/echo";

/// The argument that makes this program be the upstream.
pub const ARGUMENT: &str = "--upstream";

pub struct Upstream {
    pub address: SocketAddr,
    _child: Option<Child>,
}

impl Upstream {
    /// On this thread, beside the load: neither waits for the kernel to let it go on after the other.
    pub async fn beside() -> Self {
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        spawn_local(accept(listener));
        Self { address, _child: None }
    }

    /// In a process of its own, for more connections than one process may have.
    pub async fn apart() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(ARGUMENT)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this program again");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it says where it listens");
        Self { address: line.parse().unwrap(), _child: Some(child) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Is the upstream, for good.
pub async fn serve() {
    let listener = listen().await;
    println!("{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    accept(listener).await;
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn accept(listener: TcpListener) {
    let answer = answer(&body());
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let answer = answer.clone();
        spawn_local(async move { serve_connection(stream, &answer).await });
    }
}

/// What every request but an echo is answered with.
pub fn body() -> Vec<u8> {
    let line = br#"{"order": 4711, "item": "a lamp", "state": "on its way", "price": "12.50"}, "#;
    line.iter().copied().cycle().take(ANSWER).collect()
}

async fn serve_connection(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(4096);
    while stream.read_buf(&mut buffer).await? > 0 {
        // No proxy sends a second request before the answer to the first, and none of them has a body.
        if !buffer.ends_with(b"\r\n\r\n") {
            continue;
        }
        if buffer.starts_with(b"GET /ws") {
            stream.write_all(HANDSHAKE_ANSWER.as_bytes()).await?;
            return tunnel(stream).await;
        }
        if buffer.starts_with(b"GET /echo") {
            stream.write_all(&self::answer(&buffer)).await?;
        } else {
            stream.write_all(answer).await?;
        }
        buffer.clear();
    }
    Ok(())
}

/// Answers each frame with one, whatever is in it.
async fn tunnel(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 64];
    while stream.read(&mut buffer).await? > 0 {
        stream.write_all(FRAME_BACK).await?;
    }
    Ok(())
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: upstream\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
