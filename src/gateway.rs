//! The way of a request through the gateway, from its host to its answer.
//!
//! [`Gateway::handle`] stands around: it names the request, logs, and turns refusals into answers. The
//! inner `serve` tells the story: admit the host, find the route, guard and load the session (`admission`),
//! freshen its token and forward (`answer`).

use std::pin::pin;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, header};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::body::Body;
use crate::clock::Clock;
use crate::config::{Auth, Config, RateLimitKey, Setting};
use crate::endpoints::{Listing, Roster};
use crate::error::{Code, Reason, Refusal};
use crate::oidc::Client;
use crate::pages::Pages;
use crate::proxy::headers;
use crate::proxy::tunnel::is_handshake;
use crate::random::Random;
use crate::reloaded::Reload;
use crate::respond::{self, Audience, Reader};
use crate::revocation::Revocations;
use crate::session::store::Store;
use crate::telemetry::metrics::Site;
use crate::telemetry::{self, Access, RequestId, chain};

mod admission;
mod answer;
mod app;
mod audited;
mod bearer;
pub mod client_address;
mod connection;
mod departure;
mod endpoint;
mod foundation;
mod guard;
mod load;
mod operation;
mod rate_limit;
pub mod route;
mod survey;

use admission::{Head, Who};
use answer::Exchange;
use app::{Answers, App, Route};
use bearer::check_rights;
use client_address::client_address;
use foundation::{Core, Lasting, Shared};
use load::{Place, may_be_of_a_session};
use rate_limit::{Quota, SharedCounts, Whose};
use route::Hosts;

pub use client_address::client_network;
pub use connection::{ClientConnection, Connection};
pub use foundation::BuildError;
pub use survey::RouteSurvey;

/// A request to a route, and what is known of it.
struct Visit<'a> {
    app: &'a App,
    route: &'a Route,
    connection: Connection,
    request_id: RequestId,
    audience: Audience,
    is_handshake: bool,
}

/// All apps, and what they share.
#[derive(Debug)]
pub struct Gateway {
    hosts: Hosts<App>,
    /// Where no app is.
    nowhere: Site,
    lasting: Lasting,
    roster: Roster,
    revocations: Vec<Revocations>,
    issuers: Vec<Arc<Client>>,
    reloads: Vec<Reload>,
    settings: Vec<Setting>,
    random: Random,
    /// Tells its watches to come to an end.
    _stop: DropGuard,
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
        let lasting = Lasting::new(&config, store, clock, random)?;
        Self::build(config, lasting, None)
    }

    /// The gateway that another configuration describes, to take this one's place. It goes on with all that this one has
    /// learned and counted, and with what it has under way; what is configured as before is kept as it is.
    ///
    /// # Errors
    /// As [`Gateway::new`].
    pub fn succeeded_by(&self, config: Config) -> Result<Self, BuildError> {
        let lasting = self.lasting.under(&config)?;
        Self::build(config, lasting, Some(self))
    }

    fn build(config: Config, lasting: Lasting, before: Option<&Self>) -> Result<Self, BuildError> {
        let Lasting { ring, sessions, outbox, departure, watches, .. } = &lasting;
        let (random, tasks) = (sessions.random(), sessions.tasks());
        let cookies: Arc<[_]> = config.apps.iter().map(|app| app.session.clone()).collect();
        let shared = Shared {
            server: &config.server,
            ring,
            sessions,
            clock: sessions.clock(),
            cookies: &cookies,
            counts: &Arc::new(SharedCounts::new(Arc::clone(sessions.store()), Arc::clone(ring))),
            random,
            tasks,
            departure,
            before,
        };
        let cores = config.apps.iter().map(|app| Core::new(app, outbox, &shared));
        let cores = cores.collect::<Result<Vec<_>, _>>()?;
        let listings = config
            .apps
            .iter()
            .zip(&cores)
            .flat_map(|(app, core)| Listing::all_of(app, &core.sessions, &core.revocations));
        let roster = Roster::new(listings.collect(), tasks.clone());
        let mut revocations: Vec<_> = cores.iter().map(|core| core.revocations.clone()).collect();
        if let Some(before) = before {
            revocations.push(Revocations::of_former_apps(&revocations, &before.revocations));
        }
        let issuers = cores.iter().flat_map(|core| core.clients.iter().map(Arc::clone)).collect();
        let all_sessions: Vec<_> = cores.iter().map(|core| Arc::clone(&core.sessions)).collect();
        let (mut apps, mut reloads) = (Vec::new(), Vec::new());
        for (app, core) in config.apps.into_iter().zip(cores) {
            let origin = app.origin.clone();
            reloads.extend(core.clients.iter().flat_map(|client| client.reloads()));
            let app = App::new(app, core, &roster, &shared)?;
            reloads.extend(app.reloads());
            apps.push((origin, app));
        }
        // Last, for nothing is to go on of a gateway that could not be built.
        let stop = CancellationToken::new();
        for sessions in all_sessions {
            watches.spawn(sessions.watch_store(before.is_some(), stop.clone()));
        }
        watches.spawn(Arc::clone(outbox).drain(revocations.clone(), stop.clone()));
        Ok(Self {
            hosts: Hosts::new(apps),
            nowhere: lasting.sessions.metrics().site("", ""),
            lasting,
            roster,
            revocations,
            issuers,
            reloads,
            settings: config.settings,
            random,
            _stop: stop.drop_guard(),
        })
    }

    /// Answers a request, whatever becomes of it. It is boxed, for it is handed on from one function to the next: each of
    /// their futures has room for it, and all that room is copied when it begins.
    pub async fn handle(&self, request: Box<Request<Body>>, connection: Connection) -> Response<Body> {
        let id = RequestId::generate(self.random);
        let (peer, now) = (connection.peer.ip(), self.lasting.sessions.now());
        let mut access = Access::begin(&request, id, peer, now, &self.nowhere, self.lasting.tracer.as_ref());
        let parent = access.parent();
        let audience = guard::audience(&request);
        let language = guard::language(&request, audience);
        let answering = async {
            let (app, pages, served) = match self.hosts.admit(&request) {
                Ok(app) => {
                    let served = self.serve(app, request, connection, id, audience, &mut access).await;
                    (app.origin.as_str(), &app.pages, served)
                }
                Err(refusal) => ("", Pages::ours(), Err(refusal)),
            };
            served.unwrap_or_else(|refusal| {
                if refusal.code() == Code::Overloaded {
                    self.metrics().count_overload("requests");
                }
                log(&refusal);
                self.note(app, &refusal);
                respond::refusal(&refusal, audience, &Reader::new(pages, language))
            })
        };
        // In its place: it is large, and would be copied.
        let mut response = id.within(parent, pin!(answering)).await;
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            response.headers_mut().insert(headers::X_REQUEST_ID, value);
        }
        let status = response.status();
        response.map(|body| access.until_sent(status, body))
    }

    async fn serve<'a>(
        &'a self,
        app: &'a App,
        request: Box<Request<Body>>,
        connection: Connection,
        request_id: RequestId,
        audience: Audience,
        access: &mut Access<'a>,
    ) -> Result<Response<Body>, Refusal> {
        access.is_for(&app.nowhere);
        {
            let client = || client_address(request.headers(), connection.peer.ip(), &app.trusted_proxies);
            if self.lasting.sessions.audit().is_kept() {
                telemetry::comes_from(client());
            }
            access.comes_from(client);
        }
        let place = self.lasting.load.enter()?;
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Refusal::method_not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        if headers::has_ambiguous_framing(request.headers()) {
            let refusal = Refusal::new(Reason::BodyFraming);
            return Err(refusal.with_header(header::CONNECTION, HeaderValue::from_static("close")));
        }
        let path = request.uri().path();
        if let Some(endpoint) = app.endpoints.find(path) {
            access.is_for(app.site_of(endpoint));
            endpoint::admit(app, endpoint, &request)?;
            // What most requests do not need has its own place: all they need is copied there at their start.
            let answered = endpoint::answer(app, endpoint, request, connection.peer.ip(), &place);
            return Box::pin(answered).await;
        }
        if app.endpoints.owns(path) {
            return Err(nothing_here());
        }
        let route = app.routes.find(path)?.ok_or_else(nothing_here)?;
        access.is_for(&route.site);
        let is_handshake = is_handshake(&request);
        route.check(&request, is_handshake)?;
        let visit = Visit { app, route, connection, request_id, audience, is_handshake };
        let mut quota = route.rate_limits.quota();
        let answered = visit.answer(request, &place, &mut quota).await;
        quota.tell(answered)
    }
}

impl Visit<'_> {
    async fn answer(
        self,
        request: Box<Request<Body>>,
        place: &Place<'_>,
        quota: &mut Quota<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let Self { app, route, connection, request_id, audience, is_handshake } = self;
        // A body that streams is not to be looked at from elsewhere while the session is loaded.
        let head = Head { method: request.method(), uri: request.uri(), headers: request.headers() };
        let client =
            || Whose::client(client_address(head.headers, connection.peer.ip(), &app.trusted_proxies));
        let uses_session = route.rules.auth != Auth::None;
        if place.is_reserved() && !(uses_session && may_be_of_a_session(app, head.headers)) {
            place.take_for_anybody()?;
        }
        // Before the store is asked for a session: a flood must not reach it.
        quota.count(RateLimitKey::Client, client).await?;
        let admission = app.admit(&route.rules, head, audience, is_handshake).await?;
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
        if let Some(user) = &user {
            app.note_activity(user);
        }
        let mut response = match &route.answers {
            Answers::Files(files, segments) => {
                if let Some(user) = &user {
                    check_rights(&user.session, &route.rules)?;
                }
                let depends_on_session = route.rules.auth != Auth::None;
                let file =
                    answer::serve_file(files, *segments, *request, audience, depends_on_session, &app.pages);
                Box::pin(file).await
            }
            Answers::Upstream(upstream, segments) => {
                let path = route::upstream_path(request.uri(), *segments)?;
                let (rules, client_token) = (&route.rules, route.client_token.as_ref());
                let exchange = Exchange {
                    app,
                    rules,
                    upstream,
                    site: &route.site,
                    client_token,
                    path,
                    connection,
                    request_id,
                    audience,
                    is_handshake,
                };
                Box::pin(exchange.run(request, user)).await?
            }
        };
        if admission.cookie_is_dead {
            app.take_cookie_back(&mut response);
        }
        Ok(response)
    }
}

fn nothing_here() -> Refusal {
    Refusal::new(Reason::NoRoute)
}

fn log(refusal: &Refusal) {
    let cause = refusal.cause.as_deref().map(|cause| chain(cause));
    let code = refusal.code().name().unwrap_or("internal");
    let (reason, detail) = (refusal.reason.name(), &*refusal.detail());
    // A flood is not to fill the disk as well.
    if matches!(refusal.code(), Code::RateLimited | Code::Overloaded) {
        tracing::debug!(event = "request.refused", code, cause, reason, detail);
    } else if refusal.code().status().is_server_error() {
        tracing::warn!(event = "request.refused", code, cause, reason, detail);
    } else {
        tracing::info!(event = "request.refused", code, cause, reason, detail);
    }
}
