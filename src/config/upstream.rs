//! The servers behind a route: where they are, how they are spoken to, and how often they are asked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::web::is_loopback_host;
use super::{CertificateAuthorities, Identity};

/// The servers behind a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// `http` or `https`, the name that requests and certificates go by, and an optional path that is put
    /// before the request's.
    pub url: Url,
    /// Taken off the request's path: a leading slash, none at the end.
    pub strip_prefix: Option<String>,
    /// Where the servers are; where empty, at what the URL's host resolves to.
    pub addresses: Vec<Address>,
    /// What is spoken.
    pub protocol: Protocol,
    /// How many fields an answer's head may have in HTTP/1.1; in HTTP/2 its bytes alone are bounded.
    pub header_count: usize,
    /// For `https`.
    pub tls: UpstreamTls,
    /// How each address is asked whether it is well, beside what requests meet.
    pub health: Option<Health>,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name, which may stand for several addresses, or an IP address without brackets; and a port.
    Tcp {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// What TLS negotiates; HTTP/1.1 without TLS.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS by prior knowledge (RFC 9113 §3.3).
    Http2,
}

/// How TLS to an upstream differs from the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whom alone to believe; the system's authorities where absent.
    pub ca: Option<CertificateAuthorities>,
    /// The gateway's own certificate, which the server may ask for.
    pub identity: Option<Identity>,
    /// The name in the server's certificate; the URL's host where absent.
    pub server_name: Option<String>,
}

/// A question that a server which is well answers with 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The path that is asked for, with GET.
    pub path: String,
    /// Between two questions.
    pub interval: Duration,
    /// Until the answer's head is there.
    pub timeout: Duration,
    /// Failures in a row after which an address gets no requests.
    pub unhealthy_after: usize,
    /// Successes in a row after which it gets them again.
    pub healthy_after: usize,
}

/// How many of something somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// So many, at once or spread out.
    pub requests: u32,
    /// In so long.
    pub per: Duration,
    /// Whose they are.
    pub by: RateLimitKey,
    /// Whether all gateways of one store count together.
    pub shared: bool,
}

/// Whose requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitKey {
    /// A session's; without one, its address's.
    Session,
    /// A client address's.
    Client,
}

impl Upstream {
    /// Where the servers are: the addresses, or what the URL itself says.
    pub fn servers(&self) -> Vec<Address> {
        if !self.addresses.is_empty() {
            return self.addresses.clone();
        }
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        vec![Address::Tcp { host, port: self.url.port_or_known_default().unwrap_or_default() }]
    }
}

impl Address {
    /// Whether only this machine can be meant.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => is_loopback_host(host),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}
