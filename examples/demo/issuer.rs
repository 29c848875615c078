//! The demo's OpenID provider. It is for the demo and for nothing else, and says so on each page: the
//! passwords are printed at the start, and all it knows is gone when the process ends.
//!
//! It does what a good provider does, so that the gateway has something to stand up to: the
//! authorization code flow with PKCE S256 (RFC 7636) and `iss` in the response (RFC 9207), refresh tokens
//! that rotate, revocation (RFC 7009), logout on the client's request (RP-Initiated Logout 1.0), and word of
//! logouts that the client did not ask for (Back-Channel Logout 1.0).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use cloakroom::clock::Clock;
use cookie::Cookie;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, COOKIE, HeaderName, HeaderValue, LOCATION, ORIGIN, SET_COOKIE,
    WWW_AUTHENTICATE,
};
use http::{Request, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use url::Url;

use crate::issuer::authorization::{Authorization, Refusal, SCOPES};
use crate::issuer::grants::{ACCESS_TOKEN_LIFETIME, Caller, Code, Grants, Issued, Login, USERS, User};
use crate::issuer::key::SigningKey;
use crate::web::{Answer, Parameters, json, text, with_type};

pub mod authorization;
pub mod backchannel;
pub mod grants;
pub mod key;
pub mod pages;

const LOGIN_COOKIE: &str = "demo-issuer-login";

/// The one application that may send its users here.
#[derive(Debug)]
pub struct Client {
    /// `client_id`
    pub id: &'static str,
    /// For `client_secret_basic`.
    pub secret: String,
    /// Compared as text.
    pub redirect_uri: String,
    /// Compared as text.
    pub post_logout_redirect_uri: String,
    /// Where it wants to be told of logouts.
    pub backchannel_logout_uri: String,
}

/// The provider.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    client: Client,
    key: SigningKey,
    clock: Arc<dyn Clock>,
    grants: Mutex<Grants>,
}

impl Issuer {
    /// A provider that is reached at `url`.
    pub fn new(
        url: String,
        client: Client,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self { url, client, key: SigningKey::generate()?, clock, grants: Mutex::default() })
    }

    /// Answers a request.
    pub fn answer(&self, request: &Request<Bytes>) -> Answer {
        match (request.method().as_str(), request.uri().path()) {
            ("GET", "/") => pages::about(),
            ("GET", "/style.css") => with_type(StatusCode::OK, "text/css", pages::STYLE),
            ("GET", "/.well-known/openid-configuration") => self.discovery(),
            ("GET", "/jwks") => json(StatusCode::OK, &self.key.published()),
            ("GET", "/authorize") => self.authorize(request),
            ("POST", "/login") => self.log_in(request),
            ("POST", "/token") => self.token(request),
            ("POST", "/revoke") => self.revoke(request),
            ("GET" | "POST", "/end-session") => self.end_session(request),
            _ => text(StatusCode::NOT_FOUND, "Not found."),
        }
    }

    /// Whom an access token speaks for, while it lives; the demo's API asks here.
    pub fn caller(&self, access_token: &str) -> Option<Caller> {
        self.grants().caller(access_token, self.clock.now())
    }

    /// All that nobody but its holder may know.
    #[cfg(test)]
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets = self.grants().secrets();
        secrets.push(self.client.secret.clone());
        secrets
    }

    fn discovery(&self) -> Answer {
        let at = |path: &str| format!("{}{path}", self.url);
        json(
            StatusCode::OK,
            &json!({
                "issuer": self.url,
                "authorization_endpoint": at("/authorize"),
                "token_endpoint": at("/token"),
                "jwks_uri": at("/jwks"),
                "revocation_endpoint": at("/revoke"),
                "end_session_endpoint": at("/end-session"),
                "scopes_supported": SCOPES,
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                "revocation_endpoint_auth_methods_supported": ["client_secret_basic"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
                "backchannel_logout_supported": true,
                "backchannel_logout_session_supported": true,
                "claims_supported": ["sub", "name", "preferred_username", "email"],
            }),
        )
    }

    fn authorize(&self, request: &Request<Bytes>) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let wanted = match Authorization::parse(query, &self.client) {
            Ok(wanted) => wanted,
            Err(refusal) => return self.refuse(&refusal),
        };
        let login = self.login_of(request);
        match login.filter(|login| wanted.is_content_with(login.at, self.clock.now())) {
            Some(login) => {
                println!("  issuer   knows {} from before, and asks for no password", login.user.name);
                self.send_code(&wanted, login)
            }
            None if wanted.must_be_silent() => self.refuse(&wanted.login_required()),
            None => pages::login(query, None),
        }
    }

    fn log_in(&self, request: &Request<Bytes>) -> Answer {
        if !self.is_from_own_page(request) {
            return pages::refused("This form was sent by another site.");
        }
        let Some(form) = Parameters::parse(request.body()) else {
            return pages::refused("The form can't be read.");
        };
        let query = form.get("authorization").unwrap_or_default();
        let wanted = match Authorization::parse(query, &self.client) {
            Ok(wanted) => wanted,
            Err(refusal) => return self.refuse(&refusal),
        };
        let name = form.get("username").unwrap_or_default();
        let Some(user) =
            USERS.iter().find(|user| user.name == name && form.get("password") == Some(user.password))
        else {
            println!("  issuer   refused a wrong user name or password");
            return pages::login(query, Some(name));
        };
        println!("  issuer   {} logged in", user.name);
        let (cookie, login) = self.start_login(request, user);
        let mut answer = self.send_code(&wanted, login);
        // Lax, for every visit begins with a navigation from the app's site.
        set_cookie(&mut answer, format!("{LOGIN_COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Lax"));
        answer
    }

    fn start_login(&self, request: &Request<Bytes>, user: &'static User) -> (String, Login) {
        let now = self.clock.now();
        let mut grants = self.grants();
        if let Some(old) = cookie_of(request) {
            grants.log_out(&old);
        }
        grants.log_in(user, now)
    }

    fn send_code(&self, wanted: &Authorization, login: Login) -> Answer {
        let code = self.grants().issue_code(Code {
            login,
            redirect_uri: wanted.redirect_uri.clone(),
            challenge: wanted.challenge.clone(),
            nonce: wanted.nonce.clone(),
            scope: wanted.scope.clone(),
            issued_at: self.clock.now(),
        });
        self.redirect(&wanted.redirect_uri, &[("code", Some(&code)), ("state", wanted.state.as_deref())])
    }

    fn refuse(&self, refusal: &Refusal) -> Answer {
        match refusal {
            Refusal::Page(reason) => pages::refused(reason),
            Refusal::Redirect { redirect_uri, state, error, description } => {
                let description = ("error_description", Some(*description));
                self.redirect(
                    redirect_uri,
                    &[("error", Some(error)), description, ("state", state.as_deref())],
                )
            }
        }
    }

    /// Back to the application, with `iss`, so that no other provider's answer passes for this one's.
    fn redirect(&self, uri: &str, parameters: &[(&str, Option<&str>)]) -> Answer {
        let present = parameters.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        see_other(uri, present.chain([("iss", self.url.as_str())]))
    }

    fn token(&self, request: &Request<Bytes>) -> Answer {
        if !self.is_from_client(request) {
            return invalid_client();
        }
        let Some(form) = Parameters::parse(request.body()) else { return token_error("invalid_request") };
        let field = |name| form.get(name).unwrap_or_default();
        let now = self.clock.now();
        let outcome = match field("grant_type") {
            "authorization_code" => {
                let (code, uri, verifier) = (field("code"), field("redirect_uri"), field("code_verifier"));
                self.grants().redeem(code, uri, verifier, now).map(|(issued, nonce)| (issued, Some(nonce)))
            }
            "refresh_token" => {
                self.grants().refresh(field("refresh_token"), now).map(|issued| (issued, None))
            }
            "" => return token_error("invalid_request"),
            _ => return token_error("unsupported_grant_type"),
        };
        match outcome {
            Ok((issued, id_token_nonce)) => {
                println!("  issuer   gave out access token {} for {}", issued.number, issued.login.user.name);
                self.tokens(&issued, id_token_nonce)
            }
            Err(refused) => {
                println!("  issuer   gave out no token: {refused}");
                token_error("invalid_grant")
            }
        }
    }

    /// A login comes with an ID token; a refresh does not repeat it.
    fn tokens(&self, issued: &Issued, id_token_nonce: Option<Option<String>>) -> Answer {
        let mut body = json!({
            "access_token": issued.access_token,
            "token_type": "Bearer",
            "expires_in": ACCESS_TOKEN_LIFETIME.as_secs(),
            "scope": issued.scope,
        });
        if let Some(refresh_token) = &issued.refresh_token {
            body["refresh_token"] = json!(refresh_token);
        }
        if let Some(nonce) = id_token_nonce {
            let Ok(id_token) = self.id_token(issued, nonce) else {
                return text(StatusCode::INTERNAL_SERVER_ERROR, "The ID token can't be signed.");
            };
            body["id_token"] = json!(id_token);
        }
        json(StatusCode::OK, &body)
    }

    fn id_token(&self, issued: &Issued, nonce: Option<String>) -> jsonwebtoken::errors::Result<String> {
        let (now, login) = (self.clock.now(), &issued.login);
        let access_token_hash = &Sha256::digest(&issued.access_token)[..16];
        let mut claims = json!({
            "iss": self.url,
            "sub": login.user.name,
            "aud": self.client.id,
            "iat": now.as_secs(),
            "exp": (now + Duration::from_secs(300)).as_secs(),
            "auth_time": login.at.as_secs(),
            "sid": login.sid,
            "at_hash": URL_SAFE_NO_PAD.encode(access_token_hash),
            "name": login.user.full_name,
            "preferred_username": login.user.name,
            "email": login.user.email,
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        self.key.sign("JWT", &claims)
    }

    fn revoke(&self, request: &Request<Bytes>) -> Answer {
        if !self.is_from_client(request) {
            return invalid_client();
        }
        let Some(form) = Parameters::parse(request.body()) else { return token_error("invalid_request") };
        let Some(token) = form.get("token") else { return token_error("invalid_request") };
        if let Some((user, kind)) = self.grants().revoke(token) {
            println!("  issuer   revoked the {kind} of {}", user.name);
        }
        // An unknown token is as dead as was asked for (RFC 7009 §2.2).
        text(StatusCode::OK, "")
    }

    /// Ends the login at once where the request proves to know it, by an ID token of it; else a person
    /// has to confirm, or any site could log people out.
    fn end_session(&self, request: &Request<Bytes>) -> Answer {
        let query = if request.method() == "POST" {
            request.body().as_ref()
        } else {
            request.uri().query().unwrap_or_default().as_bytes()
        };
        let Some(parameters) = Parameters::parse(query) else {
            return pages::refused("A parameter is repeated.");
        };
        let hint = parameters.get("id_token_hint").and_then(|hint| self.key.claims(hint, self.client.id));
        let login = self.login_of(request);
        let is_proven =
            |login: &Login| hint.as_ref().is_some_and(|claims| claims.get("sid") == Some(&json!(login.sid)));
        let is_confirmed = request.method() == "POST" && self.is_from_own_page(request);
        if let Some(login) = &login
            && !is_proven(login)
            && !is_confirmed
        {
            return pages::confirm_logout(login.user.name);
        }
        if let (Some(login), Some(cookie)) = (login, cookie_of(request)) {
            println!("  issuer   {} logged out", login.user.name);
            self.grants().log_out(&cookie);
        }
        let known_uri = parameters
            .get("post_logout_redirect_uri")
            .filter(|uri| *uri == self.client.post_logout_redirect_uri);
        let mut answer = match known_uri {
            Some(uri) if hint.is_some() => {
                see_other(uri, parameters.get("state").map(|state| ("state", state)).into_iter())
            }
            _ => pages::logged_out(),
        };
        set_cookie(&mut answer, format!("{LOGIN_COOKIE}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"));
        answer
    }

    /// `client_secret_basic`, whose halves are form-encoded (RFC 6749 §2.3.1).
    fn is_from_client(&self, request: &Request<Bytes>) -> bool {
        let credentials = header(request, AUTHORIZATION)
            .and_then(|value| STANDARD.decode(value.strip_prefix("Basic ")?).ok())
            .and_then(|decoded| String::from_utf8(decoded).ok());
        let decode =
            |half: &str| form_urlencoded::parse(half.as_bytes()).next().map(|(name, _)| name.into_owned());
        credentials.as_deref().and_then(|text| text.split_once(':')).is_some_and(|(id, secret)| {
            decode(id).as_deref() == Some(self.client.id)
                && decode(secret) == Some(self.client.secret.clone())
        })
    }

    /// Whether our own page sent this form; a browser puts `Origin` on every POST, and no page can forge it.
    fn is_from_own_page(&self, request: &Request<Bytes>) -> bool {
        header(request, ORIGIN) == Some(&self.url)
    }

    fn login_of(&self, request: &Request<Bytes>) -> Option<Login> {
        self.grants().login(&cookie_of(request)?).cloned()
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn header(request: &Request<Bytes>, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

fn cookie_of(request: &Request<Bytes>) -> Option<String> {
    Cookie::split_parse(header(request, COOKIE)?)
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == LOGIN_COOKIE)
        .map(|cookie| cookie.value().to_owned())
}

fn set_cookie(answer: &mut Answer, cookie: String) {
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
}

/// A 303, so that the form's password is not sent on (RFC 9700 §4.12).
fn see_other<'a>(uri: &str, parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Answer {
    let location = Url::parse(uri).ok().and_then(|mut uri| {
        uri.query_pairs_mut().extend_pairs(parameters);
        HeaderValue::from_str(uri.as_str().trim_end_matches('?')).ok()
    });
    let Some(location) = location else { return pages::refused("The redirect_uri can't be read.") };
    let mut answer = text(StatusCode::SEE_OTHER, "");
    answer.headers_mut().insert(LOCATION, location);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn token_error(error: &str) -> Answer {
    json(StatusCode::BAD_REQUEST, &json!({"error": error}))
}

fn invalid_client() -> Answer {
    let mut answer = json(StatusCode::UNAUTHORIZED, &json!({"error": "invalid_client"}));
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"demo issuer\""));
    answer
}

#[cfg(test)]
pub mod tests {
    use cloakroom::clock::{ManualClock, Timestamp};
    use http::Response;
    use http_body_util::BodyExt;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    const CALLBACK: &str = "http://localhost:8080/bff/callback";
    const ISSUER: &str = "http://127.0.0.1:9";

    /// An issuer, its clock, and the one cookie that a browser keeps for it.
    pub struct Visit {
        pub issuer: Issuer,
        pub clock: Arc<ManualClock>,
        cookie: Option<String>,
    }

    impl Visit {
        pub fn new() -> Self {
            let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_000_000)));
            let client = Client {
                id: "demo",
                secret: "s3cret".to_owned(),
                redirect_uri: CALLBACK.to_owned(),
                post_logout_redirect_uri: "http://localhost:8080/bff/logout/callback".to_owned(),
                backchannel_logout_uri: "http://localhost:8080/bff/backchannel-logout".to_owned(),
            };
            let issuer = Issuer::new(ISSUER.to_owned(), client, Arc::<ManualClock>::clone(&clock)).unwrap();
            Self { issuer, clock, cookie: None }
        }

        fn get(&mut self, path: &str, parameters: &[(&str, &str)]) -> Answer {
            let query = encode(parameters);
            self.send(Request::get(format!("{path}?{query}")), String::new())
        }

        fn post(&mut self, path: &str, origin: &str, parameters: &[(&str, &str)]) -> Answer {
            self.send(Request::post(path).header(ORIGIN, origin), encode(parameters))
        }

        fn send(&mut self, request: http::request::Builder, body: String) -> Answer {
            let cookie = self.cookie.as_ref().map(|value| format!("other=1; {LOGIN_COOKIE}={value}"));
            let request = request.header(COOKIE, cookie.unwrap_or_default()).body(Bytes::from(body)).unwrap();
            let answer = self.issuer.answer(&request);
            if let Some(set) = answer.headers().get(SET_COOKIE) {
                let set = Cookie::parse(set.to_str().unwrap().to_owned()).unwrap();
                assert!(set.http_only().unwrap() && set.name() == LOGIN_COOKIE);
                self.cookie = Some(set.value().to_owned()).filter(|value| !value.is_empty());
            }
            answer
        }

        fn log_in(&mut self, password: &str) -> Answer {
            let authorization = encode(&authorization(&[]));
            let form =
                [("authorization", authorization.as_str()), ("username", "alice"), ("password", password)];
            self.post("/login", ISSUER, &form)
        }

        pub fn as_client(&mut self, path: &str, parameters: &[(&str, &str)]) -> (StatusCode, Value) {
            let request = Request::post(path)
                .header(AUTHORIZATION, format!("Basic {}", STANDARD.encode("demo:s3cret")));
            let answer = self.send(request, encode(parameters));
            (answer.status(), serde_json::from_str(&body(answer)).unwrap_or_default())
        }

        pub fn tokens(&mut self) -> Value {
            let answer = self.log_in("wonderland");
            let (code, verifier) = (parameter(&answer, "code").unwrap(), "verifier");
            let form = [
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", CALLBACK),
                ("code_verifier", verifier),
            ];
            let (status, tokens) = self.as_client("/token", &form);
            assert_eq!(status, StatusCode::OK, "{tokens}");
            tokens
        }
    }

    fn authorization<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        // BASE64URL(SHA-256("verifier"))
        let challenge = "iMnq5o6zALKXGivsnlom_0F5_WYda32GHkxlV7mq7hQ";
        let usual = [
            ("client_id", "demo"),
            ("redirect_uri", CALLBACK),
            ("response_type", "code"),
            ("scope", "openid profile offline_access unheard-of"),
            ("state", "st&te"),
            ("nonce", "n"),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ];
        let changed = |name| changes.iter().any(|(other, _)| *other == name);
        usual.into_iter().filter(|(name, _)| !changed(*name)).chain(changes.iter().copied()).collect()
    }

    fn encode(parameters: &[(&str, &str)]) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
    }

    pub fn body(answer: Answer) -> String {
        let collected = futures_util::FutureExt::now_or_never(answer.into_body().collect()).unwrap().unwrap();
        String::from_utf8(collected.to_bytes().to_vec()).unwrap()
    }

    fn location<T>(answer: &Response<T>) -> Option<Url> {
        answer.headers().get(LOCATION).map(|location| Url::parse(location.to_str().unwrap()).unwrap())
    }

    fn parameter<T>(answer: &Response<T>, name: &str) -> Option<String> {
        location(answer)?.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    #[test]
    fn a_login_leads_back_with_a_code_the_state_and_the_issuer() {
        let mut visit = Visit::new();
        let page = visit.get("/authorize", &authorization(&[]));
        assert_eq!(page.status(), StatusCode::OK);
        assert!(body(page).contains("part of Cloakroom's demo, and for nothing else"));
        let answer = visit.log_in("wonderland");
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        assert!(location(&answer).unwrap().as_str().starts_with(CALLBACK));
        assert_eq!(parameter(&answer, "state").as_deref(), Some("st&te"));
        assert_eq!(parameter(&answer, "iss").as_deref(), Some(ISSUER));
        assert!(parameter(&answer, "code").is_some());
    }

    #[test]
    fn a_wrong_password_is_told_and_starts_nothing() {
        let mut visit = Visit::new();
        for password in ["", "builder", "Wonderland"] {
            let answer = visit.log_in(password);
            assert_eq!((answer.status(), location(&answer)), (StatusCode::FORBIDDEN, None));
            assert!(body(answer).contains("Wrong user name or password"));
            assert_eq!(visit.cookie, None);
        }
        let form = [("authorization", &*encode(&authorization(&[]))), ("username", "\"><script>")];
        let page = body(visit.post("/login", ISSUER, &form));
        assert!(page.contains("value=\"&quot;&gt;&lt;script&gt;\"") && !page.contains("<script>"), "{page}");
    }

    #[test]
    fn a_form_of_another_site_is_refused() {
        let mut visit = Visit::new();
        let form = [
            ("authorization", &*encode(&authorization(&[]))),
            ("username", "alice"),
            ("password", "wonderland"),
        ];
        for origin in ["http://evil.example", "null", "http://localhost:8080", ""] {
            let answer = visit.post("/login", origin, &form);
            assert_eq!((answer.status(), location(&answer)), (StatusCode::BAD_REQUEST, None), "{origin}");
        }
        assert_eq!(visit.cookie, None);
    }

    #[test]
    fn a_request_of_an_unknown_client_goes_nowhere() {
        let mut visit = Visit::new();
        for change in [
            ("client_id", "other"),
            ("redirect_uri", "http://localhost:8080/bff/callback/"),
            ("redirect_uri", ""),
        ] {
            let answer = visit.get("/authorize", &authorization(&[change]));
            assert_eq!((answer.status(), location(&answer)), (StatusCode::BAD_REQUEST, None), "{change:?}");
        }
        let twice = [authorization(&[]), vec![("state", "2")]].concat();
        assert_eq!(visit.get("/authorize", &twice).status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_request_without_pkce_s256_is_sent_back() {
        let mut visit = Visit::new();
        for (change, error) in [
            (("code_challenge", ""), "invalid_request"),
            (("code_challenge_method", "plain"), "invalid_request"),
            (("response_type", "token"), "unsupported_response_type"),
            (("scope", "profile"), "invalid_scope"),
        ] {
            let answer = visit.get("/authorize", &authorization(&[change]));
            assert_eq!(parameter(&answer, "error").as_deref(), Some(error), "{change:?}");
            assert_eq!(parameter(&answer, "state").as_deref(), Some("st&te"));
            assert_eq!(parameter(&answer, "iss").as_deref(), Some(ISSUER));
        }
    }

    #[test]
    fn a_second_login_is_silent_until_logout_or_where_a_new_one_is_asked_for() {
        let mut visit = Visit::new();
        let nobody = visit.get("/authorize", &authorization(&[("prompt", "none")]));
        assert_eq!(parameter(&nobody, "error").as_deref(), Some("login_required"));
        let id_token = visit.tokens()["id_token"].as_str().unwrap().to_owned();
        assert!(parameter(&visit.get("/authorize", &authorization(&[])), "code").is_some());
        visit.clock.advance(Duration::from_secs(10));
        for anew in [("prompt", "login"), ("max_age", "9")] {
            assert_eq!(visit.get("/authorize", &authorization(&[anew])).status(), StatusCode::OK, "{anew:?}");
        }
        visit.get("/end-session", &[("id_token_hint", &id_token)]);
        assert_eq!(visit.get("/authorize", &authorization(&[])).status(), StatusCode::OK);
    }

    #[test]
    fn the_id_token_is_signed_by_the_published_key_and_tells_who_logged_in() {
        let mut visit = Visit::new();
        let tokens = visit.tokens();
        let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&body(visit.get("/jwks", &[]))).unwrap();
        let id_token = tokens["id_token"].as_str().unwrap();
        let header = jsonwebtoken::decode_header(id_token).unwrap();
        let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false; // the clock of this test stands in 1970
        validation.set_audience(&["demo"]);
        validation.set_issuer(&[ISSUER]);
        let claims = jsonwebtoken::decode::<Value>(id_token, &key, &validation).unwrap().claims;
        assert_eq!(
            (&claims["sub"], &claims["nonce"], &claims["name"]),
            (&json!("alice"), &json!("n"), &json!("Alice Liddell"))
        );
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(1_000_000), &json!(1_000_300)));
        assert_eq!(tokens["scope"], "openid profile offline_access");
        assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(60)));
    }

    #[test]
    fn tokens_are_for_the_client_alone() {
        let mut visit = Visit::new();
        for credentials in ["demo:wrong", "other:s3cret", "demo", ""] {
            for path in ["/token", "/revoke"] {
                let request = Request::post(path)
                    .header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(credentials)));
                let answer = visit.send(request, encode(&[("grant_type", "refresh_token"), ("token", "x")]));
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{credentials}");
                assert!(answer.headers().contains_key(WWW_AUTHENTICATE));
            }
        }
    }

    #[test]
    fn refresh_rotates_and_revocation_ends_it() {
        let mut visit = Visit::new();
        let first = visit.tokens();
        let refresh = |visit: &mut Visit, tokens: &Value| {
            let token = tokens["refresh_token"].as_str().unwrap();
            visit.as_client("/token", &[("grant_type", "refresh_token"), ("refresh_token", token)])
        };
        let (status, second) = refresh(&mut visit, &first);
        assert_eq!(status, StatusCode::OK);
        assert_ne!(first["refresh_token"], second["refresh_token"]);
        let token = second["refresh_token"].as_str().unwrap();
        assert_eq!(visit.as_client("/revoke", &[("token", token)]).0, StatusCode::OK);
        assert_eq!(visit.as_client("/revoke", &[("token", token)]).0, StatusCode::OK, "again");
        let (status, error) = refresh(&mut visit, &second);
        assert_eq!((status, &error["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")));
    }

    #[test]
    fn the_token_endpoint_tells_what_it_does_not_understand() {
        let mut visit = Visit::new();
        let unknown: [(&[_], _); 4] = [
            (&[], "invalid_request"),
            (&[("grant_type", "password")], "unsupported_grant_type"),
            (&[("grant_type", "refresh_token"), ("grant_type", "refresh_token")], "invalid_request"),
            (&[("grant_type", "authorization_code")], "invalid_grant"),
        ];
        for (form, error) in unknown {
            assert_eq!(
                visit.as_client("/token", form),
                (StatusCode::BAD_REQUEST, json!({"error": error})),
                "{form:?}"
            );
        }
    }

    #[test]
    fn logout_is_done_for_the_holder_of_the_id_token_and_confirmed_for_others() {
        let mut visit = Visit::new();
        let id_token = visit.tokens()["id_token"].as_str().unwrap().to_owned();
        let back = "http://localhost:8080/bff/logout/callback";
        for hint in [None, Some("forged"), Some(&id_token[..id_token.len() - 2])] {
            let mut parameters = vec![("post_logout_redirect_uri", back)];
            parameters.extend(hint.map(|hint| ("id_token_hint", hint)));
            let page = visit.get("/end-session", &parameters);
            assert_eq!(location(&page), None);
            assert!(body(page).contains("Log alice out of the demo issuer?"));
        }
        visit.post("/end-session", "http://evil.example", &[]);
        assert!(visit.cookie.is_some(), "another site's form does not log out");
        let answer = visit.get(
            "/end-session",
            &[("id_token_hint", &id_token), ("post_logout_redirect_uri", back), ("state", "s")],
        );
        assert_eq!(location(&answer).unwrap().as_str(), format!("{back}?state=s"));
        assert_eq!(visit.cookie, None);
        let answer =
            visit.get("/end-session", &[("id_token_hint", &id_token), ("post_logout_redirect_uri", back)]);
        assert_eq!(location(&answer).unwrap().as_str(), back, "a second logout is no error");
        let elsewhere =
            [("id_token_hint", id_token.as_str()), ("post_logout_redirect_uri", "http://evil.example/")];
        assert_eq!(location(&visit.get("/end-session", &elsewhere)), None);
    }

    #[test]
    fn the_id_token_of_another_login_ends_none_and_without_one_nobody_is_sent_on() {
        let mut visit = Visit::new();
        let id_token = visit.tokens()["id_token"].as_str().unwrap().to_owned();
        visit.log_in("wonderland");
        assert_eq!(
            visit.get("/end-session", &[("id_token_hint", &id_token)]).headers().get(SET_COOKIE),
            None
        );
        assert!(visit.cookie.is_some());
        visit.cookie = None;
        let back = ("post_logout_redirect_uri", "http://localhost:8080/bff/logout/callback");
        assert_eq!(location(&visit.get("/end-session", &[back])), None);
    }

    #[test]
    fn a_person_can_confirm_a_logout() {
        let mut visit = Visit::new();
        visit.log_in("wonderland");
        assert!(body(visit.post("/end-session", ISSUER, &[])).contains("You are logged out"));
        assert_eq!(visit.cookie, None);
    }

    #[test]
    fn discovery_names_endpoints_that_exist() {
        let mut visit = Visit::new();
        let discovery: Value =
            serde_json::from_str(&body(visit.get("/.well-known/openid-configuration", &[]))).unwrap();
        assert_eq!(discovery["issuer"], ISSUER);
        for (name, method) in [
            ("authorization_endpoint", "GET"),
            ("token_endpoint", "POST"),
            ("jwks_uri", "GET"),
            ("revocation_endpoint", "POST"),
            ("end_session_endpoint", "GET"),
        ] {
            let url = Url::parse(discovery[name].as_str().unwrap()).unwrap();
            let request = Request::builder().method(method).uri(url.path());
            assert_ne!(visit.send(request, String::new()).status(), StatusCode::NOT_FOUND, "{name}");
        }
    }
}
