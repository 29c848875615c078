//! The parts that the file's JSON Schema (2020-12) is made of.

use serde_json::{Map, Value, json};

use crate::config::document::{Content, Kind, Node};

/// A map of these keys and no others.
pub(super) fn map(properties: &Map<String, Value>, required: &[Value], choice: &[Value]) -> Value {
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    if !choice.is_empty() {
        schema["oneOf"] = choice.iter().map(|key| json!({"required": [key]})).collect();
    }
    schema
}

/// A list of at least `least` such values.
pub(super) fn list(items: &Value, least: usize) -> Value {
    json!({"type": "array", "items": items, "minItems": least})
}

/// A text that is not empty.
pub(super) fn text() -> Value {
    json!({"type": "string", "minLength": 1})
}

/// A text of this pattern, a regular expression for the whole of it, or one the environment goes into.
pub(super) fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": format!(r"^(?:{pattern})$|\$\{{")})
}

/// One of these words.
pub(super) fn words<'a>(words: impl Iterator<Item = &'a str>) -> Value {
    or_substituted(&json!({"enum": words.collect::<Vec<_>>()}))
}

/// Such a value, or a text the environment goes into.
pub(super) fn or_substituted(schema: &Value) -> Value {
    json!({"anyOf": [schema, {"type": "string", "pattern": r"\$\{"}]})
}

/// A tree as JSON has it.
pub(super) fn json_of(node: &Node) -> Value {
    match &node.content {
        Content::List(nodes) => nodes.iter().map(json_of).collect(),
        Content::Map(entries) => {
            entries.iter().map(|(key, node)| (key.text.clone(), json_of(node))).collect()
        }
        Content::Scalar { text, .. } => match node.kind() {
            Some(Kind::Null) => Value::Null,
            Some(Kind::Boolean | Kind::Number) => text.to_lowercase().parse().unwrap_or_default(),
            Some(Kind::Text) | None => text.as_str().into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::reading::Reading;
    use crate::config::{document, schema};

    const ANNOTATED: &str = include_str!("../../config/cloakroom.yaml");
    const MINIMAL: &str = include_str!("../../config/minimal.yaml");

    fn json(text: &str) -> Value {
        let mut reading = Reading::new("test", &|_| None);
        json_of(&document::parse(text, &mut reading).expect("it is YAML"))
    }

    /// Each key's path, such as `/apps/*/oidc/issuer`, with its schema.
    fn described(schema: &Value, path: &str, keys: &mut BTreeMap<String, Value>) {
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}/{key}");
            keys.insert(path.clone(), schema.clone());
            described(schema, &path, keys);
        }
        for alternative in schema["anyOf"].as_array().into_iter().flatten() {
            described(alternative, path, keys);
        }
        if schema["items"].is_object() {
            described(&schema["items"], &format!("{path}/*"), keys);
        }
    }

    fn all_described() -> BTreeMap<String, Value> {
        let mut keys = BTreeMap::new();
        described(&schema(), "", &mut keys);
        keys
    }

    /// Each key's path with the values it has.
    fn written(value: &Value, path: &str, keys: &mut BTreeMap<String, Vec<Value>>) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let path = format!("{path}/{key}");
            keys.entry(path.clone()).or_default().push(value.clone());
            written(value, &path, keys);
        }
        for value in value.as_array().into_iter().flatten() {
            written(value, &format!("{path}/*"), keys);
        }
    }

    fn all_written() -> BTreeMap<String, Vec<Value>> {
        let mut keys = BTreeMap::new();
        written(&json(ANNOTATED), "", &mut keys);
        keys
    }

    fn accepts(instance: &Value) -> bool {
        jsonschema::draft202012::is_valid(&schema(), instance)
    }

    #[test]
    fn the_schema_is_itself_valid() {
        assert!(jsonschema::meta::is_valid(&schema()));
    }

    #[test]
    fn the_schema_file_is_the_schema_of_the_code() {
        let file = include_str!("../../config/cloakroom.schema.json");
        assert!(file == format!("{:#}\n", schema()), "run `cloakroom schema > config/cloakroom.schema.json`");
    }

    #[test]
    fn the_annotated_file_has_every_key_and_no_other() {
        let described = all_described();
        let written = all_written();
        for path in written.keys() {
            assert!(described.contains_key(path), "{path} is not in the schema");
        }
        // Each issuer of a list has the keys that the only one has, which are there.
        let is_written = |path: &str| written.contains_key(&path.replace("/oidc/*/", "/oidc/"));
        for path in described.keys().filter(|path| !is_written(path)) {
            // Where only one of two can stand, the other stands beside it in a comment.
            let key = format!("{}:", path.rsplit('/').next().unwrap_or_default());
            let in_comment = |line: &str| {
                line.starts_with(' ') && line.trim_start().starts_with('#') && line.contains(&key)
            };
            assert!(ANNOTATED.lines().any(in_comment), "{path} is not in config/cloakroom.yaml");
        }
    }

    #[test]
    fn the_annotated_file_shows_the_defaults() {
        let written = all_written();
        for (path, schema) in all_described() {
            let (Some(default), Some(values)) = (schema.get("default"), written.get(&path)) else { continue };
            if *default != json!({}) {
                assert!(values.iter().all(|value| value == default), "{path} has the default {default}");
            }
        }
    }

    #[test]
    fn every_key_says_what_it_is_for() {
        for (path, schema) in all_described() {
            assert!(schema["description"].as_str().is_some_and(|about| about.ends_with('.')), "{path}");
        }
    }

    #[test]
    fn the_schema_takes_both_files() {
        assert!(accepts(&json(ANNOTATED)));
        assert!(accepts(&json(MINIMAL)));
    }

    #[test]
    fn the_schema_takes_every_way_to_write_a_value() {
        for (old, new) in [
            ("body_bytes: 100MiB", "body_bytes: 1048576"),
            ("connections: 20000", "connections: ${CONNECTIONS}"),
            ("idle_timeout: 75s", "idle_timeout: ${IDLE:-75}s"),
            ("userinfo: false", "userinfo: ${USERINFO:-true}"),
            ("same_site: strict", "same_site: ${SAME_SITE}"),
            ("authorization_parameters: {}", "authorization_parameters: {max_age: 300, x: 1.5, y: true}"),
            ("authorization_parameters: {}", "authorization_parameters: {max_age: '300', x: y}"),
            ("refresh_before_expiry: 60s", "refresh_before_expiry: 0s"),
            ("- env: CLOAKROOM_SESSION_KEY", "- file: ./key"),
        ] {
            let text = ANNOTATED.replacen(old, new, 1);
            assert!(text.contains(new) && accepts(&json(&text)), "{new}");
        }
        assert!(accepts(&json(&MINIMAL.replace("{client_secret_basic: {env: SHOP_CLIENT_SECRET}}", "none"))));
    }

    #[test]
    fn the_schema_refuses_wrong_values_and_missing_keys() {
        for (old, new) in [
            ("connections: 20000", "connections: many"),
            ("idle_timeout: 75s", "idle_timeout: 75"),
            ("header_bytes: 64KiB", "header_bytes: 64KB"),
            ("userinfo: false", "userinfo: 'no'"),
            ("same_site: strict", "same_site: none"),
            ("{env: REDIS_PASSWORD}", "hunter2"),
            ("{env: REDIS_PASSWORD}", "{env: A, file: B}"),
            ("authorization_parameters: {}", "authorization_parameters: {state: x}"),
            ("authorization_parameters: {}", "authorization_parameters: {max_age: soon}"),
            ("authorization_parameters: {}", "authorization_parameters: {max_age: 1.5}"),
            ("client_id: shop", ""),
        ] {
            let text = ANNOTATED.replacen(old, new, 1);
            assert!(text != ANNOTATED && !accepts(&json(&text)), "{new}");
        }
    }

    #[test]
    fn the_schema_refuses_unknown_keys_in_every_map() {
        fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
            let has_any_key = ["_parameters", "/required_claims"];
            if value.is_object() && !has_any_key.iter().any(|key| path.ends_with(key)) {
                found.push(path.to_owned());
            }
            for (key, value) in value.as_object().into_iter().flatten() {
                pointers(value, &format!("{path}/{key}"), found);
            }
            for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                pointers(value, &format!("{path}/{index}"), found);
            }
        }
        let annotated = json(ANNOTATED);
        let mut found = Vec::new();
        pointers(&annotated, "", &mut found);
        assert!(found.len() > 15);
        for pointer in found {
            let mut changed = annotated.clone();
            changed.pointer_mut(&pointer).expect("it is there")["unheard_of"] = json!("x");
            assert!(!accepts(&changed), "an unknown key in `{pointer}`");
        }
    }
}
