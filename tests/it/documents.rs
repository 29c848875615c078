//! What the documents tell readers to write is read by the code as they say.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use cloakroom::config;
use tempfile::TempDir;

use crate::support::gateway::{AUDIT_KEY, SESSION_KEY};

#[test]
fn the_configuration_of_the_start_is_good() {
    let manual = fs::read_to_string("docs/start.md").unwrap();
    let readme = fs::read_to_string("README.md").unwrap();
    let (_, rest) = readme.split_once("Write `cloakroom.yaml`:\n\n```yaml\n").unwrap();
    let (yaml, _) = rest.split_once("```").unwrap();
    assert!(yaml.lines().count() <= 15, "fifteen lines are promised");
    assert!(manual.contains(yaml), "both say the same");

    let machine = Machine::new();
    let loaded = config::load(&machine.holds(yaml), &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let app = &loaded.config.apps[0];
    let redirect = format!("redirect URI `{}{}/callback`", app.origin.as_str(), app.base_path);
    assert!(manual.contains(&redirect), "the client is registered with {redirect}");
    let returns =
        format!("post-logout redirect URI `{}{}/logout/callback`", app.origin.as_str(), app.base_path);
    assert!(manual.contains(&returns), "the client is registered with {returns}");
}

#[test]
fn the_manual_s_route_to_several_servers_is_good() {
    let start = yaml("docs/start.md", "## Write the file");
    let (before, _) = start.split_once("    routes:\n").unwrap();
    let route: String =
        yaml("docs/upstreams.md", "## Upstreams").lines().map(|line| format!("      {line}\n")).collect();
    let machine = Machine::new();
    let file = machine.holds(&format!("{before}    routes:\n{route}"));
    let loaded = config::load(&file, &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    let [route] = loaded.config.apps[0].routes.as_slice() else { panic!("one route") };
    let config::Target::Upstream(upstream) = &route.target else { panic!("an upstream") };
    assert_eq!(upstream.addresses.len(), 3);
    // What it shows for everything else is what holds where it is left out.
    let left_out = format!(
        "{before}    routes: [{{path: /api, upstream: {{url: \"https://orders.internal\", health: {{path: /healthz}}}}}}]\n"
    );
    let loaded =
        config::load(&machine.holds(&left_out), &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    let by_default = &loaded.config.apps[0].routes[0];
    let config::Target::Upstream(plain) = &by_default.target else { panic!("an upstream") };
    assert_eq!((&upstream.health, route.attempts), (&plain.health, by_default.attempts));
    assert_eq!(format!("{:?}", route.timeouts), format!("{:?}", by_default.timeouts));
}

#[test]
fn the_manual_s_several_issuers_and_shared_signals_are_good() {
    let start = yaml("docs/start.md", "## Write the file");
    let (before, rest) = start.split_once("    oidc:\n").unwrap();
    let (_, routes) = rest.split_once("    routes:\n").unwrap();
    let issuers = yaml("docs/login.md", "## Several issuers");
    let signals = yaml("docs/login.md", "## Shared signals");
    let manual = fs::read_to_string("docs/login.md").unwrap();
    let machine = Machine::new();
    let file = machine.holds(&format!("{before}{issuers}{signals}    routes:\n{routes}"));
    let loaded = config::load(&file, &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    let app = &loaded.config.apps[0];
    let callback = format!("{}{}{}", app.origin.as_str(), app.base_path, app.oidc[0].callback_path());
    assert!(
        app.oidc.len() == 2 && manual.contains(&format!("`{callback}`")),
        "{callback} is to be registered"
    );
    assert!(app.shared_signals.as_ref().unwrap().authorization.is_some());
}

#[test]
fn each_file_in_config_is_good() {
    let folder = TempDir::new().unwrap();
    let environment = |name: &str| match name {
        "CLOAKROOM_SESSION_KEY" => Some(SESSION_KEY.to_owned()),
        "CLOAKROOM_AUDIT_KEY" => Some(AUDIT_KEY.to_owned()),
        "SPA_FOLDER" => Some(folder.path().to_str().unwrap().to_owned()),
        _ => Some("s3cret".to_owned()),
    };
    let files = fs::read_dir("config").unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|file| file.extension().is_some_and(|kind| kind == "yaml")).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        config::load(&file, &environment).unwrap_or_else(|faults| panic!("{faults}"));
    }
}

#[test]
fn each_dependency_has_its_reason() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    let (dependencies, _) = dependencies.split_once("[profile").unwrap();
    let named: BTreeSet<&str> =
        dependencies.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();

    let document = fs::read_to_string("docs/dependencies.md").unwrap();
    let (_, rest) = document.split_once("|---|---|\n").unwrap();
    let (table, others) = rest.split_once("\n\n").unwrap();
    let reasons = table.lines().map(|row| row.split('|').nth(1).unwrap()).chain([others]);
    let explained: BTreeSet<&str> = reasons.flat_map(|text| text.split('`').skip(1).step_by(2)).collect();
    assert_eq!(named.difference(&explained).collect::<Vec<_>>(), [&""; 0], "there without a reason");
    let folders = BTreeSet::from(["config"]);
    let gone = explained.difference(&named).filter(|name| !folders.contains(*name));
    assert_eq!(gone.collect::<Vec<_>>(), [&""; 0], "a reason for what is not there");
}

/// The first block of YAML behind a heading.
fn yaml(document: &str, heading: &str) -> String {
    let text = fs::read_to_string(document).unwrap();
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap();
    let (_, rest) = rest.split_once("```yaml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// A machine as the manual's reader has set it up, in a folder.
pub(crate) struct Machine(TempDir);

impl Machine {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir_all(folder.path().join("etc/cloakroom")).unwrap();
        fs::create_dir_all(folder.path().join("srv/shop/dist")).unwrap();
        fs::write(folder.path().join("srv/shop/dist/index.html"), "<!doctype html>").unwrap();
        for (name, secret) in
            [("session-key", SESSION_KEY), ("client-secret", "s3cret"), ("signals", "Bearer s3cret")]
        {
            let file = folder.path().join("etc/cloakroom").join(name);
            fs::write(&file, secret).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self(folder)
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    /// A file with this content, its absolute paths moved to here.
    pub(crate) fn holds(&self, yaml: &str) -> PathBuf {
        let root = self.folder();
        let yaml =
            yaml.replace(" /etc/", &format!(" {root}/etc/")).replace(" /srv/", &format!(" {root}/srv/"));
        let file = self.0.path().join("cloakroom.yaml");
        fs::write(&file, yaml).unwrap();
        file
    }
}
