//! Which tokens are under way in this process, or went wrong, and when each may be asked for again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SetOnce;

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::{BETWEEN_FORCED, Outcome};
use crate::clock::Timestamp;
use crate::config::{RouteGrant, RouteToken, TokenTarget};
use crate::session::store::RecordKey;

/// What this process knows of sessions whose refresh is under way, or went wrong.
#[derive(Debug, Default)]
pub(super) struct State {
    /// At most one flight for each token.
    pub(super) flights: HashMap<Key, Arc<SetOnce<Outcome>>>,
    /// Whose refresh token is under way, or what came for it is not written yet; and for which token.
    pub(super) redeeming: HashMap<RecordKey, Key>,
    pub(super) backoff: Backoff,
    /// One for each issuer: where one is away, the sessions of the others go on.
    pub(super) breakers: HashMap<String, Breaker>,
}

/// Which token is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The access token of a session.
    Session(RecordKey),
    /// Another token of a session's, for some upstreams.
    Route(RecordKey, Arc<RouteToken>),
    /// One of the client's own.
    Client(TokenTarget),
}

/// A refresh went wrong, or did not help, a moment ago.
#[derive(Debug)]
pub(super) struct TooEarly {
    pub(super) retry_after: Duration,
}

impl Key {
    pub(super) fn new(record: RecordKey, wanted: Option<&Arc<RouteToken>>) -> Self {
        match wanted {
            None => Self::Session(record),
            Some(wanted) => Self::Route(record, Arc::clone(wanted)),
        }
    }
}

impl State {
    /// Whether this token may be asked for now. Notes that it is; `forced` where there is one, which was refused.
    pub(super) fn admit(
        &mut self,
        key: &Key,
        issuer: &str,
        now: Timestamp,
        forced: bool,
    ) -> Result<(), TooEarly> {
        if let Some(retry_after) = self.backoff.wait(key, now, forced) {
            return Err(TooEarly { retry_after });
        }
        // The refresh token that is to be sent is the session's: where it may have been used up, or the issuer is to
        // be left alone, that holds here too; though not for as long as its access token can be used.
        if let Key::Route(record, wanted) = key
            && wanted.grant == RouteGrant::RefreshToken
            && let Some(retry_after) = self.backoff.wait(&Key::Session(record.clone()), now, true)
        {
            return Err(TooEarly { retry_after });
        }
        if forced && !self.backoff.may_force(key, now) {
            return Err(TooEarly { retry_after: BETWEEN_FORCED });
        }
        self.breaker(issuer).admit(now).map_err(|retry_after| TooEarly { retry_after })
    }

    pub(super) fn breaker(&mut self, issuer: &str) -> &mut Breaker {
        self.breakers.entry(issuer.to_owned()).or_default()
    }
}
