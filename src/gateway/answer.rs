//! What a route answers: an upstream's response, or a file.

use std::pin::pin;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use tokio::time::Instant;

use super::admission::User;
use super::app::App;
use super::bearer::Bearer;
use super::connection::Connection;
use super::{guard, route};
use crate::body::{self, Body};
use crate::config::{self, Auth};
use crate::dpop::nonce_of;
use crate::endpoints::StepUp;
use crate::error::{Reason, Refusal};
use crate::files::Files;
use crate::pages::Pages;
use crate::proxy::body::{Replay, bounded};
use crate::proxy::challenge::{TokenRefusal, refusal_of_token};
use crate::proxy::headers::{self, Facts};
use crate::proxy::tunnel::Tunnel;
use crate::proxy::{self, Answer, Presented, Upstream};
use crate::refresh::ClientToken;
use crate::respond::{self, Audience, Reader};
use crate::secret::Secret;
use crate::session::{Session, cookie};
use crate::telemetry::RequestId;
use crate::telemetry::metrics::Site;

/// The media type of server-sent events.
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// One exchange with an upstream, and one more where the token was refused.
pub(super) struct Exchange<'a> {
    pub(super) app: &'a App,
    pub(super) rules: &'a config::Route,
    pub(super) upstream: &'a Upstream,
    pub(super) site: &'a Site,
    pub(super) client_token: Option<&'a Arc<ClientToken>>,
    pub(super) path: PathAndQuery,
    pub(super) connection: Connection,
    pub(super) request_id: RequestId,
    pub(super) audience: Audience,
    pub(super) is_handshake: bool,
}

impl Exchange<'_> {
    pub(super) async fn run(
        &self,
        mut request: Box<Request<Body>>,
        user: Option<User>,
    ) -> Result<Response<Body>, Refusal> {
        let ticket = user.as_ref().map(|user| user.ticket.clone());
        let bearer = self.app.bearer(user, self.rules, self.client_token).await?;
        if !request.body().is_end_stream()
            && content_length(&request).is_some_and(|length| length > self.app.body_bytes)
        {
            return Err(Refusal::new(Reason::BodyTooLarge));
        }
        let client = self.is_handshake.then(|| self.connection.client.tunnel_end());
        cookie::remove(request.headers_mut(), |name| self.app.owns_cookie(name));
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = bounded(body, self.app.body_bytes);

        let Answer { mut response, tunnel } = match bearer {
            Some(bearer) => self.send_with_token(request, bearer).await?,
            None => self.prepare(self.send(request, None).await?, None),
        };
        if let (Some(client), Some(upstream)) = (client, tunnel) {
            self.connection.client.becomes_tunnel();
            proxy::tunnel::write_handshake(response.headers_mut());
            self.app.open_tunnel(Tunnel { client, upstream }, ticket, Arc::clone(&self.connection.client));
        } else if is_event_stream(&response) {
            let end = self.app.end_of_event_stream(ticket);
            response = response.map(|body| proxy::body::until(body, end));
        }
        Ok(response)
    }

    /// An upstream that finds the token dead before its time gets a fresh one, once, and the request
    /// once more where its body can be sent again.
    async fn send_with_token(
        &self,
        mut request: Box<Request<Body>>,
        bearer: Bearer,
    ) -> Result<Answer, Refusal> {
        let replay = Replay::record(&mut request);
        let wanted = self.wanted_page(&request);
        let answer = self.send_with_nonce(request, &replay, &bearer).await?;
        let again = match refusal_of_token(&answer.response) {
            Some(TokenRefusal::Invalid) => replay.again(),
            Some(TokenRefusal::InsufficientAuthentication { .. } | TokenRefusal::NonceRequired) | None => {
                None
            }
        };
        let Some(again) = again else { return self.conclude(answer, &bearer, wanted.as_deref()) };
        // Where no other token is to be had, the upstream's own word stands.
        let Some(bearer) = Box::pin(self.app.replace_refused(&bearer, self.rules)).await? else {
            return self.conclude(answer, &bearer, wanted.as_deref());
        };
        let answer = self.send_with_nonce(Box::new(again), &replay, &bearer).await?;
        if refusal_of_token(&answer.response) != Some(TokenRefusal::Invalid) {
            bearer.note_accepted(self.app);
        }
        self.conclude(answer, &bearer, wanted.as_deref())
    }

    /// An upstream that wants a nonce in the proof, and gives one, is sent the same once more (RFC 9449 §9).
    async fn send_with_nonce(
        &self,
        request: Box<Request<Body>>,
        replay: &Replay,
        bearer: &Bearer,
    ) -> Result<Answer, Refusal> {
        let key = bearer.dpop_key().filter(|_| self.rules.dpop);
        let presented = || {
            let key = key.map(|key| (key, self.app.sessions.common().now()));
            bearer.token().map(|token| Presented { token, key })
        };
        let answer = self.send(request, presented()).await?;
        let gives_wanted_nonce = key.is_some()
            && refusal_of_token(&answer.response) == Some(TokenRefusal::NonceRequired)
            && nonce_of(answer.response.headers()).is_some();
        if !gives_wanted_nonce {
            return Ok(answer);
        }
        match replay.again() {
            Some(again) => self.send(Box::new(again), presented()).await,
            None => Ok(answer),
        }
    }

    /// What becomes of an answer to a request that carried the session's token. Where the user is to prove better who
    /// they are (RFC 9470), no token helps, and the upstream's challenge is for us: the app learns where that is done.
    fn conclude(&self, answer: Answer, bearer: &Bearer, wanted: Option<&str>) -> Result<Answer, Refusal> {
        match (refusal_of_token(&answer.response), bearer) {
            (
                Some(TokenRefusal::InsufficientAuthentication { acr_values, max_age }),
                Bearer::Session(user, _),
            ) => {
                let step_up = StepUp::new(acr_values.as_deref(), max_age.as_deref());
                let response = self.ask_for_step_up(&step_up, &user.session, wanted)?;
                Ok(Answer { response, tunnel: None })
            }
            (_, bearer) => Ok(self.prepare(answer, bearer.token())),
        }
    }

    /// A person is sent to a login that brings what is missing, a script is told where it begins. Once that login was
    /// made, and the upstream still says so, neither is sent there again.
    fn ask_for_step_up(
        &self,
        step_up: &StepUp,
        session: &Session,
        wanted: Option<&str>,
    ) -> Result<Response<Body>, Refusal> {
        if step_up.was_just_brought_by(session, self.app.sessions.common().now()) {
            return Err(Refusal::new(Reason::StepUpInsufficient));
        }
        let issuer = self.app.has_several_issuers.then_some(session.identity.issuer.as_str());
        let location = step_up.login_location(&self.app.base_path, issuer, wanted);
        if wanted.is_some() {
            return Ok(respond::see_other(&location));
        }
        Err(Refusal::new(Reason::StepUpNeeded).with_login_url(location))
    }

    /// What a person navigates to, who can be sent to login and back without a loss.
    fn wanted_page(&self, request: &Request<Body>) -> Option<String> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_page = is_read && self.audience == Audience::Page;
        is_page.then(|| request.uri().path_and_query().map_or("/", |wanted| wanted.as_str()).to_owned())
    }

    async fn send(
        &self,
        mut request: Box<Request<Body>>,
        presented: Option<Presented<'_>>,
    ) -> Result<Answer, Refusal> {
        if let Some(hints) = Arc::clone(&self.connection.client).early_hints() {
            request.extensions_mut().insert(hints);
        }
        let (peer, began) = (self.connection.peer.ip(), Instant::now());
        let facts = Facts {
            origin: &self.app.told_origin,
            peer,
            peer_is_trusted: self.app.trusts(peer),
            request_id: self.request_id,
            is_handshake: self.is_handshake,
        };
        let mut span = self.upstream.span(&request, &self.path);
        let mut exchange =
            pin!(self.upstream.forward(request, &self.path, presented, &facts, self.app.random, began));
        let answered = match &span {
            Some(span) => Box::pin(span.within(exchange.as_mut())).await,
            None => exchange.await,
        };
        self.site.count_exchange(began.elapsed());
        if let Some(span) = &mut span {
            match &answered {
                Ok(answer) => span.answered(answer.response.status()),
                Err(error) => span.failed(error.as_str()),
            }
        }
        Ok(answered?)
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
    pages: &Pages,
) -> Response<Body> {
    let language = guard::language(&request, audience);
    let path = route::without_segments(request.uri().path(), segments).to_owned();
    let mut response = files.serve(request, &path).await.map(body::boxed);
    let refusal = match response.status() {
        StatusCode::NOT_FOUND => Some(Refusal::new(Reason::NoFile)),
        StatusCode::METHOD_NOT_ALLOWED => Some(Refusal::method_not_allowed("GET, HEAD")),
        StatusCode::INTERNAL_SERVER_ERROR => Some(Refusal::new(Reason::FileUnreadable)),
        _ => None,
    };
    if let Some(refusal) = refusal {
        let mut answer = respond::refusal(&refusal, audience, &Reader::new(pages, language));
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

/// A stream that goes on for as long as the browser listens, and must outlive neither its session nor the gateway.
fn is_event_stream<B>(response: &Response<B>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let begin = content_type.and_then(|media| media.get(..EVENT_STREAM.len()));
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(EVENT_STREAM))
}

fn content_length<B>(request: &Request<B>) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
