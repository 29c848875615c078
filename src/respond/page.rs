//! Pages for people. What they say is in `texts`, how it looks in `pages/page.html`, or in what an app has in its place.

use http::{HeaderValue, Method, Response, StatusCode, header};
use url::Url;

use super::answer;
use super::texts::{Offer, Texts};
use crate::body::Body;
use crate::error::Refusal;
use crate::pages::{Action, Choice, Field, Language, Pages, Values, hash};
use crate::telemetry::RequestId;

/// For whom a page is: an app's user, who reads one language best.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pages: &'a Pages,
    language: Language,
}

impl<'a> Reader<'a> {
    /// A user of the app that has these pages.
    pub fn new(pages: &'a Pages, language: Language) -> Self {
        Self { pages, language }
    }

    /// The same, where it is known better which language they read.
    #[must_use]
    pub fn preferring(self, language: Option<Language>) -> Self {
        Self { language: language.unwrap_or(self.language), ..self }
    }

    fn texts(&self) -> &'static Texts {
        Texts::of(self.language)
    }

    /// The page of this name, or the only one of ours, which says this.
    fn page(
        &self,
        status: StatusCode,
        name: Option<&str>,
        values: &Values<'_>,
        framed_by: &str,
    ) -> Response<Body> {
        let tag = self.language.tag();
        let page = self.pages.render(name, &Values { lang: tag, ..values.clone() });
        let mut response = answer(status, Some("text/html; charset=utf-8"), page.html);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(tag));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Language"));
        // No script, nothing from elsewhere. `form-action` is left out on purpose: it would block the redirect to the issuer
        // that follows the logout form.
        let script =
            values.script.map(|script| format!("; script-src 'sha256-{}'", hash(script))).unwrap_or_default();
        let policy = format!(
            "default-src 'none'; {}; base-uri 'none'; frame-ancestors {framed_by}{script}",
            page.allowed
        );
        let policy = HeaderValue::try_from(policy);
        let policy =
            policy.unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        response
    }
}

/// What a person is told who navigated to what is refused: what happened, and one thing to do next.
pub(super) fn refusal(refusal: &Refusal, reader: &Reader<'_>) -> Response<Body> {
    let reader = reader.preferring(refusal.language);
    let (texts, code) = (reader.texts(), refusal.code());
    let notice = (texts.refusal)(refusal.reason);
    let request_id = RequestId::current();
    let request_id = request_id.as_ref().map(RequestId::as_str);
    let reason = refusal.reason.name();
    let reference = [texts.reference, reason, request_id.unwrap_or_default()].join(" ");
    let link = |url, label| Some(Action { url, label, ..Action::default() });
    let action = match (&refusal.login_url, Offer::of(code)) {
        (Some(login_url), _) => link(login_url.as_str(), texts.log_in),
        // The address of the page itself.
        (None, Offer::TryAgain) => link("", texts.try_again),
        (None, Offer::GoToApp) => link("/", texts.go_to_app),
        (None, Offer::Nothing) => None,
    };
    let values = Values {
        title: notice.title,
        detail: Some(notice.detail),
        status: Some(code.status().as_u16()),
        code: code.name(),
        reason: Some(reason),
        request_id,
        reference: Some(reference.trim_end()),
        action,
        ..Values::default()
    };
    reader.page(code.status(), code.name(), &values, "'none'")
}

/// The page that an app's issuers show in a frame of their own, at these addresses, and nobody else may.
pub fn logged_out<'a>(issuers: impl Iterator<Item = &'a str>, reader: &Reader<'_>) -> Response<Body> {
    let origins = issuers.filter_map(|issuer| Some(Url::parse(issuer).ok()?.origin().ascii_serialization()));
    let framed_by = origins.collect::<Vec<_>>().join(" ");
    let values = Values { title: reader.texts().logged_out, ..Values::default() };
    reader.page(StatusCode::OK, None, &values, &framed_by)
}

/// A page that sends the browser on to `location`, a path of the app, after a login or a silent one that found nobody.
/// It is a page and not a redirect because a redirect that began at the issuer stays cross-site, and a
/// `SameSite=Strict` cookie would not be sent with the next request.
pub fn landing(location: &str, is_logged_in: bool, reader: &Reader<'_>) -> Response<Body> {
    let texts = reader.texts();
    let values = Values {
        title: if is_logged_in { texts.logged_in } else { texts.not_logged_in },
        action: Some(Action { url: location, label: texts.go_on, ..Action::default() }),
        refresh: Some(location),
        ..Values::default()
    };
    reader.page(StatusCode::OK, None, &values, "'none'")
}

/// A page that sends the same fields to `action` once more, now from the app's own origin: by itself, or by a button where
/// there are no scripts. It is shown in a frame too, where the app's own page made the frame.
pub fn again<'a>(
    method: &Method,
    action: &str,
    fields: impl Iterator<Item = (&'a str, &'a str)>,
    reader: &Reader<'_>,
) -> Response<Body> {
    let texts = reader.texts();
    let method = if method == Method::POST { "post" } else { "get" };
    let fields = fields.map(|(name, value)| Field { name, value }).collect();
    let values = Values {
        title: texts.being_logged_in,
        action: Some(Action { url: action, label: texts.go_on, method: Some(method), fields }),
        script: Some("document.forms[0].submit()"),
        ..Values::default()
    };
    reader.page(StatusCode::OK, None, &values, "'self'")
}

/// A page without words for a frame of the app's own page, which it tells whether somebody is logged in now. No other
/// origin is told, or may frame it.
pub fn told_parent(status: StatusCode, authenticated: bool) -> Response<Body> {
    let script = if authenticated {
        "parent.postMessage({source:\"cloakroom\",authenticated:true},location.origin)"
    } else {
        "parent.postMessage({source:\"cloakroom\",authenticated:false},location.origin)"
    };
    let values = Values { title: "Silent login", script: Some(script), ..Values::default() };
    Reader::new(Pages::ours(), Language::English).page(status, None, &values, "'self'")
}

/// The page that asks where to log in: the name of each issuer, and where it leads.
pub fn issuer_choice<'a>(
    choices: impl Iterator<Item = (&'a str, String)>,
    reader: &Reader<'_>,
) -> Response<Body> {
    let choices: Vec<_> = choices.collect();
    let choices = choices.iter().map(|(name, url)| Choice { name, url }).collect();
    let values = Values { title: reader.texts().choose_issuer, choices, ..Values::default() };
    reader.page(StatusCode::OK, Some("issuers"), &values, "'none'")
}

/// The page that asks whether to log out. It ends nothing by itself.
pub fn logout_confirmation(action: &str, reader: &Reader<'_>) -> Response<Body> {
    let texts = reader.texts();
    let values = Values {
        title: texts.ask_logout,
        action: Some(Action { url: action, label: texts.log_out, method: Some("post"), fields: Vec::new() }),
        back: Some(Action { url: "/", label: texts.stay_logged_in, ..Action::default() }),
        ..Values::default()
    };
    let mut response = reader.page(StatusCode::OK, Some("logout"), &values, "'none'");
    // Under `no-referrer` browsers send `Origin: null` with the form, which the guard refuses.
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
