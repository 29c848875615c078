//! The token endpoint: codes (RFC 6749 §4.1.3) and refresh tokens (§6) are redeemed here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use serde_json::{Map, Value};

use super::discovery::Metadata;
use super::error::{CallFault, IdTokenFault, IssuerUnavailable, RedeemError, RefreshError, TokenFault};
use super::id_token::IdToken;
use super::jwt::SignatureError;
use super::{Client, Expected};
use crate::clock::Timestamp;
use crate::config::{RouteToken, TokenTarget};
use crate::dpop::{Key, USE_DPOP_NONCE};
use crate::secret::Secret;
use crate::telemetry::chain;
use crate::tokens::{AccessToken, Identity, Tokens};

/// R33: the life of an access token whose answer does not say, or says nonsense.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// No shorter, or a fraction of a second would be a loop of refreshes; no longer than a year.
const LIFETIME_BOUNDS: (f64, f64) = (1.0, 365.0 * 24.0 * 60.0 * 60.0);

/// What a token answer says (RFC 6749 §5.1).
#[derive(Debug)]
pub struct TokenAnswer {
    access_token: Secret,
    lifetime: Duration,
    refresh_token: Option<Secret>,
    id_token: Option<Secret>,
    scopes: Option<Vec<String>>,
    is_bound: bool,
    /// RFC 8693 §2.2.1, in the answer to an exchange.
    pub(super) issued_token_type: Option<String>,
}

/// Whether the access token has to be bound to a key (RFC 9449 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// No key was proved: nobody can use a token that is bound to one of which nothing is known.
    Unbound,
    /// A key was proved: a bearer token is what a thief would want.
    Required,
    /// A key was proved for the first time by a session that has had bearer tokens all along.
    Offered,
}

/// What the token endpoint did with a request.
pub(super) enum TokenError {
    InvalidGrant,
    NonceRequired,
    Refused { error: String },
    Unavailable(IssuerUnavailable),
    Malformed(TokenFault),
}

impl Client {
    /// Redeems a code, and checks all that came before any of it is used (R14).
    ///
    /// # Errors
    /// [`RedeemError::Unavailable`] where the issuer is away; anything else is a failed login.
    pub async fn redeem(
        &self,
        code: &Secret,
        expected: &Expected,
    ) -> Result<(Tokens, Identity), RedeemError> {
        let metadata = self.discovery.metadata().await?;
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", expected.verifier.expose()),
        ];
        // A login that began before keys were asked for has none; its code is bound to none either.
        let dpop_key = expected.dpop_key.clone().or_else(|| self.fresh_key());
        let parameters = self.with_resource(&parameters);
        let answer = self.request_tokens(&metadata, &parameters, dpop_key.as_deref()).await?;
        self.accept_tokens(&metadata, answer, Some(&expected.nonce), expected, dpop_key).await
    }

    /// Checks all that a token answer brings before any of it is used (R14), and gives who has logged in. The key
    /// is the one that was proved.
    pub(super) async fn accept_tokens(
        &self,
        metadata: &Metadata,
        answer: TokenAnswer,
        nonce: Option<&Secret>,
        expected: &Expected,
        dpop_key: Option<Arc<Key>>,
    ) -> Result<(Tokens, Identity), RedeemError> {
        let now = self.clock.now();
        let id_token = answer.id_token.as_ref().ok_or(IdTokenFault::Missing)?;
        let id_token = IdToken::read(id_token, self.id_token_algorithms(metadata))?;
        self.check_signature(metadata, id_token.jwt()).await?;
        let trusted = &self.oidc.trusted_audiences;
        id_token.check_parties(self.issuer(), &self.oidc.client_id, trusted).map_err(IdTokenFault::from)?;
        id_token.check_times(now).map_err(IdTokenFault::from)?;
        id_token.check_nonce(nonce)?;
        id_token.check_authentication(expected, now)?;
        if let Some(values) = self.oidc.authorization.claims.essential_acr() {
            id_token.check_acr(&values)?;
        }
        id_token.check_access_token(&answer.access_token)?;
        let subject = id_token.subject()?;
        let userinfo = if self.oidc.userinfo {
            self.userinfo(metadata, &answer.access_token, dpop_key.as_deref(), subject).await?
        } else {
            Map::new()
        };
        let identity = id_token.into_identity(userinfo)?;
        Ok((answer.into_tokens(now, &self.oidc.scopes, dpop_key), identity))
    }

    /// Redeems the refresh token. What the answer omits is kept: refresh token, ID token, scope.
    ///
    /// # Errors
    /// Each says whether the session may go on, and whether the refresh token may have been used up.
    pub async fn refresh(&self, tokens: &Tokens, identity: &Identity) -> Result<Tokens, RefreshError> {
        let renewed = self.redeem_refresh_token(tokens, identity, None).await?;
        let route_tokens = tokens.not_exchanged(renewed.dpop_key.as_ref());
        Ok(Tokens { route_tokens, ..renewed })
    }

    /// Redeems the refresh token for what one route `wanted`, and puts that beside the access token, which stays.
    ///
    /// # Errors
    /// As [`Client::refresh`].
    pub async fn refresh_for(
        &self,
        tokens: &Tokens,
        identity: &Identity,
        wanted: &Arc<RouteToken>,
    ) -> Result<Tokens, RefreshError> {
        let renewed = self.redeem_refresh_token(tokens, identity, Some(&wanted.target)).await?;
        let Tokens { access_token: value, issued_at, expires_at, refresh_token, id_token, scopes, .. } =
            renewed;
        let mut tokens = Tokens { refresh_token, id_token, ..tokens.clone() };
        tokens.insert(wanted, AccessToken { value, issued_at, expires_at, scopes });
        Ok(tokens)
    }

    /// What the answer brought, and where it brought none what there was.
    async fn redeem_refresh_token(
        &self,
        tokens: &Tokens,
        identity: &Identity,
        target: Option<&TokenTarget>,
    ) -> Result<Tokens, RefreshError> {
        // Nothing to redeem is the same end as a dead refresh token.
        let refresh_token = tokens.refresh_token.as_ref().ok_or(RefreshError::InvalidGrant)?;
        let metadata = self.discovery.metadata().await.map_err(RefreshError::NotSent)?;
        let parameters = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        // A session of before keys were asked for gets one at its next refresh: its refresh token is bound to none.
        let dpop_key = tokens.dpop_key.clone().or_else(|| self.fresh_key().filter(|_| target.is_none()));
        let parameters = match target.and_then(|target| target.resource.as_deref()) {
            Some(resource) => parameters.into_iter().chain([("resource", resource)]).collect(),
            None => self.with_resource(&parameters),
        };
        let binding = match Binding::of(dpop_key.as_deref()) {
            Binding::Required if tokens.dpop_key.is_none() => Binding::Offered,
            binding => binding,
        };
        let answer = self.try_for_tokens(&metadata, &parameters, dpop_key.as_deref(), binding).await?;
        let dpop_key = dpop_key.filter(|_| answer.is_bound);
        if binding == Binding::Offered && dpop_key.is_none() {
            // The session loses nothing that it had, and the refresh token may have been rotated.
            tracing::error!(
                event = "refresh.not_bound",
                "the issuer binds no tokens; the session goes on without"
            );
        }
        let mut renewed = answer.into_tokens(self.clock.now(), &tokens.scopes, dpop_key);
        if let Some(id_token) = &renewed.id_token
            && !self.check_refreshed(&metadata, id_token, &renewed, tokens, identity).await?
        {
            renewed.id_token = None;
        }
        renewed.refresh_token = renewed.refresh_token.or_else(|| tokens.refresh_token.clone());
        renewed.id_token = renewed.id_token.or_else(|| tokens.id_token.clone());
        Ok(renewed)
    }

    /// R30: whether a refreshed ID token may take the old one's place. Where only the keys are out of
    /// reach or a clock is off, it may not, but the tokens that came with it are kept: whose they are is
    /// known, from a connection that TLS authenticates, and a rotated refresh token must not be lost.
    async fn check_refreshed(
        &self,
        metadata: &Metadata,
        id_token: &Secret,
        issued: &Tokens,
        before: &Tokens,
        identity: &Identity,
    ) -> Result<bool, RefreshError> {
        let algorithms = self.id_token_algorithms(metadata);
        let token = IdToken::read(id_token, algorithms).map_err(garbage)?;
        let same_nonce = token.nonce().is_none_or(|nonce| {
            let before = before.id_token.as_ref().and_then(|before| IdToken::read(before, algorithms).ok());
            before.is_none_or(|before| before.nonce().is_none_or(|expected| expected == nonce))
        });
        let (client_id, trusted) = (&self.oidc.client_id, &self.oidc.trusted_audiences);
        let same_login = token.check_parties(&identity.issuer, client_id, trusted).is_ok()
            && token.subject().is_ok_and(|subject| subject == identity.subject);
        if !(same_nonce && same_login) {
            return Err(RefreshError::WrongIdentity(Box::new(issued.clone())));
        }
        match self.check_signature(metadata, token.jwt()).await {
            Ok(()) => {}
            Err(SignatureError::Fault(fault)) => return Err(garbage(fault.into())),
            Err(SignatureError::Unavailable(error)) => {
                tracing::warn!(event = "refresh.id_token_unverified", error = %chain(&error), "the old one is kept");
                return Ok(false);
            }
        }
        token.check_access_token(&issued.access_token).map_err(garbage)?;
        if let Err(fault) = token.check_times(issued.issued_at) {
            tracing::warn!(event = "refresh.id_token_refused", error = %fault, "the old one is kept");
            return Ok(false);
        }
        Ok(true)
    }

    /// RFC 8707 §2.2: where the access token is to be used is said at each token request.
    pub(super) fn with_resource<'a>(&'a self, parameters: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let resource = self.oidc.authorization.resource.iter().map(|uri| ("resource", uri.as_str()));
        parameters.iter().copied().chain(resource).collect()
    }

    /// Asks for tokens, bound to this key where there is one; once more where the issuer gives a nonce for that.
    pub(super) async fn request_tokens(
        &self,
        metadata: &Metadata,
        parameters: &[(&str, &str)],
        key: Option<&Key>,
    ) -> Result<TokenAnswer, TokenError> {
        let binding = Binding::of(key);
        match self.try_for_tokens(metadata, parameters, key, binding).await {
            Err(TokenError::NonceRequired) => self.try_for_tokens(metadata, parameters, key, binding).await,
            answered => answered,
        }
    }

    async fn try_for_tokens(
        &self,
        metadata: &Metadata,
        parameters: &[(&str, &str)],
        key: Option<&Key>,
        binding: Binding,
    ) -> Result<TokenAnswer, TokenError> {
        let answer = self.post_with_key(&metadata.token_endpoint, parameters, key).await;
        let answer = answer.map_err(TokenError::Unavailable)?;
        if answer.status == StatusCode::OK {
            let body = answer.json_object().ok_or(TokenFault::NotJson);
            return body.and_then(|body| TokenAnswer::new(body, binding)).map_err(TokenError::Malformed);
        }
        if !answer.status.is_client_error() || answer.is_inconclusive() {
            return Err(TokenError::Unavailable(answer.unavailable()));
        }
        match answer.error_code().as_deref() {
            Some("invalid_grant") => Err(TokenError::InvalidGrant),
            _ if key.is_some() && answer.wants_nonce() => Err(TokenError::NonceRequired),
            // Codes of the authorization endpoint that some issuers send here for a trouble of their own.
            Some("temporarily_unavailable" | "server_error") => {
                Err(TokenError::Unavailable(answer.unavailable()))
            }
            _ => Err(TokenError::Refused { error: answer.refusal() }),
        }
    }
}

impl Binding {
    fn of(key: Option<&Key>) -> Self {
        if key.is_some() { Self::Required } else { Self::Unbound }
    }
}

impl TokenAnswer {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// Where it brings no access token that can be used, or one of another kind than was asked for.
    pub fn new(mut body: Map<String, Value>, binding: Binding) -> Result<Self, TokenFault> {
        let mut take = |name: &str| match body.remove(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        let access_token =
            take("access_token").filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
        let token_type = take("token_type");
        let is = |kind: &str| token_type.as_ref().is_some_and(|given| given.eq_ignore_ascii_case(kind));
        let (is_bound, is_bearer) = (is("DPoP"), is("Bearer"));
        let refresh_token = take("refresh_token").map(Secret::new);
        let id_token = take("id_token").map(Secret::new);
        let issued_token_type = take("issued_token_type");
        let scopes = take("scope").map(|scope| scope.split_ascii_whitespace().map(str::to_owned).collect());
        let answer = Self {
            access_token: Secret::bearer(access_token.ok_or(TokenFault::AccessToken)?),
            lifetime: lifetime(body.get("expires_in")),
            refresh_token,
            id_token,
            scopes,
            is_bound,
            issued_token_type,
        };
        match binding {
            Binding::Unbound if !is_bearer => Err(TokenFault::TokenType),
            Binding::Required if !is_bound => Err(TokenFault::NotBound),
            Binding::Offered if !(is_bound || is_bearer) => Err(TokenFault::TokenType),
            Binding::Unbound | Binding::Required | Binding::Offered => Ok(answer),
        }
    }

    /// A scope that is not named is `scopes`, as asked for or as before (RFC 6749 §5.1, §6). The key is the one
    /// that was proved.
    pub fn into_tokens(self, now: Timestamp, scopes: &[String], dpop_key: Option<Arc<Key>>) -> Tokens {
        Tokens {
            access_token: self.access_token,
            issued_at: now,
            expires_at: now + self.lifetime,
            refresh_token: self.refresh_token,
            id_token: self.id_token,
            scopes: self.scopes.unwrap_or_else(|| scopes.to_vec()),
            dpop_key,
            route_tokens: BTreeMap::new(),
        }
    }

    /// The access token alone, where no other is wanted.
    pub(super) fn into_access_token(self, now: Timestamp, scopes: &[String]) -> AccessToken {
        AccessToken {
            value: self.access_token,
            issued_at: now,
            expires_at: now + self.lifetime,
            scopes: self.scopes.unwrap_or_else(|| scopes.to_vec()),
        }
    }
}

impl From<TokenError> for RedeemError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::InvalidGrant => Self::InvalidGrant,
            TokenError::NonceRequired => Self::Refused { error: USE_DPOP_NONCE.to_owned() },
            TokenError::Refused { error } => Self::Refused { error },
            TokenError::Unavailable(unavailable) => Self::Unavailable(unavailable),
            TokenError::Malformed(fault) => Self::TokenAnswer(fault),
        }
    }
}

impl From<SignatureError> for RedeemError {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::Unavailable(unavailable) => Self::Unavailable(unavailable),
            SignatureError::Fault(fault) => Self::IdToken(fault.into()),
        }
    }
}

impl From<TokenError> for RefreshError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::InvalidGrant => Self::InvalidGrant,
            TokenError::NonceRequired => Self::NonceRequired,
            TokenError::Refused { error } => Self::Refused { error },
            TokenError::Unavailable(unavailable)
                if matches!(unavailable.fault(), CallFault::NotSent(_) | CallFault::NotSigned) =>
            {
                Self::NotSent(unavailable)
            }
            // Whatever is not known to be unsent may have been processed.
            TokenError::Unavailable(unavailable) => Self::Ambiguous(unavailable),
            TokenError::Malformed(fault) => Self::Ambiguous(CallFault::from(fault).into()),
        }
    }
}

/// An answer that was given, and makes no sense: the refresh token may be used up.
fn garbage(fault: IdTokenFault) -> RefreshError {
    RefreshError::Ambiguous(CallFault::from(fault).into())
}

/// R33: `expires_in`, a positive number or a string of one.
fn lifetime(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let (shortest, longest) = LIFETIME_BOUNDS;
    seconds
        .filter(|seconds: &f64| seconds.is_finite() && *seconds > 0.0)
        .map_or(DEFAULT_LIFETIME, |seconds| Duration::from_secs_f64(seconds.clamp(shortest, longest)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: &Value) -> Result<TokenAnswer, TokenFault> {
        answer(change, Binding::Unbound)
    }

    fn answer(change: &Value, binding: Binding) -> Result<TokenAnswer, TokenFault> {
        let mut body = json!({"access_token": "a", "token_type": "Bearer"});
        let body = body.as_object_mut().unwrap();
        body.extend(change.as_object().unwrap().clone());
        TokenAnswer::new(body.clone(), binding)
    }

    #[test]
    fn r33_expires_in_is_honoured_where_positive_and_bounded_otherwise() {
        let year = 365 * 24 * 60 * 60;
        for (given, seconds) in [
            (json!(300), 300),
            (json!(1.5e2), 150),
            (json!("3600"), 3600),
            (json!(0.2), 1),
            (json!(1e300), year),
            (json!(u64::MAX), year),
            (json!(0), 60),
            (json!(-5), 60),
            (json!("-5"), 60),
            (json!("soon"), 60),
            (json!("inf"), 60),
            (json!("NaN"), 60),
            (json!(""), 60),
            (json!(null), 60),
            (json!(true), 60),
            (json!([300]), 60),
        ] {
            let lifetime = read(&json!({"expires_in": given})).map(|answer| answer.lifetime).ok();
            assert_eq!(lifetime, Some(Duration::from_secs(seconds)), "{given}");
        }
        assert_eq!(read(&json!({})).map(|answer| answer.lifetime).ok(), Some(DEFAULT_LIFETIME));
    }

    #[test]
    fn r33_token_type_is_bearer_in_any_case_and_nothing_else() {
        for good in ["Bearer", "bearer", "BEARER"] {
            assert!(read(&json!({"token_type": good})).is_ok(), "{good}");
        }
        for bad in [json!("DPoP"), json!("mac"), json!(""), json!(null), json!(1)] {
            assert_eq!(read(&json!({"token_type": bad})).err(), Some(TokenFault::TokenType), "{bad}");
        }
    }

    #[test]
    fn rfc9449_token_type_is_dpop_where_a_proof_was_sent_and_bearer_is_a_downgrade() {
        for good in ["DPoP", "dpop", "DPOP"] {
            assert!(answer(&json!({"token_type": good}), Binding::Required).is_ok(), "{good}");
        }
        for bad in [json!("Bearer"), json!("mac"), json!(""), json!(null), json!(1)] {
            let refused = answer(&json!({"token_type": bad}), Binding::Required).err();
            assert_eq!(refused, Some(TokenFault::NotBound), "{bad}");
        }
    }

    #[test]
    fn a_session_without_a_key_takes_either_kind_and_nothing_else() {
        for (kind, is_bound) in [("DPoP", true), ("Bearer", false)] {
            let answer = answer(&json!({"token_type": kind}), Binding::Offered);
            assert_eq!(answer.map(|answer| answer.is_bound).ok(), Some(is_bound), "{kind}");
        }
        let refused = answer(&json!({"token_type": "mac"}), Binding::Offered).err();
        assert_eq!(refused, Some(TokenFault::TokenType));
    }

    #[test]
    fn an_access_token_that_cannot_be_sent_is_refused() {
        for bad in [json!(""), json!(null), json!(1), json!("a b"), json!("a\r\nx: y"), json!("ü")] {
            assert_eq!(read(&json!({"access_token": bad})).err(), Some(TokenFault::AccessToken), "{bad}");
        }
    }

    #[test]
    fn an_empty_or_odd_refresh_token_counts_as_none() {
        for odd in [json!(""), json!(null), json!(7)] {
            assert!(read(&json!({"refresh_token": odd})).unwrap().refresh_token.is_none(), "{odd}");
        }
    }
}
