//! A folder of static files behind the gateway: what an SPA needs, and nothing outside the folder.

use std::fs;

use http::Method;
use tempfile::TempDir;

use crate::support::browser::Browser;
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::issuer::Issuer;
use crate::support::upstream::Upstream;
use crate::support::wire::{Reply, ask, head};

const PAGE: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\nSec-Fetch-Mode: navigate\r\n";
const SCRIPT: &str = "Accept: */*\r\nSec-Fetch-Mode: cors\r\n";

/// A folder `served`, with a secret beside it.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, content) in [
        ("secret.txt", "SECRET"),
        ("served/index.html", "<h1>app</h1>"),
        ("served/app.js", "0123456789"),
        ("served/app.js.br", "brotli"),
        ("served/app.js.gz", "gzip!"),
        ("served/docs/index.html", "<h1>docs</h1>"),
        ("served/.env", "SECRET"),
        ("served/.git/config", "SECRET"),
        ("served/.well-known/security.txt", "Contact: us"),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

async fn serving(folder: &TempDir, path: &str) -> Gateway {
    Setup::new(NO_ISSUER)
        .route(&format!("path: {path}, files: \"{}\"", folder.path().join("served").display()))
        .start()
        .await
}

async fn get(gateway: &Gateway, path: &str, fields: &str) -> Reply {
    ask(gateway.address, head(&format!("GET {path}"), fields)).await
}

#[tokio::test]
async fn a_path_that_is_no_file_is_the_apps_page_for_people_and_a_problem_for_scripts() {
    let folder = folder();
    let gateway = serving(&folder, "/").await;
    for path in ["/", "/index.html", "/deep/link?x=1", "/app.jsx"] {
        let reply = get(&gateway, path, PAGE).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "<h1>app</h1>"), "{path}");
    }
    for path in ["/missing.js", "/api/orders", "/.env"] {
        let reply = get(&gateway, path, SCRIPT).await;
        assert_eq!((reply.status, reply.problem()), (404, "not-found".to_owned()), "{path}");
    }
    let reply = get(&gateway, "/.env", PAGE).await;
    assert_eq!((reply.status, reply.field("content-type")), (404, Some("text/html; charset=utf-8")));
    assert!(reply.text().contains("<h1>"));
    let reply = ask(gateway.address, head("POST /app.js", "Content-Length: 0\r\n")).await;
    assert_eq!(
        (reply.status, reply.field("allow"), reply.problem()),
        (405, Some("GET, HEAD"), "bad-request".to_owned())
    );
    let reply = ask(
        gateway.address,
        head("HEAD /missing.js", SCRIPT).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
    )
    .await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn files_are_revalidated_ranged_and_sent_precompressed() {
    let folder = folder();
    let gateway = serving(&folder, "/").await;
    let reply = get(&gateway, "/app.js", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "0123456789"));
    assert_eq!(
        (reply.field("content-length"), reply.field("content-type")),
        (Some("10"), Some("text/javascript"))
    );
    let tag = reply.field("etag").unwrap();
    let unchanged = get(&gateway, "/app.js", &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let part = get(&gateway, "/app.js", "Range: bytes=2-4\r\n").await;
    assert_eq!(
        (part.status, part.text().as_str(), part.field("content-range")),
        (206, "234", Some("bytes 2-4/10"))
    );
    let outside = get(&gateway, "/app.js", "Range: bytes=90-\r\n").await;
    assert_eq!((outside.status, outside.field("content-range")), (416, Some("bytes */10")));
    for (accepted, encoding, body) in [
        ("br, gzip", Some("br"), "brotli"),
        ("gzip", Some("gzip"), "gzip!"),
        ("identity", None, "0123456789"),
    ] {
        let reply = get(&gateway, "/app.js", &format!("Accept-Encoding: {accepted}\r\n")).await;
        assert_eq!((reply.field("content-encoding"), reply.text().as_str()), (encoding, body));
        assert!(reply.field("vary").unwrap().to_lowercase().contains("accept-encoding"));
    }
    assert_eq!(get(&gateway, "/.well-known/security.txt", "").await.text(), "Contact: us");
    let reply = get(&gateway, "/docs?page=2", PAGE).await;
    assert_eq!((reply.status, reply.field("location")), (307, Some("./docs/?page=2")));
}

#[tokio::test]
async fn r50_every_answer_carries_the_security_headers_and_hsts_on_https_alone() {
    let folder = folder();
    for (origin, host, secure) in
        [("https://shop.test", "shop.test", true), ("http://localhost:8080", "localhost:8080", false)]
    {
        let mut setup = Setup::new(NO_ISSUER)
            .route(&format!("path: /, files: \"{}\"", folder.path().join("served").display()));
        origin.clone_into(&mut setup.origin);
        let gateway = setup.start().await;
        for (line, fields) in [
            ("GET /", PAGE),
            ("GET /app.js", SCRIPT),
            ("GET /missing.js", SCRIPT),
            ("GET /.env", PAGE),
            ("POST /app.js", "Content-Length: 0\r\n"),
            ("GET /docs", PAGE),
        ] {
            let request = head(line, fields).replace("Host: shop.test", &format!("Host: {host}"));
            let reply = ask(gateway.address, request).await;
            let policy = reply.field("content-security-policy").unwrap_or_else(|| panic!("{line} {reply:?}"));
            assert!(policy.contains("frame-ancestors"), "{line}: {policy}");
            assert_eq!(reply.field("x-content-type-options"), Some("nosniff"), "{line}");
            assert!(reply.field("referrer-policy").is_some(), "{line}");
            assert_eq!(reply.field("strict-transport-security").is_some(), secure, "{line}");
        }
    }
}

#[tokio::test]
async fn r35_nothing_outside_the_folder_and_nothing_hidden_is_ever_sent() {
    let folder = folder();
    for route in ["/", "/app"] {
        let gateway = serving(&folder, route).await;
        let base = route.trim_end_matches('/');
        for path in [
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/.%2E/secret.txt",
            "/docs/../../secret.txt",
            "/docs/%2e%2e/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/docs%2f..%2f..%2fsecret.txt",
            "/..%5csecret.txt",
            "/..\\secret.txt",
            "//secret.txt",
            "/..//secret.txt",
            "/%252e%252e/secret.txt",
            "/.env",
            "/%2eenv",
            "/.git/config",
            "/docs/../.env",
            "/app.js%00",
            "/./.env",
        ] {
            for fields in [PAGE, SCRIPT] {
                let reply = get(&gateway, &format!("{base}{path}"), fields).await;
                assert!(!reply.text().contains("SECRET"), "{base}{path}");
                assert!(
                    matches!(reply.status, 400 | 404) || reply.text() == "<h1>app</h1>",
                    "{path} {reply:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_folder_can_be_for_those_who_are_logged_in() {
    let (folder, issuer, site) = (folder(), Issuer::start().await, Upstream::start().await);
    let served = folder.path().join("served").display().to_string();
    let setup = Setup::new(&issuer.url())
        .route(&format!("path: /members, files: \"{served}\", auth: required"))
        .for_anybody("/", &site.url());
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    let answer = browser.visit("/members/docs/?x=1").await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.headers["location"], "/bff/login?return_to=%2Fmembers%2Fdocs%2F%3Fx%3D1");
    let answer = browser.script(Method::GET, "/members/app.js", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (401, "unauthenticated".to_owned()));
    assert_eq!(
        browser.script(Method::GET, "/members/missing.js", &[], "").await.status,
        401,
        "who is not in learns nothing"
    );

    browser.log_in("/members/").await;
    let answer = browser.visit("/members/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "<h1>app</h1>"),
        "a navigation carries no header"
    );
    assert!(answer.headers["cache-control"].to_str().unwrap().contains("private"), "{:?}", answer.headers);
    let answer = browser.script(Method::GET, "/members/app.js", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "0123456789"));
    assert!(answer.headers["cache-control"].to_str().unwrap().contains("private"));
    // Public files stay public for those who are logged in.
    let public = serving(&folder, "/").await;
    browser.switch_to(public.address);
    let answer = browser.visit("/app.js").await;
    assert!(!answer.headers["cache-control"].to_str().unwrap().contains("private"));
}
