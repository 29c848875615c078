//! The way of a request through the gateway, from its host to its answer.
//!
//! [`Gateway::handle`] stands around: it names the request, logs, and turns refusals into answers. The
//! inner `serve` tells the story: admit the host, find the route, guard and load the session (`app`),
//! freshen its token and forward (`answer`).

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

use crate::body::Body;
use crate::clock::Clock;
use crate::config::{self, Auth, Config};
use crate::endpoints::{Endpoint, Listing, Roster};
use crate::error::{Code, Refusal};
use crate::oidc::{self, Client};
use crate::proxy::body::bounded;
use crate::proxy::headers;
use crate::random::Random;
use crate::respond::{self, Audience};
use crate::revocation::Outbox;
use crate::seal::KeyRing;
use crate::session::Common;
use crate::session::store::Store;
use crate::session::store::observed::ObservedStore;
use crate::telemetry::chain;
use crate::telemetry::metrics::Metrics;

mod answer;
mod app;
mod connection;
mod guard;
mod route;

use answer::Exchange;
use app::{Answers, App, Core, Shared, Who, check_scopes};
use route::Hosts;

pub use app::BuildError;
pub use connection::{ClientConnection, Connection};

/// What may be posted to an endpoint, in bytes: a form with a token in it.
const LARGEST_FORM: u64 = 128 * 1024;

/// How often the issuers are looked for, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// All apps, and what they share.
#[derive(Debug)]
pub struct Gateway {
    hosts: Hosts<App>,
    sessions: Arc<Common>,
    roster: Roster,
    issuers: Vec<Arc<Client>>,
    random: Random,
    /// What goes on behind answered requests.
    tasks: TaskTracker,
    tunnels_stop: CancellationToken,
    /// Ends with the gateway.
    _watches: Vec<AbortOnDropHandle<()>>,
}

impl Gateway {
    /// The gateway that a configuration describes, over a store.
    ///
    /// # Errors
    /// Where TLS to an issuer or an upstream cannot be set up.
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        random: Random,
    ) -> Result<Self, BuildError> {
        let tasks = TaskTracker::new();
        let ring = Arc::new(KeyRing::new(&config.session_keys));
        let tunnels_stop = CancellationToken::new();
        let metrics = Metrics::new();
        let sessions = Arc::new(Common::new(
            Arc::clone(&ring),
            Arc::new(ObservedStore::new(store, metrics.clone())),
            config.store_outage_grace,
            Arc::clone(clock),
            random,
            tasks.clone(),
            metrics,
        ));
        let cookies: Arc<[_]> = config.apps.iter().map(|app| app.session.clone()).collect();
        let shared = Shared {
            server: &config.server,
            ring: &ring,
            sessions: &sessions,
            clock,
            cookies: &cookies,
            random,
            tasks: &tasks,
            tunnels_stop: &tunnels_stop,
        };
        let outbox = Arc::new(Outbox::new(Arc::clone(&sessions)));
        let cores = config.apps.iter().map(|app| Core::new(app, &outbox, &shared));
        let cores = cores.collect::<Result<Vec<_>, _>>()?;
        let listings = config
            .apps
            .iter()
            .zip(&cores)
            .map(|(app, core)| Listing::new(app, Arc::clone(&core.sessions), core.revocations.clone()));
        let roster = Roster::new(listings.collect(), tasks.clone());
        let revocations = cores.iter().map(|core| core.revocations.clone()).collect();
        let issuers = cores.iter().map(|core| Arc::clone(&core.client)).collect();
        let mut watches: Vec<_> =
            cores.iter().map(|core| spawn(Arc::clone(&core.sessions).watch_store())).collect();
        watches.push(spawn(outbox.drain(revocations)));
        let mut apps = Vec::new();
        for (app, core) in config.apps.into_iter().zip(cores) {
            apps.push((app.origin.clone(), App::new(app, core, &roster, &shared)?));
        }
        Ok(Self {
            hosts: Hosts::new(apps),
            sessions,
            roster,
            issuers,
            random,
            tasks,
            tunnels_stop,
            _watches: watches,
        })
    }

    /// Answers a request, whatever becomes of it.
    pub async fn handle(&self, request: Request<Incoming>, connection: Connection) -> Response<Body> {
        let request_id = self.random.token::<12>();
        let audience = guard::audience(&request);
        let span = tracing::info_span!("request", id = request_id, method = %request.method());
        let served = self.serve(request, connection, &request_id, audience).instrument(span.clone()).await;
        let mut response = served.unwrap_or_else(|refusal| {
            span.in_scope(|| log(&refusal));
            respond::refusal(&refusal, audience)
        });
        if let Ok(value) = HeaderValue::try_from(request_id) {
            response.headers_mut().insert("x-request-id", value);
        }
        response
    }

    async fn serve(
        &self,
        request: Request<Incoming>,
        connection: Connection,
        request_id: &str,
        audience: Audience,
    ) -> Result<Response<Body>, Refusal> {
        let app = self.hosts.admit(&request)?;
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Refusal::method_not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        if headers::has_ambiguous_framing(request.headers()) {
            let refusal = Refusal::bad_request("The request's body has no certain end.");
            return Err(refusal.with_header(header::CONNECTION, HeaderValue::from_static("close")));
        }
        let path = request.uri().path();
        if let Some(endpoint) = app.endpoints.find(path) {
            guard_endpoint(endpoint, &request, &app.origin)?;
            let (head, body) = request.into_parts();
            let client = connection.client;
            let body = bounded(body, LARGEST_FORM, move || client.request_received());
            return app.endpoints.answer(endpoint, &head, body).await;
        }
        if app.endpoints.owns(path) {
            return Err(nothing_here());
        }
        let route = Arc::clone(app.routes.find(path)?.ok_or_else(nothing_here)?);
        route.check(&request)?;
        let admission = app.admit(&route.rules, &request, audience).await?;
        let user = match admission.who {
            Who::User(user) => Some(*user),
            Who::Anybody => None,
            Who::Stranger(response) => return Ok(response),
        };
        if let Some(user) = &user {
            app.note_activity(user);
        }
        let mut response = match &route.answers {
            Answers::Files(files, segments) => {
                if let Some(user) = &user {
                    check_scopes(&user.session, &route.rules)?;
                }
                let depends_on_session = route.rules.auth != Auth::None;
                answer::serve_file(files, *segments, request, audience, depends_on_session).await
            }
            Answers::Upstream(upstream, segments) => {
                let path = route::upstream_path(request.uri(), *segments);
                let exchange = Exchange { app, rules: &route.rules, upstream, path, connection, request_id };
                exchange.run(request, user).await?
            }
        };
        if admission.cookie_is_dead {
            app.take_cookie_back(&mut response);
        }
        Ok(response)
    }

    /// Sees whether each issuer is there, unless that was done lately: at the start, so that a fault of the
    /// configuration shows in the log, and for those who watch `/readyz`. Nothing waits for it.
    pub fn look_for_issuers(&self) {
        for client in &self.issuers {
            let client = Arc::clone(client);
            tokio::spawn(async move {
                if let Err(error) = client.confirm(LOOK_INTERVAL).await {
                    tracing::warn!(event = "issuer.unavailable", issuer = client.issuer(), error = %chain(&error));
                }
            });
        }
    }

    /// Whether the store answers.
    pub async fn store_answers(&self) -> bool {
        self.sessions.store_answers().await
    }

    /// Whether sessions that are known here are served, if need be without the store.
    pub fn is_within_grace(&self) -> bool {
        self.sessions.is_within_grace()
    }

    /// What the gateway counts, as [`Metrics::encode`] writes it.
    pub fn encode_metrics(&self) -> String {
        self.sessions.encode_metrics()
    }

    /// The sessions of all apps.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Each issuer, and whether it answered when it was last asked.
    pub fn issuers(&self) -> impl Iterator<Item = (&str, oidc::Availability)> {
        self.issuers.iter().map(|client| (client.issuer(), client.availability()))
    }

    /// Closes the tunnels, which would never end by themselves and are opened again elsewhere; then waits
    /// for what goes on behind answered requests: refreshes, their writes, revocations.
    pub async fn settle(&self) {
        self.tunnels_stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn guard_endpoint<B>(
    endpoint: Endpoint,
    request: &Request<B>,
    origin: &config::Origin,
) -> Result<(), Refusal> {
    if !endpoint.allows(request.method()) {
        return Err(Refusal::method_not_allowed(endpoint.methods()));
    }
    match endpoint {
        Endpoint::Login => guard::login(request),
        Endpoint::Session => guard::session(request.headers(), origin),
        Endpoint::Logout => guard::logout(request, origin),
        // The issuer sends the browser, or calls by itself.
        Endpoint::Callback
        | Endpoint::LogoutCallback
        | Endpoint::BackchannelLogout
        | Endpoint::FrontchannelLogout => Ok(()),
    }
}

/// Runs for as long as what this gives is kept.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

fn nothing_here() -> Refusal {
    Refusal::new(Code::NotFound, "No route and no endpoint has this path.")
}

fn log(refusal: &Refusal) {
    let cause = refusal.cause.as_deref().map(|cause| chain(cause));
    let code = refusal.code.name().unwrap_or("internal");
    if refusal.code.status().is_server_error() {
        tracing::warn!(event = "request.refused", code, cause, detail = refusal.detail);
    } else {
        tracing::info!(event = "request.refused", code, cause, detail = refusal.detail);
    }
}
