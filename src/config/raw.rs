//! The file as it is written: every key, what it is for, and what it stands for where it is left out.
//!
//! Each key is named once. The decoder, the JSON Schema and the tests that hold
//! `config/cloakroom.yaml` against the code are all made of that.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::decode::{At, List, Optional, Required};
use crate::config::keys::{Choice, Keys, Record};
use crate::config::reading::Reported;
use crate::config::scalar::{Count, CountOrZero, DurationOrZero, Fields, Network, Size, Text, Workers};
use crate::config::secret_ref::SecretRef;
use crate::config::web::RedisUrl;

pub(super) mod app;
pub(super) mod client_auth;
pub(super) mod issuers;
pub(super) mod route;
pub(super) mod signals;
pub(super) mod telemetry;
pub(super) mod token;

use app::App;
use telemetry::Telemetry;

pub(super) struct File {
    pub(super) server: Required<Server>,
    pub(super) admin: Optional<Admin>,
    pub(super) sessions: Required<Sessions>,
    pub(super) apps: Required<List<App, 1>>,
    pub(super) telemetry: Required<Telemetry>,
}

pub(super) struct Server {
    pub(super) listen: Required<SocketAddr>,
    pub(super) tls: Optional<Identity>,
    pub(super) h2c: Required<bool>,
    pub(super) trusted_proxies: Required<List<Network>>,
    pub(super) proxy_protocol: Required<bool>,
    pub(super) workers: Optional<Workers>,
    pub(super) limits: Required<Limits>,
    pub(super) shutdown_grace: Required<DurationOrZero>,
}

/// A certificate and its private key.
pub(super) struct Identity {
    pub(super) certificate: Required<Text>,
    pub(super) private_key: Required<Text>,
}

pub(super) struct Limits {
    pub(super) connections: Required<Count>,
    pub(super) connections_per_client: Optional<Count>,
    pub(super) requests: Required<Count>,
    pub(super) http2_streams: Required<Count>,
    pub(super) header_bytes: Required<Size>,
    pub(super) header_count: Required<Fields>,
    pub(super) header_timeout: Required<Duration>,
    pub(super) body_bytes: Required<Size>,
    pub(super) idle_timeout: Required<Duration>,
    pub(super) websocket_idle_timeout: Required<Duration>,
}

pub(super) struct Admin {
    pub(super) listen: Required<SocketAddr>,
}

pub(super) struct Sessions {
    pub(super) keys: Required<List<SecretRef, 1>>,
    pub(super) store: Required<Store>,
    pub(super) idle_timeout: Required<Duration>,
    pub(super) lifetime: Required<Duration>,
    pub(super) refresh_before_expiry: Required<DurationOrZero>,
    pub(super) store_outage_grace: Required<DurationOrZero>,
}

pub(super) enum Store {
    Memory,
    File(FileStore),
    Redis(Box<Redis>),
}

struct Memory;

pub(super) struct FileStore {
    pub(super) path: Required<Text>,
}

pub(super) struct Redis {
    pub(super) servers: Result<RedisServers, Reported>,
    pub(super) ca: Optional<Text>,
    pub(super) username: Optional<Text>,
    pub(super) password: Optional<SecretRef>,
    pub(super) key_prefix: Required<Text>,
    pub(super) wait_for_replicas: Required<CountOrZero>,
}

pub(super) enum RedisServers {
    Single(At<RedisUrl>),
    Cluster(At<List<RedisUrl, 1>>),
    Sentinel(At<Sentinel>),
}

pub(super) struct Sentinel {
    pub(super) master: Required<Text>,
    pub(super) urls: Required<List<RedisUrl, 1>>,
}

impl Record for File {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            server: keys.required("server", "{listen: \"0.0.0.0:8443\"}", "The public listener."),
            admin: keys
                .optional("admin", "The operators' listener; never on the public one. None where left out."),
            sessions: keys.required("sessions", "{keys: […], store: {…}}", "Sessions of every app."),
            apps: keys.required(
                "apps",
                "[{origin: …, oidc: {…}, routes: […]}]",
                "The apps, told apart by the host of their origin.",
            ),
            telemetry: keys.or("telemetry", "{}", "What the gateway tells about itself."),
        })
    }
}

impl Record for Server {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            listen: keys.required(
                "listen",
                "\"0.0.0.0:8443\"",
                "IP address and port; port 0 takes a free one.",
            ),
            tls: keys.optional(
                "tls",
                "HTTPS, with HTTP/2 where the client wants it; both files are read again when they change. Plain HTTP where left out.",
            ),
            h2c: keys.or(
                "h2c",
                "false",
                "Whether a client may speak HTTP/2 without TLS, by prior knowledge (RFC 9113 §3.3).",
            ),
            trusted_proxies: keys.or(
                "trusted_proxies",
                "[]",
                "Networks or addresses whose Forwarded and X-Forwarded-* are believed.",
            ),
            proxy_protocol: keys.or(
                "proxy_protocol",
                "false",
                "Whether each connection of the trusted proxies begins with a header of the PROXY protocol, version 1 or 2.",
            ),
            workers: keys.optional(
                "workers",
                "Threads that serve connections; one for each processor where left out.",
            ),
            limits: keys.or("limits", "{}", "What a client may use up."),
            shutdown_grace: keys.or(
                "shutdown_grace",
                "30s",
                "How long requests under way may take at a shutdown; 0s: not at all.",
            ),
        })
    }
}

impl Record for Limits {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            connections: keys.or("connections", "20000", "Open connections in all."),
            connections_per_client: keys.optional(
                "connections_per_client",
                "Open connections of one client address, trusted proxies aside; as many as in all where left out.",
            ),
            requests: keys.or(
                "requests",
                "10000",
                "Requests that wait for an answer at a time; the last fifth is for those with a live session.",
            ),
            http2_streams: keys.or("http2_streams", "128", "Requests at a time on one HTTP/2 connection."),
            header_bytes: keys.or("header_bytes", "64KiB", "Bytes of a request's head; at least 1KiB."),
            header_count: keys.or("header_count", "100", "Fields in a request's head; at least 20."),
            header_timeout: keys.or(
                "header_timeout",
                "10s",
                "How long a new connection may be silent, and the head of a request may take.",
            ),
            body_bytes: keys.or("body_bytes", "100MiB", "Bytes of a request's body."),
            idle_timeout: keys.or("idle_timeout", "75s", "How long no byte may move in either direction."),
            websocket_idle_timeout: keys.or("websocket_idle_timeout", "10m", "The same for WebSockets."),
        })
    }
}

impl Record for Identity {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            certificate: keys.required(
                "certificate",
                "/etc/cloakroom/tls.crt",
                "A file in PEM: the certificate, then those that lead to its authority.",
            ),
            private_key: keys.required(
                "private_key",
                "/etc/cloakroom/tls.key",
                "A file in PEM: the certificate's private key, which others must not be able to read.",
            ),
        })
    }
}

impl Record for Admin {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        let about = "IP address and port of the status page, /livez, /readyz, /metrics and /sessions.";
        Ok(Self { listen: keys.required("listen", "\"127.0.0.1:9090\"", about) })
    }
}

impl Record for Sessions {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            keys: keys.required(
                "keys",
                "[{env: SESSION_KEY}]",
                "Secrets of 32 bytes in base64 (`cloakroom keygen`). The first seals, each one opens. To rotate, add the new one at the end on all gateways, then move it to the front.",
            ),
            store: keys.required("store", "{memory: {}}", "Where sessions are kept."),
            idle_timeout: keys.or("idle_timeout", "30m", "How long a session lives without a request."),
            lifetime: keys.or("lifetime", "12h", "How long a session lives at most."),
            refresh_before_expiry: keys.or(
                "refresh_before_expiry",
                "60s",
                "An access token with less than this left is refreshed in the background; 0s: only once it has expired.",
            ),
            store_outage_grace: keys.or(
                "store_outage_grace",
                "30s",
                "How long sessions known to this process are served while the store is away; 0s: not at all, and the store is asked on each request.",
            ),
        })
    }
}

impl Record for Store {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        keys.one_of(&[
            Choice::new("memory", "In this process; sessions end with it.", |_: At<Memory>| Self::Memory),
            Choice::new("file", "On this machine's disk, for one gateway.", |file: At<FileStore>| {
                Self::File(file.value)
            }),
            Choice::new(
                "redis",
                "In Redis: one server, a master with its sentinels, or a cluster.",
                |redis: At<Redis>| Self::Redis(Box::new(redis.value)),
            ),
        ])
    }
}

impl Record for Memory {
    fn read(_: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self)
    }
}

impl Record for FileStore {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        let about = "A folder for this gateway alone, which is made where only its parent is there.";
        Ok(Self { path: keys.required("path", "/var/lib/cloakroom", about) })
    }
}

impl Record for Redis {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        let ca = keys.optional(
            "ca",
            "A file of certificates in PEM; with rediss, the only authorities that are believed. The system's where left out.",
        );
        let username = keys.optional("username", "ACL user; the server's default user where left out.");
        let password = keys.optional("password", "The user's password, a secret.");
        let key_prefix = keys.or("key_prefix", "'cloakroom:'", "Put before each key in Redis.");
        let wait_for_replicas = keys.or(
            "wait_for_replicas",
            "0",
            "How many replicas a write waits for, a moment at most; where fewer have it, a warning is logged.",
        );
        // Last, so that the other keys are not taken for misspelt ones of these.
        let servers = keys.one_of(&[
            Choice::new(
                "url",
                "One server: host, port and database, without user and password; rediss is TLS.",
                RedisServers::Single,
            ),
            Choice::new(
                "cluster",
                "Some nodes of a Redis Cluster; the others are found.",
                RedisServers::Cluster,
            ),
            Choice::new("sentinel", "A master that sentinels look after.", RedisServers::Sentinel),
        ]);
        Ok(Self { servers, ca, username, password, key_prefix, wait_for_replicas })
    }
}

impl Record for Sentinel {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            master: keys.required("master", "mymaster", "The master's name among the sentinels."),
            urls: keys.required(
                "urls",
                "[redis://sentinel:26379]",
                "The sentinels; rediss is TLS, for them and the servers they name.",
            ),
        })
    }
}
