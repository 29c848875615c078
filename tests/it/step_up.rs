//! An upstream that wants a better login (RFC 9470).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;

use crate::support::browser::Answer;
use crate::support::clock::clock;
use crate::support::gateway::SESSION_COOKIE;
use crate::support::issuer::{Endpoint, Issuer};
use crate::support::shop::Shop;
use crate::support::upstream::{Arrived, Upstream, full, status};

const CHALLENGE: &str =
    "Bearer error=\"insufficient_user_authentication\", acr_values=\"gold silver\", max_age=\"300\"";

/// A shop whose upstream takes no token but those issued from the login after the first on; `/page` may be navigated
/// to, and so may `/open`, which is for anybody.
async fn shop(challenge: &'static str) -> Shop {
    let first = Arc::new(Mutex::new(None));
    shop_where(move |arrived| {
        let token = arrived.headers["authorization"].to_str().unwrap().to_owned();
        let insufficient = *first.lock().unwrap().get_or_insert_with(|| token.clone()) == token;
        insufficient.then_some(challenge)
    })
    .await
}

/// The same, where what has come is refused with a challenge.
async fn shop_where(refused: impl Fn(&Arrived) -> Option<&'static str> + Send + Sync + 'static) -> Shop {
    let clock = clock();
    let issuer = Issuer::start_with(clock.clone()).await;
    let upstream = Upstream::answering(move |arrived| {
        if !arrived.headers.contains_key("authorization") {
            return if arrived.target == "/open" { challenged(CHALLENGE) } else { full("") };
        }
        refused(arrived).map_or_else(|| full("good"), challenged)
    })
    .await;
    Shop::open_among(clock, issuer, upstream, |_, setup| {
        let upstream = setup.upstream();
        setup.add_route(&format!("path: /page, upstream: \"{upstream}\", csrf: same_origin"));
        setup.add_route(&format!("path: /open, upstream: \"{upstream}\", auth: optional, csrf: off"));
    })
    .await
}

fn challenged(challenge: &str) -> http::Response<crate::support::upstream::Body> {
    status(401, &[("www-authenticate", challenge), ("x-upstream", "its own words")])
}

#[track_caller]
fn assert_is_ours(answer: &Answer) {
    for field in ["www-authenticate", "x-upstream"] {
        assert!(!answer.headers.contains_key(field), "{:?}", answer.headers);
    }
}

fn authorizations(shop: &Shop, parameter: &str) -> Vec<Option<String>> {
    let requests = shop.issuer.received_at(Endpoint::Authorize);
    requests.iter().map(|request| request.parameter(parameter).map(str::to_owned)).collect()
}

#[tokio::test]
async fn rfc9470_a_script_is_told_of_the_login_that_would_suffice_and_it_does() {
    let shop = shop(CHALLENGE).await;
    let mut browser = shop.user().await;
    let cookie = browser.session_cookie();
    let answer = browser.fetch("/api/orders").await;
    assert_eq!(
        (answer.status.as_u16(), answer.problem().as_str()),
        (401, "insufficient-user-authentication")
    );
    assert_eq!(answer.json()["login_url"], "/bff/login?acr_values=gold+silver&max_age=300");
    assert_is_ours(&answer);
    assert_eq!(browser.session_cookie(), cookie, "the session goes on");
    assert_eq!(shop.issuer.token_requests("refresh_token"), 0, "a fresh token is no better");

    let login = format!("{}&return_to=/shop", answer.json()["login_url"].as_str().unwrap());
    assert_eq!(browser.navigate(&login).await.url.path(), "/shop");
    assert_ne!(browser.session_cookie(), cookie);
    assert_eq!(authorizations(&shop, "acr_values"), [None, Some("gold silver".to_owned())]);
    assert_eq!(authorizations(&shop, "max_age"), [None, Some("300".to_owned())]);
    assert_eq!(browser.fetch("/api/orders").await.text(), "good");
}

#[tokio::test]
async fn rfc9470_a_navigation_is_sent_to_that_login_and_back() {
    let shop = shop(CHALLENGE).await;
    let mut browser = shop.user().await;
    let sent = browser.visit("/page?id=7&b=%20").await;
    assert_eq!(sent.status, 303, "{}", sent.text());
    assert_eq!(
        sent.headers["location"],
        "/bff/login?acr_values=gold+silver&max_age=300&return_to=%2Fpage%3Fid%3D7%26b%3D%2520"
    );
    assert_is_ours(&sent);
    let answer = browser.navigate("/page?id=7&b=%20").await;
    assert_eq!(
        (answer.url.as_str(), answer.text()),
        ("https://shop.test/page?id=7&b=%20", "good".to_owned())
    );
}

#[tokio::test]
async fn rfc9470_a_request_that_would_lose_its_body_is_not_redirected() {
    let shop = shop(CHALLENGE).await;
    let mut browser = shop.user().await;
    let answer = browser.submit("/page").await;
    assert_eq!(answer.status, 401);
    assert!(
        answer.text().contains("href=\"/bff/login?acr_values=gold+silver&amp;max_age=300\""),
        "{}",
        answer.text()
    );
    assert_is_ours(&answer);
}

#[tokio::test]
async fn rfc9470_an_upstream_that_no_login_satisfies_is_no_endless_loop() {
    let shop = shop_where(|_| Some(CHALLENGE)).await;
    let mut browser = shop.user().await;
    shop.clock.advance(Duration::from_secs(120));
    let answer = browser.navigate("/page").await;
    assert_eq!((answer.status.as_u16(), answer.url.path()), (403, "/page"), "{}", answer.text());
    assert_is_ours(&answer);
    assert_eq!(authorizations(&shop, "acr_values").len(), 2, "one login more than the user's own");
    let answer = browser.fetch("/api/orders").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "forbidden"));
    assert_eq!(answer.json()["login_url"], serde_json::Value::Null);
    assert_is_ours(&answer);
    assert!(browser.session_cookie().is_some());
    // Later, or for something else, a login may help.
    shop.clock.advance(Duration::from_secs(60));
    assert_eq!(browser.fetch("/api/orders").await.problem(), "insufficient-user-authentication");
}

#[tokio::test]
async fn rfc9470_a_login_whose_time_has_a_fraction_is_no_endless_loop() {
    let shop = shop_where(|_| Some(CHALLENGE)).await;
    shop.issuer.tamper(|draft| {
        let at = draft.claims["auth_time"].as_f64();
        draft.claims["auth_time"] = serde_json::json!(at);
    });
    let mut browser = shop.user().await;
    shop.clock.advance(Duration::from_secs(120));
    assert_eq!(browser.navigate("/page").await.status, 403);
}

#[tokio::test]
async fn rfc9470_a_login_just_made_for_something_else_does_not_count() {
    let more = "Bearer error=\"insufficient_user_authentication\", acr_values=\"platinum\"";
    let shop =
        shop_where(move |arrived| Some(if arrived.target == "/page" { more } else { CHALLENGE })).await;
    let mut browser = shop.user().await;
    assert_eq!(browser.navigate("/bff/login?acr_values=gold&return_to=/shop").await.url.path(), "/shop");
    let answer = browser.fetch("/api/orders").await;
    assert_eq!(answer.problem(), "forbidden", "it brought gold");
    let sent = browser.visit("/page").await;
    assert_eq!(sent.headers["location"], "/bff/login?acr_values=platinum&return_to=%2Fpage");
}

#[tokio::test]
async fn rfc9470_what_an_upstream_asks_for_is_worth_no_more_than_a_parameter() {
    let (many, long) = ("x".repeat(600), "9".repeat(40));
    let hostile = [
        (
            "acr_values=\"gold&return_to=//evil.example\"".to_owned(),
            "acr_values=gold%26return_to%3D%2F%2Fevil.example",
        ),
        (format!("acr_values=\"{many}\", max_age=60"), "max_age=60"),
        (format!("acr_values=\"gold\", max_age=\"{long}\""), "acr_values=gold"),
        ("acr_values=\"\", max_age=\"-1\"".to_owned(), "prompt=login"),
        ("realm=\"acr_values=gold\"".to_owned(), "prompt=login"),
    ];
    for (parameters, query) in hostile {
        let challenge: &'static str =
            format!("Bearer error=\"insufficient_user_authentication\", {parameters}").leak();
        let shop = shop_where(move |_| Some(challenge)).await;
        let mut browser = shop.user().await;
        shop.clock.advance(Duration::from_secs(120));
        let answer = browser.fetch("/api/orders").await;
        assert_eq!(answer.json()["login_url"], format!("/bff/login?{query}"), "{parameters}");
        assert_is_ours(&answer);
    }
}

#[tokio::test]
async fn rfc9470_a_challenge_to_a_request_without_our_token_is_the_clients_own_matter() {
    let shop = shop(CHALLENGE).await;
    let mut browser = shop.browser();
    let answer = browser.script(Method::GET, "/open", &[], "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["www-authenticate"].to_str().unwrap()),
        (401, CHALLENGE)
    );
    assert!(!answer.clears(SESSION_COOKIE));
}

#[tokio::test]
async fn rfc9470_of_several_issuers_the_one_of_the_session_is_to_bring_it() {
    let clock = clock();
    let (staff, partners) =
        (Issuer::start_with(clock.clone()).await, Issuer::start_with(clock.clone()).await);
    let shop =
        Shop::open_among(clock, staff, Upstream::answering(|_| challenged(CHALLENGE)).await, |_, setup| {
            setup.other_issuers = vec![("partners", partners.url())];
        })
        .await;
    let mut browser = shop.browser();
    browser.navigate(&format!("/bff/login?iss={}&return_to=/shop", partners.url())).await;
    let login_url = browser.fetch("/api/orders").await.json()["login_url"].as_str().unwrap().to_owned();
    let named = form_urlencoded::byte_serialize(partners.url().as_bytes()).collect::<String>();
    assert_eq!(login_url, format!("/bff/login?iss={named}&acr_values=gold+silver&max_age=300"));
}
