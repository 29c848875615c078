//! The configuration as people are shown it.

use super::*;

/// Path and value of each setting, and `*` behind what is a default.
fn shown(yaml: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let settings = config(yaml).settings;
    let lines = settings.into_iter().map(|setting| {
        path.truncate(setting.depth);
        path.push(setting.name);
        let is_default = if setting.is_default { " *" } else { "" };
        format!("{}: {}{is_default}", path.join("."), setting.value.unwrap_or_default())
    });
    lines.collect()
}

fn assert_shows(lines: &[String], expected: &[&str]) {
    for line in expected {
        assert!(lines.iter().any(|shown| shown == line), "{line}\n{lines:#?}");
    }
}

#[test]
fn every_value_is_there_and_what_stands_for_those_left_out() {
    let yaml = BASE.replace("127.0.0.1:0", "\"${NOWHERE:-127.0.0.1:0}\"").replace(
        "      client_auth: none\n",
        "      client_auth: none\n      scopes: [openid, email]\n      authorization_parameters: {prompt: consent, audience: \"${NOWHERE:-api}\"}\n",
    );
    let lines = shown(&yaml);
    assert_shows(
        &lines,
        &[
            "server: ",
            "server.listen: 127.0.0.1:0",
            "server.limits:  *",
            "server.limits.connections: 20000 *",
            "server.trusted_proxies: [] *",
            "sessions.store.memory: {}",
            "apps.[0].oidc.client_auth: none",
            "apps.[0].oidc.scopes.[1]: email",
            "apps.[0].oidc.authorization_parameters: {prompt: consent, audience: api}",
            "apps.[0].routes.[0].upstream: https://orders.internal:9000",
            "apps.[0].routes.[0].timeouts.connect: 5s *",
            "telemetry.log.level: info *",
        ],
    );
}

#[test]
fn a_secret_is_told_by_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, "a-secret-in-a-file").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = format!("client_auth: {{client_secret_post: {{file: \"{}\"}}}}", file.display());
    let lines = shown(&BASE.replace("client_auth: none", &secret));
    assert_shows(
        &lines,
        &[
            "sessions.keys.[0].env: KEY",
            &format!("apps.[0].oidc.client_auth.client_secret_post.file: {}", file.display()),
        ],
    );
    assert!(
        !lines.iter().any(|line| line.contains("a-secret-in-a-file") || line.contains(KEY)),
        "{lines:#?}"
    );
}

#[test]
fn user_information_in_any_address_is_not_shown() {
    let parameters = "      authorization_parameters: {where: \"https://user:hunter2@example.com\"}\n      client_auth: none\n";
    let lines = shown(&BASE.replace("      client_auth: none\n", parameters));
    assert_shows(&lines, &["apps.[0].oidc.authorization_parameters: {where: [redacted]}"]);
}
