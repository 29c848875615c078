//! What a login yields: the tokens and whose they are, and how fresh an access token is.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::secret::Secret;

/// The tokens of one session, as last issued (RFC 6749 §5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Sent upstream, and nowhere else.
    pub access_token: Secret,
    /// When the access token was received.
    pub issued_at: Timestamp,
    /// When the access token dies.
    pub expires_at: Timestamp,
    /// Redeemed for new tokens; without one the session ends with its access token.
    pub refresh_token: Option<Secret>,
    /// Kept as the `id_token_hint` of a logout.
    pub id_token: Option<Secret>,
    /// What was granted, which may be less than what was asked for (RFC 6749 §3.3).
    pub scopes: Vec<String>,
}

/// What may be done with an access token at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Use it.
    Fresh,
    /// Use it, and have it replaced meanwhile.
    Stale,
    /// It must be replaced first.
    Expired,
}

impl Tokens {
    /// How fresh the access token is. It counts as stale once less than `refresh_before_expiry` is
    /// left, but never for more than the last third of its life: otherwise a short-lived token would be
    /// refreshed on each request.
    pub fn freshness(&self, now: Timestamp, refresh_before_expiry: Duration) -> Freshness {
        let third_of_life = self.expires_at.since(self.issued_at) / 3;
        if now >= self.expires_at {
            Freshness::Expired
        } else if self.expires_at.since(now) < refresh_before_expiry.min(third_of_life) {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }
}

/// Who logged in, by the word of a verified ID token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `iss`
    pub issuer: String,
    /// `sub`
    pub subject: String,
    /// `sid`: the session at the issuer, where it names one.
    pub sid: Option<String>,
    /// The claims shown to the app: those about the user, without the protocol's own.
    pub claims: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn living(seconds: u64) -> Tokens {
        Tokens {
            access_token: Secret::new("access"),
            issued_at: Timestamp::from_secs(1000),
            expires_at: Timestamp::from_secs(1000 + seconds),
            refresh_token: None,
            id_token: None,
            scopes: Vec::new(),
        }
    }

    #[test]
    fn a_token_is_stale_within_the_margin_and_expired_at_its_end() {
        let tokens = living(300);
        let at = |second: u64| tokens.freshness(Timestamp::from_secs(1000 + second), Duration::from_secs(60));
        assert_eq!(at(240), Freshness::Fresh);
        assert_eq!(at(241), Freshness::Stale);
        assert_eq!(at(299), Freshness::Stale);
        assert_eq!(at(300), Freshness::Expired);
    }

    #[test]
    fn the_margin_is_at_most_a_third_of_the_tokens_life() {
        let tokens = living(30);
        let at = |second: u64| tokens.freshness(Timestamp::from_secs(1000 + second), Duration::from_secs(60));
        assert_eq!(at(20), Freshness::Fresh);
        assert_eq!(at(21), Freshness::Stale);
    }
}
