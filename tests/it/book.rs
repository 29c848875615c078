//! The manual in `docs`: its links lead somewhere, each page can be found, and what it tells readers to write is good.
//! `docs/build` makes a site of it, and fails on what only shows there.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use cloakroom::config;

use crate::documents::Machine;
use crate::support::gateway::SESSION_KEY;

#[test]
fn every_link_between_documents_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 80, "{}", documents.len());
    let anchors: HashMap<PathBuf, BTreeSet<String>> =
        documents.iter().map(|(path, text)| (path.clone(), anchors(text))).collect();
    let mut dead = Vec::new();
    for (path, text) in &documents {
        for link in links(text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { resolved(path, file) };
            let is_there = target.exists()
                && (anchor.is_empty() || anchors.get(&target).is_some_and(|known| known.contains(anchor)));
            if !is_there {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn each_page_is_in_the_summary() {
    let summary = fs::read_to_string("docs/SUMMARY.md").unwrap();
    let named: BTreeSet<PathBuf> = links(&summary).map(|link| Path::new("docs").join(link)).collect();
    let pages: BTreeSet<PathBuf> =
        documents().into_iter().map(|(path, _)| path).filter(|path| path.starts_with("docs")).collect();
    let missing: Vec<_> = pages.difference(&named).filter(|path| !path.ends_with("SUMMARY.md")).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn each_whole_configuration_in_a_document_is_good() {
    let mut good = 0;
    for (path, text) in documents() {
        for yaml in yaml(&text).filter(|yaml| is_whole(yaml)) {
            let machine = Machine::new();
            let folder = machine.folder().to_owned();
            let environment = move |name: &str| match name {
                "CLOAKROOM_SESSION_KEY" => Some(SESSION_KEY.to_owned()),
                "SPA_FOLDER" => Some(folder.clone()),
                _ => Some("s3cret".to_owned()),
            };
            let loaded = config::load(&machine.holds(&yaml), &environment);
            loaded.unwrap_or_else(|faults| panic!("{}: {faults}\n{yaml}", path.display()));
            good += 1;
        }
    }
    assert!(good >= 10, "{good}");
}

/// Whether nothing is left out of it that the program asks for.
fn is_whole(yaml: &str) -> bool {
    ["sessions:", "apps:"].iter().all(|key| yaml.lines().any(|line| line.starts_with(key)))
}

/// All of the project's, each with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from).into();
    let mut folders = ["docs", "deploy", "client", "examples", "fuzz", "tests"].map(PathBuf::from).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !["node_modules", "target", "dist"].iter().any(|name| path.ends_with(name)) {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                paths.push(path);
            }
        }
    }
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The lines outside of blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Where links to this repository lead.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets =
        prose(text).flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

/// What headings are reached by, in the book and at forges: a second one of the same name has a number.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().replace('`', "");
        let slug: String = heading.chars().filter_map(slugged).collect();
        let number = (1..).find(|number| !anchors.contains(&format!("{slug}-{number}"))).unwrap();
        anchors.insert(if anchors.contains(&slug) { format!("{slug}-{number}") } else { slug });
    }
    anchors
}

fn slugged(character: char) -> Option<char> {
    match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        _ => character.is_alphanumeric().then(|| character.to_ascii_lowercase()),
    }
}

/// Where a link in a document leads.
fn resolved(document: &Path, link: &str) -> PathBuf {
    let mut path = document.parent().unwrap().to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{link} leaves the repository"),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// The blocks of YAML, also those in a list.
fn yaml(text: &str) -> impl Iterator<Item = String> {
    text.split("```yaml\n").skip(1).map(|rest| {
        let block = rest.split("```").next().unwrap_or_default();
        let indentation = block.len() - block.trim_start_matches(' ').len();
        block.lines().map(|line| format!("{}\n", line.get(indentation..).unwrap_or_default())).collect()
    })
}
