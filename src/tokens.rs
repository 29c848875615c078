//! What a login yields: the tokens and whose they are, and how fresh an access token is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::config::{MOST_ROUTE_TOKENS, RouteGrant, RouteToken};
use crate::dpop::Key;
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
    /// What the access token is bound to, and the refresh token of a public client too (RFC 9449 §5). A bearer
    /// token has none.
    pub dpop_key: Option<Arc<Key>>,
    /// Further access tokens, for some upstreams each, by what was asked for.
    pub route_tokens: BTreeMap<Arc<RouteToken>, AccessToken>,
}

/// An access token by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Sent upstream, and nowhere else.
    pub value: Secret,
    /// When it was received.
    pub issued_at: Timestamp,
    /// When it dies.
    pub expires_at: Timestamp,
    /// What was granted.
    pub scopes: Vec<String>,
}

/// One of a session's access tokens, as it lies among the others.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// Sent upstream, and nowhere else.
    pub value: &'a Secret,
    /// When it was received.
    pub issued_at: Timestamp,
    /// When it dies.
    pub expires_at: Timestamp,
    /// What was granted.
    pub scopes: &'a [String],
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
    /// The session's own access token, or the one that is `wanted` in its place; `None` where that was never had.
    pub fn held(&self, wanted: Option<&RouteToken>) -> Option<Held<'_>> {
        match wanted {
            None => Some(Held {
                value: &self.access_token,
                issued_at: self.issued_at,
                expires_at: self.expires_at,
                scopes: &self.scopes,
            }),
            Some(wanted) => self.route_tokens.get(wanted).map(AccessToken::held),
        }
    }

    /// How fresh the access token is.
    pub fn freshness(&self, now: Timestamp, refresh_before_expiry: Duration) -> Freshness {
        freshness(self.issued_at, self.expires_at, now, refresh_before_expiry)
    }

    /// Puts a route's token in. There is room for as many as an app may have; what has died goes first, of the
    /// others the one that dies first.
    pub fn insert(&mut self, wanted: &Arc<RouteToken>, token: AccessToken) {
        let now = token.issued_at;
        self.route_tokens.retain(|_, other| now < other.expires_at);
        self.route_tokens.insert(Arc::clone(wanted), token);
        while self.route_tokens.len() > MOST_ROUTE_TOKENS {
            let others = self.route_tokens.iter().filter(|(key, _)| *key != wanted);
            let Some(first) =
                others.min_by_key(|(_, token)| token.expires_at).map(|(key, _)| Arc::clone(key))
            else {
                break;
            };
            self.route_tokens.remove(&first);
        }
    }

    /// What is left of the routes' tokens once the access token is another: what it was exchanged for goes with it. So
    /// do all where the key is another than before: they are bearer tokens, and would be sent as bound to it.
    #[must_use]
    pub fn not_exchanged(&self, dpop_key: Option<&Arc<Key>>) -> BTreeMap<Arc<RouteToken>, AccessToken> {
        let is_kept = |wanted: &RouteToken| {
            wanted.grant != RouteGrant::TokenExchange && self.dpop_key.as_ref() == dpop_key
        };
        let others = self.route_tokens.iter().filter(|(wanted, _)| is_kept(wanted));
        others.map(|(key, token)| (Arc::clone(key), token.clone())).collect()
    }
}

impl AccessToken {
    /// The same, borrowed.
    pub fn held(&self) -> Held<'_> {
        let Self { value, issued_at, expires_at, scopes } = self;
        Held { value, issued_at: *issued_at, expires_at: *expires_at, scopes }
    }
}

impl Held<'_> {
    /// How fresh it is.
    pub fn freshness(&self, now: Timestamp, refresh_before_expiry: Duration) -> Freshness {
        freshness(self.issued_at, self.expires_at, now, refresh_before_expiry)
    }
}

/// A token counts as stale once less than `refresh_before_expiry` is left, but never for more than the last
/// third of its life: otherwise a short-lived token would be refreshed on each request.
fn freshness(
    issued_at: Timestamp,
    expires_at: Timestamp,
    now: Timestamp,
    refresh_before_expiry: Duration,
) -> Freshness {
    let third_of_life = expires_at.since(issued_at) / 3;
    if now >= expires_at {
        Freshness::Expired
    } else if expires_at.since(now) < refresh_before_expiry.min(third_of_life) {
        Freshness::Stale
    } else {
        Freshness::Fresh
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
    use crate::config::TokenTarget;
    use crate::random::Random;

    fn living(seconds: u64) -> Tokens {
        Tokens {
            access_token: Secret::new("access"),
            issued_at: Timestamp::from_secs(1000),
            expires_at: Timestamp::from_secs(1000 + seconds),
            refresh_token: None,
            id_token: None,
            scopes: Vec::new(),
            dpop_key: None,
            route_tokens: BTreeMap::new(),
        }
    }

    fn wanted(grant: RouteGrant, audience: usize) -> Arc<RouteToken> {
        let target = TokenTarget { audience: Some(audience.to_string()), ..TokenTarget::default() };
        Arc::new(RouteToken { grant, target })
    }

    fn until(second: u64) -> AccessToken {
        let (issued_at, expires_at) = (Timestamp::from_secs(1000), Timestamp::from_secs(second));
        AccessToken { value: Secret::new("other"), issued_at, expires_at, scopes: Vec::new() }
    }

    #[test]
    fn the_tokens_of_routes_are_bounded_and_the_one_that_was_put_in_last_stays() {
        let mut tokens = living(300);
        tokens.insert(&wanted(RouteGrant::RefreshToken, 0), until(1100));
        for audience in 1..MOST_ROUTE_TOKENS {
            tokens.insert(&wanted(RouteGrant::RefreshToken, audience), until(1200));
        }
        assert_eq!(tokens.route_tokens.len(), MOST_ROUTE_TOKENS);
        let last = wanted(RouteGrant::TokenExchange, 99);
        tokens.insert(&last, until(1010));
        assert_eq!(tokens.route_tokens.len(), MOST_ROUTE_TOKENS);
        assert!(tokens.held(Some(&last)).is_some());
        assert!(tokens.held(Some(&wanted(RouteGrant::RefreshToken, 0))).is_none());
        let late = AccessToken { issued_at: Timestamp::from_secs(1200), ..until(1300) };
        tokens.insert(&last, late);
        assert_eq!(tokens.route_tokens.len(), 1, "what has died is dropped");
    }

    #[test]
    fn what_the_access_token_was_exchanged_for_goes_with_it() {
        let mut tokens = living(300);
        let (exchanged, redeemed) =
            (wanted(RouteGrant::TokenExchange, 1), wanted(RouteGrant::RefreshToken, 1));
        tokens.insert(&exchanged, until(1100));
        tokens.insert(&redeemed, until(1100));
        assert_eq!(tokens.not_exchanged(None).into_keys().collect::<Vec<_>>(), [redeemed]);
    }

    #[test]
    fn no_bearer_token_of_a_route_outlives_the_refresh_that_brings_a_key() {
        let mut tokens = living(300);
        tokens.insert(&wanted(RouteGrant::RefreshToken, 1), until(1100));
        let key = Arc::new(Key::generate(Random::SYSTEM));
        assert!(tokens.not_exchanged(Some(&key)).is_empty());
        tokens.dpop_key = Some(Arc::clone(&key));
        assert_eq!(tokens.not_exchanged(Some(&key)).len(), 1);
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
