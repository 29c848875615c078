//! Whether a request may go on, and as whom.

use std::ops::Deref;
use std::sync::Arc;

use http::{HeaderMap, Method, Response, Uri};

use super::app::App;
use super::guard;
use crate::body::Body;
use crate::config::{self, Auth};
use crate::endpoints::login_location;
use crate::error::{Reason, Refusal};
use crate::respond::{self, Audience};
use crate::session::Session;
use crate::session::cookie::{self, OpenedCookie};

/// What is looked at of a request before its body is.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
}

/// A live session that a request may use.
pub(super) struct User {
    pub(super) ticket: Arc<OpenedCookie>,
    pub(super) session: Arc<Session>,
}

/// Whether a request may go on, and as whom.
pub(super) struct Admission {
    pub(super) who: Who,
    /// The request has a cookie of ours that opens no session: it is taken back with the answer.
    pub(super) cookie_is_dead: bool,
}

/// Whom a request comes from.
pub(super) enum Who {
    /// One with a live session.
    User(Box<User>),
    /// Anybody may make it.
    Anybody,
    /// One who must log in first, and is sent there.
    Stranger(Response<Body>),
}

impl App {
    /// Whether a request may use its session, and whether it needs one it does not have.
    pub(super) async fn admit(
        &self,
        rules: &config::Route,
        head: Head<'_>,
        audience: Audience,
        is_handshake: bool,
    ) -> Result<Admission, Refusal> {
        if rules.auth == Auth::None {
            return Ok(Admission { who: Who::Anybody, cookie_is_dead: false });
        }
        let headers = head.headers;
        let cookie = cookie::find(headers, self.sessions.cookie_name())?;
        let guarded = match guard::route(headers, &self.origin, rules.csrf, is_handshake) {
            Err(_) if rules.auth == Auth::Optional => {
                return Ok(Admission { who: Who::Anybody, cookie_is_dead: false });
            }
            // Another site's script learns nothing, not even whether there is a session.
            Err(refusal) if audience == Audience::Script && guard::is_foreign(headers, &self.origin) => {
                return Err(refusal);
            }
            guarded => guarded,
        };
        // A request without a cookie never touches the store (R63).
        let ticket = cookie.as_deref().and_then(|value| self.sessions.ticket(value));
        let session = match &ticket {
            Some(ticket) => self.refresher.load(ticket).await?,
            None => None,
        };
        let cookie_is_dead = cookie.is_some() && session.is_none();
        self.note_visitor(ticket.as_deref().map(Deref::deref), session.as_deref(), cookie_is_dead);
        let who = match (ticket, session) {
            // The guard is for the use of a session; without one there was nothing to guard.
            (Some(ticket), Some(session)) => {
                guarded?;
                Who::User(Box::new(User { ticket, session }))
            }
            (_, _) if rules.auth == Auth::Optional => Who::Anybody,
            (_, _) => Who::Stranger(self.ask_for_login(head, audience, cookie_is_dead)?),
        };
        Ok(Admission { who, cookie_is_dead })
    }

    /// A person is sent to login; a script is told where it is. A request other than GET would lose its
    /// method and its body on the way, and is never redirected.
    fn ask_for_login(
        &self,
        head: Head<'_>,
        audience: Audience,
        cookie_is_dead: bool,
    ) -> Result<Response<Body>, Refusal> {
        let is_read = matches!(*head.method, Method::GET | Method::HEAD);
        if audience == Audience::Page && is_read {
            let wanted = head.uri.path_and_query().map_or("/", |wanted| wanted.as_str());
            let mut response = respond::see_other(&login_location(&self.base_path, wanted));
            if cookie_is_dead {
                self.take_cookie_back(&mut response);
            }
            return Ok(response);
        }
        let refusal = Refusal::new(Reason::NoSession);
        let refusal = if cookie_is_dead { self.clear_cookie(refusal) } else { refusal };
        Err(refusal.with_login_url(format!("{}/login", self.base_path)))
    }
}
