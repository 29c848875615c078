//! Why a session ends; and how those who carry a tunnel or an event stream of it are told (R49).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Sessions;
use super::cache::LONGEST_UNCONFIRMED;
use super::cookie::Ticket;
use super::store::RecordKey;
use crate::telemetry::audit::{Event, Facts};
use crate::tokens::Identity;

/// Where all sessions may have changed at once, all tunnels ask, within this time.
const SPREAD: Duration = Duration::from_secs(2);

/// How soon a store that is away is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its user logged out.
    Logout,
    /// A new login took its place.
    Replaced,
    /// The browser went away before it got the cookie.
    Abandoned,
    /// The issuer no longer honours the refresh token.
    InvalidGrant,
    /// The access token has died before its time, and nothing can replace it.
    TokenInactive,
    /// The issuer's tokens are suddenly somebody else's.
    WrongIdentity,
    /// The issuer is not configured any more, and the access token has been dead for a while.
    UnknownIssuer,
    /// The issuer said so, in a logout token.
    Backchannel,
    /// The issuer said so, by way of the browser.
    Frontchannel,
    /// A transmitter of shared signals said so.
    SharedSignals,
    /// An operator said so.
    Admin,
}

impl Cause {
    /// Each of them.
    pub const ALL: [Self; 11] = [
        Self::Logout,
        Self::Replaced,
        Self::Abandoned,
        Self::InvalidGrant,
        Self::TokenInactive,
        Self::WrongIdentity,
        Self::UnknownIssuer,
        Self::Backchannel,
        Self::Frontchannel,
        Self::SharedSignals,
        Self::Admin,
    ];

    /// Its name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Replaced => "replaced",
            Self::Abandoned => "abandoned",
            Self::InvalidGrant => "invalid_grant",
            Self::TokenInactive => "token_inactive",
            Self::WrongIdentity => "wrong_identity",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Backchannel => "backchannel",
            Self::Frontchannel => "frontchannel",
            Self::SharedSignals => "shared-signals",
            Self::Admin => "admin",
        }
    }
}

impl Sessions {
    /// Logs and counts that a session of this app has ended, the one that is told of.
    pub fn note_end(&self, cause: Cause, whose: &Facts<'_>) {
        tracing::info!(event = "session.ended", app = &*self.app, cause = cause.as_str());
        self.common.metrics.count_logout(&self.app, cause.as_str());
        self.common.audit.note(Event::SessionEnded, &Facts { reason: Some(cause.as_str()), ..*whose });
    }

    /// A session of this app, for the audit trail.
    pub fn facts<'a>(&'a self, identity: &'a Identity, key: &'a RecordKey) -> Facts<'a> {
        Facts {
            app: &self.app,
            issuer: Some(&identity.issuer),
            user: Some(&identity.subject),
            issuer_session: identity.sid.as_deref(),
            session: Some(&key.0),
            ..Facts::default()
        }
    }

    /// Done when the session has ended: as soon as the store tells of it, or by its time. A store that is
    /// away ends nothing within the time of grace; after it, nobody can say any more that the session
    /// lives. What passes through a tunnel does not put the idle timeout off: heartbeats go on when the
    /// user has long gone.
    pub async fn until_ended(self: &Arc<Self>, ticket: &Ticket) {
        let key = self.record_key(ticket);
        let changes = self.common.store.changes();
        let change = changes.await_change(&key);
        loop {
            let changed = change.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let mark = changes.mark(&key);
            let wait = match self.load_stored(ticket).await {
                Ok(None) => return,
                Ok(Some(session)) => {
                    let left = session.idle_expires_at.min(session.ends_at()).since(self.common.clock.now());
                    LONGEST_UNCONFIRMED.min(left)
                }
                Err(_) if self.is_servable(ticket) => RETRY_INTERVAL,
                Err(_) => return,
            };
            tokio::select! {
                biased;
                () = changed => {
                    if changes.is_untouched(&mark) {
                        sleep(SPREAD.mul_f64(self.common.random.fraction())).await;
                    }
                }
                () = sleep(wait) => {}
            }
        }
    }
}
