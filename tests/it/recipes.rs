//! The recipes for known issuers, `config/recipes`: the program takes them as they are.

use std::fs;
use std::path::PathBuf;

use cloakroom::config;
use tempfile::TempDir;

use crate::support::gateway::{SESSION_KEY, program};
use crate::support::wait::in_time;

const PAGE: &str = "docs/issuers.md";

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
fn the_page_on_issuers_shows_each_recipe_as_it_is() {
    let page = fs::read_to_string(PAGE).unwrap();
    let mut parts = page.split("<!-- recipe: ");
    let mut written = parts.next().unwrap().to_owned();
    let mut shown = Vec::new();
    for part in parts {
        let (name, rest) = part.split_once(" -->").unwrap();
        let recipe = PathBuf::from(format!("config/recipes/{name}.yaml"));
        let text = fs::read_to_string(&recipe).unwrap();
        // What follows is the next issuer's heading; what stands between is made here.
        let next = rest.find("\n## ").map_or("", |next| &rest[next..]);
        written += &format!("<!-- recipe: {name} -->\n\n```yaml\n{text}```\n{next}");
        shown.push(recipe);
    }
    if std::env::var_os("CLOAKROOM_WRITE_DOCS").is_some() {
        fs::write(PAGE, &written).unwrap();
    } else {
        assert!(
            page == written,
            "run `CLOAKROOM_WRITE_DOCS=1 cargo test --test it recipes` to write {PAGE} anew"
        );
    }
    shown.sort();
    assert_eq!(shown, recipes());
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
