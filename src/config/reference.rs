//! The page `docs/configuration.md`, made of the schema and of what `config/cloakroom.yaml` shows. Built for its test alone.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::config::reading::Reading;
use crate::config::schema::json_of;
use crate::config::{document, schema};

const FILE: &str = "docs/configuration.md";
const ANNOTATED: &str = include_str!("../../config/cloakroom.yaml");

const INTRODUCTION: &str = "\
# Configuration reference

<!-- Made by `CLOAKROOM_WRITE_DOCS=1 cargo test --lib reference` of the schema that the program prints. Do not edit. -->

Every key of the YAML file. [config/cloakroom.yaml](../config/cloakroom.yaml) has the same as one commented file,
[config/minimal.yaml](../config/minimal.yaml) is the shortest that starts, and `cloakroom schema` prints the JSON Schema this page is made of, for your editor:

```yaml
# yaml-language-server: $schema=./cloakroom.schema.json
```

`cloakroom check` names every fault of a file at once, each with its line, its column and what to write instead; a key that is unknown or written twice is one.

| in the column *value* | means |
|---|---|
| duration | `500ms`, `90s`, `30m`, `12h`, `7d` |
| size | a number of bytes, or `64KiB`, `10MiB`, `1GiB` |
| secret | never the secret itself, but where it is: `{file: PATH}` or `{env: NAME}`. Others must not be able to read the file (`chmod o-r`) |
| map | keys of its own, in a section of their own |
| text | files and folders are relative to the working directory |

`${NAME}` in a value stands for the environment variable, and `${NAME:-default}` for a default where it is unset or empty; `$${` is a plain `${`. It is put in after
the YAML was read, so that it cannot add keys. What may change while the gateway runs, and what needs a restart, is told in
[the guide](guide.md#changing-the-configuration-while-it-runs).
";

/// One map of the file: where it stands, and its keys.
struct Section {
    path: String,
    about: String,
    keys: Vec<Key>,
    /// Keys of which exactly one stands here.
    choice: Vec<String>,
}

struct Key {
    name: String,
    value: String,
    default: String,
    about: String,
    is_required: bool,
}

fn page() -> String {
    let mut reading = Reading::new("config/cloakroom.yaml", &|_| None);
    let written = json_of(&document::parse(ANNOTATED, &mut reading).expect("it is YAML"));
    let mut sections = Vec::new();
    collect("", "The file.", &[&schema()], Some(&written), &mut sections);
    let mut page = INTRODUCTION.to_owned();
    for section in &sections {
        section.show(&mut page);
    }
    page
}

/// Puts down the section of a map, then those of the maps in it.
fn collect(path: &str, about: &str, maps: &[&Value], written: Option<&Value>, sections: &mut Vec<Section>) {
    let names = |key: &str| maps[0][key].as_array().into_iter().flatten();
    let choice: Vec<String> =
        names("oneOf").filter_map(|one| Some(one["required"][0].as_str()?.to_owned())).collect();
    let required: Vec<_> = names("required").filter_map(Value::as_str).collect();
    let mut keys = Vec::new();
    let mut below = Vec::new();
    let all: Map<String, Value> = maps
        .iter()
        .rev()
        .flat_map(|map| map["properties"].as_object().into_iter().flatten())
        .map(own)
        .collect();
    for (name, key) in &all {
        let path = format!("{path}{}{name}", if path.is_empty() { "" } else { "." });
        let shown = written.and_then(|written| written.get(name));
        keys.push(Key {
            name: name.clone(),
            value: kind(key, &path),
            default: key.get("default").map(flow).map_or(String::new(), |default| format!("`{default}`")),
            about: about_key(key, shown, &path),
            is_required: required.contains(&name.as_str()),
        });
        let mut inner = Vec::new();
        let is_list = maps_in(key, &mut inner);
        if !inner.is_empty() {
            below.push((format!("{path}{}", if is_list { "[]" } else { "" }), key, inner, shown));
        }
    }
    keys.sort_by_key(|key| (!key.is_required, !choice.contains(&key.name)));
    sections.push(Section { path: path.to_owned(), about: about.to_owned(), keys, choice });
    for (path, key, inner, shown) in below {
        let shown = shown.map(|shown| shown.get(0).unwrap_or(shown));
        collect(&path, key["description"].as_str().unwrap_or_default(), &inner, shown, sections);
    }
}

fn own((name, key): (&String, &Value)) -> (String, Value) {
    (name.clone(), key.clone())
}

impl Section {
    fn show(&self, page: &mut String) {
        let _ = match self.path.as_str() {
            "" => write!(page, "\n## The file\n\n"),
            path if path.contains('.') => write!(page, "\n### `{path}`\n\n{}\n\n", self.about),
            path => write!(page, "\n## `{path}`\n\n{}\n\n", self.about),
        };
        if !self.choice.is_empty() {
            let names: Vec<_> = self.choice.iter().map(|name| format!("`{name}`")).collect();
            let _ = write!(page, "Exactly one of {}.\n\n", names.join(", "));
        }
        let _ = writeln!(page, "| key | value | default | what it is for |\n|---|---|---|---|");
        for Key { name, value, default, about, is_required } in &self.keys {
            let default = if *is_required { "**required**" } else { default };
            let _ = writeln!(page, "| `{name}` | {value} | {default} | {about} |");
        }
    }
}

/// What a key is for, and what it may look like.
fn about_key(key: &Value, shown: Option<&Value>, path: &str) -> String {
    let about = key["description"].as_str().unwrap_or_default().replace('|', "\\|");
    let example = match shown {
        Some(shown) if is_plain(shown) && key.get("default") != Some(shown) => Some(flow(shown)),
        Some(_) => None,
        None => in_comment(path),
    };
    example.map_or(about.clone(), |example| format!("{about} Example: `{example}`"))
}

/// What a comment of the annotated file shows for a key that does not stand in it.
fn in_comment(path: &str) -> Option<String> {
    let mut lines = ANNOTATED.lines().filter(|line| !line.is_empty()).map(uncommented);
    let mut outer = 0;
    let mut value = "";
    for (depth, name) in path.split('.').enumerate() {
        let key = format!("{}:", name.trim_end_matches("[]"));
        let is_inside = |indentation: usize| depth == 0 || indentation > outer;
        let (indentation, line) = lines
            .by_ref()
            .take_while(|(indentation, _)| is_inside(*indentation))
            .find(|(_, line)| line.starts_with(&key))?;
        outer = indentation;
        value = line[key.len()..].split(" #").next().unwrap_or_default().trim();
    }
    (!value.is_empty() && !value.contains('…')).then(|| value.to_owned())
}

/// A line as it would be without the mark of a comment or of a list, and how far in it stands.
fn uncommented(line: &str) -> (usize, &str) {
    let inner = line.trim_start();
    let spaces = line.len() - inner.len();
    let bare = inner.strip_prefix("# ").unwrap_or(inner);
    let rest = bare.trim_start();
    let further = bare.len() - rest.len();
    match rest.strip_prefix("- ") {
        Some(rest) => (spaces + further + 2, rest),
        None => (spaces + further, rest),
    }
}

/// Whether a value has no keys of its own to be looked up in another section.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().all(is_plain),
        Value::Object(map) => map.keys().all(|key| matches!(key.as_str(), "env" | "file")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// What may stand as a value.
fn kind(schema: &Value, path: &str) -> String {
    if let Some(alternatives) = schema["anyOf"].as_array() {
        if alternatives.iter().any(is_size) {
            return "size".to_owned();
        }
        let kinds: Vec<_> =
            alternatives.iter().filter(|one| !is_substituted(one)).map(|one| kind(one, path)).collect();
        return kinds.join(" or ");
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words.iter().map(|word| format!("`{}`", flow(word))).collect();
        return words.join(", ");
    }
    let limits = || match (&schema["minimum"], &schema["maximum"]) {
        (Value::Null, _) => String::new(),
        (least, Value::Null) => format!(", at least {least}"),
        (least, most) => format!(", {least} to {most}"),
    };
    match schema["type"].as_str().unwrap_or_default() {
        "boolean" => "`true`, `false`".to_owned(),
        "integer" => format!("whole number{}", limits()),
        "number" => format!("number{}", limits()),
        "array" => format!("list of {}", kind(&schema["items"], &format!("{path}[]"))),
        "object" if is_secret(schema) => "secret".to_owned(),
        "object" => match schema["properties"].as_object() {
            Some(keys) if keys.is_empty() => "`{}`".to_owned(),
            Some(_) => format!("[map](#{})", anchor(path)),
            None if is_secret(&schema["additionalProperties"]) => "map of names and secrets".to_owned(),
            None => "map of names and values".to_owned(),
        },
        _ => text(schema["pattern"].as_str().unwrap_or_default()).to_owned(),
    }
}

/// What a text of this pattern is called.
fn text(pattern: &str) -> &'static str {
    let starts = |start: &str| pattern.strip_prefix("^(?:").is_some_and(|rest| rest.starts_with(start));
    if starts("[0-9]+(ms") {
        "duration"
    } else if starts("/.") {
        "path"
    } else if starts("http") || starts("[Hh]") || starts("[Rr]") {
        "URL"
    } else if starts("[A-Za-z][A-Za-z0-9+.-]*:") {
        "URI"
    } else {
        "text"
    }
}

/// The maps that a value may be or may be a list of, and whether it is a list and nothing else.
fn maps_in<'a>(schema: &'a Value, maps: &mut Vec<&'a Value>) -> bool {
    for alternative in schema["anyOf"].as_array().into_iter().flatten() {
        maps_in(alternative, maps);
    }
    if schema["properties"].as_object().is_some_and(|keys| !keys.is_empty()) && !is_secret(schema) {
        maps.push(schema);
    }
    schema["items"].is_object() && {
        maps_in(&schema["items"], maps);
        true
    }
}

fn is_secret(schema: &Value) -> bool {
    let keys = schema["properties"].as_object();
    keys.is_some_and(|keys| keys.len() == 2 && keys.contains_key("env") && keys.contains_key("file"))
}

fn is_size(schema: &Value) -> bool {
    schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("KiB"))
}

fn is_substituted(schema: &Value) -> bool {
    schema["pattern"] == r"\$\{"
}

/// What a heading of this path is reached by, in the book and at forges.
fn anchor(path: &str) -> String {
    path.chars().filter(|c| c.is_alphanumeric() || "_-".contains(*c)).collect()
}

/// A value as YAML on one line.
fn flow(value: &Value) -> String {
    let joined = |values: Vec<String>| values.join(", ");
    match value {
        Value::String(text) if needs_quotes(text) => format!("\"{text}\""),
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", joined(values.iter().map(flow).collect())),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{{}}}", joined(entries.collect()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn needs_quotes(text: &str) -> bool {
    text.ends_with(':') || text.contains(|c: char| "{}[],#\"'* ".contains(c)) || text.parse::<f64>().is_ok()
}

#[test]
fn the_reference_is_that_of_the_schema() {
    let page = page();
    if std::env::var_os("CLOAKROOM_WRITE_DOCS").is_some() {
        std::fs::write(FILE, &page).expect("it can be written");
    }
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(file == page, "run `CLOAKROOM_WRITE_DOCS=1 cargo test --lib reference` to write {FILE} anew");
}

#[test]
fn the_reference_has_each_key_of_the_annotated_file() {
    let page = page();
    let keys = ANNOTATED.lines().filter_map(|line| line.split_once(':')).map(|(key, _)| key.trim_start());
    let keys = keys.filter(|key| !key.starts_with(['#', '-']) && !key.contains(' '));
    let missing: Vec<_> = keys.filter(|key| !page.contains(&format!("| `{key}` |"))).collect();
    assert_eq!(missing, [""; 0]);
}
