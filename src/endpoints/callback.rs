//! `GET callback`, or `POST` where the issuer has the browser post: its answer is checked, the code redeemed, and a new
//! session begun (RFC 6749 §4.1.2, OpenID Connect Core §3.1.2.5).

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use tokio::sync::oneshot;

use super::login_cookie::{LIFETIME, Login};
use super::silent::{self, Silent};
use super::{Endpoints, ISSUER_WAIT, issuer_too_slow, return_to};
use crate::body::Body;
use crate::clock::Timestamp;
use crate::error::{Reason, Refusal};
use crate::oidc::{AuthorizationResponse, Client, JwtFault, ResponseError, ResponseIssuerError};
use crate::respond;
use crate::revocation::Revocations;
use crate::secret::Secret;
use crate::session::cookie::Ticket;
use crate::session::{Cause, Session, Sessions};
use crate::telemetry::audit::{Event, Facts};
use crate::telemetry::for_request;
use crate::tokens::{Identity, Tokens};

/// What our own page sends along with a response that comes for the second time.
const AGAIN: &str = "again";

/// What a login came to, and the cookies that follow.
enum Conclusion {
    LoggedIn(Vec<HeaderValue>),
    /// A silent login, and the issuer would have to ask somebody something.
    NotLoggedIn(Vec<HeaderValue>),
    /// It came to its end before.
    Stale,
}

/// A session that has just begun.
pub(super) struct Begun {
    ticket: Ticket,
    pub(super) cookie: Secret,
    identity: Identity,
    /// When it will have ended at the latest.
    expires_at: Timestamp,
}

impl Endpoints {
    pub(super) async fn callback(&self, head: &Parts, body: Body) -> Result<Response<Body>, Refusal> {
        let parameters = self.parameters(head, body).await?;
        let Some(client) = self.client_at(head.uri.path()) else {
            return self.stale(&head.headers).await;
        };
        let came_again = parameters.get(AGAIN).is_some();
        let response = AuthorizationResponse::new(parameters.0, head.method == Method::POST);
        let Some(state) = response.state() else {
            if response.is_encrypted() {
                let refused = ResponseError::from(JwtFault::Encrypted);
                return Err(self.offer_login(self.count_failure(refused.into()), None));
            }
            return self.stale(&head.headers).await;
        };
        let Some(login) = self.login_cookies.take(&head.headers, state, self.clock.now()) else {
            if !came_again && may_lack_cookies(head) {
                return Ok(self.again(head, &response));
            }
            return self.stale_with_state(head).await;
        };
        let conclusion = match (self.conclude(&head.headers, client, &login, &response).await, login.silent) {
            (Ok(conclusion), _) => conclusion,
            (Err(refusal), Some(Silent::Frame)) => return Ok(silent::tell(refusal)),
            (Err(refusal), Some(Silent::Page) | None) => return Err(refusal.in_language(login.language)),
        };
        let (is_logged_in, cookies) = match conclusion {
            Conclusion::LoggedIn(cookies) => (true, cookies),
            Conclusion::NotLoggedIn(cookies) => (false, cookies),
            Conclusion::Stale => return self.stale_with_state(head).await,
        };
        let mut answer = match login.silent {
            Some(Silent::Frame) => silent::told(is_logged_in),
            Some(Silent::Page) | None => {
                let reader = self.reader(&head.headers).preferring(login.language);
                respond::landing(&login.return_to, is_logged_in, &reader)
            }
        };
        for cookie in cookies {
            answer.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(answer)
    }

    async fn conclude(
        &self,
        headers: &HeaderMap,
        client: &Arc<Client>,
        login: &Login,
        response: &AuthorizationResponse,
    ) -> Result<Conclusion, Refusal> {
        let state = login.state.expose();
        let ended = self.login_cookies.end(state);
        let refuse = |refusal| {
            let refusal = self.offer_login(self.count_failure(refusal), Some(&login.return_to));
            refusal.with_header(header::SET_COOKIE, ended.clone())
        };
        let accepted = tokio::time::timeout(ISSUER_WAIT, self.accept(client, login, response)).await;
        let code = match accepted.map_err(|_| refuse(issuer_too_slow()))? {
            Ok(code) => code,
            Err(error) if login.silent.is_some() && error.wants_the_user() => {
                tracing::info!(event = "login.nobody_there", cause = %error);
                self.count("not_logged_in");
                self.note_failure("not-logged-in");
                return Ok(Conclusion::NotLoggedIn(vec![ended]));
            }
            Err(error) => return Err(refuse(error.into())),
        };
        // The state is used up before the code is, so that a second callback cannot redeem anything (R3);
        // and where the store is away, the code is not spent in vain.
        let claimed = self.sessions.claim_once(state, LIFETIME).await;
        if !claimed.map_err(|unavailable| self.count_failure(unavailable.into()))? {
            return Ok(Conclusion::Stale);
        }
        let (client, expected) = (Arc::clone(client), login.expected.clone());
        let redemption = async move { client.redeem(&code, &expected).await.map_err(Refusal::from) };
        let begun = self.begin_session(redemption).await.map_err(refuse)?;
        self.succeed(headers, login.previous.as_ref(), &begun, "authorization_code").await;

        let mut cookies = vec![self.sessions.set_cookie(begun.cookie.expose()), ended];
        cookies.extend(self.login_cookies.tell_others(headers, state, &begun.cookie, self.clock.now()));
        Ok(Conclusion::LoggedIn(cookies))
    }

    /// The code in the issuer's answer, if that is no refusal, and is the answer of the issuer that the browser was
    /// sent to: by the callback it came to and by its `iss` (RFC 9207 §2.4, RFC 9700 §4.4.2).
    async fn accept(
        &self,
        client: &Client,
        login: &Login,
        response: &AuthorizationResponse,
    ) -> Result<Secret, ResponseError> {
        let is_asked = match &login.issuer {
            Some(issuer) => issuer == client.issuer(),
            None => self.clients.only().is_some(),
        };
        if is_asked { client.accept(response).await } else { Err(ResponseIssuerError::Mismatch.into()) }
    }

    pub(super) fn count_failure(&self, refusal: Refusal) -> Refusal {
        self.count(if refusal.code().status().is_server_error() { "unavailable" } else { "failed" });
        self.note_failure(refusal.audited_reason());
        refusal
    }

    /// For the audit trail.
    pub(super) fn note_failure(&self, reason: &'static str) {
        let facts = Facts { app: self.sessions.app(), reason: Some(reason), ..Facts::default() };
        self.sessions.common().audit().note(Event::LoginFailed, &facts);
    }

    fn count(&self, result: &'static str) {
        self.sessions.common().metrics().count_login(self.sessions.app(), result);
    }

    /// Redeems what a login brought and begins the session, in a task of its own: a browser that goes away, or is
    /// told that it takes too long, must leave no tokens behind that nobody can revoke.
    pub(super) async fn begin_session<E: From<Refusal> + Send + 'static>(
        &self,
        redemption: impl Future<Output = Result<(Tokens, Identity), E>> + Send + 'static,
    ) -> Result<Begun, E> {
        let (sessions, revocations) = (Arc::clone(&self.sessions), self.revocations.clone());
        let (deliver, delivered) = oneshot::channel();
        let beginning = async move {
            let begun = match redemption.await {
                Ok((tokens, identity)) => {
                    begin(&sessions, &revocations, tokens, identity).await.map_err(E::from)
                }
                Err(error) => Err(error),
            };
            if let Err(Ok(unwanted)) = deliver.send(begun) {
                tracing::info!(event = "login.abandoned");
                if let Ok(Some(session)) = sessions.end(&unwanted.ticket).await {
                    let facts = sessions.facts(&session.identity, unwanted.ticket.record_key());
                    sessions.note_end(Cause::Abandoned, &facts);
                    revocations.revoke(&session.identity, &session.tokens).await;
                }
            }
        };
        self.tasks.spawn(for_request(beginning));
        match tokio::time::timeout(ISSUER_WAIT, delivered).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(_)) => Err(Refusal::new(Reason::LoginBrokeOff).into()),
            Err(_) => Err(issuer_too_slow().into()),
        }
    }

    /// A new session has begun. It ends those that this login replaces (R23): the one the browser had when it began,
    /// and the one it has now.
    pub(super) async fn succeed(
        &self,
        headers: &HeaderMap,
        previous: Option<&Secret>,
        begun: &Begun,
        grant: &'static str,
    ) {
        tracing::info!(event = "login.succeeded");
        self.count("succeeded");
        let facts = self.sessions.facts(&begun.identity, begun.ticket.record_key());
        let facts = Facts { kind: Some(grant), expires_at: Some(begun.expires_at), ..facts };
        self.sessions.common().audit().note(Event::LoginSucceeded, &facts);
        let began_with = previous.and_then(|value| self.sessions.open_cookie(value.expose()));
        let has_now = self.ticket(headers).ok().flatten();
        for ticket in began_with.into_iter().chain(has_now) {
            self.replace(ticket, &begun.identity).await;
        }
    }

    /// A stale callback straight from the issuer's site comes without the `SameSite=Strict` cookie, so
    /// that nobody can tell whether there is a session. The page that offers login asks once more, from here.
    async fn stale_with_state(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        let headers = &head.headers;
        let from_elsewhere = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        let again = HeaderValue::try_from(format!("0;url={}", head.uri.path()));
        match (self.stale(headers).await, again) {
            (Err(refusal), Ok(again)) if from_elsewhere && self.ticket(headers)?.is_none() => {
                Err(refusal.with_header(header::REFRESH, again))
            }
            (outcome, _) => outcome,
        }
    }

    /// A callback of a login that is not under way, by the back button say. Nothing is redeemed. The page around a
    /// frame waits to be told.
    async fn stale(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        match (self.explain_stale(headers).await, silent::is_in_frame(headers)) {
            (Ok(_), true) => Ok(silent::told(false)),
            (Err(refusal), true) => Ok(silent::tell(refusal)),
            (outcome, false) => outcome,
        }
    }

    async fn explain_stale(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        if let Some(ticket) = self.ticket(headers)?
            && self.sessions.load(&ticket).await?.is_some()
        {
            return Ok(respond::see_other("/"));
        }
        self.note_failure("not-under-way");
        Err(self.offer_login(Refusal::new(Reason::LoginStale), None))
    }

    async fn replace(&self, ticket: Ticket, identity: &Identity) {
        match self.sessions.end(&ticket).await {
            Ok(Some(session)) => {
                let facts = self.sessions.facts(&session.identity, ticket.record_key());
                self.sessions.note_end(Cause::Replaced, &facts);
                if !may_share_grant(&session, identity) {
                    let revocations = self.revocations.clone();
                    let revocation =
                        async move { revocations.revoke(&session.identity, &session.tokens).await };
                    self.tasks.spawn(for_request(revocation));
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(event = "session.not_ended", error = %error),
        }
    }

    /// A page that has the response come again from here, once.
    fn again(&self, head: &Parts, response: &AuthorizationResponse) -> Response<Body> {
        let fields = response.fields().chain([(AGAIN, "1")]);
        respond::again(&head.method, head.uri.path(), fields, &self.reader(&head.headers))
    }

    fn offer_login(&self, refusal: Refusal, return_to: Option<&str>) -> Refusal {
        let location = return_to
            .map_or_else(|| self.login_url(), |path| return_to::login_location(&self.base_path, path));
        refusal.with_login_url(location)
    }
}

async fn begin(
    sessions: &Arc<Sessions>,
    revocations: &Revocations,
    tokens: Tokens,
    identity: Identity,
) -> Result<Begun, Refusal> {
    match sessions.create(tokens.clone(), identity.clone()).await {
        Ok((ticket, cookie)) => {
            let expires_at = sessions.common().now() + sessions.lifetime();
            Ok(Begun { ticket, cookie: Secret::new(cookie), identity, expires_at })
        }
        Err(unavailable) => {
            revocations.revoke(&identity, &tokens).await;
            Err(unavailable.into())
        }
    }
}

/// Whether the issuer may keep the old and the new tokens under one grant. Revoking a refresh token
/// revokes the grant (RFC 7009 §2.1), and the user would be logged out by logging in.
fn may_share_grant(old: &Session, new: &Identity) -> bool {
    old.identity.issuer == new.issuer
        && old.identity.subject == new.subject
        && match (&old.identity.sid, &new.sid) {
            (Some(old), Some(new)) => old == new,
            (_, None) | (None, _) => true,
        }
}

/// Whether the browser may have kept the login cookie back, though it has it: a `SameSite=Lax` one is not sent along with
/// what another site posts, nor, by some browsers, with what another site leads to in a frame; and some browsers send no
/// `SameSite=None` either.
fn may_lack_cookies(head: &Parts) -> bool {
    head.method == Method::POST || silent::is_in_frame(&head.headers)
}
