//! A browser without a screen: it keeps cookies as RFC 6265bis says, follows redirects and `meta refresh`,
//! and sends the headers a real one would.

use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::Bytes;
use cookie::{Cookie, SameSite};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

use super::form::Form;
use super::gateway::{ORIGIN, SESSION_COOKIE};
use super::http2;
use super::https::Https;

pub struct Browser {
    /// The one app whose host leads to a gateway; every other host is reached as it is written.
    origin: Url,
    gateway: SocketAddr,
    /// Whether it speaks HTTP/2 to the gateway.
    speaks_http2: bool,
    /// How it speaks TLS to other hosts on https.
    elsewhere: Option<Https>,
    jar: Vec<Kept>,
    /// Every address that was visited, in order.
    pub visited: Vec<Url>,
}

struct Kept {
    host: String,
    cookie: Cookie<'static>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub url: Url,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Browser {
    /// A browser of the app at [`ORIGIN`].
    pub fn new(gateway: SocketAddr) -> Self {
        Self::at(ORIGIN, gateway)
    }

    /// A browser of the app at another origin.
    pub fn at(origin: &str, gateway: SocketAddr) -> Self {
        let origin = Url::parse(origin).unwrap();
        Self { origin, gateway, speaks_http2: false, elsewhere: None, jar: Vec::new(), visited: Vec::new() }
    }

    /// One that speaks HTTP/1.1 and one that speaks HTTP/2, for what must be alike in both.
    pub fn of_each_protocol(gateway: SocketAddr) -> [Self; 2] {
        [Self::new(gateway), Self { speaks_http2: true, ..Self::new(gateway) }]
    }

    /// One that speaks TLS to hosts other than the app's, which stand for `localhost`.
    pub fn with_tls_elsewhere(self, elsewhere: Https) -> Self {
        Self { elsewhere: Some(elsewhere), ..self }
    }

    /// Sends later requests to another gateway of the same app.
    pub fn switch_to(&mut self, gateway: SocketAddr) {
        self.gateway = gateway;
    }

    /// Logs in, and fails the test where the browser does not end up at `return_to`.
    pub async fn log_in(&mut self, return_to: &str) -> Answer {
        let answer = self.navigate(&format!("/bff/login?return_to={return_to}")).await;
        assert_eq!(answer.url.path(), return_to, "{} {}", answer.status, answer.text());
        assert!(self.session_cookie().is_some(), "a session cookie is set");
        answer
    }

    /// The user types an address, or follows a link of the app: goes on until there is a page.
    pub async fn navigate(&mut self, target: &str) -> Answer {
        let url = self.resolve(target);
        self.follow(page_request(&url, "none"), url, "none").await
    }

    /// The user fills the first form of a page and sends it: goes on until there is a page.
    pub async fn fill_form(&mut self, page: &Answer, fields: &[(&str, &str)]) -> Answer {
        let (request, url) = form_request(page, fields);
        self.follow(request, url, "same-origin").await
    }

    async fn follow(
        &mut self,
        mut request: Request<Full<Bytes>>,
        mut url: Url,
        mut site: &'static str,
    ) -> Answer {
        for _ in 0..20 {
            let answer = self.send(request, &url, site == "cross-site").await;
            if answer.status.is_redirection() && answer.headers.contains_key(header::LOCATION) {
                let next = url.join(answer.headers[header::LOCATION].to_str().unwrap()).unwrap();
                // Once a chain of redirects has left the site, it stays cross-site to its end.
                if next.host_str() != url.host_str() {
                    site = "cross-site";
                }
                url = next;
            } else if answer.text().contains("document.forms[0].submit()") {
                (request, url) = form_request(&answer, &[]);
                if url.host_str() != answer.url.host_str() {
                    site = "cross-site";
                    request.headers_mut().insert("sec-fetch-site", HeaderValue::from_static(site));
                } else {
                    site = "same-origin";
                }
                continue;
            } else if let Some(next) = answer.refresh() {
                url = url.join(&next).unwrap();
                site = "same-origin";
            } else {
                return answer;
            }
            request = page_request(&url, site);
        }
        panic!("more than 20 redirects: {:?}", self.visited);
    }

    /// One step of a navigation, not followed.
    pub async fn visit(&mut self, target: &str) -> Answer {
        let url = self.resolve(target);
        self.send(page_request(&url, "none"), &url, false).await
    }

    /// The app's script fetches, with the header that the gateway asks for.
    pub async fn fetch(&mut self, target: &str) -> Answer {
        self.script(Method::GET, target, &[("x-csrf", "1")], "").await
    }

    /// The app's script sends a request with these fields besides those that a browser adds by itself.
    pub async fn script(
        &mut self,
        method: Method,
        target: &str,
        fields: &[(&str, &str)],
        body: &'static str,
    ) -> Answer {
        let url = self.resolve(target);
        let mut request = Request::new(Full::new(Bytes::from_static(body.as_bytes())));
        *request.method_mut() = method.clone();
        let headers = request.headers_mut();
        headers.insert("accept", HeaderValue::from_static("*/*"));
        headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        headers.insert("sec-fetch-mode", HeaderValue::from_static("cors"));
        headers.insert("sec-fetch-dest", HeaderValue::from_static("empty"));
        if method != Method::GET {
            headers.insert("origin", self.origin().parse().unwrap());
        }
        for (name, value) in fields {
            headers.insert(
                header::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        self.send(request, &url, false).await
    }

    /// The user presses a button in a form of the app.
    pub async fn submit(&mut self, target: &str) -> Answer {
        let url = self.resolve(target);
        let mut request = page_request(&url, "same-origin");
        *request.method_mut() = Method::POST;
        request.headers_mut().insert("origin", self.origin().parse().unwrap());
        self.send(request, &url, false).await
    }

    /// Sends a request as it stands, but for cookies and `Host`.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>, url: &Url, cross_site: bool) -> Answer {
        self.visited.push(url.clone());
        let is_safe = request.method() == Method::GET;
        if let Some(cookies) = self.cookies_for(url, cross_site, is_safe) {
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        let authority = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(&authority).unwrap());
        *request.uri_mut() = url[url::Position::BeforePath..url::Position::AfterQuery].parse().unwrap();
        let address = match url.host() == self.origin.host() {
            true => self.gateway,
            false => url.socket_addrs(|| None).unwrap()[0],
        };
        let elsewhere =
            self.elsewhere.as_ref().filter(|_| url.scheme() == "https" && address != self.gateway);
        let (status, headers, body) = match (self.speaks_http2 && address == self.gateway, elsewhere) {
            (true, _) => http2::exchange(address, url, request).await,
            (false, Some(https)) => {
                exchange_over(https.connect(address).await.unwrap().stream, request).await
            }
            (false, None) => exchange(address, request).await,
        };
        self.keep_cookies(url, &headers);
        Answer { url: url.clone(), status, headers, body }
    }

    /// The value of the session cookie, where there is one.
    pub fn session_cookie(&self) -> Option<String> {
        self.cookie(match self.origin.scheme() {
            "https" => SESSION_COOKIE,
            _ => "cloakroom",
        })
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        self.jar.iter().find(|kept| kept.cookie.name() == name).map(|kept| kept.cookie.value().to_owned())
    }

    /// Names of all cookies of the app.
    pub fn cookie_names(&self) -> Vec<String> {
        self.jar
            .iter()
            .filter(|kept| Some(kept.host.as_str()) == self.origin.host_str())
            .map(|kept| kept.cookie.name().to_owned())
            .collect()
    }

    /// Puts a cookie of the app into the jar, as a thief or a bug would.
    pub fn plant(&mut self, name: &str, value: &str) {
        self.jar.retain(|kept| kept.cookie.name() != name);
        let cookie = Cookie::new(name.to_owned(), value.to_owned());
        let host = self.origin.host_str().unwrap().to_owned();
        self.jar.push(Kept { host, cookie });
    }

    /// Another window of the same browser.
    pub fn window(&self) -> Self {
        let jar = self.jar.iter().map(|kept| Kept { host: kept.host.clone(), cookie: kept.cookie.clone() });
        let (origin, speaks_http2) = (self.origin.clone(), self.speaks_http2);
        let elsewhere = self.elsewhere.clone();
        let (gateway, visited) = (self.gateway, Vec::new());
        Self { origin, gateway, speaks_http2, elsewhere, jar: jar.collect(), visited }
    }

    fn origin(&self) -> String {
        self.origin.origin().ascii_serialization()
    }

    fn resolve(&self, target: &str) -> Url {
        self.origin.join(target).unwrap()
    }

    /// A `Lax` cookie goes along with what another site leads to, and not with what it posts.
    fn cookies_for(&self, url: &Url, cross_site: bool, is_safe: bool) -> Option<HeaderValue> {
        let pairs: Vec<String> = self
            .jar
            .iter()
            .filter(|kept| Some(kept.host.as_str()) == url.host_str())
            .filter(|kept| match kept.cookie.same_site() {
                Some(SameSite::Strict) => !cross_site,
                Some(SameSite::Lax) => !cross_site || is_safe,
                Some(SameSite::None) | None => true,
            })
            .map(|kept| format!("{}={}", kept.cookie.name(), kept.cookie.value()))
            .collect();
        (!pairs.is_empty()).then(|| HeaderValue::from_str(&pairs.join("; ")).unwrap())
    }

    fn keep_cookies(&mut self, url: &Url, headers: &HeaderMap) {
        let host = url.host_str().unwrap().to_owned();
        for field in headers.get_all(header::SET_COOKIE) {
            let cookie = Cookie::parse(field.to_str().unwrap().to_owned()).unwrap();
            self.jar.retain(|kept| !(kept.host == host && kept.cookie.name() == cookie.name()));
            let is_over = cookie.expires_datetime().is_some_and(|end| end.unix_timestamp() <= 0);
            if cookie.max_age().map_or(!is_over, cookie::time::Duration::is_positive) {
                self.jar.push(Kept { host: host.clone(), cookie });
            }
        }
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.text()))
    }

    /// The CODE of a problem document.
    pub fn problem(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text());
        let kind = self.json()["type"].as_str().unwrap().to_owned();
        kind.strip_prefix("urn:cloakroom:").unwrap_or(&kind).to_owned()
    }

    pub fn set_cookies(&self) -> Vec<Cookie<'static>> {
        let fields = self.headers.get_all(header::SET_COOKIE).iter();
        fields.map(|field| Cookie::parse(field.to_str().unwrap().to_owned()).unwrap()).collect()
    }

    /// Whether the answer takes this cookie back.
    pub fn clears(&self, name: &str) -> bool {
        self.set_cookies().iter().any(|cookie| {
            cookie.name() == name
                && cookie.value().is_empty()
                && cookie.max_age().is_some_and(cookie::time::Duration::is_zero)
        })
    }

    fn refresh(&self) -> Option<String> {
        let text = self.text();
        let (_, rest) = text.split_once("http-equiv=\"refresh\" content=\"0;url=")?;
        let (target, _) = rest.split_once('"')?;
        Some(target.replace("&amp;", "&").replace("&#39;", "'").replace("&quot;", "\""))
    }
}

/// The first form of a page, as a browser posts it when it is sent.
pub fn form_request(page: &Answer, fields: &[(&str, &str)]) -> (Request<Full<Bytes>>, Url) {
    let form = Form::of(&page.text());
    let url = page.url.join(form.action.as_deref().unwrap_or_default()).unwrap();
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(&form.hidden).extend_pairs(fields);
    let mut request = page_request(&url, "same-origin").map(|_| Full::from(body.finish()));
    *request.method_mut() = Method::POST;
    let origin = page.url.origin().ascii_serialization();
    request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    (request, url)
}

fn page_request(_: &Url, site: &'static str) -> Request<Full<Bytes>> {
    let fields: HashMap<&str, &str> = [
        ("accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
        ("sec-fetch-site", site),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
        ("sec-fetch-user", "?1"),
    ]
    .into();
    let mut request = Request::new(Full::default());
    for (name, value) in fields {
        request.headers_mut().insert(
            header::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    request
}

/// One request on a connection of its own, read to its end.
pub async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, Bytes) {
    exchange_over(TcpStream::connect(address).await.unwrap(), request).await
}

async fn exchange_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> (StatusCode, HeaderMap, Bytes) {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    (head.status, head.headers, body.collect().await.unwrap().to_bytes())
}

/// A form that another server posts to a gateway.
pub async fn post_form(gateway: SocketAddr, target: &str, form: &str) -> Answer {
    let request = Request::post(target)
        .header(header::HOST, "shop.test")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(form.to_owned()));
    let (status, headers, body) = exchange(gateway, request.unwrap()).await;
    Answer { url: Url::parse(ORIGIN).unwrap().join(target).unwrap(), status, headers, body }
}

/// One of the counts that a gateway tells on its admin listener, such as `cloakroom_logouts_total{cause="admin"}`;
/// the labels stand in the order they are told in, and the first may be left out.
pub async fn metric(admin: SocketAddr, name: &str, labels: &str) -> f64 {
    let request = Request::get("/metrics").header(header::HOST, "admin").body(Full::default()).unwrap();
    let (_, _, body) = exchange(admin, request).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|line| line.contains(labels));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// A request to a gateway's admin listener.
pub async fn admin(address: SocketAddr, path: &str) -> (StatusCode, serde_json::Value) {
    let request = Request::get(path).header(header::HOST, "admin").body(Full::default()).unwrap();
    let (status, _, body) = exchange(address, request).await;
    (status, serde_json::from_slice(&body).unwrap_or_default())
}
