//! A request as it comes in a stream, made such that the gateway sees no difference to HTTP/1.1.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use super::broken;
use super::stream::Stream;

/// Why a request does not reach the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A field is not as HTTP/2 allows it (RFC 9113 §8.2.1).
    Malformed,
    /// There are more fields than are let through.
    TooManyFields,
}

/// Joins the crumbs of a cookie (RFC 9113 §8.2.3), and counts the fields as they are then.
pub(super) fn make_fit(headers: &mut HeaderMap, most: usize) -> Result<(), Unfit> {
    // Space at an end is taken for a part of the value by some, and not by others.
    let is_padded = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        bytes.first().into_iter().chain(bytes.last()).any(|byte| matches!(byte, b' ' | b'\t'))
    };
    if headers.values().any(is_padded) {
        return Err(Unfit::Malformed);
    }
    let crumbs: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1 {
        let joined = crumbs.join(&b"; "[..]);
        let joined = HeaderValue::from_bytes(&joined).map_err(|_| Unfit::Malformed)?;
        headers.insert(header::COOKIE, joined);
    }
    if headers.len() > most { Err(Unfit::TooManyFields) } else { Ok(()) }
}

/// The body of a request: what is read of it, the client may send again. A client that sends nothing for too
/// long while it is read has broken off; while nobody reads, no time runs.
pub(super) struct RequestBody {
    incoming: RecvStream,
    stream: Arc<Stream>,
    idle_timeout: Duration,
    /// Since the client was last waited for.
    patience: Option<Pin<Box<Sleep>>>,
    expects_continue: bool,
    has_data: bool,
}

impl RequestBody {
    pub(super) fn new(
        incoming: RecvStream,
        idle_timeout: Duration,
        expects_continue: bool,
        stream: Arc<Stream>,
    ) -> Self {
        Self { incoming, stream, idle_timeout, patience: None, expects_continue, has_data: true }
    }

    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        while self.has_data {
            match ready!(self.incoming.poll_data(context)) {
                Some(Ok(data)) => {
                    // Where the stream is over, nobody sends any more.
                    let _ = self.incoming.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(broken(error)))),
                None => self.has_data = false,
            }
        }
        let trailers = ready!(self.incoming.poll_trailers(context));
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).map_err(broken).transpose())
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let frame = this.poll_incoming(context);
        if frame.is_ready() {
            this.patience = None;
            return frame;
        }
        if std::mem::take(&mut this.expects_continue) {
            this.stream.ask_for_body();
        }
        let limit = this.idle_timeout;
        let patience = this.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(patience.as_mut().poll(context));
        this.stream.note_standstill();
        Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        fields.collect::<Vec<_>>().into_iter().fold(HeaderMap::new(), |mut all, (name, value)| {
            all.append::<http::HeaderName>(name, value);
            all
        })
    }

    #[test]
    fn r26_crumbs_are_one_field_and_count_as_one() {
        let mut crumbs = headers(&[("cookie", "a=1"), ("x-kept", "1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        assert_eq!(make_fit(&mut crumbs, 2), Ok(()));
        assert_eq!(crumbs.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
        assert_eq!(make_fit(&mut crumbs, 1), Err(Unfit::TooManyFields));
    }

    #[test]
    fn space_at_the_end_of_a_value_is_malformed() {
        for value in [" a", "a ", "\ta", "a\t"] {
            assert_eq!(make_fit(&mut headers(&[("x-a", value)]), 9), Err(Unfit::Malformed), "{value:?}");
        }
        assert_eq!(make_fit(&mut headers(&[("x-a", ""), ("x-b", "a b")]), 9), Ok(()));
    }
}
