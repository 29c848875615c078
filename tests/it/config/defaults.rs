//! What is left out.

use super::*;

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = config(BASE);
    let limits = &config.server.limits;
    assert_eq!((limits.connections, limits.header_bytes, limits.body_bytes), (20_000, 64 << 10, 100 << 20));
    assert_eq!((limits.requests, limits.http2_streams, limits.header_count), (10_000, 128, 100));
    assert_eq!(limits.header_timeout, Duration::from_secs(10));
    assert_eq!(limits.idle_timeout, Duration::from_secs(75));
    assert_eq!(limits.websocket_idle_timeout, Duration::from_secs(600));
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(30));
    assert!(config.server.trusted_proxies.is_empty() && config.admin.is_none());
    assert_eq!((config.telemetry.log_format, config.telemetry.log_level.as_str()), (LogFormat::Json, "info"));

    assert!(config.telemetry.audit.is_none());
    assert!(config.telemetry.access_log && config.server.tls.is_none() && config.server.workers.is_none());
    assert_eq!(config.store_outage_grace, Duration::from_secs(30));

    let app = &config.apps[0];
    assert_eq!(app.base_path, "/bff");
    assert_eq!(app.oidc[0].scopes, ["openid"]);
    assert_eq!((app.oidc[0].timeout, app.oidc[0].userinfo), (Duration::from_secs(30), false));
    assert_eq!(
        (app.session.cookie_name.as_str(), app.session.same_site),
        ("__Host-cloakroom", SameSite::Strict)
    );
    assert_eq!(app.session.idle_timeout, Duration::from_secs(30 * 60));
    assert_eq!(app.session.lifetime, Duration::from_secs(12 * 3600));
    assert_eq!(app.session.refresh_before_expiry, Duration::from_secs(60));

    let route = &app.routes[0];
    assert_eq!((route.auth, &route.token, route.csrf), (Auth::Required, &Token::AccessToken, Csrf::Header));
    assert!(!route.websocket && !route.allow_encoded_slash);
    assert!(route.methods.is_none() && route.required_scopes.is_empty());
    let seconds =
        [route.timeouts.connect, route.timeouts.response, route.timeouts.idle].map(|time| time.as_secs());
    assert_eq!(seconds, [5, 60, 75]);
}

#[test]
fn files_need_no_session_and_no_guard_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let text = with("upstream: https://orders.internal:9000", &format!("files: {}", folder.path().display()));
    let config = config(&text);
    let route = &config.apps[0].routes[0];
    assert_eq!((route.auth, route.csrf), (Auth::None, Csrf::Off));
    assert!(matches!(&route.target, Target::Files(path) if path == folder.path()));
}

#[test]
fn an_app_overrides_what_all_share() {
    let text = with("    routes:", "    session: {idle_timeout: 20m, cookie: {same_site: lax}}\n    routes:");
    let session = config(&text).apps[0].session.clone();
    assert_eq!(
        (session.idle_timeout, session.lifetime),
        (Duration::from_secs(1200), Duration::from_secs(43_200))
    );
    assert_eq!(session.same_site, SameSite::Lax);
}

#[test]
fn the_cookie_on_a_loopback_origin_over_http_has_no_prefix() {
    let config = config(&with("https://shop.example.com", "http://localhost:8080"));
    assert_eq!(config.apps[0].session.cookie_name, "cloakroom");
}

#[test]
fn sessions_keys_and_the_store_have_no_default() {
    refused_in(
        &with("  keys: [{env: KEY}]\n  store", "  «store"),
        "sessions.keys",
        "required key is missing",
    );
    refused_in(
        &with("keys: [{env: KEY}]\n  store: {memory: {}}", "«keys: [{env: KEY}]"),
        "sessions.store",
        "required key is missing",
    );
    refused_in(
        &with("  listen: 127.0.0.1:0", "  «shutdown_grace: 1s"),
        "server.listen",
        "required key is missing",
    );
}
