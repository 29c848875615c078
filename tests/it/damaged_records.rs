//! What becomes of users when records in Redis are lost, damaged or moved: whose record it is logs in again, and
//! nobody else notices.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::damage::{evict, put_over, records, truncate};
use crate::support::echo::{Echo, open_tunnel};
use crate::support::gateway::{Gateway, SESSION_COOKIE, Setup};
use crate::support::issuer::Issuer;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{in_time, until};

/// Two gateways over one Redis, and users who are known to both.
struct Shops {
    redis: Redis,
    issuer: Issuer,
    gateways: [Gateway; 2],
    users: Vec<User>,
    _upstream: Upstream,
    _echo: Echo,
}

struct User {
    name: &'static str,
    /// Of the record in Redis.
    record: String,
    browser: Browser,
}

impl Shops {
    async fn open() -> Self {
        let (redis, issuer) = (Redis::start().await, Issuer::start().await);
        let (upstream, echo) = (Upstream::start().await, Echo::start().await);
        let mut setup = Setup::new(&issuer.url())
            .for_users("/api", &upstream.url())
            .route(&format!("path: /ws, upstream: \"{}\", websocket: true", echo.url))
            .for_anybody("/", &upstream.url());
        setup.store_in(&redis);
        let gateways = [setup.start().await, setup.start().await];
        let mut users: Vec<User> = Vec::new();
        for name in ["alice", "bob", "carol"] {
            issuer.behave(|behaviour| behaviour.user = json!({"sub": name}));
            let mut browser = Browser::new(gateways[0].address);
            browser.log_in("/shop").await;
            let mut new = records(&redis).await;
            new.retain(|record| users.iter().all(|user| user.record != *record));
            let record = new.pop_first().expect("a new record");
            users.push(User { name, record, browser });
        }
        let mut shops = Self { redis, issuer, gateways, users, _upstream: upstream, _echo: echo };
        for user in 0..shops.users.len() {
            shops.is_logged_in(user).await;
        }
        shops
    }

    /// At both gateways, and as nobody else.
    async fn is_logged_in(&mut self, user: usize) {
        let user = &mut self.users[user];
        for gateway in &self.gateways {
            user.browser.switch_to(gateway.address);
            let answer = user.browser.fetch("/api").await;
            assert_eq!(answer.status, 200, "{}: {}", user.name, answer.text());
            assert_eq!(user.browser.fetch("/bff/session").await.json()["user"]["sub"], user.name);
        }
    }

    /// Both gateways notice by themselves, and the user is told so once. Until then nobody else's name is told.
    async fn is_logged_out(&mut self, user: usize) {
        let user = &mut self.users[user];
        let cookie = user.browser.session_cookie().expect("a session");
        for gateway in &self.gateways {
            user.browser.switch_to(gateway.address);
            user.browser.plant(SESSION_COOKIE, &cookie);
            until(async || {
                let answer = user.browser.fetch("/bff/session").await.json();
                assert!([&json!(user.name), &Value::Null].contains(&&answer["user"]["sub"]), "{answer}");
                answer["authenticated"] == false
            })
            .await;
            user.browser.plant(SESSION_COOKIE, &cookie);
            let answer = user.browser.fetch("/api").await;
            assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "unauthenticated"));
            assert!(answer.clears(SESSION_COOKIE));
        }
    }

    async fn logs_in_again(&mut self, user: usize) {
        let name = self.users[user].name;
        self.issuer.behave(|behaviour| behaviour.user = json!({"sub": name}));
        self.users[user].browser.log_in("/shop").await;
        self.is_logged_in(user).await;
    }

    /// One user's record is no good any more.
    async fn cost_one_login(mut self, victim: usize) {
        let asked = self.issuer.received().len();
        self.is_logged_out(victim).await;
        for user in (0..self.users.len()).filter(|user| *user != victim) {
            self.is_logged_in(user).await;
        }
        assert_eq!(self.issuer.received().len(), asked, "the issuer has nothing to do with it");
        for user in [victim, 0, 1, 2] {
            match user == victim {
                true => self.logs_in_again(user).await,
                false => self.is_logged_in(user).await,
            }
        }
    }
}

#[tokio::test]
async fn an_evicted_record_costs_its_user_one_login_and_nobody_else_anything() {
    let shops = Shops::open().await;
    evict(&shops.redis, &shops.users[1].record).await;
    assert_eq!(records(&shops.redis).await.len(), 2);
    shops.cost_one_login(1).await;
}

#[tokio::test]
async fn a_truncated_record_costs_its_user_one_login_and_nobody_else_anything() {
    let shops = Shops::open().await;
    truncate(&shops.redis, &shops.users[1].record).await;
    shops.cost_one_login(1).await;
}

#[tokio::test]
async fn a_record_under_anothers_key_opens_for_neither_and_costs_that_one_a_login() {
    let shops = Shops::open().await;
    put_over(&shops.redis, &shops.users[0].record, &shops.users[1].record).await;
    shops.cost_one_login(1).await;
}

#[tokio::test]
async fn an_emptied_redis_logs_everybody_out_at_once_without_a_storm() {
    let mut shops = Shops::open().await;
    let mut tunnels = Vec::new();
    for user in &shops.users {
        for gateway in &shops.gateways {
            let cookie = user.browser.session_cookie().expect("a session");
            tunnels.push(open_tunnel(gateway.address, "/ws", &cookie).await);
        }
    }
    let asked = shops.issuer.received().len();
    shops.redis.command::<()>(&["FLUSHALL"]).await;
    for user in 0..shops.users.len() {
        shops.is_logged_out(user).await;
    }
    for mut tunnel in tunnels {
        assert!(in_time(tunnel.rest()).await.is_empty(), "closed");
    }
    assert_eq!(shops.issuer.received().len(), asked, "nobody storms the issuer");
    assert!(records(&shops.redis).await.is_empty(), "nothing brings a session back");
    for user in 0..shops.users.len() {
        shops.logs_in_again(user).await;
    }
}
