//! The status page, for people: how everything does, what passed through during the last hour, and the
//! configuration in force. Plain HTML that needs no script; a few lines of one keep it up to date in place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use http::Response;

use crate::body::Body;
use crate::clock::{Clock, Timestamp};
use crate::gateway::Gateway;
use crate::oidc::Availability;
use crate::respond::{self, escape};
use crate::server::connection::{InForce, Listener};

mod configuration;
mod counts;
mod health;
mod history;
mod plot;
mod traffic;

use counts::{Counts, Site};
use health::{Grade, State};
use history::{History, Sample, View};

const STYLE: &str = include_str!("status/page.css");
const SCRIPT: &str = include_str!("status/page.js");

/// How often it is looked whether it is time for a sample.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the page tells beside what the gateway knows. It is the process's, and outlives a configuration.
#[derive(Debug)]
pub(in crate::server) struct Status {
    clock: Arc<dyn Clock>,
    started_at: Timestamp,
    /// How many threads serve.
    workers: usize,
    history: Mutex<History>,
}

impl Status {
    /// Of a process that starts now.
    pub(in crate::server) fn new(clock: Arc<dyn Clock>, workers: usize) -> Self {
        let started_at = clock.now();
        Self { clock, started_at, workers, history: Mutex::default() }
    }

    /// Takes samples for as long as it is awaited.
    pub(super) async fn watch(&self, listener: &Listener) {
        loop {
            if self.history().is_due(self.clock.now()) {
                let sample = self.sample(&listener.in_force.load().gateway.encode_metrics());
                self.history().note(&sample);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// The page as it is now.
    pub(super) async fn page(&self, in_force: &InForce, is_draining: bool) -> Response<Body> {
        let gateway = &in_force.gateway;
        let certificate_until = in_force.door.tls.as_ref().and_then(|tls| tls.good_until());
        gateway.look_for_issuers();
        let store_answers = gateway.store_answers().await;
        let metrics = gateway.encode_metrics();
        let sample = self.sample(&metrics);
        let counts = sample.counts.clone();
        let view = {
            let mut history = self.history();
            history.note(&sample);
            history.view(sample)
        };
        let now = self.clock.now();
        let facts = Facts { gateway, certificate_until, is_draining, now, store_answers, counts, view };
        let sections = [
            ("overview", self.overview(&facts)),
            ("health", facts.health()),
            ("traffic", traffic::plots(&facts.view)),
            ("routes", traffic::sites(&Site::read_all(&metrics))),
            ("configuration", configuration::section(gateway.settings())),
        ];
        let content: String =
            sections.map(|(id, content)| format!("<section id=\"{id}\">{content}</section>")).concat();
        let content = format!("{content}<p id=\"live\" role=\"status\"></p>");
        respond::live_page(&format!("Cloakroom: {}", facts.state().words), STYLE, SCRIPT, &content)
    }

    fn overview(&self, facts: &Facts<'_>) -> String {
        let date = |since_1970| httpdate::fmt_http_date(UNIX_EPOCH + since_1970);
        let configured_at = Duration::try_from_secs_f64(facts.counts.configured_at).unwrap_or_default();
        let tiles: String = traffic::tiles(&facts.counts, &facts.view)
            .into_iter()
            .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>"))
            .collect();
        format!(
            "<header><h1>Cloakroom</h1> {}</header>\
             <p class=\"facts\"><span>Version {}</span> <span>up for {}</span> <span>workers: {}</span> <span>as of {}</span> \
             <span>configuration of {}</span></p>\
             {}<dl class=\"tiles\">{tiles}</dl>",
            facts.state().badge(),
            env!("CARGO_PKG_VERSION"),
            health::duration(facts.now.since(self.started_at)),
            self.workers,
            date(Duration::from_millis(facts.now.as_millis())),
            date(configured_at),
            facts.attention(),
        )
    }

    fn sample(&self, metrics: &str) -> Sample {
        Sample { at: self.clock.now(), counts: Counts::read(metrics) }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known at the moment that somebody asks.
struct Facts<'a> {
    gateway: &'a Gateway,
    /// Of the listener, where it has one that says so.
    certificate_until: Option<Timestamp>,
    is_draining: bool,
    now: Timestamp,
    store_answers: bool,
    counts: Counts,
    view: View,
}

impl Facts<'_> {
    /// As `/readyz` has it.
    fn state(&self) -> State {
        let serves = self.store_answers || self.gateway.is_within_grace();
        match (self.is_draining, serves, self.troubles().is_empty()) {
            (true, _, _) => State::new(Grade::Fair, "draining"),
            (false, false, _) => State::new(Grade::Bad, "not ready"),
            (false, true, false) => State::new(Grade::Fair, "ready, with trouble"),
            (false, true, true) => State::new(Grade::Good, "ready"),
        }
    }

    /// What somebody should look at.
    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if self.counts.is_refused {
            let words = "The configuration that was read last was refused; the log tells why. What was in force stays.";
            troubles.push(words.to_owned());
        }
        if !self.store_answers {
            troubles.push("The session store does not answer.".to_owned());
        }
        for (issuer, availability) in self.gateway.issuers() {
            if availability == Availability::Unavailable {
                troubles.push(format!("The issuer {issuer} does not answer."));
            }
        }
        troubles.extend(self.gateway.survey().iter().filter_map(health::trouble));
        if let Some(state) = self.certificate()
            && state.grade != Grade::Good
        {
            troubles.push(format!("The listener's certificate: {}.", state.words));
        }
        troubles
    }

    fn attention(&self) -> String {
        let troubles: String =
            self.troubles().iter().map(|trouble| format!("<li>{}</li>", escape(trouble))).collect();
        if troubles.is_empty() { troubles } else { format!("<ul class=\"attention\">{troubles}</ul>") }
    }

    fn certificate(&self) -> Option<State> {
        let until = self.certificate_until?;
        Some(health::certificate(until.since(self.now)))
    }

    fn health(&self) -> String {
        let row = |name: &str, what: &str, state: &State, more: &str| {
            format!(
                "<tr><th scope=\"row\">{name} <small>{}</small></th><td>{} <small>{more}</small></td></tr>",
                escape(what),
                state.badge()
            )
        };
        let store = health::store(self.store_answers, self.gateway.is_within_grace());
        let times = traffic::store_times(&self.view);
        let mut rows = row("Session store", health::kind_of_store(self.gateway.settings()), &store, &times);
        for (issuer, availability) in self.gateway.issuers() {
            rows += &row("Issuer", issuer, &health::issuer(availability), "");
        }
        if let Some(state) = self.certificate() {
            rows += &row("Certificate", "of the listener", &state, "");
        }
        format!(
            "<h2>Health</h2><table><caption>Neighbours</caption><thead><tr><th scope=\"col\">Who</th>\
             <th scope=\"col\">State</th></tr></thead><tbody>{rows}</tbody></table>{}",
            health::servers(&self.gateway.survey())
        )
    }
}
