//! Files that can and cannot be read.

use super::*;

#[test]
fn the_annotated_and_the_minimal_file_load() {
    let folder = tempfile::tempdir().unwrap();
    let environment = |name: &str| match name {
        "CLOAKROOM_SESSION_KEY" => Some(KEY.to_owned()),
        "CLOAKROOM_AUDIT_KEY" => Some(OTHER_KEY.to_owned()),
        "SHOP_CLIENT_SECRET" | "REDIS_PASSWORD" | "SIGNALS_AUTHORIZATION" => Some("hunter2".to_owned()),
        "SPA_FOLDER" => Some(folder.path().display().to_string()),
        _ => None,
    };
    for file in ["config/cloakroom.yaml", "config/minimal.yaml"] {
        let loaded = load(Path::new(file), &environment).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(loaded.warnings, [], "{file}");
    }
}

#[test]
fn a_file_that_is_not_there_is_told_from_one_with_faults() {
    let faults = load(Path::new("/nowhere/cloakroom.yaml"), &environment).unwrap_err();
    assert!(matches!(faults, Faults::Unreadable { .. }) && faults.diagnostics().is_empty());
    assert!(faults.to_string().starts_with("/nowhere/cloakroom.yaml: the configuration cannot be read"));
    assert!(matches!(load(Path::new("/"), &environment), Err(Faults::Unreadable { .. })));
}

#[test]
fn an_endless_file_is_not_read_to_its_end() {
    assert!(matches!(load(Path::new("/dev/zero"), &environment), Err(Faults::Unreadable { .. })));
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_at_its_first_wrong_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin1.yaml");
    fs::write(&path, b"server:\n  listen: caf\xe9\n").unwrap();
    let faults = load(&path, &environment).unwrap_err();
    let [fault] = faults.diagnostics() else { panic!("{faults}") };
    assert_eq!((fault.position.line, fault.position.column), (2, 14));
    assert_eq!(fault.text, "0xe9");
}
