//! At the issuer: a key for each login, proved wherever its tokens come from, and nonces.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloakroom::clock::Clock;
use cloakroom::dpop::Key;
use cloakroom::random::Random;
use cloakroom::seal::{Context, Purpose};
use cloakroom::session::cookie::Ticket;
use serde_json::{Value, json};

use super::*;
use crate::support::gateway::{ORIGIN, SESSION_COOKIE};
use crate::support::redis::Redis;
use crate::support::secrets::{keys_of_logins, ring};
use crate::support::shop::{arrive, ends_the_login};

#[tokio::test]
async fn rfc9449_a_login_binds_its_code_and_all_its_tokens_to_a_key_of_its_own() {
    let shop = shop().await;
    let mut alice = shop.user().await;
    let asked = shop.issuer.received_at(Endpoint::Authorize).pop().unwrap();
    assert_eq!(call(&mut alice).await.status, 200);
    advance(&shop, 301);
    assert_eq!(call(&mut alice).await.status, 200);
    let requests = shop.issuer.received_at(Endpoint::Token);
    assert_eq!(requests[1].field("grant_type"), Some("refresh_token"));
    let refreshed = proof_of(&shop, &requests[1]);
    assert_eq!(asked.parameter("dpop_jkt"), Some(refreshed.thumbprint.as_str()));

    let mut bob = shop.browser();
    let callback = shop.begin(&mut bob, "return_to=/").await;
    arrive(&mut bob, &callback).await;
    let other = proof_of(&shop, &shop.issuer.received_at(Endpoint::Token)[2]);
    assert_ne!(other.thumbprint, refreshed.thumbprint, "each login has its own");
    assert_eq!(call(&mut bob).await.status, 200);
    assert_eq!(shop.issuer.token_requests("authorization_code"), 2);
}

#[tokio::test]
async fn rfc9449_a_nonce_of_the_token_endpoint_costs_one_more_request_and_then_none() {
    let shop = shop().await;
    change(&shop.issuer, |dpop| dpop.nonce = Some("n-1".to_owned()));
    let mut browser = shop.user().await;
    let nonces =
        |shop: &Shop| -> Vec<Option<String>> { proofs(shop).into_iter().map(|proof| proof.nonce).collect() };
    assert_eq!(nonces(&shop), [None, Some("n-1".to_owned())]);
    let code =
        |index: usize| shop.issuer.received_at(Endpoint::Token)[index].field("code").map(str::to_owned);
    assert_eq!(code(0), code(1), "the code was not used up");
    shop.user().await;
    assert_eq!(nonces(&shop).len(), 3, "it is known now");

    // Of a new one the issuer tells in each answer, and where it has changed meanwhile.
    change(&shop.issuer, |dpop| dpop.nonce = Some("n-2".to_owned()));
    shop.user().await;
    let last = nonces(&shop).split_off(3);
    assert_eq!(last, [Some("n-1".to_owned()), Some("n-2".to_owned())]);
    assert_eq!(call(&mut browser).await.status, 200);
}

#[tokio::test]
async fn rfc9449_a_refresh_whose_nonce_is_old_is_sent_once_more_and_spends_one_refresh_token() {
    let shop = shop().await;
    let mut browser = shop.user().await;
    for round in 1..3 {
        change(&shop.issuer, |dpop| dpop.nonce = Some(format!("n-{round}")));
        advance(&shop, 301);
        assert_eq!(call(&mut browser).await.status, 200);
        let seen = shop.issuer.refresh_tokens_seen();
        assert_eq!(seen.len(), 2 * round);
        assert_eq!(seen[2 * round - 2], seen[2 * round - 1]);
        assert_eq!(shop.issuer.living_refresh_tokens().len(), 1, "reuse would have ended the login");
    }
}

#[tokio::test]
async fn rfc9449_an_issuer_that_no_nonce_satisfies_is_asked_twice_and_nobody_is_logged_out() {
    let shop = shop().await;
    let mut browser = shop.user().await;
    change(&shop.issuer, |dpop| (dpop.nonce, dpop.insatiable) = (Some("n-1".to_owned()), true));
    let mut stranger = shop.browser();
    let callback = shop.begin(&mut stranger, "return_to=/").await;
    let answer = arrive(&mut stranger, &callback).await;
    ends_the_login(&stranger, &answer, 400);
    assert_eq!(shop.issuer.token_requests("authorization_code"), 1 + 2);

    advance(&shop, 301);
    let answer = call(&mut browser).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "issuer-unavailable"));
    assert_eq!(shop.issuer.token_requests("refresh_token"), 2);
    change(&shop.issuer, |dpop| dpop.insatiable = false);
    advance(&shop, 60);
    assert_eq!(call(&mut browser).await.status, 200, "the session was kept");
    assert_eq!(shop.issuer.token_requests("refresh_token"), 3);
}

#[tokio::test]
async fn rfc9449_a_nonce_that_is_absurdly_long_or_unclean_is_none() {
    let shop = shop().await;
    for nonce in ["x".repeat(5_000), "a b".to_owned(), "a\"b".to_owned()] {
        let before = shop.issuer.token_requests("authorization_code");
        change(&shop.issuer, |dpop| dpop.nonce = Some(nonce));
        let mut browser = shop.browser();
        let callback = shop.begin(&mut browser, "return_to=/").await;
        let answer = arrive(&mut browser, &callback).await;
        ends_the_login(&browser, &answer, 400);
        assert_eq!(shop.issuer.token_requests("authorization_code"), before + 1);
    }
}

#[tokio::test]
async fn rfc9449_a_bearer_token_in_answer_to_a_proof_is_a_downgrade_and_starts_no_session() {
    let shop = shop().await;
    let mut known = shop.user().await;
    change(&shop.issuer, |dpop| *dpop = Dpop { ignored: true, ..Dpop::default() });
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/").await;
    let answer = arrive(&mut browser, &callback).await;
    ends_the_login(&browser, &answer, 400);

    // In answer to a refresh it is of no more use, and the session waits for a better one.
    advance(&shop, 301);
    let answer = call(&mut known).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "issuer-unavailable"));
    assert!(shop.upstream.tokens().is_empty(), "nothing was sent as a bearer token");
}

#[tokio::test]
async fn rfc9449_userinfo_is_asked_with_a_proof_and_with_the_nonce_it_wants() {
    let shop = shop_before(Upstream::start().await, |_, setup| setup.oidc += "\nuserinfo: true").await;
    change(&shop.issuer, |dpop| dpop.nonce = Some("n-1".to_owned()));
    let mut browser = shop.user().await;
    assert_eq!(browser.fetch("/bff/session").await.json()["user"]["name"], "Alice");
    let uri = format!("{}/userinfo", shop.issuer.url());
    let asked = shop.issuer.received_at(Endpoint::Userinfo).into_iter().map(|request| {
        let token = request.headers["authorization"].to_str().unwrap().strip_prefix("DPoP ").unwrap();
        proof(&request.headers, "GET", &uri, Some(token), shop.clock_now()).unwrap().unwrap()
    });
    let asked: Vec<Proof> = asked.collect();
    // The nonces of an authorization server are not for a resource server (RFC 9449 §9).
    let nonces: Vec<_> = asked.iter().map(|proof| proof.nonce.as_deref()).collect();
    assert_eq!(nonces, [None, Some("n-1")]);
    assert!(asked.iter().all(|proof| proof.thumbprint == proofs(&shop)[0].thumbprint));
}

#[tokio::test]
async fn rfc9449_the_key_is_in_the_store_for_every_gateway_and_a_refresh_on_another_one_proves_it() {
    let redis = Redis::start().await;
    let shop = shop_before(Upstream::start().await, |_, setup| setup.store_in(&redis)).await;
    let neighbour = shop.setup.start().await;
    let mut browser = shop.user().await;
    let key = key(&shop);
    browser.switch_to(neighbour.address);
    let url = shop.upstream.url();
    for round in 1..3 {
        advance(&shop, 301);
        assert_eq!(call(&mut browser).await.status, 200);
        assert_eq!(shop.issuer.token_requests("refresh_token"), round);
        let refreshed = proof_of(&shop, &shop.issuer.received_at(Endpoint::Token)[round]);
        let (sent, _) = proved(&shop, &shop.upstream.last(), &format!("{url}/api/orders"));
        assert_eq!((&refreshed.thumbprint, &sent.thumbprint), (&key, &key));
        browser.switch_to(shop.gateway.address);
    }
}

#[tokio::test]
async fn a_session_of_before_gets_its_key_at_the_next_refresh_and_is_not_logged_out() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|_, setup| setup.store_in(&redis)).await;
    let mut browser = shop.user().await;
    let record = Record::of(&redis, &browser).await;
    assert_eq!(record.read().await.get("dpop_key"), None, "nobody pays for what is not asked for");
    let mut setup = shop.setup;
    bind(&mut setup);
    let bound = setup.start().await;
    browser.switch_to(bound.address);
    assert_eq!(call(&mut browser).await.status, 200);
    assert!(shop.upstream.last().headers.get("dpop").is_none(), "a bearer token is what it still has");
    assert_eq!(shop.upstream.tokens().len(), 1);

    shop.issuer.behave(|behaviour| behaviour.dpop.required = true);
    shop.clock.advance(Duration::from_secs(301));
    assert_eq!(call(&mut browser).await.status, 200);
    let last = shop.upstream.last();
    let sent = token(&last).expect("a token that is bound to a key");
    let uri = format!("{}/api/orders", shop.upstream.url());
    let proof = proof(&last.headers, "GET", &uri, Some(&sent), shop.clock.now().as_secs()).unwrap().unwrap();
    let kept = Key::read(record.read().await["dpop_key"].as_str().unwrap()).unwrap();
    assert_eq!(kept.thumbprint(), proof.thumbprint);
}

#[tokio::test]
async fn a_session_of_before_goes_on_with_bearer_tokens_where_the_issuer_knows_no_keys() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|_, setup| setup.store_in(&redis)).await;
    let mut browser = shop.user().await;
    let record = Record::of(&redis, &browser).await;
    let mut setup = shop.setup;
    bind(&mut setup);
    let bound = setup.start().await;
    browser.switch_to(bound.address);
    shop.issuer.behave(|behaviour| behaviour.dpop.ignored = true);
    for round in 1..4 {
        shop.clock.advance(Duration::from_secs(301));
        assert_eq!(call(&mut browser).await.status, 200);
        assert_eq!(shop.issuer.token_requests("refresh_token"), round);
        assert_eq!(shop.issuer.living_refresh_tokens().len(), 1, "none was used twice");
        assert!(shop.upstream.last().headers.get("dpop").is_none(), "nothing was bound");
        assert_eq!(record.read().await.get("dpop_key"), None);
    }
}

#[tokio::test]
async fn rfc9449_tokens_are_of_no_use_with_another_key() {
    let redis = Redis::start().await;
    let shop = shop_before(Upstream::start().await, |_, setup| setup.store_in(&redis)).await;
    let neighbour = shop.setup.start().await;
    let mut browser = shop.user().await;
    let record = Record::of(&redis, &browser).await;
    let mut plaintext = record.read().await;
    plaintext["dpop_key"] = json!(Key::generate(Random::SYSTEM).expose());
    record.write(&plaintext);
    browser.switch_to(neighbour.address);
    advance(&shop, 301);
    // To the issuer somebody has stolen the refresh token.
    assert_eq!(call(&mut browser).await.problem(), "session-ended");
}

#[tokio::test]
async fn r62_the_private_key_is_nowhere_but_sealed() {
    let redis = Redis::start().await;
    let shop = shop_before(Upstream::start().await, |_, setup| {
        setup.store_in(&redis);
        setup.oidc += "\nuserinfo: true";
    })
    .await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/").await;
    let [key] = keys_of_logins(&browser).try_into().unwrap();
    let value = browser.cookie(&browser.cookie_names()[0]).unwrap();
    arrive(&mut browser, &callback).await;
    let mut answers = vec![call(&mut browser).await, browser.fetch("/bff/session").await];
    advance(&shop, 301);
    answers.push(call(&mut browser).await);
    let record = Record::of(&redis, &browser).await;
    assert_eq!(record.read().await["dpop_key"], json!(key), "the one key from beginning to end");

    let number = URL_SAFE_NO_PAD.decode(&key).unwrap();
    let hex: String = number.iter().map(|byte| format!("{byte:02x}")).collect();
    let forms = [key, STANDARD.encode(&number), hex];
    let decoded = |text: &str| -> String {
        // Proofs and tokens are base64url, within which it would not be seen.
        let parts = text.split(['.', ' ', '"']);
        parts.filter_map(|part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()).collect()
    };
    let said = answers.iter().map(|answer| format!("{:?} {}", answer.headers, answer.text()));
    let asked = shop.issuer.received().into_iter().map(|request| {
        let fields: Vec<_> =
            request.headers.values().map(|value| value.to_str().unwrap().to_owned()).collect();
        format!("{fields:?} {:?} {:?}", request.query, request.form)
    });
    let sent = shop.upstream.arrived().into_iter().map(|arrived| {
        let fields: Vec<_> =
            arrived.headers.values().map(|value| value.to_str().unwrap().to_owned()).collect();
        format!("{} {fields:?}", arrived.target)
    });
    let visited = browser.visited.iter().map(ToString::to_string);
    let stored: Vec<u8> = redis.command(&["HGET", &record.name, "sealed"]).await;
    let stored = String::from_utf8_lossy(&stored).into_owned();
    for text in said.chain(asked).chain(sent).chain(visited).chain([value, stored]) {
        for form in &forms {
            assert!(!text.contains(form) && !decoded(&text).contains(form), "{text}");
        }
    }
}

/// The record of a browser's session.
struct Record<'a> {
    redis: &'a Redis,
    name: String,
    ticket: Ticket,
}

impl<'a> Record<'a> {
    async fn of(redis: &'a Redis, browser: &Browser) -> Self {
        let names: Vec<String> = redis.command(&["KEYS", "cloakroom:session:*}"]).await;
        let [name] = names.try_into().expect("one record");
        let context = Context { purpose: Purpose::SessionCookie, name: SESSION_COOKIE, app: ORIGIN };
        let ticket = Ticket::from_cookie(&browser.session_cookie().unwrap(), &ring(), &context).unwrap();
        Self { redis, name, ticket }
    }

    async fn read(&self) -> Value {
        let sealed: Vec<u8> = self.redis.command(&["HGET", &self.name, "sealed"]).await;
        let plaintext = self.ticket.data_key.open(&self.context(), &sealed).expect("the record opens");
        serde_json::from_slice(&plaintext).unwrap()
    }

    fn write(&self, plaintext: &Value) {
        let plaintext = serde_json::to_vec(plaintext).unwrap();
        let sealed = self.ticket.data_key.seal(Random::SYSTEM, &self.context(), &plaintext);
        let mut client = redis::Client::open(self.redis.url()).unwrap().get_connection().unwrap();
        redis::cmd("HSET").arg(&self.name).arg("sealed").arg(sealed).exec(&mut client).unwrap();
    }

    fn context(&self) -> Context<'_> {
        let (_, rest) = self.name.split_once('{').unwrap();
        Context { purpose: Purpose::SessionRecord, name: rest.strip_suffix('}').unwrap(), app: ORIGIN }
    }
}
