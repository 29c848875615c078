//! `/sessions`: an operator sees whose sessions there are, and ends them, on all apps and gateways.

use std::collections::BTreeMap;

use http::{Method, Response, Uri};
use serde_json::{Value, json};

use crate::body::Body;
use crate::endpoints::Listed;
use crate::error::{Reason, Refusal};
use crate::gateway::Gateway;
use crate::respond;
use crate::session::{Cause, Whose};

/// The methods it answers, as `Allow` lists them.
pub(super) const METHODS: &str = "GET, HEAD, DELETE";

/// Lists the sessions that are meant, or ends them.
pub(super) async fn answer(method: &Method, uri: &Uri, gateway: &Gateway) -> Result<Response<Body>, Refusal> {
    match *method {
        Method::GET | Method::HEAD => {
            let listed = gateway.roster().list(&whose(uri)?).await?;
            Ok(respond::json(&json!({"sessions": shown(&listed)})))
        }
        Method::DELETE => {
            let ended = gateway.roster().end(whose(uri)?, Cause::Admin).await?;
            Ok(respond::json(&json!({"ended": ended.len(), "sessions": shown(&ended)})))
        }
        _ => Err(Refusal::method_not_allowed(METHODS)),
    }
}

/// `sub` or `sid`. A parameter with another name may be a slip of the pen for one that narrows it down.
fn whose(uri: &Uri) -> Result<Whose, Refusal> {
    let refused = || Refusal::new(Reason::SessionsQuery);
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if value.is_empty() || parameters.insert(name, value.into_owned()).is_some() {
            return Err(refused());
        }
    }
    match (parameters.remove("sub"), parameters.remove("sid"), parameters.is_empty()) {
        (Some(subject), None, true) => Ok(Whose::Subject(subject)),
        (None, Some(sid), true) => Ok(Whose::Sid(sid)),
        (_, _, _) => Err(refused()),
    }
}

/// Nothing that opens anything, and no user: whoever asks knows whom they asked for.
fn shown(sessions: &[Listed]) -> Vec<Value> {
    let mut sessions: Vec<_> = sessions.iter().collect();
    sessions.sort_by_key(|session| (&session.app, session.idle_expires_at));
    let shown = sessions.into_iter().map(|session| {
        json!({
            "app": session.app,
            "issuer": session.issuer,
            "idle_expires_at": session.idle_expires_at.as_secs(),
        })
    });
    shown.collect()
}
