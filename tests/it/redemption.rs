//! What the callback makes of the issuer's answers: token, ID token and userinfo.

use cloakroom::clock::Clock;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use serde_json::json;

use crate::support::issuer::{CLIENT_ID, CLIENT_SECRET, Draft, Endpoint, Fault, Signature};
use crate::support::shop::{Shop, arrive, ends_the_login, problem};
use crate::support::wait::in_time;

type Tamper = fn(&mut Draft, u64);

#[tokio::test]
async fn r65_whatever_the_token_endpoint_says_the_answer_is_clear_and_nobody_is_half_logged_in() {
    let shop = Shop::open().await;
    let cases: [(Fault, u16, &str); 15] = [
        (Fault::text(200, "application/json", "{\"access_token\": "), 400, "login-failed"),
        (Fault::text(200, "application/json", "[]"), 400, "login-failed"),
        (
            Fault::text(200, "application/json", "{\"access_token\":\"a\",\"access_token\":\"b\"}"),
            400,
            "login-failed",
        ),
        (Fault::json(200, json!({"access_token": "a", "token_type": "Bearer"})), 400, "login-failed"),
        (
            Fault::json(200, json!({"access_token": "a", "token_type": "Bearer", "id_token": "a.b.c"})),
            400,
            "login-failed",
        ),
        (Fault::html(200), 400, "login-failed"),
        (Fault::html(500), 503, "issuer-unavailable"),
        (Fault::huge(), 503, "issuer-unavailable"),
        (Fault::busy(7), 503, "issuer-unavailable"),
        (Fault::status(429), 503, "issuer-unavailable"),
        (Fault::status(302), 503, "issuer-unavailable"),
        (Fault::ResetBefore, 503, "issuer-unavailable"),
        (Fault::ResetAfter, 503, "issuer-unavailable"),
        (Fault::invalid_client(), 400, "login-failed"),
        (Fault::invalid_grant(), 400, "login-failed"),
    ];
    for (fault, status, code) in cases {
        shop.issuer.fail(Endpoint::Token, fault.clone());
        let mut browser = shop.browser();
        let callback = shop.begin(&mut browser, "return_to=/").await;
        let answer = arrive(&mut browser, &callback).await;
        assert!(!answer.text().contains("the issuer's own words"), "{fault:?}");
        assert!(!answer.text().contains("Sorry"), "{fault:?}");
        ends_the_login(&browser, &answer, status);

        let mut browser = shop.browser();
        let callback = shop.begin(&mut browser, "return_to=/").await;
        assert_eq!(in_time(problem(&shop, &browser, &callback)).await, code, "{fault:?}");
        shop.issuer.heal(Endpoint::Token);
        browser.log_in("/shop").await;
    }

    shop.issuer.fail(Endpoint::Token, Fault::busy(7));
    let mut browser = shop.browser();
    let callback = shop.begin(&mut browser, "return_to=/").await;
    let answer = arrive(&mut browser, &callback).await;
    assert_eq!(answer.headers[RETRY_AFTER], "7", "the issuer knows best");
}

#[tokio::test]
async fn r65_a_token_endpoint_that_never_answers_holds_no_callback_up() {
    let shop = Shop::open_with(|_, setup| setup.oidc += "\ntimeout: 300ms").await;
    let mut browser = shop.browser();
    while shop.browser().visit("/bff/login").await.status == 503 {
        // On a busy machine the metadata, too, may come later than this issuer is waited for.
        shop.clock.advance(std::time::Duration::from_secs(1));
    }
    let callback = shop.begin(&mut browser, "return_to=/").await;
    shop.issuer.fail(Endpoint::Token, Fault::Silence);
    let answer = arrive(&mut browser, &callback).await;
    ends_the_login(&browser, &answer, 503);
}

#[tokio::test]
async fn r11_r12_r13_r14_a_faulty_id_token_logs_nobody_in() {
    let shop = Shop::open().await;
    let now = shop.clock.now().as_secs();
    let tampers: [(&str, Tamper); 7] = [
        ("r12 a foreign signature", |draft, _| draft.signature = Signature::Foreign),
        ("r12 alg none", |draft, _| {
            draft.header = json!({"alg": "none"});
            draft.signature = Signature::Absent;
        }),
        ("r11 another client's", |draft, _| draft.claims["aud"] = json!("other")),
        ("r11 another issuer's", |draft, _| draft.claims["iss"] = json!("https://evil.example")),
        ("r13 expired", |draft, now| draft.claims["exp"] = json!(now - 3600)),
        ("r14 another nonce", |draft, _| draft.claims["nonce"] = json!("other")),
        ("r14 no nonce", |draft, _| {
            draft.claims.as_object_mut().unwrap().remove("nonce");
        }),
    ];
    for (what, tamper) in tampers {
        shop.issuer.tamper(move |draft| tamper(draft, now));
        let mut browser = shop.browser();
        let callback = shop.begin(&mut browser, "return_to=/").await;
        let answer = arrive(&mut browser, &callback).await;
        assert_eq!(answer.status, 400, "{what}");
        ends_the_login(&browser, &answer, 400);
    }
}

#[tokio::test]
async fn r16_userinfo_is_merged_where_configured_and_refused_where_it_is_anothers() {
    let shop = Shop::open_with(|issuer, setup| {
        setup.oidc += "\nuserinfo: true";
        issuer.tamper(|draft| {
            draft.claims.as_object_mut().unwrap().remove("email");
        });
    })
    .await;
    let session = shop.user().await.fetch("/bff/session").await.json();
    assert_eq!(session["user"]["email"], "alice@example.com", "{session}");
    assert_eq!(session["user"]["sub"], "alice", "{session}");

    for (claims, status) in [
        (Fault::json(200, json!({"sub": "mallory", "email": "m@example.com"})), 400),
        (Fault::json(200, json!({"email": "m@example.com"})), 400),
        (Fault::html(200), 400),
        (Fault::status(401), 400),
        (Fault::status(503), 503),
    ] {
        shop.issuer.fail_once(Endpoint::Userinfo, claims);
        let mut browser = shop.browser();
        let callback = shop.begin(&mut browser, "return_to=/").await;
        let answer = arrive(&mut browser, &callback).await;
        ends_the_login(&browser, &answer, status);
    }

    let shop = Shop::open().await;
    shop.user().await;
    assert!(shop.issuer.received_at(Endpoint::Userinfo).is_empty(), "not asked for");
}

#[tokio::test]
async fn r60_the_client_proves_itself_as_configured() {
    let shop = Shop::open().await;
    shop.user().await;
    let request = shop.issuer.received_at(Endpoint::Token).pop().unwrap();
    assert!(request.headers[AUTHORIZATION].to_str().unwrap().starts_with("Basic "));
    assert_eq!(request.field("client_secret"), None);

    let shop = Shop::open_with(|_, setup| {
        setup.oidc += "\nclient_auth: {client_secret_post: {env: CLIENT_SECRET}}";
    })
    .await;
    shop.user().await;
    let request = shop.issuer.received_at(Endpoint::Token).pop().unwrap();
    assert!(!request.headers.contains_key(AUTHORIZATION));
    assert_eq!(
        (request.field("client_id"), request.field("client_secret")),
        (Some(CLIENT_ID), Some(CLIENT_SECRET))
    );

    let shop = Shop::open_with(|issuer, setup| {
        issuer.behave(|behaviour| behaviour.public_client = true);
        setup.oidc += "\nclient_auth: none";
    })
    .await;
    shop.user().await;
    let request = shop.issuer.received_at(Endpoint::Token).pop().unwrap();
    assert!(!request.headers.contains_key(AUTHORIZATION));
    assert_eq!((request.field("client_id"), request.field("client_secret")), (Some(CLIENT_ID), None));
    assert!(request.field("code_verifier").is_some_and(|verifier| verifier.len() >= 43));
}
