//! `routes`.

use serde_json::json;

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
    assert_eq!((route.auth, &route.token, route.csrf), (Auth::Required, &Token::None, Csrf::SameOrigin));
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

#[test]
fn a_proof_of_possession_goes_with_a_token_that_is_bound_to_a_key() {
    let bound = |text: &str| {
        text.replace("client_auth: none", "client_auth: none\n      dpop_bound_access_tokens: true")
    };
    let app = &config(&bound(&upstream("dpop: true"))).apps[0];
    assert!(app.oidc[0].dpop_bound_access_tokens && app.routes[0].dpop);
    let app = &config(&upstream("dpop: false")).apps[0];
    assert!(!app.oidc[0].dpop_bound_access_tokens && !app.routes[0].dpop);

    refused_in(&upstream("dpop: «true"), "true", "bound to no key");
    for nothing in ["token: none", "auth: none"] {
        refused_in(&bound(&upstream(&format!("{nothing}, dpop: «true"))), "true", "sends no access token");
    }
    refused_in(&bound(&route("path: /, files: ., dpop: «true")), "true", "has no upstream");
}

#[test]
fn a_token_that_is_bound_to_a_key_and_goes_without_a_proof_is_warned_of() {
    let bound = |text: &str| {
        text.replace("client_auth: none", "client_auth: none\n      dpop_bound_access_tokens: true")
    };
    let warnings = accepted(&bound(&upstream("auth: optional"))).warnings;
    assert_eq!((warnings.len(), warnings[0].text.as_str()), (1, "/api"));
    assert!(warnings[0].problem.contains("without a proof"));
    for good in ["dpop: true", "token: none", "auth: none"] {
        assert_eq!(accepted(&bound(&upstream(good))).warnings, [], "{good}");
    }
    assert_eq!(accepted(&upstream("auth: optional")).warnings, []);
}

/// The client has a secret.
fn confidential(text: &str) -> String {
    text.replace("client_auth: none", "client_auth: {client_secret_basic: {env: SECRET}}")
}

#[test]
fn a_token_is_a_word_or_what_is_asked_of_the_issuer() {
    let token = |value: &str| {
        let mut config = config(&confidential(&upstream(&format!("token: {value}"))));
        config.apps.remove(0).routes.remove(0).token
    };
    assert_eq!(token("access_token"), Token::AccessToken);
    assert_eq!(token("client_credentials"), Token::ClientCredentials(TokenTarget::default()));
    let target = TokenTarget {
        scopes: vec!["read".to_owned(), "write".to_owned()],
        resource: Some("https://orders.test/a?b".to_owned()),
        audience: Some("orders".to_owned()),
    };
    let all = "{scopes: [read, write], resource: \"https://orders.test/a?b\", audience: orders}";
    assert_eq!(token(&format!("{{client_credentials: {all}}}")), Token::ClientCredentials(target.clone()));
    let exchanged = RouteToken { grant: RouteGrant::TokenExchange, target: target.clone() };
    assert_eq!(token(&format!("{{exchange: {all}}}")), Token::OfSession(exchanged.into()));
    let target = TokenTarget { scopes: Vec::new(), audience: None, ..target };
    let redeemed = RouteToken { grant: RouteGrant::RefreshToken, target };
    let of_resource = token("{access_token: {resource: \"https://orders.test/a?b\"}}");
    assert_eq!(of_resource, Token::OfSession(redeemed.into()));
}

#[test]
fn a_token_that_cannot_be_asked_for_is_refused() {
    refused_in(&upstream("token: «[]"), "[…]", "a list stands here");
    refused_in(&upstream("token: {«refresh: {}}"), "refresh", "unknown key");
    // A password is the user's and the issuer's alone.
    refused_in(&upstream("token: «password"), "password", "RFC 9700 §2.4");
    refused_in(&upstream("token: {«password: {username: a}}"), "password", "unknown key");
    for word in ["bearer", "refresh_token", "Access_Token", "true", "1"] {
        refused_in(&upstream(&format!("token: «{word}")), word, "unknown value");
    }
    refused_in(
        &upstream("token: {access_token: «{}}"),
        "apps[0].routes[0].token.access_token.resource",
        "missing",
    );
    refused_in(&upstream("token: «{exchange: {}}"), "{…}", "an exchange for nothing");
    refused_in(
        &upstream("token: {exchange: {audience: a}, «client_credentials: {}}"),
        "client_credentials",
        "only one of",
    );
    refused_in(&upstream("token: {exchange: {audience: «''}}"), "", "an empty text");
    refused_in(&confidential(&upstream("token: {client_credentials: {scopes: [a, «a]}}")), "a", "twice");
    let resource = |value| upstream(&format!("token: {{access_token: {{resource: «'{value}'}}}}"));
    refused_in(&resource("https://orders#a"), "https://orders#a", "a URI with a fragment");
    for value in ["orders", "/orders", "https://or ders", "//orders"] {
        refused_in(&resource(value), value, "not an absolute URI");
    }
    assert_eq!(
        config(&upstream("token: {exchange: {resource: 'urn:orders'}}")).apps[0].routes[0].token,
        Token::OfSession(
            RouteToken {
                grant: RouteGrant::TokenExchange,
                target: TokenTarget { resource: Some("urn:orders".to_owned()), ..TokenTarget::default() },
            }
            .into()
        )
    );
}

#[test]
fn a_token_of_the_session_needs_one() {
    refused_in(&upstream("auth: none, token: «{exchange: {audience: a}}"), "{…}", "looks at no session");
    let resource = "auth: none, token: «{access_token: {resource: \"https://orders\"}}";
    refused_in(&upstream(resource), "{…}", "looks at no session");
    let optional = config(&upstream("auth: optional, token: {exchange: {audience: a}}"));
    assert!(matches!(optional.apps[0].routes[0].token, Token::OfSession(_)));
}

#[test]
fn a_session_has_room_for_sixteen_different_tokens_beside_its_own() {
    let route = |index: usize, audience: &str| {
        format!(
            "      - {{path: /x{index}, upstream: \"https://x\", token: {{exchange: {{audience: {audience}}}}}}}\n"
        )
    };
    let many: String = (0..20).map(|index| route(index, &format!("a{}", index % 16))).collect();
    assert_eq!(config(&format!("{BASE}{many}")).apps[0].routes.len(), 21);
    let one_more = route(20, "more").replace("{exchange", "«{exchange");
    refused_in(&format!("{BASE}{many}{one_more}"), "{…}", "more than 16");
}

#[test]
fn client_credentials_are_for_clients_that_have_some_and_anybody_s_use_of_them_is_warned_of() {
    refused_in(&upstream("token: «client_credentials"), "client_credentials", "without credentials");
    refused_in(&upstream("token: «{client_credentials: {audience: a}}"), "{…}", "without credentials");
    for (auth, warnings) in [("required", 0), ("optional", 1), ("none", 1)] {
        let loaded = accepted(&confidential(&upstream(&format!("auth: {auth}, token: client_credentials"))));
        assert_eq!(loaded.warnings.len(), warnings, "{auth}");
        assert!(loaded.warnings.iter().all(|warning| warning.problem.contains("the client's own token")));
    }
}

#[test]
fn claims_are_required_by_texts_numbers_and_truth_values_where_a_session_is() {
    let text = upstream(
        "required_claims: {groups: [staff, «\"admins\"], level: 3, email_verified: true, org: \"${ORG}\"}",
    );
    let config = config(&text.replace('«', "").replace("${ORG}", "${ORG:-acme}"));
    let claims = config.apps[0].routes[0].required_claims.iter();
    let claims: Vec<_> = claims.map(|claim| (claim.name.as_str(), claim.values.clone())).collect();
    let expected = [
        ("groups", vec![json!("staff"), json!("admins")]),
        ("level", vec![json!(3)]),
        ("email_verified", vec![json!(true)]),
        ("org", vec![json!("acme")]),
    ];
    assert_eq!(claims, expected);
    refused_in(&upstream("required_claims: «[groups]"), "[…]", "not a map of claims");
    refused_in(&upstream("required_claims: {groups: «[]}"), "[…]", "empty list");
    refused_in(&upstream("required_claims: {groups«: }"), "", "nothing stands here");
    refused_in(&upstream("required_claims: {groups: «{a: b}}"), "{…}", "a map stands here");
    refused_in(&upstream("required_claims: {«'': staff}"), "", "without a name");
    refused_in(&upstream("auth: none, required_claims: «{a: b}"), "{…}", "looks at no session");
    refused_in(&upstream("auth: optional, required_claims: «{a: b}"), "{…}", "`auth: optional`");
}
