//! The usual scene: one app behind a gateway, its issuer and its upstream, all by one clock.

use std::net::SocketAddr;
use std::sync::Arc;

use cloakroom::clock::{Clock, ManualClock};
use http::header::{CACHE_CONTROL, HOST, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use url::Url;

use super::browser::{Answer, Browser, exchange};
use super::clock::clock;
use super::gateway::{Gateway, ORIGIN, SESSION_COOKIE, Setup};
use super::issuer::Issuer;
use super::upstream::Upstream;
use super::wait::in_time;

pub struct Shop {
    pub clock: Arc<ManualClock>,
    pub issuer: Issuer,
    pub upstream: Upstream,
    /// Starts another gateway like the one there is.
    pub setup: Setup,
    pub gateway: Gateway,
}

impl Shop {
    /// `/api` needs a session, everything else does not.
    pub async fn open() -> Self {
        Self::open_with(|_, _| {}).await
    }

    /// The same, after the issuer and the setup were changed.
    pub async fn open_with(change: impl FnOnce(&Issuer, &mut Setup)) -> Self {
        let clock = clock();
        let issuer = Issuer::start_with(clock.clone()).await;
        Self::open_among(clock, issuer, Upstream::start().await, change).await
    }

    /// The same, among these neighbours.
    pub async fn open_among(
        clock: Arc<ManualClock>,
        issuer: Issuer,
        upstream: Upstream,
        change: impl FnOnce(&Issuer, &mut Setup),
    ) -> Self {
        let mut setup = Setup::new(&issuer.url())
            .for_users("/api", &upstream.url())
            .for_anybody("/", &upstream.url())
            .clock(clock.clone());
        change(&issuer, &mut setup);
        let gateway = setup.start().await;
        Self { clock, issuer, upstream, setup, gateway }
    }

    /// The second it is.
    pub fn clock_now(&self) -> u64 {
        self.clock.now().as_secs()
    }

    pub fn browser(&self) -> Browser {
        Browser::new(self.gateway.address)
    }

    /// A browser whose user has logged in.
    pub async fn user(&self) -> Browser {
        let mut browser = self.browser();
        browser.log_in("/shop").await;
        browser
    }

    /// Begins a login with this query, lets the user say yes at the issuer, and gives the address the
    /// browser is sent back to.
    pub async fn begin(&self, browser: &mut Browser, query: &str) -> Url {
        let sent = browser.visit(&format!("/bff/login?{query}")).await;
        assert_eq!(sent.status, 303, "{}", sent.text());
        let mut callback = Url::parse(ORIGIN).unwrap().join("/bff/callback").unwrap();
        callback.query_pairs_mut().extend_pairs(self.issuer.authorize(&location(&sent)));
        callback
    }

    /// One request of these fields alone, without a browser.
    pub async fn bare(&self, method: Method, target: &str, fields: &[(&str, &str)]) -> Answer {
        bare(self.gateway.address, ORIGIN, method, target, fields).await
    }
}

/// One request of these fields alone to the app of this origin, without a browser.
pub async fn bare(
    gateway: SocketAddr,
    origin: &str,
    method: Method,
    target: &str,
    fields: &[(&str, &str)],
) -> Answer {
    let url = Url::parse(origin).unwrap().join(target).unwrap();
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = Request::builder().method(method).uri(target).header(HOST, host);
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let (status, headers, body) = in_time(exchange(gateway, request.body(Full::default()).unwrap())).await;
    Answer { url, status, headers, body }
}

/// Logs in at the app of this origin without a browser, and gives the answer that sets the session.
pub async fn log_in_bare(gateway: SocketAddr, origin: &str, base_path: &str, issuer: &Issuer) -> Answer {
    let sent = bare(gateway, origin, Method::GET, &format!("{base_path}/login"), &[]).await;
    let login = sent.set_cookies().pop().unwrap();
    let query = issuer.authorize(&location(&sent));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let cookie = format!("{}={}", login.name(), login.value());
    let target = format!("{base_path}/callback?{query}");
    let answer = bare(gateway, origin, Method::GET, &target, &[("cookie", &cookie)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

/// The browser comes from another site, such as the issuer's; what it gets is not followed.
pub async fn arrive(browser: &mut Browser, url: &Url) -> Answer {
    let request = Request::builder()
        .header("accept", "text/html")
        .header("sec-fetch-site", "cross-site")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "document")
        .body(Full::default())
        .unwrap();
    in_time(browser.send(request, url, true)).await
}

/// Nobody is logged in, and the page offers to try again.
pub fn offers_login(browser: &Browser, answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.text().contains("href=\"/bff/login"), "{}", answer.text());
    assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
    assert!(!browser.cookie_names().contains(&SESSION_COOKIE.to_owned()));
}

/// The login of this callback is over for good: its cookie is taken back.
pub fn ends_the_login(browser: &Browser, answer: &Answer, status: u16) {
    offers_login(browser, answer, status);
    assert!(browser.cookie_names().is_empty(), "{:?}", browser.cookie_names());
    if status == 503 {
        assert!(answer.headers.contains_key(RETRY_AFTER));
    }
}

/// The code of the problem that a client without a browser is told of.
pub async fn problem(shop: &Shop, browser: &Browser, callback: &Url) -> String {
    let cookies: Vec<_> = browser
        .cookie_names()
        .into_iter()
        .map(|name| format!("{name}={}", browser.cookie(&name).unwrap()))
        .collect();
    let target = &callback[url::Position::BeforePath..];
    shop.bare(Method::GET, target, &[("cookie", &cookies.join("; "))]).await.problem()
}

/// Where an answer sends the browser to.
pub fn location(answer: &Answer) -> Url {
    answer.url.join(answer.headers[LOCATION].to_str().unwrap()).unwrap()
}

/// One parameter of an address.
pub fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The address with other parameters.
pub fn with_query(url: &Url, change: impl FnOnce(&mut Vec<(String, String)>)) -> Url {
    let mut pairs: Vec<_> = url.query_pairs().into_owned().collect();
    change(&mut pairs);
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().extend_pairs(pairs);
    changed
}
