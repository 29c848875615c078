//! What the gateway counts, in the names of its contract. Labels are bounded: apps are those of the
//! configuration, and all else is a word of ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

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
    open_tunnels: Gauge,
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

impl Metrics {
    /// All at nothing.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("cloakroom");
        let r = &mut registry;
        let session_cache: Family<_, Counter> = registered(r, "session_cache", "Lookups of opened sessions");
        let session_cache_hits = session_cache.get_or_create(&OfResult { result: "hit" }).clone();
        let notifications_lost =
            registered(r, "store_notifications_lost", "Times the store's notifications broke off");
        let records_mended =
            registered(r, "records_mended", "Records that a store had lost the newest write of");
        let store_operations = Family::new_with_constructor(store_histogram as fn() -> Histogram);
        r.register("store_operation_seconds", "Operations of the session store", store_operations.clone());
        let logins = registered(r, "logins", "Logins");
        let logouts = registered(r, "logouts", "Sessions ended, by what ended them");
        let token_refreshes = registered(r, "token_refreshes", "Refreshes of access tokens");
        let token_refresh_duration = Histogram::new(ISSUER_BUCKETS);
        r.register(
            "token_refresh_duration_seconds",
            "Refreshes of access tokens, from the lease to the write",
            token_refresh_duration.clone(),
        );
        let introspections =
            registered(r, "token_introspections", "Access tokens that the issuer was asked about");
        let revocations = registered(r, "revocations", "Tokens to be revoked, by what became of it");
        let outbox = registered(r, "outbox_entries", "Revocations that wait for their issuer");
        let open_tunnels = registered(r, "open_tunnels", "WebSockets that are open");
        Self(Arc::new(Counts {
            registry,
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
            open_tunnels,
        }))
    }

    /// All counts as Prometheus reads them, in [`OPENMETRICS`].
    pub fn encode(&self) -> String {
        let mut encoded = String::new();
        if let Err(error) = text::encode(&mut encoded, &self.0.registry) {
            tracing::error!(event = "metrics.not_encoded", %error);
            encoded.clear();
        }
        encoded
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

    /// A tunnel is open for as long as what this gives is kept.
    pub fn open_tunnel(&self) -> OpenTunnel {
        self.0.open_tunnels.inc();
        OpenTunnel(self.0.open_tunnels.clone())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A tunnel, among those that are open.
#[derive(Debug)]
pub struct OpenTunnel(Gauge);

impl Drop for OpenTunnel {
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

fn store_histogram() -> Histogram {
    Histogram::new(STORE_BUCKETS)
}
