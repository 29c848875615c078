//! What each endpoint does when nothing is wrong.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Response;
use http::header::{AUTHORIZATION, LOCATION};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use url::Url;

use super::faults::answer;
use super::grants::{Login, LoginId};
use super::keys::{Draft, Signature, challenge, half_hash};
use super::{CLIENT_ID, CLIENT_SECRET, Endpoint, Received, Shared, State, value};

type Answer = Response<Full<Bytes>>;

impl Shared {
    pub(super) fn answer(&self, request: &Received) -> Answer {
        match request.endpoint {
            Endpoint::Discovery => self.metadata(),
            Endpoint::Jwks => json_answer(200, &self.state().keys.published()),
            Endpoint::Authorize => match self.authorize(&request.query) {
                Ok(location) => see_other(&location),
                Err(reason) => answer(400, "text/plain", reason),
            },
            Endpoint::Token => {
                self.token(request).unwrap_or_else(|(status, error)| error_answer(status, error))
            }
            Endpoint::Userinfo => self.userinfo(request),
            Endpoint::Revoke => self.revoke(request),
            Endpoint::EndSession => self.end_session(request),
        }
    }

    fn metadata(&self) -> Answer {
        let endpoint = |endpoint: Endpoint| format!("{}{}", self.issuer, endpoint.path());
        let mut metadata = json!({
            "issuer": self.issuer,
            "authorization_endpoint": endpoint(Endpoint::Authorize),
            "token_endpoint": endpoint(Endpoint::Token),
            "jwks_uri": endpoint(Endpoint::Jwks),
            "userinfo_endpoint": endpoint(Endpoint::Userinfo),
            "revocation_endpoint": endpoint(Endpoint::Revoke),
            "end_session_endpoint": endpoint(Endpoint::EndSession),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256", "HS256", "none"],
            "authorization_response_iss_parameter_supported": self.state().behaviour.sends_iss,
        });
        let members = metadata.as_object_mut().unwrap();
        members.extend(self.state().behaviour.metadata.clone());
        members.retain(|_, value| !value.is_null());
        json_answer(200, &metadata)
    }

    /// Where the browser is sent back to, for the user who always says yes.
    pub(super) fn authorize(&self, query: &[(String, String)]) -> Result<Url, &'static str> {
        let parameter = |name| value(query, name);
        let redirect_uri = parameter("redirect_uri").ok_or("no redirect_uri")?;
        let mut location = Url::parse(redirect_uri).map_err(|_| "a bad redirect_uri")?;
        let challenge = parameter("code_challenge").ok_or("no code_challenge")?;
        let scope = parameter("scope").ok_or("no scope")?;
        let is_good = parameter("client_id") == Some(CLIENT_ID)
            && parameter("response_type") == Some("code")
            && parameter("code_challenge_method") == Some("S256")
            && scope.split(' ').any(|scope| scope == "openid");
        if !is_good {
            return Err("a bad authorization request");
        }
        let mut state = self.state();
        let login = Login {
            user: state.behaviour.user.clone(),
            nonce: parameter("nonce").map(str::to_owned),
            acr: parameter("acr_values").and_then(|values| values.split(' ').next()).map(str::to_owned),
            sid: String::new(),
            authenticated_at: self.clock.now(),
            alive: true,
        };
        let mut pairs = location.query_pairs_mut();
        match state.behaviour.authorization_error.clone() {
            Some(error) => pairs.append_pair("error", &error),
            None => pairs.append_pair("code", &state.grants.begin(login, redirect_uri, challenge)),
        };
        pairs.extend_pairs(parameter("state").map(|state| ("state", state)));
        if state.behaviour.sends_iss {
            pairs.append_pair("iss", &self.issuer);
        }
        drop(pairs);
        Ok(location)
    }

    fn token(&self, request: &Received) -> Result<Answer, (u16, &'static str)> {
        let mut state = self.state();
        if !is_authenticated(request, state.behaviour.public_client) {
            return Err((401, "invalid_client"));
        }
        let field = |name| request.field(name).unwrap_or_default();
        let rotates = state.behaviour.rotates;
        let (login, refresh) = match field("grant_type") {
            "authorization_code" => {
                let challenge = challenge(field("code_verifier"));
                (state.grants.redeem_code(field("code"), field("redirect_uri"), &challenge), false)
            }
            "refresh_token" => (state.grants.redeem_refresh_token(field("refresh_token"), rotates), true),
            _ => return Err((400, "unsupported_grant_type")),
        };
        let login = login.ok_or((400, "invalid_grant"))?;
        Ok(json_answer(200, &Value::Object(self.issue(&mut state, login, refresh))))
    }

    fn issue(&self, state: &mut State, login: LoginId, refresh: bool) -> Map<String, Value> {
        let behaviour = &state.behaviour;
        let lifetime = behaviour.expires_in.as_ref().and_then(Value::as_u64).filter(|seconds| *seconds > 0);
        let lifetime = Duration::from_secs(lifetime.unwrap_or(300));
        let mut body = Map::new();
        body.extend(behaviour.expires_in.clone().map(|value| ("expires_in".to_owned(), value)));
        body.extend(behaviour.scope.clone().map(|scope| ("scope".to_owned(), scope.into())));
        body.insert("token_type".to_owned(), behaviour.token_type.clone());
        let with_refresh_token = if refresh { behaviour.rotates } else { behaviour.issues_refresh_tokens };
        let with_id_token = !refresh || behaviour.refreshes_id_token;
        let access_token = state.grants.issue_access_token(login, self.clock.now(), lifetime);
        if with_id_token {
            let id_token = self.id_token(state, login, &access_token, refresh);
            body.insert("id_token".to_owned(), id_token.into());
        }
        if with_refresh_token {
            body.insert("refresh_token".to_owned(), state.grants.issue_refresh_token(login).into());
        }
        body.insert("access_token".to_owned(), access_token.into());
        body
    }

    fn id_token(&self, state: &State, login: LoginId, access_token: &str, refresh: bool) -> String {
        let login = state.grants.login(login);
        let now = self.clock.now().as_secs();
        let algorithm = state.behaviour.algorithm;
        let mut claims = login.user.clone();
        claims.as_object_mut().unwrap().extend(
            [
                ("iss", json!(self.issuer)),
                ("aud", json!(CLIENT_ID)),
                ("iat", json!(now)),
                ("exp", json!(now + 300)),
                ("auth_time", json!(login.authenticated_at.as_secs())),
                ("sid", json!(login.sid)),
                ("at_hash", json!(half_hash(access_token))),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        // A refreshed ID token should have no nonce (Core §12.2).
        if let Some(nonce) = login.nonce.as_ref().filter(|_| !refresh) {
            claims["nonce"] = json!(nonce);
        }
        if let Some(acr) = &login.acr {
            claims["acr"] = json!(acr);
        }
        let mut draft = Draft {
            header: json!({"alg": algorithm.name(), "kid": state.keys.key_id(algorithm), "typ": "JWT"}),
            claims,
            raw_header: None,
            raw_claims: None,
            signature: Signature::Good,
        };
        if let Some(tamper) = &state.behaviour.tamper {
            tamper(&mut draft);
        }
        state.keys.sign(algorithm, &draft)
    }

    fn userinfo(&self, request: &Received) -> Answer {
        let token = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let state = self.state();
        match state.grants.login_of(token, self.clock.now()) {
            Some(login) => json_answer(200, &login.user),
            None => answer(401, "text/plain", ""),
        }
    }

    fn revoke(&self, request: &Received) -> Answer {
        let mut state = self.state();
        if !is_authenticated(request, state.behaviour.public_client) {
            return error_answer(401, "invalid_client");
        }
        state.grants.revoke(request.field("token").unwrap_or_default());
        answer(200, "text/plain", "")
    }

    fn end_session(&self, request: &Received) -> Answer {
        let back = request.parameter("post_logout_redirect_uri").and_then(|uri| Url::parse(uri).ok());
        match back {
            Some(mut location) => {
                let state = request.parameter("state").map(|state| ("state", state));
                location.query_pairs_mut().extend_pairs(state);
                see_other(&location)
            }
            None => answer(200, "text/html", "<h1>Logged out</h1>"),
        }
    }
}

/// `client_secret_basic` (both halves form-encoded), `client_secret_post`, or `none` where allowed.
fn is_authenticated(request: &Received, public_client: bool) -> bool {
    match request.headers.get(AUTHORIZATION) {
        Some(header) => {
            let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap_or_default();
            let credentials = String::from_utf8(STANDARD.decode(encoded).unwrap_or_default()).unwrap();
            let Some((id, secret)) = credentials.split_once(':') else { return false };
            let joined = format!("{id}={secret}");
            let mut decoded = form_urlencoded::parse(joined.as_bytes()).into_owned();
            decoded.next() == Some((CLIENT_ID.to_owned(), CLIENT_SECRET.to_owned()))
        }
        None => {
            let secret = request.field("client_secret");
            request.field("client_id") == Some(CLIENT_ID)
                && (secret == Some(CLIENT_SECRET) || (public_client && secret.is_none()))
        }
    }
}

fn error_answer(status: u16, error: &str) -> Answer {
    json_answer(status, &json!({"error": error, "error_description": "the issuer's own words"}))
}

fn json_answer(status: u16, body: &Value) -> Answer {
    answer(status, "application/json", body.to_string())
}

fn see_other(location: &Url) -> Answer {
    let mut response = answer(303, "text/plain", "");
    response.headers_mut().insert(LOCATION, location.as_str().parse().unwrap());
    response
}
