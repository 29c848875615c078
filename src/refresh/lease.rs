//! The lease under which one process refreshes a session, so that no other sends the same refresh token.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::flight::{LONGEST_POLL, POLL};
use crate::clock::Timestamp;
use crate::session::cookie::Ticket;
use crate::session::store::{LeaseOwner, Unavailable};

/// How long a lease lives unless it is renewed: what a crash costs the others. While the access token still
/// lives it costs them nothing, and the lease lives as long, so that a store which goes away in the middle does
/// not let it pass on before what was issued could be written.
const SHORTEST_LEASE: Duration = Duration::from_secs(3);
const LONGEST_LEASE: Duration = Duration::from_secs(30);

/// How often a lease is renewed. A lease older than this is too old to set out with.
const RENEWAL: Duration = Duration::from_secs(1);

/// One flight's lease on its session.
pub(super) struct Lease {
    shared: Arc<Shared>,
    ticket: Ticket,
    owner: LeaseOwner,
    /// Until when others can do without what the lease is held for.
    used_until: Option<Timestamp>,
    held: Mutex<Held>,
}

/// The lease as it was last taken or renewed.
#[derive(Clone, Copy)]
struct Held {
    /// When the call set out.
    since: Instant,
    /// Until when it is held at least.
    until: Instant,
}

impl Lease {
    /// A lease that is not taken yet; `used_until` is when the access token expires that others may use meanwhile.
    pub(super) fn new(shared: &Arc<Shared>, ticket: &Ticket, used_until: Option<Timestamp>) -> Self {
        let now = Instant::now();
        Self {
            shared: Arc::clone(shared),
            ticket: ticket.clone(),
            owner: LeaseOwner(shared.random.token::<16>()),
            used_until,
            held: Mutex::new(Held { since: now, until: now }),
        }
    }

    /// Takes or renews the lease; `false` where another owner holds it.
    pub(super) async fn take(&self) -> Result<bool, Unavailable> {
        let (since, life) = (Instant::now(), self.life());
        let leased = self.shared.sessions.lease(&self.ticket, &self.owner, life).await?;
        if leased {
            *self.held() = Held { since, until: since + life };
        }
        Ok(leased)
    }

    /// Gives it up, so that whoever waits for it elsewhere can go on.
    pub(super) async fn release(&self) -> Result<(), Unavailable> {
        self.shared.sessions.release(&self.ticket, &self.owner).await
    }

    /// Whether it was taken so lately that a call may set out under it.
    pub(super) fn is_young(&self) -> bool {
        self.age() < RENEWAL
    }

    /// Whether it may have passed on.
    pub(super) fn may_be_over(&self) -> bool {
        Instant::now() >= self.held().until
    }

    /// Renews the lease for as long as it is polled: it must outlive any delay of the issuer.
    pub(super) async fn keep(&self) -> Infallible {
        let mut pause = RENEWAL.saturating_sub(self.age());
        let mut after_failure = POLL;
        loop {
            tokio::time::sleep(pause).await;
            let set_out = Instant::now();
            // A lease that was lost is wanted still; the write is fenced by its version in any case.
            match self.take().await {
                Ok(_) => {
                    // Counted from the last one's departure, or a slow store would make each one late.
                    pause = RENEWAL.saturating_sub(set_out.elapsed());
                    after_failure = POLL;
                }
                Err(unavailable) => {
                    tracing::debug!(event = "refresh.lease_unrenewed", error = %unavailable);
                    // At once at first: the lease may live hardly longer than one call that hangs.
                    pause = after_failure;
                    after_failure = (after_failure * 2).min(LONGEST_POLL);
                }
            }
        }
    }

    fn life(&self) -> Duration {
        let left = self.used_until.map_or(Duration::ZERO, |until| until.since(self.shared.clock.now()));
        left.clamp(SHORTEST_LEASE, LONGEST_LEASE)
    }

    fn age(&self) -> Duration {
        self.held().since.elapsed()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
