//! What a route answers: an upstream's response, or a file.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::app::{App, User, check_scopes};
use super::connection::Connection;
use super::route;
use crate::body::{self, Body};
use crate::config::{self, Auth, Token};
use crate::error::{Code, Refusal};
use crate::files::Files;
use crate::proxy::body::{Replay, bounded};
use crate::proxy::headers::{self, Facts};
use crate::proxy::tunnel::{Tunnel, is_handshake};
use crate::proxy::{self, Upstream};
use crate::refresh::Failure;
use crate::respond::{self, Audience};
use crate::secret::Secret;
use crate::session::cookie;

/// One exchange with an upstream, and one more where the token was refused.
pub(super) struct Exchange<'a> {
    pub(super) app: &'a App,
    pub(super) rules: &'a config::Route,
    pub(super) upstream: &'a Upstream,
    pub(super) path: String,
    pub(super) connection: Connection,
    pub(super) request_id: &'a str,
}

impl Exchange<'_> {
    pub(super) async fn run(
        &self,
        mut request: Request<Incoming>,
        user: Option<User>,
    ) -> Result<Response<Body>, Refusal> {
        let user = match user {
            Some(user) => Some(self.app.freshen(user, self.rules).await?),
            None => None,
        };
        if content_length(&request).is_some_and(|length| length > self.app.body_bytes) {
            return Err(Refusal::new(Code::TooLarge, "The body is larger than is let through here."));
        }
        let client = is_handshake(&request).then(|| hyper::upgrade::on(&mut request));
        cookie::remove(request.headers_mut(), |name| self.app.owns_cookie(name));
        let received = Arc::clone(&self.connection.client);
        let request = request
            .map(|incoming| bounded(incoming, self.app.body_bytes, move || received.request_received()));

        let ticket = user.as_ref().map(|user| user.ticket.clone());
        let mut response = match user {
            Some(user) if self.rules.token == Token::AccessToken => {
                self.send_with_token(request, user).await?
            }
            Some(_) | None => self.prepare(self.send(request, None).await?, None),
        };
        if let (Some(client), StatusCode::SWITCHING_PROTOCOLS) = (client, response.status()) {
            self.connection.client.becomes_tunnel();
            proxy::tunnel::write_handshake(response.headers_mut());
            let tunnel = Tunnel { client, upstream: hyper::upgrade::on(&mut response) };
            self.app.open_tunnel(tunnel, ticket, Arc::clone(&self.connection.client));
        } else if let (Some(ticket), true) = (ticket, is_event_stream(&response)) {
            let sessions = Arc::clone(&self.app.sessions);
            let session_ends = async move { sessions.until_ended(&ticket).await };
            response = response.map(|body| proxy::body::until(body, session_ends));
        }
        Ok(response)
    }

    /// An upstream that finds the token dead before its time gets a fresh one, once, and the request
    /// once more where its body can be sent again.
    async fn send_with_token(&self, request: Request<Body>, user: User) -> Result<Response<Body>, Refusal> {
        let (request, replay) = Replay::record(request);
        let token = &user.session.tokens.access_token;
        let response = self.send(request, Some(token)).await?;
        if !proxy::refuses_token(response.status(), response.headers()) {
            return Ok(self.prepare(response, Some(token)));
        }
        let Some(again) = replay.again() else { return Ok(self.prepare(response, Some(token))) };
        match self.app.refresher.replace_refused(&user.ticket, &user.session).await {
            Some(Ok(session)) => {
                check_scopes(&session, self.rules)?;
                let token = &session.tokens.access_token;
                let response = self.send(again, Some(token)).await?;
                if !proxy::refuses_token(response.status(), response.headers()) {
                    self.app.refresher.note_accepted(&user.ticket);
                }
                Ok(self.prepare(response, Some(token)))
            }
            Some(Err(failure @ (Failure::Ended | Failure::Gone))) => Err(self.app.explain(failure)),
            // No other token is to be had: the upstream's own word stands.
            Some(Err(Failure::Issuer { .. } | Failure::Store(_))) | None => {
                Ok(self.prepare(response, Some(token)))
            }
        }
    }

    async fn send(&self, request: Request<Body>, token: Option<&Secret>) -> Result<Response<Body>, Refusal> {
        let peer = self.connection.peer.ip();
        let facts = Facts {
            origin: &self.app.origin,
            peer,
            peer_is_trusted: self.app.trusts(peer),
            request_id: self.request_id,
        };
        Ok(self.upstream.forward(request, &self.path, token, &facts, self.app.random).await?)
    }

    fn prepare(&self, mut response: Response<Body>, token: Option<&Secret>) -> Response<Body> {
        let owns_cookie = |name: &str| self.app.owns_cookie(name);
        // Where a session may change the answer, the one for nobody is not everybody's either.
        let depends_on_session = self.rules.auth != Auth::None;
        headers::prepare_response(response.headers_mut(), owns_cookie, token, depends_on_session);
        response
    }
}

/// Answers with a file; where there is none, with a refusal for whoever asked.
pub(super) async fn serve_file(
    files: &Files,
    segments: usize,
    request: Request<Incoming>,
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

/// A stream that goes on for as long as the browser listens, and must not outlive its session.
fn is_event_stream<B>(response: &Response<B>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|media| media.to_ascii_lowercase().starts_with(b"text/event-stream"))
}

fn content_length<B>(request: &Request<B>) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
