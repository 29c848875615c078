//! YAML that is broken, or says more than it may.

use super::*;

#[test]
fn broken_yaml_is_refused_where_it_breaks() {
    for (text, line, column) in [
        ("server:\n\tlisten: x\n", 2, 2),
        ("server:\n  listen: \"127.0.0.1\n", 2, 11),
        ("server:\n  listen: '127.0.0.1\n", 2, 11),
        ("server: {listen: x\n", 2, 1),
        ("apps: [a, b\n", 2, 1),
        ("server:\n    listen: x\n  limits: y\n", 3, 3),
        ("server: a: b\n", 1, 10),
        ("server: @x\n", 1, 9),
        ("server: *nobody\n", 1, 9),
        ("server: %x\n  - y: [\n", 1, 9),
    ] {
        let found = faults(text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].problem.starts_with("this is not YAML: "), "{}", found[0]);
        assert_eq!((found[0].position.line, found[0].position.column), (line, column), "{text}{}", found[0]);
    }
}

#[test]
fn a_file_that_says_nothing_is_refused() {
    for text in ["", "\n\n", "# only a comment\n", "---\n", "null", "\u{feff}"] {
        let found = faults(text);
        assert_eq!((found.len(), found[0].problem.as_str()), (1, "the file says nothing"), "{text:?}");
    }
}

#[test]
fn only_a_map_can_be_a_configuration() {
    for text in ["- server\n", "[]", "hello", "42"] {
        assert!(faults(text)[0].problem.ends_with("not a map of keys and values"), "{text}");
    }
}

#[test]
fn a_second_document_is_refused() {
    refused_in(&format!("---\n{BASE}«---\n{BASE}"), "---", "second YAML document");
    assert_eq!(config(&format!("---\n{BASE}...\n")).apps.len(), 1);
}

#[test]
fn characters_that_yaml_does_not_allow_are_refused() {
    refused("client_id: shop", "client_id: sh«\0op", "\\u{0}", "does not allow");
    refused("client_id: shop", "client_id: sh«\u{1b}op", "\\u{1b}", "does not allow");
    refused("client_id: shop", "client_id: é«\u{7f}", "\\u{7f}", "does not allow");
    let junk: String = (0..8).flat_map(|_| (0..=u8::MAX).rev()).map(char::from).collect();
    assert_eq!(faults(&junk).len(), 1);
}

#[test]
fn tags_and_merge_keys_are_refused() {
    refused("client_id: shop", "client_id: «!secret shop", "!secret", "tags");
    refused("client_id: shop", "client_id: «!!str shop", "tag:yaml.org,2002:!str", "tags");
    refused("    routes:", "    «<<: {}\n    routes:", "<<", "unknown key");
    assert!(faults(&with("    routes:", "    <<: {}\n    routes:"))[0].remedy.contains("no merge keys"));
}

#[test]
fn keys_must_be_texts() {
    refused("sessions:", "? «[a]\n: 1\nsessions:", "[…]", "not a text");
}

#[test]
fn an_alias_repeats_a_value() {
    let text = with("{env: KEY}]", "&key {env: KEY}]")
        .replace("client_auth: none", "client_auth: {client_secret_basic: *key}");
    assert!(
        matches!(&config(&text).apps[0].oidc[0].client_auth, ClientAuth::ClientSecretBasic(secret) if secret.expose() == KEY)
    );
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
    }
    let found = faults(&bomb);
    assert_eq!(found.len(), 1);
    assert!(found[0].problem.contains("aliases counted in full"), "{}", found[0]);
    refused_in("a: &a [«*a]\n", "*", "inside of what it stands for");
}

#[test]
fn deep_nesting_is_refused() {
    for deep in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000)] {
        let found = faults(&deep);
        let problem = found[0].problem.as_str();
        assert!(
            problem == "nested more than 32 deep" || problem.ends_with("recursion limit exceeded"),
            "{problem}"
        );
        assert_eq!(found.len(), 1);
    }
}

#[test]
fn no_damage_to_a_file_makes_the_reading_panic_or_lose_its_place() {
    let minimal = fs::read_to_string("config/minimal.yaml").unwrap();
    let check = |text: &str| {
        if let Err(faults) = parse("test.yaml", text, &environment) {
            assert!(!faults.diagnostics().is_empty());
            for fault in faults.diagnostics() {
                let line = text.split('\n').nth(fault.position.line - 1).expect("a line of the text");
                assert!((1..=line.chars().count() + 1).contains(&fault.position.column), "{fault}");
            }
        }
    };
    for (index, character) in minimal.char_indices() {
        check(&minimal[..index]);
        for damage in ["", "\t", "\"", "{", "]", ":", "\n", "&a ", "*a", "\u{85}", "- ", "|"] {
            check(&format!("{}{damage}{}", &minimal[..index], &minimal[index + character.len_utf8()..]));
        }
    }
}

#[test]
fn a_fault_at_the_end_of_a_file_stands_inside_of_it() {
    for fault in faults("\n? ") {
        assert!((fault.position.line, fault.position.column) <= (2, 3), "{fault}");
    }
    refused_in("{a: b\n# end«", "the end of the file", "not YAML");
}
