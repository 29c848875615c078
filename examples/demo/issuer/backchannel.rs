//! How the issuer ends logins by itself, as an administrator does, and tells the client of it (OpenID Connect
//! Back-Channel Logout 1.0 §2.4, §2.5).

use std::time::Duration;

use bytes::Bytes;
use cloakroom::random::Random;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::issuer::Issuer;
use crate::issuer::grants::Login;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

const LIFETIME: Duration = Duration::from_secs(120);

impl Issuer {
    /// Ends everybody's login, and gives what is to be sent to the client for that.
    pub fn end_all_logins(&self) -> Vec<Request<Full<Bytes>>> {
        let logins = self.grants().log_everybody_out();
        println!("  issuer   ended {} logins, and tells the gateway", logins.len());
        logins.iter().filter_map(|login| self.word_of_logout(login)).collect()
    }

    fn word_of_logout(&self, login: &Login) -> Option<Request<Full<Bytes>>> {
        let token = self.key.sign("logout+jwt", &self.logout_claims(login)).ok()?;
        let form =
            form_urlencoded::Serializer::new(String::new()).append_pair("logout_token", &token).finish();
        Request::post(&self.client.backchannel_logout_uri)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form))
            .ok()
    }

    fn logout_claims(&self, login: &Login) -> Value {
        let now = self.clock.now();
        json!({
            "iss": self.url,
            "aud": self.client.id,
            "sub": login.user.name,
            "sid": login.sid,
            "iat": now.as_secs(),
            "exp": (now + LIFETIME).as_secs(),
            "jti": Random::SYSTEM.token::<16>(),
            "events": {EVENT: {}},
        })
    }
}

/// Sends them off. What the client does not take is lost: a real provider would try again.
pub async fn send(requests: Vec<Request<Full<Bytes>>>) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    for request in requests {
        match client.request(request).await.map(|answer| answer.status()) {
            Ok(StatusCode::OK) => {}
            Ok(status) => println!("  issuer   was answered {status} to a logout"),
            Err(error) => println!("  issuer   could not tell of a logout: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::issuer::tests::Visit;

    #[test]
    fn each_login_is_ended_once_and_told_of_by_a_signed_token_without_a_nonce() {
        let mut visit = Visit::new();
        let tokens = visit.tokens();
        let [request] = visit.issuer.end_all_logins().try_into().unwrap();
        assert_eq!(request.uri(), "http://localhost:8080/bff/backchannel-logout");
        let body = futures_util::FutureExt::now_or_never(request.into_body().collect()).unwrap().unwrap();
        let (_, token) = form_urlencoded::parse(&body.to_bytes()).into_owned().next().unwrap();
        assert_eq!(jsonwebtoken::decode_header(&token).unwrap().typ.as_deref(), Some("logout+jwt"));
        let claims = |token: &str| visit.issuer.key.claims(token, "demo").unwrap();
        let (logout, login) = (claims(&token), claims(tokens["id_token"].as_str().unwrap()));
        assert_eq!((&logout["sid"], &logout["sub"]), (&login["sid"], &login["sub"]));
        assert!(logout["events"][EVENT].is_object() && !logout.contains_key("nonce"));
        assert!(visit.issuer.end_all_logins().is_empty());
    }
}
