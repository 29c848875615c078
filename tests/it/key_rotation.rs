//! A new session key takes the old one's place, gateway by gateway, and nobody is logged out
//! (docs/operations/key-rotation.md).

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::browser::{Browser, post_form};
use crate::support::gateway::{GatewayProcess, Setup};
use crate::support::issuer::Issuer;
use crate::support::metrics::count;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::until;

const FOREIGN: &str = "cloakroom_session_cache_total{result=\"foreign_key\"}";

/// Two gateways over one Redis, and a user at work at whichever of them is in service.
struct Pair {
    gateways: [Option<GatewayProcess>; 2],
    service: Arc<Mutex<Vec<SocketAddr>>>,
    worker: JoinHandle<()>,
    served: Arc<AtomicUsize>,
    users: Vec<Browser>,
    setup: Setup,
    keys: [String; 2],
    issuer: Issuer,
    _redis: Redis,
    _upstream: Upstream,
    _folder: TempDir,
}

const OLD: &[usize] = &[0];
const OLD_AND_NEW: &[usize] = &[0, 1];
const NEW_AND_OLD: &[usize] = &[1, 0];
const NEW: &[usize] = &[1];

impl Pair {
    /// Both with the old key alone.
    async fn start() -> Self {
        let (issuer, redis, upstream) =
            (Issuer::start().await, Redis::start().await, Upstream::start().await);
        let folder = tempfile::tempdir().unwrap();
        let keys = [1, 2].map(|byte| {
            let path = folder.path().join(format!("key-{byte}"));
            fs::write(&path, STANDARD.encode([byte; 32])).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            format!("{{file: {}}}", path.display())
        });
        let mut setup =
            Setup::new(&issuer.url()).for_users("/api", &upstream.url()).for_anybody("/", &upstream.url());
        setup.store_in(&redis);
        let service = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let served = Arc::<AtomicUsize>::default();
        let (worker, gateways) = (tokio::spawn(async {}), [None, None]);
        let mut pair = Self {
            gateways,
            service,
            worker,
            served,
            users: Vec::new(),
            setup,
            keys,
            issuer,
            _redis: redis,
            _upstream: upstream,
            _folder: folder,
        };
        pair.restart(0, OLD).await;
        pair.restart(1, OLD).await;
        pair.log_in(0).await;
        pair.worker =
            tokio::spawn(work(pair.users[0].window(), Arc::clone(&pair.service), Arc::clone(&pair.served)));
        pair
    }

    fn address(&self, gateway: usize) -> SocketAddr {
        self.gateways[gateway].as_ref().unwrap().address
    }

    fn admin(&self, gateway: usize) -> SocketAddr {
        self.gateways[gateway].as_ref().unwrap().admin
    }

    /// As a rolling restart does: out of service, drained, and another one with these keys in its place.
    async fn restart(&mut self, gateway: usize, keys: &[usize]) {
        if let Some(old) = self.gateways[gateway].take() {
            self.service.lock().unwrap().retain(|address| *address != old.address);
            old.signal("TERM");
            assert_eq!(old.ended().await.0, Some(0));
        }
        let keys: Vec<_> = keys.iter().map(|key| self.keys[*key].as_str()).collect();
        self.setup.keys = format!("[{}]", keys.join(", "));
        let new = self.setup.start_process().await;
        self.service.lock().unwrap().push(new.address);
        self.gateways[gateway] = Some(new);
    }

    async fn log_in(&mut self, gateway: usize) {
        let mut browser = Browser::new(self.address(gateway));
        browser.log_in("/shop").await;
        self.users.push(browser);
    }

    /// One step of the change, at this gateway first. After each restart somebody logs in at each gateway, everybody
    /// is served at both, and somebody has been at work all the while.
    async fn step(&mut self, keys: &[usize], first: usize) {
        for gateway in [first, 1 - first] {
            self.restart(gateway, keys).await;
            for gateway in [0, 1] {
                self.log_in(gateway).await;
            }
            self.all_are_served().await;
            let before = self.served.load(Ordering::SeqCst);
            until(async || self.served.load(Ordering::SeqCst) > before + 5 || self.worker.is_finished())
                .await;
            assert!(!self.worker.is_finished(), "who is at work is not logged out");
        }
    }

    async fn all_are_served(&mut self) {
        for gateway in [0, 1] {
            let address = self.address(gateway);
            for (user, browser) in self.users.iter_mut().enumerate() {
                browser.switch_to(address);
                let answer = browser.fetch("/api").await;
                assert_eq!(answer.status, 200, "user {user} at gateway {gateway}: {}", answer.text());
            }
            assert_eq!(count(self.admin(gateway), FOREIGN).await, 0);
        }
    }

    /// What a gateway says of its keys when it starts.
    fn keys_told(&self, gateway: usize) -> Vec<String> {
        let line = self.line(gateway, "session.keys").expect("the keys are told");
        line["keys"].as_str().unwrap().split(' ').map(str::to_owned).collect()
    }

    fn line(&self, gateway: usize, event: &str) -> Option<Value> {
        let lines = self.gateways[gateway].as_ref().unwrap().log();
        let mut lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.rfind(|line| line["event"] == event)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// A user who asks without a pause, where there is a gateway in service, and is never to be turned away.
async fn work(mut browser: Browser, service: Arc<Mutex<Vec<SocketAddr>>>, served: Arc<AtomicUsize>) {
    for turn in 0.. {
        // Held until it is answered: nobody takes a gateway out of service under a request.
        let address = {
            let service = service.lock().unwrap();
            service[turn % service.len()]
        };
        browser.switch_to(address);
        let is_in_service = || service.lock().unwrap().contains(&address);
        let asked = tokio::spawn({
            let mut window = browser.window();
            async move { window.fetch("/api").await }
        });
        match asked.await {
            Ok(answer) => assert_eq!(answer.status, 200, "{}", answer.text()),
            // It was taken out of service while the connection was made.
            Err(_) => assert!(!is_in_service()),
        }
        served.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_new_key_takes_the_old_ones_place_and_nobody_is_logged_out() {
    for first in [0, 1] {
        let mut pair = Pair::start().await;
        pair.log_in(1).await;
        pair.step(OLD_AND_NEW, first).await;
        let of_the_old_key = pair.users.len();
        pair.step(NEW_AND_OLD, first).await;
        assert_eq!(pair.keys_told(0), pair.keys_told(1));

        // A logout that brings no cookie finds those who logged in under either key, at either gateway.
        let token = pair.issuer.logout_token(|draft| draft.claims["sub"] = "alice".into());
        post_form(pair.address(first), "/bff/backchannel-logout", &format!("logout_token={token}")).await;
        pair.worker.abort();
        for gateway in [0, 1] {
            let address = pair.address(gateway);
            for browser in &mut pair.users {
                browser.switch_to(address);
                assert_eq!(browser.window().fetch("/api").await.problem(), "unauthenticated");
            }
        }

        // A lifetime later all who are left have logged in under the new key.
        pair.users = Vec::new();
        pair.log_in(0).await;
        pair.worker =
            tokio::spawn(work(pair.users[0].window(), Arc::clone(&pair.service), Arc::clone(&pair.served)));
        pair.step(NEW, first).await;
        assert!(of_the_old_key > 4 && pair.keys_told(first).len() == 1);
    }
}

#[tokio::test]
async fn who_puts_the_new_key_first_before_every_gateway_has_it_turns_users_away_and_is_told() {
    let mut pair = Pair::start().await;
    pair.restart(0, NEW_AND_OLD).await;
    pair.log_in(0).await;
    let there = pair.address(1);
    let browser = pair.users.last_mut().unwrap();
    browser.switch_to(there);
    assert_eq!(browser.window().fetch("/api").await.problem(), "unauthenticated");
    assert_eq!(count(pair.admin(1), FOREIGN).await, 1);
    until(async || pair.line(1, "session.foreign_key").is_some()).await;
    let line = pair.line(1, "session.foreign_key").unwrap();
    assert_eq!((&line["key"], &line["cookies"]), (&pair.keys_told(0)[0].clone().into(), &1.into()));
    assert_eq!(line["level"], "WARN");
    // Once a minute, however many come.
    for _ in 0..5 {
        pair.users.last().unwrap().window().fetch("/api").await;
    }
    assert_eq!(count(pair.admin(1), FOREIGN).await, 6);
    let told = pair.gateways[1].as_ref().unwrap().log();
    assert_eq!(told.iter().filter(|line| line.contains("session.foreign_key")).count(), 1);
    // The session is not lost: once the other gateway has the key too, it goes on there.
    pair.restart(1, OLD_AND_NEW).await;
    pair.all_are_served().await;
}

#[tokio::test]
async fn who_takes_the_old_key_out_before_its_sessions_have_ended_logs_their_users_out_and_nobody_else() {
    let mut pair = Pair::start().await;
    pair.worker.abort();
    pair.restart(0, NEW_AND_OLD).await;
    pair.restart(1, NEW_AND_OLD).await;
    pair.log_in(0).await;
    pair.restart(0, NEW).await;
    let address = pair.address(0);
    for (user, expected) in [(0, 401), (1, 200)] {
        let browser = &mut pair.users[user];
        browser.switch_to(address);
        assert_eq!(browser.window().fetch("/api").await.status, expected, "user {user}");
    }
    until(async || pair.line(0, "session.foreign_key").is_some()).await;
    assert_eq!(pair.line(0, "session.foreign_key").unwrap()["key"], pair.keys_told(1)[1]);
}

#[tokio::test]
async fn a_cookie_that_is_only_made_up_is_no_foreign_key() {
    let pair = Pair::start().await;
    let mut browser = pair.users[0].window();
    let cookie = browser.session_cookie().unwrap();
    for made_up in ["", "made-up", &cookie[..cookie.len() - 1], &format!("{}A", &cookie[..cookie.len() - 1])]
    {
        browser.plant(crate::support::gateway::SESSION_COOKIE, made_up);
        browser.fetch("/api").await;
    }
    assert_eq!(count(pair.admin(0), FOREIGN).await, 0);
}
