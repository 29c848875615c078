//! Logins by a code that the user types into another device (RFC 8628).

use std::time::Duration;

use cookie::SameSite;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::browser::{Answer, Browser};
use crate::support::clock::clock;
use crate::support::gateway::{ORIGIN, SESSION_COOKIE, Setup};
use crate::support::issuer::{CLIENT_ID, Draft, Endpoint, Fault, Issuer, Signature};
use crate::support::shop::Shop;
use crate::support::upstream::Upstream;
use crate::support::wait::until;

const DEVICE_COOKIE: &str = "__Host-cloakroom-device";
/// Ends a login that shows this code.
type End<'a> = &'a dyn Fn(&Value);

type Tamper = fn(&mut Draft);

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

async fn shop() -> Shop {
    shop_with(|_, _| {}).await
}

async fn shop_with(change: impl FnOnce(&Issuer, &mut Setup)) -> Shop {
    Shop::open_with(|issuer, setup| {
        setup.oidc += "\ndevice_authorization: true";
        change(issuer, setup);
    })
    .await
}

impl Shop {
    /// Lets enough time pass for the issuer to be asked again.
    fn pass_interval(&self) {
        self.clock.advance(Duration::from_secs(5));
    }

    /// How often the issuer was asked.
    fn polls(&self) -> usize {
        self.issuer.token_requests(GRANT_TYPE)
    }
}

async fn post(browser: &mut Browser, target: &str) -> Answer {
    browser.script(Method::POST, target, &[("x-csrf", "1")], "").await
}

/// Begins a login, and gives what the app shows of it.
async fn begin(browser: &mut Browser) -> Value {
    let answer = post(browser, "/bff/device").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn status(browser: &mut Browser) -> Value {
    let answer = post(browser, "/bff/device/poll").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["status"].clone()
}

async fn user(browser: &mut Browser) -> Value {
    browser.fetch("/bff/session").await.json()["user"]["sub"].clone()
}

#[tokio::test]
async fn rfc8628_the_app_shows_a_code_and_gets_a_session_once_the_user_has_said_yes() {
    let shop = shop().await;
    let mut browser = shop.browser();
    let answer = post(&mut browser, "/bff/device").await;
    let shown = answer.json();
    assert_eq!(shown["app"], ORIGIN);
    assert_eq!(shown["user_code"], "CODE-0");
    assert_eq!(shown["verification_uri"], format!("{}/activate", shop.issuer.url()));
    assert_eq!(
        (&shown["expires_in"], &shown["interval"]),
        (&json!(600), &json!(5)),
        "of the issuer's 15 minutes"
    );
    assert!(shown["qr"].as_str().unwrap().starts_with("<svg "), "{shown}");
    assert!(shown["notice"].as_str().unwrap().contains(ORIGIN), "{shown}");
    assert_eq!(shown["verification_uri_complete"], Value::Null, "the code is to be typed in");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let cookie = answer.set_cookies().pop().unwrap();
    assert_eq!((cookie.name(), cookie.path(), cookie.domain()), (DEVICE_COOKIE, Some("/"), None));
    assert_eq!((cookie.secure(), cookie.http_only()), (Some(true), Some(true)));
    assert_eq!(
        (cookie.same_site(), cookie.max_age().unwrap().whole_seconds()),
        (Some(SameSite::Strict), 600)
    );

    assert_eq!((status(&mut browser).await, shop.polls()), (json!("pending"), 0), "it is too early to ask");
    shop.pass_interval();
    let answer = post(&mut browser, "/bff/device/poll").await;
    assert_eq!((answer.json(), shop.polls()), (json!({"status": "pending", "interval": 5}), 1));
    assert!(answer.set_cookies().is_empty());

    shop.issuer.approve_device(&shown["user_code"]);
    shop.pass_interval();
    let answer = post(&mut browser, "/bff/device/poll").await;
    assert_eq!(answer.json(), json!({"status": "authenticated"}));
    assert!(answer.clears(DEVICE_COOKIE));
    assert_eq!(user(&mut browser).await, "alice");
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    assert_eq!(status(&mut browser).await, "expired", "once");
    let asked = shop.issuer.received_at(Endpoint::AuthorizeDevice).pop().unwrap();
    assert_eq!(asked.field("scope"), Some("openid profile offline_access"));
    assert!(
        asked.headers["authorization"].to_str().unwrap().starts_with("Basic "),
        "the client proves itself"
    );
}

#[tokio::test]
async fn rfc8628_the_device_code_stays_with_the_gateway() {
    let shop = shop().await;
    let mut browser = shop.browser();
    let answer = post(&mut browser, "/bff/device").await;
    shop.pass_interval();
    post(&mut browser, "/bff/device/poll").await;
    let asked = shop.issuer.received_at(Endpoint::Token).pop().unwrap();
    let device_code = asked.field("device_code").unwrap();
    let seen = format!("{} {:?} {:?}", answer.text(), answer.headers, browser.cookie(DEVICE_COOKIE));
    assert!(!seen.contains(device_code), "{seen}");
    // Nor does an upstream see the cookie.
    browser.fetch("/").await;
    assert!(!shop.upstream.last().headers.contains_key("cookie"), "{:?}", shop.upstream.last().headers);
}

#[tokio::test]
async fn rfc8628_it_is_off_unless_asked_for_and_for_the_apps_own_scripts_alone() {
    let off = Shop::open().await;
    for path in ["/bff/device", "/bff/device/poll"] {
        let answer = post(&mut off.browser(), path).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "not-found"), "{path}");
    }
    let shop = shop().await;
    let requests: [&[(&str, &str)]; 4] = [
        &[],
        &[("x-csrf", "0")],
        &[("x-csrf", "1"), ("sec-fetch-site", "cross-site")],
        &[("x-csrf", "1"), ("origin", "https://evil.example")],
    ];
    for path in ["/bff/device", "/bff/device/poll"] {
        for fields in requests {
            let answer = shop.browser().script(Method::POST, path, fields, "").await;
            assert_eq!(
                (answer.status.as_u16(), answer.problem().as_str()),
                (403, "csrf"),
                "{path} {fields:?}"
            );
        }
        let answer = shop.browser().fetch(path).await;
        assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()), (405, "POST"));
    }
    assert!(shop.issuer.received_at(Endpoint::AuthorizeDevice).is_empty());
}

#[tokio::test]
async fn rfc8628_no_other_browser_gets_the_session() {
    let shop = shop().await;
    let (mut browser, mut thief) = (shop.browser(), shop.browser());
    let shown = begin(&mut browser).await;
    shop.issuer.approve_device(&shown["user_code"]);
    shop.pass_interval();
    assert_eq!(status(&mut thief).await, "expired");
    for forged in ["", "forged", &browser.cookie(DEVICE_COOKIE).unwrap()[1..]] {
        thief.plant(DEVICE_COOKIE, forged);
        assert_eq!(status(&mut thief).await, "expired", "{forged}");
    }
    // A box for another purpose is none for this one.
    begin(&mut thief).await;
    thief.visit("/bff/login").await;
    let login = thief.cookie_names().into_iter().find(|name| name.contains("-login-")).unwrap();
    let sealed = thief.cookie(&login).unwrap();
    thief.plant(DEVICE_COOKIE, &sealed);
    assert_eq!(status(&mut thief).await, "expired");
    assert_eq!(shop.polls(), 0);
    assert_eq!(status(&mut browser).await, "authenticated");
}

#[tokio::test]
async fn rfc8628_however_many_tabs_ask_the_issuer_is_asked_once_in_an_interval() {
    let shop = shop().await;
    let mut browser = shop.browser();
    begin(&mut browser).await;
    for polls in 1..=3 {
        shop.pass_interval();
        let mut asks = JoinSet::new();
        for _ in 0..20 {
            let mut window = browser.window();
            asks.spawn(async move { status(&mut window).await });
        }
        assert!(asks.join_all().await.iter().all(|status| status == "pending"));
        assert_eq!(shop.polls(), polls);
    }
}

#[tokio::test]
async fn rfc8628_slow_down_adds_five_seconds_to_the_interval() {
    let shop = shop().await;
    let mut browser = shop.browser();
    begin(&mut browser).await;
    shop.pass_interval();
    for (polls, interval) in [(1, 10), (2, 15)] {
        shop.issuer.fail_once(Endpoint::Token, Fault::error(400, "slow_down"));
        let slower = json!({"status": "pending", "interval": interval});
        assert_eq!(
            (post(&mut browser, "/bff/device/poll").await.json(), shop.polls()),
            (slower.clone(), polls)
        );
        shop.clock.advance(Duration::from_secs(interval - 1));
        assert_eq!((post(&mut browser, "/bff/device/poll").await.json(), shop.polls()), (slower, polls));
        shop.clock.advance(Duration::from_secs(1));
    }
    assert_eq!((status(&mut browser).await, shop.polls()), (json!("pending"), 3));
}

#[tokio::test]
async fn rfc8628_a_login_that_was_refused_or_took_too_long_is_over() {
    let shop = shop().await;
    let over: [(&str, End<'_>); 4] = [
        ("denied", &|code| shop.issuer.deny_device(code)),
        ("expired", &|_| shop.issuer.fail_once(Endpoint::Token, Fault::error(400, "expired_token"))),
        ("expired", &|_| shop.issuer.fail_once(Endpoint::Token, Fault::invalid_grant())),
        ("expired", &|_| shop.clock.advance(Duration::from_secs(600))),
    ];
    for (said, end) in over {
        let mut browser = shop.browser();
        let shown = begin(&mut browser).await;
        end(&shown["user_code"]);
        shop.pass_interval();
        let answer = post(&mut browser, "/bff/device/poll").await;
        assert_eq!(answer.json(), json!({"status": said}));
        assert!(answer.clears(DEVICE_COOKIE) && browser.session_cookie().is_none());
        let polls = shop.polls();
        assert_eq!((status(&mut browser).await, shop.polls()), (json!("expired"), polls));
    }
}

#[tokio::test]
async fn r23_rfc8628_a_login_on_another_device_is_a_new_session_and_ends_the_one_before() {
    let shop = shop().await;
    let mut browser = shop.user().await;
    let (before, mut stale) = (browser.session_cookie().unwrap(), browser.window());
    let revoked = shop.issuer.living_refresh_tokens();
    let shown = begin(&mut browser).await;
    assert_eq!(browser.session_cookie().unwrap(), before);
    shop.issuer.approve_device(&shown["user_code"]);
    shop.pass_interval();
    assert_eq!(status(&mut browser).await, "authenticated");
    assert_ne!(browser.session_cookie().unwrap(), before);
    assert_eq!(stale.fetch("/api/orders").await.problem(), "unauthenticated");
    until(async || shop.issuer.revoked().contains(&revoked[0])).await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
}

#[tokio::test]
async fn r11_r12_r14_rfc8628_a_faulty_id_token_logs_nobody_in() {
    let tampers: [(&str, Tamper); 6] = [
        ("a foreign signature", |draft| draft.signature = Signature::Foreign),
        ("another client's", |draft| draft.claims["aud"] = json!("other")),
        ("another issuer's", |draft| draft.claims["iss"] = json!("https://evil.example")),
        ("expired", |draft| draft.claims["exp"] = json!(1)),
        ("another access token's", |draft| draft.claims["at_hash"] = json!("x")),
        ("another login's", |draft| draft.claims["nonce"] = json!("of a login by code")),
    ];
    let shop = shop().await;
    for (what, tamper) in tampers {
        shop.issuer.tamper(tamper);
        fails(&shop, what).await;
    }
    shop.issuer.behave(|behaviour| behaviour.tamper = None);
    let without = json!({"access_token": "a", "token_type": "Bearer"});
    shop.issuer.fail(Endpoint::Token, Fault::json(200, without));
    fails(&shop, "no ID token").await;
    shop.issuer.fail(Endpoint::Token, Fault::invalid_client());
    fails(&shop, "the client is refused").await;
}

/// A login that the user has approved comes to nothing, and is over.
async fn fails(shop: &Shop, what: &str) {
    let mut browser = shop.browser();
    let shown = begin(&mut browser).await;
    shop.issuer.approve_device(&shown["user_code"]);
    shop.pass_interval();
    let answer = post(&mut browser, "/bff/device/poll").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "login-failed"), "{what}");
    assert!(answer.clears(DEVICE_COOKIE) && browser.session_cookie().is_none(), "{what}");
    assert!(!answer.text().contains("the issuer's own words"), "{what}");
}

#[tokio::test]
async fn r15_rfc8628_what_the_app_asks_of_each_login_is_asked_of_this_one_too() {
    let parameters = "\nauthorization_parameters: {acr_values: gold, max_age: 300, audience: \"https://api.test\"}\n\
        resource: [\"https://orders.test\"]\nclaims: {id_token: {email: {essential: true}}}";
    let shop = shop_with(|_, setup| setup.oidc += parameters).await;
    fails(&shop, "no acr").await;
    let asked = shop.issuer.received_at(Endpoint::AuthorizeDevice).pop().unwrap();
    for (name, value) in [
        ("acr_values", "gold"),
        ("max_age", "300"),
        ("audience", "https://api.test"),
        ("resource", "https://orders.test"),
        ("claims", "{\"id_token\":{\"email\":{\"essential\":true}}}"),
    ] {
        assert_eq!(asked.field(name), Some(value), "{name}");
    }
    let redeemed = shop.issuer.received_at(Endpoint::Token).pop().unwrap();
    assert_eq!(redeemed.field("resource"), Some("https://orders.test"));
    shop.issuer.behave(|behaviour| behaviour.device_acr = Some("silver".to_owned()));
    fails(&shop, "another acr").await;
    shop.issuer.behave(|behaviour| behaviour.device_acr = Some("gold".to_owned()));
    shop.issuer
        .tamper(|draft| draft.claims["auth_time"] = json!(draft.claims["iat"].as_u64().unwrap() - 361));
    fails(&shop, "too long ago").await;
    shop.issuer.behave(|behaviour| behaviour.tamper = None);
    let mut browser = shop.browser();
    let shown = begin(&mut browser).await;
    shop.issuer.approve_device(&shown["user_code"]);
    shop.pass_interval();
    assert_eq!(status(&mut browser).await, "authenticated");
}

#[tokio::test]
async fn rfc8628_an_issuer_in_trouble_leaves_a_login_under_way() {
    let shop = shop().await;
    let mut browser = shop.browser();
    let shown = begin(&mut browser).await;
    shop.issuer.approve_device(&shown["user_code"]);
    for fault in [Fault::status(503), Fault::ResetBefore, Fault::html(500), Fault::status(429)] {
        shop.issuer.fail_once(Endpoint::Token, fault.clone());
        shop.pass_interval();
        let answer = post(&mut browser, "/bff/device/poll").await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (503, "issuer-unavailable"),
            "{fault:?}"
        );
        assert!(answer.set_cookies().is_empty() && answer.headers.contains_key("retry-after"), "{fault:?}");
    }
    shop.pass_interval();
    assert_eq!(status(&mut browser).await, "authenticated");
}

#[tokio::test]
async fn rfc8628_what_an_issuer_says_is_checked_before_it_is_shown() {
    let shop = shop().await;
    let good = json!({
        "device_code": "d", "user_code": "A-1", "verification_uri": "https://id.example.com/", "expires_in": 300,
    });
    let with = |name: &str, value: Value| {
        let mut answer = good.clone();
        answer[name] = value;
        Fault::json(200, answer)
    };
    for (fault, status, code) in [
        (with("user_code", json!("<script>")), 400, "login-failed"),
        (with("verification_uri", json!("javascript:alert(1)")), 400, "login-failed"),
        (with("device_code", json!(null)), 400, "login-failed"),
        (with("expires_in", json!(0)), 400, "login-failed"),
        (Fault::html(200), 400, "login-failed"),
        (Fault::error(400, "unauthorized_client"), 400, "login-failed"),
        (Fault::huge(), 503, "issuer-unavailable"),
        (Fault::busy(7), 503, "issuer-unavailable"),
    ] {
        shop.issuer.fail_once(Endpoint::AuthorizeDevice, fault.clone());
        let mut browser = shop.browser();
        let answer = post(&mut browser, "/bff/device").await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, code), "{fault:?}");
        assert!(answer.set_cookies().is_empty(), "{fault:?}");
        assert!(!answer.text().contains("script"), "{fault:?}");
    }
    shop.issuer.fail_once(Endpoint::AuthorizeDevice, Fault::json(200, good));
    assert_eq!(begin(&mut shop.browser()).await["expires_in"], 300);
}

#[tokio::test]
async fn rfc8628_logins_that_begin_so_count_as_logins() {
    let limits = "    login_rate_limits: [{requests: 2, per: 1m, by: client}]\n".to_owned();
    let shop = shop_with(|_, setup| setup.further_apps = limits).await;
    let mut browser = shop.browser();
    for allowed in [200, 200, 429] {
        assert_eq!(post(&mut browser, "/bff/device").await.status.as_u16(), allowed);
    }
    assert_eq!(status(&mut browser).await, "pending", "asking is no login");
    assert_eq!(browser.visit("/bff/login").await.status, 429);
}

#[tokio::test]
async fn rfc8628_a_public_client_names_itself() {
    let shop = shop_with(|issuer, setup| {
        issuer.behave(|behaviour| behaviour.public_client = true);
        setup.oidc += "\nclient_auth: none";
    })
    .await;
    let mut browser = shop.browser();
    let shown = begin(&mut browser).await;
    let asked = shop.issuer.received_at(Endpoint::AuthorizeDevice).pop().unwrap();
    assert_eq!(asked.field("client_id"), Some(CLIENT_ID));
    shop.issuer.approve_device(&shown["user_code"]);
    shop.pass_interval();
    assert_eq!(status(&mut browser).await, "authenticated");
    assert!(browser.cookie(SESSION_COOKIE).is_some());
}

#[tokio::test]
async fn rfc8628_of_several_issuers_one_is_named_and_asked() {
    let clock = clock();
    let (staff, partners) =
        (Issuer::start_with(clock.clone()).await, Issuer::start_with(clock.clone()).await);
    let shop = Shop::open_among(clock, staff, Upstream::start().await, |_, setup| {
        setup.oidc += "\ndevice_authorization: true";
        setup.other_issuers = vec![("partners", partners.url())];
    })
    .await;
    let mut browser = shop.browser();
    for unclear in ["/bff/device", "/bff/device?iss=https://evil.example"] {
        let answer = post(&mut browser, unclear).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "bad-request"), "{unclear}");
    }
    let shown = post(&mut browser, &format!("/bff/device?iss={}", partners.url())).await.json();
    partners.approve_device(&shown["user_code"]);
    shop.pass_interval();
    assert_eq!(status(&mut browser).await, "authenticated");
    assert_eq!((shop.polls(), partners.token_requests(GRANT_TYPE)), (0, 1));
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
}
