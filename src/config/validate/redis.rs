//! Redis: which servers, and whom to believe that they are.

use url::Url;

use crate::config::authorities::CertificateAuthorities;
use crate::config::decode::{At, List, Optional, Required};
use crate::config::raw;
use crate::config::reading::{Reading, Reported};
use crate::config::scalar::Text;
use crate::config::web::{RedisUrl, is_loopback};
use crate::config::{Redis, RedisServers};

/// The whole of `store.redis`.
pub(super) fn redis(redis: raw::Redis, reading: &mut Reading<'_>) -> Result<Redis, Reported> {
    let password = redis.password.and_then(|password| {
        password.map(|password| password.value.read(reading).map(|(secret, _)| secret)).transpose()
    });
    let key_prefix = key_prefix(redis.key_prefix, reading);
    let servers = redis.servers.and_then(|servers| self::servers(servers, reading));
    let ca = authorities(redis.ca, servers.as_ref().ok(), reading);
    Ok(Redis {
        servers: servers?,
        ca: ca?,
        username: redis.username?.map(|username| username.value.0),
        password: password?,
        key_prefix: key_prefix?,
        wait_for_replicas: redis.wait_for_replicas?.value.0,
    })
}

fn key_prefix(prefix: Required<Text>, reading: &mut Reading<'_>) -> Result<String, Reported> {
    let prefix = prefix?;
    let text = prefix.value.0;
    // Where a brace stands before those of a session's own, a cluster takes what follows for the hash tag:
    // all sessions would lie on one node, or the keys of one on several.
    let is_prefix = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
    if text.len() <= 64 && text.bytes().all(is_prefix) {
        return Ok(text);
    }
    let remedy = "at most 64 visible ASCII characters without braces, such as `cloakroom:`";
    Err(reading.fault(&prefix.place, "not a prefix for keys", remedy))
}

fn servers(servers: raw::RedisServers, reading: &mut Reading<'_>) -> Result<RedisServers, Reported> {
    match servers {
        raw::RedisServers::Single(url) => {
            warn_of_plain(&url, reading);
            Ok(RedisServers::Single(url.value.0))
        }
        raw::RedisServers::Cluster(urls) => {
            let problem = "a database in a cluster, which has one alone";
            let has_database = |url: &Url| !matches!(url.path(), "" | "/" | "/0");
            urls_without(urls.value, problem, has_database, reading).map(RedisServers::Cluster)
        }
        raw::RedisServers::Sentinel(sentinel) => {
            let problem = "a database of a sentinel, which has none; the master's is 0";
            let has_database = |url: &Url| !matches!(url.path(), "" | "/");
            let urls = sentinel.value.urls;
            let urls = urls.and_then(|urls| urls_without(urls.value, problem, has_database, reading));
            Ok(RedisServers::Sentinel { master: sentinel.value.master?.value.0, urls: urls? })
        }
    }
}

/// URLs of one scheme, none of them twice.
fn urls_without(
    urls: List<RedisUrl, 1>,
    problem: &str,
    has_database: impl Fn(&Url) -> bool,
    reading: &mut Reading<'_>,
) -> Result<Vec<Url>, Reported> {
    let mut known: Vec<Url> = Vec::new();
    let mut result = Ok(());
    for url in urls.0 {
        let checked = url.and_then(|url| {
            let (first, place) = (known.first(), &url.place);
            let written = &url.value.0;
            if has_database(written) {
                return Err(reading.fault(place, problem, "the URL without it"));
            }
            if first.is_some_and(|first| first.scheme() != written.scheme()) {
                let problem = "TLS for some of these servers, and not for others";
                return Err(reading.fault(place, problem, "the same scheme for all of them"));
            }
            if known.iter().any(|known| known.host() == written.host() && known.port() == written.port()) {
                return Err(reading.fault(place, "this server stands here twice", "the list without it"));
            }
            warn_of_plain(&url, reading);
            known.push(url.value.0);
            Ok(())
        });
        result = result.and(checked);
    }
    result.map(|()| known)
}

fn warn_of_plain(url: &At<RedisUrl>, reading: &mut Reading<'_>) {
    if url.value.0.scheme() == "redis" && !is_loopback(&url.value.0) {
        let remedy = "rediss, or a network that only the gateway and Redis are on: what is stored is sealed, the password is not";
        reading.warn(&url.place, "Redis without TLS", remedy);
    }
}

fn authorities(
    ca: Optional<Text>,
    servers: Option<&RedisServers>,
    reading: &mut Reading<'_>,
) -> Result<Option<CertificateAuthorities>, Reported> {
    let Some(ca) = ca? else { return Ok(None) };
    let url = servers.and_then(|servers| match servers {
        RedisServers::Single(url) => Some(url),
        RedisServers::Cluster(urls) | RedisServers::Sentinel { urls, .. } => urls.first(),
    });
    if url.is_some_and(|url| url.scheme() == "redis") {
        let problem = "an authority for certificates, where none is asked for";
        return Err(reading.fault(&ca.place, problem, "`rediss://` above, or the file without `ca`"));
    }
    super::authorities(&ca, reading).map(Some)
}
