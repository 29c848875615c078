//! The gateway's own answers: problem documents for scripts (RFC 9457), plain pages for people, and the
//! fields that belong on both.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::body::{Body, full};
use crate::error::{Code, Refusal};

/// Who reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A person, in a navigation.
    Page,
    /// A script, or a sub-resource.
    Script,
}

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1rem}\
    h1{font-size:1.4rem}button,a.button{font:inherit;padding:.4rem 1rem}\
    @media(prefers-color-scheme:dark){body{background:#111;color:#eee}a{color:#9cf}}";

static CONTENT_SECURITY_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    HeaderValue::try_from(policy("'none'")).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// The answer to a request that is not served.
pub fn refusal(refusal: &Refusal, audience: Audience) -> Response<Body> {
    let mut response = match audience {
        Audience::Script => problem(refusal),
        Audience::Page => refusal_page(refusal),
    };
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
        Err(_) => {
            refusal(&Refusal::new(Code::Internal, "The gateway made a faulty address."), Audience::Page)
        }
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

/// The page that an app's issuers show in a frame of their own, at these addresses, and nobody else may.
pub fn logged_out<'a>(issuers: impl Iterator<Item = &'a str>) -> Response<Body> {
    let mut response = page(StatusCode::OK, "You are logged out", "", "");
    let origins = issuers.filter_map(|issuer| Some(Url::parse(issuer).ok()?.origin().ascii_serialization()));
    if let Ok(policy) = HeaderValue::try_from(policy(&origins.collect::<Vec<_>>().join(" "))) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// A page that sends the browser on to `location`, a path of the app, after a login or a silent one that found nobody.
/// It is a page and not a redirect because a redirect that began at the issuer stays cross-site, and a
/// `SameSite=Strict` cookie would not be sent with the next request.
pub fn landing(location: &str, is_logged_in: bool) -> Response<Body> {
    let location = escape(location);
    page(
        StatusCode::OK,
        if is_logged_in { "You are logged in" } else { "You are not logged in" },
        &format!("<meta http-equiv=\"refresh\" content=\"0;url={location}\">"),
        &format!("<p><a href=\"{location}\">Continue</a></p>"),
    )
}

/// A page that sends the same fields to `action` once more, now from the app's own origin: by itself, or by a button where
/// there are no scripts. It is shown in a frame too, where the app's own page made the frame.
pub fn again<'a>(
    method: &Method,
    action: &str,
    fields: impl Iterator<Item = (&'a str, &'a str)>,
) -> Response<Body> {
    let fields: String = fields
        .map(|(name, value)| {
            format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escape(name), escape(value))
        })
        .collect();
    let method = if method == Method::POST { "post" } else { "get" };
    let form = format!(
        "<form method=\"{method}\" action=\"{}\">{fields}<button type=\"submit\">Continue</button></form>",
        escape(action)
    );
    scripted(StatusCode::OK, "You are being logged in", &form, "document.forms[0].submit()")
}

/// A page without words for a frame of the app's own page, which it tells whether somebody is logged in now. No other
/// origin is told, or may frame it.
pub fn told_parent(status: StatusCode, authenticated: bool) -> Response<Body> {
    let script = if authenticated {
        "parent.postMessage({source:\"cloakroom\",authenticated:true},location.origin)"
    } else {
        "parent.postMessage({source:\"cloakroom\",authenticated:false},location.origin)"
    };
    scripted(status, "Silent login", "", script)
}

/// A page with this one script, which its policy knows by its hash.
fn scripted(status: StatusCode, title: &str, content: &str, script: &'static str) -> Response<Body> {
    let mut response = page(status, title, "", &format!("{content}<script>{script}</script>"));
    let policy = format!("{}; script-src 'sha256-{}'", policy("'self'"), hash(script));
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
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

/// The page that asks where to log in: the name of each issuer, and where it leads.
pub fn issuer_choice<'a>(choices: impl Iterator<Item = (&'a str, String)>) -> Response<Body> {
    let links = choices
        .map(|(name, location)| format!("<li><a href=\"{}\">{}</a></li>", escape(&location), escape(name)));
    let list = format!("<ul>{}</ul>", links.collect::<String>());
    page(StatusCode::OK, "Where do you want to log in?", "", &list)
}

/// The page that asks whether to log out. It ends nothing by itself.
pub fn logout_confirmation(action: &str) -> Response<Body> {
    let form = format!(
        "<form method=\"post\" action=\"{}\"><button type=\"submit\">Log out</button></form>",
        escape(action)
    );
    let mut response = page(StatusCode::OK, "Do you want to log out?", "", &form);
    // Under `no-referrer` browsers send `Origin: null` with the form, which the guard refuses.
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn problem(refusal: &Refusal) -> Response<Body> {
    let code = refusal.code;
    let kind = code.name().map_or_else(|| "about:blank".to_owned(), |name| format!("urn:cloakroom:{name}"));
    let mut document = json!({
        "type": kind,
        "title": code.title(),
        "status": code.status().as_u16(),
        "detail": refusal.detail,
    });
    if let (Some(login_url), Some(members)) = (&refusal.login_url, document.as_object_mut()) {
        members.insert("login_url".to_owned(), Value::from(login_url.clone()));
    }
    answer(code.status(), Some("application/problem+json"), document.to_string())
}

fn refusal_page(refusal: &Refusal) -> Response<Body> {
    let mut content = format!("<p>{}</p>", escape(refusal.detail));
    if let Some(login_url) = &refusal.login_url {
        content.push_str(&format!("<p><a href=\"{}\">Log in</a></p>", escape(login_url)));
    }
    page(refusal.code.status(), refusal.code.title(), "", &content)
}

fn page(status: StatusCode, title: &str, head: &str, content: &str) -> Response<Body> {
    let title = escape(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">{head}\
         <title>{title}</title><style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1>{content}</main></body></html>\n"
    );
    let mut response = answer(status, Some("text/html; charset=utf-8"), html);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY.clone());
    response
}

/// No script, no image, nothing from elsewhere; the one style sheet by its hash. `form-action` is left out on
/// purpose: it would block the redirect to the issuer that follows the logout form.
fn policy(framed_by: &str) -> String {
    let style = hash(STYLE);
    format!("default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; frame-ancestors {framed_by}")
}

fn hash(inline: &str) -> String {
    STANDARD.encode(Sha256::digest(inline))
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

/// A text from anywhere, as it stands in HTML: between tags, or in an attribute in quotes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn r20_what_stands_in_an_address_cannot_leave_its_attribute() {
        let html = text(landing("/?\"><script>alert('x')</script>&a=1", true)).await;
        assert!(!html.contains("<script>"), "{html}");
        assert!(html.contains("&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)"), "{html}");
    }

    #[tokio::test]
    async fn a_problem_document_carries_type_status_and_login_url() {
        let refused =
            Refusal::new(Code::Unauthenticated, "There is no session.").with_login_url("/bff/login");
        let response = refusal(&refused, Audience::Script);
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let document: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(document["type"], "urn:cloakroom:unauthenticated");
        assert_eq!(document["status"], 401);
        assert_eq!(document["login_url"], "/bff/login");
    }

    #[test]
    fn every_503_says_when_to_come_back() {
        for code in [Code::StoreUnavailable, Code::IssuerUnavailable, Code::Overloaded] {
            let response = refusal(&Refusal::new(code, "Away."), Audience::Script);
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key(header::RETRY_AFTER), "{code:?}");
        }
    }

    #[test]
    fn r19_every_answer_is_neither_stored_nor_names_its_address_to_others() {
        for response in [landing("/", true), see_other("/"), json(&json!({}))] {
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
            assert_eq!(response.headers()[header::REFERRER_POLICY], "no-referrer");
        }
    }
}
