//! `POST logout`, in the fixed order: the record out of the store, the cookie cleared, the refresh token
//! and then the access token revoked (RFC 7009), the browser sent to the issuer (RP-Initiated Logout).
//! `GET` asks first, and ends nothing.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, header};
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::Endpoints;
use crate::body::Body;
use crate::error::{Reason, Refusal};
use crate::fields;
use crate::oidc::Clients;
use crate::respond;
use crate::revocation::Revocations;
use crate::session::cookie::Ticket;
use crate::session::store::Unavailable;
use crate::session::{Cause, Session, Sessions};
use crate::telemetry::for_request;

/// How long a logout waits for the issuer, for the revocation and for the metadata each. The revocation goes
/// on by itself.
const ISSUER_WAIT: Duration = Duration::from_secs(2);

/// For how long, and how often, a store that hung in the middle of a logout is asked again.
const RETRY_FOR: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

impl Endpoints {
    pub(super) async fn logout(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        if head.method != Method::POST {
            let action = format!("{}/logout", self.base_path);
            return Ok(respond::logout_confirmation(&action, &self.reader(&head.headers)));
        }
        let by_script = fields::accepts(&head.headers, "application/json");
        let location = match self.ticket(&head.headers)? {
            Some(ticket) => self.end(ticket, by_script).await?,
            // A second logout is no error, and there is nothing to tell the issuer.
            None => "/".to_owned(),
        };
        let mut response = if by_script {
            respond::json(&json!({"redirect_to": location}))
        } else {
            respond::see_other(&location)
        };
        response.headers_mut().append(header::SET_COOKIE, self.sessions.clear_cookie());
        Ok(response)
    }

    /// Ends the session in a task of its own, so that a browser that does not wait cancels nothing, and
    /// gives where the browser goes.
    async fn end(&self, ticket: Ticket, by_script: bool) -> Result<String, Refusal> {
        let ending = Ending {
            sessions: Arc::clone(&self.sessions),
            clients: self.clients.clone(),
            revocations: self.revocations.clone(),
            tasks: self.tasks.clone(),
            ticket,
        };
        let state = self.random.token::<16>();
        match self.tasks.spawn(for_request(ending.run(by_script, state))).await {
            Ok(location) => Ok(location?),
            Err(broken) => Err(Refusal::new(Reason::LogoutBrokeOff).because(broken)),
        }
    }
}

/// One logout under way.
struct Ending {
    sessions: Arc<Sessions>,
    clients: Clients,
    revocations: Revocations,
    tasks: TaskTracker,
    ticket: Ticket,
}

impl Ending {
    async fn run(self, by_script: bool, state: String) -> Result<String, Unavailable> {
        // Read before it goes (R52): the answer to the taking may be lost, and the tokens with it.
        let known = self.sessions.load_stored(&self.ticket).await?;
        let session = match self.sessions.end(&self.ticket).await {
            Ok(Some(session)) => session,
            // It had ended before, or somebody else ended it just now.
            Ok(None) => return Ok("/".to_owned()),
            Err(unavailable) => {
                let tasks = self.tasks.clone();
                tasks.spawn(for_request(self.persist(known)));
                return Err(unavailable);
            }
        };
        self.note_end(&session);
        let (revocations, ended) = (self.revocations.clone(), session.clone());
        let revocation = async move { revocations.revoke(&ended.identity, &ended.tokens).await };
        let revocation = self.tasks.spawn(for_request(revocation));
        if tokio::time::timeout(ISSUER_WAIT, revocation).await.is_err() {
            tracing::warn!(event = "revocation.slow", "the logout does not wait for it");
        }
        // An ID token is a token: scripts see none. The issuer then may ask the user whom to log out.
        let hint = session.tokens.id_token.as_ref().filter(|_| !by_script);
        // One that is not configured any more has nothing to be told.
        let Some(client) = self.clients.of(&session.identity.issuer) else { return Ok("/".to_owned()) };
        let location = tokio::time::timeout(ISSUER_WAIT, client.end_session_url(hint, &state)).await;
        // Whatever the issuer does, the session here has ended (R52).
        Ok(match location {
            Ok(Ok(Some(url))) => url.into(),
            Ok(Ok(None)) => "/".to_owned(),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(event = "logout.issuer_unavailable", "only the session here has ended");
                "/".to_owned()
            }
        })
    }

    /// The store hung once the session was to be taken out. Nobody knows whether it was; the user wanted
    /// it to be, and its tokens must not outlive it.
    async fn persist(self, known: Option<Arc<Session>>) {
        let ended = tokio::time::timeout(RETRY_FOR, async {
            loop {
                tokio::time::sleep(RETRY_INTERVAL).await;
                if let Ok(ended) = self.sessions.end(&self.ticket).await {
                    break ended;
                }
            }
        });
        match ended.await {
            Ok(ended) => {
                if let Some(session) = ended.map(Arc::new).or(known) {
                    self.note_end(&session);
                    self.revocations.revoke(&session.identity, &session.tokens).await;
                }
            }
            Err(_) => tracing::error!(event = "logout.unfinished", "the store did not come back in time"),
        }
    }

    fn note_end(&self, session: &Session) {
        let facts = self.sessions.facts(&session.identity, self.ticket.record_key());
        self.sessions.note_end(Cause::Logout, &facts);
    }
}

/// `GET logout/callback`: the browser is back from the issuer, and goes on to the app.
pub(super) fn returned() -> Response<Body> {
    respond::see_other("/")
}
