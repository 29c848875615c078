//! The audit trail: each event once, the same name for the same user, and never an identity.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cloakroom::error::LoginFailure;
use cloakroom::session::Cause;
use cloakroom::telemetry::audit::Event;
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::Full;
use serde_json::Value;
use sha2::Sha256;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::browser::{Browser, admin, exchange, post_form};
use crate::support::gateway::{AUDIT_KEY, Gateway, NO_ISSUER, ORIGIN, SESSION_COOKIE, Setup, program};
use crate::support::issuer::{Endpoint, Fault, Signature};
use crate::support::port::Reserved;
use crate::support::shop::{Shop, arrive};
use crate::support::wait::{in_time, until};
use crate::support::wire::{ask, head};

const SCRIPT: [(&str, &str); 1] = [("x-csrf", "1")];

/// A shop that keeps a trail.
struct Scene {
    shop: Shop,
    file: PathBuf,
    _folder: TempDir,
    /// How many lines were looked at.
    seen: usize,
}

impl Scene {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.log");
        let shop = Shop::open_with(|issuer, setup| {
            let upstream = setup.upstream();
            setup.add_route(&format!(
                "path: /scoped, upstream: \"{upstream}\", required_scopes: [admin], csrf: off"
            ));
            setup.add_route(&format!(
                "path: /limited, upstream: \"{upstream}\", rate_limits: [{{requests: 1, per: 1m, by: session}}]"
            ));
            setup.oidc += "\ndevice_authorization: true";
            setup.further_apps =
                format!("    shared_signals: {{transmitter: \"{}\", audience: shop}}\n", issuer.url());
            setup.telemetry =
                format!("telemetry: {{audit: {{key: {{env: AUDIT_KEY}}, file: {}}}}}\n", file.display());
        });
        Self { shop: shop.await, file, _folder: folder, seen: 0 }
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What was noted since the last time: these events, each once, whatever their order. With an event stands its
    /// reason, or else its kind.
    async fn noted(&mut self, expected: &[(&str, &str)]) -> Vec<Value> {
        until(async || self.lines().len() >= self.seen + expected.len()).await;
        let lines = self.lines().split_off(self.seen);
        self.seen += lines.len();
        let mut found: Vec<_> = lines.iter().map(|line| (text(line, "event"), word(line))).collect();
        let mut expected: Vec<_> =
            expected.iter().map(|(event, word)| ((*event).to_owned(), (*word).to_owned())).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{lines:#?}");
        lines
    }

    async fn user(&mut self) -> Browser {
        let browser = self.shop.user().await;
        let begun = [("login.begun", "authorization_code"), ("login.succeeded", "authorization_code")];
        self.noted(&begun).await;
        browser
    }
}

fn text(line: &Value, name: &str) -> String {
    line[name].as_str().unwrap_or_default().to_owned()
}

fn word(line: &Value) -> String {
    let reason = text(line, "reason");
    if reason.is_empty() { text(line, "kind") } else { reason }
}

/// As docs/audit.md tells an auditor to make it.
fn name(kind: &str, value: &str) -> String {
    let mut hash = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(AUDIT_KEY).unwrap()).unwrap();
    hash.update(format!("{kind}:{value}").as_bytes());
    format!("{:x}", Bytes::copy_from_slice(&hash.finalize().into_bytes()[..16]))
}

async fn call(gateway: &Gateway, method: Method, path: &str) -> u16 {
    let request = http::Request::builder().method(method).uri(path).header(HOST, "admin");
    exchange(gateway.admin, request.body(Full::default()).unwrap()).await.0.as_u16()
}

async fn push_event(gateway: &Gateway, token: String) -> u16 {
    let request = http::Request::post("/bff/security-events")
        .header(HOST, "shop.test")
        .header(CONTENT_TYPE, "application/secevent+jwt");
    exchange(gateway.address, request.body(Full::from(token)).unwrap()).await.0.as_u16()
}

#[tokio::test]
async fn each_way_through_a_session_is_noted_once_under_the_same_names_and_without_an_identity() {
    let mut scene = Scene::open().await;
    logins(&mut scene).await;
    refreshes(&mut scene).await;
    endings(&mut scene).await;
    refusals(&mut scene).await;
    floods(&mut scene).await;

    let lines = scene.lines();
    let mut fields = BTreeMap::<String, BTreeSet<String>>::new();
    for line in &lines {
        let members = line.as_object().unwrap();
        fields.entry(text(line, "event")).or_default().extend(members.keys().cloned());
        assert_eq!(line["audit"], true);
        if let Some(user) = line.get("user") {
            assert_eq!(*user, name("user", "alice"), "{line}");
        }
    }
    let of_login = lines.iter().find(|line| line["event"] == "login.succeeded").unwrap();
    for member in ["request_id", "client", "issuer", "user", "issuer_session", "session"] {
        assert!(of_login[member].is_string(), "{member}: {of_login}");
    }
    assert_eq!((&of_login["client"], &of_login["app"]), (&"127.0.0.1".into(), &ORIGIN.into()));
    let written = fs::read_to_string(&scene.file).unwrap();
    for identity in ["alice", "Alice", "sid-", &scene.shop.issuer.last_sid()] {
        assert!(!written.contains(identity), "{identity} is in the trail");
    }
    assert_eq!(fields, documented(), "left the trail, right the table of docs/audit.md");
    let names: BTreeSet<_> = Event::ALL.iter().map(|event| event.as_str().to_owned()).collect();
    assert_eq!(names, fields.into_keys().collect::<BTreeSet<_>>());
}

async fn logins(scene: &mut Scene) {
    scene.user().await;
    scene.shop.issuer.behave(|behaviour| behaviour.authorization_error = Some("access_denied".to_owned()));
    let mut browser = scene.shop.browser();
    let callback = scene.shop.begin(&mut browser, "return_to=/shop").await;
    arrive(&mut browser, &callback).await;
    scene.noted(&[("login.begun", "authorization_code"), ("login.failed", "denied")]).await;
    scene.shop.issuer.behave(|behaviour| behaviour.authorization_error = None);

    let code = browser.script(Method::POST, "/bff/device", &SCRIPT, "").await.json()["user_code"].clone();
    scene.shop.issuer.approve_device(&code);
    scene.shop.clock.advance(Duration::from_secs(5));
    let answer = browser.script(Method::POST, "/bff/device/poll", &SCRIPT, "").await;
    assert_eq!(answer.json()["status"], "authenticated");
    scene.noted(&[("login.begun", "device_code"), ("login.succeeded", "device_code")]).await;
    // Whoever logs in again in the same browser ends the session before.
    browser.log_in("/shop").await;
    let again = [
        ("login.begun", "authorization_code"),
        ("login.succeeded", "authorization_code"),
        ("session.ended", "replaced"),
        // Another login at the issuer, as its `sid` says.
        ("revocation.done", "refresh_token"),
        ("revocation.done", "access_token"),
    ];
    let lines = scene.noted(&again).await;
    let session = |event: &str| text(lines.iter().find(|line| line["event"] == event).unwrap(), "session");
    assert_ne!(session("login.succeeded"), session("session.ended"));
}

async fn refreshes(scene: &mut Scene) {
    let mut browser = scene.user().await;
    scene.shop.clock.advance(Duration::from_secs(400));
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    scene.noted(&[("refresh.succeeded", "access_token")]).await;
    scene.shop.issuer.fail_once(Endpoint::Token, Fault::invalid_grant());
    scene.shop.clock.advance(Duration::from_secs(400));
    assert_eq!(browser.fetch("/api/orders").await.problem(), "session-ended");
    let ended = [
        ("refresh.refused", "invalid_grant"),
        ("session.ended", "invalid_grant"),
        ("revocation.done", "refresh_token"),
        ("revocation.done", "access_token"),
    ];
    let lines = scene.noted(&ended).await;
    assert!(lines.iter().all(|line| line["user"] == name("user", "alice") && line["request_id"].is_string()));
}

async fn endings(scene: &mut Scene) {
    let revoked = [("revocation.done", "refresh_token"), ("revocation.done", "access_token")];
    let ended = |cause: &'static str| [[("session.ended", cause)].as_slice(), &revoked].concat();
    // Those of before were left open, and end all at once.
    assert_eq!(call(&scene.shop.gateway, Method::DELETE, "/sessions?sub=alice").await, 200);
    scene.noted(&[ended("admin"), ended("admin")].concat()).await;

    let mut browser = scene.user().await;
    let cookie = browser.session_cookie().unwrap();
    browser.submit("/bff/logout").await;
    let lines = scene.noted(&ended("logout")).await;
    let session = text(lines.iter().find(|line| line["event"] == "session.ended").unwrap(), "session");
    browser.plant(SESSION_COOKIE, &cookie);
    browser.fetch("/api/orders").await;
    let lines = scene.noted(&[("request.refused", "session-over")]).await;
    assert_eq!(lines[0]["session"], session, "it can be followed to its end");

    scene.user().await;
    let token = scene.shop.issuer.logout_token(|_| {});
    post_form(scene.shop.gateway.address, "/bff/backchannel-logout", &format!("logout_token={token}")).await;
    scene.noted(&ended("backchannel")).await;

    scene.user().await;
    let (issuer, sid) = (scene.shop.issuer.url(), scene.shop.issuer.last_sid());
    scene.shop.bare(Method::GET, &format!("/bff/frontchannel-logout?iss={issuer}&sid={sid}"), &[]).await;
    scene.noted(&ended("frontchannel")).await;

    scene.user().await;
    let event = scene.shop.issuer.security_event("shop", |_| {});
    assert_eq!(push_event(&scene.shop.gateway, event).await, 202);
    scene.noted(&ended("shared-signals")).await;

    scene.user().await;
    admin(scene.shop.gateway.admin, "/sessions?sub=alice").await;
    let lines = scene.noted(&[("sessions.listed", "")]).await;
    assert_eq!((&lines[0]["count"], &lines[0]["user"]), (&1.into(), &name("user", "alice").into()));
    // An issuer that refuses for good is asked no more.
    scene.shop.issuer.fail(Endpoint::Revoke, Fault::error(400, "unauthorized_client"));
    assert_eq!(call(&scene.shop.gateway, Method::DELETE, "/sessions?sub=alice").await, 200);
    let refused = ("revocation.given_up", "refused");
    scene.noted(&[("session.ended", "admin"), refused, refused]).await;
    scene.shop.issuer.heal(Endpoint::Revoke);
}

async fn refusals(scene: &mut Scene) {
    let mut browser = scene.user().await;
    assert_eq!(browser.script(Method::GET, "/api/orders", &[], "").await.status, 403);
    let lines = scene.noted(&[("request.refused", "csrf")]).await;
    assert_eq!(lines[0]["user"], name("user", "alice"), "whose session it would have used");
    assert_eq!(browser.fetch("/scoped").await.status, 403);
    scene.noted(&[("request.refused", "forbidden")]).await;
    assert_eq!(browser.fetch("/limited").await.status, 200);
    assert_eq!(browser.fetch("/limited").await.status, 429);
    scene.noted(&[("request.refused", "rate-limited")]).await;

    let mut thief = scene.shop.browser();
    thief.plant(SESSION_COOKIE, "made-up");
    assert_eq!(thief.fetch("/api/orders").await.status, 401);
    let lines = scene.noted(&[("request.refused", "unknown-cookie")]).await;
    assert_eq!(lines[0].get("user"), None);
    assert_eq!(scene.shop.browser().fetch("/api/orders").await.status, 401);
    scene.noted(&[]).await;

    let bad = scene.shop.issuer.logout_token(|draft| draft.signature = Signature::Foreign);
    post_form(scene.shop.gateway.address, "/bff/backchannel-logout", &format!("logout_token={bad}")).await;
    scene.noted(&[("request.refused", "logout-token")]).await;
    let bad = scene.shop.issuer.security_event("shop", |draft| draft.signature = Signature::Foreign);
    assert_eq!(push_event(&scene.shop.gateway, bad).await, 400);
    scene.noted(&[("request.refused", "security-event")]).await;
}

/// The clock stands still: all come within one second.
async fn floods(scene: &mut Scene) {
    scene.shop.clock.advance(Duration::from_secs(1));
    // The cookie is taken back each time.
    let mut thief = scene.shop.browser();
    for _ in 0..120 {
        thief.plant(SESSION_COOKIE, "made-up");
        thief.fetch("/api/orders").await;
    }
    scene.noted(&[("request.refused", "unknown-cookie"); 100]).await;
    scene.user().await;
    scene.shop.clock.advance(Duration::from_secs(1));
    thief.plant(SESSION_COOKIE, "made-up");
    thief.fetch("/api/orders").await;
    let lines =
        scene.noted(&[("request.refused", "unknown-cookie"), ("events.suppressed", "request.refused")]).await;
    assert_eq!(lines[0]["count"], 20);
}

/// The fields of each event, by the table of docs/audit.md.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let document = fs::read_to_string("docs/audit.md").unwrap();
    let (_, table) = document.split_once("| event |").expect("the table of events");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names =
        |cell: &str| -> BTreeSet<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let (_, always) = document.split_once("Each line has ").expect("what each line has");
    let always = names(always.lines().next().unwrap());
    let fields = |row: &str| {
        let cells: Vec<_> = row.split('|').collect();
        (names(cells[1]).pop_first().unwrap(), names(cells[3]).union(&always).cloned().collect())
    };
    rows.map(fields).collect()
}

#[test]
fn each_reason_is_documented() {
    let document = fs::read_to_string("docs/audit.md").unwrap();
    let causes = Cause::ALL.iter().map(|cause| cause.as_str());
    for reason in LoginFailure::ALL.iter().map(|failure| failure.as_str()).chain(causes) {
        assert!(document.contains(&format!("`{reason}`")), "{reason}");
    }
}

#[tokio::test]
async fn two_gateways_give_a_user_the_same_name_in_one_file() {
    let mut scene = Scene::open().await;
    scene.user().await;
    let other = scene.shop.setup.start().await;
    let mut browser = Browser::new(other.address);
    browser.log_in("/shop").await;
    let again = [("login.begun", "authorization_code"), ("login.succeeded", "authorization_code")];
    scene.noted(&again).await;
    let users: Vec<_> = scene.lines().iter().filter_map(|line| line.get("user").cloned()).collect();
    assert_eq!(users, [name("user", "alice"), name("user", "alice")]);
}

#[tokio::test]
async fn it_goes_to_standard_output_whatever_the_log_keeps_back_and_not_at_all_where_it_is_not_wanted() {
    let mut setup = Setup::new(NO_ISSUER).for_users("/api", "http://127.0.0.1:9");
    setup.server = "trusted_proxies: [\"127.0.0.1/32\"]".to_owned();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloakroom.yaml");
    for (audit, count) in [(", audit: {key: {env: AUDIT_KEY}}", 1), ("", 0)] {
        let reserved = Reserved::new();
        setup.listen = reserved.address().to_string();
        setup.telemetry =
            format!("telemetry: {{log: {{level: error, format: text}}, access_log: false{audit}}}\n");
        fs::write(&file, setup.yaml()).unwrap();
        let address = reserved.address();
        let mut command = program(&["serve", "-c", file.to_str().unwrap()]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until(async || TcpStream::connect(address).await.is_ok()).await;
        let fields = "Cookie: __Host-cloakroom=made-up\r\nX-CSRF: 1\r\nX-Forwarded-For: 203.0.113.5\r\n";
        assert_eq!(ask(address, head("GET /api", fields)).await.status, 401);
        let stop = std::process::Command::new("kill").arg(child.id().unwrap().to_string()).status();
        assert!(stop.unwrap().success());
        let output = in_time(child.wait_with_output()).await.unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "nothing is an error");
        let written = String::from_utf8(output.stdout).unwrap();
        assert_eq!(written.lines().count(), count, "{written}");
        for line in written.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["reason"], &line["client"]), (&"unknown-cookie".into(), &"203.0.113.5".into()));
        }
    }
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_followed_by_a_new_one() {
    let mut scene = Scene::open().await;
    scene.user().await;
    let moved = scene.file.with_extension("1");
    fs::rename(&scene.file, &moved).unwrap();
    until(async || scene.file.exists()).await;
    scene.seen = 0;
    scene.user().await;
    assert_eq!(fs::read_to_string(moved).unwrap().lines().count(), 2);
}
