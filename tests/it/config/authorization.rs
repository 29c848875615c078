//! What an authorization request asks for, and how it is sent.

use cloakroom::config::{PushedAuthorizationRequests, ResponseMode};
use serde_json::json;

use crate::support::signing_keys::{P256, private_key};

use super::*;

fn oidc(keys: &str) -> String {
    with("      client_id", &format!("      {keys}\n      client_id"))
}

#[test]
fn rfc9126_requests_are_pushed_where_the_issuer_takes_them_unless_the_file_says_otherwise() {
    let pushed = |text: &str| config(text).apps[0].oidc[0].authorization.pushed;
    assert_eq!(pushed(BASE), PushedAuthorizationRequests::Auto);
    for (word, value) in [
        ("auto", PushedAuthorizationRequests::Auto),
        ("required", PushedAuthorizationRequests::Required),
        ("off", PushedAuthorizationRequests::Off),
    ] {
        assert_eq!(pushed(&oidc(&format!("pushed_authorization_requests: {word}"))), value);
    }
    refused_in(&oidc("pushed_authorization_requests: «true"), "true", "unknown value");
}

#[test]
fn a_response_comes_back_in_one_of_five_ways_and_never_in_a_fragment() {
    let mode = |text: &str| config(text).apps[0].oidc[0].authorization.response_mode;
    assert_eq!(mode(BASE), ResponseMode::Query);
    for word in ["query", "form_post", "jwt", "query.jwt", "form_post.jwt"] {
        assert_eq!(mode(&oidc(&format!("response_mode: {word}"))).as_str(), word);
    }
    for word in ["fragment", "fragment.jwt", "web_message"] {
        refused_in(&oidc(&format!("response_mode: «{word}")), word, "unknown value");
    }
}

#[test]
fn rfc8707_a_resource_is_an_absolute_uri_without_a_fragment_and_kept_as_written() {
    let written = "[https://API.example.com:443/a?b, 'urn:example:api', 'api://0001']";
    let resource =
        config(&oidc(&format!("resource: {written}"))).apps[0].oidc[0].authorization.resource.clone();
    assert_eq!(resource, ["https://API.example.com:443/a?b", "urn:example:api", "api://0001"]);
    for (uri, problem) in [
        ("https://api.example.com/#x", "fragment"),
        ("https://api.example.com#", "fragment"),
        ("/api", "not an absolute URI"),
        ("api.example.com", "not an absolute URI"),
        ("https://api.example.com/a b", "not an absolute URI"),
        ("https://api.example.com/é", "not an absolute URI"),
    ] {
        refused_in(&oidc(&format!("resource: [«'{uri}']")), uri, problem);
    }
    refused_in(&oidc("resource: ['urn:a:b', «'urn:a:b']"), "urn:a:b", "twice");
    refused_in(&oidc("resource: «https://api.example.com"), "https://api.example.com", "not a list");
}

#[test]
fn core_5_5_claims_are_asked_for_by_place_and_name() {
    let written = "claims: {userinfo: {email: , phone: {essential: true}}, \
                   id_token: {acr: {essential: true, values: [gold, '1', 2]}, x: {value: '${SECRET}', y: [1.5]}}}";
    let claims = config(&oidc(written)).apps[0].oidc[0].authorization.claims.clone();
    let expected = json!({
        "userinfo": {"email": null, "phone": {"essential": true}},
        "id_token": {
            "acr": {"essential": true, "values": ["gold", "1", 2]},
            "x": {"value": "hunter2\n", "y": [1.5]},
        },
    });
    assert_eq!(json!(claims.as_json()), expected);
    assert_eq!(claims.essential_acr(), Some(vec!["gold", "1"]));

    refused_in(&oidc("claims: «[email]"), "[…]", "a list");
    refused_in(&oidc("claims: {«email: }"), "email", "no such place");
    refused_in(&oidc("claims: {userinfo: «email}"), "email", "not a map");
    refused_in(&oidc("claims: {userinfo: {email: «true}}"), "true", "a single value");
    refused_in(&oidc("claims: {userinfo: {email: {essential: «'true'}}}"), "true", "`essential`");
    refused_in(&oidc("claims: {id_token: {acr: {values: «gold}}}"), "gold", "`values`");
    refused_in(&oidc("claims: {id_token: {acr: {values: «[]}}}"), "[…]", "`values`");
    refused_in(&oidc("claims: {id_token: {acr: {«value: a, values: [a]}}}"), "value", "beside `values`");
    refused_in(&oidc("claims: {id_token: {a: {value: «0x1F}}}"), "0x1F", "JSON");
}

#[test]
fn core_5_5_1_1_an_authentication_context_is_asked_for_in_one_way() {
    let acr = |request: &str| {
        let text = oidc(&format!("claims: {{id_token: {{acr: {request}}}}}"));
        config(&text).apps[0].oidc[0].authorization.claims.essential_acr().map(|values| values.join(" "))
    };
    assert_eq!(acr("{essential: true}").as_deref(), Some(""));
    assert_eq!(acr("{essential: true, value: gold}").as_deref(), Some("gold"));
    assert_eq!(acr("{values: [gold]}"), None, "a wish");
    assert_eq!(acr("{essential: false, values: [gold]}"), None);
    assert_eq!(acr(""), None);
    let both =
        "authorization_parameters: {acr_values: gold}\n      claims: «{id_token: {acr: {values: [gold]}}}";
    refused_in(&oidc(both), "{…}", "`acr_values`");
}

#[test]
fn rfc9700_2_4_the_password_grant_is_refused_by_name() {
    for key in [
        "grant_type: password",
        "grant_types: [authorization_code, password]",
        "grant: Password",
        "flow: ropc",
        "username: alice",
        "password: {env: SECRET}",
    ] {
        let (name, _) = key.split_once(':').unwrap();
        refused_in(&oidc(&format!("«{key}")), name, "password grant");
        refused_in(&oidc(&format!("«{key}")), name, "RFC 9700 §2.4");
    }
    let parameters = oidc("authorization_parameters: {«grant_type: password}");
    refused_in(&parameters, "grant_type", "RFC 9700 §2.4");
}

#[test]
fn rfc9700_2_1_2_implicit_and_hybrid_are_refused_by_name() {
    for key in [
        "response_type: token",
        "response_type: id_token token",
        "response_type: code id_token",
        "response_types: [code, 'code token']",
        "grant_types: [implicit]",
        "flow: hybrid",
        "flows: [implicit]",
    ] {
        let (name, _) = key.split_once(':').unwrap();
        refused_in(&oidc(&format!("«{key}")), name, "RFC 9700 §2.1.2");
        if name.starts_with("response_type") {
            let parameters =
                oidc(&format!("authorization_parameters: {{«{}}}", key.replace("types", "type")));
            refused_in(&parameters, "response_type", "RFC 9700 §2.1.2");
        }
    }
    for key in ["response_type: code", "grant_type: authorization_code", "flow: pkce"] {
        let (name, _) = key.split_once(':').unwrap();
        refused_in(&oidc(&format!("«{key}")), name, "not chosen here");
    }
}

#[test]
fn rfc9101_the_key_that_signs_requests_is_a_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, private_key(P256)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = format!("{{file: {}}}", path.display());
    let long = format!("{{key: {file}, kid: requests-1, algorithm: ES256}}");
    for written in [&file, &long] {
        let text = oidc(&format!("request_object: {written}"));
        assert!(config(&text).apps[0].oidc[0].authorization.request_object.is_some(), "{written}");
    }
    assert!(config(BASE).apps[0].oidc[0].authorization.request_object.is_none());
    let other = format!("request_object: {{key: {{file: «{}}}, algorithm: RS256}}", path.display());
    refused_in(&oidc(&other), path.to_str().unwrap(), "");
    refused_in(&oidc("request_object: «key.pem"), "[redacted]", "a secret written in the file itself");
}
