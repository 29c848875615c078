//! What becomes of new tokens where somebody else has written the record meanwhile.
//!
//! A refresh token is redeemed under the lease, an access token is exchanged without it. So a refresh may find that an
//! exchange was written in between, and must not be lost over that; and an exchange may find whatever there is.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::{RouteGrant, RouteToken};
use crate::tokens::Tokens;

/// How to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// These are to be written over what was found.
    Write(Box<Tokens>),
    /// What was found is as good as ours.
    Theirs,
    /// The access token was refreshed: what it was exchanged for goes with it, and is to be had anew.
    Overtaken,
}

/// What to do with `ours`, which was made of `before`, where `found` lies there now.
pub(super) fn settle(
    wanted: Option<&Arc<RouteToken>>,
    before: &Tokens,
    found: &Tokens,
    ours: &Tokens,
    now: Timestamp,
) -> Settled {
    // A write whose answer was lost may have been done.
    if found == ours {
        return Settled::Theirs;
    }
    let is_refreshed = found.access_token != before.access_token;
    let is_redeemed = found.refresh_token != before.refresh_token;
    let (Some(wanted), Some(token)) = (wanted, wanted.and_then(|wanted| ours.route_tokens.get(wanted)))
    else {
        return match is_refreshed || is_redeemed {
            true => Settled::Theirs,
            false => {
                let route_tokens = found.not_exchanged(ours.dpop_key.as_ref());
                write(Tokens { route_tokens, ..ours.clone() })
            }
        };
    };
    let theirs = found.route_tokens.get(wanted).filter(|theirs| now < theirs.expires_at);
    let is_theirs_new = theirs.is_some_and(|theirs| before.route_tokens.get(wanted) != Some(theirs));
    let mut merged = found.clone();
    match wanted.grant {
        // A token that is bound to no key is of no use beside one.
        RouteGrant::RefreshToken if is_redeemed || found.dpop_key != before.dpop_key => {
            return Settled::Theirs;
        }
        RouteGrant::RefreshToken => {
            merged.refresh_token.clone_from(&ours.refresh_token);
            merged.id_token.clone_from(&ours.id_token);
        }
        RouteGrant::TokenExchange if is_theirs_new => return Settled::Theirs,
        RouteGrant::TokenExchange if is_refreshed => return Settled::Overtaken,
        RouteGrant::TokenExchange => {}
    }
    merged.insert(wanted, token.clone());
    write(merged)
}

fn write(tokens: Tokens) -> Settled {
    Settled::Write(Box::new(tokens))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::TokenTarget;
    use crate::dpop::Key;
    use crate::random::Random;
    use crate::secret::Secret;
    use crate::tokens::AccessToken;

    const NOW: Timestamp = Timestamp::from_secs(1000);
    const LATER: Timestamp = Timestamp::from_secs(1300);

    fn tokens(access: &str, refresh: &str) -> Tokens {
        Tokens {
            access_token: Secret::new(access),
            issued_at: NOW,
            expires_at: LATER,
            refresh_token: Some(Secret::new(refresh)),
            id_token: None,
            scopes: Vec::new(),
            dpop_key: None,
            route_tokens: BTreeMap::new(),
        }
    }

    fn with(tokens: &Tokens, wanted: &Arc<RouteToken>, value: &str) -> Tokens {
        let mut tokens = tokens.clone();
        let token =
            AccessToken { value: Secret::new(value), issued_at: NOW, expires_at: LATER, scopes: Vec::new() };
        tokens.insert(wanted, token);
        tokens
    }

    fn exchange(audience: &str) -> Arc<RouteToken> {
        let target = TokenTarget { audience: Some(audience.to_owned()), ..TokenTarget::default() };
        Arc::new(RouteToken { grant: RouteGrant::TokenExchange, target })
    }

    fn resource(resource: &str) -> Arc<RouteToken> {
        let target = TokenTarget { resource: Some(resource.to_owned()), ..TokenTarget::default() };
        Arc::new(RouteToken { grant: RouteGrant::RefreshToken, target })
    }

    #[test]
    fn a_refresh_is_written_over_an_exchange_and_not_over_another_refresh() {
        let (before, ours) = (tokens("a1", "r1"), tokens("a2", "r2"));
        let found = with(&with(&before, &exchange("x"), "x1"), &resource("y"), "y1");
        let expected = with(&ours, &resource("y"), "y1");
        assert_eq!(settle(None, &before, &found, &ours, NOW), write(expected));
        for theirs in [tokens("a3", "r3"), tokens("a3", "r1"), tokens("a1", "r3"), ours.clone()] {
            assert_eq!(settle(None, &before, &theirs, &ours, NOW), Settled::Theirs);
        }
    }

    #[test]
    fn a_refresh_that_brings_a_key_keeps_no_bearer_token_of_a_route() {
        let (wanted, before) = (resource("y"), tokens("a1", "r1"));
        let key = Some(Arc::new(Key::generate(Random::SYSTEM)));
        let ours = Tokens { dpop_key: key, ..tokens("a2", "r1") };
        let found = with(&before, &wanted, "y1");
        assert_eq!(settle(None, &before, &found, &ours, NOW), write(ours.clone()));
        let unbound = with(&before, &wanted, "y2");
        assert_eq!(settle(Some(&wanted), &before, &ours, &unbound, NOW), Settled::Theirs);
    }

    #[test]
    fn a_token_of_another_resource_keeps_the_refresh_token_it_came_with() {
        let (wanted, before) = (resource("y"), tokens("a1", "r1"));
        let ours = with(&tokens("a1", "r2"), &wanted, "y2");
        let found = with(&before, &exchange("x"), "x1");
        let expected = with(&with(&tokens("a1", "r2"), &exchange("x"), "x1"), &wanted, "y2");
        assert_eq!(settle(Some(&wanted), &before, &found, &ours, NOW), write(expected));
        let theirs = tokens("a1", "r3");
        assert_eq!(settle(Some(&wanted), &before, &theirs, &ours, NOW), Settled::Theirs);
    }

    #[test]
    fn an_exchange_is_added_to_others_and_never_outlives_the_access_token() {
        let (wanted, before) = (exchange("x"), tokens("a1", "r1"));
        let ours = with(&before, &wanted, "x1");
        let found = with(&tokens("a1", "r2"), &resource("y"), "y1");
        assert_eq!(settle(Some(&wanted), &before, &found, &ours, NOW), write(with(&found, &wanted, "x1")));
        let refreshed = tokens("a2", "r2");
        assert_eq!(settle(Some(&wanted), &before, &refreshed, &ours, NOW), Settled::Overtaken);
        for theirs in [with(&before, &wanted, "x2"), with(&refreshed, &wanted, "x2")] {
            assert_eq!(settle(Some(&wanted), &before, &theirs, &ours, NOW), Settled::Theirs);
        }
        let replaced = with(&before, &wanted, "x0");
        let anew = with(&before, &wanted, "x1");
        let found = with(&replaced, &resource("y"), "y1");
        let expected = with(&found, &wanted, "x1");
        assert_eq!(settle(Some(&wanted), &replaced, &found, &anew, NOW), write(expected));
        let dead = with(&before, &wanted, "x2");
        assert_eq!(settle(Some(&wanted), &before, &dead, &ours, LATER), write(with(&dead, &wanted, "x1")));
    }
}
