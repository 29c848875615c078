//! The status page of the admin listener.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::SystemClock;
use serde_json::json;

use crate::support::certificates::{Authority, Certificate};
use crate::support::chromium;
use crate::support::clock::clock;
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::redis::Redis;
use crate::support::secrets::that_passed;
use crate::support::shop::{Shop, arrive};
use crate::support::upstream::{Upstream, status};
use crate::support::wait::until;
use crate::support::wire::{Reply, ask, head};

async fn get(gateway: &Gateway) -> Reply {
    let reply = ask(gateway.admin, head("GET /", "")).await;
    assert_eq!((reply.status, reply.field("content-type")), (200, Some("text/html; charset=utf-8")));
    reply
}

/// What a reader sees of it, and what a plot is called.
async fn page(gateway: &Gateway) -> String {
    words(&get(gateway).await.text())
}

/// Text without tags, in one line, each part apart from the next.
fn words(html: &str) -> String {
    let (_, body) = html.split_once("<main>").expect("a page");
    let (body, _) = body.split_once("</main>").expect("the end of the page");
    let parts = body.split('<').flat_map(|part| part.split_once('>').map(|(_, text)| text));
    parts.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ").replace("&#39;", "'")
}

fn assert_shows(page: &str, expected: &str) {
    assert!(page.contains(expected), "{expected}\n{page}");
}

#[tokio::test]
async fn what_happened_is_plotted_by_the_gateways_clock() {
    let shop = Shop::open().await;
    let before = page(&shop.gateway).await;
    assert_shows(&before, "up for 0 s");
    let start = "Fri, 15 Jan 2027 08:00:00 GMT";
    assert_shows(&before, &format!("as of {start} configuration of {start}"));
    assert_shows(&before, "Logins, the last 5 minutes. Now: all –; failed –. Highest: 0.");
    shop.user().await;
    let mut browser = shop.user().await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    shop.issuer.fail_once(Endpoint::Token, Fault::invalid_grant());
    let mut failing = shop.browser();
    let callback = shop.begin(&mut failing, "return_to=/shop").await;
    arrive(&mut failing, &callback).await;
    shop.clock.advance(Duration::from_secs(60));
    let after = page(&shop.gateway).await;
    assert_shows(&after, "up for 1 min 0 s");
    assert_shows(&after, &format!("as of Fri, 15 Jan 2027 08:01:00 GMT configuration of {start}"));
    assert_shows(&after, "Sessions in memory 2");
    assert_shows(&after, "/bff/callback https://shop.test 3 ");
    assert_shows(&after, "/api https://shop.test 1 0");
    assert_shows(&after, "Now: all 3 per minute; failed 1 per minute.");
    assert_shows(&after, "Token refreshes, the last 5 minutes. Now: all 0 per minute; failed 0 per minute.");

    // The access token is used up.
    shop.clock.advance(Duration::from_secs(400));
    page(&shop.gateway).await;
    shop.issuer.fail_once(Endpoint::Token, Fault::invalid_client());
    assert_eq!(browser.fetch("/api/orders").await.status, 503);
    shop.clock.advance(Duration::from_secs(60));
    let later = page(&shop.gateway).await;
    assert_shows(&later, "Logins, the last 10 minutes. Now: all 0 per minute; failed 0 per minute.");
    assert_shows(&later, "Token refreshes, the last 10 minutes. Now: all 1 per minute; failed 1 per minute.");
    shop.clock.advance(Duration::from_secs(3 * 3600));
    assert_shows(&page(&shop.gateway).await, "up for 3 h 8 min");
}

#[tokio::test]
async fn who_is_away_is_told_of_until_they_are_back() {
    let (mut issuer, mut redis, upstream) =
        (Issuer::start().await, Redis::start().await, Upstream::start().await);
    let setup = Setup::new(&issuer.url()).for_users("/", &upstream.url());
    let gateway = setup.redis(&redis.url()).start().await;
    let issuer_is_away = format!("The issuer {} does not answer.", issuer.url());
    until(async || page(&gateway).await.contains(&format!("Issuer {} ● available", issuer.url()))).await;
    let well = page(&gateway).await;
    assert_shows(&well, "Cloakroom ● ready Version");
    assert_shows(&well, "Session store redis ● available");
    assert!(!well.contains("does not answer"), "{well}");

    redis.stop();
    let without_store = page(&gateway).await;
    assert_shows(&without_store, "▲ ready, with trouble");
    assert_shows(&without_store, "The session store does not answer.");
    assert_shows(&without_store, "▲ unavailable; known sessions are still served");
    redis.restart().await;
    until(async || page(&gateway).await.contains("Session store redis ● available")).await;

    issuer.stop().await;
    let url = issuer.url();
    let stranger = Setup::new(&url).for_users("/", &upstream.url()).start().await;
    until(async || page(&stranger).await.contains(&issuer_is_away)).await;
    assert_shows(&page(&stranger).await, &format!("Issuer {url} ✕ unavailable"));
}

#[tokio::test]
async fn each_server_of_an_upstream_has_its_state() {
    let upstream = Upstream::start().await;
    let addresses = format!("[\"{}\", \"127.0.0.1:9\"]", upstream.address);
    let gateway = Setup::new(NO_ISSUER)
        .route(&format!(
            "path: /, upstream: {{url: \"http://orders.internal\", addresses: {addresses}}}, auth: none"
        ))
        .start()
        .await;
    let both = page(&gateway).await;
    assert_shows(
        &both,
        &format!("/ https://shop.test to http://orders.internal/ {} ● up 0", upstream.address),
    );
    assert_shows(&both, "127.0.0.1:9 ● up 0");
    until(async || {
        assert_eq!(ask(gateway.address, head("GET /x", "")).await.status, 200);
        page(&gateway).await.contains("127.0.0.1:9 ✕ ejected; asked again in 1 s 0")
    })
    .await;
    until(async || page(&gateway).await.contains("127.0.0.1:9 ▲ returning, with ")).await;
    assert!(!page(&gateway).await.contains("no server of its upstream answers"), "one does");
}

#[tokio::test]
async fn the_only_server_of_an_upstream_is_never_left_alone_but_told_of() {
    let gateway = Setup::new(NO_ISSUER).for_anybody("/shop", "http://127.0.0.1:9").start().await;
    for expected in ["▲ the last request had no answer 0", "▲ the last 2 requests had no answer 0"] {
        assert_eq!(ask(gateway.address, head("GET /shop", "")).await.status, 502);
        assert_shows(&page(&gateway).await, expected);
    }
    assert_eq!(ask(gateway.address, head("GET /shop", "")).await.status, 502);
    assert_shows(&page(&gateway).await, "https://shop.test/shop: no server of its upstream answers.");
}

#[tokio::test]
async fn a_server_that_fails_its_checks_is_unhealthy() {
    let upstream = Upstream::answering(|_| status(500, &[])).await;
    let route = "health: {path: /healthz, interval: 20ms, unhealthy_after: 1}";
    let route = format!("path: /, upstream: {{url: \"{}\", {route}}}, auth: none", upstream.url());
    let gateway = Setup::new(NO_ISSUER).route(&route).start().await;
    until(async || page(&gateway).await.contains("✕ unhealthy, by its checks")).await;
}

#[tokio::test]
async fn the_configuration_in_force_is_there_with_its_defaults_and_without_a_secret() {
    let shop = Shop::open_with(|_, setup| {
        setup.sessions = "idle_timeout: 20m".to_owned();
    })
    .await;
    let mut browser = shop.user().await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    let html = get(&shop.gateway).await.text();
    for line in [
        "  keys:\n    - env: SESSION_KEY\n",
        "\n        client_secret_basic:\n          env: CLIENT_SECRET\n",
        "\n  idle_timeout: 20m\n",
        "\n<span class=\"default\">  lifetime: 12h # default</span>\n",
        "<span class=\"default\">    header_bytes: 64KiB # default</span>\n",
        "\n      - path: /api\n",
    ] {
        assert_shows(&html, line);
    }
    let mut secrets = that_passed(&shop.issuer, &shop.upstream, &browser.visited);
    secrets.extend(browser.session_cookie());
    assert!(secrets.len() > 8, "{secrets:?}");
    for secret in secrets {
        assert!(!html.contains(&secret), "{secret} is on the page");
    }
    assert!(!html.contains("alice"), "nor is any user");
}

#[tokio::test]
async fn nothing_from_outside_becomes_a_tag() {
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/a'b&c", "http://127.0.0.1:9");
    setup.oidc +=
        "\nauthorization_parameters: {hint: \"</pre><script>alert(1)</script>\", \"<b>\": \"'\\\"\"}";
    let gateway = setup.start().await;
    assert_eq!(ask(gateway.address, head("GET /a'b&c", "")).await.status, 502);
    let html = get(&gateway).await.text();
    assert!(!html.contains("<script>alert") && !html.contains("<b>") && !html.contains("/a'b"), "{html}");
    assert_shows(&html, "hint: &lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;");
    assert_shows(&html, "/a&#39;b&amp;c");
}

#[tokio::test]
async fn the_certificate_of_the_listener_is_told_of_before_it_expires() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    for (days, expected) in
        [(90, "● good for 89 days"), (12, "▲ expires in 11 days"), (3, "✕ expires in 2 d 23 h")]
    {
        let Certificate { certificate, key } = authority.issue("gateway", "DNS:localhost", days);
        let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
        let (certificate, key) = (certificate.display(), key.display());
        setup.server = format!("tls: {{certificate: \"{certificate}\", private_key: \"{key}\"}}");
        let shown = page(&setup.start().await).await;
        assert_shows(&shown, &format!("Certificate of the listener {expected}"));
        assert_eq!(shown.contains("The listener's certificate: expires in"), days < 21, "{shown}");
    }
}

#[tokio::test]
async fn it_is_framed_and_cached_by_nobody_and_runs_its_own_script_alone() {
    let gateway = Setup::new(NO_ISSUER).for_anybody("/", "http://127.0.0.1:9").start().await;
    let reply = get(&gateway).await;
    let policy = reply.field("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(policy.contains("; frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(reply.field("cache-control"), Some("no-store"));
    assert_eq!(reply.field("cross-origin-resource-policy"), Some("same-origin"));
    assert_eq!(reply.field("x-content-type-options"), Some("nosniff"));
    let post = ask(gateway.admin, head("POST /", "Content-Length: 0\r\n")).await;
    assert_eq!((post.status, post.field("allow")), (405, Some("GET, HEAD")));
    let html = reply.text();
    assert!(!html.contains(" style=") && !html.contains("src=") && !html.contains("href="), "{html}");
}

#[tokio::test]
async fn a_page_of_an_operators_browser_reads_nothing_and_ends_no_session() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let admin = shop.gateway.admin;
    let ask_as = async |line: &str, host: &str, fields: &str| {
        let length = if line.starts_with("DELETE") { "Content-Length: 0\r\n" } else { "" };
        ask(admin, format!("{line} HTTP/1.1\r\nHost: {host}\r\n{length}{fields}\r\n")).await
    };
    // A name of an attacker's that leads here (DNS rebinding): to a browser it is the page's own origin.
    for line in ["GET /", "GET /sessions?sub=alice", "DELETE /sessions?sub=alice"] {
        for host in
            ["attacker.example", "attacker.example:9090", "localhost.attacker.example", "a@localhost", ""]
        {
            let reply = ask_as(line, host, "").await;
            assert_eq!(reply.status, 421, "{line} {host}");
            assert!(!reply.text().contains("alice"));
        }
        assert_eq!(ask_as(line, "localhost", "Host: attacker.example\r\n").await.status, 421, "{line}");
    }
    let port = admin.port();
    for (host, origin) in [
        (format!("127.0.0.1:{port}"), "https://attacker.example".to_owned()),
        (format!("localhost:{port}"), format!("http://localhost:{port}")),
        ("localhost".to_owned(), "null".to_owned()),
    ] {
        for fields in [format!("Origin: {origin}\r\n"), "Sec-Fetch-Site: cross-site\r\n".to_owned()] {
            let reply = ask_as("DELETE /sessions?sub=alice", &host, &fields).await;
            assert_eq!((reply.status, reply.problem()), (403, "csrf".to_owned()), "{host} {fields}");
        }
        let preflight = format!("Origin: {origin}\r\nAccess-Control-Request-Method: DELETE\r\n");
        let reply = ask_as("OPTIONS /sessions?sub=alice", &host, &preflight).await;
        assert!(reply.status == 403 && reply.field("access-control-allow-origin").is_none(), "{reply:?}");
    }
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    for host in
        [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), "LOCALHOST".to_owned(), "gateway".to_owned()]
    {
        assert_eq!(ask_as("GET /sessions?sub=alice", &host, "").await.status, 200, "{host}");
        assert_eq!(ask_as("GET /", &host, "").await.status, 200, "{host}");
    }
    assert_eq!(ask_as("GET /livez", "attacker.example", "").await.status, 200, "probes come by any name");
    assert_eq!(ask_as("DELETE /sessions?sub=alice", "127.0.0.1", "").await.status, 200);
    assert_eq!(browser.fetch("/api/orders").await.problem(), "unauthenticated");
}

#[tokio::test]
async fn who_drains_says_so() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::raw(|_| std::future::pending()).await);
    let mut setup = Setup::new(&issuer.url()).for_anybody("/", &upstream.url());
    setup.server = "shutdown_grace: 6s".to_owned();
    let mut gateway = setup.start().await;
    assert_eq!(ask(gateway.admin, head("GET /readyz", "")).await.status, 200, "somebody looks");
    gateway.begin_stop();
    until(async || page(&gateway).await.contains("▲ draining")).await;
}

#[tokio::test]
async fn it_looks_good_wide_and_narrow_and_keeps_itself_up_to_date() {
    let further = [Upstream::start().await, Upstream::start().await];
    let issuer = Issuer::start().await;
    let shop = Shop::open_among(clock(), issuer, Upstream::start().await, |_, setup| {
        setup.clock = Arc::new(SystemClock);
        let [one, other] = further.each_ref().map(|upstream| upstream.address);
        let addresses = format!("[\"{one}\", \"{other}\", \"127.0.0.1:9\"]");
        let upstream = format!("{{url: \"http://catalogue.internal\", addresses: {addresses}}}");
        setup.add_route(&format!("path: /catalogue/of/many/things, upstream: {upstream}, auth: none"));
    })
    .await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/status-page");
    fs::create_dir_all(&folder).unwrap();
    let traffic = async {
        let mut browsers = vec![shop.user().await, shop.user().await];
        for round in 0_u64.. {
            for browser in &mut browsers {
                browser.fetch("/api/orders").await;
            }
            ask(shop.gateway.address, head("GET /catalogue/of/many/things", "")).await;
            if round % 40 == 0 {
                browsers.truncate(6);
                browsers.push(shop.user().await);
            }
            tokio::time::sleep(Duration::from_millis(20 + 60 * (round / 50 % 5))).await;
        }
    };
    let arguments = json!({"gateway": format!("http://{}", shop.gateway.admin), "folder": folder});
    tokio::select! {
        () = traffic => {}
        () = chromium::run_of("status_page.mjs", "wide_and_narrow", &arguments) => {}
    }
}
