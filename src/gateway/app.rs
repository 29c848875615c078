//! One app: its routes, and what it does for the sessions that use them. Who may use them: `admission`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, header};
use ipnet::IpNet;
use tokio_util::task::TaskTracker;

use super::admission::User;
use super::client_address::is_trusted;
use super::connection::ClientConnection;
use super::departure::Departure;
use super::foundation::{BuildError, Core, Shared};
use super::rate_limit::RateLimits;
use super::route::{self, Paths};
use crate::body::Body;
use crate::config::{self, Target, Token};
use crate::endpoints::{Endpoint, Endpoints, Means, Roster, Signals};
use crate::error::{Reason, Refusal};
use crate::files::Files;
use crate::oidc::Clients;
use crate::pages::Pages;
use crate::proxy::headers::ToldOrigin;
use crate::proxy::tunnel::Tunnel;
use crate::proxy::{self, Upstream};
use crate::random::Random;
use crate::refresh::{ClientToken, ClientTokens, Confirmations, Failure, Refresher};
use crate::reloaded::Reload;
use crate::session::cookie::{OpenedCookie, Ticket};
use crate::session::{Session, Sessions};
use crate::telemetry::metrics::{Readings, Site};

#[derive(Debug)]
pub(super) struct App {
    pub(super) origin: config::Origin,
    pub(super) told_origin: ToldOrigin,
    pub(super) base_path: String,
    pub(super) pages: Pages,
    /// Where no route and no endpoint is.
    pub(super) nowhere: Site,
    endpoint_sites: Vec<(Endpoint, Site)>,
    /// Those of all apps.
    pub(super) cookies: Arc<[config::Session]>,
    pub(super) endpoints: Endpoints,
    pub(super) clients: Clients,
    pub(super) signals: Option<Arc<Signals>>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) refresher: Refresher,
    /// Those that the routes want.
    client_tokens: ClientTokens,
    /// Where tokens are to be confirmed while they are used.
    pub(super) confirmations: Option<Confirmations>,
    /// Whether users choose one.
    pub(super) has_several_issuers: bool,
    pub(super) routes: Paths<Route>,
    pub(super) login_rate_limits: RateLimits,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) body_bytes: u64,
    pub(super) tunnel_idle_timeout: Duration,
    pub(super) departure: Departure,
    pub(super) random: Random,
    pub(super) tasks: TaskTracker,
}

#[derive(Debug)]
pub(super) struct Route {
    /// As metrics and the access log name it.
    pub(super) site: Site,
    pub(super) rules: config::Route,
    pub(super) answers: Answers,
    /// The client's own token, where that goes upstream.
    pub(super) client_token: Option<Arc<ClientToken>>,
    pub(super) rate_limits: RateLimits,
}

#[derive(Debug)]
pub(super) enum Answers {
    /// The upstream, and how many segments are taken off each path.
    Upstream(Arc<Upstream>, usize),
    /// The files, and how many segments the route's own path has.
    Files(Files, usize),
}

impl App {
    pub(super) fn new(
        app: config::App,
        core: Core,
        roster: &Roster,
        shared: &Shared<'_>,
    ) -> Result<Self, BuildError> {
        let Core { clients, signals, sessions, revocations } = core;
        let before = shared.app_before(&app.origin);
        let means = Means {
            ring: Arc::clone(shared.ring),
            sessions: Arc::clone(&sessions),
            clients: clients.clone(),
            revocations: revocations.clone(),
            roster: roster.clone(),
            signals: signals.clone(),
            clock: Arc::clone(shared.clock),
            random: shared.random,
            form_timeout: shared.server.limits.header_timeout,
            tasks: shared.tasks.clone(),
        };
        let endpoints = Endpoints::new(&app, means);
        let (grants, margin) = (Arc::new(clients.clone()), app.session.refresh_before_expiry);
        let refresher = match before {
            Some(before) => before.refresher.succeeded_by(Arc::clone(&sessions), grants, revocations, margin),
            None => Refresher::new(
                Arc::clone(&sessions),
                grants,
                revocations,
                Arc::clone(shared.clock),
                shared.random,
                margin,
                shared.tasks.clone(),
            ),
        };
        let (origin, mut client_tokens) = (&app.origin, ClientTokens::default());
        let tokens_before = before.map(|before| &before.client_tokens);
        let routes = app.routes.into_iter().map(|rules| {
            let client_token = match &rules.token {
                Token::ClientCredentials(target) => {
                    let client = clients.iter().next();
                    client.map(|client| client_tokens.get(client, target, &refresher, tokens_before))
                }
                Token::AccessToken | Token::OfSession(_) | Token::None => None,
            };
            let before = before.and_then(|before| before.routes.of(&rules.path));
            Ok((rules.path.clone(), Route::new(rules, client_token, origin, shared, before)?))
        });
        let routes = routes
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| BuildError::Upstream { app: app.origin.as_str().to_owned(), source })?;
        let login = format!("login {}", app.origin.as_str());
        let login_rate_limits = RateLimits::new(&app.login_rate_limits, &login, shared.clock, shared.counts)
            .going_on(before.map(|before| &before.login_rate_limits));
        let confirmations = before.and_then(|before| before.confirmations.as_ref());
        let site = |path: &str| shared.sessions.metrics().site(app.origin.as_str(), path);
        Ok(Self {
            told_origin: ToldOrigin::new(&app.origin),
            nowhere: site(""),
            endpoint_sites: endpoints.paths().map(|(endpoint, path)| (endpoint, site(&path))).collect(),
            login_rate_limits,
            origin: app.origin,
            base_path: app.base_path,
            pages: app.pages,
            cookies: Arc::clone(shared.cookies),
            endpoints,
            sessions,
            confirmations: Confirmations::wanted(&clients, &refresher, confirmations),
            has_several_issuers: app.oidc.len() > 1,
            clients,
            signals,
            refresher,
            client_tokens,
            routes: Paths::new(routes),
            trusted_proxies: shared.server.trusted_proxies.clone(),
            body_bytes: shared.server.limits.body_bytes,
            tunnel_idle_timeout: shared.server.limits.websocket_idle_timeout,
            departure: shared.departure.clone(),
            random: shared.random,
            tasks: shared.tasks.clone(),
        })
    }

    /// Reads the certificates again that the app's upstreams are shown.
    pub(super) fn reloads(&self) -> impl Iterator<Item = Reload> {
        self.routes.all().filter_map(|route| match &route.answers {
            Answers::Upstream(upstream, _) => upstream.reload(),
            Answers::Files(..) => None,
        })
    }

    /// An endpoint, as metrics and the access log name it.
    pub(super) fn site_of(&self, endpoint: Endpoint) -> &Site {
        let sites = &mut self.endpoint_sites.iter();
        sites.find(|(own, _)| *own == endpoint).map_or(&self.nowhere, |(_, site)| site)
    }

    /// Whether the servers of its upstreams are asked.
    pub(super) fn read_servers(&self, readings: &Readings) {
        for route in self.routes.all() {
            if let Answers::Upstream(upstream, _) = &route.answers {
                for server in upstream.known_servers().unwrap_or_default() {
                    let is_up = server.standing.is_asked();
                    readings.server(route.site.app(), route.site.route(), server.address, is_up);
                }
            }
        }
    }

    /// The session with an access token that is fresh, and good as far as the issuer says.
    pub(super) async fn usable(
        &self,
        ticket: &Ticket,
        session: Arc<Session>,
    ) -> Result<Arc<Session>, Failure> {
        let session = self.refresher.freshen(ticket, session).await?;
        match &self.confirmations {
            Some(confirmations) => Box::pin(confirmations.confirm(ticket, session)).await,
            None => Ok(session),
        }
    }

    pub(super) fn explain(&self, failure: Failure) -> Refusal {
        let has_ended = matches!(failure, Failure::Ended | Failure::Gone);
        let refusal = Refusal::from(failure);
        if !has_ended {
            return refusal;
        }
        self.clear_cookie(refusal).with_login_url(format!("{}/login", self.base_path))
    }

    pub(super) fn clear_cookie(&self, refusal: Refusal) -> Refusal {
        refusal.with_header(header::SET_COOKIE, self.sessions.clear_cookie())
    }

    /// Puts the idle timeout off, without letting the request wait for the write.
    pub(super) fn note_activity(&self, user: &User) {
        if !self.sessions.touch_is_due(&user.session) {
            return;
        }
        let (sessions, ticket, session) =
            (Arc::clone(&self.sessions), user.ticket.clone(), user.session.clone());
        self.tasks.spawn(async move {
            if let Err(error) = sessions.touch(&ticket, &session).await {
                tracing::warn!(event = "session.untouched", error = %error);
            }
        });
    }

    /// When an event stream has to end: with its session (R49), or with the gateway.
    pub(super) fn end_of_event_stream(
        &self,
        ticket: Option<Arc<OpenedCookie>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (session_ends, departure) = (self.session_ends(ticket), self.departure.turn());
        async move {
            tokio::select! {
                () = session_ends => {}
                () = departure => {}
            }
        }
    }

    /// Carries a tunnel until it ends by itself or has to. The
    /// connection it has become stays open all the while, and counts as one.
    pub(super) fn open_tunnel(
        &self,
        tunnel: Tunnel,
        ticket: Option<Arc<OpenedCookie>>,
        connection: Arc<dyn ClientConnection>,
    ) {
        let (idle_timeout, departure) = (self.tunnel_idle_timeout, self.departure.turn());
        let session_ends = self.session_ends(ticket);
        let counted = self.sessions.common().metrics().open_tunnel();
        self.tasks.spawn(async move {
            tokio::select! {
                () = tunnel.run(idle_timeout, departure) => {}
                // Nothing more passes then, not even a goodbye.
                () = session_ends => {}
            }
            drop((connection, counted));
        });
    }

    /// Done when a session ends; never without one.
    fn session_ends(&self, ticket: Option<Arc<OpenedCookie>>) -> impl Future<Output = ()> + Send + use<> {
        let sessions = Arc::clone(&self.sessions);
        async move {
            match &ticket {
                Some(ticket) => sessions.until_ended(ticket).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Takes a cookie back that opens no session, with an answer that no cache may keep.
    pub(super) fn take_cookie_back(&self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        headers.append(header::SET_COOKIE, self.sessions.clear_cookie());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }

    /// Whether a cookie is the gateway's own, be it another app's: cookies know no ports, so that apps of
    /// one host see each other's.
    pub(super) fn owns_cookie(&self, name: &str) -> bool {
        self.cookies.iter().any(|session| session.owns_cookie(name))
    }

    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        is_trusted(peer, &self.trusted_proxies)
    }
}

impl Route {
    fn new(
        rules: config::Route,
        client_token: Option<Arc<ClientToken>>,
        origin: &config::Origin,
        shared: &Shared<'_>,
        before: Option<&Self>,
    ) -> Result<Self, proxy::BuildError> {
        let answers = match &rules.target {
            Target::Upstream(upstream) => {
                let stripped = upstream.strip_prefix.as_deref().map_or(0, route::count_segments);
                let upstream = match before.and_then(|before| before.upstream_of(&rules)) {
                    // With its connections, and what is known of its servers.
                    Some(before) => Arc::clone(before),
                    None => {
                        let (timeouts, attempts) = (rules.timeouts, rules.attempts);
                        let mut upstream = Upstream::new(upstream, timeouts, attempts, shared.random)?;
                        upstream.watch();
                        Arc::new(upstream)
                    }
                };
                Answers::Upstream(upstream, stripped)
            }
            Target::Files(folder) => {
                Answers::Files(Files::new(folder, origin.is_secure()), route::count_segments(&rules.path))
            }
        };
        let name = format!("route {} {}", origin.as_str(), rules.path);
        let rate_limits = RateLimits::new(&rules.rate_limits, &name, shared.clock, shared.counts)
            .going_on(before.map(|before| &before.rate_limits));
        let site = shared.sessions.metrics().site(origin.as_str(), &rules.path);
        Ok(Self { site, rules, answers, client_token, rate_limits })
    }

    /// The upstream, if other rules want none that differs from it.
    fn upstream_of(&self, rules: &config::Route) -> Option<&Arc<Upstream>> {
        let is_same = self.rules.target == rules.target
            && self.rules.timeouts == rules.timeouts
            && self.rules.attempts == rules.attempts;
        match &self.answers {
            Answers::Upstream(upstream, _) if is_same => Some(upstream),
            Answers::Upstream(..) | Answers::Files(..) => None,
        }
    }

    /// Refuses what this route takes from nobody.
    pub(super) fn check<B>(&self, request: &Request<B>, is_handshake: bool) -> Result<(), Refusal> {
        if let Answers::Upstream(..) = self.answers {
            route::check_canonical(request.uri().path(), self.rules.allow_encoded_slash)?;
        }
        if let Some(methods) = &self.rules.methods
            && !methods.contains(request.method())
            // Whoever may GET may ask for the head alone (RFC 9110 §9.3.2).
            && !(*request.method() == Method::HEAD && methods.contains(&Method::GET))
        {
            return Err(Refusal::method_not_allowed(
                &methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "),
            ));
        }
        if is_handshake && !self.rules.websocket {
            return Err(Refusal::new(Reason::WebsocketNotEnabled));
        }
        Ok(())
    }
}
