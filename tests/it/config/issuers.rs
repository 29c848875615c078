//! Several issuers of one app.

use super::{BASE, accepted, config, refused_in, with};

/// The base with these issuers, each line of which is a map in braces.
fn issuers(list: &str) -> String {
    let only =
        "    oidc:\n      issuer: https://id.example.com\n      client_id: shop\n      client_auth: none\n";
    assert!(BASE.contains(only));
    let item = |line: &str| match line.strip_prefix('«') {
        Some(line) => format!("      - «{{{line}}}\n"),
        None => format!("      - {{{line}}}\n"),
    };
    let list: String = list.lines().map(item).collect();
    with(only, &format!("    oidc:\n{list}"))
}

#[test]
fn an_app_may_have_several_issuers_each_with_a_name_and_a_callback_of_its_own() {
    let text = issuers(
        "name: staff, issuer: 'https://staff.example.com', client_id: desk, client_auth: none, scopes: [openid, email]\n\
         name: partners-2, issuer: 'https://partners.example.com/', client_id: shop, client_auth: {client_secret_post: {env: SECRET}}",
    );
    let config = config(&text);
    let [staff, partners] = config.apps[0].oidc.as_slice() else { panic!("two issuers") };
    assert_eq!((staff.name.as_deref(), partners.name.as_deref()), (Some("staff"), Some("partners-2")));
    assert_eq!((staff.client_id.as_str(), partners.client_id.as_str()), ("desk", "shop"));
    assert_eq!((staff.scopes.len(), partners.scopes.len()), (2, 1));
    assert_eq!(staff.callback_path(), "/callback/staff");
    assert_eq!(partners.callback_path(), "/callback/partners-2");
}

#[test]
fn the_only_issuer_has_no_name_and_the_plain_callback() {
    let only = &config(BASE).apps[0].oidc;
    assert_eq!((only.len(), only[0].name.as_deref()), (1, None));
    assert_eq!(only[0].callback_path(), "/callback");
    refused_in(&with("      issuer:", "      «name: staff\n      issuer:"), "name", "unknown key");
    let listed =
        config(&issuers("name: a, issuer: 'https://id.example.com', client_id: shop, client_auth: none"));
    assert_eq!(listed.apps[0].oidc[0].callback_path(), "/callback/a", "in a list it has, be it the only one");
}

#[test]
fn r4_no_two_issuers_of_an_app_can_be_mistaken_for_one_another() {
    let both = |name: &str, issuer: &str| {
        issuers(&format!(
            "name: staff, issuer: 'https://id.example.com', client_id: shop, client_auth: none\n\
             name: {name}, issuer: {issuer}, client_id: other, client_auth: none"
        ))
    };
    config(&both("b", "'https://id.example.com/'"));
    refused_in(&both("«staff", "'https://b.example.com'"), "staff", "this name stands here twice");
    refused_in(
        &both("b", "«'https://id.example.com'"),
        "https://id.example.com",
        "this issuer stands here twice",
    );
}

#[test]
fn a_name_is_of_few_characters_that_stand_in_a_path() {
    let named = |name: &str| {
        issuers(&format!(
            "name: {name}, issuer: 'https://id.example.com', client_id: shop, client_auth: none"
        ))
    };
    for good in ["a", "staff-2", "'7'", &"x".repeat(32)] {
        config(&named(good));
    }
    for bad in ["Staff", "a/b", "a b", "..", "a_b", "é", &"x".repeat(33)] {
        refused_in(&named(&format!("«'{bad}'")), bad, "not a name");
    }
    refused_in(&named("«''"), "", "an empty text");
}

#[test]
fn each_issuer_of_a_list_is_held_to_what_an_issuer_must_have() {
    refused_in(
        &issuers("«name: a, issuer: 'https://id.example.com', client_auth: none"),
        "apps[0].oidc[0].client_id",
        "a required key is missing",
    );
    let nameless = issuers("«issuer: 'https://id.example.com', client_id: shop, client_auth: none");
    refused_in(&nameless, "apps[0].oidc[0].name", "a required key is missing");
    let plain = "name: a, issuer: «'http://id.example.com', client_id: shop, client_auth: none";
    refused_in(&issuers(plain), "http://id.example.com", "plain http");
    let empty = with(
        "    oidc:\n      issuer: https://id.example.com\n      client_id: shop\n      client_auth: none\n",
        "    oidc: «[]\n",
    );
    refused_in(&empty, "[…]", "an empty list");
}

#[test]
fn a_proof_of_possession_is_warned_of_where_an_issuer_binds_no_token() {
    let warnings = |staff: bool, partners: bool, token: &str| {
        let text = issuers(&format!(
            "name: staff, issuer: 'https://a.example.com', client_id: a, client_auth: {{client_secret_basic: {{env: SECRET}}}}, dpop_bound_access_tokens: {staff}\n\
             name: partners, issuer: 'https://b.example.com', client_id: b, client_auth: none, dpop_bound_access_tokens: {partners}"
        ));
        let (before, _) = text.split_once("    routes:").unwrap();
        let route =
            format!("{{path: /api, upstream: 'https://api.example.com', dpop: true, token: {token}}}");
        let warnings = accepted(&format!("{before}    routes:\n      - {route}\n")).warnings;
        warnings.iter().filter(|warning| warning.problem.contains("binds its tokens to no key")).count()
    };
    assert_eq!(warnings(true, true, "access_token"), 0);
    assert_eq!((warnings(true, false, "access_token"), warnings(false, true, "access_token")), (1, 1));
    assert_eq!(warnings(true, false, "client_credentials"), 0);
    assert_eq!(warnings(false, true, "client_credentials"), 1);
}
