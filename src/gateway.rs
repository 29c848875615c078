//! The way of a request through the gateway, from its host to its answer.
//!
//! [`Gateway::handle`] stands around: it names the request, logs, and turns refusals into answers.
//! [`Gateway::serve`] and [`App::forward`] tell the story: admit the host, find the route, guard, load the
//! session, freshen its token, forward.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::body::{self, Body};
use crate::clock::Clock;
use crate::config::{self, Auth, Config, Target, Token};
use crate::endpoints::{Endpoint, Endpoints, conflicting_cookies, login_location};
use crate::error::{Code, Refusal};
use crate::files::Files;
use crate::oidc::{self, Client};
use crate::proxy::body::{Replay, bounded};
use crate::proxy::headers::{self, Facts};
use crate::proxy::tunnel::{Tunnel, is_handshake};
use crate::proxy::{self, Upstream};
use crate::random::Random;
use crate::refresh::{Failure, Refresher};
use crate::respond::{self, Audience};
use crate::seal::KeyRing;
use crate::session::cookie::{self, Found, Ticket};
use crate::session::store::Store;
use crate::session::{Session, Sessions};
use crate::telemetry::chain;

pub mod guard;
pub mod route;

use route::{Hosts, Paths};

/// All apps, and what they share.
#[derive(Debug)]
pub struct Gateway {
    hosts: Hosts<App>,
    store: Arc<dyn Store>,
    issuers: Vec<Arc<Client>>,
    tasks: TaskTracker,
    tunnels_stop: CancellationToken,
}

/// What the gateway cannot be built from.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The client of an issuer.
    #[error("the issuer of {app} cannot be used")]
    Issuer {
        /// The app's origin.
        app: String,
        /// What is wrong.
        #[source]
        source: oidc::BuildError,
    },
    /// An upstream.
    #[error("an upstream of {app} cannot be used")]
    Upstream {
        /// The app's origin.
        app: String,
        /// What is wrong.
        #[source]
        source: proxy::BuildError,
    },
}

/// A request's surroundings: what the connection knows.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// Called when the connection becomes a tunnel, which is bounded by a time limit of its own, and kept
    /// for as long as the tunnel is open.
    pub becomes_tunnel: Arc<dyn BecomesTunnel>,
}

/// A connection that can be told that it now is a tunnel.
pub trait BecomesTunnel: std::fmt::Debug + Send + Sync {
    /// No limit for requests applies any more.
    fn becomes_tunnel(&self);
}

#[derive(Debug)]
struct App {
    origin: config::Origin,
    base_path: String,
    settings: config::Session,
    endpoints: Endpoints,
    sessions: Arc<Sessions>,
    refresher: Refresher,
    routes: Paths<Route>,
    trusted_proxies: Vec<IpNet>,
    body_bytes: u64,
    tunnel_idle_timeout: Duration,
    tunnels_stop: CancellationToken,
    random: Random,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Route {
    rules: config::Route,
    answers: Answers,
}

#[derive(Debug)]
enum Answers {
    /// The upstream, and how many segments are taken off each path.
    Upstream(Upstream, usize),
    /// The files, and how many segments the route's own path has.
    Files(Files, usize),
}

/// A live session that a request may use.
struct Admitted {
    ticket: Ticket,
    session: Session,
}

impl Gateway {
    /// The gateway that a configuration describes, over a store. What goes on behind answered requests
    /// runs on `tasks`, which a shutdown waits for.
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        random: Random,
        tasks: TaskTracker,
    ) -> Result<Self, BuildError> {
        let ring = Arc::new(KeyRing::new(&config.session_keys));
        let tunnels_stop = CancellationToken::new();
        let mut issuers = Vec::new();
        let mut apps = Vec::new();
        for app in config.apps {
            let origin = app.origin.clone();
            let shared = Shared {
                server: &config.server,
                ring: &ring,
                store: &store,
                clock,
                random,
                tasks: &tasks,
                tunnels_stop: &tunnels_stop,
            };
            let (app, client) = App::new(app, &shared)?;
            issuers.push(client);
            apps.push((origin, app));
        }
        Ok(Self { hosts: Hosts::new(apps), store, issuers, tasks, tunnels_stop })
    }

    /// Answers a request, whatever becomes of it.
    pub async fn handle(&self, request: Request<Incoming>, connection: Connection) -> Response<Body> {
        let request_id = Random.token::<12>();
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
            return Err(not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
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
        let admitted = app.admit(&route.rules, &request, audience).await?;
        if let Decision::SignIn(location) = &admitted {
            return Ok(respond::see_other(location));
        }
        let admitted = admitted.session();
        if let Some(admitted) = &admitted {
            app.note_activity(admitted);
        }
        match &route.answers {
            Answers::Files(files, segments) => {
                let authenticated = route.rules.auth != Auth::None;
                Ok(serve_file(files, *segments, request, audience, authenticated).await)
            }
            Answers::Upstream(upstream, segments) => {
                let path = route::upstream_path(request.uri(), *segments);
                let exchange = Exchange { app, rules: &route.rules, upstream, path, connection, request_id };
                exchange.run(request, admitted).await
            }
        }
    }

    /// Asks each issuer for its metadata, so that the first login need not, and a fault of the
    /// configuration shows in the log at once. Nothing waits for it.
    pub fn look_for_issuers(&self) {
        for client in &self.issuers {
            let client = Arc::clone(client);
            tokio::spawn(async move {
                if let Err(error) = client.discover().await {
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

/// What all apps are built from.
struct Shared<'a> {
    server: &'a config::Server,
    ring: &'a Arc<KeyRing>,
    store: &'a Arc<dyn Store>,
    clock: &'a Arc<dyn Clock>,
    random: Random,
    tasks: &'a TaskTracker,
    tunnels_stop: &'a CancellationToken,
}

/// Whether a request may go on, and as whom.
enum Decision {
    /// With this session's rights.
    With(Box<Admitted>),
    /// Without a session.
    Anonymous,
    /// Not before its user has signed in, over there.
    SignIn(String),
}

impl Decision {
    fn session(self) -> Option<Box<Admitted>> {
        match self {
            Self::With(admitted) => Some(admitted),
            Self::Anonymous | Self::SignIn(_) => None,
        }
    }
}

impl App {
    fn new(app: config::App, shared: &Shared<'_>) -> Result<(Self, Arc<Client>), BuildError> {
        let name = || app.origin.as_str().to_owned();
        let under_base = |path: &str| format!("{}{}{path}", app.origin.as_str(), app.base_path);
        let client = Client::new(
            &app.oidc,
            under_base("/callback"),
            under_base("/logout/callback"),
            Arc::clone(shared.clock),
            shared.random,
        );
        let client = Arc::new(client.map_err(|source| BuildError::Issuer { app: name(), source })?);
        let sessions = Arc::new(Sessions::new(
            &app,
            Arc::clone(shared.ring),
            Arc::clone(shared.store),
            Arc::clone(shared.clock),
            shared.random,
        ));
        let endpoints = Endpoints::new(
            &app,
            Arc::clone(shared.ring),
            Arc::clone(&sessions),
            Arc::clone(&client),
            Arc::clone(shared.clock),
            shared.random,
            shared.tasks.clone(),
        );
        let refresher = Refresher::new(
            Arc::clone(&sessions),
            Arc::clone(&client),
            Arc::clone(shared.clock),
            shared.random,
            app.session.refresh_before_expiry,
            shared.tasks.clone(),
        );
        let secure = app.origin.is_secure();
        let routes = app.routes.into_iter().map(|rules| Ok((rules.path.clone(), Route::new(rules, secure)?)));
        let routes = routes
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| BuildError::Upstream { app: app.origin.as_str().to_owned(), source })?;
        let built = Self {
            origin: app.origin,
            base_path: app.base_path,
            settings: app.session,
            endpoints,
            sessions,
            refresher,
            routes: Paths::new(routes),
            trusted_proxies: shared.server.trusted_proxies.clone(),
            body_bytes: shared.server.limits.body_bytes,
            tunnel_idle_timeout: shared.server.limits.websocket_idle_timeout,
            tunnels_stop: shared.tunnels_stop.clone(),
            random: shared.random,
            tasks: shared.tasks.clone(),
        };
        Ok((built, client))
    }

    /// Whether a request may use its session, and whether it needs one it does not have.
    async fn admit<B>(
        &self,
        rules: &config::Route,
        request: &Request<B>,
        audience: Audience,
    ) -> Result<Decision, Refusal> {
        if rules.auth == Auth::None {
            return Ok(Decision::Anonymous);
        }
        let headers = request.headers();
        let guarded = guard::route(headers, &self.origin, rules.csrf, is_handshake(request));
        let cookie = match cookie::find(headers, self.sessions.cookie_name()) {
            Found::None => None,
            Found::One(value) => Some(value),
            Found::Conflicting => return Err(conflicting_cookies()),
        };
        if rules.auth == Auth::Optional && guarded.is_err() {
            return Ok(Decision::Anonymous);
        }
        // A navigation cannot carry the header, and without a session there is nothing to guard: it is
        // guarded once a session was found. A request without a cookie never touches the store (R63).
        let guarded = match (audience, &cookie, guarded) {
            (Audience::Script, Some(_), Err(refusal)) => return Err(refusal),
            (Audience::Script, None, Err(refusal)) if guard::is_foreign(headers, &self.origin) => {
                return Err(refusal);
            }
            (_, _, guarded) => guarded,
        };
        let had_cookie = cookie.is_some();
        let ticket = cookie.and_then(|value| self.sessions.open_cookie(&value));
        let session = match &ticket {
            Some(ticket) => self.refresher.load(ticket).await?,
            None => None,
        };
        match (ticket, session) {
            (Some(ticket), Some(session)) => {
                guarded?;
                Ok(Decision::With(Box::new(Admitted { ticket, session })))
            }
            (_, _) if rules.auth == Auth::Optional => Ok(Decision::Anonymous),
            (_, _) => self.ask_for_login(request, audience, had_cookie),
        }
    }

    /// A person is sent to login; a script is told where it is. A request other than GET would lose its
    /// method and its body on the way, and is never redirected.
    fn ask_for_login<B>(
        &self,
        request: &Request<B>,
        audience: Audience,
        had_cookie: bool,
    ) -> Result<Decision, Refusal> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if audience == Audience::Page && is_read {
            let wanted = request.uri().path_and_query().map_or("/", |wanted| wanted.as_str());
            return Ok(Decision::SignIn(login_location(&self.base_path, wanted)));
        }
        let refusal = Refusal::new(Code::Unauthenticated, "There is no session.");
        let refusal = if had_cookie { self.clear_cookie(refusal) } else { refusal };
        Err(refusal.with_login_url(format!("{}/login", self.base_path)))
    }

    /// The session with a token that can be used, and the scopes that the route asks for.
    async fn freshen(&self, admitted: Admitted, rules: &config::Route) -> Result<Admitted, Refusal> {
        let Admitted { ticket, session } = admitted;
        let session = match rules.token {
            Token::AccessToken => self.refresher.freshen(&ticket, session).await,
            Token::None => Ok(session),
        };
        let session = session.map_err(|failure| self.explain(failure))?;
        check_scopes(&session, rules)?;
        Ok(Admitted { ticket, session })
    }

    fn explain(&self, failure: Failure) -> Refusal {
        let has_ended = matches!(failure, Failure::Ended | Failure::Gone);
        let refusal = Refusal::from(failure);
        if !has_ended {
            return refusal;
        }
        self.clear_cookie(refusal).with_login_url(format!("{}/login", self.base_path))
    }

    fn clear_cookie(&self, refusal: Refusal) -> Refusal {
        refusal.with_header(header::SET_COOKIE, self.sessions.clear_cookie())
    }

    /// Puts the idle timeout off, without letting the request wait for the write.
    fn note_activity(&self, admitted: &Admitted) {
        let (sessions, ticket, session) =
            (Arc::clone(&self.sessions), admitted.ticket.clone(), admitted.session.clone());
        self.tasks.spawn(async move {
            if let Err(error) = sessions.touch(&ticket, &session).await {
                tracing::warn!(event = "session.untouched", error = %error);
            }
        });
    }

    /// Carries a tunnel until it ends or the gateway stops. The connection it has become stays open all
    /// the while, and counts as one.
    fn open_tunnel(&self, tunnel: Tunnel, connection: Arc<dyn BecomesTunnel>) {
        let (idle_timeout, stopping) = (self.tunnel_idle_timeout, self.tunnels_stop.clone());
        self.tasks.spawn(async move {
            let _ended_by_itself = stopping.run_until_cancelled(tunnel.run(idle_timeout)).await;
            drop(connection);
        });
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

impl Route {
    fn new(rules: config::Route, secure: bool) -> Result<Self, proxy::BuildError> {
        let answers = match &rules.target {
            Target::Upstream { url, strip_prefix } => {
                let stripped = strip_prefix.as_deref().map_or(0, route::count_segments);
                Answers::Upstream(Upstream::new(url, rules.timeouts)?, stripped)
            }
            Target::Files(folder) => {
                Answers::Files(Files::new(folder, secure), route::count_segments(&rules.path))
            }
        };
        Ok(Self { rules, answers })
    }

    /// Refuses what this route takes from nobody.
    fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        if let Answers::Upstream(..) = self.answers {
            route::check_canonical(request.uri().path(), self.rules.allow_encoded_slash)?;
        }
        if let Some(methods) = &self.rules.methods
            && !methods.contains(request.method())
        {
            return Err(not_allowed(&methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")));
        }
        if is_handshake(request) && !self.rules.websocket {
            return Err(Refusal::bad_request("This route does not take WebSockets."));
        }
        Ok(())
    }
}

/// One exchange with an upstream, and one more where the token was refused.
struct Exchange<'a> {
    app: &'a App,
    rules: &'a config::Route,
    upstream: &'a Upstream,
    path: String,
    connection: Connection,
    request_id: &'a str,
}

impl Exchange<'_> {
    async fn run(
        &self,
        mut request: Request<Incoming>,
        admitted: Option<Box<Admitted>>,
    ) -> Result<Response<Body>, Refusal> {
        let admitted = match admitted {
            Some(admitted) => Some(self.app.freshen(*admitted, self.rules).await?),
            None => None,
        };
        if content_length(&request).is_some_and(|length| length > self.app.body_bytes) {
            return Err(Refusal::new(Code::TooLarge, "The body is larger than is let through here."));
        }
        let client = is_handshake(&request).then(|| hyper::upgrade::on(&mut request));
        cookie::remove(request.headers_mut(), |name| self.app.settings.owns_cookie(name));
        let request = request.map(|incoming| bounded(incoming, self.app.body_bytes));

        let mut response = match admitted {
            Some(admitted) if self.rules.token == Token::AccessToken => {
                self.send_with_token(request, admitted).await?
            }
            Some(_) | None => self.prepare(self.send(request, None).await?, None),
        };
        if let (Some(client), StatusCode::SWITCHING_PROTOCOLS) = (client, response.status()) {
            self.connection.becomes_tunnel.becomes_tunnel();
            proxy::tunnel::write_handshake(response.headers_mut());
            let tunnel = Tunnel { client, upstream: hyper::upgrade::on(&mut response) };
            self.app.open_tunnel(tunnel, Arc::clone(&self.connection.becomes_tunnel));
        }
        Ok(response)
    }

    /// An upstream that finds the token dead before its time gets a fresh one, once, and the request
    /// once more where its body can be sent again.
    async fn send_with_token(
        &self,
        request: Request<Body>,
        admitted: Admitted,
    ) -> Result<Response<Body>, Refusal> {
        let (request, replay) = Replay::record(request);
        let token = &admitted.session.tokens.access_token;
        let response = self.send(request, Some(token)).await?;
        if !proxy::refuses_token(response.status(), response.headers()) {
            return Ok(self.prepare(response, Some(token)));
        }
        let Some(again) = replay.again() else { return Ok(self.prepare(response, Some(token))) };
        match self.app.refresher.replace_refused(&admitted.ticket, &admitted.session).await {
            Some(Ok(session)) => {
                check_scopes(&session, self.rules)?;
                let token = &session.tokens.access_token;
                Ok(self.prepare(self.send(again, Some(token)).await?, Some(token)))
            }
            Some(Err(failure @ (Failure::Ended | Failure::Gone))) => Err(self.app.explain(failure)),
            // No other token is to be had: the upstream's own word stands.
            Some(Err(Failure::Issuer { .. } | Failure::Store(_))) | None => {
                Ok(self.prepare(response, Some(token)))
            }
        }
    }

    async fn send(
        &self,
        request: Request<Body>,
        token: Option<&crate::secret::Secret>,
    ) -> Result<Response<Body>, Refusal> {
        let peer = self.connection.peer.ip();
        let facts = Facts {
            origin: &self.app.origin,
            peer,
            peer_is_trusted: self.app.trusts(peer),
            request_id: self.request_id,
        };
        Ok(self.upstream.forward(request, &self.path, token, &facts, self.app.random).await?)
    }

    fn prepare(&self, mut response: Response<Body>, token: Option<&crate::secret::Secret>) -> Response<Body> {
        let owns_cookie = |name: &str| self.app.settings.owns_cookie(name);
        // Where a session may change the answer, the one for nobody is not everybody's either.
        let depends_on_session = self.rules.auth != Auth::None;
        headers::prepare_response(response.headers_mut(), owns_cookie, token, depends_on_session);
        response
    }
}

/// Looked at after each refresh, which may have shrunk the scope (R32).
fn check_scopes(session: &Session, rules: &config::Route) -> Result<(), Refusal> {
    if rules.required_scopes.iter().all(|scope| session.tokens.scopes.contains(scope)) {
        return Ok(());
    }
    Err(Refusal::new(Code::Forbidden, "The session lacks a scope that is needed here."))
}

fn guard_endpoint<B>(
    endpoint: Endpoint,
    request: &Request<B>,
    origin: &config::Origin,
) -> Result<(), Refusal> {
    if !endpoint.allows(request.method()) {
        return Err(not_allowed(endpoint.methods()));
    }
    match endpoint {
        Endpoint::Login => guard::login(request),
        Endpoint::Session => guard::session(request.headers(), origin),
        Endpoint::Logout => guard::logout(request, origin),
        Endpoint::Callback | Endpoint::LogoutCallback => Ok(()),
    }
}

async fn serve_file(
    files: &Files,
    segments: usize,
    request: Request<Incoming>,
    audience: Audience,
    authenticated: bool,
) -> Response<Body> {
    let path = route::without_segments(request.uri().path(), segments).to_owned();
    let mut response = files.serve(request, &path).await.map(body::boxed);
    let refusal = match response.status() {
        StatusCode::NOT_FOUND => Some(Refusal::new(Code::NotFound, "No file has this path.")),
        StatusCode::METHOD_NOT_ALLOWED => Some(not_allowed("GET, HEAD")),
        StatusCode::INTERNAL_SERVER_ERROR => {
            Some(Refusal::new(Code::Internal, "The file could not be read."))
        }
        _ => None,
    };
    if let Some(refusal) = refusal {
        let mut answer = respond::refusal(&refusal, audience);
        // R50 holds for what is no file too; where the answer is stricter, its own word stands.
        for (name, value) in response.headers() {
            if !answer.headers().contains_key(name) {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        return answer;
    }
    if authenticated {
        headers::keep_from_shared_caches(response.headers_mut());
    }
    response
}

fn content_length<B>(request: &Request<B>) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn nothing_here() -> Refusal {
    Refusal::new(Code::NotFound, "No route and no endpoint has this path.")
}

fn not_allowed(methods: &str) -> Refusal {
    let refusal = Refusal::new(Code::MethodNotAllowed, "The Allow field lists the methods that are.");
    match HeaderValue::from_str(methods) {
        Ok(allow) => refusal.with_header(header::ALLOW, allow),
        Err(_) => refusal,
    }
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
