//! What a test may change about the issuer at any time.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::CLIENT_SECRET;
use super::dpop::Dpop;
use super::keys::{Algorithm, Draft};

/// Changes an ID token before it is signed.
pub type Tamper = Box<dyn Fn(&mut Draft) + Send>;

/// Changes the keys before they are published.
pub type Publish = Box<dyn Fn(&mut Vec<Value>) + Send>;

/// How the issuer behaves; change it at any time with [`super::Issuer::behave`].
pub struct Behaviour {
    /// Claims of whoever logs in; `sub` is a must.
    pub user: Value,
    /// Answered instead of a code, such as `access_denied`.
    pub authorization_error: Option<String>,
    /// Whether authorization requests can be pushed (RFC 9126).
    pub takes_pushed_requests: bool,
    /// The public JWK that each authorization request is signed for; signed ones are refused where there is none.
    pub request_key: Option<Value>,
    /// Changes each signed authorization response (JARM) before it is signed.
    pub tamper_response: Option<Tamper>,
    /// Whether authorization responses carry `iss`.
    pub sends_iss: bool,
    /// The client's secret.
    pub client_secret: String,
    /// Whether a client without a secret is let in.
    pub public_client: bool,
    /// The public JWK of a client that proves itself by JWTs, and whom they must be for; by nothing else then.
    pub client_key: Option<(Value, String)>,
    /// Signs ID tokens.
    pub algorithm: Algorithm,
    /// `expires_in` of token answers, in any shape. A positive whole number is the token's real life too.
    pub expires_in: Option<Value>,
    /// `token_type` of token answers to requests without a proof of possession.
    pub token_type: Value,
    /// What is made of proofs of possession.
    pub dpop: Dpop,
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
    /// `Date` of each answer, where the machine's clock is not to be told.
    pub date: Option<&'static str>,
    /// How long the token endpoint keeps its answer back. A gate, [`super::Issuer::hold_token_answers`], is better.
    pub token_delay: Duration,
    /// `expires_in` and `scope` of tokens for a route's upstream, as the two above.
    pub route_expires_in: Option<Value>,
    pub route_scope: Option<String>,
    /// `issued_token_type` of answers to an exchange (RFC 8693 §2.2.1).
    pub issued_token_type: Value,
    /// The `error` by which tokens for a resource or an audience are refused.
    pub refuses_targets: Option<&'static str>,
    /// Put over the answer to an introspection.
    pub introspection: Map<String, Value>,
    /// Put over the answer that begins a login on another device.
    pub device_authorization: Map<String, Value>,
    /// How the user of such a login proves who they are.
    pub device_acr: Option<String>,
    /// Put over the metadata; `null` takes a member out.
    pub metadata: Map<String, Value>,
    /// The same for the metadata of it as a transmitter of security events.
    pub ssf_configuration: Map<String, Value>,
    /// Changes each ID token before it is signed.
    pub tamper: Option<Tamper>,
    /// Changes the keys before they are published.
    pub publish: Option<Publish>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            user: json!({"sub": "alice", "name": "Alice", "email": "alice@example.com"}),
            authorization_error: None,
            takes_pushed_requests: false,
            request_key: None,
            tamper_response: None,
            sends_iss: true,
            client_secret: CLIENT_SECRET.to_owned(),
            public_client: false,
            client_key: None,
            algorithm: Algorithm::Es256,
            expires_in: Some(json!(300)),
            token_type: json!("Bearer"),
            dpop: Dpop::default(),
            scope: None,
            issues_refresh_tokens: true,
            rotates: true,
            refreshes_id_token: true,
            keeps_connections: true,
            date: None,
            token_delay: Duration::ZERO,
            route_expires_in: Some(json!(300)),
            route_scope: None,
            issued_token_type: json!("urn:ietf:params:oauth:token-type:access_token"),
            refuses_targets: None,
            introspection: Map::new(),
            device_authorization: Map::new(),
            device_acr: None,
            metadata: Map::new(),
            ssf_configuration: Map::new(),
            tamper: None,
            publish: None,
        }
    }
}
