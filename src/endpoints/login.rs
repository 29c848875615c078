//! `GET login`: sends the browser to the issuer, of several to the one that its user chooses, with PKCE, `state` and
//! `nonce` (RFC 6749 §4.1.1, RFC 7636, OpenID Connect Core §3.1.2.1). Another party that begins a login may `POST` too (§4).

use http::request::Parts;
use http::{Method, Response, header};

use super::login_cookie::Login;
use super::silent::{self, Silent};
use super::{Endpoints, ISSUER_WAIT, Parameters, issuer_too_slow, return_to};
use crate::body::Body;
use crate::error::{Code, Reason, Refusal};
use crate::fields;
use crate::oidc::{AuthorizationRequest, Client};
use crate::pages::Language;
use crate::respond;
use crate::secret::Secret;
use crate::telemetry::audit::{Event, Facts};

/// Longer `acr_values` would make the login cookie larger than browsers keep.
pub(super) const LONGEST_ACR_VALUES: usize = 512;

/// What a login may be given, besides `iss`.
const PARAMETERS: [&str; 7] =
    ["return_to", "target_link_uri", "prompt", "login_hint", "acr_values", "max_age", "ui_locales"];

impl Endpoints {
    pub(super) async fn login(&self, head: &Parts, body: Body) -> Result<Response<Body>, Refusal> {
        let parameters = self.parameters(head, body).await?;
        if head.method == Method::POST && parameters.get("iss").is_none() {
            return Err(Refusal::new(Reason::LoginPostWithoutIssuer));
        }
        let silent = Silent::of(head, &parameters);
        let begun = self.begin_login(head, &parameters, silent).await;
        let language = parameters.get("ui_locales").and_then(Language::of_ui_locales);
        match begun.map_err(|refusal| self.note_not_begun(refusal).in_language(language)) {
            Err(refusal) if silent == Some(Silent::Frame) => Ok(silent::tell(refusal)),
            begun => begun,
        }
    }

    async fn begin_login(
        &self,
        head: &Parts,
        parameters: &Parameters,
        silent: Option<Silent>,
    ) -> Result<Response<Body>, Refusal> {
        let return_to = self.target(parameters)?;
        let client = match self.chosen(parameters)? {
            Some(client) => client,
            None if silent.is_some() => {
                return Err(Refusal::new(Reason::SilentLoginWithoutIssuer));
            }
            None => return Ok(self.offer_choice(head, parameters)),
        };
        let max_age = parameters.get("max_age").map(parse_seconds).transpose()?;
        let acr_values = parameters.get("acr_values");
        if acr_values.is_some_and(|values| values.len() > LONGEST_ACR_VALUES) {
            return Err(Refusal::new(Reason::AcrValues));
        }
        let state = Secret::new(self.random.token::<32>());
        let login = Login {
            issuer: Some(client.issuer().to_owned()),
            expected: client.expect(max_age, acr_values),
            return_to,
            begun_at: self.clock.now(),
            previous: self.session_cookie(&head.headers).ok().flatten().and_then(|value| {
                // One that opens nothing would only make the login cookie larger.
                self.sessions.open_cookie(&value).map(|_| Secret::new(value))
            }),
            state,
            silent,
            is_posted: client.is_answered_by_post(),
            language: parameters.get("ui_locales").and_then(Language::of_ui_locales),
        };
        let cookies = self
            .login_cookies
            .add(&head.headers, &login)
            .ok_or_else(|| Refusal::new(Reason::LoginTooLarge))?;
        let request = AuthorizationRequest {
            state: login.state.expose(),
            expected: &login.expected,
            prompt: parameters.get("prompt"),
            login_hint: parameters.get("login_hint"),
            ui_locales: parameters.get("ui_locales"),
            accept_language: &fields::quality_values(&head.headers, &header::ACCEPT_LANGUAGE),
        };
        let location = tokio::time::timeout(ISSUER_WAIT, client.authorization_url(&request))
            .await
            .map_err(|_| issuer_too_slow())??;

        self.note_begun(client, "authorization_code");
        let mut response = respond::see_other(location.as_str());
        for cookie in cookies {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// For the audit trail.
    pub(super) fn note_begun(&self, client: &Client, grant: &'static str) {
        let (app, issuer) = (self.sessions.app(), Some(client.issuer()));
        let facts = Facts { app, issuer, kind: Some(grant), ..Facts::default() };
        self.sessions.common().audit().note(Event::LoginBegun, &facts);
    }

    /// The same of what the issuer did not begin. A request that makes no sense is no login.
    pub(super) fn note_not_begun(&self, refusal: Refusal) -> Refusal {
        if matches!(refusal.code(), Code::LoginFailed | Code::IssuerUnavailable) {
            self.note_failure(refusal.audited_reason());
        }
        refusal
    }

    /// The client of the issuer that this login names, or of the only one; `None` where there is a choice.
    fn chosen(&self, parameters: &Parameters) -> Result<Option<&Client>, Refusal> {
        match parameters.get("iss") {
            Some(issuer) => match self.clients.of(issuer) {
                Some(client) => Ok(Some(client)),
                None => Err(Refusal::new(Reason::IssuerUnknown)),
            },
            None => Ok(self.clients.only().map(|only| &**only)),
        }
    }

    /// The page with a link to this same login at each issuer.
    fn offer_choice(&self, head: &Parts, parameters: &Parameters) -> Response<Body> {
        let choices = self.clients.iter().map(|client| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("iss", client.issuer());
            for name in PARAMETERS {
                query.extend_pairs(parameters.get(name).map(|value| (name, value)));
            }
            (client.name().unwrap_or_default(), format!("{}?{}", self.login_url(), query.finish()))
        });
        let language = parameters.get("ui_locales").and_then(Language::of_ui_locales);
        respond::issuer_choice(choices, &self.reader(&head.headers).preferring(language))
    }

    /// Where this login leads. An issuer or a portal that starts it names itself and an absolute URL
    /// (OpenID Connect Core §4); the app names a path.
    fn target(&self, parameters: &Parameters) -> Result<String, Refusal> {
        match (parameters.get("return_to"), parameters.get("target_link_uri")) {
            (Some(path), None) => return_to::parse(path, &self.origin, &self.base_path),
            (None, Some(url)) => return_to::parse_target_link(url, &self.origin, &self.base_path),
            (None, None) => Ok("/".to_owned()),
            (Some(_), Some(_)) => Err(Refusal::new(Reason::ReturnToTwice)),
        }
    }
}

fn parse_seconds(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| Refusal::new(Reason::MaxAge))
}
