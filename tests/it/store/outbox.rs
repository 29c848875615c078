//! The outbox in Redis, where an errand is an entry of two keys.

use cloakroom::clock::{Clock, ManualClock};
use cloakroom::random::Random;
use cloakroom::session::store::outbox::Errand;

use super::{MINUTE, store_in};
use crate::support::clock::clock;
use crate::support::redis::Redis;

const DUE: &str = "cloakroom:{outbox}:due";
const ERRANDS: &str = "cloakroom:{outbox}:errands";

#[tokio::test]
async fn what_has_lost_its_body_is_struck_and_holds_nobody_up() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (lost, whole) = (errand(&clock), errand(&clock));
    store.post(&lost).await.unwrap();
    store.postpone(&lost.id, clock.now()).await.unwrap();
    clock.advance(MINUTE);
    let whole = Errand { due_at: clock.now(), ..whole };
    store.post(&whole).await.unwrap();
    redis.command::<u64>(&["HDEL", ERRANDS, &lost.id]).await;
    assert_eq!(store.count_errands().await.unwrap(), 1);
    assert_eq!(store.fetch_due(clock.now(), clock.now() + MINUTE).await.unwrap(), Some(whole.clone()));
    assert_eq!(redis.command::<Vec<String>>(&["ZRANGE", DUE, "0", "-1"]).await, [whole.id]);
}

#[tokio::test]
async fn another_gateway_runs_what_a_crashed_one_has_fetched_and_not_before_its_time() {
    let (redis, clock) = (Redis::start().await, clock());
    let (crashed, other) = (store_in(&redis.config(), &clock), store_in(&redis.config(), &clock));
    let errand = errand(&clock);
    crashed.post(&errand).await.unwrap();
    let until = clock.now() + MINUTE;
    crashed.fetch_due(clock.now(), until).await.unwrap().expect("it is due");
    drop(crashed);
    assert_eq!(other.fetch_due(clock.now(), until).await.unwrap(), None);
    let again = other.fetch_due(until, until + MINUTE).await.unwrap();
    assert_eq!(again, Some(Errand { due_at: until, ..errand }));
}

#[tokio::test]
async fn nothing_of_it_expires_or_outlives_its_errands_and_both_keys_share_a_slot() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let errand = errand(&clock);
    store.post(&errand).await.unwrap();
    let mut names: Vec<String> = redis.command(&["KEYS", "*"]).await;
    names.sort_unstable();
    assert_eq!(names, [DUE, ERRANDS]);
    for name in names {
        assert_eq!(redis.command::<i64>(&["PTTL", &name]).await, -1, "{name}");
    }
    store.strike(&errand.id).await.unwrap();
    assert_eq!(redis.command::<Vec<String>>(&["KEYS", "*"]).await, [""; 0]);
}

fn errand(clock: &ManualClock) -> Errand {
    Errand { id: Random::SYSTEM.token::<16>(), sealed: b"\0sealed".to_vec(), due_at: clock.now() }
}
