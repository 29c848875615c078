//! Where the issuer itself says that somebody has logged out: `POST backchannel-logout` (R54, R55).

use std::sync::Arc;
use std::time::Duration;

use cloakroom::session::store::Store;
use cloakroom::session::store::memory::MemoryStore;
use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value, json};

use crate::support::browser::{Answer, Browser, metric, post_form};
use crate::support::issuer::{CLIENT_ID, Draft, Endpoint, Fault, Signature};
use crate::support::shop::{Shop, bare, log_in_bare};
use crate::support::troubled_store::{Step, Trouble, TroubledStore};
use crate::support::wait::{in_time, until};
use crate::support::wire::{Wire, head};

const TARGET: &str = "/bff/backchannel-logout";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A shop whose store a second gateway can share.
async fn shared() -> (Shop, Arc<TroubledStore>) {
    let mut store = None;
    let shop = Shop::open_with(|_, setup| {
        let troubled = store.insert(Arc::new(TroubledStore::new(Arc::clone(&setup.clock))));
        setup.stand_in = Some(troubled.clone());
    })
    .await;
    (shop, store.unwrap())
}

async fn post(shop: &Shop, token: &str) -> Answer {
    in_time(post_form(shop.gateway.address, TARGET, &format!("logout_token={token}"))).await
}

async fn tell(shop: &Shop, change: impl FnOnce(&mut Draft)) -> Answer {
    post(shop, &shop.issuer.logout_token(change)).await
}

fn is_done(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ""), "{}", answer.text());
    assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
}

fn is_refused(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 400, "{what}: {}", answer.text());
    assert_eq!(answer.headers[CACHE_CONTROL], "no-store", "{what}");
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json", "{what}");
    assert_eq!(answer.json()["error"], "invalid_request", "{what}");
    assert!(answer.json()["error_description"].is_string(), "{what}");
}

async fn is_logged_in(browser: &mut Browser) -> bool {
    browser.fetch("/bff/session").await.json()["authenticated"] == true
}

#[tokio::test]
async fn r55_without_a_sid_every_session_of_the_user_ends_and_no_other() {
    let shop = Shop::open().await;
    let (mut one, mut other) = (shop.user().await, shop.user().await);
    shop.issuer.behave(|behaviour| behaviour.user = json!({"sub": "bob"}));
    let mut bob = shop.user().await;
    is_done(&tell(&shop, |_| {}).await);
    assert!(!is_logged_in(&mut one).await && !is_logged_in(&mut other).await);
    assert!(is_logged_in(&mut bob).await);
    assert_eq!(one.fetch("/api/orders").await.problem(), "unauthenticated");
    shop.issuer.until(|issuer| issuer.revoked().len() == 4).await;
    assert_eq!(metric(shop.gateway.admin, "cloakroom_logouts_total", "\"backchannel\"").await, 2.0);
}

#[tokio::test]
async fn r54_a_sid_ends_the_sessions_of_that_login_alone() {
    for with_subject in [true, false] {
        let shop = Shop::open().await;
        let mut one = shop.user().await;
        let sid = shop.issuer.last_sid();
        let mut other = shop.user().await;
        let answer = tell(&shop, |draft| {
            draft.claims["sid"] = json!(sid);
            if !with_subject {
                draft.claims.as_object_mut().unwrap().remove("sub");
            }
        });
        is_done(&answer.await);
        assert!(!is_logged_in(&mut one).await && is_logged_in(&mut other).await);
    }
}

#[tokio::test]
async fn r54_a_sid_of_another_user_ends_nothing() {
    let shop = Shop::open().await;
    let mut alice = shop.user().await;
    let sid = shop.issuer.last_sid();
    is_done(
        &tell(&shop, |draft| {
            draft.claims["sub"] = json!("bob");
            draft.claims["sid"] = json!(sid);
        })
        .await,
    );
    assert!(is_logged_in(&mut alice).await);
}

#[tokio::test]
async fn r54_who_is_not_logged_in_is_logged_out_without_an_error() {
    let shop = Shop::open().await;
    is_done(&tell(&shop, |_| {}).await);
    is_done(&tell(&shop, |draft| draft.claims["sid"] = json!("unknown")).await);
}

#[tokio::test]
async fn r54_a_session_ends_on_all_gateways_and_its_tokens_die_where_they_are_held() {
    let (shop, store) = shared().await;
    let other = shop.setup.start().await;
    let mut browser = shop.user().await;
    // The other gateway has it open, and is not the one that is told.
    browser.switch_to(other.address);
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    is_done(&tell(&shop, |_| {}).await);
    assert_eq!(browser.fetch("/api/orders").await.problem(), "unauthenticated");
    shop.issuer.until(|issuer| issuer.revoked().len() == 2).await;
    drop(store);
}

#[tokio::test]
async fn r54_a_logout_token_is_used_once_across_gateways() {
    let (shop, _store) = shared().await;
    let other = shop.setup.start().await;
    let token = shop.issuer.logout_token(|_| {});
    is_done(&post(&shop, &token).await);
    let mut browser = shop.user().await;
    is_refused(&post(&shop, &token).await, "here");
    is_refused(&post_form(other.address, TARGET, &format!("logout_token={token}")).await, "there");
    // For as long as it could be accepted.
    shop.clock.advance(Duration::from_secs(170));
    is_refused(&post(&shop, &token).await, "later");
    assert!(is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn r54_a_logout_reaches_all_apps_that_are_one_client_to_the_issuer() {
    const DESK: &str = "https://desk.test";
    const OTHER: &str = "https://other.test";
    let shop = Shop::open_with(|issuer, setup| {
        for (origin, client_id) in [(DESK, CLIENT_ID), (OTHER, "another")] {
            setup.further_apps += &format!(
                "  - origin: {origin}\n    oidc: {{issuer: \"{}\", client_id: \"{client_id}\", client_auth: {{client_secret_basic: {{env: CLIENT_SECRET}}}}}}\n    routes: [{{path: /, upstream: \"http://127.0.0.1:9\"}}]\n",
                issuer.url()
            );
        }
    })
    .await;
    let mut browser = shop.user().await;
    let answer = log_in_bare(shop.gateway.address, DESK, "/bff", &shop.issuer).await;
    let cookie = answer.set_cookies().into_iter().find(|cookie| !cookie.value().is_empty()).unwrap();
    let cookie = format!("{}={}", cookie.name(), cookie.value());
    let desk = async || {
        let fields = [("x-csrf", "1"), ("cookie", cookie.as_str())];
        bare(shop.gateway.address, DESK, Method::GET, "/bff/session", &fields).await.json()["authenticated"]
            .clone()
    };
    assert_eq!(desk().await, true);

    // Another client's token is nothing to this app.
    is_refused(&tell(&shop, |draft| draft.claims["aud"] = json!("another")).await, "another client's");
    assert!(is_logged_in(&mut browser).await);

    let token = shop.issuer.logout_token(|_| {});
    is_done(&post(&shop, &token).await);
    assert!(!is_logged_in(&mut browser).await);
    assert_eq!(desk().await, false);
    let form = format!("logout_token={token}");
    let request = http::Request::post(TARGET)
        .header("host", "desk.test")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(http_body_util::Full::from(form))
        .unwrap();
    let (status, ..) = crate::support::browser::exchange(shop.gateway.address, request).await;
    assert_eq!(status, 400, "they share what was used");
}

#[tokio::test]
async fn r54_each_rule_of_the_logout_token_is_needed() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let now = shop.clock_now();
    let cases: Vec<(&str, Value)> = vec![
        ("iss", json!("https://evil.test")),
        ("iss", json!(format!("{}/", shop.issuer.url()))),
        ("iss", json!(null)),
        ("aud", json!("other")),
        ("aud", json!([CLIENT_ID, "other"])),
        ("aud", json!([])),
        ("aud", json!(null)),
        ("azp", json!("other")),
        ("iat", json!(now - 601)),
        ("iat", json!(now + 61)),
        ("iat", json!("now")),
        ("iat", json!(null)),
        ("exp", json!(now - 60)),
        ("exp", json!(null)),
        ("nbf", json!(now + 61)),
        ("jti", json!("")),
        ("jti", json!(7)),
        ("jti", json!("x".repeat(1025))),
        ("jti", json!(null)),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!({})),
        ("sub", json!("x".repeat(256))),
        ("sid", json!("")),
        ("sid", json!(7)),
        ("sid", json!("x".repeat(1025))),
        ("nonce", json!("n")),
        ("nonce", json!("")),
        ("events", json!(null)),
        ("events", json!({})),
        ("events", json!([EVENT])),
        ("events", json!({EVENT: null})),
        ("events", json!({EVENT: "{}"})),
        ("events", json!({EVENT: true})),
        ("events", json!({EVENT: []})),
        ("events", json!({"http://schemas.openid.net/event/other": {}})),
    ];
    for (name, value) in cases {
        let what = format!("{name}: {value}");
        let answer = tell(&shop, |draft| {
            if value.is_null() {
                draft.claims.as_object_mut().unwrap().remove(name);
            } else {
                draft.claims[name] = value.clone();
            }
        });
        is_refused(&answer.await, &what);
    }
    let explicit_null = tell(&shop, |draft| draft.claims["nonce"] = Value::Null).await;
    is_refused(&explicit_null, "a nonce, be it null");
    let nobody = tell(&shop, |draft| {
        draft.claims.as_object_mut().unwrap().remove("sub");
    });
    is_refused(&nobody.await, "neither sub nor sid");
    assert!(is_logged_in(&mut browser).await, "none of them ends anything");
    assert!(shop.issuer.revoked().is_empty());
}

#[tokio::test]
async fn r54_what_a_logout_token_may_be_like() {
    let shop = Shop::open().await;
    let now = shop.clock_now();
    for change in [
        ("aud", json!([CLIENT_ID])),
        ("iat", json!(now - 599)),
        ("iat", json!(now + 59)),
        ("exp", json!(now + 1)),
        ("sid", json!("s")),
        ("typ", json!("Logout")),
        ("events", json!({EVENT: {"more": 1}, "http://schemas.openid.net/event/other": {}})),
    ] {
        let (name, value) = change;
        let mut browser = shop.user().await;
        let sid = shop.issuer.last_sid();
        let answer = tell(&shop, |draft| {
            draft.claims[name] = value.clone();
            if name == "sid" {
                draft.claims[name] = json!(sid);
            }
        });
        is_done(&answer.await);
        assert!(!is_logged_in(&mut browser).await, "{name}");
    }
    for typ in [json!("JWT"), json!("jwt"), json!("logout+jwt"), json!("LOGOUT+JWT"), Value::Null] {
        let answer = tell(&shop, |draft| {
            draft.header["typ"] = typ.clone();
            if typ.is_null() {
                draft.header.as_object_mut().unwrap().remove("typ");
            }
        });
        is_done(&answer.await);
    }
}

#[tokio::test]
async fn r12_r18_another_kind_of_token_and_a_signature_that_is_not_the_issuers_are_refused() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    for typ in ["at+jwt", "id+jwt", "secevent+jwt", ""] {
        is_refused(&tell(&shop, |draft| draft.header["typ"] = json!(typ)).await, typ);
    }
    is_refused(&tell(&shop, |draft| draft.header["typ"] = json!(7)).await, "a number for a type");
    for signature in [Signature::Foreign, Signature::Absent] {
        is_refused(&tell(&shop, |draft| draft.signature = signature).await, "signature");
    }
    for algorithm in ["none", "HS256", "PS256", "ES384", ""] {
        is_refused(&tell(&shop, |draft| draft.header["alg"] = json!(algorithm)).await, algorithm);
    }
    let confused = tell(&shop, |draft| {
        draft.header["alg"] = json!("HS256");
        draft.signature = Signature::HmacOfPublicKey;
    });
    is_refused(&confused.await, "signed with the public key as a secret");
    is_refused(&tell(&shop, |draft| draft.header["crit"] = json!(["exp"])).await, "crit");
    // What the issuer signed for the browser: an ID token.
    let id_token = tell(&shop, |draft| {
        draft.claims.as_object_mut().unwrap().remove("events");
        draft.claims["nonce"] = json!("n");
    });
    is_refused(&id_token.await, "an ID token");
    for token in ["", "a", "a.b", "a.b.c", "..", "a.b.c.d.e", "eyJhbGciOiJFUzI1NiJ9.e30.x"] {
        is_refused(&post(&shop, token).await, token);
    }
    assert!(is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn r54_duplicate_names_in_a_logout_token_are_refused() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    for duplicate in [r#""sub":"bob","#, r#""a":1,"a":2,"#, r#""events":{},"#, r#""b":{"c":1,"c":1},"#] {
        let answer = tell(&shop, |draft| {
            let text = draft.claims.to_string();
            draft.raw_claims = Some(format!("{{{duplicate}{}", &text[1..]));
        });
        is_refused(&answer.await, duplicate);
    }
    let answer = tell(&shop, |draft| {
        let text = draft.header.to_string();
        draft.raw_header = Some(format!("{{\"typ\":\"JWT\",{}", &text[1..]));
    });
    is_refused(&answer.await, "in the header");
    assert!(is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn r54_a_form_with_exactly_one_logout_token_is_wanted() {
    let shop = Shop::open().await;
    let token = shop.issuer.logout_token(|_| {});
    for form in [
        "".to_owned(),
        "token=a".to_owned(),
        format!("logout_token={token}&logout_token={token}"),
        format!("logout_token=&logout_token={token}"),
    ] {
        is_refused(&post_form(shop.gateway.address, TARGET, &form).await, &form);
    }
    let with_type = async |types: &[&str]| {
        let mut request = http::Request::post(TARGET).header("host", "shop.test");
        for kind in types {
            request = request.header(CONTENT_TYPE, *kind);
        }
        let form = format!("logout_token={}", shop.issuer.logout_token(|_| {}));
        let request = request.body(http_body_util::Full::from(form)).unwrap();
        crate::support::browser::exchange(shop.gateway.address, request).await.0
    };
    let form = "application/x-www-form-urlencoded";
    for types in [&[][..], &["application/json"], &["text/plain"], &["multipart/form-data"], &[form, form]] {
        assert_eq!(with_type(types).await, 400, "{types:?}");
    }
    assert_eq!(with_type(&["Application/X-WWW-Form-URLEncoded; charset=utf-8"]).await, 200);
    let large = format!("padding={}&logout_token={token}", "x".repeat(200 * 1024));
    assert!([400, 413].contains(&post_form(shop.gateway.address, TARGET, &large).await.status.as_u16()));
    // Unknown parameters are ignored, and the token is still good.
    is_done(&post_form(shop.gateway.address, TARGET, &format!("more=1&logout_token={token}")).await);
}

#[tokio::test]
async fn a_server_calls_so_that_neither_cookies_nor_origins_count_and_other_methods_do_not_exist() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let form = format!("logout_token={}", shop.issuer.logout_token(|_| {}));
    let request = http::Request::post(TARGET)
        .header("host", "shop.test")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", "https://id.example")
        .header("sec-fetch-site", "cross-site")
        .header("cookie", "__Host-cloakroom=forged")
        .body(http_body_util::Full::from(form))
        .unwrap();
    let (status, headers, _) = crate::support::browser::exchange(shop.gateway.address, request).await;
    assert_eq!(status, 200);
    assert!(!headers.contains_key("set-cookie"));
    assert!(!is_logged_in(&mut browser).await);
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = shop.bare(method.clone(), TARGET, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()),
            (405, "POST"),
            "{method}"
        );
    }
}

#[tokio::test]
async fn r17_a_new_key_is_fetched_and_keys_that_are_not_to_be_had_are_no_refusal() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    shop.clock.advance(Duration::from_secs(120));
    shop.issuer.rotate_keys();
    shop.issuer.fail(Endpoint::Jwks, Fault::status(500));
    let token = shop.issuer.logout_token(|_| {});
    let answer = post(&shop, &token).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "issuer-unavailable"));
    assert!(answer.headers.contains_key(RETRY_AFTER));
    shop.issuer.heal(Endpoint::Jwks);
    shop.clock.advance(Duration::from_secs(2));
    is_done(&post(&shop, &token).await);
    assert!(!is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn r63_while_the_store_is_away_the_issuer_is_told_so_and_the_logout_is_done_once_it_is_back() {
    for (step, trouble) in [
        (Step::IsClaimed, Trouble::Fails),
        (Step::List, Trouble::Fails),
        (Step::Take, Trouble::Fails),
        (Step::Take, Trouble::LosesItsAnswer),
    ] {
        let (shop, store) = shared().await;
        let mut browser = shop.user().await;
        store.begin(step, trouble);
        let answer = tell(&shop, |_| {}).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (503, "store-unavailable"),
            "{step:?}"
        );
        assert!(answer.headers.contains_key(RETRY_AFTER));
        store.end();
        // The issuer does not ask again.
        until(async || !is_logged_in(&mut browser).await).await;
        shop.issuer.until(|issuer| issuer.revoked().len() == 2).await;
        until(async || metric(shop.gateway.admin, "cloakroom_logouts_total", "\"backchannel\"").await == 1.0)
            .await;
    }
}

/// As after a gateway that died in the middle of it, or one whose store did.
#[tokio::test]
async fn r54_a_token_that_came_to_nothing_is_good_for_another_try_and_no_more() {
    let (shop, store) = shared().await;
    let mut browser = shop.user().await;
    let token = shop.issuer.logout_token(|_| {});
    store.begin(Step::Take, Trouble::Fails);
    assert_eq!(post(&shop, &token).await.status, 503);
    store.end();
    is_done(&post(&shop, &token).await);
    assert!(!is_logged_in(&mut browser).await);
    browser.log_in("/shop").await;
    assert_eq!(post(&shop, &token).await.status, 400);
    assert!(is_logged_in(&mut browser).await, "and ends no session that began since");
}

#[tokio::test]
async fn what_cannot_be_remembered_is_done_all_the_same() {
    for trouble in [Trouble::Fails, Trouble::LosesItsAnswer] {
        let (shop, store) = shared().await;
        let mut browser = shop.user().await;
        store.begin(Step::Claim, trouble);
        is_done(&tell(&shop, |_| {}).await);
        store.end();
        assert!(!is_logged_in(&mut browser).await);
    }
}

#[tokio::test]
async fn r54_a_restart_finds_the_sessions_that_began_before_it() {
    let mut store = None;
    let shop = Shop::open_with(|_, setup| {
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&setup.clock)));
        setup.stand_in = Some(store.insert(memory).clone());
    })
    .await;
    let mut browser = shop.user().await;
    let next = shop.setup.start().await;
    browser.switch_to(next.address);
    let form = format!("logout_token={}", shop.issuer.logout_token(|_| {}));
    is_done(&post_form(next.address, TARGET, &form).await);
    assert!(!is_logged_in(&mut browser).await, "though nobody there had it open");
    assert!(shop.issuer.revoked().is_empty(), "nobody there can read its tokens");
}

#[tokio::test]
async fn r65_a_form_that_drips_in_has_the_time_of_a_head_and_no_more() {
    let shop = Shop::open_with(|_, setup| setup.limits = "header_timeout: 1s".to_owned()).await;
    let mut wire = Wire::connect(shop.gateway.address).await;
    let fields = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n";
    wire.send(head(&format!("POST {TARGET}"), fields)).await;
    let mut reply = None;
    for _ in 0..200 {
        wire.try_send("a").await;
        reply = tokio::time::timeout(Duration::from_millis(100), wire.reply()).await.ok();
        if reply.is_some() {
            break;
        }
    }
    let reply = reply.expect("it took every byte");
    assert_eq!((reply.status, reply.field("connection")), (400, Some("close")));
    assert!(wire.rest().await.is_empty());
}
