//! Several issuers for one app: each user's session stays with the one they chose, and no issuer's answer passes for
//! another's (R4, RFC 9207, RFC 9700 §4.4).

use std::sync::Arc;
use std::time::Duration;

use cloakroom::session::store::Store;
use cloakroom::session::store::memory::MemoryStore;
use http::Method;
use http::header::CACHE_CONTROL;
use serde_json::json;
use url::Url;

use crate::support::browser::{Answer, Browser, admin, metric, post_form};
use crate::support::clock::clock;
use crate::support::gateway::SESSION_COOKIE;
use crate::support::issuer::{Draft, Endpoint, Fault, Issuer};
use crate::support::shop::{Shop, arrive, ends_the_login, location, offers_login, parameter, with_query};
use crate::support::upstream::{Upstream, full, status};
use crate::support::wait::until;

/// An app with two issuers: `staff` is the shop's own, `partners` the other.
struct Scene {
    shop: Shop,
    partners: Issuer,
}

impl Scene {
    async fn open() -> Self {
        Self::open_before(Upstream::start().await).await
    }

    async fn open_before(upstream: Upstream) -> Self {
        let clock = clock();
        let (staff, partners) =
            (Issuer::start_with(clock.clone()).await, Issuer::start_with(clock.clone()).await);
        // Without connections kept open, a stopped issuer is a refused connection and nothing else.
        staff.behave(|behaviour| behaviour.keeps_connections = false);
        let url = partners.url();
        let shop = Shop::open_among(clock, staff, upstream, |_, setup| {
            setup.other_issuers = vec![("partners", url)];
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&setup.clock)));
            setup.stand_in = Some(memory);
        })
        .await;
        Self { shop, partners }
    }

    fn staff(&self) -> &Issuer {
        &self.shop.issuer
    }

    /// A browser whose user has logged in at this issuer.
    async fn user(&self, issuer: &Issuer) -> Browser {
        let mut browser = self.shop.browser();
        let answer = browser.navigate(&login_at(issuer)).await;
        assert_eq!((answer.status.as_u16(), answer.url.path()), (200, "/shop"), "{}", answer.text());
        browser
    }

    /// Begins a login at this issuer, and gives the address of its authorization endpoint.
    async fn begin(&self, browser: &mut Browser, issuer: &Issuer) -> Url {
        let sent = browser.visit(&login_at(issuer)).await;
        assert_eq!(sent.status, 303, "{}", sent.text());
        location(&sent)
    }

    fn codes_seen(&self) -> (usize, usize) {
        let codes = |issuer: &Issuer| issuer.token_requests("authorization_code");
        (codes(self.staff()), codes(&self.partners))
    }
}

fn login_at(issuer: &Issuer) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("iss", &issuer.url()).append_pair("return_to", "/shop");
    format!("/bff/login?{}", query.finish())
}

/// Where the browser is sent back to with what this issuer answers to a request.
fn answer_of(issuer: &Issuer, authorization: &Url) -> Url {
    let mut callback = Url::parse(&parameter(authorization, "redirect_uri").unwrap()).unwrap();
    callback.query_pairs_mut().extend_pairs(issuer.authorize(authorization));
    callback
}

async fn is_logged_in(browser: &mut Browser) -> bool {
    browser.fetch("/bff/session").await.json()["authenticated"] == true
}

fn without(url: &Url, name: &str) -> Url {
    with_query(url, |query| query.retain(|(key, _)| key != name))
}

#[tokio::test]
async fn r1_each_issuer_has_a_login_and_a_callback_of_its_own() {
    let scene = Scene::open().await;
    for (issuer, name) in [(scene.staff(), "staff"), (&scene.partners, "partners")] {
        let mut browser = scene.shop.browser();
        let url = scene.begin(&mut browser, issuer).await;
        assert!(url.as_str().starts_with(&format!("{}/authorize?", issuer.url())), "{url}");
        let redirect_uri = format!("https://shop.test/bff/callback/{name}");
        assert_eq!(parameter(&url, "redirect_uri"), Some(redirect_uri));
        assert_eq!(parameter(&url, "iss"), None, "what the app says to us is not passed on");
        let answer = arrive(&mut browser, &answer_of(issuer, &url)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(is_logged_in(&mut browser).await);
        browser.fetch("/api/orders").await;
        assert!(issuer.is_alive(&scene.shop.upstream.tokens().pop().unwrap()), "it is {name}'s token");
    }
    assert_eq!(scene.codes_seen(), (1, 1));
}

#[tokio::test]
async fn where_there_is_a_choice_a_page_without_script_offers_it() {
    let scene = Scene::open().await;
    let mut browser = scene.shop.browser();
    let page = browser.visit("/bff/login?return_to=/shop%3Fa=%2522%3E&prompt=login&x=1").await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.set_cookies().is_empty(), "nothing has begun");
    assert_eq!(page.headers[CACHE_CONTROL], "no-store");
    let text = page.text();
    assert!(text.contains("<html lang=\"en\">") && !text.contains("<script"), "{text}");
    assert!(!text.contains("x=1"), "what is not known is not passed on: {text}");
    let links: Vec<(Url, &str)> = text
        .split("<li><a href=\"")
        .skip(1)
        .map(|rest| {
            let (target, rest) = rest.split_once("\">").unwrap();
            let target = page.url.join(&target.replace("&amp;", "&")).unwrap();
            (target, rest.split_once("</a>").unwrap().0)
        })
        .collect();
    assert_eq!(links.iter().map(|(_, name)| *name).collect::<Vec<_>>(), ["staff", "partners"]);
    for ((link, _), issuer) in links.iter().zip([scene.staff(), &scene.partners]) {
        let mut browser = scene.shop.browser();
        let answer = browser.visit(&link[url::Position::BeforePath..]).await;
        let url = location(&answer);
        assert!(url.as_str().starts_with(&format!("{}/authorize?", issuer.url())), "{url}");
        assert_eq!(parameter(&url, "prompt").as_deref(), Some("login"));
        let answer = browser.navigate(url.as_str()).await;
        assert_eq!(answer.url.as_str(), "https://shop.test/shop?a=%22%3E");
    }
}

#[tokio::test]
async fn a_login_at_no_issuer_of_ours_or_by_a_script_starts_nothing() {
    let scene = Scene::open().await;
    for issuer in ["https://evil.test", "", &format!("{}/", scene.partners.url())] {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let target = format!("/bff/login?{}", query.append_pair("iss", issuer).finish());
        let answer = scene.shop.browser().visit(&target).await;
        assert_eq!((answer.status.as_u16(), answer.set_cookies().len()), (400, 0), "{issuer}");
    }
    let elsewhere = scene.shop.browser().visit("/bff/login?return_to=https://evil.test").await;
    assert_eq!(elsewhere.status, 400, "before there is a choice");
    let silent = scene.shop.browser().visit("/bff/login?prompt=none").await;
    assert_eq!(silent.status, 400, "where nobody may be asked there is no choice");
    assert_eq!(scene.shop.browser().fetch("/bff/login").await.status, 400);
    let asked = scene.shop.browser().fetch("/api/orders").await;
    assert_eq!(asked.json()["login_url"], "/bff/login", "scripts are told of the choice");
}

#[tokio::test]
async fn a_third_party_starts_a_login_at_the_issuer_it_names() {
    let scene = Scene::open().await;
    let mut browser = scene.shop.browser();
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("iss", &scene.partners.url());
    query.append_pair("target_link_uri", "https://shop.test/shop");
    let answer = browser.navigate(&format!("/bff/login?{}", query.finish())).await;
    assert_eq!((answer.status.as_u16(), answer.url.path()), (200, "/shop"), "{}", answer.text());
    assert_eq!(scene.codes_seen(), (0, 1));
}

/// RFC 9700 §4.4.1: the user chose an issuer that belongs to the attacker, which has sent the browser on to the
/// honest one; the honest code must not be sent to the attacker.
#[tokio::test]
async fn r4_an_honest_issuers_code_is_never_redeemed_at_the_one_that_was_chosen() {
    for sends_iss in [true, false] {
        let scene = Scene::open().await;
        let attacker = &scene.partners;
        scene.staff().behave(|behaviour| behaviour.sends_iss = sends_iss);
        attacker.behave(|behaviour| behaviour.sends_iss = sends_iss);
        let mut browser = scene.shop.browser();
        let begun = scene.begin(&mut browser, attacker).await;
        // The honest issuer takes the redirect_uri that is registered there, whatever else the attacker puts in.
        let mixed_up = with_query(&begun, |query| {
            query.retain(|(name, _)| name != "redirect_uri");
            query.push(("redirect_uri".to_owned(), "https://shop.test/bff/callback/staff".to_owned()));
        });
        let answer = arrive(&mut browser, &answer_of(scene.staff(), &mixed_up)).await;
        ends_the_login(&browser, &answer, 400);
        assert_eq!(scene.codes_seen(), (0, 0), "{sends_iss}");
    }
}

#[tokio::test]
async fn r4_an_answer_is_taken_at_the_callback_of_the_issuer_that_was_asked_and_nowhere_else() {
    let scene = Scene::open().await;
    for sends_iss in [true, false] {
        for issuer in [scene.staff(), &scene.partners] {
            issuer.behave(|behaviour| behaviour.sends_iss = sends_iss);
        }
        scene.shop.clock.advance(Duration::from_secs(2 * 60 * 60));
        for (asked, elsewhere) in [(scene.staff(), "partners"), (&scene.partners, "staff")] {
            let mut browser = scene.shop.browser();
            let mut callback = answer_of(asked, &scene.begin(&mut browser, asked).await);
            callback.set_path(&format!("/bff/callback/{elsewhere}"));
            let answer = arrive(&mut browser, &callback).await;
            ends_the_login(&browser, &answer, 400);
        }
    }
    let mut browser = scene.shop.browser();
    let good = answer_of(scene.staff(), &scene.begin(&mut browser, scene.staff()).await);
    for path in ["/bff/callback", "/bff/callback/", "/bff/callback/other", "/bff/callback/STAFF"] {
        let mut callback = good.clone();
        callback.set_path(path);
        let answer = arrive(&mut browser, &callback).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
        assert!(!browser.cookie_names().contains(&SESSION_COOKIE.to_owned()), "{path}");
    }
    assert_eq!(scene.codes_seen(), (0, 0));
    assert_eq!(arrive(&mut browser, &good).await.status, 200, "none of them has used the login up");
}

#[tokio::test]
async fn r4_an_answer_that_names_the_other_issuer_is_refused_an_error_too() {
    let scene = Scene::open().await;
    let cases: [fn(&Url) -> Url; 2] = [
        |callback| callback.clone(),
        |callback| {
            let mut refused = without(callback, "code");
            refused.query_pairs_mut().append_pair("error", "access_denied");
            refused
        },
    ];
    for change in cases {
        let mut browser = scene.shop.browser();
        let callback = change(&answer_of(scene.staff(), &scene.begin(&mut browser, scene.staff()).await));
        let other = scene.partners.url();
        let mixed_up = with_query(&callback, |query| {
            query.retain(|(name, _)| name != "iss");
            query.push(("iss".to_owned(), other));
        });
        let answer = arrive(&mut browser, &mixed_up).await;
        ends_the_login(&browser, &answer, 400);
        assert!(!answer.text().contains("cancelled"), "its words count for nothing: {}", answer.text());
    }
    // One that promises `iss` and leaves it out.
    let mut browser = scene.shop.browser();
    let callback = answer_of(&scene.partners, &scene.begin(&mut browser, &scene.partners).await);
    let answer = arrive(&mut browser, &without(&callback, "iss")).await;
    ends_the_login(&browser, &answer, 400);
    assert_eq!(scene.codes_seen(), (0, 0));
}

#[tokio::test]
async fn r4_an_issuer_without_iss_is_known_by_its_callback() {
    let scene = Scene::open().await;
    scene.partners.behave(|behaviour| behaviour.sends_iss = false);
    let mut browser = scene.user(&scene.partners).await;
    assert!(is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn r4_another_issuers_id_token_logs_nobody_in() {
    let scene = Scene::open().await;
    let honest = scene.staff().url();
    scene.partners.tamper(move |draft: &mut Draft| draft.claims["iss"] = json!(honest));
    let mut browser = scene.shop.browser();
    let callback = answer_of(&scene.partners, &scene.begin(&mut browser, &scene.partners).await);
    let answer = arrive(&mut browser, &callback).await;
    ends_the_login(&browser, &answer, 400);
}

#[tokio::test]
async fn r3_two_logins_at_two_issuers_come_to_their_ends_in_any_order() {
    let scene = Scene::open().await;
    for issuer in [scene.staff(), &scene.partners] {
        issuer.tamper(|draft: &mut Draft| _ = draft.claims.as_object_mut().unwrap().remove("sid"));
    }
    let mut browser = scene.shop.browser();
    let first = answer_of(scene.staff(), &scene.begin(&mut browser, scene.staff()).await);
    let second = answer_of(&scene.partners, &scene.begin(&mut browser, &scene.partners).await);
    assert_eq!(arrive(&mut browser, &second).await.status, 200);
    let of_partners = scene.partners.living_refresh_tokens();
    assert_eq!(arrive(&mut browser, &first).await.status, 200);
    // The same `sub` at another issuer is another user, and shares no grant.
    scene.partners.until(|issuer| issuer.revoked().contains(&of_partners[0])).await;
    assert!(scene.staff().revoked().is_empty());
    assert!(is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn a_stale_callback_asks_again_at_its_own_path() {
    let scene = Scene::open().await;
    let mut browser = scene.shop.browser();
    let callback = answer_of(scene.staff(), &scene.begin(&mut browser, scene.staff()).await);
    assert_eq!(arrive(&mut browser, &callback).await.status, 200);
    let stale = arrive(&mut browser, &callback).await;
    assert_eq!(stale.headers["refresh"], "0;url=/bff/callback/staff");
    let again = browser.navigate("/bff/callback/staff").await;
    assert_eq!(again.url.path(), "/", "the user is logged in: {}", again.text());
    let mut stranger = scene.shop.browser();
    let answer = stranger.navigate("/bff/callback").await;
    offers_login(&stranger, &answer, 400);
}

#[tokio::test]
async fn each_session_is_refreshed_where_it_came_from() {
    let scene = Scene::open().await;
    let (mut staff, mut partner) = (scene.user(scene.staff()).await, scene.user(&scene.partners).await);
    scene.shop.clock.advance(Duration::from_secs(301));
    for (browser, issuer) in [(&mut staff, scene.staff()), (&mut partner, &scene.partners)] {
        let answer = browser.fetch("/api/orders").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(issuer.is_alive(&scene.shop.upstream.tokens().pop().unwrap()));
        assert_eq!(issuer.refresh_tokens_seen().len(), 1);
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_costs_the_sessions_of_the_other_nothing() {
    let mut scene = Scene::open().await;
    let mut staff = Vec::new();
    for _ in 0..8 {
        staff.push(scene.user(scene.staff()).await);
    }
    let mut partner = scene.user(&scene.partners).await;
    let mut probe = staff[0].window();
    scene.staff().fail(Endpoint::Token, Fault::status(503));
    scene.shop.clock.advance(Duration::from_secs(301));
    let mut calls = tokio::task::JoinSet::new();
    for mut browser in staff {
        calls.spawn(async move { browser.fetch("/api/orders").await.problem() });
    }
    assert!(calls.join_all().await.iter().all(|problem| problem == "issuer-unavailable"));
    // More failures than the breaker takes. Now one session at a time asks that issuer, and none but its own wait.
    scene.shop.clock.advance(Duration::from_secs(60));
    assert_eq!(probe.fetch("/api/orders").await.problem(), "issuer-unavailable");
    for _ in 0..3 {
        let answer = partner.fetch("/api/orders").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        scene.shop.clock.advance(Duration::from_secs(301));
    }
    scene.shop.issuer.stop().await;
    scene.user(&scene.partners).await;
    let ready = scene.shop.gateway.admin;
    until(async || admin(ready, "/readyz").await.1["issuers"][&scene.staff().url()] == "unavailable").await;
    let (status, body) = admin(ready, "/readyz").await;
    assert_eq!((status.as_u16(), &body["issuers"][&scene.partners.url()]), (200, &json!("available")));
}

#[tokio::test]
async fn r51_r53_a_logout_revokes_and_goes_on_where_the_session_came_from() {
    let scene = Scene::open().await;
    for (issuer, other) in [(scene.staff(), &scene.partners), (&scene.partners, scene.staff())] {
        let before = other.revoked().len();
        let mut browser = scene.user(issuer).await;
        let answer = browser.submit("/bff/logout").await;
        let url = location(&answer);
        assert!(url.as_str().starts_with(&format!("{}/end-session?", issuer.url())), "{url}");
        let hint = parameter(&url, "id_token_hint").unwrap();
        let claims = hint.split('.').nth(1).unwrap();
        let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims);
        let claims: serde_json::Value = serde_json::from_slice(&claims.unwrap()).unwrap();
        assert_eq!(claims["iss"], json!(issuer.url()));
        issuer.until(|issuer| issuer.revoked().len() == 2).await;
        assert_eq!(other.revoked().len(), before);
        let answer = browser.navigate(url.as_str()).await;
        assert_eq!(answer.url.as_str(), "https://shop.test/");
    }
}

#[tokio::test]
async fn what_an_issuer_missed_is_revoked_at_that_issuer_later() {
    let mut scene = Scene::open().await;
    let mut browser = scene.user(scene.staff()).await;
    scene.shop.issuer.stop().await;
    assert_eq!(browser.submit("/bff/logout").await.status, 303);
    scene.shop.issuer.restart().await;
    // Errands are due a while after they were missed.
    scene.shop.clock.advance(Duration::from_secs(60));
    until(async || scene.staff().revoked().len() == 2).await;
    assert!(scene.partners.revoked().is_empty());
}

async fn tell(scene: &Scene, token: &str) -> Answer {
    post_form(scene.shop.gateway.address, "/bff/backchannel-logout", &format!("logout_token={token}")).await
}

#[tokio::test]
async fn r54_a_logout_token_ends_the_sessions_of_its_own_issuer_alone() {
    let scene = Scene::open().await;
    let (mut staff, mut partner) = (scene.user(scene.staff()).await, scene.user(&scene.partners).await);
    let answer = tell(&scene, &scene.partners.logout_token(|_| {})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(is_logged_in(&mut staff).await && !is_logged_in(&mut partner).await);
    let answer = tell(&scene, &scene.staff().logout_token(|_| {})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!is_logged_in(&mut staff).await);
    assert_eq!(metric(scene.shop.gateway.admin, "cloakroom_logouts_total", "\"backchannel\"").await, 2.0);
}

#[tokio::test]
async fn r54_one_issuer_cannot_speak_for_another_in_a_logout_token() {
    let scene = Scene::open().await;
    let mut browser = scene.user(scene.staff()).await;
    let (staff, nobody) = (scene.staff().url(), "https://evil.test".to_owned());
    for alleged in [json!(staff), json!(nobody), json!([staff]), json!(null), json!(7)] {
        let token = scene.partners.logout_token(|draft| draft.claims["iss"] = alleged.clone());
        let answer = tell(&scene, &token).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (400, &json!("invalid_request")));
    }
    for token in ["", "a", "a.b", "a.b.c", "e30.e30.", "..", "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.x"] {
        assert_eq!(tell(&scene, token).await.status, 400, "{token}");
    }
    assert!(is_logged_in(&mut browser).await);
}

#[tokio::test]
async fn r56_a_frame_ends_the_sessions_of_the_issuer_it_names() {
    let scene = Scene::open().await;
    let mut browser = scene.user(&scene.partners).await;
    let (sid, staff, partners) = (scene.partners.last_sid(), scene.staff().url(), scene.partners.url());
    for (issuer, is_still_there) in [(&staff, true), (&partners, false)] {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("iss", issuer).append_pair("sid", &sid);
        let target = format!("/bff/frontchannel-logout?{}", query.finish());
        let answer = scene.shop.bare(Method::GET, &target, &[]).await;
        assert_eq!(answer.status, 200);
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.ends_with(&format!("frame-ancestors {staff} {partners}")), "{policy}");
        assert_eq!(is_logged_in(&mut browser).await, is_still_there, "{issuer}");
    }
}

#[tokio::test]
async fn rfc9470_a_better_login_is_asked_for_at_the_issuer_of_the_session() {
    let challenge = "Bearer error=\"insufficient_user_authentication\", acr_values=\"gold\"";
    let upstream = Upstream::answering(move |arrived| match arrived.headers.contains_key("authorization") {
        true => status(401, &[("www-authenticate", challenge)]),
        false => full(""),
    });
    let scene = Scene::open_before(upstream.await).await;
    for issuer in [scene.staff(), &scene.partners] {
        let mut browser = scene.user(issuer).await;
        let asked = browser.fetch("/api/orders").await.json();
        let sent = browser.visit(asked["login_url"].as_str().unwrap()).await;
        let url = location(&sent);
        assert!(url.as_str().starts_with(&format!("{}/authorize?", issuer.url())), "{url}");
        assert_eq!(parameter(&url, "acr_values").as_deref(), Some("gold"));
    }
}

/// An operator takes an issuer out of the list: nobody else is sent the refresh tokens of its sessions.
#[tokio::test]
async fn a_session_of_an_issuer_that_is_gone_ends_some_time_after_its_access_token() {
    let mut scene = Scene::open().await;
    let (mut staff, mut partner) = (scene.user(scene.staff()).await, scene.user(&scene.partners).await);
    scene.shop.setup.other_issuers = vec![("guests", "http://127.0.0.1:9".to_owned())];
    let next = scene.shop.setup.start().await;
    staff.switch_to(next.address);
    partner.switch_to(next.address);
    // Its token is about to expire, and is used.
    scene.shop.clock.advance(Duration::from_secs(250));
    for _ in 0..3 {
        let answer = partner.fetch("/api/orders").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        scene.shop.clock.advance(Duration::from_secs(10));
    }
    scene.shop.clock.advance(Duration::from_secs(30));
    assert_eq!(staff.fetch("/api/orders").await.status, 200, "the others go on");
    for _ in 0..2 {
        let answer = partner.fetch("/api/orders").await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "issuer-unavailable"));
        assert!(answer.headers.contains_key("retry-after") && !answer.clears(SESSION_COOKIE));
        scene.shop.clock.advance(Duration::from_secs(280));
    }
    scene.shop.clock.advance(Duration::from_secs(60));
    let answer = partner.fetch("/api/orders").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "session-ended"));
    assert!(answer.clears(SESSION_COOKIE));
    assert_eq!(metric(next.admin, "cloakroom_logouts_total", "\"unknown_issuer\"").await, 1.0);
    assert!(scene.partners.refresh_tokens_seen().is_empty());
    assert_eq!(scene.staff().refresh_tokens_seen().len(), 1, "its own alone");
}

/// A list is rolled out: one gateway has the issuer already, the other does not yet.
#[tokio::test]
async fn a_gateway_without_the_issuer_ends_nothing_that_another_can_refresh() {
    let mut scene = Scene::open().await;
    let mut partner = scene.user(&scene.partners).await;
    scene.shop.setup.other_issuers = vec![("guests", "http://127.0.0.1:9".to_owned())];
    let behind = scene.shop.setup.start().await;
    scene.shop.clock.advance(Duration::from_secs(310));
    partner.switch_to(behind.address);
    let answer = partner.fetch("/api/orders").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "issuer-unavailable"));
    partner.switch_to(scene.shop.gateway.address);
    assert_eq!(partner.fetch("/api/orders").await.status, 200);
    assert_eq!(scene.partners.refresh_tokens_seen().len(), 1);
    partner.switch_to(behind.address);
    assert_eq!(partner.fetch("/api/orders").await.status, 200, "the new token is good here too");
}

#[tokio::test]
async fn a_logout_of_a_session_whose_issuer_is_gone_stays_here() {
    let mut scene = Scene::open().await;
    let mut partner = scene.user(&scene.partners).await;
    scene.shop.setup.other_issuers = vec![("guests", "http://127.0.0.1:9".to_owned())];
    let next = scene.shop.setup.start().await;
    partner.switch_to(next.address);
    let answer = partner.submit("/bff/logout").await;
    assert_eq!(location(&answer).as_str(), "https://shop.test/");
    assert!(!is_logged_in(&mut partner).await);
    assert!(scene.staff().received_at(Endpoint::Revoke).is_empty(), "nobody else is sent its tokens");
}
