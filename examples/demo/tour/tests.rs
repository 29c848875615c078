use std::collections::{BTreeMap, BTreeSet};

use cloakroom::clock::SystemClock;
use http::header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::*;
use crate::issuer::tests::Visit;

/// For what is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// A browser at a running demo, and all that its page has got.
struct Page {
    client: Client<HttpConnector, Full<Bytes>>,
    origin: String,
    tour: Arc<Tour>,
    /// By host and name.
    cookies: BTreeMap<(String, String), String>,
    got: String,
    /// What must not be in it.
    secrets: BTreeSet<String>,
}

impl Page {
    async fn open() -> Self {
        let port = crate::free_port(0).await.unwrap();
        let neighbours = crate::start_neighbours(port).await.unwrap();
        let gateway = crate::gateway(&neighbours, None, "30m").await.unwrap();
        tokio::spawn(gateway.run(std::future::pending()));
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            origin: format!("http://localhost:{port}"),
            tour: neighbours.tour,
            cookies: BTreeMap::new(),
            got: String::new(),
            secrets: BTreeSet::new(),
        }
    }

    /// What the page gets of the gateway. Where the browser is sent on, and its cookies, no script sees.
    async fn asks(&mut self, method: &str, path: &str) -> StatusCode {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.origin));
        let mut answer = self.send(request.header("x-csrf", "1"), String::new()).await;
        answer.headers_mut().remove(LOCATION);
        answer.headers_mut().remove(SET_COOKIE);
        self.got.push_str(&format!("{:?}{}", answer.headers(), answer.body()));
        answer.status()
    }

    async fn navigates(&mut self, to: &str) -> Response<String> {
        let request = Request::get(to).header("sec-fetch-mode", "navigate").header("accept", "text/html");
        self.send(request, String::new()).await
    }

    async fn logs_in(&mut self) {
        let to_issuer = self.navigates(&format!("{}/bff/login", self.origin)).await;
        let url = url::Url::parse(to_issuer.headers()[LOCATION].to_str().unwrap()).unwrap();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("authorization", url.query().unwrap());
        form.append_pair("username", "alice").append_pair("password", "wonderland");
        let origin = url.origin().ascii_serialization();
        let request = Request::post(format!("{origin}/login")).header(ORIGIN, origin);
        let back = self.send(request, form.finish()).await;
        let callback = back.headers()[LOCATION].to_str().unwrap().to_owned();
        assert!(callback.starts_with(&self.origin), "{callback}");
        self.navigates(&callback).await;
        let cookie = self.cookies.get(&("localhost".to_owned(), "cloakroom".to_owned())).expect("a session");
        self.secrets.insert(cookie.clone());
    }

    async fn send(&mut self, request: http::request::Builder, body: String) -> Response<String> {
        let host = request.uri_ref().and_then(http::Uri::host).unwrap().to_owned();
        let own = self.cookies.iter().filter(|((of, _), _)| *of == host);
        let cookies: Vec<_> = own.map(|((_, name), value)| format!("{name}={value}")).collect();
        let request = request.header(COOKIE, cookies.join("; ")).body(Full::from(body)).unwrap();
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        for set in head.headers.get_all(SET_COOKIE) {
            let cookie = cookie::Cookie::parse(set.to_str().unwrap().to_owned()).unwrap();
            self.cookies.insert((host.clone(), cookie.name().to_owned()), cookie.value().to_owned());
        }
        let body = body.collect().await.unwrap().to_bytes();
        self.secrets.extend(self.tour.issuer.secrets());
        Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Reads events until one of them tells of this.
    async fn hears_of(&mut self, what: &str) {
        let request = Request::get(format!("{}/tour/events", self.origin)).body(Full::default()).unwrap();
        let mut events = self.client.request(request).await.unwrap().into_body();
        let heard = async {
            while !self.got.contains(what) {
                let frame = events.frame().await.unwrap().unwrap();
                self.got.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(DEADLINE, heard).await.unwrap_or_else(|_| panic!("nothing of {what}"));
    }
}

#[tokio::test]
async fn nothing_that_the_page_gets_has_a_secret_in_it() {
    let mut page = Page::open().await;
    for path in ["/", "/app.js", "/tour.js", "/words.js", "/picture.js", "/bff/client.js", "/bff/session"] {
        assert_eq!(page.asks("GET", path).await, StatusCode::OK, "{path}");
    }
    page.logs_in().await;
    assert_eq!(page.asks("GET", "/api/hello").await, StatusCode::OK);
    assert_eq!(page.asks("POST", "/tour/minute").await, StatusCode::OK);
    assert_eq!(page.asks("GET", "/api/hello").await, StatusCode::OK, "with a new token");
    assert_eq!(page.asks("GET", "/bff/session").await, StatusCode::OK);
    page.hears_of("\"POST /token\"").await;
    assert_eq!(page.asks("POST", "/tour/issuer/end-sessions").await, StatusCode::OK);
    page.hears_of("\"POST /bff/backchannel-logout\"").await;
    assert_eq!(page.asks("GET", "/api/hello").await, StatusCode::UNAUTHORIZED);
    page.logs_in().await;
    for (button, status) in [("issuer/stop", 200), ("issuer/end-sessions", 409), ("store/stop", 200)] {
        assert_eq!(page.asks("POST", &format!("/tour/{button}")).await, status, "{button}");
    }
    assert_eq!(page.asks("POST", "/tour/minute").await, StatusCode::OK);
    assert_eq!(page.asks("GET", "/api/hello").await, StatusCode::SERVICE_UNAVAILABLE);
    page.hears_of("\"failed\":true").await;

    assert!(page.secrets.len() > 12, "{} secrets: two logins and a refresh", page.secrets.len());
    for secret in &page.secrets {
        // A token is a family and a random part, and neither may be shown.
        for part in secret.split('.') {
            assert!(part.len() >= 16, "{} characters", part.len());
            assert!(
                !page.got.contains(part),
                "one of {} characters, at {:?}",
                part.len(),
                page.got.find(part)
            );
        }
    }
    assert!(!page.got.contains("eyJ"), "nor a JWT");
}

#[test]
fn no_other_site_can_press_a_button() {
    let visit = Visit::new();
    let clock = Arc::new(SkippingClock::default());
    let hops = Hops::new(String::new(), String::new());
    let tour = Arc::new(Tour::new(clock, Arc::new(visit.issuer), hops));
    for button in ["minute", "issuer/stop", "store/stop", "issuer/end-sessions"] {
        let request = Request::post(format!("/tour/{button}")).body(Bytes::new()).unwrap();
        assert_eq!(tour.answer(&request).status(), StatusCode::FORBIDDEN, "{button}");
    }
    assert!(*tour.issuer_runs().borrow() && tour.store.runs());
    assert!(tour.clock.now().since(SystemClock.now()) < ACCESS_TOKEN_LIFETIME);
}

#[tokio::test]
async fn a_stopped_issuer_is_not_there_and_a_started_one_is_where_it_was() {
    let mut page = Page::open().await;
    let url = page.navigates(&format!("{}/bff/login", page.origin)).await.headers()[LOCATION].clone();
    let issuer = url::Url::parse(url.to_str().unwrap()).unwrap().origin().ascii_serialization();
    let reach = async |wanted: bool| {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let reached = async {
            while client.get(issuer.parse().unwrap()).await.is_ok() != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.expect("the switch has an effect");
    };
    reach(true).await;
    assert_eq!(page.asks("POST", "/tour/issuer/stop").await, StatusCode::OK);
    reach(false).await;
    let login = page.navigates(&format!("{}/bff/login", page.origin)).await;
    assert_eq!(login.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(page.asks("POST", "/tour/issuer/start").await, StatusCode::OK);
    reach(true).await;
}
