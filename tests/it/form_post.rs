//! Where the issuer has the browser post its response (OAuth 2.0 Form Post Response Mode): `POST callback`.

use cookie::SameSite;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::Full;
use url::Url;

use crate::support::browser::{Answer, Browser, form_request, metric, post_form};
use crate::support::gateway::{ORIGIN, SESSION_COOKIE};
use crate::support::log::Log;
use crate::support::shop::{Shop, arrive, ends_the_login, location, offers_login};
use crate::support::wait::in_time;

const CALLBACK: &str = "/bff/callback";

async fn shop(mode: &str) -> Shop {
    Shop::open_with(|_, setup| setup.oidc += &format!("\nresponse_mode: {mode}")).await
}

/// Begins a login and gives the page by which the issuer has the browser post its response.
async fn answered(shop: &Shop, browser: &mut Browser) -> Answer {
    let sent = browser.visit("/bff/login?return_to=/shop").await;
    let page = browser.send(Request::default(), &location(&sent), true).await;
    assert!(page.text().contains("<form"), "{}: {} {}", shop.issuer.url(), page.status, page.text());
    page
}

/// The browser posts what the issuer's page holds, from there.
async fn post(browser: &mut Browser, page: &Answer) -> Answer {
    let (mut request, url) = form_request(page, &[]);
    request.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    in_time(browser.send(request, &url, true)).await
}

#[tokio::test]
async fn r21_a_posted_response_brings_the_login_cookie_which_is_same_site_none_for_it() {
    for mode in ["form_post", "form_post.jwt"] {
        let shop = shop(mode).await;
        let mut browser = shop.browser();
        let sent = browser.visit("/bff/login").await;
        let [cookie] = sent.set_cookies().try_into().unwrap();
        assert_eq!((cookie.same_site(), cookie.secure()), (Some(SameSite::None), Some(true)), "{mode}");
        assert_eq!((cookie.http_only(), cookie.path()), (Some(true), Some("/")));

        let mut browser = shop.browser();
        browser.log_in("/shop").await;
        let paths: Vec<_> = browser.visited.iter().map(Url::path).collect();
        assert_eq!(paths, ["/bff/login", "/authorize", CALLBACK, "/shop"], "{mode}");
        assert_eq!(browser.cookie_names(), [SESSION_COOKIE], "{mode}");
        assert_eq!(browser.fetch("/api/orders").await.status, 200, "{mode}");
    }
}

#[tokio::test]
async fn r21_without_tls_the_login_cookie_is_lax_and_the_response_is_posted_again_from_here() {
    let origin = "http://localhost:8080";
    for mode in ["form_post", "form_post.jwt"] {
        let shop = Shop::open_with(|_, setup| {
            setup.oidc += &format!("\nresponse_mode: {mode}");
            setup.origin = origin.to_owned();
        })
        .await;
        let mut browser = Browser::at(origin, shop.gateway.address);
        let [cookie] = browser.visit("/bff/login").await.set_cookies().try_into().unwrap();
        assert_eq!(cookie.same_site(), Some(SameSite::Lax));

        let mut browser = Browser::at(origin, shop.gateway.address);
        browser.log_in("/shop").await;
        let paths: Vec<_> = browser.visited.iter().map(Url::path).collect();
        assert_eq!(paths, ["/bff/login", "/authorize", CALLBACK, CALLBACK, "/shop"], "{mode}");
        assert_eq!(browser.cookie_names(), ["cloakroom"], "{mode}");
        assert_eq!(browser.fetch("/api/orders").await.status, 200, "{mode}");
    }
}

#[tokio::test]
async fn r21_a_browser_that_withholds_the_cookie_posts_again_from_here() {
    let shop = shop("form_post").await;
    let mut browser = shop.browser();
    let page = answered(&shop, &mut browser).await;
    let again = post(&mut shop.browser(), &page).await;
    let (request, url) = form_request(&again, &[]);
    let answer = in_time(browser.send(request, &url, false)).await;
    assert!(answer.text().contains("url=/shop\""), "{} {}", answer.status, answer.text());
    assert!(browser.session_cookie().is_some());
}

#[tokio::test]
async fn the_page_that_posts_again_runs_one_script_and_repeats_what_came_as_text() {
    let shop = shop("form_post").await;
    let form = "state=a%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E&code=c%26d&%3Cb%3E=x";
    let answer = in_time(post_form(shop.gateway.address, CALLBACK, form)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
    let policy = answer.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'self'"),
        "{policy}"
    );
    assert!(policy.contains("script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    let text = answer.text();
    assert_eq!(text.matches("<script>").count(), 1, "{text}");
    assert!(text.contains("<form method=\"post\" action=\"/bff/callback\">"), "{text}");
    assert!(text.contains("value=\"a&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;\""), "{text}");
    assert!(text.contains("name=\"&lt;b&gt;\"") && text.contains("value=\"c&amp;d\""), "{text}");
    assert!(text.contains("<button type=\"submit\">"), "for those without scripts: {text}");
    assert!(answer.set_cookies().is_empty());
}

#[tokio::test]
async fn a_posted_response_is_sent_again_once_and_no_more() {
    let shop = shop("form_post").await;
    let mut browser = shop.browser();
    let page = answered(&shop, &mut browser).await;
    let mut stranger = shop.browser();
    let again = post(&mut stranger, &page).await;
    assert_eq!(again.status, 200);
    let (request, url) = form_request(&again, &[]);
    let answer = in_time(stranger.send(request, &url, false)).await;
    offers_login(&stranger, &answer, 400);

    for form in ["code=c", "state=&code=c", "again=1&state=unknown&code=c", ""] {
        let answer = in_time(post_form(shop.gateway.address, CALLBACK, form)).await;
        assert_eq!(answer.status, 400, "{form}");
    }
    assert_eq!(shop.issuer.token_requests("authorization_code"), 0);
}

#[tokio::test]
async fn r20_a_posted_response_is_a_small_form_with_each_parameter_once() {
    let shop = shop("form_post").await;
    for form in ["state=a&state=a&code=c", "state=a&code=c&x=1&x=2"] {
        let answer = in_time(post_form(shop.gateway.address, CALLBACK, form)).await;
        assert_eq!(answer.problem(), "bad-request", "{form}");
    }
    for kind in ["application/json", "multipart/form-data; boundary=x", "text/plain"] {
        let answer = shop.bare(Method::POST, CALLBACK, &[("content-type", kind)]).await;
        assert_eq!(answer.problem(), "bad-request", "{kind}");
    }
    assert_eq!(shop.bare(Method::POST, CALLBACK, &[]).await.problem(), "bad-request");
    let large = format!("state=a&code={}", "c".repeat(200 * 1024));
    let answer = in_time(post_form(shop.gateway.address, CALLBACK, &large)).await;
    assert!(answer.status.is_client_error(), "{}", answer.status);
    // What stands in the address counts for nothing.
    let answer = in_time(post_form(shop.gateway.address, "/bff/callback?state=a&code=c", "x=1")).await;
    assert_eq!(answer.problem(), "login-failed");
}

#[tokio::test]
async fn a_response_in_the_query_is_refused_where_a_posted_one_was_asked_for() {
    let shop = shop("form_post").await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;
    let answer = arrive(&mut browser, &callback).await;
    ends_the_login(&browser, &answer, 400);
    assert_eq!(shop.issuer.token_requests("authorization_code"), 0);
}

#[tokio::test]
async fn where_responses_come_in_the_query_nobody_posts_one() {
    for mode in ["query", "jwt", "query.jwt"] {
        let shop = shop(mode).await;
        let answer = in_time(post_form(shop.gateway.address, CALLBACK, "state=a&code=c")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["allow"]),
            (405, &"GET".parse().unwrap()),
            "{mode}"
        );
        shop.user().await;
    }
}

#[tokio::test]
async fn r4_r20_a_posted_refusal_ends_the_login_as_one_in_the_query_does() {
    for mode in ["form_post", "form_post.jwt"] {
        let shop = shop(mode).await;
        shop.issuer.behave(|behaviour| behaviour.authorization_error = Some("access_denied".to_owned()));
        let mut browser = shop.browser();
        let answer = browser.navigate("/bff/login?return_to=/orders").await;
        ends_the_login(&browser, &answer, 400);
        assert!(answer.text().contains("return_to=%2Forders"), "{}", answer.text());
    }
}

#[tokio::test]
async fn rfc9700_2_1_2_tokens_in_a_posted_response_are_refused() {
    let shop = shop("form_post").await;
    let mut browser = shop.browser();
    let page = answered(&shop, &mut browser).await;
    let (request, url) = form_request(&page, &[("id_token", "a.b.c")]);
    assert_eq!(request.headers()[CONTENT_TYPE], "application/x-www-form-urlencoded");
    let answer = in_time(browser.send(request.map(|body: Full<_>| body), &url, false)).await;
    ends_the_login(&browser, &answer, 400);
    assert_eq!(shop.issuer.token_requests("authorization_code"), 0);
}

/// The key, the vector, the ciphertext and the tag are anything: nobody here tries to open it.
const ENCRYPTED: &str = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.a2V5.dmVjdG9y.Y2lwaGVydGV4dA.dGFn";

#[tokio::test]
async fn jarm_2_2_an_encrypted_response_fails_the_login_and_the_log_says_what_to_change() {
    let log = Log::default();
    let _listening = log.listen();
    for mode in ["jwt", "form_post.jwt"] {
        let shop = shop(mode).await;
        let mut browser = shop.browser();
        browser.visit("/bff/login?return_to=/shop").await;
        log.take();
        let mut callback = Url::parse(ORIGIN).unwrap().join(CALLBACK).unwrap();
        let answer = if mode == "jwt" {
            callback.query_pairs_mut().append_pair("response", ENCRYPTED);
            arrive(&mut browser, &callback).await
        } else {
            let form = Full::from(format!("response={ENCRYPTED}"));
            let request = Request::post("/")
                .header("accept", "text/html")
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            in_time(browser.send(request.body(form).unwrap(), &callback, true)).await
        };
        offers_login(&browser, &answer, 400);
        assert!(!answer.text().contains("no longer under way"), "{mode}: {}", answer.text());
        let logged = log.take();
        assert!(
            logged.contains("encrypted") && logged.contains("authorization_encrypted_response_alg"),
            "{mode}: {logged}"
        );
        assert!(!logged.contains("Y2lwaGVydGV4dA"), "{logged}");
        let failed = metric(shop.gateway.admin, "cloakroom_logins_total", "result=\"failed\"").await;
        assert_eq!(failed, 1.0, "{mode}");
    }
}

#[tokio::test]
async fn jarm_an_altered_response_ends_the_login_and_redeems_nothing() {
    let shop = shop("jwt").await;
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;
    let (_, response) = callback.query_pairs().next().unwrap();
    let (message, signature) = response.rsplit_once('.').unwrap();
    let flipped: String = signature.chars().rev().collect();
    let mut altered = callback.clone();
    altered.query_pairs_mut().clear().append_pair("response", &format!("{message}.{flipped}"));
    let answer = arrive(&mut browser, &altered).await;
    ends_the_login(&browser, &answer, 400);
    assert_eq!(shop.issuer.token_requests("authorization_code"), 0);
    shop.user().await;
}
