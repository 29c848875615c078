//! A login that another party begins (OpenID Connect Core §4): `GET` or `POST login` with `iss`.

use http::header::{CONTENT_TYPE, ORIGIN as FROM};
use http::{Method, Request};
use http_body_util::Full;
use url::Url;

use crate::support::browser::{Answer, Browser};
use crate::support::gateway::ORIGIN;
use crate::support::issuer::Endpoint;
use crate::support::shop::{Shop, location, parameter};
use crate::support::wait::in_time;

const TARGET: &str = "https://shop.test/orders?page=2";

/// A portal's page has the browser post a form here.
async fn post(browser: &mut Browser, form: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut request = Request::post("/")
        .header("accept", "text/html")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(FROM, "https://portal.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let url = Url::parse(ORIGIN).unwrap().join("/bff/login").unwrap();
    in_time(browser.send(request.body(Full::from(body)).unwrap(), &url, true)).await
}

const NAVIGATION: [(&str, &str); 3] =
    [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

#[tokio::test]
async fn core_4_a_portal_begins_a_login_by_post_as_by_get() {
    let shop = Shop::open().await;
    let issuer = shop.issuer.url();
    // With Fetch Metadata, and from a browser that sends none.
    for fields in [NAVIGATION.as_slice(), &[]] {
        let mut browser = shop.browser();
        let form =
            [("iss", issuer.as_str()), ("target_link_uri", TARGET), ("login_hint", "alice"), ("x", "1")];
        let sent = post(&mut browser, &form, fields).await;
        assert_eq!(sent.status, 303, "{}", sent.text());
        let url = location(&sent);
        assert_eq!(parameter(&url, "login_hint").as_deref(), Some("alice"));
        assert_eq!(parameter(&url, "x"), None, "what is not understood is ignored");
        let answer = browser.navigate(url.as_str()).await;
        assert_eq!(answer.url.as_str(), TARGET);
        assert_eq!(browser.fetch("/api/orders").await.status, 200);
    }
    let mut browser = shop.browser();
    let sent = post(&mut browser, &[("iss", &issuer)], &NAVIGATION).await;
    let answer = browser.navigate(location(&sent).as_str()).await;
    assert_eq!(answer.url.path(), "/", "target_link_uri may be left out");
}

#[tokio::test]
async fn core_4_a_post_that_names_no_issuer_another_or_a_target_elsewhere_begins_nothing() {
    let shop = Shop::open().await;
    let issuer = shop.issuer.url();
    for form in [
        [("x", "1"), ("target_link_uri", TARGET)],
        [("iss", ""), ("target_link_uri", TARGET)],
        [("iss", "https://evil.example"), ("target_link_uri", TARGET)],
        [("iss", &issuer), ("iss", &issuer)],
        [("iss", &issuer), ("target_link_uri", "https://evil.example/")],
        [("iss", &issuer), ("target_link_uri", "https://shop.test//evil.example/")],
        [("iss", &issuer), ("target_link_uri", "blob:https://shop.test/orders")],
        [("iss", &issuer), ("target_link_uri", "/orders")],
    ] {
        let answer = post(&mut shop.browser(), &form, &NAVIGATION).await;
        assert_eq!(answer.status, 400, "{form:?}: {}", answer.text());
        assert!(answer.set_cookies().is_empty());
    }
    // In the address it counts for nothing.
    let target = format!("/bff/login?iss={issuer}");
    let kind = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(shop.bare(Method::POST, &target, &[kind]).await.status, 400);
    assert_eq!(shop.bare(Method::POST, &target, &[("content-type", "text/plain")]).await.status, 400);
    assert!(shop.issuer.received_at(Endpoint::Authorize).is_empty());
}

#[tokio::test]
async fn core_4_neither_a_script_nor_a_frame_begins_a_login_by_post() {
    let shop = Shop::open().await;
    let issuer = shop.issuer.url();
    for fields in [
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "empty")],
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
        [("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
        [("x-csrf", "1"), ("x-a", "b"), ("x-b", "c")],
    ] {
        let answer = post(&mut shop.browser(), &[("iss", &issuer)], &fields).await;
        assert_eq!(answer.status, 400, "{fields:?}");
        assert!(answer.set_cookies().is_empty());
    }
}
