//! Where a transmitter tells of what ends sessions: `POST security-events` (RFC 8417, RFC 8935, Shared Signals
//! Framework 1.0, CAEP 1.0, RISC 1.0).

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use url::Url;

use crate::streams::streaming;
use crate::support::browser::{Answer, Browser, exchange, metric, post_form};
use crate::support::clock::clock;
use crate::support::gateway::ORIGIN;
use crate::support::issuer::{CLIENT_ID, CLIENT_SECRET, Draft, Endpoint, Fault, Issuer, Signature};
use crate::support::shop::{Shop, bare, log_in_bare};
use crate::support::troubled_store::{Step, Trouble, TroubledStore};
use crate::support::upstream::Upstream;
use crate::support::wait::in_time;
use crate::support::wire::{Wire, head};

const TARGET: &str = "/bff/security-events";
const AUDIENCE: &str = "https://shop.test/signals";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type";

/// A shop whose issuer is a transmitter too, over a store that a second gateway can share.
struct Scene {
    shop: Shop,
    store: Arc<TroubledStore>,
}

impl Scene {
    async fn open() -> Self {
        Self::open_with("").await
    }

    /// The same, with further keys of `shared_signals`.
    async fn open_with(keys: &str) -> Self {
        let mut store = None;
        let shop = Shop::open_with(|issuer, setup| {
            setup.further_apps = format!(
                "    shared_signals: {{transmitter: \"{}\", audience: [other, \"{AUDIENCE}\"]{keys}}}\n",
                issuer.url()
            );
            let troubled = store.insert(Arc::new(TroubledStore::new(Arc::clone(&setup.clock))));
            setup.stand_in = Some(troubled.clone());
        })
        .await;
        Self { shop, store: store.unwrap() }
    }

    fn event(&self, change: impl FnOnce(&mut Draft)) -> String {
        self.shop.issuer.security_event(AUDIENCE, change)
    }

    async fn push(&self, token: &str) -> Answer {
        push(self.shop.gateway.address, token, &[]).await
    }

    async fn tell(&self, change: impl FnOnce(&mut Draft)) -> Answer {
        self.push(&self.event(change)).await
    }

    /// Tells of this kind of event about this subject.
    async fn tell_of(&self, kind: &str, subject: Value) -> Answer {
        let tell = self.tell(|draft| {
            draft.claims["events"] = json!({kind: {}});
            draft.claims["sub_id"] = subject;
        });
        tell.await
    }

    fn alice(&self) -> Value {
        json!({"format": "iss_sub", "iss": self.shop.issuer.url(), "sub": "alice"})
    }
}

async fn push(gateway: std::net::SocketAddr, token: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::post(TARGET).header(HOST, "shop.test").header("accept", "application/json");
    if !fields.iter().any(|(name, _)| *name == "content-type") {
        request = request.header(CONTENT_TYPE, "application/secevent+jwt");
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::from(token.to_owned())).unwrap();
    let (status, headers, body) = in_time(exchange(gateway, request)).await;
    Answer { url: Url::parse(ORIGIN).unwrap().join(TARGET).unwrap(), status, headers, body }
}

#[track_caller]
fn is_accepted(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (202, ""));
    assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
}

#[track_caller]
fn is_refused(answer: &Answer, err: &str, what: &str) {
    assert_eq!(answer.status, 400, "{what}: {}", answer.text());
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json", "{what}");
    assert_eq!(answer.headers[CONTENT_LANGUAGE], "en", "{what}");
    assert_eq!(answer.json()["err"], err, "{what}");
    assert!(answer.json()["description"].is_string(), "{what}");
}

async fn is_logged_in(browser: &mut Browser) -> bool {
    browser.fetch("/bff/session").await.json()["authenticated"] == true
}

#[tokio::test]
async fn each_event_that_ends_sessions_ends_those_of_the_user_it_names_and_no_others() {
    let scene = Scene::open().await;
    let kinds = ["session-revoked", "token-claims-change"].map(|kind| format!("{CAEP}/{kind}"));
    let others =
        ["account-disabled", "account-purged", "sessions-revoked"].map(|kind| format!("{RISC}/{kind}"));
    scene.shop.issuer.behave(|behaviour| behaviour.user = json!({"sub": "bob"}));
    let mut bob = scene.shop.user().await;
    scene.shop.issuer.behave(|behaviour| behaviour.user = json!({"sub": "alice"}));
    for kind in kinds.iter().chain(&others) {
        let (mut one, mut other) = (scene.shop.user().await, scene.shop.user().await);
        is_accepted(&scene.tell_of(kind, scene.alice()).await);
        assert!(!is_logged_in(&mut one).await && !is_logged_in(&mut other).await, "{kind}");
        assert_eq!(one.fetch("/api/orders").await.problem(), "unauthenticated", "{kind}");
    }
    assert!(is_logged_in(&mut bob).await);
    scene.shop.issuer.until(|issuer| issuer.revoked().len() == 20).await;
    let ended = metric(scene.shop.gateway.admin, "cloakroom_logouts_total", "\"shared-signals\"").await;
    assert_eq!(ended, 10.0);
}

#[tokio::test]
async fn an_event_ends_no_sessions_of_an_app_that_does_not_trust_its_transmitter() {
    const DESK: &str = "https://desk.test";
    let shop = Shop::open_with(|issuer, setup| {
        let url = issuer.url();
        setup.further_apps = format!(
            "    shared_signals: {{transmitter: \"{url}\", audience: \"{AUDIENCE}\"}}\n  - origin: {DESK}\n    oidc: {{issuer: \"{url}\", client_id: \"{CLIENT_ID}\", client_auth: {{client_secret_basic: {{env: CLIENT_SECRET}}}}}}\n    routes: [{{path: /, upstream: \"http://127.0.0.1:9\"}}]\n"
        );
    })
    .await;
    let mut browser = shop.user().await;
    let answer = log_in_bare(shop.gateway.address, DESK, "/bff", &shop.issuer).await;
    let cookie = answer.set_cookies().into_iter().find(|cookie| !cookie.value().is_empty()).unwrap();
    let cookie = format!("{}={}", cookie.name(), cookie.value());
    let subject = json!({"format": "iss_sub", "iss": shop.issuer.url(), "sub": "alice"});
    let token = shop.issuer.security_event(AUDIENCE, |draft| draft.claims["sub_id"] = subject);
    is_accepted(&push(shop.gateway.address, &token, &[]).await);
    assert!(!is_logged_in(&mut browser).await);
    let fields = [("x-csrf", "1"), ("cookie", cookie.as_str())];
    let desk = bare(shop.gateway.address, DESK, Method::GET, "/bff/session", &fields).await;
    assert_eq!(desk.json()["authenticated"], true);
}

#[tokio::test]
async fn what_is_not_known_or_ends_nothing_is_accepted_and_ignored() {
    let scene = Scene::open().await;
    let mut browser = scene.shop.user().await;
    for kind in [
        format!("{CAEP}/credential-change"),
        format!("{CAEP}/assurance-level-change"),
        format!("{RISC}/account-enabled"),
        format!("{SSF}/verification"),
        format!("{SSF}/stream-updated"),
        format!("{CAEP}/session-revoked/"),
        "https://example.com/unheard-of".to_owned(),
        String::new(),
    ] {
        is_accepted(&scene.tell_of(&kind, scene.alice()).await);
        // What is not known need not be about anybody.
        is_accepted(&scene.tell_of(&kind, Value::Null).await);
    }
    let verification = scene.tell(|draft| {
        draft.claims["events"] = json!({format!("{SSF}/verification"): {"state": "VGhpcyBpcyBhbiBl"}});
        draft.claims["sub_id"] = json!({"format": "opaque", "id": "the stream's id"});
    });
    is_accepted(&verification.await);
    assert!(is_logged_in(&mut browser).await);
    let among_others = scene.tell(|draft| {
        draft.claims["events"][format!("{CAEP}/credential-change")] = json!({});
    });
    is_accepted(&among_others.await);
    assert!(!is_logged_in(&mut browser).await, "one among others that is known");
}

#[tokio::test]
async fn rfc9493_a_subject_is_known_by_the_names_that_the_issuer_gives() {
    let scene = Scene::open().await;
    let opaque = |id: &str| json!({"format": "opaque", "id": id});
    let email = json!({"format": "email", "email": "alice@example.com"});
    let alice = scene.alice();
    let subjects: Vec<fn(&Value, Value, Value) -> Value> = vec![
        |alice, _, _| alice.clone(),
        |_, sid, _| sid,
        |_, sid, _| json!({"format": "complex", "session": sid}),
        |alice, sid, _| json!({"format": "complex", "user": alice, "session": sid}),
        |alice, sid, _| json!({"user": alice, "session": sid}),
        |_, sid, email| json!({"format": "complex", "user": email, "session": sid}),
        |_, sid, _| json!({"format": "complex", "user": {"format": "opaque", "id": "alice"}, "session": sid}),
        |alice, _, _| json!({"format": "complex", "user": alice, "device": {"format": "opaque", "id": "d"}}),
        |alice, _, email| json!({"format": "aliases", "identifiers": [email, alice]}),
        |_, sid, email| json!({"format": "aliases", "identifiers": [sid, email]}),
    ];
    for subject in &subjects {
        let mut browser = scene.shop.user().await;
        let subject = subject(&alice, opaque(&scene.shop.issuer.last_sid()), email.clone());
        is_accepted(&scene.tell_of(&format!("{CAEP}/session-revoked"), subject.clone()).await);
        assert!(!is_logged_in(&mut browser).await, "{subject}");
    }
    // An account is a user's, and so is an opaque name for one.
    let mut browser = scene.shop.user().await;
    is_accepted(
        &scene.tell_of(&format!("{RISC}/account-disabled"), opaque(&scene.shop.issuer.last_sid())).await,
    );
    assert!(is_logged_in(&mut browser).await);
    is_accepted(&scene.tell_of(&format!("{RISC}/account-disabled"), opaque("alice")).await);
    assert!(!is_logged_in(&mut browser).await);
    // As drafts had it: in the event.
    let mut browser = scene.shop.user().await;
    let in_event = scene.tell(|draft| {
        draft.claims.as_object_mut().unwrap().remove("sub_id");
        draft.claims["events"] = json!({format!("{CAEP}/session-revoked"): {"subject": alice}});
    });
    is_accepted(&in_event.await);
    assert!(!is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn a_subject_that_is_somebody_else_or_known_by_other_names_alone_ends_nothing() {
    let scene = Scene::open().await;
    let mut browser = scene.shop.user().await;
    let (issuer, sid) = (scene.shop.issuer.url(), scene.shop.issuer.last_sid());
    let session = json!({"format": "opaque", "id": sid});
    for subject in [
        json!({"format": "iss_sub", "iss": issuer, "sub": "bob"}),
        json!({"format": "iss_sub", "iss": "https://evil.test", "sub": "alice"}),
        json!({"format": "iss_sub", "iss": format!("{issuer}/"), "sub": "alice"}),
        json!({"format": "opaque", "id": "alice"}),
        json!({"format": "email", "email": "alice@example.com"}),
        json!({"format": "phone_number", "phone_number": "+12065550100"}),
        json!({"format": "unheard-of", "sub": "alice"}),
        json!({"format": "complex", "tenant": {"format": "opaque", "id": "t"}}),
        json!({"format": "complex", "user": {"format": "iss_sub", "iss": issuer, "sub": "bob"}, "session": session}),
        json!({"format": "complex", "user": scene.alice(), "session": {"format": "opaque", "id": "another"}}),
        json!({"format": "complex", "user": scene.alice(),
            "session": {"format": "iss_sub", "iss": "https://evil.test", "sub": sid}}),
        json!({"format": "aliases", "identifiers": [{"format": "email", "email": "alice@example.com"}]}),
    ] {
        is_accepted(&scene.tell_of(&format!("{CAEP}/session-revoked"), subject.clone()).await);
        assert!(is_logged_in(&mut browser).await, "{subject}");
    }
    assert!(scene.shop.issuer.revoked().is_empty());
}

#[tokio::test]
async fn ssf_a_part_that_is_critical_and_not_understood_has_the_event_ignored() {
    let scene = Scene::open().await;
    scene.shop.issuer.behave(|behaviour| {
        behaviour.ssf_configuration.insert("critical_subject_members".to_owned(), json!(["tenant", "user"]));
    });
    let mut browser = scene.shop.user().await;
    let kind = format!("{CAEP}/session-revoked");
    let tenant = json!({"format": "opaque", "id": "t"});
    let subject = json!({"format": "complex", "user": scene.alice(), "tenant": tenant});
    is_accepted(&scene.tell_of(&kind, subject).await);
    assert!(is_logged_in(&mut browser).await);
    is_accepted(&scene.tell_of(&kind, json!({"format": "complex", "user": scene.alice()})).await);
    assert!(!is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn rfc8417_each_rule_of_the_token_is_needed() {
    let scene = Scene::open().await;
    let mut browser = scene.shop.user().await;
    let now = scene.shop.clock_now();
    let revoked = format!("{CAEP}/session-revoked");
    let many = vec![scene.alice(); 17];
    let cases: Vec<(&str, Value, &str)> = vec![
        ("iss", json!("https://evil.test"), "invalid_issuer"),
        ("iss", json!(format!("{}/", scene.shop.issuer.url())), "invalid_issuer"),
        ("iss", json!(null), "invalid_issuer"),
        ("aud", json!("https://another.test"), "invalid_audience"),
        ("aud", json!(["https://another.test"]), "invalid_audience"),
        ("aud", json!([]), "invalid_audience"),
        ("aud", json!({AUDIENCE: true}), "invalid_audience"),
        ("aud", json!(null), "invalid_audience"),
        ("iat", json!(now + 61), "invalid_request"),
        ("iat", json!(now - 24 * 60 * 60 - 1), "invalid_request"),
        ("iat", json!("now"), "invalid_request"),
        ("iat", json!(null), "invalid_request"),
        ("exp", json!(now - 60), "invalid_request"),
        ("exp", json!("never"), "invalid_request"),
        ("jti", json!(""), "invalid_request"),
        ("jti", json!(7), "invalid_request"),
        ("jti", json!("x".repeat(1025)), "invalid_request"),
        ("jti", json!(null), "invalid_request"),
        ("events", json!(null), "invalid_request"),
        ("events", json!({}), "invalid_request"),
        ("events", json!([revoked]), "invalid_request"),
        ("events", json!({revoked.as_str(): "alice"}), "invalid_request"),
        ("events", json!({"https://example.com/unheard-of": 7}), "invalid_request"),
        ("sub_id", json!(null), "invalid_request"),
        ("sub_id", json!("alice"), "invalid_request"),
        ("sub_id", json!({}), "invalid_request"),
        ("sub_id", json!({"sub": "alice"}), "invalid_request"),
        ("sub_id", json!({"format": 7, "id": "alice"}), "invalid_request"),
        ("sub_id", json!({"format": "iss_sub", "sub": "alice"}), "invalid_request"),
        ("sub_id", json!({"format": "iss_sub", "iss": scene.shop.issuer.url()}), "invalid_request"),
        ("sub_id", json!({"format": "iss_sub", "iss": "x", "sub": "x".repeat(256)}), "invalid_request"),
        ("sub_id", json!({"format": "opaque", "id": ""}), "invalid_request"),
        ("sub_id", json!({"format": "opaque", "id": ["alice"]}), "invalid_request"),
        ("sub_id", json!({"format": "complex"}), "invalid_request"),
        ("sub_id", json!({"format": "complex", "user": "alice", "tenant": {}}), "invalid_request"),
        ("sub_id", json!({"format": "complex", "user": {"format": "opaque"}}), "invalid_request"),
        ("sub_id", json!({"format": "aliases", "identifiers": []}), "invalid_request"),
        ("sub_id", json!({"format": "aliases", "identifiers": ["alice"]}), "invalid_request"),
        ("sub_id", json!({"format": "aliases", "identifiers": many}), "invalid_request"),
    ];
    for (name, value, err) in cases {
        let answer = scene.tell(|draft| {
            if value.is_null() {
                draft.claims.as_object_mut().unwrap().remove(name);
            } else {
                draft.claims[name] = value.clone();
            }
        });
        is_refused(&answer.await, err, &format!("{name}: {value}"));
    }
    assert!(is_logged_in(&mut browser).await, "none of them ends anything");
    for (name, value) in [
        ("aud", json!(["https://another.test", AUDIENCE])),
        ("aud", json!("other")),
        ("iat", json!(now - 24 * 60 * 60 + 1)),
        ("iat", json!(now + 59)),
        ("exp", json!(now + 1)),
        ("txn", json!(null)),
    ] {
        let mut browser = scene.shop.user().await;
        is_accepted(&scene.tell(|draft| draft.claims[name] = value.clone()).await);
        assert!(!is_logged_in(&mut browser).await, "{name}: {value}");
    }
}

#[tokio::test]
async fn r12_r18_another_kind_of_token_and_a_signature_that_is_not_the_transmitters_are_refused() {
    let scene = Scene::open().await;
    let mut browser = scene.shop.user().await;
    for typ in [json!("JWT"), json!("logout+jwt"), json!("at+jwt"), json!(""), json!(7), Value::Null] {
        let answer = scene.tell(|draft| {
            draft.header["typ"] = typ.clone();
            if typ.is_null() {
                draft.header.as_object_mut().unwrap().remove("typ");
            }
        });
        is_refused(&answer.await, "invalid_request", &format!("typ {typ}"));
    }
    for signature in [Signature::Foreign, Signature::Absent] {
        let answer = scene.tell(|draft| draft.signature = signature).await;
        is_refused(&answer, "invalid_key", &format!("{signature:?}"));
    }
    for algorithm in ["none", "HS256", "PS256", "ES384", ""] {
        let answer = scene.tell(|draft| draft.header["alg"] = json!(algorithm)).await;
        is_refused(&answer, "invalid_key", algorithm);
    }
    let confused = scene.tell(|draft| {
        draft.header["alg"] = json!("HS256");
        draft.signature = Signature::HmacOfPublicKey;
    });
    is_refused(&confused.await, "invalid_key", "signed with the public key as a secret");
    is_refused(&scene.tell(|draft| draft.header["crit"] = json!(["exp"])).await, "invalid_request", "crit");
    let twice = scene.tell(|draft| {
        let text = draft.claims.to_string();
        draft.raw_claims = Some(format!("{{\"iss\":\"x\",{}", &text[1..]));
    });
    is_refused(&twice.await, "invalid_request", "a name twice");
    let logout = scene.shop.issuer.logout_token(|draft| draft.claims["aud"] = json!(AUDIENCE));
    is_refused(&scene.push(&logout).await, "invalid_request", "a logout token");
    for token in ["", "a", "a.b", "a.b.c", "..", "eyJhbGciOiJFUzI1NiJ9.e30.x", "\u{e9}.\u{e9}.x"] {
        is_refused(&scene.push(token).await, "invalid_request", token);
    }
    is_refused(&scene.push("a.b.c.d.e").await, "invalid_key", "encrypted for nobody here");
    // And an event is no logout token, nor an ID token.
    let form = format!("logout_token={}", scene.event(|_| {}));
    let told = post_form(scene.shop.gateway.address, "/bff/backchannel-logout", &form).await;
    assert_eq!(told.status, 400);
    assert!(is_logged_in(&mut browser).await);
    scene.shop.issuer.rotate_keys();
    scene.shop.clock.advance(Duration::from_secs(11));
    is_accepted(&scene.tell(|_| {}).await);
    assert!(!is_logged_in(&mut browser).await, "new keys are fetched");
}

#[tokio::test]
async fn rfc8935_the_body_is_one_token_of_its_media_type() {
    let scene = Scene::open().await;
    let mut browser = scene.shop.user().await;
    let gateway = scene.shop.gateway.address;
    for kind in ["application/json", "application/jwt", "application/x-www-form-urlencoded", "text/plain"] {
        let answer = push(gateway, &scene.event(|_| {}), &[("content-type", kind)]).await;
        is_refused(&answer, "invalid_request", kind);
    }
    let large = format!("{}.{}", scene.event(|_| {}), "x".repeat(200 * 1024));
    assert!([400, 413].contains(&scene.push(&large).await.status.as_u16()));
    let large = scene.tell(|draft| draft.claims["padding"] = json!("x".repeat(60 * 1024))).await;
    is_refused(&large, "invalid_request", "more than any honest token has");
    assert!(is_logged_in(&mut browser).await);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = scene.shop.bare(method, TARGET, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()), (405, "POST"));
    }
    // Cookies and origins count for nothing: a server calls.
    let fields = [
        ("content-type", "Application/SecEvent+JWT; charset=utf-8"),
        ("origin", "https://evil.test"),
        ("sec-fetch-site", "cross-site"),
        ("cookie", "__Host-cloakroom=x; __Host-cloakroom=y"),
    ];
    is_accepted(&push(gateway, &scene.event(|_| {}), &fields).await);
    assert!(!is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn where_an_authorization_was_agreed_on_nothing_else_is_taken() {
    let scene = Scene::open_with(", authorization: {env: CLIENT_SECRET}").await;
    let mut browser = scene.shop.user().await;
    let gateway = scene.shop.gateway.address;
    let longer = format!("{CLIENT_SECRET}x");
    let twice = [("authorization", CLIENT_SECRET), ("authorization", CLIENT_SECRET)];
    for fields in [&[][..], &[("authorization", "Bearer x")], &[("authorization", &longer)], &twice] {
        let answer = push(gateway, &scene.event(|_| {}), fields).await;
        is_refused(&answer, "authentication_failed", &format!("{fields:?}"));
    }
    assert!(is_logged_in(&mut browser).await);
    assert!(scene.shop.issuer.received_at(Endpoint::SsfConfiguration).is_empty(), "nothing is asked for it");
    let answer = push(gateway, &scene.event(|_| {}), &[(AUTHORIZATION.as_str(), CLIENT_SECRET)]).await;
    is_accepted(&answer);
    assert!(!is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn an_app_without_a_transmitter_has_no_such_endpoint() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let token = shop.issuer.security_event(AUDIENCE, |_| {});
    let answer = push(shop.gateway.address, &token, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "not-found"));
    assert!(is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn an_event_counts_once_across_gateways_and_is_accepted_whenever_it_comes_again() {
    let scene = Scene::open().await;
    let other = scene.shop.setup.start().await;
    let token = scene.event(|_| {});
    is_accepted(&scene.push(&token).await);
    let mut browser = scene.shop.user().await;
    is_accepted(&scene.push(&token).await);
    is_accepted(&push(other.address, &token, &[]).await);
    assert!(is_logged_in(&mut browser).await, "a session that began since goes on");
    // For as long as it could be accepted.
    for _ in 0..23 {
        scene.shop.clock.advance(Duration::from_secs(60 * 60));
        browser.log_in("/shop").await;
        is_accepted(&push(other.address, &token, &[]).await);
        is_accepted(&scene.push(&token).await);
        assert!(is_logged_in(&mut browser).await);
    }
    scene.shop.clock.advance(Duration::from_secs(2 * 60 * 60));
    is_refused(&scene.push(&token).await, "invalid_request", "when it is forgotten it is too old");
}

#[tokio::test]
async fn a_session_ends_on_all_gateways_with_its_streams_and_its_tokens() {
    let (upstream, events) = streaming("text/event-stream").await;
    let clock = clock();
    let issuer = Issuer::start_with(clock.clone()).await;
    let store = Arc::new(TroubledStore::new(clock.clone()));
    let site = Upstream::start().await;
    let shop = Shop::open_among(clock, issuer, site, |issuer, setup| {
        setup.add_route(&format!("path: /events, upstream: \"{}\"", upstream.url()));
        setup.further_apps =
            format!("    shared_signals: {{transmitter: \"{}\", audience: \"{AUDIENCE}\"}}\n", issuer.url());
        setup.stand_in = Some(store.clone());
    })
    .await;
    let told = shop.setup.start().await;
    let mut browser = shop.user().await;
    let cookie = browser.session_cookie().unwrap();
    let mut wire = Wire::connect(shop.gateway.address).await;
    wire.send(head("GET /events", &format!("X-CSRF: 1\r\nCookie: __Host-cloakroom={cookie}\r\n"))).await;
    assert_eq!(wire.reply_head().await.status, 200);
    events.send(Ok("data: 1\n\n".into())).await.unwrap();
    assert_eq!(wire.chunk().await.unwrap(), b"data: 1\n\n");
    // The other gateway is told, which has had it open too and revokes it.
    browser.switch_to(told.address);
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    is_accepted(&push(told.address, &shop.issuer.security_event(AUDIENCE, |_| {}), &[]).await);
    assert_eq!(in_time(wire.chunk()).await, None);
    in_time(events.closed()).await;
    assert!(!is_logged_in(&mut browser).await);
    shop.issuer.until(|issuer| issuer.revoked().len() == 2).await;
}

#[tokio::test]
async fn while_the_store_is_away_the_transmitter_is_told_so_and_its_next_try_is_good() {
    for step in [Step::IsClaimed, Step::List, Step::Take] {
        let scene = Scene::open().await;
        let mut browser = scene.shop.user().await;
        let token = scene.event(|_| {});
        scene.store.begin(step, Trouble::Fails);
        let answer = scene.push(&token).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (503, "store-unavailable"),
            "{step:?}"
        );
        assert!(answer.headers.contains_key(RETRY_AFTER));
        scene.store.end();
        is_accepted(&scene.push(&token).await);
        assert!(!is_logged_in(&mut browser).await, "{step:?}");
    }
    let scene = Scene::open().await;
    let mut browser = scene.shop.user().await;
    scene.store.begin(Step::Claim, Trouble::Fails);
    is_accepted(&scene.tell(|_| {}).await);
    scene.store.end();
    assert!(!is_logged_in(&mut browser).await, "what cannot be remembered is done all the same");
}

#[tokio::test]
async fn while_the_transmitter_is_away_it_is_told_to_come_again() {
    for endpoint in [Endpoint::SsfConfiguration, Endpoint::Jwks] {
        let transmitter = Issuer::start_with(clock()).await;
        let url = transmitter.url();
        let shop = Shop::open_with(|_, setup| {
            setup.further_apps =
                format!("    shared_signals: {{transmitter: \"{url}\", audience: \"{AUDIENCE}\"}}\n");
        })
        .await;
        let mut browser = shop.user().await;
        // Another server than the issuer speaks of the issuer's users.
        let token = transmitter.security_event(AUDIENCE, |draft| {
            draft.claims["sub_id"]["iss"] = json!(shop.issuer.url());
        });
        transmitter.fail(endpoint, Fault::status(500));
        let answer = push(shop.gateway.address, &token, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "issuer-unavailable"));
        assert!(answer.headers.contains_key(RETRY_AFTER));
        transmitter.heal(endpoint);
        shop.clock.advance(Duration::from_secs(2));
        is_accepted(&push(shop.gateway.address, &token, &[]).await);
        assert!(!is_logged_in(&mut browser).await);
    }
}

#[tokio::test]
async fn metadata_of_another_transmitter_or_without_keys_are_refused() {
    for (name, value) in [
        ("issuer", json!("https://evil.test")),
        ("issuer", Value::Null),
        ("jwks_uri", Value::Null),
        ("jwks_uri", json!("http://evil.test/jwks")),
    ] {
        let scene = Scene::open().await;
        let mut browser = scene.shop.user().await;
        scene.shop.issuer.behave(|behaviour| {
            behaviour.ssf_configuration.insert(name.to_owned(), value.clone());
        });
        assert_eq!(scene.tell(|_| {}).await.status, 503, "{name}: {value}");
        assert!(is_logged_in(&mut browser).await, "{name}: {value}");
    }
}
