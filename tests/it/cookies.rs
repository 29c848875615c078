//! Cookies that were tampered with, swapped, doubled or planted.

use http::Method;

use crate::support::browser::Answer;
use crate::support::gateway::{ORIGIN, SESSION_COOKIE};
use crate::support::redis::Redis;
use crate::support::shop::{Shop, bare, log_in_bare, with_query};

async fn call(shop: &Shop, path: &str, cookies: &[&str]) -> Answer {
    let mut fields = vec![("x-csrf", "1")];
    fields.extend(cookies.iter().map(|cookie| ("cookie", *cookie)));
    shop.bare(Method::GET, path, &fields).await
}

async fn opens_nothing(shop: &Shop, value: &str) {
    let answer = call(shop, "/api/orders", &[&format!("{SESSION_COOKIE}={value}")]).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "unauthenticated"), "{value}");
    assert!(answer.clears(SESSION_COOKIE), "{value}");
    assert_eq!(answer.json()["login_url"], "/bff/login");
}

#[tokio::test]
async fn r22_an_altered_cookie_opens_nothing_and_is_taken_back() {
    let shop = Shop::open().await;
    let good = shop.user().await.session_cookie().unwrap();
    let other = shop.user().await.session_cookie().unwrap();
    assert_eq!(call(&shop, "/api/orders", &[&format!("{SESSION_COOKIE}={good}")]).await.status, 200);
    let flipped = |at: usize| {
        let other = if &good[at..=at] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &good[..at], &good[at + 1..])
    };
    let half = good.len() / 2;
    for value in [
        String::new(),
        "x".to_owned(),
        "AQ".to_owned(),
        flipped(0),
        flipped(5),
        flipped(20),
        flipped(half),
        flipped(good.len() - 2),
        good[..good.len() - 1].to_owned(),
        good[..half].to_owned(),
        good[1..].to_owned(),
        format!("{good}A"),
        format!("{good}="),
        format!("{good}{good}"),
        format!("\"{good}\""),
        format!("{}{}", &good[..half], &other[half..]),
        "A".repeat(good.len()),
        "A".repeat(9000),
        "\u{e9}\u{20ac}".to_owned(),
    ] {
        opens_nothing(&shop, &value).await;
    }
    assert_eq!(shop.upstream.tokens().len(), 1, "only the good one came through");
    assert_eq!(
        call(&shop, "/api/orders", &[&format!("{SESSION_COOKIE}={good}")]).await.status,
        200,
        "and still does"
    );
}

#[tokio::test]
async fn r22_a_login_cookie_passes_for_no_session_nor_a_session_for_a_login() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let session = browser.session_cookie().unwrap();
    let callback = shop.begin(&mut browser, "return_to=/").await;
    let names = browser.cookie_names();
    let login = names.iter().find(|name| name.starts_with("__Host-cloakroom-login-")).unwrap();
    opens_nothing(&shop, &browser.cookie(login).unwrap()).await;

    let mut thief = shop.browser();
    thief.plant(login, &session);
    assert_eq!(thief.navigate(callback.as_str()).await.status, 400);
    // Nor does one login's cookie serve for another login.
    let mut other = shop.browser();
    let others = shop.begin(&mut other, "return_to=/").await;
    let mut thief = shop.browser();
    thief.plant(&other.cookie_names()[0], &browser.cookie(login).unwrap());
    assert_eq!(thief.navigate(others.as_str()).await.status, 400);
    assert_eq!(shop.issuer.token_requests("authorization_code"), 1);
}

#[tokio::test]
async fn r22_one_users_record_opens_for_nobody_else() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|_, setup| setup.store_in(&redis)).await;
    let alice = shop.user().await.session_cookie().unwrap();
    let [alices]: [String; 1] =
        redis.command::<Vec<String>>(&["KEYS", "*:session*"]).await.try_into().unwrap();
    shop.issuer.behave(|behaviour| behaviour.user = serde_json::json!({"sub": "bob"}));
    let bob = shop.user().await.session_cookie().unwrap();
    let keys: Vec<String> = redis.command(&["KEYS", "*:session*"]).await;
    let bobs = keys.iter().find(|key| **key != alices).unwrap();
    for (from, to) in [(alices.as_str(), "kept"), (bobs.as_str(), alices.as_str()), ("kept", bobs.as_str())] {
        redis.command::<()>(&["RENAME", from, to]).await;
    }
    for cookie in [alice, bob] {
        opens_nothing(&shop, &cookie).await;
    }
}

#[tokio::test]
async fn r26_the_same_value_twice_is_one_and_two_values_are_none() {
    let shop = Shop::open().await;
    let good = format!("{SESSION_COOKIE}={}", shop.user().await.session_cookie().unwrap());
    let other = format!("{SESSION_COOKIE}={}", shop.user().await.session_cookie().unwrap());
    let forged = format!("{SESSION_COOKIE}=forged");
    let ours = |cookies: &[&str]| cookies.join("; ");
    for cookies in [
        vec![ours(&[&good, &good])],
        vec![good.clone(), good.clone()],
        vec!["a=1".to_owned(), good.clone(), "b=2".to_owned()],
        vec![format!("a=1;{good};;b=2;")],
        vec![format!("a=1; \t{good} ; b")],
    ] {
        let cookies: Vec<&str> = cookies.iter().map(String::as_str).collect();
        assert_eq!(call(&shop, "/api/orders", &cookies).await.status, 200, "{cookies:?}");
    }
    for path in ["/api/orders", "/bff/session"] {
        for cookies in [
            vec![ours(&[&good, &other])],
            vec![ours(&[&good, &forged])],
            vec![ours(&[&forged, &good])],
            vec![ours(&[&good, &good, &forged])],
            vec![good.clone(), other.clone()],
            vec![good.clone(), format!("{SESSION_COOKIE}=")],
        ] {
            let cookies: Vec<&str> = cookies.iter().map(String::as_str).collect();
            let answer = call(&shop, path, &cookies).await;
            assert_eq!(
                (answer.status.as_u16(), answer.problem().as_str()),
                (400, "bad-request"),
                "{cookies:?}"
            );
        }
    }
    let fields = [("x-csrf", "1"), ("cookie", good.as_str()), ("cookie", other.as_str())];
    assert_eq!(shop.bare(Method::POST, "/bff/logout", &fields).await.status, 400);
    assert_eq!(call(&shop, "/api/orders", &[&good]).await.status, 200, "nobody was logged out");
}

#[tokio::test]
async fn r26_a_name_that_only_looks_like_ours_is_not_ours() {
    let shop = Shop::open().await;
    let good = shop.user().await.session_cookie().unwrap();
    let attackers = shop.user().await.session_cookie().unwrap();
    for name in [
        "\u{a0}__Host-cloakroom",
        "\u{85}__Host-cloakroom",
        "\u{2003}__Host-cloakroom",
        "\u{3000}__Host-cloakroom",
        "\u{feff}__Host-cloakroom",
        "__Host-cloakroom\u{a0}",
        "__Host-cloakroom ",
        "__host-cloakroom",
        "__HOST-CLOAKROOM",
        "\"__Host-cloakroom\"",
        "cloakroom",
        "__Secure-cloakroom",
        "x; Path=/; x__Host-cloakroom",
    ] {
        let planted = format!("{name}={attackers}");
        let answer = call(&shop, "/api/orders", &[&planted]).await;
        assert_eq!(answer.problem(), "unauthenticated", "{name}");
        let answer = call(&shop, "/api/orders", &[&planted, &format!("{SESSION_COOKIE}={good}")]).await;
        assert_eq!(answer.status, 200, "{name}: the planted one does not even disturb");
    }
}

#[tokio::test]
async fn on_a_loopback_origin_without_tls_the_cookie_is_plain() {
    const LOCAL: &str = "http://localhost:8080";
    let shop = Shop::open_with(|_, setup| setup.origin = LOCAL.to_owned()).await;
    let address = shop.gateway.address;
    let sent = bare(address, LOCAL, Method::GET, "/bff/login", &[]).await;
    let login = sent.set_cookies().pop().unwrap();
    assert!(login.name().starts_with("cloakroom-login-"), "{login}");
    assert_ne!(login.secure(), Some(true));

    let answer = log_in_bare(address, LOCAL, "/bff", &shop.issuer).await;
    let cookies = answer.set_cookies();
    let session = cookies.iter().find(|cookie| cookie.name() == "cloakroom").unwrap();
    assert_ne!(session.secure(), Some(true));
    assert_eq!((session.http_only(), session.path()), (Some(true), Some("/")));
    assert_eq!(session.same_site(), Some(cookie::SameSite::Strict));
    let cookie = format!("cloakroom={}", session.value());
    let fields = [("x-csrf", "1"), ("cookie", cookie.as_str())];
    assert_eq!(bare(address, LOCAL, Method::GET, "/api/orders", &fields).await.status, 200);
}

#[tokio::test]
async fn the_configured_name_and_same_site_are_kept() {
    let shop =
        Shop::open_with(|_, setup| setup.session = "cookie: {name: __Host-till, same_site: lax}".to_owned())
            .await;
    let answer = log_in_bare(shop.gateway.address, ORIGIN, "/bff", &shop.issuer).await;
    let cookies = answer.set_cookies();
    let session = cookies.iter().find(|cookie| cookie.name() == "__Host-till").unwrap();
    assert_eq!((session.same_site(), session.secure()), (Some(cookie::SameSite::Lax), Some(true)));
    assert!(cookies.iter().any(|cookie| cookie.name().starts_with("__Host-till-login-")), "{cookies:?}");
    let cookie = format!("__Host-till={}", session.value());
    assert_eq!(call(&shop, "/api/orders", &[&cookie]).await.status, 200);
}

#[tokio::test]
async fn a_state_is_no_key_to_another_logins_cookie() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let first = shop.begin(&mut browser, "return_to=/first").await;
    let second = shop.begin(&mut browser, "return_to=/second").await;
    let state = |url: &url::Url| crate::support::shop::parameter(url, "state").unwrap();
    let crossed = with_query(&first, |query| {
        query.retain(|(name, _)| name != "state");
        query.push(("state".to_owned(), state(&second)));
    });
    // The first login's code with the second's verifier and nonce: the issuer refuses (R2).
    assert_eq!(browser.navigate(crossed.as_str()).await.status, 400);
    assert_eq!(browser.session_cookie(), None);
}
