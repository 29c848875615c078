//! `${NAME}` in a value.

use super::*;

#[test]
fn values_come_from_the_environment() {
    assert_eq!(config(&with("127.0.0.1:0", "127.0.0.1:${PORT}")).server.listen.port(), 4711);
    assert_eq!(config(&with("127.0.0.1:0", "127.0.0.1:${UNSET:-4712}")).server.listen.port(), 4712);
    assert_eq!(config(&with("127.0.0.1:0", "127.0.0.1:${EMPTY:-4713}")).server.listen.port(), 4713);
    let limits = config(&with("  listen", "  limits: {connections: \"${PORT}\"}\n  listen")).server.limits;
    assert_eq!(limits.connections, 4711);
    assert_eq!(config(&with("client_id: shop", "client_id: ${PORT}")).apps[0].oidc[0].client_id, "4711");
    assert_eq!(
        config(&with("client_id: shop", "client_id: $${PORT}$")).apps[0].oidc[0].client_id,
        "${PORT}$"
    );
}

#[test]
fn a_value_never_injects_structure() {
    let injected = with("127.0.0.1:0", "«${INJECTION}");
    refused_in(&injected, "${INJECTION}", "once the environment is put in");
}

#[test]
fn missing_variables_and_broken_placeholders_are_refused() {
    refused("client_id: shop", "client_id: «${UNSET}", "${UNSET}", "UNSET is not set");
    refused("client_id: shop", "client_id: «${EMPTY}", "${EMPTY}", "empty");
    refused("client_id: shop", "client_id: «a${PORT", "a${PORT", "without its `}`");
    refused("client_id: shop", "client_id: «${}", "${}", "not the name");
    refused("client_id: shop", "client_id: «${1A}", "${1A}", "not the name");
    refused("client_id: shop", "client_id: «${A-B}", "${A-B}", "not the name");
}

#[test]
fn faults_show_the_placeholder_and_never_its_value() {
    for key in ["client_id: ${INJECTION}", "client_id: shop\n      timeout: ${SECRET}"] {
        let found = faults(&with("client_id: shop", key));
        assert!(!format!("{found:?}").contains("hunter2") && !format!("{found:?}").contains("1.2.3.4"));
    }
}
