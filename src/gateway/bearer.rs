//! Which token a request goes upstream with, kept fresh; and another one where the upstream has refused it.

use std::sync::Arc;

use super::admission::User;
use super::app::App;
use crate::config::{self, RouteToken, Token};
use crate::dpop::Key;
use crate::error::{Reason, Refusal};
use crate::refresh::{ClientToken, Failure};
use crate::secret::Secret;
use crate::session::Session;
use crate::tokens::AccessToken;

/// The token that goes upstream.
pub(super) enum Bearer {
    /// One of a session's: its access token, or the one that the route wants instead.
    Session(User, Option<Arc<RouteToken>>),
    /// One of the client's own.
    Client(Arc<ClientToken>, Arc<AccessToken>),
}

/// A claim is not what a route asks for. For the log alone, which is told its name.
#[derive(Debug, thiserror::Error)]
#[error("the claim `{0}` is not as required")]
struct MissingClaim(String);

impl Bearer {
    /// `None` only where the session has lost it.
    pub(super) fn token(&self) -> Option<&Secret> {
        match self {
            Self::Session(user, wanted) => user.session.tokens.held(wanted.as_deref()).map(|held| held.value),
            Self::Client(_, token) => Some(&token.value),
        }
    }

    /// What the token is bound to (RFC 9449), where it is.
    pub(super) fn dpop_key(&self) -> Option<&Key> {
        match self {
            Self::Session(user, _) => user.session.tokens.dpop_key.as_deref(),
            Self::Client(token, _) => token.dpop_key(),
        }
    }

    /// Tells that an upstream has accepted the token that replaced a refused one.
    pub(super) fn note_accepted(&self, app: &App) {
        match self {
            Self::Session(user, wanted) => app.refresher.note_accepted(&user.ticket, wanted.as_ref()),
            Self::Client(token, _) => token.note_accepted(),
        }
    }
}

impl App {
    /// The token that goes upstream, if one does, where the session has the scopes and claims the route asks for.
    pub(super) async fn bearer(
        &self,
        user: Option<User>,
        rules: &config::Route,
        client_token: Option<&Arc<ClientToken>>,
    ) -> Result<Option<Bearer>, Refusal> {
        let user = match user {
            Some(user) => Some(self.freshen(user, rules).await?),
            None => None,
        };
        match (user, client_token) {
            (_, Some(client_token)) => {
                let token = client_token.fresh().await.map_err(|failure| self.explain(failure))?;
                Ok(Some(Bearer::Client(Arc::clone(client_token), token)))
            }
            (Some(_), None) if rules.token == Token::None => Ok(None),
            (user, None) => {
                Ok(user.map(|user| Bearer::Session(user, rules.token.of_session().map(Arc::clone))))
            }
        }
    }

    /// The session with a token that can be used, and what the route asks for.
    async fn freshen(&self, user: User, rules: &config::Route) -> Result<User, Refusal> {
        let User { ticket, session } = user;
        let session = match &rules.token {
            Token::AccessToken => self.usable(&ticket, session).await,
            Token::OfSession(wanted) => match self.usable(&ticket, session).await {
                Ok(session) => Box::pin(self.refresher.freshen_for(&ticket, session, wanted)).await,
                Err(failure) => Err(failure),
            },
            Token::ClientCredentials(_) | Token::None => Ok(session),
        };
        let session = session.map_err(|failure| self.explain(failure))?;
        check_rights(&session, rules)?;
        Ok(User { ticket, session })
    }

    /// Another token in the place of one that an upstream has refused; `None` where no other is to be had, so that the
    /// upstream's own word stands.
    pub(super) async fn replace_refused(
        &self,
        refused: &Bearer,
        rules: &config::Route,
    ) -> Result<Option<Bearer>, Refusal> {
        match refused {
            Bearer::Session(User { ticket, session }, wanted) => {
                match self.refresher.replace_refused(ticket, session, wanted.as_ref()).await {
                    Some(Ok(session)) => {
                        check_rights(&session, rules)?;
                        let user = User { ticket: Arc::clone(ticket), session };
                        Ok(Some(Bearer::Session(user, wanted.clone())))
                    }
                    Some(Err(failure @ (Failure::Ended | Failure::Gone))) => Err(self.explain(failure)),
                    Some(Err(Failure::Issuer { .. } | Failure::Refused | Failure::Store(_))) | None => {
                        Ok(None)
                    }
                }
            }
            Bearer::Client(token, refused) => {
                let another = token.replace_refused(refused).await;
                Ok(another.map(|another| Bearer::Client(Arc::clone(token), another)))
            }
        }
    }
}

/// Looked at after each refresh, which may have shrunk the scope (R32). The claims are those of the login.
pub(super) fn check_rights(session: &Session, rules: &config::Route) -> Result<(), Refusal> {
    let granted = session.tokens.held(rules.token.of_session().map(Arc::as_ref)).map(|held| held.scopes);
    let is_granted = |scope: &&String| granted.is_some_and(|granted| granted.contains(*scope));
    if let Some(scope) = rules.required_scopes.iter().find(|scope| !is_granted(scope)) {
        return Err(Refusal::new(Reason::ScopeMissing).saying(format!("The scope `{scope}` is missing.")));
    }
    let claims = &session.identity.claims;
    match rules.required_claims.iter().find(|claim| !claim.is_met_by(claims.get(&claim.name))) {
        None => Ok(()),
        Some(claim) => Err(Refusal::new(Reason::ClaimMissing).because(MissingClaim(claim.name.clone()))),
    }
}
