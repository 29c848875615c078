//! The demo's API, behind the gateway: it tells who calls, and what it saw of the request. A real API
//! would check a signature or ask the issuer's introspection endpoint; this one asks the issuer next door.

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Map, Value, json};

use crate::issuer::Issuer;
use crate::web::{Answer, json};

/// Answers a request.
pub fn answer(issuer: &Issuer, request: &Request<Bytes>) -> Answer {
    if request.uri().path() != "/api/hello" {
        return json(StatusCode::NOT_FOUND, &json!({"error": "there is only /api/hello"}));
    }
    let Some(token) = bearer_token(request.headers()) else { return unauthorized("Bearer") };
    let Some(caller) = issuer.caller(token) else { return unauthorized("Bearer error=\"invalid_token\"") };
    println!("  api      answered {}, who came with access token {}", caller.user.name, caller.number);
    json(
        StatusCode::OK,
        &json!({
            "hello": caller.user.full_name,
            "subject": caller.user.name,
            "scope": caller.scope,
            "access_token": {"number": caller.number, "expires_in": caller.expires_in.as_secs()},
            "request": {"method": request.method().as_str(), "path": request.uri().path()},
            "headers": shown(request.headers()),
        }),
    )
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// All header fields, but for the token: the answer goes to the browser, where no token may come. Nor may the
/// cookies of other programs on this host, which its scripts could not read.
fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let show = |name: &HeaderName, value: &HeaderValue| match name == AUTHORIZATION || name == COOKIE {
        true => "present".to_owned(),
        false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    headers.iter().map(|(name, value)| (name.to_string(), json!(show(name, value)))).collect()
}

/// What is wrong with the token, where there is one, is said in the terms of RFC 6750 §3.
fn unauthorized(challenge: &'static str) -> Answer {
    let mut answer = json(StatusCode::UNAUTHORIZED, &json!({"error": "a valid access token is needed"}));
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::issuer::tests::{Visit, body};

    fn call(visit: &Visit, token: Option<&str>) -> (StatusCode, Option<String>, String) {
        let mut request = Request::get("/api/hello").header("x-request-id", "r-1").header(COOKIE, "other=1");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("bearer {token}"));
        }
        let answer = answer(&visit.issuer, &request.body(Bytes::new()).unwrap());
        let challenge =
            answer.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
        (answer.status(), challenge, body(answer))
    }

    #[test]
    fn the_api_tells_who_calls_and_what_it_saw_but_not_the_token() {
        let mut visit = Visit::new();
        let token = visit.tokens()["access_token"].as_str().unwrap().to_owned();
        let (status, _, body) = call(&visit, Some(&token));
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &answer["subject"]), (StatusCode::OK, &json!("alice")));
        assert_eq!(answer["access_token"], json!({"number": 1, "expires_in": 60}));
        assert_eq!(
            answer["headers"],
            json!({"authorization": "present", "cookie": "present", "x-request-id": "r-1"})
        );
        assert!(!body.contains(&token) && !body.contains("other"));
    }

    #[test]
    fn the_api_refuses_a_missing_a_forged_and_a_dead_token() {
        let mut visit = Visit::new();
        let token = visit.tokens()["access_token"].as_str().unwrap().to_owned();
        let invalid = Some("Bearer error=\"invalid_token\"".to_owned());
        let refusal = |(status, challenge, _)| (status, challenge);
        assert_eq!(refusal(call(&visit, None)), (StatusCode::UNAUTHORIZED, Some("Bearer".to_owned())));
        assert_eq!(refusal(call(&visit, Some("forged"))), (StatusCode::UNAUTHORIZED, invalid.clone()));
        visit.clock.advance(Duration::from_secs(60));
        assert_eq!(refusal(call(&visit, Some(&token))), (StatusCode::UNAUTHORIZED, invalid));
    }
}
