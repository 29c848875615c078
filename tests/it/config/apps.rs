//! `apps`, but for their routes.

use super::*;

fn session(value: &str) -> String {
    with("    routes:", &format!("    session: {{cookie: {{{value}}}}}\n    routes:"))
}

#[test]
fn origins_are_normalised() {
    for (text, origin, authority) in [
        ("https://SHOP.Example.com:443", "https://shop.example.com", "shop.example.com"),
        ("HTTPS://shop.example.com:8443", "https://shop.example.com:8443", "shop.example.com:8443"),
        ("http://localhost:8080", "http://localhost:8080", "localhost:8080"),
        ("http://127.8.9.1:80", "http://127.8.9.1", "127.8.9.1"),
        ("http://[::1]:8080", "http://[::1]:8080", "[::1]:8080"),
    ] {
        let parsed = Origin::parse(text).unwrap();
        assert_eq!((parsed.as_str(), parsed.authority()), (origin, authority));
        assert_eq!(config(&with("https://shop.example.com", &format!("\"{text}\""))).apps[0].origin, parsed);
    }
}

#[test]
fn origins_issuers_and_upstreams_have_no_wildcard() {
    for (old, host) in [
        ("https://shop.example.com", "*.example.com"),
        ("https://shop.example.com", "*"),
        ("https://shop.example.com", "%2a.example.com"),
        ("https://id.example.com", "*.example.com"),
        ("https://orders.internal:9000", "orders-*.internal:9000"),
    ] {
        let text = format!("https://{host}");
        refused(old, &format!("«\"{text}\""), &text, "wildcard");
    }
    let path = with("https://orders.internal:9000", "https://orders.internal:9000/a*b");
    assert_eq!(accepted(&path).warnings, []);
}

#[test]
fn r61_an_origin_is_https_unless_loopback() {
    for text in [
        "http://shop.example.com",
        "http://app.localhost",
        "http://10.0.0.1",
        "http://[::ffff:127.0.0.1]",
        "http://localhost.example.com",
        "http://0.0.0.0",
    ] {
        refused("origin: https://shop.example.com", &format!("origin: «{text}"), text, "plain http");
    }
}

#[test]
fn an_origin_is_a_scheme_a_host_and_a_port() {
    for text in [
        "https://shop.example.com/",
        "https://shop.example.com/app",
        "https://shop.example.com?x",
        "https://shop.example.com#x",
        "https://shop.example.com:0",
        "https://shop.example.com:99999",
        "https:\\\\shop.example.com",
        "https:shop.example.com",
        "https:///shop.example.com",
        "https://",
        "https://shop example.com",
        "https://shöp.example.com",
        "ftp://shop.example.com",
        "shop.example.com",
        "null",
    ] {
        let new = format!("origin: «'{text}'");
        refused("origin: https://shop.example.com", &new, text, "");
    }
    refused(
        "origin: https://shop.example.com",
        "origin: «https://me@shop.example.com",
        "[redacted]",
        "user information",
    );
    refused(
        "origin: https://shop.example.com",
        "origin: «https://@shop.example.com",
        "[redacted]",
        "user information",
    );
}

#[test]
fn no_two_apps_have_one_host() {
    let app = BASE.split_once("apps:\n").unwrap().1;
    for (first, second) in [
        ("https://shop.example.com", "https://SHOP.example.com:443"),
        ("https://localhost", "http://localhost"),
    ] {
        let text = with("https://shop.example.com", first);
        let second_app = app.replace("origin: https://shop.example.com", &format!("origin: «{second}"));
        refused_in(&format!("{text}{second_app}"), second, "another app has this host");
    }
    let other = app.replace("https://shop.example.com", "https://other.example.com");
    assert_eq!(accepted(&format!("{BASE}{other}")).warnings, []);
}

#[test]
fn apps_that_share_a_cookie_are_warned_of() {
    let app = BASE.split_once("apps:\n").unwrap().1;
    let text = format!("{BASE}{}", app.replace("shop.example.com", "shop.example.com:8443"));
    let warnings = accepted(&text).warnings;
    assert_eq!((warnings.len(), warnings[0].position.line), (1, 15));
    assert!(warnings[0].problem.contains("cookies ignore ports"));
}

#[test]
fn base_paths_are_canonical_and_below_the_root() {
    let base_path = |value: &str| with("    oidc:", &format!("    base_path: «'{value}'\n    oidc:"));
    assert_eq!(config(&base_path("/auth/bff").replace('«', "")).apps[0].base_path, "/auth/bff");
    for path in ["/", "bff", "/bff/", "//bff", "/a/../bff", "/b%66f", "/bff?x", "/bff#x", "/b f", "/b\\f"] {
        refused_in(&base_path(path), path, "");
    }
}

#[test]
fn issuers_are_kept_as_written() {
    for issuer in
        ["https://ID.example.com/realms/shop/", "http://LOCALHOST:9000", "https://id.example.com:443"]
    {
        assert_eq!(config(&with("https://id.example.com", issuer)).apps[0].oidc[0].issuer.as_str(), issuer);
    }
    for issuer in [
        "http://id.example.com",
        "https://id.example.com?tenant=1",
        "https://id.example.com#x",
        "https:///id.example.com",
        "id.example.com",
        "ftp://id.example.com",
        "https://id.example.com/a b",
        "https://id.example.com/<realm>",
        "https://i{d}.example.com",
    ] {
        refused("issuer: https://id.example.com", &format!("issuer: «'{issuer}'"), issuer, "");
    }
}

#[test]
fn an_issuer_whose_scheme_is_in_capitals_is_refused() {
    for issuer in ["HTTPS://id.example.com", "Http://127.0.0.1:9000"] {
        refused("issuer: https://id.example.com", &format!("issuer: «{issuer}"), issuer, "in capitals");
    }
}

#[test]
fn client_authentication_is_one_of_three() {
    assert!(matches!(config(BASE).apps[0].oidc[0].client_auth, ClientAuth::None));
    refused("client_auth: none", "client_auth: «client_secret_basic", "client_secret_basic", "not `none`");
    refused("client_auth: none", "client_auth: {«none: {}}", "none", "unknown key");
    refused("client_auth: none", "client_auth: «[]", "[redacted]", "a list");
    refused(
        "client_auth: none",
        "client_auth: {client_secret_basic: {env: SECRET}, «client_secret_post: {env: SECRET}}",
        "client_secret_post",
        "only one of",
    );
    refused("client_id: shop", "client_id: «shöp", "shöp", "not a client_id");
}

#[test]
fn scopes_hold_openid_and_nothing_twice() {
    let scopes = |value: &str| with("      client_id", &format!("      scopes: {value}\n      client_id"));
    assert_eq!(config(&scopes("[openid, 'api:read']")).apps[0].oidc[0].scopes, ["openid", "api:read"]);
    refused_in(&scopes("«[profile]"), "[…]", "`openid` is missing");
    refused_in(&scopes("«[]"), "[…]", "empty list");
    refused_in(&scopes("[openid, «openid]"), "openid", "twice");
    refused_in(&scopes("[openid, «profile email]"), "profile email", "not a scope");
    refused_in(&scopes("[openid, «'a\"b']"), "a\"b", "not a scope");
    refused_in(&scopes("«openid profile"), "openid profile", "not a list");
}

#[test]
fn authorization_parameters_are_not_the_gateways_own() {
    let parameters = |value: &str| {
        with("      client_id", &format!("      authorization_parameters: {{{value}}}\n      client_id"))
    };
    let config = config(&parameters("audience: https://api.example.com, max_age: '3600'"));
    let oidc = &config.apps[0].oidc[0];
    assert_eq!(
        oidc.authorization_parameters,
        [("audience".to_owned(), "https://api.example.com".to_owned())].into()
    );
    assert_eq!(oidc.max_age, Some(3600));
    for name in [
        "client_id",
        "client_secret",
        "client_assertion",
        "claims",
        "resource",
        "redirect_uri",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "scope",
        "response_mode",
        "request",
        "request_uri",
    ] {
        refused_in(&parameters(&format!("«{name}: x")), name, "sets itself");
    }
    for max_age in ["soon", "-1", "1.5", "60s", "true"] {
        refused_in(&parameters(&format!("max_age: «'{max_age}'")), max_age, "not a number of seconds");
        refused_in(&parameters(&format!("max_age: «{max_age}")), max_age, "not a number of seconds");
    }
    refused_in(&parameters("audience: «''"), "", "an empty text");
}

#[test]
fn authorization_parameters_may_be_plain_numbers_and_truth_values() {
    let parameters = "{max_age: 300, hint: 0012, level: 1.50, fresh: true}";
    let text =
        with("      client_id", &format!("      authorization_parameters: {parameters}\n      client_id"));
    let oidc = &config(&text).apps[0].oidc[0];
    assert_eq!(oidc.max_age, Some(300));
    let expected = [("hint", "0012"), ("level", "1.50"), ("fresh", "true")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(oidc.authorization_parameters, expected.into(), "as they are written");
}

#[test]
fn end_session_parameters_are_none_that_the_gateway_sends_itself() {
    let parameters = |value: &str| {
        with("      client_id", &format!("      end_session_parameters: {{{value}}}\n      client_id"))
    };
    let oidc =
        &config(&parameters("logout_uri: https://shop.example.com/bye, federated: true")).apps[0].oidc[0];
    let expected = [("federated", "true"), ("logout_uri", "https://shop.example.com/bye")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(oidc.end_session_parameters, expected.into());
    for name in ["client_id", "id_token_hint", "post_logout_redirect_uri", "state"] {
        refused_in(&parameters(&format!("«{name}: x")), name, "sets itself");
    }
    refused_in(&parameters("logout_uri: «''"), "", "an empty text");
}

#[test]
fn trusted_audiences_are_texts_each_once() {
    let audiences = |value: &str| {
        with("      client_id", &format!("      trusted_audiences: [{value}]\n      client_id"))
    };
    assert_eq!(config(&audiences("a, 'b c'")).apps[0].oidc[0].trusted_audiences, ["a", "b c"]);
    refused_in(&audiences("a, «a"), "a", "twice");
    refused_in(&audiences("«7"), "7", "a number");
}

#[test]
fn id_tokens_are_signed_with_an_asymmetric_algorithm() {
    let algorithm = |name: &str| {
        with("      client_id", &format!("      id_token_signed_response_alg: {name}\n      client_id"))
    };
    let oidc = &config(&algorithm("PS256")).apps[0].oidc[0];
    assert_eq!(oidc.id_token_signed_response_alg, Some(jsonwebtoken::Algorithm::PS256));
    assert_eq!(config(BASE).apps[0].oidc[0].id_token_signed_response_alg, None);
    for name in ["none", "HS256", "rs256", "ES512"] {
        refused_in(&algorithm(&format!("«{name}")), name, "unknown value");
    }
}

#[test]
fn cookie_names_fit_their_origin() {
    assert_eq!(config(&session("name: __Host-shop")).apps[0].session.cookie_name, "__Host-shop");
    for name in ["shop", "__Secure-shop", "__host-shop", "__Host-"] {
        refused_in(&session(&format!("name: «{name}")), name, "`__Host-`");
    }
    let on_http = |name: &str| {
        session(&format!("name: «{name}")).replace("https://shop.example.com", "http://localhost:8080")
    };
    assert_eq!(config(&on_http("shop").replace('«', "")).apps[0].session.cookie_name, "shop");
    for name in ["__Host-shop", "__host-shop", "__Secure-shop"] {
        refused_in(&on_http(name), name, "asks for TLS");
    }
}

#[test]
fn cookie_names_are_short_tokens() {
    let long = format!("__Host-{}", "x".repeat(58));
    for name in ["__Host-a b", "__Host-a;b", "__Host-a=b", "__Host-é", "__Host-\"", &long] {
        refused_in(&session(&format!("name: «'{name}'")), name, "not a cookie's name");
    }
    assert_eq!(config(&session(&format!("name: {}", &long[..64]))).apps[0].session.cookie_name.len(), 64);
    refused_in(&session("same_site: «none"), "none", "unknown value");
}

#[test]
fn introspection_and_logins_on_another_device_are_off_unless_asked_for() {
    let oidc = |keys: &str| {
        let text = with("client_id: shop", &format!("client_id: shop\n      {keys}"));
        config(&text).apps.remove(0).oidc.remove(0)
    };
    let off = oidc("");
    assert_eq!((off.introspection, off.device_authorization), (None, false));
    assert_eq!(oidc("introspection: {}").introspection, Some(Duration::from_secs(30)));
    assert_eq!(oidc("introspection: {interval: 2m}").introspection, Some(Duration::from_secs(120)));
    assert!(oidc("device_authorization: true").device_authorization);
    let written = |keys: &str| format!("client_id: shop\n      {keys}");
    refused("client_id: shop", &written("introspection: «true"), "true", "not a map");
    refused("client_id: shop", &written("introspection: {interval: «0s}"), "0s", "duration");
    refused("client_id: shop", &written("introspection: {interval: «29s}"), "29s", "too short");
    refused("client_id: shop", &written("device_authorization: «{}"), "{…}", "a map stands here");
}
