//! Who is served while there is too much to do (R65): requests of live sessions are the last to be refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Method, StatusCode};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;

use crate::support::browser::{Answer, Browser, admin};
use crate::support::clock::clock;
use crate::support::gateway::{Gateway, ORIGIN, Setup};
use crate::support::issuer::Issuer;
use crate::support::shop::{Shop, bare};
use crate::support::troubled_store::{Step, Trouble, TroubledStore};
use crate::support::upstream::{Upstream, full};
use crate::support::wait::until;
use crate::support::wire::{Wire, head};

const SCRIPT: (&str, &str) = ("x-csrf", "1");
const PAGE: [(&str, &str); 2] = [("sec-fetch-mode", "navigate"), ("accept", "text/html")];

/// A shop with few places, whose upstream answers once it is told to.
struct Busy {
    shop: Shop,
    store: Arc<TroubledStore>,
    arrived: Arc<AtomicUsize>,
    answers: watch::Sender<bool>,
    waiting: JoinSet<StatusCode>,
}

impl Busy {
    /// Five places, of which the last is for live sessions.
    async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    async fn open_with(change: impl FnOnce(&mut Setup)) -> Self {
        let (answers, answering) = watch::channel(true);
        let arrived = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&arrived);
        let upstream = Upstream::raw(move |_| {
            let (mut answering, count) = (answering.clone(), Arc::clone(&count));
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                answering.wait_for(|answering| *answering).await.unwrap();
                full("served")
            }
        })
        .await;
        let clock = clock();
        let store = Arc::new(TroubledStore::new(clock.clone()));
        let stand_in = store.clone();
        let issuer = Issuer::start_with(clock.clone()).await;
        let shop = Shop::open_among(clock, issuer, upstream, |_, setup| {
            setup.limits = "requests: 5".to_owned();
            setup.stand_in = Some(stand_in);
            change(setup);
        })
        .await;
        Self { shop, store, arrived, answers, waiting: JoinSet::new() }
    }

    /// Lets so many requests of nobody wait for the upstream.
    async fn fill(&mut self, gateway: &Gateway, number: usize) {
        self.answers.send_replace(false);
        let expected = self.arrived.load(Ordering::SeqCst) + number;
        for _ in 0..number {
            let address = gateway.address;
            self.waiting.spawn(async move { bare(address, ORIGIN, Method::GET, "/", &[]).await.status });
        }
        let arrived = Arc::clone(&self.arrived);
        until(async || arrived.load(Ordering::SeqCst) == expected).await;
    }

    /// One of a live session, which gets its place.
    async fn fill_as_user(&mut self, gateway: &Gateway, cookie: &str) {
        let (address, cookie) = (gateway.address, format!("__Host-cloakroom={cookie}"));
        let expected = self.arrived.load(Ordering::SeqCst) + 1;
        self.waiting.spawn(async move {
            let fields = [SCRIPT, ("cookie", cookie.as_str())];
            bare(address, ORIGIN, Method::GET, "/api", &fields).await.status
        });
        let arrived = Arc::clone(&self.arrived);
        until(async || arrived.load(Ordering::SeqCst) == expected).await;
    }

    /// The upstream answers all who wait.
    async fn release(&mut self) {
        self.answers.send_replace(true);
        while let Some(status) = self.waiting.join_next().await {
            assert_eq!(status.unwrap(), 200);
        }
    }
}

async fn ask(gateway: &Gateway, target: &str, cookie: Option<&str>) -> Answer {
    let cookie = cookie.map(|cookie| format!("__Host-cloakroom={cookie}"));
    let cookie = cookie.as_ref().map(|cookie| ("cookie", cookie.as_str()));
    let fields: Vec<_> = [SCRIPT].into_iter().chain(cookie).collect();
    bare(gateway.address, ORIGIN, Method::GET, target, &fields).await
}

fn is_shed(answer: &Answer) -> bool {
    let is_shed = answer.status == 503;
    if is_shed {
        assert_eq!(answer.problem(), "overloaded");
        assert!(answer.headers[RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    }
    is_shed
}

#[tokio::test]
async fn r65_requests_of_live_sessions_are_the_last_to_be_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "an app").unwrap();
    let files = format!("path: /files, files: \"{}\"", folder.path().display());
    let mut busy = Busy::open_with(|setup| setup.add_route(&files)).await;
    let gateway = busy.shop.setup.start().await;
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/shop").await;
    let cookie = browser.session_cookie().unwrap();

    busy.fill(&gateway, 4).await;
    let arrived = busy.arrived.load(Ordering::SeqCst);
    for target in ["/", "/files/index.html", "/api"] {
        assert!(is_shed(&ask(&gateway, target, None).await), "{target}");
    }
    assert!(is_shed(&ask(&gateway, "/", Some(&cookie)).await), "the route looks at no session");
    let login = bare(gateway.address, ORIGIN, Method::GET, "/bff/login", &PAGE).await;
    assert_eq!(login.status, 503);
    assert!(login.text().contains("<h1>Too many people are here at the moment</h1>"), "{}", login.text());
    for target in
        ["/bff/session", "/bff/callback?state=x", "/bff/frontchannel-logout", "/bff/logout/callback"]
    {
        let answer = ask(&gateway, target, None).await;
        assert!(is_shed(&answer), "what anybody can call has no claim to the last places: {target}");
    }
    let told = bare(gateway.address, ORIGIN, Method::POST, "/bff/backchannel-logout", &[]).await;
    assert!(is_shed(&told));
    assert_eq!(busy.arrived.load(Ordering::SeqCst), arrived);
    assert_eq!(browser.fetch("/bff/session").await.json()["authenticated"], true);

    busy.fill_as_user(&gateway, &cookie).await;
    assert!(is_shed(&ask(&gateway, "/api", Some(&cookie)).await));
    assert!(is_shed(&ask(&gateway, "/bff/session", Some(&cookie)).await));
    for path in ["/livez", "/readyz"] {
        assert_eq!(admin(gateway.admin, path).await.0, 200, "{path}");
    }

    busy.release().await;
    assert_eq!(ask(&gateway, "/", None).await.status, 200);
    assert_eq!(browser.fetch("/api").await.status, 200);
    assert_eq!(ask(&gateway, "/files/index.html", None).await.status, 200);
}

#[tokio::test]
async fn r65_a_session_that_this_gateway_does_not_know_yet_is_looked_for_and_no_forged_one() {
    let mut busy = Busy::open().await;
    let cookie = busy.shop.user().await.session_cookie().unwrap();
    let elsewhere = busy.shop.setup.start().await;
    busy.fill(&elsewhere, 4).await;
    busy.store.begin(Step::Any, Trouble::Fails);
    assert!(is_shed(&ask(&elsewhere, "/api", Some("forged")).await));
    assert!(is_shed(&ask(&elsewhere, "/api", None).await));
    assert_eq!(busy.store.arrived(), 0, "refused before the store is asked");
    busy.store.end();
    busy.fill_as_user(&elsewhere, &cookie).await;
    busy.release().await;
}

#[tokio::test]
async fn r65_a_cookie_whose_session_has_ended_is_worth_no_place() {
    let mut busy = Busy::open_with(|setup| {
        setup.routes = setup.routes.replace("path: /api,", "path: /api, auth: optional,");
    })
    .await;
    let gateway = busy.shop.setup.start().await;
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/shop").await;
    let cookie = browser.session_cookie().unwrap();
    browser.script(Method::POST, "/bff/logout", &[SCRIPT, ("accept", "application/json")], "").await;
    busy.fill(&gateway, 4).await;
    assert!(is_shed(&ask(&gateway, "/api", Some(&cookie)).await));
    busy.release().await;
    assert_eq!(ask(&gateway, "/api", Some(&cookie)).await.status, 200);
}

#[tokio::test]
async fn r65_whoever_goes_away_gives_the_place_up() {
    let mut busy = Busy::open().await;
    let gateway = busy.shop.setup.start().await;
    busy.fill(&gateway, 3).await;
    let mut leaving = Wire::connect(gateway.address).await;
    leaving.send(head("GET /", "")).await;
    until(async || is_full(&gateway).await).await;
    drop(leaving);
    until(async || !is_full(&gateway).await).await;
    busy.release().await;
}

/// Whether a login finds no place.
async fn is_full(gateway: &Gateway) -> bool {
    bare(gateway.address, ORIGIN, Method::GET, "/bff/login", &PAGE).await.status == 503
}

#[tokio::test]
async fn r65_a_gateway_that_comes_too_late_to_its_work_serves_live_sessions_and_then_everybody_again() {
    let shop = Shop::open().await;
    let mut user = shop.user().await;
    // The gateway runs on this very thread.
    for _ in 0..20 {
        let until = Instant::now() + Duration::from_millis(450);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        for _ in 0..5 {
            yield_now().await;
        }
        if is_full(&shop.gateway).await {
            break;
        }
    }
    assert!(is_shed(&shop.bare(Method::GET, "/", &[]).await));
    assert_eq!(user.fetch("/api").await.status, 200);
    until(async || shop.bare(Method::GET, "/", &[]).await.status == 200).await;
}
