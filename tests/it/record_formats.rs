//! Two versions of the gateway share a store during an upgrade. There is only one version yet, so the other one's
//! records are made here: opened with the key that lies in the cookie, changed, and sealed again.

use std::time::Duration;

use cloakroom::random::Random;
use cloakroom::seal::{Context, DataKey, Purpose};
use cloakroom::session::cookie::Ticket;
use http::Method;
use serde_json::{Value, json};

use crate::support::browser::{Answer, Browser};
use crate::support::gateway::{Gateway, ORIGIN, SESSION_COOKIE};
use crate::support::log::Log;
use crate::support::metrics::count;
use crate::support::redis::Redis;
use crate::support::secrets::ring;
use crate::support::shop::Shop;
use crate::support::wait::until;

/// Two gateways over one Redis, each with a browser that has the same cookie, and the only record.
struct Upgrade {
    redis: Redis,
    shop: Shop,
    neighbour: Gateway,
    browser: Browser,
    /// The record's name in Redis.
    name: String,
    data_key: DataKey,
}

impl Upgrade {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let shop = Shop::open_with(|_, setup| setup.store_in(&redis)).await;
        let neighbour = shop.setup.start().await;
        let browser = shop.user().await;
        let names: Vec<String> = redis.command(&["KEYS", "cloakroom:session:*}"]).await;
        let [name] = names.try_into().expect("one record");
        let data_key = ticket(&browser.session_cookie().unwrap()).data_key;
        Self { redis, shop, neighbour, browser, name, data_key }
    }

    /// The record as another version of the gateway has written it. Nothing that a gateway has open counts.
    async fn rewritten(&self, change: impl FnOnce(&mut Value)) {
        let mut plaintext = self.plaintext().await;
        change(&mut plaintext);
        let plaintext = serde_json::to_vec(&plaintext).unwrap();
        let sealed = self.data_key.seal(Random::SYSTEM, &self.context(), &plaintext);
        let mut client = redis::Client::open(self.redis.url()).unwrap().get_connection().unwrap();
        redis::cmd("HSET").arg(&self.name).arg("sealed").arg(sealed).exec(&mut client).unwrap();
    }

    async fn plaintext(&self) -> Value {
        let sealed: Vec<u8> = self.redis.command(&["HGET", &self.name, "sealed"]).await;
        let plaintext = self.data_key.open(&self.context(), &sealed).expect("the record opens");
        serde_json::from_slice(&plaintext).unwrap()
    }

    fn context(&self) -> Context<'_> {
        let (_, rest) = self.name.split_once('{').unwrap();
        let key = rest.strip_suffix('}').unwrap();
        Context { purpose: Purpose::SessionRecord, name: key, app: ORIGIN }
    }

    async fn field<T: redis::FromRedisValue>(&self, field: &str) -> T {
        self.redis.command(&["HGET", &self.name, field]).await
    }

    /// The same browser at the other gateway, which has not seen the session before.
    fn elsewhere(&self) -> Browser {
        let mut window = self.browser.window();
        window.switch_to(self.neighbour.address);
        window
    }

    /// All that a session goes through, by turns at both gateways.
    async fn lives_its_life(mut self) {
        let mut elsewhere = self.elsewhere();
        let (first, kept) = (self.token(&mut elsewhere).await, elsewhere.session_cookie());
        assert!(elsewhere.fetch("/bff/session").await.json()["authenticated"].as_bool().unwrap());

        self.advance(300);
        let second = self.token(&mut elsewhere).await;
        assert_ne!(first, second, "refreshed");
        assert_eq!(self.field::<u64>("version").await, 2, "and written back");
        assert_eq!(self.plaintext().await.get("a_later_field"), None, "what is unknown is not written back");
        let mut browser = self.browser.window();
        assert_eq!(self.token(&mut browser).await, second, "for the other one to read");

        let before: u64 = self.field("expires_at").await;
        // Long enough for a touch, and too short for a refresh, which would race with the logout.
        self.advance(200);
        // A gateway that has not been told of the other's last touch yet leaves the next one to a later request.
        until(async || {
            self.token(&mut browser).await;
            self.field::<u64>("expires_at").await > before
        })
        .await;
        assert_eq!(elsewhere.session_cookie(), kept, "the cookie is what it was");

        let living = self.shop.issuer.living_refresh_tokens();
        let fields = [("x-csrf", "1"), ("accept", "application/json")];
        let answer = self.browser.script(Method::POST, "/bff/logout", &fields, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(self.redis.command::<u64>(&["EXISTS", &self.name]).await, 0);
        self.shop.issuer.until(|issuer| issuer.revoked().contains(&living[0])).await;
        assert_unauthenticated(&elsewhere.fetch("/api").await);
    }

    /// Calls the API, and gives the token that came upstream.
    async fn token(&self, browser: &mut Browser) -> String {
        let answer = browser.fetch("/api").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.shop.upstream.tokens().pop().unwrap()
    }

    fn advance(&self, seconds: u64) {
        self.shop.clock.advance(Duration::from_secs(seconds));
    }
}

fn ticket(cookie: &str) -> Ticket {
    let context = Context { purpose: Purpose::SessionCookie, name: SESSION_COOKIE, app: ORIGIN };
    Ticket::from_cookie(cookie, &ring(), &context).expect("a ticket")
}

fn assert_unauthenticated(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "unauthenticated"));
    assert!(answer.clears(SESSION_COOKIE));
}

#[tokio::test]
async fn a_record_of_a_later_gateway_lives_its_life_here() {
    let upgrade = Upgrade::start().await;
    upgrade
        .rewritten(|plaintext| {
            plaintext["a_later_field"] = json!({"of": ["any", "shape"]});
            plaintext["another"] = Value::Null;
        })
        .await;
    upgrade.redis.command::<u64>(&["HSET", &upgrade.name, "a_later_field", "beside"]).await;
    upgrade.lives_its_life().await;
}

#[tokio::test]
async fn a_record_of_an_earlier_gateway_lives_its_life_here() {
    let upgrade = Upgrade::start().await;
    upgrade
        .rewritten(|plaintext| {
            for optional in ["id_token", "scopes", "sid", "claims"] {
                plaintext.as_object_mut().unwrap().remove(optional).expect("what is written today");
            }
        })
        .await;
    // Records had none before there were indexes.
    upgrade.redis.command::<u64>(&["HDEL", &upgrade.name, "indexes"]).await;
    upgrade.lives_its_life().await;
}

#[tokio::test]
async fn a_record_of_today_can_do_without_each_field_that_is_optional() {
    let upgrade = Upgrade::start().await;
    upgrade
        .rewritten(|plaintext| {
            let needed = [
                "format",
                "version",
                "created_at",
                "expires_at",
                "access_token",
                "access_token_issued_at",
                "access_token_expires_at",
                "iss",
                "sub",
            ];
            plaintext.as_object_mut().unwrap().retain(|name, _| needed.contains(&name.as_str()));
        })
        .await;
    assert_eq!(upgrade.elsewhere().fetch("/api").await.status, 200);
}

#[tokio::test]
async fn a_record_of_an_unknown_format_counts_as_absent_loudly_and_is_left_to_those_who_know_it() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let upgrade = Upgrade::start().await;
    upgrade.rewritten(|plaintext| plaintext["format"] = json!(2)).await;
    let before = upgrade.plaintext().await;
    let mut elsewhere = upgrade.elsewhere();
    log.take();
    assert_unauthenticated(&elsewhere.fetch("/api").await);
    let logged = log.take();
    assert!(logged.contains("session.record_unreadable"), "{logged}");
    assert!(logged.contains("the format 2 is unknown"), "{logged}");
    let unreadable = "cloakroom_session_cache_total{result=\"unreadable\"}";
    assert_eq!(count(upgrade.neighbour.admin, unreadable).await, 1);
    assert_eq!(upgrade.plaintext().await, before);
    assert_eq!(upgrade.shop.issuer.token_requests("refresh_token"), 0);

    elsewhere.log_in("/shop").await;
    assert_eq!(elsewhere.fetch("/api").await.status, 200);
}
