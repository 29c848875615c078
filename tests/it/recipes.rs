//! The recipes for known issuers, `config/recipes`: the program takes them as they are.

use std::fs;
use std::path::PathBuf;

use cloakroom::config;
use tempfile::TempDir;

use crate::support::gateway::{SESSION_KEY, program};
use crate::support::wait::in_time;

const ISSUERS: [&str; 8] =
    ["auth0", "authentik", "cognito", "entra-id", "google", "keycloak", "okta", "zitadel"];

#[tokio::test]
async fn check_accepts_each_recipe_without_a_warning() {
    let folder = TempDir::new().unwrap();
    for recipe in recipes() {
        let output = program(&["check", "-c", recipe.to_str().unwrap()])
            .env("CLOAKROOM_SESSION_KEY", SESSION_KEY)
            .env("SHOP_CLIENT_SECRET", "s3cret")
            .env("SPA_FOLDER", folder.path())
            .output();
        let output = in_time(output).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{}", recipe.display());
        assert_eq!(output.status.code(), Some(0), "{}", recipe.display());
    }
}

#[test]
fn there_is_a_recipe_for_each_issuer_that_the_readme_names() {
    let names: Vec<_> =
        recipes().iter().map(|recipe| recipe.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, ISSUERS);
    let readme = fs::read_to_string("README.md").unwrap();
    for name in ISSUERS {
        assert!(readme.contains(&format!("(config/recipes/{name}.yaml)")), "{name}");
    }
}

#[test]
fn each_recipe_says_which_addresses_to_register() {
    for recipe in recipes() {
        let text = fs::read_to_string(&recipe).unwrap();
        let folder = std::env::temp_dir();
        let environment = |name: &str| match name {
            "CLOAKROOM_SESSION_KEY" => Some(SESSION_KEY.to_owned()),
            "SPA_FOLDER" => Some(folder.to_str().unwrap().to_owned()),
            _ => Some("s3cret".to_owned()),
        };
        let loaded = config::load(&recipe, &environment).unwrap_or_else(|faults| panic!("{faults}"));
        let app = &loaded.config.apps[0];
        let endpoints = format!("{}{}", app.origin.as_str(), app.base_path);
        let registered: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
        let says = |address: &str| registered.iter().any(|line| line.contains(address));
        assert!(says(&format!("{endpoints}/callback")), "{}", recipe.display());
        let has_logout = !text.contains("There is no `end_session_endpoint`");
        assert_eq!(says(&format!("{endpoints}/logout/callback")), has_logout, "{}", recipe.display());
    }
}

fn recipes() -> Vec<PathBuf> {
    let files = fs::read_dir("config/recipes").unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}
