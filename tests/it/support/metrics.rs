//! What a gateway counts, as Prometheus reads it.

use std::net::SocketAddr;

use http::{Request, header};
use http_body_util::Full;

use super::browser::exchange;

/// One count, by its name with its labels; 0 where nothing was counted.
pub async fn count(admin: SocketAddr, name: &str) -> u64 {
    let request = Request::get("/metrics").header(header::HOST, "admin").body(Full::default()).unwrap();
    let (status, _, body) = exchange(admin, request).await;
    assert_eq!(status, 200);
    let text = String::from_utf8(body.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |count| count.parse().unwrap())
}
