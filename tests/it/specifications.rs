//! docs/conformance.md and docs/specifications.md are about what there is: each test and each key that they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cloakroom::config;
use serde_json::Value;

#[test]
fn each_conformance_test_has_its_module_in_the_table_and_each_module_its_test() {
    let document = fs::read_to_string("docs/conformance.md").unwrap();
    let mut files = BTreeSet::from(["tests/it/conformance/modules.rs".to_owned()]);
    for section in document.split("\n## ").skip(1) {
        let (heading, content) = section.split_once('\n').unwrap();
        let Some(file) = in_backticks(heading).into_iter().next() else { continue };
        let modules: BTreeSet<_> =
            rows(content).map(|row| in_backticks(row[0])[0].replace('-', "_")).collect();
        assert_eq!(modules, tests(Path::new(&file)), "left the table, right the tests of {file}");
        files.insert(file);
    }
    let folder = fs::read_dir("tests/it/conformance").unwrap();
    let there = folder.map(|entry| entry.unwrap().path().to_str().unwrap().to_owned());
    assert_eq!(there.collect::<BTreeSet<_>>(), files, "each file is a section");
}

#[test]
fn each_test_that_stands_for_a_specification_exists() {
    let document = fs::read_to_string("docs/specifications.md").unwrap();
    let mut count = 0;
    for row in rows(&document) {
        for name in in_backticks(row[3]) {
            let (module, test) = name.rsplit_once("::").unwrap();
            let file = format!("tests/it/{}.rs", module.replace("::", "/"));
            assert!(tests(Path::new(&file)).contains(test), "{name}");
            count += 1;
        }
        assert!(!row[1].is_empty() && !in_backticks(row[3]).is_empty(), "{row:?}");
    }
    assert!(count > 30);
}

#[test]
fn each_key_that_a_specification_is_configured_by_exists() {
    let mut keys = Vec::new();
    paths(&config::schema(), "", &mut keys);
    let document = fs::read_to_string("docs/specifications.md").unwrap();
    for key in rows(&document).flat_map(|row| in_backticks(row[2])) {
        assert!(keys.iter().any(|path| path.ends_with(&format!(".{key}"))), "{key}");
    }
}

/// The cells of each row of the tables, but for their heads.
fn rows(document: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines: Vec<_> = document.lines().collect();
    let is_body =
        move |at: usize| lines[..at].iter().rev().take_while(|line| line.starts_with('|')).count() >= 2;
    let rows = document.lines().enumerate().filter(move |(at, line)| line.starts_with('|') && is_body(*at));
    rows.map(|(_, line)| line.trim_matches('|').split('|').map(str::trim).collect())
}

fn in_backticks(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names of the tests in a file.
fn tests(file: &Path) -> BTreeSet<String> {
    let source = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let attributes = ["\n#[test]", "\n#[tokio::test"].map(|attribute| source.split(attribute).skip(1));
    let names = attributes.into_iter().flatten().filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// The dotted path of each key of the schema.
fn paths(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        paths(property, &path, found);
        found.push(path);
    }
    for part in [&schema["items"]].into_iter().chain(schema["anyOf"].as_array().into_iter().flatten()) {
        if !part.is_null() {
            paths(part, path, found);
        }
    }
}
