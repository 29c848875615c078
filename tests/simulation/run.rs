//! Runs a schedule from its seed to the verdict.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom::config;
use cloakroom::seal::KeyRing;
use cloakroom::session::store::Store;
use cloakroom::telemetry::metrics::Metrics;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chance::random_of_the_gateways;
use crate::gateway::{Gateway, Parts, Served};
use crate::schedule::{Event, Schedule};
use crate::world::{StoreOutage, World};

const CONFIGURATION: &str = r#"
server: {listen: "127.0.0.1:0"}
sessions:
  keys: [{env: SESSION_KEY}]
  store: {memory: {}}
apps:
  - origin: https://shop.example.com
    oidc:
      issuer: https://id.example.com
      client_id: shop
      client_auth: {client_secret_basic: {env: CLIENT_SECRET}}
    routes: [{path: /api, upstream: "http://127.0.0.1:9"}]
"#;

/// How long all that was on its way, or backs off, may take once everything has healed.
const CALM: Duration = Duration::from_secs(90);

/// How long an errand in the outbox may wait for its next try.
const LONGEST_ERRAND: Duration = Duration::from_secs(15 * 60);

/// How often something has panicked, be it in a task that nobody asks how it went.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What came of a schedule.
#[derive(Debug)]
pub struct Verdict {
    pub schedule: Schedule,
    pub trace: Vec<String>,
    pub faults: Vec<String>,
}

/// Runs schedules, one after the other.
pub struct Simulation(Parts);

/// The gateways of one world; one that has crashed is not there.
struct Cluster<'a> {
    parts: &'a Parts,
    world: Arc<World>,
    gateways: Vec<Option<Gateway>>,
}

impl Simulation {
    pub fn new() -> Self {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            report(panicked);
        }));
        let secret = |name: &str| match name {
            "SESSION_KEY" => Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
            "CLIENT_SECRET" => Some("a secret that nobody asks for".to_owned()),
            _ => None,
        };
        let loaded = config::parse("simulation.yaml", CONFIGURATION, &secret)
            .unwrap_or_else(|faults| panic!("{faults}"));
        let ring = Arc::new(KeyRing::new(&loaded.config.session_keys));
        let app = loaded.config.apps.into_iter().next().expect("one app");
        let (metrics, random) = (Metrics::new(), random_of_the_gateways(0));
        Self(Parts { app, ring, metrics, random })
    }

    pub fn run(&mut self, seed: u64) -> Verdict {
        let schedule = Schedule::of(seed);
        let session = &mut self.0.app.session;
        session.idle_timeout = schedule.idle_timeout;
        session.lifetime = schedule.lifetime;
        session.refresh_before_expiry = schedule.refresh_before_expiry;
        self.0.random = random_of_the_gateways(seed);
        let panics = PANICS.load(Ordering::SeqCst);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime can be built");
        let parts = &self.0;
        runtime.block_on(async {
            let world = World::new(schedule.clone(), Arc::clone(&parts.ring), seed);
            let mut cluster = Cluster { parts, world: Arc::clone(&world), gateways: Vec::new() };
            cluster.play().await;
            let mut truth = world.truth();
            if PANICS.load(Ordering::SeqCst) > panics {
                truth.fault(format_args!("something panicked"));
            }
            let (trace, faults) = (std::mem::take(&mut truth.trace), std::mem::take(&mut truth.faults));
            Verdict { schedule, trace, faults }
        })
    }
}

impl Cluster<'_> {
    async fn play(&mut self) {
        let started = Instant::now();
        let schedule = self.world.schedule.clone();
        self.gateways = (0..schedule.gateways)
            .map(|index| Some(Gateway::start(self.parts, index, &self.world)))
            .collect();
        for user in 0..schedule.users {
            self.gateway(user % schedule.gateways).expect("nothing has crashed yet").log_in(user).await;
        }
        for (at, event) in &schedule.events {
            sleep_until(started + *at).await;
            self.happen(*event);
        }
        sleep_until(started + schedule.length).await;
        self.heal();
        sleep(CALM).await;
        self.world.truth().check_written_back(self.world.now());
        self.check_sessions().await;
        self.check_indexes().await;
        self.empty_outbox().await;
        let mut truth = self.world.truth();
        truth.check_stayed_ended();
        truth.check_revoked(schedule.issuer.revokes);
        truth.check_calls(started.elapsed(), schedule.access_token_life);
    }

    fn gateway(&self, index: usize) -> Option<&Gateway> {
        self.gateways[index].as_ref()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Request { gateway, user, gives_up_after } => {
                let Some(gateway) = self.gateway(gateway).cloned() else { return };
                let request = tokio::spawn(async move { gateway.serve(user).await });
                if let Some(patience) = gives_up_after {
                    tokio::spawn(async move {
                        sleep(patience).await;
                        request.abort();
                    });
                }
            }
            Event::LogOut { gateway, user } => {
                let Some(gateway) = self.gateway(gateway).cloned() else { return };
                tokio::spawn(async move { gateway.log_out(user).await });
            }
            Event::EndUnseen { gateway, user, by } => {
                let Some(gateway) = self.gateway(gateway).cloned() else { return };
                tokio::spawn(async move { gateway.end_unseen(user, by).await });
            }
            Event::Crash { gateway } => {
                if let Some(gateway) = self.gateways[gateway].take() {
                    gateway.crash();
                }
            }
            Event::Restart { gateway } => self.restart(gateway),
            Event::StoreOutage { gateway, length, hangs } => {
                let mut truth = self.world.truth();
                let whose = gateway.map_or_else(|| "all".to_owned(), |gateway| format!("gateway {gateway}"));
                truth.note(format_args!("the store is away for {length:?} for {whose}"));
                truth.store_outages.push(StoreOutage { gateway, until: Instant::now() + length, hangs });
            }
            Event::FailOver { lost, length } => {
                tokio::spawn(Arc::clone(&self.world).fail_over(lost, length));
            }
            Event::Break { gateway, notice, length } => {
                let Some(gateway) = self.gateway(gateway) else { return };
                tokio::spawn(Arc::clone(&self.world).break_link(gateway.node, notice, length));
            }
            Event::IssuerOutage { length, outage } => {
                let mut truth = self.world.truth();
                truth.note(format_args!("issuer: {outage:?} for {length:?}"));
                truth.issuer_outage = Some((Instant::now() + length, outage));
            }
            Event::EndGrant { user } => {
                let mut truth = self.world.truth();
                truth.note(format_args!("issuer: ends the grant of user {user}"));
                truth.users[user].grant_ended.get_or_insert("the issuer ended it");
            }
        }
    }

    fn restart(&mut self, gateway: usize) {
        if self.gateways[gateway].is_none() {
            self.gateways[gateway] = Some(Gateway::start(self.parts, gateway, &self.world));
        }
    }

    fn heal(&mut self) {
        {
            let mut truth = self.world.truth();
            truth.note(format_args!("everything heals"));
            truth.is_healed = true;
            truth.store_outages.clear();
            truth.issuer_outage = None;
        }
        for gateway in 0..self.gateways.len() {
            self.restart(gateway);
        }
    }

    /// Rule 2, at the end: each session that nothing has ended can be used on each gateway, also once its
    /// access token has died.
    async fn check_sessions(&self) {
        for _ in 0..2 {
            for user in 0..self.world.schedule.users {
                for gateway in self.gateways.iter().flatten() {
                    self.check_session(gateway, user).await;
                }
            }
            sleep(self.world.schedule.access_token_life).await;
        }
    }

    /// A session is listed for as long as it lives, and no longer.
    async fn check_indexes(&self) {
        for user in 0..self.world.schedule.users {
            let is_alive = |now| self.world.truth().users[user].is_alive(now);
            for gateway in self.gateways.iter().flatten() {
                if is_alive(self.world.now()) && !gateway.finds(user).await && is_alive(self.world.now()) {
                    self.world.truth().fault(format_args!("user {user}: the session is not listed"));
                }
            }
            let (key, indexes, has_ended) = {
                let of_user = &self.world.truth().users[user];
                let has_ended = of_user.ended.is_some() && !of_user.came_back;
                (of_user.key.clone().unwrap(), of_user.indexes.clone(), has_ended)
            };
            for index in indexes {
                if has_ended && self.world.memory.list(&index).await.unwrap().contains(&key) {
                    self.world.truth().fault(format_args!("user {user}: listed though it has ended"));
                }
            }
        }
    }

    /// Waits until nothing is left to be revoked.
    async fn empty_outbox(&self) {
        let since = Instant::now();
        while since.elapsed() < LONGEST_ERRAND && !self.world.truth().errands.is_empty() {
            sleep(Duration::from_secs(15)).await;
        }
    }

    async fn check_session(&self, gateway: &Gateway, user: usize) {
        let should_live = |world: &World| {
            let truth = world.truth();
            let of_user = &truth.users[user];
            of_user.is_alive(world.now()) && of_user.grant_ended.is_none() && of_user.may_be_lost.is_none()
        };
        let mut tries = 0;
        loop {
            let expected = should_live(&self.world);
            match gateway.serve(user).await {
                Served::Forwarded => return,
                Served::NoSession if !expected || !should_live(&self.world) => return,
                Served::Unavailable(retry_after) if tries < 5 => sleep(retry_after).await,
                served @ (Served::NoSession | Served::Unavailable(_)) => {
                    if expected {
                        self.world
                            .truth()
                            .fault(format_args!("user {user}: the session is lost: {served:?}"));
                    }
                    return;
                }
            }
            tries += 1;
        }
    }
}
