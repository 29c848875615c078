//! Where a session begins: `GET login`.

use std::collections::HashSet;
use std::time::Duration;

use cookie::SameSite;
use http::Method;
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use serde_json::json;

use crate::support::browser::{Answer, Browser, admin};
use crate::support::clock::clock;
use crate::support::gateway::SESSION_COOKIE;
use crate::support::issuer::{CLIENT_ID, Endpoint, Fault, Issuer};
use crate::support::shop::{Shop, arrive, location, parameter};
use crate::support::upstream::Upstream;
use crate::support::wait::{in_time, until};

const LOGIN_COOKIE: &str = "__Host-cloakroom-login-";

fn starts_nothing(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{} {}", answer.url, answer.text());
    assert!(answer.set_cookies().is_empty(), "{} {:?}", answer.url, answer.set_cookies());
    assert!(!answer.headers.contains_key("location"), "{}", answer.url);
}

#[tokio::test]
async fn r1_r2_r3_each_login_asks_for_a_code_with_fresh_state_nonce_and_challenge() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let answer = browser.visit("/bff/login?return_to=/").await;
        assert_eq!(answer.status, 303);
        assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
        let url = location(&answer);
        assert!(url.as_str().starts_with(&format!("{}/authorize?", shop.issuer.url())), "{url}");
        for (name, value) in [
            ("response_type", "code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", "https://shop.test/bff/callback"),
            ("scope", "openid profile offline_access"),
            ("code_challenge_method", "S256"),
        ] {
            assert_eq!(parameter(&url, name).as_deref(), Some(value), "{url}");
        }
        for name in ["state", "nonce", "code_challenge"] {
            let value = parameter(&url, name).unwrap();
            assert!(value.len() >= 43, "{name} has 256 bits: {value}");
            assert!(seen.insert(value), "{name} was used before");
        }
    }
}

#[tokio::test]
async fn rfc9126_2_3_of_a_refused_pushed_request_the_page_says_none_of_the_issuers_words() {
    let shop = Shop::open().await;
    shop.issuer.behave(|behaviour| behaviour.takes_pushed_requests = true);
    for error in ["invalid_request", "call-555-1234"] {
        shop.issuer.fail(Endpoint::Push, Fault::error(400, error));
        let answer = shop.browser().visit("/bff/login?return_to=/shop").await;
        starts_nothing(&answer, 400);
        assert!(!answer.text().contains(error), "{}", answer.text());
        let answer = shop.bare(Method::GET, "/bff/login", &[]).await;
        assert_eq!(answer.problem(), "login-failed");
        assert!(!answer.text().contains(error), "{}", answer.text());
    }
    assert!(shop.issuer.received_at(Endpoint::Authorize).is_empty());
}

#[tokio::test]
async fn what_the_app_may_ask_for_is_passed_and_nothing_else() {
    let shop = Shop::open().await;
    let asked =
        "prompt=login&login_hint=a%26b%40example.com&acr_values=gold%20silver&max_age=60&ui_locales=de%20en";
    let others =
        "scope=admin&client_id=other&redirect_uri=https%3A%2F%2Fevil.example&nonce=1&state=2&request=3&x=4";
    let answer = shop.browser().visit(&format!("/bff/login?{asked}&{others}")).await;
    let url = location(&answer);
    for (name, value) in [
        ("prompt", "login"),
        ("login_hint", "a&b@example.com"),
        ("acr_values", "gold silver"),
        ("max_age", "60"),
        ("ui_locales", "de en"),
        ("scope", "openid profile offline_access"),
        ("client_id", CLIENT_ID),
        ("redirect_uri", "https://shop.test/bff/callback"),
    ] {
        assert_eq!(parameter(&url, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!((parameter(&url, "request"), parameter(&url, "x")), (None, None));
    let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "none twice: {names:?}");

    let mut browser = shop.browser();
    let answer = browser.navigate(&format!("/bff/login?return_to=/shop&{asked}")).await;
    assert_eq!(answer.url.path(), "/shop", "and the login comes to its end: {}", answer.text());
}

#[tokio::test]
async fn r5_the_user_comes_back_to_where_they_wanted_to_go() {
    let shop = Shop::open().await;
    for (return_to, target) in [
        ("/", "/"),
        ("/orders?page=2&sort=%C3%A9#top", "/orders?page=2&sort=%C3%A9"),
        ("/a/../orders", "/orders"),
        ("/search?q='\"><b>&x=a\\b", "/search?q=%27%22%3E%3Cb%3E&x=a\\b"),
        ("/bffs", "/bffs"),
    ] {
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("return_to", return_to).finish();
        let mut browser = shop.browser();
        let answer = browser.navigate(&format!("/bff/login?{query}")).await;
        assert_eq!(answer.status, 200, "{return_to}");
        assert_eq!(shop.upstream.last().target, target, "{return_to}");
    }
    let answer = shop.browser().navigate("/bff/login").await;
    assert_eq!(answer.url.path(), "/", "without a word, to the app's start");
}

#[tokio::test]
async fn r5_a_return_to_that_could_lead_elsewhere_starts_no_login() {
    let shop = Shop::open().await;
    let long = format!("/{}", "a".repeat(8000));
    for hostile in [
        "",
        "orders",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\\/evil.example",
        "/\t/evil.example",
        "/\r\n/evil.example",
        "\t//evil.example",
        " //evil.example",
        "\u{a0}//evil.example",
        "/.//evil.example",
        "/x/..//evil.example",
        "/%2e%2e//evil.example",
        "https://evil.example/",
        "https://shop.test/",
        "https:/evil.example",
        "https:evil.example",
        "http://shop.test/",
        "//shop.test@evil.example",
        "@evil.example",
        "javascript:alert(document.domain)",
        "data:text/html,evil.example",
        "/\0evil.example",
        "/bff/login",
        "/bff/logout",
        "/x/../bff/callback",
        long.as_str(),
    ] {
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("return_to", hostile).finish();
        let answer = shop.browser().visit(&format!("/bff/login?{query}")).await;
        starts_nothing(&answer, 400);
        assert!(!answer.text().contains("evil"), "{hostile:?} is not repeated");
    }
}

#[tokio::test]
async fn a_portal_may_start_a_login_at_our_issuer_and_for_our_origin() {
    let shop = Shop::open().await;
    let query = |pairs: &[(&str, &str)]| {
        let pairs = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        format!("/bff/login?{pairs}")
    };
    let issuer = shop.issuer.url();
    let target = "https://shop.test/orders?page=2";
    let mut browser = shop.browser();
    let address = query(&[("iss", &issuer), ("target_link_uri", target), ("login_hint", "alice")]);
    let url = browser.visit(&address).await.url.join(&address).unwrap();
    let sent = arrive(&mut browser, &url).await;
    assert_eq!(sent.status, 303, "from the portal's site: {}", sent.text());
    let answer = browser.navigate(&address).await;
    assert_eq!(answer.url.as_str(), target);

    for pairs in [
        [("iss", "https://evil.example"), ("target_link_uri", target)],
        [("iss", issuer.as_str()), ("target_link_uri", "https://evil.example/")],
        [("iss", issuer.as_str()), ("target_link_uri", "http://shop.test/")],
        [("iss", issuer.as_str()), ("target_link_uri", "https://shop.test:8443/")],
        [("iss", issuer.as_str()), ("target_link_uri", "https://a@shop.test/")],
        [("iss", issuer.as_str()), ("target_link_uri", "/orders")],
        [("iss", issuer.as_str()), ("target_link_uri", "https://shop.test//evil.example/")],
    ] {
        starts_nothing(&shop.browser().visit(&query(&pairs)).await, 400);
    }
}

#[tokio::test]
async fn r20_a_repeated_or_senseless_parameter_starts_no_login() {
    let shop = Shop::open().await;
    let long = format!("acr_values={}", "a".repeat(5000));
    for query in [
        "return_to=/a&return_to=/a",
        "return_to=/a&return%5Fto=/b",
        "prompt=none&prompt=login",
        "x=1&x=1",
        "max_age=soon",
        "max_age=-1",
        long.as_str(),
    ] {
        starts_nothing(&shop.browser().visit(&format!("/bff/login?{query}")).await, 400);
    }
}

#[tokio::test]
async fn r6_a_script_or_a_sub_resource_starts_no_login() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let answer = browser.fetch("/bff/login").await;
    starts_nothing(&answer, 400);
    assert_eq!(answer.problem(), "bad-request");
    starts_nothing(&browser.script(Method::GET, "/bff/login", &[], "").await, 400);

    let requests: [&[(&str, &str)]; 7] = [
        &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image"), ("accept", "image/*,*/*")],
        &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")],
        &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe"), ("accept", "text/html")],
        &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "object"), ("accept", "text/html")],
        &[("sec-fetch-mode", "same-origin"), ("sec-fetch-dest", "empty")],
        &[("accept", "application/json")],
        &[("accept", "*/*"), ("x-csrf", "1")],
    ];
    for fields in requests {
        starts_nothing(&shop.bare(Method::GET, "/bff/login", fields).await, 400);
    }
    let answer = shop.bare(Method::PUT, "/bff/login", &[("accept", "text/html")]).await;
    starts_nothing(&answer, 405);
    assert_eq!(answer.headers["allow"], "GET, POST");
    assert!(shop.issuer.received_at(Endpoint::Authorize).is_empty());
}

#[tokio::test]
async fn r6_r21_the_login_cookie_is_small_short_lived_and_closed_to_scripts() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let mut forger = shop.browser();
    forger.plant(SESSION_COOKIE, &"x".repeat(6000));
    let [cookie] = forger.visit("/bff/login").await.set_cookies().try_into().unwrap();
    assert!(cookie.to_string().len() < 1000, "a forged session is not carried along");
    let longest = format!("return_to=/{}&acr_values=gold", "a".repeat(1000));
    for query in ["return_to=/", longest.as_str()] {
        let answer = browser.visit(&format!("/bff/login?{query}")).await;
        let [cookie] = answer.set_cookies().try_into().unwrap();
        assert!(cookie.name().starts_with(LOGIN_COOKIE), "{cookie}");
        assert_eq!(cookie.same_site(), Some(SameSite::Lax));
        assert_eq!((cookie.http_only(), cookie.secure(), cookie.path()), (Some(true), Some(true), Some("/")));
        assert_eq!(cookie.domain(), None);
        assert_eq!(cookie.max_age().unwrap().whole_seconds(), 600);
        let state = parameter(&location(&answer), "state").unwrap();
        assert!(!cookie.to_string().contains(&state), "the state is sealed");
        assert!(cookie.to_string().len() < 4096, "a browser would drop it: {}", cookie.to_string().len());
    }
}

#[tokio::test]
async fn r6_a_login_whose_cookie_a_browser_would_drop_does_not_begin() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    // JSON writes a backslash as two, and quotes each value.
    let (path, values) = ("%5C".repeat(1000), ["a"; 256].join("+"));
    let begin =
        async |browser: &mut Browser, query: &str| browser.visit(&format!("/bff/login?{query}")).await;
    let begun = shop.issuer.received_at(Endpoint::Authorize).len();
    for query in [format!("return_to=/?{path}"), format!("acr_values={values}")] {
        assert_eq!(begin(&mut browser, &query).await.status, 303);
    }
    starts_nothing(&begin(&mut browser, &format!("return_to=/?{path}&acr_values={values}")).await, 400);
    assert_eq!(shop.issuer.received_at(Endpoint::Authorize).len(), begun);
}

#[tokio::test]
async fn r6_at_most_five_logins_are_under_way_and_the_oldest_gives_way() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let mut callbacks = Vec::new();
    for number in 0..8 {
        callbacks.push(shop.begin(&mut browser, &format!("return_to=/{number}")).await);
        shop.clock.advance(Duration::from_secs(1));
        let kept = browser.cookie_names().iter().filter(|name| name.starts_with(LOGIN_COOKIE)).count();
        assert_eq!(kept, (number + 1).min(5));
    }
    for (number, callback) in callbacks.iter().enumerate() {
        let answer = arrive(&mut browser, callback).await;
        let sets_session = answer.set_cookies().iter().any(|cookie| cookie.name() == SESSION_COOKIE);
        assert_eq!(sets_session, number >= 3, "{number}: {}", answer.text());
    }
    assert_eq!(shop.issuer.token_requests("authorization_code"), 5);
}

#[tokio::test]
async fn r6_login_cookies_that_open_nothing_are_taken_back() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    for number in 0..9 {
        browser.plant(&format!("{LOGIN_COOKIE}{number}"), "garbage");
    }
    shop.begin(&mut browser, "return_to=/").await;
    shop.clock.advance(Duration::from_secs(601));
    shop.begin(&mut browser, "return_to=/").await;
    let names = browser.cookie_names();
    assert_eq!(names.len(), 1, "neither the garbage nor the expired one is kept: {names:?}");
}

#[tokio::test]
async fn r3_two_tabs_that_log_in_at_the_same_time_both_finish_and_one_session_is_left() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let first = shop.begin(&mut browser, "return_to=/first").await;
    let second = shop.begin(&mut browser, "return_to=/second").await;
    for (callback, target) in [(second, "/second"), (first, "/first")] {
        let answer = arrive(&mut browser, &callback).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains(&format!("url={target}\"")), "{}", answer.text());
        assert_eq!(browser.fetch("/api/orders").await.status, 200);
    }
    assert_eq!(browser.cookie_names(), [SESSION_COOKIE], "no login cookie is left");
    // R23: nobody could ever end the session whose cookie was overwritten.
    in_time(shop.issuer.until(|issuer| issuer.living_refresh_tokens().len() == 1)).await;
}

#[tokio::test]
async fn an_issuer_that_is_away_at_the_start_or_later_stops_logins_and_nothing_else() {
    let clock = clock();
    let mut issuer = Issuer::start_with(clock.clone()).await;
    issuer.stop().await;
    let mut shop = Shop::open_among(clock, issuer, Upstream::start().await, |_, _| {}).await;
    let page = in_time(shop.browser().visit("/bff/login?return_to=/")).await;
    starts_nothing(&page, 503);
    assert!(page.headers.contains_key(RETRY_AFTER));
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    let answer = shop.bare(Method::GET, "/bff/login", &[]).await;
    starts_nothing(&answer, 503);
    assert_eq!(answer.problem(), "issuer-unavailable");
    assert_eq!(shop.browser().navigate("/").await.status, 200);
    assert_eq!(shop.browser().fetch("/bff/session").await.json(), json!({"authenticated": false}));
    let (status, ready) = admin(shop.gateway.admin, "/readyz").await;
    assert_eq!(status, 200, "live sessions are served");
    assert_eq!(ready["issuers"][shop.issuer.url()], "unavailable", "{ready}");

    shop.issuer.restart().await;
    shop.clock.advance(Duration::from_secs(5));
    let mut user = shop.browser();
    user.log_in("/shop").await;
    let (_, ready) = admin(shop.gateway.admin, "/readyz").await;
    assert_eq!(ready["issuers"][shop.issuer.url()], "available", "{ready}");

    shop.issuer.stop().await;
    shop.clock.advance(Duration::from_secs(5));
    let answer = shop.bare(Method::GET, "/bff/login", &[]).await;
    starts_nothing(&answer, 503);
    assert_eq!(answer.problem(), "issuer-unavailable", "nobody is sent to an issuer that is away");
    assert_eq!(user.fetch("/api/orders").await.status, 200, "live sessions are served");
    let (status, ready) = admin(shop.gateway.admin, "/readyz").await;
    assert_eq!((status.as_u16(), &ready["issuers"][shop.issuer.url()]), (200, &json!("unavailable")));
}

#[tokio::test]
async fn who_watches_readyz_learns_of_an_issuer_that_goes_away_without_a_login() {
    let mut shop = Shop::open().await;
    let state = async |shop: &Shop| {
        admin(shop.gateway.admin, "/readyz").await.1["issuers"][shop.issuer.url()].clone()
    };
    until(async || state(&shop).await == "available").await;
    shop.issuer.stop().await;
    shop.clock.advance(Duration::from_secs(10));
    until(async || state(&shop).await == "unavailable").await;
}

#[tokio::test]
async fn r65_an_issuer_that_never_answers_holds_nobody_up() {
    let shop = Shop::open_with(|issuer, setup| {
        issuer.fail(Endpoint::Discovery, Fault::Silence);
        setup.oidc += "\ntimeout: 1s";
    })
    .await;
    let answer = in_time(shop.bare(Method::GET, "/bff/login", &[])).await;
    starts_nothing(&answer, 503);
    assert_eq!(answer.problem(), "issuer-unavailable");
    assert!(answer.headers.contains_key(RETRY_AFTER));

    shop.issuer.heal(Endpoint::Discovery);
    until(async || {
        shop.clock.advance(Duration::from_secs(5));
        shop.browser().visit("/bff/login").await.status == 303
    })
    .await;
}

#[tokio::test]
async fn r9_another_issuers_metadata_start_no_login() {
    let shop = Shop::open_with(|issuer, _| {
        issuer.behave(|behaviour| {
            behaviour.metadata.insert("issuer".to_owned(), json!("https://evil.example"));
        });
    })
    .await;
    starts_nothing(&shop.browser().visit("/bff/login").await, 503);
}

#[tokio::test]
async fn a_page_behind_a_login_is_reached_through_it() {
    let shop = Shop::open_with(|_, setup| {
        let upstream = setup.upstream();
        setup.add_route(&format!("path: /account, upstream: \"{upstream}\", csrf: off"));
    })
    .await;
    for target in ["/account/orders?page=2&q=a+b%26c", "/account?q=a\\b", "/account"] {
        let mut browser = shop.browser();
        let request = http::Request::get(target)
            .header("accept", "text/html")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-site", "none")
            .header("sec-fetch-dest", "document");
        let url = url::Url::parse(&format!("https://shop.test{target}")).unwrap();
        let answer = browser.send(request.body(http_body_util::Full::default()).unwrap(), &url, false).await;
        assert_eq!(answer.status, 303, "{target}");
        let answer = browser.navigate(location(&answer).as_str()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let arrived = shop.upstream.last();
        assert_eq!(arrived.target, target);
        assert!(arrived.headers.contains_key("authorization"));
    }
}
