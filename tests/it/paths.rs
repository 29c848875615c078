//! One canonical path is matched, and the same is forwarded byte for byte (R35).

use crate::support::gateway::{NO_ISSUER, Setup};
use crate::support::upstream::Upstream;
use crate::support::wire::{ask, head};

/// Contract §7: these are 400 on upstream routes.
pub const AMBIGUOUS: [&str; 34] = [
    "//",
    "//api",
    "//evil.test/",
    "/api//",
    "/api//x",
    "/api/x//y",
    "/.",
    "/..",
    "/api/.",
    "/api/..",
    "/api/./x",
    "/api/../x",
    "/api/x/..",
    "/api/%2e",
    "/api/%2E%2e/x",
    "/api/.%2e/x",
    "/api/%2e./x",
    "/%2e%2e/api",
    "/api/a%2fb",
    "/api/a%2Fb",
    "/api%2fadmin",
    "/api/..%2fadmin",
    "/api/a%5cb",
    "/api/a%5Cb",
    "/api/..%5cadmin",
    "/api\\..\\admin",
    "/api/\\x",
    "/api/%00",
    "/api/x%00.js",
    "/api/%",
    "/api/%4",
    "/api/%zz",
    "/api/%u002e",
    "/api/%2",
];

#[tokio::test]
async fn r35_an_ambiguous_path_is_400_and_never_reaches_an_upstream() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url()).for_anybody("/api", &upstream.url());
    let gateway = setup.start().await;
    for path in AMBIGUOUS {
        for line in [format!("GET {path}"), format!("POST {path}?a=b"), format!("GET http://shop.test{path}")]
        {
            let reply = ask(gateway.address, head(&line, "")).await;
            assert_eq!(reply.status, 400, "{line} {}", reply.text());
        }
    }
    assert!(upstream.arrived().is_empty());
}

#[tokio::test]
async fn r35_no_bytes_that_a_path_cannot_hold_reach_an_upstream() {
    let upstream = Upstream::start().await;
    let gateway = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url()).start().await;
    for path in ["/a b", "/a\tb", "/a\0b", "/a\x7fb", "api", "*", "", "/\r\nX: 1"] {
        let reply = ask(gateway.address, head(&format!("GET {path}"), "")).await;
        assert_eq!(reply.status, 400, "{path:?} {}", reply.text());
    }
    assert!(upstream.arrived().is_empty(), "{:?}", upstream.arrived());
}

#[tokio::test]
async fn r35_a_path_is_forwarded_byte_for_byte_with_its_query() {
    let upstream = Upstream::start().await;
    let gateway = Setup::new(NO_ISSUER).for_anybody("/api", &upstream.url()).start().await;
    for target in [
        "/api",
        "/api/",
        "/api/a.b/..c/d../...",
        "/api/%C3%A9/a%20b",
        "/api/%c3%a9",
        "/api/%41%7e~",
        "/api/%252e%252e/x",
        "/api/;v=1/@:!$&'()*+,=",
        "/api/%3F%23",
        "/%61pi/x",
        "/api?",
        "/api?a=%2f%5C%00%zz&b=//../x&&=;c[]={}|d",
        "/api?return_to=https://evil.test/../",
        "/api/x?y=/../..?z",
    ] {
        let reply = ask(gateway.address, head(&format!("GET {target}"), "")).await;
        assert_eq!(reply.status, 200, "{target}");
        assert_eq!(upstream.last().target, target);
    }
}

#[tokio::test]
async fn r35_an_encoded_letter_slips_past_no_rule() {
    let (open, guarded) = (Upstream::start().await, Upstream::start().await);
    let setup = Setup::new(NO_ISSUER).for_anybody("/", &open.url()).for_users("/api", &guarded.url());
    let gateway = setup.start().await;
    for path in
        ["/api", "/%61pi", "/a%70i/x", "/%61%70%69/", "/%41pi/../api", "//api", "/x/../api", "/;/../api"]
    {
        let reply = ask(gateway.address, head(&format!("GET {path}"), "X-CSRF: 1\r\n")).await;
        assert!(matches!(reply.status, 400 | 401), "{path} {}", reply.status);
    }
    assert!(open.arrived().is_empty() && guarded.arrived().is_empty());
}

#[tokio::test]
async fn r35_an_encoded_slash_passes_where_a_route_allows_it_and_hides_nothing() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(NO_ISSUER)
        .route(&format!(
            "path: /repos, upstream: \"{}\", auth: none, allow_encoded_slash: true",
            upstream.url()
        ))
        .for_users("/repos/secret", &upstream.url());
    let gateway = setup.start().await;
    for path in ["/repos/group%2fproject", "/repos/a%2Fb/tree", "/repos/http%3A%2F%2Fhost%2F"] {
        assert_eq!(ask(gateway.address, head(&format!("GET {path}"), "")).await.status, 200, "{path}");
        assert_eq!(upstream.last().target, path);
    }
    let before = upstream.arrived().len();
    for path in ["/repos/a%2f..%2fb", "/repos/..%2fb", "/repos/a%2f%2e%2e", "/repos/a%5cb", "/repos/%00"] {
        assert_eq!(ask(gateway.address, head(&format!("GET {path}"), "")).await.status, 400, "{path}");
    }
    // An upstream that decodes would see the guarded path.
    let reply = ask(gateway.address, head("GET /repos%2fsecret", "")).await;
    assert!(matches!(reply.status, 400 | 401 | 404), "{}", reply.status);
    let reply = ask(gateway.address, head("GET /repos/secret%2fx", "X-CSRF: 1\r\n")).await;
    assert!(matches!(reply.status, 400 | 401), "{}", reply.status);
    assert_eq!(upstream.arrived().len(), before);
}
