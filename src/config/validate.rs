//! From the raw file to types that cannot be wrong: what only shows where several values meet.
//!
//! Every part is looked at before one is given up on, so that all faults come out in one run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::decode::{At, List, Required};
use crate::config::raw;
use crate::config::reading::{Place, Reading, Reported};
use crate::config::scalar::{DurationOrZero, Scope, Text};
use crate::config::secret_ref::SecretRef;
use crate::config::{
    Admin, Audit, CertificateAuthorities, Config, Identity, IdentityFile, Limits, Server, SessionKey, Store,
    Telemetry,
};

mod app;
mod client_auth;
mod issuers;
mod otlp;
mod redis;
mod route;
mod signals;
mod token;
mod upstream;

/// The time limits that all apps share.
#[derive(Clone)]
struct SessionTimes {
    idle_timeout: At<Duration>,
    lifetime: At<Duration>,
    refresh_before_expiry: At<DurationOrZero>,
}

/// The whole configuration.
pub(super) fn config(file: raw::File, reading: &mut Reading<'_>) -> Result<Config, Reported> {
    let public =
        file.server.as_ref().ok().and_then(|server| server.value.listen.as_ref().ok()).map(|at| at.value);
    let server = file.server.and_then(|server| self::server(server.value, reading));
    let admin =
        file.admin.and_then(|admin| admin.map(|admin| self::admin(admin.value, public, reading)).transpose());
    let sessions = file.sessions.map(|sessions| self::sessions(sessions.value, reading));
    let (session_keys, store, store_outage_grace, times) =
        sessions.unwrap_or_else(|reported| (Err(reported), Err(reported), Err(reported), Err(reported)));
    let apps = file.apps.and_then(|apps| app::apps(apps.value, &times, reading));
    let telemetry = file
        .telemetry
        .and_then(|telemetry| self::telemetry(telemetry.value, session_keys.as_deref(), reading));
    Ok(Config {
        server: server?,
        admin: admin?,
        session_keys: session_keys?,
        store: store?,
        store_outage_grace: store_outage_grace?,
        apps: apps?,
        telemetry: telemetry?,
        // The reading puts them in.
        settings: Vec::new(),
    })
}

fn server(server: raw::Server, reading: &mut Reading<'_>) -> Result<Server, Reported> {
    let limits = server.limits.and_then(|limits| self::limits(limits.value, reading));
    let tls = server.tls.and_then(|tls| tls.map(|tls| self::tls(tls.value, reading)).transpose());
    let trusted_proxies = all(server.trusted_proxies);
    let proxy_protocol = server.proxy_protocol.and_then(|at| match &trusted_proxies {
        Ok(trusted) if at.value && trusted.is_empty() => {
            let remedy = "`trusted_proxies` beside it, with the addresses that send such headers";
            Err(reading.fault(&at.place, "headers of the PROXY protocol, where no proxy is trusted", remedy))
        }
        Ok(_) | Err(_) => Ok(at.value),
    });
    Ok(Server {
        listen: server.listen?.value,
        tls: tls?,
        h2c: server.h2c?.value,
        trusted_proxies: trusted_proxies?.into_iter().map(|network| network.value.0).collect(),
        proxy_protocol: proxy_protocol?,
        workers: server.workers?.map(|workers| workers.value.0),
        limits: limits?,
        shutdown_grace: server.shutdown_grace?.value.0,
    })
}

fn tls(tls: raw::Identity, reading: &mut Reading<'_>) -> Result<Identity, Reported> {
    identity(tls.certificate?, tls.private_key?, reading)
}

/// A certificate and its key, both as good as they are now.
fn identity(
    certificate: At<Text>,
    private_key: At<Text>,
    reading: &mut Reading<'_>,
) -> Result<Identity, Reported> {
    let identity =
        Identity { certificate: certificate.value.0.into(), private_key: private_key.value.0.into() };
    match identity.load() {
        Ok(_) => Ok(identity),
        Err(error) => {
            let (place, remedy) = match error.file {
                IdentityFile::Certificate => (&certificate.place, "a file in PEM that this user may read"),
                IdentityFile::PrivateKey => (
                    &private_key.place,
                    "the certificate's own key in PEM, which this user may read and others may not (`chmod o-r`)",
                ),
            };
            Err(reading.fault(place, error.to_string(), remedy))
        }
    }
}

fn authorities(ca: &At<Text>, reading: &mut Reading<'_>) -> Result<CertificateAuthorities, Reported> {
    let remedy = "a file that this user may read, with one certificate or more in PEM";
    CertificateAuthorities::read(Path::new(&ca.value.0))
        .map_err(|error| reading.fault(&ca.place, error.to_string(), remedy))
}

fn limits(limits: raw::Limits, reading: &mut Reading<'_>) -> Result<Limits, Reported> {
    const SMALLEST_HEAD: usize = 1024;
    let header_bytes = limits.header_bytes.and_then(|size| match usize::try_from(size.value.0) {
        Ok(bytes) if bytes >= SMALLEST_HEAD => Ok(bytes),
        Ok(_) | Err(_) => {
            Err(reading.fault(&size.place, "too small for the heads that browsers send", "`1KiB` or more"))
        }
    });
    let connections = limits.connections?.value.0;
    let per_client = limits.connections_per_client?;
    Ok(Limits {
        connections,
        connections_per_client: per_client.map_or(connections, |count| count.value.0),
        requests: limits.requests?.value.0,
        http2_streams: u32::try_from(limits.http2_streams?.value.0).unwrap_or(u32::MAX),
        header_bytes: header_bytes?,
        header_count: limits.header_count?.value.0,
        header_timeout: limits.header_timeout?.value,
        body_bytes: limits.body_bytes?.value.0,
        idle_timeout: limits.idle_timeout?.value,
        websocket_idle_timeout: limits.websocket_idle_timeout?.value,
    })
}

fn admin(
    admin: raw::Admin,
    public: Option<SocketAddr>,
    reading: &mut Reading<'_>,
) -> Result<Admin, Reported> {
    let listen = admin.listen?;
    if public == Some(listen.value) && listen.value.port() != 0 {
        let problem = "the operators' listener on the public address";
        return Err(reading.fault(&listen.place, problem, "another port, such as `127.0.0.1:9090`"));
    }
    Ok(Admin { listen: listen.value })
}

type Sessions = (
    Result<Vec<SessionKey>, Reported>,
    Result<Store, Reported>,
    Result<Duration, Reported>,
    Result<SessionTimes, Reported>,
);

fn sessions(sessions: raw::Sessions, reading: &mut Reading<'_>) -> Sessions {
    let keys = sessions.keys.and_then(|keys| session_keys(keys.value, reading));
    let store = sessions.store.and_then(|store| match store.value {
        raw::Store::Memory => Ok(Store::Memory),
        raw::Store::File(file) => file_store(file, reading),
        raw::Store::Redis(redis) => redis::redis(*redis, reading).map(Store::Redis),
    });
    let grace = sessions.store_outage_grace.map(|grace| grace.value.0);
    let times = times(sessions.idle_timeout, sessions.lifetime, sessions.refresh_before_expiry, reading);
    (keys, store, grace, times)
}

fn session_keys(keys: List<SecretRef, 1>, reading: &mut Reading<'_>) -> Result<Vec<SessionKey>, Reported> {
    let keys: Vec<_> = keys
        .0
        .into_iter()
        .map(|key| key.and_then(|key| key.value.read_key("session key", reading)))
        .collect();
    distinct(keys, "session key", reading)
}

fn file_store(file: raw::FileStore, reading: &mut Reading<'_>) -> Result<Store, Reported> {
    let folder = file.path?;
    let path = PathBuf::from(folder.value.0);
    let problem = if path.is_dir() || !path.exists() && folder_around(&path).is_dir() {
        return Ok(Store::File { path });
    } else if path.exists() {
        "not a folder"
    } else {
        "a folder whose parent is not there either"
    };
    Err(reading.fault(
        &folder.place,
        problem,
        "a folder for this gateway alone, such as `/var/lib/cloakroom`",
    ))
}

/// Of a plain name, the working directory.
fn folder_around(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

/// A session that may idle longer than it may live does no harm, for its lifetime ends it; where somebody
/// wrote both, one of the two is not what they think.
fn times(
    idle_timeout: Required<Duration>,
    lifetime: Required<Duration>,
    refresh_before_expiry: Required<DurationOrZero>,
    reading: &mut Reading<'_>,
) -> Result<SessionTimes, Reported> {
    let (idle_timeout, lifetime) = (idle_timeout?, lifetime?);
    if idle_timeout.value > lifetime.value && idle_timeout.written && lifetime.written {
        let line = lifetime.place.position.line;
        let problem =
            format!("an idle_timeout longer than the lifetime of line {line}, which ends a session first");
        reading.warn(&idle_timeout.place, problem, "an idle_timeout of the lifetime or less");
    }
    Ok(SessionTimes { idle_timeout, lifetime, refresh_before_expiry: refresh_before_expiry? })
}

fn telemetry(
    telemetry: raw::telemetry::Telemetry,
    session_keys: Result<&[SessionKey], &Reported>,
    reading: &mut Reading<'_>,
) -> Result<Telemetry, Reported> {
    let otlp = telemetry.otlp.and_then(|otlp| otlp.map(|otlp| otlp::otlp(otlp.value, reading)).transpose());
    let audit = telemetry
        .audit
        .and_then(|audit| audit.map(|audit| self::audit(audit.value, session_keys, reading)).transpose());
    let log = telemetry.log?.value;
    Ok(Telemetry {
        audit: audit?,
        log_format: log.format?.value,
        log_level: log.level?.value.0.to_owned(),
        access_log: telemetry.access_log?.value,
        otlp: otlp?,
    })
}

fn audit(
    audit: raw::telemetry::Audit,
    session_keys: Result<&[SessionKey], &Reported>,
    reading: &mut Reading<'_>,
) -> Result<Audit, Reported> {
    let key = audit.key.and_then(|key| key.value.read_key("audit key", reading)).and_then(|(key, place)| {
        // Whoever is to find a user in the trail gets this key, and must be able to open no cookie.
        if session_keys.is_ok_and(|keys| keys.contains(&key)) {
            let remedy = "a key of its own that `cloakroom keygen` made";
            return Err(reading.fault(&place, "one of the session keys", remedy));
        }
        Ok(key)
    });
    let file = audit.file.and_then(|file| {
        let Some(file) = file else { return Ok(None) };
        let path = PathBuf::from(file.value.0);
        if folder_around(&path).is_dir() && !path.is_dir() {
            return Ok(Some(path));
        }
        let problem = "a file in a folder that is not there, or a folder";
        Err(reading.fault(&file.place, problem, "a file such as `/var/log/cloakroom/audit.log`"))
    });
    Ok(Audit { key: key?, file: file? })
}

/// Every value of a list, where each could be read.
fn all<T, const LEAST: usize>(list: Required<List<T, LEAST>>) -> Result<Vec<At<T>>, Reported> {
    list?.value.0.into_iter().collect()
}

/// Scopes as texts, each with its place.
fn texts<const LEAST: usize>(
    scopes: List<Scope, LEAST>,
) -> impl Iterator<Item = Result<(String, Place), Reported>> {
    scopes.0.into_iter().map(|scope| scope.map(|scope| (scope.value.0, scope.place)))
}

/// Values of a list, each with its place; none of them twice.
fn distinct<T: PartialEq>(
    values: impl IntoIterator<Item = Result<(T, Place), Reported>>,
    what: &str,
    reading: &mut Reading<'_>,
) -> Result<Vec<T>, Reported> {
    let mut distinct = Vec::new();
    let mut result = Ok(());
    for value in values {
        match value {
            Ok((value, place)) if distinct.contains(&value) => {
                let problem = format!("this {what} stands here twice");
                result = Err(reading.fault(&place, problem, format!("each {what} once")));
            }
            Ok((value, _)) => distinct.push(value),
            Err(reported) => result = Err(reported),
        }
    }
    result.map(|()| distinct)
}
