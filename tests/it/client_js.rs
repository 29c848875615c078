//! `client.js`: the file as it is served, that it is what its source makes of it, and what it does in a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use serde_json::{Value, json};

use crate::chromium::App;
use crate::support::browser::Answer;
use crate::support::shop::Shop;
use crate::support::upstream::Upstream;
use crate::support::{chromium, node};

/// The files that are built, and as what they are served.
const FILES: [(&str, &str); 3] = [
    ("client.js", "text/javascript; charset=utf-8"),
    ("client.js.map", "application/json"),
    ("client.d.ts", "text/plain; charset=utf-8"),
];

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn built(name: &str) -> String {
    fs::read_to_string(in_repository("src/endpoints/client_js").join(name)).unwrap()
}

async fn with_field(shop: &Shop, method: Method, field: (&str, &str)) -> Answer {
    shop.browser().script(method, "/bff/client.js", &[field], "").await
}

#[tokio::test]
async fn anybody_gets_the_module_its_source_and_its_types() {
    let shop = Shop::open().await;
    for (name, content_type) in FILES {
        // As a browser imports it: without a header of ours, and without a session.
        let answer = shop.browser().script(Method::GET, &format!("/bff/{name}"), &[], "").await;
        assert_eq!((answer.status.as_u16(), &answer.text()), (200, &built(name)));
        assert_eq!(answer.headers[CONTENT_TYPE], content_type);
        assert_eq!(answer.headers[CACHE_CONTROL], "no-cache");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["cross-origin-resource-policy"], "same-origin");
    }
    assert!(built("client.js").trim_end().ends_with("//# sourceMappingURL=client.js.map"));
    let refused = shop.browser().script(Method::POST, "/bff/client.js", &[], "").await;
    assert_eq!((refused.status.as_u16(), &refused.headers["allow"]), (405, &"GET, HEAD".parse().unwrap()));
}

#[tokio::test]
async fn who_has_it_already_is_told_so() {
    let shop = Shop::open().await;
    let first = with_field(&shop, Method::GET, ("accept", "*/*")).await;
    let tag = first.headers[ETAG].to_str().unwrap();
    for known in [tag.to_owned(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let again = with_field(&shop, Method::GET, ("if-none-match", &known)).await;
        assert_eq!((again.status.as_u16(), again.text().as_str()), (304, ""), "{known}");
        assert_eq!(again.headers[ETAG], tag);
    }
    let other = with_field(&shop, Method::GET, ("if-none-match", "\"other\"")).await;
    assert_eq!(other.status, 200);
    let head = with_field(&shop, Method::HEAD, ("accept", "*/*")).await;
    assert_eq!((head.status.as_u16(), head.text().as_str()), (200, ""));
    assert_eq!(head.headers["content-length"], first.text().len().to_string().as_str());
}

#[tokio::test]
async fn it_is_what_its_source_makes_of_it_and_small() {
    let folder = tempfile::tempdir().unwrap();
    let status = node::script("../../client/build.mjs").arg(folder.path()).status().await.unwrap();
    assert!(status.success(), "where client/node_modules is missing: tests/run installs what tests need");
    for name in ["client.js", "client.d.ts"] {
        let fresh = fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(fresh, built(name), "built from another source; mended by `node client/build.mjs`");
    }
    let map: Value = serde_json::from_str(&built("client.js.map")).unwrap();
    let source = fs::read_to_string(in_repository("client/src/index.ts")).unwrap();
    assert_eq!(map["sourcesContent"], json!([source]));
    let script = in_repository("src/endpoints/client_js/client.js");
    let compressed = Command::new("gzip").args(["-9", "-c"]).arg(script).output().unwrap().stdout;
    assert!((500..3072).contains(&compressed.len()), "{}", compressed.len());
}

#[tokio::test]
async fn tabs_learn_of_each_others_login_and_logout() {
    App::on_http().await.tries("tabs").await;
}

#[tokio::test]
async fn twenty_calls_after_the_sessions_end_lead_to_one_login() {
    App::on_http().await.tries("one_login").await;
}

#[tokio::test]
async fn who_does_nothing_is_warned_before_the_end() {
    App::on_http_with(|setup| setup.session = "idle_timeout: 8s".to_owned()).await.tries("expiring").await;
}

#[tokio::test]
async fn a_page_that_was_offline_asks_again() {
    App::on_http().await.tries("offline").await;
}

#[tokio::test]
async fn going_back_after_a_logout_shows_nothing_private() {
    App::on_http().await.tries("back").await;
}

#[tokio::test]
async fn where_cookies_are_blocked_a_login_ends_at_a_page_that_offers_it_again() {
    App::on_http().await.tries("cookies_blocked").await;
}

#[tokio::test]
async fn a_silent_login_without_a_page() {
    App::on_http().await.tries("silent").await;
    App::beside_its_issuer().await.tries("silent").await;
}

#[tokio::test]
async fn the_gateways_header_goes_to_the_gateway_alone() {
    App::on_http().await.tries("headers").await;
}

#[tokio::test]
async fn components_of_react_and_vue_follow_the_session() {
    App::on_http().await.tries("hooks").await;
}

impl App {
    async fn tries(&self, scenario: &str) {
        let elsewhere = Upstream::start().await;
        let arguments =
            json!({"gateway": self.origin, "admin": self.issuer.admin(), "elsewhere": elsewhere.url()});
        chromium::run_of("client.mjs", scenario, &arguments).await;
    }
}
