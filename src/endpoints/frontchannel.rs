//! `GET frontchannel-logout`: the issuer has the browser say that somebody has logged out, in a frame of its
//! own page (OpenID Connect Front-Channel Logout 1.0 §3).
//!
//! No cookie comes into a frame of another site. The session is found by `iss` and `sid`, and nobody who
//! does not know the `sid` can end it.

use http::Response;
use http::request::Parts;

use super::{Endpoints, Parameters};
use crate::body::Body;
use crate::error::Refusal;
use crate::respond;
use crate::session::{Cause, Whose};

/// How long a `sid` may be, in bytes.
const LONGEST_SID: usize = 1024;

impl Endpoints {
    /// The answer is the same whatever was ended: it tells nobody which sessions there are.
    pub(super) async fn frontchannel_logout(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        if let Ok(parameters) = Parameters::of(head)
            && let Some(client) = parameters.get("iss").and_then(|issuer| self.clients.of(issuer))
            && let Some(sid) = parameters.get("sid")
            && (1..=LONGEST_SID).contains(&sid.len())
        {
            self.roster.of_client(client).end(Whose::Sid(sid.to_owned()), Cause::Frontchannel).await?;
        }
        let issuers = self.clients.iter().map(|client| client.issuer());
        Ok(respond::logged_out(issuers, &self.reader(&head.headers)))
    }
}
