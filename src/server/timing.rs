//! The time limits of one connection (R65): a silent connection, a head that comes in drop by drop, and a
//! body or a reader that stands still.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::body::{Body, BodyError};

/// How long a client that sends nothing may leave a connection half closed.
const LINGERS_IN_SILENCE: Duration = Duration::from_millis(500);

/// What a connection waits for.
#[derive(Debug)]
pub(super) struct Timing {
    phase: AtomicU8,
    /// The answer is there for which the client has waited without being idle.
    has_waited: AtomicBool,
    header_timeout: Duration,
    idle_timeout: Duration,
}

/// A request's head is awaited: the first from the start on, each later one from its first byte on.
const HEAD: u8 = 0;
/// A request is being read or answered.
const REQUEST: u8 = 1;
/// An answer was sent, and nothing has come since.
const BETWEEN: u8 = 2;
/// The connection carries another protocol, whose time is kept elsewhere.
const TUNNEL: u8 = 3;

/// A request was read whole, and the client waits for the answer: whose time that is, is another's to say.
const WAITING: u8 = 4;

/// Marks that a request is being answered, until it is dropped.
pub(super) struct RequestUnderWay(Arc<Timing>);

impl Timing {
    pub(super) fn new(header_timeout: Duration, idle_timeout: Duration) -> Self {
        let has_waited = AtomicBool::new(false);
        Self { phase: AtomicU8::new(HEAD), has_waited, header_timeout, idle_timeout }
    }

    pub(super) fn begin_request(self: &Arc<Self>) -> RequestUnderWay {
        self.phase.store(REQUEST, Ordering::Relaxed);
        RequestUnderWay(Arc::clone(self))
    }

    /// The request has come to its end.
    pub(super) fn request_received(&self) {
        let _ = self.phase.compare_exchange(REQUEST, WAITING, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn becomes_tunnel(&self) {
        self.phase.store(TUNNEL, Ordering::Relaxed);
    }
}

impl RequestUnderWay {
    /// The answer is there; keeps the mark until its body was sent.
    pub(super) fn until_sent(self, body: Body) -> impl HttpBody<Data = Bytes, Error = BodyError> {
        self.0.has_waited.store(true, Ordering::Relaxed);
        let _ = self.0.phase.compare_exchange(WAITING, REQUEST, Ordering::Relaxed, Ordering::Relaxed);
        Sending { body, _under_way: self }
    }
}

impl Drop for RequestUnderWay {
    fn drop(&mut self) {
        let phase = &self.0.phase;
        let _ = phase.compare_exchange(REQUEST, BETWEEN, Ordering::Relaxed, Ordering::Relaxed);
    }
}

struct Sending {
    body: Body,
    _under_way: RequestUnderWay,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that fails once its time is up.
#[derive(Debug)]
pub(super) struct TimedStream<S> {
    stream: S,
    timing: Arc<Timing>,
    /// When the head that is awaited must be there.
    head_due: Instant,
    /// When a byte last moved, in either direction.
    moved: Instant,
    alarm: Pin<Box<Sleep>>,
    /// Until when what still comes is read, once nothing more is written.
    lingers_until: Option<Instant>,
}

impl<S> TimedStream<S> {
    pub(super) fn new(stream: S, timing: Arc<Timing>) -> Self {
        let now = Instant::now();
        let head_due = now + timing.header_timeout;
        let alarm = Box::pin(tokio::time::sleep_until(head_due));
        Self { stream, timing, head_due, moved: now, alarm, lingers_until: None }
    }

    fn note_progress(&mut self, read: bool) {
        self.moved = Instant::now();
        let phase = &self.timing.phase;
        if read && phase.compare_exchange(BETWEEN, HEAD, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.head_due = self.moved + self.timing.header_timeout;
        }
    }

    /// Fails where the time is up; otherwise sees to it that the task wakes when it will be.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.timing.has_waited.swap(false, Ordering::Relaxed) {
            self.moved = Instant::now();
        }
        let due = match self.timing.phase.load(Ordering::Relaxed) {
            TUNNEL | WAITING => return Ok(()),
            HEAD => self.head_due,
            _ => self.moved + self.timing.idle_timeout,
        };
        if self.alarm.deadline() != due {
            self.alarm.as_mut().reset(due);
        }
        match self.alarm.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn watch<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
        moved: impl FnOnce(&T) -> Option<bool>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Ok(done)) => {
                if let Some(read) = moved(&done) {
                    self.note_progress(read);
                }
                // No time ran while the client waited; from this answer on it does again.
                if self.timing.has_waited.load(Ordering::Relaxed) {
                    self.check(context)?;
                }
                Poll::Ready(Ok(done))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match self.check(context) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() > before;
        self.watch(polled, context, |()| read.then_some(true))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(polled, context, |_| Some(false))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(polled, context, |_| Some(false))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(polled, context, |()| None)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let until = match self.lingers_until {
            Some(until) => until,
            None => {
                let polled = Pin::new(&mut self.stream).poll_shutdown(context);
                ready!(self.watch(polled, context, |()| None))?;
                // In a tunnel, what still comes is for the other end.
                if self.timing.phase.load(Ordering::Relaxed) == TUNNEL {
                    return Poll::Ready(Ok(()));
                }
                self.moved = Instant::now();
                let until = self.moved + self.timing.header_timeout;
                self.lingers_until = Some(until);
                until
            }
        };
        self.linger(until, context).map(Ok)
    }
}

impl<S: AsyncRead + Unpin> TimedStream<S> {
    /// Reads what a client still sends, and forgets it: to close with bytes unread resets the connection,
    /// and the client may lose the answer that told it to stop (RFC 9112 §9.6).
    fn linger(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; 16 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.moved = Instant::now(),
                Poll::Ready(Ok(()) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        self.alarm.as_mut().reset(until.min(self.moved + LINGERS_IN_SILENCE));
        self.alarm.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    fn connection() -> (Arc<Timing>, TimedStream<DuplexStream>, DuplexStream) {
        let timing = Arc::new(Timing::new(HEADER, IDLE));
        let (ours, theirs) = duplex(64);
        (Arc::clone(&timing), TimedStream::new(ours, timing), theirs)
    }

    async fn times_out_after(stream: &mut TimedStream<DuplexStream>) -> Duration {
        let started = Instant::now();
        let mut byte = [0];
        loop {
            match stream.read(&mut byte).await {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    return started.elapsed();
                }
            }
        }
    }

    fn about(seconds: u64) -> std::ops::Range<Duration> {
        Duration::from_secs(seconds)..Duration::from_millis(seconds * 1000 + 10)
    }

    #[tokio::test(start_paused = true)]
    async fn r65_a_silent_connection_ends_with_the_header_timeout() {
        let (_, mut stream, _theirs) = connection();
        assert!(about(10).contains(&times_out_after(&mut stream).await));
    }

    #[tokio::test(start_paused = true)]
    async fn r65_a_head_that_drips_in_gets_no_more_time() {
        let (_, mut stream, mut theirs) = connection();
        let dripping = tokio::spawn(async move {
            while theirs.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        assert!(about(10).contains(&times_out_after(&mut stream).await));
        dripping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_a_connection_may_be_idle_but_the_next_head_is_due_from_its_first_byte_on() {
        let (timing, mut stream, mut theirs) = connection();
        drop(timing.begin_request());
        tokio::time::sleep(Duration::from_secs(30)).await;
        theirs.write_all(b"G").await.unwrap();
        assert!(about(10).contains(&times_out_after(&mut stream).await));

        let (timing, mut stream, _theirs) = connection();
        drop(timing.begin_request());
        assert!(about(75).contains(&times_out_after(&mut stream).await));
    }

    #[tokio::test(start_paused = true)]
    async fn r65_a_reader_that_stands_still_is_cut_off() {
        let (timing, mut stream, _theirs) = connection();
        let _under_way = timing.begin_request();
        let written = stream.write_all(&[0; 1000]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn r65_who_still_sends_is_heard_out_before_the_connection_closes_but_not_for_ever() {
        let (_, mut stream, mut theirs) = connection();
        let sending = tokio::spawn(async move {
            while theirs.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let started = Instant::now();
        stream.shutdown().await.unwrap();
        assert!(about(10).contains(&started.elapsed()));
        sending.abort();

        let (_, mut stream, _theirs) = connection();
        let started = Instant::now();
        stream.shutdown().await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_answer_is_not_idle_and_has_its_whole_time_again_to_take_it() {
        let (timing, mut stream, mut theirs) = connection();
        theirs.write_all(b"G").await.unwrap();
        stream.read_u8().await.unwrap();
        let under_way = timing.begin_request();
        timing.request_received();
        let waited = tokio::time::timeout(IDLE * 10, stream.read_u8()).await;
        assert!(waited.is_err(), "nothing has ended the wait");
        let _sending = under_way.until_sent(crate::body::full("answer"));
        assert!(about(75).contains(&times_out_after(&mut stream).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_keeps_its_own_time() {
        let (timing, mut stream, mut theirs) = connection();
        timing.becomes_tunnel();
        let reading = tokio::spawn(async move { stream.read_u8().await });
        tokio::time::sleep(IDLE * 10).await;
        theirs.write_all(b"x").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), b'x');
    }
}
