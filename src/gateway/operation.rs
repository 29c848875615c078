//! What operators and the process ask of a gateway: how it fares, and to reload and to come to an end.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::Gateway;
use crate::config::Setting;
use crate::endpoints::Roster;
use crate::oidc::{self, Client};
use crate::reloaded::Reload;
use crate::telemetry::chain;
use crate::telemetry::metrics::{Metrics, Readings};

/// How often the issuers are looked for, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

impl Gateway {
    /// Watches, for as long as it is awaited, whether the thread it runs on has too much to do. Each thread that
    /// serves is to have one, whichever gateway is in force.
    pub fn watch_load(&self) -> impl Future<Output = ()> + Send + use<> {
        let load = self.lasting.load.clone();
        async move { load.watch().await }
    }

    /// Sees whether each issuer is there, unless that was done lately, for those who watch `/readyz`. Nothing waits for it.
    pub fn look_for_issuers(&self) {
        self.look_for(|_| true);
    }

    /// The same of those of which nothing is known yet, so that a fault of the configuration shows in the log.
    pub fn look_for_new_issuers(&self) {
        self.look_for(|client| client.availability() == oidc::Availability::Unknown);
    }

    fn look_for(&self, is_wanted: impl Fn(&Client) -> bool) {
        for client in self.issuers.iter().filter(|client| is_wanted(client)) {
            let client = Arc::clone(client);
            tokio::spawn(async move {
                if let Err(error) = client.confirm(LOOK_INTERVAL).await {
                    tracing::warn!(event = "issuer.unavailable", issuer = client.issuer(), error = %chain(&error));
                }
            });
        }
    }

    /// Reads the certificates and keys again that issuers and upstreams are shown, and looks whether the audit trail's file
    /// was moved away.
    pub fn reload(&self) {
        self.lasting.sessions.audit().follow_file();
        self.reloads.iter().for_each(Reload::run);
    }

    /// Counts that a configuration was read while this gateway was in force, or came into force by that.
    pub fn note_reload(&self, is_in_force: bool) {
        let sessions = &self.lasting.sessions;
        sessions.metrics().note_reload(is_in_force, sessions.now());
    }

    /// Whether the store answers.
    pub async fn store_answers(&self) -> bool {
        self.lasting.sessions.store_answers().await
    }

    /// Whether sessions that are known here are served, if need be without the store.
    pub fn is_within_grace(&self) -> bool {
        self.lasting.sessions.is_within_grace()
    }

    /// The configuration in force, for people to read.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// A request was broken off by a fault of ours, and is answered with 500. Which route it was for is lost with it.
    pub fn note_panic(&self) {
        self.nowhere.count_request(StatusCode::INTERNAL_SERVER_ERROR, Duration::ZERO);
    }

    /// What the gateway counts.
    pub fn metrics(&self) -> &Metrics {
        self.lasting.sessions.metrics()
    }

    /// Hands over to the collector, where there is one, what the gateway counts by now, and how things stand.
    pub fn report_metrics(&self) {
        if let Some(tracer) = &self.lasting.tracer {
            tracer.exporter().report(self.encode_metrics(), self.lasting.sessions.now());
        }
    }

    /// The same for the last time, and waits so long at most until spans and metrics were taken.
    pub async fn flush_telemetry(&self, patience: Duration) {
        self.report_metrics();
        if let Some(tracer) = &self.lasting.tracer {
            tracer.exporter().flush(patience).await;
        }
    }

    /// What the gateway counts, and how things stand, as [`Metrics::encode`] writes it.
    pub fn encode_metrics(&self) -> String {
        let readings = Readings::new();
        for (issuer, availability) in self.issuers() {
            if availability != oidc::Availability::Unknown {
                readings.issuer(issuer, availability == oidc::Availability::Available);
            }
        }
        self.hosts.all().for_each(|app| app.read_servers(&readings));
        self.lasting.sessions.encode_metrics(&readings)
    }

    /// The sessions of all apps.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Each issuer, and whether it answered when it was last asked.
    pub fn issuers(&self) -> impl Iterator<Item = (&str, oidc::Availability)> {
        self.issuers.iter().map(|client| (client.issuer(), client.availability()))
    }

    /// Ends tunnels and event streams, which would never end by themselves and are opened again elsewhere: one after
    /// another, the last of them after this long.
    pub fn end_endless(&self, over: Duration) {
        self.lasting.departure.begin(over);
    }

    /// Waits for what goes on behind answered requests: refreshes, their writes, revocations.
    pub async fn settle(&self) {
        let tasks = self.lasting.sessions.tasks();
        tasks.close();
        tasks.wait().await;
    }
}
