//! One call to the issuer: bounded in time (connecting included) and in size, redirects not followed,
//! no proxy of the environment, TLS verified by the machine's roots or an operator's own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use serde_json::{Map, Value};

use super::error::{CallFault, IssuerUnavailable};
use super::json;
use crate::config::{CertificateAuthorities, Identity, Issuer, Oidc};
use crate::connector::{self, BuildError, ClientTls, Connector};
use crate::reloaded::Reload;
use crate::secret::Secret;
use crate::telemetry::trace::Span;

/// An answer's body may have this many bytes.
const LARGEST_BODY: usize = 1024 * 1024;

/// A connection must stand within this time, name, TCP and TLS taken together, or nothing was sent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An issuer's `Retry-After` is believed up to this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// Calls the issuer.
pub(super) struct Http {
    tls: ClientTls,
    /// With its connections, which are those of one certificate.
    client: Mutex<(Arc<ClientConfig>, Client)>,
    timeout: Duration,
}

type Client = legacy::Client<Connector, Full<Bytes>>;

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

impl Http {
    /// The way to this issuer.
    pub(super) fn new(oidc: &Oidc) -> Result<Self, BuildError> {
        Self::to(&oidc.issuer, oidc.ca.as_ref(), oidc.identity.as_ref(), oidc.timeout)
    }

    /// The way to an issuer, or to a transmitter. One on loopback in plain HTTP does without TLS.
    pub(super) fn to(
        issuer: &Issuer,
        ca: Option<&CertificateAuthorities>,
        identity: Option<&Identity>,
        timeout: Duration,
    ) -> Result<Self, BuildError> {
        let tls = if issuer.is_plain() { ClientTls::none()? } else { ClientTls::new(ca, identity)? };
        let config = tls.config();
        let client = client(timeout, &config);
        Ok(Self { tls, client: Mutex::new((config, client)), timeout })
    }

    /// Reads the certificate again that is shown to the issuer, where there is one.
    pub(super) fn reload(&self) -> Option<Reload> {
        self.tls.reload()
    }

    /// A new one once the certificate has changed: what a connection asks for is asked under the certificate
    /// that it began with.
    fn client(&self) -> Client {
        let config = self.tls.config();
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&client.0, &config) {
            let anew = self::client(self.timeout, &config);
            *client = (config, anew);
        }
        client.1.clone()
    }

    /// `GET`, with these fields.
    pub(super) async fn get(
        &self,
        uri: &Uri,
        fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<Answer, CallFault> {
        let mut request = Request::new(Full::default());
        request.uri_mut().clone_from(uri);
        request.headers_mut().extend(fields);
        self.send(request).await
    }

    /// `POST` of a form, with these fields.
    pub(super) async fn post(
        &self,
        uri: &Uri,
        form: String,
        fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<Answer, CallFault> {
        let mut request = Request::new(Full::from(form));
        *request.method_mut() = Method::POST;
        request.uri_mut().clone_from(uri);
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form_type);
        request.headers_mut().extend(fields);
        self.send(request).await
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, CallFault> {
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("cloakroom"));
        let mut span = Span::call(request.method(), || Some(request.uri().clone()));
        let exchange = async {
            let response = self.client().request(request).await.map_err(|error| {
                if error.is_connect() { CallFault::NotSent(error) } else { CallFault::Broken(error.into()) }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_BODY).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() { CallFault::TooLarge } else { CallFault::Broken(error) }
            })?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        let answered = tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(|_elapsed| Err(CallFault::TimedOut(self.timeout)));
        if let Some(span) = &mut span {
            match &answered {
                Ok(answer) => span.answered(answer.status),
                Err(fault) => span.failed(fault.as_str()),
            }
        }
        answered
    }
}

impl Answer {
    /// The body, where it says that it is a JSON object and is one, without duplicate names.
    pub(super) fn json_object(&self) -> Option<Map<String, Value>> {
        if self.is_of("application/json") { json::object(&self.body) } else { None }
    }

    /// The body, where it says that it is a JWT (RFC 7519 §10.3.1).
    pub(super) fn jwt(&self) -> Option<Secret> {
        let text = std::str::from_utf8(&self.body).ok().filter(|_| self.is_of("application/jwt"))?;
        Some(Secret::new(text.trim()))
    }

    fn is_of(&self, media_type: &str) -> bool {
        let field = self.headers.get(CONTENT_TYPE).and_then(|field| field.to_str().ok());
        let own = field.and_then(|field| field.split(';').next()).map(str::trim);
        own.is_some_and(|own| own.eq_ignore_ascii_case(media_type))
    }

    /// The body as a JSON object, whatever it says it is: key sets come as `application/jwk-set+json` too.
    pub(super) fn untyped_json_object(&self) -> Option<Map<String, Value>> {
        json::object(&self.body)
    }

    /// The answer says nothing but that the issuer is in trouble.
    pub(super) fn unavailable(&self) -> IssuerUnavailable {
        IssuerUnavailable::from(CallFault::Status(self.status)).with_retry_after(self.retry_after())
    }

    /// A status that says nothing about the request: its outcome is open, and it may be tried again.
    pub(super) fn is_inconclusive(&self) -> bool {
        !(self.status.is_success() || self.status.is_client_error())
            || matches!(
                self.status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            )
    }

    /// The `error` of an error answer (RFC 6749 §5.2), if it is of the characters that one is made of.
    /// Some issuers send it as `text/plain`: taken for no answer, it would keep a dead session alive.
    pub(super) fn error_code(&self) -> Option<String> {
        match self.untyped_json_object()?.remove("error")? {
            Value::String(code) if is_error_code(&code) => Some(code),
            _ => None,
        }
    }

    /// What the log is told of a refusal.
    pub(super) fn refusal(&self) -> String {
        self.error_code().unwrap_or_else(|| format!("status {}", self.status.as_u16()))
    }

    /// A number of seconds, or a date (RFC 9110 §10.2.3), which is taken by the issuer's own clock.
    fn retry_after(&self) -> Option<Duration> {
        let field = |name| self.headers.get(name)?.to_str().ok();
        let text = field(RETRY_AFTER)?;
        let date = |text| httpdate::parse_http_date(text).ok();
        let wait = match text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => date(text)?.duration_since(date(field(DATE)?)?).ok()?,
        };
        Some(wait.min(LONGEST_RETRY_AFTER))
    }
}

fn client(timeout: Duration, config: &ClientConfig) -> Client {
    // Sooner than the whole call times out, so that it is known that nothing was sent.
    let connector = connector::connector(CONNECT_TIMEOUT.min(timeout / 2), config.clone());
    // `retry_canceled_requests` stays on: hyper gives back only a request of which no byte was
    // written, so what goes out on a new connection, a refresh token or an assertion, is sent for the first time.
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(connector::POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(8)
        .build(connector)
}

/// The characters of all registered codes, and a length that fits a log line. RFC 6749 §5.2 lets more through, a whole
/// token too, which an issuer in trouble may send back.
pub(super) fn is_error_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_of_the_issuers_clock() {
        let wait = |retry_after: &'static str, date: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(retry_after));
            headers.extend(date.map(|date| (DATE, HeaderValue::from_static(date))));
            let answer = Answer { status: StatusCode::SERVICE_UNAVAILABLE, headers, body: Bytes::new() };
            answer.unavailable().retry_after().map(|wait| wait.as_secs())
        };
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(wait("7", None), Some(7));
        assert_eq!(wait("86400", None), Some(3600), "no longer than an hour");
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(30));
        assert_eq!(wait("Mon, 07 Nov 1994 08:49:37 GMT", now), Some(3600));
        for (retry_after, date) in [
            ("soon", now),
            ("-1", now),
            ("Sun, 06 Nov 1994 08:49:36 GMT", now),
            ("Sun, 06 Nov 1994 08:50:07 GMT", None),
        ] {
            assert_eq!(wait(retry_after, date), None, "{retry_after}");
        }
    }

    #[test]
    fn r20_an_error_code_is_short_and_of_clean_characters() {
        assert!(is_error_code("invalid_grant"));
        for text in ["", "in valid", "Ya29-token", "refresh-1", "a\nb", "a\"b", "a\\b", "ü", &"x".repeat(65)]
        {
            assert!(!is_error_code(text), "{text:?}");
        }
    }
}
