//! Everything once, at the level that logs most: no secret is in anything that the program writes or shows to operators, nor
//! in what it refuses (R62).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, HOST, SET_COOKIE};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::browser::{Answer, Browser, exchange, post_form};
use crate::support::certificates::{Authority, Certificate};
use crate::support::gateway::{AUDIT_KEY, GatewayProcess, SESSION_COOKIE, SESSION_KEY, Setup};
use crate::support::issuer::{CLIENT_SECRET, Endpoint, Fault, Issuer, Signature};
use crate::support::redis::Redis;
use crate::support::secrets::{keys_of_logins, that_passed};
use crate::support::upstream::{Arrived, Upstream, full, status};
use crate::support::wait::{in_time, until};

const SCRIPT: [(&str, &str); 1] = [("x-csrf", "1")];
const IN_A_BODY: &str = "canary-in-a-body-and-a-query-1234567890";
const IN_A_FIELD: &str = "canary-in-a-field-of-the-request-1234567890";
const IN_A_FILE: &str = "canary-in-a-file-that-is-no-certificate-1234567890";
const FROM_THE_ISSUER: &str = "canary_of_an_issuer_that_says_too_much";

/// A gateway that logs all it can, its neighbours, and all that was seen of it.
struct Scene {
    issuer: Issuer,
    upstream: Upstream,
    redis: Redis,
    gateway: GatewayProcess,
    browser: Browser,
    folder: tempfile::TempDir,
    /// What refusals said, and what operators were shown.
    shown: Vec<String>,
    canaries: BTreeSet<String>,
}

impl Scene {
    async fn open() -> Self {
        let issuer = Issuer::start().await;
        // It sends the token back in whatever it can.
        let upstream = Upstream::answering(|arrived: &Arrived| {
            let token = arrived.headers.get("authorization").map_or("", |value| value.to_str().unwrap());
            let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{token}\"");
            match arrived.target.as_str() {
                "/api/refused" => status(401, &[("www-authenticate", &challenge), ("x-echo", token)]),
                _ => full("{}"),
            }
        });
        let (upstream, redis) = (upstream.await, Redis::start().await);
        issuer.behave(|behaviour| {
            behaviour.takes_pushed_requests = true;
            // What is dead at once is refreshed with the next request.
            behaviour.expires_in = Some(Value::from(1));
        });
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let Certificate { certificate, key } = authority.issue("own", "DNS:gateway.test", 7);
        fs::copy(certificate, folder.path().join("own.crt")).unwrap();
        secret(folder.path(), "own.key", &fs::read_to_string(key).unwrap());
        let gateway = setup(&issuer, &upstream, folder.path()).redis(&redis.url()).start_process().await;
        let browser = Browser::new(gateway.address);
        let canaries =
            [IN_A_BODY, IN_A_FIELD, IN_A_FILE, FROM_THE_ISSUER, SESSION_KEY, AUDIT_KEY, CLIENT_SECRET];
        let canaries = canaries.map(str::to_owned).into();
        Self { issuer, upstream, redis, gateway, browser, folder, shown: Vec::new(), canaries }
    }

    /// Remembers what an answer says where it refuses, and each cookie that it sets.
    fn note(&mut self, answer: &Answer) -> u16 {
        for field in answer.headers.get_all(SET_COOKIE) {
            let value = field.to_str().unwrap().split(['=', ';']).nth(1).unwrap();
            self.canaries.extend((!value.is_empty()).then(|| value.to_owned()));
        }
        if answer.status.is_client_error() || answer.status.is_server_error() {
            let fields = answer.headers.iter().filter(|(name, _)| *name != SET_COOKIE);
            let fields: Vec<_> = fields.map(|field| format!("{field:?}")).collect();
            self.shown.push(format!("{} {}", fields.join(" "), answer.text()));
        }
        for name in self.browser.cookie_names() {
            self.canaries.extend(self.browser.cookie(&name));
        }
        answer.status.as_u16()
    }

    async fn fetch(&mut self, target: &str) -> u16 {
        let answer = in_time(self.browser.fetch(target)).await;
        self.note(&answer)
    }

    async fn post(&mut self, target: &str) -> Answer {
        let answer = in_time(self.browser.script(Method::POST, target, &SCRIPT, "")).await;
        self.note(&answer);
        answer
    }

    async fn log_in(&mut self) {
        let answer = self.browser.visit("/bff/login?return_to=/").await;
        self.note(&answer);
        self.canaries.extend(keys_of_logins(&self.browser));
        let answer = self.browser.navigate("/bff/login?return_to=/").await;
        self.note(&answer);
        assert!(self.browser.session_cookie().is_some(), "{}", answer.text());
        self.canaries.extend(self.issuer.living_refresh_tokens());
    }

    async fn ask_admin(&mut self, method: Method, path: &str) {
        let request = Request::builder().method(method).uri(path).header(HOST, "admin");
        let (_, _, body) = exchange(self.gateway.admin, request.body(Full::default()).unwrap()).await;
        self.shown.push(String::from_utf8(body.to_vec()).unwrap());
    }

    fn has_logged(&self, event: &str) -> bool {
        self.gateway.has_logged(event)
    }
}

fn setup(issuer: &Issuer, upstream: &Upstream, folder: &Path) -> Setup {
    let mut setup = Setup::new(&issuer.url())
        .for_users("/api", &upstream.url())
        .for_users("/dead", "http://127.0.0.1:9")
        .route(&format!(
            "path: /exchanged, upstream: \"{}\", token: {{exchange: {{audience: stock}}}}",
            upstream.url()
        ))
        .route(&format!("path: /proved, upstream: \"{}\", dpop: true", upstream.url()))
        .route(&format!(
            "path: /own, upstream: \"{}\", token: client_credentials, auth: none",
            upstream.url()
        ))
        .for_anybody("/", &upstream.url());
    let own = folder.join("own").display().to_string();
    setup.add_route(&format!(
        "path: /away, upstream: {{url: \"https://localhost:9\", tls: {{certificate: {own}.crt, private_key: {own}.key}}}}"
    ));
    setup.oidc += "\ntimeout: 2s\ndpop_bound_access_tokens: true\npushed_authorization_requests: required\n\
                   device_authorization: true\nintrospection: {interval: 30s}";
    setup.further_apps =
        format!("    shared_signals: {{transmitter: \"{}\", audience: shop}}\n", issuer.url());
    setup.keys = format!("[{{file: {}}}]", secret(folder, "session-key", SESSION_KEY));
    setup.telemetry = format!(
        "telemetry: {{log: {{level: trace}}, audit: {{key: {{file: {}}}}}}}\n",
        secret(folder, "audit-key", AUDIT_KEY)
    );
    setup
}

fn secret(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn r62_whatever_happens_no_secret_is_written_or_shown_anywhere() {
    let mut scene = Scene::open().await;
    sessions(&mut scene).await;
    issuer_in_trouble(&mut scene).await;
    calls_of_servers(&mut scene).await;
    operators(&mut scene).await;
    store_in_trouble(&mut scene).await;

    let Scene { issuer, upstream, gateway, browser, mut canaries, mut shown, .. } = scene;
    canaries.extend(that_passed(&issuer, &upstream, &browser.visited));
    canaries.extend(upstream.arrived().iter().filter_map(|arrived| {
        let value = arrived.headers.get("authorization")?.to_str().unwrap();
        Some(value.split_once(' ').unwrap().1.to_owned())
    }));
    canaries.extend(issuer.received().into_iter().flat_map(|request| {
        let secrets = ["subject_token", "device_code", "client_assertion", "code_challenge", "request_uri"];
        request
            .form
            .into_iter()
            .filter(move |(name, _)| secrets.contains(&name.as_str()))
            .map(|(_, value)| value)
    }));
    // The beginning of each JWT, whichever member comes first. Less of it comes about in random names.
    canaries.extend(["eyJhbGci", "eyJ0eXAi", "eyJraWQi"].map(str::to_owned));
    assert!(canaries.len() > 60, "{}", canaries.len());
    gateway.signal("TERM");
    let (code, log, output) = gateway.ended_with_accesses().await;
    assert_eq!(code, Some(0));
    for event in
        ["login.succeeded", "refresh.refused", "backchannel.refused", "revocation.missed", "signals.refused"]
    {
        assert!(log.iter().any(|line| line.contains(event)), "{event}: {log:#?}");
    }
    assert!(output.iter().any(|line| line.contains("\"audit\":true")), "{output:#?}");
    assert!(output.iter().any(|line| line.contains("\"event\":\"access\"")), "{output:#?}");
    shown.extend(log.into_iter().chain(output));
    let leaked = leaked(&shown, &canaries);
    assert!(leaked.is_empty(), "{} secrets: {leaked:#?}", leaked.len());
}

/// Logins of each kind, refreshes, exchanged and proved tokens, refusals and a logout.
async fn sessions(scene: &mut Scene) {
    scene.log_in().await;
    let fields = [SCRIPT[0], ("authorization", &format!("Bearer {IN_A_FIELD}")), ("x-api-key", IN_A_FIELD)];
    while scene.issuer.token_requests("refresh_token") == 0 {
        let answer =
            scene.browser.script(Method::POST, &format!("/api/x?key={IN_A_BODY}"), &fields, IN_A_BODY).await;
        scene.note(&answer);
    }
    scene.issuer.behave(|behaviour| behaviour.expires_in = Some(Value::from(300)));
    scene.fetch("/api/orders").await;
    for target in ["/exchanged", "/proved", "/own", "/dead", "/bff/session", "/api/refused", "/api//x"] {
        scene.fetch(target).await;
    }
    scene.fetch(&format!("/bff/callback?code={IN_A_BODY}&state={IN_A_BODY}")).await;
    let answer = scene.browser.visit(&format!("/bff/callback?error={IN_A_BODY}&state={IN_A_BODY}")).await;
    scene.note(&answer);

    let cookie = scene.browser.session_cookie().unwrap();
    let mut thief = Browser::new(scene.gateway.address);
    for made_up in [&format!("{}x", &cookie[..cookie.len() - 1]), &foreign(&cookie), IN_A_FIELD] {
        thief.plant(SESSION_COOKIE, made_up);
        let answer = thief.fetch("/api/x").await;
        scene.canaries.insert(made_up.to_owned());
        scene.note(&answer);
    }
    scene.canaries.extend(scene.issuer.living_refresh_tokens());
    scene.issuer.fail_once(Endpoint::Revoke, Fault::error(503, "temporarily_unavailable"));
    scene.post("/bff/logout").await;

    let code = scene.post("/bff/device").await.json()["user_code"].clone();
    scene.issuer.approve_device(&code);
    until(async || scene.post("/bff/device/poll").await.json()["status"] == "authenticated").await;
    scene.fetch("/api/orders").await;
    scene.canaries.extend(scene.issuer.living_refresh_tokens());
    scene.post("/bff/logout").await;
}

/// The same cookie under another key.
fn foreign(cookie: &str) -> String {
    let mut sealed = URL_SAFE_NO_PAD.decode(cookie).unwrap();
    sealed[3] ^= 1;
    URL_SAFE_NO_PAD.encode(sealed)
}

/// It sends back what it was sent, where an error is to be.
async fn issuer_in_trouble(scene: &mut Scene) {
    scene.issuer.behave(|behaviour| behaviour.expires_in = Some(Value::from(1)));
    for number in 0..9 {
        scene.log_in().await;
        let token = scene.issuer.living_refresh_tokens().pop().unwrap();
        scene.canaries.insert(token.clone());
        let echo = |status, error: &str| {
            Fault::json(
                status,
                json!({"error": error, "error_description": token, "error_uri": CLIENT_SECRET}),
            )
        };
        let fault = match number {
            0 => echo(400, &token),
            1 => echo(400, CLIENT_SECRET),
            2 => Fault::invalid_grant(),
            3 => Fault::text(400, "text/plain", &token),
            4 => Fault::text(200, "application/json", &format!("{{\"access_token\": \"{token}")),
            5 => Fault::json(200, json!({"access_token": token, "token_type": token})),
            6 => Fault::json(200, json!({"access_token": format!("{token}\n"), "token_type": "DPoP"})),
            7 => echo(503, &token),
            _ => Fault::ResetAfter,
        };
        scene.issuer.fail_once(Endpoint::Token, fault);
        let before = scene.issuer.token_requests("refresh_token");
        until(async || {
            scene.fetch("/api/orders").await;
            scene.issuer.token_requests("refresh_token") > before
        })
        .await;
    }
    // Of a login: the code is sent back, and an ID token that is no good.
    for fault in [Fault::error(400, "invalid_grant"), Fault::text(400, "text/plain", IN_A_BODY)] {
        scene.issuer.fail_once(Endpoint::Token, fault);
        let mut browser = Browser::new(scene.gateway.address);
        let answer = browser.navigate("/bff/login?return_to=/").await;
        scene.note(&answer);
    }
    scene.issuer.tamper(|draft| draft.signature = Signature::Foreign);
    let mut browser = Browser::new(scene.gateway.address);
    let answer = browser.navigate("/bff/login?return_to=/").await;
    scene.note(&answer);
    scene.issuer.tamper(|_| {});
    scene.issuer.fail_once(Endpoint::Push, Fault::error(400, "invalid_request"));
    let answer = scene.browser.visit("/bff/login?login_hint=canary-in-a-body-and-a-query-1234567890").await;
    scene.note(&answer);
    scene.issuer.behave(|behaviour| behaviour.expires_in = Some(Value::from(300)));
}

/// Logout tokens and security events, good and bad.
async fn calls_of_servers(scene: &mut Scene) {
    scene.log_in().await;
    let bad = scene.issuer.logout_token(|draft| draft.signature = Signature::Foreign);
    let good = scene.issuer.logout_token(|_| {});
    for token in [bad, good.clone(), good] {
        let form = format!("logout_token={token}");
        let answer = post_form(scene.gateway.address, "/bff/backchannel-logout", &form).await;
        scene.note(&answer);
        scene.canaries.insert(token);
    }
    scene.log_in().await;
    let bad = scene.issuer.security_event("shop", |draft| draft.signature = Signature::Foreign);
    let good = scene.issuer.security_event("shop", |_| {});
    for token in [bad, good] {
        let request = Request::post("/bff/security-events")
            .header(HOST, "shop.test")
            .header(CONTENT_TYPE, "application/secevent+jwt")
            .body(Full::from(token.clone()));
        let (_, _, body) = exchange(scene.gateway.address, request.unwrap()).await;
        scene.shown.push(String::from_utf8(body.to_vec()).unwrap());
        scene.canaries.insert(token);
    }
}

async fn operators(scene: &mut Scene) {
    scene.log_in().await;
    for path in ["/metrics", "/readyz", "/livez", "/", "/sessions?sub=alice", "/sessions?sub=alice&sid=x"] {
        scene.ask_admin(Method::GET, path).await;
    }
    scene.ask_admin(Method::DELETE, "/sessions?sub=alice").await;
    // Keys are replaced under a running gateway, by nonsense too.
    secret(scene.folder.path(), "own.key", IN_A_FILE);
    until(async || scene.has_logged("files.refused")).await;
    let authority = Authority::new();
    let Certificate { certificate, key } = authority.issue("own", "DNS:gateway.test", 7);
    fs::copy(certificate, scene.folder.path().join("own.crt")).unwrap();
    let key = fs::read_to_string(key).unwrap();
    secret(scene.folder.path(), "own.key", &key);
    scene.canaries.extend(key.lines().nth(1).map(str::to_owned));
    until(async || scene.has_logged("files.replaced")).await;
}

/// It says no to what it is asked, with what it was asked.
async fn store_in_trouble(scene: &mut Scene) {
    scene.log_in().await;
    scene.redis.command::<String>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    scene.fetch("/bff/login").await;
    let mut browser = Browser::new(scene.gateway.address);
    let answer = browser.navigate("/bff/login?return_to=/").await;
    scene.note(&answer);
    assert!(!scene.has_logged(IN_A_BODY));
    scene.redis.command::<String>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    // Renamed commands: the error has the arguments in it.
    let renamed = || {
        let names = ["EVAL", "EVALSHA", "SET", "HMGET", "HDEL"];
        names.iter().flat_map(|name| ["--rename-command", name, ""]).map(str::to_owned).collect()
    };
    let strange = Redis::start_with(renamed).await;
    let mut setup = setup(&scene.issuer, &scene.upstream, scene.folder.path()).redis(&strange.url());
    setup.keys = "[{env: SESSION_KEY}]".to_owned();
    let other = setup.start_process().await;
    let mut browser = Browser::new(other.address);
    let answer = browser.navigate("/bff/login?return_to=/").await;
    assert_eq!(scene.note(&answer), 503);
    browser.plant(SESSION_COOKIE, &scene.browser.session_cookie().unwrap());
    let answer = browser.fetch("/api/orders").await;
    assert_eq!(scene.note(&answer), 503);
    other.signal("TERM");
    let (_, log, output) = other.ended_with_accesses().await;
    assert!(log.iter().any(|line| line.contains("store-unavailable")), "{log:#?}");
    scene.shown.extend(log.into_iter().chain(output));
}

/// Each secret that is in what was written, with the first line that has it: the whole of it, or any part that is long
/// enough to know.
fn leaked(lines: &[String], canaries: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for canary in canaries {
        let parts = canary.as_bytes().chunks(16).filter(|part| part.len() >= canary.len().min(16));
        let parts: Vec<_> = parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        let line = lines.iter().find(|line| parts.iter().any(|part| line.contains(part)));
        found.extend(line.map(|line| (canary.clone(), line.clone())));
    }
    found
}
