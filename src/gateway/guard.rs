//! Is this request the app's own, and does a person or a script wait for the answer?
//!
//! Fetch Metadata first, `Origin` where it is absent (R48). A cookie's `SameSite` counts for nothing
//! here: to a browser a sibling subdomain is the same site.

use http::{HeaderMap, HeaderName, Method, Request, header};

use crate::config::{Csrf, Origin};
use crate::error::{Reason, Refusal};
use crate::fields::accepts;
use crate::pages::Language;
use crate::respond::Audience;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const X_CSRF: HeaderName = HeaderName::from_static("x-csrf");

/// What the headers say of where the request was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Initiator {
    /// The app itself, or its user by hand.
    Own,
    /// Another site, or a sibling subdomain.
    Foreign,
    /// The headers do not say.
    Unknown,
}

/// Whether a person or a script waits for the answer.
pub(super) fn audience<B>(request: &Request<B>) -> Audience {
    let headers = request.headers();
    let navigates = match text(headers, &SEC_FETCH_MODE) {
        Some(mode) => mode == "navigate",
        None => accepts(headers, "text/html") && !says_script(headers),
    };
    if navigates { Audience::Page } else { Audience::Script }
}

/// The language that a person is answered in; a script is in English.
pub(super) fn language<B>(request: &Request<B>, audience: Audience) -> Language {
    match audience {
        Audience::Page => Language::of_browser(request.headers()),
        Audience::Script => Language::English,
    }
}

/// Where the request was made.
fn initiator(headers: &HeaderMap, origin: &Origin) -> Initiator {
    let site = text(headers, &SEC_FETCH_SITE);
    let from = headers.get(header::ORIGIN);
    if site.is_some_and(|site| site != "same-origin" && site != "none")
        || from.is_some_and(|from| from.as_bytes() != origin.as_str().as_bytes())
    {
        Initiator::Foreign
    } else if site.is_some() || from.is_some() {
        Initiator::Own
    } else {
        Initiator::Unknown
    }
}

/// Whether the headers say that another site made the request.
pub(super) fn is_foreign(headers: &HeaderMap, origin: &Origin) -> bool {
    initiator(headers, origin) == Initiator::Foreign
}

/// Whether the request carries `X-CSRF: 1`, once: a field that no other site can make a browser send.
fn has_csrf_header(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(X_CSRF).iter();
    values.next().is_some_and(|value| value == "1") && values.next().is_none()
}

/// Whether the request may use the session of a route that is guarded in this way.
pub(super) fn route(
    headers: &HeaderMap,
    origin: &Origin,
    csrf: Csrf,
    websocket: bool,
) -> Result<(), Refusal> {
    let initiator = initiator(headers, origin);
    match (csrf, websocket) {
        (Csrf::Off, false) => Ok(()),
        // A script cannot add fields to a handshake, but browsers always name its origin (R49).
        (_, true) if headers.contains_key(header::ORIGIN) && initiator == Initiator::Own => Ok(()),
        (_, true) => Err(Refusal::new(Reason::WebsocketOrigin)),
        (_, false) if initiator == Initiator::Foreign => Err(foreign(headers, origin)),
        (Csrf::Header, false) if has_csrf_header(headers) => Ok(()),
        (Csrf::Header, false) => Err(header_missing()),
        (Csrf::SameOrigin, false) if initiator == Initiator::Own => Ok(()),
        (Csrf::SameOrigin, false) => Err(Refusal::new(Reason::OriginUnproven)),
    }
}

/// A login begins by a navigation alone, never by a script or a sub-resource (R6); in a frame of the app's own page
/// only a silent one does, which shows nobody anything. Where there is no Fetch Metadata, a client that says nothing of
/// itself passes, as one on a command line does.
pub(super) fn login<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    let refused = match (text(headers, &SEC_FETCH_MODE), text(headers, &SEC_FETCH_DEST)) {
        (None, None) => {
            let takes_anything = headers.get(header::ACCEPT).is_none_or(|accept| accept == "*/*");
            // A navigation by GET has no `Origin`.
            let says_origin = headers.contains_key(header::ORIGIN) && request.method() == Method::GET;
            says_script(headers) || says_origin || !(takes_anything || accepts(headers, "text/html"))
        }
        (mode, destination) => {
            let is_shown = destination.is_none_or(|dest| {
                dest == "document" || dest == "iframe" && is_silent(request) && is_same_origin(headers)
            });
            mode.is_some_and(|mode| mode != "navigate") || !is_shown
        }
    };
    if refused {
        return Err(Refusal::new(Reason::LoginByScript));
    }
    Ok(())
}

/// A login by `prompt=none` and by nothing else.
fn is_silent<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let mut prompts = form_urlencoded::parse(query).filter(|(name, _)| name == "prompt");
    request.method() == Method::GET
        && prompts.next().is_some_and(|(_, prompt)| prompt == "none")
        && prompts.next().is_none()
}

/// The app's own page has made the request, and no redirect from elsewhere has led to it.
fn is_same_origin(headers: &HeaderMap) -> bool {
    text(headers, &SEC_FETCH_SITE) == Some("same-origin")
}

/// `session` is read, and a login on another device begun and followed, by scripts of the app alone.
pub(super) fn session(headers: &HeaderMap, origin: &Origin) -> Result<(), Refusal> {
    route(headers, origin, Csrf::Header, false)
}

/// A logout comes from the app's script with `X-CSRF: 1`, or from a form on one of its own pages.
pub(super) fn logout<B>(request: &Request<B>, origin: &Origin) -> Result<(), Refusal> {
    if request.method() != Method::POST {
        return Ok(());
    }
    let headers = request.headers();
    match initiator(headers, origin) {
        Initiator::Foreign => Err(foreign(headers, origin)),
        Initiator::Own | Initiator::Unknown if has_csrf_header(headers) => Ok(()),
        Initiator::Own if is_form(headers) => Ok(()),
        Initiator::Own | Initiator::Unknown => Err(header_missing()),
    }
}

/// Fields that scripts alone can set.
fn says_script(headers: &HeaderMap) -> bool {
    headers.contains_key(X_CSRF) || headers.contains_key("x-requested-with")
}

fn is_form(headers: &HeaderMap) -> bool {
    text(headers, &SEC_FETCH_MODE)
        .map_or_else(|| !accepts(headers, "application/json"), |mode| mode == "navigate")
}

fn foreign(headers: &HeaderMap, origin: &Origin) -> Refusal {
    let sign = match text(headers, &SEC_FETCH_SITE) {
        Some(site @ ("cross-site" | "same-site")) => format!("Sec-Fetch-Site is {site}."),
        Some(_) | None => format!("Origin is not {}.", origin.as_str()),
    };
    Refusal::new(Reason::ForeignOrigin).saying(sign)
}

fn header_missing() -> Refusal {
    Refusal::new(Reason::CsrfHeaderMissing)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    // A value that is not text is there, but equals nothing.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Origin {
        Origin::parse("https://shop.example.com").unwrap()
    }

    fn request(method: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().method(method).uri("/");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn refuses(csrf: Csrf, websocket: bool, fields: &[(&str, &str)]) -> bool {
        route(request("GET", fields).headers(), &own(), csrf, websocket).is_err()
    }

    #[test]
    fn r47_the_header_is_wanted_on_reads_too_and_exactly_once() {
        assert!(refuses(Csrf::Header, false, &[]));
        assert!(refuses(Csrf::Header, false, &[("sec-fetch-site", "same-origin")]));
        assert!(refuses(Csrf::Header, false, &[("x-csrf", "0")]));
        assert!(refuses(Csrf::Header, false, &[("x-csrf", "1"), ("x-csrf", "1")]));
        assert!(!refuses(Csrf::Header, false, &[("x-csrf", "1")]));
    }

    #[test]
    fn r48_another_site_is_refused_whatever_else_it_sends() {
        for csrf in [Csrf::Header, Csrf::SameOrigin] {
            for foreign in [
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-site", "same-site"),
                ("origin", "https://evil.example.com"),
                ("origin", "null"),
                ("origin", "http://shop.example.com"),
                ("origin", "https://shop.example.com:8443"),
            ] {
                assert!(refuses(csrf, false, &[("x-csrf", "1"), foreign]), "{csrf:?} {foreign:?}");
            }
        }
    }

    #[test]
    fn r48_same_origin_takes_fetch_metadata_or_the_origin_and_nothing_less() {
        assert!(!refuses(Csrf::SameOrigin, false, &[("sec-fetch-site", "same-origin")]));
        assert!(!refuses(Csrf::SameOrigin, false, &[("sec-fetch-site", "none")]));
        assert!(!refuses(Csrf::SameOrigin, false, &[("origin", "https://shop.example.com")]));
        assert!(refuses(Csrf::SameOrigin, false, &[]));
        assert!(refuses(Csrf::SameOrigin, false, &[("x-csrf", "1")]));
    }

    #[test]
    fn r49_a_websocket_needs_the_exact_origin_in_every_mode() {
        for csrf in [Csrf::Header, Csrf::SameOrigin, Csrf::Off] {
            assert!(!refuses(csrf, true, &[("origin", "https://shop.example.com")]));
            assert!(refuses(csrf, true, &[("origin", "https://shop.example.com.evil.test")]));
            assert!(refuses(csrf, true, &[("x-csrf", "1")]));
            assert!(refuses(csrf, true, &[("sec-fetch-site", "same-origin")]));
        }
    }

    #[test]
    fn r6_scripts_and_sub_resources_start_no_login() {
        let refused = |fields: &[(&str, &str)]| login(&request("GET", fields)).is_err();
        assert!(refused(&[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")]));
        assert!(refused(&[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]));
        assert!(refused(&[("sec-fetch-mode", "cors"), ("accept", "text/html")]));
        assert!(refused(&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]));
        assert!(refused(&[("accept", "application/json")]));
        assert!(refused(&[("accept", "image/avif,image/webp")]));
        assert!(refused(&[("accept", "*/*"), ("x-csrf", "1")]));
        assert!(!refused(&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]));
        assert!(refused(&[("accept", "image/webp,*/*;q=0.8")]));
        assert!(refused(&[("accept", "*/*"), ("origin", "https://evil.example.com")]));
        assert!(!refused(&[("accept", "text/html,application/xhtml+xml")]));
        assert!(!refused(&[("accept", "*/*")]));
        assert!(!refused(&[]));
    }

    #[test]
    fn a_logout_form_needs_a_sign_that_it_is_the_apps_own() {
        let refused = |fields: &[(&str, &str)]| logout(&request("POST", fields), &own()).is_err();
        assert!(refused(&[("accept", "text/html")]), "neither Origin nor Fetch Metadata");
        assert!(refused(&[("origin", "null")]));
        assert!(refused(&[("origin", "https://shop.example.com"), ("accept", "application/json")]));
        assert!(refused(&[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")]));
        assert!(!refused(&[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate")]));
        assert!(!refused(&[("origin", "https://shop.example.com"), ("accept", "text/html")]));
        assert!(!refused(&[("x-csrf", "1")]));
        assert!(logout(&request("GET", &[]), &own()).is_ok(), "the confirmation page ends nothing");
    }
}
