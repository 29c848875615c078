//! An answer on its way out in a stream: as fast as the client takes it, and no faster.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::body::Body;
use crate::clock::{Clock, SystemClock};
use crate::telemetry::chain;

/// What says something of a connection in HTTP/1.1, and nothing in HTTP/2 (RFC 9113 §8.2.2).
const CONNECTION_SPECIFIC: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Sends an answer to its end. A client that takes nothing of it for `idle_timeout` has its stream reset.
pub(super) async fn send(
    respond: &Mutex<SendResponse<Bytes>>,
    response: Response<Body>,
    is_head: bool,
    idle_timeout: Duration,
) -> Result<(), h2::Error> {
    let (mut head, body) = response.into_parts();
    let has_no_body = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !has_no_body && !head.headers.contains_key(header::CONTENT_LENGTH) {
        // An answer to HEAD without one says nothing of a length.
        let length = body.size_hint().exact().filter(|length| !is_head || *length > 0);
        if let Some(length) = length {
            head.headers.insert(header::CONTENT_LENGTH, length.into());
        }
    }
    make_fit(&mut head.headers);
    let ends = is_head || has_no_body || body.is_end_stream();
    let head = Response::from_parts(head, ());
    let outgoing = respond.lock().unwrap_or_else(PoisonError::into_inner).send_response(head, ends)?;
    if ends { Ok(()) } else { send_body(outgoing, body, idle_timeout).await }
}

/// Takes out what HTTP/2 does not have, and puts in the date where there is none (RFC 9110 §6.6.1).
pub(super) fn make_fit(headers: &mut HeaderMap) {
    for name in &CONNECTION_SPECIFIC {
        headers.remove(name);
    }
    if !headers.contains_key(header::DATE) {
        let now = UNIX_EPOCH + Duration::from_millis(SystemClock.now().as_millis());
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
            headers.insert(header::DATE, date);
        }
    }
}

async fn send_body(
    mut outgoing: SendStream<Bytes>,
    body: Body,
    idle_timeout: Duration,
) -> Result<(), h2::Error> {
    let mut body = pin!(body);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            reset = poll_fn(|context| outgoing.poll_reset(context)) => return reset.map(drop),
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                tracing::debug!(event = "response.broken_off", error = %chain(&error));
                outgoing.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            None => return outgoing.send_data(Bytes::new(), true),
        };
        match frame.into_data() {
            Ok(data) => {
                let ends = body.is_end_stream();
                match send_data(&mut outgoing, data, ends, idle_timeout).await? {
                    Taken::Whole if ends => return Ok(()),
                    Taken::Whole => {}
                    Taken::Never => {
                        outgoing.send_reset(Reason::CANCEL);
                        return Ok(());
                    }
                }
            }
            Err(frame) => return outgoing.send_trailers(frame.into_trailers().unwrap_or_default()),
        }
    }
}

/// What a client did with a part of an answer.
enum Taken {
    Whole,
    /// It took nothing of it for too long.
    Never,
}

async fn send_data(
    outgoing: &mut SendStream<Bytes>,
    mut data: Bytes,
    ends: bool,
    idle_timeout: Duration,
) -> Result<Taken, h2::Error> {
    while !data.is_empty() {
        outgoing.reserve_capacity(data.len());
        let capacity = poll_fn(|context| outgoing.poll_capacity(context));
        let Ok(capacity) = tokio::time::timeout(idle_timeout, capacity).await else {
            return Ok(Taken::Never);
        };
        let Some(capacity) = capacity.transpose()? else { return Err(Reason::CANCEL.into()) };
        let part = data.split_to(capacity.min(data.len()));
        if !part.is_empty() {
            outgoing.send_data(part, ends && data.is_empty())?;
        }
    }
    Ok(Taken::Whole)
}
