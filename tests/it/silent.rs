//! Silent login: `login?prompt=none` asks whether the user is logged in at the issuer, without a page
//! (OpenID Connect Core §3.1.2.1).

use std::time::Duration;

use http::header::CONTENT_SECURITY_POLICY;
use http::{Method, Request};
use http_body_util::Full;
use url::Url;

use crate::support::browser::{Answer, Browser, metric};
use crate::support::gateway::{ORIGIN, SESSION_COOKIE};
use crate::support::issuer::{Endpoint, Fault};
use crate::support::shop::{Shop, ends_the_login, location, parameter};
use crate::support::wait::in_time;

const IN_FRAME: [(&str, &str); 4] = [
    ("accept", "text/html"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "iframe"),
    ("sec-fetch-site", "same-origin"),
];

/// What the issuer says where it would have to ask the user something (Core §3.1.2.6).
const WANT_THE_USER: [&str; 4] =
    ["login_required", "interaction_required", "consent_required", "account_selection_required"];

fn answering(shop: &Shop, error: &str) {
    let error = Some(error.to_owned());
    shop.issuer.behave(|behaviour| behaviour.authorization_error = error);
}

/// A frame of the app's own page goes somewhere; by some browsers without `Lax` cookies, once it was elsewhere.
async fn frame(shop: &Shop, browser: &mut Browser, url: &Url, site: &str, lax: bool) -> Answer {
    let mut request = Request::get("/");
    for (name, value) in IN_FRAME {
        request = request.header(name, if name == "sec-fetch-site" { site } else { value });
    }
    let request = request.body(Full::default()).unwrap();
    if lax {
        in_time(browser.send(request, url, false)).await
    } else {
        in_time(shop.browser().send(request, url, true)).await
    }
}

/// A silent login in a frame, up to what the gateway answers in the end.
async fn frame_login(shop: &Shop, browser: &mut Browser) -> Answer {
    let login = Url::parse(ORIGIN).unwrap().join("/bff/login?prompt=none&return_to=/shop").unwrap();
    let sent = frame(shop, browser, &login, "same-origin", true).await;
    assert_eq!(sent.status, 303, "{}", sent.text());
    let url = location(&sent);
    assert_eq!(parameter(&url, "prompt").as_deref(), Some("none"));
    let mut callback = Url::parse(ORIGIN).unwrap().join("/bff/callback").unwrap();
    callback.query_pairs_mut().extend_pairs(shop.issuer.authorize(&url));
    frame(shop, browser, &callback, "cross-site", true).await
}

/// The page in the frame tells the page around it, and nobody else.
fn tells(answer: &Answer, authenticated: bool) {
    let said =
        format!("parent.postMessage({{source:\"cloakroom\",authenticated:{authenticated}}},location.origin)");
    assert!(
        answer.text().contains(&format!("<script>{said}</script>")),
        "{} {}",
        answer.status,
        answer.text()
    );
    let policy = answer.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'self'") && policy.contains("script-src 'sha256-"), "{policy}");
}

#[tokio::test]
async fn a_page_that_asks_silently_comes_back_logged_in() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let answer = browser.navigate("/bff/login?prompt=none&return_to=/shop").await;
    assert_eq!(answer.url.path(), "/shop");
    assert!(browser.visited.iter().any(|url| parameter(url, "prompt").as_deref() == Some("none")));
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
}

#[tokio::test]
async fn a_page_that_asks_silently_comes_back_without_a_session_where_nobody_is_logged_in() {
    let shop = Shop::open().await;
    for (number, error) in WANT_THE_USER.into_iter().enumerate() {
        answering(&shop, error);
        let mut browser = shop.browser();
        let answer = browser.navigate("/bff/login?prompt=none&return_to=/shop%3Fpage=2").await;
        assert_eq!((answer.status.as_u16(), answer.url.path()), (200, "/shop"), "{}", answer.text());
        assert_eq!(answer.url.query(), Some("page=2"));
        assert!(browser.cookie_names().is_empty(), "{error}: {:?}", browser.cookie_names());
        let counted = metric(shop.gateway.admin, "cloakroom_logins_total", "result=\"not_logged_in\"").await;
        assert!(counted > number as f64, "{error} is no failure");
    }
    assert_eq!(shop.issuer.token_requests("authorization_code"), 0);
}

#[tokio::test]
async fn a_login_that_was_not_silent_ends_on_a_page_whatever_the_issuer_says() {
    let shop = Shop::open().await;
    for error in WANT_THE_USER {
        answering(&shop, error);
        for query in
            ["return_to=/shop", "return_to=/shop&prompt=login", "return_to=/shop&prompt=none%20login"]
        {
            let mut browser = shop.browser();
            let answer = browser.navigate(&format!("/bff/login?{query}")).await;
            ends_the_login(&browser, &answer, 400);
        }
    }
    for error in ["access_denied", "invalid_request", "server_error"] {
        answering(&shop, error);
        let mut browser = shop.browser();
        let answer = browser.navigate("/bff/login?prompt=none&return_to=/shop").await;
        ends_the_login(&browser, &answer, 400);
    }
}

#[tokio::test]
async fn a_live_session_is_not_harmed_by_a_silent_login_that_fails() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let cookie = browser.session_cookie();
    for error in ["login_required", "access_denied"] {
        answering(&shop, error);
        browser.navigate("/bff/login?prompt=none&return_to=/shop").await;
        assert_eq!(browser.session_cookie(), cookie);
        tells(&frame_login(&shop, &mut browser).await, false);
        assert_eq!(browser.session_cookie(), cookie);
        assert_eq!(browser.fetch("/api/orders").await.status, 200);
    }
    assert!(shop.issuer.revoked().is_empty());
}

#[tokio::test]
async fn a_frame_that_asks_silently_tells_the_page_around_it() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    answering(&shop, "login_required");
    let answer = frame_login(&shop, &mut browser).await;
    tells(&answer, false);
    assert_eq!(answer.status, 200);
    assert!(browser.cookie_names().is_empty(), "{:?}", browser.cookie_names());

    shop.issuer.behave(|behaviour| behaviour.authorization_error = None);
    let answer = frame_login(&shop, &mut browser).await;
    tells(&answer, true);
    assert_eq!(browser.cookie_names(), [SESSION_COOKIE]);
    assert_eq!(browser.fetch("/api/orders").await.status, 200);

    // A new login takes the place of the old.
    tells(&frame_login(&shop, &mut browser).await, true);
    in_time(shop.issuer.until(|issuer| issuer.living_refresh_tokens().len() == 1)).await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
}

#[tokio::test]
async fn a_frame_is_told_of_every_failure_as_of_nobody() {
    let mut shop = Shop::open().await;
    answering(&shop, "access_denied");
    let answer = frame_login(&shop, &mut shop.browser()).await;
    tells(&answer, false);
    assert_eq!(answer.status, 400);

    shop.issuer.behave(|behaviour| behaviour.authorization_error = None);
    shop.issuer.fail(Endpoint::Token, Fault::status(500));
    let answer = frame_login(&shop, &mut shop.browser()).await;
    tells(&answer, false);
    assert_eq!(answer.status, 503);

    shop.issuer.stop().await;
    shop.clock.advance(Duration::from_secs(5));
    let answer = shop.bare(Method::GET, "/bff/login?prompt=none", &IN_FRAME).await;
    tells(&answer, false);
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"));
    let answer = shop.bare(Method::GET, "/bff/login?prompt=none&return_to=//evil.example", &IN_FRAME).await;
    tells(&answer, false);
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn a_frame_whose_browser_keeps_the_login_cookie_back_asks_again_from_here() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    let login = Url::parse(ORIGIN).unwrap().join("/bff/login?prompt=none").unwrap();
    let sent = frame(&shop, &mut browser, &login, "same-origin", true).await;
    let mut callback = Url::parse(ORIGIN).unwrap().join("/bff/callback").unwrap();
    callback.query_pairs_mut().extend_pairs(shop.issuer.authorize(&location(&sent)));
    let again = frame(&shop, &mut browser, &callback, "cross-site", false).await;
    assert_eq!(again.status, 200, "{}", again.text());
    assert!(again.text().contains("<form method=\"get\" action=\"/bff/callback\">"), "{}", again.text());
    let policy = again.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'self'"), "{policy}");

    callback.query_pairs_mut().append_pair("again", "1");
    let stranger = frame(&shop, &mut browser, &callback, "same-origin", false).await;
    assert_eq!(stranger.status, 400, "once: {}", stranger.text());
    tells(&stranger, false);
    tells(&frame(&shop, &mut browser, &callback, "same-origin", true).await, true);
    assert!(browser.session_cookie().is_some());
}

#[tokio::test]
async fn a_frame_that_comes_too_late_tells_the_page_around_it_too() {
    let shop = Shop::open().await;
    let origin = Url::parse(ORIGIN).unwrap();
    let of_nobody = origin.join("/bff/callback?state=unknown&code=a&again=1").unwrap();
    let without_state = origin.join("/bff/callback").unwrap();
    let (mut user, mut stranger) = (shop.user().await, shop.browser());
    for callback in [&of_nobody, &without_state] {
        for site in ["same-origin", "cross-site"] {
            let answer = frame(&shop, &mut stranger, callback, site, true).await;
            assert_eq!(answer.status, 400, "{callback}");
            assert!(!answer.headers.contains_key("refresh"));
            tells(&answer, false);
        }
        let answer = frame(&shop, &mut user, callback, "same-origin", true).await;
        assert_eq!(answer.status, 200, "{callback}: no page of the app in the frame");
        tells(&answer, false);
    }
    assert_eq!(user.fetch("/api/orders").await.status, 200);
}

#[tokio::test]
async fn r6_in_a_frame_only_a_silent_login_of_the_apps_own_page_begins() {
    let shop = Shop::open().await;
    let with = |site: &'static str, destination: &'static str| {
        IN_FRAME.map(|(name, value)| match name {
            "sec-fetch-site" => (name, site),
            "sec-fetch-dest" => (name, destination),
            _ => (name, value),
        })
    };
    let silent = "/bff/login?prompt=none";
    assert_eq!(shop.bare(Method::GET, silent, &IN_FRAME).await.status, 303);
    for (method, target, fields) in [
        (Method::GET, silent, with("cross-site", "iframe")),
        (Method::GET, silent, with("same-site", "iframe")),
        (Method::GET, silent, with("none", "iframe")),
        (Method::GET, silent, with("same-origin", "frame")),
        (Method::GET, silent, with("same-origin", "object")),
        (Method::GET, silent, with("same-origin", "image")),
        (Method::GET, "/bff/login", IN_FRAME),
        (Method::GET, "/bff/login?prompt=login", IN_FRAME),
        (Method::GET, "/bff/login?prompt=none%20login", IN_FRAME),
        (Method::GET, "/bff/login?prompt=none&prompt=login", IN_FRAME),
        (Method::POST, silent, IN_FRAME),
    ] {
        let answer = shop.bare(method, target, &fields).await;
        assert_eq!(answer.status, 400, "{target} {fields:?}");
        assert!(answer.set_cookies().is_empty());
        let policy = answer.headers.get(CONTENT_SECURITY_POLICY).map(|policy| policy.to_str().unwrap());
        assert!(policy.is_none_or(|policy| policy.contains("frame-ancestors 'none'")), "{policy:?}");
    }
}
