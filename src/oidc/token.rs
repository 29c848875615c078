//! The token endpoint: codes (RFC 6749 §4.1.3) and refresh tokens (§6) are redeemed here.

use std::time::Duration;

use ::http::StatusCode;
use serde_json::{Map, Value};

use super::discovery::Metadata;
use super::error::{CallFault, IdTokenFault, IssuerUnavailable, RedeemError, RefreshError, TokenFault};
use super::id_token::IdToken;
use super::jwt::SignatureError;
use super::{Client, Expected};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::telemetry::chain;
use crate::tokens::{Identity, Tokens};

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
}

/// What the token endpoint did with a request.
enum TokenError {
    InvalidGrant,
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
        let answer = self.request_tokens(&metadata, &parameters).await?;
        let now = self.clock.now();
        let id_token = answer.id_token.as_ref().ok_or(IdTokenFault::Missing)?;
        let id_token = IdToken::read(id_token, &metadata.id_token_algorithms)?;
        self.check_signature(&metadata, id_token.jwt()).await?;
        id_token.check_parties(self.issuer(), &self.oidc.client_id).map_err(IdTokenFault::from)?;
        id_token.check_times(now).map_err(IdTokenFault::from)?;
        id_token.check_login(expected, now)?;
        id_token.check_access_token(&answer.access_token)?;
        let subject = id_token.subject()?;
        let userinfo = if self.oidc.userinfo {
            self.userinfo(&metadata, &answer.access_token, subject).await?
        } else {
            Map::new()
        };
        let identity = id_token.into_identity(userinfo)?;
        Ok((answer.into_tokens(now, &self.oidc.scopes), identity))
    }

    /// Redeems the refresh token. What the answer omits is kept: refresh token, ID token, scope.
    ///
    /// # Errors
    /// Each says whether the session may go on, and whether the refresh token may have been used up.
    pub async fn refresh(&self, tokens: &Tokens, identity: &Identity) -> Result<Tokens, RefreshError> {
        // Nothing to redeem is the same end as a dead refresh token.
        let refresh_token = tokens.refresh_token.as_ref().ok_or(RefreshError::InvalidGrant)?;
        let metadata = self.discovery.metadata().await.map_err(RefreshError::NotSent)?;
        let parameters = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        let answer = self.request_tokens(&metadata, &parameters).await?;
        let mut renewed = answer.into_tokens(self.clock.now(), &tokens.scopes);
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
        let algorithms = &metadata.id_token_algorithms;
        let token = IdToken::read(id_token, algorithms).map_err(garbage)?;
        let same_nonce = token.nonce().is_none_or(|nonce| {
            let before = before.id_token.as_ref().and_then(|before| IdToken::read(before, algorithms).ok());
            before.is_none_or(|before| before.nonce().is_none_or(|expected| expected == nonce))
        });
        let same_login = token.check_parties(&identity.issuer, &self.oidc.client_id).is_ok()
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

    async fn request_tokens(
        &self,
        metadata: &Metadata,
        parameters: &[(&str, &str)],
    ) -> Result<TokenAnswer, TokenError> {
        let (form, authorization) = self.authentication.sign(parameters);
        let answer = self.http.post(&metadata.token_endpoint, form, authorization).await;
        let answer = answer.map_err(IssuerUnavailable::from).map_err(TokenError::Unavailable)?;
        if answer.status == StatusCode::OK {
            let body = answer.json_object().ok_or(TokenFault::NotJson);
            return body.and_then(TokenAnswer::new).map_err(TokenError::Malformed);
        }
        if !answer.status.is_client_error() || answer.is_inconclusive() {
            return Err(TokenError::Unavailable(answer.unavailable()));
        }
        match answer.error_code().as_deref() {
            Some("invalid_grant") => Err(TokenError::InvalidGrant),
            // Codes of the authorization endpoint that some issuers send here for a trouble of their own.
            Some("temporarily_unavailable" | "server_error") => {
                Err(TokenError::Unavailable(answer.unavailable()))
            }
            _ => Err(TokenError::Refused { error: answer.refusal() }),
        }
    }
}

impl TokenAnswer {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// Where it brings no access token that can be used.
    pub fn new(mut body: Map<String, Value>) -> Result<Self, TokenFault> {
        let mut take = |name: &str| match body.remove(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        let access_token =
            take("access_token").filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
        let token_type = take("token_type");
        let refresh_token = take("refresh_token").map(Secret::new);
        let id_token = take("id_token").map(Secret::new);
        let scopes = take("scope").map(|scope| scope.split_ascii_whitespace().map(str::to_owned).collect());
        let answer = Self {
            access_token: Secret::new(access_token.ok_or(TokenFault::AccessToken)?),
            lifetime: lifetime(body.get("expires_in")),
            refresh_token,
            id_token,
            scopes,
        };
        match token_type {
            Some(kind) if kind.eq_ignore_ascii_case("bearer") => Ok(answer),
            _ => Err(TokenFault::TokenType),
        }
    }

    /// A scope that is not named is `scopes`, as asked for or as before (RFC 6749 §5.1, §6).
    pub fn into_tokens(self, now: Timestamp, scopes: &[String]) -> Tokens {
        Tokens {
            access_token: self.access_token,
            issued_at: now,
            expires_at: now + self.lifetime,
            refresh_token: self.refresh_token,
            id_token: self.id_token,
            scopes: self.scopes.unwrap_or_else(|| scopes.to_vec()),
        }
    }
}

impl From<TokenError> for RedeemError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::InvalidGrant => Self::InvalidGrant,
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
            TokenError::Refused { error } => Self::Refused { error },
            TokenError::Unavailable(unavailable) if matches!(unavailable.fault(), CallFault::NotSent(_)) => {
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
        let mut body = json!({"access_token": "a", "token_type": "Bearer"});
        let body = body.as_object_mut().unwrap();
        body.extend(change.as_object().unwrap().clone());
        TokenAnswer::new(body.clone())
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
