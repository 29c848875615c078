//! `GET session`: who is logged in, and for how long. Never a token, and no activity. It says what the store
//! says, or that the store is away.

use http::request::Parts;
use http::{Response, header};
use serde_json::json;

use super::Endpoints;
use crate::body::Body;
use crate::error::Refusal;
use crate::respond;

impl Endpoints {
    pub(super) async fn session(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        let session = match self.ticket(&head.headers)? {
            Some(ticket) => self.sessions.load_stored(&ticket).await?,
            None => None,
        };
        let Some(session) = session else {
            let mut response = respond::json(&json!({"authenticated": false}));
            if self.session_cookie(&head.headers)?.is_some() {
                response.headers_mut().append(header::SET_COOKIE, self.sessions.clear_cookie());
            }
            return Ok(response);
        };
        let now = self.clock.now();
        Ok(respond::json(&json!({
            "authenticated": true,
            "user": session.identity.claims,
            "expires_in": session.ends_at().since(now).as_secs(),
            "idle_expires_in": session.idle_expires_at.since(now).as_secs(),
            "access_token_expires_in": session.tokens.expires_at.since(now).as_secs(),
        })))
    }
}
