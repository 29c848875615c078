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
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::body::Body;
use crate::clock::Clock;
use crate::config::{self, Auth, Config};
use crate::endpoints::Endpoint;
use crate::error::{Code, Refusal};
use crate::oidc::{self, Client};
use crate::proxy::headers;
use crate::random::Random;
use crate::respond::{self, Audience};
use crate::seal::KeyRing;
use crate::session::store::Store;
use crate::telemetry::chain;

mod answer;
mod app;
mod connection;
mod guard;
mod route;

use answer::Exchange;
use app::{Answers, App, Shared, Who, check_scopes};
use route::Hosts;

pub use app::BuildError;
pub use connection::{ClientConnection, Connection};

/// How often the issuers are looked for, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// All apps, and what they share.
#[derive(Debug)]
pub struct Gateway {
    hosts: Hosts<App>,
    store: Arc<dyn Store>,
    issuers: Vec<Arc<Client>>,
    random: Random,
    /// What goes on behind answered requests.
    tasks: TaskTracker,
    tunnels_stop: CancellationToken,
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
        let mut issuers = Vec::new();
        let mut apps = Vec::new();
        let cookies: Arc<[_]> = config.apps.iter().map(|app| app.session.clone()).collect();
        for app in config.apps {
            let origin = app.origin.clone();
            let shared = Shared {
                server: &config.server,
                ring: &ring,
                store: &store,
                clock,
                cookies: &cookies,
                random,
                tasks: &tasks,
                tunnels_stop: &tunnels_stop,
            };
            let (app, client) = App::new(app, &shared)?;
            issuers.push(client);
            apps.push((origin, app));
        }
        Ok(Self { hosts: Hosts::new(apps), store, issuers, random, tasks, tunnels_stop })
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
            return app.endpoints.answer(endpoint, &request.into_parts().0).await;
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
        self.store.ping().await.is_ok()
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
        Endpoint::Callback | Endpoint::LogoutCallback => Ok(()),
    }
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
