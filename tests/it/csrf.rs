//! Who may use a session: the modes of `csrf` against every kind of request.

use http::Method;

use crate::support::browser::Answer;
use crate::support::gateway::Setup;
use crate::support::shop::Shop;

/// The columns of the tables below.
const ROUTES: [(&str, &str); 6] = [
    ("/header", "csrf: header"),
    ("/origin", "csrf: same_origin"),
    ("/off", "csrf: off"),
    ("/header-optional", "csrf: header, auth: optional"),
    ("/origin-optional", "csrf: same_origin, auth: optional"),
    ("/off-optional", "csrf: off, auth: optional"),
];

type Fields = &'static [(&'static str, &'static str)];

/// What a request gets in each column, first with a session, then without one: `T` the upstream with the
/// session's token, `a` the upstream as anonymous, `c` 403 csrf, `u` 401, `l` 303 to login.
const READS: [(Fields, &str, &str); 16] = [
    // The app's own scripts.
    (&[OWN, CORS, HEADER], "TTT TTT", "uuu aaa"),
    (&[OWN, CORS], "cTT aTT", "uuu aaa"),
    (&[ORIGIN, HEADER], "TTT TTT", "uuu aaa"),
    (&[ORIGIN], "cTT aTT", "uuu aaa"),
    // Says nothing of where it comes from.
    (&[HEADER], "TcT TaT", "uuu aaa"),
    (&[], "ccT aaT", "uuu aaa"),
    (&[("x-csrf", "0"), OWN], "cTT aTT", "uuu aaa"),
    (&[HEADER, HEADER, OWN], "cTT aTT", "uuu aaa"),
    // Another site, or a sibling subdomain: whatever else is sent.
    (&[("sec-fetch-site", "cross-site"), CORS, HEADER], "ccT aaT", "ccu aaa"),
    (&[("sec-fetch-site", "same-site"), CORS, HEADER], "ccT aaT", "ccu aaa"),
    (&[("origin", "https://evil.example"), OWN, CORS, HEADER], "ccT aaT", "ccu aaa"),
    (&[("origin", "null"), HEADER], "ccT aaT", "ccu aaa"),
    // Navigations cannot carry the header.
    (&[("sec-fetch-site", "none"), NAVIGATE, HTML], "cTT aTT", "lll aaa"),
    (&[OWN, NAVIGATE, HTML], "cTT aTT", "lll aaa"),
    (&[("sec-fetch-site", "cross-site"), NAVIGATE, HTML], "ccT aaT", "lll aaa"),
    (&[HTML], "ccT aaT", "lll aaa"),
];

/// The same for requests that are not GET: none is ever redirected.
const WRITES: [(Fields, &str, &str); 7] = [
    (&[OWN, CORS, ORIGIN, HEADER], "TTT TTT", "uuu aaa"),
    (&[OWN, CORS, ORIGIN], "cTT aTT", "uuu aaa"),
    (&[], "ccT aaT", "uuu aaa"),
    (&[("sec-fetch-site", "cross-site"), CORS, HEADER], "ccT aaT", "ccu aaa"),
    (&[OWN, NAVIGATE, ORIGIN, HTML], "cTT aTT", "uuu aaa"),
    (
        &[("sec-fetch-site", "cross-site"), NAVIGATE, ("origin", "https://evil.example"), HTML],
        "ccT aaT",
        "uuu aaa",
    ),
    (&[("origin", "null"), HTML], "ccT aaT", "uuu aaa"),
];

const OWN: (&str, &str) = ("sec-fetch-site", "same-origin");
const CORS: (&str, &str) = ("sec-fetch-mode", "cors");
const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
const HTML: (&str, &str) = ("accept", "text/html,*/*;q=0.8");
const HEADER: (&str, &str) = ("x-csrf", "1");
const ORIGIN: (&str, &str) = ("origin", "https://shop.test");

fn add_routes(setup: &mut Setup) {
    let upstream = setup.upstream();
    for (path, keys) in ROUTES {
        setup.add_route(&format!("path: {path}, upstream: \"{upstream}\", {keys}"));
    }
}

fn outcome(shop: &Shop, answer: &Answer) -> char {
    let is_page =
        answer.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let problem = if is_page || answer.status.is_redirection() || answer.status == 200 {
        String::new()
    } else {
        answer.problem()
    };
    match (answer.status.as_u16(), problem.as_str()) {
        (200, _) if shop.upstream.last().headers.contains_key("authorization") => 'T',
        (200, _) => 'a',
        (403, "csrf" | "") => 'c',
        (401, "unauthenticated" | "") => 'u',
        (303, _) if answer.headers["location"].to_str().unwrap().starts_with("/bff/login?return_to=%2F") => {
            'l'
        }
        other => panic!("{} {other:?} {}", answer.url, answer.text()),
    }
}

async fn row(shop: &Shop, method: &Method, fields: Fields, cookie: Option<&str>) -> String {
    let mut outcomes = String::new();
    for (index, (path, _)) in ROUTES.into_iter().enumerate() {
        let mut fields = fields.to_vec();
        fields.extend(cookie.map(|cookie| ("cookie", cookie)));
        let answer = shop.bare(method.clone(), &format!("{path}/x?y=1"), &fields).await;
        if index == 3 {
            outcomes.push(' ');
        }
        outcomes.push(outcome(shop, &answer));
    }
    outcomes
}

#[tokio::test]
async fn r47_r48_every_kind_of_request_gets_what_its_route_says() {
    let shop = Shop::open_with(|_, setup| add_routes(setup)).await;
    let mut browser = shop.user().await;
    let cookie = format!("__Host-cloakroom={}", browser.session_cookie().unwrap());
    let mut wrong = Vec::new();
    let reads = READS.map(|case| (Method::GET, case));
    let writes = [Method::POST, Method::DELETE]
        .into_iter()
        .flat_map(|method| WRITES.map(|case| (method.clone(), case)));
    for (method, (fields, with_session, without)) in reads.into_iter().chain(writes) {
        for (cookie, expected) in [(Some(cookie.as_str()), with_session), (None, without)] {
            let found = row(&shop, &method, fields, cookie).await;
            if found != expected {
                let session = if cookie.is_some() { "with" } else { "without" };
                wrong.push(format!("{method} {fields:?} {session} a session: {found} instead of {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(browser.fetch("/api/orders").await.status, 200, "a refusal ends no session");
}

#[tokio::test]
async fn where_no_session_is_looked_at_there_is_nothing_to_guard() {
    let shop = Shop::open_with(|_, setup| {
        let upstream = setup.upstream();
        for csrf in ["header", "same_origin", "off"] {
            setup.add_route(&format!("path: /{csrf}, upstream: \"{upstream}\", auth: none, csrf: {csrf}"));
        }
    })
    .await;
    let cookie = format!("__Host-cloakroom={}", shop.user().await.session_cookie().unwrap());
    for path in ["/header", "/same_origin", "/off"] {
        for method in [Method::GET, Method::POST] {
            for fields in [vec![], vec![("sec-fetch-site", "cross-site")], vec![HEADER, OWN]] {
                let fields = [fields, vec![("cookie", cookie.as_str())]].concat();
                let answer = shop.bare(method.clone(), path, &fields).await;
                assert_eq!(outcome(&shop, &answer), 'a', "{method} {path} {fields:?}");
                let arrived = shop.upstream.last();
                assert!(!arrived.headers.contains_key("cookie"), "our cookie stays here");
            }
        }
    }
}

#[tokio::test]
async fn by_default_an_upstream_wants_the_header_on_reads_too() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    for method in
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
    {
        let answer = browser.script(method.clone(), "/api/orders", &[], "").await;
        assert_eq!(answer.status, 403, "{method}");
        let answer = browser.script(method.clone(), "/api/orders", &[("x-csrf", "1")], "").await;
        assert_eq!(answer.status, 200, "{method}");
    }
    assert_eq!(shop.upstream.tokens().len(), 7);
}
