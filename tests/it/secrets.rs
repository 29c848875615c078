//! What must never be written down: tokens, codes, cookies, secrets.

use std::collections::HashSet;
use std::time::Duration;

use http::Method;
use tracing_subscriber::EnvFilter;

use crate::support::browser::post_form;
use crate::support::gateway::SESSION_COOKIE;
use crate::support::issuer::{Draft, Endpoint, Fault, Signature};
use crate::support::log::Log;
use crate::support::secrets::{keys_of_logins, that_passed};
use crate::support::shop::{Shop, arrive};
use crate::support::wait::in_time;

#[tokio::test]
async fn r62_no_secret_reaches_the_log_on_any_way_through_a_session() {
    // Of the other tests of this process too: a subscriber of one thread alone would miss events of tasks.
    let log = Log::default();
    // As the program logs, and as much as it can.
    let filter = EnvFilter::new("warn,cloakroom=trace,hyper=off,hyper_util=off");
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let shop =
        Shop::open_with(|_, setup| setup.oidc += "\ntimeout: 2s\ndpop_bound_access_tokens: true").await;
    let mut cookies = HashSet::new();
    let mut visited = Vec::new();

    let faults =
        [Fault::html(200), Fault::invalid_grant(), Fault::invalid_client(), Fault::ResetAfter, Fault::huge()];
    for fault in faults {
        // A login that fails, one that succeeds, a refresh that fails, and a logout whose revocation does.
        shop.issuer.fail_once(Endpoint::Token, fault.clone());
        let mut browser = shop.browser();
        let callback = shop.begin(&mut browser, "return_to=/shop").await;
        cookies.extend(browser.cookie_names().iter().filter_map(|name| browser.cookie(name)));
        cookies.extend(keys_of_logins(&browser));
        let failed = arrive(&mut browser, &callback).await;
        assert!(failed.status.is_client_error() || failed.status.is_server_error());
        arrive(&mut browser, &callback).await;
        browser.log_in("/shop").await;
        cookies.extend(browser.session_cookie());
        assert_eq!(browser.fetch("/api/orders").await.status, 200);
        shop.issuer.fail_once(Endpoint::Token, fault.clone());
        shop.clock.advance(Duration::from_secs(400));
        let answer = in_time(browser.fetch("/api/orders")).await;
        assert!([401, 503].contains(&answer.status.as_u16()), "{fault:?} {}", answer.text());
        shop.issuer.fail_once(Endpoint::Revoke, fault);
        browser.submit("/bff/logout").await;
        visited.append(&mut browser.visited);
        visited.push(callback);
    }
    shop.issuer.tamper(|draft: &mut Draft| draft.signature = Signature::Foreign);
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;
    arrive(&mut browser, &callback).await;
    browser.plant(SESSION_COOKIE, "forged-cookie");
    browser
        .script(Method::POST, "/api/orders", &[("x-csrf", "1"), ("authorization", "Bearer forged-token")], "")
        .await;
    visited.push(callback);
    cookies.extend(["forged-cookie".to_owned(), "forged-token".to_owned()]);

    let good = shop.issuer.logout_token(|_| {});
    let bad = shop.issuer.logout_token(|draft| draft.signature = Signature::Foreign);
    for token in [good, bad] {
        post_form(shop.gateway.address, "/bff/backchannel-logout", &format!("logout_token={token}")).await;
        cookies.insert(token);
    }

    let log = log.take();
    assert!(
        log.contains("login.succeeded")
            && log.contains("revocation.missed")
            && log.contains("backchannel.refused"),
        "{log}"
    );
    let mut secrets = that_passed(&shop.issuer, &shop.upstream, &visited);
    secrets.extend(cookies);
    assert!(secrets.len() > 40, "{secrets:?}");
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}
