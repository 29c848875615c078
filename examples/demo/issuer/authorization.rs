//! What an application asks for when it sends a user to the issuer (OpenID Connect Core §3.1.2.1).

use std::time::Duration;

use cloakroom::clock::Timestamp;

use crate::issuer::Client;
use crate::web::Parameters;

/// What can be asked for.
pub const SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// An authorization request that may be granted.
#[derive(Debug)]
pub struct Authorization {
    /// The client's own, checked.
    pub redirect_uri: String,
    /// Goes back as it came.
    pub state: Option<String>,
    /// For the ID token.
    pub nonce: Option<String>,
    /// What is known of what was asked for.
    pub scope: String,
    /// PKCE's, of method S256.
    pub challenge: String,
    prompt: Option<String>,
    max_age: Option<Duration>,
}

/// An authorization request that may not.
#[derive(Debug)]
pub enum Refusal {
    /// Who asks is not known for certain: the user is told, and sent nowhere (RFC 6749 §4.1.2.1).
    Page(&'static str),
    /// The application is told.
    Redirect {
        /// The client's own, checked.
        redirect_uri: String,
        /// Goes back as it came.
        state: Option<String>,
        /// `error`
        error: &'static str,
        /// `error_description`
        description: &'static str,
    },
}

impl Authorization {
    /// Checks a request.
    pub fn parse(query: &str, client: &Client) -> Result<Self, Refusal> {
        let Some(parameters) = Parameters::parse(query.as_bytes()) else {
            return Err(Refusal::Page("A parameter is repeated."));
        };
        let get = |name| parameters.get(name);
        if get("client_id") != Some(client.id) {
            return Err(Refusal::Page("This client_id is not registered."));
        }
        if get("redirect_uri") != Some(&client.redirect_uri) {
            return Err(Refusal::Page("This redirect_uri is not registered."));
        }
        let challenge = get("code_challenge").filter(|_| get("code_challenge_method") == Some("S256"));
        let asked: Vec<&str> = get("scope").unwrap_or_default().split(' ').collect();
        let wanted = Self {
            redirect_uri: client.redirect_uri.clone(),
            state: get("state").map(str::to_owned),
            nonce: get("nonce").map(str::to_owned),
            scope: SCOPES.into_iter().filter(|scope| asked.contains(scope)).collect::<Vec<_>>().join(" "),
            challenge: challenge.unwrap_or_default().to_owned(),
            prompt: get("prompt").map(str::to_owned),
            max_age: get("max_age").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
        };
        if get("response_type") != Some("code") {
            return Err(wanted.refusal("unsupported_response_type", "only the code flow is offered"));
        }
        if challenge.is_none() {
            return Err(wanted.refusal("invalid_request", "PKCE with S256 is required"));
        }
        if !asked.contains(&"openid") {
            return Err(wanted.refusal("invalid_scope", "the scope openid is required"));
        }
        Ok(wanted)
    }

    /// Whether a login of then is good enough now.
    pub fn is_content_with(&self, logged_in_at: Timestamp, now: Timestamp) -> bool {
        let asks_anew = matches!(self.prompt.as_deref(), Some("login" | "select_account"));
        !asks_anew && self.max_age.is_none_or(|max_age| now.since(logged_in_at) <= max_age)
    }

    /// Whether no page may be shown.
    pub fn must_be_silent(&self) -> bool {
        self.prompt.as_deref() == Some("none")
    }

    /// The answer where a page would be needed and none may be shown.
    pub fn login_required(&self) -> Refusal {
        self.refusal("login_required", "nobody is logged in")
    }

    fn refusal(&self, error: &'static str, description: &'static str) -> Refusal {
        Refusal::Redirect {
            redirect_uri: self.redirect_uri.clone(),
            state: self.state.clone(),
            error,
            description,
        }
    }
}
