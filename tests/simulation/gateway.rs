//! A gateway process of the simulation: what the real one does with a request and with a logout, made of
//! the real parts below HTTP.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cloakroom::clock::Clock;
use cloakroom::config::{App, RouteGrant, RouteToken, TokenTarget};
use cloakroom::endpoints::{Listing, Roster};
use cloakroom::oidc::Grants;
use cloakroom::random::Random;
use cloakroom::refresh::{Failure, Refresher};
use cloakroom::revocation::{Outbox, Revocations};
use cloakroom::seal::KeyRing;
use cloakroom::session::cookie::Ticket;
use cloakroom::session::store::{Store, Unavailable};
use cloakroom::session::{Cause, Common, Session, Sessions, Whose};
use cloakroom::telemetry::metrics::Metrics;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::issuer::{ISSUER, NodeGrants};
use crate::rules::Began;
use crate::schedule::By;
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
    roster: Roster,
    tasks: TaskTracker,
    watches: [AbortHandle; 2],
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
        let grants: Arc<dyn Grants> =
            Arc::new(NodeGrants { node, world: Arc::clone(world), knows_metadata: AtomicBool::new(false) });
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
        let common = Arc::new(common);
        let sessions = Arc::new(Sessions::new(&parts.app, Arc::clone(&common)));
        let outbox = Arc::new(Outbox::new(common));
        let revocations = Revocations::with_outbox(&parts.app, &grants, Arc::clone(&outbox));
        let listings = Listing::all_of(&parts.app, &sessions, &revocations);
        let roster = Roster::new(listings, tasks.clone());
        let refresher = Refresher::new(
            Arc::clone(&sessions),
            grants,
            revocations.clone(),
            clock,
            parts.random,
            parts.app.session.refresh_before_expiry,
            tasks.clone(),
        );
        let watches = [
            tokio::spawn(Arc::clone(&sessions).watch_store(false, CancellationToken::new())).abort_handle(),
            tokio::spawn(outbox.drain(vec![revocations.clone()], CancellationToken::new())).abort_handle(),
        ];
        let world = Arc::clone(world);
        Self { node, world, sessions, refresher, revocations, roster, tasks, watches }
    }

    /// The process dies: the world takes nothing from it any more.
    pub fn crash(&self) {
        self.world.crash(self.node);
        self.watches.iter().for_each(AbortHandle::abort);
    }

    /// Begins a user's session, as a callback does.
    pub async fn log_in(&self, user: usize) {
        let tokens = crate::issuer::tokens(&self.world, user, 0);
        self.world
            .truth()
            .users
            .push(crate::world::User::new(tokens.expires_at, self.world.schedule.issuer.rotates));
        let identity = crate::issuer::identity(&self.world, user);
        let (ticket, _) = self.sessions.create(tokens, identity).await.unwrap();
        let key = self.sessions.record_key(&ticket);
        let record = self.world.memory.read(&key).await.unwrap().unwrap();
        let end_of_life = self.world.now() + self.world.schedule.lifetime;
        let mut truth = self.world.truth();
        let of_user = &mut truth.users[user];
        (of_user.idle_deadline, of_user.end_of_life) = (record.expires_at, end_of_life);
        of_user.indexes.clone_from(&record.indexes);
        of_user.past.push((Instant::now(), Some(record.clone())));
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
        let wanted = self.wanted(began);
        let wanted = wanted.as_ref();
        let since = Instant::now();
        let freshened = match wanted {
            None => self.refresher.freshen(&ticket, session).await,
            Some(wanted) => self.refresher.freshen_for(&ticket, session, wanted).await,
        };
        self.world.check_freshen(began, since);
        let session = match freshened {
            Ok(session) => session,
            Err(failure) => return self.explain(began, failure),
        };
        if self.is_accepted(began, &session, wanted) {
            return Served::Forwarded;
        }
        let since = Instant::now();
        let replaced = self.refresher.replace_refused(&ticket, &session, wanted).await;
        self.world.check_replacement(began, since);
        match replaced {
            Some(Ok(session)) => {
                if self.is_accepted(began, &session, wanted) {
                    self.refresher.note_accepted(&ticket, wanted);
                }
                Served::Forwarded
            }
            Some(Err(failure @ (Failure::Ended | Failure::Gone))) => self.explain(began, failure),
            // The upstream's own word stands.
            Some(Err(Failure::Issuer { .. } | Failure::Refused | Failure::Store(_))) | None => {
                Served::Forwarded
            }
        }
    }

    /// What `endpoints::logout` does: in a task of its own, the record out of the store, then the tokens
    /// revoked, and again later where the store hung.
    pub async fn log_out(&self, user: usize) {
        let (_, ticket) = self.begin(user, "logout");
        let _ = self.tasks.spawn(self.clone().end(user, ticket)).await;
    }

    async fn end(self, user: usize, ticket: Ticket) {
        let done = match self.sessions.load_stored(&ticket).await {
            Err(_) => false,
            Ok(known) => match self.end_known(user, &ticket, known.as_deref()).await {
                Ok(Some(session)) => {
                    let this = self.clone();
                    let revocation = self.tasks.spawn(async move {
                        this.revocations.revoke(&session.identity, &session.tokens).await;
                    });
                    let _ = tokio::time::timeout(ISSUER_WAIT, revocation).await;
                    true
                }
                Ok(None) => true,
                Err(_) => {
                    self.world.truth().note_end_unanswered(self.node, user);
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
        if done {
            truth.note_logged_out(self.node, user);
        }
    }

    async fn end_known(
        &self,
        user: usize,
        ticket: &Ticket,
        known: Option<&Session>,
    ) -> Result<Option<Session>, Unavailable> {
        let token = known.and_then(|known| known.tokens.refresh_token.as_ref());
        self.world.truth().note_about_to_end(self.node, user, token);
        self.sessions.end(ticket).await
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
        match ended.await {
            Ok(ended) => {
                if let Some(session) = ended.map(Arc::new).or(known) {
                    self.revocations.revoke(&session.identity, &session.tokens).await;
                }
            }
            Err(_) => self.world.truth().note_gave_up(self.node, user),
        }
    }

    /// What `endpoints::backchannel` does with a logout token, and the admin listener with a `DELETE`.
    pub async fn end_unseen(&self, user: usize, by: By) {
        let (subject, sid) = self.names(user);
        let users: Vec<_> = {
            let users = 0..self.world.schedule.users;
            let meant = users
                .filter(|other| *other == user || (by == By::Subject && self.names(*other).0 == subject));
            meant.collect()
        };
        let whose = match by {
            By::Subject => Whose::Subject(subject),
            By::Sid => Whose::Sid(sid),
            By::SubjectAndSid => Whose::SubjectAndSid { subject, sid },
        };
        let now = self.world.now();
        let alive: Vec<_> = {
            let mut truth = self.world.truth();
            for &user in &users {
                truth.note_for(self.node, user, format_args!("is to be ended by {whose:?}"));
                let held = truth.users[user].key.as_ref().and_then(|key| self.sessions.held(key));
                let token = held.as_ref().and_then(|held| held.tokens.refresh_token.as_ref());
                truth.note_about_to_end(self.node, user, token);
            }
            users.iter().copied().filter(|user| truth.users[*user].is_alive(now)).collect()
        };
        let ended = self.roster.end(whose, Cause::Backchannel).await;
        self.world.while_alive(self.node).await;
        let is_done = ended.is_ok();
        for user in users {
            let mut truth = self.world.truth();
            truth.note_for(self.node, user, format_args!("ended: {}", if is_done { "done" } else { "503" }));
            // Where another gateway was faster, this one forgets the session when the store tells of it.
            if is_done && truth.users[user].ended_by.is_none_or(|ender| ender == self.node) {
                truth.note_logged_out(self.node, user);
            }
            if is_done && alive.contains(&user) && truth.users[user].is_alive(self.world.now()) {
                truth.fault(format_args!("user {user}: the session was not found by its index"));
            }
        }
        if !is_done {
            alive.iter().for_each(|user| self.world.truth().note_end_unanswered(self.node, *user));
            tokio::time::sleep(RETRY_FOR).await;
            alive.iter().for_each(|user| self.world.truth().note_gave_up(self.node, *user));
        }
    }

    /// Whether each index lists the session.
    pub async fn finds(&self, user: usize) -> bool {
        let key = self.world.truth().users[user].key.clone().expect("the user has logged in");
        let (subject, sid) = self.names(user);
        let by_both = Whose::SubjectAndSid { subject: subject.clone(), sid: sid.clone() };
        for whose in [Whose::Subject(subject), Whose::Sid(sid), by_both] {
            if !self.sessions.find(ISSUER, &whose).await.is_ok_and(|found| found.contains(&key)) {
                return false;
            }
        }
        true
    }

    /// What the issuer calls this user, and their session there.
    fn names(&self, user: usize) -> (String, String) {
        let identity = crate::issuer::identity(&self.world, user);
        (identity.subject, identity.sid.unwrap_or_default())
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

    /// Which token the request wants, if not the access token: by turns.
    fn wanted(&self, began: Began) -> Option<Arc<RouteToken>> {
        let grant = match began.step % 4 {
            _ if !self.world.schedule.has_route_tokens => return None,
            0 => RouteGrant::RefreshToken,
            1 => RouteGrant::TokenExchange,
            _ => return None,
        };
        let resource = Some("https://orders.example.com".to_owned());
        Some(Arc::new(RouteToken { grant, target: TokenTarget { resource, ..TokenTarget::default() } }))
    }

    /// Forwards the request, and gives whether the upstream took the token.
    fn is_accepted(&self, began: Began, session: &Session, wanted: Option<&Arc<RouteToken>>) -> bool {
        let mut truth = self.world.truth();
        let Some(held) = session.tokens.held(wanted.map(Arc::as_ref)) else {
            truth.fault(format_args!("user {}: forwarded without the token that was wanted", began.user));
            return true;
        };
        truth.check_forwarded(began, held, self.world.now());
        let refused = !truth.is_healed && truth.chance.happens(self.world.schedule.refused);
        if refused {
            truth.note_for(self.node, began.user, format_args!("the upstream refuses the token"));
            // For as long as this one lives, the refresh token is no longer spared.
            let refresh_token = session.tokens.refresh_token.as_ref();
            let beside = refresh_token.filter(|_| self.world.schedule.has_route_tokens);
            let number = crate::issuer::parse(beside.unwrap_or(&session.tokens.access_token)).1;
            truth.users[began.user].refused_access.push(number);
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
            Failure::Refused => self.unavailable(began, &"the issuer's refusal", Duration::from_secs(1)),
            Failure::Store(store) => self.unavailable(began, &store, Duration::from_secs(1)),
        }
    }

    fn unavailable(&self, began: Began, why: &dyn std::fmt::Display, retry_after: Duration) -> Served {
        self.world.truth().note_for(self.node, began.user, format_args!("503: {why}"));
        Served::Unavailable(retry_after)
    }
}
