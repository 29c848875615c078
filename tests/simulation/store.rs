//! The store as one gateway process reaches it: late, not at all, or without an answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::clock::Timestamp;
use cloakroom::rate::{Rate, Standing};
use cloakroom::session::store::changes::Changes;
use cloakroom::session::store::{
    CountKey, IndexKey, LeaseOwner, Record, RecordKey, Replaced, Store, Unavailable, Version,
};
use tokio::time::{Instant, sleep};

use crate::world::{Lease, NodeId, World};

/// For one operation, as the Redis store has it.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(1500);

/// A lease call that takes longer is trouble: the next one may come too late.
const SLOW: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct NodeStore {
    pub node: NodeId,
    pub world: Arc<World>,
    pub changes: Arc<Changes>,
}

/// What becomes of one operation.
#[derive(Clone, Copy, Debug)]
struct Fate {
    before: Duration,
    after: Duration,
    turn: Turn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Well,
    Fails,
    Hangs,
    LosesAnswer,
    /// Done this long after it was given up.
    Late(Duration),
}

impl NodeStore {
    /// One operation with what may go wrong; `work` is what takes effect in the store.
    pub async fn pass<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: Option<&RecordKey>,
        work: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.pass_with(self.fate(), operation, key, work).await
    }

    async fn pass_with<T: Send + 'static>(
        &self,
        fate: Fate,
        operation: &'static str,
        key: Option<&RecordKey>,
        work: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.world.while_alive(self.node).await;
        let user = key.map(|key| self.world.truth().user_of(key));
        self.begin(operation, user, fate);
        let answer = match fate.turn {
            Turn::Well => {
                wait(fate.before).await;
                self.world.while_alive(self.node).await;
                let answer = work.await;
                wait(fate.after).await;
                answer
            }
            Turn::Fails => {
                wait(fate.before).await;
                unavailable("no connection")
            }
            Turn::Hangs => {
                sleep(OPERATION_TIMEOUT).await;
                unavailable("no answer")
            }
            Turn::LosesAnswer => {
                wait(fate.before).await;
                self.world.while_alive(self.node).await;
                let _ = work.await;
                wait(fate.after).await;
                unavailable("the answer was lost")
            }
            Turn::Late(after) => {
                tokio::spawn(async move {
                    sleep(OPERATION_TIMEOUT + after).await;
                    let _ = work.await;
                });
                sleep(OPERATION_TIMEOUT).await;
                unavailable("no answer")
            }
        };
        self.world.while_alive(self.node).await;
        self.heard(operation, user, &answer);
        answer
    }

    fn fate(&self) -> Fate {
        let mut truth = self.world.truth();
        let nature = &self.world.schedule.store;
        if truth.is_healed {
            return Fate { before: Duration::ZERO, after: Duration::ZERO, turn: Turn::Well };
        }
        let chance = &mut truth.chance;
        let latency = if chance.happens(nature.slow) { (200, 740) } else { nature.latency };
        let (before, after) = (chance.millis(latency), chance.millis(latency));
        let draw = chance.below(1000);
        let late = chance.millis((1, 8000));
        let mut bound = nature.fails;
        let mut turn = Turn::Well;
        for (rate, kind) in [
            (0, Turn::Fails),
            (nature.hangs, Turn::Hangs),
            (nature.loses_answer, Turn::LosesAnswer),
            (nature.late, Turn::Late(late)),
        ] {
            bound += rate;
            if draw < bound && turn == Turn::Well {
                turn = kind;
            }
        }
        let (now, gateway) = (Instant::now(), truth.nodes[self.node].gateway);
        let outage = truth
            .store_outages
            .iter()
            .find(|outage| now < outage.until && outage.gateway.is_none_or(|without| without == gateway));
        if let Some(outage) = outage {
            turn = if outage.hangs { Turn::Hangs } else { Turn::Fails };
        }
        Fate { before, after, turn }
    }

    fn begin(&self, operation: &'static str, user: Option<usize>, fate: Fate) {
        let mut truth = self.world.truth();
        if let (Some(user), "lease") = (user, operation)
            && (fate.turn != Turn::Well || fate.before + fate.after > SLOW)
        {
            truth.users[user].lease_troubles.entry(self.node).or_insert((0, Instant::now())).0 += 1;
        }
    }

    /// What the gateway learns by the answer.
    fn heard<T>(&self, operation: &'static str, user: Option<usize>, answer: &Result<T, Unavailable>) {
        let mut truth = self.world.truth();
        match answer {
            Ok(_) => {
                truth.nodes[self.node].failing_since = None;
                if let (Some(user), "lease") = (user, operation) {
                    truth.users[user].lease_troubles.remove(&self.node);
                }
            }
            Err(unavailable) => {
                truth.nodes[self.node].failing_since.get_or_insert(Instant::now());
                truth.nodes[self.node].hindered_at = Instant::now();
                if operation == "post" {
                    truth.nodes[self.node].unposted_at = Some(Instant::now());
                }
                let name = truth.nodes[self.node].name.clone();
                let whose = user.map_or_else(String::new, |user| format!(", user {user}"));
                truth.note(format_args!("{name}{whose}: {operation}: {unavailable}"));
            }
        }
    }

    /// The store has answered this node that a session is not there.
    fn note_absent(&self, key: &RecordKey) {
        let mut truth = self.world.truth();
        let user = truth.user_of(key);
        truth.note_told_of_end(self.node, user);
    }

    async fn take_out(
        &self,
        operation: &'static str,
        key: &RecordKey,
        version: Option<Version>,
    ) -> Result<Option<Record>, Unavailable> {
        let (world, node, owned) = (Arc::clone(&self.world), self.node, key.clone());
        let fate = self.fate();
        let is_answered = fate.turn == Turn::Well;
        let taken = self.pass_with(fate, operation, Some(key), async move {
            let taken = match version {
                None => world.memory.take(&owned).await?,
                Some(version) => world.memory.take_version(&owned, version).await?,
            };
            if taken.is_some() {
                let user = world.truth().user_of(&owned);
                world.remember(user).await;
                world.truth().note_taken(node, user, operation, is_answered, world.now());
                world.tell(user);
            }
            Ok(taken)
        });
        let taken = taken.await?;
        self.note_absent(key);
        Ok(taken)
    }
}

#[async_trait]
impl Store for NodeStore {
    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        let (world, owned) = (Arc::clone(&self.world), key.clone());
        let found = self.pass("read", Some(key), async move { world.memory.read(&owned).await }).await?;
        if found.is_none() {
            self.note_absent(key);
        }
        Ok(found)
    }

    async fn create(&self, key: &RecordKey, record: &Record) -> Result<(), Unavailable> {
        // A login is no part of what is simulated: nothing goes wrong with it.
        self.world.memory.create(key, record).await
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: Version,
        sealed: &[u8],
        version: Version,
    ) -> Result<Replaced, Unavailable> {
        let (world, node, owned, sealed) = (Arc::clone(&self.world), self.node, key.clone(), sealed.to_vec());
        let replaced = self.pass("replace", Some(key), async move {
            let replaced = world.memory.replace(&owned, expected, &sealed, version).await?;
            let user = world.truth().user_of(&owned);
            let exists = world.memory.read(&owned).await?.is_some();
            let number = world.schedule.has_route_tokens.then(|| world.number_in(user, &owned, &sealed));
            world.truth().note_replaced(node, user, replaced, version, number, exists);
            if replaced == Replaced::Written {
                world.remember(user).await;
                world.tell(user);
            }
            Ok(replaced)
        });
        let replaced = replaced.await?;
        if replaced == Replaced::Written {
            let user = self.world.truth().user_of(key);
            self.world.truth().users[user].confirm(self.node, version);
        }
        if replaced == Replaced::Absent {
            self.note_absent(key);
        }
        Ok(replaced)
    }

    async fn touch(&self, key: &RecordKey, seen: Timestamp, until: Timestamp) -> Result<(), Unavailable> {
        let (world, node, owned) = (Arc::clone(&self.world), self.node, key.clone());
        let touched = self.pass("touch", Some(key), async move {
            world.memory.touch(&owned, seen, until).await?;
            if let Some(record) = world.memory.read(&owned).await? {
                let user = world.truth().user_of(&owned);
                let moved = {
                    let mut truth = world.truth();
                    let moved = truth.users[user].idle_deadline != record.expires_at;
                    truth.users[user].idle_deadline = record.expires_at;
                    if moved {
                        truth.note_for(node, user, format_args!("touched"));
                    }
                    moved
                };
                if moved {
                    world.remember(user).await;
                    world.tell(user);
                }
            }
            Ok(())
        });
        touched.await
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        self.take_out("take", key, None).await
    }

    async fn take_version(&self, key: &RecordKey, version: Version) -> Result<Option<Record>, Unavailable> {
        self.take_out("take_version", key, Some(version)).await
    }

    async fn list(&self, index: &IndexKey) -> Result<Vec<RecordKey>, Unavailable> {
        let (world, index) = (Arc::clone(&self.world), index.clone());
        let listed = self.pass("list", None, async move { world.memory.list(&index).await });
        let mut listed = listed.await?;
        listed.sort();
        Ok(listed)
    }

    async fn lease(&self, key: &RecordKey, owner: &LeaseOwner, life: Duration) -> Result<bool, Unavailable> {
        let (world, node, owned, owner) = (Arc::clone(&self.world), self.node, key.clone(), owner.clone());
        let leased = self.pass("lease", Some(key), async move {
            let leased = world.memory.lease(&owned, &owner, life).await?;
            let now = world.now();
            let mut truth = world.truth();
            let user = truth.user_of(&owned);
            if leased {
                truth.note_leased(
                    user,
                    &Lease { node, owner, until: now + life, taken_at: Instant::now() },
                    now,
                );
            }
            Ok(leased)
        });
        leased.await
    }

    async fn release(&self, key: &RecordKey, owner: &LeaseOwner) -> Result<(), Unavailable> {
        let (world, owned, owner) = (Arc::clone(&self.world), key.clone(), owner.clone());
        let released = self.pass("release", Some(key), async move {
            world.memory.release(&owned, &owner).await?;
            let mut truth = world.truth();
            let user = truth.user_of(&owned);
            if truth.users[user].lease.as_ref().is_some_and(|lease| lease.owner == owner) {
                let node = truth.users[user].lease.take().map_or(0, |lease| lease.node);
                truth.note_for(node, user, format_args!("lease released"));
            }
            Ok(())
        });
        released.await
    }

    async fn claim_once(&self, mark: &str, time_to_live: Duration) -> Result<bool, Unavailable> {
        let (world, mark) = (Arc::clone(&self.world), mark.to_owned());
        self.pass("claim_once", None, async move { world.memory.claim_once(&mark, time_to_live).await }).await
    }

    async fn is_claimed(&self, mark: &str) -> Result<bool, Unavailable> {
        let (world, mark) = (Arc::clone(&self.world), mark.to_owned());
        self.pass("is_claimed", None, async move { world.memory.is_claimed(&mark).await }).await
    }

    async fn count(&self, key: &CountKey, rate: Rate) -> Result<Standing, Unavailable> {
        let (world, key) = (Arc::clone(&self.world), key.clone());
        self.pass("count", None, async move { world.memory.count(&key, rate).await }).await
    }

    async fn ping(&self) -> Result<(), Unavailable> {
        self.pass("ping", None, async { Ok(()) }).await
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }
}

async fn wait(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn unavailable<T>(why: &str) -> Result<T, Unavailable> {
    Err(Unavailable(why.to_owned()))
}
