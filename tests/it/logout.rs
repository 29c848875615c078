//! Where a session is ended: `POST logout`.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{LOCATION, REFERRER_POLICY, RETRY_AFTER};
use serde_json::{Value, json};

use crate::support::browser::{Answer, Browser};
use crate::support::gateway::SESSION_COOKIE;
use crate::support::issuer::{CLIENT_ID, Endpoint, Fault};
use crate::support::redis::Redis;
use crate::support::shop::{Shop, arrive, location, parameter};
use crate::support::troubled_store::{Step, Trouble, TroubledStore};
use crate::support::wait::{in_time, until};

const JSON: [(&str, &str); 2] = [("x-csrf", "1"), ("accept", "application/json")];

async fn log_out_by_script(browser: &mut Browser) -> Answer {
    in_time(browser.script(Method::POST, "/bff/logout", &JSON, "")).await
}

/// The session is over: its cookie is taken back, and worth nothing to whoever kept it.
async fn is_over(shop: &Shop, answer: &Answer, cookie: &str) {
    assert!(answer.clears(SESSION_COOKIE), "{} {}", answer.status, answer.text());
    let mut thief = shop.browser();
    thief.plant(SESSION_COOKIE, cookie);
    assert_eq!(thief.fetch("/api/orders").await.problem(), "unauthenticated");
    thief.plant(SESSION_COOKIE, cookie);
    assert_eq!(thief.fetch("/bff/session").await.json(), json!({"authenticated": false}));
}

/// The tokens of the one session there is: the refresh token, then the access token.
async fn tokens(shop: &Shop, browser: &mut Browser) -> [String; 2] {
    browser.fetch("/api/orders").await;
    [shop.issuer.living_refresh_tokens().pop().unwrap(), shop.upstream.tokens().pop().unwrap()]
}

#[tokio::test]
async fn r51_r53_a_form_ends_the_session_revokes_its_tokens_and_goes_to_the_issuer_and_back() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let cookie = browser.session_cookie().unwrap();
    let tokens = tokens(&shop, &mut browser).await;

    let answer = browser.submit("/bff/logout").await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(shop.issuer.revoked(), tokens, "the refresh token, then the access token");
    let hints: Vec<_> = shop
        .issuer
        .received_at(Endpoint::Revoke)
        .iter()
        .map(|request| request.field("token_type_hint").unwrap().to_owned())
        .collect();
    assert_eq!(hints, ["refresh_token", "access_token"]);
    is_over(&shop, &answer, &cookie).await;

    let url = location(&answer);
    assert!(url.as_str().starts_with(&format!("{}/end-session?", shop.issuer.url())), "{url}");
    let hint = parameter(&url, "id_token_hint").unwrap();
    assert_eq!(hint.split('.').count(), 3, "an ID token");
    assert_eq!(parameter(&url, "client_id").as_deref(), Some(CLIENT_ID));
    let back = "https://shop.test/bff/logout/callback";
    assert_eq!(parameter(&url, "post_logout_redirect_uri").as_deref(), Some(back));
    assert!(parameter(&url, "state").is_some_and(|state| state.len() >= 16));

    let answer = browser.navigate(url.as_str()).await;
    assert_eq!((answer.status.as_u16(), answer.url.as_str()), (200, "https://shop.test/"));
    assert!(browser.visited.iter().any(|url| url.path() == "/bff/logout/callback"));
}

#[tokio::test]
async fn r53_a_script_is_told_where_to_go_and_sees_no_token() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let cookie = browser.session_cookie().unwrap();
    let tokens = tokens(&shop, &mut browser).await;
    let answer = log_out_by_script(&mut browser).await;
    assert_eq!(answer.status, 200);
    assert_eq!(shop.issuer.revoked(), tokens);
    is_over(&shop, &answer, &cookie).await;
    let Value::Object(members) = answer.json() else { panic!("{}", answer.text()) };
    assert_eq!(members.keys().collect::<Vec<_>>(), ["redirect_to"]);
    let url = url::Url::parse(members["redirect_to"].as_str().unwrap()).unwrap();
    let mut names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    names.sort_unstable();
    assert_eq!(names, ["client_id", "post_logout_redirect_uri", "state"], "no id_token_hint");
    assert!(!answer.text().contains("eyJhbGci"));
    let answer = browser.navigate(url.as_str()).await;
    assert_eq!(answer.url.as_str(), "https://shop.test/");
}

#[tokio::test]
async fn a_get_shows_a_page_that_asks_and_ends_nothing() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let page = browser.visit("/bff/logout").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<form method=\"post\" action=\"/bff/logout\">"), "{}", page.text());
    let policy = page.headers[REFERRER_POLICY].to_str().unwrap();
    assert!(!policy.contains("no-referrer"), "browsers would send Origin: null with the form: {policy}");
    assert!(page.set_cookies().is_empty());
    let answer = shop.bare(Method::HEAD, "/bff/logout", &[]).await;
    assert!([200, 405].contains(&answer.status.as_u16()));
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    assert!(shop.issuer.revoked().is_empty());
    assert_eq!(browser.submit("/bff/logout").await.status, 303);
}

#[tokio::test]
async fn r52_a_second_logout_is_no_error() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let cookie = browser.session_cookie().unwrap();
    log_out_by_script(&mut browser).await;
    for planted in [None, Some(cookie.as_str()), Some("forged")] {
        for by_script in [true, false] {
            if let Some(value) = planted {
                browser.plant(SESSION_COOKIE, value);
            }
            let answer = if by_script {
                log_out_by_script(&mut browser).await
            } else {
                browser.submit("/bff/logout").await
            };
            if by_script {
                assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"redirect_to": "/"})));
            } else {
                assert_eq!((answer.status.as_u16(), &answer.headers[LOCATION]), (303, &"/".parse().unwrap()));
            }
            assert!(answer.clears(SESSION_COOKIE));
        }
    }
    assert_eq!(shop.issuer.revoked().len(), 2, "nothing is revoked twice");
}

#[tokio::test]
async fn r52_the_session_ends_here_whatever_becomes_of_the_revocation() {
    let shop = Shop::open().await;
    for fault in [
        Fault::Silence,
        Fault::status(503),
        Fault::status(500),
        Fault::busy(60),
        Fault::html(404),
        Fault::invalid_client(),
        Fault::error(400, "unsupported_token_type"),
        Fault::ResetBefore,
        Fault::huge(),
    ] {
        shop.issuer.fail(Endpoint::Revoke, fault.clone());
        let mut browser = shop.user().await;
        let cookie = browser.session_cookie().unwrap();
        let answer = in_time(browser.submit("/bff/logout")).await;
        assert_eq!(answer.status, 303, "{fault:?}");
        assert!(location(&answer).as_str().starts_with(&shop.issuer.url()), "{fault:?}");
        is_over(&shop, &answer, &cookie).await;
        shop.issuer.heal(Endpoint::Revoke);
    }
}

#[tokio::test]
async fn r52_the_session_ends_here_while_the_issuer_is_down() {
    for metadata_known in [true, false] {
        let redis = Redis::start().await;
        let mut shop = Shop::open_with(|_, setup| setup.store_in(&redis)).await;
        let mut browser = shop.user().await;
        let cookie = browser.session_cookie().unwrap();
        shop.issuer.stop().await;
        if !metadata_known {
            // As after a restart of the gateway.
            shop.gateway = shop.setup.start().await;
            browser.switch_to(shop.gateway.address);
        }
        let answer = in_time(browser.submit("/bff/logout")).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        if !metadata_known {
            assert_eq!(answer.headers[LOCATION], "/", "nobody knows where else");
        }
        is_over(&shop, &answer, &cookie).await;
    }
}

#[tokio::test]
async fn what_the_issuer_does_not_offer_is_left_out() {
    for (missing, revocations) in [("revocation_endpoint", 0), ("end_session_endpoint", 2)] {
        let shop = Shop::open_with(|issuer, _| {
            issuer.behave(|behaviour| {
                behaviour.metadata.insert(missing.to_owned(), Value::Null);
            });
        })
        .await;
        let mut browser = shop.user().await;
        let cookie = browser.session_cookie().unwrap();
        let answer = log_out_by_script(&mut browser).await;
        let redirect_to = answer.json()["redirect_to"].as_str().unwrap().to_owned();
        assert_eq!(redirect_to == "/", missing == "end_session_endpoint", "{redirect_to}");
        assert_eq!(shop.issuer.revoked().len(), revocations);
        is_over(&shop, &answer, &cookie).await;
    }
}

#[tokio::test]
async fn r52_tokens_that_have_expired_meanwhile_are_not_refreshed_to_be_revoked() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let tokens = tokens(&shop, &mut browser).await;
    shop.clock.advance(Duration::from_secs(600));
    assert_eq!(browser.submit("/bff/logout").await.status, 303);
    assert_eq!(shop.issuer.revoked(), tokens);
    assert_eq!(shop.issuer.token_requests("refresh_token"), 0);
}

#[tokio::test]
async fn r51_without_a_refresh_token_the_access_token_is_revoked() {
    let shop =
        Shop::open_with(|issuer, _| issuer.behave(|behaviour| behaviour.issues_refresh_tokens = false)).await;
    let mut browser = shop.user().await;
    browser.fetch("/api/orders").await;
    assert_eq!(browser.submit("/bff/logout").await.status, 303);
    assert_eq!(shop.issuer.revoked(), shop.upstream.tokens());
}

#[tokio::test]
async fn r63_while_the_store_is_away_nobody_is_half_logged_out() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|_, setup| setup.store_in(&redis)).await;
    // Redis knows the script of the logout by then, and would run it when it comes to.
    shop.user().await.submit("/bff/logout").await;
    let mut browser = shop.user().await;
    let cookie = browser.session_cookie().unwrap();
    let revoked = shop.issuer.revoked().len();
    redis.freeze();
    let answer = log_out_by_script(&mut browser).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "store-unavailable"));
    assert!(answer.headers.contains_key(RETRY_AFTER));
    assert!(answer.set_cookies().is_empty(), "the cookie is kept");
    assert_eq!(shop.issuer.revoked().len(), revoked);
    redis.thaw();
    until(async || browser.fetch("/bff/session").await.status == 200).await;
    assert_eq!(browser.fetch("/bff/session").await.json()["authenticated"], true);
    let answer = log_out_by_script(&mut browser).await;
    is_over(&shop, &answer, &cookie).await;
    assert_eq!(shop.issuer.revoked().len(), revoked + 2);
}

#[tokio::test]
async fn r48_a_logout_that_is_not_the_apps_own_ends_nothing() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let cookie = format!("{SESSION_COOKIE}={}", browser.session_cookie().unwrap());
    let form = [("accept", "text/html"), ("content-type", "application/x-www-form-urlencoded")];
    let navigation = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    let cases: [&[(&str, &str)]; 10] = [
        &form,
        &[("origin", "null")],
        &[("origin", "https://evil.example")],
        &[("origin", "http://shop.test")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", "https://other.shop.test")],
        &[("sec-fetch-site", "cross-site"), ("x-csrf", "1")],
        &[("origin", "https://evil.example"), ("x-csrf", "1")],
        &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors"), ("origin", "https://shop.test")],
        &[("accept", "application/json"), ("origin", "https://shop.test")],
    ];
    for (number, fields) in cases.into_iter().enumerate() {
        let mut all = fields.to_vec();
        if (1..6).contains(&number) {
            all.extend(form);
            all.extend(navigation);
        }
        all.push(("cookie", &cookie));
        let answer = shop.bare(Method::POST, "/bff/logout", &all).await;
        assert_eq!(answer.status, 403, "{fields:?}");
        assert!(answer.set_cookies().is_empty(), "{fields:?}");
    }
    for method in [Method::PUT, Method::DELETE] {
        let fields = [("x-csrf", "1"), ("cookie", cookie.as_str())];
        let answer = shop.bare(method, "/bff/logout", &fields).await;
        assert_eq!((answer.status.as_u16(), &answer.headers["allow"]), (405, &"GET, POST".parse().unwrap()));
    }
    assert_eq!(browser.fetch("/api/orders").await.status, 200, "still logged in");
    assert!(shop.issuer.revoked().is_empty());

    // A form in a browser without Fetch Metadata names its origin.
    let own = [&form[..], &[("origin", "https://shop.test"), ("cookie", cookie.as_str())]].concat();
    assert_eq!(shop.bare(Method::POST, "/bff/logout", &own).await.status, 303);
}

#[tokio::test]
async fn r51_a_browser_that_does_not_wait_cancels_no_revocation() {
    let shop = Shop::open_with(|_, setup| setup.oidc += "\ntimeout: 1s").await;
    let mut browser = shop.user().await;
    let [_, access_token] = tokens(&shop, &mut browser).await;
    shop.issuer.fail_once(Endpoint::Revoke, Fault::Silence);
    let leaving = tokio::spawn(async move { browser.submit("/bff/logout").await });
    in_time(shop.issuer.until(|issuer| issuer.received_at(Endpoint::Revoke).len() == 1)).await;
    leaving.abort();
    in_time(shop.issuer.until(|issuer| issuer.revoked() == [access_token.clone()])).await;
}

#[tokio::test]
async fn back_from_the_issuer_the_browser_goes_on_to_the_app() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    for query in ["", "?state=x", "?state=a&state=b", "?return_to=https://evil.example&x=%0d%0a"] {
        let url = url::Url::parse(&format!("https://shop.test/bff/logout/callback{query}")).unwrap();
        let answer = arrive(&mut browser, &url).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers[LOCATION]),
            (303, &"/".parse().unwrap()),
            "{query}"
        );
    }
    assert_eq!(browser.fetch("/api/orders").await.status, 200, "nothing ends there");
}

#[tokio::test]
async fn r52_tokens_are_revoked_where_the_store_lost_its_answer_or_hung_in_the_middle() {
    for trouble in [Trouble::LosesItsAnswer, Trouble::Fails] {
        let mut store = None;
        let shop = Shop::open_with(|_, setup| {
            let troubled = store.insert(Arc::new(TroubledStore::new(Arc::clone(&setup.clock))));
            setup.stand_in = Some(troubled.clone());
        })
        .await;
        let store = store.unwrap();
        let mut browser = shop.user().await;
        store.begin(Step::Take, trouble);
        let answer = log_out_by_script(&mut browser).await;
        assert_eq!(answer.problem(), "store-unavailable", "nobody can tell whether it was done");
        store.end();
        in_time(shop.issuer.until(|issuer| issuer.revoked().len() == 2)).await;
        assert!(shop.issuer.living_refresh_tokens().is_empty(), "{trouble:?}");
        assert_eq!(browser.fetch("/api/orders").await.problem(), "unauthenticated", "{trouble:?}");
    }
}

#[tokio::test]
async fn r51_a_logout_revokes_the_tokens_of_a_session_that_has_died_of_idleness() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    shop.clock.advance(Duration::from_secs(30 * 60));
    let answer = log_out_by_script(&mut browser).await;
    let location = answer.json()["redirect_to"].as_str().unwrap().to_owned();
    assert!(location.starts_with(&shop.issuer.url()), "{location}");
    assert_eq!(shop.issuer.revoked().len(), 2);
    assert!(shop.issuer.living_refresh_tokens().is_empty());
}
