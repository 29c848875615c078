//! At the upstream: a proof with each request, for the request as the upstream sees it, and nonces.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method, Response};

use super::*;
use crate::support::gateway::{ORIGIN, SESSION_COOKIE};
use crate::support::upstream::{Body, full, status};
use crate::support::wire::{Wire, head};

/// An API that wants this nonce in each proof, and gives it with each answer.
struct Particular {
    upstream: Upstream,
    nonce: Arc<Mutex<String>>,
}

impl Particular {
    async fn start() -> Self {
        let nonce = Arc::new(Mutex::new("n-1".to_owned()));
        let wanted = Arc::clone(&nonce);
        let upstream = Upstream::answering(move |arrived| {
            let wanted = wanted.lock().unwrap().clone();
            let mut answer =
                if nonce_in(&arrived.headers).as_ref() == Some(&wanted) { full("{}") } else { wants_nonce() };
            answer.headers_mut().insert("dpop-nonce", wanted.parse().unwrap());
            answer
        })
        .await;
        Self { upstream, nonce }
    }
}

fn wants_nonce() -> Response<Body> {
    status(401, &[("www-authenticate", "DPoP realm=\"api\", error=\"use_dpop_nonce\", algs=\"ES256\"")])
}

/// What the proof says, without a look at anything else.
fn nonce_in(headers: &HeaderMap) -> Option<String> {
    let claims = headers.get("dpop")?.to_str().ok()?.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims["nonce"].as_str().map(str::to_owned)
}

const SCRIPT: [(&str, &str); 1] = [("x-csrf", "1")];

#[tokio::test]
async fn rfc9449_a_request_has_a_proof_for_its_token_its_method_and_the_url_that_the_upstream_sees() {
    let shop = shop_before(Upstream::start().await, |_, setup| {
        let url = setup.upstream();
        let upstream = format!("{{url: \"{url}/v1\", strip_prefix: /stripped}}");
        setup.add_route(&format!("path: /stripped, upstream: {upstream}, dpop: true"));
    })
    .await;
    let mut browser = shop.user().await;
    let key = key(&shop);
    let url = shop.upstream.url();
    let mut ids = Vec::new();
    for (method, target, seen) in [
        (Method::GET, "/api/orders?page=2", "/api/orders"),
        (Method::POST, "/api/a%20b/%7Ec", "/api/a%20b/%7Ec"),
        (Method::DELETE, "/stripped/orders/7", "/v1/orders/7"),
        (Method::GET, "/api/orders?page=2", "/api/orders"),
    ] {
        let answer = browser.script(method.clone(), target, &SCRIPT, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let arrived = shop.upstream.last();
        let (proof, _) = proved(&shop, &arrived, &format!("{url}{seen}"));
        assert_eq!((&arrived.method, &proof.thumbprint, proof.nonce), (&method, &key, None));
        ids.push(proof.id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 4, "no proof serves twice");
}

#[tokio::test]
async fn rfc9449_a_nonce_of_the_upstream_costs_one_more_request_and_then_none() {
    let Particular { upstream, nonce } = Particular::start().await;
    let shop = shop_before(upstream, |_, _| {}).await;
    let mut browser = shop.user().await;
    let came = |shop: &Shop| {
        let arrived =
            shop.upstream.arrived().into_iter().filter(|arrived| arrived.target.starts_with("/api"));
        arrived.map(|arrived| (nonce_in(&arrived.headers), arrived.body)).collect::<Vec<_>>()
    };
    let one = |nonce: Option<&str>| (nonce.map(str::to_owned), "an order".into());
    for round in [vec![one(None), one(Some("n-1"))], vec![one(Some("n-1"))]] {
        let before = came(&shop).len();
        let answer = browser.script(Method::POST, "/api/orders", &SCRIPT, "an order").await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "{}"));
        assert!(!answer.headers.contains_key("dpop-nonce"), "{:?}", answer.headers);
        assert_eq!(came(&shop).split_off(before), round);
    }
    "n-2".clone_into(&mut nonce.lock().unwrap());
    let before = came(&shop).len();
    assert_eq!(browser.script(Method::POST, "/api/orders", &SCRIPT, "an order").await.status, 200);
    assert_eq!(came(&shop).split_off(before), [one(Some("n-1")), one(Some("n-2"))]);
    assert_eq!(shop.issuer.token_requests("refresh_token"), 0, "the token was not at fault");
}

#[tokio::test]
async fn rfc9449_a_large_body_is_sent_once_and_the_next_request_has_the_nonce() {
    let shop = shop_before(Particular::start().await.upstream, |_, _| {}).await;
    let mut browser = shop.user().await;
    let large = "x".repeat(100_000).leak();
    let refused = browser.script(Method::POST, "/api/orders", &SCRIPT, large).await;
    assert_eq!((refused.status.as_u16(), refused.headers.contains_key("dpop-nonce")), (401, false));
    assert_eq!(browser.script(Method::POST, "/api/orders", &SCRIPT, large).await.status, 200);
}

#[tokio::test]
async fn rfc9449_an_upstream_that_no_nonce_satisfies_is_asked_twice() {
    let given = Mutex::new(0);
    let upstream = Upstream::answering(move |_| {
        let mut given = given.lock().unwrap();
        *given += 1;
        let mut answer = wants_nonce();
        answer.headers_mut().insert("dpop-nonce", format!("n-{given}").parse().unwrap());
        answer
    });
    let shop = shop_before(upstream.await, |_, _| {}).await;
    let mut browser = shop.user().await;
    let before = shop.upstream.arrived().len();
    let answer = call(&mut browser).await;
    assert_eq!((answer.status.as_u16(), answer.headers.contains_key("dpop-nonce")), (401, false));
    assert_eq!(shop.upstream.arrived().len(), before + 2);
    assert_eq!(shop.issuer.token_requests("refresh_token"), 0);
}

#[tokio::test]
async fn rfc9449_a_nonce_that_is_absurdly_long_is_none_and_nothing_is_sent_again() {
    let upstream = Upstream::answering(|_| {
        let mut answer = wants_nonce();
        answer.headers_mut().insert("dpop-nonce", "x".repeat(5_000).parse().unwrap());
        answer
    });
    let shop = shop_before(upstream.await, |_, _| {}).await;
    let mut browser = shop.user().await;
    let before = shop.upstream.arrived().len();
    for round in 1..3 {
        assert_eq!(call(&mut browser).await.status, 401);
        assert_eq!(shop.upstream.arrived().len(), before + round);
        assert_eq!(nonce_in(&shop.upstream.last().headers), None);
    }
}

#[tokio::test]
async fn rfc9449_a_token_that_the_upstream_refuses_is_replaced_and_proved_anew() {
    let refused = Arc::new(Mutex::new(None));
    let first = Arc::clone(&refused);
    let upstream = Upstream::answering(move |arrived| {
        let Some(token) = token(arrived) else { return full("") };
        if *first.lock().unwrap().get_or_insert_with(|| token.clone()) == token {
            return status(401, &[("www-authenticate", "DPoP error=\"invalid_token\", algs=\"ES256\"")]);
        }
        full("{}")
    });
    let shop = shop_before(upstream.await, |_, _| {}).await;
    let mut browser = shop.user().await;
    assert_eq!(call(&mut browser).await.status, 200);
    assert_eq!(shop.issuer.token_requests("refresh_token"), 1);
    let (_, sent) = proved(&shop, &shop.upstream.last(), &format!("{}/api/orders", shop.upstream.url()));
    assert_ne!(Some(sent), *refused.lock().unwrap());
}

#[tokio::test]
async fn r36_a_proof_of_the_clients_own_reaches_no_upstream() {
    let shop = shop_before(Upstream::start().await, |_, setup| {
        let url = setup.upstream();
        setup.add_route(&format!("path: /plain, upstream: \"{url}\""));
    })
    .await;
    let mut browser = shop.user().await;
    let forged = [("x-csrf", "1"), ("dpop", "a.forged.proof"), ("authorization", "DPoP forged")];
    for target in ["/api/orders", "/plain", "/open"] {
        assert_eq!(browser.script(Method::GET, target, &forged, "").await.status, 200);
    }
    let [proved_one, plain, open] =
        shop.upstream.arrived().split_off(shop.upstream.arrived().len() - 3).try_into().unwrap();
    proved(&shop, &proved_one, &format!("{}/api/orders", shop.upstream.url()));
    assert_eq!(plain.headers.get("dpop"), None);
    assert!(plain.headers["authorization"].to_str().unwrap().starts_with("Bearer access-"));
    assert_eq!((open.headers.get("dpop"), open.headers.get("authorization")), (None, None));
}

#[tokio::test]
async fn rfc9449_a_websocket_begins_with_a_proof() {
    let shop = shop_before(Upstream::start().await, |_, setup| {
        let url = setup.upstream();
        setup.add_route(&format!("path: /ws, upstream: \"{url}\", websocket: true, dpop: true"));
    })
    .await;
    let browser = shop.user().await;
    let key = key(&shop);
    let mut wire = Wire::connect(shop.gateway.address).await;
    let fields = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {ORIGIN}\r\nCookie: {SESSION_COOKIE}={}\r\n",
        browser.session_cookie().unwrap()
    );
    wire.send(head("GET /ws/room?x=1", &fields)).await;
    // To this server it is a request as any other.
    assert_eq!(wire.reply().await.status, 200);
    let arrived = shop.upstream.last();
    assert_eq!(arrived.headers["upgrade"], "websocket");
    let (proof, _) = proved(&shop, &arrived, &format!("{}/ws/room", shop.upstream.url()));
    assert_eq!(proof.thumbprint, key);
}
