//! How many requests a session or a client may make (RFC 6585 §4), and the fields that say what is left of it
//! (draft-ietf-httpapi-ratelimit-headers).
//!
//! Each process counts for itself. A shared limit is asked of the store as well, but only for what this
//! process would let through: a flood does not reach the store, and while the store is away the count
//! here decides alone.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Response};
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use super::client_address::client_network;
use crate::body::Body;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, RateLimitKey};
use crate::error::{Reason, Refusal};
use crate::rate::{Rate, Standing, micros_since_epoch};
use crate::seal::KeyRing;
use crate::session::cookie::SessionId;
use crate::session::store::{CountKey, Store};

/// Of how many sessions or clients one limit knows the count. A flood from more addresses makes it forget some,
/// and whoever is forgotten begins anew; its memory stays bounded (R65).
const MOST_COUNTS: u64 = 1 << 16;

/// For how many of them there is room from the start.
const FEW_COUNTS: usize = 256;

/// How long a request waits for the store's count.
const PATIENCE: Duration = Duration::from_millis(250);

/// After a failure the store is not asked for a count again for so long.
const PAUSE: Duration = Duration::from_secs(1);

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// All limits of one route, or of one app's logins. Each of them holds.
#[derive(Debug)]
pub(super) struct RateLimits {
    limits: Vec<Limit>,
    /// The `RateLimit-Policy` field; absent without limits.
    policy: Option<HeaderValue>,
    clock: Arc<dyn Clock>,
}

/// The way to counts that all gateways share.
#[derive(Debug)]
pub(super) struct SharedCounts {
    store: Arc<dyn Store>,
    ring: Arc<KeyRing>,
    /// In milliseconds since 1970: until then the store is not asked.
    paused_until: AtomicU64,
}

/// Whose requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    Session(SessionId),
    /// An IPv4 address, or the network of an IPv6 one.
    Client(IpAddr),
}

/// What was counted for one request.
#[derive(Debug)]
pub(super) struct Quota<'a> {
    limits: &'a RateLimits,
    standings: Vec<(&'a Limit, Standing)>,
}

#[derive(Debug)]
struct Limit {
    /// As the fields call it.
    name: String,
    by: RateLimitKey,
    rate: Rate,
    counts: Arc<Cache<Whose, Arc<AtomicU64>>>,
    /// Where it is shared, with what distinguishes it from all other limits.
    shared: Option<(Arc<SharedCounts>, String)>,
}

impl RateLimits {
    /// The limits of what is called `place`, such as an app and a path of it.
    pub(super) fn new(
        limits: &[config::RateLimit],
        place: &str,
        clock: &Arc<dyn Clock>,
        counts: &Arc<SharedCounts>,
    ) -> Self {
        let names = names(limits);
        let mut policy = String::new();
        for (limit, name) in limits.iter().zip(&names) {
            let window = seconds(limit.per);
            let _ = write!(policy, "{}\"{name}\";q={};w={window}", separator(&policy), limit.requests);
        }
        let limits = limits.iter().zip(names).map(|(limit, name)| Limit::new(limit, name, place, counts));
        Self {
            limits: limits.collect(),
            policy: HeaderValue::try_from(policy).ok().filter(|policy| !policy.is_empty()),
            clock: Arc::clone(clock),
        }
    }

    /// Goes on with what was counted `before`, but for the limits that were changed.
    pub(super) fn going_on(mut self, before: Option<&Self>) -> Self {
        let before = before.map_or(&[][..], |before| &before.limits);
        for limit in &mut self.limits {
            let same = before.iter().find(|before| before.name == limit.name && before.rate == limit.rate);
            if let Some(before) = same {
                limit.counts = Arc::clone(&before.counts);
            }
        }
        self
    }

    /// Of a request of which nothing is counted yet.
    pub(super) fn quota(&self) -> Quota<'_> {
        Quota { limits: self, standings: Vec::new() }
    }
}

impl SharedCounts {
    pub(super) fn new(store: Arc<dyn Store>, ring: Arc<KeyRing>) -> Self {
        Self { store, ring, paused_until: AtomicU64::new(0) }
    }

    /// What the store says; `None` where it says nothing in time, or said nothing a moment ago.
    async fn count(&self, place: &str, whose: Whose, rate: Rate, now: Timestamp) -> Option<Standing> {
        if now.as_millis() < self.paused_until.load(Ordering::Relaxed) {
            return None;
        }
        // A keyed hash: of all there are, an address would soon be guessed.
        let key = self.ring.names("count", &[place.as_bytes(), &whose.bytes()]).into_iter().next()?;
        let key = CountKey(key);
        let counted = tokio::time::timeout(PATIENCE, self.store.count(&key, rate)).await;
        let cause = match counted {
            Ok(Ok(standing)) => return Some(standing),
            Ok(Err(unavailable)) => Some(unavailable),
            Err(_) => None,
        };
        self.paused_until.store((now + PAUSE).as_millis(), Ordering::Relaxed);
        let cause = cause.as_ref().map(tracing::field::display);
        tracing::warn!(
            event = "rate_limit.store_away",
            cause,
            "shared limits hold for each gateway by itself"
        );
        None
    }
}

impl Whose {
    pub(super) fn client(address: IpAddr) -> Self {
        Self::Client(client_network(address))
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Session(id) => id.record_key().0.into_bytes(),
            Self::Client(IpAddr::V4(address)) => address.octets().to_vec(),
            Self::Client(IpAddr::V6(address)) => address.octets().to_vec(),
        }
    }
}

impl<'a> Quota<'a> {
    /// Counts the request against the limits by this key, `whose` is asked for only where there are any.
    ///
    /// # Errors
    /// Where one of the limits is used up. Those before it have counted the request.
    pub(super) async fn count(
        &mut self,
        by: RateLimitKey,
        whose: impl FnOnce() -> Whose,
    ) -> Result<(), Refusal> {
        let limits = &self.limits.limits;
        if limits.iter().all(|limit| limit.by != by) {
            return Ok(());
        }
        let (whose, now) = (whose(), self.limits.clock.now());
        for limit in limits.iter().filter(|limit| limit.by == by) {
            let standing = limit.count(whose, now).await;
            self.standings.push((limit, standing));
            if !standing.is_within {
                return Err(Refusal::new(Reason::RateLimit).with_retry_after(standing.one_more_in));
            }
        }
        Ok(())
    }

    /// Says with the answer, whatever it is, what the limits are and what is left of them. What the upstream says of
    /// its own limits stays: to take it out would promise more than there is.
    pub(super) fn tell(&self, answered: Result<Response<Body>, Refusal>) -> Result<Response<Body>, Refusal> {
        let Some(policy) = &self.limits.policy else { return answered };
        let state = HeaderValue::try_from(self.state()).ok().filter(|state| !state.is_empty());
        let fields = [Some((POLICY, policy.clone())), state.map(|state| (STATE, state))];
        let fields = fields.into_iter().flatten();
        match answered {
            Ok(mut response) => {
                for (name, value) in fields {
                    response.headers_mut().append(name, value);
                }
                Ok(response)
            }
            Err(mut refusal) => {
                refusal.headers.extend(fields);
                Err(refusal)
            }
        }
    }

    /// The `RateLimit` field: that of which least is left comes first.
    fn state(&self) -> String {
        let mut standings: Vec<_> = self.standings.iter().collect();
        standings.sort_by_key(|(_, standing)| (standing.remaining, standing.is_within));
        let mut state = String::new();
        for (limit, standing) in standings {
            let (name, remaining) = (&limit.name, standing.remaining);
            let window = seconds(standing.one_more_in);
            let _ = write!(state, "{}\"{name}\";r={remaining};t={window}", separator(&state));
        }
        state
    }
}

impl Limit {
    fn new(limit: &config::RateLimit, name: String, place: &str, counts: &Arc<SharedCounts>) -> Self {
        // With its numbers: a limit that was changed counts anew.
        let place = || format!("{place} {name} {} {}", limit.requests, limit.per.as_millis());
        Self {
            by: limit.by,
            rate: Rate::new(limit.requests, limit.per),
            counts: Arc::new(Cache::with_weighter(FEW_COUNTS, MOST_COUNTS, UnitWeighter)),
            shared: limit.shared.then(|| (Arc::clone(counts), place())),
            name,
        }
    }

    async fn count(&self, whose: Whose, now: Timestamp) -> Standing {
        let arrival = self.arrival(whose);
        let standing = self.count_here(&arrival, now);
        let Some((shared, place)) = self.shared.as_ref().filter(|_| standing.is_within) else {
            return standing;
        };
        let Some(standing) = shared.count(place, whose, self.rate, now).await else { return standing };
        // The others' requests count here as well from now on.
        arrival.store(micros_since_epoch(now).saturating_add(standing.ahead), Ordering::Relaxed);
        standing
    }

    fn count_here(&self, arrival: &AtomicU64, now: Timestamp) -> Standing {
        let mut kept = arrival.load(Ordering::Relaxed);
        loop {
            let (standing, next) = self.rate.step(kept, now);
            match arrival.compare_exchange_weak(kept, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return standing,
                Err(newer) => kept = newer,
            }
        }
    }

    fn arrival(&self, whose: Whose) -> Arc<AtomicU64> {
        let counted =
            self.counts.get_or_insert_with(&whose, || Ok::<_, std::convert::Infallible>(Arc::default()));
        match counted {
            Ok(arrival) => arrival,
        }
    }
}

/// After the key; with a number from the second of a key on.
fn names(limits: &[config::RateLimit]) -> Vec<String> {
    let name = |(index, limit): (usize, &config::RateLimit)| {
        let key = match limit.by {
            RateLimitKey::Session => "session",
            RateLimitKey::Client => "client",
        };
        match limits[..index].iter().filter(|earlier| earlier.by == limit.by).count() {
            0 => key.to_owned(),
            earlier => format!("{key}-{}", earlier + 1),
        }
    };
    limits.iter().enumerate().map(name).collect()
}

fn separator(list: &str) -> &'static str {
    if list.is_empty() { "" } else { ", " }
}

/// Rounded up: the fields know whole seconds alone, and none of nothing.
fn seconds(duration: Duration) -> u128 {
    duration.as_micros().div_ceil(1_000_000).max(1)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::SessionKey;
    use crate::error::Code;
    use crate::random::Random;
    use crate::session::store::memory::MemoryStore;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limits(limits: &[(u32, Duration, RateLimitKey)]) -> (RateLimits, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_000_000)));
        let ring = KeyRing::new(&[SessionKey::new([7; 32])]);
        let store = MemoryStore::new(clock.clone());
        let counts = Arc::new(SharedCounts::new(Arc::new(store), Arc::new(ring)));
        let limits: Vec<_> = limits
            .iter()
            .map(|&(requests, per, by)| config::RateLimit { requests, per, by, shared: false })
            .collect();
        (RateLimits::new(&limits, "here", &(clock.clone() as Arc<dyn Clock>), &counts), clock)
    }

    fn client(number: u32) -> Whose {
        Whose::client(Ipv4Addr::from_bits(number).into())
    }

    /// What the fields say, in a refusal or not.
    fn told(quota: &Quota<'_>) -> Vec<(String, String)> {
        let refusal = quota.tell(Err(Refusal::new(Reason::HostMissing))).unwrap_err();
        let text = |(name, value): &(HeaderName, HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        refusal.headers.iter().map(text).collect()
    }

    #[tokio::test]
    async fn the_limit_that_presses_most_comes_first_and_each_has_a_name() {
        let (limits, _) = limits(&[
            (100, MINUTE, RateLimitKey::Client),
            (2, Duration::from_millis(1500), RateLimitKey::Client),
            (50, MINUTE, RateLimitKey::Session),
        ]);
        let policy = "\"client\";q=100;w=60, \"client-2\";q=2;w=2, \"session\";q=50;w=60";
        let mut quota = limits.quota();
        assert_eq!(
            told(&quota),
            [("ratelimit-policy".to_owned(), policy.to_owned())],
            "nothing is counted yet"
        );
        quota.count(RateLimitKey::Client, || client(1)).await.unwrap();
        let session = Whose::Session(SessionId::generate(Random::SYSTEM));
        quota.count(RateLimitKey::Session, || session).await.unwrap();
        let state = "\"client-2\";r=1;t=1, \"session\";r=49;t=2, \"client\";r=99;t=1";
        assert_eq!(told(&quota)[1], ("ratelimit".to_owned(), state.to_owned()));
    }

    #[tokio::test]
    async fn without_limits_nothing_is_asked_and_nothing_said() {
        let (limits, _) = limits(&[]);
        let mut quota = limits.quota();
        for by in [RateLimitKey::Client, RateLimitKey::Session] {
            quota.count(by, || panic!("nobody asks")).await.unwrap();
        }
        assert_eq!(told(&quota), []);
    }

    #[tokio::test]
    async fn r65_a_flood_from_many_addresses_does_not_make_it_remember_more() {
        let (limits, _) = limits(&[(1, MINUTE, RateLimitKey::Client)]);
        let known = u32::try_from(MOST_COUNTS).unwrap();
        for number in 0..known * 3 {
            limits.quota().count(RateLimitKey::Client, || client(number)).await.unwrap();
        }
        assert!(limits.limits[0].counts.len() as u64 <= MOST_COUNTS);
        let last = limits.quota().count(RateLimitKey::Client, || client(known * 3 - 1)).await;
        assert_eq!(last.unwrap_err().code(), Code::RateLimited, "it remembers those of late");
    }
}
