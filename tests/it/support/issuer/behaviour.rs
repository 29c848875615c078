//! What a test may change about the issuer at any time.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::keys::{Algorithm, Draft};

/// Changes an ID token before it is signed.
pub type Tamper = Box<dyn Fn(&mut Draft) + Send>;

/// How the issuer behaves; change it at any time with [`super::Issuer::behave`].
pub struct Behaviour {
    /// Claims of whoever logs in; `sub` is a must.
    pub user: Value,
    /// Answered instead of a code, such as `access_denied`.
    pub authorization_error: Option<String>,
    /// Whether authorization responses carry `iss`.
    pub sends_iss: bool,
    /// Whether a client without a secret is let in.
    pub public_client: bool,
    /// Signs ID tokens.
    pub algorithm: Algorithm,
    /// `expires_in` of token answers, in any shape. A positive whole number is the token's real life too.
    pub expires_in: Option<Value>,
    /// `token_type` of token answers.
    pub token_type: Value,
    /// `scope` of token answers.
    pub scope: Option<String>,
    /// Whether logins get a refresh token.
    pub issues_refresh_tokens: bool,
    /// Whether a refresh spends the refresh token and yields a new one.
    pub rotates: bool,
    /// Whether a refresh yields an ID token.
    pub refreshes_id_token: bool,
    /// Whether connections stay open after an answer.
    pub keeps_connections: bool,
    /// How long the token endpoint keeps its answer back. A gate, [`super::Issuer::hold_token_answers`], is better.
    pub token_delay: Duration,
    /// Put over the metadata; `null` takes a member out.
    pub metadata: Map<String, Value>,
    /// Changes each ID token before it is signed.
    pub tamper: Option<Tamper>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            user: json!({"sub": "alice", "name": "Alice", "email": "alice@example.com"}),
            authorization_error: None,
            sends_iss: true,
            public_client: false,
            algorithm: Algorithm::Es256,
            expires_in: Some(json!(300)),
            token_type: json!("Bearer"),
            scope: None,
            issues_refresh_tokens: true,
            rotates: true,
            refreshes_id_token: true,
            keeps_connections: true,
            token_delay: Duration::ZERO,
            metadata: Map::new(),
            tamper: None,
        }
    }
}
