//! Why a request was refused: the one map from each module's errors to a status.
//!
//! Every failure has two messages: a fixed text for the outside, chosen here, and a cause chain for the
//! log. Nothing that an issuer or an upstream sent ever becomes part of the outside's text, and of what a client sent
//! only a host that has the form of one.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::oidc::{
    AuthorizationError, DeviceAuthorizationError, IssuerUnavailable, RedeemError, ResponseError,
    ResponseIssuerError,
};
use crate::pages::Language;
use crate::proxy::ForwardError;
use crate::refresh;
use crate::session::{cookie, store};

mod login_failure;
mod reason;

pub use login_failure::LoginFailure;
pub use reason::Reason;

/// What kind of refusal it is: the `CODE` of `urn:cloakroom:CODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// There is no session.
    Unauthenticated,
    /// This request found a live session, and it had to be ended.
    SessionEnded,
    /// The user is to prove again, or better, who they are (RFC 9470).
    InsufficientUserAuthentication,
    /// Another site may have made the request.
    Csrf,
    /// The session does not suffice.
    Forbidden,
    /// The request makes no sense.
    BadRequest,
    /// A login did not come to its end.
    LoginFailed,
    /// Nothing is here.
    NotFound,
    /// Something is here, but not for this method.
    MethodNotAllowed,
    /// No app answers to this host (RFC 9110 §15.5.20).
    Misdirected,
    /// The body is larger than the gateway lets through.
    TooLarge,
    /// A rate limit is used up (RFC 6585 §4).
    RateLimited,
    /// The session store does not answer.
    StoreUnavailable,
    /// The issuer does not answer.
    IssuerUnavailable,
    /// The upstream does not answer, or not in HTTP.
    UpstreamUnavailable,
    /// The upstream takes too long.
    UpstreamTimeout,
    /// The gateway has too much to do.
    Overloaded,
    /// A fault of the gateway's own.
    Internal,
}

/// A request that is not served, and what the client is told.
#[derive(Debug)]
pub struct Refusal {
    /// Why, for the outside.
    pub reason: Reason,
    /// What more may be said of this very request, in a sentence.
    particular: Option<String>,
    /// For the log.
    pub cause: Option<Box<dyn Error + Send + Sync>>,
    /// Why a login failed, for the audit trail.
    login_failure: Option<LoginFailure>,
    /// Where a login begins, where one would help.
    pub login_url: Option<String>,
    /// What the login that it is about was to be in; as the browser prefers where absent.
    pub language: Option<Language>,
    /// Fields that go out with the answer, such as a cleared cookie.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Code {
    /// The name in `urn:cloakroom:NAME`; `None` for what only has a status.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Unauthenticated => "unauthenticated",
            Self::SessionEnded => "session-ended",
            Self::InsufficientUserAuthentication => "insufficient-user-authentication",
            Self::Csrf => "csrf",
            Self::Forbidden => "forbidden",
            Self::BadRequest | Self::MethodNotAllowed => "bad-request",
            Self::LoginFailed => "login-failed",
            Self::NotFound => "not-found",
            Self::Misdirected => "misdirected",
            Self::TooLarge => "too-large",
            Self::RateLimited => "rate-limited",
            Self::StoreUnavailable => "store-unavailable",
            Self::IssuerUnavailable => "issuer-unavailable",
            Self::UpstreamUnavailable => "upstream-unavailable",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::Overloaded => "overloaded",
            Self::Internal => return None,
        })
    }

    /// The status it is sent with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated | Self::SessionEnded | Self::InsufficientUserAuthentication => {
                StatusCode::UNAUTHORIZED
            }
            Self::Csrf | Self::Forbidden => StatusCode::FORBIDDEN,
            Self::BadRequest | Self::LoginFailed => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::StoreUnavailable | Self::IssuerUnavailable | Self::Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamUnavailable => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A short title, in problem documents.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Unauthenticated => "You are not logged in",
            Self::SessionEnded => "Your session has ended",
            Self::InsufficientUserAuthentication => "This needs another login",
            Self::Csrf => "This request could not be shown to be the app's own",
            Self::Forbidden => "You may not do this",
            Self::BadRequest => "This request makes no sense",
            Self::LoginFailed => "The login did not succeed",
            Self::NotFound => "There is nothing here",
            Self::MethodNotAllowed => "This method is not allowed here",
            Self::Misdirected => "No app answers to this host name",
            Self::TooLarge => "The request is too large",
            Self::RateLimited => "You have made too many requests",
            Self::StoreUnavailable => "Sessions cannot be read at the moment",
            Self::IssuerUnavailable => "The login service does not answer",
            Self::UpstreamUnavailable => "The service behind this address does not answer",
            Self::UpstreamTimeout => "The service behind this address takes too long",
            Self::Overloaded => "Too many requests at the moment",
            Self::Internal => "Something went wrong here",
        }
    }
}

impl Refusal {
    /// A refusal without a cause of its own.
    pub fn new(reason: Reason) -> Self {
        let refusal = Self {
            reason,
            particular: None,
            cause: None,
            login_failure: None,
            login_url: None,
            language: None,
            headers: Vec::new(),
        };
        // RFC 9110 §10.2.3: a client that is told when to come back does not hammer.
        if refusal.code().status() == StatusCode::SERVICE_UNAVAILABLE {
            return refusal.with_header(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        refusal
    }

    /// A refusal of a method where only `allowed` are answered, as `Allow` lists them (RFC 9110 §15.5.6).
    pub fn method_not_allowed(allowed: &str) -> Self {
        let refusal = Self::new(Reason::Method).saying(format!("Answered are {allowed}."));
        match HeaderValue::from_str(allowed) {
            Ok(allowed) => refusal.with_header(header::ALLOW, allowed),
            Err(_) => refusal,
        }
    }

    /// What kind it is.
    pub const fn code(&self) -> Code {
        self.reason.code()
    }

    /// For the outside: what happened, why, and what to change.
    pub fn detail(&self) -> Cow<'static, str> {
        match &self.particular {
            Some(particular) => format!("{particular} {}", self.reason.detail()).into(),
            None => self.reason.detail().into(),
        }
    }

    /// Says first what may be said of this very request: nothing secret, nothing that an issuer or an upstream said, and
    /// of what the client sent only what was found to be harmless.
    #[must_use]
    pub fn saying(mut self, particular: String) -> Self {
        self.particular = Some(particular);
        self
    }

    /// Answers in the language that the login was to be in.
    #[must_use]
    pub fn in_language(mut self, language: Option<Language>) -> Self {
        self.language = language.or(self.language);
        self
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Why, in a word for the audit trail.
    pub fn audited_reason(&self) -> &'static str {
        match self.login_failure {
            Some(failure) => failure.as_str(),
            None => self.code().name().unwrap_or("internal"),
        }
    }

    /// A login failed.
    fn login_failed(failure: LoginFailure, reason: Reason) -> Self {
        Self { login_failure: Some(failure), ..Self::new(reason) }
    }

    /// Says where a login begins.
    #[must_use]
    pub fn with_login_url(mut self, login_url: impl Into<String>) -> Self {
        self.login_url = Some(login_url.into());
        self
    }

    /// Sends a field along.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says when to come back: in whole seconds, and one at least (RFC 9110 §10.2.3).
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1).to_string();
        if let Ok(value) = HeaderValue::from_str(&seconds) {
            self.headers.retain(|(name, _)| name != header::RETRY_AFTER);
            self.headers.push((header::RETRY_AFTER, value));
        }
        self
    }
}

impl From<store::Unavailable> for Refusal {
    fn from(error: store::Unavailable) -> Self {
        Self::new(Reason::StoreAway).because(error)
    }
}

impl From<cookie::Conflicting> for Refusal {
    fn from(_: cookie::Conflicting) -> Self {
        Self::new(Reason::CookiesConflict)
    }
}

impl From<IssuerUnavailable> for Refusal {
    fn from(error: IssuerUnavailable) -> Self {
        let refusal = Self::new(Reason::IssuerAway);
        match error.retry_after() {
            Some(wait) => refusal.with_retry_after(wait).because(error),
            None => refusal.because(error),
        }
    }
}

impl From<AuthorizationError> for Refusal {
    fn from(error: AuthorizationError) -> Self {
        let (failure, reason) = match &error {
            AuthorizationError::Unavailable(unavailable) => return unavailable.clone().into(),
            AuthorizationError::Refused { .. } => (LoginFailure::RequestRefused, Reason::LoginRefused),
            AuthorizationError::PushedAnswer(_) => (LoginFailure::UnusableResponse, Reason::LoginResponse),
        };
        Self::login_failed(failure, reason).because(error)
    }
}

impl From<ResponseError> for Refusal {
    fn from(error: ResponseError) -> Self {
        let (failure, reason) = match &error {
            ResponseError::Unavailable(unavailable)
            | ResponseError::Issuer(ResponseIssuerError::Unavailable(unavailable)) => {
                return unavailable.clone().into();
            }
            ResponseError::Issuer(ResponseIssuerError::Mismatch | ResponseIssuerError::Missing) => {
                (LoginFailure::IssuerMismatch, Reason::LoginIssuerMismatch)
            }
            ResponseError::Mode(_)
            | ResponseError::Tokens
            | ResponseError::Jwt(_)
            | ResponseError::Type
            | ResponseError::Malformed => (LoginFailure::UnusableResponse, Reason::LoginResponse),
            ResponseError::Denied { error } => (LoginFailure::Denied, issuer_said_no(error)),
        };
        Self::login_failed(failure, reason).because(error)
    }
}

impl From<RedeemError> for Refusal {
    fn from(error: RedeemError) -> Self {
        let (failure, reason) = match &error {
            RedeemError::Unavailable(unavailable) => return unavailable.clone().into(),
            RedeemError::InvalidGrant => (LoginFailure::CodeRefused, Reason::LoginCodeRefused),
            RedeemError::Refused { .. } => (LoginFailure::RequestRefused, Reason::LoginClientRefused),
            RedeemError::TokenAnswer(_) => (LoginFailure::UnusableResponse, Reason::LoginTokens),
            RedeemError::IdToken(_) => (LoginFailure::IdTokenRefused, Reason::LoginIdToken),
            RedeemError::Userinfo(_) => (LoginFailure::UserinfoRefused, Reason::LoginUserinfo),
        };
        Self::login_failed(failure, reason).because(error)
    }
}

impl From<DeviceAuthorizationError> for Refusal {
    fn from(error: DeviceAuthorizationError) -> Self {
        match error {
            DeviceAuthorizationError::Unavailable(unavailable) => unavailable.into(),
            DeviceAuthorizationError::NotOffered
            | DeviceAuthorizationError::Refused { .. }
            | DeviceAuthorizationError::Malformed(_) => {
                Self::login_failed(LoginFailure::RequestRefused, Reason::LoginOnDevice).because(error)
            }
        }
    }
}

impl From<refresh::Failure> for Refusal {
    fn from(failure: refresh::Failure) -> Self {
        match failure {
            refresh::Failure::Ended => Self::new(Reason::IssuerEndedSession),
            refresh::Failure::Gone => Self::new(Reason::NoSession),
            refresh::Failure::Issuer { retry_after } => {
                Self::new(Reason::RefreshUnavailable).with_retry_after(retry_after)
            }
            refresh::Failure::Refused => Self::new(Reason::TokenRefused),
            refresh::Failure::Store(unavailable) => unavailable.into(),
        }
    }
}

impl From<ForwardError> for Refusal {
    fn from(error: ForwardError) -> Self {
        let reason = match &error {
            ForwardError::Connect(_) => Reason::UpstreamUnreachable,
            ForwardError::Exchange(_) => Reason::UpstreamBrokeOff,
            ForwardError::Framing => Reason::UpstreamFraming,
            ForwardError::Upgrade => Reason::UpstreamUpgrade,
            ForwardError::Timeout => Reason::UpstreamSlow,
            ForwardError::BodyTooLarge => Reason::BodyTooLarge,
            ForwardError::RequestBody(_) => Reason::BodyBroken,
            ForwardError::Address(_) => Reason::PathNotForwardable,
        };
        Self::new(reason).because(error)
    }
}

/// The issuer's own words never reach the page (R20); its registered codes choose ours.
fn issuer_said_no(error: &str) -> Reason {
    match error {
        "access_denied" => Reason::LoginDenied,
        "login_required" | "interaction_required" | "consent_required" | "account_selection_required" => {
            Reason::LoginNeedsUser
        }
        "temporarily_unavailable" | "server_error" => Reason::LoginIssuerTrouble,
        _ => Reason::LoginRefused,
    }
}
