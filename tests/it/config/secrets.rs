//! Secrets: in files and in the environment, never in the YAML.

use super::*;

/// A file of this content and mode, named by `{file: …}`.
fn file(folder: &Path, name: &str, content: &[u8], mode: u32) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    format!("{{file: {}}}", path.display())
}

fn client_secret(reference: &str) -> String {
    with("client_auth: none", &format!("client_auth: {{client_secret_post: {reference}}}"))
}

fn secret_of(text: &str) -> String {
    match &config(text).apps[0].oidc[0].client_auth {
        ClientAuth::ClientSecretPost(secret) => secret.expose().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_secret_comes_from_a_file_or_the_environment_without_its_last_line_break() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(secret_of(&client_secret("{env: SECRET}")), "hunter2");
    for (content, expected) in [
        ("hunter2", "hunter2"),
        ("hunter2\n", "hunter2"),
        ("hunter2\r\n", "hunter2"),
        ("hunter2\n\n", "hunter2\n"),
        (" hunter2 ", " hunter2 "),
    ] {
        let reference = file(folder.path(), "secret", content.as_bytes(), 0o640);
        assert_eq!(secret_of(&client_secret(&reference)), expected);
    }
}

#[test]
fn r64_a_secret_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for mode in [0o644, 0o604, 0o777] {
        let reference = file(folder.path(), "secret", b"hunter2", mode);
        let found = faults(&client_secret(&reference));
        assert!(found[0].problem.contains("can be read by others"), "{}", found[0]);
    }
}

#[test]
fn r64_the_mode_is_that_of_the_file_behind_a_symbolic_link() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    symlink(folder.path().join("secret"), &link).unwrap();
    let reference = format!("{{file: {}}}", link.display());
    file(folder.path(), "secret", b"hunter2", 0o600);
    assert_eq!(secret_of(&client_secret(&reference)), "hunter2");
    file(folder.path(), "secret", b"hunter2", 0o604);
    assert!(faults(&client_secret(&reference))[0].problem.contains("can be read by others"));
}

#[test]
fn secrets_that_cannot_be_read_are_refused_at_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, content: &[u8]| file(folder.path(), name, content, 0o600);
    for (reference, problem) in [
        ("{file: /nowhere/secret}".to_owned(), "cannot be read"),
        (format!("{{file: {}}}", folder.path().display()), "not a file"),
        ("{file: /dev/zero}".to_owned(), "not a file"),
        (of("empty", b""), "is empty"),
        (of("newline", b"\n"), "is empty"),
        (of("binary", b"\xff\xfe"), "cannot be read"),
        (of("large", &[b'x'; 70_000]), "more than 65536 bytes"),
        ("{env: UNSET}".to_owned(), "not set"),
        ("{env: EMPTY}".to_owned(), "is empty"),
        ("{env: NEWLINE}".to_owned(), "is empty"),
    ] {
        let found = faults(&client_secret(&reference));
        assert_eq!(found.len(), 1);
        assert!(found[0].problem.contains(problem), "{}", found[0]);
        assert!(reference.contains(&found[0].text) && found[0].position.line == 11, "{}", found[0]);
    }
}

#[test]
fn a_secret_in_the_file_itself_is_refused_and_never_shown() {
    for (old, new) in [
        ("client_auth: none", "client_auth: {client_secret_basic: hunter2}"),
        ("client_auth: none", "client_auth: {client_secret_basic: [hunter2]}"),
        ("client_auth: none", "client_auth: {client_secret_post: \"hunter2\"}"),
        ("client_auth: none", "client_auth: {client_secret_post: {value: hunter2}}"),
        ("client_auth: none", "client_auth: {client_secret_post: {env: hunter2-with-dashes}}"),
        ("client_auth: none", "client_auth: hunter2"),
        ("client_auth: none", "client_auth: {client_secret_post: \"hunter2"),
        ("client_auth: none", "client_auth: {client_secret_post: \"hunter2\\q\"}"),
        ("client_auth: none", "client_auth: {client_secret_post: &a hunter2, <<: *a}"),
        ("[{env: KEY}]", "[hunter2]"),
        ("[{env: KEY}]", "hunter2"),
        ("[{env: KEY}]", "[hunter2"),
        ("{memory: {}}", "{redis: {url: \"redis://localhost\", password: hunter2}}"),
        ("{memory: {}}", "{redis: {url: \"redis://user:hunter2@localhost\"}}"),
        ("{memory: {}}", "{redis: {url: \"rediss://user:hunter2@localhost\"}}"),
        ("{memory: {}}", "{redis: \"redis://user:hunter2@localhost\"}"),
        ("https://orders.internal:9000", "https://user:hunter2@orders.internal"),
        ("https://orders.internal:9000", "{url: \"https://user:hunter2@orders.internal\"}"),
        ("https://id.example.com", "https://user:hunter2@id.example.com"),
        ("https://shop.example.com", "https://user:hunter2@shop.example.com"),
    ] {
        let found = faults(&with(old, new));
        let shown = format!("{found:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    refused(
        "client_auth: none",
        "client_auth: {client_secret_basic: «hunter2}",
        "[redacted]",
        "written in the file",
    );
    refused("[{env: KEY}]", "[«hunter2]", "[redacted]", "written in the file");
    refused(
        "{memory: {}}",
        "{redis: {url: «redis://u:hunter2@localhost}}",
        "[redacted]",
        "a password in the file",
    );
}

#[test]
fn exactly_one_source_of_a_secret_is_named() {
    refused(
        "client_auth: none",
        "client_auth: {client_secret_basic: {env: SECRET, «file: x}}",
        "file",
        "only one of",
    );
    refused(
        "client_auth: none",
        "client_auth: {client_secret_basic: «{}}",
        "apps[0].oidc.client_auth.client_secret_basic",
        "is missing",
    );
}

#[test]
fn session_keys_are_base64_of_either_alphabet_padded_or_not() {
    for key in [
        KEY,
        KEY.trim_end_matches('='),
        OTHER_KEY,
        "-_EyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "+/EyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
    ] {
        let loaded = parse("test.yaml", BASE, &|_| Some(format!("{key}\n"))).unwrap();
        assert_eq!(loaded.config.session_keys[0].expose()[2..], b"23456789abcdef0123456789abcdef"[..]);
    }
    assert_eq!(config(&with("[{env: KEY}]", "[{env: OTHER_KEY}, {env: KEY}]")).session_keys.len(), 2);
}

#[test]
fn r64_short_long_zero_and_repeated_session_keys_are_refused() {
    refused("{env: KEY}", "{env: «SHORT_KEY}", "SHORT_KEY", "16 bytes, not 32");
    refused("{env: KEY}", "{env: «LONG_KEY}", "LONG_KEY", "34 bytes, not 32");
    refused("{env: KEY}", "{env: «ZERO_KEY}", "ZERO_KEY", "all zeros");
    refused("{env: KEY}", "{env: «WORDS}", "WORDS", "not base64");
    refused("{env: KEY}", "{env: KEY}, {env: «KEY_AGAIN}", "KEY_AGAIN", "twice");
    refused("[{env: KEY}]", "«[]", "[…]", "empty list");
}

#[test]
fn r62_a_configuration_prints_no_secret() {
    let text = client_secret("{env: SECRET}")
        .replace("{memory: {}}", "{redis: {url: \"redis://localhost\", password: {env: SECRET}}}");
    let printed = format!("{:?}", config(&text));
    assert!(!printed.contains("hunter2") && printed.contains("[redacted]"));
    assert!(!printed.contains("48, 49, 50"), "the bytes of the key");
}
