//! What a route answers: an upstream's response, or a file.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, header};

use super::app::{App, User};
use super::connection::Connection;
use super::route;
use crate::body::{self, Body};
use crate::config::{self, Auth, Token};
use crate::error::{Code, Refusal};
use crate::files::Files;
use crate::proxy::body::{Replay, bounded};
use crate::proxy::headers::{self, Facts};
use crate::proxy::tunnel::{Tunnel, is_handshake};
use crate::proxy::{self, Answer, Upstream};
use crate::refresh::Failure;
use crate::respond::{self, Audience};
use crate::secret::Secret;
use crate::session::{Session, cookie};
use crate::telemetry::RequestId;

/// The media type of server-sent events.
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// One exchange with an upstream, and one more where the token was refused.
pub(super) struct Exchange<'a> {
    pub(super) app: &'a App,
    pub(super) rules: &'a config::Route,
    pub(super) upstream: &'a Upstream,
    pub(super) path: PathAndQuery,
    pub(super) connection: Connection,
    pub(super) request_id: RequestId,
}

impl Exchange<'_> {
    pub(super) async fn run(
        &self,
        mut request: Request<Body>,
        user: Option<User>,
    ) -> Result<Response<Body>, Refusal> {
        let user = match user {
            Some(user) => Some(self.app.freshen(user, self.rules).await?),
            None => None,
        };
        if content_length(&request).is_some_and(|length| length > self.app.body_bytes) {
            return Err(Refusal::new(Code::TooLarge, "The body is larger than is let through here."));
        }
        let client = is_handshake(&request).then(|| self.connection.client.tunnel_end());
        cookie::remove(request.headers_mut(), |name| self.app.owns_cookie(name));
        let request = request.map(|incoming| bounded(incoming, self.app.body_bytes));

        let ticket = user.as_ref().map(|user| user.ticket.clone());
        let Answer { mut response, tunnel } = match user {
            Some(user) if self.rules.token == Token::AccessToken => {
                self.send_with_token(request, user).await?
            }
            Some(_) | None => self.prepare(self.send(request, None).await?, None),
        };
        if let (Some(client), Some(upstream)) = (client, tunnel) {
            self.connection.client.becomes_tunnel();
            proxy::tunnel::write_handshake(response.headers_mut());
            self.app.open_tunnel(Tunnel { client, upstream }, ticket, Arc::clone(&self.connection.client));
        } else if is_event_stream(&response) {
            let end = self.app.end_of_endless(ticket);
            response = response.map(|body| proxy::body::until(body, end));
        }
        Ok(response)
    }

    /// An upstream that finds the token dead before its time gets a fresh one, once, and the request
    /// once more where its body can be sent again.
    async fn send_with_token(&self, request: Request<Body>, user: User) -> Result<Answer, Refusal> {
        let (request, replay) = Replay::record(request);
        let token = &user.session.tokens.access_token;
        let answer = self.send(request, Some(token)).await?;
        if !proxy::refuses_token(&answer.response) {
            return Ok(self.prepare(answer, Some(token)));
        }
        let Some(again) = replay.again() else { return Ok(self.prepare(answer, Some(token))) };
        match Box::pin(self.app.refresher.replace_refused(&user.ticket, &user.session)).await {
            Some(Ok(session)) => {
                check_scopes(&session, self.rules)?;
                let token = &session.tokens.access_token;
                let answer = self.send(again, Some(token)).await?;
                if !proxy::refuses_token(&answer.response) {
                    self.app.refresher.note_accepted(&user.ticket);
                }
                Ok(self.prepare(answer, Some(token)))
            }
            Some(Err(failure @ (Failure::Ended | Failure::Gone))) => Err(self.app.explain(failure)),
            // No other token is to be had: the upstream's own word stands.
            Some(Err(Failure::Issuer { .. } | Failure::Store(_))) | None => {
                Ok(self.prepare(answer, Some(token)))
            }
        }
    }

    async fn send(&self, mut request: Request<Body>, token: Option<&Secret>) -> Result<Answer, Refusal> {
        if let Some(hints) = Arc::clone(&self.connection.client).early_hints() {
            request.extensions_mut().insert(hints);
        }
        let peer = self.connection.peer.ip();
        let facts = Facts {
            origin: &self.app.told_origin,
            peer,
            peer_is_trusted: self.app.trusts(peer),
            request_id: self.request_id,
        };
        Ok(self.upstream.forward(request, &self.path, token, &facts, self.app.random).await?)
    }

    fn prepare(&self, mut answer: Answer, token: Option<&Secret>) -> Answer {
        let owns_cookie = |name: &str| self.app.owns_cookie(name);
        // Where a session may change the answer, the one for nobody is not everybody's either.
        let depends_on_session = self.rules.auth != Auth::None;
        headers::prepare_response(answer.response.headers_mut(), owns_cookie, token, depends_on_session);
        answer
    }
}

/// Answers with a file; where there is none, with a refusal for whoever asked.
pub(super) async fn serve_file(
    files: &Files,
    segments: usize,
    request: Request<Body>,
    audience: Audience,
    depends_on_session: bool,
) -> Response<Body> {
    let path = route::without_segments(request.uri().path(), segments).to_owned();
    let mut response = files.serve(request, &path).await.map(body::boxed);
    let refusal = match response.status() {
        StatusCode::NOT_FOUND => Some(Refusal::new(Code::NotFound, "No file has this path.")),
        StatusCode::METHOD_NOT_ALLOWED => Some(Refusal::method_not_allowed("GET, HEAD")),
        StatusCode::INTERNAL_SERVER_ERROR => {
            Some(Refusal::new(Code::Internal, "The file could not be read."))
        }
        _ => None,
    };
    if let Some(refusal) = refusal {
        let mut answer = respond::refusal(&refusal, audience);
        // R50 holds for what is no file too; where the answer is stricter, its own word stands.
        for (name, value) in response.headers() {
            if !answer.headers().contains_key(name) {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        return answer;
    }
    if depends_on_session {
        headers::keep_from_shared_caches(response.headers_mut());
    }
    response
}

/// Looked at after each refresh, which may have shrunk the scope (R32).
pub(super) fn check_scopes(session: &Session, rules: &config::Route) -> Result<(), Refusal> {
    if rules.required_scopes.iter().all(|scope| session.tokens.scopes.contains(scope)) {
        return Ok(());
    }
    Err(Refusal::new(Code::Forbidden, "The session lacks a scope that is needed here."))
}

/// A stream that goes on for as long as the browser listens, and must outlive neither its session nor the gateway.
fn is_event_stream<B>(response: &Response<B>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let begin = content_type.and_then(|media| media.get(..EVENT_STREAM.len()));
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(EVENT_STREAM))
}

fn content_length<B>(request: &Request<B>) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
