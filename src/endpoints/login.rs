//! `GET login`: sends the browser to the issuer with PKCE, `state` and `nonce` (RFC 6749 §4.1.1,
//! RFC 7636, OpenID Connect Core §3.1.2.1).

use http::request::Parts;
use http::{Response, header};

use super::login_cookie::Login;
use super::{Endpoints, ISSUER_WAIT, Parameters, issuer_too_slow, return_to};
use crate::body::Body;
use crate::error::Refusal;
use crate::oidc::AuthorizationRequest;
use crate::respond;
use crate::secret::Secret;

/// Longer `acr_values` would make the login cookie larger than browsers keep.
const LONGEST_ACR_VALUES: usize = 512;

impl Endpoints {
    pub(super) async fn login(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        let parameters = Parameters::of(head)?;
        let return_to = self.target(&parameters)?;
        let max_age = parameters.get("max_age").map(parse_seconds).transpose()?;
        let acr_values = parameters.get("acr_values");
        if acr_values.is_some_and(|values| values.len() > LONGEST_ACR_VALUES) {
            return Err(Refusal::bad_request("acr_values is too long."));
        }
        let state = Secret::new(self.random.token::<32>());
        let login = Login {
            expected: self.client.expect(max_age, acr_values),
            return_to,
            begun_at: self.clock.now(),
            previous: self.session_cookie(&head.headers).ok().flatten().and_then(|value| {
                // One that opens nothing would only make the login cookie larger.
                self.sessions.open_cookie(&value).map(|_| Secret::new(value))
            }),
            state,
        };
        let request = AuthorizationRequest {
            state: login.state.expose(),
            expected: &login.expected,
            prompt: parameters.get("prompt"),
            login_hint: parameters.get("login_hint"),
            ui_locales: parameters.get("ui_locales"),
        };
        let location = tokio::time::timeout(ISSUER_WAIT, self.client.authorization_url(&request))
            .await
            .map_err(|_| issuer_too_slow())??;

        let mut response = respond::see_other(location.as_str());
        for cookie in self.login_cookies.add(&head.headers, &login) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// Where this login leads. An issuer or a portal that starts it names itself and an absolute URL
    /// (OpenID Connect Core §4); the app names a path.
    fn target(&self, parameters: &Parameters) -> Result<String, Refusal> {
        if parameters.get("iss").is_some_and(|issuer| issuer != self.client.issuer()) {
            return Err(Refusal::bad_request("This app does not log in at that issuer."));
        }
        match (parameters.get("return_to"), parameters.get("target_link_uri")) {
            (Some(path), None) => return_to::parse(path, &self.origin, &self.base_path),
            (None, Some(url)) => return_to::parse_target_link(url, &self.origin, &self.base_path),
            (None, None) => Ok("/".to_owned()),
            (Some(_), Some(_)) => {
                Err(Refusal::bad_request("return_to and target_link_uri exclude each other."))
            }
        }
    }
}

fn parse_seconds(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| Refusal::bad_request("max_age is not a number of seconds."))
}
