//! The demo does what its page and the README promise.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::chromium;
use crate::support::demo::Demo;
use crate::support::wait::until;

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
    until(async || call(&mut browser).await["access_token"]["number"] != first["access_token"]["number"])
        .await;

    let page = browser.navigate("/bff/logout").await;
    let page = browser.fill_form(&page, &[]).await;
    assert_eq!(page.url.as_str(), format!("{}/", demo.origin), "{} {}", page.status, page.text());
    assert_eq!(browser.session_cookie(), None);
    assert_eq!(browser.fetch("/api/hello").await.problem(), "unauthenticated");
}

#[tokio::test]
async fn the_demo_s_page_shows_what_it_promises() {
    let demo = Demo::start().await;
    chromium::run("demo", &json!({"gateway": demo.origin})).await;
}

async fn call(browser: &mut Browser) -> Value {
    let answer = browser.fetch("/api/hello").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}
