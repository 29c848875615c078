//! What is not counted but read off, at the moment that somebody asks for it. What is no longer there, such as a server
//! whose name leads elsewhere by now, is in the next reading no more.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::registered;

/// What was read off.
#[derive(Debug)]
pub struct Readings {
    pub(super) registry: Registry,
    sessions: Gauge,
    issuers: Family<OfIssuer, Gauge>,
    servers: Family<OfServer, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfIssuer {
    issuer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfServer {
    app: String,
    route: String,
    server: String,
}

impl Readings {
    /// None so far.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        Self {
            sessions: registered(r, "cloakroom_sessions_in_memory", "Sessions that this process holds open"),
            issuers: registered(
                r,
                "cloakroom_issuer_up",
                "Whether an issuer answered when it was last asked",
            ),
            servers: registered(r, "cloakroom_upstream_server_up", "Whether requests are sent to a server"),
            registry,
        }
    }

    /// How many sessions are held open.
    pub fn sessions(&self, count: usize) {
        self.sessions.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether an issuer answered.
    pub fn issuer(&self, issuer: &str, is_up: bool) {
        self.issuers.get_or_create(&OfIssuer { issuer: issuer.to_owned() }).set(is_up.into());
    }

    /// Whether requests are sent to a server of a route's upstream.
    pub fn server(&self, app: &str, route: &str, server: String, is_up: bool) {
        let labels = OfServer { app: app.to_owned(), route: route.to_owned(), server };
        self.servers.get_or_create(&labels).set(is_up.into());
    }
}

impl Default for Readings {
    fn default() -> Self {
        Self::new()
    }
}
