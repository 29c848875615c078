//! `GET callback`: the issuer's answer is checked, the code redeemed, and a new session begun
//! (RFC 6749 §4.1.2, RFC 9207, OpenID Connect Core §3.1.2.5).

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, header};
use tokio::sync::oneshot;

use super::login_cookie::{LIFETIME, Login};
use super::{Endpoints, ISSUER_WAIT, Parameters, issuer_too_slow, return_to};
use crate::body::Body;
use crate::error::{Code, Refusal};
use crate::oidc::{Client, Expected, ResponseIssuerError};
use crate::respond;
use crate::revocation::Revocations;
use crate::secret::Secret;
use crate::session::cookie::Ticket;
use crate::session::{Cause, Session, Sessions};
use crate::tokens::Identity;

/// A session that has just begun.
struct Begun {
    ticket: Ticket,
    cookie: Secret,
    identity: Identity,
}

impl Endpoints {
    pub(super) async fn callback(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        let parameters = Parameters::of(head)?;
        let Some(state) = parameters.get("state").filter(|state| !state.is_empty()) else {
            return self.stale(&head.headers).await;
        };
        let Some(login) = self.login_cookies.take(&head.headers, state, self.clock.now()) else {
            return self.stale_with_state(&head.headers).await;
        };
        let ended = self.login_cookies.end(state);
        let refuse = |refusal| {
            self.offer_login(refusal, Some(&login.return_to)).with_header(header::SET_COOKIE, ended.clone())
        };
        let code = self.code(&parameters).await.map_err(|refusal| refuse(self.count_failure(refusal)))?;
        // The state is used up before the code is, so that a second callback cannot redeem anything (R3);
        // and where the store is away, the code is not spent in vain.
        let claimed = self.sessions.claim_once(state, LIFETIME).await;
        if !claimed.map_err(|unavailable| self.count_failure(unavailable.into()))? {
            return self.stale_with_state(&head.headers).await;
        }
        let begun = self.begin_session(code, &login).await;
        let begun = begun.map_err(|refusal| refuse(self.count_failure(refusal)))?;
        tracing::info!(event = "login.succeeded");
        self.sessions.common().metrics().count_login(self.sessions.app(), "succeeded");
        self.end_previous(&head.headers, &login, &begun.identity).await;

        let mut response = respond::landing(&login.return_to);
        response.headers_mut().append(header::SET_COOKIE, self.sessions.set_cookie(begun.cookie.expose()));
        response.headers_mut().append(header::SET_COOKIE, ended.clone());
        let others = self.login_cookies.tell_others(&head.headers, state, &begun.cookie, self.clock.now());
        for cookie in others {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    fn count_failure(&self, refusal: Refusal) -> Refusal {
        let result = if refusal.code.status().is_server_error() { "unavailable" } else { "failed" };
        self.sessions.common().metrics().count_login(self.sessions.app(), result);
        refusal
    }

    /// The code in the issuer's answer, if that is the issuer's and no refusal (RFC 9207 §2.4).
    async fn code(&self, parameters: &Parameters) -> Result<Secret, Refusal> {
        let issuer = self.client.check_response_issuer(parameters.get("iss"));
        tokio::time::timeout(ISSUER_WAIT, issuer).await.map_err(|_| issuer_too_slow())?.map_err(|error| {
            match error {
                ResponseIssuerError::Unavailable(unavailable) => unavailable.into(),
                ResponseIssuerError::Mismatch | ResponseIssuerError::Missing => {
                    Refusal::new(Code::LoginFailed, "The answer did not come from this app's issuer.")
                        .because(error)
                }
            }
        })?;
        match (parameters.get("code"), parameters.get("error")) {
            (Some(code), None) if !code.is_empty() => Ok(Secret::new(code)),
            (None, Some(error)) => Err(issuer_said_no(error)),
            (_, _) => {
                Err(Refusal::new(Code::LoginFailed, "The issuer's answer is neither a code nor an error."))
            }
        }
    }

    /// Redeems the code and begins the session, in a task of its own: a browser that goes away, or is told
    /// that it takes too long, must leave no tokens behind that nobody can revoke.
    async fn begin_session(&self, code: Secret, login: &Login) -> Result<Begun, Refusal> {
        let (client, sessions) = (Arc::clone(&self.client), Arc::clone(&self.sessions));
        let revocations = self.revocations.clone();
        let expected = login.expected.clone();
        let (deliver, delivered) = oneshot::channel();
        self.tasks.spawn(async move {
            let begun = redeem(&client, &sessions, &revocations, &code, &expected).await;
            if let Err(Ok(unwanted)) = deliver.send(begun) {
                tracing::info!(event = "login.abandoned");
                if let Ok(Some(session)) = sessions.end(&unwanted.ticket).await {
                    sessions.note_end(Cause::Abandoned);
                    revocations.revoke(&session.tokens).await;
                }
            }
        });
        match tokio::time::timeout(ISSUER_WAIT, delivered).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(_)) => Err(Refusal::new(Code::Internal, "The login broke off.")),
            Err(_) => Err(issuer_too_slow()),
        }
    }

    /// A stale callback straight from the issuer's site comes without the `SameSite=Strict` cookie, so
    /// that nobody can tell whether there is a session. The page that offers login asks once more, from here.
    async fn stale_with_state(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        let from_elsewhere = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        let again = HeaderValue::try_from(format!("0;url={}/callback", self.base_path));
        match (self.stale(headers).await, again) {
            (Err(refusal), Ok(again)) if from_elsewhere && self.ticket(headers)?.is_none() => {
                Err(refusal.with_header(header::REFRESH, again))
            }
            (outcome, _) => outcome,
        }
    }

    /// A callback of a login that is not under way, by the back button say. Nothing is redeemed.
    async fn stale(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        if let Some(ticket) = self.ticket(headers)?
            && self.sessions.load(&ticket).await?.is_some()
        {
            return Ok(respond::see_other("/"));
        }
        Err(self.offer_login(
            Refusal::new(Code::LoginFailed, "This login is no longer under way. Please start again."),
            None,
        ))
    }

    /// Ends the sessions that this login replaces (R23): the one the browser had when it began, and the
    /// one it has now.
    async fn end_previous(&self, headers: &HeaderMap, login: &Login, identity: &Identity) {
        let began_with = login.previous.as_ref().and_then(|value| self.sessions.open_cookie(value.expose()));
        let has_now = self.ticket(headers).ok().flatten();
        for ticket in began_with.into_iter().chain(has_now) {
            self.replace(ticket, identity).await;
        }
    }

    async fn replace(&self, ticket: Ticket, identity: &Identity) {
        match self.sessions.end(&ticket).await {
            Ok(Some(session)) => {
                self.sessions.note_end(Cause::Replaced);
                if !may_share_grant(&session, identity) {
                    let revocations = self.revocations.clone();
                    self.tasks.spawn(async move { revocations.revoke(&session.tokens).await });
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(event = "session.not_ended", error = %error),
        }
    }

    fn offer_login(&self, refusal: Refusal, return_to: Option<&str>) -> Refusal {
        let location = return_to
            .map_or_else(|| self.login_url(), |path| return_to::login_location(&self.base_path, path));
        refusal.with_login_url(location)
    }
}

async fn redeem(
    client: &Client,
    sessions: &Arc<Sessions>,
    revocations: &Revocations,
    code: &Secret,
    expected: &Expected,
) -> Result<Begun, Refusal> {
    let (tokens, identity) = client.redeem(code, expected).await?;
    match sessions.create(tokens.clone(), identity.clone()).await {
        Ok((ticket, cookie)) => Ok(Begun { ticket, cookie: Secret::new(cookie), identity }),
        Err(unavailable) => {
            revocations.revoke(&tokens).await;
            Err(unavailable.into())
        }
    }
}

/// Whether the issuer may keep the old and the new tokens under one grant. Revoking a refresh token
/// revokes the grant (RFC 7009 §2.1), and the user would be logged out by logging in.
fn may_share_grant(old: &Session, new: &Identity) -> bool {
    old.identity.subject == new.subject
        && match (&old.identity.sid, &new.sid) {
            (Some(old), Some(new)) => old == new,
            (_, None) | (None, _) => true,
        }
}

/// The issuer's own words never reach the page (R20); its registered codes choose ours.
fn issuer_said_no(error: &str) -> Refusal {
    let detail = match error {
        "access_denied" => "The login was cancelled or refused.",
        "login_required" | "interaction_required" | "consent_required" | "account_selection_required" => {
            "The issuer wants you to log in by hand."
        }
        "temporarily_unavailable" | "server_error" => "The issuer cannot log you in at the moment.",
        _ => "The issuer refused this login.",
    };
    Refusal::new(Code::LoginFailed, detail)
}
