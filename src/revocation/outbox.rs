//! Where revocations wait that the issuer has not answered yet: in the store, for whichever gateway comes first;
//! or here, for as long as the store is away too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::errand::Errand;
use super::{Issuer, Revocations, TRY, Tried, Unwanted};
use crate::oidc::TokenKind;
use crate::session::store::{Unavailable, outbox};
use crate::session::{Common, Unopened};
use crate::telemetry::audit::{Event, Facts};
use crate::telemetry::for_request;

/// When an errand is due for others, should this process not come to an end with it: both first tries, and a
/// little more.
const FIRST_TRIES: Duration = Duration::from_secs(2 * TRY.as_secs() + 10);

/// How often the outbox is looked at, about.
const INTERVAL: Duration = Duration::from_secs(3);

/// How many errands are fetched at a time.
const BATCH: usize = 32;

/// No further errand of a batch is begun after this time.
const BATCH_TIME: Duration = Duration::from_secs(30);

/// For how long a fetched errand is ours: what a crash in the middle costs.
const LEASE: Duration = Duration::from_secs(90);

/// How soon an errand that is for other gateways to run is looked at again.
const ELSEWHERE: Duration = Duration::from_secs(60);

/// How many first tries there are at a time, and how long one waits for its turn before it is left to the drain:
/// when very many sessions end at once, the issuer is to see them one after the other.
const MOST_FIRST_TRIES: usize = 16;
const WAIT_FOR_TURN: Duration = Duration::from_secs(5);

/// How many errands may wait here while the store is away.
const MOST_KEPT_HERE: usize = 10_000;

/// The pauses between tries while both store and issuer are away.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The outbox, as all apps of a process use it.
#[derive(Debug)]
pub struct Outbox {
    common: Arc<Common>,
    /// Something is due that was not before.
    is_due: Arc<Notify>,
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// Where an errand is while it is tried the first time.
enum Kept {
    /// In the store, under this id.
    Posted(String),
    /// Here alone: the store is away.
    Here(outbox::Errand),
    /// Nowhere: it is not worth another try.
    Nowhere,
}

/// An errand that was fetched, and whom to ask.
struct Fetched {
    id: String,
    errand: Errand,
    issuer: Issuer,
}

impl Outbox {
    /// The outbox of the store that all sessions lie in.
    pub fn new(common: Arc<Common>) -> Self {
        Self {
            common,
            is_due: Arc::default(),
            turns: Arc::new(Semaphore::new(MOST_FIRST_TRIES)),
            places: Arc::new(Semaphore::new(MOST_KEPT_HERE)),
        }
    }

    /// The same outbox under the keys that these sessions have.
    #[must_use]
    pub fn under(&self, common: Arc<Common>) -> Self {
        let (is_due, turns) = (Arc::clone(&self.is_due), Arc::clone(&self.turns));
        Self { common, is_due, turns, places: Arc::clone(&self.places) }
    }

    /// Posts, asks the issuer once, and strikes what it has answered.
    pub(super) async fn revoke(self: &Arc<Self>, issuer: &Issuer, subject: &str, all: &[Unwanted<'_>]) {
        let now = self.common.now();
        let errands: Vec<_> =
            all.iter().map(|unwanted| Errand::new(issuer, subject, unwanted, now)).collect();
        if issuer.grants.is_known_not_to_revoke(&issuer.url) {
            errands.iter().for_each(|errand| self.count(errand, "not_offered"));
            return;
        }
        // All of them before the first try: a crash in the middle of it must lose none.
        let kept = self.keep(&errands).await;
        let turn = tokio::time::timeout(WAIT_FOR_TURN, self.turns.acquire()).await.ok();
        for (errand, kept) in errands.into_iter().zip(kept) {
            let tried = match &turn {
                Some(_) => issuer.run(&errand).await,
                None => Tried::Missed { retry_after: Duration::ZERO },
            };
            match (tried, kept) {
                (Tried::Settled(result), kept) => {
                    self.count(&errand, result);
                    if let Kept::Posted(id) = kept {
                        self.strike(&id).await;
                    }
                }
                (Tried::Missed { retry_after }, Kept::Posted(id)) => {
                    self.postpone(&id, &errand, retry_after).await;
                }
                (Tried::Missed { .. }, Kept::Here(entry)) => self.keep_here(issuer, errand, entry),
                (Tried::Missed { .. }, Kept::Nowhere) => self.give_up(&errand),
            }
        }
    }

    /// Runs what is due, until it is told to stop, and then what it has begun. `apps` are those of this gateway.
    pub async fn drain(self: Arc<Self>, apps: Vec<Revocations>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(unavailable) = self.run_due(&apps).await {
                tracing::debug!(event = "outbox.unavailable", error = %unavailable);
            }
            let pause = INTERVAL.mul_f64(0.5 + self.common.random().fraction());
            tokio::select! {
                biased;
                () = self.is_due.notified() => {}
                () = stop.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn keep(&self, errands: &[Errand]) -> Vec<Kept> {
        let now = self.common.now();
        let mut store_is_away = false;
        let mut all = Vec::with_capacity(errands.len());
        for errand in errands {
            if errand.is_over(now) {
                all.push(Kept::Nowhere);
                continue;
            }
            let entry = self.common.seal_errand(&errand.encode(), now + FIRST_TRIES);
            // The issuer must not wait for a store that has just been found away.
            store_is_away = store_is_away || self.common.post_errand(&entry).await.is_err();
            all.push(if store_is_away { Kept::Here(entry) } else { Kept::Posted(entry.id) });
        }
        all
    }

    /// Neither the store nor the issuer is there: goes on in a task of its own until one of them is. A
    /// shutdown waits for it within its grace.
    fn keep_here(self: &Arc<Self>, issuer: &Issuer, errand: Errand, entry: outbox::Errand) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return self.give_up(&errand);
        };
        tracing::warn!(event = "outbox.store_unavailable", "a revocation waits in this process");
        let (outbox, issuer) = (Arc::clone(self), issuer.clone());
        self.common.tasks().spawn(for_request(outbox.wait_for_either(issuer, errand, entry, place)));
    }

    async fn wait_for_either(
        self: Arc<Self>,
        issuer: Issuer,
        errand: Errand,
        mut entry: outbox::Errand,
        _place: OwnedSemaphorePermit,
    ) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            sleep(pause.mul_f64(0.5 + self.common.random().fraction())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            entry.due_at = self.common.now();
            if errand.is_over(entry.due_at) {
                return self.give_up(&errand);
            }
            if self.common.post_errand(&entry).await.is_ok() {
                self.count(&errand, "postponed");
                self.is_due.notify_one();
                return;
            }
            if let Tried::Settled(result) = issuer.run(&errand).await {
                self.count(&errand, result);
                // It may have been posted, and the answer lost.
                return self.strike(&entry.id).await;
            }
        }
    }

    async fn run_due(self: &Arc<Self>, apps: &[Revocations]) -> Result<(), Unavailable> {
        loop {
            let (fetched, count) = self.fetch(apps).await?;
            // One issuer does not wait for another; and none is asked for more than one thing at a time, so that
            // one that comes back is not trampled.
            let mut by_issuer = BTreeMap::<_, Vec<_>>::new();
            for fetched in fetched {
                by_issuer.entry(Arc::clone(&fetched.issuer.url)).or_default().push(fetched);
            }
            let mut runs: JoinSet<()> =
                by_issuer.into_values().map(|all| Arc::clone(self).run(all)).collect();
            while runs.join_next().await.is_some() {}
            if count < BATCH {
                break;
            }
        }
        self.common.metrics().set_outbox(self.common.count_errands().await?);
        Ok(())
    }

    /// Some of what is due, and how much was looked at for it.
    async fn fetch(&self, apps: &[Revocations]) -> Result<(Vec<Fetched>, usize), Unavailable> {
        let mut all = Vec::new();
        for count in 0..BATCH {
            let until = self.common.now() + LEASE;
            let Some(entry) = self.common.fetch_errand(until).await? else { return Ok((all, count)) };
            let Some(errand) = self.read(&entry).await else { continue };
            if errand.is_over(self.common.now()) {
                self.give_up(&errand);
                self.strike(&entry.id).await;
                continue;
            }
            let mut issuers = apps.iter().flat_map(|app| app.issuers.iter());
            match issuers.find(|issuer| issuer.is_for(&errand)) {
                Some(issuer) => all.push(Fetched { id: entry.id, errand, issuer: issuer.clone() }),
                None => self.leave_to_others(&entry.id).await,
            }
        }
        Ok((all, BATCH))
    }

    async fn read(&self, entry: &outbox::Errand) -> Option<Errand> {
        match self.common.open_errand(entry).map(|content| Errand::decode(&content)) {
            Ok(Some(errand)) => Some(errand),
            // Written by a newer gateway, or sealed for others.
            Ok(None) => {
                tracing::warn!(event = "outbox.errand_unknown", "it is left to newer gateways");
                self.leave_to_others(&entry.id).await;
                None
            }
            Err(reason @ Unopened::OtherKey) => {
                tracing::warn!(event = "outbox.errand_unreadable", %reason, "it is left to other gateways");
                self.leave_to_others(&entry.id).await;
                None
            }
            Err(reason @ Unopened::Altered) => {
                tracing::error!(event = "outbox.errand_unreadable", %reason, "it is thrown away");
                self.common.metrics().count_revocation("", "given_up");
                self.strike(&entry.id).await;
                None
            }
        }
    }

    /// Runs errands of one issuer, one after the other, for as long as it answers.
    async fn run(self: Arc<Self>, mut all: Vec<Fetched>) {
        let started = Instant::now();
        let mut leave_alone = None;
        // R51: refresh tokens first.
        all.sort_by_key(|fetched| fetched.errand.kind != TokenKind::RefreshToken);
        for Fetched { id, errand, issuer } in all {
            if started.elapsed() > BATCH_TIME {
                leave_alone.get_or_insert_default();
            }
            if let Some(retry_after) = leave_alone {
                self.postpone(&id, &errand, retry_after).await;
                continue;
            }
            match issuer.run(&errand).await {
                Tried::Settled(result) => {
                    self.count(&errand, result);
                    self.strike(&id).await;
                }
                Tried::Missed { retry_after } => {
                    leave_alone = Some(retry_after);
                    self.postpone(&id, &errand, retry_after).await;
                }
            }
        }
    }

    async fn postpone(&self, id: &str, errand: &Errand, at_least: Duration) {
        self.count(errand, "postponed");
        let due_at = errand.next_try(self.common.now(), at_least, self.common.random().fraction());
        if let Err(unavailable) = self.common.postpone_errand(id, due_at).await {
            tracing::debug!(event = "outbox.unavailable", error = %unavailable);
        }
    }

    async fn leave_to_others(&self, id: &str) {
        let due_at = self.common.now() + ELSEWHERE.mul_f64(0.5 + self.common.random().fraction());
        if let Err(unavailable) = self.common.postpone_errand(id, due_at).await {
            tracing::debug!(event = "outbox.unavailable", error = %unavailable);
        }
    }

    async fn strike(&self, id: &str) {
        if let Err(unavailable) = self.common.strike_errand(id).await {
            tracing::warn!(event = "outbox.not_struck", error = %unavailable, "it may be run once more");
        }
    }

    fn give_up(&self, errand: &Errand) {
        self.count(errand, "given_up");
        let app = errand.app.as_str();
        match errand.kind {
            TokenKind::RefreshToken => {
                tracing::error!(event = "revocation.given_up", app, "a refresh token lives on at the issuer");
            }
            TokenKind::AccessToken => {
                tracing::warn!(event = "revocation.given_up", app, "an access token lived out its time");
            }
        }
    }

    fn count(&self, errand: &Errand, result: &'static str) {
        self.common.metrics().count_revocation(&errand.app, result);
        let (event, reason) = match result {
            "revoked" => (Event::RevocationDone, None),
            "postponed" => return,
            reason => (Event::RevocationGivenUp, Some(reason)),
        };
        let facts = Facts {
            app: &errand.app,
            issuer: Some(&errand.issuer),
            user: errand.subject.as_deref(),
            kind: Some(errand.kind.as_str()),
            reason,
            ..Facts::default()
        };
        self.common.audit().note(event, &facts);
    }
}

impl Issuer {
    fn is_for(&self, errand: &Errand) -> bool {
        *self.url == *errand.issuer && *self.client_id == *errand.client_id
    }
}
