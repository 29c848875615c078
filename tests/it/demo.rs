//! The demo does what its page and the README promise.

use http::Method;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::chromium;
use crate::support::demo::Demo;

#[tokio::test]
async fn the_demo_goes_from_login_to_logout() {
    let demo = Demo::start().await;
    let mut browser = Browser::at(&demo.origin, demo.address());
    let page = browser.navigate("/").await;
    assert!(page.text().contains("<h1>Cloakroom demo</h1>"), "{}", page.text());
    assert_eq!(browser.fetch("/api/hello").await.problem(), "unauthenticated");

    let page = browser.navigate("/bff/login?return_to=/").await;
    let page = browser.fill_form(&page, &[("username", "alice"), ("password", "looking-glass")]).await;
    assert!(page.text().contains("Wrong user name or password"), "{} {}", page.status, page.text());
    assert_eq!(browser.session_cookie(), None);
    let page = browser.fill_form(&page, &[("username", "alice"), ("password", "wonderland")]).await;
    assert_eq!(page.url.as_str(), format!("{}/", demo.origin), "{} {}", page.status, page.text());
    let session = browser.fetch("/bff/session").await.json();
    assert_eq!(session["user"]["name"], json!("Alice Liddell"), "{session}");

    let first = call(&mut browser).await;
    assert_eq!(first["hello"], json!("Alice Liddell"));
    assert_eq!(first["headers"]["authorization"], json!("present"), "the API got a token");
    assert_eq!(first["headers"].get("cookie"), None, "and no cookie of ours");
    let passed = browser.script(Method::POST, "/tour/minute", &[("x-csrf", "1")], "").await;
    assert_eq!(passed.status, 200);
    let next = call(&mut browser).await;
    assert_ne!(next["access_token"]["number"], first["access_token"]["number"], "the token has expired");

    let page = browser.navigate("/bff/logout").await;
    let page = browser.fill_form(&page, &[]).await;
    assert_eq!(page.url.as_str(), format!("{}/", demo.origin), "{} {}", page.status, page.text());
    assert_eq!(browser.session_cookie(), None);
    assert_eq!(browser.fetch("/api/hello").await.problem(), "unauthenticated");
}

#[tokio::test]
async fn the_demo_s_page_shows_what_it_promises() {
    tour("each_button").await;
}

#[tokio::test]
async fn the_tour_takes_buttons_in_any_order_and_in_two_tabs() {
    tour("odd_orders").await;
}

#[tokio::test]
async fn the_tour_needs_no_mouse_and_moves_nothing_for_whom_that_disturbs() {
    tour("by_keyboard").await;
}

#[tokio::test]
async fn the_tour_is_accessible_wide_and_narrow_light_and_dark() {
    tour("looks").await;
}

async fn tour(scenario: &str) {
    let demo = Demo::start().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tour");
    std::fs::create_dir_all(folder).unwrap();
    chromium::run_of("tour.mjs", scenario, &json!({"gateway": demo.origin, "folder": folder})).await;
}

async fn call(browser: &mut Browser) -> Value {
    let answer = browser.fetch("/api/hello").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}
