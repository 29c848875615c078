//! Where the issuer has the browser say that somebody has logged out: `GET frontchannel-logout` (R56).

use std::sync::Arc;

use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER};

use crate::support::browser::{Answer, Browser, metric};
use crate::support::shop::Shop;
use crate::support::troubled_store::{Step, Trouble, TroubledStore};

async fn frame(shop: &Shop, parameters: &[(&str, &str)]) -> Answer {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    // A frame of another site: no cookie comes with it.
    let fields = [
        ("accept", "text/html"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "iframe"),
    ];
    shop.bare(Method::GET, &format!("/bff/frontchannel-logout?{query}"), &fields).await
}

fn is_the_page(shop: &Shop, answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers[CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
    let policy = answer.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.ends_with(&format!("frame-ancestors {}", shop.issuer.url())), "{policy}");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("script-src"), "{policy}");
    assert!(!answer.headers.contains_key("x-frame-options"));
    assert!(!answer.text().contains("<script") && answer.set_cookies().is_empty());
}

async fn is_logged_in(browser: &mut Browser) -> bool {
    browser.fetch("/bff/session").await.json()["authenticated"] == true
}

#[tokio::test]
async fn r56_iss_and_sid_end_the_sessions_of_that_login_without_a_cookie() {
    let shop = Shop::open().await;
    let mut one = shop.user().await;
    let sid = shop.issuer.last_sid();
    let mut other = shop.user().await;
    let issuer = shop.issuer.url();
    let answer = frame(&shop, &[("iss", &issuer), ("sid", &sid)]).await;
    is_the_page(&shop, &answer);
    assert!(!is_logged_in(&mut one).await && is_logged_in(&mut other).await);
    shop.issuer.until(|issuer| issuer.revoked().len() == 2).await;
    assert_eq!(metric(shop.gateway.admin, "cloakroom_logouts_total", "\"frontchannel\"").await, 1.0);
    is_the_page(&shop, &frame(&shop, &[("iss", &issuer), ("sid", &sid)]).await);
}

#[tokio::test]
async fn r56_anything_else_is_ignored_and_answered_alike() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let (issuer, sid) = (shop.issuer.url(), shop.issuer.last_sid());
    let with_slash = format!("{issuer}/");
    let long = "x".repeat(1025);
    let cases: [&[(&str, &str)]; 11] = [
        &[],
        &[("iss", &issuer)],
        &[("sid", &sid)],
        &[("iss", "https://evil.test"), ("sid", &sid)],
        &[("iss", &with_slash), ("sid", &sid)],
        &[("iss", ""), ("sid", &sid)],
        &[("iss", &issuer), ("sid", "")],
        &[("iss", &issuer), ("sid", "unknown")],
        &[("iss", &issuer), ("sid", &long)],
        &[("iss", &issuer), ("sid", &sid), ("sid", &sid)],
        &[("iss", &issuer), ("iss", &issuer), ("sid", &sid)],
    ];
    for parameters in cases {
        is_the_page(&shop, &frame(&shop, parameters).await);
        assert!(is_logged_in(&mut browser).await, "{parameters:?}");
    }
    for method in [Method::POST, Method::DELETE] {
        let answer =
            shop.bare(method, &format!("/bff/frontchannel-logout?iss={issuer}&sid={sid}"), &[]).await;
        assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()), (405, "GET"));
    }
    assert!(is_logged_in(&mut browser).await && shop.issuer.revoked().is_empty());
}

#[tokio::test]
async fn r63_while_the_store_is_away_the_frame_says_so() {
    let mut store = None;
    let shop = Shop::open_with(|_, setup| {
        let troubled = store.insert(Arc::new(TroubledStore::new(Arc::clone(&setup.clock))));
        setup.stand_in = Some(troubled.clone());
    })
    .await;
    let store = store.unwrap();
    let mut browser = shop.user().await;
    let (issuer, sid) = (shop.issuer.url(), shop.issuer.last_sid());
    store.begin(Step::List, Trouble::Fails);
    let answer = frame(&shop, &[("iss", &issuer), ("sid", &sid)]).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.headers.contains_key(RETRY_AFTER));
    store.end();
    shop.issuer.until(|issuer| issuer.revoked().len() == 2).await;
    assert!(!is_logged_in(&mut browser).await, "it is done once the store is back");
}
