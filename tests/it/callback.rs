//! Where the issuer sends the browser back to: `GET callback`.

use std::time::Duration;

use cookie::SameSite;
use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, RETRY_AFTER};
use url::Url;

use crate::support::gateway::SESSION_COOKIE;
use crate::support::redis::Redis;
use crate::support::shop::{Shop, arrive, ends_the_login, offers_login, problem, with_query};
use crate::support::wait::{in_time, until};

#[tokio::test]
async fn r21_the_landing_is_same_site_so_that_a_strict_cookie_does_not_loop() {
    let shop = Shop::open_with(|_, setup| {
        let upstream = setup.upstream();
        setup.add_route(&format!("path: /account, upstream: \"{upstream}\", csrf: off"));
    })
    .await;
    let mut browser = shop.browser();
    let answer = browser.navigate("/account?page=2").await;
    assert_eq!((answer.status.as_u16(), answer.url.path()), (200, "/account"), "{}", answer.text());
    let paths: Vec<_> = browser.visited.iter().map(Url::path).collect();
    assert_eq!(paths, ["/account", "/bff/login", "/authorize", "/bff/callback", "/account"]);
    assert_eq!(shop.upstream.last().target, "/account?page=2");
}

#[tokio::test]
async fn r21_the_session_cookie_is_strict_sealed_and_small() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;
    let answer = arrive(&mut browser, &callback).await;
    assert_eq!(answer.status, 200);
    let fields: Vec<_> =
        answer.headers.get_all("set-cookie").iter().map(|field| field.to_str().unwrap()).collect();
    let field = fields.iter().find(|field| field.starts_with("__Host-cloakroom=")).unwrap();
    assert!(field.len() <= 300, "{} bytes", field.len());
    let cookie = cookie::Cookie::parse(*field).unwrap();
    assert_eq!(cookie.same_site(), Some(SameSite::Strict));
    assert_eq!((cookie.http_only(), cookie.secure(), cookie.path()), (Some(true), Some(true), Some("/")));
    assert_eq!((cookie.domain(), cookie.max_age(), cookie.expires()), (None, None, None));
    assert_eq!(browser.cookie_names(), [SESSION_COOKIE], "the login cookie is taken back");
}

#[tokio::test]
async fn r19_callback_pages_are_not_stored_and_tell_nobody_their_address() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;
    let good = arrive(&mut browser, &callback).await;
    assert_eq!(good.status, 200);
    let refused = arrive(
        &mut shop.browser(),
        &with_query(&callback, |query| query.push(("state".to_owned(), "x".to_owned()))),
    )
    .await;
    assert_eq!(refused.status, 400);
    for answer in [good, refused] {
        assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers[REFERRER_POLICY], "no-referrer");
        let policy = answer.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        for (_, value) in callback.query_pairs().filter(|(name, _)| name != "iss") {
            assert!(!answer.text().contains(&*value), "neither the code nor the state is repeated");
        }
    }
}

#[tokio::test]
async fn r3_a_callback_that_answers_no_login_of_this_browser_redeems_nothing() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;

    // An attacker's own code, put into the victim's browser.
    let mut victim = shop.browser();
    let answer = in_time(victim.navigate(callback.as_str())).await;
    offers_login(&victim, &answer, 400);
    let mut victim = shop.browser();
    shop.begin(&mut victim, "return_to=/").await;
    let answer = in_time(victim.navigate(callback.as_str())).await;
    offers_login(&victim, &answer, 400);
    assert_eq!(problem(&shop, &victim, &callback).await, "login-failed");

    for query in ["", "?code=1", "?state=", "?code=1&state=unknown", "?state=%00%ff&code=1"] {
        let answer = browser.navigate(&format!("/bff/callback{query}")).await;
        offers_login(&browser, &answer, 400);
    }

    shop.clock.advance(Duration::from_secs(601));
    let answer = browser.navigate(callback.as_str()).await;
    offers_login(&browser, &answer, 400);
    assert_eq!(shop.issuer.token_requests("authorization_code"), 0);
}

#[tokio::test]
async fn r3_a_login_answered_nine_minutes_later_is_good_and_only_once() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;
    let mut thief = browser.window();
    shop.clock.advance(Duration::from_secs(590));
    assert_eq!(arrive(&mut browser, &callback).await.status, 200);

    // The same cookies and the same address, as a copy of the browser would send them.
    let answer = thief.navigate(callback.as_str()).await;
    offers_login(&thief, &answer, 400);
    assert_eq!(shop.issuer.token_requests("authorization_code"), 1);
}

#[tokio::test]
async fn r3_of_many_callbacks_at_once_one_is_redeemed() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (mut window, callback) = (browser.window(), callback.clone());
        tasks.spawn(async move {
            arrive(&mut window, &callback)
                .await
                .set_cookies()
                .iter()
                .any(|cookie| cookie.name() == SESSION_COOKIE)
        });
    }
    let logged_in = tasks.join_all().await.into_iter().filter(|logged_in| *logged_in).count();
    assert_eq!((logged_in, shop.issuer.token_requests("authorization_code")), (1, 1));
}

#[tokio::test]
async fn a_stale_callback_of_a_user_who_is_logged_in_goes_to_the_app() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;
    arrive(&mut browser, &callback).await;

    let answer = browser.visit(callback.as_str()).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["location"]), (303, &"/".parse().unwrap()));

    // By a second click on the issuer's button: the strict cookie does not come along.
    let asked_again = arrive(&mut browser, &callback).await;
    assert_eq!(asked_again.status, 400, "{}", asked_again.text());
    let refresh = asked_again.headers["refresh"].to_str().unwrap();
    let answer = browser.navigate(refresh.strip_prefix("0;url=").unwrap()).await;
    assert_eq!(answer.url.path(), "/", "{}", answer.text());
    assert_eq!(browser.fetch("/api/orders").await.status, 200, "and stays logged in");

    // Somebody else's browser is asked once, and no more.
    let mut stranger = shop.browser();
    let answer = arrive(&mut stranger, &callback).await;
    offers_login(&stranger, &answer, 400);
    assert_eq!(answer.headers["refresh"], "0;url=/bff/callback");
    let again = callback.join("/bff/callback").unwrap();
    let answer = arrive(&mut stranger, &again).await;
    offers_login(&stranger, &answer, 400);
    assert!(!answer.headers.contains_key("refresh"));
    assert_eq!(shop.issuer.token_requests("authorization_code"), 1);
}

#[tokio::test]
async fn r20_an_error_of_the_issuer_ends_the_login_and_its_words_are_not_repeated() {
    let shop = Shop::open().await;
    for error in [
        "access_denied",
        "login_required",
        "temporarily_unavailable",
        "invalid_scope",
        "<script>alert(1)</script>",
    ] {
        shop.issuer.behave(|behaviour| behaviour.authorization_error = Some(error.to_owned()));
        let mut browser = shop.browser();
        let callback = shop.begin(&mut browser, "return_to=/orders").await;
        let callback = with_query(&callback, |query| {
            query.push(("error_description".to_owned(), "<b>call 555-1234</b>".to_owned()));
            query.push(("error_uri".to_owned(), "https://evil.example".to_owned()));
        });
        assert_eq!(problem(&shop, &shop.browser(), &callback).await, "login-failed");
        let answer = arrive(&mut browser, &callback).await;
        ends_the_login(&browser, &answer, 400);
        for words in ["script>alert", "555", "evil.example", "invalid_scope"] {
            assert!(!answer.text().contains(words), "{}", answer.text());
        }
        assert!(answer.text().contains("return_to=%2Forders"), "the next login leads to the same page");
    }
    assert_eq!(shop.issuer.token_requests("authorization_code"), 0);
}

#[tokio::test]
async fn r4_an_answer_of_another_issuer_is_refused_be_it_a_code_or_an_error() {
    let shop = Shop::open().await;
    for error in [None, Some("access_denied".to_owned())] {
        shop.issuer.behave(|behaviour| behaviour.authorization_error = error);
        for iss in [None, Some(""), Some("https://evil.example"), Some("slash")] {
            let mut browser = shop.browser();
            let callback = shop.begin(&mut browser, "return_to=/").await;
            let iss = match iss {
                Some("slash") => Some(format!("{}/", shop.issuer.url())),
                other => other.map(str::to_owned),
            };
            let callback = with_query(&callback, |query| {
                query.retain(|(name, _)| name != "iss");
                query.extend(iss.map(|iss| ("iss".to_owned(), iss)));
            });
            let answer = arrive(&mut browser, &callback).await;
            ends_the_login(&browser, &answer, 400);
        }
    }
    assert_eq!(shop.issuer.token_requests("authorization_code"), 0);

    let shop = Shop::open_with(|issuer, _| issuer.behave(|behaviour| behaviour.sends_iss = false)).await;
    shop.user().await;
}

#[tokio::test]
async fn r20_repeated_and_missing_parameters_redeem_nothing() {
    let shop = Shop::open().await;
    for name in ["code", "state", "iss", "x"] {
        let mut browser = shop.browser();
        let callback = shop.begin(&mut browser, "return_to=/").await;
        let callback = with_query(&callback, |query| {
            let twice = query
                .iter()
                .find(|(key, _)| key == name)
                .cloned()
                .unwrap_or((name.to_owned(), "1".to_owned()));
            query.push(twice.clone());
            query.push(twice);
        });
        assert_eq!(arrive(&mut browser, &callback).await.status, 400, "{name}");
        assert_eq!(browser.session_cookie(), None);
        assert_eq!(problem(&shop, &browser, &callback).await, "bad-request");
    }
    for change in [("code", None), ("code", Some("")), ("error", Some("access_denied"))] {
        let mut browser = shop.browser();
        let callback = shop.begin(&mut browser, "return_to=/").await;
        let callback = with_query(&callback, |query| {
            query.retain(|(name, _)| name != change.0);
            query.extend(change.1.map(|value| (change.0.to_owned(), value.to_owned())));
        });
        let answer = arrive(&mut browser, &callback).await;
        ends_the_login(&browser, &answer, 400);
    }
    assert_eq!(shop.issuer.token_requests("authorization_code"), 0);
    let answer = shop.bare(Method::POST, "/bff/callback", &[("accept", "text/html")]).await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn a_login_begun_at_one_gateway_ends_at_another_and_its_session_is_good_at_both() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|_, setup| setup.store_in(&redis)).await;
    let other = shop.setup.start().await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;
    let mut thief = browser.window();
    browser.switch_to(other.address);
    assert_eq!(arrive(&mut browser, &callback).await.status, 200);
    // R3: used at one is used at all.
    assert_eq!(thief.navigate(callback.as_str()).await.status, 400);
    assert_eq!(shop.issuer.token_requests("authorization_code"), 1);
    for address in [other.address, shop.gateway.address] {
        browser.switch_to(address);
        assert_eq!(browser.fetch("/api/orders").await.status, 200);
    }
    let cookie = browser.session_cookie().unwrap();
    assert_eq!(browser.submit("/bff/logout").await.status, 303);
    browser.plant(SESSION_COOKIE, &cookie);
    browser.switch_to(other.address);
    assert_eq!(browser.fetch("/api/orders").await.problem(), "unauthenticated");
}

#[tokio::test]
async fn r63_a_store_that_is_away_costs_no_code_and_the_login_goes_on_when_it_is_back() {
    let mut redis = Redis::start().await;
    let shop = Shop::open_with(|_, setup| setup.store_in(&redis)).await;
    let mut browser = shop.browser();
    let frozen = shop.begin(&mut browser, "return_to=/shop").await;
    redis.freeze();
    let answer = arrive(&mut browser, &frozen).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.headers.contains_key(RETRY_AFTER));
    assert_eq!(problem(&shop, &browser, &frozen).await, "store-unavailable");
    assert!(answer.set_cookies().is_empty(), "the login cookie is kept");
    let while_away = shop.begin(&mut browser, "return_to=/shop").await;
    redis.thaw();

    redis.stop();
    let answer = arrive(&mut browser, &while_away).await;
    assert_eq!(answer.status, 503);
    assert_eq!(shop.issuer.token_requests("authorization_code"), 0);
    redis.restart().await;
    until(async || arrive(&mut browser, &while_away).await.status != 503).await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
}

#[tokio::test]
async fn r23_each_login_has_a_new_session_and_the_old_one_is_gone() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let old = browser.session_cookie().unwrap();
    let old_token = {
        browser.fetch("/api/orders").await;
        shop.upstream.tokens().pop().unwrap()
    };
    browser.log_in("/shop").await;
    let new = browser.session_cookie().unwrap();
    assert_ne!(old, new);
    assert_eq!(browser.fetch("/api/orders").await.status, 200);

    let mut thief = shop.browser();
    thief.plant(SESSION_COOKIE, &old);
    assert_eq!(thief.fetch("/api/orders").await.problem(), "unauthenticated");
    in_time(shop.issuer.until(|issuer| issuer.revoked().contains(&old_token))).await;
    assert_eq!(shop.issuer.living_refresh_tokens().len(), 1);
}

#[tokio::test]
async fn r23_a_cookie_that_was_there_before_the_login_is_never_adopted() {
    let shop = Shop::open().await;
    let mut attacker = shop.user().await;
    let planted = attacker.session_cookie().unwrap();
    let mut victim = shop.browser();
    victim.plant(SESSION_COOKIE, &planted);
    victim.log_in("/shop").await;
    assert_ne!(victim.session_cookie().unwrap(), planted);
    assert_eq!(attacker.fetch("/api/orders").await.problem(), "unauthenticated");
}

#[tokio::test]
async fn a_browser_that_leaves_during_the_callback_leaves_no_tokens_behind() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "").await;
    shop.issuer.hold_token_answers();
    let leaving = tokio::spawn(async move { arrive(&mut browser, &callback).await });
    shop.issuer.until(|issuer| issuer.held() == 1).await;
    assert_eq!(shop.issuer.living_refresh_tokens().len(), 1);
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    shop.issuer.release_token_answers();
    shop.issuer.until(|issuer| issuer.revoked().len() == 2).await;
    assert!(shop.issuer.living_refresh_tokens().is_empty());
}
