//! The way of a request through the gateway, from its host to its answer.
//!
//! [`Gateway::handle`] stands around: it names the request, logs, and turns refusals into answers. The
//! inner `serve` tells the story: admit the host, find the route, guard and load the session (`app`),
//! freshen its token and forward (`answer`).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, header};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::body::Body;
use crate::clock::Clock;
use crate::config::{Auth, Config, RateLimitKey};
use crate::endpoints::{Listing, Roster};
use crate::error::{Code, Refusal};
use crate::oidc::{self, Client};
use crate::proxy::headers;
use crate::random::Random;
use crate::reloaded::Reload;
use crate::respond::{self, Audience};
use crate::revocation::Outbox;
use crate::seal::KeyRing;
use crate::session::Common;
use crate::session::store::Store;
use crate::session::store::observed::ObservedStore;
use crate::telemetry::access_log::{self, Access, Site};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{RequestId, chain};

mod answer;
mod app;
mod bearer;
pub mod client_address;
mod connection;
mod endpoint;
mod foundation;
mod guard;
mod load;
mod rate_limit;
pub mod route;

use answer::Exchange;
use app::{Answers, App, Route, Who};
use bearer::check_rights;
use client_address::client_address;
use foundation::{Core, Shared};
use load::{Load, Place, may_be_of_a_session};
use rate_limit::{Quota, SharedCounts, Whose};
use route::Hosts;

pub use client_address::client_network;
pub use connection::{ClientConnection, Connection};
pub use foundation::BuildError;

/// A request to a route, and what is known of it.
struct Visit<'a> {
    app: &'a App,
    route: &'a Route,
    connection: Connection,
    request_id: RequestId,
    audience: Audience,
}

/// How often the issuers are looked for, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// All apps, and what they share.
#[derive(Debug)]
pub struct Gateway {
    hosts: Hosts<App>,
    load: Load,
    sessions: Arc<Common>,
    roster: Roster,
    issuers: Vec<Arc<Client>>,
    reloads: Vec<Reload>,
    random: Random,
    /// What goes on behind answered requests.
    tasks: TaskTracker,
    /// For what has no end of its own.
    endless_stop: CancellationToken,
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
        let endless_stop = CancellationToken::new();
        let metrics = Metrics::new();
        let store: Arc<dyn Store> = Arc::new(ObservedStore::new(store, metrics.clone()));
        let counts = Arc::new(SharedCounts::new(Arc::clone(&store), Arc::clone(&ring)));
        let load = Load::new(&config.server, Arc::clone(clock));
        let sessions = Arc::new(Common::new(
            Arc::clone(&ring),
            store,
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
            counts: &counts,
            random,
            tasks: &tasks,
            endless_stop: &endless_stop,
        };
        let outbox = Arc::new(Outbox::new(Arc::clone(&sessions)));
        let cores = config.apps.iter().map(|app| Core::new(app, &outbox, &shared));
        let cores = cores.collect::<Result<Vec<_>, _>>()?;
        let listings = config
            .apps
            .iter()
            .zip(&cores)
            .flat_map(|(app, core)| Listing::all_of(app, &core.sessions, &core.revocations));
        let roster = Roster::new(listings.collect(), tasks.clone());
        let revocations = cores.iter().map(|core| core.revocations.clone()).collect();
        let issuers = cores.iter().flat_map(|core| core.clients.iter().map(Arc::clone)).collect();
        let mut watches: Vec<_> =
            cores.iter().map(|core| spawn(Arc::clone(&core.sessions).watch_store())).collect();
        watches.push(spawn(outbox.drain(revocations)));
        let (mut apps, mut reloads) = (Vec::new(), Vec::new());
        for (app, core) in config.apps.into_iter().zip(cores) {
            let origin = app.origin.clone();
            reloads.extend(core.clients.iter().flat_map(|client| client.reloads()));
            let app = App::new(app, core, &roster, &shared)?;
            reloads.extend(app.reloads());
            apps.push((origin, app));
        }
        Ok(Self {
            hosts: Hosts::new(apps),
            load,
            sessions,
            roster,
            issuers,
            reloads,
            random,
            tasks,
            endless_stop,
            _watches: watches,
        })
    }

    /// Answers a request, whatever becomes of it. It is boxed, for it is handed on from one function to the next: each of
    /// their futures has room for it, and all that room is copied when it begins.
    pub async fn handle(&self, request: Box<Request<Body>>, connection: Connection) -> Response<Body> {
        let id = RequestId::generate(self.random);
        let mut access = access_log::begin(&request, id, connection.peer.ip(), self.sessions.now());
        let audience = guard::audience(&request);
        let answering = async {
            let served = self.serve(request, connection, id, audience, &mut access).await;
            served.unwrap_or_else(|refusal| {
                log(&refusal);
                respond::refusal(&refusal, audience)
            })
        };
        // In its place: it is large, and would be copied.
        let mut response = id.within(pin!(answering)).await;
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            response.headers_mut().insert(headers::X_REQUEST_ID, value);
        }
        match access {
            Some(access) => {
                let status = response.status();
                response.map(|body| access.until_sent(status, body))
            }
            None => response,
        }
    }

    async fn serve(
        &self,
        request: Box<Request<Body>>,
        connection: Connection,
        request_id: RequestId,
        audience: Audience,
        access: &mut Option<Access>,
    ) -> Result<Response<Body>, Refusal> {
        let app = self.hosts.admit(&request)?;
        if let Some(access) = access {
            let peer = connection.peer.ip();
            access.comes_from(client_address(request.headers(), peer, &app.trusted_proxies));
        }
        let place = self.load.enter()?;
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Refusal::method_not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        if headers::has_ambiguous_framing(request.headers()) {
            let refusal = Refusal::bad_request("The request's body has no certain end.");
            return Err(refusal.with_header(header::CONNECTION, HeaderValue::from_static("close")));
        }
        let path = request.uri().path();
        if let Some(endpoint) = app.endpoints.find(path) {
            if let Some(access) = access {
                access.is_for(&Site::new(app.origin.as_str(), path));
            }
            endpoint::admit(app, endpoint, &request)?;
            // What most requests do not need has its own place: all they need is copied there at their start.
            let answered = endpoint::answer(app, endpoint, request, connection.peer.ip(), &place);
            return Box::pin(answered).await;
        }
        if app.endpoints.owns(path) {
            return Err(nothing_here());
        }
        let route = app.routes.find(path)?.ok_or_else(nothing_here)?;
        if let Some(access) = access {
            access.is_for(&route.site);
        }
        route.check(&request)?;
        let visit = Visit { app, route, connection, request_id, audience };
        let mut quota = route.rate_limits.quota();
        let answered = visit.answer(request, &place, &mut quota).await;
        quota.tell(answered)
    }

    /// Watches, for as long as it is awaited, whether the thread it runs on has too much to do. Each thread that
    /// serves is to have one.
    pub async fn watch_load(&self) {
        self.load.watch().await;
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

    /// Reads the certificates and keys again that issuers and upstreams are shown.
    pub fn reload(&self) {
        self.reloads.iter().for_each(Reload::run);
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

    /// Ends tunnels and event streams, which would never end by themselves and are opened again elsewhere.
    pub fn end_endless(&self) {
        self.endless_stop.cancel();
    }

    /// Waits for what goes on behind answered requests: refreshes, their writes, revocations.
    pub async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Visit<'_> {
    async fn answer(
        self,
        request: Box<Request<Body>>,
        place: &Place<'_>,
        quota: &mut Quota<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let Self { app, route, connection, request_id, audience } = self;
        // A body that streams is not to be looked at from elsewhere while the session is loaded.
        let (head, body) = request.into_parts();
        let head = Box::new(Request::from_parts(head, ()));
        let client =
            || Whose::client(client_address(head.headers(), connection.peer.ip(), &app.trusted_proxies));
        let uses_session = route.rules.auth != Auth::None;
        if place.is_reserved() && !(uses_session && may_be_of_a_session(app, head.headers())) {
            place.take_for_anybody()?;
        }
        // Before the store is asked for a session: a flood must not reach it.
        quota.count(RateLimitKey::Client, client).await?;
        let admission = app.admit(&route.rules, &head, audience).await?;
        let user = match admission.who {
            Who::User(user) => {
                quota.count(RateLimitKey::Session, || Whose::Session(user.ticket.id)).await?;
                Some(*user)
            }
            Who::Anybody => {
                place.take_for_anybody()?;
                quota.count(RateLimitKey::Session, client).await?;
                None
            }
            Who::Stranger(response) => return Ok(response),
        };
        let request = Box::new(head.map(|()| body));
        if let Some(user) = &user {
            app.note_activity(user);
        }
        let mut response = match &route.answers {
            Answers::Files(files, segments) => {
                if let Some(user) = &user {
                    check_rights(&user.session, &route.rules)?;
                }
                let depends_on_session = route.rules.auth != Auth::None;
                let file = answer::serve_file(files, *segments, *request, audience, depends_on_session);
                Box::pin(file).await
            }
            Answers::Upstream(upstream, segments) => {
                let path = route::upstream_path(request.uri(), *segments)?;
                let (rules, client_token) = (&route.rules, route.client_token.as_ref());
                let exchange =
                    Exchange { app, rules, upstream, client_token, path, connection, request_id, audience };
                Box::pin(exchange.run(request, user)).await?
            }
        };
        if admission.cookie_is_dead {
            app.take_cookie_back(&mut response);
        }
        Ok(response)
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
    // A flood is not to fill the disk as well.
    if matches!(refusal.code, Code::RateLimited | Code::Overloaded) {
        tracing::debug!(event = "request.refused", code, cause, detail = refusal.detail);
    } else if refusal.code.status().is_server_error() {
        tracing::warn!(event = "request.refused", code, cause, detail = refusal.detail);
    } else {
        tracing::info!(event = "request.refused", code, cause, detail = refusal.detail);
    }
}
