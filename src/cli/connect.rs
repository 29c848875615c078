//! `check --connect`: is everything there that the configuration names? One line each, with a remedy
//! where it is not.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use url::Url;

use crate::clock::SystemClock;
use crate::config::{Address, Config, Oidc, Origin, RedisServers, SharedSignals, Store, Target, Upstream};
use crate::oidc::{Client, Transmitter};
use crate::random::Random;
use crate::session::store::Store as _;
use crate::session::store::file::FileStore;
use crate::session::store::redis::RedisStore;
use crate::telemetry::chain;

/// How long each part may take to answer.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of trying one part.
pub(super) struct Finding {
    part: String,
    fault: Option<String>,
    remedy: &'static str,
}

impl Finding {
    fn new(part: String, outcome: Result<(), String>, remedy: &'static str) -> Self {
        Self { part, fault: outcome.err(), remedy }
    }

    /// Whether the part is there.
    pub(super) fn is_good(&self) -> bool {
        self.fault.is_none()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            None => write!(formatter, "good    {}", self.part),
            Some(fault) => write!(formatter, "FAILED  {}: {fault}\n        {}", self.part, self.remedy),
        }
    }
}

/// Tries the store, each issuer with what each app asks of it, and each upstream once.
pub(super) async fn try_all(config: &Config) -> Vec<Finding> {
    let mut findings = vec![try_store(&config.store).await];
    let mut tried = HashSet::new();
    for app in &config.apps {
        for oidc in &app.oidc {
            let is_first = tried.insert(oidc.issuer.as_str());
            findings.push(try_issuer(oidc, (!is_first).then_some(&app.origin)).await);
        }
        if let Some(signals) = &app.shared_signals {
            findings.push(try_transmitter(signals).await);
        }
        for route in &app.routes {
            if let Target::Upstream(upstream) = &route.target
                && tried.insert(upstream.url.as_str())
            {
                findings.extend(try_upstream(upstream).await);
            }
        }
    }
    findings
}

async fn try_store(store: &Store) -> Finding {
    let remedy = "see that the server runs, takes writes, and knows the username and password";
    match store {
        Store::Memory => Finding::new("store: in memory".to_owned(), Ok(()), remedy),
        // A store that is not there is not made here: it would belong to whoever checks.
        Store::File { path } if !FileStore::is_made(path) => {
            Finding::new(format!("store: {}, which the first start makes", path.display()), Ok(()), remedy)
        }
        Store::File { path } => {
            let outcome = match FileStore::open(path, Arc::new(SystemClock)) {
                Ok(store) => in_time(store.ping()).await,
                Err(error) => Err(chain(&error)),
            };
            let remedy =
                "stop the other gateway, or see that the folder is whole and belongs to who runs this";
            Finding::new(format!("store: {}", path.display()), outcome, remedy)
        }
        Store::Redis(redis) => {
            let outcome = match RedisStore::new(redis, Arc::new(SystemClock)) {
                Ok(store) => in_time(store.ping()).await,
                Err(error) => Err(chain(&error)),
            };
            Finding::new(format!("store: {}", named(&redis.servers)), outcome, remedy)
        }
    }
}

fn named(servers: &RedisServers) -> String {
    let all = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(", ");
    match servers {
        RedisServers::Single(url) => url.to_string(),
        RedisServers::Cluster(urls) => format!("cluster of {}", all(urls)),
        RedisServers::Sentinel { master, urls } => format!("{master}, as sentinels name it: {}", all(urls)),
    }
}

/// `again` for a further app, which may ask other things of an issuer that was tried before.
async fn try_issuer(oidc: &Oidc, again: Option<&Origin>) -> Finding {
    let client = Client::new(oidc, String::new(), String::new(), Arc::new(SystemClock), Random::SYSTEM);
    let outcome = match client {
        Ok(client) => in_time(client.check_offer()).await,
        Err(error) => Err(chain(&error)),
    };
    let remedy = "see that its /.well-known/openid-configuration can be fetched from here, names this very issuer, and \
         offers what `oidc` asks for";
    let again = again.map(|origin| format!(", for {} too", origin.as_str())).unwrap_or_default();
    Finding::new(format!("issuer: {}{again}", oidc.issuer), outcome, remedy)
}

async fn try_transmitter(signals: &SharedSignals) -> Finding {
    let outcome = match Transmitter::new(signals, Arc::new(SystemClock)) {
        Ok(transmitter) => in_time(transmitter.discover()).await,
        Err(error) => Err(chain(&error)),
    };
    let remedy = "see that its /.well-known/ssf-configuration can be fetched from here, and names this very transmitter";
    Finding::new(format!("transmitter: {}", signals.transmitter), outcome, remedy)
}

/// Each of its addresses.
async fn try_upstream(upstream: &Upstream) -> Vec<Finding> {
    let remedy = "see that it runs, and that its address can be reached from here";
    let mut findings = Vec::new();
    for address in upstream.servers() {
        let outcome = match &address {
            Address::Tcp { host, port } => in_time(TcpStream::connect((host.as_str(), *port))).await,
            Address::Unix(path) => in_time(UnixStream::connect(path)).await,
        };
        findings.push(Finding::new(format!("upstream: {} at {address}", upstream.url), outcome, remedy));
    }
    findings
}

async fn in_time<T, E: std::error::Error + 'static>(
    attempt: impl Future<Output = Result<T, E>>,
) -> Result<(), String> {
    match tokio::time::timeout(PART_TIMEOUT, attempt).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("no answer within {PART_TIMEOUT:?}")),
    }
}
