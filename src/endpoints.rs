//! The gateway's own endpoints under an app's `base_path`: where a session begins, is asked for and ends.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Response};
use tokio_util::task::TaskTracker;

use crate::body::Body;
use crate::clock::Clock;
use crate::config;
use crate::error::{Reason, Refusal};
use crate::oidc::{Client, Clients};
use crate::pages::{Language, Pages};
use crate::random::Random;
use crate::respond::Reader;
use crate::revocation::Revocations;
use crate::seal::KeyRing;
use crate::session::Sessions;
use crate::session::cookie::{self, Ticket};
use crate::telemetry::audit::{Event, Facts};

mod backchannel;
mod callback;
mod client_js;
mod device;
mod device_cookie;
mod form;
mod frontchannel;
mod login;
mod login_cookie;
mod logout;
mod qr;
pub mod return_to;
mod roster;
mod security_events;
mod session;
mod silent;
mod step_up;

use device_cookie::DeviceCookie;
use login_cookie::LoginCookies;

pub use return_to::login_location;
pub use roster::{Listed, Listing, Roster};
pub use security_events::Signals;
pub use step_up::StepUp;

/// How long a person waits for the issuer before a page says that it does not answer.
const ISSUER_WAIT: Duration = Duration::from_secs(10);

/// One of the gateway's own endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Begins a login.
    Login,
    /// Where the issuer sends the browser back to.
    Callback,
    /// Begins a login on another device.
    Device,
    /// Where the app asks what has become of it.
    DevicePoll,
    /// Tells the app who is logged in.
    Session,
    /// Ends the session.
    Logout,
    /// Where the issuer sends the browser back to after a logout.
    LogoutCallback,
    /// Where the issuer itself says that somebody has logged out.
    BackchannelLogout,
    /// Where the issuer has the browser say so, in a frame.
    FrontchannelLogout,
    /// Where a transmitter of shared signals tells of what ends sessions.
    SecurityEvents,
    /// The module that the app's scripts import, its types and its source.
    Client,
}

/// The endpoints of one app.
#[derive(Debug)]
pub struct Endpoints {
    origin: config::Origin,
    base_path: String,
    pages: Pages,
    sessions: Arc<Sessions>,
    clients: Clients,
    revocations: Revocations,
    roster: Roster,
    signals: Option<Arc<Signals>>,
    login_cookies: LoginCookies,
    device_cookie: DeviceCookie,
    clock: Arc<dyn Clock>,
    random: Random,
    form_timeout: Duration,
    tasks: TaskTracker,
}

/// What the endpoints of an app are built from.
#[derive(Debug)]
pub struct Means {
    /// Seals the login cookies.
    pub ring: Arc<KeyRing>,
    /// The app's sessions.
    pub sessions: Arc<Sessions>,
    /// The app's issuers.
    pub clients: Clients,
    /// Revokes there.
    pub revocations: Revocations,
    /// The sessions of all apps.
    pub roster: Roster,
    /// Whose security events end sessions.
    pub signals: Option<Arc<Signals>>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub random: Random,
    /// How long a form may take to come in, from its head on.
    pub form_timeout: Duration,
    /// What goes on behind answered requests, which a shutdown waits for.
    pub tasks: TaskTracker,
}

/// The parameters of a request, each named once (RFC 6749 §3.1).
struct Parameters(BTreeMap<String, String>);

impl Endpoint {
    const ALL: [(&'static str, Self); 13] = [
        ("/login", Self::Login),
        ("/callback", Self::Callback),
        ("/device", Self::Device),
        ("/device/poll", Self::DevicePoll),
        ("/session", Self::Session),
        ("/logout", Self::Logout),
        ("/logout/callback", Self::LogoutCallback),
        ("/backchannel-logout", Self::BackchannelLogout),
        ("/frontchannel-logout", Self::FrontchannelLogout),
        ("/security-events", Self::SecurityEvents),
        ("/client.js", Self::Client),
        ("/client.js.map", Self::Client),
        ("/client.d.ts", Self::Client),
    ];
}

impl Endpoints {
    /// The endpoints of this app.
    pub fn new(app: &config::App, means: Means) -> Self {
        let Means {
            ring,
            sessions,
            clients,
            revocations,
            roster,
            signals,
            clock,
            random,
            form_timeout,
            tasks,
        } = means;
        Self {
            origin: app.origin.clone(),
            base_path: app.base_path.clone(),
            pages: app.pages.clone(),
            device_cookie: DeviceCookie::new(app, Arc::clone(&ring), random),
            login_cookies: LoginCookies::new(app, ring, random),
            roster,
            signals,
            sessions,
            clients,
            revocations,
            clock,
            random,
            form_timeout,
            tasks,
        }
    }

    /// The endpoint at a path; `None` where the path is none of ours.
    pub fn find(&self, path: &str) -> Option<Endpoint> {
        let name = path.strip_prefix(&self.base_path)?;
        let known = Endpoint::ALL.into_iter().find(|(own, _)| *own == name).map(|(_, endpoint)| endpoint);
        // Each of several issuers has a callback of its own.
        let known = known.or_else(|| self.clients.at_callback(name).map(|_| Endpoint::Callback));
        known.filter(|endpoint| match endpoint {
            Endpoint::Device | Endpoint::DevicePoll => {
                self.clients.iter().any(|client| client.may_authorize_devices())
            }
            Endpoint::SecurityEvents => self.signals.is_some(),
            _ => true,
        })
    }

    /// Those that this app has, each with its path. Where several issuers have callbacks of their own, they are one.
    pub fn paths(&self) -> impl Iterator<Item = (Endpoint, String)> {
        let paths = Endpoint::ALL.into_iter().map(|(name, _)| format!("{}{name}", self.base_path));
        paths.filter_map(|path| Some((self.find(&path)?, path)))
    }

    /// Whether a path is under `base_path`, where nothing but endpoints is.
    pub fn owns(&self, path: &str) -> bool {
        path.strip_prefix(&self.base_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The methods that the endpoint at a path answers, as `Allow` lists them.
    pub fn methods(&self, endpoint: Endpoint, path: &str) -> &'static str {
        match endpoint {
            Endpoint::Callback if self.client_at(path).is_some_and(|client| client.is_answered_by_post()) => {
                "GET, POST"
            }
            Endpoint::Callback
            | Endpoint::Session
            | Endpoint::LogoutCallback
            | Endpoint::FrontchannelLogout => "GET",
            Endpoint::Device
            | Endpoint::DevicePoll
            | Endpoint::BackchannelLogout
            | Endpoint::SecurityEvents => "POST",
            Endpoint::Login | Endpoint::Logout => "GET, POST",
            Endpoint::Client => "GET, HEAD",
        }
    }

    /// Whether the endpoint at a path answers this method.
    pub fn allows(&self, endpoint: Endpoint, path: &str, method: &Method) -> bool {
        self.methods(endpoint, path).split(", ").any(|allowed| allowed == method.as_str())
    }

    /// Answers a request that was let through to an endpoint. The body is bounded.
    pub async fn answer(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Body>, Refusal> {
        match endpoint {
            Endpoint::Login => self.login(head, body).await,
            Endpoint::Callback => self.callback(head, body).await,
            Endpoint::Device => self.begin_device_login(head).await,
            Endpoint::DevicePoll => self.poll_device_login(&head.headers).await,
            Endpoint::Session => self.session(head).await,
            Endpoint::Logout => self.logout(head).await,
            Endpoint::LogoutCallback => Ok(logout::returned()),
            Endpoint::BackchannelLogout => self.backchannel_logout(head, body).await,
            Endpoint::FrontchannelLogout => self.frontchannel_logout(head).await,
            Endpoint::SecurityEvents => self.security_events(head, body).await,
            Endpoint::Client => Ok(client_js::file(head)),
        }
    }

    /// The client whose issuer sends browsers back to this path.
    fn client_at(&self, path: &str) -> Option<&Arc<Client>> {
        self.clients.at_callback(path.strip_prefix(&self.base_path)?)
    }

    /// For the audit trail: what says that sessions are to end, and is not believed.
    fn note_refused(&self, reason: &'static str) {
        let facts = Facts { app: self.sessions.app(), reason: Some(reason), ..Facts::default() };
        self.sessions.common().audit().note(Event::RequestRefused, &facts);
    }

    /// Whose browser sent these fields.
    fn reader(&self, headers: &HeaderMap) -> Reader<'_> {
        Reader::new(&self.pages, Language::of_browser(headers))
    }

    /// Where a login begins.
    fn login_url(&self) -> String {
        format!("{}/login", self.base_path)
    }

    /// The value of a request's session cookie, which may open nothing.
    fn session_cookie(&self, headers: &HeaderMap) -> Result<Option<String>, cookie::Conflicting> {
        Ok(cookie::find(headers, self.sessions.cookie_name())?.map(Cow::into_owned))
    }

    /// The ticket that a request's session cookie carries.
    fn ticket(&self, headers: &HeaderMap) -> Result<Option<Ticket>, cookie::Conflicting> {
        Ok(self.session_cookie(headers)?.and_then(|value| self.sessions.open_cookie(&value)))
    }
}

impl Parameters {
    fn of(head: &Parts) -> Result<Self, Refusal> {
        Self::read(head.uri.query().unwrap_or_default().as_bytes())
    }

    fn read(encoded: &[u8]) -> Result<Self, Refusal> {
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Refusal::new(Reason::ParameterRepeated));
            }
        }
        Ok(Self(parameters))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

fn issuer_too_slow() -> Refusal {
    Refusal::new(Reason::IssuerSlow)
}
