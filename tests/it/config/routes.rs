//! `routes`.

use super::*;

fn route(value: &str) -> String {
    with(
        "      - path: /api\n        upstream: https://orders.internal:9000",
        &format!("      - {{{value}}}"),
    )
}

fn upstream(value: &str) -> String {
    route(&format!("path: /api, upstream: \"https://orders\", {value}"))
}

#[test]
fn every_key_of_a_route_is_read() {
    let text = upstream(
        "auth: required, token: none, csrf: same_origin, required_scopes: [read], methods: [GET, M-SEARCH], \
         timeouts: {connect: 1s, response: 2s, idle: 3s}, websocket: true, allow_encoded_slash: true",
    );
    let config = config(&text);
    let route = &config.apps[0].routes[0];
    assert_eq!((route.auth, route.token, route.csrf), (Auth::Required, Token::None, Csrf::SameOrigin));
    assert_eq!(route.required_scopes, ["read"]);
    assert_eq!(
        route.methods.as_ref().unwrap().iter().map(http::Method::as_str).collect::<Vec<_>>(),
        ["GET", "M-SEARCH"]
    );
    assert_eq!(route.timeouts.response, Duration::from_secs(2));
    assert!(route.websocket && route.allow_encoded_slash);
}

#[test]
fn paths_are_canonical() {
    for path in ["/", "/api", "/api/v1.0/a~b", "/@me", "/a.b/..c"] {
        assert_eq!(
            config(&route(&format!("path: '{path}', upstream: \"https://orders\""))).apps[0].routes[0].path,
            path
        );
    }
    for path in [
        "api", "/api/", "//api", "/a//b", "/a/./b", "/a/../b", "/..", "/.", "/%61pi", "/a%2fb", "/a?b",
        "/a#b", "/a\\b", "/a b", "/é", "*",
    ] {
        refused_in(&route(&format!("path: «'{path}', upstream: \"https://orders\"")), path, "a path");
    }
}

#[test]
fn each_path_has_one_route_and_none_takes_the_gateways_own() {
    let second = format!("{BASE}      - {{path: «/api, upstream: \"https://orders\"}}\n");
    refused_in(&second, "/api", "another route has this path");
    for path in ["/bff", "/bff/x"] {
        refused_in(&route(&format!("path: «{path}, upstream: \"https://orders\"")), path, "own endpoints");
    }
    assert_eq!(config(&route("path: /bffx, upstream: \"https://orders\"")).apps[0].routes.len(), 1);
    refused(
        "routes:\n      - path: /api\n        upstream: https://orders.internal:9000",
        "routes: «[]",
        "[…]",
        "empty list",
    );
}

#[test]
fn a_route_has_an_upstream_or_files() {
    refused_in(&route("path: /api").replace("{path", "«{path"), "apps[0].routes[0]", "is missing");
    refused_in(&upstream("«files: /"), "files", "only one of");
}

#[test]
fn upstreams_are_http_urls() {
    for url in [
        "ftp://orders",
        "orders:9000",
        "https://orders?x",
        "https://orders#x",
        "https://",
        "https://orders:0",
        "https://a b",
    ] {
        refused_in(&route(&format!("path: /api, upstream: «'{url}'")), url, "");
        refused_in(&route(&format!("path: /api, upstream: {{url: «'{url}'}}")), url, "");
    }
    refused_in(
        &route("path: /api, upstream: «'https://me:hunter2@orders'"),
        "[redacted]",
        "user information",
    );
    refused_in(&route("path: /api, upstream: «[]"), "[…]", "not a map");
}

#[test]
fn r61_an_upstream_elsewhere_without_tls_is_warned_of() {
    let warnings = accepted(&route("path: /api, upstream: \"http://orders.internal:9000\"")).warnings;
    assert_eq!((warnings.len(), warnings[0].text.as_str()), (1, "http://orders.internal:9000"));
    for url in ["https://orders.internal", "http://localhost:9000", "http://127.0.0.1", "http://[::1]:9"] {
        assert_eq!(accepted(&route(&format!("path: /api, upstream: \"{url}\""))).warnings, []);
    }
}

#[test]
fn a_stripped_prefix_is_one_that_every_path_of_the_route_has() {
    let strip = |path: &str, prefix: &str| {
        route(&format!("path: {path}, upstream: {{url: \"https://orders\", strip_prefix: «{prefix}}}"))
    };
    for (path, prefix) in [("/api", "/api"), ("/api/v1", "/api")] {
        let config = config(&strip(path, prefix).replace('«', ""));
        let Target::Upstream(upstream) = &config.apps[0].routes[0].target else { panic!() };
        assert_eq!(upstream.strip_prefix.as_deref(), Some(prefix));
    }
    for (path, prefix) in [("/", "/api"), ("/api", "/api/v1"), ("/apix", "/api"), ("/api", "/other")] {
        refused_in(&strip(path, prefix), prefix, "not every path");
    }
    refused_in(&strip("/api", "/"), "/", "the root itself");
    refused_in(&strip("/api", "/api/"), "/api/", "empty segment");
}

#[test]
fn methods_are_in_capitals_and_can_be_let_through() {
    for method in ["get", "Get", "CONNECT", "TRACE", "G ET", "GÉT"] {
        refused_in(&upstream(&format!("methods: [«{method}]")), method, "not a method");
    }
    refused_in(&upstream("methods: [GET, «GET]"), "GET", "twice");
    refused_in(&upstream("methods: «[]"), "[…]", "empty list");
}

#[test]
fn words_are_known_ones() {
    for key in ["auth", "token", "csrf"] {
        refused_in(&upstream(&format!("{key}: «maybe")), "maybe", "unknown value");
    }
}

#[test]
fn scopes_cannot_be_required_where_no_session_is() {
    refused_in(&upstream("auth: none, required_scopes: «[read]"), "[…]", "looks at no session");
    refused_in(&upstream("auth: optional, required_scopes: «[read]"), "[…]", "`auth: optional`");
    let none_required = config(&upstream("auth: optional, required_scopes: []"));
    assert_eq!(none_required.apps[0].routes[0].auth, Auth::Optional);
    refused_in(&upstream("required_scopes: [read, «read]"), "read", "twice");
}

#[test]
fn a_folder_of_files_is_there_and_is_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (file, missing) = (file.display().to_string(), folder.path().join("missing").display().to_string());
    refused_in(&route(&format!("path: /, files: «{file}")), &file, "not a folder");
    refused_in(&route(&format!("path: /, files: «{missing}")), &missing, "cannot be read");
}

#[test]
fn what_only_upstreams_have_is_refused_on_files() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().display();
    for (value, text) in [
        ("token: «none", "none"),
        ("websocket: «false", "false"),
        ("timeouts: «{}", "{…}"),
        ("allow_encoded_slash: «true", "true"),
    ] {
        let key = value.split(':').next().unwrap_or_default();
        let problem = format!("{key} on a route of files");
        refused_in(&route(&format!("path: /, files: {folder}, {value}")), text, &problem);
    }
    let both = "auth: required, csrf: same_origin, required_scopes: [read], methods: [GET]";
    let config = config(&route(&format!("path: /, files: {folder}, {both}")));
    assert_eq!(config.apps[0].routes[0].methods, Some(vec![http::Method::GET]));
}
