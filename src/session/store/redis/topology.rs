//! Where the primaries are: the one server that is named, the master that sentinels name, or whoever has
//! slots in a cluster.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError,
    RedisResult, TlsCertificates,
};
use url::{Host, Url};

use super::cluster::Seeds;
use super::sentinels::Sentinels;
use crate::config::{self, RedisServers};
use crate::secret::Secret;

/// Redis' own, where a URL names none.
const SERVER_PORT: u16 = 6379;

/// A sentinel's own.
const SENTINEL_PORT: u16 = 26379;

/// How the servers belong together.
#[derive(Clone)]
pub(super) enum Topology {
    /// One server.
    Single(Arc<Client>),
    /// A master, and who knows where it is.
    Sentinel(Arc<Sentinels>),
    /// Some nodes of a cluster.
    Cluster(Arc<Seeds>),
}

/// Where a server listens, as it is told to clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// What opens each of the servers.
pub(super) struct Access {
    settings: RedisConnectionInfo,
    username: Option<String>,
    password: Option<Secret>,
    tls: Option<TlsCertificates>,
}

impl Topology {
    /// Connects to nothing yet.
    pub(super) fn new(config: &config::Redis) -> RedisResult<Self> {
        let urls = match &config.servers {
            RedisServers::Single(url) => std::slice::from_ref(url),
            RedisServers::Cluster(urls) | RedisServers::Sentinel { urls, .. } => urls,
        };
        let access = Access::new(config, urls)?;
        let addresses = |port| urls.iter().map(|url| Address::of(url, port)).collect();
        Ok(match &config.servers {
            RedisServers::Single(url) => {
                Self::Single(Arc::new(access.client(&Address::of(url, SERVER_PORT))?))
            }
            RedisServers::Sentinel { master, .. } => {
                Self::Sentinel(Arc::new(Sentinels::new(master, addresses(SENTINEL_PORT), access)))
            }
            RedisServers::Cluster(_) => Self::Cluster(Arc::new(Seeds::new(addresses(SERVER_PORT), access))),
        })
    }

    /// A client for each primary there is at this moment. They speak RESP3, and what they need to be let in
    /// is set.
    pub(super) async fn primaries(&self) -> RedisResult<Vec<Client>> {
        match self {
            Self::Single(client) => Ok(vec![Client::clone(client)]),
            Self::Sentinel(sentinels) => Ok(vec![sentinels.connect().await?.client]),
            Self::Cluster(seeds) => seeds.primaries().await,
        }
    }
}

impl Address {
    fn of(url: &Url, port: u16) -> Self {
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        Self { host, port: url.port().unwrap_or(port) }
    }

    /// `host:port`, as redirections have it; an IPv6 address stands in it without brackets.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']);
        let is_known = !matches!(host, "" | "?");
        Some(Self { host: host.to_owned(), port: port.parse().ok()? }).filter(|_| is_known)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host.parse::<Ipv6Addr>() {
            Ok(address) => write!(formatter, "[{address}]:{port}"),
            Err(_) => write!(formatter, "{host}:{port}"),
        }
    }
}

impl Access {
    /// The database is that of the one URL; clusters and sentinels have none but 0.
    fn new(config: &config::Redis, urls: &[Url]) -> RedisResult<Self> {
        let mut settings = RedisConnectionInfo::default();
        let mut tls = None;
        if let Some(url) = urls.first() {
            settings = url.as_str().into_connection_info()?.redis_settings().clone();
            let root_cert = config.ca.as_ref().map(|authorities| authorities.pem().to_vec());
            tls = (url.scheme() == "rediss").then_some(TlsCertificates { client_tls: None, root_cert });
        }
        let (username, password) = (config.username.clone(), config.password.clone());
        Ok(Self { settings, username, password, tls })
    }

    /// A client of a server that holds sessions.
    pub(super) fn client(&self, address: &Address) -> RedisResult<Client> {
        self.open(address, self.with_password(self.settings.clone().set_protocol(ProtocolVersion::RESP3)))
    }

    /// A client of a sentinel: without the password, which is the servers', unless the sentinel wants one.
    pub(super) fn client_of_sentinel(&self, address: &Address, with_password: bool) -> RedisResult<Client> {
        // RESP2, for a sentinel that wants a password says so to a command, and not to a greeting.
        let settings = RedisConnectionInfo::default();
        self.open(address, if with_password { self.with_password(settings) } else { settings })
    }

    pub(super) fn has_password(&self) -> bool {
        self.password.is_some()
    }

    fn with_password(&self, mut settings: RedisConnectionInfo) -> RedisConnectionInfo {
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose());
        }
        settings
    }

    fn open(&self, address: &Address, settings: RedisConnectionInfo) -> RedisResult<Client> {
        let Address { host, port } = address.clone();
        let addr = match &self.tls {
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            None => ConnectionAddr::Tcp(host, port),
        };
        let info = addr
            .into_connection_info()?
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        match &self.tls {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }
}

/// The address of a client's server.
pub(super) fn address_of(client: &Client) -> Option<Address> {
    match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Address { host: host.clone(), port: *port })
        }
        // Unix sockets, and what later versions of the library know.
        _ => None,
    }
}

/// An error of our own, told from what a server says by its kind.
pub(super) fn failed(kind: redis::ErrorKind, text: &'static str) -> RedisError {
    RedisError::from((kind, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_a_redirection_has_it() {
        for (text, host, shown) in [
            ("10.0.0.1:6379", "10.0.0.1", "10.0.0.1:6379"),
            ("redis.internal:6379", "redis.internal", "redis.internal:6379"),
            ("::1:6379", "::1", "[::1]:6379"),
            ("[::1]:6379", "::1", "[::1]:6379"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, 6379));
            assert_eq!(address.to_string(), shown);
        }
        for text in ["", "host", "host:", "host:x", "host:65536", ":6379", "?:6379"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
