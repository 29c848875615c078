//! The gateway's own answers: problem documents for scripts (RFC 9457), plain pages for people, and the
//! fields that belong on both.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::body::{Body, full};
use crate::error::{Reason, Refusal};
use crate::pages::hash;

mod page;
mod texts;

pub use crate::pages::escape;
pub use page::{Reader, again, issuer_choice, landing, logged_out, logout_confirmation, told_parent};

/// Who reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A person, in a navigation.
    Page,
    /// A script, or a sub-resource.
    Script,
}

/// The answer to a request that is not served.
pub fn refusal(refusal: &Refusal, audience: Audience, reader: &Reader<'_>) -> Response<Body> {
    match audience {
        Audience::Script => problem(refusal),
        Audience::Page => with_headers(page::refusal(refusal, reader), refusal),
    }
}

/// The same, where a script asks, or whoever it is is not known.
pub fn problem(refusal: &Refusal) -> Response<Body> {
    let code = refusal.code();
    let kind = code.name().map_or_else(|| "about:blank".to_owned(), |name| format!("urn:cloakroom:{name}"));
    let mut document = json!({
        "type": kind,
        "title": code.title(),
        "status": code.status().as_u16(),
        "detail": refusal.detail(),
        "documentation": format!("docs/refusals.md#{}", refusal.reason.name()),
    });
    if let (Some(login_url), Some(members)) = (&refusal.login_url, document.as_object_mut()) {
        members.insert("login_url".to_owned(), Value::from(login_url.clone()));
    }
    with_headers(answer(code.status(), Some("application/problem+json"), document.to_string()), refusal)
}

fn with_headers(mut response: Response<Body>, refusal: &Refusal) -> Response<Body> {
    for (name, value) in &refusal.headers {
        response.headers_mut().append(name, value.clone());
    }
    response
}

/// `303 See Other`: the browser goes on with GET (RFC 9110 §15.4.4).
pub fn see_other(location: &str) -> Response<Body> {
    match HeaderValue::try_from(location) {
        Ok(location) => {
            let mut response = answer(StatusCode::SEE_OTHER, None, "");
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Err(_) => problem(&Refusal::new(Reason::GatewayFailed)),
    }
}

/// A JSON document.
pub fn json(document: &Value) -> Response<Body> {
    answer(StatusCode::OK, Some("application/json"), document.to_string())
}

/// `200 OK`, and nothing more to say.
pub fn empty() -> Response<Body> {
    answer(StatusCode::OK, None, "")
}

/// A page for an operator, in a look of its own, with a script that may ask this address for it again. Where there are no
/// scripts, the browser does.
pub fn live_page(title: &str, style: &'static str, script: &'static str, content: &str) -> Response<Body> {
    let title = escape(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\
         <title>{title}</title><style>{style}</style></head>\
         <body><main>{content}</main><script>{script}</script></body></html>\n"
    );
    let mut response = answer(StatusCode::OK, Some("text/html; charset=utf-8"), html);
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(style),
        hash(script)
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn answer(
    status: StatusCode,
    content_type: Option<&'static str>,
    content: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    // What we say is about one person at one moment, and a page that carried a code must not leak its address.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http_body_util::BodyExt;

    use super::*;
    use crate::error::Code;
    use crate::pages::{Language, Pages};

    fn landed(location: &str) -> Response<Body> {
        landing(location, true, &Reader::new(Pages::ours(), Language::English))
    }

    async fn text(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn r20_what_stands_in_an_address_cannot_leave_its_attribute() {
        let html = text(landed("/?\"><script>alert('x')</script>&a=1")).await;
        assert!(!html.contains("<script>"), "{html}");
        assert!(html.contains("&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)"), "{html}");
    }

    #[tokio::test]
    async fn a_problem_document_carries_type_status_and_login_url() {
        let refused = Refusal::new(Reason::NoSession).with_login_url("/bff/login");
        let response = problem(&refused);
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let document: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(document["type"], "urn:cloakroom:unauthenticated");
        assert_eq!(document["status"], 401);
        assert_eq!(document["login_url"], "/bff/login");
    }

    #[test]
    fn every_503_says_when_to_come_back() {
        for reason in Reason::ALL {
            let response = problem(&Refusal::new(*reason));
            let is_503 =
                matches!(reason.code(), Code::StoreUnavailable | Code::IssuerUnavailable | Code::Overloaded);
            assert_eq!(response.status() == 503, is_503, "{reason:?}");
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), is_503, "{reason:?}");
        }
    }

    #[test]
    fn r19_every_answer_is_neither_stored_nor_names_its_address_to_others() {
        for response in [landed("/"), see_other("/"), json(&json!({}))] {
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
            assert_eq!(response.headers()[header::REFERRER_POLICY], "no-referrer");
        }
    }

    #[test]
    fn an_app_may_have_a_page_for_each_code_that_it_can_be_refused_with() {
        let codes = Reason::ALL.iter().filter(|reason| reason.code() != Code::Misdirected);
        let codes = codes.filter_map(|reason| reason.code().name());
        let names: BTreeSet<&str> = codes.chain(["error", "issuers", "logout"]).collect();
        assert!(crate::pages::NAMES.into_iter().eq(names));
    }
}
