//! Authorization requests and responses: pushed or not, signed or not, in the query or in a form.

use serde_json::{Value, json};
use url::Url;

use super::assertions::verified;
use super::endpoints::{Answer, error_answer, json_answer, see_other};
use super::faults::answer;
use super::grants::Login;
use super::keys::{Draft, Signature};
use super::{CLIENT_ID, Received, Shared, State, value};

type Pairs = Vec<(String, String)>;

/// An authorization response on its way.
#[derive(Debug)]
pub struct AuthorizationResponse {
    pub redirect_uri: Url,
    pub parameters: Pairs,
    is_posted: bool,
}

impl Shared {
    /// The response to a request of the user who always says yes.
    pub(super) fn authorize(
        &self,
        query: &[(String, String)],
    ) -> Result<AuthorizationResponse, &'static str> {
        let mut state = self.state();
        let query = match value(query, "request_uri") {
            Some(request_uri) => {
                if query.len() != 2 || value(query, "client_id") != Some(CLIENT_ID) {
                    return Err("more than a pushed request needs");
                }
                state.pushed.remove(request_uri).ok_or("an unknown request_uri")?
            }
            None => query.to_vec(),
        };
        let query = match (value(&query, "request"), &state.behaviour.request_key) {
            (Some(request), Some(key)) => self.requested(request, key).ok_or("a bad request object")?,
            (None, None) => query,
            (_, _) => return Err("signed or not, it is not as it was registered"),
        };
        let parameter = |name| value(&query, name);
        let redirect_uri = parameter("redirect_uri").ok_or("no redirect_uri")?;
        let challenge = parameter("code_challenge").ok_or("no code_challenge")?;
        let scope = parameter("scope").ok_or("no scope")?;
        let is_good = parameter("client_id") == Some(CLIENT_ID)
            && parameter("response_type") == Some("code")
            && parameter("code_challenge_method") == Some("S256")
            && scope.split(' ').any(|scope| scope == "openid");
        if !is_good {
            return Err("a bad authorization request");
        }
        let login = Login {
            user: state.behaviour.user.clone(),
            nonce: parameter("nonce").map(str::to_owned),
            acr: parameter("acr_values").and_then(|values| values.split(' ').next()).map(str::to_owned),
            sid: String::new(),
            authenticated_at: self.clock.now(),
            key: parameter("dpop_jkt").filter(|_| !state.behaviour.dpop.ignored).map(str::to_owned),
            alive: true,
        };
        let mut response = vec![match state.behaviour.authorization_error.clone() {
            Some(error) => ("error".to_owned(), error),
            None => ("code".to_owned(), state.grants.begin(login, redirect_uri, challenge)),
        }];
        response.extend(parameter("state").map(|state| ("state".to_owned(), state.to_owned())));
        let mode = parameter("response_mode").unwrap_or("query");
        if mode.ends_with("jwt") {
            response = vec![("response".to_owned(), self.sign_response(&state, response))];
        } else if state.behaviour.sends_iss {
            response.push(("iss".to_owned(), self.issuer.clone()));
        }
        Ok(AuthorizationResponse {
            redirect_uri: Url::parse(redirect_uri).map_err(|_| "a bad redirect_uri")?,
            parameters: response,
            is_posted: mode.starts_with("form_post"),
        })
    }

    /// RFC 9101 §6: what is asked for by a request object, which the client has signed for this issuer just now.
    fn requested(&self, request: &str, key: &Value) -> Option<Pairs> {
        let claims = verified(request, "oauth-authz-req+jwt", key)?;
        let now = self.clock.now().as_secs();
        let time = |name: &str| claims[name].as_u64();
        let is_good = claims["iss"] == CLIENT_ID
            && claims["aud"] == json!(self.issuer)
            && time("nbf").is_some_and(|at| at <= now)
            && time("exp").is_some_and(|at| (now + 1..=now + 3600).contains(&at))
            && claims["jti"].as_str().is_some_and(|jti| jti.len() >= 16);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let members = claims.as_object()?.iter().map(|(name, value)| (name.clone(), text(value)));
        is_good.then(|| members.collect())
    }

    /// RFC 9126 §2: keeps what is asked for, for one use.
    pub(super) fn push(&self, request: &Received) -> Answer {
        let mut state = self.state();
        if !self.is_authenticated(request, &mut state) {
            return error_answer(401, "invalid_client");
        }
        let mut names: Vec<_> =
            request.form.iter().map(|(name, _)| name).filter(|name| *name != "resource").collect();
        names.sort();
        let has_doubles = names.windows(2).any(|pair| pair[0] == pair[1]);
        let is_signed = value(&request.form, "request").is_some();
        if has_doubles || value(&request.form, "client_id").is_none_or(|id| id != CLIENT_ID) && !is_signed {
            return error_answer(400, "invalid_request");
        }
        let request_uri = format!("urn:ietf:params:oauth:request_uri:{}", state.grants.name("pushed"));
        state.pushed.insert(request_uri.clone(), request.form.clone());
        json_answer(201, &json!({"request_uri": request_uri, "expires_in": 60}))
    }

    /// JARM §2.1.
    fn sign_response(&self, state: &State, parameters: Pairs) -> String {
        let algorithm = state.behaviour.algorithm;
        let now = self.clock.now().as_secs();
        let mut claims = json!({"iss": self.issuer, "aud": CLIENT_ID, "exp": now + 600});
        let members = claims.as_object_mut().unwrap();
        members.extend(parameters.into_iter().map(|(name, value)| (name, Value::String(value))));
        let mut draft = Draft {
            header: json!({"alg": algorithm.name(), "kid": state.keys.key_id(algorithm)}),
            claims,
            raw_header: None,
            raw_claims: None,
            signature: Signature::Good,
        };
        if let Some(tamper) = &state.behaviour.tamper_response {
            tamper(&mut draft);
        }
        state.keys.sign(algorithm, &draft)
    }
}

impl From<AuthorizationResponse> for Answer {
    fn from(response: AuthorizationResponse) -> Self {
        let AuthorizationResponse { mut redirect_uri, parameters, is_posted } = response;
        if !is_posted {
            redirect_uri.query_pairs_mut().extend_pairs(parameters);
            return see_other(&redirect_uri);
        }
        let fields = parameters
            .iter()
            .map(|(name, value)| format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">"));
        let page = format!(
            "<form method=\"post\" action=\"{redirect_uri}\">{}</form><script>document.forms[0].submit()</script>",
            fields.collect::<String>()
        );
        answer(200, "text/html", page)
    }
}
