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

use super::dpop::{challenge as dpop_challenge, presented};
use super::faults::answer;
use super::grants::LoginId;
use super::keys::{Draft, Signature, challenge, half_hash};
use super::{Behaviour, CLIENT_ID, Endpoint, Received, Shared, State};

pub(super) type Answer = Response<Full<Bytes>>;

/// RFC 8693 §2.1 and §3.
pub const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// What tokens are issued for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Login,
    Refresh,
    Resource,
    Exchanged,
    Client,
}

impl Shared {
    pub(super) fn answer(&self, request: &Received) -> Answer {
        match request.endpoint {
            Endpoint::Discovery => self.metadata(),
            Endpoint::Jwks => json_answer(200, &self.state().published_keys()),
            Endpoint::Authorize => match self.authorize(&request.query) {
                Ok(response) => response.into(),
                Err(reason) => answer(400, "text/plain", reason),
            },
            Endpoint::Push => self.push(request),
            Endpoint::Token => {
                let answer = self.token(request);
                let mut answer = answer.unwrap_or_else(|(status, error)| error_answer(status, error));
                self.give_nonce(&mut answer);
                answer
            }
            Endpoint::Userinfo => {
                let mut answer = self.userinfo(request);
                self.give_nonce(&mut answer);
                answer
            }
            Endpoint::Revoke => self.revoke(request),
            Endpoint::Introspect => self.introspect(request),
            Endpoint::AuthorizeDevice => self.authorize_device(request),
            Endpoint::EndSession => self.end_session(request),
            Endpoint::SsfConfiguration => self.ssf_configuration(),
        }
    }

    fn metadata(&self) -> Answer {
        let issuer = self.issuer.trim_end_matches('/');
        let endpoint = |endpoint: Endpoint| format!("{issuer}{}", endpoint.path());
        let mut metadata = json!({
            "issuer": self.issuer,
            "authorization_endpoint": endpoint(Endpoint::Authorize),
            "token_endpoint": endpoint(Endpoint::Token),
            "jwks_uri": endpoint(Endpoint::Jwks),
            "userinfo_endpoint": endpoint(Endpoint::Userinfo),
            "revocation_endpoint": endpoint(Endpoint::Revoke),
            "introspection_endpoint": endpoint(Endpoint::Introspect),
            "device_authorization_endpoint": endpoint(Endpoint::AuthorizeDevice),
            "end_session_endpoint": endpoint(Endpoint::EndSession),
            "response_types_supported": ["code"],
            "request_parameter_supported": true,
            "response_modes_supported": ["query", "form_post", "jwt", "query.jwt", "form_post.jwt"],
            "authorization_signing_alg_values_supported": ["ES256", "RS256", "HS256", "none"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256", "HS256", "none"],
            "authorization_response_iss_parameter_supported": self.state().behaviour.sends_iss,
        });
        if self.state().behaviour.takes_pushed_requests {
            metadata["pushed_authorization_request_endpoint"] = json!(endpoint(Endpoint::Push));
        }
        let members = metadata.as_object_mut().unwrap();
        members.extend(self.state().behaviour.metadata.clone());
        members.retain(|_, value| !value.is_null());
        json_answer(200, &metadata)
    }

    fn ssf_configuration(&self) -> Answer {
        let mut metadata = json!({
            "spec_version": "1_0",
            "issuer": self.issuer,
            "jwks_uri": format!("{}{}", self.issuer, Endpoint::Jwks.path()),
            "delivery_methods_supported": ["urn:ietf:rfc:8935"],
        });
        let members = metadata.as_object_mut().unwrap();
        members.extend(self.state().behaviour.ssf_configuration.clone());
        members.retain(|_, value| !value.is_null());
        json_answer(200, &metadata)
    }

    fn token(&self, request: &Received) -> Result<Answer, (u16, &'static str)> {
        let mut state = self.state();
        if !self.is_authenticated(request, &mut state) {
            return Err((401, "invalid_client"));
        }
        let proof = self.proof(request, &mut state, "POST", None).map_err(|error| (400, error))?;
        let field = |name| request.field(name).unwrap_or_default();
        let has_target = request.field("resource").or(request.field("audience")).is_some();
        if let Some(error) = state.behaviour.refuses_targets.filter(|_| has_target) {
            return Err((400, error));
        }
        let (rotates, now) = (state.behaviour.rotates, self.clock.now());
        let (login, kind) = match field("grant_type") {
            "authorization_code" => {
                let challenge = challenge(field("code_verifier"));
                let login = state.grants.redeem_code(field("code"), field("redirect_uri"), &challenge);
                (login, Kind::Login)
            }
            "refresh_token" => {
                let kind = if has_target { Kind::Resource } else { Kind::Refresh };
                (state.grants.redeem_refresh_token(field("refresh_token"), rotates), kind)
            }
            "client_credentials" => (Some(state.grants.client()), Kind::Client),
            TOKEN_EXCHANGE => {
                let kinds = [field("subject_token_type"), field("requested_token_type")];
                let login = state.grants.subject(field("subject_token"), now);
                (login.filter(|_| kinds == [ACCESS_TOKEN; 2]), Kind::Exchanged)
            }
            "urn:ietf:params:oauth:grant-type:device_code" => {
                (Some(state.redeem_device_code(field("device_code"))?), Kind::Login)
            }
            _ => return Err((400, "unsupported_grant_type")),
        };
        let login = login.ok_or((400, "invalid_grant"))?;
        let key = proof.as_ref().map(|proof| proof.thumbprint.as_str());
        if !state.behaviour.dpop.ignored && !state.grants.bind(login, key) {
            return Err((400, "invalid_grant"));
        }
        let mut body = self.issue(&mut state, login, kind);
        if proof.is_some() {
            body.insert("token_type".to_owned(), json!("DPoP"));
        }
        Ok(json_answer(200, &Value::Object(body)))
    }

    fn issue(&self, state: &mut State, login: LoginId, kind: Kind) -> Map<String, Value> {
        let behaviour = &state.behaviour;
        let (expires_in, scope) = match kind {
            Kind::Login | Kind::Refresh => (&behaviour.expires_in, &behaviour.scope),
            Kind::Resource | Kind::Exchanged | Kind::Client => {
                (&behaviour.route_expires_in, &behaviour.route_scope)
            }
        };
        let lifetime = expires_in.as_ref().and_then(Value::as_u64).filter(|seconds| *seconds > 0);
        let lifetime = Duration::from_secs(lifetime.unwrap_or(300));
        let mut body = Map::new();
        body.extend(expires_in.clone().map(|value| ("expires_in".to_owned(), value)));
        body.extend(scope.clone().map(|scope| ("scope".to_owned(), scope.into())));
        body.insert("token_type".to_owned(), behaviour.token_type.clone());
        let (with_refresh_token, with_id_token, name) = match kind {
            Kind::Login => (behaviour.issues_refresh_tokens, true, "access"),
            Kind::Refresh => (behaviour.rotates, behaviour.refreshes_id_token, "access"),
            Kind::Resource => (behaviour.rotates, behaviour.refreshes_id_token, "resource"),
            Kind::Exchanged => {
                body.insert("issued_token_type".to_owned(), behaviour.issued_token_type.clone());
                (false, false, "exchanged")
            }
            Kind::Client => (false, false, "client"),
        };
        let access_token = state.grants.issue_access_token(name, login, self.clock.now(), lifetime);
        if with_id_token {
            let id_token = self.id_token(state, login, &access_token, kind != Kind::Login);
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
        let (token, with_proof) = presented(request);
        let mut state = self.state();
        let proof = self.proof(request, &mut state, "GET", with_proof.then_some(token));
        let refuse = |error| {
            let mut answer = answer(401, "text/plain", "");
            dpop_challenge(&mut answer, error);
            answer
        };
        let proof = match proof {
            Ok(proof) => proof.map(|proof| proof.thumbprint),
            Err(error) => return refuse(error),
        };
        match state.grants.login_of(token, self.clock.now()) {
            Some(login) if login.key == proof => json_answer(200, &login.user),
            Some(_) | None => refuse("invalid_token"),
        }
    }

    fn revoke(&self, request: &Received) -> Answer {
        let mut state = self.state();
        if !self.is_authenticated(request, &mut state) {
            return error_answer(401, "invalid_client");
        }
        state.grants.revoke(request.field("token").unwrap_or_default());
        answer(200, "text/plain", "")
    }

    pub(super) fn is_authenticated(&self, request: &Received, state: &mut State) -> bool {
        match &state.behaviour.client_key {
            Some((key, audience)) => {
                state.assertions.take(request, key, audience, self.clock.now().as_secs())
            }
            None => has_secret(request, &state.behaviour),
        }
    }

    fn introspect(&self, request: &Received) -> Answer {
        let mut state = self.state();
        if !self.is_authenticated(request, &mut state) {
            return error_answer(401, "invalid_client");
        }
        let login = state.grants.login_of(request.field("token").unwrap_or_default(), self.clock.now());
        let mut said = match login {
            Some(login) => json!({"active": true, "sub": login.user["sub"], "client_id": CLIENT_ID}),
            None => json!({"active": false}),
        };
        said.as_object_mut().unwrap().extend(state.behaviour.introspection.clone());
        json_answer(200, &said)
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

impl State {
    fn published_keys(&self) -> Value {
        let mut keys = self.keys.published();
        if let Some(change) = &self.behaviour.publish {
            change(keys["keys"].as_array_mut().unwrap());
        }
        keys
    }
}

/// `client_secret_basic` (both halves form-encoded), `client_secret_post`, or `none` where allowed.
fn has_secret(request: &Received, behaviour: &Behaviour) -> bool {
    match request.headers.get(AUTHORIZATION) {
        Some(header) => {
            let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap_or_default();
            let credentials = String::from_utf8(STANDARD.decode(encoded).unwrap_or_default()).unwrap();
            let Some((id, secret)) = credentials.split_once(':') else { return false };
            let joined = format!("{id}={secret}");
            let mut decoded = form_urlencoded::parse(joined.as_bytes()).into_owned();
            decoded.next() == Some((CLIENT_ID.to_owned(), behaviour.client_secret.clone()))
        }
        None => {
            let secret = request.field("client_secret");
            request.field("client_id") == Some(CLIENT_ID)
                && (secret == Some(behaviour.client_secret.as_str())
                    || (behaviour.public_client && secret.is_none()))
        }
    }
}

pub(super) fn error_answer(status: u16, error: &str) -> Answer {
    json_answer(status, &json!({"error": error, "error_description": "the issuer's own words"}))
}

pub(super) fn json_answer(status: u16, body: &Value) -> Answer {
    answer(status, "application/json", body.to_string())
}

pub(super) fn see_other(location: &Url) -> Answer {
    let mut response = answer(303, "text/plain", "");
    response.headers_mut().insert(LOCATION, location.as_str().parse().unwrap());
    response
}
