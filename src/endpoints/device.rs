//! `POST device` and `POST device/poll`: a login on another device, for an app on a screen without a keyboard
//! (RFC 8628).
//!
//! Whoever begins such a login can talk somebody else into finishing it. What can be done about that on this side: it is
//! off unless asked for, only the app's own page begins it, the browser that did alone gets the session, a code is short-lived
//! and has to be typed in, and what is shown with it says what it is for.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Response, header};
use serde_json::json;

use super::callback::Begun;
use super::device_cookie::Pending;
use super::{Endpoints, ISSUER_WAIT, Parameters, issuer_too_slow, qr};
use crate::body::Body;
use crate::error::{Code, Reason, Refusal};
use crate::oidc::{Client, DeviceLogin};
use crate::respond;

/// What `slow_down` adds to the interval (RFC 8628 §3.5).
const SLOWER: Duration = Duration::from_secs(5);

/// Why there is no session yet.
enum NotBegun {
    Pending,
    SlowDown,
    Denied,
    Expired,
    Refused(Refusal),
}

impl Endpoints {
    pub(super) async fn begin_device_login(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        let client = self.client_for_devices(&Parameters::of(head)?)?;
        let begun = tokio::time::timeout(ISSUER_WAIT, client.authorize_device()).await;
        let begun = begun.map_err(|_| issuer_too_slow()).and_then(|begun| Ok(begun?));
        let begun = begun.map_err(|refusal| self.note_not_begun(refusal))?;
        self.note_begun(client, "device_code");
        let now = self.clock.now();
        let app = self.origin.as_str();
        let notice =
            format!("Enter this code only if you have begun this login yourself, on this screen, at {app}.");
        let mut response = respond::json(&json!({
            "app": app,
            "user_code": begun.user_code,
            "verification_uri": begun.verification_uri.as_str(),
            "qr": qr::svg(begun.verification_uri.as_str()),
            "notice": notice,
            "expires_in": begun.lifetime.as_secs(),
            "interval": begun.interval.as_secs(),
        }));
        let pending = Pending {
            issuer: client.issuer().to_owned(),
            device_code: begun.device_code,
            interval: begun.interval,
            not_before: now + begun.interval,
            expires_at: now + begun.lifetime,
        };
        response.headers_mut().append(header::SET_COOKIE, self.device_cookie.set(&pending, now));
        Ok(response)
    }

    /// The client of the issuer that this login names, or of the only one where users may log in so.
    fn client_for_devices(&self, parameters: &Parameters) -> Result<&Client, Refusal> {
        let named = parameters.get("iss");
        let may = |client: &&Arc<Client>| {
            client.may_authorize_devices() && named.is_none_or(|issuer| issuer == client.issuer())
        };
        let mut clients = self.clients.iter().filter(may);
        match (clients.next(), clients.next()) {
            (Some(client), None) => Ok(client),
            (Some(_), Some(_)) => Err(Refusal::new(Reason::DeviceIssuerAmbiguous)),
            (None, _) => Err(Refusal::new(Reason::DeviceIssuer)),
        }
    }

    pub(super) async fn poll_device_login(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        let now = self.clock.now();
        let Some(pending) = self.device_cookie.open(headers, now) else {
            return Ok(self.device_login_over("expired"));
        };
        let Some(client) = self.clients.of(&pending.issuer) else {
            return Ok(self.device_login_over("expired"));
        };
        // However many tabs and gateways ask: by a mark that all of them share.
        if now < pending.not_before || !self.sessions.claim_once(&pending.mark(), pending.interval).await? {
            return Ok(still_pending(pending.interval));
        }
        let (client, device_code) = (Arc::clone(client), pending.device_code.clone());
        let redemption = async move {
            match client.redeem_device_code(&device_code).await {
                Ok(DeviceLogin::Granted(granted)) => Ok(*granted),
                Ok(DeviceLogin::Pending) => Err(NotBegun::Pending),
                Ok(DeviceLogin::SlowDown) => Err(NotBegun::SlowDown),
                Ok(DeviceLogin::Denied) => Err(NotBegun::Denied),
                Ok(DeviceLogin::Expired) => Err(NotBegun::Expired),
                Err(error) => Err(NotBegun::Refused(error.into())),
            }
        };
        match self.begin_session(redemption).await {
            Ok(begun) => Ok(self.device_login_succeeded(headers, &begun).await),
            Err(NotBegun::Pending) => Ok(still_pending(pending.interval)),
            Err(NotBegun::SlowDown) => {
                let interval = pending.interval + SLOWER;
                let slower = Pending { interval, not_before: now + interval, ..pending };
                let mut response = still_pending(interval);
                response.headers_mut().append(header::SET_COOKIE, self.device_cookie.set(&slower, now));
                Ok(response)
            }
            Err(NotBegun::Denied) => Ok(self.device_login_failed("denied")),
            Err(NotBegun::Expired) => Ok(self.device_login_failed("expired")),
            Err(NotBegun::Refused(refusal)) => {
                let refusal = self.count_failure(refusal);
                // What was answered has used the code up; what was not may be asked again.
                Err(match refusal.code() {
                    Code::LoginFailed => refusal.with_header(header::SET_COOKIE, self.device_cookie.clear()),
                    _ => refusal,
                })
            }
        }
    }

    async fn device_login_succeeded(&self, headers: &HeaderMap, begun: &Begun) -> Response<Body> {
        self.succeed(headers, None, begun, "device_code").await;
        let mut response = self.device_login_over("authenticated");
        let cookies = self.login_cookies.tell_others(headers, "", &begun.cookie, self.clock.now());
        for cookie in [self.sessions.set_cookie(begun.cookie.expose())].into_iter().chain(cookies) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }

    fn device_login_failed(&self, status: &'static str) -> Response<Body> {
        self.sessions.common().metrics().count_login(self.sessions.app(), "failed");
        self.note_failure(status);
        self.device_login_over(status)
    }

    fn device_login_over(&self, status: &'static str) -> Response<Body> {
        let mut response = respond::json(&json!({"status": status}));
        response.headers_mut().append(header::SET_COOKIE, self.device_cookie.clear());
        response
    }
}

impl From<Refusal> for NotBegun {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn still_pending(interval: Duration) -> Response<Body> {
    respond::json(&json!({"status": "pending", "interval": interval.as_secs()}))
}
