//! A gateway process of the simulation: what the real one does with a request and with a logout, made of
//! the real parts below HTTP.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::Clock;
use cloakroom::config::App;
use cloakroom::oidc::Grants;
use cloakroom::random::Random;
use cloakroom::refresh::{Failure, Refresher};
use cloakroom::revocation::Revocations;
use cloakroom::seal::KeyRing;
use cloakroom::session::cookie::Ticket;
use cloakroom::session::store::Store;
use cloakroom::session::{Common, Session, Sessions};
use cloakroom::telemetry::metrics::Metrics;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::issuer::NodeGrants;
use crate::rules::Began;
use crate::store::NodeStore;
use crate::world::{NodeId, World};

/// As in `endpoints::logout`, which this follows.
const ISSUER_WAIT: Duration = Duration::from_secs(2);
const RETRY_FOR: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What all gateways are built from.
#[derive(Debug)]
pub struct Parts {
    pub app: App,
    pub ring: Arc<KeyRing>,
    pub metrics: Metrics,
    pub random: Random,
}

#[derive(Clone, Debug)]
pub struct Gateway {
    pub node: NodeId,
    world: Arc<World>,
    sessions: Arc<Sessions>,
    refresher: Refresher,
    revocations: Revocations,
    tasks: TaskTracker,
    watch: AbortHandle,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    Forwarded,
    NoSession,
    /// 503, and when to come again.
    Unavailable(Duration),
}

impl Gateway {
    pub fn start(parts: &Parts, gateway: usize, world: &Arc<World>) -> Self {
        let (node, changes) = world.begin_node(gateway);
        let store: Arc<dyn Store> = Arc::new(NodeStore { node, world: Arc::clone(world), changes });
        let grants: Arc<dyn Grants> = Arc::new(NodeGrants { node, world: Arc::clone(world) });
        let clock: Arc<dyn Clock> = world.clock.clone();
        let tasks = TaskTracker::new();
        let common = Common::new(
            Arc::clone(&parts.ring),
            store,
            world.schedule.grace,
            Arc::clone(&clock),
            parts.random,
            tasks.clone(),
            parts.metrics.clone(),
        );
        let sessions = Arc::new(Sessions::new(&parts.app, Arc::new(common)));
        let revocations = Revocations::new(Arc::clone(&grants));
        let refresher = Refresher::new(
            Arc::clone(&sessions),
            grants,
            revocations.clone(),
            clock,
            parts.random,
            parts.app.session.refresh_before_expiry,
            tasks.clone(),
        );
        let watch = tokio::spawn(Arc::clone(&sessions).watch_store()).abort_handle();
        Self { node, world: Arc::clone(world), sessions, refresher, revocations, tasks, watch }
    }

    /// The process dies: the world takes nothing from it any more.
    pub fn crash(&self) {
        self.world.crash(self.node);
        self.watch.abort();
    }

    /// Begins a user's session, as a callback does.
    pub async fn log_in(&self, user: usize) {
        let tokens = crate::issuer::tokens(&self.world, user, 0);
        self.world.truth().users.push(crate::world::User::new(tokens.expires_at));
        let identity = crate::issuer::identity(user);
        let (ticket, _) = self.sessions.create(tokens, identity).await.unwrap();
        let key = self.sessions.record_key(&ticket);
        let record = self.world.memory.read(&key).await.unwrap().unwrap();
        let end_of_life = self.world.now() + self.world.schedule.lifetime;
        let mut truth = self.world.truth();
        let of_user = &mut truth.users[user];
        (of_user.idle_deadline, of_user.end_of_life) = (record.expires_at, end_of_life);
        (of_user.ticket, of_user.key) = (Some(ticket), Some(key));
    }

    /// What `gateway::App` and its exchange do with a request that needs a token.
    pub async fn serve(&self, user: usize) -> Served {
        let (began, ticket) = self.begin(user, "request");
        let since = Instant::now();
        let loaded = self.refresher.load(&ticket).await;
        self.world.check_load(began, since);
        let session = match loaded {
            Ok(Some(session)) => session,
            Ok(None) => {
                self.world.truth().check_told_ended(began, self.world.now(), "load");
                return Served::NoSession;
            }
            Err(unavailable) => return self.unavailable(began, &unavailable, Duration::from_secs(1)),
        };
        self.world.check_loaded(began);
        self.note_activity(&ticket, &session);
        let since = Instant::now();
        let freshened = self.refresher.freshen(&ticket, session).await;
        self.world.check_freshen(began, since);
        let session = match freshened {
            Ok(session) => session,
            Err(failure) => return self.explain(began, failure),
        };
        if self.is_accepted(began, &session) {
            return Served::Forwarded;
        }
        let since = Instant::now();
        let replaced = self.refresher.replace_refused(&ticket, &session).await;
        self.world.check_replacement(began, since);
        match replaced {
            Some(Ok(session)) => {
                if self.is_accepted(began, &session) {
                    self.refresher.note_accepted(&ticket);
                }
                Served::Forwarded
            }
            Some(Err(failure @ (Failure::Ended | Failure::Gone))) => self.explain(began, failure),
            // The upstream's own word stands.
            Some(Err(Failure::Issuer { .. } | Failure::Store(_))) | None => Served::Forwarded,
        }
    }

    /// What `endpoints::logout` does: in a task of its own, the record out of the store, then the tokens
    /// revoked, and again later where the store hung.
    pub async fn log_out(&self, user: usize) {
        let (_, ticket) = self.begin(user, "logout");
        {
            let mut truth = self.world.truth();
            truth.users[user].wants_to_leave = true;
            truth.nodes[self.node].logging_out.push(user);
        }
        let _ = self.tasks.spawn(self.clone().end(user, ticket)).await;
    }

    async fn end(self, user: usize, ticket: Ticket) {
        let done = match self.sessions.load(&ticket).await {
            Err(_) => {
                self.forget_logout(user);
                false
            }
            Ok(known) => match self.sessions.end(&ticket).await {
                Ok(Some(session)) => {
                    let (this, tokens) = (self.clone(), session.tokens);
                    let revocation = self.tasks.spawn(async move {
                        this.revocations.revoke(&tokens).await;
                        this.forget_logout(user);
                    });
                    let _ = tokio::time::timeout(ISSUER_WAIT, revocation).await;
                    true
                }
                Ok(None) => {
                    self.forget_logout(user);
                    true
                }
                Err(_) => {
                    let tasks = self.tasks.clone();
                    tasks.spawn(self.clone().persist(user, ticket, known));
                    false
                }
            },
        };
        self.world.while_alive(self.node).await;
        let mut truth = self.world.truth();
        truth.note_for(
            self.node,
            user,
            format_args!("logout answered: {}", if done { "done" } else { "503" }),
        );
        let step = truth.step();
        if done {
            truth.users[user].logged_out.get_or_insert((self.node, step));
        }
    }

    async fn persist(self, user: usize, ticket: Ticket, known: Option<Arc<Session>>) {
        let ended = tokio::time::timeout(RETRY_FOR, async {
            loop {
                tokio::time::sleep(RETRY_INTERVAL).await;
                if let Ok(ended) = self.sessions.end(&ticket).await {
                    break ended;
                }
            }
        });
        if let Some(session) = ended.await.ok().and_then(|ended| ended.map(Arc::new).or(known)) {
            self.revocations.revoke(&session.tokens).await;
        }
        self.forget_logout(user);
    }

    /// One logout of this user is through; another may be under way.
    fn forget_logout(&self, user: usize) {
        let logging_out = &mut self.world.truth().nodes[self.node].logging_out;
        let one = logging_out.iter().position(|other| *other == user);
        one.map(|one| logging_out.remove(one));
    }

    fn begin(&self, user: usize, what: &str) -> (Began, Ticket) {
        let mut truth = self.world.truth();
        truth.note_for(self.node, user, format_args!("{what}"));
        let ticket = truth.users[user].ticket.clone().expect("the user has logged in");
        (Began { node: self.node, user, step: truth.step() }, ticket)
    }

    fn note_activity(&self, ticket: &Ticket, session: &Arc<Session>) {
        if !self.sessions.touch_is_due(session) {
            return;
        }
        let (sessions, ticket, session) = (Arc::clone(&self.sessions), ticket.clone(), Arc::clone(session));
        self.tasks.spawn(async move {
            let _ = sessions.touch(&ticket, &session).await;
        });
    }

    /// Forwards the request, and gives whether the upstream took the token.
    fn is_accepted(&self, began: Began, session: &Session) -> bool {
        let mut truth = self.world.truth();
        truth.check_forwarded(began, session, self.world.now());
        let refused = !truth.is_healed && truth.chance.happens(self.world.schedule.refused);
        if refused {
            truth.note_for(self.node, began.user, format_args!("the upstream refuses the token"));
        }
        !refused
    }

    fn explain(&self, began: Began, failure: Failure) -> Served {
        match failure {
            Failure::Ended | Failure::Gone => {
                self.world.truth().check_told_ended(began, self.world.now(), "refresh");
                Served::NoSession
            }
            Failure::Issuer { retry_after } => self.unavailable(began, &"the issuer", retry_after),
            Failure::Store(store) => self.unavailable(began, &store, Duration::from_secs(1)),
        }
    }

    fn unavailable(&self, began: Began, why: &dyn std::fmt::Display, retry_after: Duration) -> Served {
        self.world.truth().note_for(self.node, began.user, format_args!("503: {why}"));
        Served::Unavailable(retry_after)
    }
}
