//! Which token goes upstream with the requests of a route, and what is asked of the issuer for it.

use std::sync::Arc;

use serde_json::Value;

/// How many different tokens each session of an app may have beside its access token: its record holds them all.
pub const MOST_ROUTE_TOKENS: usize = 16;

/// What is sent upstream as `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The session's access token.
    AccessToken,
    /// Another token of the session's, for this upstream.
    OfSession(Arc<RouteToken>),
    /// A token of the client's own, whoever makes the request (RFC 6749 §4.4).
    ClientCredentials(TokenTarget),
    /// Nothing.
    None,
}

/// A token that a session has beside its access token, for some upstreams.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteToken {
    /// How it is had.
    pub grant: RouteGrant,
    /// What for.
    pub target: TokenTarget,
}

/// How a session gets a token for an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteGrant {
    /// The access token is exchanged for it (RFC 8693).
    TokenExchange,
    /// The refresh token is redeemed for it, with a `resource` (RFC 8707 §2.2).
    RefreshToken,
}

/// What a token is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenTarget {
    /// `scope` (RFC 6749 §3.3); not sent where empty.
    pub scopes: Vec<String>,
    /// `resource`, an absolute URI (RFC 8707 §2).
    pub resource: Option<String>,
    /// `audience`, the logical name of a service (RFC 8693 §2.1).
    pub audience: Option<String>,
}

/// A claim that a route asks for: one of these values, by itself or in an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    /// Its name.
    pub name: String,
    /// Texts, numbers and truth values. Never empty.
    pub values: Vec<Value>,
}

impl Token {
    /// Which token of the session's it is; `None` for the access token, and where it is none of the session's.
    pub fn of_session(&self) -> Option<&Arc<RouteToken>> {
        match self {
            Self::OfSession(token) => Some(token),
            Self::AccessToken | Self::ClientCredentials(_) | Self::None => None,
        }
    }
}

impl RouteGrant {
    /// `grant_type` (RFC 6749 §6, RFC 8693 §2.1).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenExchange => "urn:ietf:params:oauth:grant-type:token-exchange",
            Self::RefreshToken => "refresh_token",
        }
    }

    /// The grant of this `grant_type`; `None` where it is none of these.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::TokenExchange, Self::RefreshToken].into_iter().find(|grant| grant.as_str() == name)
    }
}

impl RequiredClaim {
    /// Whether a claim of this value meets it.
    pub fn is_met_by(&self, claim: Option<&Value>) -> bool {
        match claim {
            Some(Value::Array(values)) => values.iter().any(|value| self.values.contains(value)),
            Some(value) => self.values.contains(value),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_one_of_the_values_or_an_array_that_holds_one() {
        let claim =
            RequiredClaim { name: "groups".to_owned(), values: vec![json!("staff"), json!(7), json!(true)] };
        for met in [json!("staff"), json!(["x", "staff"]), json!(7), json!(true), json!([true])] {
            assert!(claim.is_met_by(Some(&met)), "{met}");
        }
        for missed in [
            json!("staff "),
            json!("Staff"),
            json!("x staff"),
            json!("7"),
            json!(["x"]),
            json!([]),
            json!([["staff"]]),
            json!({"staff": "staff"}),
            json!(null),
        ] {
            assert!(!claim.is_met_by(Some(&missed)), "{missed}");
        }
        assert!(!claim.is_met_by(None));
    }
}
