//! Logins on another device (RFC 8628).

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use super::endpoints::{error_answer, json_answer};
use super::grants::{Login, LoginId};
use super::{Issuer, Received, Shared, State};

/// A login that waits for its user.
pub struct Waiting {
    device_code: String,
    user_code: String,
    said: Said,
}

/// What the user has said.
#[derive(Clone, Copy)]
enum Said {
    Nothing,
    Yes(LoginId),
    No,
}

impl Shared {
    pub(super) fn authorize_device(&self, request: &Received) -> Response<Full<Bytes>> {
        let mut state = self.state();
        if !self.is_authenticated(request, &mut state) {
            return error_answer(401, "invalid_client");
        }
        let (device_code, number) = (state.grants.name("device"), state.devices.len());
        let user_code = format!("CODE-{number}");
        let said = Said::Nothing;
        state.devices.push(Waiting { device_code: device_code.clone(), user_code: user_code.clone(), said });
        let mut answer = json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": format!("{}/activate", self.issuer),
            "verification_uri_complete": format!("{}/activate?user_code={user_code}", self.issuer),
            "expires_in": 900,
            "interval": 5,
        });
        answer.as_object_mut().unwrap().extend(state.behaviour.device_authorization.clone());
        json_answer(200, &answer)
    }
}

impl State {
    /// Redeems a device code, once.
    pub(super) fn redeem_device_code(&mut self, device_code: &str) -> Result<LoginId, (u16, &'static str)> {
        let place = self.devices.iter().position(|waiting| waiting.device_code == device_code);
        let place = place.ok_or((400, "invalid_grant"))?;
        match self.devices[place].said {
            Said::Nothing => Err((400, "authorization_pending")),
            Said::No => Err((400, "access_denied")),
            Said::Yes(login) => {
                self.devices.remove(place);
                Ok(login)
            }
        }
    }
}

impl Issuer {
    /// The user types this code in, and says yes.
    pub fn approve_device(&self, user_code: &Value) {
        let authenticated_at = self.shared.clock.now();
        let mut state = self.shared.state();
        let user = state.behaviour.user.clone();
        let acr = state.behaviour.device_acr.clone();
        let login =
            Login { user, nonce: None, acr, sid: String::new(), authenticated_at, key: None, alive: true };
        let id = state.grants.log_in(login);
        state.device(user_code).said = Said::Yes(id);
    }

    /// The user types this code in, and says no.
    pub fn deny_device(&self, user_code: &Value) {
        self.shared.state().device(user_code).said = Said::No;
    }
}

impl State {
    fn device(&mut self, user_code: &Value) -> &mut Waiting {
        self.devices.iter_mut().find(|waiting| *user_code == waiting.user_code.as_str()).expect("a login")
    }
}
