//! The session store: is it there, and will it keep what it is given?

use std::path::Path;
use std::sync::Arc;

use url::Url;

use super::{Finding, in_time};
use crate::clock::Clock;
use crate::config::{Redis, RedisServers, Store};
use crate::session::store::Store as _;
use crate::session::store::file::FileStore;
use crate::session::store::redis::{RedisStore, ServerReport, survey};
use crate::telemetry::chain;

/// The first version that tells of changes to who asked, and lets users be given rights.
const OLDEST: u64 = 6;

pub(super) async fn check(store: &Store, clock: &Arc<dyn Clock>) -> Vec<Finding> {
    match store {
        Store::Memory => vec![Finding::good("store in memory: sessions end with the process")],
        Store::File { path } => vec![file(path, clock).await],
        Store::Redis(redis) => self::redis(redis, clock).await,
    }
}

async fn file(path: &Path, clock: &Arc<dyn Clock>) -> Finding {
    // A store that is not there is not made here: it would belong to whoever checks.
    if !FileStore::is_made(path) {
        return Finding::good(format!("store {}, which the first start makes", path.display()));
    }
    let outcome = match FileStore::open(path, Arc::clone(clock)) {
        Ok(store) => in_time(store.ping()).await,
        Err(error) => Err(chain(&error)),
    };
    let remedy = "stop the other gateway, or see that the folder is whole and belongs to who runs this";
    Finding::new(format!("store {}", path.display()), outcome, remedy)
}

async fn redis(redis: &Redis, clock: &Arc<dyn Clock>) -> Vec<Finding> {
    let (part, tls) = named(&redis.servers);
    let outcome = match RedisStore::new(redis, Arc::clone(clock)) {
        Ok(store) => in_time(store.ping()).await,
        Err(error) => Err(chain(&error)),
    };
    let is_there = outcome.is_ok();
    let remedy = "see that the server runs, takes writes, and knows the username and password";
    let mut findings = vec![Finding::new(format!("store {part}, {tls}: takes writes"), outcome, remedy)];
    if is_there {
        match in_time(survey(redis)).await {
            Ok(reports) => findings.extend(reports.iter().flat_map(|report| server(report, redis))),
            Err(fault) => findings.push(Finding::fault(format!("store {part}"), fault, remedy)),
        }
    }
    findings
}

/// The servers, and whether they are spoken to in TLS.
fn named(servers: &RedisServers) -> (String, &'static str) {
    let all = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(", ");
    let (part, first) = match servers {
        RedisServers::Single(url) => (url.to_string(), Some(url)),
        RedisServers::Cluster(urls) => (format!("cluster of {}", all(urls)), urls.first()),
        RedisServers::Sentinel { master, urls } => {
            (format!("{master}, as sentinels name it: {}", all(urls)), urls.first())
        }
    };
    let is_encrypted = first.is_some_and(|url| url.scheme() == "rediss");
    (part, if is_encrypted { "by TLS" } else { "in plain text" })
}

/// What a server says of itself, and whether sessions are well kept there.
fn server(report: &ServerReport, redis: &Redis) -> Vec<Finding> {
    let part = format!("store server {}", report.address);
    let Some(version) = &report.version else {
        return vec![Finding::warning(
            part,
            "it tells this user nothing about itself (INFO is not allowed), so that neither version nor memory policy \
             and persistence were looked at",
            "look at them there, or let the user of this check have `+info +config|get` as well",
        )];
    };
    let mut findings = Vec::new();
    let major: Option<u64> = version.split('.').next().and_then(|major| major.parse().ok());
    if major.is_some_and(|major| major < OLDEST) {
        let remedy = "run Redis 6 or newer, or Valkey";
        findings.push(Finding::fault(&part, format!("version {version} is too old"), remedy));
    }
    findings.extend(memory(&part, report));
    findings.extend(persistence(&part, report));
    findings.extend(replicas(&part, report, redis));
    if findings.is_empty() {
        let replicas = report.replicas.unwrap_or_default();
        findings
            .push(Finding::good(format!("{part}: version {version}, noeviction, kept, {replicas} replicas")));
    }
    findings
}

fn memory(part: &str, report: &ServerReport) -> Option<Finding> {
    let policy = report.maxmemory_policy.as_deref().filter(|policy| *policy != "noeviction")?;
    // Without a limit nothing is evicted.
    (report.maxmemory != Some(0)).then(|| {
        Finding::warning(
            part,
            format!("maxmemory-policy is {policy}: what it evicts is a session, and its user is logged out"),
            "set `maxmemory-policy noeviction`",
        )
    })
}

fn persistence(part: &str, report: &ServerReport) -> Option<Finding> {
    let remedy = "set `appendonly yes`";
    match (report.appends, report.saves.as_deref()) {
        (Some(true), _) => None,
        (_, Some(saves)) if !saves.is_empty() => Some(Finding::warning(
            part,
            format!("snapshots alone (`save {saves}`): a crash loses the sessions since the last one"),
            remedy,
        )),
        (Some(false), Some(_)) => Some(Finding::warning(
            part,
            "neither `appendonly` nor `save`: its restart logs everybody out",
            remedy,
        )),
        (_, None) | (None, Some(_)) => Some(Finding::warning(
            part,
            "whether it saves what it holds it does not tell this user (CONFIG GET is not allowed)",
            "look at `appendonly` and `save` there, or let the user of this check have `+config|get` as well",
        )),
    }
}

fn replicas(part: &str, report: &ServerReport, redis: &Redis) -> Option<Finding> {
    let (replicas, wanted) = (report.replicas.unwrap_or_default(), redis.wait_for_replicas);
    if usize::try_from(replicas).is_ok_and(|replicas| replicas < wanted) {
        return Some(Finding::fault(
            part,
            format!("{replicas} replicas, and wait_for_replicas is {wanted}: each write waits in vain"),
            "connect replicas, or lower `wait_for_replicas`",
        ));
    }
    let is_cut_off_unnoticed =
        matches!(redis.servers, RedisServers::Sentinel { .. }) && report.min_replicas_to_write == Some(0);
    is_cut_off_unnoticed.then(|| {
        Finding::warning(
            part,
            "min-replicas-to-write is 0: a master that is cut off takes writes that will be lost",
            "set `min-replicas-to-write 1`",
        )
    })
}
