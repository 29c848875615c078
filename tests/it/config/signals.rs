//! Shared signals: whose security events are taken.

use super::{config, refused, refused_in, with};

fn signals(keys: &str) -> String {
    with("    routes:", &format!("    shared_signals: {{{keys}}}\n    routes:"))
}

#[test]
fn a_transmitter_is_known_by_its_name_and_asked_at_its_well_known_address() {
    assert!(config(super::BASE).apps[0].shared_signals.is_none());
    for (transmitter, address) in [
        ("https://id.example.com", "https://id.example.com/.well-known/ssf-configuration"),
        ("https://id.example.com/", "https://id.example.com/.well-known/ssf-configuration"),
        ("https://id.example.com:8443/a/b", "https://id.example.com:8443/.well-known/ssf-configuration/a/b"),
        (
            "https://id.example.com/realms/shop/",
            "https://id.example.com/.well-known/ssf-configuration/realms/shop",
        ),
        ("http://localhost:8080/x", "http://localhost:8080/.well-known/ssf-configuration/x"),
    ] {
        let config = config(&signals(&format!("transmitter: '{transmitter}', audience: shop")));
        let signals = config.apps[0].shared_signals.as_ref().unwrap();
        assert_eq!(signals.transmitter.as_str(), transmitter, "letter by letter");
        assert_eq!(signals.transmitter.metadata_address(), address);
        assert_eq!((signals.audience.as_slice(), &signals.authorization), (&["shop".to_owned()][..], &None));
    }
    let text =
        "transmitter: 'https://id.example.com', audience: [a, 'https://b'], authorization: {env: SECRET}";
    let config = config(&signals(text));
    let signals = config.apps[0].shared_signals.as_ref().unwrap();
    assert_eq!(signals.audience, ["a", "https://b"]);
    assert_eq!(signals.authorization.as_ref().unwrap().expose(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn what_makes_no_transmitter_is_refused() {
    let with_transmitter = |text: &str| signals(&format!("transmitter: {text}, audience: shop"));
    refused_in(&with_transmitter("«'http://id.example.com'"), "http://id.example.com", "plain http");
    refused_in(&with_transmitter("«'https://id.example.com?a=b'"), "https://id.example.com?a=b", "a query");
    refused_in(&with_transmitter("«'https://me@id.example.com'"), "[redacted]", "user information");
    let with_audience = |text: &str| signals(&format!("transmitter: 'https://id.example.com', {text}"));
    refused_in(&with_audience("audience: «''"), "", "an empty text");
    refused_in(&with_audience("audience: [a, «a]"), "a", "stands here twice");
    refused_in(&with_audience("audience: «[]"), "[…]", "an empty list");
    refused_in(&with_audience("audience: a, authorization: «Bearer x"), "[redacted]", "");
    refused_in(&with_audience("audience: a, «stream: b"), "stream", "unknown key");
    refused(
        "    routes:",
        "    shared_signals: «{audience: a}\n    routes:",
        "apps[0].shared_signals.transmitter",
        "missing",
    );
}
