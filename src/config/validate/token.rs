//! The token of a route, and the claims it asks for: whether the session and the client they need are there.

use std::sync::Arc;

use crate::config::decode::{At, Required};
use crate::config::raw::token as raw;
use crate::config::reading::{Place, Reading, Reported};
use crate::config::token::MOST_ROUTE_TOKENS;
use crate::config::validate::{distinct, texts};
use crate::config::{Auth, ClientAuth, Oidc, RequiredClaim, RouteGrant, RouteToken, Token, TokenTarget};

/// What the tokens of an app's routes have to fit.
pub(super) struct Tokens {
    /// The client has nothing to prove itself with.
    is_public: bool,
    /// Whether an issuer gives tokens that are bound to a key.
    pub(super) binds_to_key: Result<bool, Reported>,
    /// Whether each issuer does, and whether the first one does.
    each_binds_to_key: bool,
    first_binds_to_key: bool,
    /// Whether an issuer gives tokens that are bound to the client's certificate.
    pub(super) binds_to_certificate: Result<bool, Reported>,
    /// Those of the session's that other routes have.
    of_session: Vec<Arc<RouteToken>>,
}

impl Tokens {
    /// Those of the client at these issuers; its own token is of the first of them.
    pub(super) fn new(issuers: Result<&[Oidc], Reported>) -> Self {
        let first = issuers.ok().and_then(<[_]>::first);
        let any = |is: fn(&Oidc) -> bool| issuers.map(|all| all.iter().any(is));
        Self {
            is_public: first.is_some_and(|oidc| matches!(oidc.client_auth, ClientAuth::None)),
            binds_to_key: any(|oidc| oidc.dpop_bound_access_tokens),
            each_binds_to_key: issuers.is_ok_and(|all| all.iter().all(|oidc| oidc.dpop_bound_access_tokens)),
            first_binds_to_key: first.is_some_and(|oidc| oidc.dpop_bound_access_tokens),
            binds_to_certificate: any(|oidc| oidc.tls_client_certificate_bound_access_tokens),
            of_session: Vec::new(),
        }
    }

    /// Whether this one is bound to a key, whichever issuer a session has.
    pub(super) fn always_binds_to_key(&self, token: &raw::Token) -> bool {
        match token {
            raw::Token::ClientCredentials(_) => self.first_binds_to_key,
            _ => self.each_binds_to_key,
        }
    }

    /// The token of one route.
    pub(super) fn token(
        &mut self,
        token: Required<raw::Token>,
        auth: Result<Auth, Reported>,
        reading: &mut Reading<'_>,
    ) -> Result<Token, Reported> {
        let At { value, place, .. } = token?;
        match value {
            raw::Token::AccessToken => Ok(Token::AccessToken),
            raw::Token::None => Ok(Token::None),
            raw::Token::Resource(target) => {
                let resource = Some(target.resource?.value.0);
                let target = TokenTarget { resource, ..TokenTarget::default() };
                self.of_session(RouteToken { grant: RouteGrant::RefreshToken, target }, auth, &place, reading)
            }
            raw::Token::Exchange(target) => {
                let target = self::target(target, reading)?;
                if target == TokenTarget::default() {
                    let remedy = "`audience`, `resource` or `scopes` of the token that is wanted";
                    return Err(reading.fault(&place, "an exchange for nothing in particular", remedy));
                }
                self.of_session(
                    RouteToken { grant: RouteGrant::TokenExchange, target },
                    auth,
                    &place,
                    reading,
                )
            }
            raw::Token::ClientCredentials(target) => {
                let target = target.map(|target| self::target(target, reading)).transpose()?;
                self.client_credentials(auth, &place, reading)?;
                Ok(Token::ClientCredentials(target.unwrap_or_default()))
            }
        }
    }

    fn of_session(
        &mut self,
        token: RouteToken,
        auth: Result<Auth, Reported>,
        place: &Place,
        reading: &mut Reading<'_>,
    ) -> Result<Token, Reported> {
        if auth? == Auth::None {
            let problem = "a token of the session's on a route that looks at no session";
            return Err(reading.fault(place, problem, "`auth: required` beside it, or `token: none`"));
        }
        if let Some(known) = self.of_session.iter().find(|known| ***known == token) {
            return Ok(Token::OfSession(Arc::clone(known)));
        }
        if self.of_session.len() == MOST_ROUTE_TOKENS {
            let problem =
                format!("more than {MOST_ROUTE_TOKENS} different tokens in each session of one app");
            return Err(reading.fault(place, problem, "one that several upstreams take, or another app"));
        }
        let token = Arc::new(token);
        self.of_session.push(Arc::clone(&token));
        Ok(Token::OfSession(token))
    }

    fn client_credentials(
        &self,
        auth: Result<Auth, Reported>,
        place: &Place,
        reading: &mut Reading<'_>,
    ) -> Result<(), Reported> {
        if self.is_public {
            let problem = "client_credentials of a client without credentials (RFC 6749 §4.4)";
            return Err(reading.fault(place, problem, "another `client_auth` than `none`, or `token: none`"));
        }
        if auth? != Auth::Required {
            let problem = "whoever can reach this route calls the upstream with the client's own token";
            reading.warn(place, problem, "`auth: required` beside it, unless that is meant");
        }
        Ok(())
    }
}

/// The claims that a route asks for.
pub(super) fn required_claims(
    claims: Required<raw::RequiredClaims>,
    auth: Result<Auth, Reported>,
    reading: &mut Reading<'_>,
) -> Result<Vec<RequiredClaim>, Reported> {
    let At { value: raw::RequiredClaims(claims), place, .. } = claims?;
    let problem = match auth {
        Ok(Auth::None) => "required_claims on a route that looks at no session",
        Ok(Auth::Optional) => {
            "required_claims on a route with `auth: optional`, which lets anybody in but users without them"
        }
        Ok(Auth::Required) | Err(_) => return Ok(claims),
    };
    if claims.is_empty() {
        return Ok(claims);
    }
    Err(reading.fault(&place, problem, "`auth: required` beside it, or the route without it"))
}

fn target(target: raw::TokenTarget, reading: &mut Reading<'_>) -> Result<TokenTarget, Reported> {
    let scopes = target.scopes.and_then(|scopes| distinct(texts(scopes.value), "scope", reading));
    Ok(TokenTarget {
        scopes: scopes?,
        resource: target.resource?.map(|resource| resource.value.0),
        audience: target.audience?.map(|audience| audience.value.0),
    })
}
