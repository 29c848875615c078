//! What the gateway counts, in the names of its contract. Labels are bounded: apps are those of the
//! configuration, and all else is a word of ours.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::clock::Timestamp;

mod readings;
mod site;

use site::Sites;

pub use readings::Readings;
pub use site::{Distribution, Site, Totals};

/// The media type of [`Metrics::encode`].
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The older format, as which the same text can be read.
pub const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// In seconds: from an answer out of memory to one that took as long as anybody waits.
const STORE_BUCKETS: [f64; 10] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
const ISSUER_BUCKETS: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0];

/// The counts of one gateway. A clone counts for the same.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    registry: Registry,
    sites: Sites,
    session_cache: Family<OfResult, Counter>,
    /// One of the family, which nearly every request counts up.
    session_cache_hits: Counter,
    notifications_lost: Counter,
    records_mended: Counter,
    store_operations: Family<OfOperation, Histogram, fn() -> Histogram>,
    logins: Family<OfApp, Counter>,
    logouts: Family<OfCause, Counter>,
    token_refreshes: Family<OfApp, Counter>,
    token_refresh_duration: Histogram,
    introspections: Family<OfApp, Counter>,
    revocations: Family<OfApp, Counter>,
    outbox: Gauge<f64, AtomicU64>,
    overload_refusals: Family<OfLimit, Counter>,
    open_connections: Gauge,
    open_tunnels: Gauge,
    config_reloads: Family<OfResult, Counter>,
    configured_at: Gauge<f64, AtomicU64>,
    is_configured: Gauge,
    start: Gauge<f64, AtomicU64>,
    certificates: Family<OfCertificate, Gauge<f64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOperation {
    operation: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfApp {
    app: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCause {
    app: String,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLimit {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCertificate {
    certificate: String,
}

impl Metrics {
    /// All at nothing.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let sites = Sites::default();
        r.register_collector(Box::new(sites.clone()));
        let session_cache: Family<_, Counter> =
            registered(r, "cloakroom_session_cache", "Lookups of opened sessions");
        // From the start: an increase from nothing at all is none to Prometheus.
        for result in ["miss", "outage", "unavailable", "unreadable", "foreign_key"] {
            drop(session_cache.get_or_create(&OfResult { result }));
        }
        let session_cache_hits = session_cache.get_or_create(&OfResult { result: "hit" }).clone();
        let notifications_lost =
            registered(r, "cloakroom_store_notifications_lost", "Times the store's notifications broke off");
        let records_mended =
            registered(r, "cloakroom_records_mended", "Records that a store had lost the newest write of");
        let store_operations = Family::new_with_constructor(store_histogram as fn() -> Histogram);
        r.register(
            "cloakroom_store_operation_seconds",
            "Operations of the session store",
            store_operations.clone(),
        );
        let logins = registered(r, "cloakroom_logins", "Logins");
        let logouts = registered(r, "cloakroom_logouts", "Sessions ended, by what ended them");
        let token_refreshes = registered(r, "cloakroom_token_refreshes", "Refreshes of access tokens");
        let token_refresh_duration = Histogram::new(ISSUER_BUCKETS);
        r.register(
            "cloakroom_token_refresh_duration_seconds",
            "Refreshes of access tokens, from the lease to the write",
            token_refresh_duration.clone(),
        );
        let introspections =
            registered(r, "cloakroom_token_introspections", "Access tokens that the issuer was asked about");
        let revocations =
            registered(r, "cloakroom_revocations", "Tokens to be revoked, by what became of it");
        let outbox = registered(r, "cloakroom_outbox_entries", "Revocations that wait for their issuer");
        let overload_refusals =
            registered(r, "cloakroom_overload_refusals", "What was refused because there was too much");
        let open_connections =
            registered(r, "cloakroom_open_connections", "Connections of clients, tunnels included");
        let open_tunnels = registered(r, "cloakroom_open_tunnels", "WebSockets that are open");
        let config_reloads: Family<OfResult, Counter> =
            registered(r, "cloakroom_config_reloads", "Configurations that were read while the gateway ran");
        // Both are there from the start: an increase from nothing at all is none to Prometheus.
        for result in ["succeeded", "refused"] {
            drop(config_reloads.get_or_create(&OfResult { result }));
        }
        let is_configured = registered(
            r,
            "cloakroom_config_last_reload_successful",
            "Whether the configuration that was read last is the one in force",
        );
        let configured_at = registered(
            r,
            "cloakroom_config_last_reload_success_timestamp_seconds",
            "When a configuration was last found good, be it at the start",
        );
        let build: Family<_, Gauge> = registered(r, "cloakroom_build_info", "What this process is, always 1");
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        let start =
            registered(r, "process_start_time_seconds", "When this process began, in seconds since 1970");
        let certificates = registered(
            r,
            "cloakroom_certificate_expiry_timestamp_seconds",
            "When a certificate that we show ends, in seconds since 1970",
        );
        Self(Arc::new(Counts {
            registry,
            sites,
            session_cache,
            session_cache_hits,
            notifications_lost,
            records_mended,
            store_operations,
            logins,
            logouts,
            token_refreshes,
            token_refresh_duration,
            introspections,
            revocations,
            outbox,
            overload_refusals,
            open_connections,
            open_tunnels,
            config_reloads,
            configured_at,
            is_configured,
            start,
            certificates,
        }))
    }

    /// All counts as Prometheus reads them, in [`OPENMETRICS`], and what was read off besides.
    pub fn encode(&self, readings: &Readings) -> String {
        let mut encoded = String::new();
        let written = text::encode_registry(&mut encoded, &self.0.registry)
            .and_then(|()| text::encode(&mut encoded, &readings.registry));
        if let Err(error) = written {
            tracing::error!(event = "metrics.not_encoded", %error);
            encoded.clear();
        }
        encoded
    }

    /// What counts the requests to a place: a route or an endpoint by its path under an app's origin. Both are empty
    /// where there is none.
    pub fn site(&self, app: &str, route: &str) -> Site {
        self.0.sites.get(app, route)
    }

    /// What all requests came to so far, by site.
    pub fn requests(&self) -> Vec<Totals> {
        self.0.sites.totals()
    }

    /// The gateway begins.
    pub fn set_start(&self, now: Timestamp) {
        self.0.start.set(seconds(now));
    }

    /// The certificate in this file, the only one that is shown, ends.
    pub fn set_certificate_end(&self, certificate: &Path, end: Timestamp) {
        self.0.certificates.clear();
        let certificate = certificate.display().to_string();
        self.0.certificates.get_or_create(&OfCertificate { certificate }).set(seconds(end));
    }

    /// A request or a connection was refused, for there were too many: by which of `server.limits`.
    pub fn count_overload(&self, limit: &'static str) {
        self.0.overload_refusals.get_or_create(&OfLimit { limit }).inc();
    }

    /// A client's connection is open for as long as what this gives is kept.
    pub fn open_connection(&self) -> Open {
        Open::new(&self.0.open_connections)
    }

    /// A lookup of an opened session that came to anything else.
    pub fn count_session_lookup(&self, result: &'static str) {
        self.0.session_cache.get_or_create(&OfResult { result }).inc();
    }

    /// A session that was open already.
    pub fn count_session_hit(&self) {
        self.0.session_cache_hits.inc();
    }

    /// How often the store's notifications have broken off so far.
    pub fn set_lost_notifications(&self, times: u64) {
        self.0.notifications_lost.inner().store(times, Ordering::Relaxed);
    }

    /// The store had lost the newest write of a record, and has it again.
    pub fn count_mended_record(&self) {
        self.0.records_mended.inc();
    }

    /// An operation of the store.
    pub fn observe_store(&self, operation: &'static str, result: &'static str, took: Duration) {
        self.0.store_operations.get_or_create(&OfOperation { operation, result }).observe(took.as_secs_f64());
    }

    /// A login has come to an end.
    pub fn count_login(&self, app: &str, result: &'static str) {
        self.0.logins.get_or_create(&OfApp { app: app.to_owned(), result }).inc();
    }

    /// A session has ended.
    pub fn count_logout(&self, app: &str, cause: &'static str) {
        self.0.logouts.get_or_create(&OfCause { app: app.to_owned(), cause }).inc();
    }

    /// A refresh has come to an end.
    pub fn observe_refresh(&self, app: &str, result: &'static str, took: Duration) {
        self.0.token_refreshes.get_or_create(&OfApp { app: app.to_owned(), result }).inc();
        self.0.token_refresh_duration.observe(took.as_secs_f64());
    }

    /// The issuer was asked whether an access token is good.
    pub fn count_introspection(&self, app: &str, result: &'static str) {
        self.0.introspections.get_or_create(&OfApp { app: app.to_owned(), result }).inc();
    }

    /// Something became of a token that was to be revoked.
    pub fn count_revocation(&self, app: &str, result: &'static str) {
        self.0.revocations.get_or_create(&OfApp { app: app.to_owned(), result }).inc();
    }

    /// How many revocations wait.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts that far")]
    pub fn set_outbox(&self, entries: u64) {
        self.0.outbox.set(entries as f64);
    }

    /// A configuration was read while the gateway ran; it is in force since now, or was refused.
    pub fn note_reload(&self, is_in_force: bool, now: Timestamp) {
        let result = if is_in_force { "succeeded" } else { "refused" };
        self.0.config_reloads.get_or_create(&OfResult { result }).inc();
        if is_in_force {
            self.note_configured(now);
        } else {
            self.0.is_configured.set(0);
        }
    }

    /// A configuration is in force.
    #[expect(clippy::cast_precision_loss, reason = "exact until the year 287396")]
    pub fn note_configured(&self, now: Timestamp) {
        self.0.is_configured.set(1);
        self.0.configured_at.set(now.as_millis() as f64 / 1000.0);
    }

    /// A tunnel is open for as long as what this gives is kept.
    pub fn open_tunnel(&self) -> Open {
        Open::new(&self.0.open_tunnels)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that is open, until this is dropped.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    fn new(count: &Gauge) -> Self {
        count.inc();
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn registered<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

#[expect(clippy::cast_precision_loss, reason = "seconds are exact for longer than anybody counts them")]
fn seconds(moment: Timestamp) -> f64 {
    moment.as_secs() as f64
}

fn store_histogram() -> Histogram {
    Histogram::new(STORE_BUCKETS)
}
