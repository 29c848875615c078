//! What operators are told in numbers: each by its name, its labels, and its meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use cloakroom::clock::{Clock, SystemClock};
use http::{Method, StatusCode};

use crate::streams::streaming;
use crate::support::browser::metric;
use crate::support::certificates::Authority;
use crate::support::gateway::{Gateway, NO_ISSUER, ORIGIN, Setup};
use crate::support::issuer::Issuer;
use crate::support::port::Reserved;
use crate::support::shop::Shop;
use crate::support::upstream::{Upstream, full};
use crate::support::wait::until;
use crate::support::wire::{Wire, ask, head};

/// The names that users rely on, with their labels.
const OF_THE_CONTRACT: [(&str, &str); 12] = [
    ("cloakroom_requests_total", "app,route,status_class"),
    ("cloakroom_request_duration_seconds", "app,route"),
    ("cloakroom_upstream_duration_seconds", "app,route"),
    ("cloakroom_logins_total", "app,result"),
    ("cloakroom_logouts_total", "app,cause"),
    ("cloakroom_token_refreshes_total", "app,result"),
    ("cloakroom_token_refresh_duration_seconds", ""),
    ("cloakroom_revocations_total", "app,result"),
    ("cloakroom_store_operation_seconds", "operation,result"),
    ("cloakroom_session_cache_total", "result"),
    ("cloakroom_open_connections", ""),
    ("cloakroom_open_tunnels", ""),
];

/// Metrics by name: the type, and the labels of the samples.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

async fn scrape(admin: SocketAddr) -> String {
    let reply = ask(admin, head("GET /metrics", "")).await;
    String::from_utf8(reply.body.to_vec()).unwrap()
}

fn families(scrape: &str) -> Families {
    let mut families = Families::new();
    let mut current = String::new();
    for line in scrape.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            current = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let (name, labels) = line.rsplit_once(' ').unwrap().0.split_once('{').unwrap_or((line, ""));
            assert!(name.starts_with(&current), "{line} under {current}");
            // No label of these tests has a comma in it.
            let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
            let names: Vec<_> = names.filter(|name| *name != "le").collect();
            families.get_mut(&current).unwrap().1.insert(names.join(","));
        }
    }
    families
}

/// The table of docs/metrics.md, each name with its type and its labels.
fn documented() -> BTreeMap<String, (String, String)> {
    let text = fs::read_to_string("docs/metrics.md").unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let plain = |cell: &str| cell.replace(['`', ' '], "");
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        assert!(!cells[4].trim().is_empty(), "{row}");
        (plain(cells[1]), (plain(cells[2]), plain(cells[3])))
    })
    .collect()
}

#[tokio::test]
async fn the_table_of_the_documentation_is_what_a_scrape_tells() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    shop.clock.advance(Duration::from_secs(301));
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    let fields = [("x-csrf", "1"), ("accept", "application/json")];
    browser.script(Method::POST, "/bff/logout", &fields, "").await;
    let has = async |name: &str| metric(shop.gateway.admin, name, "").await > 0.0;
    until(async || has("cloakroom_revocations_total").await && has("cloakroom_issuer_up").await).await;
    let (told, documented) = (families(&scrape(shop.gateway.admin).await), documented());
    let types = |(name, (kind, _)): (&String, &(String, _))| (name.clone(), kind.clone());
    let mut types_told: BTreeMap<_, _> = told.iter().map(types).collect();
    // What has no sample is not told: nobody is asked about tokens here, nothing is too much, nothing reloaded, and no
    // certificate shown.
    for (name, kind) in [
        ("cloakroom_token_introspections_total", "counter"),
        ("cloakroom_overload_refusals_total", "counter"),
        ("cloakroom_config_reloads_total", "counter"),
        ("cloakroom_certificate_expiry_timestamp_seconds", "gauge"),
    ] {
        types_told.insert(name.to_owned(), kind.to_owned());
    }
    assert_eq!(types_told, documented.iter().map(|(name, (kind, _))| (name.clone(), kind.clone())).collect());
    for (name, (_, labels)) in &told {
        let expected = BTreeSet::from([documented[name].1.clone()]);
        assert!(labels.is_empty() || *labels == expected, "{name}: {labels:?}");
    }
    for (name, labels) in OF_THE_CONTRACT {
        assert_eq!(documented.get(name).map(|(_, labels)| labels.as_str()), Some(labels), "{name}");
        assert!(!told[name].1.is_empty(), "{name} is counted");
    }
}

#[tokio::test]
async fn a_request_is_counted_for_its_route_and_by_the_class_of_its_status() {
    let upstream = Upstream::answering(|arrived| {
        let mut response = full("x");
        *response.status_mut() = arrived.target.rsplit('/').next().unwrap().parse::<StatusCode>().unwrap();
        response
    })
    .await;
    let nobody = Reserved::new();
    let files = tempfile::tempdir().unwrap();
    let gateway = Setup::new(NO_ISSUER)
        .for_anybody("/api", &upstream.url())
        .for_anybody("/api/away", &format!("http://{}", nobody.address()))
        .for_users("/own", &upstream.url())
        .route(&format!("path: /files, files: \"{}\"", files.path().display()))
        .start()
        .await;
    for (target, status) in [
        ("/api/200", 200),
        ("/api/a/204", 204),
        ("/api/303", 303),
        ("/api/404", 404),
        ("/api/500", 500),
        ("/api/away/200", 502),
        ("/own/200", 401),
        ("/files/nothing", 404),
        ("/bff/login?return_to=//", 400),
        ("/bff/nothing", 404),
        ("/elsewhere", 404),
    ] {
        let reply = ask(gateway.address, head(&format!("GET {target}"), "")).await;
        assert_eq!(reply.status, status, "{target}");
    }
    ask(gateway.address, "GET /api HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n").await;

    let counted = async || {
        let scrape = scrape(gateway.admin).await;
        let samples = scrape.lines().filter_map(|line| line.strip_prefix("cloakroom_requests_total{app="));
        let samples: BTreeSet<_> =
            samples.filter(|sample| !sample.ends_with(" 0")).map(str::to_owned).collect();
        samples
    };
    let expected = [
        ("/api", "2xx", 2),
        ("/api", "3xx", 1),
        ("/api", "4xx", 1),
        ("/api", "5xx", 1),
        ("/api/away", "5xx", 1),
        ("/own", "4xx", 1),
        ("/files", "4xx", 1),
        ("/bff/login", "4xx", 1),
        ("", "4xx", 2),
    ];
    let mut expected: BTreeSet<_> = expected
        .map(|(route, class, count)| {
            format!("\"{ORIGIN}\",route=\"{route}\",status_class=\"{class}\"}} {count}")
        })
        .into();
    expected.insert("\"\",route=\"\",status_class=\"4xx\"} 1".to_owned());
    // An answer is counted at its end, which may come later than the client has seen it.
    until(async || counted().await == expected).await;

    let counts = async |name: &str, route: &str| {
        let labels = format!("app=\"{ORIGIN}\",route=\"{route}\"");
        metric(gateway.admin, &format!("cloakroom_{name}_count"), &labels).await
    };
    for (route, requests, exchanges) in [
        ("/api", 5.0, 5.0),
        ("/api/away", 1.0, 1.0),
        ("/own", 1.0, 0.0),
        ("/files", 1.0, 0.0),
        ("", 2.0, 0.0),
    ] {
        assert_eq!(counts("request_duration_seconds", route).await, requests, "{route}");
        assert_eq!(counts("upstream_duration_seconds", route).await, exchanges, "{route}");
    }
}

#[tokio::test]
async fn a_request_lasts_until_its_answer_was_sent_and_its_upstream_until_the_answer_began() {
    let (upstream, body) = streaming("text/plain").await;
    let gateway = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url()).start().await;
    let count =
        async |name: &str| metric(gateway.admin, &format!("cloakroom_{name}_seconds_count"), "").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /", "")).await;
    assert_eq!(wire.reply_head().await.status, 200);
    assert_eq!((count("upstream_duration").await, count("request_duration").await), (1.0, 0.0));
    drop(body);
    until(async || count("request_duration").await == 1.0).await;
}

#[tokio::test]
async fn nobody_makes_labels_up() {
    let upstream = Upstream::start().await;
    let gateway = Setup::new(NO_ISSUER).for_anybody("/api", &upstream.url()).start().await;
    let series = async |gateway: &Gateway| scrape(gateway.admin).await.lines().count();
    let known = ["GET /api", "GET /elsewhere", "GET /bff/session", "GET /bff/nothing"];
    let answered = async || metric(gateway.admin, "cloakroom_requests_total", "").await;
    for request in known {
        ask(gateway.address, head(request, "X-CSRF: 1\r\n")).await;
    }
    ask(gateway.address, "GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n").await;
    until(async || answered().await == 5.0).await;
    let before = series(&gateway).await;
    for number in 0..20 {
        for request in known {
            ask(gateway.address, head(&format!("{request}/{number}?{number}"), "X-CSRF: 1\r\n")).await;
        }
        ask(gateway.address, head(&format!("BREW{number} /api"), "")).await;
        ask(gateway.address, format!("GET / HTTP/1.1\r\nHost: {number}.elsewhere.test\r\n\r\n")).await;
    }
    until(async || answered().await == 125.0).await;
    assert_eq!(series(&gateway).await, before);
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let gateway = Setup::new(NO_ISSUER).for_anybody("/", "http://127.0.0.1:9").start().await;
    let open = async || metric(gateway.admin, "cloakroom_open_connections", "").await;
    assert_eq!(open().await, 0.0, "those to the admin listener are none of the clients'");
    let connections = [Wire::connect(gateway.address).await, Wire::connect(gateway.address).await];
    until(async || open().await == 2.0).await;
    drop(connections);
    until(async || open().await == 0.0).await;
}

#[tokio::test]
async fn what_is_refused_as_too_much_is_counted_by_its_limit() {
    for (limits, limit) in
        [("connections: 1", "connections"), ("connections_per_client: 1", "connections_per_client")]
    {
        let mut setup = Setup::new(NO_ISSUER).for_anybody("/", "http://127.0.0.1:9");
        limits.clone_into(&mut setup.limits);
        let gateway = setup.start().await;
        let label = format!("limit=\"{limit}\"");
        let refused = async || metric(gateway.admin, "cloakroom_overload_refusals_total", &label).await;
        let _open = Wire::connect(gateway.address).await;
        until(async || metric(gateway.admin, "cloakroom_open_connections", "").await == 1.0).await;
        assert_eq!(refused().await, 0.0);
        let _refused = Wire::connect(gateway.address).await;
        until(async || refused().await == 1.0).await;
    }
}

#[tokio::test]
async fn it_is_told_which_issuers_and_which_servers_are_there() {
    let (mut issuer, upstream, nobody) = (Issuer::start().await, Upstream::start().await, Reserved::new());
    let (url, nobody) = (issuer.url(), nobody.address());
    let upstream_keys =
        format!("{{url: \"http://orders.internal\", addresses: [\"{}\", \"{nobody}\"]}}", upstream.address);
    let route = format!("path: /, upstream: {upstream_keys}, auth: none");
    let gateway = Setup::new(&url).route(&route).start().await;
    let up = async |name: &str, label: &str| {
        let scrape = scrape(gateway.admin).await;
        let line = scrape.lines().find(|line| line.starts_with(name) && line.contains(label));
        line.map(|line| line.ends_with(" 1"))
    };
    until(async || up("cloakroom_issuer_up{", &url).await == Some(true)).await;
    let is_up = async |address: SocketAddr| {
        up("cloakroom_upstream_server_up{", &format!("route=\"/\",server=\"{address}\"")).await
    };
    assert_eq!((is_up(upstream.address).await, is_up(nobody).await), (Some(true), Some(true)));
    until(async || {
        assert_eq!(ask(gateway.address, head("GET /", "")).await.status, 200);
        is_up(nobody).await == Some(false)
    })
    .await;
    assert_eq!(is_up(upstream.address).await, Some(true));

    issuer.stop().await;
    let gateway = Setup::new(&url).for_anybody("/", &upstream.url()).start().await;
    let told = format!("cloakroom_issuer_up{{issuer=\"{url}\"}} 0");
    until(async || scrape(gateway.admin).await.contains(&told)).await;
}

#[tokio::test]
async fn it_is_told_when_the_certificate_ends_and_again_once_it_is_replaced() {
    let authority = Authority::new();
    let [first, second] = [3, 5].map(|days| authority.issue(&format!("for-{days}"), "DNS:localhost", days));
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", "http://127.0.0.1:9");
    let (certificate, key) = (first.certificate.display(), first.key.display());
    setup.server = format!("tls: {{certificate: \"{certificate}\", private_key: \"{key}\"}}");
    let gateway = setup.start().await;
    let end = async || {
        let name = format!("cloakroom_certificate_expiry_timestamp_seconds{{certificate=\"{certificate}\"}}");
        metric(gateway.admin, &name, "").await
    };
    let in_days = |days: f64| {
        let now = f64::from(u32::try_from(SystemClock.now().as_secs()).unwrap());
        now + (days - 1.0) * 86_400.0..now + (days + 1.0) * 86_400.0
    };
    let is_of_first = end().await;
    assert!(in_days(3.0).contains(&is_of_first), "{is_of_first}");
    // One after the other, and in between they do not belong together.
    fs::copy(&second.key, &first.key).unwrap();
    fs::copy(&second.certificate, &first.certificate).unwrap();
    until(async || in_days(5.0).contains(&end().await)).await;
}
