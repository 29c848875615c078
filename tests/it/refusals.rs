//! A refusal says what happened, why, and what to change; `docs/refusals.md` has a section for each reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cloakroom::error::Reason;
use http::Method;

use crate::support::shop::Shop;

/// A request's target and fields, the status and the reason of its refusal, and a part of what is said.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, &'a str, &'a str);

/// The document's sections by code: each reason's name, and the paragraph that it begins with.
fn documented() -> BTreeMap<String, BTreeMap<String, String>> {
    let document = fs::read_to_string("docs/refusals.md").unwrap();
    let codes = document.split("\n## ").skip(1).map(|section| {
        let (code, rest) = section.split_once('\n').unwrap();
        let reasons = rest.split("\n### ").skip(1).map(|reason| {
            let (name, text) = reason.split_once("\n\n").unwrap();
            let first = text.split("\n\n").next().unwrap();
            (name.to_owned(), first.split_whitespace().collect::<Vec<_>>().join(" "))
        });
        (code.to_owned(), reasons.collect())
    });
    codes.collect()
}

#[test]
fn the_document_has_each_reason_under_its_code_in_the_gateway_s_own_words_and_no_other() {
    let mut known: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for reason in Reason::ALL {
        let code = reason.code().name().unwrap_or("internal").to_owned();
        let before =
            known.entry(code).or_default().insert(reason.name().to_owned(), reason.detail().to_owned());
        assert_eq!(before, None, "{} stands there twice", reason.name());
    }
    let documented = documented();
    assert_eq!(documented.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
    for (code, reasons) in &known {
        assert_eq!(&documented[code], reasons, "{code}");
    }
    let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert!(known.keys().all(|code| !names.contains(code.as_str())), "two sections would have one anchor");
}

#[test]
fn every_detail_tells_what_to_do() {
    for reason in Reason::ALL {
        let sentences = reason.detail().matches(['.', ';', ':']).count();
        assert!(sentences >= 2 && reason.detail().ends_with('.'), "{}: {}", reason.name(), reason.detail());
    }
}

#[tokio::test]
async fn a_problem_document_names_its_section_and_what_to_change() {
    let shop = Shop::open_with(|_, setup| {
        setup.add_route("path: /socket, upstream: \"http://127.0.0.1:9\", websocket: true");
        setup.add_route("path: /admin, upstream: \"http://127.0.0.1:9\", required_scopes: [orders:write]");
        setup.add_route("path: /read, upstream: \"http://127.0.0.1:9\", methods: [GET]");
    })
    .await;
    let mut browser = shop.user().await;
    let cookie = format!("__Host-cloakroom={}", browser.session_cookie().unwrap());
    let user = ("cookie", cookie.as_str());
    let handshake = [
        user,
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", "http://localhost:5173"),
    ];
    let csrf = ("x-csrf", "1");
    let cases: [Case<'_>; 9] = [
        ("/api/orders", &[csrf], 401, "no-session", "login_url"),
        ("/api/orders", &[user], 403, "csrf-header-missing", "`X-CSRF: 1`"),
        (
            "/api/orders",
            &[user, csrf, ("sec-fetch-site", "same-site")],
            403,
            "foreign-origin",
            "Sec-Fetch-Site is same-site.",
        ),
        (
            "/api/orders",
            &[user, csrf, ("origin", "http://localhost:5173")],
            403,
            "foreign-origin",
            "Origin is not https://shop.test.",
        ),
        ("/socket", &handshake, 403, "websocket-origin", "app's own origin"),
        ("/admin", &[user, csrf], 403, "scope-missing", "The scope `orders:write` is missing."),
        ("/api/../x", &[csrf], 400, "path-dot-segment", "new URL()"),
        ("/bff/login", &[csrf], 400, "login-by-script", "location.href"),
        ("/bff/nothing", &[csrf], 404, "no-route", "base_path"),
    ];
    for (target, fields, status, reason, part) in cases {
        let answer = shop.bare(Method::GET, target, fields).await;
        let document = answer.json();
        assert_eq!(answer.status, status, "{document}");
        assert_eq!(document["documentation"], format!("docs/refusals.md#{reason}"), "{document}");
        assert!(document["detail"].as_str().unwrap().contains(part), "{document}");
    }
    let answer = browser.script(Method::DELETE, "/read", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()), (405, "GET"));
    assert!(answer.json()["detail"].as_str().unwrap().starts_with("Answered are GET."));
}

#[tokio::test]
async fn a_host_without_an_app_is_told_which_host_came_and_no_other() {
    let shop = Shop::open().await;
    let answer = crate::support::shop::bare(
        shop.gateway.address,
        "http://localhost:5173",
        Method::GET,
        "/",
        &[("accept", "application/json")],
    )
    .await;
    assert_eq!(answer.status, 421);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("The request is for `localhost:5173`."), "{detail}");
    assert!(!answer.text().contains("shop.test"), "{detail}");
}
