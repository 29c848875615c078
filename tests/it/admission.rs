//! Who is let through to a route, and what becomes of a cookie that opens nothing.

use http::Method;
use http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};

use crate::support::gateway::SESSION_COOKIE;
use crate::support::shop::Shop;

const FORGED: (&str, &str) = ("cookie", "__Host-cloakroom=forged");

fn clears(answer: &crate::support::browser::Answer) -> bool {
    answer.clears(SESSION_COOKIE) && answer.headers[CACHE_CONTROL] == "no-store"
}

#[tokio::test]
async fn a_cookie_that_opens_nothing_is_unauthenticated_and_taken_back_whatever_else_is_sent() {
    let shop = Shop::open().await;
    for fields in
        [vec![FORGED], vec![FORGED, ("x-csrf", "1")], vec![FORGED, ("sec-fetch-site", "same-origin")]]
    {
        let answer = shop.bare(Method::GET, "/api/orders", &fields).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (401, "unauthenticated"),
            "{fields:?}"
        );
        assert!(clears(&answer), "{fields:?}");
    }
    let foreign = shop.bare(Method::GET, "/api/orders", &[FORGED, ("sec-fetch-site", "cross-site")]).await;
    assert_eq!(foreign.problem(), "csrf", "another site is refused before the cookie is looked at");
}

#[tokio::test]
async fn a_navigation_with_a_cookie_that_opens_nothing_goes_to_login_without_it() {
    let shop = Shop::open().await;
    let page = [FORGED, ("sec-fetch-mode", "navigate"), ("accept", "text/html")];
    let answer = shop.bare(Method::GET, "/api/orders?page=2", &page).await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.headers[LOCATION], "/bff/login?return_to=%2Fapi%2Forders%3Fpage%3D2");
    assert!(clears(&answer));
    let without = shop.bare(Method::GET, "/api/orders", &page[1..]).await;
    assert!(!without.headers.contains_key(SET_COOKIE), "there is nothing to take back");
}

#[tokio::test]
async fn where_a_session_is_optional_a_dead_cookie_is_taken_back_with_the_answer_for_anybody() {
    let shop = Shop::open_with(|_, setup| {
        setup.routes = setup.routes.replace("path: /api,", "path: /api, auth: optional,");
    })
    .await;
    let answer = shop.bare(Method::GET, "/api/news", &[FORGED, ("x-csrf", "1")]).await;
    assert_eq!(answer.status, 200);
    assert!(clears(&answer));
    assert!(shop.upstream.tokens().is_empty());
}

#[tokio::test]
async fn r32_files_are_shown_to_those_with_the_required_scope_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("report.txt"), "figures").unwrap();
    let shop = Shop::open_with(|_, setup| {
        for (path, scope) in [("/mine", "profile"), ("/theirs", "admin")] {
            setup.add_route(&format!(
                "path: {path}, files: \"{}\", auth: required, required_scopes: [{scope}]",
                folder.path().display()
            ));
        }
    })
    .await;
    let mut browser = shop.user().await;
    assert_eq!(browser.fetch("/mine/report.txt").await.text(), "figures");
    let refused = browser.fetch("/theirs/report.txt").await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (403, "forbidden"));
}

#[tokio::test]
async fn whoever_may_get_may_ask_for_the_head_alone() {
    let shop = Shop::open_with(|_, setup| {
        setup.routes = setup.routes.replace("path: /api,", "path: /api, methods: [GET],");
    })
    .await;
    let mut browser = shop.user().await;
    let head = browser.script(Method::HEAD, "/api/orders", &[("x-csrf", "1")], "").await;
    assert_eq!(head.status, 200);
    let post = browser.script(Method::POST, "/api/orders", &[("x-csrf", "1")], "").await;
    assert_eq!((post.status.as_u16(), post.headers["allow"].to_str().unwrap()), (405, "GET"));
}

#[tokio::test]
async fn r34_a_cookie_of_another_app_on_this_host_does_not_go_upstream() {
    let shop = Shop::open_with(|issuer, setup| {
        let other = format!(
            "- origin: http://localhost:8081\n    oidc: {{issuer: \"{}\", client_id: other, client_auth: none}}\n    \
             session: {{cookie: {{name: other-app}}}}\n    routes: [{{path: /x, upstream: \"http://127.0.0.1:9\"}}]\n",
            issuer.url()
        );
        setup.further_apps = format!("  {other}");
    })
    .await;
    let cookies = "other-app=sealed; other-app-login-abc=sealed; theme=dark";
    let answer = shop.bare(Method::GET, "/page", &[("cookie", cookies)]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(shop.upstream.last().headers["cookie"], "theme=dark");
}
