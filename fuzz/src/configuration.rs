//! The YAML file: any text is a configuration, or a list of faults that stand inside of it and give no secret
//! away.

use std::collections::HashSet;

use cloakroom::config::{Diagnostic, Faults, parse};

/// What the environment holds for secrets. It must not come back in a fault.
const SESSION_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const SECRET: &str = "hunter2-of-the-environment";

/// The text of a file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // It names files, and they are read: not from pipes and devices.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    match parse("cloakroom.yaml", text, &environment) {
        Ok(loaded) => {
            let again = parse("cloakroom.yaml", text, &environment).expect("what was good stays good");
            assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
            let shown = format!("{:?}", loaded.config);
            assert!(!shown.contains(SECRET) || text.contains(SECRET));
            let origins: HashSet<_> = loaded.config.apps.iter().map(|app| app.origin.as_str()).collect();
            assert!(!origins.is_empty() && origins.len() == loaded.config.apps.len());
            assert!(!loaded.config.session_keys.is_empty());
            for app in &loaded.config.apps {
                let issuers: HashSet<_> = app.oidc.iter().map(|oidc| oidc.issuer.as_str()).collect();
                assert!(!issuers.is_empty() && issuers.len() == app.oidc.len());
                assert!(app.oidc.iter().all(|oidc| oidc.scopes.iter().any(|scope| scope == "openid")));
                assert!(app.session.cookie_name.starts_with("__Host-") || !app.origin.is_secure());
            }
            check(&loaded.warnings, text);
        }
        Err(Faults::Unreadable { .. }) => panic!("a text is never unreadable"),
        Err(Faults::Found(faults)) => {
            assert!(!faults.is_empty());
            check(&faults, text);
        }
    }
}

/// Each stands in the text, one after the other, on lines of its own, and says what to do.
fn check(diagnostics: &[Diagnostic], text: &str) {
    assert!(diagnostics.is_sorted_by_key(|diagnostic| diagnostic.position), "{diagnostics:?}");
    // YAML 1.2.2 §5.4
    let text = text.replace("\r\n", "\n");
    let lines: Vec<&str> = text.split(['\n', '\r']).collect();
    for diagnostic in diagnostics {
        let position = diagnostic.position;
        let line = lines.get(position.line.wrapping_sub(1)).unwrap_or(&"");
        assert!((1..=lines.len()).contains(&position.line), "{diagnostic:?}");
        assert!((1..=line.chars().count() + 1).contains(&position.column), "{diagnostic:?}");
        assert!(!diagnostic.problem.is_empty() && !diagnostic.remedy.is_empty(), "{diagnostic:?}");
        let shown = diagnostic.to_string();
        for secret in [SESSION_KEY, SECRET] {
            assert!(!shown.contains(secret) || text.contains(secret), "{shown}");
        }
        assert_eq!(shown.lines().count(), 2, "{shown:?}");
        assert!(!shown.chars().any(|letter| letter.is_control() && letter != '\n'), "{shown:?}");
    }
}

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "KEY" => SESSION_KEY,
        "SECRET" => SECRET,
        "PORT" => "4711",
        "EMPTY" => "",
        _ => return None,
    };
    Some(value.to_owned())
}
